"""Gains on all items of a target from a random part of them, with the help of rows that were asked all.

Base and some rows (the *anchors*) have answered all items. What another row does on its own random part is
predicted from their answers by a ridge regression, and the part corrects the prediction: the regression
estimator of survey sampling (W. Cochran, Sampling Techniques, 3rd edition, 1977, chapter 7), today called
prediction-powered inference (A. Angelopoulos et al., Science 382:669-674, 2023). It is right whatever the
regression is worth; a poor one only saves nothing. Errors come from residuals of items that had no part in
the fit (five folds). Two questions, two errors:

within    how far may the estimate be from the gain on all items of the target? Only the residuals of items
          that were not asked count: the error is 0 where all are.
at large  how far from the gain on items like these, which every interval and test of traitmap is about? The
          plain interval of the row's own items, narrowed by the part of its variance that is predicted.

Arrays in, arrays out. Which anchors, and why no clusters of items: ``docs/ask-less.md``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from traitmap.matrix.record import Array
from traitmap.matrix.statistics import (
    CONFIDENCE,
    Groups,
    grouped,
    numbered_groups,
    paired_gain,
    pooled_test,
    t_value,
)

FOLDS = 5
FEWEST = 10  # items, below which nothing is predicted


@dataclass(frozen=True)
class AssistedGain:
    """Gains of K rows, each (K,): limits and p-value at large, ``within`` half the width to all items.

    within is what asking the remaining items could still change, at the same confidence as the limits; NaN
    where nothing varies.
    """

    gain: Array
    low: Array
    high: Array
    p: Array
    within: Array


@dataclass(frozen=True)
class Anchors:
    """What helps a row that was asked a random part of a target's N items.

    known: (R, N) scores of the base and of the rows that were asked every item, means over their seeds.
    items: (m,) places of the items that the row was asked, in the order of its scores. groups: (N,) of items
    that repeat or belong together.
    """

    known: Array
    items: NDArray[np.int64]
    groups: Groups | None = None

    def of(self, asked: NDArray[np.bool_]) -> Anchors:
        """The same for a row that knows some (m,) of the asked items."""
        return replace(self, items=self.items[asked])


def anchors_of(
    scores: Array, rows: Sequence[int], items: NDArray[np.int64], groups: Groups | None = None
) -> Anchors | None:
    """Anchors among the scores (1 + S, seeds, N) of a target, the base first; None where the base has a hole.

    rows: places (0 to S - 1) of rows that were to be asked every item; those that lack one are left out.
    """
    pooled = scores[[0, *(1 + row for row in rows)]].mean(axis=1)
    whole = np.isfinite(pooled).all(axis=1)
    return Anchors(pooled[whole], items, groups) if whole[0] else None


def recorded_anchors(
    asking: Any,
    target: str,
    sources: Sequence[str],
    scores: Array,
    items: NDArray[np.int64],
    groups: Groups | None = None,
) -> Anchors | None:
    """Anchors of a target by what a run keeps of its asking (``Parts.asking``); None where it has none.

    sources: of the rows of scores (1 + S, seeds, N) but the first.
    """
    names = asking.get("anchors") if isinstance(asking, Mapping) else None
    if names is None or target not in asking.get("looks", ()):
        return None
    return anchors_of(scores, [s for s, name in enumerate(sources) if name in names], items, groups)


def assisted_gain(
    differences: Array, anchors: Anchors, *, binary: bool, confidence: float = CONFIDENCE
) -> AssistedGain:
    """Gains of K rows on all N items, each asked the same m of them, a random part.

    differences: (K, S, m) of row and base (or of any two rows) on the asked items, for S seeds, none NaN.
    binary: of 0/1 scores; two pseudo-items then keep few changes, or none, from passing for certainty.
    Items that belong together are the sample, and share a fold. Where prediction is worth nothing on this
    part (or m is below 10) the plain gain stands.
    """
    known, items, groups = anchors.known, anchors.items, anchors.groups
    of_asked = None if groups is None else numbered_groups(groups[items])
    gain, low, high, p = paired_gain(differences, binary=binary, groups=of_asked, confidence=confidence)
    by_item = differences.mean(axis=1)
    count = len(items) if of_asked is None else int(of_asked.max()) + 1
    rest = 1 - len(items) / known.shape[1]
    pseudo = 1.0 if binary else 0.0
    spread = _squares(by_item, of_asked) + pseudo
    residual = spread
    estimate = gain
    if len(items) >= FEWEST and count > FOLDS:
        folds = np.arange(len(items)) % FOLDS if of_asked is None else of_asked % FOLDS
        residual = _squares(_residuals(by_item, known[:, items], folds), of_asked) + pseudo
        estimate = _ridge(known[:, items], by_item, known).mean(axis=1)
    helps = residual < spread
    residual, estimate = np.where(helps, residual, spread), np.where(helps, estimate, gain)
    size = count + 2 if binary else count
    within = t_value(max(count - 1, 1), confidence) * np.sqrt(residual / (size - 1) / size * rest)
    within = np.where(spread > 0, within, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        narrowed = np.sqrt(np.where(spread > 0, 1 - (1 - residual / spread) * rest, 1.0))
    if differences.shape[1] > 1:
        low, high, p = _several_seeds(differences, estimate, narrowed, of_asked, binary, confidence)
    else:
        low, high = estimate - (gain - low) * narrowed, estimate + (high - gain) * narrowed
        error = np.sqrt(spread / (size - 1) / size) * narrowed
        with np.errstate(divide="ignore", invalid="ignore"):
            tested = 2 * special.stdtr(max(count - 1, 1), -np.abs(estimate) / error)
        p = np.where(helps & (error > 0), tested, p)
    if binary:
        low, high = np.maximum(low, -1.0), np.minimum(high, 1.0)
    return AssistedGain(estimate, low, high, p, within)


def still_items(known: Array) -> int:
    """How many items all rows of known scores (R, N) answer with the same score."""
    return int((np.ptp(known, axis=0) == 0).sum())


def _several_seeds(
    differences: Array,
    estimate: Array,
    narrowed: Array,
    groups: Groups | None,
    binary: bool,
    confidence: float,
) -> tuple[Array, Array, Array]:
    """Limits and p by min F' of seeds and items, whose effects of items count as far as not predicted."""
    values = grouped(differences, groups)
    mean = values.mean(axis=(1, 2), keepdims=True)
    of_items = values.mean(axis=1, keepdims=True) - mean
    moved = values - mean - of_items * (1 - narrowed[:, None, None]) + estimate[:, None, None]
    return pooled_test(moved, binary=binary, confidence=confidence)


