"""The transfer matrix as a heat map: base row on top, diagonal outlined, unknown cells hatched.

Where no base is known there are no gains: the map then shows scores, without a row for the base.

``layout`` says how large everything is, ``heatmap`` draws it, and a view says which step of colour and which
words a cell has: its gain, its absolute value, or its place within its target's column.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any

from markupsafe import Markup

from traitmap.matrix.reading import Reading, TargetView
from traitmap.matrix.record import Cell
from traitmap.matrix.statistics import Interval
from traitmap.report import chart as palette
from traitmap.report.chart import Chart, element, join, shorten, text_width
from traitmap.wording import counted, estimate, interval, plain, signed, typeset

MATRIX = "matrix"  # the figure's name, and its id
Z_LIMIT = 3.0
_BASE_GAP = 10.0
_ARROW = 15.0
_PAGE = 1180.0
DENSE_NAME, DENSE_ROOM = 11.0, 130.0  # px of names, and of their room, where columns are narrow


@dataclass(frozen=True)
class Layout:
    """Sizes in px.

    left: room of the row names; top: height of the (slanted) column names; right: what these overhang.
    numbers: whether the cells are wide enough to hold numbers; else colour and mark only.
    """

    cell_width: float
    cell_height: float
    left: float
    top: float
    right: float
    label_size: float
    label_room: float
    slanted: bool
    numbers: bool
    columns: int
    rows: int
    has_base: bool
    row_order: tuple[int, ...]
    column_order: tuple[int, ...]

    @property
    def width(self) -> float:
        return self.left + self.columns * self.cell_width + self.right

    @property
    def height(self) -> float:
        return self.row_y(self.rows) + 4

    def x(self, target: int) -> float:
        """Left edge of a target's column."""
        return self.column_x(self.column_order.index(target))

    def y(self, source: int) -> float:
        """Top of a source's row; -1 is the base."""
        return self.row_y(self.row_order.index(source) if source >= 0 else -1)

    def column_x(self, place: int) -> float:
        """Left edge of the column that stands in a place."""
        return self.left + place * self.cell_width

    def row_y(self, place: int) -> float:
        """Top of the row that stands in a place; -1 is the base."""
        gap = self.cell_height + _BASE_GAP if place >= 0 and self.has_base else 0.0
        return self.top + gap + max(place, 0) * self.cell_height

    def label(self, name: str) -> str:
        """The name, cut to its room."""
        return shorten(name, self.label_size, self.label_room)


def layout(
    reading: Reading,
    order: tuple[tuple[int, ...], tuple[int, ...]] | None = None,
    width: float | None = None,
) -> Layout:
    """Sizes that suit the number of sources and targets and their names, and fill a width.

    order: of rows and of columns (``clustered_order``), by default the study's own. width: px, by default the
    page's; numbers are left out where columns have no room for them.
    """
    sources, targets = reading.sources, [target.name for target in reading.targets]
    arrows = any(target.better < 0 for target in reading.targets)

    def fitted(dense: bool) -> tuple[float, float, float, float, float]:
        """Size and room of names, px of row names, of the longest column name, and of a column."""
        size, room = (DENSE_NAME, DENSE_ROOM) if dense else (12.5, 164.0)
        room = min(room, 0.3 * (width or _PAGE))
        left = max([text_width(shorten(name, size, room), size) for name in sources] + [38.0]) + 16
        longest = max((text_width(shorten(name, size, room), size) for name in targets), default=0.0)
        # Slanted by 45 degrees: a name of length l is l * sin(45) high and overhangs by l * cos(45). Any
        # target may come last in some order.
        free = ((width or _PAGE) - left - longest * 0.7072) / max(len(targets), 1)
        return size, room, left, longest, free

    dense = len(targets) > 22 or (width is not None and fitted(False)[-1] < 40)
    size, room, left, longest, free = fitted(dense)
    column = min(30.0, max(13.0, free)) if dense else min(80.0, max(40.0, free))
    slanted = longest > column - 6
    row_order, column_order = order or (tuple(range(len(sources))), tuple(range(len(targets))))
    return Layout(
        cell_width=column,
        cell_height=min(column, 22.0) if dense else 30.0 + (6.0 if column > 60 else 0.0),
        left=left,
        top=(longest * 0.7072 + 20 if slanted else 26.0) + (_ARROW if arrows else 0),
        right=max(longest * 0.7072 + 8 - column / 2, 4.0) if slanted else 4.0,
        label_size=size,
        label_room=room,
        slanted=slanted,
        numbers=not dense,
        columns=len(targets),
        rows=len(sources),
        has_base=reading.has_base,
        row_order=row_order,
        column_order=column_order,
    )


