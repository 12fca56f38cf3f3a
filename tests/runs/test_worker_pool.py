"""A pool of workers on a small Ray whose workers open, or fail to, before anybody looks."""

from types import SimpleNamespace
from typing import Any

import pytest

from traitmap.engine.fake import FakeEngine
from traitmap.errors import ModelError, RunError
from traitmap.runs.cluster.worker import Pool
from traitmap.runs.units import UnitFailure


class SmallRay:
    """A machine with so many cores. opened: what each worker says of its base, one after the other."""

    exceptions = SimpleNamespace(RayError=RuntimeError)

    def __init__(self, cores: int, opened: list[Any]) -> None:
        self.cores, self.opened = cores, iter(opened)

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "NodeID": "one", "Resources": {"CPU": self.cores}}]

    def remote(self, _: type) -> Any:
        # every worker is its own reference
        def start(_: Any) -> Any:
            worker = SimpleNamespace(said=next(self.opened))
            worker.open = SimpleNamespace(remote=lambda: worker.said)
            return worker

        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=start))

    def wait(self, references: list[Any], **_: Any) -> tuple[list[Any], list[Any]]:
        return references, []

    def get(self, reference: Any) -> Any:
        return reference.value

    def kill(self, handle: Any, no_restart: bool) -> None:
        assert no_restart


def said(value: Any) -> Any:
    class Said:
        pass

    reference = Said()
    reference.value = value  # type: ignore[attr-defined]
    return reference


BROKEN = UnitFailure("there is no folder nowhere.")


def pool(cores: int, *opened: Any) -> Pool:
    ray = SmallRay(cores, [said(value) for value in opened])
    return Pool(ray, FakeEngine, cpus=1, gpus=0, threads=1, wanted=None)


@pytest.mark.parametrize("cores", [1, 2, 3])
def test_workers_that_fail_all_at_once_are_told_by_their_reason(cores: int) -> None:
    # two cores: both fail between two looks, which is fewer than it takes to give up
    with pytest.raises(ModelError, match="there is no folder nowhere"):
        pool(cores, *[BROKEN] * 6).wait_for_one()


def test_a_worker_that_comes_up_after_others_failed_is_taken() -> None:
    up = {"base": "b" * 40, "conditions": {}, "node": "one", "host": "here"}
    assert pool(2, BROKEN, BROKEN, up, up).wait_for_one().name == 3


def test_no_room_is_told_where_no_machine_is_large_enough() -> None:
    with pytest.raises(RunError, match="no room for a worker"):
        pool(0).wait_for_one()
