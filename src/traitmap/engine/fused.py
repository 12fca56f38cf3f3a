"""Parts of a transformer block in fewer steps than transformers takes, forward and backward.

What is replaced is known by its code: a normalisation or rotation whose forward is, instruction for
instruction, Llama's. Anything else stays as it is, and everything is put back after the block.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers.models.llama import modeling_llama


class _RmsNorm(torch.autograd.Function):
    """y = weight * (x / rms(x)), the mean square in float32 at least, rounded where Llama rounds."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        wide = x.float()
        norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        rate = norm.square_().mul_(1 / x.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, rate)
        return (wide * rate).to(x.dtype).mul_(weight)

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, rate = ctx.saved_tensors
        unit, slope = x.float() * rate, (dy * weight).float()
        along = (slope * unit).mean(dim=-1, keepdim=True)
        return slope.addcmul_(unit, along, value=-1).mul_(rate).to(x.dtype), None, None


class _Rotation(torch.autograd.Function):
    """x * cos + rotate_half(x) * sin over the last dimension; backward turns the other way round.

    x (batch, heads, tokens, d) where (batch, tokens, heads, d) lies in one piece; cos and the signed sin
    (batch * tokens, heads * d) as a ``_Turn`` has them.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, turn: _Turn) -> torch.Tensor:
        ctx.turn = turn
        return _turned(x, turn.cos, turn.sin)

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return _turned(dy, ctx.turn.cos, ctx.turn.back), None


@dataclass(frozen=True)
class _Turn:
    """cos, sin, back: (batch * tokens, heads * d); the first half of a head's sin is negative, back is the
    sin with its halves exchanged, which turns the other way."""

    cos: torch.Tensor
    sin: torch.Tensor
    back: torch.Tensor


def _turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    batch, heads, tokens, width = x.shape
    flat = x.transpose(1, 2)
    turned = torch.addcmul(flat.reshape(cos.shape) * cos, _exchanged(flat).view(cos.shape), sin)
    return turned.view(batch, tokens, heads, width).transpose(1, 2)


def _exchanged(x: torch.Tensor) -> torch.Tensor:
    """The halves of the last dimension exchanged, in one piece of memory."""
    low, high = x.chunk(2, dim=-1)
    return torch.cat((high, low), dim=-1).contiguous()


class _Rotary:
    """As ``apply_rotary_pos_emb`` of transformers' Llama; sines are laid out once for all layers."""

    def __init__(self) -> None:
        self._angles: tuple[torch.Tensor, torch.Tensor] | None = None
        self._turns: dict[int, _Turn] = {}

    def __call__(
        self, q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, unsqueeze_dim: int = 1
    ) -> tuple[torch.Tensor, torch.Tensor]:
        assert unsqueeze_dim == 1, "Llama's layers have their heads there"
        if self._angles is None or self._angles[0] is not cos or self._angles[1] is not sin:
            self._angles, self._turns = (cos, sin), {}
        return _Rotation.apply(q, self._turn(q)), _Rotation.apply(k, self._turn(k))

    def _turn(self, x: torch.Tensor) -> _Turn:
        assert self._angles is not None
        heads, width = x.shape[1], x.shape[3]
        if heads not in self._turns:
            cos, sin = self._angles
            signed = torch.cat((-sin[..., : width // 2], sin[..., width // 2 :]), dim=-1)
            self._turns[heads] = _Turn(
                *(
                    part.unsqueeze(2).expand(x.shape[0], x.shape[2], heads, width).reshape(-1, heads * width)
                    for part in (cos, signed, _exchanged(signed))
                )
            )
        return self._turns[heads]


def _normalised(module: Any, x: torch.Tensor) -> torch.Tensor:
    normalised: torch.Tensor = _RmsNorm.apply(x, module.weight, module.variance_epsilon)
    return normalised


@contextmanager
def fused_blocks(model: nn.Module) -> Iterator[None]:
    """The model computes its normalisations and rotations by the functions above inside the block.

    For frozen models: the scale of a normalisation gets no gradient.
    """
    norms = [module for module in model.modules() if _is_rms_norm(module)]
    places = {type(module).__module__ for module in model.modules()}
    rotating = [sys.modules[place] for place in places if _rotates_like_llama(sys.modules.get(place))]
    own, rotary = [(module, module.apply_rotary_pos_emb) for module in rotating], _Rotary()
    for norm in norms:
        vars(norm)["forward"] = partial(_normalised, norm)
    for module in rotating:
        module.apply_rotary_pos_emb = rotary  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for norm in norms:
            del vars(norm)["forward"]
        for module, function in own:
            module.apply_rotary_pos_emb = function  # type: ignore[attr-defined]


def _is_rms_norm(module: nn.Module) -> bool:
    known = _same_code(getattr(type(module), "forward", None), modeling_llama.LlamaRMSNorm.forward)
    plain = known and "forward" not in vars(module) and isinstance(module.variance_epsilon, float)
    return plain and module.weight.dtype != torch.float64 and not module.weight.requires_grad


def _rotates_like_llama(module: Any) -> bool:
    return _same_code(
        getattr(module, "apply_rotary_pos_emb", None), modeling_llama.apply_rotary_pos_emb
    ) and _same_code(getattr(module, "rotate_half", None), modeling_llama.rotate_half)


def _same_code(one: Callable[..., Any] | None, other: Callable[..., Any]) -> bool:
    code, model = getattr(one, "__code__", None), getattr(other, "__code__", None)
    if code is None or model is None:
        return False
    return (code.co_code, code.co_names, code.co_varnames) == (
        model.co_code,
        model.co_names,
        model.co_varnames,
    )
