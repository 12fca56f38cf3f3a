"""Components of a table: completion of missing cells, singular vectors, rotation, plane of the first two.

Tables are (S, T), sources by targets; many functions take a batch of them, (B, S, T), at once. The order of
the chapter is that of the work: a table is centred and scaled (``Centring``), its missing cells are filled by
regularised iterative PCA (Josse & Husson 2012, 2016, missMDA: fill with the low-rank fit, refit, repeat; each
component is shrunk by the noise that its eigenvalue holds, so that the fit does not feed on itself), its
singular vectors are taken under a sign rule, the first ones rotated (varimax, oblimin), and the first two
drawn as a plane with the scatter of each point. Nothing here is random and nothing warns; see dimension,
stability and findings.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite, sqrt
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from traitmap.matrix.record import Array

Rotation = Literal["none", "varimax", "oblimin"]
# Columns centred, ``standard``: and divided by their standard deviation; ``double``: and rows centred too.
Centring = Literal["standard", "center", "double"]
Mask = NDArray[np.bool_]
Scaling = tuple[Array, Array, Array]  # center and divisor of columns (B, T), means of rows (B, S)

PLANE = 2  # components of a plane
CONFIDENCE = 0.95


def standardise(tables: Array, metric: Centring) -> tuple[Array, Scaling]:
    """Centre (and scale) complete tables (B, S, T) column by column; constant columns become zero.

    The standard deviation divides by S - 1. With ``double`` row means are taken out before it.
    Returns z (B, S, T), and what ``restore`` needs to undo it.
    """
    center = tables.mean(axis=1)
    z = tables - center[:, None, :]
    row = np.zeros(tables.shape[:2])
    if metric == "double":
        row = z.mean(axis=2)
        z = z - row[:, :, None]
    divisor = np.ones_like(center)
    if metric == "standard":
        spread = np.sqrt((z**2).sum(axis=1) / max(tables.shape[1] - 1, 1))
        floor = 1e-12 * (np.abs(center) + np.abs(tables).max(axis=1)) + 1e-300
        divisor = np.where(spread > floor, spread, 1.0)
        z = np.where((spread > floor)[:, None, :], z / divisor[:, None, :], 0.0)
    return z, (center, divisor, row)


def restore(z: Array, scaling: Scaling) -> Array:
    """Undo ``standardise``: z (B, S, T) back to the units of the tables whose scaling this is."""
    center, divisor, row = scaling
    return z * divisor[:, None, :] + row[:, :, None] + center[:, None, :]


def gram_eigen(z: Array) -> tuple[Array, Array, bool]:
    """Falling eigenvalues (B, n) and eigenvectors (B, n, n) of the smaller Gram matrix of z (B, S, T).

    n = min(S, T). The third value says whether it is z'z (n = T, eigenvectors are loadings) or zz' (n = S).
    """
    tall = z.shape[2] <= z.shape[1]
    gram = np.swapaxes(z, 1, 2) @ z if tall else z @ np.swapaxes(z, 1, 2)
    eigenvalues, vectors = np.linalg.eigh(gram)
    return np.maximum(eigenvalues[:, ::-1], 0.0), vectors[:, :, ::-1], tall


def low_rank_fit(z: Array, rank: int, residual_degrees: Array, *, regularised: bool = True) -> Array:
    """Best rank-``rank`` fit of each z (B, S, T), its components shrunk by the noise in them.

    residual_degrees: (B,) observed cells less parameters. The noise variance is the residual sum of
    squares over them; each eigenvalue of z'z holds S T / min(T, S - 1) times that (Josse & Husson 2012),
    at most the first eigenvalue left out.
    """
    rows, columns = z.shape[1:]
    if rank == 0:
        return np.zeros_like(z)
    eigenvalues, vectors, tall = gram_eigen(z)
    vectors = vectors[:, :, :rank]
    leading = eigenvalues[:, :rank]
    factor = np.ones_like(leading)
    if regularised and eigenvalues.shape[1] > rank:
        residual = eigenvalues[:, rank:].sum(axis=1)
        noise = residual / residual_degrees * rows * columns / min(columns, rows - 1)
        noise = np.minimum(noise, eigenvalues[:, rank])
        factor = np.maximum(leading - noise[:, None], 0.0) / np.maximum(leading, 1e-300)
    if tall:
        return ((z @ vectors) * factor[:, None, :]) @ np.swapaxes(vectors, 1, 2)
    return vectors @ (factor[:, :, None] * (np.swapaxes(vectors, 1, 2) @ z))


def residual_degrees(observed: Mask, rank: int, metric: Centring) -> Array:
    """(B,) observed cells less the parameters of a rank-``rank`` fit with its means; at least 1.

    observed: (B, S, T). Means are one per column, and one per row more where the table is double-centred.
    """
    rows, columns = observed.shape[1:]
    means = columns + (rows - 1 if metric == "double" else 0)
    free = rank * (rows - 1 + columns - rank)
    return np.maximum(observed.sum(axis=(1, 2)) - means - free, 1).astype(float)


def fill_with_means(tables: Array, observed: Mask) -> Array:
    """Missing cells of tables (B, S, T) set to the mean of their column's observed cells.

    observed: (B, S, T). A column without any observed cell becomes 0.
    """
    values = np.where(observed, tables, 0.0)
    counts = np.maximum(observed.sum(axis=1), 1)
    means = values.sum(axis=1) / counts
    return np.where(observed, values, means[:, None, :])


def complete_tables(
    tables: Array,
    observed: Mask,
    rank: int,
    metric: Centring,
    *,
    start: Array | None = None,
    tolerance: float = 1e-6,
    limit: int = 300,
    regularised: bool = True,
) -> Array:
    """Fill the missing cells of tables (B, S, T) by iterative PCA of the given rank.

    start: completed tables to begin from (default: column means). Stops when the root mean square
    change of the filled cells falls below ``tolerance`` times the table's standard deviation.
    """
    filled = fill_with_means(tables, observed) if start is None else np.where(observed, tables, start)
    if observed.all() or (rank == 0 and metric != "double"):
        return filled
    degrees = residual_degrees(observed, rank, metric)
    missing_count = np.maximum((~observed).sum(axis=(1, 2)), 1)
    active = np.flatnonzero((~observed).any(axis=(1, 2)))
    for _ in range(limit):
        current = filled[active]
        z, scaling = standardise(current, metric)
        fit = restore(low_rank_fit(z, rank, degrees[active], regularised=regularised), scaling)
        updated = np.where(observed[active], current, fit)
        step = (((updated - current) / scaling[1][:, None, :]) ** 2).sum(axis=(1, 2))
        spread = (z**2).mean(axis=(1, 2)) + 1e-300
        filled[active] = updated
        active = active[step / missing_count[active] > tolerance**2 * spread]
        if active.size == 0:
            break
    return filled


def complete(
    values: Array,
    rank: int,
    metric: Centring = "standard",
    *,
    regularised: bool = True,
    tolerance: float = 1e-10,
    limit: int = 5000,
) -> Array:
    """Fill the NaN of one table (S, T) by regularised iterative PCA; observed cells stay as they are.

    rank: components of the fit. metric: how columns are centred and scaled. tolerance,
    limit: as in ``complete_tables``, here close to the end. Returns (S, T) in the units of the table.
    """
    observed = np.isfinite(values)[None]
    filled = complete_tables(
        np.asarray(values, dtype=float)[None],
        observed,
        rank,
        metric,
        tolerance=tolerance,
        limit=limit,
        regularised=regularised,
    )
    return filled[0]


def factor_variances(pattern: Array, transform: Array) -> Array:
    """(k,) variance of each rotated factor over all targets, weighted by the factor correlations.

    pattern: (T, k). transform: (k, k), of a rotation. diag(correlation @ pattern' pattern) with correlation
    = transform' transform: sums to the communality. Squared pattern loadings alone do not, once factors
    correlate.
    """
    return np.diag(transform.T @ transform @ pattern.T @ pattern).copy()


def varimax(
    loadings: Array, *, normalise: bool = True, tolerance: float = 1e-10, limit: int = 1000
) -> tuple[Array, Array]:
    """Varimax of loadings (T, k) (Kaiser, Psychometrika 1958): pattern and transform.

    normalise: rows have communality one while rotating. Stops when the criterion rises by less than
    ``tolerance`` of itself.
    """
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


def oblimin(loadings: Array, *, tolerance: float = 1e-8, limit: int = 2000) -> tuple[Array, Array]:
    """Direct quartimin (oblimin with gamma 0) of loadings (T, k) by gradient projection: pattern, transform.

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


def _ordered(pattern: Array, transform: Array) -> tuple[Array, Array]:
    """Factors by falling variance, the largest loading of each positive."""
    order = np.argsort(-factor_variances(pattern, transform), kind="stable")
    pattern, transform = pattern[:, order], transform[:, order]
    peak = pattern[np.argmax(np.abs(pattern), axis=0), np.arange(pattern.shape[1])]
    flip = np.where(peak < 0, -1.0, 1.0)
    return pattern * flip, transform * flip


def rotate_loadings(loadings: Array, rotation: Rotation) -> tuple[Array, Array]:
    """Rotate loadings (T, k) by ``varimax`` or ``oblimin``; ``none`` and a single factor stay as they are.

    Returns pattern (T, k) = loadings @ inv(transform).T, and transform (k, k) with unit columns; factors by
    falling variance, the largest loading of each positive. Scores rotate as scores @ transform, factors
    correlate as transform.T @ transform, and the common part scores @ loadings.T is unchanged.
    """
    if rotation == "none" or loadings.shape[1] < 2:
        return loadings, np.eye(loadings.shape[1])
    return varimax(loadings) if rotation == "varimax" else oblimin(loadings)


def congruence(first: Array, second: Array) -> Array:
    """Tucker's congruence of all pairs of columns: (T, a), (..., T, b) -> (..., a, b), in [-1, 1].

    The cosine of two loading vectors, not centred; 0 where either has no length.
    """
    product = np.swapaxes(first, -1, -2) @ second
    sizes = np.linalg.norm(first, axis=-2)[..., :, None] * np.linalg.norm(second, axis=-2)[..., None, :]
    return np.where(sizes > 0, product / np.where(sizes > 0, sizes, 1.0), 0.0)


@dataclass(frozen=True)
class Components:
    """u (S, C) and v (T, C) unit-norm, the largest |v| of each column positive; singular (C,).

    center, divisor: (T,). total: sum of squares of the standardised table. Of rotated components,
    ``singular`` is the size (C,) with scores = u * size.
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


def components_of(table: Array, metric: Centring) -> Components:
    """Singular value decomposition of the standardised complete table (S, T).

    C is at most min(S - 1, T), one less than T where the table is double-centred. Signs by ``signs``.
    """
    z, (center, divisor, _) = standardise(table[None], metric)
    u, singular, vt = np.linalg.svd(z[0], full_matrices=False)
    count = max(1, min(table.shape[0] - 1, table.shape[1] - (1 if metric == "double" else 0)))
    u, singular, v = u[:, :count], singular[:count], vt[:count].T
    flip = signs(v)
    return Components(u * flip, v * flip, singular, center[0], divisor[0], float((z[0] ** 2).sum()))


def correlations(values: Array, *, least: int) -> Array:
    """(T, T) Pearson correlations of the columns of values (S, T), pairwise complete.

    least: rows that two columns must have in common; NaN below that.
    """
    return np.asarray(pd.DataFrame(values).corr(min_periods=least), dtype=float)


def effect_weights(loadings: Array) -> Array:
    """(T, C) loadings scaled to sum |w| = 1: the mean gain over targets, by how and which way each loads.

    Not divided by the targets' spread, as the scores are with ``standard``: a target on which all
    sources are nearly alike would then decide every effect.
    """
    total = np.abs(loadings).sum(axis=0)
    return loadings / np.where(total > 0, total, 1.0)


def effects_in_points(values: Array, reference: Array, weights: Array, points: Array) -> Array:
    """(..., S, C) weighted mean gain of values (..., S, T) over the reference (T,), in points.

    weights: (T, C) of ``effect_weights``. points: (T,) points per unit of each target.
    """
    return ((values - reference) * points) @ weights


def rotate_components(
    unrotated: Components, count: int, rotation: Rotation
) -> tuple[Components, Array | None, Array | None]:
    """Rotate the first ``count`` (k) components; fewer than two cannot be rotated.

    Returns the components, with the first k in rotated form; the transform (k, k); and (k,) shares of
    variance after rotation. The last two are None where nothing was rotated. The table's common part stays
    u[:, :k] diag(size) v[:, :k].T, also under an oblique rotation.
    """
    if rotation == "none" or count < 2:
        return unrotated, None, None
    degrees = np.sqrt(max(len(unrotated.u) - 1, 1))
    standard = unrotated.v[:, :count] * unrotated.singular[:count] / degrees  # in standard deviations
    pattern, transform = rotate_loadings(standard, rotation)
    length = np.linalg.norm(pattern, axis=0)
    u, v, size = unrotated.u.copy(), unrotated.v.copy(), unrotated.singular.copy()
    u[:, :count] = unrotated.u[:, :count] @ transform
    v[:, :count] = pattern / np.where(length > 0, length, 1.0)
    size[:count] = length * degrees
    ratios = factor_variances(pattern, transform) / max(unrotated.total / degrees**2, 1e-300)
    return replace(unrotated, u=u, v=v, singular=size), transform, ratios


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


def biplot_of(
    filled: Array, metric: Centring, loadings: Array, aligned: Array, moved: Array | None
) -> Biplot:
    """The plane of a complete table (S, T) whose resampled loadings are ``aligned`` (B, T, M).

    loadings: (T, M) of the whole table. moved: (B, S, T) measurement deviations of each draw in units of
    the table, or None where they are unknown: then adapters move with the axes only.
    Every adapter is projected on every draw's axes, so that its scatter holds their uncertainty and its own.
    """
    (z,), (_, (divisor,), _) = standardise(filled[None], metric)
    axes = aligned[:, :, :PLANE]
    drawn = z @ axes
    if moved is not None:
        # scaling and centring of the draws, done to the axes and to the points: the draws are many
        centred = axes - axes.mean(axis=1, keepdims=True) if metric == "double" else axes
        apart = moved @ (centred / divisor[:, None])
        drawn = drawn + apart - apart.mean(axis=1, keepdims=True)
    return Biplot(
        scores=z @ loadings[:, :PLANE],
        loadings=loadings[:, :PLANE],
        scores_covariance=_covariances(drawn),
        loadings_covariance=_covariances(axes),
        draws=len(aligned),
    )


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


def leaves_out_origin(point: Array, covariance: Array) -> bool:
    """Whether the 95 % ellipse about a point (2,) leaves out the origin; False where it has no area."""
    long, short, angle = ellipse(covariance)
    if not (isfinite(long) and short > 0):
        return False
    turn = np.radians(angle)
    along = float(point @ np.array([np.cos(turn), np.sin(turn)]))
    across = float(point @ np.array([-np.sin(turn), np.cos(turn)]))
    return (along / long) ** 2 + (across / short) ** 2 > 1
