"""The section of the page on why gains are what they are.

Its figures come from three places: pairs of tasks (``explanation_figures``), the datasets themselves
(``profiles``), and here the changed sources: curves over doses, and gains less what the format alone gives.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from traitmap.analysis.explanation.dose import DoseResponse, FormatPart
from traitmap.analysis.explanation.families import Families
from traitmap.analysis.explanation.records import Explanation
from traitmap.analysis.profiles.semantics import WORDING
from traitmap.matrix.reading import read
from traitmap.matrix.statistics import Interval
from traitmap.report import explanation_figures, profiles
from traitmap.report.explanation_figures import LEVEL
from traitmap.report.plane_charts import Curve, curves
from traitmap.report.records import Shown
from traitmap.report.row_charts import estimate_row, row_chart
from traitmap.table import Entry, Table
from traitmap.wording import clean, counted, estimate, none_of, plain, probability, related, typeset

if TYPE_CHECKING:
    from traitmap.analysis.profiles.record import Profile
    from traitmap.analysis.verdicts import Verdicts
    from traitmap.matrix.record import TransferMatrix

MOST_DOSES = 12

# One dose curve: its name, what the dose is, the response, and q of no trend.
DoseCurve = tuple[str, str, DoseResponse, float]


def dose_response(families: Families) -> Shown | None:
    """Scores over doses, the clearest first.

    None where no source was changed by degrees. At most ``MOST_DOSES`` panels; the table has all curves.
    """
    known = sorted(
        families.curves, key=lambda curve: (curve.response.p, curve.parent, curve.kind, curve.target)
    )
    return _dose_figure(
        "dose-response",
        "Dose and response",
        "One thing in a source is changed by degrees, everything else is kept: an experiment, not a "
        "correlation.",
        [
            (f"{clean(curve.parent)} → {clean(curve.target)}", clean(curve.meaning), curve.response, curve.q)
            for curve in known
        ],
    )


def answered_dose(families: Families) -> Shown | None:
    """Shares of answers, lengths and stopping over doses, the clearest first.

    As ``dose_response``, with what the answers are like in place of their score.
    """
    known = sorted(families.answered, key=lambda curve: (curve.response.p, curve.target, curve.measure))
    return _dose_figure(
        "answered-dose",
        "Dose and answers",
        "What the same changes do to the answers themselves: classes, lengths, format.",
        [
            (
                f"{clean(curve.measure)} on {clean(curve.target)}",
                clean(curve.response.dose),
                curve.response,
                curve.q,
            )
            for curve in known
        ],
    )


def _dose_figure(name: str, title: str, what: str, known: Sequence[DoseCurve]) -> Shown | None:
    """Panels of the clearest curves. known: the clearest first; None where there is none."""
    if not known:
        return None
    clear = [curve for curve in known if curve[3] < LEVEL]
    panels = [_panel(*curve) for curve in (clear or known)[:MOST_DOSES]]
    text = f"{what} Of {counted(len(known), 'curve')}, {len(clear) or 'none'} can be told after correction"
    text += f"; the {len(panels)} clearest are shown." if len(clear) > len(panels) else "."
    most = max(len(response.doses) for _, _, response, _ in known)
    seeds = min(response.seeds for _, _, response, _ in known)
    return Shown(
        name=name,
        title=title,
        description=text,
        chart=curves(panels, title, f"{counted(len(panels), 'curve')} with 95 % intervals."),
        table=Table(
            "Each dose with its number and 95 % interval beneath; then the straight line's change over the "
            "range of doses, p and q of no trend, and the verdict.",
            ("curve", "dose", *(f"dose {at + 1}" for at in range(most)), "change", "p", "q", "verdict"),
            [
                (
                    label,
                    dose,
                    *(_dose_entry(response, at) for at in range(most)),
                    estimate(response.change, 3),
                    probability(response.p),
                    probability(q),
                    response.verdict if q < LEVEL else "cannot tell",
                )
                for label, dose, response, q in known
            ],
        ),
        caveat=(
            f"Each panel has axes of its own: compare numbers, not slopes. From {counted(seeds, 'seed')} "
            "intervals are often wider than the curve; beyond five times its range they are cut."
        ),
        key=(("dot-solid" if clear else "dot-quiet", "at each dose, with its 95 % interval"),),
        nothing="" if clear else f"{none_of(len(known), 'curve')} can be told",
        wide=True,
    )


def _panel(label: str, dose: str, response: DoseResponse, q: float) -> Curve:
    """A curve; ends that lie more than five times its own range away from it are cut."""
    known = [effect.value for effect in response.effects if effect.known] or [0.0]
    room = 5 * max(max(known) - min(known), 1e-9)
    lowest, highest = min(known) - room, max(known) + room

    def within(end: float) -> float:
        return min(max(end, lowest), highest) if end == end else end

    return Curve(
        at=response.doses,
        values=tuple(effect.value for effect in response.effects),
        low=tuple(within(effect.low) for effect in response.effects),
        high=tuple(within(effect.high) for effect in response.effects),
        title=label,
        notes=(dose, f"{response.verdict if q < LEVEL else 'cannot tell'}, {related('q', q)}"),
        tone="neutral" if q < LEVEL else "quiet",
    )


def _dose_entry(response: DoseResponse, at: int) -> Entry:
    if at >= len(response.doses):
        return Entry("")
    effect = response.effects[at]
    ends = f"[{plain(effect.low, 3)}, {plain(effect.high, 3)}]" if effect.low == effect.low else ""
    return Entry(f"{response.doses[at]:.4g}: {plain(effect.value, 3)}", ends)


def format_parts(families: Families, points: Collection[str]) -> Shown | None:
    """How much of each gain an adapter gives that has learnt the format and nothing else.

    points: targets that are measured in points; where there are some, only these are drawn.
    """
    parts = sorted(
        families.format, key=lambda part: (part.target not in points, part.q, part.source, part.target)
    )
    if not parts:
        return None
    drawn = [part for part in parts if part.target in points] or parts
    clear = [part for part in drawn if part.verdict != "cannot tell"]
    drawn = clear or drawn
    factor, digits, unit = (
        (100, 1, "points") if drawn[0].target in points else (1, 2, "the unit of the score")
    )

    def scaled(result: Interval) -> Interval:
        return replace(
            result, value=factor * result.value, low=factor * result.low, high=factor * result.high
        )

    verdicts = [part.verdict for part in parts]
    return Shown(
        name="format",
        title="Content or format",
        description=(
            "A control adapter learnt the format of a source and nothing else. What is left of a gain "
            f"without it is content: beyond noise in {verdicts.count('content')} of "
            f"{counted(len(parts), 'gain')}, format only in {verdicts.count('format only')}, and of the rest "
            "it cannot be told." + ("" if len(drawn) == len(parts) else " The table has all of them.")
        ),
        chart=row_chart(
            [
                replace(
                    estimate_row(
                        f"{clean(part.source)} → {clean(part.target)}",
                        scaled(part.rest),
                        *(estimate(scaled(share), digits) for share in (part.gain, part.format, part.rest)),
                        part.verdict,
                        clear=part.verdict != "cannot tell",
                        tick=factor * part.format.value,
                    ),
                    solid=part.verdict == "content",
                )
                for part in drawn[:MOST_DOSES]
            ],
            "Gains less what their format alone gives",
            f"{counted(len(drawn[:MOST_DOSES]), 'gain')} split into format and rest.",
            heads=("gain", "format", "rest", "verdict"),
            axis=f"gain less the format's, in {unit}",
        ),
        table=format_table(parts),
        caveat="It is the named control's format: one that teaches other words would give other parts.",
        key=(
            ("dot-solid", "content beyond noise"),
            ("dot-open", "not"),
            ("tick", "what the format alone gives"),
        ),
        wide=True,
        nothing="" if clear else f"{none_of(len(parts), 'gain')} can be told from its format",
    )


def format_table(parts: Sequence[FormatPart]) -> Table:
    """Gains, what their format alone gives, and the rest, in the unit of each score.

    parts: in the order of the rows; q is that of no rest.
    """
    return Table(
        "Gain, the format's part, and the rest, in the score's own unit, with 95 % intervals; q of no rest.",
        ("pair", "control", "gain", "format", "rest", "q", "verdict"),
        [
            (
                f"{clean(part.source)} → {clean(part.target)}",
                part.control,
                *(estimate(share, 3) for share in (part.gain, part.format, part.rest)),
                probability(part.q),
                part.verdict,
            )
            for part in parts
        ],
    )


def why_part(
    matrix: TransferMatrix,
    profile: Profile | None,
    explanation: Explanation | None,
    missing: str = "",
    verdicts: Verdicts | None = None,
) -> dict[str, Any]:
    """What ``why.html`` shows (key ``why``; None: no section).

    missing: why there is no explanation, in a sentence. verdicts: as of ``why_groups``.
    """
    if profile is None and explanation is None and not missing:
        return {"why": None}
    return {
        "why": {
            "groups": why_groups(matrix, profile, explanation, verdicts),
            "missing": missing,
            "odd": explanation_figures.odd_reasons(explanation, verdicts=verdicts) if explanation else (),
            "words": tuple(typeset(clean(words)) for words in explanation.words) if explanation else (),
            "warnings": explanation.warnings if explanation else (),
            "notes": profile.all_notes() if profile else (),
            "relations": bool(profile and profile.relations),
            "content": profile.comparison.content_word if profile else WORDING,
        }
    }


def why_groups(
    matrix: TransferMatrix,
    profile: Profile | None,
    explanation: Explanation | None,
    verdicts: Verdicts | None = None,
) -> tuple[tuple[str, str, tuple[Shown, ...]], ...]:
    """The figures of the section: (heading, what they have in common, figures); no empty groups.

    profile, explanation: None leaves their groups out. matrix: tells which targets are measured in points.
    verdicts: pairs whose gain is something else than skill are named apart.
    """
    points = {target.name for target in read(matrix).targets if target.unit == "points"}
    groups: list[tuple[str, str, tuple[Shown | None, ...]]] = []
    if explanation is not None:
        pairs = (
            explanation_figures.effects(explanation),
            explanation_figures.shares(explanation),
            explanation_figures.odd_cells(explanation, verdicts),
            explanation_figures.asymmetry(explanation, verdicts),
            explanation_figures.strengths(explanation, "donors"),
            explanation_figures.strengths(explanation, "recipients"),
            explanation_figures.levels(explanation),
        )
        changed = (
            dose_response(explanation.families),
            answered_dose(explanation.families),
            format_parts(explanation.families, points),
        )
        groups += [
            (
                "Between pairs of tasks",
                "",
                pairs,
            ),
            (
                "Changed sources",
                "Copies of a source in which one thing was changed: what differs between their adapters, "
                "that change has done.",
                changed,
            ),
        ]
    if profile is not None:
        texts = (
            profiles.output_lengths(profile),
            profiles.label_lengths(profile),
            profiles.class_shares(profile),
            profiles.style(profile),
            profiles.meaning(profile),
            profiles.relations(profile),
            profiles.relation_effects(profile),
        )
        groups.append(("The datasets themselves", "", texts))
    known = ((title, words, tuple(filter(None, figures))) for title, words, figures in groups)
    return tuple(group for group in known if group[2])
