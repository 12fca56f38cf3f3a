"""How often do ``explain`` and the profile of a run see what is not there, and what is?

    python benchmarks/explain_calibration.py                 all of it, about an hour on one core
    python benchmarks/explain_calibration.py level power      some of them
    python benchmarks/explain_calibration.py zero items --out benchmarks/results

``zero`` and ``items`` take every verdict that a user can read where there is nothing to be called, with equal
and with unequal spreads; ``--studies`` takes the first so many of each, ``--out`` keeps their rates. Studies
come from tests/planted_pairs.py; each has its own fixed seed.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import record

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from planted import matrix_of
from planted_pairs import Shape, names_of, nearness, simulated
from traitmap.analysis.explanation.design import (
    Composite,
    aligned,
    effect_basis,
    make_design,
    node_permutations,
    prepare_alone,
    prepare_composites,
)
from traitmap.analysis.explanation.dominance import group_dominance
from traitmap.analysis.explanation.dose import difference_in_differences, dose_response, format_part
from traitmap.analysis.explanation.explain import explain
from traitmap.analysis.explanation.levels import row_strengths
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

STUDIES = 400
LEVEL_STUDIES = 1000  # 400 leave the rate of false positives uncertain by two points
ZERO_STUDIES = 500  # for each shape, spread and kind of scatter
ZERO_PERMUTATIONS = 199
ITEM_STUDIES = 200
COUNTS = {"zero": ZERO_STUDIES, "items": ITEM_STUDIES}
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


def share(found: Iterable[bool]) -> str:
    told = np.array(list(found), dtype=float)
    return f"{100 * told.mean():.1f} % (se {100 * np.sqrt(told.mean() * (1 - told.mean()) / len(told)):.1f})"


def _study(shape: Shape, effect: float, seed: int, others: int) -> dict[str, float]:
    matrix, features = simulated(shape, effect, seed, others)
    design = make_design(matrix)
    prepared = prepare_alone(aligned(features, design), design.own)
    moves = node_permutations(design, PERMUTATIONS, seed)
    basis = effect_basis(design.used)
    slope = slope_of(design.y, prepared.values[..., 0], prepared.values[..., 1:], design.used, basis, moves)
    second = mantel(design.y, prepared.raw[..., 0], design.used, moves)
    return {
        "qap": slope.p,
        "mantel": second.p,
        "naive": second.naive_p,
        "covered": slope.low <= effect <= slope.high,
        "detectable": slope.detectable,
    }


def _rates(effect: float, shapes: Iterable[Shape], others: int, studies: int = STUDIES) -> None:
    for shape in shapes:
        found = [_study(shape, effect, seed, others) for seed in range(studies)]
        rates = {name: share(one[name] < 0.05 for one in found) for name in ("qap", "mantel", "naive")}
        beside = f", beside {others} that partly copy it" if others else ""
        print(
            f"effect {effect}, {shape}{beside}: MRQAP calls {rates['qap']}; Mantel {rates['mantel']}; "
            f"naive Pearson {rates['naive']}; interval holds the effect in "
            f"{share(one['covered'] for one in found)}; detectable (median) "
            f"{np.median([one['detectable'] for one in found]):.2f}",
            flush=True,
        )


def level() -> None:
    """False positives with node effects and no effect of the feature."""
    _rates(0.0, SHAPES, 0, LEVEL_STUDIES)
    _rates(0.0, (Shape(12, 12),), 2, LEVEL_STUDIES)


def power() -> None:
    """Planted effects that are found; at the smallest detectable effect it should be four in five."""
    _rates(0.5, SHAPES, 0)
    _rates(0.5, (Shape(12, 12),), 2)
    for shape in (Shape(10, 10), Shape(12, 12)):
        named = np.median([_study(shape, 0.0, seed, 0)["detectable"] for seed in range(50)])
        found = share(_study(shape, float(named), seed, 0)["qap"] < 0.05 for seed in range(STUDIES))
        print(f"effect {named:.2f}, named as detectable with 80 %, {shape}: found in {found}", flush=True)


def shares() -> None:
    """The share beyond chance of a group, with and without an effect, and hidden less surface."""
    for shape in (Shape(10, 10), Shape(12, 12), Shape(22, 21), Shape(8, 14, shared=False)):
        for effect in (0.0, 0.5):
            called, hidden, less = [], [], []
            for seed in range(STUDIES):
                matrix, features = simulated(shape, effect, seed, 1)
                design = make_design(matrix)
                alone = prepare_alone(aligned(features, design), design.own)
                each = tuple(Composite(f.name, f.group, f.words, (f.name,)) for f in features.features)
                joint = prepare_composites(alone, each, design.own)
                found = group_dominance(design, joint, node_permutations(design, 299, seed))
                truth = _true_shares(effect, joint.values[design.used])
                called.append(found.groups[0].p < 0.05)
                beyond = found.groups[0].beyond
                hidden.append(beyond.low <= truth[0] <= beyond.high)
                gap = found.hidden_less_surface
                less.append(gap.low <= truth[0] - truth[1] <= gap.high)
            print(
                f"dominance, effect {effect}, {shape}: hidden called {share(called)}; its interval holds the "
                f"truth in {share(hidden)}; that of hidden less surface in {share(less)}",
                flush=True,
            )


def _true_shares(effect: float, x: np.ndarray) -> tuple[float, float]:
    """General dominance of the feature with the effect and of its copy, at their correlation."""
    r = float(np.corrcoef(x.T)[0, 1])
    alone, copy = effect**2, (effect * r) ** 2
    return (alone + effect**2 - copy) / 2, (copy + effect**2 - alone) / 2


def odd() -> None:
    """Odd cells where there is noise alone, and one cell that departs by six of its errors."""
    for shape in (Shape(10, 10), Shape(12, 12)):
        false, found = [], []
        for seed in range(STUDIES):
            generator = np.random.default_rng([seed, 5])
            matrix, features = simulated(shape, 0.0, seed)
            noise = np.exp(0.5 * generator.normal(size=matrix.values.shape))
            effects = generator.normal(size=(shape.sources, 1)) + generator.normal(size=(1, shape.targets))
            for planted in (0.0, 6.0):
                values = effects + noise * generator.normal(size=noise.shape)
                values[2, 5] += planted * noise[2, 5]
                plain = type(matrix)(matrix.sources, matrix.targets, values, matrix.baseline)
                design = make_design(plain, noise=noise)
                alone = prepare_alone(aligned(features, design), design.own)
                beyond = [one for one in odd_cells(design, alone.values, {}).cells if one.q_noise < 0.05]
                if planted:
                    found.append(any((one.source, one.target) == ("task02", "task05") for one in beyond))
                else:
                    false.append(bool(beyond))
        print(
            f"odd cells, {shape}: any called beyond noise where there is noise alone {share(false)}; "
            f"a departure of six errors found in {share(found)}",
            flush=True,
        )


def strengths() -> None:
    """Donors where no source is better than another, and intervals of true strengths."""
    for shape in (Shape(10, 10), Shape(12, 12), Shape(8, 14, shared=False)):
        called, covered = [], []
        for seed in range(STUDIES):
            generator = np.random.default_rng([seed, 9])
            used = np.ones((shape.sources, shape.targets), dtype=bool)
            if shape.shared:
                np.fill_diagonal(used, False)
            spread = np.exp(generator.normal(size=(1, shape.targets)))
            noise = spread * generator.normal(size=used.shape) + 3 * generator.normal(size=spread.shape)
            names = tuple(map(str, range(shape.sources)))
            null = row_strengths(names, noise, used, draws=PERMUTATIONS, seed=seed)
            called.append(any(one.q < 0.05 for one in null))
            truth = generator.normal(size=shape.sources)
            truth -= truth.mean()
            told = row_strengths(names, noise + truth[:, None], used, draws=19, seed=seed)
            covered += [one.effect.low <= t <= one.effect.high for one, t in zip(told, truth, strict=True)]
        print(
            f"donors, {shape}, spreads of targets unlike: any called where none is better {share(called)}; "
            f"intervals hold the true strength in {share(covered)}",
            flush=True,
        )


Rates = dict[str, list[float]]  # verdict -> whether each study calls it, or holds the truth; NaN: not tested


def zero() -> dict[str, dict[str, str]]:
    """Every verdict on pairs and tasks where nothing is to be called."""
    rows = {}
    for shape in (Shape(8, 8), Shape(10, 10), Shape(14, 14), Shape(22, 21)):
        for spread in (0.0, 0.7):
            for together in (False, True):
                rates: Rates = {}
                for seed in range(COUNTS["zero"]):
                    for name, value in _at_zero(shape, spread, together, seed).items():
                        rates.setdefault(name, []).append(float(value))
                spreads = f"{'unequal' if spread else 'equal'} spreads{', by task' if together else ''}"
                rows[f"{shape.sources} x {shape.targets}, {spreads}"] = _shown(rates)
    return rows


def _shown(rates: Rates) -> dict[str, str]:
    """Per cent of the studies that were tested."""
    known = {name: np.array(values)[np.isfinite(values)] for name, values in rates.items()}
    return {name: f"{100 * values.mean():.1f}" if len(values) else "" for name, values in known.items()}


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


def _at_zero(shape: Shape, spread: float, together: bool, seed: int) -> dict[str, float]:
    """Which verdicts say yes, and which intervals hold the truth, in one study of a true 0.

    spread: standard deviation of the logarithm of each source's and each target's scatter. together: sources
    and targets have positions (unlike ones, so that no direction says anything of the other) that make part
    of the scatter.
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
    found = explain(matrix, features=features, units="points", n_permutations=ZERO_PERMUTATIONS, seed=seed)
    noise = unlike * np.exp(0.5 * generator.normal(size=size))
    # the same true gain both ways, and noise alone
    level = generator.normal(size=max(size))
    noisy = level[: size[0], None] + level[None, : size[1]] + noise * generator.normal(size=size)
    measured = make_design(matrix_of(noisy, sources, targets), noise=noise)
    design = make_design(matrix)
    donors = row_strengths(design.sources, scatter, design.used, draws=19, seed=seed)
    recipients = row_strengths(design.targets, scatter.T, design.used.T, draws=19, seed=seed)
    nothing = np.zeros((*size, 0))
    shares = found.dominance.groups
    return {
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


def items() -> dict[str, dict[str, str]]:
    """Every verdict on answers where nothing is to be called, by seeds and by how unlike adapters scatter."""
    rows = {}
    for seeds in (1, 3):
        for unequal in (False, True):
            for repeats in (1, 3):
                rates: Rates = {}
                for seed in range(COUNTS["items"]):
                    for name, value in _answers_at_zero(seeds, unequal, repeats, seed).items():
                        rates.setdefault(name, []).append(float(value))
                name = f"{seeds} seed{'s' * (seeds > 1)}, {'unequal' if unequal else 'equal'} spreads"
                rows[name + (f", every item {repeats} times" if repeats > 1 else "")] = _shown(rates)
    return rows


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


PARTS: dict[str, Callable[[], dict[str, dict[str, str]] | None]] = {
    "level": level,
    "power": power,
    "shares": shares,
    "odd": odd,
    "strengths": strengths,
    "zero": zero,
    "items": items,
}


def main() -> None:
    """Run the parts that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="all without any")
    parser.add_argument("--studies", type=int, help="of each row of zero and items")
    parser.add_argument("--out", type=Path, help="folder of results files")
    asked = parser.parse_args()
    if asked.studies:
        COUNTS.update(zero=asked.studies, items=asked.studies)
    machine = f"Python {platform.python_version()}, numpy {np.__version__}, {platform.machine()}"
    studies = f"{STUDIES} studies for each figure, {LEVEL_STUDIES} for level, {ZERO_STUDIES} for zero, "
    print(f"{machine}; {studies}{ITEM_STUDIES} for items, {PERMUTATIONS} permutations")
    for part in asked.parts or PARTS:
        rows = PARTS[part]()
        for name, rates in (rows or {}).items():
            print(f"{part}, {name}: {'; '.join(f'{verdict} {rate} %' for verdict, rate in rates.items())}")
        if rows and asked.out is not None:
            studied = COUNTS[part]
            place = asked.out / f"{datetime.now(UTC):%Y-%m-%d}-calibration-{part}.json"
            record.save(place, {**record.conditions(), "studies": studied, "rows": rows})


if __name__ == "__main__":
    main()
