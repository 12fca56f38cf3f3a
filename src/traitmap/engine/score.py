"""Log-likelihoods as lm-evaluation-harness defines them, each shared beginning computed once.

The choices of an item hang as branches behind its one context: a branch sees the context and itself.
A choice of one token adds no token at all, it is read from the context's own last distribution. What many
contexts begin with (the examples of a few-shot prompt) is computed once, and its keys and values serve all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

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
    read_rectangles,
    read_stream,
)
from traitmap.engine.cpu.lean import Lean
from traitmap.engine.lora import Resident
from traitmap.engine.passes import in_batches, read_logits
from traitmap.engine.requests import (
    Asked,
    Batchable,
    Continuation,
    Kept,
    Prefix,
    Question,
    answers_from,
    asked_of,
    questions_of,
)
from traitmap.engine.tokens import Encoder
from traitmap.progress import Listener, Progress

Found = list[tuple[int, Answer]]
_KEPT = 4  # keys and values of this many passes' tokens are kept at a time


@dataclass(frozen=True)
class Reader:
    """The base with an adapter at work, and the ways through it that are right.

    adapters: those that are hooked on, not merged. lean: None where that way is not right. budget: tokens
    computed in one pass. kept: what earlier calls with the same requests worked out.
    """

    base: Base
    encoder: Encoder
    adapters: Resident | None
    shortcuts: Shortcuts
    lean: Lean | None
    budget: int
    kept: Kept

    def asked(self, kind: str, requests: Sequence[Request]) -> Asked:
        base, shared = self.base, self.shortcuts.cached

        def make() -> Asked:
            pairs = self.encoder.continuations(requests)
            return asked_of(questions_of(pairs, base.max_length, base.layout), shared=shared)

        return self.kept.of((kind, base.layout, shared), requests, make, lambda asked: asked.tokens)


def loglikelihoods(reader: Reader, requests: Sequence[Request], listener: Listener) -> list[Answer]:
    """Answers to ``loglikelihood`` requests, in order."""
    answers: dict[int, Answer] = {}
    for found in _answered(reader, reader.asked("loglikelihood", requests)):
        answers.update(found)
        listener(Progress("evaluate", len(answers), len(requests)))
    return [answers[index] for index in range(len(requests))]


def rolling_loglikelihoods(reader: Reader, requests: Sequence[Request], listener: Listener) -> list[Answer]:
    """Answers to ``loglikelihood_rolling`` requests: whole texts in lm-eval's disjoint windows."""
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    base, encoder = reader.base, reader.encoder
    questions, owners = list[Question](), list[int]()
    for index, ids in enumerate(encoder.encode_all([request.context for request in requests])):
        windows = get_rolling_token_windows(ids, encoder.start, base.max_length, 1)
        for context, continuation in map(make_disjoint_window, windows):
            piece = Continuation(len(owners), tuple(continuation))
            questions.append(Question(tuple(context), (piece,)))
            owners.append(index)
    sums, tokens = np.zeros(len(requests)), np.zeros(len(requests), dtype=int)
    for found in _answered(reader, asked_of(questions, shared=reader.shortcuts.cached)):
        for window, answer in found:
            sums[owners[window]] += answer.logprob
            tokens[owners[window]] += answer.tokens
    listener(Progress("evaluate", len(requests), len(requests)))
    return [Answer(logprob=float(sums[i]), tokens=int(tokens[i])) for i in range(len(requests))]


def _answered(reader: Reader, asked: Asked) -> Iterator[Found]:
    """Answers of all questions, batch by batch, each with the number of its request."""
    yield from _alone(reader, asked.alone)
    for homes, needed in _waves(asked.prefixes, reader.budget * _KEPT):
        yield from _behind(reader, asked.prefixes, needed, asked.behind, homes)


def _alone(reader: Reader, rows: Batchable) -> Iterator[Found]:
    """Questions that share no beginning with others."""
    model, layout = reader.base.model, reader.base.layout

    def compute(batch: list[int]) -> Found:
        chosen = [rows.rows[index] for index in batch]
        with torch.inference_mode():
            if reader.lean is not None:
                logits = read_rectangles(reader.lean, rows.rectangles(batch))
            elif layout == "stream":
                with attending(model, attention.NAME):
                    logits = read_stream(model, chosen, reader.adapters, reader.shortcuts.last)
            else:
                logits = read_logits(model, layout, chosen, reader.adapters)
            return answers_from(logits, rows.wanted(batch))

    yield from in_batches(rows.lengths, reader.budget, layout, compute)


def _behind(
    reader: Reader, prefixes: Sequence[Prefix], wave: Sequence[int], rows: Batchable, homes: Sequence[int]
) -> Iterator[Found]:
    """Questions behind prefixes whose keys and values fit into memory together."""
    model, last, lean = reader.base.model, reader.shortcuts.last, reader.lean
    way = nullcontext if lean is not None else lambda: attending(model, cached_attention.NAME)
    kept: dict[int | None, Cached] = {}
    for generation in _generations(prefixes, wave):

        def keep(batch: list[int], generation: Sequence[int] = generation) -> list[tuple[int, Cached]]:
            chosen = [generation[place] for place in batch]
            pieces = [(prefixes[one].ids, kept.get(prefixes[one].parent)) for one in chosen]
            with torch.inference_mode(), way():
                made = compute_prefixes(model, pieces, reader.adapters, last=last, lean=lean)
            return list(zip(chosen, made, strict=True))

        sizes = [len(prefixes[one].ids) for one in generation]
        for made in in_batches(sizes, reader.budget, "stream", keep, order=range(len(sizes))):
            kept.update(made)

    def compute(batch: list[int]) -> Found:
        before, chosen = [kept[rows.homes[i]] for i in batch], [rows.rows[i] for i in batch]
        with torch.inference_mode(), way():
            logits, _ = read_behind(model, chosen, before, reader.adapters, last=last, lean=lean)
            return answers_from(logits, rows.wanted(batch))

    own = [index for index, home in enumerate(rows.homes) if home in set(homes)]
    yield from in_batches(rows.lengths, reader.budget, "stream", compute, order=own)


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
