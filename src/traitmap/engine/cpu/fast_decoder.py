"""Fast CPU forward pass for Llama-type decoders, which computes what rows share once.

transformers takes some fifty small operators a layer, which cost more than the products of a small base.
Here there are about fifteen, and what follows a product (swish, the residual sum) is a part of it. A model
qualifies by the classes of its modules; ``forward_paths`` then compares logits with the model's own and
keeps to the model's pass where they differ.

A batch (``Rectangles``) is a trie: every token stands once for all rows that are the same up to it, so
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
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional
from transformers.activations import SiLUActivation
from transformers.models.llama import modeling_llama
from transformers.models.mistral import modeling_mistral
from transformers.models.qwen2 import modeling_qwen2

from traitmap.engine.attention import LONGEST, LONGEST_WIDE, group_by_length, visible_pairs
from traitmap.engine.cpu.products import is_plain, packed, pad_to_bucket, product
from traitmap.engine.passes import Ids, Row

MOST_PARAMETERS = (
    100_000_000  # above it products dwarf the rest, and a second copy of the weights costs memory
)
_FAMILIES = ((modeling_llama, "Llama"), (modeling_mistral, "Mistral"), (modeling_qwen2, "Qwen2"))
_PARTS = ("ForCausalLM", "Model", "DecoderLayer", "Attention", "MLP", "RMSNorm", "RotaryEmbedding")
_COMMON = {nn.Linear, nn.Embedding, nn.ModuleList, nn.SiLU, SiLUActivation}
_FIXED_ROPE = {"default", "linear", "llama3", "yarn"}  # frequencies that do not depend on a text's length

Attend = Callable[[int, torch.Tensor, bool], torch.Tensor]
"""A layer's number, (N, heads + 2 kv_heads, d) of queries, keys and values, whether the output is needed at
the reads only -> (N or a few more, heads, d), or (P, heads, d) at the reads."""


class _Product:
    """x W^T + bias, of several modules at once where they read the same x.

    rotated: how many of the modules give heads of ``width`` numbers that are rotated by position.
    """

    def __init__(self, *modules: nn.Linear, rotated: int = 0, width: int = 0) -> None:
        weights: list[torch.Tensor] = [module.weight for module in modules]
        biases: list[torch.Tensor] = [module.bias for module in modules if module.bias is not None]
        for parts in (weights, biases):
            parts[:rotated] = [_paired(part, width) for part in parts[:rotated]]
        self.weight = packed(torch.cat(weights))
        self.bias = torch.cat(biases) if len(biases) == len(modules) else None

    def __call__(self, x: torch.Tensor, **post_operation: Any) -> torch.Tensor:
        return product(x, self.weight, self.bias, **post_operation)


def _paired(rows: torch.Tensor, width: int) -> torch.Tensor:
    """Rows of heads of ``width``, number i next to i + width / 2: the two that are rotated together."""
    return rows.unflatten(0, (-1, 2, width // 2)).transpose(1, 2).flatten(0, 2)


def _norm_of(module: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """Llama's normalisation: in float32, whatever x is."""
    own, epsilon = module.weight, module.variance_epsilon
    weight, shape = own.to(torch.promote_types(own.dtype, torch.float32)), tuple(own.shape)

    def normalise(x: torch.Tensor) -> torch.Tensor:
        return functional.rms_norm(x.to(torch.float32), shape, weight, epsilon).to(x.dtype)

    def normalise_exactly(x: torch.Tensor) -> torch.Tensor:
        wide = x.to(torch.float32)
        wide = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + epsilon)
        return wide.to(x.dtype) * weight

    return normalise_exactly if weight.dtype == torch.float64 else normalise


