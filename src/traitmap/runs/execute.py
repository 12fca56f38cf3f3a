"""Run a study: train group by group, score cell by cell, keep all that is finished."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from traitmap.engine.contract import Engine
from traitmap.progress import Listener, Progress, silent
from traitmap.runs.files import disk_trouble
from traitmap.runs.ledger import CellEntry, Ledger, Parts, Selection, read_parts, write_parts
from traitmap.runs.plan import CellUnit, MergeUnit, cell_key, missing_groups, trainings
from traitmap.runs.run_state import (
    Group,
    PassCheckpoints,
    RunState,
    open_run,
    other_passes,
)
from traitmap.runs.store import RunStore, TrainedAdapter, check_cell, locked_store, run_folder
from traitmap.runs.texts import write_texts
from traitmap.runs.units import UnitFailure, answer_and_score, failure_of, merge, train
from traitmap.study.settings import BASELINE, Study

if TYPE_CHECKING:
    from traitmap.data.sources import LoadedSource
    from traitmap.data.targets import LoadedTarget


@runtime_checkable
class Workforce(Protocol):
    """An engine that is more than one machine, and drives its own work."""

    def drive(
        self,
        run: RunState,
        groups: Sequence[Group],
        cells: Sequence[CellUnit],
        listener: Listener,
        merges: Sequence[MergeUnit] = (),
    ) -> None:
        """Train the groups, merge and evaluate the cells, handing what comes of them to the run.

        Returns when every unit is done or has failed; progress as ``execute`` reports it.
        """


def execute(
    study: Study,
    engine: Engine,
    sources: Sequence[LoadedSource],
    targets: Sequence[LoadedTarget],
    listener: Listener = silent,
    *,
    group_size: int | None = None,
    token_budget: int | None = None,
    selection: Selection | None = None,
    checkpoints: PassCheckpoints | None = None,
) -> RunStore:
    """Do whatever of a study is not done yet, in the folder ``output/name``.

    What is finished is kept at once, so that an interrupt (raised on) or a kill costs the unit in hand, of a
    training pass what came after its last checkpoint, and running again gives the same bytes as never having
    stopped. A unit that fails is recorded with its reason and the rest goes on; running again tries it anew.
    A study that has changed is fine: what has the same key is reused. ``status.run_status`` counts what is
    done, failed and missing.

    engine: of this machine, or a ``Workforce``, which does the same units elsewhere.
    group_size, token_budget: see ``plan.make_plan``; where both are None, adapters that an earlier run has
    put into groups stay in them. A group that memory does not hold is trained in halves, and the ledger
    tells it. selection: do no more than this. Adapters selected are
    trained with those of their group that are selected too, so their last digits, and only these, may
    differ from what the whole group gives; whatever is trained is kept and used by later runs.
    checkpoints: how often a training pass on this machine keeps how far it is; None: never.
    Reports progress in stages ``train`` (tokens) and ``evaluate`` (requests).
    Raises RunError where another process runs this study, where the run was made with another base, and
    where the disk is full.
    """
    with locked_store(run_folder(study)) as store:
        run = open_run(
            store,
            study,
            engine,
            sources,
            targets,
            group_size=group_size,
            token_budget=token_budget,
            checkpoints=checkpoints,
        )
        try:
            run.write()
            write_texts(store, sources, targets)
            done = {entry.key for entry in run.adapters.values() if entry.status == "done" and entry.key}
            if selection is None:
                groups = missing_groups(run.plan, done)
                others = other_passes(run, groups)
                merges = tuple(unit for unit in run.plan.merges if unit.key not in done)
                _drive(run, engine, listener, groups, run.plan.cells, merges)
                for path in others:
                    path.unlink(missing_ok=True)
            else:
                _drive_selection(run, engine, listener, selection, done)
        finally:
            run.write()
    return store


def _drive_selection(
    run: RunState, engine: Engine, listener: Listener, selection: Selection, done: set[str]
) -> None:
    """Adapters and whole cells of a selection, then its partial cells that no whole one replaces."""
    merges = _merges_of(run, selection.cells, done)
    done |= {unit.key for unit in run.plan.adapters if (unit.source, unit.seed) not in selection.adapters}
    whole = tuple(unit for unit in selection.cells if unit.target not in selection.items)
    _drive(run, engine, listener, missing_groups(run.plan, done), whole, merges)
    partial = tuple(unit for unit in selection.cells if unit.target in selection.items)
    for unit in partial:
        run.find_cell(unit)
    partial = tuple(unit for unit in partial if run.cells[unit].status != "done")
    if partial:
        part = _partial_run(run, selection, partial)
        if part.plan.cells:
            try:
                _drive(part, engine, listener, (), part.plan.cells)
            finally:
                _remove_former(run, part)


def _merges_of(run: RunState, cells: Sequence[CellUnit], done: set[str]) -> tuple[MergeUnit, ...]:
    """Merges that some cells need and that are not done, parents first; they cost no training."""
    needed = {(unit.source, unit.seed) for unit in cells}
    for unit in reversed(run.plan.merges):
        if (unit.source, unit.seed) in needed:
            needed |= set(unit.parents)
    wanted = (unit for unit in run.plan.merges if (unit.source, unit.seed) in needed)
    return tuple(unit for unit in wanted if unit.key not in done)


def _drive(
    run: RunState,
    engine: Engine,
    listener: Listener,
    groups: Sequence[Group],
    cells: Sequence[CellUnit],
    merges: Sequence[MergeUnit] = (),
) -> None:
    """All that a run on one engine does; a training pass that memory does not hold is done in halves.

    merges: those to be done, each behind its parents.
    """
    if isinstance(engine, Workforce):
        engine.drive(run, groups, cells, listener, merges)
        return
    todo = deque(groups)
    meter = ProgressAggregator("train", listener, [run.rough_tokens(group) for group in groups])
    while todo:
        group = todo.popleft()
        if _train_group(run, engine, group, meter):
            meter.next_unit()
        else:
            halves = run.split(group)
            todo.extendleft(reversed(halves))
            meter.replace_unit([run.rough_tokens(half) for half in halves])
        run.write()
    for unit in merges:
        _merge(run, engine, unit, listener)
    _evaluate(run, engine, cells, listener)


def _merge(run: RunState, engine: Engine, unit: MergeUnit, listener: Listener) -> None:
    """One merge, unless a parent of it is not there."""
    job = run.merge_job(unit)
    if job is not None:
        (folder,) = run.stage([unit])
        try:
            result: TrainedAdapter | UnitFailure = merge(engine, unit.key, job, folder)
        except Exception as error:
            if disk_trouble(error):
                raise
            result = failure_of(error)
        run.commit_merge(unit, result)
    run.write()


def _train_group(run: RunState, engine: Engine, group: Group, meter: ProgressAggregator) -> bool:
    """One training pass. Its adapters count all together, when the last of them is written.

    False where memory does not hold it and it can be divided.
    """
    folders = run.stage(group)
    try:
        results = train(engine, group, run.jobs(group), folders, meter.hear, run.checkpoint(group))
    except Exception as error:
        if disk_trouble(error):
            raise
        failure = failure_of(error)
        if failure.memory and len(trainings(group)) > 1:
            return False
        run.fail_group(group, failure.reason)
    else:
        run.commit_group(group, results)
    finally:
        run.unstage(group)
    return True


def _evaluate(run: RunState, engine: Engine, cells: Sequence[CellUnit], listener: Listener) -> None:
    """Every one of the cells that is not done and can be."""
    for unit in run.plan.cells:
        if run.cells[unit].status != "done":
            run.find_cell(unit)
    todo = [unit for unit in cells if run.cells[unit].status != "done" and run.cells[unit].key]
    meter = ProgressAggregator(
        "evaluate", listener, [len(run.targets[unit.target].requests) for unit in todo]
    )
    for place, unit in enumerate(todo):
        meter.detail = row_name(unit) + f" -> {unit.target}"
        if not run.settle_unasked(unit):
            try:
                result = answer_and_score(
                    engine,
                    run.targets[unit.target],
                    run.adapter_of(unit),
                    meter.hear,
                    run.outcomes_before(unit),
                )
            except Exception as error:
                if disk_trouble(error):
                    raise
                run.fail_cell(unit, failure_of(error).reason)
            else:
                run.commit_cells([(unit, result)])
        meter.next_unit()
        last = place + 1 == len(todo) or row_name(todo[place + 1]) != row_name(unit)
        if last or run.cells[unit].status == "failed":
            run.write()


def _partial_run(run: RunState, selection: Selection, units: tuple[CellUnit, ...]) -> RunState:
    """The run as it looks to its partial cells: targets of the selected items, and a list of their own.

    Its plan has those units that do not hold the selected items yet.
    """
    before = read_parts(run.store)
    order = dict(before.order)
    for name, items in selection.items.items():
        common = min(len(items), len(before.order.get(name, ())))
        if before.order.get(name, ())[:common] != items[:common] or common < len(items):
            order[name] = items
    listed = {
        CellUnit(cell.source, cell.seed, cell.target): cell
        for cell in before.cells
        if order.get(cell.target, ())[: cell.asked] == before.order.get(cell.target, ())[: cell.asked]
    }
    held = {unit for unit in units if unit in listed and _holds(run, before, listed[unit], selection)}
    todo = tuple(unit for unit in units if unit not in held)
    targets = {
        name: run.targets[name].part(sorted(items))
        for name, items in selection.items.items()
        if any(unit.target == name for unit in todo)
    }
    blank = {unit: CellEntry(unit.source, unit.seed, unit.target, None) for unit in todo}
    same = {
        unit: listed[unit]
        for unit in todo
        if unit in listed and listed[unit].asked == len(selection.items[unit.target])
    }

    def record(store: RunStore, ledger: Ledger) -> None:
        write_parts(store, Parts(order, ledger.cells, selection.asking or before.asking))

    part = replace(
        run,
        plan=replace(run.plan, cells=todo),
        targets={**run.targets, **targets},
        cells=listed | blank | same,
        record=record,
    )
    for unit in todo:
        part.find_cell(unit)
        part.cells[unit] = replace(part.cells[unit], asked=len(selection.items[unit.target]))
    if todo:
        part.write()
    return part


def _holds(run: RunState, parts: Parts, cell: CellEntry, selection: Selection) -> bool:
    """Whether a partial cell is done and holds more items than are selected, of the target as it is now."""
    target = run.targets[cell.target]
    asked = cell.asked or 0
    if cell.status != "done" or asked <= len(selection.items[cell.target]) or asked > target.n_items:
        return False
    adapter = None if cell.source == BASELINE else run.adapters[cell.source, cell.seed].digest
    digest = target.part(parts.items_of(cell)).digest
    key = cell_key(run.head.base, adapter, digest)
    return cell.key == key and check_cell(run.store, key)


def _remove_former(run: RunState, part: RunState) -> None:
    """Remove the files of partial cells that hold fewer items than those which have taken their places."""
    cells = (*run.cells.values(), *part.cells.values())
    needed = {key for cell in cells for key in (cell.key, cell.earlier)}
    for unit in part.plan.cells:
        former = run.parts.get(unit)
        if former is not None and former not in needed and part.cells[unit].status == "done":
            run.store.cell(former).unlink(missing_ok=True)


def row_name(unit: CellUnit) -> str:
    """Whose cell it is, in words.

    ``base`` for the base's cells; of a trained adapter its source and seed, of one that existed before its
    source alone.
    """
    if unit.source == BASELINE:
        return "base"
    return unit.source if unit.seed is None else f"{unit.source} seed {unit.seed}"


class ProgressAggregator:
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
        """Progress of the unit in hand.

        What the unit in hand needs in all counts as the engine reports it, no longer as it was expected.
        """
        done, total = self.finished + progress.done, self.finished + progress.total
        self.expected[0] = progress.total
        detail = self.detail or progress.detail
        self.listener(Progress(self.stage, done, total + sum(self.expected[1:]), detail))

    def next_unit(self) -> None:
        """The unit in hand is over, done or failed."""
        self.finished += self.expected.pop(0)
        self.listener(Progress(self.stage, self.finished, self.finished + sum(self.expected), self.detail))

    def replace_unit(self, expected: Sequence[float]) -> None:
        """The unit in hand is to be done in parts."""
        self.expected[:1] = expected
