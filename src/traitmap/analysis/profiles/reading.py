"""One dataset read once: what its profile and its pairs with other datasets are made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from traitmap.analysis.profiles.classes import Classes, class_table, item_classes
from traitmap.analysis.profiles.forms import Forms, forms_of, recurring_words
from traitmap.analysis.profiles.lengths import Lengths, Measured, TokenCounts, lengths_of, measure
from traitmap.analysis.profiles.style import Style, style_of
from traitmap.analysis.profiles.words import TOKEN, draw, joined, vocabulary
from traitmap.data.texts import TaskText
from traitmap.errors import DataError


@dataclass(frozen=True)
class Sampling:
    """How many texts of a dataset each part of its profile reads, at most.

    lengths: for lengths. forms: for forms of questions and answers. style: for style and vocabulary.
    meaning: for embeddings and their distances. Classes are counted over all texts.
    """

    lengths: int = 10_000
    forms: int = 500
    style: int = 1_000
    meaning: int = 200

    def __post_init__(self) -> None:
        for name in ("lengths", "forms", "style", "meaning"):
            if getattr(self, name) < 2:
                raise DataError(f"sampling.{name}={getattr(self, name)} is too few; read 2 texts or more")


@dataclass(frozen=True)
class Reading:
    """What one pass over a dataset's texts gives.

    texts: how many there are. drawn: all of them in a random order that is the same however the dataset
    is ordered; a part that reads n texts reads the first n. measured: lengths of single texts.
    words: counts, lower case, of the style sample. meaning: different texts to embed, input and
    output together, without blank ones.
    """

    name: str
    texts: int
    drawn: tuple[TaskText, ...]
    measured: Measured
    lengths: Lengths
    classes: Classes
    forms: Forms
    style: Style
    words: Counter[str]
    meaning: tuple[str, ...]


def read(
    name: str,
    texts: Sequence[TaskText],
    *,
    token_counts: TokenCounts | None = None,
    parser: Any | None = None,
    sampling: Sampling | None = None,
    seed: int = 0,
) -> Reading:
    """Read a dataset. Raises DataError where it has no texts."""
    sampling = sampling or Sampling()
    if not texts:
        raise DataError(f"dataset {name!r} has no texts; a profile needs one or more")
    drawn = draw(texts, len(texts), seed)
    items, how = item_classes(drawn)
    for_lengths = drawn[: sampling.lengths]
    labels = [None if item is None else item[1] for item in items[: sampling.lengths]]
    measured = measure(for_lengths, token_counts)
    whole = [joined(text) for text in drawn[: max(sampling.style, sampling.meaning)]]
    for_style = whole[: sampling.style]
    tokens = [TOKEN.findall(text) for text in for_style]
    return Reading(
        name=name,
        texts=len(texts),
        drawn=drawn,
        measured=measured,
        lengths=lengths_of(measured, labels),
        classes=class_table(drawn, items, how),
        forms=forms_of(drawn[: sampling.forms], recurring_words(drawn, items)),
        style=style_of(for_style, tokens, parser),
        words=vocabulary(tokens),
        meaning=tuple(dict.fromkeys(text for text in whole if text.strip()))[: sampling.meaning],
    )


def read_all(
    texts: Mapping[str, Sequence[TaskText]],
    *,
    token_counts: TokenCounts | None = None,
    parser: Any | None = None,
    sampling: Sampling | None = None,
    seed: int = 0,
) -> tuple[Reading, ...]:
    """Every dataset, by name: what is fitted on all of them must not depend on their order."""
    return tuple(
        read(name, texts[name], token_counts=token_counts, parser=parser, sampling=sampling, seed=seed)
        for name in sorted(texts)
    )
