"""One row a thing: a dot with its interval, the null's band, further marks, and numbers at the right.

Dots with intervals on one shared axis: loadings, effects, best and worst targets.

Distributions above each other on one logarithmic axis: lengths of texts, dataset by dataset.

Parts of wholes as stacked bars, one a dataset: shares of classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, log10, nan

import numpy as np
from markupsafe import Markup

from traitmap.matrix.record import Array
from traitmap.report.chart import (
    TICK_SIZE,
    Scale,
    around,
    element,
    figure,
    join,
    log_ticks,
    name_text,
    room_for,
    round_ticks,
    shorten,
    text_width,
    x_axis,
)
from traitmap.wording import share, typeset

_ROW, _HEADING, _HEAD, _GAP = 23.0, 28.0, 20.0, 14.0
_STRETCH = 1.0  # an interval is drawn beyond the dots by at most this share of their range


@dataclass(frozen=True)
class Line:
    """One row. What is NaN is not drawn; a row of texts alone says why something is unknown.

    value, low, high: the dot and its interval. band: the null's. tick: a short upright line. open: a hollow
    dot. diamond: a diamond. texts: one for each column at the right.
    tone: ``better``, ``worse``, ``neutral`` or ``quiet``; solid: the dot is filled.
    """

    label: str
    value: float = nan
    low: float = nan
    high: float = nan
    band: tuple[float, float] = (nan, nan)
    tick: float = nan
    open: float = nan
    diamond: float = nan
    texts: tuple[str, ...] = ()
    tone: str = "neutral"
    solid: bool = False
    heading: bool = False

    @property
    def points(self) -> tuple[float, ...]:
        """What must lie on the axis."""
        return (self.value, self.tick, self.open, self.diamond, *self.band)


def row_chart(
    lines: Sequence[Line],
    *,
    key: str,
    title: str,
    description: str,
    heads: Sequence[str] = (),
    axis: str = "",
    unit: str = "",
    width: float = 720.0,
    label_room: float | None = None,
    ends: tuple[float, float] | None = None,
) -> Markup:
    """Rows over a shared axis. Intervals that reach far beyond every dot are cut, with an arrow.

    heads: of the columns of texts at the right. axis: what the numbers below are. ends: of the axis, where
    figures are to be compared. label_room: px of the names, by default what they need.
    """
    labels = [line.label for line in lines if not line.heading]
    left = (label_room or room_for(labels, least=60, most=min(250.0, 0.36 * width))) + 8
    columns = _columns(lines, heads)
    right = width - sum(columns) - (10 if columns else 4)
    top = _HEAD if any(heads) else 4.0
    bottom = top + sum(_HEADING if line.heading else _ROW for line in lines)
    low, high = ends or _ends(lines)
    scale = Scale(low, high, left + 8, right - 8)
    ticks = round_ticks(low, high, max(3, int((right - left) / 70)))
    parts = [
        _heads(heads, columns, width),
        x_axis(scale, ticks, top=top, bottom=bottom, title=axis, unit=unit),
    ]
    y = top
    for line in lines:
        tall = _HEADING if line.heading else _ROW
        parts.append(_line(line, y + tall / 2, left - 8, scale, columns, width))
        y += tall
    return figure(
        key=key,
        title=title,
        description=description,
        width=width,
        height=bottom + (38 if axis else 22),
        content=join(*parts),
        style="rows",
    )


def _columns(lines: Sequence[Line], heads: Sequence[str]) -> list[float]:
    """Width of each column of texts."""
    count = max([len(line.texts) for line in lines] + [len(heads)], default=0)
    texts = [[line.texts[at] for line in lines if at < len(line.texts)] for at in range(count)]
    return [
        room_for([*column, *heads[at : at + 1]], size=TICK_SIZE) + _GAP for at, column in enumerate(texts)
    ]


def _ends(lines: Sequence[Line]) -> tuple[float, float]:
    """Every mark and every interval, as far as it is not much longer than all marks lie apart."""
    marks = [value for line in lines for value in line.points if isfinite(value)]
    if not marks:
        return around([])
    low, high = min([*marks, 0.0]), max([*marks, 0.0])
    room = _STRETCH * max(high - low, 1e-9)
    edges = [edge for line in lines for edge in (line.low, line.high) if isfinite(edge)]
    return around([*marks, *(min(max(edge, low - room), high + room) for edge in edges)], zero=True)


def _heads(heads: Sequence[str], columns: Sequence[float], width: float) -> Markup:
    texts = []
    for at, head in enumerate(heads):
        x = width - sum(columns[at + 1 :])
        texts.append(element("text", {"x": x, "y": 12, "class": "tick", "text-anchor": "end"}, head))
    return element("g", None, *texts)


def _line(
    line: Line, y: float, label_at: float, scale: Scale, columns: Sequence[float], width: float
) -> Markup:
    if line.heading:
        return element("text", {"x": 0, "y": y + 8, "class": "group"}, line.label)
    texts = []
    for at, text in enumerate(line.texts):
        place = {"x": width - sum(columns[at + 1 :]), "y": y + 4, "class": "amount", "text-anchor": "end"}
        texts.append(element("text", place, typeset(text)))
    label = name_text(line.label, label_at, y + 4, label_at)
    return element("g", {"class": f"line {line.tone}"}, label, *_marks(line, y, scale), *texts)


def _marks(line: Line, y: float, scale: Scale) -> list[Markup]:
    """The band, the interval, and every mark that is known."""
    parts = []
    if all(map(isfinite, line.band)):
        x, end = scale(line.band[0]), scale(line.band[1])
        place = {"x": x, "y": y - 7, "width": max(end - x, 1), "height": 14, "rx": 2}
        parts.append(element("rect", {"class": "noise", **place}))
    if isfinite(line.low) and isfinite(line.high):
        span = f"M{scale(line.low):.1f} {y:.1f}H{scale(line.high):.1f}"
        parts.append(element("path", {"class": "interval", "d": span}))
        parts += [_arrow(scale(edge), y, side) for edge, side in _beyond(line, scale)]
    if isfinite(line.tick):
        parts.append(element("path", {"class": "tick-mark", "d": f"M{scale(line.tick):.1f} {y - 7:.1f}v14"}))
    if isfinite(line.open):
        parts.append(element("circle", {"class": "dot open", "cx": scale(line.open), "cy": y, "r": 4}))
    if isfinite(line.value):
        style = "dot solid" if line.solid else "dot"
        parts.append(element("circle", {"class": style, "cx": scale(line.value), "cy": y, "r": 4}))
    if isfinite(line.diamond):
        shape = f"M{scale(line.diamond):.1f} {y - 5:.1f}l5 5l-5 5l-5 -5z"
        parts.append(element("path", {"class": "diamond", "d": shape}))
    return parts


def _beyond(line: Line, scale: Scale) -> list[tuple[float, int]]:
    """Ends of the interval that lie beyond the axis."""
    found = []
    if line.low < scale.low:
        found.append((line.low, -1))
    if line.high > scale.high:
        found.append((line.high, 1))
    return found


def _arrow(x: float, y: float, side: int) -> Markup:
    return element("path", {"class": "beyond", "d": f"M{x + 4 * side:.1f} {y:.1f}l{-6 * side} -3.5v7z"})


WIDTH = 344.0
_FOREST_ROW, _FOREST_HEADING, _AXIS = 22.0, 26.0, 18.0
_SIZE = 12.0


@dataclass(frozen=True)
class ChartRow:
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
    rows: Sequence[ChartRow],
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
    height = sum(_FOREST_HEADING if row.heading else _FOREST_ROW for row in rows)
    parts = [
        element("path", {"class": "rule zero", "d": f"M{middle:.1f} 2V{height:.1f}"}),
        *(
            element("path", {"class": "rule", "d": f"M{middle + side * half:.1f} 2V{height:.1f}"})
            for side in (-1, -0.5, 0.5, 1)
        ),
    ]
    top = 0.0
    for row in rows:
        high = _FOREST_HEADING if row.heading else _FOREST_ROW
        parts.append(_forest_line(row, top + high / 2, label_room, middle, half, limit))
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


def _forest_line(
    row: ChartRow, y: float, label_room: float, middle: float, half: float, limit: float
) -> Markup:
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


def _mark(row: ChartRow, y: float, middle: float, half: float, limit: float) -> list[Markup]:
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


_RIDGES_ROW, _RIDGES_HEADING, _RIDGE, _GRID = 30.0, 30.0, 26.0, 140
_SMOOTH = 0.035  # width of the kernel in powers of ten: nine per cent of a length
_LEAST = 0.5  # a length of nought has no logarithm; it is drawn here, below one


@dataclass(frozen=True)
class Ridge:
    """One distribution. percentiles: (101,) from the least to the most. texts: at the right.

    tone: ``neutral`` or ``quiet``. heading: a row of its label alone.
    """

    label: str
    percentiles: Array | None = None
    texts: tuple[str, ...] = ()
    tone: str = "neutral"
    heading: bool = False

    @property
    def known(self) -> bool:
        """Whether there is a distribution to draw."""
        return self.percentiles is not None and bool(np.isfinite(self.percentiles).all())


def ridges(
    rows: Sequence[Ridge],
    *,
    key: str,
    title: str,
    description: str,
    axis: str,
    heads: Sequence[str] = (),
    width: float = 720.0,
) -> Markup:
    """Density of each row, each as high as the others, over a line from the 5th to the 95th percentile."""
    left = room_for([row.label for row in rows if not row.heading], least=60, most=220) + 10
    columns = [
        room_for([head, *(row.texts[at] for row in rows if len(row.texts) > at)], size=TICK_SIZE) + 14
        for at, head in enumerate(heads)
    ]
    right = width - sum(columns) - 8
    low, high = _ridges_ends(rows)
    scale = Scale(low, high, left + 4, right, logarithmic=True)
    top = 22.0
    bottom = top + sum(_RIDGES_HEADING if row.heading else _RIDGES_ROW for row in rows) + 6
    parts = [x_axis(scale, log_ticks(low, high), top=top - 4, bottom=bottom, title=axis, zero=False)]
    for at, head in enumerate(heads):
        place = {"x": width - sum(columns[at + 1 :]), "y": 12, "class": "tick", "text-anchor": "end"}
        parts.append(element("text", place, head))
    y = top
    for row in rows:
        y += _RIDGES_HEADING if row.heading else _RIDGES_ROW
        parts.append(_row(row, y, left - 10, scale, columns, width))
    return figure(
        key=key,
        title=title,
        description=description,
        width=width,
        height=bottom + 38,
        content=join(*parts),
        style="ridges",
    )


def _ridges_ends(rows: Sequence[Ridge]) -> tuple[float, float]:
    known = [np.maximum(row.percentiles, _LEAST) for row in rows if row.known and row.percentiles is not None]
    if not known:
        return 1.0, 10.0
    low, high = min(float(one[0]) for one in known), max(float(one[-1]) for one in known)
    return low * 0.8, max(high, 2 * low) * 1.25


def _row(
    row: Ridge, y: float, label_at: float, scale: Scale, columns: Sequence[float], width: float
) -> Markup:
    if row.heading:
        return element("text", {"x": 0, "y": y - 8, "class": "group"}, row.label)
    texts = [
        element(
            "text",
            {"x": width - sum(columns[at + 1 :]), "y": y - 4, "class": "amount", "text-anchor": "end"},
            text,
        )
        for at, text in enumerate(row.texts)
    ]
    label = name_text(row.label, label_at, y - 4, label_at)
    marks = _ridges_marks(row.percentiles, y, scale) if row.known and row.percentiles is not None else []
    return element("g", {"class": f"line {row.tone}"}, label, *marks, *texts)


def _ridges_marks(percentiles: Array, y: float, scale: Scale) -> list[Markup]:
    values = np.maximum(percentiles, _LEAST)
    at, heights = density(values, scale.low, scale.high)
    points = [
        f"{scale(10**x):.1f} {y - _RIDGE * h:.1f}" for x, h in zip(at, heights, strict=True) if h > 0.004
    ]
    parts = []
    if points:
        first, last = points[0].split()[0], points[-1].split()[0]
        shape = f"M{first} {y:.1f}L{'L'.join(points)}L{last} {y:.1f}z"
        parts.append(element("path", {"class": "ridge", "d": shape}))
    middle, low, high = (scale(float(values[p])) for p in (50, 5, 95))
    parts.append(element("path", {"class": "spread", "d": f"M{low:.1f} {y:.1f}H{high:.1f}"}))
    parts.append(element("path", {"class": "median", "d": f"M{middle:.1f} {y + 3:.1f}v-9"}))
    return parts


def density(percentiles: Array, low: float, high: float) -> tuple[Array, Array]:
    """Powers of ten (n,) and the smoothed density there, at most 1, of a sample told by its percentiles."""
    sample = np.log10(percentiles[1:100])
    at = np.linspace(log10(low), log10(high), _GRID)
    heights = np.exp(-0.5 * ((at[:, None] - sample[None, :]) / _SMOOTH) ** 2).sum(axis=1)
    return at, heights / heights.max() if heights.max() > 0 else heights


_SHARES_CHART_ROW, _BAR, _KINDS = 25.0, 17.0, 8


@dataclass(frozen=True)
class Bar:
    """One whole. parts: (name, share) in order; text: at the right."""

    label: str
    parts: tuple[tuple[str, float], ...]
    text: str = ""


def shares_chart(
    bars: Sequence[Bar], *, key: str, title: str, description: str, width: float = 820.0
) -> Markup:
    """Bars from 0 to 100 %, every part with its name where it has room, else in its tooltip."""
    left = room_for([bar.label for bar in bars], least=60, most=230) + 10
    right = width - room_for([bar.text for bar in bars], size=TICK_SIZE) - 14
    scale = Scale(0.0, 100.0, left, right)
    bottom = 6 + _SHARES_CHART_ROW * len(bars)
    parts = [x_axis(scale, [0, 25, 50, 75, 100], top=4, bottom=bottom, unit=" %")]
    for at, bar in enumerate(bars):
        y = 6 + _SHARES_CHART_ROW * at
        parts.append(name_text(bar.label, left - 8, y + 13, left - 10))
        parts += _bar(bar, y, scale)
        place = {"x": width, "y": y + 13, "class": "amount", "text-anchor": "end"}
        parts.append(element("text", place, bar.text))
    return figure(
        key=key,
        title=title,
        description=description,
        width=width,
        height=bottom + 22,
        content=join(*parts),
        style="stacked",
    )


def _bar(bar: Bar, y: float, scale: Scale) -> list[Markup]:
    found, start = [], 0.0
    for kind, (name, value) in enumerate(bar.parts):
        x, end = scale(100 * start), scale(100 * (start + value))
        start += value
        if end - x < 0.05:
            continue
        style = f"part k{kind % _KINDS}"
        box = {"class": style, "x": x, "y": y, "width": max(end - x - 1, 0.5), "height": _BAR, "rx": 2}
        found.append(element("rect", box, element("title", None, f"{bar.label}, {name}: {share(value)}")))
        if text_width(name, TICK_SIZE) <= end - x - 7:
            place = {"x": x + 5, "y": y + 12.5, "class": f"part-name k{kind % _KINDS}"}
            found.append(element("text", place, name))
    return found
