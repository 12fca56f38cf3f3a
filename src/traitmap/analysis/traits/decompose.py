"""decompose: from a transfer matrix to latent traits with their uncertainty and their null.

The order of the work: prepare the table, choose the number of components by cross-validation, fill missing
cells, take the components and rotate them; then what chance gives (nulls), what measurement noise does, how
stable the components are, their names, and what a reader must be warned of. All of it runs over sources and
targets in canonical order (sorted by name), so that results do not depend on the order of the input; the
record is brought into the matrix's own order at the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal, get_args

import numpy as np
from threadpoolctl import threadpool_limits

from traitmap.analysis.explanation.families import variations_of
from traitmap.analysis.traits.components import (
    Components,
    Rotation,
    complete_tables,
    components_of,
    correlations,
    effect_weights,
    effects_in_points,
    rotate_components,
    standardise,
)
from traitmap.analysis.traits.copies import Clusters, source_clusters, target_clusters
from traitmap.analysis.traits.description import listed
from traitmap.analysis.traits.dimension import (
    above_null,
    cross_validate,
    gaussian_null,
    permutation_null,
    spectrum_band,
)
from traitmap.analysis.traits.findings import all_findings
from traitmap.analysis.traits.measurement import RemeasuredTable, measure, noise_summary, seed_reliability
from traitmap.analysis.traits.naming import name_components
from traitmap.analysis.traits.records import CrossValidation, Stability, Traits
from traitmap.analysis.traits.scaling import PreparedTable, Scale, prepare, scale_slope, untransform
from traitmap.analysis.traits.stability import ResampledTable, assess, nameable
from traitmap.errors import MatrixError
from traitmap.matrix.record import Array, TransferMatrix

LEAST_SOURCES = 3  # below which near copies are left in
LARGE = 20_000  # cells from which fewer folds and draws are used, unless they are asked for


def decompose(
    matrix: TransferMatrix,
    *,
    scale: Scale = "standard",
    components: int | Literal["auto"] = "auto",
    rotate: Rotation = "none",
    mask_diagonal: bool | Literal["auto"] = "auto",
    diagonal: Sequence[tuple[str, str]] = (),
    variations: bool = False,
    near_copies: bool = False,
    least_share: float = 0.02,
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
    components: ``auto`` uses those that count as traits (none is possible), or a number. A component counts
        where cross-validation supports it, it takes away at least ``least_share`` of the variance, and more
        than the 95th percentile of tables without structure.
    rotate: rotation of the used components: ``none``, ``varimax``, ``oblimin``.
    mask_diagonal: leave out cells whose source and target have the same name (``auto``, True), with
        the further pairs in ``diagonal``; False keeps all but those pairs.
    variations: let sources that are made from others take part. near_copies: likewise sources whose rows
        agree with another's beyond their noise, of which otherwise one stands for all. What takes no part
        is projected on the components.
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
    if not 0 <= least_share < 1:
        raise MatrixError(f"least_share={least_share!r} is not a share; give a number from 0 to below 1")
    if claimed_share is not None and not 0 <= claimed_share <= 1:
        raise MatrixError(f"claimed_share={claimed_share!r} is not a share; give a number from 0 to 1")
    share = None if majority_share is None else np.asarray(majority_share, dtype=float)
    if share is not None and share.shape != matrix.values.shape:
        raise MatrixError(
            f"majority_share has shape {share.shape}, but the matrix has {matrix.values.shape} (sources, "
            "targets); give one share for each cell, NaN where unknown"
        )
    effort = _effort(matrix.values.size, n_bootstrap, n_permutations, cv_seeds)
    settings = {
        "components": components,
        "mask_diagonal": mask_diagonal,
        "variations": variations,
        "near_copies": near_copies,
        "least_share": least_share,
        "claimed_share": claimed_share,
        "seed": seed,
    }
    # Small matrices gain nothing from more threads, and one thread gives the same bits on every machine.
    with threadpool_limits(limits=1, user_api="blas"):
        examined = _examined(matrix, scale, tuple(diagonal), effort, settings)
        prepared = examined.prepared
        if share is not None:
            share = share[np.ix_((*prepared.row_order, *prepared.aside_rows), prepared.column_order)]
        traits = _decomposed(matrix, examined, scale, rotate, tuple(names), effort, settings)
        traits = _in_matrix_order(traits, matrix, prepared, _projected(traits, prepared, scale))
        return replace(traits, warnings=all_findings(matrix, prepared, traits, share))


def most_components(shape: tuple[int, ...]) -> int:
    """Largest number of components that cross-validation tries: 8, or 2 sqrt(min(S, T)) for large tables.

    shape: (S, T). At most S - 2 and T - 1, so that something is left to predict; at least 1.
    """
    return max(1, min(shape[0] - 2, shape[1] - 1, max(8, round(2 * min(shape) ** 0.5))))


def mean_correlation(values: Array) -> tuple[float, float]:
    """Mean and median Pearson correlation over pairs of columns of (S, T), pairwise complete.

    Pairs with fewer than three common rows are left out; NaN where no pair is left.
    """
    r = correlations(values, least=3)[np.triu_indices(values.shape[1], 1)]
    r = r[np.isfinite(r)]
    return (float(r.mean()), float(np.median(r))) if r.size else (float("nan"), float("nan"))


def _effort(
    cells: int, bootstrap: int | None, permutations: int | None, cv_seeds: int | None
) -> dict[str, int]:
    """Draws, seeds and ``folds`` by the table's size, where they were not asked for."""
    large = cells > LARGE
    draws = {
        "n_bootstrap": (200 if large else 1000) if bootstrap is None else bootstrap,
        "n_permutations": (40 if large else 200) if permutations is None else permutations,
        "cv_seeds": (2 if large else 10) if cv_seeds is None else cv_seeds,
    }
    for name, value in draws.items():
        least = 1 if name == "cv_seeds" else 0
        if value < least:
            raise MatrixError(f"{name}={value} is not possible; use {least} or more")
    noise_tables = min(20 if large else 100, draws["n_bootstrap"], draws["n_permutations"])
    return {**draws, "folds": 5 if large else 10, "noise_tables": noise_tables}


