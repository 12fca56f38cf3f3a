"""A plan for a budget: which adapters to train next, which of their cells to measure, on how many items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np

from traitmap.analysis.recommendation.completion_choice import (
    Price,
    choose_cells,
    choose_source,
    measured_once,
)
from traitmap.analysis.recommendation.completion_fit import Fit, Observed
from traitmap.analysis.recommendation.completion_kernel import Prior
from traitmap.analysis.recommendation.completion_posterior import Posterior, all_places, condition
from traitmap.matrix_record import Array

ITEM_SHARES = (1.0, 0.75, 0.5, 0.35, 0.25, 0.15, 0.1)
LEAST_ITEMS = 20
# Variance of one item's paired difference, in squared units of a target's gains: a tenth of the answers
# changed either way, where gains are of some 15 points.
ITEM_VARIANCE = 9.0


@dataclass(frozen=True)
class Left:
    """What is left of a budget: tokens of data to train on, and tokens to be scored."""

    training: float
    evaluation: float


def before_anything(prior: Prior) -> Posterior:
    """The prior as a posterior, every target in its own unit: what is believed before a cell is measured."""
    fit = Fit(
        variances=np.log([term.variance for term in prior.terms]),
        units=np.zeros(prior.shape[1]),
        loadings=np.zeros((prior.shape[1], 0)),
        expected_units=np.zeros(prior.shape[1]),
    )
    nothing = Observed(np.empty((0, 2), dtype=np.intp), np.empty(0), np.empty(0))
    mean, spread = condition(prior, fit, nothing, all_places(prior.shape))
    return Posterior(mean.reshape(prior.shape), spread, fit, nothing, prior, np.ones(prior.shape))


def expected_noise(items: Array, sources: int) -> Array:
    """(S, T) noise variance of a cell before anything is measured, given the items (T,) that are asked."""
    return np.repeat((ITEM_VARIANCE / np.maximum(items, 1))[None, :], sources, axis=0)


def items_asked(available: Sequence[int], share: float) -> tuple[int, ...]:
    """Items of each target at a share of them, not fewer than twenty where there are as many."""
    return tuple(max(min(n, LEAST_ITEMS), ceil(share * n - 1e-9)) for n in available)


def choose_item_share(
    posterior: Posterior,
    *,
    training: Array,
    evaluation: Array,
    available: Sequence[int],
    weight: Array,
    left: Left,
) -> float:
    """The share of items at which the budget leaves least weighted variance, as far as the prior knows.

    training: (S,) tokens of each adapter; evaluation: (T,) tokens of a whole cell. Few items are noisy and
    cheap, all of them are dear: the choice simulates the run at each share. 0 where even the fewest items
    of the base alone are too dear.
    """
    best, found = np.inf, 0.0
    for share in ITEM_SHARES:
        asked = np.array(items_asked(available, share), dtype=float)
        cell = evaluation * asked / np.maximum(np.asarray(available, dtype=float), 1)
        if cell.sum() > left.evaluation:
            continue
        price = Price(
            np.repeat(cell[None, :], len(training), axis=0), training, expected_noise(asked, len(training))
        )
        rest = _simulated(posterior, price, weight, Left(left.training, left.evaluation - cell.sum()))
        if rest < best * (1 - 1e-9):
            best, found = rest, share
    return found


def _simulated(posterior: Posterior, price: Price, weight: Array, left: Left) -> float:
    """Weighted variance that is left after a whole run at some price."""
    sources = choose_sources(posterior, price, range(len(price.training)), weight, left)
    open_cells = np.zeros(posterior.mean.shape, dtype=bool)
    open_cells[sources] = True
    cells = choose_cells(posterior, price, open_cells, weight, left.evaluation)
    after = with_cells(posterior, price, cells)
    return float((np.diag(after.covariance) * weight.ravel()).sum())


def choose_sources(
    posterior: Posterior,
    price: Price,
    open_sources: Sequence[int],
    weight: Array,
    left: Left,
    most: int | None = None,
) -> list[int]:
    """Sources in the order of choice, each in the light of the ones before it, while the budget holds."""
    chosen: list[int] = []
    training, evaluation = left.training, left.evaluation
    while most is None or len(chosen) < most:
        rest = [source for source in open_sources if source not in chosen]
        source = choose_source(posterior, price, rest, weight, (training, evaluation))
        if source is None:
            break
        chosen.append(source)
        training -= float(price.training[source])
        evaluation = max(evaluation - float(price.cells[source].sum()), 0.0)
        targets = range(posterior.mean.shape[1])
        posterior = with_cells(posterior, price, [(source, target) for target in targets])
    return chosen


def with_cells(posterior: Posterior, price: Price, cells: Sequence[tuple[int, int]]) -> Posterior:
    """The posterior's covariance after some cells have been measured, whatever is found there."""
    covariance, targets = posterior.covariance, posterior.mean.shape[1]
    for source, target in cells:
        noise = float(price.noise[source, target])
        covariance = measured_once(covariance, source * targets + target, noise)
    return replace(posterior, covariance=covariance)
