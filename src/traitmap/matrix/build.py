"""Outcomes of a run -> TransferMatrix: every adapter against the base on the same items.

First whole cells, one target at a time: each adapter alone, then pooled over its seeds. A cell of one seed,
of an existing adapter, or of a run with one seed speaks for that very adapter: its uncertainty is that of the
items. A cell pooled over several seeds speaks for the source: seeds and items both count. Partial cells, of
which only some items were asked, take the places of whole ones that are missing; each is held against the
base on its own items. Where a run looks at growing parts of the items, intervals and p hold at every look
(``matrix.sequential``). All numbers come from ``statistics.paired_gain``, and items that repeat count once.
Only metrics that are the mean of item scores have uncertainty; for any other the harness' own value stands,
and the rest is NaN with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from traitmap.errors import MatrixError, RunError
from traitmap.matrix.assisted import Anchors, AssistedGain, assisted_gain, recorded_anchors
from traitmap.matrix.record import Array, Cell, TransferMatrix
from traitmap.matrix.sequential import confidence_at, looks_at, repeated_p
from traitmap.matrix.statistics import (
    Groups,
    benjamini_hochberg,
    grouped,
    numbered_groups,
    paired_gain,
    pooled_error,
    standard_error,
)
from traitmap.metrics import metric
from traitmap.runs.cells import GIVEN, read_item_digests, read_scores
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
    "looks": "cells that may end early: repeated intervals and p, spending by the square of the share",
    "anchors": "gains on all items from a part: regression on rows that were asked all, plus the residuals",
    "pooled": "several seeds: min F' over seeds and items (Clark 1973), pseudo-items for 0/1 scores",
    "q": "Benjamini-Hochberg over the pooled cells, and over each seed's cells among themselves",
}


@dataclass(frozen=True)
class Measured:
    """One adapter (or the base) on one target, measured or not.

    n: items, those of a group counted once. scores: on the items that have a score, or None. items: which of
    all items those are; groups: of those items. means: whether the mean of the scores is the metric's value.
    stderr: where results were imported without items. asked: items of a partial cell, else 0; settled: why no
    more of them are asked.
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
    asked: int = 0
    settled: str = ""


def build_matrix(run: RunStore | str | Path) -> TransferMatrix:
    """Read every cell of a run and compute its matrix.

    run: its folder or its opened store. Partial cells take the places of whole ones that are missing.
    Raises RunError where there is no run or its files are damaged, MatrixError where the cells of one target
    do not have the same items.
    """
    store = run if isinstance(run, RunStore) else open_store(run)
    ledger, parts = read_ledger(store), read_parts(store)
    groups = _item_groups(store, ledger)
    columns = [_column(store, ledger, parts, target, groups.get(target["name"])) for target in ledger.targets]
    names = tuple(target["name"] for target in ledger.targets)
    base_cells = tuple(base for base, _, _ in columns)
    by_group = [
        [cell for row in zip(*group, strict=True) for cell in row]
        for group in zip(*(cells for _, cells, _ in columns), strict=True)
    ]
    pooled = by_group[0] if by_group else []
    return TransferMatrix(
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
        conditions=_conditions(store, ledger, parts),
        item_groups=groups,
    )


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
    parts: Parts,
    target: Mapping[str, Any],
    item_groups: Groups | None,
) -> tuple[Cell, list[list[Cell]], Array | None]:
    """One target: the base's cell, all pooled cells and then each seed's, the scores of all items."""
    name, seeds = target["name"], ledger.seeds
    whole = {(entry.source, entry.seed): entry for entry in ledger.cells if entry.target == name}
    partial = {(entry.source, entry.seed): entry for entry in parts.cells if entry.target == name}

    def measured(source: str, seed: int | None) -> Measured:
        cell = _measured(store, whole[source, seed], target, item_groups)
        entry = partial.get((source, seed))
        if cell.status in _KNOWN or entry is None or entry.status == "missing":
            return cell
        if entry.status == "failed":
            return Measured("failed", entry.reason) if cell.status == "missing" else cell
        part = _measured_in_part(store, entry, parts, target, item_groups)
        return part if part.status in _KNOWN or cell.status == "missing" else cell

    base = measured(BASELINE, None)
    adapters: list[Measured] = []  # sources x seeds; an existing adapter once for all seeds
    places: list[tuple[int, ...]] = []  # of each source among ``adapters``, by seed
    for source in ledger.sources:
        own_seeds = seeds_of(source, seeds)
        start = len(adapters)
        adapters += [measured(source["name"], seed) for seed in own_seeds]
        places.append(tuple(start + s % len(own_seeds) for s in range(len(seeds))))
    scores = _item_scores(base, adapters, places, len(seeds))
    names = [source["name"] for source in ledger.sources]
    anchors = (
        None
        if scores is None
        else recorded_anchors(parts.asking, name, names, scores, np.arange(scores.shape[2]), item_groups)
    )
    known = np.zeros(0) if scores is None else scores[np.isfinite(scores)]
    shares = metric(target["metric"]).may_be_share and bool(((known >= 0) & (known <= 1)).all())
    column = _Column(target, item_groups, looks_at(parts.asking, name), anchors, shares)
    singles = _single_cells(base, adapters, column)
    groups: list[list[Cell]] = [[] for _ in range(1 + len(seeds))]
    for source, at in zip(ledger.sources, places, strict=True):
        several = [adapters[i] for i in dict.fromkeys(at)]
        own = [singles[i] for i in at]
        pooled = own[0] if len(several) == 1 else _pooled_cell(base, several, own, seeds, column)
        groups[0].append(replace(pooled, source=source["name"], seed=None))
        for group, seed, cell in zip(groups[1:], seeds, own, strict=True):
            group.append(replace(cell, source=source["name"], seed=seed))
    base_cell = _cell(base, target)
    if base.scores is not None:
        base_cell = replace(base_cell, stderr=float(standard_error(base.scores, base.groups)))
    return base_cell, groups, scores


