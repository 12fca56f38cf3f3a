"""Scoring one adapter's multiple choice and generation against lm-eval's HFLM in the same process.

    python benchmarks/scoring.py [--shape plain] [--pairs 5] [--items 100] [--output FILE]

HFLM at the best of its batch sizes 1, 16 and 64, the adapter applied by PEFT and by merging, whichever is
faster. Same items on both sides; log-likelihoods and texts must agree.
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
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from peft import PeftModel
from record import conditions, save
from transformers import AutoModelForCausalLM, AutoTokenizer

from traitmap.data.records import Request
from traitmap.engine.contract import TrainingJob
from traitmap.engine.local import LocalEngine
from traitmap.study.settings import Lora, Model, Training

CHOICES = {"one token": (" a", " b", " c", " d"), "several tokens": (" a b c", " d e", " f g h i", " j k")}


def requests_of(kind: str, items: int) -> list[Request]:
    """Items with prompts as long as those of real data; four choices, or 64 generated tokens."""
    names = list(workloads.LENGTHS)
    prompts = [workloads.examples(names[i % 10], 1, i)[0].prompt for i in range(items)]
    if kind == "generation":
        settings = {"until": [], "max_gen_toks": 64, "do_sample": False}
        return [
            Request("generate_until", prompt, generation=settings, item=i) for i, prompt in enumerate(prompts)
        ]
    return [
        Request("loglikelihood", prompt, choice, item=i)
        for i, prompt in enumerate(prompts)
        for choice in CHOICES[kind]
    ]


def instances(requests: list[Request]) -> list[Instance]:
    def arguments(one: Request) -> tuple:
        return (one.context, dict(one.generation) if one.generation else one.continuation)

    return [Instance(one.kind, {}, arguments(one), 0, metadata=("bench", one.item, 1)) for one in requests]


def harness(folder: Path, adapter: Path, *, merge: bool, batch_size: int) -> HFLM:
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), adapter).eval()
    model = model.merge_and_unload() if merge else model
    return HFLM(pretrained=model, tokenizer=AutoTokenizer.from_pretrained(folder), batch_size=batch_size)


def timed(work) -> tuple[list, float]:
    started = time.process_time()
    return work(), time.process_time() - started


def compare(
    kind: str, engine: LocalEngine, rivals: dict[str, HFLM], adapter: Path, items: int, pairs: int
) -> dict:
    requests = requests_of(kind, items)
    ratios, speeds = [], []
    for _ in range(pairs):
        ours, mine = timed(lambda: engine.answer(requests, adapter))
        theirs = {}
        for name, rival in rivals.items():
            call = rival.generate_until if kind == "generation" else rival.loglikelihood
            found, theirs[name] = timed(lambda c=call: c(instances(requests), disable_tqdm=True))
            if kind == "generation":
                assert np.mean([a.text == b for a, b in zip(ours, found, strict=True)]) > 0.98
            else:
                assert np.allclose([a.logprob for a in ours], [b[0] for b in found], atol=1e-3)
        ratios.append(min(theirs.values()) / mine)
        speeds.append(items / mine)
    return {
        "kind": kind,
        "items": items,
        "ratio_cpu": [min(ratios), statistics.median(ratios), max(ratios)],
        "items_per_cpu_second": statistics.median(speeds),
        "best_rival": min(theirs, key=theirs.__getitem__),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="plain", choices=sorted(workloads.SHAPES))
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    folder, adapter = (
        workloads.checkpoint(options.shape, workloads.temporary_folder()),
        workloads.temporary_folder(),
    )
    engine = LocalEngine.open(Model(path=str(folder), dtype="float32", device="cpu"))
    training = Training(learning_rate=1e-3, warmup_steps=0, batch_size=4, max_steps=2)
    engine.train([TrainingJob("svamp", 0, workloads.examples("svamp", 8), Lora(r=16), training)], [adapter])
    torch.manual_seed(0)
    rivals = {
        f"{'merged' if merge else 'peft'}, batch {size}": harness(
            folder, adapter, merge=merge, batch_size=size
        )
        for merge in (False, True)
        for size in (1, 16, 64)
    }
    results = []
    for kind in (*CHOICES, "generation"):
        results.append(compare(kind, engine, rivals, adapter, options.items, options.pairs))
        print(json.dumps(results[-1]), flush=True)
    save(options.output, {"benchmark": "scoring", "shape": options.shape, **conditions(), "results": results})


if __name__ == "__main__":
    main()
