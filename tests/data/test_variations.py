from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traitmap.data import variations
from traitmap.data.records import Example, Segment
from traitmap.data.variations import CannotVaryError, NoSuchPartError
from traitmap.study.settings import Mislabel

WORDS = ("bad", "fair", "good")
RATES = (0.1, 0.25, 0.5, 1.0)


def labelled(
    *counts: int, text: str = "Review: item {n} is a{n} b{k} c{n} d{n} e{n} of many\nMood:"
) -> list[Example]:
    """So many examples of each class, classes mixed, no two inputs alike."""
    labels = [word for word, count in zip(WORDS, counts, strict=False) for _ in range(count)]
    order = np.random.default_rng(3).permutation(len(labels))
    return [
        Example((Segment(text.format(n=n, k=n % 7), False), Segment(f" {labels[row]}.", True)), labels[row])
        for n, row in enumerate(order)
    ]


def answered(count: int) -> list[Example]:
    """Examples without labels whose outputs have 1 to ``count`` words."""
    return [
        Example((Segment(f"Q: {n} and {n}?\nA:", False), Segment(" " + " ".join("abcdefgh"[: n + 1]), True)))
        for n in range(count)
    ]


def draw(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def inputs(examples):
    return [example.prompt for example in examples]


def outputs(examples):
    return [example.completion for example in examples]


def labels(examples):
    return [example.label for example in examples]


def changed_rows(before, after) -> set[int]:
    return {row for row, (one, other) in enumerate(zip(before, after, strict=True)) if one != other}


CATALOGUE = {
    "balance": lambda rows, rng: [rows[at] for at in variations.balance(rows, True, rng)],
    "class_weights": lambda rows, rng: [
        rows[at] for at in variations.class_weights(rows, {"bad": 1, "fair": 2, "good": 1}, rng)
    ],
    "subsample": lambda rows, rng: [rows[at] for at in variations.subsample(rows, 0.5, rng)],
    "mislabel": lambda rows, rng: variations.mislabel(rows, Mislabel(rate=0.5), rng),
    "switch": lambda rows, rng: variations.mislabel(rows, Mislabel(rate=0.5, mode="switch"), rng),
    "permute": lambda rows, rng: variations.mislabel(rows, Mislabel(rate=0.5, mode="permute"), rng),
    "answer_words": lambda rows, rng: variations.answer_words(rows, {"bad": "low", "good": "high"}, rng),
    "format_only": lambda rows, rng: variations.format_only(rows, True, rng),
    "random_text": lambda rows, rng: variations.random_text(rows, True, rng),
    "shuffle_words": lambda rows, rng: variations.shuffle_words(rows, 0.5, rng),
    "truncate_output": lambda rows, _: variations.truncate_output(
        [replace(row, segments=(*row.segments[:1], Segment(" one two three", True))) for row in rows],
        2,
        draw(),
    ),
    "loss_on": lambda rows, _: variations.loss_on(rows, "label", draw()),
}


@pytest.mark.parametrize("kind", CATALOGUE)
def test_each_kind_changes_something_and_the_seed_alone_decides(kind):
    rows = labelled(20, 12, 40)
    before = list(rows)
    once, again, other = (CATALOGUE[kind](rows, draw(seed)) for seed in (0, 0, 1))
    assert once == again
    assert rows == before
    assert once != rows
    if kind not in ("answer_words", "truncate_output", "loss_on"):
        assert once != other


@pytest.mark.parametrize("kind", [kind for kind in CATALOGUE if kind not in ("format_only", "random_text")])
def test_each_kind_but_those_on_inputs_leaves_the_inputs(kind):
    rows = labelled(20, 12, 40)
    varied = CATALOGUE[kind](rows, draw())
    if kind == "shuffle_words":
        assert [Counter(one.split()) for one in inputs(varied)] == [
            Counter(one.split()) for one in inputs(rows)
        ]
    else:
        assert [one for one in inputs(rows) if one in set(inputs(varied))] == inputs(varied)


@given(st.lists(st.integers(1, 30), min_size=2, max_size=3), st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_balance_gives_equal_counts_of_existing_rows(counts, seed):
    rows = labelled(*counts)
    kept = variations.balance(rows, True, draw(seed))
    assert set(Counter(rows[at].label for at in kept).values()) == {min(counts)}
    assert kept == sorted(set(kept))


def test_class_weights_are_shares_and_their_doses_are_nested():
    rows = labelled(60, 60, 60)
    doses = [variations.class_weights(rows, {"bad": 1, "fair": 1, "good": 1 / w}, draw()) for w in (1, 2, 6)]
    counts = [Counter(rows[at].label for at in kept) for kept in doses]
    assert [dict(one) for one in counts] == [{"bad": 60, "fair": 60, "good": good} for good in (60, 30, 10)]
    assert set(doses[2]) < set(doses[1]) < set(doses[0])
    without = variations.class_weights(rows, {"bad": 0, "fair": 1, "good": 2}, draw())
    assert Counter(rows[at].label for at in without) == {"fair": 30, "good": 60}


def test_weights_must_name_the_classes():
    with pytest.raises(CannotVaryError, match="no row has the label 'god' and 'good' has no weight"):
        variations.class_weights(labelled(3, 3, 3), {"bad": 1, "fair": 1, "god": 1}, draw())


@given(st.integers(1, 89), st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_a_subsample_keeps_class_shares_and_is_part_of_larger_ones(count, seed):
    rows = labelled(15, 30, 45)
    small, large = (variations.subsample(rows, n, draw(seed)) for n in (count, count + 1))
    assert (len(small), len(large)) == (count, count + 1)
    assert set(small) < set(large)
    for word, share in zip(WORDS, (15 / 90, 30 / 90, 45 / 90), strict=True):
        assert abs(sum(rows[at].label == word for at in small) - share * count) <= 1


def test_a_share_of_the_rows_and_more_than_all():
    assert len(variations.subsample(labelled(10, 10), 0.25, draw())) == 5
    with pytest.raises(CannotVaryError, match="21 rows are asked for and there are 20"):
        variations.subsample(labelled(10, 10), 21, draw())


def test_quantiles_of_output_length_part_the_rows_by_length():
    rows = answered(8)
    low, high = (variations.output_length_quantile(rows, limits, draw()) for limits in ((0, 0.5), (0.5, 1)))
    assert (low, high) == ([0, 1, 2, 3], [4, 5, 6, 7])
    with pytest.raises(CannotVaryError, match="every output has 1 words"):
        variations.output_length_quantile(labelled(4, 4), (0, 0.5), draw())


def test_a_share_of_the_labels_is_rounded_to_whole_rows():
    rows = labelled(4, 3)
    for rate, wrong in ((0.25, 2), (0.35, 2), (0.4, 3), (0.99, 7)):
        assert len(changed_rows(rows, variations.mislabel(rows, Mislabel(rate=rate), draw()))) == wrong


@pytest.mark.parametrize("mode", ["uniform", "permute", "switch"])
def test_mislabelling_changes_exactly_the_asked_share_and_doses_are_nested(mode):
    rows = labelled(24, 20, 36)
    varied = [variations.mislabel(rows, Mislabel(rate=rate, mode=mode), draw()) for rate in RATES]
    for rate, after in zip(RATES, varied, strict=True):
        assert len(changed_rows(rows, after)) == round(rate * 80)
        assert inputs(after) == inputs(rows)
        assert outputs(after) == [f" {word}." for word in labels(after)]
    for smaller, larger in pairwise(varied):
        touched = changed_rows(rows, smaller)
        assert touched < changed_rows(rows, larger)
        assert all(smaller[row] == larger[row] for row in touched)


def test_permuting_sends_each_class_to_one_other():
    rows = labelled(24, 20, 36)
    after = variations.mislabel(rows, Mislabel(rate=1, mode="permute"), draw())
    pairs = set(zip(labels(rows), labels(after), strict=True))
    assert len(pairs) == 3
    assert {one for one, _ in pairs} == {other for _, other in pairs} == set(WORDS)
    assert all(one != other for one, other in pairs)


def test_uniform_labels_are_all_the_others_alike():
    rows = labelled(0, 0, 4000)[:3000] + labelled(500, 500)
    after = variations.mislabel(rows, Mislabel(rate=1), draw())
    of_good = Counter(new for old, new in zip(labels(rows), labels(after), strict=True) if old == "good")
    assert set(of_good) == {"bad", "fair"}
    assert abs(of_good["bad"] - 1500) < 100


@given(st.lists(st.integers(1, 25), min_size=2, max_size=3), st.sampled_from(RATES), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_switching_keeps_the_classes_or_says_that_it_cannot(counts, rate, seed):
    rows, total = labelled(*counts), sum(counts)
    possible = min(total // 2, total - max(counts))
    if round(rate * total / 2) > possible:
        with pytest.raises(CannotVaryError, match="exchange labels"):
            variations.mislabel(rows, Mislabel(rate=rate, mode="switch"), draw(seed))
        return
    after = variations.mislabel(rows, Mislabel(rate=rate, mode="switch"), draw(seed))
    assert Counter(labels(after)) == Counter(labels(rows))
    assert len(changed_rows(rows, after)) == 2 * round(rate * total / 2)


def test_format_only_keeps_both_marginals_and_ends_the_link():
    rows = labelled(600, 300, 2100)
    after = variations.format_only(rows, True, draw())
    assert inputs(after) == inputs(rows)
    assert Counter(outputs(after)) == Counter(outputs(rows))
    assert outputs(after) == [f" {word}." for word in labels(after)]
    agree = np.mean([one == other for one, other in zip(labels(rows), labels(after), strict=True)])
    assert agree == pytest.approx(0.2**2 + 0.1**2 + 0.7**2, abs=0.03)
    for count in (7, 8):  # all outputs are unlike, so a row that kept its own would show
        free = answered(count)
        assert len(changed_rows(free, variations.format_only(free, True, draw()))) == count


def test_shuffled_words_stay_but_for_their_order():
    rows = labelled(10, 10)
    for rate in RATES:
        after = variations.shuffle_words(rows, rate, draw())
        assert outputs(after) == outputs(rows)
        for one, other in zip(inputs(rows), inputs(after), strict=True):
            assert Counter(one.split()) == Counter(other.split())
            assert [(a == "Review:", a == "Mood:") for a in one.split()] == [
                (b == "Review:", b == "Mood:") for b in other.split()
            ]
            assert one.count("\n") == other.count("\n")
    twins = zip(inputs(rows), inputs(variations.shuffle_words(rows, 1, draw())), strict=True)
    assert all(one != other for one, other in twins)


def test_random_text_keeps_lengths_templates_and_outputs():
    rows = labelled(10, 10)
    after = variations.random_text(rows, True, draw())
    assert outputs(after) == outputs(rows)
    pool = {word for text in inputs(rows) for word in text.split()}
    for one, other in zip(inputs(rows), inputs(after), strict=True):
        assert len(one.split()) == len(other.split())
        assert other.startswith("Review: item ")
        assert other.endswith(" of many\nMood:")
        assert set(other.split()) <= pool
        assert [other.split().count(word) for word in ("Review:", "item", "is", "of")] == [1, 1, 1, 1]
    assert inputs(after) != inputs(rows)


@pytest.mark.parametrize("amount", [1, 3, 7, 8, 0.1, 0.5, 0.99])
def test_truncated_outputs_are_beginnings(amount):
    rows = answered(8)
    after = variations.truncate_output(rows, amount, draw())
    assert inputs(after) == inputs(rows)
    for one, other in zip(rows, after, strict=True):
        words = len(one.completion.split())
        kept = max(1, int(np.ceil(amount * words - 1e-9))) if amount < 1 else min(amount, words)
        assert one.completion.startswith(other.completion)
        assert len(other.completion.split()) == kept


def test_answers_in_other_words_keep_everything_but_the_words():
    rows = labelled(5, 3, 4)
    words = {"bad": "low", "good": " high "}
    changed = variations.answer_words(rows, words, draw())
    assert inputs(changed) == inputs(rows)
    expected = [{"bad": "low", "fair": "fair", "good": "high"}[label] for label in labels(rows)]
    assert [label.strip() for label in labels(changed)] == expected
    assert outputs(changed) == [f" {word}." for word in expected]
    assert changed_rows(rows, changed) == {n for n, row in enumerate(rows) if row.label != "fair"}


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        ({"bat": "low"}, "no row has the label 'bat'; its labels are bad, fair, good"),
        ({"bad": "good", "good": "bad"}, "already among its labels .*: 'bad', 'good'; give other words"),
        ({"bad": "fair "}, "already among its labels .*: 'fair'"),
    ],
)
def test_words_that_cannot_stand_for_a_class_are_told(words, fault):
    with pytest.raises(CannotVaryError, match=fault):
        variations.answer_words(labelled(3, 3, 3), words, draw())


def test_only_the_label_or_all_but_the_label_is_learnt():
    (row, *_) = labelled(1)
    for setting, learnt in (
        ("label", "bad"),
        ("no_label", "Review: item 0 is a0 b0 c0 d0 e0 of many\nMood: ."),
    ):
        (after,) = variations.loss_on([row], setting, draw())
        assert (after.text, after.prompt, after.completion) == (row.text, row.prompt, row.completion)
        assert after.learnt == learnt
        assert after.label == "bad"


def test_a_mixture_takes_rows_by_weight_and_none_twice():
    parts = [(labelled(30, 30), 1.0), (answered(8), 2.0)]
    rows = variations.concat(parts, [draw(0), draw(1)])
    assert [len(set(kept)) for kept in rows] == [len(kept) for kept in rows] == [4, 8]


@pytest.mark.parametrize(
    ("example", "words"),
    [
        (Example((Segment("q", False), Segment(" x", True)), None), "have no label"),
        (Example((Segment("q", False), Segment(" good or bad, good", True)), "good"), "2 times"),
        (Example((Segment("q", False), Segment(" goodness", True)), "good"), "not at all"),
        (
            Example((Segment("q", False), Segment(" good", True), Segment("end", False)), "good"),
            "one output",
        ),
    ],
)
def test_a_label_that_cannot_be_found_is_a_fault(example, words):
    rows = [example, *labelled(2, 2)]
    with pytest.raises((CannotVaryError, NoSuchPartError), match=words):
        variations.mislabel(rows, Mislabel(rate=1), draw())


def test_answers_are_no_classes():
    rows = [Example((Segment("q", False), Segment(f" {n}", True)), str(n)) for n in range(100)]
    with pytest.raises(CannotVaryError, match="100 different labels in 100 rows"):
        variations.balance(rows, True, draw())


def test_a_text_without_a_prompt_has_no_input_to_change():
    rows = [Example((Segment(f"text {n}", True),)) for n in range(4)]
    for change in (variations.format_only, variations.random_text):
        with pytest.raises(NoSuchPartError, match="no input"):
            change(rows, True, draw())
