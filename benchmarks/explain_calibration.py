"""How often do ``explain`` and the profile of a run see what is not there, and what is?

    python benchmarks/explain_calibration.py                 all of it, about an hour on one core
    python benchmarks/explain_calibration.py level power      some of them
    python benchmarks/explain_calibration.py --out benchmarks/results/DATE-calibration.json

``zero`` and ``items`` take every verdict that a user can read where there is nothing to be called, with equal
and with unequal spreads. Studies come from tests/planted_pairs.py; each has its own fixed seed, and one study
tests all verdicts at once. ``--out`` keeps what was counted, every ``SAVED`` studies, and goes on from there;
``python docs/calibration_tables.py`` writes the tables of docs/explanation.md from it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import record
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from planted import matrix_of
from planted_pairs import Shape, names_of, nearness, simulated
from traitmap.analysis.explanation.design import (
    Composite,
    Units,
    aligned,
    effect_basis,
    make_design,
    node_permutations,
    prepare_alone,
    prepare_composites,
    two_way_residual,
)
from traitmap.analysis.explanation.dominance import group_dominance
from traitmap.analysis.explanation.dose import difference_in_differences, dose_response, format_part
from traitmap.analysis.explanation.explain import explain
from traitmap.analysis.explanation.levels import both_strengths, row_strengths
from traitmap.analysis.explanation.pairs import asymmetry, odd_cells
from traitmap.analysis.explanation.permutation import mantel, slope_of
from traitmap.analysis.profiles.cell_classes import cell_classes
from traitmap.analysis.profiles.cell_items import TargetItems
from traitmap.analysis.profiles.cell_lengths import CellLengths, LengthComparison, interpolation
from traitmap.analysis.profiles.cells import length_trends
from traitmap.analysis.profiles.lengths import UNKNOWN, distribution_of
from traitmap.analysis.profiles.pairs import Feature, Group, PairFeatures
from traitmap.analysis.profiles.relations import win_test
from traitmap.matrix.statistics import NO_CHANGE_KNOWN, grouped, paired_gain, unknown

Study = Callable[[int], dict[str, float]]  # seed -> what is called (1) or holds the truth (1), by verdict
Rows = Iterator[tuple[str, Study]]  # name of a row, and its studies
Rates = dict[str, dict[str, float]]  # verdict -> mean, sd, n (tested) over studies

STUDIES = 400  # a rate of 5 % is then known to 1.1 points
SAVED = 50
ZERO_PERMUTATIONS = 199
ITEMS, ADAPTERS, DOSES = 120, 8, (0.0, 0.25, 0.5, 0.75, 1.0)
PERMUTATIONS = 999
SHAPES = (
    Shape(10, 10),
    Shape(12, 12),
    Shape(11, 10),
    Shape(22, 21),
    Shape(8, 14, shared=False),
    Shape(12, 12, missing=0.2),
)


def _slopes(shape: Shape, effect: float, others: int, seed: int) -> dict[str, float]:
    """One feature with an effect (0: none), beside others that partly copy it."""
    matrix, features = simulated(shape, effect, seed, others)
    design = make_design(matrix)
    prepared = prepare_alone(aligned(features, design), design.own)
    moves = node_permutations(design, PERMUTATIONS, seed)
    basis = effect_basis(design.used)
    slope = slope_of(design.y, prepared.values[..., 0], prepared.values[..., 1:], design.used, basis, moves)
    second = mantel(design.y, prepared.raw[..., 0], design.used, moves)
    return {
        "MRQAP calls": slope.p < 0.05,
        "its interval": slope.low <= effect <= slope.high,
        "Mantel": second.p < 0.05,
        "naive Pearson": second.naive_p < 0.05,
    }


def level() -> Rows:
    """False positives with node effects and no effect of the feature."""
    for shape in SHAPES:
        yield str(shape), partial(_slopes, shape, 0.0, 0)
    yield f"{SHAPES[1]}, beside two that partly copy it", partial(_slopes, SHAPES[1], 0.0, 2)


def power() -> Rows:
    """Planted effects that are found; at the smallest detectable effect it should be four in five."""
    for shape in SHAPES:
        yield str(shape), partial(_slopes, shape, 0.5, 0)
    yield f"{SHAPES[1]}, beside two that partly copy it", partial(_slopes, SHAPES[1], 0.5, 2)
    for shape in SHAPES[:2]:
        yield f"{shape}, at the smallest detectable effect", partial(_at_detectable, shape)


def _at_detectable(shape: Shape, seed: int) -> dict[str, float]:
    """A study of the effect that another study without any names as detectable with 80 % power."""
    matrix, features = simulated(shape, 0.0, seed + 10_000)
    design = make_design(matrix)
    prepared = prepare_alone(aligned(features, design), design.own)
    moves = node_permutations(design, PERMUTATIONS, seed)
    basis = effect_basis(design.used)
    none = prepared.values[..., :0]
    named = slope_of(design.y, prepared.values[..., 0], none, design.used, basis, moves).detectable
    return {name: value for name, value in _slopes(shape, named, 0, seed).items() if name == "MRQAP calls"}


def shares() -> Rows:
    """The share beyond chance of a group, with and without an effect, and hidden less surface."""
    for shape in (Shape(10, 10), Shape(12, 12), Shape(8, 14, shared=False)):
        for effect, both in ((0.0, False), (0.5, False), (0.5, True)):
            words = f"effect {effect}{' of both' if both else ' of hidden' if effect else ''}"
            yield f"{shape}, {words}", partial(_shares, shape, effect, both)


def _shares(shape: Shape, effect: float, both: bool, seed: int) -> dict[str, float]:
    """Shares of a hidden and a surface feature. both: they are unrelated and have the same effect."""
    matrix, features = simulated(shape, 0.0 if both else effect, seed, 1)
    if both:
        generator = np.random.default_rng([seed, 29])
        pair = [replace(one, values=nearness(shape, generator)) for one in features.features]
        features = replace(features, features=tuple(pair))
        foreign = np.array([[s != t for t in matrix.targets] for s in matrix.sources])
        within = [two_way_residual(one.values, foreign) for one in pair]
        scatter = two_way_residual(matrix.values, foreign)
        gains = np.sqrt(1 - 2 * effect**2) * scatter / scatter[foreign].std()
        gains = gains + effect * sum(part / part[foreign].std() for part in within)
        matrix = replace(matrix, values=gains)
    design = make_design(matrix)
    alone = prepare_alone(aligned(features, design), design.own)
    single = tuple(Composite(f.name, f.group, f.words, (f.name,)) for f in features.features)
    joint = prepare_composites(alone, single, design.own)
    found = group_dominance(design, joint, node_permutations(design, 299, seed))
    hidden, surface = (0.0, 0.0) if both else _true_shares(effect, joint.values[design.used])
    beyond, gap = found.groups[0].beyond, found.hidden_less_surface
    rates = {
        "hidden properties called": found.groups[0].p < 0.05,
        "hidden against surface called": found.verdict == "yes",
        "interval of hidden less surface": gap.low <= hidden - surface <= gap.high,
    }
    return rates if both else {**rates, "interval of hidden": beyond.low <= hidden <= beyond.high}


def _true_shares(effect: float, x: np.ndarray) -> tuple[float, float]:
    """General dominance of the feature with the effect and of its copy, at their correlation."""
    r = float(np.corrcoef(x.T)[0, 1])
    alone, copy = effect**2, (effect * r) ** 2
    return (alone + effect**2 - copy) / 2, (copy + effect**2 - alone) / 2


def odd() -> Rows:
    """Odd cells where there is noise alone, and one cell that departs by six of its errors."""
    for shape in (Shape(10, 10), Shape(12, 12)):
        yield str(shape), partial(_odd, shape)


def _odd(shape: Shape, seed: int) -> dict[str, float]:
    generator = np.random.default_rng([seed, 5])
    matrix, features = simulated(shape, 0.0, seed)
    noise = np.exp(0.5 * generator.normal(size=matrix.values.shape))
    effects = generator.normal(size=(shape.sources, 1)) + generator.normal(size=(1, shape.targets))
    rates = {}
    for planted, name in ((0.0, "any called, noise alone"), (6.0, "a departure of six errors found")):
        values = effects + noise * generator.normal(size=noise.shape)
        values[2, 5] += planted * noise[2, 5]
        plain = type(matrix)(matrix.sources, matrix.targets, values, matrix.baseline)
        design = make_design(plain, noise=noise)
        alone = prepare_alone(aligned(features, design), design.own)
        beyond = [one for one in odd_cells(design, alone.values, {}).cells if one.q_noise < 0.05]
        there = ("task02", "task05") in [(one.source, one.target) for one in beyond]
        rates[name] = there if planted else bool(beyond)
    return rates


def strengths() -> Rows:
    """Donors where no source is better than another, and intervals of true strengths."""
    for size in (8, 10):
        yield f"{size} x {size}, unequal, standardised", partial(_standardised, Shape(size, size))
    for shape in (Shape(10, 10), Shape(12, 12), Shape(8, 14, shared=False)):
        yield f"{shape}, spreads of targets unlike", partial(_strengths, shape)


def _standardised(shape: Shape, seed: int) -> dict[str, float]:
    """Donors and recipients of gains in standard deviations, where sources and targets scatter unlike."""
    generator = np.random.default_rng([seed, 143])
    size = (shape.sources, shape.targets)
    gains = generator.normal(size=size) * _unlike(size, 0.7, generator)
    design = make_design(matrix_of(gains, *names_of(shape)), units="standard")
    plain = row_strengths(design.sources, design.gains, design.used, draws=19, seed=seed)
    donors, recipients = both_strengths(design, draws=19, seed=seed)
    sides = {"donor": donors, "recipient": recipients, "donor, drawn tables not standardised": plain}
    return {f"any {side}": any(one.q < 0.05 for one in found) for side, found in sides.items()}


def _strengths(shape: Shape, seed: int) -> dict[str, float]:
    generator = np.random.default_rng([seed, 9])
    used = np.ones((shape.sources, shape.targets), dtype=bool)
    if shape.shared:
        np.fill_diagonal(used, False)
    spread = np.exp(generator.normal(size=(1, shape.targets)))
    noise = spread * generator.normal(size=used.shape) + 3 * generator.normal(size=spread.shape)
    names = tuple(map(str, range(shape.sources)))
    null = row_strengths(names, noise, used, draws=19, seed=seed)
    truth = generator.normal(size=shape.sources)
    truth -= truth.mean()
    found = row_strengths(names, noise + truth[:, None], used, draws=19, seed=seed)
    held = [one.effect.low <= t <= one.effect.high for one, t in zip(found, truth, strict=True)]
    return {
        "any donor": any(one.q < 0.05 for one in null),
        "interval of strength": np.mean(held),
    }


def zero() -> Rows:
    """Every verdict on pairs and tasks where nothing is to be called."""
    for size, spread, together, units in (
        (10, 0.7, False, "standard"),
        (10, 0.7, False, "points"),
        (10, 0.0, False, "standard"),
        (10, 0.0, True, "standard"),
        (10, 0.7, True, "standard"),
        (8, 0.7, False, "standard"),
        (14, 0.7, False, "standard"),
    ):
        spreads = f"{'unequal' if spread else 'equal'}{', by task' if together else ''}"
        name = f"{size} x {size}, {spreads}{', in points' if units == 'points' else ''}"
        yield name, partial(_at_zero, Shape(size, size), spread, together, units)


def _unlike(size: tuple[int, int], spread: float, generator: np.random.Generator) -> np.ndarray:
    """(S, T) scatter of each pair: that of its source times that of its target."""
    logs = spread * generator.normal(size=(size[0], 1)) + spread * generator.normal(size=(1, size[1]))
    return np.exp(logs)


def _features(shape: Shape, generator: np.random.Generator) -> tuple[Feature, ...]:
    """Features of pairs under the names of all composites, and of sources and targets alone."""
    names: tuple[tuple[str, Group], ...] = (
        ("output_length_distance", "hidden"),
        ("class_entropy_difference", "hidden"),
        ("label_overlap", "hidden"),
        ("prior_distance", "hidden"),
        ("syntax_distance", "hidden"),
        ("style_cosine", "surface"),
        ("semantic_cosine", "surface"),
        ("vocabulary_overlap", "surface"),
    )
    size = (shape.sources, shape.targets)
    pairs = [Feature(name, group, name, nearness(shape, generator)) for name, group in names]
    for side in ("source", "target"):
        for number in range(4):
            along = (size[0], 1) if side == "source" else (1, size[1])
            values = np.broadcast_to(generator.normal(size=along), size)
            pairs.append(Feature(f"{side}_property_{number}", "size", "property", values, side))
    return tuple(pairs)


def _at_zero(shape: Shape, spread: float, together: bool, units: Units, seed: int) -> dict[str, float]:
    """Which verdicts say yes, and which intervals hold the truth, in one study of a true 0.

    spread: standard deviation of the logarithm of each source's and each target's scatter. together: sources
    and targets have positions (unlike ones, so that no direction says anything of the other) that make part
    of the scatter. What is held against the noise of cells is in points, where that is known as a rule.
    """
    generator = np.random.default_rng([seed, 43])
    size = (shape.sources, shape.targets)
    scatter = generator.normal(size=size)
    if together:
        scatter += generator.normal(size=(size[0], 2)) @ generator.normal(size=(2, size[1]))
    unlike = _unlike(size, spread, generator)
    scatter *= unlike
    sources, targets = names_of(shape)
    gains = scatter + generator.normal(size=(size[0], 1)) + 2 * generator.normal(size=(1, size[1]))
    matrix = matrix_of(gains, sources, targets)
    features = PairFeatures(tuple(sources), tuple(targets), _features(shape, generator))
    found = explain(matrix, features=features, units=units, n_permutations=ZERO_PERMUTATIONS, seed=seed)
    noise = unlike * np.exp(0.5 * generator.normal(size=size))
    # the same true gain both ways, and noise alone
    level = generator.normal(size=max(size))
    noisy = level[: size[0], None] + level[None, : size[1]] + noise * generator.normal(size=size)
    measured = make_design(matrix_of(noisy, sources, targets), noise=noise)
    # no source and no target better than another
    even = make_design(matrix_of(scatter, sources, targets), units=units)
    donors, recipients = both_strengths(even, draws=19, seed=seed)
    design = make_design(matrix, units=units)
    nothing = np.zeros((*size, 0))
    shares = found.dominance.groups
    return {
        "a source taken for a copy": bool(found.conditions["near_copies"]),
        "a composite beside the others (p)": np.mean([one.p < 0.05 for one in found.joint]),
        "its interval": np.mean([one.effect.low <= 0 <= one.effect.high for one in found.joint]),
        "any composite: yes": any(one.verdict == "yes" for one in found.joint),
        "any feature by itself: yes": any(one.verdict == "yes" for one in found.alone),
        "a group's share (p)": np.mean([one.p < 0.05 for one in shares]),
        "its interval beyond chance": np.mean([one.beyond.low <= 0 <= one.beyond.high for one in shares]),
        "hidden against surface": found.dominance.verdict == "yes",
        "a property of tasks (p)": np.mean([one.p < 0.05 for one in found.levels]),
        "its correlation's interval": np.mean([one.r.low <= 0 <= one.r.high for one in found.levels]),
        "any property of tasks: yes": any(one.verdict == "yes" for one in found.levels),
        "reciprocity": found.asymmetry.p < 0.05,
        "reciprocity's interval": found.asymmetry.reciprocity.low <= 0 <= found.asymmetry.reciprocity.high,
        "any pair asymmetric": any(one.q < 0.05 for one in asymmetry(measured, draws=19, seed=0).pairs),
        "any donor": any(one.q < 0.05 for one in donors),
        "a donor's interval": np.mean([one.effect.low <= 0 <= one.effect.high for one in donors]),
        "any recipient": any(one.q < 0.05 for one in recipients),
        "a recipient's interval": np.mean([one.effect.low <= 0 <= one.effect.high for one in recipients]),
        "any pair odd, noise unknown": bool(odd_cells(design, nothing, {}).odd),
        "any pair beyond known noise": bool(odd_cells(measured, nothing, {}).beyond_noise),
    }


def items() -> Rows:
    """Every verdict on answers where nothing is to be called, by seeds and by how unlike adapters scatter."""
    for seeds in (1, 3):
        for unequal in (True, False):
            for repeats in (3, 1):
                name = f"{seeds} seed{'s' * (seeds > 1)}, {'unequal' if unequal else 'equal'}"
                name += f", items {repeats} times" if repeats > 1 else ""
                yield name, partial(_answers_at_zero, seeds, unequal, repeats)


def _answers_at_zero(seeds: int, unequal: bool, repeats: int, seed: int) -> dict[str, float]:
    """Verdicts on answers of one study of a true 0: adapters as good as the base on the same items.

    unequal: items are of unlike difficulty, lengths have a long tail, and seeds of some adapters scatter more
    than those of others. repeats: how often each item is there, with the same answers.
    """
    generator = np.random.default_rng([seed, 47])
    count = ITEMS // repeats
    groups = np.repeat(np.arange(count), repeats) if repeats > 1 else None
    again = slice(None) if groups is None else groups
    moved = np.zeros((ADAPTERS, seeds, 1))
    if seeds > 1:
        twice = np.where(np.arange(ADAPTERS) % 2, 2.0, 0.5) if unequal else np.ones(ADAPTERS)
        moved = 0.3 * twice[:, None, None] * generator.normal(size=(ADAPTERS, seeds, 1))
    hard = (1.5 if unequal else 0.5) * generator.normal(size=(2, count))

    def answers(shift: np.ndarray) -> np.ndarray:
        """(2, ...) right or wrong on the items of two targets."""
        chance = 1 / (1 + np.exp(-(hard.reshape(2, *[1] * (shift.ndim - 1), count) + shift)))
        return (generator.random(chance.shape) < chance).astype(float)[..., again]

    right, base = answers(moved), answers(np.zeros(1))
    by_group, of_base = grouped(right, groups), grouped(base, groups)
    gain = paired_gain(right[0] - base[0], binary=True, groups=groups)
    trend = dose_response(DOSES, by_group[0, : len(DOSES)])
    contrast = difference_in_differences(
        {"own": by_group[0, 0], "other": by_group[1, 0]}, {"own": by_group[0, 1], "other": by_group[1, 1]}
    )
    content = format_part(by_group[0, 0], of_base[0], by_group[0, 1])
    present = (generator.random(count) < 0.3)[again]
    first = np.unique(np.arange(len(present)) if groups is None else groups, return_index=True)[1]
    wins, losses = ((right[0, 0] - base[0]) * way > 0 for way in (1, -1))
    relation = win_test(
        wins[:, first].sum(axis=0).astype(float),
        losses[:, first].sum(axis=0).astype(float),
        present[first],
        np.zeros(len(first), dtype=np.int64),
        seed=seed,
    )
    return {
        "gain of right answers (p)": np.mean(gain[3] < 0.05),
        "its interval": np.mean((gain[1] <= 0) & (gain[2] >= 0)),
        "dose and response (p)": trend.p < 0.05,
        "its slope's interval": trend.slope.low <= 0 <= trend.slope.high,
        "not monotone": trend.verdict == "not monotone",
        "balanced against unbalanced": contrast.p < 0.05,
        "its difference's interval": contrast.difference.low <= 0 <= contrast.difference.high,
        "content beyond format": content.p < 0.05,
        "a relation (p)": relation < 0.05 if np.isfinite(relation) else np.nan,
        **_classes_at_zero(hard[0], moved, groups, generator),
        **_lengths_at_zero(moved, 1.0 if unequal else 0.3, groups, generator),
    }


def _items_of(
    groups: np.ndarray | None,
    labels: tuple[str, ...],
    predicted: np.ndarray,
    gold: np.ndarray,
    lengths: np.ndarray,
) -> TargetItems:
    """One target's answers: rows are the base, then every seed of every adapter."""
    seeds = (len(predicted) - 1) // ADAPTERS
    named = [(f"source {i}", seed) for i in range(ADAPTERS) for seed in range(seeds)]
    return TargetItems(
        target="target",
        adapters=(("__baseline__", None), *named),
        labels=labels,
        gold=gold,
        predicted=predicted,
        parsed=np.ones(predicted.shape, dtype=bool),
        tokens=lengths,
        characters=lengths,
        stopped=np.ones(predicted.shape),
        gold_characters=np.full(len(gold), 10.0),
        generated=True,
        item_groups=groups,
    )


