"""Which source for one target: the chosen model's prediction, updated by probes, and what speaks against.

``recommend_sources`` hides the target (``hold_out_target``), takes the prediction of the model that inner
folds picked, updates it by probes, sets aside sources that hold the target's items, and tells of every other
source what it is expected to give, why, and what else it does. The cold-start problem is the one record that
all steps read; ``s`` is the row of a source in its matrix. Gains are in points (or the target's own unit)
once they are multiplied by the problem's ``factor``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, nan
from typing import Any

import numpy as np
from scipy import stats

from traitmap.analysis.profiles.pairs import PairFeatures, Reason
from traitmap.analysis.recommendation.knowledge import Embeddings, Similarity
from traitmap.analysis.recommendation.models import Parts
from traitmap.analysis.recommendation.posterior import (
    NINETY,
    Posterior,
    chance_best,
    chance_better,
    condition_on,
    inflate_variance,
    next_probes,
    predictive_posterior,
    smallest_difference,
)
from traitmap.analysis.recommendation.prior import MatchedPriors
from traitmap.analysis.recommendation.problem import AS_GIVEN, Values, factor_of, unit_for, units_of
from traitmap.analysis.recommendation.reasons import reasons_of
from traitmap.analysis.recommendation.records import (
    Advice,
    Recommendation,
    SetAside,
    SideEffect,
    Suggestion,
    Verdict,
)
from traitmap.analysis.recommendation.selection import ColdStartProblem, hold_out_target, in_errors, with_base
from traitmap.analysis.traits.records import Traits
from traitmap.data.fingerprints import Fingerprints
from traitmap.errors import MatrixError
from traitmap.matrix.reading import colour_limit
from traitmap.matrix.record import Array, Cell, TransferMatrix
from traitmap.matrix.statistics import Interval, error_of_width, unknown, z_value
from traitmap.metrics import SHARE
from traitmap.wording import counted, listed

_DOUBT = 0.1  # probability of being better from which a rival cannot be told apart
SHOWN_SOURCES = 5
_ITEMS = 200  # of a probe, where nothing says how many


@dataclass(frozen=True)
class Probe:
    """A source measured on the target: its gain over the base, in the matrix's own unit, and its error.

    stderr: of the gain; NaN where unknown, then ``n`` items (0: unknown) stand for it.
    """

    source: str
    gain: float
    stderr: float = nan
    n: int = 0


def recommend_sources(
    matrix: TransferMatrix,
    target: str,
    *,
    features: PairFeatures | None = None,
    similarity: Similarity | None = None,
    embeddings: Embeddings | None = None,
    weights: Fingerprints | None = None,
    prior: Callable[[Sequence[str], Sequence[str]], MatchedPriors] | None = None,
    contaminated: Mapping[str, str] | None = None,
    touched: Mapping[str, str] | None = None,
    probes: Sequence[Probe] = (),
    care: Sequence[str] = (),
    traits: Traits | None = None,
    values: Values = "score",
    notes: Sequence[str] = (),
    seed: int = 0,
) -> Recommendation:
    """Rank the sources of a matrix (S x T) for one target.

    target: a column, which is hidden from the prediction (as the source of that name is); or any other
        name, which ``features`` alone describe. features: of all (source, target), this target included.
    similarity, embeddings, weights: more of what is known of the tasks, see ``make_problem``. prior: lays
        other people's matrices over sources and targets, the new one included (``prior.align``).
    contaminated: source -> how many of the target's items its training texts hold; these are set aside.
    touched: the same where it is too little to matter. probes: measured gains of some sources.
    care: targets, and traits of ``traits`` by name, whose change stands beside; without any it is the
        worst measured loss. values: see ``effects_of``. notes: sentences to hand on.
    Raises MatrixError where fewer than three other targets are known, or a name is unknown.
    """
    places = _trait_places(traits)
    _check_names(matrix, target, care, places, probes)
    new, (matrix, without_base) = target not in matrix.targets, with_base(matrix, values)
    problem = hold_out_target(
        matrix,
        target,
        features=features,
        similarity=similarity,
        embeddings=embeddings,
        weights=weights,
        prior=prior,
        values=values,
        seed=seed,
    )
    aside = _set_aside(problem, contaminated or {}, _own_cells(problem))
    names_aside = {source.source for source in aside}
    rows = [s for s, source in enumerate(matrix.sources) if source not in names_aside]
    if not rows:
        raise MatrixError(
            f"no source is left for {target!r}: every one holds its items or is its own training set"
        )
    used = [probe for probe in probes if probe.source not in names_aside]
    probed = [matrix.sources.index(probe.source) for probe in used]
    noise = np.array([_probe_noise(problem, probe) for probe in used])
    posterior = _posterior(problem, used, probed, noise)
    order = sorted(rows, key=lambda s: (-posterior.mean[s], s))
    popular = problem.families["popularity"].effect[:, problem.at]
    by_popularity = sorted(rows, key=lambda s: (-popular[s], s))
    ordered = posterior.only(order)
    verdict, words, smallest = _verdict(problem, ordered, [matrix.sources[s] for s in order])
    names = [matrix.sources[s] for s in order]
    lost = bool(problem.model.declined[problem.at]) and not probed
    if lost:
        verdict, words = "inconclusive", f"Cannot tell: {target} is unlike any target measured here."
    beside = {name: _side_effects(problem, name, care, traits, places) for name in names}
    advice = _ranked(problem, posterior, order, probed, seed)
    ranked = tuple(
        replace(one, side_effects=beside[one.source], touched=(touched or {}).get(one.source, ""))
        for one in advice
    )
    return Recommendation(
        target=target,
        new=new,
        unit=_unit(problem, values),
        ranked=ranked,
        set_aside=aside,
        verdict=verdict,
        headline=_headline(problem, names, words, lost, probed),
        words=words,
        smallest=smallest,
        popular=tuple(matrix.sources[s] for s in by_popularity),
        random=float(posterior.mean[rows].mean()) * problem.factor,
        measured=_measured(problem, order, by_popularity),
        next_probes=_suggestions(problem, ordered, order, probed, noise),
        notes=(*notes, *_resemblance(problem), *without_base, *_notes(problem, probes, names_aside)),
        conditions={**_conditions(problem, probed), "seed": seed},
    )


def _ranked(
    problem: ColdStartProblem,
    posterior: Posterior,
    order: Sequence[int],
    probed: Sequence[int],
    seed: int,
) -> list[Advice]:
    """What is predicted of every source of the order, and why, beside what was measured of it."""
    popular, own = problem.families["popularity"].effect[:, problem.at], _own_cells(problem)
    parts = [problem.model.fit.parts(s, problem.at) for s in range(len(problem.matrix.sources))]
    ranked = []
    for s, best in zip(order, chance_best(posterior.only(order), seed).tolist(), strict=True):
        gain, harm = _gain_and_harm(problem, posterior, s, probed)
        ranked.append(
            Advice(
                source=problem.matrix.sources[s],
                gain=gain,
                popularity=problem.factor * float(popular[s]),
                harm=harm,
                best=best,
                reasons=_reasons(problem, parts, posterior, s, probed),
                side_effects=(),
                measured=own[problem.matrix.sources[s]],
                probed=s in probed,
            )
        )
    return ranked


def _headline(
    problem: ColdStartProblem, names: Sequence[str], words: str, lost: bool, probed: Sequence[int]
) -> str:
    """The first sentence: whether anything was found that beats popularity, or chance; else the verdict.

    names: sources in their order, which is popularity's where that is what was chosen. Chance is beaten where
    the mean score of held-out targets lies 1.64 standard errors above 0, what a random order scores.
    """
    first = f"{', '.join(names[:SHOWN_SOURCES])}{' and so on' if len(names) > SHOWN_SOURCES else ''}"
    if lost:
        return f"{words} The order is a guess, and there is no interval: {first}."
    if problem.chosen != "popularity" or probed or len(names) < 2:
        return words
    scores = problem.model.scores
    count = counted(int(np.isfinite(scores).sum()), "other target")
    if not in_errors(scores) > z_value(0.9):
        return (
            f"Nothing beats chance on the {count}, popularity does not either: any source may be the best; "
            f"popularity's order is {first}."
        )
    return f"Nothing beats popularity on the {count}, so this is popularity's order: {first}."


def _conditions(problem: ColdStartProblem, probed: Sequence[int]) -> dict[str, Any]:
    """What was asked, and of how much. ``largest``: where colours are deepest, as in the matrix' table."""
    alike = [t for t, unit in enumerate(units_of(problem.matrix)) if unit == problem.unit]
    return {
        "model": problem.chosen,
        "setting": problem.model.setting,
        "chosen_by": "inner folds over other targets",
        "values": problem.values,
        "based": problem.based,
        "largest": colour_limit(problem.matrix, alike, problem.factor),
        "other_targets": int((np.isfinite(problem.problem.effect).sum(axis=0) > 1).sum()),
        "features": len(problem.problem.feature_names),
        "probes": [problem.matrix.sources[s] for s in probed],
        "interval": "90 %: cross-conformal over held-out targets; after probes of the updated normal",
    }


