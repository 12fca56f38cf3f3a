"""Sources and targets that say the same are no two observations; what takes no part is projected."""

from dataclasses import replace

import numpy as np
import pytest

from planted import matrix_of, noise, planted
from traitmap.analysis.traits.copies import source_clusters, target_clusters
from traitmap.analysis.traits.decompose import counted, decompose, sources_that_agree
from traitmap.analysis.traits.description import describe
from traitmap.analysis.traits.dimension import fold_masks, permute_columns
from traitmap.errors import MatrixError

QUICK = {"n_bootstrap": 0, "n_permutations": 60, "cv_seeds": 4}


def with_copies(values, rows, spread, seed=3):
    """The values with a near copy of each of some rows below them."""
    return np.vstack([values, values[rows] + spread * noise(len(rows), values.shape[1], seed)])


def test_a_near_copy_changes_no_loading_and_lies_where_its_twin_does():
    values, _ = planted(24, 12, 2, 0.8, 5)
    once = decompose(matrix_of(values), **QUICK)
    again = decompose(matrix_of(with_copies(values, [2, 2, 9], 0.02)), **QUICK)
    assert set(again.aside) == {"source024", "source025", "source026"}
    assert "source002" in again.aside["source024"]
    np.testing.assert_allclose(again.loadings, once.loadings, atol=1e-8)
    assert dict(again.n_components) == dict(once.n_components)
    np.testing.assert_allclose(again.scores[26, :2], again.scores[9, :2], atol=0.3)
    assert np.isnan(again.leverage[24]).all()
    assert np.isfinite(again.effects[24]).all()


def test_near_copies_make_no_trait_of_noise():
    tables = [with_copies(noise(12, 10, seed), [0, 0, 0, 1, 1], 0.1, seed + 500) for seed in range(30)]
    counts = {
        kept: sum(
            decompose(matrix_of(table), near_copies=kept, n_bootstrap=0, n_permutations=0).n_components["cv"]
            > 0
            for table in tables
        )
        for kept in (False, True)
    }
    assert counts[False] <= 4
    assert counts[True] >= 8  # what they are when each copy counts


@pytest.mark.parametrize("scale", ["standard", "center"])
def test_sources_with_the_same_trait_are_no_copies(scale):
    values, _ = planted(25, 10, 1, 0.9, 1)
    assert not decompose(matrix_of(values * 100 + 7), scale=scale, **QUICK).aside


def test_a_table_of_exact_rank_has_no_noise_and_no_copies():
    values = noise(20, 1, 0) @ noise(1, 10, 1)
    observed = np.ones(values.shape, dtype=bool)
    assert len(np.unique(source_clusters(values, observed, values, 1, "standard"))) == 20


def test_sources_that_do_little_are_no_copies_of_each_other():
    """Sources scatter unlike; 17 of these tables had copies while every source passed for equally noisy."""
    called = 0
    for seed in range(60):
        spread = np.exp(0.9 * noise(10, 1, seed + 900))
        values = spread * noise(10, 10, seed) + 2 * noise(1, 10, seed + 50)
        called += bool(sources_that_agree(matrix_of(values)))
    assert called <= 8
    values = with_copies(noise(10, 10, 3), [0, 0, 4], 0.1)
    assert len(sources_that_agree(matrix_of(values))) == 3


def made_from(matrix, **parents):
    sources = {name: {"variation": {"parents": [parent]}} for name, parent in parents.items()}
    return replace(matrix, conditions={"sources": sources})


def test_variations_take_no_part_unless_they_are_let():
    values, _ = planted(22, 10, 1, 0.8, 2)
    values[21] = 3 * values[4]
    matrix = made_from(matrix_of(values), source021="source004")
    without = decompose(matrix, **QUICK)
    assert dict(without.aside) == {"source021": "made from source004"}
    alone = decompose(matrix_of(values[:21]), **QUICK)
    np.testing.assert_allclose(without.loadings, alone.loadings, atol=1e-10)
    assert "variations_aside" in [warning.code for warning in without.warnings]
    assert not decompose(matrix, variations=True, **QUICK).aside


