"""Charts of rows over one shared axis: dots with intervals, distributions, parts of wholes.

Every row has its label at the left and its numbers at the right. What stands between them is told by what the
row holds: a dot with its interval, the band of the null and further marks; a smoothed density over the 5th to
95th percentile; or stacked parts. What is unknown is not drawn: a row of texts alone says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, log10, nan

import numpy as np
from markupsafe import Markup

from traitmap.matrix.record import Array
from traitmap.matrix.statistics import Interval
from traitmap.report.chart import (
    NAME_SIZE,
    TICK_SIZE,
    Chart,
    Drawing,
    Scale,
    around,
    circle,
    element,
    join,
    name_text,
    path,
    room_for,
    shorten,
    text,
    text_width,
    title_lines,
    x_axis,
)
from traitmap.wording import share, typeset

_ROW, _RIDGE_ROW, _HEADING, _HEAD, _GAP = 23.0, 30.0, 28.0, 20.0, 14.0
_RIDGE = 26.0  # height of a density
_SMOOTH = 0.035  # width of its kernel in powers of ten: nine per cent of a length
_LEAST = 0.5  # a length of nought has no logarithm; it is drawn here, below one
_STRETCH = 1.0  # an interval is drawn beyond the dots by at most this share of their range
_KINDS = 8  # colours of parts
_LEAST_SHARE = 0.2  # of the width is what marks need beside labels and texts


@dataclass(frozen=True)
class ChartRow:
    """One row. Numbers that are NaN are not drawn.

    value, low, high: the dot and its interval. band: the null's. tick: a short upright line. open: a hollow
    dot. diamond: a diamond. percentiles: (101,) from the least to the most. parts: (name, share), in order.
    texts: one for each column at the right. heading: the row is its label alone.
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
    percentiles: Array | None = None
    parts: tuple[tuple[str, float], ...] = ()
    texts: tuple[str, ...] = ()
    tone: str = "neutral"
    solid: bool = False
    heading: bool = False


def estimate_row(
    label: str,
    estimate: Interval,
    *texts: str,
    clear: bool,
    tone: str = "neutral",
    band: float | tuple[float, float] = nan,
    tick: float = nan,
) -> ChartRow:
    """An estimate that has been tested: filled and in its tone where it is clear, else hollow and grey.

    band: the null's low and high end, or half the width of one about zero.
    """
    return ChartRow(
        label,
        estimate.value,
        estimate.low,
        estimate.high,
        band=band if isinstance(band, tuple) else (-band, band),
        tick=tick,
        texts=texts,
        tone=tone if clear else "quiet",
        solid=clear,
    )


def row_chart(
    rows: Sequence[ChartRow],
    title: str,
    alt: str,
    *,
    heads: Sequence[str] = (),
    axis: str = "",
    unit: str = "",
    ends: tuple[float, float] | None = None,
    ticks: Mapping[float, str] | None = None,
    label_room: float | None = None,
    text_room: float | None = None,
) -> Drawing:
    """Rows over a shared axis, which is logarithmic where rows hold distributions.

    title, alt: for those who do not see it. heads: of the columns of texts at the right. axis, unit: what the
    numbers below are. ends: of the axis, where figures are to be compared; dots beyond are arrows at its
    edge. Without ends all dots lie on the axis, and intervals that reach far beyond them are cut, with an
    arrow. ticks: places on the axis with what is written there. label_room, text_room: px of the labels, and
    of a single column of texts, by default what they need.

    Where labels and texts would leave the marks less than a fifth of the width, they stand above their marks.
    """

    def draw(width: float) -> Chart:
        left, right, columns = _sides(rows, heads, width, label_room, text_room)
        stacked = right - left < _LEAST_SHARE * width
        if stacked:
            left, right = 0.0, width
            joined = shorten(" · ".join(heads), TICK_SIZE, width)
            head = [text(width, 12, "tick", joined, "end")] if heads else []
        else:
            places_of_heads = zip(columns, heads, strict=False)
            head = [text(x, 12, "tick", words, "end") for x, words in places_of_heads]
        inset = 18 if stacked else 8  # px for the halves of the outer numbers
        scale = Scale(*(ends or _ends(rows)), left + inset, right - inset, logarithmic=_logarithmic(rows))
        edge = top = _HEAD if any(heads) else 4.0
        kinds = _kinds(rows)
        lines = []
        for row in rows:
            if row.heading:
                lines.append(text(0, edge + _HEADING / 2 + 8, "group", shorten(row.label, NAME_SIZE, width)))
                edge += _HEADING
                continue
            if stacked:
                above, room = _above(row, edge, width)
            else:
                above, room = _beside(row, edge, left, columns), 0.0
            edge += room
            height = _RIDGE_ROW if row.percentiles is not None else _ROW
            marks = _marks(row, edge + height / 2, scale, kinds)
            lines.append(element("g", {"class": f"line {row.tone}"}, *above, *marks))
            edge += height
        names = title_lines(axis, scale, width)
        places = ticks or scale.ticks(max(3, int((right - left) / 70)))
        grid = x_axis(scale, places, top=top, bottom=edge, title=names, unit=unit)
        height = edge + 22 + (16 + 13 * (len(names) - 1) if names else 0)
        return Chart(title, alt, join(element("g", None, *head), grid, *lines), width, height, "rows")

    return draw


