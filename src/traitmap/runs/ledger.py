"""The ledger of a run: every adapter and cell that was asked for, under which key, and what came of it.

Two lists stand beside it: the partial cells, of which only some items have been measured (kept apart from
the whole cells, which replace them), and which items of the targets occur in the training data. All are
sealed JSON. Whoever reads the ledger gets it brought up to date: what stands whole in the folder counts as
done.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import isfinite
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from traitmap.errors import RunError
from traitmap.runs.files import files_in, read_record, write_sealed_json
from traitmap.runs.plan import CellUnit
from traitmap.runs.store import FORMAT, RunStore, refuse_newer, side_records, trained_adapters
from traitmap.study.paths import digest
from traitmap.study.settings import BASELINE

if TYPE_CHECKING:
    from traitmap.data.sources import Lineage, LoadedSource
    from traitmap.data.targets import LoadedTarget


ITEM_GROUPS = "item_groups.json"
GONE = "it was done and its files are gone; `traitmap run` computes it anew"
Status = Literal["done", "failed", "missing"]


@dataclass(frozen=True)
class AdapterEntry:
    """One adapter: (source, seed). seed None: an adapter that existed before, the same for all seeds.

    key: of a trained adapter, its folder's name; None for one that existed before. digest: of its files,
    None until it is there. group: index of the training pass that the study assigns it to.
    report: of its training, without the losses. reason: why it failed.
    """

    source: str
    seed: int | None
    key: str | None
    group: int | None
    status: Status = "missing"
    digest: str | None = None
    reason: str = ""
    report: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class CellEntry:
    """One cell: (source, seed, target); the base's cells have the source ``__baseline__`` and no seed.

    key: name of its file, None until the adapter is there. seconds: of computing it, None where unknown.
    earlier: name of the file of a cell that is there and holds other items, until this one is. asked: of a
    partial cell, how many of its target's items it holds (``Parts.items_of``). settled: why no more of them
    are asked, where a rule of the study ended it.
    """

    source: str
    seed: int | None
    target: str
    key: str | None
    status: Status = "missing"
    reason: str = ""
    seconds: float | None = None
    earlier: str | None = None
    asked: int | None = None
    settled: str = ""


@dataclass(frozen=True)
class Ledger:
    """What a run was asked and how far it is.

    study: digest of the study. base: digest of the base; model: where it came from.
    conditions: of the engine. sources, targets: what each is, plain JSON data with at least ``name``.
    records: files beside ledger, cells and adapters that the run has had, seen from its folder; what of them
    is not there is lost.
    """

    name: str
    study: str
    base: str
    model: Mapping[str, Any]
    conditions: Mapping[str, Any]
    seeds: tuple[int, ...]
    sources: tuple[Mapping[str, Any], ...]
    targets: tuple[Mapping[str, Any], ...]
    adapters: tuple[AdapterEntry, ...]
    cells: tuple[CellEntry, ...]
    records: tuple[str, ...] = ()


def describe_source(source: LoadedSource) -> dict[str, Any]:
    """A source as the ledger keeps it.

    Counts of examples: ``examples`` as they are used, ``available`` before any limit. ``variation`` is there
    only where the source was made from another one, ``merge`` only where it is one, ``warnings`` only where
    there are any.
    """
    made: dict[str, Any] = {"variation": describe_variation(source.variation)} if source.variation else {}
    if source.merge:
        made |= {"merge": asdict(source.merge)}
    if source.warnings:
        made["warnings"] = list(source.warnings)
    return {
        "name": source.name,
        "digest": source.digest,
        "examples": len(source.examples),
        "available": source.available,
        "label_counts": dict(source.label_counts),
        "adapter": str(source.adapter) if source.adapter else None,
        "lora": source.lora.model_dump(mode="json"),
        "training": source.training.model_dump(mode="json"),
        "tags": list(source.tags),
        **made,
    }


def seeds_of(source: Mapping[str, Any], seeds: Sequence[int]) -> tuple[int | None, ...]:
    """Seeds of a source's rows, as the ledger keeps it: None where it has one adapter, the same for all."""
    merge = source.get("merge")
    return tuple(seeds) if (merge["seeded"] if merge else not source["adapter"]) else (None,)


