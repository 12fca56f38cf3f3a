"""What a matrix of any size would cost on many workers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from traitmap.errors import RunError
from traitmap.study.settings import Study

if TYPE_CHECKING:
    from traitmap.runs.growth import Growth

_PLAN = re.compile(r"(\d+)\s*[x×]\s*(\d+)")


def plan_growth(
    plan: str,
    *,
    workers: int,
    model_shape: str | None = None,
    study: Study | str | Path | None = None,
    items: int | None = None,
    group_size: int | None = None,
) -> Growth:
    """Time, GPU hours, disk and object store of a matrix that does not exist yet.

    plan: ``200x100`` adapters and targets. workers: GPUs, or CPU slots. model_shape: a base of which nothing
    was measured, such as ``llama-8b``, on 80 GB GPUs; or study: one that was run, whose measured costs count.
    items: of each target; by default 2,000, or as the study's own. group_size: adapters trained together.
    RunError for a plan that cannot be read, and where nothing tells what a unit costs.
    """
    from traitmap.runs.growth import assumed_unit, grow, measured_unit
    from traitmap.runs.store import run_folder
    from traitmap.study.load import load_study

    found = _PLAN.fullmatch(plan.strip().lower())
    if found is None or min(int(found[1]), int(found[2])) < 1:
        raise RunError(f"plan {plan!r}: give adapters and targets as in 200x100.")
    for name, value in (("gpus", workers), ("items", items), ("group_size", group_size)):
        if value is not None and value < 1:
            raise RunError(f"{name} {value}: give a number of at least 1.")
    if (model_shape is None) == (study is None):
        raise RunError(
            "a plan needs to know what a unit costs: give either --model-shape (such as llama-8b), of which "
            "costs are assumed, or a study that was run here, of which they were measured."
        )
    if model_shape is not None:
        unit = assumed_unit(model_shape, items=items or 2000)
    else:
        asked = study if isinstance(study, Study) else load_study(str(study))
        unit = measured_unit(str(run_folder(asked)))
    return grow(
        unit,
        adapters=int(found[1]),
        targets=int(found[2]),
        workers=workers,
        items=items,
        group_size=group_size,
    )
