"""An adapter audited against itself with other items and other batches: how often is it called changed?

python benchmarks/audit_self.py ADAPTER [--audits 200] [--items 40] [--seed 0] [--output FILE.json]

Real forward passes on the embedded base. Each audit draws its own items of the pack ``mini``; the adapter
answers them once all together and once in batches of random sizes, which changes the last digits of its
numbers. The first answers stand as the base's, the second as the row's.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
from record import conditions, save

from traitmap.analysis.audit import AuditRow, audit_rows
from traitmap.analysis.verdicts import Verdicts, cell_verdicts
from traitmap.data.records import Outcome
from traitmap.data.targets import LoadedTarget, load_targets
from traitmap.data.task_packs import pack_targets
from traitmap.engine.contract import Engine
from traitmap.engine.open import open_engine
from traitmap.matrix.record import Cell, TransferMatrix
from traitmap.study.settings import BASELINE, Study


def answered(
    engine: Engine, target: LoadedTarget, adapter: Path, sizes: np.random.Generator | None
) -> list[Outcome]:
    """Outcomes of an adapter on a target, all requests at once, or in batches of 1 to 40."""
    requests, answers, at = target.requests, [], 0
    while at < len(requests):
        size = len(requests) if sizes is None else int(sizes.integers(1, 41))
        answers += engine.answer(requests[at : at + size], adapter)
        at += size
    return list(target.score(answers).outcomes)


def audited(outcomes: dict[str, tuple[list[Outcome], list[Outcome]]]) -> AuditRow:
    """The audit of a row, called ``again``, beside a base; target -> outcomes of both."""
    scores = {name: np.array([[[o.score for o in rows]] for rows in pair]) for name, pair in outcomes.items()}
    cells = [
        Cell(source, name, None, "acc", float(values[at].mean()), values.shape[2], *[np.nan] * 7, "measured")
        for at, source in enumerate((BASELINE, "again"))
        for name, values in scores.items()
    ]
    matrix = TransferMatrix(
        sources=("again",),
        targets=tuple(outcomes),
        values=np.array([[values[1].mean() for values in scores.values()]]),
        baseline=np.array([values[0].mean() for values in scores.values()]),
        cells=tuple(cells[len(outcomes) :]),
        base_cells=tuple(cells[: len(outcomes)]),
        item_scores=scores,
    )
    verdicts = cell_verdicts(matrix)
    assert isinstance(verdicts, Verdicts)

    def answers(target: str) -> dict[tuple[str, int | None], list[Outcome]]:
        first, second = outcomes[target]
        return {(BASELINE, None): first, ("again", None): second}

    rows, _ = audit_rows(matrix, verdicts, answers, texts={})
    return rows[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("adapter", type=Path)
    parser.add_argument("--audits", type=int, default=200)
    parser.add_argument("--items", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, metavar="FILE")
    options = parser.parse_args()
    generator = np.random.default_rng(options.seed)
    study = Study(name="self", model="builtin:mini", sources=[{"name": "any", "task": "mini_reviews"}],
                  targets=pack_targets(["mini"], limit=options.items)[0])  # fmt: skip
    engine = open_engine(study.model)
    verdicts, moved = Counter[str](), Counter[str]()
    for audit in range(options.audits):
        drawn = study.model_copy(update={"sample_seed": options.seed + audit})
        outcomes = {}
        for target in load_targets(drawn):
            first = answered(engine, target, options.adapter, None)
            again = answered(engine, target, options.adapter, generator)
            outcomes[target.name] = first, again
            for before, after in zip(first, again, strict=True):
                moved["items"] += 1
                moved["digits"] += before.choice_logprobs != after.choice_logprobs
                moved["scores"] += before.score != after.score
        verdicts[audited(outcomes).verdict] += 1
    print(f"{options.audits} audits of {options.adapter.name} against itself, {options.items} items a task")
    print(f"verdicts: {dict(verdicts)}")
    print("of {items:,} items {digits:,} have other last digits, {scores:,} another score".format(**moved))
    result = {"audits": options.audits, "items": options.items, "verdicts": verdicts, "moved": moved}
    save(options.output, {**conditions(), **result})


if __name__ == "__main__":
    main()
