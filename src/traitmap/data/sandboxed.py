"""The inner side of the sandbox: a script that shuts itself in and then becomes the program it was given.

Standard library only, since it runs without site packages. Arguments: memory (MB), processes, disk (MB),
processor seconds, and the descriptor that is written to once the sandbox stands. The program comes on
standard input.
"""

import ctypes
import errno
import os
import resource
import signal
import struct
import sys

_NOBODIES = 2_000_000_000  # user numbers from here on belong to nobody
_NEW_USERS = 0x10000000
# mounts, host name, messages, users, processes, network
_NEW = 0x00020000 | 0x04000000 | 0x08000000 | _NEW_USERS | 0x20000000 | 0x40000000
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT, _BIND = 1, 2, 4, 8, 32, 4096
_REC, _PRIVATE = 16384, 1 << 18
_DETACH = 2
_PDEATHSIG, _NO_NEW_PRIVS = 1, 38
_SECCOMP, _FILTER = 22, 2
_LOAD, _EQUAL, _AT_LEAST, _ANY_OF, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_KILL, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_CLONE3 = 435
_EVERYWHERE = (425, 426, 427, 434, 438)  # io_uring, pidfd_open, pidfd_getfd
# architecture; ptrace, unshare, setns, mount, umount2, pivot_root, add_key, request_key, keyctl, bpf,
# perf_event_open, userfaultfd, process_vm_readv and -writev, init_module, finit_module, kexec_load; clone
_FILTERED = {
    "x86_64": (
        0xC000003E,
        (101, 272, 308, 165, 166, 155, 248, 249, 250, 321, 298, 323, 310, 311, 175, 313, 246, *_EVERYWHERE),
        56,
    ),
    "aarch64": (
        0xC00000B7,
        (117, 97, 268, 40, 39, 41, 217, 218, 219, 280, 241, 282, 270, 271, 105, 273, 104, *_EVERYWHERE),
        220,
    ),
}
_PARTS = ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/etc/ld.so.cache")
_libc = ctypes.CDLL(None, use_errno=True)


def shut_in(memory_mb: int, processes: int, disk_mb: int, seconds: int) -> None:
    """Everything that must hold before foreign code runs; raises OSError where something does not."""
    _call("prctl", _PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    privileged = os.geteuid() == 0 and _libc.unshare(_NEW & ~_NEW_USERS) == 0
    if not privileged:
        user, group = os.geteuid(), os.getegid()
        _call("unshare", _NEW)
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{user} {user} 1")
        _write("/proc/self/gid_map", f"{group} {group} 1")
    _wait_for_inner()
    _new_root(disk_mb)
    if privileged:
        # nobody has this number, so that its limit of processes is counted for this program alone
        nobody = _NOBODIES + int.from_bytes(os.urandom(4), "little") % 100_000_000
        os.setgroups([])
        os.setgid(nobody)
        os.setuid(nobody)
    _call("prctl", _NO_NEW_PRIVS, 1, 0, 0, 0)
    _refuse_calls()
    megabyte = 1 << 20
    for what, most in (
        (resource.RLIMIT_AS, memory_mb * megabyte),
        (resource.RLIMIT_NPROC, processes),
        (resource.RLIMIT_FSIZE, disk_mb * megabyte),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))


def _refuse_calls() -> None:
    """A filter of system calls: no keys of the user, no other namespaces, none that attack the kernel itself.

    Keyrings are inherited and belong to no namespace; a new user namespace would give back, inside itself,
    the rights over mounts and network that were taken away here.
    """
    architecture, numbers, clone = _FILTERED[os.uname().machine]
    steps = [
        (_LOAD, 0, 0, 4),  # the architecture that the call was made for
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),  # its number
        (_AT_LEAST, 0, 1, 0x40000000),  # the other numbering of x86-64
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
    ]
    for number in numbers:
        steps += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | errno.EPERM)]
    steps += [
        (_EQUAL, 0, 1, _CLONE3),  # its flags cannot be seen; the C library then takes clone
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
        (_EQUAL, 0, 3, clone),
        (_LOAD, 0, 0, 16),  # its flags
        (_ANY_OF, 0, 1, _NEW),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]
    program = b"".join(struct.pack("=HBBI", *step) for step in steps)
    buffer = ctypes.create_string_buffer(program, len(program))
    filter_ = struct.pack("@HP", len(steps), ctypes.addressof(buffer))
    _call("prctl", _SECCOMP, _FILTER, ctypes.create_string_buffer(filter_, len(filter_)), 0, 0)


