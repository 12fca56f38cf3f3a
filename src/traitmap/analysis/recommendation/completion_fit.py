"""The hyper-parameters of a table's prior, by the marginal likelihood of the cells that are measured."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import linalg, optimize

from traitmap.analysis.recommendation.completion_kernel import Places, Prior
from traitmap.matrix_record import Array

UNIT_SPREAD = 1.0  # of the logarithm of a target's unit around that of its metric
LOADING_SPREAD = 0.4
_JITTER = 1e-9


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
    """Hyper-parameters of highest posterior density, by L-BFGS from ``begin``.

    Marginal likelihood of the measured cells (C. Rasmussen & C. Williams, Gaussian Processes for Machine
    Learning, 2006, section 5.4) times log-normal priors of the variances and units and normal ones of the
    loadings.
    """
    if not len(observed.gains):
        return begin
    kernels = [term.covariance(observed.places, observed.places) for term in prior.terms]
    same = (observed.places[:, 0][:, None] == observed.places[:, 0]).astype(float)
    typical = np.log([term.variance for term in prior.terms])
    spread = np.array([term.spread for term in prior.terms])
    member = np.eye(prior.shape[1])[observed.places[:, 1]]
    expected = prior.expected[observed.places[:, 0], observed.places[:, 1]]

    def cost(packed: Array) -> tuple[float, Array]:
        now = begin.unpack(packed)
        unit = np.exp(now.units)[observed.places[:, 1]]
        low_rank = same * (member @ (now.loadings @ now.loadings.T) @ member.T)
        inner = low_rank + sum(np.exp(v) * kernel for v, kernel in zip(now.variances, kernels, strict=True))
        scale = unit[:, None] * unit[None, :]
        whole = inner * scale
        noisy = whole + np.diag(observed.noise + _JITTER * np.diag(whole).mean() + 1e-300)
        factor = linalg.cho_factor(noisy, lower=True, check_finite=False)
        rest = observed.gains - unit * expected
        alpha = linalg.cho_solve(factor, rest, check_finite=False)
        inverse = linalg.cho_solve(factor, np.eye(len(rest)), check_finite=False)
        slope = 0.5 * (np.outer(alpha, alpha) - inverse)
        likelihood = -0.5 * rest @ alpha - np.log(np.diag(factor[0])).sum()
        scaled = slope * scale
        d_variances = np.array(
            [np.exp(v) * (scaled * kernel).sum() for v, kernel in zip(now.variances, kernels, strict=True)]
        )
        d_units = member.T @ (2 * (slope * whole).sum(axis=1) + alpha * unit * expected)
        d_loadings = 2 * (member.T @ (scaled * same) @ member) @ now.loadings
        off = now.variances - typical
        away = now.units - begin.expected_units
        likelihood -= 0.5 * (
            ((off / spread) ** 2).sum()
            + ((away / UNIT_SPREAD) ** 2).sum()
            + ((now.loadings / LOADING_SPREAD) ** 2).sum()
        )
        d_variances -= off / spread**2
        d_units -= away / UNIT_SPREAD**2
        d_loadings -= now.loadings / LOADING_SPREAD**2
        return -likelihood, -np.concatenate([d_variances, d_units, d_loadings.ravel()])

    found = optimize.minimize(
        cost,
        begin.pack(),
        jac=True,
        method="L-BFGS-B",
        bounds=[(value - 12.0, value + 12.0) for value in begin.pack()],
        options={"maxiter": steps},
    )
    return begin.unpack(np.asarray(found.x))


def covariance(prior: Prior, fit: Fit, one: Places, other: Places) -> Array:
    """(n, m) prior covariance of gains, between places (n, 2) and (m, 2)."""
    inner = np.zeros((len(one), len(other)))
    for value, term in zip(fit.variances, prior.terms, strict=True):
        inner += np.exp(value) * term.covariance(one, other)
    likeness = fit.loadings @ fit.loadings.T
    inner += (one[:, 0][:, None] == other[:, 0]) * likeness[np.ix_(one[:, 1], other[:, 1])]
    unit = np.exp(fit.units)
    return inner * unit[one[:, 1]][:, None] * unit[other[:, 1]][None, :]
