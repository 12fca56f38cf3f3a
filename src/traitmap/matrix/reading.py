"""How the numbers of one matrix are read: unit, direction, colour limit and cell by cell, for every view.

``read`` lays a matrix out; the page, the charts, the terminal and notebooks show what it says, so that a gain
is the same number everywhere. ``matrix_table`` is the matrix as a table for all of them.

The arithmetic here is that of display only: scaling to points, counting, and the standardised view of a
column. Whatever carries a statistical claim (intervals, p, q, traits) comes from the records.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import floor, isfinite, isnan, log10, nan
from typing import Any

import numpy as np

from traitmap import metrics
from traitmap.matrix.record import Array, Cell, TransferMatrix
from traitmap.study.settings import BASELINE
from traitmap.table import Column, Entry, Row, Table, to_notebook
from traitmap.wording import UNKNOWN, interval, listed, plain, related, share, signed

SIGNIFICANT = 0.05
# Marks behind a gain: its test items occur in the training data; predicted from other cells; asked in part.
MARK, PREDICTED, IN_PART = "!", "~", "°"
_DEEPEST_Z = 3.0  # standard deviations at which the colour of a score is deepest
_NOTES = 6  # on single targets and sources under a matrix
_NICE = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)


@dataclass(frozen=True)
class Touched:
    """How many of a target's items occur in a source's training data.

    touched: items that occur, of ``items``. kinds: how, in words. material: enough to move a gain by a point.
    """

    touched: int
    items: int
    kinds: str
    material: bool

    @property
    def words(self) -> str:
        """``36 of 499 (7 %): 30 equal, 6 nearly``."""
        return f"{self.touched:,} of {self.items:,} ({share(self.touched / self.items)}): {self.kinds}"


def touched_cells(conditions: Mapping[str, Any]) -> dict[tuple[str, str], Touched]:
    """Pairs whose items occur in the training data, by (source, target), from the conditions of a matrix.

    Empty where the texts were not compared; an overlap without items is not among the conditions.
    """
    pairs = conditions.get("contamination")
    pairs = pairs if isinstance(pairs, list | tuple) else ()
    return {
        (pair["source"], pair["target"]): Touched(
            touched=pair["exact"] + pair["contained"] + pair["near"],
            items=pair["items"],
            kinds=overlap_kinds(pair["exact"], pair["contained"], pair["near"], pair["short"]),
            material=bool(pair["material"]),
        )
        for pair in pairs
    }


def overlap_kinds(exact: int, contained: int, near: int, short: int) -> str:
    """How items occur in training data: ``30 equal, 6 nearly equal, 2 of them below eight words``."""
    counts = ((exact, "equal"), (contained, "within longer texts"), (near, "nearly equal"))
    text = listed([f"{count:,} {word}" for count, word in counts if count])
    return f"{text}, {short:,} of them below eight words" if short else text


@dataclass(frozen=True)
class TargetView:
    """How one target's numbers are shown.

    factor: from the matrix to what is shown (100 for shares of right answers: points).
    unit: ``points``, or what gains in the metric count, or nothing where that is not known; targets of one
        unit share their colour limits.
    better: +1 where higher is better, -1 where lower is.
    limit: the gain (in shown units) at which the colour is deepest, on either side of zero.
    low, high: shown values between which the absolute view is coloured.
    """

    name: str
    metric: str
    factor: float
    unit: str
    digits: int
    better: int
    limit: float
    low: float
    high: float


@dataclass(frozen=True)
class Reading:
    """A matrix laid out for showing: one Cell for each place, known or not.

    cells: (S, T) pooled cells; by_seed: (S, T) the cells of each seed, in order of seed.
    touched: places whose test items occur in the training data.
    base: (T,) the base's cells. z: (S, T) each target's column standardised over the sources.
    variations: place of a source -> how it was made from another one, in words; such a source is no
        further dataset.
    target_caveats, source_caveats: (T,) and (S,) what keeps a target's items, or a source's rows or adapter,
        from counting as they seem to, in sentences.
    absent: files that the run has had and lacks, with what cannot be told for that, in sentences.
    """

    sources: tuple[str, ...]
    targets: tuple[TargetView, ...]
    cells: tuple[tuple[Cell, ...], ...]
    by_seed: tuple[tuple[tuple[Cell, ...], ...], ...]
    base: tuple[Cell, ...]
    chance: Array
    majority: Array
    z: Array
    seeds: tuple[int, ...]
    source_tags: tuple[tuple[str, ...], ...]
    touched: Mapping[tuple[int, int], Touched] = field(default_factory=dict)
    variations: Mapping[int, str] = field(default_factory=dict)
    target_caveats: tuple[tuple[str, ...], ...] = ()
    source_caveats: tuple[tuple[str, ...], ...] = ()
    absent: tuple[str, ...] = ()

    def in_domain(self, source: int, target: int) -> bool:
        """Whether source and target carry the same name: the diagonal."""
        return self.sources[source] == self.targets[target].name

    def improvement(self, source: int, target: int) -> float:
        """Gain in the target's shown unit, positive where the adapter is better. NaN if unknown."""
        reading = self.targets[target]
        return self.cells[source][target].gain * reading.factor * reading.better

    def significant(self, source: int, target: int) -> bool:
        """Whether the gain stands at q < .05 over the matrix."""
        return self.cells[source][target].q < SIGNIFICANT and not self.is_predicted(source, target)

    def is_predicted(self, source: int, target: int) -> bool:
        """Whether a cell is predicted from others, not measured."""
        return self.cells[source][target].status == "predicted"

    @property
    def has_base(self) -> bool:
        """Whether the base is known on some target. Where it is not there are scores and no gains."""
        return any(isfinite(cell.value) for cell in self.base)

    @property
    def some_predicted(self) -> bool:
        """Whether some cell is predicted."""
        return any(cell.status == "predicted" for row in self.cells for cell in row)

    @property
    def in_part(self) -> int:
        """How many cells are estimates from a part of their target's items."""
        return sum(bool(cell.asked_of) for row in self.cells for cell in row)

    def transfers(self) -> Iterable[tuple[int, int]]:
        """Every place off the diagonal."""
        return (
            (s, t)
            for s in range(len(self.sources))
            for t in range(len(self.targets))
            if not self.in_domain(s, t)
        )


