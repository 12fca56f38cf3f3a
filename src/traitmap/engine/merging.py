"""An adapter merged into copies of the weights that it touches; the base's own are left alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from traitmap.engine.lora import AdapterWeights

LOST = 0.25  # share of an update that rounding the sum may cost


def merged_weights(
    modules: Mapping[str, nn.Linear], adapter: AdapterWeights
) -> dict[str, torch.Tensor] | None:
    """``W + scale B A`` of every module that the adapter touches, (out, in), in the base's precision.

    The sum is formed in float32 at least. None where rounding it loses more than ``LOST`` of the update
    (Frobenius norm, over all modules): so small an update must stay beside the weights. What is lost below
    that is no more than rounding the base to its precision has cost, and has no direction.
    """
    merged, update, lost = dict[str, torch.Tensor](), 0.0, 0.0
    with torch.no_grad():
        for name in adapter.a:
            weight, a, b = modules[name].weight, adapter.a[name], adapter.b[name]
            wide = torch.addmm(weight.to(b.dtype), b, a, alpha=adapter.scale[name])
            merged[name] = wide.to(weight.dtype)
            if weight.dtype != b.dtype:
                lost += float((wide - merged[name]).square_().sum())
                update += float(wide.sub_(weight).square_().sum())
    return merged if lost <= LOST**2 * update else None


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
