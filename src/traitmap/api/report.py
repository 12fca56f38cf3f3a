"""Everything that a run's report shows, computed as far as the run allows.

Details of a run's cells for the report: confusion, lengths, items won and lost, other metrics, costs.

Single figures of the report as files for print or slides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from traitmap.errors import UserError
from traitmap.metrics import CLASS_METRICS
from traitmap.progress import Listener, Progress, silent

if TYPE_CHECKING:
    from traitmap.analysis.cells import CellDetail, MetricTable, RunDetails, TargetDetail
    from traitmap.analysis.explanation.records import Explanation
    from traitmap.analysis.features import PairFeatures
    from traitmap.analysis.profiles.record import Profile
    from traitmap.analysis.recommendation.held_out import HeldOut
    from traitmap.data.records import Outcome
    from traitmap.data.texts import TaskText
    from traitmap.matrix.record import TransferMatrix
    from traitmap.report.records import ReportContents
    from traitmap.runs.ledger import Ledger
    from traitmap.runs.store import RunStore


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
    from traitmap.api.runs import open_run, traits_if_any, with_predictions
    from traitmap.report.records import ReportContents

    run = open_run(folder)
    if parser is not None:  # its faults are the user's to mend, not a part that is missing
        from traitmap.analysis.profiles.parser import load_parser

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

        return cell_details(
            self.folder, matrix=matrix, profile=profile, explanation=explanation, seed=self.seed
        )

    def evaluation(self, matrix: TransferMatrix, features: PairFeatures | None) -> HeldOut:
        from traitmap.analysis.recommendation.held_out import recommend_each
        from traitmap.api.runs import contamination_in

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


MOST_CELLS = 400
MOST_METRICS = 6
# The harness' own metrics of classes, where the profile has the like with an interval: one of them is enough.
_ALSO_KNOWN = {"mcc": "matthews", "f1": "macro_f1"}


def cell_details(
    run: str | Path,
    *,
    matrix: TransferMatrix | None = None,
    profile: Profile | None = None,
    explanation: Explanation | None = None,
    most: int = MOST_CELLS,
    seed: int = 0,
) -> RunDetails:
    """Details of the cells of a run folder, of at most ``most`` of them.

    profile: its reasons, and metrics of classes with their intervals. explanation: odd cells come first.
    seed: of the draw of items. RunError where the folder holds no run.
    """
    from types import MappingProxyType

    from traitmap.analysis.cells import RunDetails, chosen_cells, target_details
    from traitmap.matrix.build import build_matrix
    from traitmap.runs.ledger import read_ledger
    from traitmap.runs.store import open_store

    store = open_store(run)
    ledger = read_ledger(store)
    matrix = matrix if matrix is not None else build_matrix(store)
    odd = {(one.source, one.target): one for one in explanation.odd.odd} if explanation else {}
    chosen = chosen_cells(matrix, tuple(odd), most=most)
    texts = _texts(store)
    cells: dict[tuple[str, str], CellDetail] = {}
    targets: dict[str, TargetDetail] = {}
    for target, sources in _by_target(matrix, chosen):
        found = target_details(
            target, _outcomes(store, ledger, target, sources), texts.get(target, ()), sources, seed=seed
        )
        if found is not None:
            targets[target] = found[0]
            cells |= {(one.source, one.target): one for one in found[1]}
    measured = sum(cell.seed is None and cell.status == "measured" for cell in matrix.cells)
    outcomes = profile.cells if profile else None
    return RunDetails(
        cells=MappingProxyType(cells),
        targets=MappingProxyType(targets),
        measured=measured,
        chosen="the odd ones first, then those with the smallest q" if len(chosen) < measured else "",
        reasons=outcomes.reasons if outcomes else MappingProxyType({}),
        odd=MappingProxyType(odd),
        odd_unit="SD" if explanation and explanation.conditions.get("units") == "standard" else "points",
        metrics=tuple(_metrics(store, ledger, matrix, profile))[:MOST_METRICS],
        spent=MappingProxyType(_spent(ledger)),
    )


def _by_target(
    matrix: TransferMatrix, chosen: Sequence[tuple[str, str]]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    for target in matrix.targets:
        sources = tuple(source for source, own in chosen if own == target)
        if sources:
            yield target, sources


def _texts(store: RunStore) -> Mapping[str, Sequence[TaskText]]:
    """Texts of the items; none where an earlier version or somebody else made the run."""
    from traitmap.errors import RunError
    from traitmap.runs.texts import read_run_texts

    try:
        return read_run_texts(store).targets
    except RunError:
        return {}


def _outcomes(
    store: RunStore, ledger: Ledger, target: str, sources: Sequence[str]
) -> dict[tuple[str, int | None], Sequence[Outcome]]:
    """(source, seed) -> outcomes of one target, of the base and some sources.

    Cells without items are left out.
    """
    from traitmap.runs.cells import read_outcomes
    from traitmap.study.settings import BASELINE

    asked = {BASELINE, *sources}
    done = [
        cell
        for cell in ledger.cells
        if cell.target == target and cell.source in asked and cell.status == "done" and cell.key is not None
    ]
    found: dict[tuple[str, int | None], Sequence[Outcome]] = {
        (cell.source, cell.seed): read_outcomes(store.cell(cell.key or "")) for cell in done
    }
    return {key: outcomes for key, outcomes in found.items() if outcomes}


def _metrics(
    store: RunStore, ledger: Ledger, matrix: TransferMatrix, profile: Profile | None
) -> Iterator[MetricTable]:
    """Metrics of classes first, since they have intervals; then whatever else the harness reported."""
    classed = [] if profile is None else list(_class_metrics(matrix, profile))
    yield from classed
    names = {table.name for table in classed}
    told = _aggregates(store, ledger)
    own = {target["name"]: f"{target['metric']},{target['filter']}" for target in ledger.targets}
    keys = sorted({key for aggregates in told.values() for key in aggregates})
    counts = {key: sum(key in told.get((None, None, name), {}) for name in matrix.targets) for key in keys}
    for key in sorted(keys, key=lambda key: (-counts[key], key)):
        name, _, kind = key.partition(",")
        everywhere = all(own[target] == key for target in own if key in told.get((None, None, target), {}))
        if everywhere or _ALSO_KNOWN.get(name, name) in names:
            continue
        yield _aggregate_table(matrix, told, key, name if kind == "none" else f"{name} ({kind})")


def _class_metrics(matrix: TransferMatrix, profile: Profile) -> Iterator[MetricTable]:
    import numpy as np

    from traitmap.analysis.cells import MetricTable

    cells = profile.cells.classes if profile.cells else ()
    pooled = [cell for cell in cells if cell.seed is None and cell.source in matrix.sources]
    for name in CLASS_METRICS:
        if name == "accuracy":  # the study's own
            continue
        values, low, high = (np.full(matrix.values.shape, np.nan) for _ in range(3))
        baseline = np.full(len(matrix.targets), np.nan)
        for one in pooled:
            if one.target not in matrix.targets:
                continue
            s, t = matrix.sources.index(one.source), matrix.targets.index(one.target)
            values[s, t] = getattr(one.adapter, name).value
            low[s, t], high[s, t] = one.gains[name].low, one.gains[name].high
            if one.base is not None:
                baseline[t] = getattr(one.base, name).value
        if np.isfinite(values - baseline).any():
            yield MetricTable(name, values, baseline, low, high)


def _aggregates(
    store: RunStore, ledger: Ledger
) -> dict[tuple[str | None, int | None, str], dict[str, float]]:
    """(source, seed, target) -> the harness' own values; the base's under (None, None, target)."""
    from traitmap.runs.cells import read_aggregates
    from traitmap.study.settings import BASELINE

    return {
        (None if cell.source == BASELINE else cell.source, cell.seed, cell.target): dict(
            read_aggregates(store.cell(cell.key))
        )
        for cell in ledger.cells
        if cell.status == "done" and cell.key is not None
    }


def _aggregate_table(
    matrix: TransferMatrix,
    told: Mapping[tuple[str | None, int | None, str], Mapping[str, float]],
    key: str,
    name: str,
) -> MetricTable:
    """One of the harness' metrics, mean over seeds; it has no interval, since items are not told."""
    import numpy as np

    from traitmap.analysis.cells import MetricTable

    found: dict[tuple[str, str], list[float]] = {}
    for (source, _, target), aggregates in told.items():
        if source is not None and key in aggregates:
            found.setdefault((source, target), []).append(aggregates[key])
    values = np.full(matrix.values.shape, np.nan)
    for (source, target), several in found.items():
        if source in matrix.sources and target in matrix.targets:
            values[matrix.sources.index(source), matrix.targets.index(target)] = np.mean(several)
    baseline = np.array([told.get((None, None, target), {}).get(key, np.nan) for target in matrix.targets])
    none = np.full(values.shape, np.nan)
    return MetricTable(name, values, baseline, none, none)


