"""The style of a dataset, and the form of its questions and answers.

First words, sentences and syllables of plain text, as every profile counts them. Style: function words,
marks, casing, sentences, readability and richness of words of one dataset (``style_of``), and datasets held
against one another by z-scores and cosines (``style_matrix``). Form: yes or no, an option, a span, a
number, free text (``forms_of``), by patterns and word lists of English; every share is one of texts, so
that a rule that errs on single texts still tells datasets apart.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import combinations, islice
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

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


ANSWER_FORMS = ("polar", "option", "number", "class", "listed", "span", "short", "long", "unknown")
QUESTION_FORMS = ("polar", "wh", "question", "blank", "options", "unfinished", "statement", "none")
MARKERS = ("digits", "code", "line_breaks", "latex", "steps", "quotes", "bullets", "blank", "markup")

SHORT_ANSWER = 5  # words up to which an answer of its own is short
MOST_SEGMENTS = 12  # the last ones of a text, within which segments are held against each other

_POLAR = frozenset({"yes", "no", "true", "false", "correct", "incorrect", "right", "wrong", "y", "n"})
_NUMBER = re.compile(r"[-+]?[$€£]?\d[\d.,]*\s?%?")
_OPTION = re.compile(r"\(?(?:[a-h]|[ivx]{1,4}|\w+ (?:\d|[a-h])|\d)[).:]?", re.IGNORECASE)
_WH = frozenset({"who", "whom", "whose", "what", "which", "when", "where", "why", "how"})
_AUXILIARIES = """
    is are was were am be do does did can could will would shall should may might must has have had isn't
    aren't doesn't don't didn't can't won't
