"""Forward passes behind keys and values that were computed before, and with no work that nobody reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from traitmap.engine import attention, cached_attention
from traitmap.engine.cached_attention import (
    Cached,
    CacheGroups,
    CacheSlots,
    DecodingPlan,
    attend_groups,
    attend_slots,
    plan_groups,
    planned,
)
from traitmap.engine.cpu.lean import Lean, Rectangles, plan_rectangles
from traitmap.engine.cpu.products import few
from traitmap.engine.lora import Resident, Slice
from traitmap.engine.passes import Row, only_at, read_logits

EVERYTHING = Slice(0, 0, 2**62)


@dataclass(frozen=True)
class Shortcuts:
    """What was found to be right on this model, adapters included.

    cached: passes behind computed keys and values. last: the last layer's feed-forward block, where its
    outputs at places that are not read have no part in the logits at the others. lean: passes by ``lean``.
    """

    cached: bool = False
    last: nn.Module | None = None
    lean: bool = False

    def on(self, model: Any) -> Shortcuts:
        """The same for another model that is built alike."""
        return replace(self, last=None if self.last is None else _feed_forward(model))


def read_stream(
    model: Any, rows: Sequence[Row], adapters: Resident | None, last: nn.Module | None
) -> torch.Tensor:
    """(P, V) logits of rows in a stream, as ``passes.read_logits`` gives them."""
    starts = np.concatenate([[0], np.cumsum([len(row.ids) for row in rows])])[:-1]
    reads = np.concatenate([row.reads + start for row, start in zip(rows, starts, strict=True)])
    with only_where_read(last, reads):
        if adapters is None or last is None:
            return read_logits(model, "stream", rows, adapters)
        adapters.route([EVERYTHING])  # the block of the last layer sees fewer tokens than there are
        return read_logits(model, "stream", rows)


def read_rectangles(
    lean: Lean, plan: Rectangles, kept: dict[int, tuple[torch.Tensor, torch.Tensor]] | None = None
) -> torch.Tensor:
    """(P, V) logits at the reads of rows by themselves, the lean way.

    kept: gets keys and values (N, kv_heads, d) of every layer where it is given.
    """
    attended = plan.attention(lean.heads, lean.kv_heads, lean.scale)

    def attend(number: int, qkv: torch.Tensor, only: bool) -> torch.Tensor:
        if kept is not None:
            kept[number] = (qkv[:, lean.heads : -lean.kv_heads], qkv[:, -lean.kv_heads :])
        return attended(qkv, only)

    return lean.logits(plan.ids, plan.positions, plan.longest, attend, plan.reads)


def read_behind(
    model: Any,
    rows: Sequence[Row],
    prefixes: Sequence[Cached | None],
    adapters: Resident | None = None,
    *,
    last: nn.Module | None = None,
    keep: bool = False,
    lean: Lean | None = None,
) -> tuple[torch.Tensor, CacheGroups]:
    """(P, V) logits at the reads of rows behind their prefixes, and the plan with what it kept.

    Rows with the same prefix must stand together; all belong to one adapter.
    """
    device = model.device
    lengths = [len(row.ids) for row in rows]
    starts = np.concatenate([[0], np.cumsum(lengths)])[:-1]
    positions = [
        row.positions + (0 if prefix is None else prefix.length)
        for row, prefix in zip(rows, prefixes, strict=True)
    ]
    plan = plan_groups(lengths, positions, [row.branches for row in rows], prefixes, device, keep=keep)
    ids = np.concatenate([row.ids for row in rows])
    reads = np.concatenate([row.reads + start for row, start in zip(rows, starts, strict=True)])
    with only_where_read(last, reads):
        return _forward(model, plan, ids, np.concatenate(positions), reads, adapters, lean), plan


def read_next(
    model: Any,
    slots: CacheSlots,
    tokens: Sequence[int],
    prefix: Cached | None,
    adapters: Resident | None,
    lean: Lean | None = None,
) -> torch.Tensor:
    """(rows, V) logits after one more token of the texts in slots ``0:rows``, which the slots then hold."""
    count = len(tokens)
    rows = count if lean is None else min(few(count), slots.count)
    plan, positions = _plan_next(slots, rows, prefix)
    ids, reads = np.asarray([*tokens, *[0] * (rows - count)]), np.arange(rows)
    logits = _forward(model, plan, ids, positions.cpu().numpy(), reads, adapters, lean)
    slots.lengths[:count] += 1
    return logits[:count]


def _plan_next(slots: CacheSlots, rows: int, prefix: Cached | None) -> tuple[DecodingPlan, torch.Tensor]:
    """The plan of one more token of each text, and the tokens' positions (rows,)."""
    lengths = slots.lengths[:rows]
    longest = int(lengths.max()) + 1
    if longest > slots.room:
        slots.make_room(longest, {layer: (key[0], key[0]) for layer, key in slots.keys.items()})
    slots.narrow(longest)
    if lengths.device.type == "cpu":
        longest = slots.room  # a slot's end is read at no cost, a gap is not
    return DecodingPlan(slots, rows, longest, prefix), lengths + (0 if prefix is None else prefix.length)


