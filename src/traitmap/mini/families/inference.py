"""Does the second sentence follow from the first? Yes, maybe or no (MNLI)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from traitmap.mini.families.draw import Row, Split, distinct_rows
from traitmap.mini.words import PLACES, pick, with_articles, words_of

LABELS = ("yes", "maybe", "no")
SHARES = (1 / 3, 1 / 3, 1 / 3)
NEGATION = 0.5  # share of "no" pairs whose hypothesis carries a negation; no other pair does


class Doing(NamedTuple):
    """What somebody does, what follows from it, and what cannot be true at the same time."""

    does: str
    follows: str
    excludes: str


DOINGS = (
    Doing("plays the guitar", "makes music", "sits in silence"),
    Doing("plays the drums", "makes music", "sits in silence"),
    Doing("sings a song", "makes music", "sits in silence"),
    Doing("runs fast", "moves", "stands still"),
    Doing("walks slowly", "moves", "stands still"),
    Doing("rides a bicycle", "moves", "stands still"),
    Doing("sleeps", "rests", "works hard"),
    Doing("lies in the sun", "rests", "works hard"),
    Doing("digs a hole", "works", "sleeps"),
    Doing("carries heavy boxes", "works", "sleeps"),
    Doing("repairs a car", "works", "sleeps"),
    Doing("eats an apple", "has food", "has nothing to eat"),
    Doing("eats warm soup", "has food", "has nothing to eat"),
    Doing("cuts fresh bread", "has food", "has nothing to eat"),
    Doing("talks to a friend", "has company", "is alone"),
    Doing("dances with a friend", "has company", "is alone"),
)
WHO = (
    ("man", "person"),
    ("woman", "person"),
    ("farmer", "person"),
    ("doctor", "person"),
    ("teacher", "person"),
    ("soldier", "person"),
    ("boy", "child"),
    ("girl", "child"),
    ("pupil", "child"),
    ("baby", "child"),
)
LOOKS = words_of("young old tall short tired happy quiet busy thin strong")
UNSAID = (
    "for money",
    "for the first time",
    "every day",
    "because of a bet",
    "before breakfast",
    "with a brother",
    "to win a prize",
    "after a long journey",
)


def _hypothesis(generator: np.random.Generator, label: int, doing: Doing, who: str) -> str:
    if LABELS[label] == "yes":
        return f"A {who} {doing.follows}."
    if LABELS[label] == "maybe":
        return f"A {who} {doing.follows} {pick(generator, UNSAID)}."
    if generator.random() < NEGATION:
        return f"Nobody {doing.follows}."
    return f"The {who} {doing.excludes}."


def _row(generator: np.random.Generator, label: int) -> Row:
    doing = DOINGS[int(generator.integers(len(DOINGS)))]
    narrow, broad = WHO[int(generator.integers(len(WHO)))]
    who = broad if generator.random() < 0.7 else narrow
    premise = with_articles(
        f"A {pick(generator, LOOKS)} {narrow} {doing.does} in the {pick(generator, PLACES)}."
    )
    hypothesis = _hypothesis(generator, label, doing, who)
    return {
        "premise": premise,
        "hypothesis": hypothesis,
        "pair": f"{premise} {hypothesis}",
        "label": label,
    }


def rows(split: Split, count: int, seed: int = 0) -> list[Row]:
    """Pairs: columns ``premise``, ``hypothesis``, ``pair`` and ``label`` (index into LABELS)."""
    return distinct_rows(_row, "pair", SHARES, split, count, seed)
