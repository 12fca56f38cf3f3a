"""The chaos script itself, three kills on the fake engine; fifty on the real one are told in the docs."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "chaos.py"


def test_three_kills_cost_a_unit_each_and_change_no_byte(tmp_path: Path) -> None:
    command = [sys.executable, SCRIPT, tmp_path / "runs", "--kills", "3", "--engine", "fake"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every byte the same: yes" in done.stdout
    rows = [line.split("|") for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 3
    assert all(int(row[5]) <= 1 for row in rows)
    assert not (tmp_path / "runs").exists()
