"""From known effects to numbers for every pair: what other targets and sources say of it, free of leaks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from traitmap.analysis.recommendation.problem import Level, Likeness, Problem, folds_of, level_of
from traitmap.matrix_record import Array

SHARPNESS = 1.5  # weight of a task grows e^1.5 per standard deviation of its likeness
PRIOR = 1.0  # cells at zero that every mean is drawn by
CELL_FOLDS = 10


@dataclass(frozen=True)
class Design:
    """Numbers for every pair, and what is to be learnt.

    pair (S, T, F): the features given, centred and scaled, unknown ones 0. context (S, T, C): what the
    known cells of other targets and sources say; ``trained`` is the same for the known cells, each
    computed without the cells that are held out together with it. z (S, T): standardised effects, NaN
    where unknown; level restores them.
    """

    pair: Array
    context: Array
    trained: Array
    context_names: tuple[str, ...]
    context_words: tuple[str, ...]
    z: Array
    level: Level


def design_of(problem: Problem) -> Design:
    """All numbers that the models of a problem share."""
    level = level_of(problem.effect)
    context, names, words = _context(problem)
    trained = context.copy()
    blocks = len(np.unique(problem.blocks[problem.known]))
    count = CELL_FOLDS if problem.holdout == "cell" else blocks
    for held in folds_of(problem, count, problem.seed):
        trained[held] = _context(problem.without(held))[0][held]
    return Design(
        pair=scaled(problem.features),
        context=context,
        trained=trained,
        context_names=names,
        context_words=words,
        z=level.standardise(problem.effect),
        level=level,
    )


def scaled(features: Array) -> Array:
    """Features (S, T, F) with mean 0 and standard deviation 1 over all pairs; unknown ones 0."""
    known = np.isfinite(features)
    count = np.maximum(known.sum(axis=(0, 1)), 1)
    mean = np.where(known, features, 0.0).sum(axis=(0, 1)) / count
    centred = np.where(known, features - mean, 0.0)
    spread = np.sqrt((centred**2).sum(axis=(0, 1)) / count)
    return centred / np.where(spread > 1e-12, spread, 1.0)


def _context(problem: Problem) -> tuple[Array, tuple[str, ...], tuple[str, ...]]:
    """(S, T, C) what the known cells say of every pair, with names and words."""
    known = problem.known
    z = np.where(known, level_of(problem.effect).standardise(problem.effect), 0.0)
    columns: list[tuple[str, str, Array]] = []
    if problem.holdout != "source":
        popular = z.sum(axis=1) / (known.sum(axis=1) + PRIOR)
        columns.append(("popularity", "helps other targets", np.repeat(popular[:, None], z.shape[1], 1)))
        for one in problem.targets_alike:
            near = weighted_along_targets(z, known, weights_of(one.values))
            columns.append((f"alike targets: {one.name}", f"helps targets alike in {one.words}", near))
    if problem.holdout != "target":
        for one in problem.sources_alike:
            near = weighted_along_targets(z.T, known.T, weights_of(one.values)).T
            columns.append(
                (f"alike sources: {one.name}", f"sources alike in {one.words} help this target", near)
            )
    else:
        for one in problem.sources_alike:
            others = weights_of(one.values)
            near = (others @ z.sum(axis=1)) / (others @ known.sum(axis=1) + 1e-9)
            columns.append(
                (
                    f"popularity of alike sources: {one.name}",
                    f"sources alike in {one.words} help other targets",
                    np.repeat(near[:, None], z.shape[1], 1),
                )
            )
    if not columns:
        return np.empty((*z.shape, 0)), (), ()
    names, words, values = zip(*columns, strict=True)
    return np.stack(values, axis=-1), names, words


def weights_of(alike: Array, sharpness: float = SHARPNESS) -> Array:
    """(n, n) weights of every other task for each task, growing with likeness; 0 for the task itself."""
    off = ~np.eye(len(alike), dtype=bool) & np.isfinite(alike)
    count = np.maximum(off.sum(axis=1, keepdims=True), 1)
    mean = np.where(off, alike, 0.0).sum(axis=1, keepdims=True) / count
    centred = np.where(off, alike - mean, 0.0)
    spread = np.sqrt((centred**2).sum(axis=1, keepdims=True) / count)
    return np.where(off, np.exp(sharpness * centred / np.where(spread > 1e-12, spread, 1.0)), 0.0)


def weighted_along_targets(z: Array, known: NDArray[np.bool_], weights: Array) -> Array:
    """(S, T) mean of each source's known z over the other targets, weighted by (T, T) weights.

    Weights are scaled to a mean of 1, so that the cell at zero that draws the mean counts the same in all.
    """
    scale = weights.sum(axis=1, keepdims=True) / np.maximum((weights > 0).sum(axis=1, keepdims=True), 1)
    even = weights / np.where(scale > 0, scale, 1.0)
    return (z @ even.T) / (known.astype(float) @ even.T + PRIOR)


def likeness_of_profiles(profiles: Array, name: str, words: str) -> Likeness:
    """Likeness of tasks as minus the distance of their profiles (n, F), each number scaled over tasks."""
    known = np.isfinite(profiles)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, profiles, 0.0).sum(axis=0) / count
    centred = np.where(known, profiles - mean, 0.0)
    spread = np.sqrt((centred**2).sum(axis=0) / count)
    unit = centred / np.where(spread > 1e-12, spread, 1.0)
    distance = np.sqrt(((unit[:, None, :] - unit[None, :, :]) ** 2).mean(axis=-1))
    return Likeness(name, words, -distance)
