"""Every file of a run held against its checksum."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from traitmap.runs.cells import cell_fault
from traitmap.runs.store import RunStore, adapter_fault, record_faults, trained_adapters
from traitmap.runs.texts import text_faults

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
