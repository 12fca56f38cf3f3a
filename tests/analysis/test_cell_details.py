"""Details of single cells: counts add up, draws are of what was won and lost, long texts keep both ends."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from traitmap.analysis.cells import chosen_cells, shortened, side_by_side, target_details
from traitmap.data.records import Outcome
from traitmap.data.texts import TaskText
from traitmap.matrix.record import Cell, TransferMatrix
from traitmap.matrix.statistics import paired_interval
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
    found = target_details("t", outcomes, TEXTS, ["a"])
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
    assert target.items == tuple(range(30))
    assert list(target.texts) == [(f"question {i}", gold) for i, gold in enumerate(GOLD)]
    assert target.base_answers == ("yes",) * 30
    # where seeds differ, each answer with the number of seeds that gave it
    assert cell.answers == ("no",) * 15 + ("no ×1 · yes ×1",) * 15


def test_all_items_are_shown_or_a_draw_that_fits() -> None:
    outcomes = {
        (BASELINE, None): answers(["yes"] * 30),
        ("a", 0): answers(["no"] * 30),
        ("b", 0): answers(["no"] * 30),
    }
    asked = [TaskText("word " * 20, gold, ("no", "yes")) for gold in GOLD]
    whole, cells = target_details("t", outcomes, asked, ["a", "b"])
    assert len(whole.items) == whole.total == 30
    size = 99 + 3 + 3 + 2 + 2  # of one item: the question, the right answer (at most), three answers
    cut, cells = target_details("t", outcomes, asked, ["a", "b"], room=25 * size)
    assert 25 <= len(cut.items) < 30
    assert list(cut.items) == sorted(set(cut.items))
    assert len(cut.texts) == len(cut.base_answers) == len(cells[0].answers) == len(cut.items)
    again, _ = target_details("t", outcomes, asked, ["a", "b"], room=25 * size, seed=1)
    assert again.items != cut.items
    least, _ = target_details("t", outcomes, asked, ["a", "b"], room=0)
    assert (len(least.items), least.total) == (20, 30)


def crossed(scores: list[list[float]], seeds: int = 1) -> TransferMatrix:
    """A matrix of one target from the scores of its base and sources, the same for every seed."""
    table = np.repeat(np.array(scores)[:, None], seeds, axis=1)
    names = tuple("abcdef"[: len(scores) - 1])
    values = table.mean(axis=(1, 2))
    return TransferMatrix(names, ("t",), values[1:, None], values[:1], item_scores={"t": table})


def test_two_side_by_side_differ_as_their_items_do() -> None:
    rng = np.random.default_rng(0)
    scores = (rng.random((4, 200)) < [[0.3], [0.5], [0.6], [0.6]]).astype(float)
    scores[3] = scores[2]  # the same on every item
    sides = side_by_side(crossed(scores.tolist()))["t"]
    assert np.array_equal(sides.scores, scores)
    assert sides.gain[2, 1] == pytest.approx(scores[2].mean() - scores[1].mean())
    wins, losses = ((scores[2] > scores[1]).sum(), (scores[2] < scores[1]).sum())
    low, high = paired_interval(np.array([wins], float), np.array([losses], float), 200)
    assert (sides.low[2, 1], sides.high[2, 1]) == (pytest.approx(low[0]), pytest.approx(high[0]))
    assert np.allclose(sides.gain, -sides.gain.T, equal_nan=True)
    assert np.allclose(sides.low, -sides.high.T, equal_nan=True)
    assert sides.low[3, 2] <= 0 <= sides.high[3, 2]
    # seeds that repeat an existing adapter are no further evidence
    repeated = side_by_side(crossed(scores.tolist(), seeds=3))["t"]
    assert np.allclose(repeated.low, sides.low, equal_nan=True)
    # what is unknown stays so, and takes nobody with it
    scores[1] = np.nan
    holed = side_by_side(crossed(scores.tolist()))["t"]
    assert np.isnan(holed.gain[1]).all()
    assert holed.gain[2, 0] == pytest.approx(sides.gain[2, 0])


def test_of_many_pairs_those_with_the_base_are_compared() -> None:
    scores = np.random.default_rng(0).integers(0, 2, (5, 40)).astype(float).tolist()
    few = side_by_side(crossed(scores), most_pairs=9)["t"]
    assert np.isfinite(few.low[1:, 0]).all()
    assert np.isnan(few.low[1:, 1:]).all()
    assert side_by_side(crossed(scores), most_scores=199) == {}
    assert set(side_by_side(crossed(scores), most_scores=200)) == {"t"}


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
    assert (cell.won, cell.lost, target.labels) == (0, 0, ())
    assert set(target.texts) == {("", "yes"), ("", "no")}


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
