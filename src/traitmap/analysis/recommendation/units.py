"""In what unit each target is measured, and a whole matrix in the unit of one of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from traitmap.matrix_record import TransferMatrix

SHARE, AS_GIVEN = "share", "as given"
# Metrics in 0..1 by accident only: they are never shares of right answers.
_NOT_SHARES = ("perplexity", "bits_per", "loss", "likelihood")


def units_of(matrix: TransferMatrix) -> tuple[str, ...]:
    """For every target ``share`` (of right answers, 0 to 1), else its metric, else ``as given``.

    A table without names of metrics is taken to be in one unit.
    """
    metrics: dict[str, str] = {}
    for cell in (*matrix.base_cells, *matrix.cells):
        if cell.metric:
            metrics.setdefault(cell.target, cell.metric)
    tables = [np.append(matrix.values[:, t], matrix.baseline[t]) for t in range(len(matrix.targets))]
    shares = [
        bool(np.all((one >= 0) & (one <= 1))) for one in (table[np.isfinite(table)] for table in tables)
    ]
    found = []
    for name, share in zip(matrix.targets, shares, strict=True):
        metric = metrics.get(name, "")
        if not metric:
            found.append(SHARE if all(shares) else AS_GIVEN)
        else:
            never = any(word in metric.lower() for word in _NOT_SHARES)
            found.append(SHARE if share and not never else metric)
    return tuple(found)


def factor_of(matrix: TransferMatrix, target: str) -> float:
    """From the target's unit to points: 100 for shares, 1 for anything else."""
    return 100.0 if units_of(matrix)[matrix.targets.index(target)] == SHARE else 1.0


def unit_for(matrix: TransferMatrix, target: str) -> str:
    """The unit of a target; of a new one the unit that most targets have."""
    units = units_of(matrix)
    if target in matrix.targets:
        return units[matrix.targets.index(target)]
    return max(dict.fromkeys(units), key=units.count)


def in_unit(matrix: TransferMatrix, unit: str) -> tuple[TransferMatrix, tuple[str, ...]]:
    """The matrix with gains in other units stretched to the usual spread of those in ``unit``; their names.

    Within a target nothing changes but the scale, so that what it says of the sources' order is kept.
    """
    units = units_of(matrix)
    gains = np.where(np.isfinite(matrix.gains), matrix.gains, np.nan)
    spread = np.array([np.nanstd(gain) if np.isfinite(gain).sum() > 1 else np.nan for gain in gains.T])
    own = np.array([one == unit for one in units])
    usable = np.isfinite(spread) & (spread > 0)
    if own.all() or not (own & usable).any():
        return matrix, ()
    usual = float(np.median(spread[own & usable]))
    scale = np.where(~own & usable, usual / np.where(usable, spread, 1.0), 1.0)
    left = tuple(name for name, inside in zip(matrix.targets, own, strict=True) if not inside)
    return replace(matrix, values=matrix.baseline + gains * scale), left
