"""Profiles of datasets as plain JSON values; unknown numbers become null."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from traitmap.analysis.profiles.datasets import DatasetComparison, DatasetProfile
from traitmap.analysis.traits_json import plain
from traitmap.matrix_record import Array


def to_json(comparison: DatasetComparison) -> dict[str, Any]:
    """Everything in the record as plain JSON values; unknown numbers are null, matrices are keyed by name."""

    def square(matrix: Array | None) -> dict[str, dict[str, Any]] | None:
        if matrix is None:
            return None
        names = comparison.names
        return {
            row: dict(zip(names, plain(values), strict=True))
            for row, values in zip(names, matrix, strict=True)
        }

    found = comparison.discrepancy
    return {
        "datasets": {name: profile_to_json(profile) for name, profile in comparison.profiles.items()},
        "style": {
            "names": list(comparison.style_names),
            "scores": dict(zip(comparison.names, plain(comparison.style_scores), strict=True)),
            "cosine": square(comparison.style_cosine),
            "encoder": comparison.style_encoder or None,
            "encoded_cosine": square(comparison.encoded_style_cosine),
        },
        "semantics": {
            "kind": comparison.semantic_kind,
            "cosine": square(comparison.semantic_cosine),
            "mmd_squared": square(found.squared),
            "mmd_p": square(found.p),
            "mmd_null_p95": square(found.null_p95),
            "mmd_bandwidth": plain(found.bandwidth),
            "mmd_texts": found.texts,
            "mmd_permutations": found.permutations,
        },
        "vocabulary": {
            "jaccard": square(comparison.vocabulary.jaccard),
            "coverage": square(comparison.vocabulary.coverage),
        },
        "labels": {
            "shared": square(comparison.shared_labels),
            "prior_distance": square(comparison.prior_distance),
        },
        "conditions": plain(comparison.conditions),
        "notes": list(comparison.notes),
    }


def profile_to_json(profile: DatasetProfile) -> dict[str, Any]:
    """One dataset's profile as plain JSON values."""
    style = profile.style
    found = {
        name: plain(_fields(getattr(profile, name))) for name in ("lengths", "classes", "forms", "difficulty")
    }
    return {
        "texts": profile.texts,
        **found,
        "style": dict(zip(style.names, plain(style.values), strict=True)),
        "read": dict(profile.read),
    }


def _fields(record: Any) -> Any:
    """A record as a mapping of its fields, nested; ``asdict`` cannot copy read-only mappings."""
    if hasattr(record, "__dataclass_fields__"):
        return {name: _fields(getattr(record, name)) for name in record.__dataclass_fields__}
    if isinstance(record, Mapping):
        return {name: _fields(value) for name, value in record.items()}
    return record