def has_texts(source: Mapping[str, Any]) -> bool:
    """Whether a source, as the ledger keeps it, has texts: an adapter and a merge of adapters have none."""
    return source["adapter"] is None and not source.get("merge")


def describe_variation(variation: Lineage) -> dict[str, Any]:
    """How a source came from another one, as the ledger keeps it; an unknown dose is null."""
    return {
        "family": variation.family,
        "parents": list(variation.parents),
        "kind": variation.kind,
        "changes": dict(variation.changes),
        "dose": variation.dose if isfinite(variation.dose) else None,
        "parent_dose": variation.parent_dose if isfinite(variation.parent_dose) else None,
        "meaning": variation.meaning,
        "rows_changed": variation.rows_changed,
    }


def describe_target(target: LoadedTarget) -> dict[str, Any]:
    """A target as the ledger keeps it; unknown chance and majority rates are null.

    ``caveats`` is there only where there are any: kind, count, total and text of each.
    """
    noted = {"caveats": [asdict(caveat) for caveat in target.caveats]} if target.caveats else {}
    return {
        "name": target.name,
        "task": target.task,
        "version": target.version,
        "kind": target.kind,
        "metric": target.metric,
        "filter": target.filter,
        "higher_is_better": target.higher_is_better,
        "items": target.n_items,
        "requests": len(target.requests),
        "digest": target.digest,
        "chance": target.chance if isfinite(target.chance) else None,
        "majority": target.majority if isfinite(target.majority) else None,
        "tags": list(target.tags),
        "conditions": dict(target.conditions),
        **noted,
    }


def write_ledger(store: RunStore, ledger: Ledger) -> None:
    """Write the ledger atomically, with the files that stand beside it by now. Needs the lock."""
    content = {name: value for name, value in vars(ledger).items() if name not in ("adapters", "cells")}
    content["adapters"] = [{**vars(entry), "report": dict(entry.report)} for entry in ledger.adapters]
    content["cells"] = [
        {name: value for name, value in vars(entry).items() if name not in _OPTIONAL or value}
        for entry in ledger.cells
    ]
    content["records"] = sorted({*ledger.records, *side_records(store)})
    write_sealed_json(store.ledger, {"format": FORMAT, **content})


def read_ledger(store: RunStore) -> Ledger:
    """The ledger, brought up to date: what stands whole in the folder is done, whatever was written last.

    What was done and is not there any more is missing, with the reason ``GONE``. RunError where the ledger is
    damaged or of another version, OSError where the system does not give it.
    """

    def parse(raw: dict[str, Any]) -> Ledger:
        if raw.pop("format") != FORMAT:
            raise RunError(f"{store.ledger}: written by another version of traitmap; run the study again.")
        records = raw.get("records", [])
        _require(
            isinstance(records, list) and all(isinstance(name, str) for name in records), "its list of files"
        )
        raw["records"] = tuple(records)
        adapters = tuple(AdapterEntry(**entry) for entry in raw.pop("adapters"))
        cells = tuple(CellEntry(**entry) for entry in raw.pop("cells"))
        for name in ("seeds", "sources", "targets"):
            raw[name] = tuple(raw[name])
        ledger = Ledger(adapters=adapters, cells=cells, **raw)
        _check_shapes(ledger)
        return ledger

    refuse_newer(store)
    try:
        ledger = read_record(store.ledger, parse, advice="`traitmap run` writes it anew")
    except FileNotFoundError:
        raise RunError(f"{store.folder}: holds no run.json, so it is no run folder.") from None
    present = {path.stem for path in files_in(store.cells, "[!.]*.parquet")}
    trained, adapters = trained_adapters(store), []
    for entry in ledger.adapters:
        if entry.key is not None and (adapter := trained.get(entry.key)):
            entry = replace(entry, status="done", digest=adapter.digest, reason="")
        elif entry.key is not None and entry.status == "done":
            entry = replace(entry, status="missing", digest=None, reason=GONE)
        adapters.append(entry)
    return replace(
        ledger,
        adapters=tuple(adapters),
        cells=tuple(_current(entry, entry.key in present) for entry in ledger.cells),
    )


