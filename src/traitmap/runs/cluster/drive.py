"""The schedule of a cluster and its driver: which unit a free worker takes, and what becomes of the result.

The scheduler knows no clock and no network: whoever uses it says what time it is and what has happened, so
that the same rules drive a cluster and a simulation. Largest first is Graham's rule for makespan (SIAM
Journal on Applied Mathematics, 1969). A unit is tried three times at most. A second copy of a task that
lags, of which the first result counts, is that of Dean and Ghemawat (OSDI 2004), begun only where a task is
late by the pace of its like (Zaharia et al., OSDI 2008). The driver hands units to free workers, and
results to the one writer of the run.
"""

from __future__ import annotations

import heapq
import itertools
import time
from bisect import insort
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from math import inf
from pathlib import Path
from typing import Any

from traitmap.data.records import AdapterPlace
from traitmap.progress import Listener, Progress
from traitmap.runs.cells import CellResult
from traitmap.runs.cluster.portable import file_modules, portable
from traitmap.runs.cluster.worker import Files, Member, Pool, Sent, read_files, write_files
from traitmap.runs.cost import ASSUMED, request_tokens, rough_token_counts
from traitmap.runs.plan import CellUnit, MergeUnit, trainings
from traitmap.runs.run_state import Group, RunState
from traitmap.runs.store import TrainedAdapter
from traitmap.runs.units import UnitFailure

TRIES = 3  # a unit that has failed so often is given up
PATIENCE = 1.5  # a unit is late when it takes this many times what its like took
ENOUGH = 3  # finished units that make a pace


@dataclass(frozen=True)
class Task:
    """One unit to be scheduled.

    name: anything that tells it from others. size: what it is expected to take, in any unit that is the same
    for all tasks of its stage. stage: lower ones go first. like: tasks that are alike in this keep one pace.
    after: name of a task that must be done before; the scheduler leaves the waiting to whoever adds tasks.
    """

    name: Hashable
    size: float
    stage: int = 0
    like: Hashable = None
    after: Hashable = None


