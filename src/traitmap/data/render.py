"""From the rows of a source to examples: label words and templates.

Without templates a row must have a format that is known by its columns (`data.shapes`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from traitmap.data.conversation import LeftOutError, RenderChat, Segments
from traitmap.data.records import Example, Segment
from traitmap.data.rows import Row, SourceError, SourceProblem, SourceTable, listed_columns
from traitmap.data.shapes import Shape, shape_of, unused_columns
from traitmap.errors import whole_reason
from traitmap.study.settings import Source
from traitmap.study.template import MissingValueError, compiled, names_read

_SHOWN = 8  # values that a message lists
_REASONS = 5  # why rows fail, that a check lists


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


def with_numbered_words(source: Source, values: Iterable[Any]) -> Source:
    """The source, where its ``labels`` are a list of words and the column holds their numbers, from 0.

    values: of the label column. Otherwise the source as it is: what has no word is told by `label_problems`.
    """
    words = source.labels or {}
    if not words or any(value != word for value, word in words.items()):
        return source
    held = {spellings[-1] for value in values if (spellings := _spellings(value, ()))}
    if "0" not in held or held & set(words) or not held <= set(map(str, range(len(words)))):
        return source
    return source.model_copy(update={"labels": dict(zip(map(str, range(len(words))), words, strict=True))})


def label_problems(source: Source, values: Iterable[Any], names: Sequence[str] = ()) -> list[SourceProblem]:
    """Values that have no word, all of them with their counts.

    values: of the label column; names: class names where the column holds class indices.
    """
    unknown: Counter[str] = Counter()
    known = blank = 0
    for value in values:
        spellings = _spellings(value, names)
        if not spellings:
            blank += 1
        elif label_word(value, source.labels, names) is None:
            unknown[spellings[-1]] += 1
        else:
            known += 1
    problems = []
    if blank:
        message = (
            f"no value in the label column {source.label!r} in {rows_in_words(blank)}; fill or remove them"
        )
        problems.append(SourceProblem("label", message))
    if unknown:
        counts = [f"{value!r} ({rows_in_words(count)})" for value, count in unknown.most_common(_SHOWN)]
        listing = ", ".join(counts)
        if len(unknown) > len(counts):
            listing += f" and {len(unknown) - len(counts)} more values"
        if known:
            message = f"values of {source.label!r} without a word: {listing}; give each a line under labels"
        else:
            keys = ", ".join(map(repr, source.labels or ()))
            message = f"no row has one of the values {keys}; the column {source.label!r} holds {listing}"
            message += "; write these values in front of the words"
        problems.append(SourceProblem("labels", message))
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


@dataclass(frozen=True)
class RenderedRows:
    """Examples of some rows of a source, in order, and what there is to tell of them.

    indices: of the rows that the examples are of; some rows may give none.
    problems: everything that stands against the rows; with any the examples are not to be used.
    warnings: what of the rows is not used or not learnt. read_as: the format that was recognised; empty where
    templates say what a row is.
    """

    examples: Sequence[Example] = ()
    problems: Sequence[SourceProblem] = ()
    warnings: Sequence[str] = ()
    read_as: str = ""
    indices: Sequence[int] = ()


def render_rows(
    source: Source, table: SourceTable, indices: Sequence[int], render_chat: RenderChat | None
) -> RenderedRows:
    """Examples of the rows at ``indices``, in order, without those that say not to be learnt."""
    select = getattr(table.rows, "select", None)  # of a hub dataset, where single rows are slow
    rows = list(select(indices)) if select else [table.rows[index] for index in indices]
    label = source.label or ""
    names = table.class_names.get(label, ())
    problems = _column_problems(source, table.columns)
    if label in table.columns:
        source = with_numbered_words(source, (row[label] for row in rows))
        problems.extend(label_problems(source, (row[label] for row in rows), names))
    if problems:
        return RenderedRows(problems=problems)
    try:
        shape = _templates(source, table.columns) or shape_of(source, table.columns, render_chat)
    except SourceError as error:
        return RenderedRows(problems=[error.problem])
    examples: list[Example] = []
    learnt: list[int] = []
    row_errors: dict[SourceProblem, list[int]] = {}
    counts: Counter[str] = Counter()
    for index, row in zip(indices, rows, strict=True):
        word = label_word(row[source.label], source.labels, names) if source.label else None
        notes: set[str] = set()
        try:
            values = {**row, "label": word} if source.label is not None and not shape.name else row
            examples.append(Example(_encodable(shape.segments(values, notes)), word))
            learnt.append(index)
        except SourceError as error:
            row_errors.setdefault(error.problem, []).append(index + 1)
        except LeftOutError:
            notes = {"say of all their turns that they are not to be learnt, and are left out"}
        counts.update(notes)
    warnings = [f"{count:,} of {len(rows):,} rows {note}" for note, count in sorted(counts.items())]
    if rows and not examples and not row_errors:
        return RenderedRows(problems=[SourceProblem("path", f"nothing is to be learnt: {warnings[0]}")])
    warnings += unused_columns(shape.used, rows, [example.text for example in examples])
    note = f", {table.note}" if table.note else ""
    read_as = f"{shape.name}: {rows_in_words(len(table.rows))}{note}" if shape.name else ""
    return RenderedRows(examples, _problems_of_rows(row_errors), warnings, read_as, learnt)


def _problems_of_rows(row_errors: Mapping[SourceProblem, Sequence[int]]) -> list[SourceProblem]:
    """Each reason once, with the first row that has it and the number of others; at most five reasons."""
    problems = []
    for problem, rows in list(row_errors.items())[:_REASONS]:
        others = f" (and {rows_in_words(len(rows) - 1)} more)" if len(rows) > 1 else ""
        problems.append(SourceProblem(problem.key, f"row {rows[0]}{others}: {problem.message}"))
    remaining = sum(len(rows) for rows in list(row_errors.values())[_REASONS:])
    if remaining:
        message = f"{rows_in_words(remaining)} more fail for other reasons"
        problems.append(SourceProblem(problems[-1].key, message))
    return problems


def column_problem(key: str, column: str, columns: Sequence[str]) -> SourceProblem | None:
    """A column that the study names under ``key`` and the data does not have; None where it has it."""
    if column in columns:
        return None
    return SourceProblem(key, f"there is no column {column!r}; {listed_columns(columns, [column])}")


def _column_problems(source: Source, columns: Sequence[str]) -> list[SourceProblem]:
    """Columns that the study names and the data does not have."""
    problems = []
    if source.label is not None and (problem := column_problem("label", source.label, columns)):
        problems.append(problem)
    word = {"label"} if source.label is not None else set()
    for key, text in (("prompt", source.prompt), ("completion", source.completion)):
        absent = sorted(names_read(text) - set(columns) - word) if text is not None else []
        if absent:
            named, listing = " and ".join(map(repr, absent)), listed_columns([*columns, *word], absent)
            problems.append(SourceProblem(key, f"the template reads {named}, which no column has; {listing}"))
    return problems


def _encodable(segments: Segments) -> Segments:
    """Half of a surrogate pair (an unpaired escape in JSON) is no character; tokenizers stop at it."""
    for segment in segments:
        if not segment.text.isascii() and any(
            "\ud800" <= character <= "\udfff" for character in segment.text
        ):
            raise SourceError(
                "path", "its text holds half of a surrogate pair, which is not a character; correct it"
            )
    return segments


def _templates(source: Source, columns: Sequence[str]) -> Shape | None:
    """The templates of a source as the way to read its rows, a format without a name; None without any."""
    if source.completion is None:
        return None
    text = f"{source.prompt or ''}{source.completion}"
    # names with a default are read too, though no row must have them
    used = tuple(column for column in columns if re.search(rf"\b{re.escape(column)}\b", text))

    def segments(row: Row, _: set[str]) -> Segments:
        pieces = []
        for key, template, learn in (
            ("prompt", source.prompt, False),
            ("completion", source.completion, True),
        ):
            if template is not None:
                pieces.append(Segment(_written(key, template, row, columns), learn))
        return tuple(segment for segment in pieces if segment.text or segment.learn)

    return Shape("", used, segments)


def _written(key: str, template: str, row: Row, columns: Sequence[str]) -> str:
    """What a template writes of a row; SourceError says why it cannot, and which columns there are."""
    listing = listed_columns(columns)
    try:
        return compiled(template).render(row)
    except MissingValueError:
        empty = sorted(name for name in names_read(template) if row.get(name) is None)
        message = f"the template writes a null value; guard it with {{{{ x or '' }}}}; {listing}"
        if empty:
            message = (
                f"the column {' and '.join(map(repr, empty))} is null or absent, and the template writes "
            )
            message += f"it; fill or remove such rows, or write {{{{ {empty[0]} or '' }}}}"
        raise SourceError(key, message) from None
    except Exception as error:  # a template is a small program, and may fail as any program
        reason = f"{type(error).__name__}: {whole_reason(error)}"
        message = f"the template fails: {reason}; correct it or the row ({listing})"
        raise SourceError(key, message) from None
