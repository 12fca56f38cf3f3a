"""Run a study on this machine: train group by group, score cell by cell, keep all that is finished."""

from __future__ import annotations

import errno
import shutil
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitmap.data.records import ServedAdapter
from traitmap.engine.contract import Engine, TrainingJob, TrainingReport
from traitmap.errors import ModelError, RunError, TraitmapError
from traitmap.progress import Listener, Progress, silent
from traitmap.runs.cells import write_cell
from traitmap.runs.cost import rough_token_counts, training_tokens
from traitmap.runs.keys import adapter_digest, cell_key
from traitmap.runs.ledger import (
    AdapterEntry,
    CellEntry,
    Ledger,
    describe_source,
    describe_target,
    read_ledger,
    write_ledger,
)
from traitmap.runs.parts import Selection, read_parts, write_parts
from traitmap.runs.plan import GROUP_SIZE, AdapterUnit, CellUnit, Plan, make_plan, missing_groups
from traitmap.runs.store import (
    RunStore,
    TrainedAdapter,
    check_adapters,
    check_cell,
    commit_adapters,
    freeze_study,
    locked_store,
    run_folder,
    stage_adapter,
)
from traitmap.runs.texts import write_texts
from traitmap.study.settings import BASELINE, Study

if TYPE_CHECKING:
    from traitmap.data.sources import LoadedSource
    from traitmap.data.targets import LoadedTarget

_DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})


def execute(
    study: Study,
    engine: Engine,
    sources: Sequence[LoadedSource],
    targets: Sequence[LoadedTarget],
    listener: Listener = silent,
    *,
    group_size: int = GROUP_SIZE,
    token_budget: int | None = None,
    selection: Selection | None = None,
) -> RunStore:
    """Do whatever of a study is not done yet, in the folder ``output/name``.

    What is finished is kept at once, so that an interrupt (raised on) or a kill costs the unit in hand,
    and running again gives the same bytes as never having stopped. A unit that fails is recorded with its
    reason and the rest goes on; running again tries it anew. A study that has changed is fine: what has
    the same key is reused. ``status.run_status`` counts what is done, failed and missing.

    group_size, token_budget: see ``plan.make_plan``. selection: do no more than this. Adapters selected are
    trained with those of their group that are selected too, so their last digits, and only these, may
    differ from what the whole group gives; whatever is trained is kept and used by later runs.
    Reports progress in stages ``train`` (tokens) and ``evaluate`` (requests).
    Raises RunError where another process runs this study, where the run was made with another base, and
    where the disk is full.
    """
    with locked_store(run_folder(study)) as store:
        run = _open_run(store, study, engine, sources, targets, group_size, token_budget)
        try:
            run.write()
            write_texts(store, sources, targets)
            _train(run, engine, listener, selection)
            _evaluate(run, engine, listener, selection)
        finally:
            run.write()
    return store


@dataclass
class _Run:
    """A run in progress: the plan, and the ledger's entries as they stand."""

    store: RunStore
    plan: Plan
    head: Ledger
    sources: Mapping[str, LoadedSource]
    targets: Mapping[str, LoadedTarget]
    adapters: dict[tuple[str, int | None], AdapterEntry]
    cells: dict[CellUnit, CellEntry]
    record: Callable[[RunStore, Ledger], None] = write_ledger

    def write(self) -> None:
        adapters, cells = tuple(self.adapters.values()), tuple(self.cells.values())
        self.record(self.store, replace(self.head, adapters=adapters, cells=cells))

    def find_cell(self, unit: CellUnit) -> None:
        """Bring a cell's entry up to date with its adapter: its key, or why it cannot have one."""
        digest, entry = None, CellEntry(unit.source, unit.seed, unit.target, None)
        if unit.source != BASELINE:
            adapter = self.adapters[unit.source, unit.seed]
            digest = adapter.digest
            if adapter.status != "done":
                failed = replace(entry, status="failed", reason=f"no adapter: {adapter.reason}")
                self.cells[unit] = failed if adapter.status == "failed" else entry
                return
        key = cell_key(self.head.base, digest, self.targets[unit.target].digest)
        if self.cells[unit].key == key:
            entry = self.cells[unit]
        if check_cell(self.store, key):
            self.cells[unit] = replace(entry, key=key, status="done", reason="")
        elif entry.status != "failed":
            self.cells[unit] = replace(entry, key=key, status="missing", seconds=None)


