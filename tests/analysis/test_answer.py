"""The answer: ranked after the verdicts, counted from the records, silent about what is not there."""

from __future__ import annotations

import re
from dataclasses import replace
from math import nan

import numpy as np
import pytest

from planted_cells import planted
from traitmap.analysis.answer import Answer, answer_of
from traitmap.analysis.controls import cell_evidence
from traitmap.analysis.tables import targets_table, unclean_table
from traitmap.analysis.verdicts import UNCLEAN, cell_verdicts, cells_to_look_at
from traitmap.errors import MatrixError
from traitmap.matrix.assisted import Anchors, assisted_gain
from traitmap.matrix.record import Cell, TransferMatrix
from traitmap.matrix.statistics import paired_gain

TRUTHS = ("more skill", "one answer, a loss", "items learnt by heart", "nothing", "more skill")


@pytest.fixture(scope="module")
def study() -> Answer:
    """One target: two clean gains, a collapse, a gain by heart that is larger than both, and nothing."""
    made = planted(TRUTHS, skill=0.3, change=1.2, memorised=0.8, items=400, seed=2)
    return answer_of(made.matrix, made.verdicts(), date="2026-11-30")


def bare(values: list[list[float]], baseline: list[float], **more: object) -> TransferMatrix:
    sources = tuple(f"s{i}" for i in range(len(values)))
    targets = tuple(f"t{i}" for i in range(len(baseline)))
    return TransferMatrix(sources, targets, np.array(values), np.array(baseline), **more)


def test_what_is_not_clean_is_no_pick_however_large(study: Answer) -> None:
    (row,) = study.by_target
    assert row.best is not None
    assert {row.best.source, row.runner_up and row.runner_up.source} == {"s0", "s4"}
    assert [pick.source for pick in row.unclean] == ["s2"]
    assert row.unclean[0].gain.value > row.best.gain.value
    assert row.unclean[0].kind == "overlap"
    assert [pick.source for pick in row.hurt_by] == ["s1"]
    assert {cell.source for cell in study.lifts} == {"s0", "s4"}
    assert {cell.kind for cell in study.unclean} <= set(UNCLEAN)
    assert study.pick.startswith(f"{row.best.source}: helps 1 of 1 target")
    assert study.avoid.startswith("s1: hurts 1 of 1 target")
    assert "answers '" in study.avoid


def test_best_and_runner_up_are_compared_on_all_items_where_anchors_help() -> None:
    """The runner-up was asked a quarter of the items; base and best, an anchor, were asked all."""
    made = planted(TRUTHS, skill=0.3, change=1.2, memorised=0.8, items=400, seed=2)
    matrix, (name,) = made.matrix, made.matrix.targets
    whole = answer_of(matrix, made.verdicts()).by_target[0]
    assert whole.best is not None
    assert whole.runner_up is not None
    best, other = (1 + matrix.sources.index(pick.source) for pick in (whole.best, whole.runner_up))
    scores = matrix.item_scores[name].copy()
    asked = np.sort(np.random.default_rng(3).permutation(400)[:100])
    difference = (scores[best] - scores[other])[None][:, :, asked]
    scores[other] = np.nan
    scores[other][:, asked] = matrix.item_scores[name][other][:, asked]
    asking = {"anchors": [whole.best.source], "looks": {name: [100]}}
    anchors = Anchors(matrix.item_scores[name][[0, best]].mean(axis=1), asked, matrix.item_groups.get(name))
    expected = assisted_gain(difference, anchors, binary=True)
    for conditions, value in (({"asking": asking}, expected.gain[0]), ({}, difference.mean())):
        part = replace(matrix, item_scores={name: scores}, conditions={**matrix.conditions, **conditions})
        row = answer_of(part, made.verdicts()).by_target[0]
        assert row.apart.value == pytest.approx(100 * value)
    assert expected.gain[0] != pytest.approx(difference.mean(), abs=1e-3)


def test_counts_add_up_to_all_transfers(study: Answer) -> None:
    assert (study.gains, study.losses) == ({"clean gain": 2, "overlap": 1}, {"collapse": 1})
    total = sum(study.gains.values()) + sum(study.losses.values()) + study.within_noise + study.unknown
    assert total == len(study.verdicts.transfers) == 5
    assert study.trust.startswith(
        "3 gains beyond noise: 2 clean, 1 overlap; 1 loss beyond noise: it is collapse"
    )
    assert study.title == "5 sources x 1 target · 2026-11-30"


