"""Donors and recipients: how much a source gives, and a target gains, on average beyond the others."""

from __future__ import annotations

import numpy as np
from scipy import stats

from traitmap.analysis.explanation.design import Mask
from traitmap.analysis.explanation.records import Strength
from traitmap.analysis.interval import Interval, unknown
from traitmap.matrix_record import Array
from traitmap.matrix_statistics import benjamini_hochberg


def row_strengths(
    names: tuple[str, ...], gains: Array, used: Mask, *, draws: int, seed: int
) -> tuple[Strength, ...]:
    """Row effects of the additive fit of gains (R, C), summing to 0: sources as they are, targets transposed.

    Interval: jackknife over columns with t (J. Tukey 1958): what other columns of the same kind would
    give. Null: gains dealt out anew among the rows of each column, so that no row is better than another.
    """
    operator = _effect_operator(used)
    y = gains[used]
    effects = operator @ y
    errors = _jackknife_errors(gains, used, effects)
    null = _null_effects(gains, used, operator, draws, seed)
    bound = np.abs(effects) - 1e-9 * (1 + np.abs(y).max())
    p = (1 + (np.abs(null) >= bound).sum(axis=0)) / (1 + len(null))
    q = benjamini_hochberg(p)
    bands = np.quantile(null, [0.025, 0.975], axis=0)
    counts = used.sum(axis=1)
    return tuple(
        Strength(
            name=name,
            effect=_interval(float(effects[i]), float(errors[i]), int(counts[i])),
            null_low=float(bands[0, i]),
            null_high=float(bands[1, i]),
            p=float(p[i]),
            q=float(q[i]),
        )
        for i, name in enumerate(names)
    )


def _interval(effect: float, error: float, count: int) -> Interval:
    if count < 3 or not np.isfinite(error):
        return unknown(f"only {count} pairs")
    half = float(stats.t.ppf(0.975, count - 1)) * error
    return Interval(effect, effect - half, effect + half)


def _effect_operator(used: Mask) -> Array:
    """(R, n) what turns the values of the used pairs into row effects of the additive fit."""
    rows, columns = np.nonzero(used)
    n_rows, n_columns = used.shape
    dummies = np.zeros((len(rows), n_rows + n_columns))
    dummies[np.arange(len(rows)), rows] = 1.0
    dummies[np.arange(len(rows)), n_rows + columns] = 1.0
    gram = np.linalg.pinv(dummies.T @ dummies, hermitian=True)
    fitted = (gram @ dummies.T)[:n_rows]
    return np.asarray(fitted - fitted.mean(axis=0))


def _jackknife_errors(gains: Array, used: Mask, effects: Array) -> Array:
    """(R,) standard error of every row effect, one column left out at a time."""
    left = []
    for column in range(used.shape[1]):
        rest = used.copy()
        rest[:, column] = False
        left.append(_effect_operator(rest) @ gains[rest])
    deviations = np.array(left) - np.mean(left, axis=0)
    counts = used.shape[1]
    return np.asarray(np.sqrt((counts - 1) / counts * (deviations**2).sum(axis=0))) + 0 * effects


def _null_effects(gains: Array, used: Mask, operator: Array, draws: int, seed: int) -> Array:
    """(draws, R) row effects when each column's gains are dealt out anew among its rows."""
    generator = np.random.default_rng([seed, 3])
    dealt = np.zeros((draws, *used.shape))
    for column in range(used.shape[1]):
        rows = np.flatnonzero(used[:, column])
        values = np.tile(gains[rows, column], (draws, 1))
        dealt[:, rows, column] = generator.permuted(values, axis=1)
    return np.asarray(dealt[:, used] @ operator.T)
