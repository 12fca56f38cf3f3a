"""The hyper-parameters of a table's prior, by the marginal likelihood of the cells that are measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy import linalg, optimize

from traitmap.analysis.recommendation.completion_kernel import Places, Prior
from traitmap.matrix_record import Array

UNIT_SPREAD = 1.0  # of the logarithm of a target's unit around that of its metric
LOADING_SPREAD = 0.4
JITTER = 1e-7  # of the mean variance: rounding must not make a covariance indefinite


@dataclass(frozen=True)
class Observed:
    """Measured cells: places (n, 2) in the table, gains (n,), variance (n,) of each by its items alone."""

    places: Places
    gains: Array
    noise: Array

    def without(self, left_out: Array) -> Observed:
        """The cells where ``left_out`` (n,) is False."""
        kept = ~np.asarray(left_out, dtype=bool)
        return Observed(self.places[kept], self.gains[kept], self.noise[kept])


@dataclass(frozen=True)
class Fit:
    """Hyper-parameters: logarithms of the terms' variances (K,) and of the targets' units (T,), loadings
    (T, rank), and the logarithms of the units that were expected (T,)."""

    variances: Array
    units: Array
    loadings: Array
    expected_units: Array

    def pack(self) -> Array:
        return np.concatenate([self.variances, self.units, self.loadings.ravel()])

    def unpack(self, packed: Array) -> Fit:
        k, t = len(self.variances), len(self.units)
        return replace(
            self,
            variances=packed[:k],
            units=packed[k : k + t],
            loadings=packed[k + t :].reshape(self.loadings.shape),
        )


def start(prior: Prior, observed: Observed, metrics: Array) -> Fit:
    """Where the search begins: typical variances, and units from the gains that are there.

    metrics: (T,) group of each target; targets of one group are expected to have alike units.
    """
    targets = prior.shape[1]
    count = np.bincount(observed.places[:, 1], minlength=targets)
    squares = np.bincount(observed.places[:, 1], weights=observed.gains**2, minlength=targets)
    overall = float(np.mean(observed.gains**2)) if len(observed.gains) else 1.0
    overall = overall or 1.0
    expected = np.zeros(targets)
    for group in np.unique(metrics):
        own = metrics == group
        mean_log = np.log((squares[own] + overall) / (count[own] + 1.0))
        expected[own] = 0.5 * float(np.average(mean_log, weights=count[own] + 1e-9))
    typical = np.exp(2 * expected)
    units = 0.5 * np.log((squares + 2 * typical) / (count + 2.0))
    found = Fit(
        variances=np.log([term.variance for term in prior.terms]),
        units=units,
        loadings=np.zeros((targets, prior.rank)),
        expected_units=expected,
    )
    return replace(found, loadings=_first_loadings(prior, observed, found))


def _first_loadings(prior: Prior, observed: Observed, fit: Fit) -> Array:
    """Leading components of what row and column effects leave over, small; zero cannot be left by descent."""
    if not prior.rank or not len(observed.gains):
        return fit.loadings
    rest = np.zeros(prior.shape)
    rows, columns = observed.places.T
    rest[rows, columns] = observed.gains / np.exp(fit.units[columns])
    known = np.zeros(prior.shape)
    known[rows, columns] = 1.0
    for _ in range(3):
        for axis in (0, 1):
            mean = (rest * known).sum(axis=axis) / (known.sum(axis=axis) + 1.0)
            rest = (rest - (mean[None, :] if axis == 0 else mean[:, None])) * known
    vectors = np.linalg.svd(rest, full_matrices=False)[2][: prior.rank].T
    return np.asarray(vectors * LOADING_SPREAD * np.sqrt(prior.shape[1]) * 0.5)


def fit(prior: Prior, observed: Observed, begin: Fit, *, steps: int = 150) -> Fit:
    """Hyper-parameters of highest posterior density, by L-BFGS from ``begin``."""
    if not len(observed.gains):
        return begin
    first = begin.pack()
    found = optimize.minimize(
        density_of(prior, observed, begin),
        first,
        jac=True,
        method="L-BFGS-B",
        bounds=[(value - 12.0, value + 12.0) for value in first],
        options={"maxiter": steps},
    )
    return begin.unpack(np.asarray(found.x))


def density_of(prior: Prior, observed: Observed, begin: Fit) -> Callable[[Array], tuple[float, Array]]:
    """Minus the logarithm of the posterior density of packed hyper-parameters, and its slope.

    Marginal likelihood of the measured cells (C. Rasmussen & C. Williams, Gaussian Processes for Machine
    Learning, 2006, section 5.4) times log-normal priors of the variances and units and normal ones of the
    loadings.
    """
    kernels = np.array([term.covariance(observed.places, observed.places) for term in prior.terms])
    same = (observed.places[:, 0][:, None] == observed.places[:, 0]).astype(float)
    columns = observed.places[:, 1]
    member = np.eye(prior.shape[1])[columns]
    expected = prior.expected[observed.places[:, 0], columns]
    centre = np.concatenate(
        [np.log([t.variance for t in prior.terms]), begin.expected_units, np.zeros(begin.loadings.size)]
    )
    spread = np.concatenate(
        [
            [t.spread for t in prior.terms],
            np.full(len(begin.units), UNIT_SPREAD),
            np.full(begin.loadings.size, LOADING_SPREAD),
        ]
    )

    def density(packed: Array) -> tuple[float, Array]:
        now = begin.unpack(packed)
        sizes, unit = np.exp(now.variances), np.exp(now.units)[columns]
        scale = unit[:, None] * unit[None, :]
        low_rank = same * (now.loadings @ now.loadings.T)[np.ix_(columns, columns)]
        whole = (np.tensordot(sizes, kernels, axes=1) + low_rank) * scale
        likelihood, slope, weights = _likelihood(whole, observed.noise, observed.gains - unit * expected)
        scaled = slope * scale
        to_units = member.T @ (2 * (slope * whole).sum(axis=1) + weights * unit * expected)
        to_loadings = 2 * (member.T @ (scaled * same) @ member) @ now.loadings
        to_sizes = sizes * np.tensordot(kernels, scaled, axes=2)
        off = (packed - centre) / spread
        total = np.concatenate([to_sizes, to_units, to_loadings.ravel()]) - off / spread
        return 0.5 * float(off @ off) - likelihood, -total

    return density


def _likelihood(whole: Array, noise: Array, rest: Array) -> tuple[float, Array, Array]:
    """Log-likelihood of what is left of the gains, its slope in the covariance, and K^-1 rest."""
    noisy = whole + np.diag(noise + JITTER * np.diag(whole).mean() + 1e-300)
    factor = linalg.cho_factor(noisy, lower=True, check_finite=False)
    weights = linalg.cho_solve(factor, rest, check_finite=False)
    inverse = linalg.cho_solve(factor, np.eye(len(rest)), check_finite=False)
    likelihood = float(-0.5 * rest @ weights - np.log(np.diag(factor[0])).sum())
    return likelihood, 0.5 * (np.outer(weights, weights) - inverse), weights


def covariance(prior: Prior, fit: Fit, one: Places, other: Places) -> Array:
    """(n, m) prior covariance of gains, between places (n, 2) and (m, 2)."""
    inner = np.zeros((len(one), len(other)))
    for value, term in zip(fit.variances, prior.terms, strict=True):
        inner += np.exp(value) * term.covariance(one, other)
    likeness = fit.loadings @ fit.loadings.T
    inner += (one[:, 0][:, None] == other[:, 0]) * likeness[np.ix_(one[:, 1], other[:, 1])]
    unit = np.exp(fit.units)
    return inner * unit[one[:, 1]][:, None] * unit[other[:, 1]][None, :]