def _spent(ledger: Ledger) -> dict[str, float]:
    """Time and tokens. Adapters that were trained in one pass share its seconds."""
    passes: dict[object, float] = {}
    tokens, trained = 0.0, 0
    for entry in ledger.adapters:
        if entry.status != "done" or not entry.report:
            continue
        trained += 1
        tokens += float(entry.report.get("tokens") or 0)
        alone = entry.group if entry.group is not None else entry.key
        passes[alone] = max(passes.get(alone, 0.0), float(entry.report.get("seconds") or 0))
    seconds = [cell.seconds for cell in ledger.cells if cell.status == "done" and cell.seconds is not None]
    spent = {
        "adapters trained": float(trained),
        "training passes": float(len(passes)),
        "training tokens": tokens,
        "training seconds": sum(passes.values()),
        "cells evaluated": float(sum(cell.status == "done" for cell in ledger.cells)),
        "evaluation seconds": float(sum(seconds)),
    }
    return {name: value for name, value in spent.items() if value}


def figure(
    run: str | Path,
    name: str,
    output: str | Path,
    *,
    width: float | None = None,
    dpi: int = 300,
    listener: Listener = silent,
) -> Path:
    """Write one figure of the report as an SVG, PNG or PDF file, told by its ending.

    run: a run folder, or a matrix file, whose report has fewer figures. name: one of ``figure_names``.
    width: in mm, default the figure's own. dpi: dots per inch of a PNG. PNG and PDF need
    ``traitmap[figures]``.
    UserError for an unknown name or ending, and where the file cannot be written.
    """
    from traitmap.report.figure_files import FORMATS, figure_file, figure_svg

    path = Path(output)
    kind = path.suffix.removeprefix(".").lower()
    if kind not in FORMATS:
        raise UserError(
            f"{path}: ends in no format of a figure; legal: {', '.join('.' + one for one in FORMATS)}."
        )
    made = figure_file(figure_svg(name, _contents(run, listener, name)), kind, width=width, dpi=dpi)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(made)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); give another --output.") from None
    return path


def figure_names(run: str | Path, listener: Listener = silent) -> tuple[str, ...]:
    """Names of all figures that the report of a run folder or matrix file has, in the report's order."""
    from traitmap.report.figure_files import figure_names

    return figure_names(_contents(run, listener))


def _contents(run: str | Path, listener: Listener, wanted: str | None = None) -> ReportContents:
    """What the report shows; without its costly parts where the figure that is wanted needs none of them."""
    from traitmap.api.runs import matrix_of, traits_if_any
    from traitmap.report.figure_files import figure_names
    from traitmap.report.records import ReportContents

    if not Path(run).is_dir():
        matrix = matrix_of(run)
        return ReportContents(matrix=matrix, traits=traits_if_any(matrix), conditions=matrix.conditions)
    if wanted is not None:
        quick = report_contents(run, why=False, which=False, listener=listener)
        if wanted in figure_names(quick):
            return quick
    return report_contents(run, listener=listener)
