"""Properties of sources (or targets) alone, held against donor (or recipient) strengths.

Source and target effects absorb whatever is the same along a row or a column, so such properties can
only be seen between sources (or targets), and there the number of observations is the number of tasks.
"""

from __future__ import annotations

from math import atanh, sqrt, tanh
from typing import Literal

import numpy as np
from scipy import stats

from traitmap.analysis.explanation.mrqap import LEVEL, POWER
from traitmap.analysis.explanation.records import LevelEffect, Strength, Verdict
from traitmap.analysis.interval import Interval, unknown
from traitmap.analysis.pair_features import Feature
from traitmap.matrix_record import Array
from traitmap.matrix_statistics import benjamini_hochberg

LEAST_TASKS = 5
NEGLIGIBLE = 0.2  # |effect| in standard deviations: 4 % of the variance


def level_effects(
    features: tuple[Feature, ...],
    side: Literal["source", "target"],
    strengths: tuple[Strength, ...],
    *,
    draws: int,
    seed: int,
) -> tuple[LevelEffect, ...]:
    """Correlation of each feature of that side with the strengths, tasks permuted.

    features: values (S, T) in the order of the strengths along their own axis.
    """
    chosen = [one for one in features if one.scope == side]
    y = np.array([one.effect.value for one in strengths])
    axis = 1 if side == "source" else 0
    tested = [_tested(y, _along(one.values, axis), draws, seed) for one in chosen]
    p = np.array([found[1] for found in tested], dtype=float)
    q = benjamini_hochberg(p)
    level = LEVEL / max(1, int(np.isfinite(p).sum()))
    return tuple(
        LevelEffect(
            name=one.name,
            group=one.group,
            words=one.words,
            side=side,
            r=r,
            p=float(p[i]),
            q=float(q[i]),
            detectable=detectable_correlation(n, level),
            n=n,
            verdict=verdict(float(q[i]), r),
        )
        for i, (one, (r, _, n)) in enumerate(zip(chosen, tested, strict=True))
    )


def detectable_correlation(n: int, level: float) -> float:
    """Smallest correlation of n tasks found with 80 % power, by Fisher's transformation."""
    if n < LEAST_TASKS:
        return float("nan")
    return tanh(float(stats.norm.ppf(1 - level / 2) + stats.norm.ppf(POWER)) / sqrt(n - 3))


def verdict(q: float, effect: Interval) -> Verdict:
    """``yes`` below q = .05, ``no`` where the whole interval is negligible, else nobody can tell."""
    if q < LEVEL:
        return "yes"
    inside = effect.low > -NEGLIGIBLE and effect.high < NEGLIGIBLE
    return "no" if effect.known and inside else "cannot tell"


def _along(values: Array, axis: int) -> Array:
    """The one value of each source or target; NaN where no pair has it."""
    known = np.isfinite(values)
    count = known.sum(axis=axis)
    total = np.where(known, values, 0.0).sum(axis=axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _tested(y: Array, x: Array, draws: int, seed: int) -> tuple[Interval, float, int]:
    known = np.isfinite(x) & np.isfinite(y)
    n = int(known.sum())
    if n < LEAST_TASKS:
        return unknown(f"known for {n} tasks only; {LEAST_TASKS} are needed"), float("nan"), n
    y, x = y[known] - y[known].mean(), x[known] - x[known].mean()
    size = sqrt(float(y @ y) * float(x @ x))
    if size <= 1e-12 * n:
        return unknown("the same for all tasks"), float("nan"), n
    generator = np.random.default_rng([seed, 5])
    moved = generator.permuted(np.tile(x, (draws, 1)), axis=1)
    p = (1 + (np.abs(moved @ y) >= abs(float(x @ y)) - 1e-9 * size).sum()) / (1 + draws)
    r = float(np.clip(x @ y / size, -1 + 1e-9, 1 - 1e-9))
    half = float(stats.norm.ppf(0.975)) / sqrt(n - 3)
    return Interval(r, tanh(atanh(r) - half), tanh(atanh(r) + half)), float(p), n
