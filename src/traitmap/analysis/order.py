"""An order of sources and targets that puts those next to each other whose gains go together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from traitmap.matrix_record import Array, TransferMatrix

LEAST_SHARED = 3  # known numbers that two rows must have in common before they can be alike


@dataclass(frozen=True)
class Order:
    """Places in the matrix, in the order in which they should be shown: permutations of (S,) and (T,)."""

    sources: tuple[int, ...]
    targets: tuple[int, ...]


def clustered_order(matrix: TransferMatrix) -> Order:
    """Sources and targets by average linkage of how alike their gains are, like beside like.

    Targets are alike as far as their gains correlate over sources (distance 1 - r). Sources are alike as far
    as their gains, each in standard deviations of its target, point the same way (1 - cosine): where zero is
    matters. In-domain cells and predicted ones are left out, and a pair that shares fewer than three known
    cells is as far apart as if unrelated. The leaves of each tree are turned so that the distances between
    neighbours sum to the least (Bar-Joseph, Gifford and Jaakkola, Bioinformatics, 2001); of the two
    directions, the one that begins with the earlier place.
    """
    gains = _comparable(matrix)
    return Order(
        sources=_leaves(_similarity(gains, centred=False)),
        targets=_leaves(_similarity(gains.T, centred=True)),
    )


def _comparable(matrix: TransferMatrix) -> Array:
    """(S, T) gains in standard deviations of their target, NaN in-domain and where not measured."""
    own = np.array([[source == target for target in matrix.targets] for source in matrix.sources], dtype=bool)
    left_out = own.reshape(matrix.values.shape) | matrix.predicted
    gains = np.where(left_out, np.nan, matrix.gains)
    known = np.isfinite(gains)
    count = np.maximum(known.sum(axis=0), 1)
    filled = np.where(known, gains, 0.0)
    mean = filled.sum(axis=0) / count
    sd = np.sqrt((np.where(known, gains - mean, 0.0) ** 2).sum(axis=0) / count)
    scaled: Array = np.divide(gains, sd, out=np.where(known, 0.0, np.nan), where=known & (sd > 1e-12))
    return scaled


def _similarity(rows: Array, *, centred: bool) -> Array:
    """(N, N) correlation or cosine over the columns that both rows know; 0 where these are too few."""
    count = len(rows)
    found = np.eye(count)
    for one in range(count):
        for other in range(one):
            both = np.isfinite(rows[one]) & np.isfinite(rows[other])
            if both.sum() < LEAST_SHARED:
                continue
            a, b = rows[one, both], rows[other, both]
            if centred:
                a, b = a - a.mean(), b - b.mean()
            size = float(np.sqrt((a @ a) * (b @ b)))
            found[one, other] = found[other, one] = float(a @ b) / size if size > 1e-12 else 0.0
    return found


def _leaves(similarity: Array) -> tuple[int, ...]:
    if len(similarity) < 3:
        return tuple(range(len(similarity)))
    distance = np.clip(1.0 - similarity, 0.0, 2.0)
    np.fill_diagonal(distance, 0.0)
    tree = linkage(squareform(distance, checks=False), method="average", optimal_ordering=True)
    found = [int(place) for place in leaves_list(tree)]
    return tuple(found if found[0] < found[-1] else reversed(found))
