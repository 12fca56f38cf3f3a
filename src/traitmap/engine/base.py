"""The base model: where it lies, what it is made of, and which way through it is right.

Transformer layers that keep their input alone and are computed again on the way back.

How much fits: adapters in a group, tokens in a pass, and when layers must be computed twice.

A rule on shapes and on the memory that the machine has, not on what happens to be free, so that the same
study is laid out alike each time. Where it is wrong, the trainer halves its passes when memory runs out.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from traitmap.engine import attention
from traitmap.engine.lora import linear_modules
from traitmap.engine.passes import Row, read_logits
from traitmap.errors import ModelError
from traitmap.study.paths import model_location
from traitmap.study.settings import Lora, Model, Training

_FILES = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model", "*.txt")
_NOT_THE_MODEL = ("recipe.json", "loss_curve.csv")


@dataclass(frozen=True)
class Base:
    """A frozen base model, ready for passes.

    layout: ``stream`` where the model's logits over an unpadded stream were found equal to its own,
    else ``padded``. digest: of weights, configuration, tokenizer and dtype.
    cached: whether a pass may go on from a key-value cache.
    """

    model: Any
    tokenizer: Any
    path: str
    revision: str | None
    layout: str
    digest: str
    max_length: int
    cached: bool = True


def load_base(settings: Model, study_folder: Path) -> Base:
    """Load model and tokenizer. ModelError says what is wrong with them."""
    folder = locate(settings, study_folder)
    device = _device(settings.device)
    dtype = _dtype(settings.dtype, device)
    trust = settings.trust_remote_code
    quantised = _four_bits(device, dtype) if settings.load_in_4bit else {}
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust)
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, config=config, dtype=dtype, trust_remote_code=trust, use_safetensors=True, **quantised
        )
    except (OSError, ValueError, ImportError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"model.path {settings.path!r}: cannot be loaded as a causal language model: {reason}"
        ) from error
    finally:
        if bars:
            transformers_logging.enable_progress_bar()
    if not quantised:
        model.to(device)
    model.eval().requires_grad_(False)
    return Base(
        model=model,
        tokenizer=tokenizer,
        path=str(folder)
        if Path(str(model_location(settings.path, study_folder))).is_dir()
        else settings.path,
        revision=settings.revision,
        layout=choose_layout(model),
        digest=_digest(folder, f"{dtype} nf4" if quantised else str(dtype)),
        max_length=_max_length(model.config, tokenizer),
    )


def locate(settings: Model, folder: Path) -> Path:
    """The local folder of a base model; hub ids are downloaded (safetensors and tokenizer only).

    folder: where relative paths start from, the study file's.
    """
    location = model_location(settings.path, folder)
    if isinstance(location, Path):
        if not location.is_dir():
            raise ModelError(f"model.path {settings.path!r}: there is no folder {location}.")
        return location
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        found = snapshot_download(settings.path, revision=settings.revision, allow_patterns=list(_FILES))
    except (OSError, HfHubHTTPError, ValueError) as error:
        raise ModelError(
            f"model.path {settings.path!r}: neither a local folder nor to be had from the hub "
            f"({type(error).__name__}). Check the name, the network, and `hf auth login` for gated models."
        ) from error
    return Path(found)


def choose_layout(model: Any) -> str:
    """``stream`` where a stream of two rows gives each row the logits that it has alone, else ``padded``.

    The check runs on the model itself, so an architecture that mixes tokens outside its attention
    (state space layers), changes the arithmetic of attention, or ignores the interface is found out.
    """
    generator = np.random.default_rng(0)
    rows = [
        Row(ids=generator.integers(0, model.config.vocab_size, size), reads=np.arange(size))
        for size in (7, 12)
    ]
    own = model.config._attn_implementation
    with torch.no_grad():
        expected = torch.cat([read_logits(model, "padded", [row]) for row in rows]).float()
        try:
            model.set_attn_implementation(attention.NAME)
            found = read_logits(model, "stream", rows).float()
        except (ValueError, TypeError, RuntimeError, AttributeError, IndexError):
            found = torch.full_like(expected, torch.nan)
        finally:
            model.set_attn_implementation(own)
    tolerance = 1e-4 if model.dtype in (torch.float32, torch.float64) else 5e-2
    error = (found - expected).abs().max() / expected.abs().max()
    return "stream" if bool(error <= tolerance) else "padded"


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ModelError(f"model.device {name!r}: unknown; legal: auto, cpu, cuda, cuda:N.") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ModelError(f"model.device {name!r}: torch sees no CUDA device here; use auto or cpu.")
    return device


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def _four_bits(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """What from_pretrained needs for NormalFloat4 weights, quantised twice (Dettmers et al., 2023)."""
    if device.type != "cuda":
        raise ModelError(
            f"model.load_in_4bit: weights in 4 bits are computed on CUDA only, the device is {device.type}; "
            "set it to false, or use dtype: bfloat16 to save memory."
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(
            "model.load_in_4bit: needs the package bitsandbytes: pip install bitsandbytes, or use false."
        )
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    return {"quantization_config": config, "device_map": {"": device}}


def _max_length(config: Any, tokenizer: Any) -> int:
    for attribute in ("n_positions", "max_position_embeddings", "n_ctx"):
        if getattr(config, attribute, None):
            return int(getattr(config, attribute))
    length = int(tokenizer.model_max_length)
    return length if length < 10**9 else 2048


def _digest(folder: Path, arithmetic: str) -> str:
    """SHA-256 over names and bytes of all files that make the model, and the arithmetic it runs in."""
    total = hashlib.sha256(arithmetic.encode())
    files = sorted(
        {path for pattern in _FILES for path in folder.glob(pattern)} - {folder / n for n in _NOT_THE_MODEL}
    )
    for path in files:
        with path.open("rb") as stream:
            total.update(json.dumps([path.name, hashlib.file_digest(stream, "sha256").hexdigest()]).encode())
    return total.hexdigest()[:32]


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The model's transformer layers: the longest list of modules of one class; empty where there is none."""
    lists = [list(module) for module in model.modules() if isinstance(module, nn.ModuleList)]
    alike = [found for found in lists if len({type(layer) for layer in found}) == 1]
    return max(alike, key=len, default=[])


