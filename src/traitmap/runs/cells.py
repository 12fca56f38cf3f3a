"""One cell, one Parquet file: the outcomes of every item, with the conditions in its metadata."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from itertools import islice
from math import isfinite, nan
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from traitmap.data.records import Outcome
from traitmap.errors import RunError
from traitmap.runs.files import METADATA, encode_sealed, partial_path, read_sealed, sync, write_partial

GIVEN = "given"  # condition of a cell without items: n and stderr as somebody else's file told them
BATCH = 64  # cells that are made to count together
_WRITERS = 8  # threads: most of the time they wait for the disk
_DICTIONARIES = ("prediction", "gold")  # few values, many times
SCHEMA = pa.schema(
    [
        pa.field("item", pa.int32(), nullable=False),
        pa.field("item_digest", pa.string(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
        pa.field("correct", pa.bool_()),
        pa.field("prediction", pa.string(), nullable=False),
        pa.field("gold", pa.string(), nullable=False),
        pa.field("choice_logprobs", pa.list_(pa.float64())),
        pa.field("text", pa.string()),
        pa.field("parsed", pa.bool_(), nullable=False),
        pa.field("output_tokens", pa.int32(), nullable=False),
        pa.field("stopped", pa.bool_()),
    ]
)


@dataclass(frozen=True)
class CellScores:
    """What the matrix needs of one cell, one entry per item in the order of the items.

    scores: (n,) the chosen metric. parsed: (n,) bool. aggregates: the harness' own value of every
    metric and filter, keyed ``metric,filter``; NaN where it has none.
    binary: every item is right or wrong.
    """

    scores: NDArray[np.float64]
    parsed: NDArray[np.bool_]
    binary: bool
    aggregates: Mapping[str, float]
    conditions: Mapping[str, Any]


@dataclass(frozen=True)
class NewCell:
    """A cell that is to be written.

    path: its place, named by its key. outcomes: (n,) a table as ``SCHEMA`` has it, see ``outcome_table``.
    aggregates, conditions: as in ``CellScores``.
    """

    path: Path
    outcomes: pa.Table
    aggregates: Mapping[str, float]
    conditions: Mapping[str, Any]


def outcome_table(outcomes: Sequence[Outcome]) -> pa.Table:
    """Outcomes as the columns of a cell."""
    columns = {
        field.name: [getattr(outcome, field.name) for outcome in outcomes] for field in fields(Outcome)
    }
    columns["score"] = [float(score) for score in columns["score"]]
    return pa.table(columns, schema=SCHEMA)


def write_cell(
    path: Path,
    *,
    outcomes: Sequence[Outcome],
    aggregates: Mapping[str, float],
    conditions: Mapping[str, Any],
) -> None:
    """Write a cell atomically. The same outcomes and conditions give the same bytes."""
    write_cells([NewCell(path, outcome_table(outcomes), aggregates, conditions)])


def write_cells(cells: Iterable[NewCell]) -> int:
    """Write many cells, each of them atomically, and return how many. They count ``BATCH`` by ``BATCH``.

    All files of a batch are on the disk before the first of them gets its name, and the folder is forced
    to the disk once for all: a disk that takes 10 ms for each would not take more than 100 cells a second.
    """
    stream, count = iter(cells), 0
    while some := list(islice(stream, BATCH)):
        _write_partials(some)
        for cell in some:
            os.replace(partial_path(cell.path), cell.path)
        for folder in {cell.path.parent for cell in some}:
            sync(folder)
        count += len(some)
    return count


def read_outcomes(path: Path) -> tuple[Outcome, ...]:
    """Every outcome of a cell, as it was written. RunError where the file is damaged."""
    rows = _read(path, None).to_pylist()
    for row in rows:
        if row["choice_logprobs"] is not None:
            row["choice_logprobs"] = tuple(row["choice_logprobs"])
    return tuple(Outcome(**row) for row in rows)


def read_scores(path: Path) -> CellScores:
    """Scores and metadata of a cell, without its texts. RunError where the file is damaged."""
    table = _read(path, ["score", "correct", "parsed"])
    told = json.loads(table.schema.metadata[METADATA])
    scores = table["score"].to_numpy()
    known = ~np.isnan(scores)
    correct = ~np.asarray(table["correct"].is_null())
    return CellScores(
        scores=scores,
        parsed=np.asarray(table["parsed"]).astype(bool),
        binary=bool(np.array_equal(correct, known) and np.isin(scores[known], (0.0, 1.0)).all()),
        aggregates=_aggregates(told),
        conditions=told["conditions"],
    )


def read_aggregates(path: Path) -> dict[str, float]:
    """The harness' own values of a cell (``CellScores.aggregates``). RunError where the file is damaged."""
    return _aggregates(json.loads(_read(path, []).schema.metadata[METADATA]))


def cell_fault(path: Path) -> str:
    """Why a cell's file cannot be used, by its checksums; nothing where it reads back as it was written."""
    try:
        _read(path, None)
    except RunError as error:
        return str(error.__cause__ or error)
    return ""


def is_intact(path: Path) -> bool:
    """Whether a cell's file reads back as it was written, by its checksums."""
    return not cell_fault(path)


def _aggregates(told: Mapping[str, Any]) -> dict[str, float]:
    return {name: nan if value is None else value for name, value in told["aggregates"].items()}


def _write_partials(cells: Sequence[NewCell]) -> None:
    """Cells under their temporary names: all of them or none."""
    if len(cells) == 1:
        _write_partial(cells[0])
        return
    with ThreadPoolExecutor(_WRITERS) as pool:
        waiting = [pool.submit(_write_partial, cell) for cell in cells]
        errors = [error for one in waiting if (error := one.exception())]
    if errors:
        for cell in cells:
            partial_path(cell.path).unlink(missing_ok=True)
        raise errors[0]


def _write_partial(cell: NewCell) -> None:
    told = {
        "key": cell.path.stem,
        "conditions": cell.conditions,
        "aggregates": {
            name: value if isfinite(value) else None for name, value in sorted(cell.aggregates.items())
        },
    }
    text = json.dumps(told, sort_keys=True, allow_nan=False).encode()
    write_partial(cell.path, encode_sealed(cell.outcomes, text, dictionaries=_DICTIONARIES))


def _read(path: Path, columns: list[str] | None) -> pa.Table:
    """Some columns of a cell, checked."""
    try:
        table = read_sealed(path, SCHEMA, columns)
        if json.loads(table.schema.metadata[METADATA])["key"] != path.stem:
            raise ValueError("it is another cell than its name says")
    except FileNotFoundError:
        raise RunError(f"{path}: no such cell; `traitmap run` computes what is missing.") from None
    except ValueError as error:
        raise RunError(f"{path}: damaged ({error}); `traitmap run` computes it anew.") from error
    return table