def _sides(
    rows: Sequence[ChartRow],
    heads: Sequence[str],
    width: float,
    label_room: float | None,
    text_room: float | None,
) -> tuple[float, float, list[float]]:
    """Px where the marks begin and end, and where each column of texts ends."""
    labels = [row.label for row in rows if not row.heading]
    left = (label_room or room_for(labels, least=60, most=min(250.0, 0.36 * width))) + 8
    rooms = [text_room] if text_room else []
    for at in range(0 if text_room else max([len(heads), *(len(row.texts) for row in rows)])):
        texts = [*(row.texts[at] for row in rows if at < len(row.texts)), *heads[at : at + 1]]
        rooms.append(room_for(texts, size=TICK_SIZE) + _GAP)
    columns = [width - sum(rooms[at + 1 :]) for at in range(len(rooms))]
    return left, width - sum(rooms) - (10 if rooms else 4), columns


def _beside(row: ChartRow, edge: float, left: float, ends: Sequence[float]) -> list[Markup]:
    """Label and texts of a row that begins at ``edge``, at the left and the right of its marks."""
    y = edge + (_RIDGE_ROW if row.percentiles is not None else _ROW) / 2 + 4
    amounts = (text(x, y, "amount", typeset(words), "end") for x, words in zip(ends, row.texts, strict=False))
    return [name_text(row.label, left - 8, y, left - 8), *amounts]


def _above(row: ChartRow, edge: float, width: float) -> tuple[list[Markup], float]:
    """Label and texts of a row above its marks, in one line where they fit, and the px that they take."""
    words = typeset(" · ".join(filter(None, row.texts)))
    beside = text_width(row.label, NAME_SIZE) + 12 + text_width(words, TICK_SIZE) <= width
    room = 17.0 if beside or not words else 32.0
    amount = text(width, edge + room - 1, "amount", shorten(words, TICK_SIZE, width), "end")
    return [name_text(row.label, 0, edge + 16, width, anchor="start"), *([amount] if words else [])], room


def _logarithmic(rows: Sequence[ChartRow]) -> bool:
    return any(row.percentiles is not None for row in rows)


def _ends(rows: Sequence[ChartRow]) -> tuple[float, float]:
    """Every mark and every interval, as far as it is not much longer than all marks lie apart."""
    if _logarithmic(rows):
        known = [np.maximum(row.percentiles, _LEAST) for row in rows if row.percentiles is not None]
        low, high = min(float(part[0]) for part in known), max(float(part[-1]) for part in known)
        return low * 0.8, max(high, 2 * low) * 1.25
    marks = [
        value
        for row in rows
        for value in (row.value, row.tick, row.open, row.diamond, *row.band)
        if isfinite(value)
    ]
    if not marks:
        return around([])
    low, high = min([*marks, 0.0]), max([*marks, 0.0])
    room = _STRETCH * max(high - low, 1e-9)
    edges = [edge for row in rows for edge in (row.low, row.high) if isfinite(edge)]
    return around([*marks, *(min(max(edge, low - room), high + room) for edge in edges)], zero=True)


def _kinds(rows: Sequence[ChartRow]) -> dict[str, int]:
    """Colour of every part by its name, the same in all rows; names beyond the last colour begin anew."""
    names = sorted({name for row in rows for name, _ in row.parts})
    return {name: at % _KINDS for at, name in enumerate(names)}


def part_key(rows: Sequence[ChartRow]) -> tuple[tuple[str, str], ...]:
    """The key to the parts of stacked rows, where each name has a colour of its own."""
    kinds = _kinds(rows)
    return tuple((f"part k{kind}", name) for name, kind in kinds.items()) if len(kinds) <= _KINDS else ()


