"""Run a program that a model wrote where it can reach nothing: no network, no files, and a timeout."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Literal

from traitmap.data.system_calls import call_filter, has_filter

_CHILD = Path(__file__).with_name("sandboxed.py")
_LAST_WORDS = 2000  # characters of what a program printed on standard error
_GROUP = "traitmap-"  # names of control groups begin so
_PATIENCE = 10.0  # seconds that the end of a process is waited for
_ABANDONED = 60.0  # seconds after which an empty control group is one that a killed driver has left behind
_PARTS = ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/etc/ld.so.cache")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")

Way = Literal["namespaces", "bubblewrap"]


@dataclass(frozen=True)
class CodeResult:
    """What became of one program.

    status: ``passed`` (came to its last line), ``failed`` (any other end; reason names it), ``timeout``, or
        ``refused``: the sandbox is unavailable here, so nothing was run and nothing is known.
    """

    status: Literal["passed", "failed", "timeout", "refused"]
    reason: str = ""


@dataclass(frozen=True)
class _Limits:
    seconds: float
    memory_mb: int
    processes: int
    disk_mb: int


def run_code(
    program: str, *, seconds: float = 10.0, memory_mb: int = 256, processes: int = 8, disk_mb: int = 16
) -> CodeResult:
    """Run a Python program by itself (standard library only) and say whether it came to its last line.

    The program runs in namespaces of its own (Linux: users, processes, network, mounts, control groups, host
    name, messages): it sees a read-only Python and an empty folder in memory of ``disk_mb``, no other file,
    no network, not even the loopback, no other process, and an empty environment. It has no capability, is
    not root, and may make the system calls of a list (``system_calls``), none of which holds memory beyond
    its own. seconds: of wall time for all its processes; memory_mb: address
    space of each; processes: at most so many, threads counted. Together they hold ``memory_mb`` for each
    process and ``disk_mb``; a control group, where there is one, holds them to that too. Everything that it
    started is dead when this returns, and dies with the process that called it. A program that leaves early,
    even with exit code 0, has failed: its tests stand at its end.
    """
    way, reason = _way()
    if way is None:
        return CodeResult("refused", reason)
    return _run(program, _Limits(seconds, memory_mb, processes, disk_mb), way)


def why_no_sandbox() -> str | None:
    """Why programs cannot be shut in on this machine and what to do about it, or None where they can.

    An empty program is run in the sandbox, once: the answer holds for the life of the process.
    """
    way, reason = _way()
    return None if way else reason


@lru_cache(maxsize=1)
def _way() -> tuple[Way | None, str]:
    """How programs are shut in here, or why not: by namespaces of our own, else by bubblewrap, if installed.

    Bubblewrap may be allowed what others are not: by AppArmor, or since it is installed with root's rights.
    """
    if not sys.platform.startswith("linux"):
        return None, f"the sandbox needs Linux namespaces; this is {sys.platform}"
    if not has_filter():
        return (
            None,
            f"the sandbox has no list of system calls for processors of the kind {os.uname().machine}",
        )
    # bubblewrap keeps root's number, so that it is of no use to root
    both = os.geteuid() != 0 and shutil.which("bwrap")
    ways: tuple[Way, ...] = ("namespaces", "bubblewrap") if both else ("namespaces",)
    reasons = []
    for way in ways:
        result = _run("pass", _Limits(10.0, 256, 8, 16), way)
        if result.status == "passed":
            return way, ""
        reasons.append(f"{way}: {result.reason or result.status}")
    return None, reasons[0].removeprefix("namespaces: ") if len(reasons) == 1 else "; ".join(reasons)


def _run(program: str, limits: _Limits, way: Way) -> CodeResult:
    last_line = f"reached-{secrets.token_hex(16)}"
    program = f"{program}\n\nprint({last_line!r}, flush=True)\n"
    ready, signal_ready = os.pipe()
    with (
        open(ready, "rb") as sandbox_ready,
        tempfile.TemporaryFile() as errors,
        tempfile.TemporaryFile() as output,
        _control_groups(limits) if way == "namespaces" else contextlib.nullcontext(()) as groups,
        tempfile.TemporaryFile() as information,
    ):
        python = [sys._base_executable, "-I", "-S", "-B"]  # type: ignore[attr-defined]
        numbers = (os.getpid(), signal_ready, limits.memory_mb, limits.processes, limits.disk_mb)
        settings = [*map(str, numbers), str(int(limits.seconds) + 1), call_filter().hex(), way]
        if way == "bubblewrap":
            walls = _bubblewrap(information.fileno(), limits.disk_mb)
            command = [*walls, *python, "-c", _CHILD.read_text("utf-8"), *settings]
        else:
            command = [*python, str(_CHILD), *settings, str(len(groups)), *groups, *_shown_paths()]
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=errors,
            env={},
            cwd="/",
            start_new_session=True,
            pass_fds=(signal_ready, information.fileno()) if way == "bubblewrap" else (signal_ready,),
        )
        os.close(signal_ready)
        try:
            child.communicate(program.encode("utf-8", "surrogateescape"), timeout=limits.seconds)
            late = False
        except subprocess.TimeoutExpired:
            late = True
        finally:
            _end(child, information)
        shut_in = sandbox_ready.read() == b"in"
        words, printed = _last_words(errors), _last_words(output)
    if not shut_in:
        return CodeResult("refused", words or "the sandbox could not be set up")
    if late:
        return CodeResult("timeout", f"still running after {limits.seconds:g} seconds")
    if child.returncode == 0 and printed.endswith(last_line):
        return CodeResult("passed")
    return CodeResult("failed", words or f"ended before its last line, exit code {child.returncode}")


def _end(child: subprocess.Popen[bytes], information: IO[bytes]) -> None:
    """End a sandbox with all that runs in it.

    Our own first process outlives its namespace; bubblewrap's does not: the first one inside is waited for.
    """
    if child.poll() is None:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_PATIENCE)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    information.seek(0)
    with contextlib.suppress(ValueError, KeyError):
        inner = Path(f"/proc/{int(json.loads(information.read())['child-pid'])}")
        given_up = time.monotonic() + _PATIENCE
        while inner.exists() and time.monotonic() < given_up:
            time.sleep(0.005)


@lru_cache(maxsize=1)
def _shown_paths() -> tuple[str, ...]:
    """What of the machine is shown: the system's programs and libraries, this Python, and three devices."""
    paths: list[str] = []
    for path in (*_PARTS, sys.base_prefix, os.path.realpath(sys.base_prefix), *_DEVICES):
        inside = any(path == other or path.startswith(f"{other}/") for other in paths if os.path.isdir(other))
        if os.path.lexists(path) and not inside:
            paths.append(path)
    return tuple(paths)


