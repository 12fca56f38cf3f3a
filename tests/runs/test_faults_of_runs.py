"""A full disk, two drivers, a lock that somebody left: a clear message, and nothing finished is lost."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from small_study import sources, study, targets
from traitmap.engine.fake import FakeEngine
from traitmap.errors import RunError
from traitmap.matrix.build import build_matrix
from traitmap.report.terminal_runs import status_view
from traitmap.runs.execute import execute
from traitmap.runs.files import disk_trouble, write_whole
from traitmap.runs.status import run_status
from traitmap.runs.store import RunStore, lock_holder, locked_store

TESTS = Path(__file__).parents[1]


def run(output: Path, log: Path | None = None) -> RunStore:
    asked = study(output, seeds=(0,))
    return execute(asked, FakeEngine(log=log), sources(asked), targets())


def calls(log: Path) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 40 kB; needs the right to mount."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", place], capture_output=True)
    if made.returncode:
        pytest.skip("no right to mount a file system here")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_ends_the_run_with_what_to_do_and_loses_nothing(small_disk: Path, tmp_path: Path) -> None:
    """More and more room: at each size the run goes on from where it stopped, until it has enough."""
    said, made = [], []
    for kilobytes in (40, 80, 160, 260, 290, 320, 350, 1000):
        subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", small_disk], check=True)
        log = tmp_path / f"log-{kilobytes}"
        try:
            run(small_disk, log)
        except RunError as error:
            said.append(str(error))
        made.append(calls(log))
    assert 3 <= len(said) < 8
    assert all("make room and run again, what is finished is kept" in one for one in said)
    assert sum(made) <= 4 + 4 * 5 + 4 * len(said)  # a full disk costs the unit in hand, of 4 adapters at most
    assert not list(small_disk.glob("small/**/.partial-*"))
    run(tmp_path / "other")
    whole, grown = (build_matrix(place / "small").cells for place in (tmp_path / "other", small_disk))
    assert list(map(repr, whole)) == list(map(repr, grown))


@pytest.mark.parametrize("bytes_of_a_file", [2_000, 20_000])
def test_a_limit_on_files_is_told_and_can_be_lifted(tmp_path: Path, bytes_of_a_file: int) -> None:
    """The limit of a process where nobody may mount: ledger and cells, or adapters alone, do not fit."""

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_of_a_file, resource.RLIM_INFINITY))

    code = (
        "import sys; from pathlib import Path; from small_study import sources, study, targets\n"
        "from traitmap.engine.fake import FakeEngine; from traitmap.runs.execute import execute\n"
        "from traitmap.errors import UserError\n"
        "asked = study(Path(sys.argv[1]), seeds=(0,))\n"
        "try: execute(asked, FakeEngine(), sources(asked), targets())\n"
        "except UserError as error: sys.exit(f'told: {error}')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        preexec_fn=limited,
    )
    assert done.returncode == 1
    assert "told:" in done.stderr
    assert "File too large); make room and run again" in done.stderr
    assert run_status(run(tmp_path)).complete


def test_a_file_that_cannot_be_written_leaves_nothing(small_disk: Path) -> None:
    write_whole(small_disk / "file", b"old")
    with pytest.raises(OSError, match="No space") as told:
        write_whole(small_disk / "file", b"new" * 100_000)
    assert disk_trouble(told.value) == "No space left on device"
    assert (small_disk / "file").read_bytes() == b"old"
    assert [one.name for one in small_disk.iterdir()] == ["file"]


def test_trouble_with_the_disk_is_known_in_words_and_beneath_other_errors() -> None:
    beneath = RuntimeError("an adapter cannot be written")
    beneath.__cause__ = ValueError("I/O error: No space left on device (os error 28)")
    assert disk_trouble(beneath) == "No space left on device"
    assert disk_trouble(ValueError("28 errors")) == ""
    assert disk_trouble(FileNotFoundError(2, "No such file")) == ""


HOLDER = """
import sys, time
from traitmap.runs.store import locked_store
with locked_store(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_names_its_holder_and_ends_with_it(tmp_path: Path) -> None:
    """Killed with -9 it leaves the file, and the file alone holds nobody up."""
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(RunError, match=f"process {holder.pid} on {os.uname().nodename} is running"),
            locked_store(tmp_path),
        ):
            pass
        told = lock_holder(RunStore(tmp_path))
        assert told is not None
        assert (told.pid, told.host) == (holder.pid, os.uname().nodename)
    finally:
        holder.kill()
        holder.wait()
    assert (tmp_path / "run.lock").read_text().split()[0] == str(holder.pid)
    assert lock_holder(RunStore(tmp_path)) is None
    with locked_store(tmp_path) as store:
        assert lock_holder(store) is not None
    assert lock_holder(store) is None


@pytest.mark.parametrize("content", ["", "4711\n", "no number\n", "\0\xff"])
def test_a_lock_file_that_says_nothing_holds_nobody_up(tmp_path: Path, content: str) -> None:
    """An empty one of a process that was killed at once, one of an earlier version, and rubbish."""
    (tmp_path / "run.lock").write_text(content)
    with locked_store(tmp_path) as store:
        holder = lock_holder(store)
        assert holder is not None
        assert holder.pid == os.getpid()
        (tmp_path / "run.lock").write_text(content)
        assert str(lock_holder(store)).startswith(("an unknown process", "process 4711"))


def test_the_status_says_who_runs_it(tmp_path: Path) -> None:
    store = run(tmp_path)
    assert run_status(store).running is None
    with locked_store(store.folder):
        found = run_status(store)
    assert (found.running, found.host) == (os.getpid(), os.uname().nodename)
    assert json.loads(json.dumps(found.to_json()))["host"] == found.host


def test_the_status_names_quarantine_and_damage_in_words(tmp_path: Path) -> None:
    store = run(tmp_path)
    first, second = sorted(store.cells.iterdir())[:2]
    first.write_bytes(b"")
    run(tmp_path)
    second.write_bytes(b"PAR1")
    console = Console(width=500, file=StringIO())
    console.print(status_view(run_status(store, verify=True)))
    said = console.file.getvalue()
    assert f"damaged and moved to quarantine/{first.name}.1: cells/{first.name}: " in said
    assert f"damaged: cells/{second.name}: " in said
    assert "makes what is damaged or missing anew" in said
    run(tmp_path)
    console.print(status_view(run_status(store, verify=True)))
    assert "Every file agrees with its checksum.\nComplete." in console.file.getvalue()