def heatmap(reading: Reading, sizes: Layout | None = None, key: str = MATRIX) -> Chart:
    """The matrix of gains, or of scores where no base is known.

    Boxes stand in the file in the study's order and are moved to their places; the page's script shows other
    views and orders.

    key: of its ids. Places are told to the script as ``data-s`` (-1: the base) and ``data-t``.
    """
    sizes = sizes or layout(reading)
    numbers = "gain" if reading.has_base else "value"
    known = sum(isfinite(getattr(cell, numbers)) for row in reading.cells for cell in row)
    style = "heatmap dense" if not sizes.numbers else "heatmap snug" if sizes.cell_width < 52 else "heatmap"
    hatches = []
    for name, size, stroke in (("unknown", 6, 2.5), ("predicted", 5, 1)):
        line = element("path", {"d": f"M0 0V{size}", "class": f"hatch-{name}", "stroke-width": stroke})
        place = {"id": f"{key}-{name}", "width": size, "height": size, "patternUnits": "userSpaceOnUse"}
        hatches.append(element("pattern", {**place, "patternTransform": "rotate(45)"}, line))
    return Chart(
        title="Transfer matrix",
        alt=(
            f"Heat map of {'gains over the base' if reading.has_base else 'scores'}: "
            f"{counted(len(reading.sources), 'source')} (rows) by "
            f"{counted(len(reading.targets), 'target')} (columns), {known} {numbers}s known. "
            "The same numbers stand in the table below."
        ),
        content=join(
            element("defs", None, *hatches),
            _column_names(reading, sizes),
            element("g", {"class": "grid"}, *_cells(reading, sizes, key)),
            element("g", {"class": "outlines"}, *_outlines(reading, sizes)),
            _row_names(reading, sizes),
        ),
        width=sizes.width,
        height=sizes.height,
        style=style,
    )


def matrix_words(reading: Reading) -> tuple[str, str, float]:
    """Title, caption and px of the matrix where it stands alone."""
    cells = [cell for row in reading.cells for cell in row]
    units = {target.unit for target in reading.targets}
    unit = f"in {next(iter(units))}" if len(units) == 1 and units != {""} else "each target in its own unit"
    rows = f"{counted(len(reading.sources), 'source')} (rows)"
    rows += f", {counted(len(reading.targets), 'target')} (columns)"
    if not reading.has_base:
        return "Scores", f"Scores of {rows}, {unit}. Colours run over all targets of one unit.", _PAGE
    caption = f"Gains over the base, {unit}: {rows}. The top row is the base in absolute values."
    if any(isfinite(cell.q) for cell in cells):
        caption += " Tests are of paired items, corrected over the matrix (Benjamini-Hochberg)."
    return "Transfer matrix", caption, _PAGE


