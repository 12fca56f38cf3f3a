"""Passes through Llama-like decoders on a CPU with the steps that count, alone.

transformers takes some fifty small operators a layer, which cost more than the products of a small base.
Here there are about fifteen, and what follows a product (swish, the sum with what came before) is a part of
it. What is taken over is known by its classes; ``cached_passes.find_shortcuts`` compares its logits with the
model's own and keeps to the model's way where they differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers.activations import SiLUActivation
from transformers.models.llama import modeling_llama
from transformers.models.mistral import modeling_mistral
from transformers.models.qwen2 import modeling_qwen2

from traitmap.engine.linear import is_plain, packed, product
from traitmap.engine.shapes import close, fair, few

MOST_PARAMETERS = (
    100_000_000  # above it products dwarf the rest, and a second copy of the weights costs memory
)
_FAMILIES = ((modeling_llama, "Llama"), (modeling_mistral, "Mistral"), (modeling_qwen2, "Qwen2"))
_PARTS = ("ForCausalLM", "Model", "DecoderLayer", "Attention", "MLP", "RMSNorm", "RotaryEmbedding")
_COMMON = {nn.Linear, nn.Embedding, nn.ModuleList, nn.SiLU, SiLUActivation}
_FIXED_ROPE = {"default", "linear", "llama3", "yarn"}  # frequencies that do not depend on a text's length

Attend = Callable[[int, torch.Tensor, bool], torch.Tensor]
"""A layer's number, (N, heads + 2 kv_heads, d) of queries, keys and values, whether only the places that are
read are wanted -> (N or a few more, heads, d), or (P, heads, d) of those places."""


@dataclass(frozen=True)
class _Product:
    """x W^T + bias, of several modules at once where they read the same x."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    @classmethod
    def of(cls, *modules: nn.Linear, turned: int = 0, width: int = 0) -> _Product:
        """turned: how many of the modules give heads of ``width`` numbers that are turned by position."""
        weights: list[torch.Tensor] = [module.weight for module in modules]
        biases: list[torch.Tensor] = [module.bias for module in modules if module.bias is not None]
        for parts in (weights, biases):
            parts[:turned] = [_paired(part, width) for part in parts[:turned]]
        return cls(packed(torch.cat(weights)), torch.cat(biases) if len(biases) == len(modules) else None)

    def __call__(self, x: torch.Tensor, **then: Any) -> torch.Tensor:
        return product(x, self.weight, self.bias, **then)


