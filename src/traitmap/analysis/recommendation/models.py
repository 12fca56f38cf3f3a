"""A Gaussian process over pairs: alike sources and targets do alike, and features add a linear part.

The models that a recommender chooses from: each takes known effects and features, and fills the table.

A model is a function of a ``Problem`` and its ``Design``; it gives standardised effects z (S, T) for every
pair, known or not, and can tell what a prediction is made of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
from sklearn.ensemble import ExtraTreesRegressor, GradientBoostingRegressor

from traitmap.analysis.recommendation.problem import (
    Likeness,
    PairDesign,
    Problem,
    weighted_along_targets,
    weights_of,
)
from traitmap.analysis.traits.components import Metric, complete
from traitmap.matrix.record import Array

POPULAR = "popularity"
NEAR_TARGETS = "alike targets"
NEAR_SOURCES = "alike sources"
NEAR_BOTH = "alike sources on alike targets"
LEVEL = "level of the target"


@dataclass(frozen=True)
class Variances:
    """Prior variance of each part of z (whose own variance is about 1), and of what no part explains."""

    popularity: float = 0.0
    near_targets: float = 0.0
    near_sources: float = 0.0
    near_both: float = 0.0
    features: float = 0.0
    noise: float = 0.5


@dataclass(frozen=True)
class TwoWay:
    """Posterior mean z (S, T), and its parts: name -> (S, T); weights (F,) of the features given."""

    z: Array
    parts: Mapping[str, Array]
    weights: Array
    centred: Array


def fit_two_way(problem: Problem, design: PairDesign, variances: Variances) -> TwoWay:
    """Posterior mean of z under a sum of independent parts (Rasmussen & Williams 2006, chapter 2).

    Parts, with t, t' targets and s, s' sources: a source's own level (same s), its level on alike targets
    (same s, likeness of t and t'), alike sources' level (likeness of s and s'), alike sources on alike
    targets (product of both), and a line in the features of the pair, each centred over a target's sources.
    """
    rows, columns = np.nonzero(problem.known)
    y = design.z[rows, columns]
    size = design.z.shape
    sources, targets = kernel_of(problem.sources_alike, size[0]), kernel_of(problem.targets_alike, size[1])
    same = np.eye(size[0])
    products = {
        POPULAR: (variances.popularity, same, np.ones((size[1], size[1]))),
        NEAR_TARGETS: (variances.near_targets, same, targets),
        NEAR_SOURCES: (variances.near_sources, sources, np.ones((size[1], size[1]))),
        NEAR_BOTH: (variances.near_both, sources, targets),
    }
    if problem.holdout != "target":
        products[LEVEL] = (variances.popularity, np.ones((size[0], size[0])), np.eye(size[1]))
    centred = design.pair - design.pair.mean(axis=0, keepdims=True)
    centred = centred * np.sqrt(variances.features / max(centred.shape[-1], 1))
    x = centred[rows, columns]
    covariance = x @ x.T + variances.noise * np.eye(len(y))
    for variance, of_sources, of_targets in products.values():
        if variance:
            covariance += variance * of_sources[np.ix_(rows, rows)] * of_targets[np.ix_(columns, columns)]
    solved = np.zeros(size)
    solved[rows, columns] = np.linalg.solve(covariance, y) if len(y) else 0.0
    parts = {
        name: variance * of_sources @ solved @ of_targets
        for name, (variance, of_sources, of_targets) in products.items()
        if variance
    }
    weights = x.T @ solved[rows, columns]
    z = np.sum([centred @ weights, *parts.values()], axis=0)
    return TwoWay(z, parts, weights, centred)


def kernel_of(alike: Sequence[Likeness], size: int) -> Array:
    """(n, n) covariance of tasks: e to the minus unlikeness, the mean over likenesses, positive definite.

    Unlikeness is the distance from the greatest likeness of two different tasks, in standard deviations of
    a likeness over pairs; tasks of which nothing is known are like none.
    """
    found = []
    for one in alike:
        off = ~np.eye(size, dtype=bool) & np.isfinite(one.values)
        if not off.any():
            continue
        spread = one.values[off].std()
        unlike = (one.values[off].max() - one.values) / (spread if spread > 1e-12 else 1.0)
        kernel = np.where(off, np.exp(-np.where(off, unlike, 0.0)), 0.0)
        kernel = (kernel + kernel.T) / 2
        np.fill_diagonal(kernel, 1.0)
        values, vectors = np.linalg.eigh(kernel)
        found.append((vectors * np.maximum(values, 0.0)) @ vectors.T)
    return np.asarray(np.mean(found, axis=0)) if found else np.eye(size)


Parts = Mapping[str, float]
BASELINES = ("random", "popularity", "additive")
LEARNERS = ("ridge", "two-way", "forest", "boosting")
TREES = 100


@dataclass(frozen=True)
class ModelFit:
    """Predicted z (S, T), and for a pair (source, target) what its z is made of, by feature name."""

    z: Array
    parts: Callable[[int, int], Parts]


Model = Callable[[Problem, PairDesign], ModelFit]


@dataclass(frozen=True)
class Candidate:
    """A model with its hyper-parameters. Of each family the inner folds pick one candidate.

    needs: ``features`` of pairs (``several features``: at least 3), ``likeness`` of tasks, or nothing
        beside the known cells.
    """

    family: str
    setting: str
    fit: Model
    needs: Literal["", "features", "several features", "likeness"] = ""

    def possible(self, problem: Problem) -> bool:
        """Whether a problem holds what the model needs."""
        if self.needs in ("features", "several features"):
            return problem.features.shape[-1] >= (1 if self.needs == "features" else 3)
        alike = problem.sources_alike if problem.holdout == "source" else problem.targets_alike
        return self.needs != "likeness" or len(alike) > 0


def random_order(problem: Problem, design: PairDesign) -> ModelFit:
    """No preference: tied sources are scored by the mean over all their orders, so this is random choice."""
    return ModelFit(np.zeros(design.z.shape), lambda source, target: {})


def popularity(problem: Problem, design: PairDesign) -> ModelFit:
    """A source's mean effect on the targets where it is known; a source without any gets the mean of all."""
    known = problem.known
    count = known.sum(axis=1)
    mean = np.where(known, problem.effect, 0.0).sum(axis=1) / np.maximum(count, 1)
    overall = mean[count > 0].mean() if (count > 0).any() else 0.0
    mean = np.where(count > 0, mean, overall)
    spread = mean.std() if mean.std() > 1e-12 else 1.0
    # Only its order counts for the ranking; in points it spreads as little as means of z do.
    z = (mean - mean.mean()) / spread * _spread_of_means(design.z)
    table = np.repeat(z[:, None], design.z.shape[1], axis=1)
    return ModelFit(table, lambda source, target: {"popularity": float(table[source, target])})


def _spread_of_means(z: Array) -> float:
    """How far sources' true means of z lie apart: their variance less what the residual adds."""
    known = np.isfinite(z)
    count = np.maximum(known.sum(axis=1), 1)
    mean = np.where(known, z, 0.0).sum(axis=1) / count
    residual = (np.where(known, z - mean[:, None], 0.0) ** 2).sum() / max(known.sum() - len(z), 1)
    return float(np.sqrt(max(mean.var() - residual / count.mean(), 0.01 * mean.var())))


def additive(problem: Problem, design: PairDesign) -> ModelFit:
    """Row plus column effects of z, each drawn to zero as if one more cell of zero had been seen."""
    known, z = problem.known, np.nan_to_num(design.z)
    rows, columns = np.zeros(len(z)), np.zeros(z.shape[1])
    for _ in range(50):
        rows = (np.where(known, z - columns[None, :], 0.0)).sum(axis=1) / (known.sum(axis=1) + 1)
        columns = (np.where(known, z - rows[:, None], 0.0)).sum(axis=0) / (known.sum(axis=0) + 1)
    columns = np.where(known.any(axis=0), columns, 0.0)
    return ModelFit(
        rows[:, None] + columns[None, :],
        lambda source, target: {"popularity": float(rows[source]), "level of the target": columns[target]},
    )


def low_rank(rank: int) -> Model:
    """Completion of z on ``rank`` traits (regularised iterative PCA), on top of row and column means."""

    def fit(problem: Problem, design: PairDesign) -> ModelFit:
        start = additive(problem, design)
        rest = design.z - start.z
        rows, columns = problem.known.any(axis=1), problem.known.any(axis=0)
        filled = np.zeros_like(rest)
        if rows.sum() > rank + 2 and columns.sum() > rank + 2:
            inside = rest[np.ix_(rows, columns)]
            marked = np.isfinite(inside)
            # Known cells are smoothed too: what is asked for is the fit, not the cell.
            whole = complete(inside, rank, Metric(divide=False), tolerance=1e-4, limit=200)
            left, values, right = np.linalg.svd(whole, full_matrices=False)
            fitted = (left[:, :rank] * values[:rank]) @ right[:rank]
            filled[np.ix_(rows, columns)] = np.where(marked, fitted, whole)
        return ModelFit(
            start.z + filled,
            lambda source, target: {
                **start.parts(source, target),
                "traits": float(filled[source, target]),
            },
        )

    return fit


def nearest(sharpness: float) -> Model:
    """Effects on the targets most alike (and of the sources most alike, where a source is new).

    Weights grow with e^(sharpness x likeness in standard deviations); all likenesses given count alike.
    """

    def fit(problem: Problem, design: PairDesign) -> ModelFit:
        known, z = problem.known, np.nan_to_num(design.z)
        parts: dict[str, Array] = {}
        if problem.holdout != "source":
            for one in problem.targets_alike:
                parts[f"alike targets: {one.name}"] = weighted_along_targets(
                    z, known, weights_of(one.values, sharpness)
                )
        if problem.holdout != "target":
            for one in problem.sources_alike:
                parts[f"alike sources: {one.name}"] = weighted_along_targets(
                    z.T, known.T, weights_of(one.values, sharpness)
                ).T
        if not parts:
            return additive(problem, design)
        share = 1 / len(parts)
        table = share * np.sum(list(parts.values()), axis=0)
        return ModelFit(
            table, lambda source, target: {k: share * float(v[source, target]) for k, v in parts.items()}
        )

    return fit


def one_feature(problem: Problem, design: PairDesign) -> ModelFit:
    """The single feature of pairs that goes best with known effects within targets, by its correlation."""
    pair = design.pair - design.pair.mean(axis=0, keepdims=True)
    known = problem.known
    x, y = pair[known], design.z[known]
    if not len(y) or not x.shape[1]:
        return additive(problem, design)
    power = (x**2).sum(axis=0)
    along = (x * y[:, None]).sum(axis=0)
    at = int(np.argmax(np.abs(along) / np.sqrt(np.where(power > 1e-12, power, np.inf))))
    table = pair[:, :, at] * along[at] / max(power[at], 1e-12)
    name = problem.feature_names[at]
    return ModelFit(table, lambda source, target: {name: float(table[source, target])})


def _rows(problem: Problem, design: PairDesign, use: str) -> tuple[Array, Array, tuple[str, ...]]:
    """Numbers of every pair (S, T, N) to predict from, the same to learn from, and their names."""
    pair, names = design.pair, problem.feature_names
    if use == "pair":
        return pair, pair, names
    if use == "context":
        return design.context, design.trained, design.context_names
    together = np.concatenate([pair, design.context], axis=-1)
    trained = np.concatenate([pair, design.trained], axis=-1)
    return together, trained, (*names, *design.context_names)


def ridge(alpha: float, use: str) -> Model:
    """Linear in what is known of the pair, each number centred over the sources of a target."""

    def fit(problem: Problem, design: PairDesign) -> ModelFit:
        given, trained, names = _rows(problem, design, use)
        known = problem.known
        given, trained = (one - one.mean(axis=0, keepdims=True) for one in (given, trained))
        x, y = trained[known], design.z[known]
        if not len(y) or not x.shape[1]:
            return additive(problem, design)
        spread = x.std(axis=0)
        spread = np.where(spread > 1e-9, spread, np.inf)
        x = x / spread
        weights = np.linalg.solve(x.T @ x + alpha * np.eye(x.shape[1]), x.T @ y) / spread
        return ModelFit(
            given @ weights,
            lambda source, target: dict(zip(names, (given[source, target] * weights).tolist(), strict=True)),
        )

    return fit


def two_way(variances: Variances) -> Model:
    """A Gaussian process over pairs, see ``fit_two_way``; its parts add up exactly."""

    def fit(problem: Problem, design: PairDesign) -> ModelFit:
        found = fit_two_way(problem, design, variances)

        def parts(source: int, target: int) -> Parts:
            told = {name: float(table[source, target]) for name, table in found.parts.items()}
            each = (found.centred[source, target] * found.weights).tolist()
            return {**told, **dict(zip(problem.feature_names, each, strict=True))}

        return ModelFit(found.z, parts)

    return fit


def trees(kind: Literal["forest", "boosting"]) -> Model:
    """Extremely randomised trees (Geurts, Ernst & Wehenkel 2006) or boosted ones over the pair's features.

    What a prediction is made of is found by occlusion: the prediction less the one with that number set to
    its mean over the target's sources.
    """

    def fit(problem: Problem, design: PairDesign) -> ModelFit:
        known, shape = problem.known, design.z.shape
        if not known.any():
            return additive(problem, design)
        pair = design.pair
        grown = _grown(kind, problem.seed).fit(pair[known], design.z[known])
        z = grown.predict(pair.reshape(-1, pair.shape[-1])).reshape(shape)

        def parts(source: int, target: int) -> Parts:
            row = pair[source, target]
            occluded = np.repeat(row[None, :], len(row), axis=0)
            np.fill_diagonal(occluded, pair[:, target].mean(axis=0))
            lost = z[source, target] - grown.predict(occluded)
            return dict(zip(problem.feature_names, lost.tolist(), strict=True))

        return ModelFit(z, parts)

    return fit


def _grown(kind: str, seed: int) -> ExtraTreesRegressor | GradientBoostingRegressor:
    if kind == "forest":
        return ExtraTreesRegressor(TREES, min_samples_leaf=3, max_features=0.5, random_state=seed, n_jobs=1)
    return GradientBoostingRegressor(
        n_estimators=60,
        learning_rate=0.1,
        max_depth=3,
        subsample=0.7,
        max_features=0.2,
        min_samples_leaf=5,
        random_state=seed,
    )


_NEEDS: Mapping[str, Literal["", "features"]] = {"pair": "features", "context": "", "both": "features"}


_TWO_WAY: tuple[tuple[str, Variances, Literal["", "features", "likeness"]], ...] = (
    ("level and targets", Variances(0.2, 0.3), "likeness"),
    ("targets", Variances(0.05, 0.4), "likeness"),
    ("all", Variances(0.2, 0.2, 0.1, 0.2), "likeness"),
    ("products", Variances(0.05, 0.1, 0.05, 0.5), "likeness"),
    ("level and features", Variances(0.2, features=0.2), "features"),
    ("all and features", Variances(0.2, 0.2, 0.1, 0.2, 0.2), "features"),
    ("all and features, smooth", Variances(0.1, 0.1, 0.05, 0.1, 0.1, noise=1.0), "features"),
    ("products and features", Variances(0.05, 0.1, 0.05, 0.5, 0.3), "features"),
)


def _candidates() -> tuple[Candidate, ...]:
    found = [
        Candidate("random", "", random_order),
        Candidate("popularity", "", popularity),
        Candidate("additive", "", additive),
    ]
    found += [Candidate("low rank", f"{rank} traits", low_rank(rank)) for rank in (1, 2, 3)]
    found += [Candidate("nearest", f"sharpness {s:g}", nearest(s), "likeness") for s in (0.5, 1.0, 2.0)]
    found.append(Candidate("one feature", "", one_feature, "features"))
    found += [
        Candidate("ridge", f"alpha {alpha:g}, {use}", ridge(alpha, use), _NEEDS[use])
        for alpha in (30, 300, 3000)
        for use in ("pair", "context", "both")
    ]
    found += [
        Candidate("two-way", setting, two_way(variances), needs) for setting, variances, needs in _TWO_WAY
    ]
    found.append(Candidate("forest", f"{TREES} trees", trees("forest"), "several features"))
    found.append(Candidate("boosting", "60 trees", trees("boosting"), "several features"))
    return tuple(found)


CANDIDATES = _candidates()
FAMILIES: Mapping[str, tuple[Candidate, ...]] = MappingProxyType(
    {
        family: tuple(c for c in CANDIDATES if c.family == family)
        for family in dict.fromkeys(c.family for c in CANDIDATES)
    }
)
