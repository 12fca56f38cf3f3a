"""Uncertainty of what one or several seeds gave on shared items: intervals, tests, visible effects.

Axes are (seeds, items); every seed's adapter answers the same items. With one seed a number speaks for that
very adapter and only items are a sample; with several it speaks for the source, and both count, as in
``matrix_statistics.pooled_test``. Intervals are 95 %, tests two-sided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite, nan, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from traitmap.analysis.interval import Interval, unknown
from traitmap.matrix_record import Array

CONFIDENCE = 0.95
POWER = 0.8
STILL = "no resampled table differs"
UNBOUNDED = "the interval of the ratio has no end: its denominator cannot be told from zero"


@dataclass(frozen=True)
class Estimate:
    """A number, its standard error and the degrees of freedom of that error; error NaN where unknown."""

    value: float
    error: float
    freedom: float

    def interval(
        self, low: float = -np.inf, high: float = np.inf, *, confidence: float = CONFIDENCE
    ) -> Interval:
        """Interval by Student's t (95 % unless told), kept within what the number can be."""
        if not isfinite(self.value):
            return unknown("not measured")
        if not self.error > 0:
            return Interval(self.value, reason="nothing varies, so that no interval can be had")
        half = float(special.stdtrit(self.freedom, 0.5 + confidence / 2)) * self.error
        return Interval(self.value, max(self.value - half, low), min(self.value + half, high))

    @property
    def quantile(self) -> float:
        return float(special.stdtrit(self.freedom, 0.5 + CONFIDENCE / 2))

    @property
    def p(self) -> float:
        """Of a value so far from 0; NaN where nothing varies around a value that is not 0."""
        if not self.error > 0:
            return 1.0 if self.value == 0 else nan
        return float(2 * special.stdtr(self.freedom, -abs(self.value) / self.error))

    @property
    def smallest_visible(self) -> float:
        """The effect that would have been found significant four times in five; NaN where unknown."""
        if not self.error > 0:
            return nan
        return float((self.quantile + special.stdtrit(self.freedom, POWER)) * self.error)


@dataclass(frozen=True)
class Term:
    """One adapter's scores on one target, and the weight of their mean in a contrast.

    scores: (S, n) or (n,). Terms of one target must have the same items, those of one adapter the same seeds.
    """

    adapter: str
    target: str
    weight: float
    scores: ArrayLike


def crossed_mean(values: ArrayLike, *, reach: float = 0.0) -> Estimate:
    """Mean over seeds and items of values (S, n), or of items alone (n,); see ``crossed_contrast``."""
    return crossed_contrast([Term("", "", 1.0, values)], reach=2 * reach)


def crossed_contrast(terms: Sequence[Term], *, reach: float = 0.0) -> Estimate:
    """Weighted sum of means of several adapters on one or several targets.

    Items are a sample, shared by all adapters of a target; seeds are a sample, each adapter's own and shared
    by its targets. Their variances are added and the degrees of freedom are Satterthwaite's: the min F' of
    H. H. Clark (J. Verbal Learning and Verbal Behavior 12:335-359, 1973), as in
    ``matrix_statistics.pooled_test``. An adapter with one seed speaks for itself alone.

    reach: 1 for 0/1 scores, 0 where scores have no bounds. Two pseudo-items are then added to each target,
    half an item at either end of what an item can contribute and one at 0 (Agresti and Min, Statistics in
    Medicine 24:729-740, 2005), so that few items that differ, or none, do not pass for certainty. The value
    itself stays the plain sum.
    """
    by_adapter: dict[str, Array] = {}
    by_target: dict[str, Array] = {}
    extent: dict[str, float] = {}
    for term in terms:
        scores = np.atleast_2d(np.asarray(term.scores, dtype=float))
        if scores.shape[1] == 0:
            return Estimate(nan, nan, nan)
        weighted = term.weight * scores
        by_adapter[term.adapter] = by_adapter.get(term.adapter, 0.0) + weighted.mean(axis=1)
        by_target[term.target] = by_target.get(term.target, 0.0) + weighted.mean(axis=0)
        extent[term.target] = extent.get(term.target, 0.0) + reach * abs(term.weight) / 2
    parts = [_item_variance(values, extent[target]) for target, values in by_target.items()]
    parts += [_seed_variance(values) for values in by_adapter.values() if len(values) > 1]
    return _joined(float(sum(values.mean() for values in by_target.values())), parts)


def crossed(value: float, *, items: float, freedom: float, by_seed: ArrayLike) -> Estimate:
    """An estimate from its variance over items and what each seed alone gives (S,).

    items: sampling variance of the mean over seeds as items are drawn again, with its degrees of freedom.
    """
    by_seed = np.asarray(by_seed, dtype=float)
    seeds = [_seed_variance(by_seed)] if len(by_seed) > 1 else []
    return _joined(value, [(items, freedom), *seeds])


def _item_variance(values: Array, extent: float) -> tuple[float, float]:
    """Sampling variance of the mean of values (n,) and its degrees of freedom; NaN for a single item."""
    n = len(values)
    if n < 2:
        return nan, nan
    if extent:
        center = values.sum() / (n + 2)
        squares = float((values**2).sum()) + extent**2 - (n + 2) * center**2
        return squares / (n + 1) / (n + 2), n + 1
    still = np.ptp(values) == 0
    return 0.0 if still else float(values.var(ddof=1)) / n, n - 1


