"""Does training on one task help another as much as the other way round? T - T' for tasks that are both."""

from __future__ import annotations

from math import hypot, isfinite, nan

import numpy as np
from scipy import stats

from traitmap.analysis.explanation.design import Design, Permutations, effect_basis, two_way_residual
from traitmap.analysis.explanation.mrqap import Slope, slope_of
from traitmap.analysis.explanation.records import AsymmetricPair, Asymmetry
from traitmap.analysis.interval import Interval, unknown
from traitmap.matrix_statistics import benjamini_hochberg

NO_NOISE = "the noise of the gains is unknown: the table holds no items and no standard errors"


def asymmetry(design: Design, moves: Permutations) -> Asymmetry:
    """Every pair of tasks that are source and target, the largest difference first.

    The two gains of a pair are measured on different items with different adapters, so their errors add
    in squares. Differences compare gains on two targets: with unlike units they mean nothing.
    """
    known = [
        (a, b)
        for a in range(len(design.shared))
        for b in range(a + 1, len(design.shared))
        if design.used[design.shared[a, 0], design.shared[b, 1]]
        and design.used[design.shared[b, 0], design.shared[a, 1]]
    ]
    if not known:
        return Asymmetry((), unknown("no two tasks are both sources and targets"), nan, nan)
    pairs = [_pair(design, a, b) for a, b in known]
    q = benjamini_hochberg(np.array([pair.p for pair in pairs]))
    pairs = [
        AsymmetricPair(one.first, one.second, one.forward, one.backward, one.difference, one.p, float(value))
        for one, value in zip(pairs, q, strict=True)
    ]
    pairs.sort(key=lambda one: (-abs(one.difference.value), one.first, one.second))
    slope = _reciprocity(design, moves)
    found = (
        Interval(slope.effect, slope.low, slope.high)
        if isfinite(slope.effect)
        else unknown("too few pairs are known in both directions")
    )
    reason = "" if any(isfinite(one.p) for one in pairs) else NO_NOISE
    return Asymmetry(tuple(pairs), found, slope.p, slope.detectable, reason)


def _pair(design: Design, a: int, b: int) -> AsymmetricPair:
    """Written so that the larger gain is forward."""
    (row_a, column_a), (row_b, column_b) = design.shared[a], design.shared[b]
    if design.gains[row_a, column_b] < design.gains[row_b, column_a]:
        return _pair(design, b, a)
    forward, backward = float(design.gains[row_a, column_b]), float(design.gains[row_b, column_a])
    error = hypot(design.noise[row_a, column_b], design.noise[row_b, column_a])
    difference = forward - backward
    if isfinite(error) and error > 0:
        half = float(stats.norm.ppf(0.975)) * error
        told = Interval(difference, difference - half, difference + half)
        p = float(2 * stats.norm.sf(abs(difference) / error))
    else:
        told, p = Interval(difference, reason=NO_NOISE), nan
    return AsymmetricPair(design.sources[row_a], design.sources[row_b], forward, backward, told, p, nan)


def _reciprocity(design: Design, moves: Permutations) -> Slope:
    """The gain in the other direction as a feature of the pair, by the same permutation of tasks."""
    mirrored = np.full(design.used.shape, np.nan)
    rows, columns = design.shared[:, 0], design.shared[:, 1]
    forward = np.where(design.used, design.gains, np.nan)
    mirrored[np.ix_(rows, columns)] = forward[np.ix_(rows, columns)].T
    feature = two_way_residual(mirrored, np.isfinite(mirrored))
    none = np.zeros((*feature.shape, 0))
    return slope_of(design.y, feature, none, design.used, effect_basis(design.used), moves)
