"""Summaries of OpenCompass: a CSV with dataset, version, metric, mode, then one column per model."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from traitmap.errors import MatrixError
from traitmap.imports.reading import Evaluation, number

KIND = "OpenCompass summary"
_HEADER = ("dataset", "version", "metric", "mode")


def is_opencompass(header: Sequence[str]) -> bool:
    """Whether the header of a CSV is that of a summary."""
    return tuple(header[:4]) == _HEADER


def read_opencompass(path: Path) -> list[Evaluation]:
    """Every (dataset, model) of one summary; rows without a metric are headings and averages."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.reader(stream))
    except (UnicodeDecodeError, csv.Error) as error:
        raise MatrixError(f"{path}: cannot be read as CSV ({error})") from None
    models = rows[0][4:]
    if not models:
        raise MatrixError(f"{path}, line 1: names no model after dataset, version, metric, mode")
    found = []
    for line, row in enumerate(rows[1:], start=2):
        if len(row) != len(rows[0]):
            raise MatrixError(f"{path}, line {line}: has {len(row)} fields, the header has {len(rows[0])}")
        dataset, version, metric, mode, *scores = (cell.strip() for cell in row)
        if metric in ("", "-") or version in ("", "-"):
            continue
        for model, score in zip(models, scores, strict=True):
            found.append(
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
                )
            )
    if not found:
        raise MatrixError(
            f"{path}: holds no dataset with a metric; is it the summary that OpenCompass wrote?"
        )
    return found
