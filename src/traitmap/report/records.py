"""What the report is made of: all records of a run in one, and what a section shows of them.

A section turns records into figures; each figure carries the table of the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from traitmap.report.chart import Chart
from traitmap.table import Table

if TYPE_CHECKING:
    from traitmap.analysis.answer import Answer
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
    not have. cells: details of single cells. answer: what the top of the page says; None takes what the
    matrix alone says. missing: part -> why it is not there.
    """

    matrix: TransferMatrix
    traits: Traits | None = None
    conditions: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    profile: Profile | None = None
    explanation: Explanation | None = None
    recommendation: Any = None
    evaluation: HeldOut | None = None
    cells: Any = None
    answer: Answer | None = None
    missing: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class Shown:
    """One figure of the page.

    name: in kebab case, unique in the page. description: what the figure shows and what was found in it.
    table: the same numbers. caveat: when to distrust it. legend: (class of the mark, words). wide: takes the
    page's whole width. tag: a word beside the title, such as ``cannot tell``. faint: of little weight.
    """

    name: str
    title: str
    description: str
    chart: Chart
    table: Table
    caveat: str = ""
    legend: tuple[tuple[str, str], ...] = ()
    wide: bool = False
    tag: str = ""
    faint: bool = False

    @property
    def svg(self) -> Markup:
        """The chart under the figure's name; those who do not see it are told of the table."""
        alt = f"{self.chart.alt} The same numbers stand in the table."
        return replace(self.chart, alt=alt).svg(self.name)
