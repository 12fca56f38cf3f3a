"""Conversations: turns in any known spelling, brought to one, and rendered by the base's chat template.

Turns are OpenAI's (``role``, ``content``, which may be parts or null beside tool calls) or ShareGPT's
(``from``, ``value``). What the assistant says is learnt. A template that leaves out tools or calls is found
out, since it would teach something else than the row says.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from traitmap.data.records import Segment
from traitmap.data.rows import Row, SourceError
from traitmap.errors import whole_reason

Segments = tuple[Segment, ...]
Turn = dict[str, Any]
_TURN = 'a list of turns such as {"role": "user", "content": "..."}'
_SHAREGPT_ROLES = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bard", "bing", "model", "bot"), "assistant"),
    **dict.fromkeys(("tool", "observation", "function_response"), "tool"),
    "system": "system",
    "function_call": "assistant",
}
_CALLS = "tool_calls"


class RenderChat(Protocol):
    """Text of a conversation under the base's chat template, as ``Engine.render_chat``.

    tools: their descriptions as JSON schemas, given only where a row has them.
    """

    def __call__(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> str: ...


class LeftOutError(Exception):
    """A row says of all its turns that they are not to be learnt."""


def plain_chat(
    messages: Sequence[Mapping[str, Any]],
    add_generation_prompt: bool,
    tools: Sequence[Mapping[str, Any]] = (),
) -> str:
    """A stand-in for a chat template, for looking at conversations without a model.

    Not what any base was trained on: only for a check, never for training or evaluation.
    """
    text = f"<tools>\n{json.dumps(list(tools), ensure_ascii=False)}\n" if tools else ""
    for message in messages:
        calls = json.dumps(message[_CALLS], ensure_ascii=False) if message.get(_CALLS) else ""
        text += f"<{message['role']}>\n{message['content']}{calls}\n"
    return text + ("<assistant>\n" if add_generation_prompt else "")


def render_conversation(
    column: str,
    messages: Any,
    learn_from: int,
    render_chat: RenderChat | None,
    notes: set[str],
    tools: Sequence[Mapping[str, Any]] = (),
) -> Segments:
    """Assistant turns from ``learn_from`` on are learnt, with the end of turn that the template writes.

    column: what messages of faults call the turns. notes: gets what is left out of this row. tools: as
    `tools_of` reads them. The template is asked for the conversation up to each assistant turn and through
    it; what it added is the turn. That holds only for templates that go on from what they have written, so
    this is checked. SourceError where a turn cannot be used, LeftOutError where no turn is to be learnt.
    """
    if render_chat is None:
        raise SourceError("path", "a conversation needs the chat template of the base; none is at hand here")
    turns = read_turns(column, messages, notes)
    answers = [at for at, turn in enumerate(turns) if turn["role"] == "assistant" and at >= learn_from]
    if not answers:
        raise SourceError(
            "path", f"the column {column!r} has no turn of the role 'assistant', so nothing is learnt"
        )
    learnt = [at for at in answers if not is_muted(turns[at])]
    if not learnt:
        raise LeftOutError
    if len(learnt) < len(answers):
        notes.add("hold turns of weight 0 or train: false, which are not learnt")
    segments: list[Segment] = []
    written = ""
    for at in learnt:
        prompt = _chat(render_chat, turns[:at], True, tools)
        whole = _without_next_head(render_chat, turns, at, prompt, tools)
        # a generation prompt may hold more than the turn's own head (an empty thought, say)
        head = os.path.commonprefix([prompt, whole])  # noqa: RUF071
        if opened := prompt[len(head) :].strip():
            notes.add(
                f"are learnt without {opened!r}, with which the chat template opens an answer: targets with "
                "apply_chat_template ask otherwise"
            )
        if not head.startswith(written):
            raise SourceError(
                "path",
                f"the base's chat template rewrites earlier turns when turn {at + 1} is added, so the turns "
                "cannot be told apart; give conversations with one assistant turn",
            )
        segments += [Segment(head[len(written) :], False), Segment(whole[len(head) :], True)]
        written = whole
    whole = _chat(render_chat, turns, False, tools)
    _check_tools(render_chat, whole, turns, tools)
    if learnt[-1] < len(turns) - 1 and whole.startswith(written):
        segments.append(Segment(whole[len(written) :], False))
    return tuple(segment for segment in segments if segment.text)


def _without_next_head(
    render_chat: RenderChat, turns: Sequence[Turn], at: int, prompt: str, tools: Sequence[Mapping[str, Any]]
) -> str:
    """The conversation through turn ``at``, without the head of a next answer behind it.

    Some templates begin the next answer behind every conversation, whatever ``add_generation_prompt`` says.
    That shows by a user's turn, which then does not go on from what was written; what both begin with is the
    conversation, but for the opening of a tag that two heads share (``<|im_start|>``).
    """
    whole = _chat(render_chat, turns[: at + 1], False, tools)
    if _chat(render_chat, turns[:at], False, tools) != prompt:
        return whole
    try:
        longer = _chat(render_chat, [*turns[: at + 1], {"role": "user", "content": "x"}], False, tools)
    except SourceError:  # a template of its own order of turns
        return whole
    ended = os.path.commonprefix([whole, longer])  # noqa: RUF071
    content = turns[at]["content"].strip()
    if ended == whole or not content or content not in ended[len(prompt) :]:
        return whole
    tag = ended.rfind("<", len(prompt) + ended[len(prompt) :].rfind(content) + len(content))
    if tag >= 0 and (">" not in ended[tag:] or prompt.endswith(whole[tag:])):
        ended = ended[:tag]
    return ended


def read_turns(column: str, messages: Any, notes: set[str]) -> list[Turn]:
    """Turns with ``role`` and ``content`` as text, calls of tools as chat templates want them.

    SourceError names the turn (counted from 1) that is not one.
    """
    if not isinstance(messages, list) or not messages:
        raise SourceError("path", f"the column {column!r} must hold {_TURN}")
    turns = []
    for at, turn in enumerate(messages, start=1):
        try:
            if not isinstance(turn, dict):
                raise ValueError(f"role and content must be text; give {_TURN}")
            turns.append(
                _sharegpt_turn(turn) if "from" in turn and "role" not in turn else _turn(turn, notes)
            )
        except ValueError as error:
            raise SourceError("path", f"the column {column!r}, turn {at}: {error}") from None
    return turns


def is_muted(turn: Mapping[str, Any]) -> bool:
    """Whether a turn, or a row, says that it is not to be learnt: ``weight: 0`` or ``train: false``."""
    weight = turn.get("weight")
    return turn.get("train") is False or (weight is not None and weight in (0, "0", "0.0"))


def tools_of(row: Row) -> list[dict[str, Any]]:
    """The tools that a row offers, each ``{"type": "function", "function": {...}}``; empty where it has none.

    Read out of the columns ``tools`` or ``functions``: a list, or JSON text of one. SourceError where that is
    not so.
    """
    for column in ("tools", "functions"):
        value = row.get(column)
        try:
            value = json.loads(value) if isinstance(value, str) and value.strip() else value
            if not value:
                continue
            tools = []
            for tool in value if isinstance(value, list) else [value]:
                tool = _without_nulls(json.loads(tool) if isinstance(tool, str) else tool)
                tool = (
                    tool if isinstance(tool.get("function"), dict) else {"type": "function", "function": tool}
                )
                str.strip(tool["function"]["name"])
                tools.append(tool)
        except (ValueError, KeyError, AttributeError, TypeError):
            message = f"the column {column!r} holds no tools; give a list of JSON schemas, each with a name"
            raise SourceError("path", message) from None
        return tools
    return []


def _turn(turn: Turn, notes: set[str]) -> Turn:
    """An OpenAI turn; ValueError says what is wrong with it."""
    calls = turn.get(_CALLS) or ([{"function": turn["function_call"]}] if turn.get("function_call") else None)
    content = turn.get("content")
    if isinstance(content, list):
        content = _text_of_parts(content, notes)
    if content is None and calls:
        content = ""
    if not isinstance(turn.get("role"), str) or not isinstance(content, str):
        raise ValueError(f"role and content must be text; give {_TURN}")
    plain = {key: value for key, value in turn.items() if value is not None and key != "function_call"}
    plain["content"] = content
    if calls:
        plain[_CALLS] = [_call(call) for call in calls]
    return plain


def _text_of_parts(parts: Sequence[Any], notes: set[str]) -> str | None:
    """The text among parts of a content, line by line; None where there is none."""
    texts = []
    for part in parts:
        text = part.get("text") if isinstance(part, dict) else part
        if isinstance(text, str):
            texts.append(text)
        elif isinstance(part, dict):
            notes.add(f"hold parts of the kind {part.get('type')!r}, which are not used: only text is learnt")
    return "\n".join(texts) if texts else None


def _call(call: Any) -> dict[str, Any]:
    """A call of a tool with its arguments as a mapping, which is what chat templates write out."""
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ValueError("a call of a tool has no name; give {name, arguments}")
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments) if arguments.strip() else {}
        except ValueError:
            raise ValueError(f"the arguments of the call of {function['name']!r} are not JSON") from None
    whole = {"type": "function", **call} if "function" in call else {"type": "function"}
    return {
        **_without_nulls(whole),
        "function": {"name": function["name"], "arguments": _without_nulls(arguments)},
    }


def _sharegpt_turn(turn: Turn) -> Turn:
    speaker, text = turn["from"], turn.get("value")
    role = _SHAREGPT_ROLES.get(speaker.lower()) if isinstance(speaker, str) else None
    if role is None:
        raise ValueError(f"the role {speaker!r} is not known; give one of {', '.join(_SHAREGPT_ROLES)}")
    if not isinstance(text, str):
        raise ValueError('from and value must be text, such as {"from": "human", "value": "..."}')
    marks = {key: turn[key] for key in ("weight", "train") if turn.get(key) is not None}
    if speaker.lower() != "function_call":
        return {"role": role, "content": text, **marks}
    try:
        calls = json.loads(text)
    except ValueError:
        raise ValueError("a function_call must be JSON with name and arguments") from None
    calls = [_call(call) for call in (calls if isinstance(calls, list) else [calls])]
    return {"role": role, "content": "", _CALLS: calls, **marks}


def _without_nulls(value: Any) -> Any:
    """Tables of Arrow give every mapping the keys of all others, null where it has none."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _check_tools(
    render_chat: RenderChat, text: str, turns: Sequence[Turn], tools: Sequence[Mapping[str, Any]]
) -> None:
    """SourceError where the chat template left out a tool, or a call of one. text: of all turns."""
    advice = "take a base whose template has tools, or remove"
    for tool in tools:
        if (name := tool["function"]["name"]) not in text:
            message = f"the base's chat template leaves the tools out ({name!r} is not in its text)"
            raise SourceError("path", f"{message}; {advice} the column")
    for at, turn in enumerate(turns):
        for call in turn.get(_CALLS, ()):
            name = call["function"]["name"]
            before = _chat(render_chat, turns[:at], False, tools) if at else ""
            if _chat(render_chat, turns[: at + 1], False, tools).count(name) <= before.count(name):
                message = (
                    f"the base's chat template leaves out the call of the tool {name!r} in turn {at + 1}"
                )
                raise SourceError("path", f"{message}; {advice} such rows")


def _chat(
    render_chat: RenderChat,
    messages: Sequence[Turn],
    add_generation_prompt: bool,
    tools: Sequence[Mapping[str, Any]],
) -> str:
    try:
        if tools:
            return render_chat(messages, add_generation_prompt, tools)
        return render_chat(messages, add_generation_prompt)
    except Exception as error:  # the base's template is a program of somebody else
        reason = whole_reason(error)
        raise SourceError(
            "path", f"the base's chat template cannot render the conversation: {reason}"
        ) from None
