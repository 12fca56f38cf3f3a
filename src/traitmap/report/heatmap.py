"""The transfer matrix as a heat map: base row on top, diagonal outlined, unknown cells hatched.

What the page's script shows of a matrix: views of every seed and metric, and the details of cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite, nan
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from traitmap.analysis.traits.scaling import Order
from traitmap.matrix.reading import Reading, TargetView, of_seed, read
from traitmap.matrix.record import Cell, TransferMatrix
from traitmap.metrics import direction, metric
from traitmap.report import chart as palette
from traitmap.report.chart import element, figure, join, shorten, text_width
from traitmap.wording import clean, counted, interval, plain, probability, share, signed, typeset

if TYPE_CHECKING:
    from traitmap.analysis.cells import MetricTable


VIEWS = ("gain", "absolute", "z")
Z_LIMIT = 3.0
_BASE_GAP = 10.0
_ARROW = 15.0
_PAGE = 1180.0


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
    order: Order

    @property
    def width(self) -> float:
        return self.left + self.columns * self.cell_width + self.right

    @property
    def height(self) -> float:
        return self.row_y(self.rows) + 4

    def x(self, target: int) -> float:
        """Left edge of a target's column."""
        return self.column_x(self.order.targets.index(target))

    def y(self, source: int) -> float:
        """Top of a source's row; -1 is the base."""
        return self.row_y(self.order.sources.index(source) if source >= 0 else -1)

    def column_x(self, place: int) -> float:
        """Left edge of the column that stands in a place."""
        return self.left + place * self.cell_width

    def row_y(self, place: int) -> float:
        """Top of the row that stands in a place; -1 is the base."""
        gap = self.cell_height + _BASE_GAP if place >= 0 else 0.0
        return self.top + gap + max(place, 0) * self.cell_height

    def label(self, name: str) -> str:
        """The name, cut to its room."""
        return shorten(name, self.label_size, self.label_room)


def layout(reading: Reading, order: Order | None = None) -> Layout:
    """Sizes that suit the number of sources and targets and their names, and fill the page's width.

    order: of rows and columns, by default the study's own.
    """
    sources, targets = reading.sources, [target.name for target in reading.targets]
    arrows = any(target.better < 0 for target in reading.targets)
    dense = len(targets) > 22
    size, room = (11.0, 130.0) if dense else (12.5, 164.0)
    widths = [text_width(shorten(name, size, room), size) for name in targets]
    left = max([text_width(shorten(name, size, room), size) for name in sources] + [38.0]) + 16
    longest = max(widths, default=0.0)
    # Slanted by 45 degrees: a name of length l is l * sin(45) high and overhangs by l * cos(45). Any target
    # may come last in some order.
    free = (_PAGE - left - longest * 0.7072) / max(len(targets), 1)
    width = min(30.0, max(13.0, free)) if dense else min(80.0, max(40.0, free))
    slanted = longest > width - 6
    return Layout(
        cell_width=width,
        cell_height=width if dense else 30.0 + (6.0 if width > 60 else 0.0),
        left=left,
        top=(longest * 0.7072 + 20 if slanted else 26.0) + (_ARROW if arrows else 0),
        right=max(longest * 0.7072 + 8 - width / 2, 4.0) if slanted else 4.0,
        label_size=size,
        label_room=room,
        slanted=slanted,
        numbers=not dense,
        columns=len(targets),
        rows=len(sources),
        order=order or Order(tuple(range(len(sources))), tuple(range(len(targets)))),
    )


