"""The section of the page on which source to train on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from traitmap.analysis.recommendation.advice import Recommendation
    from traitmap.matrix import TransferMatrix


def which_part(
    matrix: TransferMatrix, recommendation: Recommendation | None, evaluation: object | None
) -> dict[str, Any]:
    """What ``which.html`` shows (``which``; None: no section), cards for the headline (``findings``)."""
    return {"which": None, "findings": ()}
