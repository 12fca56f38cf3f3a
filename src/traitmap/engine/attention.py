"""Attention over an unpadded stream of tokens.

All rows of a pass lie behind each other in one stream of shape (1, N), so the linear layers, which
are nearly all of the work, compute no padding. Attention alone needs rows: it gathers them into
buckets of similar length, pads inside a bucket, and scatters the result back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AttentionInterface

from traitmap.engine.cpu.products import pad_to_bucket
from traitmap.engine.device import send

NAME = "traitmap_stream"
_WINDOWS = ("sliding_window", "attention_chunk_size")
_NARROW = 6  # tokens of a window while it is tried
WASTE = 1.15  # a bucket's padded size may exceed its real size by this factor
_VECTOR = 32  # numbers in bfloat16 that a processor takes at once
LONGEST, LONGEST_WIDE = 512, 96  # tokens of a row up to which plain products win on a CPU: bfloat16, wider


@dataclass(frozen=True)
class Bucket:
    """Rows of similar length. index: (rows, length) places in the stream, padding points at its row's first
    token. There may be rows of nothing but padding at the end, for a common shape.

    mask: (rows, 1, length, length) of who may look at whom, or None where rows are plain causal.
    positions: (rows, length) positions of the tokens in their row, for sliding windows.
    """

    index: torch.Tensor
    mask: torch.Tensor | None
    positions: torch.Tensor


@dataclass(frozen=True)
class StreamPlan:
    """How a stream falls into buckets: a plan of ``stream_attention``.

    rows: (N,) where the row of each token of the rows begins among all buckets behind each other, padding
    included; places: (N,) its place in the row; widths: (N,) the length of the row, padding included.
    size: tokens of the stream, N and some at its end that belong to no row.
    """

    buckets: tuple[Bucket, ...]
    rows: torch.Tensor
    places: torch.Tensor
    widths: torch.Tensor
    size: int
    _found: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)

    @property
    def padding(self) -> float:
        """Share of the tokens computed in attention that are padding; elsewhere there is next to none."""
        return 1 - len(self.places) / sum(bucket.index.numel() for bucket in self.buckets)

    def by_head(self, heads: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(M heads,) where in (size heads,) to look up buckets of (rows, heads, length), one behind the
        other, and (N heads,) where each token's heads are there."""
        if heads not in self._found:
            head = torch.arange(heads, device=self.places.device)
            there = [bucket.index[:, None] * heads + head[:, None] for bucket in self.buckets]
            back = (self.rows * heads + self.places)[:, None] + self.widths[:, None] * head
            self._found[heads] = torch.cat([one.reshape(-1) for one in there]), back.reshape(-1)
        return self._found[heads]


_PLAN: ContextVar[Any] = ContextVar("traitmap_attention_plan", default=None)


@contextmanager
def planned(plan: Any) -> Iterator[None]:
    """Attend by this plan inside the block: of this module, or of ``cached_attention``."""
    token = _PLAN.set(plan)
    try:
        yield
    finally:
        _PLAN.reset(token)


def current_plan() -> Any:
    """The plan of the block that this is called in, or None."""
    return _PLAN.get()


@contextmanager
def attending(model: Any, name: str) -> Iterator[None]:
    """The model's attention by another implementation inside the block."""
    own = model.config._attn_implementation
    model.set_attn_implementation(name)
    try:
        yield
    finally:
        model.set_attn_implementation(own)


@contextmanager
def narrowed(model: Any) -> Iterator[str]:
    """The model with windows of attention of a few tokens for the block: the name of what it has, or ""."""
    changed: list[tuple[Any, str, int]] = []
    configs = {id(config): config for config in (model.config, model.config.get_text_config())}
    for owner in [*configs.values(), *model.modules()]:
        for name in _WINDOWS:
            value = vars(owner).get(name)
            if isinstance(value, int) and not isinstance(value, bool) and value > _NARROW:
                changed.append((owner, name, value))
    try:
        for owner, name, _ in changed:
            setattr(owner, name, _NARROW)
        yield changed[0][1].replace("_", " ") if changed else ""
    finally:
        for owner, name, value in changed:
            setattr(owner, name, value)


def layout_attention(model: Any, layout: str, name: str = NAME) -> AbstractContextManager[None]:
    """The attention of a layout: ``name`` for ``stream``, the model's own for ``padded``."""
    return attending(model, name) if layout == "stream" else nullcontext()


