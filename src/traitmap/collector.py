"""Python's collector of garbage in cycles, spared what stays anyway: modules, a model, the data of a run.

A hundred imported packages are a million objects, and every full collection looks through all of them.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


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
