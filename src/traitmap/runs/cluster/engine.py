"""The engine that is a cluster: it answers with what its workers report, and drives their work.

Here too: the Ray session, of an existing cluster or one on this machine that nobody else can reach.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from traitmap.data.records import AdapterPlace, Caveat, Example, Request, Response
from traitmap.engine.contract import (
    Engine,
    MergeJob,
    PassCheckpoint,
    TrainingJob,
    TrainingReport,
    checkpoint_folder,
)
from traitmap.errors import EngineError, RunError
from traitmap.progress import Listener, silent
from traitmap.runs.cluster.drive import Drive
from traitmap.runs.cluster.worker import Pool, Sent, read_files, write_files
from traitmap.runs.plan import AdapterUnit, CellUnit, MergeUnit, adapter_digest
from traitmap.runs.run_state import Group, RunState
from traitmap.runs.units import UnitFailure
from traitmap.study.settings import Lora, Training

# Ray takes a loopback address for its servers only where clusters are switched off, by this name, when it is
# imported; `_node_ip_address="127.0.0.1"` is replaced by the machine's address without a word.
_NO_CLUSTER = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
_MISSING = "the ray executor needs Ray: pip install 'traitmap[ray]'; or run with --executor local."


def import_ray() -> Any:
    """The ray module, which reports nothing to anybody. RunError where it is not installed."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
    except ImportError:
        raise RunError(_MISSING) from None
    return ray


