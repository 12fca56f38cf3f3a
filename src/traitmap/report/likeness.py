"""Datasets against datasets, or against properties, as a heat map; a dot marks what chance explains too."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from traitmap.matrix_record import Array
from traitmap.report import palette
from traitmap.report.plot import NAME_SIZE, name_text, room_for
from traitmap.report.svg import element, figure, join, shorten
from traitmap.report.wording import plain, signed, typeset

_ROOM = 150.0
MANY = 45  # from so many rows on, cells have no tooltip of their own: the table has the numbers


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
            told = f"{row}, {column}: {typeset(text)}" if len(rows) <= MANY else None
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
    return widest if count <= 16 else 26.0 if count <= 30 else 22.0 if count <= MANY else 15.0


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
