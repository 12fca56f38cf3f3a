"""Records by reflection: as plain JSON data, which every record leaves as, and back; and as a short repr."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from math import isfinite, nan
from pathlib import Path
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

__all__ = ["jsonable", "outline", "restored", "stored"]

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


def stored(value: Any) -> Any:
    """A record as data that ``json.dumps`` takes and ``restored`` reads: the fields alone, whatever else the
    record's ``to_json`` tells. Numbers must be Python's or numpy's scalars; those that are not finite become
    null. ValueError for arrays, which have no record of their own to come back to.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: stored(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): stored(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [stored(item) for item in value]
    if getattr(value, "shape", ()):
        raise ValueError(f"an array of shape {value.shape} is no entry of a stored record")
    return jsonable(value)


T = TypeVar("T")


def restored(kind: type[T], data: Any) -> T:
    """What ``stored`` wrote, as the ``kind`` that it was: by the types of the fields.

    A field's type may be a dataclass, a number, text, a Literal, ``X | None``, ``tuple[X, ...]``,
    ``Mapping[str, X]`` or Any, nested as they come. Null is NaN where a number belongs. ValueError or
    TypeError for data of another form, and for a type that is none of these.
    """
    return cast(T, _restored(kind, data))


def _restored(kind: Any, data: Any) -> Any:
    origin, parts = get_origin(kind), get_args(kind)
    if kind is Any:
        return data
    if kind is float:
        return nan if data is None else float(data)
    if origin in (Union, UnionType):
        (inner,) = (part for part in parts if part is not NoneType)
        return None if data is None else _restored(inner, data)
    if origin is Literal:
        if data not in parts:
            raise ValueError(f"{data!r} is none of {parts}")
        return data
    if is_dataclass(kind):
        types = _field_types(cast(type, kind))
        if not isinstance(data, dict) or data.keys() != types.keys():
            raise ValueError(f"no {getattr(kind, '__name__', kind)}")
        return cast(Any, kind)(**{name: _restored(types[name], value) for name, value in data.items()})
    if origin is tuple and isinstance(data, list):
        return tuple(_restored(parts[0], item) for item in data)
    if isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(data, dict):
        return MappingProxyType({key: _restored(parts[1], item) for key, item in data.items()})
    if kind in (str, bool, int) and type(data) is kind:
        return data
    raise ValueError(f"{data!r} is no {kind}")


@cache
def _field_types(kind: type) -> dict[str, Any]:
    """The types of a dataclass' fields, without those of its class variables."""
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


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
