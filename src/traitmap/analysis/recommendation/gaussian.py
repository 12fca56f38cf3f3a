"""A Gaussian process over a whole table of gains: prior, hyper-parameters, and the posterior of every cell.

The prior of a table (S, T) is a sum of named terms: effects of sources and targets, likeness in features,
each cell's own part (``make_prior``). Its hyper-parameters are those of highest posterior density given the
measured cells (``fit``). ``infer`` gives every cell's mean and covariance, with intervals that are
stretched until they hold in cross-validation.

A cell is named by its place (source, target), n places being an array (n, 2); all S x T places go row by row.
Gains are in the unit of their target's metric; a term's variance is in squared units of the target, and the
units themselves are hyper-parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, optimize
from threadpoolctl import threadpool_limits

from traitmap.analysis.profiles.pairs import PairFeatures
from traitmap.matrix.record import Array
from traitmap.matrix.statistics import z_value

Places = NDArray[np.intp]

UNIT_SPREAD = 1.0  # of the logarithm of a target's unit around that of its metric
LOADING_SPREAD = 0.4
JITTER = 1e-7  # of the mean variance: rounding must not make a covariance indefinite
FOLDS = 5
REFIT_STEPS = 25
MARGIN = 1.1  # a further component must lower the squared error by more than a tenth
LEAST = 10  # measured cells from which errors can be estimated


@dataclass(frozen=True)
class KernelTerm:
    """One independent part of a table: its covariance is variance x source x target x pair.

    source: (S, S), target: (T, T) and pair: (S, T, F, inner product) similarities; None stands for ones.
    variance: what is typical, in squared units of the target. spread: standard deviation of its logarithm.
    """

    name: str
    variance: float
    source: Array | None = None
    target: Array | None = None
    pair: Array | None = None
    spread: float = 1.0

    def covariance(self, rows: Places, columns: Places) -> Array:
        """(n, m) of unit variance, between places (n, 2) and (m, 2) of the table."""
        product = np.ones((len(rows), len(columns)))
        if self.source is not None:
            product *= self.source[np.ix_(rows[:, 0], columns[:, 0])]
        if self.target is not None:
            product *= self.target[np.ix_(rows[:, 1], columns[:, 1])]
        if self.pair is not None:
            product *= self.pair[rows[:, 0], rows[:, 1]] @ self.pair[columns[:, 0], columns[:, 1]].T
        return product


@dataclass(frozen=True)
class Prior:
    """terms: what the table is the sum of, over (S, T) places; the last is each cell's own.

    rank: components z_s l_t that are common to the sources, with loadings l (T, rank) to be found.
    expected: (S, T) prior mean, in units of the target.
    """

    shape: tuple[int, int]
    terms: tuple[KernelTerm, ...]
    rank: int
    expected: Array


def make_prior(
    sources: Sequence[str],
    targets: Sequence[str],
    features: PairFeatures | None = None,
    *,
    rank: int = 1,
    own_target: float = 1.0,
) -> Prior:
    """The prior of a table of gains over the base.

    Effects of targets and of sources, ``rank`` components, an effect of training on the target itself
    (source and target of one name; ``own_target`` units are expected), and each cell's own part. With
    features also: effects linear in them, sources and targets that are alike in all their features acting
    alike, and products of these likenesses (a stationary kernel over pairs, as in E. Bonilla et al., NIPS
    2007).
    """
    shape = len(sources), len(targets)
    each_source, each_target = np.eye(shape[0]), np.eye(shape[1])
    own = np.array([[float(s == t) for t in targets] for s in sources]).reshape(shape)
    terms = [
        KernelTerm("all", 0.1),
        KernelTerm("target", 0.5, target=each_target),
        KernelTerm("source", 0.3, source=each_source),
    ]
    if own.any():
        terms.append(KernelTerm("own target", 0.5, pair=own[:, :, None]))
        terms.append(KernelTerm("each own target", 0.5, pair=own[:, :, None], target=each_target))
    if features is not None and features.features:
        terms += _feature_terms(features)
    terms.append(KernelTerm("cell", 0.3, source=each_source, target=each_target))
    return Prior(shape, tuple(terms), min(rank, min(shape) - 1), own_target * own)


def _feature_terms(features: PairFeatures) -> list[KernelTerm]:
    """Terms that features of pairs allow: a linear part, and likeness of sources, of targets and of pairs."""
    pairs = standardised_features(features)
    shape = pairs.shape[:2]
    columns = pairs.transpose(1, 0, 2)
    sources, targets = alike(pairs.reshape(len(pairs), -1)), alike(columns.reshape(len(columns), -1))
    terms = [
        KernelTerm("linear in features", 0.1, pair=pairs / np.sqrt(pairs.shape[2])),
        KernelTerm("like sources", 0.2, source=sources),
        KernelTerm("like sources on like targets", 0.2, source=sources, target=targets),
        KernelTerm("like sources on each target", 0.2, source=sources, target=np.eye(shape[1])),
    ]
    if shape[0] * shape[1] <= 4_000:
        # (S T, k) whose inner products give the likeness of pairs, to one part in a million
        values, vectors = np.linalg.eigh(alike(pairs.reshape(-1, pairs.shape[2])))
        large = values > 1e-6 * values[-1]
        root = np.asarray(vectors[:, large] * np.sqrt(values[large]))
        terms.append(KernelTerm("like pairs", 0.2, pair=root.reshape(*shape, -1)))
    return terms


def standardised_features(features: PairFeatures) -> Array:
    """(S, T, F) with mean 0 and standard deviation 1 over all pairs; unknown ones stand at the mean."""
    values = np.asarray(features.array, dtype=float)
    known = np.isfinite(values)
    count = np.maximum(known.sum(axis=(0, 1)), 1)
    mean = np.where(known, values, 0.0).sum(axis=(0, 1)) / count
    centred = np.where(known, values - mean, 0.0)
    spread = np.sqrt((centred**2).sum(axis=(0, 1)) / count)
    varies = spread > 1e-12 * (1 + np.abs(mean))
    if not varies.any():
        return np.zeros((*values.shape[:2], 1))
    return np.clip(centred[:, :, varies] / spread[varies], -5.0, 5.0)


def alike(profiles: Array) -> Array:
    """(n, n) exp(-d^2 / median d^2) between rows (n, F): 1 for the same, 1/e for two typical ones.

    Ones everywhere where no two rows differ.
    """
    squares = (profiles**2).sum(axis=1)
    distance = np.maximum(squares[:, None] + squares[None, :] - 2 * profiles @ profiles.T, 0.0)
    other = distance[~np.eye(len(profiles), dtype=bool)]
    typical = float(np.median(other)) if other.size else 0.0
    return np.exp(-distance / typical) if typical > 0 else np.ones_like(distance)


@dataclass(frozen=True)
class Observed:
    """Measured cells: places (n, 2) in the table, gains (n,), variance (n,) of each by its items alone."""

    places: Places
    gains: Array
    noise: Array

    def without(self, left_out: Array) -> Observed:
        """The cells where ``left_out`` (n,) is False."""
        visible = ~np.asarray(left_out, dtype=bool)
        return Observed(self.places[visible], self.gains[visible], self.noise[visible])


@dataclass(frozen=True)
class PriorFit:
    """Hyper-parameters: logarithms of the terms' variances (K,) and of the targets' units (T,), loadings
    (T, rank), and the logarithms of the units that were expected (T,)."""

    variances: Array
    units: Array
    loadings: Array
    expected_units: Array

    def pack(self) -> Array:
        """(K + T + T rank,) what the search moves: variances, units, loadings."""
        return np.concatenate([self.variances, self.units, self.loadings.ravel()])

    def unpack(self, packed: Array) -> PriorFit:
        """The hyper-parameters of a vector that ``pack`` gave."""
        k, t = len(self.variances), len(self.units)
        return replace(
            self,
            variances=packed[:k],
            units=packed[k : k + t],
            loadings=packed[k + t :].reshape(self.loadings.shape),
        )


def start(prior: Prior, observed: Observed, metrics: Array) -> PriorFit:
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
        members = metrics == group
        mean_log = np.log((squares[members] + overall) / (count[members] + 1.0))
        expected[members] = 0.5 * float(np.average(mean_log, weights=count[members] + 1e-9))
    typical = np.exp(2 * expected)
    units = 0.5 * np.log((squares + 2 * typical) / (count + 2.0))
    begin = PriorFit(
        variances=np.log([term.variance for term in prior.terms]),
        units=units,
        loadings=np.zeros((targets, prior.rank)),
        expected_units=expected,
    )
    return replace(begin, loadings=_first_loadings(prior, observed, begin))


def _first_loadings(prior: Prior, observed: Observed, fit: PriorFit) -> Array:
    """Leading components of what row and column effects leave over, small; zero cannot be left by descent."""
    if not prior.rank or not len(observed.gains):
        return fit.loadings
    residual = np.zeros(prior.shape)
    rows, columns = observed.places.T
    residual[rows, columns] = observed.gains / np.exp(fit.units[columns])
    known = np.zeros(prior.shape)
    known[rows, columns] = 1.0
    for _ in range(3):
        for axis in (0, 1):
            mean = (residual * known).sum(axis=axis) / (known.sum(axis=axis) + 1.0)
            residual = (residual - (mean[None, :] if axis == 0 else mean[:, None])) * known
    vectors = np.linalg.svd(residual, full_matrices=False)[2][: prior.rank].T
    return np.asarray(vectors * LOADING_SPREAD * np.sqrt(prior.shape[1]) * 0.5)


def fit(prior: Prior, observed: Observed, begin: PriorFit, *, steps: int = 150) -> PriorFit:
    """Hyper-parameters of highest posterior density, by L-BFGS from ``begin``.

    ``begin`` itself where nothing is measured. steps: at most, of the search.
    """
    if not len(observed.gains):
        return begin
    first = begin.pack()
    result = optimize.minimize(
        density_of(prior, observed, begin),
        first,
        jac=True,
        method="L-BFGS-B",
        bounds=[(value - 12.0, value + 12.0) for value in first],
        options={"maxiter": steps},
    )
    return begin.unpack(np.asarray(result.x))


def density_of(prior: Prior, observed: Observed, begin: PriorFit) -> Callable[[Array], tuple[float, Array]]:
    """Minus the logarithm of the posterior density of packed hyper-parameters, and its gradient.

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
        residual = observed.gains - unit * expected
        noisy = whole + np.diag(observed.noise + JITTER * np.diag(whole).mean() + 1e-300)
        factor = linalg.cho_factor(noisy, lower=True, check_finite=False)
        weights = linalg.cho_solve(factor, residual, check_finite=False)
        inverse = linalg.cho_solve(factor, np.eye(len(residual)), check_finite=False)
        likelihood = float(-0.5 * residual @ weights - np.log(np.diag(factor[0])).sum())
        gradient = 0.5 * (np.outer(weights, weights) - inverse)  # of the likelihood in the covariance
        scaled = gradient * scale
        to_units = member.T @ (2 * (gradient * whole).sum(axis=1) + weights * unit * expected)
        to_loadings = 2 * (member.T @ (scaled * same) @ member) @ now.loadings
        to_sizes = sizes * np.tensordot(kernels, scaled, axes=2)
        off = (packed - centre) / spread
        total = np.concatenate([to_sizes, to_units, to_loadings.ravel()]) - off / spread
        return 0.5 * float(off @ off) - likelihood, -total

    return density


