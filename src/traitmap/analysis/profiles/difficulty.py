"""How hard and how large a dataset is, and how much of its words another one has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from traitmap.analysis.profiles.classes import Classes, label_words
from traitmap.matrix_record import Array


@dataclass(frozen=True)
class Difficulty:
    """Size and difficulty of a dataset.

    size: training examples or items; NaN where only a sample of unknown share was given.
    tokens: size times the mean length of input and output, in ``unit``. vocabulary: different words in the
    sample. richness: moving type-token ratio, which does not depend on the sample's size.
    perplexity: of the base model on the texts, where it was computed, else NaN and reason.
    """

    size: float
    tokens: float
    unit: str
    vocabulary: int
    richness: float
    perplexity: float = float("nan")
    reason: str = ""


@dataclass(frozen=True)
class VocabularyOverlap:
    """Overlap of the words of S sources and T targets, in lower case, of the samples read.

    jaccard: (S, T) shared different words over all different words. coverage: (S, T) share of the target's
    running words that the source has. NaN where either has no words.
    """

    jaccard: Array
    coverage: Array


def vocabulary_overlap(sources: Sequence[Counter[str]], targets: Sequence[Counter[str]]) -> VocabularyOverlap:
    """How much of each target's words each source has."""
    places: dict[str, int] = {}
    for counts in (*sources, *targets):
        for word in counts:
            places.setdefault(word, len(places))
    has, used = _table(sources, places), _table(targets, places)
    has.data[:] = 1.0
    running = np.asarray(used.sum(axis=1)).ravel()
    coverage = (has @ used.T).toarray()
    used.data[:] = 1.0
    shared = (has @ used.T).toarray()
    ours, theirs = np.diff(has.indptr)[:, None], np.diff(used.indptr)[None, :]
    known = (ours > 0) & (theirs > 0)
    union = np.where(known, ours + theirs - shared, 1.0)
    return VocabularyOverlap(
        np.where(known, shared / union, np.nan),
        np.where(known, coverage / np.maximum(running, 1.0)[None, :], np.nan),
    )


def _table(counts: Sequence[Counter[str]], places: Mapping[str, int]) -> csr_matrix:
    """(D, V) counts of words."""
    stops = np.cumsum([0, *(len(one) for one in counts)])
    columns = np.array([places[word] for one in counts for word in one], dtype=np.int64)
    values = np.array([count for one in counts for count in one.values()], dtype=float)
    return csr_matrix((values, columns, stops), shape=(len(counts), max(1, len(places))))


def shared_label_words(first: Classes, second: Classes) -> tuple[str, ...]:
    """Class words, in comparable form, that both datasets use; empty where either has no classes."""
    return tuple(sorted(label_words(first).keys() & label_words(second).keys()))


def prior_distance(first: Classes, second: Classes) -> float:
    """Total variation between two class distributions over the words of both, from 0 to 1.

    NaN where no word is shared: then nothing says which classes mean the same.
    """
    ours, theirs = label_words(first), label_words(second)
    if not ours.keys() & theirs.keys():
        return float("nan")
    words = sorted(ours.keys() | theirs.keys())
    return 0.5 * sum(abs(ours.get(word, 0.0) - theirs.get(word, 0.0)) for word in words)
