"""From a study to what it names: the engine, the sources and the targets.

A study checked and run; a base model pretrained.

A study's engine on many workers, by Ray.

What a matrix of any size would cost on many workers.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache, partial
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitmap.api.runs import Run, contamination_of, keep_contamination
from traitmap.engine import open_engine, open_engine_if_present, with_local_copy
from traitmap.engine.cpu.memory import giving_back, passing_over, paused
from traitmap.errors import DataError, RunError
from traitmap.progress import Listener, silent
from traitmap.study.paths import resolve
from traitmap.study.settings import Study

if TYPE_CHECKING:
    from traitmap.analysis.contamination import Contamination
    from traitmap.data.check import LengthSummary, SourcePreview
    from traitmap.data.sources import LoadedSource
    from traitmap.data.targets import LoadedTarget
    from traitmap.engine.contract import Engine
    from traitmap.runs.cost import CostEstimate, UnitCost
    from traitmap.runs.growth import Growth
    from traitmap.runs.plan import Plan


def load_engine(study: Study) -> Engine:
    """The engine over the base that a study names; see ``engine.open_engine``."""
    return open_engine(study.model, study.folder, copies=copies_of(study))


def copies_of(study: Study) -> Path | None:
    """The folder with local copies of hub datasets and models that a study names, or None."""
    return resolve(study.data, study.folder) if study.data else None


def load_data(
    study: Study, base: Callable[[], Engine] | None
) -> tuple[Sequence[LoadedSource], Sequence[LoadedTarget]]:
    """Sources and targets of a study, rendered; DataError holds all that is wrong with them.

    base: called only where a text cannot be rendered or counted without the base, which takes
        long to load; None where no base is at hand: conversations get a stand-in's form, tokens are guessed.
    """
    with paused():
        from traitmap.data.lineage import load_sources
        from traitmap.data.render import plain_chat
        from traitmap.data.targets import load_targets
        from traitmap.runs.cost import rough_token_counts

    if base is None:
        with passing_over():
            return load_sources(study, plain_chat, rough_token_counts), load_targets(study, plain_chat)

    def render_chat(messages: Sequence[Mapping[str, str]], add_generation_prompt: bool) -> str:
        return base().render_chat(messages, add_generation_prompt)

    def token_counts(texts: Sequence[str]) -> list[int]:
        return base().token_counts(texts)

    with passing_over():
        return load_sources(study, render_chat, token_counts), load_targets(study, render_chat)


@dataclass(frozen=True)
class Check:
    """A study in order, and what running it means.

    sources: previews with rendered examples and label words. lengths: tokens of each source's examples.
    contamination: items of the targets that stand in the training texts.
    adapters_to_train, cells_to_evaluate: what of the plan the run folder does not hold yet.
    estimate: tokens, time and disk of that. notes: what these figures rest on, where nothing was measured.
    """

    study: Study
    sources: tuple[SourcePreview, ...]
    lengths: Mapping[str, LengthSummary]
    targets: tuple[LoadedTarget, ...]
    plan: Plan
    contamination: Contamination
    adapters_to_train: int
    cells_to_evaluate: int
    estimate: CostEstimate
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The record as JSON data; unknown numbers are null."""
        from traitmap.runs.ledger import describe_variation

        sources = [
            {
                "name": source.name,
                "examples": source.examples,
                "available": source.available,
                "label_counts": dict(source.label_counts),
                "shown": [{"prompt": shown.prompt, "completion": shown.completion} for shown in source.shown],
                "tokens": asdict(self.lengths[source.name]) if source.name in self.lengths else None,
                "warnings": list(source.warnings),
                "adapter": str(source.adapter) if source.adapter else None,
                "variation": describe_variation(source.variation) if source.variation else None,
            }
            for source in self.sources
        ]
        fields = (
            "name",
            "task",
            "kind",
            "metric",
            "filter",
            "n_items",
            "chance",
            "majority",
            "digest",
            "refused",
        )
        targets = [{field: _known(getattr(target, field)) for field in fields} for target in self.targets]
        return {
            "name": self.study.name,
            "sources": sources,
            "targets": targets,
            "adapters": len(self.plan.adapters),
            "adapters_to_train": self.adapters_to_train,
            "cells": len(self.plan.cells),
            "contamination": self.contamination.to_json(),
            "cells_to_evaluate": self.cells_to_evaluate,
            "estimate": {name: _known(value) for name, value in asdict(self.estimate).items()},
            "notes": list(self.notes),
        }


