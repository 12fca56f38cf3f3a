"""The statistics of a transfer matrix: gain, interval and test of adapter against base, and their like.

From small to large: a number with its interval; quantiles; the paired core ``paired_gain``, adapters against
the base on the same items; an estimate with its degrees of freedom; shares and ratios. Where seeds and items
are both a sample, of several adapters or targets too, ``crossed`` goes on.

Scores are (adapters, seeds, items) or a part of that. With one seed a number speaks for that very adapter and
only items are a sample; with several it speaks for the source, and seeds and items both count. Items that
repeat, or belong to one document, are a group (``Groups``): groups are then the sample, and every number
stays the mean over items. Intervals are 95 %, tests two-sided. Nothing is random that is not seeded, so that
equal scores give equal bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import inf, isfinite, nan, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from traitmap.matrix.record import Array

CONFIDENCE = 0.95
POWER = 0.8
ROUNDED_Z = 1.96  # of a 95 % interval, as it is printed
BOOTSTRAP_DRAWS = 2_000
SIGN_FLIP_DRAWS = 9_999  # 2,000 could not reach q < .05 for a lone finding among 400 cells
STILL = "no resampled table differs"
ROUNDING = 1e-12  # of the largest value: what is left of it by rounding, where nothing is left
Groups = NDArray[np.int64]  # (n,) the group of each item, numbered 0, 1, ... without gaps
UNBOUNDED = "the interval of the ratio has no end: its denominator cannot be told from zero"
_BLOCK = 1_000  # draws at a time, to bound memory


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % interval (another level where the owner says so).

    Unknown numbers are NaN; reason then says why.
    """

    value: float
    low: float = nan
    high: float = nan
    reason: str = ""

    @property
    def known(self) -> bool:
        """Whether there is an estimate at all."""
        return isfinite(self.value)

    @property
    def clear(self) -> bool:
        """Whether the interval is known and leaves out zero."""
        return isfinite(self.low) and isfinite(self.high) and (self.low > 0 or self.high < 0)

    def to_json(self) -> dict[str, float | str | None]:
        """Plain JSON data; unknown numbers are null."""
        numbers = {name: getattr(self, name) for name in ("value", "low", "high")}
        told: dict[str, float | str | None] = {
            name: number if isfinite(number) else None for name, number in numbers.items()
        }
        return {**told, "reason": self.reason} if self.reason else told


def unknown(reason: str) -> Interval:
    """No estimate, and why."""
    return Interval(nan, nan, nan, reason)


def z_value(confidence: float = CONFIDENCE) -> float:
    """Half the width of a normal interval in standard errors: 1.959964 at 95 %."""
    return float(special.ndtri(0.5 + confidence / 2))


def t_value(freedom: ArrayLike, confidence: float = CONFIDENCE) -> Array:
    """Half the width of Student's interval in standard errors; same shape as the degrees of freedom."""
    return np.asarray(special.stdtrit(freedom, 0.5 + confidence / 2))


def detectable(error: float, freedom: float = inf, confidence: float = CONFIDENCE) -> float:
    """The minimal detectable effect: found significant in four of five such studies (80 % power).

    error: standard error of the estimate, with its degrees of freedom (infinite: the normal distribution).
    """
    if freedom == inf:
        return float((z_value(confidence) + special.ndtri(POWER)) * error)
    return float((t_value(freedom, confidence) + special.stdtrit(freedom, POWER)) * error)


def error_of_width(width: float, z: float = ROUNDED_Z) -> float:
    """The standard error behind a 95 % interval of this width, by the half-width z that it was made with."""
    return width / (2 * z)


def standard_error(scores: Array, groups: Groups | None = None) -> Array:
    """(K,) standard error of the mean of scores (K, n): s / sqrt(n), NaN for a single item (or group)."""
    scores = grouped(scores, groups)
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


def numbered_groups(codes: ArrayLike | None) -> Groups | None:
    """Groups of items, by codes (n,) of any kind, numbered without gaps; None where none has two items."""
    if codes is None:
        return None
    groups = np.unique(np.asarray(codes), return_inverse=True)[1].astype(np.int64)
    return groups if len(groups) and int(groups.max()) + 1 < len(groups) else None


def grouped(values: Array, groups: Groups | None) -> Array:
    """(..., G) what each group of items adds to the mean of values (..., n); the values where groups is None.

    The mean over groups is that over items, whatever the sizes of the groups, and its variance that of the
    ratio estimator with groups as the sample (W. Cochran, Sampling Techniques, 3rd edition, 1977, section
    9A): mean + G / n sum (value - mean) over the group. For groups of one size it is the group's mean.
    """
    if groups is None:
        return values
    mean = values.mean(axis=-1, keepdims=True)
    return np.asarray(mean + _sums(values - mean, groups))


