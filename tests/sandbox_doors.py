"""A program that tries every door of the sandbox, run inside it; it ends with the list of those that open.

It is read as text by ``tests/security/test_sandbox_doors.py``. Numbers of system calls are x86-64's.
"""

import ctypes
import errno
import fcntl
import os
import socket
import sys

libc = ctypes.CDLL(None, use_errno=True)
opened: list[str] = []
PAGE = 4096
buffer = ctypes.create_string_buffer(PAGE)
# name: number and arguments with which the call would do its work, had the program the right
CALLS: dict[str, tuple[object, ...]] = {
    "mount": (165, b"t", b"/work", b"tmpfs", 0, None),
    "mount, remounted": (165, b"none", b"/usr", None, 32 | 4096, None),
    "umount2": (166, b"/work", 2),
    "pivot_root": (155, b".", b"."),
    "chroot": (161, b"/work"),
    "open_tree": (428, -100, b"/usr", 1),
    "move_mount": (429, -100, b"/usr", -100, b"/work", 0),
    "fsopen": (430, b"tmpfs", 0),
    "fsconfig": (431, 3, 6, None, None, 0),
    "fsmount": (432, 3, 0, 0),
    "fspick": (433, -100, b"/usr", 0),
    "mount_setattr": (442, -100, b"/usr", 0x8000, (ctypes.c_uint64 * 4)(0, 1, 0, 0), 32),
    "open_tree_attr": (467, -100, b"/usr", 1, buffer, 32),
    "unshare": (272, 0x10000000),
    "setns": (308, 3, 0),
    "clone3": (435, buffer, 88),
    "ptrace": (101, 0, 0, 0, 0),
    "process_vm_readv": (310, 1, buffer, 1, buffer, 1, 0),
    "process_madvise": (440, 3, buffer, 1, 4, 0),
    "kcmp": (312, 1, 1, 0, 0, 0),
    "add_key": (248, b"user", b"traitmap", b"x", 1, -3),
    "request_key": (249, b"user", b"traitmap", None, -3),
    "keyctl": (250, 0, -3, 1),
    "bpf": (321, 0, buffer, 72),
    "perf_event_open": (298, buffer, 0, -1, -1, 0),
    "userfaultfd": (323, 1),
    "io_uring_setup": (425, 8, buffer),
    "pidfd_open": (434, 1, 0),
    "pidfd_getfd": (438, 3, 0, 0),
    "memfd_create": (319, b"held", 0),
    "memfd_secret": (447, 0),
    "shmget": (29, 0, PAGE, 0o1600),
    "shmat": (30, 0, None, 0),
    "msgget": (68, 0, 0o1600),
    "semget": (64, 0, 1, 0o1600),
    "mq_open": (240, b"held", 0o102, 0o600, None),
    "timer_create": (222, 1, None, buffer),
    "name_to_handle_at": (303, -100, b"/usr", buffer, buffer, 0),
    "open_by_handle_at": (304, -100, buffer, 0),
    "fanotify_init": (300, 0, 0),
    "inotify_init1": (294, 0),
    "init_module": (175, buffer, PAGE, b""),
    "finit_module": (313, 0, b"", 0),
    "kexec_load": (246, 0, 0, None, 0),
    "syslog": (103, 3, buffer, PAGE),
    "iopl": (172, 3),
    "setuid": (105, 0),
    "setresuid": (117, 0, 0, 0),
    "setgroups": (116, 0, None),
    "capset": (126, buffer, buffer),
    "personality": (135, 0x0040000),
    "vmsplice": (278, 1, buffer, 1, 0),
    "splice": (275, 0, None, 1, None, 1, 0),
    "mknod": (133, b"/work/device", 0o020666, 0x0101),
    "chown": (92, b"/work", 0, 0),
    "sched_setscheduler": (144, 0, 1, buffer),
    "mbind": (237, None, 0, 0, None, 0, 0),
    "move_pages": (279, 0, 0, None, None, None, 0),
    "sethostname": (170, b"x", 1),
    "clock_settime": (227, 0, buffer),
    "prctl, no death signal": (157, 1, 0, 0, 0, 0),
    "prctl, ambient rights": (157, 47, 2, 21, 0, 0),
    "prctl, subreaper": (157, 36, 1, 0, 0, 0),
    "fcntl, lease": (72, 0, 1024, 0),
    "fcntl, pipe size": (72, 1, 1031, 1 << 20),
    "execveat": (322, -100, b"/usr/bin/true", None, None, 0),
    "x32": (0x40000000 + 39,),
}
NAMESPACES = (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)


