"""kill -9 at any moment costs the unit in hand, and the matrix comes out the same to the last bit."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

STUDY = """
name: killed
model: {path: builtin:mini, dtype: float32, device: cpu}
lora: {r: 4, lora_alpha: 8}
training: {learning_rate: 0.002, warmup_steps: 2, batch_size: 8, max_steps: 12}
seeds: [0, 1]
limit: 24
sources:
  - {name: stars, task: mini_stars, limit: 80}
  - {name: programs, task: mini_programs, limit: 80}
  - {name: sums, task: mini_arithmetic, limit: 80, training: {max_steps: 5}, lora: {r: 2}}
targets: [mini_stars, mini_reviews, mini_arithmetic]
"""
TRAITMAP = (sys.executable, "-m", "traitmap.cli")


def start(folder: Path, output: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*TRAITMAP, "run", "study.yaml", "--output", output, "--save-minutes", "0.0001"]
    return subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True, env=environment)


def finish(folder: Path, output: str) -> str:
    process = start(folder, output)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return said


def kill_when_it_says(folder: Path, output: str, words: str) -> bool:
    """Run until a line of progress holds the words, then kill -9. False where it ended before."""
    process = start(folder, output)
    assert process.stderr is not None
    for line in process.stderr:
        if words in line:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            return True
    return process.wait() != 0


def cells(folder: Path, output: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / output / "killed" / "cells").glob("*.parquet")}


def matrix(folder: Path, output: str) -> dict:
    printed = subprocess.run(
        [*TRAITMAP, "matrix", f"{output}/killed", "--json"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(printed.stdout)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kill")
    (folder / "study.yaml").write_text(STUDY, encoding="utf-8")
    finish(folder, "whole")
    return folder


def test_killed_in_training_and_in_evaluation_the_matrix_is_the_same(uninterrupted: Path) -> None:
    moments = ("train: 30", "train: 80", "evaluate: 20", "evaluate: 70")
    killed = [kill_when_it_says(uninterrupted, "broken", words) for words in moments]
    assert all(killed)
    assert list((uninterrupted / "broken" / "killed" / "training").iterdir()) == []
    finish(uninterrupted, "broken")
    whole, broken = (matrix(uninterrupted, output) for output in ("whole", "broken"))
    assert whole["cells"] == broken["cells"]
    assert whole["baseline"] == broken["baseline"]
    assert len(whole["cells"]) == 3 * 3 * 3
    assert {cell["status"] for cell in whole["cells"]} == {"measured"}
    assert cells(uninterrupted, "whole") == cells(uninterrupted, "broken")


def test_a_kill_within_a_training_pass_costs_what_came_after_its_last_state(uninterrupted: Path) -> None:
    assert kill_when_it_says(uninterrupted, "within", "train: 30")
    said = finish(uninterrupted, "within")
    steps = re.findall(r"goes on at step (\d+) of 12", said)
    assert len(steps) == 1
    assert 2 <= int(steps[0]) <= 12
    assert cells(uninterrupted, "whole") == cells(uninterrupted, "within")
    assert not any((uninterrupted / "within" / "killed" / "training").iterdir())


def test_a_finished_run_computes_nothing_again(uninterrupted: Path) -> None:
    folder = uninterrupted / "whole" / "killed"
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*.parquet")}
    said = finish(uninterrupted, "whole")
    assert "train:" not in said
    assert "evaluate:" not in said
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.parquet")} == times
