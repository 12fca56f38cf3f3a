"""An adapter merged into copies of the weights that it touches; the base's own are left alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from traitmap.engine.lora import AdapterWeights


def merged_weights(modules: Mapping[str, nn.Linear], adapter: AdapterWeights) -> dict[str, torch.Tensor]:
    """``W + scale B A`` of every module that the adapter touches, (out, in), in the base's precision.

    Exact to rounding in float32 and float64. In bfloat16 small updates would be lost in the sum.
    """
    with torch.no_grad():
        return {
            name: torch.addmm(
                modules[name].weight,
                adapter.b[name].to(modules[name].weight.dtype),
                adapter.a[name].to(modules[name].weight.dtype),
                alpha=adapter.scale[name],
            )
            for name in adapter.a
        }


@contextmanager
def swapped(modules: Mapping[str, nn.Linear], weights: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """The modules with other weights for the block. Nothing is copied, so the base comes back bit for bit."""
    own = {name: modules[name].weight.data for name in weights}
    try:
        for name, weight in weights.items():
            modules[name].weight.data = weight
        yield
    finally:
        for name, weight in own.items():
            modules[name].weight.data = weight
