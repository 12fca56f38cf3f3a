"""A few measured gains on a new target, from a CSV file."""

from __future__ import annotations

import csv
from math import isfinite, nan
from pathlib import Path

from traitmap.errors import DataError

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
    found = [_probe(path, line, row) for line, row in enumerate(rows, start=2)]
    names = [row[0] for row in found]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(f"{path}: {', '.join(repeated)} stands more than once; give one row for each source")
    return found


def _probe(path: Path, line: int, row: dict[str, str | None]) -> tuple[str, float, float, int]:
    cells = {(name or "").strip(): (value or "").strip() for name, value in row.items() if name is not None}
    source = cells["source"]
    if not source:
        raise DataError(f"{path}, line {line}: no source is named")
    gain, stderr, n = (_number(path, line, cells, name) for name in ("gain", "stderr", "n"))
    if not isfinite(gain):
        raise DataError(f"{path}, line {line}: the gain of {source!r} is empty; give a number")
    if stderr < 0 or n < 0:
        raise DataError(f"{path}, line {line}: stderr and n of {source!r} cannot be negative")
    return source, gain, stderr, int(n) if isfinite(n) else 0


def _number(path: Path, line: int, cells: dict[str, str], name: str) -> float:
    text = cells.get(name, "")
    if not text:
        return nan
    try:
        number = float(text)
    except ValueError:
        number = nan
    if not isfinite(number):
        raise DataError(f"{path}, line {line}: {name} is {text!r}; give a number, or leave it empty")
    return number
