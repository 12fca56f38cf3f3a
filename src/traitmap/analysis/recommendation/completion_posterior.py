"""Every cell of a table, given those that are measured: mean, covariance, and intervals that hold."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import linalg, stats
from threadpoolctl import threadpool_limits

from traitmap.analysis.recommendation.completion_fit import (
    JITTER,
    UNIT_SPREAD,
    Fit,
    Observed,
    covariance,
    fit,
    start,
)
from traitmap.analysis.recommendation.completion_kernel import Places, Prior
from traitmap.matrix_record import Array

FOLDS = 5
REFIT_STEPS = 25
MARGIN = 1.1  # a further component must lower the squared error by more than a tenth
LEAST = 10  # measured cells for errors to be told from


@dataclass(frozen=True)
class Posterior:
    """All cells of a table given the measured ones, row by row: cell (s, t) is number s x T + t.

    mean: (S, T) gains. covariance: (S T, S T) of the true gains (without the noise of items).
    stretch: (S, T) factor on standard deviations that makes intervals hold, by cross-validation.
    """

    mean: Array
    covariance: Array
    fit: Fit
    observed: Observed
    prior: Prior
    stretch: Array

    @property
    def deviation(self) -> Array:
        """(S, T) standard deviation of each cell's true gain, stretched."""
        return np.sqrt(np.diag(self.covariance)).reshape(self.mean.shape) * self.stretch


def all_places(shape: tuple[int, int]) -> Places:
    """(S T, 2) every place of a table, row by row."""
    return np.stack(np.unravel_index(np.arange(shape[0] * shape[1]), shape), axis=1)


def infer(
    prior: Prior,
    observed: Observed,
    metrics: Array,
    *,
    level: float = 0.9,
    seed: int = 0,
    calibrate: bool = True,
) -> Posterior:
    """The posterior of all cells. metrics: (T,) group of each target, see ``completion_fit.start``.

    The number of components, 0 to the prior's rank, is that with the smallest error when measured cells
    are left out in folds; ``calibrate`` also makes intervals of ``level`` hold (``stretches``).
    """
    with threadpool_limits(1):  # small matrices: more threads are slower, and may change the last digits
        return _infer(prior, observed, metrics, level, seed, calibrate)


def _infer(
    prior: Prior, observed: Observed, metrics: Array, level: float, seed: int, calibrate: bool
) -> Posterior:
    fits = [
        fit(one, observed, start(one, observed, metrics))
        for one in (replace(prior, rank=rank) for rank in range(prior.rank + 1))
    ]
    chosen, folds = 0, cell_folds(observed, seed)
    errors = None
    if len(observed.gains) >= LEAST:
        told = [left_out_errors(prior, one, observed, folds) for one in fits]
        losses = [float(np.mean(one.scaled**2)) * MARGIN**rank for rank, one in enumerate(told)]
        chosen = int(np.argmin(losses))
        errors = told[chosen]
    found = fits[chosen]
    mean, spread = condition(prior, found, observed, all_places(prior.shape))
    stretch = np.ones(prior.shape)
    if calibrate and errors is not None:
        stretch = stretches(prior, found, observed, errors, level=level, seed=seed)
    return Posterior(mean.reshape(prior.shape), spread, found, observed, prior, stretch)


def condition(prior: Prior, found: Fit, observed: Observed, places: Places) -> tuple[Array, Array]:
    """(m,) mean and (m, m) covariance of the gains at some places, given the measured ones.

    Units of targets with few measured cells are uncertain themselves: the covariance is the mean over
    that uncertainty (log-normal, its variance from the Fisher information of the measured cells).
    """
    unit = np.exp(found.units)

    def expected(at: Places) -> Array:
        return np.asarray(unit[at[:, 1]] * prior.expected[at[:, 0], at[:, 1]])

    mean, spread = expected(places), covariance(prior, found, places, places)
    information = np.zeros(prior.shape[1])
    if len(observed.gains):
        whole = covariance(prior, found, observed.places, observed.places)
        cross = covariance(prior, found, observed.places, places)
        noisy = whole + np.diag(observed.noise + JITTER * np.diag(whole).mean() + 1e-300)
        half = linalg.cholesky(noisy, lower=True, check_finite=False)
        shrunk = linalg.solve_triangular(half, cross, lower=True, check_finite=False)
        rest = observed.gains - expected(observed.places)
        mean = mean + shrunk.T @ linalg.solve_triangular(half, rest, lower=True, check_finite=False)
        spread = spread - shrunk.T @ shrunk
        information = _unit_information(half, whole, observed.places[:, 1], prior.shape[1])
    widen = np.exp(1.0 / (1.0 / UNIT_SPREAD**2 + information))[places[:, 1]]
    spread = spread * widen[:, None] * widen[None, :]
    np.fill_diagonal(spread, np.maximum(np.diag(spread), 0.0))
    return mean, spread


