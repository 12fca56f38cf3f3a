"""Which modules get an adapter: those that PEFT would adapt, or a word, and whose tokens each sees.

What is saved is loaded with PEFT in tests/architectures, for every architecture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_train import jobs

from plain_peft import logprob_alone, weights_of, with_adapter
from tiny_architectures import save_tiny
from traitmap.data.records import Request
from traitmap.engine.adapted_modules import is_linear, linear_modules
from traitmap.engine.attention import NAME, attending
from traitmap.engine.contract import TrainingJob
from traitmap.engine.local import LocalEngine
from traitmap.engine.lora import new_adapter, resident
from traitmap.engine.passes import Row, read_logits
from traitmap.engine.train import new_training_state, train_group
from traitmap.errors import ModelError
from traitmap.progress import silent
from traitmap.study.settings import Lora, Model


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], LocalEngine]:
    """An engine on a tiny model of a kind."""
    engines: dict[str, LocalEngine] = {}

    def open_kind(kind: str) -> LocalEngine:
        if kind not in engines:
            folder = tmp_path_factory.mktemp(kind)
            save_tiny(kind, folder)
            engines[kind] = LocalEngine.open(Model(path=str(folder), device="cpu", dtype="float32"))
        return engines[kind]

    return open_kind


def short_job() -> TrainingJob:
    """Of two steps."""
    (job, *_) = jobs()
    return replace(job, training=job.training.model_copy(update={"max_steps": 2, "warmup_steps": 0}))


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
    assert f"{100 * untouched / sum(sizes.values()):.0f} %" in note
    assert "PEFT would adapt experts too" in note


def test_a_usual_base_has_no_notes(opened: Callable[[str], LocalEngine]) -> None:
    assert opened("qwen2").notes(Lora()) == ()


def test_a_tower_beside_the_language_part_gets_no_adapter(opened: Callable[[str], LocalEngine]) -> None:
    engine = opened("gemma3_images")
    assert engine.base.max_length == 256
    for targets in ("all-linear", ["q_proj"]):
        assert all("language_model" in name for name in linear_modules(engine.base.model, targets))
    with pytest.raises(ModelError, match="no module has that name"):
        linear_modules(engine.base.model, ["fc1"])
    assert any("embeddings.patch_embedding" in note for note in engine.notes(Lora()))


def test_modules_of_shared_experts_that_peft_would_take_for_experts_get_no_adapter(
    opened: Callable[[str], LocalEngine],
) -> None:
    engine = opened("dots1")
    assert {name.rsplit(".", 1)[-1] for name in linear_modules(engine.base.model, "all-linear")} == {
        "q_proj", "k_proj", "v_proj", "o_proj",
    }  # fmt: skip
    (note,) = engine.notes(Lora())
    assert "mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight" in note
    with pytest.raises(ModelError, match="PEFT adapts no down_proj of a dots1 model"):
        linear_modules(engine.base.model, ["q_proj", "down_proj"])


def test_a_linear_subclass_that_multiplies_is_adapted(opened: Callable[[str], LocalEngine]) -> None:
    model = opened("falcon").base.model
    names = {name.rsplit(".", 1)[-1] for name in linear_modules(model, "all-linear")}
    assert names == {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"}
    module = model.transformer.h[0].self_attention.dense
    assert type(module).forward is not torch.nn.Linear.forward
    assert is_linear(module)


@pytest.mark.parametrize("long", [True, False])
def test_every_token_is_its_own_adapters_whatever_a_module_sees(
    long: bool, opened: Callable[[str], LocalEngine]
) -> None:
    """Modules behind the choice of tokens see those alone, and there may be nearly as many as tokens."""
    model = opened("modernbert_decoder").base.model
    draw = np.random.default_rng(0)
    length, reads = (250, 249) if long else (30, 5)
    rows = [Row(ids=draw.integers(2, 380, length), reads=np.arange(reads), owner=i // 2) for i in range(4)]
    modules = linear_modules(model, "all-linear")
    assert "lm_head.dense" in modules
    adapters = [new_adapter(modules, Lora(r=2), torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    with torch.no_grad(), attending(model, NAME):
        for adapter in adapters:
            for b in adapter.b.values():
                b.normal_(generator=torch.Generator().manual_seed(2))
        alone = []
        for row in rows:
            with resident(model, [adapters[row.owner]]) as one:
                alone.append(read_logits(model, "stream", [replace(row, owner=0)], one))
        with resident(model, adapters) as both:
            together = read_logits(model, "stream", rows, both)
    assert (torch.cat(alone) - together).abs().max() < 1e-4


def test_an_adapter_on_one_of_two_modules_with_one_matrix_changes_that_alone(
    opened: Callable[[str], LocalEngine], tmp_path: Path
) -> None:
    engine, job = opened("zamba"), short_job()
    assert engine.train([job], [tmp_path])[0].failure is None
    request = Request("loglikelihood", "Review: great phone. Sentiment:", " positive")
    right = logprob_alone(with_adapter(Path(engine.base.path), tmp_path), engine, request)
    assert engine.answer([request], tmp_path)[0].logprob == pytest.approx(right, abs=1e-4)


def test_dropout_of_a_base_is_off_and_told(tmp_path: Path) -> None:
    """As PEFT has it on a base as ``from_pretrained`` gives it, in evaluation mode."""
    losses = []
    for share in (0.0, 0.5):
        folder = tmp_path / str(share)
        save_tiny("opt", folder, settings={"dropout": share, "attention_dropout": share})
        engine = LocalEngine.open(Model(path=str(folder), device="cpu", dtype="float32"))
        losses.append(engine.train([short_job()], [tmp_path / f"adapter{share}"])[0].losses)
        notes = [note for note in engine.notes(Lora()) if "dropout" in note]
        assert bool(notes) == bool(share)
    assert losses[0] == losses[1]
    assert "(dropout 0.5, attention_dropout 0.5)" in notes[0]
    assert "Trainer would turn it on" in notes[0]


def test_a_module_that_the_model_never_calls_keeps_its_start(opened: Callable[[str], LocalEngine]) -> None:
    """Jamba reads the weight of dt_proj itself: no gradient, and so, as in PEFT, no weight decay either."""
    engine = opened("jamba")
    job = short_job()
    start = weights_of(new_training_state(engine.base, engine.encoder, job))
    (state,) = train_group(engine.base, engine.encoder, [job], 1000, silent)
    moved = {name for name, value in weights_of(state).items() if not torch.equal(value, start[name])}
    assert job.training.weight_decay > 0
    assert {name for name in start if name not in moved} == {name for name in start if ".dt_proj." in name}
