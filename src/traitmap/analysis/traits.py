"""decompose: from a transfer matrix to latent traits with their uncertainty and their null."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from traitmap.analysis.completion import complete_tables, standardise
from traitmap.analysis.components import Components, components_of, effect_weights, effects_in_points
from traitmap.analysis.dimension import (
    Null,
    above_null,
    cross_validate,
    permute_columns,
    spectrum_ratios,
)
from traitmap.analysis.records import CrossValidation, NameEvidence, Noise, Stability, Traits
from traitmap.analysis.scaling import Prepared, Scale, prepare
from traitmap.errors import MatrixError
from traitmap.matrix import Array, TransferMatrix


def decompose(
    matrix: TransferMatrix,
    *,
    scale: Scale = "standard",
    components: int | Literal["auto"] = "auto",
    mask_diagonal: bool | Literal["auto"] = "auto",
    diagonal: Sequence[tuple[str, str]] = (),
    names: Sequence[str] = (),
    n_permutations: int = 200,
    seed: int = 0,
) -> Traits:
    """Latent traits of a transfer matrix (S, T)."""
    prepared = prepare(matrix, scale=scale, mask_diagonal=mask_diagonal, diagonal=diagonal)
    rows, columns = prepared.table.shape
    maximum = max(1, min(rows - 2, columns - 1, 8))
    validation = cross_validate(
        prepared.table, prepared.observed, prepared.metric, maximum=maximum, seed=seed
    )
    used = validation.chosen if components == "auto" else int(components)
    filled = complete_tables(
        prepared.table[None],
        prepared.observed[None],
        used,
        prepared.metric,
        tolerance=1e-10,
        limit=5000,
    )
    found = components_of(filled[0], prepared.metric)
    if used > found.v.shape[1]:
        raise MatrixError(f"components={used}, but only {found.v.shape[1]} exist in {rows} x {columns}")
    null = _null(prepared, filled, used, n_permutations, found.v.shape[1], seed)
    return _assemble(matrix, prepared, found, filled[0], validation, used, null, names)


def _null(prepared: Prepared, filled: Array, used: int, draws: int, count: int, seed: int) -> Null:
    generator = np.random.default_rng([seed, 1])
    z = standardise(filled, prepared.metric).z[0]
    shuffled = permute_columns(z, prepared.observed, draws, generator)
    observed = np.broadcast_to(prepared.observed, shuffled.shape)
    shuffled = complete_tables(shuffled, observed, used, prepared.metric, tolerance=1e-3)
    return Null(spectrum_ratios(shuffled, prepared.metric, count))


def _assemble(
    matrix: TransferMatrix,
    prepared: Prepared,
    found: Components,
    filled: Array,
    validation: CrossValidation,
    used: int,
    null: Null,
    names: Sequence[str],
) -> Traits:
    count = len(found.singular)
    sources, targets = len(matrix.sources), len(matrix.targets)
    rows, columns = np.array(prepared.row_order), np.array(prepared.column_order)
    spread = np.where(prepared.observed, prepared.values, np.nan)
    divisor = np.nanstd(spread, axis=0, ddof=1) if prepared.metric.divide else np.ones(len(columns))
    weights = effect_weights(found.v, divisor)
    known = np.isfinite(prepared.baseline).all()
    reference = prepared.baseline if known else np.nanmean(spread, axis=0)
    effects = effects_in_points(filled, reference, weights, prepared.points)

    def by_source(part: Array) -> Array:
        whole = np.full((sources, part.shape[1]), np.nan)
        whole[rows] = part
        return whole

    def by_target(part: Array) -> Array:
        whole = np.full((targets, *part.shape[1:]), np.nan)
        whole[columns] = part
        return whole

    completed = np.full((sources, targets), np.nan)
    completed[np.ix_(rows, columns)] = filled
    masked = np.zeros((sources, targets), dtype=bool)
    masked[np.ix_(rows, columns)] = prepared.masked
    unknown = np.full((targets, count), np.nan)
    base = (prepared.baseline - found.center) / found.divisor @ found.v if known else np.full(count, np.nan)
    chosen = tuple(names[:count]) + ("no common property",) * (count - len(names))
    mean, low, high = null.band()
    cumulative = null.band(cumulative=True)
    return Traits(
        sources=matrix.sources,
        targets=matrix.targets,
        n_components={
            "cv": validation.chosen,
            "parallel": above_null(found.ratios, high),
            "permutation": above_null(found.ratios, high),
            "used": used,
        },
        explained_variance_ratio=found.ratios,
        null_mean=mean,
        null_p05=low,
        null_p95=high,
        null_cumulative_mean=cumulative[0],
        null_cumulative_p05=cumulative[1],
        null_cumulative_p95=cumulative[2],
        loadings=by_target(found.v),
        loadings_low=unknown,
        loadings_high=unknown,
        scores_u=by_source(found.u),
        scores=by_source(found.u * found.singular),
        base_scores=base,
        effects=by_source(effects),
        effects_low=by_source(np.full_like(effects, np.nan)),
        effects_high=by_source(np.full_like(effects, np.nan)),
        leverage=by_source(found.u**2),
        singular_values=found.singular,
        centers=by_target(found.center),
        divisors=by_target(found.divisor),
        completed=completed,
        masked=masked,
        cross_validation=validation,
        stability=Stability(examined=min(count, max(used, 4))),
        noise=Noise(
            "unknown", *(np.full(targets, np.nan),) * 3, np.full(count, np.nan), float("nan"), "no items"
        ),
        names=chosen,
        naming=tuple(
            NameEvidence(name, "user" if i < len(names) else "none") for i, name in enumerate(chosen)
        ),
        warnings=(),
        conditions={"scale": "standard"},
    )


def to_json(traits: Traits) -> dict[str, Any]:
    """The record as plain JSON; NaN becomes null."""

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return [plain(item) for item in value.tolist()]
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        if isinstance(value, float):
            return value if np.isfinite(value) else None
        return value

    def keyed(keys: Sequence[str], array: Array) -> dict[str, Any]:
        return {key: plain(row) for key, row in zip(keys, array, strict=True)}

    return {
        "n_components": dict(traits.n_components),
        "explained_variance_ratio": plain(traits.explained_variance_ratio),
        "null_explained_variance_ratio": {
            "mean": plain(traits.null_mean),
            "p05": plain(traits.null_p05),
            "p95": plain(traits.null_p95),
        },
        "loadings": keyed(traits.targets, traits.loadings),
        "loadings_low": keyed(traits.targets, traits.loadings_low),
        "loadings_high": keyed(traits.targets, traits.loadings_high),
        "scores": keyed(traits.sources, traits.scores),
        "scores_u": keyed(traits.sources, traits.scores_u),
        "effects": keyed(traits.sources, traits.effects),
        "leverage": keyed(traits.sources, traits.leverage),
        "stability": {"examined": traits.stability.examined},
        "names": list(traits.names),
        "warnings": [
            {"code": w.code, "message": w.message, "action": w.action, "about": list(w.about)}
            for w in traits.warnings
        ],
        "conditions": dict(traits.conditions),
    }
