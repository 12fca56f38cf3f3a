"""How much fits: adapters in a group, tokens in a pass, and when layers must be computed twice.

A rule on shapes and on the memory that the machine has, not on what happens to be free, so that the same
study is laid out alike each time. Where it is wrong, the trainer halves its passes when memory runs out.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from traitmap.engine.checkpointing import layers_of
from traitmap.engine.lora import linear_modules
from traitmap.study.settings import Lora, Training

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
