"""Measurement noise: the resampled spread is the true one, intervals cover, what is shared cancels."""

from dataclasses import replace

import numpy as np
import pytest

from planted import answered, matrix_of, noise, planted
from traitmap.analysis.traits.components import Components
from traitmap.analysis.traits.decompose import decompose
from traitmap.analysis.traits.measurement import (
    cell_stderr,
    item_deviations,
    item_noise_variance,
    item_scores,
    noise_summary,
    residual_spread,
    seed_deviations,
    seed_reliability,
)
from traitmap.matrix.record import Cell

ROWS, COLUMNS = tuple(range(8)), tuple(range(5))
SHARES = 0.3 + 0.4 * np.random.default_rng(0).random((8, 5))
BASE = np.full(5, 0.4)


def items_of(**options):
    return item_scores(answered(SHARES, BASE, **options), ROWS, COLUMNS)


def test_resampled_items_spread_as_the_binomial_says():
    items = items_of(items=400, shared_difficulty=0.0)
    spread = item_deviations(items, 2000, np.random.default_rng(0)).std(axis=0)
    means = np.stack([part.mean(axis=(1, 2)) for part in items], axis=1)
    np.testing.assert_allclose(spread, np.sqrt(means * (1 - means) / 400), rtol=0.1)


def test_a_cell_that_was_asked_a_part_moves_by_its_own_items():
    """Its value is the base's plus the gain on its own items, and so are its deviations."""
    draw = np.random.default_rng(4)
    scores = (draw.random((4, 1, 400)) < 0.5).astype(float)
    whole = item_deviations([scores], 4000, np.random.default_rng(0))[:, :, 0]
    asked = scores.copy()
    asked[2, :, 100:] = np.nan
    moved = item_deviations([asked], 4000, np.random.default_rng(0))[:, :, 0]
    assert np.array_equal(moved[:, [0, 1, 3]], whole[:, [0, 1, 3]])
    gain = scores[2, 0, :100] - scores[0, 0, :100]
    assert (moved[:, 2] - moved[:, 0]).std() == pytest.approx(gain.std() / 10, rel=0.05)
    assert (whole[:, 2] - whole[:, 0]).std() == pytest.approx((scores[2] - scores[0]).std() / 20, rel=0.05)
    noise = [float(item_noise_variance([part])[0]) for part in (scores, asked)]
    spread = (scores[1:, 0, :100] - scores[1:, 0, :100].mean(axis=0)).var(axis=1, ddof=1)
    assert noise[1] == pytest.approx((spread / [400, 100, 400]).sum() / 2)
    assert noise[0] < noise[1] < 4 * noise[0]


def test_what_items_share_cancels_between_adapters():
    """With hard and easy items, two adapters' deviations correlate, so their difference moves less."""
    items = items_of(items=300, shared_difficulty=4.0)
    moved = item_deviations(items, 1000, np.random.default_rng(0))
    correlation = np.corrcoef(moved[:, 1, 0], moved[:, 2, 0])[0, 1]
    assert correlation > 0.3
    apart = item_deviations(items_of(items=300, shared_difficulty=0.0), 1000, np.random.default_rng(0))
    assert abs(np.corrcoef(apart[:, 1, 0], apart[:, 2, 0])[0, 1]) < 0.15


def test_item_noise_is_the_variance_between_equal_adapters():
    """Adapters that are all the same differ by item noise only."""
    equal = np.full((30, 6), 0.5)
    expected, seen = [], []
    for seed in range(20):
        matrix = answered(equal, np.full(6, 0.5), items=200, shared_difficulty=2.0, seed=seed)
        expected.append(item_noise_variance(item_scores(matrix, tuple(range(30)), tuple(range(6)))))
        seen.append(matrix.values.var(axis=0, ddof=1))
    assert np.mean(expected) == pytest.approx(np.mean(seen), rel=0.1)
    assert np.mean(expected) < 0.8 * 0.25 / 200  # less than the binomial variance: what is shared cancels


def test_seeds_move_as_much_as_they_differ():
    items = items_of(items=2000, seeds=3, seed_spread=0.5, shared_difficulty=0.0, seed=3)
    means = np.stack([part.mean(axis=2) for part in items], axis=2)
    expected = means.var(axis=1, ddof=1) / 3
    moved = seed_deviations(items, 4000, np.random.default_rng(0)).var(axis=0)
    np.testing.assert_allclose(moved[1:], expected[1:], rtol=0.15)
    np.testing.assert_array_equal(moved[0], 0)


