"""From the working parts of a decomposition, in canonical order, to the record in the matrix's own order.

decompose: from a transfer matrix to latent traits with their uncertainty and their null.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal, get_args

import numpy as np
from threadpoolctl import threadpool_limits

from traitmap.analysis.traits.components import (
    Biplot,
    Components,
    RotatedComponents,
    Rotation,
    complete_tables,
    components_of,
    correlations,
    effect_weights,
    effects_in_points,
    rotate_components,
    standardise,
)
from traitmap.analysis.traits.dimension import (
    Null,
    above_null,
    cross_validate,
    gaussian_null,
    permutation_null,
)
from traitmap.analysis.traits.findings import all_findings
from traitmap.analysis.traits.measurement import RemeasuredTable, measure, noise_summary, seed_reliability
from traitmap.analysis.traits.naming import name_components
from traitmap.analysis.traits.records import CrossValidation, Noise, Stability, Traits
from traitmap.analysis.traits.scaling import PreparedTable, Scale, prepare, scale_slope, untransform
from traitmap.analysis.traits.stability import Assessment, ComponentModel, ResampledTable, assess
from traitmap.errors import MatrixError
from traitmap.matrix.record import Array, TransferMatrix


@dataclass(frozen=True)
class Effort:
    """How much is computed: folds and seeds of cross-validation, draws of nulls and bootstraps."""

    folds: int
    cv_seeds: int
    permutations: int
    bootstrap: int
    noise_tables: int


@dataclass(frozen=True)
class Nulls:
    """Spectra of tables without structure: columns permuted, and Gaussian (Horn)."""

    permutation: Null
    gaussian: Null


@dataclass(frozen=True)
class Working:
    """Everything that was computed, over the kept sources and targets in canonical order."""

    matrix: TransferMatrix
    prepared: PreparedTable
    scale: Scale
    filled: Array
    found: Components
    rotated: RotatedComponents
    validation: CrossValidation
    nulls: Nulls
    model: ComponentModel
    measured: RemeasuredTable
    assessment: Assessment | None
    effort: Effort
    asked: Mapping[str, Any]
    names: tuple[str, ...]


@dataclass(frozen=True)
class ComponentEffects:
    """Effects (S', C) in points, their intervals and where these come from, and what effects are against."""

    value: Array
    low: Array
    high: Array
    against: str
    interval: str


def effects_of(working: Working) -> ComponentEffects:
    """Loading-weighted mean gains in points, with the interval of measurement noise at fixed weights."""
    prepared, measured = working.prepared, working.measured
    weights = effect_weights(working.rotated.v)
    values = untransform(working.filled, prepared.baseline, working.scale)
    values = np.where(prepared.observed, prepared.values, values)
    known = bool(np.isfinite(prepared.baseline).all())
    reference = prepared.baseline if known else values.mean(axis=0)
    effect = effects_in_points(values, reference, weights, prepared.points)
    low = high = np.full_like(effect, np.nan)
    pointed = weights * prepared.points[:, None]
    if working.effort.bootstrap:
        low, high = measured.interval(effect, pointed, against_base=known)
    return ComponentEffects(
        effect,
        low,
        high,
        "base" if known else "mean of the sources",
        measured.origin if working.effort.bootstrap else "none",
    )


def noise_of(working: Working) -> Noise:
    """The noise summary of the kept targets."""
    prepared = working.prepared
    observed = np.where(prepared.observed, prepared.values, np.nan)
    unit = scale_slope(prepared.values, prepared.observed, working.scale)
    if prepared.metric.divide:
        unit = unit / working.found.divisor
    return noise_summary(
        working.found,
        len(prepared.sources),
        origin=working.measured.origin,
        variance=working.measured.variance,
        unit=unit,
        spread=np.nanstd(observed, axis=0, ddof=1),
        reliability=seed_reliability(working.matrix, prepared.column_order),
    )


def assemble(working: Working) -> Traits:
    """The record over all sources and targets of the matrix; what was left out is NaN."""
    prepared, found, rotated = working.prepared, working.found, working.rotated
    place = Placement(prepared, len(working.matrix.sources), len(working.matrix.targets))
    effects, noise = effects_of(working), noise_of(working)
    low, high = _loading_intervals(working)
    evidence = name_components(
        rotated.v,
        prepared.targets,
        working.matrix.target_tags,
        working.names,
        supported=working.model.used,
        seed=int(working.asked["seed"]),
    )
    band = working.nulls.permutation.band()
    running = working.nulls.permutation.band(cumulative=True)
    turned = rotated.rotated
    return Traits(
        sources=working.matrix.sources,
        targets=working.matrix.targets,
        n_components=_counts(working),
        explained_variance_ratio=found.ratios,
        null_mean=band[0],
        null_p05=band[1],
        null_p95=band[2],
        null_cumulative_mean=running[0],
        null_cumulative_p05=running[1],
        null_cumulative_p95=running[2],
        loadings=place.by_target(rotated.v),
        loadings_low=place.by_target(low),
        loadings_high=place.by_target(high),
        scores_u=place.by_source(rotated.u),
        scores=place.by_source(rotated.u * rotated.size),
        base_scores=_base_scores(working),
        effects=place.by_source(effects.value),
        effects_low=place.by_source(effects.low),
        effects_high=place.by_source(effects.high),
        leverage=place.by_source(rotated.u**2),
        singular_values=found.singular,
        centers=place.by_target(found.center),
        divisors=place.by_target(found.divisor),
        completed=place.by_cell(untransform(working.filled, prepared.baseline, working.scale)),
        masked=place.by_cell(prepared.masked.astype(float)) == 1,
        cross_validation=working.validation,
        stability=working.assessment.stability if working.assessment else Stability(working.model.examined),
        noise=_placed_noise(noise, place),
        names=tuple(item.name for item in evidence),
        naming=evidence,
        warnings=(),
        conditions=_conditions(working, effects),
        rotation=turned.transform if turned else None,
        factor_correlation=turned.correlation if turned else None,
        rotated_variance_ratio=rotated.ratios,
        biplot=_placed_biplot(working, place),
    )


@dataclass(frozen=True)
class Placement:
    """Puts parts over the kept sources and targets into the matrix's order, NaN elsewhere."""

    prepared: PreparedTable
    sources: int
    targets: int

    def by_source(self, part: Array) -> Array:
        """(S', ...) -> (S, ...)."""
        whole = np.full((self.sources, *part.shape[1:]), np.nan)
        whole[list(self.prepared.row_order)] = part
        return whole

    def by_target(self, part: Array) -> Array:
        """(T', ...) -> (T, ...)."""
        whole = np.full((self.targets, *part.shape[1:]), np.nan)
        whole[list(self.prepared.column_order)] = part
        return whole

    def by_cell(self, part: Array) -> Array:
        """(S', T') -> (S, T)."""
        return self.by_target(self.by_source(part).T).T


def _placed_biplot(working: Working, place: Placement) -> Biplot | None:
    """The plane over all sources and targets; None without a bootstrap."""
    found = working.assessment.biplot if working.assessment else None
    if found is None:
        return None
    return Biplot(
        scores=place.by_source(found.scores),
        loadings=place.by_target(found.loadings),
        scores_covariance=place.by_source(found.scores_covariance),
        loadings_covariance=place.by_target(found.loadings_covariance),
        draws=found.draws,
    )


def _placed_noise(noise: Noise, place: Placement) -> Noise:
    """The noise record over all targets."""
    return Noise(
        origin=noise.origin,
        variance=place.by_target(noise.variance),
        share=place.by_target(noise.share),
        reliability=place.by_target(noise.reliability),
        signal_ratio=noise.signal_ratio,
        total_share=noise.total_share,
        reason=noise.reason,
    )


def _counts(working: Working) -> Mapping[str, int]:
    """The number of components by each criterion, and the number used."""
    ratios = working.found.ratios
    return MappingProxyType(
        {
            "cv": working.validation.chosen,
            "parallel": above_null(ratios, working.nulls.gaussian.band()[2]),
            "permutation": above_null(ratios, working.nulls.permutation.band()[2]),
            "used": working.model.used,
        }
    )


def _loading_intervals(working: Working) -> tuple[Array, Array]:
    """(T', C) 2.5th and 97.5th percentiles for the examined components, NaN for the others."""
    low = np.full_like(working.rotated.v, np.nan)
    high = low.copy()
    if working.assessment:
        low[:, : working.model.examined] = working.assessment.loadings_low
        high[:, : working.model.examined] = working.assessment.loadings_high
    return low, high


def _base_scores(working: Working) -> Array:
    """(C,) the base projected on the components: least squares on the rotated ones; NaN if unknown."""
    prepared, found, rotated = working.prepared, working.found, working.rotated
    base = np.zeros_like(prepared.baseline) if working.scale == "gain" else prepared.baseline
    if working.scale == "logit":
        clipped = np.clip(base, 0.005, 0.995)
        base = np.log(clipped) - np.log1p(-clipped)
    if not np.isfinite(base).all():
        return np.full(len(found.singular), np.nan)
    z = base - found.center
    if prepared.metric.double:
        z = z - z.mean()
    return np.linalg.pinv(rotated.v) @ (z / found.divisor)


def _conditions(working: Working, effects: ComponentEffects) -> dict[str, Any]:
    """What was asked and how it was done, in plain values."""
    prepared, effort = working.prepared, working.effort
    observed = np.where(prepared.observed, prepared.values, np.nan)
    mean_r, median_r = mean_correlation(observed)
    if not effort.bootstrap:
        resampled = "none"
    elif "measurement" in working.measured.deviations:
        resampled = "adapters and, jointly for all adapters, " + " and ".join(
            kind for kind in ("items", "seeds") if kind in working.measured.deviations
        )
    else:
        resampled = "adapters only: the table holds no items"
    return {
        "rows": len(prepared.sources),
        "columns": len(prepared.targets),
        "scale": working.scale,
        "rotate": working.model.rotation,
        **working.asked,
        "masked_cells": [[prepared.sources[i], prepared.targets[j]] for i, j in np.argwhere(prepared.masked)],
        "missing_cells": int((~prepared.observed & ~prepared.masked).sum()),
        "completion": f"regularised iterative PCA with {working.model.completion_rank} components",
        "cross_validation": f"element-wise, {effort.folds} folds, {effort.cv_seeds} seeds, one SE",
        "null": f"{effort.permutations} tables with permuted columns",
        "bootstrap": resampled,
        "bootstrap_draws": effort.bootstrap,
        "noise_tables": effort.noise_tables,
        "effects_against": effects.against,
        "effect_intervals": effects.interval,
        "points_per_unit": sorted({float(p) for p in prepared.points}),
        "scorings": {
            "scores": "left singular vectors times singular values (U*S)",
            "scores_u": "left singular vectors, unit norm (U)",
            "effects": "loading-weighted mean gain in points",
        },
        "target_correlation": {"mean": mean_r, "median": median_r},
    }


def mean_correlation(values: Array) -> tuple[float, float]:
    """Mean and median Pearson correlation over pairs of columns of (S, T), pairwise complete."""
    r = correlations(values, least=3)[np.triu_indices(values.shape[1], 1)]
    r = r[np.isfinite(r)]
    return (float(r.mean()), float(np.median(r))) if r.size else (float("nan"), float("nan"))


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


def _work(
    matrix: TransferMatrix, prepared: PreparedTable, options: Options, asked: Mapping[str, Any]
) -> Working:
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
    model = ComponentModel(rank, metric, options.rotate, used, examined)
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


def _checked_count(asked: int | str, supported: int, existing: int, prepared: PreparedTable) -> int:
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


def _aligned_share(share: Array | None, matrix: TransferMatrix, prepared: PreparedTable) -> Array | None:
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


def _nulls(
    prepared: PreparedTable, filled: Array, found: Components, rank: int, draws: int, seed: int
) -> Nulls:
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
    prepared: PreparedTable,
    filled: Array,
    rotated: RotatedComponents,
    model: ComponentModel,
    measured: RemeasuredTable,
    effort: Effort,
    seed: int,
) -> Assessment | None:
    """Stability under resampling, or None when no bootstrap was asked for."""
    if not effort.bootstrap:
        return None
    subject = ResampledTable(prepared.table, filled, prepared.observed, rotated.v[:, : model.examined])
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
