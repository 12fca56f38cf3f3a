"""Log-likelihood requests made ready for passes: what every adapter is asked alike, worked out once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from traitmap.engine.passes import Row
from traitmap.engine.prefixes import Prefix, shared_prefixes
from traitmap.engine.questions import Question, Wanted, row_of, wanted_of
from traitmap.engine.rectangles import Rectangles, plan_rectangles

Batch = tuple[int, ...]


@dataclass(frozen=True)
class Rows:
    """Questions as rows of passes, and of each batch that was computed once what does not change.

    homes: the prefix that each row stands behind, or None.
    """

    questions: tuple[Question, ...]
    rows: tuple[Row, ...]
    homes: tuple[int | None, ...]
    _rectangles: dict[Batch, Rectangles] = field(default_factory=dict)
    _wanted: dict[Batch, Wanted] = field(default_factory=dict)

    @cached_property
    def lengths(self) -> list[int]:
        return [len(row.ids) for row in self.rows]

    def rectangles(self, batch: Sequence[int]) -> Rectangles:
        """The pass over rows of a batch by themselves."""
        key = tuple(batch)
        if key not in self._rectangles:
            self._rectangles[key] = plan_rectangles([self.rows[index] for index in batch])
        return self._rectangles[key]

    def wanted(self, batch: Sequence[int]) -> Wanted:
        """What is read off the logits of a batch."""
        key = tuple(batch)
        if key not in self._wanted:
            self._wanted[key] = wanted_of([self.questions[index] for index in batch])
        return self._wanted[key]


@dataclass(frozen=True)
class Asked:
    """All questions of one call: those by themselves, those behind prefixes, and the prefixes."""

    alone: Rows
    behind: Rows
    prefixes: tuple[Prefix, ...]

    @property
    def tokens(self) -> int:
        return sum(self.alone.lengths) + sum(self.behind.lengths) + sum(len(one.ids) for one in self.prefixes)


def asked_of(questions: Sequence[Question], *, shared: bool) -> Asked:
    """Rows of all questions; shared: whether what many contexts begin with stands apart, as a prefix."""
    # the last token of a context stays out: its own logits are read
    heads = [question.context[:-1] for question in questions] if shared else []
    prefixes, homes = shared_prefixes(heads)
    homes = homes if shared else [None] * len(questions)
    alone = [question for question, home in zip(questions, homes, strict=True) if home is None]
    pairs = [(q, home) for q, home in zip(questions, homes, strict=True) if home is not None]
    pairs.sort(key=lambda pair: (pair[1], -len(pair[0].context)))
    return Asked(
        Rows(tuple(alone), tuple(row_of(question) for question in alone), (None,) * len(alone)),
        Rows(
            tuple(question for question, _ in pairs),
            tuple(row_of(question, prefixes[home].stop) for question, home in pairs),
            tuple(home for _, home in pairs),
        ),
        tuple(prefixes),
    )
