"""From the value in a label column to the word that stands for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from traitmap.data.tables import Problem
from traitmap.study.settings import Source

_SHOWN = 8


def label_word(value: Any, words: Mapping[str, str] | None, names: Sequence[str] = ()) -> str | None:
    """The word of one label value; None where the value is null, blank or has no word.

    words: ``labels`` of the source; its keys are matched by their characters, so that ``1`` stands for
        the number, the text ``"1"`` and the float ``1.0`` alike, and ``true`` for the boolean. Without
        words the value's own characters are the word.
    names: class names where the column holds class indices; a name may stand as a key in place of its
        index, and is the word where ``words`` is None.
    """
    spellings = _spellings(value, names)
    if words is None:
        return spellings[-1] if spellings else None
    return next((words[spelling] for spelling in spellings if spelling in words), None)


def label_problems(source: Source, values: Iterable[Any], names: Sequence[str] = ()) -> list[Problem]:
    """Values that have no word, all of them with their counts."""
    missing: Counter[str] = Counter()
    found = blank = 0
    for value in values:
        if label_word(value, source.labels, names) is not None:
            found += 1
        elif _spellings(value, names):
            missing[_spellings(value, names)[-1]] += 1
        else:
            blank += 1
    problems = []
    if blank:
        said = f"no value in the label column {source.label!r} in {rows_in_words(blank)}; fill or remove them"
        problems.append(Problem("label", said))
    if missing and not found:
        keys = ", ".join(map(repr, source.labels or ()))
        said = f"no row has one of the values {keys}; the column {source.label!r} holds {_listed(missing)}"
        problems.append(Problem("labels", f"{said}; write these values in front of the words"))
    elif missing:
        said = f"values of {source.label!r} without a word: {_listed(missing)}; give each a line under labels"
        problems.append(Problem("labels", said))
    return problems


def rows_in_words(count: int) -> str:
    return f"{count:,} row" if count == 1 else f"{count:,} rows"


def _spellings(value: Any, names: Sequence[str]) -> list[str]:
    """Ways to write one value as a key, the plainest last; none where there is no value."""
    if value is None or value != value or (isinstance(value, str) and not value.strip()):
        return []
    if isinstance(value, bool):
        return [str(value), str(value).lower()]
    if isinstance(value, float) and value.is_integer():
        return [str(value), str(int(value))]
    if isinstance(value, int) and 0 <= value < len(names):
        return [str(value), names[value]]
    return [str(value)]


def _listed(counts: Counter[str]) -> str:
    shown = [f"{value!r} ({rows_in_words(count)})" for value, count in counts.most_common(_SHOWN)]
    rest = len(counts) - len(shown)
    return ", ".join(shown) + (f" and {rest} more values" if rest else "")
