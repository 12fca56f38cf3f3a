"""Classes: known entropies, and what is a class and what is not."""

import numpy as np
import pytest

from traitmap.analysis.profiles.classes import (
    class_table,
    entropy_bits,
    item_classes,
    prior_distance,
    shared_label_words,
)
from traitmap.data.texts import TaskText


def classes_of(texts):
    return class_table(texts, *item_classes(texts))


def labelled(**counts: int) -> list[TaskText]:
    return [TaskText("x", word, label=word) for word, count in counts.items() for _ in range(count)]


def chosen(outputs: str, choices: tuple[str, ...]) -> list[TaskText]:
    return [TaskText(f"item {number}", output, choices) for number, output in enumerate(outputs.split())]


@pytest.mark.parametrize(
    ("counts", "bits"), [([1, 1, 1, 1], 2), ([8], 0), ([3, 1], 0.811278), ([5, 5, 0], 1)]
)
def test_entropy_in_bits(counts, bits):
    assert entropy_bits(counts) == pytest.approx(bits, abs=1e-6)


def test_labels_are_classes_and_doubling_changes_no_share():
    once, twice = classes_of(labelled(up=6, down=2)), classes_of(labelled(up=6, down=2) * 2)
    assert once.how == "labels"
    assert (once.number, once.majority, once.entropy) == (2, 0.75, pytest.approx(0.811278, abs=1e-6))
    assert dict(once.shares) == dict(twice.shares) == {"up": 0.75, "down": 0.25}
    assert (once.entropy, once.majority, once.number) == (twice.entropy, twice.majority, twice.number)
    assert twice.labelled == 16


def test_prompts_with_other_words_for_the_classes_do_not_add_classes():
    texts = chosen("yes no no yes", ("yes", "no")) + chosen("true true false true", ("true", "false"))
    found = classes_of(texts)
    assert found.how == "choices"
    assert (found.number, found.sets) == (2, 2)
    assert found.entropy == pytest.approx((1 + 0.811278) / 2, abs=1e-6)


def test_a_class_that_is_offered_but_never_right_counts_as_a_class():
    found = classes_of(chosen("yes no yes", ("yes", "no", "maybe")))
    assert found.number == 3
    only = classes_of(chosen("yes yes yes yes yes", ("yes", "no")))
    assert (only.number, only.entropy, only.majority) == (2, 0, 1)


def test_answers_of_an_item_are_no_classes_even_if_several_prompts_repeat_them():
    texts = [
        TaskText(f"{prompt} {item}", f"right {item}", (f"right {item}", f"wrong {item}"))
        for prompt in ("Choose:", "Which?", "Say")
        for item in range(10)
    ]
    found = classes_of(texts)
    assert found.how == "none"
    assert "choices of its own" in found.reason
    assert np.isnan([found.number, found.entropy, found.majority]).all()


def test_an_output_may_say_more_than_its_class_but_not_two_classes():
    texts = chosen("bad good good", ("bad", "good"))
    texts += [TaskText("x", "A bad review.", ("bad", "good")), TaskText("x", "Good or bad", ("bad", "good"))]
    found = classes_of(texts)
    assert (dict(found.counts), found.labelled, found.number) == ({"bad": 2, "good": 2}, 4, 2)


def test_classes_of_a_few_texts_do_not_describe_a_dataset():
    free = [TaskText("x", f"story {i}") for i in range(10)]
    assert classes_of(chosen("yes no yes", ("yes", "no")) + free).reason == (
        "only 3 of 13 texts choose between classes, less than half"
    )
    assert classes_of(chosen("yes no " * 5, ("yes", "no")) + free).labelled == 10


def test_few_outputs_that_come_back_are_classes_and_free_text_is_not():
    few = classes_of([TaskText(str(i), ("a", "b", "c")[i % 3]) for i in range(30)])
    assert (few.how, few.number, few.entropy) == ("outputs", 3, pytest.approx(np.log2(3)))
    free = classes_of([TaskText("x", f"story {i}") for i in range(30)])
    assert (free.how, free.reason) == ("none", "free text: 30 different outputs in 30 texts")
    scale = classes_of([TaskText("x", ("0.0", "2.5", "5")[i % 3]) for i in range(30)])
    assert (scale.how, scale.reason) == ("none", "the outputs are numbers on a scale")
    assert classes_of([TaskText("x", "")]).reason == "no text has an output, a label or choices"
    assert item_classes([TaskText("x", "")])[0] == [None]


def test_priors_are_compared_by_the_words_of_both():
    first, second = classes_of(labelled(up=3, down=1)), classes_of(labelled(Up=1, Down=1, Side=2))
    assert shared_label_words(first, second) == ("down", "up")
    assert prior_distance(first, second) == pytest.approx(0.5)
    assert prior_distance(first, first) == 0
    assert np.isnan(prior_distance(first, classes_of(labelled(other=2, words=2))))
