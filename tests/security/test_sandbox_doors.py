"""Every door of the sandbox is shut in every mode that a machine may have; elsewhere nothing runs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

import traitmap.data.sandbox

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the sandbox needs Linux"),
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers of the calls are x86-64's"),
]
SRC = Path(traitmap.data.sandbox.__file__).parents[2]
DOORS = (Path(__file__).parents[1] / "sandbox_doors.py").read_text()
ORDINARY = ("setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups")
# The sandbox alone, without the package around it, for a Python of the system; argv: way, program.
DRIVER = f"""
import json, sys, types
for name in ("traitmap", "traitmap.data"):
    package = types.ModuleType(name)
    package.__path__ = [{str(SRC)!r} + "/" + name.replace(".", "/")]
    sys.modules[name] = package
from traitmap.data import sandbox
if sys.argv[1]:
    sandbox._way = lambda: (sys.argv[1], "")
if sys.argv[3:]:
    sandbox._group_parents = tuple
ended = sandbox.run_code(sys.argv[2], seconds=60)
print(json.dumps([ended.status, ended.reason]))
"""
# A process in which some system calls fail, as in a container; argv: error, numbers, command.
FILTERED = """
import ctypes, os, struct, sys
code, numbers, command = int(sys.argv[1]), map(int, sys.argv[2].split(",")), sys.argv[3:]
steps = [(0x20, 0, 0, 0)]
for number in numbers:
    steps += [(0x15, 0, 1, number), (0x06, 0, 0, 0x50000 | code)]
