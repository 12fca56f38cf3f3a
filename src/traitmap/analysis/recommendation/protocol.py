"""Judge recommenders: metrics of a ranking of sources, and the protocol that holds cells out and scores
models.

Every metric takes one target's sources: the true values (n,) and the predicted ones (n,), a higher value
being better in both. NDCG and regrets are in percent, correlations and areas are shares. Sources that the
prediction ties are ordered at random: the expected value over all orders is returned, so that a constant
prediction scores what a random one scores on average, and the order of the sources never matters. Where a
number is not defined (no spread, no source) it is NaN.

``evaluate`` holds out targets, sources, cells or groups of targets. Models, hyper-parameters and the choice
among them are found within the remaining cells only, and every model stands beside chance and popularity.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import comb
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from traitmap.analysis.profiles.semantics import Embed
from traitmap.analysis.recommendation.knowledge import Attributes, Embeddings, Similarity, make_problem
from traitmap.analysis.recommendation.prior import MatchedPriors, PriorMatrix, align, text_profile
from traitmap.analysis.recommendation.problem import (
    CELL_FOLDS,
    Blocks,
    EffectTable,
    Holdout,
    Problem,
    Values,
    effects_of,
    flat_targets,
    folds_of,
    remoteness,
)
from traitmap.analysis.recommendation.selection import mean_known, select
from traitmap.data.fingerprints import Fingerprints
from traitmap.data.texts import Texts
from traitmap.errors import MatrixError
from traitmap.jsonable import jsonable, outline
from traitmap.matrix.record import Array, TransferMatrix
from traitmap.matrix.statistics import Interval, unknown
from traitmap.progress import Listener, Progress, silent
from traitmap.wording import estimate

RankingMetric = Callable[[Array, Array], float]


def ndcg(
    truth: ArrayLike, predicted: ArrayLike, k: int | None = None, *, ties: Literal["mean", "first"] = "mean"
) -> float:
    """Normalised discounted cumulative gain of a ranking, in percent (higher is better, at most 100).

    The relevance of a source is its place in the true ranking counted from the end (n for the best, 1 for
    the worst; the mean place where true values tie), its gain is 2 to the relevance less 1, and the
    discount of place i is log2(i + 1). Only the order of ``truth`` matters, never its units or signs, and
    with this gain the first few places decide. k: count the first k places only (default: all).
    ties: ``first`` leaves tied sources, true or predicted, in the order in which they stand, as the
    published code does; it is there to reproduce published numbers.
    Järvelin & Kekäläinen (2002, ACM TOIS); exponential gain of ranks as in Kim et al. (2023, TaskWeb).
    """
    true, guess = _pair(truth, predicted)
    if len(true) < 2:
        return np.nan
    if ties == "first":
        true, guess = (-np.argsort(np.argsort(-one, kind="stable")).astype(float) for one in (true, guess))
    # The largest relevance stands for 2^0, so that long rankings stay within floating point.
    relevance = stats.rankdata(true) - len(true)
    gain = np.exp2(relevance) - np.exp2(-float(len(true)))
    places = min(k or len(true), len(true))
    discount = np.zeros(len(true))
    discount[:places] = 1 / np.log2(np.arange(2, places + 2))
    ideal = float(np.sort(gain)[::-1] @ discount)
    return 100 * float(_expected_in_order(gain, guess) @ discount) / ideal


def regret(truth: ArrayLike, predicted: ArrayLike, k: int, order: ArrayLike | None = None) -> float:
    """Regret@k, best of k, in percent of the best value (lower is better, 0 is perfect).

    How far the best of the k sources that are predicted best falls short of the best source there is,
    relative to that: what is lost by trying the first k and keeping the best.
    order: values that say which source is best, where these are not ``truth`` itself.
    """
    true, guess = _pair(truth, predicted)
    if len(true) == 0:
        return np.nan
    judge = true if order is None else _pair(order, predicted)[0]
    return _relative_gap(_expected_best(true, judge, 1), _expected_best(true, guess, k))


def mean_regret(truth: ArrayLike, predicted: ArrayLike, k: int, order: ArrayLike | None = None) -> float:
    """Regret@k, mean of k, in percent (lower is better, 0 is perfect).

    How far the mean of the k sources predicted best falls short of the mean of the k best sources,
    relative to that (Kim et al. 2023, TaskWeb). order: values that say which k sources are best, where
    these are not ``truth`` itself (TaskWeb orders by a mixture of change and share of seeds that gained).
    """
    true, guess = _pair(truth, predicted)
    if len(true) == 0:
        return np.nan
    judge = true if order is None else _pair(order, predicted)[0]
    places = min(k, len(true))
    best = _expected_in_order(true, judge)[:places].mean()
    return _relative_gap(float(best), float(_expected_in_order(true, guess)[:places].mean()))


def spearman(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Rank correlation of true and predicted values, -1 to 1.

    truth, predicted: (n,). NaN below two sources, or where all true values are equal. ValueError where their
    shapes differ or a number is unknown.
    """
    true, guess = _pair(truth, predicted)
    return pearson(stats.rankdata(true), stats.rankdata(guess)) if len(true) else np.nan


