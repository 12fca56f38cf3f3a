"""Courses of checkpointed sources: planted turns are found, level ones are not, chosen steps are covered."""

import json
from dataclasses import replace

import numpy as np
import pytest

from planted import answered
from traitmap.analysis.checkpoints import checkpoint_courses, checkpoints_in, choose_step
from traitmap.errors import MatrixError
from traitmap.matrix.record import Array, Cell, TransferMatrix
from traitmap.matrix.statistics import paired_changes

STEPS = (2, 4, 6, 8, 10, 30, 60, 100)


def course(shares: Array, base: float = 0.4, *, named: str = "s", **told) -> TransferMatrix:
    """One training, kept at the first steps of ``STEPS``. shares: (K, T) of right answers."""
    shares = np.atleast_2d(shares)
    matrix = answered(shares, np.full(shares.shape[1], base), **told)
    steps = STEPS[-len(shares) :]
    rows = (*(f"{named}@{step}" for step in steps[:-1]), named)
    of = dict(zip(matrix.sources, rows, strict=True))
    made = {
        row: {"variation": {"kind": "checkpoint", "parents": [named], "dose": step, "parent_dose": steps[-1]}}
        for row, step in zip(rows[:-1], steps[:-1], strict=True)
    }
    cells = []
    for target, scores in matrix.item_scores.items():
        for place, row in enumerate(rows):
            differences = scores[1 + place] - scores[0]
            (change,) = paired_changes([differences], binary=True)
            nan = float("nan")
            numbers = (change.difference.value, change.difference.low, change.difference.high, change.p, nan)
            mean = float(scores[1 + place].mean())
            items = scores.shape[2]
            cells.append(Cell(row, target, None, "acc", mean, items, nan, *numbers, 0.0, "measured"))
    each = [replace(cell, source=of[cell.source]) for cell in matrix.cells]
    conditions = {**matrix.conditions, "sources": {row: made.get(row, {}) for row in rows}}
    return replace(matrix, sources=rows, cells=(*cells, *each), conditions=conditions)


def shares(*curve: float) -> Array:
    return np.array(curve)[:, None]


def test_rows_are_known_by_their_steps_and_the_source_stands_last() -> None:
    matrix = course(shares(0.5, 0.6, 0.7, 0.6), items=50)
    assert checkpoints_in(matrix) == {"s": {"s@10": 10, "s@30": 30, "s@60": 60, "s": 100}}
    assert checkpoints_in(replace(matrix, conditions={})) == {}


@pytest.mark.parametrize(
    ("curve", "verdict"),
    [
        ((0.5, 0.75, 0.7, 0.5), "turns"),
        ((0.5, 0.75, 0.4, 0.2), "turns"),
        ((0.4, 0.35, 0.25, 0.2), "turns"),
        ((0.2, 0.2, 0.2, 0.2), "falls"),
        ((0.5, 0.6, 0.7, 0.7), "holds"),
        ((0.4, 0.4, 0.4, 0.4), "cannot tell"),
    ],
)
def test_a_planted_course_is_called_what_it_is(curve: tuple[float, ...], verdict: str) -> None:
    found = checkpoint_courses(course(shares(*curve), items=500, seeds=2, seed=3)).courses[0]
    assert found.verdict == verdict
    assert (found.items, found.seeds, found.unit) == (500, 2, "points")
    best = max(curve[:-1])
    assert found.lost.low < 100 * (best - curve[-1]) < found.lost.high
    assert found.end.low < 100 * (curve[-1] - 0.4) < found.end.high


def test_where_lower_is_better_the_course_is_turned() -> None:
    matrix = course(shares(0.5, 0.15, 0.3, 0.5), items=500, seed=3)
    lower = {**matrix.conditions, "higher_is_better": {"target000": False}}
    found = checkpoint_courses(replace(matrix, conditions=lower)).courses[0]
    assert (found.verdict, found.peak) == ("turns", 30)
    assert found.gains[1].low > 0
    assert found.lost.low > 0
    assert found.end.value < 0


def test_the_sentence_of_a_turn_has_peak_loss_and_what_is_left() -> None:
    found = checkpoint_courses(course(shares(0.5, 0.75, 0.5, 0.2), items=500, seed=3)).courses[0]
    assert found.peaks == (30,)
    assert "turns: " in found.words
    assert "at step 30" in found.words
    assert "are lost by step 100; below the base by then" in found.words


