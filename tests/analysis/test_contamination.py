"""A planted copy is found in every disguise; templates, labels and other numbers are not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from traitmap.analysis.contamination import (
    Contamination,
    ItemOverlap,
    contamination_from_json,
    find_contamination,
)
from traitmap.data.texts import TaskText

LEXICON = [f"{first}{second}" for first in ("ba", "ke", "li", "mo", "tu", "ra", "so") for second in
           ("ren", "dil", "mak", "tos", "vin", "gal", "pur", "sed", "nok", "hib", "lam", "cor")]  # fmt: skip
TEMPLATE = "Read the review and say what it is.\nReview: {}\nIs it positive or negative? Answer:"
OTHER = "A customer wrote: {}\nVerdict:"


def sentence(seed: int, words: int) -> str:
    return " ".join(np.random.default_rng([7, seed]).choice(LEXICON, words))


def task(contents: Sequence[str], template: str = TEMPLATE, output: str = " positive") -> list[TaskText]:
    return [TaskText(template.format(content), output, ("positive", "negative")) for content in contents]


def overlap(training: Sequence[TaskText], items: Sequence[TaskText]) -> ItemOverlap | None:
    return find_contamination({"source": training}, {"target": items}).of("source", "target")


ITEMS = [sentence(i, 30) for i in range(40)]
FRESH = [sentence(1000 + i, 30) for i in range(60)]


def test_texts_that_share_nothing_but_template_and_labels_do_not_overlap() -> None:
    assert overlap(task(FRESH), task(ITEMS)) is None


def test_an_item_under_another_template_is_exact_and_stands_alone() -> None:
    found = overlap(task([*FRESH, ITEMS[7]], OTHER), task(ITEMS))
    assert found is not None
    assert (found.touched, found.exact, found.contained, found.near) == ((7,), 1, 0, 0)
    assert found.examples[0].text == len(FRESH)
    assert ITEMS[7] in found.examples[0].training_text
    assert found.share.value == 1 / 40
    # Wilson's interval of 1 in 40, from its closed form
    z, n, k = 1.959963984540054, 40, 1
    half = z * np.sqrt(k / n * (1 - k / n) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    centre = (k / n + z**2 / (2 * n)) / (1 + z**2 / n)
    assert (found.share.low, found.share.high) == pytest.approx((centre - half, centre + half))


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (str.upper, "exact"),
        (lambda text: text.replace(" ", ", "), "exact"),
        (lambda text: f"{sentence(91, 40)} {text} {sentence(92, 40)}", "contained"),
        (
            lambda text: f"{sentence(91, 5)} {text.replace(text.split()[12], 'other')} {sentence(92, 5)}",
            "near",
        ),
        (lambda text: " ".join(text.split()[3:]), "near"),
    ],
)
def test_copies_are_found_in_every_disguise(change, kind: str) -> None:
    found = overlap(task([*FRESH, change(ITEMS[3])], OTHER), task(ITEMS))
    assert found is not None
    assert found.touched == (3,)
    assert found.examples[0].kind == kind


def test_half_of_an_item_is_not_the_item() -> None:
    assert overlap(task([*FRESH, " ".join(ITEMS[3].split()[:16])]), task(ITEMS)) is None


def test_a_short_item_counts_only_whole() -> None:
    short = ["nice soup", "very bad bread", *ITEMS]
    found = overlap(task([*FRESH, "nice soup"], OTHER), task(short))
    assert found is not None
    assert (found.touched, found.exact, found.short) == ((0,), 1, 1)
    assert overlap(task([*FRESH, f"nice soup {sentence(9001, 9)}"], OTHER), task(short)) is None
    medium = sentence(77, 9)
    assert overlap(task([*FRESH, f"{medium} {sentence(9002, 30)}"], OTHER), task([medium, *ITEMS])) is None


def test_a_label_alone_is_no_overlap() -> None:
    labels = [TaskText(f"Give a word. {word}", "positive") for word in LEXICON[:30]]
    plain = [TaskText("", "positive"), TaskText("", "negative"), TaskText("", " positive or negative?")]
    assert overlap(plain, labels) is None
    assert overlap(plain, task(ITEMS)) is None


def test_a_text_that_is_learnt_whole_is_searched_too() -> None:
    texts = [TaskText("", f"Review: {one}\nVerdict: good") for one in [*FRESH, ITEMS[5], "nice soup"]]
    found = overlap(texts, task([*ITEMS, "nice soup"]))
    assert found is not None
    assert found.touched == (5, 40)


def test_the_same_story_with_other_numbers_is_another_item() -> None:
    story = (
        "Anna has {} apples and buys {} more at the market before she gives {} to her friend "
        "who lives next door. How many apples does she have now?"
    )
    items = [TaskText(sentence(i, 25), "") for i in range(20)] + [TaskText(story.format(12, 7, 5), "14")]
    assert overlap([TaskText(story.format(31, 9, 4), "36")], items) is None
    found = overlap([TaskText(story.format("x", 7, 5) + " If it is 14, what is x?", "12")], items)
    assert found is not None
    assert (found.touched, found.near) == ((20,), 1)


def test_the_same_passage_with_another_question_is_another_item() -> None:
    pair = "Passage: {}\nQuestion: {}\nAnswer:"
    items = [TaskText(pair.format(sentence(i, 40), sentence(500 + i, 9)), "yes") for i in range(30)]
    other = [TaskText(pair.format(sentence(4, 40), sentence(900, 9)), "no")]
    assert overlap(other, items) is None
    same = [TaskText(f"{sentence(4, 40)}\n{sentence(504, 9)} True or false?", "no")]
    found = overlap(same, items)
    assert found is not None
    assert found.touched == (4,)


def test_operators_make_another_sum() -> None:
    items = [TaskText(f"Calculate {300 + i} + {17 * i}", str(300 + 18 * i)) for i in range(20)]
    other = [TaskText(f"Calculate {one}", "") for one in ("303 - 51", "9 * 9", "7 / 7")]
    assert overlap(other, items) is None
    found = overlap([TaskText(f"Calculate {one}", "") for one in ("303+51", "9 * 9", "7 / 7")], items)
    assert found is not None
    assert found.touched == (3,)


def test_an_item_without_words_of_its_own_is_not_counted() -> None:
    items = [*task(ITEMS), TaskText(TEMPLATE.format(""), " positive")]
    found = find_contamination({"source": task(ITEMS[:2])}, {"target": items})
    assert found.items == {"target": 40}
    assert found.of("source", "target") is not None


def test_order_changes_nothing_but_order_and_unknown_is_not_zero() -> None:
    sources = {"a": task(FRESH), "b": task([*FRESH, *ITEMS[:4]], OTHER), "none": []}
    targets = {"x": task(ITEMS), "y": task([sentence(5000 + i, 20) for i in range(30)])}
    one = find_contamination(sources, targets)
    two = find_contamination(dict(reversed(sources.items())), dict(reversed(targets.items())))
    assert one.overlaps == two.overlaps
    shares = one.shares(["a", "b", "none", "absent"], ["x", "y"])
    assert np.array_equal(shares, [[0, 0], [0.1, 0], [np.nan, np.nan], [np.nan, np.nan]], equal_nan=True)


def test_few_touched_items_are_told_and_are_not_material() -> None:
    many = [sentence(3000 + i, 20) for i in range(150)]
    found = overlap(task([*FRESH, many[0]]), task(many))
    assert found is not None
    assert not found.material
    found = overlap(task([*FRESH, *many[:2]]), task(many))
    assert found is not None
    assert found.material


def test_the_record_survives_json() -> None:
    found = find_contamination({"a": task(ITEMS[:3])}, {"x": task(ITEMS)})
    again = contamination_from_json(json.loads(json.dumps(found.to_json(), allow_nan=False)))
    assert isinstance(again, Contamination)
    assert again == found


@pytest.mark.shared
def test_questions_of_gsm8k_are_found_in_the_backward_questions_made_of_them(shared: Path) -> None:
    def rows(name: str, split: str) -> list[dict[str, str]]:
        return [json.loads(line) for line in (shared / "data" / name / f"{split}.jsonl").open()]

    backward, asked = rows("metamath_backward", "train"), rows("gsm8k", "test")
    origins = {row["original_question"].strip() for row in backward}
    truth = {i for i, row in enumerate(asked) if row["question"].strip() in origins}
    found = overlap(
        [TaskText(f"Question: {row['question']}\nAnswer:", row["answer"]) for row in backward],
        [TaskText(f"Q: {row['question']}\nA:", row["answer"]) for row in asked],
    )
    assert found is not None
    assert set(found.touched) <= truth
    assert len(found.touched) >= 0.85 * len(truth)


def test_merges_and_checkpoints_hold_what_the_texts_behind_them_hold() -> None:
    longer = f"{sentence(91, 40)} {ITEMS[3]} {sentence(92, 40)}"
    nearly = " ".join(ITEMS[5].split()[3:])
    found = find_contamination(
        {
            "a": task([*FRESH, ITEMS[3]], OTHER),
            "b": task([*FRESH[:9], longer, nearly], OTHER),
            "c": task(FRESH[:7]),
        },
        {"t": task(ITEMS), "free": task(FRESH[50:55])},
        parents={
            "a@30": ["a"],
            "ab": ["b", "a"],
            "deep": ["ab", "a@30", "c"],
            "half": ["old", "b"],
            "none": ["old"],
        },
    )
    assert found.sources == ("a", "b", "c", "a@30", "ab", "deep")  # of an adapter nothing is known
    for name in ("ab", "deep"):  # of two copies the closest counts, and each item once
        merged = found.of(name, "t")
        assert merged is not None
        assert (merged.touched, merged.exact, merged.contained, merged.near) == ((3, 5), 1, 0, 1)
        assert ITEMS[3] in merged.examples[0].training_text
        assert len(merged.examples[0].training_text) < len(longer)
        assert nearly in merged.examples[1].training_text
    early = found.of("a@30", "t")
    assert early is not None
    assert (early.touched, early.share) == ((3,), found.of("a", "t").share)  # type: ignore[union-attr]
    half = found.of("half", "t")
    assert half is not None
    assert (half.touched, half.contained, half.near) == ((3, 5), 1, 1)
    assert found.of("none", "t") is None
    shares = found.shares(["ab", "c", "half", "none", "old"], ["t"])[:, 0]
    assert shares.tolist()[:3] == [2 / 40, 0, 2 / 40]
    assert np.isnan(shares[3:]).all()
    assert contamination_from_json(json.loads(json.dumps(found.to_json()))) == found
