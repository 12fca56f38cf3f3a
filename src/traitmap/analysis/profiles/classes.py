"""Classes of a dataset and their distribution, and words that two datasets share.

A dataset has classes where its texts carry labels, choose between choices that come back, or have few
different outputs; none where the outputs are free text. Two datasets are held together by their label words.

Then the metrics of a confusion matrix beside majority and chance, each with its interval, and the collapse
onto one class. A confusion matrix here is (K, K + 2): rows true classes, columns predicted ones. What could
not be parsed and what is none of the classes has its own column: it counts as wrong, and apart. The
formulas are those of scikit-learn, over many resampled tables at once; a test holds them to it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite, log2, nan
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix

from traitmap.analysis.profiles.cell_items import OTHER, UNPARSED
from traitmap.analysis.profiles.style import normalised
from traitmap.data.texts import TaskText
from traitmap.jsonable import jsonable
from traitmap.matrix.crossed import crossed_mean, resampled_interval, share_interval
from traitmap.matrix.record import Array
from traitmap.matrix.statistics import (
    Estimate,
    Groups,
    Interval,
    drawn_weights,
    grouped,
    numbered_groups,
    unknown,
)
from traitmap.metrics import metric

_NUMBER = re.compile(r"[-+]?\d*\.?\d+")

How = Literal["labels", "choices", "outputs", "none"]

MOST_OUTPUTS = 20  # more different outputs are free text, unless choices or labels say what the classes are
TEXTS_PER_OUTPUT = 5  # and each must come back this often on average


@dataclass(frozen=True)
class Classes:
    """Classes of a dataset.

    how: where the classes come from. ``labels``: the texts carry them. ``choices``: half of the texts or more
        have choices that come back and of which more than one is right somewhere. ``outputs``: there are
        few different outputs, and they come back. ``none``: there are none, and reason says why.
    texts, labelled: texts read, and how many of them have a class.
    counts: texts of each class, commonest first.
    number: classes that an item is sorted into. Where prompts differ in their words for the classes
        ("yes, no" here, "true, false" there), the mean over items.
    entropy: bits, 0 where all texts are of one class; of the classes given the set that an item is sorted
        into. majority: share of the commonest class, in the same way. NaN where there are no classes.
    sets: different sets of classes.
    """

    how: How
    texts: int
    labelled: int
    counts: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    number: float = nan
    entropy: float = nan
    majority: float = nan
    sets: int = 0
    reason: str = ""

    @property
    def shares(self) -> Mapping[str, float]:
        """Share of each class in the texts that have one."""
        return MappingProxyType({word: count / self.labelled for word, count in self.counts.items()})

    @property
    def uneven(self) -> bool:
        """Whether they hold less than nine tenths of the entropy that as many even ones would."""
        return self.number > 1 and self.entropy < 0.9 * log2(self.number)


def entropy_bits(counts: Sequence[int]) -> float:
    """Shannon entropy of counts, in bits.

    counts: of each class; zeros are left out. 0 for one class, log2(K) for K even ones.
    """
    held = np.array([count for count in counts if count > 0], dtype=float)
    shares = held / held.sum()
    return float(abs((shares * np.log2(shares)).sum()))


def item_classes(texts: Sequence[TaskText]) -> tuple[list[tuple[str, str] | None], How]:
    """(set, class) of each text, None where it has none; and where the classes come from.

    The set names the choices that the class was chosen from; it is empty where there is only one.
    """
    if any(text.label is not None for text in texts):
        return [None if text.label is None else ("", text.label) for text in texts], "labels"
    sets = _class_sets(texts)
    if sets:
        items = [_within(text, sets) for text in texts]
        if 2 * sum(item is not None for item in items) >= sum(1 for text in texts if text.output.strip()):
            return items, "choices"
        return [None] * len(texts), "none"
    known = [text.output.strip() for text in texts if text.output.strip()]
    distinct = len(set(known))
    if _on_scale(set(known)):
        return [None] * len(texts), "none"
    if 2 <= distinct <= MOST_OUTPUTS and len(known) >= TEXTS_PER_OUTPUT * distinct:
        return [("", text.output.strip()) if text.output.strip() else None for text in texts], "outputs"
    return [None] * len(texts), "none"


def class_table(texts: Sequence[TaskText], items: Sequence[tuple[str, str] | None], how: How) -> Classes:
    """The distribution of the classes that ``item_classes`` found for these texts.

    items: (set, class) of each text, None where it has none; how: where the classes come from. With ``none``
    the record says why there are no classes.
    """
    if how == "none":
        return Classes(how, len(texts), 0, reason=_why_none(texts))
    labelled = [item for item in items if item is not None]
    by_set: dict[str, Counter[str]] = {}
    for key, word in labelled:
        by_set.setdefault(key, Counter())[word] += 1
    offered: dict[str, int] = {}  # classes of each set, whether or not they occur
    if how == "choices":
        offered = {_choice_set(text): len(set(text.choices)) for text in texts if text.choices}
    total = len(labelled)
    number = entropy = majority = 0.0
    for key in sorted(by_set):
        counts = by_set[key]
        weight = counts.total() / total
        number += weight * max(offered.get(key, 0), len(counts))
        entropy += weight * entropy_bits(sorted(counts.values()))
        majority += weight * max(counts.values()) / counts.total()
    words = Counter(word for _, word in labelled)
    ordered = dict(sorted(words.items(), key=lambda item: (-item[1], item[0])))
    return Classes(how, len(texts), total, MappingProxyType(ordered), number, entropy, majority, len(by_set))


def label_words(classes: Classes) -> dict[str, float]:
    """Shares of the classes by their words in comparable form; empty where there are no classes.

    Words that are the same in comparable form (``style.normalised``) are added up.
    """
    shares: dict[str, float] = {}
    for word, share in classes.shares.items():
        shares[normalised(word)] = shares.get(normalised(word), 0.0) + share
    return shares


def _choice_set(text: TaskText) -> str:
    return "\x1f".join(sorted({choice.strip() for choice in text.choices}))


def _within(text: TaskText, sets: frozenset[str]) -> tuple[str, str] | None:
    """Set and class of a text whose choices are classes, None where its output names none or several.

    An output may say more than the class: "negative review." for "negative".
    """
    key = _choice_set(text)
    output = text.output.strip()
    if not output or key not in sets:
        return None
    choices = key.split("\x1f")
    if output in choices:
        return key, output
    padded = f" {normalised(output)} "
    named = [choice for choice in choices if f" {normalised(choice)} " == padded]
    named = named or [choice for choice in choices if f" {normalised(choice)} " in padded]
    return (key, named[0]) if len(named) == 1 else None


def _class_sets(texts: Sequence[TaskText]) -> frozenset[str]:
    """Sets of choices that come back with different right answers.

    The own answers of an item, repeated under several prompts, always have the same right one.
    """
    right: dict[str, set[str]] = {}
    for text in texts:
        if text.choices and text.output:
            right.setdefault(_choice_set(text), set()).add(text.output.strip())
    if len(right) == 1 and len(texts) >= TEXTS_PER_OUTPUT:
        return frozenset(right)  # one set for all texts: classes, even if only one of them occurs
    return frozenset(key for key, outputs in right.items() if len(outputs) > 1)


def _on_scale(outputs: set[str]) -> bool:
    """Whether the outputs are numbers with decimals among them: a scale, not classes."""
    return all(_NUMBER.fullmatch(output) for output in outputs) and any("." in number for number in outputs)


def _why_none(texts: Sequence[TaskText]) -> str:
    outputs = [text.output.strip() for text in texts if text.output.strip()]
    if not outputs:
        return "no text has an output, a label or choices"
    sets = _class_sets(texts)
    if sets:
        sorted_in = sum(_within(text, sets) is not None for text in texts)
        return f"only {sorted_in} of {len(outputs)} texts choose between classes, less than half"
    if any(text.choices for text in texts):
        return "every item has choices of its own, so that none is a class"
    distinct = len(set(outputs))
    if _on_scale(set(outputs)):
        return "the outputs are numbers on a scale"
    if distinct == 1:
        return "all outputs are the same"
    return f"free text: {distinct} different outputs in {len(outputs)} texts"


def vocabulary_overlap(
    sources: Sequence[Counter[str]], targets: Sequence[Counter[str]]
) -> tuple[Array, Array]:
    """How much of each target's words each source has: Jaccard and coverage, each (S, T).

    sources, targets: counts of words, lower case, of S and T datasets. Jaccard is shared different words over
    all different words, coverage the share of the target's running words that the source has. NaN where
    either has no words.
    """
    places: dict[str, int] = {}
    for counts in (*sources, *targets):
        for word in counts:
            places.setdefault(word, len(places))
    has, used = _table(sources, places), _table(targets, places)
    has.data[:] = 1.0
    running = np.asarray(used.sum(axis=1)).ravel()
    coverage = (has @ used.T).toarray()
    used.data[:] = 1.0
    shared = (has @ used.T).toarray()
    ours, theirs = np.diff(has.indptr)[:, None], np.diff(used.indptr)[None, :]
    known = (ours > 0) & (theirs > 0)
    union = np.where(known, ours + theirs - shared, 1.0)
    jaccard = np.where(known, shared / union, np.nan)
    return jaccard, np.where(known, coverage / np.maximum(running, 1.0)[None, :], np.nan)


def _table(counts: Sequence[Counter[str]], places: Mapping[str, int]) -> csr_matrix:
    """(D, V) counts of words."""
    stops = np.cumsum([0, *(len(words) for words in counts)])
    columns = np.array([places[word] for words in counts for word in words], dtype=np.int64)
    values = np.array([count for words in counts for count in words.values()], dtype=float)
    return csr_matrix((values, columns, stops), shape=(len(counts), max(1, len(places))))


def shared_label_words(first: Classes, second: Classes) -> tuple[str, ...]:
    """Class words, in comparable form, that both datasets use; empty where either has no classes."""
    return tuple(sorted(label_words(first).keys() & label_words(second).keys()))


def prior_distance(first: Classes, second: Classes) -> float:
    """Total variation between two class distributions over the words of both, from 0 to 1.

    NaN where no word is shared: then nothing says which classes mean the same.
    """
    ours, theirs = label_words(first), label_words(second)
    if not ours.keys() & theirs.keys():
        return float("nan")
    words = sorted(ours.keys() | theirs.keys())
    return 0.5 * sum(abs(ours.get(word, 0.0) - theirs.get(word, 0.0)) for word in words)


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
    item_groups: Groups | None = None,
) -> ClassMetrics:
    """Metrics of answers on items, with intervals over items (and seeds).

    gold: (n,) codes of the K labels. predicted: (S, n) or (n,) codes; K is unparsed, K + 1 another answer.
    draws, seed: of resampled items, where ``resampled`` (of ``resampled_metrics``) is not given. item_groups:
    (n,) of items that repeat or belong together, which are then drawn as one.
    """
    gold, predicted = np.asarray(gold, dtype=np.int64), np.atleast_2d(np.asarray(predicted, dtype=np.int64))
    n_classes, n = len(labels), len(gold)
    by_seed = np.array([confusion_counts(gold, row, n_classes) for row in predicted])
    values = seed_metrics(by_seed)
    if resampled is None:
        weights = drawn_weights(n, item_groups, draws, seed)
        resampled = resampled_metrics(gold, predicted, n_classes, weights)
    sample = n if item_groups is None else int(item_groups.max()) + 1
    intervals = {}
    for name in (*METRICS, "collapse"):
        numbers = values[name]
        value = float(np.mean(numbers))
        intervals[name] = (
            resampled_interval(
                value, resampled[name], n=sample, by_seed=numbers, low=LOWEST.get(name, -np.inf), high=1.0
            )
            if isfinite(value)
            else unknown("all answers, or all gold answers, are of one class")
        )
    marginal = tuple(share_interval(predicted == code, item_groups) for code in range(n_classes + 2))
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
        accuracy=share_interval(predicted == gold, item_groups),
        recall=tuple(
            share_interval(
                predicted[:, gold == code] == code,
                None if item_groups is None else numbered_groups(item_groups[gold == code]),
            )
            if (gold == code).any()
            else unknown("the class is never gold")
            for code in range(n_classes)
        ),
        precision=tuple(_precision(gold, predicted, code, item_groups) for code in range(n_classes)),
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


def _precision(gold: Codes, predicted: Codes, code: int, item_groups: Groups | None) -> Interval:
    """Wilson's interval over the answers of the class; over several seeds that of a ratio, linearised."""
    answered = predicted == code
    if not answered.any():
        return unknown("the class is never answered")
    if len(answered) == 1:
        groups = None if item_groups is None else numbered_groups(item_groups[answered[0]])
        return share_interval((gold == code)[answered[0]], groups)
    share = float((answered & (gold == code)).sum() / answered.sum())
    residuals = answered * ((gold == code) - share) / answered.mean()
    spread = crossed_mean(grouped(residuals, item_groups))
    return Estimate(share, spread.error, spread.freedom).interval(0.0, 1.0)
