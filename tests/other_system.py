"""Python as on a system that has less than Linux, in the eyes of traitmap's own code: a script.

traitmap can import no module that is POSIX's alone and finds no call that Windows or macOS lack, and nobody
can open a folder. Other packages find what they need here, as they find their own way there.
"""

from __future__ import annotations

import importlib.abc
import os
import platform
import signal
import sys
import types
from pathlib import Path
from types import FrameType
from typing import Any

MODULES = {"fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty"}
CALLS = {
    *("sched_getaffinity", "fork", "forkpty", "getuid", "geteuid", "getpgid", "killpg", "setsid", "statvfs"),
    *("mkfifo", "sysconf", "uname", "O_NOFOLLOW", "O_DIRECTORY", "SIGKILL", "SIGHUP", "SIGUSR1", "alarm"),
}
OURS = str(Path(__file__).parents[1] / "src")


class _Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: object, target: object = None) -> None:
        if name in MODULES and _asked_by_traitmap(sys._getframe(1)):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


class _Less(types.ModuleType):
    def __getattribute__(self, name: str) -> Any:
        if name in CALLS and _asked_by_traitmap(sys._getframe(1)):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return super().__getattribute__(name)


def _asked_by_traitmap(frame: FrameType | None) -> bool:
    """Whether the line that asks stands in traitmap's own code."""
    while frame is not None and "importlib" in frame.f_code.co_filename:
        frame = frame.f_back
    return frame is not None and frame.f_code.co_filename.startswith(OURS)


def _opened(path: object, *arguments: object, **options: object) -> int:
    if isinstance(path, Path) and _asked_by_traitmap(sys._getframe(1)) and path.is_dir():
        raise PermissionError(13, "Permission denied", str(path))
    return _open(path, *arguments, **options)


_open = os.open


def become_another_system() -> None:
    for name in MODULES:
        sys.modules.pop(name, None)
    os.open = _opened
    os.__class__ = signal.__class__ = _Less
    platform.system = lambda: "Plan9"
    sys.meta_path.insert(0, _Missing())


def main(folder: Path) -> None:
    """A study and a run of it, each command in turn."""
    become_another_system()
    import traitmap  # noqa: F401
    from traitmap.cli import main as traitmap_command

    def command(*words: object) -> None:
        print(f"$ traitmap {' '.join(map(str, words))}", flush=True)
        try:
            traitmap_command([str(word) for word in words])
        except SystemExit as end:
            if end.code:
                raise RuntimeError(f"{words}: exit code {end.code}") from end

    command("--help")
    command("init", folder / "new")
    from prepared_run import prepare_run

    run = prepare_run(folder)
    command("check", folder / "new" / "study.yaml")
    command("status", run)
    command("matrix", run)
    command("report", run)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
