"""Attention of a stream of tokens to cached keys and values.

Two plans. ``CacheGroups``: rows that lie behind each other in the stream, those with the same prefix next to
each other; a group of rows attends to its prefix and every row to itself, in one product with a mask.
``DecodingPlan``: one new token of each growing text, attending to all that the text has so far.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AttentionInterface

from traitmap.engine.attention import check_options, current_plan, fast_dtype, visible_pairs
from traitmap.engine.device import send

NAME = "traitmap_cached"
_CPU_ROOM = 32  # slots on a CPU have places for a multiple of this
_GROUP_TOKENS = {"cpu": 192, "cuda": 1024}  # a wider group wastes arithmetic on masked pairs


@dataclass
class Cached:
    """Keys and values of a prefix, per layer (kv_heads, length, d)."""

    length: int
    keys: dict[int, torch.Tensor] = field(default_factory=dict)
    values: dict[int, torch.Tensor] = field(default_factory=dict)

    def to(self, dtype: torch.dtype | None) -> Cached:
        """The same in another precision; None leaves it."""
        if dtype is None:
            return self
        stores = ({n: part.to(dtype) for n, part in store.items()} for store in (self.keys, self.values))
        return Cached(self.length, *stores)


class CacheGroup:
    """Rows ``start:stop`` of the stream behind one prefix.

    pairs: (n, n) whether token i may look at token j among the rows. positions: (n,) of the tokens in their
    texts.
    """

    def __init__(
        self,
        start: int,
        stop: int,
        prefix: Cached | None,
        pairs: NDArray[np.bool_],
        positions: NDArray[np.int64],
    ) -> None:
        self.start, self.stop, self.prefix = start, stop, prefix
        self.pairs, self.positions = pairs, positions
        self.masks: dict[int | None, torch.Tensor] = {}

    def mask(self, window: int | None, like: torch.Tensor) -> torch.Tensor:
        """(n, prefix + n) numbers to add to the scores: 0 or minus infinity."""
        before = 0 if self.prefix is None else self.prefix.length
        if window is not None and before + self.stop - self.start <= window:
            window = None
        if window not in self.masks:
            seen = np.concatenate([np.ones((len(self.pairs), before), dtype=bool), self.pairs], axis=1)
            if window is not None:
                places = np.concatenate([np.arange(before), self.positions])
                seen &= self.positions[:, None] - places[None, :] < window
            added = torch.zeros(seen.shape, dtype=like.dtype, device=like.device)
            self.masks[window] = added.masked_fill_(send(~seen, like.device), -torch.inf)
        return self.masks[window]


@dataclass
class CacheGroups:
    """A stream in groups; what attention computes of keys and values is kept where ``keep`` is set."""

    groups: list[CacheGroup]
    keep: bool = False
    kept: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)


class CacheSlots:
    """Room for keys (count, kv_heads, room, d) and values (count, kv_heads, d, room) of each layer, for texts
    that grow: either way round a CPU reads them fastest.

    count: slots in use or to be used; it may be lowered when no more texts will come.
    lengths: (count,) tokens of each text that are in, on the host, the shared prefix not counted; 0 where
    there is no text. dtype: of keys and values, or None for that in which they are computed.
    """

    def __init__(self, count: int, device: torch.device, dtype: torch.dtype | None = None) -> None:
        self.count, self.device, self.dtype, self.room = count, device, dtype, 0
        self.lengths = np.zeros(count, dtype=np.int64)
        self.keys: dict[int, torch.Tensor] = {}
        self.values: dict[int, torch.Tensor] = {}

    def fit(self, rows: int) -> int:
        """Make room for one more token in slots ``0:rows``; returns how many places of a slot are read."""
        longest = int(self.lengths[:rows].max()) + 1
        if longest > self.room:
            self.make_room(longest, {layer: (key[0], key[0]) for layer, key in self.keys.items()})
        self.narrow(longest)
        # on a CPU a slot's end is read at no cost, a gap is not
        return self.room if self.device.type == "cpu" else longest

    def make_room(self, needed: int, like: Mapping[int, tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Places for texts of ``needed`` tokens; like: keys and values (kv_heads, any, d) of every layer.

        Room grows by half at least, so it is seldom done; on a CPU by little, because slots are read from
        memory twice as fast where there are no gaps between what is read.
        """
        if needed <= self.room:
            return
        room = max(needed, self.room + self.room // 2, 64)
        if self.device.type == "cpu":
            room = -(-needed // _CPU_ROOM) * _CPU_ROOM
        for layer, (key, _) in like.items():
            heads, width, dtype = key.shape[0], key.shape[-1], self.dtype or key.dtype
            keys = torch.empty((self.count, heads, room, width), dtype=dtype, device=key.device)
            values = torch.empty((self.count, heads, width, room), dtype=dtype, device=key.device)
            if layer in self.keys:
                keys[:, :, : self.room] = self.keys[layer][: self.count]
                values[..., : self.room] = self.values[layer][: self.count]
            keys[:, :, self.room :] = 0  # what is not there yet is looked at, with a weight of nothing
            values[..., self.room :] = 0
            self.keys[layer], self.values[layer] = keys, values
        self.room = room

    def narrow(self, longest: int) -> None:
        """Give up room that no text needs any more, where that is most of it; for a CPU, as above."""
        room = -(-longest // _CPU_ROOM) * _CPU_ROOM
        if 2 * room > self.room or self.device.type != "cpu":
            return
        for layer, key in self.keys.items():
            self.keys[layer] = key[: self.count, :, :room].contiguous()
            self.values[layer] = self.values[layer][: self.count, ..., :room].contiguous()
        self.room = room

    def write(
        self, slot: int, start: int, stop: int, kept: Mapping[int, tuple[torch.Tensor, torch.Tensor]]
    ) -> None:
        """Put tokens ``start:stop`` of a stream (kv_heads, N, d) into a slot, from its beginning."""
        self.make_room(stop - start + 1, kept)
        for layer, (key, value) in kept.items():
            self.keys[layer][slot, :, : stop - start] = key[:, start:stop]
            self.values[layer][slot, :, :, : stop - start] = value[:, start:stop].transpose(1, 2)
        self.lengths[slot] = stop - start

    def write_rows(
        self, slots: Sequence[int], blocks: Mapping[int, tuple[torch.Tensor, torch.Tensor]]
    ) -> None:
        """Put whole rows (rows, L, kv_heads, d) into slots, from their beginning; sets no ``lengths``."""
        chosen = send(np.asarray(slots, dtype=np.int64), self.device)
        for layer, (key, value) in blocks.items():
            length = key.shape[1]
            self.keys[layer][chosen, :, :length] = key.transpose(1, 2).to(self.keys[layer].dtype)
            self.values[layer][chosen, :, :, :length] = value.permute(0, 2, 3, 1).to(self.values[layer].dtype)

    def put(self, layer: int, rows: torch.Tensor, places: torch.Tensor, *new: torch.Tensor) -> None:
        """One more key and value of each text, (rows, kv_heads, d), at its place."""
        key, value = (part.to(self.keys[layer].dtype) for part in new)
        self.keys[layer][rows, :, places] = key
        self.values[layer][rows, :, :, places] = value

    def move(self, source: int, target: int) -> None:
        """A text changes its slot."""
        used = int(self.lengths[source])
        for tensor in self.keys.values():
            tensor[target, :, :used] = tensor[source, :, :used]
        for tensor in self.values.values():
            tensor[target, :, :, :used] = tensor[source, :, :, :used]
        self.lengths[target] = used


class DecodingPlan:
    """The next token of the texts in slots ``0:rows``, all behind one prefix; slots without a text may be
    among them, and what comes out of those means nothing. longest: places of a slot that are read."""

    def __init__(self, slots: CacheSlots, rows: int, longest: int, prefix: Cached | None) -> None:
        self.slots, self.rows, self.longest, self.prefix = slots, rows, longest, prefix
        self.numbers = torch.arange(rows, device=slots.device)
        self.places = send(slots.lengths[:rows].copy(), slots.device)  # of the new tokens in their slots
        self.masks: dict[int | None, torch.Tensor] = {}

    def mask(self, window: int | None, like: torch.Tensor) -> torch.Tensor:
        """(rows, prefix + longest) numbers to add to the scores: 0 or minus infinity."""
        before = 0 if self.prefix is None else self.prefix.length
        if window is not None and before + self.longest <= window:
            window = None
        if window not in self.masks:
            here = self.places[:, None] + before  # the new token's position
            places = torch.arange(before + self.longest, device=like.device)[None, :]
            seen = places <= here
            if window is not None:
                seen &= here - places < window
            added = torch.zeros(seen.shape, dtype=like.dtype, device=like.device)
            self.masks[window] = added.masked_fill_(~seen, -torch.inf)
        return self.masks[window]


def plan_groups(
    lengths: Sequence[int],
    positions: Sequence[NDArray[np.int64]],
    branches: Sequence[NDArray[np.int64] | None],
    prefixes: Sequence[Cached | None],
    device: torch.device,
    *,
    keep: bool = False,
) -> CacheGroups:
    """Groups of rows in the order given; rows with the same prefix must stand together."""
    most, groups, begin, place = _GROUP_TOKENS.get(device.type, 1024), list[CacheGroup](), 0, 0
    for row in range(1, len(lengths) + 1):
        size = sum(lengths[begin:row])
        full = row == len(lengths) or prefixes[row] is not prefixes[begin] or size + lengths[row] > most
        if full:
            # a token sees those before it in its row, of its own branch or the trunk
            row_of = np.repeat(np.arange(row - begin), lengths[begin:row])
            branch = [
                np.zeros(length, dtype=np.int64) if of_row is None else of_row
                for length, of_row in zip(lengths[begin:row], branches[begin:row], strict=True)
            ]
            pairs = visible_pairs(np.concatenate(branch)) & (row_of[:, None] == row_of[None, :])
            where = np.concatenate(positions[begin:row])
            groups.append(CacheGroup(place, place + size, prefixes[begin], pairs, where))
            begin, place = row, place + size
    return CacheGroups(groups, keep)


def cached_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface: query (1, heads, N, d), key and value (1, kv_heads, N, d).

    Returns (1, N, heads, d). ValueError for options that change the arithmetic and are not implemented.
    """
    plan: CacheGroups | DecodingPlan = current_plan()
    check_options(plan, (CacheGroups, DecodingPlan), options)
    q, k, v = (tensor[0].to(fast_dtype(query)) for tensor in (query, key, value))
    scale = q.shape[-1] ** -0.5 if scaling is None else scaling
    if isinstance(plan, CacheGroups):
        out = attend_groups(plan, module.layer_idx, q, k, v, scale, sliding_window)
    else:
        q, k, v = (tensor.transpose(0, 1) for tensor in (q, k, v))
        out = attend_slots(plan, module.layer_idx, q, k, v, scale, sliding_window)
    return out.unsqueeze(0).to(query.dtype), None


def attend_groups(
    plan: CacheGroups,
    layer: int,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    window: int | None,
) -> torch.Tensor:
    """(N, heads, d) of a stream; q (heads, N, d), k and v (kv_heads, N, d)."""
    if plan.keep:
        plan.kept[layer] = (k, v)
    outputs = []
    for group in plan.groups:
        tokens = slice(group.start, group.stop)
        keys, values = k[:, tokens], v[:, tokens]
        if group.prefix is not None:
            keys = torch.cat([group.prefix.keys[layer].to(k.dtype), keys], dim=1)
            values = torch.cat([group.prefix.values[layer].to(v.dtype), values], dim=1)
        out = torch.nn.functional.scaled_dot_product_attention(
            q[None, :, tokens],
            keys[None],
            values[None],
            attn_mask=group.mask(window, q)[None, None],
            scale=scale,
            enable_gqa=q.shape[0] != k.shape[0],
        )
        outputs.append(out[0].transpose(0, 1))
    return torch.cat(outputs)


def attend_slots(
    plan: DecodingPlan,
    layer: int,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    window: int | None,
) -> torch.Tensor:
    """(rows, heads, d) of one token per text; q (rows, heads, d), k and v (rows, kv_heads, d).

    The shared prefix is read once for all of them, and no slot is copied.
    """
    slots, rows, (heads, width) = plan.slots, plan.rows, k.shape[1:]
    slots.put(layer, plan.numbers, plan.places, k, v)
    keys = slots.keys[layer][:rows, :, : plan.longest].flatten(0, 1)  # (rows * kv_heads, longest, d)
    values = slots.values[layer][:rows, ..., : plan.longest].flatten(0, 1)  # (rows * kv_heads, d, longest)
    queries = q.reshape(rows * heads, -1, width).to(keys.dtype)  # heads of each kv_head in the middle
    scores = torch.bmm(queries, keys.transpose(1, 2)).view(rows, heads, -1, plan.longest)
    if plan.prefix is not None:
        first = plan.prefix.length
        together = queries.view(rows, heads, -1, width).transpose(0, 1).reshape(heads, -1, width)
        before = together @ plan.prefix.keys[layer].transpose(1, 2)
        scores = torch.cat([before.view(heads, rows, -1, first).transpose(0, 1), scores], dim=-1)
    fine = scores.to(torch.promote_types(scores.dtype, torch.float32))
    weights = fine.mul_(scale).add_(plan.mask(window, fine)[:, None, None, :]).softmax(dim=-1).to(keys.dtype)
    if plan.prefix is None:
        return _mixed(weights.view(rows * heads, -1, plan.longest), values).view(rows, -1, width)
    out = _mixed(weights[..., first:].reshape(rows * heads, -1, plan.longest), values)
    shared = weights[..., :first].transpose(0, 1).reshape(heads, -1, first) @ plan.prefix.values[layer]
    return out.view(rows, -1, width).add_(
        shared.view(heads, rows, -1, width).transpose(0, 1).reshape(rows, -1, width)
    )


def _mixed(weights: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """(B, n, d) of weights (B, n, L) and values (B, d, L), the way round that is the faster one."""
    if weights.dtype == torch.float32 and weights.shape[1] == 1:
        return torch.bmm(values, weights.transpose(1, 2)).transpose(1, 2)
    return torch.bmm(weights, values.transpose(1, 2))


AttentionInterface.register(NAME, cached_attention)
