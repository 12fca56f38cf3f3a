"""Combinations of sources: proposed, predicted, measured where that tells most, and who cancels whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import combinations as subsets
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitmap import analysis
from traitmap.analysis.combination import (
    CONCAT,
    MERGE,
    Combination,
    Fit,
    combinations_in,
    fit,
    read_combinations,
)
from traitmap.analysis.corrections import LEAST
from traitmap.analysis.interference import Distances, interference, output_distances, row_contrast
from traitmap.analysis.mixing import MARGIN, Mix, named, propose
from traitmap.analysis.profiles.cell_items import TargetItems, target_items
from traitmap.analysis.verdicts import UNCLEAN
from traitmap.api.answers import target_outcomes, verdicts
from traitmap.api.studies import run as run_study
from traitmap.api.subject import folder_of, read_matrix
from traitmap.data.adapters import CONFIG
from traitmap.data.fingerprints import Fingerprints, Update, fingerprints, read_update, sign_conflicts
from traitmap.errors import DataError, MatrixError, RunError, UserError
from traitmap.matrix.record import TransferMatrix
from traitmap.matrix.statistics import Estimate
from traitmap.progress import Listener, Progress, silent
from traitmap.runs.ledger import read_ledger
from traitmap.runs.store import open_store, read_study
from traitmap.runs.texts import read_run_texts
from traitmap.study.derived import MERGE_METHODS
from traitmap.study.load import load_study
from traitmap.study.paths import is_local_data, is_task_file, resolve
from traitmap.study.settings import Source, Study
from traitmap.terminal import shows_progress

if TYPE_CHECKING:
    from traitmap.api.subject import MatrixLike
    from traitmap.engine.contract import Engine

METHODS = (CONCAT, MERGE, *MERGE_METHODS)


@shows_progress
def mix(
    subject: MatrixLike,
    *,
    targets: Sequence[str] = (),
    keep: Sequence[str] = (),
    margin: float = MARGIN,
    method: str | None = None,
    most: int = 3,
    top: int = 5,
    probe: int = 0,
    seed: int = 0,
    listener: Listener | None = None,
    engine: Engine | None = None,
) -> analysis.Mix:
    """Which mixture or merge of sources for some targets, without harm to others? As ``traitmap mix``.

    subject: a run or a table of scores, see ``read_matrix``; with ``probe`` a run or its study. targets: to
    gain on, by their mean; none: all that are not kept. keep: targets that may lose at most ``margin``, in
    points; in other units as large a share of their usual gain. method: ``concat`` (one training set),
    ``merge`` (of adapters, the way most measured here) or one of PEFT's ways; None: what was measured here.
    most: sources in a combination. top: how many are shown. probe: so many of the most informative
    combinations are added to the run, measured, and used. seed: of permutations. listener: see ``Progress``.
    engine: one that is loaded already, for ``probe``.

    Predicted rows are marked as such and are no data. MatrixError for a target that is not there, StudyError
    and RunError where probes cannot be run.
    """
    if method is not None and method not in METHODS:
        raise MatrixError(f"method {method!r}; legal: {', '.join(METHODS)}")
    listener = listener or silent
    asked = partial(_proposed, targets=targets, keep=keep, margin=margin, method=method, most=most, top=top)
    if not probe:
        return asked(subject, seed=seed, listener=listener)
    study = _study_of(subject)
    first = asked(subject, probes=probe, seed=seed, listener=listener, explain=False)
    entries = tuple(entry_of(one.combination) for one in first.probes)
    if not entries:
        raise MatrixError(
            "no combination is left to be measured: none may gain and is expected to keep the others"
        )
    added = tuple(map(Source.model_validate, entries))
    run_study(study.model_copy(update={"sources": (*study.sources, *added)}), listener, engine)
    return replace(asked(subject, seed=seed, listener=listener), added=entries)


def entry_of(combination: Combination) -> dict[str, Any]:
    """The source of a study that a combination is."""
    if combination.method == CONCAT:
        shares = dict(zip(combination.parents, combination.weights, strict=True))
        return {"name": combination.name, "concat": shares}
    return {
        "name": combination.name,
        "merge": list(combination.parents),
        "weights": list(combination.weights),
        "method": combination.method,
    }


def _study_of(subject: MatrixLike) -> Study:
    """The study that a run was made of, in the folder that it lies in."""
    if isinstance(subject, Study):
        return subject
    if isinstance(subject, str | Path) and Path(subject).suffix in (".yaml", ".yml"):
        return load_study(subject)
    folder = folder_of(subject)
    record = None if folder is None else read_study(open_store(folder))
    if folder is None or record is None:
        raise RunError(f"{folder or 'a table'}: no study to add combinations to; give the study file")
    if absent := _not_here(record):
        raise RunError(
            f"{folder}: a run does not keep in which folder its study lies, and {absent} is not in this one; "
            "give the study file in place of the run, or come from its folder"
        )
    here = folder.absolute()
    return Study.model_validate({**record, "name": here.name, "output": str(here.parent)})


def _not_here(record: Mapping[str, Any]) -> str:
    """The first file that a study names from its own folder and that is not in this one; or nothing."""
    for part in (*record.get("sources", ()), *record.get("targets", ())):
        for key, is_file in (("path", is_local_data), ("task", is_task_file), ("adapter", is_local_data)):
            name = part.get(key)
            if name and is_file(name) and not resolve(name, Path.cwd()).exists():
                return str(name)
    return ""


def _proposed(
    subject: MatrixLike,
    *,
    targets: Sequence[str],
    keep: Sequence[str],
    margin: float,
    method: str | None,
    most: int,
    top: int,
    probes: int = 3,
    seed: int,
    listener: Listener,
    explain: bool = True,
) -> Mix:
    """Proposals from what a run or table holds."""
    listener(Progress("mix", 0, 1))
    matrix = read_matrix(subject)
    folder = folder_of(subject)
    fitted, updates = fitted_combinations(subject, matrix)
    asked = tuple(targets) or tuple(name for name in matrix.targets if name not in keep)

    def contrast(first: str, second: str, names: Sequence[str]) -> Estimate:
        return row_contrast(matrix, {first: 1.0, second: -1.0}, dict.fromkeys(names, 1 / len(names)))

    one_unit = len({fitted.table.units[matrix.targets.index(n)] for n in asked if n in matrix.targets}) == 1
    result = propose(
        fitted,
        asked,
        keep=keep,
        margin=margin,
        method=method,
        most=most,
        top=top,
        probes=probes,
        contrast=contrast if one_unit else None,
    )
    if explain and fitted.table.combinations:
        pairs = [
            named(pair, (0.5, 0.5), way) for way in fitted.widths for pair in subsets(fitted.table.singles, 2)
        ]
        between = interference(
            matrix,
            fitted,
            traits=_traits(matrix),
            distances=None if folder is None else _distances(folder, matrix, fitted, updates),
            candidates=pairs,
            seed=seed,
        )
        result = replace(result, cells=fitted.cells, interference=between)
    listener(Progress("mix", 1, 1))
    return result


def fitted_combinations(subject: MatrixLike, matrix: TransferMatrix) -> tuple[Fit, dict[str, Update]]:
    """The models of a run's combinations, and the updates of its single adapters where they are there."""
    folder = folder_of(subject)
    unclean = frozenset(
        (cell.source, cell.target) for cell in verdicts(subject, matrix=matrix).cells if cell.kind in UNCLEAN
    )
    updates: dict[str, Update] = {}
    prints: Fingerprints | None = None
    combinations = combinations_in(matrix)
    if folder is not None and len(combinations) >= LEAST:
        updates = _updates(folder, set(matrix.sources) - set(combinations))
        if len(updates) > 1:
            with suppress(DataError):  # adapters of unlike shapes cannot be compared
                prints = fingerprints(updates)
    return fit(read_combinations(matrix, unclean, prints)), updates