def read(matrix: TransferMatrix) -> Reading:
    """Lay a matrix out for showing.

    A matrix that holds values only gets cells of status ``given`` or ``missing`` without intervals. Units and
    directions are those of the catalogue of metrics and of the matrix's conditions; targets of one unit share
    their colour limits.
    """
    pooled = {(cell.source, cell.target): cell for cell in matrix.cells if cell.seed is None}
    cells = tuple(
        tuple(
            pooled.get((source, target)) or _unlisted(matrix, s, t, target)
            for t, target in enumerate(matrix.targets)
        )
        for s, source in enumerate(matrix.sources)
    )
    base_cells = {cell.target: cell for cell in matrix.base_cells}
    base = tuple(
        base_cells.get(target) or _unlisted(matrix, None, t, target)
        for t, target in enumerate(matrix.targets)
    )
    by_seed: dict[tuple[str, str], list[Cell]] = {}
    for cell in matrix.cells:
        if cell.seed is not None:
            by_seed.setdefault((cell.source, cell.target), []).append(cell)
    unknown = np.full(len(matrix.targets), nan)
    touched = touched_cells(matrix.conditions)
    return Reading(
        sources=matrix.sources,
        targets=_targets(matrix, cells, base),
        cells=cells,
        by_seed=tuple(
            tuple(
                tuple(sorted(by_seed.get((source, target), []), key=lambda cell: cell.seed or 0))
                for target in matrix.targets
            )
            for source in matrix.sources
        ),
        base=base,
        chance=unknown if matrix.chance is None else matrix.chance,
        majority=unknown if matrix.majority is None else matrix.majority,
        z=standardised(matrix.values),
        seeds=tuple(sorted({cell.seed for cell in matrix.cells if cell.seed is not None})),
        source_tags=tuple(tuple(matrix.source_tags.get(source, ())) for source in matrix.sources),
        touched={
            (s, t): touched[source, target]
            for s, source in enumerate(matrix.sources)
            for t, target in enumerate(matrix.targets)
            if (source, target) in touched
        },
        variations=_variations(matrix),
        absent=_absent(matrix.conditions),
        target_caveats=tuple(
            (*_target_caveats(matrix.conditions, name), *_of_anchors(matrix.conditions, name))
            for name in matrix.targets
        ),
        source_caveats=tuple(map(partial(_source_caveats, matrix.conditions), matrix.sources)),
    )