def _paired(rows: torch.Tensor, width: int) -> torch.Tensor:
    """Rows of heads of ``width``, place i next to i + width / 2: the two that a rotation turns together."""
    return rows.unflatten(0, (-1, 2, width // 2)).transpose(1, 2).flatten(0, 2)


@dataclass(frozen=True)
class _Layer:
    before_attention: Callable[[torch.Tensor], torch.Tensor]
    qkv: _Product
    out: _Product
    before_feed_forward: Callable[[torch.Tensor], torch.Tensor]
    gate: _Product
    up: _Product
    down: _Product


class Turns:
    """What queries and keys are turned by at each position, as complex numbers: a table that grows."""

    def __init__(self, model: Any) -> None:
        self._rotary, self._like = model.model.rotary_emb, model.model.embed_tokens.weight
        self._table = torch.empty(0)

    def at(self, positions: torch.Tensor, longest: int) -> torch.Tensor:
        """(N, 1, d / 2) at positions (N,), all of them below ``longest``."""
        if longest > len(self._table):
            places = torch.arange(max(longest, 2 * len(self._table), 256))[None]
            wide = torch.promote_types(self._like.dtype, torch.float32)  # rounded first, as the model does
            cos, sin = (table[0].to(wide).chunk(2, dim=-1)[0] for table in self._rotary(self._like, places))
            self._table = torch.complex(cos.contiguous(), sin.contiguous())[:, None]
        return self._table.index_select(0, positions)


@dataclass(frozen=True)
class Lean:
    """A decoder's weights as they are now, an adapter merged into them included, ready for lean passes.

    Queries and keys have the two numbers of a rotation next to each other, so keys that one way computed
    are of no use to the other.
    """

    embedding: torch.Tensor
    layers: list[_Layer]
    norm: Callable[[torch.Tensor], torch.Tensor]
    head: _Product
    turns: Turns
    heads: int
    kv_heads: int
    scale: float

    @classmethod
    def of(cls, model: Any) -> Lean | None:
        """None where this model is not known to be built that way."""
        if not is_known(model):
            return None
        stack = model.model
        return cls(
            stack.embed_tokens.weight,
            [_layer_of(layer) for layer in stack.layers],
            _norm_of(stack.norm),
            _Product.of(model.lm_head),
            Turns(model),
            model.config.num_attention_heads,
            model.config.num_key_value_heads,
            stack.layers[0].self_attn.scaling,
        )

    def logits(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        longest: int,
        attend: Attend,
        reads: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(P, V) at the places ``reads`` (P,), or at all; ids and positions (N,), these below ``longest``.

        Products are computed for a few more tokens than there are, whose outputs nobody reads, so that they
        come in few shapes (``shapes``).
        """
        tokens, turns = len(ids), self.turns.at(positions, longest)
        x = functional.embedding(_filled(ids, padded(tokens)), self.embedding)
        for number, layer in enumerate(self.layers):
            only = number == len(self.layers) - 1 and reads is not None
            attended = attend(number, self._turned(layer, x, tokens, turns), only).flatten(1)
            if only and reads is not None:
                x = x.index_select(0, _filled(reads, padded(len(reads))))
            if len(attended) < len(x):
                attended = functional.pad(attended, (0, 0, 0, len(x) - len(attended)))
            x = layer.out(attended, plus=x)
            y = layer.before_feed_forward(x)
            x = layer.down(layer.up(y, times=layer.gate(y, swish=True)), plus=x)
        return self.head(self.norm(x))[: tokens if reads is None else len(reads)]

    def _turned(self, layer: _Layer, x: torch.Tensor, tokens: int, turns: torch.Tensor) -> torch.Tensor:
        """(N, heads + 2 kv_heads, d) of a layer, queries and keys turned by their positions."""
        qkv = layer.qkv(layer.before_attention(x))[:tokens].view(tokens, -1, 2 * turns.shape[-1])
        own = qkv[:, : self.heads + self.kv_heads]
        wide = own.to(turns.real.dtype)  # the same tensor, but for bfloat16
        torch.view_as_complex(wide.unflatten(-1, (-1, 2))).mul_(turns)
        if wide.dtype != own.dtype:
            own.copy_(wide)
        return qkv


def padded(tokens: int) -> int:
    """How many tokens products are computed for; short ones wait for the weights, not for arithmetic."""
    return few(tokens) if tokens <= 128 else fair(tokens) if tokens <= 512 else close(tokens)


def _filled(places: torch.Tensor, size: int) -> torch.Tensor:
    return functional.pad(places, (0, size - len(places))) if size > len(places) else places


def _layer_of(layer: Any) -> _Layer:
    attention, feed_forward = layer.self_attn, layer.mlp
    qkv = (attention.q_proj, attention.k_proj, attention.v_proj)
    return _Layer(
        _norm_of(layer.input_layernorm),
        _Product.of(*qkv, turned=2, width=attention.head_dim),
        _Product.of(attention.o_proj),
        _norm_of(layer.post_attention_layernorm),
        _Product.of(feed_forward.gate_proj),
        _Product.of(feed_forward.up_proj),
        _Product.of(feed_forward.down_proj),
    )


def _norm_of(module: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """Llama's normalisation: in float32, whatever x is."""
    own, epsilon = module.weight, module.variance_epsilon
    weight, shape = own.to(torch.promote_types(own.dtype, torch.float32)), tuple(own.shape)

    def normed(x: torch.Tensor) -> torch.Tensor:
        return functional.rms_norm(x.to(torch.float32), shape, weight, epsilon).to(x.dtype)

    def exactly(x: torch.Tensor) -> torch.Tensor:
        wide = x.to(torch.float32)
        wide = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + epsilon)
        return wide.to(x.dtype) * weight

    return exactly if weight.dtype == torch.float64 else normed


def is_known(model: Any) -> bool:
    """Whether every module is of a known family's own classes and nothing was put in or hooked on."""
    family = [
        {getattr(module, name + part) for part in _PARTS} | _COMMON
        for module, name in _FAMILIES
        if type(model) is getattr(module, name + "ForCausalLM")
    ]
    if not family or not {type(module) for module in model.modules()} <= family[0]:
        return False
    config = model.config
    full = all(kind == "full_attention" for kind in getattr(config, "layer_types", None) or ())
    windowed = type(model) is modeling_mistral.MistralForCausalLM and config.sliding_window is not None
    return (
        full
        and not windowed
        and config.hidden_act in ("silu", "swish")
        and config.rope_parameters.get("rope_type") in _FIXED_ROPE
        and model.device.type == "cpu"
        and model.dtype in (torch.float32, torch.float64, torch.bfloat16)
        and {parameter.dtype for parameter in model.parameters()} == {model.dtype}
        and sum(parameter.numel() for parameter in model.parameters()) <= MOST_PARAMETERS
        and all(is_plain(module) for module in model.modules())
    )
