"""Difference in differences, and gains without their format: identities, planted effects, doubt."""

import numpy as np
import pytest

from traitmap.analysis.explanation.dose import difference_in_differences, format_part, subtract_format
from traitmap.errors import MatrixError
from traitmap.matrix.crossed import VarianceTerm, crossed_contrast
from traitmap.matrix.record import TransferMatrix
from traitmap.matrix.statistics import paired_interval


def answers(*rates, items=400, seed=0):
    """One row of 0/1 answers per rate, easy items easy for everybody."""
    ease = np.random.default_rng(seed).random(items)
    noise = np.random.default_rng(seed + 1).normal(0, 0.1, size=(len(rates), items))
    return ((ease + noise) < np.array(rates)[:, None]).astype(float)


def test_a_planted_difference_in_differences():
    a = {"flipkart": answers(0.7, 0.72), "imdb": answers(0.5, 0.52, seed=5)}
    b = {"flipkart": answers(0.7, 0.71, seed=0), "imdb": answers(0.8, 0.78, seed=5)}
    found = difference_in_differences(a, b, names=("balanced", "unbalanced"))
    on = [float(np.mean(a[target]) - np.mean(b[target])) for target in a]
    assert [one.value for one in found.by_target] == pytest.approx(on)
    assert found.difference.value == pytest.approx(on[0] - on[1])
    assert found.difference.low > 0
    assert found.p < 0.01
    assert "beyond noise" in found.words
    turned = difference_in_differences(b, a)
    assert turned.difference.value == pytest.approx(-found.difference.value)
    assert turned.p == pytest.approx(found.p)


def test_no_difference_cannot_be_told():
    same = {"one": answers(0.5, items=60), "other": answers(0.5, items=60, seed=9)}
    found = difference_in_differences(same, same)
    assert found.difference.value == 0
    assert found.difference.high > 0.03
    assert found.smallest_visible > 0.05
    assert "cannot be told" in found.words


def test_gain_is_format_plus_content():
    source, control, base = answers(0.8, 0.82), answers(0.6, 0.62, seed=3), answers(0.3)
    found = format_part(source, base[0], control)
    assert found.gain.value == pytest.approx(found.format.value + found.rest.value)
    assert found.share.value == pytest.approx(found.format.value / found.gain.value)
    assert found.share.low < found.share.value < found.share.high
    assert found.verdict == "content"
    assert "the content counts" in found.words


def test_share_of_format_agrees_with_the_bootstrap():
    generator = np.random.default_rng(0)
    items = generator.normal(0, 1, 200)
    base = items + generator.normal(0, 0.5, 200)
    control = items + 2 + generator.normal(0, 3, 200)
    source = control + 1 + generator.normal(0, 0.5, 200)
    found = format_part(source, base, control)
    at = generator.integers(0, 200, size=(4000, 200))
    shares = (control - base)[at].mean(axis=1) / (source - base)[at].mean(axis=1)
    assert (found.share.low, found.share.high) == pytest.approx(
        tuple(np.quantile(shares, [0.025, 0.975])), abs=0.015
    )


def test_a_gain_that_the_control_gives_too_is_format():
    source, control, base = answers(0.8, 0.8), answers(0.8, 0.8), answers(0.3)
    found = format_part(source, base[0], control)
    assert found.verdict == "format only"
    assert found.share.value == pytest.approx(1.0)
    assert found.rest.value == 0


def test_few_items_cannot_tell():
    source, control, base = (answers(rate, items=12, seed=at) for at, rate in enumerate((0.6, 0.5, 0.4)))
    found = format_part(source, base, control)
    assert found.verdict == "cannot tell"
    assert not found.share.known
    assert "zero" in found.share.reason
    assert "would not be seen" in found.words


def test_a_seed_that_stands_apart_widens_the_rest():
    ease = np.random.default_rng(0).random(400)
    near = np.array([ease < 0.6, ease < 0.62]).astype(float)
    far = np.array([ease < 0.3, ease < 0.92]).astype(float)
    control = (ease < 0.4).astype(float)
    base = (ease < 0.2).astype(float)
    one, other = format_part(near, base, control), format_part(far, base, control)
    assert one.verdict == "content"
    assert other.verdict == "cannot tell"
    assert other.rest.value == pytest.approx(one.rest.value, abs=0.02)


