"""Runs or tables compared, cell by cell and as a whole: what holds in all, what differs, what was changed.

Cells are matched by name. Of every transfer two questions are asked, each with Benjamini-Hochberg's q over
all transfers that can be asked:

holds     Is it beyond noise, with the same sign, in every run? The p of that is the largest of the runs' own
          (the intersection-union test of R. L. Berger, Technometrics 24:295-300, 1982).
differs   Is its gain not the same in two of the runs? Where they asked the same items these are paired, base
          with base and adapter with adapter; seeds are each run's own (``crossed_contrast``). Other items are
          other samples. Of several runs every two are compared.

A gain that is something else than skill in one of the runs (``verdicts``) is not counted among what holds.
Where cells have no intervals only the tables as a whole can be compared (``agreement``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import hypot, inf, isfinite, nan
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from traitmap.analysis import comparison_words
from traitmap.analysis.agreement import Agreement, agreement
from traitmap.analysis.explanation.families import variations_of
from traitmap.analysis.traits.decompose import decompose
from traitmap.analysis.verdicts import UNCLEAN, Kind, Verdicts
from traitmap.errors import MatrixError
from traitmap.jsonable import jsonable, outline
from traitmap.matrix.crossed import VarianceTerm, crossed_contrast
from traitmap.matrix.reading import SIGNIFICANT, Reading, read
from traitmap.matrix.record import Array, Cell, TransferMatrix
from traitmap.matrix.statistics import (
    Estimate,
    Interval,
    benjamini_hochberg,
    error_of_width,
    group_scores,
    unknown,
)

if TYPE_CHECKING:
    import pandas as pd

Outcome = Literal["holds", "opposite", "differs", "in some", "within noise", "untested", "unknown"]
_SHARED_ITEMS = 0.5  # of the smaller set, from which on only the items that both asked are compared
_NOT_CONDITIONS = ("name", "output", "seeds", "sources", "targets", "traits", "trait_names")


@dataclass(frozen=True)
class Side:
    """One run or table of a comparison. name: unlike every other's. items: target -> (n,) what each item of
    ``matrix.item_scores`` is, equal where two runs asked the same; empty where nobody tells."""

    name: str
    matrix: TransferMatrix
    verdicts: Verdicts
    items: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class ComparedCell:
    """One (source, target) in every run.

    gains: over the base, 95 %, in ``unit`` (points for shares), one for each run; better: 1, or -1 where
    lower is better. kinds: each run's verdict. outcome: see the module; ``in some``: beyond noise in some
    runs, and no difference between runs can be told; ``untested``: no intervals; ``unknown``: not measured in
    two runs. q_holds: of holding in all. difference: second less first, 95 %, of the two runs in ``between``
    (places), which are those that differ most surely, with ``q_differs``. paired: whether on the same items;
    n: how many.
    in_domain: a source on its own target, or made from that one's.
    """

    source: str
    target: str
    unit: str
    digits: int
    better: int
    gains: tuple[Interval, ...]
    kinds: tuple[Kind, ...]
    outcome: Outcome
    q_holds: float
    difference: Interval
    between: tuple[int, int]
    q_differs: float
    paired: bool
    n: int
    in_domain: bool
    reason: str = ""

    @property
    def clean(self) -> bool:
        """Whether its gain is what it seems in every run, as far as that is known."""
        return not any(kind in UNCLEAN for kind in self.kinds)

    @property
    def may_be_unclean(self) -> bool:
        """Whether a run knows its gain but cannot tell whether it is what it seems."""
        return any(
            kind == "unknown" and gain.clear for kind, gain in zip(self.kinds, self.gains, strict=True)
        )


@dataclass(frozen=True)
class Condition:
    """Something that was not the same. values: in each run, as text; empty where a run does not tell."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """Several runs held against each other.

    names, bases, seeds: of the runs, in the order in which they were named. sources, targets: in all of them.
    only: name of a run -> its sources and targets that some other does not have. cells: of shared sources and
    targets. agreements: every two runs. conditions: what was not the same, most general first.
    """

    names: tuple[str, ...]
    bases: tuple[str, ...]
    seeds: tuple[int, ...]
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    only: Mapping[str, tuple[str, ...]]
    cells: tuple[ComparedCell, ...]
    agreements: tuple[Agreement, ...]
    conditions: tuple[Condition, ...]

    @property
    def transfers(self) -> tuple[ComparedCell, ...]:
        """Cells off the diagonal that two runs know."""
        return tuple(cell for cell in self.cells if not cell.in_domain and cell.outcome != "unknown")

    @property
    def holding(self) -> tuple[ComparedCell, ...]:
        """Clean transfers that hold in all runs, those whose smallest gain is largest in its unit first."""
        return tuple(sorted((c for c in self.transfers if c.outcome == "holds" and c.clean), key=_weakest))

    @property
    def differing(self) -> tuple[ComparedCell, ...]:
        """Clean transfers whose gain is not the same in two runs, the surest first."""
        unlike = [cell for cell in self.transfers if cell.q_differs < SIGNIFICANT and cell.clean]
        return tuple(sorted(unlike, key=lambda cell: cell.q_differs))

    @property
    def lines(self) -> list[tuple[str, str]]:
        """What the comparison says, in five lines at most."""
        return comparison_words.lines(self)

    def to_frame(self) -> pd.DataFrame:
        """A row for each cell and run: source, target, run, gain, low, high, unit, verdict, outcome, and the
        cell's difference with low, high, q and items."""
        import pandas as pd

        rows = [
            {"source": cell.source, "target": cell.target, "run": name, "gain": gain.value}
            | {"low": gain.low, "high": gain.high, "unit": cell.unit, "verdict": kind}
            | {"outcome": cell.outcome, "q_holds": cell.q_holds, "difference": cell.difference.value}
            | {"difference_low": cell.difference.low, "difference_high": cell.difference.high}
            | {"q_differs": cell.q_differs, "n": cell.n, "paired": cell.paired}
            for cell in self.cells
            for name, gain, kind in zip(self.names, cell.gains, cell.kinds, strict=True)
        ]
        return pd.DataFrame(rows)

    __repr__ = outline

    def _repr_html_(self) -> str:
        """The lines and the cells that hold or differ, for notebooks."""
        return comparison_words.comparison_html(self)

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON data with its sentences in ``lines``; unknown numbers are null."""
        return {**jsonable(vars(self)), "lines": dict(self.lines)}


def _weakest(cell: ComparedCell) -> float:
    """Order of what holds: by the smallest gain among the runs, in multiples of its half-width."""
    return -min(abs(gain.value) / max((gain.high - gain.low) / 2, 1e-12) for gain in cell.gains)


def compare_sides(sides: Sequence[Side], *, tables: bool = True, seed: int = 0) -> Comparison:
    """Compare two runs or more. tables: as a whole, too. seed: of permutations and resampling.

    Raises MatrixError where there are fewer than two, or they share no source or no target.
    """
    if len(sides) < 2:
        raise MatrixError(f"{len(sides)} run to compare; name two or more")
    shared_sources = _shared([side.matrix.sources for side in sides])
    shared_targets = _shared([side.matrix.targets for side in sides])
    for what, shared in (("source", shared_sources), ("target", shared_targets)):
        if not shared:
            names = "; ".join(
                f"{side.name}: {', '.join(getattr(side.matrix, what + 's')[:6])}" for side in sides
            )
            raise MatrixError(f"no {what} is in all of them, and cells are matched by name ({names})")
    readings = [read(side.matrix) for side in sides]
    cells = [_cell(sides, readings, source, target) for source in shared_sources for target in shared_targets]
    return Comparison(
        names=tuple(side.name for side in sides),
        bases=tuple(str(side.matrix.conditions.get("base") or "") for side in sides),
        seeds=tuple(len(reading.seeds) for reading in readings),
        sources=shared_sources,
        targets=shared_targets,
        only={
            side.name: tuple(
                name
                for names, shared in (
                    (side.matrix.sources, shared_sources),
                    (side.matrix.targets, shared_targets),
                )
                for name in names
                if name not in shared
            )
            for side in sides
        },
        cells=_judged(cells),
        agreements=_agreements(sides, cells, shared_sources, shared_targets, seed) if tables else (),
        conditions=_changed([side.matrix.conditions for side in sides], shared_sources, shared_targets),
    )


def _shared(names: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(name for name in names[0] if all(name in others for others in names[1:]))


# Cells.


@dataclass(frozen=True)
class _Tested:
    """A cell before corrections for the number of tests. p_holds, p_differs: NaN where it cannot be asked."""

    cell: ComparedCell
    p_holds: float
    p_differs: float


def _cell(sides: Sequence[Side], readings: Sequence[Reading], source: str, target: str) -> _Tested:
    """One transfer in every run."""
    columns = [side.matrix.targets.index(target) for side in sides]
    views = [reading.targets[column] for reading, column in zip(readings, columns, strict=True)]
    pooled = [
        reading.cells[reading.sources.index(source)][column]
        for reading, column in zip(readings, columns, strict=True)
    ]
    verdicts = [side.verdicts.of(source, target) for side in sides]
    measured = [cell.status != "predicted" for cell in pooled]
    gains = tuple(
        Interval(
            cell.gain * view.factor, cell.gain_low * view.factor, cell.gain_high * view.factor, cell.reason
        )
        if is_measured
        else unknown("predicted, not measured")
        for cell, view, is_measured in zip(pooled, views, measured, strict=True)
    )
    metrics = {view.metric for view in views if view.metric}
    one_unit = len(metrics) < 2 and len({view.factor for view in views}) == 1
    reason = "" if one_unit else f"other metrics: {', '.join(sorted(metrics)) or 'shares and points'}"
    pairs = [
        ((first, second), *_difference(sides[first], sides[second], pooled[first], pooled[second]))
        for first, second in combinations(range(len(sides)), 2)
        if one_unit and gains[first].known and gains[second].known
    ]
    factor = views[0].factor
    known_p = [
        (estimate.p, at)
        for at, (_, estimate, _, _) in enumerate(pairs)
        if isfinite(estimate.p) and isfinite(estimate.error)
    ]
    between, estimate, paired, n = pairs[min(known_p)[1] if known_p else 0] if pairs else _NOTHING
    plain = estimate.interval()
    difference = Interval(plain.value * factor, plain.low * factor, plain.high * factor, plain.reason)
    cell = ComparedCell(
        source=source,
        target=target,
        unit=views[0].unit,
        digits=views[0].digits,
        better=views[0].better,
        gains=gains,
        kinds=tuple(verdict.kind for verdict in verdicts),
        outcome="unknown",
        q_holds=nan,
        difference=difference,
        between=between,
        q_differs=nan,
        paired=paired,
        n=n,
        in_domain=any(verdict.kind == "in-domain" for verdict in verdicts),
        reason=reason or ("" if pairs else "not measured in two of the runs"),
    )
    ps = [cell.p if is_measured else nan for cell, is_measured in zip(pooled, measured, strict=True)]
    signs = {gain.value > 0 for gain in gains}
    holds = max(ps) if len(signs) == 1 else 1.0
    if not all(map(isfinite, ps)):
        holds = nan
    smallest = min(known_p)[0] * len(pairs) if known_p else nan
    return _Tested(cell, holds, min(smallest, 1.0) if isfinite(smallest) else nan)


_NOTHING = ((0, 1), Estimate(nan, nan, nan), False, 0)


def _difference(first: Side, second: Side, before: Cell, after: Cell) -> tuple[Estimate, bool, int]:
    """Gain in the second run less that in the first, in the matrix's unit; whether paired; how many items.

    before, after: the cell in each. Without items they are independent, with the errors of their intervals.
    """
    source, target = before.source, before.target
    earlier, later = (_scores(side, source, target) for side in (first, second))
    if earlier is None or later is None:
        errors = [error_of_width(cell.gain_high - cell.gain_low) for cell in (before, after)]
        return Estimate(after.gain - before.gain, hypot(*errors), inf), False, 0
    scores = [earlier, later]
    places = _common_items(first, second, target)
    paired = places is not None
    if places is not None:
        scores = [part[..., at] for part, at in zip(scores, places, strict=True)]
        same = np.isfinite(scores[0]).all(axis=(0, 1)) & np.isfinite(scores[1]).all(axis=(0, 1))
        scores = [part[..., same] for part in scores]
        groups = first.matrix.item_groups.get(target)
        groups = None if groups is None else groups[places[0]][same]
        parts = [(part, groups) for part in scores]
    else:
        parts = []
        for side, part in zip((first, second), scores, strict=True):
            scored = np.isfinite(part).all(axis=(0, 1))
            groups = side.matrix.item_groups.get(target)
            parts.append((part[..., scored], None if groups is None else groups[scored]))
    binary = all(np.isin(part, (0.0, 1.0)).all() for part, _ in parts)
    terms = []
    for number, (part, groups) in enumerate(parts):
        by_group = group_scores(part, groups)
        column = target if paired else f"{target} {number}"
        sign = 1.0 if number else -1.0
        terms.append(VarianceTerm(f"adapter {number}", column, sign, by_group[1]))
        terms.append(VarianceTerm(f"base {number}", column, -sign, by_group[0]))
    if paired and np.array_equal(terms[1].scores, terms[3].scores):
        terms = [terms[0], terms[2]]  # one base: it takes no part in the difference
    estimate = crossed_contrast(terms, reach=1.0 if binary else 0.0)
    return estimate, paired, min(part.shape[-1] for part, _ in parts)


def _scores(side: Side, source: str, target: str) -> Array | None:
    """(2, S, n) of base and adapter on all items, or None where there are none."""
    scores = side.matrix.item_scores.get(target)
    if scores is None:
        return None
    rows = scores[[0, 1 + side.matrix.sources.index(source)]]
    return rows if np.isfinite(rows).all(axis=(0, 1)).sum() > 1 else None


def _common_items(
    first: Side, second: Side, target: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Places of the items that both runs asked, in each; None where they asked too few of them in common."""
    names = [list(side.items.get(target, ())) for side in (first, second)]
    if not names[0] or not names[1]:
        return None
    places: list[dict[tuple[str, int], int]] = []
    for items in names:
        times: dict[str, int] = {}
        place_of = {}
        for place, item in enumerate(items):
            place_of[item, times.get(item, 0)] = place
            times[item] = times.get(item, 0) + 1
        places.append(place_of)
    common = [item for item in places[0] if item in places[1]]
    if len(common) < max(2, _SHARED_ITEMS * min(map(len, names))):
        return None
    return tuple(np.array([place_of[item] for item in common]) for place_of in places)  # type: ignore[return-value]


