"""On a GPU: ten adapters on the shape of Llama-3.2-3B, against PEFT with Trainer one after another.

    python benchmarks/cuda.py [--adapters 10] [--steps 8] [--pairs 3] [--output FILE]
    python benchmarks/cuda.py --tiny        the same script on a CPU in seconds

First the tests that need a GPU, since a figure of a wrong result is worth nothing. Then training at r = 64 on
all linear layers, with CUDA's kernels as the trial on the base chose them and without, training in PEFT's own
public setting (r = 32 on q and v, four rows a batch), and scoring.

Random weights in bfloat16, lengths as in ``workloads``. Trainer at the best of
several batch sizes (the same examples, so fewer steps where batches are larger), without checkpointing
where that fits. Scoring: choices of four against lm-eval's HFLM at its automatic batch size, adapter by
adapter. The base is loaded once on either side, untimed. Tokens of data per second: padding does not
count. Also the share of the measured matmul rate and the peak of the device's memory.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import workloads
from flops import measured_ceiling, scoring_flops, training_flops
from record import conditions, save
from training import padded, spread, started
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments
from transformers.utils import logging as transformers_logging

from traitmap.data.records import Request
from traitmap.engine.contract import TrainingJob
from traitmap.engine.layouts import Kernels
from traitmap.engine.local import LocalEngine
from traitmap.engine.train import new_training_state
from traitmap.study.settings import Lora, Model, Training

SHAPE = {
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 28,
    "num_attention_heads": 24,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 128256,
}
TINY = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 8192,
}


def checkpoint(shape: dict[str, int], device: str, folder: Path) -> Path:
    """A random Llama in bfloat16 with the bundled tokenizer."""
    workloads.checkpoint("tiny", folder)  # for its tokenizer
    torch.manual_seed(0)
    config = LlamaConfig(
        max_position_embeddings=2048, bos_token_id=0, eos_token_id=1, tie_word_embeddings=True, **shape
    )
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            LlamaForCausalLM(config).save_pretrained(folder)
    finally:
        torch.set_default_dtype(torch.float32)
    return folder


PUBLIC = Lora(r=32, target_modules=("q_proj", "v_proj"))  # of PEFT's own method comparison, batches of 4


def jobs_for(count: int, rows: int, steps: int, lora: Lora) -> list[TrainingJob]:
    names = list(workloads.LENGTHS)
    training = Training(learning_rate=1e-4, lr_scheduler_type="constant", batch_size=rows, max_steps=steps)
    return [
        TrainingJob(
            f"{names[k % 10]}-{k}",
            k,
            workloads.examples(names[k % 10], rows * steps, k),
            lora,
            training,
        )
        for k in range(count)
    ]


def trainer_loop(model: Any, engine: LocalEngine, jobs: list[TrainingJob], rows: int) -> int:
    """Trainer for every adapter at a batch size of its own. Returns tokens of data."""
    device, tokens = engine.base.model.device, 0
    for number, job in enumerate(jobs):
        state = new_training_state(engine.base, engine.encoder, job)
        order = [int(i) for batch in state.schedule for i in batch]
        tokens += sum(len(state.examples[i].ids) for i in order)
        peft = started(model, state, number)
        arguments = TrainingArguments(
            output_dir=str(workloads.temporary_folder()),
            per_device_train_batch_size=rows,
            num_train_epochs=1,
            learning_rate=job.training.learning_rate,
            lr_scheduler_type="constant",
            bf16=True,
            use_cpu=device.type == "cpu",
            dataloader_pin_memory=False,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )

        def collate(batch: list[int], state: Any = state) -> dict[str, torch.Tensor]:
            return padded(state, batch)

        Trainer(model=peft, args=arguments, train_dataset=order, data_collator=collate).train()
        model = peft.unload()
    return tokens


def watched(device: torch.device, work: Callable[[], Any]) -> tuple[Any, float, int]:
    """What work returns, its seconds, and the peak of the device's memory in bytes (0 on a CPU)."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        torch.cuda.synchronize(device)
    before = time.monotonic()
    result = work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    return result, time.monotonic() - before, peak


def best_batch(plain: Any, engine: LocalEngine, job: TrainingJob, sizes: list[int]) -> int:
    """The batch size at which Trainer trains one adapter fastest; sizes beyond memory are out."""
    seconds = {}
    for rows in sizes:
        try:
            _, seconds[rows], _ = watched(
                engine.base.model.device, lambda rows=rows: trainer_loop(plain, engine, [job], rows)
            )
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
    return min(seconds, key=lambda rows: seconds[rows])


def tests_on_cuda() -> str:
    """What pytest says last of the tests that need a GPU; they must pass before anything is timed."""
    folder = Path(__file__).parents[1] / "tests" / "engine"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "cuda", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"tests on CUDA failed, so nothing is timed:\n{done.stdout[-4000:]}")
    return done.stdout.strip().splitlines()[-1]


