"""What goes to a terminal: text that cannot steer it, and progress as bars, as lines, or not at all.

Names and texts of data are foreign: they may hold escape sequences, or marks that turn the direction of
writing. Whatever prints them sends them through ``printable``.
"""

from __future__ import annotations

import inspect
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from traitmap.progress import Listener, Progress, silent

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

P = ParamSpec("P")
R = TypeVar("R")

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


def shows_progress(function: Callable[P, R]) -> Callable[P, R]:
    """Give a function with an argument ``listener`` a listener of its own where it is left out or None.

    On a terminal that is a bar for each stage, in a notebook lines of text, both on standard error; nothing
    where the output goes to a file or a pipe.
    """
    signature = inspect.signature(function)

    @wraps(function)
    def shown(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = signature.bind(*args, **kwargs)
        if bound.arguments.get("listener") is not None:
            return function(*args, **kwargs)
        with shown_progress(_notebook_line if _in_notebook() else None) as listener:
            bound.arguments["listener"] = listener
            return function(*bound.args, **bound.kwargs)

    return shown


@contextmanager
def shown_progress(write: Callable[[str], None] | None = None) -> Iterator[Listener]:
    """A bar for each stage on standard error, with the time left.

    write: gets a line at every tenth of a stage where standard error is no terminal; None shows nothing.
    """
    if not sys.stderr.isatty():
        yield silent if write is None else _lines(write)
        return
    from rich import progress as bars
    from rich.console import Console

    columns = (
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.TaskProgressColumn(),
        bars.TimeRemainingColumn(elapsed_when_finished=True),
        bars.TextColumn("{task.fields[detail]}", style="dim", markup=False),
    )
    with bars.Progress(*columns, console=Console(stderr=True)) as shown:
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
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    over, started, console = threading.Event(), time.monotonic(), Console(stderr=True)

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


def _lines(write: Callable[[str], None]) -> Listener:
    """A line at every tenth of a stage."""
    reached: dict[str, int] = {}

    def listen(report: Progress) -> None:
        tenth = int(10 * report.done / report.total) if report.total else 10
        if tenth > reached.get(report.stage, -1):
            reached[report.stage] = tenth
            write(f"{report.stage}: {10 * tenth} % {report.detail}".rstrip())

    return listen


def _in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, which is asked without importing IPython."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return type(shell).__name__ == "ZMQInteractiveShell"


def _notebook_line(line: str) -> None:
    """Write over the line before, as tqdm does."""
    end = "\n" if ": 100 %" in line else ""
    sys.stderr.write(f"\r{printable(line):<79}{end}")
    sys.stderr.flush()
