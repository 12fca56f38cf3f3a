"""A pass over rows by themselves for ``lean``: a beginning that rows share is computed once.

The stream holds every token once for all rows that are the same up to it, as the nodes of a trie; so
templates and repeated questions cost no products. Attention alone sees whole rows: those of nearly one
length make a rectangle, whose tokens are looked up in the stream.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from traitmap.engine.attention import LONGEST, LONGEST_WIDE
from traitmap.engine.passes import Ids, Row

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

    back: (N,) a place of each token in all rectangles behind each other. longest: above all positions.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    reads: torch.Tensor
    parts: tuple[Rectangle, ...]
    back: torch.Tensor
    longest: int

    def attention(self, scale: float, dtype: torch.dtype) -> Callable[..., torch.Tensor]:
        """For one pass: from q (N, heads, d), k and v (N, kv_heads, d) to (N, heads, d) in ``dtype``."""
        hidden = [part.hidden() for part in self.parts]

        def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            out = torch.empty(sum(len(part.where) for part in self.parts), *q.shape[1:], dtype=dtype)
            start = 0
            for part, unseen in zip(self.parts, hidden, strict=True):
                own, keys, values = (part.block(one) for one in (q, k, v))
                found = _attended(own, keys, values, unseen, scale=scale, dtype=dtype)
                stop = start + len(part.where)
                out[start:stop].view(found.shape).copy_(found)
                start = stop
            return out.index_select(0, self.back)

        return attend


def _attended(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    hidden: torch.Tensor | None,
    *,
    scale: float,
    dtype: torch.dtype,
) -> torch.Tensor:
    """(rows, L, heads, d) of q (rows, L, heads, d), k and v (rows, L, kv_heads, d)."""
    rows, length, heads, width = q.shape
    if length > (LONGEST if dtype == torch.bfloat16 else LONGEST_WIDE):
        return _long(q, k, v, hidden, scale)
    kv_heads = k.shape[2]
    group = heads // kv_heads  # heads that share keys lie behind each other, as rows of one product
    asked = q.unflatten(2, (kv_heads, group)).permute(0, 2, 3, 1, 4)
    asked = _packed(asked, dtype).view(rows * kv_heads, group * length, width)
    keys, values = (_packed(one.transpose(1, 2), dtype).view(-1, length, width) for one in (k, v))
    if hidden is None:
        scores = torch.baddbmm(_after(length, group, dtype), asked, keys.transpose(1, 2), alpha=scale)
    else:
        scores = torch.bmm(asked, keys.transpose(1, 2)).mul_(scale)
        scores.view(rows, heads, length, length).masked_fill_(hidden[:, None], -torch.inf)
    # softmax in bfloat16 takes a CPU four times as long as there and back
    shares = scores.to(torch.promote_types(dtype, torch.float32)).softmax(dim=-1).to(dtype)
    found = torch.bmm(shares, values).view(rows, kv_heads, group, length, width)
    return found.permute(0, 3, 1, 2, 4).flatten(2, 3)


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
    return Rectangles(
        torch.tensor(trie.ids),
        torch.tensor(trie.positions),
        torch.from_numpy(reads),
        tuple(parts),
        torch.from_numpy(back),
        longest=max(trie.positions) + 1,
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


def _packed(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """x in one piece, in the order that it is seen in, and in ``dtype``: one copy for both."""
    return torch.empty(x.shape, dtype=dtype).copy_(x)
