"""Choose among the models on known cells alone: inner folds give scores, settings, weights and intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from traitmap.analysis.recommendation.design import Design, design_of
from traitmap.analysis.recommendation.models import BASELINES, FAMILIES, LEARNERS, Candidate, Fit, Parts
from traitmap.analysis.recommendation.problem import Problem, folds_of, level_of
from traitmap.matrix_record import Array

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
    fit: Fit
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
    design: Design,
    fit: Fit,
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


def _mixture(weights: Mapping[str, float], fits: Mapping[str, Fit]) -> Fit:
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

    return Fit(z, parts)


def _times(fit: Fit, slope: float) -> Fit:
    return Fit(
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