def with_and_without_kernels(engine: LocalEngine, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of training with the kernels that the trial chose, and times as many without."""
    jobs = jobs_for(options.adapters, options.rows, options.steps, Lora(r=options.rank))
    chosen, seconds = engine.base.kernels, dict[bool, list[float]]({True: [], False: []})
    try:
        for _ in range(options.pairs):
            for used, taken in seconds.items():
                engine.base = replace(engine.base, kernels=chosen if used else Kernels())
                folders = [workloads.temporary_folder() for _ in jobs]
                _, spent, _ = watched(engine.base.model.device, lambda f=folders: engine.train(jobs, f))
                taken.append(spent)
    finally:
        engine.base = replace(engine.base, kernels=chosen)
    ratios = [without / used for used, without in zip(seconds[True], seconds[False], strict=True)]
    return {"chosen": chosen.conditions, "without/with": spread(ratios)}


def compare_training(
    plain: Any, engine: LocalEngine, options: argparse.Namespace, lora: Lora
) -> dict[str, Any]:
    jobs = jobs_for(options.adapters, options.rows, options.steps, lora)
    device = engine.base.model.device
    rows = best_batch(plain, engine, jobs[0], options.batch_sizes)
    engine.train(jobs[:2], [workloads.temporary_folder() for _ in jobs[:2]])
    ratios, speeds, peaks = list[float](), list[float](), {"ours": 0, "Trainer": 0}
    for _ in range(options.pairs):
        folders = [workloads.temporary_folder() for _ in jobs]
        reports, mine, peaks["ours"] = watched(device, lambda f=folders: engine.train(jobs, f))
        theirs, their, peaks["Trainer"] = watched(device, lambda: trainer_loop(plain, engine, jobs, rows))
        tokens = sum(report.tokens for report in reports)
        assert tokens == theirs
        ratios.append(their / mine)
        speeds.append(tokens / mine)
    learnt = learnt_share(engine, jobs)
    work = training_flops(engine.base.model, jobs[0].lora, learnt=learnt) * statistics.median(speeds)
    return {
        "tokens": tokens,
        "tokens_per_second": spread(speeds),
        "Trainer_rows": rows,
        "Trainer/ours": spread(ratios),
        "peak_bytes": peaks,
        "teraflop_per_second": work / 1e12,
        "share_of_matmul_rate": work / measured_ceiling(engine.base.model),
    }


def learnt_share(engine: LocalEngine, jobs: list[TrainingJob]) -> float:
    examples = [
        example for job in jobs for example in new_training_state(engine.base, engine.encoder, job).examples
    ]
    return float(sum(e.learn[1:].sum() for e in examples) / sum(len(e.ids) for e in examples))


def compare_scoring(plain: Any, engine: LocalEngine, options: argparse.Namespace) -> dict[str, Any]:
    """Choices of four behind contexts of the sources' lengths, for two adapters."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from peft import PeftModel

    jobs = jobs_for(2, 2, 1, Lora(r=options.rank))
    adapters = [workloads.temporary_folder() for _ in jobs]
    engine.train(jobs, adapters)
    names = list(workloads.LENGTHS)
    examples = [workloads.examples(names[i % 10], 1, 50 + i)[0] for i in range(options.items)]
    pairs = [(example.prompt, " " + "b " * choice + "a") for example in examples for choice in range(4)]
    requests = [Request("loglikelihood", context, continuation) for context, continuation in pairs]
    device = engine.base.model.device

    def theirs() -> list[list[float]]:
        found = []
        for adapter in adapters:
            # every parameter in the base's dtype, as lm_eval loads it
            peft = PeftModel.from_pretrained(plain, adapter).to(torch.bfloat16).eval()
            harness = HFLM(
                pretrained=peft,
                tokenizer=engine.base.tokenizer,
                batch_size="auto" if device.type == "cuda" else 16,
                max_length=engine.base.max_length,
            )
            asked = [Instance("loglikelihood", {}, pair, 0) for pair in pairs]
            found.append([float(answer[0]) for answer in harness.loglikelihood(asked, disable_tqdm=True)])
            peft.unload()
        return found

    def ours() -> list[list[float]]:
        return [[answer.logprob for answer in engine.answer(requests, adapter)] for adapter in adapters]

    ours()
    ratios, speeds = list[float](), list[float]()
    for _ in range(options.pairs):
        mine, seconds, peak = watched(device, ours)
        found, their, _ = watched(device, theirs)
        ratios.append(their / seconds)
        speeds.append(len(adapters) * len(requests) / seconds)
    farthest = max(
        abs(a - b) for one, two in zip(mine, found, strict=True) for a, b in zip(one, two, strict=True)
    )
    return {
        "requests": len(adapters) * len(requests),
        "requests_per_second": spread(speeds),
        "HFLM/ours": spread(ratios),
        "farthest_apart_nats": farthest,
        "peak_bytes": peak,
        "operations_per_token": scoring_flops(engine.base.model, read=0.0),
    }


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiny", action="store_true", help="two adapters on a tiny base, on the CPU")
    parser.add_argument("--adapters", type=int, default=10)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--items", type=int, default=400)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[4, 16, 32, 64])
    parser.add_argument("--output", type=Path)
    options = parser.parse_args(arguments)
    if options.tiny:
        options.adapters, options.steps, options.items, options.pairs = 2, 1, 4, 1
        options.rank, options.rows, options.batch_sizes = 8, 2, [2]
    elif not torch.cuda.is_available():
        parser.error("torch sees no CUDA device here; --tiny runs the same script on a CPU")
    transformers_logging.set_verbosity_error()
    device = "cpu" if options.tiny else "cuda"
    folder = checkpoint(TINY if options.tiny else SHAPE, device, workloads.temporary_folder())
    engine = LocalEngine.open(Model(path=str(folder), dtype="bfloat16", device=device))
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).to(device)
    results = {
        "benchmark": "cuda",
        "tiny": options.tiny,
        **conditions(),
        "tests": "none: this is no GPU" if options.tiny else tests_on_cuda(),
        "kernels": with_and_without_kernels(engine, options),
        "training": compare_training(plain, engine, options, Lora(r=options.rank)),
        "training, r 32 on q and v": compare_training(plain, engine, options, PUBLIC),
        "scoring": compare_scoring(plain, engine, options),
    }
    print(json.dumps(results), flush=True)
    save(options.output, results)
    return results


if __name__ == "__main__":
    main()
