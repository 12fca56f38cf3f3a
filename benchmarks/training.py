"""Training K adapters in one pass against one after another, side by side.

    python benchmarks/training.py [--shape plain] [--pairs 5] [--output FILE]

Against the strongest loop that one would write by hand with PEFT (S): plain PyTorch, dynamic padding,
logits at every position as transformers computes them, no Trainer. Same examples, batches, steps and
tokens on both sides; losses must agree. Tokens of data per second: padding does not count.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch
import workloads
from peft import LoraConfig, get_peft_model
from record import conditions, save
from transformers import AutoModelForCausalLM

from traitmap.engine.contract import TrainingJob
from traitmap.engine.local import LocalEngine
from traitmap.engine.train import open_lane
from traitmap.study.settings import Lora, Model, Training


def jobs_for(count: int, rows: int, steps: int) -> list[TrainingJob]:
    """K sources, each with its own dataset's lengths."""
    names = list(workloads.LENGTHS)
    training = Training(learning_rate=1e-3, lr_scheduler_type="constant", batch_size=rows, max_steps=steps)
    return [
        TrainingJob(
            f"{names[k % 10]}-{k}",
            k,
            workloads.examples(names[k % 10], rows * steps, k),
            Lora(r=16),
            training,
        )
        for k in range(count)
    ]


def peft_loop(folder: Path, engine: LocalEngine, jobs: list[TrainingJob], dtype: torch.dtype) -> list[float]:
    """One adapter after another. The base is loaded once; only training is timed by the caller."""
    losses = []
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    for number, job in enumerate(jobs):
        lane = open_lane(engine.base, engine.encoder, job)
        config = LoraConfig(r=job.lora.r, lora_alpha=job.lora.lora_alpha, target_modules="all-linear")
        peft = get_peft_model(model, config, adapter_name=str(number))
        named = {name: p for name, p in peft.named_parameters() if p.requires_grad}
        with torch.no_grad():  # the same start as ours
            for name in lane.adapter.a:
                named[f"base_model.model.{name}.lora_A.{number}.weight"].copy_(lane.adapter.a[name])
        parameters = list(named.values())
        optimizer = torch.optim.AdamW(parameters, lr=job.training.learning_rate, weight_decay=0.0)
        for batch in lane.schedule:
            rows = [lane.examples[i] for i in batch]
            longest = max(len(row.ids) for row in rows)
            ids, labels = (torch.full((len(rows), longest), fill) for fill in (0, -100))
            mask = torch.zeros_like(ids)
            for place, row in enumerate(rows):
                ids[place, : len(row.ids)] = torch.from_numpy(row.ids)
                labels[place, : len(row.ids)] = torch.from_numpy(np.where(row.learn, row.ids, -100))
                mask[place, : len(row.ids)] = 1
            loss = peft(input_ids=ids, attention_mask=mask, labels=labels).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
        losses.append(float(loss.detach()))
        model = peft.unload()
    return losses


def timed(work) -> tuple[object, float, float]:
    cpu, wall = time.process_time(), time.monotonic()
    result = work()
    return result, time.process_time() - cpu, time.monotonic() - wall


def compare(folder: Path, engines: dict, count: int, rows: int, steps: int, pairs: int) -> dict:
    """Ratios S / ours of CPU seconds and wall time, each against the better dtype of S."""
    jobs = jobs_for(count, rows, steps)
    tokens, ratios = 0, {"cpu": [], "wall": []}
    speeds: dict[str, list[float]] = {
        name: [] for name in ("ours float32", "ours bfloat16", "S float32", "S bfloat16")
    }
    for _ in range(pairs):
        found: dict[str, tuple[float, float]] = {}
        for name, engine in engines.items():
            folders = [workloads.temporary_folder() for _ in jobs]
            reports, cpu, wall = timed(lambda e=engine, f=folders: e.train(jobs, f))
            tokens = sum(report.tokens for report in reports)
            found[f"ours {name}"] = (cpu, wall)
            ours = [report.losses[-1] for report in reports]
            theirs, cpu, wall = timed(lambda e=engine, n=name: peft_loop(folder, e, jobs, getattr(torch, n)))
            found[f"S {name}"] = (cpu, wall)
            assert np.allclose(ours, theirs, rtol=2e-2 if name == "bfloat16" else 1e-2), (ours, theirs)
        for name, (cpu, _) in found.items():
            speeds[name].append(tokens / cpu)
        for place, unit in enumerate(("cpu", "wall")):
            best = {side: min(found[f"{side} {name}"][place] for name in engines) for side in ("ours", "S")}
            ratios[unit].append(best["S"] / best["ours"])
    return {
        "adapters": count,
        "rows": rows,
        "steps": steps,
        "tokens": tokens,
        **{f"ratio_{unit}": [min(r), statistics.median(r), max(r)] for unit, r in ratios.items()},
        "tokens_per_cpu_second": {name: statistics.median(values) for name, values in speeds.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="plain", choices=sorted(workloads.SHAPES))
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--adapters", default="1,4,8")
    parser.add_argument("--rows", default="1,4,16")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    folder = workloads.checkpoint(options.shape, workloads.temporary_folder())
    engines = {
        name: LocalEngine.open(Model(path=str(folder), dtype=name, device="cpu"))
        for name in ("float32", "bfloat16")
    }
    results = []
    for count in map(int, options.adapters.split(",")):
        for rows in map(int, options.rows.split(",")):
            steps = max(2, 24 // rows)
            results.append(compare(folder, engines, count, rows, steps, options.pairs))
            print(json.dumps(results[-1]), flush=True)
    save(
        options.output, {"benchmark": "training", "shape": options.shape, **conditions(), "results": results}
    )


if __name__ == "__main__":
    main()
