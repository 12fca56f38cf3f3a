"""What an item says beyond its task's template, and which training texts hold how much of that.

First texts as words, and the template that the texts of a task share (``find_template``, ``worded``,
``coverage``); then an index of the items' runs of words, searched exactly (``ItemIndex``), which
spares comparing every item with every text. What counts as contamination is decided in contamination.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain

import numpy as np
from numpy.typing import NDArray

Words = tuple[str, ...]
Phrases = Mapping[str, tuple[Words, ...]]  # by their first words
# The fixed words of a task: those before and after every text, and short phrases in between.
Template = tuple[Words, Words, Phrases]
NO_TEMPLATE: Template = ((), (), {})

RUN = 5  # words in a row that hardly two texts share by chance
FINE = 3  # words in a row that tell, in a text that is suspect already
_SHARED = 0.9  # share of a task's texts that a template's word stands in
_ENOUGH = 20  # texts below which only common beginnings and ends can be told from chance
# Symbols of arithmetic are words: 3 + 4 is another item than 3 - 4. Scripts without spaces go by character.
_WORD = re.compile(r"[぀-ヿ㐀-鿿가-힯]|[^\W_぀-ヿ㐀-鿿가-힯]+|(?<![-+*/=<>^%|#])[-+*/=<>^%](?![-+*/=<>^%|#])")
_SIZES = (3, 4, RUN)  # a field of three or four words is a run of its own
# A run that stands in more texts than these shares (and than a few) is a phrase of its task, not a copy.
_COMMON_ITEMS, _COMMON_TEXTS, _FEW = 0.05, 0.005, 5
_LOW_BITS = np.uint64(2**20 - 1)
_ODD = np.random.default_rng(20_011).integers(1, 2**63, size=(RUN + 1, RUN), dtype=np.uint64) * 2 + 1

Numbers = NDArray[np.uint64]
Counts = NDArray[np.int64]
Runs = tuple[
    Numbers, Counts, Counts
]  # hashes of an item's runs, their lengths, where they start; in order of start

_NONE = np.empty(0, dtype=np.int64)
_NO_RUNS: Runs = (np.empty(0, dtype=np.uint64), _NONE, _NONE)


@dataclass(frozen=True)
class Wording:
    """One text as words. fields: the runs of words that are not the template's, as (start, end)."""

    words: Words
    fields: tuple[tuple[int, int], ...]

    @property
    def size(self) -> int:
        """Words beyond the template."""
        return sum(end - start for start, end in self.fields)

    @property
    def content(self) -> Words:
        """The words beyond the template."""
        return tuple(chain.from_iterable(self.words[start:end] for start, end in self.fields))

    @property
    def longest(self) -> Words:
        """The longest field."""
        start, end = max(self.fields, key=lambda field: field[1] - field[0], default=(0, 0))
        return self.words[start:end]


