"""Cells of which only some items have been measured, kept apart from the whole cells and replaced by them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from traitmap.errors import RunError
from traitmap.runs.ledger import CellEntry
from traitmap.runs.plan import CellUnit
from traitmap.runs.sealed_json import read_sealed_json, write_sealed_json
from traitmap.runs.store import RunStore

FORMAT = 1
FILE = "parts.json"


@dataclass(frozen=True)
class Parts:
    """Partial cells of a run.

    items: target -> the items (indices, in order) that partial cells of it hold, the same for the base and
    all adapters. cells: what came of each, like the ledger's; a key is that of the partial cell.
    """

    items: Mapping[str, tuple[int, ...]]
    cells: tuple[CellEntry, ...]


@dataclass(frozen=True)
class Selection:
    """What of a plan is to be done.

    adapters: (source, seed) to be trained. cells: to be evaluated, the base's among them. items: target ->
    items to be asked (indices); targets that it lacks are asked whole.
    """

    adapters: frozenset[tuple[str, int]]
    cells: tuple[CellUnit, ...]
    items: Mapping[str, tuple[int, ...]]


def read_parts(store: RunStore) -> Parts:
    """The partial cells whose files are there; none where the run has none. RunError where damaged."""
    path = store.folder / FILE
    if not path.is_file():
        return Parts({}, ())
    try:
        raw = read_sealed_json(path)
        if raw["format"] != FORMAT:
            raise RunError(f"{path}: written by another version of traitmap; remove it and run again.")
        items = {name: tuple(indices) for name, indices in raw["items"].items()}
        cells = [CellEntry(**entry) for entry in raw["cells"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path}: damaged ({error}); remove it and run again.") from None
    return Parts(items, tuple(_current(store, entry) for entry in cells))


def write_parts(store: RunStore, items: Mapping[str, Sequence[int]], cells: Sequence[CellEntry]) -> None:
    """Write the list of partial cells atomically. Needs the lock."""
    listed = {name: list(indices) for name, indices in items.items()}
    told = {"format": FORMAT, "items": listed, "cells": [asdict(entry) for entry in cells]}
    write_sealed_json(store.folder / FILE, told)


def _current(store: RunStore, entry: CellEntry) -> CellEntry:
    there = entry.key is not None and store.cell(entry.key).is_file()
    if there:
        return replace(entry, status="done", reason="")
    return replace(entry, status="missing") if entry.status == "done" else entry
