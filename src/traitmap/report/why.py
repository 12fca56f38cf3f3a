"""Properties of sources or targets alone, held against how much these give or gain, as a figure.

What controlled changes of a source do, as figures: curves over doses, and gains less their format.

The section of the page on why gains are what they are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from math import isfinite, nan
from typing import TYPE_CHECKING, Any

from traitmap.analysis.explanation.dose import DoseResponse, FormatPart
from traitmap.analysis.explanation.families import AnsweredCurve, Families
from traitmap.analysis.explanation.records import Explanation, LevelEffect
from traitmap.matrix.reading import read
from traitmap.matrix.statistics import Interval
from traitmap.report import explanation_figures
from traitmap.report import profiles as profile_figures
from traitmap.report import profiles as relation_figures
from traitmap.report.alternative import Entry, TextTable
from traitmap.report.plane_charts import Curve, curves
from traitmap.report.records import FigureGroup, Finding, Shown
from traitmap.report.row_charts import Line, row_chart
from traitmap.wording import (
    UNKNOWN,
    clean,
    counted,
    interval,
    listed,
    plain,
    probability,
    related,
    sentence,
    share,
    signed,
    typeset,
)

if TYPE_CHECKING:
    from traitmap.analysis.profiles.record import Profile
    from traitmap.matrix.record import TransferMatrix


MOST = 16


def levels(found: Explanation) -> Shown | None:
    """Correlations of properties with donor and recipient strengths, the clearest first."""
    some = sorted(
        (level for level in found.levels if level.r.known),
        key=lambda one: (_last(one.q), _last(one.p), one.name),
    )
    if not some:
        return None
    told = [one for one in some if one.verdict == "yes"]
    said = "What strong sources, or targets that gain much, have in common. "
    if told:
        said += sentence(f"{listed([f'{_name(one)} ({_amount(one.r)})' for one in told])} can be told") + " "
    else:
        said += f"Of {counted(len(some), 'property', 'properties')}, none can be told. "
    seen = [one.detectable for one in some if isfinite(one.detectable)]
    if seen:
        said += f"Correlations below {plain(min(seen), 2)} could not have been seen: there are only "
        most = {
            side: max((one.n for one in some if one.side == side), default=0) for side in ("source", "target")
        }
        said += " and ".join(counted(count, side) for side, count in most.items() if count) + "."
    return Shown(
        name="levels",
        title="What strong sources and targets have in common",
        said=typeset(said),
        svg=row_chart(
            [_line(one) for one in some[:MOST]],
            key="levels",
            title="Properties of sources and of targets against their strength",
            description=f"{counted(min(len(some), MOST), 'property', 'properties')} with correlation and 95 "
            "% "
            "interval. The same numbers stand in the table.",
            heads=("r", "q", "verdict"),
            axis="correlation with mean gain",
            width=1000,
            ends=(-1.0, 1.0),
        ),
        table=_table(some),
        distrust=(
            "One source or target is one point here, and properties go together: the longest outputs may "
            "also be the "
            "only free texts. A correlation over ten tasks is a hint."
        ),
        key=(
            ("dot-solid", "can be told (q < .05)"),
            ("dot-open", "cannot"),
            ("noise", "smaller than could be seen four times in five"),
        ),
        tag="" if told else "cannot tell",
        wide=True,
    )


def _last(value: float) -> float:
    return value if isfinite(value) else 2.0


def _name(one: LevelEffect) -> str:
    name = clean(one.name).replace("_", " ")
    return name if name.startswith(one.side) else f"{one.side} {name}"


def _line(one: LevelEffect) -> Line:
    yes, seen = one.verdict == "yes", one.detectable
    return Line(
        label=_name(one),
        value=one.r.value,
        low=one.r.low,
        high=one.r.high,
        band=(-min(seen, 1.0), min(seen, 1.0)) if isfinite(seen) else (nan, nan),
        texts=(_amount(one.r), probability(one.q), one.verdict),
        tone="neutral" if yes else "quiet",
        solid=yes,
    )


def _amount(one: Interval) -> str:
    ends = interval(one.low, one.high, 2)
    return signed(one.value, 2) + ("" if ends == UNKNOWN else f" {ends}")


def _table(some: list[LevelEffect]) -> TextTable:
    return TextTable(
        caption="Pearson's r with Fisher's 95 % interval; p by permuting tasks, q over all of a side.",
        heads=(
            "property",
            "of",
            "group",
            "what it says",
            "r",
            "p",
            "q",
            "seen four times in five",
            "tasks",
            "verdict",
        ),
        rows=tuple(
            (
                clean(one.name).replace("_", " "),
                (
                    Entry(f"{one.side}s"),
                    Entry(one.group),
                    Entry(clean(one.words)),
                    Entry(typeset(_amount(one.r))),
                    Entry(probability(one.p)),
                    Entry(probability(one.q)),
                    Entry(plain(one.detectable, 2)),
                    Entry(str(one.n)),
                    Entry(one.verdict),
                ),
            )
            for one in some
        ),
    )


LEVEL = 0.05
MOST_DOSES = 12


def dose_response(found: Families) -> Shown | None:
    """Scores over doses, the clearest first."""
    some = sorted(found.curves, key=lambda one: (one.response.p, one.parent, one.kind, one.target))
    if not some:
        return None
    told = [one for one in some if one.q < LEVEL]
    panels = [
        _panel(
            f"{clean(one.parent)} → {clean(one.target)}",
            clean(one.meaning),
            one.response,
            one.q,
            one.q < LEVEL,
        )
        for one in some[:MOST_DOSES]
    ]
    return _curves_shown(
        "dose-response",
        "Dose and response",
        "One thing in a source is changed by degrees, everything else is kept: an experiment, not a "
        "correlation.",
        panels,
        len(told),
        len(some),
        min(one.response.seeds for one in some),
        _dose_figures_table(
            [(f"{clean(o.parent)} → {clean(o.target)}", clean(o.meaning), o.response, o.q) for o in some]
        ),
    )


def answered_dose(found: Families) -> Shown | None:
    """Shares of answers, lengths and stopping over doses, the clearest first."""
    some = sorted(found.answered, key=lambda one: (one.response.p, one.target, one.measure))
    if not some:
        return None
    told = [one for one in some if one.q < LEVEL]
    panels = [
        _panel(_measure(one), one.response.dose, one.response, one.q, one.q < LEVEL)
        for one in some[:MOST_DOSES]
    ]
    return _curves_shown(
        "answered-dose",
        "Dose and answers",
        "What the same changes do to the answers themselves: classes, lengths, format.",
        panels,
        len(told),
        len(some),
        min(one.response.seeds for one in some),
        _dose_figures_table([(_measure(one), clean(one.response.dose), one.response, one.q) for one in some]),
    )


def _measure(one: AnsweredCurve) -> str:
    return f"{clean(one.measure)} on {clean(one.target)}"


def _curves_shown(
    name: str,
    title: str,
    what: str,
    panels: Sequence[Curve],
    told: int,
    count: int,
    seeds: int,
    table: TextTable,
) -> Shown:
    said = f"{what} Of {counted(count, 'curve')}, {told or 'none'} can be told after correction"
    said += f"; the {len(panels)} clearest are shown." if count > len(panels) else "."
    return Shown(
        name=name,
        title=title,
        said=typeset(said),
        svg=curves(
            panels,
            key=name,
            title=title,
            description=f"{counted(len(panels), 'curve')} with 95 % intervals. The same numbers stand in "
            "the table.",
        ),
        table=table,
        distrust=(
            f"Each panel has axes of its own: compare numbers, not slopes. From {counted(seeds, 'seed')} "
            "intervals are often wider than the curve (beyond five times its range they are cut); a grey "
            "curve says nothing, whichever way it goes."
        ),
        key=(("dot-solid", "follows the dose (q < .05)"), ("dot-quiet", "cannot tell")),
        tag="" if told else "cannot tell",
        wide=True,
    )


def _panel(title: str, dose: str, response: DoseResponse, q: float, told: bool) -> Curve:
    return Curve(
        title=title,
        said=(clean(dose), f"{response.verdict if told else 'cannot tell'}, {related('q', q)}"),
        at=response.doses,
        values=tuple(effect.value for effect in response.effects),
        low=_within([one.low for one in response.effects], response),
        high=_within([one.high for one in response.effects], response),
        tone="neutral" if told else "quiet",
    )


def _within(ends: Sequence[float], response: DoseResponse) -> tuple[float, ...]:
    """Ends of the intervals, cut where they lie more than five times the curve's own range away from it."""
    values = [effect.value for effect in response.effects if effect.known]
    if not values:
        return tuple(ends)
    room = 5 * max(max(values) - min(values), 1e-9)
    low, high = min(values) - room, max(values) + room
    return tuple(min(max(end, low), high) if end == end else end for end in ends)