def _judged(tested: Sequence[_Tested]) -> tuple[ComparedCell, ...]:
    """Every cell with its q-values and what they say; transfers are one family, in-domain cells another."""
    q: dict[int, tuple[float, float]] = {}
    for in_domain in (False, True):
        places = [at for at, cell_test in enumerate(tested) if cell_test.cell.in_domain == in_domain]
        holds = benjamini_hochberg(np.array([tested[at].p_holds for at in places], dtype=float))
        differs = benjamini_hochberg(np.array([tested[at].p_differs for at in places], dtype=float))
        q |= dict(zip(places, zip(holds.tolist(), differs.tolist(), strict=True), strict=True))
    return tuple(_outcome(cell_test.cell, *q[at]) for at, cell_test in enumerate(tested))


def _outcome(cell: ComparedCell, q_holds: float, q_differs: float) -> ComparedCell:
    beyond = [gain.value > 0 for gain in cell.gains if gain.clear]
    outcome: Outcome
    if sum(gain.known for gain in cell.gains) < 2 or cell.reason:
        outcome = "unknown"
    elif not (isfinite(q_holds) or isfinite(q_differs)):
        outcome = "untested"
    elif q_holds < SIGNIFICANT:
        outcome = "holds"
    elif q_differs < SIGNIFICANT:
        outcome = "opposite" if len(set(beyond)) == 2 else "differs"
    else:
        outcome = "in some" if beyond else "within noise"
    return replace(cell, outcome=outcome, q_holds=q_holds, q_differs=q_differs)


