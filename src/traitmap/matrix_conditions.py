"""Conditions that were stored with a table by somebody, read with the shapes that all later steps rely on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, ValidationError

from traitmap.errors import MatrixError


class _Read(BaseModel):
    """Known keys have their type; others may hold anything, since they are only shown."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=True)


class _Changes(_Read):
    mislabel: dict[str, Any] | None = None


class _Variation(_Read):
    parents: Annotated[list[StrictStr], Field(min_length=1)]
    kind: StrictStr
    changes: _Changes
    dose: float | None
    parent_dose: float | None
    meaning: StrictStr


class _Source(_Read):
    variation: _Variation | None = None


class _Overlap(_Read):
    source: StrictStr
    target: StrictStr
    exact: StrictInt
    contained: StrictInt
    near: StrictInt
    short: StrictInt
    items: Annotated[StrictInt, Field(ge=1)]
    material: StrictBool


class _Conditions(_Read):
    name: StrictStr | None = None
    base: StrictStr | None = None
    seeds: tuple[StrictInt, ...] = ()
    higher_is_better: dict[str, StrictBool] | None = None
    sources: dict[str, _Source] = {}
    targets: dict[str, dict[str, Any]] = {}
    renamed: tuple[StrictStr, ...] = ()
    contamination: tuple[_Overlap, ...] | None = None
    study: dict[str, Any] | None = None


def checked_conditions(told: Any, place: str) -> Mapping[str, Any]:
    """The conditions as they stand, if each key that has a meaning holds what it should. MatrixError else."""
    try:
        _Conditions.model_validate(told)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or "as a whole"
        raise MatrixError(
            f"{place}: its conditions are malformed ({where}: {first['msg']}); write the table again"
        ) from None
    found: Mapping[str, Any] = told
    return found
