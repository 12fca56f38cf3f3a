"""decompose: two routes agree, order and sign do not matter, and errors say what to do."""

import json
from dataclasses import fields

import numpy as np
import pytest
from sklearn.decomposition import PCA

from planted import COUNTS_ONLY, matrix_of, noise, planted, subspace_overlap
from traitmap.analysis.traits.components import signs
from traitmap.analysis.traits.decompose import decompose
from traitmap.analysis.traits.records import Traits
from traitmap.errors import MatrixError
from traitmap.matrix.record import TransferMatrix

SCALES = ["standard", "center", "logit", "gain", "double"]
QUICK = {"n_bootstrap": 60, "n_permutations": 40, "cv_seeds": 3}


def scores_matrix(rows: int = 14, columns: int = 9, seed: int = 0) -> TransferMatrix:
    """Proportions with two traits, one missing cell, a known base."""
    values, _ = planted(rows, columns, 2, 0.9, seed)
    shares = 1 / (1 + np.exp(-values))
    shares[2, 3] = np.nan
    return matrix_of(shares, baseline=np.full(columns, 0.4))


def reordered(matrix: TransferMatrix, rows: np.ndarray, columns: np.ndarray) -> TransferMatrix:
    return matrix_of(
        matrix.values[np.ix_(rows, columns)],
        [matrix.sources[i] for i in rows],
        [matrix.targets[j] for j in columns],
        matrix.baseline[columns],
    )


@pytest.mark.parametrize("scale", ["standard", "center"])
def test_scikit_learn_finds_the_same_components(scale):
    values = noise(12, 7, 0)
    traits = decompose(matrix_of(values), scale=scale, **COUNTS_ONLY)
    table = values - values.mean(axis=0)
    table = table / table.std(axis=0, ddof=1) if scale == "standard" else table
    model = PCA().fit(table)
    np.testing.assert_allclose(traits.explained_variance_ratio, model.explained_variance_ratio_, atol=1e-12)
    np.testing.assert_allclose(np.abs(traits.loadings), np.abs(model.components_.T), atol=1e-9)
    np.testing.assert_allclose(np.abs(traits.scores), np.abs(model.transform(table)), atol=1e-9)


@pytest.mark.parametrize("scale", SCALES)
def test_loadings_and_scores_rebuild_the_completed_table(scale):
    matrix = scores_matrix()
    traits = decompose(matrix, scale=scale, **COUNTS_ONLY)
    rebuilt = traits.scores @ traits.loadings.T * traits.divisors + traits.centers
    if scale == "logit":
        rebuilt = 1 / (1 + np.exp(-rebuilt))
    if scale == "gain":
        rebuilt = rebuilt + matrix.baseline
    expected = traits.completed
    if scale == "double":
        expected = expected - (expected - expected.mean(axis=0)).mean(axis=1, keepdims=True)
    np.testing.assert_allclose(rebuilt, expected, atol=1e-8)


@pytest.mark.parametrize("rotate", ["varimax", "oblimin"])
def test_rotation_keeps_the_table(rotate):
    matrix = matrix_of(planted(20, 10, 3, 0.95, 1)[0])
    plain = decompose(matrix, components=3, **COUNTS_ONLY)
    turned = decompose(matrix, components=3, rotate=rotate, **COUNTS_ONLY)
    np.testing.assert_allclose(
        turned.scores[:, :3] @ turned.loadings[:, :3].T,
        plain.scores[:, :3] @ plain.loadings[:, :3].T,
        atol=1e-9,
    )
    np.testing.assert_allclose(np.linalg.norm(turned.scores_u, axis=0), 1)
    np.testing.assert_allclose(np.linalg.norm(turned.loadings, axis=0), 1)
    np.testing.assert_array_equal(turned.scores[:, 3:], plain.scores[:, 3:])
    assert turned.rotated_variance_ratio.sum() == pytest.approx(plain.explained_variance_ratio[:3].sum())
    assert subspace_overlap(turned.loadings[:, :3], plain.loadings[:, :3]) == pytest.approx(1)


