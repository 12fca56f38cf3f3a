"""Decoding with a full batch: the place of a finished text is taken by the next one in the queue.

Prompts are computed unpadded, what many of them begin with once. A text has a slot in a cache that was
made beforehand; every step computes one token of each text in a slot, and nothing else: by the lean way
where that is right (``lean``), else by the model's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch

from traitmap.engine import cached_attention
from traitmap.engine.base import Base
from traitmap.engine.cached_attention import Cached, Slots
from traitmap.engine.cached_passes import (
    Shortcuts,
    attending,
    compute_prefixes,
    read_behind,
    read_next,
    read_rectangles,
)
from traitmap.engine.drafts import Draft, Ends, next_tokens
from traitmap.engine.halving import out_of_memory
from traitmap.engine.lean import Lean
from traitmap.engine.lora import Resident
from traitmap.engine.passes import Row
from traitmap.engine.prefixes import shared_prefixes
from traitmap.engine.rectangles import plan_rectangles
from traitmap.engine.shapes import few
from traitmap.errors import EngineError

_MOST_SLOTS = {"cpu": 256, "cuda": 256}
_FEWEST = 16  # texts for which a prefix of their own is worth a queue of their own
_REFILL = {"cpu": 4, "cuda": 8}  # a pass over new prompts is worth its start when this part of slots is free


@dataclass(frozen=True)
class Queue:
    """Drafts whose prompts all begin with ``prefix`` (which may be empty), the longest first."""

    prefix: tuple[int, ...]
    drafts: list[Draft]


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

    slots: Slots
    prefix: Cached | None
    waiting: list[Draft]
    active: list[Draft] = field(default_factory=list)

    @property
    def left(self) -> bool:
        return bool(self.waiting or self.active)


def decode(decoder: Decoder, drafts: Sequence[Draft]) -> Iterator[Draft]:
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


def _fewer(slots: int, left: Sequence[Draft]) -> int:
    if slots == 1 and left:
        longest = max(len(draft.prompt) + draft.decoding.max_tokens for draft in left)
        raise EngineError(
            f"memory does not hold one text of {longest} tokens; lower max_gen_toks in the task file, use "
            "fewer examples in its prompts, a smaller base, or a device with more memory."
        )
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return slots // 2


def queues_of(drafts: Sequence[Draft]) -> list[Queue]:
    """Drafts by the longest beginning that enough of them share."""
    ordered = sorted(drafts, key=lambda draft: (-len(draft.prompt), draft.index))
    # the last token of a prompt stays out: its own logits are read
    prefixes, homes = shared_prefixes([tuple(draft.prompt[:-1]) for draft in ordered])
    sizes = [0] * len(prefixes)
    for home in homes:
        while home is not None:
            sizes[home] += 1
            home = prefixes[home].parent
    found: dict[int | None, list[Draft]] = {}
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


def _through(decoder: Decoder, queue: Queue, count: int) -> Iterator[Draft]:
    """Drafts of one queue through ``count`` slots."""
    model = decoder.base.model
    with torch.inference_mode(), _way(decoder):
        lengths = torch.zeros(count, dtype=torch.long, device=model.device)
        slots = Slots(count, lengths, None if decoder.lean is None else model.dtype)
        prefix = _prefix(decoder, queue.prefix)
        places = _Places(slots, None if prefix is None else prefix.to(slots.dtype), list(queue.drafts))
    while places.left:
        done = list[Draft]()
        with torch.inference_mode(), _way(decoder):
            while places.left and not done:
                done += _round(decoder, places, len(queue.prefix))
        yield from done


def _way(decoder: Decoder) -> AbstractContextManager[None]:
    """The model's attention as its own way needs it; nothing for the lean way."""
    by_model = decoder.lean is None
    return attending(decoder.base.model, cached_attention.NAME) if by_model else nullcontext()


def _round(decoder: Decoder, places: _Places, first: int) -> list[Draft]:
    """Fill free slots, then one more token of every text in a slot; those that are finished."""
    waiting, active, count = places.waiting, places.active, places.slots.count
    done = list[Draft]()
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


def _fitting(waiting: Sequence[Draft], free: int, first: int, budget: int) -> list[Draft]:
    """The next drafts, as many as there are slots and as one pass computes; at least one."""
    fresh, used = list[Draft](), 0
    for draft in waiting[:free]:
        used += len(draft.prompt) + len(draft.tokens) - first
        if fresh and used > budget:
            break
        fresh.append(draft)
    return fresh


def _begin(decoder: Decoder, places: _Places, fresh: Sequence[Draft], first: int) -> list[Draft]:
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
    lean: Lean, ends: Ends, places: _Places, fresh: Sequence[Draft], rows: Sequence[Row]
) -> list[Draft]:
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


def _step(decoder: Decoder, places: _Places) -> list[Draft]:
    """One more token of every text in a slot; the finished ones leave."""
    model, slots, active = decoder.base.model, places.slots, places.active
    last = [draft.tokens[-1] for draft in active]
    logits = read_next(model, slots, last, places.prefix, decoder.adapters, decoder.lean)
    decoder.ends.extend(active, next_tokens(logits, active))
    done = list[Draft]()
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