def _open_run(
    store: RunStore,
    study: Study,
    engine: Engine,
    sources: Sequence[LoadedSource],
    targets: Sequence[LoadedTarget],
    group_size: int,
    token_budget: int | None,
) -> _Run:
    before = _ledger_before(store, engine.base_digest)
    plan = make_plan(
        study=study,
        sources=sources,
        targets=targets,
        base_digest=engine.base_digest,
        group_size=group_size,
        token_budget=token_budget,
    )
    by_name = {source.name: source for source in sources}
    head = Ledger(
        name=study.name,
        study=freeze_study(store, study),
        base=engine.base_digest,
        model=study.model.model_dump(mode="json"),
        conditions=engine.conditions,
        seeds=study.seeds,
        sources=tuple(describe_source(source) for source in sources),
        targets=tuple(describe_target(target) for target in targets),
        adapters=(),
        cells=(),
    )
    run = _Run(
        store=store,
        plan=plan,
        head=head,
        sources=by_name,
        targets={target.name: target for target in targets},
        adapters=_adapter_entries(plan, by_name, check_adapters(store), before),
        cells=_cell_entries(plan, before),
    )
    for unit in plan.cells:
        run.find_cell(unit)
    return run


def _ledger_before(store: RunStore, base_digest: str) -> Ledger | None:
    """What the folder's last run knew; None where there was none, or its ledger cannot be read."""
    try:
        before = read_ledger(store)
    except RunError:
        return None
    if before.base != base_digest:
        raise RunError(
            f"{store.folder}: this run was made with another base (digest {before.base[:12]}, from "
            f"{before.model.get('path')!r}, {before.conditions.get('dtype')}; now {base_digest[:12]}): the "
            "model's files, revision, dtype or device have changed. Give the study another name or output, "
            "or remove this folder."
        )
    return before


def _adapter_entries(
    plan: Plan,
    sources: Mapping[str, LoadedSource],
    trained: Mapping[str, TrainedAdapter],
    before: Ledger | None,
) -> dict[tuple[str, int | None], AdapterEntry]:
    failed = [one for one in before.adapters if one.status == "failed"] if before else []
    failures = {one.key: one.reason for one in failed}
    entries: dict[tuple[str, int | None], AdapterEntry] = {}
    for number, group in enumerate(plan.groups):
        for unit in group:
            entry = AdapterEntry(unit.source, unit.seed, unit.key, number)
            if unit.key in trained:
                entry = _finished(entry, trained[unit.key])
            elif unit.key in failures:
                entry = replace(entry, status="failed", reason=failures[unit.key])
            entries[unit.source, unit.seed] = entry
    for name in plan.existing:
        entry = AdapterEntry(name, None, None, None)
        path = sources[name].adapter
        assert path is not None
        try:
            entries[name, None] = replace(entry, status="done", digest=adapter_digest(path))
        except ModelError as error:
            entries[name, None] = replace(entry, status="failed", reason=str(error))
    return entries


def _cell_entries(plan: Plan, before: Ledger | None) -> dict[CellUnit, CellEntry]:
    former = {CellUnit(one.source, one.seed, one.target): one for one in before.cells} if before else {}
    return {
        unit: former.get(unit) or CellEntry(unit.source, unit.seed, unit.target, None) for unit in plan.cells
    }


def _train(run: _Run, engine: Engine, listener: Listener, selection: Selection | None) -> None:
    done = {entry.key for entry in run.adapters.values() if entry.status == "done" and entry.key}
    if selection is not None:
        done |= {unit.key for unit in run.plan.adapters if (unit.source, unit.seed) not in selection.adapters}
    groups = missing_groups(run.plan, done)
    meter = _Meter("train", listener, [_rough_tokens(run, group) for group in groups])
    for group in groups:
        _train_group(run, engine, group, meter)
        run.write()
        meter.next_unit()


