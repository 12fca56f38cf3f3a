"""All records that a report is made of, in one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

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
