"""A table of scores as it lies in a file -> TransferMatrix: wide or long, CSV, TSV or Parquet.

A wide table has one row per source and one column per target (or the reverse), a long one one row per cell.
Whatever is neither empty nor a number is refused with its place. Conditions that a file carries are shown
later, so the keys that have a meaning are checked here; all others may hold anything.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, isinf, isnan, nan
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, ValidationError

from traitmap.errors import MatrixError
from traitmap.matrix.record import Array, Cell, TransferMatrix
from traitmap.study.settings import BASELINE


class _Read(BaseModel):
    """Known keys have their type; others may hold anything, since they are only shown."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=True)


class _Changes(_Read):
    mislabel: dict[str, Any] | None = None


class _Variation(_Read):
    parents: Annotated[list[StrictStr], Field(min_length=1)]
    kind: StrictStr
    changes: _Changes
    dose: float | None
    parent_dose: float | None
    meaning: StrictStr


class _Source(_Read):
    variation: _Variation | None = None


class _Overlap(_Read):
    source: StrictStr
    target: StrictStr
    exact: StrictInt
    contained: StrictInt
    near: StrictInt
    short: StrictInt
    items: Annotated[StrictInt, Field(ge=1)]
    material: StrictBool


class _Conditions(_Read):
    name: StrictStr | None = None
    base: StrictStr | None = None
    seeds: tuple[StrictInt, ...] = ()
    higher_is_better: dict[str, StrictBool] | None = None
    sources: dict[str, _Source] = {}
    targets: dict[str, dict[str, Any]] = {}
    renamed: tuple[StrictStr, ...] = ()
    contamination: tuple[_Overlap, ...] | None = None
    study: dict[str, Any] | None = None


def checked_conditions(conditions: Any, place: str) -> Mapping[str, Any]:
    """The conditions as they are, if each key that has a meaning holds what it should.

    place: the file, for the message. Raises MatrixError, naming the first malformed key.
    """
    try:
        _Conditions.model_validate(conditions)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or "as a whole"
        raise MatrixError(
            f"{place}: its conditions are malformed ({where}: {first['msg']}); write the table again"
        ) from None
    checked: Mapping[str, Any] = conditions
    return checked


MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "-", "--", "—"})
LONG = ("source", "target", "value")
NUMBERS = ("stderr", "gain", "gain_low", "gain_high", "p", "q", "unparsed")
SUFFIXES = (".csv", ".tsv", ".parquet")
_NO_NAME = re.compile(r"__index_level_\d+__")  # of an index that pandas wrote and nobody named
_LARGEST = 1 << 28  # bytes of an unpacked table; a thousand models on a thousand tasks are 20 MB


@dataclass(frozen=True)
class ScoreTable:
    """A table as it lies in the file: header, rows of strings or numbers, and conditions stored with it."""

    path: str
    header: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    conditions: Mapping[str, Any]

    def column(self, name: str) -> list[Any]:
        """The values of one column."""
        at = self.header.index(name)
        return [row[at] for row in self.rows]


def read_matrix(
    path: str | Path,
    *,
    orientation: Literal["rows", "columns"] = "rows",
    row_name: str | None = None,
    drop: Sequence[str] = (),
) -> TransferMatrix:
    """Read a transfer matrix from a CSV, TSV or Parquet file, by the file's suffix (CSV also gzipped).

    A table with columns ``source``, ``target`` and ``value`` is long, one row per cell; ``n``, ``seed``,
    ``stderr`` and the other fields of ``Cell`` are used where they are there, and cells with several
    seeds are averaged unless a row without seed gives the pooled value. Any other table is wide.

    orientation: ``rows`` when a wide table's rows are sources (or models), ``columns`` when its columns are.
    row_name: column that names the rows (default: the first). drop: columns to leave out.
    A source named ``__baseline__`` is the base model. Columns without any number are ignored (and named
    in ``conditions["ignored_columns"]``); of rows named alike the second becomes ``name (2)`` (named in
    ``conditions["renamed"]``). Cells have the status ``given``, empty ones ``missing``.

    Raises MatrixError when the file cannot be read or a cell is neither empty nor a number.
    """
    if orientation not in ("rows", "columns"):
        raise MatrixError(
            f"orientation {orientation!r} is unknown; use 'rows' or 'columns' (where the sources are)"
        )
    table = _without(_load(Path(path)), drop)
    lower = {name.strip().lower(): name for name in table.header}
    if row_name is None and all(name in lower for name in LONG):
        return _from_long(table, lower)
    return _from_wide(table, orientation, row_name)