def test_raw_scores_and_gains_have_the_same_components():
    matrix = scores_matrix()
    raw, gain = (decompose(matrix, scale=scale, **COUNTS_ONLY) for scale in ("center", "gain"))
    np.testing.assert_allclose(raw.explained_variance_ratio, gain.explained_variance_ratio, atol=1e-10)
    np.testing.assert_allclose(raw.loadings, gain.loadings, atol=1e-10)
    np.testing.assert_allclose(raw.scores, gain.scores, atol=1e-10)
    np.testing.assert_allclose(raw.base_scores, gain.base_scores, atol=1e-10)


@pytest.mark.parametrize("scale", ["standard", "double"])
def test_order_of_rows_and_columns_changes_nothing(scale):
    matrix = scores_matrix()
    generator = np.random.default_rng(3)
    rows, columns = generator.permutation(14), generator.permutation(9)
    one = decompose(matrix, scale=scale, **QUICK).to_json()
    other = decompose(reordered(matrix, rows, columns), scale=scale, **QUICK).to_json()
    assert {**one, "scores": None} == {**other, "scores": None}
    assert one["scores"] == other["scores"]


def test_flipping_the_sign_of_a_target_flips_its_loading_and_nothing_else():
    values, _ = planted(14, 9, 2, 0.9, 4)
    flipped = values * np.where(np.arange(9) == 5, -1, 1)
    one, other = (decompose(matrix_of(part), **QUICK) for part in (values, flipped))
    np.testing.assert_allclose(one.explained_variance_ratio, other.explained_variance_ratio, atol=1e-12)
    np.testing.assert_allclose(np.abs(one.loadings), np.abs(other.loadings), atol=1e-9)
    np.testing.assert_allclose(one.leverage, other.leverage, atol=1e-9)
    np.testing.assert_allclose(one.cross_validation.errors, other.cross_validation.errors, atol=1e-9)
    assert one.n_components == other.n_components
    phi = [t.stability.resamplings["adapters"].congruence_mean for t in (one, other)]
    np.testing.assert_allclose(phi[0], phi[1], atol=1e-9)


