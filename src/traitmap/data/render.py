"""From the rows of a source to examples: label words, templates and conversations.

Without templates a row must have one of the shapes that TRL accepts.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from traitmap.data.records import Example, Segment
from traitmap.data.rows import Row, SourceError, SourceProblem, SourceTable
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


Segments = tuple[Segment, ...]


class RenderChat(Protocol):
    """Text of a conversation under the base's chat template, as ``Engine.render_chat``."""

    def __call__(self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool) -> str: ...


def plain_chat(messages: Sequence[Mapping[str, str]], add_generation_prompt: bool) -> str:
    """A stand-in for a chat template, for looking at conversations without a model.

    Not what any base was trained on: only for a check, never for training or evaluation.
    """
    turns = "".join(f"<{message['role']}>\n{message['content']}\n" for message in messages)
    return turns + ("<assistant>\n" if add_generation_prompt else "")


def render_rows(
    source: Source, table: SourceTable, indices: Sequence[int], render_chat: RenderChat | None
) -> tuple[list[Example], list[SourceProblem]]:
    """Examples of the rows at ``indices``, in order, and everything that stands against them.

    With any problem the examples are not to be used.
    """
    select = getattr(table.rows, "select", None)  # of a hub dataset, where single rows are slow
    rows = list(select(indices)) if select else [table.rows[index] for index in indices]
    names = table.class_names.get(source.label or "", ())
    problems = _column_problems(source, table.columns)
    if source.label in table.columns:
        problems.extend(label_problems(source, (row[source.label] for row in rows), names))
    if problems:
        return [], problems
    try:
        shape = _shape(source, table.columns, render_chat)
    except SourceError as error:
        return [], [error.problem]
    examples: list[Example] = []
    row_errors: dict[SourceProblem, list[int]] = {}
    for index, row in zip(indices, rows, strict=True):
        word = label_word(row[source.label], source.labels, names) if source.label else None
        try:
            examples.append(Example(_encodable(shape(row, word)), word))
        except SourceError as error:
            row_errors.setdefault(error.problem, []).append(index + 1)
    return examples, _problems_of_rows(row_errors)


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


def _column_problems(source: Source, columns: Sequence[str]) -> list[SourceProblem]:
    """Columns that the study names and the data does not have."""
    problems = []
    listing = f"the columns are {', '.join(columns)}"
    if source.label is not None and source.label not in columns:
        problems.append(SourceProblem("label", f"there is no column {source.label!r}; {listing}"))
    word = {"label"} if source.label is not None else set()
    for key, text in (("prompt", source.prompt), ("completion", source.completion)):
        absent = sorted(names_read(text) - set(columns) - word) if text is not None else []
        if absent:
            named = " and ".join(map(repr, absent))
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


Shape = Callable[[Row, str | None], Segments]


def _shape(source: Source, columns: Sequence[str], render_chat: RenderChat | None) -> Shape:
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
        raise SourceError(
            "label",
            'a label is given, but nothing writes it; add prompt: and completion:, such as " {{ label }}", '
            "or remove label",
        )
    raise SourceError(
        "path",
        f"the columns are {', '.join(columns)}, which is none of the shapes text; prompt and completion; "
        'messages. Add templates, such as prompt: "{{ question }}" and completion: " {{ answer }}"',
    )


def _templated(source: Source, row: Row, word: str | None) -> Segments:
    values = {**row, "label": word} if source.label is not None else dict(row)
    segments = []
    for key, text, learn in (("prompt", source.prompt, False), ("completion", source.completion, True)):
        if text is None:
            continue
        try:
            segments.append(Segment(compiled(text).render(values), learn))
        except MissingValueError:
            empty = sorted(name for name in names_read(text) if values.get(name) is None)
            message = "the template writes a null value; guard it with {{ x or '' }}"
            if empty:
                columns = " and ".join(map(repr, empty))
                message = f"the column {columns} is null or absent, and the template writes it; "
                message += f"fill or remove such rows, or write {{{{ {empty[0]} or '' }}}}"
            raise SourceError(key, message) from None
        except Exception as error:  # a template is a small program, and may fail as any program
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise SourceError(key, f"the template fails: {reason}; correct it or the row") from None
    return tuple(segment for segment in segments if segment.text or segment.learn)


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
    kind = "null or absent" if value is None else f"{type(value).__name__}, not text"
    raise SourceError("path", f"the column {column!r} is {kind}; write it as text, or give templates")


def _conversation(column: str, messages: Any, learn_from: int, render_chat: RenderChat | None) -> Segments:
    """Assistant turns from ``learn_from`` on are learnt, with the end of turn that the template writes.

    The template is asked for the conversation up to each assistant turn and through it; what it added
    is the turn. That holds only for templates that go on from what they have written, so this is
    checked.
    """
    if render_chat is None:
        raise SourceError("path", "a conversation needs the chat template of the base; none is at hand here")
    checked = _checked_messages(column, messages)
    learnt = [at for at, turn in enumerate(checked) if turn["role"] == "assistant" and at >= learn_from]
    if not learnt:
        raise SourceError(
            "path", f"the column {column!r} has no turn of the role 'assistant', so nothing is learnt"
        )
    segments: list[Segment] = []
    written = ""
    for at in learnt:
        whole = _chat(render_chat, checked[: at + 1], False)
        # a generation prompt may hold more than the turn's own head (an empty thought, say)
        head = os.path.commonprefix([_chat(render_chat, checked[:at], True), whole])  # noqa: RUF071
        if not head.startswith(written):
            raise SourceError(
                "path",
                f"the base's chat template rewrites earlier turns when turn {at + 1} is added, so the turns "
                "cannot be told apart; give conversations with one assistant turn",
            )
        segments += [Segment(head[len(written) :], False), Segment(whole[len(head) :], True)]
        written = whole
    whole = _chat(render_chat, checked, False)
    if whole.startswith(written):
        segments.append(Segment(whole[len(written) :], False))
    return tuple(segment for segment in segments if segment.text)


def _checked_messages(column: str, messages: Any) -> list[dict[str, str]]:
    expected = 'a list of turns such as {"role": "user", "content": "..."}'
    if not isinstance(messages, list) or not messages:
        raise SourceError("path", f"the column {column!r} must hold {expected}")
    for at, turn in enumerate(messages, start=1):
        sound = isinstance(turn, dict) and all(isinstance(turn.get(key), str) for key in ("role", "content"))
        if not sound:
            raise SourceError(
                "path", f"the column {column!r}, turn {at}: role and content must be text; give {expected}"
            )
    return messages


def _chat(render_chat: RenderChat, messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
    try:
        return render_chat(messages, add_generation_prompt)
    except Exception as error:  # the base's template is a program of somebody else
        reason = " ".join(str(error).split())[:200]
        raise SourceError(
            "path", f"the base's chat template cannot render the conversation: {reason}"
        ) from None
