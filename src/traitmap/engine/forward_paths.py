"""Forward paths: ways to compute a model's logits, and which of them are valid on a model at hand.

Besides plain passes (``passes``) there are passes behind a cache of keys and values (prompts that share a
prefix, texts that grow token by token), the fast CPU pass (``cpu.fast_decoder``), and passes whose last
feed-forward block is computed at the reads alone. Each is tried on the model itself and compared with the
model's own logits: an architecture that mixes tokens outside its attention (state space layers), changes
the arithmetic of attention, or ignores the interface is found out, whatever its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from traitmap.engine import attention, cached_attention
from traitmap.engine.attention import attending, narrowed, planned
from traitmap.engine.cached_attention import (
    Cached,
    CacheGroups,
    CacheSlots,
    DecodingPlan,
    attend_groups,
    attend_slots,
    plan_groups,
)
from traitmap.engine.cpu.fast_decoder import FastDecoder, Rectangles, plan_rectangles
from traitmap.engine.cpu.products import pad_to_bucket
from traitmap.engine.device import send
from traitmap.engine.lora import EVERYTHING, Resident
from traitmap.engine.passes import Row, compute_at_positions, read_logits, read_positions, read_stream
from traitmap.engine.trials import Trial


def read_rectangles(
    fast: FastDecoder, plan: Rectangles, kept: dict[int, tuple[torch.Tensor, torch.Tensor]] | None = None
) -> torch.Tensor:
    """(P, V) logits at the reads of rows by themselves, by the fast CPU pass.

    kept: gets keys and values (N, kv_heads, d) of every layer where it is given.
    """
    attended = plan.attention(fast.heads, fast.kv_heads, fast.scale)

    def attend(number: int, qkv: torch.Tensor, only: bool) -> torch.Tensor:
        if kept is not None:
            kept[number] = (qkv[:, fast.heads : -fast.kv_heads], qkv[:, -fast.kv_heads :])
        return attended(qkv, only)

    return fast.logits(plan.ids, plan.positions, plan.longest, attend, plan.reads)


def read_behind(
    model: Any,
    rows: Sequence[Row],
    prefixes: Sequence[Cached | None],
    adapters: Resident | None = None,
    *,
    last_mlp: nn.Module | None = None,
    keep: bool = False,
    fast: FastDecoder | None = None,
) -> tuple[torch.Tensor, CacheGroups]:
    """(P, V) logits at the reads of rows behind their prefixes, and the plan with keys and values.

    keep: whether the plan keeps the keys and values of these rows (``plan.kept``).

    Rows with the same prefix must stand together; all belong to one adapter.
    """
    positions = [
        row.positions + (0 if prefix is None else prefix.length)
        for row, prefix in zip(rows, prefixes, strict=True)
    ]
    lengths, branches = [len(row.ids) for row in rows], [row.branches for row in rows]
    plan = plan_groups(lengths, positions, branches, prefixes, model.device, keep=keep)
    ids, reads = np.concatenate([row.ids for row in rows]), read_positions(rows)
    with compute_at_positions(last_mlp, np.unique(reads), model.device):
        return _forward(model, plan, ids, np.concatenate(positions), reads, adapters, fast), plan


def read_next(
    model: Any,
    slots: CacheSlots,
    tokens: Sequence[int],
    prefix: Cached | None,
    adapters: Resident | None,
    fast: FastDecoder | None = None,
) -> torch.Tensor:
    """(rows, V) logits after one more token of the texts in slots ``0:rows``, which the slots then hold."""
    count = len(tokens)
    rows = count if fast is None else min(pad_to_bucket(count, 2), slots.count)
    plan = DecodingPlan(slots, rows, slots.fit(rows), prefix)
    positions = slots.lengths[:rows] + (0 if prefix is None else prefix.length)
    ids, reads = np.asarray([*tokens, *[0] * (rows - count)]), np.arange(rows)
    logits = _forward(model, plan, ids, positions, reads, adapters, fast)
    slots.lengths[:count] += 1
    return logits[:count]


def compute_prefixes(
    model: Any,
    pieces: Sequence[tuple[Sequence[int], Cached | None]],
    adapters: Resident | None = None,
    *,
    last_mlp: nn.Module | None = None,
    fast: FastDecoder | None = None,
) -> list[Cached]:
    """Keys and values of pieces of text, each behind the prefix before it, those prefixes included."""
    rows = [Row(ids=np.asarray(ids, dtype=np.int64), reads=np.asarray([len(ids) - 1])) for ids, _ in pieces]
    parents = [parent for _, parent in pieces]
    _, plan = read_behind(model, rows, parents, adapters, last_mlp=last_mlp, keep=True, fast=fast)
    prefixes, start = list[Cached](), 0
    for ids, parent in pieces:
        stop = start + len(ids)
        prefix = Cached(len(ids) + (0 if parent is None else parent.length))
        for layer, (key, value) in plan.kept.items():
            before = ((), ()) if parent is None else ((parent.keys[layer],), (parent.values[layer],))
            prefix.keys[layer] = torch.cat([*before[0], key[:, start:stop]], dim=1)
            prefix.values[layer] = torch.cat([*before[1], value[:, start:stop]], dim=1)
        prefixes.append(prefix)
        start = stop
    return prefixes


def _forward(
    model: Any,
    plan: CacheGroups | DecodingPlan,
    ids: np.ndarray,
    positions: np.ndarray,
    reads: np.ndarray,
    adapters: Resident | None,
    fast: FastDecoder | None,
) -> torch.Tensor:
    if fast is not None:
        read = None if isinstance(plan, DecodingPlan) else torch.from_numpy(reads)
        attend = partial(_attend, plan, fast, read)
        longest = int(positions.max()) + 1
        return fast.logits(torch.from_numpy(ids), torch.from_numpy(positions), longest, attend, read)
    if adapters is not None:
        adapters.route([EVERYTHING])
    device = model.device
    with planned(plan):
        output = model(
            input_ids=send(ids, device)[None],
            position_ids=send(positions, device)[None],
            logits_to_keep=send(reads, device),
            use_cache=False,
        )
    logits: torch.Tensor = output.logits[0]
    return logits


def _attend(
    plan: CacheGroups | DecodingPlan,
    fast: FastDecoder,
    reads: torch.Tensor | None,
    number: int,
    qkv: torch.Tensor,
    only: bool,
) -> torch.Tensor:
    """Attention of a fast pass behind what was computed before; see ``fast_decoder.Attend``."""
    q, k, v = qkv.split([fast.heads, fast.kv_heads, fast.kv_heads], dim=1)
    if isinstance(plan, DecodingPlan):
        return attend_slots(plan, number, q, k, v, fast.scale, None).to(qkv.dtype)
    wide = torch.promote_types(q.dtype, torch.float32)
    q, k, v = (part.transpose(0, 1).to(wide) for part in (q, k, v))
    out = attend_groups(plan, number, q, k, v, fast.scale, None)
    return (out if reads is None or not only else out.index_select(0, reads)).to(qkv.dtype)


@dataclass(frozen=True)
class ForwardPaths:
    """The forward paths that are valid on a model, adapters included, beside plain passes.

    cached: passes behind cached keys and values. last_mlp: the last layer's feed-forward block, where its
    outputs at positions that are not read have no part in the logits at the others. fast: the fast CPU pass.
    decoding: how texts grow where nothing is cached here, as ``layouts.choose_decoding`` has it.
    """

    cached: bool = False
    last_mlp: nn.Module | None = None
    fast: bool = False
    decoding: str = "batch"

    def on(self, model: Any) -> ForwardPaths:
        """The same for another model that is built alike."""
        return replace(self, last_mlp=None if self.last_mlp is None else _last_mlp(model))


def find_forward_paths(model: Any) -> ForwardPaths:
    """Which forward paths give this model's own logits, tried on a few short rows of a stream."""
    generator = np.random.default_rng(0)
    draws = [generator.integers(0, model.config.get_text_config().vocab_size, size) for size in (5, 9, 6)]
    head, *tails = draws
    rows = [Row(ids=np.concatenate([head, tail]), reads=np.array([7, 8, 9])) for tail in tails]
    decoders: dict[torch.dtype, FastDecoder | None] = {}

    def fast() -> Any:
        if model.dtype not in decoders:  # which a trial on a float32 copy changes
            decoders[model.dtype] = FastDecoder.of(model)
        return decoders[model.dtype]

    def stream() -> torch.Tensor:
        with attending(model, attention.NAME):
            return read_logits(model, "stream", rows)

    with torch.no_grad():
        trial = Trial(model)
        expected, last_mlp = trial.expected(stream), _last_mlp(model)
        if last_mlp is not None:
            with attending(model, attention.NAME):
                same = trial.agrees(lambda: read_stream(model, rows, None, last_mlp)[:6], expected)
            last_mlp = last_mlp if same else None
        cached = trial.agrees(lambda: _by_cache(model, head, tails, None), expected)
        cached = cached and _branches_agree(trial, head, tails)
        with narrowed(model) as windows:
            if cached and windows:
                cached = trial.agrees(lambda: _by_cache(model, head, tails, None), trial.expected(stream))
                cached = cached and _branches_agree(trial, head, tails)
        valid = (
            cached
            and fast() is not None
            and trial.agrees(lambda: read_rectangles(fast(), plan_rectangles(rows)), expected)
            and trial.agrees(lambda: _by_cache(model, head, tails, fast()), expected)
        )
    return ForwardPaths(cached, last_mlp, valid)


