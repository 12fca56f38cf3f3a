"""Which pairs are compared, what source and target effects take away, and how tasks are permuted."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from traitmap.analysis.scaling import in_domain_mask, points_per_unit
from traitmap.errors import MatrixError
from traitmap.matrix_record import Array, TransferMatrix

Mask = NDArray[np.bool_]
Units = Literal["points", "standard"]

LEAST_FREEDOM = 5  # pairs left after source and target effects below which nothing is tested
_NORMAL = 1.959963984540054  # half width of a 95 % interval in standard errors


@dataclass(frozen=True)
class Design:
    """The pairs that are compared, in canonical order (sources and targets sorted by name).

    gains: (S, T) in points (or standard deviations of the target), NaN where unknown.
    noise: (S, T) standard error of each gain, NaN where unknown. used: pairs with a known gain whose
    source is not the target's own training set. own: the pairs left out for that reason.
    shared: (K, 2) source and target index of tasks that are both.
    row_order, column_order: indices into the matrix. left_out: targets that no source moves.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    gains: Array
    noise: Array
    used: Mask
    own: Mask
    shared: NDArray[np.intp]
    row_order: tuple[int, ...]
    column_order: tuple[int, ...]
    units: Units
    left_out: tuple[str, ...]

    @property
    def cells(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """(n,) source and (n,) target index of every used pair."""
        rows, columns = np.nonzero(self.used)
        return rows, columns

    @property
    def y(self) -> Array:
        """(n,) gains of the used pairs."""
        return np.asarray(self.gains[self.used])


def make_design(
    matrix: TransferMatrix,
    *,
    own: Collection[tuple[str, str]] = (),
    units: Units = "points",
    noise: Array | None = None,
) -> Design:
    """Pairs of a matrix that can be compared.

    own: further (source, target) pairs, beside those of one name, whose source is the target's training
    set or a variation of it. noise: (S, T) standard errors of the gains; by default those of the
    matrix's cells. Targets that no source moves are left out. Raises MatrixError where too little is left.
    """
    if units not in ("points", "standard"):
        raise MatrixError(f"units {units!r} is unknown; use 'points' or 'standard'")
    mask = in_domain_mask(matrix.sources, matrix.targets, "auto", tuple(own))
    gains, errors = _gains(matrix, noise)
    usable = np.isfinite(gains) & ~mask
    moved = np.array([_varies(gains[usable[:, t], t]) for t in range(gains.shape[1])], dtype=bool)
    columns = sorted(np.flatnonzero(moved), key=lambda t: matrix.targets[t])
    rows = sorted(np.flatnonzero(usable[:, columns].sum(axis=1) >= 2), key=lambda s: matrix.sources[s])
    grid = np.ix_(rows, columns)
    gains, errors, used = gains[grid], errors[grid], usable[grid]
    if units == "standard":
        spread = np.nanstd(np.where(used, gains, np.nan), axis=0, ddof=1) if used.size else np.ones(0)
        gains, errors = gains / spread, errors / spread
    sources = tuple(matrix.sources[i] for i in rows)
    targets = tuple(matrix.targets[j] for j in columns)
    _require_pairs(matrix, used)
    return Design(
        sources=sources,
        targets=targets,
        gains=gains,
        noise=errors,
        used=used,
        own=mask[grid],
        shared=_shared(sources, targets),
        row_order=tuple(int(i) for i in rows),
        column_order=tuple(int(j) for j in columns),
        units=units,
        left_out=tuple(name for name, kept in zip(matrix.targets, moved, strict=True) if not kept),
    )


def _gains(matrix: TransferMatrix, noise: Array | None) -> tuple[Array, Array]:
    """(S, T) gains in points and their standard errors.

    Where the base is unknown the values stand for the gains: the target's effect takes away the difference.
    """
    base = np.where(np.isfinite(matrix.baseline), matrix.baseline, 0.0)
    factor = np.ones(matrix.values.shape[1])
    known = np.isfinite(matrix.values).any(axis=0)
    factor[known] = points_per_unit(matrix.values[:, known])
    errors = _cell_errors(matrix) if noise is None else np.asarray(noise, dtype=float)
    if errors.shape != matrix.values.shape:
        raise MatrixError(
            f"noise has shape {errors.shape}, but the matrix has {matrix.values.shape} (sources, targets); "
            "give one standard error for each gain, NaN where unknown"
        )
    return (matrix.values - base) * factor, errors * factor


def _cell_errors(matrix: TransferMatrix) -> Array:
    """(S, T) standard errors of the gains, read off their 95 % intervals; NaN where there is none."""
    rows = {name: i for i, name in enumerate(matrix.sources)}
    columns = {name: j for j, name in enumerate(matrix.targets)}
    errors = np.full(matrix.values.shape, np.nan)
    for cell in matrix.cells:
        if cell.seed is None and cell.source in rows and cell.target in columns:
            width = cell.gain_high - cell.gain_low
            errors[rows[cell.source], columns[cell.target]] = width / (2 * _NORMAL)
    return errors


def _varies(values: Array) -> bool:
    return len(values) >= 2 and float(np.ptp(values)) > 1e-12 * max(1.0, float(np.abs(values).max()))


def _require_pairs(matrix: TransferMatrix, used: Mask) -> None:
    rows, columns = used.shape
    freedom = int(used.sum()) - (rows + columns - 1)
    if rows < 3 or columns < 3 or freedom < LEAST_FREEDOM:
        raise MatrixError(
            f"an explanation needs at least 3 sources, 3 targets and {LEAST_FREEDOM} pairs more than "
            f"effects; of {len(matrix.sources)} x {len(matrix.targets)} only {rows} x {columns} with "
            f"{int(used.sum())} pairs are left after own tasks, missing cells and targets that no source "
            "moves; evaluate more sources on more targets"
        )


def _shared(sources: tuple[str, ...], targets: tuple[str, ...]) -> NDArray[np.intp]:
    """(K, 2) places of the tasks that are sources and targets, by name."""
    at = {name: j for j, name in enumerate(targets)}
    return np.array([(i, at[s]) for i, s in enumerate(sources) if s in at], dtype=np.intp).reshape(-1, 2)


def effect_basis(used: Mask) -> Array:
    """(n, r) orthonormal basis of source and target effects over the used pairs (S, T)."""
    rows, columns = np.nonzero(used)
    n_rows = len(used)
    counts = used.astype(float)
    gram = np.block(
        [[np.diag(counts.sum(axis=1)), counts], [counts.T, np.diag(counts.sum(axis=0))]]
    )  # of the dummies, so that no matrix larger than S + T is decomposed
    values, vectors = np.linalg.eigh(gram)
    kept = values > 1e-9 * max(float(values.max(initial=0.0)), 1.0)
    weights = vectors[:, kept] / np.sqrt(values[kept])
    return np.asarray(weights[rows] + weights[n_rows + columns])


def with_features(basis: Array, columns: Array) -> Array:
    """(n, r + k) orthonormal basis of what the basis and further columns (n, k) span."""
    if not columns.shape[1]:
        return basis
    rest = residual(columns, basis)
    size = np.linalg.norm(columns, axis=0) + 1e-300
    u, singular, _ = np.linalg.svd(rest / size, full_matrices=False)
    further = residual(u[:, singular > 1e-7], basis)
    return np.column_stack([basis, np.linalg.qr(further)[0]]) if further.shape[1] else basis


def residual(values: Array, basis: Array) -> Array:
    """(n,) or (n, k) what of the values lies outside the space of the basis."""
    return np.asarray(values - basis @ (basis.T @ values))


def two_way_residual(values: Array, known: Mask) -> Array:
    """(S, T) values less source and target effects, fitted over the known pairs; 0 where unknown.

    A pair without a known value then carries no information, wherever a permutation puts it.
    """
    filled = np.zeros(values.shape)
    if known.any():
        # Centred first: a large common level would cost digits.
        filled[known] = residual(values[known] - values[known].mean(), effect_basis(known))
    return filled


@dataclass(frozen=True)
class Permutations:
    """Relabelled tasks. index: (B, n) for every draw the flat (S, T) place whose value each used pair gets.

    scheme: ``joint`` where a task that is source and target moves as both at once, so that its own pair
    stays its own; ``independent`` where sources and targets move apart, having too few tasks in common.
    """

    index: NDArray[np.int32]
    scheme: Literal["joint", "independent"]


def node_permutations(design: Design, draws: int, seed: int) -> Permutations:
    """Permutations of whole tasks: the unit that was sampled is the task, not the pair.

    Tasks in common move jointly where they are at least three and at least half of the shorter side;
    tasks on one side alone move among themselves.
    """
    generator = np.random.default_rng(seed)
    rows, columns = design.cells
    n_rows, n_columns = design.used.shape
    joint = len(design.shared) >= max(3, min(n_rows, n_columns) / 2)
    shared = design.shared if joint else np.empty((0, 2), dtype=np.intp)
    alone_rows = np.setdiff1d(np.arange(n_rows), shared[:, 0])
    alone_columns = np.setdiff1d(np.arange(n_columns), shared[:, 1])
    index = np.empty((draws, len(rows)), dtype=np.int32)
    for draw in range(draws):
        to_row, to_column = np.arange(n_rows), np.arange(n_columns)
        order = generator.permutation(len(shared))
        to_row[shared[:, 0]], to_column[shared[:, 1]] = shared[order, 0], shared[order, 1]
        to_row[alone_rows] = generator.permutation(alone_rows)
        to_column[alone_columns] = generator.permutation(alone_columns)
        index[draw] = to_row[rows] * n_columns + to_column[columns]
    return Permutations(index, "joint" if joint else "independent")
