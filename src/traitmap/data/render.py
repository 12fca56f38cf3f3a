"""From a row to an example: the shapes that TRL accepts, and templates over columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from traitmap.data.labels import label_problems, label_word, rows_in_words
from traitmap.data.records import Example, Segment
from traitmap.data.tables import Problem, Row, Table
from traitmap.study.settings import Source
from traitmap.study.template import MissingValueError, compiled, names_read

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
    source: Source, table: Table, indices: Sequence[int], render_chat: RenderChat | None
) -> tuple[list[Example], list[Problem]]:
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
    if isinstance(shape, Problem):
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

    def problems(self) -> list[Problem]:
        found = []
        told = list(self.rows.items())[: self.told_at_most]
        for (key, message), rows in told:
            others = f" (and {rows_in_words(len(rows) - 1)} more)" if len(rows) > 1 else ""
            found.append(Problem(key, f"row {rows[0]}{others}: {message}"))
        if len(self.rows) > len(told):
            untold = sum(map(len, self.rows.values())) - sum(len(rows) for _, rows in told)
            found.append(Problem(told[-1][0][0], f"{rows_in_words(untold)} more fail for other reasons"))
        return found


def _column_problems(source: Source, columns: Sequence[str]) -> list[Problem]:
    """Columns that the study names and the data does not have."""
    problems = []
    there = f"the columns are {', '.join(columns)}"
    if source.label is not None and source.label not in columns:
        problems.append(Problem("label", f"there is no column {source.label!r}; {there}"))
    word = {"label"} if source.label is not None else set()
    for key, text in (("prompt", source.prompt), ("completion", source.completion)):
        absent = sorted(names_read(text) - set(columns) - word) if text is not None else []
        if absent:
            named = " and ".join(map(repr, absent))
            problems.append(Problem(key, f"the template reads {named}, which no column has; {there}"))
    return problems


def _encodable(segments: Segments) -> Segments:
    """Half of a surrogate pair (an unpaired escape in JSON) is no character; tokenizers stop at it."""
    for segment in segments:
        if not segment.text.isascii() and any(
            "\ud800" <= character <= "\udfff" for character in segment.text
        ):
            raise _RowError(
                "path", "its text holds half of a surrogate pair, which is no character; correct it"
            )
    return segments


Shape = Callable[[Row, str | None], Segments]


def _shape(source: Source, columns: Sequence[str], render_chat: RenderChat | None) -> Shape | Problem:
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
        return Problem(
            "label",
            'a label is given, but nothing writes it; add prompt: and completion:, such as " {{ label }}", '
            "or remove label",
        )
    return Problem(
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
