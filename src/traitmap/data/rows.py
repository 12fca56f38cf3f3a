"""Rows of a source: out of a file or folder beside the study, a copy of a hub dataset, or the hub.

What exists beside the study is never looked for on the hub. A local file is read exactly as it is written,
not through ``datasets``, which guesses types: it would turn ``"01"`` into 1, ``"NA"`` into null and
``"2024-01-01"`` into a time, and refuse a column that mixes ``1`` and ``"1"``.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from traitmap.data.copies import (
    cache_problem,
    copy_of,
    is_lfs_pointer,
    network_advice,
    no_network,
    offline_where_unreachable,
)
from traitmap.errors import DataError, whole_reason
from traitmap.study.paths import DATA_SUFFIXES, data_suffix, is_local_data, resolve
from traitmap.study.settings import Source, Study

Row = Mapping[str, Any]
_LONGEST_CELL = 2**31 - 1
_FORMATS = f"{', '.join(DATA_SUFFIXES)} (those of text also with .gz behind)"


@dataclass(frozen=True)
class SourceProblem:
    """What the user must mend in a source; ``key`` is the setting to look at."""

    key: str
    message: str


class SourceError(Exception):
    """A source, or one of its rows, cannot be used; ``problem`` says which setting to look at and why."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.problem = SourceProblem(key, message)


@dataclass(frozen=True)
class SourceTable:
    """What a file or a hub dataset holds.

    rows: in the order of the file. columns: of any row. class_names: of columns that hold class indices.
    note: how the file became rows, where that is not plain.
    """

    rows: Sequence[Row]
    columns: tuple[str, ...]
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    note: str = ""


def listed_columns(columns: Iterable[str], absent: Iterable[str] = ()) -> str:
    """``the columns are text, stars; did you mean 'text'?``: what there is, and what may have been meant.

    absent: names that are read and that no column has.
    """
    names = [str(column) for column in columns]
    near = [match for name in absent for match in get_close_matches(name, names, n=1)]
    guess = f"; did you mean {' and '.join(map(repr, dict.fromkeys(near)))}?" if near else ""
    return f"the columns are {', '.join(names)}{guess}"


def read_table(study: Study, source: Source) -> SourceTable:
    """Rows of a source with a ``path``: a local file or folder, a copy of a hub dataset, or the hub.

    SourceError where it cannot be read or has no row.
    """
    path = source.path or ""
    place = resolve(path, study.folder)
    if is_local_data(path) or os.path.isfile(place):
        if not is_local_data(path):  # of the others the rules of a study file tell it
            _refuse_hub_settings(source, "file", ("subset", "split", "revision"))
        table, part = read_file(place), "it"
    else:
        copies = resolve(study.data, study.folder) if study.data else None
        table, part = _dataset(path, source, place, copies), f"its split {source.split!r}"
    if len(table.rows) == 0:
        raise SourceError("path", f"{path}: {part} has no rows; give data with at least one")
    return table


def read_file(file: Path) -> SourceTable:
    """Rows of one local file by its ending; of a ``.txt`` file every line that is not blank is a row.

    SourceError where there is no such file, or it is not what its ending says.
    """
    suffix = data_suffix(file.name)
    if os.path.isdir(file):
        fault = f"{file} is a folder; give one file in it ({_FORMATS})"
    elif not os.path.exists(file):
        fault = f"{file} does not exist; relative paths start from the study file's folder"
    elif not os.path.isfile(file):  # opening it may wait for ever
        fault = f"{file} is a pipe or a device; write what it gives into a file, and give that"
    elif not suffix:
        fault = f"{file.name} is none of {_FORMATS}; convert it to one of them, or unpack it"
    else:
        try:
            if is_lfs_pointer(file):
                raise SourceError("path", f"{file} is a Git LFS pointer, not the data; run: git lfs pull")
            if suffix in (".parquet", ".arrow", ".feather"):
                return _columnar(file, suffix)
            content = file.read_bytes()
            text = (gzip.decompress(content) if file.name.lower().endswith(".gz") else content).decode(
                "utf-8-sig"
            )
        except UnicodeDecodeError as error:
            fault = f"{file} is not UTF-8 text (byte {error.start}); save it as UTF-8"
        except (OSError, EOFError, ValueError, zlib.error) as error:
            fault = f"{file} cannot be read: {' '.join(str(error).split())[:200]}"
        else:
            return _parsed(file, suffix, text)
    raise SourceError("path", fault)


def _parsed(file: Path, suffix: str, text: str) -> SourceTable:
    if suffix in (".csv", ".tsv"):
        return _separated(file, text, "\t" if suffix == ".tsv" else ",")
    if suffix == ".txt":
        lines = text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n")
        filled = [{"text": line} for line in lines if line.strip()]
        blank = len(lines) - len(filled)
        note = "one for each line" + (f", {blank:,} blank ones left out" if filled and blank else "")
        return SourceTable(filled, ("text",), note=note)
    rows = _json(file, text) if suffix == ".json" else _json_lines(file, text)
    columns = tuple(dict.fromkeys(column for row in rows for column in row))
    empty = dict.fromkeys(columns)
    return SourceTable([{**empty, **row} for row in rows], columns)