def _described(conditions: Mapping[str, Any], kind: str, name: str) -> Mapping[str, Any]:
    """What a run recorded of a source or target; empty where it recorded nothing, and for tables."""
    entries = conditions.get(kind)
    entry = entries.get(name) if isinstance(entries, Mapping) else None
    return entry if isinstance(entry, Mapping) else {}


def _target_caveats(conditions: Mapping[str, Any], target: str) -> tuple[str, ...]:
    described = _described(conditions, "targets", target)
    noted = described.get("caveats")
    if isinstance(noted, list | tuple):
        return tuple(str(caveat.get("text", "")) for caveat in noted if isinstance(caveat, Mapping))
    asked = described.get("conditions")
    without = asked.get("items_without_gold") if isinstance(asked, Mapping) else None
    if not isinstance(without, int) or not without:
        return ()
    return (  # a run of an earlier version kept them among its items
        f"{without:,} of {described.get('items')} items have no right answer and count as wrong; `traitmap "
        "run` leaves them out",
    )


def _of_anchors(conditions: Mapping[str, Any], target: str) -> tuple[str, ...]:
    """Whose answers help to estimate the gains on a target, and on how many items these say the same."""
    asking = conditions.get("asking")
    if (
        not isinstance(asking, Mapping)
        or asking.get("anchors") is None
        or target not in asking.get("looks", ())
    ):
        return ()
    rows = listed(["the base", *map(str, asking["anchors"])])
    still = asking.get("still", {}).get(target)
    alike = f", and answered {still:,} of them alike" if still is not None else ""
    return (
        f"{rows} {'were' if asking['anchors'] else 'was'} asked every item{alike}; gains of the others "
        "are estimates for all items, by these answers and a part of the items",
    )


def _source_caveats(conditions: Mapping[str, Any], source: str) -> tuple[str, ...]:
    warnings = _described(conditions, "sources", source).get("warnings")
    return tuple(map(str, warnings)) if isinstance(warnings, list | tuple) else ()


def _variations(matrix: TransferMatrix) -> dict[int, str]:
    """How sources were made from others, as far as the conditions tell: ``amazon_reviews, mislabel 0.5``."""
    described = matrix.conditions.get("sources")
    if not isinstance(described, Mapping):
        return {}
    words = {}
    for place, source in enumerate(matrix.sources):
        conditions = described.get(source)
        variation = conditions.get("variation") if isinstance(conditions, Mapping) else None
        if isinstance(variation, Mapping):
            dose = variation.get("dose")
            amount = f" {dose:.3g}" if isinstance(dose, int | float) and isfinite(dose) else ""
            kind = str(variation.get("kind", "")).replace("_", " ")
            words[place] = f"{' + '.join(variation.get('parents') or ())}, {kind}{amount}"
    return words


def of_seed(reading: Reading, seed: int) -> Reading:
    """The cells of one seed in place of the pooled ones, on the same scales.

    A place that has no cell of this seed is ``missing``, with unknown numbers.
    """
    numbers = dict.fromkeys(("value", "stderr", "gain", "gain_low", "gain_high", "p", "q", "unparsed"), nan)
    missing: dict[str, Any] = {
        **numbers,
        "n": 0,
        "status": "missing",
        "reason": "this seed has no such cell",
    }
    cells = tuple(
        tuple(
            next((cell for cell in seeds if cell.seed == seed), replace(pooled, **missing))
            for seeds, pooled in zip(rows, row, strict=True)
        )
        for rows, row in zip(reading.by_seed, reading.cells, strict=True)
    )
    values = np.array([[cell.value for cell in row] for row in cells]).reshape(reading.z.shape)
    by_seed: tuple[tuple[tuple[Cell, ...], ...], ...] = tuple(tuple(() for _ in row) for row in cells)
    return replace(reading, cells=cells, by_seed=by_seed, z=standardised(values))


