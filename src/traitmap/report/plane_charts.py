"""Charts with two axes: curves over doses or components, planes of points, and heat maps of likeness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from traitmap.analysis.tables import SCREE_MOST
from traitmap.analysis.traits.components import Biplot, ellipse
from traitmap.analysis.traits.records import Traits
from traitmap.matrix.reading import nice_limit
from traitmap.matrix.record import Array
from traitmap.matrix.statistics import Interval
from traitmap.report.chart import (
    BOLD,
    NAME_SIZE,
    TICK_SIZE,
    Chart,
    Drawing,
    Scale,
    around,
    circle,
    diverging_class,
    element,
    join,
    name_text,
    number,
    path,
    room_for,
    shorten,
    step,
    text,
    text_width,
    tick_text,
    value_class,
    value_step,
    wrapped,
    x_axis,
    y_axis,
)
from traitmap.wording import plain, signed, typeset

CROWDED = 24  # points from which a plane needs the page's whole width
_SLANTED = 15.0  # px that a column needs for a slanted name
MANY = 1000  # points from which each has no tooltip of its own: the table has the names
MANY_DATASETS = 45  # rows from which cells have no tooltip of their own: the table has the numbers


@dataclass(frozen=True)
class Curve:
    """Points (n) with intervals; ends that are NaN are not drawn, unknown values break the line.

    title, notes (two lines at most): above it. tone: ``neutral`` or ``quiet``.
    """

    at: tuple[float, ...]
    values: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    title: str = ""
    notes: tuple[str, ...] = ()
    tone: str = "neutral"


def curves(panels: Sequence[Curve], title: str, alt: str) -> Drawing:
    """A small panel for each curve, each with its own axes, since doses and measures differ.

    As many side by side as have room. Intervals are bars, unknown values break the line.
    """

    def draw(width: float) -> Chart:
        height, left, head, gap = 128.0, 44.0, 58.0, 24.0
        columns = max(1, min(round((width + gap) / 260), len(panels)))
        column, row = (width + gap) / columns, head + height + 26 + gap
        room = column - gap
        parts = []
        for at, panel in enumerate(panels):
            notes = [
                name_text(note, 0, 28 + 15 * line, room, anchor="start", style="tick")
                for line, note in enumerate(panel.notes[:2])
            ]
            place = f"translate({number((at % columns) * column)} {number((at // columns) * row)})"
            parts.append(
                element(
                    "g",
                    {"transform": place},
                    name_text(panel.title, 0, 12, room, anchor="start", style="group"),
                    *notes,
                    *_curve(panel, (left, room - 8), (head, head + height), margin=0.04),
                )
            )
        rows = -(-len(panels) // columns)
        return Chart(title, alt, join(*parts), width, rows * row - gap, "curves")

    return draw


def curve(panel: Curve, title: str, alt: str, *, choice: int | None, axes: tuple[str, str]) -> Drawing:
    """One larger curve over whole numbers. choice: the point that was chosen. axes: below and at the left.

    panel: its title and notes are not drawn here. Ends of intervals that are NaN are left out.
    """

    def draw(width: float) -> Chart:
        drawing = _curve(panel, (60.0, width - 10), (12.0, 230.0), margin=0.06, axes=axes, choice=choice)
        return Chart(title, alt, join(*drawing), width, 270.0, "curves")

    return draw


def _curve(
    panel: Curve,
    sides: tuple[float, float],
    levels: tuple[float, float],
    *,
    margin: float,
    axes: tuple[str, str] = ("", ""),
    choice: int | None = None,
) -> list[Markup]:
    """A curve with its axes between the px of its two sides, and of its top and bottom."""
    (left, right), (top, bottom) = sides, levels
    known = list(zip(panel.at, panel.values, panel.low, panel.high, strict=True))
    x = Scale(*around(panel.at, margin=margin), left + (8 if axes[0] else 6), right)
    y = Scale(*around([*panel.values, *panel.low, *panel.high]), bottom, top)
    doses, last = [], -99.0
    for at in panel.at:
        if x(at) - last >= 24:
            last = x(at)
            doses.append(text(last, bottom + 16, "tick", tick_text(float(f"{at:.3g}")), "middle"))
    intervals, line, pen = [], "", "M"
    for at, value, low, high in known:
        if isfinite(low) and isfinite(high):
            intervals.append(path("interval", f"M{x(at):.1f} {y(low):.1f}V{y(high):.1f}"))
        if isfinite(value):
            line += f"{pen}{x(at):.1f} {y(value):.1f}"
        pen = "L" if isfinite(value) else "M"
    dots = [circle("dot solid", x(at), y(value), 3.5) for at, value, _, _ in known if isfinite(value)]
    mark = None if choice is None else circle("chosen", x(panel.at[choice]), y(panel.values[choice]), 9)
    return [
        y_axis(y, y.ticks(5), left=left, right=right, title=axes[1]),
        *([x_axis(x, [], top=top, bottom=bottom, title=axes[:1])] if axes[0] else []),
        element("g", {"class": "axis"}, *doses),
        element(
            "g",
            {"class": f"line {panel.tone}"},
            *intervals,
            path("thread", line) if line else None,
            *dots,
            mark,
        ),
    ]


def scree(traits: Traits, title: str, alt: str) -> Drawing:
    """One stem per component over the noise band (box: 5th to 95th percentile, line: mean), in per cent.

    Components that are supported are darker. At most ``SCREE_MOST`` of them, the first ones.
    """
    left, top, bottom = 46.0, 14.0, 224.0
    shares = (traits.explained_variance_ratio, traits.null_p05, traits.null_mean, traits.null_p95)
    used = traits.n_components.get("used") or 0
    count = min(SCREE_MOST, len(traits.explained_variance_ratio))
    bands = [tuple(100 * float(column[c]) for column in shares) for c in range(count)]
    largest = max([v for ratio, _, _, high in bands for v in (ratio, high) if isfinite(v)], default=100.0)
    y = Scale(0.0, nice_limit(largest), bottom, top)

    def draw(width: float) -> Chart:
        pitch = min(64.0, (width - left - 8) / max(count, 1))
        right = left + count * pitch + 8
        parts = [y_axis(y, y.ticks(), left=left, right=right, unit=" %")]
        for c, (ratio, low, mean, high) in enumerate(bands):
            x, half = left + (c + 0.5) * pitch, 0.38 * pitch
            marks = []
            if isfinite(low) and isfinite(high):
                box = {"x": x - half, "y": y(high), "width": 2 * half, "height": y(low) - y(high), "rx": 3}
                marks.append(element("rect", {"class": "noise", **box}))
            if isfinite(mean):
                marks.append(path("noise-mean", f"M{x - half:.1f} {y(mean):.1f}h{2 * half:.1f}"))
            if isfinite(ratio):
                tone = "supported" if c < used else "unsupported"
                marks.append(path(f"stem {tone}", f"M{x:.1f} {bottom:.1f}V{y(ratio):.1f}"))
                marks.append(circle(f"dot {tone}", x, y(ratio), 5))
            name = f"PC{c}" if pitch >= 28 else str(c)
            parts.append(element("g", None, *marks, text(x, bottom + 18, "tick", name, "middle")))
        return Chart(title, alt, join(*parts), max(width, right), bottom + 26, "scree")

    return draw


def _plane(
    ends: tuple[float, float], size: float, ticks: int, axes: tuple[str, str]
) -> tuple[Scale, Scale, list[Markup]]:
    """A square of ``size`` px with the same ends on both axes: scales of x and y, and the axes drawn."""
    left, top = 56.0, 10.0
    x, y = Scale(*ends, left, left + size), Scale(*ends, top + size, top)
    places = x.ticks(ticks)
    return (
        x,
        y,
        [
            x_axis(x, places, top=top, bottom=top + size, title=wrapped(axes[0], TICK_SIZE, size)),
            y_axis(y, places, left=left, right=left + size, title=axes[1]),
        ],
    )


def biplot(
    plane: Biplot,
    sources: Sequence[str],
    targets: Sequence[str],
    title: str,
    alt: str,
    *,
    axes: tuple[str, str],
) -> Drawing:
    """Adapters as dots, targets as arrows from the middle, each with the 95 % ellipse of where it may lie.

    Arrows are drawn to the length that the dots leave room for; their directions and relative lengths tell.
    """
    dots, arrows = plane.scores, plane.loadings
    reach = float(np.nanmax(np.abs(dots))) if np.isfinite(dots).any() else 1.0
    longest = float(np.nanmax(np.linalg.norm(arrows, axis=1))) if np.isfinite(arrows).any() else 1.0
    stretch = reach / max(longest, 1e-12)
    span = 1.28 * reach
    names = [*zip(targets, arrows * stretch, strict=True), *zip(sources, dots, strict=True)]

    def draw(width: float) -> Chart:
        size = min(width - 64, 760.0)
        x, y, axis = _plane((-span, span), size, 7 if size > 300 else 5, axes)
        ellipses, tips = [], []
        for style, points, covariances in (
            ("target", arrows * stretch, plane.loadings_covariance * stretch**2),
            ("source", dots, plane.scores_covariance),
        ):
            for point, covariance in zip(points, covariances, strict=True):
                long, short, angle = ellipse(covariance)
                if np.isfinite(point).all() and isfinite(long):
                    cx, cy, unit = x(point[0]), y(point[1]), size / (2 * span)
                    place = {"cx": cx, "cy": cy, "rx": long * unit, "ry": short * unit}
                    turn = f"rotate({-angle:.1f} {cx:.1f} {cy:.1f})"
                    outline = {"class": f"ellipse {style}", **place, "transform": turn}
                    ellipses.append(element("ellipse", outline))
        for tip in arrows * stretch:
            if np.isfinite(tip).all():
                line = f"M{x(0):.1f} {y(0):.1f}L{x(tip[0]):.1f} {y(tip[1]):.1f}"
                tips += [path("arrow", line), circle("tip", x(tip[0]), y(tip[1]), 2.5)]
        spots = (circle("dot solid source", x(p[0]), y(p[1]), 4) for p in dots if np.isfinite(p).all())
        frame = element("rect", {"x": x.start, "y": y.end, "width": size, "height": size})
        clip = f"plane-{number(width)}"  # each drawing of a page has a width of its own
        content = join(
            *axis,
            element("defs", None, element("clipPath", {"id": clip}, frame)),
            element("g", {"clip-path": f"url(#{clip})"}, *ellipses),
            element("g", None, *tips),
            element("g", None, *spots),
            *_names(names, len(targets), x, y),
        )
        return Chart(title, alt, content, max(width, size + 64), size + 50, "plane")

    return draw


def _names(points: Sequence[tuple[str, Array]], targets: int, x: Scale, y: Scale) -> list[Markup]:
    """Names beside their points, each where it meets no other; one that finds no place is left out.

    Boxes are (left, top, right, bottom); the furthest points choose first.
    """
    known = [at for at, (_, point) in enumerate(points) if np.isfinite(point).all()]
    centres = {at: (x(points[at][1][0]), y(points[at][1][1])) for at in known}
    taken = [(cx - 4, cy - 4, cx + 4, cy + 4) for cx, cy in centres.values()]
    names = []
    for at in sorted(known, key=lambda at: (-float(np.hypot(*points[at][1])), at)):
        short = shorten(points[at][0], NAME_SIZE, 140)
        room = text_width(short, NAME_SIZE) * (1 if at < targets else BOLD) + 3
        for left, top, right, bottom in _places(*centres[at], room):
            inside = left > x.start and right < x.end and top > y.end and bottom < y.start
            if inside and not any(
                left < box[2] and box[0] < right and top < box[3] and box[1] < bottom for box in taken
            ):
                taken.append((left, top, right, bottom))
                style = "name target" if at < targets else "name source"
                names.append(text(left, bottom - 3.5, style, short))
                break
    return names


def _places(x: float, y: float, width: float) -> list[tuple[float, float, float, float]]:
    """Boxes of a name around a point, the best first."""
    height = 14.0
    corners = [
        (x + 7, y - height / 2),
        (x - 7 - width, y - height / 2),
        (x - width / 2, y - 7 - height),
        (x - width / 2, y + 7),
        (x + 5, y - 5 - height),
        (x + 5, y + 5),
        (x - 5 - width, y - 5 - height),
        (x - 5 - width, y + 5),
        (x + 14, y - 16 - height),
        (x + 14, y + 16),
        (x - 14 - width, y - 16 - height),
        (x - 14 - width, y + 16),
    ]
    return [(left, top, left + width, top + height) for left, top in corners]


def against(
    pairs: Sequence[tuple[str, Interval, float]], title: str, alt: str, *, axes: tuple[str, str]
) -> Drawing:
    """Measured (up) against predicted (right) with its interval; on the diagonal they are the same.

    pairs: name for the tooltip, prediction, measurement; pairs of which either is unknown are left out.
    """
    known = [(name, guess, value) for name, guess, value in pairs if guess.known and isfinite(value)]
    values = [value for _, _, value in known] + [guess.value for _, guess, _ in known]

    def draw(width: float) -> Chart:
        size = min(width - 64, 462.0)
        x, y, axis = _plane(around(values, zero=True), size, 6 if size > 300 else 4, axes)
        low, high = x.low, x.high
        parts = [path("diagonal", f"M{x(low):.1f} {y(low):.1f}L{x(high):.1f} {y(high):.1f}")]
        for style in ("held", "missed"):
            group = [pair for pair in known if (pair[1].low <= pair[2] <= pair[1].high) == (style == "held")]
            spans = [
                f"M{x(guess.low):.0f} {y(value):.0f}H{x(guess.high):.0f}"
                for _, guess, value in group
                if isfinite(guess.low)
            ]
            if spans:
                parts.append(path(f"spans {style}", "".join(spans)))
            for name, guess, value in group:
                dot = {"class": f"dot solid {style}", "cx": x(guess.value), "cy": y(value), "r": 3}
                tip = element("title", None, name) if len(known) <= MANY else None
                parts.append(element("circle", dot, tip))
        return Chart(title, alt, join(*axis, *parts), max(width, size + 64), size + 50, "plane")

    return draw


def likeness(
    rows: Sequence[str],
    columns: Sequence[str],
    values: Array,
    title: str,
    alt: str,
    *,
    limit: float | None = 1.0,
    marked: NDArray[np.bool_] | None = None,
    percent: bool = False,
) -> Drawing:
    """A heat map of values (R, C). limit: colours diverge about 0 up to it; None: shares from 0 to 1.

    marked: (R, C) cells with a dot. Values are written where there is room, and left out where unknown. Names
    of columns stand slanted, upright where that is too wide, and nowhere where columns are narrower than a
    line and are the rows again, in the rows' order.
    """
    same = list(rows) == list(columns)

    def draw(asked: float) -> Chart:
        left = room_for(rows, most=min(150.0, 0.34 * asked)) + 8
        short = [shorten(column, NAME_SIZE, 150.0) for column in columns]
        longest = room_for(short)
        overhang = longest * 0.71 + 8  # names are slanted by 45 degrees
        width = min(44.0, (asked - left - overhang) / len(columns))
        upright = width < _SLANTED
        if upright:
            overhang, width = 4.0, min(_SLANTED, (asked - left - 4) / len(columns))
            width = width if same else max(width, 12.0)
        named = not upright or width >= 12 or not same
        height = 26.0 if len(rows) <= 16 else 20.0 if len(rows) <= MANY_DATASETS else 15.0
        top = 6.0 if not named else longest + 12 if upright else longest * 0.71 + 14
        names = []
        for at, name in enumerate(short if named else ()):
            x, y, turn = left + (at + 0.5) * width, top - 7, 90 if upright else 45
            x += 4 if upright else 0
            names.append(text(x, y, "name", name, transform=f"rotate(-{turn} {x:.1f} {y:.1f})"))
        for at, name in enumerate(rows):
            names.append(name_text(name, left - 6, top + (at + 0.5) * height + 4, left - 6))
        cells: list[Markup] = []
        many: dict[str, list[str]] = {}
        for r, row in enumerate(rows):
            for c, column in enumerate(columns):
                x, y, value = left + c * width, top + r * height, float(values[r, c])
                if limit is None:
                    style = value_class(value_step(value, 0, 1))
                else:
                    style = diverging_class(step(value, limit))
                box = f"M{number(x)} {number(y)}h{number(width - 1)}v{height - 1:g}h{number(1 - width)}z"
                if len(rows) > MANY_DATASETS:  # one path of each colour: a page holds tens of thousands badly
                    many.setdefault(style, []).append(box)
                else:
                    words = typeset(f"{plain(100 * value, 0)} %" if percent else signed(value, 2))
                    whole = element("title", None, f"{row}, {column}: {words}")
                    cells.append(element("path", {"class": f"box {style}", "d": box}, whole))
                    if isfinite(value) and width >= 40:
                        middle, baseline = x + (width - 1) / 2, y + (height - 1) / 2 + 4
                        cells.append(text(middle, baseline, f"ink {style}", words, "middle"))
                if marked is not None and marked[r, c]:
                    cells.append(circle(f"even {style}", x + width - min(6, width / 2), y + 6, 2))
        boxes = [path(f"box {style}", "".join(shapes)) for style, shapes in sorted(many.items())]
        content = join(*names, element("g", {"class": "grid"}, *boxes, *cells))
        right, bottom = left + len(columns) * width + overhang, top + len(rows) * height + 4
        return Chart(title, alt, content, max(asked, right), bottom, "likeness")

    return draw
