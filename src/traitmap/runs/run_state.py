"""The state of a run that is being written.

Whoever computes its units (`runs.units`), here or on a cluster, hands results to the one ``RunState`` in the
one process that holds the run's lock; it alone changes the run's files.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitmap.data.records import AdapterPlace, Outcome
from traitmap.engine.contract import Engine, MergeJob, PassCheckpoint, TrainingJob
from traitmap.engine.pass_state import read_state
from traitmap.errors import ModelError, NewerRunError, RunError
from traitmap.runs.cells import CellResult, read_conditions, read_outcomes, write_cells
from traitmap.runs.cost import rough_token_counts, trained_tokens
from traitmap.runs.files import disk_trouble, partial_path, publish, removed_on_failure, sync
from traitmap.runs.ledger import (
    AdapterEntry,
    CellEntry,
    Ledger,
    describe_source,
    describe_target,
    read_ledger,
    read_parts,
    write_ledger,
)
from traitmap.runs.plan import (
    AdapterUnit,
    CellUnit,
    MergeUnit,
    Plan,
    adapter_digest,
    cell_key,
    make_plan,
    trainings,
)
from traitmap.runs.store import (
    RunStore,
    TrainedAdapter,
    check_adapters,
    check_cell,
    commit_adapters,
    freeze_study,
    stage_adapter,
)
from traitmap.runs.units import UnitFailure
from traitmap.study.derived import MERGE_METHODS
from traitmap.study.settings import BASELINE, Study
from traitmap.wording import counted

if TYPE_CHECKING:
    from traitmap.data.sources import LoadedSource
    from traitmap.data.targets import LoadedTarget


Group = tuple[AdapterUnit, ...]


@dataclass(frozen=True)
class PassCheckpoints:
    """How often a training pass keeps how far it is: ``seconds`` apart, at least.

    tell: gets a line where a pass goes on from what was kept, or does not.
    """

    seconds: float
    tell: Callable[[str], None]


@dataclass
class RunState:
    """A run in progress: the plan, and the ledger's entries as they stand. Needs the lock.

    checkpoints: of training passes on this machine; None where they keep nothing. parts: keys of cells that
    hold some items of a unit.
    """

    store: RunStore
    plan: Plan
    head: Ledger
    sources: Mapping[str, LoadedSource]
    targets: Mapping[str, LoadedTarget]
    adapters: dict[tuple[str, int | None], AdapterEntry]
    cells: dict[CellUnit, CellEntry]
    record: Callable[[RunStore, Ledger], None] = write_ledger
    checkpoints: PassCheckpoints | None = None
    parts: Mapping[CellUnit, str] = field(default_factory=dict)

    def write(self) -> None:
        """Keep the entries as they stand."""
        adapters, cells = tuple(self.adapters.values()), tuple(self.cells.values())
        self.record(self.store, replace(self.head, adapters=adapters, cells=cells))

    def find_cell(self, unit: CellUnit) -> None:
        """Bring a cell's entry up to date with its adapter: its key, or why it cannot have one.

        A file that is there counts whatever the ledger says, if it is whole; a damaged one goes to the
        quarantine. A failure stays a failure until the cell is computed. A cell that the unit had under
        another key is remembered until then, since its items need not be asked again.
        """
        digest, entry = None, CellEntry(unit.source, unit.seed, unit.target, None)
        if unit.source != BASELINE:
            adapter = self.adapters[unit.source, unit.seed]
            digest = adapter.digest
            if adapter.status != "done":
                failed = replace(entry, status="failed", reason=f"no adapter: {adapter.reason}")
                self.cells[unit] = failed if adapter.status == "failed" else entry
                return
        key = cell_key(self.head.base, digest, self.targets[unit.target].digest)
        listed = self.cells[unit]
        if listed.key == key:
            entry = listed
        else:
            done = listed.key is not None and self.store.cell(listed.key).exists()
            entry = replace(entry, earlier=listed.key if done else listed.earlier)
        if check_cell(self.store, key):
            self.cells[unit] = replace(entry, key=key, status="done", reason="", earlier=None)
        elif entry.status != "failed":
            self.cells[unit] = replace(entry, key=key, status="missing", seconds=None)

    def jobs(self, group: Sequence[AdapterUnit]) -> list[TrainingJob]:
        """What the engine is asked to train.

        One for each of the group's ``trainings``, in order. A source draws its first weights under the name
        of the source that it varies (``LoadedSource.draws_as``).
        """
        jobs = []
        for *earlier, last in trainings(group):
            source = self.sources[last.source]
            jobs.append(
                TrainingJob(
                    name=source.draws_as,
                    seed=last.seed,
                    examples=tuple(source.examples),
                    lora=source.lora,
                    training=source.training,
                    checkpoints=tuple(unit.step for unit in earlier if unit.step is not None),
                    until=last.step,
                )
            )
        return jobs

    def merge_job(self, unit: MergeUnit) -> MergeJob | None:
        """What the engine is asked to merge; None where a parent's adapter is not there.

        Where it is known not to come, the merge's entry then says so.
        """
        for parent in unit.parents:
            entry = self.adapters[parent]
            if entry.status == "failed":
                row = entry.source + ("" if entry.seed is None else f" seed {entry.seed}")
                self.fail_adapter(unit, f"{row} has no adapter: {entry.reason}")
            if entry.status != "done":
                return None
        merge = self.sources[unit.source].merge
        assert merge is not None
        folders = [self._folder(*parent) for parent in unit.parents]
        assert all(isinstance(folder, Path) for folder in folders)
        draws = MERGE_METHODS[merge.method].draws
        return MergeJob(
            folders=tuple(folder for folder in folders if isinstance(folder, Path)),
            weights=merge.weights,
            method=merge.method,
            density=merge.density,
            majority_sign_method=merge.majority_sign_method,
            seed=unit.seed if draws else None,
        )

    def commit_merge(self, unit: MergeUnit, result: TrainedAdapter | UnitFailure) -> None:
        """Make a staged merge count, or say why it is not there."""
        if isinstance(result, UnitFailure):
            self.fail_adapter(unit, result.reason)
        else:
            commit_adapters(self.store, [result])
            place = unit.source, unit.seed
            self.adapters[place] = finished(self.adapters[place], result)
        self.unstage([unit])

    def rough_tokens(self, group: Sequence[AdapterUnit]) -> float:
        """Tokens of a training pass, guessed from characters.

        Summed over the units, all steps of each; no engine is asked.
        """
        return sum(
            trained_tokens(units, self.sources[units[-1].source], rough_token_counts)
            for units in trainings(group)
        )

    def stage(self, group: Sequence[AdapterUnit | MergeUnit]) -> list[Path]:
        """Empty folders for a group's adapters.

        In the order of the group; what a killed pass left in one is removed first.
        """
        return [stage_adapter(self.store, unit.key) for unit in group]

    def checkpoint(self, group: Sequence[AdapterUnit]) -> PassCheckpoint | None:
        """Where the training pass of a group keeps how far it is."""
        if self.checkpoints is None:
            return None
        path, tell = self.store.training_state([unit.key for unit in group]), self.checkpoints.tell

        def write(write_file: Callable[[Path], None]) -> bool:
            partial = partial_path(path)
            try:
                path.parent.mkdir(exist_ok=True)
                with removed_on_failure(partial):
                    write_file(partial)
                    sync(partial)
                    publish(partial, path)
            except Exception as error:
                trouble = disk_trouble(error)
                if not trouble:
                    raise
                tell(f"how far training is cannot be kept ({trouble}): a kill would cost the whole pass.")
                return False
            return True

        return PassCheckpoint(path, self.checkpoints.seconds, write, tell)

    def commit_group(
        self, group: Sequence[AdapterUnit], results: Sequence[TrainedAdapter | UnitFailure]
    ) -> None:
        """Make the staged adapters of a training pass count, all together, and say why others are not there.

        results: what came of each, in the order of the group.
        """
        trained = [result for result in results if isinstance(result, TrainedAdapter)]
        if trained:
            commit_adapters(self.store, trained)
        for unit, result in zip(group, results, strict=True):
            if isinstance(result, UnitFailure):
                self.fail_group([unit], result.reason)
            else:
                place = unit.source, unit.seed
                self.adapters[place] = finished(self.adapters[place], result)
        self.unstage(group)
        self.store.training_state([unit.key for unit in group]).unlink(missing_ok=True)

    def unstage(self, group: Sequence[AdapterUnit | MergeUnit]) -> None:
        """Remove what a training pass left that does not count."""
        for unit in group:
            shutil.rmtree(partial_path(self.store.adapter(unit.key)), ignore_errors=True)

    def fail_group(self, group: Sequence[AdapterUnit], reason: str) -> None:
        """Say why adapters are not there."""
        for unit in group:
            self.fail_adapter(unit, reason)

    def fail_adapter(self, unit: AdapterUnit | MergeUnit, reason: str) -> None:
        """Say why one adapter is not there."""
        place = unit.source, unit.seed
        self.adapters[place] = replace(self.adapters[place], status="failed", digest=None, reason=reason)

    def split(self, group: Group) -> tuple[Group, Group]:
        """A group in halves, for want of memory; what one training gives stays together.

        The ledger tells that they are trained apart from now on.
        """
        parts = trainings(group)
        first, second = parts[: len(parts) // 2], parts[len(parts) // 2 :]
        halves = tuple(chain.from_iterable(first)), tuple(chain.from_iterable(second))
        number = 1 + max(adapter.group or 0 for adapter in self.adapters.values())
        for unit in halves[1]:
            place = unit.source, unit.seed
            self.adapters[place] = replace(self.adapters[place], group=number)
        return halves

    def commit_cells(self, results: Sequence[tuple[CellUnit, CellResult]]) -> None:
        """Store what came of some cells.

        All their files are on the disk when this returns; their entries are done, and not written yet.
        """
        cells = []
        for unit, result in results:
            key = self.cells[unit].key
            assert key is not None
            cells.append((self.store.cell(key), result, self.cell_conditions(unit)))
        write_cells(cells)
        for unit, result in results:
            entry = replace(self.cells[unit], status="done", reason="", earlier=None)
            self.cells[unit] = replace(entry, seconds=result.seconds)

    def outcomes_before(self, unit: CellUnit) -> tuple[Sequence[Outcome], str] | None:
        """Outcomes of a cell's adapter on its target from earlier cells, and the metric that judged them.

        None where there are none, or the files are damaged or of another adapter or base.
        """
        digest = None if unit.source == BASELINE else self.adapters[unit.source, unit.seed].digest
        for key in (self.cells[unit].earlier, self.parts.get(unit)):
            if key is None or key == self.cells[unit].key:
                continue
            try:
                path = self.store.cell(key)
                conditions = read_conditions(path)
                if (conditions.get("base"), conditions.get("adapter")) == (self.head.base, digest):
                    return read_outcomes(path), str(conditions.get("metric"))
            except RunError:
                continue
        return None

    def fail_cell(self, unit: CellUnit, reason: str) -> None:
        """Say why a cell is not there."""
        self.cells[unit] = replace(self.cells[unit], status="failed", reason=reason)

    def settle_unasked(self, unit: CellUnit) -> bool:
        """Whether no engine is needed: another source has the same files, or its answers are not judged.

        Its entry then says so: done, or failed with the reason why the target's answers are not judged.
        """
        entry, refused = self.cells[unit], self.targets[unit.target].refused
        assert entry.key is not None
        if self.store.cell(entry.key).exists():
            self.cells[unit] = replace(entry, status="done", reason="", earlier=None)
            return True
        if refused:
            self.fail_cell(unit, refused)
        return bool(refused)

    def adapter_of(self, unit: CellUnit) -> AdapterPlace | None:
        """Where a cell's adapter lies; None for the base.

        A folder of this machine, what a server holds under a name, or a whole model in its place.
        """
        return None if unit.source == BASELINE else self._folder(unit.source, unit.seed)

    def _folder(self, source: str, seed: int | None) -> AdapterPlace | None:
        key = self.adapters[source, seed].key
        return self.sources[source].adapter if key is None else self.store.adapter(key)

    def cell_conditions(self, unit: CellUnit) -> dict[str, Any]:
        """All that determines a cell, and how it was computed. No names of sources: several may share it."""
        target = self.targets[unit.target]
        adapter = None if unit.source == BASELINE else self.adapters[unit.source, unit.seed].digest
        return {
            "base": self.head.base,
            "adapter": adapter,
            "target": target.digest,
            "metric": target.metric,
            "filter": target.filter,
            "asked": dict(target.conditions),
            "engine": dict(self.head.conditions),
        }


def open_run(
    store: RunStore,
    study: Study,
    engine: Engine,
    sources: Sequence[LoadedSource],
    targets: Sequence[LoadedTarget],
    *,
    group_size: int | None,
    token_budget: int | None,
    checkpoints: PassCheckpoints | None = None,
) -> RunState:
    """Plan a study and find what of it is done. Adapters not trained yet stay in the groups that an earlier
    run of this folder gave them, unless ``group_size`` or ``token_budget`` asks for others."""
    before = _ledger_before(store, engine.base_digest)
    recorded: dict[str, int] = {}
    if before and group_size is None and token_budget is None:
        recorded = {
            adapter.key: adapter.group
            for adapter in before.adapters
            if adapter.key and adapter.group is not None
        }
    plan = make_plan(
        study=study,
        sources=sources,
        targets=targets,
        base_digest=engine.base_digest,
        group_size=group_size,
        token_budget=token_budget,
        largest_group=engine.largest_group,
        recorded=recorded,
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
        records=before.records if before else (),
    )
    former = {CellUnit(cell.source, cell.seed, cell.target): cell for cell in before.cells} if before else {}
    run = RunState(
        store=store,
        plan=plan,
        head=head,
        sources=by_name,
        targets={target.name: target for target in targets},
        adapters=_adapter_entries(plan, by_name, check_adapters(store), before),
        cells={
            unit: former.get(unit) or CellEntry(unit.source, unit.seed, unit.target, None)
            for unit in plan.cells
        },
        checkpoints=checkpoints,
        parts={
            CellUnit(cell.source, cell.seed, cell.target): cell.key
            for cell in _parts_before(store)
            if cell.key is not None and cell.status == "done"
        },
    )
    for unit in plan.cells:
        run.find_cell(unit)
    return run


def other_passes(run: RunState, groups: Sequence[Group]) -> list[Path]:
    """Files in which passes that none of these groups is kept how far they were; a line tells of each."""
    asked = {run.store.training_state([unit.key for unit in group]) for group in groups}
    others = sorted(set(run.store.training.glob("[!.]*.safetensors")) - asked)
    for path in others if run.checkpoints is not None else ():
        assert run.checkpoints is not None
        try:
            adapters = read_state(path).facts["adapters"]
            names = ", ".join(adapter["name"] for adapter in adapters[:3])
            more = f" and {len(adapters) - 3} more" if len(adapters) > 3 else ""
            done = max(len(adapter["losses"]) for adapter in adapters)
            whose = f" of {names}{more}, {counted(done, 'step')} long,"
        except (ValueError, KeyError, TypeError):
            whose = ", whose state is damaged,"
        run.checkpoints.tell(
            f"a training pass{whose} was ended early and is not gone on with: its adapters are done, or are "
            "trained otherwise, or in other groups, now."
        )
    return others


def finished(entry: AdapterEntry, trained: TrainedAdapter) -> AdapterEntry:
    """The entry of an adapter that is there.

    Its report keeps the number of steps and the last loss (nats per token) in place of all losses.
    """
    report = {name: value for name, value in trained.report.items() if name not in ("losses", "failure")}
    if (losses := trained.report.get("losses")) is not None:
        report |= {"steps": len(losses), "last_loss": losses[-1] if losses else None}
    return replace(entry, status="done", digest=trained.digest, reason="", report=report)


def _ledger_before(store: RunStore, base_digest: str) -> Ledger | None:
    """What the folder's last run knew; None where there was none, or its ledger cannot be read."""
    try:
        before = read_ledger(store)
    except NewerRunError:
        raise
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


