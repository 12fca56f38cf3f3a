"""What every command shares: the application, its arguments, and how things are printed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from traitmap.cli.completing import run_folders
from traitmap.cli.printable import Printable, printable, printable_json

if TYPE_CHECKING:
    from rich.console import RenderableType

    from traitmap.progress import Listener, Progress

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
    from rich.console import Console

    console = Console(soft_wrap=False, width=None if sys.stdout.isatty() else 80)
    console.print(Printable(renderable))


def print_json(data: Any) -> None:
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    sys.stdout.write(printable_json(text) + "\n")


def listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def one_of(option: str, value: str, legal: tuple[str, ...]) -> Any:
    if value not in legal:
        raise typer.BadParameter(f"{value!r}; legal: {', '.join(legal)}", param_hint=f"--{option}")
    return value


@contextmanager
def shown_progress() -> Iterator[Listener]:
    """A bar per stage on standard error, with time left; plain lines where that is no terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain_listener(lambda line: typer.echo(printable(line), err=True))
        return
    from rich import progress as bars

    columns = (
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.TaskProgressColumn(),
        bars.TimeRemainingColumn(elapsed_when_finished=True),
        bars.TextColumn("{task.fields[detail]}", style="dim", markup=False),
    )
    with bars.Progress(*columns, console=console) as shown:
        stages: dict[str, bars.TaskID] = {}

        def listen(report: Progress) -> None:
            if report.stage not in stages:
                stages[report.stage] = shown.add_task(report.stage, total=report.total, detail="")
            shown.update(
                stages[report.stage],
                completed=report.done,
                total=report.total,
                detail=printable(report.detail),
            )

        yield listen


@contextmanager
def shown_wait(what: str) -> Iterator[None]:
    """Seconds of a step that cannot tell how far it is, on a terminal alone and only where it takes two."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    import threading
    import time

    over, started = threading.Event(), time.monotonic()

    def count() -> None:
        if over.wait(2.0):
            return
        with console.status("") as shown:
            while not over.wait(0.5):
                shown.update(f"{what}: {time.monotonic() - started:.0f} s")

    counter = threading.Thread(target=count, daemon=True)
    counter.start()
    try:
        yield
    finally:
        over.set()
        counter.join()


def _plain_listener(write: Callable[[str], None]) -> Listener:
    """A line at every tenth of a stage."""
    reached: dict[str, int] = {}

    def listen(report: Progress) -> None:
        tenth = int(10 * report.done / report.total) if report.total else 10
        if tenth > reached.get(report.stage, -1):
            reached[report.stage] = tenth
            write(f"{report.stage}: {10 * tenth} % {report.detail}".rstrip())

    return listen
