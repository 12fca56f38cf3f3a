"""Texts -> token ids, for training and for scoring alike, as lm-evaluation-harness splits them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from traitmap.data.records import Caveat, Example, Request
from traitmap.engine.contract import decoding_of
from traitmap.errors import ModelError
from traitmap.study.settings import Training

Ids = NDArray[np.int64]
_AT_ONCE = 1000  # examples that are looked at together
_LAST = 8  # tokens of a row among which its end token stands, blanks behind it


@dataclass(frozen=True)
class TokenizedExample:
    """ids: (L,) token ids with the end token; learn: (L,) whether the token at that place is learnt.

    truncated: the example was cut at max_length. lost: learnt tokens that were cut off. merged: the tokenizer
    would join the beginning of an answer with what stands before it. ended: the text brings its end token.
    """

    ids: Ids
    learn: NDArray[np.bool_]
    truncated: bool
    lost: int = 0
    merged: bool = False
    ended: bool = False


@dataclass(frozen=True)
class Border:
    """How a tokenizer splits a context and its continuation.

    context, continuation: their token ids, as they are scored. merged: a token of the whole text holds the
    end of the context and the beginning of the continuation, which lm-eval then leaves out of the score.
    alone: no token was left of the continuation, so it is encoded by itself (lm-eval stops there).
    """

    context: list[int]
    continuation: list[int]
    merged: bool = False
    alone: bool = False


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
        self.end_text = tokenizer.decode(self.end)
        self._line = self._ids("\n", special=False)
        probe = tokenizer.encode("a")
        if probe and probe[-1] in tokenizer.all_special_ids:
            raise ModelError(
                f"the tokenizer appends {tokenizer.decode(probe[-1:])!r} to every text, which makes all "
                "choices of a question tie; load it with add_eos_token=False."
            )

    def encode(self, text: str) -> list[int]:
        """Ids with the tokenizer's own special tokens, none doubled where the text begins with one."""
        return self._ids(text, self._adds(text))

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
                # without its warning of long texts: they are cut, and told of, here
                ids = self.tokenizer(
                    fresh, add_special_tokens=special, return_attention_mask=False, verbose=False
                )
                found.update(
                    ((text, special), one) for text, one in zip(fresh, ids["input_ids"], strict=True)
                )
        return found

    def _ids(self, text: str, special: bool) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=special, verbose=False)
        return ids

    def pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Context and continuation ids; spaces at the context's end go to the continuation.

        An empty context becomes the start token. The same split serves training and scoring, so
        that a completion is learnt under the very tokens under which it is scored.
        """
        if context == "":
            return self._from_start(self._ids(continuation, special=False))
        context, continuation = _moved_spaces(context, continuation)
        border = self._border(continuation, self.encode(context), self.encode(context + continuation))
        return border.context, border.continuation

    def continuation(self, request: Request) -> tuple[list[int], list[int]]:
        """Context and continuation ids of a loglikelihood request."""
        return self.pair(request.context, request.continuation)

    def continuations(self, requests: Sequence[Request]) -> list[tuple[list[int], list[int]]]:
        """Context and continuation ids of loglikelihood requests, each as ``pair`` gives them."""
        return [(border.context, border.continuation) for border in self.borders(requests)]

    def borders(self, requests: Sequence[Request]) -> list[Border]:
        """How context and continuation of loglikelihood requests are split, each as ``pair`` does it."""
        texts: list[tuple[str, bool]] = []
        for request in requests:
            context, continuation = _moved_spaces(request.context, request.continuation)
            if request.context == "":
                texts += [(continuation, False)] * 2
            else:
                texts += [(text, self._adds(text)) for text in (context, context + continuation)]
        ids = self._remembered(texts)
        return [
            self._border(_moved_spaces(request.context, request.continuation)[1], head, whole)
            if request.context
            else Border(*self._from_start(whole))
            for request, head, whole in zip(requests, ids[::2], ids[1::2], strict=True)
        ]

    def _border(self, continuation: str, head: list[int], whole: list[int]) -> Border:
        """The split of a text into what encodes its context and the rest.

        Where no token is left of the continuation, it is encoded by itself: lm-eval stops there.
        """
        if not head:
            return Border(*self._from_start(whole))
        tail = whole[len(head) :]
        merged = self._merges(head, whole)
        if tail or not continuation:
            return Border(head, tail, merged)
        return Border(head, self._by_itself(continuation), merged, alone=True)

    def _merges(self, head: list[int], whole: list[int]) -> bool:
        """Whether more than blanks is joined where a context ends: ids of the rest then lack a part of it."""
        beginning = whole[: len(head)]
        if beginning == head:
            return False
        return bool(self.tokenizer.decode(beginning).rstrip() != self.tokenizer.decode(head).rstrip())

    def _by_itself(self, text: str) -> list[int]:
        """Ids of a text as it goes on behind another, without the space that some tokenizers begin with."""
        behind_line = self._ids(f"\n{text}", special=False)
        if behind_line[: len(self._line)] == self._line:
            return behind_line[len(self._line) :]
        return self._ids(text, special=False)

    def _from_start(self, ids: list[int]) -> tuple[list[int], list[int]]:
        """The split of a text without context: the start token before it, unless it brings its own."""
        return (ids[:1], ids[1:]) if ids[:1] == [self.start] else ([self.start], ids)

    def examples(self, examples: Sequence[Example], max_length: int, loss_on: str) -> list[TokenizedExample]:
        """Ids of training examples with the end token behind each, cut at ``max_length`` from the right.

        A text that brings its end token (a chat template's, or the data's) gets no second one. An answer
        whose beginning the tokenizer would join with the prompt is encoded by itself, so that the row holds
        it whole.
        """
        texts = dict.fromkeys(text for example in examples for text in _texts_of(example))
        known = self._in_one_call([(text, self._adds(text)) for text in texts])
        ids = {text: known[text, self._adds(text)] for text in texts}
        return [self._example(example, ids, max_length, loss_on) for example in examples]

    def _example(
        self, example: Example, known_ids: Mapping[str, list[int]], max_length: int, loss_on: str
    ) -> TokenizedExample:
        text, ids, learn, merged = "", list[int](), list[bool](), False
        for segment in example.segments:
            if not segment.text:
                continue
            kept, fresh = list[int](), known_ids.get(segment.text, [])
            if text:
                context, continuation = _moved_spaces(text, segment.text)
                head, whole = known_ids[context], known_ids[context + continuation]
                merged = merged or (bool(head) and self._merges(head, whole))
                if merged:  # from here on, since what follows would be joined by the same token
                    kept, fresh = ids, self._by_itself(segment.text)
                else:
                    kept, fresh = (head, whole[len(head) :]) if head else self._from_start(whole)
            known = (learn + learn[-1:] * len(kept))[: len(kept)]
            ids, learn = kept + fresh, known + [segment.learn] * len(fresh)
            text += segment.text
        answered = bool(example.segments) and bool(example.segments[-1].text.strip())
        ended = answered and text.rstrip().endswith(self.end_text) and self.end in ids[-_LAST:]
        if not ended:
            ids.append(self.end)
            learn.append(example.segments[-1].learn if example.segments else False)
        flags = np.asarray(learn, dtype=bool)
        if loss_on == "all":
            flags = np.ones(len(ids), dtype=bool)
        return TokenizedExample(
            ids=np.asarray(ids[:max_length], dtype=np.int64),
            learn=flags[:max_length],
            truncated=len(ids) > max_length,
            lost=int(flags[max_length:].sum()),
            merged=merged,
            ended=ended,
        )


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


def request_caveats(
    encoder: Encoder, requests: Sequence[Request], max_length: int, *, reserved: int = 0
) -> tuple[Caveat, ...]:
    """What a base's tokens do to the items of a target: prompts that lose their beginning, choices at the
    border of the prompt, choices that are the same tokens, and what the base cannot be asked at all.

    max_length: tokens that the base reads at once; reserved: of them, those that scoring cannot use. Counts
    are of items.
    """
    caveats = _choice_caveats(encoder, requests, max_length - reserved)
    generated = [request for request in requests if request.kind == "generate_until"]
    items = len({request.item for request in requests})
    cut: dict[int, int] = {}
    for request, ids in zip(
        generated, encoder.encode_all([request.context for request in generated]), strict=True
    ):
        written = decoding_of(request.generation).max_tokens
        if written >= max_length:
            text = (
                f"max_gen_toks {written:,} leaves no room for a prompt in the {max_length:,} tokens that the "
                "base reads; lower it under generation_kwargs of the task file"
            )
            return (*caveats, Caveat("no_room_for_prompt", items, items, text, fatal=True))
        if len(ids) > max_length - written:
            cut[request.item] = max(cut.get(request.item, 0), len(ids) - max_length + written)
    if cut:
        room = f"the tokens that max_gen_toks leaves of {max_length:,}"
        caveats.append(_cut_caveat(cut, items, room))
    return tuple(caveats)


def _choice_caveats(encoder: Encoder, requests: Sequence[Request], max_length: int) -> list[Caveat]:
    """What tokens do to log-likelihood requests, each kind of trouble with its first example."""
    scored = [request for request in requests if request.kind == "loglikelihood"]
    items = len({request.item for request in requests})
    cut: dict[int, int] = {}
    long, alone, merged, equal = dict[int, str](), dict[int, str](), dict[int, str](), dict[int, str]()
    seen: dict[tuple[int, tuple[int, ...], tuple[int, ...]], str] = {}
    for request, border in zip(scored, encoder.borders(scored), strict=True):
        item, shown = request.item, repr(_shortened(request.continuation))
        behind = f"{_shortened(request.context[-20:])!r} + {shown}"
        excess = len(border.context) + len(border.continuation) - max_length - 1
        if len(border.continuation) > max_length:
            long.setdefault(item, shown)
        elif excess > 0:
            cut[item] = max(cut.get(item, 0), excess)
        if border.alone:
            alone.setdefault(item, behind)
        elif border.merged:
            merged.setdefault(item, behind)
        key = item, tuple(border.context), tuple(border.continuation)
        if key in seen:
            equal.setdefault(item, f"{seen[key]} and {shown}")
        seen.setdefault(key, shown)
    caveats = []
    if cut:
        caveats.append(_cut_caveat(cut, items, f"the {max_length:,} tokens that the base reads"))
    delimiter = 'with target_delimiter: " " in the task file they are parted'
    for kind, found, text in (
        ("choice_too_long", long, f"an answer is longer than the {max_length:,} tokens that the base reads"),
        (
            "choice_without_tokens",
            alone,
            "the tokenizer joins the prompt's end and the choice, of which no token is left; it is scored as "
            f"tokens of its own, where lm-eval stops; {delimiter}",
        ),
        (
            "choice_merged",
            merged,
            "the tokenizer joins the prompt's end and the beginning of the choice, which takes no part in "
            f"the score, as in lm-eval; {delimiter}",
        ),
        ("choices_alike", equal, "two choices are the same tokens, so that the first of them always wins"),
    ):
        if found:
            head = f"in {len(found):,} of {items:,} items {text} ({next(iter(found.values()))})"
            caveats.append(Caveat(kind, len(found), items, head, fatal=kind == "choice_too_long"))
    return caveats


def _cut_caveat(cut: Mapping[int, int], items: int, room: str) -> Caveat:
    text = (
        f"in {len(cut):,} of {items:,} items the prompt is longer than {room} and loses its beginning, as in "
        f"lm-eval (up to {max(cut.values()):,} tokens)"
    )
    return Caveat("prompt_cut", len(cut), items, text)


def example_caveats(encoder: Encoder, examples: Sequence[Example], training: Training) -> tuple[Caveat, ...]:
    """What tokens do to training examples: answers that are cut off, joined with the prompt, or ended before.

    Counts are of examples; each text names the first of them, counted from 1.
    """
    found: dict[str, list[int]] = {}
    for start in range(0, len(examples), _AT_ONCE):
        part = examples[start : start + _AT_ONCE]
        rows = encoder.examples(part, training.max_length, training.loss_on)
        for number, (example, row) in enumerate(zip(part, rows, strict=True), start=start + 1):
            ends = int((row.ids[row.learn] == encoder.end).sum())
            marks = {
                "answer_lost": row.lost and not row.learn[1:].any(),
                "answer_cut": row.lost and row.learn[1:].any(),
                "answer_merged": row.merged,
                "ended_before": row.ended,
                "end_inside": ends > sum(segment.learn for segment in example.segments),
            }
            for kind, holds in marks.items():
                if holds:
                    found.setdefault(kind, []).append(number)
    if len(found.get("ended_before", ())) == len(examples):
        del found["ended_before"]  # as it is meant
    end, most = repr(encoder.end_text), f"max_length {training.max_length:,}"
    texts = {
        "answer_lost": f"nothing of the answer is left within {most}, so they are not learnt; raise it",
        "answer_cut": f"the end of the answer is cut off at {most}, so its end is not learnt; raise it",
        "answer_merged": "the tokenizer would join the prompt's end with the answer, which is learnt as "
        "tokens of its own; begin answers with a space or newline",
        "ended_before": f"the text ends in {end}, in the others it does not; it is learnt once in all",
        "end_inside": f"{end} stands inside the answer, so the model learns to stop there",
    }
    return tuple(
        Caveat(
            kind,
            len(numbers),
            len(examples),
            f"in {len(numbers):,} of {len(examples):,} examples (first: {numbers[0]:,}) {texts[kind]}",
        )
        for kind in texts
        if (numbers := found.get(kind, []))
    )


def _shortened(text: str, most: int = 30) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def learnt_positions(example: TokenizedExample) -> Ids:
    """Positions whose next token is learnt: p is read to predict token p + 1."""
    return np.flatnonzero(example.learn[1:])


def total_tokens(examples: Sequence[TokenizedExample]) -> int:
    """Tokens of data, end tokens included."""
    return sum(len(example.ids) for example in examples)
