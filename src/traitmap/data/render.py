"""Rows of a source: a local file read exactly as it is written, or a hub dataset through ``datasets``.

Local files are not read through ``datasets``, because it guesses types: it would turn ``"01"`` into 1,
``"NA"`` into null and ``"2024-01-01"`` into a time, and refuse a column that mixes ``1`` and ``"1"``.

From the value in a label column to the word that stands for it.

From a row to an example: the shapes that TRL accepts, and templates over columns.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from traitmap.data.copies import copy_of, network_advice, no_network, offline_where_unreachable
from traitmap.data.records import Example, Segment
from traitmap.study.paths import DATA_SUFFIXES, is_local_data, resolve
from traitmap.study.settings import Source, Study
from traitmap.study.template import MissingValueError, compiled, names_read

Row = Mapping[str, Any]
_LONGEST_CELL = 2**31 - 1


@dataclass(frozen=True)
class SourceProblem:
    """What the user must mend in a source; ``key`` is the setting to look at."""

    key: str
    message: str


@dataclass(frozen=True)
class SourceTable:
    """rows in the order of the file; columns: of any row; class_names: of columns that hold class indices."""

    rows: Sequence[Row]
    columns: tuple[str, ...]
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def take(self, indices: Sequence[int]) -> list[Row]:
        """Rows at these positions, in this order."""
        select = getattr(self.rows, "select", None)  # of a hub dataset, where single rows are slow
        return list(select(indices)) if select else [self.rows[index] for index in indices]


def read_table(study: Study, source: Source) -> SourceTable | SourceProblem:
    """Rows of a source with a ``path``, or why there are none."""
    path = source.path or ""
    copies = resolve(study.data, study.folder) if study.data else None
    table = _local(resolve(path, study.folder)) if is_local_data(path) else _hub(path, source, copies)
    if isinstance(table, SourceTable) and len(table.rows) == 0:
        empty = "it has no rows" if is_local_data(path) else f"its split {source.split!r} has no rows"
        return SourceProblem("path", f"{path}: {empty}; give data with at least one")
    return table


def _local(file: Path) -> SourceTable | SourceProblem:
    suffix = file.suffix.lower()
    if os.path.isdir(file):
        return SourceProblem("path", f"{file} is a folder; give one file in it ({', '.join(DATA_SUFFIXES)})")
    if not os.path.exists(file):
        return SourceProblem(
            "path", f"{file} does not exist; relative paths start from the study file's folder"
        )
    if suffix not in DATA_SUFFIXES:
        return SourceProblem(
            "path", f"{file.name} is none of {', '.join(DATA_SUFFIXES)}; convert it to one of them"
        )
    try:
        if suffix == ".parquet":
            return _parquet(file)
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return SourceProblem("path", f"{file} is not UTF-8 text (byte {error.start}); save it as UTF-8")
    except (OSError, ValueError) as error:
        return SourceProblem("path", f"{file} cannot be read: {' '.join(str(error).split())[:200]}")
    if suffix in (".csv", ".tsv"):
        return _separated(file, text, "\t" if suffix == ".tsv" else ",")
    return _json_lines(file, text) if suffix == ".jsonl" else _json(file, text)


def _parquet(file: Path) -> SourceTable:
    from pyarrow import parquet

    table = parquet.read_table(file)
    return SourceTable(table.to_pylist(), tuple(table.column_names))


def _json_lines(file: Path, text: str) -> SourceTable | SourceProblem:
    rows: list[Any] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            said = f"{file}, line {number}: not valid JSON ({error}); a .jsonl file holds one object per line"
            return SourceProblem("path", said)
        if not isinstance(rows[-1], dict):
            return SourceProblem("path", f'{file}, line {number}: not an object such as {{"text": "..."}}')
    return _table_of(rows)


def _json(file: Path, text: str) -> SourceTable | SourceProblem:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        return SourceProblem("path", f"{file}: not valid JSON ({error})")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return SourceProblem("path", f"{file}: a .json file must hold a list of objects, one per row")
    return _table_of(rows)


def _table_of(rows: list[dict[str, Any]]) -> SourceTable:
    columns = tuple(dict.fromkeys(column for row in rows for column in row))
    blank = dict.fromkeys(columns)
    return SourceTable([{**blank, **row} for row in rows], columns)


def _separated(file: Path, text: str, delimiter: str) -> SourceTable | SourceProblem:
    csv.field_size_limit(_LONGEST_CELL)  # a review may be longer than the csv module's 128 KiB
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[dict[str, str]] = []
    try:
        header = next(reader, [])
        repeated = sorted({column for column in header if header.count(column) > 1})
        if repeated:
            return SourceProblem(
                "path", f"{file}: the header has {', '.join(map(repr, repeated))} more than once"
            )
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                said = (
                    f"{file}, line {reader.line_num}: {len(cells)} cells where the header has {len(header)}"
                )
                return SourceProblem("path", f"{said}; put cells that hold {delimiter!r} into double quotes")
            rows.append(dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        return SourceProblem("path", f"{file}, line {reader.line_num}: not valid CSV ({error})")
    return SourceTable(rows, tuple(header))


def _hub(path: str, source: Source, copies: Path | None) -> SourceTable | SourceProblem:
    import datasets

    copy = copy_of(path, source.subset, copies)
    asked: Mapping[str, Any] = (
        {"path": path, "name": source.subset, "revision": source.revision} if copy is None else copy.asked
    )
    try:
        # bars are for downloads; tqdm looks up sys.stderr when one begins
        with redirect_stderr(io.StringIO()) if copy else offline_where_unreachable():
            loaded = datasets.load_dataset(**asked, split=source.split)
    except Exception as error:  # whatever the hub, its files or the network do wrong is told, not raised
        return _hub_problem(path, source, error)
    names = {
        column: tuple(feature.names)
        for column, feature in loaded.features.items()
        if isinstance(feature, datasets.ClassLabel)
    }
    return SourceTable(loaded, tuple(loaded.column_names), names)


def _hub_problem(path: str, source: Source, error: Exception) -> SourceProblem:
    said = " ".join(str(error).split())[:300]
    if no_network(error):
        return SourceProblem(
            "path", f"the hub dataset {path!r} cannot be reached: {said}; {network_advice(path)}"
        )
    if "split" in said.lower():
        return SourceProblem("split", f"{path!r} has no split {source.split!r}: {said}")
    if "config" in said.lower():
        return SourceProblem("subset", f"{path!r} needs another subset than {source.subset!r}: {said}")
    return SourceProblem(
        "path",
        f"the hub dataset {path!r} cannot be loaded: {type(error).__name__}: {said}; "
        f"if a file here is meant, its name must end in one of {', '.join(DATA_SUFFIXES)}",
    )


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


def label_problems(source: Source, values: Iterable[Any], names: Sequence[str] = ()) -> list[SourceProblem]:
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
        problems.append(SourceProblem("label", said))
    if missing and not found:
        keys = ", ".join(map(repr, source.labels or ()))
        said = f"no row has one of the values {keys}; the column {source.label!r} holds {_listed(missing)}"
        problems.append(SourceProblem("labels", f"{said}; write these values in front of the words"))
    elif missing:
        said = f"values of {source.label!r} without a word: {_listed(missing)}; give each a line under labels"
        problems.append(SourceProblem("labels", said))
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


Segments = tuple[Segment, ...]


class RenderChat(Protocol):
    """Text of a conversation under the base's chat template, as ``Engine.render_chat``."""

    def __call__(self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool) -> str: ...


