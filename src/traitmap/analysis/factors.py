"""Maximum-likelihood factor analysis, for comparison with results that were published with it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import FactorAnalysis

from traitmap.analysis.traits.components import (
    Metric,
    Rotation,
    complete_tables,
    rotate_loadings,
    standardise,
)
from traitmap.errors import MatrixError
from traitmap.matrix.record import Array, TransferMatrix


@dataclass(frozen=True)
class Factors:
    """pattern (T, k) loadings of standardised targets; correlation (k, k); uniqueness (T,).

    variance_ratio: (k,) share of all variance, weighted by the factor correlations.
    """

    targets: tuple[str, ...]
    pattern: Array
    correlation: Array
    uniqueness: Array
    variance_ratio: Array


def factor_analysis(matrix: TransferMatrix, *, n_factors: int, rotate: Rotation = "oblimin") -> Factors:
    """Maximum-likelihood factor analysis of the targets' correlations, rotated.

    Missing cells are filled by regularised iterative PCA of the same rank. Distrust it below about
    five sources per target or when a uniqueness is near zero (a Heywood case).
    """
    sources, targets = matrix.values.shape
    if not 1 <= n_factors <= min(targets - 1, sources - 1):
        raise MatrixError(
            f"n_factors={n_factors} is not possible with {sources} sources and {targets} targets; "
            f"use 1 to {min(targets, sources) - 1}"
        )
    observed = np.isfinite(matrix.values)
    filled = complete_tables(
        matrix.values[None], observed[None], n_factors, Metric(), tolerance=1e-8, limit=5000
    )
    z = standardise(filled, Metric()).z[0] * np.sqrt(sources / (sources - 1))
    model = FactorAnalysis(n_factors, tol=1e-10, max_iter=20000, svd_method="lapack").fit(z)
    rotated = rotate_loadings(model.components_.T, rotate)
    return Factors(
        matrix.targets,
        rotated.pattern,
        rotated.correlation,
        model.noise_variance_,
        rotated.variances / targets,
    )
