"""The run folder: what was asked, and everything that is finished, each thing whole or not there.

output/NAME/
  study.yaml, study.json   the study as given, and as it was understood
  run.json                 the ledger: what was asked and what came of it
  adapters/<key>/          PEFT directories; valid only when a file in groups/ lists them
  groups/<key>.json        one per training pass, written after all its adapters
  cells/<key>.parquet      outcomes of one adapter (or the base) on one target
  contamination.json       items of the targets that stand in the training texts
  studies/<digest>.json    studies that this run was asked before
  quarantine/              damaged files, each with its reason; what they held is computed anew
  run.lock                 held by the one process that may write: its number and its machine
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import socket
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from traitmap.errors import ModelError, RunError
from traitmap.runs.cells import cell_fault
from traitmap.runs.files import (
    disk_trouble,
    json_fault,
    partial_path,
    publish,
    quarantine,
    read_sealed_json,
    remove_partials,
    write_sealed_json,
    write_whole,
)
from traitmap.runs.plan import adapter_digest
from traitmap.study.paths import digest
from traitmap.study.settings import Study

_KEY = re.compile(r"[0-9a-f]{32}")
_FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_RECORDS = ("run.json", "study.json", "parts.json", "contamination.json", "budget.json", "completion.json")
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})


@dataclass(frozen=True)
class RunStore:
    """The places of a run. Whoever holds one may read; writing needs ``locked_store``."""

    folder: Path

    @property
    def ledger(self) -> Path:
        return self.folder / "run.json"

    @property
    def adapters(self) -> Path:
        return self.folder / "adapters"

    @property
    def groups(self) -> Path:
        return self.folder / "groups"

    @property
    def cells(self) -> Path:
        return self.folder / "cells"

    @property
    def studies(self) -> Path:
        return self.folder / "studies"

    @property
    def texts(self) -> Path:
        return self.folder / "texts"

    @property
    def lock(self) -> Path:
        return self.folder / "run.lock"

    def adapter(self, key: str) -> Path:
        """The PEFT directory of a trained adapter. RunError for a key that leads elsewhere."""
        return self.adapters / file_name(key)

    def cell(self, key: str) -> Path:
        """The outcomes of one cell. RunError for a key that leads elsewhere."""
        return self.cells / f"{file_name(key)}.parquet"


@dataclass(frozen=True)
class TrainedAdapter:
    """An adapter that is finished: its key, the digest of its files, and how training went.

    report: the fields of ``engine.contract.TrainingReport`` as plain JSON data.
    """

    key: str
    digest: str
    report: Mapping[str, Any]


@dataclass(frozen=True)
class Holder:
    """Who writes a run at the moment. pid: None, and host: empty, where the lock does not tell."""

    pid: int | None
    host: str

    def __str__(self) -> str:
        who = "an unknown process" if self.pid is None else f"process {self.pid}"
        return f"{who} on {self.host}" if self.host else who


def file_name(name: str) -> str:
    """The name, where it is that of a file in its folder. RunError where it leads elsewhere or is hidden."""
    if not _FILE_NAME.fullmatch(name):
        raise RunError(f"{name!r}: no name of a file of a run; it may hold letters, digits, _, - and dots.")
    return name


def run_folder(study: Study) -> Path:
    """Where a study's run lies: ``output/name``, a relative ``output`` seen from the current folder."""
    return Path(study.output).expanduser() / study.name


def open_store(folder: str | Path) -> RunStore:
    """An existing run, for reading. RunError where there is none."""
    store = RunStore(Path(folder))
    if not store.folder.is_dir():
        raise RunError(f"{folder}: no such run folder; `traitmap run STUDY` makes one.")
    if not store.ledger.is_file():
        raise RunError(
            f"{folder}: holds no run.json, so it is no run folder; `traitmap run STUDY` makes one."
        )
    return store


@contextmanager
def locked_store(folder: str | Path) -> Iterator[RunStore]:
    """A run folder for writing, made where it is missing, cleaned of what killed writers left.

    The lock ends with the process that holds it, however it ends, so none is ever left behind.
    RunError, naming process and machine, where another one holds it; and, saying what to do, where the disk
    is full or cannot be written.
    """
    store = RunStore(Path(folder))
    try:
        for place in (store.folder, store.adapters, store.groups, store.cells, store.studies):
            place.mkdir(parents=True, exist_ok=True)
        with held_lock(store):
            _clean(store)
            yield store
    except Exception as error:
        trouble = "" if isinstance(error, RunError) else disk_trouble(error)
        if not trouble:
            raise
        raise RunError(
            f"{store.folder}: cannot be written ({trouble}); make room and run again, what is finished is "
            "kept."
        ) from error


@contextmanager
def held_lock(store: RunStore) -> Iterator[None]:
    """Nobody else may write this run. RunError where another process does."""
    descriptor = os.open(store.lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not _lock(descriptor, store):
            raise RunError(
                f"{store.folder}: {_holder(store)} is running this study; wait for it or stop it. "
                "(A lock ends with its process.)"
            )
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode())
        yield
    finally:
        os.close(descriptor)  # gives the lock back, as the end of the process does


def lock_holder(store: RunStore) -> Holder | None:
    """Who writes this run at the moment, or None."""
    try:
        with store.lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return _holder(store)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return None


def running_pid(store: RunStore) -> int | None:
    """The process that writes this run at the moment, or None."""
    holder = lock_holder(store)
    return holder.pid if holder else None


