"""A run folder, finished or not, and whatever else holds a matrix.

What is kept of a run: asked in SQL, and rid of what nothing needs.

Predicted cells of a run: kept in its folder, and put where no cell has been measured.

Compare a study's training texts with its targets' items, and keep what was found beside the results.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from math import isfinite, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitmap.errors import RunError
from traitmap.matrix.record import TransferMatrix
from traitmap.progress import Listener, silent
from traitmap.runs.files import read_sealed_json

if TYPE_CHECKING:
    import pandas as pd

    from traitmap.analysis.contamination import Contamination
    from traitmap.analysis.explanation.records import Explanation
    from traitmap.analysis.profiles.record import Profile
    from traitmap.analysis.recommendation.records import Recommendation
    from traitmap.analysis.traits.records import Traits
    from traitmap.data.sources import LoadedSource
    from traitmap.data.targets import LoadedTarget
    from traitmap.runs.gc import Waste
    from traitmap.runs.query import Answered
    from traitmap.runs.status import RunStatus


@dataclass(frozen=True)
class Run:
    """A run folder, finished or not."""

    folder: Path

    def status(self, *, verify: bool = False) -> RunStatus:
        """What is done, failed and missing. verify: hold every file against its checksum too."""
        from traitmap.runs.status import run_status

        return run_status(self.folder, verify=verify)

    def matrix(self, *, predicted: bool = False) -> TransferMatrix:
        """The transfer matrix of what has been measured so far.

        predicted: also the cells that a run on a budget predicted, marked by their status.
        """
        from traitmap.matrix.build import build_matrix

        found = build_matrix(self.folder)
        return with_predictions(found, self.folder) if predicted else found

    def spent(self) -> Mapping[str, Any] | None:
        """What the last run on a budget spent, or None where there was none. RunError where it is damaged."""
        from traitmap.errors import RunError
        from traitmap.runs.files import read_sealed_json

        path = self.folder / "budget.json"
        try:
            return read_sealed_json(path)
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise RunError(f"{path}: damaged ({error}); run with --budget again.") from None

    def traits(self, **settings: Any) -> Traits:
        """Latent traits of the matrix; settings as for ``traitmap.decompose``."""
        return _traits(self.matrix(), **settings)

    def profile(self, **settings: Any) -> Profile:
        """What texts and answers say beyond scores; settings as for ``traitmap.profile``."""
        from traitmap.api.profiles import profile

        return profile(self.folder, **settings)

    def explain(self, **settings: Any) -> Explanation:
        """Why gains are what they are; settings as for ``traitmap.explain``."""
        from traitmap.api.explanation import explain

        return explain(self, **settings)

    def recommend(self, **settings: Any) -> Recommendation:
        """Which source for a target or a few examples; settings as for ``traitmap.recommend``."""
        from traitmap.api.recommendation import recommend

        return recommend(self, **settings)

    def conditions(self) -> Mapping[str, Any]:
        """The study as it was run, the base, versions, device and digests."""
        return self.matrix().conditions

    def report(
        self,
        path: str | Path | None = None,
        *,
        fast: bool = False,
        parser: str | Path | None = None,
        listener: Listener = silent,
    ) -> Path:
        """Write the HTML report, by default ``report.html`` in the run folder.

        fast: leave out why gains are what they are and which source to take, which need minutes on large
        runs. parser: a spaCy pipeline, for syntactic relations too. The same run gives the same report.
        UserError where it cannot be written, or the parser cannot be loaded.
        """
        from traitmap.api.report import report_contents
        from traitmap.report.page import write_report

        found = report_contents(
            self.folder, why=not fast, which=not fast, cells=True, parser=parser, listener=listener
        )
        return write_report(
            Path(path) if path is not None else self.folder / "report.html",
            found.matrix,
            found.traits,
            found.conditions,
            profile=found.profile,
            explanation=found.explanation,
            cells=found.cells,
            evaluation=found.evaluation,
            missing=found.missing,
        )


def open_run(folder: str | Path) -> Run:
    """A run that exists. RunError where the folder holds none."""
    from traitmap.runs.store import open_store

    return Run(open_store(folder).folder)


def matrix_of(place: str | Path, *, predicted: bool = False, **reading: Any) -> TransferMatrix:
    """The matrix of a run folder, or of a CSV or Parquet file (``reading``: settings of ``read_matrix``).

    predicted: with the cells that a run on a budget predicted.
    """
    if Path(place).is_dir():
        return open_run(place).matrix(predicted=predicted)
    from traitmap.matrix.io import read_matrix

    return read_matrix(place, **reading)


def _traits(matrix: TransferMatrix, **settings: Any) -> Traits:
    from traitmap.analysis.traits.decompose import decompose

    settings.setdefault("names", trait_names(matrix))
    return decompose(matrix, **settings)


def trait_names(matrix: TransferMatrix) -> tuple[str, ...]:
    """Names that the study gives to its first traits."""
    study = matrix.conditions.get("study")
    return tuple(study.get("trait_names") or ()) if isinstance(study, Mapping) else ()


def traits_if_any(matrix: TransferMatrix) -> Traits | None:
    """Traits for the report, or None where the matrix is too small or too empty to have any."""
    from traitmap.errors import MatrixError

    try:
        return _traits(matrix)
    except MatrixError:
        return None


def query(run: str | Path, sql: str) -> pd.DataFrame:
    """The answer to one SELECT over the tables of a run, as a frame.

    Tables: ``outcomes`` (one row an item of a cell, with source, seed, target), ``cells``, ``adapters``,
    ``sources``, ``targets``, ``texts``. Cells that are damaged are left out, with a warning. UserError where
    the SQL cannot be answered. See ``streamed_query`` for an answer that is larger than the memory.
    """
    import warnings

    with streamed_query(run, sql) as found:
        for path, why in found.left_out.items():
            warnings.warn(f"{path}: damaged ({why}); left out", stacklevel=2)
        return found.rows.read_all().to_pandas()


def streamed_query(run: str | Path, sql: str) -> AbstractContextManager[Answered]:
    """Like ``query``, some rows at a time: a context in which ``rows`` can be read once."""
    from traitmap.runs.query import answered
    from traitmap.runs.store import open_store

    return answered(open_store(run), sql)


def gc(run: str | Path, *, delete: bool = False) -> tuple[Waste, ...]:
    """What in a run folder no entry of its study needs: former cells and adapters, leftovers, quarantine.

    delete: remove it; RunError where another process writes the run.
    """
    from traitmap.runs.gc import find_waste, remove_waste
    from traitmap.runs.store import open_store

    store = open_store(run)
    return remove_waste(store) if delete else find_waste(store)


FILE = "completion.json"
FORMAT = 1
_NUMBERS = ("value", "stderr", "gain", "gain_low", "gain_high")


def completion_data(matrix: TransferMatrix) -> dict[str, Any]:
    """The predicted cells of a completed matrix as JSON data, with how they came about."""
    cells = [
        {
            "source": cell.source,
            "target": cell.target,
            "reason": cell.reason,
            **{name: _told(getattr(cell, name)) for name in _NUMBERS},
        }
        for cell in matrix.cells
        if cell.status == "predicted"
    ]
    return {"format": FORMAT, "how": matrix.conditions["completion"], "cells": cells}


def with_predictions(matrix: TransferMatrix, folder: Path) -> TransferMatrix:
    """A run's matrix with its predicted cells where none is measured; as it is where the run has none.

    RunError where the file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return matrix
    try:
        raw = read_sealed_json(path)
        told = {(one["source"], one["target"]): one for one in raw["cells"]}
        return _filled(matrix, told, raw["how"])
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: damaged ({error}); remove it, or run with --budget again.") from None


