"""Small curves beside each other: what a number does as a dose grows, or as components are added."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from markupsafe import Markup

from traitmap.report.plot import Scale, around, name_text, round_ticks, tick_text, x_axis, y_axis
from traitmap.report.svg import element, figure, join

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
