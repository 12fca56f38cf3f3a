"""Where the paths of a study lead (a file beside it, a hub, the package itself), and stable names for data.

A digest is the same for the same plain data on every machine and in every version.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path, PurePath
from typing import Any

TEXT_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt")  # these also with .gz behind
DATA_SUFFIXES = (*TEXT_SUFFIXES, ".parquet", ".arrow", ".feather")
# endings of files that are not read, and of no hub dataset: the name means a file that is here or missing
_OTHER_FILES = (
    *(".gz", ".bz2", ".xz", ".zst", ".zip", ".tar", ".tgz", ".7z", ".jsonlines", ".log", ".md", ".xml"),
    *(".html", ".yaml", ".yml", ".xlsx", ".xls", ".ods", ".pdf", ".docx", ".pkl", ".pickle", ".npy", ".npz"),
    *(".db", ".sqlite", ".avro", ".orc"),
)
TASK_SUFFIXES = (".yaml", ".yml")
MINI = "builtin:mini"


def resolve(path: str, folder: Path) -> Path:
    """An absolute path; a relative one starts from ``folder``, and ``~`` is the home folder."""
    return Path(os.path.abspath(folder / os.path.expanduser(path)))


def is_local_data(path: str) -> bool:
    """Whether a source's ``path`` names a file here rather than a hub dataset.

    Decided by its form alone, so that a file that is absent is never looked for on the hub; what exists
    beside the study is a file whatever its form (`data.rows.read_table`).
    """
    return path.lower().endswith((*DATA_SUFFIXES, *_OTHER_FILES)) or _looks_local(path)


def data_suffix(name: str) -> str:
    """The ending by which a data file is read: ``.jsonl`` of ``a.JSONL.gz``; empty where none of ours."""
    name = name.lower()
    suffix = PurePath(name.removesuffix(".gz")).suffix
    legal = TEXT_SUFFIXES if name.endswith(".gz") else DATA_SUFFIXES
    return suffix if suffix in legal else ""


def is_task_file(task: str) -> bool:
    """Whether a target's ``task`` is a YAML file rather than a registered name."""
    return task.lower().endswith(TASK_SUFFIXES)


def task_stem(task: str) -> str:
    """The name that a target without one gets: the task's, or the stem of its YAML file."""
    return PurePath(task).stem if is_task_file(task) else task


def data_stem(path: str) -> str:
    """The name that a target over plain data without one gets: ``trec`` of ``data/trec.jsonl.gz``."""
    name = path.replace("\\", "/").rstrip("/").rpartition("/")[2]
    ending = data_suffix(name) + (".gz" if name.lower().endswith(".gz") else "")
    return name[: -len(ending)] if data_suffix(name) else name


def model_location(path: str, folder: Path) -> str | Path:
    """Where a base model lies: a Path for a local folder (there or not), the hub id as it is otherwise.

    ``builtin:mini`` is the base inside the package. ``org/name`` is a folder where such a folder
    exists beside the study, else a hub id.
    """
    if path == MINI:
        return Path(__file__).parents[1] / "mini" / "base"
    local = resolve(path, folder)
    return local if _looks_local(path) or os.path.isdir(local) else path


def _looks_local(path: str) -> bool:
    return path.startswith((".", "/", "~")) or "\\" in path or os.path.isabs(path) or path.count("/") > 1


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
