"""Where a run's training passes keep how far they are: used by the same pass alone, gone at its end."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from small_study import sources, study, targets
from traitmap.engine.contract import PassCheckpoint, TrainingJob, TrainingReport
from traitmap.engine.fake import FakeEngine
from traitmap.engine.pass_state import PassState, read_state, write_state
from traitmap.progress import Listener, silent
from traitmap.runs.execute import execute
from traitmap.runs.run_state import PassCheckpoints
from traitmap.runs.status import run_status
from traitmap.runs.store import RunStore


class Keeping(FakeEngine):
    """An engine that keeps a state of every pass, goes on from it, and is interrupted after some."""

    def __init__(self, interrupted: bool = False, fault: OSError | None = None) -> None:
        super().__init__()
        self.interrupted, self.fault = interrupted, fault
        self.went_on: list[bool] = []
        self.wrote: list[bool] = []

    def train(
        self,
        jobs: Sequence[TrainingJob],
        folders: Sequence[Path],
        listener: Listener = silent,
        checkpoint: PassCheckpoint | None = None,
    ) -> list[TrainingReport]:
        assert checkpoint is not None
        self.went_on.append(checkpoint.path.exists())
        adapters = [{"name": f"{job.name} seed {job.seed}", "losses": [1.0, 0.5]} for job in jobs]
        state = PassState({}, {"adapters": adapters}, {"0.flat": np.zeros(3)})

        def write(path: Path) -> None:
            write_state(path, state)
            if self.fault is not None:
                raise self.fault

        self.wrote.append(checkpoint.write(write))
        if self.interrupted:
            raise KeyboardInterrupt
        return super().train(jobs, folders, listener)


def do(folder: Path, engine: Keeping, told: list[str], **changes: int) -> RunStore:
    asked = study(folder, seeds=(0,), **changes)
    return execute(
        asked, engine, sources(asked), targets(), group_size=2, checkpoints=PassCheckpoints(60.0, told.append)
    )


def interrupt(folder: Path) -> Path:
    with pytest.raises(KeyboardInterrupt):
        do(folder, Keeping(interrupted=True), [])
    (path,) = (folder / "small" / "training").iterdir()
    return path


def test_the_same_pass_finds_its_state_and_nothing_is_left_at_the_end(tmp_path: Path) -> None:
    interrupt(tmp_path)
    engine, told = Keeping(), list[str]()
    store = do(tmp_path, engine, told)
    assert engine.went_on == [True, False]  # the second group had none
    assert told == []
    assert list(store.training.iterdir()) == []
    assert run_status(store).complete


def test_a_changed_study_does_not_find_it_and_says_so_once(tmp_path: Path) -> None:
    interrupt(tmp_path)
    engine, told = Keeping(), list[str]()
    store = do(tmp_path, engine, told, max_steps=3)
    assert engine.went_on == [False, False]
    (line,) = told
    assert "reviews seed 0, flipped seed 0, 2 steps long, was ended early" in line
    assert list(store.training.iterdir()) == []
    do(tmp_path, Keeping(), told, max_steps=3)
    assert len(told) == 1


def test_a_state_that_nobody_can_read_is_told_and_removed(tmp_path: Path) -> None:
    path = interrupt(tmp_path)
    path.with_name("0" * 32 + ".safetensors").write_bytes(b"no state")
    told: list[str] = []
    store = do(tmp_path, Keeping(), told)
    assert [line for line in told if "whose state is damaged" in line] == told != []
    assert list(store.training.iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_costs_the_state_and_not_the_run(tmp_path: Path, code: int) -> None:
    engine, told = Keeping(fault=OSError(code, os.strerror(code))), list[str]()
    store = do(tmp_path, engine, told)
    assert engine.wrote == [False, False]
    assert len(told) == 2
    assert os.strerror(code) in told[0]
    assert list(store.training.iterdir()) == []  # the half-written file is gone, too
    assert run_status(store).complete


def test_what_is_no_trouble_of_the_disk_is_raised_to_the_pass(tmp_path: Path) -> None:
    told: list[str] = []
    store = do(tmp_path, Keeping(fault=OSError(errno.EACCES, "no")), told)
    assert run_status(store).adapters.failed == 4


def test_a_kill_while_a_state_is_written_leaves_the_one_before(tmp_path: Path) -> None:
    path = interrupt(tmp_path)
    before = path.read_bytes()
    path.with_name(".partial-" + path.name).write_bytes(before[:100])
    with pytest.raises(KeyboardInterrupt):
        do(tmp_path, Keeping(interrupted=True), [])
    assert [place.name for place in path.parent.iterdir()] == [path.name]
    assert len(read_state(path).facts["adapters"]) == 2
