"""How many components: none in noise, the planted number in planted tables, nulls of known size."""

import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes

from planted import COUNTS_ONLY, matrix_of, noise, planted
from traitmap.analysis.traits.components import congruence
from traitmap.analysis.traits.decompose import decompose, most_components
from traitmap.analysis.traits.dimension import (
    above_null,
    cross_validate,
    fold_masks,
    gaussian_null,
    one_standard_error,
    permutation_null,
    permute_columns,
    spectrum_band,
    spectrum_ratios,
)

ALL = np.ones((10, 10), dtype=bool)


def test_noise_tables_support_no_component():
    found = [
        decompose(matrix_of(noise(10, 10, seed)), **COUNTS_ONLY).n_components["used"] for seed in range(30)
    ]
    assert np.mean([count == 0 for count in found]) >= 0.9


def test_two_planted_traits_are_found_and_recovered():
    right, least = 0, []
    for seed in range(20):
        values, truth = planted(20, 10, 2, 0.9, seed)
        traits = decompose(matrix_of(values), **COUNTS_ONLY)
        right += traits.n_components["used"] == 2
        pattern = traits.loadings[:, :2] * traits.singular_values[:2]
        turned = pattern @ orthogonal_procrustes(pattern, truth)[0]
        least.append(np.diag(congruence(turned, truth)).min())
    assert right >= 18
    assert np.median(least) >= 0.95
    assert min(least) >= 0.9


@pytest.mark.parametrize(("rows", "columns"), [(10, 10), (12, 9)])
def test_fold_masks_deal_out_every_observed_cell_once(rows, columns):
    observed = np.random.default_rng(0).random((rows, columns)) > 0.2
    masks = fold_masks(observed, 5, np.random.default_rng(1))
    np.testing.assert_array_equal(masks.sum(axis=0), observed.astype(int))
    per_column = masks.sum(axis=1)
    assert (per_column.max(axis=0) - per_column.min(axis=0)).max() <= 1


def test_the_null_model_errs_by_one_variance_and_its_mean():
    table = noise(40, 20, 0)
    validation = cross_validate(table, np.ones(table.shape, dtype=bool), "standard", maximum=1)
    assert validation.errors[0] == pytest.approx(1 + 1 / 40, abs=0.03)
    assert validation.chosen == 0


def test_a_precise_table_supports_its_rank_and_no_more():
    truth = noise(14, 2, 0) @ noise(2, 9, 1)
    traits = decompose(matrix_of(truth + 1e-6 * noise(14, 9, 2)), **COUNTS_ONLY)
    assert traits.n_components["cv"] == 2


def test_permuting_keeps_columns_and_holes():
    table = noise(8, 5, 0)
    observed = np.random.default_rng(1).random((8, 5)) > 0.3
    for shuffled in permute_columns(table, observed, 20, np.random.default_rng(2)):
        assert (shuffled[~observed] == 0).all()
        for column in range(5):
            here = observed[:, column]
            np.testing.assert_array_equal(np.sort(shuffled[here, column]), np.sort(table[here, column]))


def test_four_components_of_noise_explain_four_fifths_at_eleven_by_ten():
    mask = np.ones((11, 10), dtype=bool)
    null = gaussian_null(mask, np.ones(10), 0, "standard", draws=2000, count=10, seed=0)
    mean, low, high = (part[3] for part in spectrum_band(np.cumsum(null, axis=1)))
    assert mean == pytest.approx(0.796, abs=0.005)
    assert low == pytest.approx(0.74, abs=0.01)
    assert high == pytest.approx(0.85, abs=0.01)


def test_gaussian_and_permutation_nulls_agree_on_gaussian_data():
    options = {"draws": 500, "count": 9, "seed": 0}
    gaussian = gaussian_null(ALL, np.ones(10), 0, "standard", **options)
    permuted = permutation_null(noise(10, 10, 3), ALL, 0, "standard", **options)
    np.testing.assert_allclose(spectrum_band(gaussian)[0], spectrum_band(permuted)[0], atol=0.01)


@pytest.mark.parametrize("shape", [(12, 7), (7, 12)])
def test_spectrum_is_that_of_the_correlation_matrix(shape):
    table = noise(*shape, 1)
    expected = np.sort(np.linalg.eigvalsh(np.corrcoef(table.T)))[::-1][:5] / shape[1]
    np.testing.assert_allclose(spectrum_ratios(table[None], "standard", 5)[0], expected, atol=1e-10)


def test_the_null_is_completed_like_the_table():
    """Filled cells follow the components, in the null as in the table."""
    values, _ = planted(15, 8, 1, 0.9, 0)
    values[np.random.default_rng(0).random(values.shape) < 0.25] = np.nan
    traits = decompose(matrix_of(values), n_bootstrap=0, n_permutations=300)
    assert traits.n_components["cv"] == 1
    options = {"draws": 300, "count": 8, "seed": 0}
    filled, means = (
        spectrum_band(gaussian_null(np.isfinite(values), np.ones(8), rank, "standard", **options))[0]
        for rank in (1, 0)
    )
    assert filled[0] - means[0] > 0.03
    assert traits.null_mean[0] == pytest.approx(filled[0], abs=0.015)


def test_counting_stops_at_the_first_component_below_its_null():
    assert above_null(np.array([0.5, 0.1, 0.3]), np.array([0.4, 0.2, 0.1])) == 1
    assert above_null(np.array([0.5, 0.3]), np.array([0.4, 0.2])) == 2
    assert above_null(np.array([0.5]), np.array([np.nan])) == 0


def test_an_empty_null_is_unknown():
    assert np.isnan(spectrum_band(np.empty((0, 4)))[0]).all()


def test_most_components_leaves_room_to_validate():
    assert most_components((3, 2)) == 1
    assert most_components((10, 10)) == 8
    assert most_components((1000, 200)) == 28


def test_the_fewest_components_within_one_standard_error_are_chosen():
    """Two sources: one component is worse than two by .05 on average, by +.3 on one and -.2 on the other."""
    errors = np.array([[1.0, 1.0], [0.8, 0.3], [0.5, 0.5]])
    cells = np.broadcast_to(errors[:, None, :, None], (3, 4, 2, 5)).copy()
    chosen, best, stderr = one_standard_error(cells, np.ones((4, 2, 5)))
    assert (chosen, best) == (1, 2)
    np.testing.assert_allclose(stderr, [0, 0.25, 0])
    cells[1, :, 1] = 0.6  # now worse on both
    assert one_standard_error(cells, np.ones((4, 2, 5)))[0] == 2


def test_assignments_to_folds_that_disagree_widen_the_standard_error():
    cells = np.ones((2, 4, 3, 5))
    cells[1] = 0.9
    cells[1, :2] = 1.06
    chosen, best, stderr = one_standard_error(cells, np.ones((4, 3, 5)))
    assert (chosen, best) == (0, 1)
    assert stderr[0] == pytest.approx(np.std([0.1, 0.1, -0.06, -0.06], ddof=1) / 2)
