"""Generation as lm-evaluation-harness asks for it: greedy or sampled, with stop strings.

Sampling draws from a generator of the request's own, so an item's text does not depend on its
neighbours. Models that take the stream layout decode continuously; others in padded batches of similar
length, from which finished rows leave at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from transformers import DynamicCache

from traitmap.data.records import Answer, Request
from traitmap.engine.base import Base
from traitmap.engine.cached_passes import EVERYTHING
from traitmap.engine.continuous import Decoder, decode
from traitmap.engine.drafts import Draft, Ends, drafts_of, next_tokens
from traitmap.engine.passes import Row, read_logits
from traitmap.engine.tokens import Encoder
from traitmap.progress import Listener, Progress


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


def _padded(decoder: Decoder, drafts: Sequence[Draft]) -> Iterator[Draft]:
    if decoder.adapters is not None:
        decoder.adapters.route([EVERYTHING])
    for batch in _batches(drafts, decoder.cache_tokens):
        with torch.inference_mode():
            (_decode_batch if decoder.base.cached else _decode_anew)(decoder.base, batch, decoder.ends)
        yield from batch


def _batches(drafts: Sequence[Draft], budget: int) -> list[list[Draft]]:
    """Drafts with the longest prompts first, each batch within the budget when all run to the end."""
    batches: list[list[Draft]] = []
    for draft in sorted(drafts, key=lambda draft: (-len(draft.prompt), draft.index)):
        size = len(batches[-1][0].prompt) if batches else 0
        longest = (
            max([d.decoding.max_tokens for d in batches[-1]] + [draft.decoding.max_tokens]) if batches else 0
        )
        if not batches or (size + longest) * (len(batches[-1]) + 1) > budget:
            batches.append([])
        batches[-1].append(draft)
    return batches


def _decode_batch(base: Base, drafts: Sequence[Draft], ends: Ends) -> None:
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


def _decode_anew(base: Base, drafts: Sequence[Draft], ends: Ends) -> None:
    """Decode without a cache, every text anew at every step: slow, and right behind virtual tokens."""
    active = list(drafts)
    while active:
        texts = [np.asarray(draft.prompt + draft.tokens, dtype=np.int64) for draft in active]
        rows = [Row(ids=ids, reads=np.asarray([len(ids) - 1])) for ids in texts]
        ends.extend(active, next_tokens(read_logits(base.model, base.layout, rows), active))
        active = [draft for draft in active if not draft.finished]
