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
_UNITS = r"( (b|m|k|bn|billions?|millions?|in b|in billions?|gb|tb|t|s|kg|usd))?"
_BY_NAME: Mapping[str, re.Pattern[str]] = {
    "a size": re.compile(
        r"(model |pretraining |training |total |active |trainable |num |number of |no of |n )*"
        r"(params?|parameters|param count|(data |model |file )size|tokens|flops|layers|context (length|size)"
        r"|hidden size|vram|memory|max memory)" + _UNITS + "|size" + _UNITS
    ),
    "a date": re.compile(
        r"((upload( to hub)?|submission|release|evaluation|created|updated|last modified) )?(date|timestamp)"
        r"|(release |publication )?year|created at|updated at|knowledge cutoff"
    ),
    "a link": re.compile(r"url|link|href|paper|homepage|(hf |model |github )?(url|link)"),
    "a count": re.compile(
        r"(hub )?(likes|downloads|votes|stars|citations)( last month)?|#|rank|position|index|id|idx|nr|no|row"
        r"|n|count|n eval|n items|n samples|samples|seed"
        r"|(num|number of) (samples|items|examples)"
    ),
    "a cost": re.compile(
        r"(training |train |inference |eval |evaluation |total |wall |gpu )*"
        r"(time|runtime|wall clock|latency|duration|throughput|price|cost|energy|hours"
        r"|co2( cost| emissions?)?)" + _UNITS
    ),
    "a setting": re.compile(
        r"lr|learning rate|epochs?|(num |max |training |train )?(steps|epochs)|batch size|weight decay"
        r"|dropout|lora (r|rank|alpha)|temperature|top p|(num )?(few )?shots?|num fewshot|few shot"
    ),
}
# Columns that say something of another column: words of their names, and what they hold.
_ATTACHED: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("error", re.compile(r"\b(std ?err(or)?|stderr|standard errors?|se|sem)\b")),
    (
        "spread",
        re.compile(r"\b(std( dev)?|stdev|sd|standard deviation|variance|var|iqr|ci( ?95)?( low| high)?)\b"),
    ),
    ("count", re.compile(r"\b(n|count|support|(n|num) (samples|items|examples))\b")),
)
_SUMMARIES = re.compile(
    r"(overall |macro |micro |grand |column )?(average|avg|mean|median|min|minimum|max|maximum|total|sum)"
    r"( (score|of all.*))?"
)
_SPREADS = re.compile(r"std( dev(iation)?)?|stdev|standard deviation|sd|variance|std err(or)?|stderr|count")
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
    for i, name in enumerate(names):
        if name not in reasons and (kind := _by_numbers(name, values[:, i])):
            reasons[name] = kind
    for find in (_same, _copies, _means, _combinations):
        rest = sorted(name for name in names if name not in reasons)
        if rest:
            reasons |= find(rest, values[:, [at[name] for name in rest]])
    return {name: reasons[name] for name in names if name in reasons}


def _by_numbers(name: str, column: Array) -> str:
    """What a column is by its numbers, or by having no name at all."""
    if not name.strip():
        return "no name"
    known = column[np.isfinite(column)]
    if known.size < 3 or not np.array_equal(known, np.round(known)):
        return ""
    if (known >= 1990).all() and (known <= 2035).all():
        return "a year"
    return "a date" if (known >= 1e9).all() and (known < 1e10).all() else ""


def attached_columns(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Columns that hold the standard error, the spread or the number of items of another one.

    Returns name -> (``error``, ``spread`` or ``count``, the other column). ``gsm8k_stderr`` belongs to
    ``gsm8k``, or to the only column that has one word more (``gsm8k acc``).
    """
    plain = {name: plain_name(name) for name in names}
    attached = {}
    for name in names:
        for kind, pattern in _ATTACHED:
            rest = " ".join(pattern.sub(" ", plain[name], count=1).split())
            if rest == plain[name] or not rest:
                continue
            others = [other for other in names if other != name and plain[other] == rest] or [
                other
                for other in names
                if other != name and _is_one_word_more(plain[other].split(), rest.split())
            ]
            if len(others) == 1:
                attached[name] = (kind, others[0])
                break
    return {name: (kind, of) for name, (kind, of) in attached.items() if of not in attached}


def _is_one_word_more(words: Sequence[str], fewer: Sequence[str]) -> bool:
    """Whether one list of words is the other and a word more, which marks no column of another kind."""
    return len(words) == len(fewer) + 1 and any(
        [*words[:i], *words[i + 1 :]] == list(fewer)
        and not any(pattern.fullmatch(words[i]) for _, pattern in _ATTACHED)
        for i in range(len(words))
    )


def summary_rows(names: Sequence[str], values: Array) -> list[str]:
    """Rows that sum up the others: spreads by their names, averages and the like where the numbers agree.

    names: of the rows; values: (rows, columns). A row called ``average`` that is no average is a model of
    that name.
    """
    spreads = [name for name in names if _SPREADS.fullmatch(plain_name(name))]
    called = [name for name in names if _SUMMARIES.fullmatch(plain_name(name)) and name not in spreads]
    others = values[[i for i, name in enumerate(names) if name not in called and name not in spreads]]
    if len(others) < 2:
        return []
    return spreads + [name for name in called if _sums_up(name, values[list(names).index(name)], others)]


def _sums_up(name: str, row: Array, others: Array) -> bool:
    """Whether a row holds what its name says of all other rows, within rounding."""
    words = plain_name(name).split()
    known = np.isfinite(row) & np.isfinite(others).any(axis=0)
    if not known.any():
        return False
    columns = others[:, known]
    whole: Array
    if "median" in words:
        whole = np.nanmedian(columns, axis=0)
    elif {"min", "minimum"} & set(words):
        whole = np.nanmin(columns, axis=0)
    elif {"max", "maximum"} & set(words):
        whole = np.nanmax(columns, axis=0)
    else:
        whole = np.nanmean(columns, axis=0)
    sums = np.nansum(columns, axis=0)
    places = [_unit(np.append(column, value)) for column, value in zip(columns.T, row[known], strict=True)]
    rounding = 0.51 * np.array(places)
    totals = bool({"total", "sum"} & set(words)) and bool(
        (np.abs(row[known] - sums) <= len(others) * rounding).all()
    )
    return totals or bool((np.abs(row[known] - whole) <= 2 * rounding).all())


def _same(names: Sequence[str], values: Array) -> dict[str, str]:
    """Columns that are another one once more, number for number."""
    first: dict[bytes, str] = {}
    reasons: dict[str, str] = {}
    for name, column in zip(names, values.T, strict=True):
        other = first.setdefault(np.where(np.isfinite(column), column, np.nan).tobytes(), name)
        if other != name and _tells(column):
            reasons[name] = f"the same as {other}"
    return reasons


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
