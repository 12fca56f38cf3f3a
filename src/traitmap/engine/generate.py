"""Generation as lm-evaluation-harness asks for it: greedy or sampled, with stop strings.

Rows of similar length decode together over a key-value cache; a finished row leaves the batch at
once. Sampling draws from a generator of the request's own, so an item's text does not depend on its
neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from transformers import DynamicCache
from transformers.generation import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from traitmap.data.records import Answer, Request
from traitmap.engine.base import Base
from traitmap.engine.decoding import Decoding, decoding_of
from traitmap.engine.passes import Row, read_logits
from traitmap.engine.tokens import Encoder
from traitmap.errors import ModelError
from traitmap.progress import Listener, Progress


@dataclass
class Draft:
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


def generate(
    base: Base, encoder: Encoder, requests: Sequence[Request], budget: int, listener: Listener
) -> list[Answer]:
    """Answers to ``generate_until`` requests, in order; ``budget`` tokens fit the cache of one batch."""
    drafts = [_draft(base, encoder, index, request) for index, request in enumerate(requests)]
    answers: list[Answer | None] = [None] * len(requests)
    ends = _end_tokens(base)
    done = 0
    for batch in _batches(drafts, budget):
        with torch.inference_mode():
            (_decode_batch if base.cached else _decode_anew)(base, batch, ends)
        for draft in batch:
            answers[draft.index] = _answer(base, draft, ends)
        done += len(batch)
        listener(Progress("evaluate", done, len(requests)))
    return [answer for answer in answers if answer is not None]


def _draft(base: Base, encoder: Encoder, index: int, request: Request) -> Draft:
    decoding = decoding_of(request.generation)
    room = base.max_length - decoding.max_tokens
    if room <= 0:
        raise ModelError(
            f"generation_kwargs: max_gen_toks {decoding.max_tokens} leaves no room for a prompt in the "
            f"model's {base.max_length} tokens; lower it in the task file."
        )
    prompt = (encoder.encode(request.context) or [encoder.start])[-room:]
    return Draft(index, prompt, decoding, torch.Generator().manual_seed(request.seed))


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


def _end_tokens(base: Base) -> frozenset[int]:
    """All tokens that end a text: the tokenizer's, and those of the generation config."""
    configured = getattr(base.model.generation_config, "eos_token_id", None)
    several = configured if isinstance(configured, list) else [configured]
    return frozenset(token for token in [base.tokenizer.eos_token_id, *several] if token is not None)


def _decode_batch(base: Base, drafts: Sequence[Draft], ends: frozenset[int]) -> None:
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
        for draft, token in zip(active, _next_tokens(output.logits[:, -1], active), strict=True):
            draft.tokens.append(token)
            draft.stopped = token in ends or _hits_stop(base, draft)
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


def _decode_anew(base: Base, drafts: Sequence[Draft], ends: frozenset[int]) -> None:
    """Decode without a cache, every text anew at every step: slow, and right behind virtual tokens."""
    active = list(drafts)
    while active:
        texts = [np.asarray(draft.prompt + draft.tokens, dtype=np.int64) for draft in active]
        rows = [Row(ids=ids, reads=np.asarray([len(ids) - 1])) for ids in texts]
        logits = read_logits(base.model, base.layout, rows)
        for draft, token in zip(active, _next_tokens(logits, active), strict=True):
            draft.tokens.append(token)
            draft.stopped = token in ends or _hits_stop(base, draft)
        active = [draft for draft in active if not draft.finished]


def _next_tokens(logits: torch.Tensor, drafts: Sequence[Draft]) -> list[int]:
    """The next token of each row; logits (rows, V)."""
    greedy = logits.argmax(dim=-1).tolist()
    return [
        _sample(logits[row], draft) if draft.decoding.sample else greedy[row]
        for row, draft in enumerate(drafts)
    ]


def _sample(logits: torch.Tensor, draft: Draft) -> int:
    """One draw after temperature, top-k and top-p, in transformers' order."""
    decoding = draft.decoding
    scores = logits[None].float().cpu()
    nothing = torch.empty(1, 0, dtype=torch.long)
    scores = TemperatureLogitsWarper(decoding.temperature)(nothing, scores)
    if decoding.top_k > 0:
        scores = TopKLogitsWarper(decoding.top_k)(nothing, scores)
    if decoding.top_p < 1.0:
        scores = TopPLogitsWarper(decoding.top_p)(nothing, scores)
    return int(torch.multinomial(scores.softmax(dim=-1), 1, generator=draft.generator))


def _hits_stop(base: Base, draft: Draft) -> bool:
    """Whether the newest token completes a stop string. Looks at the tail, then makes sure on the whole."""
    if not draft.decoding.until:
        return False
    reach = max(len(term.encode()) for term in draft.decoding.until) + 4
    tail = base.tokenizer.decode(draft.tokens[-reach:], skip_special_tokens=True)
    if not any(term in tail for term in draft.decoding.until):
        return False
    whole = base.tokenizer.decode(draft.tokens, skip_special_tokens=True)
    return any(term in whole for term in draft.decoding.until)


def _answer(base: Base, draft: Draft, ends: frozenset[int]) -> Answer:
    kept = [token for token in draft.tokens if token not in ends]
    text = base.tokenizer.decode(kept, skip_special_tokens=True)
    for term in draft.decoding.until:
        text = text.split(term)[0]
    return Answer(text=text, tokens=len(draft.tokens), stopped=draft.stopped)