def _wait_for_inner() -> None:
    """Fork: the child is the first of the new process namespace and goes on, this one hands on its end."""
    inner = os.fork()
    if inner == 0:
        _call("prctl", _PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        return
    _, status = os.waitpid(inner, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        sys.stderr.write(f"killed by {signal.Signals(-code).name}\n")
        os._exit(128 - code)
    os._exit(code)


def _new_root(disk_mb: int) -> None:
    """A root in memory: Python and the system libraries, read-only, and one folder to write in."""
    root = "/tmp"
    _mount("none", "/", None, _REC | _PRIVATE, None)
    _mount("tmpfs", root, "tmpfs", _NOSUID | _NODEV, f"size={disk_mb}m,mode=755,nr_inodes=4096")
    for part in dict.fromkeys((*_PARTS, sys.base_prefix, os.path.realpath(sys.base_prefix))):
        _show(part, root)
    for place in ("/work", "/old"):
        os.mkdir(root + place)
    for name in ("null", "zero", "urandom"):
        _show(f"/dev/{name}", root)
    os.chdir(root)
    if _libc.syscall(_PIVOT_ROOT, b".", b"old") != 0:
        raise OSError(ctypes.get_errno(), "pivot_root")
    os.chdir("/")
    _call("umount2", b"/old", _DETACH)
    os.rmdir("/old")
    _mount("tmpfs", "/work", "tmpfs", _NOSUID | _NODEV, f"size={disk_mb}m,mode=777,nr_inodes=1024")
    _mount("none", "/", None, _REMOUNT | _BIND | _RDONLY | _NOSUID | _NODEV, None)
    os.chdir("/work")


def _show(path: str, root: str) -> None:
    """Let a folder or file of the machine be seen under the new root, read-only."""
    if not os.path.exists(path) or (os.path.ismount(root + path) if os.path.exists(root + path) else False):
        return
    if os.path.islink(path):
        os.makedirs(os.path.dirname(root + path), exist_ok=True)
        os.symlink(os.readlink(path), root + path)
        return
    if any(path.startswith(part + "/") and os.path.isdir(root + part) for part in _PARTS):
        return  # part of a folder that is there already
    if os.path.isdir(path):
        os.makedirs(root + path, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(root + path), exist_ok=True)
        os.close(os.open(root + path, os.O_CREAT | os.O_WRONLY))
    _mount(path, root + path, None, _BIND | _REC, None)
    locked = os.statvfs(path).f_flag & (_NOSUID | _NODEV | _NOEXEC)
    _mount("none", root + path, None, _REMOUNT | _BIND | _RDONLY | locked, None)


def _mount(source: str, place: str, kind: "str | None", flags: int, data: "str | None") -> None:
    encoded = [None if text is None else os.fsencode(text) for text in (source, place, kind, data)]
    _call("mount", encoded[0], encoded[1], encoded[2], flags, encoded[3])


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


def _write(path: str, text: str) -> None:
    with open(path, "w") as stream:
        stream.write(text)


_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}.get(os.uname().machine, -1)


def main() -> None:
    memory_mb, processes, disk_mb, seconds, ready = map(int, sys.argv[1:6])
    program = sys.stdin.buffer.read()
    try:
        shut_in(memory_mb, processes, disk_mb, seconds)
        with open("/work/program.py", "wb") as stream:
            stream.write(program)
        command = [sys.executable, "-I", "-S", "-B", "/work/program.py"]
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.write(ready, b"in")
        os.set_inheritable(ready, False)
        os.execve(sys.executable, command, {})
    except (OSError, KeyError) as error:
        sys.stderr.write(f"{getattr(error, 'strerror', None) or error}\n")
        os._exit(1)


if __name__ == "__main__":
    main()
