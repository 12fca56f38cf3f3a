"""How often an audit calls a row changed that is not, and how often it names a harm that is planted.

python benchmarks/audit_null.py RUN [--audits 200] [--items 100] [--seed 0]

RUN: the run folder of an audit with items. Null: base and row exchange their answers on half of the items,
drawn anew with other items for each audit, so that nothing is changed while as many answers differ as
between the real base and the real row. Power: the audits as they are, at so many items.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

import traitmap as tm
from traitmap.analysis.audit import AuditRow, audit_rows
from traitmap.analysis.verdicts import Verdicts, cell_verdicts
from traitmap.api.answers import target_outcomes
from traitmap.data.records import Outcome
from traitmap.matrix.record import TransferMatrix
from traitmap.runs.ledger import read_ledger
from traitmap.runs.store import open_store
from traitmap.study.settings import BASELINE

Answers = Mapping[tuple[str, int | None], Sequence[Outcome]]


def replayed(
    matrix: TransferMatrix,
    answers: Mapping[str, Answers],
    source: str,
    items: int,
    draw: np.random.Generator,
    *,
    exchange: bool,
) -> AuditRow:
    """One audit of one row on items that are drawn anew; exchange: base and row change places on half."""
    scores, drawn = {}, {}
    for target, by_row in answers.items():
        base, own = by_row[BASELINE, None], by_row[source, None]
        places = draw.choice(len(base), size=min(items, len(base)), replace=len(base) < items)
        swap = draw.random(len(places)) < 0.5 if exchange else np.zeros(len(places), bool)
        first = [own[at] if s else base[at] for at, s in zip(places, swap, strict=True)]
        second = [base[at] if s else own[at] for at, s in zip(places, swap, strict=True)]
        drawn[target] = {(BASELINE, None): first, (source, None): second}
        scores[target] = np.array([[[o.score for o in first]], [[o.score for o in second]]])
    part = replace(
        matrix,
        sources=(source,),
        values=np.array([[scores[target][1].mean() for target in matrix.targets]]),
        baseline=np.array([scores[target][0].mean() for target in matrix.targets]),
        cells=tuple(cell for cell in matrix.cells if cell.source == source),
        item_scores=scores,
        item_groups={},
    )
    verdicts = cell_verdicts(part)
    assert isinstance(verdicts, Verdicts)
    rows, _ = audit_rows(part, verdicts, drawn.__getitem__, texts={})
    return rows[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--audits", type=int, default=200)
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    matrix = tm.open_run(given.run).matrix()
    store = open_store(given.run)
    ledger = read_ledger(store)
    answers = {target: target_outcomes(store, ledger, target, matrix.sources) for target in matrix.targets}
    draw = np.random.default_rng(given.seed)
    print(f"{given.audits} audits of each row, {given.items} items of each of {len(matrix.targets)} tasks")
    print("row: clean under the null | verdicts and names as it is")
    for source in matrix.sources:
        null = [
            replayed(matrix, answers, source, given.items, draw, exchange=True) for _ in range(given.audits)
        ]
        clean = sum(row.verdict == "no change seen" for row in null) / given.audits
        real = [replayed(matrix, answers, source, given.items, draw, exchange=False) for _ in range(20)]
        verdicts = Counter(row.verdict for row in real)
        names = Counter(finding.name for row in real for finding in row.findings)
        false = Counter(finding.name for row in null for finding in row.findings)
        wrong = "".join(f", {name} {count}" for name, count in false.items())
        told = ", ".join(f"{name} {count}/20" for name, count in (*verdicts.items(), *names.items()))
        print(f"{source}: {clean:.3f}{wrong} | {told}", flush=True)


if __name__ == "__main__":
    main()
