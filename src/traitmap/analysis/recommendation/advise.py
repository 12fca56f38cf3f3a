"""Which source for one target: the chosen model's prediction, updated by probes, and what speaks against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, nan
from typing import Any

import numpy as np
from scipy import stats

from traitmap.analysis.features import PairFeatures, Reason
from traitmap.analysis.recommendation.advice import (
    Advice,
    Recommendation,
    SetAside,
    SideEffect,
    Suggestion,
    Verdict,
    reasons_of,
)
from traitmap.analysis.recommendation.models import Parts
from traitmap.analysis.recommendation.posterior import (
    NINETY,
    Belief,
    believe,
    best_chances,
    better,
    next_probes,
    smallest_difference,
    updated,
    widened,
)
from traitmap.analysis.recommendation.problem import (
    AS_GIVEN,
    SHARE,
    Problem,
    Values,
    factor_of,
    unit_for,
    units_of,
)
from traitmap.analysis.recommendation.selection import Case, pose, with_base
from traitmap.analysis.traits.records import Traits
from traitmap.errors import MatrixError
from traitmap.matrix.record import Array, Cell, TransferMatrix
from traitmap.matrix.statistics import Interval, unknown

_DOUBT = 0.1  # probability of being better from which a rival cannot be told apart
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
        name, told of by ``features`` alone. features: of all (source, target), this target included.
    contaminated: source -> how many of the target's items its training texts hold; these are set aside.
    touched: the same where it is too little to matter. probes: measured gains of some sources.
    care: targets, and traits of ``traits`` by name, whose change is told beside; without any the worst
        measured loss is told. values: see ``effects_of``. notes: sentences to hand on.
    Raises MatrixError where fewer than three other targets are known, or a name is unknown.
    """
    _check_names(matrix, target, care, traits, probes)
    new, (matrix, dropped) = target not in matrix.targets, with_base(matrix, values)
    case = pose(matrix, target, features, values, seed)
    own = _own_cells(matrix, case, target)
    aside = _set_aside(matrix, case, contaminated or {}, own)
    measured = _measurements(matrix, case, probes, aside)
    told = _Told(
        matrix=matrix,
        target=target,
        case=case,
        parts=[case.chosen.fit.parts(s, case.at) for s in range(len(matrix.sources))],
        belief=_belief(case, measured),
        aside=aside,
        ranked=_ranked(matrix, target, aside),
        measured=measured,
        own=own,
        touched=touched or {},
        care=tuple(care),
        traits=traits,
    )
    alike = _resemblance(case.problem, case.targets, case.at)
    said = (*notes, *alike, *dropped, *_notes(case, probes, {one.source for one in aside}))
    return _recommendation(told, new=new, values=values, notes=said, seed=seed)


@dataclass(frozen=True)
class _Measurements:
    """Probes of sources that are ranked: rows of the matrix, gains (higher is better), their variances."""

    at: tuple[int, ...]
    gains: Array
    noise: Array


@dataclass(frozen=True)
class _Told:
    """All that one advice is made of. ranked: rows of the matrix that are not set aside."""

    matrix: TransferMatrix
    target: str
    case: Case
    parts: Sequence[Parts]
    belief: Belief
    aside: tuple[SetAside, ...]
    ranked: Sequence[int]
    measured: _Measurements
    own: Mapping[str, Interval]
    touched: Mapping[str, str]
    care: tuple[str, ...]
    traits: Traits | None

    @property
    def order(self) -> list[int]:
        """Ranked rows, the best expected first."""
        return sorted(self.ranked, key=lambda s: (-self.belief.mean[s], s))


def _measurements(
    matrix: TransferMatrix, case: Case, probes: Sequence[Probe], aside: Sequence[SetAside]
) -> _Measurements:
    """Probes as the belief takes them, those of sources that are set aside left out."""
    names = {one.source for one in aside}
    used = [probe for probe in probes if probe.source not in names]
    return _Measurements(
        at=tuple(matrix.sources.index(one.source) for one in used),
        gains=np.array([one.gain * case.sign for one in used]),
        noise=_noise(matrix, case, used),
    )


def _belief(case: Case, measured: _Measurements) -> Belief:
    """The chosen model's prediction for every source, updated by what was measured."""
    chosen = case.chosen
    deviation = float(np.nanmean(chosen.high[:, case.at] - chosen.low[:, case.at])) / (2 * NINETY)
    before = believe(chosen.effect[:, case.at], deviation, chosen.held_out)
    at, gains, noise = list(measured.at), measured.gains, measured.noise
    return updated(widened(before, at, gains, noise), at, gains, noise)


