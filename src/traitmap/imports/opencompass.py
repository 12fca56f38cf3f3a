"""Summaries of OpenCompass (CSV, text, Markdown): dataset, version, metric, mode, then a column per model."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from traitmap.errors import MatrixError
from traitmap.imports.reading import Evaluation, number, sortable_date
from traitmap.matrix.tables import OPENCOMPASS, text_of

KIND = "OpenCompass summary"
_STAMP = re.compile(r"(\d{8}_\d{6})")


def is_opencompass(header: Sequence[str]) -> bool:
    """Whether the header of a CSV is that of a summary."""
    return tuple(header[:4]) == OPENCOMPASS


def summary_rows(path: Path) -> list[list[str]]:
    """The rows of the summary in a file, its header first; empty where the file holds none.

    ``.csv``: the whole file. In a text the summary stands as Markdown, as CSV or laid out with spaces, of
    which OpenCompass writes and prints all three, with other lines around them: the first of these counts.
    """
    text, _ = text_of(path)
    lines = [line.rstrip() for line in text.splitlines()]
    try:
        if path.suffix == ".csv":
            return [[cell.strip() for cell in row] for row in csv.reader(lines)]
        for rows in (_markdown(lines), _comma_separated(lines), _laid_out(lines)):
            if rows:
                return rows
    except csv.Error as error:
        raise MatrixError(f"{path}: cannot be read as CSV ({error})") from None
    return []


def _markdown(lines: Sequence[str]) -> list[list[str]]:
    rows: list[list[str]] = []
    for line in lines:
        cells = (
            [cell.strip() for cell in line[line.find("|") :].strip("| ").split("|")] if "|" in line else []
        )
        if not rows and not is_opencompass(cells):
            continue
        if len(cells) < len(OPENCOMPASS):
            break
        if not all(re.fullmatch(r":?-+:?", cell) for cell in cells):
            rows.append(cells)
    return rows


def _comma_separated(lines: Sequence[str]) -> list[list[str]]:
    start = next((i for i, line in enumerate(lines) if line.startswith(",".join(OPENCOMPASS))), len(lines))
    end = next((i for i in range(start, len(lines)) if not lines[i] or lines[i][0] in "$^"), len(lines))
    return [[cell.strip() for cell in row] for row in csv.reader(lines[start:end])]


def _laid_out(lines: Sequence[str]) -> list[list[str]]:
    """The table as it is printed: columns as wide as the dashes beneath their heads."""
    for at, line in enumerate(lines[:-1]):
        if tuple(line.split()[: len(OPENCOMPASS)]) != OPENCOMPASS or not re.fullmatch(
            r"-+(\s+-+)*", lines[at + 1]
        ):
            continue
        spans = [match.span() for match in re.finditer(r"-+", lines[at + 1])]
        end = next((i for i in range(at + 2, len(lines)) if not lines[i] or lines[i][0] in "$^"), len(lines))
        return [[row[start:stop].strip() for start, stop in spans] for row in (line, *lines[at + 2 : end])]
    return []


def read_opencompass(path: Path) -> list[Evaluation]:
    """Every (dataset, model) of one summary; rows without a metric are headings and averages."""
    rows = summary_rows(path)
    if not rows or not is_opencompass(rows[0]):
        raise MatrixError(f"{path}: holds no table with the columns {', '.join(OPENCOMPASS)}")
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