def standardised(values: Array) -> Array:
    """Columns of (S, T) values with mean 0 and standard deviation 1 over their known rows.

    NaN where that has no meaning: fewer than three known rows, or rows that are all alike.
    """
    scores = np.full(values.shape, nan)
    for t in range(values.shape[1]):
        column = values[:, t]
        known = column[np.isfinite(column)]
        if known.size >= 3 and known.std() > 1e-12:
            scores[:, t] = (column - known.mean()) / known.std()
    return scores


def nice_limit(largest: float) -> float:
    """The next round number at or above ``largest``; 1 where there is nothing to show."""
    if not (isfinite(largest) and largest > 0):
        return 1.0
    scale = 10.0 ** floor(log10(largest))
    return next(step * scale for step in _NICE if step * scale >= largest * (1 - 1e-9))


def _unlisted(matrix: TransferMatrix, source: int | None, target: int, name: str) -> Cell:
    """The cell of a table that holds values only (source None: the base row)."""
    base = float(matrix.baseline[target])
    value = base if source is None else float(matrix.values[source, target])
    return Cell(
        source=BASELINE if source is None else matrix.sources[source],
        target=name,
        seed=None,
        metric="",
        value=value,
        n=0,
        stderr=nan,
        gain=0.0 if source is None else value - base,
        gain_low=nan,
        gain_high=nan,
        p=nan,
        q=nan,
        unparsed=nan,
        status="missing" if isnan(value) else "given",
        reason="not in the table" if isnan(value) else "",
    )


def _targets(
    matrix: TransferMatrix, cells: tuple[tuple[Cell, ...], ...], base: tuple[Cell, ...]
) -> tuple[TargetView, ...]:
    """Unit, direction and colour limits of every target."""
    names, known = [], []
    for t in range(len(matrix.targets)):
        names.append(next((c.metric for c in (base[t], *(row[t] for row in cells)) if c.metric), ""))
        column = np.append(matrix.values[:, t], matrix.baseline[t])
        known.append(column[np.isfinite(column)])
    # Shares of right answers are shown in points; other metrics lie in 0..1 by accident only.
    shares = [
        metrics.metric(name).may_be_share and bool(np.all((column >= 0) & (column <= 1)))
        for name, column in zip(names, known, strict=True)
    ]
    units = [
        "points" if is_share else "" if name == "score" else metrics.unit_of_gains(name)
        for is_share, name in zip(shares, names, strict=True)
    ]
    better = _directions(matrix)
    views = []
    for t, target in enumerate(matrix.targets):
        same = [u for u, unit in enumerate(units) if unit == units[t]]
        values = np.concatenate([known[u] for u in same])
        factor = 100.0 if shares[t] else 1.0
        limit = colour_limit(matrix, same, factor)
        # without a base the size of the scores says how many digits they need
        size = limit if np.isfinite(matrix.baseline).any() else 5 * float(np.abs(values).max(initial=0.0))
        low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
        views.append(
            TargetView(
                name=target,
                metric=names[t],
                factor=factor,
                unit=units[t],
                digits=1 if shares[t] or size >= 100 else 2 if size >= 0.5 else 3,
                better=better[t],
                limit=limit,
                low=0.0 if shares[t] else low,
                high=100.0 if shares[t] else high,
            )
        )
    return tuple(views)


def _directions(matrix: TransferMatrix) -> list[int]:
    """+1 where higher is better, -1 where the matrix says that lower is."""
    directions = dict(matrix.higher_is_better)
    described = matrix.conditions.get("targets") or ()
    for target in described if isinstance(described, list | tuple) else ():
        if isinstance(target, Mapping) and target.get("higher_is_better") is not None:
            directions.setdefault(str(target.get("name")), target["higher_is_better"])
    return [1 if directions.get(target, True) else -1 for target in matrix.targets]


def colour_limit(matrix: TransferMatrix, targets: Sequence[int], factor: float) -> float:
    """The gain at which colours of some targets of one unit are deepest; factor: from scores to that unit."""
    return nice_limit(factor * _largest_gain(matrix, targets))


def _largest_gain(matrix: TransferMatrix, targets: Sequence[int]) -> float:
    """Largest gain off the diagonal (in-domain gains would pale all others), or of all if there is none."""
    gains = np.abs(matrix.gains[:, targets])
    names = [matrix.targets[t] for t in targets]
    outside = np.array([[source != name for name in names] for source in matrix.sources], dtype=bool)
    known = np.isfinite(gains)
    for cells in (known & outside.reshape(gains.shape), known):
        if cells.any() and gains[cells].max() > 0:
            return float(gains[cells].max())
    return 0.0


