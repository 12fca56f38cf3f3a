"""How far a run is: what is done, failed and missing, which files are damaged, and what is under way.

Two readers see it: ``run_status`` looks at the ledger and, if asked, holds every file against its checksum;
whoever watches a run in progress reads one small file, ``progress.json``, which its listener keeps.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from math import isfinite, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitmap.errors import ModelError
from traitmap.jsonable import outline
from traitmap.progress import Listener, Progress
from traitmap.runs.cells import cell_fault
from traitmap.runs.files import Quarantined, quarantined, write_json
from traitmap.runs.ledger import AdapterEntry, CellEntry, Ledger, read_ledger, read_parts
from traitmap.runs.plan import AdapterUnit, CellUnit, Plan, adapter_digest, cell_key
from traitmap.runs.store import (
    RunStore,
    adapter_fault,
    lock_holder,
    open_store,
    record_faults,
    trained_adapters,
)
from traitmap.runs.texts import text_faults
from traitmap.study.settings import BASELINE

if TYPE_CHECKING:
    from traitmap.data.sources import LoadedSource
    from traitmap.data.targets import LoadedTarget


_READERS = 2  # threads; Arrow reads and hashes without holding the others up


def damaged_files(store: RunStore) -> dict[str, str]:
    """Damaged files, seen from the run folder, each with its reason. Changes nothing, needs no lock."""
    found = {**record_faults(store), **text_faults(store)}
    for one in trained_adapters(store).values():
        found[store.adapter(one.key)] = adapter_fault(store, one)
    found |= cell_faults(store.cells.glob("[!.]*.parquet"))
    return {path.relative_to(store.folder).as_posix(): why for path, why in sorted(found.items()) if why}


def cell_faults(paths: Iterable[Path]) -> dict[Path, str]:
    """Those cells that are damaged, each with its reason."""
    ordered = sorted(paths)
    with ThreadPoolExecutor(_READERS) as pool:
        faults = pool.map(cell_fault, ordered)
        return {path: why for path, why in zip(ordered, faults, strict=True) if why}


@dataclass(frozen=True)
class Tally:
    """Units by what came of them."""

    done: int
    failed: int
    missing: int


@dataclass(frozen=True)
class FailedUnit:
    """A unit that failed. target None: training of the adapter. seed None: the base, or an adapter
    that existed before."""

    source: str
    seed: int | None
    target: str | None
    reason: str


@dataclass(frozen=True)
class RunStatus:
    """A run at one moment.

    adapters, cells: units by what came of them; a cell is done when all its items are. partial: of the
    cells that are not done, those that a run on a budget took up, by what came of the items it asked.
    failures: in the order of the study; the cells of an adapter that failed are counted as failed, and the
    adapter alone is listed. bytes: used on the disk. running: the process that is running it now, or None,
    and host: its machine. quarantine: damaged files that were moved out of the way. damaged: files that do
    not agree with their checksums and are still in their places, path and reason; None where nobody looked.
    """

    name: str
    folder: str
    base: str
    adapters: Tally
    cells: Tally
    failures: tuple[FailedUnit, ...]
    bytes: int
    running: int | None
    partial: Tally = Tally(0, 0, 0)
    host: str = ""
    quarantine: tuple[Quarantined, ...] = ()
    damaged: tuple[tuple[str, str], ...] | None = None

    __repr__ = outline

    @property
    def failed(self) -> int:
        """Units that failed, whole or partial, each once."""
        return self.adapters.failed + self.cells.failed + self.partial.failed

    @property
    def complete(self) -> bool:
        """Everything that was asked for is done."""
        return not (self.adapters.failed or self.adapters.missing or self.cells.failed or self.cells.missing)

    def to_json(self) -> dict[str, Any]:
        """The record as JSON data."""
        return {
            **asdict(self),
            "failures": [asdict(failure) for failure in self.failures],
            "complete": self.complete,
        }


def run_status(run: RunStore | str | Path, *, verify: bool = False) -> RunStatus:
    """Status of a run folder, whether or not it is running. RunError where there is no run.

    verify: read every file and hold it against its checksum; the units stay counted as their names say.
    """
    store = run if isinstance(run, RunStore) else open_store(run)
    ledger = read_ledger(store)
    broken = {(adapter.source, adapter.seed) for adapter in ledger.adapters if adapter.status == "failed"}
    failures = [
        FailedUnit(one.source, one.seed, None, one.reason)
        for one in ledger.adapters
        if one.status == "failed"
    ]
    partial, holder = _partial_cells(store, ledger), lock_holder(store)
    failures += [
        FailedUnit(one.source, one.seed, one.target, one.reason)
        for one in (*ledger.cells, *partial)
        if one.status == "failed" and (one.source, one.seed) not in broken
    ]
    return RunStatus(
        name=ledger.name,
        folder=str(store.folder),
        base=ledger.base,
        adapters=_tally(ledger.adapters),
        cells=_tally(ledger.cells),
        partial=_tally(partial),
        failures=tuple(failures),
        bytes=_size(store.folder),
        running=holder.pid if holder else None,
        host=holder.host if holder else "",
        quarantine=quarantined(store.folder),
        damaged=tuple((path, why) for path, why in damaged_files(store).items()) if verify else None,
    )


def pending_units(
    *,
    plan: Plan,
    folder: str | Path,
    base_digest: str,
    sources: Sequence[LoadedSource],
    targets: Sequence[LoadedTarget],
) -> tuple[tuple[AdapterUnit, ...], tuple[CellUnit, ...]]:
    """What of a plan a run folder does not hold yet: all of it where there is no such folder.

    Looks at names only, so it is quick; ``execute`` also computes anew what turns out to be damaged.
    """
    store = RunStore(Path(folder))
    trained = trained_adapters(store)
    digests: dict[tuple[str, int | None], str | None] = {(BASELINE, None): None}
    for unit in plan.adapters:
        if unit.key in trained:
            digests[unit.source, unit.seed] = trained[unit.key].digest
    for source in sources:
        if source.adapter is not None:
            try:
                digests[source.name, None] = adapter_digest(source.adapter)
            except ModelError:
                continue
    asked = {target.name: target.digest for target in targets}
    cells = []
    for cell in plan.cells:
        place = cell.source, cell.seed
        key = cell_key(base_digest, digests[place], asked[cell.target]) if place in digests else None
        if key is None or not store.cell(key).exists():
            cells.append(cell)
    return tuple(unit for unit in plan.adapters if unit.key not in trained), tuple(cells)


def _partial_cells(store: RunStore, ledger: Ledger) -> list[CellEntry]:
    """Partial cells that no whole one has replaced; a failure that the whole cell has too is told there."""
    whole = {(one.source, one.seed, one.target): one.status for one in ledger.cells}
    found = []
    for cell in read_parts(store).cells:
        state = whole.get((cell.source, cell.seed, cell.target), "done")  # not asked for any more
        if state == "missing" or (state == "failed" and cell.status == "done"):
            found.append(cell)
    return found


def _tally(entries: Iterable[AdapterEntry | CellEntry]) -> Tally:
    states = [entry.status for entry in entries]
    return Tally(states.count("done"), states.count("failed"), states.count("missing"))


def _size(folder: Path) -> int:
    """Bytes of all files; one that is renamed or removed while we look counts nothing."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total


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
class _ProgressFile:
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
            started = max([self.progress.started, *(stage.heard for stage in self.stages.values())])
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
    kept = _ProgressFile(Path(folder) / NAME, clock, RunProgress(clock()))

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
