"""Means and contrasts where seeds and items are crossed: both are samples, and both count.

From one adapter's mean (``crossed_mean``) to weighted sums over several adapters and targets
(``crossed_contrast``), then shares of items and statistics that are no means of items (``crossed``). The test
of one gain against the base is ``statistics.paired_gain``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, nan, sqrt

import numpy as np
from numpy.typing import ArrayLike

from traitmap.matrix.record import Array
from traitmap.matrix.statistics import (
    ROUNDING,
    STILL,
    Estimate,
    Groups,
    Interval,
    expanded_level,
    grouped,
    wilson,
)


@dataclass(frozen=True)
class VarianceTerm:
    """One adapter's scores on one target, and the weight of their mean in a contrast.

    scores: (S, n) or (n,); of items in groups, what ``grouped`` makes of them. Terms of one target must have
    the same items, those of one adapter the same seeds.
    """

    adapter: str
    target: str
    weight: float
    scores: ArrayLike


def crossed_mean(values: ArrayLike, *, reach: float = 0.0) -> Estimate:
    """Mean over seeds and items of values (S, n), or of items alone (n,); see ``crossed_contrast``."""
    return crossed_contrast([VarianceTerm("", "", 1.0, values)], reach=2 * reach)


def crossed_contrast(terms: Sequence[VarianceTerm], *, reach: float = 0.0) -> Estimate:
    """Weighted sum of means of several adapters on one or several targets.

    Items are a sample, shared by all adapters of a target; seeds are a sample, each adapter's own and shared
    by its targets. Their variances are added and the degrees of freedom are Satterthwaite's: the min F' of
    H. H. Clark (J. Verbal Learning and Verbal Behavior 12:335-359, 1973), as in
    ``pooled_test`` (which draws its centre towards 0 along with the pseudo-items, so that the two differ a
    little for 0/1 scores). An adapter with one seed speaks for itself alone.

    reach: 1 for 0/1 scores, 0 where scores have no bounds. Two pseudo-items are then added to each target,
    half an item at either end of what an item can contribute and one at 0 (Agresti and Min, Statistics in
    Medicine 24:729-740, 2005), so that few items that differ, or none, do not pass for certainty. The value
    itself stays the plain sum.
    """
    by_adapter: dict[str, Array] = {}
    by_target: dict[str, Array] = {}
    extent: dict[str, float] = {}
    largest: dict[str, float] = {}
    for term in terms:
        scores = np.atleast_2d(np.asarray(term.scores, dtype=float))
        if scores.shape[1] == 0:
            return Estimate(nan, nan, nan)
        weighted = term.weight * scores
        by_adapter[term.adapter] = by_adapter.get(term.adapter, 0.0) + weighted.mean(axis=1)
        by_target[term.target] = by_target.get(term.target, 0.0) + weighted.mean(axis=0)
        extent[term.target] = extent.get(term.target, 0.0) + reach * abs(term.weight) / 2
        largest[term.target] = largest.get(term.target, 0.0) + float(np.abs(weighted).max())
    # Weights that should sum to 0 do so but for rounding: what that leaves of alike adapters is none.
    by_target = {
        target: np.where(np.abs(values) > ROUNDING * largest[target], values, 0.0)
        for target, values in by_target.items()
    }
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


def share_interval(hits: ArrayLike, groups: Groups | None = None) -> Interval:
    """Share of hits (S, n) or (n,) with Wilson's interval. groups: (n,) of the items.

    With several seeds, or with groups, n is what it would have to be for independent answers to vary as much
    over seeds and items as these do (the design effect of L. Kish, Survey Sampling, 1965), and the quantile
    is Student's.
    """
    hits = np.atleast_2d(np.asarray(hits, dtype=float))
    n_seeds, n = hits.shape
    if n < 2 or (n_seeds == 1 and groups is None):
        return wilson(float(hits.mean(axis=0).sum()), n)
    estimate = crossed_mean(grouped(hits, groups))
    if not estimate.error > 0:
        n = n if groups is None else int(groups.max()) + 1
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
    level = expanded_level(n)
    ends = np.quantile(known, [level, 1 - level])
    return Interval(value, max(min(float(ends[0]), value), low), min(max(float(ends[1]), value), high))
