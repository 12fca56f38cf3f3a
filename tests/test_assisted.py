"""Gains on all items from a part: two routes agree, and intervals hold at every look."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from traitmap.matrix.assisted import Anchors, anchors_of, assisted_gain, still_items
from traitmap.matrix.sequential import PRECISE, Rule, confidence_at, look_counts, settled
from traitmap.matrix.statistics import paired_gain

N = 250
LOOKS = look_counts(N)


def population(draw: np.random.Generator, rows: int, items: int = N, alike: float = 0.7) -> np.ndarray:
    """(1 + rows, items) right and wrong answers that share an item's difficulty; row 0 the base."""
    difficulty = draw.normal(size=items)
    noise = draw.normal(size=(1 + rows, items))
    latent = np.sqrt(alike) * difficulty + np.sqrt(1 - alike) * noise
    return (latent > draw.normal(scale=0.3, size=(1 + rows, 1))).astype(float)


def part(
    scores: np.ndarray, draw: np.random.Generator, count: int, anchors: int
) -> tuple[np.ndarray, Anchors]:
    items = draw.permutation(scores.shape[1])[:count]
    later = scores[1 + anchors :]
    return (later - scores[0])[:, None, items], Anchors(scores[: 1 + anchors], items)


def test_all_items_give_the_plain_gain_and_nothing_is_left_open() -> None:
    draw = np.random.default_rng(0)
    differences, anchors = part(population(draw, 6), draw, N, 2)
    found = assisted_gain(differences, anchors, binary=True)
    plain = paired_gain(differences, binary=True)
    assert found.gain == pytest.approx(plain[0])
    assert found.low == pytest.approx(plain[1])
    assert found.high == pytest.approx(plain[2])
    assert found.within == pytest.approx(0)


def test_the_estimate_is_that_of_a_ridge_regression_by_hand() -> None:
    """One anchor row: slope cov / (var + penalty), where the penalty is the variance as one item counts."""
    draw = np.random.default_rng(1)
    scores = population(draw, 1)
    items = draw.permutation(N)[:60]
    y, x = (scores[1] - scores[0])[items], scores[0]
    slope = np.cov(y, x[items], ddof=0)[0, 1] * 60 / (x[items].var() * 60 + x[items].var())
    expected = y.mean() + slope * (x.mean() - x[items].mean())
    found = assisted_gain(y[None, None], Anchors(scores[:1], items), binary=True)
    assert found.gain[0] == pytest.approx(expected)
    assert found.gain[0] != pytest.approx(y.mean(), abs=1e-3)


def test_rows_do_not_depend_on_each_other_nor_on_the_order_of_anchors() -> None:
    draw = np.random.default_rng(2)
    differences, anchors = part(population(draw, 6), draw, 80, 3)
    found = assisted_gain(differences, anchors, binary=True)
    turned = Anchors(anchors.known[::-1], anchors.items)
    for row in range(len(differences)):
        alone = assisted_gain(differences[row : row + 1], turned, binary=True)
        for name in ("gain", "low", "high", "p", "within"):
            assert getattr(alone, name)[0] == pytest.approx(getattr(found, name)[row]), name


def test_anchors_that_say_nothing_change_nothing_and_a_copy_says_all() -> None:
    draw = np.random.default_rng(3)
    scores = population(draw, 2)
    items = draw.permutation(N)[:60]
    differences = (scores[2] - scores[0])[None, None, items]
    silent = assisted_gain(differences, Anchors(np.ones((1, N)), items), binary=True)
    plain = paired_gain(differences, binary=True)
    assert [silent.gain[0], silent.low[0], silent.high[0], silent.p[0]] == pytest.approx(
        [part[0] for part in plain]
    )
    copy = assisted_gain(differences, Anchors(scores[[0, 2]], items), binary=True)
    assert copy.gain[0] == pytest.approx((scores[2] - scores[0]).mean(), abs=0.005)
    assert copy.within[0] < silent.within[0] / 2


def test_scores_without_spread_have_no_interval_and_are_not_precise() -> None:
    items = np.arange(LOOKS[0])
    scores = np.stack([np.arange(N) / 256, np.arange(N) / 256 + 0.25])[:, None]
    anchors = Anchors(scores[:1, 0], items)
    found = assisted_gain((scores[1] - scores[0])[None][:, :, items], anchors, binary=False)
    assert np.isnan([found.low[0], found.within[0]]).all()
    assert settled(scores[:, :, items], Rule(5.0), LOOKS, active=[0], anchors=anchors) == {}


@pytest.mark.parametrize(("alike", "anchors"), list(product((0.5, 0.9), (0, 2))))
def test_what_all_items_say_is_within_reach_at_every_look(alike: float, anchors: int) -> None:
    """The items of a target drawn in many orders: the gain on all of them is the truth."""
    draw, held, short = np.random.default_rng(17), [], []
    for _ in range(60):
        scores = population(draw, 30, alike=alike)
        order = draw.permutation(N)
        later = scores[1 + anchors :] - scores[0]
        truth = later.mean(axis=1)
        by_look, shorter = [], []
        for count in LOOKS[:-1]:
            found = assisted_gain(
                later[:, None, order[:count]],
                Anchors(scores[: 1 + anchors], order[:count]),
                binary=True,
                confidence=confidence_at(LOOKS, count),
            )
            by_look.append(np.abs(found.gain - truth) <= found.within + 1e-12)
            shorter.append(np.abs(found.gain - truth) <= 0.5 * found.within)
        held.append(by_look)
        short.append(shorter)
    assert (np.array(held).mean(axis=(0, 2)) >= 0.97).all()
    assert np.array(held).all(axis=1).mean() >= 0.95
    assert np.array(short).all(axis=1).mean() < 0.85  # half the width does not hold


