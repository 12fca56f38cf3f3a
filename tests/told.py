"""The command line in this process: what it prints, what it says, how it ends."""

from __future__ import annotations

import contextlib
import io
import os
from dataclasses import dataclass
from pathlib import Path

from traitmap import cli


@dataclass(frozen=True)
class Told:
    """Exit code, standard output, standard error."""

    code: int
    out: str
    err: str


def traitmap(*words: object, cwd: Path | None = None) -> Told:
    """Run ``traitmap WORDS`` as its entry point does, without a process of its own."""
    out, err = io.StringIO(), io.StringIO()
    here = Path.cwd()
    try:
        os.chdir(cwd or here)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = _ended(words)
    finally:
        os.chdir(here)
    return Told(code, out.getvalue(), err.getvalue())


def _ended(words: tuple[object, ...]) -> int:
    try:
        cli.main([str(word) for word in words])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0
