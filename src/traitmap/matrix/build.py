"""Outcomes of a run -> TransferMatrix: every adapter against the base on the same items.

First whole cells, one target at a time: each adapter alone, then pooled over its seeds. A cell of one seed,
of an existing adapter, or of a run with one seed speaks for that very adapter: its uncertainty is that of
the items. A cell pooled over several seeds speaks for the source: seeds and items both count. Then partial
cells, of which only some items were asked, in the places of whole ones that are missing. All numbers come
from ``statistics.paired_gain``, and items that repeat count once. Only metrics that are the mean of item
scores have uncertainty; for any other the harness' own value stands, and the rest is NaN with the reason.
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
    Groups,
    benjamini_hochberg,
    grouped,
    numbered_groups,
    paired_gain,
    pooled_error,
    standard_error,
)
from traitmap.runs.cells import GIVEN, CellScores, read_item_digests, read_scores
from traitmap.runs.ledger import (
    CellEntry,
    Ledger,
    Parts,
    contamination_overlaps,
    read_contamination,
    read_item_groups,
    read_ledger,
    read_parts,
    seeds_of,
)
from traitmap.runs.status import absent_files
from traitmap.runs.store import RunStore, open_store, read_study
from traitmap.study.settings import BASELINE

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

    n: items, those of a group counted once. scores: on the items that have a score, or None. items: which of
    all items those are; groups: of those items. means: whether the mean of the scores is the metric's value.
    stderr: where results were imported without items.
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
    groups: Groups | None = None


def build_matrix(run: RunStore | str | Path) -> TransferMatrix:
    """Read every cell of a run and compute its matrix.

    run: its folder or its opened store. Partial cells take the places of whole ones that are missing.
    Raises RunError where there is no run or its files are damaged, MatrixError where the cells of one target
    do not have the same items.
    """
    store = run if isinstance(run, RunStore) else open_store(run)
    ledger = read_ledger(store)
    entries = {(entry.source, entry.seed, entry.target): entry for entry in ledger.cells}
    groups = _item_groups(store, ledger)
    columns = [
        _column(store, ledger, target, entries, groups.get(target["name"])) for target in ledger.targets
    ]
    names = tuple(target["name"] for target in ledger.targets)
    base_cells = tuple(base for base, _, _ in columns)
    by_group = [
        [cell for row in zip(*group, strict=True) for cell in row]
        for group in zip(*(cells for _, cells, _ in columns), strict=True)
    ]
    pooled = by_group[0] if by_group else []
    whole = TransferMatrix(
        sources=tuple(source["name"] for source in ledger.sources),
        targets=names,
        values=np.array([cell.value for cell in pooled]).reshape(len(ledger.sources), len(names)),
        baseline=np.array([cell.value for cell in base_cells]),
        cells=tuple(cell for group in by_group for cell in _with_q(group)),
        base_cells=base_cells,
        item_scores={
            name: scores for name, (_, _, scores) in zip(names, columns, strict=True) if scores is not None
        },
        chance=_numbers(ledger, "chance"),
        majority=_numbers(ledger, "majority"),
        source_tags={source["name"]: tuple(source["tags"]) for source in ledger.sources},
        target_tags={target["name"]: tuple(target["tags"]) for target in ledger.targets},
        conditions=_conditions(store, ledger),
        item_groups=groups,
    )
    return with_parts(whole, store)


def _item_groups(store: RunStore, ledger: Ledger) -> dict[str, Groups]:
    """Groups of the items of every target where some repeat or belong together; others have none.

    As the run compared their texts; where it did not, by the digests of items, of which equal ones repeat.
    """
    record = read_item_groups(store)
    groups = {}
    for target in ledger.targets:
        codes = (
            record["targets"].get(target["name"], {}).get("codes")
            if record
            else _digests(store, ledger, target)
        )
        if (numbered := numbered_groups(codes)) is not None:
            groups[target["name"]] = numbered
    return groups


def _digests(store: RunStore, ledger: Ledger, target: Mapping[str, Any]) -> list[str] | None:
    """The digest of every item of a target, from the first of its cells that can be read."""
    for entry in ledger.cells:
        if entry.target == target["name"] and entry.status == "done" and entry.key is not None:
            try:
                return read_item_digests(store.cell(entry.key))
            except RunError:
                continue
    return None


def _column(
    store: RunStore,
    ledger: Ledger,
    target: Mapping[str, Any],
    entries: Mapping[tuple[str, int | None, str], CellEntry],
    item_groups: Groups | None,
) -> tuple[Cell, list[list[Cell]], Array | None]:
    """One target: the base's cell, all pooled cells and then each seed's, the scores of all items."""
    name, seeds = target["name"], ledger.seeds
    base = _measured(store, entries[BASELINE, None, name], target, item_groups)
    adapters: list[Measured] = []  # sources x seeds; an existing adapter once for all seeds
    places: list[tuple[int, ...]] = []  # of each source among ``adapters``, by seed
    for source in ledger.sources:
        own_seeds = seeds_of(source, seeds)
        start = len(adapters)
        adapters += [
            _measured(store, entries[source["name"], seed, name], target, item_groups) for seed in own_seeds
        ]
        places.append(tuple(start + s % len(own_seeds) for s in range(len(seeds))))
    singles = _single_cells(base, adapters, target)
    groups: list[list[Cell]] = [[] for _ in range(1 + len(seeds))]
    for source, at in zip(ledger.sources, places, strict=True):
        several = [adapters[i] for i in dict.fromkeys(at)]
        own = [singles[i] for i in at]
        pooled = own[0] if len(several) == 1 else _pooled_cell(base, several, own, seeds, target)
        groups[0].append(replace(pooled, source=source["name"], seed=None))
        for group, seed, cell in zip(groups[1:], seeds, own, strict=True):
            group.append(replace(cell, source=source["name"], seed=seed))
    base_cell = _cell(base, target)
    if base.scores is not None:
        base_cell = replace(base_cell, stderr=float(standard_error(base.scores, base.groups)))
    return base_cell, groups, _item_scores(base, adapters, places, len(seeds))


def _measured(
    store: RunStore, entry: CellEntry, target: Mapping[str, Any], groups: Groups | None
) -> Measured:
    """What one cell's file says, or why there is none."""
    if entry.status != "done" or entry.key is None:
        return Measured(entry.status, entry.reason)
    try:
        cell = read_scores(store.cell(entry.key))
    except RunError as error:
        return Measured("missing", str(error))
    key = f"{target['metric']},{target['filter']}"
    if GIVEN in cell.conditions:  # imported without its items
        given = cell.conditions[GIVEN]
        return Measured(
            status="given",
            reason="read without items: no paired interval and no test",
            value=cell.aggregates.get(key, nan),
            n=int(given["n"]),
            stderr=nan if given["stderr"] is None else float(given["stderr"]),
        )
    items = np.isfinite(cell.scores)
    scores = cell.scores[items]
    groups = numbered_groups(groups[items]) if groups is not None and len(groups) == len(items) else None
    count = int(scores.size) if groups is None else int(groups.max()) + 1
    mean = float(scores.mean()) if scores.size else nan
    reported = cell.aggregates.get(key, mean)
    means = bool(abs(reported - mean) <= _AGREES * max(1.0, abs(mean)))
    return Measured(
        status="measured",
        reason="" if means else f"{target['metric']} is not the mean of item scores: no interval and no test",
        value=mean if means else reported,
        n=count if means else len(cell.scores),
        unparsed=float(1 - cell.parsed.mean()) if len(cell.parsed) else nan,
        scores=scores if means else None,
        items=items,
        binary=cell.binary,
        means=means,
        groups=groups,
    )


