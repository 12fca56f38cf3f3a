"""A study checked and run; a base model pretrained."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitmap.api.contamination import contamination_of, keep_contamination
from traitmap.api.loading import base_of, engine_to_look_with, load_data, load_engine
from traitmap.api.runs import Run
from traitmap.collector import passing_over
from traitmap.errors import DataError
from traitmap.freed_memory import giving_back
from traitmap.progress import Listener, silent
from traitmap.study.paths import resolve
from traitmap.study.settings import Study

if TYPE_CHECKING:
    from traitmap.analysis.contamination import Contamination
    from traitmap.data.preview import Lengths, SourcePreview
    from traitmap.data.sources import LoadedSource
    from traitmap.data.targets import LoadedTarget
    from traitmap.engine.contract import Engine
    from traitmap.runs.cost import Estimate, UnitCost
    from traitmap.runs.plan import Plan


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
    lengths: Mapping[str, Lengths]
    targets: tuple[LoadedTarget, ...]
    plan: Plan
    contamination: Contamination
    adapters_to_train: int
    cells_to_evaluate: int
    estimate: Estimate
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The record as JSON data; unknown numbers are null."""
        from traitmap.runs.ledger import describe_variation

        sources = [
            {
                "name": one.name,
                "examples": one.examples,
                "available": one.available,
                "label_counts": dict(one.label_counts),
                "shown": [{"prompt": shown.prompt, "completion": shown.completion} for shown in one.shown],
                "tokens": asdict(self.lengths[one.name]) if one.name in self.lengths else None,
                "warnings": list(one.warnings),
                "adapter": str(one.adapter) if one.adapter else None,
                "variation": describe_variation(one.variation) if one.variation else None,
            }
            for one in self.sources
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
        targets = [{field: _known(getattr(one, field)) for field in fields} for one in self.targets]
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
    from traitmap.data.faults import check_file

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
    from traitmap.data.preview import lengths_of, preview_source
    from traitmap.runs.cost import estimate, rough_token_counts
    from traitmap.runs.plan import make_plan
    from traitmap.runs.status import pending_units
    from traitmap.runs.store import run_folder

    study = _in_order(study, data)
    engine, absent = (engine, "") if engine else engine_to_look_with(study, download=measure)
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
        one.name: lengths_of(
            [round(count) for count in token_counts([e.text for e in one.examples])], one.training.max_length
        )
        for one in sources
        if one.adapter is None
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
    used = base_of(study)
    return () if used == study.model else (f"the base is the copy in {used.path}, not the hub's.",)


def _unit_cost(
    study: Study,
    engine: Engine | None,
    sources: Sequence[LoadedSource],
    targets: Sequence[LoadedTarget],
) -> tuple[UnitCost, tuple[str, ...]]:
    """What a token costs: measured where there is an engine, else assumed, with what is assumed."""
    from traitmap.runs.accelerator import assumed_cost, shape_of_base
    from traitmap.runs.cost import ASSUMED, measure_cost

    if engine is not None:
        return measure_cost(engine, sources, targets), ()
    shape = shape_of_base(study.model, study.folder)
    ranks = [one.lora.r for one in sources if one.adapter is None]
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
    from traitmap.api.cluster import check_executor, cluster_engine
    from traitmap.runs.execute import execute
    from traitmap.runs.progress_file import kept_progress
    from traitmap.runs.store import run_folder

    study = _in_order(study, data)
    if output is not None:
        study = study.model_copy(update={"output": str(output)})
    check_executor(executor, address, workers, threads, engine=engine is not None)
    if executor == "ray":
        with cluster_engine(study, address=address, workers=workers, threads=threads) as many:
            return run(study, listener, many, budget=budget, seed=seed, group_size=group_size)
    open_engine = cache(lambda: engine or load_engine(study))
    sources, targets = _loaded(study, open_engine)
    base = open_engine()
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
    from traitmap.data.faults import check_file

    if not isinstance(study, Study):
        return check_file(study, data=data, rows=False)
    data = study.data if data is None else os.path.abspath(data)
    if study.path is not None and study.path.is_file():
        check_file(study.path, data=resolve(data, study.folder) if data else None, rows=False)
    return study.model_copy(update={"data": str(data)}) if data else study


def _loaded(
    study: Study, open_engine: Callable[[], Engine] | None
) -> tuple[Sequence[LoadedSource], Sequence[LoadedTarget]]:
    """Sources and targets, rendered once. Where that fails, StudyError with every fault at its place."""
    try:
        return load_data(study, open_engine)
    except DataError:
        if study.path is not None and study.path.is_file():
            load_checked(study.path, resolve(study.data, study.folder) if study.data else None)
        raise