def load_checked(path: str | Path, data: str | Path | None = None) -> Study:
    """Read a study file and look at its data. StudyError holds every fault of both at once.

    data: another folder with copies of hub datasets than the study's own.
    """
    from traitmap.data.check import check_file

    return check_file(path, data=data)


def check(
    study: Study | str | Path,
    engine: Engine | None = None,
    *,
    measure: bool = False,
    data: str | Path | None = None,
) -> Check:
    """Look at everything that a run would use, without training anything.

    engine: counts tokens exactly and, with ``measure``, times a few of them; by default the base is
    loaded. Without ``measure`` a base of the hub is not downloaded, and where it cannot be had tokens are
    guessed, and ``notes`` says so. data: a folder with copies of hub datasets and of the base.
    Raises StudyError with all faults.
    """
    from traitmap.data.check import lengths_of, preview_source
    from traitmap.runs.cost import estimate, rough_token_counts
    from traitmap.runs.plan import make_plan
    from traitmap.runs.status import pending_units
    from traitmap.runs.store import run_folder

    study = _in_order(study, data)
    absent = ""
    if engine is None:
        engine, absent = open_engine_if_present(
            study.model, study.folder, copies=copies_of(study), download=measure
        )
    sources, targets = _loaded(study, (lambda: engine) if engine else None)
    digest = engine.base_digest if engine else ""
    token_counts = engine.token_counts if engine else rough_token_counts
    plan = make_plan(study=study, sources=sources, targets=targets, base_digest=digest)
    cost, notes = _unit_cost(study, engine if measure else None, sources, targets)
    adapters, cells = pending_units(
        plan=plan,
        folder=run_folder(study),
        base_digest=digest,
        sources=sources,
        targets=targets,
    )
    expected = estimate(
        adapters=adapters,
        cells=cells,
        sources=sources,
        targets=targets,
        token_counts=token_counts,
        cost=cost,
    )
    lengths = {
        source.name: lengths_of(
            [round(count) for count in token_counts([e.text for e in source.examples])],
            source.training.max_length,
        )
        for source in sources
        if source.adapter is None
    }
    previews = tuple(preview_source(one) for one in sources)
    return Check(
        study=study,
        sources=previews,
        lengths=lengths,
        targets=tuple(targets),
        plan=plan,
        contamination=contamination_of(sources, targets),
        adapters_to_train=len(adapters),
        cells_to_evaluate=len(cells),
        estimate=expected,
        notes=(*_code_that_runs(study), *_of_the_base(study, absent), *notes),
    )


def _code_that_runs(study: Study) -> tuple[str, ...]:
    """What of other people's Python this study lets run on this machine."""
    found = []
    if study.model.trust_remote_code:
        found.append(
            f"trust_remote_code: the base {study.model.path!r} brings Python code of its own, which runs on "
            "this machine, outside any sandbox."
        )
    if study.allow_code:
        found.append(
            "allow_code: functions of the study's own task files run on this machine, outside any sandbox; "
            "programs that a model writes run in the sandbox."
        )
    return tuple(found)


def _of_the_base(study: Study, absent: str) -> tuple[str, ...]:
    """What the counts of tokens rest on, where that is not the base of the hub itself."""
    if absent:
        return (f"{absent}: tokens are guessed, one for 4 characters.",)
    used = with_local_copy(study.model, copies_of(study))
    return () if used == study.model else (f"the base is the copy in {used.path}, not the hub's.",)


