"""The answer of a run or a table: what to pick, what to avoid, what can be trusted, why, what is uncertain.

``verdicts`` calls every cell by what its answers show; ``answer`` ranks what the verdicts leave.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from traitmap import analysis
from traitmap.api.explanation import explain
from traitmap.api.runs import contamination_in
from traitmap.api.subject import date_of, folder_of, read_matrix, traits_if_any
from traitmap.errors import RunError, UserError
from traitmap.matrix.record import TransferMatrix
from traitmap.progress import Listener, silent
from traitmap.runs.cells import read_outcomes
from traitmap.runs.ledger import Ledger, Parts, read_ledger, read_parts
from traitmap.runs.results import kept_result
from traitmap.runs.store import RunStore, open_store
from traitmap.runs.texts import read_run_texts
from traitmap.study.settings import BASELINE
from traitmap.terminal import shows_progress

if TYPE_CHECKING:
    from traitmap.api.subject import MatrixLike, TextsLike
    from traitmap.data.records import Outcome
    from traitmap.data.texts import Texts

NOT_ASKED = "not asked here; traitmap explain says what goes with gains"
FROM_SCORES = "cannot be told from scores alone; with texts of the tasks (--texts) it can"


@shows_progress
def answer(
    subject: MatrixLike,
    *,
    target: str | None = None,
    texts: TextsLike | None = None,
    why: bool = True,
    date: str | None = None,
    seed: int = 0,
    listener: Listener | None = None,
) -> analysis.Answer:
    """What to pick, what to avoid, what can be trusted, why, and what is uncertain: one record.

    The twin of ``traitmap answer``. subject: a run or a table of scores, see ``read_matrix``. target: speak
    of one target alone. texts: of every task, for a table that is to say why; a run has its own. why: whether
    to look for what goes with gains and for traits, which takes some seconds. date: of the results, by
    default when the run or the file was last written. seed: of everything random. listener: see
    ``Progress``; None shows progress on a terminal or notebook.

    The answer of a run is kept in its folder (``results/``) and computed once for each state of the run.
    Raises MatrixError for a target that the matrix does not have, RunError where a folder holds no run.
    """
    day = date_of(subject) if date is None else date

    def compute() -> analysis.Answer:
        return _answered(subject, target, texts, why, seed, listener or silent)

    folder = folder_of(subject)
    if folder is None or texts is not None or not folder.is_dir():
        return replace(compute(), date=day)
    settings = {"target": target, "why": why, "seed": seed}
    return replace(kept_result(folder, "answer", analysis.Answer, settings, compute), date=day)


def _answered(
    subject: MatrixLike,
    target: str | None,
    texts: TextsLike | None,
    why: bool,
    seed: int,
    listener: Listener,
) -> analysis.Answer:
    """The answer, without its date."""
    matrix = read_matrix(subject, predicted=True)
    explanation, why_not, traits = None, NOT_ASKED, None
    if why:
        explanation, why_not = _explained(subject, texts, seed, listener)
        traits = traits_if_any(matrix)
    return analysis.answer_of(
        matrix,
        verdicts(subject, matrix=matrix),
        target=target,
        explanation=explanation,
        why_not=why_not,
        traits=traits,
    )


def _explained(
    subject: MatrixLike, texts: TextsLike | None, seed: int, listener: Listener
) -> tuple[analysis.Explanation | None, str]:
    """The explanation, or why there is none in a few words."""
    if folder_of(subject) is None and texts is None:
        return None, FROM_SCORES
    try:
        return explain(subject, texts=texts, seed=seed, listener=listener), ""
    except UserError as error:
        return None, untold(str(error))


def untold(reason: str) -> str:
    """Why nothing goes with gains, in one line: the first clause of a reason."""
    return f"cannot be told: {reason.split(';')[0].split(': ')[-1].rstrip('.')}"


def verdicts(subject: MatrixLike, *, matrix: TransferMatrix | None = None) -> analysis.Verdicts:
    """One verdict for every cell of a run or a table, by the rules of ``analysis.verdicts``.

    matrix: of the subject, where it is read already. The answers of a run are read target by target, and of
    cells beyond noise alone. RunError where a folder holds no run.
    """
    matrix = read_matrix(subject, predicted=True) if matrix is None else matrix
    folder = folder_of(subject)
    return analysis.cell_verdicts(matrix, {} if folder is None else _evidence(folder, matrix))


def _evidence(folder: Path, matrix: TransferMatrix) -> dict[tuple[str, str], analysis.Evidence]:
    """What the answers of all cells beyond noise show, of those that were asked in part too."""
    store = open_store(folder)
    ledger = read_ledger(store)
    parts = read_parts(store)
    contamination = contamination_in(folder)
    controls = analysis.format_controls(matrix)
    texts: Texts = MappingProxyType({})
    with suppress(RunError):  # an earlier version or somebody else made the run
        texts = read_run_texts(store).targets
    evidence: dict[tuple[str, str], analysis.Evidence] = {}
    for target, sources in analysis.cells_to_look_at(matrix).items():
        rows = {*sources, *(controls[source] for source in sources if source in controls)}
        outcomes = target_outcomes(store, ledger, target, rows)
        groups, touched = matrix.item_groups.get(target), _touched(contamination, target)
        whole = [source for source in sources if any(source == name for name, _ in outcomes)]
        seen = analysis.cell_evidence(
            target,
            outcomes,
            whole,
            texts=texts.get(target, ()),
            touched=touched,
            controls=controls,
            item_groups=groups,
        )
        for asked, rest in _asked_in_part(parts, target, [name for name in sources if name not in whole]):
            # these answered so many items alone, as the base did too
            place = {item: at for at, item in enumerate(asked)}
            seen |= analysis.cell_evidence(
                target,
                _part_outcomes(store, parts, target, outcomes, asked),
                rest,
                texts=[texts[target][item] for item in asked] if texts.get(target) else (),
                touched=None
                if touched is None
                else {
                    name: [place[item] for item in held if item in place] for name, held in touched.items()
                },
                controls=controls,
                item_groups=None if groups is None else groups[list(asked)],
            )
        evidence |= {(source, target): cell for source, cell in seen.items()}
    return evidence


def _asked_in_part(parts: Parts, target: str, sources: Sequence[str]) -> list[tuple[list[int], list[str]]]:
    """The sources that were asked a part of a target's items, by what they were asked: items and sources.

    Of several seeds the fewest items count, which all of them have.
    """
    counts: dict[str, int] = {}
    for cell in parts.cells:
        if cell.target == target and cell.source in sources and cell.status == "done" and cell.asked:
            counts[cell.source] = min(cell.asked, counts.get(cell.source, cell.asked))
    by_count: dict[int, list[str]] = {}
    for source, count in counts.items():
        by_count.setdefault(count, []).append(source)
    return [(sorted(parts.order[target][:count]), by_count[count]) for count in sorted(by_count)]


def _part_outcomes(
    store: RunStore,
    parts: Parts,
    target: str,
    outcomes: Mapping[tuple[str, int | None], Sequence[Outcome]],
    asked: Sequence[int],
) -> dict[tuple[str, int | None], Sequence[Outcome]]:
    """(source, seed) -> outcomes of the asked items alone, picked out of cells that hold them all."""
    picked: dict[tuple[str, int | None], Sequence[Outcome]] = {
        key: [rows[item] for item in asked] for key, rows in outcomes.items() if len(rows) > max(asked)
    }
    for entry in parts.cells:
        key = (entry.source, None if entry.source == BASELINE else entry.seed)
        if entry.target == target and entry.status == "done" and entry.key is not None and key not in picked:
            with suppress(RunError):  # the matrix tells of it
                rows, items = read_outcomes(store.cell(entry.key)), parts.items_of(entry)
                held = dict(zip(items, rows, strict=True)) if len(rows) == len(items) else {}
                if all(item in held for item in asked):
                    picked[key] = [held[item] for item in asked]
    return picked


def _touched(contamination: analysis.Contamination | None, target: str) -> Mapping[str, Sequence[int]] | None:
    """Source -> places of the target's items that its training texts hold, where they were compared."""
    if contamination is None or not contamination.items.get(target):
        return None
    held = {
        one.source: one.touched for one in contamination.overlaps if one.target == target and one.material
    }
    return dict.fromkeys(contamination.sources, ()) | held


def target_outcomes(
    store: RunStore, ledger: Ledger, target: str, sources: Collection[str]
) -> dict[tuple[str, int | None], Sequence[Outcome]]:
    """(source, seed) -> outcomes of one target, of the base and some sources.

    Cells without items, and damaged ones, are left out.
    """
    rows = {BASELINE, *sources}
    outcomes: dict[tuple[str, int | None], Sequence[Outcome]] = {}
    for cell in ledger.cells:
        if cell.target != target or cell.source not in rows or cell.status != "done" or cell.key is None:
            continue
        try:
            outcomes[cell.source, cell.seed] = read_outcomes(store.cell(cell.key))
        except RunError:  # the matrix tells of it
            continue
    return {key: items for key, items in outcomes.items() if items}
