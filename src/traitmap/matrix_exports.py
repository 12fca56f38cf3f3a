"""A transfer matrix as a table, a file, or JSON data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from traitmap.matrix_record import Array, Cell, TransferMatrix
from traitmap.study.settings import BASELINE

if TYPE_CHECKING:
    import pandas as pd


def to_frame(matrix: TransferMatrix) -> pd.DataFrame:
    """Long table: one row per cell, the fields of ``Cell`` as columns.

    First the base's cells (source ``__baseline__``), then pooled cells and each seed's; ``seed`` is
    missing where pooled. A table without cells gives one row per value, with status ``given``.
    """
    import pandas as pd

    cells = (*matrix.base_cells, *matrix.cells) or _given_cells(matrix)
    columns = [one.name for one in fields(Cell)]
    frame = pd.DataFrame([asdict(cell) for cell in cells], columns=columns)
    frame["seed"] = frame["seed"].astype("Int64")
    return frame


def to_csv(matrix: TransferMatrix, path: str | Path) -> None:
    """Wide table of values, a column per target: the row ``__baseline__``, then a row per source.

    The first column is ``source``; unknown values are empty, and so are predicted ones: a wide table has
    no place to mark them. ``to_frame`` has, by ``status``.
    """
    import pandas as pd

    measured = np.where(matrix.predicted, np.nan, matrix.values)
    values = np.vstack([matrix.baseline[None, :], measured])
    frame = pd.DataFrame(values, columns=list(matrix.targets))
    frame.insert(0, "source", [BASELINE, *matrix.sources], allow_duplicates=True)
    _folder_of(path)
    frame.to_csv(path, index=False)


def to_parquet(matrix: TransferMatrix, path: str | Path) -> None:
    """``to_frame`` as Parquet, with the conditions as JSON in the schema's metadata under ``traitmap``."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(to_frame(matrix), preserve_index=False)
    told = json.dumps(_plain(matrix.conditions), sort_keys=True).encode()
    _folder_of(path)
    pq.write_table(table.replace_schema_metadata({**(table.schema.metadata or {}), b"traitmap": told}), path)


def to_json(matrix: TransferMatrix) -> dict[str, Any]:
    """The matrix as JSON data; unknown numbers are null.

    sources, targets; baseline, chance, majority: {target: number}; cells: pooled (seed null) and each
    seed's, without ``reason``; baseline_cells: the base's own; reasons: why cells are not measured, or
    what to know about them; conditions.
    """
    kept = [one.name for one in fields(Cell) if one.name != "reason"]
    unknown = np.full(len(matrix.targets), np.nan)

    def by_target(numbers: Array | None) -> dict[str, Any]:
        return dict(zip(matrix.targets, _plain(unknown if numbers is None else numbers), strict=True))

    cells = matrix.cells or tuple(cell for cell in _given_cells(matrix) if cell.source != BASELINE)
    return {
        "sources": list(matrix.sources),
        "targets": list(matrix.targets),
        "baseline": by_target(matrix.baseline),
        "chance": by_target(matrix.chance),
        "majority": by_target(matrix.majority),
        "cells": [{name: _plain(getattr(cell, name)) for name in kept} for cell in cells],
        "baseline_cells": [
            {name: _plain(getattr(cell, name)) for name in kept} for cell in matrix.base_cells
        ],
        "reasons": [
            {"source": cell.source, "target": cell.target, "seed": cell.seed, "reason": cell.reason}
            for cell in (*matrix.base_cells, *cells)
            if cell.reason
        ],
        "conditions": _plain(matrix.conditions),
    }


def _given_cells(matrix: TransferMatrix) -> tuple[Cell, ...]:
    """Cells of a table that holds values only."""
    nan = float("nan")
    found = []
    for name, row in zip((BASELINE, *matrix.sources), (matrix.baseline, *matrix.values), strict=True):
        for target, base, value in zip(matrix.targets, matrix.baseline, row, strict=True):
            gain = nan if name == BASELINE else float(value - base)
            status = "given" if isfinite(value) else "missing"
            numbers = (float(value), 0, nan, gain, nan, nan, nan, nan, nan)
            found.append(Cell(name, target, None, "", *numbers, status))
    return tuple(found)


def _folder_of(path: str | Path) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)


def _plain(value: Any) -> Any:
    """Anything that conditions hold as JSON data; a number that is none becomes None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(one) for one in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return value if isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
