"""traitmap on a system that lacks what Linux has: fcntl, folders that can be opened, fork and the like."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent


def test_a_study_is_checked_run_and_reported_without_what_only_linux_has(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, TESTS / "other_system.py", tmp_path],
        env={**os.environ, "PYTHONPATH": str(TESTS), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    commands = [line.split()[2] for line in done.stdout.splitlines() if line.startswith("$ traitmap")]
    assert commands == ["--help", "init", "check", "status", "matrix", "report"]
    shown = " ".join((done.stdout + done.stderr).split())
    assert "this system: Plan9" in shown
    assert "tested on Linux alone" in shown
    assert (tmp_path / "mini" / "report.html").stat().st_size > 100_000
