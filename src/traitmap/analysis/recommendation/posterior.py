"""The joint posterior of all sources' gains on one target: who is best, ties, and what a probe would change.

The order of the chapter is that of a question. Predicted means and the errors of held-out predictions make a
normal distribution over the S sources (``predictive_posterior``). Probes are taken in (``condition_on``),
after predictions that failed here have been trusted less (``inflate_variance``). What is left is read off:
the chance of each source to be best, the smallest difference that can be seen, the next probe.

Gains are in the unit of the model's effects, higher is better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats
from sklearn.covariance import LedoitWolf

from traitmap.matrix.record import Array
from traitmap.matrix.statistics import z_value

DRAWS = 4000
NINETY = z_value(0.9)  # half a 90 % interval in standard deviations


@dataclass(frozen=True)
class Posterior:
    """Gains of S sources on one target: mean (S,) and covariance (S, S) of a normal distribution."""

    mean: Array
    covariance: Array

    @property
    def deviation(self) -> Array:
        """(S,) standard deviations."""
        return np.sqrt(np.maximum(np.diag(self.covariance), 0.0))

    def only(self, rows: Sequence[int]) -> Posterior:
        """The marginal distribution of some of the sources, in the order given."""
        return Posterior(self.mean[list(rows)], self.covariance[np.ix_(rows, rows)])


def predictive_posterior(mean: Array, deviation: float, errors: Array) -> Posterior:
    """Predicted means (S,) with one standard deviation, correlated as errors on other targets are.

    errors: (S, T) of predictions for other targets while those were held out, NaN where unknown, in one
    unit. What sources have in common on a target makes its level uncertain, not their order; what is left
    is correlated between sources that err together (shrunk: Ledoit & Wolf 2004, J. Multivariate Analysis).
    """
    count = len(mean)
    shared, within = 0.5, np.eye(count)
    errors = errors[:, np.isfinite(errors).sum(axis=0) >= 2]
    if errors.shape[1] >= 3:
        known = np.isfinite(errors)
        level = np.where(known, errors, 0.0).sum(axis=0) / known.sum(axis=0)
        residual = np.where(known, errors - level, 0.0)
        cell = float((residual**2).sum() / max((known.sum(axis=0) - 1).sum(), 1))
        between = max(float((level**2).mean()) - cell / float(known.sum(axis=0).mean()), 0.0)
        if cell > 1e-12:
            shared = between / (between + cell)
            shrunk = LedoitWolf(assume_centered=True).fit(residual.T).covariance_
            within = shrunk * count / np.trace(shrunk)
    return Posterior(np.array(mean, dtype=float), deviation**2 * (shared + (1 - shared) * within))


def condition_on(posterior: Posterior, sources: Sequence[int], gains: Array, noise: Array) -> Posterior:
    """The distribution after some sources have been measured (Rasmussen & Williams 2006, section A.2).

    sources: their n rows. gains, noise: (n,) what was measured and the variance of each measurement.
    """
    at = list(sources)
    if not at:
        return posterior
    cross = posterior.covariance[:, at]
    inner = cross[at] + np.diag(noise) + np.eye(len(at)) * 1e-9 * max(float(np.trace(cross[at])), 1e-12)
    solved = np.linalg.solve(inner, cross.T)
    covariance = posterior.covariance - cross @ solved
    return Posterior(
        posterior.mean + (gains - posterior.mean[at]) @ solved, 0.5 * (covariance + covariance.T)
    )


def inflate_variance(posterior: Posterior, sources: Sequence[int], gains: Array, noise: Array) -> Posterior:
    """Larger variances where measurements (n,) lie further off than one in twenty would.

    The covariance is multiplied until the measurements are as far off as is usual: predictions that have
    been seen to fail here are trusted less elsewhere on this target too.
    """
    at = list(sources)
    if not at:
        return posterior
    gap, inner = gains - posterior.mean[at], posterior.covariance[np.ix_(at, at)]

    def surprise(factor: float) -> float:
        whole = factor * inner + np.diag(noise) + np.eye(len(at)) * 1e-12 * max(float(np.trace(inner)), 1e-12)
        return float(gap @ np.linalg.solve(whole, gap))

    if surprise(1.0) <= stats.chi2.ppf(0.95, len(at)):
        return posterior
    high = 2.0
    while surprise(high) > len(at) and high < 1e9:
        high *= 2
    factor = optimize.brentq(lambda factor: surprise(factor) - len(at), 1.0, high) if high < 1e9 else high
    return Posterior(posterior.mean, posterior.covariance * factor)


def chance_better(posterior: Posterior, first: int) -> Array:
    """(S,) probability of each source to be better than the source ``first``; one half for itself."""
    variance = np.diag(posterior.covariance)
    spread = variance + variance[first] - 2 * posterior.covariance[:, first]
    gap = posterior.mean - posterior.mean[first]
    scale = np.sqrt(np.maximum(spread, 1e-18 + 1e-12 * variance.max(initial=0.0)))
    return np.asarray(stats.norm.cdf(gap / scale))


def chance_best(posterior: Posterior, seed: int) -> Array:
    """(S,) probability of each source to be the best of all, by draws of the joint distribution."""
    values, vectors = np.linalg.eigh(posterior.covariance)
    # the symmetric root: equal eigenvalues leave it alone, whichever vectors stand for them
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    drawn = (
        posterior.mean + np.random.default_rng(seed).standard_normal((DRAWS, len(posterior.mean))) @ root.T
    )
    return np.bincount(drawn.argmax(axis=1), minlength=len(posterior.mean)) / DRAWS


def smallest_difference(posterior: Posterior) -> float:
    """The difference of two typical sources that would be put in order with 90 % probability.

    NaN for a single source, which has nothing to differ from.
    """
    variance = np.diag(posterior.covariance)
    spread = variance[:, None] + variance[None, :] - 2 * posterior.covariance
    pairs = spread[np.triu_indices(len(variance), 1)]
    return float(z_value(0.8) * np.sqrt(max(np.median(pairs), 0.0))) if len(pairs) else float("nan")


def next_probes(
    posterior: Posterior, open_sources: Sequence[int], noise: float, most: int = 3
) -> list[tuple[int, float, float]]:
    """The sources whose measurement would raise the expected gain of the first one most, the best first.

    open_sources: rows that may be measured. noise: variance of one measurement. Each result is (row, change,
    worth): change is the probability that another source stands first afterwards, worth by how much the
    expected gain of the one that then stands first grows, in the unit of the gains. This is the knowledge
    gradient for correlated beliefs (P. Frazier, W. Powell & S. Dayanik, INFORMS Journal on Computing
    21:599-613, 2009), by quadrature.
    """
    z = stats.norm.ppf((np.arange(201) + 0.5) / 201)
    first, top = int(np.argmax(posterior.mean)), float(posterior.mean.max())
    probes = []
    for source in open_sources:
        column = posterior.covariance[:, source]
        step = column / np.sqrt(max(column[source] + noise, 1e-300))
        after = posterior.mean[:, None] + step[:, None] * z[None, :]
        change = float((after.argmax(axis=0) != first).mean())
        probes.append((source, change, float(after.max(axis=0).mean() - top)))
    return sorted(probes, key=lambda probe: (-probe[2], probe[0]))[:most]
