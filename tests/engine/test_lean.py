"""Lean decoding steps give the model's own numbers, for the models that they are known to fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from test_continuous import GREEDY, SAMPLED, asked
from test_score import engine_for
from transformers import GPTNeoXConfig, LlamaConfig, MistralConfig, Qwen2Config
from transformers.models.auto import AutoModelForCausalLM

from traitmap.engine import cached_attention, lean
from traitmap.engine.cached_attention import Slots
from traitmap.engine.cached_passes import attending, compute_prefixes, is_right, read_behind, read_next
from traitmap.engine.lean import Lean
from traitmap.engine.passes import Row

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


def begun(model: Any, prefixed: bool) -> tuple[Slots, Any]:
    """Three texts of different lengths in slots, behind a prefix or not."""
    draw = np.random.default_rng(0)
    with attending(model, cached_attention.NAME):
        prefix = compute_prefixes(model, [(draw.integers(0, 97, 7).tolist(), None)])[0] if prefixed else None
        lengths = (5, 21, 12)
        rows = [Row(ids=draw.integers(0, 97, size), reads=np.array([size - 1])) for size in lengths]
        _, plan = read_behind(model, rows, [prefix] * 3, keep=True)
    slots, start = Slots(4, torch.zeros(4, dtype=torch.long)), 0
    for slot, size in enumerate(lengths):
        slots.write(slot, start, start + size, plan.kept)
        start += size
    return slots, prefix


@pytest.mark.parametrize("prefixed", [False, True], ids=["alone", "prefixed"])
@pytest.mark.parametrize("name", CONFIGS)
@torch.inference_mode()
def test_lean_steps_give_the_models_own_logits(name: str, prefixed: bool) -> None:
    model = model_of(CONFIGS[name])
    steps = Lean.of(model, 64)
    assert steps is not None
    found = []
    for way in (None, steps):
        slots, prefix = begun(model, prefixed)
        with attending(model, cached_attention.NAME):
            found.append(
                torch.stack([read_next(model, slots, [n, 90 - n, 3], prefix, None, way) for n in range(30)])
            )
        assert slots.lengths.tolist() == [35, 51, 42, 0]
    assert (found[0] - found[1]).abs().max() < 1e-6 * found[0].abs().max()  # norms are in float32 either way
    assert found[0].std() > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_other_precisions_agree_to_their_rounding(dtype: torch.dtype) -> None:
    model = model_of(CONFIGS["biases"], dtype)
    steps, (slots, prefix) = Lean.of(model, 64), begun(model, True)
    assert steps is not None
    with attending(model, cached_attention.NAME):
        assert is_right(steps, model, slots, [1, 2, 3], prefix)
        model.model.norm.weight.mul_(1.3)  # the lean copy of a scale is the model's own, of a product not
        assert is_right(steps, model, slots, [1, 2, 3], prefix)
        model.model.layers[1].mlp.down_proj.weight.mul_(1.3)
        assert not is_right(steps, model, slots, [1, 2, 3], prefix)
    assert slots.lengths.tolist() == [5, 21, 12, 0]


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
        assert [Lean.of(model_of(config), 64) for config in unknown] == [None] * len(unknown)
        model = model_of(CONFIGS["grouped"])
        assert Lean.of(model, 64) is not None
        handle = model.model.layers[1].mlp.register_forward_hook(lambda _module, _inputs, output: output * 2)
        assert Lean.of(model, 64) is None
        handle.remove()
        assert Lean.of(model, 64) is not None
        model.lm_head.forward = lambda x: x
        assert Lean.of(model, 64) is None
        del model.lm_head.forward
        monkeypatch.setattr(lean, "MOST_PARAMETERS", 1000)
        assert Lean.of(model, 64) is None


@pytest.mark.parametrize("generation", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_texts_are_the_same_with_lean_steps_without_and_with_wrong_ones(
    checkpoints, monkeypatch, architecture: str, generation: dict
) -> None:
    engine, requests = engine_for(checkpoints[architecture], dtype="float64"), asked(generation)
    steps, own = list[int](), Lean.logits
    monkeypatch.setattr(Lean, "logits", lambda *given: steps.append(1) or own(*given))
    found = engine.answer(requests)
    assert len(steps) > 30
    steps.clear()
    monkeypatch.setattr(lean, "_rotated", lambda qk, _cos, _sin: qk)
    assert engine.answer(requests) == found
    assert len(steps) == 1  # tried once, and left
    monkeypatch.setattr(lean, "MOST_PARAMETERS", 0)
    assert engine.answer(requests) == found
    assert len(steps) == 1


def test_slots_lose_room_that_no_text_needs() -> None:
    slots = Slots(2, torch.zeros(2, dtype=torch.long))
    kept = {0: (torch.randn(3, 300, 8), torch.randn(3, 300, 8))}
    slots.write(0, 0, 300, kept)
    slots.write(1, 0, 20, kept)
    room = slots.room
    slots.narrow(300)
    assert slots.room == room
    slots.narrow(21)
    assert slots.room == 32
    for store, whole in ((slots.keys, kept[0][0]), (slots.values, kept[0][1])):
        assert store[0].shape == (2, 3, 32, 8)
        assert torch.equal(store[0][1, :, :20], whole[:, :20])