def _load(path: Path) -> ScoreTable:
    """The file's header and rows."""
    if not path.exists():
        raise MatrixError(f"{path}: no such file; give a CSV, TSV or Parquet file")
    if path.is_dir():
        raise MatrixError(f"{path} is a folder; give a CSV, TSV or Parquet file, or open a run with open_run")
    name = path.name.lower().removesuffix(".gz")
    if not name.endswith(SUFFIXES):
        raise MatrixError(
            f"{path}: files ending in {', '.join(SUFFIXES)} can be read; convert it to one of them"
        )
    table = _load_parquet(path) if name.endswith(".parquet") else _load_csv(path, tab=name.endswith(".tsv"))
    return replace(table, header=told_apart(table.header))


def told_apart(names: Sequence[str]) -> tuple[str, ...]:
    """The names, of which a second ``x`` becomes ``x (2)``: real tables name two models alike."""
    taken = set(names)
    seen: dict[str, int] = {}
    result = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        other, count = name, seen[name]
        while count > 1 and other in taken:
            other = f"{name} ({count})"
            count += 1
        taken.add(other)
        result.append(other)
    return tuple(result)


def _load_csv(path: Path, *, tab: bool) -> ScoreTable:
    """Comma, semicolon (when the header has no comma) or tab separated text."""
    raw = _bytes_of(path)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MatrixError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from None
    first = text.split("\n", 1)[0]
    separator = "\t" if tab else ";" if ";" in first and "," not in first else ","
    try:
        read = list(csv.reader(io.StringIO(text), delimiter=separator))
    except csv.Error as error:
        raise MatrixError(f"{path} cannot be read as a table: {error}; check its quotes") from None
    lines = [row for row in read if any(cell.strip() for cell in row)]
    if len(lines) < 2:
        raise MatrixError(f"{path} has no rows; a table needs a header and at least one row")
    header = tuple(cell.strip() for cell in lines[0])
    for number, row in enumerate(lines[1:], start=2):
        if len(row) != len(header):
            raise MatrixError(
                f"{path}: row {number} has {len(row)} cells, but the header has {len(header)}; "
                "quote names that hold the separator"
            )
    return ScoreTable(str(path), header, tuple(tuple(row) for row in lines[1:]), {})


