"""Distributions above each other on one logarithmic axis: lengths of texts, dataset by dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log10

import numpy as np
from markupsafe import Markup

from traitmap.matrix_record import Array
from traitmap.report.plot import TICK_SIZE, Scale, log_ticks, name_text, room_for, x_axis
from traitmap.report.svg import element, figure, join

_ROW, _HEADING, _RIDGE, _GRID = 30.0, 30.0, 26.0, 140
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
    low, high = _ends(rows)
    scale = Scale(low, high, left + 4, right, logarithmic=True)
    top = 22.0
    bottom = top + sum(_HEADING if row.heading else _ROW for row in rows) + 6
    parts = [x_axis(scale, log_ticks(low, high), top=top - 4, bottom=bottom, title=axis, zero=False)]
    for at, head in enumerate(heads):
        place = {"x": width - sum(columns[at + 1 :]), "y": 12, "class": "tick", "text-anchor": "end"}
        parts.append(element("text", place, head))
    y = top
    for row in rows:
        y += _HEADING if row.heading else _ROW
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


def _ends(rows: Sequence[Ridge]) -> tuple[float, float]:
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
    marks = _marks(row.percentiles, y, scale) if row.known and row.percentiles is not None else []
    return element("g", {"class": f"line {row.tone}"}, label, *marks, *texts)


def _marks(percentiles: Array, y: float, scale: Scale) -> list[Markup]:
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
