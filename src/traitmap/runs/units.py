"""How one unit of work is computed: an engine and a unit in, a result out, the same on every machine."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitmap.data.records import ServedAdapter
from traitmap.engine.contract import Engine, TrainingJob, TrainingReport
from traitmap.errors import ModelError, TraitmapError, UserError
from traitmap.progress import Listener, silent
from traitmap.runs.cells import outcome_table
from traitmap.runs.keys import adapter_digest
from traitmap.runs.store import TrainedAdapter

if TYPE_CHECKING:
    import pyarrow as pa

    from traitmap.data.targets import LoadedTarget

_OUT_OF_MEMORY = frozenset({"OutOfMemoryError", "MemoryError", "ArrayMemoryError"})


@dataclass(frozen=True)
class Failure:
    """Why a unit gave no result.

    memory: memory ran out, so that a smaller group may do. final: another try would fail as well.
    """

    reason: str
    memory: bool = False
    final: bool = False


@dataclass(frozen=True)
class CellResult:
    """What came of one cell. outcomes: (n_items,) the columns of a cell file. seconds: of computing it."""

    outcomes: pa.Table
    aggregates: dict[str, float]
    seconds: float


def train(
    engine: Engine,
    keys: Sequence[str],
    jobs: Sequence[TrainingJob],
    folders: Sequence[Path],
    listener: Listener = silent,
) -> list[TrainedAdapter | Failure]:
    """One training pass: a finished adapter in its folder, or why there is none, for each job in order.

    Raises what the engine raises where the whole pass fails.
    """
    reports = engine.train(jobs, folders, listener)
    return [_collect(*one) for one in zip(keys, folders, reports, strict=True)]


def answer_and_score(
    engine: Engine,
    target: LoadedTarget,
    adapter: Path | ServedAdapter | None,
    listener: Listener = silent,
) -> CellResult:
    """One cell: answers to all requests of a target, scored. Nothing of any other cell has a part in it."""
    started = time.monotonic()
    scored = target.score(engine.answer(target.requests, adapter, listener))
    seconds = round(time.monotonic() - started, 3)
    return CellResult(outcome_table(scored.outcomes), dict(scored.aggregates), seconds)


def failure_of(error: BaseException) -> Failure:
    """Why a unit failed, in one line."""
    memory = ran_out_of_memory(error)
    if isinstance(error, TraitmapError):
        return Failure(str(error), memory, final=isinstance(error, UserError))
    if memory:
        return Failure(f"memory ran out ({type(error).__name__}: {' '.join(str(error).split())[:200]})", True)
    frames = traceback.extract_tb(error.__traceback__)
    place = f"; {Path(frames[-1].filename).name} line {frames[-1].lineno}" if frames else ""
    return Failure(f"{type(error).__name__}: {error} (a defect{place})")


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether lack of memory is what an error comes from, by the names of it and of its causes.

    Names, since torch's error cannot be named where torch is not imported.
    """
    return any(type(one).__name__ in _OUT_OF_MEMORY for one in _causes(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__ or error.__context__


def _collect(key: str, folder: Path, report: TrainingReport) -> TrainedAdapter | Failure:
    if report.failure is not None:
        return Failure(report.failure)
    if not all(isfinite(loss) for loss in report.losses):
        return Failure("diverged: a training loss is no number; lower learning_rate")
    try:
        return TrainedAdapter(key, adapter_digest(folder), _plain(report))
    except ModelError as error:
        return Failure(f"the engine reported success and left no adapter: {error}")


def _plain(report: TrainingReport) -> dict[str, Any]:
    """A training report as JSON data; a loss that is no number is null."""
    losses = [loss if isfinite(loss) else None for loss in report.losses]
    return {**asdict(report), "losses": losses}
