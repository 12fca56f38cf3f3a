"""Intervals over items and seeds: known limits, two routes that agree, and coverage."""

import numpy as np
import pytest
from scipy import stats

from traitmap.matrix.crossed import crossed_mean, resampled_interval, share_interval
from traitmap.matrix.statistics import pooled_test, ratio_interval, wilson


@pytest.mark.parametrize(("successes", "n"), [(0, 40), (40, 40), (7, 40), (199, 200)])
def test_wilson_is_scipys(successes, n):
    theirs = stats.binomtest(successes, n).proportion_ci(method="wilson")
    ours = wilson(successes, n)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_a_mean_over_seeds_and_items_is_that_of_the_matrix():
    differences = np.random.default_rng(0).normal(0.1, 1, size=(3, 50))
    low, high, p = pooled_test(differences[None], binary=False)
    ours = crossed_mean(differences)
    interval = ours.interval()
    assert (interval.low, interval.high, ours.p) == pytest.approx((low[0], high[0], p[0]))


def test_pseudo_items_are_those_of_the_matrix():
    differences = np.random.default_rng(1).integers(-1, 2, size=(2, 30)).astype(float)
    low, high, _ = pooled_test(differences[None], binary=True)
    interval = crossed_mean(differences, reach=1.0).interval()
    estimate = crossed_mean(differences, reach=1.0)
    assert estimate.value == differences.mean()
    shrunk = 30 / 32 * differences.mean()
    assert interval.high - interval.value == pytest.approx(high[0] - shrunk, abs=0.1)
    assert low[0] < interval.value < high[0]


def test_one_seed_is_students_interval_of_the_items():
    values = np.random.default_rng(2).normal(size=25)
    theirs = stats.ttest_1samp(values, 0).confidence_interval()
    ours = crossed_mean(values)
    assert (ours.interval().low, ours.interval().high) == pytest.approx((theirs.low, theirs.high))
    assert ours.p == pytest.approx(stats.ttest_1samp(values, 0).pvalue)


def test_nothing_that_varies_is_no_certainty():
    assert np.isnan(crossed_mean(np.ones(10)).interval().low)
    assert crossed_mean(np.zeros(10)).p == 1.0
    assert np.isnan(crossed_mean(np.ones(10)).p)
    assert crossed_mean(np.zeros(10), reach=1.0).interval().high > 0.1


def test_seeds_that_differ_widen_a_share():
    generator = np.random.default_rng(3)
    alike = generator.random((3, 200)) < 0.5
    apart = generator.random((3, 200)) < np.array([[0.2], [0.5], [0.8]])
    narrow, wide = share_interval(alike), share_interval(apart)
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)
    # the same answers in every seed are no more than one seed's
    same = np.repeat(alike[:1], 3, axis=0)
    one = share_interval(alike[0])
    assert share_interval(same).low == pytest.approx(one.low, abs=0.002)


def test_fieller_agrees_with_the_bootstrap_and_knows_when_it_has_no_end():
    generator = np.random.default_rng(4)
    above = generator.normal(2, 1, 400)
    below = above + generator.normal(2, 1, 400)
    joint = np.cov(above, below) / 400
    ours = ratio_interval(
        above.mean(),
        below.mean(),
        variances=(joint[0, 0], joint[1, 1]),
        covariance=joint[0, 1],
        quantile=stats.t.ppf(0.975, 399),
    )
    drawn = generator.integers(0, 400, size=(4000, 400))
    low, high = np.quantile(above[drawn].mean(axis=1) / below[drawn].mean(axis=1), [0.025, 0.975])
    assert (ours.low, ours.high) == pytest.approx((low, high), abs=0.01)
    unbounded = ratio_interval(1.0, 0.1, variances=(0.01, 0.01), quantile=2.0)
    assert not unbounded.known
    assert "zero" in unbounded.reason


def test_intervals_of_shares_cover():
    generator = np.random.default_rng(5)
    covered = 0
    for _ in range(400):
        level = generator.normal(0, 0.4, size=(4, 1)) + generator.normal(0, 1, size=(1, 100))
        hits = generator.random((4, 100)) < 1 / (1 + np.exp(-level))
        found = share_interval(hits)
        covered += found.low <= 0.5 <= found.high
    assert 0.92 <= covered / 400 <= 0.995


def test_resampling_that_changes_nothing_gives_no_interval():
    still = resampled_interval(0.5, np.full(100, 0.5), n=50)
    assert still.known
    assert np.isnan(still.low)
    assert still.reason
