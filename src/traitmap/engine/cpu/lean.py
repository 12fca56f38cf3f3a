"""Passes through Llama-like decoders on a CPU with the steps that count, alone.

transformers takes some fifty small operators a layer, which cost more than the products of a small base.
Here there are about fifteen, and what follows a product (swish, the sum with what came before) is a part of
it. What is taken over is known by its classes; ``cached_passes.find_shortcuts`` compares its logits with the
model's own and keeps to the model's way where they differ.

A pass over rows by themselves for ``lean``: a beginning that rows share is computed once.

The stream holds every token once for all rows that are the same up to it, as the nodes of a trie; so
templates and repeated questions cost no products. Attention alone sees whole rows: those of nearly one
length make a rectangle, whose tokens are looked up in the stream.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers.activations import SiLUActivation
from transformers.models.llama import modeling_llama
from transformers.models.mistral import modeling_mistral
from transformers.models.qwen2 import modeling_qwen2

from traitmap.engine.attention import LONGEST, LONGEST_WIDE
from traitmap.engine.cpu.products import close, fair, few, is_plain, packed, product
from traitmap.engine.passes import Ids, Row

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


WASTE = 1.04  # a rectangle may have this many times the tokens of its rows


@dataclass(frozen=True)
class Rectangle:
    """Rows of nearly one length. members: (rows,) which they are. where: (rows * L,) their places in the
    stream, row by row; what is padded points anywhere.

    branches: (rows, L) as in ``attention.plan_stream``, -1 where padded; None where rows have none.
    """

    members: tuple[int, ...]
    where: torch.Tensor
    length: int
    branches: torch.Tensor | None

    @property
    def rows(self) -> int:
        return len(self.members)

    def block(self, stream: torch.Tensor) -> torch.Tensor:
        """(rows, L, ...) the rectangle's tokens of a stream (N, ...)."""
        return stream.index_select(0, self.where).unflatten(0, (self.rows, self.length))

    def hidden(self) -> torch.Tensor | None:
        """(rows, L, L) what a token must not look at: other branches, and what comes after it. None where
        rows have no branches."""
        if self.branches is None:
            return None
        own = (self.branches[:, :, None] == self.branches[:, None]) | (self.branches[:, None] == 0)
        return own.tril_().logical_not_()


