"""Transformer layers that keep their input alone and are computed again on the way back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from traitmap.engine import attention


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
