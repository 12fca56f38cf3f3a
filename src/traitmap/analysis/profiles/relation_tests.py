"""Does a gain differ between items with a property and items without it? Tests that hold at small support.

n items, R properties (relations). An item is won in a seed where only the adapter is right, and lost where
only the base is. What decides is won against lost: who is right on an item of both, or of neither, says
nothing about the adapter. If the adapter shifts the log odds of every item by the same amount, won : lost
is the same on hard and easy items (conditional logistic regression of matched pairs; A. Agresti,
Categorical Data Analysis, 3rd edition, section 11.2), so a property that merely makes items harder is not
taken for one that the adapter handles. Differences of rates, and ratios of successes, have no such defence.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import nan

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from traitmap.matrix.record import Array
from traitmap.matrix.statistics import detectable, t_value, z_value

Flags = NDArray[np.bool_]
Codes = NDArray[np.int64]

DRAWS = 9_999
CLOSE_DRAWS = 199_999  # where 9,999 draws cannot tell a p-value from 0
_CLOSE = 20 / DRAWS
LEVEL = 0.05
_BLOCK = 1_000  # permutations at a time, to bound memory


# Items of one stratum that are won or lost, grouped by what they add to the statistic: values (C,) distinct
# contributions, rising; items (C,) that make each; present (C,) of these that have the property.
_Stratum = tuple[Array, Codes, Codes]


def win_test(wins: Array, losses: Array, present: Flags, strata: Codes, *, seed: int = 0) -> float:
    """p-value, two-sided, that won : lost is the same with and without one property, within strata.

    wins, losses: (n,) seeds in which the item is won and lost. present: (n,). strata: (n,) codes.

    The property is permuted over the items that are won or lost at all, whole items, so that the seeds of
    an item stay together; the statistic is what items with the property win beyond their stratum's share.
    With one seed this is Fisher's exact test (the smaller tail doubled), by convolution over strata; with
    several it is Monte Carlo, (1 + extreme) / (1 + draws). NaN where no outcome could have given
    p <= .05: such a test can find nothing, and is none (R. E. Tarone, Biometrics 46:515-522, 1990).
    """
    strata_counts = [
        counts
        for code in np.unique(strata)
        if (counts := _counts(wins, losses, present, (strata == code) & (wins + losses > 0))) is not None
    ]
    if not strata_counts or _least_p(strata_counts) > LEVEL:
        return nan
    if np.ptp((wins + losses)[wins + losses > 0]) == 0:
        return _exact(strata_counts)
    generator = np.random.default_rng(seed)
    p = _sampled(strata_counts, DRAWS, generator)
    return _sampled(strata_counts, CLOSE_DRAWS, generator) if p < _CLOSE else p


def _counts(wins: Array, losses: Array, present: Flags, at: Flags) -> _Stratum | None:
    """The counts of one stratum, or None where it cannot tell anything."""
    won, decided, has = wins[at], (wins + losses)[at], present[at]
    if not decided.size or not 0 < has.sum() < has.size:
        return None
    beyond = np.round(won - decided * (won.sum() / decided.sum()), 9)
    values, place = np.unique(beyond, return_inverse=True)
    if values.size < 2:
        return None
    count = values.size
    return values, np.bincount(place, minlength=count), np.bincount(place[has], minlength=count)


def _least_p(strata: Sequence[_Stratum]) -> float:
    """The smallest p-value that these numbers of items could have given."""
    tails = []
    for order in (slice(None), slice(None, None, -1)):
        log = 0.0
        for _, items, present in strata:
            items, size = items[order], int(present.sum())
            before = np.concatenate([[0], np.cumsum(items)[:-1]])
            taken = np.clip(size - before, 0, items)
            log += float(_log_choose(items, taken).sum() - _log_choose(int(items.sum()), size))
        tails.append(float(np.exp(log)))
    return min(1.0, 2 * min(tails))


def _log_choose(n: Codes | int, k: Codes | int) -> Array:
    return np.asarray(-special.betaln(np.asarray(k) + 1, np.asarray(n) - k + 1) - np.log1p(n))


def _exact(strata: Sequence[_Stratum]) -> float:
    """Doubled smaller tail of the number of won items with the property: a sum of hypergeometric ones."""
    mass, observed = np.ones(1), 0
    for _, (lost, won), present in strata:
        size = int(present.sum())
        low, high = max(0, size - lost), min(size, won)
        mass = np.convolve(mass, stats.hypergeom.pmf(np.arange(low, high + 1), lost + won, won, size))
        observed += int(present[1]) - low
    return float(min(1.0, 2 * min(mass[: observed + 1].sum(), mass[observed:].sum())))


def _sampled(strata: Sequence[_Stratum], draws: int, generator: np.random.Generator) -> float:
    """The same by random draws of which items have the property."""
    statistic, observed = np.zeros(draws), 0.0
    for values, items, present in strata:
        drawn = generator.multivariate_hypergeometric(items, int(present.sum()), size=draws)
        statistic += drawn @ values
        observed += float(present @ values)
    above = 1 + int((statistic >= observed - 1e-6).sum())
    below = 1 + int((statistic <= observed + 1e-6).sum())
    return min(1.0, 2 * min(above, below) / (1 + draws))


def win_odds_ratio(wins: Array, losses: Array, present: Flags) -> tuple[float, float, float, float]:
    """Odds of winning with the property over those without it: estimate, 95 % limits, detectable ratio.

    Above 1 the adapter gains more on items with the property. Half an item is added to each of the four
    counts (Haldane 1956, Anscombe 1956; interval: J. J. Gart, Biometrika 53:164-168, 1966); with several
    seeds an item counts by its share of seeds, and the error is that of whole items. A ratio beyond the
    detectable one, or below its inverse, would have been found in 80 % of such data by a test at 5 %.
    """
    seeds = max(1.0, float((wins + losses).max(initial=0.0)))
    log, variance = np.zeros(2), np.zeros(2)
    for side, at in enumerate((~present, present)):
        won, lost = wins[at] / seeds, losses[at] / seeds
        all_won, all_lost = won.sum() + 0.5, lost.sum() + 0.5
        log[side] = np.log(all_won / all_lost)
        # with one seed this is 1 / all_won + 1 / all_lost
        variance[side] = ((won / all_won - lost / all_lost) ** 2).sum() + 0.5 / all_won**2 + 0.5 / all_lost**2
    difference, error = log[1] - log[0], float(np.sqrt(variance.sum()))
    z = z_value(1 - LEVEL)
    seen = np.exp(detectable(error, confidence=1 - LEVEL))
    ends = np.exp([difference, difference - z * error, difference + z * error])
    return float(ends[0]), float(ends[1]), float(ends[2]), float(seen)


def difference_test(
    differences: Array, present: Flags, strata: Codes, *, draws: int = DRAWS, seed: int = 0
) -> Array:
    """(R,) p-values, two-sided, that the mean difference is the same with and without each property.

    differences: (n,) adapter minus base of any score. present: (n, R). strata: (n,) codes, within which
    differences are centred and permuted. Permutation of Welch's statistic, so that unequal variances do
    no harm (A. Janssen, Statistics and Probability Letters 36:9-21, 1997); (1 + extreme) / (1 + draws),
    with ten times the draws where p comes close to 0, so that it can survive a correction.
    NaN where fewer than two items have or lack the property, or nothing varies.
    """
    centred = differences.astype(np.float64)
    groups = [np.flatnonzero(strata == code) for code in np.unique(strata)]
    for group in groups:
        centred[group] -= centred[group].mean()
    count = present.sum(axis=0)
    usable = (count >= 2) & (len(centred) - count >= 2) & (np.ptp(centred) > 1e-12)
    p = np.full(present.shape[1], nan)
    p[usable] = _permuted_p(centred, present[:, usable], groups, draws, seed)
    close = p < _CLOSE
    if close.any():
        p[close] = _permuted_p(centred, present[:, close], groups, 10 * draws + 9, seed)
    return p


def _permuted_p(centred: Array, present: Flags, groups: Sequence[Codes], draws: int, seed: int) -> Array:
    """(R,) shares of permutations within the groups whose statistic is as extreme."""
    flags = present.astype(np.float64)
    observed = np.abs(_welch(centred[None], flags))[0]
    extreme = np.zeros(flags.shape[1])
    generator = np.random.default_rng(seed)
    for start in range(0, draws, _BLOCK):
        block = np.tile(centred, (min(_BLOCK, draws - start), 1))
        for group in groups:
            block[:, group] = generator.permuted(block[:, group], axis=1)
        extreme += (np.abs(_welch(block, flags)) >= observed * (1 - 1e-9)).sum(axis=0)
    return np.asarray((1 + extreme) / (1 + draws))


def _welch(values: Array, flags: Array) -> Array:
    """(B, R) Welch's t of B orders of the values (B, n) between items with and without R properties."""
    n_with = flags.sum(axis=0)
    n_without = len(flags) - n_with
    sums, squares = values @ flags, values**2 @ flags
    sums_without = values.sum(axis=1)[:, None] - sums
    squares_without = (values**2).sum(axis=1)[:, None] - squares
    with np.errstate(divide="ignore", invalid="ignore"):
        error = (squares / n_with - (sums / n_with) ** 2) / (n_with - 1)
        error += (squares_without / n_without - (sums_without / n_without) ** 2) / (n_without - 1)
        statistic = (sums / n_with - sums_without / n_without) / np.sqrt(np.maximum(error, 1e-300))
    return np.where(np.isfinite(statistic), statistic, 0.0)


