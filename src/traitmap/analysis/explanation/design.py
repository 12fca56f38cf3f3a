"""Which pairs are compared, what source and target effects take away, how tasks are permuted, and composites.

``make_design`` takes from a matrix the pairs that can be compared, in canonical order, so that the order of a
file changes nothing. Source and target effects are taken out by projection (``effect_basis``, ``residual``).
``node_permutations`` relabels whole tasks.

Ten tasks cannot tell forty features apart, so a joint regression carries few composites, which are fixed
before any gain is seen (``COMPOSITES``). Each is the mean of its known members, every member free of source
and target effects, in standard deviations, and turned so that higher means more alike.

Shapes: S sources, T targets, n used pairs, B permutations, k features.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from traitmap.analysis.profiles.pairs import Feature, Group, PairFeatures
from traitmap.analysis.traits.scaling import in_domain_mask, points_per_unit, varies
from traitmap.errors import MatrixError
from traitmap.matrix.record import Array, TransferMatrix
from traitmap.matrix.statistics import ROUNDING, error_of_width, z_value
from traitmap.metrics import SHARE, metric

Mask = NDArray[np.bool_]
Units = Literal["points", "standard"]

Moves = NDArray[np.int32]  # (B, n) for every draw the flat (S, T) place whose value each used pair gets

Order = NDArray[np.intp]  # places of pairs, sources or tasks, in some order

_EQUAL = 9  # decimals of the largest value to which values are equal

LEAST_FREEDOM = 5  # pairs left after source and target effects below which nothing is tested
NO_BASE = "the base is unknown"
HARDLY_VARIES = "sources hardly differ beside what all of them gain"
_MOST_LEVEL = 10.0  # scatters by which a target may gain on average, or times the usual target's
_ABSORBED = 1e-9  # share of a feature's variance below which effects have taken all of it


@dataclass(frozen=True)
class Design:
    """The pairs that are compared, in canonical order (sources and targets sorted by name).

    gains: (S, T) in points (or standard deviations of the target), NaN where unknown; where the base is
    unknown, scores less their mean on the target.
    noise: (S, T) standard error of each gain, NaN where unknown. used: pairs with a known gain whose
    source is not the target's own training set. own: the pairs left out for that reason.
    shared: (K, 2) source and target index of tasks that are both.
    row_order, column_order: indices into the matrix. left_out: targets that no source moves.
    no_level: targets whose gains cannot be held against those of other targets, and why.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    gains: Array
    noise: Array
    used: Mask
    own: Mask
    shared: NDArray[np.intp]
    row_order: tuple[int, ...]
    column_order: tuple[int, ...]
    units: Units
    left_out: tuple[str, ...]
    no_level: Mapping[str, str]

    @property
    def levelled(self) -> Mask:
        """(T,) targets whose gains can be held against those of other targets."""
        return np.array([name not in self.no_level for name in self.targets], dtype=bool)

    @property
    def scheme(self) -> Literal["joint", "independent"]:
        """How tasks are permuted.

        ``joint`` where a task that is source and target moves as both at once, so that its own pair stays its
        own: tasks in common are at least three, and at least half of the shorter side. Else ``independent``.
        """
        enough = len(self.shared) >= max(3, min(self.used.shape) / 2)
        return "joint" if enough else "independent"

    @property
    def cells(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """(n,) source and (n,) target index of every used pair."""
        rows, columns = np.nonzero(self.used)
        return rows, columns

    @property
    def y(self) -> Array:
        """(n,) gains of the used pairs."""
        return np.asarray(self.gains[self.used])


def make_design(
    matrix: TransferMatrix,
    *,
    own: Collection[tuple[str, str]] = (),
    units: Units = "points",
    noise: Array | None = None,
) -> Design:
    """Pairs of a matrix that can be compared.

    own: further (source, target) pairs, beside those of one name, whose source is the target's training
    set or a variation of it. noise: (S, T) standard errors of the gains; by default those of the
    matrix's cells. Targets that no source moves are left out. Raises MatrixError where too little is left.
    """
    if units not in ("points", "standard"):
        raise MatrixError(f"units {units!r} is unknown; use 'points' or 'standard'")
    mask = in_domain_mask(matrix.sources, matrix.targets, "auto", tuple(own))
    gains, errors = _gains(matrix, noise)
    usable = np.isfinite(gains) & ~mask
    while True:  # a source that is left out may have been the only one to move a target
        moved = (usable.sum(axis=0) >= 2) & varies(matrix.values, usable)
        enough = usable[:, moved].sum(axis=1) >= 2
        if not usable[~enough].any():
            break
        usable = usable & enough[:, None]
    columns = sorted(np.flatnonzero(moved), key=lambda t: matrix.targets[t])
    rows = sorted(np.flatnonzero(enough), key=lambda s: matrix.sources[s])
    grid = np.ix_(rows, columns)
    gains, errors, used = gains[grid], errors[grid], usable[grid]
    if units == "standard":
        spread = np.nanstd(np.where(used, gains, np.nan), axis=0, ddof=1) if used.size else np.ones(0)
        gains, errors = gains / spread, errors / spread
    mean = np.where(used, gains, 0.0).sum(axis=0) / np.maximum(used.sum(axis=0), 1)
    based = np.isfinite(matrix.baseline)[columns]
    gains = np.where(based, gains, gains - mean)
    sources = tuple(matrix.sources[i] for i in rows)
    targets = tuple(matrix.targets[j] for j in columns)
    _require_pairs(matrix, used)
    shared = [(i, targets.index(name)) for i, name in enumerate(sources) if name in targets]
    return Design(
        sources=sources,
        targets=targets,
        gains=gains,
        noise=errors,
        used=used,
        own=mask[grid],
        shared=np.array(shared, dtype=np.intp).reshape(-1, 2),
        row_order=tuple(int(i) for i in rows),
        column_order=tuple(int(j) for j in columns),
        units=units,
        left_out=tuple(name for name, moves in zip(matrix.targets, moved, strict=True) if not moves),
        no_level=_without_level(targets, mean, based, units),
    )


def _without_level(targets: Sequence[str], mean: Array, based: Mask, units: Units) -> dict[str, str]:
    """Targets whose gains cannot be held against those of other targets, and why.

    mean: (T,) of the gains. based: (T,) whether the base is known. In standard deviations of a target on
    which sources hardly differ, what all of them gain is any number of these: it would be the mean of all
    targets too.
    """
    reasons = {name: NO_BASE for name, known in zip(targets, based, strict=True) if not known}
    if units == "standard" and based.any():
        most = _MOST_LEVEL * max(1.0, float(np.median(np.abs(mean[based]))))
        for name, level, known in zip(targets, mean, based, strict=True):
            if known and abs(level) > most:
                reasons[name] = HARDLY_VARIES
    return reasons


def usual_units(matrix: TransferMatrix) -> Units:
    """``points`` where the metric of every target is known and a share; else ``standard``.

    A table that does not name its metrics may be in any unit, and every target in its own: what is said of it
    must not depend on that.
    """
    metrics = {cell.target: metric(cell.metric) for cell in matrix.cells if cell.metric}
    values = np.vstack([matrix.baseline, matrix.values])
    known = np.isfinite(values)
    within = ((values >= 0) & (values <= 1) | ~known).all(axis=0)
    shares = [name in metrics and metrics[name].unit == SHARE for name in matrix.targets]
    return "points" if all(shares) and bool(within.all()) else "standard"


def _gains(matrix: TransferMatrix, noise: Array | None) -> tuple[Array, Array]:
    """(S, T) gains in points, positive where the source is better than the base, and their standard errors.

    Where the base is unknown the values stand for the gains; they are held against their mean later.
    """
    base = np.where(np.isfinite(matrix.baseline), matrix.baseline, 0.0)
    factor = np.ones(matrix.values.shape[1])
    known = np.isfinite(matrix.values).any(axis=0)
    factor[known] = points_per_unit(matrix.values[:, known])
    errors = _cell_errors(matrix) if noise is None else np.asarray(noise, dtype=float)
    if errors.shape != matrix.values.shape:
        raise MatrixError(
            f"noise has shape {errors.shape}, but the matrix has {matrix.values.shape} (sources, targets); "
            "give one standard error for each gain, NaN where unknown"
        )
    better = np.array([1.0 if matrix.higher_is_better.get(name, True) else -1.0 for name in matrix.targets])
    return (matrix.values - base) * (factor * better), errors * factor


def _cell_errors(matrix: TransferMatrix) -> Array:
    """(S, T) standard errors of the gains, read off their 95 % intervals; NaN where there is none."""
    rows = {name: i for i, name in enumerate(matrix.sources)}
    columns = {name: j for j, name in enumerate(matrix.targets)}
    errors = np.full(matrix.values.shape, np.nan)
    for cell in matrix.cells:
        if cell.seed is None and cell.source in rows and cell.target in columns:
            width = cell.gain_high - cell.gain_low
            errors[rows[cell.source], columns[cell.target]] = error_of_width(width, z_value())
    return errors


def _require_pairs(matrix: TransferMatrix, used: Mask) -> None:
    rows, columns = used.shape
    freedom = int(used.sum()) - (rows + columns - 1)
    if rows < 3 or columns < 3 or freedom < LEAST_FREEDOM:
        raise MatrixError(
            f"an explanation needs at least 3 sources, 3 targets and {LEAST_FREEDOM} pairs more than "
            f"effects; of {len(matrix.sources)} x {len(matrix.targets)} only {rows} x {columns} with "
            f"{int(used.sum())} pairs are left after own tasks, missing cells and targets that no source "
            "moves; evaluate more sources on more targets"
        )


def effect_basis(used: Mask) -> Array:
    """(n, r) orthonormal basis of source and target effects over the used pairs (S, T).

    r is S + T - 1 where the pairs hang together.
    """
    rows, columns = np.nonzero(used)
    n_rows = len(used)
    counts = used.astype(float)
    gram = np.block(
        [[np.diag(counts.sum(axis=1)), counts], [counts.T, np.diag(counts.sum(axis=0))]]
    )  # of the dummies, so that no matrix larger than S + T is decomposed
    values, vectors = np.linalg.eigh(gram)
    large = values > 1e-9 * max(float(values.max(initial=0.0)), 1.0)
    weights = vectors[:, large] / np.sqrt(values[large])
    return np.asarray(weights[rows] + weights[n_rows + columns])


def with_features(basis: Array, columns: Array) -> Array:
    """(n, r + k) orthonormal basis of what the basis (n, r) and further columns (n, k) span.

    It has fewer columns where those depend on each other, or on the basis.
    """
    if not columns.shape[1]:
        return basis
    outside = residual(columns, basis)
    size = np.linalg.norm(columns, axis=0) + 1e-300
    u, singular, _ = np.linalg.svd(outside / size, full_matrices=False)
    further = residual(u[:, singular > 1e-7], basis)
    return np.column_stack([basis, np.linalg.qr(further)[0]]) if further.shape[1] else basis


def residual(values: Array, basis: Array) -> Array:
    """(n,) or (n, k) what of the values lies outside the space of the orthonormal basis (n, r).

    The same shape as the values. What rounding alone leaves is 0, so that it is never taken for an effect.
    """
    outside = values - basis @ (basis.T @ values)
    rounding = ROUNDING * np.abs(values).max(axis=0, initial=0.0)
    return np.asarray(np.where(np.abs(outside) > rounding, outside, 0.0))


def ascending(values: Array) -> Order:
    """(n,) places of the values (n,) from the smallest up; what differs by rounding alone keeps its order.

    The order of ties then depends neither on the unit of a table nor on the machine.
    """
    finite = np.abs(values[np.isfinite(values)])
    scale = float(finite.max(initial=0.0)) or 1.0
    return np.argsort(np.round(values / scale, _EQUAL), kind="stable")


def two_way_residual(values: Array, known: Mask) -> Array:
    """(S, T) values less source and target effects, fitted over the known pairs; 0 where unknown.

    A pair without a known value then carries no information, wherever a permutation puts it.
    """
    filled = np.zeros(values.shape)
    if known.any():
        # Centred first: a large common level would cost digits.
        filled[known] = residual(values[known] - values[known].mean(), effect_basis(known))
    return filled


def node_permutations(design: Design, draws: int, seed: int) -> Moves:
    """(B, n) permutations of whole tasks: the unit that was sampled is the task, not the pair.

    With the scheme ``joint`` tasks in common move as source and target at once; tasks on one side alone move
    among themselves. draws: B.
    """
    generator = np.random.default_rng(seed)
    rows, columns = design.cells
    n_rows, n_columns = design.used.shape
    shared = design.shared if design.scheme == "joint" else np.empty((0, 2), dtype=np.intp)
    alone_rows = np.setdiff1d(np.arange(n_rows), shared[:, 0])
    alone_columns = np.setdiff1d(np.arange(n_columns), shared[:, 1])
    index = np.empty((draws, len(rows)), dtype=np.int32)
    for draw in range(draws):
        to_row, to_column = np.arange(n_rows), np.arange(n_columns)
        order = generator.permutation(len(shared))
        to_row[shared[:, 0]], to_column[shared[:, 1]] = shared[order, 0], shared[order, 1]
        to_row[alone_rows] = generator.permutation(alone_rows)
        to_column[alone_columns] = generator.permutation(alone_columns)
        index[draw] = to_row[rows] * n_columns + to_column[columns]
    return index


@dataclass(frozen=True)
class Composite:
    """members: names of features; those that are distances are turned around.

    otherwise: members that stand in where effects have left nothing of the first ones.
    """

    name: str
    group: Group
    words: str
    members: tuple[str, ...]
    otherwise: tuple[str, ...] = ()


# One construct each: a composite that mixes two passes the effect of one on to whatever goes with the
# other. What is left out of them is still tested by itself. benchmarks/explain_planted.py holds them to it.
COMPOSITES: tuple[Composite, ...] = (
    Composite("output length", "hidden", "outputs as long as the target's", ("output_length_distance",)),
    Composite(
        "class balance", "hidden", "classes as evenly spread as the target's", ("class_entropy_difference",)
    ),
    Composite(
        "answer words",
        "hidden",
        "the target's answer words, in its shares",
        ("label_overlap", "prior_distance"),
        ("answer_form_distance", "format_distance"),
    ),
    Composite("syntax", "hidden", "dependency relations as the target's", ("syntax_distance",)),
    Composite("style", "surface", "style alike", ("style_cosine",)),
    Composite("content", "surface", "content and words alike", ("semantic_cosine", "vocabulary_overlap")),
)


@dataclass(frozen=True)
class PreparedFeatures:
    """Features as they are tested. values: (S, T, k) free of effects, 0 where unknown, higher more alike.

    raw: (S, T, k) before effects were taken out, NaN where unknown.
    """

    names: tuple[str, ...]
    groups: tuple[Group, ...]
    words: tuple[str, ...]
    members: tuple[tuple[str, ...], ...]
    values: Array
    raw: Array


# name, group, words, members, values free of effects (S, T), values before (S, T)
Prepared = tuple[str, Group, str, tuple[str, ...], Array, Array]


def is_distance(name: str) -> bool:
    """Whether a feature is larger the less alike source and target are, by its name.

    Such features are turned around before they are tested.
    """
    return name.endswith(("_distance", "_difference")) or name == "mmd"


def aligned(features: PairFeatures, design: Design) -> tuple[Feature, ...]:
    """Features over the sources and targets of the design; NaN where they lack one.

    Raises MatrixError where features and matrix have too few names in common.
    """
    lacking = (
        [name for name in design.sources if name not in features.sources],
        [name for name in design.targets if name not in features.targets],
    )
    if len(design.sources) - len(lacking[0]) < 3 or len(design.targets) - len(lacking[1]) < 3:
        raise MatrixError(
            "features or texts fit too few sources and targets of the matrix; lacking are sources "
            f"{', '.join(lacking[0]) or 'none'} and targets {', '.join(lacking[1]) or 'none'}; "
            f"there are {', '.join(features.sources[:8])} ... Name tasks in the texts as in the matrix"
        )
    return _with_disjoint_priors(features.over(design.sources, design.targets).features)


def _with_disjoint_priors(features: Sequence[Feature]) -> tuple[Feature, ...]:
    """Where no class word is shared, or one side has no classes, overlap is 0 and total variation 1.

    Pairs of which one has no texts at all stay unknown, as in the form of their answers.
    """
    values = {feature.name: feature.values for feature in features}
    if "label_overlap" not in values or "answer_form_distance" not in values:
        return tuple(features)
    known = np.isfinite(values["answer_form_distance"])
    none = known & ~(values["label_overlap"] > 0)
    disjoint = {"label_overlap": 0.0, "prior_distance": 1.0}
    return tuple(
        replace(feature, values=np.where(none, disjoint[feature.name], feature.values))
        if feature.name in disjoint
        else feature
        for feature in features
    )


def prepare_alone(features: Sequence[Feature], own: Mask) -> PreparedFeatures:
    """Every feature of pairs that the effects do not take away altogether, each by itself.

    own: (S, T) pairs of a source and its own task, on which features count as unknown.
    """
    prepared: list[Prepared] = []
    for feature in features:
        if feature.scope == "pair":
            raw = np.where(own, np.nan, -feature.values if is_distance(feature.name) else feature.values)
            values = two_way_residual(raw, np.isfinite(raw))
            prepared.append((feature.name, feature.group, feature.words, (feature.name,), values, raw))
    return _prepared(prepared, own.shape)


def prepare_composites(
    alone: PreparedFeatures, composites: Sequence[Composite], own: Mask
) -> PreparedFeatures:
    """The composites that have a known member, with the members that each is made of.

    alone: the features by themselves, see ``prepare_alone``. own: (S, T).
    """
    place = {name: i for i, name in enumerate(alone.names)}
    prepared: list[Prepared] = []
    for composite in composites:
        members = tuple(name for name in composite.members if name in place)
        members = members or tuple(name for name in composite.otherwise if name in place)
        if members:
            columns = [place[name] for name in members]
            values, raw = alone.values[..., columns], alone.raw[..., columns]
            within = _mean_of(values, values, raw)
            # of members free of effects: a member unknown on some pairs must not bring its effects back
            free = two_way_residual(within, np.isfinite(within))
            mean = _mean_of(raw, values, raw)
            prepared.append((composite.name, composite.group, composite.words, members, free, mean))
    return _prepared(prepared, own.shape)


def _prepared(features: Sequence[Prepared], shape: tuple[int, ...]) -> PreparedFeatures:
    """Those of which source and target effects leave anything, one beside the other."""
    usable = []
    for feature in features:
        values, raw = feature[4:]
        known = np.isfinite(raw)
        if known.sum() >= 3:
            centred = raw[known] - raw[known].mean()
            size = float(centred @ centred)
            if size > 0 and float((values**2).sum()) > _ABSORBED * size:
                usable.append(feature)
    names, groups, words, members, arrays, raws = zip(*usable, strict=True) if usable else [()] * 6
    empty = np.empty((*shape, 0))
    return PreparedFeatures(
        names=names,
        groups=groups,
        words=words,
        members=members,
        values=np.stack(arrays, axis=-1) if usable else empty,
        raw=np.stack(raws, axis=-1) if usable else empty,
    )


def default_composites(alone: PreparedFeatures, tasks: int) -> tuple[Composite, ...]:
    """The fixed composites; where none of their members is there, each feature by itself if tasks allow.

    tasks: how many there are; a third as many features, or two, can be held beside each other.
    """
    known = set(alone.names)
    if any(known & set(composite.members) for composite in COMPOSITES):
        return COMPOSITES
    if len(alone.names) > max(2, tasks // 3):
        return ()
    return tuple(
        Composite(name, group, words, (name,))
        for name, group, words in zip(alone.names, alone.groups, alone.words, strict=True)
    )


def grouped(groups: Sequence[Group]) -> Mapping[Group, tuple[int, ...]]:
    """Columns of each group that has any, in the order hidden, surface, size.

    groups: of every column.
    """
    order: tuple[Group, ...] = ("hidden", "surface", "size")
    return {
        group: tuple(i for i, name in enumerate(groups) if name == group)
        for group in order
        if group in groups
    }


def _mean_of(members: Array, within: Array, raw: Array) -> Array:
    """(S, T) mean of the known members (S, T, k), centred, in standard deviations after effects."""
    total, count = np.zeros(raw.shape[:2]), np.zeros(raw.shape[:2])
    for i in range(raw.shape[2]):
        known = np.isfinite(raw[..., i])
        centred = members[..., i] - members[known, i].mean()
        total += np.where(known, centred / within[known, i].std(), 0.0)
        count += known
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
