"""Checkpoints of one training: what each step does to every target, where gain is lost again, which to keep.

A *course* is a source on one target: its improvement over the base at every step that was kept, the last of
them the source itself. All rows answer the same items, so two steps are compared item by item; with several
seeds both items and trainings are samples (``crossed_contrast``), and the steps of one training
are compared within it.

turns        an earlier step is clearly better than the end: gain was lost again
falls        no earlier step is, and the end is clearly worse than the base
holds        no earlier step is, and the end is clearly better than the base
cannot tell  none of these

The best of several steps looks better than it is, since it was chosen for that. So every interval that a
verdict rests on is one of all comparisons of its course, the end with each step before and with the base, at
level 1 - .05 / m for m of them (Bonferroni): all hold together 95 times in 100, whichever is looked at. A
verdict also needs q below .05 over all courses (Benjamini-Hochberg).

*Which to keep* is asked of the mean improvement over a set of targets whose scores are shares. The step with
the highest mean is named with an interval that holds for all steps at a time, and with the steps that it
cannot be told from (every two steps are compared, with their number in the level).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import isfinite, nan
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from traitmap.analysis.corrections import kept_margins
from traitmap.analysis.explanation.families import variations_of
from traitmap.analysis.step_prediction import (
    PredictedStep,
    measured_improvements,
    predict_steps,
    predicted_step_lines,
)
from traitmap.errors import MatrixError
from traitmap.jsonable import jsonable, outline
from traitmap.matrix.crossed import VarianceTerm, crossed_contrast
from traitmap.matrix.reading import SIGNIFICANT, TargetView, read
from traitmap.matrix.record import Array, TransferMatrix
from traitmap.matrix.statistics import (
    CONFIDENCE,
    Estimate,
    Interval,
    benjamini_hochberg,
    group_scores,
    unknown,
)
from traitmap.wording import clean, counted, estimate, listed, plain

if TYPE_CHECKING:
    import pandas as pd

CourseVerdict = Literal["turns", "falls", "holds", "cannot tell"]
COURSE_VERDICTS: tuple[CourseVerdict, ...] = ("turns", "falls", "holds", "cannot tell")
KIND = "checkpoint"  # of a variation, as the conditions of a matrix tell it
_BASE = -1


@dataclass(frozen=True)
class Course:
    """One source on one target, step by step; K steps, improvements in ``unit`` (positive is better).

    rows: of the matrix, in the order of the steps; the last is the source itself. gains: over the base, each
    with its own 95 % interval. peak: the step with the best number before the end; lost: its improvement less
    the end's, an interval of all m comparisons. peaks: steps of which no other is clearly better. end: the
    end's gain, an interval of all m. smallest: minimal detectable loss (80 % power). p: of no
    difference at all, times m; q: over all courses.
    """

    source: str
    target: str
    unit: str
    rows: tuple[str, ...]
    steps: tuple[int, ...]
    gains: tuple[Interval, ...]
    peak: int
    lost: Interval
    peaks: tuple[int, ...]
    end: Interval
    smallest: float
    p: float
    q: float
    verdict: CourseVerdict
    items: int
    seeds: int

    @property
    def words(self) -> str:
        """The verdict with its interval, in a sentence."""
        pair = f"{clean(self.source)} on {clean(self.target)}"
        unit, last = self.unit or "units", self.steps[-1]
        if self.verdict == "turns":
            best = listed([str(step) for step in self.peaks if step != last]) or str(self.peak)
            gain = self.gains[self.steps.index(self.peak)]
            left = "below the base by then" if self.end.high < 0 else f"{estimate(self.end)} left"
            return (
                f"{pair} turns: {plain(gain.value)} {unit} better at step {self.peak} (the best step may be "
                f"{best}), of which {estimate(self.lost)} are lost by step {last}; {left}"
            )
        if self.verdict == "falls":
            return f"{pair} falls: {estimate(self.end)} {unit} against the base at step {last}"
        if self.verdict == "holds":
            return f"{pair} holds its gain: {estimate(self.end)} {unit} at step {last}"
        seen = f"; minimal detectable loss {plain(self.smallest)}" if isfinite(self.smallest) else ""
        lost = f"{estimate(self.lost)} {unit}{seen}"
        return f"{pair}: cannot tell whether gain was lost after step {self.peak} ({lost})"


@dataclass(frozen=True)
class Choice:
    """Which step of one source to keep for some targets; means over them in points.

    means: mean improvement at each step, intervals that hold together over all steps. kept: the row that is
    named, None where no step is known or all do harm. over_end: its mean less the end's, an interval of all
    pairs of steps. alike: rows that it cannot be told from. harmful: rows left out, with what they harm.
    reason: by what it was chosen.
    """

    source: str
    targets: tuple[str, ...]
    rows: tuple[str, ...]
    steps: tuple[int, ...]
    means: tuple[Interval, ...]
    kept: str | None
    over_end: Interval
    alike: tuple[str, ...]
    harmful: Mapping[str, str]
    reason: str

    @property
    def words(self) -> str:
        """What to keep and why, in a sentence."""
        harm = (
            f"; left out: {'; '.join(f'{row} {why}' for row, why in self.harmful.items())}"
            if self.harmful
            else ""
        )
        if self.kept is None:
            return f"{clean(self.source)}: no step can be named ({self.reason}){harm}"
        mean = self.means[self.rows.index(self.kept)]
        text = f"keep {clean(self.kept)}: {self.reason}, {estimate(mean)} points over all steps at a time"
        if mean.high < 0:
            text = f"no step gains; the least is lost at {clean(self.kept)}, {estimate(mean)} points"
        end = self.rows[-1]
        if self.kept == end:
            text += "; it is the end"
        elif self.over_end.clear:
            text += f"; {estimate(self.over_end)} above the end"
        else:
            text += f"; that it is better than the end cannot be told ({estimate(self.over_end)})"
        others = [clean(row) for row in self.alike if row != end or self.kept == end]
        return text + (f"; not told from {listed(others)}" if others else "") + harm


@dataclass(frozen=True)
class Checkpoints:
    """Courses of all checkpointed sources of a run, and which step of each to keep.

    notes: what to know of all of them, in sentences. predicted: steps that were not kept and were asked for;
    no course and no choice rests on them.
    """

    courses: tuple[Course, ...]
    choices: tuple[Choice, ...]
    notes: tuple[str, ...] = ()
    predicted: tuple[PredictedStep, ...] = ()

    __repr__ = outline

    @property
    def lines(self) -> tuple[str, ...]:
        """What to keep, then what is lost again; what cannot be told is counted."""
        told = [course.words for course in self.courses if course.verdict in ("turns", "falls")]
        counts = {verdict: sum(c.verdict == verdict for c in self.courses) for verdict in COURSE_VERDICTS}
        shares = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
        head = f"{counted(len(self.courses), 'course')} of a source on a target{shares and f': {shares}'}"
        ahead = predicted_step_lines(self.predicted)
        return (*(choice.words for choice in self.choices), head, *told, *self.notes, *ahead)

    def to_json(self) -> dict[str, Any]:
        """The record as JSON data; unknown numbers are null."""
        return {
            "courses": [{**jsonable(course), "words": course.words} for course in self.courses],
            "choices": [{**jsonable(choice), "words": choice.words} for choice in self.choices],
            "notes": list(self.notes),
            "predicted": [
                {**jsonable(step), "row": step.row, "status": "predicted"} for step in self.predicted
            ],
        }

    def to_frame(self) -> pd.DataFrame:
        """A row for each source, target and step: gain with its interval, and the course's verdict.

        Predicted steps, whose ``status`` says so, have no verdict and 90 % intervals in place of 95 %.
        """
        import pandas as pd

        rows = [
            {
                "source": course.source,
                "target": course.target,
                "row": row,
                "step": step,
                "gain": gain.value,
                "gain_low": gain.low,
                "gain_high": gain.high,
                "unit": course.unit,
                "status": "measured",
                "verdict": course.verdict,
                "q": course.q,
            }
            for course in self.courses
            for row, step, gain in zip(course.rows, course.steps, course.gains, strict=True)
        ]
        rows += [
            {
                "source": step.source,
                "target": step.target,
                "row": step.row,
                "step": step.step,
                "gain": step.gain.value,
                "gain_low": step.gain.low,
                "gain_high": step.gain.high,
                "unit": step.unit,
                "status": "predicted",
                "verdict": None,
                "q": nan,
            }
            for step in self.predicted
        ]
        return pd.DataFrame(rows)


def checkpoints_in(matrix: TransferMatrix) -> dict[str, dict[str, int]]:
    """source -> row -> step of every source with checkpoints, steps rising, the source itself last.

    Its own last step is the dose of what its checkpoints are parts of; empty where a matrix has none.
    """
    found: dict[str, dict[str, int]] = {}
    ends: dict[str, int] = {}
    for row, variation in variations_of(matrix).items():
        if variation["kind"] == KIND and variation["parents"][0] in matrix.sources:
            (source,) = variation["parents"]
            found.setdefault(source, {})[row] = round(variation["dose"])
            ends[source] = round(variation["parent_dose"])
    return {
        source: {**dict(sorted(rows.items(), key=lambda pair: pair[1])), source: ends[source]}
        for source, rows in found.items()
    }


def checkpoint_courses(
    matrix: TransferMatrix,
    *,
    targets: Sequence[str] | None = None,
    keep: Sequence[str] = (),
    margin: float = 0.0,
    predict: Sequence[str] = (),
) -> Checkpoints:
    """The courses of all checkpointed sources of a matrix, and the step of each to keep for some targets.

    targets: over which a step is chosen, by default all whose scores are shares. keep: targets that must not
    be harmed: a step that is clearly more than ``margin`` below the base on one is not kept (in points; see
    ``kept_margins`` for other units). predict:
    steps that were not kept (``reviews@45``), whose gains are predicted (``step_prediction``).
    MatrixError for a target that the matrix has not, for a step that cannot be predicted, and where it has no
    checkpoints and none is to be predicted.
    """
    trainings = checkpoints_in(matrix)
    if not (trainings or predict):
        raise MatrixError("no source has checkpoints; give one checkpoints: [30, 60], and run the study")
    for name in (*(targets or ()), *keep):
        if name not in matrix.targets:
            raise MatrixError(f"{name!r} is not a target of this run; legal: {', '.join(matrix.targets)}")
    views = {view.name: view for view in read(matrix).targets}
    courses = [
        course
        for source, steps in trainings.items()
        for target in matrix.targets
        if (course := _course(matrix, source, steps, views[target])) is not None
    ]
    q = benjamini_hochberg(np.array([course.p for course in courses], dtype=float))
    courses = [_judged(course, float(value)) for course, value in zip(courses, q, strict=True)]
    shares = [name for name in targets or matrix.targets if views[name].unit == "points"]
    _, units, scale = measured_improvements(matrix)
    margins = dict(zip(matrix.targets, kept_margins(margin, units, scale), strict=True))
    may_lose = [(views[name], float(margins[name])) for name in keep]
    choices = [
        choose_step(
            matrix,
            source,
            steps,
            shares,
            harmful=_harmful(matrix, steps, may_lose),
        )
        for source, steps in trainings.items()
    ]
    others = [name for name in targets or () if name not in shares]
    notes = [f"left out of the means, since they are no shares: {listed(others)}"] if others else []
    if courses and min(course.seeds for course in courses) == 1:
        notes.append(
            "from one seed these are courses of these very adapters; another training may turn elsewhere"
        )
    return Checkpoints(tuple(courses), tuple(choices), tuple(notes), predict_steps(matrix, predict))


def choose_step(
    matrix: TransferMatrix,
    source: str,
    steps: Mapping[str, int],
    targets: Sequence[str],
    *,
    harmful: Mapping[str, str] | None = None,
    losses: Mapping[str, float] | None = None,
) -> Choice:
    """Which of several rows of one training to keep.

    steps: row -> its step, rising. targets: over whose mean improvement, in points, it is chosen. harmful:
    rows that are left out, with the reason. losses: evaluation losses of the trainer by row; where they are
    known of any row that does no harm, the lowest decides.
    """
    rows, harmful, losses = tuple(steps), dict(harmful or {}), losses or {}
    views = {view.name: view for view in read(matrix).targets}
    table = _Contrasts.of(matrix, rows, [views[name] for name in targets])
    K = len(rows)
    means = tuple(table.contrast({at: 1.0, _BASE: -1.0}).interval(confidence=_level(K)) for at in range(K))
    eligible = [at for at in range(K) if rows[at] not in harmful and means[at].known]
    blank = Choice(
        source, tuple(targets), rows, tuple(steps.values()), means, None, unknown("no step"), (), harmful, ""
    )
    if not eligible:
        return replace(
            blank, reason="every step does harm" if harmful else "no step is measured on these targets"
        )
    known = [at for at in eligible if rows[at] in losses]
    if known:
        kept = min(known, key=lambda at: losses[rows[at]])
        reason = f"the lowest evaluation loss ({losses[rows[kept]]:.4g})"
    else:
        kept = max(eligible, key=lambda at: means[at].value)
        reason = f"the highest mean over {counted(len(targets), 'target')}"
    level = _level(K * (K - 1) // 2)
    against = {
        at: table.contrast({kept: 1.0, at: -1.0}).interval(confidence=level) for at in range(K) if at != kept
    }
    return replace(
        blank,
        kept=rows[kept],
        over_end=against.get(K - 1, Interval(0.0, 0.0, 0.0)),
        alike=tuple(rows[at] for at in eligible if at != kept and not against[at].clear),
        reason=reason + (" without a harm" if harmful else ""),
    )


def _course(matrix: TransferMatrix, source: str, steps: Mapping[str, int], view: TargetView) -> Course | None:
    """None where a step was not measured item by item with the base."""
    rows, K = tuple(steps), len(steps)
    table = _Contrasts.of(matrix, rows, [view])
    end = table.contrast({K - 1: 1.0, _BASE: -1.0})
    if not isfinite(end.value):
        return None
    level = _level(K)
    losses = {at: table.contrast({at: 1.0, K - 1: -1.0}) for at in range(K - 1)}
    peak = max(losses, key=lambda at: losses[at].value)
    # what is asked is a loss since an earlier step, and the end against the base; a rise is neither
    asked = [1.0 if loss.value <= 0 else loss.p for loss in losses.values()]
    ps = [p for p in (*asked, end.p) if isfinite(p)]
    pairs = {
        (a, b): table.contrast({a: 1.0, b: -1.0}).interval(confidence=_level(K * (K - 1) // 2))
        for a, b in combinations(range(K), 2)
    }
    beaten = {b if pair.low > 0 else a for (a, b), pair in pairs.items() if pair.clear}
    return Course(
        source=source,
        target=view.name,
        unit=view.unit,
        rows=rows,
        steps=tuple(steps.values()),
        gains=tuple(_gain(matrix, row, view) for row in rows),
        peak=list(steps.values())[peak],
        lost=losses[peak].interval(confidence=level),
        peaks=tuple(step for at, step in enumerate(steps.values()) if at not in beaten),
        end=end.interval(confidence=level),
        smallest=losses[peak].smallest_visible,
        p=min(1.0, K * min(ps)) if ps else nan,
        q=nan,
        verdict="cannot tell",
        items=table.items,
        seeds=table.seeds,
    )


def _gain(matrix: TransferMatrix, row: str, view: TargetView) -> Interval:
    """A cell's gain as the matrix has it, positive where it is better, in shown units."""
    cells = matrix.cells
    cell = next(c for c in cells if (c.source, c.target, c.seed) == (row, view.name, None))
    ends = sorted((view.better * cell.gain_low, view.better * cell.gain_high))
    value, low, high = (view.factor * number for number in (view.better * cell.gain, *ends))
    return Interval(value, low, high)


