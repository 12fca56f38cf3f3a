"""Features of every ordered pair (source, target) from texts alone: hidden statistics, surface, size.

``PairFeatures`` and ``Reason`` are what profiles, explanation and recommendation pass to one another.
Features are what explanation and recommendation reason with, so scores never enter here. Each group has a
function that lists its features with the words by which a reason names them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from threadpoolctl import threadpool_limits

from traitmap.analysis.profiles.classes import label_words, prior_distance, vocabulary_overlap
from traitmap.analysis.profiles.datasets import DatasetProfile, Sampling, read
from traitmap.analysis.profiles.lengths import TokenCounts, finite, mean_text_length, wasserstein
from traitmap.analysis.profiles.semantics import (
    Embed,
    centroid_cosine,
    discrepancy,
    embed_together,
    nearest_cosine,
    semantic_word,
)
from traitmap.analysis.profiles.style import ANSWER_FORMS, QUESTION_FORMS, cosine_matrix, style_matrix
from traitmap.data.texts import Texts
from traitmap.errors import DataError
from traitmap.jsonable import outline
from traitmap.matrix.record import Array

Group = Literal["hidden", "surface", "size"]


@dataclass(frozen=True)
class Feature:
    """One number for every pair.

    group: ``hidden`` (output length, class distribution, syntax, format), ``surface`` (style, meaning,
        vocabulary) or ``size`` (size and difficulty).
    words: what it says, so that a reason can be made of it ("outputs as long as the target's").
    values: (S, T), NaN where unknown. A higher value need not be better.
    scope: ``pair``, or ``source`` or ``target`` where it is constant along the other axis.
    """

    name: str
    group: Group
    words: str
    values: Array
    scope: Literal["pair", "source", "target"] = "pair"


@dataclass(frozen=True)
class PairFeatures:
    """Features of all pairs. Axis order is always (sources, targets).

    features: each with values (S, T), NaN where unknown; never made from scores.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    features: tuple[Feature, ...]

    __repr__ = outline

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)

    @property
    def array(self) -> Array:
        """(S, T, F) all values, in the order of ``features``."""
        if not self.features:
            return np.empty((len(self.sources), len(self.targets), 0))
        return np.stack([feature.values for feature in self.features], axis=-1)

    def over(self, sources: Sequence[str], targets: Sequence[str]) -> PairFeatures:
        """The same features over other sources and targets, in their order; NaN where these have none."""
        rows = {name: i for i, name in enumerate(self.sources)}
        columns = {name: j for j, name in enumerate(self.targets)}
        grid = np.ix_([rows.get(name, -1) for name in sources], [columns.get(name, -1) for name in targets])
        features = []
        for feature in self.features:
            padded = np.full((len(rows) + 1, len(columns) + 1), np.nan)  # the last row and column: unknown
            padded[:-1, :-1] = feature.values
            features.append(replace(feature, values=padded[grid]))
        return PairFeatures(tuple(sources), tuple(targets), tuple(features))


@dataclass(frozen=True)
class Reason:
    """One reason.

    kind: a stable word for machines (``length``, ``class_prior``, ``syntax``, ``format``, ...).
    words: the reason with its numbers, for people.
    strength: comparable between reasons of one list, larger is stronger; sign says for or against
        where there is such a thing.
    significant: after correction for all tests of its family; None where no test was made.
    """

    kind: str
    words: str
    strength: float
    significant: bool | None = None


Scope = Literal["pair", "source", "target"]
CLOSED = ("polar", "option", "class", "listed")  # answers that are chosen, not written


