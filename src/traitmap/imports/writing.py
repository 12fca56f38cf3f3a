"""Imported results as a run folder, so that matrix, traits and report work on them as on our own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any

from traitmap.errors import RunError
from traitmap.imports.columns import Imported, ImportedColumn, Row
from traitmap.imports.reading import content_digest
from traitmap.metrics import direction
from traitmap.runs.cells import GIVEN, write_cell
from traitmap.runs.ledger import AdapterEntry, CellEntry, Ledger, write_ledger
from traitmap.runs.store import RunStore, locked_store
from traitmap.runs.texts import IMPORTED, write_target_texts
from traitmap.study.paths import digest
from traitmap.study.settings import BASELINE


def write_imported(imported: Imported, folder: str | Path, *, name: str | None = None) -> RunStore:
    """Write the results into a new run folder. RunError where the folder holds something already.

    name: of the run; None takes the folder's.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"{folder}: is there already; give a new folder for the imported results")
    base = digest({"imported": imported.base or ""})
    with locked_store(folder) as store:
        cells = [_cell(store, column, row, base) for row in _rows(imported) for column in imported.columns]
        for column in imported.columns:
            texts = next((result.texts for result in column.rows.values() if result.texts), ())
            if texts and column.paired:
                write_target_texts(store, column.target, texts)
        write_ledger(store, _ledger(imported, base, name or folder.name, cells))
    return store


def _rows(imported: Imported) -> list[Row]:
    """The base, then every source: once, or for every seed where the files tell seeds."""
    rows: list[Row] = [(BASELINE, None)]
    for source in imported.sources:
        seeds = seeds_of(imported, source)
        rows += [(source, seed) for seed in _seeds(imported)] if seeds else [(source, None)]
    return rows


def seeds_of(imported: Imported, source: str) -> tuple[int, ...]:
    """The seeds of a source, ascending; none where its files tell no seed."""
    seeds = {seed for column in imported.columns for name, seed in column.rows if name == source}
    return tuple(sorted(seed for seed in seeds if seed is not None))


def _seeds(imported: Imported) -> tuple[int, ...]:
    every = {seed for source in imported.sources for seed in seeds_of(imported, source)}
    return tuple(sorted(every)) or (0,)


def _cell(store: RunStore, column: ImportedColumn, row: Row, base: str) -> CellEntry:
    evaluation = column.rows.get(row)
    entry = CellEntry(*row, column.target, None)
    if evaluation is None:
        return replace(entry, reason="no file holds this result")
    if not isfinite(evaluation.value):
        return replace(entry, reason=f"{evaluation.place}: there is no number")
    outcomes = evaluation.outcomes if column.paired else ()
    if not column.binary:
        outcomes = tuple(replace(outcome, correct=None) for outcome in outcomes)
    aggregates = {f"{evaluation.metric},{evaluation.filter}": evaluation.value}
    conditions = {
        "base": base,
        "metric": evaluation.metric,
        "filter": evaluation.filter,
        "read_from": evaluation.place,
        "setting": dict(evaluation.setting),
    }
    if not outcomes:
        conditions[GIVEN] = {
            "stderr": evaluation.stderr if isfinite(evaluation.stderr) else None,
            "n": evaluation.n,
        }
    key = content_digest([conditions, aggregates, [outcome.item_digest for outcome in outcomes]])
    write_cell(store.cell(key), outcomes=outcomes, aggregates=aggregates, conditions=conditions)
    return replace(entry, key=key, status="done")


def _ledger(imported: Imported, base: str, name: str, cells: list[CellEntry]) -> Ledger:
    kinds = sorted({row.kind for column in imported.columns for row in column.rows.values()})
    return Ledger(
        name=name,
        study=digest([imported.base, imported.sources]),
        base=base,
        model={"path": imported.base},
        conditions={"engine": IMPORTED, "harness": ", ".join(kinds), "notes": list(imported.notes)},
        seeds=_seeds(imported),
        sources=tuple(_source(source, imported) for source in imported.sources),
        targets=tuple(_target(column) for column in imported.columns),
        adapters=tuple(
            AdapterEntry(source, seed, None, None, status="done", digest=digest([source, seed]))
            for source, seed in _rows(imported)
            if source != BASELINE
        ),
        cells=tuple(cells),
    )


def _source(name: str, imported: Imported) -> dict[str, Any]:
    rows = [
        evaluation
        for column in imported.columns
        for (source, _), evaluation in column.rows.items()
        if source == name
    ]
    seeded = bool(seeds_of(imported, name))
    return {
        "name": name,
        "digest": digest(name),
        "examples": 0,
        "available": 0,
        "label_counts": {},
        "adapter": None if seeded else next((row.adapter or row.model for row in rows), "") or name,
        "lora": {},
        "training": {},
        "tags": [],
    }


def _target(column: ImportedColumn) -> dict[str, Any]:
    rows = list(column.rows.values())
    stated = [row.higher_is_better for row in rows if row.higher_is_better is not None]
    higher, origin = direction(column.metric, stated[0] if stated else None)
    outcomes = next((row.outcomes for row in rows if row.outcomes), ())
    kind = "unknown"
    if outcomes:
        kind = "multiple_choice" if outcomes[0].choice_logprobs else "generate_until"
    return {
        "name": column.target,
        "task": column.target,
        "version": str(column.setting.get("version", "")),
        "kind": kind,
        "metric": column.metric,
        "filter": column.filter,
        "higher_is_better": higher,
        "items": max((result.n for result in rows), default=0),
        "requests": 0,
        "digest": digest([column.target, column.metric, column.filter, _plain(column.setting)]),
        "chance": None,
        "majority": None,
        "tags": [],
        "conditions": {**_plain(column.setting), "direction_known": origin != "assumed"},
    }


def _plain(setting: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value if isinstance(value, str | int | float | bool | None) else str(value)
        for key, value in setting.items()
    }