def _single_cells(base: Measured, adapters: Sequence[Measured], target: Mapping[str, Any]) -> list[Cell]:
    """One cell per adapter, each against the base on the same items. Names are filled in later."""
    cells = [_against(base, _cell(adapter, target), adapter) for adapter in adapters]
    for i, adapter in enumerate(adapters):
        if adapter.scores is not None:
            cells[i] = replace(cells[i], stderr=float(standard_error(adapter.scores, adapter.groups)))
    paired = [i for i, adapter in enumerate(adapters) if _pairs(base, adapter)]
    for binary in (True, False):
        alike = [i for i in paired if (base.binary and adapters[i].binary) == binary]
        if alike:
            differences = np.array([adapters[i].scores for i in alike]) - base.scores
            _, *tested = paired_gain(differences[:, None], binary=binary, groups=base.groups)
            for i, low, high, p in zip(alike, *tested, strict=True):
                cells[i] = _with_interval(cells[i], low, high, p)
    return cells


def _pooled_cell(
    base: Measured,
    several: Sequence[Measured],
    singles: Sequence[Cell],
    seeds: Sequence[int],
    target: Mapping[str, Any],
) -> Cell:
    """Mean over the seeds that are measured, with the uncertainty of seeds and items."""
    known = [i for i, adapter in enumerate(several) if adapter.status == "measured"]
    lost = [
        f"seed {seed} {adapter.status}" + (f" ({adapter.reason})" if adapter.reason else "")
        for seed, adapter in zip(seeds, several, strict=True)
        if adapter.status != "measured"
    ]
    if not known:
        status = "failed" if any(adapter.status == "failed" for adapter in several) else "missing"
        return _cell(Measured(status, "; ".join(lost)), target)
    if lost:
        lost.insert(0, f"{len(known)} of {len(several)} seeds")
    if len(known) == 1:
        lost += ["interval and test are of the items alone"]
        cell = singles[known[0]]
        return replace(cell, reason="; ".join([*lost, *filter(None, [cell.reason])]))
    measured = [several[i] for i in known]
    mean = Measured(
        status="measured",
        value=float(np.mean([adapter.value for adapter in measured])),
        n=measured[0].n,
        unparsed=float(np.mean([adapter.unparsed for adapter in measured])),
        items=measured[0].items,
        means=all(adapter.means and _same_items(adapter, measured[0]) for adapter in measured),
    )
    reasons = [*lost, *dict.fromkeys(adapter.reason for adapter in measured if adapter.reason)]
    cell = _against(base, replace(_cell(mean, target), reason="; ".join(reasons)), mean)
    if not mean.means:
        return cell
    scores = np.array([adapter.scores for adapter in measured])
    groups = measured[0].groups
    cell = replace(cell, stderr=float(pooled_error(grouped(scores, groups)[None])[0]))
    if not _pairs(base, mean):
        return cell
    binary = base.binary and all(adapter.binary for adapter in measured)
    _, low, high, p = paired_gain((scores - base.scores)[None], binary=binary, groups=groups)
    return _with_interval(cell, low[0], high[0], p[0])