def _dose_figures_table(some: Sequence[tuple[str, str, DoseResponse, float]]) -> TextTable:
    most = max(len(response.doses) for _, _, response, _ in some)
    return TextTable(
        caption="Each dose with its number and 95 % interval beneath; then the straight line's change over "
        "the range of doses, p and q of no trend, and the verdict.",
        heads=("curve", "dose", *(f"dose {at + 1}" for at in range(most)), "change", "p", "q", "verdict"),
        rows=tuple(
            (
                title,
                (
                    Entry(dose),
                    *(_dose_entry(response, at) for at in range(most)),
                    Entry(typeset(_dose_figures_amount(response.change, 3))),
                    Entry(probability(response.p)),
                    Entry(probability(q)),
                    Entry(response.verdict if q < LEVEL else "cannot tell"),
                ),
            )
            for title, dose, response, q in some
        ),
    )


def _dose_entry(response: DoseResponse, at: int) -> Entry:
    if at >= len(response.doses):
        return Entry("")
    one = response.effects[at]
    ends = f" [{plain(one.low, 3)}, {plain(one.high, 3)}]" if one.low == one.low else ""
    return Entry(typeset(f"{response.doses[at]:.4g}: {plain(one.value, 3)}"), typeset(ends.strip()))


def format_parts(found: Families, points: Collection[str]) -> Shown | None:
    """How much of each gain an adapter gives that has learnt the format and nothing else.

    points: targets that are measured in points; where there are some, only these are drawn.
    """
    some = sorted(found.format, key=lambda one: (one.target not in points, one.q, one.source, one.target))
    if not some:
        return None
    drawn = [one for one in some if one.target in points] or some
    factor = 100 if drawn[0].target in points else 1
    content = [one for one in some if one.verdict == "content"]
    only = [one for one in some if one.verdict == "format only"]
    lines = [_format_line(one, factor) for one in drawn[:MOST_DOSES]]
    return Shown(
        name="format",
        title="Content or format",
        said=typeset(
            "A control adapter learnt the format of a source and nothing else. What is left of a gain "
            f"without it is content: beyond noise in {len(content)} of {counted(len(some), 'gain')}, "
            f"format only in {len(only)}, and of the rest it cannot be told."
            + ("" if len(drawn) == len(some) else " Drawn are targets in points; the table has all.")
        ),
        svg=row_chart(
            lines,
            key="format",
            title="Gains less what their format alone gives",
            description=f"{counted(len(lines), 'gain')} split into format and rest. The same numbers stand "
            "in the table.",
            heads=("gain", "format", "rest", "verdict"),
            axis=f"gain less the format's, in {'points' if factor == 100 else 'the unit of the score'}",
            width=1040,
        ),
        table=_format_table(some),
        distrust="It is the named control's format: one that teaches other words would give other parts.",
        key=(
            ("dot-solid", "content beyond noise"),
            ("dot-open", "not"),
            ("tick", "what the format alone gives"),
        ),
        wide=True,
    )


