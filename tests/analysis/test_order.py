"""The order of rows and columns: planted groups stand together, whatever order they came in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from traitmap.analysis.traits.scaling import clustered_order
from traitmap.matrix.record import TransferMatrix

GROUPS = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2])


def planted(noise: float = 0.3, seed: int = 0) -> TransferMatrix:
    """Twelve sources and targets of three groups that lift each other and harm the rest, shuffled."""
    rng = np.random.default_rng(seed)
    lift = np.where(GROUPS[:, None] == GROUPS[None, :], 1.0, -0.5)
    gains = 0.02 * (lift + noise * rng.normal(size=lift.shape))
    loud = np.where(np.arange(12) == 4, 20.0, 1.0)  # one target in another unit
    return TransferMatrix(
        sources=tuple(f"s{i}" for i in range(12)),
        targets=tuple(f"t{i}" for i in range(12)),
        values=0.5 + gains * loud,
        baseline=np.full(12, 0.5),
    )


def changes(groups: np.ndarray) -> int:
    return int((groups[1:] != groups[:-1]).sum())


@pytest.mark.parametrize("seed", range(5))
def test_planted_groups_stand_together(seed: int) -> None:
    sources, targets = clustered_order(planted(seed=seed))
    assert changes(GROUPS[list(sources)]) == 2
    assert changes(GROUPS[list(targets)]) == 2
    assert changes(GROUPS) == 11


def test_order_is_a_permutation_that_noise_alone_does_not_change() -> None:
    whole = planted()
    sources, targets = clustered_order(whole)
    assert sorted(sources) == sorted(targets) == list(range(12))
    assert clustered_order(whole) == (sources, targets)
    assert sources[0] < sources[-1]


def test_neighbours_stay_whatever_order_the_study_had() -> None:
    whole = planted()
    rows, columns = np.random.default_rng(3).permuted(np.tile(np.arange(12), (2, 1)), axis=1)
    shuffled = replace(
        whole,
        sources=tuple(whole.sources[i] for i in rows),
        targets=tuple(whole.targets[i] for i in columns),
        values=whole.values[np.ix_(rows, columns)],
    )
    before, after = clustered_order(whole), clustered_order(shuffled)
    names = [whole.sources[i] for i in before[0]]
    again = [shuffled.sources[i] for i in after[0]]
    assert again in (names, names[::-1])
    names = [whole.targets[i] for i in before[1]]
    again = [shuffled.targets[i] for i in after[1]]
    assert again in (names, names[::-1])


def test_in_domain_gains_do_not_decide() -> None:
    whole = planted()
    values = whole.values.copy()
    named = replace(whole, targets=whole.sources)
    values[np.arange(12), np.arange(12)] += 10.0
    assert clustered_order(replace(named, values=values)) == clustered_order(named)


def test_holes_and_small_tables_have_an_order() -> None:
    whole = planted()
    values = whole.values.copy()
    values[3] = np.nan
    values[:, 5] = np.nan
    sources, targets = clustered_order(replace(whole, values=values))
    assert sorted(sources) == sorted(targets) == list(range(12))
    assert changes(GROUPS[[i for i in sources if i != 3]]) == 2
    small = TransferMatrix(("a", "b"), ("c",), np.zeros((2, 1)), np.zeros(1))
    assert clustered_order(small)[0] == (0, 1)
    flat = replace(whole, values=np.full((12, 12), 0.5))
    assert sorted(clustered_order(flat)[1]) == list(range(12))
