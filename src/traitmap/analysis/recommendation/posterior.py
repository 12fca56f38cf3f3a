"""What is believed of all sources' gains on one target, together: ties, and what a probe would change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats
from sklearn.covariance import LedoitWolf

from traitmap.matrix.record import Array

DRAWS = 4000
NINETY = float(stats.norm.ppf(0.95))  # half a 90 % interval in standard deviations


@dataclass(frozen=True)
class Belief:
    """Gains of S sources on one target: mean (S,) and covariance (S, S), as of a normal distribution."""

    mean: Array
    covariance: Array

    @property
    def deviation(self) -> Array:
        """(S,) standard deviations."""
        return np.sqrt(np.maximum(np.diag(self.covariance), 0.0))

    def only(self, kept: Sequence[int]) -> Belief:
        """The belief of some of the sources."""
        return Belief(self.mean[list(kept)], self.covariance[np.ix_(kept, kept)])


@dataclass(frozen=True)
class NextProbe:
    """What measuring one source on the target would do.

    change: probability that another source stands first afterwards. worth: by how much the expected gain
    of the source that then stands first grows, in the unit of the gains.
    """

    source: int
    change: float
    worth: float


def believe(mean: Array, deviation: float, errors: Array) -> Belief:
    """A belief with predicted means (S,) and one standard deviation, correlated as errors on others are.

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
        rest = np.where(known, errors - level, 0.0)
        cell = float((rest**2).sum() / max((known.sum(axis=0) - 1).sum(), 1))
        between = max(float((level**2).mean()) - cell / float(known.sum(axis=0).mean()), 0.0)
        if cell > 1e-12:
            shared = between / (between + cell)
            shrunk = LedoitWolf(assume_centered=True).fit(rest.T).covariance_
            within = shrunk * count / np.trace(shrunk)
    return Belief(np.array(mean, dtype=float), deviation**2 * (shared + (1 - shared) * within))


def updated(belief: Belief, sources: Sequence[int], gains: Array, noise: Array) -> Belief:
    """The belief after some sources have been measured, with the variance of each measurement."""
    at = list(sources)
    if not at:
        return belief
    cross = belief.covariance[:, at]
    inner = cross[at] + np.diag(noise) + np.eye(len(at)) * 1e-9 * max(float(np.trace(cross[at])), 1e-12)
    solved = np.linalg.solve(inner, cross.T)
    covariance = belief.covariance - cross @ solved
    return Belief(belief.mean + (gains - belief.mean[at]) @ solved, 0.5 * (covariance + covariance.T))


def widened(belief: Belief, sources: Sequence[int], gains: Array, noise: Array) -> Belief:
    """The belief with larger variances where measurements lie further off than one in twenty would.

    Its covariance is multiplied until the measurements are as far off as is usual: predictions that have
    been seen to fail here are trusted less elsewhere on this target too.
    """
    at = list(sources)
    if not at:
        return belief
    gap, inner = gains - belief.mean[at], belief.covariance[np.ix_(at, at)]

    def surprise(factor: float) -> float:
        whole = factor * inner + np.diag(noise) + np.eye(len(at)) * 1e-12 * max(float(np.trace(inner)), 1e-12)
        return float(gap @ np.linalg.solve(whole, gap))

    if surprise(1.0) <= stats.chi2.ppf(0.95, len(at)):
        return belief
    high = 2.0
    while surprise(high) > len(at) and high < 1e9:
        high *= 2
    factor = optimize.brentq(lambda factor: surprise(factor) - len(at), 1.0, high) if high < 1e9 else high
    return Belief(belief.mean, belief.covariance * factor)


def better(belief: Belief, first: int) -> Array:
    """(S,) probability of each source to be better than the source ``first``; one half for itself."""
    variance = np.diag(belief.covariance)
    spread = variance + variance[first] - 2 * belief.covariance[:, first]
    gap = belief.mean - belief.mean[first]
    scale = np.sqrt(np.maximum(spread, 1e-18 + 1e-12 * variance.max(initial=0.0)))
    return np.asarray(stats.norm.cdf(gap / scale))


def best_chances(belief: Belief, seed: int) -> Array:
    """(S,) probability of each source to be the best of all."""
    values, vectors = np.linalg.eigh(belief.covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    drawn = belief.mean + np.random.default_rng(seed).standard_normal((DRAWS, len(belief.mean))) @ root.T
    return np.bincount(drawn.argmax(axis=1), minlength=len(belief.mean)) / DRAWS


def smallest_difference(belief: Belief) -> float:
    """The difference of two typical sources that would be told with 90 % probability to be right."""
    variance = np.diag(belief.covariance)
    spread = variance[:, None] + variance[None, :] - 2 * belief.covariance
    pairs = spread[np.triu_indices(len(variance), 1)]
    return float(stats.norm.ppf(0.9) * np.sqrt(max(np.median(pairs), 0.0))) if len(pairs) else float("nan")


def next_probes(belief: Belief, open_sources: Sequence[int], noise: float, most: int = 3) -> list[NextProbe]:
    """The sources whose measurement would raise the expected gain of the first one most.

    noise: variance of one measurement. This is the knowledge gradient for correlated beliefs (P. Frazier,
    W. Powell & S. Dayanik, INFORMS Journal on Computing 21:599-613, 2009), by quadrature.
    """
    z = stats.norm.ppf((np.arange(201) + 0.5) / 201)
    first, top = int(np.argmax(belief.mean)), float(belief.mean.max())
    found = []
    for source in open_sources:
        column = belief.covariance[:, source]
        step = column / np.sqrt(max(column[source] + noise, 1e-300))
        after = belief.mean[:, None] + step[:, None] * z[None, :]
        found.append(
            NextProbe(
                source, float((after.argmax(axis=0) != first).mean()), float(after.max(axis=0).mean() - top)
            )
        )
    return sorted(found, key=lambda one: (-one.worth, one.source))[:most]
