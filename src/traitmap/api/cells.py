"""Details of a run's cells for the report: confusion, lengths, items won and lost, other metrics, costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from traitmap.analysis.cell_details import CellDetail, MetricTable, RunDetails, TargetDetail
    from traitmap.analysis.explanation.records import Explanation
    from traitmap.analysis.profiles.record import Profile
    from traitmap.data.records import Outcome
    from traitmap.data.texts import TaskText
    from traitmap.matrix_record import TransferMatrix
    from traitmap.runs.ledger import Ledger
    from traitmap.runs.store import RunStore

MOST_CELLS = 400
MOST_METRICS = 6
# Of the classes, as they are called by the harness: one of the two is enough.
_ALSO_KNOWN = {"mcc": "matthews", "f1": "macro_f1", "brier_score": ""}
_CLASS_METRICS = ("balanced_accuracy", "macro_f1", "kappa", "matthews")


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

    from traitmap.analysis.cell_details import RunDetails, chosen_cells, target_details
    from traitmap.matrix import build_matrix
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

    from traitmap.analysis.cell_details import MetricTable

    cells = profile.cells.classes if profile.cells else ()
    pooled = [one for one in cells if one.seed is None and one.source in matrix.sources]
    for name in _CLASS_METRICS:
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

    from traitmap.analysis.cell_details import MetricTable

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
