"""What every command shares: the application, its arguments, how things are printed, and what a shell offers.

While a command is typed the shell asks for run folders, figures and targets; those are read off the run
folder's own files, so that an answer takes no import.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from traitmap.progress import Listener
from traitmap.terminal import Printable, printable, printable_json
from traitmap.terminal import shown_progress as shown_progress_or

if TYPE_CHECKING:
    from rich.console import RenderableType


def figures_of_run(ctx: Any, incomplete: str) -> list[str]:
    """Names of the run's figures, read off its report; the matrix alone where it has none yet."""
    try:
        page = (_run_of(ctx) / "report.html").read_text(encoding="utf-8")
    except OSError:
        page = ""
    names = re.findall(r'<svg [^>]*class="figure[^>]* id="([\w-]+)"', page) or ["matrix"]
    return sorted({name for name in names if name.startswith(incomplete)})


def targets_of_run(ctx: Any, incomplete: str) -> list[str]:
    """Names of the run's targets, read off its ledger alone."""
    try:
        ledger = json.loads((_run_of(ctx) / "run.json").read_text(encoding="utf-8"))
        names = [str(target["name"]) for target in ledger["targets"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [name for name in names if name.startswith(incomplete)]


def run_folders(ctx: Any, incomplete: str) -> list[str]:
    """Run folders that begin as what is typed does, and folders that may hold some."""
    typed = Path(incomplete)
    parent = typed if incomplete.endswith("/") or not incomplete else typed.parent
    beginning = "" if incomplete.endswith("/") or not incomplete else typed.name
    if not incomplete and (Path("runs")).is_dir():
        parent = Path("runs")
    try:
        folders = sorted(path for path in parent.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:
        return []
    named = [folder for folder in folders if folder.name.startswith(beginning)]
    runs = [str(folder) for folder in named if (folder / "run.json").is_file()]
    return runs or [f"{folder}/" for folder in named]


def _run_of(ctx: Any) -> Path:
    """The run on the command line: as it was understood, else the first word of it that is a run folder."""
    if ctx.params.get("run"):
        return Path(ctx.params["run"])
    # An option that still waits for its value keeps the words before it from being understood.
    typed = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS") or ""
    return next((Path(word) for word in typed.split() if (Path(word) / "run.json").is_file()), Path("."))


app = typer.Typer(
    name="traitmap",
    help="What does each fine-tune do to everything else, why, and which should I pick for my task?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

StudyFile = Annotated[Path, typer.Argument(metavar="STUDY", help="A study file (YAML).")]
RunFolder = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run folder, e.g. runs/mini.", autocompletion=run_folders)
]
MatrixOrRun = Annotated[
    Path,
    typer.Argument(
        metavar="MATRIX_OR_RUN",
        help="A run folder, or a CSV or Parquet matrix.",
        autocompletion=run_folders,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def print_table(renderable: RenderableType) -> None:
    """Print to standard output: as wide as the terminal, 80 columns in a pipe."""
    from rich.console import Console

    console = Console(soft_wrap=False, width=None if sys.stdout.isatty() else 80)
    console.print(Printable(renderable))


def print_json(data: Any, *, default: Callable[[Any], Any] | None = None) -> None:
    """Print JSON to standard output; default: what becomes of values that JSON does not know."""
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False, default=default)
    sys.stdout.write(printable_json(text) + "\n")


def tell(text: str) -> None:
    """A line to standard error, where messages go."""
    typer.echo(printable(text), err=True)


def shown_progress() -> AbstractContextManager[Listener]:
    """A bar for each stage on a terminal, else plain lines, both on standard error."""
    return shown_progress_or(tell)


def listed(text: str) -> tuple[str, ...]:
    """``a, b`` as ("a", "b")."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def one_of(option: str, value: str, legal: tuple[str, ...]) -> Any:
    """The value of an option, if it is legal."""
    if value not in legal:
        raise typer.BadParameter(f"{value!r}; legal: {', '.join(legal)}", param_hint=f"--{option}")
    return value
