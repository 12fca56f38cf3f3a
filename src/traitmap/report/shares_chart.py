"""Parts of wholes as stacked bars, one a dataset: shares of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from traitmap.report.plot import TICK_SIZE, Scale, name_text, room_for, x_axis
from traitmap.report.svg import element, figure, join, text_width
from traitmap.report.wording import share

_ROW, _BAR, _KINDS = 25.0, 17.0, 8


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
    bottom = 6 + _ROW * len(bars)
    parts = [x_axis(scale, [0, 25, 50, 75, 100], top=4, bottom=bottom, unit=" %")]
    for at, bar in enumerate(bars):
        y = 6 + _ROW * at
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