class _Layer:
    """The products and normalisations of one decoder layer."""

    def __init__(self, layer: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.before_attention = _norm_of(layer.input_layernorm)
        heads = (attention.q_proj, attention.k_proj, attention.v_proj)
        self.qkv = _Product(*heads, rotated=2, width=attention.head_dim)
        self.out = _Product(attention.o_proj)
        self.before_mlp = _norm_of(layer.post_attention_layernorm)
        self.gate, self.up, self.down = map(_Product, (mlp.gate_proj, mlp.up_proj, mlp.down_proj))


class RotaryEmbedding:
    """What queries and keys are rotated by at each position, as complex numbers: a table that grows."""

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


class FastDecoder:
    """A decoder's weights as they are now, a merged adapter included, as products read them fastest.

    Queries and keys have the two numbers of a rotation next to each other, so keys that one forward path
    computed are of no use to the other.
    """

    def __init__(self, model: Any) -> None:
        stack = model.model
        self.embedding: torch.Tensor = stack.embed_tokens.weight
        self.layers = [_Layer(layer) for layer in stack.layers]
        self.norm = _norm_of(stack.norm)
        self.head = _Product(model.lm_head)
        self.rotary = RotaryEmbedding(model)
        self.heads: int = model.config.num_attention_heads
        self.kv_heads: int = model.config.num_key_value_heads
        self.scale: float = stack.layers[0].self_attn.scaling

    @classmethod
    def of(cls, model: Any) -> FastDecoder | None:
        """None where this model is not known to be built that way."""
        return cls(model) if is_known(model) else None

    def logits(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        longest: int,
        attend: Attend,
        reads: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(P, V) at the positions ``reads`` (P,), or at all; ids and positions (N,), these below ``longest``.

        Products are computed for a few more tokens than there are, whose outputs nobody reads, so that they
        come in few shapes (``products``).
        """
        tokens, rotation = len(ids), self.rotary.at(positions, longest)
        x = functional.embedding(_filled(ids, padded(tokens)), self.embedding)
        for number, layer in enumerate(self.layers):
            only = number == len(self.layers) - 1 and reads is not None
            attended = attend(number, self._rotated(layer, x, tokens, rotation), only).flatten(1)
            if only and reads is not None:
                x = x.index_select(0, _filled(reads, padded(len(reads))))
            if len(attended) < len(x):
                attended = functional.pad(attended, (0, 0, 0, len(x) - len(attended)))
            x = layer.out(attended, plus=x)
            y = layer.before_mlp(x)
            x = layer.down(layer.up(y, times=layer.gate(y, swish=True)), plus=x)
        return self.head(self.norm(x))[: tokens if reads is None else len(reads)]

    def _rotated(self, layer: _Layer, x: torch.Tensor, tokens: int, rotation: torch.Tensor) -> torch.Tensor:
        """(N, heads + 2 kv_heads, d) of a layer, queries and keys rotated by their positions."""
        qkv = layer.qkv(layer.before_attention(x))[:tokens].view(tokens, -1, 2 * rotation.shape[-1])
        narrow = qkv[:, : self.heads + self.kv_heads]
        wide = narrow.to(rotation.real.dtype)  # the same tensor, but for bfloat16
        torch.view_as_complex(wide.unflatten(-1, (-1, 2))).mul_(rotation)
        if wide.dtype != narrow.dtype:
            narrow.copy_(wide)
        return qkv


def padded(tokens: int) -> int:
    """How many tokens products are computed for; short ones wait for the weights, not for arithmetic."""
    return pad_to_bucket(tokens, 2 if tokens <= 128 else 4 if tokens <= 512 else 16)


def _filled(places: torch.Tensor, size: int) -> torch.Tensor:
    return functional.pad(places, (0, size - len(places))) if size > len(places) else places


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
    branches: NDArray[np.int32] | None

    @property
    def rows(self) -> int:
        return len(self.members)

    def block(self, stream: torch.Tensor) -> torch.Tensor:
        """(rows, L, ...) the rectangle's tokens of a stream (N, ...)."""
        return stream.index_select(0, self.where).unflatten(0, (self.rows, self.length))

    def hidden(self) -> torch.Tensor | None:
        """(rows, L, L) what a token must not look at; None where rows have no branches."""
        return None if self.branches is None else torch.from_numpy(~visible_pairs(self.branches))


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
                attended = _attended(part.block(qkv), unseen, heads, kv_heads, scale)
                stop = start + len(part.where)
                out[start:stop].view(attended.shape).copy_(attended)
                start = stop
            return out.index_select(0, self.back[self.reads] if only else self.back)

        return attend

    def _at_ends(self, qkv: torch.Tensor, heads: int, kv_heads: int, scale: float) -> torch.Tensor:
        """(P, heads, d) where every row is read at its last token alone."""
        assert self.ends is not None
        out = qkv.new_empty(len(self.reads), heads, qkv.shape[-1])
        for part in self.parts:
            members = torch.tensor(part.members)
            queries = qkv[:, :heads].index_select(0, self.reads[members])  # (rows, heads, d)
            block = part.block(qkv[:, heads:])  # (rows, L, 2 kv_heads, d)
            both = block.permute(2, 0, 3, 1).contiguous()  # (2 kv_heads, rows, d, L)
            keys, values = both[:kv_heads].flatten(0, 1), both[kv_heads:].flatten(0, 1)
            grouped = queries.unflatten(1, (kv_heads, -1)).transpose(0, 1).flatten(0, 1)
            scores = torch.bmm(grouped, keys).unflatten(0, (kv_heads, part.rows))
            after = torch.arange(part.length) > self.ends[members][:, None]
            wide = scores.to(torch.promote_types(scores.dtype, torch.float32)).mul_(scale)
            shares = wide.masked_fill_(after[:, None], -torch.inf).softmax(dim=-1).to(scores.dtype)
            mixed = torch.bmm(shares.flatten(0, 1), values.transpose(1, 2))
            out[members] = mixed.unflatten(0, (kv_heads, part.rows)).transpose(0, 1).flatten(1, 2)
        return out


def _attended(
    qkv: torch.Tensor, hidden: torch.Tensor | None, heads: int, kv_heads: int, scale: float
) -> torch.Tensor:
    """(rows, L, heads, d) of rows (rows, L, heads + 2 kv_heads, d)."""
    rows, length, _, width = qkv.shape
    dtype, group = qkv.dtype, heads // kv_heads
    if length > (LONGEST if dtype == torch.bfloat16 else LONGEST_WIDE):
        # torch's own attention keeps no scores; in float32, where it is faster on a CPU
        wide = qkv.transpose(1, 2).to(torch.promote_types(dtype, torch.float32))
        query, key, value = wide.split([heads, kv_heads, kv_heads], dim=1)
        out = functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=None if hidden is None else ~hidden[:, None],
            is_causal=hidden is None,
            scale=scale,
            enable_gqa=group != 1,
        )
        return out.transpose(1, 2)
    # heads that share keys lie behind each other, as rows of one product
    by_head = qkv.permute(2, 0, 1, 3).contiguous()  # (heads + 2 kv_heads, rows, L, d)
    queries, keys, values = by_head.split([heads, kv_heads, kv_heads])
    queries = queries.unflatten(0, (kv_heads, group)).transpose(1, 2).reshape(kv_heads * rows, -1, width)
    keys, values = keys.flatten(0, 1), values.flatten(0, 1)
    if hidden is None:
        scores = torch.baddbmm(_after(length, group, dtype), queries, keys.transpose(1, 2), alpha=scale)
    else:
        scores = torch.bmm(queries, keys.transpose(1, 2)).mul_(scale)
        scores.view(kv_heads, rows, group, length, length).masked_fill_(hidden[:, None], -torch.inf)
    # softmax in bfloat16 takes a CPU four times as long as there and back
    shares = scores.to(torch.promote_types(dtype, torch.float32)).softmax(dim=-1).to(dtype)
    mixed = torch.bmm(shares, values).view(kv_heads, rows, group, length, width)
    return mixed.permute(1, 3, 0, 2, 4).flatten(2, 3)


@functools.lru_cache(maxsize=16)
def _after(length: int, group: int, dtype: torch.dtype) -> torch.Tensor:
    """(group * L, L) numbers to add to scores: minus infinity for what comes after a token."""
    return torch.full((length, length), -torch.inf, dtype=dtype).triu_(1).repeat(group, 1)


def plan_rectangles(rows: Sequence[Row]) -> Rectangles:
    """Rectangles for rows of one pass, on the CPU."""
    trie = _Trie()
    nodes = [trie.nodes(row) for row in rows]
    parts, back, start = list[Rectangle](), np.empty(len(trie.ids), dtype=np.int64), 0
    for group in group_by_length(
        [len(row.ids) for row in rows], [row.branches is not None for row in rows], WASTE
    ):
        length = len(nodes[group[0]])
        where = np.zeros((len(group), length), dtype=np.int64)
        branches = None if rows[group[0]].branches is None else np.full(where.shape, -1, dtype=np.int32)
        for line, index in enumerate(group):
            tokens, row_branches = nodes[index], rows[index].branches
            where[line, : len(tokens)] = tokens
            back[tokens] = start + line * length + np.arange(len(tokens))
            if branches is not None and row_branches is not None:
                branches[line, : len(tokens)] = row_branches
        parts.append(Rectangle(tuple(group), torch.from_numpy(where.ravel()), length, branches))
        start += where.size
    reads = np.concatenate([tokens[row.reads] for tokens, row in zip(nodes, rows, strict=True)])
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
        path, before, trunk = list[int](), -1, -1
        branches = [0] * len(row.ids) if row.branches is None else row.branches.tolist()
        last = 0
        for token, branch, position in zip(row.ids.tolist(), branches, row.positions.tolist(), strict=True):
            if branch != last:
                before, last = trunk, branch
            node = self._known.setdefault((before, token), len(self.ids))
            if node == len(self.ids):
                self.ids.append(token)
                self.positions.append(position)
            path.append(node)
            before = node
            trunk = node if branch == 0 else trunk
        return np.array(path, dtype=np.int64)
