"""The section of the page on which source to train on: what picks gave, rankings, predicted against measured.

Every target was hidden in turn and its sources were ranked from all others; the figures hold what was
recommended against what had been measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, nan
from typing import Any

from traitmap.analysis.recommendation.held_out import POINTS, HeldOut, judgeable
from traitmap.analysis.recommendation.records import Recommendation
from traitmap.analysis.tables import ranking_table
from traitmap.matrix.statistics import Interval
from traitmap.report.plane_charts import against
from traitmap.report.records import Shown
from traitmap.report.row_charts import ChartRow, row_chart
from traitmap.table import Table
from traitmap.wording import UNKNOWN, clean, counted, estimate, plain, sentence, signed, typeset

MOST_SOURCES = 6
_PICKS = (
    ("model", "the recommender's first"),
    ("popularity", "popularity's first"),
    ("random", "any source"),
)


def picks(evaluation: HeldOut) -> Shown | None:
    """What the first pick gave on each target, beside popularity's, the best there was, and the average.

    None where no target has a measured pick. Drawn are targets in points, or of the first unit; the table
    has all.
    """
    judged = [one for one in evaluation.recommendations if judgeable(one)]
    if not judged:
        return None
    unit = POINTS if any(one.unit == POINTS for one in judged) else min(one.unit for one in judged)
    ordered = sorted(judged, key=lambda one: (one.unit != unit, one.unit, -one.measured["best"]))
    drawn = [one for one in ordered if one.unit == unit]
    sure = any(one.verdict != "inconclusive" for one in drawn)

    def verdict(one: Recommendation) -> tuple[str, ...]:  # a column of nothing but "cannot tell" is none
        return (one.verdict_words,) if sure else ()

    return Shown(
        name="recommendation",
        title="What following the recommendation gives",
        description=_picks_description(judged, len(judged) - len(drawn)),
        chart=row_chart(
            [
                ChartRow(
                    clean(one.target),
                    value=one.measured["first"],
                    low=one.ranked[0].measured.low,
                    high=one.ranked[0].measured.high,
                    tick=one.measured["random"],
                    open=one.measured["best"],
                    diamond=one.measured["first_of_popularity"],
                    texts=(clean(one.ranked[0].source), signed(one.measured["first"]), *verdict(one)),
                    solid=True,
                )
                for one in drawn
            ],
            "Measured gain of the first picks",
            f"{counted(len(drawn), 'target')} with the measured gain of the recommender's first source, of "
            "popularity's, of the average source and of the best.",
            heads=("first pick", "gain", *(["verdict"] if sure else [])),
            axis=f"measured gain in {clean(unit)}",
        ),
        table=picks_table(ordered),
        caveat=(
            "A pick is judged by one measured cell, noisy as it is, and the best of many noisy cells is "
            "flattered. The target's own training set is never ranked."
        ),
        decisive=True,
        key=(
            ("dot-solid", "the recommender's first, with its 95 % interval"),
            ("diamond", "popularity's first"),
            ("tick", "average source"),
            ("dot-open", "best there was"),
        ),
        wide=True,
    )


def picks_table(recommendations: Sequence[Recommendation]) -> Table:
    """What the first pick gave on each target, beside popularity's, the average source and the best.

    recommendations: with measurements, in the order of the rows; gains are in the unit of each.
    """
    return Table(
        "Measured gain of the first pick, of popularity's, of the average source and of the best one.",
        (
            *("target", "unit", "first pick", "gave", "popularity's pick", "gave"),
            *("average", "best", "verdict"),
        ),
        [
            (
                one.target,
                one.unit,
                one.ranked[0].source,
                signed(one.measured["first"]),
                one.popular[0],
                *(signed(one.measured[name]) for name in ("first_of_popularity", "random", "best")),
                one.verdict_words,
            )
            for one in recommendations
        ],
    )


def _picks_description(judged: Sequence[Recommendation], elsewhere: int) -> str:
    """How often the first pick was better than popularity's. elsewhere: targets that are not drawn."""
    apart = [one.measured["first"] - one.measured["first_of_popularity"] for one in judged]
    better, worse, same = (
        sum(gain > 0 for gain in apart),
        sum(gain < 0 for gain in apart),
        sum(gain == 0 for gain in apart),
    )
    text = (
        "Each target was hidden with its own training set, and sources were ranked from all others. Of "
        f"{counted(len(judged), 'target')}, the first pick did better than popularity's on {better}, worse "
        f"on {worse}, and gave the same on {same}."
    )
    unsure = sum(one.verdict == "inconclusive" for one in judged)
    if unsure:
        text += (
            f" On {'all of them' if unsure == len(judged) else unsure} it said itself that it cannot tell."
        )
    if elsewhere:
        text += f" {counted(elsewhere, 'target')} in other units stand in the table only."
    return text