def _format_line(one: FormatPart, factor: float) -> Line:
    digits = 1 if factor == 100 else 2
    return Line(
        label=f"{clean(one.source)} → {clean(one.target)}",
        value=factor * one.rest.value,
        low=factor * one.rest.low,
        high=factor * one.rest.high,
        tick=factor * one.format.value,
        texts=(
            *(
                _dose_figures_amount(_times(part, factor), digits)
                for part in (one.gain, one.format, one.rest)
            ),
            one.verdict,
        ),
        tone="neutral" if one.verdict != "cannot tell" else "quiet",
        solid=one.verdict == "content",
    )


def _format_table(some: Sequence[FormatPart]) -> TextTable:
    return TextTable(
        caption="Gain, the format's part, and the rest, in the score's own unit, with 95 % intervals; q "
        "of no rest.",
        heads=("pair", "control", "gain", "format", "rest", "q", "verdict"),
        rows=tuple(
            (
                f"{clean(one.source)} → {clean(one.target)}",
                (
                    Entry(clean(one.control)),
                    *(
                        Entry(typeset(_dose_figures_amount(part, 3)))
                        for part in (one.gain, one.format, one.rest)
                    ),
                    Entry(probability(one.q)),
                    Entry(one.verdict),
                ),
            )
            for one in some
        ),
    )


