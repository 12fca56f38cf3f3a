"""Log-likelihoods as lm-evaluation-harness defines them, each shared beginning computed once.

The choices of an item hang as branches behind its one context: a branch sees the context and itself.
A choice of one token adds no token at all, it is read from the context's own last distribution. What many
contexts begin with (the examples of a few-shot prompt) is computed once, and its keys and values serve all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from traitmap.data.records import Request, Response
from traitmap.engine import cached_attention
from traitmap.engine.attention import attending, layout_attention
from traitmap.engine.base import ActiveModel
from traitmap.engine.cached_attention import Cached
from traitmap.engine.cpu.fast_decoder import Rectangles, plan_rectangles
from traitmap.engine.forward_paths import ForwardPaths, compute_prefixes, read_behind, read_rectangles
from traitmap.engine.passes import Row, in_batches, on_each_side, read_logits, read_stream
from traitmap.engine.requests import ContextGroup, Prefix, TokenizedRequests, answers_from, context_groups
from traitmap.progress import Listener, Progress

NumberedAnswers = list[tuple[int, Response]]


def loglikelihoods(active: ActiveModel, requests: Sequence[Request], listener: Listener) -> list[Response]:
    """Answers to ``loglikelihood`` requests, in order."""
    if active.base.switch is not None:
        pairs = active.encoder.continuations(requests)
        active = _on_both_sides(active, max(len(context) + len(choice) - 1 for context, choice in pairs))
    base, shared = active.base, active.paths.cached

    def tokenize() -> TokenizedRequests:
        pairs = active.encoder.continuations(requests)
        return TokenizedRequests(context_groups(pairs, base.max_length, base.layout), shared=shared)

    key = "loglikelihood", base.layout, shared
    tokenized = active.cache.get(key, requests, tokenize, lambda tokenized: tokenized.tokens)
    answers: dict[int, Response] = {}
    for batch in _answered(active, tokenized):
        answers.update(batch)
        listener(Progress("evaluate", len(answers), len(requests)))
    return [answers[index] for index in range(len(requests))]


def rolling_loglikelihoods(
    active: ActiveModel, requests: Sequence[Request], listener: Listener
) -> list[Response]:
    """Answers to ``loglikelihood_rolling`` requests: whole texts in lm-eval's disjoint windows."""
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    encoder = active.encoder
    groups, owners = list[ContextGroup](), list[int]()
    for index, ids in enumerate(encoder.encode_all([request.context for request in requests])):
        windows = get_rolling_token_windows(ids, encoder.start, active.base.max_length, 1)
        for context, continuation in map(make_disjoint_window, windows):
            groups.append(ContextGroup(tuple(context), ((len(owners), tuple(continuation)),)))
            owners.append(index)
    longest = max((len(group.context) for group in groups), default=0)
    longest += max((len(ids) - 1 for group in groups for _, ids in group.continuations), default=0)
    active = _on_both_sides(active, longest)
    sums, tokens = np.zeros(len(requests)), np.zeros(len(requests), dtype=int)
    for batch in _answered(active, TokenizedRequests(groups, shared=active.paths.cached)):
        for window, answer in batch:
            sums[owners[window]] += answer.logprob
            tokens[owners[window]] += answer.tokens
    listener(Progress("evaluate", len(requests), len(requests)))
    return [Response(logprob=float(sums[i]), tokens=int(tokens[i])) for i in range(len(requests))]


def _on_both_sides(active: ActiveModel, longest: int) -> ActiveModel:
    """The model for rows on both sides of a switch of positions: one row for every choice, and nothing that
    rows share is computed once."""
    switch = active.base.switch
    if switch is None or longest <= switch:
        return active
    layout = "padded" if active.base.layout == "stream" else active.base.layout
    return replace(active, base=replace(active.base, layout=layout), paths=ForwardPaths(), fast=None)