def test_turning_the_whole_table_over_changes_the_scores_only():
    values, _ = planted(14, 9, 2, 0.9, 4)
    one, other = (decompose(matrix_of(part), **COUNTS_ONLY) for part in (values, -values))
    np.testing.assert_allclose(one.loadings, other.loadings, atol=1e-9)
    np.testing.assert_allclose(one.scores, -other.scores, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rotate", ["none", "varimax"])
def test_the_largest_loading_of_each_component_is_positive(seed, rotate):
    traits = decompose(matrix_of(noise(12, 8, seed)), components=3, rotate=rotate, **COUNTS_ONLY)
    peaks = traits.loadings[np.abs(traits.loadings).argmax(axis=0), range(8)]
    assert (peaks > 0).all()


@pytest.mark.parametrize("rounding", [0.0, 1e-16, -1e-16])
def test_tied_loadings_have_a_sign_that_rounding_cannot_turn(rounding):
    half = np.sqrt(0.5)
    np.testing.assert_array_equal(signs(np.array([[-half], [half + rounding]])), [-1])
    np.testing.assert_array_equal(signs(np.array([[half], [-half + rounding]])), [1])


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_draws():
    matrix = scores_matrix()
    first, second = (json.dumps(decompose(matrix, **QUICK).to_json()) for _ in range(2))
    assert first == second
    other = decompose(matrix, seed=1, **QUICK).to_json()
    assert other["loadings_low"] != json.loads(first)["loadings_low"]
    assert other["scores"] == json.loads(first)["scores"]


@pytest.mark.parametrize("size", [10, 12])
def test_a_planted_diagonal_does_not_make_the_traits(size):
    overlaps, spoilt = [], []
    for seed in range(8):
        values, truth = planted(size, size, 2, 0.9, seed)
        names = [f"task{i:02d}" for i in range(size)]
        matrix = matrix_of(values + 4 * np.eye(size), names, names)
        masked, kept = decompose(matrix, **COUNTS_ONLY), decompose(matrix, mask_diagonal=False, **COUNTS_ONLY)
        overlaps.append(subspace_overlap(masked.loadings[:, :2], truth))
        spoilt.append(subspace_overlap(kept.loadings[:, :2], truth))
    assert np.median(overlaps) >= 0.9
    assert np.median(spoilt) < 0.85


def test_masking_by_name_by_pair_and_not_at_all():
    values = noise(6, 5, 0)
    targets = ["a", "b", "c", "d", "e"]
    matrix = matrix_of(values, ["a", "b", "x", "y", "z", "w"], targets)
    named = decompose(matrix, **COUNTS_ONLY)
    np.testing.assert_array_equal(np.argwhere(named.masked), [[0, 0], [1, 1]])
    assert decompose(matrix, mask_diagonal=False, **COUNTS_ONLY).masked.sum() == 0
    paired = decompose(matrix, diagonal=[("x", "c")], **COUNTS_ONLY)
    np.testing.assert_array_equal(np.argwhere(paired.masked), [[0, 0], [1, 1], [2, 2]])
    assert sorted(named.conditions["masked_cells"]) == [["a", "a"], ["b", "b"]]


def test_effects_are_loading_weighted_gains_in_points():
    values = 0.5 + 0.1 * np.tanh(planted(12, 6, 1, 0.9, 0)[0])
    matrix = matrix_of(values, baseline=np.full(6, 0.45))
    traits = decompose(matrix, n_bootstrap=50, n_permutations=0)
    weights = traits.loadings / np.abs(traits.loadings).sum(axis=0)
    np.testing.assert_allclose(traits.effects, 100 * matrix.gains @ weights, atol=1e-9)
    assert traits.conditions["effects_against"] == "base"
    assert traits.conditions["points_per_unit"] == [100.0]
    assert (traits.effects_low[:, 0] < traits.effects[:, 0]).all()
    percent = decompose(matrix_of(100 * values, baseline=np.full(6, 45.0)), n_bootstrap=0, n_permutations=0)
    np.testing.assert_allclose(percent.effects, traits.effects, atol=1e-9)


def test_without_a_base_effects_are_against_the_mean_source():
    matrix = matrix_of(noise(8, 5, 0), baseline=np.full(5, np.nan))
    traits = decompose(matrix, **COUNTS_ONLY)
    np.testing.assert_allclose(traits.effects.mean(axis=0), 0, atol=1e-12)
    assert traits.conditions["effects_against"] == "mean of the sources"
    assert np.isnan(traits.base_scores).all()
    assert "baseline_unknown" in [warning.code for warning in traits.warnings]


def test_the_base_is_projected_like_a_source():
    values, _ = planted(12, 6, 2, 0.9, 0)
    base = values[0]
    traits = decompose(matrix_of(values, baseline=base), **COUNTS_ONLY)
    np.testing.assert_allclose(traits.base_scores, traits.scores[0], atol=1e-9)


def test_double_centring_removes_the_level_of_a_source():
    values = noise(10, 6, 0)
    raised = values + 5 * np.arange(10)[:, None]
    one, other = (decompose(matrix_of(part), scale="double", **COUNTS_ONLY) for part in (values, raised))
    np.testing.assert_allclose(one.loadings, other.loadings, atol=1e-8)
    assert len(one.singular_values) == 5


def test_empty_sources_and_constant_targets_are_left_out_and_named():
    values = noise(8, 6, 0)
    values[3] = np.nan
    values[:, 2] = 0.25
    values[:, 4] = np.nan
    traits = decompose(matrix_of(values), **COUNTS_ONLY)
    assert np.isnan(traits.scores[3]).all()
    assert np.isnan(traits.loadings[[2, 4]]).all()
    assert np.isfinite(np.delete(traits.loadings, [2, 4], axis=0)).all()
    about = {warning.code: warning.about for warning in traits.warnings}
    assert about["sources_left_out"] == ("source003",)
    assert about["targets_left_out"] == ("target002", "target004")
    json.dumps(traits.to_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("values", "options", "words"),
    [
        (noise(2, 5, 0), {}, ["at least 3 sources", "2 x 5"]),
        (noise(5, 1, 0), {}, ["2 targets"]),
        (np.full((5, 4), 0.5), {}, ["constant"]),
        (noise(5, 4, 0), {"scale": "robust"}, ["'robust'", "standard, center, logit, gain, double"]),
        (noise(5, 4, 0), {"rotate": "promax"}, ["'promax'", "none, varimax, oblimin"]),
        (noise(5, 4, 0), {"components": 9}, ["components=9", "0 to 4"]),
        (noise(5, 4, 0), {"components": -1}, ["components=-1"]),
        (noise(5, 4, 0) + 9, {"scale": "logit"}, ["[0, 1]", "target000"]),
        (noise(5, 4, 0), {"mask_diagonal": True}, ["no source has the name of a target"]),
        (noise(5, 4, 0), {"diagonal": [("x", "y")]}, ["'x'", "source000"]),
        (noise(5, 4, 0), {"names": list("abcdef")}, ["6 names", "4 components"]),
        (noise(5, 4, 0), {"n_bootstrap": -1}, ["n_bootstrap=-1"]),
        (noise(5, 4, 0), {"cv_seeds": 0}, ["cv_seeds=0"]),
        (noise(5, 4, 0), {"claimed_share": 75}, ["claimed_share=75", "0 to 1"]),
        (noise(5, 4, 0), {"majority_share": np.ones((4, 5))}, ["(4, 5)", "(5, 4)"]),
        (np.where(np.eye(5, 4) == 1, np.inf, 1.0), {}, ["infinite"]),
    ],
)
def test_what_cannot_be_decomposed_is_named(values, options, words):
    with pytest.raises(MatrixError) as caught:
        decompose(matrix_of(values), **options)
    for word in words:
        assert word in str(caught.value)


def test_gains_need_a_base():
    with pytest.raises(MatrixError, match="__baseline__"):
        decompose(matrix_of(noise(5, 4, 0), baseline=np.array([0, np.nan, 0, 0])), scale="gain")


def test_json_holds_every_number_by_name():
    matrix = scores_matrix()
    traits = decompose(matrix, names=("first",), **QUICK)
    data = json.loads(json.dumps(traits.to_json(), allow_nan=False))
    assert set(data["n_components"]) == {"cv", "parallel", "permutation", "used", "stable"}
    assert set(data["null_explained_variance_ratio"]) == {"mean", "p05", "p95"}
    assert set(data["loadings"]) == set(matrix.targets)
    assert set(data["scores"]) == set(data["leverage"]) == set(matrix.sources)
    np.testing.assert_allclose(data["loadings"]["target003"], traits.loadings[3])
    np.testing.assert_allclose(data["scores"]["source004"], traits.scores[4])
    assert data["names"][0] == "first"
    assert {"code", "message", "action", "about"} <= set(data["warnings"][0])
    assert data["stability"]["resamplings"]["adapters"]["draws"] == 60
    assert {"scores", "scores_u"} <= set(data["conditions"]["scorings"])
    assert data["conditions"]["bootstrap"].startswith("adapters only")
    assert data["words"]


def test_without_bootstrap_and_null_nothing_is_made_up():
    traits = decompose(scores_matrix(), **COUNTS_ONLY)
    for name in (
        "loadings_low",
        "loadings_high",
        "effects_low",
        "effects_high",
        "null_mean",
        "null_cumulative_p95",
    ):
        assert np.isnan(getattr(traits, name)).all(), name
    assert traits.stability.resamplings == {}
    assert traits.n_components["parallel"] == 0


def test_the_record_is_frozen_and_shaped_as_it_says():
    traits = decompose(scores_matrix(), **COUNTS_ONLY)
    with pytest.raises(AttributeError):
        traits.names = ()
    count = len(traits.explained_variance_ratio)
    for name in ("scores", "scores_u", "effects", "leverage"):
        assert getattr(traits, name).shape == (14, count)
    for name in ("loadings", "loadings_low", "loadings_high"):
        assert getattr(traits, name).shape == (9, count)
    assert {one.name for one in fields(Traits)} >= {"stability", "noise", "naming", "conditions"}
