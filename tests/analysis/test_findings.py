"""Warnings: each is raised by the table that deserves it, and by no other."""

from dataclasses import replace
from math import nan

import numpy as np
import pytest

from planted import COUNTS_ONLY, answered, matrix_of, noise, planted
from traitmap.analysis.traits.decompose import decompose
from traitmap.analysis.traits.description import listed
from traitmap.matrix.record import Cell

QUICK = {"n_bootstrap": 50, "n_permutations": 60}


def codes(matrix, **options) -> dict[str, tuple[str, ...]]:
    return {w.code: w.about for w in decompose(matrix, **{**QUICK, **options}).warnings}


def clean_table() -> np.ndarray:
    """A general level of equal weight and a contrast: nothing to complain about but its size."""
    generator = np.random.default_rng(2)
    level, contrast = generator.normal(size=(40, 1)), generator.normal(size=(40, 1))
    sides = np.where(np.arange(12) < 6, 1.0, -1.0)
    return level + contrast * sides + 0.6 * generator.normal(size=(40, 12))


def test_a_clean_table_has_no_warning_about_its_data():
    found = codes(matrix_of(clean_table()))
    assert not set(found) & {
        "duplicated_sources",
        "near_duplicate_targets",
        "collapsed_source",
        "one_source_axis",
        "two_source_axis",
        "one_target_axis",
        "not_above_null",
        "low_rank_table",
        "no_component_supported",
        "many_missing_cells",
        "sources_left_out",
        "targets_left_out",
        "baseline_unknown",
        "noisy_targets",
    }


def test_noise_supports_nothing_and_is_not_above_its_null():
    found = decompose(matrix_of(noise(10, 10, 3)), **QUICK)
    about = {w.code: w.message for w in found.warnings}
    assert "supports no component" in about["no_component_supported"]
    assert "not above its null" in about["not_above_null"]


def test_duplicated_sources_are_named_together():
    values = clean_table()
    values[[7, 21]] = values[3]
    assert codes(matrix_of(values))["duplicated_sources"] == ("source003", "source007", "source021")


def test_a_duplicate_with_an_empty_cell_is_still_one():
    values = clean_table()
    values[7] = values[3]
    values[7, 2] = np.nan
    assert codes(matrix_of(values))["duplicated_sources"] == ("source003", "source007")


def test_near_duplicate_targets_are_named_in_pairs():
    values = clean_table()
    values[:, 4] = -values[:, 0] + 0.05 * noise(40, 1, 0)[:, 0]
    assert codes(matrix_of(values))["near_duplicate_targets"] == ("target000", "target004")


def test_a_source_at_the_floor_everywhere_has_collapsed():
    values = clean_table()
    values[11] = values.min(axis=0) - 1.0
    values[30] = values[11] + 0.1 * noise(1, 12, 0)
    found = decompose(matrix_of(values), **QUICK).warnings
    assert [w.about for w in found if w.code == "collapsed_source"] == [("source011",), ("source030",)]


def test_predictions_tell_collapse_where_scores_do_not():
    values = clean_table()
    share = np.full(values.shape, 0.5)
    share[:, 8] = 0.99  # everybody says the same there: no sign of collapse
    share[5, :6] = 0.99
    share[6, :2] = 0.99
    found = decompose(matrix_of(values), majority_share=share, **QUICK).warnings
    collapsed = [w for w in found if w.code == "collapsed_source"]
    assert [w.about for w in collapsed] == [("source005",)]
    assert "6 of 11" in collapsed[0].message


def test_two_opposed_sources_make_an_axis():
    values = 0.3 * noise(12, 8, 0)
    pattern = np.sign(noise(1, 8, 1)[0])
    values[2], values[9] = 5 * pattern, -5 * pattern
    found = {w.code: w for w in decompose(matrix_of(values), **QUICK).warnings}
    assert set(found["two_source_axis"].about[1:]) == {"source002", "source009"}
    assert " against " in found["two_source_axis"].message


def test_one_target_makes_an_axis():
    values = clean_table()
    values[:, 3] += 9 * noise(40, 1, 5)[:, 0]
    found = decompose(matrix_of(values), scale="center", **QUICK).warnings
    assert ("PC0", "target003") in [w.about for w in found if w.code == "one_target_axis"]


def test_many_missing_cells_are_told():
    values = clean_table()
    values[np.random.default_rng(0).random(values.shape) < 0.3] = np.nan
    assert "many_missing_cells" in codes(matrix_of(values))


