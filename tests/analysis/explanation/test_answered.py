"""Controlled changes and what was answered: class shares, lengths and format follow what was planted."""

import numpy as np
import pytest

from traitmap.analysis.explanation.families import answered_curves
from traitmap.data.records import Outcome

DOSES = {"full": 0.0, "quarter": 0.25, "half": 0.5, "none": 1.0}
BASE = ("__baseline__", None)


def choose(shares, seed, gold):
    answers = np.random.default_rng(seed).choice(list(shares), len(gold), p=list(shares.values()))
    return tuple(
        Outcome(at, str(at), 0.0, bool(own == right), str(own), right, (-1.0, -1.0), output_tokens=1)
        for at, (own, right) in enumerate(zip(answers, gold, strict=True))
    )


def write(length, seed, *, unparsed=0.0, count=120):
    generator = np.random.default_rng(seed)
    sizes, chances = generator.normal(length, 5, count).clip(1), generator.random(count)
    return tuple(
        Outcome(
            item=at,
            item_digest=str(at),
            score=0.0,
            correct=False,
            prediction="?",
            gold=f"gold {at}",
            text="x" * int(sizes[at]),
            parsed=bool(chances[at] >= unparsed),
            output_tokens=int(sizes[at]),
            stopped=True,
        )
        for at in range(count)
    )


@pytest.fixture
def outcomes():
    """The greater the dose, the more even the classes and the shorter the outputs; two seeds."""
    gold = ["good", "bad"] * 100
    found = {
        (*BASE, "reviews"): choose({"good": 0.5, "bad": 0.5}, 0, gold),
        (*BASE, "stories"): write(50, 0),
        ("bystander", 0, "reviews"): choose({"good": 0.5, "bad": 0.5}, 77, gold),
    }
    for at, (name, dose) in enumerate(DOSES.items()):
        for seed in (0, 1):
            shares = {"good": 0.9 - 0.4 * dose, "bad": 0.1 + 0.4 * dose}
            found[name, seed, "reviews"] = choose(shares, 10 * at + seed, gold)
            found[name, seed, "stories"] = write(100 - 60 * dose, 10 * at + seed)
    return found


def test_what_was_planted_moves_and_nothing_else(outcomes):
    curves = {(one.target, one.measure): one for one in answered_curves(outcomes, DOSES, dose="the rate")}
    assert set(curves) == {
        ("reviews", "answers bad"),
        ("reviews", "answers good"),
        ("stories", "tokens"),
        ("stories", "characters"),
    }
    assert curves["reviews", "answers good"].response.verdict == "falls"
    assert curves["reviews", "answers bad"].response.verdict == "rises"
    length = curves["stories", "characters"]
    assert length.response.verdict == "falls"
    assert length.response.change.low < -60 < length.response.change.high
    assert length.sources == ("full", "quarter", "half", "none")
    assert length.response.seeds == 2
    assert length.q >= length.response.p
    assert "output length in characters on stories falls with the rate" in length.response.words


def test_a_source_that_lacks_a_seed_is_left_out(outcomes):
    del outcomes["half", 1, "stories"]
    curves = {one.measure: one for one in answered_curves(outcomes, DOSES) if one.target == "stories"}
    assert curves["tokens"].sources == ("full", "quarter", "none")


def test_one_dose_is_no_curve(outcomes):
    assert answered_curves(outcomes, {"full": 0.0}) == ()
    assert answered_curves(outcomes, {"nobody": 0.0, "full": 1.0}) == ()


def test_a_share_that_moves_on_one_target_only(outcomes):
    """The same answers of every source on another target: no curve of these, and the first are unmoved."""
    gold = ["good", "bad"] * 100
    before = {(one.target, one.measure): one.response for one in answered_curves(outcomes, DOSES)}
    for seed in (0, 1):
        for name in DOSES:
            outcomes[name, seed, "films"] = choose({"good": 0.7, "bad": 0.3}, 500 + seed, gold)
    curves = {(one.target, one.measure): one for one in answered_curves(outcomes, DOSES)}
    assert {place: one.response for place, one in curves.items() if place[0] != "films"} == before
    still = curves["films", "answers good"].response
    assert still.change.value == 0
    assert still.verdict == "cannot tell"
    assert curves["reviews", "answers good"].response.change.high < -0.2
