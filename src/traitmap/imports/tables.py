"""Tables of scores, long or wide, as the readers of matrices take them, turned into single results."""

from __future__ import annotations

from math import isnan
from pathlib import Path

from traitmap.imports.evaluation import Evaluation
from traitmap.matrix_io import read_matrix
from traitmap.study.settings import BASELINE

KIND = "table (CSV, TSV, Parquet)"


def read_table(path: Path) -> list[Evaluation]:
    """Every cell of a table; the row ``__baseline__`` is the base. What the columns mean: ``read_matrix``."""
    matrix = read_matrix(path)
    base = str(matrix.conditions.get("base") or BASELINE)
    higher = matrix.higher_is_better
    found = [
        Evaluation(
            place=f"{path}, {cell.source}, {cell.target}",
            kind=KIND,
            model=base,
            adapter=None if cell.source == BASELINE else cell.source,
            task=cell.target,
            metric=cell.metric or "score",
            filter="none",
            value=cell.value,
            stderr=cell.stderr,
            n=cell.n,
            higher_is_better=higher.get(cell.target),
        )
        for cell in matrix.cells
        if cell.seed is None and not isnan(cell.value)
    ]
    known = {one.task for one in found if one.adapter is None}
    metrics = {one.task: one.metric for one in found}
    for target, value in zip(matrix.targets, matrix.baseline, strict=True):
        if target not in known and not isnan(value):
            found.append(
                Evaluation(
                    place=f"{path}, {BASELINE}, {target}",
                    kind=KIND,
                    model=base,
                    adapter=None,
                    task=target,
                    metric=metrics.get(target, "score"),
                    filter="none",
                    value=float(value),
                    higher_is_better=higher.get(target),
                )
            )
    return found