def group_scores(scores: Array, groups: Groups | None) -> Array:
    """(R, S, G) item scores (R, S, n) of one target by group, see ``grouped``; as they are without groups.

    Of the items that every measured row has; rows that were not measured stay NaN.
    """
    if groups is None:
        return scores
    measured = np.isfinite(scores).any(axis=-1, keepdims=True)
    known = (np.isfinite(scores) | ~measured).all(axis=(0, 1))
    by_group = grouped(np.where(measured, scores, 0.0)[..., known], numbered_groups(groups[known]))
    return np.where(measured, by_group, np.nan)


def on_common_items(*scores: Array) -> tuple[Array, ...]:
    """Several scores (S, n) on the items that all of them know; as they are where that is none."""
    known = np.logical_and.reduce([np.isfinite(part).all(axis=0) for part in scores])
    return tuple(part[:, known] for part in scores) if known.any() else scores


def _sums(values: Array, groups: Groups) -> Array:
    """(..., G) sums over groups of values (..., n), times G / n: their mean is that of the items."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    return np.asarray(np.add.reduceat(values[..., order], starts, axis=-1) * (len(starts) / len(groups)))


def design_effect(differences: Array, groups: Groups) -> Array:
    """(K,) by how much groups raise the variance of mean differences (K, n) of 0/1 scores; at least 1.

    J. Rao and A. Scott, JASA 76:221-230, 1981. One more difference that its whole group shares is counted
    with those that are seen: where few items differ, or none, they cannot tell how alike a group is.
    """
    n, count = len(groups), int(groups.max()) + 1
    centred = differences - differences.mean(axis=1, keepdims=True)
    together = ((_sums(centred, groups) * (n / count)) ** 2).sum(axis=1) * count / max(count - 1, 1)
    apart = (centred**2).sum(axis=1) * n / max(n - 1, 1)
    alike = float((np.bincount(groups) ** 2).sum()) / n
    return np.asarray(np.maximum((together + alike) / (apart + 1), 1.0))


def paired_interval(wins: Array, losses: Array, n: ArrayLike, z: float | None = None) -> tuple[Array, Array]:
    """(K,), (K,) Tango's score interval of a difference of two paired proportions, (wins - losses) / n.

    n: items, or as many as they count for (then wins and losses are such numbers too). z: half the width in
    standard errors, by default that of a normal 95 % interval.

    Inverts the score test with the nuisance parameter at its constrained maximum likelihood (T. Tango,
    Statistics in Medicine 17:891-908, 1998). Holds its level at small n and at no discordant item, where
    it is +- z^2 / (n + z^2). As exact McNemar is conservative, the interval may leave out 0 where p is a
    little above .05.
    """
    z = z_value() if z is None else z
    n = np.asarray(n, dtype=float)
    center = (wins - losses) / n
    low = _score_limit(wins, losses, n, z, np.full(center.shape, -1.0), center)
    high = -_score_limit(losses, wins, n, z, np.full(center.shape, -1.0), -center)
    return low, high


def _score_limit(wins: Array, losses: Array, n: Array, z: float, low: Array, high: Array) -> Array:
    """The difference in [low, high] at which the score statistic, falling in it, is z. Bisection."""
    for _ in range(60):
        middle = (low + high) / 2
        above = _score_statistic(wins, losses, n, middle) > z
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.asarray((low + high) / 2)


def _score_statistic(wins: Array, losses: Array, n: Array, difference: Array) -> Array:
    a = 2.0 * n
    b = -wins - losses + (2.0 * n - wins + losses) * difference
    c = -losses * difference * (1 - difference)
    only_base = (np.sqrt(np.maximum(b * b - 4 * a * c, 0)) - b) / (2 * a)
    variance = n * (2 * only_base + difference * (1 - difference))
    distance = wins - losses - n * difference
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(distance == 0, 0.0, distance / np.sqrt(np.maximum(variance, 0)))


def bootstrap_interval(
    differences: Array, *, draws: int = BOOTSTRAP_DRAWS, seed: int = 0, confidence: float = CONFIDENCE
) -> tuple[Array, Array]:
    """(K,), (K,) bootstrap interval of the mean of differences (K, n); items resampled jointly for all cells.

    Percentile interval with levels widened by the t distribution, without which it is too short at small
    n (the "expanded percentile" of T. Hesterberg, The American Statistician 69:371-386, 2015). NaN where
    no difference varies: resampling can then say nothing.
    """
    n = differences.shape[1]
    if n < 2 or not len(differences):
        return np.full(len(differences), np.nan), np.full(len(differences), np.nan)
    weights = item_weights(n, draws, seed)
    means = np.empty((draws, len(differences)))
    for start in range(0, draws, _BLOCK):
        means[start : start + _BLOCK] = weights[start : start + _BLOCK].astype(np.float64) @ differences.T / n
    level = expanded_level(n, confidence)
    low, high = np.quantile(means, [level, 1 - level], axis=0)
    still = np.ptp(differences, axis=1) == 0
    return np.where(still, np.nan, low), np.where(still, np.nan, high)


def expanded_level(n: int, confidence: float = CONFIDENCE) -> float:
    """The lower percentile of an expanded interval from n items."""
    return float(special.ndtr(sqrt(n / (n - 1)) * special.stdtrit(n - 1, 0.5 - confidence / 2)))


def sign_flip(differences: Array, *, draws: int = SIGN_FLIP_DRAWS, seed: int = 0) -> Array:
    """(K,) p-values of the sign-flip permutation test of mean difference 0, differences (K, n).

    Exact where differences are symmetric about 0 under the null, which exchanging adapter and base on an
    item makes them; (1 + extreme) / (1 + draws), so never 0 (Phipson and Smyth 2010). No difference: p = 1.
    """
    signs = item_signs(differences.shape[1], draws, seed)
    observed = np.abs(differences.sum(axis=1))
    # sums of the same numbers in another order differ in their last digits and must count as equal
    bound = observed - 1e-9 * np.abs(differences).sum(axis=1)
    extreme = np.zeros(len(differences))
    for start in range(0, draws, _BLOCK):
        block = signs[start : start + _BLOCK].astype(np.float64)
        extreme += (np.abs(block @ differences.T) >= bound).sum(axis=0)
    return np.asarray((1 + extreme) / (1 + draws))


@lru_cache(maxsize=4)  # targets often have the same number of items
def item_weights(n: int, draws: int, seed: int) -> NDArray[np.uint16]:
    """(draws, n) how often each item is drawn: the same for all adapters, which share their items."""
    generator = np.random.default_rng(seed)
    weights = np.empty((draws, n), np.uint16)
    for row in weights:
        row[:] = np.bincount(generator.integers(0, n, n), minlength=n)
    weights.setflags(write=False)
    return weights


def drawn_weights(n: int, groups: Groups | None, draws: int, seed: int) -> NDArray[np.uint16]:
    """(draws, n) how often each item counts as groups are drawn again; of ``item_weights`` without groups."""
    if groups is None:
        return item_weights(n, draws, seed)
    return item_weights(int(groups.max()) + 1, draws, seed)[:, groups]


@lru_cache(maxsize=2)
def item_signs(n: int, draws: int, seed: int) -> NDArray[np.int8]:
    """(draws, n) of -1 and 1: whether an item's two answers change places."""
    signs: NDArray[np.int8] = 2 * np.random.default_rng(seed).integers(0, 2, (draws, n), np.int8) - 1
    signs.setflags(write=False)
    return signs


