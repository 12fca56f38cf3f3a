"""Looks at growing parts of the items: limits that hold at all of them, and rules that end a cell."""

from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from traitmap.matrix.sequential import (
    BEATEN,
    BELOW_BASE,
    CLEAR,
    FIRST,
    NO_RIVAL,
    PRECISE,
    Rule,
    boundaries,
    confidence_at,
    look_counts,
    order_of_items,
    repeated_p,
    settled,
)
from traitmap.matrix.statistics import paired_gain

LOOKS = look_counts(250)


@pytest.mark.parametrize("n", [1, 5, 20, 29, 30, 31, 40, 60, 250, 1319, 14042])
def test_looks_rise_to_all_items_and_begin_with_enough(n: int) -> None:
    counts = look_counts(n)
    assert counts[-1] == n
    assert counts[0] >= min(n, 20)
    assert all(later - earlier >= 10 for earlier, later in pairwise(counts))
    assert len(counts) <= 6


def test_one_look_is_the_plain_interval() -> None:
    assert boundaries((30,), (0.05, 0.5))[:, 0] == pytest.approx(stats.norm.ppf([0.975, 0.75]), abs=2e-4)
    assert confidence_at((30,), 30) == pytest.approx(0.95, abs=1e-4)
    assert confidence_at(LOOKS, 77) == 0.95  # nobody looked there
    assert repeated_p([0.03, np.nan], (30,), 30) == pytest.approx([0.03, np.nan], nan_ok=True)


def test_two_looks_spend_the_square_of_the_share() -> None:
    """First look by its own tail; the second from the two-dimensional normal distribution."""
    first, second = boundaries((50, 100), (0.05,))[0]
    assert 2 * stats.norm.sf(first) == pytest.approx(0.05 * 0.25, rel=1e-3)
    joint = stats.multivariate_normal(cov=[[1, np.sqrt(0.5)], [np.sqrt(0.5), 1]])
    inside = joint.cdf([first, second], lower_limit=[-first, -second])
    assert 1 - inside == pytest.approx(0.05, abs=2e-4)


def test_all_looks_together_pass_the_limits_as_often_as_they_say() -> None:
    draw = np.random.default_rng(3)
    walks = np.cumsum(draw.normal(size=(20_000, 250)), axis=1)[:, np.array(LOOKS) - 1] / np.sqrt(LOOKS)
    for alpha in (0.01, 0.05, 0.2):
        passed = (np.abs(walks) >= boundaries(LOOKS, (alpha,))[0]).any(axis=1).mean()
        assert passed == pytest.approx(alpha, abs=4 * np.sqrt(alpha / 20_000))
    by_look = [
        repeated_p(2 * stats.norm.sf(np.abs(walks[:, k])), LOOKS, count) for k, count in enumerate(LOOKS)
    ]
    least = np.min(by_look, axis=0)  # stopped at the best moment
    for alpha in (0.01, 0.05, 0.2):
        assert (least <= alpha).mean() <= alpha + 3 * np.sqrt(alpha / 20_000)
    plain = 2 * stats.norm.sf(np.abs(walks).max(axis=1))
    assert (plain <= 0.05).mean() > 0.12  # what looking costs without it


def test_a_repeated_p_is_the_level_whose_limit_is_met_and_never_below_the_plain_one() -> None:
    for count, limit in zip(LOOKS, boundaries(LOOKS, (0.05,))[0], strict=True):
        assert repeated_p(2 * stats.norm.sf(limit), LOOKS, count) == pytest.approx(0.05, rel=0.01)
        p = np.geomspace(1e-12, 1.0, 40)
        repeated = repeated_p(p, LOOKS, count)
        assert (repeated >= p).all()
        assert (np.diff(repeated) >= -1e-12).all()
        assert repeated[-1] == 1.0


def paired_scores(draw: np.random.Generator, n: int, gain: float, change: float) -> np.ndarray:
    """(2, n) right and wrong answers of base and adapter: ``change`` of the items differ, mean ``gain``."""
    base = (draw.random(n) < 0.5).astype(float)
    kind = draw.choice([1, -1, 0], n, p=[(change + gain) / 2, (change - gain) / 2, 1 - change])
    return np.stack([np.where(kind < 0, 1.0, np.where(kind > 0, 0.0, base)), base + np.where(
        kind == 0, 0.0, np.where(kind > 0, 1.0 - base, -base))])  # fmt: skip


@pytest.mark.parametrize(("gain", "change"), [(0.0, 0.3), (0.1, 0.25), (0.0, 0.05)])
def test_intervals_hold_at_every_look_and_wherever_one_stops(gain: float, change: float) -> None:
    """Known truth: all looks together in 95 %, each look in more, and plain ones together in clearly less."""
    draw, studies = np.random.default_rng(11), 3000
    differences = draw.choice(
        [1.0, -1.0, 0.0], (studies, 250), p=[(change + gain) / 2, (change - gain) / 2, 1 - change]
    )
    held, plain, stopped = [], [], np.full(studies, -1)
    for look, count in enumerate(LOOKS):
        some = differences[:, None, :count]
        for confidence, into in ((confidence_at(LOOKS, count), held), (0.95, plain)):
            _, low, high, _ = paired_gain(some, binary=True, confidence=confidence)
            into.append((low <= gain) & (gain <= high))
            if confidence != 0.95:
                ended = ((low > 0) | (high < 0)) & (stopped < 0)
                stopped[ended] = look
    stopped[stopped < 0] = len(LOOKS) - 1
    together, at_stop = np.all(held, axis=0).mean(), np.array(held)[stopped, np.arange(studies)].mean()
    assert 0.935 <= together <= 0.985
    assert at_stop >= together
    assert all(look.mean() >= 0.95 for look in held)
    assert np.all(plain, axis=0).mean() < together - 0.04


