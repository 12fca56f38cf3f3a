"""Names come from tags that stand out, from the user, or are refused."""

import numpy as np
import pytest

from planted import COUNTS_ONLY, matrix_of, noise
from traitmap.analysis.traits.decompose import decompose
from traitmap.analysis.traits.naming import NOTHING_STANDS_OUT, name_component, rename
from traitmap.errors import MatrixError

TARGETS = [f"target{j:03d}" for j in range(12)]
FAMILIES = {t: ("sentiment",) if j < 4 else ("maths",) if j < 8 else ("code",) for j, t in enumerate(TARGETS)}
WITH_LENGTH = {t: (*tags, "long" if j % 2 else "short") for j, (t, tags) in enumerate(FAMILIES.items())}


def loadings(**by_tag: float) -> np.ndarray:
    return np.array([by_tag.get(FAMILIES[t][0], 0.02) for t in TARGETS]) + 0.01 * noise(1, 12, 0)[0]


def test_a_tag_that_stands_out_names_the_component():
    found = name_component(loadings(sentiment=0.5), TARGETS, WITH_LENGTH)
    assert (found.name, found.tag, found.pole, found.origin) == ("sentiment", "sentiment", "+", "tags")
    assert found.lift == pytest.approx(3.0, abs=0.1)  # all of the weight on a third of the targets
    assert found.p < 0.05


def test_both_poles_are_named():
    found = name_component(loadings(sentiment=0.5, maths=-0.4), TARGETS, WITH_LENGTH)
    assert found.name == "sentiment against maths"


def test_a_negative_pole_alone_is_said_to_be_against():
    found = name_component(loadings(code=-0.5), TARGETS, FAMILIES)
    assert found.name == "against code"
    assert found.pole == "-"


def test_loadings_without_a_pattern_have_no_common_property():
    named = [name_component(noise(1, 12, seed)[0], TARGETS, WITH_LENGTH) for seed in range(40)]
    unnamed = [one for one in named if one.name == NOTHING_STANDS_OUT]
    assert len(unnamed) >= 34  # five per cent may pass by chance, and a few more of 40
    assert "best tag" in unnamed[0].reason
    assert unnamed[0].p > 0.05


def test_even_loadings_favour_no_tag():
    assert name_component(np.full(12, 0.3), TARGETS, WITH_LENGTH).name == NOTHING_STANDS_OUT


@pytest.mark.parametrize("tags", [{}, {TARGETS[0]: ("sentiment",)}, dict.fromkeys(TARGETS, ("all",))])
def test_tags_of_one_or_of_all_say_nothing(tags):
    found = name_component(loadings(sentiment=0.5), TARGETS, tags)
    assert found.name == NOTHING_STANDS_OUT
    assert "no tag" in found.reason


def test_targets_left_out_do_not_count():
    weights = loadings(sentiment=0.5)
    weights[[0, 1, 2]] = np.nan
    assert name_component(weights, TARGETS, FAMILIES).name == NOTHING_STANDS_OUT


def test_the_order_of_targets_does_not_change_the_name():
    order = np.random.default_rng(0).permutation(12)
    weights = loadings(sentiment=0.5, maths=-0.4)
    one = name_component(weights, TARGETS, WITH_LENGTH)
    other = name_component(weights[order], [TARGETS[i] for i in order], WITH_LENGTH)
    assert (one.name, one.lift) == (other.name, pytest.approx(other.lift))


def test_traits_are_named_by_tags_by_the_user_or_not_at_all():
    values = noise(40, 1, 0) * loadings(sentiment=1.0, maths=-0.8) + 0.2 * noise(40, 12, 1)
    matrix = matrix_of(values, targets=TARGETS, target_tags=FAMILIES)
    traits = decompose(matrix, scale="center", **COUNTS_ONLY)
    assert traits.n_components["used"] == 1
    assert traits.names[0] == "sentiment against maths"
    assert set(traits.names[1:]) == {NOTHING_STANDS_OUT}
    assert traits.naming[1].reason == "the data do not support it"
    given = decompose(matrix, scale="center", names=("Feeling",), **COUNTS_ONLY)
    assert (given.names[0], given.naming[0].origin) == ("Feeling", "user")
    again = rename(given, ("Mood", "Second"), origin="endpoint")
    assert again.names[:3] == ("Mood", "Second", NOTHING_STANDS_OUT)
    assert again.naming[1].origin == "endpoint"
    assert given.names[0] == "Feeling"
    with pytest.raises(MatrixError, match="13 names"):
        rename(given, ["x"] * 13)
