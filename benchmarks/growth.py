"""How time grows with the number of adapters and of targets.

    python benchmarks/growth.py [--quick] [--pairs 3] [--output FILE]

Training at micro-batch 4: CPU seconds of K adapters in one pass for K = 1, 2, 4, 8, 16, a line fitted to
them, and its slope against one adapter trained by itself: by PEFT in a plain loop (bfloat16, plain
attention; the base loaded once), and by this engine, with the base loaded once or anew. Scoring: CPU seconds
against the number of targets for one adapter.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import numpy as np
import torch
import workloads
from record import conditions, save
from training import jobs_for, peft_loop, timed
from transformers import AutoModelForCausalLM

from traitmap.data.records import Request
from traitmap.engine.local import LocalEngine
from traitmap.study.settings import Model


def opened(folder: Path, dtype: str) -> LocalEngine:
    return LocalEngine.open(Model(path=str(folder), dtype=dtype, device="cpu"))


def trained(engine: LocalEngine, jobs: list) -> None:
    engine.train(jobs, [workloads.temporary_folder() for _ in jobs])


def line(counts: list[int], seconds: list[float]) -> tuple[float, float]:
    """Intercept and slope of the least-squares line."""
    slope, intercept = np.polyfit(counts, seconds, 1)
    return float(intercept), float(slope)


def growth_of_training(folder: Path, dtype: str, counts: list[int], steps: int, pairs: int) -> dict:
    """Every adapter has the same lengths (those of all ten sources in turn), so that adapters compare."""
    largest = jobs_for(max(10, *counts), 4, steps)
    pool = [example for job in largest[:10] for example in job.examples]
    order = np.random.default_rng(0).permutation(len(pool))
    jobs = []
    for number, job in enumerate(largest):
        chosen = tuple(pool[i] for i in np.roll(order, 7 * number)[: 4 * steps])
        jobs.append(type(job)(job.name, job.seed, chosen, job.lora, job.training))
    engine = opened(folder, dtype)
    trained(engine, jobs[:1])  # what is done once per process is not counted
    measured: dict[str, dict[int, list[float]]] = {unit: {k: [] for k in counts} for unit in ("cpu", "wall")}
    own: dict[str, list[float]] = {"cpu": [], "wall": [], "cpu with loading": []}
    peft: dict[str, list[float]] = {"cpu": [], "wall": []}
    plain = AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, dtype), attn_implementation="eager" if dtype == "bfloat16" else "sdpa"
    )
    peft_loop(plain, engine, jobs[:1])
    for _ in range(pairs):
        for count in counts:
            _, cpu, wall = timed(lambda n=count: trained(engine, jobs[:n]))
            measured["cpu"][count].append(cpu)
            measured["wall"][count].append(wall)
        singles = [timed(lambda job=job: trained(engine, [job]))[1:] for job in jobs[: max(counts)]]
        for place, unit in enumerate(("cpu", "wall")):
            own[unit].append(statistics.mean(single[place] for single in singles))
        _, cpu, wall = timed(lambda: peft_loop(plain, engine, jobs[: max(counts)]))
        peft["cpu"].append(cpu / max(counts))
        peft["wall"].append(wall / max(counts))
        own["cpu with loading"].append(timed(lambda: trained(opened(folder, dtype), jobs[:1]))[1])
    medians = {unit: [statistics.median(by[k]) for k in counts] for unit, by in measured.items()}
    fits = {unit: line(counts, values) for unit, values in medians.items()}
    return {
        "adapters": counts,
        **{f"{unit}_seconds": values for unit, values in medians.items()},
        **{f"{unit}_fit": {"fixed": fit[0], "per_adapter": fit[1]} for unit, fit in fits.items()},
        "own_run": {unit: statistics.median(values) for unit, values in own.items()},
        "own_run_by_peft": {unit: statistics.median(values) for unit, values in peft.items()},
        "additional_adapter_over_own_run": {
            "by PEFT, cpu": fits["cpu"][1] / statistics.median(peft["cpu"]),
            "by PEFT, wall": fits["wall"][1] / statistics.median(peft["wall"]),
            "by this engine, cpu": fits["cpu"][1] / statistics.median(own["cpu"]),
            "by this engine, wall": fits["wall"][1] / statistics.median(own["wall"]),
            "by this engine, base loaded anew, cpu": fits["cpu"][1]
            / statistics.median(own["cpu with loading"]),
        },
    }


def growth_of_targets(folder: Path, dtype: str, counts: list[int], items: int, pairs: int) -> dict:
    """Multiple choice of four, contexts as long as the sources' prompts."""
    engine = opened(folder, dtype)
    names = list(workloads.LENGTHS)

    def requests(target: int) -> list[Request]:
        found = workloads.examples(names[target % 10], items, 100 + target)
        return [
            Request("loglikelihood", example.prompt, " a" + " b" * choice)
            for example in found
            for choice in range(4)
        ]

    targets = [requests(number) for number in range(max(counts))]
    engine.answer(targets[0][:4])
    seconds = {
        count: statistics.median(
            timed(lambda n=count: [engine.answer(asked) for asked in targets[:n]])[1] for _ in range(pairs)
        )
        for count in counts
    }
    fixed, slope = line(counts, [seconds[count] for count in counts])
    return {
        "targets": counts,
        "items": items,
        "cpu_seconds": [seconds[count] for count in counts],
        "cpu_fit": {"fixed": fixed, "per_target": slope},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", default="plain", choices=sorted(workloads.SHAPES))
    parser.add_argument("--dtype", default="bfloat16", choices=("float32", "bfloat16"))
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--quick", action="store_true", help="two steps per adapter, K up to 8")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    folder = workloads.checkpoint(options.shape, workloads.temporary_folder())
    counts = [1, 2, 4, 8] if options.quick else [1, 2, 4, 8, 16]
    training = growth_of_training(folder, options.dtype, counts, 2 if options.quick else 6, options.pairs)
    print(json.dumps(training), flush=True)
    targets = growth_of_targets(
        folder, options.dtype, [1, 2, 4] if options.quick else [1, 2, 4, 8], 100, options.pairs
    )
    print(json.dumps(targets), flush=True)
    save(
        options.output,
        {
            "benchmark": "growth",
            "shape": options.shape,
            "dtype": options.dtype,
            **conditions(),
            "training": training,
            "targets": targets,
        },
    )


if __name__ == "__main__":
    main()
