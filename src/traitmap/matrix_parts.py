"""Partial cells in a matrix: adapter against base on the items of both, where no whole cell is there."""

from __future__ import annotations

from dataclasses import replace
from math import isfinite, nan

import numpy as np

from traitmap.errors import RunError
from traitmap.matrix_record import Array, Cell, TransferMatrix
from traitmap.matrix_statistics import (
    benjamini_hochberg,
    bootstrap_interval,
    mcnemar,
    paired_interval,
    sign_flip,
    standard_error,
)
from traitmap.runs.cells import CellScores, read_scores
from traitmap.runs.ledger import CellEntry
from traitmap.runs.parts import Parts, read_parts
from traitmap.runs.store import RunStore
from traitmap.study.settings import BASELINE


def with_parts(matrix: TransferMatrix, store: RunStore) -> TransferMatrix:
    """The matrix with the partial cells of a run in the places of missing ones.

    Of such a cell ``n`` counts the items that were asked and the reason tells of how many. Its gain is
    over the base on the same items. Where the base has been asked all items the cell's value is the
    base's plus that gain, so that ``gains`` stays the difference of values. A partial cell has the first
    seed's place; its interval and test are of the items alone. q is computed anew over all pooled cells.
    """
    parts = read_parts(store)
    if not parts.cells:
        return matrix
    found = matrix
    for target in matrix.targets:
        found = _with_base(found, store, parts, target)
    for entry in parts.cells:
        if entry.source != BASELINE and entry.status == "done":
            found = _with_cell(found, store, parts, entry)
    return _with_q(found)


def _with_base(matrix: TransferMatrix, store: RunStore, parts: Parts, target: str) -> TransferMatrix:
    """The matrix with the base's value on the asked items, where the whole cell is missing."""
    at = matrix.targets.index(target)
    entry = next((e for e in parts.cells if (e.source, e.target) == (BASELINE, target)), None)
    if isfinite(matrix.baseline[at]) or entry is None or entry.status != "done":
        return matrix
    part = _read(store, entry)
    if isinstance(part, str):
        return _without(matrix, entry, part)
    baseline = matrix.baseline.copy()
    baseline[at] = part.scores.mean()
    said = f"{len(part.scores)} of {_total(matrix, target)} items"
    base_cells = tuple(
        _measured(cell, part, float(baseline[at]), said) if cell.target == target else cell
        for cell in matrix.base_cells
    )
    whole = _placed(matrix, parts, target, part.scores)
    scores = np.full((1 + len(matrix.sources), _seeds(matrix), _total(matrix, target)), nan)
    scores[0] = whole
    item_scores = {**matrix.item_scores, target: scores}
    return replace(matrix, baseline=baseline, base_cells=base_cells, item_scores=item_scores)


def _with_cell(matrix: TransferMatrix, store: RunStore, parts: Parts, entry: CellEntry) -> TransferMatrix:
    """The matrix with one partial cell, where it has neither a whole one nor no base to hold it against."""
    if entry.source not in matrix.sources or entry.target not in matrix.targets:
        return matrix
    row, column = matrix.sources.index(entry.source), matrix.targets.index(entry.target)
    if isfinite(matrix.values[row, column]) or entry.target not in matrix.item_scores:
        return matrix
    part = _read(store, entry)
    if isinstance(part, str):
        return _without(matrix, entry, part)
    asked = list(parts.items[entry.target])
    scores = matrix.item_scores[entry.target].copy()
    base = scores[0, 0, asked]
    if len(part.scores) != len(asked) or not np.isfinite(base).all() or not np.isfinite(part.scores).all():
        return matrix
    seeds = list(matrix.conditions["seeds"])
    place = slice(None) if entry.seed is None else seeds.index(entry.seed)
    scores[1 + row, place] = _placed(matrix, parts, entry.target, part.scores)
    values = matrix.values.copy()
    gain = float((part.scores - base).mean())
    values[row, column] = matrix.baseline[column] + gain
    said = f"{len(asked)} of {_total(matrix, entry.target)} items"
    binary = part.binary and bool(np.isin(base, (0.0, 1.0)).all())
    cells = tuple(
        _against_base(_measured(cell, part, float(values[row, column]), said), part.scores - base, binary)
        if (cell.source, cell.target) == (entry.source, entry.target) and cell.seed in (None, entry.seed)
        else cell
        for cell in matrix.cells
    )
    item_scores = {**matrix.item_scores, entry.target: scores}
    return replace(matrix, values=values, cells=cells, item_scores=item_scores)


def _measured(cell: Cell, part: CellScores, value: float, said: str) -> Cell:
    return replace(
        cell,
        value=value,
        n=len(part.scores),
        stderr=float(standard_error(part.scores)),
        unparsed=float(1 - part.parsed.mean()),
        status="measured",
        reason=said,
    )


def _against_base(cell: Cell, differences: Array, binary: bool) -> Cell:
    if binary:
        wins, losses = (np.array([float((sign * differences > 0).sum())]) for sign in (1, -1))
        low, high = paired_interval(wins, losses, len(differences))
        p = mcnemar(wins, losses)
    else:
        low, high = bootstrap_interval(differences[None])
        p = sign_flip(differences[None])
    gain = float(differences.mean())
    return replace(cell, gain=gain, gain_low=float(low[0]), gain_high=float(high[0]), p=float(p[0]))


def _with_q(matrix: TransferMatrix) -> TransferMatrix:
    cells = list(matrix.cells)
    for seed in {cell.seed for cell in cells}:
        at = [i for i, cell in enumerate(cells) if cell.seed == seed]
        q = benjamini_hochberg(np.array([cells[i].p for i in at], dtype=np.float64))
        for i, value in zip(at, q, strict=True):
            cells[i] = replace(cells[i], q=float(value))
    return replace(matrix, cells=tuple(cells))


def _placed(matrix: TransferMatrix, parts: Parts, target: str, scores: Array) -> Array:
    """(items,) the scores at their items, NaN elsewhere."""
    whole = np.full(_total(matrix, target), nan)
    whole[list(parts.items[target])] = scores
    return whole


def _total(matrix: TransferMatrix, target: str) -> int:
    return int(matrix.conditions["targets"][target]["items"])


def _seeds(matrix: TransferMatrix) -> int:
    return max(len(matrix.conditions.get("seeds") or ()), 1)


def _read(store: RunStore, entry: CellEntry) -> CellScores | str:
    """A partial cell, or why it cannot be read."""
    assert entry.key is not None
    try:
        return read_scores(store.cell(entry.key))
    except RunError as error:
        return str(error)


def _without(matrix: TransferMatrix, entry: CellEntry, why: str) -> TransferMatrix:
    """The matrix with the reason why a partial cell is missing."""

    def told(cell: Cell) -> Cell:
        same = (cell.source, cell.target) == (entry.source, entry.target) and cell.seed in (None, entry.seed)
        return replace(cell, reason=why) if same and cell.status == "missing" else cell

    base_cells = tuple(told(cell) for cell in matrix.base_cells)
    return replace(matrix, cells=tuple(told(cell) for cell in matrix.cells), base_cells=base_cells)
