"""The reference of the study file holds every setting, with its type, legal values, default and meaning."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from traitmap.study.settings import Settings, Study

DOCS = Path(__file__).parents[1] / "docs"
REFERENCE = runpy.run_path(str(DOCS / "study_reference.py"))


def records_in(annotation: Any) -> set[type[BaseModel]]:
    """Every record that a value of this type may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        inner = (one.annotation for one in annotation.model_fields.values())
        return {annotation}.union(*(records_in(one) for one in inner))
    return set().union(*(records_in(one) for one in get_args(annotation)))


def fields() -> list[tuple[type[BaseModel], str]]:
    return [
        (record, name)
        for record in REFERENCE["RECORDS"]
        for name in record.model_fields
        if (record, name) not in REFERENCE["SET_BY_US"]
    ]


def row_of(record: type[BaseModel], name: str) -> list[str]:
    key = record.model_fields[name].alias or name
    place = REFERENCE["RECORDS"][record][1]
    lines = (DOCS / "study-reference.md").read_text(encoding="utf-8").splitlines()
    (line,) = [one for one in lines if one.startswith(f"| `{place}{key}` |")]
    return [entry.strip() for entry in line.strip("|").split(" | ")]


def test_the_page_is_as_the_settings_are() -> None:
    page = (DOCS / "study-reference.md").read_text(encoding="utf-8")
    assert page == REFERENCE["page"](), "run: python docs/study_reference.py"


def test_every_record_that_a_study_can_hold_has_its_section() -> None:
    assert (
        records_in(Study)
        == set(REFERENCE["RECORDS"])
        == {record for record in Settings.__subclasses__() if record.__module__ == Study.__module__}
    )


@pytest.mark.parametrize(("record", "name"), fields())
def test_every_setting_is_told(record: type[BaseModel], name: str) -> None:
    setting = record.model_fields[name]
    _, legal, default, meaning = row_of(record, name)
    assert legal
    assert "another value" not in legal
    assert len(meaning.split()) > 1, f"{record.__name__}.{name}: say in the class's docstring what it is"
    if setting.is_required():
        assert default == "required"
    elif setting.default is None:
        assert default == "none"
    else:
        assert default


def test_a_docstring_tells_no_setting_that_is_not_there() -> None:
    for record in REFERENCE["RECORDS"]:
        keys = {setting.alias or name for name, setting in record.model_fields.items()}
        assert REFERENCE["descriptions"](record).keys() <= keys, record


def test_bounds_choices_and_defaults_are_those_of_the_settings() -> None:
    from traitmap.study.settings import Endpoint, Model, Training

    assert row_of(Training, "adam_beta1")[1:3] == ["a number, at least 0, below 1", "`0.9`"]
    assert row_of(Model, "dtype")[1:3] == ["one of auto, float32, bfloat16, float64", "`auto`"]
    assert row_of(Endpoint, "concurrency")[1:3] == ["a whole number, at least 1, at most 1024", "`8`"]
    assert row_of(Study, "sources")[1] == "a list of mappings, see [sources](#sources)"