def pair_features(
    sources: Texts,
    targets: Texts,
    *,
    sizes: Mapping[str, int] | None = None,
    perplexity: Mapping[str, float] | None = None,
    token_counts: TokenCounts | None = None,
    embed: Embed | None = None,
    parser: Any | None = None,
    sampling: Sampling | None = None,
    seed: int = 0,
) -> PairFeatures:
    """About forty features of every (source, target), never from scores, NaN where unknown.

    sources, targets: texts by name, in the order of the axes. A name may stand in both, with the same texts
        or with others (its training and its test items).
    sizes: training examples of each source; NaN for a source that it lacks. None takes the number of texts
        given, which is right only where they are the whole source.
    perplexity: of the base model on each source's texts, by name.
    token_counts, embed, parser, sampling: as in ``profile_datasets``. seed: of all that is random.

    Style and the default embedding are fitted on the datasets given: features of two calls with other
    datasets beside them differ. Raises DataError where a dataset has no texts.
    """
    if not sources or not targets:
        raise DataError("pair features need the texts of one source and one target or more")
    readings, rows, columns = _read_sides(sources, targets, token_counts, parser, sampling, seed)
    tables = _FeatureTables(readings, rows, columns)
    with threadpool_limits(limits=1, user_api="blas"):  # the same bits on every machine
        features = [
            *_length_features(tables),
            *_class_features(tables),
            *_form_features(tables),
            *_surface_features(tables, embed, seed),
            *_size_features(tables, tuple(sources), sizes, perplexity or {}),
        ]
    return PairFeatures(tuple(sources), tuple(targets), tuple(features))


class _FeatureTables:
    """Makes features out of numbers of single datasets, or of pairs of them.

    readings: the D distinct datasets. rows, columns: which of them each source and each target is. Every
    feature has the shape (sources, targets).
    """

    def __init__(
        self, readings: Sequence[DatasetProfile], rows: Sequence[int], columns: Sequence[int]
    ) -> None:
        self.readings = readings
        self.rows = list(rows)
        self.columns = list(columns)

    def pair(self, name: str, group: Group, words: str, values: Array) -> Feature:
        """A feature from a (D, D) table over all datasets, rows as sources."""
        return Feature(name, group, words, np.array(values[np.ix_(self.rows, self.columns)], dtype=float))

    def of_pairs(
        self, name: str, group: Group, words: str, value: Callable[[DatasetProfile, DatasetProfile], float]
    ) -> Feature:
        """A feature from a function of source and target."""
        table = [[value(self.readings[s], self.readings[t]) for t in self.columns] for s in self.rows]
        return Feature(name, group, words, np.array(table, dtype=float))

    def one_side(self, name: str, group: Group, words: str, numbers: Array, scope: Scope) -> Feature:
        """A number of each dataset (D,), spread along the other axis."""
        side = numbers[self.rows][:, None] if scope == "source" else numbers[self.columns][None, :]
        shape = (len(self.rows), len(self.columns))
        return Feature(name, group, words, np.broadcast_to(side, shape).copy(), scope)

    def both(
        self, name: str, group: Group, words: str, value: Callable[[DatasetProfile], float]
    ) -> list[Feature]:
        """A number of the source and of the target, each a feature of its own scope."""
        numbers = np.array([value(reading) for reading in self.readings], dtype=float)
        return [
            self.one_side(f"source_{name}", group, words.format("source"), numbers, "source"),
            self.one_side(f"target_{name}", group, words.format("target"), numbers, "target"),
        ]

    def compared(
        self, name: str, group: Group, words: str, distance: str, value: Callable[[DatasetProfile], float]
    ) -> list[Feature]:
        """A number of the source and of the target, and how far they are apart."""
        numbers = np.array([value(reading) for reading in self.readings], dtype=float)
        apart = self.pair(f"{name}_difference", group, distance, np.abs(numbers[:, None] - numbers[None, :]))
        return [*self.both(name, group, words, value), apart]

    def rows_of(self, values: Callable[[DatasetProfile], Sequence[float]]) -> Array:
        """(D, K) numbers of each dataset; unknown shares are 0, as of something that is not there."""
        return np.nan_to_num(np.array([values(reading) for reading in self.readings], dtype=float))