def _updates(folder: Path, names: set[str]) -> dict[str, Update]:
    """Source -> the update of its first trained adapter in a run, where it is a LoRA and there."""
    store = open_store(folder)
    updates: dict[str, Update] = {}
    for entry in read_ledger(store).adapters:
        if entry.source in names and entry.source not in updates and entry.key is not None:
            place = store.adapter(entry.key)
            if (place / CONFIG).is_file():
                with suppress(DataError):
                    updates[entry.source] = read_update(place)
    return updates


def _traits(matrix: TransferMatrix) -> analysis.Traits | None:
    try:
        return analysis.decompose(matrix, n_bootstrap=0)
    except MatrixError:
        return None


def _distances(folder: Path, matrix: TransferMatrix, fitted: Fit, updates: Mapping[str, Update]) -> Distances:
    """How unlike the parents are in their weights and in their answers."""
    names = tuple(dict.fromkeys(name for one in fitted.table.combinations for name in one.parents))
    weights = {}
    if names and all(name in updates for name in names):
        with suppress(DataError):
            ordered = {name: updates[name] for name in names}
            weights = {
                "direction of updates": 1 - fingerprints(ordered).cosine,
                "signs of updates": sign_conflicts(ordered),
            }
    store = open_store(folder)
    ledger = read_ledger(store)
    texts: Mapping[str, Any] = {}
    with suppress(RunError):
        texts = read_run_texts(store).targets
    items: dict[str, TargetItems] = {}
    for target in matrix.targets:
        outcomes = target_outcomes(store, ledger, target, names)
        with suppress(UserError):
            read = target_items(target, outcomes, texts.get(target, ()), matrix.item_groups.get(target))
            if read is not None:
                items[target] = read
    return Distances(names, weights, output_distances(names, items))
