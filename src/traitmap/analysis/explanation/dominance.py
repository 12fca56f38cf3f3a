"""How much of the variance of gains each group of features explains, and what chance features would get.

D. V. Budescu, Psychological Bulletin 114:542-551, 1993 (general dominance); the same as the Shapley value
of R^2 and as LMG (U. Groemping, The American Statistician 61:139-147, 2007).

Shares of hidden, surface and size in the variance of gains, beyond chance, with intervals over tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import factorial

import numpy as np
from numpy.typing import NDArray

from traitmap.analysis.explanation.design import (
    Design,
    Mask,
    Permutations,
    PreparedFeatures,
    effect_basis,
    grouped,
    residual,
)
from traitmap.analysis.explanation.levels import NEGLIGIBLE
from traitmap.analysis.explanation.permutation import LEVEL
from traitmap.analysis.explanation.records import Dominance, GroupShare, Verdict
from traitmap.matrix.record import Array
from traitmap.matrix.statistics import Interval, t_value, unknown


def group_shares(r_squared: Mapping[tuple[int, ...], Array], groups: int) -> Array:
    """(..., groups) general dominance: mean gain in R^2 over all orders in which groups can enter.

    r_squared: R^2 of every set of groups, by the sorted tuple of their numbers; the empty set is 0.
    """
    shares = []
    for group in range(groups):
        rest = [other for other in range(groups) if other != group]
        total = np.zeros_like(r_squared[()])
        for size in range(groups):
            weight = factorial(size) * factorial(groups - size - 1) / factorial(groups)
            for before in combinations(rest, size):
                total = total + weight * (r_squared[tuple(sorted((*before, group)))] - r_squared[before])
        shares.append(total)
    return np.stack(shares, axis=-1) if shares else np.zeros((*np.shape(r_squared[()]), 0))


def shares_of(y: Array, x: Array, members: Sequence[Sequence[int]]) -> Array:
    """(groups,) shares of the variance of y (n,) for features x (n, k), both free of effects.

    members: the columns of each group.
    """
    return np.asarray(_shares((x.T @ x)[None], (x.T @ y)[None], float(y @ y), members)[0])


def null_shares(
    y: Array,
    features: Array,
    used: NDArray[np.bool_],
    effects: Array,
    moves: Permutations,
    members: Sequence[Sequence[int]],
) -> Array:
    """(B, groups) shares that the same features get when their tasks are permuted, all together.

    As many features, as alike among themselves, over tasks as alike as these, and unrelated to the gains.
    features: (S, T, k), free of effects, 0 where unknown. y: (n,) gains.
    """
    rest = residual(y, effects)
    flat = features.reshape(-1, features.shape[-1])
    batch = max(1, 2_000_000 // max(1, len(y) * features.shape[-1]))
    found = []
    for start in range(0, len(moves.index), batch):
        moved = flat[moves.index[start : start + batch]]  # (b, n, k)
        inside = np.einsum("bnk,nr->bkr", moved, effects, optimize=True)
        gram = np.einsum("bnk,bnl->bkl", moved, moved, optimize=True)
        gram -= np.einsum("bkr,blr->bkl", inside, inside, optimize=True)
        with_y = np.einsum("bnk,n->bk", moved, rest, optimize=True)
        found.append(_shares(gram, with_y, float(rest @ rest), members))
    return np.concatenate(found)


def _shares(gram: Array, with_y: Array, yy: float, members: Sequence[Sequence[int]]) -> Array:
    """(b, groups) from products of features (b, k, k), of features with y (b, k), and of y with itself."""
    r_squared: dict[tuple[int, ...], Array] = {(): np.zeros(len(gram))}
    for size in range(1, len(members) + 1):
        for chosen in combinations(range(len(members)), size):
            columns = [column for group in chosen for column in members[group]]
            r_squared[chosen] = _r_squared(gram, with_y, yy, columns)
    return group_shares(r_squared, len(members))


def _r_squared(gram: Array, with_y: Array, yy: float, columns: Sequence[int]) -> Array:
    if not columns or yy <= 0:
        return np.zeros(len(gram))
    part = gram[:, columns][:, :, columns]
    inverse = np.linalg.pinv(part, rcond=1e-9, hermitian=True)
    b = with_y[:, columns]
    return np.asarray(np.clip(np.einsum("bk,bkl,bl->b", b, inverse, b) / yy, 0.0, 1.0))


MOST_COUPLES = 300  # couples of tasks left out in turn; of more, as many are taken evenly
NO_FEATURES = "no feature of pairs is left after source and target effects"


def group_dominance(design: Design, features: PreparedFeatures, moves: Permutations) -> Dominance:
    """General dominance of the groups of composites, each held against its permutation null.

    A share is never 0 by chance: the null's mean is taken off. Its interval is a jackknife over tasks.
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
    total = left.combined(np.ones((len(groups), 1)))
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