def heatmap(reading: Reading, sizes: Layout | None = None, key: str = "matrix") -> Markup:
    """The matrix of gains as SVG. Boxes stand in the file in the study's order and are moved to their places;
    the page's script shows other views and orders."""
    sizes = sizes or layout(reading)
    known = sum(isfinite(cell.gain) for row in reading.cells for cell in row)
    return figure(
        key=key,
        title="Transfer matrix",
        description=(
            f"Heat map of gains over the base: {counted(len(reading.sources), 'source')} (rows) by "
            f"{counted(len(reading.targets), 'target')} (columns), {known} gains known. "
            "The same numbers stand in the table below."
        ),
        width=sizes.width,
        height=sizes.height,
        style="heatmap dense"
        if not sizes.numbers
        else "heatmap snug"
        if sizes.cell_width < 52
        else "heatmap",
        content=join(
            _patterns(key),
            _column_names(reading, sizes),
            element("g", {"class": "grid"}, *_base_row(reading, sizes, key), *_rows(reading, sizes, key)),
            element("g", {"class": "outlines"}, *_diagonal(reading, sizes), *_touched(reading, sizes)),
            _row_names(reading, sizes),
        ),
    )


def _patterns(key: str) -> Markup:
    """The hatch of unknown cells, and the lighter one of predicted cells."""
    lines = [
        element(
            "pattern",
            {
                "id": f"{key}-{name}",
                "width": size,
                "height": size,
                "patternUnits": "userSpaceOnUse",
                "patternTransform": "rotate(45)",
            },
            element("path", {"d": f"M0 0V{size}", "class": f"hatch-{name}", "stroke-width": stroke}),
        )
        for name, size, stroke in (("unknown", 6, 2.5), ("predicted", 5, 1))
    ]
    return element("defs", None, *lines)


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
        text = element("text", place, sizes.label(target.name))
        names.append(element("g", {"class": "column-name", "transform": at}, arrow, text))
    return element("g", {"class": "column-names", "aria-hidden": "true"}, *names)


def _row_names(reading: Reading, sizes: Layout) -> Markup:
    """Names of the rows over a backdrop: the page keeps them in sight when a wide matrix is scrolled."""
    backdrop = element(
        "rect",
        {"class": "backdrop", "x": 0, "y": sizes.top - 1, "width": sizes.left - 3, "height": sizes.height},
    )
    names = [_row_name("base", -1, sizes, "name base-name")]
    for s, name in enumerate(reading.sources):
        style = "name variation" if s in reading.variations else "name"
        names.append(_row_name(sizes.label(name), s, sizes, style))
    return element("g", {"class": "row-names", "aria-hidden": "true"}, backdrop, *names)


def _row_name(label: str, row: int, sizes: Layout, style: str) -> Markup:
    place = {
        "transform": f"translate({sizes.left - 10:g} {sizes.y(row) + sizes.cell_height / 2 + 4:g})",
        "class": style,
        "text-anchor": "end",
        "data-s": row,
    }
    return element("text", place, label)


def _box(
    sizes: Layout, row: int, column: int, *, style: str, text: str, key: str, overlay: str | None
) -> Markup:
    """One cell; all cells have the same rectangle, moved into place."""
    width, height = sizes.cell_width - 1.5, sizes.cell_height - 1.5
    rectangle = {"width": width, "height": height, "rx": 2}
    shown = text if sizes.numbers else ("" if not text.endswith("•") else "•")
    return element(
        "g",
        {"class": style, "transform": f"translate({sizes.x(column):g} {sizes.y(row):g})"},
        element("rect", rectangle),
        element("rect", rectangle | {"class": "overlay", "fill": f"url(#{key}-{overlay})"})
        if overlay
        else None,
        element("text", {"x": width / 2, "y": height / 2 + 4, "text-anchor": "middle"}, shown),
    )


def _base_row(reading: Reading, sizes: Layout, key: str) -> list[Markup]:
    boxes = []
    for t, (target, cell) in enumerate(zip(reading.targets, reading.base, strict=True)):
        known = isfinite(cell.value)
        boxes.append(
            _box(
                sizes,
                -1,
                t,
                style="cell base" if known else "cell base none",
                text=typeset(plain(cell.value * target.factor, target.digits)) if known else "",
                key=key,
                overlay=None if known else "unknown",
            )
        )
    return boxes


