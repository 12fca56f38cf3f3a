"""Points on a plane: the biplot of adapters and targets, and what was measured against what was predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
from markupsafe import Markup

from traitmap.analysis.biplot import Biplot, ellipse
from traitmap.report.plot import NAME_SIZE, Scale, around, round_ticks, x_axis, y_axis
from traitmap.report.svg import element, figure, join, shorten, text_width

_SMALL, _LARGE, _LEFT, _TOP, _BOTTOM = 462.0, 760.0, 56.0, 10.0, 40.0
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
    x = Scale(-span, span, _LEFT, _LEFT + size)
    y = Scale(-span, span, _TOP + size, _TOP)
    ticks = round_ticks(-span, span, 7)
    shapes = [
        *_ellipses(arrows * stretch, plane.loadings_covariance * stretch**2, x, y, "target"),
        *_ellipses(dots, plane.scores_covariance, x, y, "source"),
    ]
    clip = element(
        "clipPath",
        {"id": f"{key}-frame"},
        element("rect", {"x": _LEFT, "y": _TOP, "width": size, "height": size}),
    )
    labels = [(name, place) for name, place in zip(targets, arrows * stretch, strict=True)]
    return figure(
        key=key,
        title=title,
        description=description,
        width=_LEFT + size + 8,
        height=_TOP + size + _BOTTOM,
        style="plane",
        content=join(
            element("defs", None, clip),
            x_axis(x, ticks, top=_TOP, bottom=_TOP + size, title=axes[0]),
            y_axis(y, ticks, left=_LEFT, right=_LEFT + size, title=axes[1]),
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
    known = [one for one in guesses if isfinite(one.predicted) and isfinite(one.measured)]
    low, high = around([one.measured for one in known] + [one.predicted for one in known], zero=True)
    x = Scale(low, high, _LEFT, _LEFT + size)
    y = Scale(low, high, _TOP + size, _TOP)
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
        width=_LEFT + size + 8,
        height=_TOP + size + _BOTTOM,
        style="plane",
        content=join(
            x_axis(x, ticks, top=_TOP, bottom=_TOP + size, title=axes[0]),
            y_axis(y, ticks, left=_LEFT, right=_LEFT + size, title=axes[1]),
            *parts,
        ),
    )
