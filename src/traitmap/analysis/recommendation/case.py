"""One question to a recommender: the target's column hidden, one unit, models fitted on all that is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import nan

import numpy as np

from traitmap.analysis.pair_features import PairFeatures
from traitmap.analysis.recommendation.effects import Values, effects_of
from traitmap.analysis.recommendation.problem import Problem
from traitmap.analysis.recommendation.recommender import fit_recommender
from traitmap.analysis.recommendation.selection import Predicted, Selected
from traitmap.analysis.recommendation.units import SHARE, in_unit, unit_for
from traitmap.errors import MatrixError
from traitmap.matrix_record import Array, TransferMatrix

LEAST_TARGETS = 3  # other targets that a prediction can be learnt from


@dataclass(frozen=True)
class Case:
    """The fitted models of a problem whose column ``at`` is the target, hidden.

    targets: of the problem. truth: (S,) measured effects on the target, NaN where unknown. factor: from the
    unit of the effects to points; unit: of the target, see ``units_of``. sign: -1 where lower is better.
    based: whether effects are gains. stretched: targets that were measured in other units.
    """

    problem: Problem
    targets: tuple[str, ...]
    selected: Selected
    at: int
    truth: Array
    factor: float
    sign: float
    based: bool
    unit: str
    stretched: tuple[str, ...]

    @property
    def chosen(self) -> Predicted:
        """What the chosen model predicts."""
        return self.selected.families[self.selected.chosen]


def pose(
    matrix: TransferMatrix, target: str, features: PairFeatures | None, values: Values, seed: int
) -> Case:
    """Hide the target's column (and its own row), fit on the rest. MatrixError where too little is left."""
    unit = unit_for(matrix, target)
    hidden = _without_target(matrix, target)
    stretched: tuple[str, ...] = ()
    if values == "score" and np.isfinite(hidden.baseline).all():
        hidden, stretched = in_unit(hidden, unit)
    fitted = fit_recommender(hidden, features=features, new_targets=[target], values=values, seed=seed)
    others = int((fitted.problem.known.sum(axis=0) > 1).sum())
    if others < LEAST_TARGETS:
        raise MatrixError(
            f"{others} other targets have known effects; to recommend for {target!r} at least "
            f"{LEAST_TARGETS} are needed"
        )
    lower = not matrix.higher_is_better.get(target, True)
    return Case(
        problem=fitted.problem,
        targets=fitted.targets,
        selected=fitted.selected,
        at=len(hidden.targets),
        truth=_truth(matrix, target, values),
        factor=100.0 if values == "relchange" or unit == SHARE else 1.0,
        unit=unit,
        stretched=stretched,
        sign=-1.0 if lower else 1.0,
        based=values == "relchange" or bool(np.isfinite(fitted.effects.zero).all()),
    )


def with_base(matrix: TransferMatrix, values: Values) -> tuple[TransferMatrix, list[str]]:
    """The matrix without targets that lack a base, where enough have one, and what to say of it."""
    based = np.isfinite(matrix.baseline)
    if based.all() or based.sum() <= LEAST_TARGETS or values == "relchange":
        return matrix, []
    left = [name for name, known in zip(matrix.targets, based, strict=True) if not known]
    return _columns(matrix, np.flatnonzero(based).tolist()), [
        f"No base is known on {', '.join(left)}, so no gains are either: nothing was learnt from there."
    ]


def _columns(matrix: TransferMatrix, keep: Sequence[int]) -> TransferMatrix:
    """The matrix with some of its targets: values, base and cells."""
    names = tuple(matrix.targets[t] for t in keep)
    return replace(
        matrix,
        targets=names,
        values=matrix.values[:, list(keep)],
        baseline=matrix.baseline[list(keep)],
        cells=tuple(cell for cell in matrix.cells if cell.target in names),
        base_cells=tuple(cell for cell in matrix.base_cells if cell.target in names),
        item_scores={},
        chance=None,
        majority=None,
    )


def _without_target(matrix: TransferMatrix, target: str) -> TransferMatrix:
    """The matrix as if the target had never been measured: without its column, its own row empty."""
    table = np.where(matrix.predicted, np.nan, matrix.values)
    if target in matrix.targets and target in matrix.sources:
        table[matrix.sources.index(target)] = np.nan
    keep = [t for t, name in enumerate(matrix.targets) if name != target]
    return _columns(replace(matrix, values=table), keep)


def _truth(matrix: TransferMatrix, target: str, values: Values) -> Array:
    """(S,) measured effects on the target; NaN where it is new, where unknown, and for its own source."""
    if target not in matrix.targets:
        return np.full(len(matrix.sources), nan)
    effects = effects_of(matrix, values)
    at = effects.targets.index(target)
    return np.where(matrix.predicted[:, at], nan, effects.effect[:, at])