def _rows(reading: Reading, sizes: Layout, key: str) -> list[Markup]:
    boxes = []
    for s, row in enumerate(reading.cells):
        for t, cell in enumerate(row):
            colour, text = gain_view(reading, s, t)
            marked = " sig" if reading.significant(s, t) else ""
            overlay = "unknown" if not isfinite(cell.gain) else None
            if cell.status == "predicted":
                overlay = "predicted"
            boxes.append(
                _box(sizes, s, t, style=f"cell {colour}{marked}", text=text, key=key, overlay=overlay)
            )
    return boxes


def _diagonal(reading: Reading, sizes: Layout) -> list[Markup]:
    size = {"x": -0.75, "y": -0.75, "width": sizes.cell_width, "height": sizes.cell_height, "rx": 3}
    return [
        element("rect", {"class": "diagonal", **_place(sizes, s, t), **size})
        for s in range(len(reading.sources))
        for t in range(len(reading.targets))
        if reading.in_domain(s, t)
    ]


def _touched(reading: Reading, sizes: Layout) -> list[Markup]:
    """A folded corner where test items stand in the training texts."""
    side = min(9.0, sizes.cell_width / 3)
    fold = f"M{sizes.cell_width - 1.5 - side:g} 0h{side:g}v{side:g}Z"
    return [
        element(
            "path",
            {"class": "touched" if one.material else "touched few", **_place(sizes, s, t), "d": fold},
        )
        for (s, t), one in sorted(reading.touched.items())
    ]


def _place(sizes: Layout, s: int, t: int) -> dict[str, Any]:
    return {"data-s": s, "data-t": t, "transform": f"translate({sizes.x(t):g} {sizes.y(s):g})"}


def gain_view(reading: Reading, source: int, target: int) -> tuple[str, str]:
    """Colour class (better is blue, whatever the metric's direction) and text of a gain."""
    cell, shown = reading.cells[source][target], reading.targets[target]
    if not isfinite(cell.gain):
        return "none", _unknown_text(cell)
    mark = " •" if reading.significant(source, target) else ""
    if reading.is_predicted(source, target):
        mark = " ~"
    colour = palette.diverging_class(reading.improvement(source, target), shown.limit)
    return colour, typeset(signed(cell.gain * shown.factor, shown.digits)) + mark


def absolute_view(reading: Reading, source: int, target: int) -> tuple[str, str]:
    """Colour class and text of the adapter's own value; source -1 is the base."""
    cell = reading.base[target] if source < 0 else reading.cells[source][target]
    shown = reading.targets[target]
    if not isfinite(cell.value):
        return "none", _unknown_text(cell)
    value = cell.value * shown.factor
    low, high = (shown.low, shown.high) if shown.better > 0 else (-shown.high, -shown.low)
    return palette.value_class(value * shown.better, low, high), typeset(plain(value, shown.digits))


def z_view(reading: Reading, source: int, target: int) -> tuple[str, str]:
    """Colour class and text of the column-standardised value."""
    z = float(reading.z[source, target])
    if not isfinite(z):
        return "none", _unknown_text(reading.cells[source][target])
    return palette.diverging_class(z * reading.targets[target].better, Z_LIMIT), typeset(signed(z))


def _unknown_text(cell: Cell) -> str:
    return "failed" if cell.status == "failed" else ""


def scaled_interval(cell: Cell, target: TargetView) -> str:
    """The gain's interval in the target's shown unit."""
    return interval(cell.gain_low * target.factor, cell.gain_high * target.factor, target.digits)


_NO_TEST = "another metric than the study's own: no test"


@dataclass(frozen=True)
class Layer:
    """One matrix that the page can show. group: ``seed`` or ``metric``; data: see ``layer_data``."""

    group: str
    label: str
    data: dict[str, Any]


def layers(matrix: TransferMatrix, reading: Reading, metrics: Sequence[MetricTable] = ()) -> list[Layer]:
    """The study's own matrix first, then each seed's, then other metrics."""
    seeds = reading.seeds if len(reading.seeds) > 1 else ()
    own = f"mean of {len(seeds)} seeds" if seeds else "as measured"
    found = [Layer("seed", own, layer_data(reading))]
    found += [Layer("seed", f"seed {seed}", layer_data(of_seed(reading, seed))) for seed in seeds]
    for table in metrics:
        name, filtered, filter_name = table.name.partition(" (")
        label = clean(metric(name).label + filtered + filter_name)
        found.append(Layer("metric", label, layer_data(of_metric(matrix, table))))
    return found


