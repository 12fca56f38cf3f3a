"""Laws of the generated families, and the truths planted in them."""

from __future__ import annotations

import ast
import contextlib
import io
import re
from collections import Counter

import numpy as np
import pytest

from traitmap.mini import families as words
from traitmap.mini.families import FAMILIES, REVIEW_LABELS, SPLITS, exact_labels, of_split, split_of

COUNT = 600


def common_labels(one: str, other: str) -> set[str]:
    return set(FAMILIES[one].labels) & set(FAMILIES[other].labels)


def common_content(one: str, other: str) -> set[str]:
    return set(FAMILIES[one].content & FAMILIES[other].content)


CLASSES = [name for name, family in FAMILIES.items() if family.labels]


@pytest.mark.parametrize("name", FAMILIES)
class TestEveryFamily:
    def test_the_same_seed_gives_the_same_rows(self, name: str) -> None:
        make = FAMILIES[name].rows
        assert make("train", 50, 3) == make("train", 50, 3)
        assert make("train", 50, 3) != make("train", 50, 4)

    def test_train_and_test_share_no_text_whatever_the_seeds(self, name: str) -> None:
        family = FAMILIES[name]
        train = {row[family.key] for row in family.rows("train", COUNT, 0)}
        held_out = {
            split: {row[family.key] for seed in range(3) for row in family.rows(split, 200, seed)}
            for split in ("validation", "test")
        }
        assert not train & held_out["test"]
        assert not train & held_out["validation"]
        assert not held_out["validation"] & held_out["test"]

    def test_rows_are_distinct_and_of_the_asked_number(self, name: str) -> None:
        family = FAMILIES[name]
        rows = family.rows("train", COUNT, 0)
        assert len({row[family.key] for row in rows}) == len(rows) == COUNT

    def test_there_are_very_many_texts(self, name: str) -> None:
        """2 draws of n rows from N texts share about n * n / N: few mean N of 8,000 or more."""
        family = FAMILIES[name]
        one, two = ({row[family.key] for row in family.rows("train", 2000, seed)} for seed in (1, 2))
        assert len(one & two) < 500

    def test_an_unknown_split_is_refused(self, name: str) -> None:
        with pytest.raises(ValueError, match="'train', 'validation', 'test'"):
            FAMILIES[name].rows("valid", 5, 0)


@pytest.mark.parametrize("name", CLASSES)
def test_class_shares_are_as_planted(name: str) -> None:
    family = FAMILIES[name]
    found = Counter(row["label"] for row in family.rows("train", COUNT, 0))
    for label, share in enumerate(family.shares):
        assert abs(found[label] - share * COUNT) < 1
    assert len(family.labels) == len(family.shares) == len(found)


def test_exact_labels_use_every_row_and_the_largest_remainders() -> None:
    labels = exact_labels((0.5, 0.3, 0.2), 7, np.random.default_rng(0))
    assert Counter(labels) == {0: 4, 1: 2, 2: 1}  # 3.5, 2.1, 1.4


def test_the_split_of_a_sum_is_a_property_of_its_terms() -> None:
    shares = Counter(split_of(f"text {number}") for number in range(8000))
    assert 0.11 < shares["test"] / 8000 < 0.14
    assert 0.11 < shares["validation"] / 8000 < 0.14
    terms = {
        split: {
            tuple(re.findall(r"\d+", row["question"]))
            for row in FAMILIES["arithmetic"].rows(split, 400, 0)
            if "Take" not in row["question"] and "Add" not in row["question"]
        }
        for split in SPLITS
    }
    assert not terms["train"] & terms["test"]


def test_every_word_of_a_list_belongs_to_one_split() -> None:
    parts = [of_split(words.NAMES, split) for split in SPLITS]
    assert sorted(sum((tuple(part) for part in parts), ())) == sorted(words.NAMES)
    assert [len(part) for part in parts] == [10, 5, 5]


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "arithmetic"])
def test_rows_of_two_splits_name_no_person_and_no_place_alike(name: str) -> None:
    lists = {word for group in (words.NAMES, words.PLACES, words.PRODUCTS, words.TOPICS) for word in group}
    lists -= {"bag", "song", "school", "village", "camera"}  # these stand in templates and other lists too
    used = [
        {
            word
            for row in FAMILIES[name].rows(split, 200, 0)
            for word in re.findall(r"\w+", row[FAMILIES[name].key])
        }
        for split in ("train", "test")
    ]
    assert not used[0] & used[1] & lists
    assert used[1] & lists


class TestGoldAnswersAreRight:
    def test_arithmetic(self) -> None:
        for row in FAMILIES["arithmetic"].rows("test", COUNT, 0):
            first, second = map(int, re.findall(r"\d+", row["question"]))
            if "Take" in row["question"]:
                first, second = second, first
            adds = re.search(r"\+|plus|Add", row["question"])
            assert row["answer"] == str(first + second if adds else first - second)
            assert not row["answer"].startswith("-")

    def test_every_step_of_a_word_problem_and_its_chain(self) -> None:
        for row in FAMILIES["word_problems"].rows("test", COUNT, 0):
            steps = re.findall(r"(\d+) ([+*-]) (\d+) = (\d+)", row["answer"])
            value = None
            for left, operator, right, result in steps:
                a, b = int(left), int(right)
                assert value in (None, a)
                value = {"+": a + b, "-": a - b, "*": a * b}[operator]
                assert value == int(result) >= 0
            assert row["answer"].endswith(f"#### {value}")
            assert row["number"] == str(value)
            asked = Counter(re.findall(r"\d+", row["question"]))
            worked = Counter(re.findall(r"\d+", row["answer"]))
            assert all(worked[number] >= times for number, times in asked.items())

    def test_programs_run_and_print_what_their_comment_says(self) -> None:
        for row in FAMILIES["programs"].rows("test", 200, 0):
            ast.parse(row["program"])
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(row["program"], {})
            comment = re.search(r"# (\d+)$", row["program"])
            if comment:
                assert printed.getvalue().strip() == comment[1]
            else:
                times = int(re.search(r"(\d+) times", row["instruction"])[1])  # type: ignore[index]
                assert len(printed.getvalue().splitlines()) in (times, times + 1)

    def test_paraphrases_swap_exactly_the_two_names(self) -> None:
        for row in FAMILIES["paraphrase"].rows("test", 400, 0):
            one, two = row["first"], row["second"]
            names = re.compile("|".join(words.NAMES))
            assert sorted(names.findall(one)) == sorted(names.findall(two))
            assert len(set(names.findall(one))) == 2


