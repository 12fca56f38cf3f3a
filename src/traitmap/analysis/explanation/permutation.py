"""Tests of a pair feature by permuting whole tasks: MRQAP slopes with intervals and power, and Mantel's test.

Pairs share tasks, so no pair is a new observation; what was sampled is the task. A permuted feature is
adjusted anew for what the feature was adjusted for (double semi-partialling; D. Dekker, D. Krackhardt, T.
Snijders, Psychometrika 72:563-581, 2007). The interval inverts the test exactly, and the detectable slope
comes from the permuted draws themselves. Mantel's test (N. Mantel, Cancer Research 27:209-220, 1967) takes
no effects out and stands beside Pearson's naive p, which calls far too much significant.

Shapes: n used pairs of S sources and T targets, B permutations.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy import stats

from traitmap.analysis.explanation.design import Mask, Moves, residual, with_features
from traitmap.matrix.record import Array

LEVEL = 0.05
POWER = 0.8
_TIES = 1e-9  # sums of the same numbers in another order differ in their last digits


@dataclass(frozen=True)
class Slope:
    """The effect of one feature beside what it was adjusted for.

    effect: standard deviations of gain (after effects) for one standard deviation of the feature (after
    effects); alone it is the partial correlation. low, high: 95 %, the slopes that the permutation test
    does not reject. p: two-sided. detectable: smallest effect found with 80 % power at ``level``.
    collinearity: R^2 of the feature on the others after effects (0 where there are none).
    """

    effect: float
    low: float
    high: float
    p: float
    detectable: float
    collinearity: float


@dataclass(frozen=True)
class PermutationDraws:
    """All that test, interval and power need: sums of products of the permuted feature e, each (B,).

    Everything is outside the space that was adjusted for. x: the feature as it is. n: freedom left.
    """

    ee: Array
    ey: Array
    ex: Array
    xx: float
    xy: float
    yy: float
    freedom: int


def permuted_products(y: Array, feature: Array, used: Mask, basis: Array, moves: Moves) -> PermutationDraws:
    """Products of gains with a feature (S, T), as it is and with its tasks permuted.

    feature: already free of effects and of the other features, 0 where unknown. basis: (n, r) of what is
    adjusted for (source and target effects, other features). A permuted feature is adjusted anew.
    """
    x = residual(feature[used], basis)
    outside = residual(y, basis)
    flat, batch = feature.ravel(), max(1, 4_000_000 // max(1, len(y)))
    parts = []
    for start in range(0, len(moves), batch):
        e = flat[moves[start : start + batch]]
        inside = e @ basis
        ee = np.maximum((e**2).sum(axis=1) - (inside**2).sum(axis=1), 0.0)
        parts.append(np.stack([ee, e @ outside, e @ x]))
    ee, ey, ex = np.concatenate(parts, axis=1)
    freedom = len(y) - basis.shape[1] - 1
    return PermutationDraws(ee, ey, ex, float(x @ x), float(x @ outside), float(outside @ outside), freedom)


def p_value(draws: PermutationDraws) -> float:
    """Two-sided permutation p of a zero slope, by the studentised slope; never 0 (Phipson, Smyth 2010)."""
    if draws.xx <= 0 or draws.yy <= 0:
        return float("nan")
    observed = abs(draws.xy) / sqrt(draws.xx)
    with np.errstate(divide="ignore", invalid="ignore"):
        permuted = np.where(draws.ee > 1e-12 * draws.xx, np.abs(draws.ey) / np.sqrt(draws.ee), 0.0)
    bound = observed - _TIES * sqrt(draws.yy)
    return float((1 + (permuted >= bound).sum()) / (1 + len(permuted)))


def slope_limits(draws: PermutationDraws, level: float = LEVEL) -> tuple[float, float]:
    """Slopes b that the test does not reject when it is put to y - b x: exact inversion of the test.

    With u = |<e, y - b x>| / |e| for a permuted feature and v for the feature itself, u >= v holds
    between the two slopes at which the lines cross, so each draw gives one stretch around the estimate.
    """
    if draws.xx <= 0 or draws.yy <= 0:
        return float("nan"), float("nan")
    sound = draws.ee > 1e-12 * draws.xx
    size = np.sqrt(np.where(sound, draws.ee, 1.0))
    a, c = np.where(sound, draws.ey / size, 0.0), np.where(sound, draws.ex / size, 0.0)
    big_a, big_c = draws.xy / sqrt(draws.xx), sqrt(draws.xx)

    def crossing(rise: Array, run: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(np.abs(run) > 1e-9 * big_c, rise / run, np.nan)

    first, second = crossing(big_a - a, big_c - c), crossing(big_a + a, big_c + c)
    # An arrangement equal to the one observed never rejects: its stretch is the whole line.
    equal = ~(np.isfinite(first) & np.isfinite(second))
    low = np.sort(np.where(equal, -np.inf, np.minimum(first, second)))
    high = np.sort(np.where(equal, np.inf, np.maximum(first, second)))
    rank = int(np.floor(level * (1 + len(low)) + 1e-9))
    if rank < 1:
        return -np.inf, np.inf
    return float(low[rank - 1]), float(high[-rank])


def detectable_slope(draws: PermutationDraws, level: float) -> float:
    """Smallest slope that the test finds at ``level`` with 80 % power, from the permuted draws themselves.

    The estimated effect is taken out of the gains first; what is left, with tasks permuted, is what noise
    of this study does to a studentised slope. A slope is found where it lifts four in five of those over
    the critical value.
    """
    if draws.xx <= 0 or draws.freedom < 2:
        return float("nan")
    slope = draws.xy / draws.xx
    left = max(draws.yy - draws.xy**2 / draws.xx, 0.0)
    sound = draws.ee > 1e-12 * draws.xx
    ee = np.where(sound, draws.ee, 1.0)
    part = np.where(sound, (draws.ey - slope * draws.ex) / np.sqrt(ee), 0.0)
    spread = np.sqrt(np.maximum(left - part**2, 1e-300) / draws.freedom)
    t = part / spread
    critical = float(np.quantile(np.abs(t), 1 - level))
    error = sqrt(left / draws.freedom / draws.xx)
    return float(np.quantile(critical - t, POWER) * error)


def slope_of(
    y: Array,
    feature: Array,
    others: Array,
    used: Mask,
    effects: Array,
    moves: Moves,
    *,
    level: float = LEVEL,
) -> Slope:
    """One feature (S, T) beside others (S, T, k), all free of effects and 0 where unknown.

    y: (n,) gains of the used pairs. effects: (n, r) basis of source and target effects. level: of the test
    whose detectable effect is wanted. All numbers are NaN where effects, or the others, leave nothing of the
    feature or of the gains.
    """
    flat = others.reshape(feature.size, others.shape[-1])
    reduced = feature
    if flat.shape[1]:
        coefficients = np.linalg.lstsq(flat, feature.ravel(), rcond=None)[0]
        reduced = feature - (flat @ coefficients).reshape(feature.shape)
    plain = residual(feature[used], effects)
    basis = with_features(effects, others[used])
    draws = permuted_products(y, reduced, used, basis, moves)
    adjusted = residual(feature[used], basis)
    within_y = residual(y, effects)
    x_size, y_size = float(plain @ plain), float(within_y @ within_y)
    if x_size <= 0 or y_size <= 0 or float(adjusted @ adjusted) < 1e-9 * x_size:
        nan = float("nan")
        return Slope(nan, nan, nan, nan, nan, 1.0 if x_size > 0 else nan)
    scale = sqrt(x_size / y_size)
    low, high = slope_limits(draws)
    return Slope(
        effect=draws.xy / draws.xx * scale,
        low=low * scale,
        high=high * scale,
        p=p_value(draws),
        detectable=detectable_slope(draws, level) * scale,
        collinearity=1 - float(adjusted @ adjusted) / x_size,
    )


@dataclass(frozen=True)
class Mantel:
    """r: Pearson's correlation over the pairs. p: two-sided, tasks permuted. naive_p: Pearson's own."""

    r: float
    p: float
    naive_p: float


def mantel(y: Array, feature: Array, used: Mask, moves: Moves) -> Mantel:
    """Correlation of gains y (n,) of the used pairs with a feature (S, T), NaN where unknown.

    No effects are taken out. All three numbers are NaN where gains or feature do not vary.
    """
    known = np.isfinite(feature)
    centred = (
        np.where(known, feature - feature[known].mean(), 0.0) if known.any() else np.zeros(feature.shape)
    )
    constant = np.full((len(y), 1), 1 / sqrt(len(y)))
    draws = permuted_products(y, centred, used, constant, moves)
    if draws.xx <= 0 or draws.yy <= 0:
        return Mantel(float("nan"), float("nan"), float("nan"))
    r = float(np.clip(draws.xy / sqrt(draws.xx * draws.yy), -1, 1))
    n = int(known[used].sum())
    both = y[known[used]], feature[used & known]
    naive = (
        float(stats.pearsonr(*both).pvalue) if n > 2 and all(np.ptp(v) > 0 for v in both) else float("nan")
    )
    return Mantel(r, p_value(draws), naive)
