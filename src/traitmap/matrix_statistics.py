"""Paired statistics of a transfer matrix: arrays in, arrays out, nothing random that is not seeded.

Axes are (cells, items) or (cells, seeds, items). Intervals are 95 %, tests two-sided.
"""

from __future__ import annotations

from functools import lru_cache
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]

CONFIDENCE = 0.95
BOOTSTRAP_DRAWS = 2_000
SIGN_FLIP_DRAWS = 9_999  # 2,000 could not reach q < .05 for a lone finding among 400 cells
_BLOCK = 1_000  # draws at a time, to bound memory


def standard_error(scores: Array) -> Array:
    """(K,) standard error of the mean of scores (K, n): s / sqrt(n), NaN for a single item."""
    n = scores.shape[-1]
    if n < 2:
        return np.full(scores.shape[:-1], np.nan)
    return np.asarray(scores.std(axis=-1, ddof=1) / sqrt(n))


def mcnemar(wins: Array, losses: Array) -> Array:
    """(K,) exact McNemar p-values: binomial test of wins among wins + losses against one half.

    wins, losses: (K,) items that only the adapter, and only the base, got right. No such item: p = 1.
    It is conservative, the more so the fewer such items there are (A. Agresti, Categorical Data
    Analysis, 3rd edition, chapter 11).
    """
    smaller, total = np.minimum(wins, losses), wins + losses
    return np.asarray(np.minimum(1.0, 2.0 * stats.binom.cdf(smaller, total, 0.5)))


def paired_interval(wins: Array, losses: Array, n: int) -> tuple[Array, Array]:
    """(K,), (K,) Tango's score interval of a difference of two paired proportions, (wins - losses) / n.

    Inverts the score test with the nuisance parameter at its constrained maximum likelihood (T. Tango,
    Statistics in Medicine 17:891-908, 1998). Holds its level at small n and at no discordant item, where
    it is +- z^2 / (n + z^2). As exact McNemar is conservative, the interval may leave out 0 where p is a
    little above .05.
    """
    z = float(stats.norm.ppf(0.5 + CONFIDENCE / 2))
    center = (wins - losses) / n
    low = _score_limit(wins, losses, n, z, np.full(center.shape, -1.0), center)
    high = -_score_limit(losses, wins, n, z, np.full(center.shape, -1.0), -center)
    return low, high


def _score_limit(wins: Array, losses: Array, n: int, z: float, low: Array, high: Array) -> Array:
    """The difference in [low, high] at which the score statistic, falling in it, is z. Bisection."""
    for _ in range(60):
        middle = (low + high) / 2
        above = _score_statistic(wins, losses, n, middle) > z
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.asarray((low + high) / 2)


def _score_statistic(wins: Array, losses: Array, n: int, difference: Array) -> Array:
    a = 2.0 * n
    b = -wins - losses + (2.0 * n - wins + losses) * difference
    c = -losses * difference * (1 - difference)
    only_base = (np.sqrt(np.maximum(b * b - 4 * a * c, 0)) - b) / (2 * a)
    variance = n * (2 * only_base + difference * (1 - difference))
    distance = wins - losses - n * difference
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(distance == 0, 0.0, distance / np.sqrt(np.maximum(variance, 0)))


def bootstrap_interval(
    differences: Array, *, draws: int = BOOTSTRAP_DRAWS, seed: int = 0
) -> tuple[Array, Array]:
    """(K,), (K,) bootstrap interval of the mean of differences (K, n); items resampled jointly for all cells.

    Percentile interval with levels widened by the t distribution, without which it is too short at small
    n (the "expanded percentile" of T. Hesterberg, The American Statistician 69:371-386, 2015). NaN where
    no difference varies: resampling can then say nothing.
    """
    n = differences.shape[1]
    if n < 2 or not len(differences):
        return np.full(len(differences), np.nan), np.full(len(differences), np.nan)
    weights = _resampled(n, draws, seed)
    means = np.empty((draws, len(differences)))
    for start in range(0, draws, _BLOCK):
        means[start : start + _BLOCK] = weights[start : start + _BLOCK].astype(np.float64) @ differences.T / n
    level = float(stats.norm.cdf(sqrt(n / (n - 1)) * stats.t.ppf(0.5 - CONFIDENCE / 2, n - 1)))
    low, high = np.quantile(means, [level, 1 - level], axis=0)
    still = np.ptp(differences, axis=1) == 0
    return np.where(still, np.nan, low), np.where(still, np.nan, high)


def sign_flip(differences: Array, *, draws: int = SIGN_FLIP_DRAWS, seed: int = 0) -> Array:
    """(K,) p-values of the sign-flip permutation test of mean difference 0, differences (K, n).

    Exact where differences are symmetric about 0 under the null, which exchanging adapter and base on an
    item makes them; (1 + extreme) / (1 + draws), so never 0 (Phipson and Smyth 2010). No difference: p = 1.
    """
    signs = _signs(differences.shape[1], draws, seed)
    observed = np.abs(differences.sum(axis=1))
    # sums of the same numbers in another order differ in their last digits and must count as equal
    bound = observed - 1e-9 * np.abs(differences).sum(axis=1)
    extreme = np.zeros(len(differences))
    for start in range(0, draws, _BLOCK):
        block = signs[start : start + _BLOCK].astype(np.float64)
        extreme += (np.abs(block @ differences.T) >= bound).sum(axis=0)
    return np.asarray((1 + extreme) / (1 + draws))


