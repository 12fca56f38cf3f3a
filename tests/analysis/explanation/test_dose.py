"""Dose and response: planted trends are found, others are not, and doubt is told."""

import numpy as np
import pytest
from scipy import stats

from traitmap.analysis.explanation.dose import dose_response
from traitmap.errors import MatrixError

DOSES = (0.0, 0.25, 0.5, 1.0)


def answers(levels, *, seeds=3, items=300, seed=0, between=0.0):
    """Right or wrong answers of an adapter per level and seed on shared items of unequal difficulty."""
    generator = np.random.default_rng(seed)
    difficulty = generator.normal(size=items)
    skill = np.asarray(levels)[:, None] + generator.normal(0, between, size=(len(levels), seeds))
    chance = stats.norm.cdf(skill[:, :, None] + difficulty)
    return (generator.random(chance.shape) < chance).astype(float)


def test_a_planted_rise_is_found_with_all_its_steps():
    found = dose_response(DOSES, answers([-1, -0.4, 0.2, 1.4]), measure="accuracy", dose="the rate")
    assert found.verdict == "rises"
    assert found.p < 1e-6
    assert found.slope.low > 0
    assert all(step.low > 0 for step in found.steps)
    assert found.reversal.high == 0
    assert found.monotone
    assert found.items == 300
    assert found.seeds == 3
    assert "accuracy rises with the rate" in found.words
    assert "at every step" in found.words
    assert all(one.low < one.value < one.high for one in found.effects)


def test_order_of_the_doses_does_not_matter_and_their_sign_turns_the_slope():
    values = answers([-1, -0.4, 0.2, 1.4])
    one = dose_response(DOSES, values)
    assert dose_response(DOSES[::-1], values[::-1]) == one
    turned = dose_response([-dose for dose in DOSES], values)
    assert turned.slope.value == pytest.approx(-one.slope.value)
    assert turned.verdict == "falls"
    assert turned.p == pytest.approx(one.p)


def test_the_slope_is_that_of_least_squares():
    values = answers([0, 0.1, 0.2, 0.3])
    found = dose_response(DOSES, values)
    line = stats.linregress(np.repeat(DOSES, 3), values.mean(axis=2).ravel())
    assert found.slope.value == pytest.approx(line.slope)
    assert found.across_adapters.value == pytest.approx(line.slope)
    assert found.change.value == pytest.approx(line.slope)
    numbers = dose_response(DOSES, values.mean(axis=2))
    assert numbers.p == pytest.approx(line.pvalue)
    assert numbers.items == 0


def test_up_and_down_again_is_not_monotone():
    found = dose_response(DOSES, answers([-1, 1, 1, -1]))
    assert found.verdict == "not monotone"
    assert "one direction" in found.words


def test_up_and_down_without_any_trend_is_not_monotone():
    found = dose_response((0, 1, 2), answers([-1, 1, -1]))
    assert found.p > 0.05
    assert found.verdict == "not monotone"


def test_a_step_back_within_a_trend_is_seen():
    found = dose_response(DOSES, answers([-2, 0.5, -0.5, 2]))
    assert found.verdict == "not monotone"
    assert found.reversal.low > 0


def test_a_trend_whose_steps_are_within_noise_is_not_shown_to_be_monotone():
    found = dose_response(DOSES, answers([-1, 0.5, 0.5, 1]))
    assert found.verdict == "rises"
    assert not found.monotone
    assert found.reversal.high > 0
    assert "cannot be ruled out" in found.words


def test_no_trend_cannot_be_told_and_the_visible_change_is():
    found = dose_response(DOSES, answers([0, 0, 0, 0], seeds=2, items=80))
    assert found.verdict == "cannot tell"
    assert 0.02 < found.smallest_change < 1
    assert "would not have been seen" in found.words


@pytest.mark.parametrize(("seeds", "between"), [(1, 0.0), (3, 0.0), (3, 0.3)])
def test_trends_where_there_is_none_are_rare(seeds, between):
    hits = sum(
        dose_response(DOSES, answers([0, 0, 0, 0], seeds=seeds, items=60, seed=draw, between=between)).verdict
        != "cannot tell"
        for draw in range(200)
    )
    assert hits <= 20  # 5 % of 200 is 10; 21 and more have a chance of 0.1 %


def test_the_smallest_change_is_found_four_times_in_five():
    level = 0.45
    found, visible, changes = 0, [], []
    for draw in range(200):
        one = dose_response(DOSES, answers(level * np.array(DOSES), seeds=2, items=150, seed=draw))
        found += one.p < 0.05
        visible.append(one.smallest_change)
        changes.append(one.change.value)
    # power rises and falls with the change over the visible one; here they are about equal
    assert np.mean(changes) == pytest.approx(np.median(visible), rel=0.25)
    assert 0.6 < found / 200 < 0.97


def test_constant_answers_are_no_certainty():
    found = dose_response((0, 1), np.zeros((2, 1, 40)))
    assert found.p == pytest.approx(1.0)
    assert found.slope.high > 0.02
    assert found.verdict == "cannot tell"
    lengths = dose_response((0, 1), np.full((2, 1, 40), 7.0))
    assert np.isnan(lengths.slope.low)
    assert lengths.slope.reason


@pytest.mark.parametrize("doses", [(1 / 3, 0.8), (0.1, 0.2, 0.7)])
def test_adapters_that_answer_alike_have_no_trend_of_rounding(doses):
    """Weights of such doses sum to 1e-17, not to 0; shares of groups of items are no 0/1 scores."""
    alike = np.random.default_rng(3).integers(0, 4, 150) / 3
    found = dose_response(doses, np.tile(alike, (len(doses), 1, 1)))
    assert (found.verdict, found.slope.value) == ("cannot tell", 0)
    assert not found.p < 0.05


def test_items_that_one_adapter_lacks_are_left_out_for_all():
    values = answers([-1, 0, 1, 2])
    holed = values.copy()
    holed[2, 1, :20] = np.nan
    assert dose_response(DOSES, holed) == dose_response(DOSES, values[:, :, 20:])


@pytest.mark.parametrize(
    ("doses", "values"),
    [
        ((0, 0), np.zeros((2, 1, 5))),
        ((0,), np.zeros((1, 1, 5))),
        ((0, 1), np.zeros((3, 1, 5))),
        ((0, 1), np.zeros(2)),
        ((0, 1), np.full((2, 1, 5), np.nan)),
        ((0, 1), np.full((2, 1), np.nan)),
    ],
)
def test_what_does_not_fit_is_told(doses, values):
    with pytest.raises(MatrixError):
        dose_response(doses, values)