def words_of(text: str) -> Words:
    """Words in lower case without punctuation, which differs between copies of one text.

    Unicode is normalised (NFKC) and case folded; symbols of arithmetic are words; scripts without spaces
    go by character.
    """
    return tuple(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


def find_template(texts: Sequence[Words]) -> Template:
    """The words that at least nine in ten texts of a task share.

    Head and tail are common beginnings and ends. The middle are phrases of one to three words that stand
    equally often in nine in ten texts, which words of ordinary language do not.
    """
    if len(texts) < 2:
        return NO_TEMPLATE
    head = _beginning(texts)
    tail = tuple(reversed(_beginning([text[len(head) :][::-1] for text in texts])))
    middle = _phrases(texts) if len(texts) >= _ENOUGH else frozenset()
    return head, tail, by_first_word(middle)


def worded(words: Words, template: Template) -> Wording:
    """A text whose fields are the maximal runs of words that are not the template's.

    words: of ``words_of``. A text that is all template has no field.
    """
    fixed_head, fixed_tail, phrases = template
    beyond = bytearray(b"\1" * len(words))
    head = _agreement(words, fixed_head)
    tail = min(_agreement(words[::-1], fixed_tail[::-1]), len(words) - head)
    beyond[:head] = bytes(head)
    beyond[len(words) - tail :] = bytes(tail)
    for phrase, start in _places(words, phrases):
        beyond[start : start + len(phrase)] = bytes(len(phrase))
    runs, end = [], 0
    while (start := beyond.find(1, end)) >= 0:
        end = beyond.find(0, start)
        end = len(beyond) if end < 0 else end
        runs.append((start, end))
    return Wording(words, tuple(runs))


def coverage(item: Wording, text: str) -> tuple[float, float]:
    """Share of an item's own words that stand in a text in runs of three, and the least share of a field.

    text: words joined by single spaces, with one before and behind. A field shorter than a run must stand
    there whole; fields below three words are left out of the second number.
    """
    covered, least = 0, 1.0
    for first, last in item.fields:
        words = item.words[first:last]
        run = min(FINE, len(words))
        reached = count = 0
        for start in range(len(words) - run + 1):
            if joined(words[start : start + run]) in text:
                count += start + run - max(start, reached)
                reached = start + run
        covered += count
        if len(words) >= FINE:
            least = min(least, count / len(words))
    return (covered / item.size if item.size else 0.0), least


def same_numbers(item: Wording, words: Iterable[str]) -> bool:
    """Whether a text has an item's numbers, but for one or a tenth: the same story with others is another.

    words: of the other text. Half of the numbers at least must be there, however few they are.
    """
    numbers = {word for word in item.content if word.isdigit()}
    missing = len(numbers - set(words))
    return missing <= max(1, len(numbers) // 10) and 2 * missing <= len(numbers)


def joined(words: Words) -> str:
    """Words as text that can be searched for whole words."""
    return f" {' '.join(words)} "


def _beginning(texts: Sequence[Words]) -> Words:
    """The longest beginning that nine in ten texts share."""
    shared: list[str] = []
    while True:
        counts = Counter(text[len(shared)] for text in texts if len(text) > len(shared))
        word, count = counts.most_common(1)[0] if counts else ("", 0)
        if count < _SHARED * len(texts):
            return tuple(shared)
        shared.append(word)


def _phrases(texts: Sequence[Words]) -> frozenset[Words]:
    """Phrases of one to three words that stand equally often in nine in ten texts."""
    first = Counter(
        phrase
        for text in texts[:_ENOUGH]
        for phrase in {text[at : at + size] for size in (1, 2, 3) for at in range(len(text) - size + 1)}
    )
    likely = {gram for gram, count in first.items() if count >= 0.7 * _ENOUGH}
    searched = by_first_word(likely)
    times: dict[Words, Counter[int]] = {gram: Counter() for gram in likely}
    for text in texts:
        for gram, count in Counter(gram for gram, _ in _places(text, searched)).items():
            times[gram][count] += 1
    least = _SHARED * len(texts)
    return frozenset(gram for gram, counts in times.items() if counts and max(counts.values()) >= least)


def by_first_word(phrases: Iterable[Words]) -> Phrases:
    """Phrases by their first words, so that a place in a text is held against few of them."""
    by_word: dict[str, tuple[Words, ...]] = {}
    for phrase in phrases:
        by_word[phrase[0]] = (*by_word.get(phrase[0], ()), phrase)
    return by_word


def _places(words: Words, phrases: Phrases) -> list[tuple[Words, int]]:
    """Every place where one of the phrases stands."""
    return [
        (phrase, start)
        for start, word in enumerate(words)
        if word in phrases
        for phrase in phrases[word]
        if len(phrase) == 1 or words[start : start + len(phrase)] == phrase
    ]


def _agreement(words: Words, other: Words) -> int:
    """Length of the common beginning."""
    if words[: len(other)] == other:
        return len(other)
    return next(place for place, word in enumerate(other) if words[place : place + 1] != (word,))


class _WordNumbers(dict[str, int]):
    """A 64-bit number for each word, the same in every process."""

    def __missing__(self, word: str) -> int:
        number = int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "little")
        self[word] = number
        return number


def _runs_of(item: Wording, numbers: _WordNumbers) -> Runs:
    """Every run of ``RUN`` words within a field, and whole fields of three or four; repeated ones once."""
    ids = np.array([numbers[word] for word in item.words], dtype=np.uint64)
    hashes, lengths, starts = [_NO_RUNS[0]], [_NONE], [_NONE]
    for start, end in item.fields:
        length = min(RUN, end - start)
        if length >= _SIZES[0]:
            hashes.append(_hash(ids[start:end], length))
            count = len(hashes[-1])
            lengths.append(np.full(count, length))
            starts.append(np.arange(start, start + count))
    joined_hashes = np.concatenate(hashes)
    first = np.sort(np.unique(joined_hashes, return_index=True)[1])
    return joined_hashes[first], np.concatenate(lengths)[first], np.concatenate(starts)[first]


def _hash(ids: Numbers, length: int) -> Numbers:
    """(N - length + 1,) a number for every run of ``length`` words; sums wrap around, as they may."""
    count = max(len(ids) - length + 1, 0)
    total = np.zeros(count, dtype=np.uint64)
    mixed = ids ^ (ids >> np.uint64(29))
    for place in range(length):
        total += mixed[place : place + count] * _ODD[length, place]
    return total


class ItemIndex:
    """Runs of words of many items, but for those that are common among the items of one target.

    hashes: (G,) sorted, each run once. lengths: (G,) words of each run. The places of run g are
    offsets[g]:offsets[g + 1] of items and starts: the items that have it, and where. sizes: (I,) words of
    each item beyond its template. numbers: of words.
    """

    def __init__(self, targets: Sequence[Sequence[Wording]], *, smallest: int) -> None:
        """Index the items of all targets, numbered one after the other; shorter ones have no runs.

        targets: the items of each target. smallest: words beyond the template from which an item has runs. A
        run that more than one in twenty items of a target have (and more than five) is a phrase of the task
        and left out.
        """
        self.numbers = _WordNumbers()
        telling: list[Runs] = []  # of each item the runs that tell it from the others of its target
        for items in targets:
            runs = [_runs_of(item, self.numbers) if item.size >= smallest else _NO_RUNS for item in items]
            values, times = np.unique(
                np.concatenate([_NO_RUNS[0], *(hashes for hashes, _, _ in runs)]), return_counts=True
            )
            common = values[times > max(_COMMON_ITEMS * len(runs), _FEW)]
            for hashes, lengths, starts in runs:
                rare = ~np.isin(hashes, common)
                telling.append((hashes[rare], lengths[rare], starts[rare]))
        every, lengths, starts = (np.concatenate(parts) for parts in zip(_NO_RUNS, *telling, strict=True))
        order = np.argsort(every, kind="stable")
        self.hashes, first, counts = np.unique(every[order], return_index=True, return_counts=True)
        self.lengths = lengths[order][first]
        self.offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.items = np.repeat(np.arange(len(telling)), [len(hashes) for hashes, _, _ in telling])[order]
        self.starts = starts[order]
        self.sizes = np.array([item.size for items in targets for item in items], dtype=np.int64)
        self.low_bits = np.zeros(int(_LOW_BITS) + 1, dtype=bool)  # spares most searches for other hashes
        self.low_bits[self.hashes & _LOW_BITS] = True

    def candidates(self, texts: Sequence[Words], *, least: float) -> Iterator[tuple[int, Counts]]:
        """Every item with the texts that hold a share ``least`` of its words in uncommon runs, best first.

        Runs that stand in many of the texts are common.
        """
        if not len(self.hashes) or not any(texts):
            return
        ids = np.array([self.numbers[word] for text in texts for word in text], dtype=np.uint64)
        owner = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
        hits = [self._hits(ids, owner, size) for size in _SIZES if np.any(self.lengths == size)]
        runs, where = (np.concatenate(parts) for parts in zip(*hits, strict=True))
        often = np.bincount(runs, minlength=len(self.hashes)) > max(_COMMON_TEXTS * len(texts), _FEW)
        item, text, covered = self._covered(runs[~often[runs]], where[~often[runs]])
        enough = covered >= least * self.sizes[item]
        item, text, covered = item[enough], text[enough], covered[enough]
        order = np.lexsort((text, -covered, item))
        item, text = item[order], text[order]
        cuts = np.flatnonzero(np.diff(item)) + 1
        for group, members in zip(np.split(item, cuts), np.split(text, cuts), strict=True):
            if len(group):
                yield int(group[0]), members

    def _hits(self, ids: Numbers, owner: Counts, length: int) -> tuple[Counts, Counts]:
        """(run, text) for every run of the index that stands in a text, each once."""
        made = _hash(ids, length)
        first, last = owner[: len(made)], owner[length - 1 :][: len(made)]
        likely = np.flatnonzero(self.low_bits[made & _LOW_BITS] & (first == last))
        made, first = made[likely], first[likely]
        place = np.minimum(np.searchsorted(self.hashes, made), len(self.hashes) - 1)
        hit = (self.hashes[place] == made) & (self.lengths[place] == length)
        texts = int(owner[-1]) + 1
        run, text = np.divmod(np.unique(place[hit] * texts + first[hit]), texts)
        return run, text

    def _covered(self, runs: Counts, where: Counts) -> tuple[Counts, Counts, Counts]:
        """(item, text, words of the item that the shared runs cover) for every pair that shares a run."""
        counts = self.offsets[runs + 1] - self.offsets[runs]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        place = np.repeat(self.offsets[runs], counts) + within
        item, start, text = self.items[place], self.starts[place], np.repeat(where, counts)
        end = start + np.repeat(self.lengths[runs], counts)
        order = np.lexsort((start, text, item))
        item, text, start, end = item[order], text[order], start[order], end[order]
        new = np.ones(len(item), dtype=bool)
        new[1:] = (item[1:] != item[:-1]) | (text[1:] != text[:-1])
        before = np.where(new, start, np.concatenate([[0], end[:-1]]))  # ends grow with starts within a pair
        words = end - np.maximum(start, before)
        firsts = np.flatnonzero(new)
        total = np.add.reduceat(words, firsts) if len(firsts) else _NONE
        return item[firsts], text[firsts], total
