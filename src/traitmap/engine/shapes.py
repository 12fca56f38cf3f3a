"""Sizes rounded up, so that products come in few shapes: a CPU compiles a kernel for each new one.

oneDNN takes .1 to .3 ms to compile a product of a new shape, longer than most products of a pass take,
and rows of all lengths make new shapes all the time.
"""

from __future__ import annotations


def few(count: int) -> int:
    """The least of few sizes that is not below: two to every doubling, at most half above."""
    return _up(count, 2)


def fair(count: int) -> int:
    """The least of four sizes to every doubling that is not below: at most a quarter above."""
    return _up(count, 4)


def close(count: int) -> int:
    """The least of 16 sizes to every doubling that is not below: at most 6 % above, 3 % as a rule."""
    return _up(count, 16)


def _up(count: int, sizes: int) -> int:
    step = max(1, (1 << max(0, count - 1).bit_length()) // (2 * sizes))
    return -(-count // step) * step