# Whole tables.


def _agreements(
    sides: Sequence[Side],
    cells: Sequence[_Tested],
    sources: tuple[str, ...],
    targets: tuple[str, ...],
    seed: int,
) -> tuple[Agreement, ...]:
    """Every two runs, over the sources with data of their own."""
    made = {name for side in sides for name in variations_of(side.matrix)}
    originals = [name for name in sources if name not in made]
    by_place = {(test.cell.source, test.cell.target): test.cell for test in cells}
    grid = [[by_place[source, target] for target in targets] for source in originals]
    own = np.array([[cell.in_domain for cell in row] for row in grid], bool).reshape(
        len(originals), len(targets)
    )
    unclean = np.array([[not cell.clean for cell in row] for row in grid], bool).reshape(own.shape)
    tables = _effects(sides, grid, own)
    fitted = [_loadings(side.matrix, originals, targets, seed) for side in sides]
    agreements = []
    for first, second in combinations(range(len(sides)), 2):
        earlier, later = fitted[first], fitted[second]
        both = None if earlier is None or later is None else _on_shared_targets(earlier, later)
        agreements.append(
            agreement(
                tables[first],
                tables[second],
                own,
                unclean,
                places=(first, second),
                loadings=both,
                supported=(0 if earlier is None else earlier[2], 0 if later is None else later[2]),
                seed=seed,
            )
        )
    return tuple(agreements)


