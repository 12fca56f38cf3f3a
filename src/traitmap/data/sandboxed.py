"""The inner side of the sandbox: a script that shuts itself in and then becomes the program it was given.

Standard library only, since it runs without site packages. What it is to do stands in its arguments, see
``main``; the program comes on standard input. It ends in one line on standard error where the walls cannot
be built: what was refused, and what to do about that.

The walls, in the order in which they are built: namespaces; a root in memory with read-only parts of the
machine; limits; a user without rights; no new rights; death with the driver; a filter of system calls.
"""

import ctypes
import errno
import os
import resource
import signal
import struct
import sys

_NOBODIES = 2_000_000_000  # user numbers from here on belong to nobody
_INNER = 1000  # the user's number in a user namespace of its own; 0 has no place there
_NEW_USERS = 0x10000000
# mounts, control groups, host name, messages, users, processes, network
_NEW = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | _NEW_USERS | 0x20000000 | 0x40000000
_KINDS = ("user", "pid", "net", "mnt", "uts", "ipc", "cgroup")
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT, _BIND = 1, 2, 4, 8, 32, 4096
_REC, _PRIVATE = 16384, 1 << 18
_DETACH = 2
_PDEATHSIG, _SECCOMP, _DROP_BOUNDING, _SECURE_BITS, _NO_NEW_PRIVS, _AMBIENT = 1, 22, 24, 28, 38, 47
_FILTER, _CLEAR_ALL = 2, 4
_NO_ROOT = 0b11101111  # the number 0 brings no rights, changing numbers keeps none; locked
_CAPABILITIES_V3 = 0x20080522
_AT_RECURSIVE, _MOUNT_SETATTR = 0x8000, 442
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}.get(os.uname().machine, -1)
_ROOT, _WORK = "/tmp", "/work"
_ROOT_ALONE = (
    "root can take no other number here; start traitmap as an ordinary user, or with the capabilities "
    "CAP_SETUID and CAP_SETGID"
)
_libc = ctypes.CDLL(None, use_errno=True)


class SandboxError(Exception):
    """Something that shuts the program in cannot be set up, with what to do about it."""


def main() -> None:
    """Shut in, and become the program.

    Arguments: the number of the driver's process, the descriptor that is written to once the sandbox
    stands, memory (MB), processes, disk (MB), processor seconds, the filter (hexadecimal), and ``bubblewrap``
    where that has made the namespaces, or ``namespaces``, the number of control groups, the files by which a
    process joins them, and the paths that are shown.
    """
    driver, ready, memory_mb, processes, disk_mb, seconds = map(int, sys.argv[1:7])
    call_filter, way, *places = sys.argv[7:]
    program = sys.stdin.buffer.read()
    os.umask(0o022)
    try:
        nobody, counted = None, False
        if way == "namespaces":
            _die_with_parent()
            if os.getppid() != driver:
                os._exit(1)
            groups = int(places[0])
            counted = _join(places[1 : groups + 1])
            nobody = _leave_namespaces(places[groups + 1 :], disk_mb)
        with open(f"{_WORK}/program.py", "wb") as stream:
            stream.write(program)
        _drop_rights(nobody)
        _limit(memory_mb, disk_mb, seconds)
        _limit_processes(processes, counted)
        _die_with_parent()
        _filter_calls(bytes.fromhex(call_filter))
        os.closerange(3, ready)
        os.closerange(ready + 1, 1 << 16)
        os.set_inheritable(ready, False)
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.chdir(_WORK)
        os.write(ready, b"in")  # fails where the driver has died meanwhile
        try:
            os.execve(sys.executable, [sys.executable, "-I", "-S", "-B", f"{_WORK}/program.py"], {})
        except OSError as error:
            os.write(ready, b", but not running")
            raise SandboxError(
                f"{sys.executable} cannot be run by a user without rights ({error.strerror}): let every user "
                "read and run it, or start traitmap as an ordinary user"
            ) from None
    except (OSError, SandboxError) as error:
        sys.stderr.write(f"{getattr(error, 'strerror', None) or error}\n")
        os._exit(1)


