"""Rows of a source: a local file read exactly as it is written, or a hub dataset through ``datasets``.

Local files are not read through ``datasets``, because it guesses types: it would turn ``"01"`` into 1,
``"NA"`` into null and ``"2024-01-01"`` into a time, and refuse a column that mixes ``1`` and ``"1"``.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from traitmap.data.local_copies import copy_of, network_advice, no_network, offline_where_unreachable
from traitmap.study.paths import DATA_SUFFIXES, is_local_data, resolve
from traitmap.study.settings import Source, Study

Row = Mapping[str, Any]
_LONGEST_CELL = 2**31 - 1


@dataclass(frozen=True)
class Problem:
    """What the user must mend in a source; ``key`` is the setting to look at."""

    key: str
    message: str


@dataclass(frozen=True)
class Table:
    """rows in the order of the file; columns: of any row; class_names: of columns that hold class indices."""

    rows: Sequence[Row]
    columns: tuple[str, ...]
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def take(self, indices: Sequence[int]) -> list[Row]:
        """Rows at these positions, in this order."""
        select = getattr(self.rows, "select", None)  # of a hub dataset, where single rows are slow
        return list(select(indices)) if select else [self.rows[index] for index in indices]


def read_table(study: Study, source: Source) -> Table | Problem:
    """Rows of a source with a ``path``, or why there are none."""
    path = source.path or ""
    copies = resolve(study.data, study.folder) if study.data else None
    table = _local(resolve(path, study.folder)) if is_local_data(path) else _hub(path, source, copies)
    if isinstance(table, Table) and len(table.rows) == 0:
        empty = "it has no rows" if is_local_data(path) else f"its split {source.split!r} has no rows"
        return Problem("path", f"{path}: {empty}; give data with at least one")
    return table


def _local(file: Path) -> Table | Problem:
    suffix = file.suffix.lower()
    if os.path.isdir(file):
        return Problem("path", f"{file} is a folder; give one file in it ({', '.join(DATA_SUFFIXES)})")
    if not os.path.exists(file):
        return Problem("path", f"{file} does not exist; relative paths start from the study file's folder")
    if suffix not in DATA_SUFFIXES:
        return Problem(
            "path", f"{file.name} is none of {', '.join(DATA_SUFFIXES)}; convert it to one of them"
        )
    try:
        if suffix == ".parquet":
            return _parquet(file)
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return Problem("path", f"{file} is not UTF-8 text (byte {error.start}); save it as UTF-8")
    except (OSError, ValueError) as error:
        return Problem("path", f"{file} cannot be read: {' '.join(str(error).split())[:200]}")
    if suffix in (".csv", ".tsv"):
        return _separated(file, text, "\t" if suffix == ".tsv" else ",")
    return _json_lines(file, text) if suffix == ".jsonl" else _json(file, text)


def _parquet(file: Path) -> Table:
    from pyarrow import parquet

    table = parquet.read_table(file)
    return Table(table.to_pylist(), tuple(table.column_names))


def _json_lines(file: Path, text: str) -> Table | Problem:
    rows: list[Any] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            said = f"{file}, line {number}: not valid JSON ({error}); a .jsonl file holds one object per line"
            return Problem("path", said)
        if not isinstance(rows[-1], dict):
            return Problem("path", f'{file}, line {number}: not an object such as {{"text": "..."}}')
    return _table_of(rows)


def _json(file: Path, text: str) -> Table | Problem:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Problem("path", f"{file}: not valid JSON ({error})")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return Problem("path", f"{file}: a .json file must hold a list of objects, one per row")
    return _table_of(rows)


def _table_of(rows: list[dict[str, Any]]) -> Table:
    columns = tuple(dict.fromkeys(column for row in rows for column in row))
    blank = dict.fromkeys(columns)
    return Table([{**blank, **row} for row in rows], columns)


def _separated(file: Path, text: str, delimiter: str) -> Table | Problem:
    csv.field_size_limit(_LONGEST_CELL)  # a review may be longer than the csv module's 128 KiB
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[dict[str, str]] = []
    try:
        header = next(reader, [])
        repeated = sorted({column for column in header if header.count(column) > 1})
        if repeated:
            return Problem("path", f"{file}: the header has {', '.join(map(repr, repeated))} more than once")
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                said = (
                    f"{file}, line {reader.line_num}: {len(cells)} cells where the header has {len(header)}"
                )
                return Problem("path", f"{said}; put cells that hold {delimiter!r} into double quotes")
            rows.append(dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        return Problem("path", f"{file}, line {reader.line_num}: not valid CSV ({error})")
    return Table(rows, tuple(header))


def _hub(path: str, source: Source, copies: Path | None) -> Table | Problem:
    import datasets

    copy = copy_of(path, source.subset, copies)
    asked: Mapping[str, Any] = (
        {"path": path, "name": source.subset, "revision": source.revision} if copy is None else copy.asked
    )
    try:
        # bars are for downloads; tqdm looks up sys.stderr when one begins
        with redirect_stderr(io.StringIO()) if copy else offline_where_unreachable():
            loaded = datasets.load_dataset(**asked, split=source.split)
    except Exception as error:  # whatever the hub, its files or the network do wrong is told, not raised
        return _hub_problem(path, source, error)
    names = {
        column: tuple(feature.names)
        for column, feature in loaded.features.items()
        if isinstance(feature, datasets.ClassLabel)
    }
    return Table(loaded, tuple(loaded.column_names), names)


def _hub_problem(path: str, source: Source, error: Exception) -> Problem:
    said = " ".join(str(error).split())[:300]
    if no_network(error):
        return Problem("path", f"the hub dataset {path!r} cannot be reached: {said}; {network_advice(path)}")
    if "split" in said.lower():
        return Problem("split", f"{path!r} has no split {source.split!r}: {said}")
    if "config" in said.lower():
        return Problem("subset", f"{path!r} needs another subset than {source.subset!r}: {said}")
    return Problem(
        "path",
        f"the hub dataset {path!r} cannot be loaded: {type(error).__name__}: {said}; "
        f"if a file here is meant, its name must end in one of {', '.join(DATA_SUFFIXES)}",
    )
