"""Wide tables: which rows and columns are sources, targets, errors, seeds and summaries, and their matrix.

A wide table has one row per source and one column per target, or the reverse.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import nan
from pathlib import Path
from typing import Any

import numpy as np

from traitmap.errors import MatrixError
from traitmap.matrix.layouts import (
    SOURCE_NAMES,
    TARGET_NAMES,
    ParsedTable,
    from_long,
    given_cell,
    refuse_unknown,
    row_names,
    with_base,
)
from traitmap.matrix.numbers import CellNumber
from traitmap.matrix.record import Array, TransferMatrix
from traitmap.matrix.tables import told_apart
from traitmap.matrix.targets import attached_columns, no_targets, plain_name, summary_rows
from traitmap.study.settings import BASELINE
from traitmap.wording import listed

_BENCHMARKS = re.compile(
    r"(gsm8?k|boolq|mmlu|arc( |$)|hella ?swag|truthful ?qa|wino ?grande|piqa|(open)?bookqa|obqa|humaneval"
    r"|mbpp|bbh|gpqa|ifeval|imdb|sst ?2|mnli|qnli|rte|mrpc|cola|qqp|squad|trivia ?qa|nq( |$)|drop|copa|wic"
    r"|wsc|xnli|lambada|logiqa|sciq|race|cmmlu|ceval|agieval|musr|cnn dailymail|xsum|snli|anli"
    r"|commonsense ?qa|social ?iqa).*"
)


_SEEDS = frozenset({"seed", "run", "trial", "fold", "repeat", "replicate", "random seed"})
_CHANCE = re.compile(r"(random|chance)( (chance|guess|guessing|baseline|choice|level|performance))?")
_MAJORITY = re.compile(r"(majority|most frequent|commonest)( (class|label|answer|baseline))?")


@dataclass(frozen=True)
class _Scores:
    """The numbers of a table, (sources, targets). left_out: rows and columns, each with its reason."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    values: Array
    stderrs: Array
    left_out: Mapping[str, str]

    def without(self, sources: Mapping[str, str], targets: Mapping[str, str]) -> _Scores:
        """The same without some sources and targets: name -> reason."""
        rows = [i for i, name in enumerate(self.sources) if name not in sources]
        columns = [j for j, name in enumerate(self.targets) if name not in targets]
        return _Scores(
            tuple(self.sources[i] for i in rows),
            tuple(self.targets[j] for j in columns),
            self.values[np.ix_(rows, columns)],
            self.stderrs[np.ix_(rows, columns)],
            {**self.left_out, **sources, **targets},
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
    table, sections = _without_sections(table, label)
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
    seeds = None if turned else _seed_column(table, label, numeric)
    scores = _scores(table, rows, numeric, only, base, turned=turned)
    scores = replace(scores, left_out={**sections, **scores.left_out})
    _check_cells(table, scores, rows, numeric, only, turned=turned)
    conditions: dict[str, Any] = {
        "renamed": [name for name, word in zip(rows, table.words(label), strict=True) if name != word],
        "file": Path(table.path).name,
        "layout": "wide",
        "orientation": "columns" if turned else "rows",
        "ignored_columns": ignored,
    }
    left_out = {name: reason for name, reason in scores.left_out.items() if name != seeds}
    conditions |= {"left_out": left_out} if left_out else {}
    lower = [name for name in scores.targets if name in table.lower or "↓" in name]
    higher = [name for name in scores.targets if "↑" in name]
    if lower or higher:
        told = {**dict.fromkeys(lower, False), **dict.fromkeys(higher, True)}
        conditions["higher_is_better"] = {**told, **(table.conditions.get("higher_is_better") or {})}
    if seeds is not None:
        matrix = _with_seeds(table, label, seeds, scores.targets, base)
        renamed: dict[str, Any] = {"renamed": [], "layout": "wide"}
        return replace(matrix, conditions={**matrix.conditions, **conditions, **renamed})
    scores, chance, majority = _without_guesses(table, scores, base)
    named, base_row = with_base(table, scores.sources, base)
    matrix = _given(named, scores.targets, scores.values, scores.stderrs, conditions | base_row)
    return replace(matrix, chance=chance, majority=majority)


def _without_sections(table: ParsedTable, label: str) -> tuple[ParsedTable, dict[str, str]]:
    """The table without rows that only have a name: headings of its parts. They are told."""
    at = table.header.index(label)
    empty = [
        all(
            cell is None or (isinstance(cell, str) and not cell.strip())
            for i, cell in enumerate(row)
            if i != at
        )
        for row in table.rows
    ]
    if len(table.header) < 2 or not any(empty) or all(empty):
        return table, {}
    names = [name for name, is_empty in zip(table.words(label), empty, strict=True) if is_empty and name]
    kept = [i for i, is_empty in enumerate(empty) if not is_empty]
    columns = {name: [numbers[i] for i in kept] for name, numbers in table.columns.items()}
    rows = tuple(table.rows[i] for i in kept)
    return replace(table, rows=rows, columns=columns), dict.fromkeys(names, "no numbers")


def _scores(
    table: ParsedTable,
    rows: Sequence[str],
    numeric: Sequence[str],
    only: Sequence[str],
    base: str | None,
    *,
    turned: bool,
) -> _Scores:
    """Sources, targets and numbers, without what is neither."""
    numbers = [table.numbers(name) for name in numeric]
    values, stderrs = (np.array([pair[i] for pair in numbers], dtype=float).T for i in (0, 1))
    refuse_unknown(table, only, rows if turned else numeric, "target")
    attached = {} if turned else attached_columns(numeric)
    for name, (kind, of) in attached.items():
        if kind == "error" and of not in attached:
            stderrs[:, list(numeric).index(of)] = values[:, list(numeric).index(name)]
            table.notes.append(f"{name} as standard errors of {of}")
    reasons = {
        name: f"standard errors of {of}" if kind == "error" else f"a {kind} of {of}"
        for name, (kind, of) in attached.items()
        if name not in only
    }
    scores = _Scores(
        tuple(numeric) if turned else tuple(rows),
        tuple(rows) if turned else tuple(numeric),
        values.T if turned else values,
        stderrs.T if turned else stderrs,
        {},
    ).without({}, reasons)
    errors = [name for name, (kind, _) in attached.items() if kind == "error"]
    scores = replace(
        scores, left_out={name: reason for name, reason in scores.left_out.items() if name not in errors}
    )
    summaries = {
        name: "a summary of rows" for name in summary_rows(scores.sources, scores.values) if name != base
    }
    scores = scores.without(summaries, {})
    if only:
        others = {name: "" for name in scores.targets if name not in only}
        return replace(scores.without({}, others), left_out=scores.left_out)
    scores = scores.without({}, no_targets(scores.targets, scores.values))
    if not scores.targets:
        listing = ", ".join(f"{name}: {reason}" for name, reason in scores.left_out.items())
        raise MatrixError(
            f"{table.path}: no column is left as a target ({listing}); name the targets with --only"
        )
    return scores


def _check_cells(
    table: ParsedTable,
    scores: _Scores,
    rows: Sequence[str],
    numeric: Sequence[str],
    only: Sequence[str],
    *,
    turned: bool,
) -> None:
    """Refuse text among numbers and two scales in one column; note percent signs and errors."""
    used = [name for name in numeric if name in (scores.sources if turned else scores.targets)]
    for name in used:
        table.refuse_text(name, rows)
    percent = [name for name in used if any(number and number.percent for number in table.columns[name])]
    if percent:
        table.notes.append("percent" if len(percent) == len(used) else f"percent in {listed(percent)}")
    if any(number and number.stderr == number.stderr for name in used for number in table.columns[name]):
        table.notes.append("± as standard errors")
    table.note_asides(used)
    if not only:
        _refuse_two_scales(table, scores.sources, scores.targets, scores.values)


def _without_guesses(
    table: ParsedTable, scores: _Scores, base: str | None
) -> tuple[_Scores, Array | None, Array | None]:
    """The scores without the rows of chance and of the commonest answer, and these rows."""
    found: dict[str, Array | None] = {"chance": None, "the commonest answer": None}
    reasons = {}
    for what, pattern in (("chance", _CHANCE), ("the commonest answer", _MAJORITY)):
        names = [name for name in scores.sources if pattern.fullmatch(plain_name(name)) and name != base]
        if len(names) == 1 and len(scores.sources) > 2:
            found[what] = scores.values[scores.sources.index(names[0])]
            reasons[names[0]] = what
            table.notes.append(f"{what} in row {names[0]!r}")
    kept = scores.without(reasons, {})
    return kept, found["chance"], found["the commonest answer"]


def _seed_column(table: ParsedTable, label: str, numeric: Sequence[str]) -> str | None:
    """The column of seeds, where rows of one name differ in it."""
    names = table.words(label)
    if len(set(names)) == len(names):
        return None
    for name in numeric:
        if plain_name(name) in _SEEDS:
            seeds, _ = table.numbers(name)
            whole = all(seed != seed or float(seed).is_integer() for seed in seeds)
            if whole and len(set(zip(names, map(str, seeds), strict=True))) == len(names):
                return name
    return None


def _with_seeds(
    table: ParsedTable, label: str, seeds: str, targets: Sequence[str], base: str | None
) -> TransferMatrix:
    """The matrix of a table with a row for each seed of a source, read as the long one that it stands for."""
    numbers = {target: table.numbers(target) for target in targets}
    cells = [
        (source, target, value, error, seed)
        for i, (source, seed) in enumerate(zip(table.words(label), table.columns[seeds], strict=True))
        for target in targets
        for value, error in ((numbers[target][0][i], numbers[target][1][i]),)
    ]
    header = ("source", "target", "value", "seed")
    long = replace(
        table,
        header=header,
        rows=tuple((source, target, value, seed) for source, target, value, _, seed in cells),
        columns={
            "source": [None] * len(cells),
            "target": [None] * len(cells),
            "value": [CellNumber(value, error) for _, _, value, error, _ in cells],
            "seed": [seed or CellNumber(nan) for *_, seed in cells],
        },
    )
    table.notes.append(f"seeds in {seeds!r}")
    return from_long(long, dict(zip(header, header, strict=True)), base, ())


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
