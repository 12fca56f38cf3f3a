"""decompose: from a transfer matrix to latent traits with their uncertainty and their null."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from threadpoolctl import threadpool_limits

from traitmap.analysis.assembly import Effort, Nulls, Working, assemble
from traitmap.analysis.completion import complete_tables, standardise
from traitmap.analysis.components import Components, RotatedComponents, components_of, rotate_components
from traitmap.analysis.dimension import cross_validate, gaussian_null, permutation_null
from traitmap.analysis.findings import all_findings
from traitmap.analysis.measurement import Measured, measure
from traitmap.analysis.records import Traits
from traitmap.analysis.rotation import Rotation
from traitmap.analysis.scaling import Prepared, Scale, prepare, scale_slope
from traitmap.analysis.stability import Assessment, Model, Subject, assess
from traitmap.analysis.traits_json import to_json
from traitmap.errors import MatrixError
from traitmap.matrix_record import Array, TransferMatrix

__all__ = ["decompose", "to_json"]

LARGE = 20_000  # cells from which fewer folds and draws are used, unless they are asked for


def decompose(
    matrix: TransferMatrix,
    *,
    scale: Scale = "standard",
    components: int | Literal["auto"] = "auto",
    rotate: Rotation = "none",
    mask_diagonal: bool | Literal["auto"] = "auto",
    diagonal: Sequence[tuple[str, str]] = (),
    names: Sequence[str] = (),
    majority_share: Array | None = None,
    claimed_share: float | None = None,
    n_bootstrap: int | None = None,
    n_permutations: int | None = None,
    cv_seeds: int | None = None,
    seed: int = 0,
) -> Traits:
    """Latent traits of a transfer matrix (S sources x T targets).

    scale: ``standard`` z-scores targets, ``center`` keeps their spread, ``gain`` subtracts the base
        first (the same components as ``center``), ``logit`` takes log-odds of proportions, ``double``
        subtracts source means too, so that only the pattern of a source over targets is left.
    components: ``auto`` uses as many as cross-validation supports (none is possible), or a number.
    rotate: rotation of the used components: ``none``, ``varimax``, ``oblimin``.
    mask_diagonal: leave out cells whose source and target have the same name (``auto``, True), with
        the further pairs in ``diagonal``; False keeps all but those pairs.
    names: names of the first components. majority_share: (S, T) share of an adapter's predictions that
        are its commonest one, to find collapsed sources from predictions rather than scores.
    claimed_share: share of variance that was published for the used components, to hold against its
        null where the table is only their reconstruction.
    n_bootstrap, n_permutations, cv_seeds: None chooses by the table's size (1,000, 200 and 10, less
        above 20,000 cells); 0 leaves the bootstrap or the nulls out. seed: of everything random.

    Raises MatrixError where the matrix or an option cannot be used. Methods and sources: docs/traits.md.
    """
    if rotate not in get_args(Rotation):
        raise MatrixError(f"rotate {rotate!r} is unknown; use one of {', '.join(get_args(Rotation))}")
    prepared = prepare(matrix, scale=scale, mask_diagonal=mask_diagonal, diagonal=diagonal)
    if claimed_share is not None and not 0 <= claimed_share <= 1:
        raise MatrixError(f"claimed_share={claimed_share!r} is not a share; give a number from 0 to 1")
    share = _aligned_share(majority_share, matrix, prepared)
    options = Options(
        scale=scale,
        components=components,
        rotate=rotate,
        names=tuple(names),
        effort=_effort(prepared.table.size, n_bootstrap, n_permutations, cv_seeds),
        seed=seed,
    )
    # Small matrices gain nothing from more threads, and one thread gives the same bits on every machine.
    with threadpool_limits(limits=1, user_api="blas"):
        traits = assemble(
            _work(matrix, prepared, options, {"mask_diagonal": mask_diagonal, "claimed_share": claimed_share})
        )
        return replace(traits, warnings=all_findings(matrix, prepared, traits, share))


@dataclass(frozen=True)
class Options:
    """What was asked of ``decompose``, checked."""

    scale: Scale
    components: int | Literal["auto"]
    rotate: Rotation
    names: tuple[str, ...]
    effort: Effort
    seed: int


def _work(matrix: TransferMatrix, prepared: Prepared, options: Options, asked: Mapping[str, Any]) -> Working:
    """Cross-validate, complete, decompose, rotate, then nulls, measurement noise and stability."""
    effort, metric, seed = options.effort, prepared.metric, options.seed
    validation = cross_validate(
        prepared.table,
        prepared.observed,
        metric,
        maximum=most_components(prepared.table.shape),
        seeds=effort.cv_seeds,
        folds=effort.folds,
        seed=seed,
    )
    rank = validation.chosen
    observed = prepared.observed[None]
    filled = complete_tables(prepared.table[None], observed, rank, metric, tolerance=1e-10, limit=5000)[0]
    found = components_of(filled, metric)
    used = _checked_count(options.components, rank, len(found.singular), prepared)
    examined = min(max(used, 4), len(found.singular))
    model = Model(rank, metric, options.rotate, used, examined)
    rotated = rotate_components(found, used, options.rotate)
    slope = scale_slope(prepared.values, prepared.observed, options.scale)
    measured = measure(matrix, prepared, filled, rank, slope, draws=effort.bootstrap, seed=seed)
    return Working(
        matrix=matrix,
        prepared=prepared,
        scale=options.scale,
        filled=filled,
        found=found,
        rotated=rotated,
        validation=validation,
        nulls=_nulls(prepared, filled, found, rank, effort.permutations, seed),
        model=model,
        measured=measured,
        assessment=_assess(prepared, filled, rotated, model, measured, effort, seed),
        effort=effort,
        asked={"components": options.components, **asked, "seed": seed},
        names=options.names,
    )


def most_components(shape: tuple[int, ...]) -> int:
    """Largest number of components that cross-validation tries: 8, or 2 sqrt(min(S, T)) for large tables."""
    return max(1, min(shape[0] - 2, shape[1] - 1, max(8, round(2 * min(shape) ** 0.5))))


def _effort(cells: int, bootstrap: int | None, permutations: int | None, cv_seeds: int | None) -> Effort:
    """Draws and folds by the table's size, where they were not asked for."""
    large = cells > LARGE
    chosen = {
        "n_bootstrap": (200 if large else 1000) if bootstrap is None else bootstrap,
        "n_permutations": (40 if large else 200) if permutations is None else permutations,
        "cv_seeds": (2 if large else 10) if cv_seeds is None else cv_seeds,
    }
    for name, value in chosen.items():
        least = 1 if name == "cv_seeds" else 0
        if value < least:
            raise MatrixError(f"{name}={value} is not possible; use {least} or more")
    noise_tables = min(20 if large else 100, chosen["n_bootstrap"], chosen["n_permutations"])
    return Effort(
        folds=5 if large else 10,
        cv_seeds=chosen["cv_seeds"],
        permutations=chosen["n_permutations"],
        bootstrap=chosen["n_bootstrap"],
        noise_tables=noise_tables,
    )


