"""OpenAI's completions protocol: bodies of requests, and what their answers say."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from traitmap.data.records import Request, Response
from traitmap.engine.contract import Decoding
from traitmap.errors import ModelError

Prompt = str | list[int]
CONVERSATION = "[conversation] "  # stands before a conversation that the server's own template renders
_ROUNDING = 1e-6  # nats between a token's log-probability and the same one in the list of the likeliest
_LARGEST = 1e300  # of a log-probability: what is beyond, or NaN, cannot be reckoned with
# How a text ends that the model did not end: an error, a filter, an abort.
_BROKEN_OFF = frozenset({"error", "abort", "aborted", "cancelled", "canceled", "content_filter", "timeout"})
_NO_LOGPROBS = (
    "the server gives no log-probabilities of the prompt (completions with echo and logprobs), without which "
    "multiple-choice and perplexity targets cannot be scored; vLLM and SGLang give them. Use such a server, "
    "or targets that are generated."
)


@dataclass(frozen=True)
class TokenLogprobs:
    """Log-probabilities of a prompt's tokens, in order.

    tokens: their texts. logprobs: in nats, None for the first. greedy: whether each is the likeliest, None
    for the first. offsets: where each begins in the text, as the server has it, or nothing.
    """

    tokens: tuple[str, ...]
    logprobs: tuple[float | None, ...]
    greedy: tuple[bool | None, ...]
    offsets: tuple[int, ...]


def scoring_body(prompt: Prompt) -> dict[str, Any]:
    """Asks for the log-probabilities of a prompt. One token is generated, since some servers refuse none."""
    return {"prompt": prompt, "max_tokens": 1, "temperature": 0, "logprobs": 1, "echo": True}


def generation_body(prompt: Prompt, decoding: Decoding, seed: int) -> dict[str, Any]:
    """Asks for a completion."""
    return {"prompt": prompt, **_sampling(decoding, seed)}


def chat_body(conversation: str, decoding: Decoding, seed: int) -> dict[str, Any]:
    """Asks for the next turn of a conversation that ``conversation_text`` wrote down."""
    try:
        messages = json.loads(conversation.removeprefix(CONVERSATION))
    except ValueError:
        raise ModelError(
            "a conversation with text behind it (an answer begun for the model) can only be rendered here; "
            "give model.endpoint.tokenizer."
        ) from None
    return {"messages": messages, **_sampling(decoding, seed)}


def conversation_text(messages: Sequence[Mapping[str, str]]) -> str:
    """A conversation as one text that ``chat_body`` reads again."""
    return CONVERSATION + json.dumps([dict(message) for message in messages], ensure_ascii=False)


def token_logprobs(answer: Any) -> TokenLogprobs:
    """The prompt's log-probabilities out of an answer to ``scoring_body``. ModelError where it has none."""
    told = _choice(answer).get("logprobs")
    if not isinstance(told, Mapping):
        raise ModelError(_NO_LOGPROBS)
    logprobs = [_logprob(one) for one in _listed(told.get("token_logprobs"))]
    tokens, likeliest = _listed(told.get("tokens")), _listed(told.get("top_logprobs"))
    # the listed tokens but those that were generated; a list no longer than that holds none of the prompt
    count, completion = _used(answer, "prompt_tokens"), _used(answer, "completion_tokens")
    if count is None:
        count = len(logprobs) - 1
    elif count > len(logprobs) or len(logprobs) <= (completion or 0):
        count = 0
    if count < 1 or len(tokens) != len(logprobs) or len(likeliest) != len(logprobs):
        raise ModelError(_NO_LOGPROBS)
    offsets = [one for one in _listed(told.get("text_offset")) if isinstance(one, int)]
    return TokenLogprobs(
        tokens=tuple(map(str, tokens[:count])),
        logprobs=tuple(logprobs[:count]),
        greedy=tuple(_is_likeliest(one, top) for one, top in zip(logprobs, likeliest, strict=True))[:count],
        offsets=tuple(offsets[:count]) if len(offsets) == len(logprobs) else (),
    )


