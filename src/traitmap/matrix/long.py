"""A long table, one row per cell, per seed or pooled: which column plays which part, and its matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isfinite, isnan, nan
from pathlib import Path

import numpy as np

from traitmap.errors import MatrixError
from traitmap.matrix.parsed import NUMBERS, ParsedTable, given_cell, refuse_unknown, with_base
from traitmap.matrix.record import Cell, TransferMatrix
from traitmap.matrix.targets import plain_name
from traitmap.matrix.wide import SOURCE_NAMES, TARGET_NAMES, row_names
from traitmap.metrics import direction
from traitmap.study.settings import BASELINE
from traitmap.wording import listed

LONG = ("source", "target", "value")
_COUNTS = frozenset(
    {
        "n",
        "n eval",
        "n items",
        "n samples",
        "count",
        "support",
        "samples",
        "num samples",
        "num items",
        "items",
    }
)
_STDERRS = frozenset({"stderr", "std err", "se", "sem", "standard error", "acc stderr", "score stderr"})
_SPREADS = frozenset({"std", "sd", "stdev", "std dev", "variance", "ci", "ci low", "ci high"})


def long_columns(
    table: ParsedTable,
    row_name: str | None,
    given: tuple[str | None, str | None, str | None],
) -> dict[str, str] | None:
    """Fields of ``Cell`` -> columns of a long table; None for a wide one.

    given: columns of source, target and value that the user names. MatrixError where it may be either.
    """
    for name in (column for column in given if column is not None):
        if name not in table.header:
            raise MatrixError(
                f"{table.path}: no column named {name!r}; its columns are {', '.join(table.header)}"
            )
    lower = {name.strip().lower(): name for name in table.header}
    if not any(given) and (row_name is not None or all(name in lower for name in LONG)):
        return None if row_name is not None else lower
    texts = [name for name in table.header if table.is_text(name)]
    repeating = [name for name in texts if 1 < len(set(table.words(name))) < len(table.rows)]
    if not any(given) and (len(repeating) < 2 or row_names(table, unique=True) is not None):
        return None
    named = [
        [name for name in repeating if plain_name(name) in known] for known in (SOURCE_NAMES, TARGET_NAMES)
    ]
    source = given[0] or (named[0][0] if len(named[0]) == 1 else None)
    target = given[1] or (named[1][0] if len(named[1]) == 1 else None)
    others = [name for name in repeating if name not in (source, target)]
    if len(others) == 1 and (source is None) != (target is None):
        source, target = source or others[0], target or others[0]
    if source is None or target is None or source == target:
        raise MatrixError(
            f"{table.path}: looks like a long table, since names in {listed(repeating or texts)} stand there "
            "more than once; say what is what with --source-column, --target-column and --value-column, or "
            "which column names the rows of a wide table with --row-name"
        )
    fields = {"source": source, "target": target}
    rest = [name for name in table.header if name not in (source, target)]
    for name in rest:
        plain = plain_name(name)
        field = "n" if plain in _COUNTS else "stderr" if plain in _STDERRS else plain.replace(" ", "_")
        if field in ("n", "seed", "metric", "status", "reason", *NUMBERS) and name != given[2]:
            fields.setdefault(field, name)
    taken = {*fields.values()}
    scores = [
        name
        for name in rest
        if name not in taken and not table.is_text(name) and plain_name(name) not in _SPREADS
        and any(number is not None and isfinite(number.value) for number in table.columns[name])
    ]  # fmt: skip
    if given[2] is None and len(scores) != 1:
        raise MatrixError(
            f"{table.path}: a long table (sources in {source!r}, targets in {target!r}) with "
            + (f"several columns of scores: {', '.join(scores)}" if scores else "no column of scores")
            + "; say which one is the value with --value-column (value_column)"
        )
    fields["value"] = given[2] or scores[0]
    if "metric" not in fields and plain_name(fields["value"]) not in ("value", "score"):
        fields["metric_name"] = fields["value"]
    return fields


def from_long(
    table: ParsedTable,
    fields: Mapping[str, str],
    base_name: str | None,
    only: tuple[str, ...],
) -> TransferMatrix:
    """The matrix of a long table: means over seeds, unless a row without seed gives the pooled value.

    fields: of ``Cell`` -> column, as ``long_columns`` finds them. only: the targets to keep; empty for all.
    """
    cells = _long_cells(table, fields, base_name)
    refuse_unknown(table, only, list(dict.fromkeys(cell.target for cell in cells)), "target")
    cells = [cell for cell in cells if not only or cell.target in only]
    sources = list(dict.fromkeys(cell.source for cell in cells if cell.source != BASELINE))
    targets = list(dict.fromkeys(cell.target for cell in cells))
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.source, cell.target), []).append(cell)
    pooled = {place: _pool(group) for place, group in groups.items()}
    base = np.array([pooled[BASELINE, t].value if (BASELINE, t) in pooled else nan for t in targets])
    full = {
        (s, t): _with_gain(pooled.get((s, t)) or given_cell(s, t, None, {}), start)
        for s in sources
        for t, start in zip(targets, base, strict=True)
    }
    single = tuple(cell for cell in cells if cell.seed is not None and cell.source != BASELINE)
    return TransferMatrix(
        sources=tuple(sources),
        targets=tuple(targets),
        values=np.array([[full[s, t].value for t in targets] for s in sources]).reshape(
            len(sources), len(targets)
        ),
        baseline=base,
        cells=(*full.values(), *single),
        base_cells=tuple(pooled[BASELINE, t] for t in targets if (BASELINE, t) in pooled),
        conditions={**table.conditions, "file": Path(table.path).name, "layout": "long"},
    )


def _long_cells(
    table: ParsedTable,
    fields: Mapping[str, str],
    base_name: str | None,
) -> list[Cell]:
    """The rows of a long table as cells."""
    lines = [f"{i + 2}" for i in range(len(table.rows))]
    sources = with_base(table, table.words(fields["source"]), base_name)
    targets = table.words(fields["target"])
    known = [name for name in ("value", "n", "seed", *NUMBERS) if name in fields]
    for name in known:
        table.refuse_text(fields[name], lines)
    numbers = {name: table.numbers(fields[name])[0] for name in known}
    if "stderr" not in numbers:
        stderrs = table.numbers(fields["value"])[1]
        numbers |= {"stderr": stderrs} if any(isfinite(stderr) for stderr in stderrs) else {}
    words = {
        name: [row[table.header.index(fields[name])] for row in table.rows]
        for name in ("metric", "status", "reason")
        if name in fields
    }
    if "metric_name" in fields:
        words["metric"] = [fields["metric_name"]] * len(lines)
    cells, seen = [], set()
    for i, (source, target) in enumerate(zip(sources, targets, strict=True)):
        found = {name: column[i] for name, column in numbers.items() if not isnan(column[i])}
        found |= {name: column[i] for name, column in words.items() if isinstance(column[i], str)}
        seed = found.pop("seed", None)
        cell = given_cell(source, target, None if seed is None else int(seed), found)
        if (source, target, cell.seed) in seen:
            which = "without seed" if cell.seed is None else f"seed {cell.seed}"
            raise MatrixError(
                f"{table.path}: source {source!r}, target {target!r}, {which} stands there twice "
                f"(row {lines[i]}); "
                "keep one row per source, target and seed (and one metric)"
            )
        seen.add((source, target, cell.seed))
        cells.append(cell)
    unlike = [name for name in ("source", "target", "value") if fields[name].lower() != name]
    if unlike:
        table.notes.append("long (" + ", ".join(f"{name} in {fields[name]!r}" for name in unlike) + ")")
    metrics = dict.fromkeys(cell.metric for cell in cells if cell.metric)
    assumed = [metric for metric in metrics if direction(metric)[1] == "assumed"]
    if assumed and not table.conditions.get("higher_is_better"):
        table.notes.append(f"higher is better assumed of {listed(assumed)}")
    return cells


def _pool(group: Sequence[Cell]) -> Cell:
    """The pooled cell of one source and target: the row without seed, or the mean over seeds.

    The standard error of such a mean is unknown here, because its seeds share their items.
    """
    for cell in group:
        if cell.seed is None:
            return cell
    there = [cell for cell in group if isfinite(cell.value)]
    if not there:
        return replace(group[0], seed=None)
    if len(there) == 1:
        return replace(there[0], seed=None, q=nan)
    unparsed = [cell.unparsed for cell in there if isfinite(cell.unparsed)]
    return given_cell(
        there[0].source,
        there[0].target,
        None,
        {
            "value": float(np.mean([cell.value for cell in there])),
            "n": min(cell.n for cell in there),
            "metric": there[0].metric,
            "unparsed": float(np.mean(unparsed)) if unparsed else nan,
        },
    )


def _with_gain(cell: Cell, base: float) -> Cell:
    """The cell with its gain over the base, where that is not given."""
    return cell if isfinite(cell.gain) else replace(cell, gain=cell.value - base)