@dataclass(frozen=True)
class Rectangles:
    """A stream of rows, in rectangles. ids, positions: (N,); reads: (P,), in the order of the rows given.

    back: (N and a few more,) a place of each token in all rectangles behind each other. longest: above all
    positions. ends: (rows,) the place of each row's last token, where all are read there and nowhere else.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    reads: torch.Tensor
    parts: tuple[Rectangle, ...]
    back: torch.Tensor
    longest: int
    ends: torch.Tensor | None

    def attention(self, heads: int, kv_heads: int, scale: float) -> Callable[..., torch.Tensor]:
        """For one pass: from (N, heads + 2 kv_heads, d) of queries, keys and values to (N or a few more,
        heads, d), or where ``only`` is set, to (P, heads, d) at the reads."""
        hidden = [part.hidden() for part in self.parts]

        def attend(qkv: torch.Tensor, only: bool) -> torch.Tensor:
            if only and self.ends is not None:
                return self._at_ends(qkv, heads, kv_heads, scale)
            out = qkv.new_empty(sum(len(part.where) for part in self.parts), heads, qkv.shape[-1])
            start = 0
            for part, unseen in zip(self.parts, hidden, strict=True):
                found = _attended(part.block(qkv), unseen, heads, kv_heads, scale)
                stop = start + len(part.where)
                out[start:stop].view(found.shape).copy_(found)
                start = stop
            return out.index_select(0, self.back[self.reads] if only else self.back)

        return attend

    def _at_ends(self, qkv: torch.Tensor, heads: int, kv_heads: int, scale: float) -> torch.Tensor:
        """(P, heads, d) where every row is read at its last token alone."""
        assert self.ends is not None
        out = qkv.new_empty(len(self.reads), heads, qkv.shape[-1])
        for part in self.parts:
            members = torch.tensor(part.members)
            asked = qkv[:, :heads].index_select(0, self.reads[members])  # (rows, heads, d)
            own = part.block(qkv[:, heads:])  # (rows, L, 2 kv_heads, d)
            both = own.permute(2, 0, 3, 1).contiguous()  # (2 kv_heads, rows, d, L)
            keys, values = both[:kv_heads].flatten(0, 1), both[kv_heads:].flatten(0, 1)
            grouped = asked.unflatten(1, (kv_heads, -1)).transpose(0, 1).flatten(0, 1)
            scores = torch.bmm(grouped, keys).unflatten(0, (kv_heads, part.rows))
            after = torch.arange(part.length) > self.ends[members][:, None]
            wide = scores.to(torch.promote_types(scores.dtype, torch.float32)).mul_(scale)
            shares = wide.masked_fill_(after[:, None], -torch.inf).softmax(dim=-1).to(scores.dtype)
            found = torch.bmm(shares.flatten(0, 1), values.transpose(1, 2))
            out[members] = found.unflatten(0, (kv_heads, part.rows)).transpose(0, 1).flatten(1, 2)
        return out


def _attended(
    qkv: torch.Tensor, hidden: torch.Tensor | None, heads: int, kv_heads: int, scale: float
) -> torch.Tensor:
    """(rows, L, heads, d) of rows (rows, L, heads + 2 kv_heads, d)."""
    rows, length, _, width = qkv.shape
    dtype, group = qkv.dtype, heads // kv_heads
    if length > (LONGEST if dtype == torch.bfloat16 else LONGEST_WIDE):
        q, k, v = qkv.split([heads, kv_heads, kv_heads], dim=2)
        return _long(q, k, v, hidden, scale)
    # heads that share keys lie behind each other, as rows of one product
    own = qkv.permute(2, 0, 1, 3).contiguous()  # (heads + 2 kv_heads, rows, L, d)
    asked, keys, values = own.split([heads, kv_heads, kv_heads])
    asked = asked.unflatten(0, (kv_heads, group)).transpose(1, 2).reshape(kv_heads * rows, -1, width)
    keys, values = keys.flatten(0, 1), values.flatten(0, 1)
    if hidden is None:
        scores = torch.baddbmm(_after(length, group, dtype), asked, keys.transpose(1, 2), alpha=scale)
    else:
        scores = torch.bmm(asked, keys.transpose(1, 2)).mul_(scale)
        scores.view(kv_heads, rows, group, length, length).masked_fill_(hidden[:, None], -torch.inf)
    # softmax in bfloat16 takes a CPU four times as long as there and back
    shares = scores.to(torch.promote_types(dtype, torch.float32)).softmax(dim=-1).to(dtype)
    found = torch.bmm(shares, values).view(kv_heads, rows, group, length, width)
    return found.permute(1, 3, 0, 2, 4).flatten(2, 3)


@functools.lru_cache(maxsize=16)
def _after(length: int, group: int, dtype: torch.dtype) -> torch.Tensor:
    """(group * L, L) numbers to add to scores: minus infinity for what comes after a token."""
    return torch.full((length, length), -torch.inf, dtype=dtype).triu_(1).repeat(group, 1)


def plan_rectangles(rows: Sequence[Row]) -> Rectangles:
    """Rectangles for rows of one pass, on the CPU."""
    trie = _Trie()
    nodes = [trie.nodes(row) for row in rows]
    parts, back, start = list[Rectangle](), np.empty(len(trie.ids), dtype=np.int64), 0
    for group in _groups([len(row.ids) for row in rows], [row.branches is not None for row in rows]):
        length = max(len(nodes[index]) for index in group)
        where = np.zeros((len(group), length), dtype=np.int64)
        for line, index in enumerate(group):
            own = nodes[index]
            where[line, : len(own)] = own
            back[own] = start + line * length + np.arange(len(own))
        branches = _branches([rows[index] for index in group], length)
        parts.append(Rectangle(tuple(group), torch.from_numpy(where.ravel()), length, branches))
        start += where.size
    reads = np.concatenate([own[row.reads] for own, row in zip(nodes, rows, strict=True)])
    at_ends = all(row.reads.tolist() == [len(row.ids) - 1] and row.branches is None for row in rows)
    return Rectangles(
        torch.tensor(trie.ids),
        torch.tensor(trie.positions),
        torch.from_numpy(reads),
        tuple(parts),
        functional.pad(torch.from_numpy(back), (0, padded(len(back)) - len(back))),
        longest=max(trie.positions) + 1,
        ends=torch.tensor([len(row.ids) - 1 for row in rows]) if at_ends else None,
    )


class _Trie:
    """Tokens by what came before them: where rows are the same, so are their nodes."""

    def __init__(self) -> None:
        self.ids, self.positions = list[int](), list[int]()
        self._known: dict[tuple[int, int], int] = {}

    def nodes(self, row: Row) -> Ids:
        """(L,) the node of each of a row's tokens; a branch goes on from the trunk's end."""
        found, before, trunk = list[int](), -1, -1
        branches = [0] * len(row.ids) if row.branches is None else row.branches.tolist()
        last = 0
        for token, branch, position in zip(row.ids.tolist(), branches, row.positions.tolist(), strict=True):
            if branch != last:
                before, last = trunk, branch
            node = self._known.setdefault((before, token), len(self.ids))
            if node == len(self.ids):
                self.ids.append(token)
                self.positions.append(position)
            found.append(node)
            before = node
            trunk = node if branch == 0 else trunk
        return np.array(found, dtype=np.int64)


def _groups(lengths: Sequence[int], branched: Sequence[bool]) -> list[list[int]]:
    """Rows whose rectangle is not larger than ``WASTE`` allows, the longest first."""
    groups, real = list[list[int]](), 0
    for row in sorted(range(len(lengths)), key=lambda row: (branched[row], -lengths[row])):
        if groups and branched[groups[-1][0]] == branched[row]:
            first, tokens = lengths[groups[-1][0]], real + lengths[row]
            if first * (len(groups[-1]) + 1) <= WASTE * tokens:
                groups[-1].append(row)
                real = tokens
                continue
        groups.append([row])
        real = lengths[row]
    return groups


def _branches(rows: Sequence[Row], length: int) -> torch.Tensor | None:
    if rows[0].branches is None:
        return None
    found = np.full((len(rows), length), -1, dtype=np.int32)
    for line, row in enumerate(rows):
        assert row.branches is not None
        found[line, : len(row.branches)] = row.branches
    return torch.from_numpy(found)


def _long(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, hidden: torch.Tensor | None, scale: float
) -> torch.Tensor:
    """By torch's own attention, which keeps no scores; in float32, where it is faster on a CPU."""
    wide = torch.promote_types(q.dtype, torch.float32)
    query, key, value = (one.transpose(1, 2).to(wide) for one in (q, k, v))
    out = functional.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=None if hidden is None else ~hidden[:, None],
        is_causal=hidden is None,
        scale=scale,
        enable_gqa=q.shape[2] != k.shape[2],
    )
    return out.transpose(1, 2)
