"""A run in a browser: its report, on this machine's loopback alone, and before there is one, how it goes.

``Follower`` looks at a run folder again and again: stage, time left, losses, and which cells are there.
``view`` serves what it sees.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import isfinite, nan
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from traitmap import api
from traitmap import report as pages
from traitmap.api.runs import open_run
from traitmap.api.subject import folder_of
from traitmap.errors import RunError, UserError
from traitmap.jsonable import jsonable
from traitmap.progress import silent
from traitmap.runs.cells import read_scores
from traitmap.runs.ledger import Ledger, read_ledger
from traitmap.runs.status import StageProgress, read_progress
from traitmap.runs.store import RunStore, open_store, running_pid
from traitmap.study.settings import BASELINE

if TYPE_CHECKING:
    from traitmap.api.subject import MatrixLike

LOOPBACK = "127.0.0.1"
FRESH = 0.5  # seconds for which one look at the folder serves everybody who asks
_NO_ANSWER = 30.0  # seconds after which a client that says nothing is left alone
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

CellState = Literal["done", "failed", "missing"]


@dataclass(frozen=True)
class FollowedCell:
    """A cell as it stands: its seeds together.

    state: ``done`` when every seed is, ``failed`` when one failed. done, seeds: how many of its seeds are
    there, and in all. value: mean score over the seeds that are there, NaN where none is. difference: that
    less the base's, in points of an improvement (turned where lower is better), NaN where either is unknown;
    a colour for the eye, without interval or test: those come with the matrix.
    """

    state: CellState
    done: int
    seeds: int
    value: float
    difference: float


@dataclass(frozen=True)
class Following:
    """A run at one moment, for a page that asks again and again.

    state: ``running``; ``done`` (complete), ``stopped`` (nobody runs it and something is missing or failed).
    rows: the base first, then every source. cells: a row of cells for each of ``rows``, one for each target.
    stages, losses: as ``runs.progress_file`` keeps them; empty where nothing runs.
    """

    name: str
    state: Literal["running", "done", "stopped"]
    rows: tuple[str, ...]
    targets: tuple[str, ...]
    cells: tuple[tuple[FollowedCell, ...], ...]
    adapters: Mapping[str, int]
    failures: tuple[str, ...]
    stages: tuple[StageProgress, ...]
    losses: tuple[tuple[float, float], ...]
    elapsed: float


class Follower:
    """Reads a run folder again and again; scores of a finished cell are read once, for they do not change."""

    def __init__(self, folder: str | Path) -> None:
        self.store: RunStore = open_store(folder)
        self._means: dict[str, float] = {}

    def look(self) -> Following:
        """The run as it is now.

        RunError where its ledger cannot be read.
        """
        ledger = read_ledger(self.store)
        running = running_pid(self.store) is not None
        progress = read_progress(self.store.folder) if running else None
        adapters = [adapter.status for adapter in ledger.adapters]
        complete = {*adapters, *(cell.status for cell in ledger.cells)} <= {"done"}
        return Following(
            name=ledger.name,
            state="running" if running else ("done" if complete else "stopped"),
            rows=_rows(ledger),
            targets=tuple(str(target["name"]) for target in ledger.targets),
            cells=self._cells(ledger),
            adapters={status: adapters.count(status) for status in ("done", "failed", "missing")},
            failures=_failures(ledger),
            stages=progress.stages if progress else (),
            losses=progress.losses if progress else (),
            elapsed=progress.stages[-1].heard - progress.started if progress and progress.stages else nan,
        )

    def _cells(self, ledger: Ledger) -> tuple[tuple[FollowedCell, ...], ...]:
        states: dict[tuple[str, str], list[str]] = {}
        values: dict[tuple[str, str], list[float]] = {}
        for cell in ledger.cells:
            states.setdefault((cell.source, cell.target), []).append(cell.status)
            if cell.status == "done" and cell.key is not None:
                values.setdefault((cell.source, cell.target), []).append(self._mean(cell.key))
        return tuple(
            tuple(_cell(states, values, name, target) for target in ledger.targets) for name in _rows(ledger)
        )

    def _mean(self, key: str) -> float:
        """Mean score over a cell's items; NaN where the file cannot be read, which the run will find out."""
        if key not in self._means:
            try:
                scores = read_scores(self.store.cell(key)).scores
            except RunError:
                return nan
            known = [float(score) for score in scores if isfinite(score)]
            self._means[key] = sum(known) / len(known) if known else nan
        return self._means[key]


def _rows(ledger: Ledger) -> tuple[str, ...]:
    """The base, then the sources that have cells: one that only serves others as material has none."""
    with_cells = {cell.source for cell in ledger.cells}
    names = (str(source["name"]) for source in ledger.sources)
    return (BASELINE, *(name for name in names if name in with_cells))


