"""How one unit of a run is computed: a training pass, a merge, a cell; and why one gave no result.

A unit goes in with an engine and a result comes out, the same on every machine. Nothing here knows the run's
files but the folders that it is handed.
"""

from __future__ import annotations

import shutil
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from traitmap.data.adapters import numbers_without_value
from traitmap.data.outcomes import outcome_table
from traitmap.data.records import AdapterPlace, Outcome, require_answers
from traitmap.engine.contract import (
    Engine,
    MergeJob,
    PassCheckpoint,
    TrainingJob,
    TrainingReport,
    checkpoint_folder,
)
from traitmap.errors import ModelError, TraitmapError, UserError
from traitmap.progress import Listener, silent
from traitmap.runs.cells import CellResult
from traitmap.runs.plan import CONFIG, WEIGHTS, AdapterUnit, adapter_digest, trainings
from traitmap.runs.store import TrainedAdapter
from traitmap.wording import counted

if TYPE_CHECKING:
    from traitmap.data.targets import LoadedTarget


_OUT_OF_MEMORY = frozenset({"OutOfMemoryError", "MemoryError", "ArrayMemoryError"})


@dataclass(frozen=True)
class UnitFailure:
    """Why a unit gave no result.

    memory: memory ran out, so that a smaller group may do. final: another try would fail as well.
    """

    reason: str
    memory: bool = False
    final: bool = False


def train(
    engine: Engine,
    group: Sequence[AdapterUnit],
    jobs: Sequence[TrainingJob],
    folders: Sequence[Path],
    listener: Listener = silent,
    checkpoint: PassCheckpoint | None = None,
) -> list[TrainedAdapter | UnitFailure]:
    """One training pass: a finished adapter in its folder, or why there is none, for each unit in order.

    jobs: one for each of the group's ``trainings``. folders: one for each unit. checkpoint: where the pass
    keeps how far it is. Raises what the engine raises where the whole pass fails.
    """
    kept = {} if checkpoint is None else {"checkpoint": checkpoint}
    place = dict(zip(group, folders, strict=True))
    passes = trainings(group)
    reports = engine.train(jobs, [place[units[-1]] for units in passes], listener, **kept)
    results = {
        unit: _collect(unit, place[unit], place[units[-1]], report, last=unit is units[-1])
        for units, report in zip(passes, reports, strict=True)
        for unit in units
    }
    return [results[unit] for unit in group]


def merge(engine: Engine, key: str, job: MergeJob, folder: Path) -> TrainedAdapter:
    """One merge in its folder. One adapter with the weight 1 is that adapter, file by file.

    PEFT's own merge of that one has its numbers times the root of its scale. Raises what the engine raises,
    and ModelError where what it left is no adapter.
    """
    started = time.monotonic()
    if len(job.folders) == 1 and job.weights == (1.0,):
        for name in (WEIGHTS, CONFIG):
            shutil.copyfile(job.folders[0] / name, folder / name)
    else:
        engine.merge(job, folder)
    if unknown := numbers_without_value(folder):
        raise ModelError(f"{unknown} weights of the merge are NaN or infinite; give smaller weights")
    merged = [adapter_digest(place) for place in job.folders]
    report = {"seconds": round(time.monotonic() - started, 3), "merged": merged}
    return TrainedAdapter(key, adapter_digest(folder), report)


def answer_and_score(
    engine: Engine,
    target: LoadedTarget,
    adapter: AdapterPlace | None,
    listener: Listener = silent,
    before: tuple[Sequence[Outcome], str] | None = None,
) -> CellResult:
    """One cell: answers to all requests of a target, scored. Nothing of any other cell has a part in it.

    adapter: a PEFT directory, one that a server holds, or None for the base. Its seconds are those of
    answering and scoring. before: outcomes of the same adapter on items of the target, and the metric that
    judged them: only what they do not tell is asked. Raises what the engine or the scoring raises, and
    ModelError where an answer is none (``records.require_answers``).
    """
    started = time.monotonic()
    known = target.known_answers(*before) if before else [None] * len(target.requests)
    asked = [request for request, answer in zip(target.requests, known, strict=True) if answer is None]
    fresh = iter(engine.answer(asked, adapter, listener) if asked else ())
    answers = [next(fresh) if answer is None else answer for answer in known]
    require_answers(target.requests, answers)
    scored = target.score(answers)
    seconds = round(time.monotonic() - started, 3)
    return CellResult(outcome_table(scored.outcomes), dict(scored.aggregates), seconds)


def failure_of(error: BaseException) -> UnitFailure:
    """Why a unit failed, in one line.

    A fault that the user must mend is final. An error of any other package is called a defect, with file and
    line, unless memory ran out.
    """
    memory = ran_out_of_memory(error)
    if isinstance(error, TraitmapError):
        return UnitFailure(str(error), memory, final=isinstance(error, UserError))
    if memory:
        return UnitFailure(
            f"memory ran out ({type(error).__name__}: {' '.join(str(error).split())[:200]})", True
        )
    frames = traceback.extract_tb(error.__traceback__)
    place = f"; {Path(frames[-1].filename).name} line {frames[-1].lineno}" if frames else ""
    return UnitFailure(f"{type(error).__name__}: {error} (a defect{place})")


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether lack of memory is what an error comes from, by the names of it and of its causes.

    Names, since torch's error cannot be named where torch is not imported.
    """
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        if type(cause).__name__ in _OUT_OF_MEMORY:
            return True
        seen.add(id(cause))
        cause = cause.__cause__ or cause.__context__
    return False


def _collect(
    unit: AdapterUnit, folder: Path, trained: Path, report: TrainingReport, *, last: bool
) -> TrainedAdapter | UnitFailure:
    """What came of one unit. trained: the folder of its training, where its checkpoints are taken from.

    last: whether it is what the training ends in; its report is that of the training, a checkpoint's that of
    the steps so far.
    """
    if not last:
        assert unit.step is not None
        if unit.step not in report.checkpoints:
            taken = counted(len(report.losses), "step")
            return UnitFailure(report.failure or f"its training had {taken}, so there is no step {unit.step}")
        for file in checkpoint_folder(trained, unit.step).iterdir():
            file.replace(folder / file.name)
        checkpoint_folder(trained, unit.step).rmdir()
        so_far = report.losses[: unit.step]
        report = replace(report, losses=so_far, tokens=report.checkpoints[unit.step], failure=None)
    if report.failure is not None:
        return UnitFailure(report.failure)
    if not all(isfinite(loss) for loss in report.losses):
        return UnitFailure("diverged: a training loss is no number; lower learning_rate")
    if unit.step is not None and unit.step > len(report.losses):
        taken = counted(len(report.losses), "step")
        return UnitFailure(f"its training had {taken}, so there is no step {unit.step}")
    try:
        if unknown := numbers_without_value(folder):
            return UnitFailure(f"diverged: {unknown} of its weights are NaN or infinite; lower learning_rate")
        told = {name: value for name, value in asdict(report).items() if name != "checkpoints"}
        return TrainedAdapter(unit.key, adapter_digest(folder), told)
    except ModelError as error:
        return UnitFailure(f"the engine reported success and left no adapter: {error}")
