"""How close the scheduler comes to the ideal: thousands of units, stragglers, failures, lost workers.

python benchmarks/schedule.py [--workers 64] [--units 5000] [--seeds 10]
"""

from __future__ import annotations

import argparse

import numpy as np

from traitmap.runs.cluster.drive import Task
from traitmap.runs.simulate import FailureModel, Job, simulate

CASES = {
    "nothing goes wrong": FailureModel(),
    "5 % failures": FailureModel(failures=0.05),
    "10 % stragglers, 2x": FailureModel(stragglers=0.1, slowness=2),
    "10 % stragglers, 3x": FailureModel(stragglers=0.1, slowness=3),
    "5 % failures, 10 % stragglers, 2x": FailureModel(failures=0.05, stragglers=0.1, slowness=2),
    "5 % failures, 10 % stragglers, 3x": FailureModel(failures=0.05, stragglers=0.1, slowness=3),
    "5 % failures, 10 % stragglers, 5x": FailureModel(failures=0.05, stragglers=0.1, slowness=5),
    "the same at 3x, a loss per worker and hour": FailureModel(
        failures=0.05, stragglers=0.1, slowness=3, losses=1.0
    ),
}


def matrix_of_jobs(units: int, seed: int) -> list[Job]:
    """A matrix of ``units`` cells: one adapter a group, targets whose costs differ by a factor of 20."""
    draw = np.random.default_rng(seed)
    targets = 100
    adapters = max(1, units // targets - 1)
    cost = np.exp(draw.uniform(np.log(5), np.log(100), targets))
    jobs = [Job(Task(("cell", "base", column), cost[column], 1)) for column in range(targets)]
    for row in range(adapters):
        jobs.append(Job(Task(("group", row), float(draw.uniform(100, 200)), 0)))
        jobs += [
            Job(Task(("cell", row, column), cost[column], 1), ("group", row)) for column in range(targets)
        ]
    return jobs


def independent_jobs(units: int, seed: int) -> list[Job]:
    """Units that wait for nothing, of log-normal sizes: a median of 20 s, a tenth above 70 s."""
    sizes = np.random.default_rng(seed).lognormal(np.log(20), 1.0, units)
    return [Job(Task(number, float(size))) for number, size in enumerate(sizes)]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--workers", type=int, default=64)
    options.add_argument("--units", type=int, default=5000)
    options.add_argument("--seeds", type=int, default=10)
    asked = options.parse_args()
    print(f"{asked.workers} workers, {asked.units} units, {asked.seeds} seeds; makespan over the ideal")
    print(f"{'':44} {'with copies':>20} {'without':>20} {'copies':>7} {'busy':>5}")
    few = 2 * asked.workers
    for title, make, units in (
        ("units that wait for nothing", independent_jobs, asked.units),
        (f"only {few} of them", independent_jobs, few),
        ("a matrix, whose cells wait for their adapters", matrix_of_jobs, asked.units),
    ):
        print(title)
        for name, luck in CASES.items():
            found = [
                simulate(make(units, seed), asked.workers, luck, seed=seed) for seed in range(asked.seeds)
            ]
            plain = [
                simulate(make(units, seed), asked.workers, luck, seed=seed, copies=False)
                for seed in range(asked.seeds)
            ]
            ratios, bare = [one.ratio for one in found], [one.ratio for one in plain]
            print(
                f"  {name:42} {np.mean(ratios):8.3f} (max {max(ratios):.3f}) "
                f"{np.mean(bare):8.3f} (max {max(bare):.3f}) "
                f"{np.mean([one.copies for one in found]):7.0f} {np.mean([one.busy for one in found]):5.0%}"
            )


if __name__ == "__main__":
    main()
