"""How much of the variance of gains each group of features explains, and what chance features would get.

D. V. Budescu, Psychological Bulletin 114:542-551, 1993 (general dominance); the same as the Shapley value
of R^2 and as LMG (U. Groemping, The American Statistician 61:139-147, 2007).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import factorial

import numpy as np
from numpy.typing import NDArray

from traitmap.analysis.explanation.design import Permutations, residual
from traitmap.matrix_record import Array


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
