"""Which modules get an adapter: those that PEFT would adapt, or a word; what is saved loads with PEFT."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from test_layouts import GROUPED, LLAMA4, MAMBA2, TOKENS, WIDTHS
from test_train import jobs
from transformers import AutoModelForCausalLM

from conftest import make_tokenizer
from traitmap.data.records import Request
from traitmap.engine.local import LocalEngine
from traitmap.engine.lora import linear_modules
from traitmap.errors import ModelError
from traitmap.study.settings import Lora, Model

TOWER = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
         "image_size": 28, "patch_size": 14}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
KINDS: dict[str, Callable[[], Any]] = {
    "mamba": lambda: transformers.MambaConfig(**TOKENS, **WIDTHS, state_size=8),
    "mamba2": lambda: transformers.Mamba2Config(**TOKENS, **WIDTHS, **MAMBA2),
    "phimoe": lambda: transformers.PhimoeConfig(**GROUPED, num_local_experts=4),
    "llama4": lambda: transformers.Llama4TextConfig(**GROUPED, **LLAMA4),
    "qwen3_moe": lambda: transformers.Qwen3MoeConfig(**GROUPED, **EXPERTS, head_dim=8),
    "mixtral": lambda: transformers.MixtralConfig(**GROUPED, num_local_experts=4, num_experts_per_tok=2),
    "gemma3": lambda: transformers.Gemma3Config(
        text_config=GROUPED | {"head_dim": 8, "sliding_window": 16}, vision_config=TOWER,
        mm_tokens_per_image=4, image_token_index=383, boi_token_index=382, eoi_token_index=381,
    ),
    "qwen2": lambda: transformers.Qwen2Config(**GROUPED),
}  # fmt: skip


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], LocalEngine]:
    """An engine on a tiny model of a kind."""
    engines: dict[str, LocalEngine] = {}

    def open_kind(kind: str) -> LocalEngine:
        if kind not in engines:
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(KINDS[kind]())
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.randn_like(parameter) * 0.1)
            folder: Path = tmp_path_factory.mktemp(kind)
            model.save_pretrained(folder)
            make_tokenizer().save_pretrained(folder)
            engines[kind] = LocalEngine.open(Model(path=str(folder), device="cpu", dtype="float32"))
        return engines[kind]

    return open_kind


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_trained_loads_with_peft(
    kind: str, opened: Callable[[str], LocalEngine], tmp_path: Path
) -> None:
    engine = opened(kind)
    (job, *_) = jobs()
    reports = engine.train([job], [tmp_path])
    assert reports[0].failure is None
    request = Request("loglikelihood", "Review: great phone. Sentiment:", " positive")
    context, choice = engine.encoder.continuation(request)
    model = AutoModelForCausalLM.from_pretrained(engine.base.path)
    model = peft.PeftModel.from_pretrained(model, tmp_path).eval()
    assert {name.removeprefix("base_model.model.") for name in model.base_model.targeted_module_names} == set(
        linear_modules(engine.base.model, job.lora.target_modules)
    )
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([context + choice]), use_cache=False).logits[0].log_softmax(-1)
    right = sum(logits[len(context) - 1 + i, token].item() for i, token in enumerate(choice))
    (found,), (base,) = engine.answer([request], tmp_path), engine.answer([request])
    assert found.logprob == pytest.approx(right, abs=1e-4)
    assert found.logprob != pytest.approx(base.logprob, abs=1e-4)


@pytest.mark.parametrize(
    ("kind", "module"),
    [("mamba", "out_proj"), ("mamba2", "out_proj"), ("phimoe", "router"), ("llama4", "router")],
)
def test_what_peft_cannot_adapt_is_left_out_and_refused_by_name(
    kind: str, module: str, opened: Callable[[str], LocalEngine]
) -> None:
    model = opened(kind).base.model
    names = {name.rsplit(".", 1)[-1] for name in linear_modules(model, "all-linear")}
    assert names
    assert module not in names
    word = "PEFT adapts no out_proj" if module == "out_proj" else "whose output is no plain product"
    with pytest.raises(ModelError, match=word):
        linear_modules(model, [module])


@pytest.mark.parametrize("kind", ["qwen3_moe", "mixtral"])
def test_experts_without_an_adapter_are_told(kind: str, opened: Callable[[str], LocalEngine]) -> None:
    engine = opened(kind)
    (note,) = [note for note in engine.notes(Lora()) if "all-linear" in note]
    sizes = {name: parameter.numel() for name, parameter in engine.base.model.named_parameters()}
    untouched = sum(size for name, size in sizes.items() if "experts" in name or "mlp.gate.weight" in name)
    for name in ("mlp.experts.gate_up_proj", "mlp.experts.down_proj", "mlp.gate.weight"):
        assert name in note
    assert f"{untouched / sum(sizes.values()):.0%}" in note
    assert "PEFT would adapt experts too" in note


def test_a_usual_base_has_no_notes(opened: Callable[[str], LocalEngine]) -> None:
    assert opened("qwen2").notes(Lora()) == ()


def test_a_tower_beside_the_language_part_gets_no_adapter(opened: Callable[[str], LocalEngine]) -> None:
    engine = opened("gemma3")
    assert engine.base.max_length == 256
    for targets in ("all-linear", ["q_proj"]):
        assert all("language_model" in name for name in linear_modules(engine.base.model, targets))
    with pytest.raises(ModelError, match="no module has that name"):
        linear_modules(engine.base.model, ["fc1"])
    assert any("embeddings.patch_embedding" in note for note in engine.notes(Lora()))