def _ranked(matrix: TransferMatrix, target: str, aside: Sequence[SetAside]) -> list[int]:
    """Rows that are left; MatrixError where none is."""
    names = {one.source for one in aside}
    ranked = [s for s, source in enumerate(matrix.sources) if source not in names]
    if not ranked:
        raise MatrixError(
            f"no source is left for {target!r}: every one holds its items or is its own training set"
        )
    return ranked


def _recommendation(
    told: _Told, *, new: bool, values: Values, notes: tuple[str, ...], seed: int
) -> Recommendation:
    """The ranking with its verdict, beside popularity and chance."""
    case, order = told.case, told.order
    popular = case.selected.families["popularity"].effect[:, case.at]
    by_popularity = sorted(told.ranked, key=lambda s: (-popular[s], s))
    verdict, words, smallest = _verdict(told, order)
    chances = best_chances(told.belief.only(order), seed).tolist()
    return Recommendation(
        target=told.target,
        new=new,
        unit=_unit(case, values),
        ranked=tuple(_advice(told, s, best) for s, best in zip(order, chances, strict=True)),
        set_aside=told.aside,
        verdict=verdict,
        words=words,
        smallest=smallest,
        popular=tuple(told.matrix.sources[s] for s in by_popularity),
        random=float(told.belief.mean[told.ranked].mean()) * case.factor,
        measured=_measured(case, order, by_popularity),
        next_probes=_suggestions(told, order),
        notes=notes,
        conditions={**_conditions(told, values), "seed": seed},
    )


def _conditions(told: _Told, values: Values) -> dict[str, Any]:
    case = told.case
    return {
        "model": case.selected.chosen,
        "setting": case.chosen.setting,
        "chosen_by": "inner folds over other targets",
        "values": values,
        "other_targets": int((np.isfinite(case.problem.effect).sum(axis=0) > 1).sum()),
        "features": len(case.problem.feature_names),
        "probes": [told.matrix.sources[s] for s in told.measured.at],
        "interval": "90 %: cross-conformal over held-out targets; after probes of the updated normal",
    }


