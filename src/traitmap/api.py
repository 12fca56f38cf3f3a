"""The same words from Python as on the command line: check, run, open_run; a Run answers the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitmap.progress import Listener, silent
from traitmap.study.settings import Study

if TYPE_CHECKING:
    from traitmap.analysis.records import Traits
    from traitmap.data.preview import Lengths, SourcePreview
    from traitmap.data.targets import LoadedTarget
    from traitmap.engine.contract import Engine
    from traitmap.matrix import TransferMatrix
    from traitmap.runs.cost import Estimate
    from traitmap.runs.plan import Plan
    from traitmap.runs.status import RunStatus


@dataclass(frozen=True)
class Check:
    """A study in order, and what running it means.

    sources: previews with rendered examples and label words. lengths: tokens of each source's examples.
    adapters_to_train, cells_to_evaluate: what of the plan the run folder does not hold yet.
    estimate: tokens, time and disk of that.
    """

    study: Study
    sources: tuple[SourcePreview, ...]
    lengths: Mapping[str, Lengths]
    targets: tuple[LoadedTarget, ...]
    plan: Plan
    adapters_to_train: int
    cells_to_evaluate: int
    estimate: Estimate

    def to_json(self) -> dict[str, Any]:
        """The record as JSON data; unknown numbers are null."""
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
            "cells_to_evaluate": self.cells_to_evaluate,
            "estimate": {name: _known(value) for name, value in asdict(self.estimate).items()},
        }


@dataclass(frozen=True)
class Run:
    """A run folder, finished or not."""

    folder: Path

    def status(self) -> RunStatus:
        """What is done, failed and missing."""
        from traitmap.runs.status import run_status

        return run_status(self.folder)

    def matrix(self) -> TransferMatrix:
        """The transfer matrix of what has been measured so far."""
        from traitmap.matrix import build_matrix

        return build_matrix(self.folder)

    def traits(self, **settings: Any) -> Traits:
        """Latent traits of the matrix; settings as for ``traitmap.decompose``."""
        return _traits(self.matrix(), **settings)

    def conditions(self) -> Mapping[str, Any]:
        """The study as it was run, the base, versions, device and digests."""
        return self.matrix().conditions

    def report(self, path: str | Path | None = None) -> Path:
        """Write the HTML report, by default ``report.html`` in the run folder."""
        from traitmap.report.html import write_report

        matrix = self.matrix()
        place = Path(path) if path is not None else self.folder / "report.html"
        return write_report(place, matrix, _traits_if_any(matrix), matrix.conditions)


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
    engine = engine or _open(study)
    sources, targets = _load(study, engine)
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
    return Check(study, previews, lengths, tuple(targets), plan, len(adapters), len(cells), expected)


def run(
    study: Study | str | Path,
    listener: Listener = silent,
    engine: Engine | None = None,
    *,
    output: str | Path | None = None,
) -> Run:
    """Train, evaluate and store whatever of a study is not done yet.

    Calling it again after an interruption goes on where it stopped. output: another folder for runs
    than the study's. Raises StudyError with all faults of the study and its data.
    """
    from traitmap.runs.execute import execute

    study = _in_order(study)
    if output is not None:
        study = study.model_copy(update={"output": str(output)})
    engine = engine or _open(study)
    sources, targets = _load(study, engine)
    store = execute(study, engine, sources, targets, listener)
    return Run(store.folder)


def open_run(folder: str | Path) -> Run:
    """A run that exists. RunError where the folder holds none."""
    from traitmap.runs.store import open_store

    return Run(open_store(folder).folder)


def matrix_of(place: str | Path, **reading: Any) -> TransferMatrix:
    """The matrix of a run folder, or of a CSV or Parquet file (``reading``: settings of ``read_matrix``)."""
    if Path(place).is_dir():
        return open_run(place).matrix()
    from traitmap.matrix_io import read_matrix

    return read_matrix(place, **reading)


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


def _open(study: Study) -> Engine:
    from traitmap.engine import open_engine

    return open_engine(study.model, study.folder)


def _load(study: Study, engine: Engine) -> tuple[Sequence[Any], Sequence[Any]]:
    from traitmap.data.sources import load_sources
    from traitmap.data.targets import load_targets

    return load_sources(study, engine.render_chat), load_targets(study, engine.render_chat)


def _traits(matrix: TransferMatrix, **settings: Any) -> Traits:
    from traitmap.analysis.traits import decompose

    settings.setdefault("names", trait_names(matrix))
    return decompose(matrix, **settings)


def trait_names(matrix: TransferMatrix) -> tuple[str, ...]:
    """Names that the study gives to its first traits."""
    study = matrix.conditions.get("study")
    return tuple(study.get("trait_names") or ()) if isinstance(study, Mapping) else ()


def _traits_if_any(matrix: TransferMatrix) -> Traits | None:
    """Traits for the report, or None where the matrix is too small or too empty to have any."""
    from traitmap.errors import MatrixError

    try:
        return _traits(matrix)
    except MatrixError:
        return None
