"""The section of the page on why gains are what they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from traitmap.analysis.explanation.records import Explanation
    from traitmap.analysis.profiles.record import Profile
    from traitmap.matrix import TransferMatrix


def why_part(
    matrix: TransferMatrix, profile: Profile | None, explanation: Explanation | None
) -> dict[str, Any]:
    """What ``why.html`` shows (key ``why``; None: no section), and cards for the headline (``findings``)."""
    return {"why": None, "findings": ()}
