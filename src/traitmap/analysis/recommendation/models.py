"""The models that a recommender chooses from: each takes known effects and features, and fills the table.

A model is a function of a ``Problem`` and its ``PairDesign``. It gives standardised effects z (S, T) for
every pair, known or not, and can tell what a prediction is made of. Models come in families that differ in
their hyper-parameters alone (``FAMILIES``); the inner folds of ``select`` pick one candidate of each. The
catalogue stands at the end; a new model is one function and one line there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
from sklearn.ensemble import ExtraTreesRegressor, GradientBoostingRegressor

from traitmap.analysis.recommendation.problem import (
    FLAT,
    Likeness,
    PairDesign,
    Problem,
    weighted_along_targets,
    weights_of,
)
from traitmap.analysis.traits.components import complete
from traitmap.matrix.record import Array

Parts = Mapping[str, float]
Needs = Literal["", "features", "several features", "likeness"]
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
    needs: Needs = ""

    def possible(self, problem: Problem) -> bool:
        """Whether a problem holds what the model needs."""
        if self.needs in ("features", "several features"):
            return problem.features.shape[-1] >= (1 if self.needs == "features" else 3)
        alike = problem.sources_alike if problem.holdout == "source" else problem.targets_alike
        return self.needs != "likeness" or len(alike) > 0


def random_order(problem: Problem, design: PairDesign) -> ModelFit:
    """No preference: z is 0 everywhere.

    Tied sources are scored by the mean over all their orders, so this is random choice.
    """
    return ModelFit(np.zeros(design.z.shape), lambda source, target: {})


def popularity(problem: Problem, design: PairDesign) -> ModelFit:
    """A source's mean effect on the targets where it is known.

    A source without any known effect gets the mean of all.
    """
    known = problem.known
    count = known.sum(axis=1)
    mean = np.where(known, problem.effect, 0.0).sum(axis=1) / np.maximum(count, 1)
    overall = mean[count > 0].mean() if (count > 0).any() else 0.0
    mean = np.where(count > 0, mean, overall)
    spread = mean.std() if mean.std() > FLAT * np.abs(mean).max(initial=0.0) else np.inf
    # Only its order counts for the ranking; in points it spreads as little as means of z do.
    z = (mean - mean.mean()) / spread * spread_of_means(design.z)
    table = np.repeat(z[:, None], design.z.shape[1], axis=1)
    return ModelFit(table, lambda source, target: {"popularity": float(table[source, target])})


def spread_of_means(z: Array) -> float:
    """How far the true means of z (S, T) of the sources lie apart, as a standard deviation.

    The variance of the means less what the residual adds, but not less than a hundredth of it.
    """
    known = np.isfinite(z)
    count = np.maximum(known.sum(axis=1), 1)
    mean = np.where(known, z, 0.0).sum(axis=1) / count
    residual = (np.where(known, z - mean[:, None], 0.0) ** 2).sum() / max(known.sum() - len(z), 1)
    return float(np.sqrt(max(mean.var() - residual / count.mean(), 0.01 * mean.var())))


def additive(problem: Problem, design: PairDesign) -> ModelFit:
    """Row plus column effects of z, each drawn to zero as if one more cell of zero had been seen.

    Found by alternating means; a target without known cells has the column effect 0.
    """
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
        residual = design.z - start.z
        rows, columns = problem.known.any(axis=1), problem.known.any(axis=0)
        filled = np.zeros_like(residual)
        if rows.sum() > rank + 2 and columns.sum() > rank + 2:
            inside = residual[np.ix_(rows, columns)]
            marked = np.isfinite(inside)
            # Known cells are smoothed too: what is asked for is the fit, not the cell.
            whole = complete(inside, rank, "center", tolerance=1e-4, limit=200)
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
            for alike in problem.targets_alike:
                weights = weights_of(alike.values, sharpness)
                parts[f"alike targets: {alike.name}"] = weighted_along_targets(z, known, weights)
        if problem.holdout != "target":
            for alike in problem.sources_alike:
                weights = weights_of(alike.values, sharpness)
                parts[f"alike sources: {alike.name}"] = weighted_along_targets(z.T, known.T, weights).T
        if not parts:
            return additive(problem, design)
        share = 1 / len(parts)
        table = share * np.sum(list(parts.values()), axis=0)
        return ModelFit(
            table, lambda source, target: {k: share * float(v[source, target]) for k, v in parts.items()}
        )

    return fit


def one_feature(problem: Problem, design: PairDesign) -> ModelFit:
    """The single feature of pairs that goes best with known effects within targets, by its correlation.

    Without features it is the additive model.
    """
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


def ridge(alpha: float, use: Literal["pair", "context", "both"]) -> Model:
    """Linear in what is known of the pair, each number centred over the sources of a target.

    alpha: penalty. use: the features of the pair, what other cells say of it (its context), or both. What is
    learnt from the context is learnt from the one without the cell itself.
    """

    def fit(problem: Problem, design: PairDesign) -> ModelFit:
        names = (*problem.feature_names, *design.context_names)
        used, learnt, names = {
            "pair": (design.pair, design.pair, problem.feature_names),
            "context": (design.context, design.trained, design.context_names),
            "both": (
                np.concatenate([design.pair, design.context], axis=-1),
                np.concatenate([design.pair, design.trained], axis=-1),
                names,
            ),
        }[use]
        known = problem.known
        used, learnt = (table - table.mean(axis=0, keepdims=True) for table in (used, learnt))
        x, y = learnt[known], design.z[known]
        if not len(y) or not x.shape[1]:
            return additive(problem, design)
        spread = x.std(axis=0)
        spread = np.where(spread > 1e-9, spread, np.inf)
        x = x / spread
        weights = np.linalg.solve(x.T @ x + alpha * np.eye(x.shape[1]), x.T @ y) / spread
        return ModelFit(
            used @ weights,
            lambda source, target: dict(zip(names, (used[source, target] * weights).tolist(), strict=True)),
        )

    return fit


def two_way(
    *,
    popularity: float = 0.0,
    near_targets: float = 0.0,
    near_sources: float = 0.0,
    near_both: float = 0.0,
    features: float = 0.0,
    noise: float = 0.5,
) -> Model:
    """A Gaussian process over pairs: a sum of independent parts (Rasmussen & Williams 2006, chapter 2).

    Each setting is the prior variance of one part of z, whose own variance is about 1. With t, t' targets and
    s, s' sources: popularity: a source's own level (same s). near_targets: its level on alike targets (same
    s, likeness of t and t'). near_sources: alike sources' level (likeness of s and s'). near_both: alike
    sources on alike targets (product of both). features: a line in the features of the pair, each centred
    over a target's sources. noise: what no part explains. The parts of a prediction add up exactly.
    """

    def fit(problem: Problem, design: PairDesign) -> ModelFit:
        rows, columns = np.nonzero(problem.known)
        y = design.z[rows, columns]
        size = design.z.shape
        sources, targets = (
            kernel_of(problem.sources_alike, size[0]),
            kernel_of(problem.targets_alike, size[1]),
        )
        same, every = np.eye(size[0]), np.ones((size[1], size[1]))
        products = {
            "popularity": (popularity, same, every),
            "alike targets": (near_targets, same, targets),
            "alike sources": (near_sources, sources, every),
            "alike sources on alike targets": (near_both, sources, targets),
        }
        if problem.holdout != "target":
            level = popularity, np.ones((size[0], size[0])), np.eye(size[1])
            products["level of the target"] = level
        centred = design.pair - design.pair.mean(axis=0, keepdims=True)
        centred = centred * np.sqrt(features / max(centred.shape[-1], 1))
        x = centred[rows, columns]
        covariance = x @ x.T + noise * np.eye(len(y))
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

        def parts_of(source: int, target: int) -> Parts:
            of_features = (centred[source, target] * weights).tolist()
            return {
                **{name: float(table[source, target]) for name, table in parts.items()},
                **dict(zip(problem.feature_names, of_features, strict=True)),
            }

        return ModelFit(np.sum([centred @ weights, *parts.values()], axis=0), parts_of)

    return fit


def kernel_of(alike: Sequence[Likeness], size: int) -> Array:
    """(n, n) covariance of tasks: e to the minus unlikeness, the mean over likenesses, positive definite.

    Unlikeness is the distance from the greatest likeness of two different tasks, in standard deviations of
    a likeness over pairs; tasks of which nothing is known are like none.
    """
    kernels = []
    for likeness in alike:
        off = ~np.eye(size, dtype=bool) & np.isfinite(likeness.values)
        if not off.any():
            continue
        spread = likeness.values[off].std()
        unlike = (likeness.values[off].max() - likeness.values) / (spread if spread > 1e-12 else 1.0)
        kernel = np.where(off, np.exp(-np.where(off, unlike, 0.0)), 0.0)
        kernel = (kernel + kernel.T) / 2
        np.fill_diagonal(kernel, 1.0)
        values, vectors = np.linalg.eigh(kernel)
        kernels.append((vectors * np.maximum(values, 0.0)) @ vectors.T)
    return np.asarray(np.mean(kernels, axis=0)) if kernels else np.eye(size)


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
        grown = _trees(kind, problem.seed).fit(pair[known], design.z[known])
        z = grown.predict(pair.reshape(-1, pair.shape[-1])).reshape(shape)

        def parts(source: int, target: int) -> Parts:
            row = pair[source, target]
            occluded = np.repeat(row[None, :], len(row), axis=0)
            np.fill_diagonal(occluded, pair[:, target].mean(axis=0))
            lost = z[source, target] - grown.predict(occluded)
            return dict(zip(problem.feature_names, lost.tolist(), strict=True))

        return ModelFit(z, parts)

    return fit


def _trees(kind: str, seed: int) -> ExtraTreesRegressor | GradientBoostingRegressor:
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


_RIDGE: tuple[tuple[Literal["pair", "context", "both"], Needs], ...] = (
    ("pair", "features"),
    ("context", ""),
    ("both", "features"),
)
# family, setting, model, what it needs; inner folds pick one of each family
_TWO_WAY: tuple[tuple[str, Model, Needs], ...] = (
    ("level and targets", two_way(popularity=0.2, near_targets=0.3), "likeness"),
    ("targets", two_way(popularity=0.05, near_targets=0.4), "likeness"),
    ("all", two_way(popularity=0.2, near_targets=0.2, near_sources=0.1, near_both=0.2), "likeness"),
    ("products", two_way(popularity=0.05, near_targets=0.1, near_sources=0.05, near_both=0.5), "likeness"),
    ("level and features", two_way(popularity=0.2, features=0.2), "features"),
    (
        "all and features",
        two_way(popularity=0.2, near_targets=0.2, near_sources=0.1, near_both=0.2, features=0.2),
        "features",
    ),
    (
        "all and features, smooth",
        two_way(popularity=0.1, near_targets=0.1, near_sources=0.05, near_both=0.1, features=0.1, noise=1.0),
        "features",
    ),
    (
        "products and features",
        two_way(popularity=0.05, near_targets=0.1, near_sources=0.05, near_both=0.5, features=0.3),
        "features",
    ),
)
_CANDIDATES = (
    Candidate("random", "", random_order),
    Candidate("popularity", "", popularity),
    Candidate("additive", "", additive),
    *(Candidate("low rank", f"{rank} traits", low_rank(rank)) for rank in (1, 2, 3)),
    *(Candidate("nearest", f"sharpness {s:g}", nearest(s), "likeness") for s in (0.5, 1.0, 2.0)),
    Candidate("one feature", "", one_feature, "features"),
    *(
        Candidate("ridge", f"alpha {alpha:g}, {use}", ridge(alpha, use), needs)
        for alpha in (30, 300, 3000)
        for use, needs in _RIDGE
    ),
    *(Candidate("two-way", setting, model, needs) for setting, model, needs in _TWO_WAY),
    Candidate("forest", f"{TREES} trees", trees("forest"), "several features"),
    Candidate("boosting", "60 trees", trees("boosting"), "several features"),
)
FAMILIES: Mapping[str, tuple[Candidate, ...]] = MappingProxyType(
    {
        family: tuple(candidate for candidate in _CANDIDATES if candidate.family == family)
        for family in dict.fromkeys(candidate.family for candidate in _CANDIDATES)
    }
)