def _set_aside(
    problem: ColdStartProblem, contaminated: Mapping[str, str], own: Mapping[str, Interval]
) -> tuple[SetAside, ...]:
    """Sources that hold the target's items, and its own training set, with what was measured of them."""
    aside = []
    for s, source in enumerate(problem.matrix.sources):
        if source in contaminated:
            aside.append(SetAside(source, "contaminated", contaminated[source], own[source]))
        elif problem.problem.own[s, problem.at]:
            aside.append(SetAside(source, "own", "the target's own training set", own[source]))
    return tuple(aside)


def _check_names(
    matrix: TransferMatrix,
    target: str,
    care: Sequence[str],
    places: Mapping[str, int],
    probes: Sequence[Probe],
) -> None:
    """MatrixError where a name is unknown, or a probe is not in the matrix's own unit."""
    for name in care:
        if name not in matrix.targets and name not in places:
            raise MatrixError(
                f"{name!r} is neither a target nor a trait of the matrix; its targets are "
                f"{', '.join(matrix.targets)}"
                + (f"; its traits {', '.join(places)}" if places else "; it supports no traits")
            )
    share = unit_for(matrix, target) == SHARE
    for probe in probes:
        if probe.source not in matrix.sources:
            raise MatrixError(
                f"the probe of {probe.source!r} fits no source of the matrix; its sources are "
                f"{', '.join(matrix.sources)}"
            )
        if not isfinite(probe.gain) or (share and abs(probe.gain) > 1):
            raise MatrixError(
                f"the probe of {probe.source!r} has the gain {probe.gain}; give it in the matrix's own unit"
                + (", which is a share: 0.05 for five points" if share else "")
            )


