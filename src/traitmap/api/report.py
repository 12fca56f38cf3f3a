"""The report of a run: all that it shows, computed as far as the run allows, and the page.

First the parts (traits, profile, why, which), each of which may be missing for a reason that the report
gives; then details of single cells, read from the run's outcomes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from traitmap import analysis
from traitmap import matrix as matrices
from traitmap import report as pages
from traitmap.analysis.combination import combinations_in
from traitmap.api.answers import FROM_SCORES, NOT_ASKED, target_outcomes, untold, verdicts
from traitmap.api.explanation import explain, outcome_findings
from traitmap.api.mix import mix
from traitmap.api.profiles import profile
from traitmap.api.runs import Run, contamination_in, open_run, overlap_in_words, with_predictions
from traitmap.api.subject import date_of, folder_of, read_matrix, traits_if_any
from traitmap.errors import RunError, UserError
from traitmap.matrix.record import TransferMatrix
from traitmap.metrics import CLASS_METRICS
from traitmap.progress import Listener, Progress, silent
from traitmap.runs.cells import read_aggregates
from traitmap.runs.ledger import Ledger, read_ledger
from traitmap.runs.store import RunStore, open_store
from traitmap.runs.texts import read_run_texts
from traitmap.study.settings import BASELINE
from traitmap.terminal import shows_progress

if TYPE_CHECKING:
    from traitmap.api.subject import MatrixLike

Part = TypeVar("Part")
MOST_PAIRS = 4_000  # of sources and targets, for which the report says why and which
PERMUTATIONS = 2000  # of tasks: as many as `traitmap explain` takes
_NEEDS_TEXTS = (
    "a table alone does not say. `traitmap explain TABLE --texts FILE.jsonl` does, where the texts of tasks "
    "are known."
)
_NEEDS_BASE = (
    "the report says it of gains. `traitmap recommend TABLE --target TARGET` ranks sources by score."
)
MOST_CELLS = 400
MOST_METRICS = 6
# The harness' own metrics of classes, where the profile has the like with an interval: one of them is enough.
_ALSO_KNOWN = {"mcc": "matthews", "f1": "macro_f1"}


@shows_progress
def write_report(
    run: MatrixLike,
    path: str | Path | None = None,
    *,
    fast: bool = False,
    parser: str | Path | None = None,
    listener: Listener | None = None,
) -> Path:
    """Write the report: one HTML file that needs nothing else. The twin of ``traitmap report``.

    run: a run, or a table of scores (see ``read_matrix``), whose report has no section that needs items or
    texts. path: where to write, by default ``report.html`` in the run folder, ``NAME-report.html`` beside a
    table and ``report.html`` here for a matrix or frame.
    fast: leave out why gains are what they are and which source to take, which need minutes on large runs.
    parser: a spaCy pipeline, by path or installed name, for syntactic relations too.
    listener: see ``Progress``; None shows progress on a terminal or notebook. The same run gives the same
    report.

    Returns the path. UserError where it cannot be written, or the parser cannot be loaded.
    """
    place = Path(path) if path is not None else report_path(run)
    folder = folder_of(run)
    if folder is not None:
        contents = report_contents(
            folder, why=not fast, which=not fast, cells=True, parser=parser, listener=listener or silent
        )
    else:
        contents = table_contents(
            read_matrix(run), which=not fast, date=date_of(run), listener=listener or silent
        )
    return pages.write_report(place, contents)


def report_path(run: MatrixLike) -> Path:
    """Where the report of a run or a table is written by default.

    UserError where that is a link out of the run folder: whoever made the run may have put it there.
    """
    folder = folder_of(run)
    if folder is not None:
        place = folder / "report.html"
        if place.is_symlink() and not place.resolve().is_relative_to(folder.resolve()):
            raise UserError(
                f"{place} is a link to {place.resolve()}, outside of the run; remove it, or name another file"
            )
        return place
    if isinstance(run, str | Path):
        return Path(run).with_name(f"{Path(run).name.split('.')[0]}-report.html")
    return Path("report.html")


def table_contents(
    matrix: TransferMatrix,
    *,
    which: bool = True,
    date: str = "",
    seed: int = 0,
    listener: Listener = silent,
) -> pages.ReportContents:
    """What the report of a table of scores shows: the answer, traits, and what would have been recommended.

    which: whether to compute the latter, for which gains must be known. date: of the scores. ``missing`` says
    why a part is not there.
    """
    listener(Progress("traits", 0, 1))
    traits = traits_if_any(matrix)
    listener(Progress("traits", 1, 1))
    missing = {"why": _NEEDS_TEXTS}
    evaluation = None
    if not np.isfinite(matrix.gains).any():
        missing["which"] = _NEEDS_BASE
    elif matrix.values.size > MOST_PAIRS:
        missing["which"] = _too_many(matrix)
    elif which:
        try:
            evaluation = analysis.recommend_each(matrix, seed=seed, listener=listener)
        except UserError as error:
            missing["which"] = str(error)
    return pages.ReportContents(
        matrix=matrix,
        traits=traits,
        conditions=matrix.conditions,
        evaluation=evaluation,
        answer=analysis.answer_of(
            matrix, analysis.cell_verdicts(matrix), why_not=FROM_SCORES, traits=traits, date=date
        ),
        missing=MappingProxyType(missing),
    )


def _too_many(matrix: TransferMatrix) -> str:
    return (
        f"{matrix.values.size:,} pairs of sources and targets are more than the {MOST_PAIRS:,} for "
        "which the report says it; `traitmap recommend` answers for one target, and `traitmap explain` "
        "takes a part of the matrix as a CSV file."
    )


@dataclass(frozen=True)
class _Parts:
    """Parts of a run's report as they are computed, and why some are missing: name -> reason."""

    folder: Path
    listener: Listener
    missing: dict[str, str] = field(default_factory=dict)

    def part(self, name: str, compute: Callable[[], Part]) -> Part | None:
        """A part of the report, or None where the run does not allow it."""
        listener = silent if name == "which" else self.listener  # that part reports every target by itself
        listener(Progress(name, 0, 1))
        try:
            result = compute()
        except UserError as error:
            # a report is sent around: where the run lies here is nobody's business
            self.missing[name] = str(error).replace(f"{self.folder}/", "")
            result = None
        listener(Progress(name, 1, 1))
        return result


