"""How good a ranking of sources is: NDCG, both regrets, correlations, and telling help from harm.

Every function takes one target's sources: the true values (n,) and the predicted ones (n,), a higher
value being better in both. NDCG and regrets are in percent, correlations and areas are shares. Sources
that the prediction ties are ordered at random: the expected value over all orders is returned, so that
a constant prediction scores what a random one scores on average, and the order of the sources never
matters. Where a number is not defined (no spread, no source) it is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import comb
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from traitmap.matrix_record import Array

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
    """Rank correlation of true and predicted values, -1 to 1."""
    true, guess = _pair(truth, predicted)
    return pearson(stats.rankdata(true), stats.rankdata(guess)) if len(true) else np.nan


def pearson(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Correlation of true and predicted values, -1 to 1; 0 for a constant prediction."""
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


def _relative_gap(best: float, found: float) -> float:
    """Shortfall in percent of the best; NaN where the best is zero."""
    return 100 * (best - found) / abs(best) if best != 0 else np.nan
