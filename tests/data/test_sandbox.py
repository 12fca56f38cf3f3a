"""What foreign code tries, and what it gets: nothing. Every attack stands as a program that really runs."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from traitmap.data.sandbox import CodeResult, run_code, why_no_sandbox

pytestmark = pytest.mark.skipif(
    why_no_sandbox() is not None, reason=f"no sandbox on this machine: {why_no_sandbox()}"
)


def failed(program: str, saying: str, **limits: float) -> None:
    found = run_code(program, **limits)  # type: ignore[arg-type]
    assert found.status == "failed", found
    assert saying in found.reason, found.reason


def test_a_program_with_its_tests_passes_or_fails() -> None:
    solution = "def add(a, b):\n    return a + b\n"
    assert run_code(solution + "assert add(2, 3) == 5") == CodeResult("passed")
    failed(solution + "assert add(2, 3) == 6", "AssertionError")
    failed("def add(a, b) return a", "SyntaxError")
    assert run_code("import json, math, re, collections, itertools, typing").status == "passed"


@pytest.mark.parametrize("leave", ["import sys; sys.exit(0)", "import os; os._exit(0)"])
def test_leaving_before_the_tests_is_no_success(leave: str) -> None:
    assert run_code(f"{leave}\nassert False").status == "failed"
    # nor can a program claim that the walls were not built
    assert run_code("import sys; sys.exit(125)").status == "failed"


def test_endless_loops_end() -> None:
    started = time.monotonic()
    assert run_code("while True: pass", seconds=1).status == "timeout"
    assert run_code("import time\ntime.sleep(100)", seconds=1).status == "timeout"
    assert time.monotonic() - started < 20


def running() -> Iterator[bytes]:
    """Command lines of all processes of this machine."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended meanwhile
            yield file.read_bytes()


def test_a_process_left_behind_is_dead() -> None:
    left = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(60)\n"
    assert run_code(left).status == "passed"
    assert not any(b"/work/program.py" in command for command in running())


def test_a_fork_bomb_is_contained() -> None:
    found = run_code("import os\nwhile True:\n    os.fork()", seconds=2)
    assert found.status in ("failed", "timeout")
    assert run_code("pass") == CodeResult("passed")


def test_a_memory_bomb_is_contained() -> None:
    failed("x = 'a' * (1 << 30)", "MemoryError")
    failed("x = []\nwhile True:\n    x.append(bytes(1 << 20))", "MemoryError")


def test_a_full_disk_is_its_own() -> None:
    failed("open('big', 'wb').write(bytes(1 << 26))", "Error")


def test_the_network_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        threading.Thread(target=lambda: socket.create_connection(("127.0.0.1", port)).close()).start()
        server.accept()  # from outside the sandbox it answers
        failed(f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 2)", "unreachable")


def test_files_of_the_machine_cannot_be_written_or_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    failed(f"open({str(secret)!r}).read()", "FileNotFoundError")
    failed("open('/etc/passwd').read()", "FileNotFoundError")
    for place in ("/usr/traitmap-was-here", "/traitmap-was-here", f"{sys.base_prefix}/traitmap-was-here"):
        failed(f"open({place!r}, 'w')", "Error")
        assert not Path(place).exists()
    assert (
        run_code("open('mine.txt', 'w').write('a')\nassert open('mine.txt').read() == 'a'").status == "passed"
    )


def test_the_environment_and_other_processes_cannot_be_read(tmp_path: Path) -> None:
    program = (
        "import os\n"
        "assert set(os.environ) <= {'LC_CTYPE'}, dict(os.environ)\n"  # Python sets this one itself
        "assert os.getpid() == 1\n"
        "assert not os.path.exists('/proc')\n"
        "assert sorted(os.listdir('/work')) == ['program.py']\n"
    )
    before = os.environ.get("TRAITMAP_SECRET")
    os.environ["TRAITMAP_SECRET"] = "hidden"
    try:
        assert run_code(program) == CodeResult("passed")
    finally:
        os.environ.pop("TRAITMAP_SECRET") if before is None else None


def test_mounting_and_inherited_descriptors_do_not_help(tmp_path: Path) -> None:
    out = (
        "import ctypes, os\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "assert libc.mount(b'none', b'/', None, 32 | 4096, None) != 0\n"
        "for fd in range(3, 64):\n"
        "    try:\n"
        "        os.fstat(fd)\n"
        "    except OSError:\n"
        "        continue\n"
        "    raise AssertionError(fd)\n"
    )
    assert run_code(out) == CodeResult("passed")
