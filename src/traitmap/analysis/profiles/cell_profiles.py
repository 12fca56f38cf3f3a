"""All cells of a run at once: outcomes and texts in, classes, lengths and reasons of every cell out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

import numpy as np

from traitmap.analysis.interval import Interval
from traitmap.analysis.profiles.cell_classes import CellClasses, cell_classes
from traitmap.analysis.profiles.cell_items import Key, TargetItems, target_items
from traitmap.analysis.profiles.cell_lengths import NOTHING, CellLengths, SourceLengths, cell_lengths
from traitmap.analysis.profiles.cell_reasons import Reasons, cell_reasons
from traitmap.analysis.profiles.class_metrics import ClassMetrics
from traitmap.analysis.profiles.length_trend import LengthTrend, length_trends
from traitmap.analysis.traits_json import plain
from traitmap.data.records import Outcome
from traitmap.data.texts import TaskText, Texts
from traitmap.matrix_record import Array

DRAWS = 1_000

Profile = TypeVar("Profile", CellClasses, CellLengths)


@dataclass(frozen=True)
class CellProfiles:
    """What the outcomes of a run say about every cell beyond its score.

    classes, lengths: one record per (source, target), pooled over seeds (seed None), and one per seed;
        classes only on targets that have some, lengths only where something is written or chosen.
    trends: whether lengths follow the source, per target and over all.
    reasons: (source, target) -> reasons with significance corrected over the whole matrix.
    """

    classes: tuple[CellClasses, ...]
    lengths: tuple[CellLengths, ...]
    trends: tuple[LengthTrend, ...]
    reasons: Reasons

    def classes_of(self, source: str, target: str, seed: int | None = None) -> CellClasses | None:
        """Classes of one cell, or None."""
        return next((one for one in self.classes if _is(one, source, target, seed)), None)

    def lengths_of(self, source: str, target: str, seed: int | None = None) -> CellLengths | None:
        """Lengths of one cell, or None."""
        return next((one for one in self.lengths if _is(one, source, target, seed)), None)

    def to_json(self) -> dict[str, Any]:
        """Everything as plain JSON values; unknown numbers are null. Reasons as a list with their cell."""
        return {
            "classes": record_json(self.classes),
            "lengths": record_json(self.lengths),
            "trends": record_json(self.trends),
            "reasons": [
                {"source": source, "target": target, **record_json(reason)}
                for (source, target), own in self.reasons.items()
                for reason in own
            ],
        }


def cell_profiles(
    outcomes: Mapping[tuple[str, int | None, str], Sequence[Outcome]],
    *,
    source_texts: Texts | None = None,
    target_texts: Texts | None = None,
    label_counts: Mapping[str, Mapping[str, int]] | None = None,
    source_tokens: Mapping[str, Sequence[int]] | None = None,
    gold_tokens: Mapping[str, Sequence[int]] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> CellProfiles:
    """Profile every cell of a run by what was answered.

    outcomes: (source, seed, target) -> outcomes in the order of the items; the base's under
        ``("__baseline__", None, target)``, an adapter that existed before with seed None. Cells that were not
        measured are left out. The order of sources and targets is that of this mapping.
    source_texts: training examples by source: their outputs' lengths, and their labels where no label_counts
        (source -> label word -> examples) are given. target_texts: items by target; choices name classes.
    source_tokens, gold_tokens: tokens of source outputs and of gold answers where somebody counted them;
        without them, lengths are compared with the source's in characters.
    draws: resampled sets of items for each interval. MatrixError where adapters answered different items.
    """
    texts, tokens = source_texts or {}, source_tokens or {}
    counts = {
        **_label_counts(texts),
        **{name: dict(own) for name, own in (label_counts or {}).items() if own},
    }
    sources = {
        name: SourceLengths(_numbers(tokens.get(name)), _characters(texts.get(name, ())))
        for name in dict.fromkeys([*texts, *tokens])
    }
    classes: list[CellClasses] = []
    lengths: list[CellLengths] = []
    for items in _targets(outcomes, target_texts or {}):
        classes += _each_seed(items, cell_classes(items, counts, draws=draws, seed=seed))
        own = (gold_tokens or {}).get(items.target)
        gold = None if own is None else _numbers(own)
        lengths += _each_seed(items, cell_lengths(items, sources, gold_tokens=gold, seed=seed))
    return CellProfiles(
        classes=tuple(classes),
        lengths=tuple(lengths),
        trends=length_trends(lengths, seed=seed),
        reasons=cell_reasons(classes, lengths),
    )


def record_json(value: Any) -> Any:
    """Records as plain JSON values: fields by name, unknown numbers null."""
    if isinstance(value, Interval):
        return value.to_json()
    if isinstance(value, ClassMetrics):
        return {**_fields(value), "rates": plain(value.rates)}
    if isinstance(value, CellClasses):
        return {**_fields(value), "opposed": plain(value.opposed), "unsupported": value.unsupported}
    if is_dataclass(value) and not isinstance(value, type):
        return _fields(value)
    if isinstance(value, Mapping):
        return {str(key): record_json(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [record_json(one) for one in value]
    return plain(value)


def _fields(record: Any) -> dict[str, Any]:
    return {field.name: record_json(getattr(record, field.name)) for field in fields(record)}


def _targets(
    outcomes: Mapping[tuple[str, int | None, str], Sequence[Outcome]], texts: Texts
) -> list[TargetItems]:
    """Arrays of every target that has classes or lengths."""
    by_target: dict[str, dict[Key, Sequence[Outcome]]] = {}
    for (source, seed, target), own in outcomes.items():
        by_target.setdefault(target, {})[source, seed] = own
    found = (target_items(target, own, texts.get(target, ())) for target, own in by_target.items())
    return [items for items in found if items is not None]


def _each_seed(items: TargetItems, found: list[Profile]) -> list[Profile]:
    """The records, with the one seed's own where pooling over it changes nothing."""
    single = items.single_seeds
    return found + [replace(one, seed=single[one.source]) for one in found if one.source in single]


def _label_counts(texts: Texts) -> dict[str, dict[str, int]]:
    return {
        name: dict(Counter(text.label for text in own if text.label is not None))
        for name, own in texts.items()
    }


def _characters(texts: Sequence[TaskText]) -> Array:
    return np.array([len(text.output.strip()) for text in texts if text.output], dtype=float)


def _numbers(values: Sequence[int] | None) -> Array:
    return NOTHING if values is None else np.asarray(values, dtype=float)


def _is(one: CellClasses | CellLengths, source: str, target: str, seed: int | None) -> bool:
    return (one.source, one.target, one.seed) == (source, target, seed)
