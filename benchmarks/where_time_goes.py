"""Where the time of training and of decoding goes, by torch's profiler.

    python benchmarks/where_time_goes.py [--output FILE]

Self CPU time of operators in groups, as shares of the whole; what is left of it is Python and dispatch.
Training: K = 8 adapters at micro-batch 1 and 4 in bfloat16, random Llama of 10 million parameters. Decoding:
64 prompts on the embedded base in float32, 48 tokens each.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
import workloads
from record import conditions, save
from torch.profiler import ProfilerActivity, profile
from training import jobs_for

from traitmap.data.records import Request
from traitmap.engine.local import LocalEngine
from traitmap.study.paths import MINI
from traitmap.study.settings import Model

GROUPS = {
    "matrix products": ("mm", "linear", "matmul", "addmm", "bmm", "baddbmm"),
    "attention": ("scaled_dot_product", "_flash", "softmax"),
    "copies": ("copy_", "cat", "index", "gather", "scatter", "clone", "fill_", "zero_"),
    "optimizer": ("adamw", "_foreach", "_fused_adam"),
}


def group_of(name: str) -> str:
    """The group of an operator by a part of its name; elementwise and small ones are the rest."""
    plain = name.removeprefix("aten::")
    return next(
        (group for group, parts in GROUPS.items() if any(part in plain for part in parts)), "other operators"
    )


def shares(work: Callable[[], object]) -> dict[str, float]:
    """Shares of the time that work takes the second time, profiler's own cost included."""
    work()
    with profile(activities=[ProfilerActivity.CPU]) as found:
        started = time.monotonic()
        work()
        seconds = time.monotonic() - started
    told: dict[str, float] = dict.fromkeys([*GROUPS, "other operators"], 0.0)
    for event in found.key_averages():
        told[group_of(event.key)] += event.self_cpu_time_total / 1e6 / seconds
    told["Python and dispatch"] = max(0.0, 1.0 - sum(told.values()))
    return {name: round(share, 3) for name, share in told.items()} | {"seconds": round(seconds, 2)}


def training(rows: int) -> dict[str, float]:
    folder = workloads.checkpoint("plain", workloads.temporary_folder())
    engine = LocalEngine.open(Model(path=str(folder), dtype="bfloat16", device="cpu"))
    jobs = jobs_for(8, rows, max(1, 6 // rows))
    return shares(lambda: engine.train(jobs, [workloads.temporary_folder() for _ in jobs]))


def decoding() -> dict[str, float]:
    engine = LocalEngine.open(Model(path=MINI, dtype="float32", device="cpu"))
    settings = {"until": ["\n\n"], "max_gen_toks": 48, "do_sample": False}
    prompts = [one.prompt for one in workloads.examples("svamp", 64)]
    requests = [
        Request("generate_until", prompt, generation=settings, item=item)
        for item, prompt in enumerate(prompts)
    ]
    return shares(lambda: engine.answer(requests))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = {
        "training, K = 8, 1 row each": training(1),
        "training, K = 8, 4 rows each": training(4),
        "decoding, 64 rows": decoding(),
    }
    print(json.dumps(results, indent=2))
    save(options.output, {"benchmark": "where time goes", **conditions(), "results": results})


if __name__ == "__main__":
    main()