@dataclass(frozen=True)
class _Column:
    """What all cells of a target share.

    target: as the ledger has it. groups: of its items. looks: counts of items. anchors: base and rows that
    were asked every item, where these help to estimate gains, else None. shares: all scores lie in 0 to 1, as
    shares do (``reading``).
    """

    target: Mapping[str, Any]
    groups: Groups | None
    looks: tuple[int, ...]
    anchors: Anchors | None = None
    shares: bool = False

    def tested(
        self, differences: Array, own: Measured, *, binary: bool, asked: int, groups: Groups | None
    ) -> AssistedGain:
        """Gains of differences (K, S, n), with limits and p-values as they hold at every look.

        own: the base on the same items. asked: 0 for all items. The gains of a part are on all items where
        there are anchors; without them (and of whole cells) ``within`` is NaN.
        """
        part, asked = asked > 0, asked or (self.looks[-1] if self.looks else 0)
        confidence = confidence_at(self.looks, asked)
        if part and self.anchors is not None and own.items is not None:
            anchors = self.anchors.of(own.items)
            found = assisted_gain(differences, anchors, binary=binary, confidence=confidence)
        else:
            gain, low, high, p = paired_gain(differences, binary=binary, groups=groups, confidence=confidence)
            found = AssistedGain(gain, low, high, p, np.full(len(gain), nan))
        return replace(found, p=repeated_p(found.p, self.looks, asked))


def _measured_in_part(
    store: RunStore, entry: CellEntry, parts: Parts, target: Mapping[str, Any], groups: Groups | None
) -> Measured:
    """What the file of a partial cell says, or why there is none."""
    assert entry.key is not None
    asked, total = parts.items_of(entry), int(target["items"])
    try:
        cell = read_scores(store.cell(entry.key))
    except RunError as error:
        return Measured("missing", str(error))
    known = np.isfinite(cell.scores)
    if len(known) != len(asked) or (asked and asked[-1] >= total) or not known.any():
        return Measured("missing", "its partial cell holds other items than the run says")
    items = np.zeros(total, dtype=bool)
    items[np.array(asked)[known]] = True
    part = Measured(
        status="measured",
        unparsed=float(1 - cell.parsed.mean()) if len(cell.parsed) else nan,
        scores=cell.scores[known],
        items=items,
        binary=cell.binary,
        means=True,
        asked=len(asked),
        settled=entry.settled,
    )
    return _on_items(part, items, groups)


