"""What form a dataset's questions and answers have: yes or no, an option, a span, a number, free text.

Rules of thumb by patterns and word lists of English; every share is one of texts, so that a rule that errs on
single texts still tells datasets apart.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike

from traitmap.analysis.profiles.style import SEGMENT_END, WORD, content_words, normalised
from traitmap.data.texts import TaskText

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
