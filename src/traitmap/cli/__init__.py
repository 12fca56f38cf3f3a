"""The command line: parse, one library call, print. Heavy imports happen inside the commands.

Data go to standard output, progress and messages to standard error. Exit codes: 0 done, 2 something
that the user can mend, 3 finished with failed parts, 130 interrupted.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Sequence
from typing import NoReturn, TextIO

from traitmap.cli import analysis, audit, combine, studies
from traitmap.cli.app import app, tell
from traitmap.errors import SYSTEM_ERRORS, UserError, system_fault

__all__ = ["analysis", "app", "audit", "combine", "main", "studies"]

# The order of `traitmap --help` is the order of the work, not of the imports.
_ORDER = (
    *("init", "check", "run", "status", "audit", "packs", "matrix", "traits", "profile", "explain"),
    *("recommend", "mix", "checkpoints", "compare", "atlas"),
    *("report", "figure", "view", "import_", "export", "query", "gc"),
)
app.registered_commands.sort(
    key=lambda command: (
        (*_ORDER, command.callback.__name__).index(command.callback.__name__) if command.callback else 0
    )
)


def main(words: Sequence[str] | None = None) -> None:
    """Entry point of ``traitmap``: errors that the user can mend end in one message and exit code 2.

    So does what the system refuses (a right, room, a folder in place of a file) or Python itself (nesting, an
    encoding, a number, memory), whichever command it happens in. What else is raised is a defect.

    words: what follows ``traitmap``; default: this process's own arguments.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    atexit.register(_end_at_once)
    arguments = sys.argv[1:] if words is None else list(words)
    # a shell may close them (``>&-``); what is written there is wanted by nobody
    sys.stdout = sys.stdout or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    sys.stderr = sys.stderr or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    try:
        try:
            app(args=arguments)
        finally:
            sys.stdout.flush()  # here, where a full disk behind it can still be told
    except UserError as error:
        _refuse(str(error))
    except SystemExit as end:
        if end.code == 130:  # Ctrl-C, which Typer turns into this code without a word
            tell("Interrupted. What is finished is kept; the same command goes on from there.")
        raise
    except BrokenPipeError:
        _silence(sys.stdout)
    except SYSTEM_ERRORS as error:
        about = "standard output" if _silence(sys.stdout) else " ".join(["traitmap", *arguments[:4]])
        _refuse(system_fault(error, about))


def _refuse(message: str) -> NoReturn:
    """The message on standard error, and exit code 2, also where standard error takes nothing."""
    try:
        tell(message)
        sys.stderr.flush()
    except OSError:
        _silence(sys.stderr)
    sys.exit(2)


def _silence(stream: TextIO) -> bool:
    """Whether a stream fails to take what waits in it; then it takes everything, and drops it.

    Python would try once more at its end, and complain.
    """
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return True
    return False


def _end_at_once() -> None:
    """No last look through a million objects, which takes a second at the end of a run.

    DuckDB's bindings print what then is left of them, so a process that has used them looks once more.
    """
    if "_duckdb" not in sys.modules:
        gc.freeze()
