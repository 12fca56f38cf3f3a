"""Shares of hidden, surface and size in the variance of gains, beyond chance, with intervals over tasks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from traitmap.analysis.explanation.composites import Prepared, grouped
from traitmap.analysis.explanation.design import Design, Mask, Permutations, effect_basis, residual
from traitmap.analysis.explanation.dominance import null_shares, shares_of
from traitmap.analysis.explanation.levels import NEGLIGIBLE
from traitmap.analysis.explanation.mrqap import LEVEL
from traitmap.analysis.explanation.records import Dominance, GroupShare, Verdict
from traitmap.analysis.interval import Interval, unknown
from traitmap.matrix_record import Array

NO_FEATURES = "no feature of pairs is left after source and target effects"


def group_dominance(design: Design, features: Prepared, moves: Permutations) -> Dominance:
    """General dominance of the groups of composites, each held against its permutation null.

    A share is never 0 by chance: the null's mean is taken off. Its interval is a jackknife over tasks (a
    task that is source and target leaves as both at once), with t.
    """
    groups = grouped(features.groups)
    if not groups:
        return Dominance((), 1.0, unknown(NO_FEATURES), unknown(NO_FEATURES), "cannot tell")
    members = tuple(groups.values())
    shares = _shares_over(design.gains, features.values, design.used, members)
    effects = effect_basis(design.used)
    null = null_shares(design.y, features.values, design.used, effects, moves, members)
    left = _left_out(design, features.values, members)
    excess = shares - null.mean(axis=0)
    halves = _half_widths(left)
    found = []
    for i, (group, columns) in enumerate(groups.items()):
        p = float((1 + (null[:, i] >= shares[i] - 1e-12).sum()) / (1 + len(null)))
        beyond = _around(float(excess[i]), float(halves[i]))
        found.append(
            GroupShare(
                group=group,
                features=tuple(features.names[c] for c in columns),
                share=float(shares[i]),
                null_mean=float(null[:, i].mean()),
                null_p95=float(np.quantile(null[:, i], 0.95)),
                p=p,
                beyond=beyond,
                verdict=_verdict(p, beyond),
            )
        )
    total = [one.sum(axis=1, keepdims=True) for one in left]
    difference = _difference(tuple(groups), excess, left)
    outside = difference.low > 0 or difference.high < 0
    return Dominance(
        groups=tuple(found),
        unexplained=float(1 - shares.sum()),
        unexplained_beyond=_around(float(1 - excess.sum()), float(_half_widths(total)[0])),
        hidden_less_surface=difference,
        verdict="yes" if outside else "cannot tell",
    )


def _shares_over(gains: Array, values: Array, used: Mask, members: Sequence[Sequence[int]]) -> Array:
    """(groups,) shares over some of the pairs; effects are taken out anew."""
    basis = effect_basis(used)
    return shares_of(residual(gains[used], basis), residual(values[used], basis), members)


def _left_out(design: Design, values: Array, members: Sequence[Sequence[int]]) -> tuple[Array, ...]:
    """For every family of tasks (those on both sides, sources alone, targets alone) the (tasks, groups)
    shares without each of them; errors of families add in squares."""
    families: list[list[Mask]] = [[], [], []]
    for row, column in design.shared:
        families[0].append(_without(design.used, int(row), int(column)))
    for row in np.setdiff1d(np.arange(len(design.sources)), design.shared[:, 0]):
        families[1].append(_without(design.used, int(row), None))
    for column in np.setdiff1d(np.arange(len(design.targets)), design.shared[:, 1]):
        families[2].append(_without(design.used, None, int(column)))
    return tuple(
        np.array([_shares_over(design.gains, values, used, members) for used in masks])
        for masks in families
        if masks
    )


def _without(used: Mask, row: int | None, column: int | None) -> Mask:
    rest = used.copy()
    if row is not None:
        rest[row] = False
    if column is not None:
        rest[:, column] = False
    return rest


def _half_widths(left: Sequence[Array]) -> Array:
    """(k,) half widths of 95 % jackknife intervals (J. Tukey 1958)."""
    variance, tasks = np.zeros(left[0].shape[1]), 0
    for one in left:
        centre = one.mean(axis=0)
        variance = variance + (len(one) - 1) / len(one) * ((one - centre) ** 2).sum(axis=0)
        tasks += len(one)
    return np.asarray(float(stats.t.ppf(0.975, max(tasks - 1, 1))) * np.sqrt(variance))


def _around(value: float, half: float) -> Interval:
    return Interval(value, value - half, value + half)


def _difference(groups: Sequence[str], excess: Array, left: Sequence[Array]) -> Interval:
    if "hidden" not in groups or "surface" not in groups:
        return unknown("features of both groups are needed")
    hidden, surface = groups.index("hidden"), groups.index("surface")
    half = _half_widths([one[:, [hidden]] - one[:, [surface]] for one in left])[0]
    return _around(float(excess[hidden] - excess[surface]), float(half))


def _verdict(p: float, beyond: Interval) -> Verdict:
    """``no`` where even the upper limit of the share is negligible."""
    if p < LEVEL:
        return "yes"
    return "no" if beyond.high < NEGLIGIBLE**2 else "cannot tell"
