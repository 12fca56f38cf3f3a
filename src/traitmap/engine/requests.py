"""Log-likelihood requests made ready for passes: what is the same for every adapter, worked out once.

Requests with one context become a group: its context is computed once, its choices hang behind it as
branches. Contexts that begin alike are found as a trie, so that each beginning is computed once. All of it
follows from the requests alone and is kept between calls, since every adapter is asked the same.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from traitmap.data.records import Request, Response
from traitmap.engine.cpu.fast_decoder import Rectangles, plan_rectangles
from traitmap.engine.device import fetch, send
from traitmap.engine.passes import Row
from traitmap.errors import ModelError

Ids = tuple[int, ...]


@dataclass(frozen=True)
class ContextGroup:
    """A context with all continuations to be scored behind it: (index of the request, tokens) each."""

    context: Ids
    continuations: tuple[tuple[int, Ids], ...]


def context_groups(
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]], max_length: int, layout: str
) -> list[ContextGroup]:
    """Requests with the same context tokens are scored together; padded rows take one each.

    A context too long for the model loses its beginning, as lm-eval cuts it.
    """
    shared: dict[object, list[tuple[int, Ids]]] = {}
    heads: dict[object, Ids] = {}
    for index, (context, continuation) in enumerate(pairs):
        if not continuation or len(continuation) > max_length:
            raise ModelError(
                f"request {index}: its answer has {len(continuation)} tokens; legal: 1 to {max_length}, the "
                "model's length. `traitmap check` names the target and the answer."
            )
        head = tuple(context[-(max_length + 1 - len(continuation)) :])
        key = head if layout == "stream" else (head, index)
        heads[key] = head
        shared.setdefault(key, []).append((index, tuple(continuation)))
    return [ContextGroup(heads[key], tuple(continuations)) for key, continuations in shared.items()]


def row_of(group: ContextGroup, start: int = 0) -> Row:
    """The context from token ``start`` on as trunk, every continuation but its last token as a branch.

    A choice of one token adds no token: all choices read the trunk's last position, which is read once.
    """
    ids = list(group.context[start:])
    trunk = len(ids)
    branches = [0] * trunk
    for number, (_, continuation) in enumerate(group.continuations, start=1):
        ids += continuation[:-1]
        branches += [number] * (len(continuation) - 1)
    plain = len(group.continuations) == 1 or len(ids) == trunk
    # branch numbers without gaps: one-token choices have no tokens of their own
    numbered = np.unique(np.asarray(branches, dtype=np.int64), return_inverse=True)[1].astype(np.int64)
    return Row(
        ids=np.asarray(ids, dtype=np.int64),
        reads=np.arange(trunk - 1, len(ids), dtype=np.int64),
        branches=None if plain else numbered,
    )


@dataclass(frozen=True)
class ScoringIndex:
    """What is read off the logits of a pass: of continuation tokens, one behind the other, (T,) each.

    targets: the token; sources: the row of the logits that it is read from. starts: (C,) where each
    continuation begins; sizes: (C,) its tokens; requests: (C,) the request that it answers.
    """

    targets: NDArray[np.int64]
    sources: NDArray[np.int64]
    starts: NDArray[np.int64]
    sizes: list[int]
    requests: list[int]


def scoring_index(groups: Sequence[ContextGroup]) -> ScoringIndex:
    """The index where the reads of the groups' rows lie behind each other."""
    targets, sources, trunk_end = list[int](), list[int](), 0
    for group in groups:
        branch = trunk_end + 1
        for _, continuation in group.continuations:
            body = len(continuation) - 1
            targets += continuation
            sources += [trunk_end, *range(branch, branch + body)]
            branch += body
        trunk_end = branch
    continuations = [pair for group in groups for pair in group.continuations]
    sizes = [len(continuation) for _, continuation in continuations]
    return ScoringIndex(
        np.asarray(targets, dtype=np.int64),
        np.asarray(sources, dtype=np.int64),
        np.cumsum([0, *sizes[:-1]]),
        sizes,
        [request for request, _ in continuations],
    )


def answers_from(logits: torch.Tensor, index: ScoringIndex) -> list[tuple[int, Response]]:
    """Answers out of logits (P, V), with their requests. Log-likelihoods are sums over tokens, in nats.

    Waits for the device once.
    """
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    targets, sources = send(index.targets, logits.device), send(index.sources, logits.device)
    terms = wide[sources, targets] - wide.logsumexp(dim=1)[sources]
    hits = best_tokens(wide)[sources] == targets
    logprobs, greedy = fetch(torch.stack([terms.double(), hits.double()]))
    sums = np.add.reduceat(logprobs, index.starts).tolist()
    all_greedy = np.logical_and.reduceat(greedy > 0, index.starts).tolist()
    return [
        (request, Response(logprob=total, is_greedy=best, tokens=size))
        for request, total, best, size in zip(index.requests, sums, all_greedy, index.sizes, strict=True)
    ]


def best_tokens(logits: torch.Tensor) -> torch.Tensor:
    """(P,) the token of the highest logit in each row of (P, V), the first of equals."""
    if logits.device.type != "cpu":
        return logits.argmax(dim=-1)
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return torch.from_numpy(fetch(wide).argmax(axis=1))  # six times as fast as torch's on a CPU


