"""One row a thing: a dot with its interval, the null's band, further marks, and numbers at the right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, nan

from markupsafe import Markup

from traitmap.report.plot import TICK_SIZE, Scale, around, name_text, room_for, round_ticks, x_axis
from traitmap.report.svg import element, figure, join
from traitmap.report.wording import typeset

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
