"""Small curves beside each other: what a number does as a dose grows, or as components are added.

Explained variance beside what noise of the same shape explains.

Points on a plane: the biplot of adapters and targets, and what was measured against what was predicted.

Datasets against datasets, or against properties, as a heat map; a dot marks what chance explains too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from traitmap.analysis.traits.components import Biplot, ellipse
from traitmap.analysis.traits.records import Traits
from traitmap.matrix.reading import nice_limit
from traitmap.matrix.record import Array
from traitmap.report import chart as palette
from traitmap.report.chart import (
    NAME_SIZE,
    Scale,
    around,
    element,
    figure,
    join,
    name_text,
    room_for,
    round_ticks,
    shorten,
    text_width,
    tick_text,
    x_axis,
    y_axis,
)
from traitmap.wording import plain, signed, typeset

_WIDE, _TALL, _LEFT, _HEAD, _FOOT, _GAP = 254.0, 128.0, 44.0, 58.0, 26.0, 24.0


@dataclass(frozen=True)
class Curve:
    """Points with intervals. title, said (two lines at most): above it. tone: ``neutral`` or ``quiet``.

    low, high: NaN where an interval is unknown.
    """

    title: str
    said: tuple[str, ...]
    at: tuple[float, ...]
    values: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    tone: str = "neutral"


def curves(panels: Sequence[Curve], *, key: str, title: str, description: str, columns: int = 4) -> Markup:
    """A panel for each curve, each with its own axes, since doses and measures differ."""
    columns = max(1, min(columns, len(panels)))
    rows = -(-len(panels) // columns)
    wide, tall = _WIDE + _GAP, _HEAD + _TALL + _FOOT + _GAP
    parts = [
        element(
            "g",
            {"transform": f"translate({(at % columns) * wide:g} {(at // columns) * tall:g})"},
            *_panel(panel),
        )
        for at, panel in enumerate(panels)
    ]
    return figure(
        key=key,
        title=title,
        description=description,
        width=columns * wide - _GAP,
        height=rows * tall - _GAP,
        content=join(*parts),
        style="curves",
    )


def _panel(panel: Curve) -> list[Markup]:
    right, bottom = _WIDE - 8, _HEAD + _TALL
    x = Scale(*around(panel.at, margin=0.04), _LEFT + 6, right)
    low, high = around([*panel.values, *panel.low, *panel.high])
    y = Scale(low, high, bottom, _HEAD)
    return [
        name_text(panel.title, 0, 12, _WIDE, anchor="start", style="group"),
        *(
            name_text(line, 0, 28 + 15 * at, _WIDE + 6, anchor="start", style="tick")
            for at, line in enumerate(panel.said[:2])
        ),
        y_axis(y, round_ticks(low, high, 5), left=_LEFT, right=right),
        _doses(x, panel.at, bottom),
        element("g", {"class": f"line {panel.tone}"}, *points(panel, x, y)),
    ]


def _doses(x: Scale, at: Sequence[float], bottom: float) -> Markup:
    texts, last = [], -99.0
    for value in at:
        if x(value) - last < 24:
            continue
        last = x(value)
        place = {"x": last, "y": bottom + 16, "class": "tick", "text-anchor": "middle"}
        texts.append(element("text", place, tick_text(float(f"{value:.3g}"))))
    return element("g", {"class": "axis"}, *texts)


def points(panel: Curve, x: Scale, y: Scale) -> list[Markup]:
    """Intervals, the line through the dots, and the dots; what is unknown breaks the line."""
    parts, line, pen = [], "", "M"
    for at, value, low, high in zip(panel.at, panel.values, panel.low, panel.high, strict=True):
        if isfinite(low) and isfinite(high):
            span = f"M{x(at):.1f} {y(low):.1f}V{y(high):.1f}"
            parts.append(element("path", {"class": "interval", "d": span}))
        if isfinite(value):
            line += f"{pen}{x(at):.1f} {y(value):.1f}"
            pen = "L"
        else:
            pen = "M"
    parts.append(element("path", {"class": "thread", "d": line}) if line else Markup(""))
    parts += [
        element("circle", {"class": "dot solid", "cx": x(at), "cy": y(value), "r": 3.5})
        for at, value in zip(panel.at, panel.values, strict=True)
        if isfinite(value)
    ]
    return parts


def curve_with_choice(
    panel: Curve,
    *,
    chosen: int | None,
    key: str,
    title: str,
    description: str,
    axes: tuple[str, str],
    width: float = 480.0,
) -> Markup:
    """One larger curve over whole numbers, one of its points chosen. axes: titles below and at the left."""
    left, top, bottom, right = 60.0, 12.0, 230.0, width - 10
    x = Scale(*around(panel.at, margin=0.06), left + 8, right)
    low, high = around([*panel.values, *panel.low, *panel.high])
    y = Scale(low, high, bottom, top)
    mark = None
    if chosen is not None:
        place = {"class": "chosen", "cx": x(panel.at[chosen]), "cy": y(panel.values[chosen]), "r": 9}
        mark = element("circle", place)
    return figure(
        key=key,
        title=title,
        description=description,
        width=width,
        height=bottom + 40,
        style="curves",
        content=join(
            y_axis(y, round_ticks(low, high, 5), left=left, right=right, title=axes[1]),
            x_axis(x, [], top=top, bottom=bottom, title=axes[0]),
            _doses(x, panel.at, bottom),
            element("g", {"class": f"line {panel.tone}"}, *points(panel, x, y), mark),
        ),
    )


MOST = 12
_SCREE_LEFT, _TOP, _HEIGHT, _BOTTOM = 46.0, 14.0, 210.0, 26.0


def scree(traits: Traits, key: str = "scree") -> Markup:
    """One stem per component over the noise band (box: 5th to 95th percentile, line: mean)."""
    count = min(MOST, len(traits.explained_variance_ratio))
    used = traits.n_components.get("used") or 0
    pitch = max(36.0, min(64.0, 560.0 / max(count, 1)))
    width = _SCREE_LEFT + count * pitch + 8
    shown = [*traits.explained_variance_ratio[:count], *traits.null_p95[:count]]
    ceiling = nice_limit(100 * max([float(v) for v in shown if isfinite(v)], default=1.0))

    def y(ratio: float) -> float:
        return _TOP + _HEIGHT * (1 - 100 * ratio / ceiling)

    components = [
        _component(traits, c, _SCREE_LEFT + (c + 0.5) * pitch, pitch, y, c < used) for c in range(count)
    ]
    return figure(
        key=key,
        title="Scree with noise band",
        description=(
            "Share of variance that each component explains, beside the share that components of pure noise "
            "of the same shape explain. The same numbers stand in the table below."
        ),
        width=width,
        height=_TOP + _HEIGHT + _BOTTOM,
        content=join(_grid(width, ceiling), *components),
        style="scree",
    )


def _grid(width: float, ceiling: float) -> Markup:
    lines = []
    for quarter in range(5):
        level = ceiling * quarter / 4
        y = _TOP + _HEIGHT * (1 - quarter / 4)
        label = plain(level, 0 if level == round(level) else 1)
        rule = "rule" if quarter else "rule zero"
        lines.append(element("path", {"class": rule, "d": f"M{_SCREE_LEFT:g} {y:g}H{width:g}"}))
        place = {"x": _SCREE_LEFT - 8, "y": y + 4, "class": "tick", "text-anchor": "end"}
        lines.append(element("text", place, f"{label} %"))
    return element("g", {"class": "axis"}, *lines)


def _component(
    traits: Traits, c: int, x: float, pitch: float, y: Callable[[float], float], used: bool
) -> Markup:
    ratio, mean = float(traits.explained_variance_ratio[c]), float(traits.null_mean[c])
    low, high = float(traits.null_p05[c]), float(traits.null_p95[c])
    parts = []
    if isfinite(low) and isfinite(high):
        box = {
            "x": x - pitch * 0.38,
            "y": y(high),
            "width": pitch * 0.76,
            "height": y(low) - y(high),
            "rx": 3,
        }
        parts.append(element("rect", {"class": "noise", **box}))
    if isfinite(mean):
        line = f"M{x - pitch * 0.38:.1f} {y(mean):.1f}h{pitch * 0.76:.1f}"
        parts.append(element("path", {"class": "noise-mean", "d": line}))
    if isfinite(ratio):
        tone = "supported" if used else "unsupported"
        parts.append(element("path", {"class": f"stem {tone}", "d": f"M{x:.1f} {y(0):.1f}V{y(ratio):.1f}"}))
        parts.append(element("circle", {"class": f"dot {tone}", "cx": x, "cy": y(ratio), "r": 5}))
    tick = {"x": x, "y": _TOP + _HEIGHT + 18, "class": "tick", "text-anchor": "middle"}
    return element("g", None, *parts, element("text", tick, f"PC{c}"))


_SMALL, _LARGE, _PLANE_LEFT, _PLANE_TOP, _PLANE_BOTTOM = 462.0, 760.0, 56.0, 10.0, 40.0
MANY = 1000  # points from which each has no tooltip of its own: the table has the names
CROWDED = 24  # points from which a plane needs the page's whole width


def biplot(
    plane: Biplot,
    sources: Sequence[str],
    targets: Sequence[str],
    *,
    axes: tuple[str, str],
    key: str = "biplot",
    title: str = "Adapters and targets on two components",
    description: str = "",
) -> Markup:
    """Adapters as dots, targets as arrows from the middle, each with the 95 % ellipse of where it may lie.

    Arrows are drawn to the length that the dots leave room for; their directions and relative lengths tell.
    """
    dots, arrows = plane.scores, plane.loadings
    reach = float(np.nanmax(np.abs(dots))) if np.isfinite(dots).any() else 1.0
    longest = float(np.nanmax(np.linalg.norm(arrows, axis=1))) if np.isfinite(arrows).any() else 1.0
    stretch = reach / max(longest, 1e-12)
    span = 1.28 * reach
    size = _LARGE if len(sources) + len(targets) > CROWDED else _SMALL
    x = Scale(-span, span, _PLANE_LEFT, _PLANE_LEFT + size)
    y = Scale(-span, span, _PLANE_TOP + size, _PLANE_TOP)
    ticks = round_ticks(-span, span, 7)
    shapes = [
        *_ellipses(arrows * stretch, plane.loadings_covariance * stretch**2, x, y, "target"),
        *_ellipses(dots, plane.scores_covariance, x, y, "source"),
    ]
    clip = element(
        "clipPath",
        {"id": f"{key}-frame"},
        element("rect", {"x": _PLANE_LEFT, "y": _PLANE_TOP, "width": size, "height": size}),
    )
    labels = [(name, place) for name, place in zip(targets, arrows * stretch, strict=True)]
    return figure(
        key=key,
        title=title,
        description=description,
        width=_PLANE_LEFT + size + 8,
        height=_PLANE_TOP + size + _PLANE_BOTTOM,
        style="plane",
        content=join(
            element("defs", None, clip),
            x_axis(x, ticks, top=_PLANE_TOP, bottom=_PLANE_TOP + size, title=axes[0]),
            y_axis(y, ticks, left=_PLANE_LEFT, right=_PLANE_LEFT + size, title=axes[1]),
            element("g", {"clip-path": f"url(#{key}-frame)"}, *shapes),
            element("g", None, *(_arrow(place, x, y) for _, place in labels if np.isfinite(place).all())),
            element("g", None, *(_dot(place, x, y) for place in dots if np.isfinite(place).all())),
            *_names([*labels, *zip(sources, dots, strict=True)], len(labels), x, y),
        ),
    )


def _ellipses(points: np.ndarray, covariances: np.ndarray, x: Scale, y: Scale, style: str) -> list[Markup]:
    unit = abs(x.end - x.start) / (x.high - x.low)
    parts = []
    for point, covariance in zip(points, covariances, strict=True):
        long, short, angle = ellipse(covariance)
        if not (np.isfinite(point).all() and isfinite(long)):
            continue
        cx, cy = x(point[0]), y(point[1])
        place = {"cx": cx, "cy": cy, "rx": long * unit, "ry": short * unit}
        turn = f"rotate({-angle:.1f} {cx:.1f} {cy:.1f})"
        parts.append(element("ellipse", {"class": f"ellipse {style}", **place, "transform": turn}))
    return parts


def _dot(place: np.ndarray, x: Scale, y: Scale) -> Markup:
    return element("circle", {"class": "dot solid source", "cx": x(place[0]), "cy": y(place[1]), "r": 4})


def _arrow(place: np.ndarray, x: Scale, y: Scale) -> Markup:
    end = f"M{x(0):.1f} {y(0):.1f}L{x(place[0]):.1f} {y(place[1]):.1f}"
    tip = {"class": "tip", "cx": x(place[0]), "cy": y(place[1]), "r": 2.5}
    return join(element("path", {"class": "arrow", "d": end}), element("circle", tip))


@dataclass(frozen=True)
class _Box:
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: _Box) -> bool:
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )


def _names(points: Sequence[tuple[str, np.ndarray]], targets: int, x: Scale, y: Scale) -> list[Markup]:
    """Names beside their points, each where it meets no other; one that finds no place keeps its tooltip."""
    taken = [
        _Box(x(p[0]) - 4, y(p[1]) - 4, x(p[0]) + 4, y(p[1]) + 4) for _, p in points if np.isfinite(p).all()
    ]
    order = sorted(
        (at for at, (_, p) in enumerate(points) if np.isfinite(p).all()),
        key=lambda at: (-float(np.hypot(*points[at][1])), at),
    )
    frame = _Box(x.start, y.end, x.end, y.start)
    found = []
    for at in order:
        name, point = points[at]
        short = shorten(name, NAME_SIZE, 140)
        style = "name target" if at < targets else "name source"
        wide = text_width(short, NAME_SIZE) + 3
        for box in _places(x(point[0]), y(point[1]), wide):
            inside = box.left > frame.left and box.right < frame.right
            inside = inside and box.top > frame.top and box.bottom < frame.bottom
            if inside and not any(box.meets(other) for other in taken):
                taken.append(box)
                place = {"x": box.left, "y": box.bottom - 3.5, "class": style}
                found.append(element("text", place, short))
                break
    return found


def _places(x: float, y: float, wide: float) -> list[_Box]:
    """Boxes of a name around a point, the best first."""
    high = 14.0
    corners = [
        (x + 7, y - high / 2),
        (x - 7 - wide, y - high / 2),
        (x - wide / 2, y - 7 - high),
        (x - wide / 2, y + 7),
        (x + 5, y - 5 - high),
        (x + 5, y + 5),
        (x - 5 - wide, y - 5 - high),
        (x - 5 - wide, y + 5),
        (x + 14, y - 16 - high),
        (x + 14, y + 16),
        (x - 14 - wide, y - 16 - high),
        (x - 14 - wide, y + 16),
    ]
    return [_Box(left, top, left + wide, top + high) for left, top in corners]


@dataclass(frozen=True)
class Guess:
    """One pair: predicted with its interval, and measured. name: for the tooltip."""

    name: str
    predicted: float
    low: float
    high: float
    measured: float


def against(
    guesses: Sequence[Guess],
    *,
    key: str,
    title: str,
    description: str,
    axes: tuple[str, str],
    size: float = 462.0,
) -> Markup:
    """Measured (up) against predicted (right), each with its interval; on the diagonal they are the same."""
    known = [guess for guess in guesses if isfinite(guess.predicted) and isfinite(guess.measured)]
    low, high = around([one.measured for one in known] + [one.predicted for one in known], zero=True)
    x = Scale(low, high, _PLANE_LEFT, _PLANE_LEFT + size)
    y = Scale(low, high, _PLANE_TOP + size, _PLANE_TOP)
    ticks = round_ticks(low, high, 6)
    inside = [one for one in known if one.low <= one.measured <= one.high]
    outside = [one for one in known if not one.low <= one.measured <= one.high]
    parts = [
        element("path", {"class": "diagonal", "d": f"M{x(low):.1f} {y(low):.1f}L{x(high):.1f} {y(high):.1f}"})
    ]
    for group, style in ((inside, "held"), (outside, "missed")):
        spans = [f"M{x(g.low):.0f} {y(g.measured):.0f}H{x(g.high):.0f}" for g in group if isfinite(g.low)]
        if spans:
            parts.append(element("path", {"class": f"spans {style}", "d": "".join(spans)}))
        for one in group:
            place = {"cx": x(one.predicted), "cy": y(one.measured), "r": 3}
            style_of = {"class": f"dot solid {style}", **place}
            told = element("title", None, one.name) if len(known) <= MANY else None
            parts.append(element("circle", style_of, told))
    return figure(
        key=key,
        title=title,
        description=description,
        width=_PLANE_LEFT + size + 8,
        height=_PLANE_TOP + size + _PLANE_BOTTOM,
        style="plane",
        content=join(
            x_axis(x, ticks, top=_PLANE_TOP, bottom=_PLANE_TOP + size, title=axes[0]),
            y_axis(y, ticks, left=_PLANE_LEFT, right=_PLANE_LEFT + size, title=axes[1]),
            *parts,
        ),
    )


_ROOM = 150.0
MANY_DATASETS = 45  # from so many rows on, cells have no tooltip of their own: the table has the numbers


def likeness(
    rows: Sequence[str],
    columns: Sequence[str],
    values: Array,
    *,
    key: str,
    title: str,
    description: str,
    limit: float | None = 1.0,
    marked: NDArray[np.bool_] | None = None,
    digits: int = 2,
    percent: bool = False,
) -> Markup:
    """A heat map of values (R, C). limit: colours diverge about 0 up to it; None: shares from 0 to 1.

    marked: (R, C) cells with a dot. Values are written where there is room, and left out where unknown.
    """
    width = _side(len(columns), 44.0)
    height = _side(len(rows), 26.0)
    left = room_for(rows, most=_ROOM) + 8
    longest = room_for([shorten(one, NAME_SIZE, _ROOM) for one in columns])
    top = longest * 0.71 + 14
    parts = [_column_name(name, left + (at + 0.5) * width, top - 7) for at, name in enumerate(columns)]
    parts += [
        name_text(name, left - 6, top + (at + 0.5) * height + 4, left - 6) for at, name in enumerate(rows)
    ]
    written = width >= 44 and len(rows) <= 30
    cells = []
    many: dict[str, list[str]] = {}
    for r, row in enumerate(rows):
        for c, column in enumerate(columns):
            place = (left + c * width, top + r * height, width - 1, height - 1)
            value = float(values[r, c])
            text = f"{plain(100 * value, 0)} %" if percent else signed(value, digits)
            told = f"{row}, {column}: {typeset(text)}" if len(rows) <= MANY_DATASETS else None
            style = _style(value, limit)
            if told is None:  # one path of each colour: a page holds tens of thousands of boxes badly
                many.setdefault(style, []).append(
                    f"M{place[0]:g} {place[1]:g}h{width - 1:g}v{height - 1:g}h{1 - width:g}z"
                )
            else:
                cells.append(
                    _cell(place, style, told, typeset(text) if written and isfinite(value) else None)
                )
            if marked is not None and marked[r, c]:
                dot = {"class": f"even {style}", "cx": place[0] + width - 6, "cy": place[1] + 6, "r": 2}
                cells.append(element("circle", dot))
    boxes = [element("path", {"class": f"box {style}", "d": "".join(d)}) for style, d in sorted(many.items())]
    return figure(
        key=key,
        title=title,
        description=description,
        width=left + len(columns) * width + longest * 0.71 + 8,
        height=top + len(rows) * height + 4,
        content=join(*parts, element("g", {"class": "grid"}, *boxes, *cells)),
        style="likeness",
    )


def _side(count: int, widest: float) -> float:
    """Px of a cell by how many there are beside each other."""
    return widest if count <= 16 else 26.0 if count <= 30 else 22.0 if count <= MANY_DATASETS else 15.0


def _style(value: float, limit: float | None) -> str:
    return palette.value_class(value, 0, 1) if limit is None else palette.diverging_class(value, limit)


def _column_name(name: str, x: float, y: float) -> Markup:
    place = {"x": x, "y": y, "class": "name", "transform": f"rotate(-45 {x:.1f} {y:.1f})"}
    return element("text", place, shorten(name, NAME_SIZE, _ROOM))


def _cell(place: tuple[float, float, float, float], style: str, told: str, text: str | None) -> Markup:
    x, y, width, height = place
    box = element(
        "rect",
        {"class": f"box {style}", "x": x, "y": y, "width": width, "height": height},
        element("title", None, told),
    )
    if text is None:
        return box
    middle = {"x": x + width / 2, "y": y + height / 2 + 4, "class": f"ink {style}", "text-anchor": "middle"}
    return join(box, element("text", middle, text))