class Scheduler:
    """Tasks waiting and running, and the workers that run them. ``now`` is in seconds of any clock."""

    def __init__(self, *, tries: int = TRIES, copies: bool = True) -> None:
        self.tries = tries
        self.copies = copies
        self.waiting: list[tuple[int, float, int, Hashable]] = []
        self.tasks: dict[Hashable, Task] = {}
        self.attempts: dict[Hashable, dict[Hashable, float]] = {}  # task -> worker -> when it began
        self.failed_on: dict[Hashable, list[Hashable]] = {}  # task -> workers, one for each failure
        self.running: dict[Hashable, None] = {}  # names, in the order in which they were taken
        self.paces: dict[Hashable, list[float]] = {}  # seconds per size, rising
        self.workers: set[Hashable] = set()
        self._order = itertools.count()

    @property
    def open(self) -> bool:
        """Whether anything is waiting or running."""
        return bool(self.tasks)

    def add(self, task: Task) -> None:
        """A task that can be done from now on."""
        self.tasks[task.name], self.attempts[task.name], self.failed_on[task.name] = task, {}, []
        self._wait(task)

    def join(self, worker: Hashable) -> None:
        """A worker that can be given tasks."""
        self.workers.add(worker)

    def take(self, worker: Hashable, now: float) -> Task | None:
        """What a free worker does next; None where it has to wait.

        The first in the queue, else a second copy of the running task that is late by most, where it runs
        but once and has not failed on this worker.
        """
        task = self._next_waiting(worker)
        if task is None and self.copies:
            late = [
                (now - self._late_at(name), number, name)
                for number, name in enumerate(self.running)
                if len(self.attempts[name]) == 1
                and worker not in self.attempts[name]
                and worker not in self.failed_on[name]
            ]
            overdue, _, name = max(late, key=lambda entry: entry[:2], default=(-inf, 0, None))
            task = self.tasks[name] if overdue >= 0 else None
        if task is not None:
            self.attempts[task.name][worker] = now
            self.running[task.name] = None
        return task

    def nothing_to_take(self, now: float) -> bool:
        """Whether no free worker, whoever it is, could be given anything now."""
        late = (len(self.attempts[name]) == 1 and self._late_at(name) <= now for name in self.running)
        return not self.waiting and not (self.copies and any(late))

    def finish(self, name: Hashable, worker: Hashable, now: float) -> bool:
        """A worker has done a task. False where another one was faster, and this result does not count.

        The pace of its like is known better then: seconds it took for each unit of its size.
        """
        if worker not in self.attempts.get(name, ()):
            return False
        task = self.tasks[name]
        if task.size > 0:
            seconds = now - self.attempts[name][worker]
            insort(self.paces.setdefault((task.stage, task.like), []), seconds / task.size)
        self.remove(name)
        return True

    def fail(self, name: Hashable, worker: Hashable, *, final: bool = False) -> bool:
        """A worker has failed at a task. True where that was the last time and the task is given up.

        final: another try would fail as well. A task that another worker is at is not given up for its
        number of failures.
        """
        attempts = self.attempts.get(name, {})
        if worker not in attempts:
            return False
        del attempts[worker]
        self.failed_on[name].append(worker)
        if final or (len(self.failed_on[name]) >= self.tries and not attempts):
            self.remove(name)
            return True
        if not attempts:
            self._wait(self.tasks[name])
        return False

    def lose(self, worker: Hashable) -> None:
        """A worker is gone; what it had in hand waits again, and that is nobody's failure."""
        self.workers.discard(worker)
        for name in list(self.running):
            if self.attempts[name].pop(worker, None) is not None and not self.attempts[name]:
                self._wait(self.tasks[name])

    def remove(self, name: Hashable) -> None:
        """Forget a task, since it is done in another way."""
        for book in (self.tasks, self.attempts, self.failed_on, self.running):
            book.pop(name, None)

    def failures(self, name: Hashable) -> int:
        """How often a task has failed so far."""
        return len(self.failed_on.get(name, ()))

    def next_late(self, now: float) -> float:
        """When the next running task will be late, if nothing happens until then; infinite if none will.

        A task is late after ``PATIENCE`` times what its like took (the median, once ``ENOUGH`` are finished).
        """
        if not self.copies:
            return inf
        moments = (self._late_at(name) for name in self.running if len(self.attempts[name]) == 1)
        return min((moment for moment in moments if moment > now), default=inf)

    def _wait(self, task: Task) -> None:
        self.running.pop(task.name, None)
        heapq.heappush(self.waiting, (task.stage, -task.size, next(self._order), task.name))

    def _next_waiting(self, worker: Hashable) -> Task | None:
        """The first in the queue; what failed on this worker is left to others, where there are others."""
        passed, task = [], None
        while self.waiting and task is None:
            entry = heapq.heappop(self.waiting)
            name = entry[-1]
            if self.attempts.get(name, True):  # done or taken since
                continue
            if worker in self.failed_on[name] and self.workers.difference(self.failed_on[name]):
                passed.append(entry)
            else:
                task = self.tasks[name]
        for entry in passed:
            heapq.heappush(self.waiting, entry)
        return task

    def _late_at(self, name: Hashable) -> float:
        task = self.tasks[name]
        paces = self.paces.get((task.stage, task.like), ())
        if len(paces) < ENOUGH:
            return inf
        pace = paces[len(paces) // 2]
        return min(self.attempts[name].values()) + PATIENCE * pace * task.size


LEDGER_EVERY = 5.0  # seconds; what is finished counts before that, by its files
LOOK_EVERY = 1.0  # seconds between looks for workers that join
MERGE_SECONDS = 1.0  # that a merge is expected to take
KEPT_ADAPTERS = 64  # whose files stay in the object store though no cell needs them at the moment

Place = tuple[str, int | None]


class Drive:
    """One pass over some groups and cells. Every result goes through ``run`` in this process."""

    def __init__(self, pool: Pool, run: RunState, listener: Listener) -> None:
        self.pool, self.run, self.listener = pool, run, listener
        self.scheduler = Scheduler()
        self.in_flight: dict[Any, tuple[Member, Any]] = {}
        self.idle: dict[int, Member] = {}
        self.rows: dict[Place, list[CellUnit]] = {}
        self.examples: dict[str, Any] = {}
        self.targets: dict[str, Sent] = {}
        self.adapters: OrderedDict[str, Sent] = OrderedDict()
        self.merges: list[MergeUnit] = []  # that wait for a parent
        self.coming: set[Place] = set()  # adapters that are still to be made
        self.work: dict[str, list[float]] = {"train": [0, 0], "evaluate": [0, 0]}
        self.written = time.monotonic()

    def work_off(
        self, groups: Sequence[Group], cells: Sequence[CellUnit], merges: Sequence[MergeUnit] = ()
    ) -> None:
        """Train the groups, merge as soon as all parents are there, evaluate each cell once its adapter is.

        Returns when nothing waits or runs; what failed is in the run's ledger with its reason.
        """
        for group in groups:
            self._add_group(group)
            self.work["train"][1] += self.run.rough_tokens(group)
        for unit in cells:
            self.rows.setdefault((unit.source, unit.seed), []).append(unit)
            if self.run.cells[unit].status != "done":
                self.work["evaluate"][1] += len(self.run.targets[unit.target].requests)
        self.merges = list(merges)
        self.coming = {(unit.source, unit.seed) for unit in chain.from_iterable(groups)}
        self.coming |= {(unit.source, unit.seed) for unit in merges}
        for place in self.rows:
            if place not in self.coming:
                self._open_row(place)
        self._open_merges()
        self._welcome([*self.pool.members.values()])
        while self.scheduler.open:
            self._welcome(self.pool.refresh())
            self._hand_out()
            self._collect()
            if time.monotonic() - self.written > LEDGER_EVERY:
                self.run.write()
                self.written = time.monotonic()

    def _add_group(self, group: Group) -> None:
        size = self.run.rough_tokens(group) / ASSUMED.training
        self.scheduler.add(Task(group, size, 0, "train"))

    def _open_merges(self) -> None:
        """Merges that wait for no parent any more: they can be done, or a parent is known not to come."""
        for unit in list(self.merges):
            if self.coming.isdisjoint(unit.parents):
                self.merges.remove(unit)
                job = self.run.merge_job(unit)
                if job is None:
                    self._after_merge(unit)
                else:
                    self.scheduler.add(Task(unit, MERGE_SECONDS, 0, "merge"))

    def _after_merge(self, unit: MergeUnit) -> None:
        self.run.write()
        self.coming.discard((unit.source, unit.seed))
        self._open_row((unit.source, unit.seed))

    def _open_row(self, place: Place) -> None:
        """What can be evaluated now that the row's adapter is there, or is known not to come."""
        for unit in self.rows.get(place, ()):
            if self.run.cells[unit].status == "done":
                continue
            self.run.find_cell(unit)
            done = self.run.cells[unit].status == "done" or self.run.cells[unit].key is None
            if done or self.run.settle_unasked(unit):
                self._progress("evaluate", len(self.run.targets[unit.target].requests))
            else:
                # seconds of the cell on the machine of which costs are assumed; larger ones go first
                requests = self.run.targets[unit.target].requests
                read, written = request_tokens(requests, rough_token_counts, ASSUMED)
                size = read / ASSUMED.scoring + written / ASSUMED.generating
                self.scheduler.add(Task(unit, size, 1, unit.target))

    def _welcome(self, members: Sequence[Member]) -> None:
        for member in members:
            self.scheduler.join(member.name)
            if not any(member is busy for busy, _ in self.in_flight.values()):
                self.idle[member.name] = member

    def _hand_out(self) -> None:
        for member in list(self.idle.values()):
            while (task := self.scheduler.take(member.name, time.monotonic())) is not None:
                name: Any = task.name
                if isinstance(name, CellUnit) and self.run.settle_unasked(name):
                    self.scheduler.remove(name)
                    self._progress("evaluate", len(self.run.targets[name.target].requests))
                    continue
                self.in_flight[self._sent(member, name)] = member, name
                del self.idle[member.name]
                break

    def _sent(self, member: Member, name: Any) -> Any:
        """A unit handed to a worker: the reference of its result."""
        if isinstance(name, CellUnit):
            return self._send_cell(member, name)
        send = self._send_merge if isinstance(name, MergeUnit) else self._send_group
        return send(member, name)

    def _send_group(self, member: Member, group: Group) -> Any:
        jobs, sources = self.run.jobs(group), [units[0].trained_with[0] for units in trainings(group)]
        for source, job in zip(sources, jobs, strict=True):
            if source not in self.examples:
                self.examples[source] = self.pool.ray.put(job.examples)
        examples = [self.examples[source] for source in sources]
        return member.handle.train.remote(list(group), [replace(job, examples=()) for job in jobs], examples)

    def _send_merge(self, member: Member, unit: MergeUnit) -> Any:
        job = self.run.merge_job(unit)
        assert job is not None
        parents = [
            self._sent_adapter(place, self.run.adapters[parent].digest)
            for place, parent in zip(job.folders, unit.parents, strict=True)
        ]
        return member.handle.merge.remote(unit.key, replace(job, folders=()), parents)

    def _send_cell(self, member: Member, unit: CellUnit) -> Any:
        target = self.run.targets[unit.target]
        if target.digest not in self.targets:
            content = self.pool.ray.put(portable(target))
            self.targets[target.digest] = Sent(target.digest, content, file_modules())
        adapter: AdapterPlace | Sent | None = self.run.adapter_of(unit)
        if isinstance(adapter, Path):
            adapter = self._sent_adapter(adapter, self.run.adapters[unit.source, unit.seed].digest)
        before = self.run.outcomes_before(unit)
        return member.handle.score.remote(self.targets[target.digest], adapter, before)

    def _sent_adapter(self, folder: Path, digest: str | None) -> Sent:
        assert digest is not None
        if digest not in self.adapters:
            self.adapters[digest] = Sent(digest, self.pool.ray.put(read_files(folder)))
            if len(self.adapters) > KEPT_ADAPTERS:
                self.adapters.popitem(last=False)
        self.adapters.move_to_end(digest)
        return self.adapters[digest]

    def _collect(self) -> None:
        """Wait for results, for a moment, and take in all that are there."""
        ray, now = self.pool.ray, time.monotonic()
        patience = max(
            0.01, min(LOOK_EVERY, self.scheduler.next_late(now) - now if self.idle else LOOK_EVERY)
        )
        if not self.in_flight:
            if self.scheduler.open and not self.idle:
                self._progress("evaluate" if not self.work["train"][1] else "train", 0)
                time.sleep(min(patience, 0.2))
            return
        ray.wait(list(self.in_flight), num_returns=1, timeout=patience)
        ready, _ = ray.wait(list(self.in_flight), num_returns=len(self.in_flight), timeout=0)
        cells: list[tuple[CellUnit, CellResult]] = []
        for reference in ready:
            member, name = self.in_flight.pop(reference)
            try:
                result = ray.get(reference)
            except ray.exceptions.RayError as error:
                self._broken(member, name, error)
                continue
            self.idle[member.name] = member
            if isinstance(result, UnitFailure):
                self._failed(member, name, result)
            elif self.scheduler.finish(name, member.name, time.monotonic()):
                if isinstance(result, CellResult):
                    cells.append((name, result))
                elif isinstance(name, MergeUnit):
                    self._commit_merge(name, *result)
                else:
                    self._commit_group(name, result)
        if cells:
            self.run.commit_cells(cells)
            for unit, _ in cells:
                self._progress("evaluate", len(self.run.targets[unit.target].requests))

    def _commit_group(self, group: Group, result: Sequence[Any]) -> None:
        adapters: list[TrainedAdapter | UnitFailure] = []
        for folder, entry in zip(self.run.stage(group), result, strict=True):
            if isinstance(entry, UnitFailure):
                adapters.append(entry)
                continue
            trained, files = entry
            write_files(folder, files, trained.digest)
            adapters.append(trained)
        self.run.commit_group(group, adapters)
        self._after_group(group)

    def _commit_merge(self, unit: MergeUnit, merged: TrainedAdapter, files: Files) -> None:
        (folder,) = self.run.stage([unit])
        write_files(folder, files, merged.digest)
        self.run.commit_merge(unit, merged)
        self._after_merge(unit)
        self._open_merges()

    def _after_group(self, group: Group) -> None:
        self.run.write()
        self._progress("train", self.run.rough_tokens(group))
        for unit in group:
            self.coming.discard((unit.source, unit.seed))
            self._open_row((unit.source, unit.seed))
        self._open_merges()

    def _failed(self, member: Member, name: Any, failure: UnitFailure, *, crashed: bool = False) -> None:
        """A unit has failed: once more elsewhere, in halves where memory ran out, or for good."""
        if name not in self.scheduler.tasks:  # a copy of what another worker has done
            return
        divisible = isinstance(name, tuple) and len(trainings(name)) > 1
        again = self.scheduler.failures(name) + 1 >= self.scheduler.tries - 1
        if divisible and (failure.memory or (crashed and again)):
            self.scheduler.remove(name)
            for half in self.run.split(name):
                self._add_group(half)
            self.run.write()
            return
        if not self.scheduler.fail(name, member.name, final=failure.final):
            return
        reason = failure.reason if failure.final else f"{failure.reason} (tried {self.scheduler.tries} times)"
        if isinstance(name, CellUnit):
            self.run.fail_cell(name, reason)
            self._progress("evaluate", len(self.run.targets[name.target].requests))
        elif isinstance(name, MergeUnit):
            self.run.commit_merge(name, UnitFailure(reason))
            self._after_merge(name)
            self._open_merges()
        else:
            self.run.fail_group(name, reason)
            self._after_group(name)

    def _broken(self, member: Member, name: Any, error: Exception) -> None:
        """A worker ended, or its result went with its machine."""
        message = " ".join(str(error).split())
        memory = "OutOfMemory" in type(error).__name__ or "out of memory" in message.lower()
        by_itself = self.pool.drop(member) and "node has died" not in message and "node was" not in message
        failure = UnitFailure(
            f"a worker ended while it was at it ({type(error).__name__}: {message[:200]})", memory
        )
        if by_itself or memory:
            self._failed(member, name, failure, crashed=True)
        self.scheduler.lose(member.name)

    def _progress(self, stage: str, more: float) -> None:
        done = self.work[stage]
        done[0] = min(done[0] + more, done[1])
        if done[1]:
            workers = len(self.pool.members)
            detail = f"{workers} worker{'s' if workers != 1 else ''}" if workers else "waiting for workers"
            self.listener(Progress(stage, done[0], done[1], detail))
