"""Stability: matching undoes order and sign, planted traits stay, noise is known for noise."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.linalg import subspace_angles

from planted import matrix_of, noise, planted
from traitmap.analysis.traits.decompose import decompose
from traitmap.analysis.traits.stability import (
    ResampledTable,
    examine,
    largest_angle,
    leading,
    match,
    overlapping_groups,
    resampled_sources,
    without_source,
    without_target,
)


def subject_of(values: np.ndarray, examined: int) -> ResampledTable:
    observed, unknown = np.ones(values.shape, dtype=bool), np.zeros((values.shape[1], examined))
    subject = ResampledTable(values, values, observed, unknown, 0, "standard", "none", 0)
    return replace(subject, loadings=leading(values[None], subject)[0][0][:, :examined])


def test_matching_undoes_order_and_sign():
    reference, _ = np.linalg.qr(noise(8, 3, 0))
    shuffled = (reference[:, [2, 0, 1]] * [1, -1, -1])[None]
    phi, aligned = match(reference, shuffled)
    np.testing.assert_allclose(phi, 1)
    np.testing.assert_allclose(aligned[0], reference, atol=1e-12)


def test_matching_is_the_best_assignment_not_the_greedy_one():
    reference = np.eye(2)
    vectors = np.array([[0.8, 0.7], [0.6, 0.71414284]])[None]
    phi, _ = match(reference, vectors)
    np.testing.assert_allclose(phi[0], [0.8, 0.714143], atol=1e-5)


def test_each_draw_may_have_its_own_reference():
    references = np.stack([np.linalg.qr(noise(6, 2, seed))[0] for seed in range(3)])
    np.testing.assert_allclose(match(references, -references[:, :, ::-1])[0], 1)


@pytest.mark.parametrize("shape", [(15, 6), (6, 15)])
def test_leading_components_are_the_singular_vectors(shape):
    values = noise(*shape, 1)
    vectors, ratios = leading(values[None], subject_of(values, 3))
    z = (values - values.mean(axis=0)) / values.std(axis=0)
    _, singular, vt = np.linalg.svd(z, full_matrices=False)
    np.testing.assert_allclose(np.abs(vectors[0].T), np.abs(vt[:5]), atol=1e-8)
    np.testing.assert_allclose(ratios[0], (singular**2 / (singular**2).sum())[:5], atol=1e-10)


def test_the_largest_angle_is_that_of_scipy():
    first, others = noise(9, 2, 0), np.stack([noise(9, 2, seed) for seed in (1, 2)])
    expected = [np.degrees(subspace_angles(first, other)[0]) for other in others]
    np.testing.assert_allclose(largest_angle(first, others), expected, atol=1e-5)


def test_overlapping_neighbours_form_groups():
    eigenvalues = np.array([0.5, 0.2, 0.15, 0.05])
    assert overlapping_groups(eigenvalues, 40) == [(1, 2)]
    assert overlapping_groups(eigenvalues, 2000) == []
    assert overlapping_groups(eigenvalues, 4) == [(0, 1, 2, 3)]
    assert overlapping_groups(eigenvalues[:1], 40) == []


def test_bootstrap_draws_whole_sources():
    values = noise(6, 4, 0)
    subject = subject_of(values, 2)
    tables, observed, _ = next(resampled_sources(subject, 50, np.random.default_rng(0)))
    rows = {row.tobytes() for row in values}
    assert all(row.tobytes() in rows for table in tables for row in table)
    assert all(len({row.tobytes() for row in table}) >= 3 for table in tables)
    assert observed.shape == tables.shape == (50, 6, 4)


def test_leaving_out_equals_decomposing_the_rest():
    values = planted(12, 7, 1, 0.8, 0)[0]
    subject = subject_of(values, 1)
    congruence = examine(subject.loadings, without_source(subject, [4]), subject)[0]
    by_hand = leading(np.delete(values, 4, axis=0)[None], subject)[0]
    np.testing.assert_allclose(congruence, match(subject.loadings, by_hand)[0])
    targets = without_target(subject, [2])
    rest = leading(np.delete(values, 2, axis=1)[None], subject)[0]
    np.testing.assert_allclose(targets, match(np.delete(subject.loadings, 2, axis=0), rest)[0])


@pytest.fixture(scope="module")
def planted_traits():
    values, _ = planted(25, 10, 2, 0.9, 1)
    return decompose(matrix_of(values), n_bootstrap=300)


@pytest.fixture(scope="module")
def noise_traits():
    return decompose(matrix_of(noise(12, 10, 1)), n_bootstrap=300)


def test_a_planted_subspace_stays_put(planted_traits):
    stability = planted_traits.stability
    assert stability.resamplings["adapters"].congruence_mean[:2].min() > 0.85
    assert stability.resamplings["leave_one_source_out"].congruence_p05[:2].min() > 0.9
    assert stability.resamplings["leave_one_target_out"].congruence_p05[:2].min() > 0.9
    for components, _, angle_p95 in stability.overlaps:
        if components == (0, 1):
            assert angle_p95 < 30


def test_noise_components_do_not_exceed_their_own_noise_level(noise_traits):
    adapters = noise_traits.stability.resamplings["adapters"]
    assert (adapters.congruence_mean < adapters.noise_p95).all()
    assert (adapters.congruence_p05 < 0.85).all()
    assert (adapters.noise_p95 > 0.6).all()  # noise agrees with its own bootstrap: hence the level


def test_loading_intervals_hold_the_loading_and_narrow_with_more_sources():
    few, many = (
        decompose(matrix_of(planted(rows, 10, 1, 0.6, 1)[0]), n_bootstrap=300, n_permutations=0)
        for rows in (25, 250)
    )
    widths = [(traits.loadings_high - traits.loadings_low)[:, 0].mean() for traits in (few, many)]
    assert widths[1] < 0.5 * widths[0]
    low, value, high = (part[:, 0] for part in (few.loadings_low, few.loadings, few.loadings_high))
    assert ((low <= value) & (value <= high)).mean() >= 0.8
    assert np.isnan(few.loadings_low[:, few.stability.examined :]).all()


def test_the_source_that_makes_a_component_is_named():
    values = noise(14, 8, 0)
    values[5] += 9 * np.sign(noise(1, 8, 3)[0])
    traits = decompose(matrix_of(values), n_bootstrap=50, n_permutations=30)
    assert traits.stability.resamplings["leave_one_source_out"].worst[0] == "source005"
    found = [warning for warning in traits.warnings if warning.code == "one_source_axis"]
    assert found[0].about == ("PC0", "source005")
    assert f"leverage {traits.leverage[5, 0]:.2f}" in found[0].message


@pytest.mark.parametrize("rotate", ["varimax", "oblimin"])
def test_rotated_components_are_resampled_rotated(rotate):
    simple = np.kron(np.eye(2), np.ones((5, 1)))
    values = noise(60, 2, 0) @ simple.T + 0.3 * noise(60, 10, 1)
    traits = decompose(matrix_of(values), rotate=rotate, n_bootstrap=100, n_permutations=20)
    assert traits.n_components["used"] == 2
    assert traits.stability.resamplings["adapters"].congruence_p05[:2].min() > 0.95
    weak = (np.abs(traits.loadings[:, :2]) < 0.15).sum(axis=0)
    np.testing.assert_array_equal(weak, [5, 5])
    assert all(components[0] >= 2 for components, _, _ in traits.stability.overlaps)
