"""Few composites of many features, fixed before any gain is seen: what a joint regression can carry.

Ten tasks cannot tell forty features apart. Each composite is the mean of its known members, every member
free of source and target effects, in standard deviations, and turned so that higher means more alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from traitmap.analysis.explanation.design import Design, Mask, two_way_residual
from traitmap.analysis.pair_features import Feature, Group, PairFeatures
from traitmap.errors import MatrixError
from traitmap.matrix_record import Array

_ABSORBED = 1e-9  # share of a feature's variance below which effects have taken all of it


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
    Composite("content", "surface", "meaning and words alike", ("semantic_cosine", "vocabulary_overlap")),
)


@dataclass(frozen=True)
class Prepared:
    """Features as they are tested. values: (S, T, k) free of effects, 0 where unknown, higher more alike.

    raw: (S, T, k) before effects were taken out, NaN where unknown.
    """

    names: tuple[str, ...]
    groups: tuple[Group, ...]
    words: tuple[str, ...]
    members: tuple[tuple[str, ...], ...]
    values: Array
    raw: Array


def is_distance(name: str) -> bool:
    """Whether a feature is larger the less alike source and target are."""
    return name.endswith(("_distance", "_difference")) or name == "mmd"


def aligned(features: PairFeatures, design: Design) -> tuple[Feature, ...]:
    """Features over the sources and targets of the design; NaN where they lack one.

    Raises MatrixError where features and matrix have too few names in common.
    """
    rows = {name: i for i, name in enumerate(features.sources)}
    columns = {name: j for j, name in enumerate(features.targets)}
    lacking = [s for s in design.sources if s not in rows], [t for t in design.targets if t not in columns]
    if len(design.sources) - len(lacking[0]) < 3 or len(design.targets) - len(lacking[1]) < 3:
        raise MatrixError(
            "features or texts fit too few sources and targets of the matrix; lacking are sources "
            f"{', '.join(lacking[0]) or 'none'} and targets {', '.join(lacking[1]) or 'none'}; "
            f"there are {', '.join(features.sources[:8])} ... Name tasks in the texts as in the matrix"
        )
    chosen_rows = [rows.get(name, -1) for name in design.sources]
    chosen_columns = [columns.get(name, -1) for name in design.targets]
    found = []
    for one in features.features:
        padded = np.full((len(rows) + 1, len(columns) + 1), np.nan)
        padded[:-1, :-1] = one.values
        values = padded[np.ix_(chosen_rows, chosen_columns)]
        found.append(Feature(one.name, one.group, one.words, values, one.scope))
    return _with_disjoint_priors(found)


def _with_disjoint_priors(features: Sequence[Feature]) -> tuple[Feature, ...]:
    """Where no class word is shared, or one side has no classes, overlap is 0 and total variation 1.

    Pairs of which one has no texts at all stay unknown, as in the form of their answers.
    """
    values = {one.name: one.values for one in features}
    if "label_overlap" not in values or "answer_form_distance" not in values:
        return tuple(features)
    read = np.isfinite(values["answer_form_distance"])
    none = read & ~(values["label_overlap"] > 0)
    disjoint = {"label_overlap": 0.0, "prior_distance": 1.0}
    return tuple(
        replace(one, values=np.where(none, disjoint[one.name], one.values)) if one.name in disjoint else one
        for one in features
    )


def prepare_alone(features: Sequence[Feature], own: Mask) -> Prepared:
    """Every feature of pairs that the effects do not take away altogether, each by itself."""
    kept: list[tuple[Feature, Array, Array]] = []
    for one in features:
        if one.scope != "pair":
            continue
        raw = -one.values if is_distance(one.name) else one.values
        raw = np.where(own, np.nan, raw)
        values = two_way_residual(raw, np.isfinite(raw))
        if _left(values, raw):
            kept.append((one, values, raw))
    return _prepared(
        [one.name for one, _, _ in kept],
        [one.group for one, _, _ in kept],
        [one.words for one, _, _ in kept],
        [(one.name,) for one, _, _ in kept],
        [values for _, values, _ in kept],
        [raw for _, _, raw in kept],
        own.shape,
    )


def prepare_composites(alone: Prepared, composites: Sequence[Composite], own: Mask) -> Prepared:
    """The composites that have a known member."""
    place = {name: i for i, name in enumerate(alone.names)}
    kept: list[tuple[Composite, tuple[str, ...], Array, Array]] = []
    for one in composites:
        members = tuple(name for name in one.members if name in place)
        members = members or tuple(name for name in one.otherwise if name in place)
        if not members:
            continue
        chosen = [place[name] for name in members]
        within = _mean_of(alone.values[..., chosen], alone.values[..., chosen], alone.raw[..., chosen])
        raw = _mean_of(alone.raw[..., chosen], alone.values[..., chosen], alone.raw[..., chosen])
        # of members free of effects: a member unknown on some pairs must not bring its effects back
        values = two_way_residual(within, np.isfinite(within))
        if _left(values, raw):
            kept.append((one, members, values, raw))
    return _prepared(
        [one.name for one, _, _, _ in kept],
        [one.group for one, _, _, _ in kept],
        [one.words for one, _, _, _ in kept],
        [members for _, members, _, _ in kept],
        [values for _, _, values, _ in kept],
        [raw for _, _, _, raw in kept],
        own.shape,
    )


def default_composites(alone: Prepared, tasks: int) -> tuple[Composite, ...]:
    """The fixed composites; where none of their members is there, each feature by itself if tasks allow."""
    known = set(alone.names)
    if any(known & set(one.members) for one in COMPOSITES):
        return COMPOSITES
    if len(alone.names) > max(2, tasks // 3):
        return ()
    return tuple(
        Composite(name, group, words, (name,))
        for name, group, words in zip(alone.names, alone.groups, alone.words, strict=True)
    )


def grouped(groups: Sequence[Group]) -> Mapping[Group, tuple[int, ...]]:
    """Columns of each group that has any, in the order hidden, surface, size."""
    order: tuple[Group, ...] = ("hidden", "surface", "size")
    return {
        group: tuple(i for i, one in enumerate(groups) if one == group) for group in order if group in groups
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


def _left(values: Array, raw: Array) -> bool:
    """Whether anything is left of a feature after source and target effects."""
    known = np.isfinite(raw)
    if known.sum() < 3:
        return False
    centred = raw[known] - raw[known].mean()
    size = float(centred @ centred)
    return size > 0 and float((values**2).sum()) > _ABSORBED * size


def _prepared(
    names: Sequence[str],
    groups: Sequence[Group],
    words: Sequence[str],
    members: Sequence[tuple[str, ...]],
    values: Sequence[Array],
    raw: Sequence[Array],
    shape: tuple[int, ...],
) -> Prepared:
    def stacked(arrays: Sequence[Array]) -> Array:
        return np.stack(arrays, axis=-1) if arrays else np.empty((*shape, 0))

    return Prepared(tuple(names), tuple(groups), tuple(words), tuple(members), stacked(values), stacked(raw))
