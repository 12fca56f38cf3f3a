"""Choose among the models on known cells alone, and hold out one target as if it were new.

``select`` fits every family of models on the known cells of a problem. Inner folds of these cells give each
family its score and its hyper-parameters, the stack its weights, and the intervals their width. Cells that
the caller holds out stay hidden: nothing here may look at them.

``hold_out_target`` hides one target of a matrix, its column and its own row, and selects a model on the rest:
the cold-start problem of a target that is new, or is treated as if it were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from traitmap.analysis.profiles.pairs import PairFeatures
from traitmap.analysis.recommendation.knowledge import make_problem
from traitmap.analysis.recommendation.models import (
    BASELINES,
    FAMILIES,
    LEARNERS,
    Candidate,
    ModelFit,
    Parts,
)
from traitmap.analysis.recommendation.problem import (
    Problem,
    Values,
    design_of,
    effects_of,
    flat_targets,
    folds_of,
    in_unit,
    unit_for,
)
from traitmap.errors import MatrixError
from traitmap.matrix.record import Array, TransferMatrix
from traitmap.metrics import SHARE
from traitmap.wording import listed

STACK = "stack"
INNER_FOLDS = 6
COVERAGE = 0.9
TOP = (1, 3, 5)
LEAST_TARGETS = 3  # other targets that a prediction can be learnt from


@dataclass(frozen=True)
class FittedFamily:
    """A family of models with its best setting: effects for every pair (S, T), with a 90 % interval each.

    setting: of the family's candidate that the inner folds picked. criterion: its score in the inner
    folds. effect, low, high: (S, T) in the unit of the problem. spread: (T,) effect of one z. fit: z for
    every pair and what it is made of. held_out: (S, T) errors of known cells, each predicted without its
    fold, in units of the target's spread. context_words: what the names of parts mean that no feature was
    given for.
    """

    setting: str
    criterion: float
    effect: Array
    low: Array
    high: Array
    spread: Array
    fit: ModelFit
    held_out: Array
    context_words: Mapping[str, str]


def select(problem: Problem, families: Sequence[str] | None = None) -> tuple[str, dict[str, FittedFamily]]:
    """Fit every family on the known cells: the name of the one that does best, and all of them by name.

    families: those to try (default all). Hyper-parameters, stack and choice are found by inner folds of the
    known cells. The stack is the mean of the learners (ridge, two-way, forest, boosting), each in its best
    setting, weighted by the square of its score in the inner folds; single learners stand beside it in the
    table, but are not chosen, since on so few targets the difference between them is mostly noise. Chosen is
    the stack, or a simpler model that does better there. Intervals hold the inner held-out residuals' middle
    90 %, in units of each target's spread (cross-conformal: Vovk 2015).
    """
    tried = [one for name in families or FAMILIES for one in FAMILIES[name] if one.possible(problem)]
    guesses, (centre, spread) = _held_out(problem, tried)
    design = design_of(problem)
    truth = design.z
    best: dict[str, tuple[Array, ModelFit, str, float]] = {}  # held-out z, fit, setting, criterion
    for name in dict.fromkeys(candidate.family for candidate in tried):
        members = [at for at, candidate in enumerate(tried) if candidate.family == name]
        scores = {at: criterion(truth, guesses[at]) for at in members}
        at = max(members, key=lambda member: round(scores[member], 9))  # the first of equals
        best[name] = guesses[at], tried[at].fit(problem, design), tried[at].setting, scores[at]
    stacked = [name for name in best if name in LEARNERS]
    if len(stacked) < 2:
        stacked = [name for name in best if name not in BASELINES]
    if len(stacked) > 1:
        weights = _stack_weights({name: best[name][0] for name in stacked}, {n: best[n][3] for n in stacked})
        guess = np.sum([weight * best[name][0] for name, weight in weights.items()], axis=0)
        fit = _mixture(weights, {name: best[name][1] for name in best})
        shown = ", ".join(f"{name} {weight:.2f}" for name, weight in weights.items() if weight > 0.005)
        best[STACK] = guess, fit, shown, criterion(truth, guess)
    fitted = {}
    for name, (guess, fit, setting, score) in best.items():
        # How much of a predicted z counts: the least-squares slope on held-out cells, at least 0.05.
        seen = np.isfinite(guess) & np.isfinite(truth)
        power = float((guess[seen] ** 2).sum())
        slope = max(float((guess[seen] * truth[seen]).sum()) / power, 0.05) if power > 0 else 1.0
        errors = (problem.effect - centre) / spread - guess * slope
        low, high = _margins(errors)
        effect = slope * fit.z * design.spread + design.centre
        fitted[name] = FittedFamily(
            setting=setting,
            criterion=score,
            effect=effect,
            low=effect + low * design.spread,
            high=effect + high * design.spread,
            spread=design.spread,
            fit=_mixture({name: slope}, {name: fit}),
            held_out=errors,
            context_words=dict(zip(design.context_names, design.context_words, strict=True)),
        )
    single = {*LEARNERS, "one feature"} if STACK in fitted else set()
    ranked = [name for name in fitted if name != "random" and name not in single]
    return max(ranked, key=lambda name: round(fitted[name].criterion, 9)), fitted


def criterion(truth: Array, guess: Array) -> float:
    """What the choice maximises: the mean over targets of correlation and standardised value of the picks.

    truth, guess: (S, T) z, NaN where unknown; only targets with three known sources or more count.
    The value of the picks is the mean z of the k sources predicted best over that of the k best, averaged
    over k = 1, 3, 5; correlation uses every source and so is the steadier half.
    """
    scores = []
    for true, guessed in zip(truth.T, guess.T, strict=True):
        seen = np.isfinite(true) & np.isfinite(guessed)
        if seen.sum() < 3 or np.ptp(true[seen]) < 1e-12:
            continue
        a, b = true[seen], guessed[seen]
        order, ideal = np.argsort(-b, kind="stable"), np.sort(a - a.mean())[::-1]
        gained = [(a - a.mean())[order[:k]].mean() / max(ideal[:k].mean(), 1e-12) for k in TOP if k < len(a)]
        flat = np.ptp(b) <= 1e-12 * max(np.abs(b).max(), 1e-12)
        scores.append((0.0 if flat else np.corrcoef(a, b)[0, 1]) + (0.0 if flat else np.mean(gained)))
    return float(np.mean(scores)) / 2 if scores else -np.inf


def _held_out(problem: Problem, tried: Sequence[Candidate]) -> tuple[list[Array], tuple[Array, Array]]:
    """Every candidate's z (S, T) for known cells, each predicted without its fold.

    Beside them the centres and spreads (S, T) that were used for each cell.
    """
    shape = problem.effect.shape
    guesses = [np.full(shape, np.nan) for _ in tried]
    centre, spread = np.full(shape, np.nan), np.full(shape, np.nan)
    for held in folds_of(problem, INNER_FOLDS, problem.seed):
        visible = problem.without(held)
        design = design_of(visible)
        centre[held] = np.broadcast_to(design.centre, shape)[held]
        spread[held] = np.broadcast_to(design.spread, shape)[held]
        for guess, candidate in zip(guesses, tried, strict=True):
            guess[held] = candidate.fit(visible, design).z[held]
    return guesses, (centre, spread)


def _stack_weights(guesses: Mapping[str, Array], scores: Mapping[str, float]) -> dict[str, float]:
    """Weights that bring every member to the same spread and then count it by its squared score."""
    merit = np.array([max(score, 0.0) ** 2 for score in scores.values()])
    merit = merit / merit.sum() if merit.sum() > 0 else np.full(len(merit), 1 / len(merit))
    spread = np.array([np.nanstd(guess) for guess in guesses.values()])
    weights = merit / np.where(spread > 1e-9, spread, np.inf)
    return dict(zip(guesses, weights.tolist(), strict=True))


def _mixture(weights: Mapping[str, float], fits: Mapping[str, ModelFit]) -> ModelFit:
    """The weighted sum of fits; its parts are the weighted sums of theirs."""
    used = {name: weight for name, weight in weights.items() if weight > 0}
    zero = 0 * next(iter(fits.values())).z
    z = np.sum([weight * fits[name].z for name, weight in used.items()], axis=0) if used else zero

    def parts(source: int, target: int) -> Parts:
        total: dict[str, float] = {}
        for name, weight in used.items():
            for part, value in fits[name].parts(source, target).items():
                total[part] = total.get(part, 0.0) + weight * value
        return total

    return ModelFit(z, parts)


def _margins(errors: Array) -> tuple[float, float]:
    """5th and 95th percentile of held-out errors."""
    residual = errors[np.isfinite(errors)]
    if len(residual) < 2:
        return -np.inf, np.inf
    tail = (1 - COVERAGE) / 2
    # One cell more than was seen, at either end: the new one.
    share = min((1 - tail) * (1 + 1 / len(residual)), 1.0)
    return float(np.quantile(residual, 1 - share)), float(np.quantile(residual, share))


@dataclass(frozen=True)
class ColdStartProblem:
    """One target whose effects are hidden, and the models that were fitted on all that is left.

    matrix, target, values: what was asked. problem: its last column ``at`` is the target. targets: of the
    problem. families, chosen: of models, and the name of the one that inner folds picked. truth: (S,)
    measured effects on the target, NaN where unknown. factor: from the unit of the effects to points; unit:
    of the target, see ``units_of``. based: whether effects are gains. stretched: targets that were measured
    in other units. flat: targets on which all sources do the same; where enough others are left, nothing is
    learnt from them.
    """

    matrix: TransferMatrix
    target: str
    values: Values
    problem: Problem
    targets: tuple[str, ...]
    chosen: str
    families: Mapping[str, FittedFamily]
    truth: Array
    factor: float
    based: bool
    unit: str
    stretched: tuple[str, ...]
    flat: tuple[str, ...] = ()

    @property
    def at(self) -> int:
        """The column of the target in the problem."""
        return len(self.targets) - 1

    @property
    def model(self) -> FittedFamily:
        """What the chosen model predicts."""
        return self.families[self.chosen]


def hold_out_target(
    matrix: TransferMatrix,
    target: str,
    *,
    features: PairFeatures | None = None,
    values: Values = "score",
    seed: int = 0,
) -> ColdStartProblem:
    """Hide the target's column (and its own row), and select a model on the rest of the matrix (S x T).

    target: a column, or a new name, of which ``features`` (of all pairs) may tell. Predicted cells of the
    matrix count as unknown. MatrixError where fewer than three other targets have known effects.
    """
    unit = unit_for(matrix, target)
    table = np.where(matrix.predicted, np.nan, matrix.values)
    if target in matrix.targets and target in matrix.sources:
        table[matrix.sources.index(target)] = np.nan
    others = [t for t, name in enumerate(matrix.targets) if name != target]
    visible = _columns(replace(matrix, values=table), others)
    stretched: tuple[str, ...] = ()
    if values == "score" and np.isfinite(visible.baseline).all():
        visible, stretched = in_unit(visible, unit)
    effects = effects_of(visible, values)
    flat = flat_targets(visible.values)
    if (np.isfinite(effects.effect).sum(axis=0) > 1)[~flat].sum() >= LEAST_TARGETS:
        effects = replace(effects, effect=np.where(flat, np.nan, effects.effect))
    problem = make_problem(effects, features=features, new_target=target, seed=seed)
    known_targets = int((problem.known.sum(axis=0) > 1).sum())
    if known_targets < LEAST_TARGETS:
        raise MatrixError(
            f"{known_targets} other targets have known effects; to recommend for {target!r} at least "
            f"{LEAST_TARGETS} are needed"
        )
    chosen, families = select(problem)
    truth = np.full(len(matrix.sources), np.nan)
    if target in matrix.targets:
        at = matrix.targets.index(target)
        truth = np.where(matrix.predicted[:, at], np.nan, effects_of(matrix, values).effect[:, at])
    return ColdStartProblem(
        matrix=matrix,
        target=target,
        values=values,
        problem=problem,
        targets=(*effects.targets, target),
        chosen=chosen,
        families=families,
        truth=truth,
        factor=100.0 if values == "relchange" or unit == SHARE else 1.0,
        based=values == "relchange" or bool(np.isfinite(effects.zero).all()),
        unit=unit,
        stretched=stretched,
        flat=tuple(name for name, same in zip(effects.targets, flat, strict=True) if same),
    )


def with_base(matrix: TransferMatrix, values: Values) -> tuple[TransferMatrix, list[str]]:
    """The matrix without targets that lack a base, and a sentence that says so.

    Nothing is left out where every base is known, where too few are (three or fewer), or where values are
    relative changes already.
    """
    based = np.isfinite(matrix.baseline)
    if based.all() or based.sum() <= LEAST_TARGETS or values == "relchange":
        return matrix, []
    lacking = [name for name, known in zip(matrix.targets, based, strict=True) if not known]
    return _columns(matrix, np.flatnonzero(based).tolist()), [
        f"No base is known on {listed(lacking)}, so no gains are either: nothing was learnt from there."
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
