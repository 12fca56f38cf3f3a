"""Training K adapters in one pass against one after another, side by side.

    python benchmarks/training.py [--quick] [--shape plain] [--pairs 5] [--dtypes bfloat16] [--output FILE]

S, the strongest loop that one would write by hand with PEFT: plain PyTorch, padding to the longest row of
the batch, logits at every position as transformers computes them, the better of float32 and bfloat16 and
of torch's and the plain attention. T, what people run: transformers' Trainer for every adapter, with TRL's
defaults where they differ from Trainer's (gradient checkpointing on, bfloat16 on; dtype of the base
float32), padding by a collator. The base is loaded once on every side; training and the writing of the
adapters are timed.
Both sides find oneDNN's cache of compiled kernels as large as oneDNN makes it (1,024); ``traitmap run`` keeps
256 of them, for memory.
Same examples, order, batches, steps and tokens; S and ours start from the same weights and their last
losses must agree. Tokens of data per CPU second: padding does not count.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import workloads
from flops import measured_ceiling, training_flops
from peft import LoraConfig, get_peft_model
from record import conditions, save
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments
from transformers.utils import logging as transformers_logging

from traitmap.engine.contract import TrainingJob
from traitmap.engine.local import LocalEngine
from traitmap.engine.train import AdapterTrainingState, new_training_state
from traitmap.study.settings import Lora, Model, Training

os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "1024")
DTYPES = ("float32", "bfloat16")


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


def padded(state: AdapterTrainingState, batch: Any) -> dict[str, torch.Tensor]:
    """The rows of a batch padded to the longest, labels -100 where nothing is learnt."""
    rows = [state.examples[i] for i in batch]
    longest = max(len(row.ids) for row in rows)
    ids, labels = (torch.full((len(rows), longest), fill) for fill in (0, -100))
    mask = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, : len(row.ids)] = torch.from_numpy(row.ids)
        labels[place, : len(row.ids)] = torch.from_numpy(np.where(row.learn, row.ids, -100))
        mask[place, : len(row.ids)] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def started(model: Any, state: AdapterTrainingState, number: int) -> Any:
    """A PEFT model whose new adapter starts where ours does."""
    lora = state.job.lora
    config = LoraConfig(r=lora.r, lora_alpha=lora.lora_alpha, target_modules="all-linear")
    peft = get_peft_model(model, config, adapter_name=str(number))
    named = dict(peft.named_parameters())
    with torch.no_grad():
        for name in state.adapter.a:
            named[f"base_model.model.{name}.lora_A.{number}.weight"].copy_(state.adapter.a[name])
    return peft


def peft_loop(model: Any, engine: LocalEngine, jobs: list[TrainingJob]) -> list[float]:
    """S: one adapter after another. Returns the last losses."""
    losses = []
    for number, job in enumerate(jobs):
        state = new_training_state(engine.base, engine.encoder, job)
        peft = started(model, state, number)
        parameters = [p for p in peft.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=job.training.learning_rate, weight_decay=0.0, fused=True)
        for batch in state.schedule:
            loss = peft(**padded(state, batch)).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, job.training.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
        losses.append(float(loss.detach()))
        peft.save_pretrained(workloads.temporary_folder(), selected_adapters=[str(number)])
        model = peft.unload()
    return losses


def trainer_loop(model: Any, engine: LocalEngine, jobs: list[TrainingJob]) -> list[float]:
    """T: a Trainer for every adapter. Returns the last losses."""
    losses = []
    for number, job in enumerate(jobs):
        state = new_training_state(engine.base, engine.encoder, job)
        peft = started(model, state, number)
        peft.enable_input_require_grads()
        arguments = TrainingArguments(
            output_dir=str(workloads.temporary_folder()),
            per_device_train_batch_size=job.training.batch_size,
            max_steps=len(state.schedule),
            learning_rate=job.training.learning_rate,
            lr_scheduler_type="constant",
            gradient_checkpointing=True,
            bf16=True,
            use_cpu=engine.base.model.device.type == "cpu",
            logging_strategy="steps",
            logging_steps=10,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            seed=job.seed,
        )
        trainer = Trainer(
            model=peft,
            args=arguments,
            train_dataset=[int(i) for batch in state.schedule for i in batch],
            data_collator=lambda batch, state=state: padded(state, batch),
        )
        losses.append(float(trainer.train().training_loss))
        peft.save_pretrained(workloads.temporary_folder(), selected_adapters=[str(number)])
        model = peft.unload()
        model.gradient_checkpointing_disable()
        model.disable_input_require_grads()
    return losses


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """What work returns, its CPU seconds, its wall seconds."""
    cpu, wall = time.process_time(), time.monotonic()
    result = work()
    return result, time.process_time() - cpu, time.monotonic() - wall


class Sides:
    """Everything that is timed, loaded once."""

    def __init__(self, folder: Path, dtypes: Sequence[str]) -> None:
        self.engines = {
            dtype: LocalEngine.open(Model(path=str(folder), dtype=dtype, device="cpu")) for dtype in dtypes
        }
        self.strong = {
            (dtype, attention): AutoModelForCausalLM.from_pretrained(
                folder, dtype=getattr(torch, dtype), attn_implementation=attention
            )
            for dtype in dtypes
            for attention in ("sdpa", "eager")
        }
        self.usual = AutoModelForCausalLM.from_pretrained(folder)

    def ours(self, dtype: str, jobs: list[TrainingJob]) -> tuple[list[float], int, float, float]:
        folders = [workloads.temporary_folder() for _ in jobs]
        reports, cpu, wall = timed(lambda: self.engines[dtype].train(jobs, folders))
        return [report.losses[-1] for report in reports], sum(r.tokens for r in reports), cpu, wall

    def best_strong(self, jobs: list[TrainingJob]) -> tuple[str, str]:
        """The way of S that takes the fewest CPU seconds for these jobs, by one trial of the first two."""
        trial = jobs[:2]
        seconds = {
            way: timed(lambda m=model, way=way: peft_loop(m, self.engines[way[0]], trial))[1]
            for way, model in self.strong.items()
        }
        return min(seconds, key=lambda way: seconds[way])


def compare(sides: Sides, count: int, rows: int, steps: int, pairs: int, trainers: int) -> dict:
    """Ratios of CPU seconds and wall time, theirs / ours, pair by pair, and tokens per CPU second.

    trainers: pairs in which Trainer runs too.
    """
    jobs = jobs_for(count, rows, steps)
    way = sides.best_strong(jobs)
    first = {dtype: sides.ours(dtype, jobs[:2])[2] for dtype in sides.engines}
    mine = min(first, key=lambda dtype: first[dtype])
    ratios: dict[str, dict[str, list[float]]] = {side: {"cpu": [], "wall": []} for side in ("S", "T")}
    speeds: dict[str, list[float]] = {"ours": [], "S": [], "T": []}
    tokens = 0
    for pair in range(pairs):
        ours, tokens, cpu, wall = sides.ours(mine, jobs)
        loops = {"S": lambda: peft_loop(sides.strong[way], sides.engines[way[0]], jobs)}
        if pair < trainers:
            loops["T"] = lambda: trainer_loop(sides.usual, next(iter(sides.engines.values())), jobs)
        speeds["ours"].append(tokens / cpu)
        for side, loop in loops.items():
            theirs, their_cpu, their_wall = timed(loop)
            if side == "S":
                assert np.allclose(ours, theirs, rtol=5e-2), (ours, theirs)
            ratios[side]["cpu"].append(their_cpu / cpu)
            ratios[side]["wall"].append(their_wall / wall)
            speeds[side].append(tokens / their_cpu)
    base = sides.engines[mine].base
    share, length = learnt_share(sides.engines[mine], jobs)
    per_token = training_flops(base.model, jobs[0].lora, length=length, learnt=share)
    work = per_token * statistics.median(speeds["ours"])
    return {
        "adapters": count,
        "rows": rows,
        "steps": steps,
        "tokens": tokens,
        "ours": mine,
        "S": " ".join(way),
        **{
            f"{side}/ours {unit}": spread(values)
            for side, units in ratios.items()
            for unit, values in units.items()
            if values
        },
        "tokens_per_cpu_second": {
            side: statistics.median(values) for side, values in speeds.items() if values
        },
        "gflop_per_cpu_second": work / 1e9,
        "share_of_matmul_ceiling": work / measured_ceiling(base.model),
    }


def learnt_share(engine: LocalEngine, jobs: list[TrainingJob]) -> tuple[float, float]:
    """Share of the tokens at which logits are computed, and the mean tokens of a row."""
    rows = [
        example for job in jobs for example in new_training_state(engine.base, engine.encoder, job).examples
    ]
    tokens = sum(len(row.ids) for row in rows)
    return sum(int(row.learn[1:].sum()) for row in rows) / tokens, tokens / len(rows)


def spread(values: list[float]) -> list[float]:
    """Least, median, most."""
    return [round(value, 3) for value in (min(values), statistics.median(values), max(values))]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", default="plain", choices=sorted(workloads.SHAPES))
    parser.add_argument("--pairs", type=int)
    parser.add_argument("--usual-pairs", type=int, help="pairs in which T runs too (default: all)")
    parser.add_argument("--dtypes", nargs="+", default=list(DTYPES), choices=DTYPES, help="of ours and of S")
    parser.add_argument("--adapters", default=None)
    parser.add_argument("--rows", default="1,4,16")
    parser.add_argument("--threads", type=int, help="of torch (default: all cores)")
    parser.add_argument(
        "--quick", action="store_true", help="K = 1, 8, 10, three pairs, few steps, T at 1 and 4 rows"
    )
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    transformers_logging.set_verbosity_error()
    warnings.filterwarnings("ignore")
    counts = options.adapters or ("1,8,10" if options.quick else "1,4,8,10,16")
    pairs = options.pairs or (3 if options.quick else 5)
    sides = Sides(workloads.checkpoint(options.shape, workloads.temporary_folder()), options.dtypes)
    trainers = pairs if options.usual_pairs is None else options.usual_pairs
    results = []
    for count in map(int, counts.split(",")):
        for rows in map(int, options.rows.split(",")):
            steps = max(1, math.ceil((6 if options.quick else 24) / rows))
            usual = 0 if options.quick and rows > 4 else trainers
            results.append(compare(sides, count, rows, steps, pairs, usual))
            print(json.dumps(results[-1]), flush=True)
    save(
        options.output, {"benchmark": "training", "shape": options.shape, **conditions(), "results": results}
    )


if __name__ == "__main__":
    main()
