"""The style of a dataset: function words, marks, casing, sentences, readability, richness of words.

First words, sentences and syllables of plain text, as every profile counts them; then the numbers of one
dataset (``style_of``); then datasets held against one another by z-scores and cosines (``style_matrix``).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from itertools import islice
from typing import Any

import numpy as np

from traitmap.data.texts import TaskText
from traitmap.matrix.record import Array

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
MARKS = (".", ",", ";", ":", "!", "?", "'", '"', "(", "-", "/", "=", "+", "$", "#", "<", "{", "*", "\n")
POS_TEXTS = 200  # texts that a parser tags, enough for shares within a few points
WINDOW = 50  # words of the moving type-token ratio
STREAM = 20_000  # words that it is measured on, at most: its error is then below a point

Style = Mapping[str, Mapping[str, float]]  # numbers of a dataset, by their group and then by their name


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
    """Words and numbers in lower case without function words, in order.

    text: any. Function words are those of FUNCTION_WORDS.
    """
    return [word for word in WORD.findall(text.lower()) if word not in _FUNCTION]


def vocabulary(tokens: Iterable[Sequence[str]]) -> Counter[str]:
    """Counts of words and numbers, in lower case, of texts that TOKEN has parted.

    tokens: what TOKEN finds in each text. Marks do not count.
    """
    counts: Counter[str] = Counter()
    for token, count in Counter(token for text in tokens for token in text).items():
        if token[0].isalnum():
            counts[token.lower()] += count
    return counts


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
    """An answer for comparison: lower case, inner spaces single, outer marks gone.

    An answer that is nothing but marks keeps them.
    """
    return " ".join(answer.casefold().split()).strip(" .!,;:\"'“”()[]") or " ".join(answer.split())


def style_of(
    texts: Sequence[str], tokens: Sequence[Sequence[str]] | None = None, parser: Any | None = None
) -> Style:
    """The style of texts, over input and output of each text together: group -> name -> number.

    Function words and casing are per 100 words; marks, numbers and parts of speech per 100 tokens (words,
    numbers and marks); lengths in letters or words; points of Flesch's scale; a ratio. NaN where a number
    cannot be had.
    tokens: what TOKEN finds in each text, where that is known already. parser: a spaCy pipeline with a
    tagger, for shares of parts of speech.
    """
    tokens = [TOKEN.findall(text) for text in texts] if tokens is None else tokens
    counts = Counter(token for text in tokens for token in text)
    words: Counter[str] = Counter()
    for token, count in counts.items():
        if token[0].isalpha():
            words[token] += count
    total = words.total()
    lower: Counter[str] = Counter()
    for token, count in words.items():
        lower[token.lower()] += count
    numbers: dict[str, dict[str, float]] = {
        "function words": {f"word {word}": _per_hundred(lower[word], total) for word in FUNCTION_WORDS},
        "marks": {
            f"mark {'line break' if mark == chr(10) else mark}": _per_hundred(counts[mark], counts.total())
            for mark in MARKS
        },
        "shape": _shape(texts, tokens, counts, words, lower),
    }
    if parser is not None:
        tags: Counter[str] = Counter()  # coarse where the pipeline gives that, else its own
        for document in parser.pipe(texts[:POS_TEXTS]):
            tags.update(token.pos_ or token.tag_ for token in document if not token.is_space)
        tags.pop("", None)
        numbers["parts of speech"] = {
            f"part {tag}": _per_hundred(tags[tag], tags.total()) for tag in sorted(tags)
        }
    return numbers


def readability(words: int, sentences: int, syllable_count: int) -> float:
    """Reading ease (Flesch, Journal of Applied Psychology 1948): 100 is easy, 0 hard; NaN without words.

    words, sentences, syllable_count: numbers of them in the whole text. English only.
    """
    if not words or not sentences:
        return float("nan")
    return 206.835 - 1.015 * words / sentences - 84.6 * syllable_count / words


def moving_type_token_ratio(words: Sequence[str], window: int = WINDOW) -> float:
    """Mean share of different words in every window of ``window`` words; NaN for fewer words than that.

    MATTR (Covington and McFall, Journal of Quantitative Linguistics 2010): the text's length plays no part.
    """
    if len(words) < window:
        return float("nan")
    in_window = Counter(words[:window])
    types = total = len(in_window)
    for leaving, entering in zip(words, words[window:], strict=False):
        in_window[leaving] -= 1
        types -= in_window[leaving] == 0
        types += in_window[entering] == 0
        in_window[entering] += 1
        total += types
    return total / (len(words) - window + 1) / window


def style_matrix(styles: Sequence[Style]) -> tuple[tuple[str, ...], Array]:
    """Names of all K numbers of any dataset and the (D, K) z-scores over the datasets compared.

    Groups weigh the same: each number is divided by the square root of its group's size. A number that is
    unknown for a dataset, or the same for all, is 0 (the mean): it says nothing of that dataset. Part of
    speech labels that a dataset lacks are 0 per 100 words.
    """
    names = {name: group for style in styles for group, numbers in style.items() for name in numbers}
    ordered = sorted(names)
    table = np.full((len(styles), len(ordered)), np.nan)
    for row, style in enumerate(styles):
        for column, name in enumerate(ordered):
            absent = 0.0 if names[name] == "parts of speech" else np.nan
            table[row, column] = style.get(names[name], {}).get(name, absent)
    sizes = Counter(names.values())
    weights = np.array([sizes[names[name]] for name in ordered], dtype=float) ** -0.5
    return tuple(ordered), standard_scores(table) * weights


def standard_scores(table: Array) -> Array:
    """(D, K) columns as z-scores over the known rows; 0 where unknown or without spread.

    table: (D, K), NaN where unknown. The standard deviation divides by the number of known rows.
    """
    known = np.isfinite(table)
    count = np.maximum(known.sum(axis=0), 1)
    filled = np.where(known, table, 0.0)
    center = filled.sum(axis=0) / count
    apart = np.where(known, table - center, 0.0)
    spread = np.sqrt((apart**2).sum(axis=0) / count)
    flat = spread <= 1e-9 * np.maximum(np.abs(center), 1e-3)
    return np.where(flat, 0.0, apart / np.where(flat, 1.0, spread))


def cosine_matrix(rows: Array) -> Array:
    """(D, D) cosines of the rows of (D, K), clipped to [-1, 1]; NaN where a row has no length."""
    lengths = np.linalg.norm(rows, axis=1)
    product = lengths[:, None] * lengths[None, :]
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = np.where(product > 1e-12, rows @ rows.T / product, np.nan)
    return np.clip(cosine, -1.0, 1.0)


def _shape(
    texts: Sequence[str],
    tokens: Sequence[Sequence[str]],
    counts: Counter[str],
    words: Counter[str],
    lower: Counter[str],
) -> dict[str, float]:
    """Lengths of words and sentences, casing, digits, readability, richness."""
    total = words.total()
    sentences = sum(sentence_count(text) for text in texts)
    letters = sum(len(word) * count for word, count in words.items())
    # A text that comes back would stand beside itself in the stream and make any dataset look poor.
    once = dict(zip(texts, tokens, strict=True)).values()
    stream = list(islice((token.lower() for text in once for token in text if token[0].isalpha()), STREAM))
    per_text = np.array([sum(token[0].isalpha() for token in text) for text in tokens], dtype=float)
    characters = sum(len(text) for text in texts)
    return {
        "letters per word": _ratio(letters, total),
        "words per sentence": _ratio(total, sentences),
        "words per text (log)": float(np.log1p(per_text).mean()) if len(per_text) else float("nan"),
        "long words": _per_hundred(_sum(words, lambda word: len(word) > 6), total),
        "capitalised words": _per_hundred(_sum(words, lambda word: word[:1].isupper()), total),
        "words in capitals": _per_hundred(_sum(words, lambda word: len(word) > 1 and word.isupper()), total),
        "numbers": _per_hundred(_sum(counts, lambda token: token[0].isdigit()), counts.total()),
        "reading ease": readability(
            total, sentences, sum(syllables(word) * count for word, count in lower.items())
        ),
        "type-token ratio": moving_type_token_ratio(stream),
        "characters beyond ASCII": _per_hundred(
            sum(sum(ord(character) > 127 for character in text) for text in texts if not text.isascii()),
            characters,
        ),
    }


def _sum(counts: Counter[str], holds: Any) -> int:
    return sum(count for token, count in counts.items() if holds(token))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")


def _per_hundred(part: float, whole: float) -> float:
    return 100.0 * part / whole if whole else float("nan")