@pytest.mark.parametrize("anchors", [0, 2])
def test_limits_at_large_hold_at_every_look(anchors: int) -> None:
    """Targets drawn again and again: the truth is the gain on items at large, by a large draw."""
    draw = np.random.default_rng(23)
    cuts = np.array([0.0, 0.3, -0.2, 0.1, 0.4, 0.0])[: 2 + anchors + 2]
    truth = stats.norm.sf(cuts) - stats.norm.sf(cuts[0])
    held, rejected = [], []
    for _ in range(200):
        difficulty = draw.normal(size=N)
        latent = np.sqrt(0.7) * difficulty + np.sqrt(0.3) * draw.normal(size=(len(cuts), N))
        scores = (latent > cuts[:, None]).astype(float)
        later = scores[1 + anchors :] - scores[0]
        by_look, ps = [], []
        for count in LOOKS[:-1]:
            items = np.arange(count)
            found = assisted_gain(
                later[:, None, items],
                Anchors(scores[: 1 + anchors], items),
                binary=True,
                confidence=confidence_at(LOOKS, count),
            )
            by_look.append((found.low <= truth[1 + anchors :]) & (truth[1 + anchors :] <= found.high))
            ps.append(found.p[np.isclose(truth[1 + anchors :], 0)])
        held.append(by_look)
        rejected.append(ps)
    assert np.array(held).all(axis=1).mean() >= 0.94
    if anchors:
        assert (np.array(rejected) <= 0.05).mean(axis=(0, 2)).max() <= 0.07


def test_limits_of_several_seeds_hold_seeds_and_items() -> None:
    draw, held, narrower = np.random.default_rng(29), [], []
    for _ in range(300):
        difficulty = draw.normal(size=N)
        latent = np.sqrt(0.8) * difficulty + np.sqrt(0.2) * draw.normal(size=(6, N))
        cuts = np.r_[0.0, 0.2, 0.0, draw.normal(0.1, 0.15, size=3)]
        scores = (latent > cuts[:, None]).astype(float)
        items = draw.permutation(N)[:50]
        differences = (scores[3:] - scores[0])[None][:, :, items]
        found = assisted_gain(differences, Anchors(scores[:3], items), binary=True)
        _, low, high, _ = paired_gain(differences, binary=True)
        truth = stats.norm.sf(0.1 / np.sqrt(1 + 0.15**2)) - 0.5
        held.append(found.low[0] <= truth <= found.high[0])
        narrower.append((found.high[0] - found.low[0]) / (high[0] - low[0]))
    assert 0.92 <= np.mean(held) <= 0.995
    assert np.mean(narrower) < 0.95


def test_items_that_repeat_are_one() -> None:
    draw = np.random.default_rng(5)
    scores = population(draw, 3, items=60)
    items = draw.permutation(60)[:30]
    once = assisted_gain((scores[3] - scores[0])[None, None, items], Anchors(scores[:3], items), binary=True)
    doubled, twice = np.repeat(scores, 2, axis=1), np.sort(np.r_[2 * items, 2 * items + 1])
    groups = np.repeat(np.arange(60), 2)
    found = assisted_gain(
        (doubled[3] - doubled[0])[None, None, twice], Anchors(doubled[:3], twice, groups), binary=True
    )
    assert found.within[0] == pytest.approx(once.within[0], rel=0.15)
    alone = assisted_gain(
        (doubled[3] - doubled[0])[None, None, twice], Anchors(doubled[:3], twice), binary=True
    )
    assert alone.within[0] < 0.85 * once.within[0]


def test_anchors_that_lack_items_are_left_out_and_a_base_that_does_leaves_none() -> None:
    scores = np.ones((4, 2, 30))
    scores[2, 0, 3] = np.nan
    found = anchors_of(scores, [0, 1], np.arange(10))
    assert found is not None
    assert found.known.shape == (2, 30)
    scores[0, 0, 4] = np.nan
    assert anchors_of(scores, [0], np.arange(10)) is None
    assert still_items(np.array([[1.0, 0, 1], [1, 1, 1]])) == 2


def test_a_cell_is_precise_by_what_all_items_may_still_say() -> None:
    draw = np.random.default_rng(7)
    scores = population(draw, 3, alike=0.95)
    items = draw.permutation(N)[: LOOKS[2]]
    anchors = Anchors(scores[:3], items)
    level = confidence_at(LOOKS, LOOKS[2])
    within = assisted_gain((scores[3] - scores[0])[None, None, items], anchors, binary=True, confidence=level)
    asked = scores[:, None, items]
    for factor, ended in ((1.001, {2: PRECISE}), (0.999, {})):
        rule = Rule(float(within.within[0]) * factor)
        assert settled(asked, rule, LOOKS, active=[2], anchors=anchors) == ended
        assert settled(asked, rule, LOOKS, active=[2]) == {}  # alone it is not so sure
