"""The base model: where it lies, what it is made of, and what fits into memory beside it.

How much fits (adapters in a group, tokens in a pass, whether layers must be computed twice) is a rule on
shapes and on the memory that the machine has, not on what happens to be free, so that the same study is
laid out alike each time. Where it is wrong, the trainer halves its passes when memory runs out.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from traitmap.data.whole_models import located, model_digest
from traitmap.engine.adapted_modules import linear_modules
from traitmap.engine.cpu.fast_decoder import FastDecoder
from traitmap.engine.device import device_of, memory_of
from traitmap.engine.forward_paths import ForwardPaths
from traitmap.engine.layouts import Kernels, choose_kernels, choose_layout, rope_switch
from traitmap.engine.lora import Resident
from traitmap.engine.requests import RequestCache
from traitmap.engine.tokens import Encoder
from traitmap.engine.training_blocks import layers_of
from traitmap.errors import ModelError, whole_reason
from traitmap.study.paths import model_location
from traitmap.study.settings import Lora, Model, Training

_OTHER_HEADS = ("classifier", "summary")


@dataclass(frozen=True)
class Base:
    """A frozen base model, ready for passes.

    layout: the fastest of ``layouts`` that was found to give the model's own logits; reason: why none faster
    does. kernels: those of CUDA that a trial found right. digest: of weights, configuration, tokenizer and
    dtype. cached: whether a pass may go on from a key-value cache. switch: the length of rows at which
    positions are turned otherwise, see ``rope_switch``. memory: bytes of its device to plan with; None asks
    the device.
    """

    model: Any
    tokenizer: Any
    path: str
    revision: str | None
    layout: str
    digest: str
    max_length: int
    cached: bool = True
    reason: str = ""
    kernels: Kernels = field(default_factory=Kernels)
    switch: int | None = None
    memory: int | None = None


@dataclass(frozen=True)
class ActiveModel:
    """The base with an adapter at work (merged, hooked on, or put in by PEFT), ready to answer requests.

    adapters: those that are hooked on. paths: the forward paths that are valid on it; fast: the fast CPU pass
    over its weights as they are now, None where that is not valid. pass_tokens: computed in one pass;
    prefix_tokens: of prefixes whose keys and values are kept at a time; cache_tokens: in the key-value cache
    of texts that are generated, at most ``slots`` at a time. cache: what earlier calls made of requests.
    """

    base: Base
    encoder: Encoder
    adapters: Resident | None
    paths: ForwardPaths
    fast: FastDecoder | None
    pass_tokens: int
    prefix_tokens: int
    cache_tokens: int
    slots: int
    cache: RequestCache


def load_base(settings: Model, study_folder: Path) -> Base:
    """Load model and tokenizer. ModelError says what is wrong with them."""
    folder = located(settings, study_folder)
    device = device_of(settings.device)
    usual = torch.bfloat16 if device.type == "cuda" else torch.float32
    dtype: torch.dtype = usual if settings.dtype == "auto" else getattr(torch, settings.dtype)
    trust = settings.trust_remote_code
    quantised = _four_bits(device, dtype) if settings.load_in_4bit else {}
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    config = None
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust)
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, config=config, dtype=dtype, trust_remote_code=trust, use_safetensors=True, **quantised
        )
    except (OSError, ValueError, ImportError, KeyError) as error:
        reason = whole_reason(error)
        if config is not None and type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
            reason = (
                f"transformers has no causal language model of the type {config.model_type!r}, so lm-eval's "
                "HFLM cannot read it either; of a base with images or sound give the language part, saved as "
                "a model of its own."
            )
        raise ModelError(
            f"model.path {settings.path!r}: cannot be loaded as a causal language model: {reason}"
        ) from error
    finally:
        if bars:
            transformers_logging.enable_progress_bar()
    if not quantised:
        model.to(device)
    model.eval().requires_grad_(False)
    layout, reason = choose_layout(model)
    kernels = choose_kernels(model) if layout == "stream" and device.type == "cuda" else Kernels()
    return Base(
        model=model,
        tokenizer=tokenizer,
        path=str(folder)
        if Path(str(model_location(settings.path, study_folder))).is_dir()
        else settings.path,
        revision=settings.revision,
        layout=layout,
        digest=model_digest(folder, f"{dtype} nf4" if quantised else str(dtype)),
        max_length=max_length(model.config, tokenizer),
        reason=reason,
        kernels=kernels,
        switch=rope_switch(model.config),
    )


def base_dropout(config: Any) -> dict[str, float]:
    """The dropout that a base's own configuration asks for while it is trained: setting -> share.

    The base is frozen and computed as it is evaluated, without it, as PEFT has it after ``from_pretrained``.
    Not that of heads that a language model does not have.
    """
    settings = config.get_text_config().to_dict()
    return {
        name: value
        for name, value in settings.items()
        if isinstance(value, float) and value > 0 and "drop" in name and not name.startswith(_OTHER_HEADS)
    }


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


def max_length(config: Any, tokenizer: Any) -> int:
    """Tokens that a model can read at once: its positions, else what its tokenizer says, else 2,048."""
    text = config.get_text_config()
    for attribute in ("n_positions", "max_position_embeddings", "n_ctx"):
        if getattr(text, attribute, None):
            return int(getattr(text, attribute))
    length = int(tokenizer.model_max_length)
    return length if length < 10**9 else 2048


LARGEST = 64  # adapters of one group: beyond it nothing is gained
_STATE = 4 * 4  # bytes per number of an adapter: itself, its gradient, two moments, in float32; beside them
# the numbers as passes read them and, in another precision, the gradients of a pass
_KEPT = 1.5  # kept activations, in units of what the linear modules read and write
_LEAST = 512  # tokens of a pass below which layers are rather computed twice


def training_bytes(model: Any, lora: Lora) -> tuple[int, int, int]:
    """Bytes that training takes: (of an adapter with its optimizer, per token of a pass with all layers kept,
    the same where layers are computed twice)."""
    adapted = linear_modules(model, lora.target_modules).values()
    numbers = sum(lora.r * (module.in_features + module.out_features) for module in adapted)
    size = model.dtype.itemsize
    head = model.get_output_embeddings()
    modules = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    kept = int(_KEPT * sum(module.in_features + module.out_features for module in modules) * size)
    layers = max(1, len(layers_of(model)))
    vocabulary = 0 if head is None else head.out_features * size
    hidden = model.config.get_text_config().hidden_size * size
    return (
        numbers * (_STATE + (size if model.dtype == torch.float32 else 2 * size)),
        kept + vocabulary,
        layers * hidden + kept // layers + vocabulary,
    )


def largest_group(model: Any, lora: Lora, training: Training, budget: int, memory: int | None = None) -> int:
    """Adapters that can be trained together beside passes of ``budget`` tokens; at least 1, at most 64.

    memory: bytes to plan with; None asks the model's device.
    """
    adapter, _, checkpointed = training_bytes(model, lora)
    free = _room_beside(model, memory) - checkpointed * max(budget, training.max_length)
    return int(min(LARGEST, max(1, free // adapter)))


def plan_passes(
    model: Any, lora: Lora, adapters: int, longest: int, budget: int, memory: int | None = None
) -> tuple[int, bool]:
    """(tokens of a pass, whether layers are computed twice) for a group; longest: tokens of its longest row.

    Smaller passes come first; layers are computed twice where even a pass of a few rows is too much.
    memory: as in ``largest_group``.
    """
    adapter, token, checkpointed = training_bytes(model, lora)
    free = _room_beside(model, memory) - adapters * adapter
    least = max(longest, min(_LEAST, budget))
    if token * least <= free:
        return min(budget, max(least, free // token)), False
    return min(budget, max(longest, free // checkpointed, 1)), True


def _room_beside(model: Any, memory: int | None) -> int:
    whole = memory_of(model.device) if memory is None else memory
    return whole - sum(p.numel() * p.element_size() for p in model.parameters())