def _check_names(
    matrix: TransferMatrix,
    target: str,
    care: Sequence[str],
    traits: Traits | None,
    probes: Sequence[Probe],
) -> None:
    named = _trait_places(traits)
    for name in care:
        if name not in matrix.targets and name not in named:
            raise MatrixError(
                f"{name!r} is neither a target nor a trait of the matrix; its targets are "
                f"{', '.join(matrix.targets)}"
                + (f"; its traits {', '.join(named)}" if named else "; it supports no traits")
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
    if traits is None:
        return {}
    return {traits.names[c]: c for c in range(traits.n_components.get("used") or 0)}


def _unit(case: Case, values: Values) -> str:
    if values == "relchange":
        return "% of the base's score"
    unit = "points" if case.unit in (SHARE, AS_GIVEN) else case.unit
    return unit if case.based else f"{unit} of score, not of gain"


def _own_cells(matrix: TransferMatrix, case: Case, target: str) -> dict[str, Interval]:
    """What was measured on the target, in the unit of the prediction; unknown where it was not."""
    found = {source: _cell_gain(matrix, source, target) for source in matrix.sources}
    for source, truth in zip(matrix.sources, case.truth.tolist(), strict=True):
        if isfinite(truth) and not np.isclose(found[source].value, case.factor * truth):
            found[source] = Interval(case.factor * truth)  # a score, or a relative change
    return found


def _cell_gain(matrix: TransferMatrix, source: str, target: str) -> Interval:
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


def _set_aside(
    matrix: TransferMatrix, case: Case, contaminated: Mapping[str, str], own: Mapping[str, Interval]
) -> tuple[SetAside, ...]:
    found = []
    for s, source in enumerate(matrix.sources):
        if source in contaminated:
            found.append(SetAside(source, "contaminated", contaminated[source], own[source]))
        elif case.problem.own[s, case.at]:
            found.append(SetAside(source, "own", "the target's own training set", own[source]))
    return tuple(found)


def _noise(matrix: TransferMatrix, case: Case, probes: Sequence[Probe]) -> Array:
    """Variance of every probe: from its error, else from its items, else what is usual."""
    found = []
    for probe in probes:
        if isfinite(probe.stderr):
            found.append(probe.stderr**2)
        else:
            found.append(_item_noise(probe.n, case.factor) if probe.n else _usual_noise(matrix, case))
    return np.array(found)


def _usual_noise(matrix: TransferMatrix, case: Case) -> float:
    """Variance of a measured gain: the median of cells in this unit, else of a few right or wrong answers.

    In a unit of which neither is known a measurement is believed whole.
    """
    units = dict(zip(matrix.targets, units_of(matrix), strict=True))
    widths = [
        cell.gain_high - cell.gain_low
        for cell in matrix.cells
        if cell.seed is None and cell.status != "predicted" and units.get(cell.target) == case.unit
    ]
    known = [width for width in widths if isfinite(width)]
    if known:
        return float((np.median(known) / 3.92) ** 2)
    return _item_noise(_ITEMS, case.factor) if case.unit in (SHARE, AS_GIVEN) else 0.0


def _item_noise(items: int, factor: float) -> float:
    """Variance of a gain on so many right or wrong answers: at most one half each, paired less."""
    return 0.5 / items * (100 / factor) ** 2


def _advice(told: _Told, s: int, best: float) -> Advice:
    case, chosen, source = told.case, told.case.chosen, told.matrix.sources[s]
    mean, deviation = float(told.belief.mean[s]), float(told.belief.deviation[s])
    low, high = float(chosen.low[s, case.at]), float(chosen.high[s, case.at])
    if told.measured.at:
        low, high = mean - NINETY * deviation, mean + NINETY * deviation
    popular = float(told.case.selected.families["popularity"].effect[s, case.at])
    return Advice(
        source=source,
        gain=Interval(case.factor * mean, case.factor * low, case.factor * high),
        popularity=case.factor * popular,
        harm=_below_zero(mean, low, high) if case.based else nan,
        best=best,
        reasons=_reasons(told, s),
        side_effects=_side_effects(told, source),
        measured=told.own[source],
        probed=s in told.measured.at,
        touched=told.touched.get(source, ""),
    )


def _below_zero(mean: float, low: float, high: float) -> float:
    """Probability of a gain below zero: half a normal on either side, as wide as the interval there."""
    side = (mean - low if mean > 0 else high - mean) / NINETY
    return float(stats.norm.cdf(-mean / side)) if side > 0 else float(mean < 0)


def _reasons(told: _Told, s: int) -> tuple[Reason, ...]:
    case, chosen = told.case, told.case.chosen
    problem = case.problem
    words = dict(zip(problem.feature_names, problem.feature_words, strict=True)) | dict(chosen.context_words)
    values = {name: problem.features[:, case.at, f] for f, name in enumerate(problem.feature_names)}
    unit = float(chosen.spread[case.at]) * case.factor
    found = reasons_of(told.parts, s, words, values, unit)
    if told.measured.at:
        moved = case.factor * float(told.belief.mean[s] - chosen.effect[s, case.at])
        said = "measured in a probe" if s in told.measured.at else "probes of other sources"
        found = (Reason("probe", f"{said} {moved:+.1f}", moved), *found)
    return found


def _side_effects(told: _Told, source: str) -> tuple[SideEffect, ...]:
    """What the user cares about; else the worst loss measured on any other target."""
    matrix, places = told.matrix, _trait_places(told.traits)
    found = []
    for name in told.care:
        if name in places and told.traits is not None:
            found.append(SideEffect(name, "trait", _trait_effect(told.traits, source, places[name])))
        else:
            found.append(SideEffect(name, "target", _cell_gain(matrix, source, name)))
    if told.care:
        return tuple(found)
    others = [
        SideEffect(name, "target", _cell_gain(matrix, source, name))
        for name in matrix.targets
        if name not in (told.target, source)  # its own target says nothing of others
    ]
    lost = [other for other in others if other.effect.known and other.effect.value < 0]
    return (min(lost, key=lambda one: one.effect.value),) if lost else ()


def _trait_effect(traits: Traits, source: str, c: int) -> Interval:
    if source not in traits.sources:
        return unknown("the source is not in the traits")
    s = traits.sources.index(source)
    return Interval(
        float(traits.effects[s, c]), float(traits.effects_low[s, c]), float(traits.effects_high[s, c])
    )


def _verdict(told: _Told, order: Sequence[int]) -> tuple[Verdict, str, float]:
    belief, case, names = told.belief.only(order), told.case, [told.matrix.sources[s] for s in order]
    smallest = case.factor * smallest_difference(belief)
    if len(order) == 1:
        return "one stands out", f"{names[0]} is the only source that can be ranked.", smallest
    chance = better(belief, 0)
    rivals = [at for at in range(1, len(order)) if chance[at] > _DOUBT]
    apart = f"Differences below {smallest:.1f} {_unit(case, 'score')} cannot be told."
    if not rivals:
        sure = 1 - float(chance[1:].max())
        return "one stands out", f"{names[0]} is better than any other with probability {sure:.0%}.", smallest
    if len(rivals) == 1:
        return (
            "two are level",
            f"{names[0]} and {names[rivals[0]]} cannot be told apart "
            f"(the first is better with probability {1 - chance[rivals[0]]:.0%}). {apart}",
            smallest,
        )
    return (
        "cannot tell",
        f"Cannot tell: the best three are within noise ({names[0]} is better than {names[2]} with "
        f"probability {1 - chance[2]:.0%}). {apart}",
        smallest,
    )


def _measured(case: Case, order: Sequence[int], by_popularity: Sequence[int]) -> dict[str, float]:
    """What the picks turned out to give, in points."""
    truth = case.truth[list(order)] * case.factor
    known = np.isfinite(truth)
    if not known.any():
        return {}
    popular = case.truth[list(by_popularity)] * case.factor
    return {
        "first": float(truth[0]),
        "first_of_popularity": float(popular[0]),
        "random": float(truth[known].mean()),
        "best": float(truth[known].max()),
    }


def _suggestions(told: _Told, order: Sequence[int]) -> tuple[Suggestion, ...]:
    """Sources to measure next; none where no measurement is likely to change anything."""
    belief, known = told.belief.only(order), told.measured.noise
    noise = float(np.median(known)) if len(known) else _usual_noise(told.matrix, told.case)
    free = [at for at, s in enumerate(order) if s not in told.measured.at]
    found = []
    for probe in next_probes(belief, free, noise):
        points = told.case.factor * probe.worth
        if probe.change < 0.01:
            continue
        words = (
            f"puts another source first with probability {probe.change:.0%}; worth {points:+.1f} on average"
        )
        found.append(Suggestion(told.matrix.sources[order[probe.source]], probe.change, points, words))
    return tuple(found)


def _notes(case: Case, probes: Sequence[Probe], aside: set[str]) -> list[str]:
    said = []
    if not case.problem.feature_names:
        said.append(
            "Without texts of sources and target every target gets the order that other targets suggest; "
            "give texts (--texts FILE.jsonl) so that the prediction looks at this target."
        )
    if not case.based:
        said.append(
            "No base is known for every target, so scores are predicted, not gains, and harm is unknown."
        )
    if case.stretched:
        said.append(
            "Measured in other units, and stretched to the spread of gains here: "
            f"{', '.join(case.stretched)}."
        )
    left = [probe.source for probe in probes if probe.source in aside]
    if left:
        said.append(f"Probes of {', '.join(left)} were left out: these sources are not ranked.")
    return said


def _resemblance(problem: Problem, targets: Sequence[str], at: int) -> list[str]:
    """Which targets are most like this one; a warning where none is as like as others have one."""
    said, far = [], []
    for one in problem.targets_alike:
        alike = np.where(np.eye(len(targets), dtype=bool), np.nan, one.values)
        known = np.asarray(np.isfinite(alike).any(axis=1))
        if not known[at] or known.sum() < 3:
            continue
        best = np.nanmax(alike[known], axis=1)
        own = float(np.nanmax(alike[at]))
        nearest = np.argsort(-np.nan_to_num(alike[at], nan=-np.inf), kind="stable")[:2]
        said.append(f"in {one.words} {' and '.join(targets[t] for t in nearest)}")
        far.append(own <= float(best.min()))
    if not said:
        return []
    told = [f"Most like it are, {'; '.join(said)}."]
    if all(far):
        told.append(
            "No other target is so unlike all others as this one: the prediction goes beyond what was seen."
        )
    return told


def measured_probes(matrix: TransferMatrix, target: str) -> list[Probe]:
    """The measured gains on a target as probes; MatrixError where there are none."""
    found = []
    for source in matrix.sources:
        cell = _cell(matrix, source, target)
        if cell is None or cell.status not in ("measured", "given") or not isfinite(cell.gain):
            continue
        known = isfinite(cell.gain_high - cell.gain_low)
        found.append(
            Probe(source, cell.gain, (cell.gain_high - cell.gain_low) / 3.92 if known else nan, cell.n)
        )
    if not found:
        raise MatrixError(f"no source was measured on {target!r}; give probes as a CSV file")
    return found


def with_top(found: Recommendation, top: int) -> Recommendation:
    """The first ``top`` sources only."""
    return replace(found, ranked=found.ranked[:top])