def _filled(
    matrix: TransferMatrix, told: Mapping[tuple[str, str], Mapping[str, Any]], how: Mapping[str, Any]
) -> TransferMatrix:
    values, cells = matrix.values.copy(), []
    for cell in matrix.cells:
        row, column = matrix.sources.index(cell.source), matrix.targets.index(cell.target)
        place = cell.source, cell.target
        if cell.seed is None and place in told and not isfinite(matrix.values[row, column]):
            value, stderr, gain, low, high = (_number(told[place][name]) for name in _NUMBERS)
            cell = replace(
                cell,
                value=value,
                stderr=stderr,
                gain=gain,
                gain_low=low,
                gain_high=high,
                status="predicted",
                reason=told[place]["reason"],
            )
            values[row, column] = cell.value
        cells.append(cell)
    found = replace(matrix, values=values, cells=tuple(cells))
    if not found.predicted.any():
        return matrix
    return replace(found, conditions={**matrix.conditions, "completion": dict(how)})


def _told(number: float) -> float | None:
    return number if isfinite(number) else None


def _number(told: float | None) -> float:
    return nan if told is None else float(told)


def contamination_of(
    sources: Sequence[LoadedSource], targets: Sequence[LoadedTarget], listener: Listener = silent
) -> Contamination:
    """Overlap of all training examples with all items, as they are loaded."""
    from traitmap.analysis.contamination import find_contamination
    from traitmap.data.texts import questions_of_targets, texts_of_sources

    return find_contamination(texts_of_sources(sources), questions_of_targets(targets), listener)


def keep_contamination(
    folder: str | Path,
    sources: Sequence[LoadedSource],
    targets: Sequence[LoadedTarget],
    listener: Listener = silent,
) -> None:
    """Write ``contamination.json`` into a run folder, unless it is there for these very texts."""
    from traitmap.errors import RunError
    from traitmap.runs.ledger import contamination_key, read_contamination, write_contamination
    from traitmap.runs.store import locked_store

    key = contamination_key(sources, targets)
    with locked_store(folder) as store:
        try:
            before = read_contamination(store)
        except RunError:
            before = None
        if before is None or before.get("key") != key:
            write_contamination(store, contamination_of(sources, targets, listener).to_json(), key)


def contamination_in(folder: str | Path) -> Contamination | None:
    """What a run's training texts hold of its targets; None where nothing was compared."""
    from traitmap.analysis.contamination import contamination_from_json
    from traitmap.errors import RunError
    from traitmap.runs.ledger import read_contamination
    from traitmap.runs.store import open_store

    found = read_contamination(open_store(folder))
    try:
        return None if found is None else contamination_from_json(found)
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"{folder}: contamination.json is damaged ({error!r}); remove it, and `traitmap run` "
            "compares again."
        ) from None
