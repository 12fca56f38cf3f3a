"""How far a run in progress is, in one small file of its folder, for whoever watches it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from math import isfinite, nan
from pathlib import Path
from typing import Any

from traitmap.progress import Listener, Progress
from traitmap.runs.atomic import write_json

NAME = "progress.json"
INTERVAL = 1.0  # seconds between two writes
MOST_LOSSES = 400  # points of a loss curve that are kept; beyond it every other one is left out
# The engine's words on a training pass; progress itself carries no loss.
_LOSS = re.compile(r"\bloss (\d+(?:\.\d+)?(?:e[+-]?\d+)?)")


@dataclass(frozen=True)
class StageProgress:
    """One stage: work done and in all in its own unit, when it began and was last heard of (Unix seconds)."""

    stage: str
    done: float
    total: float
    detail: str
    started: float
    heard: float

    @property
    def seconds_left(self) -> float:
        """At the pace so far; NaN before anything is done."""
        if self.done <= 0 or self.total < self.done:
            return nan
        return (self.heard - self.started) / self.done * (self.total - self.done)


@dataclass(frozen=True)
class RunProgress:
    """All that a run in progress has reported.

    stages: in the order in which they began; the last one is under way. losses: (work done in the training
    stage, mean loss over the adapters under way, nats per token), thinned out where there are many.
    """

    started: float
    stages: tuple[StageProgress, ...] = ()
    losses: tuple[tuple[float, float], ...] = ()


@dataclass
class _Kept:
    """What has been heard, and when it was last written."""

    path: Path
    clock: Callable[[], float]
    progress: RunProgress
    written: float = 0.0
    stride: int = 1
    skipped: int = 0
    stages: dict[str, StageProgress] = field(default_factory=dict)
    losses: list[tuple[float, float]] = field(default_factory=list)

    def hear(self, report: Progress) -> None:
        now = self.clock()
        before = self.stages.get(report.stage)
        begins = before is None or report.done < before.done  # a budget goes through its stages repeatedly
        if before is None or begins:
            # Its first report comes after its first work, so it began when the last thing was heard.
            started = max([self.progress.started, *(one.heard for one in self.stages.values())])
            self.stages.pop(report.stage, None)
            before = StageProgress(report.stage, 0.0, report.total, "", started, now)
        self.stages[report.stage] = replace(
            before, done=report.done, total=report.total, detail=report.detail, heard=now
        )
        self._book_loss(report)
        if begins or now - self.written >= INTERVAL:
            self.written = now
            self.write()

    def _book_loss(self, report: Progress) -> None:
        told = _LOSS.search(report.detail)
        if told is None or not isfinite(float(told[1])):
            return
        self.skipped += 1
        if self.skipped >= self.stride:
            self.skipped = 0
            self.losses.append((report.done, float(told[1])))
        if len(self.losses) > MOST_LOSSES:
            self.losses = self.losses[::2]
            self.stride *= 2

    def write(self) -> None:
        found = replace(self.progress, stages=tuple(self.stages.values()), losses=tuple(self.losses))
        with suppress(OSError):  # a full disk is told by whatever must be kept, not by this
            write_json(self.path, asdict(found))


@contextmanager
def kept_progress(
    folder: str | Path, listener: Listener, clock: Callable[[], float] = time.time
) -> Iterator[Listener]:
    """A listener that hands every report on and keeps them in ``progress.json``, at most once a second.

    The file is there only while the run is in progress: it is removed at the end, however the run ends. A
    killed run leaves it; ``store.running_pid`` tells whether anybody still writes it. Only the process that
    holds the run's lock reports, so only that one writes.
    """
    kept = _Kept(Path(folder) / NAME, clock, RunProgress(clock()))

    def hear(report: Progress) -> None:
        listener(report)
        kept.hear(report)

    try:
        yield hear
    finally:
        if kept.stages:
            kept.path.unlink(missing_ok=True)


def read_progress(folder: str | Path) -> RunProgress | None:
    """What a run has reported, or None where it has not (yet), or the file is no such file."""
    try:
        raw: dict[str, Any] = json.loads((Path(folder) / NAME).read_text(encoding="utf-8"))
        return RunProgress(
            started=float(raw["started"]),
            stages=tuple(StageProgress(**one) for one in raw["stages"]),
            losses=tuple((float(done), float(loss)) for done, loss in raw["losses"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
