"""Embeddings of tasks from an NPZ file: one array under each task's name."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from traitmap.errors import DataError


def read_embeddings(path: str | Path) -> dict[str, NDArray[np.float64]]:
    """Arrays by task: a vector (D,) or several (n, D). DataError where the file holds anything else."""
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as stored:
            if not hasattr(stored, "files"):
                raise DataError(f"{path} holds one array; give an NPZ file with one array for each task")
            found = {name: np.asarray(stored[name], dtype=float) for name in stored.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read as an NPZ file of numbers: {error}") from error
    if not found:
        raise DataError(f"{path} holds no arrays; give one for each task, under its name")
    return found
