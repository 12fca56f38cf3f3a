"""complete: a transfer matrix with its missing cells predicted; and what to measure next within a budget.

Three parts, each resting on the one before:

1. ``complete`` reads the measured cells (``read_table``), infers all others (``gaussian.infer``) and fills
   them in, each with an interval and marked as predicted (``fill``).
2. Choice of cells: ``choose_cells`` takes, one by one, what cuts most of the weighted variance per price. For
   a Gaussian that does not depend on what will be measured.
3. A plan before anything is measured: ``before_anything`` is the prior as a posterior, ``choose_item_share``
   simulates the run at several shares of the items.

Adapters are not chosen here: whole rows by the variance that they take away for their price were no better
than the cheapest first (``benchmarks/budget.py``, docs/log.md).

Gains (S, T) are in the unit of each target's metric. Prices are tokens, or whatever unit the budget has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, isfinite, nan
from typing import Any, Literal

import numpy as np

from traitmap.analysis.profiles.pairs import PairFeatures, pair_features
from traitmap.analysis.recommendation.gaussian import (
    Observed,
    Prior,
    PriorFit,
    TablePosterior,
    all_places,
    condition,
    infer,
    make_prior,
)
from traitmap.data.texts import Texts
from traitmap.errors import MatrixError
from traitmap.matrix.record import Array, Cell, TransferMatrix
from traitmap.matrix.statistics import error_of_width, group_scores, z_value

Aim = Literal["all", "best"]

LEAST_CELLS = 3
MOST_CELLS = 3_000
DRAWS = 1_000
ITEM_SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1)
LEAST_ITEMS = 20
# Variance of one item's paired difference, in squared units of a target's gains: a tenth of the answers
# changed either way, where gains are of some 15 points.
ITEM_VARIANCE = 9.0
SHARES = frozenset({"acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match"})
METHOD = (
    "Gaussian process over gains (effects of targets and sources, likeness in features, own target), "
    "hyper-parameters by marginal likelihood, intervals stretched by cross-validation"
)


@dataclass(frozen=True)
class CompletionTable:
    """A matrix as the completion reads it, in canonical order (sources and targets sorted by name).

    rows, columns: indices into the matrix. offset: (T,) what gains are above: the base, or the mean of
    the measured values where the base is unknown. metrics: (T,) number of each target's metric, 0 where none
    is known. better: (T,) +1 where a higher gain is better, -1 where a lower one is. observed: the measured
    cells. item_noise: (S, T) variance that the items leave in a measured cell, or would leave in a missing
    one.
    """

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    offset: Array
    metrics: Array
    better: Array
    observed: Observed
    item_noise: Array
    prior: Prior


def complete(
    matrix: TransferMatrix,
    features: PairFeatures | None = None,
    texts: Texts | None = None,
    level: float = 0.9,
    seed: int = 0,
) -> TransferMatrix:
    """Fill the missing cells of a matrix with what the measured ones say of them.

    features: of all pairs of sources and targets; texts: of every source and target by name, from which
        features are made where none are given. level: of the intervals.
    A filled cell has the status ``predicted``; its gain is the posterior mean, its interval holds what a
    full measurement would show with probability ``level``; it has no p and no q. ``stderr`` is the
    standard deviation of that prediction. Where the base is unknown, gains stay unknown and
    ``stderr`` alone tells how sure the value is. Measured cells stay as they are. Conditions say how
    under ``completion``. Raises MatrixError where fewer than three cells are measured.
    """
    if not 0 < level < 1:
        raise MatrixError(f"level {level!r} is not a probability; give a number between 0 and 1, such as 0.9")
    if features is None and texts is not None:
        features = features_of_texts(matrix, texts, seed)
    table = read_table(matrix, features)
    posterior = infer(table.prior, table.observed, table.metrics, level=level, seed=seed)
    return fill(matrix, table, posterior, level, features)


def features_of_texts(matrix: TransferMatrix, texts: Texts, seed: int = 0) -> PairFeatures | None:
    """Features of all pairs from texts by name; None where some source or target has no texts.

    The order is that of the matrix. seed: of what is sampled of the texts.
    """
    if not all(texts.get(name) for name in (*matrix.sources, *matrix.targets)):
        return None
    return pair_features(
        {name: texts[name] for name in matrix.sources},
        {name: texts[name] for name in matrix.targets},
        seed=seed,
    )


def read_table(matrix: TransferMatrix, features: PairFeatures | None = None) -> CompletionTable:
    """The measured cells of a matrix, and the prior of all of them.

    Raises MatrixError where fewer than three cells are measured, or more than the method can take.
    """
    rows = tuple(sorted(range(len(matrix.sources)), key=lambda i: matrix.sources[i]))
    columns = tuple(sorted(range(len(matrix.targets)), key=lambda j: matrix.targets[j]))
    grid = np.ix_(rows, columns)
    values = np.where(matrix.predicted, nan, matrix.values)[grid]
    known = np.isfinite(values)
    if known.sum() < LEAST_CELLS:
        raise MatrixError(
            f"only {int(known.sum())} cells are measured; a completion needs at least {LEAST_CELLS}"
        )
    if known.sum() > MOST_CELLS:
        raise MatrixError(
            f"{int(known.sum())} cells are measured; the completion takes at most {MOST_CELLS}: leave out "
            "sources or targets"
        )
    offset = np.asarray(matrix.baseline, dtype=float)[list(columns)]
    means = np.where(known, values, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    offset = np.where(np.isfinite(offset), offset, means)
    places = np.argwhere(known)
    noise = gain_noise(matrix)[grid]
    sources, targets = [matrix.sources[i] for i in rows], [matrix.targets[j] for j in columns]
    if features is not None:
        for names, axis in ((sources, features.sources), (targets, features.targets)):
            lacking = [name for name in names if name not in axis]
            if lacking:
                raise MatrixError(
                    f"features are not known for {', '.join(lacking)}; give them for every pair"
                )
        features = features.over(sources, targets)
    metric = _metrics_of(matrix)
    names = sorted(set(metric.values()))
    rank = 1 if known.sum() >= 5 * sum(known.shape) else 0
    return CompletionTable(
        rows=rows,
        columns=columns,
        offset=offset,
        metrics=np.array([names.index(metric[name]) if name in metric else 0 for name in targets]),
        better=np.array([1.0 if matrix.higher_is_better.get(name, True) else -1.0 for name in targets]),
        observed=Observed(places, (values - offset)[known], np.nan_to_num(noise[known])),
        item_noise=expected_item_noise(noise),
        prior=make_prior(sources, targets, features, rank=rank),
    )


def gain_noise(matrix: TransferMatrix) -> Array:
    """(S, T) variance of each measured gain by its items; NaN where unknown.

    From the items where these are there: the variance of the paired differences over their number (of items
    that repeat, or belong together, the number of groups). Else from the interval of the gain, else from the
    standard error of the value.
    """
    noise = np.full(matrix.values.shape, nan)
    at = (
        {name: i for i, name in enumerate(matrix.sources)},
        {name: j for j, name in enumerate(matrix.targets)},
    )
    for cell in matrix.cells:
        place = at[0].get(cell.source), at[1].get(cell.target)
        if cell.seed is None and cell.status != "predicted" and None not in place:
            if isfinite(cell.gain_high - cell.gain_low):
                noise[place] = error_of_width(cell.gain_high - cell.gain_low, z_value()) ** 2
            elif isfinite(cell.stderr):
                noise[place] = cell.stderr**2
    for j, target in enumerate(matrix.targets):
        if target not in matrix.item_scores:
            continue
        scores = group_scores(matrix.item_scores[target], matrix.item_groups.get(target))
        difference = scores[1:] - scores[:1]
        for i, by_seed in enumerate(difference):
            seeds = by_seed[np.isfinite(by_seed).any(axis=1)]
            paired = seeds.mean(axis=0) if len(seeds) else np.empty(0)
            paired = paired[np.isfinite(paired)]
            if len(paired) > 1 and isfinite(matrix.values[i, j]):
                # right or wrong answers: half a change in n + 1, since none seen does not mean none
                whole = np.isin(paired, (-1.0, 0.0, 1.0)).all()
                least = 0.5 / (len(paired) + 1) if whole else 0.0
                noise[i, j] = max(paired.var(ddof=1), least) / len(paired)
    return noise


def fill(
    matrix: TransferMatrix,
    table: CompletionTable,
    posterior: TablePosterior,
    level: float,
    features: PairFeatures | None = None,
) -> TransferMatrix:
    """The matrix with its missing cells predicted, each with an interval of ``level``.

    Values are cut to what the target's metric can be; measured cells stay as they are.
    """
    place = np.ix_(table.rows, table.columns)
    mean, deviation = np.empty(matrix.values.shape), np.empty(matrix.values.shape)
    offset = np.empty(len(matrix.targets))
    mean[place] = posterior.mean
    shown = posterior.deviation**2 + table.item_noise * posterior.stretch**2
    deviation[place] = np.sqrt(shown)
    offset[list(table.columns)] = table.offset
    listed = {(cell.source, cell.target): cell for cell in matrix.cells if cell.seed is None}
    pooled, values = [], matrix.values.copy()
    z = z_value(level)
    ranges = _ranges(matrix)
    for i, source in enumerate(matrix.sources):
        for j, target in enumerate(matrix.targets):
            cell = listed.get((source, target)) or _blank(matrix, i, j)
            if not isfinite(matrix.values[i, j]) or cell.status == "predicted":
                values[i, j] = np.clip(offset[j] + mean[i, j], *ranges[j])
                cell = _predicted(cell, matrix.baseline[j], values[i, j], z * deviation[i, j], ranges[j])
                cell = replace(cell, stderr=float(deviation[i, j]))
            pooled.append(cell)
    seeds = tuple(cell for cell in matrix.cells if cell.seed is not None)
    return replace(
        matrix,
        values=values,
        cells=(*pooled, *seeds),
        conditions={**matrix.conditions, "completion": how(matrix, posterior, level, features)},
    )


def how(
    matrix: TransferMatrix, posterior: TablePosterior, level: float, features: PairFeatures | None
) -> Mapping[str, Any]:
    """How the missing cells were predicted, in plain values.

    ``variances`` are those of the terms of the prior, ``stretch`` the distinct factors on deviations.
    """
    terms = {
        term.name: float(np.exp(value))
        for term, value in zip(posterior.prior.terms, posterior.fit.variances, strict=True)
    }
    return {
        "method": METHOD,
        "level": level,
        "measured_cells": len(posterior.observed.gains),
        "predicted_cells": int(matrix.values.size - len(posterior.observed.gains)),
        "features": list(features.names) if features else [],
        "variances": terms,
        "components": posterior.fit.loadings.shape[1],
        "stretch": sorted({round(float(one), 4) for one in posterior.stretch.ravel()}),
    }


def _ranges(matrix: TransferMatrix) -> list[tuple[float, float]]:
    """Least and greatest value that each target can have: 0 and 1 for shares of right answers."""
    metric = _metrics_of(matrix)
    ranges = []
    for target in matrix.targets:
        scores = matrix.item_scores.get(target)
        right = scores is not None and bool(np.isin(scores[np.isfinite(scores)], (0.0, 1.0)).all())
        ranges.append((0.0, 1.0) if right or metric.get(target) in SHARES else (-np.inf, np.inf))
    return ranges


def _predicted(cell: Cell, base: float, value: float, half: float, within: tuple[float, float]) -> Cell:
    """The cell with what is predicted; half: of its interval's width before it is cut to what is legal."""
    gain = float(value - base)
    low, high = np.clip((value - half, value + half), *within)
    return replace(
        cell,
        value=float(value),
        n=0,
        gain=gain,
        gain_low=float(low - base),
        gain_high=float(high - base),
        p=nan,
        q=nan,
        unparsed=nan,
        status="predicted",
        reason="predicted from the measured cells" + (f"; {cell.reason}" if cell.status == "failed" else ""),
    )


