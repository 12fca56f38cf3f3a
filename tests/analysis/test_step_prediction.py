"""Steps that were not kept, predicted: known courses come back, intervals hold, nothing else changes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from planted_combinations import planted_courses
from traitmap.analysis.checkpoints import checkpoint_courses
from traitmap.analysis.explanation.families import without_sources
from traitmap.analysis.step_prediction import PredictedStep, predict_steps
from traitmap.errors import MatrixError
from traitmap.matrix.record import TransferMatrix
from traitmap.report.checkpoints import checkpoints_view


def predicted(matrix: TransferMatrix, row: str, hidden: Sequence[str] = ()) -> list[PredictedStep]:
    return list(predict_steps(without_sources(matrix, hidden) if hidden else matrix, [row]))


def truth(matrix: TransferMatrix, row: str) -> Any:
    return 100 * matrix.gains[matrix.sources.index(row)]


def points(steps: Sequence[PredictedStep]) -> Any:
    factor = 100 if steps[0].unit != "points" else 1
    return factor * np.array([step.gain.value for step in steps])


@pytest.mark.parametrize("hidden", [["s2@40"], ["s2@10", "s2@40"]])
def test_a_straight_course_comes_back_exactly(hidden: list[str]) -> None:
    matrix = planted_courses()
    found = predicted(matrix, "s2@40", hidden)
    assert points(found) == pytest.approx(truth(matrix, "s2@40"))
    assert {one.model for one in found} == {"straight"}
    assert {one.between for one in found} == {(10, 120) if len(hidden) == 1 else (0, 120)}
    assert {one.courses for one in found} == {6}


@pytest.mark.parametrize("bend", [0.4, 2.5])
def test_that_gains_come_early_or_late_is_learnt_from_other_sources(bend: float) -> None:
    matrix = planted_courses(bend=bend, stray=0.5)
    hidden = ["s3@10", "s3@40"]
    found = predicted(matrix, "s3@10", hidden)
    assert found[0].model != "straight"
    line = truth(matrix, "s3") * np.log1p(10) / np.log1p(120)
    off = np.abs(points(found) - truth(matrix, "s3@10")).mean()
    assert off < 0.3 * np.abs(line - truth(matrix, "s3@10")).mean()


def test_its_own_family_takes_no_part_and_others_do() -> None:
    matrix = planted_courses(bend=0.4, stray=0.5)
    described = {name: dict(one) for name, one in matrix.conditions["sources"].items()}
    for row in ("s1@10", "s1@40", "s1"):  # s1 is a variation of s0
        made = {"kind": "mislabel", "parents": ["s0"], "family": "s0", "changes": {}, "dose": 1.0}
        described[row]["variation"] = {**made, **described[row].get("variation", {}), "family": "s0"}
    family = replace(matrix, conditions={**matrix.conditions, "sources": described})

    def beside(row: str) -> Any:
        values = family.values.copy()
        values[family.sources.index(row)] += 0.05
        return points(predicted(replace(family, values=values), "s0@20"))

    before = predicted(family, "s0@20")
    assert {one.courses for one in before} == {5}
    assert beside("s1@40") == pytest.approx(points(before), abs=1e-9)
    assert np.abs(beside("s2@40") - points(before)).max() > 0.01


def test_fewer_than_three_other_courses_give_no_interval() -> None:
    for sources, known in ((3, False), (4, True)):
        found = predicted(planted_courses(sources=sources, stray=2.0), "s0@20")
        assert np.isfinite(points(found)).all()
        assert {np.isfinite(one.gain.low) for one in found} == {known}
        assert {bool(one.gain.reason) for one in found} == {not known}
    alone = predicted(planted_courses(steps=()), "s0@20")  # no course at all: the line, and no more
    assert {(one.courses, one.model) for one in alone} == {(0, "straight")}


def test_intervals_hold_measured_steps_as_often_as_they_say() -> None:
    inside = []
    for seed in range(12):
        matrix = planted_courses(bend=0.6, stray=8.0, items=200, seed=seed)
        for hidden in (["s0@40"], ["s0@10", "s0@40"]):
            found = predicted(matrix, "s0@40", hidden)
            inside += [
                one.gain.low <= value <= one.gain.high
                for one, value in zip(found, truth(matrix, "s0@40"), strict=True)
            ]
    assert len(inside) == 120
    assert 0.84 <= np.mean(inside) <= 0.98


def test_what_cannot_be_predicted_is_told_all_at_once() -> None:
    with pytest.raises(MatrixError) as caught:
        predict_steps(planted_courses(), ["s0@40", "s0@500", "nobody@3", "s1", "s1@0", "s2@20"])
    words = str(caught.value)
    for fault in ("'s0@40' is measured", "ends at step 120", "no source 'nobody'", "such as s1@30"):
        assert fault in words
    assert "s2@20" not in words


def test_predicted_steps_are_marked_and_change_nothing_else() -> None:
    matrix = planted_courses(stray=2.0)
    plain, found = (checkpoint_courses(matrix, predict=rows) for rows in ((), ("s0@20",)))
    assert (found.courses, found.choices, found.notes) == (plain.courses, plain.choices, plain.notes)
    told = json.loads(json.dumps(found.to_json(), allow_nan=False))["predicted"]
    assert {(one["row"], one["status"]) for one in told} == {("s0@20", "predicted")}
    frame = found.to_frame()
    assert set(frame[frame.row == "s0@20"].status) == {"predicted"}
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(checkpoints_view(found))
    shown = console.export_text()
    assert shown.count("~") == len(told) + 2  # every number, the line and the note
    assert "s0@20 is predicted, not measured: between steps 10 and 40" in " ".join(shown.split())
