"""What a matrix of any size would cost on many workers, from what one unit costs, measured or assumed.

A matrix on paper is laid out as tasks, training passes and the cells that wait for them, and these are
played through by the very ``Scheduler`` that drives a cluster; only the clock and the luck are made up. The
first part plays tasks through, the second says what a unit takes, the third what the matrix then costs.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil, inf, nan
from typing import Any

import numpy as np

from traitmap.errors import RunError
from traitmap.runs.cluster.drive import KEPT_ADAPTERS, Scheduler, Task
from traitmap.runs.cost import CHARACTERS_PER_TOKEN, ITEM_BYTES, assumed_cost, shape_of
from traitmap.runs.ledger import read_ledger
from traitmap.runs.plan import GROUP_SIZE
from traitmap.runs.store import RunStore, open_store
from traitmap.study.settings import BASELINE

_ONE_GPU = 80e9 * 0.8  # bytes of weights that leave room for a batch
START = 60.0  # assumed seconds until a worker has its base in memory
# Assumed of data that nobody has shown: a middling source and target.
EXAMPLES, EXAMPLE_TOKENS = 10_000, 200.0
READ_TOKENS = 400.0  # of one item: its prompt, and its choices where it has some
GENERATED_SHARE = 0.25  # of the targets
_COMMON = {"num_key_value_heads": 8, "vocab_size": 128_256}
_CONFIGURATIONS: dict[str, dict[str, int]] = {
    "llama-1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "head_dim": 64},
    "llama-3b": {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28, "head_dim": 128},
    "llama-8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "head_dim": 128},
    "llama-70b": {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "head_dim": 128},
}
_HEADS = {"llama-1b": 32, "llama-3b": 24, "llama-8b": 32, "llama-70b": 64}
_TIED = ("llama-1b", "llama-3b")
MODEL_SHAPES = tuple(_CONFIGURATIONS)


@dataclass(frozen=True)
class Simulated:
    """What came of a simulated run.

    makespan: seconds from the first task to the last. ideal: see ``ideal``; nothing can be faster even where
    nothing goes wrong. busy: share of the workers' time in which they worked. copies: second copies begun.
    lost: attempts that ended with their worker. failed: attempts that failed. given_up: tasks that failed
    too often, with those that waited for them.
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
        """Makespan over the ideal: at least 1, and 1 for a run without tasks."""
        return self.makespan / self.ideal if self.ideal else 1.0


def simulate(
    tasks: Sequence[Task],
    workers: int,
    *,
    failures: float = 0.0,
    stragglers: float = 0.0,
    slowness: float = 3.0,
    losses: float = 0.0,
    absence: float = 300.0,
    seed: int = 0,
    copies: bool = True,
) -> Simulated:
    """Play a run through. The same arguments give the same run, to the last digit.

    tasks: their sizes are seconds on a worker where all goes well; what a task waits for stands before it.
    failures: share of attempts that fail, at a moment drawn evenly from their time. stragglers: share of
    attempts that take ``slowness`` times as long. losses: workers lost per worker and hour, for ``absence``
    seconds each. copies: whether tasks that lag get a second copy.
    """
    draw = np.random.default_rng(seed)
    return _Simulation(tasks, workers, failures, stragglers, slowness, losses, absence, draw, copies).run()


def ideal(tasks: Sequence[Task], workers: int) -> float:
    """Seconds below which no schedule gets: work over workers, or the longest chain where that is more.

    Raises KeyError where a task waits for one that does not stand before it.
    """
    total, ends = 0.0, dict[Hashable, float]()
    for task in tasks:
        total += task.size
        ends[task.name] = task.size + (ends[task.after] if task.after is not None else 0.0)
    return max(total / workers, max(ends.values(), default=0.0))