def _classes_at_zero(
    hard: np.ndarray, moved: np.ndarray, groups: np.ndarray | None, generator: np.random.Generator
) -> dict[str, float]:
    """Verdicts on classes: base and adapters answer by the same chances, the source's labels are unlike."""
    again = slice(None) if groups is None else groups
    rows = np.vstack([np.zeros((1, 1)), moved.reshape(-1, 1)])
    gold = (generator.random(len(hard)) < 0.6).astype(np.int64)
    knows = generator.random((len(rows), len(hard))) < 1 / (1 + np.exp(-(hard + rows)))
    predicted = np.where(knows, gold, 1 - gold)[:, again]
    items = _items_of(groups, ("yes", "no"), predicted, gold[again], np.ones(predicted.shape))
    labels = {f"source {i}": {"yes": 80, "no": 20} for i in range(ADAPTERS)}
    cells = [cell for cell in cell_classes(items, labels, draws=400) if cell.seed is None]
    metrics = [cell.gains[name] for cell in cells for name in ("macro_f1", "balanced_accuracy")]
    return {
        "class shares toward the source (p)": np.mean([cell.toward_prior.p < 0.05 for cell in cells]),
        "collapse onto one answer (p)": np.mean([cell.onto_commonest.p < 0.05 for cell in cells]),
        "interval of F1 and balanced accuracy": np.mean([one.low <= 0 <= one.high for one in metrics]),
    }