def _columnar(file: Path, suffix: str) -> SourceTable:
    """Parquet, or Arrow's file format (Feather) or stream, as ``datasets`` writes it."""
    import pyarrow
    from pyarrow import ipc, parquet

    if suffix == ".parquet":
        table = parquet.read_table(file)
    else:
        with pyarrow.OSFile(str(file)) as stream:
            try:
                table = ipc.open_file(stream).read_all()
            except pyarrow.ArrowInvalid:
                stream.seek(0)
                table = ipc.open_stream(stream).read_all()
    return SourceTable(table.to_pylist(), tuple(table.column_names))


def _json_lines(file: Path, text: str) -> list[dict[str, Any]]:
    if text.lstrip().startswith("["):  # a whole list under the wrong ending
        try:
            return _objects(json.loads(text))
        except (ValueError, RecursionError):
            pass
    rows: list[Any] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            fault = f"not valid JSON ({error}); a {file.suffix} file holds one object per line"
            raise SourceError("path", f"{file}, line {number}: {fault}") from None
        if not isinstance(rows[-1], dict):
            raise SourceError("path", f'{file}, line {number}: not an object such as {{"text": "..."}}')
    return rows


def _json(file: Path, text: str) -> list[dict[str, Any]]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        if "Extra data" in str(error):  # one object per line under the ending of a whole
            return _json_lines(file, text)
        raise SourceError("path", f"{file}: not valid JSON ({error})") from None
    try:
        return _objects(content["data"] if isinstance(content, dict) else content)
    except (KeyError, ValueError):
        message = 'a .json file must hold a list of objects, one per row, or {"data": [...]} with such a list'
        raise SourceError("path", f"{file}: {message}") from None


def _objects(content: Any) -> list[dict[str, Any]]:
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise ValueError("not a list of objects")
    return content


def _separated(file: Path, text: str, delimiter: str) -> SourceTable:
    csv.field_size_limit(_LONGEST_CELL)  # a review may be longer than the csv module's 128 KiB
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[dict[str, str]] = []
    try:
        header = next(reader, [])
        repeated = sorted({column for column in header if header.count(column) > 1})
        if repeated:
            raise SourceError(
                "path", f"{file}: the header has {', '.join(map(repr, repeated))} more than once"
            )
        for cells in reader:
            if cells and len(cells) != len(header):
                raise SourceError(
                    "path",
                    f"{file}, line {reader.line_num}: {len(cells)} cells where the header has {len(header)}; "
                    f"put cells that hold {delimiter!r} into double quotes",
                )
            if cells:
                rows.append(dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        raise SourceError("path", f"{file}, line {reader.line_num}: not valid CSV ({error})") from None
    return SourceTable(rows, tuple(header))


def _dataset(path: str, source: Source, place: Path, copies: Path | None) -> SourceTable:
    """A split of a hub dataset, of its copy, or of a folder beside the study that has its name."""
    import datasets

    try:
        copy = copy_of(path, source.subset, copies, source.split)
    except DataError as error:
        raise SourceError("path", str(error)) from None
    if copy is None and os.path.isdir(place):
        _refuse_hub_settings(source, "folder", ("revision",))
        copy = {"path": str(place), "name": source.subset}
    arguments: Mapping[str, Any] = (
        {"path": path, "name": source.subset, "revision": source.revision} if copy is None else copy
    )
    try:
        # bars are for downloads; tqdm looks up sys.stderr when one begins
        with redirect_stderr(io.StringIO()) if copy else offline_where_unreachable():
            loaded = datasets.load_dataset(**arguments, split=source.split)
    except Exception as error:  # whatever the hub, its files or the network do wrong is told, not raised
        raise _hub_error(path, source, place, error, local=copy is not None) from error
    names = {
        column: tuple(feature.names)
        for column, feature in loaded.features.items()
        if isinstance(feature, datasets.ClassLabel)
    }
    return SourceTable(loaded, tuple(loaded.column_names), names)


def _hub_error(path: str, source: Source, place: Path, error: Exception, *, local: bool) -> SourceError:
    reason = whole_reason(error)
    key, kind = "path", "folder" if local else "hub dataset"
    fault = f"the {kind} {path!r} cannot be loaded: {type(error).__name__}: {reason}; "
    fault += f"if a file here is meant, its name must end in one of {_FORMATS}"
    if problem := cache_problem(error):
        fault = f"the {kind} {path!r} cannot be loaded: {problem}"
    elif no_network(error):
        fault = f"the hub dataset {path!r} cannot be reached: {reason}; {network_advice(path)}"
        if "/" in path and os.path.isdir(place.parent):
            fault += f"; if a file is meant: {place.parent} is here, but holds no {place.name}"
    elif "split" in reason.lower():
        key, fault = "split", f"{path!r} has no split {source.split!r}: {reason}"
    elif "config" in reason.lower():
        key, fault = "subset", f"{path!r} needs another subset than {source.subset!r}: {reason}"
    return SourceError(key, fault)


def _refuse_hub_settings(source: Source, kind: str, keys: Sequence[str]) -> None:
    for key in keys:
        if getattr(source, key) not in (None, "train"):
            message = f"{source.path} is a {kind} here, where {key} has no effect; remove it"
            raise SourceError(key, message)
