"""Details of single cells: counts add up, draws are of what was won and lost, long texts keep both ends."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from traitmap.analysis.cells import chosen_cells, shortened, target_details
from traitmap.data.records import Outcome
from traitmap.data.texts import TaskText
from traitmap.matrix.record import Cell, TransferMatrix
from traitmap.study.settings import BASELINE

GOLD = ["yes", "no", "yes", "no", "yes", "no"] * 5
TEXTS = [TaskText(f"question {i}", gold, ("no", "yes")) for i, gold in enumerate(GOLD)]


def answers(predicted: list[str], *, text: bool = False) -> list[Outcome]:
    return [
        Outcome(
            item=i,
            item_digest=str(i),
            score=float(said == gold),
            correct=said == gold,
            prediction=said,
            gold=gold,
            choice_logprobs=None if text else (-1.0, -2.0),
            text=f"{said}{'!' * i}" if text else None,
            parsed=said != "[invalid]",
            output_tokens=1 + i,
            stopped=True if text else None,
        )
        for i, (said, gold) in enumerate(zip(predicted, GOLD, strict=True))
    ]


def test_counts_and_items_are_those_of_the_answers() -> None:
    base = answers(["yes"] * 30)
    one = answers(["no"] * 30)
    two = answers(["no"] * 15 + ["yes"] * 15)
    outcomes = {(BASELINE, None): base, ("a", 0): one, ("a", 1): two}
    found = target_details("t", outcomes, TEXTS, ["a"], examples=4)
    assert found is not None
    target, (cell,) = found
    assert target.labels == target.columns == ("no", "yes")
    assert target.base_counts.tolist() == [[0, 15], [0, 15]]
    assert cell.counts.tolist() == [[22, 8], [23, 7]]
    assert (cell.seeds, cell.items) == (2, 30)
    # one seed of two is enough for an item to be won, unless the other one loses it
    mean = (np.array([o.score for o in one]) + [o.score for o in two]) / 2
    change = mean - [o.score for o in base]
    assert (cell.won, cell.lost) == ((change > 0).sum(), (change < 0).sum()) == (15, 15)
    assert len(cell.won_examples) == len(cell.lost_examples) == 4
    for example in cell.won_examples:
        assert change[example.item] > 0
        assert (example.base, example.adapter) == ("yes", "no")
        assert example.adapter_score > example.base_score
    for example in cell.lost_examples:
        assert change[example.item] < 0
    shown = {one.item for one in (*cell.won_examples, *cell.lost_examples)}
    assert set(target.texts) == shown
    assert all(target.texts[i] == (f"question {i}", GOLD[i]) for i in shown)


def test_sources_show_the_same_items_where_they_can() -> None:
    outcomes = {
        (BASELINE, None): answers(["yes"] * 30),
        ("a", 0): answers(["no"] * 30),
        ("b", 0): answers(["no"] * 30),
    }
    _, (one, other) = target_details("t", outcomes, TEXTS, ["a", "b"])
    assert [e.item for e in one.won_examples] == [e.item for e in other.won_examples]
    again = target_details("t", outcomes, TEXTS, ["a", "b"], seed=1)[1][0]
    assert [e.item for e in one.won_examples] != [e.item for e in again.won_examples]


def test_what_is_no_class_has_a_column_only_where_it_was_answered() -> None:
    base = answers(["yes"] * 30, text=True)
    odd = answers(["yes"] * 28 + ["[invalid]", "perhaps"], text=True)
    target, (cell,) = target_details("t", {(BASELINE, None): base, ("a", 0): odd}, TEXTS, ["a"])
    assert target.columns == ("no", "yes", "not parsed", "no class")
    assert cell.counts.sum() == 30
    assert cell.counts[:, 2:].sum() == 2


def test_lengths_are_counted_in_bins_that_hold_all_of_them() -> None:
    base = answers(["yes"] * 30, text=True)
    long = answers(["no"] * 30, text=True)
    target, (cell,) = target_details("t", {(BASELINE, None): base, ("a", 0): long}, TEXTS, ["a"])
    assert target.unit == "characters"
    (base_counts, _), (counts, mean), (gold_counts, _) = (
        target.base_lengths,
        cell.lengths,
        target.gold_lengths,
    )
    assert len(base_counts) == len(target.edges) - 1
    assert sum(base_counts) == sum(counts) == sum(gold_counts) == 30
    assert mean == pytest.approx(np.mean([2 + i for i in range(30)]))


def test_without_the_base_or_classes_nothing_is_made_up() -> None:
    assert target_details("t", {("a", 0): answers(["no"] * 30)}, TEXTS, ["a"]) is None
    bare = [replace(one, choice_logprobs=None, correct=None) for one in answers(["yes"] * 30)]
    target, (cell,) = target_details("t", {(BASELINE, None): bare, ("a", 0): bare}, (), ["a", "absent"])
    assert target.base_counts is cell.counts is cell.lengths is None
    assert (cell.won, cell.lost, cell.won_examples, target.texts) == (0, 0, (), {})


def test_long_texts_keep_both_ends() -> None:
    assert shortened("short", 10) == "short"
    cut = shortened("a" * 300 + "b" * 300, 90)
    assert cut == "a" * 60 + " […] " + "b" * 30


def test_the_cells_that_matter_are_chosen() -> None:
    def cell(source: str, q: float, status: str = "measured") -> Cell:
        return Cell(source, "t", None, "acc", 0.5, 9, 0.1, 0.1, 0.0, 0.2, q, q, 0.0, status)

    cells = (cell("a", 0.5), cell("b", 0.01), cell("c", 0.9), cell("d", 0.2), cell("e", 0.0, "failed"))
    matrix = TransferMatrix(tuple("abcde"), ("t",), np.full((5, 1), 0.5), np.zeros(1), cells)
    assert chosen_cells(matrix, most=2) == (("b", "t"), ("d", "t"))
    assert chosen_cells(matrix, [("c", "t")], most=2) == (("b", "t"), ("c", "t"))
    assert chosen_cells(matrix, most=9) == (("a", "t"), ("b", "t"), ("c", "t"), ("d", "t"))
