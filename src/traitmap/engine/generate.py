"""Generation as lm-evaluation-harness asks for it: greedy or sampled, with stop strings.

Continuous decoding: every text has a slot in a cache that was made beforehand; a step computes one token of
each text in a slot, and the slot of a finished text is taken by the next one in the queue. Prompts are
computed unpadded, what many of them begin with once. Models without that forward path decode in padded
batches of similar length, from which finished rows leave at once. Sampling draws from a generator of the
request's own, so a text does not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from transformers.generation import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from traitmap.data.records import Request, Response
from traitmap.engine import cached_attention
from traitmap.engine.attention import attending
from traitmap.engine.base import ActiveModel, Base
from traitmap.engine.cached_attention import CacheSlots
from traitmap.engine.contract import Decoding, decoding_of
from traitmap.engine.cpu.fast_decoder import FastDecoder, plan_rectangles
from traitmap.engine.cpu.products import pad_to_bucket
from traitmap.engine.device import fetch, send
from traitmap.engine.forward_paths import compute_prefixes, read_behind, read_next, read_rectangles
from traitmap.engine.lora import EVERYTHING
from traitmap.engine.passes import (
    PaddedDecoder,
    Row,
    batches_by_tokens,
    on_each_side,
    out_of_memory,
    read_logits,
)
from traitmap.engine.requests import best_tokens, shared_prefixes
from traitmap.engine.tokens import Encoder
from traitmap.errors import EngineError, ModelError
from traitmap.progress import Listener, Progress

_FEWEST = 16  # texts for which a prefix of their own is worth a queue of their own
_NO_LOGITS = (
    "its next token has no finite logits; weights of the adapter or of the base are NaN or infinite, or too "
    "large for its dtype"
)
_REFILL = {"cpu": 4, "cuda": 8}  # a pass over new prompts is worth its start when this part of slots is free


@dataclass
class PartialText:
    """A text that is being generated: the ``index`` of its request, and its tokens so far.

    unknown: why it has none, where the model's logits are no numbers.
    """

    index: int
    prompt: list[int]
    decoding: Decoding
    generator: torch.Generator
    tokens: list[int] = field(default_factory=list)
    stopped: bool = False
    unknown: str = ""

    @property
    def finished(self) -> bool:
        return self.stopped or bool(self.unknown) or len(self.tokens) >= self.decoding.max_tokens


def partial_texts(base: Base, encoder: Encoder, requests: Sequence[Request]) -> list[PartialText]:
    """A text for each request; a prompt too long for the model loses its beginning, as lm-eval cuts it."""
    settings: dict[str, Decoding] = {}
    prompts = encoder.encode_all([request.context for request in requests])
    texts = []
    for index, (request, prompt) in enumerate(zip(requests, prompts, strict=True)):
        key = repr(request.generation)
        if key not in settings:
            settings[key] = decoding_of(request.generation)
        decoding = settings[key]
        room = base.max_length - decoding.max_tokens
        if room <= 0:
            raise ModelError(
                f"generation_kwargs: max_gen_toks {decoding.max_tokens} leaves no room for a prompt in the "
                f"model's {base.max_length} tokens; lower it in the task file."
            )
        generator = torch.Generator().manual_seed(request.seed)
        texts.append(PartialText(index, (prompt or [encoder.start])[-room:], decoding, generator))
    return texts


class StopCriteria:
    """Whether a text has ended: by an end token, or by a stop string that its newest token completes.

    End tokens are the tokenizer's and those of the generation config.
    """

    def __init__(self, base: Base, encoder: Encoder) -> None:
        configured = getattr(base.model.generation_config, "eos_token_id", None)
        several = configured if isinstance(configured, list) else [configured]
        self.tokens = {token for token in [base.tokenizer.eos_token_id, *several] if token is not None}
        self.tokenizer = base.tokenizer
        self.special = frozenset(base.tokenizer.all_special_ids)
        self._before = encoder.encode("a")[-1:]
        self._may: dict[tuple[int, tuple[str, ...]], bool] = {}

    def extend(self, texts: Sequence[PartialText], tokens: Sequence[int]) -> None:
        """Give each text its next token, and note whether that ends it."""
        for text, token in zip(texts, tokens, strict=True):
            text.tokens.append(token)
            until = text.decoding.until
            text.stopped = token in self.tokens or (self._may_complete(token, until) and self._hits(text))

    def _may_complete(self, token: int, until: tuple[str, ...]) -> bool:
        """Whether a stop string can end in this token's text. Known per token, so most cost a look-up."""
        key = token, until
        if key not in self._may:
            start = len(self.tokenizer.decode(self._before, skip_special_tokens=True))
            text = self.tokenizer.decode([*self._before, token], skip_special_tokens=True)[start:]
            unclear = not text or "\ufffd" in text  # a part of a character says nothing by itself
            self._may[key] = bool(until) and (unclear or any(may_end_in(text, term) for term in until))
        return self._may[key]

    def _hits(self, text: PartialText) -> bool:
        """Whether the text holds a stop string, with its special tokens or without them.

        Looks at the tail, then makes sure on the whole. As in lm-eval, special tokens may be a part of what
        stops a text, though they are none of the text.
        """
        reach = max(len(term.encode()) for term in text.decoding.until) + 4
        special = not self.special.isdisjoint(text.tokens[-reach:])
        for skip in (True, False) if special else (True,):
            pieces = (
                self.tokenizer.decode(tokens, skip_special_tokens=skip)
                for tokens in (text.tokens[-reach:], text.tokens)
            )
            if all(any(term in piece for term in text.decoding.until) for piece in pieces):
                return True
        return False

    def answer(self, text: PartialText) -> Response:
        """The finished text, cut before the first stop string; none where its logits were no numbers."""
        if text.unknown:
            return Response(tokens=len(text.tokens), unknown=text.unknown)
        tokens = [token for token in text.tokens if token not in self.tokens]
        decoded = self.tokenizer.decode(tokens, skip_special_tokens=True)
        for term in text.decoding.until:
            decoded = decoded.split(term)[0]
        return Response(text=decoded, tokens=len(text.tokens), stopped=text.stopped)


