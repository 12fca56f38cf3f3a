"""Results that are computed once for a state of a run and kept in its folder, under ``results/``.

A result is named by a digest of all that it comes from: the run's records, the names, sizes and times of its
cells, texts and adapters, the settings that were asked for, and traitmap's own code with the packages that
compute. So it is never read for another state, and a new version of traitmap computes anew. What cannot be
kept (a folder that may not be written, a run in progress, a full disk) is computed each time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from traitmap.errors import RunError
from traitmap.jsonable import restored, stored
from traitmap.runs.files import read_sealed_json, write_sealed_json
from traitmap.runs.store import RunStore, held_lock
from traitmap.study.paths import digest

T = TypeVar("T")

_PACKAGES = ("numpy", "scipy", "pandas", "scikit-learn", "pyarrow")
_FAULTS = (OSError, ValueError, KeyError, TypeError, AttributeError)


def kept_result(
    folder: Path, name: str, kind: type[T], settings: Mapping[str, Any], compute: Callable[[], T]
) -> T:
    """The result of this name for the run as it stands: as it was kept, else computed and kept.

    kind: the record (dataclass) that ``compute`` gives. settings: what was asked for, JSON data. Results of
    earlier states of the run are removed when a new one is written. Raises what ``compute`` raises.
    """
    store = RunStore(folder)
    state = _state(store)
    path = store.results / f"{name}-{state}-{digest(dict(settings), 16)}.json"
    try:
        return restored(kind, read_sealed_json(path)["result"])
    except _FAULTS:
        result = compute()
    if state != _state(store):  # a run went on meanwhile
        return result
    with suppress(*_FAULTS, RunError), held_lock(store):
        path.parent.mkdir(exist_ok=True)
        for former in path.parent.glob("*.json"):
            if f"-{state}-" not in former.name:
                former.unlink()
        write_sealed_json(path, {"result": stored(result)})
    return result


def _state(store: RunStore) -> str:
    """Digest of all that results of a run come from."""
    hashed = sha256(_software().encode())
    for path in sorted(store.folder.glob("[!.]*.json")):
        if path.name != "progress.json":
            with suppress(FileNotFoundError):
                hashed.update(path.name.encode() + path.read_bytes())
    for place in (store.cells, store.texts, store.adapters):
        with suppress(FileNotFoundError), os.scandir(place) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                stat = entry.stat()
                hashed.update(f"{entry.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return hashed.hexdigest()[:16]


@cache
def _software() -> str:
    """traitmap's own code and the versions of what computes with it."""
    hashed, home = sha256(), Path(__file__).parents[1]
    for path in sorted(home.rglob("*.py")):
        hashed.update(path.relative_to(home).as_posix().encode() + path.read_bytes())
    return f"{hashed.hexdigest()} {[version(package) for package in _PACKAGES]}"
