"""The words say what is supported and what cannot be told, with the numbers of the record."""

import re

import numpy as np
import pytest

from planted import answered, matrix_of, noise, planted
from traitmap.analysis.traits.decompose import decompose
from traitmap.analysis.traits.description import describe

QUICK = {"n_bootstrap": 60, "n_permutations": 60}


@pytest.fixture(scope="module")
def supported():
    return decompose(matrix_of(planted(25, 10, 2, 0.9, 1)[0]), **QUICK)


def test_noise_is_said_to_support_nothing():
    traits = decompose(matrix_of(noise(10, 10, 0)), **QUICK)
    words = " ".join(describe(traits))
    assert "No component fits" in words
    assert "10 x 10" in words
    assert "the explained variance is not above its null" in words
    assert f"{100 * traits.null_cumulative_mean[3]:.1f} %" in words
    assert "PC0 (" not in words


def test_supported_traits_are_told_with_their_numbers(supported):
    words = " ".join(describe(supported))
    assert words.startswith("2 components fit this 25 x 10 table: they predict held-out cells")
    assert "both count as traits" in words
    assert f"{100 * supported.explained_variance_ratio[:2].sum():.1f} %" in words
    assert "is above its null" in words
    peak = int(np.argmax(supported.loadings[:, 0]))
    assert f"{supported.targets[peak]} {supported.loadings[peak, 0]:+.2f} [" in words
    assert f"{supported.stability.resamplings['adapters'].congruence_mean[0]:.2f}" in words
    assert "cannot be told" in words


def test_effects_have_points_and_intervals(supported):
    strongest = int(np.argmax(np.abs(supported.effects[:, 1])))
    parts = (supported.effects, supported.effects_low, supported.effects_high)
    value, low, high = (float(part[strongest, 1]) for part in parts)
    expected = f"{supported.sources[strongest]} {value:+.1f} points [{low:.1f}, {high:.1f}]"
    assert expected in " ".join(describe(supported))


def test_one_trait_is_told_in_the_singular():
    traits = decompose(matrix_of(planted(25, 10, 1, 0.9, 1)[0]), **QUICK)
    words = describe(traits)
    assert words[0].startswith("1 component fits")
    assert words[0].endswith("it counts as a trait, stable enough to name.")
    assert words[1].startswith("The first component explains")


def test_what_was_not_computed_is_not_told():
    words = " ".join(
        describe(decompose(matrix_of(noise(8, 6, 0)), components=1, n_bootstrap=0, n_permutations=0))
    )
    assert "no null was computed" in words
    assert "[interval unknown]" in words
    assert "Congruence" not in words


def test_known_noise_is_told_as_a_share():
    shares = 1 / (1 + np.exp(-planted(15, 8, 1, 0.9, 0)[0]))
    traits = decompose(answered(shares, np.full(8, 0.5), items=100), **QUICK)
    words = " ".join(describe(traits))
    assert f"expected to be {100 * traits.noise.total_share:.1f} % of the variance" in words
    assert f"{100 * traits.noise.signal_ratio[0]:.1f} %" in words


def test_a_claim_is_held_against_chance():
    matrix = matrix_of(noise(11, 4, 0) @ noise(4, 10, 1))
    words = describe(decompose(matrix, components=4, claimed_share=0.75, **QUICK))[1]
    assert words.startswith("The claimed 75 % of the variance does not exceed chance at 11 x 10")
    assert "by construction" in describe(decompose(matrix, components=4, **QUICK))[1]


def hostile(kind):
    values = noise(12, 9, 3)
    if kind == "constant":
        values[:, ::2] = 0.5
    elif kind == "nearly constant":
        values[:, 1] = 0.5 + 1e-9 * values[:, 1]
    elif kind == "copies":
        values[3:] = values[:1]
    elif kind == "holes":
        values[np.random.default_rng(0).random(values.shape) < 0.4] = np.nan
    elif kind == "huge":
        values *= 1e12
    return values


@pytest.mark.parametrize("kind", ["plain", "constant", "nearly constant", "copies", "holes", "huge"])
@pytest.mark.parametrize("base", [0.0, np.nan])
def test_no_sentence_of_a_hostile_table_holds_an_unknown_number_or_a_cause(kind, base):
    traits = decompose(matrix_of(hostile(kind), baseline=np.full(9, base)), **QUICK)
    told = [*describe(traits), *(warning.message for warning in traits.warnings)]
    assert len(traits.warnings) <= 25
    assert not re.search(r"\b(nan|inf|causes?|raises?)\b", " ".join(told))
    assert np.isnan(base) or "mean of the sources" not in " ".join(told)
