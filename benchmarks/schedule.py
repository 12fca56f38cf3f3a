"""How close the scheduler comes to the ideal: thousands of units, stragglers, failures, lost workers.

python benchmarks/schedule.py [--workers 64] [--units 5000] [--seeds 10]
"""

from __future__ import annotations

import argparse

import numpy as np

from traitmap.runs.cluster.drive import Task
from traitmap.runs.growth import simulate

CASES: dict[str, dict[str, float]] = {
    "nothing goes wrong": {},
    "5 % failures": {"failures": 0.05},
    "10 % stragglers, 2x": {"stragglers": 0.1, "slowness": 2},
    "10 % stragglers, 3x": {"stragglers": 0.1, "slowness": 3},
    "5 % failures, 10 % stragglers, 2x": {"failures": 0.05, "stragglers": 0.1, "slowness": 2},
    "5 % failures, 10 % stragglers, 3x": {"failures": 0.05, "stragglers": 0.1, "slowness": 3},
    "5 % failures, 10 % stragglers, 5x": {"failures": 0.05, "stragglers": 0.1, "slowness": 5},
    "the same at 3x, a loss per worker and hour": {
        "failures": 0.05,
        "stragglers": 0.1,
        "slowness": 3,
        "losses": 1.0,
    },
}


def matrix_of_tasks(units: int, seed: int) -> list[Task]:
    """A matrix of ``units`` cells: one adapter a group, targets whose costs differ by a factor of 20."""
    draw = np.random.default_rng(seed)
    targets = 100
    adapters = max(1, units // targets - 1)
    cost = np.exp(draw.uniform(np.log(5), np.log(100), targets))
    tasks = [Task(("cell", "base", column), cost[column], 1) for column in range(targets)]
    for row in range(adapters):
        tasks.append(Task(("group", row), float(draw.uniform(100, 200)), 0))
        tasks += [
            Task(("cell", row, column), cost[column], 1, after=("group", row)) for column in range(targets)
        ]
    return tasks


def independent_tasks(units: int, seed: int) -> list[Task]:
    """Units that wait for nothing, of log-normal sizes: a median of 20 s, a tenth above 70 s."""
    sizes = np.random.default_rng(seed).lognormal(np.log(20), 1.0, units)
    return [Task(number, float(size)) for number, size in enumerate(sizes)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--units", type=int, default=5000)
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    print(f"{options.workers} workers, {options.units} units, {options.seeds} seeds; makespan over the ideal")
    print(f"{'':44} {'with copies':>20} {'without':>20} {'copies':>7} {'busy':>5}")
    few = 2 * options.workers
    for title, make, units in (
        ("units that wait for nothing", independent_tasks, options.units),
        (f"only {few} of them", independent_tasks, few),
        ("a matrix, whose cells wait for their adapters", matrix_of_tasks, options.units),
    ):
        print(title)
        for name, luck in CASES.items():
            with_copies = [
                simulate(make(units, seed), options.workers, **luck, seed=seed)
                for seed in range(options.seeds)
            ]
            without = [
                simulate(make(units, seed), options.workers, **luck, seed=seed, copies=False)
                for seed in range(options.seeds)
            ]
            ratios, bare = [run.ratio for run in with_copies], [run.ratio for run in without]
            print(
                f"  {name:42} {np.mean(ratios):8.3f} (max {max(ratios):.3f}) "
                f"{np.mean(bare):8.3f} (max {max(bare):.3f}) "
                f"{np.mean([run.copies for run in with_copies]):7.0f} "
                f"{np.mean([run.busy for run in with_copies]):5.0%}"
            )


if __name__ == "__main__":
    main()