def test_a_projected_row_is_placed_as_one_that_takes_part_would_be():
    values, _ = planted(20, 8, 2, 0.8, 4)
    traits = decompose(made_from(matrix_of(values), source019="source000"), **QUICK)
    z = (values[19] - traits.centers) / traits.divisors
    np.testing.assert_allclose(traits.scores[19], z @ traits.loadings, atol=1e-10)


def test_too_few_sources_beside_variations_is_said():
    matrix = made_from(matrix_of(noise(5, 6, 0)), **{f"source{i:03d}": "source000" for i in (1, 2, 3)})
    with pytest.raises(MatrixError, match="variations=True"):
        decompose(matrix, **QUICK)


def test_targets_that_share_items_are_moved_and_held_out_together():
    shared = [
        {"first": "a", "second": "c", "items": 50, "share": 0.6},
        {"first": "b", "second": "d", "items": 9, "share": 0.1},
    ]
    blocks = target_clusters(("a", "b", "c", "d"), shared)
    assert blocks[0] == blocks[2]
    assert len(np.unique(blocks)) == 3
    table = np.repeat(np.arange(12.0)[:, None], 4, axis=1)
    observed = np.ones(table.shape, dtype=bool)
    moved = permute_columns(table, observed, 5, np.random.default_rng(0), blocks)
    assert (moved[:, :, 0] == moved[:, :, 2]).all()
    assert (moved[:, :, 0] != moved[:, :, 1]).any()
    held = fold_masks(observed, 4, np.random.default_rng(0), blocks)
    assert (held[:, :, 0] == held[:, :, 2]).all()
    assert (held[:, :, 0] != held[:, :, 1]).any()


def test_a_target_and_its_copy_are_no_trait_where_they_share_their_items():
    values = noise(30, 8, 11)
    values[:, 7] = values[:, 0] + 0.1 * noise(30, 1, 12)[:, 0]
    pair = [{"first": "target000", "second": "target007", "items": 90, "share": 0.9}]
    told = replace(matrix_of(values), conditions={"shared_items": pair})
    assert decompose(matrix_of(values), **QUICK).n_components["cv"] > 0
    assert decompose(told, **QUICK).n_components["cv"] == 0
    assert "shared_items" in [warning.code for warning in decompose(told, **QUICK).warnings]


def test_a_component_counts_only_where_it_takes_away_enough_and_more_than_noise():
    band = np.array([0.3, 0.2, 0.15, 0.1])
    assert counted(np.array([0.6, 0.25, 0.16]), band, 0.02) == 3
    assert (
        counted(np.array([0.6, 0.19, 0.18]), band, 0.02) == 1
    )  # the second is noise's size, so none after it
    assert counted(np.array([0.6, 0.25, 0.16]), band, 0.2) == 2
    assert counted(np.array([0.6, 0.01]), np.full(4, np.nan), 0.02) == 1


def test_with_many_rows_what_fits_is_more_than_what_counts():
    """2,000 rows make a component of a hundredth of the variance certain; noise of this shape has a sixth."""
    generator = np.random.default_rng(0)
    strong = 2.5 * generator.normal(size=(2000, 1)) * np.ones(6)
    weak = 0.35 * generator.normal(size=(2000, 1)) * np.array([1, 1, 1, -1, -1, -1])
    traits = decompose(
        matrix_of(strong + weak + 0.3 * generator.normal(size=(2000, 6))),
        n_bootstrap=40,
        n_permutations=20,
        cv_seeds=1,
    )
    assert traits.n_components["cv"] >= 2
    assert traits.n_components["used"] == 1
    assert "1 of them counts as a trait: the next takes away" in describe(traits)[0]
    assert ("less than 2 %" in describe(traits)[0]) == (traits.explained_variance_ratio[1] < 0.02)


def test_one_sentence_says_how_many_fit_and_that_none_can_be_named():
    values = planted(25, 10, 2, 0.9, 1)[0]
    traits = decompose(matrix_of(values), n_bootstrap=60, n_permutations=60, cv_seeds=4)
    for stable, end in (
        (0, "both count as traits; neither is stable enough to name."),
        (1, "both count as traits; 1 of them is stable enough to name."),
        (2, "both count as traits; each is stable enough to name."),
    ):
        told = describe(replace(traits, n_components={**traits.n_components, "stable": stable}))[0]
        assert told.startswith("2 components fit this 25 x 10 table")
        assert told.endswith(end)
