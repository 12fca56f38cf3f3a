"""Cells that end early: nested items, nothing asked twice, decisions that a kill does not change, marks."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import traitmap as tm
from small_study import targets
from traitmap.api.asking import before_asking
from traitmap.cli import app
from traitmap.engine.fake import FakeEngine
from traitmap.errors import RunError
from traitmap.matrix.assisted import Anchors, assisted_gain
from traitmap.matrix.reading import read
from traitmap.matrix.sequential import confidence_at, look_counts
from traitmap.matrix.statistics import numbered_groups, paired_gain
from traitmap.progress import silent
from traitmap.runs.ledger import read_ledger, read_parts
from traitmap.runs.plan import CellUnit, Plan
from traitmap.runs.store import RunStore

SOURCES = ("stars", "arithmetic", "reviews")
ITEMS = 100


class Counted(FakeEngine):
    """The fake engine, which remembers what it was asked and stops where it is told."""

    def __init__(self, stop_after: int | None = None) -> None:
        super().__init__()
        self.requests: list[int] = []
        self.stop_after = stop_after

    def answer(self, requests: Any, adapter: Any = None, listener: Any = silent) -> Any:
        if self.stop_after is not None and len(self.requests) >= self.stop_after:
            raise KeyboardInterrupt
        self.requests.append(len(requests))
        return super().answer(requests, adapter, listener)


def study(folder: Path, **changes: Any) -> tm.Study:
    given: dict[str, Any] = {
        "name": "early",
        "model": {"path": "builtin:mini"},
        "sources": [{"name": name, "task": f"mini_{name}", "limit": 60} for name in SOURCES],
        "targets": [f"mini_{name}" for name in SOURCES],
        "limit": ITEMS,
        "output": str(folder),
    }
    return tm.Study.model_validate(given | changes)


def run(folder: Path, engine: FakeEngine | None = None, **changes: Any) -> tm.Run:
    return tm.run(study(folder, **changes), engine=engine or Counted())


def counts(done: tm.Run) -> dict[tuple[str, int | None, str], int]:
    """Items that each cell holds."""
    store = RunStore(done.folder)
    parts = {(cell.source, cell.seed, cell.target): cell.asked or 0 for cell in read_parts(store).cells}
    whole = {
        (cell.source, cell.seed, cell.target): ITEMS
        for cell in read_ledger(store).cells
        if cell.status == "done"
    }
    return parts | whole


def cells_in(done: tm.Run) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((done.folder / "cells").glob("*.parquet"))}


def test_a_higher_precision_asks_only_further_items(tmp_path: Path) -> None:
    rough, fine, whole, at_once = Counted(), Counted(), Counted(), Counted()
    first = run(tmp_path / "a", rough, precision=25)
    coarse = counts(first)
    assert set(coarse.values()) <= set(look_counts(ITEMS))
    assert min(coarse.values()) < ITEMS
    second = run(tmp_path / "a", fine, precision=12)
    after = counts(second)
    assert all(after[unit] >= coarse[unit] for unit in coarse)
    assert sum(after.values()) > sum(coarse.values())
    third = run(tmp_path / "a", whole)
    fresh = run(tmp_path / "b", at_once)
    assert sum(rough.requests) + sum(fine.requests) + sum(whole.requests) == sum(at_once.requests)
    assert np.array_equal(third.matrix().values, fresh.matrix().values)
    again = Counted()
    run(tmp_path / "a", again, precision=12)
    assert again.requests == []


def test_items_of_cells_are_nested_and_follow_from_the_seed(tmp_path: Path) -> None:
    orders = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        done = run(tmp_path / name, precision=20, limit_takes="first", sample_seed=seed)
        parts = read_parts(RunStore(done.folder))
        orders.append(dict(parts.order))
        held = {}
        for cell in parts.cells:
            held.setdefault(cell.target, []).append(set(parts.items_of(cell)))
        for sets in held.values():
            ordered = sorted(sets, key=len)
            assert all(small <= large for small, large in pairwise(ordered))
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]


@pytest.mark.parametrize("after", [3, 8, 14])
def test_a_run_that_was_stopped_decides_the_same_and_asks_nothing_twice(tmp_path: Path, after: int) -> None:
    whole, broken, rest = Counted(), Counted(after), Counted()
    rule = {"decide": "sign", "precision": 15}
    expected = run(tmp_path / "whole", whole, **rule)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", broken, **rule)
    resumed = run(tmp_path / "broken", rest, **rule)
    assert broken.requests + rest.requests == whole.requests
    assert counts(resumed) == counts(expected)
    assert resumed.asked() == expected.asked()
    assert cells_in(resumed) == cells_in(expected)


def test_a_cell_that_ended_early_is_marked_everywhere(tmp_path: Path) -> None:
    done = run(tmp_path, decide="sign", precision=20)
    assert done.status().complete
    matrix = done.matrix()
    ended = [cell for cell in matrix.cells if cell.seed is None and cell.asked_of]
    assert ended
    for cell in ended:
        assert cell.asked_words == f"{cell.asked} of {ITEMS}"
        assert cell.reason.startswith(f"{cell.asked} asked of {ITEMS} items (")
    asked = done.asked()
    assert asked["cells"][0] == len(ended) == sum(asked["ended"].values())
    assert asked["items"][0] == sum(counts(done).values()) < asked["items"][1] == 12 * ITEMS
    assert 0 < asked["tokens"][0] < asked["tokens"][1]
    assert matrix.conditions["asking"]["items"] == asked["items"]
    one, runner = ended[0], CliRunner()
    shown = runner.invoke(app, ["matrix", str(done.folder)]).stdout
    assert "°" in shown
    assert "° asked in part" in shown
    as_json = json.loads(runner.invoke(app, ["matrix", str(done.folder), "--json"]).stdout)
    (cell,) = [
        cell
        for cell in as_json["cells"]
        if (cell["source"], cell["target"], cell["seed"]) == (one.source, one.target, None)
    ]
    assert (cell["asked"], cell["asked_of"]) == (one.asked, ITEMS)
    matrix.to_csv(tmp_path / "long.csv", intervals=True)
    assert tm.read_matrix(tmp_path / "long.csv").cells[0].n
    assert "asked_of" in (tmp_path / "long.csv").read_text().splitlines()[0]
    page = done.report(fast=True).read_text(encoding="utf-8")
    assert one.asked_words in page
    assert "asked in part" in page


def test_intervals_are_those_of_all_looks_on_the_cells_own_items(tmp_path: Path) -> None:
    matrix = run(tmp_path, decide="sign").matrix()
    looks, seen = look_counts(ITEMS), set()
    for cell in matrix.cells:
        scores = matrix.item_scores[cell.target][[0, 1 + matrix.sources.index(cell.source)], 0]
        both = np.isfinite(scores).all(axis=0)
        binary = bool(np.isin(scores[:, both], (0.0, 1.0)).all())
        asked = cell.asked or ITEMS
        level, groups = confidence_at(looks, asked), matrix.item_groups.get(cell.target)
        groups = None if groups is None else numbered_groups(groups[both])
        gain, low, high, p = paired_gain(
            (scores[1] - scores[0])[None, None, both], binary=binary, groups=groups, confidence=level
        )
        assert both.sum() == asked
        stated = (cell.gain, cell.gain_low, cell.gain_high)
        assert np.allclose((gain[0], low[0], high[0]), stated, equal_nan=True)
        assert cell.p >= p[0] or np.isnan(p[0])
        at = matrix.sources.index(cell.source), matrix.targets.index(cell.target)
        assert matrix.gains[at] == pytest.approx(cell.gain)
        seen.add(asked)
    assert len(seen) > 1
    assert level > 0.95


def test_a_target_may_have_a_rule_of_its_own_or_none(tmp_path: Path) -> None:
    several = [
        "mini_stars",
        {"task": "mini_reviews", "decide": "all"},
        {"task": "mini_arithmetic", "precision": 90},
    ]
    done = run(tmp_path, precision=1, targets=several)
    held = counts(done)
    assert {count for (_, _, target), count in held.items() if target == "mini_reviews"} == {ITEMS}
    assert {count for (_, _, target), count in held.items() if target == "mini_arithmetic"} == {20}
    assert set(done.asked()["rules"]) == {"mini_stars", "mini_arithmetic"}


def test_several_seeds_end_together(tmp_path: Path) -> None:
    done = run(tmp_path, decide="sign", precision=25, seeds=[0, 1])
    held = counts(done)
    for (source, seed, target), count in held.items():
        if seed is not None:
            assert count == held[source, 1 - seed, target]
    pooled = [cell for cell in done.matrix().cells if cell.seed is None]
    assert any(cell.asked_of for cell in pooled)
    assert all(np.isfinite(cell.gain) for cell in pooled)


def test_a_budget_and_a_precision_are_one_too_many(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="leave one out"):
        tm.run(study(tmp_path, precision=5), engine=FakeEngine(), budget=0.5)


def test_a_check_and_a_run_tell_what_it_may_cost(tmp_path: Path) -> None:
    asked = study(tmp_path, precision=20)
    (note,) = [line for line in tm.check(asked, FakeEngine()).notes if "end early" in line]
    assert "between 240 and 1,200 items" in note
    told: list[str] = []
    done = tm.run(asked, engine=FakeEngine(), announce=told.append)
    assert note in told
    assert told[-2].startswith("asked: {:,} of 1,200 items".format(done.asked()["items"][0]))


def test_a_precision_in_a_unit_of_its_own_is_told() -> None:
    (asked,) = [
        replace(one, precision=3.0, metric="bits_per_byte") for one in targets() if one.name == "sums"
    ]
    plan = Plan((), (), (CellUnit("__baseline__", None, "sums"),))
    told = before_asking(plan, (asked, replace(asked, name="shares", metric="acc")))
    assert [line for line in told if "its own unit" in line] == [
        "the precision of sums is in bits_per_byte, its own unit, and not in points."
    ]


ANCHORED = {"ask": 0.3, "anchors": 1}


def test_anchors_are_asked_all_and_the_others_their_share(tmp_path: Path) -> None:
    done = run(tmp_path, **ANCHORED)
    held = counts(done)
    assert {count for (source, _, _), count in held.items() if source in ("__baseline__", "stars")} == {ITEMS}
    assert {count for (source, _, _), count in held.items() if source in SOURCES[1:]} == {30}
    asked = done.asked()
    assert asked["items"] == [2 * 3 * ITEMS + 2 * 3 * 30, 12 * ITEMS]
    assert asked["anchors"] == ["stars"]
    assert asked["ended"] == {"its share is asked": 6}
    assert asked["cells"] == [6, 6]
    assert done.status().complete
    scores = done.matrix().item_scores
    assert asked["still"] == {name: int((of[0, 0] == of[1, 0]).sum()) for name, of in scores.items()}


def test_gains_with_anchors_are_estimates_of_all_items_and_say_how_sure(tmp_path: Path) -> None:
    matrix, whole = run(tmp_path / "a", **ANCHORED).matrix(), run(tmp_path / "b").matrix()
    estimated = [cell for cell in matrix.cells if cell.asked_of and cell.seed is None]
    assert len(estimated) == 6
    for cell in estimated:
        at = matrix.sources.index(cell.source), matrix.targets.index(cell.target)
        scores = matrix.item_scores[cell.target][:, 0]
        part = np.flatnonzero(np.isfinite(scores[1 + at[0]]))
        anchors = Anchors(scores[:2], part, matrix.item_groups.get(cell.target))
        found = assisted_gain((scores[1 + at[0]] - scores[0])[None, None, part], anchors, binary=True)
        assert matrix.gains[at] == pytest.approx(cell.gain) == pytest.approx(found.gain[0])
        assert (cell.gain_low, cell.gain_high, cell.p) == pytest.approx(
            (found.low[0], found.high[0], found.p[0])
        )
        assert cell.value == pytest.approx(whole.baseline[at[1]] + cell.gain)
        assert cell.reason.startswith("30 asked of 100 items (its share is asked); the others estimated")
        assert abs(cell.gain - whole.gains[at]) <= 1.5 * found.within[0]
    (first, *_) = read(matrix).target_caveats
    still = matrix.conditions["asking"]["still"][matrix.targets[0]]
    assert first == (
        f"the base and stars were asked every item, and answered {still} of them alike; gains of the others "
        "are estimates for all items, by these answers and a part of the items",
    )
    assert not any(read(whole).target_caveats)
    plain = run(tmp_path / "c", ask=0.3).matrix()
    assert not any(read(plain).target_caveats)
    assert not np.allclose(plain.gains[1:], matrix.gains[1:])
    for at, name in enumerate(matrix.targets):  # an anchor is as sure as in a plain run
        own, same = matrix.cells[at], whole.cells[at]
        assert (own.source, own.target) == (same.source, same.target) == ("stars", name)
        assert (own.gain, own.gain_low, own.p) == (same.gain, same.gain_low, same.p)


def test_more_anchors_a_larger_share_or_none_ask_only_further_items(tmp_path: Path) -> None:
    spent, held = 0, {}
    for changes in (
        ANCHORED,
        ANCHORED,
        {"ask": 0.5, "anchors": 1},
        {"ask": 0.5, "anchors": 2},
        {"precision": 4, "anchors": 2},
        {},
    ):
        engine = Counted()
        done = run(tmp_path / "a", engine, **changes)
        after = counts(done)
        assert all(after[unit] >= held.get(unit, 0) for unit in after)
        assert (engine.requests == []) == (after == held)
        spent, held = spent + sum(engine.requests), after
    at_once = Counted()
    fresh = run(tmp_path / "b", at_once)
    assert spent == sum(at_once.requests)
    assert np.array_equal(done.matrix().values, fresh.matrix().values)


@pytest.mark.parametrize("after", [2, 7, 12])
def test_a_run_with_anchors_that_was_stopped_decides_the_same(tmp_path: Path, after: int) -> None:
    whole, broken, rest = Counted(), Counted(after), Counted()
    rule = {"decide": "sign", "precision": 12, "anchors": 1, "seeds": [0, 1]}
    expected = run(tmp_path / "whole", whole, **rule)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", broken, **rule)
    resumed = run(tmp_path / "broken", rest, **rule)
    assert broken.requests + rest.requests == whole.requests
    assert resumed.asked() == expected.asked()
    assert cells_in(resumed) == cells_in(expected)
    assert expected.asked()["cells"][0] > 0


def test_anchors_run_in_the_contest_for_the_best(tmp_path: Path) -> None:
    done = run(tmp_path, decide="best", precision=20, anchors=1)
    best = done.matrix()
    held = {cell.target: cell for cell in best.cells if cell.source == "stars" and cell.seed is None}
    assert all(not cell.asked_of for cell in held.values())
    assert any(cell.asked_of for cell in best.cells)


def test_anchors_without_a_rule_are_refused_and_what_is_asked_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="anchors estimate what is not asked"):
        study(tmp_path, anchors=2)
    told: list[str] = []
    run_study = study(tmp_path, **ANCHORED)
    tm.run(run_study, engine=FakeEngine(), announce=told.append)
    (note,) = [line for line in told if "end early" in line]
    assert "ask 0.3 (3 targets): 780 items are asked" in note
    assert any(line.startswith("anchors: the base and stars, asked every item") for line in told)
    assert any("were asked every item; gains of the others" in line for line in told)
