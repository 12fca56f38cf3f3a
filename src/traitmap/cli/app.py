"""What the shell offers while a command is typed: run folders, figures and targets.

Foreign text on a terminal: names and texts of data may hold characters that steer it.

What every command shares: the application, its arguments, and how things are printed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

    from traitmap.progress import Listener, Progress


def figures_of_run(ctx: Any, incomplete: str) -> list[str]:
    """Names of the run's figures, read off its report; the matrix alone where it has none yet."""
    import re

    try:
        page = (_run_of(ctx) / "report.html").read_text(encoding="utf-8")
    except OSError:
        page = ""
    names = re.findall(r'<svg [^>]*class="figure[^>]* id="([\w-]+)"', page) or ["matrix"]
    return sorted({name for name in names if name.startswith(incomplete)})


def targets_of_run(ctx: Any, incomplete: str) -> list[str]:
    """Names of the run's targets, read off its ledger alone."""
    return [name for name in _listed(ctx, "targets") if name.startswith(incomplete)]


def run_folders(ctx: Any, incomplete: str) -> list[str]:
    """Run folders that begin as what is typed does, and folders that may hold some."""
    typed = Path(incomplete)
    parent = typed if incomplete.endswith("/") or not incomplete else typed.parent
    beginning = "" if incomplete.endswith("/") or not incomplete else typed.name
    if not incomplete and (Path("runs")).is_dir():
        parent = Path("runs")
    try:
        folders = sorted(one for one in parent.iterdir() if one.is_dir() and not one.name.startswith("."))
    except OSError:
        return []
    named = [folder for folder in folders if folder.name.startswith(beginning)]
    runs = [str(one) for one in named if (one / "run.json").is_file()]
    return runs or [f"{one}/" for one in named]


def _listed(ctx: Any, key: str) -> list[str]:
    """Names in a list of the ledger of the run on the command line; none where that cannot be read."""
    import json

    try:
        told = json.loads((_run_of(ctx) / "run.json").read_text(encoding="utf-8"))
        return [str(one["name"]) for one in told[key]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _run_of(ctx: Any) -> Path:
    """The run on the command line: as it was understood, else the first word of it that is a run folder."""
    if ctx.params.get("run"):
        return Path(ctx.params["run"])
    # An option that still waits for its value keeps the words before it from being understood.
    typed = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS") or ""
    return next((Path(word) for word in typed.split() if (Path(word) / "run.json").is_file()), Path("."))


# escape sequences (C0 and C1, all but newline and tab), and marks that turn the direction of writing
_CODES = (
    *(code for code in range(0x20) if chr(code) not in "\n\t"),
    *range(0x7F, 0xA0),
    *(0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)),
)
_STEERING = dict.fromkeys(_CODES, "\ufffd")
_IN_JSON = {code: f"\\u{code:04x}" for code in _STEERING if code >= 0x7F}  # json escapes those below


def printable(text: str) -> str:
    """The text with every character that steers a terminal replaced by the sign for an unknown one."""
    return text.translate(_STEERING)


def printable_json(text: str) -> str:
    """JSON text with such characters as escapes: the same data, and nothing that steers."""
    return text.translate(_IN_JSON)


class Printable:
    """A table or text for Rich, whose own colours stay and whose content cannot bring any."""

    def __init__(self, inner: RenderableType) -> None:
        self.inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.segment import Segment

        for segment in console.render(self.inner, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


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
