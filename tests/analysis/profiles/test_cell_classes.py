"""Classes of cells: marginals against prior and gold, collapse, what a target without classes gives."""

import numpy as np
import pytest
from answered import BASE, chosen, words, written

from traitmap.analysis.profiles.cell_classes import cell_classes, prior_over
from traitmap.analysis.profiles.cell_items import target_items
from traitmap.data.records import Outcome
from traitmap.data.texts import TaskText
from traitmap.errors import MatrixError
from traitmap.matrix.statistics import mcnemar, paired_interval

EVEN = {"bad": 0.5, "good": 0.5}
COUNTS = {"mostly": {"good": 90, "bad": 10}, "numbers": {"1": 5, "2": 5}}


def profiles(outcomes, counts=COUNTS, **options):
    items = target_items("reviews", outcomes)
    assert items is not None
    return {(one.source, one.seed): one for one in cell_classes(items, counts, **options)}


@pytest.fixture
def reviews():
    """300 items; the base guesses, ``mostly`` answers good to nine in ten, ``numbers`` as the base does."""
    gold = words(EVEN, 300, 0)
    return {
        BASE: chosen(gold, words(EVEN, 300, 1)),
        ("mostly", 0): chosen(gold, words({"bad": 0.1, "good": 0.9}, 300, 2)),
        ("numbers", 0): chosen(gold, words(EVEN, 300, 3)),
    }


def test_a_marginal_that_went_to_the_prior(reviews):
    cell = profiles(reviews)["mostly", None]
    assert cell.adapter.labels == ("bad", "good")
    assert cell.prior == pytest.approx([0.1, 0.9])
    assert cell.base_to_prior.value > 0.3
    assert cell.to_prior.value < 0.1
    assert cell.toward_prior.difference.value == pytest.approx(cell.base_to_prior.value - cell.to_prior.value)
    assert cell.toward_prior.difference.low > 0.2
    assert cell.toward_prior.p == pytest.approx(1e-4)
    assert cell.toward_gold.difference.high < 0
    assert cell.toward_gold.p < 0.001
    assert cell.onto_commonest.difference.low > 0.2


def test_a_source_without_shared_words_has_no_prior(reviews):
    cell = profiles(reviews)["numbers", None]
    assert cell.prior is None
    assert "label words" in cell.prior_reason
    assert not cell.to_prior.known
    assert np.isnan(cell.toward_prior.p)
    assert profiles(reviews, {})["mostly", None].prior_reason == "the source has no labels"


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({" Good": 30, "BAD": 10}, [0.25, 0.75]),
        ({"good": 30, "bad": 10, "fair": 20}, [0.25, 0.75]),
        ({"good": 30, "fair": 20}, None),  # one shared word says nothing
        ({"good": 3, "bad": 1, "fair": 20}, None),
    ],
)
def test_prior_over_the_targets_words(counts, expected):
    prior, reason = prior_over(("bad", "good"), counts)
    assert (prior is None) == bool(reason)
    assert (None if prior is None else list(prior)) == expected


def test_movement_is_rare_where_there_is_none():
    found = 0
    for draw in range(60):
        gold = words(EVEN, 100, 3 * draw)
        shares = {"bad": 0.4, "good": 0.6}
        outcomes = {
            BASE: chosen(gold, words(shares, 100, 3 * draw + 1)),
            ("mostly", 0): chosen(gold, words(shares, 100, 3 * draw + 2)),
        }
        found += profiles(outcomes, draws=50)["mostly", None].toward_prior.p < 0.05
    assert found <= 9  # 3 are expected; 10 and more have a chance of 0.1 %


def test_accuracy_gain_is_the_matrix_own(reviews):
    cell = profiles(reviews)["mostly", None]
    own, base = ([one.correct for one in reviews[key]] for key in (("mostly", 0), BASE))
    wins = np.array([float(sum(a and not b for a, b in zip(own, base, strict=True)))])
    losses = np.array([float(sum(b and not a for a, b in zip(own, base, strict=True)))])
    low, high = paired_interval(wins, losses, 300)
    assert (cell.gains["accuracy"].low, cell.gains["accuracy"].high) == pytest.approx((low[0], high[0]))
    assert cell.onto_commonest.p != pytest.approx(float(mcnemar(wins, losses)[0]))


