"""Files that are there whole or not at all: a temporary name beside the place, fsync, rename."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

PARTIAL = ".partial-"


def partial_path(path: Path) -> Path:
    """The temporary name of a file or folder that is being written: in the same folder, easily told."""
    return path.with_name(PARTIAL + path.name)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a kill at any moment, finds the old content or the new."""
    partial = partial_path(path)
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    publish(partial, path)


def write_json(path: Path, data: Any) -> None:
    """``write_whole`` of readable JSON. ValueError for NaN and infinity, which JSON cannot hold."""
    write_whole(path, (json.dumps(data, indent=1, allow_nan=False) + "\n").encode("utf-8"))


def publish(partial: Path, path: Path) -> None:
    """Give a finished file or folder its final name, in place of what stands there."""
    if partial.is_dir():
        for file in partial.iterdir():
            sync(file)
        sync(partial)
        if path.exists():
            shutil.rmtree(path)
    os.replace(partial, path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Force a file's or folder's content to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_partials(folder: Path) -> None:
    """Remove what killed writers left behind. Only for the one who holds the lock."""
    for leftover in folder.glob(PARTIAL + "*"):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()


def set_aside(path: Path) -> Path:
    """Rename a damaged file or folder out of the way, keeping it for whoever wants to know why."""
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    os.replace(path, aside)
    return aside
