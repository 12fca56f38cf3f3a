"""Distances between two samples of lengths, each beside what no difference would give."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import nan, sqrt

import numpy as np
from scipy import stats

from traitmap.analysis.crossed_samples import item_signs
from traitmap.matrix_record import Array

DRAWS = 999
GRID = 128  # lengths at which the two distributions are compared under the null


@dataclass(frozen=True)
class LengthDistance:
    """How far two distributions of lengths lie apart.

    wasserstein: mean length by which one must be moved to become the other, in the unit of the lengths.
    kolmogorov_smirnov: largest difference of the shares below any one length, 0 to 1.
    null_wasserstein, null_kolmogorov_smirnov: their 95th percentile where there is no difference.
    p_wasserstein, p_kolmogorov_smirnov: of so large a distance then; never below 1 / 1000.
    """

    wasserstein: float
    kolmogorov_smirnov: float
    null_wasserstein: float
    null_kolmogorov_smirnov: float
    p_wasserstein: float
    p_kolmogorov_smirnov: float

    @property
    def known(self) -> bool:
        return bool(np.isfinite(self.wasserstein))


UNKNOWN = LengthDistance(nan, nan, nan, nan, nan, nan)


def paired_distance(first: Array, second: Array, *, seed: int = 0) -> LengthDistance:
    """Lengths (S, n) of an adapter's outputs against (n,) on the same items.

    Null: the two sides of an item are exchanged at random, all seeds together.
    """
    if not first.size or not (np.isfinite(first).all() and np.isfinite(second).all()):
        return UNKNOWN
    grid = _grid(np.concatenate([first.ravel(), second]))
    below = (first[:, :, None] <= grid).mean(axis=0) - (second[:, None] <= grid)
    signs = item_signs(len(second), DRAWS, seed)
    null = np.asarray(signs @ below.astype(np.float32), dtype=float) / len(second)
    return _against(first.ravel(), second, grid, below.mean(axis=0), null)


def sample_distance(first: Array, second: Array, *, seed: int = 0) -> LengthDistance:
    """Lengths (S, n) or (n,) of outputs against an independent sample (m,), such as a source's own outputs.

    Null: the permutation distribution for large samples, a Brownian bridge over the pooled distribution
    (A. W. van der Vaart and J. A. Wellner, Weak Convergence and Empirical Processes, 1996, section 3.7).
    Seeds answer the same items: they count as n lengths, not as S n.
    """
    first = np.atleast_2d(first)
    if not first.size or not len(second) or not (np.isfinite(first).all() and np.isfinite(second).all()):
        return UNKNOWN
    grid = _grid(np.concatenate([first.ravel(), second]))
    one, other = _shares(first.ravel(), grid), _shares(second, grid)
    n, m = first.shape[1], len(second)
    pooled = (n * one + m * other) / (n + m)
    walk = np.cumsum(_normals(seed)[:, : len(grid)] * np.sqrt(np.diff(pooled, prepend=0.0)), axis=1)
    null = (walk - pooled * walk[:, -1:]) * sqrt(1 / n + 1 / m)
    return _against(first.ravel(), second, grid, one - other, null)


def _against(first: Array, second: Array, grid: Array, difference: Array, null: Array) -> LengthDistance:
    widths = np.diff(grid, append=grid[-1])
    found = float(np.abs(difference) @ widths), float(np.abs(difference).max())
    nulls = np.abs(null) @ widths, np.abs(null).max(axis=1)
    p = [
        (1 + (drawn >= one * (1 - 1e-6)).sum()) / (1 + len(drawn))
        for one, drawn in zip(found, nulls, strict=True)
    ]
    return LengthDistance(
        wasserstein=float(stats.wasserstein_distance(first, second)),
        kolmogorov_smirnov=float(stats.ks_2samp(first, second, method="asymp").statistic),
        null_wasserstein=float(np.quantile(nulls[0], 0.95)),
        null_kolmogorov_smirnov=float(np.quantile(nulls[1], 0.95)),
        p_wasserstein=float(p[0]),
        p_kolmogorov_smirnov=float(p[1]),
    )


def _grid(lengths: Array) -> Array:
    """All lengths that occur, or quantiles of them where they are many; the greatest is always there."""
    values = np.unique(lengths)
    if len(values) <= GRID:
        return values
    return np.unique(np.quantile(lengths, np.linspace(0, 1, GRID), method="inverted_cdf"))


def _shares(lengths: Array, grid: Array) -> Array:
    """Share of lengths at or below each point of the grid."""
    return np.searchsorted(np.sort(lengths), grid, side="right") / len(lengths)


@lru_cache(maxsize=1)
def _normals(seed: int) -> Array:
    return np.random.default_rng(seed).standard_normal((DRAWS, GRID))