@dataclass(frozen=True)
class _Examined:
    """The table that is decomposed, how many components fit it, and what of it says the same.

    filled: (S', T') its completion. blocks: (T',) of targets that say the same; None where none do.
    """

    prepared: PreparedTable
    validation: CrossValidation
    filled: Array
    blocks: Clusters | None


def _examined(
    matrix: TransferMatrix,
    scale: Scale,
    diagonal: tuple[tuple[str, str], ...],
    effort: Mapping[str, int],
    settings: Mapping[str, Any],
) -> _Examined:
    """The table without variations and near copies, cross-validated with targets that say the same as one."""
    made = {} if settings["variations"] else variations_of(matrix)
    aside = {name: f"made from {listed(tuple(how['parents']))}" for name, how in made.items()}
    while True:
        prepared = prepare(
            matrix,
            scale=scale,
            mask_diagonal=settings["mask_diagonal"],
            diagonal=diagonal,
            aside=aside,
        )
        validation, filled = _fitted(prepared, None, effort, settings["seed"])
        copies = {} if settings["near_copies"] else _near_copies(prepared, filled, validation.chosen)
        if not copies or len(prepared.sources) - len(copies) < LEAST_SOURCES:
            break
        aside = {**aside, **copies}
    blocks = target_clusters(prepared.targets, matrix.conditions.get("shared_items") or ())
    if len(np.unique(blocks)) == len(blocks):
        return _Examined(prepared, validation, filled, None)
    return _Examined(prepared, *_fitted(prepared, blocks, effort, settings["seed"]), blocks)


