"""A target without what only its own machine has, so that it can be sent to another one."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from traitmap.data.targets import LoadedTarget

# Of an lm-eval task: rows that lie in files of this machine. Requests and documents are in the items.
_ROWS = ("dataset", "task_docs", "_training_docs", "_fewshot_docs", "sampler")


@dataclass(frozen=True)
class FileModule:
    """A module that lm-eval has read from a file by its path, so that nobody else can import it."""

    name: str
    file: str
    source: str


def portable(target: LoadedTarget) -> LoadedTarget:
    """The same target, which scores as before and cannot be rendered again."""
    task = getattr(target, "_task", None)
    if task is None:
        return target
    light = copy.copy(task)
    for name in _ROWS:
        if hasattr(light, name):
            setattr(light, name, None)
    return replace(target, _task=light)


def file_modules() -> tuple[FileModule, ...]:
    """Modules of task files that are in use here. Another machine needs them before it gets a target."""
    known: dict[str, Any] = dict(sys.modules)
    return tuple(
        FileModule(name, str(module.__file__), Path(str(module.__file__)).read_text(encoding="utf-8"))
        for name, module in known.items()
        if isinstance(module, ModuleType) and "__mtime__" in vars(module)  # lm-eval's mark
    )


def install(modules: Iterable[FileModule]) -> None:
    """Have the modules of another machine's task files, under their names there."""
    for sent in modules:
        if sent.name not in sys.modules:
            module = ModuleType(sent.name)
            module.__file__ = sent.file
            sys.modules[sent.name] = module
            exec(compile(sent.source, sent.file, "exec"), vars(module))