def _on_items(measured: Measured, items: NDArray[np.bool_], groups: Groups | None) -> Measured:
    """The same cell on some of its items: value, count and groups are of these. groups: of all items."""
    assert measured.scores is not None
    assert measured.items is not None
    scores = measured.scores[items[measured.items]]
    groups = None if groups is None else numbered_groups(groups[items])
    count = len(scores) if groups is None else int(groups.max()) + 1
    return replace(measured, value=float(scores.mean()), n=count, scores=scores, items=items, groups=groups)


def _base_for(base: Measured, adapter: Measured, column: _Column) -> Measured:
    """The base on the items of a partial cell; as it is for a whole one, and where it lacks some of them."""
    if not adapter.asked or adapter.items is None or base.items is None or base.scores is None:
        return base
    return _on_items(base, adapter.items, column.groups) if not (adapter.items & ~base.items).any() else base


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


def _single_cells(base: Measured, adapters: Sequence[Measured], column: _Column) -> list[Cell]:
    """One cell per adapter, each against the base on the same items. Names are filled in later."""
    bases = [_base_for(base, adapter, column) for adapter in adapters]
    cells = [
        _against(base, own, _cell(adapter, column.target), adapter, column)
        for own, adapter in zip(bases, adapters, strict=True)
    ]
    alike: dict[tuple[bool, bytes], list[int]] = {}
    for i, (own, adapter) in enumerate(zip(bases, adapters, strict=True)):
        if adapter.scores is not None:
            cells[i] = replace(cells[i], stderr=float(standard_error(adapter.scores, adapter.groups)))
        if _pairs(own, adapter):
            assert own.items is not None
            alike.setdefault((own.binary and adapter.binary, own.items.tobytes()), []).append(i)
    for (binary, _), places in sorted(alike.items(), key=lambda entry: not entry[0][0]):
        own, first = bases[places[0]], adapters[places[0]]
        differences = np.array([adapters[i].scores for i in places]) - own.scores
        tested = column.tested(differences[:, None], own, binary=binary, asked=first.asked, groups=own.groups)
        for at, i in enumerate(places):
            cells[i] = _with_interval(cells[i], tested, at, base, column)
    return cells


def _pooled_cell(
    base: Measured,
    several: Sequence[Measured],
    singles: Sequence[Cell],
    seeds: Sequence[int],
    column: _Column,
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
        return _cell(Measured(status, "; ".join(lost)), column.target)
    if lost:
        lost.insert(0, f"{len(known)} of {len(several)} seeds")
    if len(known) == 1:
        lost += ["interval and test are of the items alone"]
        cell = singles[known[0]]
        return replace(cell, reason="; ".join([*lost, *filter(None, [cell.reason])]))
    measured = _on_common_items([several[i] for i in known], column)
    mean = Measured(
        status="measured",
        value=float(np.mean([adapter.value for adapter in measured])),
        n=measured[0].n,
        unparsed=float(np.mean([adapter.unparsed for adapter in measured])),
        items=measured[0].items,
        means=all(adapter.means and _same_items(adapter, measured[0]) for adapter in measured),
        asked=measured[0].asked,
        settled=measured[0].settled,
    )
    own = _base_for(base, mean, column)
    reasons = [*lost, *dict.fromkeys(adapter.reason for adapter in measured if adapter.reason)]
    cell = _cell(mean, column.target)
    cell = replace(cell, reason="; ".join(filter(None, [*reasons, cell.reason])))
    cell = _against(base, own, cell, mean, column)
    if not mean.means:
        return cell
    scores = np.array([adapter.scores for adapter in measured])
    groups = measured[0].groups
    cell = replace(cell, stderr=float(pooled_error(grouped(scores, groups)[None])[0]))
    if not _pairs(own, mean):
        return cell
    binary = own.binary and all(adapter.binary for adapter in measured)
    differences = (scores - own.scores)[None]
    tested = column.tested(differences, own, binary=binary, asked=mean.asked, groups=groups)
    return _with_interval(cell, tested, 0, base, column)


def _on_common_items(several: Sequence[Measured], column: _Column) -> list[Measured]:
    """Seeds of one source on the items that all were asked, where some were asked a part."""
    masks = [adapter.items for adapter in several if adapter.items is not None and adapter.scores is not None]
    if not any(adapter.asked for adapter in several) or len(masks) < len(several):
        return list(several)
    items: NDArray[np.bool_] = np.all(masks, axis=0)
    asked = min(adapter.asked for adapter in several if adapter.asked)
    if not items.any():
        return list(several)
    return [replace(_on_items(adapter, items, column.groups), asked=asked) for adapter in several]


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
        reason=adapter.reason or _asked_in_words(adapter, target),
        asked=adapter.asked,
        asked_of=int(target["items"]) if adapter.asked else 0,
    )


