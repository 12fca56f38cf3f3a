"""Every cell of a table, given those that are measured: mean, covariance, and intervals that hold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg, stats

from traitmap.analysis.recommendation.completion_fit import Fit, Observed, covariance, fit, start
from traitmap.analysis.recommendation.completion_kernel import Places, Prior
from traitmap.matrix_record import Array

FOLDS = 5
REFIT_STEPS = 25
_JITTER = 1e-9


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
    begin: Fit | None = None,
    level: float = 0.9,
    seed: int = 0,
    calibrate: bool = True,
) -> Posterior:
    """The posterior of all cells. level: of the intervals that ``calibrate`` makes hold."""
    begin = start(prior, observed, metrics) if begin is None else begin
    found = fit(prior, observed, begin)
    mean, spread = condition(prior, found, observed, all_places(prior.shape))
    stretch = np.ones(prior.shape)
    if calibrate:
        stretch = stretches(prior, found, observed, level=level, seed=seed)
    return Posterior(mean.reshape(prior.shape), spread, found, observed, prior, stretch)


def condition(prior: Prior, found: Fit, observed: Observed, places: Places) -> tuple[Array, Array]:
    """(m,) mean and (m, m) covariance of the gains at some places, given the measured ones."""
    unit = np.exp(found.units)

    def expected(at: Places) -> Array:
        return np.asarray(unit[at[:, 1]] * prior.expected[at[:, 0], at[:, 1]])

    mean, spread = expected(places), covariance(prior, found, places, places)
    if not len(observed.gains):
        return mean, spread
    whole = covariance(prior, found, observed.places, observed.places)
    cross = covariance(prior, found, observed.places, places)
    noisy = whole + np.diag(observed.noise + _JITTER * np.diag(whole).mean() + 1e-300)
    half = linalg.cholesky(noisy, lower=True, check_finite=False)
    shrunk = linalg.solve_triangular(half, cross, lower=True, check_finite=False)
    rest = observed.gains - expected(observed.places)
    mean = mean + shrunk.T @ linalg.solve_triangular(half, rest, lower=True, check_finite=False)
    spread = spread - shrunk.T @ shrunk
    np.fill_diagonal(spread, np.maximum(np.diag(spread), 0.0))
    return mean, spread


def stretches(prior: Prior, found: Fit, observed: Observed, *, level: float, seed: int) -> Array:
    """(S, T) by how much standard deviations must be stretched for intervals of ``level`` to hold.

    Measured cells are left out in folds, hyper-parameters found anew without them, and the empirical
    quantile of their standardised errors is divided by the normal one: cells of measured sources by
    folds of cells, cells of sources without a measured cell by folds of whole sources.
    """
    factors = np.ones(prior.shape)
    measured = np.zeros(prior.shape[0], dtype=bool)
    measured[observed.places[:, 0]] = True
    draw = np.random.default_rng(seed)
    count = len(observed.gains)
    if count >= 10:
        folds = draw.permutation(np.arange(count) % FOLDS)
        factors[measured] = _stretch(prior, found, observed, folds, level)
    rows = np.flatnonzero(measured)
    if not measured.all() and len(rows) >= 3:
        fold_of = np.zeros(prior.shape[0], dtype=int)
        fold_of[rows] = draw.permutation(np.arange(len(rows)) % min(FOLDS, len(rows)))
        factors[~measured] = _stretch(prior, found, observed, fold_of[observed.places[:, 0]], level)
    return factors


def _stretch(prior: Prior, found: Fit, observed: Observed, folds: Array, level: float) -> float:
    errors = np.zeros(len(observed.gains))
    for fold in np.unique(folds):
        out = folds == fold
        kept = observed.without(out)
        refitted = fit(prior, kept, found, steps=REFIT_STEPS)
        mean, spread = condition(prior, refitted, kept, observed.places[out])
        deviation = np.sqrt(np.diag(spread) + observed.noise[out])
        errors[out] = np.abs(observed.gains[out] - mean) / np.maximum(deviation, 1e-300)
    n = len(errors)
    rank = min(int(np.ceil(level * (n + 1))), n)  # as in split conformal prediction
    empirical = float(np.sort(errors)[rank - 1])
    return empirical / float(stats.norm.ppf(0.5 + level / 2))
