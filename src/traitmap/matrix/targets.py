"""Which columns of a wide table are targets: not averages, copies, combinations, sizes, dates, links, counts.

By a column's name where it says so, by its numbers where those leave no doubt. The answer never depends on
the order of the columns. Nothing is dropped in silence: every column that is left out has its reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from traitmap.matrix.record import Array

_AVERAGE = re.compile(
    r"((overall|macro|micro|total|grand|weighted) )?(average|avg|mean)"
    r"( (score|acc|accuracy|performance|all))?"
    r"|overall( score)?"
)
_BY_NAME: Mapping[str, re.Pattern[str]] = {
    "a size": re.compile(
        r"(model |pretraining |training |total |active |num |number of |no of |n )?"
        r"(params?|parameters|param count|(data |model |file )size|tokens|flops|layers|context (length|size)"
        r"|hidden size|vram|memory|max memory)|size"
    ),
    "a date": re.compile(
        r"((upload( to hub)?|submission|release|evaluation|created|updated|last modified) )?(date|timestamp)"
        r"|(release |publication )?year|created at|updated at|knowledge cutoff"
    ),
    "a link": re.compile(r"url|link|href|paper|homepage|(hf |model |github )?(url|link)"),
    "a count": re.compile(
        r"(hub )?(likes|downloads|votes|stars)|#|rank|position|index|n|count|n eval|n items|n samples|samples"
        r"|num (samples|items|examples)|number of (samples|items|examples)|seed"
    ),
}
_FEWEST_ROWS = 5  # fewer agree by accident
_LARGEST_TABLE = 120  # columns among which combinations are looked for


def plain_name(name: str) -> str:
    """A column's name in small letters, without signs and what stands in brackets."""
    text = re.sub(r"\([^()]*\)|\[[^]]*\]", " ", name.lower())
    return " ".join(re.sub(r"[^a-z0-9#]+", " ", text).replace("#", " # ").split()).removeprefix("# ")


def no_targets(names: Sequence[str], values: Array) -> dict[str, str]:
    """Columns that are no targets: name -> reason.

    values: (rows, columns), NaN where unknown. names: of the columns.
    """
    reasons = {}
    for name in names:
        plain = plain_name(name)
        kind = next((kind for kind, pattern in _BY_NAME.items() if pattern.fullmatch(plain)), None)
        if kind is not None:
            reasons[name] = kind
    rest = [name for name in names if name not in reasons]
    at = {name: i for i, name in enumerate(names)}
    for name in rest:
        if _AVERAGE.fullmatch(plain_name(name)) and len(rest) > 2:
            others = [other for other in rest if other != name]
            close = _is_mean(values[:, at[name]], values[:, [at[other] for other in others]])
            reasons[name] = f"mean of the {_word(len(others))}" if close else "an average by its name"
    for find in (_copies, _means, _combinations):
        rest = sorted(name for name in names if name not in reasons)
        if rest:
            reasons |= find(rest, values[:, [at[name] for name in rest]])
    return {name: reasons[name] for name in names if name in reasons}


def _word(count: int) -> str:
    words = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    return words[count] if count < len(words) else str(count)


def _unit(column: Array) -> float:
    """The last decimal place in which a column is written: 0.1 for 45.1; 1e-10 for unrounded numbers."""
    known = column[np.isfinite(column)]
    for digits in range(7):
        if np.allclose(np.round(known, digits), known, rtol=0, atol=1e-9):
            return float(10.0**-digits)
    return 1e-10


def _is_mean(column: Array, others: Array) -> bool:
    """Whether a column is the mean of others within the rounding of both, in every row that is complete."""
    complete = np.isfinite(column) & np.isfinite(others).all(axis=1)
    if complete.sum() < 2 or others.shape[1] < 2:
        return False
    rounding = 0.5 * _unit(column) + 0.5 * float(np.mean([_unit(other) for other in others.T]))
    off = np.abs(others[complete].mean(axis=1) - column[complete])
    return bool((off <= rounding + 1e-9 * np.abs(column[complete])).all())