def _cell(
    states: Mapping[tuple[str, str], list[str]],
    values: Mapping[tuple[str, str], list[float]],
    name: str,
    target: Mapping[str, Any],
) -> FollowedCell:
    place = name, str(target["name"])
    seeds = states.get(place, [])
    failed, done = seeds.count("failed"), seeds.count("done")
    state: CellState = "failed" if failed else "done" if seeds and done == len(seeds) else "missing"
    value, base = _mean_of(values.get(place)), _mean_of(values.get((BASELINE, place[1])))
    turn = 1.0 if target.get("higher_is_better", True) else -1.0
    difference = nan if name == BASELINE else 100 * turn * (value - base)
    return FollowedCell(state, done, len(seeds), value, difference)


def _mean_of(values: list[float] | None) -> float:
    return sum(values) / len(values) if values else nan


def _failures(ledger: Ledger) -> tuple[str, ...]:
    """Why units failed, each reason of an adapter once."""
    broken = {(adapter.source, adapter.seed) for adapter in ledger.adapters if adapter.status == "failed"}
    return (
        *(
            f"{adapter.source}, training: {adapter.reason}"
            for adapter in ledger.adapters
            if adapter.status == "failed"
        ),
        *(
            f"{cell.source} on {cell.target}: {cell.reason}"
            for cell in ledger.cells
            if cell.status == "failed" and (cell.source, cell.seed) not in broken
        ),
    )


@dataclass(frozen=True)
class Viewing:
    """A server at work.

    address: what to open in a browser. port: where it listens. wait: blocks until the server ends;
    KeyboardInterrupt goes through.
    """

    address: str
    port: int
    wait: Callable[[], None]


@contextmanager
def view(run: MatrixLike, *, port: int | None = None) -> Iterator[Viewing]:
    """Serve a run folder's report, or the run in progress, on 127.0.0.1 until the block ends.

    A table of scores (see ``read_matrix``) has its report written first, to where it goes with the block.

    Three things can be asked for: ``/``, ``/progress.json`` and ``/report.html``; no part of an address ever
    becomes a path, and a report that is a link is neither served nor written through. The report is sent with
    a policy that lets our own script run and no other, whoever wrote the file. Requests under another name
    than 127.0.0.1 or localhost are refused, so that no web page can reach the server through a name of its
    own (DNS rebinding). port: None takes a free one.
    RunError where there is no run, UserError where the port is taken.
    """
    folder = folder_of(run)
    if folder is None and isinstance(run, str | Path) and not Path(run).exists():
        folder = Path(run)
    shown = _Shown(folder) if folder is not None else _ShownTable(run)
    try:
        server = _Server((LOOPBACK, port or 0), _Handler)
    except (OSError, OverflowError) as error:
        raise UserError(f"port {port} cannot be used ({error}); give another --port, or none.") from None
    server.shown = shown
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()

    def wait() -> None:
        while thread.is_alive():
            thread.join(0.2)  # in slices, so that Ctrl-C is heard

    number = int(server.server_address[1])
    try:
        yield Viewing(f"http://{LOOPBACK}:{number}/", number, wait)
    finally:
        server.shutdown()
        server.server_close()
        shown.close()


class _Shown:
    """What the server has to show: the state of the run, and its report as soon as there can be one."""

    def __init__(self, folder: Path) -> None:
        self.run = open_run(folder)
        self.follower = Follower(folder)
        self.lock = threading.Lock()
        self.looked = 0.0
        self.seen: dict[str, Any] = {}
        self.report: Path | None = self._fresh_report()
        self.failure = ""
        self.writer: threading.Thread | None = None
        self.elsewhere: tempfile.TemporaryDirectory[str] | None = None

    def state(self) -> dict[str, Any]:
        """The run as JSON data, with how far its report is; starts writing the report where it is time."""
        with self.lock:
            if time.monotonic() - self.looked > FRESH:
                try:
                    self.seen = jsonable(self.follower.look())
                except UserError as error:
                    self.seen = {"error": str(error)}
                self.looked = time.monotonic()
                if self.seen.get("state") == "running":  # the report of a run that goes on is out of date
                    self.report, self.failure = None, ""
                elif self.seen.get("state") and not (self.report or self.failure or self.writer):
                    self.writer = threading.Thread(target=self._write, daemon=True)
                    self.writer.start()
            if "error" in self.seen:
                return self.seen
            at_work = "writing" if self.writer else "none"
            state = "ready" if self.report is not None else "failed" if self.failure else at_work
            reason = self.failure if state == "failed" else ""
            return {**self.seen, "report": {"state": state, "reason": reason}}

    def _write(self) -> None:
        """Write the report into the run folder, or beside everything where that cannot be written."""
        written, failure = self._fresh_report(), ""
        try:
            if written is None:
                try:
                    if (self.run.folder / "report.html").is_symlink():  # it would lead the writing elsewhere
                        raise UserError("report.html is a link")
                    written = self.run.report(listener=silent)
                except (UserError, OSError):
                    if self.elsewhere is None:
                        self.elsewhere = tempfile.TemporaryDirectory(prefix="traitmap-view-")
                    written = self.run.report(Path(self.elsewhere.name) / "report.html", listener=silent)
        except UserError as error:
            failure = str(error)
        except Exception as error:  # a defect must reach the page: nobody reads this thread's traceback
            failure = f"{type(error).__name__}: {error} (a defect)"
        with self.lock:
            self.report, self.failure, self.writer = written, failure, None

    def _fresh_report(self) -> Path | None:
        """The folder's own report where it is no older than what it tells of."""
        report, ledger = self.run.folder / "report.html", self.run.folder / "run.json"
        try:
            seen = report.lstat()
            fresh = S_ISREG(seen.st_mode) and seen.st_mtime_ns >= ledger.stat().st_mtime_ns
        except OSError:
            return None
        return report if fresh else None

    def close(self) -> None:
        if self.elsewhere is not None:
            self.elsewhere.cleanup()


