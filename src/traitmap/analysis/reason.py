"""A reason in words, for an odd cell or a recommendation, with what stands behind it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reason:
    """One reason.

    kind: a stable word for machines (``length``, ``class_prior``, ``syntax``, ``format``, ...).
    words: the reason with its numbers, for people.
    strength: comparable between reasons of one list, larger is stronger; sign says for or against
        where there is such a thing.
    significant: after correction for all tests of its family; None where no test was made.
    """

    kind: str
    words: str
    strength: float
    significant: bool | None = None
