"""Every file of a run held against its checksum."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from traitmap.runs.cells import cell_fault
from traitmap.runs.store import RunStore, adapter_fault, record_faults, trained_adapters
from traitmap.runs.texts import text_faults

_READERS = 2  # threads; Arrow reads and hashes without holding the others up


def damaged_files(store: RunStore) -> dict[str, str]:
    """Damaged files, seen from the run folder, each with its reason. Changes nothing, needs no lock."""
    found = {**record_faults(store), **text_faults(store)}
    for one in trained_adapters(store).values():
        found[store.adapter(one.key)] = adapter_fault(store, one)
    cells = sorted(store.cells.glob("[!.]*.parquet"))
    with ThreadPoolExecutor(_READERS) as pool:
        found |= dict(zip(cells, pool.map(cell_fault, cells), strict=True))
    return {path.relative_to(store.folder).as_posix(): why for path, why in sorted(found.items()) if why}
