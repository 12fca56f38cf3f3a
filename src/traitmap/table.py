"""One table for the terminal, the page, a notebook and a file.

Whoever has a record describes its table once: columns, rows of entries, a caption and notes. Four writers
show the same entries: :func:`to_terminal` (for Rich, in blocks of columns that fit), :func:`to_html` (the
page), :func:`to_notebook` (static HTML with inline styles that reads well on light and on dark) and
:func:`to_csv` (raw numbers, no marks). A column may be meant for some of them only: the page has room for
more than a terminal.

Names of datasets and their texts are other people's: the HTML writers escape them, and the terminal writer
takes out what would steer it. Nothing here computes, and nothing but the standard library is imported before
Rich is needed.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Literal

from traitmap.wording import UNKNOWN, clean, escaped, typeset

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table as RichTable
    from rich.text import Text

Medium = Literal["terminal", "page", "notebook"]

# What the words of an entry's style look like in a terminal.
STYLES = {
    "better": "bold cyan",
    "worse": "bold yellow",
    "in_domain": "underline",
    "strong": "bold",
    "faint": "dim",
    "predicted": "dim italic",
    "italic": "italic",
}
# What a test or a verdict stands behind; a notebook sets it in bold.
_STRONG = frozenset({"better", "worse", "strong"})
# A notebook shows so many rows and columns; the report shows all.
NOTEBOOK_MOST = 40


@dataclass(frozen=True)
class Column:
    """One column. head: its name; short: its name where lines are short (terminal, notebook), if another.

    media: where it is shown; empty for everywhere. lower: lower is better, which the head then says.
    """

    head: str
    short: str | None = None
    media: tuple[Medium, ...] = ()
    lower: bool = False

    def title(self, medium: Medium) -> str:
        """The head as ``medium`` shows it: short where lines are short, with the mark of the direction."""
        text = self.head if medium == "page" or self.short is None else self.short
        if self.lower:
            return f"{text} (lower)" if medium == "terminal" else f"{text} ↓"
        return text


@dataclass(frozen=True)
class Entry:
    """One entry. text: a number in words, or words; small: what stands beneath it on the page.

    mark: signs behind the text, such as ``*``; spaces in it keep the room of other marks in a terminal, HTML
    drops them, and CSV drops the mark. shade: -1 (worse) to 1 (better), 0 none. style: words of ``STYLES``,
    with spaces between them. title: shown where a notebook's entry is pointed at. value: the number, for CSV.
    """

    text: str
    small: str = ""
    mark: str = ""
    shade: float = 0.0
    style: str = ""
    title: str = ""
    value: float | str | None = None


# One row: an entry for each column, the row's name first; plain text will do.
Row = Sequence[Entry | str]


@dataclass(frozen=True)
class Table:
    """A table with the row names in its first column.

    caption: what the numbers are, on the page and for screen readers. columns: heads; plain text will do.
    rows: one entry for each column; plain text will do. notes: what the reader of a terminal must know.

    Raises ValueError where a row has not as many entries as there are columns.
    """

    caption: str
    columns: Sequence[Column | str]
    rows: Sequence[Row]
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"a row of {len(row)} entries in a table of {len(self.columns)} columns: {row}"
                )

    def shown(self, medium: Medium) -> tuple[list[Column], list[list[Entry]]]:
        """The columns of one medium and their entries, row by row."""
        columns = [column if isinstance(column, Column) else Column(column) for column in self.columns]
        places = [at for at, column in enumerate(columns) if not column.media or medium in column.media]
        rows = [
            [entry if isinstance(entry, Entry) else Entry(entry) for entry in (row[at] for at in places)]
            for row in self.rows
        ]
        return [columns[at] for at in places], rows


def to_csv(table: Table) -> str:
    """Heads and rows as CSV with line feeds, the columns that the page has.

    Entries that carry a number are written as it is, in the unit of the record, without marks; others as
    their text. What is unknown is empty.
    """
    columns, rows = table.shown("page")
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([column.head for column in columns])
    writer.writerows([_raw(entry) for entry in row] for row in rows)
    return file.getvalue()


def _raw(entry: Entry) -> float | str:
    if entry.value is None:
        return "" if entry.text == UNKNOWN else entry.text
    return "" if isinstance(entry.value, float) and not isfinite(entry.value) else entry.value


# The page.


def to_html(table: Table, key: str = "") -> str:
    """The table for the report's page, whose style sheet it follows.

    All text is escaped, and minus signs of numbers are typeset. Marks stand in elements of their own, so that
    the page's script finds the number without them. The caption also names the table for screen readers.
    key: the table's id in the page, for tables that the script filters and whose order the address holds.
    """
    columns, rows = table.shown("page")
    caption = _escaped(typeset(table.caption))
    heads = "".join(f'<th scope="col">{_escaped(column.title("page"))}</th>' for column in columns)
    lines = [
        f'<div class="scroll" tabindex="0" role="group" aria-label="{caption}">',
        f'<table id="{_escaped(key)}">' if key else "<table>",
        f"<caption>{caption}</caption>",
        f"<thead><tr>{heads}</tr></thead>",
        "<tbody>",
    ]
    for name, *entries in rows:
        cells = "".join(
            f"<td>{_page_entry(entry)}"
            f"{f'<small>{_escaped(typeset(entry.small))}</small>' if entry.small else ''}</td>"
            for entry in entries
        )
        lines.append(f'<tr><th scope="row">{_escaped(_marked(name))}</th>{cells}</tr>')
    return "\n".join([*lines, "</tbody>", "</table>", "</div>"])


def _page_entry(entry: Entry) -> str:
    mark = entry.mark.replace(" ", "")
    return _escaped(typeset(entry.text)) + (f'<span class="sign">{_escaped(mark)}</span>' if mark else "")


def _marked(entry: Entry) -> str:
    return entry.text + entry.mark.replace(" ", "")


def _escaped(text: str) -> str:
    return escaped(text.replace(" -> ", " → "))


# Notebooks.

# Colours of the report's matrix, thin enough for text on both themes.
_BETTER, _WORSE = "23,102,168", "201,96,20"
_LINE = "border-bottom:1px solid rgba(128,128,128,.35)"


def to_notebook(title: str, *parts: Table | str, notes: Sequence[str] = ()) -> str:
    """Static HTML with inline styles only, which takes the colours of the notebook's theme.

    parts: tables and paragraphs, in their order; beneath them the tables' notes and ``notes`` in small print.
    All text is escaped. Of large tables the first ``NOTEBOOK_MOST`` rows and columns are shown; others are
    counted.
    """
    small = [note for part in parts if isinstance(part, Table) for note in part.notes]
    blocks = [f'<div style="font-weight:600;margin-bottom:.3em">{_escaped(title)}</div>']
    blocks += [_paragraph(part) if isinstance(part, str) else _notebook_table(part) for part in parts]
    blocks += [
        f'<div style="opacity:.75;font-size:.85em;margin-top:.3em">{_escaped(note)}</div>'
        for note in (*small, *notes)
    ]
    return f'<div style="font-size:13px;line-height:1.4;overflow-x:auto">{"".join(blocks)}</div>'


def _paragraph(text: str) -> str:
    return f'<div style="margin:.3em 0">{_escaped(text)}</div>'


def _notebook_table(table: Table) -> str:
    columns, rows = table.shown("notebook")
    width = NOTEBOOK_MOST + 1
    heads = "".join(
        _notebook_cell("th", Entry(column.title("notebook"), style="strong" if at else ""), at)
        for at, column in enumerate(columns[:width])
    )
    lines = [f"<thead><tr>{heads}</tr></thead><tbody>"]
    for row in rows[:NOTEBOOK_MOST]:
        cells = (_notebook_cell("td" if at else "th", entry, at) for at, entry in enumerate(row[:width]))
        lines.append(f"<tr>{''.join(cells)}</tr>")
    cut = [
        f"{count - NOTEBOOK_MOST} more {what} are not shown"
        for count, what in ((len(rows), "rows"), (len(columns) - 1, "columns"))
        if count > NOTEBOOK_MOST
    ]
    style = "border-collapse:collapse;font-variant-numeric:tabular-nums;color:inherit;background:transparent"
    note = _paragraph("; ".join(cut) + ".") if cut else ""
    return f'<table style="{style}">{"".join(lines)}</tbody></table>{note}'


def _notebook_cell(tag: str, entry: Entry, at: int) -> str:
    style = f"text-align:{'right' if at else 'left'};padding:2px 7px;color:inherit;{_LINE}"
    style += f";font-weight:{600 if _STRONG & set(entry.style.split()) else 400}"
    if entry.shade and isfinite(entry.shade):
        colour, depth = _BETTER if entry.shade > 0 else _WORSE, min(1.0, abs(entry.shade))
        style += f";background:rgba({colour},{0.08 + 0.42 * depth:.2f})"
    title = entry.title or entry.small
    title = f' title="{_escaped(title)}"' if title else ""
    return f'<{tag} style="{style}"{title}>{_escaped(_marked(entry))}</{tag}>'


# The terminal.

NAME_MOST = 24  # characters of a row's name on one line
_HEAD_MOST = 11  # characters of a head on one line, where entries are no wider


def to_terminal(table: Table, *, names: int = NAME_MOST) -> TerminalTable:
    """A Rich renderable: blocks of columns that fit the console's width, then the notes in faint print.

    names: characters of a row's name on one line. Rules stand under the heads on a terminal and spaces alone
    in a pipe; colours are Rich's to leave out.
    """
    return TerminalTable(table, names)


def words(text: str, style: str = "") -> Text:
    """Text as it is, for Rich: names may hold brackets, which Rich would take for markup.

    style: Rich's own style. Characters that would steer the terminal are taken out.
    """
    from rich.text import Text

    return Text.assemble((clean(text), style))


@dataclass(frozen=True)
class TerminalTable:
    """A table that Rich can print; made by :func:`to_terminal`."""

    table: Table
    names: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Blocks of columns that fit, each with the row names."""
        columns, rows = self.table.shown("terminal")
        heads = [column.title("terminal") for column in columns]
        entries = [
            [words(entry.text + entry.mark, _rich_style(entry.style)) for entry in row] for row in rows
        ]
        most = self.names if len(heads) > 1 else options.max_width  # a column by itself has all the room
        names = min(most, max([len(heads[0]), *(row[0].cell_len for row in entries)]))
        # Entries are never broken; a long head is folded, between its words where it can be.
        widths = [names]
        for at, head in enumerate(heads[1:], start=1):
            longest = max(map(len, _pieces(head)), default=0)
            widest = max((row[at].cell_len for row in entries), default=0)
            widths.append(max(widest, min(longest, _HEAD_MOST), 4))
        blocks = list(split(widths[1:], options.max_width - names))
        if len(heads) == 1 and entries:
            blocks = [(0, 0)]
        for first, last in blocks:
            if first:
                yield words("")
            places = [0, *range(first + 1, last + 1)]
            yield _block(
                console,
                [(heads[at], widths[at]) for at in places],
                [[row[at] for at in places] for row in entries],
            )
        for note in self.table.notes:
            yield words(note, "dim")


