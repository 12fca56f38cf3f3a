"""A page of lines and tables, for records that need no figure: one self-contained file, as the report is."""

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
class Section:
    """One table of the page under its caption. short: what the bar at the top calls it."""

    short: str
    table: Table


def plain_page(title: str, lead: str, lines: Sequence[tuple[str, str]], sections: Sequence[Section]) -> str:
    """The page as text: the lines first, then each table, which the reader can sort and copy.

    lines: heading and sentence. Sections without rows are left out. All text is escaped.
    """
    script = "".join(map(page_file, SCRIPTS))
    return (
        page_environment()
        .get_template("plain.html")
        .render(
            title=title,
            lead=lead,
            lines=[(heading.capitalize(), words) for heading, words in lines],
            sections=[section for section in sections if section.table.rows],
            style=Markup(themed("".join(map(page_file, STYLES)))),
            script=Markup(script),
            script_digest=page_digest(script),
        )
    )


def comparison_page(comparison: Comparison) -> str:
    """Several runs held against each other, with every cell that two of them know."""
    names = listed(comparison.names)
    return plain_page(
        title=f"Compared: {names}",
        lead=f"{comparison_title(comparison)}. Cells are matched by the names of sources and targets.",
        lines=comparison.lines,
        sections=(
            Section("Cells", cells_table(comparison, None)),
            Section("Agreement", agreement_table(comparison)),
            Section("Conditions", conditions_table(comparison, None)),
        ),
    )


def write_page(path: Path, page: str) -> Path:
    """Write a page whole, or leave what was there. UserError where the file cannot be written."""
    try:
        return write_output(path, page)
    except OSError as error:
        raise UserError(
            f"The page cannot be written to {path}: {error.strerror or error}. Give a file in a folder that "
            "you may write to."
        ) from error
