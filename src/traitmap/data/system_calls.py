"""Which system calls a program in the sandbox may make: an allow list, as the filter that the kernel runs."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from functools import lru_cache

# name:number on x86-64/number on arm64; "-" where there is no such call. What is not here is refused.
_ALLOWED = """
read:0/63 write:1/64 readv:19/65 writev:20/66 pread64:17/67 pwrite64:18/68 preadv:295/69 pwritev:296/70
preadv2:327/286 pwritev2:328/287 lseek:8/62 close:3/57 close_range:436/436 dup:32/23 dup2:33/- dup3:292/24
open:2/- openat:257/56 creat:85/- stat:4/- fstat:5/80 lstat:6/- newfstatat:262/79 statx:332/291 statfs:137/43
fstatfs:138/44 access:21/- faccessat:269/48 faccessat2:439/439 readlink:89/- readlinkat:267/78 getdents:78/-
getdents64:217/61 getcwd:79/17 chdir:80/49 fchdir:81/50 rename:82/- renameat:264/38 renameat2:316/276
mkdir:83/- mkdirat:258/34 rmdir:84/- unlink:87/- unlinkat:263/35 link:86/- linkat:265/37 symlink:88/-
symlinkat:266/36 chmod:90/- fchmod:91/52 fchmodat:268/53 fchmodat2:452/452 umask:95/166 utime:132/-
utimes:235/- futimesat:261/- utimensat:280/88 truncate:76/45 ftruncate:77/46 fallocate:285/47 fsync:74/82
fdatasync:75/83 flock:73/32 fadvise64:221/223 sendfile:40/71 copy_file_range:326/285
pipe:22/- pipe2:293/59 poll:7/- ppoll:271/73 select:23/- pselect6:270/72 epoll_create:213/-
epoll_create1:291/20 epoll_ctl:233/21 epoll_wait:232/- epoll_pwait:281/22 epoll_pwait2:441/441 eventfd:284/-
eventfd2:290/19 timerfd_create:283/85 timerfd_settime:286/86 timerfd_gettime:287/87
brk:12/214 mmap:9/222 munmap:11/215 mprotect:10/226 mremap:25/216 madvise:28/233 msync:26/227 mincore:27/232
execve:59/221 fork:57/- vfork:58/- exit:60/93 exit_group:231/94 wait4:61/260 waitid:247/95 kill:62/129
tkill:200/130 tgkill:234/131 getpid:39/172 getppid:110/173 gettid:186/178 getpgid:121/155 getpgrp:111/-
setpgid:109/154 getsid:124/156 setsid:112/157 getuid:102/174 geteuid:107/175 getgid:104/176 getegid:108/177
getgroups:115/158 getresuid:118/148 getresgid:120/150 uname:63/160 sysinfo:99/179 times:100/153
getrusage:98/165 getrlimit:97/163 setrlimit:160/164 prlimit64:302/261 getpriority:140/141 setpriority:141/140
sched_yield:24/124 sched_getaffinity:204/123 sched_getparam:143/121 sched_getscheduler:145/120
sched_get_priority_max:146/125 sched_get_priority_min:147/126 getcpu:309/168 set_tid_address:218/96
set_robust_list:273/99 get_robust_list:274/100 futex:202/98 rseq:334/293 membarrier:324/283 arch_prctl:158/-
restart_syscall:219/128 capget:125/90
rt_sigaction:13/134 rt_sigprocmask:14/135 rt_sigreturn:15/139 rt_sigpending:127/136 rt_sigsuspend:130/133
rt_sigtimedwait:128/137 sigaltstack:131/132 pause:34/- alarm:37/- getitimer:36/102 setitimer:38/103
time:201/- gettimeofday:96/169 clock_gettime:228/113 clock_getres:229/114 clock_nanosleep:230/115
nanosleep:35/101 getrandom:318/278
shutdown:48/210 sendto:44/206 recvfrom:45/207 sendmsg:46/211 recvmsg:47/212 getsockname:51/204
getpeername:52/205 getsockopt:55/209
"""
# looked at more closely, below
_CLONE, _CLONE3, _PRCTL, _FCNTL = "clone:56/220", "clone3:435/435", "prctl:157/167", "fcntl:72/25"
_IOCTL, _SOCKET, _SOCKETPAIR = "ioctl:16/29", "socket:41/198", "socketpair:53/199"
# copying a file asks for its attributes, and goes on where a file system has none
_ATTRIBUTES = """
setxattr:188/5 lsetxattr:189/6 fsetxattr:190/7 getxattr:191/8 lgetxattr:192/9 fgetxattr:193/10
listxattr:194/11 llistxattr:195/12 flistxattr:196/13
"""
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_LOAD, _EQUAL, _AT_LEAST, _ANY_OF, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_KILL, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_OTHER_NUMBERING = 0x40000000  # x32
_NEWER = 424  # calls since Linux 5.1, which C libraries do without where a kernel has none of them
# time, mounts, control groups, host name, messages, users, processes, network
_NEW_NAMESPACES = 0x00000080 | 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x60000000
_PRCTL_ALLOWED = (2, 3, 15, 16, 21, 23, 27, 39, 0x53564D41)  # names of threads and memory; what holds here
# duplicates, flags, locks, the size of a pipe; neither leases on files of the machine nor seals
_FCNTL_ALLOWED = (0, 1, 2, 3, 4, 5, 6, 7, 1030, 1032)
_IOCTL_ALLOWED = (
    0x5401,
    0x5413,
    0x541B,
    0x5421,
    0x5450,
    0x5451,
)  # is it a terminal, how wide, blocking, at exec
_AF_UNIX, _AF_INET, _AF_INET6, _SOCK_STREAM = 1, 2, 10, 1

_Step = tuple[int, int, int, int]


def has_filter() -> bool:
    """Whether there is a filter for the processor of this machine."""
    return os.uname().machine in _ARCHITECTURES


@lru_cache(maxsize=1)
def call_filter() -> bytes:
    """The allow list as a seccomp program (``struct sock_filter[]``) for this machine's processor.

    What is not listed fails with EPERM, or with ENOSYS where it is newer than Linux 5.0, so that a C library
    takes an older call. Sockets exist as connected pairs alone: the rest of the network is unreachable.
    KeyError on a processor without a list, see ``has_filter``.
    """
    architecture = _ARCHITECTURES[os.uname().machine]
    steps: list[_Step] = [
        (_LOAD, 0, 0, 4),  # the architecture that the call was made for
        (_EQUAL, 1, 0, architecture),
        _answer(_KILL),
        (_LOAD, 0, 0, 0),  # its number
        (_AT_LEAST, 0, 1, _OTHER_NUMBERING),
        _answer(_ERRNO | errno.ENOSYS),
    ]
    for number in _numbers(_ALLOWED):
        steps += [(_EQUAL, 0, 1, number), _answer(_ALLOW)]
    for number in _numbers(_ATTRIBUTES):
        steps += [(_EQUAL, 0, 1, number), _answer(_ERRNO | errno.ENOTSUP)]
    for call, checks in (
        # the flags of clone3 cannot be seen; C libraries then take clone
        (_CLONE3, [_answer(_ERRNO | errno.ENOSYS)]),
        (_CLONE, [_argument(0), (_ANY_OF, 1, 0, _NEW_NAMESPACES), _answer(_ALLOW), _refusal(errno.EPERM)]),
        (_PRCTL, _only(0, _PRCTL_ALLOWED, errno.EPERM)),
        (_FCNTL, _only(1, _FCNTL_ALLOWED, errno.EPERM)),
        (_IOCTL, _only(1, _IOCTL_ALLOWED, errno.ENOTTY)),
        (_SOCKET, [_argument(0), *_case(_AF_INET, _refusal(errno.ENETUNREACH)),
                   *_case(_AF_INET6, _refusal(errno.ENETUNREACH)), _refusal(errno.EAFNOSUPPORT)]),
        # a datagram could be sent to any address; a stream is connected to its pair for good
        (_SOCKETPAIR, [_argument(0), (_EQUAL, 1, 0, _AF_UNIX), _refusal(errno.EAFNOSUPPORT),
                       _argument(1), (_AND, 0, 0, 0xF), *_case(_SOCK_STREAM, _answer(_ALLOW)),
                       _refusal(errno.EAFNOSUPPORT)]),
    ):  # fmt: skip
        for number in _numbers(call):
            steps += [(_EQUAL, 0, len(checks), number), *checks]
    steps += [(_AT_LEAST, 0, 1, _NEWER), _refusal(errno.ENOSYS), _refusal(errno.EPERM)]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def _numbers(calls: str) -> Iterator[int]:
    """The numbers that calls have on this machine's processor."""
    column = list(_ARCHITECTURES).index(os.uname().machine)
    for call in calls.split():
        number = call.split(":")[1].split("/")[column]
        if number != "-":
            yield int(number)


def _answer(action: int) -> _Step:
    return (_RETURN, 0, 0, action)


def _refusal(code: int) -> _Step:
    return _answer(_ERRNO | code)


def _argument(place: int) -> _Step:
    """Load the lower half of an argument, which is all that the kernel looks at in those asked for here."""
    return (_LOAD, 0, 0, 16 + 8 * place)


def _case(value: int, step: _Step) -> list[_Step]:
    return [(_EQUAL, 0, 1, value), step]


def _only(place: int, values: tuple[int, ...], code: int) -> list[_Step]:
    """Allow a call where an argument is one of some values."""
    cases = [step for value in values for step in _case(value, _answer(_ALLOW))]
    return [_argument(place), *cases, _refusal(code)]
