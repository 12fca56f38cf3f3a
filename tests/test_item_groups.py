"""Items that repeat or belong together are no sample of their own: laws of groups, and texts as groups."""

from dataclasses import replace

import numpy as np
import pytest

from planted import matrix_of
from traitmap.analysis.recommendation.completion import gain_noise
from traitmap.analysis.repeats import item_groups, repeated_items
from traitmap.data.texts import TaskText
from traitmap.matrix import statistics as st
from traitmap.matrix.crossed import share_interval


def pairs_of_answers(n, seed, rate=0.6):
    """(8, n) differences of 0/1 answers of eight adapters to one base."""
    generator = np.random.default_rng(seed)
    base = generator.random(n) < rate
    return (generator.random((8, n)) < rate).astype(float) - base


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("seeds", [1, 3])
def test_every_item_twice_tells_what_it_tells_once(binary, seeds):
    generator = np.random.default_rng(1)
    once = np.stack([pairs_of_answers(60, seed) for seed in range(seeds)], axis=1)
    if not binary:
        once = once + 0.3 * generator.normal(size=once.shape)
    groups = generator.permutation(np.repeat(np.arange(60), 2))
    gains, low, high, p = st.paired_gain(once, binary=binary)
    again, low2, high2, p2 = st.paired_gain(once[..., groups], binary=binary, groups=groups)
    for first, second in ((gains, again), (low, low2), (high, high2), (p, p2)):
        np.testing.assert_allclose(first, second, atol=1e-12)
    apart = st.paired_gain(once[..., groups], binary=binary)
    assert (apart[2] - apart[1]).mean() < 0.9 * (high2 - low2).mean()  # they look like twice as many


def test_the_mean_over_groups_is_that_over_items_and_its_variance_the_ratio_estimator():
    generator = np.random.default_rng(3)
    groups = st.numbered_groups(generator.integers(0, 20, 100))
    values = generator.normal(size=(4, 100)) + generator.normal(size=20)[groups]
    by_group = st.grouped(values, groups)
    assert np.allclose(by_group.mean(axis=1), values.mean(axis=1))
    residual = values - values.mean(axis=1, keepdims=True)
    sums = np.stack([residual[:, groups == g].sum(axis=1) for g in range(20)], axis=1)
    expected = np.sqrt(20 / 19 * (sums**2).sum(axis=1)) / 100
    assert np.allclose(st.standard_error(values, groups), expected)


def test_no_two_items_in_a_group_is_no_group():
    assert st.numbered_groups(["b", "a", "c"]) is None
    assert st.numbered_groups([]) is None
    assert st.numbered_groups(["b", "a", "b"]).tolist() == [1, 0, 1]