# The matrix as a table.


def matrix_table(reading: Reading, *, intervals: bool = False) -> Table:
    """Base row of absolute values, then gains over the base with interval, ``*`` at q < .05.

    Shares are in points; a colour is deepest at the limit of the target's unit. Where no base is known the
    scores themselves, coloured by their place within their column. intervals: of 95 % behind every gain (of
    a score its standard error) also where only the page has room beneath.
    """
    if not reading.has_base:
        return _scores_table(reading, intervals)
    caption = (
        "Base: absolute value. Sources: gain over the base, * where q < .05; beneath it the 95 % "
        "interval and the adapter's own value."
        + (f" {PREDICTED} is predicted from other cells, not measured." if reading.some_predicted else "")
        + (f" {IN_PART} is asked in part; its details say of how many items." if reading.in_part else "")
        + (f" {MARK} test items occur in the training data." if reading.touched else "")
    )
    columns = [
        Column("source"),
        *(Column(target.name, lower=target.better < 0) for target in reading.targets),
    ]
    marks = [f" {IN_PART}" if reading.in_part and cell.asked_of else "" for cell in reading.base]
    base = [
        Entry(plain(cell.value * target.factor, target.digits), mark=mark, value=cell.value)
        for cell, target, mark in zip(reading.base, reading.targets, marks, strict=True)
    ]
    rows: list[Row] = [[Entry("base", style="italic"), *base]]
    for s, source in enumerate(reading.sources):
        rows.append([source, *(_gain(reading, s, t, intervals) for t in range(len(reading.targets)))])
    return Table(caption, columns, rows, (_matrix_note(reading), *reading.absent, *caveat_notes(reading)))


def _absent(conditions: Mapping[str, Any]) -> tuple[str, ...]:
    """A sentence for each record that is gone, and for all files of one folder that are."""
    files = conditions.get("absent")
    files = files if isinstance(files, Mapping) else {}
    folders = ("texts", "adapters", "cells")
    records = {path: why for path, why in files.items() if path.split("/")[0] not in folders}
    sentences = [f"{path} is gone from the run: {why}." for path, why in records.items()]
    for folder in folders:
        paths = [path for path in files if path.split("/")[0] == folder]
        if paths:
            gone = "1 file is" if len(paths) == 1 else f"{len(paths)} files are"
            sentences.append(f"{gone} gone from {folder}/ of the run: {files[paths[0]]}.")
    return tuple(sentences)


def caveat_notes(reading: Reading) -> tuple[str, ...]:
    """What to know of targets and sources, a sentence each with its name; at most half a dozen."""
    named = (
        *zip((target.name for target in reading.targets), reading.target_caveats, strict=False),
        *zip(reading.sources, reading.source_caveats, strict=False),
    )
    notes = [f"{name}: {caveat}." for name, caveats in named for caveat in caveats]
    if len(notes) > _NOTES:
        notes[_NOTES - 1 :] = [f"And {len(notes) - _NOTES + 1} more; the report's cells and --json have all."]
    return tuple(notes)


def _scores_table(reading: Reading, intervals: bool = False) -> Table:
    """The scores of every source, each with its standard error beneath it where that is known."""
    columns = [
        Column("source"),
        *(Column(target.name, lower=target.better < 0) for target in reading.targets),
    ]
    rows: list[Row] = [
        [source, *(_score(reading, s, t, intervals) for t in range(len(reading.targets)))]
        for s, source in enumerate(reading.sources)
    ]
    notes = (_matrix_note(reading), *reading.absent)
    return Table("Scores as they stand; no base is among them.", columns, rows, notes)


