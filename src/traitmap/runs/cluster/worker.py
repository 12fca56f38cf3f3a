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
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitmap.data.records import Answer, Request, ServedAdapter
from traitmap.engine.contract import Engine, TrainingJob
from traitmap.errors import ModelError, RunError
from traitmap.runs.cluster.portable import FileModule, install
from traitmap.runs.plan import CONFIG, WEIGHTS, adapter_digest
from traitmap.runs.run_state import CellResult, UnitFailure, answer_and_score, failure_of, train
from traitmap.runs.store import TrainedAdapter

if TYPE_CHECKING:
    from traitmap.data.targets import LoadedTarget
    from traitmap.study.settings import Lora, Training


KEPT_ADAPTERS = 8
KEPT_TARGETS = 4
_FOLDER = "traitmap-worker-"

Files = Mapping[str, bytes]


@dataclass(frozen=True)
class About:
    """What a worker is. node: Ray's name of its machine."""

    base: str
    conditions: Mapping[str, Any]
    version: str
    node: str
    host: str
    pid: int


@dataclass(frozen=True)
class SentJob:
    """A training job whose examples lie in the object store."""

    job: TrainingJob
    examples: Any

    def whole(self) -> TrainingJob:
        return replace(self.job, examples=fetch(self.examples))


@dataclass(frozen=True)
class SentAdapter:
    """A PEFT directory whose files lie in the object store."""

    digest: str
    files: Any


@dataclass(frozen=True)
class SentTarget:
    """A target that lies in the object store. modules: that it needs, and that are not installed."""

    digest: str
    target: Any
    modules: tuple[FileModule, ...] = ()


def fetch(reference: Any) -> Any:
    """What a reference stands for."""
    import ray

    return ray.get(reference)


def read_files(folder: Path) -> dict[str, bytes]:
    """The two files of a PEFT directory."""
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
        self.opener = opener
        self.engine: Engine
        self.folder = _own_folder()
        self.adapters: OrderedDict[str, Path] = OrderedDict()
        self.targets: OrderedDict[str, LoadedTarget] = OrderedDict()

    def open(self) -> About | UnitFailure:
        """Load the base, once."""
        try:
            self.engine = self.opener()
            import ray

            return About(
                base=self.engine.base_digest,
                conditions=dict(self.engine.conditions),
                version=version("traitmap"),
                node=ray.get_runtime_context().get_node_id(),
                host=socket.gethostname(),
                pid=os.getpid(),
            )
        except Exception as error:
            return failure_of(error)

    def train(
        self, keys: Sequence[str], jobs: Sequence[SentJob]
    ) -> list[tuple[TrainedAdapter, Files] | UnitFailure] | UnitFailure:
        """One training pass: each adapter with its files, or why there is none."""
        folders = [self.folder / f"training-{key}" for key in keys]
        try:
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
            found = train(self.engine, keys, [job.whole() for job in jobs], folders)
            return [
                one if isinstance(one, UnitFailure) else (one, read_files(folder))
                for one, folder in zip(found, folders, strict=True)
            ]
        except Exception as error:
            return failure_of(error)
        finally:
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)

    def score(
        self, target: SentTarget, adapter: SentAdapter | ServedAdapter | None
    ) -> CellResult | UnitFailure:
        """One cell."""
        try:
            return answer_and_score(self.engine, self._target(target), self._place(adapter))
        except Exception as error:
            return failure_of(error)

    def answer(
        self, requests: Sequence[Request], adapter: SentAdapter | ServedAdapter | None
    ) -> list[Answer] | UnitFailure:
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

    def render_chat(
        self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool
    ) -> str | UnitFailure:
        try:
            return self.engine.render_chat(messages, add_generation_prompt)
        except Exception as error:
            return failure_of(error)

    def largest_group(self, lora: Lora, training: Training) -> int:
        return int(self.engine.largest_group(lora, training))

    def _target(self, sent: SentTarget) -> LoadedTarget:
        if sent.digest not in self.targets:
            install(sent.modules)
            self.targets[sent.digest] = fetch(sent.target)
            if len(self.targets) > KEPT_TARGETS:
                self.targets.popitem(last=False)
        self.targets.move_to_end(sent.digest)
        return self.targets[sent.digest]

    def _place(self, adapter: SentAdapter | ServedAdapter | None) -> Path | ServedAdapter | None:
        if not isinstance(adapter, SentAdapter):
            return adapter
        if adapter.digest not in self.adapters:
            folder = self.folder / adapter.digest
            write_files(folder, fetch(adapter.files), adapter.digest)
            self.adapters[adapter.digest] = folder
            if len(self.adapters) > KEPT_ADAPTERS:
                shutil.rmtree(self.adapters.popitem(last=False)[1], ignore_errors=True)
        self.adapters.move_to_end(adapter.digest)
        return self.adapters[adapter.digest]


def _own_folder() -> Path:
    """An empty folder of this process; those of processes that were killed are removed."""
    place = Path(tempfile.gettempdir())
    for left in place.glob(_FOLDER + "*"):
        pid = left.name.removeprefix(_FOLDER)
        if pid.isdecimal() and not _alive(int(pid)):
            shutil.rmtree(left, ignore_errors=True)
    folder = place / f"{_FOLDER}{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    return folder


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


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
            about = UnitFailure(f"a worker ended while it was starting: {' '.join(str(error).split())[:300]}")
        if isinstance(about, About) and self.first and about.base != self.first.base:
            about = UnitFailure(
                f"the base on {about.host} is another one (digest {about.base[:12]}, dtype "
                f"{about.conditions.get('dtype')}; the first worker's is {self.first.base[:12]})"
            )
        if isinstance(about, UnitFailure):
            self._trouble(about, handle)
            return None
        self.first = self.first or about
        self.members[name] = Member(name, handle, about)
        return self.members[name]

    def _trouble(self, failure: UnitFailure, handle: Any) -> None:
        self.troubles.append(failure.reason)
        self.ray.kill(handle, no_restart=True)
        if not self.members and len(self.troubles) >= _START_FAILURES:
            raise ModelError(f"no worker can be started: {self.troubles[-1]}")