def test_best_and_runner_up_are_held_against_each_other_on_the_same_items(study: Answer) -> None:
    (row,) = study.by_target
    assert row.best
    assert row.runner_up
    made = planted(TRUTHS, skill=0.3, change=1.2, memorised=0.8, items=400, seed=2)
    places = [made.matrix.sources.index(pick.source) for pick in (row.best, row.runner_up)]
    first, second = (made.matrix.item_scores["task"][1 + place] for place in places)
    gain, low, high, _ = paired_gain((first - second)[None], binary=True)
    assert row.apart.value == pytest.approx(100 * gain[0])
    assert (row.apart.low, row.apart.high) == pytest.approx((100 * low[0], 100 * high[0]))
    asked = answer_of(made.matrix, made.verdicts(), target="task")
    told = "not told from" if not row.apart.clear else "ahead of"
    assert f"{told} {row.runner_up.source}" in asked.pick


def test_scores_without_a_base_are_ranked_and_called_scores() -> None:
    whole = bare([[0.5, 9.0], [0.7, 10.0], [0.6, 4.0]], [nan, nan])
    whole = replace(whole, conditions={"higher_is_better": {"t1": False}})
    found = answer_of(whole, cell_verdicts(whole), why_not="cannot be told from scores alone")
    assert found.pick == "s2: mean rank 1.5 of 3 over 2 targets, first on 1"
    assert found.avoid.startswith("s0: the worst mean rank, 2.5 of 3")
    assert [row.best and row.best.source for row in found.by_target] == ["s1", "s2"]
    text = " ".join((str(found), *found.doubts[1:], targets_table(found).caption))
    assert not re.search(r"base\b(?! nothing)|test items|seed", text.replace("no base", ""))
    assert "no base" in found.title


def test_means_alone_have_picks_that_say_that_nothing_was_tested() -> None:
    whole = bare([[0.5, 0.2], [0.7, 0.1]], [0.4, 0.3])
    found = answer_of(whole, cell_verdicts(whole))
    assert found.pick == "cannot be told: no gain has an interval; s1 has the largest mean gain, untested"
    assert found.trust == "no gain has an interval or a test, so none can be trusted or dismissed"
    first, second = found.by_target
    assert first.best
    assert second.best
    assert (first.best.source, first.best.kind, second.best.source) == ("s1", "unknown", "s0")
    table = targets_table(found)
    assert "best source, untested" in [getattr(column, "head", column) for column in table.columns]
    assert answer_of(whole, cell_verdicts(whole), target="t0").pick.startswith("s1: +30.0, untested")


def test_one_target_is_spoken_of_alone_and_an_unknown_one_is_refused(study: Answer) -> None:
    made = planted(("nothing", "nothing"), seed=1)
    quiet = answer_of(made.matrix, made.verdicts(), target="task")
    assert quiet.pick == "no source; no gain beyond noise"
    assert quiet.avoid == "no source lowers it beyond noise (of 2)"
    assert answer_of(made.matrix, made.verdicts()).trust == "nothing is beyond noise among 2 transfers"
    with pytest.raises(MatrixError, match=r"no target 'other'; it has task"):
        answer_of(made.matrix, made.verdicts(), target="other")


def test_what_cannot_be_told_is_said_with_its_reason() -> None:
    made = planted(("more skill", "nothing"), items=300, seed=3)
    failed = tuple(
        replace(cell, status="failed", value=nan, gain=nan, reason="loss became NaN")
        if cell.source == "s1"
        else cell
        for cell in made.matrix.cells
    )
    whole = replace(made.matrix, cells=failed, values=np.array([[made.matrix.values[0, 0]], [nan]]))
    wanted = cells_to_look_at(whole)["task"]
    seen = cell_evidence("task", made.outcomes, wanted)
    found = answer_of(whole, cell_verdicts(whole, {(name, "task"): one for name, one in seen.items()}))
    assert "1 of 2 cells are unknown" in found.uncertain
    assert "overlap could not be checked everywhere" in found.uncertain
    assert found.doubts[0].startswith("1 cell of 2 is unknown (1 failed)")
    quiet = answer_of(made.matrix, made.verdicts())
    assert "unknown" not in quiet.uncertain