class _Simulation:
    """The state of one simulated run: the time, the events to come, and who is free."""

    def __init__(
        self,
        tasks: Sequence[Task],
        workers: int,
        failures: float,
        stragglers: float,
        slowness: float,
        losses: float,
        absence: float,
        draw: np.random.Generator,
        copies: bool,
    ) -> None:
        self.tasks, self.workers, self.draw = tasks, workers, draw
        self.failures, self.stragglers, self.slowness = failures, stragglers, slowness
        self.losses, self.absence = losses, absence
        self.scheduler = Scheduler(copies=copies)
        self.followers: dict[Hashable, list[Task]] = {}
        self.events: list[tuple[float, int, str, int, int, Hashable]] = []
        self.number = 0
        self.now = 0.0
        self.free = list(range(workers))
        self.life = [0] * workers  # an event of a worker's former life does not count
        self.began: dict[int, float] = {}
        self.worked = 0.0
        self.copied = self.lost = self.failed = self.given_up = 0
        self.finished = 0.0

    def run(self) -> Simulated:
        for task in self.tasks:
            if task.after is None:
                self.scheduler.add(task)
            else:
                self.followers.setdefault(task.after, []).append(task)
        for worker in range(self.workers):
            self.join(worker)
        self.hand_out()
        while self.scheduler.open:
            look = self.scheduler.next_late(self.now) if self.free else inf
            if not self.events or look < self.events[0][0]:
                self.now = look
            else:
                self.now, _, word, worker, life, name = heapq.heappop(self.events)
                if life == self.life[worker]:
                    self.happen(word, worker, name)
            self.hand_out()
        bound = ideal(self.tasks, self.workers)
        busy = self.worked / (self.finished * self.workers) if self.finished else 1.0
        return Simulated(self.finished, bound, busy, self.copied, self.lost, self.failed, self.given_up)

    def happen(self, word: str, worker: int, name: Hashable) -> None:
        if word == "back":
            self.free.append(worker)
            self.join(worker)
            return
        at_work = worker in self.began
        if at_work:
            self.worked += self.now - self.began.pop(worker)
        if word == "lost":
            self.lost += at_work
            if not at_work:
                self.free.remove(worker)
            self.scheduler.lose(worker)
            self.life[worker] += 1
            self.event(self.absence, "back", worker, None)
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

    def join(self, worker: int) -> None:
        self.scheduler.join(worker)
        if self.losses:
            self.event(self.draw.exponential(3600 / self.losses), "lost", worker, None)

    def hand_out(self) -> None:
        for worker in list(self.free):
            if self.scheduler.nothing_to_take(self.now):
                break
            task = self.scheduler.take(worker, self.now)
            if task is None:
                continue
            self.free.remove(worker)
            self.began[worker] = self.now
            self.copied += len(self.scheduler.attempts[task.name]) > 1
            slow = self.slowness if self.draw.random() < self.stragglers else 1.0
            seconds = task.size * slow
            if self.draw.random() < self.failures:
                self.event(seconds * self.draw.random(), "fails", worker, task.name)
            else:
                self.event(seconds, "done", worker, task.name)

    def event(self, delay: float, word: str, worker: int, name: Hashable) -> None:
        self.number += 1
        moment = self.now + float(delay)
        heapq.heappush(self.events, (moment, self.number, word, worker, self.life[worker], name))


@dataclass(frozen=True)
class UnitShape:
    """What one unit takes.

    adapter_seconds: of training one adapter on one worker. cell_seconds: of one cell of each kind of target;
    the targets of a larger matrix are these in turn. adapter_bytes, cell_bytes: on the disk. source_bytes,
    target_bytes: of the texts, as they are sent. start: seconds until a worker has its base in memory.
    items: of one target. measured: whether the seconds are a run's own. basis: what this rests on.
    """

    adapter_seconds: float
    cell_seconds: tuple[float, ...]
    adapter_bytes: float
    cell_bytes: float
    source_bytes: float
    target_bytes: float
    start: float
    items: float
    measured: bool
    basis: tuple[str, ...] = ()


