"""What would have been recommended for every target of a matrix while it was hidden, and what came of it.

Each target in turn is hidden, column and row, and its sources are ranked from all others, as for a single
question. What the first picks of the model, of popularity and of chance turned out to give is compared over
the targets that were measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite, nan
from types import MappingProxyType
from typing import Any

import numpy as np
from scipy import stats

from traitmap.analysis.profiles.pairs import PairFeatures
from traitmap.analysis.recommendation.recommend import recommend_sources
from traitmap.analysis.recommendation.records import Recommendation
from traitmap.errors import MatrixError
from traitmap.matrix.record import Array, TransferMatrix
from traitmap.matrix.statistics import Interval, unknown
from traitmap.progress import Listener, Progress, silent

POINTS = "points"
RESAMPLES = 2000


@dataclass(frozen=True)
class HeldOut:
    """Recommendations for the targets of one matrix, each made without the target's own column and row.

    recommendations: in the order of the targets. impossible: target -> why there is none for it.
    lost: points that a first pick gives away against the best source that there was: of the model
        (``model``), of popularity (``popularity``) and of a source drawn at random (``random``), mean over
        the targets that are measured in points. saved: popularity's loss less the model's, target by target.
    rank: Spearman's correlation of predicted and measured gains over a target's sources, mean over targets.
    covered: per cent of measured gains within their 90 % interval, mean over targets.
    All have 95 % bootstrap intervals over targets. targets: how many stand behind ``lost``.
    """

    recommendations: tuple[Recommendation, ...]
    impossible: Mapping[str, str]
    lost: Mapping[str, Interval]
    saved: Interval
    rank: Interval
    covered: Interval
    targets: int
    conditions: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def of(self, target: str) -> Recommendation | None:
        """The recommendation for one target, or None."""
        return next((one for one in self.recommendations if one.target == target), None)


def recommend_each(
    matrix: TransferMatrix,
    *,
    features: PairFeatures | None = None,
    contaminated: Mapping[str, Mapping[str, str]] | None = None,
    touched: Mapping[str, Mapping[str, str]] | None = None,
    seed: int = 0,
    listener: Listener = silent,
) -> HeldOut:
    """Recommend for every target of a matrix as if it had never been measured, and compare with what was.

    features: of all pairs. contaminated, touched: target -> source -> what its training texts hold of the
    target's items; see ``recommend_sources``. Raises MatrixError where there is no target to recommend for.
    """
    recommendations, impossible = [], {}
    for done, target in enumerate(matrix.targets):
        listener(Progress("recommend", done, len(matrix.targets), target))
        try:
            recommendations.append(
                recommend_sources(
                    matrix,
                    target,
                    features=features,
                    contaminated=(contaminated or {}).get(target),
                    touched=(touched or {}).get(target),
                    seed=seed,
                )
            )
        except MatrixError as error:
            impossible[target] = str(error)
    listener(Progress("recommend", len(matrix.targets), len(matrix.targets)))
    if not recommendations:
        raise MatrixError(next(iter(impossible.values()), "the matrix has no targets"))
    return judged(recommendations, impossible, seed=seed)


def judged(
    recommendations: Sequence[Recommendation], impossible: Mapping[str, str] | None = None, *, seed: int = 0
) -> HeldOut:
    """Recommendations beside what was measured on their targets.

    impossible: target -> why there is no recommendation. seed: of the bootstrap over targets.
    """
    answered = [recommendation for recommendation in recommendations if judgeable(recommendation)]
    in_points = [recommendation.measured for recommendation in answered if recommendation.unit == POINTS]
    losses = {
        name: np.array([measured["best"] - measured[key] for measured in in_points])
        for name, key in (("model", "first"), ("popularity", "first_of_popularity"), ("random", "random"))
    }
    ranks, covered = [], []
    for recommendation in answered:
        rows = [
            (advice.gain.value, advice.gain.low, advice.gain.high, advice.measured.value)
            for advice in recommendation.ranked
            if advice.measured.known and advice.gain.known
        ]
        predicted, low, high, measured = np.array(rows, dtype=float).reshape(-1, 4).T
        varies = len(predicted) >= 3 and np.ptp(predicted) > 0 and np.ptp(measured) > 0
        ranks.append(float(stats.spearmanr(predicted, measured).statistic) if varies else nan)
        known = np.isfinite(low) & np.isfinite(high)
        inside = (measured >= low) & (measured <= high)
        covered.append(float(100 * inside[known].mean()) if known.any() else nan)
    return HeldOut(
        recommendations=tuple(recommendations),
        impossible=MappingProxyType(dict(impossible or {})),
        lost=MappingProxyType({name: _mean(values, seed) for name, values in losses.items()}),
        saved=_mean(losses["popularity"] - losses["model"], seed),
        rank=_mean(np.array(ranks), seed),
        covered=_mean(np.array(covered), seed),
        targets=len(in_points),
        conditions=MappingProxyType({"seed": seed, "resamples": RESAMPLES}),
    )


def judgeable(recommendation: Recommendation) -> bool:
    """Whether both first picks were measured, so that they can be compared.

    A target of which nothing was measured is not.
    """
    return bool(recommendation.measured) and all(map(isfinite, recommendation.measured.values()))


def _mean(values: Array, seed: int) -> Interval:
    """Mean with its 95 % bootstrap interval over targets."""
    known = values[np.isfinite(values)] if len(values) else values
    if not len(known):
        return unknown("not defined on any target")
    if len(known) < 2:
        return Interval(float(known.mean()), reason="one target only: no interval")
    drawn = np.random.default_rng(seed).choice(known, size=(RESAMPLES, len(known))).mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(float(known.mean()), float(low), float(high))