def _leave_namespaces(paths: "list[str]", disk_mb: int) -> "int | None":
    """Leave all namespaces of the machine; go on as the first process of new ones, under a root of its own.

    Returns the number of the user to be taken at last, or None where it has been taken. Root takes one that
    belongs to nobody, so that its limit of processes holds and no file is its own: at last where it may
    mount, else in a user namespace that knows this number alone. All others keep theirs in such a namespace.
    """
    nobody = _nobody() if os.geteuid() == 0 else None
    own = (os.geteuid(), os.getegid())
    privileged = nobody is not None and _libc.unshare(_NEW & ~_NEW_USERS) == 0
    if not privileged and nobody is not None:
        _unshare_with_user_of(nobody)
    elif not privileged:
        _unshare()
        try:
            _write("/proc/self/setgroups", "deny")
            _map_user(os.getpid(), *own)
        except PermissionError:
            reason = _forbidden("users in a namespace") if own[0] else _ROOT_ALONE
            raise SandboxError(f"user namespace: {reason}") from None
    _fork_first_process()
    shown = [_opened(path) for path in paths]
    if nobody is not None and not privileged:
        os.setgroups([])
        os.setresgid(_INNER, _INNER, _INNER)
        os.setresuid(_INNER, _INNER, _INNER)
    try:
        _libc.sethostname(b"sandbox", 7)
        _new_root(shown, disk_mb)
    except PermissionError as error:
        raise SandboxError(f"{error.strerror}: {_forbidden('mounts')}") from None
    return nobody if privileged else None


def _join(groups: "list[str]") -> bool:
    """Join control groups; whether they take this process in."""
    try:
        for group in groups:
            _write(group, "0")
    except OSError:
        return False
    return bool(groups)


