"""What is known of sources and targets beside the matrix, and the problem that a recommender then has.

Texts, embeddings and attributes of tasks become two things: features of pairs (S, T, F), and likenesses of
tasks along either axis. ``make_problem`` puts them beside the known effects. Tasks of which nothing is known
have unknown features; names of tasks must be those of the matrix.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import log, nan
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from traitmap.analysis.profiles.pairs import Feature, PairFeatures, pair_features
from traitmap.analysis.profiles.semantics import Embed
from traitmap.analysis.profiles.style import cosine_matrix
from traitmap.analysis.recommendation.prior import MatchedPriors
from traitmap.analysis.recommendation.problem import (
    Blocks,
    EffectTable,
    Holdout,
    Likeness,
    Problem,
    centred_and_spread,
    same_names,
    scaled,
)
from traitmap.data.fingerprints import Fingerprints
from traitmap.data.texts import Texts
from traitmap.errors import DataError
from traitmap.matrix.record import Array

if TYPE_CHECKING:
    from traitmap.runs.drift import AdapterDrift

Embeddings = Mapping[str, ArrayLike]
Attributes = Mapping[str, Mapping[str, str]]
Similarity = Mapping[str, Mapping[tuple[str, str], float]]
Names = tuple[str, ...]
Column = tuple[str, str, Array]  # name, words, (S, T) values of one feature of pairs
Known = tuple[list[Column], list[Likeness], list[Likeness]]  # features; who is alike: targets, sources
DRIFT = (  # features of a source, known once its adapter is trained
    ("source_forgetting", "cost of neutral text beyond the base's"),
    ("source_divergence", "KL from the base on neutral text (log)"),
    ("source_own_divergence", "KL from the base on the source's own prompts (log)"),
)
SYMMETRIC = ("embedding_cosine", "embedding_nearness", "embedding_own_cosine")


def make_problem(
    effects: EffectTable,
    *,
    features: PairFeatures | None = None,
    texts: Texts | None = None,
    embeddings: Embeddings | None = None,
    attributes: Attributes | None = None,
    similarity: Similarity | None = None,
    weights: Fingerprints | None = None,
    encoder: Embed | None = None,
    prior: MatchedPriors | None = None,
    new_target: str | None = None,
    holdout: Holdout = "target",
    blocks: Blocks | None = None,
    seed: int = 0,
) -> Problem:
    """Effects (S, T) beside everything that is known of their tasks.

    features: of pairs, computed elsewhere; or texts: by task, from which they are computed; a name that is
        source and target has one entry for both.
    embeddings: by task, one vector (D,) or several (n, D), e.g. a trained prompt or texts.
    attributes: name -> task -> value, of targets or of both.
    similarity: name -> (source, target) -> how alike two tasks are, by anybody's measure, higher is more.
    weights: what the weights of the sources' adapters say, by name.
    encoder: texts to vectors of their meaning, in place of TF-IDF, where ``texts`` are given.
    prior: other people's matrices, laid over these sources and targets (the new one included).
    new_target: a further column, of which no effect is known; it is the last.
    holdout, blocks: what is held out together, see ``Problem``; by default one target at a time.
    Raises DataError where no source or no target has texts or embeddings, or these do not fit each other.
    """
    sources, targets, effect = effects.sources, effects.targets, effects.effect
    if new_target is not None:
        targets = (*targets, new_target)
        effect = np.hstack([effect, np.full((len(sources), 1), np.nan)])
    shape = len(sources), len(targets)
    if features is None and texts is not None:
        rows = {name: texts[name] for name in sources if texts.get(name)}
        columns = {name: texts[name] for name in targets if texts.get(name)}
        _require(rows, columns, sources, targets, texts, "texts")
        features = pair_features(
            rows, columns, sizes={}, embed=encoder
        )  # of samples, so that sizes stay unknown
    parts = [] if features is None else [_of_features(features, sources, targets)]
    if embeddings is not None:
        parts.append(_of_embeddings(sources, targets, embeddings))
    if attributes:
        parts.append(_of_attributes(sources, targets, attributes))
    if similarity:
        parts.append(_of_similarity(sources, targets, similarity))
    if weights is not None:
        parts.append(_of_weights(sources, targets, weights))
    known = [column for part in parts for column in part[0]]
    features_array = np.empty((*shape, len(known)))
    for at, (_, _, values) in enumerate(known):
        features_array[..., at] = values
    return Problem(
        effect=effect,
        features=features_array,
        feature_names=tuple(name for name, _, _ in known),
        feature_words=tuple(words for _, words, _ in known),
        targets_alike=tuple(alike for part in parts for alike in part[1]),
        sources_alike=tuple(alike for part in parts for alike in part[2]),
        holdout=holdout,
        blocks=np.broadcast_to(np.arange(shape[1]), shape) if blocks is None else blocks,
        own=same_names(sources, targets),
        seed=seed,
        prior=prior,
    )


def with_drift(
    features: PairFeatures | None, rows: Sequence[AdapterDrift], sources: Names, targets: Names
) -> PairFeatures | None:
    """The features of all pairs with what is known of the sources' drift, the mean over seeds, beside them.

    They are known once an adapter is trained, not before. Unchanged where no source of these was measured.
    """
    measured: dict[str, list[tuple[float, float, float]]] = {}
    for row in rows:
        parts = (row.neutral, row.own)
        kl = [nan if part is None else part.divergence[0] for part in parts]
        logs = [log(value) if value > 0 else nan for value in kl]
        measured.setdefault(row.source, []).append((row.neutral.forgetting[0], logs[0], logs[1]))
    if not measured.keys() & set(sources):
        return features
    numbers = np.array([np.mean(measured.get(name, [(nan,) * 3]), axis=0) for name in sources])
    known = PairFeatures(sources, targets, ()) if features is None else features.over(sources, targets)
    table = np.repeat(numbers[:, None], len(targets), axis=1)
    added = [
        Feature(name, "size", words, table[..., at], "source")
        for at, (name, words) in enumerate(DRIFT)
        if np.isfinite(numbers[:, at]).any()
    ]
    return PairFeatures(sources, targets, (*known.features, *added))


def _require(
    rows: Collection[str],
    columns: Collection[str],
    sources: Names,
    targets: Names,
    given: Collection[str],
    what: str,
) -> None:
    """DataError where no source or no target of the matrix is among what is given."""
    for side, present, names in (("source", rows, sources), ("target", columns, targets)):
        if not present:
            raise DataError(
                f"no {side} of the matrix has {what}; given are {', '.join(sorted(given)[:8])}, "
                f"the matrix has {', '.join(names[:8])}; name tasks alike in both"
            )


def _of_features(features: PairFeatures, sources: Names, targets: Names) -> Known:
    """Pair features in the order of the matrix; profiles of tasks from what holds for one axis alone."""
    useful = [
        feature
        for feature in features.features
        if np.isfinite(feature.values).any() and np.nanstd(feature.values) > 1e-12
    ]
    over = PairFeatures(features.sources, features.targets, tuple(useful)).over(sources, targets)
    table = np.ascontiguousarray(over.array)
    same = same_names(sources, targets)
    return (
        [(feature.name, feature.words, table[..., f]) for f, feature in enumerate(useful)],
        _alike(table, useful, same, "target"),
        _alike(np.swapaxes(table, 0, 1), useful, same.T, "source"),
    )


def _alike(table: Array, features: Sequence[Feature], same: NDArray[np.bool_], axis: str) -> list[Likeness]:
    """Likeness of the tasks along the second axis of a table (others, tasks, F).

    Two respects: the hidden statistics of the tasks themselves, and how they stand to all tasks of the
    other axis in content, style and words.
    """
    found = []
    with np.errstate(invalid="ignore"):
        alone = [at for at, one in enumerate(features) if one.scope == axis and one.group == "hidden"]
        if alone:  # constant along the first axis but for unknown entries
            values = table[:, :, alone]
            known = np.isfinite(values)
            count = known.sum(axis=0)
            total = np.where(known, values, 0.0).sum(axis=0)
            profiles = np.where(count > 0, total / np.maximum(count, 1), np.nan)
            centred, spread = centred_and_spread(profiles, 0)
            found.append(Likeness("statistics", "hidden statistics", -_distances(centred / spread)))
        surface = [at for at, one in enumerate(features) if one.scope == "pair" and one.group == "surface"]
        if surface:
            numbers = scaled(np.where(same[:, :, None], np.nan, table[:, :, surface]))
            flat = np.swapaxes(numbers, 0, 1).reshape(table.shape[1], -1)
            found.append(Likeness("surface", "content and style", -_distances(flat)))
    return found


def _distances(profiles: Array) -> Array:
    """(n, n) root mean square differences between the rows of profiles (n, F)."""
    return np.asarray(np.sqrt(((profiles[:, None, :] - profiles[None, :, :]) ** 2).mean(axis=-1)))


def _of_embeddings(sources: Names, targets: Names, given: Embeddings) -> Known:
    """Cosines of mean vectors and of whole arrays, and the distance of the means."""
    arrays = {name: _array(name, value) for name, value in given.items()}
    rows = [name for name in sources if name in arrays]
    columns = [name for name in targets if name in arrays]
    _require(rows, columns, sources, targets, arrays, "embeddings")
    embedded = [name for name in dict.fromkeys([*sources, *targets]) if name in arrays]
    at = {name: place for place, name in enumerate(embedded)}
    tables = _embedding_tables([arrays[name] for name in embedded])

    def over(table: Array, rows: Names, columns: Names) -> Array:
        """The table over other names; NaN where a task has no embedding."""
        return np.array(
            [[table[at[r], at[c]] if r in at and c in at else np.nan for c in columns] for r in rows]
        )

    alike = [table for table in tables if table[0] in SYMMETRIC]
    return (
        [(name, words, over(table, sources, targets)) for name, words, table in tables],
        [Likeness(name, words, over(table, targets, targets)) for name, words, table in alike],
        [Likeness(name, words, over(table, sources, sources)) for name, words, table in alike],
    )


def _array(name: str, value: ArrayLike) -> Array:
    """(n, D) the vectors of one task."""
    array = np.atleast_2d(np.asarray(value, dtype=float))
    if array.ndim != 2 or not array.size or not np.isfinite(array).all():
        raise DataError(
            f"the embedding of {name!r} has the shape {np.shape(value)}"
            f"{'' if np.isfinite(array).all() else ' and numbers that are not finite'}; "
            "give a finite vector (D,) or vectors (n, D)"
        )
    return array


def _embedding_tables(arrays: Sequence[Array]) -> list[Column]:
    """Features of every pair of N embedded tasks, each (N, N)."""
    widths = sorted({array.shape[1] for array in arrays})
    if len(widths) > 1:
        raise DataError(f"embeddings have different widths {widths}; give vectors of one space")
    means = np.array([array.mean(axis=0) for array in arrays])
    distance = -np.linalg.norm(means[:, None, :] - means[None, :, :], axis=-1)
    size = np.log(np.maximum(np.linalg.norm(means, axis=1), 1e-12))
    tables = [
        ("embedding_cosine", "embeddings alike (cosine of means)", cosine_matrix(means)),
        ("embedding_nearness", "embeddings near (distance of means)", distance),
        # What all tasks share (a common start of training, say) would drown what tells them apart.
        (
            "embedding_own_cosine",
            "embeddings alike beyond what all share",
            cosine_matrix(means - means.mean(0)),
        ),
        ("embedding_size", "embedding longer than the target's (log ratio)", size[:, None] - size[None, :]),
    ]
    if max(len(array) for array in arrays) > 1:
        lengths = [np.linalg.norm(array, axis=1, keepdims=True) for array in arrays]
        unit = [
            np.where(length > 1e-12, array / np.where(length > 1e-12, length, 1.0), 0.0)
            for array, length in zip(arrays, lengths, strict=True)
        ]
        # the mean over the target's vectors of the cosine to the source's most similar one
        nearest = np.array(
            [[float((target @ source.T).max(axis=1).mean()) for target in unit] for source in unit]
        )
        tables.append(("embedding_nearest", "vectors alike each of the target's", nearest))
    shapes = {array.shape for array in arrays}
    if len(shapes) == 1 and arrays[0].shape[0] > 1:
        whole = np.array([array.ravel() for array in arrays])
        tables.append(("embedding_whole_cosine", "embeddings alike vector by vector", cosine_matrix(whole)))
    return tables


def _of_similarity(sources: Names, targets: Names, given: Similarity) -> Known:
    """Each measure is a feature of pairs; tasks that it compares with each other are alike as it says."""
    features: list[Column] = []
    targets_alike: list[Likeness] = []
    sources_alike: list[Likeness] = []

    def over(values: Mapping[tuple[str, str], float], rows: Names, columns: Names) -> Array:
        return np.array([[values.get((row, column), np.nan) for column in columns] for row in rows])

    for name, values in given.items():
        table = over(values, sources, targets)
        if not np.isfinite(table).any():
            known = ", ".join(f"{a} -> {b}" for a, b in list(values)[:3])
            raise DataError(
                f"the similarity {name!r} knows no pair of the matrix; it has {known}, ..., the matrix "
                f"{sources[0]} -> {targets[0]}; name tasks alike in both"
            )
        words = f"alike by {name}"
        features.append((f"similarity_{name}", words, table))
        for axis, found in ((targets, targets_alike), (sources, sources_alike)):
            both = np.stack([over(values, axis, axis), over(values, axis, axis).T])
            count = np.isfinite(both).sum(axis=0)
            alike = np.where(count > 0, np.nansum(both, axis=0) / np.maximum(count, 1), np.nan)
            np.fill_diagonal(alike, np.nan)
            if np.isfinite(alike).any():
                found.append(Likeness(f"similarity {name}", name, alike))
    return features, targets_alike, sources_alike


def _of_weights(sources: Names, targets: Names, weights: Fingerprints) -> Known:
    """Sizes of the sources' updates, and cosines: of sources, and with the adapter of the target's name."""
    at = {name: place for place, name in enumerate(weights.names)}
    if not at.keys() & set(sources):
        raise DataError(
            f"no source of the matrix has an adapter; given are {', '.join(weights.names[:8])}, the matrix "
            f"has {', '.join(sources[:8])}; name adapters as sources"
        )

    def cosine(rows: Names, columns: Names) -> Array:
        return np.array(
            [[weights.cosine[at[r], at[c]] if r in at and c in at else np.nan for c in columns] for r in rows]
        )

    def of_source(numbers: Array) -> Array:
        one = np.array([numbers[at[name]] if name in at else np.nan for name in sources])
        return np.repeat(one[:, None], len(targets), axis=1)

    columns = [
        ("weights_norm", "size of the update (log)", of_source(np.log(weights.norm))),
        ("weights_rank", "effective rank of the update", of_source(weights.rank)),
        ("weights_early", "share of the update in the first third of layers", of_source(weights.depth[:, 0])),
        ("weights_late", "share of the update in the last third of layers", of_source(weights.depth[:, 2])),
        ("weights_attention", "share of the update in attention", of_source(weights.attention)),
        ("weights_cosine", "weights alike the target's own adapter", cosine(sources, targets)),
    ]
    known = [column for column in columns if np.isfinite(column[2]).any()]
    among = cosine(sources, sources)
    np.fill_diagonal(among, np.nan)
    return known, [], [Likeness("weights", "weights", among)] if np.isfinite(among).any() else []


def _of_attributes(sources: Names, targets: Names, given: Attributes) -> Known:
    """Tasks of the same value are alike; a pair's feature is whether it is the same, where both have one."""

    def same(rows: Sequence[str | None], columns: Sequence[str | None]) -> Array:
        """1 where two values are the same, 0 where not, NaN where either is unknown."""
        return np.array([[np.nan if None in (a, b) else float(a == b) for b in columns] for a in rows])

    features: list[Column] = []
    targets_alike, sources_alike = [], []
    for name, values in given.items():
        rows, columns = ([values.get(task) for task in axis] for axis in (sources, targets))
        words = f"the same {name}"
        targets_alike.append(Likeness(name, words, same(columns, columns)))
        if any(value is not None for value in rows):
            sources_alike.append(Likeness(name, words, same(rows, rows)))
            features.append((f"same_{name}", f"{words} as the target's", same(rows, columns)))
    return features, targets_alike, sources_alike