def test_accuracy_that_only_the_class_shares_gave():
    gold = ["good"] * 160 + ["bad"] * 40
    outcomes = {
        BASE: chosen(gold, ["good", "bad"] * 100),
        ("mostly", 0): chosen(gold, ["good"] * 200),
        ("able", 0): chosen(gold, ["good"] * 150 + ["bad"] * 50),
    }
    found = profiles(outcomes)
    assert found["mostly", None].unsupported
    assert found["mostly", None].gains["accuracy"].low > 0
    assert found["mostly", None].adapter.collapsed
    assert not found["able", None].unsupported


def test_metrics_that_contradict_each_other():
    gold = ["good"] * 180 + ["bad"] * 20
    outcomes = {
        BASE: chosen(gold, ["good"] * 120 + ["bad"] * 80),  # finds every bad one
        ("mostly", 0): chosen(gold, ["good"] * 200),
    }
    cell = profiles(outcomes)["mostly", None]
    assert cell.gains["accuracy"].low > 0 > cell.gains["balanced_accuracy"].high
    assert ("accuracy", "balanced_accuracy") in cell.opposed


def test_seeds_alone_and_together(reviews):
    gold = [one.gold for one in reviews[BASE]]
    reviews["mostly", 1] = chosen(gold, words({"bad": 0.3, "good": 0.7}, 300, 9))
    found = profiles(reviews)
    assert {seed for source, seed in found if source == "mostly"} == {None, 0, 1}
    pooled = found["mostly", None]
    alone = [found["mostly", seed].adapter.accuracy.value for seed in (0, 1)]
    assert pooled.adapter.accuracy.value == pytest.approx(np.mean(alone))
    assert pooled.adapter.counts.sum() == 600
    width = [one.high - one.low for one in (pooled.to_prior, found["mostly", 0].to_prior)]
    assert width[0] > 2 * width[1]


def test_seeds_that_answer_alike_count_as_one(reviews):
    reviews["mostly", 1] = reviews["mostly", 0]
    found = profiles(reviews)
    assert found["mostly", None].toward_prior.p == found["mostly", 0].toward_prior.p


def test_without_the_base_only_the_adapter_is_known(reviews):
    del reviews[BASE]
    cell = profiles(reviews)["mostly", None]
    assert cell.base is None
    assert cell.to_prior.known
    assert not cell.toward_prior.difference.known
    assert not cell.gains["accuracy"].known
    assert not cell.unsupported


def test_generated_answers_with_few_golds_are_classes():
    gold = ["yes", "no"] * 20
    said = ["Yes ", "no", "maybe", "[invalid]"] * 10
    outcomes = [
        Outcome(at, str(at), 0.0, None, own, right, text=own, parsed=own != "[invalid]", stopped=True)
        for at, (right, own) in enumerate(zip(gold, said, strict=True))
    ]
    items = target_items("asked", {("some", 0): outcomes})
    assert items is not None
    assert items.labels == ("no", "yes")
    (cell,) = cell_classes(items, {})
    assert cell.adapter.counts.tolist() == [[10, 0, 10, 0], [0, 10, 0, 10]]
    assert cell.adapter.unparsed.value == 0.25
    assert cell.adapter.recall[1].value == 0.5


def test_what_the_metric_took_for_right_is_the_gold_class():
    gold = ["yes", "no"] * 20
    outcomes = [
        Outcome(at, str(at), 1.0, True, f"I say {right}.", right, text=right, stopped=True)
        for at, right in enumerate(gold)
    ]
    items = target_items("asked", {("some", 0): outcomes})
    assert items is not None
    (cell,) = cell_classes(items, {})
    assert cell.adapter.accuracy.value == 1.0


def test_free_answers_and_item_specific_choices_are_no_classes():
    free = target_items("sums", {BASE: written([10] * 40)})
    assert free is not None
    assert free.labels == ()
    assert cell_classes(free, {}) == []
    gold = [f"fact {at}" for at in range(40)]
    quiz = target_items("quiz", {BASE: chosen(gold, gold[::-1])})
    assert quiz is not None
    # every item offers its own: 41 choices would be needed for these to be classes
    assert quiz.labels == ()


def test_choices_name_and_order_the_classes(reviews):
    texts = [TaskText("a", "good", ("good", "bad", "mixed"))] * 300
    items = target_items("reviews", reviews, texts)
    assert items is not None
    assert items.labels == ("good", "bad", "mixed")


def test_loglikelihoods_have_neither_classes_nor_lengths():
    bits = [Outcome(at, str(at), -1.0, None, "", "text") for at in range(10)]
    assert target_items("bits", {BASE: bits}) is None


def test_adapters_must_have_answered_the_same_items(reviews):
    reviews["mostly", 0] = reviews["mostly", 0][:-1]
    with pytest.raises(MatrixError, match="different items"):
        target_items("reviews", reviews)