def pooled_error(scores: Array) -> Array:
    """(K,) standard error of the mean of scores (K, S, n) over seeds and items, both taken as samples."""
    seeds, items = _mean_squares(scores, pseudo=False)[1:3]
    with np.errstate(invalid="ignore"):
        return np.asarray(np.sqrt((seeds + items) / (scores.shape[1] * scores.shape[2])))


def pooled_test(
    differences: Array, *, binary: bool, confidence: float = CONFIDENCE
) -> tuple[Array, Array, Array]:
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
        half = t_value(freedom, confidence) * np.sqrt(variance)
        p = 2 * special.stdtr(freedom, -np.abs(mean) / np.sqrt(variance))
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


def paired_gain(
    differences: Array, *, binary: bool, groups: Groups | None = None, confidence: float = CONFIDENCE
) -> tuple[Array, Array, Array, Array]:
    """Gain of K adapters over the base on the same items: (K,) means, low and high limits, p-values.

    differences: (K, S, n) score of the adapter less that of the base, for S seeds and n items, none NaN; of
        whole cells, of parts of them, or of anything that is derived item by item.
    binary: whether they are differences of 0/1 scores. groups: (n,) of items that are no sample of their own.
    confidence: of the limits; one above 95 % makes them hold at several looks (``matrix.sequential``).

    One seed: Tango's interval and exact McNemar for 0/1 scores, else paired bootstrap and sign-flip test.
    With groups that are not alike throughout, 0/1 scores have Tango's interval on as many items as they
    count for (``design_effect``), and the signs of whole groups are flipped. Several seeds: min F' over
    seeds and groups (``pooled_test``). Limits are NaN where nothing varies.
    """
    gains = differences.mean(axis=(1, 2))
    if differences.shape[1] > 1:
        return gains, *pooled_test(grouped(differences, groups), binary=binary, confidence=confidence)
    alone = differences[:, 0]
    totals = alone if groups is None else _sums(alone, groups)
    if not binary:
        return gains, *bootstrap_interval(grouped(alone, groups), confidence=confidence), sign_flip(totals)
    wins, losses = (totals > 0).sum(axis=1).astype(float), (totals < 0).sum(axis=1).astype(float)
    limits = paired_interval(wins, losses, totals.shape[1], z_value(confidence))
    tested = np.stack([*limits, mcnemar(wins, losses)])
    if groups is None:
        return gains, *tested
    # groups of one size whose items all agree are like items; whether others are, adapter by adapter
    uneven = ~np.isin(totals, (-1.0, 0.0, 1.0)).all(axis=1) | (np.ptp(np.bincount(groups)) > 0)
    if uneven.any():
        totals, alone = totals[uneven], alone[uneven]
        effect = design_effect(alone, groups)
        wins, losses = (alone > 0).sum(axis=1) / effect, (alone < 0).sum(axis=1) / effect
        z = float(t_value(max(totals.shape[1] - 1, 1), confidence))
        limits = paired_interval(wins, losses, alone.shape[1] / effect, z)
        tested[:, uneven] = np.stack([*limits, sign_flip(totals)])
    return gains, *tested


