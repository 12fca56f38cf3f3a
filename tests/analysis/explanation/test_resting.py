"""A yes over many pairs names the pair or the source without which it is one no more."""

from __future__ import annotations

import numpy as np

from planted import matrix_of
from planted_pairs import Shape, names_of, simulated
from traitmap.analysis.explanation.explain import explain
from traitmap.analysis.explanation.records import Explanation
from traitmap.analysis.profiles.pairs import Feature, PairFeatures
from traitmap.matrix.record import Array

SQUARE = Shape(12, 12)
NAMES = names_of(SQUARE)[0]


def explained(gains: Array, *features: Feature) -> Explanation:
    features = features or (
        Feature("near", "hidden", "near", np.random.default_rng(0).normal(size=(12, 12))),
    )
    known = PairFeatures(tuple(NAMES), tuple(NAMES), features)
    return explain(
        matrix_of(gains, NAMES, NAMES), features=known, units="points", near_copies=True, n_permutations=199
    )


def test_donors_that_one_bad_source_makes_name_it() -> None:
    """Beside a source that fails everywhere all others are better than the mean."""
    gains = np.random.default_rng(1).normal(size=(12, 12))
    gains[7] -= 60
    found = explained(gains)
    beyond = [donor for donor in found.donors if donor.q < 0.05 and donor.name != "task07"]
    assert len(beyond) >= 6
    assert all("task07" in donor.rests_on for donor in beyond)
    assert any("(rests on task07)" in words for words in found.words)
    (bad,) = (donor for donor in found.donors if donor.name == "task07")
    assert bad.q < 0.05
    assert bad.rests_on == ()


def test_a_recipient_that_all_sources_lift_rests_on_none() -> None:
    gains = np.random.default_rng(2).normal(size=(12, 12))
    gains[:, 3] += 10
    (lifted,) = (one for one in explained(gains).recipients if one.name == "task03")
    assert lifted.q < 0.05
    assert lifted.rests_on == ()


def test_a_share_that_one_pair_makes_names_it() -> None:
    generator = np.random.default_rng(3)
    near, gains = generator.normal(size=(2, 12, 12))
    near[2, 5] += 12
    gains[2, 5] -= 14
    (group,) = explained(gains, Feature("near", "hidden", "near", near)).dominance.groups
    assert group.verdict == "yes"
    assert group.rests_on[0] == "task02 -> task05"
    assert group.verdict_words == "yes, but rests on one"


def test_a_share_that_all_pairs_make_stands() -> None:
    matrix, features = simulated(SQUARE, 0.6, 11)
    found = explain(matrix, features=features, n_permutations=199)
    assert found.dominance.groups[0].verdict == "yes"
    assert found.dominance.groups[0].rests_on == ()


def test_hidden_against_surface_names_the_pairs_that_it_cannot_do_without() -> None:
    """The interval is a jackknife over tasks, so only a verdict near its edge can rest on a pair."""

    def against(seed: int, slope: float) -> Explanation:
        near, words, gains = np.random.default_rng(seed).normal(size=(3, 12, 12))
        gains = gains + slope * near
        near[2, 5] += 3
        gains[2, 5] += 4.5 * slope
        return explained(
            gains, Feature("near", "hidden", "near", near), Feature("words", "surface", "words", words)
        )

    found = against(7, 0.7)
    assert found.dominance.verdict == "yes"
    assert found.dominance.rests_on[0] == "task02 -> task05"
    assert any("hidden explains more; rests on task02 -> task05" in words for words in found.words)
    everywhere = against(0, 1.1).dominance
    assert everywhere.verdict == "yes"
    assert everywhere.rests_on == ()


def test_reciprocity_that_one_couple_makes_names_it() -> None:
    gains = np.random.default_rng(4).normal(size=(12, 12))
    gains[2, 5] += 15
    gains[5, 2] += 15
    found = explained(gains).asymmetry
    assert found.p < 0.05
    assert set(found.rests_on) & {"task02 -> task05", "task05 -> task02"}
    both = np.random.default_rng(5).normal(size=(12, 12))
    assert explained(both + both.T).asymmetry.rests_on == ()


def test_a_property_of_tasks_that_one_task_makes_names_it() -> None:
    generator = np.random.default_rng(6)
    gains = generator.normal(size=(12, 12))
    size = 0.25 * gains.mean(axis=1) * np.sqrt(12) + generator.normal(size=12)
    gains[4] += 1.5
    size[4] += 5
    far = Feature("size", "size", "size", np.broadcast_to(size[:, None], (12, 12)), "source")
    found = explained(gains, far)
    assert found.levels[0].verdict == "yes"
    assert found.levels[0].rests_on[0] == "task04"
    assert any("rests on task04" in words for words in found.words)
    all_of = generator.normal(size=12)
    alike = Feature("size", "size", "size", np.broadcast_to(all_of[:, None], (12, 12)), "source")
    (level,) = explained(0.3 * gains + all_of[:, None], alike).levels
    assert level.stands