def _trait_places(traits: Traits | None) -> dict[str, int]:
    """Component of every trait that is used, by its name."""
    if traits is None:
        return {}
    return {traits.names[c]: c for c in range(traits.n_components.get("used") or 0)}


def _posterior(
    problem: ColdStartProblem, used: Sequence[Probe], probed: Sequence[int], noise: Array
) -> Posterior:
    """The chosen model's prediction for every source, updated by probes of the rows ``probed``."""
    model, at = problem.model, problem.at
    widths = model.high[:, at] - model.low[:, at]
    widths = widths[np.isfinite(widths)]
    if not len(widths):
        raise MatrixError(
            "no target tells the sources apart: on each of them all known sources have one score, so there "
            "is nothing to learn from; evaluate them on targets that they move"
        )
    deviation = float(widths.mean()) / (2 * NINETY)
    before = predictive_posterior(model.effect[:, at], deviation, model.held_out)
    sign = 1.0 if problem.matrix.higher_is_better.get(problem.target, True) else -1.0
    gains = np.array([probe.gain * sign for probe in used])
    return condition_on(inflate_variance(before, probed, gains, noise), probed, gains, noise)


def _unit(problem: ColdStartProblem, values: Values) -> str:
    """The unit of predicted gains in words."""
    if values == "relchange":
        return "% of the base's score"
    unit = "points" if problem.unit in (SHARE, AS_GIVEN) else problem.unit
    return unit if problem.based else f"{unit} of score, not of gain"