@dataclass(frozen=True)
class Prefix:
    """Tokens ``start:stop`` of every sequence below it.

    ids: the tokens of this piece alone. parent: index of the prefix that ends at ``start``, or None where
    this one begins the sequence. A parent stands before its children.
    """

    ids: Ids
    start: int
    parent: int | None

    @property
    def stop(self) -> int:
        return self.start + len(self.ids)


def shared_prefixes(
    sequences: Sequence[Ids], *, shortest: int = 24, saved: int = 96
) -> tuple[list[Prefix], list[int | None]]:
    """Prefixes worth computing once, and for each sequence the longest of them that it begins with.

    shortest: tokens of a piece. saved: tokens that must be spared by computing it once, its length times
    the sequences beyond the first. A sequence may lie wholly inside its prefix.
    """
    order = sorted(range(len(sequences)), key=lambda index: sequences[index])
    prefixes: list[Prefix] = []
    homes: list[int | None] = [None] * len(sequences)
    open_ranges: list[tuple[int, int, int, int | None]] = [(0, len(order), 0, None)]
    while open_ranges:
        low, high, depth, parent = open_ranges.pop()
        if high - low < 2:
            continue
        # what the first and the last of a sorted range share, all between share
        first, last = sequences[order[low]], sequences[order[high - 1]]
        common, shorter = depth, min(len(first), len(last))
        while common < shorter and first[common] == last[common]:
            common += 1
        length = common - depth
        if length >= shortest and length * (high - low - 1) >= saved:
            prefixes.append(Prefix(first[depth:common], depth, parent))
            parent, depth = len(prefixes) - 1, common
            for place in range(low, high):
                homes[order[place]] = parent
        open_ranges += _children(sequences, order, low, high, common, depth, parent)
    return prefixes, homes


def _children(
    sequences: Sequence[Ids],
    order: Sequence[int],
    low: int,
    high: int,
    common: int,
    depth: int,
    parent: int | None,
) -> list[tuple[int, int, int, int | None]]:
    """Ranges of two or more sequences that go on alike after ``common``; ``depth`` is where pieces start."""
    ranges, begin = [], low
    while begin < high:
        token = sequences[order[begin]][common : common + 1]
        end = begin + 1
        while end < high and sequences[order[end]][common : common + 1] == token:
            end += 1
        if end - begin > 1 and token:
            ranges.append((begin, end, depth, parent))
        begin = end
    return ranges


class TokenizedRequests:
    """All groups of one call as rows of passes, and of each batch computed once what does not change.

    rows: (Q,) of the groups; the first ``alone`` stand by themselves, the others behind a prefix: in
    ``homes`` its index among ``prefixes``. shared: whether groups that begin alike get such prefixes.
    """

    def __init__(self, groups: Sequence[ContextGroup], *, shared: bool) -> None:
        # the last token of a context stays out: its own logits are read
        self.prefixes, homes = (
            shared_prefixes([q.context[:-1] for q in groups]) if shared else ([], [None] * len(groups))
        )
        pairs = list(zip(groups, homes, strict=True))
        alone = [(group, home) for group, home in pairs if home is None]
        behind = [(group, home) for group, home in pairs if home is not None]
        behind.sort(key=lambda pair: (pair[1], -len(pair[0].context)))
        self.alone, ordered = len(alone), [*alone, *behind]
        self.groups = [group for group, _ in ordered]
        self.homes = [home for _, home in ordered]
        self.rows = [row_of(q, 0 if home is None else self.prefixes[home].stop) for q, home in ordered]
        self.lengths = [len(row.ids) for row in self.rows]
        self._rectangles: dict[Ids, Rectangles] = {}
        self._indices: dict[Ids, ScoringIndex] = {}

    @property
    def tokens(self) -> int:
        """Tokens that are computed for one adapter."""
        return sum(self.lengths) + sum(len(prefix.ids) for prefix in self.prefixes)

    def rectangles(self, batch: Sequence[int]) -> Rectangles:
        """The fast CPU pass over rows of a batch by themselves."""
        key = tuple(batch)
        if key not in self._rectangles:
            self._rectangles[key] = plan_rectangles([self.rows[index] for index in batch])
        return self._rectangles[key]

    def index(self, batch: Sequence[int]) -> ScoringIndex:
        """What is read off the logits of a batch."""
        key = tuple(batch)
        if key not in self._indices:
            self._indices[key] = scoring_index([self.groups[index] for index in batch])
        return self._indices[key]


Value = TypeVar("Value")


class RequestCache:
    """Values by the content of the requests that they follow from; the oldest go first.

    capacity: the sum of sizes that is kept; 2**20 tokens of requests take some 100 MB.
    """

    def __init__(self, capacity: int = 2**20) -> None:
        self.capacity = capacity
        self.entries: list[tuple[Hashable, tuple[Request, ...], int, Any]] = []

    def get(
        self,
        settings: Hashable,
        requests: Sequence[Request],
        make: Callable[[], Value],
        size: Callable[[Value], int],
    ) -> Value:
        """What ``make`` gives for these requests under these settings; called where that is not kept."""
        key = tuple(requests)
        for known_settings, known, _, value in self.entries:
            if known_settings == settings and known == key:  # quick: the same objects are not looked into
                kept: Value = value
                return kept
        fresh = make()
        self.entries.append((settings, key, size(fresh), fresh))
        while self.entries and sum(entry[2] for entry in self.entries) > self.capacity:
            self.entries.pop(0)
        return fresh
