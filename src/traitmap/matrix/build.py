"""Partial cells in a matrix: adapter against base on the items of both, where no whole cell is there.

Outcomes -> TransferMatrix: every adapter paired with the base, per seed and pooled over seeds.

A cell of one seed, of an adapter that existed before, or of a run with one seed, speaks for that very
adapter: its uncertainty is that of the items. 0/1 scores: Tango's interval and exact McNemar; other
scores: paired bootstrap and sign-flip test. A cell pooled over several seeds speaks for the source: seeds
and items both count (``matrix_statistics.pooled_test``). Only metrics that are the mean of item scores
have uncertainty; for any other the harness' own value stands, and the rest is NaN with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, nan
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from traitmap.errors import MatrixError, RunError
from traitmap.matrix.record import Array, Cell, TransferMatrix
from traitmap.matrix.statistics import (
    benjamini_hochberg,
    bootstrap_interval,
    mcnemar,
    paired_interval,
    pooled_error,
    pooled_test,
    sign_flip,
    standard_error,
)
from traitmap.runs.cells import GIVEN, CellScores, read_scores
from traitmap.runs.ledger import (
    CellEntry,
    Ledger,
    Parts,
    overlaps_told,
    read_contamination,
    read_ledger,
    read_parts,
)
from traitmap.runs.store import RunStore, open_store, read_study
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
    return _matrix_parts_with_q(found)


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
        _matrix_parts_measured(cell, part, float(baseline[at]), said) if cell.target == target else cell
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
        _against_base(
            _matrix_parts_measured(cell, part, float(values[row, column]), said), part.scores - base, binary
        )
        if (cell.source, cell.target) == (entry.source, entry.target) and cell.seed in (None, entry.seed)
        else cell
        for cell in matrix.cells
    )
    item_scores = {**matrix.item_scores, entry.target: scores}
    return replace(matrix, values=values, cells=cells, item_scores=item_scores)


def _matrix_parts_measured(cell: Cell, part: CellScores, value: float, said: str) -> Cell:
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


def _matrix_parts_with_q(matrix: TransferMatrix) -> TransferMatrix:
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


_KNOWN = ("measured", "given")
_AGREES = 1e-6  # between the harness' value and the mean of item scores
_METHODS = {
    "interval": "95 %; 0/1 scores: Tango 1998; other scores: expanded percentile bootstrap, 2000 draws",
    "test": "two-sided; 0/1 scores: exact McNemar; other scores: sign-flip permutation, 9999 draws",
    "pooled": "several seeds: min F' over seeds and items (Clark 1973), pseudo-items for 0/1 scores",
    "q": "Benjamini-Hochberg over the pooled cells, and over each seed's cells among themselves",
}


@dataclass(frozen=True)
class Measured:
    """One adapter (or the base) on one target, measured or not.

    scores: (n,) on the items that have a score, or None. means: whether their mean is the metric's value.
    stderr: where there are no items and somebody else's file told it.
    """

    status: str
    reason: str = ""
    value: float = nan
    n: int = 0
    unparsed: float = nan
    scores: Array | None = None
    items: NDArray[np.bool_] | None = None
    binary: bool = False
    means: bool = False
    stderr: float = nan


@dataclass(frozen=True)
class Column:
    """One target: everybody's cells, and the scores of all items."""

    base: Cell
    pooled: tuple[Cell, ...]
    by_seed: tuple[tuple[Cell, ...], ...]
    item_scores: Array | None


