"""complete: a transfer matrix with its missing cells predicted, each with an interval and marked as such."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite, nan
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from traitmap.analysis.pair_features import PairFeatures
from traitmap.analysis.recommendation.completion_fit import Observed
from traitmap.analysis.recommendation.completion_kernel import Prior, make_prior
from traitmap.analysis.recommendation.completion_posterior import Posterior, infer
from traitmap.errors import MatrixError
from traitmap.matrix_record import Array, Cell, TransferMatrix

if TYPE_CHECKING:
    from traitmap.data.texts import Texts

LEAST_CELLS = 3
MOST_CELLS = 3_000
SHARES = frozenset({"acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match"})
METHOD = (
    "Gaussian process over gains (effects of targets and sources, likeness in features, own target), "
    "hyper-parameters by marginal likelihood, intervals stretched by cross-validation"
)


@dataclass(frozen=True)
class Table:
    """A matrix as the completion reads it, in canonical order (sources and targets sorted by name).

    rows, columns: indices into the matrix. offset: (T,) what gains are above: the base, or the mean of
    the measured values where the base is unknown. item_noise: (S, T) variance that the items leave in a
    measured cell, or would leave in a missing one.
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
        raise MatrixError(f"level {level!r} is no probability; give a number between 0 and 1, such as 0.9")
    if features is None and texts is not None:
        features = features_of_texts(matrix, texts, seed)
    table = read_table(matrix, features)
    posterior = infer(table.prior, table.observed, table.metrics, level=level, seed=seed)
    return fill(matrix, table, posterior, level, features)


def features_of_texts(matrix: TransferMatrix, texts: Texts, seed: int = 0) -> PairFeatures | None:
    """Features of all pairs from texts by name; None where some source or target has no texts."""
    from traitmap.analysis.profiles.pairs import pair_features

    if not all(texts.get(name) for name in (*matrix.sources, *matrix.targets)):
        return None
    return pair_features(
        {name: texts[name] for name in matrix.sources},
        {name: texts[name] for name in matrix.targets},
        seed=seed,
    )


def read_table(matrix: TransferMatrix, features: PairFeatures | None = None) -> Table:
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
    rank = 1 if known.sum() >= 5 * sum(known.shape) else 0
    return Table(
        rows=rows,
        columns=columns,
        offset=offset,
        metrics=_metric_groups(matrix)[list(columns)],
        better=np.array([1.0 if matrix.higher_is_better.get(name, True) else -1.0 for name in targets]),
        observed=Observed(places, (values - offset)[known], np.nan_to_num(noise[known])),
        item_noise=expected_item_noise(noise),
        prior=make_prior(sources, targets, _reordered(features, sources, targets), rank=rank),
    )


def gain_noise(matrix: TransferMatrix) -> Array:
    """(S, T) variance of each measured gain by its items; NaN where unknown.

    From the items where these are there: the variance of the paired differences over their number. Else
    from the interval of the gain, else from the standard error of the value.
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
                noise[place] = ((cell.gain_high - cell.gain_low) / (2 * stats.norm.ppf(0.975))) ** 2
            elif isfinite(cell.stderr):
                noise[place] = cell.stderr**2
    for j, target in enumerate(matrix.targets):
        if target not in matrix.item_scores:
            continue
        scores = matrix.item_scores[target]
        difference = scores[1:] - scores[:1]
        for i, by_seed in enumerate(difference):
            seeds = by_seed[np.isfinite(by_seed).any(axis=1)]
            there = seeds.mean(axis=0) if len(seeds) else np.empty(0)
            there = there[np.isfinite(there)]
            if len(there) > 1 and isfinite(matrix.values[i, j]):
                noise[i, j] = max(there.var(ddof=1), _least_variance(there)) / len(there)
    return noise


def _least_variance(differences: Array) -> float:
    """Of answers that are right or wrong: half a change in n + 1, since none seen does not mean none."""
    whole = np.isin(differences, (-1.0, 0.0, 1.0)).all()
    return 0.5 / (len(differences) + 1) if whole else 0.0


def fill(
    matrix: TransferMatrix,
    table: Table,
    posterior: Posterior,
    level: float,
    features: PairFeatures | None = None,
) -> TransferMatrix:
    """The matrix with its missing cells predicted."""
    place = np.ix_(table.rows, table.columns)
    mean, deviation = np.empty(matrix.values.shape), np.empty(matrix.values.shape)
    offset = np.empty(len(matrix.targets))
    mean[place] = posterior.mean
    shown = posterior.deviation**2 + table.item_noise * posterior.stretch**2
    deviation[place] = np.sqrt(shown)
    offset[list(table.columns)] = table.offset
    listed = {(cell.source, cell.target): cell for cell in matrix.cells if cell.seed is None}
    pooled, values = [], matrix.values.copy()
    z = float(stats.norm.ppf(0.5 + level / 2))
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
    told = how(matrix, posterior, level, features)
    return replace(
        matrix,
        values=values,
        cells=(*pooled, *seeds),
        conditions={**matrix.conditions, "completion": told},
    )


def how(
    matrix: TransferMatrix, posterior: Posterior, level: float, features: PairFeatures | None
) -> Mapping[str, Any]:
    """How the missing cells were predicted, in plain values."""
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
    metric = {cell.target: cell.metric for cell in (*matrix.cells, *matrix.base_cells) if cell.metric}
    found = []
    for target in matrix.targets:
        scores = matrix.item_scores.get(target)
        right = scores is not None and bool(np.isin(scores[np.isfinite(scores)], (0.0, 1.0)).all())
        found.append((0.0, 1.0) if right or metric.get(target) in SHARES else (-np.inf, np.inf))
    return found


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
    value = float(matrix.values[i, j])
    status = "given" if isfinite(value) else "missing"
    gain = value - float(matrix.baseline[j])
    metric = next((one.metric for one in matrix.base_cells if one.target == matrix.targets[j]), "")
    unknown = (nan, nan, nan, nan, nan)
    return Cell(matrix.sources[i], matrix.targets[j], None, metric, value, 0, nan, gain, *unknown, status)


def _metric_groups(matrix: TransferMatrix) -> Array:
    """(T,) number of each target's metric; 0 where no metric is known."""
    metric = {cell.target: cell.metric for cell in (*matrix.cells, *matrix.base_cells) if cell.metric}
    names = sorted(set(metric.values()))
    return np.array([names.index(metric[name]) if name in metric else 0 for name in matrix.targets])


def expected_item_noise(noise: Array) -> Array:
    """(S, T) with unknown noise replaced by the mean of the target, of all targets, or 0."""
    known = np.isfinite(noise)
    total, count = np.where(known, noise, 0.0).sum(axis=0), known.sum(axis=0)
    overall = total.sum() / max(int(count.sum()), 1)
    mean = np.where(count > 0, total / np.maximum(count, 1), overall)
    return np.where(known, noise, mean[None, :])


def _reordered(features: PairFeatures | None, sources: list[str], targets: list[str]) -> PairFeatures | None:
    """Features over the given axes. MatrixError where they lack one."""
    if features is None:
        return None
    for name, axis in ((sources, features.sources), (targets, features.targets)):
        lacking = [one for one in name if one not in axis]
        if lacking:
            raise MatrixError(f"features are not known for {', '.join(lacking)}; give them for every pair")
    grid = np.ix_(
        [features.sources.index(name) for name in sources], [features.targets.index(name) for name in targets]
    )
    kept = tuple(replace(one, values=one.values[grid]) for one in features.features)
    return PairFeatures(tuple(sources), tuple(targets), kept)
