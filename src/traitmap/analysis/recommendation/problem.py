"""What a recommender predicts, and what a model may see of it.

The chapter goes from a transfer matrix to numbers for every pair:

1. units: how each target is measured, and a whole matrix in the unit of one target;
2. effects: what is predicted (``EffectTable``), in one direction, higher is better;
3. the problem: known effects, features of pairs and likenesses of tasks, with the cells that are held out
   together (``Problem``);
4. the design: numbers for every pair of a problem (``PairDesign``), what other targets and sources say of it
   among them, each computed without the cells that are held out together with the pair.

Axis order is always (sources, targets): S sources, T targets, F features. Nothing here may look at a cell
that a problem hides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from traitmap import metrics as catalogue
from traitmap.errors import MatrixError
from traitmap.matrix.record import Array, TransferMatrix
from traitmap.metrics import SHARE
from traitmap.wording import counted

if TYPE_CHECKING:
    from traitmap.analysis.recommendation.prior import MatchedPriors

Holdout = Literal["target", "source", "cell"]
Values = Literal["score", "relchange"]
Blocks = NDArray[np.int64]

AS_GIVEN = "as given"
LEAST_ALIKE = 5  # targets from which it can be told what is usual for one like them
NOISE_ALIKE = 0.5  # variance of a target's centre or spread that its likeness to others does not tell
FULL_LEVEL = 10  # known cells from which on a target's own centre and spread are taken as they are
SHARPNESS = 1.5  # weight of a task grows e^1.5 per standard deviation of its likeness
PRIOR = 1.0  # cells at zero that every mean is drawn by
CELL_FOLDS = 10
FLAT = 1e-9  # of the largest value, up to which differences are those of rounding


def units_of(matrix: TransferMatrix) -> tuple[str, ...]:
    """(T,) units of the targets: ``share`` (of right answers, 0 to 1), else the metric, else ``as given``.

    A target counts as shares where all its values lie in 0 to 1 and its metric may be a share. A table
    without names of metrics is taken to be in one unit.
    """
    metrics: dict[str, str] = {}
    for cell in (*matrix.base_cells, *matrix.cells):
        if cell.metric:
            metrics.setdefault(cell.target, cell.metric)
    columns = [np.append(matrix.values[:, t], matrix.baseline[t]) for t in range(len(matrix.targets))]
    known = [column[np.isfinite(column)] for column in columns]
    shares = [bool(np.all((values >= 0) & (values <= 1))) for values in known]
    units = []
    for name, share in zip(matrix.targets, shares, strict=True):
        metric = metrics.get(name, "")
        if not metric:
            units.append(SHARE if all(shares) else AS_GIVEN)
        else:
            units.append(SHARE if share and catalogue.metric(metric).may_be_share else metric)
    return tuple(units)


def factor_of(matrix: TransferMatrix, target: str) -> float:
    """Factor from the target's unit to points: 100 for shares, 1 for anything else.

    The target must be a column of the matrix.
    """
    return 100.0 if units_of(matrix)[matrix.targets.index(target)] == SHARE else 1.0


def unit_for(matrix: TransferMatrix, target: str) -> str:
    """The unit of a target, as in ``units_of``.

    A target that the matrix does not have gets the unit that most of its targets have.
    """
    units = units_of(matrix)
    if target in matrix.targets:
        return units[matrix.targets.index(target)]
    return max(dict.fromkeys(units), key=units.count)


def flat_targets(values: Array) -> NDArray[np.bool_]:
    """(T,) targets with two known values or more, and the same for all sources (S, T) up to rounding.

    They say nothing of which source is better.
    """
    known = np.isfinite(values)
    several = known.sum(axis=0) > 1
    highest = np.where(known, values, -np.inf).max(axis=0, initial=-np.inf)
    lowest = np.where(known, values, np.inf).min(axis=0, initial=np.inf)
    size = np.where(known, np.abs(values), 0.0).max(axis=0, initial=0.0)
    span = np.where(several, highest, 0.0) - np.where(several, lowest, 0.0)
    return np.asarray(several & (span <= FLAT * size))


def in_unit(matrix: TransferMatrix, unit: str) -> tuple[TransferMatrix, tuple[str, ...]]:
    """The matrix with gains in other units stretched to the usual spread of those in ``unit``; their names.

    Within a target nothing changes but the scale, so that what it says of the sources' order stays.
    """
    gains = np.where(np.isfinite(matrix.gains), matrix.gains, np.nan)
    spread = np.array([np.nanstd(gain) if np.isfinite(gain).sum() > 1 else np.nan for gain in gains.T])
    same = np.array([other == unit for other in units_of(matrix)])
    usable = np.isfinite(spread) & (spread > 0) & ~flat_targets(matrix.values)
    if same.all() or not (same & usable).any():
        return matrix, ()
    usual = float(np.median(spread[same & usable]))
    scale = np.where(~same & usable, usual / np.where(usable, spread, 1.0), 1.0)
    stretched = tuple(name for name, inside in zip(matrix.targets, same, strict=True) if not inside)
    return replace(matrix, values=matrix.baseline + gains * scale), stretched


@dataclass(frozen=True)
class EffectTable:
    """Effects of sources on targets. Axis order is always (sources, targets).

    effect: (S, T) what is predicted, higher is better, NaN where unknown: the gain over the base where the
        base is known for every target, else the score; with ``relchange`` the relative change.
    score: (S, T) what regrets are relative to, in the metric's own direction turned to higher is better;
        with ``relchange`` 1 + change, the score in units of the base's.
    zero: (T,) the effect at which a source equals the base; NaN where no base is known.
    unit: the unit of ``effect`` in words.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    effect: Array
    score: Array
    zero: Array
    unit: str


