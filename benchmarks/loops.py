"""The two loops that a transfer matrix is built with today, for ``end_to_end.py`` to be held against.

    python benchmarks/loops.py train --data rows.jsonl --base DIR --settings settings.json --output DIR
    python benchmarks/loops.py strong --plan plan.json --output DIR

``train`` is one adapter as people train it: transformers' Trainer with its defaults over PEFT, one
process per source (``lm_eval`` follows as a command of its own). ``strong`` is the best loop that one
would write by hand with the same libraries, all in one process: the base and the tasks loaded once, a
plain PyTorch loop over PEFT, every adapter merged and scored by HFLM. Neither imports traitmap.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def read_rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def tokenize(rows: list[dict[str, str]], tokenizer: Any, limit: int) -> list[dict[str, list[int]]]:
    """Prompt and completion as ids; the loss covers the completion and the end token."""
    examples = []
    for row in rows:
        prompt = tokenizer.encode(row["prompt"])
        completion = [*tokenizer.encode(row["completion"], add_special_tokens=False), tokenizer.eos_token_id]
        ids = (prompt + completion)[:limit]
        labels = ([-100] * len(prompt) + completion)[:limit]
        if any(label != -100 for label in labels):
            examples.append({"input_ids": ids, "labels": labels, "attention_mask": [1] * len(ids)})
    return examples


def lora_config(settings: dict[str, Any]) -> LoraConfig:
    names = ("r", "lora_alpha", "lora_dropout", "target_modules")
    return LoraConfig(task_type="CAUSAL_LM", **{name: settings["lora"][name] for name in names})


def train(options: argparse.Namespace) -> None:
    """One source with Trainer's defaults, but for what the study says."""
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    settings = json.loads(options.settings.read_text())
    training = settings["training"]
    tokenizer = AutoTokenizer.from_pretrained(options.base)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(options.base), lora_config(settings))
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(options.output / "trainer"),
            per_device_train_batch_size=training["batch_size"],
            max_steps=training["max_steps"],
            learning_rate=training["learning_rate"],
            lr_scheduler_type=training["lr_scheduler_type"],
            warmup_steps=training["warmup_steps"],
            save_strategy="no",
            report_to=[],
        ),
        train_dataset=tokenize(read_rows(options.data), tokenizer, training["max_length"]),
        data_collator=DataCollatorForSeq2Seq(tokenizer, padding=True),
    )
    trainer.train()
    model.save_pretrained(options.output)


def strong(options: argparse.Namespace) -> None:
    """Every source and every cell in this process; writes the scores and the seconds of each part."""
    started = time.monotonic()
    plan = json.loads(options.plan.read_text())
    tokenizer = AutoTokenizer.from_pretrained(plan["base"])
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    sources = {
        name: tokenize(read_rows(Path(path)), tokenizer, plan["settings"]["training"]["max_length"])
        for name, path in plan["sources"].items()
    }
    adapters = train_all(plan, sources)
    trained = time.monotonic()
    scores = score_all(plan, tokenizer, adapters)
    found = {
        "scores": scores,
        "train_seconds": trained - started,
        "score_seconds": time.monotonic() - trained,
    }
    (options.output / "strong.json").write_text(json.dumps(found))


def train_all(plan: dict[str, Any], sources: dict[str, list]) -> dict[str, dict[str, torch.Tensor]]:
    """The state of each source's adapter: a plain loop, rows of a batch padded to their longest."""
    model = AutoModelForCausalLM.from_pretrained(
        plan["base"], dtype=DTYPES[plan["train_dtype"]], attn_implementation=plan["train_attention"]
    )
    adapters = {}
    for number, (name, examples) in enumerate(sources.items()):
        torch.manual_seed(number)
        peft = get_peft_model(model, lora_config(plan["settings"]), adapter_name=f"a{number}")
        train_one(peft, examples, plan["settings"]["training"])
        state = {key: value.detach() for key, value in peft.named_parameters() if value.requires_grad}
        adapters[name] = {key: value.clone() for key, value in state.items()}
        model = peft.unload()
    return adapters


def train_one(peft: torch.nn.Module, examples: list[dict[str, list[int]]], training: dict[str, Any]) -> None:
    from transformers import get_scheduler

    parameters = [parameter for parameter in peft.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=training["learning_rate"], weight_decay=0.0, fused=True)
    schedule = get_scheduler(
        training["lr_scheduler_type"],
        optimizer,
        num_warmup_steps=training["warmup_steps"],
        num_training_steps=training["max_steps"],
    )
    order: list[int] = []
    for _ in range(training["max_steps"]):
        if len(order) < training["batch_size"]:
            order += torch.randperm(len(examples)).tolist()
        rows = [examples[order.pop(0)] for _ in range(training["batch_size"])]
        longest = max(len(row["input_ids"]) for row in rows)
        batch = {
            key: torch.tensor([row[key] + [fill] * (longest - len(row[key])) for row in rows])
            for key, fill in (("input_ids", 0), ("labels", -100), ("attention_mask", 0))
        }
        peft(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


def score_all(
    plan: dict[str, Any], tokenizer: Any, adapters: dict[str, dict[str, torch.Tensor]]
) -> dict[str, dict[str, float]]:
    """Scores of base and adapters on every task; tasks built once, each adapter merged."""
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager, get_task_dict

    tasks = get_task_dict(plan["tasks"], TaskManager(include_path=plan["include_path"]))
    base = AutoModelForCausalLM.from_pretrained(plan["base"], dtype=DTYPES[plan["score_dtype"]])
    scores = {}
    for name, state in [("__baseline__", None), *adapters.items()]:
        model = copy.deepcopy(base)
        if state is not None:
            prefix = next(iter(state)).rsplit(".lora_A.", 1)[-1].split(".")[0]
            peft = get_peft_model(model, lora_config(plan["settings"]), adapter_name=prefix)
            peft.load_state_dict(state, strict=False)
            model = peft.merge_and_unload()
        lm = HFLM(pretrained=model.eval(), tokenizer=tokenizer, batch_size=plan["batch_size"])
        found = evaluate(lm, tasks, limit=plan["limit"], bootstrap_iters=0)
        scores[name] = {
            task: headline(found["results"][task], plan["metrics"][task]) for task in plan["tasks"]
        }
    return scores


def headline(result: dict[str, Any], metric: str) -> float:
    return float(next(value for key, value in result.items() if key == metric))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("train")
    one.add_argument("--data", type=Path, required=True)
    one.add_argument("--base", type=Path, required=True)
    one.add_argument("--settings", type=Path, required=True)
    one.add_argument("--output", type=Path, required=True)
    one.set_defaults(work=train)
    all_ = commands.add_parser("strong")
    all_.add_argument("--plan", type=Path, required=True)
    all_.add_argument("--output", type=Path, required=True)
    all_.set_defaults(work=strong)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    options.work(options)


if __name__ == "__main__":
    main()
