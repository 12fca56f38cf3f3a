"""Which source for which target, as figures: what picks gave, ranked sources, predicted against measured.

The section of the page on which source to train on.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, nan
from typing import TYPE_CHECKING, Any

from traitmap.analysis.recommendation.held_out import POINTS, HeldOut, judgeable
from traitmap.analysis.recommendation.records import Advice, Recommendation
from traitmap.matrix.statistics import Interval
from traitmap.report.alternative import Entry, TextTable
from traitmap.report.plane_charts import Guess, against
from traitmap.report.records import Finding, Shown
from traitmap.report.row_charts import Line, row_chart
from traitmap.wording import UNKNOWN, clean, counted, interval, plain, share, signed, typeset

if TYPE_CHECKING:
    from traitmap.matrix.record import TransferMatrix


MOST_SOURCES = 6
_PICKS = (
    ("model", "the recommender's first"),
    ("popularity", "popularity's first"),
    ("random", "any source"),
)


def picks(found: HeldOut) -> Shown | None:
    """What the first pick gave on each target, beside popularity's, the best there was, and the average."""
    some = [recommendation for recommendation in found.recommendations if judgeable(recommendation)]
    if not some:
        return None
    unit = POINTS if any(one.unit == POINTS for one in some) else sorted(one.unit for one in some)[0]
    ordered = sorted(some, key=lambda one: (one.unit != unit, one.unit, -one.measured["best"]))
    drawn = [one for one in ordered if one.unit == unit]
    return Shown(
        name="recommendation",
        title="What following the recommendation gives",
        said=typeset(_picks_said(some, len(some) - len(drawn))),
        svg=row_chart(
            [_pick_line(one) for one in drawn],
            key="recommendation",
            title="Measured gain of the first picks",
            description=f"{counted(len(drawn), 'target')} with the measured gain of the recommender's first "
            "source, of popularity's, of the average source and of the best. The same numbers stand in "
            "the table.",
            heads=("first pick", "gain", "verdict"),
            axis=f"measured gain in {clean(unit)}",
            width=1040,
        ),
        table=_picks_table(ordered),
        distrust=(
            "A pick is judged by one measured cell, noisy as it is, and the best of many noisy cells is "
            "flattered. The target's own training set is never ranked."
        ),
        key=(
            ("dot-solid", "the recommender's first, with its 95 % interval"),
            ("diamond", "popularity's first"),
            ("tick", "average source"),
            ("dot-open", "best there was"),
        ),
        wide=True,
    )


def _picks_said(some: Sequence[Recommendation], elsewhere: int) -> str:
    """How often the first pick was better than popularity's. elsewhere: targets that are not drawn."""
    apart = [one.measured["first"] - one.measured["first_of_popularity"] for one in some]
    said = (
        "Each target was hidden, its sources were ranked from all others, and then the first pick was "
        f"held against what had been measured. Of {counted(len(some), 'target')}, it did better than "
        f"popularity's pick on {sum(one > 0 for one in apart)}, worse on {sum(one < 0 for one in apart)}, "
        f"and gave the same on {sum(one == 0 for one in apart)}."
    )
    unsure = sum(one.verdict == "inconclusive" for one in some)
    if unsure:
        said += f" On {'all of them' if unsure == len(some) else unsure} it said itself that it cannot tell."
    if elsewhere:
        said += f" {counted(elsewhere, 'target')} in other units stand in the table only."
    return said


def _picks_table(ordered: Sequence[Recommendation]) -> TextTable:
    return TextTable(
        caption="Measured gain of the first pick, of popularity's, of the average source and of the "
        "best one.",
        heads=(
            "target",
            "unit",
            "first pick",
            "gave",
            "popularity's pick",
            "gave",
            "average",
            "best",
            "verdict",
        ),
        rows=tuple(
            (
                clean(one.target),
                (
                    Entry(clean(one.unit)),
                    Entry(clean(one.ranked[0].source)),
                    Entry(typeset(signed(one.measured["first"]))),
                    Entry(clean(one.popular[0])),
                    *(
                        Entry(typeset(signed(one.measured[name])))
                        for name in ("first_of_popularity", "random", "best")
                    ),
                    Entry(one.verdict_words),
                ),
            )
            for one in ordered
        ),
    )


