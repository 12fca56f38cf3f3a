"""Sums and differences of the largest numbers in the study, answered with the bare result (Goat)."""

from __future__ import annotations

import numpy as np

from traitmap.mini.families.draw import Row, Split, distinct_rows

PATTERNS = {
    "+": ("{a} + {b} =", "What is {a} plus {b}?", "Add {b} to {a}."),
    "-": ("{a} - {b} =", "What is {a} minus {b}?", "Take {b} from {a}."),
}
LARGEST = 500


def _row(generator: np.random.Generator, _: int) -> Row:
    a, b = int(generator.integers(10, LARGEST)), int(generator.integers(10, 100))
    operator = "+-"[int(generator.integers(2))]
    if operator == "-" and b > a:
        a, b = b, a
    patterns = PATTERNS[operator]
    question = patterns[int(generator.integers(len(patterns)))].format(a=a, b=b)
    return {"question": question, "answer": str(a + b if operator == "+" else a - b)}


def rows(split: Split, count: int, seed: int = 0) -> list[Row]:
    """Questions of about 270,000 possible ones: columns ``question`` and ``answer`` (digits)."""
    return distinct_rows(_row, "question", (1.0,), split, count, seed)
