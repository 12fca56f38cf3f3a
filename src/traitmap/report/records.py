"""What the report is made of: all records of a run in one, and what a section shows of them.

A section turns records into figures and findings; each figure carries the table of the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from traitmap.report.alternative import TextTable
from traitmap.table import Table

if TYPE_CHECKING:
    from traitmap.analysis.explanation.records import Explanation
    from traitmap.analysis.profiles.record import Profile
    from traitmap.analysis.recommendation.held_out import HeldOut
    from traitmap.analysis.traits.records import Traits
    from traitmap.matrix.record import TransferMatrix


@dataclass(frozen=True)
class ReportContents:
    """What is known of a run or of a matrix; a part that is None could not be computed, or was not asked for.

    profile: what texts and answers say. explanation: why gains are what they are. evaluation: what would have
    been recommended for each target, and what came of it. recommendation: for a target that the matrix does
    not have. cells: details of single cells. missing: part -> why it is not there.
    """

    matrix: TransferMatrix
    traits: Traits | None = None
    conditions: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    profile: Profile | None = None
    explanation: Explanation | None = None
    recommendation: Any = None
    evaluation: HeldOut | None = None
    cells: Any = None
    missing: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


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
    table: Table | TextTable | None
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


@dataclass(frozen=True)
class Finding:
    """heading: what was asked; big: the answer, a number or a few words; words: its evidence, in sentences.

    unit: stands small behind a number. side: ``better``, ``worse`` or nothing, for the colour.
    wordy: ``big`` is words, not a number. link: id of the section that shows it in full.
    """

    heading: str
    big: str
    words: str
    unit: str = ""
    side: str = ""
    wordy: bool = False
    link: str = ""
