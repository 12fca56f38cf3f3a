"""Classes of a cell: metrics of adapter and base, their marginals against gold and the source's prior."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from traitmap.analysis.crossed_samples import item_weights, resampled_interval
from traitmap.analysis.interval import Interval, unknown
from traitmap.analysis.paired_change import NO_CHANGE_KNOWN, Change, paired_changes
from traitmap.analysis.profiles.cell_items import TargetItems
from traitmap.analysis.profiles.class_metrics import (
    METRICS,
    ClassMetrics,
    class_metrics,
    class_table,
    resampled_metrics,
    seed_metrics,
)
from traitmap.analysis.profiles.class_shares import share_distances
from traitmap.matrix_record import Array


@dataclass(frozen=True)
class CellClasses:
    """Classes of one cell, for one seed or pooled over seeds (seed None).

    adapter, base: metrics of both; base is None where it was not measured.
    gains: adapter minus base by every metric, items resampled jointly (accuracy as in the matrix). Their
        signs may differ.
    prior: (K,) share of each of the target's classes among the source's labels, or None and why.
    to_prior, base_to_prior, to_gold, base_to_gold: total variation distance (0 to 1) of the marginal of the
        answers that are a class.
    toward_prior, toward_gold: how far that distance fell from base to adapter, with the test of no change.
    onto_commonest: share of the adapter's commonest answer minus the base's share of the same answer.
    """

    source: str
    target: str
    seed: int | None
    adapter: ClassMetrics
    base: ClassMetrics | None
    gains: Mapping[str, Interval]
    prior: Array | None
    prior_reason: str
    to_prior: Interval
    base_to_prior: Interval
    to_gold: Interval
    base_to_gold: Interval
    toward_prior: Change
    toward_gold: Change
    onto_commonest: Change

    @property
    def opposed(self) -> tuple[tuple[str, str], ...]:
        """Pairs of metrics of which one says gain and the other loss, both beyond noise."""
        up = [name for name, gain in self.gains.items() if gain.low > 0]
        down = [name for name, gain in self.gains.items() if gain.high < 0]
        return tuple((one, other) for one in up for other in down)

    @property
    def unsupported(self) -> bool:
        """Accuracy changed beyond noise and balanced accuracy did not follow: the classes' shares did it."""
        accuracy, balanced = self.gains["accuracy"], self.gains["balanced_accuracy"]
        up, down = accuracy.low > 0, accuracy.high < 0
        return bool((up and not balanced.low > 0) or (down and not balanced.high < 0))


def cell_classes(
    items: TargetItems,
    label_counts: Mapping[str, Mapping[str, int]],
    *,
    draws: int = 1_000,
    seed: int = 0,
) -> list[CellClasses]:
    """Classes of every cell of a target; nothing where the target has no classes.

    label_counts: of each source, examples by label word.
    """
    if not items.labels:
        return []
    weights = item_weights(items.n, draws, seed)
    base = _base(items, weights)
    groups = items.groups
    resampled = [
        resampled_metrics(items.gold, items.predicted[list(rows)], len(items.labels), weights)
        for _, _, rows in groups
    ]
    adapters = [
        class_metrics(items.gold, items.predicted[list(rows)], items.labels, resampled=own)
        for (_, _, rows), own in zip(groups, resampled, strict=True)
    ]
    onto, accuracy = _commonest_changes(items, adapters), _accuracy_changes(items)
    distances = share_distances(items, label_counts, weights, seed)
    return [
        CellClasses(
            source=source,
            target=items.target,
            seed=own_seed,
            adapter=adapters[place],
            base=base[0] if base else None,
            gains={
                **_gains(items, rows, resampled[place], base[1] if base else None),
                "accuracy": accuracy[place].difference,
            },
            onto_commonest=onto[place],
            **distances[place],
        )
        for place, (source, own_seed, rows) in enumerate(groups)
    ]


def _base(items: TargetItems, weights: NDArray[np.float32]) -> tuple[ClassMetrics, dict[str, Array]] | None:
    if items.base is None:
        return None
    answers = items.predicted[[items.base]]
    resampled = resampled_metrics(items.gold, answers, len(items.labels), weights)
    return class_metrics(items.gold, answers, items.labels, resampled=resampled), resampled


def _gains(
    items: TargetItems,
    rows: tuple[int, ...],
    resampled: Mapping[str, Array],
    of_base: Mapping[str, Array] | None,
) -> dict[str, Interval]:
    """Adapter minus base by every metric."""
    if items.base is None or of_base is None:
        return {name: unknown("the base was not measured") for name in METRICS}
    own = _seed_values(items, rows)
    zero = _seed_values(items, (items.base,))
    found = {}
    for name in METRICS:
        by_seed = own[name] - zero[name]
        value = float(by_seed.mean())
        found[name] = (
            resampled_interval(value, resampled[name] - of_base[name], n=items.n, by_seed=by_seed)
            if np.isfinite(value)
            else unknown("undefined for the base or the adapter: one answer for everything")
        )
    return found


def _seed_values(items: TargetItems, rows: Sequence[int]) -> dict[str, Array]:
    return seed_metrics(
        np.array([class_table(items.gold, items.predicted[row], len(items.labels)) for row in rows])
    )


def _commonest_changes(items: TargetItems, adapters: Sequence[ClassMetrics]) -> list[Change]:
    if items.base is None:
        return [NO_CHANGE_KNOWN] * len(adapters)
    differences = []
    for (_, _, rows), found in zip(items.groups, adapters, strict=True):
        hits = (items.predicted == found.columns.index(found.commonest)).astype(float)
        differences.append(hits[list(rows)] - hits[items.base])
    return paired_changes(differences, binary=True)


def _accuracy_changes(items: TargetItems) -> list[Change]:
    if items.base is None:
        return [NO_CHANGE_KNOWN] * len(items.groups)
    hits = (items.predicted == items.gold).astype(float)
    return paired_changes([hits[list(rows)] - hits[items.base] for _, _, rows in items.groups], binary=True)