def of_metric(matrix: TransferMatrix, table: MetricTable) -> Reading:
    """The matrix in another metric."""
    cells = []
    for s, source in enumerate(matrix.sources):
        for t, target in enumerate(matrix.targets):
            value, base = float(table.values[s, t]), float(table.baseline[t])
            limits = float(table.low[s, t]), float(table.high[s, t])
            cells.append(_metric_cell(source, target, table.name, value, value - base, limits))
    base_cells = tuple(
        _metric_cell("", target, table.name, float(table.baseline[t]), 0.0, (nan, nan))
        for t, target in enumerate(matrix.targets)
    )
    directions = {"higher_is_better": dict.fromkeys(matrix.targets, direction(table.name)[0])}
    whole = replace(
        matrix,
        values=table.values,
        baseline=table.baseline,
        cells=tuple(cells),
        base_cells=base_cells,
        conditions=directions,
        chance=None,
        majority=None,
    )
    return read(whole)


def _metric_cell(
    source: str, target: str, metric: str, value: float, gain: float, limits: tuple[float, float]
) -> Cell:
    known = isfinite(value)
    return Cell(
        source=source,
        target=target,
        seed=None,
        metric=metric,
        value=value,
        n=0,
        stderr=nan,
        gain=gain,
        gain_low=limits[0],
        gain_high=limits[1],
        p=nan,
        q=nan,
        unparsed=nan,
        status="measured" if known else "missing",
        reason=_NO_TEST if known else "this target has no such metric, or it is undefined here",
    )


def layer_data(reading: Reading) -> dict[str, Any]:
    """Steps of colour and texts of every cell in each view, and its details, row by row in the study's order.

    Texts are plain ASCII where they can be; the script sets minus signs. marks: a character for each cell:
    ``*`` significant, ``~`` predicted, ``?`` no gain, ``.`` none of these.
    """
    places = [(s, t) for s in range(len(reading.sources)) for t in range(len(reading.targets))]
    bases = [absolute_view(reading, -1, t) for t in range(len(reading.targets))]
    absolute = [absolute_view(reading, s, t) for s, t in places]
    return {
        "base": {
            "steps": [_step(style) for style, _ in bases],
            "texts": [_ascii(text) for _, text in bases],
            "facts": _columns([_base_facts(reading, t) for t in range(len(reading.targets))]),
        },
        "targets": _columns([_target_facts(target) for target in reading.targets]),
        "steps": {
            "gain": [palette.step(reading.improvement(s, t), reading.targets[t].limit) for s, t in places],
            "absolute": [_step(style) for style, _ in absolute],
            "z": [
                palette.step(float(reading.z[s, t]) * reading.targets[t].better, Z_LIMIT) for s, t in places
            ],
        },
        "texts": {
            "gain": [_gain_text(reading, s, t) for s, t in places],
            "absolute": [_ascii(text) for _, text in absolute],
            "z": [_z_text(reading, s, t) for s, t in places],
        },
        "marks": "".join(_mark(reading, s, t) for s, t in places),
        "facts": _columns([cell_facts(reading, s, t) for s, t in places]),
    }


def _step(style: str) -> int | None:
    return None if style == "none" else int(style[1:])


def _ascii(text: str) -> str:
    return text.replace("\u2212", "-")


def _gain_text(reading: Reading, s: int, t: int) -> str:
    cell, target = reading.cells[s][t], reading.targets[t]
    if not isfinite(cell.gain):
        return "failed" if cell.status == "failed" else ""
    return signed(cell.gain * target.factor, target.digits)


def _z_text(reading: Reading, s: int, t: int) -> str:
    z = float(reading.z[s, t])
    return signed(z) if isfinite(z) else ""


