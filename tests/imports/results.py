"""Small results files of other harnesses, in their own layouts, as tests change them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

STAMP = "2026-01-02T03-04-05.678901"


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def lm_eval(peft: str | None = None, score: float = 0.5, **changes: Any) -> dict[str, Any]:
    """Results of 0.4 for one task of four items."""
    arguments = {"pretrained": "org/base"} | ({"peft": peft} if peft else {})
    return {
        "results": {"senti": {"alias": "senti", "acc,none": score, "acc_stderr,none": 0.25}},
        "group_subtasks": {"senti": []},
        "configs": {"senti": {"task": "senti", "doc_to_text": "{{text}}", "num_fewshot": 0}},
        "versions": {"senti": 1.0},
        "n-shot": {"senti": 0},
        "higher_is_better": {"senti": {"acc": True}},
        "n-samples": {"senti": {"original": 4, "effective": 4}},
        "config": {"model": "hf", "model_args": arguments, "limit": None},
        **changes,
    }


def lm_eval_samples(right: Sequence[bool]) -> str:
    """Samples of the same task: choices no and yes, gold yes."""
    rows = []
    for i, correct in enumerate(right):
        yes = -1.0 if correct else -3.0
        rows.append(
            {
                "doc_id": i,
                "doc": {"text": f"text {i}"},
                "target": "1",
                "arguments": {
                    "gen_args_0": {"arg_0": f"text {i}", "arg_1": " no"},
                    "gen_args_1": {"arg_0": f"text {i}", "arg_1": " yes"},
                },
                "resps": [[["-2.0", "False"]], [[str(yes), "False"]]],
                "filtered_resps": [["-2.0", "False"], [str(yes), "False"]],
                "filter": "none",
                "doc_hash": f"hash{i}",
                "acc": float(correct),
            }
        )
    return "\n".join(json.dumps(row) for row in rows)


def lm_eval_folder(folder: Path, rights: dict[str | None, Sequence[bool]]) -> Path:
    """One model folder per adapter (None: the base), with samples."""
    for peft, right in rights.items():
        place = folder / (peft or "base").replace("/", "__")
        write(place / f"results_{STAMP}.json", lm_eval(peft, sum(right) / len(right)))
        write(place / f"samples_senti_{STAMP}.jsonl", lm_eval_samples(right))
    return folder


def inspect(status: str = "success", values: Sequence[str] = ("C", "I"), **changes: Any) -> dict[str, Any]:
    mean = sum(value == "C" for value in values) / len(values)
    return {
        "version": 2,
        "status": status,
        "eval": {
            "task": "tiny",
            "task_version": 0,
            "model": "vllm/base",
            "created": "2026-01-02",
            "dataset": {"name": "d", "sample_ids": list(range(len(values)))},
            "config": {"limit": None, "epochs": 1},
        },
        "plan": {"steps": [], "config": {}},
        "results": {
            "scores": [
                {
                    "name": "match",
                    "scored_samples": len(values),
                    "metrics": {"accuracy": {"value": mean}, "stderr": {"value": 0.1}},
                }
            ]
        },
        "samples": [
            {
                "id": i,
                "epoch": 1,
                "input": f"question {i}",
                "target": "4",
                "output": {"completion": "four", "choices": [{"stop_reason": "stop"}], "usage": {}},
                "scores": {"match": {"value": value, "answer": "four"}},
            }
            for i, value in enumerate(values)
        ],
        **changes,
    }


def lighteval(**changes: Any) -> dict[str, Any]:
    return {
        "config_general": {"model_name": "org/base", "max_samples": None, "end_time": 1.0},
        "results": {
            "lighteval|gsm8k|5": {"em": 0.25, "em_stderr": 0.1},
            "lighteval|mmlu:law|0": {"acc": 0.5, "acc_stderr": "N/A"},
            "lighteval|mmlu:_average|0": {"acc": 0.5},
            "all": {"em": 0.25, "acc": 0.5},
        },
        "versions": {"lighteval|gsm8k|5": 0},
        **changes,
    }


def every_eval_ever(**changes: Any) -> dict[str, Any]:
    return {
        "schema_version": "0.2.1",
        "evaluation_id": "senti/org/base/1",
        "retrieved_timestamp": "1",
        "source_metadata": {},
        "eval_library": {"name": "lm_eval", "version": "0.4.13"},
        "model_info": {"name": "base", "id": "org/base"},
        "evaluation_results": [
            {
                "evaluation_name": "senti",
                "source_data": {},
                "metric_config": {"lower_is_better": False, "score_type": "continuous"},
                "score_details": {"score": 0.5, "uncertainty": {"standard_error": {"value": 0.1}}},
            }
        ],
        **changes,
    }


def helm_run(folder: Path, model: str = "org/base", scores: Sequence[float] = (1.0, 0.0, 1.0)) -> Path:
    name = {"name": "exact_match", "split": "test"}
    mean = sum(scores) / len(scores)
    specification = {
        "name": f"boolq:data=a,model={model.replace('/', '_')}",
        "scenario_spec": {"class_name": "BoolQ", "args": {}},
        "adapter_spec": {"model": model, "max_train_instances": 5, "method": "generation"},
    }
    noise = {"name": {"name": "num_prompt_tokens", "split": "test"}, "count": 3, "mean": 260.0}
    perturbed = {"name": {**name, "perturbation": {"name": "typos"}}, "count": 3, "mean": 0.0}
    write(folder / "run_spec.json", specification)
    write(folder / "stats.json", [noise, perturbed, {"name": name, "count": 1, "mean": mean}])
    instances = [
        {
            "instance_id": f"id{i}",
            "train_trial_index": 0,
            "stats": [{"name": name, "count": 1, "mean": score}],
        }
        for i, score in enumerate(scores)
    ]
    write(folder / "per_instance_stats.json", instances)
    return folder


OPENCOMPASS = (
    "dataset,version,metric,mode,base,ours\n"
    "gsm8k,1d7fe4,accuracy,gen,55.2,60.1\n"
    "Average,-,-,-,55.2,60.1\n"
    "mmlu,ac5e0f,accuracy,ppl,-,40.0\n"
)