@lru_cache(maxsize=1)  # targets often have the same number of items
def _resampled(n: int, draws: int, seed: int) -> NDArray[np.uint16]:
    """(draws, n) how often each item is drawn."""
    generator = np.random.default_rng(seed)
    drawn = np.empty((draws, n), np.uint16)
    for row in drawn:
        row[:] = np.bincount(generator.integers(0, n, n), minlength=n)
    return drawn


@lru_cache(maxsize=1)
def _signs(n: int, draws: int, seed: int) -> NDArray[np.int8]:
    """(draws, n) of -1 and 1."""
    return 2 * np.random.default_rng(seed).integers(0, 2, size=(draws, n), dtype=np.int8) - 1


def pooled_error(scores: Array) -> Array:
    """(K,) standard error of the mean of scores (K, S, n) over seeds and items, both taken as samples."""
    seeds, items = _mean_squares(scores, pseudo=False)[1:3]
    with np.errstate(invalid="ignore"):
        return np.asarray(np.sqrt((seeds + items) / (scores.shape[1] * scores.shape[2])))


def pooled_test(differences: Array, *, binary: bool) -> tuple[Array, Array, Array]:
    """(K,) low and high limits and p-value of the mean of differences (K, S, n) over S >= 2 seeds.

    Seeds and items are both samples, crossed: every seed's adapter answers the same items. The claim is
    about the source, for seeds and items that were not drawn, so both variances count. The statistic is
    Clark's min F' (H. H. Clark, J. Verbal Learning and Verbal Behavior 12:335-359, 1973): mean squares of
    seeds and of items are added, and t has Satterthwaite's degrees of freedom. It assumes that effects of
    seeds are about normal, and seeds independent of each other and of items.

    binary: differences of 0/1 scores. Two pseudo-items are then added, half an item won and half lost in
    all seeds and one without a difference (Agresti and Min, Statistics in Medicine 24:729-740, 2005), so
    that few discordant items, or none, do not pass for certainty.

    Why not a two-stage bootstrap over seeds and items: it cannot see the variance between two or three
    seeds. Simulated coverage at n = 300 where seeds differ much: bootstrap .76, this interval .88 at S = 2,
    .84 and .93 at S = 3; where seeds differ little both hold .95. NaN where nothing varies and the scores
    are not 0/1.
    """
    _, n_seeds, n = differences.shape
    mean, seeds, items = _mean_squares(differences, pseudo=binary)
    n_items = n + 2 if binary else n
    variance = (seeds + items) / (n_seeds * n_items)
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = (seeds + items) ** 2 / (seeds**2 / (n_seeds - 1) + items**2 / (n_items - 1))
        half = stats.t.ppf(0.5 + CONFIDENCE / 2, freedom) * np.sqrt(variance)
        p = 2 * stats.t.sf(np.abs(mean) / np.sqrt(variance), freedom)
    # the pseudo-items draw the centre towards 0; the estimate itself always belongs to the interval
    plain = differences.mean(axis=(1, 2))
    low, high = np.minimum(mean - half, plain), np.maximum(mean + half, plain)
    if binary:
        low, high = np.maximum(low, -1.0), np.minimum(high, 1.0)
    p = np.where((variance == 0) & (plain == 0), 1.0, p)
    return low, high, np.where((variance == 0) & (plain != 0), np.nan, p)


def _mean_squares(scores: Array, *, pseudo: bool) -> tuple[Array, Array, Array]:
    """(K,) mean and mean squares of seeds and of items of scores (K, S, n); NaN for a single item or seed."""
    _, n_seeds, n = scores.shape
    by_seed, by_item = scores.mean(axis=2), scores.mean(axis=1)
    total = n + 2 if pseudo else n
    mean = by_item.sum(axis=1) / total
    squares = (by_item**2).sum(axis=1) + (1.0 if pseudo else 0.0)
    items = np.maximum(squares - total * mean**2, 0.0)
    items = np.where(np.ptp(by_item, axis=1) == 0, 0.0, items) if not pseudo else items
    seeds = ((by_seed * (n / total) - mean[:, None]) ** 2).sum(axis=1)
    seeds = np.where(np.ptp(by_seed, axis=1) == 0, 0.0, seeds)
    with np.errstate(divide="ignore", invalid="ignore"):
        return mean, total * seeds / np.float64(n_seeds - 1), n_seeds * items / np.float64(total - 1)


def benjamini_hochberg(p: Array) -> Array:
    """q-values of the p-values that are known; NaN stays NaN and is no test (Benjamini, Hochberg 1995)."""
    q = np.full(p.shape, np.nan)
    known = np.isfinite(p)
    if known.any():
        q[known] = stats.false_discovery_control(p[known], method="bh")
    return q