def _mark(reading: Reading, s: int, t: int) -> str:
    if not isfinite(reading.cells[s][t].gain):
        return "?"
    if reading.is_predicted(s, t):
        return "~"
    return "*" if reading.significant(s, t) else "."


def _columns(rows: Sequence[dict[str, str]]) -> dict[str, Any]:
    """Facts by name: a list with one text for each row, one text where all are the same; none left out."""
    names = dict.fromkeys(name for row in rows for name in row)
    found: dict[str, Any] = {}
    for name in names:
        values = [row.get(name, "") for row in rows]
        found[name] = values[0] if len(set(values)) == 1 else values
    return found


def _with_unit(text: str, target: TargetView) -> str:
    return f"{text} %" if target.unit == "points" else text


def _target_facts(target: TargetView) -> dict[str, str]:
    facts = {"unit": clean(target.unit), "metric": clean(target.metric)}
    return facts | ({"direction": "lower is better"} if target.better < 0 else {})


def _base_facts(reading: Reading, t: int) -> dict[str, str]:
    target, base = reading.targets[t], reading.base[t]
    facts = {}
    if isfinite(base.value):
        error = plain(base.stderr * target.factor, target.digits)
        value = _with_unit(plain(base.value * target.factor, target.digits), target)
        facts["value"] = value + (f" ± {error}" if isfinite(base.stderr) else "")
    else:
        facts["value"] = f"unknown{': ' + clean(base.reason) if base.reason else ''}"
    for name, value in (("chance", reading.chance[t]), ("majority", reading.majority[t])):
        if isfinite(value):
            facts[name] = _with_unit(plain(value * target.factor, target.digits), target)
    if isfinite(base.unparsed):
        facts["unparsed"] = share(base.unparsed)
    return facts


def cell_facts(reading: Reading, s: int, t: int) -> dict[str, str]:
    """The details of one cell as text; what is unknown is left out, with the reason where there is one."""
    cell, target = reading.cells[s][t], reading.targets[t]
    facts: dict[str, str] = {}
    if isfinite(cell.value):
        error = f" ± {plain(cell.stderr * target.factor, target.digits)}" if isfinite(cell.stderr) else ""
        facts["value"] = _with_unit(plain(cell.value * target.factor, target.digits), target) + error
    if isfinite(cell.gain_low):
        facts["interval"] = scaled_interval(cell, target)
    for name, value in (("p", cell.p), ("q", cell.q)):
        if isfinite(value):
            facts[name] = probability(value)
    if cell.n:
        facts["n"] = str(cell.n)
    if isfinite(cell.unparsed):
        facts["unparsed"] = share(cell.unparsed)
    if len(reading.by_seed[s][t]) > 1:
        facts["seeds"] = ", ".join(
            f"{one.seed}: {signed(one.gain * target.factor, target.digits)}" for one in reading.by_seed[s][t]
        )
    if (s, t) in reading.touched:
        facts["overlap"] = reading.touched[s, t].words
    if cell.status not in ("measured", "given"):
        facts["status"] = cell.status
    if cell.reason:
        facts["reason"] = clean(cell.reason)
    return facts


def frame_data(reading: Reading, sizes: Layout, found: Sequence[Layer]) -> dict[str, Any]:
    """What all layers have in common: names, places, and the order of clusters."""
    return {
        "sources": [clean(name) for name in reading.sources],
        "targets": [clean(target.name) for target in reading.targets],
        "variations": {str(place): clean(words) for place, words in sorted(reading.variations.items())},
        "x": [round(sizes.column_x(place), 2) for place in range(sizes.columns)],
        "y": [round(sizes.row_y(place), 2) for place in range(-1, sizes.rows)],
        "cell": [round(sizes.cell_width, 2), round(sizes.cell_height, 2)],
        "left": round(sizes.left, 2),
        "top": round(sizes.top, 2),
        "clustered": {"sources": list(sizes.order.sources), "targets": list(sizes.order.targets)},
        "layers": [[one.group, one.label] for one in found],
    }
