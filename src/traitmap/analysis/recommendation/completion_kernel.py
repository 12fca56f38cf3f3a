"""What is believed of a table of gains before it is measured: a Gaussian prior as a sum of named terms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from traitmap.analysis.pair_features import PairFeatures
from traitmap.matrix_record import Array

Places = NDArray[np.intp]


@dataclass(frozen=True)
class Term:
    """One independent part of a table: its covariance is variance x source x target x pair.

    source: (S, S), target: (T, T) and pair: (S, T, F, inner product) similarities; None stands for ones.
    variance: what is typical, in squared units of the target. spread: standard deviation of its logarithm.
    """

    name: str
    variance: float
    source: Array | None = None
    target: Array | None = None
    pair: Array | None = None
    spread: float = 1.0

    def covariance(self, one: Places, other: Places) -> Array:
        """(n, m) of unit variance, between places (n, 2) and (m, 2) of the table."""
        found = np.ones((len(one), len(other)))
        if self.source is not None:
            found *= self.source[np.ix_(one[:, 0], other[:, 0])]
        if self.target is not None:
            found *= self.target[np.ix_(one[:, 1], other[:, 1])]
        if self.pair is not None:
            found *= self.pair[one[:, 0], one[:, 1]] @ self.pair[other[:, 0], other[:, 1]].T
        return found


@dataclass(frozen=True)
class Prior:
    """terms: what the table is the sum of, over (S, T) places; the last is each cell's own.

    rank: components z_s l_t that are common to the sources, with loadings l (T, rank) to be found.
    expected: (S, T) prior mean, in units of the target.
    """

    shape: tuple[int, int]
    terms: tuple[Term, ...]
    rank: int
    expected: Array


def make_prior(
    sources: Sequence[str],
    targets: Sequence[str],
    features: PairFeatures | None = None,
    *,
    rank: int = 1,
    own_target: float = 1.0,
) -> Prior:
    """The prior of a table of gains over the base.

    Effects of targets and of sources, ``rank`` components, an effect of training on the target itself
    (source and target of one name; ``own_target`` units are expected), and each cell's own part. With
    features also: effects linear in them, sources and targets that are alike in all their features acting
    alike, and products of these likenesses (a stationary kernel over pairs, as in E. Bonilla et al., NIPS
    2007).
    """
    shape = len(sources), len(targets)
    each_source, each_target = np.eye(shape[0]), np.eye(shape[1])
    own = np.array([[float(s == t) for t in targets] for s in sources]).reshape(shape)
    terms = [
        Term("all", 0.1),
        Term("target", 0.5, target=each_target),
        Term("source", 0.3, source=each_source),
    ]
    if own.any():
        terms.append(Term("own target", 0.5, pair=own[:, :, None]))
        terms.append(Term("each own target", 0.5, pair=own[:, :, None], target=each_target))
    if features is not None and features.features:
        terms += _feature_terms(features)
    terms.append(Term("cell", 0.3, source=each_source, target=each_target))
    return Prior(shape, tuple(terms), min(rank, min(shape) - 1), own_target * own)


def _feature_terms(features: PairFeatures) -> list[Term]:
    pairs = standardised_features(features)
    columns = pairs.transpose(1, 0, 2)
    sources, targets = alike(pairs.reshape(len(pairs), -1)), alike(columns.reshape(len(columns), -1))
    both = alike(pairs.reshape(-1, pairs.shape[2])) if pairs.shape[0] * pairs.shape[1] <= 4_000 else None
    terms = [
        Term("linear in features", 0.1, pair=pairs / np.sqrt(pairs.shape[2])),
        Term("like sources", 0.2, source=sources),
        Term("like sources on like targets", 0.2, source=sources, target=targets),
        Term("like sources on each target", 0.2, source=sources, target=np.eye(pairs.shape[1])),
    ]
    if both is not None:
        terms.append(Term("like pairs", 0.2, pair=_root(both).reshape(*pairs.shape[:2], -1)))
    return terms


def standardised_features(features: PairFeatures) -> Array:
    """(S, T, F) with mean 0 and standard deviation 1 over all pairs; unknown ones stand at the mean."""
    values = np.asarray(features.array, dtype=float)
    known = np.isfinite(values)
    count = np.maximum(known.sum(axis=(0, 1)), 1)
    mean = np.where(known, values, 0.0).sum(axis=(0, 1)) / count
    centred = np.where(known, values - mean, 0.0)
    spread = np.sqrt((centred**2).sum(axis=(0, 1)) / count)
    varies = spread > 1e-12 * (1 + np.abs(mean))
    if not varies.any():
        return np.zeros((*values.shape[:2], 1))
    return np.clip(centred[:, :, varies] / spread[varies], -5.0, 5.0)


def alike(profiles: Array) -> Array:
    """(n, n) exp(-d^2 / median d^2) between rows (n, F): 1 for the same, 1/e for two typical ones."""
    squares = (profiles**2).sum(axis=1)
    distance = np.maximum(squares[:, None] + squares[None, :] - 2 * profiles @ profiles.T, 0.0)
    other = distance[~np.eye(len(profiles), dtype=bool)]
    typical = float(np.median(other)) if other.size else 0.0
    return np.exp(-distance / typical) if typical > 0 else np.ones_like(distance)


def _root(kernel: Array) -> Array:
    """(n, k) whose inner products give the kernel, to one part in a million."""
    values, vectors = np.linalg.eigh(kernel)
    kept = values > 1e-6 * values[-1]
    return np.asarray(vectors[:, kept] * np.sqrt(values[kept]))
