"""Long film reviews, negative or positive (IMDB): some sentences speak against the verdict."""

from __future__ import annotations

import numpy as np

from traitmap.mini.families.draw import Row, Split, distinct_rows
from traitmap.mini.words import FILM_PARTS, FILMS, NAMES, NEGATIVE, PLACES, POSITIVE, pick, with_articles

LABELS = ("negative", "positive")
SHARES = (0.5, 0.5)
AGAINST = 0.25  # share of opinion sentences that speak against the verdict

OPENINGS = (
    "I saw this {film} with {name} last night.",
    "{name} took me to a {film} about a {place}.",
    "A {film} set in a {place}, two hours long.",
    "Everybody talks about this {film}, so {name} and I went.",
)
OPINIONS = (
    "The {part} is {word}.",
    "I found the {part} {word}.",
    "What a {word} {part}.",
    "Even the {part} was {word}.",
    "{name} called the {part} {word}.",
)
FILLERS = (
    "Most of it happens in a {place}.",
    "{name} plays the lead.",
    "It was shot near a {place}.",
)


def _row(generator: np.random.Generator, label: int) -> Row:
    lexicon = (NEGATIVE, POSITIVE)
    opinions = int(generator.integers(4, 6))
    against = min(int(generator.binomial(opinions, AGAINST)), (opinions - 1) // 2)
    sides = [label] * (opinions - against) + [1 - label] * against
    generator.shuffle(sides)
    patterns = [pick(generator, OPENINGS)] + [pick(generator, OPINIONS) for _ in sides]
    words = [""] + [pick(generator, lexicon[side]) for side in sides]
    place = int(generator.integers(1, len(patterns)))
    patterns.insert(place, pick(generator, FILLERS))
    words.insert(place, "")
    parts = generator.permutation(FILM_PARTS)
    text = " ".join(
        pattern.format(
            film=pick(generator, FILMS),
            name=pick(generator, NAMES),
            place=pick(generator, PLACES),
            part=parts[index],
            word=word,
        )
        for index, (pattern, word) in enumerate(zip(patterns, words, strict=True))
    )
    return {"text": with_articles(text), "label": label}


def rows(split: Split, count: int, seed: int = 0) -> list[Row]:
    """Film reviews: columns ``text`` and ``label`` (index into LABELS)."""
    return distinct_rows(_row, "text", SHARES, split, count, seed)