def report_contents(
    folder: str | Path,
    *,
    why: bool = True,
    which: bool = True,
    cells: bool = False,
    parser: str | Path | None = None,
    seed: int = 0,
    listener: Listener = silent,
) -> pages.ReportContents:
    """All records of a run's report: traits, profile, explanation, recommendations for hidden targets.

    why, which, cells: whether to compute those sections, and details of single cells; traits are always
    computed. Of more than ``MOST_PAIRS`` pairs why and which are left out: they take long.
    parser: a spaCy pipeline, by path or installed name, for syntactic relations too. A part that
    the run does not allow (too few tasks, no texts) is None, and ``missing`` says why. The same run gives the
    same records. Raises RunError where there is no run, and UserError for a parser that cannot be loaded.
    """
    run = open_run(folder)
    parts = _Parts(run.folder, listener)
    part, missing = parts.part, parts.missing
    if parser is not None:  # its faults are the user's to mend, not a part that is missing
        analysis.load_parser(parser)
    listener(Progress("traits", 0, 1))
    measured = run.matrix()
    matrix = with_predictions(measured, run.folder)
    traits = traits_if_any(matrix)
    listener(Progress("traits", 1, 1))
    if measured.values.size > MOST_PAIRS:
        missing["why"] = missing["which"] = _too_many(measured)
        why = which = False
    elif not np.isfinite(measured.gains).any() and np.isfinite(measured.values).any():
        missing["which"], which = _NEEDS_BASE, False
    texts_profile = explanation = evaluation = features = details = None
    if why:
        texts_profile = part("profile", lambda: profile(run, parser=parser, seed=seed, listener=listener))
    if why or which:
        features = part("features", lambda: _features(run, measured, seed))
    if why:
        explanation = part(
            "why", lambda: _explanation(run, measured, texts_profile, features, seed, listener)
        )
    if which:
        evaluation = part("which", lambda: _evaluation(run, measured, features, seed, listener))
    combined = (
        part("combine", lambda: mix(run, seed=seed, listener=silent)) if combinations_in(matrix) else None
    )
    if cells:
        details = part(
            "cells",
            lambda: cell_details(
                run, matrix=measured, profile=texts_profile, explanation=explanation, seed=seed
            ),
        )
    return pages.ReportContents(
        matrix=matrix,
        traits=traits,
        conditions=matrix.conditions,
        profile=texts_profile,
        explanation=explanation,
        evaluation=evaluation,
        cells=details,
        mix=combined,
        checkpoints=analysis.checkpoint_courses(matrix) if analysis.checkpoints_in(matrix) else None,
        answer=analysis.answer_of(
            matrix,
            verdicts(run, matrix=matrix),
            explanation=explanation,
            why_not=untold(missing["why"]) if "why" in missing else NOT_ASKED,
            traits=traits,
            date=date_of(run),
        ),
        missing={
            name: reason for name, reason in missing.items() if name in ("why", "which", "profile", "combine")
        },
    )


