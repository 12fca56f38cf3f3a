"""The state of a run that is being written, and how one of its units is computed.

A unit goes in with an engine and a result comes out, the same on every machine. Whoever computes, here or
on a cluster, hands results to the one ``RunState`` in the one process that holds the run's lock; it alone
changes the run's files.
"""

from __future__ import annotations

import shutil
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitmap.data.adapters import numbers_without_value
from traitmap.data.records import AdapterPlace, Outcome, require_answers
from traitmap.engine.contract import Engine, PassCheckpoint, TrainingJob, TrainingReport
from traitmap.engine.pass_state import read_state
from traitmap.errors import ModelError, NewerRunError, RunError, TraitmapError, UserError
from traitmap.progress import Listener, silent
from traitmap.runs.cells import CellResult, outcome_table, read_conditions, read_outcomes, write_cells
from traitmap.runs.cost import rough_token_counts, training_tokens
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
from traitmap.runs.plan import AdapterUnit, CellUnit, Plan, adapter_digest, cell_key, make_plan
from traitmap.runs.store import (
    RunStore,
    TrainedAdapter,
    check_adapters,
    check_cell,
    commit_adapters,
    freeze_study,
    stage_adapter,
)
from traitmap.study.settings import BASELINE, Study
from traitmap.wording import counted

if TYPE_CHECKING:
    from traitmap.data.sources import LoadedSource
    from traitmap.data.targets import LoadedTarget


_OUT_OF_MEMORY = frozenset({"OutOfMemoryError", "MemoryError", "ArrayMemoryError"})


@dataclass(frozen=True)
class UnitFailure:
    """Why a unit gave no result.

    memory: memory ran out, so that a smaller group may do. final: another try would fail as well.
    """

    reason: str
    memory: bool = False
    final: bool = False


def train(
    engine: Engine,
    keys: Sequence[str],
    jobs: Sequence[TrainingJob],
    folders: Sequence[Path],
    listener: Listener = silent,
    checkpoint: PassCheckpoint | None = None,
) -> list[TrainedAdapter | UnitFailure]:
    """One training pass: a finished adapter in its folder, or why there is none, for each job in order.

    checkpoint: where the pass keeps how far it is. Raises what the engine raises where the whole pass fails.
    """
    kept = {} if checkpoint is None else {"checkpoint": checkpoint}
    reports = engine.train(jobs, folders, listener, **kept)
    return [_collect(*entry) for entry in zip(keys, folders, reports, strict=True)]


def answer_and_score(
    engine: Engine,
    target: LoadedTarget,
    adapter: AdapterPlace | None,
    listener: Listener = silent,
    before: tuple[Sequence[Outcome], str] | None = None,
) -> CellResult:
    """One cell: answers to all requests of a target, scored. Nothing of any other cell has a part in it.

    adapter: a PEFT directory, one that a server holds, or None for the base. Its seconds are those of
    answering and scoring. before: outcomes of the same adapter on items of the target, and the metric that
    judged them: only what they do not tell is asked. Raises what the engine or the scoring raises, and
    ModelError where an answer is none (``records.require_answers``).
    """
    started = time.monotonic()
    known = target.known_answers(*before) if before else [None] * len(target.requests)
    asked = [request for request, answer in zip(target.requests, known, strict=True) if answer is None]
    fresh = iter(engine.answer(asked, adapter, listener) if asked else ())
    answers = [next(fresh) if answer is None else answer for answer in known]
    require_answers(target.requests, answers)
    scored = target.score(answers)
    seconds = round(time.monotonic() - started, 3)
    return CellResult(outcome_table(scored.outcomes), dict(scored.aggregates), seconds)


def failure_of(error: BaseException) -> UnitFailure:
    """Why a unit failed, in one line.

    A fault that the user must mend is final. An error of any other package is called a defect, with file and
    line, unless memory ran out.
    """
    memory = ran_out_of_memory(error)
    if isinstance(error, TraitmapError):
        return UnitFailure(str(error), memory, final=isinstance(error, UserError))
    if memory:
        return UnitFailure(
            f"memory ran out ({type(error).__name__}: {' '.join(str(error).split())[:200]})", True
        )
    frames = traceback.extract_tb(error.__traceback__)
    place = f"; {Path(frames[-1].filename).name} line {frames[-1].lineno}" if frames else ""
    return UnitFailure(f"{type(error).__name__}: {error} (a defect{place})")


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether lack of memory is what an error comes from, by the names of it and of its causes.

    Names, since torch's error cannot be named where torch is not imported.
    """
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        if type(cause).__name__ in _OUT_OF_MEMORY:
            return True
        seen.add(id(cause))
        cause = cause.__cause__ or cause.__context__
    return False


def _collect(key: str, folder: Path, report: TrainingReport) -> TrainedAdapter | UnitFailure:
    if report.failure is not None:
        return UnitFailure(report.failure)
    if not all(isfinite(loss) for loss in report.losses):
        return UnitFailure("diverged: a training loss is no number; lower learning_rate")
    try:
        if unknown := numbers_without_value(folder):
            return UnitFailure(f"diverged: {unknown} of its weights are NaN or infinite; lower learning_rate")
        return TrainedAdapter(key, adapter_digest(folder), asdict(report))
    except ModelError as error:
        return UnitFailure(f"the engine reported success and left no adapter: {error}")


Group = tuple[AdapterUnit, ...]


@dataclass(frozen=True)
class Checkpoints:
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
    checkpoints: Checkpoints | None = None
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

        One for each unit, in order. A source draws its first weights under the name of the source that it
        varies (``LoadedSource.draws_as``).
        """
        pairs = [(unit, self.sources[unit.source]) for unit in group]
        return [
            TrainingJob(source.draws_as, unit.seed, tuple(source.examples), source.lora, source.training)
            for unit, source in pairs
        ]

    def rough_tokens(self, group: Sequence[AdapterUnit]) -> float:
        """Tokens of a training pass, guessed from characters.

        Summed over the units, all steps of each; no engine is asked.
        """
        total = 0.0
        for unit in group:
            source = self.sources[unit.source]
            lengths = rough_token_counts([example.text for example in source.examples])
            total += training_tokens(lengths, source.training)
        return total

    def stage(self, group: Sequence[AdapterUnit]) -> list[Path]:
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

    def unstage(self, group: Sequence[AdapterUnit]) -> None:
        """Remove what a training pass left that does not count."""
        for unit in group:
            shutil.rmtree(partial_path(self.store.adapter(unit.key)), ignore_errors=True)

    def fail_group(self, group: Sequence[AdapterUnit], reason: str) -> None:
        """Say why adapters are not there."""
        for unit in group:
            place = unit.source, unit.seed
            self.adapters[place] = replace(self.adapters[place], status="failed", digest=None, reason=reason)

    def split(self, group: Group) -> tuple[Group, Group]:
        """A group in halves, for want of memory. The ledger tells that they are trained apart from now on."""
        halves = group[: len(group) // 2], group[len(group) // 2 :]
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
        if unit.source == BASELINE:
            return None
        key = self.adapters[unit.source, unit.seed].key
        return self.sources[unit.source].adapter if key is None else self.store.adapter(key)

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
    checkpoints: Checkpoints | None = None,
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
    losses = trained.report["losses"]
    report = {name: value for name, value in trained.report.items() if name not in ("losses", "failure")}
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
            entry = AdapterEntry(unit.source, unit.seed, unit.key, number)
            if unit.key in trained:
                entry = finished(entry, trained[unit.key])
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
