"""Words, sentences and syllables of plain text, as every profile counts them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import blake2b

from traitmap.data.texts import TaskText

# A word with inner apostrophes, a number with separators, a run of underscores, a line break, one mark.
TOKEN = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*|\d+(?:[.,:]\d+)*|_+|\n|[^\w\s]|\d+")
WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*|\d+(?:[.,:]\d+)*")
SEGMENT_END = re.compile(r'[.!?;:]+(?=\s|$)|[\n"“”]+|(?<=\s)[-*•](?=\s)|<br */?>')
SENTENCE_END = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s|$)|\n+")
_VOWELS = re.compile(r"[aeiouyäöüáéíóúàèìòùâêîôûåæøœ]+")

# Closed classes of English: articles, prepositions, pronouns, auxiliaries, conjunctions, some adverbs.
_CLOSED = """
    a about after all also am an and any are as at be because been before being but by can could did do
    does each every for from had has have he her here his how i if in into is it its just may me might more
    most must my no nor not of off on one only or other our out over she should so some such than that the
    their them then there these they this those through to too under up us very was we were what when where
    which while who why will with would you your
"""
FUNCTION_WORDS: tuple[str, ...] = tuple(_CLOSED.split())
_FUNCTION = frozenset(FUNCTION_WORDS)


def joined(text: TaskText) -> str:
    """Input and output as one text, as a model learns it."""
    return f"{text.input}\n{text.output}" if text.input and text.output else text.input or text.output


def draw(texts: Sequence[TaskText], size: int, seed: int) -> tuple[TaskText, ...]:
    """At most ``size`` texts, the same ones in the same order however the texts are ordered.

    A text's place comes from a digest of its content and the seed, so that no order of rows matters.
    """
    key = seed.to_bytes(8, "little", signed=True)

    def place(text: TaskText) -> bytes:
        content = "\x1f".join((text.input, text.output, text.label or "", *text.choices))
        return blake2b(content.encode("utf-8", "surrogatepass"), digest_size=8, key=key).digest()

    return tuple(sorted(texts, key=place)[:size])


def content_words(text: str) -> list[str]:
    """Words and numbers in lower case without function words, in order."""
    return [word for word in WORD.findall(text.lower()) if word not in _FUNCTION]


def vocabulary(tokens: Iterable[Sequence[str]]) -> Counter[str]:
    """Counts of words and numbers, in lower case, of texts that TOKEN has parted."""
    found: Counter[str] = Counter()
    for token, count in Counter(token for text in tokens for token in text).items():
        if token[0].isalnum():
            found[token.lower()] += count
    return found


def sentence_count(text: str) -> int:
    """Stretches with a word in them, ended by a mark of closure, a line break or the text's end."""
    return sum(1 for piece in SENTENCE_END.split(text) if WORD.search(piece))


def syllables(word: str) -> int:
    """Syllables of an English word by its groups of vowels; a silent final e does not count.

    A rule, not a dictionary: right for about nine words of ten, which is enough for a mean.
    """
    lowered = word.lower()
    count = len(_VOWELS.findall(lowered))
    silent = lowered.endswith("e") and not lowered.endswith(("le", "ee", "ye", "oe"))
    past = lowered.endswith("ed") and not lowered.endswith(("ted", "ded", "eed"))
    if (silent or past) and count > 1:
        count -= 1
    return max(1, count)


def normalised(answer: str) -> str:
    """An answer for comparison: lower case, inner spaces single, outer marks gone."""
    return " ".join(answer.casefold().split()).strip(" .!,;:\"'“”()[]") or " ".join(answer.split())