def assumed_unit(model_shape: str, *, items: float = 2000, rank: int = 16) -> UnitShape:
    """What a unit would take on one 80 GB GPU, for a base of a known shape and middling data.

    RunError for an unknown shape, and for a base that one GPU does not hold.
    """
    if model_shape not in _CONFIGURATIONS:
        raise RunError(f"model shape {model_shape!r}: unknown; legal: {', '.join(MODEL_SHAPES)}.")
    heads = {"num_attention_heads": _HEADS[model_shape], "tie_word_embeddings": model_shape in _TIED}
    shape = shape_of({**_CONFIGURATIONS[model_shape], **heads, **_COMMON})
    assert shape is not None
    parameters, _ = shape
    if 2 * parameters > _ONE_GPU:
        raise RunError(
            f"model shape {model_shape!r}: {2 * parameters / 1e9:.0f} GB in bfloat16 do not fit one 80 "
            "GB GPU, and traitmap does not spread a base over several (docs/cluster.md)."
        )
    priced = assumed_cost(shape, rank)
    assert priced is not None
    cost, assumptions = priced
    choice = items * READ_TOKENS / cost.scoring
    generated = choice + items * cost.answer_tokens / cost.generating
    kinds = round(1 / GENERATED_SHARE)
    data = (
        f"assumed: {EXAMPLES:,} examples of {EXAMPLE_TOKENS:.0f} tokens a source, one epoch, rank {rank}; "
        f"{READ_TOKENS:.0f} tokens an item, every {kinds}th target generated; {START:.0f} s to load the base."
    )
    return UnitShape(
        adapter_seconds=EXAMPLES * EXAMPLE_TOKENS / cost.training,
        cell_seconds=(generated, *[choice] * (kinds - 1)),
        adapter_bytes=cost.adapter_bytes,
        cell_bytes=items * (ITEM_BYTES + GENERATED_SHARE * cost.answer_tokens * CHARACTERS_PER_TOKEN / 2),
        source_bytes=EXAMPLES * EXAMPLE_TOKENS * CHARACTERS_PER_TOKEN,
        target_bytes=items * READ_TOKENS * CHARACTERS_PER_TOKEN,
        start=START,
        items=items,
        measured=False,
        basis=(*assumptions, data),
    )