def test_one_seed_does_not_move():
    moved = seed_deviations(items_of(items=50), 10, np.random.default_rng(0))
    np.testing.assert_array_equal(moved, 0)


def test_items_that_nobody_answered_leave_the_others_in_place():
    matrix = answered(SHARES, BASE, items=100)
    scores = {name: part.copy() for name, part in matrix.item_scores.items()}
    scores["target001"][3, :, 40:] = np.nan
    moved = item_deviations(
        item_scores(replace(matrix, item_scores=scores), ROWS, COLUMNS), 500, np.random.default_rng(0)
    )
    assert np.isfinite(moved).all()
    assert moved[:, 3, 1].std() == pytest.approx(moved[:, 3, 0].std() * np.sqrt(100 / 40), rel=0.3)


def test_a_failed_cell_leaves_the_noise_of_the_others_known():
    matrix = answered(SHARES, BASE, items=100)
    scores = {name: part.copy() for name, part in matrix.item_scores.items()}
    scores["target002"][4] = np.nan
    values = matrix.values.copy()
    values[3, 2] = np.nan
    traits = decompose(replace(matrix, item_scores=scores, values=values), n_bootstrap=60, n_permutations=0)
    assert np.isfinite(traits.noise.variance).all()
    whole = item_noise_variance(item_scores(matrix, ROWS, COLUMNS))
    np.testing.assert_allclose(traits.noise.variance, whole, rtol=0.2)
    measured = decompose(matrix, n_bootstrap=60, n_permutations=0)
    widths = [(found.effects_high - found.effects_low).sum(axis=1) for found in (traits, measured)]
    assert widths[0][3] > 1.15 * widths[1][3]  # the filled cell is less certain than a measured one


def test_effect_intervals_cover_the_true_effect():
    covered, base = [], np.full(6, 0.4)
    for seed in range(30):
        shares = 1 / (1 + np.exp(-0.7 * planted(12, 6, 1, 0.9, seed)[0]))
        matrix = answered(shares, base, items=200, shared_difficulty=0.0, seed=seed)
        traits = decompose(matrix, n_bootstrap=400, n_permutations=0, cv_seeds=1)
        weights = traits.loadings[:, :1] / np.abs(traits.loadings[:, :1]).sum(axis=0)
        truth = (100 * (shares - base) @ weights)[:, 0]
        covered += list((traits.effects_low[:, 0] <= truth) & (truth <= traits.effects_high[:, 0]))
    assert 0.9 <= np.mean(covered) <= 0.99


def test_known_standard_errors_give_the_intervals():
    values = planted(8, 5, 1, 0.9, 0)[0]

    def cell(source: str, target: str, value: float) -> Cell:
        nan = float("nan")
        return Cell(source, target, None, "acc", value, 0, 0.3, nan, nan, nan, nan, nan, nan, "given")

    matrix = matrix_of(values)
    cells = tuple(
        cell(s, t, values[i, j]) for i, s in enumerate(matrix.sources) for j, t in enumerate(matrix.targets)
    )
    base = tuple(cell("__baseline__", t, 0.0) for t in matrix.targets)
    traits = decompose(replace(matrix, cells=cells, base_cells=base), n_bootstrap=20, n_permutations=0)
    assert traits.conditions["effect_intervals"] == "stderr"
    weights = traits.loadings[:, 0] / np.abs(traits.loadings[:, 0]).sum()
    half = 1.96 * 0.3 * np.sqrt(2 * (weights**2).sum())
    np.testing.assert_allclose(traits.effects_high[:, 0] - traits.effects[:, 0], half, rtol=1e-6)
    np.testing.assert_allclose(traits.noise.variance, 0.09)
    assert traits.noise.origin == "stderr"


def test_counts_alone_give_binomial_errors_and_a_perfect_score_is_not_certain():
    nan = float("nan")
    cells = tuple(
        Cell(
            "source000", f"target{j:03d}", None, "acc", value, 100, nan, nan, nan, nan, nan, nan, nan, "given"
        )
        for j, value in enumerate((0.2, 1.0))
    )
    stderr = cell_stderr(replace(matrix_of(np.array([[0.2, 1.0]])), cells=cells), (0,), (0, 1))
    assert stderr[1, 0] == pytest.approx(0.04, abs=0.001)
    assert 0 < stderr[1, 1] < 0.01
    assert np.isnan(stderr[0]).all()


