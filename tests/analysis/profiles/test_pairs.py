"""Features of pairs: laws that hold for any texts, and tasks that hidden statistics must tell apart."""

from pathlib import Path

import numpy as np
import pytest

from traitmap.analysis.profiles.pairs import pair_features
from traitmap.data.texts import TaskText
from traitmap.errors import DataError

SUBJECTS = ("the old house", "a red car", "my brother", "this film", "the teacher", "our garden", "that dog")
VERBS = ("was painted", "looked tired", "seemed quiet", "made sense", "went north", "fell apart", "came back")


def sentence(number: int) -> str:
    return f"{SUBJECTS[number % 7]} {VERBS[number // 7 % 7]} after day {number}".capitalize()


def inference(count: int = 40) -> tuple[TaskText, ...]:
    """Premise, hypothesis, one of three words."""
    words = ("yes", "no", "maybe")
    return tuple(
        TaskText(
            f"{sentence(i)} and nobody complained.\nQuestion: {sentence(i)}. Yes, no or maybe?",
            words[i % 3],
            words,
        )
        for i in range(count)
    )


def reviews(count: int = 40) -> tuple[TaskText, ...]:
    """One text, one of two words."""
    words = ("negative", "positive")
    return tuple(TaskText(f"{sentence(i)}. I would buy it again.", words[i % 2], words) for i in range(count))


def options(count: int = 40) -> tuple[TaskText, ...]:
    """A question with its own answers."""
    return tuple(
        TaskText(
            f"What happened then?\n- {sentence(i)}\n- {sentence(i + 1)}",
            sentence(i),
            (sentence(i), sentence(i + 1)),
        )
        for i in range(count)
    )


def stories(count: int = 40) -> tuple[TaskText, ...]:
    """Free text."""
    return tuple(
        TaskText("Tell me a story.", f"{sentence(i)}. {sentence(3 * i + 1)}. {sentence(5 * i + 2)}.")
        for i in range(count)
    )


@pytest.fixture(scope="module")
def tasks() -> dict[str, tuple[TaskText, ...]]:
    return {"inference": inference(), "reviews": reviews(), "options": options(), "stories": stories()}


@pytest.fixture(scope="module")
def found(tasks):
    return pair_features(tasks, tasks)


def named(features, name):
    return next(feature for feature in features.features if feature.name == name).values


def test_a_dataset_is_at_no_distance_from_itself(found):
    for feature in found.features:
        if feature.name.endswith(("_difference", "_distance", "_ratio")) or feature.name == "mmd":
            diagonal = np.diag(feature.values)
            assert np.allclose(diagonal[np.isfinite(diagonal)], 0, atol=1e-12), feature.name
        if feature.name.endswith("_cosine") or feature.name in ("vocabulary_coverage", "semantic_nearest"):
            assert np.allclose(np.diag(feature.values), 1), feature.name


def test_every_feature_is_in_the_docs(found):
    told = (Path(__file__).parents[3] / "docs" / "dataset-profiles.md").read_text("utf-8")
    for name in found.names:
        assert f"`{name}`" in told or f"`{name.removeprefix('source_').removeprefix('target_')}`" in told, (
            name
        )


def test_the_order_of_rows_and_of_tasks_changes_nothing(tasks, found):
    rng = np.random.default_rng(1)
    turned = {
        name: [tasks[name][i] for i in rng.permutation(len(tasks[name]))] for name in reversed(list(tasks))
    }
    again = pair_features(turned, turned)
    assert again.sources == found.sources[::-1]
    assert np.array_equal(again.array[::-1, ::-1], found.array, equal_nan=True)


def test_scopes_say_along_which_axis_a_feature_is_constant(found):
    for feature in found.features:
        if feature.scope == "source":
            assert np.array_equal(feature.values, feature.values[:, :1] + 0 * feature.values, equal_nan=True)
        if feature.scope == "target":
            assert np.array_equal(feature.values, feature.values[:1, :] + 0 * feature.values, equal_nan=True)
    assert len(set(found.names)) == len(found.names)


def test_the_form_of_answers_tells_tasks_apart(tasks, found):
    more = {**tasks, "other reviews": tuple(reviews(80)[40:])}
    distance = named(pair_features(more, more), "answer_form_distance")
    at = list(more).index
    assert distance[at("reviews"), at("other reviews")] == 0
    for other in ("inference", "options", "stories"):
        assert distance[at("reviews"), at(other)] > 0.5
    pairing = named(found, "source_pairing")[:, 0]
    assert pairing[0] > 0.5 > pairing[1]


def test_the_same_name_may_stand_for_other_texts_on_each_side(tasks):
    found = pair_features({"task": inference()}, {"task": stories()})
    assert named(found, "output_length_distance")[0, 0] > 1
    assert np.isnan(named(found, "style_cosine")[0, 0])


def test_sizes_are_unknown_unless_told(tasks):
    told = pair_features(tasks, {"reviews": reviews()}, sizes={"reviews": 5_000})
    size = named(told, "source_size")[:, 0]
    assert size[1] == pytest.approx(np.log(5_001))
    assert np.isnan(size[[0, 2, 3]]).all()
    assert named(pair_features(tasks, tasks), "source_size")[0, 0] == pytest.approx(np.log(41))


def test_a_task_without_texts_is_told(tasks):
    with pytest.raises(DataError, match="'empty' has no texts"):
        pair_features({"empty": []}, tasks)
    with pytest.raises(DataError, match="one source and one target"):
        pair_features({}, tasks)


@pytest.mark.parametrize(
    "odd",
    [
        [TaskText("", "")],
        [TaskText("", "only an output")],
        [TaskText("only an input", "")],
        [TaskText("日本語の文です。", "はい", ("はい", "いいえ"))] * 7,
        [TaskText("🙂🙂 \ud800 ٣٫٥ ñandú\u200b", "…")],
        [TaskText("   \n\t ", " ")] * 3,
        [TaskText("   ", " "), *stories(5)],
    ],
)
def test_odd_texts_give_unknown_numbers_and_no_failure(tasks, odd):
    found = pair_features({**tasks, "odd": odd}, tasks)
    assert found.array.shape == (5, 4, len(found.names))
    assert not np.isinf(found.array).any()
    nearest = named(pair_features({"odd": odd, **tasks}, {"odd": odd}), "semantic_nearest")[0, 0]
    assert np.isnan(nearest) or nearest == pytest.approx(1)
