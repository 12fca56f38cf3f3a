"""A table whose cells are read as numbers, who is the base in it, and the matrix of a long one.

A long table has one row per cell, per seed or pooled, and columns that play parts: source, target, value,
number of items, error. Wide tables have a chapter of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite, isnan, nan
from pathlib import Path
from typing import Any

import numpy as np

from traitmap.errors import MatrixError
from traitmap.matrix.numbers import FAILED, CellNumber, has_decimal_commas, parsed_number
from traitmap.matrix.record import Cell, TransferMatrix
from traitmap.matrix.tables import CellTable
from traitmap.matrix.targets import no_targets, plain_name
from traitmap.metrics import direction
from traitmap.study.settings import BASELINE
from traitmap.wording import listed

NUMBERS = ("stderr", "gain", "gain_low", "gain_high", "p", "q", "unparsed")
BASE_NAMES = frozenset(
    {"base", "baseline", "base model", "the base", "the base model", "untuned", "not fine tuned"}
)


@dataclass
class ParsedTable:
    """A table, its columns as numbers (None for text), and notes of all that was taken for something."""

    path: str
    header: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    conditions: Mapping[str, Any]
    columns: Mapping[str, Sequence[CellNumber | None]]
    notes: list[str] = field(default_factory=list)
    lower: tuple[str, ...] = ()

    def words(self, column: str) -> list[str]:
        """A column as text, without space around it."""
        at = self.header.index(column)
        return ["" if row[at] is None else str(row[at]).strip() for row in self.rows]

    def is_text(self, column: str) -> bool:
        """Whether a column holds words and no number."""
        numbers = self.columns[column]
        return any(number is None for number in numbers) and not any(
            number is not None and isfinite(number.value) for number in numbers
        )

    def refuse_text(self, column: str, row_names: Sequence[str]) -> None:
        """MatrixError, with its place, where a cell of a column of numbers holds something else."""
        at = self.header.index(column)
        for name, row, number in zip(row_names, self.rows, self.columns[column], strict=True):
            if number is None:
                raise MatrixError(
                    f"{self.path}: row {name!r}, column {column!r} holds {row[at]!r}, which is not a finite "
                    "number; leave the cell empty if it is unknown, or leave the column out (drop)"
                )

    def note_asides(self, columns: Sequence[str]) -> None:
        """Note what was left out of numbers, and words that were taken for missing results."""
        asides = {
            number.aside for name in columns for number in self.columns[name] if number and number.aside
        }
        self.notes += [f"{aside} behind numbers left out" for aside in sorted(asides)]
        places = [self.header.index(name) for name in columns]
        words = {str(row[at]).strip() for row in self.rows for at in places if isinstance(row[at], str)}
        failed = sorted(word for word in words if word.lower() in FAILED)
        if failed:
            self.notes.append(f"read as missing: {listed(failed, 6)}")

    def numbers(self, column: str) -> tuple[list[float], list[float]]:
        """A column's values and standard errors, NaN where unknown or text.

        Where percent signs and shares of 1 meet, all become shares; other percent stay as they are written.
        """
        cells = [number or CellNumber(nan) for number in self.columns[column]]
        plain = [abs(cell.value) for cell in cells if not cell.percent and isfinite(cell.value)]
        percent = [cell for cell in cells if cell.percent]
        if not (plain and percent and max(plain) <= 1):
            return [cell.value for cell in cells], [cell.stderr for cell in cells]
        note = f"{column}: percent brought to shares of 1"
        if note not in self.notes:
            self.notes.append(note)
        scaled = [CellNumber(cell.value / 100, cell.stderr / 100) if cell.percent else cell for cell in cells]
        return [cell.value for cell in scaled], [cell.stderr for cell in scaled]


def parsed_table(table: CellTable) -> ParsedTable:
    """The table with every cell read as a number, where it is one."""
    commas = has_decimal_commas(
        (cell for row in table.rows for cell in row), likely=table.decimal_comma_likely
    )
    columns = {
        name: [parsed_number(row[at], decimal_comma=commas) for row in table.rows]
        for at, name in enumerate(table.header)
    }
    notes = [*table.notes, *(["decimal commas"] if commas else [])]
    return ParsedTable(table.path, table.header, table.rows, table.conditions, columns, notes, table.lower)


def refuse_unknown(table: ParsedTable, names: Sequence[str], known: Sequence[str], what: str) -> None:
    """MatrixError where a name that an option gives is not in the table."""
    unknown = [name for name in names if name not in known]
    if unknown:
        raise MatrixError(
            f"{table.path}: no {what} named {', '.join(map(repr, unknown))}; "
            f"its {what}s are {', '.join(known)}"
        )


def with_base(
    table: ParsedTable, sources: Sequence[str], base: str | None
) -> tuple[tuple[str, ...], dict[str, str]]:
    """The sources, the base called ``__baseline__``, and its name as a condition ``base_row``."""
    name = _base_name(table, sources, base)
    table.notes.append("no base row" if name is None else f"base row {name!r}")
    named = tuple(BASELINE if source == name else source for source in sources)
    return named, {} if name is None else {"base_row": "base" if name == BASELINE else name}


def _base_name(table: ParsedTable, sources: Sequence[str], base: str | None) -> str | None:
    """Which source is the base model: the one that is given, ``__baseline__``, or one that is called so."""
    stored = str(table.conditions.get("base") or "")  # its name, in a table that a run has written
    if base is not None and base not in sources and base in (stored, stored.rstrip("/").rsplit("/", 1)[-1]):
        base = None
    if base is not None:
        refuse_unknown(table, [base], list(dict.fromkeys(sources)), "source")
        if base != BASELINE and BASELINE in sources:
            raise MatrixError(f"{table.path}: {BASELINE} is there beside {base!r}; keep one base model")
        return base
    if BASELINE in sources:
        return BASELINE
    called = [name for name in dict.fromkeys(sources) if plain_name(name) in BASE_NAMES]
    if len(called) > 1:
        raise MatrixError(
            f"{table.path}: {listed(list(map(repr, called)))} may each be the base model; "
            "say which with --base"
        )
    return called[0] if called else None


def given_cell(source: str, target: str, seed: int | None, known: Mapping[str, Any]) -> Cell:
    """A given cell; what is not known is NaN, an unknown value makes it missing."""
    value = float(known.get("value", nan))
    status = known.get("status") or ("given" if isfinite(value) else "missing")
    reason = known.get("reason") or ("" if isfinite(value) else "empty in the table")
    numbers: dict[str, Any] = {name: float(known.get(name, nan)) for name in NUMBERS}
    return Cell(
        source=source,
        target=target,
        seed=seed,
        metric=str(known.get("metric") or ""),
        value=value,
        n=int(known.get("n", 0)),
        status=str(status),
        reason=str(reason),
        asked=int(known.get("asked", 0)),
        asked_of=int(known.get("asked_of", 0)),
        **numbers,
    )


SOURCE_NAMES = frozenset({
    "source", "src", "adapter", "trained on", "train", "train task", "train dataset", "source task",
    "from", "fine tune", "finetune", "finetuned on", "intermediate", "intermediate task", "model",
    "model name", "run",
})  # fmt: skip
TARGET_NAMES = frozenset({
    "target", "tgt", "trg", "dst", "dest", "destination", "target task", "to", "task", "dataset",
    "benchmark", "eval", "evaluated on", "test task", "eval task", "eval dataset", "test",
})  # fmt: skip
_ROW_NAMES = SOURCE_NAMES | {"name", "checkpoint", "method", "system", "experiment"}


def row_names(table: ParsedTable, *, unique: bool) -> str | None:
    """The column that names a wide table's rows: of those that hold words the one called so, else the first.

    unique: only one in which no name stands twice.
    """
    texts = [name for name in table.header if table.is_text(name)]
    if unique:
        texts = [name for name in texts if len(set(table.words(name))) == len(table.rows)]
    called = [name for name in texts if plain_name(name) in _ROW_NAMES]
    return next(iter(called or texts), None)


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
    sources, base_row = with_base(table, table.words(fields["source"]), base_name)
    cells = _long_cells(table, fields, sources)
    refuse_unknown(table, only, list(dict.fromkeys(cell.target for cell in cells)), "target")
    cells = [cell for cell in cells if not only or cell.target in only]
    others = list(dict.fromkeys(cell.source for cell in cells if cell.source != BASELINE))
    targets, left_out = _without_averages(cells, only)
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.source, cell.target), []).append(cell)
    pooled = {place: _pool(group) for place, group in groups.items()}
    base = np.array([pooled[BASELINE, t].value if (BASELINE, t) in pooled else nan for t in targets])
    full = {
        (s, t): _with_gain(pooled.get((s, t)) or given_cell(s, t, None, {}), start)
        for s in others
        for t, start in zip(targets, base, strict=True)
    }
    single = tuple(cell for cell in cells if cell.seed is not None and cell.source != BASELINE)
    return TransferMatrix(
        sources=tuple(others),
        targets=tuple(targets),
        values=np.array([[full[s, t].value for t in targets] for s in others]).reshape(
            len(others), len(targets)
        ),
        baseline=base,
        cells=(*full.values(), *single),
        base_cells=tuple(pooled[BASELINE, t] for t in targets if (BASELINE, t) in pooled),
        conditions={**table.conditions, "file": Path(table.path).name, "layout": "long", **left_out}
        | base_row,
    )


def _without_averages(cells: Sequence[Cell], only: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """The targets without averages over the others, and these as the condition ``left_out``."""
    targets = list(dict.fromkeys(cell.target for cell in cells))
    rows = list(dict.fromkeys((cell.source, cell.seed) for cell in cells))
    values = np.full((len(rows), len(targets)), nan)
    for cell in cells:
        values[rows.index((cell.source, cell.seed)), targets.index(cell.target)] = cell.value
    found = {} if only else no_targets(targets, values)
    averages = {name: reason for name, reason in found.items() if "mean" in reason or "average" in reason}
    if not averages or len(averages) == len(targets):
        return targets, {}
    return [name for name in targets if name not in averages], {"left_out": averages}


def _long_cells(
    table: ParsedTable,
    fields: Mapping[str, str],
    sources: Sequence[str],
) -> list[Cell]:
    """The rows of a long table as cells. sources: of its rows, with the base called ``__baseline__``."""
    lines = [f"{i + 2}" for i in range(len(table.rows))]
    targets = table.words(fields["target"])
    known = [name for name in ("value", "n", "seed", "asked", "asked_of", *NUMBERS) if name in fields]
    for name in known:
        table.refuse_text(fields[name], lines)
    table.note_asides([fields["value"]])
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
    seeds = {cell.seed for cell in cells if cell.seed is not None}
    if seeds:
        table.notes.append(f"means over {len(seeds)} seeds, but where a row has none")
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