def plan_stream(
    lengths: Sequence[int],
    positions: Sequence[NDArray[np.int64]],
    branches: Sequence[NDArray[np.int64] | None],
    device: torch.device,
    size: int | None = None,
) -> StreamPlan:
    """Buckets for rows that lie behind each other in the stream, in the order given.

    branches: per row None (plain causal), or (L,) with 0 for the shared trunk and b > 0 for branch b:
    a branch sees the trunk and itself, never another branch. size: tokens of the stream where it is longer
    than its rows.
    """
    starts = np.concatenate([[0], np.cumsum(lengths)])
    real = int(starts[-1])
    row_starts, widths = np.empty(real, dtype=np.int64), np.empty(real, dtype=np.int64)
    buckets, offset = [], 0
    for rows in group_by_length(lengths, [branch is not None for branch in branches], WASTE):
        high, longest, mask = len(rows), lengths[rows[0]], None
        if branches[rows[0]] is None:
            high, longest = pad_to_bucket(high, 4), pad_to_bucket(longest, 4)
        else:
            mask = send(_branch_masks([branches[row] for row in rows], longest), device)
        firsts = starts[rows + rows[-1:] * (high - len(rows))]  # one row's padding reads no other's numbers
        index = np.repeat(firsts[:, None], longest, axis=1)
        where = np.zeros((high, longest), dtype=np.int64)
        for place, row in enumerate(rows):
            length, own = lengths[row], slice(starts[row], starts[row + 1])
            index[place, :length] = np.arange(starts[row], starts[row + 1])
            where[place, :length] = positions[row]
            row_starts[own], widths[own] = offset + place * longest, longest
        buckets.append(Bucket(send(index, device), mask, send(where, device)))
        offset += index.size
    places = np.concatenate([np.arange(length) for length in lengths])
    rows_at, places_at, widths_at = (send(values, device) for values in (row_starts, places, widths))
    return StreamPlan(tuple(buckets), rows_at, places_at, widths_at, real if size is None else size)


def group_by_length(lengths: Sequence[int], branched: Sequence[bool], waste: float) -> list[list[int]]:
    """Rows, longest first, in groups whose padded size is at most ``waste`` times the real one.

    branched: whether a row has branches; a group is all one or the other.
    """
    groups, real = list[list[int]](), 0
    for row in sorted(range(len(lengths)), key=lambda row: (branched[row], -lengths[row])):
        first = groups[-1][0] if groups else row
        fits = lengths[first] * (len(groups[-1]) + 1 if groups else 1) <= waste * (real + lengths[row])
        if groups and branched[first] == branched[row] and fits:
            groups[-1].append(row)
            real += lengths[row]
        else:
            groups.append([row])
            real = lengths[row]
    return groups


def visible_pairs(branches: NDArray[np.integer]) -> NDArray[np.bool_]:
    """(..., L, L) whether token i may look at token j, given (..., L) branches with 0 for the trunk.

    A token sees what comes before it in the trunk and in its own branch.
    """
    shared = (branches[..., :, None] == branches[..., None, :]) | (branches[..., None, :] == 0)
    pairs: NDArray[np.bool_] = np.tril(shared)
    return pairs


def _branch_masks(branches: Sequence[NDArray[np.int64] | None], longest: int) -> NDArray[np.bool_]:
    """(rows, 1, longest, longest); padding sees itself, since a row of nothing has no softmax."""
    masks = np.zeros((len(branches), 1, longest, longest), dtype=bool)
    for number, branch in enumerate(branches):
        assert branch is not None
        length = len(branch)
        masks[number, 0, :length, :length] = visible_pairs(branch)
        masks[number, 0, range(length, longest), range(length, longest)] = True
    return masks


def check_options(plan: Any, kind: type | tuple[type, ...], options: Mapping[str, Any]) -> None:
    """ValueError for a pass without a plan of this kind, and for options that change the arithmetic of
    attention and are implemented neither here nor in ``cached_attention``."""
    unknown = [name for name in ("softcap", "s_aux", "position_bias") if options.get(name) is not None]
    if unknown or not isinstance(plan, kind):
        raise ValueError(f"attention does not implement {unknown or 'a pass without a plan'}")


def fast_dtype(x: torch.Tensor) -> torch.dtype:
    """To attend in: on a CPU torch's bfloat16 attention is up to three times slower than its float32."""
    return torch.float32 if x.device.type == "cpu" and x.dtype == torch.bfloat16 else x.dtype


