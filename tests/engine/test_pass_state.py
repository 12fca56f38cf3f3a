"""A training pass that was killed goes on from its last state: its adapters are the same to the last bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pass_to_kill import checkpoint, three_jobs, train
from test_train import engine_for

from traitmap.engine.pass_state import read_state, write_state

FILES = [f"{number}/adapter_model.safetensors" for number in range(3)]


def weights(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in FILES]


def killed_after(base: Path, folder: Path, step: int) -> None:
    """Train in a process of its own that is killed after so many steps."""
    folder.mkdir(exist_ok=True)
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    ended = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("pass_to_kill.py")), str(base), str(folder), str(step)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        capture_output=True,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()


@pytest.fixture(scope="module")
def base(checkpoints: dict[str, Path]) -> Path:
    return checkpoints["llama"]


@pytest.fixture(scope="module")
def whole(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Adapters of a pass that was never stopped and kept no state."""
    folder = tmp_path_factory.mktemp("whole")
    engine_for(base).train(three_jobs(), [folder / str(number) for number in range(3)])
    return folder


@pytest.mark.parametrize("step", [3, 14])  # at 14 one of the three has finished
def test_killed_and_gone_on_the_adapters_are_the_same_to_the_last_bit(
    base: Path, whole: Path, tmp_path: Path, step: int
) -> None:
    killed_after(base, tmp_path, step)
    assert not any((tmp_path / name).exists() for name in FILES)
    told = train(base, tmp_path, 0)
    assert told == [
        f"a training pass goes on at step {step + 1} of 20 (3 adapters): what an earlier process had trained "
        "is kept."
    ]
    assert weights(tmp_path) == weights(whole)


def test_killed_twice_it_goes_on_twice(base: Path, whole: Path, tmp_path: Path) -> None:
    killed_after(base, tmp_path, 4)
    killed_after(base, tmp_path, 5)  # of its own steps
    assert "at step 10 of 20" in train(base, tmp_path, 0)[0]
    assert weights(tmp_path) == weights(whole)


def test_what_is_trained_after_is_not_what_was_trained_before(
    base: Path, whole: Path, tmp_path: Path
) -> None:
    """The state is used at all: with other moments in it the adapters come out otherwise."""
    killed_after(base, tmp_path, 4)
    state = read_state(tmp_path / "state")
    doubled = {name: 2 * values if "exp_avg" in name else values for name, values in state.tensors.items()}
    write_state(tmp_path / "state", replace(state, tensors=doubled))
    train(base, tmp_path, 0)
    assert all(a != b for a, b in zip(weights(tmp_path), weights(whole), strict=True))


def test_a_state_that_is_damaged_at_any_byte_is_not_used(base: Path, whole: Path, tmp_path: Path) -> None:
    killed_after(base, tmp_path, 4)
    content = (tmp_path / "state").read_bytes()
    generator = np.random.default_rng(0)
    places = [0, 9, len(content) - 1, *generator.integers(0, len(content), 40)]
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 0x40
        (tmp_path / "state").write_bytes(changed)
        with pytest.raises(ValueError, match=r"\w"):
            read_state(tmp_path / "state")
    for half in (b"", content[: len(content) // 2]):
        (tmp_path / "state").write_bytes(half)
        (told,) = train(base, tmp_path, 0)
        assert "is damaged" in told
        assert told.endswith("the pass begins anew.")
        assert weights(tmp_path) == weights(whole)


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("software", "software: torch 1.0 then, torch"),
        ("rows", "rows: "),
        ("tokens of a pass", "of a pass: 9 then"),
    ],
)
def test_a_state_of_another_pass_is_not_used_and_says_in_what_it_differs(
    base: Path, whole: Path, tmp_path: Path, part: str, words: str
) -> None:
    killed_after(base, tmp_path, 4)
    state = read_state(tmp_path / "state")
    other = {"software": "torch 1.0", "tokens of a pass": 9}.get(part, "elsewhere")
    write_state(tmp_path / "state", replace(state, stamp={**state.stamp, part: other}))
    (told,) = train(base, tmp_path, 0)
    assert words in told
    assert weights(tmp_path) == weights(whole)


def test_another_learning_rate_is_another_pass(base: Path, tmp_path: Path) -> None:
    killed_after(base, tmp_path, 4)
    told: list[str] = []
    folders = [tmp_path / str(number) for number in range(3)]
    engine_for(base).train(three_jobs(lr=1e-3), folders, checkpoint=checkpoint(tmp_path, told))
    assert "settings: " in told[0]


def test_an_adapter_that_diverged_before_stays_so(base: Path, tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def stop(progress: object) -> None:
        raise StopError

    folders, told = [tmp_path / str(number) for number in range(3)], list[str]()
    with pytest.raises(StopError):
        engine_for(base).train(three_jobs(lr=1e30), folders, stop, checkpoint(tmp_path, told))
    # what the second step finds is found by whoever goes on, and the state after it says so, too
    reports = engine_for(base).train(three_jobs(lr=1e30), folders, checkpoint=checkpoint(tmp_path, told))
    earlier = read_state(tmp_path / "state").facts["seconds"]
    again = engine_for(base).train(three_jobs(lr=1e30), folders, checkpoint=checkpoint(tmp_path, told))
    assert reports[2].failure is not None
    assert [report.failure for report in again] == [report.failure for report in reports]
    assert np.array_equal(again[2].losses, reports[2].losses, equal_nan=True)
    assert again[0].seconds > earlier > 0  # of all processes together


def test_without_room_for_a_state_the_pass_goes_on(base: Path, whole: Path, tmp_path: Path) -> None:
    train(base, tmp_path, 0, room=False)
    assert len(read_state(tmp_path / "state").facts["adapters"][0]["losses"]) == 1  # and tries no more
    assert weights(tmp_path) == weights(whole)