def _tells(column: Array) -> bool:
    """Whether a column's numbers are rich enough that an equation they fulfil is no accident."""
    known = column[np.isfinite(column)]
    if len(np.unique(known)) < _FEWEST_ROWS:
        return False
    return bool(np.ptp(known) >= 20 * _unit(known))


def _copies(names: Sequence[str], values: Array) -> dict[str, str]:
    """Columns that are another one in percent: a hundred times it, within rounding."""
    reasons: dict[str, str] = {}
    largest = np.nanmax(np.where(np.isfinite(values), np.abs(values), -np.inf), axis=0, initial=-np.inf)
    for i, name in enumerate(names):
        if not 1 < largest[i] <= 100:
            continue
        for j, other in enumerate(names):
            if not 0 < largest[j] <= 1 or abs(largest[i] - 100 * largest[j]) > 1:
                continue
            both = np.isfinite(values[:, i]) & np.isfinite(values[:, j])
            rounding = 0.5 * _unit(values[:, i]) + 50 * _unit(values[:, j])
            off = np.abs(values[both, i] - 100 * values[both, j])
            if both.sum() >= _FEWEST_ROWS and _tells(values[:, j]) and (off <= rounding).all():
                reasons[name] = f"{other} in percent"
    return reasons


def _means(names: Sequence[str], values: Array) -> dict[str, str]:
    """Columns that are the mean of all others, whatever their name."""
    table = values[np.isfinite(values).all(axis=1)]
    n_others = len(names) - 1
    if n_others < 3 or len(table) < _FEWEST_ROWS:
        return {}
    means = (table.sum(axis=1, keepdims=True) - table) / n_others
    off = np.abs(means - table).max(axis=0)
    for i in np.flatnonzero(off <= 0.2 * (np.ptp(table, axis=0) + 1e-12)).tolist():
        if _tells(table[:, i]) and _is_mean(table[:, i], np.delete(table, i, axis=1)):
            return {names[i]: f"mean of the {_word(n_others)}"}
    return {}


def _combinations(names: Sequence[str], values: Array) -> dict[str, str]:
    """The column, if there is one equation among the columns, that stands alone on one side of it.

    Where there are several equations the whole table is of low rank, and no column is more derived than
    another: then none is left out.
    """
    table = values[np.isfinite(values).all(axis=1)]
    n_rows, n_columns = table.shape
    if not 3 <= n_columns <= _LARGEST_TABLE or n_rows < 2 * n_columns + _FEWEST_ROWS:
        return {}
    centred = table - table.mean(axis=0)
    spread = centred.std(axis=0)
    if not all(_tells(column) for column in table.T):
        return {}
    _, singular, axes = np.linalg.svd(centred / spread, full_matrices=False)
    if len(singular) < 2 or singular[-2] < 1e-2 * singular[0]:
        return {}
    weights = axes[-1] / spread
    weights = np.where(np.abs(weights * spread) < 1e-3, 0.0, weights / np.abs(weights).max())
    rounding = 0.5 * float(np.abs(weights) @ np.array([_unit(column) for column in table.T]))
    off = np.abs(centred @ weights)
    involved = [i for i in range(n_columns) if weights[i]]
    if off.max() > 2 * rounding or rounding > 0.1 * float((np.abs(weights) * spread).max()):
        return {}
    heaviest = [i for i in involved if abs(weights[i]) > 0.999]
    summary = [i for i in heaviest if re.search(r"total|sum|overall|diff|delta|gain", plain_name(names[i]))]
    at = (summary or heaviest)[-1]
    others = [names[i] for i in involved if i != at]
    listing = ", ".join(others[:4]) + (f" and {len(others) - 4} more" if len(others) > 4 else "")
    return {names[at]: f"a combination of {listing}"}
