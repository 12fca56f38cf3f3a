"""Profiles of datasets from their texts, and how alike they are in style, meaning, words and labels.

A dataset is read once (``read``); its pairs with other datasets (the chapter pairs) are made of its
profile. ``profile_datasets`` reads, profiles and compares all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isnan, nan
from types import MappingProxyType
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from traitmap.analysis.profiles.classes import (
    Classes,
    class_table,
    item_classes,
    prior_distance,
    shared_label_words,
    vocabulary_overlap,
)
from traitmap.analysis.profiles.lengths import Lengths, TokenCounts, lengths_of, mean_text_length, measure
from traitmap.analysis.profiles.semantics import (
    MMD_TEXTS,
    Embed,
    centroid_cosine,
    discrepancy,
    embed_together,
    semantic_word,
)
from traitmap.analysis.profiles.style import (
    TOKEN,
    Forms,
    Style,
    cosine_matrix,
    draw,
    forms_of,
    joined,
    recurring_words,
    style_matrix,
    style_of,
    vocabulary,
)
from traitmap.data.texts import TaskText, Texts
from traitmap.errors import DataError
from traitmap.jsonable import jsonable
from traitmap.matrix.record import Array

FEWEST_FOR_STYLE = 3  # two z-scored datasets are each other's opposite, whatever they are


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
class DatasetProfile:
    """What one pass over a dataset's texts gives.

    texts: how many there are. read: how many of them each part reads; fewer than ``texts`` is a random sample
    that does not depend on the order of the texts.
    size: training examples or items; NaN where only a sample of unknown share was given. perplexity: of the
    base model on the texts, NaN where it was not given.
    measured: lengths of single texts, of ``lengths.measure``. words: counts, lower case, of the style sample.
    meaning: different texts to embed, input and output together, without blank ones.
    """

    name: str
    texts: int
    lengths: Lengths
    classes: Classes
    forms: Forms
    style: Style
    read: Mapping[str, int]
    measured: Mapping[str, Array] = field(repr=False)
    words: Counter[str] = field(repr=False)
    meaning: tuple[str, ...] = field(repr=False)
    size: float
    perplexity: float

    @property
    def tokens(self) -> float:
        """Size times the mean length of input and output, in the unit of the lengths."""
        return self.size * mean_text_length(self.measured)

    @property
    def richness(self) -> float:
        """Moving type-token ratio, which does not depend on the sample's size."""
        return self.style["shape"]["type-token ratio"]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data, style as a mapping from each number's name; unknown numbers are null."""
        difficulty = {
            "size": self.size,
            "tokens": self.tokens,
            "unit": self.lengths.unit,
            "vocabulary": len(self.words),
            "richness": self.richness,
            "perplexity": self.perplexity,
            "reason": "the base model's perplexity was not given" if isnan(self.perplexity) else "",
        }
        return {
            **{part: jsonable(getattr(self, part)) for part in ("texts", "lengths", "classes", "forms")},
            "difficulty": jsonable(difficulty),
            "style": {
                name: jsonable(number) for group in self.style.values() for name, number in group.items()
            },
            "read": dict(self.read),
        }


def read(
    name: str,
    texts: Sequence[TaskText],
    *,
    token_counts: TokenCounts | None = None,
    parser: Any | None = None,
    sampling: Sampling | None = None,
    size: float | None = None,
    perplexity: float = nan,
    seed: int = 0,
) -> DatasetProfile:
    """Read a dataset once. Parameters are those of ``profile_datasets``; seed: of the order of its texts.

    size: examples that there are, None for the number of texts. Raises DataError where it has no texts.
    """
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
    parts = {part: min(most, len(texts)) for part, most in asdict(sampling).items()}
    return DatasetProfile(
        name=name,
        texts=len(texts),
        lengths=lengths_of(measured, labels, "words" if token_counts is None else "tokens"),
        classes=class_table(drawn, items, how),
        forms=forms_of(drawn[: sampling.forms], recurring_words(drawn, items)),
        style=style_of(for_style, tokens, parser),
        read=MappingProxyType(parts | {"classes": len(texts)}),
        measured=measured,
        words=vocabulary(tokens),
        meaning=tuple(dict.fromkeys(text for text in whole if text.strip()))[: sampling.meaning],
        size=float(len(texts)) if size is None else size,
        perplexity=perplexity,
    )


