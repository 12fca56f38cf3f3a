"""What lies in a run folder and no entry of its study needs: found, and removed where that is asked."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from traitmap.runs.files import FOLDER, PARTIAL, quarantined
from traitmap.runs.ledger import read_ledger, read_parts
from traitmap.runs.store import RunStore, held_lock, strike_off, written_folders
from traitmap.runs.texts import text_files

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

    Files that traitmap does not write are never listed, nor is what stands behind a link.
    """
    found = [*_leftovers(store), *_cells(store), *_adapters(store), *_texts(store), *_quarantine(store)]
    return tuple(found)


def remove_waste(store: RunStore) -> tuple[Waste, ...]:
    """Remove what ``find_waste`` finds, and return it. RunError where another process writes this run."""
    with held_lock(store):
        found = find_waste(store)
        strike_off(store, {Path(one.path).name for one in found if one.kind == "adapter"})
        for one in found:
            _remove(store.folder / one.path)
        place = store.folder / FOLDER
        if place.is_dir() and not place.is_symlink() and not any(place.iterdir()):
            place.rmdir()
    return found


def _leftovers(store: RunStore) -> Iterator[Waste]:
    for folder in filter(_is_ours, written_folders(store)):
        for path in sorted(folder.glob(PARTIAL + "*")):
            yield _waste(store, path, "leftover", "its writer was killed")
        for path in sorted(folder.glob("*.damaged-[0-9]*")):
            yield _waste(store, path, "quarantine", "damaged, set aside by an earlier version")


def _cells(store: RunStore) -> Iterator[Waste]:
    ledger = read_ledger(store)
    needed = {one.key for one in (*ledger.cells, *read_parts(store).cells)}
    for path in _listed(store.cells, "[!.]*.parquet"):
        if path.stem not in needed:
            yield _waste(store, path, "cell", "of a former version of the study")


def _adapters(store: RunStore) -> Iterator[Waste]:
    needed = {adapter.key for adapter in read_ledger(store).adapters}
    for path in _listed(store.adapters, "[0-9a-f]" * 32):
        if path.name not in needed:
            yield _waste(store, path, "adapter", "of a former version of the study")


def _texts(store: RunStore) -> Iterator[Waste]:
    needed = set(text_files(store, read_ledger(store)))
    for path in _listed(store.texts, "*-*.parquet"):
        if path not in needed and path.name.startswith(("source-", "target-")):
            yield _waste(store, path, "texts", "of a source or target that the study has no more")


def _quarantine(store: RunStore) -> Iterator[Waste]:
    reasons = {one.kept: f"was {one.path}: {one.reason}" for one in quarantined(store.folder)}
    for path in _listed(store.folder / FOLDER, "[!.]*"):
        kept = path.name.removesuffix(".json")
        why = reasons.get(path.name) or f"the reason of {kept}"
        yield _waste(store, path, "quarantine", why)


def _listed(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.glob(pattern)) if _is_ours(folder) else []


def _is_ours(folder: Path) -> bool:
    """A folder of the run itself: behind a link lies somebody else's."""
    return folder.is_dir() and not folder.is_symlink()


def _waste(store: RunStore, path: Path, kind: Kind, why: str) -> Waste:
    return Waste(path.relative_to(store.folder).as_posix(), kind, _size(path), why)


def _size(path: Path) -> int:
    """Bytes of a file or of all files in a folder; links count themselves, never what they lead to."""
    total = path.lstat().st_size if path.is_symlink() or not path.is_dir() else 0
    if not path.is_symlink() and path.is_dir():
        for folder, _, files in os.walk(path):
            total += sum((Path(folder) / name).lstat().st_size for name in files)
    return total


def _remove(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path)
