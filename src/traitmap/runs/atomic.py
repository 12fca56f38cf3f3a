"""Files that are there whole or not at all: a temporary name beside the place, fsync, rename."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PARTIAL = ".partial-"
_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG})


def partial_path(path: Path) -> Path:
    """The temporary name of a file or folder that is being written: in the same folder, easily told."""
    return path.with_name(PARTIAL + path.name)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a kill at any moment, finds the old content or the new."""
    write_partial(path, content)
    publish(partial_path(path), path)


def write_partial(path: Path, content: bytes) -> None:
    """The first half of ``write_whole``: all is on the disk, under the temporary name.

    A file that cannot be written is removed: on a full disk its bytes are needed.
    """
    partial = partial_path(path)
    with removed_on_failure(partial), partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def removed_on_failure(partial: Path) -> Iterator[None]:
    """A temporary file that goes where writing it fails."""
    try:
        yield
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def disk_trouble(error: BaseException | None) -> str:
    """Why the disk cannot be written, where that is what an error comes from; else nothing.

    Libraries written in other languages tell it in words alone.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in _DISK:
            return error.strerror or os.strerror(error.errno or 0)
        for number in _DISK:
            if f"(os error {number})" in str(error):
                return os.strerror(number)
        error = error.__cause__ or error.__context__
    return ""


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
