"""Forward passes: rows of tokens in, logits at the positions that are read out.

Three layouts. ``stream``: all rows behind each other, nearly without padding, with the attention of
``attention``. ``padded``: a batch of rows filled up to the longest, with the model's own attention.
``alone``: a batch of one such row.
Rows come in batches within a budget of tokens, which are halved when memory does not hold one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache

from traitmap.engine import attention
from traitmap.engine.cpu.products import pad_to_bucket
from traitmap.engine.cuda.packed import plan_packed, takes_packed_rows
from traitmap.engine.device import send
from traitmap.engine.lora import Resident, Slice
from traitmap.errors import EngineError

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Row:
    """One sequence of a pass.

    ids: (L,) tokens. reads: positions whose next-token logits are read. owner: index of the adapter.
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

    layout: ``stream``, or ``padded`` or ``alone`` for models without an attention interface; rows of those
    must have no branches.
    """
    if layout == "stream":
        return read_stream(model, rows, adapters)[: sum(len(row.reads) for row in rows)]
    longest = max(len(row.ids) for row in rows)
    if adapters is not None:
        adapters.route(_slices(rows, [longest] * len(rows)))
    ids = np.zeros((len(rows), longest), dtype=np.int64)
    mask = np.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, : len(row.ids)] = row.ids
        mask[number, : len(row.ids)] = 1
    logits = model(
        input_ids=send(ids, model.device),
        attention_mask=send(mask, model.device),
        use_cache=False,
    ).logits
    reads = np.concatenate([row.reads + number * longest for number, row in enumerate(rows)])
    return logits.reshape(-1, logits.shape[-1]).index_select(0, send(reads, model.device))


def read_stream(
    model: Any,
    rows: Sequence[Row],
    adapters: Resident | None = None,
    last_mlp: torch.nn.Module | None = None,
) -> torch.Tensor:
    """(P', V): ``read_logits`` of a stream, and behind them a few that mean nothing, for a common shape.

    last_mlp: the last layer's feed-forward block where it may be computed at the reads alone.
    """
    device, lengths = model.device, [len(row.ids) for row in rows]
    reads = read_positions(rows)
    size, taken = pad_to_bucket(sum(lengths), 16), pad_to_bucket(len(reads), 16)
    if taken == size:  # what sees the reads alone is told by how many tokens it sees
        taken = pad_to_bucket(size + 1, 16)
    if adapters is not None:
        adapters.route(_slices(rows, lengths, size), _slices(rows, [len(row.reads) for row in rows], taken))
    positions = [row.positions for row in rows]
    branches = [row.branches for row in rows]
    if takes_packed_rows(model) and all(branch is None for branch in branches):
        plan: Any = plan_packed(lengths, device, size)
    else:
        plan = attention.plan_stream(lengths, positions, branches, device, size)
    ids = padded_to(np.concatenate([row.ids for row in rows]), size)
    with attention.planned(plan), compute_at_positions(last_mlp, reads, device, taken):
        output = model(
            input_ids=send(ids, device)[None],
            position_ids=send(padded_to(np.concatenate(positions), size), device)[None],
            logits_to_keep=send(padded_to(reads, taken), device),
            use_cache=False,
        )
    logits: torch.Tensor = output.logits[0]
    return logits


def _slices(rows: Sequence[Row], widths: Sequence[int], size: int | None = None) -> list[Slice]:
    """One slice per run of rows with the same owner. size: of all; the last has the padding at the end."""
    slices, start, total = list[Slice](), 0, sum(widths)
    padding = 0 if size is None else size - total
    for owner, run in groupby(zip(rows, widths, strict=True), key=lambda pair: pair[0].owner):
        keys = tuple((row.key, width) for row, width in run)
        stop = start + sum(width for _, width in keys)
        if padding and stop == total:
            keys, stop = (*keys, (0, padding)), stop + padding
        slices.append(Slice(owner, start, stop, keys))
        start = stop
    return slices


def read_positions(rows: Sequence[Row]) -> Ids:
    """(P,) positions in the stream of all reads, rows in order."""
    starts = np.concatenate([[0], np.cumsum([len(row.ids) for row in rows])])[:-1]
    return np.concatenate([row.reads + start for row, start in zip(rows, starts, strict=True)])


def padded_to(values: NDArray[Any], size: int) -> NDArray[Any]:
    """(size, ...) values followed by the last of them again and again."""
    return np.concatenate([values, np.repeat(values[-1:], size - len(values), axis=0)])


class _Take(torch.autograd.Function):
    """x[:, positions]; the gradient of what is taken again behind ``count`` counts once."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, positions: torch.Tensor, count: int) -> torch.Tensor:
        ctx.save_for_backward(positions)
        ctx.shape, ctx.count = x.shape, count
        return x.index_select(1, positions)

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (positions,) = ctx.saved_tensors
        dx = dy.new_zeros(ctx.shape).index_copy_(1, positions[: ctx.count], dy[:, : ctx.count])
        return dx, None, None


class _Put(torch.autograd.Function):
    """(1, tokens, width) zeros with y[:, :count] at positions."""

    @staticmethod
    def forward(ctx: Any, y: torch.Tensor, positions: torch.Tensor, count: int, tokens: int) -> torch.Tensor:
        ctx.save_for_backward(positions)
        ctx.count = count
        whole = y.new_zeros(1, tokens, y.shape[-1])
        return whole.index_copy_(1, positions[:count], y[:, :count])

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (positions,) = ctx.saved_tensors
        dx = dy.index_select(1, positions)
        dx[:, ctx.count :].zero_()
        return dx, None, None, None


@contextmanager
def compute_at_positions(
    block: torch.nn.Module | None, positions: Ids, device: torch.device, size: int | None = None
) -> Iterator[None]:
    """Compute a block at these positions of the stream alone, each named once; elsewhere it gives zeros.

    A block of None changes nothing. device: that of the stream. size: positions that are computed, the last
    again and again.
    """
    if block is None:
        yield
        return
    taken = send(padded_to(positions, size or pad_to_bucket(len(positions), 16)), device)
    tokens = [0]

    def take(_module: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        tokens[0] = inputs[0].shape[1]
        return (_Take.apply(inputs[0], taken, len(positions)), *inputs[1:])

    def put(_module: Any, _inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        whole: torch.Tensor = _Put.apply(output, taken, len(positions), tokens[0])
        return whole

    handles = [block.register_forward_pre_hook(take), block.register_forward_hook(put)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def on_each_side(lengths: Sequence[int], switch: int | None) -> list[list[int]]:
    """Indices of rows up to a length and of those beyond it, the longest first: no pass has both."""
    ordered = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    if switch is None:
        return [ordered]
    sides = [[i for i in ordered if (lengths[i] > switch) is beyond] for beyond in (True, False)]
    return [side for side in sides if side]


class PaddedDecoder:
    """Texts that grow token by token in a batch padded on the left, behind transformers' own cache.

    filler: the token of the padding.
    """

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], filler: int) -> None:
        self.model, longest = model, max(map(len, prompts))
        gaps = [longest - len(prompt) for prompt in prompts]
        rows = [[filler] * gap + list(prompt) for gap, prompt in zip(gaps, prompts, strict=True)]
        mask = np.array([[0] * gap + [1] * (longest - gap) for gap in gaps])
        self._ids, self._mask = send(np.array(rows), model.device), send(mask, model.device)
        self._positions = (self._mask.cumsum(1) - 1).clamp_(min=0)
        self._cache = DynamicCache(config=model.config)
        takes = inspect.signature(model.forward).parameters
        self._name = "cache_params" if "cache_params" in takes else "past_key_values"

    def logits(self) -> torch.Tensor:
        """(texts, V) logits of the next token of every text."""
        output = self.model(
            input_ids=self._ids,
            attention_mask=self._mask,
            position_ids=self._positions,
            use_cache=True,
            logits_to_keep=1,
            **{self._name: self._cache},
        )
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    def go_on(self, tokens: Sequence[int], left: Sequence[int]) -> None:
        """One more token of each of the texts ``left`` of those so far; the others leave."""
        device = self._mask.device
        if len(left) < len(self._mask):
            rows = send(np.asarray(left, dtype=np.int64), device)
            self._cache.batch_select_indices(rows)
            self._mask, self._positions = self._mask[rows], self._positions[rows]
        self._ids = send(np.array([[token] for token in tokens]), device)
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(left), 1)], dim=1)
        self._positions = self._positions[:, -1:] + 1


