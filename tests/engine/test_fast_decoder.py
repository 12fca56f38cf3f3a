"""Fast CPU passes give the model's own numbers, for the models that they are known to fit."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from test_continuous import GREEDY, SAMPLED, asked
from test_score import engine_for
from transformers import GPTNeoXConfig, LlamaConfig, MistralConfig, Qwen2Config
from transformers.models.auto import AutoModelForCausalLM

from traitmap.engine import attention, cached_attention, forward_paths
from traitmap.engine.attention import attending
from traitmap.engine.cached_attention import CacheSlots
from traitmap.engine.cpu import fast_decoder
from traitmap.engine.cpu.fast_decoder import FastDecoder, plan_rectangles
from traitmap.engine.forward_paths import (
    compute_prefixes,
    find_forward_paths,
    read_behind,
    read_next,
    read_rectangles,
)
from traitmap.engine.passes import Row, read_logits

SHAPE = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
CONFIGS = {
    "grouped": LlamaConfig(**SHAPE, num_key_value_heads=2),
    "one head of keys": LlamaConfig(**SHAPE, num_key_value_heads=1),
    "tied": LlamaConfig(**SHAPE, tie_word_embeddings=True),
    "biases": LlamaConfig(**SHAPE, attention_bias=True, mlp_bias=True),
    "wide heads": LlamaConfig(**SHAPE, head_dim=16),
    "llama3": LlamaConfig(**SHAPE, rope_parameters=LLAMA3),
    "qwen2": Qwen2Config(**SHAPE, num_key_value_heads=2),
    "mistral": MistralConfig(**SHAPE, num_key_value_heads=2, sliding_window=None),
}


def model_of(config: Any, dtype: torch.dtype = torch.float64) -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or "norm" in name:  # not all zeros, not all ones
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(dtype))
    return model


def steps_of(model: Any, prefixed: bool, fast: FastDecoder | None) -> torch.Tensor:
    """(30, 3, V) logits of three texts of different lengths, token by token, behind a prefix or not."""
    draw = np.random.default_rng(0)
    with attending(model, cached_attention.NAME):
        pieces = [(draw.integers(0, 97, 7).tolist(), None)]
        prefix = compute_prefixes(model, pieces, fast=fast)[0] if prefixed else None
        lengths = (5, 21, 12)
        rows = [Row(ids=draw.integers(0, 97, size), reads=np.array([size - 1])) for size in lengths]
        _, plan = read_behind(model, rows, [prefix] * 3, keep=True, fast=fast)
        slots, start = CacheSlots(4, torch.device("cpu")), 0
        for slot, size in enumerate(lengths):
            slots.write(slot, start, start + size, plan.kept)
            start += size
        tokens = [[n, 90 - n, 3] for n in range(30)]
        found = torch.stack([read_next(model, slots, some, prefix, None, fast) for some in tokens])
    assert slots.lengths.tolist() == [35, 51, 42, 0]
    return found


def some_rows() -> list[Row]:
    """Rows of many lengths, some with one beginning, some the same, some with branches, in no order."""
    draw = np.random.default_rng(0)
    head = draw.integers(0, 97, 6)
    plain = [np.concatenate([head, draw.integers(0, 97, size)]) for size in (1, 9, 3, 30, 3)]
    plain += [draw.integers(0, 97, size) for size in (1, 120, 8)] + [plain[1]]
    rows = [Row(ids=ids, reads=np.unique([0, len(ids) // 2, len(ids) - 1])) for ids in plain]
    for trunk in (4, 11):
        branches = np.array([0] * trunk + [1] * 3 + [2] * 2 + [3])
        ids = np.concatenate([head, draw.integers(0, 97, len(branches))])[: len(branches)]
        ids[trunk + 3] = ids[trunk]  # two branches begin alike
        rows.append(Row(ids=ids, reads=np.arange(trunk - 1, len(ids)), branches=branches))
        rows.append(Row(ids=ids, reads=np.arange(trunk - 1, len(ids))))  # the same tokens in one line
    return [rows[index] for index in draw.permutation(len(rows))]


def close(found: torch.Tensor, expected: torch.Tensor, bound: float) -> bool:
    assert expected.std() > 0.1
    return bool((found - expected).abs().max() < bound * expected.abs().max())


@pytest.mark.parametrize("prefixed", [False, True], ids=["alone", "prefixed"])
@pytest.mark.parametrize("name", CONFIGS)
@torch.inference_mode()
def test_fast_steps_give_the_models_own_logits(name: str, prefixed: bool) -> None:
    model = model_of(CONFIGS[name])
    way = FastDecoder.of(model)
    assert way is not None
    assert close(steps_of(model, prefixed, way), steps_of(model, prefixed, None), 1e-6)


@pytest.mark.parametrize("name", CONFIGS)
@torch.inference_mode()
def test_rectangles_give_the_models_own_logits(name: str) -> None:
    model, rows = model_of(CONFIGS[name]), some_rows()
    way, plan = FastDecoder.of(model), plan_rectangles(rows)
    assert way is not None
    with attending(model, attention.NAME):
        expected = read_logits(model, "stream", rows)
    assert close(read_rectangles(way, plan), expected, 1e-6)
    ends = [replace(row, reads=np.array([len(row.ids) - 1]), branches=None) for row in rows]
    with attending(model, attention.NAME):
        expected = read_logits(model, "stream", ends)
    assert plan_rectangles(ends).ends is not None
    assert close(read_rectangles(way, plan_rectangles(ends)), expected, 1e-6)
    assert len(plan.ids) < sum(len(row.ids) for row in rows) - 6 * 5  # what is shared is computed once
    assert len(plan.parts) > 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("long", [False, True])
@torch.inference_mode()
def test_other_precisions_agree_to_their_rounding(monkeypatch, dtype: torch.dtype, long: bool) -> None:
    """Also where rows count as long, which torch's own attention takes."""
    if long:
        monkeypatch.setattr(fast_decoder, "LONGEST", 5)
        monkeypatch.setattr(fast_decoder, "LONGEST_WIDE", 5)
    model, rows = model_of(CONFIGS["biases"], dtype), some_rows()
    way, exact = FastDecoder.of(model), copy.deepcopy(model).double()
    assert way is not None
    bound = 1e-5 if dtype == torch.float32 else 0.05
    with attending(exact, attention.NAME):
        expected = read_logits(exact, "stream", rows)
    assert close(read_rectangles(way, plan_rectangles(rows)).double(), expected, bound)
    assert close(steps_of(model, True, way).double(), steps_of(exact, True, None), bound)