def _effects(
    sides: Sequence[Side], grid: Sequence[Sequence[ComparedCell]], own: NDArray[np.bool_]
) -> list[Array]:
    """(S, T) of every run: gains, positive where the adapter is better.

    Of a target whose base is unknown in some run, scores less the mean over its sources in all of them.
    """
    better = np.array([cell.better for cell in grid[0]]) if grid else np.ones(own.shape[1])
    gains = [
        np.array([[cell.gains[place].value for cell in row] for row in grid]).reshape(own.shape)
        for place in range(len(sides))
    ]
    without_base = np.any([~np.isfinite(table).any(axis=0) for table in gains], axis=0)
    tables = []
    for side, table in zip(sides, gains, strict=True):
        part = side.matrix.part([row[0].source for row in grid], [cell.target for cell in grid[0]])
        scores = np.where(own | part.predicted, np.nan, part.values)
        counts = np.isfinite(scores).sum(axis=0)
        means = np.nansum(scores, axis=0) / np.maximum(counts, 1)
        tables.append(np.where(without_base, scores - means, table) * better)
    return tables


def _loadings(
    matrix: TransferMatrix, sources: Sequence[str], targets: Sequence[str], seed: int
) -> tuple[tuple[str, ...], Array, int] | None:
    """Targets, their loadings (T, C) and how many components count as traits; None where there are none."""
    try:
        traits = decompose(matrix.part(sources, targets), n_bootstrap=0, seed=seed)
    except MatrixError:
        return None
    return traits.targets, traits.loadings, traits.n_components["used"]