def regret(evaluation: HeldOut) -> Shown | None:
    """Points that the first pick gives away against the best, for the model, popularity and chance.

    None where no target is measured in points. Intervals are bootstrap ones over targets.
    """
    if not evaluation.targets:
        return None
    lost, saved = evaluation.lost, evaluation.saved
    text = f"Over {counted(evaluation.targets, 'target')}, the first pick gives away "
    text += f"{estimate(lost['model'])} points against the best source that there was, "
    text += f"popularity's {estimate(lost['popularity'])}. "
    if saved.clear:
        text += f"That is {'less' if saved.value > 0 else 'more'} by {estimate(saved)}."
    else:
        text += f"{sentence(_saved_in_words(saved)).rstrip('.')} cannot be told from none."
    return Shown(
        name="regret",
        title="What a wrong pick costs",
        description=text,
        chart=row_chart(
            [
                ChartRow(
                    words,
                    lost[name].value,
                    lost[name].low,
                    lost[name].high,
                    texts=(estimate(lost[name]),),
                    tone="neutral" if name == "model" else "quiet",
                    solid=True,
                )
                for name, words in _PICKS
            ],
            "Points given away by the first pick",
            "Mean regret over targets with 95 % interval.",
            heads=("points lost",),
            axis="points below the best source, mean over targets",
        ),
        table=Table(
            "Means over targets with 95 % bootstrap intervals over targets.",
            ("", "value"),
            [
                *((f"lost by {words}", estimate(lost[name])) for name, words in _PICKS),
                ("popularity's loss less the recommender's", estimate(saved)),
                ("rank correlation with what was measured", estimate(evaluation.rank, 2)),
                ("measured gains within their 90 % interval, per cent", estimate(evaluation.covered)),
            ],
        ),
        caveat="Targets of one kind (five review tasks, say) count five times, and make it look easy.",
        key=(("dot-solid", "mean over targets, 95 % interval"),),
        nothing="" if saved.clear else f"{_saved_in_words(saved)} cannot be told from none",
    )


def _saved_in_words(saved: Interval) -> str:
    return f"the difference of {estimate(saved)} points to popularity"


def predicted(evaluation: HeldOut) -> Shown | None:
    """Measured against predicted gains of all hidden pairs that are in points.

    None where fewer than three pairs are known.
    """
    pairs = [
        (f"{clean(advice.source)} → {clean(recommendation.target)}", advice)
        for recommendation in evaluation.recommendations
        if recommendation.unit == POINTS
        for advice in recommendation.ranked
        if advice.gain.known and advice.measured.known
    ]
    if len(pairs) < 3:
        return None
    rank, covered = evaluation.rank, evaluation.covered
    agrees = isfinite(rank.low) and rank.low > 0
    text = f"{counted(len(pairs), 'pair')}, each predicted while its target was hidden. "
    text += f"Within a target, predicted and measured order agree with r = {estimate(rank, 2)}"
    text += "" if agrees else ", which cannot be told from no agreement"
    text += f"; {_covered(covered)} % of measured gains lie within their 90 % interval."
    return Shown(
        name="predicted",
        title="Predicted against measured",
        description=text,
        chart=against(
            [
                (
                    typeset(
                        f"{name}: predicted {estimate(advice.gain)}, measured {estimate(advice.measured)}"
                    ),
                    advice.gain,
                    advice.measured.value,
                )
                for name, advice in pairs
            ],
            "Measured against predicted gains",
            f"{counted(len(pairs), 'pair')} with 90 % intervals of prediction.",
            axes=("predicted gain in points", "measured gain in points"),
        ),
        table=Table(
            "Gains in points: predicted with 90 % interval while the target was hidden; measured with 95 %.",
            ("pair", "predicted", "measured", "by popularity"),
            [
                (name, estimate(advice.gain), estimate(advice.measured), signed(advice.popularity))
                for name, advice in pairs
            ],
        ),
        caveat=(
            "A cloud that stands upright means that predictions shrink to the mean: the order may still be "
            "right. Many dots outside mean that the intervals promise too much."
        ),
        decisive=True,
        key=(
            ("held", "within its 90 % interval"),
            ("missed", "outside"),
            ("diagonal", "predicted is measured"),
        ),
        tag="" if agrees else "cannot tell",
        aside=True,
        wide=True,
    )


