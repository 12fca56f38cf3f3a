"""What the page's script shows of a matrix: views of every seed and metric, and the details of cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite, nan
from typing import TYPE_CHECKING, Any

from traitmap.matrix import Cell, TransferMatrix
from traitmap.report import palette
from traitmap.report.heatmap import Z_LIMIT, Layout, absolute_view, scaled_interval
from traitmap.report.reading import Reading, Target, of_seed, read
from traitmap.report.svg import clean
from traitmap.report.wording import plain, probability, share, signed

if TYPE_CHECKING:
    from traitmap.analysis.cell_details import MetricTable

_METRIC_NAMES = {
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "kappa": "Cohen's kappa",
    "matthews": "Matthews correlation",
}
_LOWER = ("perplexity", "loss", "bits_per", "error", "brier")
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
        name = _METRIC_NAMES.get(table.name, clean(table.name).replace("_", " "))
        found.append(Layer("metric", name, layer_data(of_metric(matrix, table))))
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
    lower = any(word in table.name for word in _LOWER) and "negative" not in table.name
    directions = {"higher_is_better": dict.fromkeys(matrix.targets, not lower)}
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


def _with_unit(text: str, target: Target) -> str:
    return f"{text} %" if target.unit == "points" else text


def _target_facts(target: Target) -> dict[str, str]:
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
