"""Texts in the making: the choice of their next tokens, and where they end.

Decoding with a full batch: the place of a finished text is taken by the next one in the queue.

Prompts are computed unpadded, what many of them begin with once. A text has a slot in a cache that was
made beforehand; every step computes one token of each text in a slot, and nothing else: by the lean way
where that is right (``lean``), else by the model's own.

Generation as lm-evaluation-harness asks for it: greedy or sampled, with stop strings.

Sampling draws from a generator of the request's own, so an item's text does not depend on its
neighbours. Models that take the stream layout decode continuously; others in padded batches of similar
length, from which finished rows leave at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from transformers import DynamicCache
from transformers.generation import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from traitmap.data.records import Answer, Request
from traitmap.engine import cached_attention
from traitmap.engine.base import Base
from traitmap.engine.cached_attention import Cached, CacheSlots
from traitmap.engine.cached_passes import (
    EVERYTHING,
    Shortcuts,
    attending,
    compute_prefixes,
    read_behind,
    read_next,
    read_rectangles,
)
from traitmap.engine.contract import Decoding, decoding_of
from traitmap.engine.cpu.lean import Lean, plan_rectangles
from traitmap.engine.cpu.products import few
from traitmap.engine.lora import Resident
from traitmap.engine.passes import Row, out_of_memory, read_logits
from traitmap.engine.requests import best_tokens, shared_prefixes
from traitmap.engine.tokens import Encoder
from traitmap.errors import EngineError, ModelError
from traitmap.progress import Listener, Progress


@dataclass
class PartialText:
    """A text in the making."""

    index: int
    prompt: list[int]
    decoding: Decoding
    generator: torch.Generator
    tokens: list[int] = field(default_factory=list)
    stopped: bool = False

    @property
    def finished(self) -> bool:
        return self.stopped or len(self.tokens) >= self.decoding.max_tokens


def drafts_of(base: Base, encoder: Encoder, requests: Sequence[Request]) -> list[PartialText]:
    """A draft of each request; a prompt too long for the model loses its beginning, as lm-eval cuts it."""
    settings: dict[str, Decoding] = {}
    prompts = encoder.encode_all([request.context for request in requests])
    drafts = []
    for index, (request, prompt) in enumerate(zip(requests, prompts, strict=True)):
        asked = repr(request.generation)
        if asked not in settings:
            settings[asked] = decoding_of(request.generation)
        decoding = settings[asked]
        room = base.max_length - decoding.max_tokens
        if room <= 0:
            raise ModelError(
                f"generation_kwargs: max_gen_toks {decoding.max_tokens} leaves no room for a prompt in the "
                f"model's {base.max_length} tokens; lower it in the task file."
            )
        generator = torch.Generator().manual_seed(request.seed)
        drafts.append(PartialText(index, (prompt or [encoder.start])[-room:], decoding, generator))
    return drafts


def end_tokens(base: Base) -> frozenset[int]:
    """All tokens that end a text: the tokenizer's, and those of the generation config."""
    configured = getattr(base.model.generation_config, "eos_token_id", None)
    several = configured if isinstance(configured, list) else [configured]
    return frozenset(token for token in [base.tokenizer.eos_token_id, *several] if token is not None)


