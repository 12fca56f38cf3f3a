"""Every fast way of training gives what the plain way gives."""

from __future__ import annotations

import runpy
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from test_train import engine_for, examples, jobs, weights_of
from transformers import AutoConfig, AutoModelForCausalLM

from traitmap.engine import attention
from traitmap.engine.attention import layout_attention
from traitmap.engine.base import largest_group, plan_passes, training_bytes
from traitmap.engine.contract import TrainingJob
from traitmap.engine.cpu.products import pad_to_bucket
from traitmap.engine.forward_paths import find_forward_paths
from traitmap.engine.local import LocalEngine
from traitmap.engine.lora import Resident, Slice, new_adapter, resident
from traitmap.engine.passes import Row, batches_by_owner, compute_at_positions, read_logits
from traitmap.engine.train import AdapterTrainingState, backward_from, train_group
from traitmap.engine.training_blocks import fused_blocks, layers_of, recomputed_layers
from traitmap.errors import EngineError, ModelError
from traitmap.progress import silent
from traitmap.study.settings import Lora, Model, Training


def mixed_jobs(dropout: float = 0.0) -> list[TrainingJob]:
    """Ranks, scales, targets and lengths that differ; the second ends early."""
    settings = [
        Lora(r=4, lora_alpha=8, lora_dropout=dropout),
        Lora(r=8, lora_alpha=8, lora_dropout=dropout, use_rslora=True),
        Lora(r=2, lora_alpha=32, lora_dropout=dropout, target_modules=("q_proj", "down_proj", "v_proj")),
    ]
    return [
        TrainingJob(job.name, job.seed, job.examples, lora, job.training)
        for job, lora in zip(jobs(), settings, strict=True)
    ]


def trained(
    engine: LocalEngine, some: list[TrainingJob], budget: int = 150, **options
) -> list[AdapterTrainingState]:
    with layout_attention(engine.base.model, engine.base.layout):
        return train_group(engine.base, engine.encoder, some, budget, silent, **options)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize(
    ("dtype", "loss_bound", "weight_bound"), [("float64", 1e-9, 1e-7), ("float32", 1e-3, None)]
)
def test_ranks_scales_and_targets_may_differ_in_a_group(
    checkpoints, dropout: float, dtype: str, loss_bound: float, weight_bound: float | None
) -> None:
    engine = engine_for(checkpoints["llama"], dtype)
    together = trained(engine, mixed_jobs(dropout))
    alone = [trained(engine, [job], 10_000)[0] for job in mixed_jobs(dropout)]
    for one, other in zip(together, alone, strict=True):
        assert len(one.losses) == len(one.schedule)
        assert np.abs(np.subtract(one.losses, other.losses)).max() < loss_bound
        for name, value in weights_of(one).items():
            if weight_bound is not None:
                assert (value - weights_of(other)[name]).abs().max() < weight_bound


def test_bfloat16_follows_float32_within_its_rounding(checkpoints) -> None:
    exact = trained(engine_for(checkpoints["llama"]), mixed_jobs())
    rounded = trained(engine_for(checkpoints["llama"], "bfloat16"), mixed_jobs())
    for one, other in zip(exact, rounded, strict=True):
        assert other.adapter.flat is not None
        assert other.adapter.flat.dtype == torch.float32
        assert np.abs(np.subtract(one.losses[:5], other.losses[:5])).max() < 0.1


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox"])
def test_the_last_layer_where_it_is_read_gives_the_same_adapter(checkpoints, architecture: str) -> None:
    engine = engine_for(checkpoints[architecture], "float64")
    last_mlp = find_forward_paths(engine.base.model).last_mlp
    everywhere, read = trained(engine, jobs()), trained(engine, jobs(), last_mlp=last_mlp)
    assert last_mlp is not None
    for one, other in zip(everywhere, read, strict=True):
        assert np.allclose(one.losses, other.losses, rtol=0, atol=1e-11)
        assert torch.allclose(one.adapter.flat, other.adapter.flat, rtol=0, atol=1e-9)


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox"])
def test_layers_computed_twice_give_the_same_adapter_dropout_included(checkpoints, architecture: str) -> None:
    engine = engine_for(checkpoints[architecture], "float64")
    some = jobs(Lora(r=4, lora_alpha=8, lora_dropout=0.3))
    once, twice = (trained(engine, some, checkpointing=way) for way in (False, True))
    for one, other in zip(once, twice, strict=True):
        assert np.allclose(one.losses, other.losses, rtol=0, atol=1e-12)
        assert torch.allclose(one.adapter.flat, other.adapter.flat, rtol=0, atol=1e-10)