def _features(run: Run, matrix: TransferMatrix, seed: int) -> analysis.PairFeatures:
    """Of all pairs, as ``explain`` and ``recommend`` compute them from the run's texts."""
    rendered = read_run_texts(open_store(run.folder))
    return analysis.features_from_texts(
        matrix, rendered.sources, target_texts=rendered.targets, sizes=rendered.totals, seed=seed
    )


def _explanation(
    run: Run,
    matrix: TransferMatrix,
    texts_profile: analysis.Profile | None,
    features: analysis.PairFeatures | None,
    seed: int,
    listener: Listener,
) -> analysis.Explanation:
    """``explain``, which takes the reasons of cells from the profile where there is one."""
    if features is None:
        return explain(run, n_permutations=PERMUTATIONS, seed=seed, listener=listener)
    cells = texts_profile.cells if texts_profile is not None else None
    known = cells.reasons if cells is not None else None
    answered, reasons = outcome_findings(run.folder, matrix, reasons=known is None)
    return explain(
        matrix,
        features=features,
        n_permutations=PERMUTATIONS,
        seed=seed,
        reasons=reasons if known is None else analysis.merged(reasons, known),
        answered=answered,
        listener=listener,
    )


def _evaluation(
    run: Run,
    matrix: TransferMatrix,
    features: analysis.PairFeatures | None,
    seed: int,
    listener: Listener,
) -> analysis.HeldOut:
    """Recommendations for every target, hidden in turn, with sources that hold its items set aside."""
    contamination = contamination_in(run.folder)
    material: dict[str, dict[str, str]] = {}
    slight: dict[str, dict[str, str]] = {}
    for overlap in contamination.overlaps if contamination is not None else ():
        side = material if overlap.material else slight
        side.setdefault(overlap.target, {})[overlap.source] = overlap_in_words(overlap)
    return analysis.recommend_each(
        analysis.without_derived(matrix),
        features=features,
        contaminated=material,
        touched=slight,
        seed=seed,
        listener=listener,
    )


def cell_details(
    run: Run | str | Path,
    *,
    matrix: TransferMatrix | None = None,
    profile: analysis.Profile | None = None,
    explanation: analysis.Explanation | None = None,
    most: int = MOST_CELLS,
    seed: int = 0,
) -> analysis.RunDetails:
    """Details of the cells of a run folder, of at most ``most`` of them, and every two adapters side by side.

    profile: its reasons, and metrics of classes with their intervals. explanation: odd cells come first.
    seed: of the draw of items. RunError where the folder holds no run.
    """
    store = open_store(run.folder if isinstance(run, Run) else run)
    ledger = read_ledger(store)
    matrix = matrix if matrix is not None else matrices.build_matrix(store)
    odd = {(cell.source, cell.target): cell for cell in explanation.odd.odd} if explanation else {}
    chosen = analysis.chosen_cells(matrix, tuple(odd), most=most)
    try:
        texts = read_run_texts(store).targets
    except RunError:  # an earlier version or somebody else made the run
        texts = {}
    cells: dict[tuple[str, str], analysis.CellDetail] = {}
    targets: dict[str, analysis.TargetDetail] = {}
    for target in matrix.targets:
        sources = tuple(source for source, column in chosen if column == target)
        if not sources:
            continue
        details = analysis.target_details(
            target,
            target_outcomes(store, ledger, target, sources),
            texts.get(target, ()),
            sources,
            room=analysis.ROOM // len(matrix.targets),
            seed=seed,
        )
        if details is not None:
            targets[target] = details[0]
            cells |= {(cell.source, cell.target): cell for cell in details[1]}
    measured = sum(cell.seed is None and cell.status == "measured" for cell in matrix.cells)
    outcomes = profile.cells if profile else None
    return analysis.RunDetails(
        cells=MappingProxyType(cells),
        targets=MappingProxyType(targets),
        measured=measured,
        chosen="the odd ones first, then those with the smallest q" if len(chosen) < measured else "",
        reasons=outcomes.reasons if outcomes else MappingProxyType({}),
        odd=MappingProxyType(odd),
        odd_unit="SD" if explanation and explanation.conditions.get("units") == "standard" else "points",
        metrics=tuple(_metrics(store, ledger, matrix, profile))[:MOST_METRICS],
        spent=MappingProxyType(_spent(ledger)),
        pairs=MappingProxyType(analysis.side_by_side(matrix)),
    )


