"""How often does ``explain`` see what is not there, and what is?

    python benchmarks/explain_calibration.py                 all of it, about ten minutes on one core
    python benchmarks/explain_calibration.py level power      some of: level power shares odd strengths zero

Prints one line per figure. Studies come from tests/planted_pairs.py; each has its own fixed seed.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

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
    two_way_residual,
)
from traitmap.analysis.explanation.dominance import group_dominance
from traitmap.analysis.explanation.levels import row_strengths
from traitmap.analysis.explanation.pairs import asymmetry, odd_cells
from traitmap.analysis.explanation.permutation import mantel, slope_of

STUDIES = 400
LEVEL_STUDIES = 1000  # 400 leave the rate of false positives uncertain by two points
ZERO_STUDIES = 500  # for each shape, spread and kind of scatter
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


def zero() -> None:
    """Every verdict where there is nothing to be called, with equal and with unequal spreads of tasks."""
    for shape in (Shape(8, 8), Shape(10, 10), Shape(14, 14), Shape(22, 21)):
        for spread in (0.0, 0.7):
            for together in (False, True):
                studies = [_at_zero(shape, spread, together, seed) for seed in range(ZERO_STUDIES)]
                rates = "; ".join(f"{name} {share(one[name] for one in studies)}" for name in studies[0])
                print(
                    f"nothing to be called, {shape}, spreads e^({spread} z)"
                    f"{', gains hang together by task' if together else ''}: {rates}",
                    flush=True,
                )


def _at_zero(shape: Shape, spread: float, together: bool, seed: int) -> dict[str, bool]:
    """Which verdicts say yes (and whether the interval of reciprocity holds 0) in one study of a true 0.

    spread: standard deviation of the logarithm of each source's and each target's scatter. together: sources
    and targets have positions (unlike ones, so that no direction says anything of the other) that make part
    of the scatter.
    """
    generator = np.random.default_rng([seed, 43])
    size = (shape.sources, shape.targets)
    scatter = generator.normal(size=size)
    if together:
        scatter += generator.normal(size=(size[0], 2)) @ generator.normal(size=(2, size[1]))
    unlike = np.exp(
        spread * generator.normal(size=(size[0], 1)) + spread * generator.normal(size=(1, size[1]))
    )
    scatter *= unlike
    sources, targets = names_of(shape)
    gains = scatter + generator.normal(size=(size[0], 1)) + 2 * generator.normal(size=(1, size[1]))
    design = make_design(matrix_of(gains, sources, targets))
    noise = unlike * np.exp(0.5 * generator.normal(size=size))
    # the same true gain both ways, and noise alone
    level = generator.normal(size=max(size))
    noisy = level[: size[0], None] + level[None, : size[1]] + noise * generator.normal(size=size)
    measured = make_design(matrix_of(noisy, sources, targets), noise=noise)
    found = asymmetry(design, draws=PERMUTATIONS, seed=seed)
    donors = row_strengths(design.sources, scatter, design.used, draws=19, seed=seed)
    recipients = row_strengths(design.targets, scatter.T, design.used.T, draws=19, seed=seed)
    near = two_way_residual(np.where(design.used, nearness(shape, generator), np.nan), design.used)
    moves = node_permutations(design, 199, seed)
    nothing = np.zeros((*size, 0))
    slope = slope_of(design.y, near, nothing, design.used, effect_basis(design.used), moves)
    return {
        "feature": slope.p < 0.05,
        "reciprocity": found.p < 0.05,
        "its interval holds 0": found.reciprocity.low <= 0 <= found.reciprocity.high,
        "any pair asymmetric": any(one.q < 0.05 for one in asymmetry(measured, draws=19, seed=0).pairs),
        "any donor": any(one.q < 0.05 for one in donors),
        "any recipient": any(one.q < 0.05 for one in recipients),
        "any pair odd, noise unknown": bool(odd_cells(design, nothing, {}).odd),
        "any pair beyond known noise": bool(odd_cells(measured, nothing, {}).beyond_noise),
    }


PARTS: dict[str, Callable[[], None]] = {
    "level": level,
    "power": power,
    "shares": shares,
    "odd": odd,
    "strengths": strengths,
    "zero": zero,
}


def main() -> None:
    """Run the parts that are named, or all."""
    asked = sys.argv[1:] or list(PARTS)
    if unknown := [part for part in asked if part not in PARTS]:
        raise SystemExit(f"no part named {', '.join(unknown)}; parts are {', '.join(PARTS)}")
    machine = f"Python {platform.python_version()}, numpy {np.__version__}, {platform.machine()}"
    studies = f"{STUDIES} studies for each figure, {LEVEL_STUDIES} for level, {ZERO_STUDIES} for zero"
    print(f"{machine}; {studies}, {PERMUTATIONS} permutations")
    for part in asked:
        PARTS[part]()


if __name__ == "__main__":
    main()