def _read_sides(
    sources: Texts,
    targets: Texts,
    token_counts: TokenCounts | None,
    parser: Any | None,
    sampling: Sampling | None,
    seed: int,
) -> tuple[tuple[DatasetProfile, ...], tuple[int, ...], tuple[int, ...]]:
    """Each different dataset read once, in the order of names, and the places of sources and targets."""
    same = {name for name in sources.keys() & targets.keys() if tuple(sources[name]) == tuple(targets[name])}
    as_sources = {(name, "" if name in same else "source") for name in sources}
    as_targets = {(name, "" if name in same else "target") for name in targets}
    keys = sorted(as_sources | as_targets)
    readings = tuple(
        read(
            name,
            (targets if side == "target" else sources)[name],
            token_counts=token_counts,
            parser=parser,
            sampling=sampling,
            seed=seed,
        )
        for name, side in keys
    )
    place = {key: number for number, key in enumerate(keys)}

    def places(names: Sequence[str], side: str) -> tuple[int, ...]:
        return tuple(place[(name, "" if name in same else side)] for name in names)

    return readings, places(tuple(sources), "source"), places(tuple(targets), "target")


def _length_features(tables: _FeatureTables) -> list[Feature]:
    """Output and input lengths, on a logarithmic scale."""

    def outputs(reading: DatasetProfile) -> float:
        known = finite(reading.measured["output"])
        return float(np.log1p(known).mean()) if len(known) else float("nan")

    def inputs(reading: DatasetProfile) -> float:
        return float(np.log1p(reading.measured["input"]).mean())

    def spread(reading: DatasetProfile) -> float:
        known = finite(reading.measured["output"])
        return float(np.log1p(known).std()) if len(known) else float("nan")

    return [
        *tables.both("output_length", "hidden", "output length of the {} (log)", outputs),
        tables.of_pairs(
            "output_length_ratio",
            "hidden",
            "outputs longer than the target's (log ratio)",
            lambda source, target: outputs(source) - outputs(target),
        ),
        tables.of_pairs(
            "output_length_distance",
            "hidden",
            "outputs as long as the target's (Wasserstein distance of log lengths)",
            lambda source, target: wasserstein(
                np.log1p(finite(source.measured["output"])), np.log1p(finite(target.measured["output"]))
            ),
        ),
        *tables.both("output_spread", "hidden", "spread of output lengths of the {} (log)", spread),
        *tables.both("input_length", "hidden", "input length of the {} (log)", inputs),
        tables.of_pairs(
            "input_length_ratio",
            "hidden",
            "inputs longer than the target's (log ratio)",
            lambda source, target: inputs(source) - inputs(target),
        ),
    ]


def _class_features(tables: _FeatureTables) -> list[Feature]:
    """Class distributions and choices."""

    def overlap(source: DatasetProfile, target: DatasetProfile) -> float:
        ours, theirs = label_words(source.classes), label_words(target.classes)
        if not ours or not theirs:
            return float("nan")
        return len(ours.keys() & theirs.keys()) / len(ours.keys() | theirs.keys())

    return [
        *tables.compared(
            "class_entropy",
            "hidden",
            "class entropy of the {} (bits)",
            "classes as evenly spread as the target's",
            lambda reading: reading.classes.entropy,
        ),
        *tables.both(
            "majority", "hidden", "share of the commonest class of the {}", lambda r: r.classes.majority
        ),
        *tables.compared(
            "classes",
            "hidden",
            "number of classes of the {}",
            "as many classes as the target",
            lambda reading: reading.classes.number,
        ),
        tables.of_pairs("label_overlap", "hidden", "label words shared with the target", overlap),
        tables.of_pairs(
            "prior_distance",
            "hidden",
            "class prior close to the target's",
            lambda source, target: prior_distance(source.classes, target.classes),
        ),
        *tables.compared(
            "choices",
            "hidden",
            "choices of the {}",
            "as many choices as the target",
            lambda reading: reading.forms.choices if reading.forms.chosen > 0 else 0.0,
        ),
    ]


