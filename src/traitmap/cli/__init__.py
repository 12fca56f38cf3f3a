"""The command line: parse, one library call, print. Heavy imports happen inside the commands.

Data go to standard output, progress and messages to standard error. Exit codes: 0 done, 2 something
that the user can mend, 3 finished with failed parts, 130 interrupted.
"""

from __future__ import annotations

import os
import sys

import typer

from traitmap.cli import (
    explanation,
    importing,
    matrices,
    profiling,
    recommendation,
    storage,
    studies,
    viewing,
)
from traitmap.cli.app import app

__all__ = [
    "app",
    "explanation",
    "importing",
    "main",
    "matrices",
    "profiling",
    "recommendation",
    "storage",
    "studies",
    "viewing",
]

# The order of `traitmap --help` is the order of the work, not of the imports.
_ORDER = (
    *("init", "check", "run", "status", "matrix", "traits", "profile", "explain", "recommend", "report"),
    *("view", "import_", "export", "query", "gc"),
)
app.registered_commands.sort(
    key=lambda one: (*_ORDER, one.callback.__name__).index(one.callback.__name__) if one.callback else 0
)


def main() -> None:
    """Entry point of ``traitmap``: errors that the user can mend end in one message and exit code 2."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from traitmap.errors import UserError

    try:
        app()
    except UserError as error:
        typer.echo(str(error), err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.echo("Interrupted. What is finished is kept; the same command goes on from there.", err=True)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
