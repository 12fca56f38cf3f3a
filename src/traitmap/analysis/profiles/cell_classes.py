"""Classes of every cell: metrics of adapter and base, their gains, and the classes' shares among answers.

Each cell's answers are held against two distributions, the target's gold classes and the source's own class
shares (its prior): an adapter that carries its source's prior over moves toward it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from traitmap.analysis.profiles.cell_items import TargetItems, same_word
from traitmap.analysis.profiles.classes import (
    METRICS,
    ClassMetrics,
    class_metrics,
    confusion_counts,
    resampled_metrics,
    seed_metrics,
)
from traitmap.jsonable import jsonable
from traitmap.matrix.crossed import crossed, resampled_interval
from traitmap.matrix.record import Array
from traitmap.matrix.statistics import (
    NO_CHANGE_KNOWN,
    SIGN_FLIP_DRAWS,
    Change,
    Groups,
    Interval,
    drawn_weights,
    item_signs,
    paired_changes,
    unknown,
)

Answers = tuple[
    NDArray[np.float32], Array, Array
]  # (S, n, K) 1 at the class; marginals: (S, K), (S, draws, K)

LEAST_SHARED = 2  # label words that source and target must share before one has a prior over the other's
LEAST_COVERED = 0.5  # and the share of the source's examples that they must hold


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
        return tuple((gained, lost) for gained in up for lost in down)

    @property
    def unsupported(self) -> bool:
        """Accuracy changed beyond noise and balanced accuracy did not follow: the classes' shares did it."""
        accuracy, balanced = self.gains["accuracy"], self.gains["balanced_accuracy"]
        up, down = accuracy.low > 0, accuracy.high < 0
        return bool((up and not balanced.low > 0) or (down and not balanced.high < 0))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data with ``opposed`` and ``unsupported`` beside the fields; unknown is null."""
        return {**jsonable(vars(self)), "opposed": jsonable(self.opposed), "unsupported": self.unsupported}


def cell_classes(
    items: TargetItems,
    label_counts: Mapping[str, Mapping[str, int]],
    *,
    draws: int = 1_000,
    seed: int = 0,
) -> list[CellClasses]:
    """Classes of every cell of a target, in the order of ``items.groups``; none where it has no classes.

    label_counts: of each source, examples by label word. draws: resampled sets of items, the same for all
    cells. seed: of these and of the permutation tests.
    """
    if not items.labels:
        return []
    weights = drawn_weights(items.n, items.item_groups, draws, seed)

    def metrics_of(rows: Sequence[int]) -> tuple[ClassMetrics, dict[str, Array]]:
        answers = items.predicted[list(rows)]
        resampled = resampled_metrics(items.gold, answers, len(items.labels), weights)
        metrics = class_metrics(
            items.gold, answers, items.labels, resampled=resampled, item_groups=items.item_groups
        )
        return metrics, resampled

    base = None if items.base is None else metrics_of([items.base])
    groups = items.groups
    adapters = [metrics_of(rows) for _, _, rows in groups]
    accuracy = items.changes((items.predicted == items.gold).astype(float))
    onto = _commonest_changes(items, [metrics for metrics, _ in adapters])
    distances = share_distances(items, label_counts, weights, seed)
    return [
        CellClasses(
            source=source,
            target=items.target,
            seed=cell_seed,
            adapter=adapters[place][0],
            base=base[0] if base else None,
            gains={
                **_gains(items, rows, adapters[place][1], base[1] if base else None),
                "accuracy": accuracy[place].difference,
            },
            onto_commonest=onto[place],
            **distances[place],
        )
        for place, (source, cell_seed, rows) in enumerate(groups)
    ]


def _gains(
    items: TargetItems,
    rows: tuple[int, ...],
    resampled: Mapping[str, Array],
    of_base: Mapping[str, Array] | None,
) -> dict[str, Interval]:
    """Adapter minus base by every metric."""
    if items.base is None or of_base is None:
        return {name: unknown("the base was not measured") for name in METRICS}
    n_classes = len(items.labels)
    adapter, base = (
        seed_metrics(
            np.array([confusion_counts(items.gold, items.predicted[row], n_classes) for row in places])
        )
        for places in (rows, (items.base,))
    )
    gains = {}
    for name in METRICS:
        by_seed = adapter[name] - base[name]
        value = float(by_seed.mean())
        gains[name] = (
            resampled_interval(value, resampled[name] - of_base[name], n=items.sample, by_seed=by_seed)
            if np.isfinite(value)
            else unknown("undefined for the base or the adapter: one answer for everything")
        )
    return gains


def _commonest_changes(items: TargetItems, adapters: Sequence[ClassMetrics]) -> list[Change]:
    if items.base is None:
        return [NO_CHANGE_KNOWN] * len(adapters)
    differences = []
    for (_, _, rows), metrics in zip(items.groups, adapters, strict=True):
        hits = (items.predicted == metrics.columns.index(metrics.commonest)).astype(float)
        differences.append(hits[list(rows)] - hits[items.base])
    return paired_changes(differences, binary=True, groups=items.item_groups)


def prior_over(labels: Sequence[str], label_counts: Mapping[str, int]) -> tuple[Array | None, str]:
    """(K,) share of each of the target's classes among a source's labels, or None and why.

    Words are compared without case. At least two must be shared, holding half of the source's examples:
    a single word that two tasks share ("neutral") says nothing about the classes of either.
    """
    if not label_counts:
        return None, "the source has no labels"
    counts: dict[str, int] = {}
    for word, count in label_counts.items():
        counts[same_word(word)] = counts.get(same_word(word), 0) + count
    held = np.array([counts.get(same_word(label), 0) for label in labels], dtype=float)
    shared = [label for label in labels if same_word(label) in counts]
    if len(shared) < LEAST_SHARED or held.sum() < LEAST_COVERED * sum(counts.values()):
        words = f"only {', '.join(shared)}" if shared else "none"
        return None, f"of the source's label words the target has {words}"
    return held / held.sum(), ""


def total_variation(marginals: Array, other: Array) -> Array:
    """Half the summed absolute difference along the last axis: 0 is the same, 1 shares no class.

    marginals: (..., K), other: (K,), shares that sum to 1. NaN where a marginal is.
    """
    return np.asarray(np.abs(marginals - other).sum(axis=-1) / 2)


def share_distances(
    items: TargetItems,
    label_counts: Mapping[str, Mapping[str, int]],
    weights: NDArray[np.uint16],
    seed: int,
) -> list[dict[str, Any]]:
    """Distances of marginals from prior and gold for every group, as fields of the record.

    label_counts: of each source, examples by label word. weights: (draws, n) of ``item_weights``. Fields
    are ``prior``, ``prior_reason``, ``to_*``, ``base_to_*`` and ``toward_*`` of ``CellClasses``.
    """
    n_classes = len(items.labels)
    gold = np.bincount(items.gold, minlength=n_classes) / items.n
    base = None if items.base is None else _answers(items, (items.base,), weights)
    answers = [_answers(items, rows, weights) for _, _, rows in items.groups]
    shifts = _shifts(answers, base, items.item_groups, seed)
    distances = []
    for (source, _, _), adapter, shift in zip(items.groups, answers, shifts, strict=True):
        prior, reason = prior_over(items.labels, label_counts.get(source, {}))
        fields: dict[str, Any] = {"prior": prior, "prior_reason": reason}
        for name, to in (("prior", prior), ("gold", gold)):
            fields[f"to_{name}"] = _distance(adapter, to, reason, items.sample)
            of_base = _distance(base, to, reason, items.sample) if base else unknown("no base")
            fields[f"base_to_{name}"] = of_base
            fields[f"toward_{name}"] = _toward(adapter, base, to, shift, items.sample)
        distances.append(fields)
    return distances


def _answers(items: TargetItems, rows: tuple[int, ...], weights: NDArray[np.uint16]) -> Answers:
    """Answers of a group, or of the base, and their marginals on all items and on resampled ones."""
    codes = items.predicted[list(rows)]
    indicators = (codes[:, :, None] == np.arange(len(items.labels))).astype(np.float32)
    resampled = _normalised(np.stack([weights @ indicator for indicator in indicators]))
    return indicators, _normalised(indicators.sum(axis=1)), resampled


def _distance(answers: Answers, to: Array | None, reason: str, sample: int) -> Interval:
    """Distance of a group's marginal from shares (K,); ``reason`` says why they are unknown.

    sample: items, those that repeat counted once.
    """
    if to is None:
        return unknown(reason)
    _, marginals, resampled = answers
    by_seed = total_variation(marginals, to)
    value = float(by_seed.mean())
    if not np.isfinite(value):
        return unknown("no answer is one of the classes")
    draws = total_variation(resampled, to).mean(axis=0)
    return resampled_interval(value, draws, n=sample, by_seed=by_seed, low=0.0, high=1.0)


def _toward(
    adapter: Answers, base: Answers | None, to: Array | None, shift: Array | None, sample: int
) -> Change:
    """How far the distance fell. One seed: base and adapter change places on items (exact); several: t.

    A plain comparison of the adapter with the direction from base to prior would find movement where there
    is none, since a base that is far off by chance comes back; exchanging the two is fair to both.
    """
    if to is None or base is None:
        return NO_CHANGE_KNOWN
    (indicators, marginals, resampled), (base_indicators, base_marginals, base_resampled) = adapter, base
    by_seed = total_variation(base_marginals, to)[0] - total_variation(marginals, to)
    value = float(by_seed.mean())
    if not np.isfinite(value):
        return Change(unknown("no answer is one of the classes"), nan)
    draws = total_variation(base_resampled[0], to) - total_variation(resampled, to).mean(axis=0)
    interval = resampled_interval(value, draws, n=sample, by_seed=by_seed, low=-1.0, high=1.0)
    if shift is not None:
        first, second = indicators[0], base_indicators[0]
        if not (first != second).any():
            return Change(interval, 1.0)
        middle = ((first + second) / 2).sum(axis=0)
        before = total_variation(_normalised(middle - shift), to)
        fall = before - total_variation(_normalised(middle + shift), to)
        return Change(interval, float((1 + (np.abs(fall) >= abs(value) - 1e-6).sum()) / (1 + len(fall))))
    spread = float(np.nanvar(draws, ddof=1)) if np.ptp(draws) > 0 else 0.0
    return Change(interval, crossed(value, items=spread, freedom=sample - 1, by_seed=by_seed).p)


def _shifts(
    answers: Sequence[Answers], base: Answers | None, groups: Groups | None, seed: int
) -> list[Array | None]:
    """(draws, K) half of what exchanging base and adapter moves; None where seeds answer differently.

    Seeds that answer alike count as one. groups: (n,) of items whose answers change places together.
    """
    shifts: list[Array | None] = [None] * len(answers)
    alike = [place for place, (indicators, *_) in enumerate(answers) if (indicators == indicators[:1]).all()]
    if base is None or not alike:
        return shifts
    base_answers = base[0][0]
    moved = np.concatenate([answers[place][0][0] - base_answers for place in alike], axis=1)
    if groups is not None:
        moved = np.stack([np.bincount(groups, column) for column in moved.T], axis=1)
    drawn = item_signs(len(moved), SIGN_FLIP_DRAWS, seed) @ (moved / 2)
    for place, shift in zip(alike, np.split(drawn, len(alike), axis=1), strict=True):
        shifts[place] = shift
    return shifts


def _normalised(sums: NDArray[np.floating]) -> Array:
    """Shares along the last axis; NaN where there is nothing."""
    total = sums.sum(axis=-1, keepdims=True)
    return np.divide(sums, total, out=np.full(sums.shape, nan), where=total > 0)
