"""Properties of sources or targets alone, held against how much these give or gain, as a figure."""

from __future__ import annotations

from math import isfinite, nan

from traitmap.analysis.explanation.records import Explanation, LevelEffect
from traitmap.analysis.interval import Interval
from traitmap.report.alternative import Entry, TextTable
from traitmap.report.row_chart import Line, row_chart
from traitmap.report.shown import Shown
from traitmap.report.svg import clean
from traitmap.report.wording import (
    UNKNOWN,
    counted,
    interval,
    listed,
    plain,
    probability,
    sentence,
    signed,
    typeset,
)

MOST = 16


def levels(found: Explanation) -> Shown | None:
    """Correlations of properties with donor and recipient strengths, the clearest first."""
    some = sorted(
        (one for one in found.levels if one.r.known), key=lambda one: (_last(one.q), _last(one.p), one.name)
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
