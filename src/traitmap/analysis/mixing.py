"""Which combination of sources for some targets does no harm to others, and does one beat the best source?

Candidates are all combinations of two sources up to ``most``; beyond two only the most promising are
extended. Of each, the mean improvement over the targets is predicted (``combination``), and a lower bound
for every target that must not lose, corrected over these. Gains that are no skill count as none, losses
always count.

A candidate is *safe* where each lower bound lies above minus the margin, and *better* where the lower bound
of its lead over every safe single source is above 0. Both are one-sided at 5 %, the first over all targets
to keep, the second over all proposals shown, and over all measured combinations where it is one of those:
the best of many measured rows is flattered by noise. A prediction has no noise of its own that could flatter
it, but the rows of its parents have, and so has the best single source: the errors of both count. Where no
interval is known, or nothing leads beyond it, the answer is that it cannot be told.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations as subsets
from math import isfinite, nan
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from traitmap.analysis.combination import (
    CONCAT,
    MERGE,
    USUAL_MERGE,
    Combination,
    CombinationTable,
    CombinedCell,
    Fit,
    Kind,
)
from traitmap.analysis.corrections import LEAST, ModelScore, around, kept_margins
from traitmap.analysis.interference import Interference
from traitmap.analysis.mixing_words import mix_lines
from traitmap.analysis.recommendation.posterior import Posterior, condition_on, next_probes
from traitmap.errors import MatrixError
from traitmap.jsonable import jsonable, outline
from traitmap.matrix.record import Array
from traitmap.matrix.statistics import Estimate, Interval, t_value, z_value
from traitmap.study.paths import digest
from traitmap.wording import listed

MARGIN = 2.0  # points that a target to keep may lose
ALPHA = 0.05
LONGEST = 80  # characters of a name
BEAM = 60  # combinations that are extended by a further source
SHARES = ((0.5, 0.5), (0.7, 0.3), (0.3, 0.7))

Answer = Literal["yes", "no", "cannot tell"]
Contrast = Callable[[str, str, Sequence[str]], Estimate]


@dataclass(frozen=True)
class Proposal:
    """One combination, measured or predicted.

    gain: mean improvement over the targets, 90 %; by_target: of each, 90 %; keep: of each target to keep, its
    low end one-sided at 5 % over all of them (no high end). safe: whether none of these may lose more than
    the margin. lead: over the best safe single source, simultaneous (see the module); better: whether it
    is above 0, ``no`` where it is below.
    """

    combination: Combination
    status: Literal["measured", "predicted"]
    gain: Interval
    by_target: Mapping[str, Interval]
    keep: Mapping[str, Interval]
    safe: Answer
    lead: Interval
    better: Answer


@dataclass(frozen=True)
class SingleSource:
    """A single source on the same question; fields as in ``Proposal``, by its measured rows."""

    source: str
    gain: Interval
    keep: Mapping[str, Interval]
    safe: Answer


@dataclass(frozen=True)
class CombinationProbe:
    """A combination worth measuring next. change: probability that another candidate then stands first;
    worth: by how much the expected gain of the first grows, in the unit of the gains."""

    combination: Combination
    change: float
    worth: float


@dataclass(frozen=True)
class Mix:
    """Combinations for a set of targets, the best first: safe ones, then those of which it cannot be told.

    targets, keep: names. margin: what a kept target may lose; margins: of each, in its own unit.
    unit: of gains over the targets: theirs, or ``usual gains`` (multiples of the root mean square gain of
    each target's unit) where these differ.
    candidates: how many were compared. single: the best single source of those that are not shown to do harm;
    safe_single: of those that are shown to do none; None where there is none with all targets measured.
    model: kind of combination -> what predicts it; scores: how it and others did on held-out combinations.
    rests_on: what the intervals rest on. probes: what to measure next. cells: measured combinations beside
    what was predicted of them. interference: who cancels whom. added: entries of a study that were run
    because probes were asked for. left_out: combinations that could not be used, and why.
    """

    targets: tuple[str, ...]
    keep: tuple[str, ...]
    margin: float
    unit: str
    digits: int
    candidates: int
    proposals: tuple[Proposal, ...]
    single: SingleSource | None
    safe_single: SingleSource | None
    model: Mapping[Kind, str]
    scores: tuple[ModelScore, ...]
    rests_on: str
    probes: tuple[CombinationProbe, ...] = ()
    cells: tuple[CombinedCell, ...] = ()
    interference: Interference | None = None
    added: tuple[Mapping[str, Any], ...] = ()
    left_out: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    margins: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def pick(self) -> Proposal | None:
        """The first proposal where it is safe and beats the best single source; None: it cannot be told."""
        return next((one for one in self.proposals if one.safe == "yes" and one.better == "yes"), None)

    @property
    def lines(self) -> list[tuple[str, str]]:
        """What to take, what speaks against, what it rests on, and what to measure next."""
        return mix_lines(self)

    __repr__ = outline

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON data with its sentences in ``lines``; unknown numbers are null."""
        return {**jsonable(vars(self)), "lines": dict(self.lines)}


def propose(
    fitted: Fit,
    targets: Sequence[str],
    *,
    keep: Sequence[str] = (),
    margin: float = MARGIN,
    method: str | None = None,
    most: int = 3,
    top: int = 5,
    probes: int = 3,
    contrast: Contrast | None = None,
    only: Sequence[Combination] | None = None,
) -> Mix:
    """The best combinations for ``targets`` that do no harm to ``keep``.

    margin: what a kept target may lose, in points; in other units as large a share of their usual gain.
    method: ``concat``, ``merge`` (the way most measured here) or one of PEFT's ways; None: all of these.
    most: sources in a combination. top: how many are shown. probes: how many to suggest measuring.
    contrast: first less second row on the mean of some targets, by their items; without it measured rows are
    independent. only: compare these alone, as if none was measured.

    MatrixError for a target that the matrix does not have, or one that is both wanted and to be kept.
    """
    table = fitted.table
    _check(table, targets, keep, margin, most)
    question = _Question(fitted, tuple(targets), tuple(keep), margin)
    singles = [one for name in table.singles if (one := question.single(name)) is not None]
    rivals = [one for one in singles if one.safe != "no"] or singles  # any of these may be safe
    best = max(rivals, key=lambda one: one.gain.value, default=None)
    safe = [one for one in singles if one.safe == "yes"]
    combos = _candidates(question, method, most) if only is None else list(only)
    known = {} if only is not None else {_key(c): row for row, c in enumerate(table.combinations)}
    ways = _merges(table) if method == MERGE else (method,)
    there = table.combinations if only is None else ()
    measured = [c for c in there if method is None or c.method in ways]
    combos = [c for c in combos if _key(c) not in known]
    judged = [
        *question.predicted(combos, rivals, top),
        *(
            question.measured(known[_key(c)], rivals, len(measured), contrast)
            for c in measured
            if len(c.parents) <= most
        ),
    ]
    judged = [one for one in judged if isfinite(one[0])]
    rank = {"yes": 0, "cannot tell": 1, "no": 2}
    judged.sort(key=lambda one: (rank[one[1].safe], -one[0]))
    one_unit = len({table.units[table.targets.index(t)] for t in targets}) == 1
    return Mix(
        targets=tuple(targets),
        keep=tuple(keep),
        margin=margin,
        unit=table.units[table.targets.index(targets[0])] if one_unit else "usual gains",
        digits=table.digits[table.targets.index(targets[0])] if one_unit else 2,
        candidates=len(judged),
        proposals=tuple(one for _, one in judged[:top]),
        single=best,
        safe_single=max(safe, key=lambda one: one.gain.value, default=None),
        model=fitted.chosen,
        scores=fitted.scores,
        rests_on=_rests_on(fitted, method),
        probes=_probes(question, combos, best, probes) if probes else (),
        left_out=table.left_out,
        margins={name: round(float(question.margins[table.targets.index(name)]), 3) for name in keep},
    )


def _check(
    table: CombinationTable, targets: Sequence[str], keep: Sequence[str], margin: float, most: int
) -> None:
    if not targets:
        raise MatrixError(f"no target to combine sources for; legal: {', '.join(table.targets)}")
    for name in (*targets, *keep):
        if name not in table.targets:
            raise MatrixError(f"the matrix has no target {name!r}; legal: {', '.join(table.targets)}")
    if both := sorted(set(targets) & set(keep)):
        raise MatrixError(f"{', '.join(both)}: a target to gain on and to keep; name it once")
    if not margin >= 0:
        raise MatrixError(f"margin {margin:g}: give what a target may lose, 0 or more")
    if most < 2:
        raise MatrixError(f"{most} source in a combination; give 2 or more")


def _key(combination: Combination) -> tuple[frozenset[tuple[str, float]], str]:
    parts = zip(combination.parents, combination.weights, strict=True)
    return frozenset((name, round(weight, 3)) for name, weight in parts), combination.method


def _merges(table: CombinationTable) -> tuple[str, ...]:
    """Ways to merge that were measured, the commonest first; the default where none was."""
    ways = [c.method for c in table.combinations if c.method != CONCAT]
    return tuple(sorted(dict.fromkeys(ways), key=lambda way: -ways.count(way))) or (USUAL_MERGE,)


def named(parents: Sequence[str], weights: Sequence[float], method: str) -> Combination:
    """A combination with the name that its row would have: parents with their shares, where these differ."""
    equal = max(weights) - min(weights) < 1e-9
    parts = [name if equal else f"{name}{100 * w:.0f}" for name, w in zip(parents, weights, strict=True)]
    name = "_".join(["mix" if method == CONCAT else method, *parts])
    name = re.sub(r"[^\w.-]", "-", name)  # a checkpoint's @ may not stand in the name of a source
    if len(name) > LONGEST:
        name = f"{name[: LONGEST - 9]}-{digest([list(parents), list(weights), method])[:8]}"
    return Combination(name, tuple(parents), tuple(weights), method)


@dataclass(frozen=True)
class _Question:
    """What is asked: a mean over some targets, and others that must be kept."""

    fitted: Fit
    targets: tuple[str, ...]
    keep: tuple[str, ...]
    margin: float

    @property
    def columns(self) -> list[int]:
        return [self.fitted.table.targets.index(name) for name in self.targets]

    @property
    def unit(self) -> Array:
        """(T',) what gains over the targets are divided by."""
        table = self.fitted.table
        same = len({table.units[t] for t in self.columns}) == 1
        return np.ones(len(self.columns)) if same else table.scale[self.columns]

    def mean(self, rows: Array) -> Array:
        """(N,) mean over the targets of improvements (N, T)."""
        return np.asarray((rows[:, self.columns] / self.unit).mean(axis=1))

    def noise(self, rows: Array) -> Array:
        """(N,) standard errors of that mean from variances (N, T)."""
        return np.sqrt(np.nansum(rows[:, self.columns] / self.unit**2, axis=1)) / len(self.columns)

    @property
    def quantile(self) -> float:
        """One-sided, over all targets to keep, in standard errors of a measured row."""
        return z_value(1 - 2 * ALPHA / max(len(self.keep), 1))

    def parents_noise(self, combination: Combination) -> Array:
        """(T,) variance of the parents' improvements by which items were drawn, by weight.

        A prediction is held against what was measured on the same items, and its errors know nothing of
        others; that no harm is done is said of these too.
        """
        table = self.fitted.table
        rows = [table.place(name) for name in combination.parents]
        return np.asarray(np.average(table.noise[rows], axis=0, weights=np.abs(combination.weights)))

    @property
    def margins(self) -> Array:
        """(T,) what each target may lose."""
        return kept_margins(self.margin, self.fitted.table.units, self.fitted.table.scale)

    def kept(self, values: Array, halves: Array) -> tuple[dict[str, Interval], Answer]:
        """Lower bounds of the targets to keep from (T,) values and half-widths, and what they say."""
        bounds, answers = {}, []
        for name in self.keep:
            t = self.fitted.table.targets.index(name)
            value, low = float(values[t]), float(values[t] - halves[t])
            reason = "" if isfinite(low) else "no interval is known"
            bounds[name] = Interval(value, low if isfinite(low) else nan, nan, reason)
            high = float(values[t] + halves[t])
            least = -float(self.margins[t])
            answers.append("yes" if low > least else "no" if high < least else "cannot tell")
        safe: Answer = "no" if "no" in answers else "cannot tell" if "cannot tell" in answers else "yes"
        return bounds, safe

    def single(self, name: str) -> SingleSource | None:
        """A single source; None where a target that is asked for was not measured with it."""
        table = self.fitted.table
        s = table.place(name)
        value = float(self.mean(table.counted[[s]])[0])
        if not isfinite(value):
            return None
        half = z_value(0.9) * float(self.noise(table.noise[[s]])[0])
        keep, safe = self.kept(table.gains[s], self.quantile * np.sqrt(table.noise[s]))
        return SingleSource(name, Interval(value, value - half, value + half), keep, safe)

    def lead(
        self,
        value: float,
        error: Callable[[SingleSource], tuple[float, float]],
        rivals: Sequence[SingleSource],
    ) -> tuple[Interval, Answer]:
        """Lead over every rival: of the one that leaves least. error: rival -> (difference, half-width)."""
        if not rivals:
            return Interval(nan, reason="no single source has all these targets measured"), "cannot tell"
        leads = [error(rival) for rival in rivals]
        nearest = max(rivals, key=lambda rival: rival.gain.value)
        difference, half = leads[list(rivals).index(nearest)]
        if not isfinite(half):
            return Interval(difference, reason="no interval is known"), "cannot tell"
        low = min(apart - wide for apart, wide in leads)
        better: Answer = "yes" if low > 0 else "no" if difference + half < 0 else "cannot tell"
        return Interval(difference, min(low, difference), difference + half), better

    def predicted(
        self, combos: Sequence[Combination], rivals: Sequence[SingleSource], top: int
    ) -> list[tuple[float, Proposal]]:
        """Candidates with their predicted means over the targets."""
        if not combos:
            return []
        fitted, table = self.fitted, self.fitted.table
        raw, deviation = fitted.predict(combos)
        skill, _ = fitted.predict(combos, counted=True)
        level = 1 - 2 * ALPHA / max(len(self.keep), 1)
        lead_level = 1 - 2 * ALPHA / max(top, 1)
        values = self.mean(skill)
        apart = (deviation[:, self.columns] / self.unit).mean(axis=1)
        errors = {one.source: float(self.noise(table.noise[[table.place(one.source)]])[0]) for one in rivals}
        z = z_value(lead_level)
        found = []
        for row, combination in enumerate(combos):
            way = combination.way
            half = fitted.half(way, cells=len(self.columns) == 1) * apart[row]
            cells = fitted.half(way) * deviation[row]
            wide = fitted.half(way, level=lead_level, cells=len(self.columns) == 1) * apart[row]
            own_items = self.quantile * np.sqrt(self.parents_noise(combination))
            keep, safe = self.kept(
                raw[row], np.hypot(fitted.half(way, level=level) * deviation[row], own_items)
            )
            value = float(values[row])

            def against(rival: SingleSource, value: float = value, wide: float = wide) -> tuple[float, float]:
                return value - rival.gain.value, float(np.hypot(wide, z * errors[rival.source]))

            lead, better = self.lead(value, against, rivals)
            proposal = Proposal(
                combination=combination,
                status="predicted",
                gain=around(value, half),
                by_target={
                    name: around(float(raw[row, t]), float(cells[t]))
                    for name, t in zip(self.targets, self.columns, strict=True)
                },
                keep=keep,
                safe=safe,
                lead=lead,
                better=better,
            )
            found.append((value, proposal))
        return found

    def measured(
        self, row: int, rivals: Sequence[SingleSource], among: int, contrast: Contrast | None
    ) -> tuple[float, Proposal]:
        """A measured combination; its value for ranking is drawn towards what was predicted of it."""
        fitted, table = self.fitted, self.fitted.table
        combination = table.combinations[row]
        value = float(self.mean(table.measured_counted[[row]])[0])
        error = float(self.noise(table.measured_noise[[row]])[0])
        level = 1 - 2 * ALPHA / max(among, 1)
        z = z_value(level)

        def against(rival: SingleSource) -> tuple[float, float]:
            s = table.place(rival.source)
            if contrast is not None:
                exact = contrast(combination.name, rival.source, self.targets)
                if isfinite(exact.error) and exact.error > 0:
                    return value - rival.gain.value, float(t_value(exact.freedom, level)) * exact.error
            return value - rival.gain.value, z * float(np.hypot(error, self.noise(table.noise[[s]])[0]))

        lead, better = self.lead(value, against, rivals)
        keep, safe = self.kept(table.measured[row], self.quantile * np.sqrt(table.measured_noise[row]))
        cells = z_value(0.9) * np.sqrt(table.measured_noise[row])
        guess, apart = nan, nan
        if np.isfinite(fitted.errors[row][self.columns]).all():
            guess = float(self.mean(fitted.held_out[[row]])[0])
            apart = float((fitted.deviation[row] * table.scale)[self.columns].mean() / self.unit.mean())
        prior = (fitted.half(combination.way, cells=False) / z_value(0.9) * apart) ** 2
        shrunk = value
        if isfinite(guess) and isfinite(prior) and prior + error**2 > 0:
            shrunk = (value * prior + guess * error**2) / (prior + error**2)
        proposal = Proposal(
            combination=combination,
            status="measured",
            gain=around(value, z_value(0.9) * error),
            by_target={
                name: around(float(table.measured[row, t]), float(cells[t]))
                for name, t in zip(self.targets, self.columns, strict=True)
            },
            keep=keep,
            safe=safe,
            lead=lead,
            better=better,
        )
        return shrunk, proposal


def _candidates(question: _Question, method: str | None, most: int) -> list[Combination]:
    """Every pair, and the most promising larger combinations; shares differ where some were measured so."""
    table = question.fitted.table
    usable = [n for n in table.singles if question.single(n) is not None]
    merges = _merges(table)
    there = [way for way in (CONCAT, merges[0]) if any(c.method == way for c in table.combinations)]
    methods: Sequence[str] = [merges[0]] if method == MERGE else [str(method)]
    if method is None:
        methods = there or [CONCAT, merges[0]]
    found: list[Combination] = []
    for way in methods:
        uneven = sum(c.method == way and max(c.weights) - min(c.weights) > 0.05 for c in table.combinations)
        layer = [
            named(pair, share, way)
            for pair in subsets(usable, 2)
            for share in (SHARES if uneven >= LEAST else SHARES[:1])
        ]
        found += layer
        for count in range(3, most + 1):
            values = question.mean(question.fitted.predict(layer, counted=True)[0]) if layer else np.empty(0)
            kept = [layer[at] for at in np.argsort(-np.nan_to_num(values, nan=-np.inf), kind="stable")[:BEAM]]
            larger = dict.fromkeys(
                tuple(n for n in usable if n in (*c.parents, extra))
                for c in kept
                for extra in usable
                if extra not in c.parents
            )
            layer = [named(parents, (1 / count,) * count, way) for parents in larger]
            found += layer
    return found


def _probes(
    question: _Question, combos: Sequence[Combination], best: SingleSource | None, most: int
) -> tuple[CombinationProbe, ...]:
    """What to measure next: the knowledge gradient, one after another, of candidates that may be safe.

    Errors of two candidates go together as far as their parents do. Where no width is known yet, the
    distance of the parents stands in for it: that chooses, and claims nothing.
    """
    fitted, table = question.fitted, question.fitted.table
    if not combos or best is None:
        return ()
    raw, deviation = fitted.predict(combos)
    values = question.mean(fitted.predict(combos, counted=True)[0])
    widths = np.array([fitted.half(c.way, cells=False) / z_value(0.9) for c in combos])
    apart = (deviation[:, question.columns] / question.unit).mean(axis=1)
    spread = np.where(np.isfinite(widths * apart), widths * apart, nan)
    if not np.isfinite(spread).all():
        own = question.mean(table.counted)
        span = [float(np.ptp(own[[table.place(n) for n in c.parents]])) / 2 for c in combos]
        spread = np.where(np.isfinite(spread), spread, np.maximum(span, 1e-3))
    keep = [table.targets.index(name) for name in question.keep]
    able = np.isfinite(values) & (raw[:, keep] > -question.margins[keep]).all(axis=1)
    order = [at for at in np.argsort(-(values + spread), kind="stable") if able[at]][:200]
    if not order:
        return ()
    share = np.zeros((len(order), len(table.singles)))
    for row, at in enumerate(order):
        for name, weight in zip(combos[at].parents, combos[at].weights, strict=True):
            share[row, table.place(name)] = weight
    share /= np.linalg.norm(share, axis=1, keepdims=True)
    covariance = np.zeros((len(order) + 1, len(order) + 1))
    covariance[:-1, :-1] = (share @ share.T) ** 2 * np.outer(spread[order], spread[order])
    belief = Posterior(np.append(values[order], best.gain.value), covariance)
    noise = float(np.nanmean(question.noise(table.noise)) ** 2)
    chosen: list[CombinationProbe] = []
    left = list(range(len(order)))
    while left and len(chosen) < most:
        at, change, worth = next_probes(belief, left, noise, 1)[0]
        chosen.append(CombinationProbe(combos[order[at]], change, worth))
        left.remove(at)
        belief = condition_on(belief, [at], belief.mean[[at]], np.array([noise]))
    return tuple(chosen)


# Words.


def _rests_on(fitted: Fit, method: str | None) -> str:
    """What intervals rest on, in a sentence."""
    table = fitted.table
    counts: dict[str, int] = {}
    for combination in table.combinations:
        counts[combination.way] = counts.get(combination.way, 0) + 1
    enough = {way: n for way, n in counts.items() if way in fitted.widths}
    if not counts:
        return (
            "no combination is measured here: how far one strays from the mean of its parents is unknown, so "
            "that no interval can be had"
        )
    parts = [f"{n} by {way}" for way, n in (enough or counts).items()]
    if not enough:
        return f"{listed(parts)} measured: {LEAST} of a way are needed for an interval"
    lacking = [way for way in counts if way not in enough]
    words = f"held-out errors of {listed(parts)}"
    if lacking:
        words += f"; too few are measured of {listed(lacking)}"
    if method is None and CONCAT not in counts:
        words += "; no mixture is measured"
    return words
