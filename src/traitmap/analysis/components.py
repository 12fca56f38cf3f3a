"""One decomposition of one complete table: singular vectors under the sign rule, effects, leverage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from traitmap.analysis.completion import Metric, standardise
from traitmap.matrix import Array


@dataclass(frozen=True)
class Components:
    """u (S, C) and v (T, C) unit-norm, the largest |v| of each column positive; singular (C,).

    center, divisor: (T,). total: sum of squares of the standardised table.
    """

    u: Array
    v: Array
    singular: Array
    center: Array
    divisor: Array
    total: float

    @property
    def ratios(self) -> Array:
        """(C,) explained variance ratios."""
        return self.singular**2 / max(self.total, 1e-300)


def signs(loadings: Array) -> Array:
    """(C,) factors that make the largest-magnitude loading of each column positive.

    Of loadings that tie within 1e-9, the first counts, so that rounding cannot flip a component.
    """
    magnitude = np.abs(loadings)
    first = np.argmax(magnitude >= magnitude.max(axis=0) * (1 - 1e-9), axis=0)
    picked = loadings[first, np.arange(loadings.shape[1])]
    return np.where(picked < 0, -1.0, 1.0)


def components_of(table: Array, metric: Metric) -> Components:
    """Singular value decomposition of the standardised complete table (S, T); C = min(S - 1, T) at most."""
    scaled = standardise(table[None], metric)
    u, singular, vt = np.linalg.svd(scaled.z[0], full_matrices=False)
    count = max(1, min(table.shape[0] - 1, table.shape[1] - (1 if metric.double else 0)))
    u, singular, v = u[:, :count], singular[:count], vt[:count].T
    flip = signs(v)
    return Components(
        u * flip, v * flip, singular, scaled.center[0], scaled.divisor[0], float((scaled.z[0] ** 2).sum())
    )


def effect_weights(loadings: Array, spread: Array) -> Array:
    """(T, C) weights w with sum |w| = 1 that turn gains into an effect in the gains' own units.

    w is proportional to loading / spread, so that the effect is the adapter's score, less the base's,
    in other units: the mean gain over the targets, weighted by how strongly and in which direction
    each one loads.
    """
    weights = loadings / spread[:, None]
    total = np.abs(weights).sum(axis=0)
    return weights / np.where(total > 0, total, 1.0)


def effects_in_points(values: Array, reference: Array, weights: Array, points: Array) -> Array:
    """(..., S, C) weighted mean gain of values (..., S, T) over the reference (T,), in points."""
    return ((values - reference) * points) @ weights