def _covered(result: Interval) -> str:
    """A percentage without a sign: ``90 [85, 95]``."""
    if not result.known:
        return "unknown"
    known = isfinite(result.low) and isfinite(result.high)
    return plain(result.value, 0) + (f" [{plain(result.low, 0)}, {plain(result.high, 0)}]" if known else "")


def rankings(evaluation: HeldOut) -> tuple[Shown, ...]:
    """The first sources for each target, on one axis for all targets of a unit.

    One figure for each target, named ``recommendation-1`` and so on, in the order of the targets.
    """
    units = {one.unit for one in evaluation.recommendations}
    ends = {unit: _ends([one for one in evaluation.recommendations if one.unit == unit]) for unit in units}
    return tuple(
        _ranking(one, number, ends[one.unit])
        for number, one in enumerate(evaluation.recommendations, start=1)
    )


def _ends(recommendations: Sequence[Recommendation]) -> tuple[float, float]:
    """An axis that holds nine in ten of all marks of these targets."""
    marks = sorted(
        value
        for recommendation in recommendations
        for advice in recommendation.ranked[:MOST_SOURCES]
        for value in (advice.gain.low, advice.gain.high, advice.measured.value, advice.popularity)
        if isfinite(value)
    )
    if not marks:
        return -1.0, 1.0
    low, high = marks[int(0.05 * (len(marks) - 1))], marks[int(0.95 * (len(marks) - 1))]
    room = 0.1 * max(high - low, 1e-9)
    return min(low, 0.0) - room, max(high, 0.0) + room


def _ranking(recommendation: Recommendation, number: int, ends: tuple[float, float]) -> Shown:
    """One target's card. ends: of the axis."""
    ranked, target = recommendation.ranked, clean(recommendation.target)
    aside = [f"{clean(other.source)} ({clean(other.words)})" for other in recommendation.set_aside]
    return Shown(
        name=f"recommendation-{number}",
        title=target,
        description=clean(recommendation.words) + (f" Not ranked: {'; '.join(aside[:3])}." if aside else ""),
        chart=row_chart(
            [
                ChartRow(
                    clean(advice.source),
                    advice.gain.value,
                    advice.gain.low,
                    advice.gain.high,
                    tick=advice.popularity,
                    diamond=advice.measured.value if advice.measured.known else nan,
                    texts=(
                        signed(advice.gain.value),
                        signed(advice.measured.value) if advice.measured.known else UNKNOWN,
                    ),
                    solid=advice.gain.clear,
                )
                for advice in ranked[:MOST_SOURCES]
            ],
            f"Sources for {target}",
            f"The first {min(MOST_SOURCES, len(ranked))} of {counted(len(ranked), 'source')} with predicted "
            "gain, 90 % interval, popularity and what was measured.",
            heads=("predicted", "measured"),
            axis=f"gain in {clean(recommendation.unit)}",
            ends=ends,
        ),
        table=ranking_table(recommendation, reasons=MOST_SOURCES),
        tag=recommendation.verdict_words,
        aside=True,
        nothing="the best three are within noise" if recommendation.verdict == "inconclusive" else "",
        key=(
            ("dot-solid", "predicted, its 90 % interval excludes zero"),
            ("dot-open", "includes zero"),
            ("tick", "by popularity"),
            ("diamond", "measured"),
        ),
    )


def which_part(evaluation: HeldOut | None, missing: str = "") -> dict[str, Any]:
    """What ``which.html`` shows (key ``which``; None: no section).

    evaluation: what would have been recommended for each target, and what came of it. missing: why there is
    none, in a sentence.
    """
    if evaluation is None:
        section = {"missing": missing, "figures": (), "rankings": (), "impossible": (), "unsure": ""}
        return {"which": section if missing else None}
    unsure = [one.target for one in evaluation.recommendations if one.verdict == "inconclusive"]
    count = counted(len(evaluation.recommendations), "target")
    if len(unsure) == len(evaluation.recommendations):
        doubt = f"On none of {count} can the best three sources be told apart."
    else:
        doubt = f"On {len(unsure)} of {count} the best three sources are within noise."
    return {
        "which": {
            "missing": missing,
            "figures": which_figures(evaluation),
            "rankings": rankings(evaluation),
            "impossible": tuple((clean(name), clean(why)) for name, why in evaluation.impossible.items()),
            "unsure": doubt if unsure else "",
        }
    }


def which_figures(evaluation: HeldOut) -> tuple[Shown, ...]:
    """The figures over all targets."""
    figures = picks(evaluation), regret(evaluation), predicted(evaluation)
    return tuple(figure for figure in figures if figure is not None)
