"""How far a run is, which of its files are damaged, what nothing needs any more, and what is under way.

``run_status`` counts by the ledger and, if asked, holds every file against its checksum. ``find_waste`` lists
what no entry of the study needs. Whoever watches a run in progress reads one small file, ``progress.json``,
which the run's listener keeps. Nothing here changes a result.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from math import isfinite, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from traitmap.errors import ModelError
from traitmap.jsonable import outline
from traitmap.progress import Listener, Progress
from traitmap.runs.cells import cell_fault
from traitmap.runs.files import (
    PARTIAL,
    QUARANTINE,
    Quarantined,
    files_in,
    json_fault,
    quarantined,
    write_json,
)
from traitmap.runs.ledger import GONE, AdapterEntry, CellEntry, Ledger, read_ledger, read_parts
from traitmap.runs.plan import AdapterUnit, CellUnit, MergeUnit, Plan, adapter_digest, cell_key
from traitmap.runs.store import (
    RunStore,
    adapter_fault,
    held_lock,
    lock_holder,
    open_store,
    record_files,
    strike_off,
    trained_adapters,
    written_folders,
)
from traitmap.runs.texts import text_fault, text_files
from traitmap.study.settings import BASELINE

if TYPE_CHECKING:
    from traitmap.data.sources import LoadedSource
    from traitmap.data.targets import LoadedTarget


_READERS = 2  # threads; Arrow reads and hashes without holding the others up


@dataclass(frozen=True)
class FileFaults:
    """What is wrong with the files of a run, each seen from its folder, with the reason.

    damaged: they are not what was written. unreadable: the system does not give them, so that nobody knows
    whether they are whole. absent: the run has had them (``absent_files``).
    """

    damaged: tuple[tuple[str, str], ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()
    absent: tuple[tuple[str, str], ...] = ()


def file_faults(store: RunStore, ledger: Ledger | None) -> FileFaults:
    """Every file of a run held against its checksum. Changes nothing, needs no lock.

    Records, texts, adapters and cells are read, cells by ``_READERS`` threads; what is in the quarantine
    already is not listed. ledger: what the run has had; None where nobody knows.
    """
    adapters = {store.adapter(adapter.key): adapter for adapter in trained_adapters(store).values()}
    checks: dict[Path, Callable[[Path], str]] = dict.fromkeys(record_files(store), json_fault)
    checks |= dict.fromkeys(files_in(store.texts, "[!.]*.parquet"), text_fault)
    checks |= dict.fromkeys(adapters, lambda place: adapter_fault(store, adapters[place]))
    checks |= dict.fromkeys(files_in(store.cells, "[!.]*.parquet"), cell_fault)
    ordered = sorted(checks)

    def fault(path: Path) -> tuple[str, bool]:
        try:
            return checks[path](path), False
        except OSError as error:
            return f"cannot be read ({error.strerror or error})", True

    with ThreadPoolExecutor(_READERS) as pool:
        found = [
            (path.relative_to(store.folder).as_posix(), *entry)
            for path, entry in zip(ordered, pool.map(fault, ordered), strict=True)
        ]
    return FileFaults(
        damaged=tuple((path, why) for path, why, refused in found if why and not refused),
        unreadable=tuple((path, why) for path, why, refused in found if refused),
        absent=() if ledger is None else tuple(absent_files(store, ledger).items()),
    )


def damaged_files(store: RunStore) -> dict[str, str]:
    """Damaged files, seen from the run folder, each with its reason; see ``file_faults``."""
    return dict(file_faults(store, None).damaged)


_LOSSES = {
    "contamination.json": "overlap of test items with the training data is not compared; `traitmap run` does",
    "item_groups.json": "items that repeat may count more than once; `traitmap run` compares them again",
    "parts.json": "cells measured in part are not known; `traitmap run --budget` measures them again",
    "budget.json": "what the budget was spent on is not known; `traitmap run --budget` writes it again",
    "completion.json": "what was predicted is not known; `traitmap run --budget` predicts it again",
}
_LOST_TEXTS = "why gains are what they are cannot be told without texts; `traitmap run` keeps them again"


def absent_files(store: RunStore, ledger: Ledger) -> dict[str, str]:
    """What the run has had and lacks, seen from its folder, each with what is lost and how it comes back.

    By the ledger: records and texts that it lists, adapters and cells that it counts as done. Texts of
    sources and targets that the study has no more are not needed. Looks at names only.
    """
    needed = {path.relative_to(store.folder).as_posix() for path in text_files(store, ledger)}
    absent = {
        name: _LOST_TEXTS if name in needed else _LOSSES.get(name, "`traitmap run` writes it again")
        for name in ledger.records
        if (name in needed or not name.startswith("texts/")) and not (store.folder / name).exists()
    }
    units: tuple[AdapterEntry | CellEntry, ...] = (*ledger.adapters, *ledger.cells)
    for unit in units:
        if unit.reason == GONE and unit.key is not None:
            path = store.adapter(unit.key) if isinstance(unit, AdapterEntry) else store.cell(unit.key)
            absent[path.relative_to(store.folder).as_posix()] = unit.reason
    return absent


def cell_faults(paths: Iterable[Path]) -> dict[Path, str]:
    """Those cells that are damaged, each with its reason.

    Files are read by ``_READERS`` threads. Cells that are whole are left out, in the order of the paths.
    """
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
    cells that are not done, those of which only some items were to be asked, by what came of these. settled:
    of them those that a rule of the study has ended: nothing more is to be asked of them.
    failures: in the order of the study; the cells of an adapter that failed are counted as failed, and the
    adapter alone is listed. bytes: used on the disk. running: the process that is running it now, or None,
    and host: its machine. quarantine: damaged files that were moved out of the way. damaged: files that are
    not what was written and are still in their places, path and reason; unreadable: files that the system
    does not give; both None where nobody looked. absent: files that the run has had and lacks.
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
    settled: int = 0
    host: str = ""
    quarantine: tuple[Quarantined, ...] = ()
    damaged: tuple[tuple[str, str], ...] | None = None
    unreadable: tuple[tuple[str, str], ...] | None = None
    absent: tuple[tuple[str, str], ...] = ()

    __repr__ = outline

    @property
    def failed(self) -> int:
        """Units that failed, whole or partial, each once; cells without an adapter are among them."""
        return self.adapters.failed + self.cells.failed + self.partial.failed

    @property
    def complete(self) -> bool:
        """Everything that was asked for is done. A partial cell is not done, unless it is settled."""
        open_cells = self.cells.missing - self.settled
        return not (self.adapters.failed or self.adapters.missing or self.cells.failed or open_cells)

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
        FailedUnit(adapter.source, adapter.seed, None, adapter.reason)
        for adapter in ledger.adapters
        if adapter.status == "failed"
    ]
    partial, holder = _partial_cells(store, ledger), lock_holder(store)
    failures += [
        FailedUnit(cell.source, cell.seed, cell.target, cell.reason)
        for cell in (*ledger.cells, *partial)
        if cell.status == "failed" and (cell.source, cell.seed) not in broken
    ]
    if verify:
        faults = file_faults(store, ledger)
    else:
        faults = FileFaults(absent=tuple(absent_files(store, ledger).items()))
    total = 0
    for path in store.folder.rglob("*"):
        with suppress(FileNotFoundError):  # renamed or removed while we look
            total += path.stat().st_size if path.is_file() else 0
    return RunStatus(
        name=ledger.name,
        folder=str(store.folder),
        base=ledger.base,
        adapters=_tally(ledger.adapters),
        cells=_tally(ledger.cells),
        partial=_tally(partial),
        settled=sum(cell.status == "done" and bool(cell.settled) for cell in partial),
        failures=tuple(failures),
        bytes=total,
        running=holder.pid if holder else None,
        host=holder.host if holder else "",
        quarantine=quarantined(store.folder),
        damaged=faults.damaged if verify else None,
        unreadable=faults.unreadable if verify else None,
        absent=faults.absent,
    )


def pending_units(
    *,
    plan: Plan,
    folder: str | Path,
    base_digest: str,
    sources: Sequence[LoadedSource],
    targets: Sequence[LoadedTarget],
) -> tuple[tuple[AdapterUnit, ...], tuple[MergeUnit, ...], tuple[CellUnit, ...]]:
    """Adapters, merges and cells of a plan that a run folder does not hold yet: all, where there is none.

    Looks at names only, so it is quick; ``execute`` also computes anew what turns out to be damaged.
    """
    store = RunStore(Path(folder))
    trained = trained_adapters(store)
    digests: dict[tuple[str, int | None], str | None] = {(BASELINE, None): None}
    made: tuple[AdapterUnit | MergeUnit, ...] = (*plan.adapters, *plan.merges)
    for unit in made:
        if unit.key in trained:
            digests[unit.source, unit.seed] = trained[unit.key].digest
    for source in sources:
        if source.adapter is not None:
            try:
                digests[source.name, None] = adapter_digest(source.adapter)
            except ModelError:
                continue
    tests = {target.name: target.digest for target in targets}
    cells = []
    for cell in plan.cells:
        place = cell.source, cell.seed
        key = cell_key(base_digest, digests[place], tests[cell.target]) if place in digests else None
        if key is None or not store.cell(key).exists():
            cells.append(cell)
    adapters = tuple(unit for unit in plan.adapters if unit.key not in trained)
    return adapters, tuple(unit for unit in plan.merges if unit.key not in trained), tuple(cells)


def _partial_cells(store: RunStore, ledger: Ledger) -> list[CellEntry]:
    """Partial cells that no whole one has replaced; a failure of both is that of the whole one."""
    whole = {(cell.source, cell.seed, cell.target): cell.status for cell in ledger.cells}
    partial = []
    for cell in read_parts(store).cells:
        state = whole.get((cell.source, cell.seed, cell.target), "done")  # not asked for any more
        if state == "missing" or (state == "failed" and cell.status == "done"):
            partial.append(cell)
    return partial


def _tally(entries: Iterable[AdapterEntry | CellEntry]) -> Tally:
    states = [entry.status for entry in entries]
    return Tally(states.count("done"), states.count("failed"), states.count("missing"))


Kind = Literal["cell", "adapter", "texts", "leftover", "quarantine"]


@dataclass(frozen=True)
class Waste:
    """A file or folder that nothing needs.

    path: seen from the run folder. bytes: of the file, or of all files in the folder. why: in words.
    """

    path: str
    kind: Kind
    bytes: int
    why: str


def find_waste(store: RunStore) -> tuple[Waste, ...]:
    """What no entry of the study that was asked last needs. Reads only; RunError without a whole ledger.

    Files that traitmap does not write are never listed, nor is what stands behind a link. In order: what
    killed writers left, cells, adapters, texts, quarantine, each sorted by path within its folder.
    """
    former, waste = "of a former version of the study", list[Waste]()

    def add(paths: Iterable[Path], kind: Kind, why: str) -> None:
        waste.extend(Waste(p.relative_to(store.folder).as_posix(), kind, _bytes(p), why) for p in paths)

    for folder in written_folders(store):
        add(_listed(folder, PARTIAL + "*"), "leftover", "its writer was killed")
        add(_listed(folder, "*.damaged-[0-9]*"), "quarantine", "damaged, set aside by an earlier version")
    ledger = read_ledger(store)
    needed = {cell.key for cell in (*ledger.cells, *read_parts(store).cells)}
    needed |= {cell.earlier for cell in ledger.cells}
    add((p for p in _listed(store.cells, "[!.]*.parquet") if p.stem not in needed), "cell", former)
    needed = {adapter.key for adapter in ledger.adapters}
    add((p for p in _listed(store.adapters, "[0-9a-f]" * 32) if p.name not in needed), "adapter", former)
    texts = set(text_files(store, ledger))
    unread = (p for p in _listed(store.texts, "*-*.parquet") if p not in texts)
    unread = (p for p in unread if p.name.startswith(("source-", "target-")))
    add(unread, "texts", "of a source or target that the study has no more")
    reasons = {file.kept: f"was {file.path}: {file.reason}" for file in quarantined(store.folder)}
    for path in _listed(store.folder / QUARANTINE, "[!.]*"):
        add(
            [path], "quarantine", reasons.get(path.name) or f"the reason of {path.name.removesuffix('.json')}"
        )
    return tuple(waste)


def remove_waste(store: RunStore) -> tuple[Waste, ...]:
    """Remove what ``find_waste`` finds, and return it. RunError where another process writes this run.

    Adapters are struck off the lists that make them count first, so that a kill in between leaves no list
    with an adapter that is not there. An empty quarantine goes too.
    """
    with held_lock(store):
        waste = find_waste(store)
        strike_off(store, {Path(entry.path).name for entry in waste if entry.kind == "adapter"})
        for entry in waste:
            path = store.folder / entry.path
            if path.is_symlink() or not path.is_dir():
                path.unlink(missing_ok=True)
            else:
                shutil.rmtree(path)
        place = store.folder / QUARANTINE
        if place.is_dir() and not place.is_symlink() and not any(place.iterdir()):
            place.rmdir()
    return waste


def _listed(folder: Path, pattern: str) -> list[Path]:
    """Sorted matches in a folder of the run itself: behind a link lies somebody else's."""
    return files_in(folder, pattern) if not folder.is_symlink() else []