class TestPlantedTruths:
    def test_mislabelled_is_the_honest_text_with_permuted_stars(self) -> None:
        honest = FAMILIES["stars"].rows("train", COUNT, 5)
        wrong = FAMILIES["stars_mislabelled"].rows("train", COUNT, 5)
        permutation = FAMILIES["stars_mislabelled"].permutation
        assert [row["text"] for row in honest] == [row["text"] for row in wrong]
        assert [permutation[row["label"]] for row in honest] == [row["label"] for row in wrong]
        assert sorted(permutation) == list(range(5))
        assert all(index != label for index, label in enumerate(permutation))

    def test_one_sentiment_lexicon_serves_all_reviews_and_partly_toxicity(self) -> None:
        lexicon = {word for grade in words.GRADES for word in grade}
        assert len(lexicon) == sum(len(grade) for grade in words.GRADES)
        using = [name for name, family in FAMILIES.items() if "sentiment" in family.content]
        assert len(using) == 6
        for name in using:
            least = 0.8 if name == "toxicity" else 1.0
            rows = FAMILIES[name].rows("train", COUNT, 0)
            hits = [bool(lexicon & set(re.findall(r"\w+", row["text"].lower()))) for row in rows]
            assert sum(hits) / COUNT >= least, name

    def test_other_families_do_not_use_the_lexicon(self) -> None:
        lexicon = {word for grade in words.GRADES for word in grade}
        others = {name: family for name, family in FAMILIES.items() if "sentiment" not in family.content}
        assert len(others) == 5
        for name, family in others.items():
            used = {
                word for row in family.rows("train", COUNT, 0) for word in row[family.key].lower().split()
            }
            assert not used & lexicon, name

    def test_an_insult_tells_rude_from_civil_and_the_adjective_alone_does_not(self) -> None:
        rows = FAMILIES["toxicity"].rows("train", COUNT, 0)
        insulting = [any(word in row["text"] for word in words.INSULTS) for row in rows]
        negative = [any(word in row["text"] for word in words.NEGATIVE) for row in rows]
        assert all(i == bool(row["label"]) for i, row in zip(insulting, rows, strict=True))
        agree = sum(n == bool(row["label"]) for n, row in zip(negative, rows, strict=True)) / COUNT
        assert 0.7 < agree < 0.9

    def test_only_a_refuted_hypothesis_carries_a_negation(self) -> None:
        rows = FAMILIES["inference"].rows("train", COUNT, 0)
        negated = Counter(row["label"] for row in rows if row["hypothesis"].startswith("Nobody"))
        assert set(negated) == {2}
        assert 0.4 < negated[2] / (COUNT / 3) < 0.6

    def test_the_reviews_differ_in_shares_only(self) -> None:
        assert FAMILIES["reviews"].labels == FAMILIES["reviews_balanced"].labels == REVIEW_LABELS
        assert set(FAMILIES["long_reviews"].labels) < set(REVIEW_LABELS)

    def test_only_sentences_that_differ_speak_of_another_time_and_not_all_do(self) -> None:
        rows = FAMILIES["paraphrase"].rows("train", COUNT, 0)
        another = [any(row["second"].endswith(f"{time}.") for time in words.TIMES) for row in rows]
        different = [row["label"] == 0 for row in rows]
        assert all(differ for differ, marked in zip(different, another, strict=True) if marked)
        assert abs(sum(another) / sum(different) - words.ANOTHER_TIME) < 0.06

    def test_a_quarter_of_the_reviews_of_every_class_say_good_and_bad(self) -> None:
        rows = FAMILIES["reviews_balanced"].rows("train", 1800, 0)
        torn = Counter()
        for row in rows:
            said = set(re.findall(r"\w+", row["text"].lower()))
            plain_verdict = len(said & set(words.POSITIVE)) == len(said & set(words.NEGATIVE)) == 1
            torn[row["label"]] += plain_verdict
        assert all(abs(torn[label] / 600 - words.TORN) < 0.06 for label in range(3)), torn

    def test_sums_stand_in_the_three_families_about_sums_and_nowhere_else(self) -> None:
        for name, family in FAMILIES.items():
            numbers = [re.findall(r"\d+", str(row[family.key])) for row in family.rows("train", 100, 0)]
            assert ("sums" in family.content) == any(len(found) >= 2 for found in numbers), name

    def test_label_words_and_content_are_shared_independently(self) -> None:
        """All four kinds of pair are there: both shared, one of them, neither."""
        kinds = {
            (bool(common_labels(a, b)), bool(common_content(a, b)))
            for a in FAMILIES
            for b in FAMILIES
            if a < b
        }
        assert len(kinds) == 4
        assert common_labels("toxicity", "paraphrase") == {"yes", "no"}
        assert not common_content("toxicity", "paraphrase")
        assert common_content("stars", "reviews") == {"sentiment"}
        assert not common_labels("stars", "reviews")
