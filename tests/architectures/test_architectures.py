"""Every architecture of the catalogue: the engine gives what PEFT and lm-eval give, or refuses it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from plain_peft import (
    hflm_logprobs,
    hflm_texts,
    logprob_alone,
    peft_modules,
    text_alone,
    train_alone,
    weights_of,
    with_adapter,
)
from tiny_architectures import CATALOGUE, save_tiny, shown_first
from traitmap.data.records import Example, Request, Segment
from traitmap.engine.adapted_modules import linear_modules
from traitmap.engine.attention import layout_attention
from traitmap.engine.contract import TrainingJob
from traitmap.engine.local import LocalEngine
from traitmap.engine.train import new_training_state, train_group
from traitmap.errors import ModelError
from traitmap.progress import silent
from traitmap.study.settings import Lora, Model, Training

FIRST = shown_first(CATALOGUE)
FOX = "the quick brown fox jumps over the lazy dog and says hello "
# of 1 to 60 tokens: on both sides of the catalogue's windows and chunks and of LongRoPE's switch
CONTEXTS = ("x", "Question: what is 12 + 30? Answer:", FOX * 2, FOX * 3 + "Review: bad. Sentiment:")
CHOICES = (" 4", " positive", " negative or not", " 42")
WORDS = ("the", "cat", "dog", "phone", "battery", "great", "bad", "12", "30", "hello", "answer", "review")
LORA = Lora(r=4, lora_alpha=8)


@dataclass(frozen=True)
class Opened:
    """A base of the catalogue, the same by transformers, and the engine on it."""

    name: str
    folder: Path
    model: Any
    engine: LocalEngine


@pytest.fixture(scope="module", autouse=True)
def quietly_on_one_thread() -> Iterator[None]:
    """On such small models more threads only wait for each other."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def kinds(*, refused: bool) -> list[Any]:
    """The names of the catalogue; two thirds of them are left to ``make test-architectures``."""
    return [
        pytest.param(name, marks=() if name in FIRST else pytest.mark.architectures)
        for name, kind in CATALOGUE.items()
        if bool(kind.refused) == refused
    ]


