"""Run the embedded study at several seeds and hold what traitmap finds against what was planted.

    python benchmarks/mini_planted.py 0 1 2        about two minutes a seed on one core

Each seed is a study of its own, as `make demo` runs it. What was planted stands in ``TRUTHS``: what should be
found, the command that shows it, and the function that reads it out of the records, with no judging by eye.
It goes to benchmarks/results/mini-planted.json, of which docs/mini_tables.py makes tables for docs/mini.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from math import ceil
from pathlib import Path
from typing import Any

from record import conditions, save

import traitmap as tm
from traitmap.analysis.verdicts import GAINS, LOSSES
from traitmap.api.answers import verdicts
from traitmap.api.runs import contamination_in
from traitmap.mini.families import FAMILIES
from traitmap.wording import estimate, related

RESULTS = Path(__file__).parent / "results" / "mini-planted.json"
FALSE = 0.05  # share of clean calls that may be false at q < .05
LEARNT, CLEAN = 9, 10  # tasks that must be learnt, effects between tasks that must be clean
ONE_ANSWER = 0.9  # share of one answer from which an adapter has collapsed onto it


@dataclass(frozen=True)
class Finished:
    """One run with everything that is read out of it."""

    run: tm.Run
    matrix: tm.TransferMatrix
    verdicts: Any
    explanation: Any
    contamination: Any


Found = tuple[bool, str]  # whether it is right, and the figures


def linked(source: str, target: str) -> bool:
    """Whether two families share content or answer words, as they were planted; numbers are answer words."""
    one, other = FAMILIES[source], FAMILIES[target]
    numbers = all(
        "sums" in family.content or any(label.isdigit() for label in family.labels) for family in (one, other)
    )
    return bool(one.content & other.content or set(one.labels) & set(other.labels) or numbers)


def wrong_labels(done: Finished) -> Found:
    """The score on stars falls with the share of wrong labels."""
    return _curve(
        done.explanation.families.curves, "falls", sources=("stars", "stars_mislabelled"), target="stars"
    )


def class_shares(done: Finished) -> Found:
    """More reviews are called positive where more of the training rows are."""
    return _curve(
        done.explanation.families.answered,
        "rises",
        sources=("reviews_balanced", "reviews"),
        target="reviews_balanced",
        measure="answers positive",
    )


def output_length(done: Finished) -> Found:
    """Answers are longer where those of the training rows are."""
    return _curve(
        done.explanation.families.answered,
        "rises",
        sources=("word_problems_short", "word_problems"),
        target="word_problems_written",
        measure="tokens",
    )


def _curve(curves: Any, verdict: str, **fields: Any) -> Found:
    """The only curve with these fields, and whether it goes as planted beyond noise."""
    (curve,) = (one for one in curves if all(getattr(one, name) == value for name, value in fields.items()))
    low, high = curve.response.effects[0], curve.response.effects[-1]
    words = f"{low.value:.3g} to {high.value:.3g}, {curve.response.verdict}, {related('q', curve.q)}"
    return curve.response.verdict == verdict and curve.q < 0.05, words


def lexicon(done: Finished) -> Found:
    """Balanced reviews bring long reviews a clean gain, and no source without words in common does.

    Balanced ones, since the class shares that are planted beside the lexicon are evened out in them.
    """
    cell = done.verdicts.of("reviews_balanced", "long_reviews")
    strangers = [
        one.source
        for one in done.verdicts.transfers
        if one.target == "long_reviews" and one.kind in GAINS and not linked(one.source, one.target)
    ]
    words = f"{estimate(cell.gain)}, {cell.kind}" + (f"; so do {', '.join(strangers)}" if strangers else "")
    return cell.kind in GAINS and cell.gain.low > 0 and not strangers, words


def answer_words(done: Finished) -> Found:
    """Balanced reviews gain less where the same long reviews are judged in other words."""
    return _curve(
        done.explanation.families.curves,
        "falls",
        sources=("long_reviews", "long_reviews_words"),
        target="reviews_balanced",
    )


def alike_in_answer_words(done: Finished) -> str:
    """What the fit over all pairs says of answer words, as figures: no criterion (docs/log.md)."""
    (pairs,) = (one for one in done.explanation.joint if one.name == "answer words")
    words = f"{estimate(pairs.effect, 2)} SD, {related('q', pairs.q)}, {pairs.verdict}"
    return words + (f", rests on {', '.join(pairs.rests_on)}" if pairs.rests_on else "")


def nothing_else(done: Finished) -> Found:
    """No property of pairs is called a cause that is none, and none with the wrong sign.

    What rests on one pair or source is not called, as in the report.
    """
    planted = {"output length", "class balance", "answer words", "content"}
    called = [one for one in done.explanation.joint if one.stands]
    wrong = [
        f"{one.name} {one.effect.value:+.2f}"
        for one in called
        if one.name not in planted or one.effect.value < 0
    ]
    return not wrong, ", ".join(wrong) or "none"


def unlinked(done: Finished) -> Found:
    """No clean gain between tasks that share neither answer words nor content, but for one call in twenty.

    Calls are all cells called clean, gains and losses; what is left of a twenty counts as one.
    """
    pairs = [
        cell
        for cell in done.verdicts.transfers
        if cell.target in FAMILIES and not linked(cell.source, cell.target)
    ]
    wrong = [f"{cell.source} on {cell.target} {estimate(cell.gain)}" for cell in pairs if cell.kind in GAINS]
    words = f"{len(wrong)} of {len(pairs)} pairs" + (f": {', '.join(wrong)}" if wrong else "")
    calls = sum(cell.kind in (*GAINS, *LOSSES) for cell in done.verdicts.transfers)
    return len(wrong) <= ceil(FALSE * calls), words


def no_overlap(done: Finished) -> Found:
    """No test item stands in training rows, whole or nearly."""
    touched = sum(len(one.touched) for one in done.contamination.overlaps)
    return not touched, f"{touched} of {sum(done.contamination.items.values())} items"


def learnt(done: Finished) -> Found:
    """Tasks that their own training split lifts beyond noise, without one answer to everything."""
    tasks = [target for target in done.matrix.targets if target in FAMILIES]
    missed = []
    for cell in (done.verdicts.of(task, task) for task in tasks):
        answers = tm.query(
            done.run,
            "SELECT prediction, gold FROM outcomes WHERE choice_logprobs IS NOT NULL "
            f"AND source = '{cell.source}' AND target = '{cell.target}'",
        )
        shares = [answers[column].value_counts(normalize=True).max() for column in ("prediction", "gold")]
        if not (cell.improvement > 0 and cell.q < 0.05) or shares[0] > max(ONE_ANSWER, shares[1]):
            missed.append(cell.target)
    words = f"{len(tasks) - len(missed)} of {len(tasks)}" + (f", not {', '.join(missed)}" if missed else "")
    return len(tasks) - len(missed) >= LEARNT, words


def clean_transfer(done: Finished) -> Found:
    """Effects between tasks that no control explains away."""
    kinds = [cell.kind for cell in done.verdicts.transfers]
    gains, losses = (sum(kind in names for kind in kinds) for names in (GAINS, LOSSES))
    return gains + losses >= CLEAN and gains > 0 and losses > 0, f"{gains} gains, {losses} losses"


@dataclass(frozen=True)
class Truth:
    """What was planted, what should be found of it, the command that shows it, and who reads the records."""

    planted: str
    expected: str
    command: str
    read: Callable[[Finished], Found]


EXPLAIN, MATRIX = "`traitmap explain`", "`traitmap matrix`"
TRUTHS = (
    Truth(
        "wrong labels: stars_mislabelled has the rows of stars and no label right",
        "its score on stars falls",
        f"{EXPLAIN}, controlled changes",
        wrong_labels,
    ),
    Truth(
        "class shares: .80 of reviews are positive, a third of reviews_balanced; a quarter tell nothing",
        "share of `positive` on balanced reviews rises",
        f"{EXPLAIN}, controlled changes",
        class_shares,
    ),
    Truth(
        "output length: word_problems_short ends after six words",
        "tokens of written answers rise with it",
        f"{EXPLAIN}, controlled changes",
        output_length,
    ),
    Truth(
        "shared lexicon: reviews_balanced and long_reviews judge by the same words",
        "a clean gain of long_reviews by it, and by no source without common words",
        MATRIX,
        lexicon,
    ),
    Truth(
        "shared answer words: long_reviews_words says low and high where long_reviews and reviews say "
        "negative and positive",
        "what it brings balanced reviews falls",
        f"{EXPLAIN}, controlled changes",
        answer_words,
    ),
    Truth("no other cause", "no other property of pairs is called", f"{EXPLAIN}, WHY", nothing_else),
    Truth("pairs without a link", "no clean gain but for the calls that q < .05 lets be", MATRIX, unlinked),
    Truth("other things and people in training and test rows", "no overlap", MATRIX, no_overlap),
    Truth("ten tasks that can be learnt", f"{LEARNT} or more learnt", MATRIX, learnt),
    Truth("transfer", f"{CLEAN} or more clean effects of both signs", MATRIX, clean_transfer),
)


def finished(run: tm.Run) -> Finished:
    """Everything that the truths are read from."""
    matrix = run.matrix()
    return Finished(run, matrix, verdicts(run, matrix=matrix), run.explain(), contamination_in(run.folder))


def record(done: Finished) -> dict[str, Any]:
    """What a seed's tables are drawn from: each truth with its figures, and every cell with its verdict."""
    found = {truth.planted: truth.read(done) for truth in TRUTHS}
    return {
        "truths": {name: {"right": right, "found": words} for name, (right, words) in found.items()},
        "alike in answer words": alike_in_answer_words(done),
        "base": {
            name: float(value) for name, value in zip(done.matrix.targets, done.matrix.baseline, strict=True)
        },
        "cells": [
            {
                "source": cell.source,
                "target": cell.target,
                "kind": cell.kind,
                "gain": cell.gain.value,
                "low": cell.gain.low,
                "high": cell.gain.high,
                "unit": cell.unit,
            }
            for cell in done.verdicts.cells
        ],
    }


def main() -> None:
    """Run every seed, read the truths and write them; other seeds of the file stay."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("seeds", type=int, nargs="+")
    parser.add_argument("--output", type=Path, default=Path("runs"))
    parser.add_argument("--records", type=Path, default=RESULTS)
    options = parser.parse_args()
    study = tm.load_study(Path(str(files("traitmap.mini"))) / "study.yaml")
    truths = [
        {"planted": truth.planted, "expected": truth.expected, "command": truth.command} for truth in TRUTHS
    ]
    known = json.loads(options.records.read_text()) if options.records.exists() else {}
    seeds = known["seeds"] if known.get("truths") == truths else {}
    for seed in options.seeds:
        run = tm.run(study.model_copy(update={"seeds": (seed,)}), output=options.output / f"seed-{seed}")
        seeds[str(seed)] = record(finished(run))
        save(options.records, {**conditions(), "truths": truths, "seeds": seeds})
        for name, found in seeds[str(seed)]["truths"].items():
            verdict = "right" if found["right"] else "MISSED"
            print(f"seed {seed}: {verdict}: {name}: {found['found']}", flush=True)


if __name__ == "__main__":
    main()
