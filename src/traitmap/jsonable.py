"""Records by reflection: as plain JSON data, which every record leaves as, and as a short repr."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from math import isfinite
from pathlib import Path
from typing import Any

__all__ = ["jsonable", "outline"]

WIDTH = 100  # characters of a line of ``outline``
MOST_LINES = 20


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


def outline(record: Any) -> str:
    """A dataclass in a few lines: arrays by their shape, long lists by their first entries and their length.

    For use as ``__repr__`` of records that may be large: at most ``MOST_LINES`` and two lines of ``WIDTH``
    characters, whatever they hold. Fields that are left out at the end are counted.
    """
    lines, left = [""], [field for field in fields(record) if field.repr]
    while left:
        entry = f"{left[0].name}={_brief(getattr(record, left[0].name), 60)}, "
        if len(lines[-1]) + len(entry) > WIDTH:
            if len(lines) == MOST_LINES:
                lines.append(f"... {len(left)} more fields")
                break
            lines.append("")
        lines[-1] += entry
        del left[0]
    inner = "\n    ".join(line.rstrip() for line in lines)
    return f"{type(record).__name__}(\n    {inner}\n)"


def _brief(value: Any, width: int) -> str:
    """A value in at most about ``width`` characters."""
    if hasattr(value, "shape") and hasattr(value, "dtype") and value.shape:
        return f"array{tuple(value.shape)}"
    if is_dataclass(value) and not isinstance(value, type):
        return f"{type(value).__name__}(...)"
    if isinstance(value, list | tuple | set | frozenset | Mapping):
        brackets = "{}" if isinstance(value, Mapping | set | frozenset) else "()"
        shown = ""
        for number, item in enumerate(value):
            entry = _brief(item, 20)
            if number == 4 or len(shown) + len(entry) > width - 20:
                return f"{brackets[0]}{shown}... {len(value)} in all{brackets[1]}"
            shown += f"{entry}, "
        return f"{brackets[0]}{shown.removesuffix(', ')}{brackets[1]}"
    text = f"{value:.6g}" if isinstance(value, float) else repr(value)
    return text if len(text) <= width else f"{text[: width - 3]}..."