def matrix_key(reading: Reading) -> tuple[tuple[str, str], ...]:
    """Marks of the matrix and their words, of those that it has."""
    cells = [cell for row in reading.cells for cell in row]
    steps = range(-palette.STEPS, palette.STEPS + 1, 2)
    if reading.has_base:
        limits = {target.unit: target.limit for target in reading.targets}
        ends = ", ".join(
            f"{plain(limit, 0 if limit == round(limit) else 1)} {unit}" for unit, limit in limits.items()
        )
        marks = [
            ("ramp " + " ".join(map(palette.diverging_class, steps)), f"from {ends} worse to {ends} better")
        ]
    else:
        shades = range(palette.STEPS + 1)
        marks = [
            (
                "ramp " + " ".join(map(palette.value_class, shades)),
                "from the worst to the best score of a unit",
            )
        ]
    if any(isfinite(cell.q) for cell in cells):
        marks.append(("significant", "beyond noise (q < .05)"))
    if any(reading.in_domain(s, t) for s in range(len(reading.sources)) for t in range(len(reading.targets))):
        marks.append(("frame", "in-domain"))
    if reading.touched:
        marks.append(("fold", "test items occur in the training data"))
    if any(not isfinite(cell.value) for cell in cells):
        marks.append(("hatched", "not measured"))
    if reading.some_predicted:
        marks.append(("hatched", "predicted (~)"))
    return tuple(marks)


def _column_names(reading: Reading, sizes: Layout) -> Markup:
    names = []
    for t, target in enumerate(reading.targets):
        lower = target.better < 0
        place: dict[str, Any] = {"class": "name", "y": -9 - (_ARROW if lower else 0), "data-t": t}
        if sizes.slanted:
            place |= {"transform": f"rotate(-45 0 {place['y']:g})"}
        else:
            place |= {"text-anchor": "middle"}
        arrow = element("text", {"class": "name", "y": -7, "text-anchor": "middle"}, "↓") if lower else None
        at = f"translate({sizes.x(t) + sizes.cell_width / 2:g} {sizes.top:g})"
        name = element("text", place, sizes.label(target.name))
        names.append(element("g", {"class": "column-name", "transform": at}, arrow, name))
    return element("g", {"class": "column-names", "aria-hidden": "true"}, *names)


def _row_names(reading: Reading, sizes: Layout) -> Markup:
    """Names of the rows over a backdrop: the page keeps them in sight when a wide matrix is scrolled."""
    box = {"x": 0, "y": sizes.top - 1, "width": sizes.left - 3, "height": sizes.height}
    names = [element("rect", {"class": "backdrop", **box})]
    start = -1 if sizes.has_base else 0
    for s, name in enumerate(("base", *reading.sources)[start + 1 :], start=start):
        style = "name base-name" if s < 0 else "name variation" if s in reading.variations else "name"
        place = f"translate({sizes.left - 10:g} {sizes.y(s) + sizes.cell_height / 2 + 4:g})"
        attributes = {"transform": place, "class": style, "text-anchor": "end", "data-s": s}
        names.append(element("text", attributes, name if s < 0 else sizes.label(name)))
    return element("g", {"class": "row-names", "aria-hidden": "true"}, *names)


def _box(sizes: Layout, row: int, column: int, style: str, words: str, hatch: str | None) -> Markup:
    """One cell; all cells have the same rectangle, moved into place. hatch: id of the pattern over it."""
    width, height = sizes.cell_width - 1.5, sizes.cell_height - 1.5
    rectangle = {"width": width, "height": height, "rx": 2}
    over = element("rect", rectangle | {"class": "overlay", "fill": f"url(#{hatch})"}) if hatch else None
    if not sizes.numbers:
        words = "•" if words.endswith("•") else ""
    return element(
        "g",
        {"class": style, "transform": f"translate({sizes.x(column):g} {sizes.y(row):g})"},
        element("rect", rectangle),
        over,
        element("text", {"x": width / 2, "y": height / 2 + 4, "text-anchor": "middle"}, words),
    )


