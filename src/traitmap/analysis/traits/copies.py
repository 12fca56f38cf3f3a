"""Which sources, and which targets, say the same: near copies are no two observations.

What generously many components leave over of a column is taken for its noise. Two sources with the same
traits still differ by that noise; a source and its near copy do not. The sum over targets of squared
differences, each over the noise variance of both, is chi squared for two sources with the same traits (one
that does little is taken for less noisy than others, or two such would pass for copies); pairs for which it
is too small (Benjamini-Hochberg over all pairs) are near copies. Targets that share many items are one in
every null.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from scipy.special import ndtri
from scipy.stats import chi2

from traitmap.analysis.traits.components import (
    Centring,
    Mask,
    correlations,
    low_rank_fit,
    residual_degrees,
    standardise,
)
from traitmap.matrix.record import Array
from traitmap.matrix.statistics import benjamini_hochberg

LEVEL = 0.05  # q of two rows that agree; where there are no copies, of any two in a table
ROUNDING = 1e-3  # of a column's spread below which what is left over comes from rounded numbers
SOUND = 0.75  # share of sources of which a quarter may be odd and three quarters copies: it sets the noise
LEAST_KNOWN = 3  # columns that two rows must have in common
NEAR_DUPLICATE = 0.98  # correlation at which two targets measure one thing
BLOCK = 0.25  # of the smaller target's items that two targets share from which they are moved together
MOST_PAIRED = 1_500  # rows of which all pairs are compared; of more, a tree finds the nearest

Clusters = NDArray[np.intp]  # (S,) or (T,) number of the cluster that each is in


def source_clusters(table: Array, observed: Mask, filled: Array, rank: int, metric: Centring) -> Clusters:
    """(S,) clusters of sources whose rows agree beyond the noise of a table (S, T); single linkage.

    filled: the completed table. rank: of the components that fit it; the noise is what these, or a quarter of
    those that exist where that is more, leave over, so that sources of one family are no copies.
    """
    z = standardise(filled[None], metric)[0]
    generous = min(max(rank, -(-min(table.shape) // 4)), min(table.shape) - 2)
    degrees = residual_degrees(observed[None], generous, metric)
    left = z[0] - low_rank_fit(z, generous, degrees, regularised=False)[0]
    left = np.where(observed, np.abs(left) * np.sqrt(observed.sum() / degrees[0]), np.nan)
    noise = np.nanquantile(left, SOUND, axis=0) / ndtri((1 + SOUND) / 2)  # neither odd rows nor copies set it
    telling = noise > ROUNDING * z[0].std(axis=0)
    scaled = np.where(observed, z[0], np.nan)[:, telling] / (np.sqrt(2) * noise[telling])
    rows, columns = scaled.shape
    if columns < LEAST_KNOWN:
        return np.arange(rows)
    clusters = _clusters_of_rows(scaled, np.ones(rows))
    # A source is no noisier than it is unlike the others: two that do little are no copies of each other.
    first = np.unique(clusters, return_index=True)[1]
    apart = scaled - np.nanmedian(scaled[first], axis=0)
    return _clusters_of_rows(scaled, np.minimum(2 * np.nanmean(apart**2, axis=1), 1.0))


def _clusters_of_rows(scaled: Array, noise: Array) -> Clusters:
    """(S,) clusters of rows (S, T), in standard errors of a difference, that agree; NaN where unknown.

    noise: (S,) variance of each source's noise over the usual one, at most 1. Rows too many to be paired are
    compared where they are known whole, by a tree, after Bonferroni.
    """
    rows, columns = scaled.shape
    if rows > MOST_PAIRED:
        whole = np.flatnonzero(np.isfinite(scaled).all(axis=1))
        radius = float(np.sqrt(chi2.ppf(LEVEL / (rows * (rows - 1) / 2), columns)))
        pairs = whole[cKDTree(scaled[whole]).query_pairs(radius, output_type="ndarray")]
        distance = ((scaled[pairs[:, 0]] - scaled[pairs[:, 1]]) ** 2).sum(axis=1)
        return _joined(pairs[distance <= radius**2 * noise[pairs].mean(axis=1)], rows)
    known = np.isfinite(scaled)
    first, second = np.triu_indices(rows, 1)
    both = known[first] & known[second]
    distance = (np.where(both, scaled[first] - scaled[second], 0.0) ** 2).sum(axis=1)
    p = chi2.cdf(
        distance / np.maximum(noise[first] + noise[second], 1e-300) * 2, np.maximum(both.sum(axis=1), 1)
    )
    p[both.sum(axis=1) < LEAST_KNOWN] = 1.0
    alike = benjamini_hochberg(p) < LEVEL
    return _joined(np.column_stack([first[alike], second[alike]]), rows)


def target_clusters(targets: Sequence[str], shared: Sequence[Mapping[str, Any]]) -> Clusters:
    """(T,) clusters of targets that share many items.

    shared: pairs of targets with items in common, as a run's matrix names them (``shared_items``). Targets
    that only correlate are no cluster: one strong trait makes all of them alike.
    """
    place = {name: at for at, name in enumerate(targets)}
    pairs = [
        (place[pair["first"]], place[pair["second"]])
        for pair in shared
        if pair["share"] >= BLOCK and pair["first"] in place and pair["second"] in place
    ]
    return _joined(pairs, len(targets))


def near_duplicates(values: Array) -> list[tuple[int, int, float]]:
    """Columns of values (S, T) that correlate at ``NEAR_DUPLICATE`` or more, and r; the highest first.

    Opposite ones too. Over five sources or more that have both.
    """
    r = correlations(values, least=5)
    first, second = np.triu_indices(len(r), 1)
    pairs = [
        (int(i), int(j), float(r[i, j]))
        for i, j in zip(first, second, strict=True)
        if abs(r[i, j]) >= NEAR_DUPLICATE
    ]
    return sorted(pairs, key=lambda pair: -abs(pair[2]))


def _joined(pairs: ArrayLike, count: int) -> Clusters:
    """(count,) clusters that pairs (n, 2) of numbers link."""
    first, second = np.asarray(pairs, dtype=np.intp).reshape(-1, 2).T
    graph = coo_matrix((np.ones(len(first)), (first, second)), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.intp)
