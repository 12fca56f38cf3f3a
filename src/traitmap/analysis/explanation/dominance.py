"""How much of the variance of gains each group of features explains, beyond what chance features would get.

The share of a group is its general dominance (D. V. Budescu, Psychological Bulletin 114:542-551, 1993): the
same as the Shapley value of R^2 and as LMG (U. Groemping, The American Statistician 61:139-147, 2007). Chance
is what the same features get with tasks permuted. Intervals are over tasks, by leaving tasks and couples of
tasks out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import factorial

import numpy as np
from numpy.typing import NDArray

from traitmap.analysis.explanation.design import (
    Design,
    Mask,
    Moves,
    PreparedFeatures,
    effect_basis,
    grouped,
    residual,
)
from traitmap.analysis.explanation.levels import NEGLIGIBLE
from traitmap.analysis.explanation.permutation import LEVEL
from traitmap.analysis.explanation.records import Dominance, GroupShare, Verdict
from traitmap.analysis.profiles.pairs import Group
from traitmap.matrix.record import Array
from traitmap.matrix.statistics import Interval, t_value, unknown

MOST_COUPLES = 300  # couples of tasks left out in turn; of more, as many are taken evenly
NO_FEATURES = "no feature of pairs is left after source and target effects"

# Shares with each task of a kind left out (kinds: both sides, sources alone, targets alone), each (tasks, k);
# shares without each couple of tasks (m, k); how many couples there are.
LeftOut = tuple[list[Array], Array, int]


def group_shares(r_squared: Mapping[tuple[int, ...], Array], groups: int) -> Array:
    """(..., groups) general dominance: mean gain in R^2 over all orders in which groups can enter.

    r_squared: R^2 of every set of groups, by the sorted tuple of their numbers; the empty set is 0.
    """
    shares = []
    for group in range(groups):
        others = [number for number in range(groups) if number != group]
        total = np.zeros_like(r_squared[()])
        for size in range(groups):
            weight = factorial(size) * factorial(groups - size - 1) / factorial(groups)
            for before in combinations(others, size):
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
    moves: Moves,
    members: Sequence[Sequence[int]],
) -> Array:
    """(B, groups) shares that the same features get when their tasks are permuted, all together.

    As many features, as alike among themselves, over tasks as alike as these, and unrelated to the gains.
    features: (S, T, k), free of effects, 0 where unknown. y: (n,) gains.
    """
    outside = residual(y, effects)
    flat = features.reshape(-1, features.shape[-1])
    batch = max(1, 2_000_000 // max(1, len(y) * features.shape[-1]))
    shares = []
    for start in range(0, len(moves), batch):
        moved = flat[moves[start : start + batch]]  # (b, n, k)
        inside = np.einsum("bnk,nr->bkr", moved, effects, optimize=True)
        gram = np.einsum("bnk,bnl->bkl", moved, moved, optimize=True)
        gram -= np.einsum("bkr,blr->bkl", inside, inside, optimize=True)
        with_y = np.einsum("bnk,n->bk", moved, outside, optimize=True)
        shares.append(_shares(gram, with_y, float(outside @ outside), members))
    return np.concatenate(shares)


def _shares(gram: Array, with_y: Array, yy: float, members: Sequence[Sequence[int]]) -> Array:
    """(b, groups) from products of features (b, k, k), of features with y (b, k), and of y with itself."""
    r_squared: dict[tuple[int, ...], Array] = {(): np.zeros(len(gram))}
    for size in range(1, len(members) + 1):
        for groups in combinations(range(len(members)), size):
            columns = [column for group in groups for column in members[group]]
            r_squared[groups] = np.zeros(len(gram))
            if columns and yy > 0:
                part, b = gram[:, columns][:, :, columns], with_y[:, columns]
                inverse = np.linalg.pinv(part, rcond=1e-9, hermitian=True)
                r_squared[groups] = np.clip(np.einsum("bk,bkl,bl->b", b, inverse, b) / yy, 0.0, 1.0)
    return group_shares(r_squared, len(members))


def group_dominance(design: Design, features: PreparedFeatures, moves: Moves) -> Dominance:
    """General dominance of the groups of composites, each held against its permutation null.

    A share is never 0 by chance: the null's mean is taken off. Its interval is a jackknife over tasks.
    """
    groups = grouped(features.groups)
    if not groups:
        return Dominance((), 1.0, unknown(NO_FEATURES), unknown(NO_FEATURES), "cannot tell")
    members = tuple(groups.values())
    shares, null = _observed_and_null(design, features, moves, members)
    left_out = _left_out(design, features.values, members)
    excess = shares - null.mean(axis=0)
    halves = _half_widths(left_out)
    records = []
    for i, (group, columns) in enumerate(groups.items()):
        p = _share_p(shares[i], null[:, i])
        beyond = _around(excess[i], halves[i])
        verdict: Verdict = "yes" if p < LEVEL else "no" if beyond.high < NEGLIGIBLE**2 else "cannot tell"
        records.append(
            GroupShare(
                group=group,
                features=tuple(features.names[c] for c in columns),
                share=float(shares[i]),
                null_mean=float(null[:, i].mean()),
                null_p95=float(np.quantile(null[:, i], 0.95)),
                p=p,
                beyond=beyond,
                verdict=verdict,  # "no" where even the upper limit of the share is negligible
            )
        )
    difference = unknown("features of both groups are needed")
    if "hidden" in groups and "surface" in groups:
        weights = np.zeros((len(groups), 1))
        names = tuple(groups)
        weights[names.index("hidden")], weights[names.index("surface")] = 1.0, -1.0
        difference = _around((excess @ weights)[0], _half_widths(left_out, weights)[0])
    return Dominance(
        groups=tuple(records),
        unexplained=float(1 - shares.sum()),
        unexplained_beyond=_around(
            float(1 - excess.sum()), _half_widths(left_out, np.ones((len(groups), 1)))[0]
        ),
        hidden_less_surface=difference,
        verdict="yes" if difference.low > 0 or difference.high < 0 else "cannot tell",
    )


def share_tests(
    design: Design, features: PreparedFeatures, moves: Moves
) -> dict[Group, tuple[float, float, float]]:
    """Share, what chance gives on average, and p of so large a share by chance, of every group."""
    groups = grouped(features.groups)
    if not groups:
        return {}
    shares, null = _observed_and_null(design, features, moves, tuple(groups.values()))
    return {
        group: (float(shares[i]), float(null[:, i].mean()), _share_p(shares[i], null[:, i]))
        for i, group in enumerate(groups)
    }


def _observed_and_null(
    design: Design, features: PreparedFeatures, moves: Moves, members: Sequence[Sequence[int]]
) -> tuple[Array, Array]:
    """(groups,) shares, and (B, groups) those of permuted tasks."""
    shares = shares_over(design.gains, features.values, design.used, members)
    effects = effect_basis(design.used)
    return shares, null_shares(design.y, features.values, design.used, effects, moves, members)


def _share_p(share: float, null: Array) -> float:
    return float((1 + (null >= share - 1e-12).sum()) / (1 + len(null)))


def shares_over(gains: Array, values: Array, used: Mask, members: Sequence[Sequence[int]]) -> Array:
    """(groups,) shares over some of the pairs; effects are taken out anew."""
    basis = effect_basis(used)
    return shares_of(residual(gains[used], basis), residual(values[used], basis), members)


def _left_out(design: Design, values: Array, members: Sequence[Sequence[int]]) -> LeftOut:
    """Shares without every task in turn, and without the pairs of every two tasks."""
    # A number for every task, by source and by target; shared tasks have one.
    row_task = np.arange(len(design.sources))
    column_task = len(design.sources) + np.arange(len(design.targets))
    column_task[design.shared[:, 1]] = row_task[design.shared[:, 0]]
    rows, columns = design.cells
    first, second = row_task[rows], column_task[columns]
    on_both = set(design.shared[:, 0].tolist())
    kinds = (on_both, set(row_task.tolist()) - on_both, set(column_task.tolist()) - on_both)

    def without(removed: Mask) -> Array:
        used = design.used.copy()
        used[rows[removed], columns[removed]] = False
        return shares_over(design.gains, values, used, members)

    by_task = [
        np.array([without((first == task) | (second == task)) for task in sorted(kind)])
        for kind in kinds
        if kind
    ]
    low, high = np.minimum(first, second), np.maximum(first, second)
    couples = np.unique(np.column_stack([low, high]), axis=0)
    drawn = couples[np.unique(np.linspace(0, len(couples) - 1, MOST_COUPLES).astype(int))]
    by_couple = np.array([without((low == i) & (high == j)) for i, j in drawn.tolist()])
    return by_task, by_couple, len(couples)


def _half_widths(left_out: LeftOut, weights: Array | None = None) -> Array:
    """(k,) half widths of 95 % intervals: what other tasks of the same kind would give.

    weights: (groups, k) of sums of the shares; by default each share alone. Variances of leaving out tasks
    are added; each couple of tasks is counted in both, so the variance of leaving out couples is taken off
    once (P. Aronow, C. Samii, V. Assenova, Political Analysis 23:564-577, 2015), and is the least that can
    be left.
    """
    by_task, by_couple, count = left_out
    if weights is not None:
        by_task, by_couple = [shares @ weights for shares in by_task], by_couple @ weights
    tasks = sum(len(shares) for shares in by_task)
    of_tasks = np.sum([_jackknife(shares) for shares in by_task], axis=0)
    of_couples = _jackknife(by_couple) * count / len(by_couple)
    variance = np.maximum(of_tasks - of_couples, of_couples)
    return np.asarray(float(t_value(max(tasks - 1, 1))) * np.sqrt(variance))


def _jackknife(left: Array) -> Array:
    """(k,) jackknife variance (J. Tukey 1958) of numbers (m, k) with one of m parts left out."""
    return np.asarray((len(left) - 1) / len(left) * ((left - left.mean(axis=0)) ** 2).sum(axis=0))


def _around(value: float, half: float) -> Interval:
    value, half = float(value), float(half)
    return Interval(value, value - half, value + half)
