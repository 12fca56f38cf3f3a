"""One decomposition of one complete table: singular vectors under the sign rule, effects, leverage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from traitmap.analysis.completion import Metric, standardise
from traitmap.analysis.rotation import Rotated, Rotation, rotate_loadings
from traitmap.matrix_record import Array


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


def correlations(values: Array, *, least: int) -> Array:
    """(T, T) Pearson correlations of columns of (S, T), pairwise complete; NaN below ``least`` rows."""
    return np.asarray(pd.DataFrame(values).corr(min_periods=least), dtype=float)


def effect_weights(loadings: Array) -> Array:
    """(T, C) loadings scaled to sum |w| = 1: the mean gain over targets, by how and which way each loads.

    Not divided by the targets' spread, as the scores are with ``standard``: a target on which all
    sources are nearly alike would then decide every effect.
    """
    total = np.abs(loadings).sum(axis=0)
    return loadings / np.where(total > 0, total, 1.0)


def effects_in_points(values: Array, reference: Array, weights: Array, points: Array) -> Array:
    """(..., S, C) weighted mean gain of values (..., S, T) over the reference (T,), in points."""
    return ((values - reference) * points) @ weights


@dataclass(frozen=True)
class RotatedComponents:
    """Components whose first k are rotated; u, v unit-norm; size (C,) with scores = u * size.

    rotated: pattern loadings in units of the scale's standard deviations, transform and correlation,
    or None where nothing was rotated. ratios: (k,) shares of variance after rotation.
    """

    u: Array
    v: Array
    size: Array
    rotated: Rotated | None
    ratios: Array | None


def rotate_components(found: Components, count: int, rotation: Rotation) -> RotatedComponents:
    """Rotate the first ``count`` components; fewer than two cannot be rotated.

    The table's common part stays u[:, :k] diag(size) v[:, :k].T, also under an oblique rotation.
    """
    if rotation == "none" or count < 2:
        return RotatedComponents(found.u, found.v, found.singular, None, None)
    degrees = np.sqrt(max(len(found.u) - 1, 1))
    rotated = rotate_loadings(found.v[:, :count] * found.singular[:count] / degrees, rotation)
    length = np.linalg.norm(rotated.pattern, axis=0)
    u, v, size = found.u.copy(), found.v.copy(), found.singular.copy()
    u[:, :count] = found.u[:, :count] @ rotated.transform
    v[:, :count] = rotated.pattern / np.where(length > 0, length, 1.0)
    size[:count] = length * degrees
    ratios = rotated.variances / max(found.total / degrees**2, 1e-300)
    return RotatedComponents(u, v, size, rotated, ratios)
