"""An adapter trained in a group is the adapter that PEFT trains alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from traitmap.data.records import Example, Segment
from traitmap.engine.adapters import load_adapter, merged_weights, swapped
from traitmap.engine.attention import layout_attention
from traitmap.engine.contract import TrainingJob
from traitmap.engine.local import LocalEngine
from traitmap.engine.lora import resident
from traitmap.engine.passes import Row, read_logits
from traitmap.engine.train import AdapterTrainingState, learning_rate, new_training_state, train_group
from traitmap.progress import silent
from traitmap.study.settings import Lora, Model, Training

WORDS = ("the", "cat", "dog", "phone", "battery", "great", "bad", "12", "30", "hello", "answer", "review")
ARCHITECTURES = ("llama", "qwen2", "gpt_neox")


def examples(seed: int, count: int, longest: int) -> tuple[Example, ...]:
    generator = np.random.default_rng(seed)

    def sentence(limit: int) -> str:
        return " ".join(generator.choice(WORDS, generator.integers(1, limit)))

    return tuple(
        Example((Segment(sentence(longest) + " ->", False), Segment(" " + sentence(6), True)))
        for _ in range(count)
    )


def jobs(lora: Lora | None = None) -> list[TrainingJob]:
    """Three sources of different length, size, batch, steps and learning rate."""
    lora = lora or Lora(r=4, lora_alpha=8)
    base = {"warmup_steps": 3, "lr_scheduler_type": "cosine", "weight_decay": 0.1}
    settings = [
        Training(learning_rate=1e-2, batch_size=4, max_steps=20, **base),
        Training(learning_rate=5e-3, batch_size=2, max_steps=11, max_grad_norm=0.05, **base),
        Training(learning_rate=2e-2, batch_size=5, max_steps=20, loss_on="all", **base),
    ]
    sizes = [(11, 5), (7, 30), (6, 12)]
    return [TrainingJob(f"source{i}", i, examples(i, *sizes[i]), lora, settings[i]) for i in range(3)]


def engine_for(folder: Path, dtype: str = "float32") -> LocalEngine:
    return LocalEngine.open(Model(path=str(folder), dtype=dtype, device="cpu"))


def train_alone_with_peft(
    folder: Path, state: AdapterTrainingState, start: dict[str, torch.Tensor], dtype: torch.dtype
):
    """The plain loop that people write: one PEFT model, torch's AdamW, one batch at a time."""
    training = state.job.training
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    config = LoraConfig(
        r=state.job.lora.r,
        lora_alpha=state.job.lora.lora_alpha,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(model, config).to(dtype)
    parameters = {
        name.replace(".default", ""): value for name, value in model.named_parameters() if value.requires_grad
    }
    assert parameters.keys() == start.keys()
    with torch.no_grad():
        for name, value in parameters.items():
            value.copy_(start[name])
    optimizer = torch.optim.AdamW(parameters.values(), weight_decay=training.weight_decay)
    losses = []
    for step, batch in enumerate(state.schedule):
        rows = [state.examples[index] for index in batch]
        longest = max(len(row.ids) for row in rows)
        ids = torch.zeros(len(rows), longest, dtype=torch.long)
        labels = torch.full_like(ids, -100)
        mask = torch.zeros_like(ids)
        for place, row in enumerate(rows):
            ids[place, : len(row.ids)] = torch.from_numpy(row.ids)
            labels[place, : len(row.ids)] = torch.from_numpy(np.where(row.learn, row.ids, -100))
            mask[place, : len(row.ids)] = 1
        # transformers' own loss rounds to float32, which would hide what float64 is to show
        logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters.values(), training.max_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, len(state.schedule), training)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses, parameters


def weights_of(state: AdapterTrainingState) -> dict[str, torch.Tensor]:
    found = {}
    for name in state.adapter.a:
        found[f"base_model.model.{name}.lora_A.weight"] = state.adapter.a[name].detach().clone()
        found[f"base_model.model.{name}.lora_B.weight"] = state.adapter.b[name].detach().clone()
    return found


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("layout", ["stream", "padded"])
def test_group_equals_peft_alone(checkpoints, architecture: str, layout: str) -> None:
    for dtype, loss_bound, weight_bound in (("float32", 1e-5, None), ("float64", 1e-10, 1e-8)):
        engine = engine_for(checkpoints[architecture], dtype)
        assert engine.base.layout == "stream"
        object.__setattr__(engine.base, "layout", layout)
        starts = [weights_of(new_training_state(engine.base, engine.encoder, job)) for job in jobs()]
        with layout_attention(engine.base.model, layout):
            states = train_group(engine.base, engine.encoder, jobs(), budget=150, listener=silent)
        for state, start in zip(states, starts, strict=True):
            losses, parameters = train_alone_with_peft(
                checkpoints[architecture], state, start, getattr(torch, dtype)
            )
            assert len(state.losses) == len(state.schedule)
            assert np.abs(np.subtract(losses, state.losses)).max() < loss_bound
            assert losses[-1] < losses[0]
            if weight_bound is not None:
                for name, value in weights_of(state).items():
                    assert (value - parameters[name]).abs().max() < weight_bound


