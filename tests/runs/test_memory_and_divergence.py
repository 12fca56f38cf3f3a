"""Memory that does not hold a group, and adapters that diverge: what can be had is had, the rest says why."""

from collections.abc import Sequence
from dataclasses import replace
from math import inf, nan
from pathlib import Path

import pytest

from small_study import sources, study, targets
from traitmap.engine.contract import TrainingJob, TrainingReport
from traitmap.engine.fake import FakeEngine
from traitmap.errors import EngineError
from traitmap.progress import Listener, Progress, silent
from traitmap.runs.execute import execute
from traitmap.runs.ledger import read_ledger
from traitmap.runs.status import Tally, run_status
from traitmap.runs.store import RunStore
from traitmap.runs.units import failure_of, ran_out_of_memory
from traitmap.study.settings import Lora, Study, Training


class OutOfMemoryError(RuntimeError):
    """As torch names its own."""


class Narrow(FakeEngine):
    """An engine whose memory holds ``most`` adapters in one pass, and which remembers its passes."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.passes: list[list[str]] = []

    def train(
        self, jobs: Sequence[TrainingJob], folders: Sequence[Path], listener: Listener = silent
    ) -> list[TrainingReport]:
        self.passes.append([job.name for job in jobs])
        if len(jobs) > self.most:
            raise EngineError("memory does not hold one training row") from OutOfMemoryError("CUDA")
        return super().train(jobs, folders, listener)


class Foreseeing(Narrow):
    """One that knows beforehand."""

    def largest_group(self, lora: Lora, training: Training) -> int:
        return self.most


class Diverging(FakeEngine):
    """An engine that reports success, and a loss of ``loss``, for one source."""

    def __init__(self, source: str, loss: float) -> None:
        super().__init__()
        self.source = source
        self.loss = loss

    def train(
        self, jobs: Sequence[TrainingJob], folders: Sequence[Path], listener: Listener = silent
    ) -> list[TrainingReport]:
        reports = super().train(jobs, folders, listener)
        return [
            replace(report, losses=(*report.losses, self.loss)) if job.name == self.source else report
            for job, report in zip(jobs, reports, strict=True)
        ]


def do(asked: Study, engine: FakeEngine, listener: Listener = silent, **changes: int) -> RunStore:
    return execute(asked, engine, sources(asked), targets(), listener, **changes)


def test_a_group_that_memory_does_not_hold_is_trained_in_halves_and_the_ledger_says_so(
    tmp_path: Path,
) -> None:
    engine, heard = Narrow(3), list[Progress]()
    store = do(study(tmp_path), engine, heard.append)
    assert run_status(store).complete
    assert [len(one) for one in engine.passes] == [8, 4, 2, 2, 4, 2, 2]
    groups = [entry.group for entry in read_ledger(store).adapters]
    assert sorted(groups.count(group) for group in set(groups)) == [2, 2, 2, 2]
    trained = [one for one in heard if one.stage == "train"]
    assert trained[-1].done == trained[-1].total


def test_an_adapter_that_memory_does_not_hold_alone_fails_with_its_reason(tmp_path: Path) -> None:
    status = run_status(do(study(tmp_path, seeds=(0,)), Narrow(0)))
    assert status.adapters == Tally(0, 4, 0)
    assert status.cells == Tally(4, 16, 0)
    assert "memory does not hold one training row" in status.failures[0].reason


def test_no_group_is_larger_than_the_engine_says(tmp_path: Path) -> None:
    engine = Foreseeing(3)
    assert run_status(do(study(tmp_path), engine)).complete
    assert [len(one) for one in engine.passes] == [3, 3, 2]


def test_what_was_put_together_stays_together_until_a_group_size_is_asked_for(tmp_path: Path) -> None:
    asked, stopped, resumed = study(tmp_path), Foreseeing(3), Narrow(100)

    def stop(report: Progress) -> None:
        if report.stage == "train" and len(stopped.passes) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        do(asked, stopped, stop)
    do(asked, resumed)  # elsewhere, where memory holds all
    assert [len(one) for one in resumed.passes] == [3, 2]

    other, wide = study(tmp_path / "other"), Narrow(100)
    stopped = Foreseeing(3)
    with pytest.raises(KeyboardInterrupt):
        do(other, stopped, stop)
    do(other, wide, group_size=8)
    assert [len(one) for one in wide.passes] == [5]


def test_halves_are_what_the_next_run_goes_on_with(tmp_path: Path) -> None:
    asked, narrow, wide = study(tmp_path), Narrow(2), Narrow(100)

    def stop(report: Progress) -> None:
        if len(narrow.passes) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        do(asked, narrow, stop)
    do(asked, wide)
    assert all(len(one) <= 4 for one in wide.passes)


@pytest.mark.parametrize("loss", [nan, inf, -inf])
def test_an_adapter_whose_loss_is_no_number_is_kept_out_and_its_group_goes_on(
    tmp_path: Path, loss: float
) -> None:
    status = run_status(do(study(tmp_path, seeds=(0,)), Diverging("topics", loss)))
    assert status.adapters == Tally(3, 1, 0)
    assert status.cells == Tally(16, 4, 0)
    (failure,) = status.failures
    assert failure.source == "topics"
    assert "diverged" in failure.reason


def test_memory_is_told_from_other_errors_by_all_causes() -> None:
    wrapped = EngineError("too large")
    wrapped.__cause__ = OutOfMemoryError("CUDA")
    assert ran_out_of_memory(wrapped)
    assert ran_out_of_memory(MemoryError())
    assert not ran_out_of_memory(EngineError("out of memory, they say"))
    assert failure_of(wrapped).memory
    assert not failure_of(ValueError("x")).memory