def covariance(prior: Prior, fit: PriorFit, rows: Places, columns: Places) -> Array:
    """(n, m) prior covariance of gains, between places (n, 2) and (m, 2)."""
    inner = np.zeros((len(rows), len(columns)))
    for value, term in zip(fit.variances, prior.terms, strict=True):
        inner += np.exp(value) * term.covariance(rows, columns)
    likeness = fit.loadings @ fit.loadings.T
    inner += (rows[:, 0][:, None] == columns[:, 0]) * likeness[np.ix_(rows[:, 1], columns[:, 1])]
    unit = np.exp(fit.units)
    return inner * unit[rows[:, 1]][:, None] * unit[columns[:, 1]][None, :]


@dataclass(frozen=True)
class TablePosterior:
    """All cells of a table given the measured ones, row by row: cell (s, t) is number s x T + t.

    mean: (S, T) gains. covariance: (S T, S T) of the true gains (without the noise of items).
    stretch: (S, T) factor on standard deviations that makes intervals hold, by cross-validation.
    """

    mean: Array
    covariance: Array
    fit: PriorFit
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
) -> TablePosterior:
    """The posterior of all cells. metrics: (T,) group of each target, see ``start``.

    The number of components, 0 to the prior's rank, is that with the smallest error when measured cells
    are left out in folds; ``calibrate`` also makes intervals of ``level`` hold (``stretches``).
    """
    # In units of the root mean square gain, without the last digits: where the search stops depends on the
    # size of its objective, and so on the unit, and flat targets make it follow the rounding of the unit.
    measured, size = observed, float(np.sqrt(np.mean(observed.gains**2))) if len(observed.gains) else 1.0
    size = size or 1.0
    observed = Observed(
        measured.places, np.round(measured.gains / size, 10), np.round(measured.noise / size**2, 12)
    )
    with threadpool_limits(1):  # small matrices: more threads are slower, and may change the last digits
        fits = []
        for rank in range(prior.rank + 1):
            ranked = replace(prior, rank=rank)
            fits.append(fit(ranked, observed, start(ranked, observed, metrics)))
        chosen, standardised = 0, None
        if len(observed.gains) >= LEAST:
            folds = cell_folds(observed, seed)
            errors = [left_out_errors(prior, candidate, observed, folds) for candidate in fits]
            losses = [float(np.mean(error[1] ** 2)) * MARGIN**rank for rank, error in enumerate(errors)]
            chosen = int(np.argmin(losses))
            standardised = errors[chosen][0]
        best = fits[chosen]
        mean, spread = condition(prior, best, observed, all_places(prior.shape))
        stretch = np.ones(prior.shape)
        if calibrate and standardised is not None:
            stretch = stretches(prior, best, observed, standardised, level=level, seed=seed)
        in_units = replace(
            best, units=best.units + np.log(size), expected_units=best.expected_units + np.log(size)
        )
        gains = size * mean.reshape(prior.shape)
        return TablePosterior(gains, size**2 * spread, in_units, measured, prior, stretch)