def _blank(matrix: TransferMatrix, i: int, j: int) -> Cell:
    """A cell of which the matrix has no record: given where its value is known, else missing."""
    value = float(matrix.values[i, j])
    status = "given" if isfinite(value) else "missing"
    gain = value - float(matrix.baseline[j])
    metric = next((cell.metric for cell in matrix.base_cells if cell.target == matrix.targets[j]), "")
    unknown = (nan, nan, nan, nan, nan)
    return Cell(matrix.sources[i], matrix.targets[j], None, metric, value, 0, nan, gain, *unknown, status)


def _metrics_of(matrix: TransferMatrix) -> dict[str, str]:
    """target -> the name of its metric, where one is known."""
    return {cell.target: cell.metric for cell in (*matrix.cells, *matrix.base_cells) if cell.metric}


def expected_item_noise(noise: Array) -> Array:
    """(S, T) noise with unknown entries replaced by the mean of the target, of all targets, or 0.

    noise: (S, T) variances of gains by their items, NaN where unknown.
    """
    known = np.isfinite(noise)
    total, count = np.where(known, noise, 0.0).sum(axis=0), known.sum(axis=0)
    overall = total.sum() / max(int(count.sum()), 1)
    mean = np.where(count > 0, total / np.maximum(count, 1), overall)
    return np.where(known, noise, mean[None, :])


