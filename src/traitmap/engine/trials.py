"""Trials: whether a faster way to compute logits gives those of the plain way, on the model at hand.

In float32 a way is right where its logits differ by rounding alone. In bfloat16 rounding alone moves logits
by some percent, and a way that is wrong may do no more; so there it is tried twice. On a float32 copy of the
weights only a wrong way differs. In the model's own precision a right one is about as far from the logits of
the copy as the plain way is, and a wrong one farther.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from traitmap.engine.device import fetch

Compute = Callable[[], torch.Tensor]

ROUNDING = 1e-4  # of the largest logit, in float32
_UNKNOWN = 5e-2  # the same for quantised weights, of which there is no float32 copy
_FARTHER = 4.0  # times as far from the float32 logits as the plain way is
_COPY = 2**32  # bytes of a copy: of a larger model its first layers are tried in float32
_NARROW = (torch.bfloat16, torch.float16)
_FAILURES = (ValueError, TypeError, RuntimeError, AttributeError, IndexError, KeyError, AssertionError)


@dataclass(frozen=True)
class Expected:
    """(P, V) logits of the plain way: in the model's own precision, and on its float32 copy."""

    own: torch.Tensor
    exact: torch.Tensor | None


class Trial:
    """Compares ways to compute logits on a model. Holds a float32 copy of narrower weights while it lives."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self._copy: list[tuple[nn.Parameter | torch.Tensor, torch.Tensor]] = []
        self._cut: tuple[nn.ModuleList, int] | None = None
        self._narrow = model.dtype in _NARROW
        if self._narrow and all(parameter.is_floating_point() for parameter in model.parameters()):
            self._cut = _cut(model)
            with self._shortened():
                tensors = [*model.parameters(), *model.buffers()]
            self._copy = [(tensor, tensor.data.float()) for tensor in tensors if tensor.dtype in _NARROW]

    def expected(self, plain: Compute) -> Expected:
        """What the plain way gives."""
        own = plain().float()
        if not self._copy:
            return Expected(own, None)
        with self._in_float32():
            return Expected(own, _computed(plain, own))

    def agrees(self, compute: Compute, expected: Expected) -> bool:
        """Whether a way runs and gives what is expected."""
        found = _computed(compute, expected.own)
        if found is None:
            return False
        if expected.exact is None:
            return _close(found, expected.own, _UNKNOWN if self._narrow else ROUNDING)
        with self._in_float32():
            wide = _computed(compute, expected.exact)
        if wide is None or not _close(wide, expected.exact, ROUNDING):
            return False
        if self._cut is not None:  # the copy is of another model, so there is nothing to measure rounding by
            return _close(found, expected.own, _UNKNOWN)
        return _as_near(found, expected.own, expected.exact)

    @contextmanager
    def _in_float32(self) -> Iterator[None]:
        own = [(tensor, tensor.data) for tensor, _ in self._copy]
        try:
            with self._shortened():
                for tensor, wide in self._copy:
                    tensor.data = wide
                yield
        finally:
            for tensor, data in own:
                tensor.data = data

    @contextmanager
    def _shortened(self) -> Iterator[None]:
        """The model with its first layers alone, where the copy would be too large."""
        if self._cut is None:
            yield
            return
        stack, count = self._cut
        layers = dict(stack._modules)
        try:
            for name in list(layers)[count:]:
                del stack._modules[name]
            yield
        finally:
            stack._modules.update(layers)


def _cut(model: nn.Module) -> tuple[nn.ModuleList, int] | None:
    """(the layers, how many of them a float32 copy may have) where it may not have all."""
    size = sum(parameter.numel() for parameter in model.parameters()) * 4
    stacks = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    stack = max(stacks, key=len, default=None)
    if size <= _COPY or stack is None:
        return None
    layer = max(sum(parameter.numel() for parameter in module.parameters()) for module in stack) * 4
    return stack, max(2, len(stack) - -(-(size - _COPY) // layer))


def _computed(compute: Compute, like: torch.Tensor) -> torch.Tensor | None:
    """The logits that a way computes, or None where it does not run or gives others than are asked for."""
    try:
        logits = compute().float()
    except _FAILURES:
        return None
    return logits if logits.shape == like.shape else None


def _close(found: torch.Tensor, expected: torch.Tensor, share: float) -> bool:
    apart, largest = fetch(torch.stack([(found - expected).abs().max(), expected.abs().max()]))
    return bool(apart <= share * largest)


def _as_near(found: torch.Tensor, plain: torch.Tensor, exact: torch.Tensor) -> bool:
    """Whether logits (P, V) are about as far from the exact ones as the plain way's, at three of four
    positions: rounding may send some tokens to other experts."""
    far, usual = ((x - exact).square().mean(dim=1).sqrt().quantile(0.75) for x in (found, plain))
    return bool(fetch(far - _FARTHER * usual) <= 1e-6)