def _length_cell(source: str, own: float, mean: float) -> CellLengths:
    """A cell of which only the mean lengths of source and adapter are known."""
    nothing = distribution_of(np.empty(0), "not needed")
    known = {
        "source": replace(nothing, n=100, mean=float(own)),
        "adapter": replace(nothing, n=100, mean=mean),
    }
    unknowns = {name: unknown("not needed") for name in ("mean", "interpolation")}
    distances = ("to_base", "to_gold", "to_source", "base_to_gold", "base_to_source")
    compared = LengthComparison(
        unit="tokens",
        base=nothing,
        gold=nothing,
        change=NO_CHANGE_KNOWN,
        **known,
        **unknowns,
        **dict.fromkeys(distances, UNKNOWN),
    )
    shares = ("endless", "base_endless", "unparsed", "base_unparsed")
    return CellLengths(
        source=source,
        target="target",
        seed=None,
        written="generated",
        tokens=compared,
        characters=None,
        endless_change=NO_CHANGE_KNOWN,
        unparsed_change=NO_CHANGE_KNOWN,
        **dict.fromkeys(shares, unknown("not needed")),
    )


def _lengths_at_zero(
    moved: np.ndarray, tail: float, groups: np.ndarray | None, generator: np.random.Generator
) -> dict[str, float]:
    """Verdicts on lengths: adapters half way from the base's to a source's length, or where the base is."""
    again = slice(None) if groups is None else groups
    count = ITEMS if groups is None else int(groups.max()) + 1
    rows = np.vstack([np.zeros((1, 1)), moved.reshape(-1, 1)])
    topic = 0.7 * tail * generator.normal(size=count)
    own = 0.7 * tail * generator.normal(size=(len(rows), count))
    lengths = (20 * np.exp(topic + own + 0.2 * rows))[:, again]
    nothing = np.zeros(lengths.shape, dtype=np.int64)
    items = _items_of(groups, (), nothing, nothing[0], lengths)
    groups_of = [seed for _, seed, _ in items.groups]
    changes = [
        change
        for change, seed in zip(items.changes(lengths, binary=False), groups_of, strict=True)
        if seed is None
    ]
    pooled = {name: lengths[list(rows)].mean() for name, seed, rows in items.groups if seed is None}
    longest = generator.permutation(ADAPTERS)  # how long each source's own outputs are, by rank
    trend = length_trends(
        [_length_cell(name, longest[i], mean) for i, (name, mean) in enumerate(pooled.items())]
    )
    spread = float(np.exp((0.7 * tail) ** 2))  # mean of exp(topic + own)
    source = 60 * spread * np.exp(tail * generator.normal(size=300) - tail**2 / 2)
    half = 2 * lengths[1 : 1 + moved.shape[1]]  # from 20 to 60, half way is 40
    between = interpolation(grouped(half, groups), grouped(lengths[0], groups), source)
    return {
        "change of length (p)": np.mean([one.p < 0.05 for one in changes]),
        "lengths follow the source": trend[0].p < 0.05,
        "interpolation's interval": between.low <= 0.5 <= between.high if between.known else np.nan,
    }


