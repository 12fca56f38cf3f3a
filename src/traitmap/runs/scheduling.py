"""Which unit a free worker takes next: largest first, thrice at most, and a second copy of what lags behind.

The same rules drive a cluster and the simulator. They know no clock and no network: whoever uses them says
what time it is and what has happened. Largest first is Graham's rule for makespan (SIAM Journal on Applied
Mathematics, 1969); a second copy of a task that lags, of which the first result counts, is that of Dean and
Ghemawat (OSDI 2004), begun only where a task is late by the pace of its like (Zaharia et al., OSDI 2008).
"""

from __future__ import annotations

import heapq
import itertools
from bisect import insort
from collections.abc import Hashable
from dataclasses import dataclass, field
from math import inf

TRIES = 3  # a unit that has failed so often is given up
PATIENCE = 1.5  # a unit is late when it takes this many times what its like took
ENOUGH = 3  # finished units that make a pace


@dataclass(frozen=True)
class Task:
    """One unit to be scheduled.

    name: anything that tells it from others. size: what it is expected to take, in any unit that is the same
    for all tasks of its stage. stage: lower ones go first. like: tasks that are alike in this keep one pace.
    """

    name: Hashable
    size: float
    stage: int = 0
    like: Hashable = None


@dataclass
class _State:
    task: Task
    attempts: dict[Hashable, float] = field(default_factory=dict)  # worker -> when it began
    failures: int = 0
    avoided: set[Hashable] = field(default_factory=set)  # workers on which it failed


class Scheduler:
    """Tasks waiting and running, and the workers that run them."""

    def __init__(self, *, tries: int = TRIES, copies: bool = True) -> None:
        self.tries = tries
        self.copies = copies
        self.waiting: list[tuple[int, float, int, Hashable]] = []
        self.states: dict[Hashable, _State] = {}
        self.running: dict[Hashable, _State] = {}
        self.paces: dict[Hashable, list[float]] = {}  # seconds per size, rising
        self.workers: set[Hashable] = set()
        self._order = itertools.count()

    @property
    def open(self) -> bool:
        """Whether anything is waiting or running."""
        return bool(self.states)

    def add(self, task: Task) -> None:
        """A task that can be done from now on."""
        self.states[task.name] = _State(task)
        self._wait(task)

    def join(self, worker: Hashable) -> None:
        """A worker that can be given tasks."""
        self.workers.add(worker)

    def take(self, worker: Hashable, now: float) -> Task | None:
        """What a free worker does next; None where it has to wait."""
        state = self._next_waiting(worker) or (self._late(worker, now) if self.copies else None)
        if state is None:
            return None
        state.attempts[worker] = now
        self.running[state.task.name] = state
        return state.task

    def finish(self, name: Hashable, worker: Hashable, now: float) -> bool:
        """A worker has done a task. False where another one was faster, and this result does not count."""
        state = self.states.get(name)
        if state is None or worker not in state.attempts:
            return False
        if state.task.size > 0:
            taken = now - state.attempts[worker]
            insort(self.paces.setdefault((state.task.stage, state.task.like), []), taken / state.task.size)
        self.remove(name)
        return True

    def fail(self, name: Hashable, worker: Hashable, *, final: bool = False) -> bool:
        """A worker has failed at a task. True where that was the last time and the task is given up.

        final: another try would fail as well.
        """
        state = self.states.get(name)
        if state is None or worker not in state.attempts:
            return False
        del state.attempts[worker]
        state.failures += 1
        state.avoided.add(worker)
        if final or (state.failures >= self.tries and not state.attempts):
            self.remove(name)
            return True
        if state.attempts:  # another worker is at it
            return False
        self._wait(state.task)
        return False

    def lose(self, worker: Hashable) -> None:
        """A worker is gone; what it had in hand waits again, and that is nobody's failure."""
        self.workers.discard(worker)
        for state in list(self.running.values()):
            if state.attempts.pop(worker, None) is not None and not state.attempts:
                self._wait(state.task)

    def remove(self, name: Hashable) -> None:
        """Forget a task, since it is done in another way."""
        self.states.pop(name, None)
        self.running.pop(name, None)

    def failures(self, name: Hashable) -> int:
        """How often a task has failed so far."""
        return self.states[name].failures if name in self.states else 0

    def next_late(self, now: float) -> float:
        """When the next running task will be late, if nothing happens until then; infinite if none will."""
        if not self.copies:
            return inf
        moments = (self._late_at(state) for state in self.running.values() if len(state.attempts) == 1)
        return min((moment for moment in moments if moment > now), default=inf)

    def _wait(self, task: Task) -> None:
        self.running.pop(task.name, None)
        heapq.heappush(self.waiting, (task.stage, -task.size, next(self._order), task.name))

    def _next_waiting(self, worker: Hashable) -> _State | None:
        """The first in the queue; what failed on this worker is left to others, where there are others."""
        passed, found = [], None
        while self.waiting and found is None:
            entry = heapq.heappop(self.waiting)
            state = self.states.get(entry[-1])
            if state is None or state.attempts:  # done or taken since
                continue
            if worker in state.avoided and self.workers - state.avoided:
                passed.append(entry)
            else:
                found = state
        for entry in passed:
            heapq.heappush(self.waiting, entry)
        return found

    def _late(self, worker: Hashable, now: float) -> _State | None:
        """The running task that is late by most and of which there is no copy yet."""
        late = [
            (now - self._late_at(state), number, state)
            for number, state in enumerate(self.running.values())
            if len(state.attempts) == 1 and worker not in state.attempts and worker not in state.avoided
        ]
        overdue, _, state = max(late, key=lambda one: one[:2], default=(-inf, 0, None))
        return state if overdue >= 0 else None

    def _late_at(self, state: _State) -> float:
        paces = self.paces.get((state.task.stage, state.task.like), ())
        if len(paces) < ENOUGH:
            return inf
        pace = paces[len(paces) // 2]
        return min(state.attempts.values()) + PATIENCE * pace * state.task.size
