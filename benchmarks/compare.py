"""How often `traitmap compare` calls a difference where there is none: a run against itself, split by items.

    python benchmarks/compare.py [RUN ...]

The items of every target are split in two halves at random (groups of items that belong together stay
together), and the halves are compared as two runs that asked other items. Both have the same truth, so that
every difference beyond its interval is a false call; at 95 % there should be one in twenty. Cells of which no
item tells adapter from base in either half are no test, and are counted apart. Beside it: simulated pairs of
runs of one truth, with training seeds and items of their own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

import traitmap as tm
from traitmap.analysis import Side, compare_sides
from traitmap.analysis.verdicts import cell_verdicts
from traitmap.matrix.record import TransferMatrix
from traitmap.matrix.statistics import paired_gain

SPLITS = 200
SHAPE = (8, 8)  # sources and targets of simulated runs
ITEMS = 120
SEED_SPREAD = 0.3  # of a training seed, on the logit scale


def part_of(matrix: TransferMatrix, kept: dict[str, np.ndarray]) -> TransferMatrix:
    """The matrix on some of its items, with gains and intervals computed anew."""
    scores = {target: matrix.item_scores[target][..., places] for target, places in kept.items()}
    groups = {name: codes[kept[name]] for name, codes in matrix.item_groups.items() if name in kept}
    numbers = {}
    for target, part in scores.items():
        known = np.isfinite(part).all(axis=(1, 2))
        rows = np.flatnonzero(known[1:])
        if not known[0] or not len(rows):
            continue
        numbered = groups.get(target)
        if numbered is not None:
            numbered = np.unique(numbered, return_inverse=True)[1]
        binary = bool(np.isin(part[known], (0.0, 1.0)).all())
        seeds = slice(None) if len(np.unique(part[1 + rows], axis=1)) else slice(0, 1)
        tested = paired_gain(part[1 + rows][:, seeds] - part[:1, seeds], binary=binary, groups=numbered)
        for place, row in enumerate(rows):
            numbers[matrix.sources[row], target] = [float(values[place]) for values in tested]
    cells = [
        replace(cell, gain=gain, gain_low=low, gain_high=high, p=p, q=p)
        for cell in matrix.cells
        if cell.seed is None and (cell.source, cell.target) in numbers
        for gain, low, high, p in [numbers[cell.source, cell.target]]
    ]
    return replace(matrix, cells=tuple(cells), item_scores=scores, item_groups=groups)


def halves(matrix: TransferMatrix, generator: np.random.Generator) -> tuple[TransferMatrix, TransferMatrix]:
    """Two runs that asked other items of the same targets."""
    first, second = {}, {}
    for target, scores in matrix.item_scores.items():
        codes = matrix.item_groups.get(target)
        codes = np.arange(scores.shape[2]) if codes is None else codes
        chosen = generator.permutation(int(codes.max()) + 1)[: (int(codes.max()) + 1) // 2]
        first[target] = np.flatnonzero(np.isin(codes, chosen))
        second[target] = np.flatnonzero(~np.isin(codes, chosen))
    return part_of(matrix, first), part_of(matrix, second)


def false_calls(pairs: Iterable[tuple[TransferMatrix, TransferMatrix]]) -> tuple[int, int, int]:
    """Calls, cells that could be called, and cells of which no item tells anything; pairs have one truth."""
    called = asked = silent = 0
    for pair in pairs:
        sides = [Side(name, part, cell_verdicts(part), {}) for name, part in zip("ab", pair, strict=True)]
        for cell in compare_sides(sides, tables=False).cells:
            if not cell.difference.clear and all(gain.value == 0 for gain in cell.gains):
                silent += 1
                continue
            asked += 1
            called += cell.difference.clear
    return called, asked, silent


def simulated(seed: int, *, seeds: int, binary: bool) -> tuple[TransferMatrix, TransferMatrix]:
    """Two runs of one truth: lifts are the same in both, training seeds and items each run's own."""
    generator = np.random.default_rng(seed)
    lift = np.vstack([np.zeros(SHAPE[1]), generator.normal(size=SHAPE)])
    first, second = (_simulated(lift, generator, seeds, binary) for _ in range(2))
    return first, second


def _simulated(lift: np.ndarray, generator: np.random.Generator, seeds: int, binary: bool) -> TransferMatrix:
    rows, columns = SHAPE
    scores = {}
    adapters = (np.arange(1 + rows) > 0)[:, None, None]
    for column in range(columns):
        hard = 2 * generator.normal(size=ITEMS)
        moved = SEED_SPREAD * generator.normal(size=(1 + rows, seeds, 1)) * adapters
        level = lift[:, column, None, None] + moved + hard
        chance = 1 / (1 + np.exp(-level))
        part = (generator.random((1 + rows, seeds, ITEMS)) < chance).astype(float)
        if not binary:
            part = level + generator.normal(size=part.shape)
        part[0] = part[0, :1]
        scores[f"t{column}"] = part
    nan = float("nan")
    names = tuple(f"s{row}" for row in range(rows))
    cells = tuple(
        tm.Cell(name, target, None, "", nan, ITEMS, nan, nan, nan, nan, nan, nan, 0.0, "measured")
        for name in names
        for target in scores
    )
    means = np.stack([part.mean(axis=(1, 2)) for part in scores.values()], axis=1)
    matrix = TransferMatrix(names, tuple(scores), means[1:], means[0], cells=cells, item_scores=scores)
    return part_of(matrix, {target: np.arange(ITEMS) for target in scores})


def main(runs: list[str]) -> None:
    """Print a line for each run and each kind of simulated one."""
    print("| run | false calls at 5 % | cells | said nothing |")
    print("|---|---|---|---|")
    for run in runs:
        matrix = tm.read_matrix(run)
        generator = np.random.default_rng(0)
        pairs = (halves(matrix, generator) for _ in range(SPLITS))
        print_line(str(matrix.conditions.get("name") or run), *false_calls(pairs))
    for binary in (True, False):
        for seeds in (1, 3):
            pairs = (simulated(seed, seeds=seeds, binary=binary) for seed in range(SPLITS))
            kind = "right or wrong" if binary else "any number"
            print_line(f"simulated, {kind}, {seeds} seed{'s' if seeds > 1 else ''}", *false_calls(pairs))


def print_line(name: str, called: int, asked: int, silent: int) -> None:
    print(f"| {name} | {100 * called / max(asked, 1):.1f} % | {asked:,} | {silent:,} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
