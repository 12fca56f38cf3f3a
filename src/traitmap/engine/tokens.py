"""Texts -> token ids, for training and for scoring alike, as lm-evaluation-harness splits them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from traitmap.data.records import Example, Request
from traitmap.errors import ModelError

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class TokenizedExample:
    """ids: (L,) token ids with the end token; learn: (L,) whether the token at that place is learnt.

    truncated: the example was cut at max_length.
    """

    ids: Ids
    learn: NDArray[np.bool_]
    truncated: bool


class Encoder:
    """A tokenizer with lm-evaluation-harness's conventions on special tokens."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.end = tokenizer.eos_token_id
        if self.end is None:
            raise ModelError(
                "the tokenizer has no end-of-sequence token; set eos_token in tokenizer_config.json."
            )
        self.start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else self.end
        probe = tokenizer.encode("a")
        if probe and probe[-1] in tokenizer.all_special_ids:
            raise ModelError(
                f"the tokenizer appends {tokenizer.decode(probe[-1:])!r} to every text, which makes all "
                "choices of a question tie; load it with add_eos_token=False."
            )

    def encode(self, text: str) -> list[int]:
        """Ids with the tokenizer's own special tokens, none doubled where the text begins with one."""
        prefix = self.tokenizer.decode(self.start)
        begins = bool(prefix) and text.startswith(prefix)
        return self.tokenizer.encode(text, **({"add_special_tokens": False} if begins else {}))

    def pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Context and continuation ids; spaces at the context's end go to the continuation.

        An empty context becomes the start token. The same split serves training and scoring, so
        that a completion is learnt under the very tokens under which it is scored.
        """
        if context == "":
            ids = self.tokenizer.encode(continuation, add_special_tokens=False)
            return (ids[:1], ids[1:]) if ids[:1] == [self.start] else ([self.start], ids)
        spaces = len(context) - len(context.rstrip())
        if spaces:
            context, continuation = context[:-spaces], context[-spaces:] + continuation
        head = self.encode(context)
        return head, self.encode(context + continuation)[len(head) :]

    def continuation(self, request: Request) -> tuple[list[int], list[int]]:
        """Context and continuation ids of a loglikelihood request."""
        return self.pair(request.context, request.continuation)

    def example(self, example: Example, max_length: int, loss_on: str) -> TokenizedExample:
        """Ids of a training example with the end token behind it, cut at ``max_length`` from the right."""
        text, ids, learn = "", list[int](), list[bool]()
        for segment in example.segments:
            if not segment.text:
                continue
            kept, fresh = self.pair(text, segment.text) if text else ([], self.encode(segment.text))
            known = (learn + learn[-1:] * len(kept))[: len(kept)]
            ids, learn = kept + fresh, known + [segment.learn] * len(fresh)
            text += segment.text
        ids.append(self.end)
        learn.append(example.segments[-1].learn if example.segments else False)
        flags = np.asarray(learn, dtype=bool)
        if loss_on == "all":
            flags = np.ones(len(ids), dtype=bool)
        cut = len(ids) > max_length
        return TokenizedExample(np.asarray(ids[:max_length], dtype=np.int64), flags[:max_length], cut)


def learnt_positions(example: TokenizedExample) -> Ids:
    """Positions whose next token is learnt: p is read to predict token p + 1."""
    return np.flatnonzero(example.learn[1:])


def total_tokens(examples: Sequence[TokenizedExample]) -> int:
    """Tokens of data, end tokens included."""
    return sum(len(example.ids) for example in examples)