def _unit_cost(
    study: Study,
    engine: Engine | None,
    sources: Sequence[LoadedSource],
    targets: Sequence[LoadedTarget],
) -> tuple[UnitCost, tuple[str, ...]]:
    """What a token costs: measured where there is an engine, else assumed, with what is assumed."""
    from traitmap.runs.cost import ASSUMED, assumed_cost, measure_cost, shape_of_base

    if engine is not None:
        return measure_cost(engine, sources, targets), ()
    shape = shape_of_base(study.model, study.folder)
    ranks = [source.lora.r for source in sources if source.adapter is None]
    found = assumed_cost(shape, max(ranks, default=0)) if shape is not None else None
    return found or (ASSUMED, ())


def run(
    study: Study | str | Path,
    listener: Listener = silent,
    engine: Engine | None = None,
    *,
    output: str | Path | None = None,
    budget: float | None = None,
    seed: int = 0,
    data: str | Path | None = None,
    executor: str = "local",
    address: str | None = None,
    workers: int | None = None,
    threads: int | None = None,
    group_size: int | None = None,
) -> Run:
    """Train, evaluate and store whatever of a study is not done yet.

    Calling it again after an interruption goes on where it stopped. output: another folder for runs
    than the study's. budget: a share of the whole run's price, of training and of evaluation alike; the
    cells that tell most are measured for it and the others predicted (``Run.spent``, docs/budget.md).
    seed: of what a run on a budget draws. data: a folder with copies of hub datasets and of the base,
    instead of the study's own. executor: ``local``, or ``ray`` for workers on this machine or, with
    ``address``, on a cluster; workers: how many (default: one for each GPU, else as many as fit);
    threads: of each (docs/cluster.md). group_size: adapters trained together at most, for those that no
    earlier run has put into groups. Raises StudyError with all faults of the study and its data.
    """
    from traitmap.runs.execute import execute
    from traitmap.runs.status import kept_progress
    from traitmap.runs.store import run_folder

    study = _in_order(study, data)
    if output is not None:
        study = study.model_copy(update={"output": str(output)})
    check_executor(executor, address, workers, threads, engine=engine is not None)
    if executor == "ray":
        with cluster_engine(study, address=address, workers=workers, threads=threads) as many:
            return run(study, listener, many, budget=budget, seed=seed, group_size=group_size)
    opened = cache(lambda: engine or load_engine(study))
    sources, targets = _loaded(study, opened)
    base = opened()
    with passing_over(), kept_progress(run_folder(study), giving_back(listener)) as heard:
        if budget is not None:
            from traitmap.api.budget import run_on_budget

            store, _ = run_on_budget(study, base, sources, targets, heard, share=budget, seed=seed)
        else:
            store = execute(study, base, sources, targets, heard, group_size=group_size)
        keep_contamination(store.folder, sources, targets, heard)
    return Run(store.folder)


def pretrain(
    texts: Sequence[str | Path], folder: str | Path, listener: Listener = silent, **recipe: Any
) -> Any:
    """Train a small base model from text files into ``folder``; recipe: fields of ``PretrainRecipe``.

    Returns the PretrainReport.
    """
    from traitmap.engine import pretrain as engine

    settings = engine.PretrainRecipe(**recipe)
    return engine.pretrain([Path(text) for text in texts], Path(folder), settings, listener)


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and isnan(value) else value


def _in_order(study: Study | str | Path, data: str | Path | None = None) -> Study:
    """The study, its file and all folders that it names looked at; the rows are ``_loaded``'s."""
    from traitmap.data.check import check_file

    if not isinstance(study, Study):
        return check_file(study, data=data, rows=False)
    data = study.data if data is None else os.path.abspath(data)
    if study.path is not None and study.path.is_file():
        check_file(study.path, data=resolve(data, study.folder) if data else None, rows=False)
    return study.model_copy(update={"data": str(data)}) if data else study


def _loaded(
    study: Study, base: Callable[[], Engine] | None
) -> tuple[Sequence[LoadedSource], Sequence[LoadedTarget]]:
    """Sources and targets, rendered once. Where that fails, StudyError with every fault at its place."""
    try:
        return load_data(study, base)
    except DataError:
        if study.path is not None and study.path.is_file():
            load_checked(study.path, copies_of(study))
        raise


