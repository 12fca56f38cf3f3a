"""Rows of the embedded study for its task files (``custom_dataset: !function mini_rows.rows``): no file."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from datasets import Dataset, DatasetDict

from traitmap.mini.families import FAMILIES

TRAIN_ROWS = 2400
TEST_ROWS = 400


def rows(family: str, seed: int = 0, **_: Any) -> DatasetDict:
    """Both splits of one family, 2,400 training and 400 test rows.

    lm-eval passes the task's ``dataset_kwargs`` (family, seed) and its metadata, which are not needed.
    """
    return _splits(family, seed)


@lru_cache(maxsize=32)
def _splits(family: str, seed: int) -> DatasetDict:
    """A source and a target of one family, and their check, ask for the same rows."""
    make = FAMILIES[family].rows
    return DatasetDict(
        train=Dataset.from_list(make("train", TRAIN_ROWS, seed)),
        test=Dataset.from_list(make("test", TEST_ROWS, seed)),
    )