@dataclass(frozen=True)
class DatasetComparison:
    """Profiles of D datasets and how alike they are. All matrices are (D, D) in the order of ``names``.

    style_scores: (D, K) z-scores over these datasets, each group of numbers weighing the same;
        style_names: (K,). style_cosine: of these rows; NaN below three datasets.
    encoded_style_cosine: cosines of the centroids of a style encoder, where one was given; style_encoder
        names it.
    semantic_kind: how texts were embedded. semantic_cosine: of centroids. mmd_squared, mmd_p, mmd_null_p95,
        mmd_bandwidth: of ``semantics.discrepancy``.
    vocabulary_jaccard, vocabulary_coverage: of ``classes.vocabulary_overlap``, rows as sources, columns as
        targets. shared_labels: number of label words of both;
        prior_distance: total variation of class shares, NaN where no label word is shared.
    conditions: what was asked and how it was done. notes: what a reader must know.
    """

    profiles: Mapping[str, DatasetProfile]
    style_names: tuple[str, ...]
    style_scores: Array
    style_cosine: Array
    semantic_kind: str
    semantic_cosine: Array
    mmd_squared: Array
    mmd_p: Array
    mmd_null_p95: Array
    mmd_bandwidth: float
    vocabulary_jaccard: Array
    vocabulary_coverage: Array
    shared_labels: Array
    prior_distance: Array
    encoded_style_cosine: Array | None = None
    style_encoder: str = ""
    conditions: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.profiles)

    @property
    def content_word(self) -> str:
        """What the likeness of the embedded texts is called: ``wording`` by TF-IDF, else ``meaning``."""
        return semantic_word(self.semantic_kind)

    def to_json(self) -> dict[str, Any]:
        """Everything as plain JSON data; unknown numbers are null, matrices are keyed by name twice."""

        def square(matrix: Array | None) -> dict[str, dict[str, Any]] | None:
            if matrix is None:
                return None
            rows = [dict(zip(self.names, row, strict=True)) for row in jsonable(matrix)]
            return dict(zip(self.names, rows, strict=True))

        return {
            "datasets": jsonable(self.profiles),
            "style": {
                "names": list(self.style_names),
                "scores": dict(zip(self.names, jsonable(self.style_scores), strict=True)),
                "cosine": square(self.style_cosine),
                "encoder": self.style_encoder or None,
                "encoded_cosine": square(self.encoded_style_cosine),
            },
            "semantics": {
                "kind": self.semantic_kind,
                "cosine": square(self.semantic_cosine),
                "mmd_squared": square(self.mmd_squared),
                "mmd_p": square(self.mmd_p),
                "mmd_null_p95": square(self.mmd_null_p95),
                "mmd_bandwidth": jsonable(self.mmd_bandwidth),
                "mmd_texts": MMD_TEXTS,
                "mmd_permutations": self.conditions["permutations"],
            },
            "vocabulary": {
                "jaccard": square(self.vocabulary_jaccard),
                "coverage": square(self.vocabulary_coverage),
            },
            "labels": {
                "shared": square(self.shared_labels),
                "prior_distance": square(self.prior_distance),
            },
            "conditions": jsonable(self.conditions),
            "notes": list(self.notes),
        }


def alike_order(similarity: Array) -> list[int]:
    """Places of D datasets, alike ones together: first the one most like all others, then always the likest.

    similarity: (D, D), NaN where unknown. Likest: of those left, by the mean over the last three placed; of
    equals the first.
    """
    known = np.where(np.isfinite(similarity), similarity, -1.0)
    left = list(range(len(similarity)))
    order: list[int] = []
    while left:
        following = max(
            left, key=lambda at: float(known[order[-3:], at].mean() if order else known[at].sum())
        )
        order.append(following)
        left.remove(following)
    return order


def likest_pair(similarity: Array, tasks: Sequence[str | None]) -> tuple[int, int] | None:
    """The two places (first < second) of different tasks that are most alike; None where nothing is known.

    similarity: (D, D), NaN where unknown. tasks: (D,) of each dataset; a dataset without one is left out.
    """
    pairs = [
        (first, second)
        for second in range(len(tasks))
        for first in range(second)
        if None not in (tasks[first], tasks[second])
        and tasks[first] != tasks[second]
        and np.isfinite(similarity[second, first])
    ]
    return max(pairs, key=lambda pair: float(similarity[pair[1], pair[0]]), default=None)


