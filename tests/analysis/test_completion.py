"""Missing cells: exact tables come back, observed cells never change, batches equal single tables."""

import numpy as np
import pytest

from planted import matrix_of, noise
from traitmap.analysis.traits.components import (
    complete,
    complete_tables,
    low_rank_fit,
    restore,
    standardise,
)
from traitmap.analysis.traits.decompose import decompose

METRICS = ["standard", "center", "double"]


def holes(shape: tuple[int, int], share: float, seed: int) -> np.ndarray:
    """A mask of missing cells that leaves every row and column at least three."""
    generator = np.random.default_rng(seed)
    while True:
        missing = generator.random(shape) < share
        if (~missing).sum(axis=0).min() >= 3 and (~missing).sum(axis=1).min() >= 3:
            return missing


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shape", [(20, 10), (10, 10), (12, 30)])
def test_a_rank_one_table_with_a_fifth_missing_comes_back(shape, seed):
    generator = np.random.default_rng(seed)
    truth = np.outer(generator.normal(size=shape[0]), generator.normal(size=shape[1]))
    missing = holes(shape, 0.2, seed)
    table = np.where(missing, np.nan, truth)
    np.testing.assert_allclose(complete(table, 1), truth, atol=1e-6)
    traits = decompose(matrix_of(table), n_bootstrap=0, n_permutations=0)
    assert traits.n_components["used"] == 1
    np.testing.assert_allclose(traits.completed, truth, atol=1e-6)


def test_a_rank_two_table_with_offsets_comes_back():
    generator = np.random.default_rng(5)
    truth = generator.normal(size=(25, 2)) @ generator.normal(size=(2, 15)) + 10 * generator.normal(size=15)
    table = np.where(holes((25, 15), 0.15, 5), np.nan, truth)
    np.testing.assert_allclose(complete(table, 2), truth, atol=1e-6)


@pytest.mark.parametrize("metric", METRICS)
def test_observed_cells_stay_as_they_are(metric):
    table = np.where(holes((12, 8), 0.2, 1), np.nan, noise(12, 8, 1))
    filled = complete(table, 2, metric)
    known = np.isfinite(table)
    np.testing.assert_array_equal(filled[known], table[known])
    assert np.isfinite(filled).all()


@pytest.mark.parametrize("metric", METRICS)
def test_a_batch_equals_its_tables_one_by_one(metric):
    tables = np.stack([noise(9, 7, seed) for seed in range(5)])
    observed = np.stack([~holes((9, 7), 0.2, seed) for seed in range(5)])
    together = complete_tables(tables, observed, 2, metric, tolerance=1e-9, limit=3000)
    alone = [
        complete_tables(tables[[b]], observed[[b]], 2, metric, tolerance=1e-9, limit=3000)[0]
        for b in range(5)
    ]
    np.testing.assert_allclose(together, np.stack(alone), atol=1e-8)


def test_without_components_missing_cells_are_column_means():
    table = np.array([[1.0, 5.0], [np.nan, 7.0], [3.0, np.nan]])
    np.testing.assert_array_equal(complete(table, 0), [[1, 5], [2, 7], [3, 6]])


@pytest.mark.parametrize("shape", [(12, 8), (8, 12)])
def test_unregularised_fit_is_the_truncated_singular_value_decomposition(shape):
    z = standardise(noise(*shape, 3)[None], "standard")[0]
    u, s, vt = np.linalg.svd(z[0], full_matrices=False)
    expected = (u[:, :3] * s[:3]) @ vt[:3]
    np.testing.assert_allclose(low_rank_fit(z, 3, np.ones(1), regularised=False)[0], expected, atol=1e-10)


def test_regularisation_shrinks_noise_and_leaves_structure():
    generator = np.random.default_rng(0)
    structure = standardise(np.outer(generator.normal(size=30), generator.normal(size=12))[None], "standard")[
        0
    ]
    degrees = np.array([30.0 * 12 - 12 - 40])
    np.testing.assert_allclose(low_rank_fit(structure, 1, degrees), structure, atol=1e-8)
    z = standardise(noise(30, 12, 0)[None], "standard")[0]
    kept = (low_rank_fit(z, 1, degrees) ** 2).sum() / (
        low_rank_fit(z, 1, degrees, regularised=False) ** 2
    ).sum()
    assert kept < 0.5


@pytest.mark.parametrize("metric", METRICS)
def test_standardise_and_restore_are_inverse(metric):
    tables = noise(6, 20, 2).reshape(2, 3, 20) + 4
    np.testing.assert_allclose(restore(*standardise(tables, metric)), tables)


def test_double_centring_leaves_no_means():
    z = standardise(noise(9, 7, 4)[None] + 3, "double")[0][0]
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(z.mean(axis=1), 0, atol=1e-12)


def test_a_constant_column_becomes_zero():
    table = np.column_stack([np.full(6, 0.3), np.arange(6.0)])
    z = standardise(table[None], "standard")[0][0]
    np.testing.assert_array_equal(z[:, 0], 0)


@pytest.mark.parametrize("metric", METRICS)
def test_what_stands_in_unobserved_cells_does_not_matter(metric):
    observed = ~holes((11, 7), 0.2, 3)
    table = noise(11, 7, 3)
    spoilt = np.where(observed, table, 1e6)
    clean, other = (complete_tables(part[None], observed[None], 2, metric) for part in (table, spoilt))
    np.testing.assert_array_equal(clean, other)
