"""What an item says beyond its task's template, and how much of that stands in a training text."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

Words = tuple[str, ...]
Phrases = Mapping[str, tuple[Words, ...]]  # by their first words

RUN = 5  # words in a row that hardly two texts share by chance
FINE = 3  # words in a row that tell, in a text that is suspect already
_SHARED = 0.9  # share of a task's texts that a template's word stands in
_ENOUGH = 20  # texts below which only common beginnings and ends can be told from chance
# Symbols of arithmetic are words: 3 + 4 is another item than 3 - 4. Scripts without spaces go by character.
_WORD = re.compile(r"[぀-ヿ㐀-鿿가-힯]|[^\W_぀-ヿ㐀-鿿가-힯]+|(?<![-+*/=<>^%|#])[-+*/=<>^%](?![-+*/=<>^%|#])")


@dataclass(frozen=True)
class Template:
    """The fixed words of a task: those before and after every text, and short phrases in between."""

    head: Words = ()
    tail: Words = ()
    middle: frozenset[Words] = frozenset()

    @cached_property
    def phrases(self) -> Phrases:
        """The phrases in between by their first words."""
        return _by_first_word(self.middle)


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
    """Words in lower case without punctuation, which differs between copies of one text."""
    return tuple(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


def find_template(texts: Sequence[Words]) -> Template:
    """The words that at least nine in ten texts of a task share.

    Head and tail are common beginnings and ends. The middle are phrases of one to three words that stand
    equally often in nine in ten texts, which words of ordinary language do not.
    """
    if len(texts) < 2:
        return Template()
    head = _beginning(texts)
    tail = tuple(reversed(_beginning([text[len(head) :][::-1] for text in texts])))
    middle = _phrases(texts) if len(texts) >= _ENOUGH else frozenset()
    return Template(head, tail, middle)


def worded(words: Words, template: Template) -> Wording:
    """A text with its template's words marked."""
    own = bytearray(b"\1" * len(words))
    head = _agreement(words, template.head)
    tail = min(_common_end(words, template.tail), len(words) - head)
    own[:head] = bytes(head)
    own[len(words) - tail :] = bytes(tail)
    for phrase, start in _found(words, template.phrases):
        own[start : start + len(phrase)] = bytes(len(phrase))
    return Wording(words, tuple(_runs(own)))


def coverage(item: Wording, text: str) -> tuple[float, float]:
    """Share of an item's own words that stand in a text in runs of three, and the least share of a field.

    text: words joined by single spaces, with one before and behind. A field shorter than a run must stand
    there whole; fields below three words are left out of the second number.
    """
    covered, least = 0, 1.0
    for start, end in item.fields:
        found = _covered(item.words[start:end], text)
        covered += found
        if end - start >= FINE:
            least = min(least, found / (end - start))
    return (covered / item.size if item.size else 0.0), least


def same_numbers(item: Wording, words: Iterable[str]) -> bool:
    """Whether a text has an item's numbers, but for one or a tenth: the same story with others is another."""
    numbers = {word for word in item.content if word.isdigit()}
    missing = len(numbers - set(words))
    return missing <= max(1, len(numbers) // 10) and 2 * missing <= len(numbers)


def joined(words: Words) -> str:
    """Words as text that can be searched for whole words."""
    return f" {' '.join(words)} "


def _covered(words: Words, text: str) -> int:
    """How many words stand in the text in runs of ``FINE`` (or all, where there are fewer)."""
    run = min(FINE, len(words))
    reached = count = 0
    for start in range(len(words) - run + 1):
        if joined(words[start : start + run]) in text:
            count += start + run - max(start, reached)
            reached = start + run
    return count


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
    first = Counter(gram for text in texts[:_ENOUGH] for gram in set(_grams(text)))
    likely = {gram for gram, count in first.items() if count >= 0.7 * _ENOUGH}
    searched = _by_first_word(likely)
    times: dict[Words, Counter[int]] = {gram: Counter() for gram in likely}
    for text in texts:
        for gram, count in Counter(gram for gram, _ in _found(text, searched)).items():
            times[gram][count] += 1
    least = _SHARED * len(texts)
    return frozenset(gram for gram, counts in times.items() if counts and max(counts.values()) >= least)


def _grams(words: Words) -> Iterable[Words]:
    return (words[start : start + length] for length in (1, 2, 3) for start in range(len(words) - length + 1))


def _by_first_word(phrases: Iterable[Words]) -> Phrases:
    found: dict[str, tuple[Words, ...]] = {}
    for phrase in phrases:
        found[phrase[0]] = (*found.get(phrase[0], ()), phrase)
    return found


def _found(words: Words, phrases: Phrases) -> list[tuple[Words, int]]:
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
    return next(place for place, one in enumerate(other) if words[place : place + 1] != (one,))


def _common_end(words: Words, other: Words) -> int:
    """Length of the common end."""
    return len(other) if words[-len(other) :] == other else _agreement(words[::-1], other[::-1])


def _runs(own: bytearray) -> Iterable[tuple[int, int]]:
    """Maximal runs of ones."""
    end = 0
    while (start := own.find(1, end)) >= 0:
        end = own.find(0, start)
        end = len(own) if end < 0 else end
        yield start, end