def _marks(row: ChartRow, y: float, scale: Scale, kinds: Mapping[str, int]) -> list[Markup]:
    """What a row holds, between its label and its texts."""
    if row.percentiles is not None:
        return _ridge(row.percentiles, y + 9, scale)
    if row.parts:
        return _stack(row, y - 8.5, scale, kinds)
    parts = []
    if all(map(isfinite, row.band)):
        x, end = scale(row.band[0]), scale(row.band[1])
        place = {"x": x, "y": y - 7, "width": max(end - x, 1), "height": 14, "rx": 2}
        parts.append(element("rect", {"class": "noise", **place}))
    if isfinite(row.low) and isfinite(row.high):
        parts.append(path("interval", f"M{scale(row.low):.1f} {y:.1f}H{scale(row.high):.1f}"))
        for side, x, beyond in (
            (-1, scale(row.low), row.low < scale.low),
            (1, scale(row.high), row.high > scale.high),
        ):
            if beyond:
                parts.append(path("beyond", f"M{x + 4 * side:.1f} {y:.1f}l{-6 * side} -3.5v7z"))
    if isfinite(row.tick):
        parts.append(path("tick-mark", f"M{scale(row.tick):.1f} {y - 7:.1f}v14"))
    if isfinite(row.open):
        parts.append(circle("dot open", scale(row.open), y, 4))
    if isfinite(row.value):
        style, x = "dot solid" if row.solid else "dot", scale(row.value)
        if scale.low <= row.value <= scale.high:
            parts.append(circle(style, x, y, 4))
        else:
            side = 1 if row.value > scale.high else -1
            parts.append(path(style, f"M{x + 5 * side:.1f} {y:.1f}l{-9 * side} -4.5v9z"))
    if isfinite(row.diamond):
        parts.append(path("diamond", f"M{scale(row.diamond):.1f} {y - 5:.1f}l5 5l-5 5l-5 -5z"))
    return parts


def _ridge(percentiles: Array, y: float, scale: Scale) -> list[Markup]:
    """A density on the line y, the 5th to 95th percentile on it, and the median across it."""
    values = np.maximum(percentiles, _LEAST)
    at, heights = density(values, scale.low, scale.high)
    points = [
        f"{scale(10**x):.1f} {y - _RIDGE * h:.1f}" for x, h in zip(at, heights, strict=True) if h > 0.004
    ]
    parts = []
    if points:
        first, last = points[0].split()[0], points[-1].split()[0]
        parts.append(path("ridge", f"M{first} {y:.1f}L{'L'.join(points)}L{last} {y:.1f}z"))
    middle, low, high = (scale(float(values[percent])) for percent in (50, 5, 95))
    parts.append(path("spread", f"M{low:.1f} {y:.1f}H{high:.1f}"))
    parts.append(path("median", f"M{middle:.1f} {y + 3:.1f}v-9"))
    return parts


def density(percentiles: Array, low: float, high: float, points: int = 140) -> tuple[Array, Array]:
    """Powers of ten (n,) and the smoothed density there, at most 1, of a sample told by its percentiles.

    percentiles: (101,), in the unit of low and high, which are positive. points: n. A Gaussian kernel on the
    logarithms of the 1st to 99th percentile.
    """
    sample = np.log10(percentiles[1:100])
    at = np.linspace(log10(low), log10(high), points)
    heights = np.exp(-0.5 * ((at[:, None] - sample[None, :]) / _SMOOTH) ** 2).sum(axis=1)
    return at, heights / heights.max() if heights.max() > 0 else heights


def _stack(row: ChartRow, top: float, scale: Scale, kinds: Mapping[str, int]) -> list[Markup]:
    """Parts side by side, each with its name where it has room, else in its tooltip."""
    shapes, start = [], 0.0
    for name, value in row.parts:
        x, end = scale(100 * start), scale(100 * (start + value))
        start += value
        if end - x < 0.05:
            continue
        place = {"x": x, "y": top, "width": max(end - x - 1, 0.5), "height": 17, "rx": 2}
        whole = element("title", None, f"{row.label}, {name}: {share(value)}")
        shapes.append(element("rect", {"class": f"part k{kinds[name]}", **place}, whole))
        if text_width(name, TICK_SIZE) <= end - x - 7:
            shapes.append(text(x + 5, top + 12.5, f"part-name k{kinds[name]}", name))
    return shapes


def card_chart(
    rows: Sequence[ChartRow], title: str, alt: str, *, limit: str, axis: str = "", rooms: tuple[float, float]
) -> Drawing:
    """Rows from -1 to 1 in a small card, on the same axis in all cards.

    limit: what 1 is, in words. rooms: px of the labels and of the texts.
    """
    return row_chart(
        rows,
        title,
        alt,
        axis=axis,
        ends=(-1.05, 1.05),
        ticks={-1.0: f"−{limit}", -0.5: "", 0.0: "0", 0.5: "", 1.0: f"+{limit}"},
        label_room=rooms[0],
        text_room=rooms[1],
    )