def test_a_cell_ends_when_its_sign_is_clear_or_its_interval_narrow() -> None:
    draw = np.random.default_rng(5)
    base, better = paired_scores(draw, 88, 0.5, 0.5)
    same = base.copy()
    same[:3] = 1 - same[:3]
    scores = np.stack([base, better, same, np.full(88, np.nan)])[:, None]
    sign = settled(scores, Rule(decide="sign"), LOOKS, active=[0, 1, 2])
    assert sign == {0: CLEAR}
    assert settled(scores, Rule(precision=0.12), LOOKS, active=[0, 1, 2]) == {1: PRECISE}
    both = settled(scores, Rule(0.12, "sign"), LOOKS, active=[0, 1, 2])
    assert both == {0: CLEAR, 1: PRECISE}
    assert settled(scores, Rule(0.12, "sign"), LOOKS, active=[1]) == {1: PRECISE}
    assert settled(scores[:, :, :80], Rule(0.9, "sign"), LOOKS, active=[0, 1]) == {}  # no look


def test_the_precision_is_half_the_width_at_that_look() -> None:
    draw = np.random.default_rng(6)
    scores = np.stack([draw.random(138), draw.random(138)])[:, None]
    _, low, high, _ = paired_gain(
        (scores[1] - scores[0])[None], binary=False, confidence=confidence_at(LOOKS, 138)
    )
    half = float(high[0] - low[0]) / 2
    assert settled(scores, Rule(half * 1.001), LOOKS, active=[0]) == {0: PRECISE}
    assert settled(scores, Rule(half * 0.999), LOOKS, active=[0]) == {}
    assert settled(1000 * scores, Rule(half * 1001), LOOKS, active=[0]) == {0: PRECISE}


def test_the_contest_ends_for_who_cannot_win_and_for_who_has_won() -> None:
    draw = np.random.default_rng(7)
    base = (draw.random(138) < 0.4).astype(float)
    best, near, worse = base.copy(), base.copy(), base.copy()
    best[np.flatnonzero(base == 0)[:50]] = 1
    near[np.flatnonzero(base == 0)[:46]] = 1
    worse[np.flatnonzero(base == 1)[:40]] = 0
    scores = np.stack([base, best, near, worse, np.ones(138)])[:, None]
    rule = Rule(decide="best")
    ended = settled(scores, rule, LOOKS, active=[0, 1, 2, 3], rivals=[0, 1, 2])
    assert ended == {2: BEATEN, 3: NO_RIVAL}
    assert settled(scores, rule, LOOKS, active=[0, 2], rivals=[0, 2]) == {0: FIRST, 2: BEATEN}
    assert settled(scores, rule, LOOKS, active=[2], rivals=[2]) == {2: BELOW_BASE}
    lower = settled(1 - scores, rule, LOOKS, active=[0, 1, 2, 3], rivals=[0, 1, 2], better=-1)
    assert lower == ended
    swapped = settled(scores[[0, 3, 2, 1, 4]], rule, LOOKS, active=[0, 1, 2, 3], rivals=[0, 1, 2])
    assert swapped == {0: BEATEN, 3: NO_RIVAL}


def test_seeds_count_beside_items() -> None:
    """Two seeds that disagree are no clear sign, however many items say so."""
    base = np.zeros((2, 188))
    apart = np.stack([np.r_[np.ones(120), np.zeros(68)], np.zeros(188)])
    alike = np.stack([np.r_[np.ones(60), np.zeros(128)]] * 2)
    alike[1, :4] = 0
    ended = settled(np.stack([base, apart, alike]), Rule(decide="sign"), LOOKS, active=[0, 1])
    assert ended == {1: CLEAR}


def test_repeated_items_count_once() -> None:
    base, adapter = np.zeros(22), np.r_[np.ones(5), np.zeros(17)]
    once = np.stack([base, adapter])[:, None]
    fourfold = np.tile(once, (1, 1, 4))
    groups = np.tile(np.arange(22), 4)
    assert settled(fourfold, Rule(decide="sign"), LOOKS, active=[0]) == {0: CLEAR}
    assert settled(fourfold, Rule(decide="sign"), LOOKS, active=[0], groups=groups) == {}


def test_the_order_of_items_is_a_draw_of_its_seed() -> None:
    assert sorted(order_of_items(40, 1)) == list(range(40))
    assert list(order_of_items(40, 1)) == list(order_of_items(40, 1)) != list(order_of_items(40, 2))
