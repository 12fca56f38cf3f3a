"""Memory on a CPU: Python's garbage collector spared what stays anyway, and freed memory given back.

A hundred imported packages are a million objects, and every full collection looks through all of them. And
the allocator keeps what a pass has freed, in pieces that the next pass does not quite fit into: some hundred
training steps later a process holds a third more than it ever uses.
"""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psutil

from traitmap.progress import Listener, Progress


@contextmanager
def paused() -> Iterator[None]:
    """No collection in this block, which makes objects that stay (imports). Afterwards as it was before."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


@contextmanager
def passing_over() -> Iterator[None]:
    """Collections in this block pass over what is there when it begins; afterwards they see everything.

    Memory is freed as ever, but for cycles that became garbage before the block: those wait for its end.
    """
    within = gc.get_freeze_count() > 0
    gc.freeze()
    try:
        yield
    finally:
        if not within:
            gc.unfreeze()


GROWTH = 64 * 2**20  # bytes beyond the last time from which it is worth the trouble
PATIENCE = 20  # times as long as it took: giving back, and taking again, cost a few hundredths of the time


def giving_back(
    listener: Listener,
    *,
    give_back: Callable[[], None] | None = None,
    held: Callable[[], int] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Listener:
    """A listener that hands every report on and now and then gives freed memory back.

    give_back, held (bytes), clock (seconds): this process's own, unless told. Changes no result. Nothing
    happens where the system has no way to do it (only glibc has).
    """
    give_back, held = give_back or _trim(), held or held_bytes
    if give_back is None:
        return listener
    least, earliest = held(), clock()

    def hear(report: Progress) -> None:
        nonlocal least, earliest
        listener(report)
        started = clock()
        if started >= earliest and held() > least + GROWTH:
            give_back()
            least, now = held(), clock()
            earliest = now + PATIENCE * (now - started)

    return hear


def held_bytes() -> int:
    """Resident memory of this process."""
    return int(psutil.Process().memory_info().rss)


def _trim() -> Callable[[], None] | None:
    with suppress(OSError, AttributeError):
        trim = ctypes.CDLL("libc.so.6").malloc_trim
        return lambda: trim(0)
    return None
