"""The run folder: what was asked, and everything that is finished, each thing whole or not there.

output/NAME/
  study.yaml, study.json   the study as given, and as it was understood
  run.json                 the ledger: what was asked and what came of it
  adapters/<key>/          PEFT directories; valid only when a file in groups/ lists them
  groups/<key>.json        one per training pass, written after all its adapters
  training/<key>.safetensors  how far a training pass is, while it lasts (engine.pass_state)
  cells/<key>.parquet      outcomes of one adapter (or the base) on one target
  contamination.json       items of the targets that stand in the training texts
  item_groups.json         items of the targets that repeat or belong together
  drift.json               how far each adapter has moved from the base, text by text
  studies/<digest>.json    studies that this run was asked before
  results/                 what was computed from all this, once for each state of it (runs.results)
  quarantine/              damaged files, each with its reason; what they held is computed anew
  run.lock                 held by the one process that may write: its number and its machine
"""

from __future__ import annotations

import errno
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

import filelock
import yaml

from traitmap.errors import ModelError, NewerRunError, RunError
from traitmap.runs.cells import cell_fault
from traitmap.runs.files import (
    disk_trouble,
    files_in,
    json_fault,
    partial_path,
    publish,
    quarantine,
    read_sealed_json,
    remove_partials,
    require_plain_file,
    write_sealed_json,
    write_whole,
)
from traitmap.runs.plan import adapter_digest
from traitmap.study.paths import digest
from traitmap.study.settings import Study

FORMAT = 1  # of the ledger
_KEY = re.compile(r"[0-9a-f]{32}")
_FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_RECORDS = (
    "run.json",
    "study.json",
    "parts.json",
    "contamination.json",
    "item_groups.json",
    "drift.json",
    "budget.json",
    "completion.json",
)
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
    def training(self) -> Path:
        return self.folder / "training"

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
    def results(self) -> Path:
        return self.folder / "results"

    @property
    def lock(self) -> Path:
        return self.folder / "run.lock"

    def adapter(self, key: str) -> Path:
        """The PEFT directory of a trained adapter. RunError for a key that leads elsewhere."""
        return self.adapters / file_name(key)

    def training_state(self, keys: Sequence[str]) -> Path:
        """How far the training pass of these adapters (keys, in their order) is."""
        return self.training / f"{digest(list(keys))}.safetensors"

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
    """Where a study's run lies: ``output/name``, a relative ``output`` seen from the current folder.

    The folder need not be there, and nothing is made.
    """
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

    Adapters that no list counts are removed, and damaged records go to the quarantine.
    The lock ends with the process that holds it, however it ends, so none is ever left behind.
    RunError, naming process and machine, where another one holds it; and, saying what to do, where the disk
    is full or cannot be written. NewerRunError, before anything is touched, where a newer traitmap wrote it.
    OSError where a file is not given: it may be whole, so it is neither moved nor made anew.
    """
    store = RunStore(Path(folder))
    try:
        for place in (store.folder, store.adapters, store.groups, store.cells, store.studies):
            place.mkdir(parents=True, exist_ok=True)
        with held_lock(store):
            refuse_newer(store)
            for place in written_folders(store):
                remove_partials(place)
            for place, fault in record_faults(store).items():
                quarantine(store.folder, place, fault)
            counted = trained_adapters(store)
            for place in store.adapters.iterdir():
                if _KEY.fullmatch(place.name) and place.name not in counted:
                    shutil.rmtree(place)
            yield store
            _list_records(store)
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
    """Nobody else may write this run. RunError where another process does.

    The lock file then tells process and machine. It is never removed, and holds nobody up by being there.
    RunError also where the file system has no locks.
    """
    _require_lock_file(store)
    descriptor = os.open(store.lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            locked = _lock_soon(descriptor, attempts=5)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                raise RunError(
                    f"{store.folder}: its file system has no locks, so two runs could write it at once; give "
                    "an output on a local disk."
                ) from error
            raise
        if not locked:
            raise RunError(
                f"{store.folder}: {_holder(store)} is running this study; wait for it or stop it. "
                "(A lock ends with its process.)"
            )
        os.ftruncate(descriptor, 0)
        # a blank first: Windows locks the first byte, which nobody else can read then
        os.write(descriptor, f" {os.getpid()} {socket.gethostname()}\n".encode())
        try:
            yield
        finally:
            filelock.unlock_descriptor(descriptor)
    finally:
        os.close(descriptor)  # gives the lock back, as the end of the process does


def _require_lock_file(store: RunStore) -> None:
    """RunError where something else than a file stands in the lock's place; a pipe would be waited for."""
    try:
        require_plain_file(store.lock)
    except FileNotFoundError:
        return
    except ValueError as error:
        raise RunError(f"{store.lock}: {error}; move it away.") from None


