"""kill -9 at any moment, then run again: the same bytes as never having stopped, and nothing done twice."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
CALLS = 8 + 4 * 9  # adapters to train, and cells: 4 targets x (base + 8 adapters)


def start(folder: Path, log: Path, delay: float) -> subprocess.Popen[bytes]:
    script = Path(__file__).with_name("run_small_study.py")
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, script, folder, str(delay), log], env=environment)


def calls(log: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def kill_when(process: subprocess.Popen[bytes], log: Path, count: int) -> None:
    """Kill the process as soon as the engine has been called ``count`` times in all."""
    while len(calls(log)) < count:
        assert process.poll() is None, "the study ended before it could be killed"
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def results(folder: Path) -> dict[str, bytes]:
    """Every file that says what came out, by its place."""
    kept = [*folder.glob("small/cells/*.parquet"), *folder.glob("small/adapters/*/*")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in kept}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    assert start(folder, folder / "log", 0.0).wait() == 0
    assert len(calls(folder / "log")) == CALLS
    return folder


def test_killed_in_training_and_in_evaluation(uninterrupted: Path, tmp_path: Path) -> None:
    """Killed in the first training pass, in the second, in the base's cells, in an adapter's cells."""
    logs = [tmp_path / f"log-{number}" for number in range(5)]
    for log, moment in zip(logs[:4], (2, 6, 6, 12), strict=True):
        kill_when(start(tmp_path, log, 0.02), log, moment)
    assert start(tmp_path, logs[4], 0.0).wait() == 0
    assert results(tmp_path) == results(uninterrupted)

    made = [calls(log) for log in logs]
    trained = [sum(call["call"] == "train" for call in of_one) for of_one in made]
    assert trained[0] <= 4  # nothing of the first pass was finished
    assert 6 <= trained[1] <= 8  # all of it again, and some of the second pass
    assert trained[2:] == [4, 0, 0]  # the second pass again, and never more
    answered = sum(call["call"] == "answer" for of_one in made for call in of_one)
    assert 4 * 9 <= answered <= 4 * 9 + 2  # a kill costs at most the cell in hand


def test_killed_while_files_are_written(uninterrupted: Path, tmp_path: Path) -> None:
    """Kills at moments that have nothing to do with the engine's calls."""
    for number, wait in enumerate((0.03, 0.13, 0.29)):
        log = tmp_path / f"log-{number}"
        process = start(tmp_path, log, 0.01)
        while not log.exists() and process.poll() is None:
            time.sleep(0.001)
        time.sleep(wait)
        process.kill()
        process.wait()
    assert start(tmp_path, tmp_path / "log-last", 0.0).wait() == 0
    assert results(tmp_path) == results(uninterrupted)
    assert not list(tmp_path.glob("small/**/.partial-*"))
