"""What can go wrong, in one tree.

TraitmapError
├── UserError            the user can mend it: printed without a traceback, exit code 2
│   ├── StudyError       one or more faults of a study file, all of them at once
│   ├── DataError        a source or target cannot be read, or breaks its template
│   ├── ModelError       a base model or adapter cannot be used, and why
│   ├── MatrixError      a matrix file or a run cannot be read as a transfer matrix
│   └── RunError         a run folder is locked, damaged, or belongs to another study
│       └── NewerRunError    a newer traitmap wrote it: nothing of it is read or changed
└── EngineError          the engine failed on good input: a defect, or memory ran out
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass


class TraitmapError(Exception):
    """Root of every error that traitmap raises on purpose."""


class UserError(TraitmapError):
    """Something that the user can mend. The message says what, which value, what is legal, what to do."""


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a file.

    where: the place in the file's own words, e.g. ``sources[2].labels``.
    message: what is wrong, with the value, what is legal, and what to do next.
    line: 1-based line in the file, or None where no line is known.
    """

    where: str
    message: str
    line: int | None = None

    def __str__(self) -> str:
        place = f"line {self.line}, {self.where}" if self.line else self.where
        return f"{place}: {self.message}"


class StudyError(UserError):
    """Every fault of one study file."""

    def __init__(self, path: str, faults: Sequence[Fault]) -> None:
        self.path = path
        self.faults = tuple(sorted(faults, key=lambda fault: fault.line or 0))
        count = len(self.faults)
        listing = "\n".join(f"  {fault}" for fault in self.faults)
        super().__init__(f"{path}: {count} fault{'s' if count != 1 else ''}\n{listing}")


class DataError(UserError):
    """A source or target cannot be read, or a row breaks its template."""


class ModelError(UserError):
    """A base model or an adapter cannot be used."""


class MatrixError(UserError):
    """A matrix file or run cannot be read as a transfer matrix."""


class RunError(UserError):
    """A run folder is locked, damaged, or belongs to another study."""


class NewerRunError(RunError):
    """A run folder in the format of a newer traitmap, which this one would misread and overwrite."""


class EngineError(TraitmapError):
    """The engine failed on input that it should handle."""


def whole_reason(error: BaseException, most: int = 12, longest: int = 2000) -> str:
    """An error of another library on one line: all that it says, since its cause may stand last.

    Of a long list the first ``most`` lines, of a long line ``longest`` characters, with a count of the rest.
    """
    lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[:most]) or type(error).__name__
    if len(lines) > most:
        text += f" (and {len(lines) - most:,} lines more)"
    return text if len(text) <= longest else f"{text[:longest]} (and {len(text) - longest:,} characters more)"


_NEXT_STEPS = {
    errno.ENOENT: "check the path",
    errno.EACCES: "give yourself the right to it (chmod, chown), or name another place",
    errno.EPERM: "give yourself the right to it (chmod, chown), or name another place",
    errno.EROFS: "it is mounted read-only; name another place",
    errno.ENOSPC: "make room, or name another place, and run the same command again",
    errno.EDQUOT: "make room, or name another place, and run the same command again",
    errno.EFBIG: "lift the limit on the size of files (ulimit -f), or name another place",
    errno.EISDIR: "a folder stands where a file should; name a file, or move the folder away",
    errno.ENOTDIR: "a file stands where a folder should; name a folder, or move the file away",
    errno.EEXIST: "something else stands there; move it away, or name another place",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.EMFILE: "allow more open files (ulimit -n)",
    errno.ELOOP: "its links lead in a circle; correct them",
    errno.EIO: "the disk does not give it; look after the disk",
}
SYSTEM_ERRORS = (OSError, RecursionError, UnicodeError, OverflowError, MemoryError)


def system_fault(error: BaseException, about: str) -> str:
    """What the system or Python itself refused, in one line: the file, why, and what to do next.

    error: one of ``SYSTEM_ERRORS``. about: what was done, where the error names no file.
    """
    if isinstance(error, OSError):
        place = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else about
        if error.errno is None:
            reason, step = whole_reason(error), "check the file"
        else:
            reason = os.strerror(error.errno)
            step = _NEXT_STEPS.get(error.errno, "check the path and the rights to it")
    elif isinstance(error, RecursionError):
        place, reason, step = about, "it is nested too deeply to be read", "give a file with less nesting"
    elif isinstance(error, UnicodeDecodeError):
        place, reason = about, f"it is not {error.encoding} text (byte {error.start}: {error.reason})"
        step = "save the file as UTF-8"
    elif isinstance(error, UnicodeError):
        place, reason = about, f"text cannot be written as it is ({whole_reason(error)})"
        step = "correct the text, or set PYTHONUTF8=1"
    elif isinstance(error, MemoryError):
        place, reason = about, "memory ran out"
        step = "give less at once, or use a machine with more memory"
    else:
        place, reason = about, f"a number is too large ({whole_reason(error)})"
        step = "correct the number"
    return " ".join(f"{place}: {reason}; {step}.".split())