def build_matrix(run: RunStore | str | Path) -> TransferMatrix:
    """Read every cell of a run and compute its matrix. RunError where there is no run."""
    store = run if isinstance(run, RunStore) else open_store(run)
    ledger = read_ledger(store)
    asked = {(entry.source, entry.seed, entry.target): entry for entry in ledger.cells}
    columns = [_column(store, ledger, target, asked) for target in ledger.targets]
    names = tuple(target["name"] for target in ledger.targets)
    pooled = [cell for row in zip(*(column.pooled for column in columns), strict=True) for cell in row]
    cells = _with_q(pooled)
    for number in range(len(ledger.seeds)):
        seed_cells = zip(*(column.by_seed[number] for column in columns), strict=True)
        cells += _with_q([cell for row in seed_cells for cell in row])
    found = TransferMatrix(
        sources=tuple(source["name"] for source in ledger.sources),
        targets=names,
        values=np.array([cell.value for cell in pooled]).reshape(len(ledger.sources), len(names)),
        baseline=np.array([column.base.value for column in columns]),
        cells=tuple(cells),
        base_cells=tuple(column.base for column in columns),
        item_scores={
            name: column.item_scores
            for name, column in zip(names, columns, strict=True)
            if column.item_scores is not None
        },
        chance=_numbers(ledger, "chance"),
        majority=_numbers(ledger, "majority"),
        source_tags={source["name"]: tuple(source["tags"]) for source in ledger.sources},
        target_tags={target["name"]: tuple(target["tags"]) for target in ledger.targets},
        conditions=_conditions(store, ledger),
    )
    return with_parts(found, store)


def _column(
    store: RunStore,
    ledger: Ledger,
    target: Mapping[str, Any],
    asked: Mapping[tuple[str, int | None, str], CellEntry],
) -> Column:
    """All cells of one target."""
    name, seeds = target["name"], ledger.seeds
    base = _measured(store, asked[BASELINE, None, name], target)
    found: list[Measured] = []  # sources x seeds; one that existed before once for all seeds
    places: list[tuple[int, ...]] = []  # of each source in ``found``, by seed
    for source in ledger.sources:
        own: tuple[int | None, ...] = (None,) if source["adapter"] else seeds
        start = len(found)
        found += [_measured(store, asked[source["name"], seed, name], target) for seed in own]
        places.append(tuple(start + (0 if source["adapter"] else s) for s in range(len(seeds))))
    singles = _single_cells(base, found, target)
    pooled, by_seed = [], []
    for source, at in zip(ledger.sources, places, strict=True):
        several = [found[i] for i in dict.fromkeys(at)]
        one = singles[at[0]] if len(several) == 1 else None
        cell = one or _pooled_cell(base, several, [singles[i] for i in at], seeds, target)
        pooled.append(replace(cell, source=source["name"], seed=None))
        by_seed.append(
            [replace(singles[i], source=source["name"], seed=seed) for i, seed in zip(at, seeds, strict=True)]
        )
    return Column(
        base=_base_cell(base, target),
        pooled=tuple(pooled),
        by_seed=tuple(zip(*by_seed, strict=True)) or ((),) * len(seeds),
        item_scores=_item_scores(base, found, places, len(seeds)),
    )


def _measured(store: RunStore, entry: CellEntry, target: Mapping[str, Any]) -> Measured:
    """What one cell's file says, or why there is none."""
    if entry.status != "done" or entry.key is None:
        return Measured(entry.status, entry.reason)
    try:
        cell = read_scores(store.cell(entry.key))
    except RunError as error:
        return Measured("missing", str(error))
    if GIVEN in cell.conditions:
        return _given(cell, target)
    items = np.isfinite(cell.scores)
    scores = cell.scores[items]
    mean = float(scores.mean()) if scores.size else nan
    told = _told(cell, target, mean)
    means = bool(abs(told - mean) <= _AGREES * max(1.0, abs(mean)))
    return Measured(
        status="measured",
        reason="" if means else f"{target['metric']} is not the mean of item scores: no interval and no test",
        value=mean if means else told,
        n=int(scores.size) if means else len(cell.scores),
        unparsed=float(1 - cell.parsed.mean()) if len(cell.parsed) else nan,
        scores=scores if means else None,
        items=items,
        binary=cell.binary,
        means=means,
    )


