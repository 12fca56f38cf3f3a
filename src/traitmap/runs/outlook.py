"""What a run keeps and what it has to do, in numbers and with the reason, before it begins.

``traitmap run`` and ``traitmap check`` tell it in the same words. Nothing is changed, and of cells only those
are read whose items may be kept for another limit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitmap.errors import RunError
from traitmap.runs.cells import read_conditions, read_outcomes
from traitmap.runs.ledger import CellEntry, Ledger, read_ledger
from traitmap.runs.plan import AdapterUnit, CellUnit, MergeUnit, Plan, trainings
from traitmap.runs.status import pending_units
from traitmap.runs.store import RunStore
from traitmap.wording import counted, listed

if TYPE_CHECKING:
    from traitmap.data.sources import LoadedSource
    from traitmap.data.targets import LoadedTarget

_MOST = 8  # reasons that are told
# Conditions of a target that follow from others, or change no outcome
_FOLLOW = ("items", "available", "items_without_gold", "read_as", "programs", "group")


@dataclass(frozen=True)
class Outlook:
    """What of a plan a run folder holds already, and what is to be done.

    adapters, merges, cells: still to be trained, merged and evaluated. items: that these cells ask.
    adapters_kept, merges_kept, cells_kept, items_kept: those that are there; items of a cell count that is
        asked anew for another limit.
    reasons: why what an earlier run had is not kept, and what is new, in words, each with whom it concerns.
    renamed: sources that the folder knows under another name, new -> former. new: there was no run.
    """

    adapters: tuple[AdapterUnit, ...]
    merges: tuple[MergeUnit, ...]
    cells: tuple[CellUnit, ...]
    items: int
    adapters_kept: int
    merges_kept: int
    cells_kept: int
    items_kept: int
    reasons: tuple[str, ...]
    renamed: Mapping[str, str]
    new: bool

    @property
    def trainings(self) -> int:
        """How many trainings the adapters to be trained cost; checkpoints come out of one with their end."""
        return len(trainings(self.adapters))

    @property
    def lines(self) -> tuple[str, ...]:
        """The same for a reader, a line each; at most a dozen."""
        todo = _size(len(self.adapters), len(self.merges), len(self.cells), self.items, self.trainings)
        kept = _size(self.adapters_kept, self.merges_kept, self.cells_kept, self.items_kept)
        if self.new:
            head = f"to do: {todo}; nothing is there yet."
        elif self.adapters or self.merges or self.cells:
            head = f"kept: {kept}; to do: {todo}."
        else:
            head = f"kept: {kept}; nothing is left to do."
        names = [f"read as {old} renamed to {name}" for name, old in self.renamed.items()]
        reasons = list(self.reasons)
        if len(reasons) > _MOST:
            reasons[_MOST - 1 :] = [f"and {len(self.reasons) - _MOST + 1} further reasons"]
        return (*names, head, *(f"  {reason}" for reason in reasons))

    def to_json(self) -> dict[str, Any]:
        """Counts, reasons and names as JSON data."""
        return {
            "adapters": len(self.adapters),
            "trainings": self.trainings,
            "merges": len(self.merges),
            "cells": len(self.cells),
            "items": self.items,
            "adapters_kept": self.adapters_kept,
            "merges_kept": self.merges_kept,
            "cells_kept": self.cells_kept,
            "items_kept": self.items_kept,
            "reasons": list(self.reasons),
            "renamed": dict(self.renamed),
        }


def outlook(
    *,
    plan: Plan,
    folder: str | Path,
    base_digest: str,
    sources: Sequence[LoadedSource],
    targets: Sequence[LoadedTarget],
    renamed: Mapping[str, str],
) -> Outlook:
    """Hold a plan against what its run folder holds.

    renamed: as ``study.renames.with_former_names`` gives it. Looks at names of files, so that what turns out
    to be damaged is done as well.
    """
    adapters, merges, cells = pending_units(
        plan=plan, folder=folder, base_digest=base_digest, sources=sources, targets=targets
    )
    store = RunStore(Path(folder))
    try:
        before = read_ledger(store)
    except RunError:
        before = None
    sizes = {target.name: target.n_items for target in targets}
    waiting: set[tuple[str, int | None]] = {(unit.source, unit.seed) for unit in adapters}
    waiting |= {(unit.source, unit.seed) for unit in merges}
    reached = [unit for unit in cells if (unit.source, unit.seed) not in waiting]
    reasons, known = list[str](), dict[str, int]()
    earlier = dict[CellUnit, CellEntry]()
    if before is not None:
        entries = {(entry.source, entry.seed, entry.target): entry for entry in before.cells}
        for unit in reached:
            entry = entries.get((renamed.get(unit.source, unit.source), unit.seed, unit.target))
            if entry is not None:
                earlier[unit] = entry
        known = _known_items(store, earlier, targets)
        reasons = [
            *_of_adapters("train", before, adapters, sources, renamed, base_digest),
            *_of_adapters("merge", before, merges, sources, renamed, base_digest),
            *_of_cells(before, reached, earlier, targets, known),
        ]
    partly = sum(known.get(unit.target, 0) for unit in earlier)
    items = sum(sizes[unit.target] for unit in cells) - partly
    return Outlook(
        adapters=adapters,
        merges=merges,
        cells=cells,
        items=items,
        adapters_kept=len(plan.adapters) - len(adapters),
        merges_kept=len(plan.merges) - len(merges),
        cells_kept=len(plan.cells) - len(cells),
        items_kept=sum(sizes[unit.target] for unit in plan.cells) - items,
        reasons=tuple(reasons),
        renamed={name: old for name, old in renamed.items() if before is not None},
        new=before is None,
    )


def _size(adapters: int, merges: int, cells: int, items: int, trained: int | None = None) -> str:
    """``13 adapters (of 11 trainings), 3 merges, 170 cells (42,500 items)``. trained: where it is known."""
    of_items = f"{items:,} items" if items > 1 else counted(items, "item")
    parts = [counted(adapters, "adapter")]
    if trained is not None and trained < adapters:
        parts[0] += f" (of {counted(trained, 'training')})"
    parts += [counted(merges, "merge")] if merges else []
    return f"{', '.join(parts)}, {counted(cells, 'cell')} ({of_items})"


def _known_items(
    store: RunStore, earlier: Mapping[CellUnit, CellEntry], targets: Sequence[LoadedTarget]
) -> dict[str, int]:
    """Items of each target that cells of another limit have answers to, by one such cell of each target."""
    known = dict[str, int]()
    for target in targets:
        for unit, entry in earlier.items():
            keys = [key for key in (entry.key, entry.earlier) if key and store.cell(key).is_file()]
            if unit.target != target.name or not keys:
                continue
            try:
                path = store.cell(keys[0])
                metric = str(read_conditions(path).get("metric"))
                answers = target.known_answers(read_outcomes(path), metric)
            except RunError:
                continue
            asked = {
                request.item for request, told in zip(target.requests, answers, strict=True) if told is None
            }
            known[target.name] = target.n_items - len(asked)
            break
    return known


def _of_adapters(
    verb: str,
    before: Ledger,
    adapters: Sequence[AdapterUnit | MergeUnit],
    sources: Sequence[LoadedSource],
    renamed: Mapping[str, str],
    base_digest: str,
) -> list[str]:
    """Why adapters are to be made: ``stars, reviews: training.learning_rate 0.002 -> 0.001``. verb: how."""
    described = {entry["name"]: entry for entry in before.sources}
    former_entries = {(entry.source, entry.seed): entry for entry in before.adapters}
    by_name = {source.name: source for source in sources}
    reasons = dict[str, list[str]]()
    for unit in adapters:
        former = renamed.get(unit.source, unit.source)
        entry, old = former_entries.get((former, unit.seed)), described.get(former)
        if old is None:
            reason = "new"
        elif entry is None:
            reason = f"seed {unit.seed} is new"
        elif entry.key != unit.key:
            changes = _changes_of_source(old, by_name[unit.source])
            if before.base != base_digest:
                changes.append("the base")
            reason = f"changed: {', '.join(changes) or 'what its draws come from'}"
        elif entry.status == "failed":
            reason = f"failed before ({entry.reason})"
        else:
            reason = "not done before"
        names = reasons.setdefault(reason, [])
        if unit.source not in names:
            names.append(unit.source)
    return [f"to {verb}: {listed(names)}: {reason}" for reason, names in reasons.items()]


def _changes_of_source(old: Mapping[str, Any], source: LoadedSource) -> list[str]:
    """What of a source is not as the ledger has it."""
    changes = []
    if old.get("digest") != source.digest:
        counts = old.get("examples"), len(source.examples)
        more = f" ({counts[0]} -> {counts[1]} examples)" if counts[0] != counts[1] else ""
        changes.append(f"its data{more}")
    for name in ("training", "lora"):
        now = getattr(source, name).model_dump(mode="json")
        changes += _differences(old.get(name) or {}, now, f"{name}.")
    return changes


def _of_cells(
    before: Ledger,
    cells: Sequence[CellUnit],
    earlier: Mapping[CellUnit, CellEntry],
    targets: Sequence[LoadedTarget],
    known: Mapping[str, int],
) -> list[str]:
    """Why cells of adapters that are there are to be evaluated."""
    described = {entry["name"]: entry for entry in before.targets}
    reasons = dict[str, list[CellUnit]]()
    by_name = {target.name: target for target in targets}
    for unit in cells:
        target, old, entry = by_name[unit.target], described.get(unit.target), earlier.get(unit)
        if old is None:
            reason = "new"
        elif old.get("digest") != target.digest:
            asked = {"task": target.task, "version": target.version, **target.conditions}
            changes = _differences(old.get("conditions") or {}, asked, "")
            kept = known.get(unit.target, 0) if entry is not None else 0
            some = f"; {kept:,} of {target.n_items:,} items are kept" if kept else ""
            reason = f"changed: {', '.join(changes) or 'its items, prompts or scoring'}{some}"
        elif entry is not None and entry.status == "failed":
            reason = f"failed before ({entry.reason})"
        else:
            reason = "not done before"
        reasons.setdefault(reason, []).append(unit)
    return [
        f"to evaluate: {listed([*dict.fromkeys(unit.target for unit in units)])}: {reason} "
        f"({counted(len(units), 'cell')})"
        for reason, units in reasons.items()
    ]


def _differences(old: Mapping[str, Any], now: Mapping[str, Any], prefix: str) -> list[str]:
    """``key old -> new`` for each value that differs, of keys that both have."""
    return [
        f"{prefix}{key} {_value(old[key])} -> {_value(now[key])}"
        for key in now
        if key in old and key not in _FOLLOW and old[key] != now[key]
    ]


def _value(value: Any) -> str:
    text = "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
