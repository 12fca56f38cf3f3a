"""Records to plain JSON data, by reflection: every record of traitmap leaves through this one function."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from math import isfinite
from pathlib import Path
from typing import Any

__all__ = ["jsonable"]


def jsonable(value: Any) -> Any:
    """Any record as data that ``json.dumps`` takes; unknown numbers become null.

    value: a dataclass, mapping, sequence, array, number, text, path, or any nesting of these.

    A dataclass becomes an object under its own field names, in their order; one with a method ``to_json``
    says itself how it looks. Arrays (n, m, ...) become nested lists of the same shape, numpy scalars Python's
    own, NaN and infinities null, paths text. Keys of mappings become text. Sets are sorted.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return float(value) if isfinite(value) else None
    if hasattr(value, "to_json") and not isinstance(value, type):
        return value.to_json()
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: jsonable(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, set | frozenset):
        return [jsonable(item) for item in sorted(value)]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy's arrays and scalars, without importing numpy
        return jsonable(value.tolist())
    return value