def _used(answer: Mapping[str, Any], what: str) -> int | None:
    """A count of tokens that the answer tells, or None."""
    usage = answer.get("usage")
    count = usage.get(what) if isinstance(usage, Mapping) else None
    return count if isinstance(count, int) and 0 <= count < 2**31 else None


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _logprob(value: Any) -> float | None:
    """A log-probability, None where there is none. ModelError for anything that is no finite number."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _LARGEST:
        raise ModelError(f"the server gives {str(value)[:40]!r} for a log-probability, which is no number.")
    return float(value)


def _is_likeliest(logprob: float | None, likeliest: Any) -> bool | None:
    if logprob is None or not isinstance(likeliest, Mapping) or not likeliest:
        return None
    known = [found for one in likeliest.values() if (found := _logprob(one)) is not None]
    return logprob >= max(known) - _ROUNDING if known else None


def continuation_start(found: TokenLogprobs, prompt: str, continuation: str) -> int:
    """Index of the first token that holds a character of the continuation.

    Read from the end of the text, since servers put special tokens in front: by the lengths of the tokens'
    own texts where these add up, else by the server's offsets. ModelError where neither tells.
    """
    whole = "".join(found.tokens)
    if whole.endswith(prompt):
        rest = len(continuation)
        for index in range(len(found.tokens) - 1, -1, -1):
            rest -= len(found.tokens[index])
            if rest <= 0:
                return index
    ordered = all(a <= b for a, b in zip(found.offsets, found.offsets[1:], strict=False))
    if found.offsets and ordered and found.offsets[0] == 0 and 0 < found.offsets[-1] < len(prompt):
        begins = len(prompt) - len(continuation)
        return max(i for i, offset in enumerate(found.offsets) if offset <= begins)
    raise ModelError(
        "the server's tokens do not tell where the continuation begins (a character over several tokens?); "
        "give model.endpoint.tokenizer, so that prompts are sent as token ids."
    )


def scored(found: TokenLogprobs, start: int) -> Response:
    """Sum over the tokens from ``start`` on. ModelError where one has no log-probability."""
    logprobs, greedy = found.logprobs[start:], found.greedy[start:]
    known = [logprob for logprob in logprobs if logprob is not None]
    likeliest = [one for one in greedy if one is not None]
    if not logprobs or len(known) < len(logprobs) or len(likeliest) < len(greedy):
        raise ModelError(
            "the server gives no log-probability of the continuation's first token (it stands at the very "
            "beginning of the text); give model.endpoint.tokenizer, so that a start token is put before it."
        )
    return Response(logprob=float(sum(known)), is_greedy=all(likeliest), tokens=len(logprobs))


def generated(answer: Any, decoding: Decoding) -> tuple[str, int | None, bool]:
    """Text up to the first stop string, tokens (None where unknown), and whether it ended by itself.

    An empty text is an answer where the model ended it. ModelError where there is none: null, an error, a
    text that was broken off or withheld.
    """
    choice = _choice(answer)
    message, finish = choice.get("message"), choice.get("finish_reason")
    text = message.get("content") if isinstance(message, Mapping) else choice.get("text")
    if text is None:
        thought = isinstance(message, Mapping) and (
            message.get("reasoning_content") or message.get("reasoning")
        )
        why = ": it thought to the end of max_gen_toks; raise it in the task file" if thought else ""
        raise ModelError(f"the server gives no text (null, finish_reason {_shown(finish)}){why}.")
    if not isinstance(text, str):
        raise ModelError("the server's answer holds no text where its text should stand.")
    if _word(finish) in _BROKEN_OFF or (not text and finish is None):
        raise ModelError(
            f"the server broke off (finish_reason {_shown(finish)}), so its text is no answer of the model."
        )
    # half of a surrogate pair, which an escape can write and no file can hold
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    stopped = finish not in ("length", None)
    for term in decoding.until:
        if term in text:
            text, stopped = text.split(term)[0], True
    return text, _used(answer, "completion_tokens"), stopped


def is_conversation(request: Request) -> bool:
    return request.context.startswith(CONVERSATION)


def _sampling(decoding: Decoding, seed: int) -> dict[str, Any]:
    body: dict[str, Any] = {"max_tokens": decoding.max_tokens, "temperature": 0}
    if decoding.until:
        body["stop"] = list(decoding.until)
    if decoding.sample:
        body |= {"temperature": decoding.temperature, "top_p": decoding.top_p, "seed": seed}
        if decoding.top_k > 0:
            body["top_k"] = decoding.top_k
    return body


def _choice(answer: Any) -> Mapping[str, Any]:
    try:
        choice = answer["choices"][0]
    except (KeyError, IndexError, TypeError):
        choice = None
    fault = answer.get("error") if isinstance(answer, Mapping) else None
    if not fault and isinstance(choice, Mapping):
        fault = choice.get("error")
    if fault:
        raise ModelError(f"the server answers with an error: {_shown(fault)}.")
    if not isinstance(choice, Mapping):
        raise ModelError("the server's answer has no choices; does it speak OpenAI's completions protocol?")
    return choice


def _shown(value: Any) -> str:
    """What a server says, short and on one line."""
    text = " ".join(str(value).split())
    return text if len(text) <= 200 else f"{text[:200]}..."


def _word(finish: Any) -> str:
    """How a text ended, in a word; SGLang has it in an object."""
    return str(finish.get("type") if isinstance(finish, Mapping) else finish).lower()
