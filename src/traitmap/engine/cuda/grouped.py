"""Products of all adapters of a pass at once: one kernel where a loop over K adapters starts K.

The tokens of a pass are sorted by adapter, so the low-rank products of all of them are one grouped product
(``torch.nn.functional.grouped_mm``) for A and one for each B, forward and backward. It needs adapters of one
shape, whose numbers lie behind each other in one matrix, and rows of 16 bytes; what does not fit is left to
the loop of ``lora``. An adapter without a token in the pass is a group of none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import grouped_mm

from traitmap.engine.device import send

_ON_CUDA, _ON_CPU = (torch.bfloat16,), (torch.bfloat16, torch.float16, torch.float32)  # what the kernel knows
BYTES = 16  # to which the kernel wants rows and places in memory aligned


@dataclass(frozen=True)
class Joint:
    """What modules that read the same input need of one adapter: their A below each other, times scale.

    parts: of each module its place among the modules, its rows of the joint A, its B transposed (r, out), and
    where the gradient of that is added up.
    """

    a: torch.Tensor
    a_grad: torch.Tensor | None
    scale: float
    parts: tuple[tuple[int, slice, torch.Tensor, torch.Tensor | None], ...]


@dataclass(frozen=True)
class GroupedPart:
    """One module's share: its place among the modules that read the same input, its rows of the joint A, and
    B transposed of all adapters, (K, r, out), with where the gradient of that is added up."""

    module: int
    ranks: slice
    b: torch.Tensor
    b_grad: torch.Tensor


@dataclass(frozen=True)
class GroupedJoint:
    """What modules that read the same input need of all adapters: their A below each other, (K, R, in), times
    scale; scale: (K, 1, 1)."""

    a: torch.Tensor
    a_grad: torch.Tensor
    scale: torch.Tensor
    parts: tuple[GroupedPart, ...]


def stack_for(count: int, size: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """(2, K, P') zeros: room for K adapters of ``size`` numbers each, and for their gradients."""
    step = BYTES // dtype.itemsize
    return torch.zeros(2, count, -(-size // step) * step, dtype=dtype, device=device)


def grouped_joint(stack: torch.Tensor, first: Joint, scales: Sequence[float]) -> GroupedJoint | None:
    """The joint of all adapters in a stack from that of the first; None where the kernel does not take it."""
    count = stack.shape[1]

    def whole(matrix: torch.Tensor) -> torch.Tensor:
        strides = (stack.stride(1), *matrix.stride())
        return stack.as_strided((count, *matrix.shape), strides, matrix.storage_offset())

    parts = [
        GroupedPart(module, ranks, whole(b), whole(b_grad))
        for module, ranks, b, b_grad in first.parts
        if b_grad is not None
    ]
    if stack.dtype not in (_ON_CUDA if stack.device.type == "cuda" else _ON_CPU):
        return None
    if first.a_grad is None or not _is_aligned(first.a, *(b for _, _, b, _ in first.parts)):
        return None
    scale = send(np.array(scales).reshape(-1, 1, 1), stack.device).to(stack.dtype)
    return GroupedJoint(whole(first.a), whole(first.a_grad), scale, tuple(parts))


def _is_aligned(*matrices: torch.Tensor) -> bool:
    """Whether every side of these matrices and their places in memory are multiples of 16 bytes."""
    return all(
        number * matrix.element_size() % BYTES == 0
        for matrix in matrices
        for number in (*matrix.shape, matrix.storage_offset())
    )


class GroupedLinear(torch.autograd.Function):
    """As ``lora._AdaptedLinear``, all adapters at once.

    x (N, in); base_outputs and base_gradient compute the base's part of the outputs, and of the gradient of x
    from theirs; ends: (K,) int32, where each adapter's tokens end.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        anchor: torch.Tensor,
        base_outputs: Callable[[torch.Tensor], list[torch.Tensor]],
        base_gradient: Callable[[torch.Tensor, Sequence[torch.Tensor]], torch.Tensor],
        joint: GroupedJoint,
        ends: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        ys = base_outputs(x)
        low = grouped_mm(x, joint.a.transpose(1, 2), offs=ends)
        for part in joint.parts:
            ys[part.module].add_(grouped_mm(low[:, part.ranks], part.b, offs=ends))
        ctx.save_for_backward(x, low, ends)
        ctx.base_gradient, ctx.joint = base_gradient, joint
        return tuple(ys)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (x, low, ends), joint = ctx.saved_tensors, ctx.joint
        dys = [grad.contiguous() for grad in grads]
        dx = ctx.base_gradient(x, dys) if ctx.needs_input_grad[0] else None
        dlow = torch.empty_like(low)
        for part in joint.parts:
            dy = dys[part.module]
            dlow[:, part.ranks] = grouped_mm(dy, part.b.transpose(1, 2), offs=ends)
            part.b_grad.add_(grouped_mm(low[:, part.ranks].T, dy, offs=ends))
        joint.a_grad.addcmul_(grouped_mm(dlow.T, x, offs=ends), joint.scale)
        if dx is not None:
            dx.add_(grouped_mm(dlow, joint.a, offs=ends))
        return dx, None, None, None, None, None
