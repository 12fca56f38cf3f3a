"""Perplexity is the sum of what the engine says, over the tokens that it says it about."""

from __future__ import annotations

import json
from math import exp, isnan, log

import numpy as np
import pytest

from traitmap.data.records import Request
from traitmap.data.texts import TaskText
from traitmap.engine.fake import FakeEngine
from traitmap.engine.open import open_engine
from traitmap.engine.perplexity import base_perplexity
from traitmap.progress import Progress
from traitmap.study.settings import Model

TEXTS = tuple(TaskText(f"question {n} of the day is long", f" answer {n % 3}") for n in range(30))


def test_it_is_the_sum_of_the_engines_answers_over_tokens_and_bytes() -> None:
    engine = FakeEngine()
    (found,) = base_perplexity(engine, {"a": TEXTS}).values()
    inputs = engine.answer([Request("loglikelihood_rolling", text.input) for text in TEXTS])
    outputs = engine.answer([Request("loglikelihood", text.input, text.output) for text in TEXTS])
    for part, answers, size in (
        (found.input, inputs, sum(len(text.input.encode()) for text in TEXTS)),
        (found.output, outputs, sum(len(text.output.encode()) for text in TEXTS)),
    ):
        nats, tokens = -sum(a.logprob for a in answers), sum(a.tokens for a in answers)
        assert part.nats_per_token == pytest.approx(nats / tokens)
        assert part.bits_per_byte == pytest.approx(nats / log(2) / size)
        assert part.perplexity == pytest.approx(exp(nats / tokens))
        assert (part.texts, part.tokens) == (len(TEXTS), tokens)
        assert part.low < part.nats_per_token < part.high
    whole = found.input.tokens + found.output.tokens
    parts = found.input.nats_per_token * found.input.tokens
    parts += found.output.nats_per_token * found.output.tokens
    assert found.text.nats_per_token == pytest.approx(parts / whole)


def test_a_sample_is_drawn_by_its_seed_and_recorded() -> None:
    heard: list[Progress] = []
    engine = FakeEngine()
    first, again, other = (
        base_perplexity(engine, {"a": TEXTS, "b": TEXTS[:5]}, sample=10, seed=seed, listener=heard.append)
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first["a"] != other["a"]
    assert (first["a"].n, first["a"].available) == (10, 30)
    assert (first["b"].n, first["b"].available) == (5, 5)
    assert first["b"] == other["b"]
    assert {report.stage for report in heard} == {"perplexity"}


def test_unknown_is_not_a_number() -> None:
    found = base_perplexity(FakeEngine(), {"bare": [TaskText("two words", "")], "none": []})
    assert isnan(found["bare"].output.nats_per_token)
    assert found["bare"].output.texts == 0
    assert isnan(found["bare"].input.low)  # one text has no interval
    told = json.loads(json.dumps(found["none"].to_json(), allow_nan=False))
    assert told["text"]["perplexity"] is None


def test_the_interval_covers_the_whole_from_which_texts_are_drawn() -> None:
    engine, covered = FakeEngine(), 0
    words = np.random.default_rng(0).integers(2, 40, 400)
    texts = [TaskText(" ".join(f"w{i}{j}" for j in range(count)), "") for i, count in enumerate(words)]
    truth = base_perplexity(engine, {"a": texts}, sample=None)["a"].input.nats_per_token
    for seed in range(60):
        one = base_perplexity(engine, {"a": texts}, sample=20, seed=seed)["a"].input
        covered += one.low <= truth <= one.high
    assert covered >= 52  # 95 % of 60 is 57
    same = base_perplexity(engine, {"a": [texts[0]] * 5})["a"].input
    assert same.high - same.low == pytest.approx(0, abs=1e-9)


def test_pieces_of_a_long_output_give_what_the_whole_gives() -> None:
    story = " ".join(f"Tom has {n} red balls and buys {n + 2} more ." for n in range(2, 20))
    texts = {"a": [TaskText("How many balls ?", " " + story)]}
    engine = open_engine(Model(path="builtin:mini", dtype="float32"))
    pieces = base_perplexity(engine, texts, piece=40)["a"].output
    whole = base_perplexity(engine, texts, piece=10_000)["a"].output
    assert whole.tokens > 100
    assert pieces.tokens == whole.tokens
    assert pieces.nats_per_token == pytest.approx(whole.nats_per_token, rel=1e-4)
    longer = {"a": [TaskText("How many balls ?", " " + " ".join([story] * 8))]}
    assert base_perplexity(engine, longer)["a"].output.tokens > 512  # more than the base can score at once
