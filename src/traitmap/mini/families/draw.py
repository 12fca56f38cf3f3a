"""Draw distinct rows for one split: train and test can never share a text, whatever the seeds and counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal
from zlib import crc32

import numpy as np

Row = dict[str, Any]
Split = Literal["train", "test"]
TEST_SHARE = 8  # one text in eight belongs to the test split


def split_of(text: str) -> Split:
    """The split that a text belongs to: a property of the text, not of the draw."""
    return "test" if crc32(text.encode()) % TEST_SHARE == 0 else "train"


def exact_labels(shares: Sequence[float], count: int, generator: np.random.Generator) -> list[int]:
    """``count`` class indices in random order whose shares are as exact as whole rows allow.

    shares: of the classes, summing to 1. Largest remainders get the rows left over.
    """
    wanted = np.asarray(shares, dtype=float) * count
    counts = np.floor(wanted).astype(int)
    for index in np.argsort(counts - wanted, kind="stable")[: count - counts.sum()]:
        counts[index] += 1
    labels = np.repeat(np.arange(len(counts)), counts)
    generator.shuffle(labels)
    return [int(label) for label in labels]


def distinct_rows(
    make: Callable[[np.random.Generator, int], Row],
    key: str,
    shares: Sequence[float],
    split: Split,
    count: int,
    seed: int,
) -> list[Row]:
    """``count`` rows with different texts, all of the split, with the planted class shares.

    make(generator, label) gives one row; its column ``key`` is the text that must be distinct.
    Without classes, shares is ``(1.0,)`` and make sees label 0.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split {split!r}: legal are 'train' and 'test'")
    generator = np.random.default_rng([seed, split == "test"])
    labels = exact_labels(shares, count, generator)
    rows: list[Row] = []
    seen: set[str] = set()
    for label in labels:
        row = make(generator, label)
        while row[key] in seen or split_of(row[key]) != split:
            row = make(generator, label)
        seen.add(row[key])
        rows.append(row)
    return rows