def measured_unit(run: RunStore | str, *, start: float = 0.0) -> UnitShape:
    """What a unit took in a run, by its ledger and its files. start: seconds until its engine was ready.

    RunError where the run has no cell of which the time is known.
    """
    store = run if isinstance(run, RunStore) else open_store(run)
    ledger = read_ledger(store)
    timed: dict[str, list[float]] = {}
    for cell in ledger.cells:
        if cell.status == "done" and cell.seconds is not None:
            timed.setdefault(cell.target, []).append(cell.seconds)
    if not timed:
        raise RunError(
            f"{store.folder}: no cell has been timed, so nothing tells what one takes; run it first."
        )
    trained = [
        adapter for adapter in ledger.adapters if adapter.status == "done" and adapter.report.get("seconds")
    ]
    passes: dict[Any, tuple[float, int]] = {}  # a pass's seconds are those of each of its adapters
    for adapter in trained:
        longest, count = passes.get(adapter.group, (0.0, 0))
        passes[adapter.group] = max(longest, float(adapter.report["seconds"])), count + 1
    seconds = sum(longest for longest, _ in passes.values()) / max(
        1, sum(count for _, count in passes.values())
    )
    items = [int(target["items"]) for target in ledger.targets]
    folders = [store.adapter(adapter.key) for adapter in trained if adapter.key]
    weights = [float(sum(path.stat().st_size for path in folder.iterdir())) for folder in folders]
    texts = {path.name: float(path.stat().st_size) for path in store.texts.glob("*.parquet")}
    cells = [store.cell(cell.key) for cell in ledger.cells if cell.status == "done" and cell.key]
    count = sum(map(len, timed.values()))
    return UnitShape(
        adapter_seconds=seconds,
        cell_seconds=tuple(sum(timed[name]) / len(timed[name]) for name in timed),
        adapter_bytes=_mean(weights),
        cell_bytes=_mean([float(path.stat().st_size) for path in cells]),
        source_bytes=4 * _mean([size for name, size in texts.items() if name.startswith("source-")]),
        target_bytes=4 * _mean([size for name, size in texts.items() if name.startswith("target-")]),
        start=start,
        items=_mean([float(item) for item in items]),
        measured=True,
        basis=(
            f"measured: {len(trained)} adapters and {count} cells of {store.folder.name}, on "
            f"{ledger.conditions.get('device', 'an unknown device')}.",
        ),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else nan


@dataclass(frozen=True)
class Growth:
    """A matrix on paper.

    adapters, targets, items, workers: what was asked. group_size: adapters trained together.
    hours: from start to end where nothing goes wrong; unlucky_hours: with 5 % of units failing and 10 %
    taking three times as long. worker_hours: in which workers work (GPU hours, where a worker is a GPU).
    busy: share of the workers' time in which they work. disk: bytes of the run folder.
    object_store: most bytes that the cluster's object store holds at once.
    moved: bytes that travel between machines of ``per_machine`` workers each. said: what all this rests on.
    """

    adapters: int
    targets: int
    items: float
    workers: int
    group_size: int
    hours: float
    unlucky_hours: float
    worker_hours: float
    busy: float
    disk: float
    object_store: float
    moved: float
    measured: bool
    said: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The record as JSON data; unknown numbers are null."""
        return {name: None if value != value else value for name, value in asdict(self).items()}


def grow(
    unit: UnitShape,
    *,
    adapters: int,
    targets: int,
    workers: int,
    items: float | None = None,
    group_size: int | None = None,
    per_machine: int = 8,
) -> Growth:
    """A matrix of ``adapters`` x ``targets`` and the base's row, on so many workers.

    items: of each target, where they are not the unit's. group_size: None chooses groups so small that every
    worker has one to train. Hours are those of the simulated schedule (``simulate``).
    """
    if items is not None and unit.items:
        times = items / unit.items
        unit = replace(
            unit,
            items=items,
            cell_seconds=tuple(seconds * times for seconds in unit.cell_seconds),
            cell_bytes=unit.cell_bytes * times,
            target_bytes=unit.target_bytes * times,
        )
    size = group_size or min(GROUP_SIZE, max(1, adapters // workers))
    tasks = tasks_of(unit, adapters=adapters, targets=targets, group_size=size)
    lucky = simulate(tasks, workers)
    unlucky = simulate(tasks, workers, failures=0.05, stragglers=0.1, slowness=3)
    machines = ceil(workers / per_machine)
    cells = (adapters + 1) * targets
    texts = adapters * unit.source_bytes + targets * unit.target_bytes
    weights = adapters * unit.adapter_bytes
    return Growth(
        adapters=adapters,
        targets=targets,
        items=unit.items,
        workers=workers,
        group_size=size,
        hours=(unit.start + lucky.makespan) / 3600,
        unlucky_hours=(unit.start + unlucky.makespan) / 3600,
        worker_hours=sum(task.size for task in tasks) / 3600,
        busy=lucky.busy,
        disk=weights + cells * unit.cell_bytes + texts / 4,  # texts are compressed
        object_store=texts + (min(adapters, KEPT_ADAPTERS) + workers * size) * unit.adapter_bytes,
        moved=weights * (1 + machines) + texts * machines + 3 * cells * unit.cell_bytes,
        measured=unit.measured,
        said=unit.basis,
    )


def tasks_of(unit: UnitShape, *, adapters: int, targets: int, group_size: int) -> list[Task]:
    """Every unit of such a matrix, sizes in seconds: the base's cells, then each group and its cells.

    A group is one task, of the seconds of all its adapters; its cells wait for it, unless training takes no
    time at all.
    """
    seconds = [unit.cell_seconds[column % len(unit.cell_seconds)] for column in range(targets)]
    tasks = [Task((BASELINE, column), seconds[column], 1, column) for column in range(targets)]
    for first in range(0, adapters, group_size):
        rows = range(first, min(first + group_size, adapters))
        if unit.adapter_seconds:
            tasks.append(Task(first, unit.adapter_seconds * len(rows), 0, "train"))
        after = first if unit.adapter_seconds else None
        tasks += [
            Task((row, column), seconds[column], 1, column, after)
            for row in rows
            for column in range(targets)
        ]
    return tasks
