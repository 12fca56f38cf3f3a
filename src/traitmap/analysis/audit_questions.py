"""What an audit asks of a row: its change on each task, and in the form of what it wrote, with intervals.

All questions of all rows are one family: each gets a Bonferroni interval, at level 1 - .05 / m for m
questions, so that all of them hold together 95 times in 100. A change is *clear* where its interval leaves
out zero and, for items that are right or wrong, McNemar's exact p is below .05 / m as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor, inf, isfinite, log2, nan
from typing import Literal, NamedTuple

import numpy as np
from scipy import stats

from traitmap.analysis.verdicts import UNCLEAN, Verdicts
from traitmap.data.answer_metrics import REFUSAL
from traitmap.data.records import Outcome
from traitmap.matrix.crossed import crossed_mean
from traitmap.matrix.reading import Reading
from traitmap.matrix.record import Array, TransferMatrix
from traitmap.matrix.statistics import (
    POWER,
    Groups,
    Interval,
    detectable,
    grouped,
    mcnemar,
    paired_interval,
    unknown,
    z_value,
)

Called = Literal["better", "worse", "changed", "no change seen", "unknown"]
ERROR = 0.05  # how often any interval of the family may miss
FORMS = ("never stops", "unreadable", "refuses", "length")
_POWER_PART = 0.3  # of a minimal detectable effect that is for its power, at most: .84 / (1.96 + .84)


@dataclass(frozen=True)
class Question:
    """One number that is asked of a row, adapter less base, with its corrected interval.

    name: the target, or one of ``FORMS``. area: what the target is about. before, after: of base and row, in
    ``unit`` (points for shares). better: 1 where higher is better, -1 where lower is, 0 where neither is.
    n: items. smallest, scatter: minimal detectable effect (80 % power), see ``Corrected``. called: what the
    number says by itself; words: as ``verdicts`` calls the cell. floor: what a row without skill reaches, in
    ``unit``; NaN where unknown.
    """

    name: str
    kind: Literal["task", "format"]
    unit: str
    before: float
    after: float
    change: Interval
    better: int
    n: int
    smallest: float
    called: Called
    scatter: float = nan
    area: str = ""
    digits: int = 1
    words: str = ""
    floor: float = nan

    @property
    def unclean(self) -> str:
        """What a change is instead of skill (``collapse``, ``class shares`` ...), or nothing."""
        return next((kind for kind in UNCLEAN if self.words.startswith(f"{kind}:")), "")

    @property
    def improvement(self) -> float:
        """The change, positive where the row is better; NaN where neither way is."""
        return self.change.value * self.better if self.better else nan

    @property
    def worst(self) -> float:
        """The largest loss that the interval holds, as a positive number; 0 where it holds none."""
        end = {1: -self.change.low, -1: self.change.high}.get(self.better, nan)
        return max(end, 0.0) if isfinite(end) else nan

    def items_to_see(self, loss: float) -> int | None:
        """Items at which a loss of so many points is clear with 80 % power; None where unknown."""
        if self.unit != "points" or not isfinite(self.smallest) or loss <= 0:
            return None
        return ceil(self.n * max((self.scatter / loss) ** 2, self.smallest / loss))

    def items_to_settle(self, loss: float) -> int | None:
        """Items at which four of five audits tell whether the loss is as large, were the change as it is.

        A smaller loss is told by being excluded, a larger one by being clear and seen as large. None where
        that is unknown, or where the change lies at the limit itself, which no number of items settles.
        """
        lost = max(-self.improvement, 0.0) if isfinite(self.improvement) else nan
        if lost < loss:
            return self.items_to_see(loss - lost)
        clear = self.items_to_see(lost)
        if clear is None or lost == loss:
            return None
        return max(clear, ceil(self.n * (_POWER_PART * self.scatter / (lost - loss)) ** 2))


class Corrected(NamedTuple):
    """A mean difference with its interval, whether it is clear, and the items that count.

    smallest: minimal detectable effect (80 % power). scatter: the part of it that falls with the root of the
    items; the other part, what an exact test needs at all, falls with their number.
    """

    change: Interval
    clear: bool
    smallest: float
    scatter: float
    n: int

    @classmethod
    def unmeasured(cls, reason: str, n: int = 0) -> Corrected:
        return cls(unknown(reason), False, nan, nan, n)

    def scaled(self, factor: float) -> Corrected:
        """The same in another unit."""
        ends = (self.change.value * factor, self.change.low * factor, self.change.high * factor)
        return self._replace(
            change=Interval(*ends, self.change.reason),
            smallest=self.smallest * factor,
            scatter=self.scatter * factor,
        )

    def called(self, better: int) -> Called:
        """What the number says; better: 1, -1 or 0 as in ``Question``."""
        if not self.change.known:
            return "unknown"
        if not self.clear:
            return "no change seen"
        if not better:
            return "changed"
        return "better" if self.change.value * better > 0 else "worse"


def corrected(differences: Array, level: float, *, binary: bool, groups: Groups | None = None) -> Corrected:
    """Mean of differences (1, n) with an interval of this level.

    binary: of 0/1 values: Tango's interval, and exact McNemar beside it; else Student's t. groups: (n,) of
    items that are no sample of their own.
    """
    if binary and groups is None:
        alone, n = differences[0], differences.shape[1]
        wins, losses = np.array([(alone > 0).sum()], float), np.array([(alone < 0).sum()], float)
        low, high = (float(end[0]) for end in paired_interval(wins, losses, n, z_value(level)))
        interval = Interval(float(alone.mean()), low, high)
        clear = interval.clear and float(mcnemar(wins, losses)[0]) < 1 - level
        # one more item that differs counts with those that are seen: none seen is not none to come
        error = ((wins[0] + losses[0] + 1) / (n + 2) / n) ** 0.5
        scatter = detectable(float(error), confidence=level)
        return Corrected(interval, clear, max(scatter, exactly_detectable(n, level)), scatter, n)
    values = grouped(differences, groups)
    mean = crossed_mean(values, reach=1.0 if binary else 0.0)
    interval = mean.interval(*((-1.0, 1.0) if binary else ()), confidence=level)
    clear = interval.clear and mean.p < 1 - level
    smallest = detectable(mean.error, mean.freedom, level) if mean.error > 0 else nan
    return Corrected(interval, clear, smallest, smallest, values.shape[1])


def exactly_detectable(n: int, level: float) -> float:
    """Share of n items that must change, all one way, for exact McNemar to be clear with 80 % power.

    Infinite where even all of them would not be.
    """
    fewest = floor(log2(2 / (1 - level))) + 1  # with which 2 / 2^k falls below 1 - level
    return float(stats.beta.ppf(POWER, fewest, n - fewest + 1)) if fewest <= n else inf


def task_question(
    matrix: TransferMatrix, reading: Reading, verdicts: Verdicts, s: int, t: int, level: float
) -> Question:
    """What row s of a matrix (S, T) does to task t."""
    view, cell, base = reading.targets[t], reading.cells[s][t], reading.base[t]
    tags = matrix.target_tags.get(view.name, ())
    scores = matrix.item_scores.get(view.name)
    tested = Corrected.unmeasured(cell.reason or cell.status, cell.n)
    if scores is not None and np.isfinite(scores[[0, 1 + s]]).all():
        differences = (scores[1 + s] - scores[0])[:1]
        binary = bool(np.isin(scores[[0, 1 + s]], (0.0, 1.0)).all())
        groups = matrix.item_groups.get(view.name)
        tested = corrected(differences, level, binary=binary, groups=groups).scaled(view.factor)
    verdict = verdicts.of(cell.source, view.name)
    # what answers without skill reach: the commonest one always, or guessing; else 0
    rates = [float(known[t]) for known in (matrix.chance, matrix.majority) if known is not None]
    floor_ = max((rate for rate in rates if isfinite(rate)), default=0.0)
    return _question(
        view.name,
        "task",
        view.unit,
        (base.value * view.factor, cell.value * view.factor),
        tested,
        better=view.better,
        digits=view.digits,
        area=tags[-1] if tags else "",
        words=f"{verdict.kind}: {verdict.words}" if tested.clear and verdict.words else "",
        floor=floor_ * view.factor,
    )


def _question(
    name: str,
    kind: Literal["task", "format"],
    unit: str,
    ends: tuple[float, float],
    tested: Corrected,
    *,
    better: int,
    digits: int,
    area: str = "",
    words: str = "",
    floor: float = nan,
) -> Question:
    """A question from what base and row reached (ends) and the test of their difference."""
    return Question(
        name=name,
        kind=kind,
        unit=unit,
        before=ends[0],
        after=ends[1],
        change=tested.change,
        better=better,
        n=tested.n,
        smallest=tested.smallest,
        scatter=tested.scatter,
        called=tested.called(better),
        area=area,
        digits=digits,
        words=words,
        floor=floor,
    )


# The form of what was written, over all targets whose answers are texts.


@dataclass(frozen=True)
class Written:
    """(2, n) base and row on n answers: whether each stopped, could be read, refuses, and its tokens.

    Where the task itself is about refusals, these are no matter of form, and unknown here.
    """

    stopped: Array
    parsed: Array
    refuses: Array
    tokens: Array

    @classmethod
    def of(cls, base: Sequence[Outcome], row: Sequence[Outcome], *, by_refusals: bool) -> Written:
        pair = (base, row)
        refuses = [[float(bool(REFUSAL.match(o.text or ""))) for o in answers] for answers in pair]
        return cls(
            np.array([[nan if o.stopped is None else float(o.stopped) for o in answers] for answers in pair]),
            np.array([[float(o.parsed) for o in answers] for answers in pair]),
            np.full((2, len(base)), nan) if by_refusals else np.array(refuses),
            np.array([[float(o.output_tokens) for o in answers] for answers in pair]),
        )


def form_questions(parts: Sequence[Written], level: float) -> Iterator[Question]:
    """Shares that never stop, cannot be read and refuse, in points, and the length in doublings."""
    if not parts:
        return
    stopped, parsed, refuses, tokens = (
        np.concatenate([getattr(part, name) for part in parts], axis=1)
        for name in ("stopped", "parsed", "refuses", "tokens")
    )
    for name, values in zip(FORMS, (1 - stopped, 1 - parsed, refuses), strict=False):
        values = values[:, np.isfinite(values).all(axis=0)]
        tested, ends = Corrected.unmeasured("nobody tells"), (nan, nan)
        if values.shape[1]:
            tested = corrected((values[1] - values[0])[None], level, binary=True).scaled(100)
            ends = 100 * float(values[0].mean()), 100 * float(values[1].mean())
        yield _question(name, "format", "points", ends, tested, better=-1, digits=1)
    tested = corrected(np.log2((tokens[1] + 1) / (tokens[0] + 1))[None], level, binary=False)
    lengths = float(tokens[0].mean()), float(tokens[1].mean())
    yield _question(FORMS[-1], "format", "doublings", lengths, tested, better=0, digits=2)
