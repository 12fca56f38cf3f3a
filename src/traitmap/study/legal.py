"""What a setting may be, in words, read off its own type: so that no fault has to say "invalid value"."""

from __future__ import annotations

from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

_PLAIN = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def legal_values(annotation: Any) -> str:
    """Words for the values of a type, e.g. ``a number, at least 0, below 1``."""
    return _described(annotation)


def holds_text(annotation: Any) -> bool:
    """Whether plain characters here are meant as text: text itself, a choice, the short form of a record."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return holds_text(parts[0])
    if origin is Literal:
        return any(isinstance(part, str) for part in parts)
    if origin in (Union, UnionType):
        return any(holds_text(part) for part in parts)
    return annotation is str or _is_record(annotation)


def inner_annotation(annotation: Any, key: str | int) -> Any:
    """The type of what stands at ``key`` inside a value of this type; Any where it is not known."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return inner_annotation(parts[0], key)
    if origin in (Union, UnionType):
        found = [inner_annotation(part, key) for part in parts if part is not NoneType]
        return next((each for each in found if each is not Any), Any)
    if origin is tuple and isinstance(key, int):
        return parts[0]
    if origin is dict and isinstance(key, str):
        return parts[1]
    setting = _field(annotation, key) if _is_record(annotation) else None
    if setting is not None:
        return Annotated[setting.annotation, *setting.metadata] if setting.metadata else setting.annotation
    return Any


def keys_of(annotation: Any) -> list[str]:
    """Keys of a record as a study file writes them; the record may stand in a union."""
    records = [annotation, *get_args(annotation)]
    fields: dict[str, FieldInfo] = next((one.model_fields for one in records if _is_record(one)), {})
    return [setting.alias or name for name, setting in fields.items()]


def _field(record: type[BaseModel], key: str | int) -> FieldInfo | None:
    found = (one for name, one in record.model_fields.items() if (one.alias or name) == key)
    return next(found, None)


def _is_record(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _described(annotation: Any, metadata: Any = ()) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _described(parts[0], (*parts[1:], *metadata))
    if origin is Literal:
        words = "one of " + ", ".join(map(str, parts)) if len(parts) > 1 else str(parts[0])
    elif origin in (Union, UnionType):
        return " or ".join(_described(part, metadata) for part in parts if part is not NoneType)
    elif origin is tuple:
        words = f"a list in which each item is {_described(parts[0])}"
    elif origin is dict:
        words = "a mapping (key: value)"
    elif _is_record(annotation):
        words = f"a mapping with keys among {', '.join(keys_of(annotation))}"
    else:
        words = _PLAIN.get(annotation, "another value")
    return ", ".join([words, *_bounds(metadata)])


def _bounds(metadata: Any) -> list[str]:
    found: list[str] = []
    for each in metadata:
        match each:
            case FieldInfo():
                found.extend(_bounds(each.metadata))
            case Ge(ge=low):
                found.append(f"at least {low}")
            case Gt(gt=low):
                found.append(f"above {low}")
            case Le(le=high):
                found.append(f"at most {high}")
            case Lt(lt=high):
                found.append(f"below {high}")
    return found