def test_level_courses_are_seldom_called_although_the_best_step_is_looked_at() -> None:
    """The largest of three differences crosses a single 95 % interval more often than once in twenty."""
    called, naive, draws = 0, 0, 150
    for draw in range(draws):
        matrix = course(shares(0.5, 0.5, 0.5, 0.5), 0.5, items=120, seed=draw)
        found = checkpoint_courses(matrix).courses[0]
        called += found.verdict != "cannot tell"
        scores = matrix.item_scores["target000"][1:, 0]
        peak = scores[:3].mean(axis=1).argmax()
        (change,) = paired_changes([scores[peak][None] - scores[3]], binary=True)
        naive += change.difference.low > 0
    assert called <= 0.05 * draws
    assert naive > called


def test_the_interval_of_the_step_that_is_chosen_covers_its_true_mean() -> None:
    covered, draws = 0, 150
    for draw in range(draws):
        matrix = course(np.full((8, 2), 0.5), 0.4, items=80, shared_difficulty=0.0, seed=draw)
        choice = checkpoint_courses(matrix).choices[0]
        mean = choice.means[choice.rows.index(choice.kept)]
        covered += mean.low <= 10 <= mean.high
    assert covered >= 0.93 * draws


def test_steps_of_one_training_are_compared_within_their_seeds() -> None:
    """A seed that moves the whole training does not hide what every seed loses."""
    generator = np.random.default_rng(0)
    matrix = course(shares(0.5, 0.5, 0.5, 0.5), items=600, seeds=3, seed=1)
    scores = matrix.item_scores["target000"].copy()
    for seed, level in enumerate((0.3, 0.6, 0.9)):
        right = generator.random(600) < level
        scores[1:, seed] = right
        lost = generator.choice(np.flatnonzero(right), 60 + 6 * seed, replace=False)
        scores[4, seed, lost] = 0
    found = checkpoint_courses(replace(matrix, item_scores={"target000": scores})).courses[0]
    assert found.lost.low > 0
    assert found.verdict == "turns"


def test_what_to_keep_follows_the_targets_that_are_asked_and_spares_those_to_be_kept() -> None:
    curve = np.array([[0.5, 0.4], [0.8, 0.35], [0.6, 0.2], [0.5, 0.1]])
    matrix = course(curve, items=500, seed=5)
    assert checkpoint_courses(matrix, targets=["target000"]).choices[0].kept == "s@30"
    assert checkpoint_courses(matrix, targets=["target001"]).choices[0].kept == "s@10"
    spared = checkpoint_courses(matrix, targets=["target000"], keep=["target001"], margin=2).choices[0]
    assert set(spared.harmful) >= {"s@60", "s"}
    assert spared.kept in ("s@10", "s@30")
    clear = checkpoint_courses(matrix, targets=["target000"]).choices[0]
    assert clear.alike == ()
    assert clear.over_end.low > 0
    assert clear.words.startswith("keep s@30: the highest mean over 1 target")


def test_a_known_evaluation_loss_decides_among_those_without_harm() -> None:
    matrix = course(shares(0.5, 0.6, 0.7, 0.6), items=100)
    steps = checkpoints_in(matrix)["s"]
    choice = choose_step(
        matrix,
        "s",
        steps,
        ["target000"],
        harmful={"s": "harms x"},
        losses={"s": 0.1, "s@10": 0.2, "s@60": 0.3},
    )
    assert choice.kept == "s@10"
    assert "lowest evaluation loss (0.2) without a harm" in choice.words


def test_questions_that_cannot_be_answered_say_so() -> None:
    matrix = course(shares(0.5, 0.6), items=100)
    with pytest.raises(MatrixError, match="'nothing' is not a target"):
        checkpoint_courses(matrix, targets=["nothing"])
    with pytest.raises(MatrixError, match="no source has checkpoints"):
        checkpoint_courses(replace(matrix, conditions={}))
    without_items = replace(matrix, item_scores={})
    assert checkpoint_courses(without_items).courses == ()
    assert checkpoint_courses(without_items).choices[0].kept is None


def test_the_record_is_plain_json_and_a_frame_of_steps() -> None:
    found = checkpoint_courses(course(np.full((3, 2), 0.5), items=60))
    told = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert [entry["target"] for entry in told["courses"]] == ["target000", "target001"]
    assert told["choices"][0]["words"] == found.choices[0].words
    assert found.to_frame()["step"].tolist() == [30, 60, 100] * 2
