"""Log-likelihood requests as rows: a context once, its choices as branches behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from traitmap.data.records import Answer
from traitmap.engine.passes import Row
from traitmap.errors import ModelError


@dataclass(frozen=True)
class Continuation:
    """Tokens to score after a context; ``request`` is the index of the answer."""

    request: int
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Question:
    """A context with all continuations to be scored behind it."""

    context: tuple[int, ...]
    continuations: tuple[Continuation, ...]


def questions_of(
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]], max_length: int, layout: str
) -> list[Question]:
    """Requests with the same context tokens become one question; padded rows take one each.

    A context too long for the model loses its beginning, as lm-eval cuts it.
    """
    shared: dict[object, list[Continuation]] = {}
    heads: dict[object, tuple[int, ...]] = {}
    for index, (context, continuation) in enumerate(pairs):
        if not continuation or len(continuation) > max_length:
            raise ModelError(
                f"request {index}: its continuation has {len(continuation)} tokens; "
                f"legal: 1 to {max_length}, the model's length."
            )
        head = tuple(context[-(max_length + 1 - len(continuation)) :])
        key = head if layout == "stream" else (head, index)
        heads[key] = head
        shared.setdefault(key, []).append(Continuation(index, tuple(continuation)))
    return [Question(heads[key], tuple(continuations)) for key, continuations in shared.items()]


def row_of(question: Question, start: int = 0) -> Row:
    """The context from token ``start`` on as trunk, every continuation but its last token as a branch.

    A choice of one token adds no token: all choices read the trunk's last place, which is read once.
    """
    ids = list(question.context[start:])
    trunk = len(ids)
    branches = [0] * trunk
    for number, continuation in enumerate(question.continuations, start=1):
        ids += continuation.ids[:-1]
        branches += [number] * (len(continuation.ids) - 1)
    plain = len(question.continuations) == 1 or len(ids) == trunk
    return Row(
        ids=np.asarray(ids, dtype=np.int64),
        reads=np.arange(trunk - 1, len(ids), dtype=np.int64),
        branches=None if plain else _renumbered(branches),
    )


def _renumbered(branches: Sequence[int]) -> np.ndarray:
    """Branch numbers 0..B without gaps (one-token choices have no tokens of their own)."""
    return np.unique(np.asarray(branches, dtype=np.int64), return_inverse=True)[1].astype(np.int64)


def answers_from(logits: torch.Tensor, questions: Sequence[Question]) -> list[tuple[int, Answer]]:
    """Answers out of the logits (P, V) at the reads of the questions' rows, with their requests."""
    targets, sources, place = list[int](), list[int](), 0
    for question in questions:
        own = place + 1
        for continuation in question.continuations:
            body = len(continuation.ids) - 1
            targets += continuation.ids
            sources += [place, *range(own, own + body)]
            own += body
        place = own
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    wanted = torch.tensor(targets, device=logits.device)
    read = torch.tensor(sources, device=logits.device)
    chosen = (wide[read, wanted] - wide.logsumexp(dim=1)[read]).double().cpu().numpy()
    greedy = (wide.argmax(dim=1)[read] == wanted).cpu().numpy()
    found, place = list[tuple[int, Answer]](), 0
    for continuation in (one for question in questions for one in question.continuations):
        span = slice(place, place + len(continuation.ids))
        place = span.stop
        answer = Answer(
            logprob=float(chosen[span].sum()),
            is_greedy=bool(greedy[span].all()),
            tokens=len(continuation.ids),
        )
        found.append((continuation.request, answer))
    return found
