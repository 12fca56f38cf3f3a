"""Explained variance beside what noise of the same shape explains."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite

from markupsafe import Markup

from traitmap.analysis.records import Traits
from traitmap.report.reading import nice_limit
from traitmap.report.svg import element, figure, join
from traitmap.report.wording import plain

MOST = 12
_LEFT, _TOP, _HEIGHT, _BOTTOM = 46.0, 14.0, 210.0, 26.0


def scree(traits: Traits, key: str = "scree") -> Markup:
    """One stem per component over the noise band (box: 5th to 95th percentile, line: mean)."""
    count = min(MOST, len(traits.explained_variance_ratio))
    used = traits.n_components.get("used") or 0
    pitch = max(36.0, min(64.0, 560.0 / max(count, 1)))
    width = _LEFT + count * pitch + 8
    shown = [*traits.explained_variance_ratio[:count], *traits.null_p95[:count]]
    ceiling = nice_limit(100 * max([float(v) for v in shown if isfinite(v)], default=1.0))

    def y(ratio: float) -> float:
        return _TOP + _HEIGHT * (1 - 100 * ratio / ceiling)

    components = [_component(traits, c, _LEFT + (c + 0.5) * pitch, pitch, y, c < used) for c in range(count)]
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
        lines.append(element("path", {"class": rule, "d": f"M{_LEFT:g} {y:g}H{width:g}"}))
        place = {"x": _LEFT - 8, "y": y + 4, "class": "tick", "text-anchor": "end"}
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
