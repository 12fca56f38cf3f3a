"""Log-likelihoods as lm-evaluation-harness defines them, each shared beginning computed once.

The choices of an item hang as branches behind its one context: a branch sees the context and itself.
A choice of one token adds no token at all, it is read from the context's own last distribution. What many
contexts begin with (the examples of a few-shot prompt) is computed once, and its keys and values serve all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from traitmap.data.records import Answer, Request
from traitmap.engine import attention, cached_attention
from traitmap.engine.base import Base
from traitmap.engine.cached_attention import Cached
from traitmap.engine.cached_passes import (
    Shortcuts,
    attending,
    compute_prefixes,
    read_behind,
    read_stream,
)
from traitmap.engine.halving import in_batches
from traitmap.engine.lora import Resident
from traitmap.engine.passes import read_logits
from traitmap.engine.prefixes import Prefix, shared_prefixes
from traitmap.engine.questions import Continuation, Question, answers_from, questions_of, row_of
from traitmap.engine.tokens import Encoder
from traitmap.progress import Listener, Progress

Found = list[tuple[int, Answer]]
_KEPT = 4  # keys and values of this many passes' tokens are kept at a time


def loglikelihoods(
    base: Base,
    encoder: Encoder,
    requests: Sequence[Request],
    budget: int,
    adapters: Resident | None,
    listener: Listener,
    shortcuts: Shortcuts,
) -> list[Answer]:
    """Answers to ``loglikelihood`` requests, in order; ``budget`` tokens are computed in one pass."""
    questions = questions_of(encoder.continuations(requests), base.max_length, base.layout)
    answers: dict[int, Answer] = {}
    for found in _answered(base, questions, budget, adapters, shortcuts):
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
    shortcuts: Shortcuts,
) -> list[Answer]:
    """Answers to ``loglikelihood_rolling`` requests: whole texts in lm-eval's disjoint windows."""
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    questions, owners = list[Question](), list[int]()
    for index, ids in enumerate(encoder.encode_all([request.context for request in requests])):
        windows = get_rolling_token_windows(ids, encoder.start, base.max_length, 1)
        for context, continuation in map(make_disjoint_window, windows):
            piece = Continuation(len(owners), tuple(continuation))
            questions.append(Question(tuple(context), (piece,)))
            owners.append(index)
    sums, tokens = np.zeros(len(requests)), np.zeros(len(requests), dtype=int)
    for found in _answered(base, questions, budget, adapters, shortcuts):
        for window, answer in found:
            sums[owners[window]] += answer.logprob
            tokens[owners[window]] += answer.tokens
    listener(Progress("evaluate", len(requests), len(requests)))
    return [Answer(logprob=float(sums[i]), tokens=int(tokens[i])) for i in range(len(requests))]


def _answered(
    base: Base,
    questions: Sequence[Question],
    budget: int,
    adapters: Resident | None,
    shortcuts: Shortcuts,
) -> Iterator[Found]:
    """Answers of all questions, batch by batch, each with the number of its request."""
    if base.layout != "stream":
        yield from _padded(base, questions, budget, adapters)
        return
    # the last token of a context stays out: its own logits are read
    heads = [question.context[:-1] for question in questions] if shortcuts.cached else []
    prefixes, homes = shared_prefixes(heads)
    alone = [q for q, home in zip(questions, homes, strict=True) if home is None] if heads else questions
    yield from _streamed(base, alone, budget, adapters, shortcuts)
    for asked, needed in _waves(prefixes, budget * _KEPT):
        own = [(q, home) for q, home in zip(questions, homes, strict=True) if home in asked]
        yield from _behind(base, prefixes, needed, own, budget, adapters, shortcuts)


def _padded(
    base: Base, questions: Sequence[Question], budget: int, adapters: Resident | None
) -> Iterator[Found]:
    rows = [row_of(question) for question in questions]

    def compute(batch: list[int]) -> Found:
        with torch.inference_mode():
            logits = read_logits(base.model, "padded", [rows[i] for i in batch], adapters)
            return answers_from(logits, [questions[i] for i in batch])

    yield from in_batches([len(row.ids) for row in rows], budget, "padded", compute)


