"""Checkpoints of a run's trainings: where gain is lost again, and which step to keep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from traitmap import analysis
from traitmap.api.subject import read_matrix

if TYPE_CHECKING:
    from traitmap.api.subject import MatrixLike


def checkpoints(
    subject: MatrixLike, *, targets: Sequence[str] = (), keep: Sequence[str] = (), margin: float = 2.0
) -> analysis.Checkpoints:
    """What each kept step of a training does to every target, and which step to keep.

    subject: a run whose study has sources with ``checkpoints``, its folder or its study.
    targets: those over whose mean improvement a step is chosen; without any all whose scores are shares.
    keep: targets that must not be harmed: a step is not kept where it clearly loses more than ``margin`` (in
        the target's unit, points for shares) on one of them.

    Raises MatrixError where no source has checkpoints, or a target is unknown.
    """
    return analysis.checkpoint_courses(
        read_matrix(subject), targets=tuple(targets) or None, keep=tuple(keep), margin=margin
    )
