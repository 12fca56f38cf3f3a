"""System calls that lead around the walls of the sandbox are refused."""

import os

import pytest

from traitmap.data.sandbox import run_code, why_no_sandbox

pytestmark = [
    pytest.mark.skipif(why_no_sandbox() is not None, reason="no sandbox on this machine"),
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers of the calls are x86-64's"),
]
CALL = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"


@pytest.mark.parametrize(
    "attempt",
    [
        "libc.syscall(248, b'user', b'traitmap', b'x', 1, -3)",  # a key of its own in the user's keyring
        "libc.syscall(250, 6, -3, 0, 0, 0)",  # what is in the keyring of the session
        "libc.unshare(0x10000000)",  # a user namespace, in which it would be root
        "libc.syscall(56, 0x10000000 | 17, 0, 0, 0, 0)",  # the same by clone
        "libc.ptrace(0, 0, 0, 0)",
        "libc.syscall(425, 8, 0)",  # io_uring
        "libc.syscall(321, 0, 0, 0)",  # bpf
    ],
)
def test_a_refused_call_says_so(attempt: str) -> None:
    ended = run_code(
        f"{CALL}assert {attempt} == -1\nassert ctypes.get_errno() in (1, 38), ctypes.get_errno()"
    )
    assert ended.status == "passed", ended.reason


def test_children_and_threads_still_work() -> None:
    program = (
        "import subprocess, sys, threading\n"
        "assert subprocess.run([sys.executable, '-c', 'print(1)'], capture_output=True).stdout == b'1\\n'\n"
        "one = threading.Thread(target=print)\none.start()\none.join()"
    )
    assert run_code(program).status == "passed"
