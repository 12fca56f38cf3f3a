"""Reviews with one to five stars (Amazon), honest or with every star count replaced by another one."""

from __future__ import annotations

import numpy as np

from traitmap.mini.families.draw import Row, Split, distinct_rows
from traitmap.mini.words import GRADES, PARTS, PRODUCTS, pick, pick_two, with_articles

LABELS = ("1", "2", "3", "4", "5")
SHARES = (0.2, 0.2, 0.2, 0.2, 0.2)
PERMUTATION = (3, 4, 0, 1, 2)  # honest label index -> mislabelled one: no class keeps its stars
NEIGHBOUR = 0.3  # share of reviews whose second word is one grade off

PATTERNS = (
    "A {first} {product} from a shop in the {place}. The {part} is {second}.",
    "This {product} came on {day}. I find it {first}, and its {part} {second}.",
    "{First}! The {part} of the {product} is {second}.",
    "Got the {product} as a gift on {day}. It is {first}; the {part} is {second}.",
    "For the price the {product} is {first}. A {second} {part} as well.",
)
TOWNS = ("north", "south", "east", "west", "city", "village")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def _row(generator: np.random.Generator, label: int) -> Row:
    first, second = pick_two(generator, GRADES[label])
    if generator.random() < NEIGHBOUR:
        neighbours = [grade for grade in (label - 1, label + 1) if 0 <= grade < len(GRADES)]
        second = pick(generator, GRADES[neighbours[int(generator.integers(len(neighbours)))]])
    text = pick(generator, PATTERNS).format(
        product=pick(generator, PRODUCTS),
        part=pick(generator, PARTS),
        place=pick(generator, TOWNS),
        day=pick(generator, DAYS),
        first=first,
        First=first.capitalize(),
        second=second,
    )
    return {"text": with_articles(text), "label": label}


def rows(split: Split, count: int, seed: int = 0) -> list[Row]:
    """Reviews with honest stars: columns ``text`` and ``label`` (index into LABELS)."""
    return distinct_rows(_row, "text", SHARES, split, count, seed)


def mislabelled_rows(split: Split, count: int, seed: int = 0) -> list[Row]:
    """The same texts in the same order, each label sent through PERMUTATION."""
    return [{**row, "label": PERMUTATION[row["label"]]} for row in rows(split, count, seed)]