def effects_of(matrix: TransferMatrix, values: Values = "score") -> EffectTable:
    """Effects of a matrix; a source on the target of its own name (its in-task cell) is left out.

    values: ``score``: gains over the base where it is known, else scores. ``relchange``: relative change
    over the base; a matrix without base is taken to hold relative changes already.
    Raises MatrixError where fewer than three sources or three targets have known cells.
    """
    if values not in ("score", "relchange"):
        raise MatrixError(f"values {values!r} are unknown; use 'score' or 'relchange'")
    sign = np.array([1.0 if matrix.higher_is_better.get(name, True) else -1.0 for name in matrix.targets])
    same = same_names(matrix.sources, matrix.targets)
    table = np.where(same, np.nan, np.asarray(matrix.values, dtype=float)).reshape(same.shape)
    based = bool(np.isfinite(matrix.baseline).all()) and len(matrix.targets) > 0
    base = np.asarray(matrix.baseline, dtype=float)
    if values == "relchange":
        # A base of zero leaves its target unknown.
        scale = np.where(base == 0, np.nan, np.abs(base))
        effect = sign * (table - base) / scale if based else sign * table
        score, zero, unit = 1 + effect, np.zeros(len(sign)), "share of the base's score"
    elif based:
        effect, zero = sign * (table - base), np.zeros(len(sign))
        score, unit = sign * table, "score above the base's"
    else:
        effect, zero = sign * table, np.full(len(sign), np.nan)
        score, unit = effect, "score"
    known = np.isfinite(effect)
    rows, columns = int(known.any(axis=1).sum()), int((known.sum(axis=0) > 1).sum())
    if rows < 3 or columns < 3:
        raise MatrixError(
            f"{counted(rows, 'source')} and {counted(columns, 'target')} have known cells (a "
            "source's cell on its own target "
            "counts as unknown); a recommender needs at least 3 of each"
        )
    return EffectTable(matrix.sources, matrix.targets, effect, score, zero, unit)


def same_names(sources: tuple[str, ...], targets: tuple[str, ...]) -> NDArray[np.bool_]:
    """(S, T) whether source and target are the same task, by name."""
    return np.array([[source == target for target in targets] for source in sources])


@dataclass(frozen=True)
class Likeness:
    """How alike the tasks of one axis are, in one respect; (n, n), higher is more alike, NaN unknown."""

    name: str
    words: str
    values: Array

    @property
    def tells(self) -> bool:
        """Whether the likeness of any two tasks is known."""
        return bool((~np.eye(len(self.values), dtype=bool) & np.isfinite(self.values)).any())

    @cached_property
    def kernel(self) -> Array:
        """(n, n) covariance of tasks: e to the minus unlikeness, made positive definite.

        Unlikeness is the distance from the greatest likeness of two different tasks, in standard deviations
        over pairs; tasks of which nothing is known are like none.
        """
        off = ~np.eye(len(self.values), dtype=bool) & np.isfinite(self.values)
        spread = self.values[off].std()
        unlike = (self.values[off].max() - self.values) / (spread if spread > 1e-12 else 1.0)
        kernel = np.where(off, np.exp(-np.where(off, unlike, 0.0)), 0.0)
        kernel = (kernel + kernel.T) / 2
        np.fill_diagonal(kernel, 1.0)
        values, vectors = np.linalg.eigh(kernel)
        return np.asarray((vectors * np.maximum(values, 0.0)) @ vectors.T)


