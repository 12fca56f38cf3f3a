"""Missing cells by regularised iterative PCA, for one table or a whole batch of tables at once.

Josse & Husson (2012, 2016, missMDA): fill missing cells with the low-rank fit, refit, repeat; shrink
each component by the noise that its eigenvalue holds, so that the fit does not feed on itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from traitmap.matrix_record import Array

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Metric:
    """How a table is centred and scaled before it is decomposed.

    divide: divide each column by its standard deviation. double: subtract row means as well.
    """

    divide: bool = True
    double: bool = False


@dataclass(frozen=True)
class Standardised:
    """Tables centred and scaled: z (B, S, T), center and divisor (B, T), row (B, S) row means."""

    z: Array
    center: Array
    divisor: Array
    row: Array


def standardise(tables: Array, metric: Metric) -> Standardised:
    """Centre (and scale) complete tables (B, S, T) column by column; constant columns become zero."""
    center = tables.mean(axis=1)
    z = tables - center[:, None, :]
    row = np.zeros(tables.shape[:2])
    if metric.double:
        row = z.mean(axis=2)
        z = z - row[:, :, None]
    divisor = np.ones_like(center)
    if metric.divide:
        spread = np.sqrt((z**2).sum(axis=1) / max(tables.shape[1] - 1, 1))
        floor = 1e-12 * (np.abs(center) + np.abs(tables).max(axis=1)) + 1e-300
        divisor = np.where(spread > floor, spread, 1.0)
        z = np.where((spread > floor)[:, None, :], z / divisor[:, None, :], 0.0)
    return Standardised(z, center, divisor, row)


def restore(z: Array, like: Standardised) -> Array:
    """Undo ``standardise``: (B, S, T) back to the units of the tables."""
    return z * like.divisor[:, None, :] + like.row[:, :, None] + like.center[:, None, :]


def low_rank_fit(z: Array, rank: int, residual_degrees: Array, *, regularised: bool = True) -> Array:
    """Best rank-``rank`` fit of each z (B, S, T), its components shrunk by the noise in them.

    residual_degrees: (B,) observed cells less parameters. The noise variance is the residual sum of
    squares over them; each eigenvalue of z'z holds S T / min(T, S - 1) times that (Josse & Husson 2012),
    at most the first eigenvalue left out.
    """
    rows, columns = z.shape[1:]
    if rank == 0:
        return np.zeros_like(z)
    tall = columns <= rows
    gram = np.swapaxes(z, 1, 2) @ z if tall else z @ np.swapaxes(z, 1, 2)
    eigenvalues, vectors = np.linalg.eigh(gram)
    eigenvalues = np.maximum(eigenvalues[:, ::-1], 0.0)
    vectors = vectors[:, :, ::-1][:, :, :rank]
    kept = eigenvalues[:, :rank]
    factor = np.ones_like(kept)
    if regularised and eigenvalues.shape[1] > rank:
        residual = eigenvalues[:, rank:].sum(axis=1)
        noise = residual / residual_degrees * rows * columns / min(columns, rows - 1)
        noise = np.minimum(noise, eigenvalues[:, rank])
        factor = np.maximum(kept - noise[:, None], 0.0) / np.maximum(kept, 1e-300)
    if tall:
        return ((z @ vectors) * factor[:, None, :]) @ np.swapaxes(vectors, 1, 2)
    return vectors @ (factor[:, :, None] * (np.swapaxes(vectors, 1, 2) @ z))


def residual_degrees(observed: Mask, rank: int, metric: Metric) -> Array:
    """(B,) observed cells less the parameters of a rank-``rank`` fit with its means; at least 1."""
    rows, columns = observed.shape[1:]
    means = columns + (rows - 1 if metric.double else 0)
    free = rank * (rows - 1 + columns - rank)
    return np.maximum(observed.sum(axis=(1, 2)) - means - free, 1).astype(float)


def fill_with_means(tables: Array, observed: Mask) -> Array:
    """Missing cells of (B, S, T) set to the mean of their column's observed cells."""
    values = np.where(observed, tables, 0.0)
    counts = np.maximum(observed.sum(axis=1), 1)
    means = values.sum(axis=1) / counts
    return np.where(observed, values, means[:, None, :])


def complete_tables(
    tables: Array,
    observed: Mask,
    rank: int,
    metric: Metric,
    *,
    start: Array | None = None,
    tolerance: float = 1e-6,
    limit: int = 300,
    regularised: bool = True,
) -> Array:
    """Fill the missing cells of tables (B, S, T) by iterative PCA of the given rank.

    start: completed tables to begin from (default: column means). Stops when the root mean square
    change of the filled cells falls below ``tolerance`` times the table's standard deviation.
    """
    filled = fill_with_means(tables, observed) if start is None else np.where(observed, tables, start)
    if observed.all() or (rank == 0 and not metric.double):
        return filled
    degrees = residual_degrees(observed, rank, metric)
    missing_count = np.maximum((~observed).sum(axis=(1, 2)), 1)
    active = np.flatnonzero((~observed).any(axis=(1, 2)))
    for _ in range(limit):
        current = filled[active]
        scaled = standardise(current, metric)
        fit = restore(low_rank_fit(scaled.z, rank, degrees[active], regularised=regularised), scaled)
        updated = np.where(observed[active], current, fit)
        step = (((updated - current) / scaled.divisor[:, None, :]) ** 2).sum(axis=(1, 2))
        spread = (scaled.z**2).mean(axis=(1, 2)) + 1e-300
        filled[active] = updated
        active = active[step / missing_count[active] > tolerance**2 * spread]
        if active.size == 0:
            break
    return filled


def complete(
    values: Array,
    rank: int,
    metric: Metric | None = None,
    *,
    regularised: bool = True,
    tolerance: float = 1e-10,
    limit: int = 5000,
) -> Array:
    """Fill the NaN of one table (S, T) by regularised iterative PCA; observed cells stay as they are."""
    observed = np.isfinite(values)[None]
    filled = complete_tables(
        np.asarray(values, dtype=float)[None],
        observed,
        rank,
        metric or Metric(),
        tolerance=tolerance,
        limit=limit,
        regularised=regularised,
    )
    return filled[0]
