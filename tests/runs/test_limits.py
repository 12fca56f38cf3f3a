"""Another limit asks only items that were not asked before, and gives the cells of a run with that limit."""

import json
from pathlib import Path
from typing import Any

import pytest

import traitmap as tm
from traitmap.data.targets import load_targets
from traitmap.engine.fake import FakeEngine
from traitmap.runs.ledger import read_ledger
from traitmap.runs.store import RunStore

CHOICES = 5  # of mini_stars' answers


def study(folder: Path, limit: int | None, **changes: Any) -> tm.Study:
    given: dict[str, Any] = {
        "name": "limits",
        "model": {"path": "builtin:mini"},
        "sources": [{"name": "stars", "task": "mini_stars", "limit": 30}],
        "targets": ["mini_stars", "mini_arithmetic", "mini_reviews"],
        "limit": limit,
        "output": str(folder),
    }
    return tm.Study.model_validate(given | changes)


def run(folder: Path, limit: int | None, log: Path, **changes: Any) -> list[int]:
    """Requests of every call that a run made to its engine, the base's first."""
    log.unlink(missing_ok=True)
    done = tm.run(study(folder, limit, **changes), engine=FakeEngine(log=log))
    assert done.status().complete
    lines = log.read_text().splitlines() if log.exists() else []
    return [call["requests"] for line in lines if (call := json.loads(line))["call"] == "answer"]


def cells(folder: Path) -> dict[tuple[str, str], bytes]:
    store = RunStore(folder / "limits")
    entries = read_ledger(store).cells
    return {(one.source, one.target): store.cell(one.key or "").read_bytes() for one in entries}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.mark.parametrize("takes", ["sample", "first"])
def test_raising_the_limit_asks_the_new_items_and_lowering_it_none(
    tmp_path: Path, log: Path, takes: str
) -> None:
    first = run(tmp_path / "a", 12, log, limit_takes=takes)
    assert run(tmp_path / "a", 20, log, limit_takes=takes) == [round(8 / 12 * count) for count in first]
    raised = cells(tmp_path / "a")
    assert run(tmp_path / "a", 12, log, limit_takes=takes) == []
    assert run(tmp_path / "a", 5, log, limit_takes=takes) == []  # a size that was never asked
    run(tmp_path / "b", 20, log, limit_takes=takes)
    assert cells(tmp_path / "b") == raised


def test_nothing_is_asked_for_a_smaller_limit_though_the_former_cells_of_it_are_gone(
    tmp_path: Path, log: Path
) -> None:
    run(tmp_path, 12, log)
    run(tmp_path, 20, log)
    tm.gc(tmp_path / "limits", delete=True)
    assert run(tmp_path, 12, log) == []


def test_the_whole_data_after_a_part_of_them(tmp_path: Path, log: Path) -> None:
    part = run(tmp_path / "a", 40, log)
    all_at_once = run(tmp_path / "b", None, log)
    rest = run(tmp_path / "a", None, log)
    assert [a + b for a, b in zip(part, rest, strict=True)] == all_at_once
    assert cells(tmp_path / "a") == cells(tmp_path / "b")


def test_an_interruption_in_between_loses_no_item(tmp_path: Path, log: Path) -> None:
    first = run(tmp_path, 12, log)
    heard: list[tm.Progress] = []

    def stop(report: tm.Progress) -> None:
        heard.append(report)
        if report.stage == "evaluate" and len(heard) > 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tm.run(study(tmp_path, 20), stop, FakeEngine(log=log))
    rest = run(tmp_path, 20, log)
    assert rest == [round(8 / 12 * count) for count in first][-len(rest) :]
    assert 0 < len(rest) < len(first)


def test_after_a_run_on_a_budget_the_rest_is_asked(tmp_path: Path, log: Path) -> None:
    asked = study(
        tmp_path,
        40,
        sources=[
            {"name": name, "task": f"mini_{name}", "limit": 30} for name in ("stars", "arithmetic", "reviews")
        ],
    )
    tm.run(asked, engine=FakeEngine(log=log), budget=0.4)
    part = [json.loads(line) for line in log.read_text().splitlines()]
    log.unlink()
    tm.run(asked, engine=FakeEngine(log=log))
    rest = [json.loads(line) for line in log.read_text().splitlines()]
    whole = tmp_path / "whole"
    log.unlink()
    tm.run(asked.model_copy(update={"output": str(whole)}), engine=FakeEngine(log=log))
    once = [json.loads(line) for line in log.read_text().splitlines()]

    def base_requests(calls: list[dict[str, Any]]) -> int:
        return sum(call["requests"] for call in calls if call["call"] == "answer" and call["adapter"] is None)

    assert 0 < base_requests(part) < base_requests(once)
    assert base_requests(part) + base_requests(rest) == base_requests(once)


def test_another_adapter_is_asked_everything(tmp_path: Path, log: Path) -> None:
    first = run(tmp_path, 12, log)
    again = run(tmp_path, 20, log, training={"max_steps": 3})
    base, adapter = again[: len(first) // 2], again[len(first) // 2 :]
    assert base == [round(8 / 12 * count) for count in first[: len(base)]]
    assert adapter == [round(20 / 12 * count) for count in first[len(base) :]]


def test_what_outcomes_tell_of_answers_and_what_not(tmp_path: Path) -> None:
    (choices,) = load_targets(study(tmp_path, 12, targets=["mini_stars"]))
    answers = FakeEngine().answer(choices.requests)
    outcomes = choices.score(answers).outcomes
    known = choices.known_answers(outcomes[:4], "acc")
    assert [answer.logprob for answer in known[: 4 * CHOICES]] == [
        answer.logprob for answer in answers[: 4 * CHOICES]
    ]
    assert known[4 * CHOICES :] == [None] * 8 * CHOICES
    # how long the answer is that another metric judges is not kept
    assert choices.known_answers(outcomes, "acc_norm") == [None] * 12 * CHOICES


def test_a_damaged_cell_is_not_trusted(tmp_path: Path, log: Path) -> None:
    first = run(tmp_path, 12, log)
    for path in (tmp_path / "limits" / "cells").glob("*.parquet"):
        path.write_bytes(path.read_bytes()[:-40])
    assert run(tmp_path, 20, log) == [round(20 / 12 * count) for count in first]
