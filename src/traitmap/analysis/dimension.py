"""How many components do the data support? Cross-validation, Horn's parallel analysis, permutation null."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from traitmap.analysis.completion import Mask, Metric, complete_tables, standardise
from traitmap.analysis.records import CrossValidation
from traitmap.matrix import Array


@dataclass(frozen=True)
class Null:
    """Explained variance ratios of tables without structure: ratios (draws, C)."""

    ratios: Array

    def band(self, *, cumulative: bool = False) -> tuple[Array, Array, Array]:
        """(mean, 5th, 95th percentile), each (C,)."""
        ratios = np.cumsum(self.ratios, axis=1) if cumulative else self.ratios
        if not len(ratios):
            unknown = np.full(ratios.shape[1], np.nan)
            return unknown, unknown, unknown
        low, high = np.percentile(ratios, [5, 95], axis=0)
        return ratios.mean(axis=0), low, high


def spectrum_ratios(tables: Array, metric: Metric, count: int) -> Array:
    """(B, count) explained variance ratios of complete tables (B, S, T)."""
    z = standardise(tables, metric).z
    gram = np.swapaxes(z, 1, 2) @ z if z.shape[2] <= z.shape[1] else z @ np.swapaxes(z, 1, 2)
    eigenvalues = np.maximum(np.linalg.eigvalsh(gram)[:, ::-1], 0.0)
    return eigenvalues[:, :count] / np.maximum(eigenvalues.sum(axis=1, keepdims=True), 1e-300)


def permute_columns(table: Array, observed: Mask, draws: int, generator: np.random.Generator) -> Array:
    """(draws, S, T): the observed cells of each column shuffled among their places; unobserved stay 0."""
    keys = generator.random((draws, *table.shape))
    keys[:, ~observed] = np.inf
    origin = np.argsort(keys, axis=1)
    place = np.argsort(~observed, axis=0, kind="stable")
    values = np.where(observed, table, 0.0)
    shuffled = np.take_along_axis(np.broadcast_to(values, keys.shape), origin, axis=1)
    result = np.empty_like(shuffled)
    np.put_along_axis(result, np.broadcast_to(place, keys.shape), shuffled, axis=1)
    return result


def above_null(ratios: Array, null_p95: Array) -> int:
    """How many leading components lie above the 95th percentile of their null, up to the first that does not."""
    if not np.isfinite(null_p95).all():
        return 0
    below = np.flatnonzero(ratios <= null_p95 + 1e-12)
    return int(below[0]) if below.size else len(ratios)


def fold_masks(observed: Mask, folds: int, generator: np.random.Generator) -> Mask:
    """(folds, S, T) True at the cells each fold holds out: observed cells dealt out column by column.

    Dealing down the columns keeps every column's share of held-out cells nearly equal.
    """
    columns = observed.shape[1]
    keys = generator.random(observed.shape)
    keys[~observed] = np.inf
    rank = np.argsort(np.argsort(keys, axis=0), axis=0)
    fold = (rank + generator.integers(0, folds, size=(1, columns))) % folds
    return (fold[None] == np.arange(folds)[:, None, None]) & observed[None]


def cross_validate(
    table: Array,
    observed: Mask,
    metric: Metric,
    *,
    maximum: int,
    seeds: int = 5,
    folds: int = 10,
    seed: int = 0,
) -> CrossValidation:
    """Element-wise cross-validation of regularised iterative PCA with 0..maximum components.

    Every observed cell is held out once per seed; its squared error is taken in units of its column's
    standard deviation (with ``metric.divide``). The fewest components whose error is within one
    standard error (paired, over rows) of the least are chosen; zero is allowed.
    """
    rows, columns = table.shape
    generator = np.random.default_rng(seed)
    held = np.concatenate([fold_masks(observed, folds, generator) for _ in range(seeds)])
    held = held & ((observed[None] & ~held).sum(axis=1, keepdims=True) >= 2)
    train = observed[None] & ~held
    unit = np.where(observed, table, np.nan)
    spread = np.nanstd(unit, axis=0, ddof=1) if metric.divide else np.ones(columns)
    spread = np.where(spread > 0, spread, 1.0)
    tables = np.broadcast_to(np.where(observed, table, 0.0), train.shape)
    filled: Array | None = None
    cells = np.full((maximum + 1, seeds, rows, columns), np.nan)
    for rank in range(maximum + 1):
        filled = complete_tables(tables, train, rank, metric, start=filled, tolerance=1e-4)
        squared = np.where(held, ((filled - tables) / spread) ** 2, 0.0)
        cells[rank] = squared.reshape(seeds, folds, rows, columns).sum(axis=1)
    counted = held.reshape(seeds, folds, rows, columns).any(axis=1)
    return choose(cells, counted)


def choose(cells: Array, counted: Mask) -> CrossValidation:
    """The one-standard-error rule on squared errors (K + 1, seeds, S, T) of the cells that were counted."""
    weights = counted.astype(float)
    errors = (cells * weights).sum(axis=(1, 2, 3)) / weights.sum()
    chosen, best, stderr = one_standard_error(cells, weights)
    by_seed = tuple(one_standard_error(cells[:, [s]], weights[[s]])[0] for s in range(cells.shape[1]))
    return CrossValidation(errors, stderr, best, chosen, by_seed)


def one_standard_error(cells: Array, weights: Array) -> tuple[int, int, Array]:
    """(chosen, best, stderr (K + 1,)): the fewest components within one paired standard error of the best."""
    errors = (cells * weights).sum(axis=(1, 2, 3)) / weights.sum()
    floor = 1e-10 * max(errors[0], 1e-300)
    best = int(np.flatnonzero(errors <= errors.min() + floor)[0])
    per_row = (cells * weights).sum(axis=(1, 3)) / np.maximum(weights.sum(axis=(0, 2)), 1e-300)
    used = weights.sum(axis=(0, 2)) > 0
    difference = (per_row - per_row[best])[:, used]
    stderr = difference.std(axis=1, ddof=1) / np.sqrt(max(used.sum(), 1))
    chosen = int(np.flatnonzero(errors - errors[best] <= stderr + floor)[0])
    return chosen, best, stderr