def _bytes(path: Path) -> int:
    """Bytes of a file or of all files in a folder; links count themselves, never what they lead to."""
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    return sum((Path(folder) / name).lstat().st_size for folder, _, files in os.walk(path) for name in files)


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


class _ProgressFile:
    """What has been heard, and when it was last written."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self.path, self.clock, self.started = path, clock, clock()
        self.written = 0.0
        self.stages: dict[str, StageProgress] = {}
        self.losses: list[tuple[float, float]] = []
        self.stride, self.skipped = 1, 0  # of losses: every ``stride``-th is kept

    def hear(self, report: Progress) -> None:
        now = self.clock()
        before = self.stages.get(report.stage)
        begins = before is None or report.done < before.done  # a budget goes through its stages repeatedly
        if before is None or begins:
            # Its first report comes after its first work, so it began when anything was last heard.
            started = max([self.started, *(stage.heard for stage in self.stages.values())])
            self.stages.pop(report.stage, None)
            before = StageProgress(report.stage, 0.0, report.total, "", started, now)
        self.stages[report.stage] = replace(
            before, done=report.done, total=report.total, detail=report.detail, heard=now
        )
        loss = _LOSS.search(report.detail)
        if loss is not None and isfinite(float(loss[1])):
            self.skipped += 1
            if self.skipped >= self.stride:
                self.skipped = 0
                self.losses.append((report.done, float(loss[1])))
            if len(self.losses) > MOST_LOSSES:
                self.losses = self.losses[::2]
                self.stride *= 2
        if begins or now - self.written >= INTERVAL:
            self.written = now
            progress = RunProgress(self.started, tuple(self.stages.values()), tuple(self.losses))
            with suppress(OSError):  # a full disk is told by whatever must be kept, not by this
                write_json(self.path, asdict(progress))


@contextmanager
def kept_progress(
    folder: str | Path, listener: Listener, clock: Callable[[], float] = time.time
) -> Iterator[Listener]:
    """A listener that hands every report on and keeps them in ``progress.json``, at most once a second.

    The file is there only while the run is in progress: it is removed at the end, however the run ends. A
    killed run leaves it; ``store.running_pid`` tells whether anybody still writes it. Only the process that
    holds the run's lock reports, so only that one writes.
    """
    file = _ProgressFile(Path(folder) / NAME, clock)

    def hear(report: Progress) -> None:
        listener(report)
        file.hear(report)

    try:
        yield hear
    finally:
        if file.stages:
            file.path.unlink(missing_ok=True)


def read_progress(folder: str | Path) -> RunProgress | None:
    """What a run has reported, or None where it has not (yet), or the file is no such file.

    folder: of a run. The file is written whole, so what is read is one moment. Never raises.
    """
    try:
        raw: dict[str, Any] = json.loads((Path(folder) / NAME).read_text(encoding="utf-8"))
        return RunProgress(
            started=float(raw["started"]),
            stages=tuple(StageProgress(**stage) for stage in raw["stages"]),
            losses=tuple((float(done), float(loss)) for done, loss in raw["losses"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
