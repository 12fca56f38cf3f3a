"""The record of traits as plain JSON values; unknown numbers become null."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from traitmap.analysis.description import describe
from traitmap.analysis.records import Resampling, Traits
from traitmap.matrix_record import Array


def plain(value: Any) -> Any:
    """Arrays to lists, tuples to lists, numpy scalars to Python's, NaN and infinities to None."""
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value


def to_json(traits: Traits) -> dict[str, Any]:
    """Everything in the record, keyed by source and target names."""
    by_source, by_target = _keyed(traits.sources), _keyed(traits.targets)
    return {
        "n_components": dict(traits.n_components),
        "explained_variance_ratio": plain(traits.explained_variance_ratio),
        "null_explained_variance_ratio": {
            "mean": plain(traits.null_mean),
            "p05": plain(traits.null_p05),
            "p95": plain(traits.null_p95),
        },
        "null_cumulative": {
            "mean": plain(traits.null_cumulative_mean),
            "p05": plain(traits.null_cumulative_p05),
            "p95": plain(traits.null_cumulative_p95),
        },
        "singular_values": plain(traits.singular_values),
        "loadings": by_target(traits.loadings),
        "loadings_low": by_target(traits.loadings_low),
        "loadings_high": by_target(traits.loadings_high),
        "scores": by_source(traits.scores),
        "scores_u": by_source(traits.scores_u),
        "base_scores": plain(traits.base_scores),
        "effects": by_source(traits.effects),
        "effects_low": by_source(traits.effects_low),
        "effects_high": by_source(traits.effects_high),
        "leverage": by_source(traits.leverage),
        "biplot": _biplot(traits),
        "cross_validation": plain(asdict(traits.cross_validation)),
        "stability": _stability(traits),
        "noise": {
            "origin": traits.noise.origin,
            "variance": by_target(traits.noise.variance),
            "share": by_target(traits.noise.share),
            "reliability": by_target(traits.noise.reliability),
            "signal_ratio": plain(traits.noise.signal_ratio),
            "total_share": plain(traits.noise.total_share),
            "reason": traits.noise.reason,
        },
        "rotation": plain(traits.rotation),
        "factor_correlation": plain(traits.factor_correlation),
        "rotated_variance_ratio": plain(traits.rotated_variance_ratio),
        "names": list(traits.names),
        "naming": [plain(asdict(evidence)) for evidence in traits.naming],
        "words": describe(traits),
        "warnings": [plain(asdict(warning)) for warning in traits.warnings],
        "conditions": plain(traits.conditions),
    }


def _keyed(names: Sequence[str]) -> Any:
    """A function from an array whose first axis runs over ``names`` to a mapping by name."""

    def keyed(array: Array) -> dict[str, Any]:
        return {name: plain(row) for name, row in zip(names, array, strict=True)}

    return keyed


def _biplot(traits: Traits) -> dict[str, Any] | None:
    """The first two components as a plane, with the covariance of each point."""
    plane = traits.biplot
    if plane is None:
        return None
    by_source, by_target = _keyed(traits.sources), _keyed(traits.targets)
    return {
        "scores": by_source(plane.scores),
        "loadings": by_target(plane.loadings),
        "scores_covariance": by_source(plane.scores_covariance),
        "loadings_covariance": by_target(plane.loadings_covariance),
        "draws": plane.draws,
    }


def _stability(traits: Traits) -> dict[str, Any]:
    """Resamplings by kind, overlapping components, intervals of the shares of variance."""
    stability = traits.stability
    return {
        "examined": stability.examined,
        "resamplings": {kind: _resampling(found) for kind, found in stability.resamplings.items()},
        "overlaps": [plain(asdict(overlap)) for overlap in stability.overlaps],
        "explained_variance_ratio_low": plain(stability.eigenvalue_low),
        "explained_variance_ratio_high": plain(stability.eigenvalue_high),
    }


def _resampling(found: Resampling) -> dict[str, Any]:
    """One kind of resampling."""
    return {
        "draws": found.draws,
        "congruence_mean": plain(found.congruence_mean),
        "congruence_p05": plain(found.congruence_p05),
        "noise_p95": plain(found.noise_p95),
        "worst": list(found.worst),
    }