def test_saved_adapter_gives_the_same_logits_in_peft(checkpoints, tmp_path: Path) -> None:
    for architecture in ARCHITECTURES:
        engine = engine_for(checkpoints[architecture])
        folder = tmp_path / architecture
        folder.mkdir()
        (report,) = engine.train(jobs()[:1], [folder])
        assert report.failure is None
        plain = AutoModelForCausalLM.from_pretrained(checkpoints[architecture])
        row = Row(ids=np.arange(2, 60), reads=np.arange(58))
        peft = PeftModel.from_pretrained(plain, folder).eval()
        with torch.no_grad():
            expected = peft(input_ids=torch.from_numpy(row.ids)[None]).logits[0]
            base = read_logits(engine.base.model, "padded", [row])
            adapter = load_adapter(folder, engine.modules)
            with resident(engine.base.model, [adapter]) as adapters:
                hooked = read_logits(engine.base.model, "padded", [row], adapters)
            weights = merged_weights(engine.modules, adapter)
            assert weights is not None
            with swapped(engine.modules, weights):
                folded = read_logits(engine.base.model, "padded", [row])
            after = read_logits(engine.base.model, "padded", [row])
        assert (expected - base).abs().max() > 1e-2
        assert (expected - hooked).abs().max() < 1e-4
        assert (expected - folded).abs().max() < 1e-4
        assert torch.equal(base, after)


def test_result_does_not_depend_on_the_group_even_with_dropout(checkpoints) -> None:
    engine = engine_for(checkpoints["llama"], "float64")
    dropped = jobs(Lora(r=4, lora_alpha=8, lora_dropout=0.3))
    with layout_attention(engine.base.model, "stream"):
        together = train_group(engine.base, engine.encoder, dropped, budget=100, listener=silent)
        alone = [train_group(engine.base, engine.encoder, [job], 10_000, silent)[0] for job in dropped]
        without = train_group(engine.base, engine.encoder, jobs(), budget=100, listener=silent)
    for one, other, plain in zip(together, alone, without, strict=True):
        assert np.allclose(one.losses, other.losses, rtol=0, atol=1e-10)
        assert not np.allclose(one.losses, plain.losses, atol=1e-3)
        for name, value in weights_of(one).items():
            assert (value - weights_of(other)[name]).abs().max() < 1e-8


@pytest.mark.parametrize("way", ["fused", "added"])
def test_dropout_gradient_equals_autograds_through_the_same_mask(way: str) -> None:
    """Published multi-LoRA backward passes are wrong with dropout; this one is held against autograd."""
    from traitmap.engine import lora as module

    torch.manual_seed(0)
    linear = torch.nn.Linear(6, 5).double().requires_grad_(False)
    adapter = module.new_adapter({"": linear}, Lora(r=3, lora_dropout=0.5), torch.Generator().manual_seed(1))
    with torch.no_grad():
        adapter.a[""].copy_(torch.randn(3, 6))
        adapter.b[""].copy_(torch.randn(5, 3))
    piece = module.Slice(0, 0, 7, rows=((11, 4), (12, 3)))
    x = torch.randn(7, 6, dtype=torch.float64, requires_grad=True)
    stack = module.Resident([adapter])
    stack.training = True
    stack.route([piece])
    weight = torch.randn(7, 5, dtype=torch.float64)
    y = stack.add_to("", x, linear(x)) if way == "added" else stack.product("", linear, x)
    (y * weight).sum().backward()
    found = (x.grad.clone(), adapter.a[""].grad.clone(), adapter.b[""].grad.clone())
    mask = module._dropout_mask(adapter, "", piece, x.detach())
    assert 0 < float((mask == 0).double().mean()) < 1
    a, b, x2 = (t.detach().clone().requires_grad_() for t in (adapter.a[""], adapter.b[""], x))
    ((linear(x2) + adapter.scale[""] * ((x2 * mask) @ a.T @ b.T)) * weight).sum().backward()
    for mine, theirs in zip(found, (x2.grad, a.grad, b.grad), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-12)


def test_a_diverging_adapter_is_taken_out_and_the_others_go_on(checkpoints, tmp_path: Path) -> None:
    engine = engine_for(checkpoints["llama"])
    good, bad = jobs()[0], jobs()[1]
    wild = bad.training.model_copy(update={"learning_rate": 1e30, "warmup_steps": 0})
    bad = TrainingJob(bad.name, bad.seed, bad.examples, bad.lora, wild)
    folders = [tmp_path / "good", tmp_path / "bad", tmp_path / "alone"]
    for folder in folders:
        folder.mkdir()
    fine, failed = engine.train([good, bad], folders[:2])
    assert fine.failure is None
    assert "diverged at step" in failed.failure
    assert not list(folders[1].iterdir())
    engine.train([good], folders[2:])
    together, alone = (load_file(folder / "adapter_model.safetensors") for folder in (folders[0], folders[2]))
    assert max(float((together[name] - alone[name]).abs().max()) for name in alone) < 1e-4


def test_same_seed_same_bytes_other_seed_other_bytes(checkpoints, tmp_path: Path) -> None:
    contents = []
    for run, seed in enumerate((0, 0, 1)):
        engine = engine_for(checkpoints["llama"])
        folder = tmp_path / str(run)
        folder.mkdir()
        job = jobs()[0]
        engine.train([TrainingJob(job.name, seed, job.examples, job.lora, job.training)], [folder])
        contents.append((folder / "adapter_model.safetensors").read_bytes())
    assert contents[0] == contents[1]
    assert contents[0] != contents[2]