def test_layers_computed_twice_keep_less(checkpoints) -> None:
    """Counted in what autograd saves: the layers' inputs in place of all that is inside them."""
    engine = engine_for(checkpoints["llama"])
    row = Row(ids=np.arange(2, 60), reads=np.arange(58))
    kept = {}
    for way in (False, True):
        saved: list[int] = []
        hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda t, s=saved: s.append(t.numel()) or t, lambda t: t
        )
        (state,) = [trained(engine, jobs()[:1])[0]]
        with (
            layout_attention(engine.base.model, "stream"),
            resident(engine.base.model, [state.adapter]) as adapters,
            recomputed_layers(engine.base.model) if way else nullcontext(),
            hooks,
        ):
            adapters.training = True
            read_logits(engine.base.model, "stream", [row], adapters)
        kept[way] = sum(saved)
    assert len(layers_of(engine.base.model)) == 2
    assert kept[True] < 0.5 * kept[False]


class Cramped(torch.nn.Module):
    """A linear layer's double that runs out of memory above so many tokens."""

    def __init__(self, inner: torch.nn.Module, most: int) -> None:
        super().__init__()
        self.inner, self.most = inner, most

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.numel() // x.shape[-1] > self.most:
            raise torch.OutOfMemoryError("double of a full device")
        return self.inner(x)


def test_passes_are_halved_when_memory_runs_out_and_nothing_is_lost(checkpoints) -> None:
    engine = engine_for(checkpoints["llama"], "float64")
    expected = trained(engine, jobs(), 10_000)
    norm = engine.base.model.model.norm
    engine.base.model.model.norm = Cramped(norm, 90)
    found = trained(engine, jobs(), 10_000)
    for one, other in zip(expected, found, strict=True):
        assert np.allclose(one.losses, other.losses, rtol=0, atol=1e-10)
    engine.base.model.model.norm = Cramped(norm, 3)
    with pytest.raises(EngineError, match="out of memory: a training row of") as told:
        trained(engine, jobs(), 10_000)
    assert isinstance(told.value.__cause__, MemoryError)


def test_the_model_is_as_it_was_after_training(checkpoints) -> None:
    engine = engine_for(checkpoints["llama"])
    plain = AutoModelForCausalLM.from_pretrained(checkpoints["llama"])
    trained(engine, jobs()[:1], checkpointing=True)
    assert not [name for name, module in engine.base.model.named_modules() if "forward" in vars(module)]
    assert not [module for module in engine.base.model.modules() if module._forward_hooks]
    ids = torch.arange(2, 40)[None]
    with torch.no_grad():
        assert torch.equal(plain(ids).logits, engine.base.model(ids).logits)


def logits_and_grad(model, fused: bool) -> tuple[torch.Tensor, torch.Tensor]:
    start = model.get_input_embeddings()(torch.arange(2, 40)[None]).detach().requires_grad_()
    with fused_blocks(model) if fused else nullcontext():
        assert any("forward" in vars(module) for module in model.modules()) == fused
        y = model(inputs_embeds=start).logits
        y.float().square().mean().backward()
    return y.detach().float(), start.grad.float()


