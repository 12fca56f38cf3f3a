"""Adapters and targets on one plane: how far each moves on two components when the data are resampled."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np

from traitmap.analysis.completion import Metric, standardise
from traitmap.matrix_record import Array

PLANE = 2  # components of a plane
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Biplot:
    """The first two components as a plane (Gabriel, Biometrika 1971), with the scatter of each point.

    scores: (S, 2) adapters, standardised values times loadings. loadings: (T, 2). Both are NaN for what was
        left out. scores_covariance: (S, 2, 2), loadings_covariance: (T, 2, 2) over resampled adapters (and
        items and seeds, where the table holds them), each draw matched to the whole table's components.
    draws: how many.
    """

    scores: Array
    loadings: Array
    scores_covariance: Array
    loadings_covariance: Array
    draws: int


def biplot_of(filled: Array, metric: Metric, loadings: Array, aligned: Array, moved: Array | None) -> Biplot:
    """The plane of a complete table (S, T) whose resampled loadings are ``aligned`` (B, T, M).

    loadings: (T, M) of the whole table. moved: (B, S, T) measurement deviations of each draw in units of
    the table, or None where they are unknown: then adapters move with the axes only.
    Every adapter is projected on every draw's axes, so that its scatter holds their uncertainty and its own.
    """
    found = standardise(filled[None], metric)
    z, divisor = found.z[0], np.broadcast_to(found.divisor, (1, 1, filled.shape[1]))[0, 0]
    axes = aligned[:, :, :PLANE]
    drawn = z @ axes
    if moved is not None:
        drawn = drawn + _centred(moved / divisor, metric) @ axes
    return Biplot(
        scores=z @ loadings[:, :PLANE],
        loadings=loadings[:, :PLANE],
        scores_covariance=_covariances(drawn),
        loadings_covariance=_covariances(axes),
        draws=len(aligned),
    )


def _centred(moved: Array, metric: Metric) -> Array:
    """Deviations from their mean over adapters (and, in a double-centred table, over targets)."""
    centred = moved - moved.mean(axis=1, keepdims=True)
    return centred - centred.mean(axis=2, keepdims=True) if metric.double else centred


def _covariances(drawn: Array) -> Array:
    """(n, 2, 2) covariance over draws of points (B, n, 2)."""
    apart = drawn - drawn.mean(axis=0)
    return np.einsum("bni,bnj->nij", apart, apart) / max(len(drawn) - 1, 1)


def ellipse(covariance: Array, confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    """Half axes (long, short) and the angle of the long one in degrees, of a normal 2 x 2 covariance.

    The ellipse holds ``confidence`` of a normal distribution. NaN where the covariance is unknown.
    """
    if not np.isfinite(covariance).all():
        return float("nan"), float("nan"), float("nan")
    values, vectors = np.linalg.eigh(covariance)
    radius = sqrt(-2 * np.log(1 - confidence))  # of chi squared with two degrees of freedom
    short, long = (radius * sqrt(max(float(value), 0.0)) for value in values)
    angle = float(np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1])))
    return long, short, angle
