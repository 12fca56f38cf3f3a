"""A study checked and run: its engine, sources and targets opened, what running means, and the run itself.

Here too: the study's engine on many workers (Ray), what a matrix of any size would cost, and a small base
pretrained from text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache, partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from traitmap import analysis, exports
from traitmap.api.asking import before_asking, ends_early, run_in_looks
from traitmap.api.drift import keep_drift
from traitmap.api.preparation import (
    code_that_runs,
    copies_of,
    load_engine,
    loaded_data,
    require_possible,
    study_in_order,
    system_note,
    told_before,
    with_caveats,
    with_known_names,
)
from traitmap.api.runs import Run, contamination_of, keep_contamination, keep_item_groups
from traitmap.data.check import (
    LengthSummary,
    SourcePreview,
    lengths_by_source,
    pair_notes,
    preview_source,
)
from traitmap.engine.cpu.memory import giving_back, passing_over
from traitmap.engine.open import notes_of, open_engine_if_present, with_local_copy
from traitmap.errors import RunError
from traitmap.jsonable import jsonable, outline
from traitmap.progress import Listener, silent
from traitmap.runs.cluster.engine import open_cluster
from traitmap.runs.cost import (
    ASSUMED,
    CostEstimate,
    UnitCost,
    assumed_cost,
    estimate,
    measure_cost,
    rough_token_counts,
    shape_of_base,
)
from traitmap.runs.execute import execute
from traitmap.runs.files import whole_folder
from traitmap.runs.growth import Growth, assumed_unit, grow, measured_unit
from traitmap.runs.ledger import describe_variation, read_ledger
from traitmap.runs.outlook import Outlook, outlook
from traitmap.runs.plan import Plan, make_plan
from traitmap.runs.run_state import PassCheckpoints
from traitmap.runs.status import kept_progress
from traitmap.runs.store import RunStore, run_folder
from traitmap.study.load import load_study
from traitmap.study.settings import Study
from traitmap.terminal import shows_progress

if TYPE_CHECKING:
    from traitmap.data.sources import LoadedSource
    from traitmap.data.targets import LoadedTarget
    from traitmap.engine.contract import Engine
    from traitmap.engine.pretrain import PretrainReport

EXECUTORS = ("local", "ray")
_PLAN = re.compile(r"(\d+)\s*[x×]\s*(\d+)")
_OF_TARGET = (
    *("name", "task", "kind", "metric", "filter", "n_items"),
    *("chance", "majority", "digest", "refused", "read_as", "caveats"),
)


@dataclass(frozen=True)
class Check:
    """A study in order, and what running it means.

    sources: previews with rendered examples and label words. lengths: tokens of each source's examples.
    contamination: items of the targets that occur in the training data.
    outlook: what of the plan the run folder holds, what is to be done, and why.
    estimate: tokens, time and disk of what is to be done. notes: what is kept and to do, in words, and what
    these figures rest on. warnings: what is seldom meant between sources and targets.
    """

    study: Study
    sources: tuple[SourcePreview, ...]
    lengths: Mapping[str, LengthSummary]
    targets: tuple[LoadedTarget, ...]
    plan: Plan
    contamination: analysis.Contamination
    outlook: Outlook
    estimate: CostEstimate
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    __repr__ = outline

    @property
    def adapters_to_train(self) -> int:
        """Adapters of the plan that the run folder does not hold yet."""
        return len(self.outlook.adapters)

    @property
    def cells_to_evaluate(self) -> int:
        """Cells of the plan that the run folder does not hold yet."""
        return len(self.outlook.cells)

    def to_json(self) -> dict[str, Any]:
        """What the command prints: names and counts of sources and targets, the plan's size, the estimate.

        Unknown numbers are null.
        """
        sources = [
            {
                "name": source.name,
                "examples": source.examples,
                "available": source.available,
                "label_counts": dict(source.label_counts),
                "shown": [
                    {"prompt": example.prompt, "completion": example.completion} for example in source.shown
                ],
                "read_as": source.read_as,
                "tokens": jsonable(self.lengths.get(source.name)),
                "warnings": list(source.warnings),
                "adapter": str(source.adapter) if source.adapter else None,
                "variation": describe_variation(source.variation) if source.variation else None,
                "merge": jsonable(source.merge),
                "step": source.step,
            }
            for source in self.sources
        ]
        return {
            "name": self.study.name,
            "sources": sources,
            "targets": [
                {field: jsonable(getattr(target, field)) for field in _OF_TARGET} for target in self.targets
            ],
            "adapters": len(self.plan.adapters),
            "adapters_to_train": self.adapters_to_train,
            "trainings": self.outlook.trainings,
            "merges": len(self.plan.merges),
            "merges_to_make": len(self.outlook.merges),
            "cells": len(self.plan.cells),
            "contamination": self.contamination.to_json(),
            "cells_to_evaluate": self.cells_to_evaluate,
            "outlook": self.outlook.to_json(),
            "estimate": jsonable(asdict(self.estimate)),
            "notes": list(self.notes),
            "warnings": list(self.warnings),
        }


def check(
    study: Study | str | Path,
    engine: Engine | None = None,
    *,
    measure: bool = False,
    data: str | Path | None = None,
) -> Check:
    """Look at everything that a run would use, without training anything.

    study: the record, or its file. engine: counts tokens exactly and, with ``measure``, times a few of them;
        by default the base is loaded. Without ``measure`` a base of the hub is not downloaded, and where it
        cannot be had tokens are guessed, and ``notes`` says so. data: a folder with copies of hub datasets
        and of the base.

    Raises StudyError with all faults.
    """
    study, renamed = with_known_names(study_in_order(study, data))
    absent = ""
    if engine is None:
        engine, absent = open_engine_if_present(
            study.model, study.folder, copies=copies_of(study), download=measure
        )
    sources, targets = loaded_data(study, (lambda: engine) if engine else None)
    if engine is not None:
        sources, targets = with_caveats(sources, targets, engine)
        require_possible(study, sources, targets, engine)
    digest = engine.base_digest if engine else ""
    token_counts = engine.token_counts if engine else rough_token_counts
    plan = make_plan(study=study, sources=sources, targets=targets, base_digest=digest)
    base_notes: tuple[str, ...] = ()  # what counts of tokens rest on, where that is not the hub's base itself
    used = with_local_copy(study.model, copies_of(study))
    if absent:
        base_notes = (f"{absent}: tokens are guessed, one for 4 characters.",)
    elif used != study.model:
        base_notes = (f"the base is the copy in {used.path}, not the hub's.",)
    cost, notes = _unit_cost(study, engine if measure else None, sources, targets)
    ahead = outlook(
        plan=plan,
        folder=run_folder(study),
        base_digest=digest,
        sources=sources,
        targets=targets,
        renamed=renamed,
    )
    return Check(
        study=study,
        sources=tuple(preview_source(source) for source in sources),
        lengths=lengths_by_source(sources, token_counts),
        targets=tuple(targets),
        plan=plan,
        contamination=contamination_of(sources, targets),
        outlook=ahead,
        estimate=estimate(
            adapters=ahead.adapters,
            merges=ahead.merges,
            cells=ahead.cells,
            sources=sources,
            targets=targets,
            token_counts=token_counts,
            cost=cost,
        ),
        notes=(
            *ahead.lines,
            *before_asking(plan, targets, study.anchors),
            system_note(),
            *code_that_runs(study),
            *base_notes,
            *notes_of(engine, study.lora),
            *notes,
        ),
        warnings=pair_notes(study, sources, targets),
    )


def _unit_cost(
    study: Study,
    engine: Engine | None,
    sources: Sequence[LoadedSource],
    targets: Sequence[LoadedTarget],
) -> tuple[UnitCost, tuple[str, ...]]:
    """What a token costs: measured where there is an engine, else assumed, with what is assumed."""
    if engine is not None:
        return measure_cost(engine, sources, targets), ()
    shape = shape_of_base(study.model, study.folder)
    if shape is None:
        return ASSUMED, ()
    ranks = [source.lora.r for source in sources if source.trained]
    return assumed_cost(shape, max(ranks, default=0)) or (ASSUMED, ())


@shows_progress
def run(
    study: Study | str | Path,
    listener: Listener | None = None,
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
    save_minutes: float = 5.0,
    tell: Callable[[str], None] | None = None,
    announce: Callable[[str], None] | None = None,
) -> Run:
    """Train, evaluate and store whatever of a study is not done yet.

    Calling it again after an interruption goes on where it stopped. study: the record, or its file.
    listener: see ``Progress``; None shows progress on a terminal or notebook. engine: one that is loaded
        already. output: another folder for runs than the study's.
    budget: a share of the whole run's price (above 0, at most 1), of training and of evaluation alike; the
        cells that tell most are measured for it and the others predicted (``Run.spent``, docs/budget.md).
    seed: of what a run on a budget draws. data: a folder with copies of hub datasets and of the base,
        instead of the study's own.
    executor: ``local``, or ``ray`` for workers on this machine or, with ``address``, on a cluster; workers:
        how many (default: one for each GPU, else as many as fit); threads: of each (docs/cluster.md).
    group_size: adapters trained together at most, for those that no earlier run has put into groups.
    save_minutes: between two states of a training pass that are kept, so that a kill costs no more than
        that of it; 0 keeps none. Workers of a cluster keep none.
    tell: gets what ``check`` would warn of, line by line, before the run begins; None tells nothing, and the
        run keeps it all the same (``Run.matrix().conditions``).
    announce: gets what is kept of earlier runs, what is to do and why, line by line, before the run begins,
        whether an interrupted training pass goes on, and at the end what was saved where cells ended early.

    Raises StudyError with all faults of the study and its data, RunError where another process writes the
    run. An adapter or cell that fails does not raise: ``Run.status`` tells.
    """
    study = study_in_order(study, data)
    if output is not None:
        study = study.model_copy(update={"output": str(output)})
    check_executor(executor, address, workers, threads, engine=engine is not None)
    if not 0 <= save_minutes < inf:
        raise RunError(f"save_minutes {save_minutes:g}: give minutes, such as 5, or 0 to keep no state.")
    checkpoints = PassCheckpoints(60 * save_minutes, announce or _untold) if save_minutes else None
    if executor == "ray":
        with cluster_engine(study, address=address, workers=workers, threads=threads) as many:
            return run(
                study,
                listener,
                many,
                budget=budget,
                seed=seed,
                group_size=group_size,
                save_minutes=save_minutes,
                tell=tell,
                announce=announce,
            )
    study, renamed = with_known_names(study)
    opened = cache(lambda: engine or load_engine(study, threads=_recorded_threads(study), announce=announce))
    sources, targets = loaded_data(study, opened)
    base = opened()
    sources, targets = with_caveats(sources, targets, base)
    if budget is not None and any(map(ends_early, targets)):
        raise RunError(
            "--budget chooses how many items are asked, and so do precision, decide and ask; leave one out."
        )
    if tell is not None:
        for line in told_before(study, sources, targets, base):
            tell(line)
    if announce is not None:
        plan = make_plan(study=study, sources=sources, targets=targets, base_digest=base.base_digest)
        ahead = outlook(
            plan=plan,
            folder=run_folder(study),
            base_digest=base.base_digest,
            sources=sources,
            targets=targets,
            renamed=renamed,
        )
        for line in (*ahead.lines, *before_asking(plan, targets, study.anchors)):
            announce(line)
    with passing_over(), kept_progress(run_folder(study), giving_back(listener or silent)) as heard:
        if budget is not None:
            from traitmap.api.budget import run_on_budget  # scikit-learn: only here

            store, _ = run_on_budget(
                study, base, sources, targets, heard, share=budget, seed=seed, checkpoints=checkpoints
            )
        elif any(map(ends_early, targets)):
            store, asked = run_in_looks(
                study, base, sources, targets, heard, group_size=group_size, checkpoints=checkpoints
            )
            for line in asked.lines:
                (announce or _untold)(line)
        else:
            store = execute(
                study, base, sources, targets, heard, group_size=group_size, checkpoints=checkpoints
            )
        keep_item_groups(store.folder, targets)
        keep_contamination(store.folder, sources, targets, heard)
        if study.drift:
            keep_drift(study, store.folder, base, sources, heard, tell)
    return Run(store.folder)


def _untold(line: str) -> None:
    """Nobody listens."""


@shows_progress
def pretrain(
    texts: Sequence[str | Path],
    folder: str | Path,
    listener: Listener | None = None,
    *,
    hidden_size: int = 192,
    num_layers: int = 4,
    num_attention_heads: int = 6,
    intermediate_size: int = 512,
    vocab_size: int = 1536,
    context: int = 512,
    sequence_length: int = 256,
    batch_size: int = 16,
    steps: int = 1000,
    learning_rate: float = 3e-3,
    warmup_steps: int = 100,
    weight_decay: float = 0.1,
    seed: int = 0,
    device: str = "auto",
    arithmetic: Literal["auto", "float32", "bfloat16"] = "auto",
    threads: int | None = None,
) -> PretrainReport:
    """Train a small base model of Llama's shape, and its tokenizer, from text files into ``folder``.

    Settings are the fields of ``PretrainRecipe``, which says what each means. listener: see ``Progress``;
    None shows progress on a terminal or notebook. Losses of the report are nats per token.
    The same recipe, text, threads and machine give the same weights. folder: a new one, which is there whole
    or not at all.

    Raises a UserError where the texts or the recipe cannot be used, or the folder holds something.
    """
    from traitmap.engine import pretrain as pretraining  # torch: only here

    recipe = pretraining.PretrainRecipe(
        hidden_size=hidden_size,
        num_layers=num_layers,
        num_attention_heads=num_attention_heads,
        intermediate_size=intermediate_size,
        vocab_size=vocab_size,
        context=context,
        sequence_length=sequence_length,
        batch_size=batch_size,
        steps=steps,
        learning_rate=learning_rate,
        warmup_steps=warmup_steps,
        weight_decay=weight_decay,
        seed=seed,
        device=device,
        arithmetic=arithmetic,
        threads=threads,
    )
    place = Path(folder)
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise RunError(f"{place}: is there already; give a new folder for the base")
    with whole_folder(place) as staged:
        return pretraining.pretrain([Path(text) for text in texts], staged, recipe, listener or silent)


def write_task_files(study: Any, folder: str | Path) -> tuple[Path, ...]:
    """Targets over plain data as task files of lm-eval, with the documents that they ask; returns the files.

    study: the record, or its file. The base is loaded only where rows are conversations. RunError where it is
    something else, DataError where no target of it is over plain data, or one cannot be loaded.
    """
    if not isinstance(study, Study):
        if not isinstance(study, str | Path) or not Path(study).is_file():
            raise RunError(f"{study}: task files are written from a study; give its file (YAML)")
        study = load_study(study)
    engine = cache(lambda: load_engine(study))

    def render_chat(messages: Any, add_generation_prompt: bool, tools: Any = ()) -> str:
        return engine().render_chat(messages, add_generation_prompt, tools)

    return exports.export_task_files(study, folder, render_chat)


def check_executor(
    executor: str, address: str | None, workers: int | None, threads: int | None, *, engine: bool = False
) -> None:
    """RunError for an executor that does not exist, and for settings that only a cluster has.

    engine: whether an engine is handed over, which workers cannot take.
    """
    if executor not in EXECUTORS:
        raise RunError(f"executor {executor!r}: unknown; legal: {', '.join(EXECUTORS)}.")
    settings = {"address": address, "workers": workers, "threads": threads}
    cluster_only = [name for name, value in settings.items() if value is not None]
    if executor == "local" and cluster_only:
        raise RunError(f"{', '.join(cluster_only)}: only the ray executor has workers; add --executor ray.")
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
    try:
        conditions = read_ledger(RunStore(run_folder(study))).conditions
    except RunError:
        return None
    threads = conditions.get("threads")
    on_cpu = str(conditions.get("device", "")).startswith("cpu")
    return threads if isinstance(threads, int) and on_cpu else None


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
    size = _PLAN.fullmatch(plan.strip().lower())
    if size is None or min(int(size[1]), int(size[2])) < 1:
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
        study = study if isinstance(study, Study) else load_study(str(study))
        unit = measured_unit(str(run_folder(study)))
    return grow(
        unit,
        adapters=int(size[1]),
        targets=int(size[2]),
        workers=workers,
        items=items,
        group_size=group_size,
    )