def _cells(reading: Reading, sizes: Layout, key: str) -> list[Markup]:
    """The base's row of absolute values, then the gains, row by row; scores where there is no base."""
    boxes = []
    for t in range(len(reading.targets) if sizes.has_base else 0):
        step, words = absolute_view(reading, -1, t)
        if step is None:
            boxes.append(_box(sizes, -1, t, "cell base none", "", f"{key}-unknown"))
        else:
            boxes.append(_box(sizes, -1, t, "cell base", typeset(words), None))
    for s, row in enumerate(reading.cells):
        for t in range(len(row)):
            view = gain_view if sizes.has_base else absolute_view
            step, words = view(reading, s, t)
            significant, predicted = reading.significant(s, t), reading.is_predicted(s, t)
            hatch = "predicted" if predicted else "unknown" if step is None else ""
            words = typeset(words)
            if step is not None:
                words += " ~" if predicted else " •" if significant else ""
            colour = palette.diverging_class(step) if sizes.has_base else palette.value_class(step)
            style = f"cell {colour}{' sig' if significant else ''}"
            boxes.append(_box(sizes, s, t, style, words, f"{key}-{hatch}" if hatch else None))
    return boxes


def _outlines(reading: Reading, sizes: Layout) -> list[Markup]:
    """The diagonal framed, and a folded corner where test items occur in the training data."""

    def place(s: int, t: int) -> dict[str, Any]:
        return {"data-s": s, "data-t": t, "transform": f"translate({sizes.x(t):g} {sizes.y(s):g})"}

    size = {"x": -0.75, "y": -0.75, "width": sizes.cell_width, "height": sizes.cell_height, "rx": 3}
    frames = [
        element("rect", {"class": "diagonal", **place(s, t), **size})
        for s in range(len(reading.sources))
        for t in range(len(reading.targets))
        if reading.in_domain(s, t)
    ]
    side = min(9.0, sizes.cell_width / 3)
    fold = f"M{sizes.cell_width - 1.5 - side:g} 0h{side:g}v{side:g}Z"
    return frames + [
        element("path", {"class": "touched" if overlap.material else "touched few", **place(s, t), "d": fold})
        for (s, t), overlap in sorted(reading.touched.items())
    ]


def gain_view(reading: Reading, source: int, target: int) -> tuple[int | None, str]:
    """Step of colour (positive: better, whatever the metric's direction) and number of a gain.

    The step is None and the number empty (or ``failed``) where the gain is unknown. The number is in the
    target's shown unit.
    """
    cell, view = reading.cells[source][target], reading.targets[target]
    if not isfinite(cell.gain):
        return None, "failed" if cell.status == "failed" else ""
    step = palette.step(reading.improvement(source, target), view.limit)
    return step, signed(cell.gain * view.factor, view.digits)


def absolute_view(reading: Reading, source: int, target: int) -> tuple[int | None, str]:
    """Step of colour (0: worst) and number of the adapter's own value; source -1 is the base.

    The lowest value of a target where lower is better is its best one. None and empty (or ``failed``) where
    it is unknown.
    """
    cell = reading.base[target] if source < 0 else reading.cells[source][target]
    view = reading.targets[target]
    if not isfinite(cell.value):
        return None, "failed" if cell.status == "failed" else ""
    value = cell.value * view.factor
    low, high = (view.low, view.high) if view.better > 0 else (-view.high, -view.low)
    return palette.value_step(value * view.better, low, high), plain(value, view.digits)


def z_view(reading: Reading, source: int, target: int) -> tuple[int | None, str]:
    """Step of colour (positive: better) and number of a value standardised within its target's column.

    The deepest colour stands at three standard deviations. None and empty where it is unknown.
    """
    z = float(reading.z[source, target])
    return palette.step(z * reading.targets[target].better, Z_LIMIT), signed(z) if isfinite(z) else ""


def scaled_interval(cell: Cell, target: TargetView) -> str:
    """The gain's interval in the target's shown unit."""
    return interval(cell.gain_low * target.factor, cell.gain_high * target.factor, target.digits)


def gain_text(cell: Cell, target: TargetView) -> str:
    """The gain with its interval in the target's shown unit: ``+3.6 [+1.2, +6.0]``.

    The gain alone where it has no interval, a dash where it is unknown.
    """
    gain = Interval(cell.gain * target.factor, cell.gain_low * target.factor, cell.gain_high * target.factor)
    return estimate(gain, target.digits)
