"""Scoring adapters on targets, side by side with lm-evaluation-harness's own HFLM.

    python benchmarks/scoring.py [--quick] [--pairs 5] [--adapters 1 8] [--output FILE]

Three multiple-choice targets (one-token labels behind prompts as long as real ones; choices of several
tokens behind about 96 tokens; the same behind five examples of about 384 tokens) on a random Llama, and
one generation target of the mini study, whose adapter was trained until its answers end by themselves.

S, the strongest loop by hand: HFLM in this process, base loaded once, for every adapter the fastest of
batch size 1, 16 and 64, merged or not, found by trial in each dtype. T, what people run: an ``lm_eval``
command per adapter with ``peft=``, in the checkpoint's dtype, 16 rows at a time; it runs once per target.
Ours forgets tokens, plans and merged weights before each turn. Sides take turns; seconds are of processor
time, wall time beside it. In float32 log-likelihoods must agree to 1e-3 and texts but for near ties.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import workloads
import yaml
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from peft import PeftModel
from record import conditions, save
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from traitmap.api.preparation import load_data, load_engine
from traitmap.data.records import Request, Response
from traitmap.engine.contract import TrainingJob
from traitmap.engine.local import LocalEngine
from traitmap.engine.requests import RequestCache
from traitmap.engine.tokens import Encoder
from traitmap.study.load import load_study
from traitmap.study.settings import Lora, Model, Training

PACKAGE = Path(__file__).parent.parent / "src" / "traitmap"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
ONE, SEVERAL = (" a", " b", " c", " d"), (" a b c", " d e", " f g h i", " j k")
TASK = "mini_word_problems"
ITEMS = {"labels": 200, "zero-shot": 60, "five-shot": 40, "generation": 250}
QUICK = {"labels": 64, "zero-shot": 16, "five-shot": 16, "generation": 128}
FEWEST = {"labels": 16, "zero-shot": 8, "five-shot": 12, "generation": 64}  # items where adapters are many
Scores = list[list[Any]]  # per adapter, per request: a log-likelihood or a text


@dataclass(frozen=True)
class Workload:
    """A target with the base and the adapters that are asked it."""

    kind: str
    requests: list[Request]
    base: Path
    adapters: list[Path]

    @property
    def generated(self) -> bool:
        return self.requests[0].kind == "generate_until"

    def first(self, items: int) -> Workload:
        kept = [request for request in self.requests if request.item < items]
        return Workload(self.kind, kept, self.base, self.adapters)


@dataclass(frozen=True)
class Way:
    """One way to use HFLM."""

    dtype: str
    merge: bool
    batch_size: int


def letters(generator: np.random.Generator, count: int) -> str:
    """One random letter is one token."""
    return "".join(" " + workloads.LETTERS[i] for i in generator.integers(0, 26, count))


def choice_requests(kind: str, items: int) -> list[Request]:
    generator, names = np.random.default_rng(7), list(workloads.LENGTHS)
    if kind == "labels":
        contexts = [workloads.examples(names[i % 10], 1, i)[0].prompt for i in range(items)]
    else:
        before = letters(generator, 384) if kind == "five-shot" else ""
        contexts = [(before + letters(generator, int(n)))[1:] for n in generator.integers(64, 129, items)]
    choices = ONE if kind == "labels" else SEVERAL
    return [
        Request("loglikelihood", context, choice, item=item)
        for item, context in enumerate(contexts)
        for choice in choices
    ]


def choice_workloads(items: dict[str, int], adapters: int, folder: Path, shape: str) -> list[Workload]:
    base = workloads.checkpoint(shape, folder / shape)
    engine = LocalEngine.open(Model(path=str(base), dtype="float32", device="cpu"))
    training = Training(learning_rate=1e-3, warmup_steps=0, batch_size=2, max_steps=2)
    jobs = [
        TrainingJob("svamp", seed, workloads.examples("svamp", 4, seed), Lora(r=16), training)
        for seed in range(adapters)
    ]
    folders = made_folders(folder, "choices", adapters)
    engine.train(jobs, folders)
    kinds = ("labels", "zero-shot", "five-shot")
    return [Workload(kind, choice_requests(kind, items[kind]), base, folders) for kind in kinds]


def generation_workload(items: int, adapters: int, folder: Path) -> Workload:
    """The mini study's word problems, asked of seeds trained on 40 batches of them."""
    raw = yaml.safe_load((PACKAGE / "mini" / "study.yaml").read_text())
    for part in ("sources", "targets"):
        raw[part] = [one for one in raw[part] if one.get("task") == TASK]
    raw |= {"limit": items, "model": {"path": raw["model"], "dtype": "float32", "device": "cpu"}}
    (folder / "study.yaml").write_text(yaml.safe_dump(raw))
    study = load_study(folder / "study.yaml")
    sources, targets = load_data(study, lambda: load_engine(study))
    engine = load_engine(study)
    training = sources[0].training.model_copy(update={"max_steps": 40, "warmup_steps": 2})
    jobs = [
        TrainingJob(TASK, seed, tuple(sources[0].examples), sources[0].lora, training) for seed in range(2)
    ]
    trained = made_folders(folder, "trained", 2)
    engine.train(jobs, trained)
    folders = made_folders(folder, "generation", adapters)
    for number, target in enumerate(folders):  # two seeds in turn: training is not what is timed
        for file in trained[number % 2].iterdir():
            (target / file.name).write_bytes(file.read_bytes())
    base = Path(json.loads((folders[0] / "adapter_config.json").read_text())["base_model_name_or_path"])
    if not base.is_dir():
        base = PACKAGE / "mini" / "base"
    return Workload("generation", list(targets[0].requests), base, folders)