def compute_prefixes(
    model: Any,
    pieces: Sequence[tuple[Sequence[int], Cached | None]],
    adapters: Resident | None = None,
    *,
    last: nn.Module | None = None,
    lean: Lean | None = None,
) -> list[Cached]:
    """Keys and values of pieces of text, each behind the prefix before it, those prefixes included."""
    rows = [Row(ids=np.asarray(ids, dtype=np.int64), reads=np.asarray([len(ids) - 1])) for ids, _ in pieces]
    prefixes = [prefix for _, prefix in pieces]
    _, plan = read_behind(model, rows, prefixes, adapters, last=last, keep=True, lean=lean)
    found, start = [], 0
    for ids, before in pieces:
        stop = start + len(ids)
        made = Cached(len(ids) + (0 if before is None else before.length))
        for layer, (key, value) in plan.kept.items():
            old = ((), ()) if before is None else ((before.keys[layer],), (before.values[layer],))
            made.keys[layer] = torch.cat([*old[0], key[:, start:stop]], dim=1)
            made.values[layer] = torch.cat([*old[1], value[:, start:stop]], dim=1)
        found.append(made)
        start = stop
    return found


def _forward(
    model: Any,
    plan: CacheGroups | DecodingPlan,
    ids: np.ndarray,
    positions: np.ndarray,
    reads: np.ndarray,
    adapters: Resident | None,
    lean: Lean | None,
) -> torch.Tensor:
    device = model.device
    if lean is not None:
        own, places = torch.from_numpy(ids), torch.from_numpy(positions)
        read = None if isinstance(plan, DecodingPlan) else torch.from_numpy(reads)
        return lean.logits(own, places, int(positions.max()) + 1, partial(_attend, plan, lean, read), read)
    if adapters is not None:
        adapters.route([EVERYTHING])
    with planned(plan):
        output = model(
            input_ids=torch.from_numpy(ids).to(device)[None],
            position_ids=torch.from_numpy(positions).to(device)[None],
            logits_to_keep=torch.from_numpy(reads).to(device),
            use_cache=False,
        )
    logits: torch.Tensor = output.logits[0]
    return logits


def _attend(
    plan: CacheGroups | DecodingPlan,
    lean: Lean,
    reads: torch.Tensor | None,
    number: int,
    qkv: torch.Tensor,
    only: bool,
) -> torch.Tensor:
    """Attention of a lean pass behind what was computed before; see ``lean.Attend``."""
    q, k, v = qkv.split([lean.heads, lean.kv_heads, lean.kv_heads], dim=1)
    if isinstance(plan, DecodingPlan):
        return attend_slots(plan, number, q, k, v, lean.scale, None).to(qkv.dtype)
    wide = torch.promote_types(q.dtype, torch.float32)
    q, k, v = (one.transpose(0, 1).to(wide) for one in (q, k, v))
    out = attend_groups(plan, number, q, k, v, lean.scale, None)
    return (out if reads is None or not only else out.index_select(0, reads)).to(qkv.dtype)