class Ends:
    """Whether a text has ended: by an end token, or by a stop string that its newest token completes."""

    def __init__(self, base: Base, encoder: Encoder) -> None:
        self.tokens = end_tokens(base)
        self.tokenizer = base.tokenizer
        self._before = encoder.encode("a")[-1:]
        self._may: dict[tuple[int, tuple[str, ...]], bool] = {}

    def extend(self, drafts: Sequence[PartialText], tokens: Sequence[int]) -> None:
        """Give each draft its next token, and note whether that ends it."""
        for draft, token in zip(drafts, tokens, strict=True):
            draft.tokens.append(token)
            until = draft.decoding.until
            draft.stopped = token in self.tokens or (self._may_complete(token, until) and self._hits(draft))

    def _may_complete(self, token: int, until: tuple[str, ...]) -> bool:
        """Whether a stop string can end in this token's text. Known per token, so most cost a look-up."""
        key = token, until
        if key not in self._may:
            start = len(self.tokenizer.decode(self._before, skip_special_tokens=True))
            text = self.tokenizer.decode([*self._before, token], skip_special_tokens=True)[start:]
            unclear = not text or "\ufffd" in text  # a part of a character says nothing by itself
            self._may[key] = bool(until) and (unclear or any(_overlap(text, term) for term in until))
        return self._may[key]

    def _hits(self, draft: PartialText) -> bool:
        """Whether the text holds a stop string. Looks at the tail, then makes sure on the whole."""
        reach = max(len(term.encode()) for term in draft.decoding.until) + 4
        tail = self.tokenizer.decode(draft.tokens[-reach:], skip_special_tokens=True)
        if not any(term in tail for term in draft.decoding.until):
            return False
        whole = self.tokenizer.decode(draft.tokens, skip_special_tokens=True)
        return any(term in whole for term in draft.decoding.until)

    def answer(self, draft: PartialText) -> Answer:
        """The finished text, cut before the first stop string."""
        kept = [token for token in draft.tokens if token not in self.tokens]
        text = self.tokenizer.decode(kept, skip_special_tokens=True)
        for term in draft.decoding.until:
            text = text.split(term)[0]
        return Answer(text=text, tokens=len(draft.tokens), stopped=draft.stopped)


def next_tokens(logits: torch.Tensor, drafts: Sequence[PartialText]) -> list[int]:
    """The next token of each row; logits (rows, V)."""
    tokens: list[int] = best_tokens(logits).tolist()
    sampled: dict[Decoding, list[int]] = {}
    for row, draft in enumerate(drafts):
        if draft.decoding.sample:
            sampled.setdefault(draft.decoding, []).append(row)
    for decoding, rows in sampled.items():
        chances = _chances(logits[rows], decoding)
        for place, row in enumerate(rows):
            draw = torch.multinomial(chances[place : place + 1], 1, generator=drafts[row].generator)
            tokens[row] = int(draw)
    return tokens


def _chances(logits: torch.Tensor, decoding: Decoding) -> torch.Tensor:
    """(rows, V) probabilities after temperature, top-k and top-p, in transformers' order, on the CPU."""
    scores = logits.float().cpu()
    nothing = torch.empty(len(scores), 0, dtype=torch.long)
    scores = TemperatureLogitsWarper(decoding.temperature)(nothing, scores)
    if decoding.top_k > 0:
        scores = TopKLogitsWarper(decoding.top_k)(nothing, scores)
    if decoding.top_p < 1.0:
        scores = TopPLogitsWarper(decoding.top_p)(nothing, scores)
    return scores.softmax(dim=-1)


def _overlap(text: str, term: str) -> bool:
    """Whether ``term`` can end inside ``text``: it lies there whole, or its end is how the text begins."""
    return term in text or any(term.endswith(text[:size]) for size in range(1, min(len(text), len(term)) + 1))


_MOST_SLOTS = {"cpu": 256, "cuda": 256}
_FEWEST = 16  # texts for which a prefix of their own is worth a queue of their own
_REFILL = {"cpu": 4, "cuda": 8}  # a pass over new prompts is worth its start when this part of slots is free


@dataclass(frozen=True)
class Queue:
    """Drafts whose prompts all begin with ``prefix`` (which may be empty), the longest first."""

    prefix: tuple[int, ...]
    drafts: list[PartialText]


@dataclass(frozen=True)
class Decoder:
    """What decoding needs of its surroundings. pass_tokens, cache_tokens: what may be computed and kept."""

    base: Base
    ends: Ends
    adapters: Resident | None
    shortcuts: Shortcuts
    lean: Lean | None
    pass_tokens: int
    cache_tokens: int