@contextmanager
def ray_session(address: str | None = None, *, cpus: int | None = None) -> Iterator[Any]:
    """Be connected to Ray. A session that was there before is used and left as it is.

    address: of a cluster, ``host:port``, or ``auto`` for the one that this machine belongs to; None starts
    Ray on this machine alone, bound to the loopback address, without a dashboard, and ends it afterwards.
    cpus: cores that it may use, by default all. RunError where the cluster cannot be reached.
    """
    if address is None:
        os.environ.setdefault(_NO_CLUSTER, "0")
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "namespace": "traitmap"}
    try:
        if address is None:
            ray.init(address="local", num_cpus=cpus, include_dashboard=False, **quiet)
            _only_here(ray)
        else:
            # Ray itself tries for minutes and then ends the process, so look first.
            host, _, port = address.rpartition(":")
            if host and port.isdecimal() and "//" not in host:
                socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
            ray.init(address=address, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        ray.shutdown()
        place = f"Ray cluster {address!r}" if address else "Ray on this machine"
        raise RunError(
            f"{place}: cannot be used ({' '.join(str(error).split())[:300]}). Start one with `ray start "
            "--head`, give --address host:port, or leave --address out."
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _only_here(ray: Any) -> None:
    """RunError, and Ray shut down, where a server of it listens on an address that others can reach."""
    addresses = {node["NodeManagerAddress"] for node in ray.nodes()}
    if addresses - {"127.0.0.1", "::1"}:
        ray.shutdown()
        raise RunError(
            f"Ray would listen on {', '.join(sorted(addresses))}, where others can reach it, since it was "
            f"imported before; set {_NO_CLUSTER}=0 before that, or start Ray yourself and give its address."
        )


class ClusterEngine:
    """Implements ``engine.contract.Engine`` by asking a worker, and ``execute.Workforce`` with all of them.

    This process needs no base of its own, and no GPU.
    """

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        first = pool.wait_for_one()
        self.base_digest: str = first.base
        self.conditions: Mapping[str, Any] = first.conditions
        self._largest: dict[tuple[str, str], int] = {}

    def drive(
        self,
        run: RunState,
        groups: Sequence[Group],
        cells: Sequence[CellUnit],
        listener: Listener,
        merges: Sequence[MergeUnit] = (),
    ) -> None:
        """Do all of these units on the workers, whoever of them comes and goes.

        Results are committed to ``run`` in this process, cells as soon as their adapter is there.
        """
        Drive(self.pool, run, listener).work_off(groups, cells, merges)

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        return list(self._ask("token_counts", list(texts)))

    def request_caveats(self, requests: Sequence[Request]) -> tuple[Caveat, ...]:
        return tuple(self._ask("request_caveats", list(requests)))

    def example_caveats(self, examples: Sequence[Example], training: Training) -> tuple[Caveat, ...]:
        return tuple(self._ask("example_caveats", list(examples), training))

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> str:
        turns, schemas = [dict(message) for message in messages], [dict(tool) for tool in tools]
        return str(self._ask("render_chat", turns, add_generation_prompt, schemas))

    def largest_group(self, lora: Lora, training: Training) -> int:
        """Adapters that a worker's memory holds in one training pass; asked once for the same settings."""
        settings = lora.model_dump_json(), training.model_dump_json()
        if settings not in self._largest:
            self._largest[settings] = int(self._ask("largest_group", lora, training))
        return self._largest[settings]

    def train(
        self,
        jobs: Sequence[TrainingJob],
        folders: Sequence[Path],
        listener: Listener = silent,
        checkpoint: PassCheckpoint | None = None,
    ) -> list[TrainingReport]:
        group = [unit for number, job in enumerate(jobs) for unit in _units_of(number, job)]
        examples = [self.pool.ray.put(job.examples) for job in jobs]
        results = iter(self._ask("train", group, [replace(job, examples=()) for job in jobs], examples))
        reports = []
        for job, folder in zip(jobs, folders, strict=True):
            kept = dict[int, int]()
            for step in job.checkpoints:
                if not isinstance(result := next(results), UnitFailure):
                    trained, files = result
                    write_files(checkpoint_folder(folder, step), files, trained.digest)
                    kept[step] = trained.report["tokens"]
            if isinstance(result := next(results), UnitFailure):
                reports.append(TrainingReport((), 0, 0, 0, 0.0, result.reason, kept))
                continue
            trained, files = result
            write_files(folder, files, trained.digest)
            reports.append(TrainingReport(**trained.report, checkpoints=kept))
        return reports

    def merge(self, job: MergeJob, folder: Path) -> None:
        parents = [Sent(adapter_digest(place), self.pool.ray.put(read_files(place))) for place in job.folders]
        merged, files = self._ask("merge", folder.name, job, parents)
        write_files(folder, files, merged.digest)

    def answer(
        self,
        requests: Sequence[Request],
        adapter: AdapterPlace | None = None,
        listener: Listener = silent,
    ) -> list[Response]:
        if isinstance(adapter, Path):
            sent = Sent(adapter_digest(adapter), self.pool.ray.put(read_files(adapter)))
            return list(self._ask("answer", list(requests), sent))
        return list(self._ask("answer", list(requests), adapter))

    def _ask(self, method: str, *arguments: Any) -> Any:
        """One worker's answer; another one is asked where it ends before it has answered."""
        for _ in range(3):
            member = self.pool.wait_for_one()
            try:
                answer = self.pool.ray.get(getattr(member.handle, method).remote(*arguments))
            except self.pool.ray.exceptions.RayActorError:
                self.pool.drop(member)
                continue
            if isinstance(answer, UnitFailure):
                raise EngineError(answer.reason)
            return answer
        raise RunError("three workers ended one after the other; see the logs of Ray for the reason.")


def _units_of(number: int, job: TrainingJob) -> list[AdapterUnit]:
    """What a job is to give, as the units of a run: its checkpoints, then its end."""
    name = str(number)
    kept = [AdapterUnit(f"{name}@{step}", job.seed, f"{name}-{step}", step, name) for step in job.checkpoints]
    return [*kept, AdapterUnit(name, job.seed, name, job.until)]


@contextmanager
def open_cluster(
    opener: Callable[[], Engine],
    *,
    address: str | None = None,
    workers: int | None = None,
    threads: int | None = None,
    gpus: bool = True,
) -> Iterator[ClusterEngine]:
    """Workers on a Ray cluster, or on this machine where ``address`` is None, until the block ends.

    opener: loads the engine in each worker. workers: how many there shall be; None: one for each GPU, or, if
    there is none, as many as fit with their threads, whoever joins or leaves. threads: of a worker's
    arithmetic; None: its share of the smallest machine. gpus: False leaves GPUs alone.
    Raises RunError where Ray cannot be had and ModelError where no worker can load the base.
    """
    for name, value in (("workers", workers), ("threads", threads)):
        if value is not None and value < 1:
            raise RunError(f"{name} {value}: give a number of at least 1, or leave it out.")
    with ray_session(address) as ray:
        cpus, gpu, share = worker_resources(ray, workers, threads, gpus)
        pool = Pool(ray, opener, cpus=cpus, gpus=gpu, threads=share, wanted=workers)
        try:
            yield ClusterEngine(pool)
        finally:
            pool.close()


def worker_resources(
    ray: Any, workers: int | None, threads: int | None, gpus: bool
) -> tuple[float, float, int]:
    """CPUs and GPUs of one worker, and the threads of its arithmetic: a GPU where there are any, and its
    share of cores.

    The smallest machine decides, so that every worker computes with the same number of threads and gives the
    same digits. Arguments as in ``open_cluster``. RunError where the cluster has neither CPU nor GPU to give.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    with_gpu = [node for node in nodes if gpus and node.get("GPU", 0) >= 1]
    if with_gpu:
        share = min(int(node.get("CPU", 0) // node["GPU"]) for node in with_gpu)
        return min(share, threads or share), 1, threads or max(1, share)
    cores = [int(node.get("CPU", 0)) for node in nodes if node.get("CPU", 0) >= 1]
    if not cores:
        raise RunError("the Ray cluster has no CPU and no GPU to give; start machines with `ray start`.")
    share = min(cores) if workers is None else max(1, min(min(cores), sum(cores) // workers))
    return min(threads or share, min(cores)), 0, threads or share
