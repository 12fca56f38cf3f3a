"""Measurement noise: how much of the table it is, and tables as they might have been measured instead.

The same adapters might have met other items, or been trained with other seeds. All adapters and the base
answer the same items, so items are resampled jointly for all of them; what they share then cancels in gains
and in the centred table. Seeds are resampled for each source on its own, jointly for all targets, since one
adapter answers all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from traitmap.analysis.traits.components import (
    Components,
    Mask,
    low_rank_fit,
    residual_degrees,
    restore,
    standardise,
)
from traitmap.analysis.traits.records import Noise
from traitmap.analysis.traits.scaling import PreparedTable
from traitmap.matrix.record import Array, Cell, TransferMatrix
from traitmap.matrix.statistics import ROUNDED_Z, group_scores

# per target (1 + S, seeds, items or groups), row 0 the base; None where unknown
ItemScores = Sequence[Array | None]


def item_scores(
    matrix: TransferMatrix, rows: tuple[int, ...], columns: tuple[int, ...]
) -> list[Array | None]:
    """Item scores of the given sources and targets (indices into the matrix), in their order.

    One array (1 + S, seeds, items) per target, row 0 the base; None where the items are not known. Items that
    repeat or belong together are one.
    """
    pick = [0, *(row + 1 for row in rows)]
    parts: list[Array | None] = []
    for column in columns:
        scores = matrix.item_scores.get(matrix.targets[column])
        groups = matrix.item_groups.get(matrix.targets[column])
        parts.append(None if scores is None else group_scores(np.asarray(scores, dtype=float)[pick], groups))
    return parts


def _mean_over(values: Array, axis: int) -> Array:
    """Mean of the finite values; NaN where there are none, without a warning."""
    finite = np.isfinite(values)
    total = np.where(finite, values, 0.0).sum(axis=axis)
    count = finite.sum(axis=axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def item_deviations(items: ItemScores, draws: int, generator: np.random.Generator) -> Array:
    """(draws, 1 + S, T) resampled less observed mean when items are drawn again; row 0 is the base.

    In raw units. ValueError where a target has no items. A source that was asked a part of the base's items
    moves as its value is made: as the base does, and by the paired difference on its own items.
    """
    if any(scores is None for scores in items):
        raise ValueError("item_deviations needs items for every target")
    known = [scores for scores in items if scores is not None]
    deviations = np.empty((draws, len(known[0]) if known else 0, len(known)))
    for t, scores in enumerate(known):
        pooled = _mean_over(scores, axis=1)
        finite = np.isfinite(pooled)
        part = (finite <= finite[0]).all(axis=1) & finite.any(axis=1) & (finite != finite[0]).any(axis=1)
        pooled = np.where(part[:, None], pooled - pooled[0], pooled)
        filled = np.where(finite, pooled, 0.0)
        mean = filled.sum(axis=1) / np.maximum(finite.sum(axis=1), 1)
        n = pooled.shape[1]
        step = max(1, 4_000_000 // n)
        for first in range(0, draws, step):
            last = min(first + step, draws)
            counts = generator.multinomial(n, np.full(n, 1.0 / n), size=last - first).astype(float)
            total, weight = counts @ filled.T, counts @ finite.T.astype(float)
            moved = np.where(weight > 0, total / np.maximum(weight, 1e-300) - mean, 0.0)
            moved[:, part] += moved[:, :1]
            deviations[first:last, :, t] = moved
    return deviations


def seed_deviations(items: ItemScores, draws: int, generator: np.random.Generator) -> Array:
    """(draws, 1 + S, T) resampled less observed mean when training seeds are drawn again; the base stays.

    Resampling R seeds understates their variance by (R - 1) / R, which matters at two or three seeds;
    the deviations are stretched by sqrt(R / (R - 1)). A source with one seed does not move.
    """
    means = np.stack([_mean_over(part, axis=2) for part in items if part is not None], axis=2)
    deviations = np.zeros((draws, len(means), means.shape[2]))
    for row in range(1, len(means)):
        present = np.flatnonzero(np.isfinite(means[row]).any(axis=1))
        count = len(present)
        if count < 2:
            continue
        values = means[row, present]
        finite = np.isfinite(values)
        weight = generator.multinomial(count, np.full(count, 1.0 / count), size=draws).astype(float)
        total, size = weight @ np.where(finite, values, 0.0), weight @ finite.astype(float)
        center = _mean_over(values, axis=0)
        moved = np.where(size > 0, total / np.maximum(size, 1.0) - center, 0.0)
        deviations[:, row] = np.nan_to_num(moved) * np.sqrt(count / (count - 1))
    return deviations


def item_noise_variance(items: ItemScores) -> Array:
    """(T,) expected contribution of item sampling to the variance between sources.

    All sources answer the same items, so what an item adds to all of them cancels between sources:
    with d the item scores less their mean over sources, sum over sources of var(d) / n, divided by S - 1. d
    is seen on the items that all of them were asked; n is each source's own.
    """
    variances = np.full(len(items), np.nan)
    for t, scores in enumerate(items):
        if scores is None:
            continue
        pooled = _mean_over(scores[1:], axis=1)
        pooled = pooled[np.isfinite(pooled).any(axis=1)]  # a failed adapter takes no part
        shared = pooled[:, np.isfinite(pooled).all(axis=0)]
        sources, n = shared.shape
        asked = np.isfinite(pooled).sum(axis=1)
        if n < 2 or sources < 2:
            continue
        deviation = shared - shared.mean(axis=0)
        variances[t] = (deviation.var(axis=1, ddof=1) * (n / asked)).sum() / n / (sources - 1)
    return variances


def stderr_noise_variance(stderr: Array) -> Array:
    """(T,) mean squared standard error of the sources' cells (S, T); NaN where none is known.

    The expected noise variance of a cell where items are not known, in squared units of the values.
    """
    return _mean_over(stderr**2, axis=0)


def cell_stderr(matrix: TransferMatrix, rows: tuple[int, ...], columns: tuple[int, ...]) -> Array:
    """(1 + S, T) standard errors of pooled cells, row 0 the base; binomial from n where only n is known.

    NaN where neither a standard error nor a count of items (with a proportion) is known.
    """
    source_at = {matrix.sources[row]: i + 1 for i, row in enumerate(rows)}
    target_at = {matrix.targets[column]: j for j, column in enumerate(columns)}
    stderr = np.full((1 + len(rows), len(columns)), np.nan)
    for cell in matrix.base_cells:
        if cell.seed is None and cell.target in target_at:
            stderr[0, target_at[cell.target]] = _stderr_of(cell)
    for cell in matrix.cells:
        if cell.seed is None and cell.target in target_at and cell.source in source_at:
            stderr[source_at[cell.source], target_at[cell.target]] = _stderr_of(cell)
    return stderr


def _stderr_of(cell: Cell) -> float:
    """The cell's standard error, or the binomial one of its n.

    Half a success and half a failure are added, so that a score of 0 or 1 is not taken for certain.
    """
    if np.isfinite(cell.stderr):
        return cell.stderr
    if cell.n > 0 and 0 <= cell.value <= 1:
        share = (cell.value * cell.n + 0.5) / (cell.n + 1)
        return float(np.sqrt(share * (1 - share) / cell.n))
    return float("nan")


def residual_spread(table: Array, observed: Mask, fitted: Array, parameters: float) -> Array:
    """(T,) standard deviation of what a fit of the table (S, T) leaves over in each column's observed cells.

    parameters: free parameters of the fit; the degrees of freedom they cost are shared out evenly.
    """
    squares = np.where(observed, (table - fitted) ** 2, 0.0).sum(axis=0)
    counts = observed.sum(axis=0)
    share = max(1.0 - parameters / max(observed.sum(), 1), 1.0 / max(observed.sum(), 1))
    return np.sqrt(squares / np.maximum(counts * share, 1e-300))


@dataclass(frozen=True)
class RemeasuredTable:
    """What is known of measurement noise, over kept sources and targets.

    origin: where intervals come from: ``items``, ``stderr`` (known standard errors or counts) or
        ``residuals`` (what the components leave over, as in fixed-effects PCA).
    deviations: kind (``items``, ``seeds``, ``measurement`` = both) -> (draws, 1 + S, T) in raw units, row 0
        the base; empty without items.
    stderr: (1 + S, T) in raw units, for origins without items; also for cells that were filled in.
    variance: (T,) noise variance between sources in raw units, NaN where unknown.
    slope: (T,) table units per raw unit.
    """

    origin: str
    deviations: Mapping[str, Array]
    stderr: Array
    variance: Array
    slope: Array

    def in_table_units(self) -> Mapping[str, Array]:
        """kind -> (draws, S, T) deviations of the sources in the units of the table.

        What is one array in two kinds stays one: those of a large table are most of what is in memory.
        """
        scaled: dict[int, Array] = {}
        for part in self.deviations.values():
            if id(part) not in scaled:
                scaled[id(part)] = part[:, 1:] * self.slope
        return {kind: scaled[id(part)] for kind, part in self.deviations.items()}

    def interval(self, effect: Array, weights: Array, *, against_base: bool) -> tuple[Array, Array]:
        """95 % interval of effects (S, C): values @ weights (T, C) less the base's or the mean source's.

        effect: the observed one. weights: points per raw unit included. From resampled items and
        seeds where these are known (percentiles), else by the normal distribution from standard
        errors.
        """
        if "measurement" in self.deviations:
            base, sources = np.split(self.deviations["measurement"], [1], axis=1)
            zero = (base if against_base else sources.mean(axis=1, keepdims=True)) @ weights
            edges = [  # source by source: all of a large table at once would be held several times
                np.percentile(sources[:, row] @ weights - zero[:, 0], [2.5, 97.5], axis=0)
                for row in range(sources.shape[1])
            ]
            low, high = np.stack(edges, axis=1)
            return effect + low, effect + high
        variance = self.stderr**2 @ weights**2
        rows = len(effect)
        others = variance[1:].sum(axis=0) / rows**2 + variance[1:] * (1 - 2 / rows)
        half = ROUNDED_Z * np.sqrt(variance[1:] + variance[:1] if against_base else others)
        return effect - half, effect + half


def measure(
    matrix: TransferMatrix,
    prepared: PreparedTable,
    filled: Array,
    rank: int,
    slope: Array,
    *,
    draws: int,
    seed: int,
) -> RemeasuredTable:
    """What the matrix knows of its own noise: items, else standard errors, else residuals.

    filled: (S, T) the completed table, of which a fit of the given rank leaves residuals.
    """
    rows, columns = prepared.row_order, prepared.column_order
    z, scaling = standardise(filled[None], prepared.metric)
    degrees = residual_degrees(prepared.observed[None], rank, prepared.metric)
    fitted = restore(low_rank_fit(z, rank, degrees), scaling)[0]
    parameters = float(prepared.observed.sum() - degrees[0])
    spread = residual_spread(prepared.table, prepared.observed, fitted, parameters) / slope
    residual = np.broadcast_to(spread, (1 + len(rows), len(columns)))
    items = item_scores(matrix, rows, columns)
    if all(scores is not None for scores in items):
        generator = np.random.default_rng([seed, 5])
        deviations = _deviations(items, prepared.observed, residual, draws, generator) if draws else {}
        return RemeasuredTable("items", deviations, residual, item_noise_variance(items), slope)
    stderr = cell_stderr(matrix, rows, columns)
    known = np.isfinite(stderr[1:]) | ~prepared.observed
    if known.all():
        variance = stderr_noise_variance(np.where(prepared.observed, stderr[1:], np.nan))
        base = np.where(np.isfinite(stderr[:1]), stderr[:1], residual[:1])
        sources = np.where(prepared.observed, stderr[1:], residual[1:])
        return RemeasuredTable("stderr", {}, np.concatenate([base, sources]), variance, slope)
    return RemeasuredTable("residuals", {}, residual, np.full(len(columns), np.nan), slope)


def _deviations(
    items: ItemScores, observed: Mask, residual: Array, draws: int, generator: np.random.Generator
) -> dict[str, Array]:
    """Deviations by items, by seeds, and both; filled cells move by what the fit leaves over."""
    by_items = item_deviations(items, draws, generator)
    filled = np.concatenate([np.zeros((1, observed.shape[1]), dtype=bool), ~observed])
    for moved in by_items:  # draw by draw: all at once would be held beside them
        np.copyto(moved, generator.normal(size=residual.shape) * residual, where=filled)
    most_seeds = max(
        (
            int(np.isfinite(scores[1:]).any(axis=2).sum(axis=1).max())
            for scores in items
            if scores is not None
        ),
        default=0,
    )
    if most_seeds < 2:
        return {"items": by_items, "measurement": by_items}
    by_seeds = seed_deviations(items, draws, generator)
    by_seeds[:, filled] = 0.0
    return {"items": by_items, "seeds": by_seeds, "measurement": by_items + by_seeds}


def seed_reliability(matrix: TransferMatrix, columns: tuple[int, ...]) -> Array:
    """(T,) reliability of values pooled over seeds: 1 - within / between mean squares, one-way layout.

    Shrout & Fleiss (1979), ICC(1, k). NaN below two sources with two seeds. A negative value means
    that seeds of one source differ more than the sources do.
    """
    result = np.full(len(columns), np.nan)
    by_target: dict[str, dict[str, list[float]]] = {}
    for cell in matrix.cells:
        if cell.seed is not None and np.isfinite(cell.value):
            by_target.setdefault(cell.target, {}).setdefault(cell.source, []).append(cell.value)
    for t, column in enumerate(columns):
        groups = [np.array(v) for v in by_target.get(matrix.targets[column], {}).values() if len(v) >= 2]
        if len(groups) >= 2:
            total = sum(len(group) for group in groups)
            grand = sum(group.sum() for group in groups) / total
            between = sum(len(group) * (group.mean() - grand) ** 2 for group in groups) / (len(groups) - 1)
            within = sum(((group - group.mean()) ** 2).sum() for group in groups) / (total - len(groups))
            result[t] = 1 - within / between if between > 0 else np.nan  # nan: the means do not differ
    return result


def noise_summary(
    found: Components,
    rows: int,
    *,
    origin: str,
    variance: Array,
    unit: Array,
    spread: Array,
    reliability: Array,
) -> Noise:
    """Noise in the units that were decomposed, and the noise-corrected share of each component.

    variance: (T,) noise variance in raw units. unit: (T,) scale units per raw unit. spread: (T,)
    observed standard deviation between sources in raw units. A component's eigenvalue holds
    sum_t v_t^2 noise_t of noise; both it and the total are reduced by theirs before dividing.
    """
    share = variance / np.where(spread > 0, spread, np.nan) ** 2
    scaled = variance * unit**2
    eigenvalues = found.singular**2 / (rows - 1)
    total = found.total / (rows - 1)
    unknown = ~np.isfinite(scaled)
    reason = ""
    if unknown.all():
        reason = "the table has neither items nor standard errors nor counts of items"
    elif unknown.any():
        reason = f"noise is unknown for {int(unknown.sum())} of {len(scaled)} targets"
    noise_total = float(scaled.sum())
    signal = np.full(len(eigenvalues), np.nan)
    if not reason and noise_total < total:
        signal = np.maximum(eigenvalues - (found.v**2).T @ scaled, 0.0) / (total - noise_total)
    elif not reason:
        reason = "measurement noise alone would give a table this variable"
    return Noise(
        origin=origin if not unknown.all() else "unknown",
        variance=variance,
        share=share,
        reliability=reliability,
        signal_ratio=signal,
        total_share=noise_total / total if not unknown.any() else float("nan"),
        reason=reason,
    )