def try_calls() -> None:
    for name, (number, *arguments) in CALLS.items():
        ctypes.set_errno(0)
        if libc.syscall(number, *arguments) != -1 or ctypes.get_errno() not in (errno.EPERM, errno.ENOSYS):
            opened.append(f"{name} ({ctypes.get_errno()})")
    for flag in NAMESPACES:
        child = libc.syscall(56, flag | 17, 0, 0, 0, 0)
        if child == 0:
            os._exit(0)
        if child != -1:
            opened.append(f"clone {flag:#x}")


def try_sockets() -> None:
    for family in range(1, 46):
        for kind in (1, 2, 3, 5):
            for make in (socket.socket, socket.socketpair):
                try:
                    made = make(family, kind)
                except OSError:
                    continue
                if make is socket.socket or (family, kind) != (1, 1):
                    opened.append(f"{make.__name__} {family} {kind} {made}")


def try_files() -> None:
    for folder, names, _ in os.walk("/"):
        if folder == "/":
            names[:] = [name for name in names if name not in ("usr", "lib", "root", "home")]
        for name in ("traitmap-door", "program.py"):
            try:
                with open(os.path.join(folder, name), "a"):
                    pass
            except OSError:
                continue
            if folder != "/work":
                opened.append(f"writing to {folder}")
    for place in (
        "/usr",
        "/usr/lib",
        "/usr/local",
        "/usr/games",
        "/lib",
        "/dev",
        sys.base_prefix,
        os.__file__,
    ):
        if os.path.exists(place) and not os.statvfs(place).f_flag & os.ST_RDONLY:
            opened.append(f"{place} may be written")
        if os.path.exists(place) and not os.statvfs(place).f_flag & os.ST_NOSUID:
            opened.append(f"{place} gives rights of files")
        try:
            os.open(place, os.O_TMPFILE | os.O_RDWR, 0o600)
            opened.append(f"a file in {place}")
        except OSError:
            pass
    if os.path.exists("/proc") or os.path.exists("/sys"):
        opened.append("/proc")


def try_rights() -> None:
    header, sets = ctypes.create_string_buffer(b"\x22\x05\x08\x20", 8), ctypes.create_string_buffer(24)
    if libc.syscall(125, header, sets) != 0 or sets.raw != bytes(24):
        opened.append(f"capabilities {sets.raw.hex()}")
    if 0 in (*os.getresuid(), *os.getresgid(), *os.getgroups()):
        opened.append(f"root {os.getresuid()} {os.getresgid()} {os.getgroups()}")
    signal_of_death = ctypes.c_int()
    libc.prctl(2, ctypes.byref(signal_of_death), 0, 0, 0)
    if signal_of_death.value != 9:
        opened.append(f"death signal {signal_of_death.value}")
    if libc.prctl(39, 0, 0, 0, 0) != 1:
        opened.append("new rights")
    for descriptor in range(3, 64):
        try:
            fcntl.fcntl(descriptor, fcntl.F_GETFD)
            opened.append(f"descriptor {descriptor}")
        except OSError:
            pass
    if os.uname().nodename != "sandbox":
        opened.append(f"the machine's name {os.uname().nodename}")


def try_limits() -> None:
    children = 0
    ready, wait = os.pipe()
    try:
        while children < 40:
            if os.fork() == 0:
                os.close(wait)
                os.read(ready, 1)
                os._exit(0)
            children += 1
    except OSError:
        pass
    os.close(wait)
    if children > 7:
        opened.append(f"{children} children")
    written = 0
    try:
        for number in range(100):
            with open(f"/work/{number}", "wb") as file:
                written += file.write(bytes(1 << 20))
    except OSError:
        pass
    if written > 17 << 20:
        opened.append(f"{written >> 20} MB of files")


for attempt in (try_calls, try_sockets, try_files, try_rights, try_limits):
    attempt()
assert not opened, "; ".join(opened)
