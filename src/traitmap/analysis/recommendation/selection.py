"""Choose among the models on known cells alone: inner folds give scores, settings, weights and intervals.

A recommender for real use: predicted gains of every source on a new target, intervals, and why.

    fitted = fit_recommender(matrix, features=pair_features(sources, targets_and_new))
    found = fitted.predict("new target")                      # nothing measured there yet
    found = fitted.predict("new target", known={"math": 4.1})  # after a probe or two
    found.gain, found.low, found.high                         # (S,) in the unit of the matrix's gains
    found.contributions[source]                               # {feature: points}; they add up to the gain

``fit_recommender(matrix, *, features=None, texts=None, embeddings=None, attributes=None, new_targets=None,
values="score", seed=0) -> FittedRecommender``.

One question to a recommender: the target's column hidden, one unit, models fitted on all that is left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import nan

import numpy as np
from numpy.typing import NDArray

from traitmap.analysis.features import PairFeatures
from traitmap.analysis.recommendation.knowledge import Attributes, Embeddings, Knowledge, knowledge_of
from traitmap.analysis.recommendation.models import BASELINES, FAMILIES, LEARNERS, Candidate, ModelFit, Parts
from traitmap.analysis.recommendation.problem import (
    SHARE,
    EffectTable,
    PairDesign,
    Problem,
    Values,
    design_of,
    effects_of,
    folds_of,
    in_unit,
    level_of,
    unit_for,
)
from traitmap.data.texts import Texts
from traitmap.errors import MatrixError
from traitmap.matrix.record import Array, TransferMatrix

STACK = "stack"
INNER_FOLDS = 6
COVERAGE = 0.9
TOP = (1, 3, 5)


@dataclass(frozen=True)
class Predicted:
    """Effects in points for every pair (S, T), with a 90 % interval each, and what a z is made of.

    setting: of the family's candidate that the inner folds picked. criterion: its score in the inner
    folds. spread: (T,) points per z. fit: z for every pair and what it is made of. held_out: (S, T) errors
    of known cells, each predicted without its fold, in units of the target's spread. context_words: what
    the names of parts mean that no feature was given for.
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


@dataclass(frozen=True)
class Selected:
    """Every family with its best setting, and the family that did best on held-out known cells."""

    chosen: str
    families: Mapping[str, Predicted]
    weights: Mapping[str, float]


def select(problem: Problem, families: Sequence[str] | None = None) -> Selected:
    """Fit every family on the known cells; hyper-parameters, stack and choice by inner folds of them.

    families: those to try (default all). The stack is the mean of the learners (ridge, two-way, forest,
    boosting), each in its best setting, weighted by the square of its score in the inner folds; single
    learners stand beside it in the table, but are not chosen, since on so few targets the difference
    between them is mostly noise. Chosen is the stack, or a simpler model that does better there.
    Intervals hold the inner held-out residuals' middle 90 %, in units of each target's spread
    (cross-conformal: Vovk 2015).
    """
    tried = [one for name in families or FAMILIES for one in FAMILIES[name] if one.possible(problem)]
    names = tuple(dict.fromkeys(one.family for one in tried))
    held_out, spreads = _held_out(problem, tried)
    truth = level_of(problem.effect).standardise(problem.effect)
    best = {name: _best(name, tried, held_out, truth) for name in names}
    design = design_of(problem)
    fits = {name: one.fit(problem, design) for name, (one, _, _) in best.items()}
    guesses = {name: held_out[at] for name, (_, at, _) in best.items()}
    settings = {name: (one.setting, score) for name, (one, _, score) in best.items()}
    members = _members(names)
    weights: dict[str, float] = {}
    if len(members) > 1:
        weights = _stack_weights(members, guesses, {name: settings[name][1] for name in members})
        guesses[STACK] = np.sum([weight * guesses[name] for name, weight in weights.items()], axis=0)
        fits[STACK] = _mixture(weights, fits)
        settings[STACK] = (_told(weights), criterion(truth, guesses[STACK]))
    found = {
        name: _in_points(problem, design, fit, guesses[name], truth, spreads, settings[name])
        for name, fit in fits.items()
    }
    single = {*LEARNERS, "one feature"} if STACK in found else set()
    ranked = [name for name in found if name != "random" and name not in single]
    chosen = max(ranked, key=lambda name: found[name].criterion)
    return Selected(chosen, found, weights)


