"""Lengths: known numbers of small samples, and what is said where there is nothing to measure."""

import numpy as np
import pytest

from traitmap.analysis.profiles.lengths import distribution_of, lengths_of, measure, wasserstein
from traitmap.data.texts import TaskText
from traitmap.errors import DataError


def test_the_distribution_of_zero_to_a_hundred_is_its_own_percentiles():
    found = distribution_of(np.arange(101.0)[::-1])
    assert np.allclose(found.percentiles, np.arange(101))
    assert (found.n, found.mean, found.median) == (101, 50, 50)
    assert found.sd == pytest.approx(np.sqrt(101 * 102 / 12))


def test_one_number_has_no_spread_and_none_has_a_reason():
    assert np.isnan(distribution_of(np.array([3.0])).sd)
    empty = distribution_of(np.array([]), "nothing here")
    assert empty.n == 0
    assert np.isnan(empty.percentiles).all()
    assert empty.reason == "nothing here"


def test_a_shift_is_its_own_wasserstein_distance():
    sample = np.array([1.0, 4.0, 4.0, 9.0])
    assert wasserstein(sample, sample + 3) == pytest.approx(3)
    assert wasserstein(np.array([0.0, 0.0]), np.array([0.0, 10.0])) == pytest.approx(5)
    assert wasserstein(sample, np.repeat(sample, 2)) == pytest.approx(0)
    assert np.isnan(wasserstein(sample, np.array([])))


def test_lengths_are_told_by_label_and_in_the_unit_given():
    texts = [
        TaskText("one two three", "good", label="up"),
        TaskText("one", "very good indeed", label="up"),
        TaskText("one two", "bad", label="down"),
        TaskText("one two", "", label="down"),
    ]
    labels = [text.label for text in texts]
    found = lengths_of(measure(texts), labels)
    assert found.unit == "words"
    assert found.input.mean == pytest.approx(2)
    assert (found.output.n, found.output.mean) == (3, pytest.approx(5 / 3))
    assert found.output_by_label["up"].mean == pytest.approx(2)
    assert (found.output_by_label["down"].n, found.input_by_label["down"].n) == (1, 2)
    assert found.output_characters.percentiles[100] == len("very good indeed")
    tokens = lengths_of(measure(texts, lambda some: [7] * len(some)), labels, "tokens")
    assert (tokens.unit, tokens.input.mean, tokens.output.mean) == ("tokens", 7, 7)
    assert tokens.input_characters.mean == found.input_characters.mean


def test_token_counts_of_another_number_are_refused():
    with pytest.raises(DataError, match="one number for each"):
        measure([TaskText("a", "b")] * 3, lambda some: [1])
