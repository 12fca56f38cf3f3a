"""Profiles of datasets: what does not change them, what is unknown, and their JSON."""

import json

import numpy as np
import pytest

from traitmap.analysis.profiles.datasets import Sampling, alike_order, likest_pair, profile_datasets
from traitmap.data.texts import TaskText, read_texts
from traitmap.errors import DataError

WORDS = ["river", "stone", "lamp", "garden", "winter", "letter", "market", "violin", "copper", "feather"]


def reviews(count: int, seed: int) -> list[TaskText]:
    rng = np.random.default_rng(seed)
    return [
        TaskText(" ".join(rng.choice(WORDS, 8)) + f" {i}.", word, ("bad", "good"), word)
        for i, word in enumerate(rng.choice(["bad", "good"], count))
    ]


def problems(count: int) -> list[TaskText]:
    return [TaskText(f"What is {i} plus {i}?", f"{i} + {i} = {2 * i}\n#### {2 * i}") for i in range(count)]


@pytest.fixture(scope="module")
def texts() -> dict[str, list[TaskText]]:
    return {"reviews": reviews(60, 1), "problems": problems(50), "more reviews": reviews(60, 2)}


def test_orders_of_rows_and_of_datasets_change_nothing(texts):
    turned = {name: texts[name][::-1] for name in reversed(list(texts))}
    first, second = profile_datasets(texts).to_json(), profile_datasets(turned).to_json()
    assert list(first["datasets"]) == list(reversed(second["datasets"]))
    assert first == second


def test_like_datasets_are_near_in_every_view(texts):
    found = profile_datasets(texts)
    for near in (found.style_cosine, found.semantic_cosine, found.vocabulary_jaccard, found.shared_labels):
        assert near[0, 2] > near[0, 1]
    assert found.mmd_squared[0, 2] < found.mmd_squared[0, 1]
    assert np.allclose(np.diag(found.style_cosine), 1)
    assert found.prior_distance[0, 0] == 0
    assert np.isnan(found.prior_distance[0, 1])


def test_samples_are_told_and_all_classes_counted(texts):
    small = Sampling(lengths=20, forms=10, style=30, meaning=5)
    found = profile_datasets(texts, sampling=small).profiles["reviews"]
    assert dict(found.read) == {"lengths": 20, "forms": 10, "style": 30, "meaning": 5, "classes": 60}
    assert (found.lengths.input.n, found.forms.texts, found.classes.labelled) == (20, 10, 60)
    assert found.words.total() == 30 * 10  # eight words, a number and the label
    assert any("sampled" in note for note in profile_datasets(texts, sampling=small).notes)
    assert not any("sampled" in note for note in profile_datasets(texts).notes)
    with pytest.raises(DataError, match="meaning=1 is too few"):
        Sampling(meaning=1)


def test_lengths_by_label_are_those_of_the_label():
    words = {"short": "one", "long": "one two three four"}
    made = {
        "task": [TaskText(words[label] + f" {i}", label, label=label) for i in range(20) for label in words]
    }
    by_label = profile_datasets(made).profiles["task"].lengths.input_by_label
    assert {label: (found.mean, found.sd) for label, found in by_label.items()} == {
        "short": (2, 0),
        "long": (5, 0),
    }


def test_two_datasets_have_no_style_to_compare(texts):
    found = profile_datasets({name: texts[name] for name in ("reviews", "problems")})
    assert np.isnan(found.style_cosine).all()
    assert any("three datasets" in note for note in found.notes)


def test_difficulty_says_what_was_given(texts):
    found = profile_datasets(texts, perplexity={"reviews": 12.5}, sizes={"reviews": 1000})
    known, unknown = found.profiles["reviews"], found.profiles["problems"]
    assert (known.perplexity, known.size) == (12.5, 1000)
    assert known.tokens == pytest.approx(1000 * 10)
    assert np.isnan([unknown.perplexity, unknown.size, unknown.tokens]).all()
    assert "not given" in unknown.to_json()["difficulty"]["reason"]
    assert known.to_json()["difficulty"]["reason"] == ""


def test_json_holds_no_number_that_is_none(texts):
    with_one = {**texts, "one": [TaskText("", "only")]}
    found = profile_datasets(with_one, style_embed=lambda some: np.eye(len(some)))
    told = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert told["datasets"]["problems"]["classes"]["entropy"] is None
    assert told["datasets"]["problems"]["classes"]["reason"].startswith("free text")
    assert len(told["datasets"]["reviews"]["lengths"]["output"]["percentiles"]) == 101
    assert told["semantics"]["cosine"]["reviews"]["reviews"] == pytest.approx(1)
    assert told["style"]["encoder"] == "the embedding given"
    assert told["conditions"]["sampling"]["meaning"] == 200


def test_no_datasets_are_told():
    with pytest.raises(DataError, match="no datasets"):
        profile_datasets({})


@pytest.mark.shared
def test_real_tasks_are_read_for_what_they_are(shared):
    texts = read_texts(shared / "matrices" / "taskweb_samples.jsonl.gz")
    chosen = {name: texts[name] for name in ("snli", "boolq", "rotten_tomatoes", "copa", "stsb", "imdb")}
    found = profile_datasets(chosen)
    classes = {name: profile.classes for name, profile in found.profiles.items()}
    assert (classes["snli"].how, classes["snli"].number) == ("choices", 3)
    assert (classes["boolq"].number, classes["rotten_tomatoes"].number) == (2, 2)
    assert classes["copa"].how == classes["stsb"].how == "none"
    forms = {name: profile.forms for name, profile in found.profiles.items()}
    assert forms["boolq"].answers["polar"] == 1
    assert forms["stsb"].answers["number"] > 0.9
    assert forms["copa"].answers["listed"] > 0.8
    names = list(chosen)
    nearest = np.argsort(-found.semantic_cosine[names.index("rotten_tomatoes")])[1]
    assert names[nearest] == "imdb"


def test_alike_datasets_stand_together_whatever_their_order():
    groups = np.array([0, 1, 0, 2, 1, 0, 2])
    alike = np.where(groups[:, None] == groups[None, :], 0.9, 0.1) + 0.01 * np.eye(7)
    for seed in range(5):
        moved = np.random.default_rng(seed).permutation(7)
        order = alike_order(alike[np.ix_(moved, moved)])
        placed = groups[moved][order]
        assert sorted(order) == list(range(7))
        assert (np.diff(placed) != 0).sum() == 2
        assert placed[0] == 0  # the largest group is most like all others
    assert alike_order(np.empty((0, 0))) == []


def test_the_likest_pair_is_of_two_tasks():
    alike = np.array([[1, 0.9, 0.2, 0.8], [0.9, 1, 0.5, np.nan], [0.2, 0.5, 1, 0.7], [0.8, np.nan, 0.7, 1]])
    assert likest_pair(alike, ["a", "b", "c", "d"]) == (0, 1)
    assert likest_pair(alike, ["a", "a", "c", "d"]) == (0, 3)
    assert likest_pair(alike, ["a", "a", "c", None]) == (1, 2)
    assert likest_pair(alike, ["a", "a", None, None]) is None
    assert likest_pair(np.full((2, 2), np.nan), ["a", "b"]) is None