def _in_points(
    problem: Problem,
    design: PairDesign,
    fit: ModelFit,
    guess: Array,
    truth: Array,
    spreads: tuple[Array, Array],
    setting: tuple[str, float],
) -> Predicted:
    """A fit in the unit of the effects, believed as far as its held-out predictions were right."""
    level, slope = design.level, _slope(guess, truth)
    errors = _errors(problem, guess * slope, spreads)
    low, high = _margins(errors)
    effect = level.restore(slope * fit.z)
    return Predicted(
        *setting,
        effect,
        effect + low * level.spread,
        effect + high * level.spread,
        level.spread,
        _times(fit, slope),
        errors,
        dict(zip(design.context_names, design.context_words, strict=True)),
    )


def criterion(truth: Array, guess: Array) -> float:
    """What the choice maximises: the mean over targets of correlation and standardised value of the picks.

    The value of the picks is the mean z of the k sources predicted best over that of the k best, averaged
    over k = 1, 3, 5; correlation uses every source and so is the steadier half.
    """
    found = []
    for true, guessed in zip(truth.T, guess.T, strict=True):
        seen = np.isfinite(true) & np.isfinite(guessed)
        if seen.sum() < 3 or np.ptp(true[seen]) < 1e-12:
            continue
        a, b = true[seen], guessed[seen]
        order, ideal = np.argsort(-b, kind="stable"), np.sort(a - a.mean())[::-1]
        gained = [(a - a.mean())[order[:k]].mean() / max(ideal[:k].mean(), 1e-12) for k in TOP if k < len(a)]
        flat = np.ptp(b) <= 1e-12 * max(np.abs(b).max(), 1e-12)
        found.append((0.0 if flat else np.corrcoef(a, b)[0, 1]) + (0.0 if flat else np.mean(gained)))
    return float(np.mean(found)) / 2 if found else -np.inf


def _held_out(problem: Problem, tried: Sequence[Candidate]) -> tuple[list[Array], tuple[Array, Array]]:
    """Every candidate's z for known cells, each predicted without its fold; centres and spreads then used."""
    shape = problem.effect.shape
    guesses = [np.full(shape, np.nan) for _ in tried]
    centre, spread = np.full(shape, np.nan), np.full(shape, np.nan)
    for held in folds_of(problem, INNER_FOLDS, problem.seed):
        rest = problem.without(held)
        design = design_of(rest)
        centre[held] = np.broadcast_to(design.level.centre, shape)[held]
        spread[held] = np.broadcast_to(design.level.spread, shape)[held]
        for guess, one in zip(guesses, tried, strict=True):
            guess[held] = one.fit(rest, design).z[held]
    return guesses, (centre, spread)


def _best(
    name: str, tried: Sequence[Candidate], held_out: Sequence[Array], truth: Array
) -> tuple[Candidate, int, float]:
    scored = [(one, at, criterion(truth, held_out[at])) for at, one in enumerate(tried) if one.family == name]
    return max(scored, key=lambda found: found[2])


def _members(names: Sequence[str]) -> list[str]:
    """What is stacked: those that learn from features, or what there is beside the baselines."""
    learners = [name for name in names if name in LEARNERS]
    return learners if len(learners) > 1 else [name for name in names if name not in BASELINES]


def _stack_weights(
    members: Sequence[str], guesses: Mapping[str, Array], scores: Mapping[str, float]
) -> dict[str, float]:
    """Weights that bring every member to the same spread and then count it by its squared score."""
    merit = np.array([max(scores[name], 0.0) ** 2 for name in members])
    merit = merit / merit.sum() if merit.sum() > 0 else np.full(len(members), 1 / len(members))
    spread = np.array([np.nanstd(guesses[name]) for name in members])
    weights = merit / np.where(spread > 1e-9, spread, np.inf)
    return dict(zip(members, weights.tolist(), strict=True))


def _mixture(weights: Mapping[str, float], fits: Mapping[str, ModelFit]) -> ModelFit:
    """The weighted sum of fits; its parts are the weighted sums of theirs."""
    used = {name: weight for name, weight in weights.items() if weight > 0}
    some = next(iter(fits.values())).z
    z = np.sum([weight * fits[name].z for name, weight in used.items()], axis=0) if used else 0 * some

    def parts(source: int, target: int) -> Parts:
        total: dict[str, float] = {}
        for name, weight in used.items():
            for part, value in fits[name].parts(source, target).items():
                total[part] = total.get(part, 0.0) + weight * value
        return total

    return ModelFit(z, parts)


def _times(fit: ModelFit, slope: float) -> ModelFit:
    return ModelFit(
        slope * fit.z,
        lambda source, target: {name: slope * value for name, value in fit.parts(source, target).items()},
    )


