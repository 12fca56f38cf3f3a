"""A matrix on paper against the same matrix run: predicted from a small run's unit costs, then measured.

python benchmarks/plan_cost.py [--folder FOLDER] [--limit 40] [--steps 15]

A run of two sources of the embedded study tells what a unit costs; from that, the run of eight sources is
predicted, and then made. Time is that of ``execute``: what a study spends on loading is not in it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import traitmap.mini
from traitmap.api.preparation import load_data, load_engine
from traitmap.engine.contract import Engine
from traitmap.runs.execute import execute
from traitmap.runs.growth import grow, measured_unit
from traitmap.runs.status import run_status
from traitmap.runs.store import RunStore
from traitmap.study.load import load_study
from traitmap.study.settings import Study

SMALL, LARGE = 2, 8


def part_of_mini(folder: Path, sources: int, limit: int, steps: int) -> Study:
    """The first sources of the embedded study, and all its targets."""
    whole = load_study(str(Path(traitmap.mini.__file__).with_name("study.yaml")))
    changes = {
        "name": f"mini-{sources}",
        "sources": whole.sources[:sources],
        "training": whole.training.model_copy(update={"max_steps": steps}),
        "limit": limit,
        "output": str(folder),
    }
    return whole.model_copy(update=changes)


def run(study: Study, engine: Engine) -> tuple[RunStore, float]:
    """The run, and its seconds."""
    sources, targets = load_data(study, lambda: engine)
    started = time.monotonic()
    store = execute(study, engine, sources, targets)
    return store, time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--limit", type=int, default=40)
    parser.add_argument("--steps", type=int, default=15)
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="plan-cost-"))
    small = part_of_mini(folder, SMALL, options.limit, options.steps)
    engine = load_engine(small)
    store, _ = run(small, engine)
    unit = measured_unit(store)
    large, seconds = run(part_of_mini(folder, LARGE, options.limit, options.steps), engine)
    paper = grow(unit, adapters=LARGE, targets=len(unit.cell_seconds), workers=1, group_size=LARGE)
    status = run_status(large)
    print(f"from {SMALL} to {LARGE} sources, {len(unit.cell_seconds)} targets of {options.limit} items")
    print(f"{'':20} {'predicted':>12} {'measured':>12} {'difference':>11}")
    for name, predicted, measured in (
        ("seconds", paper.hours * 3600, seconds),
        ("disk, bytes", paper.disk, float(status.bytes)),
    ):
        print(f"{name:20} {predicted:12,.1f} {measured:12,.1f} {predicted / measured - 1:+11.1%}")


if __name__ == "__main__":
    main()
