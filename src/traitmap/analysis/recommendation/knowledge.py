"""What is known of sources and targets beside the matrix: texts, embeddings, attributes as features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from traitmap.analysis.features import Feature, PairFeatures
from traitmap.analysis.profiles.pairs import pair_features
from traitmap.analysis.profiles.style import cosine_matrix
from traitmap.analysis.recommendation.problem import Likeness, likeness_of_profiles, scaled
from traitmap.data.texts import Texts
from traitmap.errors import DataError
from traitmap.matrix.record import Array

Embeddings = Mapping[str, ArrayLike]
Attributes = Mapping[str, Mapping[str, str]]
SYMMETRIC = ("embedding_cosine", "embedding_nearness", "embedding_own_cosine")


@dataclass(frozen=True)
class Knowledge:
    """Features (S, T, F) of pairs with names and words, and who is alike along either axis."""

    features: Array
    names: tuple[str, ...]
    words: tuple[str, ...]
    targets_alike: tuple[Likeness, ...]
    sources_alike: tuple[Likeness, ...]


def knowledge_of(
    sources: Sequence[str],
    targets: Sequence[str],
    texts: Texts | None = None,
    embeddings: Embeddings | None = None,
    attributes: Attributes | None = None,
    features: PairFeatures | None = None,
) -> Knowledge:
    """Everything that is given, as features of pairs and likenesses of tasks.

    texts: by task; a name that is source and target has one entry for both. embeddings: by task, one vector
    (D,) or several (n, D), e.g. a trained prompt or texts. attributes: name -> task -> value, of targets
    or of both.
    features: pair features computed elsewhere, in place of ``texts``.
    Tasks without texts or embeddings have unknown features. Raises DataError where no source or no target
    has any.
    """
    if texts is not None and features is None:
        features = features_of_texts(sources, targets, texts)
    parts = [] if features is None else [_of_features(features, sources, targets)]
    if embeddings is not None:
        parts.append(_of_embeddings(sources, targets, embeddings))
    if attributes:
        parts.append(_of_attributes(sources, targets, attributes))
    empty = np.empty((len(sources), len(targets), 0))
    return Knowledge(
        features=np.concatenate([empty, *(part.features for part in parts)], axis=-1),
        names=tuple(name for part in parts for name in part.names),
        words=tuple(word for part in parts for word in part.words),
        targets_alike=tuple(one for part in parts for one in part.targets_alike),
        sources_alike=tuple(one for part in parts for one in part.sources_alike),
    )


def features_of_texts(sources: Sequence[str], targets: Sequence[str], texts: Texts) -> PairFeatures:
    """Pair features of those sources and targets that have texts; sizes stay unknown (samples)."""
    rows = {name: texts[name] for name in sources if texts.get(name)}
    columns = {name: texts[name] for name in targets if texts.get(name)}
    _require(rows, columns, sources, targets, texts, "texts")
    return pair_features(rows, columns, sizes={})


def _require(
    rows: Sequence[str] | Mapping[str, object],
    columns: Sequence[str] | Mapping[str, object],
    sources: Sequence[str],
    targets: Sequence[str],
    given: Mapping[str, object],
    what: str,
) -> None:
    for side, there, wanted in (("source", rows, sources), ("target", columns, targets)):
        if not there:
            raise DataError(
                f"no {side} of the matrix has {what}; given are {', '.join(sorted(given)[:8])}, "
                f"the matrix has {', '.join(wanted[:8])}; name tasks alike in both"
            )


def _of_features(given: PairFeatures, sources: Sequence[str], targets: Sequence[str]) -> Knowledge:
    """Pair features in the order of the matrix; profiles of tasks from what holds for one axis alone."""
    rows = {name: at for at, name in enumerate(given.sources)}
    columns = {name: at for at, name in enumerate(given.targets)}
    useful = [
        feature
        for feature in given.features
        if np.isfinite(feature.values).any() and _spread(feature.values) > 1e-12
    ]
    table = np.full((len(sources), len(targets), len(useful)), np.nan)
    for i, source in enumerate(sources):
        for j, target in enumerate(targets):
            if source in rows and target in columns:
                table[i, j] = [one.values[rows[source], columns[target]] for one in useful]
    own = np.array([[source == target for target in targets] for source in sources])
    return Knowledge(
        features=table,
        names=tuple(one.name for one in useful),
        words=tuple(one.words for one in useful),
        targets_alike=_alike(table, useful, own, "target"),
        sources_alike=_alike(np.swapaxes(table, 0, 1), useful, own.T, "source"),
    )


def _spread(values: Array) -> float:
    return float(np.nanstd(values))


def _alike(table: Array, features: Sequence[Feature], own: Array, axis: str) -> tuple[Likeness, ...]:
    """Likeness of the tasks along the second axis of a table (others, tasks, F).

    Two respects: the hidden statistics of the tasks themselves, and how they stand to all tasks of the
    other axis in meaning, style and words.
    """
    found = []
    with np.errstate(invalid="ignore"):
        alone = [at for at, one in enumerate(features) if one.scope == axis and one.group == "hidden"]
        if alone:
            profiles = _first_known(table[:, :, alone])
            found.append(likeness_of_profiles(profiles, "statistics", "hidden statistics"))
        surface = [at for at, one in enumerate(features) if one.scope == "pair" and one.group == "surface"]
        if surface:
            numbers = scaled(np.where(own[:, :, None], np.nan, table[:, :, surface]))
            flat = np.swapaxes(numbers, 0, 1).reshape(table.shape[1], -1)
            distance = np.sqrt(((flat[:, None, :] - flat[None, :, :]) ** 2).mean(axis=-1))
            found.append(Likeness("surface", "meaning and style", -distance))
    return tuple(found)


def _first_known(table: Array) -> Array:
    """(tasks, F) from (others, tasks, F) that is constant along the first axis but for unknown entries."""
    known = np.isfinite(table)
    total = np.where(known, table, 0.0).sum(axis=0)
    count = known.sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _of_embeddings(sources: Sequence[str], targets: Sequence[str], given: Embeddings) -> Knowledge:
    """Cosines of mean vectors and of whole arrays, and the distance of the means."""
    arrays = {name: _array(name, value) for name, value in given.items()}
    rows = [name for name in sources if name in arrays]
    columns = [name for name in targets if name in arrays]
    _require(rows, columns, sources, targets, arrays, "embeddings")
    names = list(dict.fromkeys([*sources, *targets]))
    there = [name for name in names if name in arrays]
    tables = _embedding_tables([arrays[name] for name in there])
    at = {name: there.index(name) for name in there}
    known = [_on_axes(table, at, sources, targets) for _, _, table in tables]
    alike = [one for one in tables if one[0] in SYMMETRIC]
    return Knowledge(
        features=np.stack(known, axis=-1),
        names=tuple(name for name, _, _ in tables),
        words=tuple(words for _, words, _ in tables),
        targets_alike=tuple(Likeness(n, w, _on_axes(t, at, targets, targets)) for n, w, t in alike),
        sources_alike=tuple(Likeness(n, w, _on_axes(t, at, sources, sources)) for n, w, t in alike),
    )


def _array(name: str, value: ArrayLike) -> Array:
    array = np.atleast_2d(np.asarray(value, dtype=float))
    if array.ndim != 2 or not array.size or not np.isfinite(array).all():
        raise DataError(
            f"the embedding of {name!r} has the shape {np.shape(value)}"
            f"{'' if np.isfinite(array).all() else ' and numbers that are not finite'}; "
            "give a finite vector (D,) or vectors (n, D)"
        )
    return array


def _embedding_tables(arrays: Sequence[Array]) -> list[tuple[str, str, Array]]:
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
        nearest = np.array([[_nearest(one, other) for other in arrays] for one in arrays])
        tables.append(("embedding_nearest", "vectors alike each of the target's", nearest))
    shapes = {array.shape for array in arrays}
    if len(shapes) == 1 and arrays[0].shape[0] > 1:
        whole = np.array([array.ravel() for array in arrays])
        tables.append(("embedding_whole_cosine", "embeddings alike vector by vector", cosine_matrix(whole)))
    return tables


def _nearest(source: Array, target: Array) -> float:
    """Mean over the target's vectors of the cosine to the source's most similar one."""
    cosines = (_unit(target) @ _unit(source).T).max(axis=1)
    return float(cosines.mean())


def _unit(rows: Array) -> Array:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.where(length > 1e-12, rows / np.where(length > 1e-12, length, 1.0), 0.0)


def _on_axes(table: Array, at: Mapping[str, int], rows: Sequence[str], columns: Sequence[str]) -> Array:
    return np.array([[table[at[r], at[c]] if r in at and c in at else np.nan for c in columns] for r in rows])


def _of_attributes(sources: Sequence[str], targets: Sequence[str], given: Attributes) -> Knowledge:
    """Tasks of the same value are alike; a pair's feature is whether it is the same, where both have one."""
    features, names, words, targets_alike, sources_alike = [], [], [], [], []
    for name, values in given.items():
        rows, columns = ([values.get(task) for task in axis] for axis in (sources, targets))
        told = f"the same {name}"
        targets_alike.append(Likeness(name, told, _same(columns, columns)))
        if any(value is not None for value in rows):
            sources_alike.append(Likeness(name, told, _same(rows, rows)))
            features.append(_same(rows, columns))
            names.append(f"same_{name}")
            words.append(f"{told} as the target's")
    table = np.stack(features, axis=-1) if features else np.empty((len(sources), len(targets), 0))
    return Knowledge(table, tuple(names), tuple(words), tuple(targets_alike), tuple(sources_alike))


def _same(rows: Sequence[str | None], columns: Sequence[str | None]) -> Array:
    """1 where two values are the same, 0 where not, NaN where either is unknown."""
    return np.array([[np.nan if None in (a, b) else float(a == b) for b in columns] for a in rows])
