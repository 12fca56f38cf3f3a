"""Texts -> token ids, for training and for scoring alike, as lm-evaluation-harness splits them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    """A tokenizer with lm-evaluation-harness's conventions on special tokens.

    capacity: tokens of texts that are remembered, since the same texts are asked of every adapter; 16 MB.
    """

    def __init__(self, tokenizer: Any, *, capacity: int = 2**22) -> None:
        self.capacity = capacity
        self.tokenizer = tokenizer
        self._known: dict[tuple[str, bool], NDArray[np.int32]] = {}
        self._known_tokens = 0
        self.end = tokenizer.eos_token_id
        if self.end is None:
            raise ModelError(
                "the tokenizer has no end-of-sequence token; set eos_token in tokenizer_config.json."
            )
        self.start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else self.end
        self._prefix = tokenizer.decode(self.start)
        probe = tokenizer.encode("a")
        if probe and probe[-1] in tokenizer.all_special_ids:
            raise ModelError(
                f"the tokenizer appends {tokenizer.decode(probe[-1:])!r} to every text, which makes all "
                "choices of a question tie; load it with add_eos_token=False."
            )

    def encode(self, text: str) -> list[int]:
        """Ids with the tokenizer's own special tokens, none doubled where the text begins with one."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=self._adds(text))
        return ids

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text as ``encode`` gives them."""
        return self._remembered([(text, self._adds(text)) for text in texts])

    def _adds(self, text: str) -> bool:
        """Whether the tokenizer puts its special tokens round the text: not where it begins with one."""
        return not (bool(self._prefix) and text.startswith(self._prefix))

    def _remembered(self, texts: Sequence[tuple[str, bool]]) -> list[list[int]]:
        """Ids of texts with or without special tokens; the same texts are asked of every adapter."""
        unknown = list(dict.fromkeys(text for text in texts if text not in self._known))
        if self._known_tokens > self.capacity:
            self._known.clear()
            self._known_tokens, unknown = 0, list(dict.fromkeys(texts))
        for text, ids in self._in_one_call(unknown).items():
            self._known[text] = np.asarray(ids, dtype=np.int32)
            self._known_tokens += len(ids)
        return [self._known[text].tolist() for text in texts]

    def _in_one_call(self, texts: Sequence[tuple[str, bool]]) -> dict[tuple[str, bool], list[int]]:
        """Ids of texts with or without special tokens: many at a time take a third of one by one."""
        found: dict[tuple[str, bool], list[int]] = {}
        for special in (True, False):
            fresh = [text for text, adds in texts if adds == special]
            if fresh:
                ids = self.tokenizer(fresh, add_special_tokens=special, return_attention_mask=False)
                found.update(
                    ((text, special), one) for text, one in zip(fresh, ids["input_ids"], strict=True)
                )
        return found

    def pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Context and continuation ids; spaces at the context's end go to the continuation.

        An empty context becomes the start token. The same split serves training and scoring, so
        that a completion is learnt under the very tokens under which it is scored.
        """
        if context == "":
            return self._from_start(self.tokenizer.encode(continuation, add_special_tokens=False))
        context, continuation = _moved_spaces(context, continuation)
        head, whole = self.encode(context), self.encode(context + continuation)
        return (head, whole[len(head) :]) if head else self._from_start(whole)

    def continuation(self, request: Request) -> tuple[list[int], list[int]]:
        """Context and continuation ids of a loglikelihood request."""
        return self.pair(request.context, request.continuation)

    def continuations(self, requests: Sequence[Request]) -> list[tuple[list[int], list[int]]]:
        """Context and continuation ids of loglikelihood requests, each as ``pair`` gives them."""
        texts: list[tuple[str, bool]] = []
        for request in requests:
            context, continuation = _moved_spaces(request.context, request.continuation)
            if request.context == "":
                texts += [(continuation, False)] * 2
            else:
                texts += [(text, self._adds(text)) for text in (context, context + continuation)]
        ids = self._remembered(texts)
        return [
            (head, whole[len(head) :]) if request.context and head else self._from_start(whole)
            for request, head, whole in zip(requests, ids[::2], ids[1::2], strict=True)
        ]

    def _from_start(self, ids: list[int]) -> tuple[list[int], list[int]]:
        """The split of a text without context: the start token before it, unless it brings its own."""
        return (ids[:1], ids[1:]) if ids[:1] == [self.start] else ([self.start], ids)

    def examples(self, examples: Sequence[Example], max_length: int, loss_on: str) -> list[TokenizedExample]:
        """Ids of training examples with the end token behind each, cut at ``max_length`` from the right."""
        texts = dict.fromkeys(text for example in examples for text in _texts_of(example))
        known = self._in_one_call([(text, self._adds(text)) for text in texts])
        ids = {text: known[text, self._adds(text)] for text in texts}
        return [self._example(example, ids, max_length, loss_on) for example in examples]

    def _example(
        self, example: Example, known_ids: Mapping[str, list[int]], max_length: int, loss_on: str
    ) -> TokenizedExample:
        text, ids, learn = "", list[int](), list[bool]()
        for segment in example.segments:
            if not segment.text:
                continue
            kept, fresh = list[int](), known_ids.get(segment.text, [])
            if text:
                context, continuation = _moved_spaces(text, segment.text)
                head, whole = known_ids[context], known_ids[context + continuation]
                kept, fresh = (head, whole[len(head) :]) if head else self._from_start(whole)
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


def _texts_of(example: Example) -> Iterator[str]:
    """The texts whose ids make an example: its beginning, then what is before each part and with it."""
    text = ""
    for segment in example.segments:
        if text and segment.text:
            context, continuation = _moved_spaces(text, segment.text)
            yield from (context, context + continuation)
        elif segment.text:
            yield segment.text
        text += segment.text


def _moved_spaces(context: str, continuation: str) -> tuple[str, str]:
    """Spaces at the context's end go to the continuation."""
    spaces = len(context) - len(context.rstrip())
    return (context[:-spaces], context[-spaces:] + continuation) if spaces else (context, continuation)


def learnt_positions(example: TokenizedExample) -> Ids:
    """Positions whose next token is learnt: p is read to predict token p + 1."""
    return np.flatnonzero(example.learn[1:])


def total_tokens(examples: Sequence[TokenizedExample]) -> int:
    """Tokens of data, end tokens included."""
    return sum(len(example.ids) for example in examples)