def _streamed(
    base: Base,
    questions: Sequence[Question],
    budget: int,
    adapters: Resident | None,
    shortcuts: Shortcuts,
) -> Iterator[Found]:
    """Questions that share no beginning with others."""
    rows = [row_of(question) for question in questions]

    def compute(batch: list[int]) -> Found:
        with torch.inference_mode(), attending(base.model, attention.NAME):
            logits = read_stream(base.model, [rows[i] for i in batch], adapters, shortcuts.last)
            return answers_from(logits, [questions[i] for i in batch])

    yield from in_batches([len(row.ids) for row in rows], budget, "stream", compute)


def _behind(
    base: Base,
    prefixes: Sequence[Prefix],
    wave: Sequence[int],
    asked: Sequence[tuple[Question, int | None]],
    budget: int,
    adapters: Resident | None,
    shortcuts: Shortcuts,
) -> Iterator[Found]:
    """Questions behind prefixes whose keys and values fit into memory together."""
    kept: dict[int | None, Cached] = {}
    for generation in _generations(prefixes, wave):

        def keep(batch: list[int], generation: Sequence[int] = generation) -> list[tuple[int, Cached]]:
            chosen = [generation[place] for place in batch]
            pieces = [(prefixes[one].ids, kept.get(prefixes[one].parent)) for one in chosen]
            with torch.inference_mode(), attending(base.model, cached_attention.NAME):
                made = compute_prefixes(base.model, pieces, adapters, last=shortcuts.last)
            return list(zip(chosen, made, strict=True))

        sizes = [len(prefixes[one].ids) for one in generation]
        for made in in_batches(sizes, budget, "stream", keep, order=range(len(sizes))):
            kept.update(made)
    asked = sorted(asked, key=lambda pair: (pair[1], -len(pair[0].context)))
    rows = [row_of(question, kept[home].length) for question, home in asked]

    def compute(batch: list[int]) -> Found:
        before = [kept[asked[i][1]] for i in batch]
        with torch.inference_mode(), attending(base.model, cached_attention.NAME):
            chosen = [rows[i] for i in batch]
            logits, _ = read_behind(base.model, chosen, before, adapters, last=shortcuts.last)
            return answers_from(logits, [asked[i][0] for i in batch])

    lengths = [len(row.ids) for row in rows]
    yield from in_batches(lengths, budget, "stream", compute, order=range(len(rows)))


def _waves(prefixes: Sequence[Prefix], room: int) -> list[tuple[list[int], list[int]]]:
    """(prefixes whose questions are asked, those and all before them), as ``room`` tokens hold them.

    Prefixes come in the order of the trie, so few are computed for more than one wave.
    """
    waves: list[tuple[list[int], list[int]]] = []
    used = room
    for index in range(len(prefixes)):
        line = _line(prefixes, index)
        new = [one for one in line if one not in waves[-1][1]] if waves else line
        if used + sum(prefixes[one].stop for one in new) > room:
            waves.append(([], []))
            used, new = 0, line
        waves[-1][0].append(index)
        waves[-1][1].extend(new)
        used += sum(prefixes[one].stop for one in new)
    return waves


def _line(prefixes: Sequence[Prefix], index: int | None) -> list[int]:
    """A prefix and all before it, the first one first."""
    line: list[int] = []
    while index is not None:
        line.append(index)
        index = prefixes[index].parent
    return line[::-1]


def _generations(prefixes: Sequence[Prefix], wave: Sequence[int]) -> list[list[int]]:
    """The prefixes of a wave, those without a parent first, then their children, and so on."""
    depth: dict[int | None, int] = {None: -1}
    generations: list[list[int]] = []
    for index in sorted(wave):
        depth[index] = depth[prefixes[index].parent] + 1
        if depth[index] == len(generations):
            generations.append([])
        generations[depth[index]].append(index)
    for generation in generations:  # rows behind the same prefix stand together
        generation.sort(key=lambda index: (prefixes[index].parent or 0, index))
    return generations
