"""The workers of a run: each a base that stays in memory, with a folder for the adapters that it is sent.

They are started where there is room, used once they are up, and replaced when they are gone.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from traitmap.data.records import AdapterPlace, Caveat, Example, Outcome, Request, Response
from traitmap.engine.contract import Engine, MergeJob, TrainingJob
from traitmap.errors import ModelError, RunError
from traitmap.runs.cells import CellResult
from traitmap.runs.cluster.portable import FileModule, install
from traitmap.runs.plan import CONFIG, WEIGHTS, AdapterUnit, adapter_digest
from traitmap.runs.store import TrainedAdapter
from traitmap.runs.units import UnitFailure, answer_and_score, failure_of, merge, train

if TYPE_CHECKING:
    from traitmap.data.targets import LoadedTarget
    from traitmap.study.settings import Lora, Training


KEPT_ADAPTERS = 8
KEPT_TARGETS = 4
_FOLDER = "traitmap-worker-"

Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Sent:
    """A target, or the files of an adapter, in the object store.

    digest: by which a worker knows whether it has it already. content: the reference. modules: that a target
    needs and that are not installed.
    """

    digest: str
    content: Any
    modules: tuple[FileModule, ...] = ()


def fetch(reference: Any) -> Any:
    """What a reference stands for.

    Lists of references are sent as they are, and asked for one by one: Ray would resolve them before a
    worker can say that it has them already.
    """
    import ray

    return ray.get(reference)


def read_files(folder: Path) -> dict[str, bytes]:
    """The two files of a PEFT directory by name, weights and configuration. OSError where one is absent."""
    return {name: (folder / name).read_bytes() for name in (WEIGHTS, CONFIG)}


def write_files(folder: Path, files: Files, digest: str) -> None:
    """Lay out a PEFT directory, checked. ModelError where it is not what was sent."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    if adapter_digest(folder) != digest:
        raise ModelError(f"{folder}: an adapter has changed on its way; its digest was {digest[:12]}.")