def _unit_information(half: Array, whole: Array, columns: Places, targets: int) -> Array:
    """(T,) Fisher information of the logarithm of each target's unit in the measured cells.

    One half of the trace of (K^-1 dK)^2, with dK = (e_i + e_j) K_ij for the target's cells e and K, the
    covariance without the noise of items.
    """
    inverse = linalg.cho_solve((half, True), np.eye(len(whole)), check_finite=False)
    left = inverse @ whole
    around = whole @ left
    product, square = left * left.T, inverse * around.T
    member = np.eye(targets)[columns]
    return np.asarray(((member.T @ (product + square)) * member.T).sum(axis=1))


@dataclass(frozen=True)
class Errors:
    """Of measured cells, predicted from the others: absolute errors in standard deviations (n,), and
    errors in the units that their metric was expected to have (n,)."""

    standardised: Array
    scaled: Array


def cell_folds(observed: Observed, seed: int) -> Array:
    """(n,) the fold of each measured cell."""
    count = len(observed.gains)
    return np.random.default_rng(seed).permutation(np.arange(count) % FOLDS)


def left_out_errors(prior: Prior, found: Fit, observed: Observed, folds: Array) -> Errors:
    """Measured cells predicted fold by fold, hyper-parameters found anew without them."""
    standardised, scaled = np.zeros(len(observed.gains)), np.zeros(len(observed.gains))
    for fold in np.unique(folds):
        out = folds == fold
        kept = observed.without(out)
        refitted = fit(prior, kept, found, steps=REFIT_STEPS)
        mean, spread = condition(prior, refitted, kept, observed.places[out])
        deviation = np.sqrt(np.diag(spread) + observed.noise[out])
        error = observed.gains[out] - mean
        standardised[out] = np.abs(error) / np.maximum(deviation, 1e-300)
        scaled[out] = error / np.exp(found.expected_units[observed.places[out, 1]])
    return Errors(standardised, scaled)


def stretches(
    prior: Prior, found: Fit, observed: Observed, errors: Errors, *, level: float, seed: int
) -> Array:
    """(S, T) by how much standard deviations must be stretched for intervals of ``level`` to hold.

    The empirical quantile of standardised errors is divided by the normal one: those of cells left out in
    folds for sources that have been measured, those of whole sources left out for the others.
    """
    measured = np.zeros(prior.shape[0], dtype=bool)
    measured[observed.places[:, 0]] = True
    factors = np.full(prior.shape, _stretch(errors, level))
    rows = np.flatnonzero(measured)
    if not measured.all() and len(rows) >= 3:
        fold_of = np.zeros(prior.shape[0], dtype=int)
        draw = np.random.default_rng(seed)
        fold_of[rows] = draw.permutation(np.arange(len(rows)) % min(FOLDS, len(rows)))
        whole = left_out_errors(prior, found, observed, fold_of[observed.places[:, 0]])
        factors[~measured] = _stretch(whole, level)
    return factors


def _stretch(errors: Errors, level: float) -> float:
    n = len(errors.standardised)
    rank = min(int(np.ceil(level * (n + 1))), n)  # as in split conformal prediction
    empirical = float(np.sort(errors.standardised)[rank - 1])
    return empirical / float(stats.norm.ppf(0.5 + level / 2))
