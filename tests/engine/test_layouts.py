"""A fast layout is tried before it is trusted: models of many kinds give what they give one row at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from conftest import make_tokenizer
from traitmap.data.records import Request
from traitmap.engine.layouts import rope_switch
from traitmap.engine.local import LocalEngine
from traitmap.study.settings import Model

TOKENS = {
    "vocab_size": 384,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
    "initializer_range": 0.3,
}
WIDTHS = {"hidden_size": 32, "num_hidden_layers": 2}
SHAPE = TOKENS | WIDTHS | {"intermediate_size": 48, "num_attention_heads": 4, "max_position_embeddings": 256}
GROUPED = SHAPE | {"num_key_value_heads": 2}
GPTJ = TOKENS | {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "n_positions": 256}
LONGROPE = {
    "rope_type": "longrope", "rope_theta": 1e4, "partial_rotary_factor": 1.0,
    "original_max_position_embeddings": 32, "long_factor": [1.5, 3.0, 6.0, 12.0], "short_factor": [1.0] * 4,
}  # fmt: skip
MAMBA2 = {"state_size": 8, "num_heads": 8, "head_dim": 8, "n_groups": 2, "chunk_size": 16}
LLAMA4 = {"head_dim": 8, "intermediate_size_mlp": 48, "attention_chunk_size": 16, "num_local_experts": 2,
          "interleave_moe_layer_step": 1}  # fmt: skip
RWKV = WIDTHS | {"vocab_size": 384, "bos_token_id": 0, "eos_token_id": 1, "attention_hidden_size": 32,
                 "context_length": 256}  # fmt: skip
# model -> (class of its configuration, its settings, layout, how texts grow)
KINDS: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "gptj": ("GPTJConfig", GPTJ, "padded", "batch"),
    "codegen": ("CodeGenConfig", GPTJ | {"n_ctx": 256}, "padded", "batch"),
    "gpt_neo": ("GPTNeoConfig", TOKENS | {"hidden_size": 32, "num_layers": 2, "num_heads": 4,
                "window_size": 8, "attention_types": [[["global", "local"], 1]],
                "max_position_embeddings": 256}, "padded", "batch"),
    "gpt_neox_japanese": ("GPTNeoXJapaneseConfig", {k: v for k, v in SHAPE.items() if "intermed" not in k},
                          "padded", "batch"),
    "llama4": ("Llama4TextConfig", GROUPED | LLAMA4, "padded", "batch"),
    "mamba": ("MambaConfig", TOKENS | WIDTHS | {"state_size": 8}, "padded", "anew"),
    "mamba2": ("Mamba2Config", TOKENS | WIDTHS | MAMBA2, "padded", "one"),
    "rwkv": ("RwkvConfig", RWKV, "padded", "anew"),
    "gemma2": ("Gemma2Config", GROUPED | {"head_dim": 8, "sliding_window": 16}, "padded", "batch"),
    "gemma3": ("Gemma3TextConfig", GROUPED | {"head_dim": 8, "sliding_window": 16}, "stream", "batch"),
    "longrope": ("Phi3Config", GROUPED | {"original_max_position_embeddings": 32,
                 "rope_parameters": LONGROPE}, "stream", "batch"),
    "window": ("MistralConfig", GROUPED | {"sliding_window": 16}, "stream", "batch"),
}  # fmt: skip
FOX = "the quick brown fox jumps over the lazy dog and says hello "
CONTEXTS = ("x", "Question: what is 12 + 30? Answer:", FOX * 2, FOX * 3 + "Review: bad. Sentiment:")
CHOICES = (" positive", " negative or not", " 42")


@pytest.fixture(scope="module", params=KINDS)
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any, Any]:
    """(kind, the plain model, an engine on it)."""
    name, settings, _, _ = KINDS[request.param]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(getattr(transformers, name)(**settings))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    folder: Path = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    return request.param, model, LocalEngine.open(Model(path=str(folder), device="cpu", dtype="float32"))


def test_log_likelihoods_are_those_of_a_row_alone(opened: tuple[str, Any, LocalEngine]) -> None:
    kind, model, engine = opened
    contexts = [*CONTEXTS, *(f"{FOX * 2}{number}" for number in range(3))]
    requests = [Request("loglikelihood", context, choice) for context in contexts for choice in CHOICES]
    expected = []
    for request in requests:
        context, choice = engine.encoder.continuation(request)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([(context + choice)[:-1]]), use_cache=False).logits[0]
        scores = logits.log_softmax(-1)[len(context) - 1 :]
        expected.append(sum(scores[place, token].item() for place, token in enumerate(choice)))
    found = [answer.logprob for answer in engine.answer(requests)]
    assert found == pytest.approx(expected, abs=1e-4)
    assert engine.base.layout == KINDS[kind][2]
    assert bool(engine.base.reason) == (engine.base.layout != "stream")


def test_texts_are_those_of_greedy_decoding_without_a_cache(opened: tuple[str, Any, LocalEngine]) -> None:
    kind, model, engine = opened
    requests = [
        Request("generate_until", context, generation={"until": [], "max_gen_toks": 10})
        for context in CONTEXTS
    ]
    expected = []
    for request in requests:
        prompt = engine.encoder.encode(request.context)
        ids = list(prompt)
        while len(ids) < len(prompt) + 10 and ids[-1] != 1:
            with torch.no_grad():
                ids.append(int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
        expected.append(engine.base.tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True))
    assert [answer.text for answer in engine.answer(requests)] == expected
    assert engine.paths is not None
    assert engine.paths.cached or engine.paths.decoding == KINDS[kind][3]


def test_a_rope_that_switches_is_known_by_its_configuration() -> None:
    assert rope_switch(transformers.Phi3Config(**KINDS["longrope"][1])) == 32
    assert rope_switch(transformers.MistralConfig(**GROUPED)) is None