def _lock_soon(descriptor: int, attempts: int) -> bool:
    """Whether the lock was had. Not tried once only: a reader that asks who has it has it for an instant."""
    for attempt in range(attempts):
        if filelock.lock_descriptor(descriptor, blocking=False):
            return True
        if attempt + 1 < attempts:
            time.sleep(0.05)
    return False


def lock_holder(store: RunStore) -> Holder | None:
    """Who writes this run at the moment, or None.

    A reader's question takes the lock for an instant; a file system without locks answers None.
    """
    _require_lock_file(store)
    try:
        with store.lock.open("rb") as file:
            if not _lock_soon(file.fileno(), attempts=2):
                return _holder(store)
            filelock.unlock_descriptor(file.fileno())
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return None


def running_pid(store: RunStore) -> int | None:
    """The process that writes this run at the moment, or None.

    None also where the lock file does not tell the process that holds it.
    """
    holder = lock_holder(store)
    return holder.pid if holder else None


def refuse_newer(store: RunStore) -> None:
    """NewerRunError where the ledger is whole and of a newer format than this traitmap reads."""
    try:
        form = read_sealed_json(store.ledger).get("format")
    except (FileNotFoundError, ValueError):
        return
    if type(form) is int and form > FORMAT:
        raise NewerRunError(
            f"{store.folder}: a newer traitmap wrote this run (format {form}; this one reads {FORMAT}). It "
            "is left as it is; update traitmap, or give another output."
        )


def side_records(store: RunStore) -> tuple[str, ...]:
    """What stands in the folder beside ledger, cells and adapters, seen from there: a run that has had one
    of these files and lacks it later has lost it."""
    places = [store.folder / name for name in ("study.yaml", *_RECORDS[1:])]
    places += [*files_in(store.studies, "[!.]*.json"), *files_in(store.texts, "[!.]*.parquet")]
    return tuple(sorted(path.relative_to(store.folder).as_posix() for path in places if path.is_file()))


def _list_records(store: RunStore) -> None:
    """Bring the ledger's list of side records up to date with what was written after it. Needs the lock."""
    try:
        ledger = read_sealed_json(store.ledger)
        records = sorted({*ledger.get("records", ()), *side_records(store)})
    except (FileNotFoundError, ValueError, TypeError):
        return
    if records != ledger.get("records"):
        write_sealed_json(store.ledger, {**ledger, "records": records})


def freeze_study(store: RunStore, study: Study) -> str:
    """Keep the study beside its results, and the one before it under its digest. Returns its digest.

    Writes ``study.yaml`` as it was given, or from the record where it came from no file, and ``study.json``
    as it was understood. ``studies/<digest>.json`` keeps the one before where it was another. Needs the lock.
    """
    understood = study.model_dump(mode="json")
    frozen = store.folder / "study.json"
    if frozen.exists() and (before := read_sealed_json(frozen)) != understood:
        write_sealed_json(store.studies / f"{digest(before)}.json", before)
    if study.path is not None and study.path.is_file():
        content = study.path.read_bytes()
    else:
        content = yaml.safe_dump(understood, sort_keys=False, allow_unicode=True).encode("utf-8")
    write_whole(store.folder / "study.yaml", content)
    write_sealed_json(frozen, understood)
    return digest(understood)


def read_study(store: RunStore) -> dict[str, Any] | None:
    """The study as it was understood; None where it is not there or damaged, and the next run mends it.

    The values are those of the study's settings as JSON data (``Study.model_dump``).
    """
    try:
        return read_sealed_json(store.folder / "study.json")
    except (FileNotFoundError, ValueError):
        return None


