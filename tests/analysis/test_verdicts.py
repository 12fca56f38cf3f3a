"""Verdicts of cells: each rule on answers of known truth, and what a verdict never does."""

from __future__ import annotations

from dataclasses import replace
from math import nan

import numpy as np
import pytest

from planted_cells import LEGAL, TRUTHS, Form, Planted, planted
from traitmap.analysis.controls import answers_with_shares, cell_evidence
from traitmap.analysis.verdicts import GLYPHS, UNCLEAN, cell_verdicts, cells_to_look_at
from traitmap.matrix.record import TransferMatrix

UNEVEN = (0.12, 0.08, 0.8)
SETTINGS = {  # the base of which a truth is a clear case
    "shares put right": {"lean": 2.5, "skill": 1.6},
    "shares put wrong": {"skill": 2.0, "shift": 5.0},
    "format learnt": {"unparsed": 0.4},
}
CASES = [
    (form, truth)
    for form, truths in LEGAL.items()
    for truth in truths
    # a base that avoids a label: what it knows of it cannot be told from written answers
    if not (form == "labels" and truth == "shares put right")
]


def case(truth: str, form: Form = "choices", **settings: object) -> Planted:
    """Two adapters that do nothing, and one that does something."""
    chosen = {"items": 400, "skill": 0.8, "memorised": 0.6, **SETTINGS.get(truth, {}), **settings}
    return planted(("nothing", "nothing", truth), form=form, **chosen)  # type: ignore[arg-type]


@pytest.mark.parametrize(("form", "truth"), CASES)
def test_every_truth_is_called_by_its_name(form: Form, truth: str) -> None:
    called = [case(truth, form, seed=seed).verdicts().of("s2", "task").kind for seed in range(8)]
    assert called.count(TRUTHS[truth]) >= 7, called


@pytest.mark.parametrize("form", list(LEGAL))
def test_no_true_clean_gain_is_called_unclean(form: Form) -> None:
    kinds = [
        study.verdicts().of(source, "task").kind
        for seed in range(10)
        for shares in ((0.5, 0.5), UNEVEN)
        for study in [planted(("more skill",) * 4, form=form, shares=shares, change=0.9, seed=seed)]
        for source in study.truth
    ]
    assert not set(kinds) & set(UNCLEAN)
    assert kinds.count("clean gain") > 0.85 * len(kinds)


def test_labels_alone_do_not_make_a_gain_clean_where_the_base_avoids_one() -> None:
    wide = {"lean": 3.5, "skill": 2.0}
    written = [case("shares put right", "labels", seed=seed, **wide) for seed in range(8)]
    found = [study.verdicts().of("s2", "task") for study in written]
    assert {cell.kind for cell in found} <= {"unknown", "class shares"}
    assert any(cell.kind == "unknown" and "may be class shares" in cell.words for cell in found)
    # the probabilities of its choices show that the same base knew
    chosen = [case("shares put right", "choices", seed=seed, **wide) for seed in range(8)]
    assert {study.verdicts().of("s2", "task").kind for study in chosen} == {"class shares"}


def test_the_shifted_base_has_the_shares_and_gives_up_the_least_for_them() -> None:
    rng = np.random.default_rng(0)
    for width, n in ((2, 50), (3, 200), (5, 300), (8, 97)):
        logits = rng.normal(size=(n, width)) * 3
        counts = np.bincount(rng.choice(width, n, p=rng.dirichlet(np.ones(width))), minlength=width)
        answers = answers_with_shares(logits, counts)
        assert (np.bincount(answers, minlength=width) == counts).all()
        # offsets alone: nobody could swap two answers and have both more likely
        for first in range(width):
            for second in range(width):
                better = logits[:, second] - logits[:, first]
                if (answers == first).any() and (answers == second).any():
                    assert better[answers == first].max() <= better[answers == second].min() + 1e-9
    own = logits.argmax(axis=1)
    assert (answers_with_shares(logits, np.bincount(own, minlength=width)) == own).all()


def test_overlap_counts_only_where_it_makes_the_gain() -> None:
    study = planted(("more skill", "items learnt by heart"), items=400, skill=0.6, memorised=0.6, seed=3)
    held = replace(study, touched={"s0": tuple(range(60)), "s1": study.touched["s1"]})
    found = held.verdicts()
    assert (found.of("s0", "task").kind, found.of("s1", "task").kind) == ("clean gain", "overlap")
    assert "on the items that its training data do not hold" in found.of("s0", "task").words
    # fewer than ten items are left: nothing can be told of the rest
    found = replace(study, touched={"s0": tuple(range(395)), "s1": ()}).verdicts()
    assert found.of("s0", "task").kind == "unknown"
    assert "fewer than 10 items" in found.of("s0", "task").words


def test_what_was_not_compared_is_said() -> None:
    study = case("more skill")
    evidence = cell_evidence("task", study.outcomes, ["s2"])
    assert evidence["s2"].unchecked == ("overlap: its training data were not compared with the items",)
    found = cell_verdicts(study.matrix, {("s2", "task"): evidence["s2"]}).of("s2", "task")
    assert (found.kind, len(found.unchecked)) == ("clean gain", 1)


