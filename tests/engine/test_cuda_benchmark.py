"""The benchmark for a GPU runs through on a tiny base, so that it is ready where a GPU is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "cuda.py"


def test_the_gpu_benchmark_runs_at_tiny_size(tmp_path: Path) -> None:
    output = tmp_path / "cuda.json"
    done = subprocess.run(
        [sys.executable, SCRIPT, "--tiny", "--output", output], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(output.read_text(encoding="utf-8"))
    for part in ("training", "training, r 32 on q and v"):
        assert found[part]["tokens"] > 0
        assert len(found[part]["Trainer/ours"]) == 3
    assert found["kernels"]["chosen"] == {}  # they are CUDA's
    assert len(found["kernels"]["without/with"]) == 3
    assert found["scoring"]["requests"] == 2 * 4 * 4
    assert found["scoring"]["farthest_apart_nats"] < 0.5