def welch_interval(differences: Array, present: Flags, *, binary: bool) -> tuple[float, float, float, float]:
    """Mean difference with the property minus that without it: estimate, 95 % limits, detectable difference.

    Welch's interval. binary: of 0/1 scores; two pseudo-items are then added to each side, one half won
    and half lost, one without a difference (Agresti and Min, Statistics in Medicine 24:729-740, 2005), so
    that few decided items, or none, do not pass for certainty. The estimate itself is left as it is.
    """
    mean, error, freedom = np.zeros(2), np.zeros(2), np.zeros(2)
    raw = np.zeros(2)
    for side, at in enumerate((~present, present)):
        values = differences[at]
        count, extra = values.size + 2 * binary, 1.0 * binary
        raw[side] = values.mean() if values.size else nan
        mean[side] = values.sum() / count if count else nan
        spread = (values**2).sum() + extra - count * mean[side] ** 2
        error[side] = spread / (count - 1) / count if count > 1 else nan
        freedom[side] = count - 1
    total = float(error.sum())
    if not np.isfinite(total) or total <= 0:
        return float(raw[1] - raw[0]), nan, nan, nan
    degrees = total**2 / (error**2 / freedom).sum()
    error_of_difference = np.sqrt(total)
    estimate, middle = float(raw[1] - raw[0]), float(mean[1] - mean[0])
    half = float(t_value(degrees, 1 - LEVEL) * error_of_difference)
    seen = detectable(error_of_difference, degrees, 1 - LEVEL)
    return estimate, min(middle - half, estimate), max(middle + half, estimate), seen