def _judged(course: Course, q: float) -> Course:
    verdict: CourseVerdict = "cannot tell"
    if q < SIGNIFICANT:
        if course.lost.low > 0:
            verdict = "turns"
        elif course.end.clear:
            verdict = "holds" if course.end.low > 0 else "falls"
    return replace(course, q=q, verdict=verdict)


def _harmful(
    matrix: TransferMatrix, steps: Mapping[str, int], keep: Sequence[tuple[TargetView, float]]
) -> dict[str, str]:
    """Steps that clearly take more from a target than it may lose; over all steps and targets at a time."""
    harmful = {}
    for view, margin in keep:
        table = _Contrasts.of(matrix, tuple(steps), [view])
        for at, row in enumerate(steps):
            level = _level(len(steps) * len(keep))
            gain = table.contrast({at: 1.0, _BASE: -1.0}).interval(confidence=level)
            if gain.high < -margin and row not in harmful:
                harmful[row] = f"harms {clean(view.name)} ({estimate(gain)} {view.unit})"
    return harmful


def _level(m: int) -> float:
    return 1 - (1 - CONFIDENCE) / max(m, 1)


@dataclass(frozen=True)
class _Contrasts:
    """Scores of some rows and the base on some targets, in shown units, higher being better.

    scores: target -> the rows (K, S, n) and, last, the base (1, S, n), of the items and seeds that all have.
    reach: of a score of right or wrong in these units; 0 where a target has others.
    """

    scores: Mapping[str, Array]
    reach: float

    @classmethod
    def of(cls, matrix: TransferMatrix, rows: Sequence[str], views: Sequence[TargetView]) -> _Contrasts:
        scores, binary = {}, True
        for view in views:
            if view.name not in matrix.item_scores:
                continue
            of_items = matrix.item_scores[view.name]
            by_group = group_scores(of_items, matrix.item_groups.get(view.name))
            chosen = by_group[[*(1 + matrix.sources.index(row) for row in rows), 0]]
            seeds = np.isfinite(chosen).any(axis=2).all(axis=0)
            chosen = chosen[:, seeds]
            chosen = chosen[:, :, np.isfinite(chosen).all(axis=(0, 1))]
            known = of_items[np.isfinite(of_items)]
            binary &= bool(((known == 0) | (known == 1)).all())
            scores[view.name] = view.better * view.factor * chosen
        common = min((values.shape[1] for values in scores.values()), default=0)
        whole = common > 0 and len(scores) == len(views)
        factor = max((view.factor for view in views), default=1.0)
        return cls(
            {name: values[:, :common] for name, values in scores.items()} if whole else {}, factor * binary
        )

    @property
    def items(self) -> int:
        return min((values.shape[2] for values in self.scores.values()), default=0)

    @property
    def seeds(self) -> int:
        return min((values.shape[1] for values in self.scores.values()), default=0)

    def contrast(self, weights: Mapping[int, float]) -> Estimate:
        """Mean over the targets of a weighted sum of rows; ``_BASE`` is the base."""
        terms = [  # rows of one training share its seeds, so that their differences are its own
            VarianceTerm(
                adapter="base" if row == _BASE else "training",
                target=target,
                weight=weight / len(self.scores),
                scores=values[row][:1] if row == _BASE else values[row],
            )
            for target, values in self.scores.items()
            for row, weight in weights.items()
        ]
        return crossed_contrast(terms, reach=self.reach) if terms else Estimate(nan, nan, nan)
