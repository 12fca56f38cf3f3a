"""One model on one task, as a file of another harness tells it, with all that must agree in a column."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import nan
from typing import Any

from traitmap.data.records import Outcome
from traitmap.data.texts import TaskText
from traitmap.errors import MatrixError
from traitmap.imports.reading import named_numbers


@dataclass(frozen=True)
class Evaluation:
    """One model on one task by one metric.

    place: the file and key that it was read from, for messages. kind: the format.
    model: the base model's name; adapter: the adapter's, or None for a model as it is.
    value: the metric, NaN where the file has none. stderr: NaN where unknown. n: items, 0 where unknown.
    higher_is_better: None where the file does not say.
    setting: what has to be the same for all rows of a column: ``num_fewshot``, ``limit``, ``version``,
        ``template`` and the like. None is a value (no limit); what the file does not tell is not in it.
    outcomes: one per item in the order of the items; empty where the file has no samples.
    texts: what the items say, aligned with ``outcomes``; empty where the file does not tell.
    seed: of the training, where the file tells it, so that adapters of one source are pooled.
    date: sortable; of two evaluations of the same thing the later one counts.
    """

    place: str
    kind: str
    model: str
    adapter: str | None
    task: str
    metric: str
    filter: str
    value: float
    stderr: float = nan
    n: int = 0
    higher_is_better: bool | None = None
    setting: Mapping[str, Any] = field(default_factory=dict)
    outcomes: tuple[Outcome, ...] = ()
    texts: tuple[TaskText, ...] = ()
    seed: int | None = None
    date: str = ""


def known_setting(**setting: Any) -> dict[str, Any]:
    """A setting without what is not known: for all but these keys None is a value. NaN counts as a word."""
    unknown_if_none = ("num_fewshot", "version", "template", "items", "library", "generation")
    return {
        key: named_numbers(one)
        for key, one in setting.items()
        if one is not None or key not in unknown_if_none
    }


class UnfinishedError(MatrixError):
    """A log of an evaluation that failed or still runs: left out of a folder, an error by itself."""
