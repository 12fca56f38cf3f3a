"""The plane of the first two components: the known cases, and what resampling does to its points."""

from __future__ import annotations

import numpy as np
import pytest

from traitmap.analysis.traits.components import biplot_of, ellipse, leaves_out_origin
from traitmap.analysis.traits.decompose import decompose
from traitmap.matrix.io import read_matrix
from traitmap.matrix.record import TransferMatrix


def table_of(rows: int = 9, columns: int = 6, noise: float = 0.1, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    planted = rng.normal(size=(rows, 2)) @ rng.normal(size=(2, columns))
    return np.asarray(planted + noise * rng.normal(size=(rows, columns)))


@pytest.fixture
def matrix(tmp_path) -> TransferMatrix:  # type: ignore[no-untyped-def]
    table = table_of()
    names = [f"target {t}" for t in range(table.shape[1])]
    lines = [",".join(["source", *names])]
    lines += [",".join([f"source {s}", *(f"{v:.6f}" for v in row)]) for s, row in enumerate(table)]
    place = tmp_path / "matrix.csv"
    place.write_text("\n".join(lines), encoding="utf-8")
    return read_matrix(place)


def test_ellipse_of_a_known_covariance() -> None:
    long, short, angle = ellipse(np.diag([4.0, 1.0]))
    assert long == pytest.approx(2 * 2.4477, abs=1e-3)  # sqrt of chi squared (2 degrees, .95) is 2.4477
    assert short == pytest.approx(2.4477, abs=1e-3)
    assert abs(angle) % 180 == pytest.approx(0, abs=1e-9)
    assert all(np.isnan(ellipse(np.full((2, 2), np.nan))))


def test_ellipse_holds_its_share_of_a_normal_sample() -> None:
    covariance = np.array([[2.0, 1.2], [1.2, 1.0]])
    drawn = np.random.default_rng(1).multivariate_normal([0, 0], covariance, size=20_000)
    long, short, angle = ellipse(covariance)
    turn = np.radians(angle)
    along = drawn @ np.array([np.cos(turn), np.sin(turn)])
    across = drawn @ np.array([-np.sin(turn), np.cos(turn)])
    assert np.mean((along / long) ** 2 + (across / short) ** 2 <= 1) == pytest.approx(0.95, abs=0.005)


def test_scores_are_those_of_the_traits(matrix: TransferMatrix) -> None:
    found = decompose(matrix, n_bootstrap=60, n_permutations=20)
    assert found.biplot is not None
    assert found.biplot.draws == 60
    np.testing.assert_allclose(found.biplot.scores, found.scores[:, :2], atol=1e-8)
    np.testing.assert_allclose(found.biplot.loadings, found.loadings[:, :2], atol=1e-12)
    assert (np.linalg.eigvalsh(found.biplot.scores_covariance) > -1e-12).all()
    assert decompose(matrix, n_bootstrap=0, n_permutations=20).biplot is None


def test_axes_that_do_not_move_leave_the_points_where_they_are() -> None:
    table = table_of()
    axes = np.linalg.svd(table - table.mean(axis=0), full_matrices=False)[2][:2].T
    still = biplot_of(table, "center", axes, np.repeat(axes[None], 5, axis=0), None)
    assert np.allclose(still.scores_covariance, 0)
    rng = np.random.default_rng(2)
    moved = rng.normal(scale=0.5, size=(4000, *table.shape))
    noisy = biplot_of(table, "center", axes, np.repeat(axes[None], 4000, axis=0), moved)
    # independent deviations of variance .25, less the mean of nine adapters, on unit axes
    expected = 0.25 * (1 - 1 / len(table)) * np.eye(2)
    np.testing.assert_allclose(noisy.scores_covariance.mean(axis=0), expected, atol=0.01)


def test_what_leaves_out_the_origin_is_what_chi_squared_says() -> None:
    rng = np.random.default_rng(3)
    answers = set()
    for _ in range(40):
        root = rng.normal(size=(2, 2))
        covariance, point = root @ root.T, rng.normal(size=2) * 4
        distance = point @ np.linalg.solve(covariance, point)
        assert leaves_out_origin(point, covariance) == (distance > -2 * np.log(0.05))
        answers.add(distance > -2 * np.log(0.05))
    assert answers == {True, False}
    assert not leaves_out_origin(np.ones(2), np.zeros((2, 2)))
    assert not leaves_out_origin(np.ones(2), np.full((2, 2), np.nan))