def stage_adapter(store: RunStore, key: str) -> Path:
    """An empty folder for an adapter to be written into; ``commit_adapters`` makes it count."""
    staged = partial_path(store.adapter(key))
    if staged.exists():
        shutil.rmtree(staged)
    staged.mkdir()
    return staged


def commit_adapters(store: RunStore, trained: Sequence[TrainedAdapter]) -> None:
    """Make staged adapters count, all together: the list of them is written last.

    trained: those of one training pass, each in the folder that ``stage_adapter`` gave. A kill before the end
    leaves folders that count nothing and that the next writer removes. Needs the lock.
    """
    for adapter in trained:
        publish(partial_path(store.adapter(adapter.key)), store.adapter(adapter.key))
    _write_listing(store.groups / f"{digest(sorted(adapter.key for adapter in trained))}.json", trained)


def trained_adapters(store: RunStore) -> dict[str, TrainedAdapter]:
    """Every finished adapter by its key. Looks at the lists only; ``check_adapters`` reads the files.

    A damaged list counts nothing: the next run moves it to the quarantine and trains its adapters again.
    """
    paths = files_in(store.groups, "[!.]*.json")
    listed = {adapter.key: adapter for path in paths for adapter in _listing(path)}
    return {key: adapter for key, adapter in listed.items() if store.adapter(key).is_dir()}


def check_adapters(store: RunStore) -> dict[str, TrainedAdapter]:
    """Every finished adapter whose files are still those that were written.

    A damaged one goes to the quarantine and is struck off its list, so that it is trained again. Needs the
    lock.
    """
    intact = {}
    for key, adapter in trained_adapters(store).items():
        fault = adapter_fault(store, adapter)
        if fault:
            quarantine(store.folder, store.adapter(key), fault)
            strike_off(store, {key})
        else:
            intact[key] = adapter
    return intact


def adapter_fault(store: RunStore, adapter: TrainedAdapter) -> str:
    """Why an adapter's files cannot be used; nothing where they are those that were written.

    The digest of its weights and configuration is held against the one that was listed after training.
    """
    try:
        same = adapter_digest(store.adapter(adapter.key)) == adapter.digest
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


def record_files(store: RunStore) -> tuple[Path, ...]:
    """Where the JSON files of a run are: records, there or not, every listing of adapters, former studies."""
    places = [store.folder / name for name in _RECORDS]
    return (*places, *files_in(store.groups, "[!.]*.json"), *files_in(store.studies, "[!.]*.json"))


def record_faults(store: RunStore) -> dict[Path, str]:
    """Damaged JSON files of a run, each with its reason; all others are whole.

    Those that are not there are no fault. OSError for one that the system does not give.
    """
    return {place: fault for place in record_files(store) if (fault := json_fault(place))}


def _holder(store: RunStore) -> Holder:
    with store.lock.open("rb", buffering=0) as file:
        try:
            content = file.read()
        except PermissionError:  # Windows, where the first byte is locked
            file.seek(1)
            content = file.read()
    words = content.decode("utf-8", "replace").split()
    pid = int(words[0]) if words and words[0].isdecimal() else None
    return Holder(pid, words[1] if len(words) > 1 else "")


def written_folders(store: RunStore) -> tuple[Path, ...]:
    """The folders in which a killed writer may have left something."""
    places = (store.adapters, store.groups, store.training, store.cells, store.studies, store.texts)
    return store.folder, *places, store.results


def _listing(path: Path) -> list[TrainedAdapter]:
    try:
        listed = read_sealed_json(path)["adapters"]
        return [TrainedAdapter(entry["key"], entry["digest"], entry["report"]) for entry in listed]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return []


def _write_listing(path: Path, trained: Sequence[TrainedAdapter]) -> None:
    listing = [{**vars(adapter), "report": dict(adapter.report)} for adapter in trained]
    write_sealed_json(path, {"adapters": listing})


def strike_off(store: RunStore, keys: Collection[str]) -> None:
    """Take adapters off the lists that make them count; a list without any goes. Needs the lock.

    keys: of adapters that no longer count; their folders are left to the caller.
    """
    for path in files_in(store.groups, "[!.]*.json"):
        listed = _listing(path)
        remaining = [adapter for adapter in listed if adapter.key not in keys]
        if listed and not remaining:
            path.unlink()
        elif len(remaining) < len(listed):
            _write_listing(path, remaining)