@dataclass(frozen=True)
class _Left:
    """Shares with some pairs left out. families: (tasks, groups) for tasks on both sides, sources alone and
    targets alone; couples: (m, groups) without the pairs of two tasks; of: how many couples there are."""

    families: tuple[Array, ...]
    couples: Array
    of: int

    def combined(self, weights: Array) -> _Left:
        """The same for weighted sums (groups, k) of the shares."""
        return _Left(tuple(family @ weights for family in self.families), self.couples @ weights, self.of)


def _left_out(design: Design, values: Array, members: Sequence[Sequence[int]]) -> _Left:
    """Shares without every task in turn, and without the pairs of every two tasks."""
    row_task, column_task = _tasks(design)
    rows, columns = design.cells
    first, second = row_task[rows], column_task[columns]
    on_both = set(design.shared[:, 0].tolist())
    kinds = (on_both, set(row_task.tolist()) - on_both, set(column_task.tolist()) - on_both)

    def without(gone: Mask) -> Array:
        used = design.used.copy()
        used[rows[gone], columns[gone]] = False
        return _shares_over(design.gains, values, used, members)

    families = tuple(
        np.array([without((first == task) | (second == task)) for task in sorted(kind)])
        for kind in kinds
        if kind
    )
    low, high = np.minimum(first, second), np.maximum(first, second)
    couples = np.unique(np.column_stack([low, high]), axis=0)
    chosen = couples[np.unique(np.linspace(0, len(couples) - 1, MOST_COUPLES).astype(int))]
    left = np.array([without((low == i) & (high == j)) for i, j in chosen.tolist()])
    return _Left(families, left, len(couples))


def _tasks(design: Design) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """A number of its own for every task, by source and by target; shared tasks have one."""
    row_task = np.arange(len(design.sources))
    column_task = len(design.sources) + np.arange(len(design.targets))
    column_task[design.shared[:, 1]] = row_task[design.shared[:, 0]]
    return row_task, column_task


def _half_widths(left: _Left) -> Array:
    """(k,) half widths of 95 % intervals: what other tasks of the same kind would give.

    Variances of leaving out tasks are added; each couple of tasks is counted in both, so the variance of
    leaving out couples is taken off once (P. Aronow, C. Samii, V. Assenova, Political Analysis
    23:564-577, 2015), and is the least that can be left.
    """
    tasks = sum(len(family) for family in left.families)
    by_task = np.sum([_jackknife(one) for one in left.families], axis=0)
    by_couple = _jackknife(left.couples) * left.of / len(left.couples)
    variance = np.maximum(by_task - by_couple, by_couple)
    return np.asarray(float(t_value(max(tasks - 1, 1))) * np.sqrt(variance))


def _jackknife(left: Array) -> Array:
    """(k,) jackknife variance (J. Tukey 1958) of numbers (m, k) with one of m parts left out."""
    return np.asarray((len(left) - 1) / len(left) * ((left - left.mean(axis=0)) ** 2).sum(axis=0))


def _around(value: float, half: float) -> Interval:
    return Interval(value, value - half, value + half)


def _difference(groups: Sequence[str], excess: Array, left: _Left) -> Interval:
    if "hidden" not in groups or "surface" not in groups:
        return unknown("features of both groups are needed")
    weights = np.zeros((len(groups), 1))
    weights[groups.index("hidden")], weights[groups.index("surface")] = 1.0, -1.0
    return _around(float((excess @ weights)[0]), float(_half_widths(left.combined(weights))[0]))


def _verdict(p: float, beyond: Interval) -> Verdict:
    """``no`` where even the upper limit of the share is negligible."""
    if p < LEVEL:
        return "yes"
    return "no" if beyond.high < NEGLIGIBLE**2 else "cannot tell"