@dataclass
class _Places:
    """Texts and where they are: waiting, or active in slots, text n in slot n."""

    slots: CacheSlots
    prefix: Cached | None
    waiting: list[PartialText]
    active: list[PartialText] = field(default_factory=list)

    @property
    def left(self) -> bool:
        return bool(self.waiting or self.active)


def decode(decoder: Decoder, drafts: Sequence[PartialText]) -> Iterator[PartialText]:
    """Every draft as it is finished. EngineError where memory does not hold a single one."""
    for queue in queues_of(drafts):
        slots, left = _slot_count(decoder, queue), {draft.index: draft for draft in queue.drafts}
        while left:
            full = False
            try:
                for draft in _through(decoder, Queue(queue.prefix, list(left.values())), slots):
                    del left[draft.index]
                    yield draft
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                full = True
            if full:  # outside the except block, which would keep the failed pass's tensors
                for draft in [draft for draft in left.values() if draft.finished]:
                    yield left.pop(draft.index)
                slots = _fewer(slots, list(left.values()))


def _fewer(slots: int, left: Sequence[PartialText]) -> int:
    if slots == 1 and left:
        longest = max(len(draft.prompt) + draft.decoding.max_tokens for draft in left)
        raise EngineError(
            f"memory does not hold one text of {longest} tokens; lower max_gen_toks in the task file, use "
            "fewer examples in its prompts, a smaller base, or a device with more memory."
        )
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return slots // 2


def queues_of(drafts: Sequence[PartialText]) -> list[Queue]:
    """Drafts by the longest beginning that enough of them share."""
    ordered = sorted(drafts, key=lambda draft: (-len(draft.prompt), draft.index))
    # the last token of a prompt stays out: its own logits are read
    prefixes, homes = shared_prefixes([tuple(draft.prompt[:-1]) for draft in ordered])
    sizes = [0] * len(prefixes)
    for home in homes:
        while home is not None:
            sizes[home] += 1
            home = prefixes[home].parent
    found: dict[int | None, list[PartialText]] = {}
    for draft, home in zip(ordered, homes, strict=True):
        while home is not None and sizes[home] < _FEWEST:
            home = prefixes[home].parent
        found.setdefault(home, []).append(draft)
    return [
        Queue(tuple(own[0].prompt[: prefixes[home].stop]) if home is not None else (), own)
        for home, own in found.items()
    ]


