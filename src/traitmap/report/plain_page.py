"""A page of lines, texts and tables, for records without figures: one self-contained file, as the report is.

``comparison_page`` and ``report.audit`` lay their records out on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from traitmap.analysis.comparison import Comparison
from traitmap.analysis.comparison_words import agreement_table, cells_table, conditions_table
from traitmap.analysis.comparison_words import title as comparison_title
from traitmap.errors import UserError
from traitmap.report.chart import themed
from traitmap.report.page import page_digest, page_environment, page_file
from traitmap.runs.files import write_output
from traitmap.table import Table
from traitmap.wording import listed

STYLES = ("report.css", "tables.css")
SCRIPTS = ("report.js", "state.js", "tables.js")


@dataclass(frozen=True)
class Listing:
    """Sentences under a heading."""

    heading: str
    texts: Sequence[str]


@dataclass(frozen=True)
class Section:
    """A part of the page. short: what the bar at the top calls it; parts: paragraphs, lists and tables."""

    short: str
    title: str
    parts: Sequence[str | Listing | Table]


def table_section(short: str, table: Table) -> Section:
    """One table under its own caption."""
    return Section(short, table.caption, [table] if table.rows else [])


def plain_page(title: str, lead: str, lines: Sequence[tuple[str, str]], sections: Sequence[Section]) -> str:
    """The page as text: the lines first, then each section; the reader can sort and copy its tables.

    lines: heading and sentence. Sections without parts are left out. All text is escaped.
    """
    script = "".join(map(page_file, SCRIPTS))
    return (
        page_environment()
        .get_template("plain.html")
        .render(
            title=title,
            lead=lead,
            lines=[(heading.capitalize(), words) for heading, words in lines],
            sections=[section for section in sections if section.parts],
            style=Markup(themed("".join(map(page_file, STYLES)))),
            script=Markup(script),
            script_digest=page_digest(script),
        )
    )


def comparison_page(comparison: Comparison) -> str:
    """Several runs held against each other, with every cell that two of them know."""
    return plain_page(
        title=f"Compared: {listed(comparison.names)}",
        lead=f"{comparison_title(comparison)}. Cells are matched by the names of sources and targets.",
        lines=comparison.lines,
        sections=(
            table_section("Cells", cells_table(comparison, None)),
            table_section("Agreement", agreement_table(comparison)),
            table_section("Conditions", conditions_table(comparison, None)),
        ),
    )


def write_page(path: Path, page: str, *, append: bool = False) -> Path:
    """Write a text that the user named a file for, whole, or leave what was there; its path.

    append: behind what the file holds. UserError where that cannot be done.
    """
    try:
        before = path.read_text(encoding="utf-8") if append and path.is_file() else ""
        return write_output(path, before + page)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"The page cannot be written to {path}: {reason}. Give a file in a folder that you may write to."
        ) from error