def _cell(adapter: Measured, target: Mapping[str, Any]) -> Cell:
    """A cell without names, uncertainty and gain."""
    return Cell(
        source=BASELINE,
        target=target["name"],
        seed=None,
        metric=target["metric"],
        value=adapter.value,
        n=adapter.n,
        stderr=adapter.stderr,
        gain=nan,
        gain_low=nan,
        gain_high=nan,
        p=nan,
        q=nan,
        unparsed=adapter.unparsed,
        status=adapter.status,
        reason=adapter.reason,
    )


def _against(base: Measured, cell: Cell, adapter: Measured) -> Cell:
    """The cell with its gain over the base, or the reason why it has none."""
    if adapter.status not in _KNOWN:
        return cell
    if base.status not in _KNOWN:
        why = f"the base is {base.status} on this target" + (f" ({base.reason})" if base.reason else "")
        return _with_reason(cell, why)
    if adapter.means and base.means and not _same_items(base, adapter):
        cell = _with_reason(cell, "other items have a score than with the base: no interval and no test")
    return replace(cell, gain=cell.value - base.value)


def _with_reason(cell: Cell, why: str) -> Cell:
    return replace(cell, reason="; ".join(filter(None, [cell.reason, why])))


def _pairs(base: Measured, adapter: Measured) -> bool:
    """Whether both have a score on the same items, and a metric that is their mean."""
    return adapter.means and base.means and _same_items(base, adapter)


def _same_items(a: Measured, b: Measured) -> bool:
    return a.items is not None and b.items is not None and np.array_equal(a.items, b.items)


