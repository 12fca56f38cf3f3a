"""Shares of the classes among answers: their distance from gold and from the source's prior."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from traitmap.analysis.crossed_samples import crossed, item_signs, resampled_interval
from traitmap.analysis.interval import Interval, unknown
from traitmap.analysis.paired_change import NO_CHANGE_KNOWN, Change
from traitmap.analysis.profiles.cell_items import TargetItems, same_word
from traitmap.matrix_record import Array
from traitmap.matrix_statistics import SIGN_FLIP_DRAWS

LEAST_SHARED = 2  # label words that source and target must share before one has a prior over the other's
LEAST_COVERED = 0.5  # and the share of the source's examples that they must hold


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
        told = f"only {', '.join(shared)}" if shared else "none"
        return None, f"of the source's label words the target has {told}"
    return held / held.sum(), ""


def total_variation(marginals: Array, other: Array) -> Array:
    """Half the summed absolute difference along the last axis: 0 is the same, 1 shares no class."""
    return np.asarray(np.abs(marginals - other).sum(axis=-1) / 2)


def share_distances(
    items: TargetItems,
    label_counts: Mapping[str, Mapping[str, int]],
    weights: NDArray[np.float32],
    seed: int,
) -> list[dict[str, Any]]:
    """Distances of marginals from prior and gold for every group, as fields of the record."""
    n_classes = len(items.labels)
    gold = np.bincount(items.gold, minlength=n_classes) / items.n
    base = None if items.base is None else _answers(items, (items.base,), weights)
    answers = [_answers(items, rows, weights) for _, _, rows in items.groups]
    shifts = _shifts(answers, base, seed)
    found = []
    for (source, _, _), own, shift in zip(items.groups, answers, shifts, strict=True):
        prior, reason = prior_over(items.labels, label_counts.get(source, {}))
        fields: dict[str, Any] = {"prior": prior, "prior_reason": reason}
        for name, to in (("prior", prior), ("gold", gold)):
            fields[f"to_{name}"] = own.distance(to, reason)
            fields[f"base_to_{name}"] = base.distance(to, reason) if base else unknown("no base")
            fields[f"toward_{name}"] = _toward(own, base, to, shift)
        found.append(fields)
    return found


@dataclass(frozen=True)
class _Answers:
    """The answers that are a class. n: items. indicators: (S, n, K) 1 at the class.

    by_seed, resampled: (S, K), (S, draws, K) marginals, on all items and on resampled ones.
    """

    n: int
    indicators: NDArray[np.float32]
    by_seed: Array
    resampled: Array

    def distance(self, to: Array | None, reason: str) -> Interval:
        if to is None:
            return unknown(reason)
        by_seed = total_variation(self.by_seed, to)
        value = float(by_seed.mean())
        if not np.isfinite(value):
            return unknown("no answer is one of the classes")
        draws = total_variation(self.resampled, to).mean(axis=0)
        return resampled_interval(value, draws, n=self.n, by_seed=by_seed, low=0.0, high=1.0)


def _answers(items: TargetItems, rows: tuple[int, ...], weights: NDArray[np.float32]) -> _Answers:
    codes = items.predicted[list(rows)]
    indicators = (codes[:, :, None] == np.arange(len(items.labels))).astype(np.float32)
    resampled = _normalised(np.stack([weights @ one for one in indicators]))
    return _Answers(items.n, indicators, _normalised(indicators.sum(axis=1)), resampled)


def _toward(own: _Answers, base: _Answers | None, to: Array | None, shift: Array | None) -> Change:
    """How far the distance fell. One seed: base and adapter change places on items (exact); several: t.

    A plain comparison of the adapter with the direction from base to prior would find movement where there
    is none, since a base that is far off by chance comes back; exchanging the two is fair to both.
    """
    if to is None or base is None:
        return NO_CHANGE_KNOWN
    by_seed = total_variation(base.by_seed, to)[0] - total_variation(own.by_seed, to)
    value = float(by_seed.mean())
    if not np.isfinite(value):
        return Change(unknown("no answer is one of the classes"), nan)
    draws = total_variation(base.resampled[0], to) - total_variation(own.resampled, to).mean(axis=0)
    interval = resampled_interval(value, draws, n=own.n, by_seed=by_seed, low=-1.0, high=1.0)
    if shift is not None:
        return Change(interval, _exchanged(own.indicators[0], base.indicators[0], to, value, shift))
    spread = float(np.nanvar(draws, ddof=1)) if np.ptp(draws) > 0 else 0.0
    return Change(interval, crossed(value, items=spread, freedom=own.n - 1, by_seed=by_seed).p)


def _shifts(answers: Sequence[_Answers], base: _Answers | None, seed: int) -> list[Array | None]:
    """(draws, K) half of what exchanging base and adapter moves; None where seeds answer differently.

    Seeds that answer alike count as one.
    """
    found: list[Array | None] = [None] * len(answers)
    alike = [place for place, one in enumerate(answers) if (one.indicators == one.indicators[:1]).all()]
    if base is None or not alike:
        return found
    moved = np.concatenate([answers[place].indicators[0] - base.indicators[0] for place in alike], axis=1)
    drawn = item_signs(base.n, SIGN_FLIP_DRAWS, seed) @ (moved / 2)
    for place, own in zip(alike, np.split(drawn, len(alike), axis=1), strict=True):
        found[place] = own
    return found


def _exchanged(
    own: NDArray[np.float32], base: NDArray[np.float32], to: Array, value: float, shift: Array
) -> float:
    """p-value of the permutation test that exchanges the answers of base and adapter on an item."""
    if not (own != base).any():
        return 1.0
    middle = ((own + base) / 2).sum(axis=0)
    fall = total_variation(_normalised(middle - shift), to) - total_variation(_normalised(middle + shift), to)
    return float((1 + (np.abs(fall) >= abs(value) - 1e-6).sum()) / (1 + len(fall)))


def _normalised(sums: NDArray[np.floating]) -> Array:
    """Shares along the last axis; NaN where there is nothing."""
    total = sums.sum(axis=-1, keepdims=True)
    return np.divide(sums, total, out=np.full(sums.shape, nan), where=total > 0)