def sources_that_agree(
    matrix: TransferMatrix, *, diagonal: Sequence[tuple[str, str]] = (), seed: int = 0
) -> dict[str, str]:
    """Sources for which another one stands, since their rows agree beyond noise, and which; {} without any.

    As for the traits of the matrix; its variations take part. diagonal: further in-domain pairs.
    """
    settings = {"mask_diagonal": "auto", "variations": True, "near_copies": False, "seed": seed}
    effort = {"cv_seeds": 2, "folds": 5 if matrix.values.size > LARGE else 10}
    try:
        return dict(_examined(matrix, "standard", tuple(diagonal), effort, settings).prepared.aside)
    except MatrixError:  # too small a table for traits has too few columns for copies
        return {}


def _fitted(
    prepared: PreparedTable, blocks: Clusters | None, effort: Mapping[str, int], seed: int
) -> tuple[CrossValidation, Array]:
    """How many components fit, and the table completed by as many."""
    table, observed, metric = prepared.table, prepared.observed, prepared.metric
    validation = cross_validate(
        table,
        observed,
        metric,
        maximum=most_components(table.shape),
        seeds=effort["cv_seeds"],
        folds=effort["folds"],
        seed=seed,
        blocks=blocks,
    )
    rank = validation.chosen
    return validation, complete_tables(
        table[None], observed[None], rank, metric, tolerance=1e-10, limit=5000
    )[0]


def _near_copies(prepared: PreparedTable, filled: Array, rank: int) -> dict[str, str]:
    """Sources for which another one stands: of each cluster the one with most values, the first by name."""
    clusters = source_clusters(prepared.table, prepared.observed, filled, rank, prepared.metric)
    copies = {}
    for cluster in np.unique(clusters):
        members = np.flatnonzero(clusters == cluster)
        first = members[np.argmax(prepared.observed[members].sum(axis=1))]
        for member in members[members != first]:
            copies[prepared.sources[member]] = f"agrees with {prepared.sources[first]} beyond noise"
    return copies


def _decomposed(
    matrix: TransferMatrix,
    examined_table: _Examined,
    scale: Scale,
    rotate: Rotation,
    names: tuple[str, ...],
    effort: Mapping[str, int],
    settings: Mapping[str, Any],
) -> Traits:
    """The whole analysis over the S' sources and T' targets that are decomposed, in canonical order."""
    prepared, filled = examined_table.prepared, examined_table.filled
    table, observed, metric, seed = prepared.table, prepared.observed, prepared.metric, settings["seed"]
    rank = examined_table.validation.chosen
    unrotated = components_of(filled, metric)
    nulls = _nulls(examined_table, unrotated, effort, seed)
    count = counted(unrotated.ratios[:rank], nulls["null_p95"], settings["least_share"])
    used = _checked_count(settings["components"], count, len(unrotated.singular), table.shape)
    rotated, transform, ratios = rotate_components(unrotated, used, rotate)
    examined = rotated.v[:, : min(max(used, 4), len(unrotated.singular))]
    subject = ResampledTable(
        table, filled, observed, examined, rank, metric, rotate, used, examined_table.blocks
    )
    slope = scale_slope(prepared.values, observed, scale)
    measured = measure(matrix, prepared, filled, rank, slope, draws=effort["n_bootstrap"], seed=seed)
    resampled = _resampled(prepared, subject, rotated.v, measured, effort, seed)
    firm = nameable(resampled["stability"], used) if effort["n_bootstrap"] else tuple(range(used))
    evidence = name_components(
        rotated.v, prepared.targets, matrix.target_tags, names, supported=used, stable=firm, seed=int(seed)
    )
    nulls["n_components"] = MappingProxyType(
        {**nulls["n_components"], "used": used, "stable": len(firm) if effort["n_bootstrap"] else 0}
    )
    return Traits(
        sources=prepared.sources,
        targets=prepared.targets,
        explained_variance_ratio=unrotated.ratios,
        **nulls,
        loadings=rotated.v,
        scores_u=rotated.u,
        scores=rotated.u * rotated.singular,
        base_scores=_base_scores(prepared, unrotated, rotated.v, scale),
        **_effects(prepared, filled, rotated.v, measured, scale, intervals=bool(effort["n_bootstrap"])),
        leverage=rotated.u**2,
        singular_values=unrotated.singular,
        centers=unrotated.center,
        divisors=unrotated.divisor,
        completed=untransform(filled, prepared.baseline, scale),
        masked=prepared.masked,
        cross_validation=examined_table.validation,
        **resampled,
        noise=noise_summary(
            unrotated,
            len(prepared.sources),
            origin=measured.origin,
            variance=measured.variance,
            unit=slope / unrotated.divisor if metric == "standard" else slope,
            spread=np.nanstd(np.where(observed, prepared.values, np.nan), axis=0, ddof=1),
            reliability=seed_reliability(matrix, prepared.column_order),
        ),
        names=tuple(item.name for item in evidence),
        naming=evidence,
        warnings=(),
        conditions=_conditions(prepared, subject, measured, scale, effort, settings),
        aside=prepared.aside,
        rotation=transform,
        factor_correlation=None if transform is None else transform.T @ transform,
        rotated_variance_ratio=ratios,
    )