def may_end_in(text: str, term: str) -> bool:
    """Whether ``term`` can end inside ``text``: it lies there whole, or its end is how the text begins."""
    return term in text or any(term.endswith(text[:size]) for size in range(1, min(len(text), len(term)) + 1))


def next_tokens(logits: torch.Tensor, texts: Sequence[PartialText]) -> list[int]:
    """The next token of each text, greedy or drawn as its request says; logits (texts, V).

    A text whose largest logit is NaN or infinite gets its reason, and a token that means nothing. Waits for
    the device once, or twice where some texts are drawn and some are not.
    """
    drawn = np.array([row for row, text in enumerate(texts) if text.decoding.sample], dtype=np.int64)
    tokens, finite = [0] * len(texts), [True] * len(texts)
    if len(drawn) < len(texts):
        best = best_tokens(logits).to(logits.device)
        known = logits.gather(1, best[:, None]).squeeze(1).isfinite()  # of the highest, which a NaN counts as
        tokens, finite = fetch(torch.stack([best, known.long()])).tolist()
    scores_of: dict[int, torch.Tensor] = {}
    if len(drawn):
        scores_drawn = torch.from_numpy(fetch(logits.index_select(0, send(drawn, logits.device)).float()))
        scores_of = dict(zip(drawn.tolist(), scores_drawn, strict=True))
        finite = [
            bool(scores_of[row].max().isfinite()) if row in scores_of else finite[row]
            for row in range(len(texts))
        ]
    sampled: dict[Decoding, list[int]] = {}
    for row, text in enumerate(texts):
        if not finite[row]:
            text.unknown = _NO_LOGITS
        elif text.decoding.sample:
            sampled.setdefault(text.decoding, []).append(row)
    for decoding, rows in sampled.items():
        # temperature, top-k and top-p in transformers' order, on the CPU
        scores = torch.stack([scores_of[row] for row in rows])
        nothing = torch.empty(len(scores), 0, dtype=torch.long)
        scores = TemperatureLogitsWarper(decoding.temperature)(nothing, scores)
        if decoding.top_k > 0:
            scores = TopKLogitsWarper(decoding.top_k)(nothing, scores)
        if decoding.top_p < 1.0:
            scores = TopPLogitsWarper(decoding.top_p)(nothing, scores)
        chances = scores.softmax(dim=-1)
        for place, row in enumerate(rows):
            draw = torch.multinomial(chances[place : place + 1], 1, generator=texts[row].generator)
            tokens[row] = int(draw)
    return tokens


