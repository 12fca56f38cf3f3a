"""A yes names the pairs and sources that it rests on, and an odd pair is explained without itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from planted import matrix_of
from planted_pairs import Shape, names_of, simulated
from traitmap.analysis.explanation.design import Composite, two_way_residual
from traitmap.analysis.explanation.effects import merged, relabelled
from traitmap.analysis.explanation.explain import explain
from traitmap.analysis.explanation.pairs import ranked
from traitmap.analysis.explanation.records import Explanation
from traitmap.analysis.profiles.pairs import Feature, PairFeatures, Reason
from traitmap.data.texts import TaskText
from traitmap.matrix.record import Array

SQUARE = Shape(12, 12)
COMPOSITES = (Composite("near", "hidden", "near", ("near",)), Composite("other", "surface", "", ("copy0",)))


def one_pair(seed: int, gains: Array | None = None) -> tuple[PairFeatures, Array]:
    """Features of which ``near`` is extreme on one pair, and gains that are extreme there and noise else."""
    generator = np.random.default_rng([seed, 3])
    sources, targets = names_of(SQUARE)
    values = generator.normal(size=(12, 12))
    values[2, 5] += 12
    other = generator.normal(size=(12, 12))
    noise = generator.normal(size=(12, 12)) if gains is None else gains
    noise[2, 5] -= 14
    features = (Feature("near", "hidden", "near", values), Feature("copy0", "surface", "", other))
    return PairFeatures(tuple(sources), tuple(targets), features), noise


def explained(seed: int) -> Explanation:
    features, gains = one_pair(seed)
    matrix = matrix_of(gains, features.sources, features.targets)
    noise = np.full(gains.shape, 0.5)
    return explain(
        matrix, features=features, composites=COMPOSITES, units="points", noise=noise, n_permutations=499
    )


def test_a_yes_that_one_pair_makes_names_it() -> None:
    found = explained(1)
    near = found.joint[0]
    assert near.verdict == "yes"
    assert near.rests_on[0] == "task02 -> task05"
    assert not near.stands
    assert any("rests on task02 -> task05: cannot tell without it" in words for words in found.words)
    assert any("near cannot be told without some one pair or source" in words for words in found.words)


def test_a_yes_that_all_pairs_make_stands() -> None:
    matrix, features = simulated(SQUARE, 0.6, 11, others=1)
    near = explain(matrix, features=features, composites=COMPOSITES, n_permutations=499).joint[0]
    assert near.stands
    assert near.rests_on == ()


def test_a_yes_that_one_source_makes_names_it() -> None:
    matrix, features = simulated(SQUARE, 0.0, 4, others=1)
    near = features.features[0].values.copy()
    foreign = ~np.eye(12, dtype=bool)
    within = two_way_residual(near, foreign)
    gains = matrix.values.copy()
    gains[7] += 6 * within[7] / within[7].std()
    near[7] += 2 * within[7]
    found = explain(
        matrix_of(gains, matrix.sources, matrix.targets),
        features=replace(
            features, features=(replace(features.features[0], values=near), features.features[1])
        ),
        composites=COMPOSITES,
        n_permutations=499,
    )
    assert found.joint[0].verdict == "yes"
    assert "task07" in found.joint[0].rests_on


def test_reasons_of_an_odd_pair_come_from_a_fit_without_it() -> None:
    """The one pair that makes a cause is not explained by that cause."""
    odd = explained(1).odd.odd[0]
    assert (odd.source, odd.target) == ("task02", "task05")
    assert not any(reason.significant for reason in odd.reasons)
    # whatever the pair's gain, its own reasons are the same but for the direction of the departure
    features, gains = one_pair(1)
    gains[2, 5] -= 30
    matrix = matrix_of(gains, features.sources, features.targets)
    noise = np.full((12, 12), 0.5)
    settings = {"composites": COMPOSITES, "units": "points", "n_permutations": 499}
    further = explain(matrix, features=features, noise=noise, **settings).odd.odd[0]
    of_first = {reason.kind: reason.strength for reason in odd.reasons}
    for reason in further.reasons:
        assert of_first[reason.kind] == pytest.approx(reason.strength)


def test_changed_labels_are_a_reason_before_all_others() -> None:
    right = [TaskText(f"text {i}", str(i % 3)) for i in range(30)]
    wrong = [TaskText(text.input, str((i + 1) % 3)) for i, text in enumerate(right)]
    foreign = [TaskText(f"else {i}", str(i % 3)) for i in range(30)]
    names = ["stars", "stars_wrong", "else"]
    matrix = matrix_of(np.zeros((3, 3)), names, names)
    reasons = relabelled(matrix, {"stars": right, "stars_wrong": wrong, "else": foreign})
    assert set(reasons) == {("stars_wrong", "stars"), ("stars", "stars_wrong")}
    (reason,) = reasons["stars_wrong", "stars"]
    assert "30 of 30" in reason.words
    cell = Reason("length", "long", 500.0, True)
    assert ranked((cell, reason))[0] is reason
    both = merged(reasons, {("stars_wrong", "stars"): (cell,), ("else", "stars"): (cell,)})
    assert both["stars_wrong", "stars"] == (reason, cell)
    assert both["else", "stars"] == (cell,)