def _parts_before(store: RunStore) -> tuple[CellEntry, ...]:
    """Partial cells of the folder's last run; none where their list cannot be read."""
    try:
        return read_parts(store).cells
    except RunError:
        return ()


def _adapter_entries(
    plan: Plan,
    sources: Mapping[str, LoadedSource],
    trained: Mapping[str, TrainedAdapter],
    before: Ledger | None,
) -> dict[tuple[str, int | None], AdapterEntry]:
    failed = [adapter for adapter in before.adapters if adapter.status == "failed"] if before else []
    failures = {adapter.key: adapter.reason for adapter in failed}
    entries: dict[tuple[str, int | None], AdapterEntry] = {}
    for number, group in enumerate(plan.groups):
        for unit in group:
            entries[unit.source, unit.seed] = AdapterEntry(unit.source, unit.seed, unit.key, number)
    for merge in plan.merges:
        entries[merge.source, merge.seed] = AdapterEntry(merge.source, merge.seed, merge.key, None)
    for place, entry in entries.items():
        if entry.key is not None and entry.key in trained:
            entries[place] = finished(entry, trained[entry.key])
        elif entry.key in failures:
            entries[place] = replace(entry, status="failed", reason=failures[entry.key])
    for name in plan.existing:
        entry = AdapterEntry(name, None, None, None)
        path = sources[name].adapter
        assert path is not None
        try:
            entries[name, None] = replace(entry, status="done", digest=adapter_digest(path))
        except ModelError as error:
            entries[name, None] = replace(entry, status="failed", reason=str(error))
    return entries
