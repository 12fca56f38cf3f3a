"""Attention over rows that lie behind each other, by torch's kernel for rows of any length (flash attention).

Where rows are plain causal ones, a GPU needs neither the buckets nor the padding of ``attention``: one kernel
reads all rows of a pass, forward and backward. It knows half precision and windows; everything else (rows
with branches, other dtypes) goes the way of ``attention.stream_attention``. Which model it is used on is
decided by a trial (``layouts.choose_kernels``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface

from traitmap.engine import attention
from traitmap.engine.device import send

NAME = "traitmap_packed"
_DTYPES = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class PackedPlan:
    """Where the rows of a stream end. ends: (rows + 1,) int32, from 0; longest: tokens of the longest row."""

    ends: torch.Tensor
    longest: int


def plan_packed(lengths: Sequence[int], device: torch.device, size: int) -> PackedPlan:
    """The plan of rows of these lengths; what a stream of ``size`` tokens has beyond them is one more row."""
    rows = [*lengths, size - sum(lengths)] if size > sum(lengths) else list(lengths)
    ends = np.concatenate([[0], np.cumsum(rows)]).astype(np.int32)
    return PackedPlan(send(ends, device), max(rows))


def takes_packed_rows(model: Any) -> bool:
    """Whether the model attends by ``packed_attention`` now, in a dtype that the kernel knows."""
    return model.config._attn_implementation == NAME and model.dtype in _DTYPES


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """``attention.stream_attention`` of a ``PackedPlan``; where a pass has a ``StreamPlan``, that itself."""
    plan = attention.current_plan()
    if isinstance(plan, attention.StreamPlan):
        return attention.stream_attention(
            module, query, key, value, attention_mask, scaling, dropout, sliding_window, **options
        )
    attention.check_options(plan, PackedPlan, options)
    if dropout:
        raise ValueError("the kernel for packed rows has no dropout")
    q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))
    out = varlen_attn(
        q,
        k,
        v,
        plan.ends,
        plan.ends,
        plan.longest,
        plan.longest,
        scale=scaling,
        window_size=(-1 if sliding_window is None else sliding_window - 1, 0),
        enable_gqa=q.shape[1] != k.shape[1],
    )
    assert isinstance(out, torch.Tensor), "without return_aux there is one output"
    return out.unsqueeze(0), None


AttentionInterface.register(NAME, packed_attention)
