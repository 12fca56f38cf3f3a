"""A figure as a section shows it: what it says, when to distrust it, and the table of the same numbers."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from traitmap.report.alternative import TextTable


@dataclass(frozen=True)
class Shown:
    """One figure of the page.

    name: in kebab case, unique in the page. said: what the figure shows and what was found in it.
    distrust: when not to believe it. key: (class of the mark, words). wide: takes the page's whole width.
    tag: a word beside the title, such as ``cannot tell``. faint: of little weight.
    """

    name: str
    title: str
    said: str
    svg: Markup
    table: TextTable | None
    distrust: str = ""
    key: tuple[tuple[str, str], ...] = ()
    wide: bool = False
    tag: str = ""
    faint: bool = False


@dataclass(frozen=True)
class FigureGroup:
    """Figures under one heading. said: what they have in common, or why there are none."""

    title: str
    said: str
    figures: tuple[Shown, ...] = ()
