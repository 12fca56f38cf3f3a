"""Groups of targets from a CSV file, and what else it says of each target."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from traitmap.errors import DataError


@dataclass(frozen=True)
class Groups:
    """Target -> group, and for every further column of the file: attribute -> task -> value."""

    groups: Mapping[str, str]
    attributes: Mapping[str, Mapping[str, str]]


def read_groups(path: str | Path) -> Groups:
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
    return Groups(groups, attributes)
