"""A table of scores -> TransferMatrix: what its rows, columns and cells mean, told in one line.

A wide table has one row per source and one column per target (or the reverse), a long one one row per cell.
Where two readings are likely the table is refused, with the options that decide; whatever is neither empty
nor a number is refused with its place. Conditions that a file carries are shown later, so the keys that have
a meaning are checked here; all others may hold anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, ValidationError

from traitmap.errors import MatrixError
from traitmap.matrix.layouts import from_long, long_columns, parsed_table
from traitmap.matrix.record import TransferMatrix
from traitmap.matrix.tables import CellTable, load_table, without_index
from traitmap.matrix.wide_tables import from_wide
from traitmap.wording import counted, listed


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


def read_matrix(
    path: str | Path,
    *,
    orientation: Literal["auto", "rows", "columns"] = "auto",
    row_name: str | None = None,
    drop: Sequence[str] = (),
    only: Sequence[str] = (),
    base: str | None = None,
    values: Literal["scores", "gains"] = "scores",
    source_column: str | None = None,
    target_column: str | None = None,
    value_column: str | None = None,
) -> TransferMatrix:
    """Read a transfer matrix from a file that holds a table.

    CSV and TSV (any delimiter, also gzipped), Parquet, Excel, Markdown and LaTeX are read.

    A table with columns ``source``, ``target`` and ``value``, or with others that play their part, is long,
    one row per cell; ``n``, ``seed``, ``stderr`` and the other fields of ``Cell`` are used where they are
    there, and cells with several seeds are averaged unless a row without seed gives the pooled value. Any
    other table is wide.

    orientation: ``rows`` when a wide table's rows are sources (or models), ``columns`` when its columns are;
        ``auto`` takes rows, and refuses a table whose rows look like benchmarks.
    row_name: column that names the rows (default: the first that holds names). drop: columns to leave out.
    only: the targets to keep; then nothing else is left out and no scale is doubted.
    base: the row that is the base model (default: ``__baseline__``, or one named ``base`` or ``baseline``).
    values: ``gains`` where the cells hold differences from the base, which then is 0.
    source_column, target_column, value_column: of a long table under other names.

    Averages, copies in percent, combinations, sizes, dates, links and counts are no targets: they are left
    out and named. ``conditions["read_as"]`` says in one line what was taken for what. Of rows named alike the
    second becomes ``name (2)`` (named in ``conditions["renamed"]``). Cells have the status ``given``, empty
    ones ``missing``; ``45.1 ± 1.2`` is a value with its standard error.

    Raises MatrixError when the file cannot be read, a cell is neither empty nor a number, or two readings
    are likely; the message names the option that decides.
    """
    if orientation not in ("auto", "rows", "columns"):
        raise MatrixError(
            f"orientation {orientation!r} is unknown; use 'rows' or 'columns' (where the sources are)"
        )
    if values not in ("scores", "gains"):
        raise MatrixError(f"values {values!r} is unknown; use 'scores' or 'gains' (what the cells hold)")
    cells = without_index(load_table(Path(path)))
    checked_conditions(cells.conditions, cells.path)
    table = parsed_table(_without(cells, drop))
    fields = long_columns(table, row_name, (source_column, target_column, value_column))
    if fields is not None:
        matrix = from_long(table, fields, base, tuple(only))
    else:
        matrix = from_wide(table, orientation, row_name, tuple(only), base)
    notes = table.notes
    if values == "gains":
        matrix = _as_gains(matrix, table.path)
        notes.append("cells are gains over the base")
    return _with_read_as(matrix, notes, [f"{name} (dropped)" for name in drop])


def _with_read_as(matrix: TransferMatrix, notes: Sequence[str], dropped: Sequence[str]) -> TransferMatrix:
    """The matrix with the line that says what was taken for what."""
    left_out = [
        *(f"{name} ({reason})" for name, reason in matrix.conditions.get("left_out", {}).items()),
        *dropped,
        *(f"{name} (text)" for name in matrix.conditions.get("ignored_columns", ())),
    ]
    lower = [name for name, higher in matrix.higher_is_better.items() if not higher]
    renamed = matrix.conditions.get("renamed") or ()
    parts = [
        f"{counted(len(matrix.sources), 'source')} x {counted(len(matrix.targets), 'target')}",
        *notes,
        *([f"lower is better: {listed(lower, 6)}"] if lower else []),
        *([f"told apart by number: {listed(list(renamed), 6)}"] if renamed else []),
        *([f"left out: {', '.join(left_out)}"] if left_out else []),
    ]
    return replace(matrix, conditions={**matrix.conditions, "read_as": ", ".join(parts)})


def _without(table: CellTable, drop: Sequence[str]) -> CellTable:
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


def _as_gains(matrix: TransferMatrix, path: str) -> TransferMatrix:
    """The matrix of a table of differences from the base, which is 0 in it."""
    if np.isfinite(matrix.baseline).any():
        raise MatrixError(f"{path}: has a base row, so its cells are scores; leave --values gains out")
    cells = tuple(replace(cell, gain=cell.value) for cell in matrix.cells)
    return replace(matrix, baseline=np.zeros(len(matrix.targets)), cells=cells)
