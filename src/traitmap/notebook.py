"""Small tables for notebooks: static HTML with inline styles that reads well on light and on dark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import isfinite

MOST = 40  # rows, and columns, that a notebook is shown; the report shows all
UNKNOWN = "–"
_BETTER, _WORSE = (
    "23,102,168",
    "201,96,20",
)  # colour of the report's matrix, thin enough for text on both themes
_LINE = "border-bottom:1px solid rgba(128,128,128,.35)"


@dataclass(frozen=True)
class Entry:
    """One entry of a table. shade: -1 (worse) to 1 (better), 0 none. title: shown where it is pointed at."""

    text: str
    shade: float = 0.0
    strong: bool = False
    title: str = ""


@dataclass(frozen=True)
class Rows:
    """A table. head: above the row names; heads: of the columns; rows: (name, entries)."""

    head: str
    heads: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Entry]]]


def page(title: str, *parts: Rows | str, notes: Sequence[str] = ()) -> str:
    """Title, tables and paragraphs in their order, and notes in small print. All text is escaped."""
    shown = [f'<div style="font-weight:600;margin-bottom:.3em">{_text(title)}</div>']
    shown += [_paragraph(part) if isinstance(part, str) else _table(part) for part in parts]
    shown += [
        f'<div style="opacity:.75;font-size:.85em;margin-top:.3em">{_text(note)}</div>' for note in notes
    ]
    return f'<div style="font-size:13px;line-height:1.4;overflow-x:auto">{"".join(shown)}</div>'


def number(value: float, digits: int = 1, *, sign: bool = False) -> str:
    """A number, or a dash where it is unknown; zero has no sign."""
    if not isfinite(value):
        return UNKNOWN
    text = f"{value:{'+' if sign else ''}.{digits}f}"
    return text.lstrip("+-") if float(text) == 0 else text


def between(low: float, high: float, digits: int = 1) -> str:
    """An interval, or nothing where an end of it is unknown."""
    if not (isfinite(low) and isfinite(high)):
        return ""
    return f"[{number(low, digits, sign=True)}, {number(high, digits, sign=True)}]"


def _table(table: Rows) -> str:
    shown = range(min(MOST, len(table.heads)))
    heads = "".join(_cell("th", Entry(table.heads[at]), "right") for at in shown)
    lines = [f"<thead><tr>{_cell('th', Entry(table.head), 'left')}{heads}</tr></thead><tbody>"]
    for name, entries in table.rows[:MOST]:
        cells = "".join(_cell("td", entries[at], "right") for at in shown)
        lines.append(f"<tr>{_cell('th', Entry(name), 'left')}{cells}</tr>")
    cut = [
        f"{count - MOST} more {what} are not shown"
        for count, what in ((len(table.rows), "rows"), (len(table.heads), "columns"))
        if count > MOST
    ]
    told = _paragraph("; ".join(cut) + ".") if cut else ""
    style = "border-collapse:collapse;font-variant-numeric:tabular-nums;color:inherit;background:transparent"
    return f'<table style="{style}">{"".join(lines)}</tbody></table>{told}'


def _cell(tag: str, entry: Entry, side: str) -> str:
    style = f"text-align:{side};padding:2px 7px;color:inherit;{_LINE}"
    style += ";font-weight:600" if entry.strong or (tag == "th" and side == "right") else ";font-weight:400"
    if entry.shade:
        colour, depth = _BETTER if entry.shade > 0 else _WORSE, min(1.0, abs(entry.shade))
        style += f";background:rgba({colour},{0.08 + 0.42 * depth:.2f})"
    title = f' title="{escape(entry.title)}"' if entry.title else ""
    return f'<{tag} style="{style}"{title}>{_text(entry.text)}</{tag}>'


def _paragraph(text: str) -> str:
    return f'<div style="margin:.3em 0">{_text(text)}</div>'


def _text(text: str) -> str:
    return escape(text)
