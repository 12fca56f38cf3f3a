"""The rows of a run, cell by cell with their items, as every exporter walks over them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, nan
from typing import Any

import numpy as np

from traitmap.data.records import Outcome
from traitmap.data.texts import TaskText
from traitmap.errors import RunError
from traitmap.matrix.statistics import standard_error
from traitmap.runs.cells import CellScores, read_outcomes, read_scores
from traitmap.runs.ledger import CellEntry, Ledger, read_ledger, read_parts
from traitmap.runs.store import RunStore
from traitmap.runs.texts import read_run_texts
from traitmap.study.settings import BASELINE


@dataclass(frozen=True)
class ModelRow:
    """One model of a run: the base (source ``__baseline__``) or an adapter, for one seed.

    name: for people and file names; cells: target -> its entry, of those that are done.
    """

    name: str
    source: str
    seed: int | None
    cells: Mapping[str, CellEntry]


def model_rows(ledger: Ledger) -> tuple[ModelRow, ...]:
    """The base and every adapter, in the order of the study; with several seeds the name tells which."""
    several = len(ledger.seeds) > 1
    rows: dict[tuple[str, int | None], dict[str, CellEntry]] = {}
    for cell in ledger.cells:
        found = rows.setdefault((cell.source, cell.seed), {})
        if cell.status == "done" and cell.key is not None:
            found[cell.target] = cell
    return tuple(
        ModelRow(_name(source, seed, several), source, seed, cells) for (source, seed), cells in rows.items()
    )


def cells_of(
    store: RunStore, row: ModelRow, ledger: Ledger
) -> Iterator[tuple[Mapping[str, Any], CellScores, Sequence[Outcome]]]:
    """(target as the ledger describes it, scores and metadata, outcomes) of every cell that is done.

    The target of a cell that was asked in part has ``asked`` too: the places of these among all its items.
    """
    parts = read_parts(store)
    for target in ledger.targets:
        entry = row.cells.get(target["name"])
        if entry is not None and entry.key is not None:
            path = store.cell(entry.key)
            asked = {"asked": parts.items_of(entry)} if entry.asked else {}
            yield {**target, **asked}, read_scores(path), read_outcomes(path)


def value_and_error(target: Mapping[str, Any], cell: CellScores) -> tuple[float, float]:
    """The metric's value as the harness told it (else the mean of item scores), and its standard error."""
    known = cell.scores[np.isfinite(cell.scores)]
    stated = cell.aggregates.get(f"{target['metric']},{target['filter']}", nan)
    mean = float(known.mean()) if known.size else nan
    error = float(standard_error(known)) if known.size > 1 else nan
    return stated if isfinite(stated) else mean, error


def aligned_texts(
    target: Mapping[str, Any], texts: Sequence[TaskText], outcomes: Sequence[Outcome]
) -> Sequence[TaskText]:
    """One text per outcome; where the run has not kept them, the gold answers alone.

    target: as ``cells_of`` gives it.
    """
    if "asked" in target and len(texts) == target["items"]:
        texts = [texts[item] for item in target["asked"]]
    return texts if len(texts) == len(outcomes) else [TaskText("", outcome.gold) for outcome in outcomes]


def target_texts(store: RunStore) -> Mapping[str, Sequence[TaskText]]:
    """What the items of every target say, or nothing where the run has kept no texts."""
    try:
        return read_run_texts(store).targets
    except RunError:
        return {}


def ledger_of(store: RunStore) -> Ledger:
    """The ledger of a run that has at least one cell. RunError where there is none.

    Cells that were asked in part stand in the places of whole ones that are missing.
    """
    ledger = read_ledger(store)
    parts = {
        (cell.source, cell.seed, cell.target): cell
        for cell in read_parts(store).cells
        if cell.status == "done"
    }
    cells = (
        cell if cell.status == "done" else parts.get((cell.source, cell.seed, cell.target), cell)
        for cell in ledger.cells
    )
    ledger = replace(ledger, cells=tuple(cells))
    if not any(cell.status == "done" for cell in ledger.cells):
        raise RunError(f"{store.folder}: no cell is done, so there is nothing to export; run the study first")
    return ledger


def _name(source: str, seed: int | None, several: bool) -> str:
    if source == BASELINE:
        return "base"
    return f"{source}-seed{seed}" if several and seed is not None else source
