"""Which of two models is better by which metric, and whether the conclusion depends on the metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from traitmap.analysis.profiles.class_metrics import (
    LOWEST,
    METRICS,
    Codes,
    checked_confusion,
    metric_values,
)
from traitmap.errors import MatrixError
from traitmap.matrix.record import Array
from traitmap.matrix.statistics import Interval, resampled_interval

Verdict = Literal["a", "b", "cannot tell"]
DRAWS = 10_000
_WORDS = {
    "macro_f1": "macro-F1",
    "balanced_accuracy": "balanced accuracy",
    "matthews": "Matthews correlation",
}


@dataclass(frozen=True)
class MetricVerdict:
    """Two models by one metric. difference: a minus b. verdict: ``a`` or ``b`` where 0 lies outside of it."""

    metric: str
    a: Interval
    b: Interval
    difference: Interval
    verdict: Verdict


@dataclass(frozen=True)
class MetricComparison:
    """Two confusion matrices by every metric.

    majority: accuracy of the commonest gold class, the same for both where they answered the same items.
    opposed: pairs of metrics whose verdicts contradict each other, both beyond noise.
    leaning: pairs whose differences have opposite signs, at least one of them not beyond noise.
    shared_items: both have the same number of items of every class, so that items are drawn for both at once.
    """

    names: tuple[str, str]
    verdicts: tuple[MetricVerdict, ...]
    majority: tuple[float, float]
    opposed: tuple[tuple[str, str], ...]
    leaning: tuple[tuple[str, str], ...]
    shared_items: bool

    @property
    def words(self) -> str:
        """What each metric says and whether they agree, in a few sentences."""
        said = "; ".join(self._said(verdict) for verdict in self.verdicts)
        if self.opposed:
            pairs = ", ".join(f"{_word(one)} and {_word(other)}" for one, other in self.opposed)
            return f"The conclusion changes with the metric ({pairs} contradict each other): {said}."
        if self.leaning:
            pairs = ", ".join(f"{_word(one)} and {_word(other)}" for one, other in self.leaning)
            return f"Metrics lean to different sides ({pairs}), not all beyond noise: {said}."
        return f"No metric contradicts another: {said}."

    def _said(self, one: MetricVerdict) -> str:
        difference, names = one.difference, dict(zip("ab", self.names, strict=True))
        interval = f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"
        told = "cannot tell" if one.verdict == "cannot tell" else f"{names[one.verdict]} is better"
        return f"{_word(one.metric)} {one.a.value:.3f} against {one.b.value:.3f}, {told} ({interval})"


def compare_metrics(
    confusion_a: ArrayLike,
    confusion_b: ArrayLike,
    *,
    names: Sequence[str] = ("A", "B"),
    draws: int = DRAWS,
    seed: int = 0,
) -> MetricComparison:
    """Compare two models on one target by their confusion matrices (K, K): counts, rows true.

    Intervals are of the multinomial bootstrap. Where both have the same row sums they answered the same
    items: the gold classes are then drawn once for both, and the answers within a class for each alone,
    since a matrix does not tell which item got which answer. Models that err on the same items differ less
    than that, so the intervals are rather too wide; ``class_metrics`` on outcomes knows the items.
    """
    first, second = checked_confusion(confusion_a), checked_confusion(confusion_b)
    if first.shape != second.shape:
        raise MatrixError(
            f"confusion matrices of {len(first)} and {len(second)} classes; give two of the same target"
        )
    shared = bool((first.sum(axis=1) == second.sum(axis=1)).all())
    generator = np.random.default_rng(seed)
    rows_a = _drawn_rows(first, draws, generator)
    rows_b = rows_a if shared else _drawn_rows(second, draws, generator)
    drawn_a = metric_values(_drawn_tables(first, rows_a, generator))
    drawn_b = metric_values(_drawn_tables(second, rows_b, generator))
    found_a, found_b = metric_values(first), metric_values(second)
    size_a, size_b = int(first.sum()), int(second.sum())
    verdicts = tuple(
        _verdict(
            metric,
            resampled_interval(
                float(found_a[metric]), drawn_a[metric], n=size_a, low=LOWEST[metric], high=1.0
            ),
            resampled_interval(
                float(found_b[metric]), drawn_b[metric], n=size_b, low=LOWEST[metric], high=1.0
            ),
            resampled_interval(
                float(found_a[metric] - found_b[metric]),
                drawn_a[metric] - drawn_b[metric],
                n=min(size_a, size_b),
            ),
        )
        for metric in METRICS
    )
    opposed, leaning = _contradictions(verdicts)
    majority = (float(first.sum(axis=1).max() / size_a), float(second.sum(axis=1).max() / size_b))
    return MetricComparison((names[0], names[1]), verdicts, majority, opposed, leaning, shared)


def _drawn_rows(table: Codes, draws: int, generator: np.random.Generator) -> Array:
    """(draws, K) items of each true class as items are drawn again."""
    sums = table.sum(axis=1)
    return generator.multinomial(sums.sum(), sums / sums.sum(), size=draws).astype(float)


def _drawn_tables(table: Codes, rows: Array, generator: np.random.Generator) -> Array:
    """(draws, K, K) tables with those row sums, answers drawn within each true class."""
    drawn = np.zeros((len(rows), *table.shape))
    for code, counts in enumerate(table):
        if counts.sum():
            drawn[:, code] = generator.multinomial(rows[:, code].astype(int), counts / counts.sum())
    return drawn


def _verdict(metric: str, a: Interval, b: Interval, difference: Interval) -> MetricVerdict:
    verdict: Verdict = "a" if difference.low > 0 else "b" if difference.high < 0 else "cannot tell"
    return MetricVerdict(metric, a, b, difference, verdict)


def _contradictions(
    verdicts: Sequence[MetricVerdict],
) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]:
    """Pairs of metrics that contradict each other beyond noise, and those that only lean apart."""
    opposed, leaning = [], []
    for place, one in enumerate(verdicts):
        for other in verdicts[place + 1 :]:
            if {one.verdict, other.verdict} == {"a", "b"}:
                opposed.append((one.metric, other.metric))
            elif one.difference.value * other.difference.value < 0:
                leaning.append((one.metric, other.metric))
    return tuple(opposed), tuple(leaning)


def _word(metric: str) -> str:
    return _WORDS.get(metric, metric)
