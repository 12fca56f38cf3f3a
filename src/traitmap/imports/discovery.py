"""Which files hold results, and of which kind: recognised by what is in them, never guessed from a name.

Tables of scores, long or wide, count as results too: every cell becomes one. A file in a folder that cannot
be read is left out and told; a file that was named itself is an error.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import isnan
from pathlib import Path
from types import MappingProxyType
from typing import Any

from traitmap.errors import MatrixError
from traitmap.imports import (
    every_eval_ever,
    helm,
    inspect_ai,
    lighteval,
    lm_eval,
    opencompass,
    printed_tables,
)
from traitmap.imports.reading import Evaluation, parquet_columns, read_json
from traitmap.matrix.io import read_matrix
from traitmap.matrix.layouts import BASE_NAMES, given_cell
from traitmap.matrix.tables import refuse_pointer
from traitmap.matrix.targets import plain_name
from traitmap.study.settings import BASELINE

KIND = "table of scores"


def read_table(path: Path, reading: Mapping[str, Any], notes: list[str]) -> list[Evaluation]:
    """Every cell of a table. reading: settings of ``read_matrix``; what it took for what is noted.

    Where the table has no base every source is a model of its own; else an adapter of the base, which is
    called by its row's name, or ``base`` where that says no more.
    """
    matrix = read_matrix(path, **reading)
    notes.append(f"{path} read as: {matrix.conditions['read_as']}")
    base = str(matrix.conditions.get("base") or matrix.conditions.get("base_row") or "base")
    base = "base" if plain_name(base) in BASE_NAMES else base
    has_base = any(not isnan(value) for value in matrix.baseline)
    base_cells = matrix.base_cells or tuple(
        given_cell(BASELINE, target, None, {"value": float(value)})
        for target, value in zip(matrix.targets, matrix.baseline, strict=True)
    )
    cells = (*base_cells, *(cell for cell in matrix.cells if cell.seed is None))
    metrics = {cell.target: cell.metric for cell in cells if cell.metric}
    evaluations = []
    for cell in cells:
        if isnan(cell.value):
            continue
        is_base = cell.source == BASELINE
        evaluations.append(
            Evaluation(
                place=f"{path}, {base if is_base else cell.source}, {cell.target}",
                kind=KIND,
                model=base if has_base else cell.source,
                adapter=cell.source if has_base and not is_base else None,
                task=cell.target,
                metric=cell.metric or metrics.get(cell.target, "score"),
                filter="none",
                value=cell.value,
                stderr=cell.stderr,
                n=cell.n,
                higher_is_better=matrix.higher_is_better.get(cell.target),
            )
        )
    return evaluations


KINDS = (
    *(reader.KIND for reader in (lm_eval, inspect_ai, every_eval_ever, lighteval, helm, opencompass)),
    printed_tables.KIND,
    KIND,
)
_TABLES = (".csv", ".tsv", ".parquet")
_NAMED_TABLES = (*_TABLES, ".gz", ".xlsx", ".tex", ".txt", ".md")  # read where they are named themselves
_TEXTS = (".txt", ".md", ".log", ".out")  # logs with a printed table; OpenCompass' summaries
# JSON that harnesses write beside their results and that holds none itself
_BESIDE = ("samples_", "scenario", "instances", "display_", "per_instance_stats", "stats", "run_spec")


@dataclass
class Found:
    """What was read. notes: what was left out of folders, and why."""

    evaluations: list[Evaluation] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find_evaluations(paths: Iterable[str | Path], reading: Mapping[str, Any] = MappingProxyType({})) -> Found:
    """All results under the paths, files or folders, each by the kind of its content.

    A path that is a file must be of a known kind. In folders other files are passed over, and told; so are
    tables but OpenCompass' own, since any CSV may lie there: a table is read where it is named itself.
    reading: how tables are to be read, as ``read_matrix`` takes it.
    Raises MatrixError with file and key of what is malformed.
    """
    results = Found()
    for location in paths:
        path = Path(location)
        if path.is_dir():
            _read_folder(path, results)
        elif path.is_file():
            evaluations = _read_file(path, results.notes)
            if evaluations is None:
                _refuse_items(path)
            if evaluations is None and path.suffix.lower() in _NAMED_TABLES and not _is_prose(path):
                evaluations = read_table(path, reading, results.notes)
            if evaluations is None:
                raise MatrixError(f"{path}: holds no results of a known kind; known: {', '.join(KINDS)}")
            results.evaluations += evaluations
        else:
            raise MatrixError(f"{path}: there is no such file or folder")
    if not results.evaluations:
        notes = "".join(f"\n  {note}" for note in results.notes[:20])
        raise MatrixError(
            f"no results found in {', '.join(map(str, paths))}; known: {', '.join(KINDS)}{notes}"
        )
    return results


def _is_prose(path: Path) -> bool:
    """Whether a text file has no mark that could part the cells of a table."""
    return path.suffix in _TEXTS and not set("|&;,\t") & set(path.read_text("utf-8", "replace"))


def _is_copy(path: Path) -> bool:
    """Whether OpenCompass wrote the same summary in an earlier one of its three formats."""
    before = {".txt": (".csv",), ".md": (".csv", ".txt")}.get(path.suffix, ())
    return path.stem.startswith("summary") and any(path.with_suffix(suffix).is_file() for suffix in before)


def _read_folder(folder: Path, results: Found) -> None:
    for path in _walk(folder):
        if path.is_dir():
            try:
                results.evaluations += helm.read_helm(path)
            except MatrixError as error:
                results.notes.append(f"left out: {error}")
            continue
        try:
            if path.suffix in _TABLES and not opencompass.is_opencompass(_header(path)):
                results.notes.append(f"left out: {path}, a table in a folder; name it itself to have it read")
                continue
            evaluations = _read_file(path, results.notes)
        except MatrixError as error:
            results.notes.append(f"left out: {error}")
            continue
        if evaluations is None:
            if path.suffix not in _TEXTS:
                results.notes.append(f"left out: {path} holds no results of a known kind")
        else:
            results.evaluations += evaluations


def _walk(folder: Path) -> Iterator[Path]:
    """Files that may hold results, and folders of HELM, in the order of their names."""
    if helm.is_helm(folder):
        yield folder
        return
    if (folder / "run.json").is_file():
        return  # a run of ours
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _walk(path)
        elif path.suffix in _TEXTS and _is_copy(path):
            continue  # the same summary once more
        elif path.suffix == ".parquet" and path.name.startswith("details_"):
            continue  # found by the results that they belong to
        elif path.suffix in (".json", ".eval", *_TABLES, *_TEXTS) and not path.name.startswith(_BESIDE):
            yield path


def _refuse_items(path: Path) -> None:
    """MatrixError where a file holds the items of results that lie in another file."""
    if path.suffix == ".parquet" and lighteval.is_details(parquet_columns(path)):
        raise MatrixError(
            f"{path}: details of lighteval, which do not say of which model; give results_<time>.json of the "
            "same time, or the folder that holds both"
        )
    if path.suffix == ".jsonl":
        raise MatrixError(
            f"{path}: samples, which do not say of which model; give results_<time>.json of the same time, "
            "beside which they are found, or the folder that holds both"
        )


def _read_file(path: Path, notes: list[str]) -> list[Evaluation] | None:
    """The results of one file of a harness, or None where it is of no known kind."""
    if path.suffix == ".eval":
        return inspect_ai.read_inspect(path)
    if path.suffix in _TABLES:
        return opencompass.read_opencompass(path) if opencompass.is_opencompass(_header(path)) else None
    if path.suffix in _TEXTS:
        printed = printed_tables.read_printed_tables(path, notes)
        if printed is not None:
            return printed
        rows = opencompass.summary_rows(path)
        return opencompass.read_opencompass(path) if rows and opencompass.is_opencompass(rows[0]) else None
    if path.suffix != ".json":
        return None
    content = read_json(path)
    for recognised, read in _READERS:
        if recognised(content):
            return list(read(path, content))
    return None


def _header(path: Path) -> list[str]:
    if path.suffix != ".csv":
        return []
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            refuse_pointer(stream.read(200), path)
            stream.seek(0)
            return [cell.strip() for cell in next(csv.reader(stream), [])]
    except (UnicodeDecodeError, csv.Error):
        return []  # no summary of OpenCompass; the reader of tables knows more encodings


_READERS: tuple[tuple[Any, Any], ...] = (
    (inspect_ai.is_inspect, inspect_ai.read_inspect),
    (every_eval_ever.is_every_eval_ever, every_eval_ever.read_every_eval_ever),
    (lighteval.is_lighteval, lighteval.read_lighteval),
    (lm_eval.is_lm_eval, lm_eval.read_lm_eval),
)
