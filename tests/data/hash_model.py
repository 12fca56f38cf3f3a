"""A model double: answers follow from the request by a hash, so two ways of asking get the same answers."""

from collections import Counter
from hashlib import sha256
from typing import Any

from lm_eval.api.model import LM

from traitmap.data.records import Request, Response

TEXTS = ("#### 2", "that is 7", "#### 8, no, 9", "no idea", "", "7", "make 9 #### 7")


def _number(*parts: Any) -> int:
    return int(sha256(repr(parts).encode()).hexdigest()[:12], 16)


def answers_to(asked: list[tuple[str, str, str]], salt: str = "") -> list[Response]:
    """One answer per (kind, context, continuation); the same generation asked again gets another text."""
    seen: Counter[tuple[str, str, str]] = Counter()
    given = []
    for one in asked:
        seen[one] += 1
        number = _number(salt, one, seen[one] if one[0] == "generate_until" else 1)
        if one[0] == "generate_until":
            text = TEXTS[number % len(TEXTS)]
            given.append(Response(text=text, tokens=len(text) + 1, stopped=True))
        else:
            given.append(
                Response(logprob=-(number % 100_003) / 1e4, is_greedy=number % 3 == 0, tokens=number % 7)
            )
    return given


def answer_requests(requests: tuple[Request, ...], salt: str = "") -> list[Response]:
    return answers_to([(one.kind, one.context, one.continuation) for one in requests], salt)


class HashModel(LM):
    """The same answers behind lm-eval's own interface."""

    def _answers(self, kind: str, requests: list[Any]) -> list[Response]:
        asked = [(kind, one.args[0], one.args[1] if kind == "loglikelihood" else "") for one in requests]
        return answers_to(asked)

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        return [(one.logprob, bool(one.is_greedy)) for one in self._answers("loglikelihood", requests)]

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        return [one.logprob for one in self._answers("loglikelihood_rolling", requests)]

    def generate_until(self, requests: list[Any]) -> list[str]:
        return [str(one.text) for one in self._answers("generate_until", requests)]

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        return render_chat(chat_history, add_generation_prompt)

    @property
    def tokenizer_name(self) -> str:
        return "hash"


def render_chat(messages: Any, add_generation_prompt: bool) -> str:
    turns = "".join(f"<{one['role']}>{one['content']}" for one in messages)
    return turns + ("<assistant>" if add_generation_prompt else "")