def _checked_count(components: int | str, supported: int, existing: int, shape: tuple[int, ...]) -> int:
    """How many components are used."""
    if components == "auto":
        return supported
    if not isinstance(components, int) or not 0 <= components <= existing:
        raise MatrixError(
            f"components={components!r} is not possible: a {shape[0]} x {shape[1]} table has {existing} "
            f"components; use 'auto' or a number from 0 to {existing}"
        )
    return components


def _nulls(
    examined: _Examined, unrotated: Components, effort: Mapping[str, int], seed: int
) -> dict[str, Any]:
    """Fields on the permutation null, and ``n_components`` by each criterion alone.

    Permuted and Gaussian tables (Horn) pass through the same masking, completion and scaling.
    """
    observed, metric = examined.prepared.observed, examined.prepared.metric
    rank, z = examined.validation.chosen, standardise(examined.filled[None], metric)[0][0]
    spread = np.ones(z.shape[1]) if metric == "standard" else z.std(axis=0)
    options = {"draws": effort["n_permutations"], "count": len(unrotated.singular), "seed": seed}
    blocks, correlation = examined.blocks, None
    if blocks is not None:
        correlation = np.where(blocks[:, None] == blocks, np.corrcoef(z.T), 0.0)
    permuted = permutation_null(z, observed, rank, metric, blocks=blocks, **options)
    gaussian = gaussian_null(observed, spread, rank, metric, correlation=correlation, **options)
    band, running = spectrum_band(permuted), spectrum_band(np.cumsum(permuted, axis=1))
    counts = {
        "cv": rank,
        "parallel": above_null(unrotated.ratios, spectrum_band(gaussian)[2]),
        "permutation": above_null(unrotated.ratios, band[2]),
    }
    names = ("mean", "p05", "p95")
    return {
        "n_components": counts,
        **{f"null_{name}": values for name, values in zip(names, band, strict=True)},
        **{f"null_cumulative_{name}": values for name, values in zip(names, running, strict=True)},
    }


def counted(ratios: Array, null_p95: Array, least_share: float) -> int:
    """How many of the components that fit count as traits: those before the first that takes away too little.

    ratios: (k,) explained variance of the components that cross-validation supports. null_p95: (C,) of tables
    without structure, NaN where none were drawn: then it is not asked for.
    """
    enough = ratios >= least_share
    if np.isfinite(null_p95).all():
        enough &= ratios > null_p95[: len(ratios)] + 1e-12
    below = np.flatnonzero(~enough)
    return int(below[0]) if below.size else len(ratios)


