"""Lengths of cells: the way from base to source, distances with their nulls, endless outputs."""

import numpy as np
import pytest
from answered import BASE, chosen, written
from scipy import stats

from traitmap.analysis.profiles.cell_items import target_items
from traitmap.analysis.profiles.cell_lengths import cell_lengths, interpolation
from traitmap.analysis.profiles.cells import length_trends
from traitmap.analysis.profiles.lengths import paired_distance, sample_distance

NONE = np.empty(0)


def drawn(mean, count=200, *, seed=0, spread=10):
    return np.round(np.random.default_rng(seed).normal(mean, spread, count)).clip(1)


def cells(outcomes, sources=None, **options):
    items = target_items("stories", outcomes)
    assert items is not None
    known = {name: np.asarray(lengths, float) for name, lengths in (sources or {}).items()}
    return {(one.source, one.seed): one for one in cell_lengths(items, source_characters=known, **options)}


def test_two_thirds_of_the_way():
    outcomes = {BASE: written(drawn(50)), ("long", 0): written(drawn(150, seed=1))}
    cell = cells(outcomes, {"long": drawn(200, 1000, seed=2)})["long", None]
    assert cell.written == "generated"
    assert cell.best.unit == "characters"
    found = cell.best.interpolation
    assert found.low < 2 / 3 < found.high
    assert found.value == pytest.approx(2 / 3, abs=0.03)
    assert found.high - found.low < 0.1
    assert cell.characters.change.difference.value == pytest.approx(100, abs=3)
    assert cell.characters.change.p < 0.001
    assert cell.characters.source.n == 1000
    assert cell.characters.gold.mean == pytest.approx(14.5, abs=1)
    assert cell.tokens.adapter.mean == pytest.approx(38, abs=1)
    assert cell.tokens.source.n == 0
    assert "tokens" in cell.tokens.interpolation.reason


def test_the_ends_and_beyond():
    base, source = drawn(50, seed=1), drawn(100, 500, seed=2)
    for mean, expected in ((50, 0.0), (100, 1.0), (150, 2.0), (25, -0.5)):
        found = interpolation(drawn(mean, seed=3), base, source)
        assert found.value == pytest.approx(expected, abs=0.06)
        assert found.low < expected < found.high


def test_a_source_as_long_as_the_base_tells_nothing():
    found = interpolation(drawn(80), drawn(50, seed=1), drawn(50.2, 300, seed=2))
    assert not found.known
    assert "cannot be told apart" in found.reason


def test_the_interval_of_the_way_covers_and_agrees_with_the_bootstrap():
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        item = generator.normal(0, 15, 80)
        base, adapter = 50 + item + generator.normal(0, 15, 80), 90 + item + generator.normal(0, 15, 80)
        source = generator.normal(130, 30, 100)
        found = interpolation(adapter, base, source)
        covered += found.low <= 0.5 <= found.high
    assert 0.90 <= covered / 200 <= 0.99
    at = generator.integers(0, 80, size=(4000, 80))
    of_source = source[generator.integers(0, 100, size=(4000, 100))].mean(axis=1)
    ratios = (adapter[at] - base[at]).mean(axis=1) / (of_source - base[at].mean(axis=1))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(ratios, [0.025, 0.975])), abs=0.02)


def test_seeds_that_write_differently_widen_the_way():
    base, source = drawn(50), drawn(200, 500, seed=9)
    near = interpolation(np.stack([drawn(120, seed=1), drawn(122, seed=2)]), base, source)
    far = interpolation(np.stack([drawn(80, seed=1), drawn(160, seed=2)]), base, source)
    assert far.high - far.low > 5 * (near.high - near.low)


@pytest.mark.parametrize("kind", ["paired", "samples"])
def test_distances_are_scipys_and_their_null_is_that_of_permutation(kind):
    first, second = drawn(50, 120, spread=4), drawn(51, 120, seed=1, spread=4)
    found = paired_distance(first[None], second) if kind == "paired" else sample_distance(first, second)
    assert found.wasserstein == pytest.approx(stats.wasserstein_distance(first, second))
    assert found.kolmogorov_smirnov == pytest.approx(stats.ks_2samp(first, second).statistic)
    theirs = stats.permutation_test(
        (first, second),
        stats.wasserstein_distance,
        permutation_type="samples" if kind == "paired" else "independent",
        alternative="greater",
        n_resamples=999,
        rng=np.random.default_rng(0),
    )
    assert found.p_wasserstein == pytest.approx(theirs.pvalue, abs=0.05)
    assert found.null_wasserstein == pytest.approx(np.quantile(theirs.null_distribution, 0.95), rel=0.12)


