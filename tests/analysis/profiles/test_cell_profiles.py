"""All cells of a run: planted reasons are found and no others, pooled and by seed, as JSON."""

import json

import numpy as np
import pytest
from answered import BASE, chosen, words, written

from traitmap.analysis.profiles.cells import cell_profiles
from traitmap.data.texts import TaskText
from traitmap.errors import MatrixError

EVEN = {"bad": 0.5, "good": 0.5}


def drawn(mean, seed, count=150):
    return np.round(np.random.default_rng(seed).normal(mean, 8, count)).clip(1)


@pytest.fixture(scope="module")
def run():
    """Four sources on a class target and a writing target; what each does is in its name."""
    gold = words(EVEN, 200, 0)
    half = [False] * 60 + [True] * 90
    outcomes = {
        (*BASE, "reviews"): chosen(gold, words(EVEN, 200, 1)),
        (*BASE, "stories"): written(drawn(40, 1), parsed=half, stopped=half),
    }
    for at, (name, shares, length, tidy) in enumerate(
        [
            ("collapses", {"bad": 0.01, "good": 0.99}, 40, half),
            ("stretches", EVEN, 80, half),
            ("formats", EVEN, 40, True),
            ("idles", EVEN, 40, half),
        ]
    ):
        outcomes[name, 0, "reviews"] = chosen(gold, words(shares, 200, 10 + at))
        outcomes[name, 0, "stories"] = written(drawn(length, 20 + at), parsed=tidy, stopped=tidy)
    texts = {
        name: [
            TaskText("", "y" * int(length), label=word) for length, word in zip(lengths, labels, strict=True)
        ]
        for name, lengths, labels in (
            ("collapses", drawn(120, 30), ["good"] * 140 + ["bad"] * 10),
            ("stretches", drawn(120, 31), ["good", "bad"] * 75),
            ("formats", drawn(120, 32), ["good", "bad"] * 75),
            ("idles", drawn(120, 33), ["good", "bad"] * 75),
        )
    }
    return outcomes, texts


@pytest.fixture(scope="module")
def profiles(run):
    outcomes, texts = run
    return cell_profiles(outcomes, source_texts=texts, draws=300)


def test_every_planted_reason_is_found_and_no_other(profiles):
    found = {
        (*cell, reason.kind) for cell, own in profiles.reasons.items() for reason in own if reason.significant
    }
    assert found == {
        ("collapses", "reviews", "collapse"),
        ("collapses", "reviews", "class_prior"),
        ("stretches", "stories", "length"),
        ("formats", "stories", "format"),
        ("formats", "stories", "stopping"),
    }


def test_reasons_say_their_numbers(profiles):
    (length,) = (one for one in profiles.reasons["stretches", "stories"] if one.kind == "length")
    assert "50 % of the way" in length.words or "49 %" in length.words or "51 %" in length.words
    assert length.strength > 0.8
    (collapse,) = (one for one in profiles.reasons["collapses", "reviews"] if one.kind == "collapse")
    assert "answers 'good' to 99 %" in collapse.words or "to 100 %" in collapse.words
    (form,) = (one for one in profiles.reasons["formats", "stories"] if one.kind == "format")
    assert form.words == "unparsed 40 % -> 0 %"
    assert form.strength == pytest.approx(0.4)


def test_a_commonest_answer_is_no_collapse(profiles):
    for source in ("stretches", "formats", "idles"):
        assert not any(one.kind == "collapse" for one in profiles.reasons.get((source, "reviews"), ()))


def test_significance_is_corrected_over_the_whole_matrix():
    outcomes = {(*BASE, "stories"): written(drawn(40, 7))}
    texts = {}
    for at in range(40):
        outcomes[f"s{at}", 0, "stories"] = written(drawn(40, 100 + at))
        texts[f"s{at}"] = [TaskText("", "y" * 120), TaskText("", "y" * 122)]
    found = cell_profiles(outcomes, source_texts=texts, draws=50)
    assert sum(one.best.change.p < 0.05 for one in found.lengths if one.seed is None) > 0
    assert not any(one.significant for own in found.reasons.values() for one in own)


def test_strongest_significant_reason_comes_first(profiles):
    for own in profiles.reasons.values():
        order = [(not one.significant, -abs(one.strength)) for one in own]
        assert order == sorted(order)


def test_one_seed_is_its_own_pool(profiles):
    alone, pooled = profiles.classes_of("idles", "reviews", 0), profiles.classes_of("idles", "reviews")
    assert str(alone.adapter) == str(pooled.adapter)
    assert profiles.lengths_of("idles", "stories", 0).seed == 0
    assert profiles.classes_of("idles", "stories") is None
    assert profiles.lengths_of("idles", "nowhere") is None


def test_the_same_input_gives_the_same_profiles_whatever_the_order(run, profiles):
    outcomes, texts = run
    turned = cell_profiles(dict(reversed(outcomes.items())), source_texts=texts, draws=300)
    for one in profiles.classes:
        other = turned.classes_of(one.source, one.target, one.seed)
        assert other.to_prior == one.to_prior
        assert other.toward_prior == one.toward_prior
        assert other.gains == one.gains
    assert turned.reasons == profiles.reasons


def test_json_is_whole_and_plain(profiles):
    told = json.loads(json.dumps(profiles.to_json(), allow_nan=False))
    assert len(told["classes"]) == len(profiles.classes) == 8
    assert {"counts", "rates", "accuracy", "recall"} <= set(told["classes"][0]["adapter"])
    assert len(told["lengths"][-1]["characters"]["adapter"]["percentiles"]) == 101
    assert {"source", "target", "kind", "words", "strength", "significant"} == set(told["reasons"][0])


def test_labels_of_texts_and_given_counts_agree(run, profiles):
    outcomes, _ = run
    counts = {"collapses": {"good": 140, "bad": 10}}
    given = cell_profiles(outcomes, label_counts=counts, draws=300)
    assert given.classes_of("collapses", "reviews").prior == pytest.approx(
        profiles.classes_of("collapses", "reviews").prior
    )
    assert given.lengths_of("stretches", "stories").best.source.n == 0
    assert not any(one.kind == "length" for own in given.reasons.values() for one in own)


def test_nothing_measured_gives_nothing():
    empty = cell_profiles({})
    assert (empty.classes, empty.lengths, dict(empty.reasons)) == ((), (), {})


def test_gold_tokens_must_fit_the_items(run):
    outcomes, _ = run
    with pytest.raises(MatrixError, match="gold"):
        cell_profiles(outcomes, gold_tokens={"stories": [1, 2]}, draws=50)
