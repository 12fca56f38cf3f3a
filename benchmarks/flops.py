"""Arithmetic that training and scoring take, and what this machine's matrix products reach."""

from __future__ import annotations

import time
from typing import Any

import torch

from traitmap.engine.adapted_modules import linear_modules
from traitmap.study.settings import Lora

_SIDE = {"cpu": 1024, "cuda": 8192}  # of the square matrices whose product is timed


def training_flops(
    model: Any, lora: Lora, *, length: float = 0.0, learnt: float = 1.0, checkpointing: bool = False
) -> float:
    """Floating-point operations per token of data in training one adapter over the frozen base.

    A product of a token with a matrix of P numbers takes 2 P; the base's are done twice (forward, and the
    gradient of the input), the adapter's three times. The gradient of the base's weights is never taken.
    length: mean tokens of a row, for attention: 4 products of length/2 places each way, backward twice.
    learnt: share of the tokens at which the vocabulary's logits are computed. checkpointing: one more
    forward pass of the layers.
    """
    linear, head = _weights(model)
    adapted = linear_modules(model, lora.target_modules)
    low = sum(lora.r * (module.in_features + module.out_features) for module in adapted.values())
    passes = 3 if checkpointing else 2
    attention = (passes + 1) * _attention(model, length)
    return 2.0 * (passes * linear + 2 * head * learnt + (passes + 1) * low) + attention


def scoring_flops(model: Any, *, length: float = 0.0, read: float = 1.0) -> float:
    """Floating-point operations per token of a forward pass without adapters, or with merged ones.

    length: mean tokens that a token looks back over, doubled; read: share of tokens with logits.
    """
    linear, head = _weights(model)
    return 2.0 * (linear + head * read) + _attention(model, length)


def measured_ceiling(model: Any) -> float:
    """Floating-point operations per second of a large square product in the model's dtype, here and now.

    On a CPU per CPU second (of all threads), on CUDA per second. The best of five.
    """
    device = model.device
    side = _SIDE.get(device.type, _SIDE["cpu"])
    one, other = (torch.randn(side, side, device=device).to(model.dtype) for _ in range(2))
    cpu = device.type == "cpu"
    clock = time.process_time if cpu else time.monotonic
    best = float("inf")
    for _ in range(5):
        if not cpu:
            torch.cuda.synchronize(device)
        before = clock()
        for _ in range(4):
            torch.mm(one, other)
        if not cpu:
            torch.cuda.synchronize(device)
        best = min(best, (clock() - before) / 4)
    return 2.0 * side**3 / best


def _weights(model: Any) -> tuple[int, int]:
    """Numbers in the matrices of the layers, and in the output head."""
    head = model.get_output_embeddings()
    layers = sum(
        parameter.numel()
        for module in model.modules()
        if isinstance(module, torch.nn.Linear) and module is not head
        for name, parameter in module.named_parameters(recurse=False)
        if name == "weight"
    )
    return layers, 0 if head is None else head.weight.numel()


def _attention(model: Any, length: float) -> float:
    config = model.config.get_text_config()
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2.0 * length * config.num_hidden_layers * config.num_attention_heads * width
