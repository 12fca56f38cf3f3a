"""The causes that are planted in the embedded study are found in simulated gains, and nothing else is."""

from __future__ import annotations

import pytest

from planted_causes import CAUSES, drawn_texts, gains
from traitmap.analysis.explanation.explain import explain
from traitmap.analysis.profiles.pairs import PairFeatures, pair_features


@pytest.fixture(scope="module")
def features() -> PairFeatures:
    return pair_features(*drawn_texts(60, 0))


@pytest.mark.parametrize("causes", [(), ("length",), ("sentiment",), tuple(CAUSES)])
def test_what_is_planted_is_called_and_nothing_else(causes: tuple[str, ...], features: PairFeatures) -> None:
    right = 0
    for seed in range(3):
        found = explain(gains(causes, 12.0, 8.0, seed), features=features, n_permutations=499, seed=seed)
        called = {one.name for one in found.joint if one.verdict == "yes"}
        right += called == {CAUSES[cause] for cause in causes}
    assert right >= 2  # benchmarks/explain_planted.py: at least 19 of 20 seeds in every case
