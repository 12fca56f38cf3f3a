"""A run that ends cells early, then asked the rest: what was saved, and what the remaining items said.

    python benchmarks/ask_less_run.py examples/real/study.yaml --data copies \
        --targets sst2 toxicity_davidson --limit 600 --precision 3 --anchors 0 --name real-smollm2-precision

The study is run at its first seed on the named targets, then once more without the rule, which asks only what
is missing. What the first run estimated is held against the gain on all items. Adapters that lie in the run's
folder already are used.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from record import conditions, save

import traitmap as tm
from traitmap.matrix.reading import read
from traitmap.matrix.record import TransferMatrix


def gains_of(matrix: TransferMatrix) -> dict[tuple[str, str], tuple[float, bool]]:
    """(source, target) -> the gain in shown units, better is higher, and whether it stands for a part."""
    views = {view.name: view for view in read(matrix).targets}
    found = {}
    for cell in matrix.cells:
        if cell.source in matrix.sources:
            view = views[cell.target]
            found[cell.source, cell.target] = cell.gain * view.factor * view.better, cell.asked_of > 0
    return found


def compared(early: TransferMatrix, whole: TransferMatrix, precision: float) -> dict[str, Any]:
    """How far what was estimated lies from the gains on all items, and what was decided by it."""
    before, after = gains_of(early), gains_of(whole)
    errors = np.array([gain - after[cell][0] for cell, (gain, part) in before.items() if part])
    best = {
        target: [
            max((gains[source, target][0], source) for source in early.sources if source != target)[1]
            for gains in (before, after)
        ]
        for target in early.targets
    }
    return {
        "cells": len(before),
        "ended early": len(errors),
        "within the precision": int((abs(errors) <= precision).sum()),
        "farthest": float(abs(errors).max()) if errors.size else None,
        "root mean square": float(np.sqrt((errors**2).mean())) if errors.size else None,
        "best source of the part, of all items": best,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--name", required=True, help="of the run's folder")
    parser.add_argument("--targets", nargs="+", required=True)
    parser.add_argument("--limit", type=int, required=True, help="items of each target")
    parser.add_argument("--precision", type=float, default=3.0)
    parser.add_argument("--anchors", type=int)
    parser.add_argument("--data", type=Path, help="copies of the hub's datasets and models")
    parser.add_argument("--output", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, help="results file")
    options = parser.parse_args()
    study = tm.load_study(options.study)
    whole = study.model_copy(
        update={
            "name": options.name,
            "seeds": study.seeds[:1],
            "limit": options.limit,
            "targets": tuple(target for target in study.targets if target.name in options.targets),
        }
    )
    early = whole.model_copy(update={"precision": options.precision, "anchors": options.anchors})
    run = tm.run(early, output=options.output, data=options.data)
    asked, first = dict(run.asked()), run.matrix()
    print(asked, flush=True)
    again = tm.run(whole, output=options.output, data=options.data)
    found = compared(first, again.matrix(), options.precision)
    print(found)
    rule = f"--limit {options.limit} --precision {options.precision:g}"
    rule += "" if options.anchors is None else f" --anchors {options.anchors}"
    command = (
        f"python benchmarks/ask_less_run.py {options.study} --targets {' '.join(options.targets)} {rule} "
        f"--name {options.name}"
    )
    save(options.out, {**conditions(), "command": command, "asked": asked, "then": found})


if __name__ == "__main__":
    main()