def _pick_line(one: Recommendation) -> Line:
    first = one.ranked[0]
    return Line(
        label=clean(one.target),
        value=one.measured["first"],
        low=first.measured.low,
        high=first.measured.high,
        tick=one.measured["random"],
        open=one.measured["best"],
        diamond=one.measured["first_of_popularity"],
        texts=(clean(first.source), signed(one.measured["first"]), one.verdict_words),
        solid=True,
    )


def regret(found: HeldOut) -> Shown | None:
    """Points that the first pick gives away against the best, for the model, popularity and chance."""
    if not found.targets:
        return None
    lines = [_lost_line(name, words, found) for name, words in _PICKS]
    saved = found.saved
    sure = isfinite(saved.low) and (saved.low > 0 or saved.high < 0)
    said = f"Over {counted(found.targets, 'target')}, the first pick gives away "
    said += f"{_amount(found.lost['model'])} points against the best source that there was, "
    said += f"popularity's {_amount(found.lost['popularity'])}. "
    if sure:
        said += f"That is {'less' if saved.value > 0 else 'more'} by {_amount(saved)}."
    else:
        said += (
            f"The difference of {_amount(saved)} cannot be told from none: here the recommender is no better "
        )
        said += "than popularity as far as anyone can tell."
    return Shown(
        name="regret",
        title="What a wrong pick costs",
        said=typeset(said),
        svg=row_chart(
            lines,
            key="regret",
            title="Points given away by the first pick",
            description="Mean regret over targets with 95 % interval. The same numbers stand in the table.",
            heads=("points lost",),
            axis="points below the best source, mean over targets",
            width=530,
        ),
        table=TextTable(
            caption="Means over targets with 95 % bootstrap intervals over targets.",
            heads=("", "value"),
            rows=(
                *(
                    (f"lost by {words}", (Entry(typeset(_amount(found.lost[name]))),))
                    for name, words in _PICKS
                ),
                ("popularity's loss less the recommender's", (Entry(typeset(_amount(saved))),)),
                ("rank correlation with what was measured", (Entry(typeset(_amount(found.rank, 2))),)),
                (
                    "measured gains within their 90 % interval, per cent",
                    (Entry(typeset(_amount(found.covered))),),
                ),
            ),
        ),
        distrust="Targets of one kind (five review tasks, say) count five times, and make it look easy.",
        key=(("dot-solid", "mean over targets, 95 % interval"),),
        tag="" if sure else "cannot tell",
    )


def _lost_line(name: str, words: str, found: HeldOut) -> Line:
    one = found.lost[name]
    return Line(
        label=words,
        value=one.value,
        low=one.low,
        high=one.high,
        texts=(_amount(one),),
        tone="neutral" if name == "model" else "quiet",
        solid=True,
    )


def predicted(found: HeldOut) -> Shown | None:
    """Measured against predicted gains of all hidden pairs that are in points."""
    guesses = [
        Guess(
            name=typeset(
                f"{clean(advice.source)} → {clean(recommendation.target)}: predicted {_amount(advice.gain)}, "
                f"measured {_amount(advice.measured)}"
            ),
            predicted=advice.gain.value,
            low=advice.gain.low,
            high=advice.gain.high,
            measured=advice.measured.value,
        )
        for recommendation in found.recommendations
        if recommendation.unit == POINTS
        for advice in recommendation.ranked
        if advice.gain.known and advice.measured.known
    ]
    if len(guesses) < 3:
        return None
    sure = isfinite(found.rank.low) and found.rank.low > 0
    return Shown(
        name="predicted",
        title="Predicted against measured",
        said=typeset(_predicted_said(found, len(guesses), sure)),
        svg=against(
            guesses,
            key="predicted",
            title="Measured against predicted gains",
            description=f"{counted(len(guesses), 'pair')} with 90 % intervals of prediction. The same "
            "numbers stand in the table.",
            axes=("predicted gain in points", "measured gain in points"),
        ),
        table=_predicted_table(found),
        distrust=(
            "A cloud that stands upright means that predictions shrink to the mean: the order may still "
            "be right. Many orange dots mean that the intervals promise too much."
        ),
        key=(
            ("held", "within its 90 % interval"),
            ("missed", "outside"),
            ("diagonal", "predicted is measured"),
        ),
        tag="" if sure else "cannot tell",
    )


