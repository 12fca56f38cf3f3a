"""A wide table, one row per source and one column per target or the reverse: names, targets, matrix."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import nan
from pathlib import Path
from typing import Any

import numpy as np

from traitmap.errors import MatrixError
from traitmap.matrix.parsed import ParsedTable, given_cell, refuse_unknown, with_base
from traitmap.matrix.record import Array, TransferMatrix
from traitmap.matrix.tables import told_apart
from traitmap.matrix.targets import no_targets, plain_name
from traitmap.study.settings import BASELINE
from traitmap.wording import listed

SOURCE_NAMES = frozenset({
    "source", "src", "adapter", "trained on", "train", "train task", "train dataset", "source task",
    "from", "fine tune", "finetune", "finetuned on", "intermediate", "intermediate task", "model",
    "model name", "run",
})  # fmt: skip
TARGET_NAMES = frozenset({
    "target", "tgt", "trg", "dst", "dest", "destination", "target task", "to", "task", "dataset",
    "benchmark", "eval", "evaluated on", "test task", "eval task", "eval dataset", "test",
})  # fmt: skip
_ROW_NAMES = SOURCE_NAMES | {"name", "checkpoint", "method", "system", "experiment"}
_BENCHMARKS = re.compile(
    r"(gsm8?k|boolq|mmlu|arc( |$)|hella ?swag|truthful ?qa|wino ?grande|piqa|(open)?bookqa|obqa|humaneval"
    r"|mbpp|bbh|gpqa|ifeval|imdb|sst ?2|mnli|qnli|rte|mrpc|cola|qqp|squad|trivia ?qa|nq( |$)|drop|copa|wic"
    r"|wsc|xnli|lambada|logiqa|sciq|race|cmmlu|ceval|agieval|musr|cnn dailymail|xsum|snli|anli"
    r"|commonsense ?qa|social ?iqa).*"
)


def from_wide(
    table: ParsedTable,
    orientation: str,
    row_name: str | None,
    only: tuple[str, ...],
    base: str | None,
) -> TransferMatrix:
    """The matrix of a table of one row per source (or per target: it is turned)."""
    label = _label(table, row_name)
    rows = _names(table, label)
    numeric = tuple(name for name in table.header if name != label and not table.is_text(name))
    ignored = [name for name in table.header if name != label and name not in numeric]
    if not numeric:
        raise MatrixError(
            f"{table.path}: no column holds numbers; a wide table has one row per source and one column per "
            "target, a long one the columns source, target, value"
        )
    turned = orientation == "columns"
    if turned:
        table.notes.append("sources in columns")
    elif orientation == "auto":
        _refuse_benchmarks_in_rows(table, label, rows, numeric)
    numbers = [table.numbers(name) for name in numeric]
    values, stderrs = (np.array([pair[i] for pair in numbers], dtype=float).T for i in (0, 1))
    sources, targets = (numeric, rows) if turned else (rows, numeric)
    if turned:
        values, stderrs = values.T, stderrs.T
    refuse_unknown(table, only, targets, "target")
    reasons = {} if only else no_targets(targets, values)
    kept = [name for name in targets if (name in only if only else name not in reasons)]
    if not kept:
        listing = ", ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise MatrixError(
            f"{table.path}: no column is left as a target ({listing}); name the targets with --only"
        )
    for name in numeric:
        if turned or name in kept:
            table.refuse_text(name, rows)
    places = [targets.index(name) for name in kept]
    values, stderrs = values[:, places], stderrs[:, places]
    percent = [
        name
        for name in numeric
        if (turned or name in kept) and any(number and number.percent for number in table.columns[name])
    ]
    if percent:
        everywhere = len(percent) == (len(numeric) if turned else len(kept))
        table.notes.append("percent" if everywhere else f"percent in {listed(percent)}")
    if np.isfinite(stderrs).any():
        table.notes.append("± as standard errors")
    if not only:
        _refuse_two_scales(table, sources, kept, values)
    conditions: dict[str, Any] = {
        "renamed": [name for name, word in zip(rows, table.words(label), strict=True) if name != word],
        "file": Path(table.path).name,
        "layout": "wide",
        "orientation": "columns" if turned else "rows",
        "ignored_columns": ignored,
    } | ({"left_out": reasons} if reasons else {})
    return _given(with_base(table, sources, base), kept, values, stderrs, conditions)


def _label(table: ParsedTable, row_name: str | None) -> str:
    """The column that names the rows: the one that is given, that holds names, or else the first."""
    if row_name is not None and row_name not in table.header:
        raise MatrixError(
            f"{table.path}: no column named {row_name!r} to name the rows; "
            f"its columns are {', '.join(table.header)}"
        )
    if row_name is not None:
        return row_name
    first = table.header[0]
    label = row_names(table, unique=True) or row_names(table, unique=False)
    if label is None or (not table.is_text(first) and any(number is None for number in table.columns[first])):
        return first  # names of which some look like numbers
    if label != first:
        table.notes.append(f"rows named by {label!r}")
    return label


def row_names(table: ParsedTable, *, unique: bool) -> str | None:
    """The column that names a wide table's rows: of those that hold words the one called so, else the first.

    unique: only one in which no name stands twice.
    """
    texts = [name for name in table.header if table.is_text(name)]
    if unique:
        texts = [name for name in texts if len(set(table.words(name))) == len(table.rows)]
    called = [name for name in texts if plain_name(name) in _ROW_NAMES]
    return next(iter(called or texts), None)


def _names(table: ParsedTable, column: str) -> tuple[str, ...]:
    """Names in a column, which must be there; repeated ones are told apart, but there is only one base."""
    names = table.words(column)
    if "" in names:
        raise MatrixError(
            f"{table.path}: row {names.index('') + 2} has no name in column {column!r}; name every row"
        )
    if names.count(BASELINE) > 1:
        raise MatrixError(
            f"{table.path}: {names.count(BASELINE)} rows are named {BASELINE}; keep one base model"
        )
    return told_apart(names)


def _refuse_benchmarks_in_rows(
    table: ParsedTable, label: str, rows: Sequence[str], columns: Sequence[str]
) -> None:
    """MatrixError where the rows are benchmarks and the columns are not: models then stand in columns."""
    in_rows = [name for name in rows if _BENCHMARKS.fullmatch(plain_name(name))]
    in_columns = [name for name in columns if _BENCHMARKS.fullmatch(plain_name(name))]
    headed = plain_name(label) in TARGET_NAMES and plain_name(label) not in SOURCE_NAMES
    if (len(in_rows) < 2 or 3 * len(in_rows) < len(rows)) and not (headed and in_rows):
        return
    if not in_columns:
        raise MatrixError(
            f"{table.path}: its rows look like benchmarks ({listed(in_rows)}) and its columns like models "
            f"({listed(list(columns))}); say --orientation columns if the models are columns, "
            "--orientation rows if the rows are"
        )


def _refuse_two_scales(
    table: ParsedTable, sources: Sequence[str], targets: Sequence[str], values: Array
) -> None:
    """MatrixError where shares of 1 and numbers up to 100 meet in one column.

    Only where shares times a hundred lie among the others: a model near 0 is no share.
    """
    known = np.isfinite(values) & (values != 0)
    size = np.abs(values)
    for j, target in enumerate(targets):
        small = known[:, j] & (size[:, j] <= 1)
        large = known[:, j] & ~small
        if not small.any() or large.sum() < 2:
            continue
        low, high = size[large, j].min(), size[large, j].max()
        shares = size[small, j]
        gap = low >= 10 * shares.max() and high <= 100
        among = (100 * shares >= 0.5 * low).all() and (100 * shares <= min(100, 1.5 * high)).all()
        # of a single number it takes the whole row to tell a share from a failure
        rows = np.flatnonzero(small)
        whole = all((size[i][known[i]] <= 1).all() and known[i].sum() > 1 for i in rows)
        many = small.sum() > 2 and large.sum() > 2 and shares.min() >= 0.1
        if gap and among and (whole or many):
            share, number = int(rows[0]), int(np.flatnonzero(large)[0])
            raise MatrixError(
                f"{table.path}: column {target!r} holds shares of 1 ({sources[share]}: {values[share, j]:g}) "
                f"beside numbers up to 100 ({sources[number]}: {values[number, j]:g}); bring them to one "
                "scale, put percent signs, "
                "or say that they are one with --only"
            )


def _given(
    sources: Sequence[str],
    targets: Sequence[str],
    values: Array,
    stderrs: Array,
    conditions: Mapping[str, Any],
) -> TransferMatrix:
    """The matrix of a wide table (sources with the base among them)."""
    at = {name: i for i, name in enumerate(sources)}
    base = values[at[BASELINE]] if BASELINE in at else np.full(len(targets), nan)
    base_stderrs = stderrs[at[BASELINE]] if BASELINE in at else base
    others = [name for name in sources if name != BASELINE]
    places = [at[name] for name in others]
    kept = values[places]
    cells = tuple(
        given_cell(
            source,
            target,
            None,
            {"value": float(value), "stderr": float(stderr), "gain": float(value - start)},
        )
        for source, row, row_stderrs in zip(others, kept, stderrs[places], strict=True)
        for target, value, stderr, start in zip(targets, row, row_stderrs, base, strict=True)
    )
    base_cells = tuple(
        given_cell(BASELINE, target, None, {"value": float(value), "stderr": float(stderr)})
        for target, value, stderr in zip(targets, base, base_stderrs, strict=True)
    )
    return TransferMatrix(
        sources=tuple(others),
        targets=tuple(targets),
        values=kept,
        baseline=base,
        cells=cells,
        base_cells=base_cells if BASELINE in at else (),
        conditions=dict(conditions),
    )
