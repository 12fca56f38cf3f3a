"""A stable name for plain data: the same data gives the same digest on every machine and in every version."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical_json(data: Any) -> str:
    """One JSON text per value: keys sorted, no spaces, ASCII only, shortest floats that read back the same.

    data: None, bool, int, finite float, str, list or tuple (both become arrays), dict with str keys.
    Raises TypeError for anything else and ValueError for NaN and infinity, which JSON cannot hold:
    a key that silently turned an object into its ``repr`` would not be stable.
    """
    _check_keys(data)
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest(data: Any, length: int = 32) -> str:
    """First ``length`` hexadecimal digits (at most 64) of the SHA-256 of the canonical JSON of ``data``.

    ``1`` and ``1.0`` have different digests, ``(1, 2)`` and ``[1, 2]`` the same.
    """
    return hashlib.sha256(canonical_json(data).encode("ascii")).hexdigest()[:length]


def _check_keys(data: Any) -> None:
    """JSON would turn the keys 1, True and None into strings, and two different mappings into one text."""
    if isinstance(data, dict):
        for key, value in data.items():
            if not isinstance(key, str):
                raise TypeError(f"cannot digest a mapping with the key {key!r}: keys must be strings")
            _check_keys(value)
    elif isinstance(data, list | tuple):
        for value in data:
            _check_keys(value)
