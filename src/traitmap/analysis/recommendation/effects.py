"""What a recommender predicts: the effect of a source on a target, in one direction and one unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from traitmap.errors import MatrixError
from traitmap.matrix_record import Array, TransferMatrix

Values = Literal["score", "relchange"]


@dataclass(frozen=True)
class Effects:
    """Effects of sources on targets. Axis order is always (sources, targets).

    effect: (S, T) what is predicted, higher is better, NaN where unknown: the gain over the base where the
        base is known for every target, else the score; with ``relchange`` the relative change.
    score: (S, T) what regrets are relative to, in the metric's own direction turned to higher is better;
        with ``relchange`` 1 + change, the score in units of the base's.
    zero: (T,) the effect at which a source equals the base; NaN where no base is known.
    base: (T,) the base's own score, higher is better; NaN where unknown.
    unit: the unit of ``effect`` in words.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    effect: Array
    score: Array
    zero: Array
    base: Array
    unit: str


def effects_of(matrix: TransferMatrix, values: Values = "score") -> Effects:
    """Effects of a matrix; a source on the target of its own name (its in-task cell) is left out.

    values: ``score``: gains over the base where it is known, else scores. ``relchange``: relative change
    over the base; a matrix without base is taken to hold relative changes already.
    Raises MatrixError where fewer than two sources or two targets have known cells.
    """
    if values not in ("score", "relchange"):
        raise MatrixError(f"values {values!r} are unknown; use 'score' or 'relchange'")
    sign = np.array([1.0 if matrix.higher_is_better.get(name, True) else -1.0 for name in matrix.targets])
    own = np.array([[source == target for target in matrix.targets] for source in matrix.sources])
    table = np.where(own, np.nan, np.asarray(matrix.values, dtype=float)).reshape(own.shape)
    based = bool(np.isfinite(matrix.baseline).all()) and len(matrix.targets) > 0
    base = np.asarray(matrix.baseline, dtype=float)
    unknown = np.full(len(sign), np.nan)
    if values == "relchange":
        effect, zero = _relative(table, base, sign, based), np.zeros(len(sign))
        score, start, unit = 1 + effect, np.ones(len(sign)), "share of the base's score"
    elif based:
        effect, zero = sign * (table - base), np.zeros(len(sign))
        score, start, unit = sign * table, sign * base, "score above the base's"
    else:
        effect, score = sign * table, sign * table
        zero, start, unit = unknown, unknown, "score"
    found = Effects(matrix.sources, matrix.targets, effect, score, zero, start, unit)
    _require_enough(found)
    return found


def _relative(table: Array, base: Array, sign: Array, based: bool) -> Array:
    """Relative change of every cell; a base of zero leaves its target unknown."""
    if not based:
        return sign * table
    scale = np.where(base == 0, np.nan, np.abs(base))
    return sign * (table - base) / scale


def _require_enough(effects: Effects) -> None:
    known = np.isfinite(effects.effect)
    rows, columns = int(known.any(axis=1).sum()), int((known.sum(axis=0) > 1).sum())
    if rows < 3 or columns < 3:
        raise MatrixError(
            f"{rows} sources and {columns} targets have known cells (a source's cell on its own target "
            "counts as unknown); a recommender needs at least 3 of each"
        )
