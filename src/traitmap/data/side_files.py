"""Small files that a user gives: groups of targets (CSV), measured gains (CSV), embeddings (NPZ)."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, isfinite, nan
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from traitmap.errors import DataError


@dataclass(frozen=True)
class TargetGroups:
    """Target -> group, and for every further column of the file: attribute -> task -> value."""

    groups: Mapping[str, str]
    attributes: Mapping[str, Mapping[str, str]]


def read_groups(path: str | Path) -> TargetGroups:
    """Read a CSV with a header: first column targets, second their groups, further ones attributes.

    Empty attributes are unknown; a row without group only gives attributes, of a source for instance.
    Raises DataError with the line of whatever cannot be used.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            lines = [row for row in csv.reader(stream) if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path} cannot be read as a CSV of groups: {error}; give a file with the columns target and "
            "group, or one of target, source, cell"
        ) from error
    if len(lines) < 2 or len(lines[0]) < 2:
        raise DataError(f"{path} needs a header and rows with two columns: a target and its group")
    header = [cell.strip() for cell in lines[0]]
    groups: dict[str, str] = {}
    seen: set[str] = set()
    attributes: dict[str, dict[str, str]] = {name: {} for name in header[2:]}
    for number, row in enumerate(lines[1:], start=2):
        cells = [cell.strip() for cell in row]
        if len(cells) != len(header) or not cells[0] or not (cells[1] or header[2:]):
            raise DataError(
                f"{path}, row {number} is {','.join(row)!r}; give a target and its group in every row, "
                f"and as many cells as the header has ({len(header)})"
            )
        if cells[0] in seen:
            raise DataError(f"{path}, row {number}: target {cells[0]!r} stands there twice; keep one row")
        seen.add(cells[0])
        if cells[1]:
            groups[cells[0]] = cells[1]
        for name, value in zip(header[2:], cells[2:], strict=True):
            if value:
                attributes[name][cells[0]] = value
    return TargetGroups(groups, attributes)


_LEGAL = "source, gain, and stderr or n (columns of a CSV with a header)"


def read_probes(path: str | Path) -> list[tuple[str, float, float, int]]:
    """(source, gain, stderr, n) of every row; NaN and 0 where stderr and n are not given.

    Raises DataError with the line and the value that cannot be used.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            rows = list(reader)
            header = [name.strip() for name in reader.fieldnames or ()]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV: {error}") from error
    if not {"source", "gain"} <= set(header):
        raise DataError(f"{path} has the columns {', '.join(header) or 'none'}; give {_LEGAL}")
    if not rows:
        raise DataError(f"{path} has no rows; give one for each source that was measured")
    probes = [_probe(path, line, row) for line, row in enumerate(rows, start=2)]
    names = [source for source, *_ in probes]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(f"{path}: {', '.join(repeated)} stands more than once; give one row for each source")
    return probes


def _probe(path: Path, line: int, row: dict[str, str | None]) -> tuple[str, float, float, int]:
    cells = {(name or "").strip(): (value or "").strip() for name, value in row.items() if name is not None}
    source = cells["source"]
    if not source:
        raise DataError(f"{path}, line {line}: no source is named")
    numbers = []
    for name in ("gain", "stderr", "n"):
        text = cells.get(name, "")
        try:
            numbers.append(float(text) if text else nan)
        except ValueError:
            numbers.append(inf)
        if text and not isfinite(numbers[-1]):
            raise DataError(f"{path}, line {line}: {name} is {text!r}; give a number, or leave it empty")
    gain, stderr, n = numbers
    if not isfinite(gain):
        raise DataError(f"{path}, line {line}: the gain of {source!r} is empty; give a number")
    if stderr < 0 or n < 0:
        raise DataError(f"{path}, line {line}: stderr and n of {source!r} cannot be negative")
    return source, gain, stderr, int(n) if isfinite(n) else 0


def read_embeddings(path: str | Path) -> dict[str, NDArray[np.float64]]:
    """Arrays by task: a vector (D,) or several (n, D), as float64.

    Nothing is unpickled. DataError where the file holds anything but numbers, or no array.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as stored:
            if not hasattr(stored, "files"):
                raise DataError(f"{path} holds one array; give an NPZ file with one array for each task")
            arrays = {name: np.asarray(stored[name], dtype=float) for name in stored.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read as an NPZ file of numbers: {error}") from error
    if not arrays:
        raise DataError(f"{path} holds no arrays; give one for each task, under its name")
    return arrays
