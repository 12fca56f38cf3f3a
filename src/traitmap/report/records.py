"""What the report is made of: all records of a run in one, and what a section shows of them.

A section turns records into figures; each figure carries the table of the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from traitmap.report.chart import HALF, NARROW, WIDE, Chart, Drawing, with_key
from traitmap.table import Table

if TYPE_CHECKING:
    from traitmap.analysis.answer import Answer
    from traitmap.analysis.checkpoints import Checkpoints
    from traitmap.analysis.explanation.records import Explanation
    from traitmap.analysis.mixing import Mix
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
    matrix alone says. mix: measured combinations of sources, for all targets.
    checkpoints: courses of the trainings that kept some. missing: part -> why it is not there.
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
    mix: Mix | None = None
    checkpoints: Checkpoints | None = None
    missing: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class Shown:
    """One figure of the page.

    name: in kebab case, unique in the page. description: what the figure shows and what was found in it.
    chart: how it is drawn, in any width. table: the same numbers. caveat: when to distrust it; decisive: the
    caveat decides what can be read from the figure, and is always in sight. key: (mark, words). wide: takes
    the page's whole width. tag: a word beside the title. aside: evidence behind another figure, folded.
    nothing: in a few words, why the figure says nothing; it is then counted in a sentence in place of being
    drawn, and its table is kept.
    """

    name: str
    title: str
    description: str
    chart: Drawing
    table: Table
    caveat: str = ""
    decisive: bool = False
    key: tuple[tuple[str, str], ...] = ()
    wide: bool = False
    tag: str = ""
    aside: bool = False
    nothing: str = ""

    def drawn(self, width: float) -> Chart:
        """The chart with its key, ``width`` px wide; wider where it cannot be so narrow."""
        return with_key(self.chart(width), self.key)

    @property
    def svg(self) -> Markup:
        """The chart under the figure's name; those who do not see it are told of the table."""
        return self._svg(WIDE if self.wide else HALF, self.name)

    @property
    def narrow(self) -> Markup:
        """The same for a telephone or a small card."""
        return self._svg(NARROW, f"{self.name}-narrow")

    def _svg(self, width: float, key: str) -> Markup:
        chart = self.drawn(width)
        return replace(chart, alt=f"{chart.alt} The same numbers stand in the table.").svg(key)
