"""Short product reviews in three classes: four in five positive, or the same balanced (Flipkart)."""

from __future__ import annotations

import numpy as np

from traitmap.mini.families.draw import Row, Split, distinct_rows
from traitmap.mini.words import NEGATIVE, PARTS, PLAIN, POSITIVE, PRODUCTS, pick, pick_two, with_articles

LABELS = ("negative", "neutral", "positive")
SHARES = (0.12, 0.08, 0.80)
BALANCED_SHARES = (1 / 3, 1 / 3, 1 / 3)
LEXICON = (NEGATIVE, PLAIN, POSITIVE)
CONTRAST = 0.2  # share of reviews that grant one thing of the opposite class before the verdict

PATTERNS = (
    "The {product} is {first} and the {part} feels {second}.",
    "{First} {product}, {second} {part}.",
    "Bought this {product} in May: {first}, with a {second} {part}.",
    "My new {product} looks {first}. The {part} is {second} too.",
    "A {first} {product}. The {part} seems {second}.",
    "We have used the {product} for a week and the {part} is {first}. All in all {second}.",
)
CONTRASTS = (
    "The {other} is {granted}, but the {product} is {first} and the {part} {second}.",
    "Yes, a {granted} {other}. Still, this {product} is {first} and the {part} {second}.",
)


def _row(generator: np.random.Generator, label: int) -> Row:
    part, other = pick_two(generator, PARTS)
    first, second = pick_two(generator, LEXICON[label])
    contrast = label != 1 and generator.random() < CONTRAST
    text = pick(generator, CONTRASTS if contrast else PATTERNS).format(
        product=pick(generator, PRODUCTS),
        part=part,
        other=other,
        first=first,
        First=first.capitalize(),
        second=second,
        granted=pick(generator, LEXICON[2 - label]),
    )
    return {"text": with_articles(text), "label": label}


def rows(split: Split, count: int, seed: int = 0) -> list[Row]:
    """Reviews with the shop's class shares: columns ``text`` and ``label`` (index into LABELS)."""
    return distinct_rows(_row, "text", SHARES, split, count, seed)


def balanced_rows(split: Split, count: int, seed: int = 0) -> list[Row]:
    """The same reviews in equal shares."""
    return distinct_rows(_row, "text", BALANCED_SHARES, split, count, seed)
