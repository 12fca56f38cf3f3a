"""A run folder, finished or not, and whatever else holds a matrix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitmap.progress import Listener, silent

if TYPE_CHECKING:
    from traitmap.analysis.explanation.records import Explanation
    from traitmap.analysis.profiles.record import Profile
    from traitmap.analysis.recommendation.advice import Recommendation
    from traitmap.analysis.records import Traits
    from traitmap.matrix import TransferMatrix
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
        from traitmap.api.completion import with_predictions
        from traitmap.matrix import build_matrix

        found = build_matrix(self.folder)
        return with_predictions(found, self.folder) if predicted else found

    def spent(self) -> Mapping[str, Any] | None:
        """What the last run on a budget spent, or None where there was none. RunError where it is damaged."""
        from traitmap.errors import RunError
        from traitmap.runs.sealed_json import read_sealed_json

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
        from traitmap.api.advice import recommend

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
        from traitmap.api.report_contents import report_contents
        from traitmap.report.html import write_report

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
    from traitmap.matrix_io import read_matrix

    return read_matrix(place, **reading)


def _traits(matrix: TransferMatrix, **settings: Any) -> Traits:
    from traitmap.analysis.traits import decompose

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