def _base_scores(prepared: PreparedTable, found: Components, loadings: Array, scale: Scale) -> Array:
    """(C,) the base projected on the components: least squares on the rotated ones; NaN if unknown."""
    base = np.zeros_like(prepared.baseline) if scale == "gain" else prepared.baseline
    if scale == "logit":
        clipped = np.clip(base, 0.005, 0.995)
        base = np.log(clipped) - np.log1p(-clipped)
    if not np.isfinite(base).all():
        return np.full(len(found.singular), np.nan)
    z = base - found.center
    if prepared.metric == "double":
        z = z - z.mean()
    return np.linalg.pinv(loadings) @ (z / found.divisor)


def _effects(
    prepared: PreparedTable,
    filled: Array,
    loadings: Array,
    measured: RemeasuredTable,
    scale: Scale,
    *,
    intervals: bool,
) -> dict[str, Any]:
    """Loading-weighted mean gains in points, with the interval of measurement noise at fixed weights."""
    weights = effect_weights(loadings)
    values = untransform(filled, prepared.baseline, scale)
    values = np.where(prepared.observed, prepared.values, values)
    known = bool(np.isfinite(prepared.baseline).all())
    reference = prepared.baseline if known else values.mean(axis=0)
    effects = effects_in_points(values, reference, weights, prepared.points)
    low = high = np.full_like(effects, np.nan)
    if intervals:
        low, high = measured.interval(effects, weights * prepared.points[:, None], against_base=known)
    return {"effects": effects, "effects_low": low, "effects_high": high}


def _resampled(
    prepared: PreparedTable,
    subject: ResampledTable,
    loadings: Array,
    measured: RemeasuredTable,
    effort: Mapping[str, int],
    seed: int,
) -> dict[str, Any]:
    """Stability, intervals of the loadings and the plane; unknown where no bootstrap was asked for."""
    low = np.full_like(loadings, np.nan)
    high, stability, plane = low.copy(), Stability(subject.examined), None
    if effort["n_bootstrap"]:
        examined = slice(subject.examined)
        stability, low[:, examined], high[:, examined], plane = assess(
            subject,
            prepared.sources,
            prepared.targets,
            draws=effort["n_bootstrap"],
            noise_tables=effort["noise_tables"],
            deviations=measured.in_table_units(),
            seed=seed,
        )
    return {"stability": stability, "loadings_low": low, "loadings_high": high, "biplot": plane}


def _projected(traits: Traits, prepared: PreparedTable, scale: Scale) -> dict[str, Array]:
    """(E, C) scores and effects of sources that take no part, and their values (E, T') completed.

    Unknown cells are as the supported components fit the known ones.
    """
    z = (prepared.aside_table - traits.centers) / traits.divisors
    if prepared.metric == "double":
        z = z - np.nanmean(z, axis=1, keepdims=True)
    loadings = traits.loadings[:, : traits.n_components["cv"]]
    for row in z:
        unknown = ~np.isfinite(row)
        row[unknown] = loadings[unknown] @ np.linalg.lstsq(loadings[~unknown], row[~unknown], rcond=None)[0]
    scores = z @ np.linalg.pinv(traits.loadings).T
    size = np.linalg.norm(traits.scores, axis=0)
    values = untransform(z * traits.divisors + traits.centers, prepared.baseline, scale)
    known = np.isfinite(prepared.baseline).all()
    reference = prepared.baseline if known else traits.completed.mean(axis=0)
    known_values = prepared.aside_values
    return {
        "completed": np.where(np.isfinite(known_values), known_values, values),
        "scores": scores,
        "scores_u": scores / np.where(size > 0, size, 1.0),
        "effects": effects_in_points(values, reference, effect_weights(traits.loadings), prepared.points),
    }