_OPTIONAL = ("earlier", "asked", "settled")  # of a cell's entry, left out where they say nothing
_KEY = re.compile(r"[0-9a-f]{32}")  # of an adapter or cell: it becomes a file name


def _check_shapes(ledger: Ledger) -> None:
    """ValueError where a run that somebody else made holds what no run holds, or a key that is a path."""
    for text in (ledger.name, ledger.study, ledger.base):
        _require(isinstance(text, str), "a name is no text")
    _require(all(type(seed) is int for seed in ledger.seeds), "a seed is no whole number")
    _require(isinstance(ledger.model, dict) and isinstance(ledger.conditions, dict), "it has no conditions")
    for entry in (*ledger.sources, *ledger.targets):
        named = isinstance(entry, dict) and isinstance(entry.get("name"), str)
        _require(named, "a source or target has no name")
    for name in ledger.records:
        inside = re.fullmatch(r"[^/\0]{1,255}(/[^/\0]{1,255})?", name) is not None
        _require(inside and ".." not in name.split("/"), f"{name[:80]!r} is no file of a run")
    sources = {BASELINE, *(source["name"] for source in ledger.sources)}
    targets = {target["name"] for target in ledger.targets}
    units: list[AdapterEntry | CellEntry] = [*ledger.adapters, *ledger.cells]
    for unit in units:
        _require(unit.source in sources, f"{unit.source!r} is none of its sources")
        _require(unit.seed is None or type(unit.seed) is int, "a seed is no whole number")
        key = unit.key is None or (isinstance(unit.key, str) and _KEY.fullmatch(unit.key) is not None)
        _require(key, f"{unit.key!r} is no key")
        _require(isinstance(unit.reason, str), "a reason is no text")
        earlier = unit.earlier if isinstance(unit, CellEntry) else None
        key = earlier is None or (isinstance(earlier, str) and _KEY.fullmatch(earlier) is not None)
        _require(key, f"{earlier!r} is no key")
        _require(unit.status in ("done", "failed", "missing"), f"{unit.status!r} is no status")
    for cell in ledger.cells:
        _require(cell.target in targets, f"{cell.target!r} is none of its targets")


def _require(sound: bool, message: str) -> None:
    if not sound:
        raise ValueError(message)


def _current(entry: CellEntry, present: bool) -> CellEntry:
    """The entry of a cell, brought up to date with whether its file is present."""
    if present:
        return replace(entry, status="done", reason="")
    return replace(entry, status="missing", reason=GONE) if entry.status == "done" else entry


PARTS_FORMAT = 2
FILE = "parts.json"


@dataclass(frozen=True)
class Parts:
    """Partial cells of a run.

    order: target -> its items (indices) in the order in which they are asked; a partial cell holds the first
    so many of them, the same for the base and all adapters that hold as many. cells: what came of each, like
    the ledger's; a key is that of the partial cell. asking: of a run that ends cells early, its rules, looks
    and what it saved, as JSON data; else empty.
    """

    order: Mapping[str, tuple[int, ...]]
    cells: tuple[CellEntry, ...]
    asking: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def items_of(self, cell: CellEntry) -> list[int]:
        """The items (indices, rising) that a partial cell holds."""
        return sorted(self.order.get(cell.target, ())[: cell.asked or 0])


@dataclass(frozen=True)
class Selection:
    """What of a plan is to be done.

    adapters: (source, seed) to be trained. cells: to be evaluated, the base's among them. items: target ->
    items to be asked (indices, in any order that later selections go on with); targets that it lacks are
    asked whole. A partial cell that holds these items and more is done. asking: kept beside partial cells
    (``Parts.asking``).
    """

    adapters: frozenset[tuple[str, int]]
    cells: tuple[CellUnit, ...]
    items: Mapping[str, tuple[int, ...]]
    asking: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


