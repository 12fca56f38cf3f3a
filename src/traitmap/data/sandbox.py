"""Run a program that a model wrote where it can reach nothing: no network, no files, and a timeout."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Literal

_CHILD = Path(__file__).with_name("sandboxed.py")
_LAST_WORDS = 2000  # characters of what a program printed on standard error


@dataclass(frozen=True)
class CodeResult:
    """What became of one program.

    status: ``passed`` (came to its last line), ``failed`` (any other end; reason names it), ``timeout``, or
        ``refused``: the sandbox is unavailable here, so nothing was run and nothing is known.
    """

    status: Literal["passed", "failed", "timeout", "refused"]
    reason: str = ""


def run_code(
    program: str, *, seconds: float = 10.0, memory_mb: int = 256, processes: int = 8, disk_mb: int = 16
) -> CodeResult:
    """Run a Python program by itself (standard library only) and say whether it came to its last line.

    The program runs in namespaces of its own (Linux: users, processes, network, mounts, host name,
    messages): it sees a read-only Python and an empty folder in memory of ``disk_mb``, no other file, no
    network, not even the loopback, no other process, and an empty environment. seconds: of wall time for
    all its processes; memory_mb: address space of each; processes: at most so many. Everything that it
    started is dead when this returns. A program that leaves early, even with exit code 0, has failed: its
    tests stand at its end.
    """
    last_line = f"reached-{secrets.token_hex(16)}"
    program = f"{program}\n\nprint({last_line!r}, flush=True)\n"
    limits = [str(number) for number in (memory_mb, processes, disk_mb, int(seconds) + 1)]
    command = [sys._base_executable, "-I", "-S", "-B", str(_CHILD), *limits]  # type: ignore[attr-defined]
    ready, signal_ready = os.pipe()
    with (
        open(ready, "rb") as sandbox_ready,
        tempfile.TemporaryFile() as errors,
        tempfile.TemporaryFile() as output,
    ):
        child = subprocess.Popen(
            [*command, str(signal_ready)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=errors,
            env={},
            cwd="/",
            start_new_session=True,
            pass_fds=(signal_ready,),
        )
        os.close(signal_ready)
        try:
            child.communicate(program.encode("utf-8", "surrogateescape"), timeout=seconds)
            late = False
        except subprocess.TimeoutExpired:
            late = True
        finally:
            # with its group; the kernel kills the rest of its process namespace with its first
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        shut_in, words, printed = bool(sandbox_ready.read()), _last_words(errors), _last_words(output)
    if not shut_in:
        return CodeResult("refused", words or "the sandbox could not be set up")
    if late:
        return CodeResult("timeout", f"still running after {seconds:g} seconds")
    if child.returncode == 0 and printed.endswith(last_line):
        return CodeResult("passed")
    return CodeResult("failed", words or f"ended before its last line, exit code {child.returncode}")


@lru_cache(maxsize=1)
def why_no_sandbox() -> str | None:
    """Why programs cannot be shut in on this machine, or None where they can. Tried once.

    Runs an empty program in the sandbox; the answer holds for the life of the process.
    """
    if not sys.platform.startswith("linux"):
        return f"the sandbox needs Linux namespaces; this is {sys.platform}"
    result = run_code("pass")
    return None if result.status == "passed" else (result.reason or result.status)


def _last_words(stream: IO[bytes]) -> str:
    stream.seek(max(0, stream.seek(0, os.SEEK_END) - _LAST_WORDS))
    return stream.read().decode("utf-8", "replace").strip()
