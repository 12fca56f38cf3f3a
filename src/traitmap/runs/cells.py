"""One cell, one Parquet file: the outcomes of every item, with the conditions in its metadata."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from math import isfinite, nan
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from traitmap.data.outcomes import FEW, SCHEMA, OutcomeColumns, outcome_table
from traitmap.data.records import Outcome
from traitmap.errors import RunError
from traitmap.runs.files import METADATA, encode_sealed, partial_path, read_sealed, sync, write_partial

GIVEN = "given"  # condition of a cell without items: n and stderr as somebody else's file told them
BATCH = 64  # cells that are made to count together
_WRITERS = 8  # threads: most of the time they wait for the disk


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
class CellResult:
    """What came of one cell, before it is written.

    outcomes: (n,) a table as ``SCHEMA`` has it, see ``outcome_table``. aggregates: as in ``CellScores``.
    seconds: of computing it, None where unknown; it is for the ledger and not in the cell's file.
    """

    outcomes: pa.Table
    aggregates: Mapping[str, float]
    seconds: float | None = None


# What ``write_cells`` takes: the cell's place, named by its key, what came of it, and its conditions.
NewCell = tuple[Path, CellResult, Mapping[str, Any]]


def write_cell(
    path: Path,
    *,
    outcomes: Sequence[Outcome],
    aggregates: Mapping[str, float],
    conditions: Mapping[str, Any],
) -> None:
    """Write a cell atomically. The same outcomes and conditions give the same bytes.

    path: ``<key>.parquet``; reading it back checks the name. Aggregates that are not finite become null.
    """
    write_cells([(path, CellResult(outcome_table(outcomes), aggregates), conditions)])


def write_cells(cells: Iterable[NewCell]) -> int:
    """Write many cells, each of them atomically, and return how many. They count ``BATCH`` by ``BATCH``.

    cells: place, result and conditions of each. ValueError for conditions that JSON cannot hold, OSError
    where the disk is full: then no cell of that batch is there.

    All files of a batch are on the disk before the first of them gets its name, and the folder is forced
    to the disk once for all: a disk that takes 10 ms for each would not take more than 100 cells a second.
    """
    stream, count = iter(cells), 0
    while batch := list(islice(stream, BATCH)):
        paths = [path for path, _, _ in batch]
        _write_partials(batch)
        for path in paths:
            os.replace(partial_path(path), path)
        for folder in {path.parent for path in paths}:
            sync(folder)
        count += len(batch)
    return count


def read_outcomes(path: Path) -> OutcomeColumns:
    """Every outcome of a cell, as it was written, in the order of the items.

    RunError where the file is damaged or not there.
    """
    return OutcomeColumns(_read(path, None))


def read_scores(path: Path) -> CellScores:
    """Scores and metadata of a cell, without its texts: three of its columns are read and checked.

    RunError where the file is damaged or not there.
    """
    table = _read(path, ["score", "correct", "parsed"])
    metadata = json.loads(table.schema.metadata[METADATA])
    scores = table["score"].to_numpy()
    known = ~np.isnan(scores)
    correct = ~np.asarray(table["correct"].is_null())
    return CellScores(
        scores=scores,
        parsed=np.asarray(table["parsed"]).astype(bool),
        binary=bool(np.array_equal(correct, known) and np.isin(scores[known], (0.0, 1.0)).all()),
        aggregates=_aggregates(metadata),
        conditions=metadata["conditions"],
    )


def read_conditions(path: Path) -> dict[str, Any]:
    """What determined a cell, and how it was computed. RunError where the file is damaged or not there."""
    return dict(json.loads(_read(path, []).schema.metadata[METADATA])["conditions"])


def read_item_digests(path: Path) -> list[str]:
    """The digest of every item of a cell, in the order of the items. RunError where the file is damaged."""
    return [str(value) for value in _read(path, ["item_digest"])["item_digest"].to_pylist()]


def read_aggregates(path: Path) -> dict[str, float]:
    """The harness' own values of a cell (``CellScores.aggregates``). RunError where the file is damaged.

    Keyed ``metric,filter``; NaN where the harness had no value. No column is read, only the metadata.
    """
    return _aggregates(json.loads(_read(path, []).schema.metadata[METADATA]))


def cell_fault(path: Path) -> str:
    """Why a cell's file is damaged, by its checksums; nothing where it reads back as it was written.

    path: ``<key>.parquet``; a file that is not there is a fault too. All columns are read and checked.
    OSError where the system does not give the file.
    """
    try:
        _read(path, None)
    except RunError as error:
        return str(error.__cause__ or error)
    return ""


def _aggregates(metadata: Mapping[str, Any]) -> dict[str, float]:
    return {name: nan if value is None else value for name, value in metadata["aggregates"].items()}


def _write_partials(cells: Sequence[NewCell]) -> None:
    """Cells under their temporary names: all of them or none."""
    if len(cells) == 1:
        _write_partial(*cells[0])
        return
    with ThreadPoolExecutor(_WRITERS) as pool:
        waiting = [pool.submit(_write_partial, *cell) for cell in cells]
        errors = [error for future in waiting if (error := future.exception())]
    if errors:
        for path, _, _ in cells:
            partial_path(path).unlink(missing_ok=True)
        raise errors[0]


def _write_partial(path: Path, cell: CellResult, conditions: Mapping[str, Any]) -> None:
    metadata = {
        "key": path.stem,
        "conditions": conditions,
        "aggregates": {
            name: value if isfinite(value) else None for name, value in sorted(cell.aggregates.items())
        },
    }
    text = json.dumps(metadata, sort_keys=True, allow_nan=False).encode()
    write_partial(path, encode_sealed(cell.outcomes, text, dictionaries=FEW))


def _read(path: Path, columns: list[str] | None) -> pa.Table:
    """Some columns of a cell (None: all), checked."""
    try:
        table = read_sealed(path, SCHEMA, columns)
        if json.loads(table.schema.metadata[METADATA])["key"] != path.stem:
            raise ValueError("it is another cell than its name says")
    except FileNotFoundError:
        raise RunError(f"{path}: no such cell; `traitmap run` computes what is missing.") from None
    except ValueError as error:
        raise RunError(f"{path}: damaged ({error}); `traitmap run` computes it anew.") from error
    return table
