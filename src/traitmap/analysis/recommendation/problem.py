"""What a model may see: known effects, features of every pair, and who resembles whom."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from traitmap.matrix_record import Array

Holdout = Literal["target", "source", "cell"]
Blocks = NDArray[np.int64]

FULL_LEVEL = 10  # known cells from which on a target's own centre and spread are taken as they are


@dataclass(frozen=True)
class Likeness:
    """How alike the tasks of one axis are, in one respect; (n, n), higher is more alike, NaN unknown."""

    name: str
    words: str
    values: Array


@dataclass(frozen=True)
class Problem:
    """Effects to be predicted. Axis order is always (sources, targets).

    effect: (S, T), NaN where the model may not look. features: (S, T, F) of the pairs, NaN unknown, with
    their names and words. targets_alike, sources_alike: similarities along either axis.
    holdout: what is new where a prediction is wanted; blocks: (S, T) cells of one number are held out
    together. own: (S, T) whether source and target are the same task.
    base: (T,) the base's score. seed: of whatever is random.
    """

    effect: Array
    features: Array
    feature_names: tuple[str, ...]
    feature_words: tuple[str, ...]
    targets_alike: tuple[Likeness, ...]
    sources_alike: tuple[Likeness, ...]
    holdout: Holdout
    blocks: Blocks
    own: NDArray[np.bool_]
    base: Array
    seed: int = 0

    @property
    def known(self) -> NDArray[np.bool_]:
        return np.isfinite(self.effect)

    def without(self, held: NDArray[np.bool_]) -> Problem:
        """The problem with the cells of ``held`` (S, T) hidden.

        Where a target is new, it is no source either: the rows of the hidden columns' own tasks go too.
        """
        hidden: NDArray[np.bool_] = held
        if self.holdout == "target":
            new = np.flatnonzero(held.any(axis=0))
            gone = self.own[:, new].any(axis=1)
            hidden = held | gone.reshape(-1, 1)
        return replace(self, effect=np.where(hidden, np.nan, self.effect))


@dataclass(frozen=True)
class Level:
    """Where the effects on each target lie and how far they spread: z = (effect - centre) / spread.

    centre, spread: (T,), drawn to those of all targets where few cells are known.
    """

    centre: Array
    spread: Array

    def standardise(self, effect: Array) -> Array:
        return (effect - self.centre) / self.spread

    def restore(self, z: Array) -> Array:
        return z * self.spread + self.centre


def level_of(effect: Array) -> Level:
    """Centre and spread of every target's known effects (S, T).

    A target without known cells gets the median centre and the median spread of the others; one with
    fewer than ten is drawn to them in proportion.
    """
    known = np.isfinite(effect)
    count = known.sum(axis=0)
    filled = np.where(known, effect, 0.0)
    mean = filled.sum(axis=0) / np.maximum(count, 1)
    variance = (np.where(known, effect - mean, 0.0) ** 2).sum(axis=0) / np.maximum(count - 1, 1)
    enough = count >= 3
    pool = enough if enough.any() else count > 0
    middle = float(np.median(mean[pool])) if pool.any() else 0.0
    usual = float(np.median(np.sqrt(variance[pool]))) if pool.any() else 1.0
    weight = np.minimum(count / FULL_LEVEL, 1.0)
    centre = weight * mean + (1 - weight) * middle
    spread = np.sqrt(weight * variance + (1 - weight) * usual**2)
    return Level(centre, np.where(spread > 1e-12, spread, usual if usual > 1e-12 else 1.0))


def folds_of(problem: Problem, count: int, seed: int) -> list[NDArray[np.bool_]]:
    """Masks (S, T) of cells to hold out together: whole blocks, dealt out at random to ``count`` folds."""
    known = problem.known
    names = np.unique(problem.blocks[known])
    order = np.random.default_rng(seed).permutation(len(names))
    parts = np.array_split(names[order], min(count, len(names)))
    masks = [known & np.isin(problem.blocks, part) for part in parts]
    return [mask for mask in masks if mask.any()]
