"""Rotations keep the common part and reach their criterion's optimum."""

import numpy as np
import pytest

from planted import noise
from traitmap.analysis.traits.components import (
    congruence,
    factor_variances,
    oblimin,
    rotate_loadings,
    varimax,
)

SIMPLE = np.kron(np.eye(3), np.ones((4, 1))) * np.array([0.9, 0.8, 0.7])


def turned(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def simplicity(loadings: np.ndarray) -> float:
    return float((loadings**2).var(axis=0).sum())


@pytest.mark.parametrize("seed", range(5))
def test_varimax_of_two_factors_reaches_the_best_angle(seed):
    loadings = noise(12, 2, seed)
    best = max(simplicity(loadings @ turned(angle)) for angle in np.linspace(0, np.pi, 4000))
    assert simplicity(varimax(loadings, normalise=False)[0]) == pytest.approx(best, rel=1e-5)


@pytest.mark.parametrize("method", [varimax, oblimin])
def test_simple_structure_comes_back_after_mixing(method):
    mixing, _ = np.linalg.qr(noise(3, 3, 0))
    pattern, transform = method(SIMPLE @ mixing)
    np.testing.assert_allclose(np.abs(np.diag(congruence(pattern, SIMPLE))), 1, atol=1e-6)
    np.testing.assert_allclose(transform.T @ transform, np.eye(3), atol=1e-4)


def test_oblimin_finds_correlated_factors():
    correlation = np.array([[1, 0.5, 0.3], [0.5, 1, 0.2], [0.3, 0.2, 1]])
    loadings = SIMPLE @ np.linalg.cholesky(correlation)
    pattern, transform = oblimin(loadings)
    np.testing.assert_allclose(pattern, SIMPLE, atol=1e-4)
    np.testing.assert_allclose(transform.T @ transform, correlation, atol=1e-4)


@pytest.mark.parametrize("rotation", ["varimax", "oblimin"])
def test_the_common_part_and_its_variance_stay(rotation):
    loadings = noise(10, 3, 1)
    pattern, transform = rotate_loadings(loadings, rotation)
    correlation = transform.T @ transform
    np.testing.assert_allclose(pattern @ correlation @ pattern.T, loadings @ loadings.T, atol=1e-8)
    np.testing.assert_allclose(transform @ pattern.T, loadings.T, atol=1e-8)
    variances = factor_variances(pattern, transform)
    assert variances.sum() == pytest.approx((loadings**2).sum())
    assert (np.diff(variances) <= 1e-12).all()
    assert (pattern[np.abs(pattern).argmax(axis=0), range(3)] > 0).all()


def test_one_factor_and_none_are_left_alone():
    single = noise(6, 1, 0)
    np.testing.assert_array_equal(rotate_loadings(single, "oblimin")[0], single)
    several = noise(6, 3, 0)
    np.testing.assert_array_equal(rotate_loadings(several, "none")[0], several)


def test_congruence_ignores_size_and_knows_sign():
    vectors = noise(7, 2, 0)
    phi = congruence(vectors, -3 * vectors)
    np.testing.assert_allclose(np.diag(phi), -1)
    assert abs(phi[0, 1]) < 1
    assert congruence(np.zeros((4, 1)), np.ones((4, 1)))[0, 0] == 0
