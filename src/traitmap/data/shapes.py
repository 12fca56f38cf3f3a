"""Rows without templates: which format they are in, by their columns, and what of them is not used.

Recognised are ``messages``, ``prompt`` and ``completion``, ``text`` (in this order, as TRL has them),
ShareGPT's ``conversations``, Alpaca's ``instruction`` and ``output``, and preference pairs where the study
says which of the two is learnt. Rows that say that they are not to be learnt are found here, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from traitmap.data.conversation import RenderChat, Segments, read_turns, render_conversation, tools_of
from traitmap.data.records import Segment
from traitmap.data.rows import Row, SourceError, SourceTable, listed_columns
from traitmap.study.settings import Source

_MEDIA = ("images", "image", "videos", "video", "audios", "audio")
_TOOLS = ("tools", "functions")
_PAIR = ("chosen", "rejected")
_KTO = ("label", "kto_tag")
_DIALOGUES = ("conversations", "conversation")
# columns that carry meaning, and what a user should know of one that is not used
_MEANING: Mapping[str, str] = {
    **dict.fromkeys(_MEDIA, "what is learnt is the text alone"),
    **dict.fromkeys(_TOOLS, "tools belong to conversations"),
    **dict.fromkeys(_PAIR, "train_on: chosen (or rejected) learns one of the pair"),
    "system": "write it into the prompt with templates, or as a turn",
    "history": "earlier turns are not seen",
}
_PLACEHOLDER = re.compile(r"<(?:image|video|audio)>|<\|(?:image|video|audio)\|>")
_ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the "
    "request.\n\n",
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n",
)
_SHAPES = (
    "text; prompt and completion; messages; conversations (ShareGPT); instruction and output (Alpaca); "
    "chosen and rejected with train_on"
)


@dataclass(frozen=True)
class Shape:
    """How rows without templates become segments.

    name: what the format is called. used: the columns that are read. segments: of one row; the set gets what
    is left out of it. It raises SourceError, or LeftOutError where nothing of the row is to be learnt.
    """

    name: str
    used: tuple[str, ...]
    segments: Callable[[Row, set[str]], Segments]


def shape_of(source: Source, columns: Sequence[str], render_chat: RenderChat | None) -> Shape:
    """The format of a source without templates. SourceError where its columns are none that is known."""

    def dialogue(column: str, row: Row, notes: set[str]) -> Segments:
        turns = _with_system(row, row[column]) if column in _DIALOGUES else row[column]
        return render_conversation(column, turns, 0, render_chat, notes, tools_of(row))

    if source.train_on is not None:
        return _preference(source.train_on, columns, render_chat)
    if "messages" in columns:
        return Shape("messages", ("messages", *_TOOLS), lambda row, notes: dialogue("messages", row, notes))
    if {"prompt", "completion"} <= set(columns):
        return Shape(
            "prompt and completion",
            ("prompt", "completion", *_TOOLS),
            lambda row, notes: _pair(row, render_chat, notes),
        )
    if "text" in columns and source.label is None:
        return Shape("text", ("text",), lambda row, _: (Segment(text_of(row, "text"), True),))
    if "text" in columns:
        raise SourceError(
            "label",
            'a label is given, but nothing writes it; add prompt: and completion:, such as " {{ label }}", '
            "or remove label",
        )
    if set(_PAIR) <= set(columns):
        message = (
            "the rows are preference pairs; write train_on: chosen (or rejected) to learn one of the two"
        )
        raise SourceError("train_on", message)
    if column := next((column for column in _DIALOGUES if column in columns), ""):
        return Shape("sharegpt", (column, "system", *_TOOLS), lambda row, notes: dialogue(column, row, notes))
    if {"instruction", "output"} <= set(columns):
        used = ("instruction", "input", "output", "history", "system")
        return Shape("alpaca", used, lambda row, _notes: _alpaca(row, text_of(row, "output")))
    raise SourceError(
        "path",
        f"{listed_columns(columns)}, which is none of the shapes {_SHAPES}. "
        'Add templates, such as prompt: "{{ question }}" and completion: " {{ answer }}"',
    )


def learnable_rows(source: Source, table: SourceTable) -> tuple[Sequence[int], list[str]]:
    """Indices of rows that do not say "do not learn me", and what to tell of the others.

    Heeded are ``train: false``, ``weight: 0`` (where all weights are numbers from 0 to 1) and, beside a
    conversation or a completion, ``label: false`` of KTO, unless the source names that column as its label.
    Templates say themselves what is learnt. SourceError where no row is left.
    """
    everything = range(len(table.rows))
    if source.completion is not None or source.train_on is not None:
        return everything, []
    present = set(table.columns)
    answers = "messages" in present or {"prompt", "completion"} <= present
    answers = answers or ("text" not in present and bool({"output", *_DIALOGUES} & present))
    marks = [("train", _is_flag, "train: false"), ("weight", _is_weight, "weight: 0")]
    marks += [(column, _is_flag, f"{column}: false") for column in _KTO if answers and column != source.label]
    out: set[int] = set()
    notes = []
    for column, legal, mark in marks:
        values = _column(table, column)
        if not values or not all(value is None or legal(value) for value in values):
            continue
        muted = {at for at, value in enumerate(values) if value is not None and not float(_number(value))}
        if muted:
            of_class = f"; where it is a class, give label: {column}" if column in _KTO else ""
            notes.append(
                f"{len(muted):,} of {len(values):,} rows say that they are not to be learnt ({mark}) and are "
                f"left out{of_class}"
            )
        if column == "weight" and any(value is not None and 0 < _number(value) < 1 for value in values):
            notes.append("weights between 0 and 1 count as 1")
        out |= muted
    if out and len(out) == len(everything):
        raise SourceError("path", f"no row is to be learnt: {'; '.join(notes)}")
    return ([at for at in everything if at not in out] if out else everything), notes


def unused_columns(used: Iterable[str], rows: Sequence[Row], texts: Sequence[str]) -> list[str]:
    """What to tell of columns that carry meaning and are not used.

    used: columns that are read. rows: those that are learnt. texts: what is learnt of each.
    """
    notes = []
    used = set(used)
    for column, hint in _MEANING.items():
        if column in used or (column in _PAIR and used & set(_PAIR)) or not rows or column not in rows[0]:
            continue
        filled = sum(row[column] not in (None, "", [], {}) for row in rows)
        if not filled:
            continue
        note = f"the column {column!r}, filled in {filled:,} of {len(rows):,} rows, is not used: {hint}"
        asking = sum(bool(_PLACEHOLDER.search(text)) for text in texts) if column in _MEDIA else 0
        if asking:
            note += (
                f", and {asking:,} texts ask about what is not in them (such as <{column.removesuffix('s')}>)"
            )
        notes.append(note)
    return notes


def text_of(row: Row, column: str) -> str:
    """The text of one cell. SourceError where it is something else."""
    value = row[column]
    if isinstance(value, str):
        return value
    kind = "null or absent" if value is None else f"{type(value).__name__}, not text"
    raise SourceError("path", f"the column {column!r} is {kind}; write it as text, or give templates")


def _pair(row: Row, render_chat: RenderChat | None, notes: set[str]) -> Segments:
    prompt, completion = row["prompt"], row["completion"]
    if isinstance(prompt, list) and isinstance(completion, list):
        turns = [*prompt, *completion]
        return render_conversation("completion", turns, len(prompt), render_chat, notes, tools_of(row))
    if row.get("tools") or row.get("functions"):
        notes.add("hold tools beside a prompt that is text, where they are not used")
    return _filled(Segment(text_of(row, "prompt"), False), Segment(text_of(row, "completion"), True))


def _filled(*segments: Segment) -> Segments:
    return tuple(segment for segment in segments if segment.text or segment.learn)


def _with_system(row: Row, turns: Any) -> Any:
    """Turns of ShareGPT, with the row's ``system`` in front where it has one and they have none."""
    system = row.get("system")
    if not isinstance(system, str) or not system.strip() or not isinstance(turns, list):
        return turns
    first = turns[0] if turns and isinstance(turns[0], dict) else {}
    return turns if "system" in (first.get("role"), first.get("from")) else [_said("system", system), *turns]


