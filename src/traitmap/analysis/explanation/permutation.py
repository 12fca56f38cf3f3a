"""Slopes of gains on pair features, tested by permuting whole tasks (MRQAP), with intervals and power.

D. Dekker, D. Krackhardt, T. Snijders, Psychometrika 72:563-581, 2007 (double semi-partialling).

The Mantel test beside the naive one: correlation of gains and a feature over pairs, no effects removed.

N. Mantel, Cancer Research 27:209-220, 1967. Permuting tasks respects that pairs share them; Pearson's p
takes every pair for a new observation and calls far too much significant.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy import stats

from traitmap.analysis.explanation.design import Mask, Permutations, residual, with_features
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


def permuted_products(
    y: Array, feature: Array, used: Mask, basis: Array, moves: Permutations
) -> PermutationDraws:
    """Products of gains with a feature (S, T), as it is and with its tasks permuted.

    feature: already free of effects and of the other features, 0 where unknown. basis: (n, r) of what is
    adjusted for (source and target effects, other features). A permuted feature is adjusted anew.
    """
    x = residual(feature[used], basis)
    rest = residual(y, basis)
    flat, batch = feature.ravel(), max(1, 4_000_000 // max(1, len(y)))
    parts = []
    for start in range(0, len(moves.index), batch):
        e = flat[moves.index[start : start + batch]]
        inside = e @ basis
        ee = np.maximum((e**2).sum(axis=1) - (inside**2).sum(axis=1), 0.0)
        parts.append(np.stack([ee, e @ rest, e @ x]))
    ee, ey, ex = np.concatenate(parts, axis=1)
    freedom = len(y) - basis.shape[1] - 1
    return PermutationDraws(ee, ey, ex, float(x @ x), float(x @ rest), float(rest @ rest), freedom)


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
    first = _crossing(big_a - a, big_c - c, big_c)
    second = _crossing(big_a + a, big_c + c, big_c)
    # An arrangement equal to the one observed never rejects: its stretch is the whole line.
    equal = ~(np.isfinite(first) & np.isfinite(second))
    low = np.sort(np.where(equal, -np.inf, np.minimum(first, second)))
    high = np.sort(np.where(equal, np.inf, np.maximum(first, second)))
    kept = int(np.floor(level * (1 + len(low)) + 1e-9))
    if kept < 1:
        return -np.inf, np.inf
    return float(low[kept - 1]), float(high[-kept])


def _crossing(rise: Array, run: Array, size: float) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.abs(run) > 1e-9 * size, rise / run, np.nan)


def detectable_slope(draws: PermutationDraws, level: float) -> float:
    """Smallest slope that the test finds at ``level`` with 80 % power, from the permuted draws themselves.

    The estimated effect is taken out of the gains first; what is left, with tasks permuted, is what noise
    of this study does to a studentised slope. A slope is found where it lifts four in five of those over
    the critical value.
    """
    if draws.xx <= 0 or draws.freedom < 2:
        return float("nan")
    slope = draws.xy / draws.xx
    rest = max(draws.yy - draws.xy**2 / draws.xx, 0.0)
    sound = draws.ee > 1e-12 * draws.xx
    ee = np.where(sound, draws.ee, 1.0)
    part = np.where(sound, (draws.ey - slope * draws.ex) / np.sqrt(ee), 0.0)
    spread = np.sqrt(np.maximum(rest - part**2, 1e-300) / draws.freedom)
    t = part / spread
    critical = float(np.quantile(np.abs(t), 1 - level))
    error = sqrt(rest / draws.freedom / draws.xx)
    return float(np.quantile(critical - t, POWER) * error)


def slope_of(
    y: Array,
    feature: Array,
    others: Array,
    used: Mask,
    effects: Array,
    moves: Permutations,
    *,
    level: float = LEVEL,
) -> Slope:
    """One feature (S, T) beside others (S, T, k), all free of effects and 0 where unknown.

    y: (n,) gains of the used pairs. effects: (n, r) basis of source and target effects.
    """
    flat = others.reshape(feature.size, others.shape[-1])
    reduced = feature
    if flat.shape[1]:
        coefficients = np.linalg.lstsq(flat, feature.ravel(), rcond=None)[0]
        reduced = feature - (flat @ coefficients).reshape(feature.shape)
    plain = residual(feature[used], effects)
    basis = with_features(effects, others[used])
    draws = permuted_products(y, reduced, used, basis, moves)
    rest = residual(feature[used], basis)
    within_y = residual(y, effects)
    x_size, y_size = float(plain @ plain), float(within_y @ within_y)
    if x_size <= 0 or y_size <= 0 or float(rest @ rest) < 1e-9 * x_size:
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
        collinearity=1 - float(rest @ rest) / x_size,
    )


@dataclass(frozen=True)
class Mantel:
    """r: Pearson's correlation over the pairs. p: two-sided, tasks permuted. naive_p: Pearson's own."""

    r: float
    p: float
    naive_p: float


def mantel(y: Array, feature: Array, used: Mask, moves: Permutations) -> Mantel:
    """Correlation of gains y (n,) of the used pairs with a feature (S, T), NaN where unknown."""
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
