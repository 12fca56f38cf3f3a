"""How far a run is: what is done, what failed and why, what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitmap.errors import ModelError
from traitmap.runs.damage import damaged_files
from traitmap.runs.keys import adapter_digest, cell_key
from traitmap.runs.ledger import AdapterEntry, CellEntry, Ledger, read_ledger
from traitmap.runs.parts import read_parts
from traitmap.runs.plan import AdapterUnit, CellUnit, Plan
from traitmap.runs.quarantine import Quarantined, quarantined
from traitmap.runs.store import RunStore, lock_holder, open_store, trained_adapters
from traitmap.study.settings import BASELINE

if TYPE_CHECKING:
    from traitmap.data.sources import LoadedSource
    from traitmap.data.targets import LoadedTarget


@dataclass(frozen=True)
class Tally:
    """Units by what came of them."""

    done: int
    failed: int
    missing: int


@dataclass(frozen=True)
class Failure:
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
    failures: tuple[Failure, ...]
    bytes: int
    running: int | None
    partial: Tally = Tally(0, 0, 0)
    host: str = ""
    quarantine: tuple[Quarantined, ...] = ()
    damaged: tuple[tuple[str, str], ...] | None = None

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
        return {**asdict(self), "failures": [asdict(one) for one in self.failures], "complete": self.complete}


def run_status(run: RunStore | str | Path, *, verify: bool = False) -> RunStatus:
    """Status of a run folder, whether or not it is running. RunError where there is no run.

    verify: read every file and hold it against its checksum; the units stay counted as their names say.
    """
    store = run if isinstance(run, RunStore) else open_store(run)
    ledger = read_ledger(store)
    broken = {(one.source, one.seed) for one in ledger.adapters if one.status == "failed"}
    failures = [
        Failure(one.source, one.seed, None, one.reason) for one in ledger.adapters if one.status == "failed"
    ]
    partial, holder = _partial_cells(store, ledger), lock_holder(store)
    failures += [
        Failure(one.source, one.seed, one.target, one.reason)
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
    for one in read_parts(store).cells:
        state = whole.get((one.source, one.seed, one.target), "done")  # not asked for any more
        if state == "missing" or (state == "failed" and one.status == "done"):
            found.append(one)
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