def test_without_answers_the_interval_alone_speaks_and_says_so() -> None:
    study = case("more skill")
    found = cell_verdicts(study.matrix)
    assert found.of("s2", "task").kind == "unchecked gain"
    assert found.of("s0", "task").kind == "within noise"
    lower = replace(study.matrix, conditions={"higher_is_better": {"task": False}})
    assert cell_verdicts(lower).of("s2", "task").kind == "unchecked loss"


def test_a_table_of_means_has_no_verdict_and_one_with_standard_errors_has() -> None:
    table = TransferMatrix(("a", "b"), ("t",), np.array([[0.5], [0.9]]), np.array([0.4]))
    assert [cell.kind for cell in cell_verdicts(table).cells] == ["unknown", "unknown"]
    assert "no interval" in cell_verdicts(table).of("b", "t").words
    study = case("more skill")
    given = {"status": "given", "gain_low": nan, "gain_high": nan, "p": nan, "q": nan, "stderr": 0.02}
    imported = replace(
        study.matrix,
        cells=tuple(replace(cell, **given) for cell in study.matrix.cells),
        base_cells=tuple(replace(cell, stderr=0.02) for cell in study.matrix.base_cells),
    )
    found = cell_verdicts(imported).of("s2", "task")
    assert found.kind == "unchecked gain"
    # unpaired: two standard errors of 2 points each
    assert found.gain.high - found.gain.value == pytest.approx(1.959964 * 2 * np.sqrt(2), abs=1e-4)


def test_own_data_predictions_and_missing_cells_are_told_apart() -> None:
    study = case("more skill")
    renamed = replace(study.matrix, targets=("s2",))
    renamed = replace(
        renamed,
        cells=tuple(replace(cell, target="s2") for cell in renamed.cells),
        base_cells=tuple(replace(cell, target="s2") for cell in renamed.base_cells),
        conditions={
            "sources": {"s1": {"variation": {"parents": ["s2"], "changes": ["balance"], "kind": "x"}}}
        },
    )
    found = cell_verdicts(renamed)
    assert found.of("s2", "s2").kind == found.of("s1", "s2").kind == "in-domain"
    assert found.variations == ("s1",)
    assert {cell.source for cell in found.transfers} == {"s0"}
    for status, words in (("failed", "failed: loss became NaN"), ("predicted", "predicted from other cells")):
        value = nan if status == "failed" else 0.5
        cells = tuple(
            replace(cell, status=status, value=value, reason="loss became NaN") for cell in study.matrix.cells
        )
        cell = cell_verdicts(replace(study.matrix, cells=cells)).of("s2", "task")
        assert (cell.kind, words in cell.words) == ("unknown", True)


def test_neither_the_order_nor_the_direction_of_sources_changes_a_verdict() -> None:
    truths = ("more skill", "one answer, a loss", "items learnt by heart", "nothing")
    study = planted(truths, skill=0.8, memorised=0.6, seed=5)
    found = study.verdicts()
    turned = replace(
        study,
        matrix=replace(
            study.matrix,
            sources=study.matrix.sources[::-1],
            values=study.matrix.values[::-1],
            cells=study.matrix.cells[::-1],
        ),
        outcomes=dict(reversed(study.outcomes.items())),
    )
    assert {cell.source: cell.kind for cell in turned.verdicts().cells} == {
        cell.source: cell.kind for cell in found.cells
    }
    assert cells_to_look_at(study.matrix) == {"task": ["s0", "s1", "s2"]}


def test_several_seeds_count_as_a_sample_of_trainings() -> None:
    found = case("more skill", seeds=3).verdicts().of("s2", "task")
    assert found.kind == "clean gain"
    assert case("shares put wrong", seeds=3).verdicts().of("s2", "task").kind == "class shares"


def test_a_verdict_is_data_with_one_sign_for_each_kind() -> None:
    assert len(set(GLYPHS.values())) == len(GLYPHS)
    found = case("one answer, a loss").verdicts()
    data = found.of("s2", "task").to_json()
    assert (data["kind"], data["glyph"], data["unit"]) == ("collapse", "■", "points")
    assert data["words"].startswith("answers '")
    assert found.counts(-1)["collapse"] == 1
    assert list(found.to_frame().columns[:4]) == ["source", "target", "kind", "gain"]


@pytest.mark.parametrize("form", ["choices", "labels"])
def test_a_base_that_is_worse_than_chance_makes_blind_answers_a_gain_and_no_skill(form: Form) -> None:
    study = case("less skill", form, skill=-1.0)  # an adapter of no skill beside a base that errs on purpose
    found = study.verdicts().of("s2", "task")
    assert found.improvement > 10
    assert found.kind == "class shares"
    assert "beyond blind answers" in found.words


def test_items_asked_twice_count_once_in_every_control() -> None:
    study = case("more skill")
    items = len(study.outcomes["s2", 0])
    twice = {key: rows + rows for key, rows in study.outcomes.items()}
    groups = np.tile(np.arange(items), 2)

    def left(outcomes: object, **settings: object) -> list[tuple[float, float]]:
        found = cell_evidence("task", outcomes, ["s2"], **settings)["s2"].controls  # type: ignore[arg-type]
        assert found
        return [(control.left.value, control.left.error) for control in found]

    once = left(study.outcomes)
    assert np.array(left(twice, item_groups=groups)) == pytest.approx(np.array(once))
    assert all(
        error < 0.75 * alone for (_, error), (_, alone) in zip(left(twice), once, strict=True)
    )  # as if there were twice as many