class _RowError(Exception):
    """One row cannot be rendered; ``key`` is the setting to look at."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def plain_chat(messages: Sequence[Mapping[str, str]], add_generation_prompt: bool) -> str:
    """A stand-in for a chat template, for looking at conversations without a model."""
    turns = "".join(f"<{message['role']}>\n{message['content']}\n" for message in messages)
    return turns + ("<assistant>\n" if add_generation_prompt else "")


def render_rows(
    source: Source, table: SourceTable, indices: Sequence[int], render_chat: RenderChat | None
) -> tuple[list[Example], list[SourceProblem]]:
    """Examples of the rows at ``indices``, in order, and everything that stands against them.

    With any problem the examples are not to be used.
    """
    rows = table.take(indices)
    names = table.class_names.get(source.label or "", ())
    problems = _column_problems(source, table.columns)
    if source.label in table.columns:
        problems.extend(label_problems(source, (row[source.label] for row in rows), names))
    if problems:
        return [], problems
    shape = _shape(source, table.columns, render_chat)
    if isinstance(shape, SourceProblem):
        return [], [shape]
    examples, troubles = [], _Troubles()
    for index, row in zip(indices, rows, strict=True):
        word = label_word(row[source.label], source.labels, names) if source.label else None
        try:
            examples.append(Example(_encodable(shape(row, word)), word))
        except _RowError as error:
            troubles.add(index + 1, error)
    return examples, troubles.problems()


@dataclass
class _Troubles:
    """Rows that failed, told once per reason with the first row and the number of others."""

    rows: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    told_at_most: int = 5

    def add(self, row: int, error: _RowError) -> None:
        self.rows.setdefault((error.key, str(error)), []).append(row)

    def problems(self) -> list[SourceProblem]:
        found = []
        told = list(self.rows.items())[: self.told_at_most]
        for (key, message), rows in told:
            others = f" (and {rows_in_words(len(rows) - 1)} more)" if len(rows) > 1 else ""
            found.append(SourceProblem(key, f"row {rows[0]}{others}: {message}"))
        if len(self.rows) > len(told):
            untold = sum(map(len, self.rows.values())) - sum(len(rows) for _, rows in told)
            found.append(
                SourceProblem(told[-1][0][0], f"{rows_in_words(untold)} more fail for other reasons")
            )
        return found


def _column_problems(source: Source, columns: Sequence[str]) -> list[SourceProblem]:
    """Columns that the study names and the data does not have."""
    problems = []
    there = f"the columns are {', '.join(columns)}"
    if source.label is not None and source.label not in columns:
        problems.append(SourceProblem("label", f"there is no column {source.label!r}; {there}"))
    word = {"label"} if source.label is not None else set()
    for key, text in (("prompt", source.prompt), ("completion", source.completion)):
        absent = sorted(names_read(text) - set(columns) - word) if text is not None else []
        if absent:
            named = " and ".join(map(repr, absent))
            problems.append(SourceProblem(key, f"the template reads {named}, which no column has; {there}"))
    return problems


def _encodable(segments: Segments) -> Segments:
    """Half of a surrogate pair (an unpaired escape in JSON) is no character; tokenizers stop at it."""
    for segment in segments:
        if not segment.text.isascii() and any(
            "\ud800" <= character <= "\udfff" for character in segment.text
        ):
            raise _RowError(
                "path", "its text holds half of a surrogate pair, which is not a character; correct it"
            )
    return segments


Shape = Callable[[Row, str | None], Segments]


def _shape(source: Source, columns: Sequence[str], render_chat: RenderChat | None) -> Shape | SourceProblem:
    """How rows become segments: by templates where there are any, else by their columns."""
    if source.completion is not None:
        return lambda row, word: _templated(source, row, word)
    if "messages" in columns:
        return lambda row, _: _conversation("messages", row["messages"], 0, render_chat)
    if "prompt" in columns and "completion" in columns:
        return lambda row, _: _prompt_completion(row, render_chat)
    if "text" in columns and source.label is None:
        return lambda row, _: (Segment(_text(row, "text"), True),)
    if "text" in columns:
        return SourceProblem(
            "label",
            'a label is given, but nothing writes it; add prompt: and completion:, such as " {{ label }}", '
            "or remove label",
        )
    return SourceProblem(
        "path",
        f"the columns are {', '.join(columns)}, which is none of the shapes text; prompt and completion; "
        'messages. Add templates, such as prompt: "{{ question }}" and completion: " {{ answer }}"',
    )


def _templated(source: Source, row: Row, word: str | None) -> Segments:
    values = {**row, "label": word} if source.label is not None else dict(row)
    segments = []
    for key, text, learn in (("prompt", source.prompt, False), ("completion", source.completion, True)):
        if text is not None:
            segments.append(Segment(_rendered(key, text, values), learn))
    return tuple(segment for segment in segments if segment.text or segment.learn)


def _rendered(key: str, text: str, values: dict[str, Any]) -> str:
    try:
        return compiled(text).render(values)
    except MissingValueError:
        empty = sorted(name for name in names_read(text) if values.get(name) is None)
        if not empty:
            raise _RowError(key, "the template writes a null value; guard it with {{ x or '' }}") from None
        named = " and ".join(map(repr, empty))
        advice = f"fill or remove such rows, or write {{{{ {empty[0]} or '' }}}}"
        raise _RowError(
            key, f"the column {named} is null or absent, and the template writes it; {advice}"
        ) from None
    except Exception as error:  # a template is a small program, and may fail as any program
        said = " ".join(str(error).split())[:200]
        raise _RowError(
            key, f"the template fails: {type(error).__name__}: {said}; correct it or the row"
        ) from None


def _prompt_completion(row: Row, render_chat: RenderChat | None) -> Segments:
    prompt, completion = row["prompt"], row["completion"]
    if isinstance(prompt, list) and isinstance(completion, list):
        return _conversation("completion", [*prompt, *completion], len(prompt), render_chat)
    segments = (Segment(_text(row, "prompt"), False), Segment(_text(row, "completion"), True))
    return tuple(segment for segment in segments if segment.text or segment.learn)


def _text(row: Row, column: str) -> str:
    value = row[column]
    if isinstance(value, str):
        return value
    found = "null or absent" if value is None else f"{type(value).__name__}, not text"
    raise _RowError("path", f"the column {column!r} is {found}; write it as text, or give templates")


def _conversation(column: str, messages: Any, learn_from: int, render_chat: RenderChat | None) -> Segments:
    """Assistant turns from ``learn_from`` on are learnt, with the end of turn that the template writes.

    The template is asked for the conversation up to each assistant turn and through it; what it added
    is the turn. That holds only for templates that go on from what they have written, so this is
    checked.
    """
    if render_chat is None:
        raise _RowError("path", "a conversation needs the chat template of the base; none is at hand here")
    checked = _checked_messages(column, messages)
    learnt = [at for at, turn in enumerate(checked) if turn["role"] == "assistant" and at >= learn_from]
    if not learnt:
        raise _RowError(
            "path", f"the column {column!r} has no turn of the role 'assistant', so nothing is learnt"
        )
    segments: list[Segment] = []
    written = ""
    for at in learnt:
        whole = _chat(render_chat, checked[: at + 1], False)
        # a generation prompt may hold more than the turn's own head (an empty thought, say)
        head = _common_start(_chat(render_chat, checked[:at], True), whole)
        if not head.startswith(written):
            raise _RowError(
                "path",
                f"the base's chat template rewrites earlier turns when turn {at + 1} is added, so the turns "
                "cannot be told apart; give conversations with one assistant turn",
            )
        segments += [Segment(head[len(written) :], False), Segment(whole[len(head) :], True)]
        written = whole
    rest = _chat(render_chat, checked, False)
    if rest.startswith(written):
        segments.append(Segment(rest[len(written) :], False))
    return tuple(segment for segment in segments if segment.text)


def _common_start(one: str, other: str) -> str:
    pairs = enumerate(zip(one, other, strict=False))
    return one[: next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))]


def _checked_messages(column: str, messages: Any) -> list[dict[str, str]]:
    expected = 'a list of turns such as {"role": "user", "content": "..."}'
    if not isinstance(messages, list) or not messages:
        raise _RowError("path", f"the column {column!r} must hold {expected}")
    for at, turn in enumerate(messages, start=1):
        sound = isinstance(turn, dict) and all(isinstance(turn.get(key), str) for key in ("role", "content"))
        if not sound:
            raise _RowError(
                "path", f"the column {column!r}, turn {at}: role and content must be text; give {expected}"
            )
    return messages


def _chat(render_chat: RenderChat, messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
    try:
        return render_chat(messages, add_generation_prompt)
    except Exception as error:  # the base's template is a program of somebody else
        said = " ".join(str(error).split())[:200]
        raise _RowError("path", f"the base's chat template cannot render the conversation: {said}") from None