def _rich_style(style: str) -> str:
    return " ".join(STYLES[word] for word in style.split())


def _block(console: Console, heads: Sequence[tuple[str, int]], rows: Iterable[Sequence[Text]]) -> RichTable:
    """One block with its heads and their widths; a ruled head on a terminal, spaces alone in a pipe."""
    from rich import box
    from rich.table import Table as RichTable

    block = RichTable(
        box=box.SIMPLE_HEAD if console.is_terminal else None,
        pad_edge=False,
        padding=(0, 1, 0, 0) if console.is_terminal else (0, 1),
        header_style="bold",
        show_edge=False,
    )
    (name, width), *others = heads
    block.add_column(words(name), width=width, overflow="fold", vertical="bottom")
    for head, width in others:
        block.add_column(words(fold(head, width)), width=width, justify="right", overflow="fold")
    for row in rows:
        block.add_row(*row)
    return block


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
    """Ranges (first, behind the last) of columns that fit into ``room`` characters beside the names.

    Each column costs its width and the gap before it; one that is too wide by itself gets a block of its own.
    """
    first, used = 0, 0
    for column, width in enumerate(widths):
        cost = width + 2
        if column > first and used + cost > room:
            yield first, column
            first, used = column, 0
        used += cost
    if first < len(widths):
        yield first, len(widths)