def _given(cell: CellScores, target: Mapping[str, Any]) -> Measured:
    """A cell of somebody else's results, without its items."""
    told = cell.conditions[GIVEN]
    return Measured(
        status="given",
        reason="read without items: no paired interval and no test",
        value=_told(cell, target, nan),
        n=int(told["n"]),
        stderr=nan if told["stderr"] is None else float(told["stderr"]),
    )


def _told(cell: CellScores, target: Mapping[str, Any], mean: float) -> float:
    """The harness' own value of the metric; the mean of item scores where it has none."""
    return cell.aggregates.get(f"{target['metric']},{target['filter']}", mean)


def _base_cell(base: Measured, target: Mapping[str, Any]) -> Cell:
    cell = _cell(base, target)
    if base.scores is None:
        return cell
    return replace(cell, stderr=float(standard_error(base.scores)))


def _single_cells(base: Measured, found: Sequence[Measured], target: Mapping[str, Any]) -> list[Cell]:
    """One cell per adapter, each against the base on the same items. Names are filled in later."""
    cells = [_against(base, _cell(one, target), one) for one in found]
    for i, one in enumerate(found):
        if one.scores is not None:
            cells[i] = replace(cells[i], stderr=float(standard_error(one.scores)))
    paired = [i for i, one in enumerate(found) if _pairs(base, one)]
    sure = [i for i in paired if base.binary and found[i].binary]
    for chosen, binary in ((sure, True), ([i for i in paired if i not in set(sure)], False)):
        if not chosen:
            continue
        differences = np.array([found[i].scores for i in chosen]) - base.scores
        low, high, p = _single_statistics(differences, binary=binary)
        for k, i in enumerate(chosen):
            cells[i] = _with_interval(cells[i], low[k], high[k], p[k])
    return cells


def _single_statistics(differences: Array, *, binary: bool) -> tuple[Array, Array, Array]:
    if binary:
        wins, losses = (
            (differences > 0).sum(axis=1).astype(float),
            (differences < 0).sum(axis=1).astype(float),
        )
        return *paired_interval(wins, losses, differences.shape[1]), mcnemar(wins, losses)
    return *bootstrap_interval(differences), sign_flip(differences)


def _pooled_cell(
    base: Measured,
    several: Sequence[Measured],
    singles: Sequence[Cell],
    seeds: Sequence[int],
    target: Mapping[str, Any],
) -> Cell:
    """Mean over the seeds that are measured, with the uncertainty of seeds and items."""
    there = [i for i, one in enumerate(several) if one.status == "measured"]
    lost = [
        f"seed {seed} {one.status}" + (f" ({one.reason})" if one.reason else "")
        for seed, one in zip(seeds, several, strict=True)
        if one.status != "measured"
    ]
    if not there:
        status = "failed" if any(one.status == "failed" for one in several) else "missing"
        return _cell(Measured(status, "; ".join(lost)), target)
    if lost:
        lost.insert(0, f"{len(there)} of {len(several)} seeds")
    if len(there) == 1:
        lost += ["interval and test are of the items alone"]
        cell = singles[there[0]]
        return replace(cell, reason="; ".join([*lost, *filter(None, [cell.reason])]))
    chosen = [several[i] for i in there]
    mean = Measured(
        status="measured",
        value=float(np.mean([one.value for one in chosen])),
        n=chosen[0].n,
        unparsed=float(np.mean([one.unparsed for one in chosen])),
        items=chosen[0].items,
        means=all(one.means and _same_items(one, chosen[0]) for one in chosen),
    )
    reasons = [*lost, *dict.fromkeys(one.reason for one in chosen if one.reason)]
    cell = _against(base, replace(_cell(mean, target), reason="; ".join(reasons)), mean)
    if not mean.means:
        return cell
    scores = np.array([one.scores for one in chosen])
    cell = replace(cell, stderr=float(pooled_error(scores[None])[0]))
    if not _pairs(base, mean):
        return cell
    binary = base.binary and all(one.binary for one in chosen)
    low, high, p = pooled_test((scores - base.scores)[None], binary=binary)
    return _with_interval(cell, low[0], high[0], p[0])