def test_one_seed_is_near_tangos_interval():
    one, zero = answers(0.7)[0], answers(0.5, seed=4)[0]
    found = crossed_contrast(
        [VarianceTerm("a", "", 1.0, one), VarianceTerm("b", "", -1.0, zero)], reach=1.0
    ).interval()
    wins, losses = ((one > zero).sum(), (one < zero).sum())
    low, high = paired_interval(np.array([float(wins)]), np.array([float(losses)]), len(one))
    assert (found.low, found.high) == pytest.approx((low[0], high[0]), abs=0.006)


def test_intervals_of_a_contrast_cover():
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        items = generator.normal(size=(1, 50))
        skill = generator.normal(0, 0.3, size=(6, 1))
        scores = items + skill + generator.normal(size=(6, 50))
        terms = [VarianceTerm("a", "", 1.0, scores[:3]), VarianceTerm("b", "", -1.0, scores[3:])]
        found = crossed_contrast(terms).interval()
        covered += found.low <= 0 <= found.high
    assert covered / 300 >= 0.93


@pytest.fixture
def matrix():
    """Three sources and a format control on two targets, two seeds; the base in row 0."""
    items = {}
    for at, target in enumerate(("letters", "sums")):
        base, source, second, control, other = (
            answers(rate, rate + 0.01, seed=at) for rate in (0.3, 0.8, 0.6, 0.6, 0.3)
        )
        base[1] = base[0]
        items[target] = np.stack([base, source, second, control, other])
    values = np.array([[scores[s + 1].mean() for scores in items.values()] for s in range(4)])
    return TransferMatrix(
        sources=("deep", "shallow", "format", "idle"),
        targets=("letters", "sums"),
        values=values,
        baseline=np.array([scores[0].mean() for scores in items.values()]),
        item_scores=items,
    )


def test_the_control_is_taken_off_every_cell(matrix):
    parts = {(part.source, part.target): part for part in subtract_format(matrix, "format")}
    assert len(parts) == 6
    for (source, target), part in parts.items():
        s, t = matrix.sources.index(source), matrix.targets.index(target)
        assert part.gain.value == pytest.approx(matrix.gains[s, t])
        assert part.q >= part.p
    assert parts["deep", "sums"].verdict == "content"
    assert parts["shallow", "sums"].verdict == "format only"
    assert parts["idle", "sums"].rest.high < 0


def test_what_only_the_uncorrected_test_finds_cannot_be_told():
    sources = [f"s{at}" for at in range(30)]
    base, control = answers(0.4, items=150, seed=1), answers(0.5, items=150, seed=2)
    others = np.repeat(control[None], 30, axis=0)
    right, wrong = np.flatnonzero(control[0] == 1), np.flatnonzero(control[0] == 0)
    others[0, 0, [*wrong[:10], *right[:2]]] = [1] * 10 + [0] * 2
    scores = np.stack([base, *others, control])
    matrix = TransferMatrix(
        sources=(*sources, "format"),
        targets=("sums",),
        values=scores[1:, 0].mean(axis=1)[:, None],
        baseline=scores[0, 0].mean(keepdims=True),
        item_scores={"sums": scores},
    )
    parts = subtract_format(matrix, "format")
    assert parts[0].p < 0.05 < parts[0].q
    assert parts[0].verdict == "cannot tell"


def test_each_target_may_have_its_own_control(matrix):
    parts = subtract_format(matrix, {"sums": "idle"})
    assert {part.target for part in parts} == {"sums"}
    assert {part.control for part in parts} == {"idle"}


def test_a_control_that_is_not_there_is_told(matrix):
    with pytest.raises(MatrixError, match="format_only"):
        subtract_format(matrix, "nothing")


def test_targets_must_be_the_same(matrix):
    with pytest.raises(MatrixError, match="same two targets"):
        difference_in_differences({"a": [1, 0]}, {"a": [1, 0]})
    with pytest.raises(MatrixError, match="same items"):
        format_part(np.ones((1, 4)), np.ones(3), np.ones((1, 4)))