def test_a_general_component_is_called_one():
    level = noise(30, 1, 0) + 0.3 * noise(30, 9, 1)
    assert codes(matrix_of(level))["general_component"] == ("PC0",)
    assert "general_component" not in codes(matrix_of(level), scale="double")


def test_more_components_than_supported_and_criteria_that_disagree():
    values = planted(30, 8, 1, 0.7, 0)[0]
    assert "more_than_supported" in codes(matrix_of(values), components=5)
    spread = noise(60, 8, 0) @ np.diag(0.6 ** np.arange(8)) @ np.linalg.qr(noise(8, 8, 1))[0]
    found = decompose(matrix_of(spread), scale="center", **QUICK)
    assert found.n_components["cv"] != found.n_components["parallel"]
    assert "criteria_disagree" in [w.code for w in found.warnings]


def test_equal_traits_cannot_be_told_apart():
    scores, _ = np.linalg.qr(noise(20, 2, 0) - noise(20, 2, 0).mean(axis=0))
    sides = np.stack([np.ones(10), np.where(np.arange(10) < 5, 1.0, -1.0)])
    found = decompose(matrix_of(scores @ sides + 0.05 * noise(20, 10, 1)), **QUICK)
    about = {w.code: w.about for w in found.warnings}
    assert about["overlapping_components"] == ("PC0", "PC1")
    assert found.stability.overlaps[0][2] < 20


def test_noisy_and_unreliable_targets():
    matrix = answered(np.full((10, 5), 0.5), np.full(5, 0.5), items=60, seeds=2)
    found = codes(matrix)
    assert len(found["noisy_targets"]) >= 1
    assert len(found["unreliable_targets"]) >= 1


def test_a_claimed_share_is_held_against_chance():
    matrix = matrix_of(noise(11, 4, 0) @ noise(4, 10, 1))
    low = decompose(matrix, components=4, claimed_share=0.75, **QUICK)
    high = decompose(matrix, components=4, claimed_share=0.95, **QUICK)
    found = {w.code: w.message for w in low.warnings}
    assert "75 %" in found["claim_not_above_null"]
    assert "11 x 10" in found["claim_not_above_null"]
    assert "rank 4" in found["low_rank_table"]
    assert "claim_not_above_null" not in [w.code for w in high.warnings]


def test_what_the_table_says_of_itself():
    matrix = replace(
        matrix_of(clean_table()),
        conditions={"renamed": ["source003"], "higher_is_better": {"target001": False, "target002": True}},
    )
    found = codes(matrix)
    assert found["sources_named_alike"] == ("source003",)
    assert found["lower_is_better"] == ("target001",)


def test_every_warning_says_what_to_do():
    values = clean_table()
    values[7] = values[3]
    values[11] = values.min(axis=0) - 1
    values[:, 5] = 1.0
    for warning in decompose(matrix_of(values, baseline=np.full(12, np.nan)), components=6, **QUICK).warnings:
        assert warning.code == warning.code.lower().replace(" ", "_")
        assert len(warning.message) > 20
        assert len(warning.action) > 10


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], ""),
        (["a"], "a"),
        (["a", "b"], "a and b"),
        (["a", "b", "c"], "a, b and c"),
        (list("abcdefgh"), "a, b, c, d, e, f and 2 more"),
    ],
)
def test_lists_in_words(names, words):
    assert listed(names) == words


def test_no_bootstrap_no_instability():
    assert "unstable_component" not in codes(matrix_of(clean_table()), **COUNTS_ONLY)


def with_metrics(matrix, metrics):
    """The matrix as a run gives it: every cell names its metric."""
    cells = tuple(
        Cell(source, target, None, metric, 0.5, 9, *[nan] * 7, "measured")
        for source in matrix.sources
        for target, metric in zip(matrix.targets, metrics, strict=True)
    )
    return replace(matrix, cells=cells)


def test_effects_over_targets_of_different_units_are_not_to_be_read():
    table = 1 / (1 + np.exp(-clean_table()[:, :6]))
    table[:, :2] *= -7  # bits per byte, say
    matrix = matrix_of(table)
    assert "mixed_units" not in codes(matrix)
    found = codes(with_metrics(matrix, ["bits", "bits", "acc", "acc", "acc", "acc"]))
    assert found["mixed_units"] == matrix.targets[:2]
    assert "mixed_units" not in codes(with_metrics(matrix, ["bits"] * 6))