def pearson(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Correlation of true and predicted values, -1 to 1; 0 for a constant prediction.

    truth, predicted: (n,). NaN below two sources, or where all true values are equal. ValueError where their
    shapes differ or a number is unknown.
    """
    true, guess = _pair(truth, predicted)
    if len(true) < 2 or np.ptp(true) == 0:
        return np.nan
    if np.ptp(guess) <= 1e-12 * np.abs(guess).max():
        return 0.0
    return float(np.corrcoef(true, guess)[0, 1])


def auc(better: ArrayLike, predicted: ArrayLike) -> float:
    """Share of (helping, harming) pairs of sources that the prediction orders rightly; ties count half.

    better: (n,) whether the source is better than the base. .5 is chance; NaN where all help or none does.
    Mann & Whitney (1947, Annals of Mathematical Statistics).
    """
    helps, guess = np.asarray(better, dtype=bool), np.asarray(predicted, dtype=float)
    positive, negative = int(helps.sum()), int((~helps).sum())
    if not positive or not negative:
        return np.nan
    ranks = stats.rankdata(guess)
    return float((ranks[helps].sum() - positive * (positive + 1) / 2) / (positive * negative))


RANKING_METRICS: Mapping[str, RankingMetric] = MappingProxyType(
    {
        "ndcg": ndcg,
        "ndcg@3": partial(ndcg, k=3),
        **{f"regret@{k}": partial(regret, k=k) for k in (1, 3, 5)},
        **{f"mean_regret@{k}": partial(mean_regret, k=k) for k in (1, 3, 5)},
        "spearman": spearman,
        "pearson": pearson,
    }
)
LOWER_IS_BETTER = frozenset(name for name in RANKING_METRICS if "regret" in name)


def _pair(truth: ArrayLike, predicted: ArrayLike) -> tuple[Array, Array]:
    """Both as arrays; ValueError where their shapes differ or a number is unknown."""
    true, guess = np.asarray(truth, dtype=float), np.asarray(predicted, dtype=float)
    if true.ndim != 1 or true.shape != guess.shape:
        raise ValueError(f"true values {true.shape} and predicted ones {guess.shape} must be (n,) alike")
    if not (np.isfinite(true).all() and np.isfinite(guess).all()):
        raise ValueError("true and predicted values must be finite; leave unknown sources out of both")
    return true, guess


def _expected_in_order(values: Array, key: Array) -> Array:
    """Values from the highest key to the lowest; tied ones each get the mean of their group."""
    places, counts = np.unique(-key, return_inverse=True, return_counts=True)[1:]
    means = np.bincount(places, weights=values) / counts
    return np.repeat(means, counts)


def _expected_best(values: Array, key: Array, k: int) -> float:
    """Expected maximum of the k values with the highest keys, ties in the key broken at random."""
    places = min(k, len(values))
    cut = np.sort(key)[::-1][places - 1]
    sure = values[key > cut]
    tied = np.sort(values[key == cut])[::-1]
    drawn = places - len(sure)
    floor = sure.max() if len(sure) else -np.inf
    ways = np.array([comb(len(tied) - i - 1, drawn - 1) for i in range(len(tied))], dtype=float)
    return float(np.maximum(tied, floor) @ (ways / comb(len(tied), drawn)))


def _relative_gap(best: float, reached: float) -> float:
    """Shortfall in percent of the best; NaN where the best is zero."""
    return 100 * (best - reached) / abs(best) if best != 0 else np.nan


NESTED = "nested"
RESAMPLES = 2000
SHOWN_SOURCES = 5
METRICS = (*RANKING_METRICS, "auc", "coverage")


@dataclass(frozen=True)
class RecommenderEvaluation:
    """Every model's metrics on held-out cells.

    models: name -> metric -> mean over targets with a 95 % bootstrap interval over targets (over groups
        where groups were held out). ``nested`` is the model that inner folds pick anew in every outer fold.
    differences: the same for each model less popularity, target by target.
    chosen: the entry of ``models`` that a recommender will use, ``nested``. picks: outer fold -> the family
        that its inner folds picked, and its setting.
    per_target: name -> metric -> (T,), NaN where not defined. predicted, low, high: name -> (S, T) in
        the unit of ``effects``, each cell predicted while it was held out, with a 90 % interval, NaN on
        targets so unlike all others that there is none (``conditions["no_interval"]`` names them).
    distance: (T,) of every target to the nearest other one, mean over likenesses; NaN where unknown.
    """

    models: Mapping[str, Mapping[str, Interval]]
    differences: Mapping[str, Mapping[str, Interval]]
    chosen: str
    picks: Mapping[str, tuple[str, str]]
    per_target: Mapping[str, Mapping[str, Array]]
    predicted: Mapping[str, Array]
    low: Mapping[str, Array]
    high: Mapping[str, Array]
    effects: EffectTable
    distance: Array
    conditions: Mapping[str, Any]

    @property
    def headline(self) -> str:
        """One sentence: whether anything beats popularity here, or even chance, and what to follow.

        Judged by the NDCG, whose 95 % intervals over targets are those of the paired differences.
        """
        gained, chance = self.differences[self.chosen]["ndcg"], self.differences["random"]["ndcg"]
        values = {name: self.models[name]["ndcg"].value for name in (self.chosen, "popularity", "random")}
        if gained.clear and gained.value > 0:
            return (
                f"Recommendations beat popularity here: NDCG {values[self.chosen]:.1f} against "
                f"{values['popularity']:.1f}, a difference of {estimate(gained)}."
            )
        known = np.isfinite(self.effects.effect)
        if flat_targets(self.effects.effect).all():
            return "All sources do the same on every target here: there is nothing to choose between them."
        mean = np.where(known, self.effects.effect, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
        ranked = np.argsort(-np.where(known.any(axis=1), mean, -np.inf), kind="stable")
        first = ", ".join(self.effects.sources[s] for s in ranked[:SHOWN_SOURCES])
        order = f"popularity's order is {first}{' and so on' if len(ranked) > SHOWN_SOURCES else ''}."
        if not (chance.clear and chance.value < 0):
            return (
                f"Nothing beats chance here, popularity does not either (NDCG {values['popularity']:.1f} "
                f"against {values['random']:.1f} by chance): any source may be the best; {order}"
            )
        which = "Popularity beats what was recommended" if gained.clear else "Nothing beats popularity"
        return f"{which} here (a difference in NDCG of {estimate(gained)}): {order}"

    __repr__ = outline

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data; unknown numbers are null."""
        picks = {fold: {"model": name, "setting": setting} for fold, (name, setting) in self.picks.items()}
        return {
            "models": jsonable(self.models),
            "headline": self.headline,
            "chosen": self.chosen,
            "n_targets": self.conditions["n_targets"],
            "n_sources": self.conditions["n_sources"],
            "minus_popularity": jsonable(self.differences),
            "picks": picks,
            "conditions": dict(self.conditions),
        }


def evaluate(
    matrix: TransferMatrix,
    *,
    texts: Texts | None = None,
    embeddings: Embeddings | None = None,
    attributes: Attributes | None = None,
    similarity: Similarity | None = None,
    weights: Fingerprints | None = None,
    encoder: Embed | None = None,
    prior: Sequence[PriorMatrix] = (),
    holdout: str | Mapping[str, str] = "target",
    values: Values = "score",
    seed: int = 0,
    listener: Listener = silent,
) -> RecommenderEvaluation:
    """Hold out cells, predict them by every model, and score the rankings of each target's sources.

    holdout: ``target`` holds out one target at a time, as a source too; ``source`` one source at a time;
    ``cell`` a tenth of the cells at a time; a mapping target -> group holds out all targets of a group
    together (targets left out of it are groups of their own). Models and hyper-parameters are chosen
    within the remaining cells only, by holding out in the same way again.
    texts, embeddings: by task name, for features of pairs. attributes: name -> task -> value, known
    properties of targets, or of both (two with the same value are alike). values: see ``effects_of``.
    similarity: name -> (source, target) -> how alike, by anybody's measure. weights: of the
    sources' adapters. encoder: of texts, in place of
    TF-IDF. prior: other people's matrices; those cells of them that are held out here stay visible there.
    Raises MatrixError or DataError where the input does not fit together.
    """
    effects = effects_of(matrix, values)
    axis, blocks, units = _blocks(effects, holdout)
    problem = make_problem(
        effects,
        texts=texts,
        embeddings=embeddings,
        attributes=attributes,
        similarity=similarity,
        weights=weights,
        encoder=encoder,
        prior=laid_over(prior, effects, texts, holdout) if prior else None,
        holdout=axis,
        blocks=blocks,
        seed=seed,
    )
    count = CELL_FOLDS if axis == "cell" else len(np.unique(problem.blocks[problem.known]))
    outer = folds_of(problem, count, seed)
    shape = effects.effect.shape
    filled: dict[str, Array] = {}  # (3, S, T): effect, low, high
    picks = {}
    declined: list[str] = []
    for done, held in enumerate(outer):
        fold = _fold_name(effects, axis, held)
        listener(Progress("hold out", done, len(outer), fold))
        chosen, families = select(problem.without(held))
        picks[fold] = (chosen, families[chosen].setting)
        without = held & families[chosen].declined
        declined += [effects.targets[t] for t in np.flatnonzero(without.any(axis=0))]
        for name, family in {**families, NESTED: families[chosen]}.items():
            tables = filled.setdefault(name, np.full((3, *shape), np.nan))
            for table, predictions in zip(tables, (family.effect, family.low, family.high), strict=True):
                table[held] = predictions[held]
            tables[1:, without] = np.nan
    listener(Progress("hold out", len(outer), len(outer)))
    per_target = {name: _scores(effects, *tables) for name, tables in filled.items()}
    # (B, U) how often each unit is drawn in each bootstrap sample
    n_units = int(units.max()) + 1
    drawn = np.random.default_rng(seed).integers(n_units, size=(RESAMPLES, n_units))
    draws = np.stack([np.bincount(row, minlength=n_units) for row in drawn])
    popular = per_target["popularity"]
    return RecommenderEvaluation(
        models={n: {m: _mean(v, units, draws) for m, v in of.items()} for n, of in per_target.items()},
        differences={
            n: {m: _mean(v - popular[m], units, draws) for m, v in of.items()}
            for n, of in per_target.items()
            if n != "popularity"
        },
        chosen=NESTED,
        picks=picks,
        per_target=per_target,
        predicted={name: tables[0] for name, tables in filled.items()},
        low={name: tables[1] for name, tables in filled.items()},
        high={name: tables[2] for name, tables in filled.items()},
        effects=effects,
        distance=mean_known(remoteness(problem)),
        conditions={
            **_conditions(effects, problem, holdout, values, seed, len(outer)),
            "no_interval": list(dict.fromkeys(declined)),
        },
    )


def laid_over(
    prior: Sequence[PriorMatrix], effects: EffectTable, texts: Texts | None, holdout: str | Mapping[str, str]
) -> MatchedPriors:
    """Priors laid over the sources and targets of a matrix, by name, texts and the groups held out."""
    groups = {} if isinstance(holdout, str) else holdout
    profile = text_profile(texts) if texts else {}
    return align(prior, effects.sources, effects.targets, profile=profile, groups=groups)


def _conditions(
    effects: EffectTable,
    problem: Problem,
    holdout: str | Mapping[str, str],
    values: Values,
    seed: int,
    folds: int,
) -> dict[str, Any]:
    """What was asked, and of how much."""
    known = np.isfinite(effects.effect)
    return {
        "n_targets": int((known.sum(axis=0) > 1).sum()),
        "n_sources": int(known.any(axis=1).sum()),
        "n_cells": int(known.sum()),
        "holdout": holdout if isinstance(holdout, str) else "groups",
        "folds": folds,
        "values": values,
        "unit": effects.unit,
        "features": list(problem.feature_names),
        "prior": [] if problem.prior is None else list(problem.prior.words),
        "likenesses": [one.name for one in problem.targets_alike],
        "averaged_over": "targets" if isinstance(holdout, str) else "groups, then targets within",
        "interval": f"95 %, bootstrap over what is averaged over, {RESAMPLES} draws",
        "seed": seed,
    }


def _blocks(
    effects: EffectTable, holdout: str | Mapping[str, str]
) -> tuple[Holdout, Blocks, NDArray[np.int64]]:
    """What is held out, the cells (S, T) that are held out together, and the unit of each target (T,) that
    the bootstrap resamples."""
    rows, columns = effects.effect.shape
    if holdout == "source":
        return "source", np.broadcast_to(np.arange(rows)[:, None], (rows, columns)), np.arange(columns)
    if holdout == "cell":
        return "cell", np.arange(rows * columns).reshape(rows, columns), np.arange(columns)
    units = np.arange(columns)
    if not isinstance(holdout, str):
        unknown_names = sorted(set(holdout) - set(effects.targets))
        if unknown_names:
            raise MatrixError(
                f"groups name {', '.join(map(repr, unknown_names[:5]))}, which the matrix has no target of; "
                f"its targets are {', '.join(effects.targets[:8])} ..."
            )
        groups = [holdout.get(name, name) for name in effects.targets]
        units = np.unique(groups, return_inverse=True)[1]
        if len(set(groups)) < 3:
            raise MatrixError(f"{len(set(groups))} groups of targets; at least 3 are needed to hold one out")
    elif holdout != "target":
        raise MatrixError(f"holdout {holdout!r} is unknown; use target, source, cell, or a mapping of groups")
    return "target", np.broadcast_to(units[None, :], (rows, columns)), units


def _fold_name(effects: EffectTable, holdout: Holdout, held: NDArray[np.bool_]) -> str:
    """What a fold holds out, in words."""
    if holdout == "cell":
        return f"cells {int(np.flatnonzero(held)[0])} and {int(held.sum()) - 1} more"
    names, axis = (effects.targets, 0) if holdout == "target" else (effects.sources, 1)
    return ", ".join(names[at] for at in np.flatnonzero(held.any(axis=axis)))


def _scores(effects: EffectTable, predicted: Array, low: Array, high: Array) -> dict[str, Array]:
    """Every metric on every target (T,), over the sources that were held out and are known there."""
    scores = {name: np.full(len(effects.targets), np.nan) for name in METRICS}
    for at in range(len(effects.targets)):
        seen = np.isfinite(effects.effect[:, at]) & np.isfinite(predicted[:, at])
        if seen.sum() < 2:
            continue
        truth, guess = effects.score[seen, at], predicted[seen, at]
        for name, metric in RANKING_METRICS.items():
            scores[name][at] = metric(truth, guess)
        effect = effects.effect[seen, at]
        if np.isfinite(effects.zero[at]):
            scores["auc"][at] = auc(effect > effects.zero[at], guess)
        if np.isfinite(low[seen, at]).all():  # else there is no interval
            scores["coverage"][at] = 100 * ((effect >= low[seen, at]) & (effect <= high[seen, at])).mean()
    return scores


def _mean(values: Array, units: NDArray[np.int64], draws: NDArray[np.int64]) -> Interval:
    """Mean over units of the mean over a unit's targets, with its 95 % bootstrap interval over units."""
    seen = np.isfinite(values)
    if not seen.any():
        return unknown("not defined on any target")
    count = draws.shape[1]
    size = np.bincount(units[seen], minlength=count)
    mean = np.bincount(units[seen], weights=values[seen], minlength=count) / np.maximum(size, 1)
    some = size > 0
    weights = draws[:, some]
    weights = weights[weights.sum(axis=1) > 0]
    if some.sum() < 2:
        return Interval(float(mean[some].mean()), reason="one unit only: no interval")
    drawn = weights @ mean[some] / weights.sum(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(float(mean[some].mean()), float(low), float(high))
