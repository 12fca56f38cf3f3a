"""Beginnings that many token sequences share, found as a trie, so that each is computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
