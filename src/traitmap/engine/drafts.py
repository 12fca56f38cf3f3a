"""Texts in the making: the choice of their next tokens, and where they end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from transformers.generation import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from traitmap.data.records import Answer, Request
from traitmap.engine.base import Base
from traitmap.engine.decoding import Decoding, decoding_of
from traitmap.engine.questions import best_tokens
from traitmap.engine.tokens import Encoder
from traitmap.errors import ModelError


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


def drafts_of(base: Base, encoder: Encoder, requests: Sequence[Request]) -> list[Draft]:
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
        drafts.append(Draft(index, (prompt or [encoder.start])[-room:], decoding, generator))
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

    def extend(self, drafts: Sequence[Draft], tokens: Sequence[int]) -> None:
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

    def _hits(self, draft: Draft) -> bool:
        """Whether the text holds a stop string. Looks at the tail, then makes sure on the whole."""
        reach = max(len(term.encode()) for term in draft.decoding.until) + 4
        tail = self.tokenizer.decode(draft.tokens[-reach:], skip_special_tokens=True)
        if not any(term in tail for term in draft.decoding.until):
            return False
        whole = self.tokenizer.decode(draft.tokens, skip_special_tokens=True)
        return any(term in whole for term in draft.decoding.until)

    def answer(self, draft: Draft) -> Answer:
        """The finished text, cut before the first stop string."""
        kept = [token for token in draft.tokens if token not in self.tokens]
        text = self.tokenizer.decode(kept, skip_special_tokens=True)
        for term in draft.decoding.until:
            text = text.split(term)[0]
        return Answer(text=text, tokens=len(draft.tokens), stopped=draft.stopped)


def next_tokens(logits: torch.Tensor, drafts: Sequence[Draft]) -> list[int]:
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
