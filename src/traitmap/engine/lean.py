"""One more token of every text in the making, for Llama-like decoders on a CPU: the steps that count, alone.

transformers takes some fifty small operators a layer, which cost more than the products of a small base.
Here there are about fifteen. What is taken over is known by its classes; ``continuous`` compares the first
logits with the model's own and keeps to the model's way where they differ.
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

from traitmap.engine.cached_attention import Decoding, attend_slots
from traitmap.engine.linear import is_plain, packed, product

MOST_PARAMETERS = (
    100_000_000  # above it products dwarf the rest, and a second copy of the weights costs memory
)
_FAMILIES = ((modeling_llama, "Llama"), (modeling_mistral, "Mistral"), (modeling_qwen2, "Qwen2"))
_PARTS = ("ForCausalLM", "Model", "DecoderLayer", "Attention", "MLP", "RMSNorm", "RotaryEmbedding")
_COMMON = {nn.Linear, nn.Embedding, nn.ModuleList, nn.SiLU, SiLUActivation}
_FIXED_ROPE = {"default", "linear", "llama3", "yarn"}  # frequencies that do not depend on a text's length


@dataclass(frozen=True)
class _Product:
    """x W^T + bias, of several modules at once where they read the same x."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    @classmethod
    def of(cls, *modules: nn.Linear) -> _Product:
        weights: list[torch.Tensor] = [module.weight for module in modules]
        biases: list[torch.Tensor] = [module.bias for module in modules if module.bias is not None]
        return cls(packed(torch.cat(weights)), torch.cat(biases) if len(biases) == len(modules) else None)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return product(x, self.weight, self.bias)


@dataclass(frozen=True)
class _Layer:
    before_attention: Callable[[torch.Tensor], torch.Tensor]
    qkv: _Product
    out: _Product
    before_feed_forward: Callable[[torch.Tensor], torch.Tensor]
    gate_up: _Product
    down: _Product


@dataclass(frozen=True)
class Lean:
    """A decoder's weights as they are now, an adapter merged into them included, ready for single tokens.

    cos, sin: (length, 1, d) of each position; the first half of sin has its sign turned.
    """

    embedding: torch.Tensor
    layers: list[_Layer]
    norm: Callable[[torch.Tensor], torch.Tensor]
    head: _Product
    cos: torch.Tensor
    sin: torch.Tensor
    heads: int
    kv_heads: int
    scale: float

    @classmethod
    def of(cls, model: Any, length: int) -> Lean | None:
        """For texts of up to ``length`` tokens. None where this model is not known to be built that way."""
        if not _is_known(model):
            return None
        stack, attention = model.model, model.model.layers[0].self_attn
        places = torch.arange(length)[None]
        cos, sin = (table[0, :, None] for table in stack.rotary_emb(stack.embed_tokens.weight, places))
        half = sin.shape[-1] // 2
        return cls(
            stack.embed_tokens.weight,
            [_layer_of(layer) for layer in stack.layers],
            _norm_of(stack.norm),
            _Product.of(model.lm_head),
            cos,
            torch.cat([-sin[..., :half], sin[..., half:]], dim=-1),
            model.config.num_attention_heads,
            model.config.num_key_value_heads,
            attention.scaling,
        )

    def logits(self, plan: Decoding, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """(rows, V) after one more token of each text; tokens and positions (rows,)."""
        x = functional.embedding(tokens, self.embedding)
        cos, sin = self.cos[positions], self.sin[positions]
        rows, width, turned = len(tokens), cos.shape[-1], self.heads + self.kv_heads
        for number, layer in enumerate(self.layers):
            qkv = layer.qkv(layer.before_attention(x)).view(rows, -1, width)
            qk = _rotated(qkv[:, :turned], cos, sin)
            attended = attend_slots(
                plan, number, qk[:, : self.heads], qk[:, self.heads :], qkv[:, turned:], self.scale, None
            )
            x = layer.out(attended.to(x.dtype).view(rows, -1)).add_(x)
            gate, up = layer.gate_up(layer.before_feed_forward(x)).chunk(2, dim=-1)
            x = layer.down(functional.silu(gate).mul_(up)).add_(x)
        return self.head(self.norm(x))


def _rotated(qk: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """qk * cos + rotate_half(qk) * sin, with rotate_half's sign in ``sin``; qk (rows, heads, d)."""
    swapped = qk.unflatten(-1, (2, -1)).flip(-2).flatten(-2)
    return (qk * cos).addcmul_(swapped, sin)


def _layer_of(layer: Any) -> _Layer:
    attention, feed_forward = layer.self_attn, layer.mlp
    return _Layer(
        _norm_of(layer.input_layernorm),
        _Product.of(attention.q_proj, attention.k_proj, attention.v_proj),
        _Product.of(attention.o_proj),
        _norm_of(layer.post_attention_layernorm),
        _Product.of(feed_forward.gate_proj, feed_forward.up_proj),
        _Product.of(feed_forward.down_proj),
    )


def _norm_of(module: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """Llama's normalisation, rounded where Llama rounds: in float32, whatever x is."""
    weight, epsilon = module.weight, module.variance_epsilon
    shape = tuple(weight.shape)
    if weight.dtype == torch.float32:
        return lambda x: functional.rms_norm(x, shape, weight, epsilon)
    return lambda x: functional.rms_norm(x.float(), shape, None, epsilon).to(x.dtype).mul_(weight)


def _is_known(model: Any) -> bool:
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
