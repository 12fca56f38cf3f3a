"""The answer of a matrix: what to pick, what to avoid, what can be trusted, why, and what is uncertain.

One record holds what the first screen of every view says (page, terminal, notebook, JSON): five lines, a row
for each target with its best clean source, and what each source does to everything else. Everything in it is
ranked after the verdicts: a gain that is a shift of class shares, say, is listed apart under its name.
Numbers are in the unit that people see: points for shares. ``answer_words`` writes its lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite, nan
from statistics import median
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from traitmap.analysis import answer_words, tables
from traitmap.analysis.verdicts import GAINS, LOSSES, UNCLEAN, CellVerdict, Kind, Verdicts
from traitmap.errors import MatrixError
from traitmap.jsonable import jsonable, outline
from traitmap.matrix.assisted import assisted_gain, recorded_anchors
from traitmap.matrix.reading import Reading, TargetView, read
from traitmap.matrix.record import TransferMatrix
from traitmap.matrix.sequential import confidence_at, looks_at
from traitmap.matrix.statistics import (
    Interval,
    detectable,
    error_of_width,
    numbered_groups,
    paired_gain,
    unknown,
)
from traitmap.runs.texts import IMPORTED

if TYPE_CHECKING:
    import pandas as pd

    from traitmap.analysis.explanation.records import Explanation
    from traitmap.analysis.traits.records import Traits


@dataclass(frozen=True)
class Pick:
    """One source on one target. value: its score; gain: over the base, 95 %; both in the target's unit.

    kind: of its verdict; ``unknown`` where no base is known. words: why that verdict.
    """

    source: str
    target: str
    value: float
    gain: Interval
    kind: Kind
    words: str


@dataclass(frozen=True)
class TargetAnswer:
    """What to pick for one target. base: its score, or NaN. better: 1, or -1 where lower is better.

    best, runner_up: clean gains, else unchecked ones, the larger first; where no gain has an interval the
        largest two, and without a base the best two scores. None where there is none; ``reason`` says why.
    apart: best less runner-up on the same items, positive where the best is better, 95 %.
    own: the target's own training data. unclean: other gains beyond noise, with what they are.
    hurt_by: sources that lower it, the worst first. tried: sources with a known number, the own one apart.
    """

    target: str
    unit: str
    digits: int
    better: int
    base: float
    best: Pick | None
    runner_up: Pick | None
    apart: Interval
    own: Pick | None
    unclean: tuple[Pick, ...]
    hurt_by: tuple[Pick, ...]
    tried: int
    reason: str = ""


@dataclass(frozen=True)
class SourceAnswer:
    """What one source does to the targets that are not its own.

    helps: clean gains, else unchecked ones. hurts: losses beyond noise of whatever kind. unclean: gains that
    are something else. tested: targets on which it could be told. mean: improvement over these targets, each
    in units of its own largest, NaN without a base; rank: mean rank among the sources, 1 is best.
    firsts: targets on which no other source has a better score.
    """

    source: str
    helps: tuple[Pick, ...]
    hurts: tuple[Pick, ...]
    unclean: tuple[Pick, ...]
    tested: int
    mean: float
    rank: float
    firsts: int


@dataclass(frozen=True)
class Answer:
    """The first screen as data.

    name, base, date: of the study, empty where unknown. sources, variations, targets: names.
        seeds: how many were trained, 0 where nobody tells (a table, imported results). cells, known: numbers.
        has_base: else there are scores and no gains. answers: whether answers were looked at.
    pick, avoid, trust, why, uncertain: one line each, in plain English. target: what was asked for, or empty.
    by_target: in the order of the matrix. by_source: the ones that help most and hurt least first.
    gains, losses: how many transfers beyond noise are of which kind; within_noise, unknown: the others.
    lifts, harms: clean ones, strongest first. unclean: gains and losses that are something else.
    smallest: minimal detectable gain in points (80 % power), median of the cells; NaN where unknown.
    doubts: what cannot be told, most serious first, in sentences. conditions: of the matrix.
    """

    name: str
    base: str
    date: str
    sources: tuple[str, ...]
    variations: tuple[str, ...]
    targets: tuple[str, ...]
    seeds: int
    cells: int
    known: int
    has_base: bool
    answers: bool
    target: str
    by_target: tuple[TargetAnswer, ...]
    by_source: tuple[SourceAnswer, ...]
    gains: Mapping[Kind, int]
    losses: Mapping[Kind, int]
    within_noise: int
    unknown: int
    lifts: tuple[CellVerdict, ...]
    harms: tuple[CellVerdict, ...]
    unclean: tuple[CellVerdict, ...]
    smallest: float
    verdicts: Verdicts
    doubts: tuple[str, ...] = ()
    pick: str = ""
    avoid: str = ""
    trust: str = ""
    why: str = ""
    uncertain: str = ""
    conditions: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def lines(self) -> tuple[tuple[str, str], ...]:
        """(heading, words) of the five lines, those that have something to say."""
        lines = (
            ("PICK", self.pick),
            ("AVOID", self.avoid),
            ("TRUST", self.trust),
            ("WHY", self.why),
            ("UNCERTAIN", self.uncertain),
        )
        return tuple((heading, words) for heading, words in lines if words)

    @property
    def title(self) -> str:
        """``mini · 11 sources x 10 targets · base builtin:mini · 1 seed · 2026-11-30``."""
        return answer_words.title(self)

    def to_frame(self) -> pd.DataFrame:
        """The table of the targets: target, base, best, gain, low, high, kind, runner_up, own, reason."""
        import pandas as pd

        rows = []
        for row in self.by_target:
            best, second, own = row.best, row.runner_up, row.own
            rows.append(
                {"target": row.target, "unit": row.unit, "base": row.base}
                | {"best": best.source if best else None, "value": best.value if best else nan}
                | {"gain": best.gain.value if best else nan, "low": best.gain.low if best else nan}
                | {"high": best.gain.high if best else nan, "kind": best.kind if best else None}
                | {"runner_up": second.source if second else None, "own": own.gain.value if own else nan}
                | {"reason": row.reason}
            )
        return pd.DataFrame(rows)

    __repr__ = outline

    def __str__(self) -> str:
        lines = (f"{heading:10} {words}" for heading, words in self.lines)
        return "\n".join([self.title, *lines])

    def _repr_html_(self) -> str:
        """The lines and the table, for notebooks."""
        return tables.answer_html(self)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data with ``lines`` beside the fields; unknown numbers are null."""
        fields = {name: jsonable(getattr(self, name)) for name in self.__dataclass_fields__}
        return {"title": self.title, "lines": dict(self.lines), **fields}