def test_a_loss_that_falls_is_an_improvement() -> None:
    made = planted(("more skill", "less skill"), items=300, seed=4)
    turned = replace(made.matrix, conditions={"higher_is_better": {"task": False}})
    found = answer_of(turned, cell_verdicts(turned))
    (row,) = found.by_target
    assert row.best
    assert (row.best.source, row.better) == ("s1", -1)
    assert row.best.gain.value < 0
    assert [pick.source for pick in row.hurt_by] == ["s0"]


def test_the_list_of_what_is_something_else_counts_what_it_leaves_out(study: Answer) -> None:
    table = unclean_table(study, 1)
    assert len(table.rows) == 1
    assert "1 more are in the JSON" in table.caption
    data = study.to_json()
    assert data["lines"]["PICK"] == study.pick
    assert {cell["kind"] for cell in data["unclean"]} == {"overlap", "collapse"}
    assert "2026-11-30" in study._repr_html_()
    assert list(study.to_frame()["best"]) == [study.by_target[0].best.source]  # type: ignore[union-attr]


def told(gains: list[list[float]], *, lower: bool = False) -> Answer:
    """An answer by intervals alone: gains (S, T) in points, those of 5 and more beyond noise."""
    table = np.array(gains) / 100
    sources, targets = (
        tuple(f"{letter}{i}" for i in range(n)) for letter, n in zip("st", table.shape, strict=True)
    )
    cells = [
        Cell(
            source,
            target,
            None,
            "acc",
            0.5 + gain,
            100,
            0.01,
            gain,
            gain - 0.02,
            gain + 0.02,
            q,
            q,
            0,
            "measured",
        )
        for source, row in zip(sources, table.tolist(), strict=True)
        for target, gain in zip(targets, row, strict=True)
        for q in (0.001 if abs(gain) >= 0.05 else 0.5,)
    ]
    base = tuple(
        Cell("__baseline__", t, None, "acc", 0.5, 100, 0.01, 0.0, nan, nan, nan, nan, 0.0, "measured")
        for t in targets
    )
    matrix = TransferMatrix(
        sources,
        targets,
        0.5 + table,
        np.full(len(targets), 0.5),
        cells=tuple(cells),
        base_cells=base,
        conditions={"higher_is_better": dict.fromkeys(targets, not lower)},
    )
    return answer_of(matrix, cell_verdicts(matrix))


def test_who_helps_and_hurts_comes_behind_who_helps_alone() -> None:
    found = told([[40, 30, -10, -10], [6, 6, 0, 0], [6, 0, 0, 0]])
    assert [source.source for source in found.by_source] == ["s1", "s2", "s0"]
    assert found.pick.startswith("s1: helps 2 of 4 targets")
    assert found.avoid.startswith("s0: hurts 2 of 4 targets (t2 -10.0: unchecked loss)")
    both = told([[6, 6, 0], [8, 8, 0]])
    assert both.pick.startswith("s1: ")
    assert both.pick.endswith("; s0 helps and hurts as many")


def test_the_best_of_a_cost_is_the_lowest() -> None:
    (row,) = told([[-6.0], [-20.0], [8.0]], lower=True).by_target
    assert row.best
    assert row.runner_up
    assert [row.best.source, row.runner_up.source] == ["s1", "s0"]
    assert [pick.source for pick in row.hurt_by] == ["s2"]


def test_seeds_of_imported_results_are_not_made_up() -> None:
    made = planted(("more skill", "nothing"), items=300, seed=3)
    one = tuple(replace(cell, seed=0) for cell in made.matrix.cells)
    ours = replace(made.matrix, cells=(*made.matrix.cells, *one))
    imported = replace(ours, conditions={"engine": {"engine": "imported"}})
    told_ours, told_imported = (answer_of(matrix, made.verdicts()) for matrix in (ours, imported))
    assert "1 seed" in told_ours.title
    assert told_ours.uncertain.startswith("1 seed: training noise is in no interval")
    assert "one seed was trained" in told_ours.doubts[0]
    assert "seed" not in told_imported.title
    assert told_imported.uncertain.startswith("seeds are not told: training noise is in no interval")
    assert "nobody tells how many seeds" in told_imported.doubts[0]