def _cell(one: Measured, target: Mapping[str, Any]) -> Cell:
    """A cell without names, uncertainty and gain."""
    return Cell(
        source=BASELINE,
        target=target["name"],
        seed=None,
        metric=target["metric"],
        value=one.value,
        n=one.n,
        stderr=one.stderr,
        gain=nan,
        gain_low=nan,
        gain_high=nan,
        p=nan,
        q=nan,
        unparsed=one.unparsed,
        status=one.status,
        reason=one.reason,
    )


def _against(base: Measured, cell: Cell, one: Measured) -> Cell:
    """The cell with its gain over the base, or the reason why it has none."""
    if one.status not in _KNOWN:
        return cell
    if base.status not in _KNOWN:
        why = f"the base is {base.status} on this target" + (f" ({base.reason})" if base.reason else "")
        return replace(cell, reason="; ".join(filter(None, [cell.reason, why])))
    if one.means and base.means and not _same_items(base, one):
        why = "other items have a score than with the base: no interval and no test"
        cell = replace(cell, reason="; ".join(filter(None, [cell.reason, why])))
    return replace(cell, gain=cell.value - base.value)


def _pairs(base: Measured, one: Measured) -> bool:
    """Whether both have a score on the same items, and a metric that is their mean."""
    return one.means and base.means and _same_items(base, one)


def _same_items(one: Measured, other: Measured) -> bool:
    return one.items is not None and other.items is not None and np.array_equal(one.items, other.items)


def _with_interval(cell: Cell, low: float, high: float, p: float) -> Cell:
    if np.isnan(low):
        why = "the difference is the same on every item: no interval"
        cell = replace(cell, reason="; ".join(filter(None, [cell.reason, why])))
    return replace(cell, gain_low=float(low), gain_high=float(high), p=float(p))


def _item_scores(
    base: Measured, found: Sequence[Measured], places: Sequence[Sequence[int]], n_seeds: int
) -> Array | None:
    """(1 + S, seeds, items); None where nobody has a score of any item."""
    sizes = {len(one.items) for one in (base, *found) if one.items is not None and one.scores is not None}
    if not sizes:
        return None
    if len(sizes) > 1:
        raise MatrixError(
            f"cells of one target hold {sorted(sizes)} items; remove the run's cells folder and run again."
        )
    filled = np.full((1 + len(places), n_seeds, sizes.pop()), nan)
    for s in range(n_seeds):
        for row, one in enumerate((base, *(found[at[s]] for at in places))):
            if one.scores is not None:
                filled[row, s, one.items] = one.scores
    return filled


def _with_q(cells: Sequence[Cell]) -> list[Cell]:
    q = benjamini_hochberg(np.array([cell.p for cell in cells], dtype=np.float64))
    return [replace(cell, q=float(one)) for cell, one in zip(cells, q, strict=True)]


def _numbers(ledger: Ledger, name: str) -> Array:
    return np.array([nan if target[name] is None else target[name] for target in ledger.targets], dtype=float)


def _conditions(store: RunStore, ledger: Ledger) -> dict[str, Any]:
    """All that was asked, and with what it was answered."""
    found = read_contamination(store)
    return {
        "name": ledger.name,
        "base": ledger.model.get("path"),
        "base_digest": ledger.base,
        "seeds": list(ledger.seeds),
        "higher_is_better": {target["name"]: target["higher_is_better"] for target in ledger.targets},
        "engine": dict(ledger.conditions),
        "sources": {source["name"]: _without_name(source) for source in ledger.sources},
        "targets": {target["name"]: _without_name(target) for target in ledger.targets},
        "statistics": _METHODS,
        "contamination": None if found is None else overlaps_told(found),
        "study_digest": ledger.study,
        "study": read_study(store),
    }


def _without_name(described: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in described.items() if key != "name"}
