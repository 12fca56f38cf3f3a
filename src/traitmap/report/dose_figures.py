"""What controlled changes of a source do, as figures: curves over doses, and gains less their format."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from traitmap.analysis.explanation.answered import AnsweredCurve
from traitmap.analysis.explanation.contrast import FormatPart
from traitmap.analysis.explanation.dose import DoseResponse
from traitmap.analysis.explanation.families import Families
from traitmap.analysis.interval import Interval
from traitmap.report.alternative import Entry, TextTable
from traitmap.report.curves import Curve, curves
from traitmap.report.row_chart import Line, row_chart
from traitmap.report.shown import Shown
from traitmap.report.svg import clean
from traitmap.report.wording import UNKNOWN, counted, interval, plain, probability, related, signed, typeset

LEVEL = 0.05
MOST = 12


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
        for one in some[:MOST]
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
        _table([(f"{clean(o.parent)} → {clean(o.target)}", clean(o.meaning), o.response, o.q) for o in some]),
    )


def answered_dose(found: Families) -> Shown | None:
    """Shares of answers, lengths and stopping over doses, the clearest first."""
    some = sorted(found.answered, key=lambda one: (one.response.p, one.target, one.measure))
    if not some:
        return None
    told = [one for one in some if one.q < LEVEL]
    panels = [
        _panel(_measure(one), one.response.dose, one.response, one.q, one.q < LEVEL) for one in some[:MOST]
    ]
    return _curves_shown(
        "answered-dose",
        "Dose and answers",
        "What the same changes do to the answers themselves: classes, lengths, format.",
        panels,
        len(told),
        len(some),
        min(one.response.seeds for one in some),
        _table([(_measure(one), clean(one.response.dose), one.response, one.q) for one in some]),
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
        values=tuple(one.value for one in response.effects),
        low=_within([one.low for one in response.effects], response),
        high=_within([one.high for one in response.effects], response),
        tone="neutral" if told else "quiet",
    )


def _within(ends: Sequence[float], response: DoseResponse) -> tuple[float, ...]:
    """Ends of the intervals, cut where they lie more than five times the curve's own range away from it."""
    values = [one.value for one in response.effects if one.known]
    if not values:
        return tuple(ends)
    room = 5 * max(max(values) - min(values), 1e-9)
    low, high = min(values) - room, max(values) + room
    return tuple(min(max(end, low), high) if end == end else end for end in ends)


def _table(some: Sequence[tuple[str, str, DoseResponse, float]]) -> TextTable:
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
                    Entry(typeset(_amount(response.change, 3))),
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
    lines = [_format_line(one, factor) for one in drawn[:MOST]]
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
            *(_amount(_times(part, factor), digits) for part in (one.gain, one.format, one.rest)),
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
                    *(Entry(typeset(_amount(part, 3))) for part in (one.gain, one.format, one.rest)),
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


def _amount(one: Interval, digits: int) -> str:
    if not one.known:
        return "unknown"
    ends = interval(one.low, one.high, digits)
    return signed(one.value, digits) + ("" if ends == UNKNOWN else f" {ends}")
