"""Log-likelihood requests as rows: a context once, its choices as branches behind it.

What follows from requests alone, kept between calls: every adapter is asked the same.

Beginnings that many token sequences share, found as a trie, so that each is computed once.

Log-likelihood requests made ready for passes: what every adapter is asked alike, worked out once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from traitmap.data.records import Answer, Request
from traitmap.engine.cpu.lean import Rectangles, plan_rectangles
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


Made = TypeVar("Made")
MOST = 2**20  # tokens of requests of which anything is kept: some 100 MB


@dataclass
class Kept:
    """Known by the requests' content, not by the object that they come in; the oldest go first.

    most: the sum of sizes that is kept.
    """

    most: int = MOST
    _found: list[tuple[Hashable, tuple[Request, ...], int, Any]] = field(default_factory=list)

    def of(
        self,
        settings: Hashable,
        requests: Sequence[Request],
        make: Callable[[], Made],
        size: Callable[[Made], int],
    ) -> Made:
        """What ``make`` gives for these requests under these settings; called where that is not kept."""
        asked = tuple(requests)
        for known, same, _, made in self._found:
            if known == settings and same == asked:  # quick: what is the same object is not looked into
                kept: Made = made
                return kept
        fresh = make()
        self._found.append((settings, asked, size(fresh), fresh))
        while self._found and sum(one[2] for one in self._found) > self.most:
            self._found.pop(0)
        return fresh


Ids = tuple[int, ...]


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
        first, last = sequences[order[low]], sequences[order[high - 1]]
        common = _common(first, last, depth)
        length = common - depth
        if length >= shortest and length * (high - low - 1) >= saved:
            prefixes.append(Prefix(first[depth:common], depth, parent))
            parent, depth = len(prefixes) - 1, common
            for place in range(low, high):
                homes[order[place]] = parent
        open_ranges += _children(sequences, order, low, high, common, depth, parent)
    return prefixes, homes


def _common(first: Ids, last: Ids, start: int) -> int:
    """Length of the shared beginning of the first and last of a sorted range, hence of all between."""
    stop = min(len(first), len(last))
    place = start
    while place < stop and first[place] == last[place]:
        place += 1
    return place


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


Batch = tuple[int, ...]


@dataclass(frozen=True)
class Batchable:
    """Questions as rows of passes, and of each batch that was computed once what does not change.

    homes: the prefix that each row stands behind, or None.
    """

    questions: tuple[Question, ...]
    rows: tuple[Row, ...]
    homes: tuple[int | None, ...]
    _rectangles: dict[Batch, Rectangles] = field(default_factory=dict)
    _wanted: dict[Batch, Wanted] = field(default_factory=dict)

    @cached_property
    def lengths(self) -> list[int]:
        return [len(row.ids) for row in self.rows]

    def rectangles(self, batch: Sequence[int]) -> Rectangles:
        """The pass over rows of a batch by themselves."""
        key = tuple(batch)
        if key not in self._rectangles:
            self._rectangles[key] = plan_rectangles([self.rows[index] for index in batch])
        return self._rectangles[key]

    def wanted(self, batch: Sequence[int]) -> Wanted:
        """What is read off the logits of a batch."""
        key = tuple(batch)
        if key not in self._wanted:
            self._wanted[key] = wanted_of([self.questions[index] for index in batch])
        return self._wanted[key]


@dataclass(frozen=True)
class Asked:
    """All questions of one call: those by themselves, those behind prefixes, and the prefixes."""

    alone: Batchable
    behind: Batchable
    prefixes: tuple[Prefix, ...]

    @property
    def tokens(self) -> int:
        return (
            sum(self.alone.lengths)
            + sum(self.behind.lengths)
            + sum(len(prefix.ids) for prefix in self.prefixes)
        )


def asked_of(questions: Sequence[Question], *, shared: bool) -> Asked:
    """Rows of all questions; shared: whether what many contexts begin with stands apart, as a prefix."""
    # the last token of a context stays out: its own logits are read
    heads = [question.context[:-1] for question in questions] if shared else []
    prefixes, homes = shared_prefixes(heads)
    homes = homes if shared else [None] * len(questions)
    alone = [question for question, home in zip(questions, homes, strict=True) if home is None]
    pairs = [(q, home) for q, home in zip(questions, homes, strict=True) if home is not None]
    pairs.sort(key=lambda pair: (pair[1], -len(pair[0].context)))
    return Asked(
        Batchable(tuple(alone), tuple(row_of(question) for question in alone), (None,) * len(alone)),
        Batchable(
            tuple(question for question, _ in pairs),
            tuple(row_of(question, prefixes[home].stop) for question, home in pairs),
            tuple(home for _, home in pairs),
        ),
        tuple(prefixes),
    )
