"""What a run on a budget spent of the whole run's price, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType

from traitmap.report.blocks import Blocks, words
from traitmap.report.wording import UNKNOWN


def spending_table(spent: Mapping[str, Any]) -> RenderableType:
    """Adapters, cells, items and both prices: spent, in full, and the share."""
    items = spent["items"].values()
    counts = (
        ("adapters", *spent["adapters"]),
        ("cells with the base's", *spent["cells"]),
        ("items of a cell, mean", *(sum(one[at] for one in items) / len(items) for at in (0, 1))),
        ("training tokens", *spent["training"]),
        ("evaluation tokens", *spent["evaluation"]),
    )
    rows = tuple(
        (words(name), tuple(words(text) for text in (f"{used:,.0f}", f"{whole:,.0f}", _share(used, whole))))
        for name, used, whole in counts
    )
    rounds = "; ".join(", ".join(one) if one else "cells only" for one in spent["rounds"])
    return Group(
        Blocks("", ("spent", "in full", "share"), rows),
        words(f"Trained in this order: {rounds or 'nothing'}."),
        words(f"{spent['seconds']:.0f} s. {_rest(spent['reason'])}"),
    )


def _rest(reason: str) -> str:
    if reason:
        return f"Nothing is predicted: {reason}."
    return "The other cells are predicted; `traitmap matrix` marks them."


def _share(used: float, whole: float) -> str:
    return f"{100 * used / whole:.1f} %" if whole else UNKNOWN
