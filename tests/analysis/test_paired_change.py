"""Changes from base to adapter are tested as the matrix tests its gains."""

import numpy as np
import pytest

from traitmap.matrix.statistics import (
    bootstrap_interval,
    mcnemar,
    paired_changes,
    paired_interval,
    pooled_test,
    sign_flip,
)


def told(change):
    return change.difference.low, change.difference.high, change.p


def test_each_kind_of_difference_has_its_own_test():
    generator = np.random.default_rng(0)
    binary = generator.integers(-1, 2, size=(2, 80)).astype(float)
    lengths = generator.normal(1, 3, size=(2, 80))
    for differences, is_binary in ((binary, True), (lengths, False)):
        one, both = paired_changes([differences[:1], differences], binary=is_binary)
        low, high, p = pooled_test(differences[None], binary=is_binary)
        assert told(both) == pytest.approx((low[0], high[0], p[0]))
        alone = differences[:1]
        if is_binary:
            wins, losses = (alone > 0).sum(axis=1).astype(float), (alone < 0).sum(axis=1).astype(float)
            limits, p = paired_interval(wins, losses, 80), mcnemar(wins, losses)
        else:
            limits, p = bootstrap_interval(alone), sign_flip(alone)
        assert told(one) == pytest.approx((limits[0][0], limits[1][0], p[0]))
        assert one.difference.value == pytest.approx(alone.mean())


def test_what_was_not_measured_is_unknown_and_the_others_are_not():
    known = np.random.default_rng(1).normal(size=(1, 20))
    holed = np.full((1, 20), np.nan)
    found = paired_changes([holed, known], binary=False)
    assert not found[0].difference.known
    assert np.isnan(found[0].p)
    assert found[1] == paired_changes([known], binary=False)[0]


def test_a_change_that_is_the_same_on_every_item_has_no_interval():
    (found,) = paired_changes([np.full((1, 20), 2.0)], binary=False)
    assert found.difference.value == 2
    assert np.isnan(found.difference.low)
    assert found.difference.reason
    assert found.p < 0.001
