"""First guesses of rows that were not measured, corrected by what measured ones differ from theirs.

A *first guess* needs no fit: the mean of a combination's parents, the straight line between two steps. Models
add a ridge regression of what measured rows differ from theirs. Which model is used is decided by
predicting each measured row from those that have nothing to do with it, by the one-standard-error rule
(``recommendation.selection.simplest``): the simplest that is not worse than the best by a standard error.
The errors of these held-out predictions give the intervals: they grow with ``CorrectionDesign.growth``, and
are widened by Student's t for how few units were measured. Fewer than ``LEAST`` give none: nobody has seen
how far predictions stray.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite, nan, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from traitmap.analysis.recommendation.selection import simplest
from traitmap.matrix.record import Array
from traitmap.matrix.statistics import Interval, t_value, z_value

LEVEL = 0.9
LEAST = 3  # measured units, below which errors of predictions are unknown
RIDGES = (0.03, 0.3, 3.0, 30.0)  # penalties, in rows that say that a coefficient is zero, over all rows
LEAVE = 1.0  # standard errors by which a model must be better than the first guess: this is the plain rule
DRAWS = 2000  # of units, for intervals of errors


@dataclass(frozen=True)
class CorrectionDesign:
    """N rows on T targets, in units of a scale. guess: (N, T) first guesses. columns: model -> (N, T, P), of
    what is added to them. growth: (N, T, Q) what errors grow with, never negative."""

    guess: Array
    columns: Mapping[str, Array]
    growth: Array

    def deviation(self, spread: Sequence[float]) -> Array:
        """(N, T) errors that are expected: a constant, and a share of each growth."""
        return np.asarray(spread[0] + self.growth @ np.asarray(spread[1:]))


@dataclass(frozen=True)
class ModelScore:
    """How a model did on held-out rows of a kind.

    rmse: in the targets' unit, or in usual gains where these differ, 90 % (units drawn anew, the same for
    every model). r: correlation of predicted and measured over all cells. penalty: of its ridge, NaN without
    one.
    """

    kind: str
    name: str
    rmse: Interval
    r: float
    penalty: float
    chosen: bool


@dataclass(frozen=True)
class Width:
    """How wide intervals are. count: measured units.

    cell: the 90 % quantile of held-out errors in deviations, over cells. whole: root mean square over
    units of their mean error over all targets, in mean deviations: what a set of targets strays by.
    """

    count: int
    cell: float
    whole: float

    def half(self, level: float = LEVEL, *, cells: bool = True) -> float:
        """Half a two-sided interval of ``level``, in deviations.

        Widened by Student's t with a degree of freedom for each unit but one, and for the new one.
        """
        t = float(t_value(self.count - 1, level)) * sqrt(1 + 1 / self.count)
        return t * (self.cell / z_value(LEVEL) if cells else self.whole)


@dataclass(frozen=True)
class Corrections:
    """What was learnt of rows of a kind.

    chosen: name of the model; scores: of every model. spread: a constant and a share of each growth, by which
    errors are expected. coefficients, norms: (P,) of the model's columns, and what these are divided by.
    errors: (N, T) measured less predicted, each held out; deviation: (N, T) what they are expected to be.
    """

    chosen: str
    scores: tuple[ModelScore, ...]
    spread: tuple[float, ...]
    errors: Array
    deviation: Array
    coefficients: Array = field(default_factory=lambda: np.zeros(0))
    norms: Array = field(default_factory=lambda: np.zeros(0))

    def predict(self, design: CorrectionDesign) -> Array:
        """(N, T) in units of the scale."""
        if not self.coefficients.size:
            return design.guess
        return np.asarray(design.guess + (design.columns[self.chosen] / self.norms) @ self.coefficients)


def learn(
    design: CorrectionDesign,
    z: Array,
    apart: Array,
    *,
    kind: str,
    models: Sequence[str],
    units: Sequence[int] | None = None,
    others: Mapping[str, Array] | None = None,
    scale: float = 1.0,
) -> Corrections:
    """Choose and fit a model.

    z: (N, T) measured, in units of the scale. apart: (N, N) whether the second row has nothing to do with the
    first, so that it may predict it. models: from the simplest, the first guess. units: (N,) what rows belong
    to, by default each to itself: what models are compared over, and errors drawn anew by. others: further
    guesses to be scored beside them. scale: by which errors are told.
    """
    groups = np.asarray(range(len(z)) if units is None else units, dtype=np.int64)
    tried = {name: _held_out(design, name, z, apart) for name in models if name in design.columns}
    power = float(np.nanmean(z**2)) or 1.0
    merit = {  # of each row: how much less is missed than by saying that nothing changes
        name: np.nanmean(z**2 - (z - guess) ** 2, axis=1) / power for name, (guess, _) in tried.items()
    }
    chosen = simplest(merit, groups, LEAVE)
    guess, penalty = tried[chosen]
    errors = z - guess
    known = np.isfinite(errors)
    lines = np.column_stack([np.ones(known.sum()), design.growth[known]])
    spread = optimize.nnls(lines, np.abs(errors[known]))[0]
    spread = tuple(map(float, np.maximum(spread, [1e-6, *[0.0] * design.growth.shape[-1]])))
    fitted = {}
    if design.columns[chosen].shape[-1]:
        coefficients, norms = _ridge(design, chosen, z, list(range(len(z))), penalty)
        fitted = {"coefficients": coefficients, "norms": norms}
    shown = {name: (of, nan) for name, of in (others or {}).items()} | tried
    return Corrections(
        chosen=chosen,
        scores=tuple(
            ModelScore(kind, name, *_score(z, values, groups, scale), of_ridge, name == chosen)
            for name, (values, of_ridge) in shown.items()
        ),
        spread=spread,
        errors=errors,
        deviation=np.where(known, design.deviation(spread), nan),
        **fitted,
    )


def width_of(errors: Array, deviation: Array, count: int) -> Width:
    """How wide intervals must be for errors (N, T) of ``count`` units that were expected as ``deviation``."""
    size = np.abs(errors / deviation)
    size = size[np.isfinite(size)]
    level = min(LEVEL * (1 + 1 / len(size)), 1.0)  # one cell more than was seen: the new one
    whole = np.nanmean(errors, axis=1) / np.nanmean(deviation, axis=1)
    return Width(count, float(np.quantile(size, level)), sqrt(float(np.mean(whole**2))))


def around(value: float, half: float) -> Interval:
    """An interval around a number; without ends where its width is not known."""
    if not isfinite(half):
        return Interval(value, reason="no interval is known")
    return Interval(value, value - half, value + half)


def unit_scales(gains: Array, units: Sequence[str]) -> Array:
    """(T,) root mean square of gains (S, T) over all targets of a unit; 1 where that is nothing."""
    scale = np.ones(len(units))
    for unit in set(units):
        columns = [t for t, other in enumerate(units) if other == unit]
        part = gains[:, columns]
        size = sqrt(float(np.mean(part[np.isfinite(part)] ** 2))) if np.isfinite(part).any() else 0.0
        scale[columns] = size if size > 1e-9 else 1.0
    return scale


def kept_margins(margin: float, units: Sequence[str], scale: Array) -> Array:
    """(T,) what targets that must be kept may lose: the margin in points, in other units as large a share of
    their usual gain (``unit_scales``); the margin itself where no target is in points."""
    if "points" not in units:
        return np.full(len(units), margin)
    of_points = scale[list(units).index("points")]
    return np.where(np.array(units) == "points", margin, margin * scale / of_points)


def _held_out(design: CorrectionDesign, name: str, z: Array, apart: Array) -> tuple[Array, float]:
    """Predictions (N, T) of every row from those that have nothing to do with it, and the best penalty."""
    best: tuple[float, Array, float] | None = None
    for penalty in RIDGES if design.columns[name].shape[-1] else (nan,):
        guess = design.guess.copy()
        if isfinite(penalty):
            for at, others in enumerate(apart):
                coefficients, norms = _ridge(design, name, z, np.flatnonzero(others).tolist(), penalty)
                guess[at] += (design.columns[name][at] / norms) @ coefficients
        loss = float(np.nanmean((z - guess) ** 2))
        if best is None or loss < best[0] * (1 - 1e-9):
            best = loss, guess, penalty
    assert best is not None
    return best[1], best[2]


def _ridge(
    design: CorrectionDesign, name: str, z: Array, rows: Sequence[int], penalty: float
) -> tuple[Array, Array]:
    """Coefficients (P,) of columns over their root mean squares (P,), which are zero without evidence."""
    columns = design.columns[name][list(rows)]
    rest = (z - design.guess)[list(rows)]
    known = np.isfinite(rest) & np.isfinite(columns).all(axis=-1)
    x, y = columns[known], rest[known]
    norms = np.sqrt((x**2).mean(axis=0)) if len(x) else np.zeros(columns.shape[-1])
    norms = np.asarray(np.where(norms > 1e-12, norms, np.inf), dtype=float)
    x = x / norms
    inner = x.T @ x + penalty * max(len(x), 1) / 10 * np.eye(x.shape[1])
    return np.asarray(np.linalg.solve(inner, x.T @ y)), norms


def _score(z: Array, guess: Array, units: NDArray[np.int64], scale: float) -> tuple[Interval, float]:
    """Root mean square error times ``scale``, its interval over units, and correlation, of z and a guess."""
    known = np.isfinite(guess) & np.isfinite(z)
    if not known.any():
        return Interval(nan), nan
    varies = known.sum() > 2 and np.ptp(guess[known]) > 0 and np.ptp(z[known]) > 0
    r = float(np.corrcoef(guess[known], z[known])[0, 1]) if varies else nan
    names, place = np.unique(units, return_inverse=True)
    squares = np.bincount(place, np.where(known, (z - guess) ** 2, 0.0).sum(axis=1))
    counts = np.bincount(place, known.sum(axis=1))
    drawn = np.random.default_rng(0).integers(len(names), size=(DRAWS, len(names)))
    again = scale * np.sqrt(squares[drawn].sum(axis=1) / np.maximum(counts[drawn].sum(axis=1), 1))
    low, high = np.quantile(again, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(scale * sqrt(squares.sum() / counts.sum()), float(low), float(high)), r