@pytest.mark.parametrize(
    ("family", "norms"),
    # Gemma 3 normalises before and behind each block, Qwen 3 and Gemma 3 queries and keys
    [
        ("llama", 5),
        ("qwen2", 5),
        ("mistral", 5),
        ("phi3", 5),
        ("qwen3", 9),
        ("olmo2", 9),
        ("gemma3_text", 13),
    ],
)
def test_fused_norms_and_rotations_are_transformers_own(family: str, norms: int) -> None:
    """Equal in float32; in bfloat16 not further from float32 than transformers' own, by a third at most."""
    config = AutoConfig.for_model(
        family,
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        pad_token_id=0,
        initializer_range=0.2,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).requires_grad_(False)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.add_(torch.randn(parameter.shape), alpha=0.3)
    with fused_blocks(model):
        assert sum("forward" in vars(module) for module in model.modules()) == norms
    for one, other in zip(logits_and_grad(model, False), logits_and_grad(model, True), strict=True):
        assert (one - other).abs().max() < 2e-5 * one.abs().max()
    model.to(torch.bfloat16)
    own, fused = logits_and_grad(model, False), logits_and_grad(model, True)
    exact = logits_and_grad(model.to(torch.float32), False)
    for truth, theirs, ours in zip(exact, own, fused, strict=True):
        assert (ours - truth).norm() < 1.33 * (theirs - truth).norm()


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.bfloat16, 3e-2)])
def test_short_attention_is_torchs_forward_and_backward(dtype: torch.dtype, bound: float) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = ((3, 4, 9, 8), (3, 2, 9, 8), (3, 2, 9, 8))
    parts = [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]
    found = []
    for way in (True, False):
        q, k, v = (part.clone().requires_grad_() for part in parts)
        if way:
            y = attention.short_attention(q, k, v, 0.3)
        else:
            y = torch.nn.functional.scaled_dot_product_attention(
                q, k, v, is_causal=True, scale=0.3, enable_gqa=True
            )
        y.square().sum().backward()
        found.append([y.detach(), q.grad, k.grad, v.grad])
    for one, other in zip(*found, strict=True):
        assert (one - other).abs().max() <= bound * other.abs().max()


def test_cross_entropy_in_place_is_torchs_in_pieces_too() -> None:
    generator = torch.Generator().manual_seed(0)
    start = 30 * torch.randn(7, 11, dtype=torch.float64, generator=generator)
    wanted, weights = torch.arange(7) % 11, torch.linspace(0.1, 2, 7, dtype=torch.float64)
    one, other = (start.clone().requires_grad_() for _ in range(2))
    terms = backward_from(one * 1.0, wanted, weights, piece=25)
    expected = torch.nn.functional.cross_entropy(other, wanted, reduction="none") * weights
    expected.sum().backward()
    assert torch.allclose(terms, expected.detach(), atol=1e-12)
    assert torch.allclose(one.grad, other.grad, atol=1e-12)


def test_attention_pads_little_and_finds_every_token_again() -> None:
    generator = np.random.default_rng(0)
    lengths = [int(n) for n in generator.integers(8, 400, 60)]
    rows = [np.arange(n) for n in lengths]
    plan = attention.plan_stream(lengths, rows, [None] * len(lengths), torch.device("cpu"), sum(lengths) + 5)
    assert len(plan.places) == sum(lengths)
    assert plan.size == sum(lengths) + 5
    assert 0 < plan.padding < 0.3
    stream = torch.arange(3 * sum(lengths))  # three heads
    gather, back = plan.by_head(3)
    assert len(gather) == 3 * sum(bucket.index.numel() for bucket in plan.buckets)
    assert torch.equal(stream[gather][back], stream)
    first = plan.buckets[0]
    of_first = gather[: 3 * first.index.numel()].view(len(first.index), 3, -1)
    assert torch.equal(of_first[:, 2], 3 * first.index + 2)


