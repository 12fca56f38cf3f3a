"""Verdicts of an audit on simulated answers: what is planted is named, what is not there is not found."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isfinite

import numpy as np
import pytest
from defusedxml import ElementTree

from planted import matrix_of as matrix_of_values
from traitmap.analysis.audit import Audit, audit_rows
from traitmap.analysis.audit_context import (
    agreement_in_words,
    checkpoint_to_keep,
    instruments_in_words,
    moved_along,
)
from traitmap.analysis.audit_questions import Question, corrected
from traitmap.analysis.verdicts import cell_verdicts
from traitmap.data.records import Outcome
from traitmap.data.texts import TaskText
from traitmap.matrix.record import Cell, TransferMatrix
from traitmap.matrix.statistics import Interval, paired_gain
from traitmap.report.audit import LINES, audit_csv, audit_junit, audit_lines, audit_markdown, audit_page

WORDS = ("red", "green", "blue")


def chosen(gold: Sequence[int], said: Sequence[int]) -> list[Outcome]:
    """Answers of a task with three choices."""
    return [
        Outcome(n, str(n), float(g == s), bool(g == s), WORDS[s], WORDS[g],
                choice_logprobs=tuple(-0.1 if at == s else -3.0 for at in range(3)))
        for n, (g, s) in enumerate(zip(gold, said, strict=True))
    ]  # fmt: skip


def written(
    right: Sequence[bool], text: str = "4", stopped: bool = True, parsed: bool = True, tokens: int = 3
) -> list[Outcome]:
    return [
        Outcome(
            n,
            str(n),
            float(r),
            bool(r),
            "4",
            "4",
            text=text,
            stopped=stopped,
            parsed=parsed,
            output_tokens=tokens,
        )
        for n, r in enumerate(right)
    ]


def matrix_of(
    outcomes: Mapping[str, Mapping[str, list[Outcome]]], lower: Sequence[str] = ()
) -> TransferMatrix:
    """A matrix (S, T) of outcomes by target and row, the base under an empty name."""
    targets = tuple(outcomes)
    sources = tuple(name for name in next(iter(outcomes.values())) if name)
    scores = {
        target: np.array([[[o.score for o in by_row[name]]] for name in ("", *sources)])
        for target, by_row in outcomes.items()
    }
    cells, base_cells = [], []
    for target in targets:
        values = scores[target].mean(axis=(1, 2))
        n = scores[target].shape[2]
        base_cells.append(cell("__baseline__", target, values[0], n))
        for s, source in enumerate(sources):
            difference = (scores[target][1 + s] - scores[target][0])[None]
            gain, low, high, p = (float(part[0]) for part in paired_gain(difference, binary=True))
            cells.append(cell(source, target, values[1 + s], n, gain, low, high, p))
    return TransferMatrix(
        sources=sources,
        targets=targets,
        values=np.array([[scores[t][1 + s].mean() for t in targets] for s in range(len(sources))]),
        baseline=np.array([scores[t][0].mean() for t in targets]),
        cells=tuple(cells),
        base_cells=tuple(base_cells),
        item_scores=scores,
        chance=np.array([1 / 3 if o[""][0].choice_logprobs else np.nan for o in outcomes.values()]),
        conditions={"higher_is_better": {target: target not in lower for target in targets}},
    )


def cell(source: str, target: str, value: float, n: int, gain=0.0, low=np.nan, high=np.nan, p=np.nan) -> Cell:
    return Cell(source, target, None, "acc", float(value), n, 0.01, gain, low, high, p, p, 0.0, "measured")


def audit_of(outcomes, *, fail_on=None, lower=()) -> Audit:
    matrix = matrix_of(outcomes, lower)

    def answers(target):
        return {(name if name else "__baseline__", None): rows for name, rows in outcomes[target].items()}

    texts = {
        target: tuple(TaskText(f"{target} {n}", "x") for n in range(len(by[""])))
        for target, by in outcomes.items()
    }
    rows, questions = audit_rows(matrix, cell_verdicts(matrix), answers, texts=texts, fail_on=fail_on)
    return Audit("test", "base", ("ours",), rows, questions, 1 - 0.05 / questions, fail_on, seconds=1.0)


def answers(generator: np.random.Generator, n: int, skill: float) -> tuple[np.ndarray, np.ndarray]:
    gold = generator.integers(0, 3, n)
    return gold, np.where(generator.random(n) < skill, gold, generator.integers(0, 3, n))


def test_intervals_are_bonferroni_s_and_hold_for_all_questions_together():
    """A pair of models that exchange answers at random is called changed in at most one audit of twenty."""
    generator, false, audits = np.random.default_rng(1), 0, 200
    for _ in range(audits):
        outcomes = {}
        for t in range(6):
            gold, first = answers(generator, 80, 0.7)
            second = np.where(generator.random(80) < 0.3, generator.integers(0, 3, 80), first)
            swap = generator.random(80) < 0.5  # exchangeable: no change by construction
            outcomes[f"t{t}"] = {
                "": chosen(gold, np.where(swap, second, first)),
                "row": chosen(gold, np.where(swap, first, second)),
            }
        false += audit_of(outcomes).verdict != "no change seen"
    assert false <= 0.05 * audits
    # the same intervals at the usual level would not hold together
    level, binary = 1 - 0.05 / 6, True
    difference = np.where(np.arange(100) < 15, -1.0, np.where(np.arange(100) < 20, 1.0, 0.0))[None]
    wide, *_ = corrected(difference, level, binary=binary)
    narrow, *_ = corrected(difference, 0.95, binary=binary)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_planted_harms_are_named():
    generator = np.random.default_rng(2)
    outcomes = {}
    for target in ("first", "second", "third"):
        gold, base = answers(generator, 150, 0.8)
        outcomes[target] = {
            "": chosen(gold, base),
            "permuted": chosen(gold, (base + 1) % 3 if target == "first" else base),
            "forgot": chosen(gold, generator.integers(0, 3, 150)),
            "same": chosen(gold, base),
            "endless": chosen(gold, base),
            "refusing": chosen(gold, base),
        }
    right = generator.random(150) < 0.6
    outcomes["sums"] = {
        "": written(right),
        "permuted": written(right),
        "forgot": written(np.zeros(150, bool)),
        "same": written(right),
        "endless": written(right, stopped=False, tokens=90),
        "refusing": written(np.zeros(150, bool), text="I'm sorry, I cannot help.", parsed=False),
    }
    found = {row.name: row for row in audit_of(outcomes).rows}
    names = {name: {finding.name for finding in row.findings} for name, row in found.items()}
    assert names["permuted"] == {"labels permuted"}
    assert "red for blue" in found["permuted"].findings[0].words
    assert names["forgot"] == {"forgetting"}
    assert names["same"] == set()
    assert names["endless"] == {"never stops"}
    assert {"refuses", "unreadable"} <= names["refusing"]
    assert [found[name].verdict for name in found] == [
        "harmed",
        "harmed",
        "no change seen",
        "harmed",
        "harmed",
    ]
    item = found["permuted"].items[0]
    assert (item.target, item.lost) == ("first", True)
    assert item.before == item.gold != item.after


def test_a_base_below_guessing_is_no_permutation_of_the_row_s_making():
    generator = np.random.default_rng(6)
    gold, base = answers(generator, 200, 0.8)
    wrong = (base + 1) % 3  # the base itself has its labels mixed up
    outcomes = {"task": {"": chosen(gold, wrong), "row": chosen(gold, wrong)}}
    assert audit_of(outcomes).rows[0].findings == ()


def test_cannot_tell_says_how_many_items_would_and_these_do():
    generator = np.random.default_rng(3)

    def audited(n: int) -> Audit:
        outcomes = {}
        for target in ("one", "two"):
            gold, base = answers(generator, n, 0.8)
            noisy = np.where(generator.random(n) < 0.06, generator.integers(0, 3, n), base)
            outcomes[target] = {"": chosen(gold, base), "row": chosen(gold, noisy)}
        return audit_of(outcomes, fail_on=8.0)

    small = audited(60)
    assert small.verdict == "cannot tell"
    assert small.exit_code == 5
    needed = max(question.items_to_settle(8.0) or 0 for question in small.rows[0].questions)
    assert str(f"{needed:,} items needed") in small.rows[0].words
    assert needed > 60
    assert audited(4 * needed).verdict in (
        "no change seen",
        "changed",
    )  # reach shrinks as the root of the items
    assert audited(4 * needed).exit_code == 0


@pytest.mark.parametrize("loss", [0.0, 0.08, 0.15])
def test_as_many_items_as_cannot_tell_names_do_tell(loss):
    """Of rows that lose so much, with 6 % of items changed besides, at ``fail_on`` 5: most."""
    generator, fail_on, level = np.random.default_rng(0), 5.0, 1 - 0.05 / 11

    def asked(n: int) -> Question:
        place = generator.random(n)
        differences = np.where(place < loss + 0.03, -1.0, np.where(place < loss + 0.06, 1.0, 0.0))
        tested = corrected(differences[None], level, binary=True).scaled(100)
        ends = 80.0, 80 + tested.change.value
        return Question(
            "task",
            "task",
            "points",
            *ends,
            tested.change,
            1,
            n,
            tested.smallest,
            tested.called(1),
            tested.scatter,
        )

    def settled(question: Question) -> bool:
        called = question.called == "worse" and -question.improvement >= fail_on
        return called or question.worst <= fail_on

    small = [question for question in (asked(60) for _ in range(200)) if not settled(question)]
    needed = [question.items_to_settle(fail_on) for question in small]
    again = [settled(asked(n)) for n in needed if n is not None and n < 1e6]
    assert len(again) > 100
    assert np.mean(again) > 0.7


def test_a_loss_counts_from_fail_on_on_and_a_small_clear_one_is_a_change():
    gold = np.zeros(2000, int)
    base, row = gold.copy(), gold.copy()
    row[:80] = 1  # four points, clear
    outcomes = {"task": {"": chosen(gold, base), "row": chosen(gold, row)}}
    assert audit_of(outcomes).exit_code == 4
    assert audit_of(outcomes, fail_on=3.0).exit_code == 4
    tolerated = audit_of(outcomes, fail_on=8.0)
    assert (tolerated.verdict, tolerated.exit_code) == ("changed", 0)
    lower = audit_of(outcomes, lower=["task"])  # a score that ought to fall
    assert (lower.verdict, lower.rows[0].questions[0].called) == ("changed", "better")


def test_what_was_not_measured_is_no_clean_bill():
    gold, base = answers(np.random.default_rng(4), 50, 0.8)
    outcomes = {"task": {"": chosen(gold, base), "row": chosen(gold, base)}}
    matrix = matrix_of(outcomes)
    scores = {"task": np.concatenate([matrix.item_scores["task"][:1], np.full((1, 1, 50), np.nan)])}
    failed = tuple(
        Cell("row", "task", None, "acc", np.nan, 0, *[np.nan] * 7, "failed", "memory ran out")
        for _ in range(1)
    )

    matrix = replace(matrix, item_scores=scores, cells=failed, values=np.array([[np.nan]]))
    rows, _ = audit_rows(matrix, cell_verdicts(matrix), lambda _: {}, texts={})
    assert rows[0].verdict == "cannot tell"
    assert "not measured" in rows[0].words
    assert not isfinite(rows[0].questions[0].change.value)


@pytest.fixture(scope="module")
def several() -> Audit:
    return audit_of(outcomes_of_several())


def outcomes_of_several():
    generator = np.random.default_rng(5)
    outcomes = {}
    for target in ("a", "b", "c", "d"):
        gold, base = answers(generator, 100, 0.7)
        outcomes[f"<{target}>"] = {"": chosen(gold, base)} | {
            f"checkpoint-{step}": chosen(gold, np.where(generator.random(100) < step / 400, 0, base))
            for step in (10, 100, 400)
        }
    outcomes["sum"] = {
        name: written(generator.random(100) < 0.5)
        for name in ("", "checkpoint-10", "checkpoint-100", "checkpoint-400")
    }
    return outcomes


def test_every_form_says_the_same_and_nothing_in_it_can_run(several):
    lines = audit_lines(several, width=80)
    assert len(lines) <= LINES
    assert all(len(line) <= 80 for line in lines)
    page = audit_page(several)
    assert "<a>" not in page
    assert "&lt;a&gt;" in page
    assert page.count("<script") == 1  # the one that the page's policy names
    markdown = audit_markdown(several)
    suites = ElementTree.fromstring(audit_junit(several))
    failures = suites.findall("testsuite/testcase/failure")
    for row in several.rows:
        assert row.words[:40] in " ".join(" ".join(lines).split()) or len(several.rows) > 3
        assert row.name in markdown
        assert row.name in page
    worse = sum(len(row.clear("worse")) for row in several.rows)
    harmed = sum(row.verdict == "harmed" for row in several.rows)
    assert len(failures) == worse + harmed > 0
    table = audit_csv(several).splitlines()
    assert len(table) == 1 + sum(len(row.questions) for row in several.rows)
    assert len({line.count(",") for line in table if '"' not in line}) == 1
    json.dumps(several.to_json(), allow_nan=False)


def test_the_checkpoint_to_keep_is_sound_first_then_the_trainer_s_or_the_best(several):
    assert several.rows[-1].verdict == "harmed"
    matrix = matrix_of(outcomes_of_several(), ())
    told = checkpoint_to_keep(
        matrix, several.rows, {"checkpoint-10": 2.0, "checkpoint-100": 1.5, "checkpoint-400": 1.0}
    )
    sound = [row.name for row in several.rows if row.verdict != "harmed"]
    assert told.startswith(
        f"keep {'checkpoint-100' if 'checkpoint-100' in sound else 'checkpoint-10'}: the lowest"
    )
    assert "checkpoint-400 is harmed" in told
    best = checkpoint_to_keep(matrix, several.rows, {})
    assert best.startswith(f"keep {sound[0]}: the highest mean over 5 targets")
    assert checkpoint_to_keep(matrix, several.rows[-1:], {}).startswith("none is without harm")


def test_a_row_is_held_against_known_traits_and_their_null(several):
    row = several.rows[-1]
    targets = ("<a>", "<b>", "<c>", "<d>", "elsewhere")
    changes = np.array([q.improvement for q in row.questions[:4]])
    along = np.append(changes, 0)[:, None] / np.linalg.norm(changes)
    (told,) = moved_along(row, targets, along, ["damage"])
    assert "damage up: cosine +1.00 over 4 targets" in told
    (opposite,) = moved_along(row, targets, -along, ["damage"])
    assert "damage down: cosine -1.00" in opposite
    assert moved_along(row, targets[:3], along[:3], ["damage"]) == ()


def test_instruments_that_contradict_each_other_are_told():
    gold = np.zeros(400, int)
    less, more = np.where(np.arange(400) < 120, 1, 0), np.where(np.arange(400) < 60, 1, 0)
    outcomes = {
        "toxic": {"": chosen(gold, more), "row": chosen(gold, less)},
        "bias": {"": chosen(gold, less), "row": chosen(gold, more)},
        "truth": {"": chosen(gold, more), "row": chosen(gold, less)},
    }
    (row,) = audit_of(outcomes).rows
    (told,) = agreement_in_words(row, dict.fromkeys(outcomes, "safety"))
    assert "1 of 3 instruments point to better, 2 to worse" in told
    assert "contradict each other" in told
    assert "bias better" in told
    assert agreement_in_words(row, {"toxic": "safety", "bias": "safety"}) == ()


@pytest.mark.parametrize(("n", "level"), [(40, 0.95), (40, 1 - 0.05 / 6), (200, 0.95), (400, 1 - 0.05 / 40)])
def test_an_effect_that_is_called_detectable_is_called_four_times_in_five(n, level):
    """Items that change all one way: such an effect is clear in 80 % of draws, half of it in fewer."""
    smallest = corrected(np.zeros((1, n)), level, binary=True).smallest
    generator = np.random.default_rng(0)

    def clear(effect: float) -> float:
        draws = (generator.random((600, 1, n)) < effect).astype(float)
        return float(np.mean([corrected(draw, level, binary=True).clear for draw in draws]))

    assert 0.75 <= clear(smallest) <= 0.95
    assert clear(smallest / 2) < 0.5


def test_few_items_cannot_be_clear_at_all():
    assert not np.isfinite(corrected(np.zeros((1, 5)), 1 - 0.05 / 6, binary=True).smallest)
    assert not corrected(np.ones((1, 5)), 1 - 0.05 / 6, binary=True).clear


def test_a_gain_that_is_no_skill_is_not_named_as_better(several):
    row = several.rows[0]
    gain = replace(row.questions[0], called="better", change=Interval(13.0, 4.6, 25.3))
    of = {
        words: replace(several, rows=(replace(row, questions=(replace(gain, words=words),)),))
        for words in ("", "collapse: answers 'no' to 100 % of the items")
    }
    skill, collapse = of.values()
    assert any(line.startswith("BETTER") for line in audit_lines(skill))
    assert not any(line.startswith("BETTER") for line in audit_lines(collapse))
    assert "| better (collapse) |" in audit_markdown(collapse)
    assert "better (collapse)" in audit_page(collapse)


@pytest.mark.parametrize("shared", [True, False])
def test_several_instruments_are_told_to_move_together_where_they_do(shared: bool) -> None:
    """Ten rows on four instruments and one task that is none: of one trait, or of none."""
    generator = np.random.default_rng(3)
    strength = generator.normal(size=(10, 1)) if shared else generator.normal(size=(10, 4))
    values = 0.5 + 0.1 * np.hstack([strength * np.ones((1, 4)), generator.normal(size=(10, 1))])
    values += 0.01 * generator.normal(size=values.shape)
    names = ["a", "b", "c", "d", "other"]
    matrix = matrix_of_values(values, [f"row{at}" for at in range(10)], names, baseline=np.full(5, 0.5))
    told = instruments_in_words(matrix, names[:4])
    assert told.startswith("over 10 rows the 4 safety tasks share ")
    assert ("share 1 trait (" in told) == shared
    assert ("none of them stands for another" in told) == (not shared)
    assert "other" not in told.replace("another", "")


def test_two_rows_or_two_instruments_have_no_traits() -> None:
    values = 0.5 + 0.1 * np.random.default_rng(0).normal(size=(2, 3))
    matrix = matrix_of_values(values, ["x", "y"], ["a", "b", "c"], baseline=np.full(3, 0.5))
    assert instruments_in_words(matrix, ["a", "b"]) == ""
    assert "cannot be told to move together" in instruments_in_words(matrix, ["a", "b", "c"])