def test_distances_where_there_is_no_difference():
    small = 0
    for draw in range(100):
        first, second = drawn(50, 80, seed=2 * draw), drawn(50, 300, seed=2 * draw + 1)
        small += sample_distance(first, second).p_wasserstein < 0.05
    assert small <= 13  # 5 are expected; 14 and more have a chance of 0.1 %
    assert sample_distance(first, first).p_wasserstein == 1.0
    assert not sample_distance(first, NONE).known


def test_many_different_lengths_are_compared_on_a_grid():
    first, second = drawn(1000, 400, spread=300), drawn(1100, 4000, seed=1, spread=300)
    found = sample_distance(first, second)
    assert found.wasserstein == pytest.approx(stats.wasserstein_distance(first, second))
    assert found.p_wasserstein < 0.01
    assert 10 < found.null_wasserstein < 60


def test_outputs_without_an_end_and_without_an_answer():
    outcomes = {
        BASE: written(drawn(50, 100), stopped=[False] * 80 + [True] * 20, parsed=[False] * 40 + [True] * 60),
        ("some", 0): written(drawn(50, 100, seed=1)),
    }
    cell = cells(outcomes)["some", None]
    assert cell.base_endless.value == 0.8
    assert cell.endless.value == 0
    assert 0 < cell.endless.high < 0.05
    assert cell.endless_change.difference.high < -0.6
    assert cell.endless_change.p < 1e-10
    assert cell.base_unparsed.value == 0.4
    assert cell.unparsed_change.difference.value == -0.4


def test_multiple_choice_has_the_tokens_of_the_chosen_answer():
    outcomes = {
        BASE: chosen(["a", "b"] * 20, ["a"] * 40, tokens=3),
        ("some", 0): chosen(["a", "b"] * 20, ["b"] * 40, tokens=1),
    }
    items = target_items("quiz", outcomes)
    assert items is not None
    (cell,) = cell_lengths(items, source_tokens={"some": np.full(30, 9.0)})
    assert cell.written == "chosen"
    assert cell.tokens.interpolation.reason == "answers are chosen, not written"
    assert cell.characters is None
    assert (cell.tokens.base.mean, cell.tokens.adapter.mean) == (3, 1)
    assert not cell.endless.known


def test_tokens_of_source_and_gold_where_they_were_counted():
    items = target_items("stories", {BASE: written(drawn(40)), ("long", 0): written(drawn(80, seed=1))})
    sources = {"long": drawn(40, spread=3)}
    (cell,) = cell_lengths(items, source_tokens=sources, gold_tokens=np.full(200, 5.0))
    assert cell.best.unit == "tokens"
    assert cell.best.interpolation.value == pytest.approx(1 / 3, abs=0.05)
    assert cell.tokens.gold.mean == 5


def trended(means, sources):
    outcomes = {BASE: written(drawn(50))}
    outcomes |= {(f"s{at}", 0): written(drawn(mean, seed=at)) for at, mean in enumerate(means)}
    return length_trends(
        list(cells(outcomes, {f"s{at}": drawn(own, seed=99 + at) for at, own in enumerate(sources)}).values())
    )


def test_lengths_that_follow_the_source():
    (found,) = trended([60, 70, 80, 90, 100, 110], [100, 150, 200, 250, 300, 350])
    assert found.correlation == pytest.approx(1.0)
    assert found.p < 0.02
    assert "write longer" in found.words


def test_all_adapters_writing_longer_is_not_following_the_source():
    (found,) = trended([100, 101, 99, 102, 98, 100], [100, 150, 200, 250, 300, 350])
    assert found.p > 0.05
    assert 0.8 < found.smallest_visible <= 1
    assert "cannot be told" in found.words


def test_too_few_sources_for_a_trend():
    (found,) = trended([60, 90], [100, 200])
    assert np.isnan(found.correlation)
    assert "2 sources" in found.words
