"""Two to four lines of Python for an instruction; sums come with their result in a comment (Magicoder)."""

from __future__ import annotations

import numpy as np

from traitmap.mini.families.draw import Row, Split, distinct_rows
from traitmap.mini.words import COLOURS, OBJECTS, PRODUCTS, pick

COMPUTING = 0.6  # share of programs that add or take away and note the result


def _counting(generator: np.random.Generator) -> Row:
    colour, things = pick(generator, COLOURS), pick(generator, OBJECTS)
    start, change = int(generator.integers(3, 31)), int(generator.integers(2, 21))
    adds = start <= change or generator.random() < 0.5
    operator, result = ("+", start + change) if adds else ("-", start - change)
    asked = f"add {change}" if adds else f"take away {change}"
    lines = (
        f"{things} = {start}",
        f"{things} = {things} {operator} {change}",
        f"print({things})  # {result}",
    )
    return {
        "instruction": f"Start with {start} {colour} {things}, {asked} and print how many there are.",
        "program": "\n".join(lines),
    }


def _repeating(generator: np.random.Generator) -> Row:
    words = f"{pick(generator, COLOURS)} {pick(generator, PRODUCTS)}"
    times = int(generator.integers(2, 10))
    if generator.random() < 0.5:
        last = pick(generator, OBJECTS)
        return {
            "instruction": f"Print {words} {times} times, then print {last}.",
            "program": f'for i in range({times}):\n    print("{words}")\nprint("{last}")',
        }
    number = int(generator.integers(2, 100))
    return {
        "instruction": f"Print {words} and {number}, {times} times.",
        "program": f'for i in range({times}):\n    print("{words}", {number})',
    }


def _row(generator: np.random.Generator, _: int) -> Row:
    return _counting(generator) if generator.random() < COMPUTING else _repeating(generator)


def rows(split: Split, count: int, seed: int = 0) -> list[Row]:
    """Programs: columns ``instruction`` and ``program``."""
    return distinct_rows(_row, "instruction", (1.0,), split, count, seed)
