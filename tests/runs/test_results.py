"""A result is computed once for each state of a run, and never read for another one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan, nan
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

import traitmap as tm
from traitmap.api.answers import answer
from traitmap.errors import MatrixError
from traitmap.jsonable import restored, stored
from traitmap.progress import silent
from traitmap.runs.files import read_sealed_json, write_sealed_json
from traitmap.runs.results import kept_result
from traitmap.runs.store import RunStore, held_lock


@dataclass(frozen=True)
class Part:
    name: str
    value: float
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Result:
    parts: tuple[Part, ...]
    best: Part | None
    counts: Mapping[str, int]
    anything: Any = None


SOME = Result((Part("x", 1.5), Part("y", nan, "b")), None, {"n": 3}, {"deep": [1, None, "text"]})


@pytest.fixture
def folder(prepared_run: Path, tmp_path: Path) -> Path:
    """A run of which nobody has asked anything yet."""
    return Path(shutil.copytree(prepared_run, tmp_path / "mini", ignore=shutil.ignore_patterns("results")))


class Counted:
    """Computes the result, and counts how often."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> Result:
        self.times += 1
        return SOME


def asked(folder: Path, compute: Counted, **settings: Any) -> Result:
    return kept_result(folder, "some", Result, settings, compute)


def test_a_record_comes_back_as_it_was() -> None:
    again = restored(Result, json.loads(json.dumps(stored(SOME))))
    assert isnan(again.parts[1].value)
    assert (again.parts[0], again.parts[1].kind, again.best) == (SOME.parts[0], "b", None)
    assert dict(again.counts) == SOME.counts
    assert again.anything == SOME.anything


@pytest.mark.parametrize(
    "data",
    [
        {},
        {**stored(SOME), "more": 1},
        {**stored(SOME), "parts": "x"},
        {**stored(SOME), "parts": [{"name": 1, "value": 1.0, "kind": "a"}]},
        {**stored(SOME), "parts": [{"name": "x", "value": 1.0, "kind": "c"}]},
        {**stored(SOME), "counts": {"n": "3"}},
        {**stored(SOME), "counts": {"n": True}},
        [],
    ],
)
def test_data_of_another_form_is_refused(data: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        restored(Result, data)


def test_an_array_is_not_stored() -> None:
    with pytest.raises(ValueError, match="array of shape"):
        stored(Result((), None, {}, np.zeros(3)))


def test_it_is_computed_once_for_the_same_state_and_settings(folder: Path) -> None:
    compute = Counted()
    for _ in range(3):
        assert asked(folder, compute, target="x").parts[0] == SOME.parts[0]
    assert compute.times == 1
    asked(folder, compute, target="y")
    asked(folder, compute, target="x")
    assert compute.times == 2


@pytest.mark.parametrize("what", ["cell", "cell gone", "texts", "record", "ledger", "adapter"])
def test_whatever_it_comes_from_makes_it_computed_anew(folder: Path, what: str) -> None:
    compute = Counted()
    asked(folder, compute)
    cell = next((folder / "cells").glob("*.parquet"))
    if what == "cell":
        os.utime(cell, ns=(1, 1))
    elif what == "cell gone":
        cell.unlink()
    elif what == "texts":
        next((folder / "texts").iterdir()).unlink()
    elif what == "record":
        write_sealed_json(folder / "contamination.json", {"key": "other"})
    elif what == "ledger":
        write_sealed_json(folder / "run.json", {**read_sealed_json(folder / "run.json"), "name": "other"})
    else:
        shutil.rmtree(next((folder / "adapters").iterdir()))
    asked(folder, compute)
    assert compute.times == 2
    assert len(list((folder / "results").iterdir())) == 1  # that of the former state is gone


@pytest.mark.parametrize("damage", [b"", b"{", b'{"result": {}}'])
def test_a_damaged_one_is_computed_anew(folder: Path, damage: bytes) -> None:
    compute = Counted()
    asked(folder, compute)
    (path,) = (folder / "results").iterdir()
    path.write_bytes(damage)
    asked(folder, compute)
    asked(folder, compute)
    assert compute.times == 2


def test_where_it_cannot_be_kept_it_is_computed_each_time(folder: Path) -> None:
    compute = Counted()
    with held_lock(RunStore(folder)):  # a run in progress
        asked(folder, compute)
    assert not (folder / "results").exists()
    (folder / "results").write_text("no folder")
    asked(folder, compute)
    assert compute.times == 2


def test_the_answer_of_a_run_is_kept_and_read_again(folder: Path) -> None:
    first = answer(folder, listener=silent)
    again = answer(folder, listener=silent)
    assert again.to_json() == first.to_json()
    assert str(again) == str(first)
    assert again.verdicts.counts() == first.verdicts.counts()
    (path,) = (folder / "results").iterdir()
    content = read_sealed_json(path)
    content["result"]["pick"] = "the one that was kept"
    write_sealed_json(path, content)
    assert answer(folder, listener=silent, date="2026-01-02").pick == "the one that was kept"
    assert answer(folder, listener=silent, date="2026-01-02").date == "2026-01-02"
    assert answer(folder, target="stars", why=False, listener=silent).target == "stars"
    with pytest.raises(MatrixError):
        answer(folder, target="moons", listener=silent)


def test_reading_leaves_the_run_whole(folder: Path) -> None:
    answer(folder, listener=silent)
    assert tm.status(folder, verify=True).damaged == ()
    assert all(entry.kind != "leftover" for entry in tm.gc(folder))
