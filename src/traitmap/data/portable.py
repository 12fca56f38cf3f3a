"""A target without what only its own machine has, so that it can be sent to another one."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from traitmap.data.targets import LoadedTarget

# Of an lm-eval task: rows that lie in files of this machine. Requests and documents are in the items.
_ROWS = ("dataset", "task_docs", "_training_docs", "_fewshot_docs", "sampler")


def portable(target: LoadedTarget) -> LoadedTarget:
    """The same target, which scores as before and cannot be rendered again.

    Functions of the user's own task files travel by value, since their modules are not installed elsewhere.
    """
    task = getattr(target, "_task", None)
    if task is None:
        return target
    light = copy.copy(task)
    for name in _ROWS:
        if hasattr(light, name):
            setattr(light, name, None)
    return replace(target, _task=light)


def modules_of_files() -> Iterator[ModuleType]:
    """Modules that lm-eval has read from files by their path, which no other machine can import."""
    known: dict[str, Any] = dict(sys.modules)
    for name, module in known.items():
        if (
            isinstance(module, ModuleType)
            and hasattr(module, "__mtime__")
            and not name.startswith("lm_eval.")
        ):
            yield module