@dataclass(frozen=True)
class Change:
    """What changed from the base to the adapter.

    difference: adapter less base, with its 95 % interval. p: of no change; NaN where it cannot be tested.
    """

    difference: Interval
    p: float


NO_CHANGE_KNOWN = Change(unknown("not measured for both"), nan)


def paired_changes(
    differences: Sequence[Array], *, binary: bool, groups: Groups | None = None
) -> list[Change]:
    """Mean of each of several arrays (S, n) of differences on the n items of one target.

    binary: of 0/1 values. groups: (n,) of the items. Interval and test as in ``paired_gain``; the arrays may
    differ in their seeds.
    Unknown where there is no item or one of them is NaN.
    """
    found: list[Change] = [NO_CHANGE_KNOWN] * len(differences)
    by_seeds: dict[int, list[int]] = {}
    for place, values in enumerate(differences):
        if values.size and np.isfinite(values).all():
            by_seeds.setdefault(len(values), []).append(place)
    for places in by_seeds.values():
        tested = paired_gain(np.stack([differences[place] for place in places]), binary=binary, groups=groups)
        for place, gain, low, high, p in zip(places, *map(np.ndarray.tolist, tested), strict=True):
            reason = "" if isfinite(low) else "nothing varies, so that no interval can be had"
            found[place] = Change(Interval(gain, low, high, reason), p)
    return found


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
        half = float(t_value(self.freedom, confidence)) * self.error
        return Interval(self.value, max(self.value - half, low), min(self.value + half, high))

    @property
    def quantile(self) -> float:
        """Half the width of its 95 % interval in standard errors."""
        return float(t_value(self.freedom))

    @property
    def p(self) -> float:
        """Of a value so far from 0; NaN where nothing varies around a value that is not 0."""
        if not self.error > 0:
            return 1.0 if self.value == 0 else nan
        return float(2 * special.stdtr(self.freedom, -abs(self.value) / self.error))

    @property
    def smallest_visible(self) -> float:
        """The minimal detectable effect at 80 % power; NaN where unknown."""
        return detectable(self.error, self.freedom) if self.error > 0 else nan


def wilson(successes: float, n: float, *, quantile: float | None = None) -> Interval:
    """Share of successes among n with Wilson's score interval (E. B. Wilson, JASA 22:209-212, 1927)."""
    if n <= 0:
        return unknown("no item counts")
    z = z_value() if quantile is None else quantile
    share = successes / n
    center = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Interval(share, min(max(center - half, 0.0), share), max(min(center + half, 1.0), share))


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


def benjamini_hochberg(p: Array) -> Array:
    """q-values of the p-values that are known; NaN stays NaN and is no test (Benjamini, Hochberg 1995)."""
    q = np.full(p.shape, np.nan)
    known = np.isfinite(p)
    if known.any():
        q[known] = stats.false_discovery_control(p[known], method="bh")
    return q
