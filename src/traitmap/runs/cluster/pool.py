"""The workers of a run: started where there is room, welcomed when they are up, replaced when gone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from traitmap.engine.contract import Engine
from traitmap.errors import ModelError, RunError
from traitmap.runs.cluster.worker import About, Worker
from traitmap.runs.units import Failure

_START_FAILURES = 3  # workers that cannot open the base, one after the other, before anybody can


@dataclass(frozen=True)
class Slots:
    """What one worker takes of a machine. threads: of the engine's arithmetic, always the same number."""

    cpus: float
    gpus: float
    threads: int


@dataclass(frozen=True)
class Member:
    """A worker that is up."""

    name: int
    handle: Any
    about: About


@dataclass
class Pool:
    """Workers that are up or starting.

    wanted: how many there shall be; None: as many as the cluster has room for at any moment.
    """

    ray: Any
    opener: Callable[[], Engine]
    slots: Slots
    wanted: int | None
    members: dict[int, Member] = field(default_factory=dict)
    starting: dict[Any, tuple[int, Any]] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)
    first: About | None = None
    _count: int = 0

    def refresh(self) -> list[Member]:
        """Start workers where there is room; return those that are up since the last call."""
        wanted = self.room() if self.wanted is None else self.wanted
        while len(self.members) + len(self.starting) < wanted:
            self._start()
        while self.wanted is None and self.starting and len(self.members) + len(self.starting) > wanted:
            _, (_, handle) = self.starting.popitem()
            self.ray.kill(handle, no_restart=True)
        if not self.starting:
            return []
        ready, _ = self.ray.wait(list(self.starting), num_returns=len(self.starting), timeout=0)
        return [member for one in ready if (member := self._welcome(one))]

    def wait_for_one(self) -> Member:
        """The first worker that is up. ModelError or RunError where none can be had."""
        while True:
            self.refresh()
            if self.members:
                return next(iter(self.members.values()))
            if not self.starting:
                raise RunError(
                    "the Ray cluster has no room for a worker: one needs "
                    f"{self.slots.gpus:g} GPUs and {self.slots.cpus:g} CPUs of one machine; ask for fewer "
                    "threads, or wait for machines to join."
                )
            self.ray.wait(list(self.starting), num_returns=1, timeout=1.0)

    def room(self) -> int:
        """Workers that the machines of the cluster hold."""
        return sum(self._room(node["Resources"]) for node in self.alive())

    def alive(self) -> list[dict[str, Any]]:
        """Machines that are up."""
        return [node for node in self.ray.nodes() if node["Alive"]]

    def drop(self, member: Member) -> bool:
        """A worker is gone. True where its machine is still there, so that it ended by itself."""
        self.members.pop(member.name, None)
        self.ray.kill(member.handle, no_restart=True)
        return any(node["NodeID"] == member.about.node for node in self.alive())

    def close(self) -> None:
        """End all workers. Those at work are not waited for; the next ones clean up after them."""
        closing = [member.handle.close.remote() for member in self.members.values()]
        if closing:
            self.ray.wait(closing, num_returns=len(closing), timeout=2.0)
        for handle in [member.handle for member in self.members.values()]:
            self.ray.kill(handle, no_restart=True)
        for _, handle in self.starting.values():
            self.ray.kill(handle, no_restart=True)
        self.members.clear()
        self.starting.clear()

    def _room(self, resources: dict[str, float]) -> int:
        cpus = int(resources.get("CPU", 0) // self.slots.cpus) if self.slots.cpus else 10**6
        gpus = int(resources.get("GPU", 0) // self.slots.gpus) if self.slots.gpus else 10**6
        return min(cpus, gpus)

    def _start(self) -> None:
        threads = str(self.slots.threads)
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        handle = (
            self.ray.remote(Worker)
            .options(
                num_cpus=self.slots.cpus,
                num_gpus=self.slots.gpus,
                max_restarts=0,
                scheduling_strategy="SPREAD",
                runtime_env={"env_vars": dict.fromkeys(names, threads)},
            )
            .remote(self.opener)
        )
        self._count += 1
        self.starting[handle.open.remote()] = self._count, handle

    def _welcome(self, reference: Any) -> Member | None:
        """A worker that says that it is up: one of us, if its base is ours."""
        name, handle = self.starting.pop(reference)
        try:
            about = self.ray.get(reference)
        except self.ray.exceptions.RayError as error:
            about = Failure(f"a worker ended while it was starting: {' '.join(str(error).split())[:300]}")
        if isinstance(about, About) and self.first and about.base != self.first.base:
            about = Failure(
                f"the base on {about.host} is another one (digest {about.base[:12]}, dtype "
                f"{about.conditions.get('dtype')}; the first worker's is {self.first.base[:12]})"
            )
        if isinstance(about, Failure):
            self._trouble(about, handle)
            return None
        self.first = self.first or about
        self.members[name] = Member(name, handle, about)
        return self.members[name]

    def _trouble(self, failure: Failure, handle: Any) -> None:
        self.troubles.append(failure.reason)
        self.ray.kill(handle, no_restart=True)
        if not self.members and len(self.troubles) >= _START_FAILURES:
            raise ModelError(f"no worker can be started: {self.troubles[-1]}")
