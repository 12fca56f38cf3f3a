"""One cell, one Parquet file: the outcomes of every item, with the conditions in its metadata."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from hashlib import sha256
from math import isfinite, nan
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from traitmap.data.records import Outcome
from traitmap.errors import RunError
from traitmap.runs.atomic import partial_path, publish

METADATA = b"traitmap"
GIVEN = "given"  # condition of a cell without items: n and stderr as somebody else's file told them
CHECKSUMS = b"traitmap.sha256"  # of the metadata and every column: Parquet does not guard its footer
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


def write_cell(
    path: Path,
    *,
    outcomes: Sequence[Outcome],
    aggregates: Mapping[str, float],
    conditions: Mapping[str, Any],
) -> None:
    """Write a cell atomically. The same outcomes and conditions give the same bytes."""
    told = {
        "key": path.stem,
        "conditions": conditions,
        "aggregates": {
            name: value if isfinite(value) else None for name, value in sorted(aggregates.items())
        },
    }
    columns = {
        field.name: [getattr(outcome, field.name) for outcome in outcomes] for field in fields(Outcome)
    }
    columns["score"] = [float(score) for score in columns["score"]]
    text = json.dumps(told, sort_keys=True, allow_nan=False).encode()
    table = pa.table(columns, schema=SCHEMA)
    sums = {name: _column_digest(table[name]) for name in table.column_names}
    sums[""] = sha256(text).hexdigest()
    metadata = {METADATA: text, CHECKSUMS: json.dumps(sums, sort_keys=True).encode()}
    table = table.replace_schema_metadata(metadata)
    partial = partial_path(path)
    with partial.open("wb") as file:
        pq.write_table(table, file, compression="zstd")
        file.flush()
        os.fsync(file.fileno())
    publish(partial, path)


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
        aggregates={name: nan if value is None else value for name, value in told["aggregates"].items()},
        conditions=told["conditions"],
    )


def is_intact(path: Path) -> bool:
    """Whether a cell's file reads back as it was written, by its checksums."""
    try:
        _read(path, None)
    except RunError:
        return False
    return True


def _read(path: Path, columns: list[str] | None) -> pa.Table:
    """Some columns of a cell, checked."""
    try:
        with pq.ParquetFile(path) as file:
            table = file.read(columns=columns, use_threads=False)
        sums = json.loads(table.schema.metadata[CHECKSUMS])
        text = table.schema.metadata[METADATA]
        found = {name: _column_digest(table[name]) for name in columns or SCHEMA.names}
        found[""] = sha256(text).hexdigest()
        whole = found == {name: sums[name] for name in found} and json.loads(text)["key"] == path.stem
        told = "" if whole else "its checksums differ"
    except FileNotFoundError:
        raise RunError(f"{path}: no such cell; `traitmap run` computes what is missing.") from None
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError) as error:
        told = str(error)
    if told:
        raise RunError(f"{path}: damaged ({told}); `traitmap run` computes it anew.")
    return table


def _column_digest(column: pa.ChunkedArray) -> str:
    """Digest of a column's values, whatever file layout or version of Arrow holds them."""
    array = column.combine_chunks()
    hashed = sha256(str(len(array)).encode())
    hashed.update(np.asarray(array.is_valid()).tobytes())
    if pa.types.is_list(array.type):
        hashed.update(np.asarray(array.value_lengths().fill_null(0)).astype(np.int64).tobytes())
        array = array.flatten()
    if pa.types.is_string(array.type):
        array = array.fill_null("")
        hashed.update(np.asarray(pc.binary_length(array)).astype(np.int64).tobytes())
        hashed.update("".join(array.to_pylist()).encode())
    else:
        nothing = False if pa.types.is_boolean(array.type) else 0
        hashed.update(np.asarray(array.fill_null(nothing)).tobytes())
    return hashed.hexdigest()