program = b"".join(struct.pack("=HBBI", *step) for step in [*steps, (0x06, 0, 0, 0x7FFF0000)])
buffer = ctypes.create_string_buffer(program, len(program))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0
filter_ = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
assert libc.prctl(22, 2, ctypes.create_string_buffer(filter_, len(filter_)), 0, 0) == 0
os.execvp(command[0], command)
"""
UNSHARE, MOUNT_SETATTR = 272, 442


def python_for(prefix: Sequence[str]) -> str:
    """A Python that the user of a mode can run; the test is skipped without it, or without the mode."""
    if prefix and shutil.which(prefix[0]) is None:
        pytest.skip(f"{prefix[0]} is not installed")
    if prefix and os.geteuid() != 0 and prefix[0] == "setpriv":
        pytest.skip("only root can try this mode")
    checks = (
        "import ctypes, os, resource, sys\n"
        f"open({str(SRC / 'traitmap' / 'data' / 'sandbox.py')!r}).close()\n"
        "assert sys.version_info >= (3, 11) and os.access(sys.executable, os.X_OK)"
    )
    for python in (sys._base_executable, "/usr/bin/python3"):  # type: ignore[attr-defined]
        command = [*prefix, python, "-I", "-S", "-c", checks]
        if subprocess.run(command, capture_output=True, check=False, cwd="/").returncode == 0:
            return python
    pytest.skip("no Python here can be run in this mode")


def ended_in(prefix: Sequence[str], program: str, way: str = "", *settings: str) -> tuple[str, str]:
    command = [*prefix, python_for(prefix), "-I", "-S", "-c", DRIVER, way, program, *settings]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    status, reason = json.loads(done.stdout)
    return status, reason


MODES = {
    "as the tests": (),
    "root without CAP_SYS_ADMIN": ("setpriv", "--bounding-set", "-sys_admin"),
    "root without CAP_SYS_ADMIN, SYS_RESOURCE and SETPCAP": (
        "setpriv",
        "--bounding-set",
        "-sys_admin,-sys_resource,-setpcap",
    ),
    "an ordinary user": ORDINARY,
    "an ordinary user, umask 077": (*ORDINARY, "sh", "-c", 'umask 077; exec "$@"', "sh"),
    "as the tests, umask 077": ("sh", "-c", 'umask 077; exec "$@"', "sh"),
    "root of a user namespace alone": ("unshare", "-U", "-r"),
}


@pytest.mark.parametrize("groups", [(), ("without control groups",)])
@pytest.mark.parametrize("mode", MODES)
def test_every_door_is_shut(mode: str, groups: tuple[str, ...]) -> None:
    """Or nothing runs, where a machine forbids what the mode needs, and says what to do."""
    status, reason = ended_in(MODES[mode], DOORS, "", *groups)
    if status == "refused" and mode == "root of a user namespace alone":
        assert "start traitmap as an ordinary user" in reason, (
            "its processes cannot be limited without a control group"
        )
    elif status == "refused" and mode != "as the tests":
        pytest.skip(f"refused on this machine: {reason}")
    else:
        assert (status, reason) == ("passed", "")


def test_every_door_is_shut_by_bubblewrap() -> None:
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    prefix = ORDINARY if os.geteuid() == 0 else ()
    assert ended_in(prefix, DOORS, "bubblewrap") == ("passed", "")


@pytest.mark.parametrize("mode", ["as the tests", "root without CAP_SYS_ADMIN", "an ordinary user"])
@pytest.mark.parametrize("older", [False, True], ids=["mount_setattr", "before Linux 5.12"])
def test_what_is_mounted_below_a_folder_that_is_shown_is_read_only_too(mode: str, older: bool) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount something below /usr to try it")
    prefix = MODES[mode]
    old = [python_for(prefix), "-I", "-S", "-c", FILTERED, "38", str(MOUNT_SETATTR)] if older else []
    below = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o mode=777 t /usr/games; exec "$@"', "sh"]
    program = f"assert __import__('os').path.ismount('/usr/games')\n{DOORS}"
    assert ended_in([*below, *prefix, *old], program) == ("passed", "")


@pytest.mark.parametrize(
    ("prefix", "advice"),
    [
        (
            ("unshare", "-Ur", "sh", "-c", 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"', "sh"),
            "sysctl user.max_user_namespaces is 0 here",
        ),
        (
            (*ORDINARY, "FILTERED"),
            "a filter of system calls forbids new user namespaces, as those of containers do",
        ),
        (("setpriv", "--bounding-set", "-all"), "or with the capabilities CAP_SETUID and CAP_SETGID"),
    ],
    ids=["no user namespaces", "a container's filter", "root without a capability"],
)
def test_where_nothing_can_be_shut_in_nothing_runs_and_the_advice_is_for_that_refusal(
    prefix: tuple[str, ...], advice: str
) -> None:
    if prefix[-1] == "FILTERED":
        prefix = without_unshare()
    # without bubblewrap, which has its own way to namespaces
    status, reason = ended_in([*prefix, "env", "PATH=/nowhere"], "open('/work/ran', 'w')")
    assert status == "refused"
    assert advice in reason


def without_unshare() -> tuple[str, ...]:
    """An ordinary user to whom the call is forbidden, as some filters do."""
    prefix = ORDINARY if os.geteuid() == 0 else ()
    return (*prefix, python_for(prefix), "-I", "-S", "-c", FILTERED, "1", str(UNSHARE))


def test_bubblewrap_is_taken_where_our_own_way_is_forbidden() -> None:
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    assert ended_in(without_unshare(), DOORS) == ("passed", "")


LIVES_ON = """
import ctypes, os, time
ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)
if os.fork() == 0:
    os.setsid()
while True:
    time.sleep(1)