def answer_of(
    matrix: TransferMatrix,
    verdicts: Verdicts,
    *,
    target: str | None = None,
    explanation: Explanation | None = None,
    why_not: str = "",
    traits: Traits | None = None,
    date: str = "",
) -> Answer:
    """Rank and count what the verdicts say of a matrix (S, T), and write the five lines.

    target: speak of one target alone; MatrixError where the matrix has no such target.
    explanation: what goes with gains; None where there is none, and ``why_not`` says why. traits: None where
        they were not computed. date: of the results, as people read it.
    """
    if target is not None and target not in matrix.targets:
        raise MatrixError(f"the matrix has no target {target!r}; it has {', '.join(matrix.targets)}")
    reading = read(matrix)
    conditions = matrix.conditions
    study = conditions.get("study")
    named = conditions.get("name") or (study.get("name") if isinstance(study, Mapping) else "")
    engine = conditions.get("engine")
    imported = isinstance(engine, Mapping) and engine.get("engine") == IMPORTED
    seeds = 0 if imported else len(reading.seeds)
    by_target = tuple(_of_target(matrix, reading, verdicts, t) for t in range(len(matrix.targets)))
    beyond = [cell for cell in verdicts.transfers if cell.beyond_noise]
    strength = {view.name: view.limit for view in reading.targets}
    ranked = sorted(beyond, key=lambda cell: -cell.improvement / strength[cell.target])
    kinds = verdicts.counts()
    record = Answer(
        name=str(named or conditions.get("file") or ""),
        base=str(conditions.get("base") or ""),
        date=date,
        sources=tuple(source for source in matrix.sources if source not in verdicts.variations),
        variations=verdicts.variations,
        targets=matrix.targets,
        seeds=seeds,
        cells=matrix.values.size,
        known=int(np.isfinite(np.where(matrix.predicted, nan, matrix.values)).sum()),
        has_base=reading.has_base,
        answers=any(cell.controls or cell.kind in UNCLEAN for cell in verdicts.cells),
        target=target or "",
        by_target=by_target,
        by_source=_sources(reading, verdicts),
        gains=MappingProxyType(_kinds(beyond, 1)),
        losses=MappingProxyType(_kinds(beyond, -1)),
        within_noise=kinds.get("within noise", 0),
        unknown=kinds.get("unknown", 0),
        lifts=tuple(cell for cell in ranked if cell.kind in GAINS),
        harms=tuple(cell for cell in reversed(ranked) if cell.kind in LOSSES),
        unclean=tuple(cell for cell in ranked if cell.kind in UNCLEAN),
        smallest=_smallest(verdicts),
        verdicts=verdicts,
        doubts=answer_words.doubts(reading, verdicts, traits, seeds),
        conditions=conditions,
    )
    return replace(
        record,
        pick=answer_words.pick(record),
        avoid=answer_words.avoid(record),
        trust=answer_words.trust(record),
        why=answer_words.why(explanation, why_not),
        uncertain=answer_words.uncertain(record, traits),
    )