def _slot_count(decoder: Decoder, queue: Queue) -> int:
    device = decoder.base.model.device.type
    first = len(queue.prefix)
    longest = max(len(draft.prompt) - first + draft.decoding.max_tokens for draft in queue.drafts)
    fitting = max(1, (decoder.cache_tokens - first) // longest)
    return min(_MOST_SLOTS.get(device, 64), fitting, len(queue.drafts))


def _through(decoder: Decoder, queue: Queue, count: int) -> Iterator[PartialText]:
    """Drafts of one queue through ``count`` slots."""
    model = decoder.base.model
    with torch.inference_mode(), _way(decoder):
        lengths = torch.zeros(count, dtype=torch.long, device=model.device)
        slots = CacheSlots(count, lengths, None if decoder.lean is None else model.dtype)
        prefix = _prefix(decoder, queue.prefix)
        places = _Places(slots, None if prefix is None else prefix.to(slots.dtype), list(queue.drafts))
    while places.left:
        done = list[PartialText]()
        with torch.inference_mode(), _way(decoder):
            while places.left and not done:
                done += _round(decoder, places, len(queue.prefix))
        yield from done


def _way(decoder: Decoder) -> AbstractContextManager[None]:
    """The model's attention as its own way needs it; nothing for the lean way."""
    by_model = decoder.lean is None
    return attending(decoder.base.model, cached_attention.NAME) if by_model else nullcontext()


def _round(decoder: Decoder, places: _Places, first: int) -> list[PartialText]:
    """Fill free slots, then one more token of every text in a slot; those that are finished."""
    waiting, active, count = places.waiting, places.active, places.slots.count
    done = list[PartialText]()
    refill = _REFILL.get(places.slots.lengths.device.type, 4)
    enough = max(1, min(-(-count // refill), len(waiting)))  # free slots that are worth a pass, or all
    if not active or count - len(active) >= enough:
        while waiting and len(active) < count:
            fresh = _fitting(waiting, count - len(active), first, decoder.pass_tokens)
            done += _begin(decoder, places, fresh, first)
            del waiting[: len(fresh)]
    if active:
        done += _step(decoder, places)
    return done


def _prefix(decoder: Decoder, ids: Sequence[int]) -> Cached | None:
    if not ids:
        return None
    last = decoder.shortcuts.last
    return compute_prefixes(
        decoder.base.model, [(ids, None)], decoder.adapters, last=last, lean=decoder.lean
    )[0]


def _fitting(waiting: Sequence[PartialText], free: int, first: int, budget: int) -> list[PartialText]:
    """The next drafts, as many as there are slots and as one pass computes; at least one."""
    fresh, used = list[PartialText](), 0
    for draft in waiting[:free]:
        used += len(draft.prompt) + len(draft.tokens) - first
        if fresh and used > budget:
            break
        fresh.append(draft)
    return fresh


def _begin(decoder: Decoder, places: _Places, fresh: Sequence[PartialText], first: int) -> list[PartialText]:
    """Compute the prompts of fresh drafts and their next tokens; those that go on get a slot."""
    texts = [np.asarray((draft.prompt + draft.tokens)[first:], dtype=np.int64) for draft in fresh]
    rows = [Row(ids=ids, reads=np.asarray([len(ids) - 1])) for ids in texts]
    if decoder.lean is not None and places.prefix is None:
        return _begin_lean(decoder.lean, decoder.ends, places, fresh, rows)
    logits, plan = read_behind(
        decoder.base.model,
        rows,
        [places.prefix] * len(rows),
        decoder.adapters,
        last=decoder.shortcuts.last,
        keep=True,
        lean=decoder.lean,
    )
    decoder.ends.extend(fresh, next_tokens(logits, fresh))
    start = 0
    for draft, ids in zip(fresh, texts, strict=True):
        if not draft.finished:
            places.slots.write(len(places.active), start, start + len(ids), plan.kept)
            places.active.append(draft)
        start += len(ids)
    return [draft for draft in fresh if draft.finished]


def _begin_lean(
    lean: Lean, ends: Ends, places: _Places, fresh: Sequence[PartialText], rows: Sequence[Row]
) -> list[PartialText]:
    """As ``_begin``, for prompts with no prefix before them."""
    plan, kept = plan_rectangles(rows), dict[int, tuple[torch.Tensor, torch.Tensor]]()
    ends.extend(fresh, next_tokens(read_rectangles(lean, plan, kept), fresh))
    slots, active = places.slots, places.active
    slots.make_room(plan.longest + 1, {n: (k.transpose(0, 1), v) for n, (k, v) in kept.items()})
    for part in plan.parts:
        going = [line for line, index in enumerate(part.members) if not fresh[index].finished]
        if going:
            where = range(len(active), len(active) + len(going))
            chosen = {n: (part.block(k)[going], part.block(v)[going]) for n, (k, v) in kept.items()}
            slots.write_rows(where, chosen)
            indices = [part.members[line] for line in going]
            slots.lengths[where.start : where.stop] = torch.tensor([len(rows[i].ids) for i in indices])
            active += [fresh[index] for index in indices]
    return [draft for draft in fresh if draft.finished]


def _step(decoder: Decoder, places: _Places) -> list[PartialText]:
    """One more token of every text in a slot; the finished ones leave."""
    model, slots, active = decoder.base.model, places.slots, places.active
    last = [draft.tokens[-1] for draft in active]
    logits = read_next(model, slots, last, places.prefix, decoder.adapters, decoder.lean)
    decoder.ends.extend(active, next_tokens(logits, active))
    done = list[PartialText]()
    for slot in reversed(range(len(active))):
        if active[slot].finished:
            done.append(active[slot])
            mover = active.pop()
            if slot < len(active):
                slots.move(len(active), slot)
                active[slot] = mover
            slots.lengths[len(active)] = 0
    if done and not places.waiting:
        slots.count = min(slots.count, few(len(active)))  # the others are not taken along when room grows
    return done[::-1]


def generate(
    decoder: Decoder, encoder: Encoder, requests: Sequence[Request], listener: Listener
) -> list[Answer]:
    """Answers to ``generate_until`` requests, in order."""
    drafts = drafts_of(decoder.base, encoder, requests)
    answers: dict[int, Answer] = {}
    finished = decode(decoder, drafts) if decoder.shortcuts.cached else _padded(decoder, drafts)
    for draft in finished:
        answers[draft.index] = decoder.ends.answer(draft)
        listener(Progress("evaluate", len(answers), len(requests)))
    return [answers[index] for index in range(len(requests))]


def _padded(decoder: Decoder, drafts: Sequence[PartialText]) -> Iterator[PartialText]:
    if decoder.adapters is not None:
        decoder.adapters.route([EVERYTHING])
    for batch in _batches(drafts, decoder.cache_tokens):
        with torch.inference_mode():
            (_decode_batch if decoder.base.cached else _decode_anew)(decoder.base, batch, decoder.ends)
        yield from batch


def _batches(drafts: Sequence[PartialText], budget: int) -> list[list[PartialText]]:
    """Drafts with the longest prompts first, each batch within the budget when all run to the end."""
    batches: list[list[PartialText]] = []
    for draft in sorted(drafts, key=lambda draft: (-len(draft.prompt), draft.index)):
        size = len(batches[-1][0].prompt) if batches else 0
        longest = (
            max([d.decoding.max_tokens for d in batches[-1]] + [draft.decoding.max_tokens]) if batches else 0
        )
        if not batches or (size + longest) * (len(batches[-1]) + 1) > budget:
            batches.append([])
        batches[-1].append(draft)
    return batches


def _decode_batch(base: Base, drafts: Sequence[PartialText], ends: Ends) -> None:
    """Decode until every draft is finished."""
    model, device = base.model, base.model.device
    longest = max(len(draft.prompt) for draft in drafts)
    filler = base.tokenizer.pad_token_id or 0
    ids = torch.tensor([[filler] * (longest - len(d.prompt)) + d.prompt for d in drafts], device=device)
    mask = torch.tensor(
        [[0] * (longest - len(d.prompt)) + [1] * len(d.prompt) for d in drafts], device=device
    )
    positions = (mask.cumsum(1) - 1).clamp_(min=0)
    cache = DynamicCache(config=model.config)
    active = list(drafts)
    while active:
        output = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        ends.extend(active, next_tokens(output.logits[:, -1], active))
        keep = [row for row, draft in enumerate(active) if not draft.finished]
        if len(keep) < len(active):
            rows = torch.tensor(keep, device=device, dtype=torch.long)
            active = [active[row] for row in keep]
            if not active:
                return
            cache.batch_select_indices(rows)
            mask, positions = mask[rows], positions[rows]
        ids = torch.tensor([[draft.tokens[-1]] for draft in active], device=device)
        mask = torch.cat([mask, mask.new_ones(len(active), 1)], dim=1)
        positions = positions[:, -1:] + 1


def _decode_anew(base: Base, drafts: Sequence[PartialText], ends: Ends) -> None:
    """Decode without a cache, every text anew at every step: slow, and right behind virtual tokens."""
    active = list(drafts)
    while active:
        texts = [np.asarray(draft.prompt + draft.tokens, dtype=np.int64) for draft in active]
        rows = [Row(ids=ids, reads=np.asarray([len(ids) - 1])) for ids in texts]
        ends.extend(active, next_tokens(read_logits(base.model, base.layout, rows), active))
        active = [draft for draft in active if not draft.finished]