def _form_features(tables: _FeatureTables) -> list[Feature]:
    """Forms of answers and questions, structure of the input, marks of format."""
    answers = tables.rows_of(lambda r: [r.forms.answers[name] for name in ANSWER_FORMS])
    questions = tables.rows_of(lambda r: [r.forms.questions[name] for name in QUESTION_FORMS])
    marks = tables.rows_of(lambda r: [*r.forms.input_markers.values(), *r.forms.output_markers.values()])
    features = [
        tables.pair("answer_form_distance", "hidden", "answers of the target's form", 0.5 * _l1(answers)),
        tables.pair(
            "question_form_distance", "hidden", "questions of the target's form", 0.5 * _l1(questions)
        ),
        tables.pair("format_distance", "hidden", "the target's marks of format", _l1(marks) / marks.shape[1]),
        *tables.both(
            "closed_answers",
            "hidden",
            "share of chosen rather than written answers of the {}",
            lambda r: sum(r.forms.answers[name] for name in CLOSED),
        ),
    ]
    for name, words, distance, value in (
        (
            "polar_answers",
            "share of yes-or-no answers of the {}",
            "yes-or-no answers as often as the target",
            lambda r: r.forms.answers["polar"],
        ),
        (
            "copied",
            "share of the output that the {}'s input has",
            "answers copied as much as the target's",
            lambda r: r.forms.copied,
        ),
        (
            "pairing",
            "overlap of two parts of the {}'s input",
            "parts of the input alike as the target's",
            lambda r: r.forms.pair,
        ),
        (
            "containment",
            "share of the {}'s last part that its input has before",
            "hypotheses or questions as near to their passages as the target's",
            lambda r: r.forms.contained,
        ),
        (
            "segments",
            "parts of the {}'s input (log)",
            "inputs of as many parts as the target's",
            lambda r: float(np.log1p(r.forms.segments)),
        ),
    ):
        features += tables.compared(name, "hidden", words, distance, value)
    return features


def _surface_features(tables: _FeatureTables, embed: Embed | None, seed: int) -> list[Feature]:
    """Style, wording (meaning, by an encoder of sentences), vocabulary."""
    readings = tables.readings
    _, style = style_matrix([reading.style for reading in readings])
    styles = cosine_matrix(style) if len(readings) > 2 else np.full((len(readings),) * 2, np.nan)
    kind, clouds = embed_together([reading.meaning for reading in readings], embed, seed)
    alike = f"{semantic_word(kind)} alike (cosine of centroids)"
    distance = discrepancy(clouds, permutations=0, seed=seed)[0]
    words = [reading.words for reading in readings]
    jaccard, coverage = vocabulary_overlap(words, words)
    cosines, nearest = centroid_cosine(clouds), nearest_cosine(clouds)
    return [
        tables.pair("style_cosine", "surface", "style alike", styles),
        tables.pair("semantic_cosine", "surface", alike, cosines),
        tables.pair("semantic_nearest", "surface", "texts alike each of the target's", nearest),
        tables.pair("mmd", "surface", "texts distributed as the target's (squared MMD)", distance),
        tables.pair("vocabulary_overlap", "surface", "words shared (Jaccard)", jaccard),
        tables.pair("vocabulary_coverage", "surface", "the target's words are in the source", coverage),
    ]


def _size_features(
    tables: _FeatureTables,
    sources: Sequence[str],
    sizes: Mapping[str, int] | None,
    perplexity: Mapping[str, float],
) -> list[Feature]:
    """Size, tokens, richness, difficulty."""
    numbers = np.full(len(tables.readings), np.nan)
    hardness = numbers.copy()
    lengths = np.array([mean_text_length(reading.measured) for reading in tables.readings])
    for name, place in zip(sources, tables.rows, strict=True):
        size = float(tables.readings[place].texts) if sizes is None else float(sizes.get(name, np.nan))
        numbers[place] = np.log1p(size)
        hardness[place] = np.log(perplexity[name]) if name in perplexity else np.nan
    tokens = np.log1p(np.expm1(numbers) * lengths)
    return [
        tables.one_side("source_size", "size", "training examples (log)", numbers, "source"),
        tables.one_side("source_tokens", "size", "training tokens (log)", tokens, "source"),
        *tables.both("richness", "size", "richness of words of the {}", lambda reading: reading.richness),
        tables.one_side("source_perplexity", "size", "perplexity of the base (log)", hardness, "source"),
    ]


def _l1(rows: Array) -> Array:
    """(D, D) sums of absolute differences."""
    return np.abs(rows[:, None, :] - rows[None, :, :]).sum(axis=2)