def _conditions(
    prepared: PreparedTable,
    subject: ResampledTable,
    measured: RemeasuredTable,
    scale: Scale,
    effort: Mapping[str, int],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """The settings and how it was done, in plain values."""
    mean_r, median_r = mean_correlation(np.where(prepared.observed, prepared.values, np.nan))
    if not effort["n_bootstrap"]:
        resampled = "none"
    elif "measurement" in measured.deviations:
        resampled = "adapters and, jointly for all adapters, " + " and ".join(
            kind for kind in ("items", "seeds") if kind in measured.deviations
        )
    else:
        resampled = "adapters only: the table holds no items"
    return {
        "rows": len(prepared.sources),
        "columns": len(prepared.targets),
        "scale": scale,
        "rotate": subject.rotation,
        **settings,
        "masked_cells": [[prepared.sources[i], prepared.targets[j]] for i, j in np.argwhere(prepared.masked)],
        "targets_alike": [
            [prepared.targets[j] for j in np.flatnonzero(subject.blocks == block)]
            for block in (() if subject.blocks is None else np.unique(subject.blocks))
            if (subject.blocks == block).sum() > 1
        ],
        "missing_cells": int((~prepared.observed & ~prepared.masked).sum()),
        "completion": f"regularised iterative PCA with {subject.rank} components",
        "cross_validation": f"element-wise, {effort['folds']} folds, {effort['cv_seeds']} seeds, one SE",
        "null": f"{effort['n_permutations']} tables with permuted columns",
        "bootstrap": resampled,
        "bootstrap_draws": effort["n_bootstrap"],
        "noise_tables": effort["noise_tables"],
        "effects_against": "base" if np.isfinite(prepared.baseline).all() else "mean of the sources",
        "effect_intervals": measured.origin if effort["n_bootstrap"] else "none",
        "points_per_unit": sorted({float(p) for p in prepared.points}),
        "scorings": {
            "scores": "left singular vectors times singular values (U*S)",
            "scores_u": "left singular vectors, unit norm (U)",
            "effects": "loading-weighted mean gain in points",
        },
        "target_correlation": {"mean": mean_r, "median": median_r},
    }


def _in_matrix_order(
    traits: Traits, matrix: TransferMatrix, prepared: PreparedTable, projected: Mapping[str, Array]
) -> Traits:
    """The traits over all sources and targets of the matrix, in its own order; NaN where left out.

    projected: scores and effects of sources that take no part.
    """

    def by_source(part: Array) -> Array:
        whole = np.full((len(matrix.sources), *part.shape[1:]), np.nan)
        whole[list(prepared.row_order)] = part
        return whole

    def by_target(part: Array) -> Array:
        whole = np.full((len(matrix.targets), *part.shape[1:]), np.nan)
        whole[list(prepared.column_order)] = part
        return whole

    def by_cell(part: Array) -> Array:
        return by_target(by_source(part).T).T

    placed: dict[str, Any] = {}
    for field in ("scores_u", "scores", "effects", "effects_low", "effects_high", "leverage"):
        placed[field] = by_source(getattr(traits, field))
        if field in projected:
            placed[field][list(prepared.aside_rows)] = projected[field]
    completed = by_cell(traits.completed)
    completed[np.ix_(prepared.aside_rows, prepared.column_order)] = projected["completed"]
    for field in ("loadings", "loadings_low", "loadings_high", "centers", "divisors"):
        placed[field] = by_target(getattr(traits, field))
    masked = by_cell(traits.masked.astype(float)) == 1
    masked[np.ix_(prepared.aside_rows, prepared.column_order)] = prepared.aside_masked
    noise, plane = traits.noise, traits.biplot
    return replace(
        traits,
        sources=matrix.sources,
        targets=matrix.targets,
        **placed,
        completed=completed,
        masked=masked,
        noise=replace(
            noise,
            variance=by_target(noise.variance),
            share=by_target(noise.share),
            reliability=by_target(noise.reliability),
        ),
        biplot=plane
        and replace(
            plane,
            scores=placed["scores"][:, : plane.scores.shape[1]],
            loadings=by_target(plane.loadings),
            scores_covariance=by_source(plane.scores_covariance),
            loadings_covariance=by_target(plane.loadings_covariance),
        ),
    )