def _own_cells(problem: ColdStartProblem) -> dict[str, Interval]:
    """What was measured on the target, in the unit of the prediction; unknown where it was not."""
    matrix = problem.matrix
    cells = {source: _cell_gain(matrix, source, problem.target) for source in matrix.sources}
    for source, truth in zip(matrix.sources, problem.truth.tolist(), strict=True):
        if isfinite(truth) and not np.isclose(cells[source].value, problem.factor * truth):
            cells[source] = Interval(problem.factor * truth)  # a score, or a relative change
    return cells


def _cell_gain(matrix: TransferMatrix, source: str, target: str) -> Interval:
    """The measured gain of one cell in points (or the target's own unit), higher is better."""
    if target not in matrix.targets:
        return unknown("the target is not in the matrix")
    s, t = matrix.sources.index(source), matrix.targets.index(target)
    factor = factor_of(matrix, target)
    sign = 1.0 if matrix.higher_is_better.get(target, True) else -1.0
    gain = float(matrix.gains[s, t])
    if not isfinite(gain):
        return unknown("no base is known" if isfinite(float(matrix.values[s, t])) else "not measured")
    cell = _cell(matrix, source, target)
    ends = (cell.gain_low, cell.gain_high) if cell else (nan, nan)
    if all(map(isfinite, ends)):
        low, high = sorted((sign * factor * ends[0], sign * factor * ends[1]))
        return Interval(sign * factor * gain, low, high)
    return Interval(sign * factor * gain)


def _cell(matrix: TransferMatrix, source: str, target: str) -> Cell | None:
    return next((c for c in matrix.cells if (c.source, c.target, c.seed) == (source, target, None)), None)


def _probe_noise(problem: ColdStartProblem, probe: Probe) -> float:
    """Variance of a probe: from its error, else from its items, else what is usual."""
    if isfinite(probe.stderr):
        return probe.stderr**2
    return _item_noise(probe.n, problem.factor) if probe.n else _usual_noise(problem)


def _usual_noise(problem: ColdStartProblem) -> float:
    """Variance of a measured gain: the median of cells in this unit, else of a few right or wrong answers.

    In a unit of which neither is known a measurement counts as exact.
    """
    matrix = problem.matrix
    units = dict(zip(matrix.targets, units_of(matrix), strict=True))
    widths = [
        cell.gain_high - cell.gain_low
        for cell in matrix.cells
        if cell.seed is None and cell.status != "predicted" and units.get(cell.target) == problem.unit
    ]
    known = [width for width in widths if isfinite(width)]
    if known:
        return float(error_of_width(np.median(known)) ** 2)
    return _item_noise(_ITEMS, problem.factor) if problem.unit in (SHARE, AS_GIVEN) else 0.0


def _item_noise(items: int, factor: float) -> float:
    """Variance of a gain on so many right or wrong answers: at most one half each, paired less."""
    return 0.5 / items * (100 / factor) ** 2


def _gain_and_harm(
    problem: ColdStartProblem, posterior: Posterior, s: int, probed: Sequence[int]
) -> tuple[Interval, float]:
    """Predicted gain with its 90 % interval, and the probability of harm: of a gain below zero.

    Harm is that of half a normal on either side of the mean, as wide as the interval there; NaN where no
    base is known.
    """
    mean, deviation = float(posterior.mean[s]), float(posterior.deviation[s])
    low, high = float(problem.model.low[s, problem.at]), float(problem.model.high[s, problem.at])
    if probed:
        low, high = mean - NINETY * deviation, mean + NINETY * deviation
    factor = problem.factor
    if problem.model.declined[problem.at] and not probed:
        return Interval(factor * mean, reason="unlike any target measured here: no interval"), nan
    gain = Interval(factor * mean, factor * low, factor * high)
    if not problem.based:
        return gain, nan
    side = (mean - low if mean > 0 else high - mean) / NINETY
    return gain, float(stats.norm.cdf(-mean / side)) if side > 0 else float(mean < 0)


