"""CUDA's kernels for what a stream computes row by row and adapter by adapter: the same numbers, forward and
backward. Products of all adapters run here as they are, attention by a plain double of the kernel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import inf

import numpy as np
import pytest
import torch
from fake_cuda import FakeCuda
from test_train import engine_for, jobs
from transformers import AutoModelForCausalLM

from traitmap.engine import attention
from traitmap.engine.attention import attending, layout_attention
from traitmap.engine.contract import TrainingJob
from traitmap.engine.cuda import packed
from traitmap.engine.layouts import Kernels, choose_kernels
from traitmap.engine.local import LocalEngine
from traitmap.engine.lora import AdapterWeights, new_adapter, resident
from traitmap.engine.passes import Row, read_logits
from traitmap.engine.train import AdapterTrainingState, train_group
from traitmap.progress import silent
from traitmap.study.settings import Lora

SCALES = (Lora(r=8, lora_alpha=8), Lora(r=8, lora_alpha=24), Lora(r=8, lora_alpha=8, use_rslora=True))


def trained(
    engine: LocalEngine, some: list[TrainingJob], kernels: Kernels, **options
) -> list[AdapterTrainingState]:
    base = replace(engine.base, kernels=kernels)
    with layout_attention(base.model, base.layout, kernels.attention):
        return train_group(base, engine.encoder, some, 150, silent, **options)


def alike_jobs() -> list[TrainingJob]:
    """Three adapters of one shape and unlike scales; they end after unlike numbers of steps."""
    return [
        replace(job, lora=lora, training=job.training.model_copy(update={"adam_epsilon": 1e-4}))
        for job, lora in zip(jobs(), SCALES, strict=True)
    ]


def of_one_product(tensor: torch.Tensor) -> int:
    """How often the graph behind a tensor has a product of all adapters at once."""
    seen, left = set(), [tensor.grad_fn]
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        left.extend(before for before, _ in node.next_functions)
    return sum(type(node).__name__ == "GroupedLinearBackward" for node in seen)


@pytest.mark.parametrize("twice", [False, True], ids=["kept", "computed twice"])
@pytest.mark.parametrize("architecture", ["llama", "gpt_neox"])
def test_one_product_for_all_adapters_trains_each_as_the_loop_does(
    checkpoints, architecture: str, twice: bool
) -> None:
    engine = engine_for(checkpoints[architecture])
    loop, at_once = (
        trained(engine, alike_jobs(), Kernels(grouped=grouped), checkpointing=twice)
        for grouped in (False, True)
    )
    assert len({len(state.losses) for state in loop}) > 1
    for one, other in zip(loop, at_once, strict=True):
        assert np.allclose(one.losses, other.losses, rtol=0, atol=1e-5)
        assert torch.allclose(one.adapter.flat, other.adapter.flat, rtol=0, atol=1e-4)


def adapters_for(engine: LocalEngine, *loras: Lora) -> list[AdapterWeights]:
    adapters = []
    for seed, lora in enumerate(loras):
        adapter = new_adapter(engine.modules, lora, torch.Generator().manual_seed(seed))
        for b in adapter.b.values():
            b.detach().normal_(0, 0.1, generator=torch.Generator().manual_seed(seed))
        adapters.append(adapter)
    return adapters


ROWS = [
    Row(ids=np.arange(3, 3 + size), reads=np.arange(size), owner=at) for at, size in enumerate((5, 9, 14))
]


@pytest.mark.parametrize(
    ("loras", "owners", "used"),
    [
        (SCALES, (0, 1, 2), True),
        (SCALES, (0, 2, 2), True),  # one adapter has no token in the pass
        (SCALES, (1, 1, 1), False),  # one has all of them: a loop of one
        ((Lora(r=8), Lora(r=8), Lora(r=16)), (0, 1, 2), False),
        ((Lora(r=3), Lora(r=3), Lora(r=3)), (0, 1, 2), False),  # rows of 12 bytes
        ((Lora(r=8, lora_dropout=0.1),) * 3, (0, 1, 2), False),
    ],
)
def test_what_the_kernel_does_not_take_is_left_to_the_loop(
    checkpoints, loras: tuple[Lora, ...], owners: tuple[int, ...], used: bool
) -> None:
    engine = engine_for(checkpoints["llama"])
    model = engine.base.model
    rows = [
        replace(row, owner=owner, key=at) for at, (row, owner) in enumerate(zip(ROWS, owners, strict=True))
    ]
    found = []
    for grouped in (False, True):
        adapters = adapters_for(engine, *loras)
        with attending(model, attention.NAME), resident(model, adapters, grouped=grouped) as together:
            together.training = True
            logits = read_logits(model, "stream", rows, together)
            counted = of_one_product(logits)
            logits.logsumexp(dim=1).sum().backward()
            together.collect()
        found.append([logits.detach(), *(adapter.gradient for adapter in adapters)])
    assert (counted > 0) is used
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)
    idle = set(range(3)) - set(owners)
    assert all(float(found[1][1 + owner].abs().max()) == 0 for owner in idle)


Parts = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def shares_of(q: torch.Tensor, k: torch.Tensor, scale: float, left: int) -> torch.Tensor:
    """(heads, L, L) softmax of one row; left: tokens before its own that a token sees, -1 all."""
    distance = torch.arange(q.shape[1])[:, None] - torch.arange(q.shape[1])
    hidden = (distance < 0) | (distance > (left if left >= 0 else len(distance)))
    return (q @ k.transpose(1, 2) * scale).masked_fill(hidden, -inf).softmax(dim=-1)


def one_row(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, left: int) -> torch.Tensor:
    return shares_of(q, k, scale, left) @ v


def one_row_back(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, left: int, dy: torch.Tensor
) -> Parts:
    shares, dshares = shares_of(q, k, scale, left), dy @ v.transpose(1, 2)
    dscores = shares * (dshares - (shares * dshares).sum(dim=-1, keepdim=True)) * scale
    return dscores @ k, dscores.transpose(1, 2) @ q, shares.transpose(1, 2) @ dy


def rows_of(
    ends: torch.Tensor, q: torch.Tensor, k: torch.Tensor, *others: torch.Tensor
) -> Iterator[list[torch.Tensor]]:
    """q, k and what is beside them, (heads, L, d) in float32 of one row after the other, heads repeated."""
    for start, stop in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        parts = [part[start:stop].float().transpose(0, 1) for part in (q, k, *others)]
        yield [part.repeat_interleave(q.shape[1] // part.shape[0], dim=0) for part in parts]


@dataclass
class FlashOnCpu:
    """windows: that the kernel was asked for. temperature: by which it multiplies scores too much; broken: it
    does not run."""

    windows: list[int] = field(default_factory=list)
    temperature: float = 1.0
    broken: bool = False


@pytest.fixture
def kernel() -> Iterator[FlashOnCpu]:
    """Flash attention for the CPU, row by row: gets the windows that it was asked for."""
    state = FlashOnCpu()

    def forward(q, k, v, ends, _ends, longest, _longest, _dropout, causal, _debug, *, scale=None, **options):
        left = options["window_size_left"]
        if state.broken:
            raise RuntimeError("no kernel image is available for execution on the device")
        state.windows.append(left)
        assert int(ends.diff().max()) == longest
        assert causal or options["window_size_right"] == 0
        scale = (q.shape[-1] ** -0.5 if scale is None else scale) * state.temperature
        out = torch.cat([one_row(*row, scale, left).transpose(0, 1) for row in rows_of(ends, q, k, v)])
        nothing = torch.zeros(0)
        return out.to(q.dtype), torch.zeros(q.shape[1], len(q)), nothing, nothing, nothing

    def backward(dy, q, k, v, _out, _lse, ends, *_rest, scale=None, window_size_left=-1, **_options):
        scale = q.shape[-1] ** -0.5 if scale is None else scale
        found = [
            one_row_back(*row[:3], scale, window_size_left, row[3]) for row in rows_of(ends, q, k, v, dy)
        ]
        whole = (torch.cat(parts, dim=1).transpose(0, 1) for parts in zip(*found, strict=True))
        # heads that share keys and values add up
        return tuple(
            grad.unflatten(1, (part.shape[1], -1)).sum(dim=2).to(part.dtype)
            for grad, part in zip(whole, (q, k, v), strict=True)
        )

    library = torch.library.Library("aten", "IMPL")
    library.impl("_flash_attention_forward", forward, "CPU")
    library.impl("_flash_attention_backward", backward, "CPU")
    yield state
    library._destroy()


def gradients(model, rows, name: str) -> list[torch.Tensor]:
    """Logits, and the gradient of every embedding that was read."""
    embedding = model.get_input_embeddings()
    embedding.weight.requires_grad_()
    try:
        with attending(model, name):
            logits = read_logits(model, "stream", rows)
        logits.float().logsumexp(dim=1).sum().backward()
        return [logits.detach().float(), embedding.weight.grad.float()]
    finally:
        embedding.weight.grad = None
        embedding.weight.requires_grad_(False)


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_attention_over_all_rows_at_once_is_that_of_the_stream(
    folders,
    kernel: FlashOnCpu,
    architecture: str,
) -> None:
    model = AutoModelForCausalLM.from_pretrained(folders[architecture], dtype=torch.bfloat16)
    model.eval().requires_grad_(False)
    rows = [replace(row, owner=0) for row in ROWS]
    by_rows, at_once = (gradients(model, rows, name) for name in (attention.NAME, packed.NAME))
    # Gemma's sliding layer sees 8 tokens, its own and 7 before it
    assert set(kernel.windows) == ({-1} if architecture == "llama" else {7, -1})
    for one, other in zip(by_rows, at_once, strict=True):
        assert (one - other).abs().max() < 0.03 * one.abs().max()
    shifted = gradients(model, [replace(ROWS[2], ids=ROWS[2].ids[::-1])], packed.NAME)[0]
    assert (shifted - at_once[0][-len(shifted) :]).abs().max() > 0.1 * shifted.abs().max()


def test_rows_with_branches_and_wider_dtypes_are_the_streams(checkpoints, kernel: FlashOnCpu) -> None:
    branched = Row(ids=np.arange(3, 12), reads=np.arange(9), branches=np.array([0] * 5 + [1, 1, 2, 2]))
    for dtype, rows in (("bfloat16", [branched]), ("float32", [replace(ROWS[0], owner=0)])):
        model = engine_for(checkpoints["llama"], dtype).base.model
        found = []
        for name in (attention.NAME, packed.NAME):
            with torch.no_grad(), attending(model, name):
                found.append(read_logits(model, "stream", rows))
        assert torch.equal(*found)
    assert not kernel.windows


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_kernels_that_are_right_are_chosen(folders, kernel: FlashOnCpu, architecture: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(folders[architecture], dtype=torch.bfloat16)
    assert choose_kernels(model.eval().requires_grad_(False)) == Kernels(packed=True, grouped=True)
    assert kernel.windows


def test_a_kernel_that_is_wrong_or_does_not_run_is_not_chosen(checkpoints, kernel: FlashOnCpu) -> None:
    model = engine_for(checkpoints["llama"], "bfloat16").base.model
    kernel.temperature = 2.0
    assert choose_kernels(model) == Kernels(packed=False, grouped=True)
    kernel.temperature, kernel.broken = 1.0, True
    assert choose_kernels(model) == Kernels(packed=False, grouped=True)


@pytest.mark.parametrize(
    "kernels", [Kernels(packed=True), Kernels(grouped=True), Kernels(packed=True, grouped=True)]
)
@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_kernels_wait_once_a_step_on_cuda(on, architecture: str, kernels: Kernels) -> None:
    cuda = FakeCuda()
    engine = on(cuda, architecture)
    engine.base = replace(engine.base, kernels=kernels)
    with cuda.at_work(), layout_attention(engine.base.model, "stream", kernels.attention):
        some = [
            replace(
                job,
                lora=Lora(r=8, lora_alpha=8),
                training=job.training.model_copy(update={"max_steps": steps, "warmup_steps": 1}),
            )
            for job, steps in zip(jobs()[:2], (2, 1), strict=True)
        ]
        states = train_group(engine.base, engine.encoder, some, 60, silent)
    assert [(len(state.losses), state.failure) for state in states] == [(2, None), (1, None)]
    assert cuda.fetches == {"train._gradients": 2}
    assert not cuda.foreign


def test_the_kernels_are_tried_on_cuda(on) -> None:
    cuda = FakeCuda()
    engine = on(cuda)
    with cuda.at_work():
        assert choose_kernels(engine.base.model) == Kernels(packed=True, grouped=True)
    assert set(cuda.fetches) <= {"trials._close", "trials._as_near"}
    assert not cuda.foreign