def _nobody() -> "int | None":
    """A number that belongs to no user and can be taken here, or None."""
    if int(_status("CapEff"), 16) & 0b11000000 != 0b11000000:  # CAP_SETGID, CAP_SETUID
        return None
    ranges = []
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/self/{name}") as stream:
            ranges.append([tuple(map(int, line.split())) for line in stream])
    luck = int.from_bytes(os.urandom(4), "little")
    first, _, count = max(ranges[0], key=lambda line: line[2])
    for number in (_NOBODIES + luck % 100_000_000, first + count - 1 - luck % max(1, count // 4)):
        if number and all(any(a <= number < a + n for a, _, n in lines) for lines in ranges):
            return number
    return None


def _unshare() -> None:
    if _libc.unshare(_NEW) == 0:
        return
    code = ctypes.get_errno()
    if code == errno.ENOSPC:
        limits = [f"user.max_{kind}_namespaces" for kind in _KINDS]
        none = [limit for limit in limits if _setting(limit) == "0"]
        reason = (
            f"sysctl {none[0]} is 0 here, so that none is made; raise it (as root: sysctl {none[0]}=10000)"
            if none
            else "the limit of namespaces (sysctl user.max_user_namespaces) is used up; raise it"
        )
    elif code in (errno.EINVAL, errno.ENOSYS):
        reason = "this kernel has no user namespaces (CONFIG_USER_NS); use another machine"
    elif _setting("kernel.unprivileged_userns_clone") == "0":
        reason = "sysctl kernel.unprivileged_userns_clone is 0; as root, set it to 1"
    else:
        reason = _forbidden("new user namespaces")
    raise SandboxError(f"{os.strerror(code)}: {reason}")


def _unshare_with_user_of(nobody: int) -> None:
    """New namespaces in which nobody is the only user: written by a process that has stayed outside."""
    inside, opened = os.pipe()
    outer = os.getpid()
    helper = os.fork()
    if helper == 0:
        os.close(opened)
        code = 1
        try:
            if os.read(inside, 1):
                _map_user(outer, nobody, nobody)
                code = 0
        finally:
            os._exit(code)
    _unshare()
    os.write(opened, b"x")
    _, status = os.waitpid(helper, 0)
    if status:
        raise SandboxError(f"user namespace: {_forbidden('users in a namespace')}")


def _map_user(process: int, user: int, group: int) -> None:
    _write(f"/proc/{process}/gid_map", f"{_INNER} {group} 1")
    _write(f"/proc/{process}/uid_map", f"{_INNER} {user} 1")


def _forbidden(what: str) -> str:
    """Who forbids something that the kernel could do, as far as can be seen from here, and what helps."""
    if _setting("kernel.apparmor_restrict_unprivileged_userns") == "1" and os.geteuid() != 0:
        return (
            f"AppArmor forbids {what} to ordinary users; install bubblewrap, which it may allow, or, as "
            "root, sysctl kernel.apparmor_restrict_unprivileged_userns=0"
        )
    if _status("Seccomp") == "2":
        return (
            f"a filter of system calls forbids {what}, as those of containers do; start the container with "
            "--security-opt seccomp=unconfined, or run outside of it"
        )
    return (
        f"a security module (AppArmor, SELinux) or a changed root forbids {what}; in a container, start it "
        "with --security-opt apparmor=unconfined (or label=disable), or run outside of it"
    )


def _setting(name: str) -> str:
    """A setting of the kernel; empty where it has none of that name."""
    try:
        with open(f"/proc/sys/{name.replace('.', '/')}") as stream:
            return stream.read().strip()
    except OSError:
        return ""


def _status(name: str) -> str:
    """What Linux says of this process under a name."""
    with open("/proc/self/status") as stream:
        return next((line.split()[1] for line in stream if line.startswith(f"{name}:")), "0")


def _fork_first_process() -> None:
    """Fork: the child is the first of the new process namespace and goes on, this one hands on its end.

    Asked to terminate it kills the child first: when this process is gone, so are all in the namespace.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    inner = os.fork()
    if inner == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        _die_with_parent()
        return
    signal.signal(signal.SIGTERM, lambda *_: os.kill(inner, signal.SIGKILL))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    _, status = os.waitpid(inner, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        sys.stderr.write(f"killed by {signal.Signals(-code).name}\n")
        os._exit(128 - code)
    os._exit(code)


def _opened(path: str) -> "tuple[str, int | str, bool]":
    """A path, what is behind it (a descriptor, or where it links to), and whether that is a folder.

    Opened by whoever may walk there; after that nobody needs the right to.
    """
    if os.path.islink(path):
        return path, os.readlink(path), False
    return path, os.open(path, os.O_PATH | os.O_CLOEXEC), os.path.isdir(path)


def _new_root(shown: "list[tuple[str, int | str, bool]]", disk_mb: int) -> None:
    """A root in memory: parts of the machine, read-only, and one folder to write in."""
    _mount("none", "/", None, _REC | _PRIVATE, None)
    _mount("tmpfs", _ROOT, "tmpfs", _NOSUID | _NODEV, "size=1m,mode=755,nr_inodes=4096")
    for path, behind, is_folder in shown:
        place = _ROOT + path
        os.makedirs(os.path.dirname(place), exist_ok=True)
        if isinstance(behind, str):
            os.symlink(behind, place)
            continue
        if is_folder:
            os.makedirs(place, exist_ok=True)
        else:
            os.close(os.open(place, os.O_CREAT | os.O_WRONLY))
        _mount(f"/proc/self/fd/{behind}", place, None, _BIND | _REC, None)
        _make_read_only(place, _NOEXEC if path.startswith("/dev/") else _NODEV)
        os.close(behind)
    for place in (_WORK, "/old"):
        os.mkdir(_ROOT + place)
    os.chdir(_ROOT)
    if _libc.syscall(_PIVOT_ROOT, b".", b"old") != 0:
        raise OSError(ctypes.get_errno(), f"pivot_root: {os.strerror(ctypes.get_errno())}")
    os.chdir("/")
    _call("umount2", b"/old", _DETACH)
    os.rmdir("/old")
    _mount("tmpfs", _WORK, "tmpfs", _NOSUID | _NODEV, f"size={disk_mb}m,mode=777,nr_inodes=1024")
    _mount("none", "/", None, _REMOUNT | _BIND | _RDONLY | _NOSUID | _NODEV, None)


def _make_read_only(place: str, forbidden: int) -> None:
    """Make a mount and all that is mounted in it read-only, without rights of files, and more forbidden."""
    flags = _RDONLY | _NOSUID | forbidden
    attributes = struct.pack("=4Q", flags, 0, 0, 0)
    if (
        _libc.syscall(_MOUNT_SETATTR, -100, os.fsencode(place), _AT_RECURSIVE, attributes, len(attributes))
        == 0
    ):
        return
    with open("/proc/self/mountinfo", "rb") as stream:  # before Linux 5.12: one by one
        lines = [line.split() for line in stream]
    for line in lines:
        point = line[4]
        for octal, character in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\")):
            point = point.replace(octal, character)
        if point == os.fsencode(place) or point.startswith(os.fsencode(place) + b"/"):
            locked = {b"nosuid": _NOSUID, b"nodev": _NODEV, b"noexec": _NOEXEC}
            kept = sum(locked[name] for name in line[5].split(b",") if name in locked)
            _mount("none", os.fsdecode(point), None, _REMOUNT | _BIND | flags | kept, None)


def _drop_rights(nobody: "int | None") -> None:
    """Give up every capability in every set for good, and take the number of nobody if that is to be done."""
    capability = 0
    while _libc.prctl(_DROP_BOUNDING, capability, 0, 0, 0) == 0:  # ends where the kernel knows no more
        capability += 1
    _libc.prctl(_SECURE_BITS, _NO_ROOT, 0, 0, 0)  # refused to who has no rights to give up
    _libc.prctl(_AMBIENT, _CLEAR_ALL, 0, 0, 0)
    if nobody is not None:
        os.setgroups([])
        os.setresgid(nobody, nobody, nobody)
        os.setresuid(nobody, nobody, nobody)
    _call("capset", struct.pack("=Ii", _CAPABILITIES_V3, 0), bytes(24))
    _call("prctl", _NO_NEW_PRIVS, 1, 0, 0, 0)
    if 0 in os.getresuid():
        raise SandboxError("the program would be root; start traitmap as an ordinary user")


def _limit(memory_mb: int, disk_mb: int, seconds: int) -> None:
    for what, most in (
        (resource.RLIMIT_AS, memory_mb << 20),
        (resource.RLIMIT_FSIZE, disk_mb << 20),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_SIGPENDING, 64),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))


def _limit_processes(processes: int, counted: bool) -> None:
    """Limit processes, and try whether that holds: Linux limits none of the machine's root.

    counted: a control group counts them too.
    """
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    most = processes if hard == resource.RLIM_INFINITY else min(processes, hard)
    resource.setrlimit(resource.RLIMIT_NPROC, (0, most))
    try:
        child = os.fork()
    except BlockingIOError:
        pass
    else:
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        if not counted:
            raise SandboxError(f"processes of root cannot be limited: {_ROOT_ALONE}")
    resource.setrlimit(resource.RLIMIT_NPROC, (most, most))


def _filter_calls(program: bytes) -> None:
    buffer = ctypes.create_string_buffer(program, len(program))
    filter_ = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    _call("prctl", _SECCOMP, _FILTER, ctypes.create_string_buffer(filter_, len(filter_)), 0, 0)


def _die_with_parent() -> None:
    """To be called again after every change of rights, which clears it."""
    _call("prctl", _PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _mount(source: str, place: str, kind: "str | None", flags: int, data: "str | None") -> None:
    encoded = [None if text is None else os.fsencode(text) for text in (source, place, kind, data)]
    _call("mount", encoded[0], encoded[1], encoded[2], flags, encoded[3])


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


def _write(path: str, text: str) -> None:
    with open(path, "w") as stream:
        stream.write(text)


if __name__ == "__main__":
    main()