def _reasons(
    problem: ColdStartProblem,
    parts: Sequence[Parts],
    posterior: Posterior,
    s: int,
    probed: Sequence[int],
) -> tuple[Reason, ...]:
    """What the prediction is made of, and what probes changed of it."""
    table, model, at = problem.problem, problem.model, problem.at
    words = dict(zip(table.feature_names, table.feature_words, strict=True)) | dict(model.context_words)
    features = {name: table.features[:, at, f] for f, name in enumerate(table.feature_names)}
    reasons = reasons_of(parts, s, words, features, float(model.spread[at]) * problem.factor)
    if not probed:
        return reasons
    moved = problem.factor * float(posterior.mean[s] - model.effect[s, at])
    kind = "measured in a probe" if s in probed else "probes of other sources"
    return (Reason("probe", f"{kind} {moved:+.1f}", moved), *reasons)


def _side_effects(
    problem: ColdStartProblem,
    source: str,
    care: Sequence[str],
    traits: Traits | None,
    places: Mapping[str, int],
) -> tuple[SideEffect, ...]:
    """What the user cares about; else the worst loss measured on any other target."""
    matrix = problem.matrix
    if care:
        effects = []
        for name in care:
            if traits is None or name not in places:
                effects.append(SideEffect(name, "target", _cell_gain(matrix, source, name)))
                continue
            effect = unknown("the source is not in the traits")
            if source in traits.sources:
                at = traits.sources.index(source), places[name]
                low, high = float(traits.effects_low[at]), float(traits.effects_high[at])
                effect = Interval(float(traits.effects[at]), low, high)
            effects.append(SideEffect(name, "trait", effect))
        return tuple(effects)
    others = [
        SideEffect(name, "target", _cell_gain(matrix, source, name))
        for name in matrix.targets
        if name not in (problem.target, source)  # its own target says nothing of others
    ]
    lost = [other for other in others if other.effect.known and other.effect.value < 0]
    return (min(lost, key=lambda other: other.effect.value),) if lost else ()


def _verdict(
    problem: ColdStartProblem, posterior: Posterior, names: Sequence[str]
) -> tuple[Verdict, str, float]:
    """The verdict, its sentence, and the smallest difference that could be seen; sources in their order."""
    smallest = problem.factor * smallest_difference(posterior)
    if len(names) == 1:
        return "clear", f"{names[0]} is the only source that can be ranked.", smallest
    chance = chance_better(posterior, 0)
    rivals = [at for at in range(1, len(names)) if chance[at] > _DOUBT]
    if not rivals:
        sure = 1 - float(chance[1:].max())
        return "clear", f"{names[0]} is better than any other with probability {100 * sure:.0f} %.", smallest
    apart = f"Differences below {smallest:.1f} {_unit(problem, 'score')} cannot be told."
    if len(rivals) == 1:
        return (
            "tie",
            f"{names[0]} and {names[rivals[0]]} cannot be told apart "
            f"(the first is better with probability {100 * (1 - chance[rivals[0]]):.0f} %). {apart}",
            smallest,
        )
    return (
        "inconclusive",
        f"Cannot tell: the best three are within noise ({names[0]} is better than {names[2]} with "
        f"probability {100 * (1 - chance[2]):.0f} %). {apart}",
        smallest,
    )


def _measured(
    problem: ColdStartProblem, order: Sequence[int], by_popularity: Sequence[int]
) -> dict[str, float]:
    """What the picks turned out to give, in points; empty where nothing was measured on the target."""
    truth = problem.truth[list(order)] * problem.factor
    known = np.isfinite(truth)
    if not known.any():
        return {}
    return {
        "first": float(truth[0]),
        "first_of_popularity": float(problem.truth[by_popularity[0]] * problem.factor),
        "random": float(truth[known].mean()),
        "best": float(truth[known].max()),
    }


