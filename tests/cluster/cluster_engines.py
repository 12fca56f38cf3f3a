"""An engine whose behaviour a file orders, so that workers need not be started anew for every test."""

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from traitmap.data.records import Request, Response
from traitmap.engine.contract import TrainingJob, TrainingReport
from traitmap.engine.fake import FakeEngine
from traitmap.errors import EngineError
from traitmap.progress import Listener, silent
from traitmap.runs.store import RunStore

TESTS = Path(__file__).parents[1]


class OrderedEngine(FakeEngine):
    """The fake engine, which reads before each call what it is to do wrong.

    orders: a file of JSON. log: where to write calls. delay: seconds of each call. most: adapters that
    memory holds. deadly, deaths: a source at which it kills its process, and how often. word, failures: a
    word with which the base's requests begin, at which it fails, and how often.
    """

    def __init__(self, orders: Path) -> None:
        super().__init__()
        self.orders = orders

    def train(
        self, jobs: Sequence[TrainingJob], folders: Sequence[Path], listener: Listener = silent
    ) -> list[TrainingReport]:
        told = self._obey()
        if len(jobs) > told.get("most", len(jobs)):
            raise EngineError("the card is full") from MemoryError("CUDA out of memory")
        if any(job.name == told.get("deadly") for job in jobs) and self._counts("deaths", told):
            self._write_log(call="death")
            os.kill(os.getpid(), signal.SIGKILL)
        return super().train(jobs, folders, listener)

    def answer(
        self, requests: Sequence[Request], adapter: Path | None = None, listener: Listener = silent
    ) -> list[Response]:
        told = self._obey()
        at_fault = adapter is None and requests[0].context.startswith(told.get("word", "\0"))
        if at_fault and self._counts("failures", told):
            raise EngineError("the card is hot")
        return super().answer(requests, adapter, listener)

    def _obey(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.orders.read_text())
        self.log, self.delay = Path(told["log"]), told.get("delay", 0.0)
        return told

    def _counts(self, what: str, told: dict[str, Any]) -> bool:
        """Whether it is to happen once more."""
        assert self.log is not None
        book = self.log.with_suffix(f".{what}")
        count = int(book.read_text()) if book.exists() else 0
        book.write_text(str(count + 1))
        return count < told[what]


def calls(log: Path, call: str = "") -> list[dict[str, object]]:
    """What engines were asked, all of them or those of one kind."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [entry for entry in map(json.loads, lines) if call in ("", entry["call"])]


def results(store: RunStore) -> dict[str, bytes]:
    """Every file that says what came out, by its place."""
    kept = [*store.cells.glob("*.parquet"), *store.adapters.glob("*/*")]
    return {str(path.relative_to(store.folder)): path.read_bytes() for path in kept}


def wait_until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
