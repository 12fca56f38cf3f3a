"""Batches within a budget of tokens, made smaller when memory does not hold one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from traitmap.engine.passes import batches_by_tokens
from traitmap.errors import EngineError

Found = TypeVar("Found")


def in_batches(
    lengths: Sequence[int],
    budget: int,
    layout: str,
    compute: Callable[[list[int]], Found],
    *,
    order: Sequence[int] | None = None,
) -> Iterator[Found]:
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