def _kinds(cells: Sequence[CellVerdict], improvement: int) -> dict[Kind, int]:
    kinds: dict[Kind, int] = {}
    for cell in cells:
        if cell.improvement * improvement > 0:
            kinds[cell.kind] = kinds.get(cell.kind, 0) + 1
    return kinds


def _pick(reading: Reading, verdicts: Verdicts, s: int, t: int) -> Pick:
    cell, view = reading.cells[s][t], reading.targets[t]
    verdict = verdicts.of(cell.source, view.name)
    return Pick(cell.source, view.name, cell.value * view.factor, verdict.gain, verdict.kind, verdict.words)


def _of_target(matrix: TransferMatrix, reading: Reading, verdicts: Verdicts, t: int) -> TargetAnswer:
    """One row of the table."""
    view = reading.targets[t]
    picks = {
        s: _pick(reading, verdicts, s, t)
        for s, source in enumerate(reading.sources)
        if source not in verdicts.variations
        and isfinite(reading.cells[s][t].value)
        and not reading.is_predicted(s, t)
    }
    own = next((pick for s, pick in picks.items() if reading.in_domain(s, t)), None)
    others = {s: pick for s, pick in picks.items() if pick is not own}
    if not reading.has_base or not isfinite(reading.base[t].value):
        order = sorted(others, key=lambda s: -view.better * others[s].value)
        best = order[:2]
    else:
        order = sorted(others, key=lambda s: -view.better * others[s].gain.value)
        best = [s for s in order if others[s].kind in GAINS][:2]
        if not any(isfinite(pick.gain.low) for pick in others.values()):  # means alone: the largest, untested
            best = [s for s in order if others[s].gain.known][:2]
    unclean = [others[s] for s in order if others[s].kind in UNCLEAN]
    return TargetAnswer(
        target=view.name,
        unit=view.unit,
        digits=view.digits,
        better=view.better,
        base=reading.base[t].value * view.factor,
        best=others[best[0]] if best else None,
        runner_up=others[best[1]] if len(best) > 1 else None,
        apart=_apart(matrix, view, best),
        own=own,
        unclean=tuple(pick for pick in unclean if view.better * pick.gain.value > 0),
        hurt_by=tuple(
            others[s]
            for s in reversed(order)
            if others[s].kind in (*LOSSES, *UNCLEAN) and view.better * others[s].gain.value < 0
        ),
        tried=len(others),
        reason="" if best else answer_words.why_none(list(others.values()), view.better),
    )


