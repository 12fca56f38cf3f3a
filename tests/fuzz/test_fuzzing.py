"""Damaged files of every kind that is read: a result or an error of our own, and nothing else, ever.

`benchmarks/fuzz.py` runs the same for as long as wanted, guided by coverage; what it finds lies in seeds/.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path

import pytest
from fuzz_targets import EACH_IMPORTER, TARGETS
from hostile_changes import Choices, changed_bytes, changed_tree
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SEEDS = Path(__file__).parent / "seeds"
EXAMPLES = {"study": 120, "imports": 150, "matrix": 150}


@pytest.mark.parametrize(
    "seed", sorted(SEEDS.glob("*/*")), ids=lambda seed: f"{seed.parent.name}-{seed.name}"
)
def test_files_that_were_a_fault_once(seed: Path, tmp_path: Path) -> None:
    place = tmp_path / "files"
    shutil.copytree(seed, place)
    TARGETS[seed.parent.name].replay(place)


@pytest.mark.parametrize("target", TARGETS)
def test_damaged_files_end_in_a_result_or_an_error_of_our_own(target: str) -> None:
    @settings(
        max_examples=EXAMPLES.get(target, 60),
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.binary(min_size=1, max_size=400))
    def run(data: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            TARGETS[target].run(data, Path(folder))

    run()


@pytest.mark.parametrize("target", [*TARGETS, *EACH_IMPORTER])
def test_the_undamaged_files_are_read(target: str, tmp_path: Path) -> None:
    # bytes that run out change nothing: if even these were refused, the fuzzer would try nothing
    fuzzed = {**TARGETS, **EACH_IMPORTER}[target]
    fuzzed.write(b"", tmp_path)
    fuzzed.read(tmp_path)


def test_same_bytes_same_damage() -> None:
    drawing = random.Random(5)
    tree = {"a": [1, {"b": "text"}], "c": None}
    told = set()
    for _ in range(50):
        data = drawing.randbytes(60)
        pairs = [
            (repr(changed_tree(tree, Choices(data))), changed_bytes(b"abc", Choices(data))) for _ in "ab"
        ]
        assert pairs[0] == pairs[1]
        told.add(pairs[0])
    assert len(told) > 25  # and other bytes do other damage
    assert tree == {"a": [1, {"b": "text"}], "c": None}
