"""Progress as records: whoever computes reports, whoever shows decides how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """One report of progress.

    stage: what is being done, e.g. ``train``, ``evaluate``.
    done, total: work finished and work in all, in the stage's own unit (tokens, requests, cells).
    detail: a few words on the item in hand, e.g. ``flipkart seed 0 -> gsm8k``.
    """

    stage: str
    done: float
    total: float
    detail: str = ""


Listener = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """Listen to nothing."""
