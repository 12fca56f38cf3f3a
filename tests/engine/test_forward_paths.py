"""Every shortcut of scoring gives the numbers of the plain way: in float64 nearly exactly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_score import ARCHITECTURES, engine_for, harness_for, instances
from test_train import jobs

from traitmap.data.records import Request
from traitmap.engine.adapters import load_adapter, merged_weights
from traitmap.engine.cpu import products as linear
from traitmap.engine.forward_paths import ForwardPaths
from traitmap.engine.local import LocalEngine
from traitmap.engine.requests import shared_prefixes
from traitmap.engine.tokens import Encoder
from traitmap.errors import EngineError

HEADER = "Review: great phone, bad battery. Sentiment: negative\n\n" * 3
PARTS = ("Question: the quick brown fox jumps over? Answer: the lazy dog\n\n" * 3, "a b c 0 1 2 3\n\n" * 7)
CHOICES = (" positive", " negative or not", " x", " 4 2")


def few_shot() -> list[Request]:
    """Items behind one header and one of two parts, and items with nothing before them."""
    contexts = [HEADER + part + f"Review: item {n}. Sentiment:" for part in PARTS for n in range(6)]
    contexts += [f"Review: {n}. Sentiment:" for n in ("cat", "jumps over the lazy dog")]
    return [Request("loglikelihood", c, choice, item=i) for i, c in enumerate(contexts) for choice in CHOICES]


def plain(engine: LocalEngine) -> LocalEngine:
    """The engine without any shortcut."""
    engine.paths = ForwardPaths()
    return engine


def logprobs(engine: LocalEngine, requests: list[Request], adapter: Path | None = None) -> np.ndarray:
    return np.array([answer.logprob for answer in engine.answer(requests, adapter)])


@pytest.fixture(scope="module")
def adapters(checkpoints, tmp_path_factory) -> list[Path]:
    folders = [tmp_path_factory.mktemp(f"adapter{number}") for number in range(3)]
    engine_for(checkpoints["llama"]).train(jobs(), folders)
    return folders


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("dtype", "bound"), [("float64", 1e-9), ("float32", 1e-4), ("bfloat16", 0.6)])
def test_prefixes_computed_once_change_no_score(checkpoints, architecture, dtype, bound) -> None:
    engine, requests = engine_for(checkpoints[architecture], dtype=dtype), few_shot()
    found = logprobs(engine, requests)
    paths = engine.paths
    assert paths is not None
    assert paths.cached
    assert paths.last_mlp is not None
    heads = [tuple(engine.encoder.encode(request.context)) for request in requests]
    assert len(shared_prefixes(heads)[0]) > 2  # the header and both parts, so there is something to share
    assert np.abs(found - logprobs(plain(engine), requests)).max() < bound


def test_scores_behind_prefixes_equal_lm_evals(checkpoints) -> None:
    requests = few_shot()
    expected = harness_for(checkpoints["llama"]).loglikelihood(instances(requests), disable_tqdm=True)
    found = engine_for(checkpoints["llama"]).answer(requests)
    assert np.allclose([a.logprob for a in found], [e[0] for e in expected], atol=1e-4)
    assert [a.is_greedy for a in found] == [e[1] for e in expected]


@pytest.mark.parametrize(("dtype", "bound"), [("float64", 1e-9), ("bfloat16", 0.6)])
def test_small_waves_and_batches_change_no_score(checkpoints, dtype, bound) -> None:
    engine, requests = engine_for(checkpoints["llama"], dtype=dtype), few_shot()
    expected = logprobs(plain(engine), requests)
    small = LocalEngine(engine.base, pass_tokens=70, prefix_tokens=70)
    assert np.abs(logprobs(small, requests) - expected).max() < bound


@pytest.mark.parametrize(("dtype", "bound"), [("float64", 1e-9), ("float32", 1e-4), ("bfloat16", 0.6)])
def test_adapters_take_the_same_shortcuts(checkpoints, adapters, dtype, bound) -> None:
    engine, requests = engine_for(checkpoints["llama"], dtype=dtype), few_shot()
    base = logprobs(engine, requests)
    found = [logprobs(engine, requests, folder) for folder in adapters]
    engine = plain(engine_for(checkpoints["llama"], dtype=dtype))
    expected = [logprobs(engine, requests, folder) for folder in adapters]
    assert np.abs(np.array(found) - expected).max() < bound
    assert np.abs(found[0] - base).max() > bound
    assert np.array_equal(logprobs(engine_for(checkpoints["llama"], dtype=dtype), requests), base)


def test_only_what_survives_bfloat16_is_merged_into_it(checkpoints, adapters) -> None:
    exact, engine = (engine_for(checkpoints["llama"], dtype=dtype) for dtype in ("float64", "bfloat16"))
    large = load_adapter(adapters[0], exact.modules)
    merged = merged_weights(engine.modules, large)
    assert merged is not None
    for name, weight in merged.items():
        sum_of_both = engine.modules[name].weight.double() + large.scale[name] * large.b[name] @ large.a[name]
        assert (weight - sum_of_both).abs().max() < 2**-8 * sum_of_both.abs().max()
    small = replace(large, scale=dict.fromkeys(large.scale, 1e-4))
    assert merged_weights(exact.modules, small) is not None
    assert merged_weights(engine.modules, small) is None


def test_an_adapter_leaves_the_base_bit_for_bit(checkpoints, adapters) -> None:
    engine = engine_for(checkpoints["llama"])
    before = {name: p.detach().clone() for name, p in engine.base.model.named_parameters()}
    for folder in (adapters[0], adapters[0], adapters[1]):
        engine.answer(few_shot()[:4], folder)
    after = dict(engine.base.model.named_parameters())
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_an_adapter_whose_files_change_is_read_again(checkpoints, adapters, tmp_path: Path) -> None:
    engine, folder = engine_for(checkpoints["llama"]), tmp_path / "adapter"
    found = []
    for source in adapters[:2]:
        folder.mkdir(exist_ok=True)
        for file in source.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        found.append(logprobs(engine, few_shot()[:4], folder))
    assert not np.allclose(found[0], found[1], atol=1e-6)
    assert np.allclose(found[1], logprobs(engine, few_shot()[:4], adapters[1]))


def test_a_pass_that_memory_does_not_hold_is_done_in_halves(checkpoints) -> None:
    engine, requests = engine_for(checkpoints["llama"], dtype="float64"), few_shot()
    expected = logprobs(engine, requests)
    most, sizes = 60, list[int]()

    def memory(_module, _inputs, options) -> None:
        sizes.append(options["input_ids"].shape[1])
        if sizes[-1] > most:
            raise torch.OutOfMemoryError("a device of 60 tokens")

    handle = engine.base.model.register_forward_pre_hook(memory, with_kwargs=True)
    with pytest.raises(EngineError, match="does not hold a row of"):
        engine.answer(requests)  # the header alone is longer
    most = 150
    sizes.clear()
    found = logprobs(engine, requests)
    handle.remove()
    assert np.abs(found - expected).max() < 1e-9
    assert sum(size > most for size in sizes) < 5  # the smaller size is kept


def test_products_by_onednn_are_the_same_products(checkpoints, monkeypatch) -> None:
    """Where this processor gains nothing by oneDNN, its way is taken all the same."""
    engine, requests = plain(engine_for(checkpoints["llama"])), few_shot()
    monkeypatch.setattr(linear, "_onednn_is_wider", lambda: False)
    expected = logprobs(engine, requests)
    monkeypatch.setattr(linear, "_onednn_is_wider", lambda: torch.backends.mkldnn.is_available())
    assert np.abs(logprobs(engine, requests) - expected).max() < 1e-4
    assert not any("forward" in vars(module) for module in engine.base.model.modules())


def test_texts_asked_again_are_not_tokenised_again(checkpoints) -> None:
    engine = engine_for(checkpoints["llama"])
    requests = [*few_shot(), Request("loglikelihood", "", " x"), Request("loglikelihood", " ", " x")]
    fresh = Encoder(engine.base.tokenizer)
    pairs = [fresh.pair(request.context, request.continuation) for request in requests]
    assert fresh.continuations(requests) == pairs
    calls = len(fresh._known)
    assert fresh.continuations(requests) == pairs
    assert len(fresh._known) == calls
    small = Encoder(engine.base.tokenizer, capacity=50)
    for _ in range(2):
        assert small.continuations(requests) == pairs
    assert fresh.encode_all(["a b", "<s>a b"]) == [fresh.encode("a b"), fresh.encode("<s>a b")]


def test_the_padded_way_still_answers(checkpoints) -> None:
    engine, requests = engine_for(checkpoints["llama"], dtype="float64"), few_shot()
    expected = logprobs(engine, requests)
    engine.base = replace(engine.base, layout="padded")
    assert np.abs(logprobs(engine, requests) - expected).max() < 1e-9