@contextmanager
def attending(model: Any, name: str) -> Iterator[None]:
    """The model's attention by another implementation inside the block."""
    own = model.config._attn_implementation
    model.set_attn_implementation(name)
    try:
        yield
    finally:
        model.set_attn_implementation(own)


def only_where_read(last: nn.Module | None, reads: np.ndarray) -> AbstractContextManager[None]:
    """Compute the last layer's feed-forward block at ``reads`` alone; elsewhere it gives zeros."""
    return nullcontext() if last is None else only_at(last, np.unique(reads))


def find_shortcuts(model: Any) -> Shortcuts:
    """Which shortcuts give this model's own logits: tried on a few short rows, not read off its name."""
    generator = np.random.default_rng(0)
    draws = [generator.integers(0, model.config.vocab_size, size) for size in (5, 9, 6)]
    head, one, two = draws
    rows = [Row(ids=np.concatenate([head, tail]), reads=np.array([7, 8, 9])) for tail in (one, two)]
    with torch.no_grad():
        with attending(model, attention.NAME):
            expected = read_logits(model, "stream", rows).float()
            last = _feed_forward(model)
            if last is not None and not _close(lambda: read_stream(model, rows, None, last), expected, model):
                last = None
        cached = _close(lambda: _by_cache(model, head, (one, two), None), expected, model)
        lean = Lean.of(model) if cached else None
        right = lean is not None and all(
            _close(compute, expected, model)
            for compute in (
                partial(_by_rectangles, lean, rows),
                partial(_by_cache, model, head, (one, two), lean),
            )
        )
    return Shortcuts(cached, last, right)


def _by_rectangles(lean: Lean, rows: Sequence[Row]) -> torch.Tensor:
    return read_rectangles(lean, plan_rectangles(rows))


def _close(compute: Any, expected: torch.Tensor, model: Any) -> bool:
    try:
        found = compute().float()
    except (ValueError, TypeError, RuntimeError, AttributeError, IndexError, KeyError):
        return False
    tolerance = 1e-4 if model.dtype in (torch.float32, torch.float64) else 5e-2
    return bool((found - expected).abs().max() <= tolerance * expected.abs().max())


def _by_cache(model: Any, head: np.ndarray, tails: Sequence[np.ndarray], lean: Lean | None) -> torch.Tensor:
    """Logits after 3, 4 and 5 tokens of each tail: the first by a pass behind a prefix, then one by one."""
    with attending(model, cached_attention.NAME):
        (prefix,) = compute_prefixes(model, [(head.tolist(), None)], lean=lean)
        rows = [Row(ids=tail[:3], reads=np.array([2])) for tail in tails]
        first, plan = read_behind(model, rows, [prefix] * 2, keep=True, lean=lean)
        slots = CacheSlots(2, torch.zeros(2, dtype=torch.long, device=model.device))
        for slot in range(2):
            slots.write(slot, 3 * slot, 3 * slot + 3, plan.kept)
        steps = [read_next(model, slots, [int(t[i]) for t in tails], prefix, None, lean) for i in (3, 4)]
    return torch.stack([first, *steps], dim=1).flatten(0, 1)


def _feed_forward(model: Any) -> nn.Module | None:
    """The child ``mlp`` of the last decoder layer, where the model is built that way."""
    count = getattr(model.config, "num_hidden_layers", None)
    stacks = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    block = getattr(stacks[0][-1], "mlp", None) if len(stacks) == 1 else None
    return block if isinstance(block, nn.Module) else None