def _times(one: Interval, factor: float) -> Interval:
    """In another unit."""
    return Interval(factor * one.value, factor * one.low, factor * one.high, one.reason)


def _dose_figures_amount(one: Interval, digits: int) -> str:
    if not one.known:
        return "unknown"
    ends = interval(one.low, one.high, digits)
    return signed(one.value, digits) + ("" if ends == UNKNOWN else f" {ends}")


def why_part(
    matrix: TransferMatrix, profile: Profile | None, explanation: Explanation | None, missing: str = ""
) -> dict[str, Any]:
    """What ``why.html`` shows (key ``why``; None: no section), and cards for the headline (``findings``).

    missing: why there is no explanation, in a sentence.
    """
    if profile is None and explanation is None and not missing:
        return {"why": None, "findings": ()}
    groups = why_groups(matrix, profile, explanation)
    return {
        "why": {
            "groups": groups,
            "missing": missing,
            "odd": explanation_figures.odd_reasons(explanation) if explanation else (),
            "words": tuple(typeset(clean(said)) for said in explanation.words) if explanation else (),
            "warnings": explanation.warnings if explanation else (),
            "notes": profile.all_notes() if profile else (),
            "relations": bool(profile and profile.relations),
        },
        "findings": (_card(explanation),) if explanation and explanation.joint else (),
    }


def _card(found: Explanation) -> Finding:
    """The headline's card: what goes with gains once everything else is held constant."""
    told = [clean(one.name).replace("_", " ") for one in found.joint if one.verdict == "yes"]
    shares = [
        f"{group.group} properties explain {share(group.share)} (chance {share(group.null_mean)})"
        for group in found.dominance.groups
    ]
    words = f"Of the variance between {counted(found.pairs, 'pair')}, {listed(shares)}; "
    words += f"{share(found.dominance.unexplained)} is unexplained."
    return Finding(
        heading="Why",
        big=listed(told) if told else "nothing that can be told",
        words=("" if not told else f"{'Goes' if len(told) == 1 else 'Go'} with how much a pair gains. ")
        + words,
        wordy=True,
        link="why",
    )


def why_groups(
    matrix: TransferMatrix, profile: Profile | None, explanation: Explanation | None
) -> tuple[FigureGroup, ...]:
    """The figures of the section under their headings."""
    points = {target.name for target in read(matrix).targets if target.unit == "points"}
    groups = []
    if explanation is not None:
        groups.append(
            FigureGroup(
                "Between pairs of tasks",
                "What is known of a source and a target before anything is trained, held against the gains.",
                _there(
                    explanation_figures.effects(explanation),
                    explanation_figures.shares(explanation),
                    explanation_figures.odd_cells(explanation),
                    explanation_figures.asymmetry(explanation),
                    explanation_figures.strengths(explanation, "donors"),
                    explanation_figures.strengths(explanation, "recipients"),
                    levels(explanation),
                ),
            )
        )
        groups.append(
            FigureGroup(
                "Changed sources",
                "Copies of a source in which one thing was changed: what differs between their adapters, "
                "that change has done.",
                _there(
                    dose_response(explanation.families),
                    answered_dose(explanation.families),
                    format_parts(explanation.families, points),
                ),
            )
        )
    if profile is not None:
        groups.append(
            FigureGroup(
                "The datasets themselves",
                "What the texts look like, whatever was trained on them.",
                _there(
                    profile_figures.output_lengths(profile),
                    profile_figures.label_lengths(profile),
                    profile_figures.class_shares(profile),
                    profile_figures.style(profile),
                    profile_figures.meaning(profile),
                    relation_figures.relations(profile),
                    relation_figures.relation_effects(profile),
                ),
            )
        )
    return tuple(group for group in groups if group.figures)


def _there(*figures: Shown | None) -> tuple[Shown, ...]:
    found: Iterable[Shown] = (figure for figure in figures if figure is not None)
    return tuple(found)