EXECUTORS = ("local", "ray")


def check_executor(
    executor: str, address: str | None, workers: int | None, threads: int | None, *, engine: bool = False
) -> None:
    """RunError for an executor that there is not, and for settings that only a cluster has."""
    if executor not in EXECUTORS:
        raise RunError(f"executor {executor!r}: unknown; legal: {', '.join(EXECUTORS)}.")
    settings = {"address": address, "workers": workers, "threads": threads}
    given = [name for name, value in settings.items() if value is not None]
    if executor == "local" and given:
        raise RunError(f"{', '.join(given)}: only the ray executor has workers; add --executor ray.")
    if executor == "ray" and engine:
        raise RunError("an engine and executor='ray': its workers load engines of their own; leave one out.")


@contextmanager
def cluster_engine(
    study: Study, *, address: str | None = None, workers: int | None = None, threads: int | None = None
) -> Iterator[Engine]:
    """Workers with the study's base, until the block ends; settings as for ``traitmap.run``.

    Where ``threads`` is None, workers take as many as an earlier run of this study took on a CPU.
    RunError where the study's base is a server, which does the work itself.
    """
    from traitmap.runs.cluster.engine import open_cluster

    if study.model.endpoint is not None:
        raise RunError(
            "model.endpoint: a server answers for this study, so there is nothing for Ray to spread."
        )
    placed = study if study.path is None else study.model_copy(update={"path": study.path.absolute()})
    with open_cluster(
        partial(load_engine, placed),
        address=address,
        workers=workers,
        threads=threads or _recorded_threads(study),
        gpus=study.model.device != "cpu",
    ) as engine:
        yield engine


def _recorded_threads(study: Study) -> int | None:
    """Threads of the run that the folder holds, so that its digits go on; None where none says it."""
    from traitmap.runs.ledger import read_ledger
    from traitmap.runs.store import RunStore, run_folder

    try:
        conditions = read_ledger(RunStore(run_folder(study))).conditions
    except RunError:
        return None
    found = conditions.get("threads")
    return found if isinstance(found, int) and str(conditions.get("device", "")).startswith("cpu") else None


_PLAN = re.compile(r"(\d+)\s*[x×]\s*(\d+)")


def plan_growth(
    plan: str,
    *,
    workers: int,
    model_shape: str | None = None,
    study: Study | str | Path | None = None,
    items: int | None = None,
    group_size: int | None = None,
) -> Growth:
    """Time, GPU hours, disk and object store of a matrix that does not exist yet.

    plan: ``200x100`` adapters and targets. workers: GPUs, or CPU slots. model_shape: a base of which nothing
    was measured, such as ``llama-8b``, on 80 GB GPUs; or study: one that was run, whose measured costs count.
    items: of each target; by default 2,000, or as the study's own. group_size: adapters trained together.
    RunError for a plan that cannot be read, and where nothing tells what a unit costs.
    """
    from traitmap.runs.growth import assumed_unit, grow, measured_unit
    from traitmap.runs.store import run_folder
    from traitmap.study.load import load_study

    found = _PLAN.fullmatch(plan.strip().lower())
    if found is None or min(int(found[1]), int(found[2])) < 1:
        raise RunError(f"plan {plan!r}: give adapters and targets as in 200x100.")
    for name, value in (("gpus", workers), ("items", items), ("group_size", group_size)):
        if value is not None and value < 1:
            raise RunError(f"{name} {value}: give a number of at least 1.")
    if (model_shape is None) == (study is None):
        raise RunError(
            "a plan needs to know what a unit costs: give either --model-shape (such as llama-8b), of which "
            "costs are assumed, or a study that was run here, of which they were measured."
        )
    if model_shape is not None:
        unit = assumed_unit(model_shape, items=items or 2000)
    else:
        asked = study if isinstance(study, Study) else load_study(str(study))
        unit = measured_unit(str(run_folder(asked)))
    return grow(
        unit,
        adapters=int(found[1]),
        targets=int(found[2]),
        workers=workers,
        items=items,
        group_size=group_size,
    )
