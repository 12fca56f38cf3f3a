"""Transformer blocks while adapters are trained: in fused steps, and computed twice where memory asks for it.

Fused: normalisations and rotations in fewer steps than transformers takes, forward and backward. What is
replaced is known by its code, whatever the class is called: a function that is, instruction for instruction,
Llama's, and for normalisations Gemma's or OLMo 2's. Anything else stays as it is, and everything is put back
after the block.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import CodeType
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.models.gemma3 import modeling_gemma3
from transformers.models.llama import modeling_llama
from transformers.models.olmo2 import modeling_olmo2

from traitmap.engine import attention


class _RmsNorm(torch.autograd.Function):
    """y = weight * (x / rms(x)), the mean square in float32 at least.

    Rounded where the base rounds: with a weight of x's dtype before the product, as Llama; with a wider one
    after it, as Gemma and OLMo 2.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        wide = x.float()
        norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        rate = norm.square_().mul_(1 / x.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, rate)
        return (wide * rate).to(weight.dtype).mul_(weight).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, rate = ctx.saved_tensors
        unit, grad = x.float() * rate, (dy * weight).float()
        along = (grad * unit).mean(dim=-1, keepdim=True)
        return grad.addcmul_(unit, along, value=-1).mul_(rate).to(x.dtype), None, None


class _Rotation(torch.autograd.Function):
    """x * cos + rotate_half(x) * sin over the last dimension; backward rotates the other way round.

    x (batch, heads, tokens, d) where (batch, tokens, heads, d) lies in one piece; cos and sin
    (batch * tokens, heads * d): the first half of a head's sin is negative. inverse: the sin with its halves
    exchanged, which rotates the other way.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, inverse: torch.Tensor
    ) -> torch.Tensor:
        ctx.cos, ctx.inverse = cos, inverse
        return _rotated(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return _rotated(dy, ctx.cos, ctx.inverse), None, None, None


def _rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    batch, heads, tokens, width = x.shape
    flat = x.transpose(1, 2)
    rotated = torch.addcmul(flat.reshape(cos.shape) * cos, _exchanged(flat).view(cos.shape), sin)
    return rotated.view(batch, tokens, heads, width).transpose(1, 2)


def _exchanged(x: torch.Tensor) -> torch.Tensor:
    """The halves of the last dimension exchanged, in one piece of memory."""
    low, high = x.chunk(2, dim=-1)
    return torch.cat((high, low), dim=-1).contiguous()


class _FusedRotaryEmbedding:
    """As ``apply_rotary_pos_emb`` of transformers' Llama; sines are laid out once for all layers."""

    def __init__(self) -> None:
        self._angles: tuple[torch.Tensor, torch.Tensor] | None = None
        self._tables: dict[int, list[torch.Tensor]] = {}

    def __call__(
        self, q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, unsqueeze_dim: int = 1
    ) -> tuple[torch.Tensor, torch.Tensor]:
        assert unsqueeze_dim == 1, "Llama's layers have their heads there"
        if self._angles is None or self._angles[0] is not cos or self._angles[1] is not sin:
            self._angles, self._tables = (cos, sin), {}
        for x in (q, k):
            batch, heads, tokens, width = x.shape
            if heads not in self._tables:
                signed = torch.cat((-sin[..., : width // 2], sin[..., width // 2 :]), dim=-1)
                self._tables[heads] = [
                    part.unsqueeze(2).expand(batch, tokens, heads, width).reshape(-1, heads * width)
                    for part in (cos, signed, _exchanged(signed))
                ]
        return (
            _Rotation.apply(q, *self._tables[q.shape[1]]),
            _Rotation.apply(k, *self._tables[k.shape[1]]),
        )


@contextmanager
def fused_blocks(model: nn.Module) -> Iterator[None]:
    """The model computes its normalisations and rotations by the functions above inside the block.

    For frozen models: the scale of a normalisation gets no gradient.
    """
    norms = {module: scaled for module in model.modules() if (scaled := _rms_norm(module)) is not None}
    sources: list[Any] = [sys.modules.get(name) for name in {type(m).__module__ for m in model.modules()}]
    rotating = [
        source
        for source in sources
        if _same_code(getattr(source, "apply_rotary_pos_emb", None), modeling_llama.apply_rotary_pos_emb)
        and _same_code(getattr(source, "rotate_half", None), modeling_llama.rotate_half)
    ]
    functions, rotary = [source.apply_rotary_pos_emb for source in rotating], _FusedRotaryEmbedding()
    for norm, (weight, epsilon) in norms.items():
        vars(norm)["forward"] = partial(_normalised, weight=weight, epsilon=epsilon)
    for source in rotating:
        source.apply_rotary_pos_emb = rotary
    try:
        yield
    finally:
        for norm in norms:
            del vars(norm)["forward"]
        for source, function in zip(rotating, functions, strict=True):
            source.apply_rotary_pos_emb = function


def _normalised(x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    normalised: torch.Tensor = _RmsNorm.apply(x, weight, epsilon)
    return normalised


def _rms_norm(module: nn.Module) -> tuple[torch.Tensor, float] | None:
    """(weight, epsilon) for ``_RmsNorm`` where a module is such a normalisation, or None."""
    forward, weight = getattr(type(module), "forward", None), getattr(module, "weight", None)
    if "forward" in vars(module) or weight is None or weight.dtype == torch.float64 or weight.requires_grad:
        return None
    epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if not isinstance(epsilon, float):
        return None
    if _same_code(forward, modeling_llama.LlamaRMSNorm.forward):
        return weight, epsilon
    if _same_code(forward, modeling_olmo2.Olmo2RMSNorm.forward):
        return weight.float(), epsilon
    gemma = modeling_gemma3.Gemma3RMSNorm
    if _same_code(forward, gemma.forward) and _same_code(getattr(type(module), "_norm", None), gemma._norm):
        return 1.0 + weight.float(), epsilon
    return None


def _same_code(function: Callable[..., Any] | None, reference: Callable[..., Any]) -> bool:
    code, expected = getattr(function, "__code__", None), getattr(reference, "__code__", None)
    if code is None or expected is None:
        return False
    return _instructions(code) == _instructions(expected)


def _instructions(code: CodeType) -> tuple[Any, ...]:
    """What a function does: everything but its name, its place and its docstring."""
    numbers = tuple(constant for constant in code.co_consts if isinstance(constant, (int, float)))
    return code.co_code, code.co_names, code.co_varnames, numbers


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The model's transformer layers: the longest list of modules of one class; empty where there is none."""
    lists = [list(module) for module in model.modules() if isinstance(module, nn.ModuleList)]
    alike = [layers for layers in lists if len({type(layer) for layer in layers}) == 1]
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
        with attention.planned(plan):
            return forward(*again, **options)

    if not torch.is_grad_enabled():
        return run(*inputs)
    return checkpoint(run, *inputs, use_reentrant=False, preserve_rng_state=False)