@pytest.mark.parametrize("sizes", [(2,), (4,), (1, 1, 2, 5)])
@pytest.mark.parametrize("alike", [1.0, 0.5])
def test_intervals_hold_the_gain_where_items_repeat(sizes, alike):
    """600 studies each; without groups items that are there four times cover .6 of the time."""
    generator = np.random.default_rng([len(sizes), sizes[0]])
    groups = np.repeat(np.arange(80), np.tile(sizes, 80 // len(sizes)))

    def answers():
        shared = generator.normal(size=(600, 80))[:, groups]
        own = generator.normal(size=(600, len(groups)))
        return (np.sqrt(alike) * shared + np.sqrt(1 - alike) * own < 0.3).astype(float)

    differences = answers() - answers()
    _, low, high, p = st.paired_gain(differences[:, None], binary=True, groups=groups)
    assert 0.93 <= ((low <= 0) & (high >= 0)).mean() <= 0.985
    assert (p < 0.05).mean() <= 0.07


def test_groups_of_a_share_widen_it_as_far_as_they_are_alike():
    generator = np.random.default_rng(5)
    groups = np.repeat(np.arange(50), 4)
    alike = (generator.random(50) < 0.4).astype(float)[groups]
    once, again = share_interval(alike[::4]), share_interval(alike, groups)
    assert once.value == again.value
    assert again.high - again.low == pytest.approx(once.high - once.low, rel=0.05)
    assert again.high - again.low > 1.7 * (share_interval(alike).high - share_interval(alike).low)


def test_a_row_that_was_not_measured_stays_unknown_by_group():
    scores = np.array([[[1.0, 0.0, 1.0, 1.0]], [[0.0, 0.0, np.nan, 1.0]], [[np.nan] * 4]])
    by_group = st.group_scores(scores, np.array([0, 0, 1, 1]))
    assert np.isnan(by_group[2]).all()
    assert np.isfinite(by_group[:2]).all()
    assert np.allclose(by_group[:2].mean(axis=2)[:, 0], [2 / 3, 1 / 3])  # of the items that both have


LONG = "The committee met on the second floor and spoke for an hour about the plan for the new harbour"


def test_the_same_text_is_one_item_whatever_its_case_spacing_and_order_of_choices():
    texts = [
        TaskText("Is it  warm?", "yes", ("yes", "no")),
        TaskText("is it warm? ", "no", ("no", "yes")),
        TaskText("is it warm?", "no", ("no", "maybe")),
        TaskText("3 + 4 =", "7"),
        TaskText("3 - 4 =", "-1"),
        TaskText("( ( ) )", "right"),
        TaskText("( ( )", "wrong"),
    ]
    assert item_groups(texts) == (0, 0, 1, 2, 3, 4, 5)


def test_items_that_show_nothing_are_known_by_their_choices_or_their_answer():
    shown = [TaskText("", "", ("a cat sat", "a cats sat")), TaskText("", "", ("a dog sat", "a dogs sat"))]
    assert item_groups(shown) == (0, 1)
    assert item_groups([TaskText("", "one text"), TaskText("", "other text"), TaskText("", "one text")]) == (
        0,
        1,
        0,
    )


def test_near_copies_are_one_item_and_other_numbers_another():
    texts = [
        TaskText(f"{LONG}.", "a"),
        TaskText(f"{LONG} here.", "b"),
        TaskText(f"{LONG}, which was built in 1890 and 1892.", "c"),
        TaskText(f"{LONG}, which was built in 1790 and 1799.", "d"),
        TaskText("A farmer sold his old red tractor to the man who lives beside the river", "e"),
    ]
    groups = item_groups(texts)
    assert groups[0] == groups[1]
    assert groups[2] != groups[3]
    assert groups[4] not in groups[:4]


def test_what_a_study_names_makes_groups_beside_the_text():
    texts = [
        TaskText("first question", "a", group="passage 1"),
        TaskText("second question", "b", group="passage 1"),
        TaskText("third question", "c", group="passage 2"),
        TaskText("Third question", "c", group="passage 3"),
    ]
    assert item_groups(texts) == (0, 0, 1, 1)


def test_targets_with_items_in_common_are_named():
    first = [TaskText(f"question number {i}", "x") for i in range(40)]
    second = [TaskText(f"Question  number {i}", "x") for i in range(30, 90)]
    third = [TaskText(f"problem number {i}", "x") for i in range(40)]
    record = repeated_items({"a": first, "b": second, "c": third}, {})
    assert record["shared"] == [{"first": "a", "second": "b", "items": 10, "share": 0.25}]
    assert all(not target["codes"] for target in record["targets"].values())


@pytest.mark.parametrize("binary", [True, False])
def test_the_noise_of_a_gain_counts_groups(binary):
    """Every item four times is as noisy as every item once."""
    differences = pairs_of_answers(60, 4)
    if not binary:
        differences = differences + 0.1 * np.random.default_rng(2).normal(size=differences.shape)
    groups = np.repeat(np.arange(60), 4)

    def noise(scores, item_groups):
        scores = np.vstack([np.zeros((1, scores.shape[1])), scores])[:, None]
        matrix = matrix_of(scores[1:, 0].mean(axis=1, keepdims=True), item_scores={"target000": scores})
        return gain_noise(replace(matrix, item_groups=item_groups))

    once = noise(differences, {})
    np.testing.assert_allclose(noise(differences[:, groups], {"target000": groups}), once)
    assert (noise(differences[:, groups], {}) < 0.3 * once).all()


def test_the_interval_of_one_adapter_does_not_depend_on_the_others_beside_it() -> None:
    generator = np.random.default_rng(5)
    groups = np.repeat(np.arange(30), [2] * 10 + [1] * 20)
    differences = generator.choice([-1.0, 0.0, 0.0, 1.0], size=(4, 1, 40))
    differences[1] = 0.0  # nothing changed: no group counts for more than one item
    differences[2, 0, :20] = 0.0
    together = np.array(st.paired_gain(differences, binary=True, groups=groups))
    alone = np.array([st.paired_gain(one[None], binary=True, groups=groups) for one in differences])[..., 0].T
    np.testing.assert_allclose(together, alone, rtol=1e-12)
    count = 40**2 / (10 * 2**2 + 20)  # what the items count for where nobody can tell how alike a group is
    low, high = st.paired_interval(np.zeros(1), np.zeros(1), count, float(st.t_value(29)))
    np.testing.assert_allclose(together[1:3, 1], [low[0], high[0]])
