"""Checkpoints of a training: the section of the page, its figure, and the same for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType

from traitmap.analysis.checkpoints import COURSE_VERDICTS, Checkpoints, Course
from traitmap.analysis.corrections import LEAST
from traitmap.analysis.step_prediction import PredictedStep
from traitmap.matrix.reading import PREDICTED
from traitmap.report.plane_charts import Curve, curves
from traitmap.report.records import Shown
from traitmap.table import Entry, Row, Table, to_terminal, words
from traitmap.wording import clean, counted, estimate, none_of, plain, probability, related, sentence

MOST_COURSES = 12  # panels; the table has all
_STYLES = {"turns": "worse", "falls": "worse", "holds": "better"}


def checkpoints_view(found: Checkpoints) -> RenderableType:
    """Which step to keep and what is lost again, in lines, every course, and what was predicted."""
    parts: list[RenderableType] = [words(line) for line in found.lines]
    if found.courses:
        parts += [words(""), to_terminal(courses_table(found, steps=False))]
    if found.predicted:
        parts += [words(""), to_terminal(predicted_table(found.predicted))]
    return Group(*parts)


def predicted_table(predicted: Sequence[PredictedStep]) -> Table:
    """Steps that were not kept, on every target; each number carries the mark of a prediction."""
    return Table(
        "Predicted improvements at steps that were not kept, 90 %.",
        ("step", "on", "gain", "unit", "between steps", "other courses"),
        [
            (
                clean(one.row),
                clean(one.target),
                Entry(
                    estimate(one.gain),
                    mark=PREDICTED,
                    style="predicted",
                    title=one.gain.reason,
                    value=one.gain.value,
                ),
                clean(one.unit),
                f"{one.between[0]:,} and {one.between[1]:,}",
                f"{one.courses:,}",
            )
            for one in predicted
        ],
        notes=[f"{PREDICTED} predicted, not measured; no interval where fewer than {LEAST} courses tell"],
    )


def checkpoints_part(found: Checkpoints | None) -> dict[str, Any]:
    """What ``checkpoints.html`` shows (key ``checkpoints``; None: no section)."""
    if found is None:
        return {"checkpoints": None}
    keep = [(clean(choice.source), sentence(choice.words)) for choice in found.choices]
    return {
        "checkpoints": {
            "keep": keep,
            "notes": [sentence(note) for note in found.notes],
            "figures": checkpoints_figures(found),
        }
    }


def checkpoints_figures(found: Checkpoints) -> tuple[Shown, ...]:
    """The figure of the section: improvements over steps, those that turn first; none without a course."""
    if not found.courses:
        return ()
    ordered = _ordered(found)
    told = [course for course in ordered if course.verdict != "cannot tell"]
    shown = (told or ordered)[:MOST_COURSES]
    counts = [f"{sum(c.verdict == v for c in found.courses)} {v}" for v in COURSE_VERDICTS]
    text = (
        "What each step of a training does to a target, against the base, which is step 0. Of "
        f"{counted(len(found.courses), 'course')}: {', '.join(counts)}."
    )
    if len(shown) < len(found.courses):
        text += f" {len(shown)} are shown, those first that lose again what they had gained."
    title = "Improvement over steps"
    return (
        Shown(
            name="courses",
            title=title,
            description=text,
            chart=curves(
                [_panel(course) for course in shown],
                title,
                f"{counted(len(shown), 'course')} of improvements over steps with 95 % intervals.",
            ),
            table=courses_table(found),
            caveat=(
                "Intervals at the steps are each step's own. A verdict rests on wider ones, which hold for "
                "all comparisons of a course: the best of several steps looks better than it is. Each panel "
                "has axes of its own."
            ),
            key=(("dot-solid" if told else "dot-quiet", "at each step, with its 95 % interval"),),
            nothing="" if told else f"{none_of(len(found.courses), 'course')} can be told",
            wide=True,
        ),
    )


def courses_table(found: Checkpoints, *, steps: bool = True) -> Table:
    """A row for each source and target, those that turn first. steps: whether with the gain at each."""
    rows: list[Row] = [
        (
            f"{clean(course.source)} → {clean(course.target)}",
            *([clean(course.unit), _by_step(course)] if steps else []),
            f"{course.peak:,}",
            estimate(course.lost),
            estimate(course.end),
            probability(course.q),
            Entry(course.verdict, style=_STYLES.get(course.verdict, "")),
        )
        for course in _ordered(found)
    ]
    by_step = ("unit", "gain at each step") if steps else ()
    columns = ("course", *by_step, "best before", "lost by the end", "end")
    return Table(
        "Courses: improvements over the base step by step. What is lost and the end have intervals that hold "
        "for all comparisons of a course.",
        (*columns, "q", "verdict"),
        rows,
    )


def _by_step(course: Course) -> str:
    pairs = zip(course.steps, course.gains, strict=True)
    return "; ".join(f"{step}: {plain(gain.value)}" for step, gain in pairs)


def _ordered(found: Checkpoints) -> list[Course]:
    def place(course: Course) -> tuple[int, float, str, str]:
        return COURSE_VERDICTS.index(course.verdict), -course.lost.value, course.source, course.target

    return sorted(found.courses, key=place)


def _panel(course: Course) -> Curve:
    gains = course.gains
    return Curve(
        at=(0.0, *map(float, course.steps)),
        values=(0.0, *(gain.value for gain in gains)),
        low=(0.0, *(gain.low for gain in gains)),
        high=(0.0, *(gain.high for gain in gains)),
        title=f"{clean(course.source)} → {clean(course.target)}",
        notes=(
            f"{course.verdict}, {related('q', course.q)}",
            f"lost: {estimate(course.lost)} {clean(course.unit)}",
        ),
        tone="quiet" if course.verdict == "cannot tell" else "neutral",
    )
