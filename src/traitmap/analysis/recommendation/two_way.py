"""A Gaussian process over pairs: alike sources and targets do alike, and features add a linear part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from traitmap.analysis.recommendation.design import Design
from traitmap.analysis.recommendation.problem import Likeness, Problem
from traitmap.matrix_record import Array

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


def fit_two_way(problem: Problem, design: Design, variances: Variances) -> TwoWay:
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
