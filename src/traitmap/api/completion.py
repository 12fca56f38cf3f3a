"""Predicted cells of a run: kept in its folder, and put where no cell has been measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import isfinite, nan
from pathlib import Path
from typing import Any

from traitmap.errors import RunError
from traitmap.matrix_record import TransferMatrix
from traitmap.runs.sealed_json import read_sealed_json

FILE = "completion.json"
FORMAT = 1
_NUMBERS = ("value", "stderr", "gain", "gain_low", "gain_high")


def completion_data(matrix: TransferMatrix) -> dict[str, Any]:
    """The predicted cells of a completed matrix as JSON data, with how they came about."""
    cells = [
        {
            "source": cell.source,
            "target": cell.target,
            "reason": cell.reason,
            **{name: _told(getattr(cell, name)) for name in _NUMBERS},
        }
        for cell in matrix.cells
        if cell.status == "predicted"
    ]
    return {"format": FORMAT, "how": matrix.conditions["completion"], "cells": cells}


def with_predictions(matrix: TransferMatrix, folder: Path) -> TransferMatrix:
    """A run's matrix with its predicted cells where none is measured; as it is where the run has none.

    RunError where the file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return matrix
    try:
        raw = read_sealed_json(path)
        told = {(one["source"], one["target"]): one for one in raw["cells"]}
        return _filled(matrix, told, raw["how"])
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: damaged ({error}); remove it, or run with --budget again.") from None


def _filled(
    matrix: TransferMatrix, told: Mapping[tuple[str, str], Mapping[str, Any]], how: Mapping[str, Any]
) -> TransferMatrix:
    values, cells = matrix.values.copy(), []
    for cell in matrix.cells:
        row, column = matrix.sources.index(cell.source), matrix.targets.index(cell.target)
        place = cell.source, cell.target
        if cell.seed is None and place in told and not isfinite(matrix.values[row, column]):
            value, stderr, gain, low, high = (_number(told[place][name]) for name in _NUMBERS)
            cell = replace(
                cell,
                value=value,
                stderr=stderr,
                gain=gain,
                gain_low=low,
                gain_high=high,
                status="predicted",
                reason=told[place]["reason"],
            )
            values[row, column] = cell.value
        cells.append(cell)
    found = replace(matrix, values=values, cells=tuple(cells))
    if not found.predicted.any():
        return matrix
    return replace(found, conditions={**matrix.conditions, "completion": dict(how)})


def _told(number: float) -> float | None:
    return number if isfinite(number) else None


def _number(told: float | None) -> float:
    return nan if told is None else float(told)
