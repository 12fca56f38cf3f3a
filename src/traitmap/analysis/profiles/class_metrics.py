"""Metrics of a confusion matrix beside majority and chance, each with its interval; collapse onto one class.

A confusion matrix here is (K, K + 2): rows true classes, columns predicted ones. What could not be parsed and
what is none of the classes has its own column: it counts as wrong, and apart. The formulas are those of
scikit-learn, over many resampled tables at once; a test holds them to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from traitmap.analysis.profiles.cell_items import OTHER, UNPARSED
from traitmap.jsonable import jsonable
from traitmap.matrix.record import Array
from traitmap.matrix.statistics import (
    Estimate,
    Interval,
    crossed_mean,
    item_weights,
    resampled_interval,
    share_interval,
    unknown,
)
from traitmap.metrics import metric

METRICS = ("accuracy", "macro_f1", "balanced_accuracy", "kappa", "matthews")
LOWEST = {name: metric(name).low for name in METRICS}
COLLAPSED = 0.9  # share of one answer from which a model is said to have collapsed onto it
DRAWS = 1_000

Codes = NDArray[np.int64]


@dataclass(frozen=True)
class ClassMetrics:
    """How one model sorts the items of one target into K classes, for one seed or over several.

    labels: the K classes. columns: labels, then ``[unparsed]`` and ``[other]`` (an answer that is none of
        the classes).
    counts: (K, K + 2) answers, rows true, columns predicted, summed over seeds. items, seeds: how many.
    accuracy, macro_f1, balanced_accuracy, kappa (Cohen's), matthews (correlation): mean over seeds.
        macro_f1 is over the classes that occur as gold or as answer, balanced_accuracy over those that
        occur as gold; matthews is unknown where all answers are of one class.
    recall, precision: by class; unknown where the class is never gold, or never answered.
    marginal: share of each column among the answers. gold: (K,) share of each class among the items.
    majority: accuracy of the commonest gold class. chance: of guessing uniformly.
    commonest, commonest_share: the answer given most. unparsed: share of answers that were not parsed.
    collapse: 1 - H(answers) / H(gold), entropies: 0 where answers are as varied as the gold answers, 1
        where there is one answer for everything, below 0 where they vary more.
    collapsed: the interval of commonest_share lies above .9 and above the share of that class in the gold.
    """

    labels: tuple[str, ...]
    columns: tuple[str, ...]
    counts: Array
    items: int
    seeds: int
    accuracy: Interval
    macro_f1: Interval
    balanced_accuracy: Interval
    kappa: Interval
    matthews: Interval
    recall: tuple[Interval, ...]
    precision: tuple[Interval, ...]
    marginal: tuple[Interval, ...]
    gold: Array
    majority: float
    chance: float
    commonest: str
    commonest_share: Interval
    unparsed: Interval
    collapse: Interval
    collapsed: bool

    @property
    def rates(self) -> Array:
        """(K, K + 2) counts over their row's sum; NaN in the row of a class that is never gold."""
        sums = self.counts.sum(axis=1, keepdims=True)
        return np.divide(self.counts, sums, out=np.full(self.counts.shape, nan), where=sums > 0)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data with ``rates`` beside the fields; unknown numbers are null."""
        return {**jsonable(vars(self)), "rates": jsonable(self.rates)}


def class_metrics(
    gold: ArrayLike,
    predicted: ArrayLike,
    labels: Sequence[str],
    *,
    draws: int = DRAWS,
    seed: int = 0,
    resampled: Mapping[str, Array] | None = None,
) -> ClassMetrics:
    """Metrics of answers on items, with intervals over items (and seeds).

    gold: (n,) codes of the K labels. predicted: (S, n) or (n,) codes; K is unparsed, K + 1 another answer.
    draws, seed: of resampled items, where ``resampled`` (of ``resampled_metrics``) is not given.
    """
    gold, predicted = np.asarray(gold, dtype=np.int64), np.atleast_2d(np.asarray(predicted, dtype=np.int64))
    n_classes, n = len(labels), len(gold)
    by_seed = np.array([confusion_counts(gold, row, n_classes) for row in predicted])
    values = seed_metrics(by_seed)
    if resampled is None:
        resampled = resampled_metrics(gold, predicted, n_classes, item_weights(n, draws, seed))
    intervals = {}
    for name in (*METRICS, "collapse"):
        numbers = values[name]
        value = float(np.mean(numbers))
        intervals[name] = (
            resampled_interval(
                value, resampled[name], n=n, by_seed=numbers, low=LOWEST.get(name, -np.inf), high=1.0
            )
            if isfinite(value)
            else unknown("all answers, or all gold answers, are of one class")
        )
    marginal = tuple(share_interval(predicted == code) for code in range(n_classes + 2))
    shares = np.array([interval.value for interval in marginal])
    top = int(shares.argmax())
    gold_shares = np.bincount(gold, minlength=n_classes) / n
    of_top = gold_shares[top] if top < n_classes else 0.0
    columns = (*labels, UNPARSED, OTHER)
    return ClassMetrics(
        labels=tuple(labels),
        columns=columns,
        counts=by_seed.sum(axis=0),
        items=n,
        seeds=len(predicted),
        **{name: intervals[name] for name in METRICS if name != "accuracy"},
        accuracy=share_interval(predicted == gold),
        recall=tuple(
            share_interval(predicted[:, gold == code] == code)
            if (gold == code).any()
            else unknown("the class is never gold")
            for code in range(n_classes)
        ),
        precision=tuple(_precision(gold, predicted, code) for code in range(n_classes)),
        marginal=marginal,
        gold=gold_shares,
        majority=float(gold_shares.max()),
        chance=1 / n_classes,
        commonest=columns[top],
        commonest_share=marginal[top],
        unparsed=marginal[n_classes],
        collapse=intervals["collapse"],
        collapsed=bool(marginal[top].low > max(COLLAPSED, of_top)),
    )


def metric_values(counts: ArrayLike) -> dict[str, Array]:
    """METRICS of tables (..., K, C) with C >= K columns, each (...,); NaN where a metric is undefined.

    The first K columns are the classes; all others are wrong answers that belong to no class.
    """
    counts = np.asarray(counts, dtype=float)
    n_classes = counts.shape[-2]
    right = np.diagonal(counts[..., :n_classes], axis1=-2, axis2=-1)
    true, answered = counts.sum(axis=-1), counts.sum(axis=-2)
    columns = answered[..., :n_classes]
    total = true.sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        accuracy = right.sum(axis=-1) / total
        expected = (true * columns).sum(axis=-1) / total**2
        recall, f1 = right / true, 2 * right / (true + columns)
        spread = (total**2 - (answered**2).sum(axis=-1)) * (total**2 - (true**2).sum(axis=-1))
        return {
            "accuracy": accuracy,
            "macro_f1": _mean_known(f1),
            "balanced_accuracy": _mean_known(recall),
            "kappa": (accuracy - expected) / (1 - expected),
            "matthews": (right.sum(axis=-1) * total - (true * columns).sum(axis=-1)) / np.sqrt(spread),
        }


def seed_metrics(tables: Array) -> dict[str, Array]:
    """Every metric and ``collapse`` of one table per seed (S, K, C), each (S,).

    NaN where a metric is undefined.
    """
    values = {  # infinities can only come of 0/0 that was rounded
        name: np.where(np.isfinite(numbers), numbers, nan) for name, numbers in metric_values(tables).items()
    }
    values["collapse"] = collapse_values(tables)
    return values


def collapse_values(counts: ArrayLike) -> Array:
    """1 - H(answers) / H(gold) of tables (..., K, C); NaN where the gold answers are all of one class.

    0 where answers are as varied as gold, 1 where all are one, below 0 where they vary more.
    """
    counts = np.asarray(counts, dtype=float)
    true, answered = _entropy(counts.sum(axis=-1)), _entropy(counts.sum(axis=-2))
    known = true > 0
    return np.where(known, 1 - answered / np.where(known, true, 1), nan)


def _entropy(sums: Array) -> Array:
    """Shannon entropy in nats along the last axis."""
    shares = sums / np.maximum(sums.sum(axis=-1, keepdims=True), 1)
    return np.asarray(-(shares * np.log(np.where(shares > 0, shares, 1))).sum(axis=-1))


def _mean_known(values: Array) -> Array:
    """Mean along the last axis of what is known."""
    known = np.isfinite(values)
    return np.asarray(np.where(known, values, 0).sum(axis=-1) / known.sum(axis=-1))


def confusion_counts(gold: Codes, predicted: Codes, n_classes: int) -> Array:
    """(K, K + 2) counts of one model: rows true, columns predicted. gold, predicted: (n,) codes."""
    width = n_classes + 2
    flat = np.bincount(gold * width + predicted, minlength=n_classes * width)
    return flat.reshape(n_classes, width).astype(float)


def resampled_metrics(
    gold: Codes, predicted: Codes, n_classes: int, weights: NDArray[np.uint16]
) -> dict[str, Array]:
    """Every metric and ``collapse`` on resampled items, mean over seeds, each (draws,).

    weights: (draws, n) of ``item_weights``; the same ones for two models make their difference a paired one.
    """
    width = n_classes + 2
    sums: dict[str, Array] = {}
    for row in predicted:
        used, place = np.unique(gold * width + row, return_inverse=True)
        indicator = np.zeros((len(gold), len(used)), np.float32)
        indicator[np.arange(len(gold)), place] = 1
        flat = np.zeros((len(weights), n_classes * width))
        flat[:, used] = weights @ indicator
        tables = flat.reshape(len(weights), n_classes, width)
        for name, numbers in {**metric_values(tables), "collapse": collapse_values(tables)}.items():
            sums[name] = sums.get(name, 0) + numbers / len(predicted)
    return sums


def _precision(gold: Codes, predicted: Codes, code: int) -> Interval:
    """Wilson's interval over the answers of the class; over several seeds that of a ratio, linearised."""
    answered = predicted == code
    if not answered.any():
        return unknown("the class is never answered")
    if len(answered) == 1:
        return share_interval((gold == code)[answered[0]])
    share = float((answered & (gold == code)).sum() / answered.sum())
    residuals = answered * ((gold == code) - share) / answered.mean()
    spread = crossed_mean(residuals)
    return Estimate(share, spread.error, spread.freedom).interval(0.0, 1.0)
