"""The answer to a query, and what can be cleaned away, as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType

from traitmap.report.blocks import Blocks, words
from traitmap.report.tables import in_bytes
from traitmap.report.wording import UNKNOWN, counted

if TYPE_CHECKING:
    from traitmap.runs.waste import Waste

_MOST = 40  # characters of an entry


def answer_table(
    heads: Sequence[str], rows: Iterable[Sequence[Any]], *, more: bool = False
) -> RenderableType:
    """Rows of an answer; its first column names them. more: there are rows that are not shown."""
    shown = [tuple(_entry(value) for value in row) for row in rows]
    table = Blocks(
        heads[0], tuple(heads[1:]), tuple((words(row[0]), tuple(map(words, row[1:]))) for row in shown)
    )
    if more:
        return Group(table, words(f"The first {len(shown)} rows. --csv, --json and --parquet give all."))
    return Group(table, words(counted(len(shown), "row") + "."))


def waste_table(found: Sequence[Waste], *, deleted: bool) -> RenderableType:
    """What nothing needs, by kind, with its size."""
    if not found:
        return words("Nothing to remove: the study needs all that is here.")
    kinds = dict.fromkeys(one.kind for one in found)
    rows = []
    for kind in kinds:
        own = [one for one in found if one.kind == kind]
        rows.append((words(kind), (words(str(len(own))), words(in_bytes(sum(one.bytes for one in own))))))
    lines = [words(f"{one.path}  {in_bytes(one.bytes)}  {one.why}") for one in found]
    total = in_bytes(sum(one.bytes for one in found))
    end = f"Removed {total}." if deleted else f"Nothing was removed. --delete removes these {total}."
    return Group(*lines, words(""), Blocks("", ("entries", "size"), tuple(rows)), words(end))


def _entry(value: Any) -> str:
    if value is None or (isinstance(value, float) and not isfinite(value)):
        return UNKNOWN
    if isinstance(value, float):
        text = f"{value:.6g}"
    elif isinstance(value, list):
        text = ", ".join(_entry(one) for one in value)
    else:
        text = " ".join(str(value).split())
    return text if len(text) <= _MOST else text[: _MOST - 1] + "…"
