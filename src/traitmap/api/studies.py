"""A study checked and run; a base model pretrained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitmap.api.contamination import contamination_of, keep_contamination
from traitmap.api.loading import load_data, load_engine
from traitmap.api.runs import Run
from traitmap.progress import Listener, silent
from traitmap.study.settings import Study

if TYPE_CHECKING:
    from traitmap.analysis.contamination import Contamination
    from traitmap.data.preview import Lengths, SourcePreview
    from traitmap.data.targets import LoadedTarget
    from traitmap.engine.contract import Engine
    from traitmap.runs.cost import Estimate
    from traitmap.runs.plan import Plan


@dataclass(frozen=True)
class Check:
    """A study in order, and what running it means.

    sources: previews with rendered examples and label words. lengths: tokens of each source's examples.
    contamination: items of the targets that stand in the training texts.
    adapters_to_train, cells_to_evaluate: what of the plan the run folder does not hold yet.
    estimate: tokens, time and disk of that.
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
        fields = ("name", "task", "kind", "metric", "filter", "n_items", "chance", "majority", "digest")
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
        }


def load_checked(path: str | Path) -> Study:
    """Read a study file and look at its data. StudyError holds every fault of both at once."""
    from traitmap.data.faults import check_file

    return check_file(path)


def check(study: Study | str | Path, engine: Engine | None = None, *, measure: bool = False) -> Check:
    """Look at everything that a run would use, without training anything.

    engine: counts tokens exactly and, with ``measure``, times a few of them; by default the base is
    loaded. Raises StudyError with all faults.
    """
    from traitmap.data.preview import lengths_of, preview_source
    from traitmap.runs.cost import ASSUMED, estimate, measure_cost
    from traitmap.runs.plan import make_plan
    from traitmap.runs.status import pending_units
    from traitmap.runs.store import run_folder

    study = _in_order(study)
    engine = engine or load_engine(study)
    sources, targets = load_data(study, engine)
    plan = make_plan(study=study, sources=sources, targets=targets, base_digest=engine.base_digest)
    cost = measure_cost(engine, sources, targets) if measure else ASSUMED
    adapters, cells = pending_units(
        plan=plan,
        folder=run_folder(study),
        base_digest=engine.base_digest,
        sources=sources,
        targets=targets,
    )
    expected = estimate(
        adapters=adapters,
        cells=cells,
        sources=sources,
        targets=targets,
        token_counts=engine.token_counts,
        cost=cost,
    )
    lengths = {
        one.name: lengths_of(engine.token_counts([e.text for e in one.examples]), one.training.max_length)
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
    )


def run(
    study: Study | str | Path,
    listener: Listener = silent,
    engine: Engine | None = None,
    *,
    output: str | Path | None = None,
    budget: float | None = None,
    seed: int = 0,
) -> Run:
    """Train, evaluate and store whatever of a study is not done yet.

    Calling it again after an interruption goes on where it stopped. output: another folder for runs
    than the study's. budget: a share of the whole run's price, of training and of evaluation alike; the
    cells that tell most are measured for it and the others predicted (``Run.spent``, docs/budget.md).
    seed: of what a run on a budget draws. Raises StudyError with all faults of the study and its data.
    """
    from traitmap.runs.execute import execute

    study = _in_order(study)
    if output is not None:
        study = study.model_copy(update={"output": str(output)})
    engine = engine or load_engine(study)
    sources, targets = load_data(study, engine)
    if budget is not None:
        from traitmap.api.budget import run_on_budget

        store, _ = run_on_budget(study, engine, sources, targets, listener, share=budget, seed=seed)
    else:
        store = execute(study, engine, sources, targets, listener)
    keep_contamination(store.folder, sources, targets, listener)
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


def _in_order(study: Study | str | Path) -> Study:
    if not isinstance(study, Study):
        return load_checked(study)
    if study.path is not None and study.path.is_file():
        load_checked(study.path)
    return study
