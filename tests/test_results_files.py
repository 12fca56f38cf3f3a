"""Results files say where they come from, and the benchmark of kernels counts what it says."""

import json
import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_results_say_when_where_and_by_which_command() -> None:
    for path in (ROOT / "benchmarks" / "results").glob("*.json"):
        found = json.loads(path.read_text(encoding="utf-8"))
        assert found["command"].startswith("python benchmarks/"), path
        assert found["date"], path
        assert found["machine"], path
        assert found["versions"]["torch"], path


def test_kernels_are_counted_from_onednns_own_lines(monkeypatch) -> None:
    """A product computed, one compiled, one found again, and what is no product."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    counted = runpy.run_path(str(ROOT / "benchmarks" / "kernels.py"))["counted"]
    start, shape = "onednn_verbose,v1,primitive", "matmul,brg_matmul:avx512_core_bf16,undef,7x192:192x192"
    lines = [
        f"{start},create:cache_miss,cpu,{shape},0.5",
        f"{start},exec,cpu,{shape},0.25",
        f"{start},create:cache_hit,cpu,{shape},0.003",
        f"{start},exec,cpu,{shape},0.75",
        f"{start},exec,cpu,reorder,jit:uni,undef,7x192,9.0",
        "something else",
    ]
    assert counted(lines) == pytest.approx(
        {"products": 2, "compiled": 1, "compute_seconds": 1e-3, "compile_seconds": 5e-4}
    )


def test_no_record_tells_of_a_machine_s_folders() -> None:
    folders = re.compile(r'"(?:/|~/|[A-Z]:\\)[\w.-]+/[^"]*"|--\w+ /\S+')
    for folder in ("benchmarks/results", "examples/real/results"):
        for path in (ROOT / folder).glob("*.json"):
            found = folders.findall(path.read_text(encoding="utf-8"))
            assert not found, (path, found[:3])
