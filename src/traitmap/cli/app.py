"""What every command shares: the application, its arguments, how things are printed, and what a shell offers.

While a command is typed the shell asks for run folders, figures and targets; those are read off the run
folder's own files, so that an answer takes no import.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import wraps
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from traitmap import api
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
    names = re.findall(r'data-(?:figure|silent)="([\w-]+)"', page)
    return sorted({name for name in ("matrix", *names) if name.startswith(incomplete)})


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
        help="A run folder, or a table of scores (CSV, Parquet, Excel, ...).",
        autocompletion=run_folders,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

# How a table of scores is to be read: the same options for every command that takes one.
_READING: dict[str, Any] = {
    "base": Annotated[
        str | None,
        typer.Option(metavar="ROW", help="Row of a table that is the base (default: __baseline__ or base)."),
    ],
    "orientation": Annotated[
        str | None,
        typer.Option(metavar="rows|columns", help="Where a table has its sources: in its rows or columns."),
    ],
    "row_name": Annotated[
        str | None,
        typer.Option(help="Column of a table that names its rows (default: the first with names)."),
    ],
    "drop": Annotated[str, typer.Option(help="Columns of a table to leave out, with commas between.")],
    "only": Annotated[str, typer.Option(help="Targets of a table to keep, with commas between.")],
    "values": Annotated[
        str | None,
        typer.Option(metavar="scores|gains", help="What the cells of a table hold: gains are over the base."),
    ],
    "source_column": Annotated[str | None, typer.Option(help="Column of sources in a long table.")],
    "target_column": Annotated[str | None, typer.Option(help="Column of targets in a long table.")],
    "value_column": Annotated[str | None, typer.Option(help="Column of scores in a long table.")],
}

Reading = Mapping[str, Any]  # of these options those that are given, as ``read_matrix`` takes them
NO_READING: Reading = MappingProxyType({})


def takes_table(command: Callable[..., None]) -> Callable[..., None]:
    """A command with the options of tables; it gets those that are given as the mapping ``reading``.

    An option that the command has itself, under the same name, stays its own.
    """
    signature = inspect.signature(command, eval_str=True)
    own = {name: parameter for name, parameter in signature.parameters.items() if name != "reading"}
    shared = {
        name: inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default="" if name in ("drop", "only") else None,
            annotation=annotation,
        )
        for name, annotation in _READING.items()
        if name not in own
    }

    @wraps(command)
    def with_reading(**arguments: Any) -> None:
        options = {name: arguments.pop(name) for name in shared}
        reading = {
            name: listed(value) if name in ("drop", "only") else value
            for name, value in options.items()
            if value
        }
        command(**arguments, reading=reading)

    parameters = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in (*own.values(), *shared.values())
    ]
    with_reading.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    with_reading.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_reading


def subject_of(place: Path, reading: Mapping[str, Any]) -> Any:
    """The run that is named, or the matrix of the table, with what it was read as on standard error."""
    from traitmap.api.subject import folder_of

    if folder_of(place) is not None:
        if reading:
            options = ", ".join("--" + name.replace("_", "-") for name in reading)
            raise typer.BadParameter(f"{place} is a run; {options} are for tables of scores")
        return place
    matrix = api.read_matrix(place, **reading)
    tell(f"read as: {matrix.conditions['read_as']}")
    return matrix


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
