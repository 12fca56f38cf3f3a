"""The Mantel test beside the naive one: correlation of gains and a feature over pairs, no effects removed.

N. Mantel, Cancer Research 27:209-220, 1967. Permuting tasks respects that pairs share them; Pearson's p
takes every pair for a new observation and calls far too much significant.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy import stats

from traitmap.analysis.explanation.design import Mask, Permutations
from traitmap.analysis.explanation.mrqap import p_value, permuted_products
from traitmap.matrix_record import Array


@dataclass(frozen=True)
class Mantel:
    """r: Pearson's correlation over the pairs. p: two-sided, tasks permuted. naive_p: Pearson's own."""

    r: float
    p: float
    naive_p: float


def mantel(y: Array, feature: Array, used: Mask, moves: Permutations) -> Mantel:
    """Correlation of gains y (n,) of the used pairs with a feature (S, T), NaN where unknown."""
    known = np.isfinite(feature)
    centred = (
        np.where(known, feature - feature[known].mean(), 0.0) if known.any() else np.zeros(feature.shape)
    )
    constant = np.full((len(y), 1), 1 / sqrt(len(y)))
    draws = permuted_products(y, centred, used, constant, moves)
    if draws.xx <= 0 or draws.yy <= 0:
        return Mantel(float("nan"), float("nan"), float("nan"))
    r = float(np.clip(draws.xy / sqrt(draws.xx * draws.yy), -1, 1))
    n = int(known[used].sum())
    both = y[known[used]], feature[used & known]
    naive = (
        float(stats.pearsonr(*both).pvalue) if n > 2 and all(np.ptp(v) > 0 for v in both) else float("nan")
    )
    return Mantel(r, p_value(draws), naive)