def _score(reading: Reading, s: int, t: int, intervals: bool) -> Entry:
    cell, target = reading.cells[s][t], reading.targets[t]
    if not isfinite(cell.value):
        return Entry(cell.status, cell.reason, style="faint")
    error = f"± {plain(cell.stderr * target.factor, target.digits)}" if isfinite(cell.stderr) else ""
    z, value = float(reading.z[s, t]), plain(cell.value * target.factor, target.digits)
    return Entry(
        f"{value} {error}" if intervals and error else value,
        "" if intervals else error,
        shade=z * target.better / _DEEPEST_Z if isfinite(z) else 0.0,
        style="predicted" if reading.is_predicted(s, t) else "",
        title=f"{cell.source} on {cell.target}" + (f", n = {cell.asked_words or cell.n}" if cell.n else ""),
        value=cell.value,
    )


def _gain(reading: Reading, s: int, t: int, intervals: bool) -> Entry:
    cell, target = reading.cells[s][t], reading.targets[t]
    value = plain(cell.value * target.factor, target.digits)
    if not isfinite(cell.gain):
        status = "no base" if isfinite(cell.value) else cell.status
        return Entry(status, cell.reason or value, style="faint")
    ends = interval(cell.gain_low * target.factor, cell.gain_high * target.factor, target.digits)
    improvement = reading.improvement(s, t)
    # Spaces keep the decimal points of marked and unmarked gains under each other.
    mark, style = " ", "in_domain" if reading.in_domain(s, t) else ""
    if reading.is_predicted(s, t):
        mark, style = PREDICTED, "predicted"
    elif reading.significant(s, t):
        mark, style = "*", f"{style} {'better' if improvement > 0 else 'worse'}"
    if reading.in_part:
        mark += IN_PART if cell.asked_of else " "
    if reading.touched:
        mark += MARK if (s, t) in reading.touched else " "
    facts = [
        f"{cell.source} -> {cell.target}: {signed(cell.gain * target.factor, 2)}",
        interval(cell.gain_low * target.factor, cell.gain_high * target.factor, 2) if ends != UNKNOWN else "",
        related("q", cell.q) if isfinite(cell.q) else "",
        f"n = {cell.asked_words or cell.n}" if cell.n else "",
    ]
    gain = signed(cell.gain * target.factor, target.digits)
    return Entry(
        f"{gain} {ends}" if intervals and ends != UNKNOWN else gain,
        value if intervals or ends == UNKNOWN else f"{ends} · {value}",
        mark=mark,
        shade=improvement / target.limit,
        style=style,
        title=" ".join(filter(None, facts)),
        value=cell.gain,
    )


def _matrix_note(reading: Reading) -> str:
    """What the reader of a terminal or a notebook must know of the numbers, in one sentence."""
    units = sorted({target.unit for target in reading.targets} - {"points", ""})
    own = f" ({', '.join(units)}: in their own unit)" if units else ""
    points = " in points" if any(target.unit == "points" for target in reading.targets) else ""
    if reading.has_base:
        parts = [f"base: absolute; below it gains over the base{points}{own}"]
        tested = any(isfinite(cell.q) for row in reading.cells for cell in row)
        parts.append("* q < .05 over the matrix" if tested else "no item results, so no gain has a test")
    else:
        parts = [f"scores{points}{own}: no base is known, so there is nothing that they are held against"]
    if reading.some_predicted:
        parts.append(f"{PREDICTED} predicted from other cells, not measured")
    if reading.in_part:
        fewest = min(
            (cell for row in reading.cells for cell in row if cell.asked_of),
            key=lambda cell: cell.asked / cell.asked_of,
        )
        parts.append(
            f"{IN_PART} asked in part ({reading.in_part} of {len(reading.sources) * len(reading.targets)} "
            f"cells, down to {fewest.asked_words} items)"
        )
    if reading.touched:
        most = max(reading.touched.values(), key=lambda overlap: overlap.touched / overlap.items)
        parts.append(
            f"{MARK} test items occur in the training data, at most {share(most.touched / most.items)}"
        )
    if any(target.better < 0 for target in reading.targets):
        parts.append("(lower): lower is better")
    return "; ".join(parts) + "."


def matrix_html(matrix: TransferMatrix) -> str:
    """The matrix for a notebook: a small heat map, with interval, q and number of items on pointing."""
    table = matrix_table(read(matrix))
    title = f"Transfer matrix: {len(matrix.sources)} sources × {len(matrix.targets)} targets"
    notes = [*(note.replace("(lower)", "↓") for note in table.notes), "Point at a cell for its interval."]
    return to_notebook(title, replace(table, notes=()), notes=notes)