def _predicted_said(found: HeldOut, count: int, sure: bool) -> str:
    """How well predictions agree with what was measured. sure: whether the order does beyond noise."""
    rank, covered = found.rank, found.covered
    said = f"{counted(count, 'pair')}, each predicted while its target was hidden. "
    said += f"Within a target, predicted and measured order agree with r = {_amount(rank, 2)}"
    said += "" if sure else ", which cannot be told from no agreement"
    said += f"; {_amount(covered, 0, sign=False)} % of measured gains lie within their 90 % interval."
    return said


def _predicted_table(found: HeldOut) -> TextTable:
    return TextTable(
        caption="Gains in points: predicted with 90 % interval while the target was hidden; measured "
        "with 95 %.",
        heads=("pair", "predicted", "measured", "by popularity"),
        rows=tuple(
            (
                f"{clean(advice.source)} → {clean(recommendation.target)}",
                (
                    Entry(typeset(_amount(advice.gain))),
                    Entry(typeset(_amount(advice.measured))),
                    Entry(typeset(signed(advice.popularity))),
                ),
            )
            for recommendation in found.recommendations
            if recommendation.unit == POINTS
            for advice in recommendation.ranked
            if advice.gain.known and advice.measured.known
        ),
    )


def rankings(found: HeldOut) -> tuple[Shown, ...]:
    """The first sources for each target, on one axis for all targets of a unit."""
    shown = []
    ends = {unit: _ends([o for o in found.recommendations if o.unit == unit]) for unit in _units(found)}
    for at, one in enumerate(found.recommendations):
        shown.append(_ranking(one, at + 1, ends[one.unit]))
    return tuple(shown)


def _units(found: HeldOut) -> list[str]:
    return sorted({recommendation.unit for recommendation in found.recommendations})


def _ends(some: Sequence[Recommendation]) -> tuple[float, float]:
    """An axis that holds nine in ten of all marks of these targets."""
    marks = sorted(
        value
        for one in some
        for advice in one.ranked[:MOST_SOURCES]
        for value in (advice.gain.low, advice.gain.high, advice.measured.value, advice.popularity)
        if isfinite(value)
    )
    if not marks:
        return -1.0, 1.0
    low, high = marks[int(0.05 * (len(marks) - 1))], marks[int(0.95 * (len(marks) - 1))]
    room = 0.1 * max(high - low, 1e-9)
    return min(low, 0.0) - room, max(high, 0.0) + room


def _ranking(one: Recommendation, number: int, ends: tuple[float, float]) -> Shown:
    aside = [f"{clean(other.source)} ({clean(other.words)})" for other in one.set_aside]
    said = clean(one.words)
    if aside:
        said += f" Not ranked: {'; '.join(aside[:3])}."
    return Shown(
        name=f"recommendation-{number}",
        title=clean(one.target),
        said=typeset(said),
        svg=row_chart(
            [_advice_line(advice) for advice in one.ranked[:MOST_SOURCES]],
            key=f"recommendation-{number}",
            title=f"Sources for {clean(one.target)}",
            description=f"The first {min(MOST_SOURCES, len(one.ranked))} of "
            f"{counted(len(one.ranked), 'source')} with predicted gain, 90 % interval, popularity and "
            "what was measured. The same numbers stand in the table.",
            heads=("predicted", "measured"),
            width=500,
            ends=ends,
        ),
        table=TextTable(
            caption=(
                f"In {clean(one.unit)}: predicted with 90 % interval while the target was hidden, what "
                "popularity predicts, probability of harm and of being the best, and what was measured "
                "(95 %)."
            ),
            heads=("source", "predicted", "by popularity", "harm", "is best", "measured", "why"),
            rows=tuple(
                (
                    clean(advice.source),
                    (
                        Entry(typeset(_amount(advice.gain))),
                        Entry(typeset(signed(advice.popularity))),
                        Entry(share(advice.harm)),
                        Entry(share(advice.best)),
                        Entry(typeset(_amount(advice.measured))),
                        Entry(typeset(_why(advice) if place < MOST_SOURCES else "")),
                    ),
                )
                for place, advice in enumerate(one.ranked)
            ),
        ),
        tag=one.verdict_words,
        faint=one.verdict == "inconclusive",
    )


