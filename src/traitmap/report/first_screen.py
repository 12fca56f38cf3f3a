"""The first screen: the answer of a matrix on a terminal and at the top of the page, and lines like its own.

Everything that is said stands in the record (``analysis.answer``); here it is laid out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table as Grid

from traitmap.analysis.answer_words import targets_table, unclean_table
from traitmap.analysis.verdicts import GLYPHS, Verdicts
from traitmap.matrix.reading import PREDICTED, Reading, matrix_table
from traitmap.table import Entry, Row, Table, to_terminal, words
from traitmap.wording import clean, typeset

if TYPE_CHECKING:
    from traitmap.analysis.answer import Answer

MOST_UNCLEAN = 40  # rows of the page's list of gains and losses that are something else


def lines_view(lines: Sequence[tuple[str, str]]) -> RenderableType:
    """Lines with their headings in a column of their own; long ones go on beneath themselves."""
    grid = Grid.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for heading, text in lines:
        grid.add_row(words(heading, "bold"), words(text))
    return grid


def first_screen_view(answer: Answer) -> RenderableType:
    """What was compared, the five lines, and the table of the targets."""
    return Group(
        words(answer.title, "bold"),
        lines_view(answer.lines),
        words(""),
        to_terminal(targets_table(answer)),
    )


def page_answer(answer: Answer) -> dict[str, Any]:
    """What the top of the page shows: the lines, the table, and what is something else."""
    return {
        "lines": [(heading.capitalize(), typeset(clean(f"{text}."))) for heading, text in answer.lines],
        "table": targets_table(answer),
        "unclean": len(answer.unclean),
        "unclean_table": unclean_table(answer, MOST_UNCLEAN),
        "doubts": answer.doubts,
    }


def verdict_table(reading: Reading, verdicts: Verdicts) -> Table:
    """The matrix with the sign of its verdict behind each gain, in place of marks of tests and overlaps."""
    table = matrix_table(reading)
    if not reading.has_base:
        return table
    rows: list[Row] = [table.rows[0]]
    used = set()
    for source, row in zip(reading.sources, table.rows[1:], strict=True):
        entries: list[Entry | str] = [row[0]]
        for target, entry in zip(reading.targets, row[1:], strict=True):
            assert isinstance(entry, Entry)
            kind = verdicts.of(source, target.name).kind
            nothing = kind == "within noise" or (kind == "unknown" and not entry.mark.startswith("*"))
            if entry.mark and not entry.mark.startswith(PREDICTED):
                used |= set() if nothing else {kind}
                entry = replace(entry, mark=" " if nothing else GLYPHS[kind])
            entries.append(entry)
        rows.append(entries)
    key = ", ".join(f"{glyph} {kind}" for kind, glyph in GLYPHS.items() if kind in used)
    note = "; ".join(
        part for part in table.notes[0].rstrip(".").split("; ") if not part.startswith(("* q", "! test"))
    )
    first = f"{note}; {key}." if key else f"{note}."
    return replace(table, rows=rows, notes=(first, *table.notes[1:]))
