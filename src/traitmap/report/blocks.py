"""A wide table for the terminal: split into blocks of columns that fit, plain where it is piped."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from traitmap.report.svg import clean

_NAME_MOST = 24
_HEAD_MOST = 11


def words(text: str, style: str = "") -> Text:
    """Text as it is: names may hold brackets, which Rich would take for markup. Padding stays unstyled."""
    return Text.assemble((clean(text), style))


@dataclass(frozen=True)
class Blocks:
    """head: of the row names; heads: of the columns; rows: (name, entries). Fits the console's width."""

    head: str
    heads: tuple[str, ...]
    rows: tuple[tuple[Text, tuple[Text, ...]], ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        names = min(_NAME_MOST, max([len(self.head), *(name.cell_len for name, _ in self.rows)]))
        widths = [self._width(column) for column in range(len(self.heads))]
        for first, last in split(widths, options.max_width - names):
            if first:
                yield Text("")
            yield self._block(console, names, widths, first, last)

    def _width(self, column: int) -> int:
        """Entries are never broken; a long head is folded, between its words where it can be."""
        entries = max((row[column].cell_len for _, row in self.rows), default=0)
        longest = max(map(len, _pieces(self.heads[column])), default=0)
        return max(entries, min(longest, _HEAD_MOST), 4)

    def _block(self, console: Console, names: int, widths: Sequence[int], first: int, last: int) -> Table:
        table = plain_table(console)
        table.add_column(words(self.head), width=names, overflow="fold", vertical="bottom")
        for column in range(first, last):
            table.add_column(
                words(fold(self.heads[column], widths[column])),
                width=widths[column],
                justify="right",
                overflow="fold",
            )
        for name, entries in self.rows:
            table.add_row(name, *entries[first:last])
        return table


def plain_table(console: Console) -> Table:
    """A table with a ruled head on a terminal, and with spaces alone in a pipe."""
    return Table(
        box=box.SIMPLE_HEAD if console.is_terminal else None,
        pad_edge=False,
        padding=(0, 1, 0, 0) if console.is_terminal else (0, 1),
        header_style="bold",
        show_edge=False,
    )


def fold(head: str, width: int) -> str:
    """Lines of a head that break after ``_``, ``-``, ``.``, ``:`` and spaces where the width allows it."""
    lines = [""]
    for piece in _pieces(head):
        if lines[-1] and len(lines[-1]) + len(piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return "\n".join(line.rstrip() for line in lines)


def _pieces(head: str) -> list[str]:
    return re.findall(r"[^_\-.: ]*[_\-.: ]+|[^_\-.: ]+", clean(head))


def split(widths: Sequence[int], room: int) -> Iterator[tuple[int, int]]:
    """Ranges of columns that fit beside the names; each column costs its width and the gap before it."""
    first, used = 0, 0
    for column, width in enumerate(widths):
        cost = width + 2
        if column > first and used + cost > room:
            yield first, column
            first, used = column, 0
        used += cost
    if first < len(widths):
        yield first, len(widths)
