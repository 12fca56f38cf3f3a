"""What the task files beside this one share: which rows are asked, and how a program is judged."""

from collections.abc import Sequence
from typing import Any

HELD_OUT = 1000


def shuffled(docs: Any) -> Any:
    """All rows in one fixed random order: some datasets are sorted by class, and lm-eval takes the first."""
    return docs.shuffle(seed=0)


def held_out(docs: Any) -> Any:
    """The last rows of a dataset that has a training split only; the study's source leaves them out.

    ASSUMPTION: the file is in random order. `traitmap check` shows the first of these rows.
    """
    return docs.select(range(max(0, len(docs) - HELD_OUT), len(docs)))


def likeness(doc: dict, results: Sequence[str]) -> dict[str, float]:
    """chrF of the generated solution against the reference one, from 0 to 1 (Popovic 2015)."""
    from sacrebleu import sentence_chrf

    return {"chrf_of_solution": sentence_chrf(results[0], [doc["solution"]]).score / 100}
