"""Forward passes: rows in, the logits that are wanted out, by the stream or by padded rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from traitmap.engine import attention
from traitmap.engine.lora import Resident, Slice

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Row:
    """One sequence of a pass.

    ids: (L,) tokens. reads: places whose next-token logits are wanted. owner: index of the adapter.
    branches: None, or (L,) as in ``attention.plan_stream``; positions then follow the branches.
    key: seed of the row's dropout masks.
    """

    ids: Ids
    reads: Ids
    owner: int = 0
    branches: Ids | None = None
    key: int = 0

    @property
    def positions(self) -> Ids:
        """(L,) position of each token, branches counted on from the trunk's end."""
        places = np.arange(len(self.ids), dtype=np.int64)
        if self.branches is None:
            return places
        trunk = int((self.branches == 0).sum())
        first = np.zeros(int(self.branches.max(initial=0)) + 1, dtype=np.int64)
        for branch in range(1, len(first)):
            first[branch] = np.argmax(self.branches == branch) - trunk
        return places - first[self.branches]


def read_logits(
    model: Any, layout: str, rows: Sequence[Row], adapters: Resident | None = None
) -> torch.Tensor:
    """(P, V) logits at every read of every row, rows in order. Rows must be sorted by owner.

    layout: ``stream`` (no padding) or ``padded`` (for models without an attention interface; rows
    must have no branches).
    """
    if adapters is not None:
        longest = max(len(row.ids) for row in rows)
        adapters.route(slices_of(rows, [len(row.ids) if layout == "stream" else longest for row in rows]))
    return _stream(model, rows) if layout == "stream" else _padded(model, rows)


def slices_of(rows: Sequence[Row], widths: Sequence[int]) -> list[Slice]:
    """One slice per run of rows with the same owner."""
    slices, place = list[Slice](), 0
    for owner, run in groupby(zip(rows, widths, strict=True), key=lambda pair: pair[0].owner):
        keys = tuple((row.key, width) for row, width in run)
        stop = place + sum(width for _, width in keys)
        slices.append(Slice(owner, place, stop, keys))
        place = stop
    return slices


def _stream(model: Any, rows: Sequence[Row]) -> torch.Tensor:
    device = model.device
    lengths = [len(row.ids) for row in rows]
    starts = np.concatenate([[0], np.cumsum(lengths)])[:-1]
    positions = [row.positions for row in rows]
    plan = attention.plan_stream(lengths, positions, [row.branches for row in rows], device)
    ids = torch.from_numpy(np.concatenate([row.ids for row in rows])).to(device)
    reads = np.concatenate([row.reads + start for row, start in zip(rows, starts, strict=True)])
    with attention.streaming(plan):
        output = model(
            input_ids=ids[None],
            position_ids=torch.from_numpy(np.concatenate(positions)).to(device)[None],
            logits_to_keep=torch.from_numpy(reads).to(device),
            use_cache=False,
        )
    return output.logits[0]


def _padded(model: Any, rows: Sequence[Row]) -> torch.Tensor:
    device = model.device
    longest = max(len(row.ids) for row in rows)
    ids = np.zeros((len(rows), longest), dtype=np.int64)
    mask = np.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, : len(row.ids)] = row.ids
        mask[place, : len(row.ids)] = 1
    logits = model(
        input_ids=torch.from_numpy(ids).to(device),
        attention_mask=torch.from_numpy(mask).to(device),
        use_cache=False,
    ).logits
    where = np.concatenate([row.reads + place * longest for place, row in enumerate(rows)])
    return logits.reshape(-1, logits.shape[-1])[torch.from_numpy(where).to(device)]


def batches_by_tokens(lengths: Sequence[int], budget: int, layout: str) -> Iterator[list[int]]:
    """Indices of rows in batches of at most ``budget`` computed tokens, longest rows first.

    A row longer than the budget is a batch of its own.
    """
    batch: list[int] = []
    used = 0
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        size = lengths[batch[0]] if batch and layout == "padded" else lengths[index]
        if batch and used + size > budget:
            yield batch
            batch, used = [], 0
            size = lengths[index]
        batch.append(index)
        used += size
    if batch:
        yield batch
