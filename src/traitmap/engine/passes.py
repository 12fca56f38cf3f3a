"""Forward passes: rows in, the logits that are wanted out, by the stream or by padded rows.

Batches within a budget of tokens, made smaller when memory does not hold one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from traitmap.engine import attention
from traitmap.engine.cpu.products import close
from traitmap.engine.lora import Resident, Slice
from traitmap.errors import EngineError

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

    layout: ``stream`` (no padding but a few tokens at the end) or ``padded`` (for models without an
    attention interface; rows must have no branches).
    """
    if layout == "stream":
        return read_stream_logits(model, rows, adapters)[: sum(len(row.reads) for row in rows)]
    if adapters is not None:
        longest = max(len(row.ids) for row in rows)
        adapters.route(slices_of(rows, [longest] * len(rows)))
    return _padded(model, rows)


def read_stream_logits(model: Any, rows: Sequence[Row], adapters: Resident | None = None) -> torch.Tensor:
    """(P', V): ``read_logits`` of a stream, and behind them some that mean nothing, for a common shape."""
    if adapters is not None:
        adapters.route(slices_of(rows, [len(row.ids) for row in rows], rounded=True))
    return _stream(model, rows)


def slices_of(rows: Sequence[Row], widths: Sequence[int], *, rounded: bool = False) -> list[Slice]:
    """One slice per run of rows with the same owner. rounded: the last takes in the stream's padding."""
    slices, place = list[Slice](), 0
    padding = close(sum(widths)) - sum(widths) if rounded else 0
    for owner, run in groupby(zip(rows, widths, strict=True), key=lambda pair: pair[0].owner):
        keys = tuple((row.key, width) for row, width in run)
        stop = place + sum(width for _, width in keys)
        if padding and stop == sum(widths):
            keys, stop = (*keys, (0, padding)), stop + padding
        slices.append(Slice(owner, place, stop, keys))
        place = stop
    return slices


def read_places(rows: Sequence[Row]) -> Ids:
    """(P,) places in the stream of all reads, rows in order."""
    starts = np.concatenate([[0], np.cumsum([len(row.ids) for row in rows])])[:-1]
    return np.concatenate([row.reads + start for row, start in zip(rows, starts, strict=True)])


def padded_to(values: NDArray[Any], size: int) -> NDArray[Any]:
    """(size, ...) values followed by the last of them again and again."""
    return np.concatenate([values, np.repeat(values[-1:], size - len(values), axis=0)])


def _stream(model: Any, rows: Sequence[Row]) -> torch.Tensor:
    device = model.device
    lengths = [len(row.ids) for row in rows]
    size = close(sum(lengths))
    positions = [row.positions for row in rows]
    plan = attention.plan_stream(lengths, positions, [row.branches for row in rows], device, size)
    ids = padded_to(np.concatenate([row.ids for row in rows]), size)
    reads = read_places(rows)
    with attention.streaming(plan):
        output = model(
            input_ids=torch.from_numpy(ids).to(device)[None],
            position_ids=torch.from_numpy(padded_to(np.concatenate(positions), size)).to(device)[None],
            logits_to_keep=torch.from_numpy(padded_to(reads, close(len(reads)))).to(device),
            use_cache=False,
        )
    logits: torch.Tensor = output.logits[0]
    return logits


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


