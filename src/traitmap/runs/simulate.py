"""A run on many workers without any: how long it takes with stragglers, failures and lost workers.

The rules are those of ``scheduling``, by which a cluster is driven; only the clock and the luck are made up.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from traitmap.runs.cluster.drive import Scheduler, Task


@dataclass(frozen=True)
class Job:
    """A task whose size is its seconds on a worker where all goes well. after: a job to be done before."""

    task: Task
    after: Hashable | None = None


@dataclass(frozen=True)
class FailureModel:
    """What goes wrong.

    failures: share of attempts that fail, at a moment drawn evenly from their time. stragglers: share of
    attempts that take ``slowness`` times as long. losses: workers lost per worker and hour, for ``absence``
    seconds each.
    """

    failures: float = 0.0
    stragglers: float = 0.0
    slowness: float = 3.0
    losses: float = 0.0
    absence: float = 300.0


@dataclass(frozen=True)
class Simulated:
    """What came of a simulated run.

    makespan: seconds from the first unit to the last. ideal: sum of all jobs' seconds over the workers, or
    the longest chain of jobs where that is more: nothing can be faster even where nothing goes wrong.
    busy: share of the workers' time in which they worked. copies: second copies begun. lost: attempts that
    ended with their worker. failed: attempts that failed. given_up: jobs that failed too often, with those
    that waited for them.
    """

    makespan: float
    ideal: float
    busy: float
    copies: int
    lost: int
    failed: int
    given_up: int

    @property
    def ratio(self) -> float:
        """Makespan over the ideal."""
        return self.makespan / self.ideal if self.ideal else 1.0


def simulate(
    jobs: Sequence[Job], workers: int, luck: FailureModel | None = None, *, seed: int = 0, copies: bool = True
) -> Simulated:
    """Play a run through. The same seed gives the same run."""
    return _Play(jobs, workers, luck or FailureModel(), np.random.default_rng(seed), copies).run()


def ideal(jobs: Sequence[Job], workers: int) -> float:
    """Seconds below which no schedule gets: work over workers, or the longest chain."""
    total, ends = 0.0, dict[Hashable, float]()
    for job in jobs:  # what a job waits for stands before it
        total += job.task.size
        ends[job.task.name] = job.task.size + (ends[job.after] if job.after is not None else 0.0)
    return max(total / workers, max(ends.values(), default=0.0))


class _Play:
    """The state of one simulated run: the time, the events to come, and who is free."""

    def __init__(
        self,
        jobs: Sequence[Job],
        workers: int,
        luck: FailureModel,
        generator: np.random.Generator,
        copies: bool,
    ) -> None:
        self.jobs, self.workers, self.luck, self.draw = jobs, workers, luck, generator
        self.scheduler = Scheduler(copies=copies)
        self.followers: dict[Hashable, list[Task]] = {}
        self.events: list[tuple[float, int, str, int, Hashable]] = []
        self.number = 0
        self.now = 0.0
        self.free = list(range(workers))
        self.life = [0] * workers  # an event of a worker's former life does not count
        self.began: dict[int, float] = {}
        self.worked = 0.0
        self.copied = self.lost = self.failed = self.given_up = 0
        self.finished = 0.0

    def run(self) -> Simulated:
        for job in self.jobs:
            if job.after is None:
                self.scheduler.add(job.task)
            else:
                self.followers.setdefault(job.after, []).append(job.task)
        for worker in range(self.workers):
            self.scheduler.join(worker)
            self._mortal(worker)
        self._hand_out()
        while self.scheduler.open:
            look = self.scheduler.next_late(self.now) if self.free else inf
            if not self.events or look < self.events[0][0]:
                self.now = look
            else:
                self.now, _, kind, worker, name = heapq.heappop(self.events)
                self._happen(kind, worker, name)
            self._hand_out()
        bound = ideal(self.jobs, self.workers)
        busy = self.worked / (self.finished * self.workers) if self.finished else 1.0
        return Simulated(self.finished, bound, busy, self.copied, self.lost, self.failed, self.given_up)

    def _happen(self, kind: str, worker: int, name: Hashable) -> None:
        word, _, life = kind.partition(" ")
        if int(life) != self.life[worker]:
            return
        if word == "back":
            self.scheduler.join(worker)
            self.free.append(worker)
            self._mortal(worker)
            return
        if worker in self.began:
            self.worked += self.now - self.began.pop(worker)
        if word == "lost":
            self._lose(worker)
            return
        self.free.append(worker)
        if word == "fails":
            self.failed += 1
            if self.scheduler.fail(name, worker):
                self.finished = self.now
                self.given_up += 1 + len(self.followers.pop(name, ()))
        elif self.scheduler.finish(name, worker, self.now):
            self.finished = self.now
            for task in self.followers.pop(name, ()):
                self.scheduler.add(task)

    def _lose(self, worker: int) -> None:
        if worker in self.free:
            self.free.remove(worker)
        else:
            self.lost += 1
        self.scheduler.lose(worker)
        self.life[worker] += 1
        self._event(self.luck.absence, "back", worker, None)

    def _mortal(self, worker: int) -> None:
        if self.luck.losses:
            self._event(self.draw.exponential(3600 / self.luck.losses), "lost", worker, None)

    def _hand_out(self) -> None:
        for worker in list(self.free):
            task = self.scheduler.take(worker, self.now)
            if task is None:
                continue
            self.free.remove(worker)
            self.began[worker] = self.now
            self.copied += len(self.scheduler.states[task.name].attempts) > 1
            slow = self.luck.slowness if self.draw.random() < self.luck.stragglers else 1.0
            seconds = task.size * slow
            if self.draw.random() < self.luck.failures:
                self._event(seconds * self.draw.random(), "fails", worker, task.name)
            else:
                self._event(seconds, "done", worker, task.name)

    def _event(self, delay: float, word: str, worker: int, name: Hashable) -> None:
        self.number += 1
        kind = f"{word} {self.life[worker]}"
        heapq.heappush(self.events, (self.now + float(delay), self.number, kind, worker, name))