def _squares(values: Array, groups: Groups | None) -> Array:
    """(K,) sums of squares of values (K, m) about their means; of groups of them."""
    values = grouped(values, groups)
    return np.asarray(((values - values.mean(axis=1, keepdims=True)) ** 2).sum(axis=1))


def _residuals(values: Array, features: Array, folds: NDArray[np.int64]) -> Array:
    """(K, m) values less what a regression on the other folds predicts of them."""
    residuals = np.empty_like(values, dtype=float)
    for fold in range(FOLDS):
        out = folds == fold
        fitted = _ridge(features[:, ~out], values[:, ~out], features[:, out])
        residuals[:, out] = values[:, out] - fitted
    return residuals


def _ridge(features: Array, values: Array, everywhere: Array) -> Array:
    """(K, n) predictions at features (R, n) from values (K, m) at features (R, m).

    The intercept is not shrunk; the penalty is the variance of the features, as much as one item weighs.
    """
    centre, mean = features.mean(axis=1, keepdims=True), values.mean(axis=1, keepdims=True)
    z = features - centre
    penalty = max(float(z.var()), 1e-9) * np.eye(len(features))
    slope = np.linalg.solve(z @ z.T + penalty, z @ (values - mean).T)
    return np.asarray(mean + ((everywhere - centre).T @ slope).T)