def _apart(matrix: TransferMatrix, view: TargetView, best: Sequence[int]) -> Interval:
    """The best less the runner-up on the same items and seeds, positive where it is better."""
    if len(best) < 2:
        return unknown("there is no second one")
    scores = matrix.item_scores.get(view.name)
    if scores is None:
        return unknown("the results hold no items")
    both = np.isfinite(scores[[1 + best[0], 1 + best[1]]]).all(axis=(0, 1))
    if both.sum() < 2:
        return unknown("they did not answer the same items")
    scores = scores[:, :, both]
    difference = (scores[1 + best[0]] - scores[1 + best[1]])[None] * view.better
    if np.ptp(scores[1 + best[0]] - scores[1 + best[0]][:1]) == 0:  # an adapter without seeds of its own
        difference = difference[:, :1] if np.ptp(difference, axis=1).max() == 0 else difference
    binary = bool(np.isin(scores[[1 + s for s in best]], (0.0, 1.0)).all())
    groups = matrix.item_groups.get(view.name)
    groups = None if groups is None else numbered_groups(groups[both])
    looks = looks_at(matrix.conditions.get("asking"), view.name)
    confidence = confidence_at(looks, int(both.sum()))
    anchors = None
    if not both.all():  # what both do on all items, where rows that were asked all of them help
        anchors = recorded_anchors(
            matrix.conditions.get("asking"),
            view.name,
            matrix.sources,
            matrix.item_scores[view.name],
            np.flatnonzero(both),
            matrix.item_groups.get(view.name),
        )
    if anchors is None:
        parts = paired_gain(difference, binary=binary, groups=groups, confidence=confidence)[:3]
    else:
        found = assisted_gain(difference, anchors, binary=binary, confidence=confidence)
        parts = found.gain, found.low, found.high
    gain, low, high = (float(part[0]) * view.factor for part in parts)
    return Interval(gain, low, high)


def _sources(reading: Reading, verdicts: Verdicts) -> tuple[SourceAnswer, ...]:
    """Every source with data of its own, by what it helps less what it hurts, then by its mean."""
    views = reading.targets
    scores = np.array([[cell.value * view.better for cell, view in zip(row, views, strict=True)]
                       for row in reading.cells]).reshape(len(reading.sources), len(views))  # fmt: skip
    for s, t in np.ndindex(scores.shape):
        if reading.is_predicted(s, t):
            scores[s, t] = nan
    ranks = np.full(scores.shape, nan)
    for t in range(len(views)):  # own data are no rival
        own = np.array([reading.in_domain(s, t) for s in range(len(scores))], dtype=bool)
        known = np.isfinite(scores[:, t]) & ~own
        ranks[known, t] = stats.rankdata(-scores[known, t])
    answers = []
    for s, source in enumerate(reading.sources):
        if source in verdicts.variations:
            continue
        cells = [(t, verdicts.of(source, view.name)) for t, view in enumerate(views)]
        cells = [(t, cell) for t, cell in cells if cell.kind != "in-domain" and not reading.in_domain(s, t)]
        picks = {t: _pick(reading, verdicts, s, t) for t, _ in cells}
        size = {t: cell.improvement / views[t].limit for t, cell in cells}

        def ordered(kinds: Sequence[Kind], sign: int) -> tuple[Pick, ...]:
            chosen = [t for t, cell in cells if cell.kind in kinds and cell.improvement * sign > 0]  # noqa: B023
            return tuple(picks[t] for t in sorted(chosen, key=lambda t: -sign * size[t]))  # noqa: B023

        known = [size[t] for t, _ in cells if isfinite(size[t])]
        placed = ranks[s][np.isfinite(ranks[s])]
        answers.append(
            SourceAnswer(
                source=source,
                helps=ordered(GAINS, 1),
                hurts=ordered((*LOSSES, *UNCLEAN), -1),
                unclean=ordered(UNCLEAN, 1),
                tested=sum(cell.kind != "unknown" or bool(cell.controls) for _, cell in cells),
                mean=float(np.mean(known)) if known else nan,
                rank=float(placed.mean()) if len(placed) else nan,
                firsts=int((placed == 1).sum()),
            )
        )
    return tuple(sorted(answers, key=_order))


def _order(source: SourceAnswer) -> tuple[float, float, float, str]:
    """Most net help first, then the higher mean, then the better rank; unknown numbers last."""
    mean = -source.mean if isfinite(source.mean) else float("inf")
    rank = source.rank if isfinite(source.rank) else float("inf")
    return len(source.hurts) - len(source.helps), mean, rank, source.source


def _smallest(verdicts: Verdicts) -> float:
    """The gain in points that is found in four of five such studies; median over tested transfers."""
    widths = [
        cell.gain.high - cell.gain.low
        for cell in verdicts.transfers
        if cell.unit == "points" and isfinite(cell.gain.low) and isfinite(cell.gain.high)
    ]
    return detectable(error_of_width(median(widths))) if widths else nan
