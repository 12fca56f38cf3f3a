"""Scatter of gains where sources and targets are unlike: how much each scatters, and tables of such noise.

One source may scatter twice as much as another, and one target too. A test that takes them for alike calls
outliers that are none, and one that asks for nothing but symmetry finds nothing in tables of ten tasks. So
nulls are drawn: normal noise whose size for a pair is that of its source times that of its target. How
unlike the sizes are is itself estimated (empirical Bayes: the variance of the logarithms of mean squares
beyond what so few pairs give by chance; G. Smyth, Statistical Applications in Genetics and Molecular Biology
3:3, 2004), and every drawn table has sizes of its own from what is known of them, so that equal sizes are not
taken for unlike ones.
"""

from __future__ import annotations

import numpy as np
from scipy.special import digamma, polygamma

from traitmap.analysis.explanation.design import Mask
from traitmap.matrix.record import Array

ROUNDS = 12  # of estimating the sizes of sources and targets in turn
MOST_EXACT = 3_000  # pairs up to which what the effects move between residuals is reckoned pair by pair


def drawn_scatter(
    residuals: Array,
    basis: Array,
    used: Mask,
    draws: int,
    generator: np.random.Generator,
    *,
    exact: bool = True,
) -> Array:
    """(B, n) normal noise of the n used pairs as unlike between sources and targets as residuals (n,) are.

    basis: (n, r) of what was taken out of the residuals. used: (S, T). The drawn noise is free of nothing.
    exact: reckon with what the effects move between residuals of several pairs. Without it sizes are taken
    for more alike than they are, which the far tails of a ratio ask for.
    """
    at_row, at_column = np.nonzero(used)
    hat = basis @ basis.T if exact and len(residuals) <= MOST_EXACT else None
    left = 1 - (basis**2).sum(axis=1)

    def expected(variance: Array) -> Array:
        """(n,) mean squares of residuals where pairs have these variances: each holds some of the others'."""
        if hat is None:
            return variance * left
        return variance * (1 - 2 * np.diag(hat)) + hat**2 @ variance

    # Where effects explain all there is, any size serves: what is asked of the noise are ratios.
    squares = residuals**2 if residuals.any() else np.ones(len(residuals))
    least = 1e-6 * float(squares.mean())
    row, column = np.ones(used.shape[0]), np.full(used.shape[1], float(squares.mean() / left.mean()))
    for _ in range(ROUNDS):
        for size, at in ((row, at_row), (column, at_column)):
            seen = np.bincount(at, squares, len(size))
            size *= np.maximum(seen, least) / np.maximum(
                np.bincount(at, expected(row[at_row] * column[at_column]), len(size)), least
            )
    freedom = (np.bincount(at, left, len(size)) for size, at in ((row, at_row), (column, at_column)))
    rows, columns = (
        _drawn_sizes(size, np.asarray(of, dtype=float), draws, generator)
        for size, of in zip((row, column), freedom, strict=True)
    )
    noise = generator.normal(size=(draws, len(at_row)))
    return np.asarray(noise * np.sqrt(rows[:, at_row] * columns[:, at_column]))


def _drawn_sizes(variance: Array, freedom: Array, draws: int, generator: np.random.Generator) -> Array:
    """(B, m) variances as they may be where mean squares (m,) with their degrees of freedom were seen.

    How unlike they are is drawn too, from what m of them tell: tails depend on the least unlike tables.
    """
    half = np.maximum(freedom, 1.0) / 2
    logs = np.log(variance) - digamma(half) + np.log(half)
    chance = polygamma(1, half)  # variance of a log mean square
    if len(logs) < 2:
        return np.exp(np.broadcast_to(logs, (draws, len(logs))))
    scale = (len(logs) - 1) / generator.chisquare(len(logs) - 1, size=(draws, 1))
    unlike = np.maximum(logs.var(ddof=1) * scale - chance.mean(), 0.0)
    weight = unlike / (unlike + chance)
    middle = logs.mean() + weight * (logs - logs.mean())
    return np.asarray(np.exp(middle + np.sqrt(weight * chance) * generator.normal(size=weight.shape)))