def test_sizes_are_few_and_not_far_above() -> None:
    for count, most in ((2, 1.5), (4, 1.25), (16, 1.0625)):
        sizes = [pad_to_bucket(n, count) for n in range(1, 4097)]
        assert all(n <= size < max(n + 1, most * n) for n, size in enumerate(sizes, 1))
        assert len({size for size in sizes if 512 < size <= 1024}) == count
        assert sizes == sorted(sizes)


def test_an_owners_rows_stay_together_where_they_fit() -> None:
    generator = np.random.default_rng(1)
    owners = [int(owner) for owner in generator.integers(0, 5, 80)]
    lengths = [int(n) for n in generator.integers(5, 60, 80)]
    totals = {owner: sum(n for n, o in zip(lengths, owners, strict=True) if o == owner) for owner in range(5)}
    budget = max(totals.values()) + 50
    batches = batches_by_owner(owners, lengths, budget)
    assert sorted(index for batch in batches for index in batch) == list(range(80))
    assert all(sum(lengths[i] for i in batch) <= budget for batch in batches)
    assert sum(len({owners[i] for i in batch}) for batch in batches) == 5
    small = batches_by_owner([*owners, 2], [*lengths, 500], 100)
    assert sorted(index for batch in small for index in batch) == list(range(81))
    assert all(batch == [80] or sum([*lengths, 500][i] for i in batch) <= 100 for batch in small)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_products_that_reach_into_others_tokens_leave_them_alone(dtype: torch.dtype) -> None:
    """Three adapters on 100 tokens, whose products come in round sizes, against autograd one by one."""
    torch.manual_seed(0)
    linear = torch.nn.Linear(24, 20).to(dtype).requires_grad_(False)
    adapters = [
        new_adapter({"up_proj": linear}, Lora(r=3, lora_alpha=9), torch.Generator().manual_seed(k))
        for k in range(3)
    ]
    slices = [Slice(0, 0, 37), Slice(1, 37, 55), Slice(2, 55, 100)]
    x = torch.randn(100, 24, dtype=dtype, requires_grad=True)
    weight = torch.randn(100, 20, dtype=dtype)
    with torch.no_grad():
        for adapter in adapters:
            adapter.b["up_proj"].copy_(torch.randn(20, 3))
    stack = Resident(adapters)
    stack.route(slices)
    ranges = stack.ranges(100)
    assert [(r.tokens.stop - r.tokens.start, r.before, r.after) for r in ranges] == [
        (48, 0, 11),
        (24, 0, 6),
        (48, 3, 0),
    ]
    y = stack.product("up_proj", linear, x)
    (y * weight).sum().backward()
    stack.collect()
    for adapter, piece in zip(adapters, slices, strict=True):
        part = x.detach()[piece.start : piece.stop].double().requires_grad_()
        a, b = (t.detach().double().requires_grad_() for t in (adapter.a["up_proj"], adapter.b["up_proj"]))
        exact = part @ linear.weight.double().T + linear.bias.double() + 3.0 * part @ a.T @ b.T
        (exact * weight[piece.start : piece.stop].double()).sum().backward()
        bound = 1e-6 if dtype == torch.float64 else 2e-2
        for mine, truth in (
            (y[piece.start : piece.stop], exact),
            (x.grad[piece.start : piece.stop], part.grad),
            (adapter.a["up_proj"].grad, a.grad),
            (adapter.b["up_proj"].grad, b.grad),
        ):
            assert (mine.double() - truth).abs().max() < bound * truth.abs().max()


def test_what_is_not_finite_stays_with_its_adapter_where_products_are_exact() -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(24, 20).requires_grad_(False)
    adapters = [new_adapter({"": linear}, Lora(r=3), torch.Generator().manual_seed(k)) for k in range(2)]
    x = torch.randn(100, 24)
    x[37:] = torch.nan
    found = {}
    for exact in (False, True):
        stack = Resident(adapters)
        stack.exact = exact
        stack.route([Slice(0, 0, 37), Slice(1, 37, 100)])
        adapters[0].gradient.zero_()
        stack.product("", linear, x.clone().requires_grad_()).sum().backward()
        found[exact] = bool(adapters[0].gradient.isfinite().all())
    assert found == {False: False, True: True}


