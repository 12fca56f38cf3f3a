"""How often is a gain said to depend on a syntactic relation where it does not, and how often where it does?

    python benchmarks/relations.py            all of it, some minutes on one core
    python benchmarks/relations.py bars level power   some of it

bars: data like the published figure of ratios (1,319 items, base 9.8 % right, adapter 16 %), 45 relations
      of which none matters: height of the tallest bar, and what the corrected tests say.
level: share of tests with p < .05 where every item gains the same log odds, whatever its relation.
power: share of planted effects that are found.

Every table has its own fixed seed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np

from traitmap.analysis.profiles.relations import difference_test, win_odds_ratio, win_test
from traitmap.matrix.statistics import benjamini_hochberg

TABLES = 400
ITEMS = 1319
FLOOR = 0.049  # what stands in place of a zero: the published bars are multiples of 1 / .049
# shares of items with each relation, as a parser finds them in word problems: most are rare
SHARES = np.array([0.95] * 8 + [0.7] * 6 + [0.4] * 6 + [0.2] * 6 + [0.1] * 5 + [0.04] * 5 + [0.012] * 9)

Array = np.ndarray


def answers(generator: np.random.Generator, ability: Array, gain: Array | float, seeds: int) -> Array:
    """(seeds, n) right or wrong where the log odds of each item rise by ``gain``."""
    chance = 1 / (1 + np.exp(-(ability + gain)))
    return generator.random((seeds, len(ability))) < chance


def decided(base: Array, adapter: Array) -> tuple[Array, Array]:
    """Seeds in which each item is won, and lost."""
    return (adapter & ~base).sum(axis=0).astype(float), (base & ~adapter).sum(axis=0).astype(float)


def bars() -> None:
    """The tallest ratio of successes, and the smallest corrected p-value, where no relation matters."""
    tall, found, tested = [], 0, []
    for seed in range(TABLES):
        generator = np.random.default_rng(seed)
        ability = generator.normal(-3.2, 1.8, ITEMS)
        base, adapter = (answers(generator, ability, gain, 1) for gain in (0.0, 0.75))
        present = generator.random((ITEMS, len(SHARES))) < SHARES
        right, of_base = present.T @ adapter[0], present.T @ base[0]
        tall.append(float((right / np.maximum(of_base, FLOOR)).max()))
        wins, losses = decided(base[0], adapter)
        none = np.zeros(ITEMS, np.int64)
        enough = (present.sum(axis=0) >= 10) & ((~present).sum(axis=0) >= 10)
        p = np.array([win_test(wins, losses, column, none) for column in present[:, enough].T])
        found += bool((benjamini_hochberg(p) < 0.05).any())
        tested.append(np.isfinite(p).sum())
    print(
        f"bars: tallest ratio, median {np.median(tall):.0f}; above 20 in {np.mean(np.array(tall) > 20):.0%}"
    )
    print(f"bars: corrected tests find anything in {found / TABLES:.1%} of tables ({np.mean(tested):.0f})")


def level() -> None:
    """False positives at small support, where the relation makes items harder, and with two seeds."""
    print("level: p < .05 of       difference  won : lost  interval of odds ratio leaves out 1  tested")
    for support, harder, seeds in ((15, 0.0, 1), (40, 0.0, 1), (40, -1.5, 1), (200, -1.5, 1), (200, -1.5, 2)):
        rejected, count = np.zeros(3), 0
        for seed in range(TABLES):
            generator = np.random.default_rng(seed)
            present = np.arange(600) < support
            ability = generator.normal(-0.5, 1.5, 600) + harder * present
            base, adapter = answers(generator, ability, 0.0, 1)[0], answers(generator, ability, 1.0, seeds)
            wins, losses = decided(base, adapter)
            none = np.zeros(600, np.int64)
            p = win_test(wins, losses, present, none, seed=seed)
            gap = difference_test(adapter.mean(axis=0) - base, present[:, None], none, draws=999, seed=seed)[
                0
            ]
            _, low, high, _ = win_odds_ratio(wins, losses, present)
            count += np.isfinite(p)
            rejected += [gap < 0.05, p < 0.05, low > 1 or high < 1]
        shares = "  ".join(f"{share:10.1%}" for share in rejected / TABLES)
        what = f"{support} of 600 items, {seeds} seed{'s' * (seeds > 1)}{', harder' if harder else ''}"
        print(f"  {what:<32}{shares}{count / TABLES:30.0%}")


def power() -> None:
    """How often an effect is found by the single test, by its size."""
    print("power: p < .05, 1,319 items, base 9.8 % right")
    for support in (40, 130, 400):
        for gain in (1.0, 2.0):
            found = 0
            for seed in range(TABLES // 2):
                generator = np.random.default_rng(seed)
                present = np.arange(ITEMS) < support
                ability = generator.normal(-3.2, 1.8, ITEMS)
                base = answers(generator, ability, 0.0, 1)[0]
                adapter = answers(generator, ability, 0.75 + gain * present, 1)
                found += win_test(*decided(base, adapter), present, np.zeros(ITEMS, np.int64)) < 0.05
            print(f"  {support} items with the relation, odds x {np.exp(gain):.1f}: {2 * found / TABLES:.0%}")


PARTS: dict[str, Callable[[], None]] = {"bars": bars, "level": level, "power": power}

if __name__ == "__main__":
    for name in sys.argv[1:] or PARTS:
        PARTS[name]()