def made_folders(folder: Path, name: str, count: int) -> list[Path]:
    folders = [folder / f"{name}-{number}" for number in range(count)]
    for one in folders:
        one.mkdir()
    return folders


def timed(work: Callable[[], Scores]) -> tuple[Scores, float, float]:
    """What it found, CPU seconds, wall seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    found = work()
    return found, time.process_time() - cpu, time.perf_counter() - wall


def ours(workload: Workload, engine: LocalEngine, adapters: int) -> Scores:
    engine.encoder = Encoder(engine.base.tokenizer)
    engine.cache = RequestCache()
    engine._latest = engine._fast = None

    def plain(answer: Response) -> Any:
        return answer.text if workload.generated else answer.logprob

    return [
        [plain(answer) for answer in engine.answer(workload.requests, adapter)]
        for adapter in workload.adapters[:adapters]
    ]


def theirs(workload: Workload, bases: dict[str, Any], way: Way, adapters: int) -> Scores:
    instances = [
        Instance(
            one.kind,
            {},
            (one.context, dict(one.generation) if one.generation else one.continuation),
            0,
            metadata=("bench", one.item, 1),
        )
        for one in workload.requests
    ]
    tokenizer, base = bases["tokenizer"], bases[way.dtype]
    found: Scores = []
    for adapter in workload.adapters[:adapters]:
        model: Any = PeftModel.from_pretrained(copy.deepcopy(base) if way.merge else base, adapter).eval()
        used = model.merge_and_unload() if way.merge else model
        harness = HFLM(pretrained=used, tokenizer=tokenizer, batch_size=way.batch_size)
        if workload.generated:
            found.append(harness.generate_until(instances, disable_tqdm=True))
        else:
            found.append([one[0] for one in harness.loglikelihood(instances, disable_tqdm=True)])
        if not way.merge:
            model.unload()
    return found


def best_way(workload: Workload, bases: dict[str, Any], dtype: str) -> tuple[Way, dict[str, float]]:
    """The fastest way to use HFLM in a dtype, by trial with one adapter."""
    tried: dict[Way, float] = {}
    for merge in (True, False):
        for batch_size in (1, 16, 64):
            way = Way(dtype, merge, batch_size)
            tried[way] = timed(lambda way=way: theirs(workload, bases, way, 1))[1]
    told = {f"{'merged' if w.merge else 'peft'}, batch {w.batch_size}": s for w, s in tried.items()}
    return min(tried, key=tried.__getitem__), told


def command(workload: Workload, folder: Path) -> dict[str, float]:
    """CPU and wall seconds of one ``lm_eval`` command for one adapter, same items."""
    tasks, name = PACKAGE / "data" / "tasks", TASK
    if not workload.generated:
        tasks, name = folder / "tasks", "bench_" + workload.kind.replace("-", "_")
        write_task(workload, tasks, name)
    arguments = [
        *(sys.executable, "-m", "lm_eval", "--model", "hf", "--device", "cpu", "--batch_size", "16"),
        *("--model_args", f"pretrained={workload.base},peft={workload.adapters[0]}"),
        *("--tasks", name, "--include_path", str(tasks)),
        *("--limit", str(1 + max(request.item for request in workload.requests))),
    ]
    started, log = time.monotonic(), folder / "lm_eval.log"
    with log.open("wb") as output:
        process = subprocess.Popen(arguments, stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{arguments}: failed\n{log.read_text()[-3000:]}")
    return {"cpu": usage.ru_utime + usage.ru_stime, "wall": time.monotonic() - started}


def write_task(workload: Workload, folder: Path, name: str) -> None:
    """The workload as a task file of lm-eval with its rows beside it."""
    folder.mkdir(exist_ok=True)
    choices: dict[str, list[str]] = {}
    for request in workload.requests:
        choices.setdefault(request.context, []).append(request.continuation)
    rows = [json.dumps({"context": c, "choices": some}) for c, some in choices.items()]
    (folder / f"{name}.jsonl").write_text("\n".join(rows))
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / f"{name}.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{context}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": 0,
        "target_delimiter": "",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(task))


def agreement(workload: Workload, found: Scores, expected: Scores) -> float:
    """Share of equal texts, or the largest difference of log-likelihoods in nats."""
    pairs = [
        pair for own, other in zip(found, expected, strict=True) for pair in zip(own, other, strict=True)
    ]
    if workload.generated:
        return float(np.mean([a == b for a, b in pairs]))
    return float(max(abs(a - b) for a, b in pairs))


def check(workload: Workload, dtype: str, agreed: float) -> None:
    """float32 must agree; bfloat16 within its own rounding, which longer texts add up."""
    if workload.generated:
        least = 0.97 if dtype == "float32" else 0.6
        if agreed < least:
            raise SystemExit(f"{workload.kind}, {dtype}: only {agreed:.3f} of the texts agree")
    elif agreed > (1e-3 if dtype == "float32" else 1.0):
        raise SystemExit(f"{workload.kind}, {dtype}: log-likelihoods differ by {agreed:.2g}")


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def compare(
    workload: Workload,
    engines: dict[str, LocalEngine],
    bases: dict[str, Any],
    ways: dict[str, Way],
    adapters: int,
    pairs: int,
    dtypes: Sequence[str],
) -> dict[str, Any]:
    """Ratios of S to ours, each dtype against itself and the best against the best."""
    seconds: dict[tuple[str, str, str], list[float]] = {}
    agreed: dict[str, float] = {}
    for turn in range(pairs):
        for dtype in dtypes:
            sides: dict[str, Callable[[], Scores]] = {
                "ours": lambda d=dtype: ours(workload, engines[d], adapters),
                "S": lambda d=dtype: theirs(workload, bases, ways[d], adapters),
            }
            found = {}
            for side in sorted(sides, reverse=bool(turn % 2)):
                found[side], cpu, wall = timed(sides[side])
                seconds.setdefault((side, dtype, "cpu"), []).append(cpu)
                seconds.setdefault((side, dtype, "wall"), []).append(wall)
            agreed[dtype] = agreement(workload, found["ours"], found["S"])
            check(workload, dtype, agreed[dtype])
    best = {
        side: min(dtypes, key=lambda d: statistics.median(seconds[side, d, "cpu"])) for side in ("ours", "S")
    }
    items = (1 + max(request.item for request in workload.requests)) * adapters
    result: dict[str, Any] = {
        "kind": workload.kind,
        "adapters": adapters,
        "items": items,
        "requests": len(workload.requests) * adapters,
        "best_dtype": best,
        "agreement": agreed,
    }
    for clock in ("cpu", "wall"):
        for name, mine, other in (*((d, d, d) for d in dtypes), ("best", best["ours"], best["S"])):
            rates = zip(seconds["S", other, clock], seconds["ours", mine, clock], strict=True)
            result[f"ratio_{clock}_{name}"] = spread([theirs / mine for theirs, mine in rates])
        for side in ("ours", "S"):
            result[f"items_per_{clock}_second_{side}"] = items / statistics.median(
                seconds[side, best[side], clock]
            )
    return result


def measure(workload: Workload, options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    engines = {
        dtype: LocalEngine.open(Model(path=str(workload.base), dtype=dtype, device="cpu"))
        for dtype in options.dtypes
    }
    bases: dict[str, Any] = {
        dtype: AutoModelForCausalLM.from_pretrained(workload.base, dtype=DTYPES[dtype]).eval()
        for dtype in options.dtypes
    }
    bases["tokenizer"] = AutoTokenizer.from_pretrained(workload.base)
    items = 1 + max(request.item for request in workload.requests)
    few = workload.first(max(4, items // 4))
    ways, tried = {}, {}
    for dtype in options.dtypes:
        ours(few, engines[dtype], 1)  # both sides warm
        ways[dtype], tried[dtype] = best_way(few, bases, dtype)
    results: list[dict[str, Any]] = []
    for adapters in options.adapters:
        part, dtypes = workload, list(options.dtypes)
        if adapters > 1:  # fewer items of each, in the dtype that is the better one for S
            part = workload.first(max(FEWEST[workload.kind], items // 4))
            dtypes = [results[0]["best_dtype"]["S"]] if results else dtypes
        result = compare(part, engines, bases, ways, adapters, options.pairs, dtypes)
        result |= {"S": {d: vars(way) for d, way in ways.items()}, "S_tried_cpu_seconds": tried}
        results.append(result)
    if options.command:
        one = command(workload, folder)
        rate = results[0]["items_per_cpu_second_ours"]
        speed = {"command_seconds": one, "ratio_cpu_command": one["cpu"] * rate / items}
        results[0] |= speed
    print(*map(line, results), sep="\n", flush=True)
    return results


def line(result: dict[str, Any]) -> str:
    def ratio(name: str) -> str:
        one = result[f"ratio_{name}"]
        return f"{one['median']:5.2f} [{one['low']:.2f}, {one['high']:.2f}]"

    each = ", ".join(f"{dtype} {ratio('cpu_' + dtype)}" for dtype in DTYPES if f"ratio_cpu_{dtype}" in result)
    told = f"; T {result['ratio_cpu_command']:.0f}x" if "ratio_cpu_command" in result else ""
    return (
        f"{result['kind']:>10} K={result['adapters']}: best {ratio('cpu_best')} (wall {ratio('wall_best')}), "
        f"{each} x S; ours {result['items_per_cpu_second_ours']:.0f} items/cpu-s in "
        f"{result['best_dtype']['ours']}, S {result['items_per_cpu_second_S']:.0f} in "
        f"{result['best_dtype']['S']}{told}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer items")
    parser.add_argument(
        "--shape", default="plain", choices=sorted(workloads.SHAPES), help="of all but generation"
    )
    parser.add_argument("--dtypes", nargs="+", default=list(DTYPES), choices=list(DTYPES))
    parser.add_argument("--threads", type=int, help="of torch (default: all cores)")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--adapters", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--kinds", nargs="+", default=sorted(ITEMS), choices=sorted(ITEMS))
    parser.add_argument("--no-command", dest="command", action="store_false", help="leave T out")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore")
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.disable(logging.WARNING)
    started, folder = time.monotonic(), workloads.temporary_folder()
    items, most = QUICK if options.quick else ITEMS, max(options.adapters)
    todo: list[Workload] = []
    if set(options.kinds) - {"generation"}:
        choices = choice_workloads(items, most, folder, options.shape)
        todo = [one for one in choices if one.kind in options.kinds]
    if "generation" in options.kinds:
        todo.append(generation_workload(items["generation"], most, folder))
    results = [result for workload in todo for result in measure(workload, options, folder)]
    seconds = round(time.monotonic() - started)
    print(f"{seconds} s")
    shape = {"shape": options.shape} if set(options.kinds) - {"generation"} else {}
    save(
        options.output,
        {"benchmark": "scoring", **shape, **conditions(), "seconds": seconds, "results": results},
    )


if __name__ == "__main__":
    main()