def condition(prior: Prior, fit: PriorFit, observed: Observed, places: Places) -> tuple[Array, Array]:
    """(m,) mean and (m, m) covariance of the gains at some places, given the measured ones.

    Units of targets with few measured cells are uncertain themselves: the covariance is the mean over
    that uncertainty (log-normal, its variance from the Fisher information of the measured cells).
    """
    unit = np.exp(fit.units)

    def expected(at: Places) -> Array:
        return np.asarray(unit[at[:, 1]] * prior.expected[at[:, 0], at[:, 1]])

    mean, spread = expected(places), covariance(prior, fit, places, places)
    information = np.zeros(prior.shape[1])
    if len(observed.gains):
        whole = covariance(prior, fit, observed.places, observed.places)
        cross = covariance(prior, fit, observed.places, places)
        noisy = whole + np.diag(observed.noise + JITTER * np.diag(whole).mean() + 1e-300)
        half = linalg.cholesky(noisy, lower=True, check_finite=False)
        shrunk = linalg.solve_triangular(half, cross, lower=True, check_finite=False)
        residual = observed.gains - expected(observed.places)
        mean = mean + shrunk.T @ linalg.solve_triangular(half, residual, lower=True, check_finite=False)
        spread = spread - shrunk.T @ shrunk
        # Fisher information of the logarithm of each target's unit: one half of the trace of (K^-1 dK)^2,
        # with dK = (e_i + e_j) K_ij for the target's cells e and K, the covariance without noise of items.
        inverse = linalg.cho_solve((half, True), np.eye(len(whole)), check_finite=False)
        left = inverse @ whole
        product, square = left * left.T, inverse * (whole @ left).T
        member = np.eye(prior.shape[1])[observed.places[:, 1]]
        information = np.asarray(((member.T @ (product + square)) * member.T).sum(axis=1))
    widen = np.exp(1.0 / (1.0 / UNIT_SPREAD**2 + information))[places[:, 1]]
    spread = spread * widen[:, None] * widen[None, :]
    np.fill_diagonal(spread, np.maximum(np.diag(spread), 0.0))
    return mean, spread


