"""Tables of figures, as they are written before they become one ``Table``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One cell of a table: its main text, and what stands small beneath it."""

    text: str
    small: str = ""


@dataclass(frozen=True)
class TextTable:
    """caption; column heads (the first is that of the row names); rows of (name, entries)."""

    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Entry, ...]], ...]