def batches_by_owner(owners: Sequence[int], lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices of rows in batches of at most ``budget`` tokens, an owner's rows together where they fit.

    So that products of one adapter are few and large. An owner's rows that do not fit are divided, rows of
    like length together; a row longer than the budget is a batch of its own.
    """
    pieces: list[tuple[int, list[int]]] = []
    for owner in dict.fromkeys(owners):
        own = [index for index, each in enumerate(owners) if each == owner]
        parts = -(-sum(lengths[index] for index in own) // budget)
        share = sum(lengths[index] for index in own) / parts
        for batch in batches_by_tokens([lengths[index] for index in own], int(max(share, 1)) + 1, "stream"):
            chosen = [own[place] for place in batch]
            pieces.append((sum(lengths[index] for index in chosen), chosen))
    batches: list[tuple[int, list[int]]] = []
    for size, chosen in sorted(pieces, key=lambda piece: -piece[0]):
        place = next((i for i, (used, _) in enumerate(batches) if used + size <= budget), None)
        if place is None:
            batches.append((size, chosen))
        else:
            batches[place] = (batches[place][0] + size, batches[place][1] + chosen)
    return [chosen for _, chosen in batches]


class _Take(torch.autograd.Function):
    """x[:, places]; the gradient of what is taken again behind ``count`` counts once."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, places: torch.Tensor, count: int) -> torch.Tensor:
        ctx.save_for_backward(places)
        ctx.shape, ctx.count = x.shape, count
        return x.index_select(1, places)

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (places,) = ctx.saved_tensors
        dx = dy.new_zeros(ctx.shape).index_copy_(1, places[: ctx.count], dy[:, : ctx.count])
        return dx, None, None


class _Put(torch.autograd.Function):
    """(1, tokens, width) zeros with y[:, :count] at places."""

    @staticmethod
    def forward(ctx: Any, y: torch.Tensor, places: torch.Tensor, count: int, tokens: int) -> torch.Tensor:
        ctx.save_for_backward(places)
        ctx.count = count
        whole = y.new_zeros(1, tokens, y.shape[-1])
        return whole.index_copy_(1, places[:count], y[:, :count])

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (places,) = ctx.saved_tensors
        dx = dy.index_select(1, places)
        dx[:, ctx.count :].zero_()
        return dx, None, None, None


@contextmanager
def only_at(block: torch.nn.Module, places: Ids) -> Iterator[None]:
    """Compute a block at these places of the stream alone, each named once; elsewhere it gives zeros."""
    taken = torch.from_numpy(padded_to(places, close(len(places))))
    tokens = [0]

    def take(_module: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        tokens[0] = inputs[0].shape[1]
        return (_Take.apply(inputs[0], taken.to(inputs[0].device), len(places)), *inputs[1:])

    def put(_module: Any, _inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        whole: torch.Tensor = _Put.apply(output, taken.to(output.device), len(places), tokens[0])
        return whole

    handles = [block.register_forward_pre_hook(take), block.register_forward_hook(put)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


Output = TypeVar("Output")


def in_batches(
    lengths: Sequence[int],
    budget: int,
    layout: str,
    compute: Callable[[list[int]], Output],
    *,
    order: Sequence[int] | None = None,
) -> Iterator[Output]:
    """What ``compute`` makes of the indices of each batch, longest rows first, or in the ``order`` given.

    A batch that memory does not hold is done again in halves, and so are those after it; what was
    finished stays finished. EngineError where a single row is too much.
    """
    left = list(range(len(lengths)) if order is None else order)
    while left:
        sizes = [lengths[index] for index in left]
        batches = batches_by_tokens(sizes, budget, layout) if order is None else _in_order(sizes, budget)
        done: set[int] = set()
        for batch in batches:
            chosen = [left[place] for place in batch]
            try:
                found = compute(chosen)
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                found = None
            if found is None:  # outside the except block, which would keep the failed pass's tensors
                budget = _smaller([lengths[index] for index in chosen])
                break
            done.update(chosen)
            yield found
        left = [index for index in left if index not in done]


def _in_order(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    batch, used = list[int](), 0
    for index, length in enumerate(lengths):
        if batch and used + length > budget:
            yield batch
            batch, used = [], 0
        batch.append(index)
        used += length
    if batch:
        yield batch


def _smaller(lengths: Sequence[int]) -> int:
    if len(lengths) == 1:
        raise EngineError(
            f"memory does not hold a row of {lengths[0]} tokens; use shorter prompts, fewer examples in "
            "them, a smaller base, or a device with more memory."
        )
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return sum(lengths) // 2


def out_of_memory(error: BaseException) -> bool:
    """Whether torch ran out of memory, on whatever device."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
