"""How often is the trait analysis right on tables of known truth, and how long does it take?

    python benchmarks/traits_calibration.py            all of it, about a quarter of an hour on two cores
    python benchmarks/traits_calibration.py noise time  some of: noise planted diagonal effects time

Prints one line per figure. Tables come from tests/planted.py; every table has its own fixed seed.
"""

from __future__ import annotations

import platform
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.linalg import orthogonal_procrustes

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from planted import COUNTS_ONLY, answered, matrix_of, noise, planted, subspace_overlap
from traitmap.analysis.traits.components import congruence
from traitmap.analysis.traits.decompose import decompose

TABLES = 200


def shares(counts: Counter[int], total: int) -> str:
    """Counts of components as percentages."""
    return ", ".join(f"{count}: {100 * counts[count] / total:.1f} %" for count in sorted(counts))


def noise_tables() -> None:
    """How many components are found where there are none."""
    for rows, columns, masked in (
        (10, 10, False),
        (10, 10, True),
        (11, 10, False),
        (20, 10, False),
        (30, 30, False),
    ):
        names = [f"task{i:02d}" for i in range(rows)]
        counts: Counter[int] = Counter()
        horn: Counter[int] = Counter()
        for seed in range(TABLES):
            matrix = matrix_of(noise(rows, columns, seed), names, names if masked else None)
            found = decompose(matrix, n_bootstrap=0, n_permutations=100).n_components
            counts[found["used"]] += 1
            horn[found["parallel"]] += 1
        shape = f"{rows} x {columns}{' masked diagonal' if masked else ''}"
        print(f"noise {shape}: used {shares(counts, TABLES)} | parallel {shares(horn, TABLES)}", flush=True)


def planted_tables() -> None:
    """How many of two planted traits are found, and how well."""
    for rows, columns, communality in ((20, 10, 0.9), (20, 10, 0.7), (10, 10, 0.9), (20, 10, 0.5)):
        counts: Counter[int] = Counter()
        phi = []
        for seed in range(TABLES):
            values, truth = planted(rows, columns, 2, communality, seed)
            traits = decompose(matrix_of(values), **COUNTS_ONLY)
            counts[traits.n_components["used"]] += 1
            pattern = traits.loadings[:, :2] * traits.singular_values[:2]
            turned = pattern @ orthogonal_procrustes(pattern, truth)[0]
            phi.append(np.diag(congruence(turned, truth)))
        both = np.array(phi)
        print(
            f"two traits, {rows} x {columns}, communality {communality}: used {shares(counts, TABLES)} | "
            f"target-rotated congruence median {np.median(both):.3f}, mean {both.mean():.3f}, "
            f"5th percentile {np.percentile(both, 5):.3f}",
            flush=True,
        )


def planted_diagonals() -> None:
    """How far the planted subspace survives an in-domain diagonal of four standard deviations."""
    for size, communality in ((10, 0.9), (12, 0.9), (20, 0.9), (20, 0.7)):
        names = [f"task{i:02d}" for i in range(size)]
        overlaps: dict[str, list[float]] = {"masked (default)": [], "kept": []}
        for seed in range(TABLES):
            values, truth = planted(size, size, 2, communality, seed)
            matrix = matrix_of(values + 4 * np.eye(size), names, names)
            for how in overlaps:
                traits = decompose(matrix, mask_diagonal=False if how == "kept" else "auto", **COUNTS_ONLY)
                overlaps[how].append(subspace_overlap(traits.loadings[:, :2], truth))
        told = "; ".join(
            f"{how} median {np.median(found):.3f}, 5th percentile {np.percentile(found, 5):.3f}, "
            f"at least .9 in {100 * np.mean(np.array(found) >= 0.9):.1f} %"
            for how, found in overlaps.items()
        )
        print(f"diagonal of 4 SD, {size} x {size}, communality {communality}: overlap {told}", flush=True)


def effect_coverage() -> None:
    """How often the 95 % interval of the first trait's effects holds the true effect."""
    base = np.full(8, 0.4)
    for items, seeds, difficulty in ((200, 1, 0.0), (200, 3, 0.0), (50, 1, 0.0)):
        covered = []
        for seed in range(TABLES):
            truth = 1 / (1 + np.exp(-0.7 * planted(12, 8, 1, 0.9, seed)[0]))
            spread = 0.2 if seeds > 1 else 0.0
            matrix = answered(
                truth,
                base,
                items=items,
                seeds=seeds,
                seed_spread=spread,
                shared_difficulty=difficulty,
                seed=seed,
            )
            traits = decompose(matrix, n_bootstrap=400, n_permutations=0, cv_seeds=1)
            weights = traits.loadings[:, :1] / np.abs(traits.loadings[:, :1]).sum(axis=0)
            effect = (100 * (truth - base) @ weights)[:, 0]
            covered.append(
                ((traits.effects_low[:, 0] <= effect) & (effect <= traits.effects_high[:, 0])).mean()
            )
        error = np.std(covered, ddof=1) / np.sqrt(TABLES)
        print(
            f"effects, 12 x 8, {items} items, {seeds} seeds: {100 * np.mean(covered):.1f} % covered "
            f"(standard error {100 * error:.1f})",
            flush=True,
        )


def timings() -> None:
    """Wall and processor seconds of whole decompositions, three runs each."""
    generator = np.random.default_rng(0)
    names = [f"task{i:02d}" for i in range(30)]
    square = noise(30, 30, 0) + 3 * noise(30, 2, 1) @ noise(2, 30, 2)
    large = noise(1000, 200, 0) + noise(1000, 5, 1) @ noise(5, 200, 2)
    holes = np.where(generator.random(large.shape) < 0.1, np.nan, large)
    cases = (
        ("30 x 30, masked diagonal, 2,000 draws", matrix_of(square, names, names), {"n_bootstrap": 2000}),
        ("30 x 30, varimax, 2,000 draws", matrix_of(square), {"n_bootstrap": 2000, "rotate": "varimax"}),
        ("1,000 x 200, defaults", matrix_of(large), {}),
        ("1,000 x 200, a tenth missing, defaults", matrix_of(holes), {}),
    )
    for name, matrix, options in cases:
        wall, processor = [], []
        for _ in range(3):
            start, used = time.perf_counter(), time.process_time()
            decompose(matrix, **options)
            wall.append(time.perf_counter() - start)
            processor.append(time.process_time() - used)
        print(
            f"{name}: {np.median(wall):.1f} s wall [{min(wall):.1f}, {max(wall):.1f}], "
            f"{np.median(processor):.1f} s processor",
            flush=True,
        )


PARTS: dict[str, Callable[[], None]] = {
    "noise": noise_tables,
    "planted": planted_tables,
    "diagonal": planted_diagonals,
    "effects": effect_coverage,
    "time": timings,
}


def main() -> None:
    """Run the parts that are named, or all."""
    asked = sys.argv[1:] or list(PARTS)
    if unknown := [part for part in asked if part not in PARTS]:
        raise SystemExit(f"no part named {', '.join(unknown)}; parts are {', '.join(PARTS)}")
    machine = f"Python {platform.python_version()}, numpy {np.__version__}, {platform.machine()}"
    print(f"{machine}; {TABLES} tables for each figure")
    for part in asked:
        PARTS[part]()


if __name__ == "__main__":
    main()
