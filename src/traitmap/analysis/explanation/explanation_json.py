"""The record of an explanation as plain JSON values; unknown numbers become null."""

from __future__ import annotations

from dataclasses import is_dataclass
from typing import Any

from traitmap.analysis.explanation.records import Explanation
from traitmap.analysis.interval import Interval
from traitmap.analysis.traits_json import plain


def to_json(explanation: Explanation) -> dict[str, Any]:
    """Everything in the record under its own field names."""
    told: dict[str, Any] = _record(explanation)
    return told


def _record(value: Any) -> Any:
    """Records to mappings, intervals by their own rule, the rest plain."""
    if isinstance(value, Interval):
        return value.to_json()
    if is_dataclass(value) and not isinstance(value, type):
        return {name: _record(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, tuple | list):
        return [_record(one) for one in value]
    return plain(value)