def freeze_study(store: RunStore, study: Study) -> str:
    """Keep the study beside its results, and the one before it under its digest. Returns its digest."""
    understood = study.model_dump(mode="json")
    frozen = store.folder / "study.json"
    if frozen.exists() and (before := read_sealed_json(frozen)) != understood:
        write_sealed_json(store.studies / f"{digest(before)}.json", before)
    if study.path is not None and study.path.is_file():
        given = study.path.read_bytes()
    else:
        given = yaml.safe_dump(understood, sort_keys=False, allow_unicode=True).encode("utf-8")
    write_whole(store.folder / "study.yaml", given)
    write_sealed_json(frozen, understood)
    return digest(understood)


def read_study(store: RunStore) -> dict[str, Any] | None:
    """The study as it was understood; None where it is not there or damaged, and the next run mends it."""
    try:
        return read_sealed_json(store.folder / "study.json")
    except (OSError, ValueError):
        return None


def stage_adapter(store: RunStore, key: str) -> Path:
    """An empty folder for an adapter to be written into; ``commit_adapters`` makes it count."""
    staged = partial_path(store.adapter(key))
    if staged.exists():
        shutil.rmtree(staged)
    staged.mkdir()
    return staged


def commit_adapters(store: RunStore, trained: Sequence[TrainedAdapter]) -> None:
    """Make staged adapters count, all together: the list of them is written last."""
    for one in trained:
        publish(partial_path(store.adapter(one.key)), store.adapter(one.key))
    _write_listing(store.groups / f"{digest(sorted(one.key for one in trained))}.json", trained)


def trained_adapters(store: RunStore) -> dict[str, TrainedAdapter]:
    """Every finished adapter by its key. Looks at the lists only; ``check_adapters`` reads the files.

    A damaged list counts nothing: the next run moves it to the quarantine and trains its adapters again.
    """
    found = {}
    for path in sorted(store.groups.glob("[!.]*.json")):
        for one in _listing(path):
            found[one.key] = one
    return {key: one for key, one in found.items() if store.adapter(key).is_dir()}


def check_adapters(store: RunStore) -> dict[str, TrainedAdapter]:
    """Every finished adapter whose files are still those that were written.

    A damaged one goes to the quarantine and is struck off its list, so that it is trained again. Needs the
    lock.
    """
    intact = {}
    for key, one in trained_adapters(store).items():
        fault = adapter_fault(store, one)
        if fault:
            quarantine(store.folder, store.adapter(key), fault)
            strike_off(store, {key})
        else:
            intact[key] = one
    return intact


def adapter_fault(store: RunStore, one: TrainedAdapter) -> str:
    """Why an adapter's files cannot be used; nothing where they are those that were written."""
    try:
        same = adapter_digest(store.adapter(one.key)) == one.digest
    except ModelError as error:
        return str(error)
    return "" if same else "its files are not those that were written"


def check_cell(store: RunStore, key: str) -> bool:
    """Whether a cell is there and whole. A damaged one goes to the quarantine. Needs the lock."""
    path = store.cell(key)
    if not path.exists():
        return False
    fault = cell_fault(path)
    if fault:
        quarantine(store.folder, path, fault)
    return not fault


def record_faults(store: RunStore) -> dict[Path, str]:
    """Damaged JSON files of a run, each with its reason; all others are whole."""
    places = [store.folder / name for name in _RECORDS]
    places += [*sorted(store.groups.glob("[!.]*.json")), *sorted(store.studies.glob("[!.]*.json"))]
    return {place: fault for place in places if (fault := json_fault(place))}


def _lock(descriptor: int, store: RunStore) -> bool:
    """Try to take the lock. Not once only: ``lock_holder`` of a reader holds it for an instant."""
    for _ in range(5):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.05)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                raise RunError(
                    f"{store.folder}: its file system has no locks, so two runs could write it at once; "
                    "give an output on a local disk."
                ) from error
            raise
    return False


def _holder(store: RunStore) -> Holder:
    words = store.lock.read_text(encoding="utf-8", errors="replace").split()
    pid = int(words[0]) if words and words[0].isdecimal() else None
    return Holder(pid, words[1] if len(words) > 1 else "")


def _clean(store: RunStore) -> None:
    """Remove what was being written when a process ended and adapters that no list counts.

    Damaged records go to the quarantine.
    """
    for place in written_folders(store):
        remove_partials(place)
    for place, fault in record_faults(store).items():
        quarantine(store.folder, place, fault)
    counted = trained_adapters(store)
    for folder in store.adapters.iterdir():
        if _KEY.fullmatch(folder.name) and folder.name not in counted:
            shutil.rmtree(folder)


def written_folders(store: RunStore) -> tuple[Path, ...]:
    """The folders in which a killed writer may have left something."""
    return store.folder, store.adapters, store.groups, store.cells, store.studies, store.texts


def _listing(path: Path) -> list[TrainedAdapter]:
    try:
        listed = read_sealed_json(path)["adapters"]
        return [TrainedAdapter(one["key"], one["digest"], one["report"]) for one in listed]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _write_listing(path: Path, trained: Sequence[TrainedAdapter]) -> None:
    listing = [{"key": one.key, "digest": one.digest, "report": dict(one.report)} for one in trained]
    write_sealed_json(path, {"adapters": listing})


def strike_off(store: RunStore, keys: Collection[str]) -> None:
    """Take adapters off the lists that make them count; a list without any goes. Needs the lock."""
    for path in sorted(store.groups.glob("[!.]*.json")):
        listed = _listing(path)
        left = [one for one in listed if one.key not in keys]
        if listed and not left:
            path.unlink()
        elif len(left) < len(listed):
            _write_listing(path, left)
