"""A target without what only its own machine has, so that it can be sent to another one."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from traitmap.data.targets import LoadedTarget

# Of an lm-eval task: rows that lie in files of this machine. Requests and documents are in the items.
_ROWS = ("dataset", "task_docs", "_training_docs", "_fewshot_docs", "sampler")


# Name, file and source of a module that lm-eval has read by its path, so that nobody else can import it.
FileModule = tuple[str, str, str]


def portable(target: LoadedTarget) -> LoadedTarget:
    """The same target, which scores as before and cannot be rendered again.

    The rows of an lm-eval task are left out of a shallow copy; the target that is given keeps them. A target
    without such a task is returned as it is.
    """
    task = getattr(target, "_task", None)
    if task is None:
        return target
    light = copy.copy(task)
    for name in _ROWS:
        if hasattr(light, name):
            setattr(light, name, None)
    return replace(target, _task=light)


def file_modules() -> tuple[FileModule, ...]:
    """Modules of task files that are in use here, as name, file and source.

    Another machine needs them before it gets a target (``install``). Raises OSError where a file is gone.
    """
    known: dict[str, Any] = dict(sys.modules)
    return tuple(
        (name, str(module.__file__), Path(str(module.__file__)).read_text(encoding="utf-8"))
        for name, module in known.items()
        if isinstance(module, ModuleType) and "__mtime__" in vars(module)  # lm-eval's mark
    )


def install(modules: Iterable[FileModule]) -> None:
    """Have the modules of another machine's task files, under their names there.

    Only for what ``file_modules`` of the same run has sent: the source is executed. A name that is imported
    already stays as it is.
    """
    for name, file, source in modules:
        if name not in sys.modules:
            module = ModuleType(name)
            module.__file__ = file
            sys.modules[name] = module
            exec(compile(source, file, "exec"), vars(module))