def _answered(active: ActiveModel, tokenized: TokenizedRequests) -> Iterator[NumberedAnswers]:
    """Answers of all groups, batch by batch: those by themselves, then those behind prefixes."""
    layout, rows = active.base.layout, tokenized.rows

    def compute(batch: list[int]) -> NumberedAnswers:
        with torch.inference_mode():
            plan = None if active.fast is None else tokenized.rectangles(batch)
            logits = logits_of(active, [rows[index] for index in batch], plan)
            return answers_from(logits, tokenized.index(batch))

    lengths = tokenized.lengths[: tokenized.alone]
    for order in [None] if active.base.switch is None else on_each_side(lengths, active.base.switch):
        yield from in_batches(lengths, active.pass_tokens, layout, compute, order=order)
    for homes, needed in _waves(tokenized.prefixes, active.prefix_tokens):
        yield from _behind(active, tokenized, homes, needed)


def logits_of(active: ActiveModel, rows: Sequence[Row], plan: Rectangles | None = None) -> torch.Tensor:
    """(P', V) logits at the reads of rows that stand by themselves, by the fastest valid way; behind them
    there may be some that mean nothing. plan: of these rows on the fast CPU pass, where it is known."""
    model, layout = active.base.model, active.base.layout
    if active.fast is not None:
        return read_rectangles(active.fast, plan or plan_rectangles(rows))
    with layout_attention(model, layout, active.base.kernels.attention):
        if layout == "stream":
            return read_stream(model, rows, active.adapters, active.paths.last_mlp)
        return read_logits(model, layout, rows, active.adapters)


def _behind(
    active: ActiveModel, tokenized: TokenizedRequests, homes: Sequence[int], needed: Sequence[int]
) -> Iterator[NumberedAnswers]:
    """Answers behind the prefixes ``homes``, of which with their ancestors (``needed``) memory holds all."""
    model, rows, prefixes = active.base.model, tokenized.rows, tokenized.prefixes
    options: dict[str, Any] = {"last_mlp": active.paths.last_mlp, "fast": active.fast}
    computed: dict[int | None, Cached] = {}

    def attention_in_use() -> AbstractContextManager[None]:
        return nullcontext() if active.fast is not None else attending(model, cached_attention.NAME)

    def compute_generation(batch: list[int]) -> list[tuple[int, Cached]]:
        pieces = [(prefixes[index].ids, computed.get(prefixes[index].parent)) for index in batch]
        with torch.inference_mode(), attention_in_use():
            return list(zip(batch, compute_prefixes(model, pieces, active.adapters, **options), strict=True))

    def compute(batch: list[int]) -> NumberedAnswers:
        before, batch_rows = [computed[tokenized.homes[i]] for i in batch], [rows[i] for i in batch]
        with torch.inference_mode(), attention_in_use():
            logits, _ = read_behind(model, batch_rows, before, active.adapters, **options)
            return answers_from(logits, tokenized.index(batch))

    sizes = [len(prefix.ids) for prefix in prefixes]
    for generation in _generations(prefixes, needed):
        for batch in in_batches(sizes, active.pass_tokens, "stream", compute_generation, order=generation):
            computed.update(batch)
    members = [index for index, home in enumerate(tokenized.homes) if home in set(homes)]
    yield from in_batches(tokenized.lengths, active.pass_tokens, "stream", compute, order=members)


def _waves(prefixes: Sequence[Prefix], room: int) -> list[tuple[list[int], list[int]]]:
    """(prefixes whose groups are asked, those and all before them), as ``room`` tokens hold them.

    Prefixes come in the order of the trie, so few are computed for more than one wave.
    """
    waves: list[tuple[list[int], list[int]]] = []
    used = room
    for index in range(len(prefixes)):
        ancestors = list[int]()
        ancestor: int | None = index
        while ancestor is not None:
            ancestors.insert(0, ancestor)
            ancestor = prefixes[ancestor].parent
        new = [member for member in ancestors if member not in waves[-1][1]] if waves else ancestors
        if used + sum(prefixes[member].stop for member in new) > room:
            waves.append(([], []))
            used, new = 0, ancestors
        waves[-1][0].append(index)
        waves[-1][1].extend(new)
        used += sum(prefixes[member].stop for member in new)
    return waves


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
