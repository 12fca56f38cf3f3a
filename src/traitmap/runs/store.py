"""The run folder: what was asked, and everything that is finished, each thing whole or not there.

output/NAME/
  study.yaml, study.json   the study as given, and as it was understood
  run.json                 the ledger: what was asked and what came of it
  adapters/<key>/          PEFT directories; valid only when a file in groups/ lists them
  groups/<key>.json        one per training pass, written after all its adapters
  cells/<key>.parquet      outcomes of one adapter (or the base) on one target
  contamination.json       items of the targets that stand in the training texts
  studies/<digest>.json    studies that this run was asked before
  run.lock                 held by the one process that may write
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from traitmap.errors import ModelError, RunError
from traitmap.runs.atomic import (
    partial_path,
    publish,
    remove_partials,
    set_aside,
    write_json,
    write_whole,
)
from traitmap.runs.cells import is_intact
from traitmap.runs.keys import adapter_digest
from traitmap.study.digest import digest
from traitmap.study.settings import Study

_KEY = re.compile(r"[0-9a-f]{32}")


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
        """The PEFT directory of a trained adapter."""
        return self.adapters / key

    def cell(self, key: str) -> Path:
        """The outcomes of one cell."""
        return self.cells / f"{key}.parquet"


@dataclass(frozen=True)
class TrainedAdapter:
    """An adapter that is finished: its key, the digest of its files, and how training went.

    report: the fields of ``engine.contract.TrainingReport`` as plain JSON data.
    """

    key: str
    digest: str
    report: Mapping[str, Any]


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

    RunError, naming the process, where another one holds it.
    """
    store = RunStore(Path(folder))
    for place in (store.folder, store.adapters, store.groups, store.cells, store.studies):
        place.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(store.lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not _lock(descriptor):
            raise RunError(
                f"{folder}: process {_pid(store) or 'unknown'} is running this study; wait for it or stop it."
            )
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        _clean(store)
        yield store
    finally:
        os.close(descriptor)  # gives the lock back, as the end of the process does


def running_pid(store: RunStore) -> int | None:
    """The process that writes this run at the moment, or None."""
    if not store.lock.exists():
        return None
    with store.lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _pid(store)
    return None


def freeze_study(store: RunStore, study: Study) -> str:
    """Keep the study beside its results, and the one before it under its digest. Returns its digest."""
    understood = study.model_dump(mode="json")
    frozen = store.folder / "study.json"
    if frozen.exists() and (before := json.loads(frozen.read_text(encoding="utf-8"))) != understood:
        write_json(store.studies / f"{digest(before)}.json", before)
    if study.path is not None and study.path.is_file():
        given = study.path.read_bytes()
    else:
        given = yaml.safe_dump(understood, sort_keys=False, allow_unicode=True).encode("utf-8")
    write_whole(store.folder / "study.yaml", given)
    write_json(frozen, understood)
    return digest(understood)


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
    """Every finished adapter by its key. Looks at the lists only; ``check_adapters`` reads the files."""
    found = {}
    for path in sorted(store.groups.glob("[!.]*.json")):
        for one in _listing(path):
            found[one.key] = one
    return {key: one for key, one in found.items() if store.adapter(key).is_dir()}


def check_adapters(store: RunStore) -> dict[str, TrainedAdapter]:
    """Every finished adapter whose files are still those that were written.

    A damaged one is set aside and struck off its list, so that it is trained again. Needs the lock.
    """
    intact = {}
    for key, one in trained_adapters(store).items():
        try:
            same = adapter_digest(store.adapter(key)) == one.digest
        except ModelError:
            same = False
        if same:
            intact[key] = one
        else:
            set_aside(store.adapter(key))
            _strike_off(store, key)
    return intact


def check_cell(store: RunStore, key: str) -> bool:
    """Whether a cell is there and whole. A damaged one is set aside. Needs the lock."""
    path = store.cell(key)
    if not path.exists():
        return False
    if is_intact(path):
        return True
    set_aside(path)
    return False


def _lock(descriptor: int) -> bool:
    """Try to take the lock. Not once only: ``running_pid`` of a reader holds it for an instant."""
    for _ in range(5):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.05)
    return False


def _clean(store: RunStore) -> None:
    """Remove what was being written when a process ended, and adapters that no list counts."""
    for place in (store.folder, store.adapters, store.groups, store.cells, store.studies):
        remove_partials(place)
    counted = trained_adapters(store)
    for folder in store.adapters.iterdir():
        if _KEY.fullmatch(folder.name) and folder.name not in counted:
            shutil.rmtree(folder)


def _listing(path: Path) -> list[TrainedAdapter]:
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))["adapters"]
        return [TrainedAdapter(one["key"], one["digest"], one["report"]) for one in listed]
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{path}: damaged ({error}); remove this file, and its adapters are trained again."
        ) from None


def _write_listing(path: Path, trained: Sequence[TrainedAdapter]) -> None:
    listing = [{"key": one.key, "digest": one.digest, "report": dict(one.report)} for one in trained]
    write_json(path, {"adapters": listing})


def _strike_off(store: RunStore, key: str) -> None:
    for path in sorted(store.groups.glob("[!.]*.json")):
        listed = _listing(path)
        if any(one.key == key for one in listed):
            _write_listing(path, [one for one in listed if one.key != key])


def _pid(store: RunStore) -> int | None:
    text = store.lock.read_text(encoding="utf-8").strip()
    return int(text) if text.isdigit() else None