def _by_cache(
    model: Any, head: np.ndarray, tails: Sequence[np.ndarray], fast: FastDecoder | None
) -> torch.Tensor:
    """Logits after 3, 4 and 5 tokens of each tail: the first by a pass behind a prefix, then one by one."""
    with attending(model, cached_attention.NAME):
        (prefix,) = compute_prefixes(model, [(head.tolist(), None)], fast=fast)
        rows = [Row(ids=tail[:3], reads=np.array([2])) for tail in tails]
        first, plan = read_behind(model, rows, [prefix] * 2, keep=True, fast=fast)
        slots = CacheSlots(2, model.device)
        for slot in range(2):
            slots.write(slot, 3 * slot, 3 * slot + 3, plan.kept)
        steps = [read_next(model, slots, [int(t[i]) for t in tails], prefix, None, fast) for i in (3, 4)]
    return torch.stack([first, *steps], dim=1).flatten(0, 1)


def _branches_agree(trial: Trial, head: np.ndarray, tails: Sequence[np.ndarray]) -> bool:
    """Whether branches behind a cached prefix get the logits that they have in a stream."""
    model = trial.model
    ids = np.concatenate([head, tails[0][:4], tails[1][:3]])
    branches = np.repeat([0, 1, 2], [len(head) + 2, 2, 3])

    def stream() -> torch.Tensor:
        row = Row(ids=ids, reads=np.arange(len(head), len(ids)), branches=branches)
        with attending(model, attention.NAME):
            return read_logits(model, "stream", [row])

    def behind() -> torch.Tensor:
        row = Row(ids=ids[len(head) :], reads=np.arange(len(ids) - len(head)), branches=branches[len(head) :])
        with attending(model, cached_attention.NAME):
            return read_behind(model, [row], compute_prefixes(model, [(head.tolist(), None)]))[0]

    return trial.agrees(behind, trial.expected(stream))


def _last_mlp(model: Any) -> nn.Module | None:
    """The child ``mlp`` of the last decoder layer, where the model is built that way."""
    count = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    stacks = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    block = getattr(stacks[0][-1], "mlp", None) if len(stacks) == 1 else None
    return block if isinstance(block, nn.Module) else None
