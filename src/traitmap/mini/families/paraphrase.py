"""Do two sentences of the same words say the same? Half of the time somebody has changed places (PAWS)."""

from __future__ import annotations

import numpy as np

from traitmap.mini.families.draw import Row, Split, distinct_rows
from traitmap.mini.words import COLOURS, NAMES, OBJECTS, PLACES, pick, pick_two

LABELS = ("no", "yes")
SHARES = (0.56, 0.44)

# The first and the second of each pair say the same of {a} and {b}; {c} and {d} go with them.
PATTERNS = (
    ("{a} gave the {c} {thing} to {b} in the {place}.", "In the {place} {a} gave the {c} {thing} to {b}."),
    ("{a} walked from the {place} to meet {b}.", "To meet {b}, {a} walked from the {place}."),
    ("{a} sold {b} a {c} bag in the {place}.", "In the {place} {a} sold {b} a {c} bag."),
    ("{a} is older than {b}, who has {c} {thing}.", "{b}, who has {c} {thing}, is younger than {a}."),
)


def _row(generator: np.random.Generator, label: int) -> Row:
    first, second = PATTERNS[int(generator.integers(len(PATTERNS)))]
    a, b = pick_two(generator, NAMES)
    words = {
        "c": pick(generator, COLOURS),
        "thing": pick(generator, OBJECTS),
        "place": pick(generator, PLACES),
    }
    if generator.random() < 0.5:
        first, second = second, first
    one = first.format(a=a, b=b, **words)
    swapped = {"a": a, "b": b} if label else {"a": b, "b": a}
    two = second.format(**swapped, **words)
    return {"first": one, "second": two, "pair": f"{one} {two}", "label": label}


def rows(split: Split, count: int, seed: int = 0) -> list[Row]:
    """Pairs: columns ``first``, ``second``, ``pair`` and ``label`` (index into LABELS; 1 = the same)."""
    return distinct_rows(_row, "pair", SHARES, split, count, seed)