def cell_folds(observed: Observed, seed: int) -> Array:
    """(n,) the fold of each measured cell, 0 to ``FOLDS`` - 1, as even in size as can be."""
    count = len(observed.gains)
    return np.random.default_rng(seed).permutation(np.arange(count) % FOLDS)


def left_out_errors(prior: Prior, begin: PriorFit, observed: Observed, folds: Array) -> tuple[Array, Array]:
    """Errors of measured cells, each predicted without its fold and with hyper-parameters found without it.

    Returns the absolute errors in standard deviations (n,), and the errors in the units that their metric
    was expected to have (n,).
    """
    standardised, scaled = np.zeros(len(observed.gains)), np.zeros(len(observed.gains))
    for fold in np.unique(folds):
        out = folds == fold
        visible = observed.without(out)
        refitted = fit(prior, visible, begin, steps=REFIT_STEPS)
        mean, spread = condition(prior, refitted, visible, observed.places[out])
        deviation = np.sqrt(np.diag(spread) + observed.noise[out])
        error = observed.gains[out] - mean
        standardised[out] = np.abs(error) / np.maximum(deviation, 1e-300)
        scaled[out] = error / np.exp(begin.expected_units[observed.places[out, 1]])
    return standardised, scaled


def stretches(
    prior: Prior, fit: PriorFit, observed: Observed, errors: Array, *, level: float, seed: int
) -> Array:
    """(S, T) by how much standard deviations must be stretched for intervals of ``level`` to hold.

    errors: (n,) standardised, of cells left out in folds. The empirical quantile of standardised errors is
    divided by the normal one: those of cells for sources that have been measured, those of whole sources
    left out for the others.
    """
    measured = np.zeros(prior.shape[0], dtype=bool)
    measured[observed.places[:, 0]] = True
    factors = np.full(prior.shape, _stretch(errors, level))
    rows = np.flatnonzero(measured)
    if not measured.all() and len(rows) >= 3:
        fold_of = np.zeros(prior.shape[0], dtype=int)
        draw = np.random.default_rng(seed)
        fold_of[rows] = draw.permutation(np.arange(len(rows)) % min(FOLDS, len(rows)))
        of_sources, _ = left_out_errors(prior, fit, observed, fold_of[observed.places[:, 0]])
        factors[~measured] = _stretch(of_sources, level)
    return factors


def _stretch(errors: Array, level: float) -> float:
    """The quantile of standardised errors (n,) over the normal one."""
    rank = min(int(np.ceil(level * (len(errors) + 1))), len(errors))  # as in split conformal prediction
    return float(np.sort(errors)[rank - 1]) / z_value(level)