class Worker:
    """The actor. Errors come back as records, since what raised them may not be known elsewhere."""

    def __init__(self, opener: Callable[[], Engine]) -> None:
        """An empty folder of this process; those of processes that were killed are removed."""
        self.opener = opener
        self.engine: Engine
        self.adapters: OrderedDict[str, Path] = OrderedDict()
        self.targets: OrderedDict[str, LoadedTarget] = OrderedDict()
        place = Path(tempfile.gettempdir())
        for leftover in place.glob(_FOLDER + "*"):
            pid = leftover.name.removeprefix(_FOLDER)
            if pid.isdecimal() and not psutil.pid_exists(int(pid)):
                shutil.rmtree(leftover, ignore_errors=True)
        self.folder = place / f"{_FOLDER}{os.getpid()}"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(mode=0o700)

    def open(self) -> dict[str, Any] | UnitFailure:
        """Load the base, once; returns what ``Member`` says of a worker, or why it cannot work."""
        try:
            self.engine = self.opener()
            import ray

            return {
                "base": self.engine.base_digest,
                "conditions": dict(self.engine.conditions),
                "node": ray.get_runtime_context().get_node_id(),
                "host": socket.gethostname(),
            }
        except Exception as error:
            return failure_of(error)

    def train(
        self, group: Sequence[AdapterUnit], jobs: Sequence[TrainingJob], examples: Sequence[Any]
    ) -> list[tuple[TrainedAdapter, Files] | UnitFailure] | UnitFailure:
        """One training pass: each adapter with its files, or why there is none, in the order of the group.

        examples: a reference for each job, which comes without examples of its own.
        """
        folders = [self.folder / f"training-{unit.key}" for unit in group]
        try:
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
            whole = [
                replace(job, examples=fetch(reference)) for job, reference in zip(jobs, examples, strict=True)
            ]
            results = train(self.engine, group, whole, folders)
            return [
                result if isinstance(result, UnitFailure) else (result, read_files(folder))
                for result, folder in zip(results, folders, strict=True)
            ]
        except Exception as error:
            return failure_of(error)
        finally:
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)

    def merge(
        self, key: str, job: MergeJob, parents: Sequence[Sent | AdapterPlace]
    ) -> tuple[TrainedAdapter, Files] | UnitFailure:
        """One merge with its files, or why there is none. parents: in the places of the job's folders."""
        folder = self.folder / f"merge-{key}"
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            places = [self._place(parent, among=len(parents)) for parent in parents]
            folders = tuple(place for place in places if isinstance(place, Path))
            merged = merge(self.engine, key, replace(job, folders=folders), folder)
            return merged, read_files(folder)
        except Exception as error:
            return failure_of(error)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def score(
        self,
        target: Sent,
        adapter: Sent | AdapterPlace | None,
        before: tuple[Sequence[Outcome], str] | None = None,
    ) -> CellResult | UnitFailure:
        """One cell, or why there is none. A target or an adapter that is here is not fetched again.

        before: as for ``answer_and_score``.
        """
        try:
            if target.digest not in self.targets:
                install(target.modules)
                self.targets[target.digest] = fetch(target.content)
                if len(self.targets) > KEPT_TARGETS:
                    self.targets.popitem(last=False)
            self.targets.move_to_end(target.digest)
            held = self.targets[target.digest]
            return answer_and_score(self.engine, held, self._place(adapter), before=before)
        except Exception as error:
            return failure_of(error)

    def answer(
        self, requests: Sequence[Request], adapter: Sent | AdapterPlace | None
    ) -> list[Response] | UnitFailure:
        """Answers to requests that belong to no cell."""
        try:
            return self.engine.answer(requests, self._place(adapter))
        except Exception as error:
            return failure_of(error)

    def close(self) -> None:
        """Remove what it has been sent."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        return list(self.engine.token_counts(texts))

    def request_caveats(self, requests: Sequence[Request]) -> tuple[Caveat, ...] | UnitFailure:
        try:
            return self.engine.request_caveats(requests)
        except Exception as error:
            return failure_of(error)

    def example_caveats(
        self, examples: Sequence[Example], training: Training
    ) -> tuple[Caveat, ...] | UnitFailure:
        try:
            return self.engine.example_caveats(examples, training)
        except Exception as error:
            return failure_of(error)

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> str | UnitFailure:
        try:
            return self.engine.render_chat(messages, add_generation_prompt, tools)
        except Exception as error:
            return failure_of(error)

    def largest_group(self, lora: Lora, training: Training) -> int:
        return int(self.engine.largest_group(lora, training))

    def _place(self, adapter: Sent | AdapterPlace | None, among: int = 1) -> AdapterPlace | None:
        """Where an adapter lies here. among: how many are needed at a time."""
        if not isinstance(adapter, Sent):
            return adapter
        if adapter.digest not in self.adapters:
            folder = self.folder / adapter.digest
            write_files(folder, fetch(adapter.content), adapter.digest)
            self.adapters[adapter.digest] = folder
            if len(self.adapters) > max(KEPT_ADAPTERS, among):
                shutil.rmtree(self.adapters.popitem(last=False)[1], ignore_errors=True)
        self.adapters.move_to_end(adapter.digest)
        return self.adapters[adapter.digest]


_START_FAILURES = 3  # workers that cannot open the base, one after the other, before anybody can


@dataclass(frozen=True)
class Member:
    """A worker that is up. base: digest of its base. node: Ray's name of its machine, host: that of the
    machine itself."""

    name: int
    handle: Any
    base: str
    conditions: Mapping[str, Any]
    node: str
    host: str


class Pool:
    """Workers that are up or starting.

    cpus, gpus: what one takes of a machine. threads: of the engine's arithmetic, always the same number.
    wanted: how many workers there shall be; None: as many as the cluster has room for at any moment.
    """

    def __init__(
        self,
        ray: Any,
        opener: Callable[[], Engine],
        *,
        cpus: float,
        gpus: float,
        threads: int,
        wanted: int | None,
    ) -> None:
        self.ray, self.opener = ray, opener
        self.cpus, self.gpus, self.threads, self.wanted = cpus, gpus, threads, wanted
        self.members: dict[int, Member] = {}
        self.starting: dict[Any, tuple[int, Any]] = {}
        self.troubles: list[str] = []
        self.first: Member | None = None
        self.count = 0

    def refresh(self) -> list[Member]:
        """Start workers where there is room; return those that are up since the last call.

        Where the size of the cluster decides, workers that are starting are given up when a machine has gone.
        ModelError where ``_START_FAILURES`` workers could not load the base before any could.
        """
        size = self.room() if self.wanted is None else self.wanted
        while len(self.members) + len(self.starting) < size:
            self._start()
        while self.wanted is None and self.starting and len(self.members) + len(self.starting) > size:
            _, (_, handle) = self.starting.popitem()
            self.ray.kill(handle, no_restart=True)
        if not self.starting:
            return []
        ready, _ = self.ray.wait(list(self.starting), num_returns=len(self.starting), timeout=0)
        return [member for reference in ready if (member := self._welcome(reference))]

    def wait_for_one(self) -> Member:
        """The first worker that is up. ModelError or RunError where none can be had."""
        while True:
            self.refresh()
            if self.members:
                return next(iter(self.members.values()))
            if not self.starting and not self.room():
                raise RunError(
                    "the Ray cluster has no room for a worker: one needs "
                    f"{self.gpus:g} GPUs and {self.cpus:g} CPUs of one machine; ask for fewer "
                    "threads, or wait for machines to join."
                )
            if self.starting:
                self.ray.wait(list(self.starting), num_returns=1, timeout=1.0)

    def room(self) -> int:
        """Workers that the machines of the cluster hold; what a worker does not need sets no limit."""
        total = 0
        for node in self.alive():
            cpus, gpus = (node["Resources"].get(name, 0) for name in ("CPU", "GPU"))
            total += min(
                int(cpus // self.cpus) if self.cpus else 10**6, int(gpus // self.gpus) if self.gpus else 10**6
            )
        return total

    def alive(self) -> list[dict[str, Any]]:
        """Machines that are up, as Ray describes them."""
        return [node for node in self.ray.nodes() if node["Alive"]]

    def drop(self, member: Member) -> bool:
        """A worker is gone. True where its machine is still there, so that it ended by itself."""
        self.members.pop(member.name, None)
        self.ray.kill(member.handle, no_restart=True)
        return any(node["NodeID"] == member.node for node in self.alive())

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

    def _start(self) -> None:
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        handle = (
            self.ray.remote(Worker)
            .options(
                num_cpus=self.cpus,
                num_gpus=self.gpus,
                max_restarts=0,
                scheduling_strategy="SPREAD",
                runtime_env={"env_vars": dict.fromkeys(names, str(self.threads))},
            )
            .remote(self.opener)
        )
        self.count += 1
        self.starting[handle.open.remote()] = self.count, handle

    def _welcome(self, reference: Any) -> Member | None:
        """A worker that says that it is up: one of us, if its base is ours."""
        name, handle = self.starting.pop(reference)
        try:
            opened = self.ray.get(reference)
        except self.ray.exceptions.RayError as error:
            opened = UnitFailure(
                f"a worker ended while it was starting: {' '.join(str(error).split())[:300]}"
            )
        if not isinstance(opened, UnitFailure):
            member = Member(name, handle, **opened)
            if self.first is None or member.base == self.first.base:
                self.first = self.first or member
                self.members[name] = member
                return member
            opened = UnitFailure(
                f"the base on {member.host} is another one (digest {member.base[:12]}, dtype "
                f"{member.conditions.get('dtype')}; the first worker's is {self.first.base[:12]})"
            )
        self.troubles.append(opened.reason)
        self.ray.kill(handle, no_restart=True)
        if not self.members and len(self.troubles) >= _START_FAILURES:
            raise ModelError(f"no worker can be started: {self.troubles[-1]}")
        return None
