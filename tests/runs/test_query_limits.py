"""A query hears Ctrl-C, and ends at its limits of time and memory."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import traitmap as tm
from traitmap.errors import UserError

ENDLESS = (
    "select count(*) from range(100000000000) where range % 7 = 3",
    "with recursive t(a) as (select 1 union all select a + 1 from t) select max(a) from t",
)


@pytest.mark.parametrize("sql", ENDLESS)
def test_a_query_without_end_is_stopped_at_its_time(prepared_run: Path, sql: str) -> None:
    with pytest.raises(UserError, match=r"stopped after 0\.5 seconds; .*--seconds"):
        tm.query(prepared_run, sql, seconds=0.5)


@pytest.fixture
def hears_ctrl_c() -> Iterator[None]:
    """A process that a shell has put in the background ignores Ctrl-C from its start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("hears_ctrl_c")
@pytest.mark.parametrize("sql", ENDLESS)
def test_ctrl_c_ends_a_query(prepared_run: Path, sql: str) -> None:
    pressed = []

    def press() -> None:
        pressed.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(0.5, press)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        tm.query(prepared_run, sql, seconds=60)
    assert time.monotonic() - pressed[0] < 20  # a loaded machine; without hearing it, it never ends
    assert int(tm.query(prepared_run, "select 41 + 1 as a")["a"][0]) == 42


def test_a_query_larger_than_its_memory_is_refused_and_writes_no_file(
    prepared_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sql = "select md5(range::text) as m from range(3000000) order by m"
    with pytest.raises(UserError, match=r"more memory than it may take; .*--memory"):
        tm.query(prepared_run, sql, memory_mb=20)
    assert list(tmp_path.iterdir()) == []
    assert len(tm.query(prepared_run, "select range from range(100000)")) == 100_000


@pytest.mark.parametrize("limits", [{"seconds": 0}, {"seconds": float("nan")}, {"memory_mb": 0}])
def test_limits_are_above_zero(prepared_run: Path, limits: dict[str, float]) -> None:
    with pytest.raises(UserError, match="above 0"):
        tm.query(prepared_run, "select 1", **limits)  # type: ignore[arg-type]