def _said(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def _alpaca(row: Row, answer: str) -> Segments:
    """Stanford's prompt, and the answer; earlier turns in front, whose answers are learnt like the last."""
    context = text_of(row, "input") if row.get("input") is not None else ""
    head = text_of(row, "system") if row.get("system") is not None else ""
    head = f"{head}\n\n" if head.strip() else _ALPACA[bool(context.strip())]
    segments: list[Segment] = []
    for turn in row.get("history") or ():
        if not isinstance(turn, list) or len(turn) != 2 or not all(isinstance(part, str) for part in turn):
            message = "the column 'history' must hold pairs of an instruction and its answer"
            raise SourceError("path", f'{message}, such as [["...", "..."]]')
        segments += [
            Segment(f"{head}### Instruction:\n{turn[0]}\n\n### Response:\n", False),
            Segment(turn[1], True),
        ]
        head = "\n\n"
    body = f"### Input:\n{context}\n\n" if context.strip() else ""
    instruction = text_of(row, "instruction")
    prompt = f"{head}### Instruction:\n{instruction}\n\n{body}### Response:\n"
    return (*segments, Segment(prompt, False), Segment(answer, True))


def _preference(key: str, columns: Sequence[str], render_chat: RenderChat | None) -> Shape:
    """One answer of each pair, after whatever the row has as its prompt. key: ``chosen`` or ``rejected``."""
    if key not in columns:
        raise SourceError("train_on", f"there is no column {key!r}; {listed_columns(columns, [key])}")
    context = next((column for column in (*_DIALOGUES, "prompt", "messages") if column in columns), "")
    used = (*_PAIR, "prompt", *_DIALOGUES, "instruction", "input", "history", "system", *_TOOLS)

    def segments(row: Row, notes: set[str]) -> Segments:
        answer, before = row[key], row.get(context)
        if isinstance(answer, str) and isinstance(before, list):
            answer = [_said("assistant", answer)]
        if isinstance(answer, dict):
            answer = [answer]
        if isinstance(answer, list):
            turns, learn_from = _answered(row, key, answer, before)
            return render_conversation(key, turns, learn_from, render_chat, notes, tools_of(row))
        text = text_of(row, key)
        if isinstance(before, str):
            return _filled(Segment(before, False), Segment(text, True))
        if "instruction" in columns:
            return _alpaca(row, text)
        other = row.get(_PAIR[key == "chosen"])
        prompt = _common_beginning(text, other if isinstance(other, str) else "")
        return _filled(Segment(prompt, False), Segment(text[len(prompt) :], True))

    return Shape(f"preference pairs, of which {key} is learnt", used, segments)


def _answered(row: Row, key: str, answer: list[Any], before: Any) -> tuple[list[Any], int]:
    """A whole conversation of a pair, and the turn from which on it is learnt."""
    roles = [turn["role"] for turn in read_turns(key, answer, set())]
    if roles[0] == "assistant":  # the answer alone
        turns = before if isinstance(before, list) else [_said("user", text_of(row, "prompt"))]
        turns = _with_system(row, turns)
        return [*turns, *answer], len(turns)
    other = row.get(_PAIR[key == "chosen"])
    pairs = zip(answer, other if isinstance(other, list) else [], strict=False)
    common = sum(1 for _ in takewhile(lambda turns: turns[0] == turns[1], pairs))
    if common == len(answer):
        raise SourceError("train_on", "chosen and rejected are the same; remove such rows")
    return answer, common


def _common_beginning(text: str, other: str) -> str:
    """The prompt of a pair of whole texts: what both begin with, up to the end of a word.

    Where the turns are marked as in Anthropic's pairs it ends with the last ``Assistant:``.
    """
    marked, mark, _ = text.rpartition("\n\nAssistant:")
    if mark:
        return marked + mark
    length = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(text, other, strict=False)))
    while length and not text[length : length + 1].isspace():
        length -= 1
    return text[:length]


def _column(table: SourceTable, column: str) -> Sequence[Any]:
    if column not in table.columns:
        return ()
    if hasattr(table.rows, "select"):  # a hub dataset, where columns are fast
        return list(table.rows[column])  # type: ignore[call-overload]
    return [row[column] for row in table.rows]


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, str) and value.strip().lower() in ("true", "false"))


def _is_weight(value: Any) -> bool:
    return not isinstance(value, bool) and 0 <= _number(value) <= 1


def _number(value: Any) -> float:
    """A flag or a weight as a number; -1 where it is neither."""
    if isinstance(value, str):
        value = {"true": "1", "false": "0"}.get(value.strip().lower(), value)
    try:
        return float(value)
    except (TypeError, ValueError):
        return -1.0