def generate(active: ActiveModel, requests: Sequence[Request], listener: Listener) -> list[Response]:
    """Answers to ``generate_until`` requests, in order. EngineError where memory does not hold one text."""
    texts, stop = (
        partial_texts(active.base, active.encoder, requests),
        StopCriteria(active.base, active.encoder),
    )
    answers: dict[int, Response] = {}
    switch = active.base.switch
    finished = _decoded(active, texts, stop) if switch is None else _on_each_side(active, texts, stop, switch)
    for text in finished:
        answers[text.index] = stop.answer(text)
        listener(Progress("evaluate", len(answers), len(requests)))
    return [answers[index] for index in range(len(requests))]


def _continuously(
    active: ActiveModel, texts: Sequence[PartialText], stop: StopCriteria
) -> Iterator[PartialText]:
    """Every text as it is finished; with half of the slots each time memory runs out."""
    for prefix, queue in queues_of(texts):
        left = {text.index: text for text in queue}
        longest = max(len(text.prompt) - len(prefix) + text.decoding.max_tokens for text in queue)
        slots = min(active.slots, max(1, (active.cache_tokens - len(prefix)) // longest), len(queue))
        while left:
            full = False
            try:
                for text in _SlotDecoder(active, stop, prefix, list(left.values()), slots).run():
                    del left[text.index]
                    yield text
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                full = True
            if full:  # outside the except block, which would keep the failed pass's tensors
                for text in [text for text in left.values() if text.finished]:
                    yield left.pop(text.index)
                if slots == 1 and left:
                    longest = max(len(text.prompt) + text.decoding.max_tokens for text in left.values())
                    raise EngineError(
                        f"memory does not hold one text of {longest} tokens; lower max_gen_toks in the task "
                        "file, use fewer examples in its prompts, a smaller base, or a device with more "
                        "memory."
                    )
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                slots //= 2


def queues_of(texts: Sequence[PartialText]) -> list[tuple[tuple[int, ...], list[PartialText]]]:
    """(prefix, the texts whose prompts begin with it, the longest first): the longest that enough share."""
    ordered = sorted(texts, key=lambda text: (-len(text.prompt), text.index))
    # the last token of a prompt stays out: its own logits are read
    prefixes, homes = shared_prefixes([tuple(text.prompt[:-1]) for text in ordered])
    sizes = [0] * len(prefixes)
    for home in homes:
        while home is not None:
            sizes[home] += 1
            home = prefixes[home].parent
    queues: dict[int | None, list[PartialText]] = {}
    for text, home in zip(ordered, homes, strict=True):
        while home is not None and sizes[home] < _FEWEST:
            home = prefixes[home].parent
        queues.setdefault(home, []).append(text)
    return [
        (tuple(queue[0].prompt[: prefixes[home].stop]) if home is not None else (), queue)
        for home, queue in queues.items()
    ]


class _SlotDecoder:
    """Texts behind one prefix, waiting or active in ``count`` slots: active text n is in slot n."""

    def __init__(
        self,
        active: ActiveModel,
        stop: StopCriteria,
        prefix: tuple[int, ...],
        waiting: list[PartialText],
        count: int,
    ) -> None:
        self.model, self.fast, self.adapters = active.base.model, active.fast, active.adapters
        self.last_mlp, self.pass_tokens = active.paths.last_mlp, active.pass_tokens
        self.stop, self.waiting, self.first = stop, waiting, len(prefix)
        self.texts = list[PartialText]()
        with torch.inference_mode(), self._attention():
            dtype = None if self.fast is None else self.model.dtype
            self.slots = CacheSlots(count, self.model.device, dtype)
            self.prefix = None
            if prefix:
                (computed,) = compute_prefixes(
                    self.model, [(prefix, None)], self.adapters, last_mlp=self.last_mlp, fast=self.fast
                )
                self.prefix = computed.to(self.slots.dtype)

    def _attention(self) -> AbstractContextManager[None]:
        """The model's attention as its own pass needs it; nothing for the fast CPU pass."""
        return nullcontext() if self.fast is not None else attending(self.model, cached_attention.NAME)

    def run(self) -> Iterator[PartialText]:
        """Every text as it is finished."""
        while self.waiting or self.texts:
            done = list[PartialText]()
            with torch.inference_mode(), self._attention():
                while (self.waiting or self.texts) and not done:
                    done += self._fill()
                    if self.texts:
                        done += self._step()
            yield from done

    def _fill(self) -> list[PartialText]:
        """Fill the free slots where that is worth a pass; the texts that end at their first token."""
        done, count = list[PartialText](), self.slots.count
        refill = _REFILL.get(self.slots.device.type, 4)
        enough = max(1, min(-(-count // refill), len(self.waiting)))
        if self.texts and count - len(self.texts) < enough:
            return done
        while self.waiting and len(self.texts) < count:
            queue = self.waiting[: count - len(self.texts)]
            lengths = [len(text.prompt) + len(text.tokens) - self.first for text in queue]
            fresh = queue[: len(next(batches_by_tokens(lengths, self.pass_tokens, in_order=True)))]
            rows = []
            for text in fresh:
                ids = np.asarray((text.prompt + text.tokens)[self.first :], dtype=np.int64)
                rows.append(Row(ids=ids, reads=np.asarray([len(ids) - 1])))
            if self.fast is not None and self.prefix is None:
                self._begin_alone(self.fast, fresh, rows)
            else:
                self._begin_behind(fresh, rows)
            done += [text for text in fresh if text.finished]
            del self.waiting[: len(fresh)]
        return done

    def _begin_behind(self, fresh: Sequence[PartialText], rows: Sequence[Row]) -> None:
        """Compute the prompts of fresh texts and their next tokens; those that go on get a slot."""
        logits, plan = read_behind(
            self.model,
            rows,
            [self.prefix] * len(rows),
            self.adapters,
            last_mlp=self.last_mlp,
            keep=True,
            fast=self.fast,
        )
        self.stop.extend(fresh, next_tokens(logits, fresh))
        start = 0
        for text, row in zip(fresh, rows, strict=True):
            if not text.finished:
                self.slots.write(len(self.texts), start, start + len(row.ids), plan.kept)
                self.texts.append(text)
            start += len(row.ids)

    def _begin_alone(self, fast: FastDecoder, fresh: Sequence[PartialText], rows: Sequence[Row]) -> None:
        """As ``_begin_behind``, by the fast CPU pass for prompts with no prefix before them."""
        plan, kept = plan_rectangles(rows), dict[int, tuple[torch.Tensor, torch.Tensor]]()
        self.stop.extend(fresh, next_tokens(read_rectangles(fast, plan, kept), fresh))
        self.slots.make_room(plan.longest + 1, {n: (k.transpose(0, 1), v) for n, (k, v) in kept.items()})
        for part in plan.parts:
            lines = [line for line, index in enumerate(part.members) if not fresh[index].finished]
            if lines:
                members = [part.members[line] for line in lines]
                slots = range(len(self.texts), len(self.texts) + len(lines))
                blocks = {n: (part.block(k)[lines], part.block(v)[lines]) for n, (k, v) in kept.items()}
                self.slots.write_rows(slots, blocks)
                self.slots.lengths[slots.start : slots.stop] = [len(rows[index].ids) for index in members]
                self.texts += [fresh[index] for index in members]

    def _step(self) -> list[PartialText]:
        """One more token of every text in a slot; the finished ones leave."""
        slots, texts = self.slots, self.texts
        last = [text.tokens[-1] for text in texts]
        logits = read_next(self.model, slots, last, self.prefix, self.adapters, self.fast)
        self.stop.extend(texts, next_tokens(logits, texts))
        done = list[PartialText]()
        for slot in reversed(range(len(texts))):
            if texts[slot].finished:
                done.append(texts[slot])
                mover = texts.pop()
                if slot < len(texts):
                    slots.move(len(texts), slot)
                    texts[slot] = mover
                slots.lengths[len(texts)] = 0
        if done and not self.waiting:
            # the others are not taken along when room grows
            slots.count = min(slots.count, pad_to_bucket(len(texts), 2))
        return done[::-1]


def _in_padded(
    active: ActiveModel, texts: Sequence[PartialText], stop: StopCriteria, decoding: str | None = None
) -> Iterator[PartialText]:
    """Batch by batch, the longest prompts first, each within the cache when all texts run to the end.

    decoding: as ``layouts.choose_decoding`` has it; None takes what the model can do.
    """
    if active.adapters is not None:
        active.adapters.route([EVERYTHING])
    decoding = decoding or (active.paths.decoding if active.base.cached else "anew")
    batches: list[list[PartialText]] = []
    for text in sorted(texts, key=lambda text: (-len(text.prompt), text.index)):
        batch = [*batches[-1], text] if batches else []
        longest = max((t.decoding.max_tokens for t in batch), default=0)
        full = not batch or (len(batch[0].prompt) + longest) * len(batch) > active.cache_tokens
        if full or decoding == "one":
            batches.append([])
        batches[-1].append(text)
    for batch in batches:
        with torch.inference_mode():
            if decoding == "anew":
                _decode_anew(active, batch, stop)
            else:
                _decode_batch(active.base, batch, stop)
        yield from batch


def _on_each_side(
    active: ActiveModel, texts: Sequence[PartialText], stop: StopCriteria, switch: int
) -> Iterator[PartialText]:
    """Texts that stay on one side of a switch of positions behind a cache, those that cross it without one:
    what the cache holds would be turned as before."""
    below, crossing, beyond = list[PartialText](), list[PartialText](), list[PartialText]()
    for text in texts:
        longest = len(text.prompt) + text.decoding.max_tokens
        (below if longest <= switch else beyond if len(text.prompt) > switch else crossing).append(text)
    yield from _decoded(active, below, stop)
    yield from _in_padded(active, beyond, stop)
    yield from _in_padded(active, crossing, stop, "anew")


def _decoded(active: ActiveModel, texts: Sequence[PartialText], stop: StopCriteria) -> Iterator[PartialText]:
    return _continuously(active, texts, stop) if active.paths.cached else _in_padded(active, texts, stop)


def _decode_batch(base: Base, texts: Sequence[PartialText], stop: StopCriteria) -> None:
    """Decode a padded batch by transformers' own cache until every text is finished."""
    decoder = PaddedDecoder(base.model, [text.prompt for text in texts], base.tokenizer.pad_token_id or 0)
    active = list(texts)
    while active:
        stop.extend(active, next_tokens(decoder.logits(), active))
        left = [row for row, text in enumerate(active) if not text.finished]
        active = [active[row] for row in left]
        if active:
            decoder.go_on([text.tokens[-1] for text in active], left)


def _decode_anew(active: ActiveModel, texts: Sequence[PartialText], stop: StopCriteria) -> None:
    """Decode without a cache, every text anew at every step: slow, and right where no cache is."""
    base, growing = active.base, list(texts)
    layout = "padded" if base.layout == "stream" else base.layout
    while growing:
        lengths = [len(text.prompt) + len(text.tokens) for text in growing]
        for side in on_each_side(lengths, base.switch):
            for batch in batches_by_tokens([lengths[i] for i in side], active.pass_tokens, layout):
                part = [growing[side[place]] for place in batch]
                sequences = [np.asarray(text.prompt + text.tokens, dtype=np.int64) for text in part]
                rows = [Row(ids=ids, reads=np.asarray([len(ids) - 1])) for ids in sequences]
                stop.extend(part, next_tokens(read_logits(base.model, layout, rows), part))
        growing = [text for text in growing if not text.finished]
