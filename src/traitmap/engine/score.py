"""Log-likelihoods as lm-evaluation-harness defines them, each shared context computed once.

The choices of an item hang as branches behind its one context: a branch sees the context and itself.
A choice of one token adds no token at all, it is read from the context's own last distribution.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from traitmap.data.records import Answer, Request
from traitmap.engine.base import Base
from traitmap.engine.lora import Resident
from traitmap.engine.passes import Row, batches_by_tokens, read_logits
from traitmap.engine.tokens import Encoder
from traitmap.errors import ModelError
from traitmap.progress import Listener, Progress


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


def loglikelihoods(
    base: Base,
    encoder: Encoder,
    requests: Sequence[Request],
    budget: int,
    adapters: Resident | None,
    listener: Listener,
) -> list[Answer]:
    """Answers to ``loglikelihood`` requests, in order; ``budget`` tokens are computed in one pass."""
    pairs = [encoder.continuation(request) for request in requests]
    answers: dict[int, Answer] = {}
    for found in _answered(base, _questions(base, pairs), budget, adapters):
        answers.update(found)
        listener(Progress("evaluate", len(answers), len(requests)))
    return [answers[index] for index in range(len(requests))]


def rolling_loglikelihoods(
    base: Base,
    encoder: Encoder,
    requests: Sequence[Request],
    budget: int,
    adapters: Resident | None,
    listener: Listener,
) -> list[Answer]:
    """Answers to ``loglikelihood_rolling`` requests: whole texts in lm-eval's disjoint windows."""
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    questions, owners = list[Question](), list[int]()
    for index, request in enumerate(requests):
        ids = encoder.encode(request.context)
        windows = get_rolling_token_windows(ids, encoder.start, base.max_length, 1)
        for context, continuation in map(make_disjoint_window, windows):
            piece = Continuation(len(owners), tuple(continuation))
            questions.append(Question(tuple(context), (piece,)))
            owners.append(index)
    sums, tokens = np.zeros(len(requests)), np.zeros(len(requests), dtype=int)
    for found in _answered(base, questions, budget, adapters):
        for window, answer in found:
            sums[owners[window]] += answer.logprob
            tokens[owners[window]] += answer.tokens
    listener(Progress("evaluate", len(requests), len(requests)))
    return [Answer(logprob=float(sums[i]), tokens=int(tokens[i])) for i in range(len(requests))]


def _answered(
    base: Base, questions: Sequence[Question], budget: int, adapters: Resident | None
) -> Iterator[list[tuple[int, Answer]]]:
    """Answers of all questions, batch by batch, each with the number of its request."""
    rows = [_row(question) for question in questions]
    for batch in batches_by_tokens([len(row.ids) for row in rows], budget, base.layout):
        with torch.inference_mode():
            logits = read_logits(base.model, base.layout, [rows[i] for i in batch], adapters)
            found = _read(logits, [questions[i] for i in batch])
        yield found


def _questions(base: Base, pairs: Sequence[tuple[list[int], list[int]]]) -> list[Question]:
    """Requests with the same context tokens become one question; padded rows take one each.

    A context too long for the model loses its beginning, as lm-eval cuts it.
    """
    shared: dict[object, list[Continuation]] = {}
    for index, (context, continuation) in enumerate(pairs):
        if not continuation or len(continuation) > base.max_length:
            raise ModelError(
                f"request {index}: its continuation has {len(continuation)} tokens; "
                f"legal: 1 to {base.max_length}, the model's length."
            )
        room = base.max_length + 1 - len(continuation)
        head = tuple(context[-room:])
        key = head if base.layout == "stream" else (head, index)
        shared.setdefault(key, []).append(Continuation(index, tuple(continuation)))
    return [
        Question(context=key if base.layout == "stream" else key[0], continuations=tuple(value))  # type: ignore[arg-type, index]
        for key, value in shared.items()
    ]


def _row(question: Question) -> Row:
    """The context as trunk, every continuation but its last token as a branch."""
    trunk = len(question.context)
    ids, branches, reads = list(question.context), [0] * trunk, list[int]()
    for number, continuation in enumerate(question.continuations, start=1):
        start = len(ids)
        body = continuation.ids[:-1]
        reads += [trunk - 1, *range(start, start + len(body))]
        ids += body
        branches += [number] * len(body)
    plain = len(question.continuations) == 1 or len(ids) == trunk
    return Row(
        ids=np.asarray(ids, dtype=np.int64),
        reads=np.asarray(reads, dtype=np.int64),
        branches=None if plain else _renumbered(branches),
    )


def _renumbered(branches: Sequence[int]) -> np.ndarray:
    """Branch numbers 0..B without gaps (one-token choices have no tokens of their own)."""
    return np.unique(np.asarray(branches, dtype=np.int64), return_inverse=True)[1].astype(np.int64)


def _read(logits: torch.Tensor, questions: Sequence[Question]) -> list[tuple[int, Answer]]:
    """Answers out of the logits of a batch, (P, V), continuations in order."""
    targets = [token for q in questions for c in q.continuations for token in c.ids]
    wanted = torch.tensor(targets, device=logits.device)
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    chosen = wide.gather(1, wanted[:, None])[:, 0] - wide.logsumexp(dim=1)
    greedy = (wide.argmax(dim=1) == wanted).cpu().numpy()
    logprobs = chosen.double().cpu().numpy()
    found, place = list[tuple[int, Answer]](), 0
    for question in questions:
        for continuation in question.continuations:
            span = slice(place, place + len(continuation.ids))
            place = span.stop
            answer = Answer(
                logprob=float(logprobs[span].sum()),
                is_greedy=bool(greedy[span].all()),
                tokens=len(continuation.ids),
            )
            found.append((continuation.request, answer))
    return found