def batches_by_tokens(
    lengths: Sequence[int], budget: int, layout: str = "stream", *, in_order: bool = False
) -> Iterator[list[int]]:
    """Indices of rows in batches of at most ``budget`` computed tokens, longest rows first, or in order.

    A row longer than the budget is a batch of its own, and every row in the layout ``alone``.
    """
    batch, used = list[int](), 0
    indices: Sequence[int] = range(len(lengths))
    for index in indices if in_order else sorted(indices, key=lambda index: (-lengths[index], index)):
        size = lengths[batch[0]] if batch and layout == "padded" else lengths[index]
        if batch and (used + size > budget or layout == "alone"):
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
        rows = [index for index, row_owner in enumerate(owners) if row_owner == owner]
        total = sum(lengths[index] for index in rows)
        share = total / -(-total // budget)
        for batch in batches_by_tokens([lengths[index] for index in rows], int(max(share, 1)) + 1):
            pieces.append((sum(lengths[rows[place]] for place in batch), [rows[place] for place in batch]))
    batches: list[tuple[int, list[int]]] = []
    for size, indices in sorted(pieces, key=lambda piece: -piece[0]):
        place = next((i for i, (used, _) in enumerate(batches) if used + size <= budget), None)
        if place is None:
            batches.append((size, indices))
        else:
            batches[place] = (batches[place][0] + size, batches[place][1] + indices)
    return [indices for _, indices in batches]


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
        done: set[int] = set()
        for batch in batches_by_tokens(
            [lengths[index] for index in left], budget, layout, in_order=order is not None
        ):
            indices = [left[place] for place in batch]
            output = unless_out_of_memory(compute, indices)
            if output is None:
                if len(indices) == 1:
                    raise EngineError(
                        f"memory does not hold a row of {lengths[indices[0]]} tokens; use shorter prompts, "
                        "fewer examples in them, a smaller base, or a device with more memory."
                    )
                budget = sum(lengths[index] for index in indices) // 2
                break
            done.update(indices)
            yield output
        left = [index for index in left if index not in done]


def unless_out_of_memory(compute: Callable[..., Output], *arguments: Any) -> Output | None:
    """``compute(*arguments)``, or None where memory ran out; then CUDA's unused memory has been freed.

    What is computed must not be None. The failed pass's tensors are gone when this returns: an exception
    that is still being handled would keep them.
    """
    try:
        return compute(*arguments)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None


def out_of_memory(error: BaseException) -> bool:
    """Whether torch ran out of memory, on whatever device."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
