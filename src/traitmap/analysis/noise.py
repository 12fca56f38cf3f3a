"""How much of the table is measurement noise, and what is left when it is taken out."""

from __future__ import annotations

import numpy as np

from traitmap.analysis.components import Components
from traitmap.analysis.records import Noise
from traitmap.matrix_record import Array, TransferMatrix


def seed_reliability(matrix: TransferMatrix, columns: tuple[int, ...]) -> Array:
    """(T,) reliability of values pooled over seeds: 1 - within / between mean squares, one-way layout.

    Shrout & Fleiss (1979), ICC(1, k). NaN below two sources with two seeds. A negative value means
    that seeds of one source differ more than the sources do.
    """
    result = np.full(len(columns), np.nan)
    by_target: dict[str, dict[str, list[float]]] = {}
    for cell in matrix.cells:
        if cell.seed is not None and np.isfinite(cell.value):
            by_target.setdefault(cell.target, {}).setdefault(cell.source, []).append(cell.value)
    for t, column in enumerate(columns):
        groups = [np.array(v) for v in by_target.get(matrix.targets[column], {}).values() if len(v) >= 2]
        if len(groups) >= 2:
            result[t] = _one_minus_within_over_between(groups)
    return result


def _one_minus_within_over_between(groups: list[Array]) -> float:
    """1 - MSW / MSB; NaN when the groups' means do not differ at all."""
    total = sum(len(group) for group in groups)
    grand = sum(group.sum() for group in groups) / total
    between = sum(len(group) * (group.mean() - grand) ** 2 for group in groups) / (len(groups) - 1)
    within = sum(((group - group.mean()) ** 2).sum() for group in groups) / (total - len(groups))
    return float(1 - within / between) if between > 0 else float("nan")


def noise_summary(
    found: Components,
    rows: int,
    *,
    origin: str,
    variance: Array,
    unit: Array,
    spread: Array,
    reliability: Array,
) -> Noise:
    """Noise in the units that were decomposed, and the noise-corrected share of each component.

    variance: (T,) noise variance in raw units. unit: (T,) scale units per raw unit. spread: (T,)
    observed standard deviation between sources in raw units. A component's eigenvalue holds
    sum_t v_t^2 noise_t of noise; both it and the total are reduced by theirs before dividing.
    """
    share = variance / np.where(spread > 0, spread, np.nan) ** 2
    scaled = variance * unit**2
    eigenvalues = found.singular**2 / (rows - 1)
    total = found.total / (rows - 1)
    unknown = ~np.isfinite(scaled)
    reason = ""
    if unknown.all():
        reason = "the table has neither items nor standard errors nor counts of items"
    elif unknown.any():
        reason = f"noise is unknown for {int(unknown.sum())} of {len(scaled)} targets"
    noise_total = float(scaled.sum())
    signal = np.full(len(eigenvalues), np.nan)
    if not reason and noise_total < total:
        signal = np.maximum(eigenvalues - (found.v**2).T @ scaled, 0.0) / (total - noise_total)
    elif not reason:
        reason = "measurement noise alone would give a table this variable"
    return Noise(
        origin=origin if not unknown.all() else "unknown",
        variance=variance,
        share=share,
        reliability=reliability,
        signal_ratio=signal,
        total_share=noise_total / total if not unknown.any() else float("nan"),
        reason=reason,
    )