def _with_interval(cell: Cell, low: float, high: float, p: float) -> Cell:
    if np.isnan(low):
        cell = _with_reason(cell, "the difference is the same on every item: no interval")
    return replace(cell, gain_low=float(low), gain_high=float(high), p=float(p))


def _item_scores(
    base: Measured, adapters: Sequence[Measured], places: Sequence[Sequence[int]], n_seeds: int
) -> Array | None:
    """(1 + S, seeds, items), the base first; None where no item has a score."""
    scored = [m for m in (base, *adapters) if m.items is not None and m.scores is not None]
    sizes = {len(m.items) for m in scored if m.items is not None}
    if not sizes:
        return None
    if len(sizes) > 1:
        raise MatrixError(
            f"cells of one target hold {sorted(sizes)} items; remove the run's cells folder and run again."
        )
    filled = np.full((1 + len(places), n_seeds, sizes.pop()), nan)
    for s in range(n_seeds):
        for row, measured in enumerate((base, *(adapters[at[s]] for at in places))):
            if measured.scores is not None:
                filled[row, s, measured.items] = measured.scores
    return filled


def _with_q(cells: Sequence[Cell]) -> list[Cell]:
    q = benjamini_hochberg(np.array([cell.p for cell in cells], dtype=np.float64))
    return [replace(cell, q=float(value)) for cell, value in zip(cells, q, strict=True)]


def _numbers(ledger: Ledger, name: str) -> Array:
    return np.array([nan if target[name] is None else target[name] for target in ledger.targets], dtype=float)


def _conditions(store: RunStore, ledger: Ledger) -> dict[str, Any]:
    """The study's settings, the engine's conditions and the statistics, as the matrix carries them."""
    contamination = read_contamination(store)
    repeats = read_item_groups(store) or {"targets": {}, "shared": []}
    return {
        "name": ledger.name,
        "base": ledger.model.get("path"),
        "base_digest": ledger.base,
        "seeds": list(ledger.seeds),
        "higher_is_better": {target["name"]: target["higher_is_better"] for target in ledger.targets},
        "engine": dict(ledger.conditions),
        "sources": _by_name(ledger.sources),
        "targets": _by_name(ledger.targets),
        "statistics": _METHODS,
        "contamination": None if contamination is None else contamination_overlaps(contamination),
        "repeated_items": {
            name: {"items": len(found["codes"]), "groups": len(set(found["codes"])), "by": found["by"]}
            for name, found in repeats["targets"].items()
            if found["codes"]
        },
        "shared_items": repeats["shared"],
        "study_digest": ledger.study,
        "study": read_study(store),
        **({"absent": absent} if (absent := absent_files(store, ledger)) else {}),
    }


def _by_name(described: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        entry["name"]: {key: value for key, value in entry.items() if key != "name"} for entry in described
    }


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
    filled = matrix
    for target in matrix.targets:
        filled = _with_base(filled, store, parts, target)
    for entry in parts.cells:
        if entry.source != BASELINE and entry.status == "done":
            filled = _with_part(filled, store, parts, entry)
    cells = list(filled.cells)
    for seed in {cell.seed for cell in cells}:
        at = [i for i, cell in enumerate(cells) if cell.seed == seed]
        for i, cell in zip(at, _with_q([cells[i] for i in at]), strict=True):
            cells[i] = cell
    return replace(filled, cells=tuple(cells))


def _with_base(matrix: TransferMatrix, store: RunStore, parts: Parts, target: str) -> TransferMatrix:
    """The matrix with the base's value on the asked items, where the whole cell is missing."""
    at = matrix.targets.index(target)
    entry = next((e for e in parts.cells if (e.source, e.target) == (BASELINE, target)), None)
    if isfinite(matrix.baseline[at]) or entry is None or entry.status != "done":
        return matrix
    part = _read_part(store, entry)
    if isinstance(part, str):
        return _without(matrix, entry, part)
    baseline = matrix.baseline.copy()
    baseline[at] = part.scores.mean()
    total = _total(matrix, target)
    groups = _part_groups(matrix, target, list(parts.items[target]))
    base_cells = tuple(
        _part_cell(cell, part, float(baseline[at]), total, groups) if cell.target == target else cell
        for cell in matrix.base_cells
    )
    n_seeds = max(len(matrix.conditions.get("seeds") or ()), 1)
    scores = np.full((1 + len(matrix.sources), n_seeds, total), nan)
    scores[0][:, list(parts.items[target])] = part.scores
    item_scores = {**matrix.item_scores, target: scores}
    return replace(matrix, baseline=baseline, base_cells=base_cells, item_scores=item_scores)


