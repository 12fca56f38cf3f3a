"""How many components do the data support? Cross-validation, Horn's parallel analysis, permutation null."""

from __future__ import annotations

import numpy as np

from traitmap.analysis.traits.components import Centring, Mask, complete_tables, standardise
from traitmap.analysis.traits.copies import Clusters
from traitmap.analysis.traits.records import CrossValidation
from traitmap.matrix.record import Array

PRECISE = 0.01  # share of the error without components below which completion runs to the end
CHUNK = 4_000_000  # numbers in a batch of tables: 32 MB


def spectrum_band(ratios: Array) -> tuple[Array, Array, Array]:
    """Mean, 5th and 95th percentile, each (C,), of explained variance ratios (draws, C) of a null.

    NaN where there are no draws. For running sums, pass ``np.cumsum(ratios, axis=1)``.
    """
    if not len(ratios):
        unknown = np.full(ratios.shape[1], np.nan)
        return unknown, unknown, unknown
    low, high = np.percentile(ratios, [5, 95], axis=0)
    return ratios.mean(axis=0), low, high


def spectrum_ratios(tables: Array, metric: Centring, count: int) -> Array:
    """(B, count) explained variance ratios of complete tables (B, S, T).

    Falling, of the standardised tables; by the eigenvalues of the smaller Gram matrix.
    """
    z = standardise(tables, metric)[0]
    gram = np.swapaxes(z, 1, 2) @ z if z.shape[2] <= z.shape[1] else z @ np.swapaxes(z, 1, 2)
    eigenvalues = np.maximum(np.linalg.eigvalsh(gram)[:, ::-1], 0.0)
    return eigenvalues[:, :count] / np.maximum(eigenvalues.sum(axis=1, keepdims=True), 1e-300)


def permute_columns(
    table: Array,
    observed: Mask,
    draws: int,
    generator: np.random.Generator,
    blocks: Clusters | None = None,
) -> Array:
    """(draws, S, T): the observed cells of each column shuffled among their places; unobserved stay 0.

    table, observed: (S, T). Each column is shuffled by itself, so that its values stay and what columns
    have in common goes; those of one block (T,), which are no two targets, keep it and are shuffled alike.
    """
    keys = generator.random((draws, *table.shape))
    if blocks is not None:
        keys = keys[:, :, _first_of(blocks)]
    keys[:, ~observed] = np.inf
    origin = np.argsort(keys, axis=1)
    place = np.argsort(~observed, axis=0, kind="stable")
    values = np.where(observed, table, 0.0)
    shuffled = np.take_along_axis(np.broadcast_to(values, keys.shape), origin, axis=1)
    result = np.empty_like(shuffled)
    np.put_along_axis(result, np.broadcast_to(place, keys.shape), shuffled, axis=1)
    return result


def above_null(ratios: Array, null_p95: Array) -> int:
    """How many leading components exceed the 95th percentile of their null, up to the first that does not.

    ratios, null_p95: (C,). 0 where the null is not known.
    """
    if not np.isfinite(null_p95).all():
        return 0
    below = np.flatnonzero(ratios <= null_p95 + 1e-12)
    return int(below[0]) if below.size else len(ratios)


def _first_of(blocks: Clusters) -> Clusters:
    """(T,) of each column the first one of its block."""
    return np.asarray(np.unique(blocks, return_index=True)[1][np.unique(blocks, return_inverse=True)[1]])


def fold_masks(
    observed: Mask, folds: int, generator: np.random.Generator, blocks: Clusters | None = None
) -> Mask:
    """(folds, S, T) True at the cells each fold holds out: observed cells assigned column by column.

    Assignment down the columns keeps every column's share of held-out cells nearly equal. Of the columns of
    one block (T,) the same rows are held out: a column is not to be predicted by its copy.
    """
    columns = observed.shape[1]
    keys = generator.random(observed.shape)
    if blocks is not None:
        keys = keys[:, _first_of(blocks)]
    keys[~observed] = np.inf
    rank = np.argsort(np.argsort(keys, axis=0), axis=0)
    start = generator.integers(0, folds, size=(1, columns))
    fold = (rank + (start if blocks is None else start[:, _first_of(blocks)])) % folds
    return (fold[None] == np.arange(folds)[:, None, None]) & observed[None]


