from dataclasses import replace
from pathlib import Path

import pytest

from small_study import sources, study, targets
from traitmap.engine.fake import FakeEngine
from traitmap.errors import RunError
from traitmap.runs.execute import execute
from traitmap.runs.growth import MODEL_SHAPES, UnitShape, assumed_unit, grow, measured_unit, tasks_of
from traitmap.runs.status import run_status

UNIT = UnitShape(
    adapter_seconds=100.0,
    cell_seconds=(10.0, 30.0),
    adapter_bytes=1e6,
    cell_bytes=1e4,
    source_bytes=1e5,
    target_bytes=1e5,
    start=0.0,
    items=50,
    measured=True,
)


def test_work_is_the_sum_of_all_units_and_one_worker_needs_as_long() -> None:
    found = grow(UNIT, adapters=8, targets=4, workers=1)
    seconds = 8 * 100 + 9 * (10 + 30 + 10 + 30)
    assert found.worker_hours == pytest.approx(seconds / 3600)
    assert found.hours == pytest.approx(seconds / 3600)
    assert found.busy == pytest.approx(1.0)
    assert found.unlucky_hours > found.hours
    asked = grow(UNIT, adapters=8, targets=4, workers=3, group_size=2)
    assert (asked.adapters, asked.targets, asked.workers, asked.group_size) == (8, 4, 3, 2)


def test_more_workers_take_less_time_for_the_same_work_until_a_chain_bounds_it() -> None:
    grown = [grow(UNIT, adapters=32, targets=8, workers=workers) for workers in (1, 4, 16, 4096)]
    hours = [one.hours for one in grown]
    assert hours == sorted(hours, reverse=True)
    assert hours[-1] * 3600 == pytest.approx(100 + 30)
    assert len({one.worker_hours for one in grown}) == 1


def test_twice_the_items_take_twice_the_time_and_place_of_cells() -> None:
    once = grow(replace(UNIT, adapter_seconds=0.0, adapter_bytes=0.0), adapters=4, targets=6, workers=3)
    twice = grow(
        replace(UNIT, adapter_seconds=0.0, adapter_bytes=0.0), adapters=4, targets=6, workers=3, items=100
    )
    assert twice.hours == pytest.approx(2 * once.hours)
    assert twice.items == 100


def test_every_unit_of_a_study_is_planned() -> None:
    tasks = tasks_of(UNIT, adapters=10, targets=4, group_size=4)
    assert sum(task.stage == 0 for task in tasks) == 3
    assert sum(task.stage == 1 for task in tasks) == 11 * 4


def test_a_run_tells_what_its_units_took(tmp_path: Path) -> None:
    asked = study(tmp_path)
    store = execute(asked, FakeEngine(delay=0.01), sources(asked), targets())
    found = measured_unit(store)
    assert found.measured
    assert len(found.cell_seconds) == 4
    assert all(0.01 <= seconds < 5 for seconds in found.cell_seconds)
    assert found.items == 40
    paper = grow(found, adapters=8, targets=4, workers=1)
    assert paper.disk == pytest.approx(run_status(store).bytes, rel=0.35)


def test_a_run_without_a_timed_cell_tells_nothing(tmp_path: Path) -> None:
    asked = study(tmp_path)
    store = execute(asked, FakeEngine(longest=0), sources(asked), targets())
    with pytest.raises(RunError, match="no cell has been timed"):
        measured_unit(store)


def test_larger_bases_cost_more_and_one_that_does_not_fit_is_refused() -> None:
    hours = [
        grow(assumed_unit(name), adapters=20, targets=10, workers=8).worker_hours for name in MODEL_SHAPES[:3]
    ]
    assert hours == sorted(hours)
    with pytest.raises(RunError, match="do not fit one 80 GB GPU"):
        assumed_unit("llama-70b")
    with pytest.raises(RunError, match="legal: llama-1b"):
        assumed_unit("gpt-9")
