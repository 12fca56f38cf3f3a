"""Everything that a run's report shows, computed as far as the run allows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from traitmap.errors import UserError
from traitmap.progress import Listener, Progress, silent

if TYPE_CHECKING:
    from traitmap.analysis.cell_details import RunDetails
    from traitmap.analysis.explanation.records import Explanation
    from traitmap.analysis.pair_features import PairFeatures
    from traitmap.analysis.profiles.record import Profile
    from traitmap.analysis.recommendation.held_out import HeldOut
    from traitmap.matrix_record import TransferMatrix
    from traitmap.report.contents import ReportContents

Part = TypeVar("Part")
MOST_PAIRS = 4_000  # of sources and targets, for which the report says why and which
PERMUTATIONS = 2000  # of tasks: as many as `traitmap explain` takes


def report_contents(
    folder: str | Path,
    *,
    why: bool = True,
    which: bool = True,
    cells: bool = False,
    parser: str | Path | None = None,
    seed: int = 0,
    listener: Listener = silent,
) -> ReportContents:
    """All records of a run's report: traits, profile, explanation, recommendations for hidden targets.

    why, which, cells: whether to compute those sections, and details of single cells; traits are always
    computed. Of more than ``MOST_PAIRS`` pairs why and which are left out: they take long.
    parser: a spaCy pipeline, by path or installed name, for syntactic relations too. A part that
    the run does not allow (too few tasks, no texts) is None, and ``missing`` says why. The same run gives the
    same records. Raises RunError where there is no run, and UserError for a parser that cannot be loaded.
    """
    from traitmap.api.completion import with_predictions
    from traitmap.api.runs import open_run, traits_if_any
    from traitmap.report.contents import ReportContents

    run = open_run(folder)
    if parser is not None:  # its faults are the user's to mend, not a part that is missing
        from traitmap.analysis.profiles.syntax_parser import load_parser

        load_parser(parser)
    listener(Progress("traits", 0, 1))
    measured = run.matrix()
    matrix = with_predictions(measured, run.folder)
    traits = traits_if_any(matrix)
    listener(Progress("traits", 1, 1))
    parts = _Parts(run.folder, parser, seed, listener, {})
    if measured.values.size > MOST_PAIRS:
        parts.missing.update(dict.fromkeys(("why", "which"), _too_many(measured)))
        why = which = False
    profile = explanation = evaluation = None
    if why:
        profile = parts.tried("profile", parts.profile)
    features = parts.tried("features", lambda: parts.features(measured)) if why or which else None
    if why:
        explanation = parts.tried("why", lambda: parts.explanation(measured, profile, features))
    if which:
        evaluation = parts.tried("which", lambda: parts.evaluation(measured, features))
    return ReportContents(
        matrix=matrix,
        traits=traits,
        conditions=matrix.conditions,
        profile=profile,
        explanation=explanation,
        evaluation=evaluation,
        cells=parts.tried("cells", lambda: parts.cells(measured, profile, explanation)) if cells else None,
        missing={name: said for name, said in parts.missing.items() if name in ("why", "which", "profile")},
    )


def _too_many(matrix: TransferMatrix) -> str:
    return (
        f"{matrix.values.size:,} pairs of sources and targets are more than the {MOST_PAIRS:,} for which the "
        "report says it; `traitmap recommend` answers for one target, and `traitmap explain` takes a part "
        "of the matrix as a CSV file."
    )


@dataclass(frozen=True)
class _Parts:
    """The parts of one run's report; missing: part -> why it could not be computed."""

    folder: Path
    parser: str | Path | None
    seed: int
    listener: Listener
    missing: dict[str, str]

    def tried(self, name: str, compute: Callable[[], Part]) -> Part | None:
        """What is computed, or None where the run does not allow it."""
        told = name != "which"  # which tells of every target itself
        if told:
            self.listener(Progress(name, 0, 1))
        try:
            found = compute()
        except UserError as error:
            # a report is sent around: where the run lies here is nobody's business
            self.missing[name] = str(error).replace(f"{self.folder}/", "")
            found = None
        if told:
            self.listener(Progress(name, 1, 1))
        return found

    def profile(self) -> Profile:
        from traitmap.api.profiles import profile

        return profile(self.folder, parser=self.parser, seed=self.seed, listener=self.listener)

    def features(self, matrix: TransferMatrix) -> PairFeatures:
        """Of all pairs, as ``explain`` and ``recommend`` compute them from the run's texts."""
        from traitmap.analysis.explanation.explain import features_from_texts
        from traitmap.runs.store import open_store
        from traitmap.runs.texts import read_run_texts

        kept = read_run_texts(open_store(self.folder))
        return features_from_texts(
            matrix, kept.sources, target_texts=kept.targets, sizes=kept.totals, seed=self.seed
        )

    def explanation(
        self, matrix: TransferMatrix, profile: Profile | None, features: PairFeatures | None
    ) -> Explanation:
        from traitmap.api.explanation import explain, outcome_findings

        if features is None:
            return explain(self.folder, n_permutations=PERMUTATIONS, seed=self.seed, listener=self.listener)
        reasons = profile.cells.reasons if profile is not None and profile.cells is not None else None
        known = outcome_findings(self.folder, matrix, reasons=reasons is None)
        if reasons is not None:
            known["reasons"] = reasons
        return explain(matrix, features=features, n_permutations=PERMUTATIONS, seed=self.seed, **known)

    def cells(
        self, matrix: TransferMatrix, profile: Profile | None, explanation: Explanation | None
    ) -> RunDetails:
        from traitmap.api.cells import cell_details

        return cell_details(
            self.folder, matrix=matrix, profile=profile, explanation=explanation, seed=self.seed
        )

    def evaluation(self, matrix: TransferMatrix, features: PairFeatures | None) -> HeldOut:
        from traitmap.analysis.recommendation.held_out import recommend_each
        from traitmap.api.contamination import contamination_in

        kept = contamination_in(self.folder)
        material: dict[str, dict[str, str]] = {}
        slight: dict[str, dict[str, str]] = {}
        for one in kept.overlaps if kept is not None else ():
            side = material if one.material else slight
            words = f"its training texts hold {len(one.touched):,} of {one.items:,} items of the target"
            side.setdefault(one.target, {})[one.source] = words
        return recommend_each(
            matrix,
            features=features,
            contaminated=material,
            touched=slight,
            seed=self.seed,
            listener=self.listener,
        )
