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
from traitmap.engine.lean import padded
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