def profile_datasets(
    texts: Texts,
    *,
    token_counts: TokenCounts | None = None,
    embed: Embed | None = None,
    style_embed: Embed | None = None,
    parser: Any | None = None,
    perplexity: Mapping[str, float] | None = None,
    sizes: Mapping[str, int] | None = None,
    sampling: Sampling | None = None,
    permutations: int = 99,
    seed: int = 0,
) -> DatasetComparison:
    """Profile datasets from their texts and compare them with one another.

    token_counts: texts to their numbers of tokens (``Engine.token_counts``); None counts words.
    embed, style_embed: texts to (n, K) vectors of meaning and of style (``semantics.load_encoder``); None
        embeds by TF-IDF with SVD, and leaves the encoder of style out.
    parser: a spaCy pipeline with a tagger, for parts of speech in the style.
    perplexity: of the base model on each dataset. sizes: examples of each dataset where ``texts`` holds a
        part of them; None takes the number of texts given.
    sampling: texts read by each part. permutations: of the null of MMD, for every two datasets.

    Raises DataError where there are no datasets, a dataset has no texts, or a callable gives wrong shapes.
    """
    if not texts:
        raise DataError("there are no datasets to profile; give texts by name")
    sampling = sampling or Sampling()
    settings = {"sampling": asdict(sampling), "permutations": permutations, "seed": seed}
    # what is fitted on all datasets must not depend on their order: read and compared in the order of names
    names = sorted(texts)
    options: dict[str, Any] = {"token_counts": token_counts, "parser": parser, "sampling": sampling}
    profiles = [
        read(
            name,
            texts[name],
            **options,
            size=None if sizes is None else float(sizes.get(name, nan)),
            perplexity=float((perplexity or {}).get(name, nan)),
            seed=seed,
        )
        for name in names
    ]
    meanings, words = [profile.meaning for profile in profiles], [profile.words for profile in profiles]
    classes = [profile.classes for profile in profiles]
    few = len(profiles) < FEWEST_FOR_STYLE
    with threadpool_limits(limits=1, user_api="blas"):  # the same bits on every machine
        kind, clouds = embed_together(meanings, embed, seed)
        squared, p, null_p95, bandwidth = discrepancy(clouds, permutations=permutations, seed=seed)
        style_encoder, encoded = embed_together(meanings, style_embed, seed) if style_embed else ("", None)
        style_names, scores = style_matrix([profile.style for profile in profiles])
        style = np.full((len(profiles),) * 2, np.nan) if few else cosine_matrix(scores)
        jaccard, coverage = vocabulary_overlap(words, words)
        shared = np.array([[float(len(shared_label_words(a, b))) for b in classes] for a in classes])
        priors = np.array([[prior_distance(a, b) for b in classes] for a in classes])
        order = np.array([names.index(name) for name in texts])
        square = np.ix_(order, order)
        return DatasetComparison(
            profiles=MappingProxyType({profiles[place].name: profiles[place] for place in order}),
            style_names=style_names,
            style_scores=scores[order],
            style_cosine=style[square],
            semantic_kind=kind,
            semantic_cosine=centroid_cosine(clouds)[square],
            mmd_squared=squared[square],
            mmd_p=p[square],
            mmd_null_p95=null_p95[square],
            mmd_bandwidth=bandwidth,
            vocabulary_jaccard=jaccard[square],
            vocabulary_coverage=coverage[square],
            shared_labels=shared[square],
            prior_distance=priors[square],
            encoded_style_cosine=None if encoded is None else centroid_cosine(encoded)[square],
            style_encoder=style_encoder,
            conditions=MappingProxyType({**settings, "unit": profiles[0].lengths.unit}),
            notes=_notes(profiles, few, embed is None),
        )


def _notes(profiles: Sequence[DatasetProfile], few: bool, words_only: bool) -> tuple[str, ...]:
    """What a reader must know."""
    notes = []
    sampled = [profile for profile in profiles if min(profile.read.values()) < profile.texts]
    if sampled:
        notes.append(
            f"{len(sampled)} of {len(profiles)} datasets were sampled; 'read' holds the texts of each part"
        )
    if few:
        notes.append("style is compared by z-scores over datasets, which say nothing below three datasets")
    if words_only:
        notes.append(
            "wording is compared (TF-IDF), not meaning: texts that say the same in other words look apart"
        )
    return tuple(notes)
