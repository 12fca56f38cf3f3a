"""Runs or tables compared: which effects hold in all, which differ, and whether traits and picks agree."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from traitmap import analysis
from traitmap.api.answers import verdicts
from traitmap.api.subject import folder_of, read_matrix
from traitmap.errors import MatrixError, RunError
from traitmap.matrix.record import TransferMatrix
from traitmap.runs.cells import read_outcomes
from traitmap.runs.ledger import Ledger, read_ledger
from traitmap.runs.store import RunStore, open_store
from traitmap.study.settings import BASELINE

if TYPE_CHECKING:
    from traitmap.api.subject import MatrixLike

# What the name of a table's file ends with.
_SUFFIXES = re.compile(r"(\.(csv|tsv|txt|parquet|xlsx|xls|md|tex|json|gz))+$", re.IGNORECASE)


def compare(
    subjects: Sequence[MatrixLike], *, names: Sequence[str] = (), seed: int = 0
) -> analysis.Comparison:
    """Hold two or more runs against each other: two bases, seeds, ranks, rates, prompts, steps, versions.

    The twin of ``traitmap compare``. subjects: runs or tables of scores, see ``read_matrix``; cells are
    matched by the names of sources and targets. names: of the subjects, by default those of their studies or
    files. seed: of permutations and resampling. Gains are compared pairwise where the same items were asked.

    Raises MatrixError for fewer than two subjects, or where they share no source or no target; RunError where
    a folder holds no run.
    """
    if names and len(names) != len(subjects):
        raise MatrixError(f"{len(names)} names for {len(subjects)} subjects; name each of them, or none")
    matrices = [read_matrix(subject, predicted=True) for subject in subjects]
    called = names or _names(matrices)
    items_by_run = [_items_of(subject, matrix) for subject, matrix in zip(subjects, matrices, strict=True)]
    sides = [
        analysis.Side(name, matrix, verdicts(subject, matrix=matrix), items)
        for name, subject, matrix, items in zip(
            _unlike(called), subjects, matrices, _same_documents(items_by_run), strict=True
        )
    ]
    return analysis.compare_sides(sides, seed=seed)


def _names(matrices: Sequence[TransferMatrix]) -> list[str]:
    """Of studies and files, without what all of them begin with."""
    names = []
    for matrix in matrices:
        file = _SUFFIXES.sub("", Path(str(matrix.conditions.get("file") or "table")).name)
        names.append(str(matrix.conditions.get("name") or file))
    words = [re.findall(r"[^ _.-]*[ _.-]?", name)[:-1] for name in names]
    shared = list(takewhile(lambda several: len(set(several)) == 1, zip(*words, strict=False)))
    if len(set(names)) == len(names):
        names = ["".join(parts[len(shared) :]) or name for parts, name in zip(words, names, strict=True)]
    return names


def _unlike(names: Sequence[str]) -> list[str]:
    """Names that differ: the second ``mini`` is ``mini (2)``."""
    times: Counter[str] = Counter()
    unlike = []
    for name in names:
        times[name] += 1
        unlike.append(name if times[name] == 1 else f"{name} ({times[name]})")
    return unlike


def _items_of(subject: MatrixLike, matrix: TransferMatrix) -> dict[str, list[tuple[str, str]]]:
    """Target -> digest and right answer of every item, in the order of the item scores."""
    folder = folder_of(subject) if not isinstance(subject, TransferMatrix) else None
    if folder is None:
        return {}
    store = open_store(folder)
    ledger = read_ledger(store)
    by_target = {}
    for target, scores in matrix.item_scores.items():
        items = _first_cell(store, ledger, target)
        if len(items) == scores.shape[-1]:
            by_target[target] = items
    return by_target


def _first_cell(store: RunStore, ledger: Ledger, target: str) -> list[tuple[str, str]]:
    """Of the first cell that can be read: the base's where it is there."""
    cells = [cell for cell in ledger.cells if cell.target == target and cell.status == "done" and cell.key]
    for cell in sorted(cells, key=lambda cell: cell.source != BASELINE):
        with suppress(RunError):
            assert cell.key is not None
            return [(outcome.item_digest, outcome.gold) for outcome in read_outcomes(store.cell(cell.key))]
    return []


def _same_documents(runs: Sequence[Mapping[str, list[tuple[str, str]]]]) -> list[dict[str, list[str]]]:
    """Target -> the name of each of its items, for every subject; equal names are the same item.

    Items are the same where their digests are, and where their right answers are, one by one: the chat
    template of another base changes what is sent, not the document. Right answers that are all alike, or few,
    prove nothing.
    """
    named: list[dict[str, list[str]]] = []
    for at, mine in enumerate(runs):
        items = {}
        for target, pairs in mine.items():
            golds = [gold for _, gold in pairs]
            alike = (
                named[before][target]
                for before in range(at)
                if target in named[before] and golds == [gold for _, gold in runs[before][target]]
            )
            own = [digest for digest, _ in pairs]
            items[target] = next(alike, own) if _tells(golds) else own
        named.append(items)
    return named


def _tells(golds: Sequence[str]) -> bool:
    """Whether equal right answers cannot be chance: less than one in a million for shuffled ones."""
    counts = Counter(golds)
    total = len(golds)
    alike = sum((count / total) ** 2 for count in counts.values())
    return total > 1 and alike < 1 and alike**total < 1e-6
