"""How many kernels oneDNN compiles while the embedded study is trained, and what they cost.

    python benchmarks/kernels.py [--steps 10] [--capacities 64 256 1024] [--output FILE]

oneDNN compiles a kernel for every new shape of a product and keeps as many as
``ONEDNN_PRIMITIVE_CACHE_CAPACITY`` says. For each capacity a process of its own trains all sources of
the embedded study in bfloat16 and tells, by ``ONEDNN_VERBOSE``: products computed and compiled, seconds
of both; then, by a process without it, CPU seconds of the training, tokenising and all, and peak memory.
Loading and rendering are left out of the seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from record import conditions, save


def train(steps: int) -> None:
    """All sources of the embedded study for a few steps; prints CPU seconds and peak memory."""
    import workloads

    from traitmap.api.preparation import load_data, load_engine
    from traitmap.engine.contract import TrainingJob
    from traitmap.study.load import load_study
    from traitmap.study.paths import MINI

    folder = workloads.temporary_folder()
    text = (Path(__file__).parents[1] / "src" / "traitmap" / "mini" / "study.yaml").read_text()
    model = f"model: {{path: '{MINI}', dtype: bfloat16}}"
    path = folder / "study.yaml"
    path.write_text(re.sub(r"max_steps: \d+", f"max_steps: {steps}", text.replace(f"model: {MINI}", model)))
    study = load_study(path)
    engine = load_engine(study)
    sources, _ = load_data(study, lambda: engine)
    jobs = [TrainingJob(one.name, 0, one.examples, one.lora, one.training) for one in sources]
    started = time.process_time()
    reports = engine.train(jobs, [folder / job.name for job in jobs])
    told = {
        "cpu_seconds": time.process_time() - started,
        "tokens": sum(report.tokens for report in reports),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    print(json.dumps(told))


def child(steps: int, capacity: int, verbose: bool) -> list[str]:
    """Lines that a training process prints."""
    environment = os.environ | {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": str(capacity)}
    if verbose:
        environment["ONEDNN_VERBOSE"] = "2"
    command = [sys.executable, __file__, "--train", "--steps", str(steps)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def counted(lines: list[str]) -> dict[str, float]:
    """Products computed and compiled, and milliseconds of each as seconds."""
    told = {"products": 0.0, "compiled": 0.0, "compute_seconds": 0.0, "compile_seconds": 0.0}
    for line in lines:
        parts = line.split(",")
        if len(parts) < 6 or parts[0] != "onednn_verbose" or parts[5] != "matmul":
            continue
        if parts[3] == "exec":
            told["products"] += 1
            told["compute_seconds"] += float(parts[-1]) / 1e3
        elif parts[3] == "create:cache_miss":
            told["compiled"] += 1
            told["compile_seconds"] += float(parts[-1]) / 1e3
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--capacities", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--train", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    if options.train:
        train(options.steps)
        return
    results: list[dict[str, Any]] = []
    for capacity in options.capacities:
        found = counted(child(options.steps, capacity, verbose=True))
        plain = json.loads(child(options.steps, capacity, verbose=False)[-1])
        results.append({"capacity": capacity, **found, **plain})
        print(json.dumps(results[-1]), flush=True)
    save(options.output, {"benchmark": "kernels", **conditions(), "results": results})


if __name__ == "__main__":
    main()
