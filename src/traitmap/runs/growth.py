"""What a matrix of any size would cost on many workers, from what a unit costs, measured or assumed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil, nan
from typing import Any

from traitmap.errors import RunError
from traitmap.runs.cluster.drive import KEPT_ADAPTERS, Task
from traitmap.runs.cost import CHARACTERS_PER_TOKEN, ITEM_BYTES, BaseShape, assumed_cost, shape_of
from traitmap.runs.ledger import read_ledger
from traitmap.runs.plan import GROUP_SIZE
from traitmap.runs.simulate import FailureModel, Job, Simulated, simulate
from traitmap.runs.store import RunStore, open_store
from traitmap.study.settings import BASELINE

_ONE_GPU = 80e9 * 0.8  # bytes of weights that leave room for a batch
START = 60.0  # assumed seconds until a worker has its base in memory
# Assumed of data that nobody has shown: a middling source and target.
EXAMPLES, EXAMPLE_TOKENS = 10_000, 200.0
READ_TOKENS = 400.0  # of one item: its prompt, and its choices where it has some
GENERATED_SHARE = 0.25  # of the targets
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
class UnitShape:
    """What one unit takes.

    adapter_seconds: of training one adapter on one worker. cell_seconds: of one cell of each kind of target;
    the targets of a larger matrix are these in turn. adapter_bytes, cell_bytes: on the disk. source_bytes,
    target_bytes: of the texts, as they are sent. start: seconds until a worker has its base in memory.
    items: of one target. measured: whether the seconds are a run's own. said: what all this rests on.
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
    said: tuple[str, ...] = ()


@dataclass(frozen=True)
class Growth:
    """A matrix on paper.

    adapters, targets, items, workers: what was asked. group_size: adapters trained together.
    hours: from start to end where nothing goes wrong; unlucky_hours: with 5 % of units failing and 10 %
    taking three times as long. worker_hours: in which workers work (GPU hours, where a worker is a GPU).
    busy: share of the workers' time in which they work. disk: bytes of the run folder.
    object_store: most bytes that the cluster's object store holds at once.
    moved: bytes that travel between machines of ``per_machine`` workers each.
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
    worker has one to train. The time is that of the simulated schedule (``runs.simulate``).
    """
    unit = unit if items is None else _with_items(unit, items)
    size = group_size or min(GROUP_SIZE, max(1, adapters // workers))
    jobs = jobs_of(unit, adapters=adapters, targets=targets, group_size=size)
    lucky = simulate(jobs, workers)
    unlucky = simulate(jobs, workers, FailureModel(failures=0.05, stragglers=0.1, slowness=3))
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
        hours=_hours(lucky, unit),
        unlucky_hours=_hours(unlucky, unit),
        worker_hours=sum(job.task.size for job in jobs) / 3600,
        busy=lucky.busy,
        disk=weights + cells * unit.cell_bytes + texts / 4,  # texts are compressed
        object_store=texts + (min(adapters, KEPT_ADAPTERS) + workers * size) * unit.adapter_bytes,
        moved=weights * (1 + machines) + texts * machines + 3 * cells * unit.cell_bytes,
        measured=unit.measured,
        said=unit.said,
    )


def jobs_of(unit: UnitShape, *, adapters: int, targets: int, group_size: int) -> list[Job]:
    """Every unit of such a matrix: training passes, and cells that wait for them."""
    seconds = [unit.cell_seconds[column % len(unit.cell_seconds)] for column in range(targets)]
    jobs = [Job(Task((BASELINE, column), seconds[column], 1, column)) for column in range(targets)]
    for first in range(0, adapters, group_size):
        rows = range(first, min(first + group_size, adapters))
        if unit.adapter_seconds:
            jobs.append(Job(Task(first, unit.adapter_seconds * len(rows), 0, "train")))
        after = first if unit.adapter_seconds else None
        jobs += [
            Job(Task((row, column), seconds[column], 1, column), after)
            for row in rows
            for column in range(targets)
        ]
    return jobs


def assumed_unit(model_shape: str, *, items: float = 2000, rank: int = 16) -> UnitShape:
    """What a unit would take on one 80 GB GPU, for a base of a known shape and middling data.

    RunError for an unknown shape, and for a base that one GPU does not hold.
    """
    shape = _shape(model_shape)
    if 2 * shape.parameters > _ONE_GPU:
        raise RunError(
            f"model shape {model_shape!r}: {2 * shape.parameters / 1e9:.0f} GB in bfloat16 do not fit one 80 "
            "GB GPU, and traitmap does not spread a base over several (docs/cluster.md)."
        )
    found = assumed_cost(shape, rank)
    assert found is not None
    cost, said = found
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
        said=(*said, data),
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
    for one in trained:
        longest, count = passes.get(one.group, (0.0, 0))
        passes[one.group] = max(longest, float(one.report["seconds"])), count + 1
    seconds = sum(one for one, _ in passes.values()) / max(1, sum(count for _, count in passes.values()))
    items = [int(target["items"]) for target in ledger.targets]
    weights = [_bytes_in(store.adapter(one.key)) for one in trained if one.key]
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
        said=(
            f"measured: {len(trained)} adapters and {count} cells of {store.folder.name}, on "
            f"{ledger.conditions.get('device', 'an unknown device')}.",
        ),
    )


def _with_items(unit: UnitShape, items: float) -> UnitShape:
    if not unit.items:
        return unit
    times = items / unit.items
    return replace(
        unit,
        items=items,
        cell_seconds=tuple(seconds * times for seconds in unit.cell_seconds),
        cell_bytes=unit.cell_bytes * times,
        target_bytes=unit.target_bytes * times,
    )


def _shape(name: str) -> BaseShape:
    if name not in _CONFIGURATIONS:
        raise RunError(f"model shape {name!r}: unknown; legal: {', '.join(MODEL_SHAPES)}.")
    heads = {"num_attention_heads": _HEADS[name], "num_key_value_heads": 8, "vocab_size": 128_256}
    found = shape_of({**_CONFIGURATIONS[name], **heads, "tie_word_embeddings": name in _TIED})
    assert found is not None
    return found


def _hours(found: Simulated, unit: UnitShape) -> float:
    return (unit.start + found.makespan) / 3600


def _bytes_in(folder: Any) -> float:
    return float(sum(path.stat().st_size for path in folder.iterdir()))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else nan
