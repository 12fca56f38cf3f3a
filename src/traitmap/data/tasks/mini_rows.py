"""Rows of the embedded study for its task files (``custom_dataset: !function mini_rows.rows``): no file."""

from __future__ import annotations

from functools import lru_cache
from math import log
from typing import Any

from datasets import Dataset, DatasetDict

from traitmap.mini.families import FAMILIES, SPLITS

ROWS = {"train": 2400, "validation": 200, "test": 400}


def rows(family: str, seed: int = 0, **_: Any) -> DatasetDict:
    """All splits of one family: 2,400 training, 200 validation and 400 test rows.

    lm-eval passes the task's ``dataset_kwargs`` (family, seed) and its metadata, which are not needed.
    """
    return _splits(family, seed)


@lru_cache(maxsize=32)
def _splits(family: str, seed: int) -> DatasetDict:
    """A source and a target of one family, and their check, ask for the same rows."""
    make = FAMILIES[family].rows
    return DatasetDict({split: Dataset.from_list(make(split, ROWS[split], seed)) for split in SPLITS})


def of_answer(doc: dict[str, Any], results: list[tuple[float, bool]]) -> dict[str, float]:
    """Minus the bits per byte of the right answer: how well it is expected by a base too small to give it."""
    answer = doc.get("answer") or doc["program"]
    return {"negative_bits_per_byte": results[0][0] / log(2) / len(answer.encode())}
