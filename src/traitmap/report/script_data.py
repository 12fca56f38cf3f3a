"""What the page's script shows: views of every seed and metric, and the details of cells, as compact data.

A *layer* is one whole matrix; the page changes between the study's own, each seed's and those of other
metrics. Details of cells come in one part for each target, which the script reads when a cell is opened.
Texts are plain ASCII where they can be; the script sets minus signs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import isfinite, isnan, nan
from typing import TYPE_CHECKING, Any

from traitmap.analysis.verdicts import GLYPHS, UNCLEAN, Verdicts
from traitmap.matrix.reading import Reading, TargetView, of_seed, read
from traitmap.matrix.record import Array, Cell, TransferMatrix
from traitmap.metrics import direction, metric
from traitmap.report.heatmap import Layout, absolute_view, gain_view, scaled_interval, z_view
from traitmap.wording import (
    clean,
    estimate,
    plain,
    probability,
    sentence,
    share,
    signed,
    typeset,
    with_interval,
)

if TYPE_CHECKING:
    from traitmap.analysis.cells import (
        CellDetail,
        Histogram,
        MetricTable,
        RunDetails,
        SideBySide,
        TargetDetail,
    )
    from traitmap.analysis.profiles.pairs import Reason

_VIEWS = {"gain": gain_view, "absolute": absolute_view, "z": z_view}


def layers(
    matrix: TransferMatrix, reading: Reading, metrics: Sequence[MetricTable] = ()
) -> list[dict[str, Any]]:
    """The study's own matrix first, then each seed's, then other metrics.

    Each has a ``group`` (``seed`` or ``metric``), a ``label`` and its ``data``, as of ``layer_data``.
    """
    seeds = reading.seeds if len(reading.seeds) > 1 else ()
    readings = [("seed", f"mean of {len(seeds)} seeds" if seeds else "as measured", reading)]
    readings += [("seed", f"seed {seed}", of_seed(reading, seed)) for seed in seeds]
    for table in metrics:
        name, filtered, filter_name = table.name.partition(" (")
        label = clean(metric(name).label + filtered + filter_name)
        readings.append(("metric", label, of_metric(matrix, table)))
    return [{"group": group, "label": label, "data": layer_data(one)} for group, label, one in readings]


def of_metric(matrix: TransferMatrix, table: MetricTable) -> Reading:
    """The matrix in another metric, which has gains with intervals but no test.

    Colours have limits of their own. Cells that the metric does not know are missing, with the reason.
    """

    def cell(source: str, target: str, value: float, gain: float, low: float, high: float) -> Cell:
        known = isfinite(value)
        return Cell(
            source=source,
            target=target,
            seed=None,
            metric=table.name,
            value=value,
            n=0,
            stderr=nan,
            gain=gain,
            gain_low=low,
            gain_high=high,
            p=nan,
            q=nan,
            unparsed=nan,
            status="measured" if known else "missing",
            reason="another metric than the study's own: no test"
            if known
            else "this target has no such metric, or it is undefined here",
        )

    base = [float(value) for value in table.baseline]
    cells = []
    for s, source in enumerate(matrix.sources):
        for t, target in enumerate(matrix.targets):
            value, low, high = (float(part[s, t]) for part in (table.values, table.low, table.high))
            cells.append(cell(source, target, value, value - base[t], low, high))
    return read(
        replace(
            matrix,
            values=table.values,
            baseline=table.baseline,
            cells=tuple(cells),
            base_cells=tuple(
                cell("", target, base[t], 0.0, nan, nan) for t, target in enumerate(matrix.targets)
            ),
            conditions={"higher_is_better": dict.fromkeys(matrix.targets, direction(table.name)[0])},
            chance=None,
            majority=None,
        )
    )


def layer_data(reading: Reading) -> dict[str, Any]:
    """Steps of colour and texts of every cell in each view, and its details, row by row in the study's order.

    marks: a character for each cell: ``*`` significant, ``~`` predicted, ``?`` no gain, ``.`` none of these.
    """
    targets = range(len(reading.targets))
    places = [(s, t) for s in range(len(reading.sources)) for t in targets]
    bases = [absolute_view(reading, -1, t) for t in targets]
    views = {name: [view(reading, s, t) for s, t in places] for name, view in _VIEWS.items()}
    marks = [
        "?"
        if not isfinite(reading.cells[s][t].gain)
        else "~"
        if reading.is_predicted(s, t)
        else "*"
        if reading.significant(s, t)
        else "."
        for s, t in places
    ]
    return {
        "base": {
            "steps": [step for step, _ in bases],
            "texts": [words for _, words in bases],
            "facts": _columns([_base_facts(reading, t) for t in targets]),
        },
        "targets": _columns(
            [
                {
                    "unit": clean(target.unit),
                    "metric": clean(target.metric),
                    **({"direction": "lower is better"} if target.better < 0 else {}),
                }
                for target in reading.targets
            ]
        ),
        "steps": {name: [step for step, _ in cells] for name, cells in views.items()},
        "texts": {name: [words for _, words in cells] for name, cells in views.items()},
        "numbers": _numbers(reading),
        "marks": "".join(marks),
        "facts": _columns([cell_facts(reading, s, t) for s, t in places]),
    }


def _numbers(reading: Reading) -> dict[str, list[float | None]]:
    """Gains and scores of every cell in shown units, to sort and to average by; null where unknown."""

    def rounded(value: float, target: TargetView) -> float | None:
        return round(value * target.factor, target.digits + 2) if isfinite(value) else None

    cells = [
        (cell, target) for row in reading.cells for cell, target in zip(row, reading.targets, strict=True)
    ]
    return {
        "gain": [rounded(cell.gain, target) for cell, target in cells],
        "absolute": [rounded(cell.value, target) for cell, target in cells],
        "base": [
            rounded(cell.value, target) for cell, target in zip(reading.base, reading.targets, strict=True)
        ],
    }


def _columns(rows: Sequence[dict[str, str]]) -> dict[str, Any]:
    """Facts by name: a list with one text for each row, one text where all are the same; none left out."""
    names = dict.fromkeys(name for row in rows for name in row)
    columns: dict[str, Any] = {}
    for name in names:
        values = [row.get(name, "") for row in rows]
        columns[name] = values[0] if len(set(values)) == 1 else values
    return columns


def _with_unit(value: float, target: TargetView) -> str:
    text = plain(value * target.factor, target.digits)
    return f"{text} %" if target.unit == "points" else text


def _with_error(cell: Cell, target: TargetView) -> str:
    error = f" ± {plain(cell.stderr * target.factor, target.digits)}" if isfinite(cell.stderr) else ""
    return _with_unit(cell.value, target) + error


def _base_facts(reading: Reading, t: int) -> dict[str, str]:
    target, base = reading.targets[t], reading.base[t]
    unknown = f"unknown{': ' + clean(base.reason) if base.reason else ''}"
    facts = {"value": _with_error(base, target) if isfinite(base.value) else unknown}
    for name, value in (("chance", reading.chance[t]), ("majority", reading.majority[t])):
        if isfinite(value):
            facts[name] = _with_unit(value, target)
    if isfinite(base.unparsed):
        facts["unparsed"] = share(base.unparsed)
    if any(reading.target_caveats[t : t + 1]):
        facts["caveats"] = clean("; ".join(reading.target_caveats[t]))
    return facts


def cell_facts(reading: Reading, s: int, t: int) -> dict[str, str]:
    """The details of one cell as text; what is unknown is left out, with the reason where there is one."""
    cell, target = reading.cells[s][t], reading.targets[t]
    facts: dict[str, str] = {}
    if isfinite(cell.value):
        facts["value"] = _with_error(cell, target)
    if isfinite(cell.gain_low):
        facts["interval"] = scaled_interval(cell, target)
    for name, value in (("p", cell.p), ("q", cell.q)):
        if isfinite(value):
            facts[name] = probability(value)
    if cell.n:
        facts["n"] = cell.asked_words or str(cell.n)
    if isfinite(cell.unparsed):
        facts["unparsed"] = share(cell.unparsed)
    if len(reading.by_seed[s][t]) > 1:
        facts["seeds"] = ", ".join(
            f"{single.seed}: {signed(single.gain * target.factor, target.digits)}"
            for single in reading.by_seed[s][t]
        )
    if (s, t) in reading.touched:
        facts["overlap"] = reading.touched[s, t].words
    if cell.status not in ("measured", "given"):
        facts["status"] = cell.status
    if reason := "; ".join(filter(None, (cell.reason, *(reading.source_caveats or ((),) * (s + 1))[s]))):
        facts["reason"] = clean(reason)
    return facts


def frame_data(
    matrix: TransferMatrix,
    reading: Reading,
    sizes: Layout,
    matrices: Sequence[dict[str, Any]],
    verdicts: Verdicts,
) -> dict[str, Any]:
    """What all layers have in common: names, groups, places in px, the order of clusters, and verdicts.

    matrices: of ``layers``. Places are those of columns and rows on the screen, the base's row first. kinds:
    of verdicts; ``verdicts`` has a character for each cell, its place among them as a letter from ``a``.
    """
    cells = [verdicts.of(source, target.name) for source in reading.sources for target in reading.targets]
    places = {kind: chr(ord("a") + at) for at, kind in enumerate(GLYPHS)}
    return {
        "sources": [clean(name) for name in reading.sources],
        "targets": [clean(target.name) for target in reading.targets],
        "variations": {str(place): clean(words) for place, words in sorted(reading.variations.items())},
        "x": [round(sizes.column_x(place), 2) for place in range(sizes.columns)],
        "y": [round(sizes.row_y(place), 2) for place in range(-1, sizes.rows)],
        "cell": [round(sizes.cell_width, 2), round(sizes.cell_height, 2)],
        "left": round(sizes.left, 2),
        "top": round(sizes.top, 2),
        "clustered": {"sources": list(sizes.row_order), "targets": list(sizes.column_order)},
        "based": reading.has_base,
        "groups": {
            "sources": [[clean(tag) for tag in tags] for tags in reading.source_tags],
            "targets": [
                [clean(tag) for tag in matrix.target_tags.get(target.name, ())] for target in reading.targets
            ],
        },
        "better": [target.better for target in reading.targets],
        "digits": [target.digits for target in reading.targets],
        "units": [clean(target.unit) for target in reading.targets],
        "kinds": [[kind, glyph, kind in UNCLEAN] for kind, glyph in GLYPHS.items()],
        "verdicts": "".join(places[cell.kind] for cell in cells),
        "whys": [clean(sentence(cell.words)) if cell.beyond_noise or cell.controls else "" for cell in cells],
        "layers": [[layer["group"], layer["label"]] for layer in matrices],
    }


def cell_parts(reading: Reading, details: RunDetails | None) -> dict[int, dict[str, Any]]:
    """Place of a target -> the details of its cells; targets without details are left out.

    details: of a run; None gives nothing. A part has the target's texts, labels and lengths, and ``cells``
    by the place of their source; ``said`` has every answer once, and ``answers`` of the base and of each cell
    are places in it. ``scores`` are those of all items, for the base and then every source; ``apart`` says by
    how much every two of these differ.
    """
    if details is None:
        return {}
    parts: dict[int, dict[str, Any]] = {}
    for t, target in enumerate(reading.targets):
        part: dict[str, Any] = {}
        if (detail := details.targets.get(target.name)) is not None:
            said: dict[str, int] = {}
            shown = {
                str(s): details.cells[source, target.name]
                for s, source in enumerate(reading.sources)
                if (source, target.name) in details.cells
            }
            part = _target(detail) | {"answers": _places(detail.base_answers, said)}
            part["cells"] = {
                s: _cell(cell, details) | {"answers": _places(cell.answers, said)}
                for s, cell in shown.items()
            }
            part["said"] = list(said)
        if (sides := details.pairs.get(target.name)) is not None:
            part |= {"scores": [_scores(row, target) for row in sides.scores]}
            part |= {"apart": _apart(sides, target)}
        if part:
            parts[t] = part
    return parts


def _places(answers: Sequence[str], said: dict[str, int]) -> list[int]:
    """Each answer as its place among all that was said, which grows."""
    return [said.setdefault(clean(answer), len(said)) for answer in answers]


def _scores(row: Array, target: TargetView) -> str | list[float | None]:
    """Scores of all items: a character each (0, 1, and ? where unknown) where they are right or wrong."""
    values = row.tolist()
    if all(value in (0.0, 1.0) or isnan(value) for value in values):
        return "".join("?" if isnan(value) else str(int(value)) for value in values)
    return [None if isnan(value) else float(f"{value * target.factor:.4g}") for value in values]


def _apart(sides: SideBySide, target: TargetView) -> list[list[str]]:
    """Row less column with its interval in words; empty where it is not known."""

    def words(a: int, b: int) -> str:
        value, low, high = (float(part[a, b]) * target.factor for part in (sides.gain, sides.low, sides.high))
        return with_interval(value, low, high, target.digits, unknown="")

    places = range(len(sides.gain))
    return [[words(a, b) for b in places] for a in places]


def details_note(details: RunDetails | None) -> str:
    """Which cells have details, where it is not all of them."""
    if details is None or not details.chosen:
        return ""
    return (
        f"{len(details.cells)} of {details.measured} measured cells have answers and items here: "
        f"{details.chosen}."
    )


def _target(detail: TargetDetail) -> dict[str, Any]:
    """Texts of the items that are shown, and the base's answers and lengths.

    said: every answer once; answers are places in it.
    """
    part: dict[str, Any] = {
        "total": detail.total,
        "items": list(detail.items) if len(detail.items) < detail.total else [],
        "texts": [[clean(question), clean(gold)] for question, gold in detail.texts],
    }
    if detail.base_counts is not None:
        part["labels"] = [clean(label) for label in detail.labels]
        part["columns"] = [clean(column) for column in detail.columns]
        part["base"] = detail.base_counts.tolist()
    if detail.edges:
        part["unit"] = detail.unit
        part["edges"] = [round(edge, 1) for edge in detail.edges]
        part["baseLengths"] = _lengths(detail.base_lengths)
        part["goldLengths"] = _lengths(detail.gold_lengths)
    return part


def _cell(cell: CellDetail, details: RunDetails) -> dict[str, Any]:
    """Items won and lost, answers, lengths, and why the gain may not be what it seems."""
    place = (cell.source, cell.target)
    part: dict[str, Any] = {"seeds": cell.seeds, "items": cell.items, "won": cell.won, "lost": cell.lost}
    if cell.counts is not None:
        part["counts"] = cell.counts.tolist()
    if cell.lengths is not None:
        part["lengths"] = _lengths(cell.lengths)
    odd = details.odd.get(place)
    before = {reason.words for reason in odd.reasons} if odd is not None else set()
    reasons = [reason for reason in details.reasons.get(place, ()) if reason.words not in before]
    if reasons:
        part["reasons"] = [
            [_in_words(reason) for reason in reasons if bool(reason.significant) is sure]
            for sure in (True, False)
        ]
    if odd is not None:
        text = f"Odd: the texts' surface predicts {signed(odd.predicted)} {details.odd_unit}, and the gain "
        text += f"departs from that by {estimate(odd.departure)}."
        part["odd"] = [typeset(text), *map(_in_words, odd.reasons)]
    return part


def _in_words(reason: Reason) -> str:
    return typeset(clean(sentence(reason.words)).replace(" -> ", " → "))


def _lengths(histogram: Histogram | None) -> list[Any] | None:
    """Counts, mean, number."""
    if histogram is None:
        return None
    counts, mean = histogram
    return [list(counts), round(mean, 1), sum(counts)]
