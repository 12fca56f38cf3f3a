"""A permutation p counts the observed table among the draws, so it is never 0."""

from __future__ import annotations

import numpy as np
import pytest

from traitmap.analysis.explanation.permutation import PermutationDraws, p_value


def draws_of(permuted: list[float], observed: float) -> PermutationDraws:
    """Draws whose studentised slopes are as given: sums of squares of 1 throughout."""
    ones = np.ones(len(permuted))
    return PermutationDraws(ones, np.array(permuted), ones, 1.0, observed, 4.0, 10)


@pytest.mark.parametrize(
    ("permuted", "hits"), [([0.1, -0.2, 0.3], 0), ([0.1, -2.0, 0.3], 1), ([5.0, -5.0, 5.0], 3)]
)
def test_p_is_the_share_of_tables_that_are_as_extreme_with_the_observed_one_among_them(
    permuted: list[float], hits: int
) -> None:
    assert p_value(draws_of(permuted, 1.0)) == pytest.approx((1 + hits) / 4)
    assert p_value(draws_of(permuted, -1.0)) == pytest.approx((1 + hits) / 4)


def test_a_table_that_ties_with_the_observed_one_counts() -> None:
    assert p_value(draws_of([1.0, 0.5], 1.0)) == pytest.approx(2 / 3)
