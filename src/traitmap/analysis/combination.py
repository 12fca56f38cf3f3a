"""Mixtures and merges of sources: gains predicted from the rows of single ones, before they are paid for.

A *combination* is a source made of several others: rows of all of them in one training set (``concat``), or
adapters that were trained apart and joined (a merge, by one of PEFT's methods). What its row will be is
predicted from those of its parents. The simplest model is the mean of the parents' gains by weight; further
ones correct it, each by a ridge regression of what the measured combinations differ from that mean:

mean          nothing: the weighted mean of the parents
lead          a part of the way to the best parent
parents       also how large the mean is, and how far the worst parent lies from it
ways          lead, and its own part for each way of combining
traits        lead, and the mean of the parents' gains as far as the table's leading components hold them
weights       lead, and how alike the parents' updates are and which is the largest (fingerprints of adapters)
own effects   lead, and what targets, parents, and parents on targets have shown in other combinations

Which one is used is decided by predicting each measured combination from those that share no two of its
parents (leave one combination out), by the one-standard-error rule (``recommendation.selection.simplest``):
the simplest that is not worse than the best by a standard error. Mixtures and merges are learnt apart.

Errors of these held-out predictions give the intervals, of one way of combining at a time: they grow with how
far the parents lie apart, and are widened by Student's t for how few combinations there are. A way that
fewer than ``LEAST`` combinations were measured of has no interval here: nobody has seen how far it strays.
A predicted gain is never data: it enters no test, no trait and no model.

Numbers are improvements, positive where the adapter is better, in the targets' shown units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite, nan
from typing import Literal

import numpy as np

from traitmap.analysis.corrections import (
    LEAST,
    LEVEL,
    CorrectionDesign,
    Corrections,
    ModelScore,
    Width,
    around,
    learn,
    unit_scales,
    width_of,
)
from traitmap.analysis.explanation.families import variations_of
from traitmap.analysis.recommendation.completion import gain_noise
from traitmap.data.fingerprints import Fingerprints
from traitmap.errors import MatrixError
from traitmap.matrix.reading import read
from traitmap.matrix.record import Array, TransferMatrix
from traitmap.matrix.statistics import Interval, z_value

Kind = Literal["concat", "merge"]
CONCAT: Kind = "concat"
MERGE: Kind = "merge"
USUAL_MERGE = "cat"
MODELS = ("mean", "lead", "parents", "ways", "traits", "weights", "own effects")  # from the simplest
RANK = 2  # of the table that the model by traits sees


@dataclass(frozen=True)
class Combination:
    """Several sources combined. name: its row in the run, or the name that it would have.

    parents: two or more. weights: shares of the examples (concat, summing to 1), or of the updates (a merge).
    method: ``concat`` or PEFT's name of a way to merge.
    """

    name: str
    parents: tuple[str, ...]
    weights: tuple[float, ...]
    method: str

    @property
    def pairs(self) -> frozenset[frozenset[str]]:
        """Every two of its parents."""
        names = self.parents
        return frozenset(frozenset((a, b)) for at, a in enumerate(names) for b in names[at + 1 :])

    @property
    def kind(self) -> Kind:
        """What models are learnt for apart: mixtures (``concat``) and merges (``merge``)."""
        return CONCAT if self.method == CONCAT else MERGE

    @property
    def way(self) -> str:
        """What errors are counted by: the method, and by how much its weights exceed one."""
        total = sum(self.weights)
        return self.method if abs(total - 1) < 0.01 else f"{self.method}, weights of {total:.2g} in all"

    @property
    def words(self) -> str:
        """``.6 a + .4 b``; equal shares are not written."""
        if max(self.weights) - min(self.weights) < 1e-9:
            return " + ".join(self.parents)
        return " + ".join(f"{w:.2g} {name}" for w, name in zip(self.weights, self.parents, strict=True))


@dataclass(frozen=True)
class CombinationTable:
    """What single sources gave, and what combinations of them gave.

    singles, targets: names. gains: (S, T) improvements of single sources, NaN where unknown; counted: the
    same with gains that are no skill (collapse, class shares, format, overlap) set to 0. noise: (S, T)
    variances of the gains by their items. combinations: measured, C of them; measured, measured_counted,
    measured_noise: (C, T) theirs. units, digits, better: (T,) of the targets. scale: (T,) the root mean
    square of single gains in each target's unit, by which errors of unlike units are one kind.
    left_out: combinations that cannot be used, with the reason. weights: fingerprints of the adapters, if
    any.
    """

    singles: tuple[str, ...]
    targets: tuple[str, ...]
    gains: Array
    counted: Array
    noise: Array
    combinations: tuple[Combination, ...]
    measured: Array
    measured_counted: Array
    measured_noise: Array
    units: tuple[str, ...]
    digits: tuple[int, ...]
    better: tuple[int, ...]
    scale: Array
    left_out: Mapping[str, str]
    weights: Fingerprints | None = None

    def place(self, name: str) -> int:
        """The row of a single source."""
        return self.singles.index(name)


def combinations_in(matrix: TransferMatrix) -> dict[str, Combination]:
    """The mixtures and merges among the sources of a matrix, by name, as its conditions describe them."""
    found = {}
    for name, made in variations_of(matrix).items():
        changes = made.get("changes") or {}
        parts = changes.get(made.get("kind")) or {}
        if made.get("kind") not in (CONCAT, MERGE) or len(parts) < 2:
            continue
        weights = tuple(map(float, parts.values()))
        if made["kind"] == CONCAT:
            weights = tuple(weight / sum(weights) for weight in weights)
        method = CONCAT if made["kind"] == CONCAT else str(changes.get("method") or USUAL_MERGE)
        found[name] = Combination(name, tuple(parts), weights, method)
    return found


def read_combinations(
    matrix: TransferMatrix,
    unclean: frozenset[tuple[str, str]] = frozenset(),
    weights: Fingerprints | None = None,
    combinations: Mapping[str, Combination] | None = None,
) -> CombinationTable:
    """Single sources and combinations of a matrix. unclean: (source, target) whose gain is no skill.

    weights: fingerprints of the single sources' adapters. combinations: by their rows' names; None: those
    that the conditions of a run tell of. MatrixError where fewer than two single sources have known gains.
    """
    reading = read(matrix)
    combos = combinations_in(matrix) if combinations is None else combinations
    variations = variations_of(matrix)
    factor = np.array([view.factor for view in reading.targets])
    better = np.array([view.better for view in reading.targets], dtype=float)
    gains = np.where(matrix.predicted, nan, matrix.gains) * factor * better
    noise = gain_noise(matrix) * factor**2
    bad = np.array([[(s, t) in unclean for t in matrix.targets] for s in matrix.sources], dtype=bool)
    counted = np.where(bad.reshape(gains.shape) & (gains > 0), 0.0, gains)
    parents = {name for combination in combos.values() for name in combination.parents}
    singles = [
        s
        for s, name in enumerate(matrix.sources)
        if name not in combos and (name not in variations or name in parents) and np.isfinite(gains[s]).any()
    ]
    names = tuple(matrix.sources[s] for s in singles)
    if len(names) < 2:
        raise MatrixError(
            f"{len(names)} single sources have known gains; a combination needs two, with the base measured"
        )
    rows, used, left_out = [], [], {}
    for name, combination in combos.items():
        if min(combination.weights) <= 0:
            left_out[name] = "a weight is not above 0, so that its parents have no mean"
            continue
        absent = [parent for parent in combination.parents if parent not in names]
        s = matrix.sources.index(name)
        if absent:
            left_out[name] = f"of {', '.join(absent)} no row of its own is measured"
        elif not np.isfinite(gains[s]).any():
            left_out[name] = "not measured yet"
        else:
            rows.append(s)
            used.append(combination)
    units = tuple(view.unit for view in reading.targets)
    return CombinationTable(
        singles=names,
        targets=matrix.targets,
        gains=gains[singles],
        counted=counted[singles],
        noise=noise[singles],
        combinations=tuple(used),
        measured=gains[rows],
        measured_counted=counted[rows],
        measured_noise=noise[rows],
        units=units,
        digits=tuple(view.digits for view in reading.targets),
        better=tuple(view.better for view in reading.targets),
        scale=unit_scales(gains[singles], units),
        left_out=left_out,
        weights=weights if weights is not None and _tells_of_all(weights, names) else None,
    )


def _tells_of_all(prints: Fingerprints, names: Sequence[str]) -> bool:
    """Whether any combination of these sources, measured or only asked about, has its fingerprints."""
    if not set(names) <= set(prints.names):
        return False
    at = [prints.names.index(name) for name in names]
    return bool(np.isfinite(prints.cosine[np.ix_(at, at)]).all() and (prints.norm[at] > 0).all())


# What a model sees of a combination.


@dataclass(frozen=True)
class _Combined(CorrectionDesign):
    """N combinations on T targets, in units of ``scale``. guess: (N, T) weighted mean of the parents; growth:
    their weighted standard deviation. best: (N, T) the best parent."""

    best: Array


def _design(
    table: CombinationTable, combos: Sequence[Combination], gains: Array, ways: Sequence[str] = ()
) -> _Combined:
    """gains: (S, T) of the parents. ways: those that a model may tell apart."""
    z = gains / table.scale
    share = np.zeros((len(combos), len(table.singles)))
    for row, combination in enumerate(combos):
        for name, weight in zip(combination.parents, combination.weights, strict=True):
            share[row, table.place(name)] += weight / sum(combination.weights)
    involved = share > 0
    known = np.isfinite(z)
    filled = np.where(known, z, 0.0)
    mean = share @ filled
    apart = np.sqrt(np.maximum(share @ filled**2 - mean**2, 0.0))
    unknown = involved.astype(float) @ (~known).astype(float) > 0  # a parent that was not measured there
    best, worst = np.full(mean.shape, nan), np.full(mean.shape, nan)
    for row, parents in enumerate(involved):
        best[row], worst[row] = z[parents].max(axis=0), z[parents].min(axis=0)
    mean, apart = np.where(unknown, nan, mean), np.where(unknown, nan, apart)
    none = np.zeros((*mean.shape, 0))
    lead = np.stack([best - mean], axis=-1)
    of_way = np.array([[float(c.way == way) for way in ways] for c in combos])
    of_way = of_way.reshape(len(combos), len(ways), 1)
    by_way = [of_way[:, w] * part for w in range(len(ways)) for part in (mean, best - mean)]
    targets = np.eye(mean.shape[1])
    columns = {
        "mean": none,
        "lead": lead,
        "parents": np.stack([mean, best - mean, mean - worst], axis=-1),
        "ways": np.stack([best - mean, *by_way], axis=-1) if len(ways) > 1 else None,
        "traits": None,
        "weights": None,
        "own effects": np.concatenate(
            [
                lead,
                np.broadcast_to(targets[None], (len(combos), *targets.shape)),
                np.broadcast_to(share[:, None, :], (*mean.shape, share.shape[1])),
                np.einsum("ns,tu->ntsu", share, targets).reshape(*mean.shape, len(targets) * share.shape[1]),
            ],
            axis=-1,
        ),
    }
    if known.all() and min(z.shape) > RANK:
        u, s, v = np.linalg.svd(z, full_matrices=False)
        smooth = share @ ((u[:, :RANK] * s[:RANK]) @ v[:RANK])
        columns["traits"] = np.stack([best - mean, smooth - mean], axis=-1)
    if (seen := _of_weights(table, combos, z, share)) is not None:
        alike, shifted = seen[0][:, None], seen[1]
        parts = [best - mean, alike * mean, alike * (best - mean), alike * (mean - worst), shifted - mean]
        columns["weights"] = np.stack(parts, axis=-1)
    used = {name: part for name, part in columns.items() if part is not None}
    return _Combined(mean, used, apart[..., None], best)


def _of_weights(
    table: CombinationTable, combos: Sequence[Combination], z: Array, share: Array
) -> tuple[Array, Array] | None:
    """(N,) mean cosine of the parents' updates, less the mean over all; (N, T) the parents' mean by size.

    None without fingerprints.
    """
    prints = table.weights
    if prints is None:
        return None
    at = {name: prints.names.index(name) for name in prints.names}
    cosine = prints.cosine - np.eye(len(prints.names))
    usual = float(cosine.sum()) / max(len(cosine) * (len(cosine) - 1), 1)
    alike = [
        np.mean([prints.cosine[at[a], at[b]] for a, b in map(tuple, combination.pairs)]) - usual
        for combination in combos
    ]
    by_size = share * np.array([prints.norm[at[name]] for name in table.singles])
    total = by_size.sum(axis=1, keepdims=True)
    return np.array(alike), (by_size / total) @ np.where(np.isfinite(z), z, 0.0)


# Models.


@dataclass(frozen=True)
class CombinedCell:
    """A measured combination on one target: what was measured, and what had been predicted of it.

    measured, predicted: improvements in ``unit``, 90 %; the prediction comes from combinations that share no
    two of its parents. mean, best: of the parents.
    """

    combination: Combination
    target: str
    unit: str
    measured: Interval
    predicted: Interval
    mean: float
    best: float


@dataclass(frozen=True)
class KindModel:
    """What was learnt of one kind of combination. rows: its measured combinations in the table. ways: of
    combining, that models may tell apart. learnt: None of fewer than ``LEAST``. widths: way -> how wide its
    intervals are.
    """

    rows: tuple[int, ...]
    ways: tuple[str, ...] = ()
    learnt: Corrections | None = None
    widths: Mapping[str, Width] = field(default_factory=dict)


@dataclass(frozen=True)
class Fit:
    """The models of a table, fitted to its measured combinations, mixtures and merges apart.

    errors: (C, T) measured less predicted, each combination held out, in units of ``scale``; deviation: (C,
    T) what they are expected to be. NaN where a kind has too few combinations.
    """

    table: CombinationTable
    kinds: Mapping[Kind, KindModel]
    errors: Array
    deviation: Array

    @property
    def widths(self) -> dict[str, Width]:
        """Way of combining -> how wide its intervals are; of those that enough were measured of."""
        return {way: width for model in self.kinds.values() for way, width in model.widths.items()}

    @property
    def scores(self) -> tuple[ModelScore, ...]:
        """How every model did, kind by kind."""
        return tuple(s for model in self.kinds.values() if model.learnt for s in model.learnt.scores)

    @property
    def chosen(self) -> dict[Kind, str]:
        """Kind -> the model that is used, of kinds that were measured."""
        return {kind: model.learnt.chosen for kind, model in self.kinds.items() if model.learnt}

    @cached_property
    def held_out(self) -> Array:
        """(C, T) predictions of the measured combinations, each from others, in shown units."""
        return self.table.measured - self.errors * self.table.scale

    def predict(self, combos: Sequence[Combination], *, counted: bool = False) -> tuple[Array, Array]:
        """(N, T) predicted improvements, and the deviations expected of them, in shown units.

        counted: from gains that are skill alone. Deviations are NaN where nothing of the kind was measured.
        """
        table = self.table
        values, deviation = (np.full((len(combos), len(table.targets)), nan) for _ in range(2))
        for kind, model in self.kinds.items():
            at = [row for row, combination in enumerate(combos) if combination.kind == kind]
            if not at:
                continue
            of_kind = [combos[row] for row in at]
            raw = _design(table, of_kind, table.gains, model.ways)
            design = _design(table, of_kind, table.counted, model.ways) if counted else raw
            values[at] = (model.learnt.predict(design) if model.learnt else design.guess) * table.scale
            if model.learnt:
                deviation[at] = raw.deviation(model.learnt.spread) * table.scale
        return values, deviation

    @property
    def cells(self) -> tuple[CombinedCell, ...]:
        """Every measured combination on every target where it and its parents are known."""
        table, cells = self.table, []
        design = _design(table, table.combinations, table.gains)
        noise = z_value(LEVEL) * np.sqrt(table.measured_noise)
        held_out = np.where(np.isfinite(self.errors), self.held_out, design.guess * table.scale)
        for row, combination in enumerate(table.combinations):
            half = self.half(combination.way) * self.deviation[row] * table.scale
            for t, target in enumerate(table.targets):
                if isfinite(table.measured[row, t]) and isfinite(design.guess[row, t]):
                    cell = CombinedCell(
                        combination=combination,
                        target=target,
                        unit=table.units[t],
                        measured=around(float(table.measured[row, t]), float(noise[row, t])),
                        predicted=around(float(held_out[row, t]), float(half[t])),
                        mean=float(design.guess[row, t] * table.scale[t]),
                        best=float(design.best[row, t] * table.scale[t]),
                    )
                    cells.append(cell)
        return tuple(cells)

    def half(self, way: str, *, level: float = LEVEL, cells: bool = True) -> float:
        """Half the width of an interval in deviations; infinite where too few of this way were measured."""
        width = self.widths.get(way)
        return width.half(level, cells=cells) if width else float("inf")


def fit(table: CombinationTable) -> Fit:
    """Choose and fit a model for each kind; of fewer than ``LEAST`` the mean, without intervals."""
    errors, deviation = np.full(table.measured.shape, nan), np.full(table.measured.shape, nan)
    kinds: dict[Kind, KindModel] = {}
    for kind in (CONCAT, MERGE):
        rows = [at for at, combination in enumerate(table.combinations) if combination.kind == kind]
        kinds[kind] = KindModel(tuple(rows))
        if len(rows) >= LEAST:
            kinds[kind], learnt = _fit_kind(table, kind, rows)
            errors[rows], deviation[rows] = learnt.errors, learnt.deviation
    return Fit(table, kinds, errors, deviation)


def _fit_kind(table: CombinationTable, kind: Kind, rows: Sequence[int]) -> tuple[KindModel, Corrections]:
    combos = [table.combinations[at] for at in rows]
    ways = tuple(sorted({combination.way for combination in combos}))
    design = _design(table, combos, table.gains, ways)
    z = table.measured[list(rows)] / table.scale
    learnt = learn(
        design,
        z,
        np.array([[not one.pairs & other.pairs for other in combos] for one in combos]),
        kind=kind,
        models=MODELS,
        others={"zero": np.zeros(z.shape), "best parent": design.best},
        scale=float(table.scale[0]) if len(set(table.units)) == 1 else 1.0,
    )
    widths = {}
    for way in dict.fromkeys(combination.way for combination in combos):
        of_way = [at for at, combination in enumerate(combos) if combination.way == way]
        if len(of_way) >= LEAST:
            widths[way] = width_of(learnt.errors[of_way], learnt.deviation[of_way], len(of_way))
    return KindModel(tuple(rows), ways, learnt, widths), learnt