def _why(one: Advice) -> str:
    """The two strongest reasons."""
    return "; ".join(clean(reason.words) for reason in one.reasons[:2])


def _advice_line(one: Advice) -> Line:
    known = isfinite(one.gain.low) and isfinite(one.gain.high)
    solid = known and (one.gain.low > 0 or one.gain.high < 0)
    return Line(
        label=clean(one.source),
        value=one.gain.value,
        low=one.gain.low,
        high=one.gain.high,
        tick=one.popularity,
        diamond=one.measured.value if one.measured.known else nan,
        texts=(signed(one.gain.value), signed(one.measured.value) if one.measured.known else UNKNOWN),
        solid=solid,
    )


def _amount(one: Interval, digits: int = 1, *, sign: bool = True) -> str:
    if not one.known:
        return "unknown"
    if not sign:
        known = isfinite(one.low) and isfinite(one.high)
        ends = f" [{plain(one.low, digits)}, {plain(one.high, digits)}]" if known else ""
        return plain(one.value, digits) + ends
    ends = interval(one.low, one.high, digits)
    return signed(one.value, digits) + ("" if ends == UNKNOWN else f" {ends}")


def which_part(
    matrix: TransferMatrix, recommendation: object | None, evaluation: HeldOut | None, missing: str = ""
) -> dict[str, Any]:
    """What ``which.html`` shows (key ``which``; None: no section), and cards for the headline (``findings``).

    evaluation: what would have been recommended for each target, and what came of it. missing: why there is
    none, in a sentence.
    """
    if evaluation is None and not missing:
        return {"which": None, "findings": ()}
    told: dict[str, Any] = {"missing": missing, "figures": (), "rankings": (), "impossible": (), "unsure": ""}
    if evaluation is not None:
        told |= {
            "figures": which_figures(evaluation),
            "rankings": rankings(evaluation),
            "impossible": tuple((clean(name), clean(why)) for name, why in evaluation.impossible.items()),
            "unsure": _unsure(evaluation),
        }
    return {"which": told, "findings": (_card(evaluation),) if evaluation and evaluation.targets > 1 else ()}


def which_figures(evaluation: HeldOut) -> tuple[Shown, ...]:
    """The figures over all targets."""
    found = (
        picks(evaluation),
        regret(evaluation),
        predicted(evaluation),
    )
    return tuple(one for one in found if one is not None)


def _unsure(found: HeldOut) -> str:
    """Targets by verdict, in a sentence."""
    unsure = [
        clean(recommendation.target)
        for recommendation in found.recommendations
        if recommendation.verdict == "inconclusive"
    ]
    count = len(found.recommendations)
    if not unsure:
        return ""
    if len(unsure) == count:
        return f"On none of {counted(count, 'target')} can the best three sources be told apart."
    return f"On {len(unsure)} of {counted(count, 'target')} the best three sources are within noise."


def _card(found: HeldOut) -> Finding:
    """The headline's card: whether the recommender beats popularity here."""
    saved = found.saved
    ends = interval(saved.low, saved.high)
    sure = saved.low > 0 or saved.high < 0
    words = (
        f"The recommender's first picks give {signed(saved.value)} points {ends} against those of "
        f"popularity, over {counted(found.targets, 'hidden target')}."
    )
    return Finding(
        heading="Which source",
        big=("better than popularity" if saved.value > 0 else "worse than popularity")
        if sure
        else "no better than popularity, as far as can be told",
        words=typeset(words),
        wordy=True,
        link="which",
    )