def _suggestions(
    problem: ColdStartProblem,
    posterior: Posterior,
    order: Sequence[int],
    probed: Sequence[int],
    noise: Array,
) -> tuple[Suggestion, ...]:
    """Sources to measure next; none where no measurement is likely to change anything."""
    usual = float(np.median(noise)) if len(noise) else _usual_noise(problem)
    free = [at for at, s in enumerate(order) if s not in probed]
    suggestions = []
    for at, change, worth in next_probes(posterior, free, usual):
        if change >= 0.01:
            points = problem.factor * worth
            words = (
                f"puts another source first with probability {100 * change:.0f} %; worth "
                f"{points:+.1f} on average"
            )
            suggestions.append(Suggestion(problem.matrix.sources[order[at]], change, points, words))
    return tuple(suggestions)


def _notes(problem: ColdStartProblem, probes: Sequence[Probe], aside: set[str]) -> list[str]:
    """What else to know of this prediction, in sentences."""
    notes = [] if problem.problem.prior is None else list(problem.problem.prior.words)
    if problem.problem.prior is not None:
        used = (
            "are used" if problem.chosen == "prior" else "do no better on held-out targets, and are not used"
        )
        notes.append(f"Priors {used}.")
    elif not problem.problem.feature_names:
        notes.append(
            "Without texts of sources and target every target gets the order that other targets suggest; "
            "give texts (--texts FILE.jsonl) so that the prediction looks at this target."
        )
    if not problem.based:
        notes.append(
            "No base is known for every target, so scores are predicted, not gains, and harm is unknown."
        )
    if problem.stretched:
        notes.append(
            "Measured in other units, and stretched to the spread of gains here: "
            f"{listed(problem.stretched)}."
        )
    if problem.flat:
        notes.append(
            f"All sources do the same on {listed(problem.flat)}: that says nothing of which one is better."
        )
    ignored = [probe.source for probe in probes if probe.source in aside]
    if ignored:
        notes.append(f"Probes of {', '.join(ignored)} were left out: these sources are not ranked.")
    return notes


def _resemblance(problem: ColdStartProblem) -> list[str]:
    """Which targets are most like this one."""
    targets, at = problem.targets, problem.at
    nearest = []
    for likeness in problem.problem.targets_alike:
        alike = np.where(np.eye(len(targets), dtype=bool), np.nan, likeness.values)
        known = np.asarray(np.isfinite(alike).any(axis=1))
        if not known[at] or known.sum() < 3:
            continue
        first = np.argsort(-np.nan_to_num(alike[at], nan=-np.inf), kind="stable")[:2]
        nearest.append(f"in {likeness.words} {' and '.join(targets[t] for t in first)}")
    if not nearest:
        return []
    return [f"Most like it are, {'; '.join(nearest)}."]


def measured_probes(matrix: TransferMatrix, target: str) -> list[Probe]:
    """The measured gains on a target as probes, in the matrix's own unit.

    Standard errors are those of the cells' 95 % intervals. MatrixError where nothing was measured.
    """
    probes = []
    for source in matrix.sources:
        cell = _cell(matrix, source, target)
        if cell is None or cell.status not in ("measured", "given") or not isfinite(cell.gain):
            continue
        width = cell.gain_high - cell.gain_low
        probes.append(Probe(source, cell.gain, error_of_width(width) if isfinite(width) else nan, cell.n))
    if not probes:
        lacks = "no source has a gain"
        if target in matrix.targets and not isfinite(matrix.baseline[matrix.targets.index(target)]):
            lacks = "no base is known, and so no gain,"
        raise MatrixError(f"{lacks} on {target!r}; give probes as a CSV file")
    return probes


def with_top(recommendation: Recommendation, top: int) -> Recommendation:
    """The recommendation with its first ``top`` sources only; everything else stays as it is."""
    return replace(recommendation, ranked=recommendation.ranked[:top])