def _metrics(
    store: RunStore, ledger: Ledger, matrix: TransferMatrix, profile: analysis.Profile | None
) -> Iterator[analysis.MetricTable]:
    """Metrics of classes first, since they have intervals; then whatever else the harness reported."""
    classed = [] if profile is None else list(_class_metrics(matrix, profile))
    yield from classed
    names = {table.name for table in classed}
    # (source, seed, target) -> the harness' own values; the base's under (None, None, target)
    reported: dict[tuple[str | None, int | None, str], Mapping[str, float]] = {
        (None if cell.source == BASELINE else cell.source, cell.seed, cell.target): dict(
            read_aggregates(store.cell(cell.key))
        )
        for cell in ledger.cells
        if cell.status == "done" and cell.key is not None
    }
    of_base = {target: reported.get((None, None, target), {}) for target in matrix.targets}
    main = {target["name"]: f"{target['metric']},{target['filter']}" for target in ledger.targets}
    keys = sorted({key for aggregates in reported.values() for key in aggregates})
    counts = {key: sum(key in aggregates for aggregates in of_base.values()) for key in keys}
    for key in sorted(keys, key=lambda key: (-counts[key], key)):
        name, _, kind = key.partition(",")
        everywhere = all(
            main[target] == key for target in main if key in reported.get((None, None, target), {})
        )
        if everywhere or _ALSO_KNOWN.get(name, name) in names:
            continue
        title = name if kind == "none" else f"{name} ({kind})"
        yield _aggregate_table(matrix, reported, key, title)


def _class_metrics(matrix: TransferMatrix, profile: analysis.Profile) -> Iterator[analysis.MetricTable]:
    """Metrics of classes with the intervals of the profile; no table where none is known beside the base."""
    cells = profile.cells.classes if profile.cells else ()
    pooled = [
        cell
        for cell in cells
        if cell.seed is None and cell.source in matrix.sources and cell.target in matrix.targets
    ]
    for name in CLASS_METRICS:
        if name == "accuracy":  # the study's own
            continue
        values, low, high = (np.full(matrix.values.shape, np.nan) for _ in range(3))
        baseline = np.full(len(matrix.targets), np.nan)
        for cell in pooled:
            s, t = matrix.sources.index(cell.source), matrix.targets.index(cell.target)
            values[s, t] = getattr(cell.adapter, name).value
            low[s, t], high[s, t] = cell.gains[name].low, cell.gains[name].high
            if cell.base is not None:
                baseline[t] = getattr(cell.base, name).value
        if np.isfinite(values - baseline).any():
            yield analysis.MetricTable(name, values, baseline, low, high)


def _aggregate_table(
    matrix: TransferMatrix,
    reported: Mapping[tuple[str | None, int | None, str], Mapping[str, float]],
    key: str,
    name: str,
) -> analysis.MetricTable:
    """One of the harness' metrics, mean over seeds; it has no interval, since items are not told."""
    by_seed: dict[tuple[str, str], list[float]] = {}
    for (source, _, target), aggregates in reported.items():
        if source is not None and key in aggregates:
            by_seed.setdefault((source, target), []).append(aggregates[key])
    values = np.full(matrix.values.shape, np.nan)
    for (source, target), numbers in by_seed.items():
        if source in matrix.sources and target in matrix.targets:
            values[matrix.sources.index(source), matrix.targets.index(target)] = np.mean(numbers)
    baseline = [reported.get((None, None, target), {}).get(key, np.nan) for target in matrix.targets]
    none = np.full(values.shape, np.nan)
    return analysis.MetricTable(name, values, np.array(baseline), none, none)


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
