"""Log-likelihood requests as rows: a context once, its choices as branches behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

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


@dataclass(frozen=True)
class Wanted:
    """What is read off the logits of a pass: of continuation tokens, one behind the other, (T,) each.

    targets: the token; sources: the row of the logits that it is read from. starts: (C,) where each
    continuation begins; sizes: (C,) its tokens; requests: (C,) the request that it answers.
    """

    targets: torch.Tensor
    sources: torch.Tensor
    starts: NDArray[np.int64]
    sizes: list[int]
    requests: list[int]


def wanted_of(questions: Sequence[Question]) -> Wanted:
    """What is read where the reads of the questions' rows lie behind each other."""
    targets, sources, place = list[int](), list[int](), 0
    for question in questions:
        own = place + 1
        for continuation in question.continuations:
            body = len(continuation.ids) - 1
            targets += continuation.ids
            sources += [place, *range(own, own + body)]
            own += body
        place = own
    continuations = [one for question in questions for one in question.continuations]
    sizes = [len(one.ids) for one in continuations]
    return Wanted(
        torch.tensor(targets),
        torch.tensor(sources),
        np.cumsum([0, *sizes[:-1]]),
        sizes,
        [one.request for one in continuations],
    )


def answers_from(logits: torch.Tensor, wanted: Wanted) -> list[tuple[int, Answer]]:
    """Answers out of logits (P, V), with their requests."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    targets, sources = wanted.targets.to(logits.device), wanted.sources.to(logits.device)
    chosen = (wide[sources, targets] - wide.logsumexp(dim=1)[sources]).double().cpu().numpy()
    greedy = torch.from_numpy(best_tokens(wide))[wanted.sources] == wanted.targets
    sums = np.add.reduceat(chosen, wanted.starts).tolist()
    all_greedy = np.logical_and.reduceat(greedy.numpy(), wanted.starts).tolist()
    return [
        (request, Answer(logprob=total, is_greedy=best, tokens=size))
        for request, total, best, size in zip(wanted.requests, sums, all_greedy, wanted.sizes, strict=True)
    ]


def best_tokens(logits: torch.Tensor) -> NDArray[np.int64]:
    """(P,) the token of the highest logit in each row of (P, V), the first of equals."""
    if logits.device.type != "cpu":
        return logits.argmax(dim=-1).cpu().numpy()
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    found: NDArray[np.int64] = wide.numpy().argmax(axis=1)  # six times as fast as torch's on a CPU
    return found