@dataclass(frozen=True)
class Price:
    """What measuring costs, in shares of what the whole table costs.

    cells: (S, T) of evaluating each cell. noise: (S, T) variance that items leave in a measured cell.
    """

    cells: Array
    noise: Array


def importance(posterior: TablePosterior, aim: Aim, metrics: Array, better: Array, *, seed: int = 0) -> Array:
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


def metric_units(posterior: TablePosterior, metrics: Array) -> Array:
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
    variance = np.diag(covariance) + noise
    cut = weight @ covariance**2
    least = 1e-12 * max(float(variance.max(initial=0.0)), 1e-300)
    return np.where(variance > least, cut / np.maximum(variance, 1e-300), 0)


def measured_once(covariance: Array, cell: int, noise: float) -> Array:
    """The covariance (m, m) after one more cell has been measured, with that variance of its noise."""
    column = covariance[:, cell]
    return np.asarray(covariance - np.outer(column, column) / max(column[cell] + noise, 1e-300))


def choose_cells(
    posterior: TablePosterior,
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
    cells: list[tuple[int, int]] = []
    while most is None or len(cells) < most:
        able = np.logical_and(free, cost <= budget + 1e-12)
        if not able.any():
            break
        worth = reduction(covariance, weight.ravel(), noise) / np.maximum(cost, 1e-12)
        cell = int(np.argmax(np.where(able, worth, -np.inf)))
        cells.append((cell // targets, cell % targets))
        budget -= cost[cell]
        free[cell] = False
        covariance = measured_once(covariance, cell, float(noise[cell]))
    return cells


def before_anything(prior: Prior) -> TablePosterior:
    """The prior as a posterior, every target in its own unit: what is expected before a cell is measured.

    Variances of the terms are the typical ones, and there are no components.
    """
    fit = PriorFit(
        variances=np.log([term.variance for term in prior.terms]),
        units=np.zeros(prior.shape[1]),
        loadings=np.zeros((prior.shape[1], 0)),
        expected_units=np.zeros(prior.shape[1]),
    )
    nothing = Observed(np.empty((0, 2), dtype=np.intp), np.empty(0), np.empty(0))
    mean, spread = condition(prior, fit, nothing, all_places(prior.shape))
    return TablePosterior(mean.reshape(prior.shape), spread, fit, nothing, prior, np.ones(prior.shape))


def expected_noise(items: Array, sources: int) -> Array:
    """(S, T) noise variance of a cell before anything is measured, given the items (T,) that are asked.

    In squared units of the target; every source is expected to be alike.
    """
    return np.repeat((ITEM_VARIANCE / np.maximum(items, 1))[None, :], sources, axis=0)


def items_asked(available: Sequence[int], share: float) -> tuple[int, ...]:
    """Items of each target (T,) at a share of those available, not fewer than twenty where there are as many.

    Shares are rounded up.
    """
    return tuple(max(min(n, LEAST_ITEMS), ceil(share * n - 1e-9)) for n in available)


def choose_item_share(
    posterior: TablePosterior,
    *,
    rows: Sequence[int],
    evaluation: Array,
    available: Sequence[int],
    weight: Array,
    budget: float,
) -> float:
    """The share of items at which the budget leaves least weighted variance, as far as the prior knows.

    rows: sources of which cells may be measured. evaluation: (T,) tokens of a whole cell; budget: of all of
    them, the base's too. Few items are noisy and cheap, all of them are expensive: the choice simulates the
    run at each share. 0 where even the fewest items of the base alone are too expensive.
    """
    best, best_share = np.inf, 0.0
    sources = len(posterior.mean)
    for share in ITEM_SHARES:
        asked = np.array(items_asked(available, share), dtype=float)
        cell = evaluation * asked / np.maximum(np.asarray(available, dtype=float), 1)
        if cell.sum() > budget:
            continue
        price = Price(np.repeat(cell[None, :], sources, axis=0), expected_noise(asked, sources))
        open_cells = np.zeros(posterior.mean.shape, dtype=bool)
        open_cells[list(rows)] = True
        cells = choose_cells(posterior, price, open_cells, weight, budget - float(cell.sum()))
        after = with_cells(posterior, price, cells)
        variance = float((np.diag(after.covariance) * weight.ravel()).sum())
        if variance < best * (1 - 1e-9):
            best, best_share = variance, share
    return best_share


def with_cells(posterior: TablePosterior, price: Price, cells: Sequence[tuple[int, int]]) -> TablePosterior:
    """The posterior with its covariance after some cells have been measured, whatever is found there.

    The mean stays, since nothing is known of the results.
    """
    covariance, targets = posterior.covariance, posterior.mean.shape[1]
    for source, target in cells:
        noise = float(price.noise[source, target])
        covariance = measured_once(covariance, source * targets + target, noise)
    return replace(posterior, covariance=covariance)