"""
_AUXILIARY = frozenset(_AUXILIARIES.split())
_QUESTION = re.compile(r"[^.!?\n]*\?")
_CUE = re.compile(r"\b(?:yes or no|yes/no|true or false|yes, no|true, false)\b", re.IGNORECASE)
_BLANK = re.compile(r"(?<![\w_])_+(?![\w_])")
_LISTED = re.compile(r"(?:^|\n|\s)(?:[-*•]\s|\(?[A-Ha-h1-8][).:]\s)")
_MARKER_PATTERNS: Mapping[str, re.Pattern[str]] = {
    "digits": re.compile(r"\d"),
    "code": re.compile(
        r"```|\bdef \w+\(|\breturn\b.*[;\n]|[{};]\s*\n|^import \w+|#include|\b\w+\([^)\n]*\)[;:]|=="
        r"|\bSELECT\b",
        re.MULTILINE,
    ),
    "line_breaks": re.compile(r"\S\s*\n\s*\S"),
    "latex": re.compile(r"\$[^$\n]+\$|\\(?:frac|boxed|sqrt|cdot|times|text|left|begin)\b|\\\(|\\\["),
    "steps": re.compile(r"####|<<[^>\n]*>>|\bstep \d|\bstep by step\b", re.IGNORECASE),
    "quotes": re.compile(r'["“”]'),
    "bullets": _LISTED,
    "blank": _BLANK,
    "markup": re.compile(r"<\w+[^>\n]*>|\[\w+\]"),
}


@dataclass(frozen=True)
class Forms:
    """Shares of a dataset's texts, all from 0 to 1.

    texts: texts read (a sample where there are more). answers, questions: share of each form; the forms
        exclude each other and add up to 1. ``class`` is a recurring word that is neither polar nor the
        mark of an option; ``number`` any other number; ``listed`` one of the item's own choices that
        stands in the input; ``span`` any other text of the input.
    input_markers, output_markers: share of texts with each mark of format.
    copied: mean share of the output's words that the input has, NaN without outputs.
    choices: mean number of choices, over items with choices; chosen: share of items with choices.
    pair: mean over items of the largest overlap (Jaccard of content words) between two segments of the
        input: near 1 for paraphrases. contained: mean share of the last segment's content words that the
        rest of the input has: high where a hypothesis or question follows its passage.
    segments: mean number of segments of an input.
    """

    texts: int
    answers: Mapping[str, float]
    questions: Mapping[str, float]
    input_markers: Mapping[str, float]
    output_markers: Mapping[str, float]
    copied: float
    choices: float
    chosen: float
    pair: float
    contained: float
    segments: float


def forms_of(texts: Sequence[TaskText], class_words: frozenset[str]) -> Forms:
    """The forms of texts: shares from 0 to 1, NaN where there is nothing to count.

    class_words: answers that are classes, of ``recurring_words``.
    """
    structures = np.array([_structure(text.input) for text in texts]).reshape(-1, 3)
    counts = [len(text.choices) for text in texts if text.choices]
    known = [text for text in texts if text.output.strip()]
    return Forms(
        texts=len(texts),
        answers=_shares((answer_form(text, class_words) for text in texts), ANSWER_FORMS, len(texts)),
        questions=_shares((question_form(text.input) for text in texts), QUESTION_FORMS, len(texts)),
        input_markers=marker_shares([text.input for text in texts]),
        output_markers=marker_shares([text.output for text in known]),
        copied=_mean([copied_share(text) for text in known]),
        choices=_mean(counts),
        chosen=len(counts) / len(texts) if texts else float("nan"),
        pair=_mean(structures[:, 0]),
        contained=_mean(structures[:, 1]),
        segments=_mean(structures[:, 2]),
    )


def recurring_words(texts: Sequence[TaskText], items: Sequence[object | None]) -> frozenset[str]:
    """Short answers, in comparable form, of the texts that have a class (``items`` of ``item_classes``).

    texts, items: in the same order. Short is up to five words.
    """
    return frozenset(
        normalised(text.output)
        for text, item in zip(texts, items, strict=True)
        if item is not None and text.output and len(WORD.findall(text.output)) <= SHORT_ANSWER
    )


def answer_form(text: TaskText, class_words: frozenset[str]) -> str:
    """One of ANSWER_FORMS, the first that holds in this order: polar, option, class, number, listed, span.

    class_words: of ``recurring_words``. An answer that is none of these is ``short`` up to five words, else
    ``long``; a text without an output is ``unknown``.
    """
    answer = text.output.strip()
    comparable = normalised(answer)
    if not answer:
        return "unknown"
    # a lone "y" or "n" is the mark of an option where the choices are not polar themselves
    polar_choices = all(normalised(choice) in _POLAR for choice in text.choices)
    if comparable in _POLAR and (len(comparable) > 1 or polar_choices):
        return "polar"
    if text.choices and all(_marks_option(choice.strip(), text.input) for choice in text.choices):
        return "option"
    if comparable in class_words:
        return "class"
    if _NUMBER.fullmatch(answer.rstrip(".")):
        return "number"
    if comparable and comparable in " ".join(text.input.casefold().split()):
        return "listed" if text.choices else "span"
    return "short" if len(answer.split()) <= SHORT_ANSWER else "long"


def question_form(text: str) -> str:
    """One of QUESTION_FORMS, by the last question of the text or, without one, by how it ends.

    In this order: none (no text), polar by a cue, blank, wh, polar, question, options, statement,
    unfinished.
    """
    stripped = text.strip()
    if not stripped:
        return "none"
    questions = _QUESTION.findall(stripped)
    if _CUE.search(stripped):
        return "polar"
    if _BLANK.search(stripped):
        return "blank"
    if questions:
        words = WORD.findall(questions[-1].lower())
        if _WH & set(words[:4] + words[-2:]):
            return "wh"
        return "polar" if _AUXILIARY & set(words[:3]) else "question"
    if len(_LISTED.findall(stripped)) > 1:
        return "options"
    return "statement" if stripped[-1] in '.!"”’)…' else "unfinished"


def copied_share(text: TaskText) -> float:
    """Share of the output's words that stand in the input; NaN where the output has no words.

    Words in lower case; every occurrence in the output counts.
    """
    words = WORD.findall(text.output.lower())
    if not words:
        return float("nan")
    input_words = set(WORD.findall(text.input.lower()))
    return sum(word in input_words for word in words) / len(words)


def marker_shares(texts: Sequence[str]) -> Mapping[str, float]:
    """Share of texts with each of MARKERS; NaN without texts."""
    if not texts:
        return MappingProxyType(dict.fromkeys(MARKERS, float("nan")))
    return MappingProxyType(
        {
            name: sum(1 for text in texts if pattern.search(text)) / len(texts)
            for name, pattern in _MARKER_PATTERNS.items()
        }
    )


def _structure(text: str) -> tuple[float, float, float]:
    """Largest overlap of two segments, share of the last one in the others, number of segments."""
    pieces = [set(content_words(piece)) for piece in SEGMENT_END.split(text)]
    pieces = [piece for piece in pieces if len(piece) >= 2]
    if len(pieces) < 2:
        return 0.0, 0.0, float(len(pieces))
    last = pieces[-MOST_SEGMENTS:]
    pair = max(len(a & b) / len(a | b) for a, b in combinations(last, 2))
    earlier = set().union(*pieces[:-1])
    return pair, len(pieces[-1] & earlier) / len(pieces[-1]), float(len(pieces))


def _marks_option(choice: str, text: str) -> bool:
    """Whether a choice is the mark of an option that the input lists ("B", "Ending 2"), not an answer."""
    if not _OPTION.fullmatch(choice):
        return False
    return re.search(rf"(?<!\w){re.escape(choice.strip('().: '))}(?!\w)", text, re.IGNORECASE) is not None


def _shares(forms: Iterable[str], names: Sequence[str], total: int) -> Mapping[str, float]:
    counts = Counter(forms)
    return MappingProxyType({name: counts[name] / total if total else float("nan") for name in names})


def _mean(values: ArrayLike) -> float:
    array = np.asarray(values, dtype=float)
    array = array[np.isfinite(array)]
    return float(array.mean()) if len(array) else float("nan")