def stream_attention(
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
    """transformers' attention interface: query (1, heads, N, d), key and value (1, kv_heads, N, d).

    Returns (1, N, heads, d). Raises ValueError for options that change the arithmetic and are not
    implemented here; the engine then uses padded rows and the model's own attention.
    """
    plan: StreamPlan = current_plan()
    check_options(plan, StreamPlan, options)
    wide, longest = fast_dtype(query), LONGEST if query.dtype == torch.bfloat16 else LONGEST_WIDE
    heads = {"q": query.shape[1], "k": key.shape[1], "v": value.shape[1]}
    streams = [
        _Gather.apply(tensor[0].transpose(0, 1), *plan.by_head(tensor.shape[1]))
        for tensor in (query, key, value)
    ]
    sizes = [[bucket.index.numel() * count for bucket in plan.buckets] for count in heads.values()]
    split = [stream.split(each) for stream, each in zip(streams, sizes, strict=True)]
    outputs = []
    for bucket, *parts in zip(plan.buckets, *split, strict=True):
        rows, length = bucket.index.shape
        q, k, v = (
            part.view(rows, count, length, -1) for part, count in zip(parts, heads.values(), strict=True)
        )
        mask = bucket.mask
        if sliding_window is not None and length > sliding_window:
            distance = bucket.positions[:, None, :, None] - bucket.positions[:, None, None, :]
            causal = torch.ones(length, length, dtype=torch.bool, device=distance.device).tril()
            mask = (causal if mask is None else mask) & (distance < sliding_window)
        if mask is None and not dropout and query.device.type == "cpu" and length <= longest:
            out = short_attention(q, k, v, scaling)
        else:
            out = torch.nn.functional.scaled_dot_product_attention(
                q.to(wide),
                k.to(wide),
                v.to(wide),
                attn_mask=mask,
                dropout_p=dropout,
                is_causal=mask is None,
                scale=scaling,
                enable_gqa=q.shape[1] != k.shape[1],
            ).to(query.dtype)
        outputs.append(out.reshape(rows * q.shape[1] * length, -1))
    whole = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
    back = plan.by_head(heads["q"])[1]
    return _Scatter.apply(whole, back, plan.size, heads["q"]).unsqueeze(0), None


class _Gather(torch.autograd.Function):
    """(tokens, heads, d) looked up as (M heads, d); padding has no gradient, so backward is a look-up too."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, gather: torch.Tensor, back: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(back)
        ctx.shape = x.shape
        return x.reshape(-1, x.shape[-1]).index_select(0, gather)

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (back,) = ctx.saved_tensors
        return _looked_up(dy, back, ctx.shape), None, None


class _Scatter(torch.autograd.Function):
    """Every token's own output, (size, heads, d), from (M heads, d); padding gets a gradient of zero."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, back: torch.Tensor, size: int, heads: int) -> torch.Tensor:
        ctx.save_for_backward(back)
        ctx.size = len(x)
        return _looked_up(x, back, torch.Size((size, heads, x.shape[-1])))

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (back,) = ctx.saved_tensors
        own = dy.reshape(-1, dy.shape[-1])[: len(back)]
        return dy.new_zeros(ctx.size, dy.shape[-1]).index_copy_(0, back, own), None, None, None


def _looked_up(x: torch.Tensor, places: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """x[places] as ``shape``, zero behind what there are places for."""
    whole = x.new_empty(shape)
    flat = whole.view(-1, x.shape[-1])
    torch.index_select(x, 0, places, out=flat[: len(places)])
    flat[len(places) :].zero_()
    return whole


class _CausalAttention(torch.autograd.Function):
    """Causal attention of rows by plain matrix products; q, k, v (B, L, d), probabilities kept.

    For short rows on a CPU, where torch's own attention takes two to five times as long in bfloat16.
    """

    @staticmethod
    def forward(
        ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, hidden: torch.Tensor, scale: float
    ) -> torch.Tensor:
        scores = torch.baddbmm(hidden, q, k.transpose(1, 2), alpha=scale)
        if scores.dtype == torch.bfloat16 and scores.shape[-1] % _VECTOR:  # then torch's is two times slower
            shares = torch.softmax(scores, dim=-1, dtype=torch.float32).to(scores.dtype)
        else:
            shares = torch.softmax(scores, dim=-1)
        ctx.save_for_backward(q, k, v, shares)
        ctx.scale = scale
        return torch.bmm(shares, v)

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q, k, v, shares = ctx.saved_tensors
        dv = torch.bmm(shares.transpose(1, 2), dy)
        grad = torch.ops.aten._softmax_backward_data(
            torch.bmm(dy, v.transpose(1, 2)), shares, -1, shares.dtype
        )
        dq = torch.bmm(grad, k).mul_(ctx.scale)
        return dq, torch.bmm(grad.transpose(1, 2), q).mul_(ctx.scale), dv, None, None


def short_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scaling: float | None) -> torch.Tensor:
    """``_CausalAttention`` of q (rows, heads, L, d) and k, v (rows, kv_heads, L, d)."""
    rows, heads, length, width = q.shape
    if k.shape[1] != heads:
        k, v = (part.repeat_interleave(heads // k.shape[1], dim=1) for part in (k, v))
    hidden = torch.full((length, length), -torch.inf, dtype=q.dtype).triu_(1)
    scale = width**-0.5 if scaling is None else scaling
    parts = (part.reshape(rows * heads, length, width) for part in (q, k, v))
    return _CausalAttention.apply(*parts, hidden, scale).view(rows, heads, length, width)


AttentionInterface.register(NAME, stream_attention)