def test_a_block_at_some_places_is_the_block_there_forward_and_backward() -> None:
    torch.manual_seed(0)
    block = torch.nn.Sequential(torch.nn.Linear(6, 6), torch.nn.Tanh()).double()
    x = torch.randn(1, 60, 6, dtype=torch.float64, requires_grad=True)
    places = np.arange(3, 60, 3)[:17]  # computed as 18
    with compute_at_positions(block, places, x.device):
        y = block(x)
    y.square().sum().backward()
    other = x.detach().clone().requires_grad_()
    expected = block(other[:, torch.from_numpy(places)])
    expected.square().sum().backward()
    assert torch.equal(y[:, torch.from_numpy(places)], expected)
    assert float(y.detach().abs().sum()) == pytest.approx(float(expected.detach().abs().sum()))
    assert torch.allclose(x.grad, other.grad, atol=1e-14)
    assert not block._forward_hooks


def test_a_group_is_as_large_as_memory_allows(checkpoints) -> None:
    model = engine_for(checkpoints["llama"]).base.model
    small, large = Lora(r=4), Lora(r=1024)
    assert largest_group(model, small, Training(), 2048) == 64
    one, _, _ = training_bytes(model, large)
    layers = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not model.lm_head]
    assert one == 20 * 1024 * sum(m.in_features + m.out_features for m in layers)
    huge = Lora().model_copy(update={"r": 4_000_000})  # more than a study may ask for
    assert largest_group(model, huge, Training(), 2048) == 1
    assert plan_passes(model, small, 8, 100, 2048) == plan_passes(model, small, 8, 300, 2048)
    budget, checkpointing = plan_passes(model, huge, 8, 100, 2048)
    assert checkpointing
    assert budget >= 100


def test_operations_are_counted_from_the_shapes(checkpoints) -> None:
    counted = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "flops.py"))
    training_flops, scoring_flops = counted["training_flops"], counted["scoring_flops"]
    model = engine_for(checkpoints["llama"]).base.model
    layers = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48)  # two of 4 heads and 2 key heads
    head = model.lm_head.weight.numel()
    low = 2 * 4 * (64 + 48 + 48 + 64 + 3 * 80)
    assert training_flops(model, Lora(r=4)) == 2 * (2 * layers + 2 * head + 3 * low)
    assert scoring_flops(model, read=0.0) == 2 * layers
    assert training_flops(model, Lora(r=4), checkpointing=True) == 2 * (3 * layers + 2 * head + 4 * low)


def test_four_bits_are_refused_where_they_cannot_be_computed(checkpoints) -> None:
    with pytest.raises(ModelError, match=r"load_in_4bit.*CUDA only"):
        LocalEngine.open(Model(path=str(checkpoints["llama"]), device="cpu", load_in_4bit=True))


@pytest.mark.parametrize("wild", [0, 1, 2])
def test_a_diverging_rank_leaves_the_others_alone(checkpoints, wild: int) -> None:
    engine = engine_for(checkpoints["llama"])
    some = mixed_jobs()
    settings = some[wild].training.model_copy(update={"learning_rate": 1e30, "warmup_steps": 0})
    some[wild] = TrainingJob(some[wild].name, 1, examples(1, 7, 30), some[wild].lora, settings)
    states = trained(engine, some, 400)
    assert [index for index, state in enumerate(states) if state.failure] == [wild]
    for index in {0, 1, 2} - {wild}:
        (alone,) = trained(engine, [some[index]])
        assert np.allclose(alone.losses, states[index].losses, atol=1e-3)
