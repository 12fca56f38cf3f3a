"""Threads of a run: as many as others leave cores idle; a number that the user has set stands."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import traitmap as tm
from traitmap.engine.open import THREADS_SET_BY, fit_threads, idle_cores
from traitmap.study.settings import Endpoint, Model

BASE = Model(path="builtin:mini", device="cpu")


@pytest.fixture(autouse=True)
def four_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that would take four threads, without settings in its environment."""
    for name in THREADS_SET_BY:
        monkeypatch.delenv(name, raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("idle", "threads"), [(4.0, 4), (3.7, 4), (2.2, 2), (1.0, 1), (0.1, 1), (9.0, 4)])
def test_threads_are_the_idle_cores(idle: float, threads: int) -> None:
    line = fit_threads(BASE, idle=lambda: idle)
    assert torch.get_num_threads() == threads
    assert (line == "") == (threads == 4)
    if threads < 4:
        assert line.startswith(
            f"{threads} thread" + ("s" if threads > 1 else "") + " instead of 4: the machine"
        )
        assert "OMP_NUM_THREADS=4" in line


def test_they_come_back_when_the_machine_is_free_again() -> None:
    fit_threads(BASE, idle=lambda: 0.0)
    assert fit_threads(BASE, idle=lambda: 4.0) == ""
    assert torch.get_num_threads() == 4


def test_what_the_user_has_set_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(2)
    assert fit_threads(BASE, idle=lambda: 4.0) == ""
    assert torch.get_num_threads() == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert fit_threads(BASE, idle=lambda: 0.0) == ""
    assert torch.get_num_threads() == 2


def test_the_threads_of_an_earlier_run_are_a_bound() -> None:
    assert fit_threads(BASE, most=3, idle=lambda: 4.0) == ""
    assert torch.get_num_threads() == 3
    assert fit_threads(BASE, most=3, idle=lambda: 1.0).startswith("1 thread instead of 3")


def test_a_server_computes_elsewhere() -> None:
    served = Model(path="any/model", endpoint=Endpoint(url="http://localhost:1", tokenizer="any/model"))
    assert fit_threads(served, idle=lambda: 0.0) == ""
    assert torch.get_num_threads() == 4


def test_idle_cores_are_some_of_all() -> None:
    assert 0 <= idle_cores(0.05) <= torch.multiprocessing.cpu_count()


def test_a_run_says_so_and_keeps_its_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for the load alone: the run asks as ever, and its record has the number."""
    monkeypatch.setattr("traitmap.engine.open.fit_threads.__defaults__", (None, lambda: 0.2))
    told: list[str] = []
    study = {
        "name": "busy",
        "model": {"path": "builtin:mini", "device": "cpu"},
        "sources": [{"name": "arithmetic", "task": "mini_arithmetic", "limit": 8}],
        "targets": ["mini_arithmetic"],
        "limit": 20,
        "training": {"max_steps": 1},
        "output": str(tmp_path),
    }
    done = tm.run(tm.Study.model_validate(study), announce=told.append)
    assert [line for line in told if line.startswith("1 thread instead of 4")]
    assert done.matrix().conditions["engine"]["threads"] == 1