def _told(weights: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {weight:.2f}" for name, weight in weights.items() if weight > 0.005)


def _slope(guess: Array, truth: Array) -> float:
    """How much of a predicted z to believe: the least-squares slope on held-out cells, at least 0.05."""
    seen = np.isfinite(guess) & np.isfinite(truth)
    power = float((guess[seen] ** 2).sum())
    return max(float((guess[seen] * truth[seen]).sum()) / power, 0.05) if power > 0 else 1.0


def _errors(problem: Problem, guess: Array, spreads: tuple[Array, Array]) -> Array:
    """(S, T) held-out errors of known cells, in units of the spread that was used for each."""
    centre, spread = spreads
    return (problem.effect - centre) / spread - guess


def _margins(errors: Array) -> tuple[float, float]:
    """5th and 95th percentile of held-out errors."""
    residual = errors[np.isfinite(errors)]
    if len(residual) < 2:
        return -np.inf, np.inf
    tail = (1 - COVERAGE) / 2
    # One cell more than was seen, at either end: the new one.
    share = min((1 - tail) * (1 + 1 / len(residual)), 1.0)
    return float(np.quantile(residual, 1 - share)), float(np.quantile(residual, share))


COMMON = "what sources do on targets in general"
INTERPLAY = "features together"
PROBES = "measured cells of this target"
WORDS: Mapping[str, str] = {
    COMMON: "what sources do on targets in general",
    INTERPLAY: "features together",
    PROBES: "what was measured on this target",
    "popularity": "helps other targets",
    "level of the target": "level of this target",
    "traits": "traits shared with this target",
    "alike targets": "helps targets that are alike",
    "alike sources": "sources that are alike help other targets",
    "alike sources on alike targets": "sources that are alike help targets that are alike",
}
SHRINKAGE = 0.3  # share of the sources' covariance that is taken as their variances alone


@dataclass(frozen=True)
class Prediction:
    """What every source is expected to do to one target, before it is trained for it or measured there.

    gain, low, high: (S,) in the unit of ``Effects.effect``, 90 % intervals; a known cell is its own value.
    contributions: for each source, points by feature name; with ``in general`` they add up to the gain.
    measured: (S,) whether the cell was given.
    """

    target: str
    sources: tuple[str, ...]
    gain: Array
    low: Array
    high: Array
    measured: NDArray[np.bool_]
    contributions: tuple[Mapping[str, float], ...]
    words: Mapping[str, str]
    model: str
    setting: str
    unit: str

    @property
    def ranked(self) -> tuple[str, ...]:
        """Sources from the largest predicted gain to the smallest."""
        return tuple(self.sources[at] for at in np.argsort(-self.gain, kind="stable"))


@dataclass(frozen=True)
class FittedRecommender:
    """A recommender chosen on the known cells of a matrix by held-out targets.

    sources: of the matrix. targets: of the matrix, then the new ones. selected: every family with the one
    that inner folds picked.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    effects: EffectTable
    knowledge: Knowledge
    problem: Problem
    selected: Selected

    def predict(self, target: str, known: Mapping[str, float] | None = None) -> Prediction:
        """Every source on one target, given some measured effects there (source -> effect).

        A target of the matrix is predicted by the model that was fitted with its cells; new targets are
        those named in ``new_targets`` or in the features. Raises MatrixError where a name is not known.
        """
        at = _place(target, self.targets, "target")
        one = self.selected.families[self.selected.chosen]
        gain, low, high = (table[:, at].copy() for table in (one.effect, one.low, one.high))
        spread, centre = one.spread[at], gain - one.spread[at] * one.fit.z[:, at]
        contributions = [
            _points(one.fit.parts(row, at), one.fit.z[row, at], spread, centre[row])
            for row in range(len(self.sources))
        ]
        measured = np.zeros(len(self.sources), dtype=bool)
        if known:
            rows = np.array([_place(name, self.sources, "source") for name in known])
            values = np.array(list(known.values()), dtype=float)
            shift, share = self._update(one.held_out, gain, rows, values, spread)
            low, high = gain + shift + share * (low - gain), gain + shift + share * (high - gain)
            gain = gain + shift
            measured[rows] = True
            for row, moved in enumerate(shift):
                contributions[row] = {**contributions[row], PROBES: float(moved)}
        names = (*self.problem.feature_names, *one.context_words)
        words = {**dict(zip(names, names, strict=True)), **WORDS, **one.context_words}
        words |= dict(zip(self.problem.feature_names, self.problem.feature_words, strict=True))
        return Prediction(
            target=target,
            sources=self.sources,
            gain=gain,
            low=low,
            high=high,
            measured=measured,
            contributions=tuple(contributions),
            words=words,
            model=self.selected.chosen,
            setting=one.setting,
            unit=self.effects.unit,
        )

    def _update(
        self, held_out: Array, gain: Array, rows: NDArray[np.int64], values: Array, spread: float
    ) -> tuple[Array, Array]:
        """How far measured cells move every prediction, and what share of its interval stays (S,).

        Errors of sources on one held-out target go together (a target that gains more than expected
        gains from all); given some of them, the others follow as in a normal distribution.
        """
        covariance = _covariance(held_out) * spread**2
        inner = covariance[np.ix_(rows, rows)] + 1e-9 * np.eye(len(rows)) * covariance.trace() / len(
            covariance
        )
        pull = np.linalg.solve(inner, covariance[rows]).T
        shift = pull @ (values - gain[rows])
        left = np.diag(covariance) - (pull * covariance[:, rows]).sum(axis=1)
        share = np.sqrt(np.clip(left / np.diag(covariance), 0.0, 1.0))
        shift[rows], share[rows] = values - gain[rows], 0.0
        return shift, share


def fit_recommender(
    matrix: TransferMatrix,
    *,
    features: PairFeatures | None = None,
    texts: Texts | None = None,
    embeddings: Embeddings | None = None,
    attributes: Attributes | None = None,
    new_targets: Sequence[str] | None = None,
    values: Values = "score",
    seed: int = 0,
) -> FittedRecommender:
    """Choose and fit a recommender for new targets on the known cells of a matrix.

    features: of the matrix's sources and of its targets and the new ones; texts, embeddings, attributes
    as in ``evaluate``. new_targets: names to predict for (default: the targets of ``features`` that the
    matrix does not have). The model and its hyper-parameters are those that predict held-out targets best.
    """
    effects = effects_of(matrix, values)
    if new_targets is None:
        new_targets = [] if features is None else [t for t in features.targets if t not in matrix.targets]
    targets = (*effects.targets, *new_targets)
    knowledge = knowledge_of(effects.sources, targets, texts, embeddings, attributes, features)
    rows, columns, extra = len(effects.sources), len(targets), len(new_targets)
    problem = Problem(
        effect=np.hstack([effects.effect, np.full((rows, extra), np.nan)]),
        features=knowledge.features,
        feature_names=knowledge.names,
        feature_words=knowledge.words,
        targets_alike=knowledge.targets_alike,
        sources_alike=knowledge.sources_alike,
        holdout="target",
        blocks=np.broadcast_to(np.arange(columns)[None, :], (rows, columns)),
        own=np.array([[source == target for target in targets] for source in effects.sources]),
        base=np.concatenate([effects.base, np.full(extra, np.nan)]),
        seed=seed,
    )
    return FittedRecommender(effects.sources, targets, effects, knowledge, problem, select(problem))


def _place(name: str, names: Sequence[str], what: str) -> int:
    if name not in names:
        raise MatrixError(f"no {what} named {name!r}; there are {', '.join(names)}")
    return list(names).index(name)


def _points(parts: Mapping[str, float], z: float, spread: float, centre: float) -> dict[str, float]:
    """Parts of z in points, with what they leave unexplained, and the level that all sources share."""
    found = {name: float(value) * spread for name, value in parts.items()}
    rest = spread * z - sum(found.values())
    if abs(rest) > 1e-9 * max(spread, 1e-12):
        found[INTERPLAY] = rest
    return {COMMON: centre, **found}


def _covariance(residuals: Array) -> Array:
    """(S, S) covariance of sources' held-out errors over targets, pairwise where cells are missing.

    Drawn to its diagonal; the mean square is taken about zero, so that errors common to a target count.
    """
    known = np.isfinite(residuals)
    filled = np.where(known, residuals, 0.0)
    count = known.astype(float) @ known.T.astype(float)
    products = np.where(count > 0, filled @ filled.T / np.maximum(count, 1), 0.0)
    usual = float(np.mean(np.diag(products)[np.diag(count) > 0])) if (count > 0).any() else 1.0
    variance = np.where(np.diag(count) > 0, np.diag(products), usual) + 1e-12
    mixed = (1 - SHRINKAGE) * products
    np.fill_diagonal(mixed, variance)
    lowest, vectors = np.linalg.eigh(mixed)
    return np.asarray((vectors * np.maximum(lowest, 1e-9 * usual)) @ vectors.T)


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