@torch.inference_mode()
def test_tokens_that_only_fill_up_change_nothing(monkeypatch) -> None:
    """Products for more tokens than there are, slots without a text: no answer sees them."""
    model, rows, found = model_of(CONFIGS["grouped"]), some_rows(), []
    way = FastDecoder.of(model)
    assert way is not None
    for size in (lambda count: count, lambda count: 3 * count + 5):
        monkeypatch.setattr(fast_decoder, "padded", size)
        monkeypatch.setattr(forward_paths, "pad_to_bucket", lambda count, _, size=size: size(count))
        ends = [replace(row, reads=np.array([len(row.ids) - 1]), branches=None) for row in rows]
        passes = [read_rectangles(way, plan_rectangles(some)) for some in (rows, ends)]
        found.append((*passes, steps_of(model, False, way)))
    for one, other in zip(*found, strict=True):
        assert close(one, other, 1e-12)


@torch.inference_mode()
def test_a_way_that_gives_other_numbers_is_not_taken(monkeypatch) -> None:
    model = model_of(CONFIGS["grouped"])
    assert find_forward_paths(model).fast
    for place, other in (("_paired", lambda x, _width: x), ("_norm_of", lambda _module: lambda x: x)):
        with monkeypatch.context() as wrong:
            wrong.setattr(fast_decoder, place, other)
            found = find_forward_paths(model)
        assert found.cached
        assert not found.fast
    assert not find_forward_paths(model_of(GPTNeoXConfig(**SHAPE))).fast


def test_only_what_is_known_is_taken_over(monkeypatch) -> None:
    dynamic = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    unknown = [
        GPTNeoXConfig(**SHAPE),
        MistralConfig(**SHAPE, num_key_value_heads=2, sliding_window=8),
        LlamaConfig(**SHAPE, rope_parameters=dynamic),
        LlamaConfig(**SHAPE, hidden_act="gelu"),
        Qwen2Config(**SHAPE, use_sliding_window=True, sliding_window=8, max_window_layers=1),
    ]
    with torch.inference_mode():
        assert [FastDecoder.of(model_of(config)) for config in unknown] == [None] * len(unknown)
        model = model_of(CONFIGS["grouped"])
        assert FastDecoder.of(model) is not None
        handle = model.model.layers[1].mlp.register_forward_hook(lambda _module, _inputs, output: output * 2)
        assert FastDecoder.of(model) is None
        handle.remove()
        assert FastDecoder.of(model) is not None
        model.lm_head.forward = lambda x: x
        assert FastDecoder.of(model) is None
        del model.lm_head.forward
        monkeypatch.setattr(fast_decoder, "MOST_PARAMETERS", 1000)
        assert FastDecoder.of(model) is None


@pytest.mark.parametrize("generation", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_texts_are_the_same_by_the_fast_pass_and_the_models_own(
    checkpoints, monkeypatch, architecture: str, generation: dict
) -> None:
    engine, requests = engine_for(checkpoints[architecture], dtype="float64"), asked(generation)
    passes, own = list[int](), FastDecoder.logits
    monkeypatch.setattr(FastDecoder, "logits", lambda *given: passes.append(1) or own(*given))
    found = engine.answer(requests)
    assert len(passes) > 30
    passes.clear()
    monkeypatch.setattr(fast_decoder, "MOST_PARAMETERS", 0)
    assert engine.answer(requests) == found
    assert not passes


def test_slots_lose_room_that_no_text_needs() -> None:
    slots = CacheSlots(2, torch.device("cpu"))
    kept = {0: (torch.randn(3, 300, 8), torch.randn(3, 300, 8))}
    slots.write(0, 0, 300, kept)
    slots.write(1, 0, 20, kept)
    room = slots.room
    slots.narrow(300)
    assert slots.room == room
    slots.narrow(21)
    assert slots.room == 32
    assert torch.equal(slots.keys[0][1, :, :20], kept[0][0][:, :20])
    assert torch.equal(slots.values[0][1, ..., :20], kept[0][1][:, :20].transpose(1, 2))
    slots.count = 1  # the other text is finished, and is not taken along
    slots.make_room(33, kept)
    assert slots.keys[0].shape == (1, 3, 64, 8)
    assert slots.values[0].shape == (1, 3, 8, 64)
    assert torch.equal(slots.keys[0][0, :, :32], kept[0][0][:, :32])
    assert not slots.values[0][..., 32:].any()
