"""Rotations of loadings: varimax, oblimin, and towards a target; Tucker's congruence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.linalg import orthogonal_procrustes

from traitmap.matrix_record import Array

Rotation = Literal["none", "varimax", "oblimin"]


@dataclass(frozen=True)
class Rotated:
    """pattern (T, k) = loadings @ inv(transform).T; transform (k, k) with unit columns; correlation (k, k).

    Scores rotate as scores @ transform. The common part scores @ loadings.T is unchanged.
    """

    pattern: Array
    transform: Array
    correlation: Array

    @property
    def variances(self) -> Array:
        """(k,) variance of each factor over all targets, weighted by the factor correlations.

        diag(correlation @ pattern' pattern): sums to the communality. Squared pattern loadings alone
        do not, once factors correlate.
        """
        return np.diag(self.correlation @ self.pattern.T @ self.pattern).copy()


def varimax(
    loadings: Array, *, normalise: bool = True, tolerance: float = 1e-10, limit: int = 1000
) -> Rotated:
    """Kaiser's varimax (1958) of loadings (T, k), rows normalised to communality one while rotating."""
    size = np.sqrt((loadings**2).sum(axis=1, keepdims=True)) if normalise else np.ones((len(loadings), 1))
    rows = loadings / np.where(size > 1e-12, size, 1.0)
    turn = np.eye(loadings.shape[1])
    value = 0.0
    for _ in range(limit):
        turned = rows @ turn
        gradient = rows.T @ (turned**3 - turned * (turned**2).mean(axis=0))
        left, singular, right = np.linalg.svd(gradient)
        turn = left @ right
        if singular.sum() <= value * (1 + tolerance):
            break
        value = singular.sum()
    return _ordered(loadings @ turn, turn)


def oblimin(loadings: Array, *, tolerance: float = 1e-8, limit: int = 2000) -> Rotated:
    """Direct quartimin (oblimin with gamma 0) of loadings (T, k) by gradient projection.

    Jennrich (2002); Bernaards & Jennrich (2005), algorithm GPFoblq.
    """
    transform = np.eye(loadings.shape[1])
    step = 1.0
    value, gradient = _quartimin(loadings, transform)
    for _ in range(limit):
        projected = gradient - transform * (transform * gradient).sum(axis=0)
        size = float(np.linalg.norm(projected))
        if size < tolerance:
            break
        step *= 2
        for _ in range(30):
            moved = transform - step * projected
            moved = moved / np.linalg.norm(moved, axis=0)
            moved_value, moved_gradient = _quartimin(loadings, moved)
            if moved_value < value - 0.5 * size**2 * step:
                break
            step /= 2
        if moved_value >= value:
            break
        transform, value, gradient = moved, moved_value, moved_gradient
    return _ordered(loadings @ np.linalg.inv(transform).T, transform)


def _quartimin(loadings: Array, transform: Array) -> tuple[float, Array]:
    """The quartimin criterion and its gradient in the transform (k, k)."""
    inverse = np.linalg.inv(transform)
    pattern = loadings @ inverse.T
    squares = pattern**2
    others = squares.sum(axis=1, keepdims=True) - squares
    return float((squares * others).sum() / 4), -((pattern.T @ (pattern * others)) @ inverse).T


def _ordered(pattern: Array, transform: Array) -> Rotated:
    """Factors by falling variance, the largest loading of each positive."""
    variances = Rotated(pattern, transform, transform.T @ transform).variances
    order = np.argsort(-variances, kind="stable")
    pattern, transform = pattern[:, order], transform[:, order]
    peak = pattern[np.argmax(np.abs(pattern), axis=0), np.arange(pattern.shape[1])]
    flip = np.where(peak < 0, -1.0, 1.0)
    transform = transform * flip
    return Rotated(pattern * flip, transform, transform.T @ transform)


def rotate_loadings(loadings: Array, rotation: Rotation) -> Rotated:
    """Rotate loadings (T, k) by name; ``none`` and a single factor come back as they are."""
    count = loadings.shape[1]
    if rotation == "none" or count < 2:
        return Rotated(loadings, np.eye(count), np.eye(count))
    return varimax(loadings) if rotation == "varimax" else oblimin(loadings)


def rotate_to_target(loadings: Array, target: Array) -> Array:
    """The orthogonal rotation of loadings (T, k) closest to target (T, k) in least squares."""
    turn, _ = orthogonal_procrustes(loadings, target)
    return loadings @ turn


def congruence(first: Array, second: Array) -> Array:
    """Tucker's congruence of all pairs of columns: (T, a), (..., T, b) -> (..., a, b), in [-1, 1]."""
    product = np.swapaxes(first, -1, -2) @ second
    sizes = np.linalg.norm(first, axis=-2)[..., :, None] * np.linalg.norm(second, axis=-2)[..., None, :]
    return np.where(sizes > 0, product / np.where(sizes > 0, sizes, 1.0), 0.0)
