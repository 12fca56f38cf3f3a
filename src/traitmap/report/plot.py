"""Scales, axes and texts that figures share: from data to px, with round ticks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10

from markupsafe import Markup

from traitmap.report.svg import element, shorten, text_width
from traitmap.report.wording import typeset

TICK_SIZE = 11.0
NAME_SIZE = 12.0
_STEPS = (1, 2, 2.5, 5, 10)


@dataclass(frozen=True)
class Scale:
    """A straight or logarithmic map from low..high to the px start..end; what lies beyond is held there."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        value = max(low, min(high, value))
        if self.logarithmic:
            low, high, value = log10(low), log10(high), log10(value)
        share = (value - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)

    def holds(self, value: float) -> bool:
        """Whether a value lies on the axis."""
        return isfinite(value) and self.low <= value <= self.high


def round_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers within low..high, at most ``most`` or so."""
    if not (isfinite(low) and isfinite(high)) or high <= low:
        return [low] if isfinite(low) else []
    raw = (high - low) / max(most - 1, 1)
    scale = 10.0 ** floor(log10(raw))
    step = next(one * scale for one in _STEPS if one * scale >= raw * (1 - 1e-9))
    first, last = ceil(low / step - 1e-9), floor(high / step + 1e-9)
    return [round(at * step, 12) for at in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten within low..high; 2 and 5 times these where there are few."""
    first, last = floor(log10(low)), ceil(log10(high))
    factors = (1, 2, 5) if last - first < 3 else (1, 3) if last - first < 5 else (1,)
    found = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
    return [one for one in found if low * (1 - 1e-9) <= one <= high * (1 + 1e-9)]


def around(values: Iterable[float], *, zero: bool = False, margin: float = 0.06) -> tuple[float, float]:
    """Ends of an axis that holds all finite values (and zero), with some room; -1..1 where there are none."""
    known = [float(value) for value in values if isfinite(value)] + ([0.0] if zero else [])
    if not known:
        return -1.0, 1.0
    low, high = min(known), max(known)
    if high <= low:
        return low - 1.0, high + 1.0
    room = margin * (high - low)
    return (low if zero and low == 0 else low - room), (high if zero and high == 0 else high + room)


def tick_text(value: float, unit: str = "") -> str:
    """``0.5``, ``−20``, ``1k``, with the unit behind."""
    text = f"{value / 1000:g}k" if abs(value) >= 1000 else f"{round(value, 10):g}"
    return typeset(text) + unit


def x_axis(
    scale: Scale,
    ticks: Sequence[float],
    *,
    top: float,
    bottom: float,
    title: str = "",
    unit: str = "",
    zero: bool = True,
) -> Markup:
    """Rules from top to bottom with their numbers beneath, and the title beneath these."""
    parts = []
    for value in ticks:
        x = scale(value)
        style = "rule zero" if zero and value == 0 else "rule"
        parts.append(element("path", {"class": style, "d": f"M{x:.1f} {top:.1f}V{bottom:.1f}"}))
        place = {"x": x, "y": bottom + 14, "class": "tick", "text-anchor": "middle"}
        parts.append(element("text", place, tick_text(value, unit)))
    if title:
        place = {
            "x": (scale.start + scale.end) / 2,
            "y": bottom + 30,
            "class": "end",
            "text-anchor": "middle",
        }
        parts.append(element("text", place, title))
    return element("g", {"class": "axis"}, *parts)


def y_axis(
    scale: Scale,
    ticks: Sequence[float],
    *,
    left: float,
    right: float,
    title: str = "",
    unit: str = "",
    zero: bool = True,
) -> Markup:
    """Rules from left to right with their numbers at the left, and the title turned beside these."""
    parts = []
    for value in ticks:
        y = scale(value)
        style = "rule zero" if zero and value == 0 else "rule"
        parts.append(element("path", {"class": style, "d": f"M{left:.1f} {y:.1f}H{right:.1f}"}))
        place = {"x": left - 7, "y": y + 4, "class": "tick", "text-anchor": "end"}
        parts.append(element("text", place, tick_text(value, unit)))
    if title:
        y = (scale.start + scale.end) / 2
        place = {
            "x": 12,
            "y": y,
            "class": "end",
            "text-anchor": "middle",
            "transform": f"rotate(-90 12 {y:.1f})",
        }
        parts.append(element("text", place, title))
    return element("g", {"class": "axis"}, *parts)


def name_text(
    name: str, x: float, y: float, room: float, *, anchor: str = "end", style: str = "name"
) -> Markup:
    """A name cut to its room, whole in its tooltip."""
    short = shorten(name, NAME_SIZE, room)
    whole = element("title", None, name) if short != name else None
    return element("text", {"x": x, "y": y, "class": style, "text-anchor": anchor}, whole, short)


def room_for(
    texts: Iterable[str], *, least: float = 0.0, most: float = 1e9, size: float = NAME_SIZE
) -> float:
    """Px that the widest text takes, within limits."""
    widest = max((text_width(text, size) for text in texts), default=0.0)
    return min(most, max(least, widest + 4))
