"""From the working parts of a decomposition, in canonical order, to the record in the matrix's own order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from traitmap.analysis.biplot import Biplot
from traitmap.analysis.components import (
    Components,
    RotatedComponents,
    correlations,
    effect_weights,
    effects_in_points,
)
from traitmap.analysis.dimension import Null, above_null
from traitmap.analysis.measurement import Measured
from traitmap.analysis.naming import name_components
from traitmap.analysis.noise import noise_summary, seed_reliability
from traitmap.analysis.records import CrossValidation, Noise, Stability, Traits
from traitmap.analysis.scaling import Prepared, Scale, scale_slope, untransform
from traitmap.analysis.stability import Assessment, Model
from traitmap.matrix_record import Array, TransferMatrix


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
    prepared: Prepared
    scale: Scale
    filled: Array
    found: Components
    rotated: RotatedComponents
    validation: CrossValidation
    nulls: Nulls
    model: Model
    measured: Measured
    assessment: Assessment | None
    effort: Effort
    asked: Mapping[str, Any]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Effects:
    """Effects (S', C) in points, their intervals and where these come from, and what effects are against."""

    value: Array
    low: Array
    high: Array
    against: str
    interval: str


def effects_of(working: Working) -> Effects:
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
    return Effects(
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

    prepared: Prepared
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


def _conditions(working: Working, effects: Effects) -> dict[str, Any]:
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