def _asked_in_words(adapter: Measured, target: Mapping[str, Any]) -> str:
    """``60 asked of 250 items``, and why it were no more; nothing for a whole cell."""
    if not adapter.asked:
        return ""
    why = f" ({adapter.settled})" if adapter.settled else ""
    return f"{adapter.asked} asked of {target['items']} items{why}"


def _against(base: Measured, own: Measured, cell: Cell, adapter: Measured, column: _Column) -> Cell:
    """The cell with its gain over the base, or the reason why it has none.

    own: the base on the adapter's items. The value of a partial cell is that of the base, on all items that
    it was asked, plus the gain, so that gains stay differences of values.
    """
    if adapter.status not in _KNOWN:
        return cell
    if base.status not in _KNOWN:
        why = f"the base is {base.status} on this target" + (f" ({base.reason})" if base.reason else "")
        return _with_reason(cell, why)
    if adapter.means and own.means and not _same_items(own, adapter):
        if adapter.asked:
            why = "the base has not been asked the same items"
            return replace(cell, value=nan, n=0, status="missing", reason=why, asked=0, asked_of=0)
        cell = _with_reason(cell, "other items have a score than with the base: no interval and no test")
    gain = cell.value - own.value
    return _at_gain(cell, base, gain, column) if adapter.asked else replace(cell, gain=gain)


def _at_gain(cell: Cell, base: Measured, gain: float, column: _Column) -> Cell:
    """A partial cell whose gain is estimated; a share that it would lift beyond 1, or below 0, ends there."""
    value = base.value + gain
    if column.shares:
        value = min(max(value, 0.0), 1.0)
    return replace(cell, value=value, gain=value - base.value)


def _with_reason(cell: Cell, why: str) -> Cell:
    return replace(cell, reason="; ".join(filter(None, [cell.reason, why])))


def _pairs(base: Measured, adapter: Measured) -> bool:
    """Whether both have a score on the same items, and a metric that is their mean."""
    return adapter.means and base.means and _same_items(base, adapter)


def _same_items(a: Measured, b: Measured) -> bool:
    return a.items is not None and b.items is not None and np.array_equal(a.items, b.items)


def _with_interval(cell: Cell, tested: AssistedGain, at: int, base: Measured, column: _Column) -> Cell:
    """The cell with limits and p; where anchors helped, with the gain on all items and how sure that is."""
    low, high, p, within = (float(part[at]) for part in (tested.low, tested.high, tested.p, tested.within))
    if np.isnan(low):
        cell = _with_reason(cell, "the difference is the same on every item: no interval")
    if np.isfinite(within):
        gain = float(tested.gain[at])
        unit = f"{100 * within:.1f} points" if base.binary else f"{within:.3g}"
        cell = _with_reason(cell, f"the others estimated by anchors: within {unit} of all")
        cell = _at_gain(cell, base, gain, column)
    if cell.asked:  # the gain may have been cut to the end of its range
        low, high = min(low, cell.gain), max(high, cell.gain)
    return replace(cell, gain_low=low, gain_high=high, p=p)


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


def _conditions(store: RunStore, ledger: Ledger, parts: Parts) -> dict[str, Any]:
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
        **({"asking": dict(parts.asking)} if parts.asking else {}),
        **({"absent": absent} if (absent := absent_files(store, ledger)) else {}),
    }


def _by_name(described: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        entry["name"]: {key: value for key, value in entry.items() if key != "name"} for entry in described
    }
