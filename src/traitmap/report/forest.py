"""Dots with intervals on one shared axis: loadings, effects, best and worst targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, nan

from markupsafe import Markup

from traitmap.report.svg import element, figure, join, shorten
from traitmap.report.wording import typeset

WIDTH = 344.0
_ROW, _HEADING, _AXIS = 22.0, 26.0, 18.0
_SIZE = 12.0


@dataclass(frozen=True)
class Row:
    """One line. A row without a value is a heading, or says why it is unknown.

    value, low, high: on the axis; text: what is written at the right.
    tone: ``better``, ``worse`` or ``neutral``; solid: the interval (or q) excludes zero.
    """

    label: str
    value: float = nan
    low: float = nan
    high: float = nan
    text: str = ""
    tone: str = "neutral"
    solid: bool = False
    heading: bool = False


def forest(
    rows: Sequence[Row],
    *,
    key: str,
    title: str,
    description: str,
    limit: float,
    ends: tuple[str, str],
    tick: str,
    label_room: float,
    text_room: float,
) -> Markup:
    """Rows over an axis from -limit to +limit. What lies beyond is drawn to the edge with an arrow.

    ends: words at the left and right end of the axis; tick: the limit as written.
    label_room, text_room: px for the labels and the written values, the same in figures to be compared.
    """
    left, edge = label_room + 8, WIDTH - text_room
    middle, half = (left + edge) / 2, (edge - left) / 2 - 6
    height = sum(_HEADING if row.heading else _ROW for row in rows)
    parts = [
        element("path", {"class": "rule zero", "d": f"M{middle:.1f} 2V{height:.1f}"}),
        *(
            element("path", {"class": "rule", "d": f"M{middle + side * half:.1f} 2V{height:.1f}"})
            for side in (-1, -0.5, 0.5, 1)
        ),
    ]
    top = 0.0
    for row in rows:
        high = _HEADING if row.heading else _ROW
        parts.append(_line(row, top + high / 2, label_room, middle, half, limit))
        top += high
    parts.append(_axis(height, middle, half, ends, tick))
    return figure(
        key=key,
        title=title,
        description=description,
        width=WIDTH,
        height=height + _AXIS + (12 if any(ends) else 0),
        content=join(*parts),
        style="forest",
    )


def _line(row: Row, y: float, label_room: float, middle: float, half: float, limit: float) -> Markup:
    if row.heading:
        return element("text", {"x": 0, "y": y + 7, "class": "group"}, row.label)
    label = element(
        "text",
        {"x": label_room, "y": y + 4, "class": "name", "text-anchor": "end"},
        element("title", None, row.label),
        shorten(row.label, _SIZE, label_room),
    )
    text = element(
        "text", {"x": WIDTH, "y": y + 4, "class": "amount", "text-anchor": "end"}, typeset(row.text)
    )
    return element("g", None, label, *_mark(row, y, middle, half, limit), text)


def _mark(row: Row, y: float, middle: float, half: float, limit: float) -> list[Markup]:
    """Interval and dot, or nothing where the value is unknown."""
    if not isfinite(row.value):
        return []

    def place(value: float) -> float:
        return middle + half * max(-1.05, min(1.05, value / limit))

    parts = []
    if isfinite(row.low) and isfinite(row.high):
        span = f"M{place(row.low):.1f} {y:.1f}H{place(row.high):.1f}"
        parts.append(element("path", {"class": f"interval {row.tone}", "d": span}))
    if abs(row.value) > limit * 1.05:
        side = 1 if row.value > 0 else -1
        tip = middle + half * 1.05 * side
        arrow = f"M{tip + 5 * side:.1f} {y:.1f}l{-9 * side} -4.5v9z"
        parts.append(
            element("path", {"class": f"dot {row.tone}" + (" solid" if row.solid else ""), "d": arrow})
        )
    else:
        style = f"dot {row.tone}" + (" solid" if row.solid else "")
        parts.append(element("circle", {"class": style, "cx": place(row.value), "cy": y, "r": 4}))
    return parts


def _axis(height: float, middle: float, half: float, ends: tuple[str, str], tick: str) -> Markup:
    marks = [("−" + tick, -1.0), ("0", 0.0), ("+" + tick, 1.0)]
    texts = [
        element(
            "text",
            {"x": middle + half * at, "y": height + 13, "class": "tick", "text-anchor": "middle"},
            label,
        )
        for label, at in marks
    ]
    for word, at, anchor in ((ends[0], -0.08, "end"), (ends[1], 0.08, "start")):
        place = {"x": middle + half * at, "y": height + 26, "class": "end", "text-anchor": anchor}
        if word:
            texts.append(element("text", place, f"← {word}" if at < 0 else f"{word} →"))
    return element("g", {"class": "axis"}, *texts)
