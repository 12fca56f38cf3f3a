"""Steps of a training that were not kept: predicted from those that were, and from other sources' courses.

The first guess lies on the straight line between the measured steps on either side, over the logarithm of the
step plus one; step 0 is the base, whose gain is 0. Two models correct it by what courses of other sources
show where their own steps are hidden:

straight   nothing
growth     shares of the rise between the two steps: gains that come early or late
targets    growth, and what each target gains or loses between steps by itself

Steps of a source with a course are learnt from others that miss one step at a time; those of a source that
has its end alone from others that miss all between. Which model is used and how wide intervals (90 %) are is
decided with one family of sources left out at a time; fewer than ``LEAST`` others give no interval. The
source's own family (its variations) takes no part in either. A predicted gain is never data: it enters no
verdict, no choice and no test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, inf, isfinite, log1p, nan
from typing import Any

import numpy as np

from traitmap.analysis.corrections import (
    LEAST,
    CorrectionDesign,
    Corrections,
    Width,
    around,
    learn,
    unit_scales,
    width_of,
)
from traitmap.analysis.explanation.families import variations_of
from traitmap.errors import MatrixError
from traitmap.matrix.reading import PREDICTED, read
from traitmap.matrix.record import Array, TransferMatrix
from traitmap.matrix.statistics import Interval
from traitmap.study.derived import source_of_row
from traitmap.wording import clean, counted

MODELS = ("straight", "growth", "targets")
MODEL_WORDS = {
    "straight": "the straight line over the logarithm of the step",
    "growth": "that line, and how early other sources gain",
    "targets": "that line, how early other sources gain, and each target's own course",
}


@dataclass(frozen=True)
class PredictedStep:
    """A step that was not measured, on one target.

    gain: predicted improvement in ``unit``, 90 %; no ends where fewer than ``LEAST`` other courses are
    measured. between: the measured steps on either side, 0 for the base. courses: families of other sources
    that it was learnt from. model: a key of ``MODEL_WORDS``.
    """

    source: str
    step: int
    target: str
    unit: str
    gain: Interval
    between: tuple[int, int]
    courses: int
    model: str

    @property
    def row(self) -> str:
        """``reviews@45``."""
        return f"{self.source}@{self.step}"


@dataclass(frozen=True)
class _Case:
    """A step between two measured ones, in units of the scale; (T,) each. width: the product of the distances
    to them over their sum, in logarithms; share: the place between them."""

    family: str
    between: tuple[int, int]
    share: float
    width: float
    first: Array
    last: Array
    measured: Array


def training_courses(matrix: TransferMatrix) -> dict[str, dict[int, str]]:
    """source -> step -> row, the end of its training last, of sources whose length of training is known."""
    made, described = variations_of(matrix), matrix.conditions.get("sources") or {}
    courses: dict[str, dict[int, str]] = {}
    for name in matrix.sources:
        source, step = source_of_row(name)
        variation = made.get(name, {})
        if step is not None and variation.get("kind") == "checkpoint" and source in matrix.sources:
            courses.setdefault(source, {}).update({step: name, round(variation["parent_dose"]): source})
        elif variation.get("kind") != "merge" and (end := _length(described.get(name) or {})):
            courses.setdefault(name, {})[end] = name
    return {source: dict(sorted(rows.items())) for source, rows in courses.items()}


def _length(described: Mapping[str, Any]) -> int | None:
    """Optimizer steps of a training as the conditions of a run tell it; None where they do not."""
    training = described.get("training") or {}
    if described.get("adapter") is not None or training.get("max_tokens") is not None:
        return None
    if training.get("max_steps") is not None:
        return int(training["max_steps"])
    examples, batch = described.get("examples"), training.get("batch_size")
    if not examples or not batch:
        return None
    return ceil((training.get("num_train_epochs") or 1.0) * ceil(examples / batch))


def measured_improvements(matrix: TransferMatrix) -> tuple[Array, tuple[str, ...], Array]:
    """(S, T) measured gains in shown units, positive where better; the units; the usual gain of each (T,)."""
    views = read(matrix).targets
    better = np.array([view.factor * view.better for view in views], dtype=float)
    gains = np.where(matrix.predicted, nan, matrix.gains) * better
    units = tuple(view.unit for view in views)
    return gains, units, unit_scales(gains, units)


def predict_steps(matrix: TransferMatrix, rows: Sequence[str]) -> tuple[PredictedStep, ...]:
    """Gains of steps that were not kept, on every target.

    rows: ``source@step``, of sources with a row in the matrix. MatrixError with every row that cannot be
    predicted, and why.
    """
    courses = training_courses(matrix)
    asked = [(row, *_asked(matrix, courses, row)) for row in dict.fromkeys(rows)]
    if faults := [fault for *_, fault in asked if fault]:
        raise MatrixError("; ".join(faults))
    reading = read(matrix)
    gains, units, scale = measured_improvements(matrix)
    table = {
        source: {0: np.zeros(len(units))}
        | {step: gains[matrix.sources.index(row)] / scale for step, row in of.items()}
        for source, of in courses.items()
    }
    families = {name: one.get("family", name) for name, one in variations_of(matrix).items()}
    predicted = []
    for _, source, step, _ in asked:
        family = families.get(source, source)
        others = [name for name in table if families.get(name, name) != family]
        alone = len(table[source]) == 2
        cases = [
            case
            for name in others
            for case in _hidden(table[name], families.get(name, name), alone=alone)
            if np.isfinite(case.measured).any()
        ]
        question = _case(table[source], step, family, np.full(len(units), nan))
        values, halves, learnt, count = _answer(question, cases)
        predicted += [
            PredictedStep(
                source,
                step,
                view.name,
                view.unit,
                around(float(values[t] * scale[t]), float(halves[t] * scale[t])),
                question.between,
                count,
                learnt.chosen if learnt else MODELS[0],
            )
            for t, view in enumerate(reading.targets)
        ]
    return tuple(predicted)


def _asked(
    matrix: TransferMatrix, courses: Mapping[str, Mapping[int, str]], row: str
) -> tuple[str, int, str]:
    """Source and step of a row that is asked for, and what speaks against it."""
    source, step = source_of_row(row)
    fault = ""
    if step is None or step < 1:
        fault = f"{row!r} is no step of a training; give a source and a step, such as {source or 'a'}@30"
    elif source not in matrix.sources:
        fault = f"{row!r}: there is no source {source!r}; legal: {', '.join(courses)}"
    elif source not in courses:
        fault = f"{row!r}: how many steps {source!r} was trained for is not known here"
    elif step in courses[source]:
        fault = f"{row!r} is measured; ask for another step"
    elif step > (end := max(courses[source])):
        fault = f"{row!r}: its training ends at step {end:,}, and a longer one has another schedule"
    return source, step or 0, fault


def _case(steps: Mapping[int, Array], step: int, family: str, measured: Array) -> _Case:
    before, after = (max(at for at in steps if at < step), min(at for at in steps if at > step))
    x, low, high = log1p(step), log1p(before), log1p(after)
    width = (x - low) * (high - x) / (high - low)
    return _Case(
        family, (before, after), (x - low) / (high - low), width, steps[before], steps[after], measured
    )


def _hidden(steps: Mapping[int, Array], family: str, *, alone: bool) -> list[_Case]:
    """A course with its steps between hidden, all of them (``alone``) or one at a time."""
    between = [step for step in steps if 0 < step < max(steps)]
    return [
        _case(
            {at: of for at, of in steps.items() if at != step and not (alone and at in between)},
            step,
            family,
            steps[step],
        )
        for step in between
    ]


def _design(cases: Sequence[_Case]) -> CorrectionDesign:
    first, last = (np.array([getattr(case, end) for case in cases]) for end in ("first", "last"))
    share, width = (np.array([getattr(case, name) for case in cases])[:, None] for name in ("share", "width"))
    rise = last - first
    growth = np.stack([width * rise, width * (share - 0.5) * rise], axis=-1)
    own = np.broadcast_to(width[..., None] * np.eye(rise.shape[1]), (*rise.shape, rise.shape[1]))
    return CorrectionDesign(
        guess=first + share * rise,
        columns={
            "straight": np.zeros((*rise.shape, 0)),
            "growth": growth,
            "targets": np.concatenate([growth, own], axis=-1),
        },
        growth=np.nan_to_num(np.sqrt(width)[..., None] * np.stack([np.ones(rise.shape), np.abs(rise)], -1)),
    )


def _answer(question: _Case, cases: Sequence[_Case]) -> tuple[Array, Array, Corrections | None, int]:
    """(T,) predictions and half-widths of a question, what was learnt, and from how many families."""
    design = _design([question])
    families = sorted({case.family for case in cases})
    if len(families) < 2:  # nothing can be held out
        return design.guess[0], np.full(design.guess.shape[1], inf), None, len(families)
    units = np.array([families.index(case.family) for case in cases])
    learnt = learn(
        _design(cases),
        np.array([case.measured for case in cases]),
        units[:, None] != units[None, :],
        kind="step",
        models=MODELS,
        units=units.tolist(),
    )
    width: Width | None = None
    if len(families) >= LEAST:
        width = width_of(learnt.errors, learnt.deviation, len(families))
    half = width.half() if width else inf
    return learnt.predict(design)[0], half * design.deviation(learnt.spread)[0], learnt, len(families)


def predicted_step_lines(predicted: Sequence[PredictedStep]) -> list[str]:
    """What each predicted row rests on, in a sentence."""
    lines = []
    for row in dict.fromkeys(one.row for one in predicted):
        one = next(other for other in predicted if other.row == row)
        ends = [str(step) if step else "0 (the base)" for step in one.between]
        rests = counted(one.courses, "course of another source", "courses of other sources")
        text = (
            f"{PREDICTED} {clean(row)} is predicted, not measured: between steps {ends[0]} and {ends[1]}, by "
        )
        text += f"{MODEL_WORDS[one.model]}; learnt from {rests}"
        if not isfinite(one.gain.low):
            text += f", of which {LEAST} are needed for an interval" if one.courses < LEAST else ""
        lines.append(text)
    return lines
