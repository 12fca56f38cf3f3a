"""From a transfer matrix to a table that can be decomposed, and to an order in which it can be read.

``prepare`` masks in-domain cells, leaves out what cannot be decomposed (empty rows, empty or constant
columns) and transforms values (``Scale``). ``clustered_order`` puts sources next to each other whose gains go
together, and targets likewise; it is for showing the matrix and changes nothing in the analysis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from traitmap.analysis.traits.components import Centring, Mask
from traitmap.errors import MatrixError
from traitmap.matrix.record import Array, TransferMatrix

Scale = Literal["standard", "center", "logit", "gain", "double"]

LEAST_SHARED = 3  # known numbers that two rows must have in common before they can be alike


@dataclass(frozen=True)
class PreparedTable:
    """The table that is decomposed, in canonical order (sources and targets sorted by name).

    Results do not depend on the order of rows and columns in the input, because everything random
    is drawn over the canonical order.

    row_order, column_order: indices into the matrix, of the kept sources and targets.
    values: (S', T') raw values of the kept part; baseline: (T',). table: the same after the scale's
    transformation, 0 where unobserved. observed, masked: (S', T'); masked cells are unobserved.
    points: (T',) points per unit of each target. dropped_rows, dropped_columns: names left out for lack of
    values. aside: why further sources take no part, by name; aside_rows: where they are in the matrix, and
    aside_values, aside_table: (E, T') what they are, NaN where unknown, before and after the transformation:
    they are projected on the components. aside_masked: (E, T') of these.
    """

    row_order: tuple[int, ...]
    column_order: tuple[int, ...]
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    values: Array
    baseline: Array
    table: Array
    observed: Mask
    masked: Mask
    metric: Centring
    points: Array
    items: Array
    dropped_rows: tuple[str, ...]
    dropped_columns: tuple[str, ...]
    aside: Mapping[str, str]
    aside_rows: tuple[int, ...]
    aside_names: tuple[str, ...]
    aside_values: Array
    aside_table: Array
    aside_masked: Mask

    @property
    def every_source(self) -> tuple[tuple[str, ...], Array]:
        """Names and raw values (S' + E, T'), NaN where unknown, of all sources: those aside come last."""
        values = np.where(self.observed, self.values, np.nan)
        return (*self.sources, *self.aside_names), np.vstack([values, self.aside_values])


def in_domain_mask(
    sources: Sequence[str],
    targets: Sequence[str],
    mask_diagonal: bool | Literal["auto"],
    diagonal: Sequence[tuple[str, str]] = (),
) -> Mask:
    """(S, T) True where a source is the target's own training set.

    ``auto`` and True mask cells whose source and target have the same name; True without any such
    cell is an error. ``diagonal`` adds (source, target) pairs.
    """
    mask = np.zeros((len(sources), len(targets)), dtype=bool)
    if mask_diagonal is not False:
        mask = np.array([[s == t for t in targets] for s in sources], dtype=bool).reshape(mask.shape)
    for source, target in diagonal:
        if source not in sources or target not in targets:
            raise MatrixError(
                f"diagonal pair ({source!r}, {target!r}): no such source and target in the matrix; "
                f"sources are {', '.join(sources)}; targets are {', '.join(targets)}"
            )
        mask[sources.index(source), targets.index(target)] = True
    if mask_diagonal is True and not mask.any():
        raise MatrixError(
            "mask_diagonal=True, but no source has the name of a target; "
            "name the in-domain cells with diagonal=[(source, target), ...] or use mask_diagonal='auto'"
        )
    return mask


def points_per_unit(values: Array) -> Array:
    """(T,) 100 for columns of proportions, else 1.

    A column counts as proportions when its median magnitude is at most 1 and nine of ten cells of the
    whole table lie within [-1, 1], so that a poor column of a table in per cent is not taken for one.
    """
    known = np.isfinite(values)
    proportions = bool((np.abs(values[known]) <= 1.0).mean() >= 0.9) if known.any() else False
    typical = np.nanmedian(np.where(known, np.abs(values), np.nan), axis=0)
    return np.where(proportions & (typical <= 1.0), 100.0, 1.0)


def item_counts(matrix: TransferMatrix) -> Array:
    """(S, T) items behind each pooled cell; NaN where unknown.

    Rows and columns in the order of the matrix.
    """
    rows = {name: i for i, name in enumerate(matrix.sources)}
    columns = {name: j for j, name in enumerate(matrix.targets)}
    counts = np.full(matrix.values.shape, np.nan)
    for cell in matrix.cells:
        if cell.seed is None and cell.n > 0 and cell.source in rows and cell.target in columns:
            counts[rows[cell.source], columns[cell.target]] = cell.n
    return counts


def to_logit(values: Array, items: Array, targets: Sequence[str]) -> Array:
    """Log-odds of proportions: with n items ln((k + 1/2) / (n - k + 1/2)), else clipped to [.005, .995].

    The half added to each side is the Haldane-Anscombe correction.
    """
    outside = np.isfinite(values) & ((values < 0) | (values > 1))
    if outside.any():
        column = int(np.flatnonzero(outside.any(axis=0))[0])
        worst = values[outside[:, column], column][0]
        raise MatrixError(
            f"scale 'logit' needs proportions in [0, 1], but target {targets[column]!r} holds {worst:g}; "
            "divide percentages by 100, leave the target out, or use scale 'standard'"
        )
    known = np.isfinite(items)
    n = np.where(known, items, 1.0)
    adjusted = np.where(known, (values * n + 0.5) / (n + 1.0), np.clip(values, 0.005, 0.995))
    return np.log(adjusted) - np.log1p(-adjusted)


def transform(values: Array, baseline: Array, scale: Scale, items: Array, targets: Sequence[str]) -> Array:
    """(S, T) values in the units that are decomposed; NaN stays NaN.

    baseline: (T,) of the base. items: (S, T) behind each cell, for the logit. MatrixError where ``gain``
    lacks a baseline or ``logit`` meets a value outside [0, 1].
    """
    if scale == "logit":
        return to_logit(values, items, targets)
    if scale == "gain":
        if not np.isfinite(baseline).all():
            lacking = [t for t, b in zip(targets, baseline, strict=True) if not np.isfinite(b)]
            raise MatrixError(
                f"scale 'gain' needs the base model's value on every target; it is unknown for "
                f"{', '.join(lacking)}; add a __baseline__ row or use scale 'center' (the same components)"
            )
        return values - baseline[None, :]
    return values


def untransform(table: Array, baseline: Array, scale: Scale) -> Array:
    """Undo ``transform``, up to the half success that the logit adds.

    table: (S, T) in the units that were decomposed; baseline: (T,). Gives raw values.
    """
    if scale == "logit":
        return 1.0 / (1.0 + np.exp(-table))
    return table + baseline[None, :] if scale == "gain" else table


def scale_slope(values: Array, observed: Mask, scale: Scale) -> Array:
    """(T,) units of the transformed table per raw unit, at the targets' means: 1 but for the logit.

    values, observed: (S, T) before the transformation. By it a standard error in raw units becomes one in
    units of the table (delta method).
    """
    if scale != "logit":
        return np.ones(values.shape[1])
    mean = np.where(observed, values, 0.0).sum(axis=0) / observed.sum(axis=0)
    mean = np.clip(mean, 0.005, 0.995)
    return 1.0 / (mean * (1.0 - mean))


def prepare(
    matrix: TransferMatrix,
    *,
    scale: Scale = "standard",
    mask_diagonal: bool | Literal["auto"] = "auto",
    diagonal: Sequence[tuple[str, str]] = (),
    aside: Mapping[str, str] = MappingProxyType({}),
) -> PreparedTable:
    """Sort, mask, transform, leave out what cannot be decomposed: empty rows, empty or constant columns.

    mask_diagonal, diagonal: as in ``in_domain_mask``. aside: sources that take no part, and why. Predicted
    cells count as missing. Raises MatrixError where the scale is unknown, values are infinite, or fewer than
    three sources and two targets are left.
    """
    if scale not in get_args(Scale):
        raise MatrixError(f"scale {scale!r} is unknown; use one of {', '.join(get_args(Scale))}")
    mask = in_domain_mask(matrix.sources, matrix.targets, mask_diagonal, diagonal)
    if np.isinf(matrix.values).any():
        raise MatrixError("the matrix holds infinite values; leave those cells empty")
    usable = np.isfinite(matrix.values) & ~mask & ~matrix.predicted  # a predicted cell is no datum
    known, takes_part = usable, np.array([name not in aside for name in matrix.sources], dtype=bool)
    usable = usable & takes_part[:, None]
    keep_columns = usable.sum(axis=0) >= 2
    keep_columns &= varies(matrix.values, usable)
    keep_rows = usable[:, keep_columns].sum(axis=1) >= 1
    rows = sorted(np.flatnonzero(keep_rows), key=lambda i: matrix.sources[i])
    columns = sorted(np.flatnonzero(keep_columns), key=lambda j: matrix.targets[j])
    if len(rows) < 3 or len(columns) < 2:
        advice = "add sources or targets, or use mask_diagonal=False"
        if aside:
            advice = (
                f"{len(aside)} sources are made from others and take no part; variations=True has them in"
            )
        raise MatrixError(
            f"traits need at least 3 sources and 2 targets with values that vary; of {len(matrix.sources)} x "
            f"{len(matrix.targets)} only {len(rows)} x {len(columns)} are left after leaving out empty rows, "
            f"empty or constant columns and masked cells; {advice}"
        )
    grid = np.ix_(rows, columns)
    targets = tuple(matrix.targets[j] for j in columns)
    values, items = matrix.values[grid], item_counts(matrix)[grid]
    baseline = np.asarray(matrix.baseline, dtype=float)[columns]
    observed = usable[grid]
    table = transform(values, baseline, scale, items, targets)
    aside_rows = tuple(int(i) for i in np.flatnonzero(~takes_part & known[:, columns].any(axis=1)))
    others = np.ix_(np.array(aside_rows, dtype=np.intp), columns)
    aside_table = transform(matrix.values[others], baseline, scale, item_counts(matrix)[others], targets)
    return PreparedTable(
        row_order=tuple(int(i) for i in rows),
        column_order=tuple(int(j) for j in columns),
        sources=tuple(matrix.sources[i] for i in rows),
        targets=targets,
        values=values,
        baseline=baseline,
        table=np.where(observed, table, 0.0),
        observed=observed,
        masked=mask[grid],
        metric=scale if scale in ("standard", "double") else "center",
        points=points_per_unit(values),
        items=items,
        dropped_rows=tuple(
            s for s, keep in zip(matrix.sources, keep_rows, strict=True) if not keep and s not in aside
        ),
        dropped_columns=tuple(t for t, keep in zip(matrix.targets, keep_columns, strict=True) if not keep),
        aside=aside,
        aside_rows=aside_rows,
        aside_names=tuple(matrix.sources[i] for i in aside_rows),
        aside_values=np.where(known[others], matrix.values[others], np.nan),
        aside_table=np.where(known[others], aside_table, np.nan),
        aside_masked=mask[others],
    )


def varies(values: Array, usable: Mask) -> Mask:
    """(T,) whether the usable cells of a column of values (S, T) differ by more than rounding.

    Each column by itself, so that its unit does not matter.
    """
    high = np.where(usable, values, -np.inf).max(axis=0, initial=-np.inf)
    low = np.where(usable, values, np.inf).min(axis=0, initial=np.inf)
    size = np.maximum(
        np.abs(np.where(np.isfinite(high), high, 0)), np.abs(np.where(np.isfinite(low), low, 0))
    )
    return np.where(np.isfinite(high), high - low, 0.0) > 1e-12 * size


def clustered_order(matrix: TransferMatrix) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sources and targets by average linkage of how alike their gains are, like beside like.

    Returns two permutations, of (S,) and of (T,): places in the matrix in the order in which to show them.
    Targets are alike as far as their gains correlate over sources (distance 1 - r). Sources are alike as far
    as their gains, each in standard deviations of its target, point the same way (1 - cosine): where zero is
    matters. In-domain cells and predicted ones are left out, and a pair that shares fewer than three known
    cells is as far apart as if unrelated. The leaves of each tree are turned so that the distances between
    neighbours sum to the least (Bar-Joseph, Gifford and Jaakkola, Bioinformatics, 2001); of the two
    directions, the one that begins with the earlier place.
    """
    in_domain = in_domain_mask(matrix.sources, matrix.targets, "auto")
    gains = np.where(in_domain | matrix.predicted, np.nan, matrix.gains)
    known = np.isfinite(gains)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, gains, 0.0).sum(axis=0) / count
    sd = np.sqrt((np.where(known, gains - mean, 0.0) ** 2).sum(axis=0) / count)
    gains = np.divide(gains, sd, out=np.where(known, 0.0, np.nan), where=known & (sd > 1e-12))
    return _leaves(_similarity(gains, centred=False)), _leaves(_similarity(gains.T, centred=True))


def _similarity(rows: Array, *, centred: bool) -> Array:
    """(N, N) correlation or cosine over the columns that both rows know; 0 where these are too few."""
    count = len(rows)
    similarity = np.eye(count)
    for i in range(count):
        for j in range(i):
            both = np.isfinite(rows[i]) & np.isfinite(rows[j])
            if both.sum() < LEAST_SHARED:
                continue
            a, b = rows[i, both], rows[j, both]
            if centred:
                a, b = a - a.mean(), b - b.mean()
            size = float(np.sqrt((a @ a) * (b @ b)))
            similarity[i, j] = similarity[j, i] = float(a @ b) / size if size > 1e-12 else 0.0
    return similarity


def _leaves(similarity: Array) -> tuple[int, ...]:
    if len(similarity) < 3:
        return tuple(range(len(similarity)))
    distance = np.clip(1.0 - similarity, 0.0, 2.0)
    np.fill_diagonal(distance, 0.0)
    tree = linkage(squareform(distance, checks=False), method="average", optimal_ordering=True)
    leaves = [int(place) for place in leaves_list(tree)]
    return tuple(leaves if leaves[0] < leaves[-1] else reversed(leaves))
