"""The models that a recommender chooses from: each takes known effects and features, and fills the table.

A model is a function of a ``Problem`` and its ``PairDesign``. It learns the merits of sources on targets
and gives one for every pair, z (S, T), known or not, and can tell what a prediction is made of. Models come
in families that differ in their hyper-parameters alone (``FAMILIES``); the inner folds of ``select`` pick one
candidate of each. The catalogue stands at the end; a new model is one function and one line there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
from scipy import linalg

from traitmap.analysis.recommendation.prior import COLUMNS, columns_of, pooled_weights
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
Needs = Literal["", "features", "several features", "likeness", "prior", "cells"]
BASELINES = ("random", "popularity", "additive")
PRIOR_RIDGE = 30.0
LEARNERS = ("ridge", "two-way", "smooth")


@dataclass(frozen=True)
class ModelFit:
    """Predicted merits z (S, T), and for a pair (source, target) what its z is made of, by feature name."""

    z: Array
    parts: Callable[[int, int], Parts]


Model = Callable[[Problem, PairDesign], ModelFit]


@dataclass(frozen=True)
class Candidate:
    """A model with its hyper-parameters. Of each family the inner folds pick one candidate.

    needs: ``features`` of pairs (``several features``: at least 3), ``likeness`` of tasks, other
        people's matrices (``prior``), single cells that are unknown (``cells``: for whole targets the
        model is the additive one), or nothing beside the known cells.
    """

    family: str
    setting: str
    fit: Model
    needs: Needs = ""

    def possible(self, problem: Problem) -> bool:
        """Whether a problem holds what the model needs."""
        if self.needs == "cells":
            return problem.holdout == "cell"
        if self.needs == "prior":
            return problem.prior is not None and problem.holdout == "target"
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
    known, z = problem.known, np.nan_to_num(design.merit)
    rows, columns = np.zeros(len(z)), np.zeros(z.shape[1])
    for _ in range(50):
        before = rows
        rows = (np.where(known, z - columns[None, :], 0.0)).sum(axis=1) / (known.sum(axis=1) + 1)
        columns = (np.where(known, z - rows[:, None], 0.0)).sum(axis=0) / (known.sum(axis=0) + 1)
        if np.abs(rows - before).max(initial=0.0) < 1e-12:
            break
    columns = np.where(known.any(axis=0), columns, 0.0)
    return ModelFit(
        rows[:, None] + columns[None, :],
        lambda source, target: {"popularity": float(rows[source]), "level of the target": columns[target]},
    )


def low_rank(rank: int) -> Model:
    """Completion of z on ``rank`` traits (regularised iterative PCA), on top of row and column means."""

    def fit(problem: Problem, design: PairDesign) -> ModelFit:
        start = additive(problem, design)
        residual = design.merit - start.z
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
        known, z = problem.known, np.nan_to_num(design.merit)
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
    x, y = pair[known], design.merit[known]
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
        x, y = learnt[known], design.merit[known]
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
        y = design.merit[rows, columns]
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
        solved[rows, columns] = _solve(covariance, y)
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
    """(n, n) covariance of tasks, the mean of those of their likenesses; tasks of which nothing is known are
    like none."""
    kernels = [likeness.kernel for likeness in alike if likeness.tells]
    return np.asarray(np.mean(kernels, axis=0)) if kernels else np.eye(size)


def smooth(length: float, *, popularity: float, nearness: float = 0.5, noise: float = 0.5) -> Model:
    """A Gaussian process over pairs whose effects change smoothly with the features: sees what no line can.

    Prior variances of z: popularity, a source's own level; nearness, a squared exponential in the features of
    the pair, F of them, of length ``length`` x sqrt(F) standard deviations; noise, what neither explains.
    What a prediction is made of is found by occlusion: the prediction less the one with that number set to
    its mean over the target's sources.
    """

    def fit(problem: Problem, design: PairDesign) -> ModelFit:
        shape = design.z.shape
        rows, columns = np.nonzero(problem.known)
        pair = design.pair / (length * np.sqrt(2 * max(design.pair.shape[-1], 1)))
        known = pair[rows, columns]
        every = _squared_exponential(pair.reshape(-1, pair.shape[-1]), known)
        near = every[rows * shape[1] + columns]
        covariance = nearness * near + popularity * (rows[:, None] == rows[None, :])
        covariance[np.diag_indices(len(rows))] += noise
        solved = _solve(covariance, design.merit[rows, columns])
        level = popularity * np.bincount(rows, weights=solved, minlength=shape[0])
        by_features = nearness * (every @ solved).reshape(shape)

        def parts(source: int, target: int) -> Parts:
            row = pair[source, target]
            occluded = np.repeat(row[None, :], len(row), axis=0)
            np.fill_diagonal(occluded, pair[:, target].mean(axis=0))
            lost = by_features[source, target] - nearness * _squared_exponential(occluded, known) @ solved
            whole = dict(zip(problem.feature_names, lost.tolist(), strict=True))
            return {"popularity": float(level[source]), **whole}

        return ModelFit(level[:, None] + by_features, parts)

    return fit


def with_prior(pull: float) -> Model:
    """Popularity here, what priors say of the cell, and popularity there: a line whose weights are learnt.

    Learnt on the priors, each held against the others, and drawn from there to what the known cells of this
    matrix say; these also tell which priors are more like this matrix than others. pull: cells of this
    matrix that the priors' weights count for (``prior.columns_of``).
    """

    def fit(problem: Problem, design: PairDesign) -> ModelFit:
        assert problem.prior is not None
        blocks, count = problem.blocks[0], len(problem.prior.merit)
        single = np.moveaxis(np.nan_to_num(problem.prior.merit), 0, -1)
        x = np.concatenate(
            [columns_of(problem.prior, design.merit, blocks), single - single.mean(axis=0)], axis=-1
        )
        known = problem.known
        there = np.append(pooled_weights(problem.prior, blocks, PRIOR_RIDGE), np.zeros(count))
        y = design.merit[known] - x[known] @ there
        weights = there + np.linalg.solve(x[known].T @ x[known] + pull * np.eye(3 + count), x[known].T @ y)

        def parts(source: int, target: int) -> Parts:
            given = x[source, target] * weights
            given[1] += given[3:].sum()  # what single priors add to what all say
            return dict(zip(COLUMNS, given[:3].tolist(), strict=True))

        return ModelFit(x @ weights, parts)

    return fit


def _squared_exponential(one: Array, other: Array) -> Array:
    """(n, m) e to the minus squared distance of the rows of (n, F) and (m, F)."""
    squared = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1)[None, :] - 2 * one @ other.T
    return np.asarray(np.exp(-np.maximum(squared, 0.0)))


def _solve(covariance: Array, y: Array) -> Array:
    """covariance^-1 y of a positive definite (N, N)."""
    if not len(y):
        return y
    return np.asarray(linalg.cho_solve(linalg.cho_factor(covariance, lower=True, overwrite_a=True), y))


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
    *(Candidate("low rank", f"{rank} traits", low_rank(rank), "cells") for rank in (1, 2, 3)),
    *(Candidate("nearest", f"sharpness {s:g}", nearest(s), "likeness") for s in (0.5, 1.0, 2.0)),
    Candidate("one feature", "", one_feature, "features"),
    *(
        Candidate("ridge", f"alpha {alpha:g}, {use}", ridge(alpha, use), needs)
        for alpha in (30, 300, 3000)
        for use, needs in _RIDGE
    ),
    *(Candidate("two-way", setting, model, needs) for setting, model, needs in _TWO_WAY),
    *(
        Candidate(
            "smooth",
            f"length {length:g}, level {level:g}",
            smooth(length, popularity=level),
            "several features",
        )
        for length in (1.0, 2.0)
        for level in (0.05, 0.2)
    ),
    *(
        Candidate("prior", f"priors' weights for {pull:g} cells", with_prior(pull), "prior")
        for pull in (30.0, 100.0, 300.0)
    ),
)
FAMILIES: Mapping[str, tuple[Candidate, ...]] = MappingProxyType(
    {
        family: tuple(candidate for candidate in _CANDIDATES if candidate.family == family)
        for family in dict.fromkeys(candidate.family for candidate in _CANDIDATES)
    }
)
