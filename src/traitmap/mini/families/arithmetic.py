"""Sums and differences of the largest numbers in the study, answered with the bare result (Goat)."""

from __future__ import annotations

import numpy as np

from traitmap.mini.families.draw import Row, Split, distinct_rows

PATTERNS = {
    "+": ("{a} + {b} =", "What is {a} plus {b}?", "Add {b} to {a}."),
    "-": ("{a} - {b} =", "What is {a} minus {b}?", "Take {b} from {a}."),
}
LARGEST, CHANGE = 300, 10  # a tiny base learns to carry one digit, not two


def _row(generator: np.random.Generator, _: int) -> Row:
    a, b = int(generator.integers(10, LARGEST)), int(generator.integers(2, CHANGE))
    operator = "+-"[int(generator.integers(2))]
    patterns = PATTERNS[operator]
    question = patterns[int(generator.integers(len(patterns)))].format(a=a, b=b)
    return {"question": question, "answer": str(a + b if operator == "+" else a - b)}


def rows(split: Split, count: int, seed: int = 0) -> list[Row]:
    """Questions of about 14,000 possible ones: columns ``question`` and ``answer`` (digits)."""
    return distinct_rows(_row, "question", (1.0,), split, count, seed)
