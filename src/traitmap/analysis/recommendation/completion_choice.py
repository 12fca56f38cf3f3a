"""Which cells to measure next: those that take away most of what is uncertain, for their price."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import linalg

from traitmap.analysis.recommendation.completion_posterior import Posterior
from traitmap.matrix_record import Array

Aim = Literal["all", "best"]
DRAWS = 1_000
_LEAST = 1e-12


@dataclass(frozen=True)
class Price:
    """What measuring costs, in shares of what the whole table costs.

    cells: (S, T) of evaluating each cell. training: (S,) of the adapter of each source, 0 where it is
    there. noise: (S, T) variance that items leave in a measured cell.
    """

    cells: Array
    training: Array
    noise: Array


def importance(posterior: Posterior, aim: Aim, metrics: Array, better: Array, *, seed: int = 0) -> Array:
    """(S, T) how much the variance of each cell matters, in inverse squared units of its target's metric.

    ``all``: every cell alike. ``best``: a cell matters by the probability that it is the best of its
    target, found from draws of the posterior. metrics: (T,) which targets share a metric, and so a unit.
    better: (T,) +1 where a higher gain is better, -1 where a lower one is.
    """
    unit = 1.0 / metric_units(posterior, metrics) ** 2
    if aim == "all":
        return np.broadcast_to(unit, posterior.mean.shape).copy()
    draw = np.random.default_rng(seed)
    shape = posterior.mean.shape
    chances = np.zeros(shape)
    for t in range(shape[1]):
        at = np.arange(shape[0]) * shape[1] + t
        values, vectors = np.linalg.eigh(posterior.covariance[np.ix_(at, at)])
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        drawn = posterior.mean[:, t] + draw.standard_normal((DRAWS, shape[0])) @ root.T
        best = np.argmax(drawn * better[t], axis=1)
        chances[:, t] = np.bincount(best, minlength=shape[0]) / DRAWS
    return (chances + 1.0 / shape[0]) * unit


def metric_units(posterior: Posterior, metrics: Array) -> Array:
    """(T,) root mean square gain that is expected over all targets of the same metric."""
    square = posterior.mean**2 + np.diag(posterior.covariance).reshape(posterior.mean.shape)
    units = np.empty(len(metrics))
    for group in np.unique(metrics):
        units[metrics == group] = np.sqrt(square[:, metrics == group].mean())
    return np.where(units > 0, units, 1.0)


def reduction(covariance: Array, weight: Array, noise: Array) -> Array:
    """(m,) by how much measuring one cell would cut the weighted sum of all cells' variances.

    covariance: (m, m) of all cells, weight, noise: (m,). For a Gaussian it does not depend on what will
    be found (A. Krause, A. Singh & C. Guestrin, Journal of Machine Learning Research 9:235-284, 2008).
    """
    own = np.diag(covariance) + noise
    cut = weight @ covariance**2
    return np.where(own > _LEAST * max(float(own.max(initial=0.0)), 1e-300), cut / np.maximum(own, 1e-300), 0)


def measured_once(covariance: Array, cell: int, noise: float) -> Array:
    """The covariance after one more cell has been measured."""
    column = covariance[:, cell]
    return np.asarray(covariance - np.outer(column, column) / max(column[cell] + noise, 1e-300))


def choose_cells(
    posterior: Posterior,
    price: Price,
    open_cells: Array,
    weight: Array,
    budget: float,
    *,
    most: int | None = None,
) -> list[tuple[int, int]]:
    """Cells in the order of choice: each the one that cuts most weighted variance per price.

    open_cells: (S, T) True where a cell may be chosen. budget: what all of them may cost, in the
    prices' own unit. most: of cells. Ties go to the first in the table's order.
    """
    targets = posterior.mean.shape[1]
    covariance = posterior.covariance
    cost, noise = price.cells.ravel(), price.noise.ravel()
    free = open_cells.ravel().copy()
    chosen: list[tuple[int, int]] = []
    while most is None or len(chosen) < most:
        able = np.logical_and(free, cost <= budget + 1e-12)
        if not able.any():
            break
        worth = reduction(covariance, weight.ravel(), noise) / np.maximum(cost, 1e-12)
        cell = int(np.argmax(np.where(able, worth, -np.inf)))
        chosen.append((cell // targets, cell % targets))
        budget -= cost[cell]
        free[cell] = False
        covariance = measured_once(covariance, cell, float(noise[cell]))
    return chosen


def choose_source(
    posterior: Posterior,
    price: Price,
    open_sources: Sequence[int],
    weight: Array,
    budget: tuple[float, float],
) -> int | None:
    """The source whose whole row would cut most weighted variance per price, or None where none fits.

    budget: what is left for training and for evaluation. A row's price is the share of what is left that
    it takes, of training and evaluation added up; a row dearer than what is left for evaluation counts as
    if part of it were measured.
    """
    best, found = -np.inf, None
    for source in open_sources:
        if price.training[source] > budget[0] + 1e-12:
            continue
        evaluation = min(float(price.cells[source].sum()), budget[1])
        part = evaluation / max(float(price.cells[source].sum()), 1e-12)
        cost = price.training[source] / max(budget[0], 1e-12) + evaluation / max(budget[1], 1e-12)
        worth = part * row_reduction(posterior, source, weight, price.noise[source]) / max(cost, 1e-12)
        if worth > best * (1 + 1e-9) or found is None:
            best, found = worth, source
    return found


def row_reduction(posterior: Posterior, source: int, weight: Array, noise: Array) -> float:
    """By how much measuring all cells of one source would cut the weighted sum of variances."""
    targets = posterior.mean.shape[1]
    row = slice(source * targets, (source + 1) * targets)
    whole = posterior.covariance[row, row] + np.diag(noise)
    whole += np.eye(targets) * 1e-10 * max(float(np.diag(whole).mean()), 1e-300)
    half = linalg.cholesky(whole, lower=True, check_finite=False)
    shrunk = linalg.solve_triangular(half, posterior.covariance[row], lower=True, check_finite=False)
    return float(((shrunk**2).sum(axis=0) * weight.ravel()).sum())