@pytest.fixture(scope="module", params=kinds(refused=False))
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Opened:
    folder = tmp_path_factory.mktemp(request.param)
    save_tiny(request.param, folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    engine = LocalEngine.open(Model(path=str(folder), device="cpu", dtype="float32"))
    return Opened(request.param, folder, model, engine)


def test_log_likelihoods_are_lm_evals(opened: Opened) -> None:
    """Choices of one and of several tokens behind one context; contexts with a long common beginning."""
    contexts = [*CONTEXTS, *(f"{FOX * 2}{number}" for number in range(3))]
    requests = [Request("loglikelihood", context, choice) for context in contexts for choice in CHOICES]
    found = [answer.logprob for answer in opened.engine.answer(requests)]
    assert found == pytest.approx(hflm_logprobs(opened.model, opened.engine, requests), abs=1e-4)


def test_texts_are_lm_evals(opened: Opened) -> None:
    requests = [
        Request("generate_until", context, generation={"until": [], "max_gen_toks": 10})
        for context in CONTEXTS
    ]
    found = [answer.text for answer in opened.engine.answer(requests)]
    assert found == [text_alone(opened.model, opened.engine, context, 10) for context in CONTEXTS]
    # not the prompt of one token, which transformers' RecurrentGemma takes for the next of the text before
    assert found[1:] == hflm_texts(opened.model, opened.engine, CONTEXTS[1:], 10)


def test_the_way_is_the_catalogues(opened: Opened) -> None:
    base, paths = opened.engine.base, opened.engine._paths_on(opened.engine.base)
    growth = {"one": "one at a time", "anew": "no cache"}.get(paths.decoding, paths.decoding)
    assert (base.layout, "continuous" if paths.cached else growth) == CATALOGUE[opened.name].way
    assert bool(base.reason) == (base.layout != "stream")


def test_all_linear_is_pefts(opened: Opened) -> None:
    """What PEFT adapts and traitmap does not is in the catalogue, and ``check`` says it."""
    modules = set(linear_modules(opened.engine.base.model, "all-linear"))
    expected = peft_modules(opened.folder)
    note = " ".join(opened.engine.notes(LORA))
    if expected is None:
        assert CATALOGUE[opened.name].peft_only == ("out_proj",)
        return
    assert modules <= expected
    missing = {name.removesuffix(".base_layer").rsplit(".", 1)[-1] for name in expected - modules}
    assert sorted(missing) == sorted(CATALOGUE[opened.name].peft_only)
    assert not missing or "get no adapter here" in note


def jobs() -> list[TrainingJob]:
    """Two sources, of short answers and of long rows that are learnt whole, that share passes."""

    def examples(seed: int, count: int, longest: int) -> tuple[Example, ...]:
        generator = np.random.default_rng(seed)

        def sentence(limit: int) -> str:
            return " ".join(generator.choice(WORDS, generator.integers(1, limit)))

        return tuple(
            Example((Segment(sentence(longest) + " ->", False), Segment(" " + sentence(6), True)))
            for _ in range(count)
        )

    # a large epsilon: without one, Adam makes a whole step of a gradient that is rounding alone
    usual = {"warmup_steps": 1, "lr_scheduler_type": "cosine", "weight_decay": 0.1, "adam_epsilon": 1e-4}
    settings = [
        Training(learning_rate=1e-2, batch_size=3, max_steps=4, **usual),
        Training(learning_rate=5e-3, batch_size=2, max_steps=3, max_grad_norm=0.05, loss_on="all", **usual),
    ]
    sizes = [(7, 5), (5, 30)]
    return [TrainingJob(f"source{i}", i, examples(i, *sizes[i]), LORA, settings[i]) for i in range(2)]


def test_adapters_are_those_of_pefts_loop(opened: Opened, tmp_path: Path) -> None:
    engine = opened.engine
    starts = [weights_of(new_training_state(engine.base, engine.encoder, job)) for job in jobs()]
    with layout_attention(engine.base.model, engine.base.layout):
        states = train_group(engine.base, engine.encoder, jobs(), budget=150, listener=silent)
    lengths = [len(example.ids) for state in states for example in state.examples]
    assert min(lengths) < 16
    assert max(lengths) > 32
    for state, start in zip(states, starts, strict=True):
        losses, weights = train_alone(opened.folder, state, start)
        assert np.abs(np.subtract(losses, state.losses)).max() < 1e-5
        moved = 0.0
        for name, value in weights_of(state).items():
            assert (value - weights[name]).abs().max() < 1e-5, name
            moved = max(moved, float((value - start[name]).abs().max()))
        assert moved > 1e-3


def test_a_saved_adapter_is_the_same_in_peft(opened: Opened, tmp_path: Path) -> None:
    job = jobs()[0]
    (report,) = opened.engine.train([job], [tmp_path])
    assert report.failure is None
    model = with_adapter(opened.folder, tmp_path)
    adapted = {name.removeprefix("base_model.model.") for name in model.base_model.targeted_module_names}
    assert adapted == set(linear_modules(opened.engine.base.model, "all-linear"))
    assert not getattr(model.base_model, "targeted_parameter_names", [])
    requests = [Request("loglikelihood", context, choice) for context in CONTEXTS for choice in CHOICES[:2]]
    found = [answer.logprob for answer in opened.engine.answer(requests, tmp_path)]
    right = [logprob_alone(model, opened.engine, request) for request in requests]
    assert found == pytest.approx(right, abs=1e-4)
    base = [answer.logprob for answer in opened.engine.answer(requests)]
    assert np.abs(np.subtract(found, base)).max() > 1e-2


@pytest.mark.parametrize("name", kinds(refused=True))
def test_what_is_refused_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    save_tiny(name, tmp_path)
    with pytest.raises(ModelError) as refusal:
        LocalEngine.open(Model(path=str(tmp_path), device="cpu", dtype="float32")).notes(LORA)
    message = str(refusal.value)
    assert CATALOGUE[name].refused in message
    assert "\n" not in message
    assert len(message) < 400


def test_a_third_has_every_way_in_it() -> None:
    assert {CATALOGUE[name].way for name in FIRST} == {kind.way for kind in CATALOGUE.values()}
    assert len(FIRST) <= len(CATALOGUE) / 3 + 1
    assert len(CATALOGUE) >= 45