def _seed_variance(by_seed: Array) -> tuple[float, float]:
    """Sampling variance of the mean over seeds (S,) and its degrees of freedom."""
    still = np.ptp(by_seed) == 0
    return 0.0 if still else float(by_seed.var(ddof=1)) / len(by_seed), len(by_seed) - 1


def _joined(value: float, parts: Sequence[tuple[float, float]]) -> Estimate:
    """An estimate whose variance is the sum of independent parts (variance, degrees of freedom)."""
    variance = sum(part for part, _ in parts)
    if not variance > 0:
        return Estimate(value, variance, parts[0][1])
    freedom = variance**2 / sum(part**2 / own for part, own in parts)
    return Estimate(value, sqrt(variance), freedom)


def wilson(successes: float, n: float, *, quantile: float | None = None) -> Interval:
    """Share of successes among n with Wilson's score interval (E. B. Wilson, JASA 22:209-212, 1927)."""
    if n <= 0:
        return unknown("no item counts")
    z = float(special.ndtri(0.5 + CONFIDENCE / 2)) if quantile is None else quantile
    share = successes / n
    center = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Interval(share, min(max(center - half, 0.0), share), max(min(center + half, 1.0), share))


def share_interval(hits: ArrayLike) -> Interval:
    """Share of hits (S, n) or (n,) with Wilson's interval.

    With several seeds n is what it would have to be for independent answers to vary as much over seeds and
    items as these do (the design effect of L. Kish, Survey Sampling, 1965), and the quantile is Student's.
    """
    hits = np.atleast_2d(np.asarray(hits, dtype=float))
    n_seeds, n = hits.shape
    if n_seeds == 1 or n < 2:
        return wilson(float(hits.mean(axis=0).sum()), n)
    estimate = crossed_mean(hits)
    if not estimate.error > 0:
        return wilson(estimate.value * n, n)
    size = min(estimate.value * (1 - estimate.value) / estimate.error**2, float(n_seeds * n))
    return wilson(estimate.value * size, size, quantile=estimate.quantile)


def resampled_interval(
    value: float,
    draws: Array,
    *,
    n: int,
    by_seed: ArrayLike = (),
    low: float = -np.inf,
    high: float = np.inf,
) -> Interval:
    """Interval of a statistic from its values (draws,) on resampled items, and each seed's own value (S,).

    One seed: percentile interval with levels widened by the t distribution (T. Hesterberg, The American
    Statistician 69:371-386, 2015). Several: Student's t with the variances of items and seeds added.
    """
    known = draws[np.isfinite(draws)]
    if not isfinite(value) or known.size < 2 or n < 2:
        return Interval(value, reason="it cannot be computed on resampled items")
    spread = float(known.std(ddof=1)) if np.ptp(known) > 1e-12 else 0.0
    if len(np.asarray(by_seed)) > 1:
        return crossed(value, items=spread**2, freedom=n - 1, by_seed=by_seed).interval(low, high)
    if spread == 0:
        return Interval(value, reason=STILL)
    level = float(special.ndtr(sqrt(n / (n - 1)) * special.stdtrit(n - 1, 0.5 - CONFIDENCE / 2)))
    ends = np.quantile(known, [level, 1 - level])
    return Interval(value, max(min(float(ends[0]), value), low), min(max(float(ends[1]), value), high))


def ratio_interval(
    numerator: float,
    denominator: float,
    *,
    variances: tuple[float, float],
    covariance: float = 0.0,
    quantile: float,
) -> Interval:
    """Ratio of two estimates with Fieller's interval (E. C. Fieller, JRSS B 16:175-185, 1954).

    variances: of numerator and denominator. Unknown where the denominator cannot be told from zero: the
    interval then has no end.
    """
    above, below = variances
    if denominator == 0 or (g := quantile**2 * below / denominator**2) >= 1:
        return unknown(UNBOUNDED)
    ratio = numerator / denominator
    slope = covariance / below if below > 0 else 0.0
    inside = above - 2 * ratio * covariance + ratio**2 * below - g * (above - slope * covariance)
    center = (ratio - g * slope) / (1 - g)
    half = quantile * sqrt(max(inside, 0.0)) / abs(denominator) / (1 - g)
    return Interval(ratio, center - half, center + half)


@lru_cache(maxsize=4)  # targets often have the same number of items
def item_weights(n: int, draws: int, seed: int) -> NDArray[np.float32]:
    """(draws, n) how often each item is drawn: the same for all adapters, which share their items."""
    generator = np.random.default_rng(seed)
    weights = np.empty((draws, n), np.float32)
    for row in weights:
        row[:] = np.bincount(generator.integers(0, n, n), minlength=n)
    weights.setflags(write=False)
    return weights


@lru_cache(maxsize=4)
def item_signs(n: int, draws: int, seed: int) -> NDArray[np.float32]:
    """(draws, n) of -1 and 1: whether an item's two answers change places."""
    generator = np.random.default_rng(seed)
    signs = 2 * generator.integers(0, 2, size=(draws, n), dtype=np.int8) - 1
    wide: NDArray[np.float32] = signs.astype(np.float32)
    wide.setflags(write=False)
    return wide