def read_parts(store: RunStore) -> Parts:
    """The partial cells whose files are there; none where the run has none. RunError where damaged."""
    path = store.folder / FILE

    def parse(raw: dict[str, Any]) -> Parts:
        if raw["format"] not in (1, PARTS_FORMAT):
            raise RunError(f"{path}: written by another version of traitmap; remove it and run again.")
        order = {name: tuple(indices) for name, indices in raw["items"].items()}
        cells = [CellEntry(**entry) for entry in raw["cells"]]
        if raw["format"] == 1:  # all partial cells of a target held the same items
            cells = [replace(entry, asked=len(order.get(entry.target, ()))) for entry in cells]
        return Parts(order, tuple(cells), raw.get("asking", {}))

    if not path.is_file():
        return Parts({}, ())
    parts = read_record(path, parse, advice="remove it and run again")
    cells = [
        _current(entry, entry.key is not None and store.cell(entry.key).is_file()) for entry in parts.cells
    ]
    return replace(parts, cells=tuple(cells))


def write_parts(store: RunStore, parts: Parts) -> None:
    """Write the list of partial cells atomically, those that failed among them. Needs the lock."""
    content = {
        "format": PARTS_FORMAT,
        "items": {name: list(indices) for name, indices in parts.order.items()},
        "cells": [asdict(entry) for entry in parts.cells],
        **({"asking": dict(parts.asking)} if parts.asking else {}),
    }
    write_sealed_json(store.folder / FILE, content)


_METHOD = 2  # raise it where the comparison itself changes, so that runs compare anew


def contamination_key(sources: Sequence[LoadedSource], targets: Sequence[LoadedTarget]) -> str:
    """Digest of all texts that are compared: where it has not changed, nothing is compared again."""
    return digest(
        [
            _METHOD,
            [[source.name, source.digest] for source in sources],
            [[target.name, target.digest] for target in targets],
        ]
    )


def write_contamination(store: RunStore, comparison: Mapping[str, Any], key: str) -> None:
    """Keep what a comparison found (plain JSON data, see ``analysis.contamination``). Needs the lock."""
    write_sealed_json(_contamination_file(store), {"key": key, **comparison})


def read_contamination(store: RunStore) -> dict[str, Any] | None:
    """What the comparison found, with its ``key``; None where nothing was compared.

    RunError where the file is damaged. ``contamination_key`` of the study tells whether it is still true.
    """
    path = _contamination_file(store)
    try:
        comparison = read_record(path, dict, advice="`traitmap run` compares again")
    except FileNotFoundError:
        return None
    if not isinstance(comparison.get("overlaps"), list):
        raise RunError(f"{path}: holds no overlaps; remove it, and `traitmap run` compares again.")
    return comparison


def write_item_groups(store: RunStore, comparison: Mapping[str, Any], key: str) -> None:
    """Keep which items of the targets repeat (see ``analysis.repeats``). Needs the lock."""
    write_sealed_json(store.folder / ITEM_GROUPS, {"key": key, **comparison})


def read_item_groups(store: RunStore) -> dict[str, Any] | None:
    """Which items repeat, with the ``key`` of the texts that were compared; None where none were.

    ``targets``: name -> by (what makes a group), codes (the group of each item). ``shared``: pairs of targets
    with items in common. RunError where the file is damaged.
    """
    path = store.folder / ITEM_GROUPS
    try:
        record = read_record(path, dict, advice="`traitmap run` compares again")
    except FileNotFoundError:
        return None
    if not isinstance(record.get("targets"), dict) or not isinstance(record.get("shared"), list):
        raise RunError(f"{path}: holds no groups of items; remove it, and `traitmap run` compares again.")
    return record


def contamination_overlaps(comparison: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The touched pairs in numbers, as a matrix carries them: without the touched items and the examples.

    Counts of items by how they occur in the training data, and their share of the target's items (0 to 1).
    A number that the comparison did not store is None.
    """
    names = ("source", "target", "items", "exact", "contained", "near", "short", "share", "material")
    return [{name: pair.get(name) for name in names} for pair in comparison["overlaps"]]


def _contamination_file(store: RunStore) -> Path:
    return store.folder / "contamination.json"