def cross_validate(
    table: Array,
    observed: Mask,
    metric: Centring,
    *,
    maximum: int,
    seeds: int = 10,
    folds: int = 10,
    seed: int = 0,
    patience: int = 2,
    blocks: Clusters | None = None,
) -> CrossValidation:
    """Element-wise cross-validation of regularised iterative PCA with 0..maximum components.

    Every observed cell is held out once per seed; its squared error is taken in units of its column's
    standard deviation (with ``standard``). The fewest components whose error is within one
    standard error of the least are chosen; zero is allowed. blocks: (T,) of columns
    whose cells are held out together. Stops early after ``patience`` successive
    numbers of components that are worse than the best so far.
    """
    rows, columns = table.shape
    generator = np.random.default_rng([seed, 0])
    held = np.concatenate([fold_masks(observed, folds, generator, blocks) for _ in range(seeds)])
    enough: Mask = (observed[None] & ~held).sum(axis=1, keepdims=True) >= 2
    held = held & enough
    train = observed[None] & ~held
    counted = np.asarray(held.reshape(seeds, folds, rows, columns).any(axis=1))
    spread = np.ones(columns)
    if metric == "standard":
        spread = np.nanstd(np.where(observed, table, np.nan), axis=0, ddof=1)
        spread = np.where(spread > 0, spread, 1.0)
    tables = np.broadcast_to(np.where(observed, table, 0.0), train.shape)
    filled: Array | None = None
    cells: list[Array] = []
    for rank in range(maximum + 1):
        filled = complete_tables(tables, train, rank, metric, start=filled, tolerance=1e-3)
        squared = np.where(held, ((filled - tables) / spread) ** 2, 0.0)
        if cells and squared.sum() < PRECISE * cells[0].sum():
            filled = complete_tables(tables, train, rank, metric, start=filled, tolerance=1e-7, limit=3000)
            squared = np.where(held, ((filled - tables) / spread) ** 2, 0.0)
        cells.append(squared.reshape(seeds, folds, rows, columns).sum(axis=1))
        errors = [float(part.sum()) for part in cells]
        if rank - int(np.argmin(errors)) >= patience:
            break
    return choose(np.stack(cells), counted)


def choose(cells: Array, counted: Mask) -> CrossValidation:
    """The one-standard-error rule on squared errors (K + 1, seeds, S, T) of the cells that were counted.

    counted: (seeds, S, T) True at the cells that were held out. ``by_seed`` of the result makes the same
    choice from each seed alone.
    """
    weights = counted.astype(float)
    errors = _mean(cells, weights)
    fewest, best, stderr = one_standard_error(cells, weights)
    by_seed = tuple(one_standard_error(cells[:, [s]], weights[[s]])[0] for s in range(cells.shape[1]))
    return CrossValidation(errors, stderr, best, fewest, by_seed)


def _mean(cells: Array, weights: Array) -> Array:
    """(K + 1,) mean over counted cells of cells (K + 1, seeds, S, T)."""
    return (cells * weights).sum(axis=(1, 2, 3)) / max(weights.sum(), 1.0)


def one_standard_error(cells: Array, weights: Array) -> tuple[int, int, Array]:
    """(chosen, best, stderr (K + 1,)): the fewest components within one paired standard error of the best.

    The standard error of the difference to the best adds two parts: sources differ (over rows), and
    the assignment of cells to folds is drawn (over seeds).
    """
    errors = _mean(cells, weights)
    floor = 1e-8 * max(float(errors[0]), 1e-300)
    best = int(np.flatnonzero(errors <= errors.min() + floor)[0])
    difference = (cells - cells[best]) * weights
    stderr = np.hypot(_stderr(difference, weights, axis=1), _stderr(difference, weights, axis=0))
    fewest = int(np.flatnonzero(errors - errors[best] <= stderr + floor)[0])
    return fewest, best, stderr


def _stderr(difference: Array, weights: Array, *, axis: int) -> Array:
    """(K + 1,) standard error of the mean difference over one axis of (seeds, S, T); 0 for a single level."""
    others = tuple(a for a in range(3) if a != axis)
    counts = weights.sum(axis=others)
    counted = counts > 0
    if counted.sum() < 2:
        return np.zeros(len(difference))
    means = difference.sum(axis=tuple(a + 1 for a in others))[:, counted] / counts[counted]
    return means.std(axis=1, ddof=1) / np.sqrt(counted.sum())


def gaussian_null(
    observed: Mask,
    spread: Array,
    rank: int,
    metric: Centring,
    *,
    draws: int,
    count: int,
    seed: int,
    correlation: Array | None = None,
) -> Array:
    """(draws, count) explained variance ratios of independent Gaussian tables with the columns' spread (T,).

    Horn's parallel analysis (Psychometrika 1965). The tables pass through the same masking, completion (of
    the same rank) and scaling as the data. correlation: (T, T) of columns that are no two targets; by
    default none are correlated.
    """
    generator = np.random.default_rng([seed, 2])
    tables = generator.normal(size=(draws, *observed.shape))
    if correlation is not None:
        values, vectors = np.linalg.eigh(correlation)
        tables = tables @ (vectors * np.sqrt(np.maximum(values, 0.0)) @ vectors.T)
    return _spectra(tables * spread, observed, rank, metric, count)


def permutation_null(
    z: Array,
    observed: Mask,
    rank: int,
    metric: Centring,
    *,
    draws: int,
    count: int,
    seed: int,
    blocks: Clusters | None = None,
) -> Array:
    """(draws, count) explained variance ratios of the table z (S, T), its columns permuted independently.

    The data's own values without structure, through the same completion and scaling.
    """
    generator = np.random.default_rng([seed, 1])
    tables = permute_columns(z, observed, draws, generator, blocks)
    return _spectra(tables, observed, rank, metric, count)


def _spectra(tables: Array, observed: Mask, rank: int, metric: Centring, count: int) -> Array:
    """(draws, count) explained variance ratios of tables (draws, S, T), completed like the data."""
    ratios = []
    for part in np.array_split(tables, max(1, tables.size // CHUNK)):
        mask = np.broadcast_to(observed, part.shape)
        filled = complete_tables(part, mask, rank, metric, tolerance=1e-3)
        ratios.append(spectrum_ratios(filled, metric, count))
    return np.concatenate(ratios)
