"""Where the paths of a study lead: a file beside the study, a hub, or the package itself."""

from __future__ import annotations

import os
from pathlib import Path, PurePath

DATA_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
TASK_SUFFIXES = (".yaml", ".yml")
MINI = "builtin:mini"


def resolve(path: str, folder: Path) -> Path:
    """An absolute path; a relative one starts from ``folder``, and ``~`` is the home folder."""
    return Path(os.path.abspath(folder / os.path.expanduser(path)))


def is_local_data(path: str) -> bool:
    """Whether a source's ``path`` names a file here rather than a hub dataset.

    Decided by its form alone, so that a file that is absent is never looked for on the hub.
    """
    return path.lower().endswith(DATA_SUFFIXES) or _looks_local(path)


def is_task_file(task: str) -> bool:
    """Whether a target's ``task`` is a YAML file rather than a registered name."""
    return task.lower().endswith(TASK_SUFFIXES)


def task_stem(task: str) -> str:
    """The name that a target without one gets: the task's, or the stem of its YAML file."""
    return PurePath(task).stem if is_task_file(task) else task


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