def _bytes_of(path: Path) -> bytes:
    """The file's content, unpacked where it is gzipped, as long as it can be a table's."""
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as stream:
            content = stream.read(_LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise MatrixError(f"{path} cannot be read: {error}; copy it again") from None
    if len(content) > _LARGEST:
        raise MatrixError(f"{path} holds more than {_LARGEST:,} bytes, so hardly a matrix; check the path")
    return content


def _load_parquet(path: Path) -> ScoreTable:
    """A Parquet file; a named pandas index becomes a column, conditions come from the schema's metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # the file alone: a folder of that name would be read as a dataset
        file = pq.ParquetFile(path)
        size = sum(file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups))
        cells = file.metadata.num_rows * file.metadata.num_columns
        if max(size, cells) > _LARGEST:
            raise MatrixError(f"{path} holds {cells:,} cells, so hardly a matrix; check the path")
        stored = file.read()
        # pandas' own metadata may name an index; anything may stand in it, so it is read, not obeyed
        places = _places(stored.schema.metadata or {}, stored.column_names)
        frame = stored.replace_schema_metadata(None).select(places).to_pandas()
    except (pa.ArrowException, OSError, ValueError, TypeError, OverflowError) as error:
        raise MatrixError(f"{path} cannot be read as Parquet: {error}") from None
    if frame.empty:
        raise MatrixError(f"{path} has no rows")
    rows = tuple(tuple(row) for row in frame.astype(object).itertuples(index=False, name=None))
    conditions = _conditions_in(path, stored.schema.metadata or {})
    return ScoreTable(str(path), tuple(str(name) for name in frame.columns), rows, conditions)


def _places(metadata: Mapping[bytes, bytes], columns: Sequence[str]) -> list[int]:
    """Columns in the order to take: first what pandas wrote as its index, left out where it has no name."""
    try:
        told = json.loads(metadata.get(b"pandas", b"{}"))["index_columns"]
    except (ValueError, KeyError, TypeError, RecursionError):
        told = ()
    index = [at for at, name in enumerate(columns) if isinstance(told, list) and name in told]
    named = [at for at in index if not _NO_NAME.fullmatch(columns[at])]
    return [*named, *(at for at in range(len(columns)) if at not in index)]


def _conditions_in(path: Path, metadata: Mapping[bytes, bytes]) -> Mapping[str, Any]:
    told = metadata.get(b"traitmap")
    if told is None:
        return {}
    try:
        read = json.loads(told)
    except (ValueError, RecursionError) as error:
        raise MatrixError(f"{path}: its conditions are no JSON ({error}); write the table again") from None
    return checked_conditions(read, str(path))


def _without(table: ScoreTable, drop: Sequence[str]) -> ScoreTable:
    """The table without the columns to leave out."""
    unknown = [name for name in drop if name not in table.header]
    if unknown:
        raise MatrixError(
            f"{table.path}: no column named {', '.join(map(repr, unknown))} to drop; "
            f"its columns are {', '.join(table.header)}"
        )
    keep = [i for i, name in enumerate(table.header) if name not in drop]
    rows = tuple(tuple(row[i] for i in keep) for row in table.rows)
    return replace(table, header=tuple(table.header[i] for i in keep), rows=rows)


def _number(value: Any) -> float | None:
    """A cell as a number: NaN when missing, None when it is something else."""
    if value is None or (isinstance(value, str) and value.strip().lower() in MISSING):
        return nan
    if isinstance(value, bool) or type(value).__name__ == "NAType":
        return None if isinstance(value, bool) else nan
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return None if isinf(number) else number


def _numbers(table: ScoreTable, column: str, names: Sequence[str]) -> list[float]:
    """A column as numbers; names of the rows are for the message."""
    found = []
    for name, value in zip(names, table.column(column), strict=True):
        number = _number(value)
        if number is None:
            raise MatrixError(
                f"{table.path}: row {name!r}, column {column!r} holds {value!r}, which is not a finite "
                "number; leave the cell empty if it is unknown, or leave the column out (drop)"
            )
        found.append(number)
    return found


def _names(table: ScoreTable, column: str) -> tuple[str, ...]:
    """Names in a column, which must be there; repeated ones are told apart, but there is only one base."""
    names = ["" if value is None else str(value).strip() for value in table.column(column)]
    if "" in names:
        raise MatrixError(
            f"{table.path}: row {names.index('') + 2} has no name in column {column!r}; name every row"
        )
    if names.count(BASELINE) > 1:
        raise MatrixError(
            f"{table.path}: {names.count(BASELINE)} rows are named {BASELINE}; keep one base model"
        )
    return told_apart(names)


def _from_wide(table: ScoreTable, orientation: str, row_name: str | None) -> TransferMatrix:
    """One row per source (or per target, transposed)."""
    label = table.header[0] if row_name is None else row_name
    if label not in table.header:
        raise MatrixError(
            f"{table.path}: no column named {label!r} to name the rows; "
            f"its columns are {', '.join(table.header)}"
        )
    rows = _names(table, label)
    kept, ignored, columns = [], [], []
    for name in (name for name in table.header if name != label):
        read = [_number(value) for value in table.column(name)]
        if any(number is None for number in read) and not any(
            number is not None and isfinite(number) for number in read
        ):
            ignored.append(name)
            continue
        kept.append(name)
        columns.append(_numbers(table, name, rows))
    if not kept:
        raise MatrixError(
            f"{table.path}: no column holds numbers; a wide table has one row per source and one column per "
            "target, a long one the columns source, target, value"
        )
    values = np.array(columns, dtype=float).T
    sources, targets = (rows, kept) if orientation == "rows" else (kept, rows)
    values = values if orientation == "rows" else values.T
    conditions = {
        "renamed": [
            name for name, was in zip(rows, map(str, table.column(label)), strict=True) if name != was.strip()
        ],
        "file": Path(table.path).name,
        "layout": "wide",
        "orientation": orientation,
        "ignored_columns": ignored,
    }
    return _given(sources, targets, values, conditions)


def _given(
    sources: Sequence[str], targets: Sequence[str], values: Array, conditions: Mapping[str, Any]
) -> TransferMatrix:
    """The matrix of a wide table (sources with the base among them)."""
    at = {name: i for i, name in enumerate(sources)}
    base = values[at[BASELINE]] if BASELINE in at else np.full(len(targets), nan)
    others = [name for name in sources if name != BASELINE]
    kept = values[[at[name] for name in others]]
    cells = tuple(
        _cell(source, target, None, {"value": float(value), "gain": float(value - start)})
        for source, row in zip(others, kept, strict=True)
        for target, value, start in zip(targets, row, base, strict=True)
    )
    base_cells = tuple(
        _cell(BASELINE, target, None, {"value": float(value)})
        for target, value in zip(targets, base, strict=True)
    )
    return TransferMatrix(
        sources=tuple(others),
        targets=tuple(targets),
        values=kept,
        baseline=base,
        cells=cells,
        base_cells=base_cells if BASELINE in at else (),
        conditions=dict(conditions),
    )


def _cell(source: str, target: str, seed: int | None, known: Mapping[str, Any]) -> Cell:
    """A given cell; what is not known is NaN, an unknown value makes it missing."""
    value = float(known.get("value", nan))
    status = known.get("status") or ("given" if isfinite(value) else "missing")
    reason = known.get("reason") or ("" if isfinite(value) else "empty in the table")
    numbers = {name: float(known.get(name, nan)) for name in NUMBERS}
    return Cell(
        source=source,
        target=target,
        seed=seed,
        metric=str(known.get("metric") or ""),
        value=value,
        n=int(known.get("n", 0)),
        status=str(status),
        reason=str(reason),
        **numbers,
    )


def _from_long(table: ScoreTable, lower: Mapping[str, str]) -> TransferMatrix:
    """One row per cell, per seed or pooled."""
    cells = _long_cells(table, lower)
    sources = list(dict.fromkeys(cell.source for cell in cells if cell.source != BASELINE))
    targets = list(dict.fromkeys(cell.target for cell in cells))
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.source, cell.target), []).append(cell)
    pooled = {place: _pool(group) for place, group in groups.items()}
    base = np.array([pooled[BASELINE, t].value if (BASELINE, t) in pooled else nan for t in targets])
    full = {
        (s, t): _with_gain(pooled.get((s, t)) or _cell(s, t, None, {}), start)
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


def _long_cells(table: ScoreTable, lower: Mapping[str, str]) -> list[Cell]:
    """The rows of a long table as cells."""
    lines = [f"{i + 2}" for i in range(len(table.rows))]
    sources = [str(value).strip() for value in table.column(lower["source"])]
    targets = [str(value).strip() for value in table.column(lower["target"])]
    known = [name for name in ("value", "n", "seed", *NUMBERS) if name in lower]
    numbers = {name: _numbers(table, lower[name], lines) for name in known}
    words = {name: table.column(lower[name]) for name in ("metric", "status", "reason") if name in lower}
    cells, seen = [], set()
    for i, (source, target) in enumerate(zip(sources, targets, strict=True)):
        found = {name: column[i] for name, column in numbers.items() if not isnan(column[i])}
        found |= {name: column[i] for name, column in words.items() if isinstance(column[i], str)}
        seed = found.pop("seed", None)
        cell = _cell(source, target, None if seed is None else int(seed), found)
        if (source, target, cell.seed) in seen:
            which = "without seed" if cell.seed is None else f"seed {cell.seed}"
            raise MatrixError(
                f"{table.path}: source {source!r}, target {target!r}, {which} stands there twice "
                f"(row {lines[i]}); "
                "keep one row per source, target and seed (and one metric)"
            )
        seen.add((source, target, cell.seed))
        cells.append(cell)
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
    return _cell(
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