def _checked_count(asked: int | str, supported: int, existing: int, prepared: Prepared) -> int:
    """How many components are used."""
    if asked == "auto":
        return supported
    if not isinstance(asked, int) or not 0 <= asked <= existing:
        rows, columns = prepared.table.shape
        raise MatrixError(
            f"components={asked!r} is not possible: a {rows} x {columns} table has {existing} components; "
            f"use 'auto' or a number from 0 to {existing}"
        )
    return asked


def _aligned_share(share: Array | None, matrix: TransferMatrix, prepared: Prepared) -> Array | None:
    """The (S, T) shares of commonest predictions restricted to what is decomposed."""
    if share is None:
        return None
    array = np.asarray(share, dtype=float)
    if array.shape != matrix.values.shape:
        raise MatrixError(
            f"majority_share has shape {array.shape}, but the matrix has {matrix.values.shape} (sources, "
            "targets); give one share for each cell, NaN where unknown"
        )
    return array[np.ix_(prepared.row_order, prepared.column_order)]


def _nulls(prepared: Prepared, filled: Array, found: Components, rank: int, draws: int, seed: int) -> Nulls:
    """Permutation null and Horn's Gaussian null, through the same masking, completion and scaling."""
    count = len(found.singular)
    z = standardise(filled[None], prepared.metric).z[0]
    spread = np.ones(z.shape[1]) if prepared.metric.divide else z.std(axis=0)
    options = {"draws": draws, "count": count, "seed": seed}
    return Nulls(
        permutation=permutation_null(z, prepared.observed, rank, prepared.metric, **options),
        gaussian=gaussian_null(prepared.observed, spread, rank, prepared.metric, **options),
    )


def _assess(
    prepared: Prepared,
    filled: Array,
    rotated: RotatedComponents,
    model: Model,
    measured: Measured,
    effort: Effort,
    seed: int,
) -> Assessment | None:
    """Stability under resampling, or None when no bootstrap was asked for."""
    if not effort.bootstrap:
        return None
    subject = Subject(prepared.table, filled, prepared.observed, rotated.v[:, : model.examined])
    return assess(
        subject,
        model,
        prepared.sources,
        prepared.targets,
        draws=effort.bootstrap,
        noise_tables=effort.noise_tables,
        deviations=measured.in_table_units(),
        seed=seed,
    )
