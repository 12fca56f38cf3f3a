"""A recommendation as a small table for notebooks."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

from traitmap.notebook import Entry, Rows, between, number, page

if TYPE_CHECKING:
    from traitmap.analysis.recommendation.advice import Recommendation


def advice_html(advice: Recommendation) -> str:
    """Sources in order with predicted gain, popularity, risk of harm and, where known, the measured gain."""
    deepest = max([*(abs(one.gain.value) for one in advice.ranked if one.gain.known), 1e-9])
    measured = any(one.measured.known for one in advice.ranked)
    heads = [
        "predicted gain",
        "90 %",
        "popularity",
        "harm",
        "best",
        *(["measured, 95 %"] if measured else []),
    ]
    rows = []
    for place, one in enumerate(advice.ranked, start=1):
        reasons = "; ".join(reason.words for reason in one.reasons)
        entries = [
            Entry(
                number(one.gain.value, sign=True),
                one.gain.value / deepest if one.gain.known else 0,
                title=reasons,
            ),
            Entry(between(one.gain.low, one.gain.high)),
            Entry(number(one.popularity, sign=True)),
            Entry(_percent(one.harm)),
            Entry(_percent(one.best)),
        ]
        if measured:
            told = number(one.measured.value, sign=True)
            entries.append(Entry(f"{told} {between(one.measured.low, one.measured.high)}".strip()))
        rows.append((f"{place}. {one.source}", entries))
    apart = [f"Not ranked: {one.source}, {one.words}" for one in advice.set_aside]
    title = f"Sources for {advice.target} ({advice.unit}): {advice.verdict}"
    return page(title, advice.words, Rows("source", heads, rows), notes=[*apart, *advice.notes])


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %" if isfinite(value) else "–"