def _with_part(matrix: TransferMatrix, store: RunStore, parts: Parts, entry: CellEntry) -> TransferMatrix:
    """The matrix with one partial cell, where it has neither a whole one nor no base to hold it against."""
    if entry.source not in matrix.sources or entry.target not in matrix.targets:
        return matrix
    row, column = matrix.sources.index(entry.source), matrix.targets.index(entry.target)
    if isfinite(matrix.values[row, column]) or entry.target not in matrix.item_scores:
        return matrix
    part = _read_part(store, entry)
    if isinstance(part, str):
        return _without(matrix, entry, part)
    items, total = list(parts.items[entry.target]), _total(matrix, entry.target)
    scores = matrix.item_scores[entry.target].copy()
    base = scores[0, 0, items]
    if len(part.scores) != len(items) or not np.isfinite(base).all() or not np.isfinite(part.scores).all():
        return matrix
    seeds = list(matrix.conditions["seeds"])
    place = slice(None) if entry.seed is None else seeds.index(entry.seed)
    scores[1 + row, place] = nan
    scores[1 + row][place, items] = part.scores
    binary = part.binary and bool(np.isin(base, (0.0, 1.0)).all())
    groups = _part_groups(matrix, entry.target, items)
    tested = paired_gain((part.scores - base)[None, None], binary=binary, groups=groups)
    gain, low, high, p = (float(values[0]) for values in tested)
    values = matrix.values.copy()
    values[row, column] = matrix.baseline[column] + gain
    cells = tuple(
        replace(
            _part_cell(cell, part, float(values[row, column]), total, groups),
            gain=gain,
            gain_low=low,
            gain_high=high,
            p=p,
        )
        if _is_of(cell, entry)
        else cell
        for cell in matrix.cells
    )
    item_scores = {**matrix.item_scores, entry.target: scores}
    return replace(matrix, values=values, cells=cells, item_scores=item_scores)


def _part_groups(matrix: TransferMatrix, target: str, items: list[int]) -> Groups | None:
    """Groups of some of a target's items."""
    groups = matrix.item_groups.get(target)
    return None if groups is None else numbered_groups(groups[items])


def _part_cell(cell: Cell, part: CellScores, value: float, total: int, groups: Groups | None) -> Cell:
    """The cell, measured on some of all items."""
    return replace(
        cell,
        value=value,
        n=len(part.scores) if groups is None else int(groups.max()) + 1,
        stderr=float(standard_error(part.scores, groups)),
        unparsed=float(1 - part.parsed.mean()),
        status="measured",
        reason=f"{len(part.scores)} of {total} items",
    )


def _total(matrix: TransferMatrix, target: str) -> int:
    return int(matrix.conditions["targets"][target]["items"])


def _read_part(store: RunStore, entry: CellEntry) -> CellScores | str:
    """A partial cell, or why it cannot be read."""
    assert entry.key is not None
    try:
        return read_scores(store.cell(entry.key))
    except RunError as error:
        return str(error)


def _without(matrix: TransferMatrix, entry: CellEntry, why: str) -> TransferMatrix:
    """The matrix with the reason why a partial cell is missing."""

    def explained(cells: Sequence[Cell]) -> tuple[Cell, ...]:
        return tuple(
            replace(cell, reason=why) if _is_of(cell, entry) and cell.status == "missing" else cell
            for cell in cells
        )

    return replace(matrix, cells=explained(matrix.cells), base_cells=explained(matrix.base_cells))


def _is_of(cell: Cell, entry: CellEntry) -> bool:
    """Whether a cell of the matrix, pooled or of the entry's seed, is that of an entry."""
    return (cell.source, cell.target) == (entry.source, entry.target) and cell.seed in (None, entry.seed)
