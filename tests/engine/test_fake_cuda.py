"""The engine on fake CUDA tensors: nothing lies on the wrong device, and the host waits where it must alone.

On purpose it waits once for an optimizer step (twice where a number is not finite), once for a pass that is
scored, once for the next token of all texts (twice where some are drawn and some are not), and outside the
loops for each way that is tried on a base, for an adapter that is merged, and for one that is saved.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from math import nan
from pathlib import Path

import pytest
import torch
from fake_cuda import FakeCuda, FaultError
from test_continuous import GREEDY, SAMPLED, asked
from test_fast_training import mixed_jobs
from test_forward_paths import few_shot
from test_score import choice_requests
from torch import nn

from traitmap.data.records import Request
from traitmap.engine.adapters import save_adapter
from traitmap.engine.attention import layout_attention
from traitmap.engine.base import load_base
from traitmap.engine.contract import TrainingJob
from traitmap.engine.device import fetch, send
from traitmap.engine.forward_paths import ForwardPaths, find_forward_paths
from traitmap.engine.layouts import choose_decoding, choose_layout
from traitmap.engine.local import LocalEngine
from traitmap.engine.lora import new_adapter
from traitmap.engine.train import AdapterTrainingState, train_group
from traitmap.errors import ModelError
from traitmap.progress import silent
from traitmap.study.settings import Lora, Model

GIGABYTE = 2**30
TRIED = {"forward_paths", "layouts", "trials"}  # modules that try ways before any loop
THEIRS = {"transformers.cache_utils.lazy_initialization"}  # once a batch and layer, where windows slide


Open = Callable[..., LocalEngine]


def passes_of(engine: LocalEngine) -> list[int]:
    """Gets the rows of every pass of the model from now on."""
    passes = list[int]()
    engine.base.model.register_forward_pre_hook(lambda *_: passes.append(1))
    return passes


def few_jobs(dropout: float = 0.0) -> list[TrainingJob]:
    """Two unlike adapters, one for two steps and one for one."""
    first, _, last = mixed_jobs(dropout)
    return [
        replace(job, training=job.training.model_copy(update={"max_steps": steps, "warmup_steps": 1}))
        for job, steps in ((first, 2), (last, 1))
    ]


def trained(engine: LocalEngine, dropout: float = 0.0, **options) -> list[AdapterTrainingState]:
    """In passes of 60 tokens, several to a step."""
    with layout_attention(engine.base.model, engine.base.layout):
        return train_group(engine.base, engine.encoder, few_jobs(dropout), 60, silent, **options)


def test_every_way_is_tried_on_cuda(on: Open) -> None:
    cuda = FakeCuda()
    engine = on(cuda)
    with cuda.at_work():
        model = engine.base.model
        assert choose_layout(model) == ("stream", "")
        assert choose_decoding(model) == "batch"
        paths = find_forward_paths(model)
    assert (paths.cached, paths.fast) == (True, False)
    assert paths.last_mlp is model.model.layers[-1].mlp
    assert set(cuda.fetches) == {"trials._close", "trials._as_near"}
    assert not cuda.foreign


@pytest.mark.parametrize(
    ("architecture", "layout", "dropout", "twice"),
    [
        ("llama", "stream", 0.0, False),
        ("llama", "stream", 0.3, False),
        ("llama", "stream", 0.0, True),
        ("llama", "padded", 0.3, True),
        ("llama", "alone", 0.0, False),
        ("gemma3", "stream", 0.3, True),
        ("gemma3", "padded", 0.0, False),
    ],
)
def test_training_waits_once_a_step(
    on: Open, architecture: str, layout: str, dropout: float, twice: bool
) -> None:
    cuda = FakeCuda()
    engine = on(cuda, architecture, layout)
    passes = passes_of(engine)
    with cuda.at_work():
        last_mlp = engine.base.model.model.layers[-1].mlp if layout == "stream" else None
        states = trained(engine, dropout, checkpointing=twice, last_mlp=last_mlp)
    assert [(len(state.losses), state.failure) for state in states] == [(2, None), (1, None)]
    assert len(passes) > 2
    assert cuda.fetches == {"train._gradients": 2}
    assert not cuda.foreign


@pytest.mark.parametrize("number", [2.0, nan], ids=["clipped", "diverged"])
def test_gradients_that_are_clipped_or_not_finite_stay_on_cuda(on: Open, number: float) -> None:
    cuda = FakeCuda(number=number)
    engine = on(cuda)
    with cuda.at_work():
        states = trained(engine)
    if number == 2:
        assert [state.failure for state in states] == [None] * 2
        assert cuda.fetches == {"train._gradients": 2}
    else:
        assert all("diverged at step 1" in str(state.failure) for state in states)
        assert cuda.fetches == {"train._gradients": 2}


def adapter_of(engine: LocalEngine, folder: Path) -> Path:
    """A fresh adapter on every projection, saved."""
    modules = {name: module for name, module in engine.modules.items() if name.endswith("proj")}
    adapter = new_adapter(modules, Lora(r=4, lora_alpha=8), torch.Generator().manual_seed(0))
    save_adapter(folder, adapter, engine.base.path)
    return folder


def rolling() -> list[Request]:
    return [Request("loglikelihood_rolling", "the quick brown fox " * times) for times in (1, 5, 90)]


@pytest.mark.parametrize(
    ("architecture", "layout", "adapter"),
    [
        ("llama", "stream", None),
        ("llama", "stream", "merged"),
        ("llama", "stream", "beside the weights"),
        ("llama", "padded", None),
        ("llama", "padded", "beside the weights"),
        ("llama", "alone", None),
        ("llama", "stream without a cache", "merged"),
        ("gemma3", "stream", "beside the weights"),
        ("gemma3", "padded", None),
    ],
)
def test_scoring_waits_once_a_pass(
    on: Open, tmp_path: Path, architecture: str, layout: str, adapter: str | None
) -> None:
    cuda = FakeCuda()
    engine = on(cuda, architecture, layout.split()[0])
    passes = passes_of(engine)
    with cuda.at_work():
        folder = None if adapter is None else adapter_of(engine, tmp_path)
        engine.answer(choice_requests()[:1])  # the base is tried
        # an update is merged where rounding loses little of it: of 0 it loses 0, of 1 it loses 1
        cuda.number = 1.0 if adapter == "beside the weights" else 0.0
        if layout == "stream without a cache":
            engine.paths = ForwardPaths()
        for requests, prefixed in ((choice_requests(), False), (few_shot(), True), (rolling(), False)):
            engine.answer(requests[:1], folder)  # the adapter is read
            passes.clear()
            cuda.fetches.clear()
            answers = engine.answer(requests, folder)
            assert all(answer.logprob == cuda.number * answer.tokens for answer in answers)
            before = 2 if prefixed and layout == "stream" else 0  # of two prefixes, one behind the other
            assert cuda.fetches == {"requests.answers_from": len(passes) - before}
    # the caches of transformers, which are tried where a base may be decoded with them, wait by themselves
    assert not cuda.foreign.keys() - {"transformers.cache_utils.lazy_initialization"}


def test_an_adapter_is_trained_saved_and_merged_with_one_wait(on: Open, tmp_path: Path) -> None:
    cuda = FakeCuda()
    engine = on(cuda)
    folders = [tmp_path / "first", tmp_path / "second"]
    with cuda.at_work():
        assert [report.failure for report in engine.train(few_jobs(), folders)] == [None, None]
        assert set(cuda.fetches) == {
            "train._gradients",
            "adapters.save_adapter",
            "trials._close",
            "trials._as_near",
        }
        cuda.fetches.clear()
        engine.answer(choice_requests()[:1], folders[0])
    assert cuda.fetches == {"adapters.merged_weights": 1, "requests.answers_from": 1}


@pytest.mark.parametrize(
    ("architecture", "decoding", "draw"),
    [
        ("llama", "continuous", "greedy"),
        ("llama", "continuous", "both"),
        ("llama", "batch", "sampled"),
        ("llama", "one", "greedy"),
        ("llama", "anew", "greedy"),
        ("gemma3", "continuous", "sampled"),
        ("gemma3", "batch", "greedy"),
    ],
)
def test_generation_waits_once_a_token(on: Open, architecture: str, draw: str, decoding: str) -> None:
    cuda = FakeCuda(tokens=300)
    engine = on(cuda, architecture)
    engine.slots = 5
    greedy, sampled = (asked({**how, "max_gen_toks": 5}, 18) for how in (GREEDY, SAMPLED))
    requests = {"greedy": greedy, "sampled": sampled, "both": [*greedy[::2], *sampled[1::2]]}[draw]
    passes = passes_of(engine)
    with cuda.at_work():
        engine.answer(choice_requests()[:1])
        if decoding != "continuous":
            engine.paths = ForwardPaths(decoding=decoding)
        cuda.fetches.clear()
        passes.clear()
        answers = engine.answer(requests)
    if draw == "greedy":
        assert len({answer.tokens for answer in answers}) > 2  # they leave at unlike times
    passes_read = len(passes) - (decoding == "continuous")  # not that over the prefix
    waits = cuda.fetches["generate.next_tokens"]
    assert passes_read <= waits <= (2 if draw == "both" else 1) * passes_read
    assert set(cuda.fetches) == {"generate.next_tokens"}
    assert set(cuda.foreign) <= THEIRS


class Linear4bit(nn.Linear):
    """As of bitsandbytes: its weight is packed, its output in the dtype of its input."""

    __module__ = "bitsandbytes.nn"

    def __init__(self, own: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = own.in_features, own.out_features
        numbers = own.weight.numel() // 2
        self.weight = nn.Parameter(own.weight.new_empty(numbers, 1, dtype=torch.uint8), requires_grad=False)
        self.bias = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ x.new_empty(self.in_features, self.out_features)


def test_a_base_in_four_bits_is_trained_beside_its_weights(on: Open, tmp_path: Path) -> None:
    cuda = FakeCuda()
    engine = on(cuda)
    with cuda.at_work():
        for layer in engine.base.model.model.layers:
            for part in (layer.self_attn, layer.mlp):
                for name, module in part.named_children():
                    if isinstance(module, nn.Linear):
                        setattr(part, name, Linear4bit(module))
        engine = LocalEngine(engine.base)
        assert all(state.failure is None for state in trained(engine))
        folder = adapter_of(engine, tmp_path)
        engine.answer(choice_requests(), folder)
    assert cuda.fetches["train._gradients"] == 2
    assert not cuda.fetches["adapters.merged_weights"]


def test_four_bits_need_bitsandbytes_and_cuda(checkpoints) -> None:
    four = Model(path=str(checkpoints["llama"]), device="cpu", load_in_4bit=True)
    with pytest.raises(ModelError, match="computed on CUDA only, the device is cpu"):
        load_base(four, Path())


FAULTS: dict[str, tuple[str, Callable[[torch.Tensor], object]]] = {
    "item": ("waits", lambda x: x.sum().item()),
    "tolist": ("waits", lambda x: x.tolist()),
    "cpu": ("waits", lambda x: x.cpu()),
    "branch": ("waits", lambda x: 1 if (x > 0).any() else 0),
    "mask": ("waits", lambda x: x[x > 0]),
    "list as index": ("waits", lambda x: x[[0, 1]]),
    "equal": ("waits", lambda x: torch.equal(x, x)),
    "made from a list": ("waits", lambda x: torch.tensor([1.0, 2.0], device=x.device)),
    "sent and waited for": ("waits", lambda x: torch.ones(3).to(x.device)),
    "copied into": ("waits", lambda x: x.copy_(torch.ones(3, 3))),
    "made on the CPU": ("device", lambda x: x + torch.ones(3)),
    "index on the CPU": ("device", lambda x: x.index_select(0, torch.arange(2))),
    "whole numbers": ("multiplies no", lambda x: x.long() @ x.long()),
    "two dtypes": ("multiplies no", lambda x: x @ x.bfloat16()),
    "a kernel of a CPU": ("a CPU", lambda x: torch.ops.mkldnn._linear_pointwise(x, x, None, "none", [], "")),
    "half": ("half precision", lambda x: torch.linalg.qr(x.bfloat16())),
    "generator": ("generator", lambda x: torch.rand(2, generator=torch.Generator(), device=x.device)),
}


@pytest.mark.parametrize("inference", [False, True], ids=["training", "inference"])
@pytest.mark.parametrize("fault", FAULTS)
def test_what_a_gpu_refuses_or_waits_for_is_a_fault(fault: str, inference: bool) -> None:
    cuda = FakeCuda()
    words, do = FAULTS[fault]
    with cuda.at_work(), torch.inference_mode() if inference else nullcontext():
        x = torch.ones(3, 3, device="cuda:0")
        with pytest.raises(FaultError, match=words):
            do(x)


def test_what_a_gpu_does_is_none() -> None:
    cuda = FakeCuda(number=2.0, tokens=1)
    with cuda.at_work():
        x = torch.ones(3, 3, device="cuda:0", requires_grad=True)
        places = send(torch.arange(2), x.device)
        loss = (x.index_select(0, places) @ x)[:, 1].square().sum() * torch.tensor(2.0)
        loss.backward()
        assert x.grad is not None
        assert x.grad.device == x.device
        assert fetch(x.bfloat16()).tolist() == [[2.0] * 3] * 3
        assert fetch(places).tolist() == [0, 0]
    assert sum(cuda.fetches.values()) == 2
    assert isinstance(cuda.fetches, Counter)