"""


def descendants(process: int) -> set[int]:
    found: set[int] = set()
    for file in Path(f"/proc/{process}/task").glob("*/children"):
        for child in map(int, file.read_text().split()):
            found |= {child} | descendants(child)
    return found


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize(
    "mode", ["as the tests", "root without CAP_SYS_ADMIN", "an ordinary user", "bubblewrap"]
)
def test_a_program_dies_with_its_driver(mode: str) -> None:
    if mode == "bubblewrap" and shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    prefix = MODES.get(mode, ORDINARY if os.geteuid() == 0 else ())
    way = "bubblewrap" if mode == "bubblewrap" else "namespaces"
    command = [*prefix, python_for(prefix), "-I", "-S", "-c", DRIVER, way, LIVES_ON]
    driver = subprocess.Popen(command, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 60
        while not any(
            b"program.py" in Path(f"/proc/{one}/cmdline").read_bytes() for one in descendants(driver.pid)
        ):
            assert driver.poll() is None, "the sandbox is refused in this mode"
            assert time.monotonic() < deadline
            time.sleep(0.1)
        inside = descendants(driver.pid)
        assert len(inside) >= 2
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        assert driver.stderr is not None
        driver.stderr.close()
    deadline = time.monotonic() + 30
    while any(map(alive, inside)):
        assert time.monotonic() < deadline, "a program has outlived its driver"
        time.sleep(0.1)


ORDINARY_PROGRAM = """
import asyncio, collections, concurrent.futures, ctypes, datetime, decimal, json, math, os, pathlib
import random, re, shutil, socket, sqlite3, subprocess, sys, tempfile, threading, time, zipfile

assert subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True).stdout == b"1\\n"
results = []
threads = [threading.Thread(target=results.append, args=(number,)) for number in range(5)]
[thread.start() for thread in threads], [thread.join() for thread in threads]
assert sorted(results) == [0, 1, 2, 3, 4]
with concurrent.futures.ThreadPoolExecutor(3) as pool:
    assert sum(pool.map(math.sqrt, [1, 4, 9])) == 6
assert asyncio.run(asyncio.sleep(0, "slept")) == "slept"
pathlib.Path("a").write_text(json.dumps({"one": 1}))
shutil.copy2("a", "b")
os.rename("b", "c"); os.symlink("c", "d"); os.chmod("c", 0o600)
assert json.loads(pathlib.Path("d").read_text()) == {"one": 1}
with tempfile.TemporaryDirectory(dir=".") as folder, zipfile.ZipFile(f"{folder}/z", "w") as archive:
    archive.write("a")
connection = sqlite3.connect("base.db")
connection.execute("create table t (a)"); connection.execute("insert into t values (1)"); connection.commit()
assert connection.execute("select sum(a) from t").fetchone() == (1,)
one, other = socket.socketpair()
one.sendall(b"x"); assert other.recv(1) == b"x"
assert not os.isatty(0) and os.cpu_count() and time.strftime("%Y") and os.urandom(8)
"""


def test_programs_as_models_write_them_run() -> None:
    status, reason = ended_in((), ORDINARY_PROGRAM)
    if status == "refused":
        pytest.skip(f"no sandbox here: {reason}")
    assert (status, reason) == ("passed", "")


def test_the_filter_lets_numpy_work(tmp_path: Path) -> None:
    """Outside the sandbox's root, which has the standard library alone, under the same filter."""
    applied = f"""
import ctypes, sys
import os, struct
program = bytes.fromhex({traitmap.data.sandbox.call_filter().hex()!r})
buffer = ctypes.create_string_buffer(program, len(program))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0
filter_ = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
assert libc.prctl(22, 2, ctypes.create_string_buffer(filter_, len(filter_)), 0, 0) == 0
import numpy
a = numpy.random.default_rng(0).normal(size=(200, 200))
assert numpy.allclose(a @ numpy.linalg.inv(a), numpy.eye(200))
numpy.save({str(tmp_path / "a.npy")!r}, a)
"""
    done = subprocess.run([sys.executable, "-c", applied], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_control_group_is_left_behind() -> None:
    with traitmap.data.sandbox._control_groups(traitmap.data.sandbox._Limits(1, 64, 2, 4)) as joining:
        folders = [Path(file).parent for file in joining]
        assert all(folder.is_dir() for folder in folders)
    assert not any(folder.exists() for folder in folders)
