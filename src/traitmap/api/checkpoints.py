"""Checkpoints of a run's trainings: where gain is lost again, and which step to keep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from traitmap import analysis
from traitmap.api.subject import read_matrix

if TYPE_CHECKING:
    from traitmap.api.subject import MatrixLike


def checkpoints(
    subject: MatrixLike,
    *,
    targets: Sequence[str] = (),
    keep: Sequence[str] = (),
    margin: float = 2.0,
    predict: Sequence[str] = (),
) -> analysis.Checkpoints:
    """What each kept step of a training does to every target, and which step to keep.

    subject: a run whose study has sources with ``checkpoints``, its folder or its study.
    targets: those over whose mean improvement a step is chosen; without any all whose scores are shares.
    keep: targets that must not be harmed: a step is not kept where it clearly loses more than ``margin`` (in
        points; in other units as large a share of their usual gain) on one of them.
    predict: steps that were not kept, ``source@step``, of any source that was trained: their gains are
        predicted from the measured steps on either side and from other sources' courses, and are no data.

    Raises MatrixError where no source has checkpoints and none is to be predicted, a target is unknown, or a
    step cannot be predicted.
    """
    return analysis.checkpoint_courses(
        read_matrix(subject), targets=tuple(targets) or None, keep=tuple(keep), margin=margin, predict=predict
    )
