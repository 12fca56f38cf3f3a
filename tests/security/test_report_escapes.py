"""Whatever stands in a run's names, texts and reasons, the report shows it as text, in every section."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import page as pages
import pytest

from traitmap.api.report import report_contents
from traitmap.report.page import render_report
from traitmap.report.records import ReportContents

MARKUP = "</script></style></title><img src=x onerror=alert(1)>'\"><svg/onload=alert(2)>{{7*7}}]]><!--"
HARMLESS = str.maketrans("<>&{'\"", "++%(,^")  # letters of about the same width
NAME = "toxicity"  # of a source and a target, so it stands in every record


def poisoned(record: Any, put: str = MARKUP) -> Any:
    """The record with markup behind the name, wherever it stands: in names, keys, texts and reasons."""
    if isinstance(record, str):
        return record.replace(NAME, NAME + put)
    if isinstance(record, Mapping):
        return MappingProxyType({poisoned(key, put): poisoned(value, put) for key, value in record.items()})
    if isinstance(record, tuple | list | frozenset | set):
        values = [poisoned(one, put) for one in record]
        return type(record)(*values) if hasattr(record, "_fields") else type(record)(values)
    if is_dataclass(record) and not isinstance(record, type):
        copy = object.__new__(type(record))
        for one in fields(record):
            object.__setattr__(copy, one.name, poisoned(getattr(record, one.name), put))
        return copy
    if isinstance(record, np.ndarray) and record.dtype == object:
        return np.array([poisoned(one, put) for one in record.ravel()], dtype=object).reshape(record.shape)
    return record


@pytest.fixture(scope="module")
def contents(prepared_run: Path) -> ReportContents:
    return report_contents(prepared_run, cells=True)


def rendered(found: ReportContents) -> str:
    return render_report(
        ReportContents(
            found.matrix,
            found.traits,
            dict(found.matrix.conditions),
            profile=found.profile,
            explanation=found.explanation,
            recommendation=getattr(found, "recommendation", None),
            cells=found.cells,
            evaluation=found.evaluation,
            missing=found.missing,
        )
    )


def test_markup_in_any_record_stays_text(contents: ReportContents) -> None:
    harmless = poisoned(contents, MARKUP.translate(HARMLESS))  # as wide, so that it is shortened alike
    clean, hostile = pages.parse(rendered(harmless)), rendered(poisoned(contents))
    tree = pages.parse(hostile)  # fails where an element was closed by foreign markup
    assert hostile.count(NAME) > 50  # it stands in the page, many times
    for tag in ("script", "style", "title", "img", "iframe", "link", "svg", "section"):
        assert len(tree.all(tag)) == len(clean.all(tag)), tag
    handlers = [key for one in tree.all() for key in one.attributes if key.startswith("on")]
    assert handlers == [key for one in clean.all() for key in one.attributes if key.startswith("on")]
    assert "alert(1)" in tree.words()
    assert "49]]>" not in hostile  # no template of ours was run over it


def test_data_blocks_cannot_be_closed_by_what_they_hold(contents: ReportContents) -> None:
    page = rendered(poisoned(contents))
    blocks = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page, flags=re.DOTALL)
    assert blocks
    for block in blocks:
        json.loads(block)
        assert "<" not in block
    assert any(MARKUP in json.dumps(json.loads(block)).replace('\\"', '"') for block in blocks)