class _ShownTable:
    """The report of a table of scores, written before anybody can ask for it."""

    def __init__(self, table: MatrixLike) -> None:
        self.elsewhere = tempfile.TemporaryDirectory(prefix="traitmap-view-")
        try:
            self.report: Path | None = api.write_report(
                table, Path(self.elsewhere.name) / "report.html", listener=silent
            )
        except BaseException:
            self.close()
            raise

    def state(self) -> dict[str, Any]:
        return {"state": "done", "report": {"state": "ready", "reason": ""}}

    def close(self) -> None:
        self.elsewhere.cleanup()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    shown: _Shown | _ShownTable


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD of three addresses; everything else is refused."""

    server: _Server
    timeout = _NO_ANSWER
    server_version = "traitmap"
    sys_version = ""

    def do_GET(self) -> None:
        hosts = self.headers.get_all("Host") or []
        port = self.server.server_address[1]
        # this machine by a name that no web page can give to a server of its own
        if len(hosts) != 1 or hosts[0].lower() not in {f"{LOOPBACK}:{port}", f"localhost:{port}"}:
            self._send(HTTPStatus.FORBIDDEN, "text/plain", b"This server answers 127.0.0.1 and localhost.\n")
            return
        try:
            path = urlsplit(self.path).path
        except ValueError:
            self._send(HTTPStatus.BAD_REQUEST, "text/plain", b"This is not an address.\n")
            return
        answers = {"/": self._page, "/progress.json": self._progress, "/report.html": self._report}
        answer = answers.get(path)
        if answer is None:
            self._send(HTTPStatus.NOT_FOUND, "text/plain", b"There is /, /progress.json and /report.html.\n")
        else:
            answer()

    do_HEAD = do_GET  # noqa: N815 (the library's name)

    def _page(self) -> None:
        if isinstance(self.server.shown, _ShownTable):  # there is nothing to follow
            self._send(HTTPStatus.SEE_OTHER, "text/plain", b"", {"Location": "/report.html"})
            return
        policy = {"Content-Security-Policy": pages.following_policy()}
        self._send(HTTPStatus.OK, "text/html", pages.following_page().encode(), policy)

    def _progress(self) -> None:
        state = json.dumps(self.server.shown.state(), allow_nan=False).encode()
        self._send(HTTPStatus.OK, "application/json", state)

    def _report(self) -> None:
        shown = self.server.shown
        shown.state()
        try:
            if shown.report is None:
                raise FileNotFoundError
            # opened without following a link that has come there meanwhile, nor waiting for a pipe
            flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
            with open(os.open(shown.report, flags), "rb") as file:
                if not S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise FileNotFoundError
                policy = {"Content-Security-Policy": pages.report_policy()}
                self._send(HTTPStatus.OK, "text/html", file.read(), policy)
        except OSError:
            self._send(HTTPStatus.SEE_OTHER, "text/plain", b"", {"Location": "/"})

    def _send(
        self, status: HTTPStatus, kind: str, body: bytes, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        of_body = {"Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(body))}
        for name, value in {**of_body, **HEADERS, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Garbage is answered in one line, with the headers of every answer."""
        self.close_connection = True
        status = HTTPStatus(code)
        self._send(status, "text/plain", f"{message or status.phrase}\n".encode("ascii", "backslashreplace"))

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the terminal belongs to the command."""