def _bubblewrap(information: int, disk_mb: int) -> list[str]:
    """The command of bubblewrap for the same namespaces and the same root as our own.

    information: the descriptor that it writes the number of its first inner process to.
    """
    command = [shutil.which("bwrap") or "bwrap", "--unshare-all", "--die-with-parent", "--new-session"]
    command += ["--as-pid-1", "--clearenv", "--hostname", "sandbox", "--info-fd", str(information)]
    for path in _shown_paths():
        if os.path.islink(path):
            command += ["--symlink", os.readlink(path), path]
        else:
            command += ["--dev-bind" if path in _DEVICES else "--ro-bind", path, path]
    return [
        *command,
        "--size",
        str(disk_mb << 20),
        "--tmpfs",
        "/work",
        "--remount-ro",
        "/",
        "--chdir",
        "/work",
    ]


@contextlib.contextmanager
def _control_groups(limits: _Limits) -> Iterator[tuple[str, ...]]:
    """The files by which a process joins control groups made for one program; none where none can be made."""
    # the process outside the namespace is counted too, and stands in memory
    most = {
        "pids": limits.processes + 1,
        "memory": (limits.memory_mb * limits.processes + 2 * limits.disk_mb + 64) << 20,
    }
    name = f"{_GROUP}{os.getpid()}-{secrets.token_hex(4)}"
    made: list[Path] = []
    try:
        for parent, files in _group_parents():
            (parent / name).mkdir()
            made.append(parent / name)
            for file in files:
                (parent / name / file).write_text(str(most[file.split(".")[0]]))
        joining = tuple(str(folder / "cgroup.procs") for folder in made)
    except OSError:
        joining = ()
    try:
        yield joining
    finally:
        given_up = time.monotonic() + _PATIENCE
        for folder in made:
            while not _removed(folder) and time.monotonic() < given_up:
                time.sleep(0.005)


def _removed(group: Path) -> bool:
    """Whether a control group is gone: it stays while the last of its processes is on its way out."""
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


@lru_cache(maxsize=1)
def _group_parents() -> tuple[tuple[Path, tuple[str, ...]], ...]:
    """Control groups (of either version) in which one can be made for a program, and the files that limit it.

    Empty where memory and processes cannot both be limited. What killed drivers left behind is removed.
    """
    files = {"memory": "memory.limit_in_bytes", "pids": "pids.max"}
    parents = []
    with contextlib.suppress(OSError):
        for folder, controllers in _groups_of_this_process():
            if not os.access(folder, os.W_OK):
                continue
            for left in folder.glob(f"{_GROUP}*"):
                if time.time() - left.stat().st_mtime > _ABANDONED:
                    _removed(left)
            if (folder / "cgroup.subtree_control").exists():
                return ((folder, ("memory.max", "pids.max")),)
            parents.append((folder, tuple(files[name] for name in sorted(controllers))))
    return (
        tuple(parents) if sorted(sum((limits for _, limits in parents), ())) == sorted(files.values()) else ()
    )


def _groups_of_this_process() -> Iterator[tuple[Path, set[str]]]:
    """Control groups of this process, or just above it, and what can be limited in a group made there."""
    wanted = {"memory", "pids"}
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text("utf-8").splitlines()]
    for mount in Path("/proc/self/mountinfo").read_text("utf-8").splitlines():
        place, _, kind = mount.partition(" - ")
        root, point = place.split()[3:5]
        system, _, options = kind.split(None, 2)
        for _, controllers, path in lines:
            folder = Path(point, os.path.relpath(path, root))
            if system == "cgroup" and controllers and set(controllers.split(",")) <= set(options.split(",")):
                if limited := wanted & set(controllers.split(",")):
                    yield folder, limited
            elif system == "cgroup2" and not controllers:
                for group in (folder, folder.parent):
                    control = group / "cgroup.subtree_control"
                    if control.exists() and wanted <= set(control.read_text("utf-8").split()):
                        yield group, wanted


def _last_words(stream: IO[bytes]) -> str:
    stream.seek(max(0, stream.seek(0, os.SEEK_END) - _LAST_WORDS))
    return stream.read().decode("utf-8", "replace").strip()