PARTS: dict[str, Callable[[], Rows]] = {
    "zero": zero,
    "items": items,
    "level": level,
    "power": power,
    "shares": shares,
    "odd": odd,
    "strengths": strengths,
}


def counted(rates: Rates, study: dict[str, float]) -> None:
    """Add one study to the mean, spread and number of every verdict; NaN: it was not tested."""
    for verdict, value in study.items():
        if np.isfinite(value):
            row = rates.setdefault(verdict, {"mean": 0.0, "sd": 0.0, "n": 0})
            n, mean = row["n"] + 1, row["mean"] + (value - row["mean"]) / (row["n"] + 1)
            squares = row["sd"] ** 2 * row["n"] + (value - row["mean"]) * (value - mean)
            row.update(mean=float(mean), sd=float(np.sqrt(squares / n)), n=n)


def shown(rates: Rates) -> str:
    """Per cent with their standard errors."""
    return "; ".join(
        f"{verdict} {100 * row['mean']:.1f} % (se {100 * row['sd'] / row['n'] ** 0.5:.1f})"
        for verdict, row in rates.items()
    )


def main() -> None:
    """Run the parts that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="all without any")
    parser.add_argument("--studies", type=int, default=STUDIES, help="of each row")
    parser.add_argument("--out", type=Path, help="results file; rows that it holds go on from there")
    asked = parser.parse_args()
    kept: dict[str, Any] = {"parts": {}}
    if asked.out is not None and asked.out.exists():
        kept = json.loads(asked.out.read_text(encoding="utf-8"))
    for part in asked.parts or PARTS:
        rows = kept["parts"].setdefault(part, {})
        for name, study in PARTS[part]():
            row = rows.setdefault(name, {"studies": 0, "rates": {}})
            while row["studies"] < asked.studies:
                for seed in range(row["studies"], min(row["studies"] + SAVED, asked.studies)):
                    counted(row["rates"], study(seed))
                    row["studies"] = seed + 1
                record.save(asked.out, {**kept, **record.conditions()})
            print(f"{part}, {name}: {shown(row['rates'])}", flush=True)


if __name__ == "__main__":
    with threadpool_limits(limits=1):
        main()