def _on_shared_targets(
    first: tuple[tuple[str, ...], Array, int], second: tuple[tuple[str, ...], Array, int]
) -> tuple[Array, Array]:
    """Both loadings on the targets that both analyses could use."""
    used = [dict(zip(names, loadings, strict=True)) for names, loadings, _ in (first, second)]
    shared = [
        name for name in first[0] if all(name in part and np.isfinite(part[name]).all() for part in used)
    ]
    earlier, later = (np.array([part[name] for name in shared]).reshape(len(shared), -1) for part in used)
    return earlier, later


# Conditions.


def _changed(
    conditions: Sequence[Mapping[str, Any]], sources: Sequence[str], targets: Sequence[str]
) -> tuple[Condition, ...]:
    """What was not the same: settings of the study, seeds, versions, then sources and targets one by one."""
    flat = [_settings(run) for run in conditions]
    names = list(dict.fromkeys(name for run in flat for name in run))
    changed = [Condition(name, tuple(run.get(name, "") for run in flat)) for name in names]
    for kind, shared, fields in (
        ("sources", sources, ("digest", "examples", "lora", "training")),
        ("targets", targets, ("task", "version", "metric", "items", "digest")),
    ):
        for field in fields:
            values = [
                {name: _text((run.get(kind) or {}).get(name, {}).get(field)) for name in shared}
                for run in conditions
            ]
            unlike = [name for name in shared if len({run[name] for run in values}) > 1]
            if (
                len(unlike) == len(shared)
                and len({run[unlike[0]] for run in values}) > 1
                and len({tuple(run[name] for run in values) for name in unlike}) == 1
            ):
                changed.append(Condition(f"{field} of all {kind}", tuple(run[unlike[0]] for run in values)))
            else:
                changed += [
                    Condition(f"{field} of {name}", tuple(run[name] for run in values)) for name in unlike
                ]
    return tuple(condition for condition in changed if len(set(condition.values)) > 1)


def _settings(conditions: Mapping[str, Any]) -> dict[str, str]:
    """Dotted name -> value, of the base, the study's settings, seeds and versions."""
    study = conditions.get("study")
    parts: dict[str, Any] = {
        "base": conditions.get("base"),
        "base weights": conditions.get("base_digest"),
        "seeds": conditions.get("seeds"),
        **{
            name: value
            for name, value in (study if isinstance(study, Mapping) else {}).items()
            if name not in _NOT_CONDITIONS
        },
        "engine": conditions.get("engine"),
    }
    flat: dict[str, str] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for name, inner in value.items():
                walk(f"{prefix}.{name}" if prefix else str(name), inner)
        elif value is not None:
            flat[prefix] = _text(value)

    walk("", parts)
    return flat


def _text(value: Any) -> str:
    """A setting as short text; empty where it is unknown."""
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(inner)}" for name, inner in value.items() if inner is not None)
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return str(value)