def _train_group(run: _Run, engine: Engine, group: Sequence[AdapterUnit], meter: _Meter) -> None:
    """One training pass. Its adapters count all together, when the last of them is written."""
    folders = [stage_adapter(run.store, unit.key) for unit in group]
    jobs = [_job(run, unit) for unit in group]
    trained: list[TrainedAdapter] = []
    try:
        reports = engine.train(jobs, folders, meter.hear)
        for unit, folder, report in zip(group, folders, reports, strict=True):
            outcome = _collect(unit.key, folder, report)
            if isinstance(outcome, str):
                _fail_adapter(run, unit, outcome)
            else:
                trained.append(outcome)
        if trained:
            commit_adapters(run.store, trained)
    except Exception as error:
        reason = _reason(error, run.store)
        for unit in group:
            _fail_adapter(run, unit, reason)
        return
    finally:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
    by_key = {one.key: one for one in trained}
    for unit in group:
        if unit.key in by_key:
            place = unit.source, unit.seed
            run.adapters[place] = _finished(run.adapters[place], by_key[unit.key])


def _collect(key: str, folder: Path, report: TrainingReport) -> TrainedAdapter | str:
    """A finished adapter, or why there is none."""
    if report.failure is not None:
        return report.failure
    try:
        return TrainedAdapter(key, adapter_digest(folder), _plain(report))
    except ModelError as error:
        return f"the engine reported success and left no adapter: {error}"


def _fail_adapter(run: _Run, unit: AdapterUnit, reason: str) -> None:
    place = unit.source, unit.seed
    run.adapters[place] = replace(run.adapters[place], status="failed", digest=None, reason=reason)


def _finished(entry: AdapterEntry, trained: TrainedAdapter) -> AdapterEntry:
    losses = trained.report["losses"]
    report = {name: value for name, value in trained.report.items() if name not in ("losses", "failure")}
    report |= {"steps": len(losses), "last_loss": losses[-1] if losses else None}
    return replace(entry, status="done", digest=trained.digest, reason="", report=report)


def _job(run: _Run, unit: AdapterUnit) -> TrainingJob:
    source = run.sources[unit.source]
    return TrainingJob(
        name=source.draws_as,
        seed=unit.seed,
        examples=tuple(source.examples),
        lora=source.lora,
        training=source.training,
    )


def _evaluate(run: _Run, engine: Engine, listener: Listener, selection: Selection | None) -> None:
    for unit in run.plan.cells:
        if run.cells[unit].status != "done":
            run.find_cell(unit)
    if selection is None:
        _evaluate_cells(run, engine, listener)
        return
    open_cells = [unit for unit in selection.cells if run.cells[unit].status != "done"]
    whole = tuple(unit for unit in open_cells if unit.target not in selection.items)
    _evaluate_cells(replace(run, plan=replace(run.plan, cells=whole)), engine, listener)
    partial = tuple(unit for unit in open_cells if unit.target in selection.items)
    if partial:
        _evaluate_cells(_partial_run(run, selection, partial), engine, listener)


def _partial_run(run: _Run, selection: Selection, units: tuple[CellUnit, ...]) -> _Run:
    """The run as it looks to its partial cells: targets of the selected items, and a list of their own."""
    targets = {name: run.targets[name].part(items) for name, items in selection.items.items()}
    before = read_parts(run.store)
    listed = {CellUnit(one.source, one.seed, one.target): one for one in before.cells}
    kept = {
        unit: one
        for unit, one in listed.items()
        if before.items.get(unit.target)
        == tuple(selection.items.get(unit.target, before.items.get(unit.target, ())))
    }
    cells = kept | {
        unit: kept.get(unit) or CellEntry(unit.source, unit.seed, unit.target, None) for unit in units
    }
    items = {**before.items, **selection.items}

    def record(store: RunStore, ledger: Ledger) -> None:
        write_parts(store, items, ledger.cells)

    plan = replace(run.plan, cells=units)
    part = replace(run, plan=plan, targets={**run.targets, **targets}, cells=cells, record=record)
    for unit in units:
        part.find_cell(unit)
    part.write()
    return part


def _evaluate_cells(run: _Run, engine: Engine, listener: Listener) -> None:
    """Every cell of the plan that is not done and can be."""
    todo = [unit for unit in run.plan.cells if run.cells[unit].status != "done" and run.cells[unit].key]
    meter = _Meter("evaluate", listener, [len(run.targets[unit.target].requests) for unit in todo])
    for place, unit in enumerate(todo):
        meter.detail = _row(unit) + f" -> {unit.target}"
        _evaluate_cell(run, engine, unit, meter)
        meter.next_unit()
        last = place + 1 == len(todo) or _row(todo[place + 1]) != _row(unit)
        if last or run.cells[unit].status == "failed":
            run.write()


