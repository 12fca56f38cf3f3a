"""Which items may stand in which training texts: an index of the items' runs of words, searched exactly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from math import ceil

import numpy as np
from numpy.typing import NDArray

from traitmap.analysis.overlap_text import RUN, Wording, Words

_SIZES = (3, 4, RUN)  # a field of three or four words is a run of its own
_COMMON = 0.05  # a run that stands in more of a target's items is their template or their subject
_ODD = np.random.default_rng(20_011).integers(1, 2**63, size=(RUN + 1, RUN), dtype=np.uint64) * 2 + 1

Numbers = NDArray[np.uint64]
Counts = NDArray[np.int64]


class _WordNumbers(dict[str, int]):
    """A 64-bit number for each word, the same in every process."""

    def __missing__(self, word: str) -> int:
        number = int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "little")
        self[word] = number
        return number


@dataclass(frozen=True)
class ItemIndex:
    """Runs of words of many items.

    hashes: (G,) sorted, each run once; the items of run g are items[starts[g]:starts[g + 1]].
    sizes: (G,) words of each run. needed: (I,) runs that an item must share to be covered at all.
    """

    hashes: Numbers
    sizes: Counts
    starts: Counts
    items: Counts
    needed: Counts
    numbers: _WordNumbers


def build_index(targets: Sequence[Sequence[Wording]], *, least: float, smallest: int) -> ItemIndex:
    """Index the items of all targets, numbered one after the other.

    least: share of an item's words that must be covered. Items below ``smallest`` words are left out.
    """
    numbers = _WordNumbers()
    hashes: list[Numbers] = []
    items: list[Counts] = []
    sizes: list[Counts] = []
    needed: list[int] = []
    for wordings in targets:
        runs = [_runs_of(one, numbers) if one.size >= smallest else _NONE for one in wordings]
        common = _common_runs([run.hashes for run in runs])
        for wording, run in zip(wordings, runs, strict=True):
            rare = ~np.isin(run.hashes, common)
            kept = np.unique(run.hashes[rare], return_index=True)
            hashes.append(kept[0])
            sizes.append(run.sizes[rare][kept[1]])
            items.append(np.full(len(kept[0]), len(needed)))
            reach = _reach(run, rare)
            needed.append(max(1, ceil((reach - (1 - least) * wording.size) / RUN)))
    return _sorted_index(hashes, sizes, items, needed, numbers)


def candidates(index: ItemIndex, texts: Sequence[Words]) -> Iterator[tuple[int, Counts]]:
    """Every item with the texts that share as many of its runs as a near-duplicate must, best first."""
    if not len(index.hashes) or not texts:
        return
    lengths = np.array([len(text) for text in texts])
    ids = np.array([index.numbers[word] for text in texts for word in text], dtype=np.uint64)
    owner = np.repeat(np.arange(len(texts)), lengths)
    found = [_hits(index, ids, owner, size) for size in _SIZES if np.any(index.sizes == size)]
    runs, where = (np.concatenate(parts) for parts in zip(*found, strict=True))
    counts = index.starts[runs + 1] - index.starts[runs]
    offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    item = index.items[np.repeat(index.starts[runs], counts) + offsets]
    pairs, shared = np.unique(item * len(texts) + np.repeat(where, counts), return_counts=True)
    item, text = np.divmod(pairs, len(texts))
    enough = shared >= index.needed[item]
    item, text, shared = item[enough], text[enough], shared[enough]
    order = np.lexsort((text, -shared, item))
    item, text = item[order], text[order]
    cuts = np.flatnonzero(np.diff(item)) + 1
    for group, members in zip(np.split(item, cuts), np.split(text, cuts), strict=True):
        if len(group):
            yield int(group[0]), members


@dataclass(frozen=True)
class _Runs:
    """Hashes, sizes and first words of an item's runs; reach: words of the item (template included)."""

    hashes: Numbers
    sizes: Counts
    starts: Counts


_EMPTY = np.empty(0, dtype=np.int64)
_NONE = _Runs(np.empty(0, dtype=np.uint64), _EMPTY, _EMPTY)


def _runs_of(item: Wording, numbers: _WordNumbers) -> _Runs:
    """Every run of ``RUN`` words within a field, and whole fields of three or four."""
    ids = np.array([numbers[word] for word in item.words], dtype=np.uint64)
    hashes, sizes, starts = [_NONE.hashes], [_EMPTY], [_EMPTY]
    for start, end in item.fields:
        size = min(RUN, end - start)
        if size >= _SIZES[0]:
            made = _hash(ids[start:end], size)
            hashes.append(made)
            sizes.append(np.full(len(made), size))
            starts.append(np.arange(start, start + len(made)))
    return _Runs(np.concatenate(hashes), np.concatenate(sizes), np.concatenate(starts))


def _hash(ids: Numbers, size: int) -> Numbers:
    """(N - size + 1,) a number for every run of ``size`` words; sums wrap around, as they may."""
    count = max(len(ids) - size + 1, 0)
    total = np.zeros(count, dtype=np.uint64)
    for place in range(size):
        total += (ids[place : place + count] ^ (ids[place : place + count] >> np.uint64(29))) * _ODD[
            size, place
        ]
    return total


def _common_runs(per_item: Sequence[Numbers]) -> Numbers:
    """Runs that stand in too many items of one target to tell one from another."""
    if not per_item:
        return _NONE.hashes
    values, counts = np.unique(np.concatenate([np.unique(one) for one in per_item]), return_counts=True)
    return values[counts > max(_COMMON * len(per_item), 5)]


def _reach(run: _Runs, rare: NDArray[np.bool_]) -> int:
    """Words of the item that its rare runs cover."""
    reached = total = 0
    for start, size in zip(run.starts[rare].tolist(), run.sizes[rare].tolist(), strict=True):
        total += start + size - max(start, reached)
        reached = start + size
    return total


def _sorted_index(
    hashes: Sequence[Numbers],
    sizes: Sequence[Counts],
    items: Sequence[Counts],
    needed: Sequence[int],
    numbers: _WordNumbers,
) -> ItemIndex:
    every = np.concatenate([_NONE.hashes, *hashes])
    order = np.argsort(every, kind="stable")
    unique, first, counts = np.unique(every[order], return_index=True, return_counts=True)
    return ItemIndex(
        hashes=unique,
        sizes=np.concatenate([_EMPTY, *sizes])[order][first],
        starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        items=np.concatenate([_EMPTY, *items])[order],
        needed=np.array(needed, dtype=np.int64),
        numbers=numbers,
    )


def _hits(index: ItemIndex, ids: Numbers, owner: Counts, size: int) -> tuple[Counts, Counts]:
    """(run, text) for every run of the index that stands in a text, each once."""
    made = _hash(ids, size)
    place = np.minimum(np.searchsorted(index.hashes, made), len(index.hashes) - 1)
    last = owner[size - 1 :][: len(made)]
    there = (index.hashes[place] == made) & (owner[: len(made)] == last) & (index.sizes[place] == size)
    texts = int(owner[-1]) + 1 if len(owner) else 1
    run, text = np.divmod(np.unique(place[there] * texts + owner[: len(made)][there]), texts)
    return run, text
