"""Choose among the models on known cells alone, and hold out one target as if it were new.

``select`` fits every family of models on the known cells of a problem. Inner folds of these cells give each
family its score and its hyper-parameters, the stack its weights, and the intervals their width. Cells that
the caller holds out stay hidden: nothing here may look at them.

``hold_out_target`` hides one target of a matrix, its column and its own row, and selects a model on the rest:
the cold-start problem of a target that is new, or is treated as if it were.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from traitmap.analysis.profiles.pairs import PairFeatures
from traitmap.analysis.recommendation.knowledge import Embeddings, Similarity, make_problem
from traitmap.analysis.recommendation.models import (
    BASELINES,
    FAMILIES,
    LEARNERS,
    PRIOR_RIDGE,
    Candidate,
    ModelFit,
    Parts,
)
from traitmap.analysis.recommendation.prior import MatchedPriors, played
from traitmap.analysis.recommendation.problem import (
    Problem,
    Values,
    design_of,
    effects_of,
    flat_targets,
    folds_of,
    in_unit,
    merits,
    remoteness,
    unit_for,
)
from traitmap.data.fingerprints import Fingerprints
from traitmap.errors import MatrixError
from traitmap.matrix.record import Array, TransferMatrix
from traitmap.matrix.statistics import z_value
from traitmap.metrics import SHARE
from traitmap.wording import listed

STACK = "stack"
INNER_FOLDS = 6
SIMPLEST_FIRST = ("popularity", "additive", "low rank", "one feature", "ridge", STACK)
COVERAGE = 0.9
TOP = (1, 3, 5)
LEAVE = 2.0  # standard errors by which a model must be better than popularity
LEAST_TARGETS = 3  # other targets that a prediction can be learnt from


@dataclass(frozen=True)
class FittedFamily:
    """A family of models with its best setting: effects for every pair (S, T), with a 90 % interval each.

    setting: of the family's candidate that the inner folds picked. criterion: its score in the inner folds,
    the mean of ``scores`` (T,) over targets. effect, low, high: (S, T) in the unit of the problem. spread:
    (T,) effect of one z. fit: z for every pair and what it is made of. held_out: (S, T) errors of known
    cells, each predicted without its fold, in units of the target's spread. declined: (T,) targets that are
    so unlike all others that the interval given means nothing. context_words: what the names of parts mean
    that no feature was given for.
    """

    setting: str
    criterion: float
    scores: Array
    effect: Array
    low: Array
    high: Array
    spread: Array
    fit: ModelFit
    held_out: Array
    declined: NDArray[np.bool_]
    context_words: Mapping[str, str]


def select(problem: Problem, families: Sequence[str] | None = None) -> tuple[str, dict[str, FittedFamily]]:
    """Fit every family on the known cells: the name of the one that does best, and all of them by name.

    families: those to try (default all). Hyper-parameters, stack and choice are found by inner folds of the
    known cells. The stack is the mean of the learners (ridge, two-way, smooth), each in its best setting,
    weighted by the square of its score in the inner folds; which single one of the last two is best is
    mostly noise on so few targets, so that they stand in the table, but are not chosen. Chosen is the first
    of ``SIMPLEST_FIRST`` that is not worse than the best by more than a standard error (``simplest``), where
    its order alone is a standard error better than popularity's too: sources that collapse lie far apart in
    popularity's means and not in what models learn, which says nothing of who comes first.
    Intervals hold the inner held-out residuals' middle 90 %, in units of each target's spread
    (cross-conformal: Vovk 2015), wider for a target that is far from all others where errors grow so.
    """
    tried = [one for name in families or FAMILIES for one in FAMILIES[name] if one.possible(problem)]
    guesses, (centre, spread), seen_from = _held_out(problem, tried)
    remote = remoteness(problem)
    declined = beyond(remote, seen_from)
    design = design_of(problem)
    truth = design.merit
    best: dict[str, tuple[Array, ModelFit, str, float]] = {}  # held-out z, fit, setting, criterion
    for name in dict.fromkeys(candidate.family for candidate in tried):
        members = [at for at, candidate in enumerate(tried) if candidate.family == name]
        scores = {at: criterion(truth, guesses[at]) for at in members}
        at = max(members, key=lambda member: round(scores[member], 9))  # the first of equals
        best[name] = guesses[at], tried[at].fit(problem, design), tried[at].setting, scores[at]
    stacked = [name for name in best if name in LEARNERS]
    if len(stacked) < 2:
        stacked = [name for name in best if name not in (*BASELINES, "prior")]
    if len(stacked) > 1:
        weights = _stack_weights({name: best[name][0] for name in stacked}, {n: best[n][3] for n in stacked})
        guess = np.sum([weight * best[name][0] for name, weight in weights.items()], axis=0)
        fit = _mixture(weights, {name: best[name][1] for name in best})
        shown = ", ".join(f"{name} {weight:.2f}" for name, weight in weights.items() if weight > 0.005)
        best[STACK] = guess, fit, shown, criterion(truth, guess)
    fitted = {}
    for name, (guess, fit, setting, score) in best.items():
        # How much of a predicted z counts: the least-squares slope on held-out cells, at least 0.05.
        effects = (problem.effect - centre) / spread
        seen = np.isfinite(guess) & np.isfinite(effects)
        power = float((guess[seen] ** 2).sum())
        slope = max(float((guess[seen] * effects[seen]).sum()) / power, 0.05) if power > 0 else 1.0
        errors = effects - guess * slope
        width = _widths(errors, seen_from)
        low, high = _margins(errors / width(seen_from))
        scale = design.spread * width(remote)
        effect = slope * fit.z * design.spread + design.centre
        fitted[name] = FittedFamily(
            setting=setting,
            criterion=score,
            scores=scores_of(truth, guess),
            effect=effect,
            low=effect + low * scale,
            high=effect + high * scale,
            spread=design.spread,
            fit=_mixture({name: slope}, {name: fit}),
            held_out=errors,
            declined=declined,
            context_words=dict(zip(design.context_names, design.context_words, strict=True)),
        )
    units = problem.blocks[0] if problem.holdout == "target" else np.arange(problem.effect.shape[1])
    names = [name for name in SIMPLEST_FIRST if name in fitted]
    chosen = simplest({name: fitted[name].scores for name in names}, units)
    orders = {name: scores_of(truth, merits(best[name][0])) for name in {chosen, names[0]}}
    if chosen != names[0] and not in_errors(unit_means(orders[chosen] - orders[names[0]], units)) > 1:
        chosen = names[0]  # better by how far its predictions lie apart, not by their order
    if "prior" in fitted and _prior_helps(problem, fitted, chosen):
        chosen = "prior"
    return chosen, fitted


def scores_of(truth: Array, guess: Array) -> Array:
    """(T,) what the choice maximises: the mean of correlation and standardised value of the picks.

    truth, guess: (S, T) z, NaN where unknown; NaN for targets with fewer than three known sources, or none
    that differ. The value of the picks is the mean z of the k sources predicted best over that of the k best,
    averaged over k = 1, 3, 5; correlation uses every source and so is the steadier half.
    """
    seen = np.isfinite(truth) & np.isfinite(guess)
    count = seen.sum(axis=0)
    a = np.where(seen, truth, 0.0)
    a = np.where(seen, a - a.sum(axis=0) / np.maximum(count, 1), 0.0)
    b = np.where(seen, guess, 0.0)
    largest = np.abs(b).max(axis=0, initial=0.0)
    b = np.where(seen, b - b.sum(axis=0) / np.maximum(count, 1), 0.0)
    power, level = (a**2).sum(axis=0), (b**2).sum(axis=0)
    flat = np.sqrt(level) <= 1e-12 * np.maximum(largest, 1e-12)
    correlation = (a * b).sum(axis=0) / np.sqrt(np.where(flat | (power == 0), 1.0, power * level))
    ideal = -np.sort(-np.where(seen, a, -np.inf), axis=0)
    picked = np.take_along_axis(a, np.argsort(-np.where(seen, b, -np.inf), axis=0, kind="stable"), axis=0)
    value, used = np.zeros(len(count)), np.zeros(len(count))
    for k in TOP:
        enough = count > k
        best = np.where(enough, np.where(np.isfinite(ideal[:k]), ideal[:k], 0.0).sum(axis=0), 1.0)
        value += np.where(enough, picked[:k].sum(axis=0) / np.maximum(best, 1e-12), 0.0)
        used += enough
    total = np.where(flat, 0.0, correlation + value / np.maximum(used, 1)) / 2
    return np.where((count >= 3) & (np.sqrt(power) > 1e-12), total, np.nan)


def criterion(truth: Array, guess: Array) -> float:
    """The mean of ``scores_of`` over targets; minus infinity where no target can be scored."""
    scores = scores_of(truth, guess)
    return float(np.nanmean(scores)) if np.isfinite(scores).any() else -np.inf


def unit_means(scores: Array, units: NDArray[np.int64]) -> Array:
    """(U,) means of scores (T,) over the targets that are held out together; NaN where none is known."""
    seen = np.isfinite(scores)
    names, place = np.unique(units, return_inverse=True)
    count = np.bincount(place[seen], minlength=len(names))
    total = np.bincount(place[seen], weights=scores[seen], minlength=len(names))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def in_errors(values: Array) -> float:
    """The mean of values (U,) in its standard errors; NaN below two known ones, infinite where all agree."""
    known = values[np.isfinite(values)]
    if len(known) < 2:
        return float("nan")
    mean, error = float(known.mean()), float(known.std(ddof=1)) / np.sqrt(len(known))
    return (
        mean / error if error > 1e-12 else float(np.sign(mean)) * float("inf") if abs(mean) > 1e-12 else 0.0
    )


def simplest(scores: Mapping[str, Array], units: NDArray[np.int64], leave: float = LEAVE) -> str:
    """The model to use: the first that is not worse than the best by more than a standard error.

    scores: (T,) of each model on held-out targets, from the simplest model, popularity, to the least simple;
    units: (T,) numbers of what targets are held out with. The error is that of the mean paired difference
    over units (the one-standard-error rule: Breiman et al., Classification and Regression Trees, 1984).
    The simplest is left only where the best model is ``leave`` standard errors better and that chosen beats
    chance, which scores 0, by as many as 95 % of noise does not reach: the best of several would else often
    be one that noise favours.
    """
    means = {name: unit_means(of, units) for name, of in scores.items()}
    first, *others = means
    average = {
        name: float(np.nanmean(of)) if np.isfinite(of).any() else -np.inf for name, of in means.items()
    }
    best = max(average, key=lambda name: round(average[name], 9))
    if best == first or not others or not in_errors(means[best] - means[first]) > leave:
        return first
    chosen = next(name for name in others if name == best or in_errors(means[best] - means[name]) <= 1)
    return chosen if in_errors(means[chosen]) > z_value(0.9) else first


def _prior_helps(problem: Problem, fitted: Mapping[str, FittedFamily], chosen: str) -> bool:
    """Whether priors do better than what would be chosen without them.

    On held-out targets of this matrix and of every prior that stands in for it; a target's difference is the
    mean over these tables, and has to be a standard error above 0 (it is one model against one, not the best
    of several). Here alone it must not speak against them by as much.
    """
    assert problem.prior is not None
    here = fitted["prior"].scores - fitted[chosen].scores
    tables = [here]
    for truth, guess, popular in played(problem.prior, problem.blocks[0], PRIOR_RIDGE):
        tables.append(scores_of(truth, guess) - scores_of(truth, popular))
    known = np.isfinite(tables)
    count = known.sum(axis=0)
    mean = np.where(count > 0, np.where(known, tables, 0.0).sum(axis=0) / np.maximum(count, 1), np.nan)
    units = problem.blocks[0]
    return in_errors(unit_means(mean, units)) > 1 and in_errors(unit_means(here, units)) >= -1


def _held_out(problem: Problem, tried: Sequence[Candidate]) -> tuple[list[Array], tuple[Array, Array], Array]:
    """Every candidate's z (S, T) for known cells, each predicted without its fold.

    Beside them the centres and spreads (S, T) that were used for each cell, and how far each target lay from
    those that it was predicted from (T, L).
    """
    shape = problem.effect.shape
    guesses = [np.full(shape, np.nan) for _ in tried]
    centre, spread = np.full(shape, np.nan), np.full(shape, np.nan)
    remote = np.full((shape[1], len(problem.targets_alike)), np.nan)
    for held in folds_of(problem, INNER_FOLDS, problem.seed):
        visible = problem.without(held)
        design = design_of(visible)
        centre[held] = np.broadcast_to(design.centre, shape)[held]
        spread[held] = np.broadcast_to(design.spread, shape)[held]
        new = held.any(axis=0)
        remote[new] = remoteness(visible)[new]
        for guess, candidate in zip(guesses, tried, strict=True):
            guess[held] = candidate.fit(visible, design).z[held]
    return guesses, (centre, spread), remote


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


def _widths(errors: Array, remote: Array) -> Callable[[Array], Array]:
    """How wide an interval is at a distance, relative to the usual one: wider where it is far.

    errors: (S, T) of held-out predictions; remote: (T, L) distances at which they were made. Beyond the mean
    distance the width grows by the least-squares slope of a target's mean absolute error, less its standard
    error. Where distances are unknown all intervals are alike (locally weighted conformal prediction: Lei et
    al., Journal of the American Statistical Association 113:1094-1111, 2018).
    """
    known = np.isfinite(errors)
    at, size = mean_known(remote), np.where(known, np.abs(errors), 0.0).sum(axis=0)
    seen = np.isfinite(at) & known.any(axis=0)
    slope, middle = 0.0, 0.0
    if seen.sum() > LEAST_TARGETS:
        line = (
            stats.linregress(at[seen], size[seen] / known.sum(axis=0)[seen])
            if np.ptp(at[seen]) > 1e-9
            else None
        )
        middle, usual = float(at[seen].mean()), float(np.abs(errors[known]).mean())
        slope = max(line.slope - line.stderr, 0.0) / usual if line is not None and usual > 0 else 0.0

    def width(distance: Array) -> Array:
        far = mean_known(distance) - middle
        return 1 + slope * np.where(np.isfinite(far), np.maximum(far, 0.0), 0.0)

    return width


def mean_known(distance: Array) -> Array:
    """(T,) means over the known distances of each target; NaN where none is."""
    known = np.isfinite(distance)
    count = known.sum(axis=1)
    return np.where(count > 0, np.where(known, distance, 0.0).sum(axis=1) / np.maximum(count, 1), np.nan)


def beyond(remote: Array, seen_from: Array) -> NDArray[np.bool_]:
    """(T,) targets that lie further from all others than any that was predicted here, by a margin.

    remote: (T, L) their distances in each likeness; seen_from: (T, L) those at which predictions were tried.
    The margin is that of Tukey's fences, so that the furthest of targets that are all alike is no outlier for
    being it: the inner one (1.5 interquartile ranges) for the mean over likenesses, the outer one (3) for a
    single likeness, of which there are several.
    """
    far = np.zeros(len(remote), dtype=bool)
    columns = [(mean_known(remote), mean_known(seen_from), 1.5)]
    columns += [(distance, tried, 3.0) for distance, tried in zip(remote.T, seen_from.T, strict=True)]
    for distance, tried, width in columns:
        known = tried[np.isfinite(tried)]
        if len(known) >= LEAST_TARGETS:
            low, high = np.quantile(known, [0.25, 0.75])
            fence = max(float(known.max()), float(high + width * (high - low)))
            far |= np.isfinite(distance) & (distance > fence + 1e-9 * abs(fence))
    return far


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
    similarity: Similarity | None = None,
    embeddings: Embeddings | None = None,
    weights: Fingerprints | None = None,
    prior: Callable[[Sequence[str], Sequence[str]], MatchedPriors] | None = None,
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
    problem = make_problem(
        effects,
        features=features,
        similarity=similarity,
        embeddings=embeddings,
        weights=weights,
        prior=prior and prior(effects.sources, (*effects.targets, target)),
        new_target=target,
        seed=seed,
    )
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
    """The matrix with some of its targets: values, base and cells, without items."""
    part = matrix.part(targets=[matrix.targets[t] for t in keep])
    return replace(part, item_scores={}, chance=None, majority=None)