@contextmanager
def recomputed_layers(model: nn.Module) -> Iterator[None]:
    """Every layer is checkpointed inside the block (Chen et al., 2016).

    Adapters draw their dropout masks from the keys of the rows, so the second pass draws the same ones.
    """
    layers = [layer for layer in layers_of(model) if "forward" not in vars(layer)]
    for layer in layers:
        layer.__dict__["forward"] = partial(_twice, layer.forward)
    try:
        yield
    finally:
        for layer in layers:
            del layer.__dict__["forward"]


def _twice(forward: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
    plan = attention.current_plan()

    def run(*again: Any) -> Any:
        # the backward pass runs outside the block that set the plan, on CUDA in a thread of its own
        with attention.streaming(plan) if plan is not None else nullcontext():
            return forward(*again, **options)

    if not torch.is_grad_enabled():
        return run(*inputs)
    return checkpoint(run, *inputs, use_reentrant=False, preserve_rng_state=False)


SHARE = {"cpu": 0.6, "cuda": 0.9}  # of the memory that is planned with; the rest is others' and for surprises
LARGEST = 64  # adapters of one group: beyond it nothing is gained
_STATE = 4 * 4  # bytes per number of an adapter: itself, its gradient, two moments, in float32; beside them
# the numbers as passes read them and, in another precision, the gradients of a pass
_KEPT = 1.5  # kept activations, in units of what the linear modules read and write
_LEAST = 512  # tokens of a pass below which layers are rather computed twice


@dataclass(frozen=True)
class Shape:
    """Bytes that a model's training takes. adapter: of one adapter with its optimizer. token: per token of
    a pass, layers kept; checkpointed: the same where layers are computed twice. base: of the model."""

    adapter: int
    token: int
    checkpointed: int
    base: int


@dataclass(frozen=True)
class PassPlan:
    """Tokens computed in one pass, and whether layers are computed twice."""

    budget: int
    checkpointing: bool


def shape_of(model: Any, lora: Lora) -> Shape:
    """The bytes of a base and of an adapter with these settings."""
    adapted = linear_modules(model, lora.target_modules).values()
    numbers = sum(lora.r * (module.in_features + module.out_features) for module in adapted)
    size = model.dtype.itemsize
    head = model.get_output_embeddings()
    modules = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    wide = sum(module.in_features + module.out_features for module in modules)
    layers = max(1, len(layers_of(model)))
    vocabulary = 0 if head is None else head.out_features * size
    kept = int(_KEPT * wide * size)
    hidden = model.config.get_text_config().hidden_size * size
    return Shape(
        adapter=numbers * (_STATE + (size if model.dtype == torch.float32 else 2 * size)),
        token=kept + vocabulary,
        checkpointed=layers * hidden + kept // layers + vocabulary,
        base=sum(p.numel() * p.element_size() for p in model.parameters()),
    )


def largest_group(model: Any, lora: Lora, training: Training, budget: int) -> int:
    """Adapters that can be trained together beside passes of ``budget`` tokens; at least 1, at most 64."""
    shape = shape_of(model, lora)
    pass_bytes = shape.checkpointed * max(budget, training.max_length)
    room = memory_of(model.device) - shape.base - pass_bytes
    return int(min(LARGEST, max(1, room // shape.adapter)))


def plan_passes(model: Any, lora: Lora, adapters: int, longest: int, budget: int) -> PassPlan:
    """How a group of adapters is trained whose longest row has ``longest`` tokens.

    Smaller passes come first; layers are computed twice where even a pass of a few rows is too much.
    """
    shape = shape_of(model, lora)
    room = memory_of(model.device) - shape.base - adapters * shape.adapter
    least = max(longest, min(_LEAST, budget))
    if shape.token * least <= room:
        return PassPlan(min(budget, max(least, room // shape.token)), False)
    return PassPlan(min(budget, max(longest, room // shape.checkpointed, 1)), True)


def memory_of(device: torch.device) -> int:
    """Bytes that may be planned with on a device: its share of all memory, within a container's limit."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory * SHARE["cuda"])
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for place in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(place).read_text(encoding="utf-8")))
        except (OSError, ValueError):
            continue
    return int(total * SHARE["cpu"])