def _evaluate_cell(run: _Run, engine: Engine, unit: CellUnit, meter: _Meter) -> None:
    """Answer, score and store one cell. Nothing of any other cell has a part in it."""
    entry, target = run.cells[unit], run.targets[unit.target]
    assert entry.key is not None
    if run.store.cell(entry.key).exists():  # another source has the same adapter files
        run.cells[unit] = replace(entry, status="done", reason="")
        return
    if target.refused:  # nothing is asked whose answers cannot be judged
        run.cells[unit] = replace(entry, status="failed", reason=target.refused)
        return
    started = time.monotonic()
    try:
        answers = engine.answer(target.requests, _adapter_path(run, unit), meter.hear)
        scored = target.score(answers)
        conditions = _cell_conditions(run, unit)
        path = run.store.cell(entry.key)
        write_cell(path, outcomes=scored.outcomes, aggregates=scored.aggregates, conditions=conditions)
    except Exception as error:
        run.cells[unit] = replace(entry, status="failed", reason=_reason(error, run.store))
        return
    seconds = round(time.monotonic() - started, 3)
    run.cells[unit] = replace(entry, status="done", reason="", seconds=seconds)


def _adapter_path(run: _Run, unit: CellUnit) -> Path | ServedAdapter | None:
    if unit.source == BASELINE:
        return None
    key = run.adapters[unit.source, unit.seed].key
    return run.sources[unit.source].adapter if key is None else run.store.adapter(key)


def _cell_conditions(run: _Run, unit: CellUnit) -> dict[str, Any]:
    """All that determines the cell, and how it was computed. No names of sources: several may share it."""
    target = run.targets[unit.target]
    adapter = None if unit.source == BASELINE else run.adapters[unit.source, unit.seed].digest
    return {
        "base": run.head.base,
        "adapter": adapter,
        "target": target.digest,
        "metric": target.metric,
        "filter": target.filter,
        "asked": dict(target.conditions),
        "engine": dict(run.head.conditions),
    }


def _reason(error: Exception, store: RunStore) -> str:
    """Why a unit failed, in one line. A disk that cannot be written ends the run instead."""
    if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        raise RunError(
            f"{store.folder}: cannot be written ({error.strerror}); make room and run again, what is "
            "finished is kept."
        ) from error
    if isinstance(error, TraitmapError):
        return str(error)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} (a defect; {Path(frame.filename).name} line {frame.lineno})"


def _rough_tokens(run: _Run, group: Sequence[AdapterUnit]) -> float:
    total = 0.0
    for unit in group:
        source = run.sources[unit.source]
        lengths = rough_token_counts([example.text for example in source.examples])
        total += training_tokens(lengths, source.training)
    return total


def _plain(report: TrainingReport) -> dict[str, Any]:
    """A training report as JSON data; a loss that is no number is null."""
    losses = [loss if isfinite(loss) else None for loss in report.losses]
    return {**asdict(report), "losses": losses}


def _row(unit: CellUnit) -> str:
    if unit.source == BASELINE:
        return "base"
    return unit.source if unit.seed is None else f"{unit.source} seed {unit.seed}"


class _Meter:
    """Adds up the progress of units whose sizes are guessed until the engine tells them.

    Units that are finished count as the engine counted them, those to come as ``expected``.
    """

    def __init__(self, stage: str, listener: Listener, expected: Sequence[float]) -> None:
        self.stage = stage
        self.listener = listener
        self.expected = list(expected)
        self.finished = 0.0
        self.detail = ""

    def hear(self, progress: Progress) -> None:
        done, total = self.finished + progress.done, self.finished + progress.total
        self.expected[0] = progress.total
        detail = self.detail or progress.detail
        self.listener(Progress(self.stage, done, total + sum(self.expected[1:]), detail))

    def next_unit(self) -> None:
        """The unit in hand is over, done or failed."""
        self.finished += self.expected.pop(0)
        self.listener(Progress(self.stage, self.finished, self.finished + sum(self.expected), self.detail))
