"""The whole matrix: ``traitmap run`` against the loops of PEFT and lm-eval that people write.

    python benchmarks/end_to_end.py [--sources 9] [--targets 10] [--limit 200] [--steps 150] [--pairs 5]

T is what people run: Trainer for each source, then an ``lm_eval`` command for base and each adapter, a
process each. S is the strongest loop by hand, in one process (see ``loops.py``), in the dtype that is
faster for it here. Same data, steps, rows per step, targets and items; rows are rendered beforehand, so
that no side pays for it. Seconds of wall time and of processor time (children included), and peak memory
of the largest process. Scores of the base must be the same on all sides but for rounding; those of adapters,
which have other seeds, must not differ on average. Sources are those with rows of their own, trained alike.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import workloads
import yaml
from record import conditions, save

HERE = Path(__file__).parent
TASKS = HERE.parent / "src" / "traitmap" / "data" / "tasks"
STUDY = HERE.parent / "src" / "traitmap" / "mini" / "study.yaml"
ITEMS = 6  # of the base's answers that may fall otherwise: near chance many lie within bfloat16's rounding
ERRORS = 3.0  # standard errors within which two loops' mean scores must agree


@dataclass(frozen=True)
class Cost:
    """wall, cpu: seconds; memory: bytes of the largest process."""

    wall: float
    cpu: float
    memory: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.wall + other.wall, self.cpu + other.cpu, max(self.memory, other.memory))


def command(arguments: list[str | Path], log: Path) -> Cost:
    """What a command costs with all its children. Its output goes to a log, shown where it fails."""
    started = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen([str(one) for one in arguments], stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{arguments}: failed\n{log.read_text()[-3000:]}")
    return Cost(time.monotonic() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024.0)


def prepare(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The study cut to size, its rendered rows and the loops' settings, as files."""
    from traitmap.api.preparation import load_data, load_engine
    from traitmap.study.load import load_study
    from traitmap.study.paths import model_location

    raw = yaml.safe_load(STUDY.read_text())
    own = [source for source in raw["sources"] if "task" in source][: options.sources]
    raw["sources"] = [{key: source[key] for key in source if key != "training"} for source in own]
    targets = [target for target in raw["targets"] if "limit" not in target]  # lm-eval has one limit for all
    raw["targets"] = targets[:: max(1, len(targets) // options.targets)][: options.targets]
    raw |= {"limit": options.limit, "limit_takes": "first"}  # as lm-eval's --limit
    raw["training"] |= {"max_steps": options.steps}
    raw["model"] = {"path": raw["model"], "dtype": options.dtype}
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(raw))
    study = load_study(path)
    sources, targets = load_data(study, lambda: load_engine(study))
    files = {}
    for source in sources:
        files[source.name] = str(folder / f"{source.name}.jsonl")
        lines = [json.dumps({"prompt": e.prompt, "completion": e.completion}) for e in source.examples]
        Path(files[source.name]).write_text("\n".join(lines), encoding="utf-8")
    settings = {
        "lora": sources[0].lora.model_dump(mode="json"),
        "training": sources[0].training.model_dump(mode="json"),
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    plan = {
        "base": str(model_location(study.model.path, study.folder)),
        "sources": files,
        "settings": settings,
        "tasks": [target.task for target in targets],
        "names": {target.task: target.name for target in targets},
        "metrics": {target.task: f"{target.metric},{target.filter}" for target in targets},
        "include_path": str(TASKS),
        "limit": options.limit,
        "batch_size": options.batch_size,
        "train_dtype": options.strong_train_dtype,
        "train_attention": "eager" if options.strong_train_dtype == "bfloat16" else "sdpa",
        "score_dtype": options.strong_score_dtype,
    }
    (folder / "plan.json").write_text(json.dumps(plan))
    return plan


def ours(folder: Path, turn: int) -> tuple[Cost, dict[str, dict[str, float]]]:
    output = folder / f"runs-{turn}"
    cost = command(
        [sys.executable, "-m", "traitmap.cli", "run", folder / "study.yaml", "--output", output],
        folder / "ours.log",
    )
    from traitmap.api.runs import open_run

    matrix = open_run(next(output.iterdir())).matrix()
    rows = {"__baseline__": matrix.baseline, **dict(zip(matrix.sources, matrix.values, strict=True))}
    return cost, {name: dict(zip(matrix.targets, map(float, row), strict=True)) for name, row in rows.items()}


def strong(folder: Path, plan: dict[str, Any]) -> tuple[Cost, dict[str, dict[str, float]]]:
    cost = command(
        [sys.executable, HERE / "loops.py", "strong", "--plan", folder / "plan.json", "--output", folder],
        folder / "strong.log",
    )
    found = json.loads((folder / "strong.json").read_text())["scores"]
    return cost, {name: {plan["names"][t]: v for t, v in row.items()} for name, row in found.items()}


def usual(folder: Path, plan: dict[str, Any]) -> tuple[Cost, Cost, dict[str, dict[str, float]], float]:
    """Cost of all commands, of the dearest training command, the scores, and seconds of training."""
    total, largest, scores = Cost(0.0, 0.0, 0.0), Cost(0.0, 0.0, 0.0), {}
    training = 0.0
    for name, data in plan["sources"].items():
        arguments = ["train", "--data", data, "--base", plan["base"], "--settings", folder / "settings.json"]
        one = command(
            [sys.executable, HERE / "loops.py", *arguments, "--output", folder / "usual" / name],
            folder / "train.log",
        )
        largest = max(largest, one, key=lambda cost: cost.memory)
        total, training = total + one, training + one.wall
    for name in ("__baseline__", *plan["sources"]):
        peft = "" if name == "__baseline__" else f",peft={folder / 'usual' / name}"
        place = folder / "usual-scores" / name
        total += command(
            [
                *(sys.executable, "-m", "lm_eval", "--model", "hf", "--device", "cpu"),
                *("--model_args", f"pretrained={plan['base']}{peft}", "--tasks", ",".join(plan["tasks"])),
                *("--include_path", plan["include_path"], "--limit", str(plan["limit"])),
                *("--batch_size", str(plan["batch_size"]), "--output_path", place),
            ],
            folder / "lm_eval.log",
        )
        newest = max(place.rglob("results_*.json"), key=lambda path: path.stat().st_mtime)
        results = json.loads(newest.read_text())["results"]
        scores[name] = {plan["names"][t]: float(results[t][plan["metrics"][t]]) for t in plan["tasks"]}
    return total, largest, scores, training


def agreement(ours: dict, theirs: dict) -> dict[str, float]:
    """Differences of scores, ours less theirs: the base's largest, the adapters' mean and its error."""
    base = max(abs(value - theirs["__baseline__"][t]) for t, value in ours["__baseline__"].items())
    adapters = [name for name in ours if name != "__baseline__"]
    gaps = np.array([[ours[name][t] - theirs[name][t] for t in ours[name]] for name in adapters])
    error = gaps.mean(axis=1).std(ddof=1) / np.sqrt(len(gaps)) if len(gaps) > 1 else float("nan")
    return {"base_largest": base, "adapters_mean": float(gaps.mean()), "adapters_error": float(error)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sources", type=int, default=9)
    parser.add_argument("--targets", type=int, default=10)
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--usual-pairs", type=int, help="turns in which T runs too (default: all)")
    parser.add_argument("--dtype", default="auto", help="of traitmap's base")
    parser.add_argument("--strong-train-dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--strong-score-dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--batch-size", type=int, default=64, help="of lm-eval in both loops")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    folder = workloads.temporary_folder()
    plan = prepare(options, folder)
    turns: list[dict[str, Any]] = []
    for turn in range(options.pairs):
        turns.append(one_turn(folder, plan, turn, options))
        report = {
            "benchmark": "end to end",
            **conditions(),
            "options": {key: str(value) for key, value in vars(options).items()},
            "medians": medians(turns),
            "turns": turns,
        }
        save(options.output, report)
    print(json.dumps(report["medians"], indent=2))


def one_turn(folder: Path, plan: dict[str, Any], turn: int, options: argparse.Namespace) -> dict[str, Any]:
    """Ours, S and, where asked for, T, one after another."""
    mine, scores = ours(folder, turn)
    hand, hand_scores = strong(folder, plan)
    found: dict[str, Any] = {"ours": vars(mine), "S": vars(hand), "S agrees": agreement(scores, hand_scores)}
    if turn < (options.pairs if options.usual_pairs is None else options.usual_pairs):
        people, largest, their_scores, training = usual(folder, plan)
        found |= {
            "T": vars(people),
            "T training seconds": training,
            "one PEFT run": vars(largest),
            "T agrees": agreement(scores, their_scores),
        }
    for side in ("S agrees", "T agrees"):
        if side in found:
            gap = found[side]
            assert gap["base_largest"] <= ITEMS / options.limit + 1e-9, (side, gap)
            assert not abs(gap["adapters_mean"]) > max(ERRORS * gap["adapters_error"], 0.02), (side, gap)
    print(json.dumps(found), flush=True)
    return found


def medians(turns: list[dict[str, Any]]) -> dict[str, Any]:
    """Least, median and largest ratio of each loop to ours, and of our memory to one PEFT run's."""
    told: dict[str, Any] = {}
    for side in ("S", "T"):
        for unit in ("wall", "cpu"):
            ratios = [turn[side][unit] / turn["ours"][unit] for turn in turns if side in turn]
            if ratios:
                told[f"{side} {unit}"] = [min(ratios), statistics.median(ratios), max(ratios)]
    memory = [turn["ours"]["memory"] / turn["one PEFT run"]["memory"] for turn in turns if "T" in turn]
    if memory:
        told["memory"] = [min(memory), statistics.median(memory), max(memory)]
    return told


if __name__ == "__main__":
    main()
