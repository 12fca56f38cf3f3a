"""Choose the learning rate of each source, by rows of its own training split that no source trains on.

    python examples/real/sweep.py examples/real/study.yaml --data copies

For each source of the study that has rows of its own, one adapter is trained for each of RATES and asked the
validation rows of its own task, nothing else; no test row is read. The rule:

1. A rate whose adapter gives one answer to 90 % or more of the validation rows of a task with classes, where
   the commonest label has less, has collapsed and is out.
2. Of the others the one with the highest validation score is best (accuracy, or minus bits per byte); the
   lowest rate whose score is within one standard error of it, items paired, is chosen.
3. Where all have collapsed the lowest rate stands, and the table says so.

Each source is one small run, so that a sweep that was stopped goes on where it was. The table is printed and
written to ``results/sweep-BASE.json`` beside the study.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import traitmap as tm

RATES = (2e-4, 5e-4, 1e-3)
COLLAPSED = 0.9  # share of one answer from which an adapter has collapsed onto it
VALIDATION_ROWS = 100
BASE = "__baseline__"


def sweep_study(study: tm.Study, source: Any, folder: Path) -> tm.Study:
    """One source at every rate, asked its own validation rows."""
    at_rates = [
        source.model_copy(
            update={"name": f"rate-{rate:g}", "training": {**source.training, "learning_rate": rate}}
        )
        for rate in RATES
    ]
    task = folder / "tasks" / f"{source.name}_validation.yaml"
    target = study.targets[0].model_copy(
        update={"name": source.name, "task": str(task), "limit": VALIDATION_ROWS, "tags": ()}
    )
    return study.model_copy(
        update={
            "name": f"{study.name}-sweep-{source.name}",
            "seeds": (0,),
            "sources": tuple(at_rates),
            "targets": (target,),
        }
    )


def outcomes(run: tm.Run) -> dict[str, tuple[np.ndarray, float | None]]:
    """row -> scores of its items in order, and the share of its commonest answer (None without classes)."""
    frame = tm.query(
        run, "SELECT source, item, score, prediction, choice_logprobs FROM outcomes ORDER BY item"
    )
    rows = {}
    for name, items in frame.groupby("source"):
        classes = items["choice_logprobs"].map(lambda values: values is not None and len(values) > 1).all()
        share = float(items["prediction"].value_counts(normalize=True).iloc[0]) if classes else None
        rows[str(name)] = (items["score"].to_numpy(float), share)
    return rows


def choose(tried: Mapping[str, tuple[np.ndarray, float | None]], majority: float) -> dict[str, Any]:
    """The setting of one source by the rule above: ``chosen``, and whether ``all_collapsed``.

    tried: scores and share of the commonest answer of each setting, most careful first. majority: share of
    the commonest label.
    """
    standing = {
        name: items
        for name, (items, share) in tried.items()
        if share is None or share < COLLAPSED or majority >= COLLAPSED
    }
    chosen = next(iter(tried))
    if standing:
        best = max(standing, key=lambda name: standing[name].mean())
        for name, items in standing.items():
            lost = standing[best] - items
            if lost.mean() <= lost.std(ddof=1) / np.sqrt(len(lost)):
                chosen = name
                break
    return {"chosen": chosen, "all_collapsed": not standing}


def table(tried: Mapping[str, tuple[np.ndarray, float | None]]) -> dict[str, dict[str, float | None]]:
    """Mean score and share of the commonest answer of every setting."""
    return {
        name: {"score": float(items.mean()), "one_answer": share} for name, (items, share) in tried.items()
    }


def main() -> None:
    """Run the sweep of every source and write its table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--data", type=Path, help="folder with copies of hub datasets and bases")
    parser.add_argument("--only", nargs="+", metavar="SOURCE", help="these sources alone")
    options = parser.parse_args()
    study, folder = tm.load_study(options.study), options.study.resolve().parent
    place = folder / "results" / f"sweep-{study.name}.json"
    place.parent.mkdir(exist_ok=True)
    for source in study.sources:
        if (source.path or source.task) is None or (options.only and source.name not in options.only):
            continue
        run = tm.run(sweep_study(study, source, folder), data=options.data)
        golds = tm.query(run, f"SELECT gold FROM outcomes WHERE source = '{BASE}'")["gold"]
        majority = float(golds.value_counts(normalize=True).iloc[0])
        results = json.loads(place.read_text()) if place.exists() else {}
        rows = outcomes(run)
        tried = {f"{rate:g}": rows[f"rate-{rate:g}"] for rate in RATES if f"rate-{rate:g}" in rows}
        results[source.name] = {
            "majority": majority,
            "base": float(rows[BASE][0].mean()),
            "rates": table(tried),
            **choose(tried, majority),
        }
        place.write_text(json.dumps(results, indent=1) + "\n")
        print(source.name, json.dumps(results[source.name]), flush=True)


if __name__ == "__main__":
    main()
