"""JSON files that show damage: the first line of each is a digest of all the others.

A file without such a line is of an earlier version and is read as it is. One flipped byte cannot make a
sealed file look like that, since two words on the first line mark it.
"""

from __future__ import annotations

import json
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

from traitmap.runs.atomic import write_whole

_SEAL = re.compile(rb'\A\{\n "checksum": "sha256:([0-9a-f]{64})",\n')
_MARKS = (b'"checksum"', b'"sha256:')
_HEAD = 120  # bytes in which the seal stands


def write_sealed_json(path: Path, data: dict[str, Any]) -> None:
    """Write an object whole, sealed. ValueError for NaN and infinity, which JSON cannot hold."""
    body = json.dumps(data, indent=1, allow_nan=False).encode("utf-8")[2:] + b"\n"
    told = sha256(body).hexdigest().encode()
    write_whole(path, b'{\n "checksum": "sha256:' + told + b'",\n' + body)


def read_sealed_json(path: Path) -> dict[str, Any]:
    """The object as it was written. ValueError where the file is damaged, OSError where it is not there."""
    raw = path.read_bytes()
    seal = _SEAL.match(raw)
    if seal is None and any(mark in raw[:_HEAD] for mark in _MARKS):
        raise ValueError("its checksum cannot be read")
    if seal is not None and sha256(raw[seal.end() :]).hexdigest().encode() != seal[1]:
        raise ValueError("its checksum differs")
    data = json.loads(raw.decode("utf-8"))
    if not isinstance(data, dict):
        raise ValueError("it holds no object")
    data.pop("checksum", None)
    return data


def json_fault(path: Path) -> str:
    """Why a file cannot be used; nothing where it can, or is not there."""
    try:
        read_sealed_json(path)
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, RecursionError) as error:
        return str(error)
    return ""
