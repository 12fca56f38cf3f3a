"""Summaries of OpenCompass (CSV, text, Markdown): dataset, version, metric, mode, then a column per model."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from traitmap.errors import MatrixError
from traitmap.imports.reading import Evaluation, number, sortable_date
from traitmap.matrix.tables import refuse_pointer

KIND = "OpenCompass summary"
_STAMP = re.compile(r"(\d{8}_\d{6})")
_HEADER = ("dataset", "version", "metric", "mode")


def is_opencompass(header: Sequence[str]) -> bool:
    """Whether the header of a CSV is that of a summary."""
    return tuple(header[:4]) == _HEADER


def summary_rows(path: Path) -> list[list[str]]:
    """The rows of the summary in a file, its header first; empty where the file holds none.

    ``.csv``: the whole file. ``.txt``: the part in CSV that OpenCompass writes into it. ``.md``: its table.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        refuse_pointer(text[:200], path)
        lines = text.splitlines()
        if path.suffix == ".md":
            rows = [
                [cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines if "|" in line
            ]
            return [row for row in rows if not all(re.fullmatch(r":?-+:?", cell) for cell in row)]
        if path.suffix == ".txt":
            start = next(
                (i for i, line in enumerate(lines) if line.startswith(",".join(_HEADER))), len(lines)
            )
            end = next(
                (i for i in range(start, len(lines)) if not lines[i] or lines[i][0] in "$^"), len(lines)
            )
            lines = lines[start:end]
        return [[cell.strip() for cell in row] for row in csv.reader(lines)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise MatrixError(f"{path}: cannot be read as CSV ({error})") from None


def read_opencompass(path: Path) -> list[Evaluation]:
    """Every (dataset, model) of one summary; rows without a metric are headings and averages."""
    rows = summary_rows(path)
    if not rows or not is_opencompass(rows[0]):
        raise MatrixError(f"{path}: holds no table with the columns {', '.join(_HEADER)}")
    stamp = _STAMP.search(path.stem)
    models = rows[0][4:]
    if not models:
        raise MatrixError(f"{path}, line 1: names no model after dataset, version, metric, mode")
    evaluations = []
    for line, row in enumerate(rows[1:], start=2):
        if len(row) != len(rows[0]):
            raise MatrixError(f"{path}, line {line}: has {len(row)} fields, the header has {len(rows[0])}")
        dataset, version, metric, mode, *scores = (cell.strip() for cell in row)
        if metric in ("", "-") or version in ("", "-"):
            continue
        for model, score in zip(models, scores, strict=True):
            evaluations.append(
                Evaluation(
                    place=f"{path}, line {line}, {model}",
                    kind=KIND,
                    model=model,
                    adapter=None,
                    task=dataset,
                    metric=metric,
                    filter="none",
                    value=number(score, f"{path}, line {line}, {model}"),
                    setting={"version": version, "mode": mode},
                    date=sortable_date(stamp.group(1)) if stamp else "",
                )
            )
    if not evaluations:
        raise MatrixError(
            f"{path}: holds no dataset with a metric; is it the summary that OpenCompass wrote?"
        )
    return evaluations