def test_without_any_count_intervals_come_from_what_the_traits_leave_over():
    values, _ = planted(30, 12, 1, 0.8, 0)
    traits = decompose(matrix_of(values), scale="center", n_bootstrap=20, n_permutations=0)
    assert traits.conditions["effect_intervals"] == "residuals"
    assert traits.noise.origin == "unknown"
    assert np.isnan(traits.noise.total_share)
    weights = traits.loadings[:, 0] / np.abs(traits.loadings[:, 0]).sum()
    half = 1.96 * np.sqrt(2 * 0.2 * (weights**2).sum())
    measured = traits.effects_high[:, 0] - traits.effects[:, 0]
    np.testing.assert_allclose(measured, half, rtol=0.15)


def test_residual_spread_is_unbiased():
    table = noise(200, 20, 0)
    fitted = np.broadcast_to(table.mean(axis=0), table.shape)
    observed = np.ones(table.shape, dtype=bool)
    np.testing.assert_allclose(residual_spread(table, observed, fitted, 20.0), table.std(axis=0, ddof=1))


def test_noise_corrected_shares_come_back():
    """One trait holds all true variance; with little noise taken out its share is one."""
    trait = 1 / (1 + np.exp(-np.outer(np.linspace(-1, 1, 20), np.ones(8))))
    traits = decompose(answered(trait, np.full(8, 0.5), items=150), n_bootstrap=20, n_permutations=0)
    assert traits.explained_variance_ratio[0] < 0.97
    assert traits.noise.signal_ratio[0] == pytest.approx(1.0, abs=0.03)
    assert traits.noise.total_share == pytest.approx(1 - traits.explained_variance_ratio[0], abs=0.03)
    assert traits.noise.origin == "items"


def test_noise_is_taken_out_of_each_component_and_of_the_total():
    found = Components(np.eye(3)[:, :2], np.eye(2), np.sqrt([8.0, 2.0]), np.zeros(2), np.ones(2), 10.0)
    options = {
        "unit": np.array([1.0, 0.5]),
        "spread": np.array([2.0, 2.0]),
        "reliability": np.full(2, np.nan),
    }
    told = noise_summary(found, 3, origin="items", variance=np.array([1.0, 2.0]), **options)
    np.testing.assert_allclose(told.signal_ratio, [3 / 3.5, 0.5 / 3.5])
    np.testing.assert_allclose(told.share, [0.25, 0.5])
    assert told.total_share == pytest.approx(1.5 / 5)
    drowned = noise_summary(found, 3, origin="items", variance=np.array([9.0, 2.0]), **options)
    assert np.isnan(drowned.signal_ratio).all()
    assert "measurement noise alone" in drowned.reason
    partly = noise_summary(found, 3, origin="items", variance=np.array([1.0, np.nan]), **options)
    assert "1 of 2 targets" in partly.reason
    assert np.isnan(partly.total_share)


def test_adapters_that_differ_by_noise_only_have_no_signal():
    matrix = answered(np.full((10, 6), 0.5), np.full(6, 0.5), items=100)
    noise_found = decompose(matrix, n_bootstrap=20, n_permutations=0).noise
    assert noise_found.total_share == pytest.approx(1.0, abs=0.35)
    assert (noise_found.share > 0.5).sum() >= 4


def test_reliability_is_high_where_sources_differ_and_none_where_seeds_do():
    apart = answered(
        np.linspace(0.2, 0.8, 10)[:, None] * np.ones((1, 3)), np.full(3, 0.4), items=500, seeds=3
    )
    alike = answered(np.full((10, 3), 0.5), np.full(3, 0.4), items=500, seeds=3, seed_spread=0.5)
    assert (seed_reliability(apart, (0, 1, 2)) > 0.95).all()
    assert (seed_reliability(alike, (0, 1, 2)) < 0.7).all()
    assert np.isnan(seed_reliability(answered(SHARES, BASE, items=50), COLUMNS)).all()


def test_items_and_seeds_are_resampled_and_named():
    shares = 1 / (1 + np.exp(-planted(12, 6, 1, 0.9, 0)[0]))
    traits = decompose(
        answered(shares, np.full(6, 0.5), items=200, seeds=2, seed_spread=0.1), n_bootstrap=100
    )
    assert set(traits.stability.resamplings) >= {"adapters", "items", "seeds"}
    assert traits.conditions["bootstrap"].endswith("items and seeds")
    assert traits.stability.resamplings["items"].congruence_mean[0] > 0.95
    assert traits.stability.resamplings["items"].noise_p95[0] < 0.99