@dataclass(frozen=True)
class Problem:
    """Effects to be predicted. Axis order is always (sources, targets).

    effect: (S, T), NaN where the model may not look. features: (S, T, F) of the pairs, NaN unknown, with
    their names and words. targets_alike, sources_alike: similarities along either axis.
    holdout: what is new where a prediction is wanted; blocks: (S, T) cells of one number are held out
    together. own: (S, T) whether source and target are the same task. seed: of whatever is random.
    prior: other people's matrices, laid over this one.
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
    seed: int = 0
    prior: MatchedPriors | None = None

    @property
    def known(self) -> NDArray[np.bool_]:
        """(S, T) cells that the model may look at."""
        return np.isfinite(self.effect)

    def without(self, held: NDArray[np.bool_]) -> Problem:
        """The problem with the cells of ``held`` (S, T) hidden.

        Where a target is new, it is no source either: the rows of the hidden columns' own tasks go too.
        """
        hidden = held
        if self.holdout == "target":
            new = np.flatnonzero(held.any(axis=0))
            hidden = held | self.own[:, new].any(axis=1).reshape(-1, 1)
        return replace(self, effect=np.where(hidden, np.nan, self.effect))


def level_of(effect: Array, targets_alike: Sequence[Likeness] = ()) -> tuple[Array, Array]:
    """Centre and spread (T,) of every target's known effects (S, T): z = (effect - centre) / spread.

    A target without known cells gets the usual centre and spread, one with fewer than ten is drawn to them in
    proportion. Usual is the median over the others, moved to those that are like the target (``_expected``).
    A target on which all sources do the same has no spread of its own, and is not asked for the usual one.
    Nothing depends on the unit of the table.
    """
    known = np.isfinite(effect)
    count = known.sum(axis=0)
    filled = np.where(known, effect, 0.0)
    mean = filled.sum(axis=0) / np.maximum(count, 1)
    variance = (np.where(known, effect - mean, 0.0) ** 2).sum(axis=0) / np.maximum(count - 1, 1)
    own = np.sqrt(variance)
    enough = count >= 3
    pool = enough if enough.any() else count > 0
    largest = float(np.abs(filled).max(initial=0.0))
    varies = own > FLAT * largest
    asked = pool & varies if (pool & varies).any() else pool
    usual = float(np.median(own[asked])) if asked.any() else 1.0
    weight = np.minimum(count / FULL_LEVEL, 1.0)
    few = weight < 1
    middle = _expected(mean, pool, targets_alike, few) if pool.any() else np.zeros(len(mean))
    likely = np.full(len(own), usual)
    if (asked & varies).any():
        logs = np.log(np.where(own > 0, own, 1.0))
        likely = np.exp(_expected(logs, asked & varies, targets_alike, few))
    centre = weight * mean + (1 - weight) * middle
    spread = np.sqrt(weight * variance + (1 - weight) * likely**2)
    least = FLAT * max(usual, largest)
    return centre, np.where(spread > least, spread, usual if usual > least else largest or 1.0)


def _expected(
    values: Array, pool: NDArray[np.bool_], alike: Sequence[Likeness], wanted: NDArray[np.bool_]
) -> Array:
    """(T,) what the numbers of targets in the pool let expect of every target, itself left out.

    Their median, and for those ``wanted`` what a Gaussian process over the likenesses adds to it. Numbers
    beyond Tukey's fences count as the fences: a single target in another unit must not move those that are
    like it.
    """
    expected = np.full(len(values), np.median(values[pool]))
    tells = [likeness.kernel for likeness in alike if likeness.tells]
    if not tells or pool.sum() < LEAST_ALIKE:
        return expected
    kernel = np.mean(tells, axis=0)
    low, high = np.quantile(values[pool], [0.25, 0.75])
    values = np.clip(values, low - 1.5 * (high - low), high + 1.5 * (high - low))
    for target in np.flatnonzero(wanted):
        others = np.flatnonzero(pool & (np.arange(len(values)) != target))
        middle = np.median(values[others])
        covariance = kernel[np.ix_(others, others)] + NOISE_ALIKE * np.eye(len(others))
        expected[target] = middle + kernel[target, others] @ np.linalg.solve(
            covariance, values[others] - middle
        )
    return expected


def folds_of(problem: Problem, count: int, seed: int) -> list[NDArray[np.bool_]]:
    """Masks (S, T) of known cells to hold out together: whole blocks, assigned at random to ``count`` folds.

    There are fewer folds where there are fewer blocks. The same seed gives the same folds.
    """
    known = problem.known
    names = np.unique(problem.blocks[known])
    order = np.random.default_rng(seed).permutation(len(names))
    parts = np.array_split(names[order], min(count, len(names)))
    masks = [known & np.isin(problem.blocks, part) for part in parts]
    return [mask for mask in masks if mask.any()]


def remoteness(problem: Problem) -> Array:
    """(T, L) how far each target lies from the nearest other one that has known effects, in every likeness.

    In standard deviations of the likeness over pairs, NaN where unknown. Targets that are held out together
    are not neighbours of each other.
    """
    size = problem.effect.shape[1]
    block = problem.blocks[0] if problem.holdout == "target" else np.arange(size)
    apart = np.not_equal.outer(block, block) & np.asarray(problem.known.any(axis=0))
    table = np.full((size, len(problem.targets_alike)), np.nan)
    for column, likeness in zip(table.T, problem.targets_alike, strict=True):
        off = ~np.eye(size, dtype=bool) & np.isfinite(likeness.values)
        if not off.any():
            continue
        nearest = np.where(off & apart, likeness.values, -np.inf).max(axis=1)
        spread = likeness.values[off].std()
        distance = (likeness.values[off].max() - nearest) / (spread if spread > 1e-12 else 1.0)
        column[:] = np.where(np.isfinite(nearest), distance, np.nan)
    return table


@dataclass(frozen=True)
class PairDesign:
    """Numbers for every pair, and what is to be learnt.

    pair (S, T, F): the features given, centred and scaled, unknown ones 0. context (S, T, C): what the
    known cells of other targets and sources say; ``trained`` is the same for the known cells, each
    computed without the cells that are held out together with it. z (S, T): standardised effects, NaN
    where unknown; centre, spread (T,) restore them. merit (S, T): what models learn, see ``merits``.
    """

    pair: Array
    context: Array
    trained: Array
    context_names: tuple[str, ...]
    context_words: tuple[str, ...]
    z: Array
    merit: Array
    centre: Array
    spread: Array


def design_of(problem: Problem) -> PairDesign:
    """All numbers that the models of a problem share.

    The context of a known cell is computed anew without the cells that are held out together with it, so
    that what is learnt from it holds for a cell that is not known.
    """
    centre, spread = level_of(problem.effect, problem.targets_alike)
    context, names, words = _context(problem)
    trained = context.copy()
    blocks = len(np.unique(problem.blocks[problem.known]))
    count = CELL_FOLDS if problem.holdout == "cell" else blocks
    for held in folds_of(problem, count, problem.seed):
        trained[held] = _context(problem.without(held))[0][held]
    return PairDesign(
        pair=scaled(problem.features),
        context=context,
        trained=trained,
        context_names=names,
        context_words=words,
        z=(problem.effect - centre) / spread,
        merit=merits(problem.effect),
        centre=centre,
        spread=spread,
    )


def merits(effect: Array) -> Array:
    """(S, T) what a source's place on a target is worth: Savage scores, standardised within each target.

    The source at place i of n, counted from the worst, gets the sum of 1/n + 1/(n-1) + ... of i terms, the
    expected i-th of n waiting times: the first places lie far apart and the last ones close together, as
    whoever picks sees them, and no single collapsed source decides what is learnt (I. R. Savage, Annals of
    Mathematical Statistics 27:590-615, 1956). Tied effects (S, T) share their mean; unknown ones are NaN.
    """
    table = np.full(effect.shape, np.nan)
    for t in range(effect.shape[1]):
        known = np.isfinite(effect[:, t])
        count = int(known.sum())
        if not count:
            continue
        values = effect[known, t]
        order = np.argsort(values, kind="stable")
        apart = np.diff(values[order]) > FLAT * np.abs(values).max()
        group = np.append(0, np.cumsum(apart))  # of every place, counted from the worst
        ties = np.bincount(group)
        score = np.cumsum(1 / np.arange(count, 0, -1.0))
        first = np.cumsum(ties) - ties
        total = np.append(0.0, np.cumsum(score))
        mean = np.empty(count)
        mean[order] = ((total[first + ties] - total[first]) / ties)[group]
        spread = mean.std(ddof=1) if len(ties) > 1 else 1.0
        table[known, t] = (mean - mean.mean()) / spread
    return table


def scaled(features: Array) -> Array:
    """Features (S, T, F) with mean 0 and standard deviation 1 over all pairs; unknown ones 0."""
    centred, spread = centred_and_spread(features, (0, 1))
    return centred / spread


def centred_and_spread(values: Array, axis: int | tuple[int, ...]) -> tuple[Array, Array]:
    """Values less their mean along an axis, 0 where unknown, and their standard deviation there.

    The standard deviation keeps its axis, of length 1, and is 1 where nothing varies.
    """
    known = np.isfinite(values)
    count = np.maximum(known.sum(axis=axis, keepdims=True), 1)
    mean = np.where(known, values, 0.0).sum(axis=axis, keepdims=True) / count
    centred = np.where(known, values - mean, 0.0)
    spread = np.sqrt((centred**2).sum(axis=axis, keepdims=True) / count)
    return centred, np.where(spread > 1e-12, spread, 1.0)


def _context(problem: Problem) -> tuple[Array, tuple[str, ...], tuple[str, ...]]:
    """(S, T, C) what the known cells say of every pair, with names and words."""
    known = problem.known
    centre, spread = level_of(problem.effect, problem.targets_alike)
    z = np.where(known, (problem.effect - centre) / spread, 0.0)
    columns: list[tuple[str, str, Array]] = []
    if problem.holdout != "source":
        popular = z.sum(axis=1) / (known.sum(axis=1) + PRIOR)
        columns.append(("popularity", "helps other targets", np.repeat(popular[:, None], z.shape[1], 1)))
        for alike in problem.targets_alike:
            near = weighted_along_targets(z, known, weights_of(alike.values))
            columns.append((f"alike targets: {alike.name}", f"helps targets alike in {alike.words}", near))
    for alike in problem.sources_alike:
        weights = weights_of(alike.values)
        if problem.holdout != "target":
            name, what = "alike sources", "this target"
            near = weighted_along_targets(z.T, known.T, weights).T
        else:  # a new target has no cells of its own
            name, what = "popularity of alike sources", "other targets"
            mean = (weights @ z.sum(axis=1)) / (weights @ known.sum(axis=1) + 1e-9)
            near = np.repeat(mean[:, None], z.shape[1], 1)
        columns.append((f"{name}: {alike.name}", f"sources alike in {alike.words} help {what}", near))
    if not columns:
        return np.empty((*z.shape, 0)), (), ()
    names, words, values = zip(*columns, strict=True)
    return np.stack(values, axis=-1), names, words


def weights_of(alike: Array, sharpness: float = SHARPNESS) -> Array:
    """(n, n) weights of every other task for each task, growing with likeness; 0 for the task itself.

    alike: (n, n) likenesses, NaN unknown. A weight grows by e^sharpness for one standard deviation of the
    row's likenesses.
    """
    off = ~np.eye(len(alike), dtype=bool) & np.isfinite(alike)
    centred, spread = centred_and_spread(np.where(off, alike, np.nan), 1)
    return np.where(off, np.exp(sharpness * centred / spread), 0.0)


def weighted_along_targets(z: Array, known: NDArray[np.bool_], weights: Array) -> Array:
    """(S, T) mean of each source's known z over the other targets, weighted by (T, T) weights.

    Weights are scaled to a mean of 1, so that the cell at zero that draws the mean counts the same in all.
    """
    scale = weights.sum(axis=1, keepdims=True) / np.maximum((weights > 0).sum(axis=1, keepdims=True), 1)
    even = weights / np.where(scale > 0, scale, 1.0)
    return (z @ even.T) / (known.astype(float) @ even.T + PRIOR)
