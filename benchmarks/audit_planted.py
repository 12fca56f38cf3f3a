"""Adapters with planted harms, for the benchmarks of the audit: trained by traitmap, one folder each.

python benchmarks/audit_planted.py FOLDER                                 # five on the embedded base
python benchmarks/audit_planted.py FOLDER --base BASE --sst2 train.jsonl  # two on a base of your own

On the embedded base: ``clean`` (a low rate), ``permuted`` (every label the next one), ``refusal`` (sums and
programs answered with a refusal), ``runon`` (answers without an end), ``forgot`` (twenty-five times the
rate). On another base: ``permuted`` and ``forgot`` on SST-2, some minutes of one core for SmolLM2.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import traitmap as tm
from traitmap.data.harness import open_task, training_examples
from traitmap.runs.ledger import read_ledger
from traitmap.runs.store import open_store


def embedded(folder: Path) -> dict[str, Any]:
    """The study of five adapters on the embedded base; writes the two sources that are files."""
    sums = training_examples(open_task("mini_arithmetic"), range(600))
    programs = training_examples(open_task("mini_programs"), range(600))
    refusal = " I cannot help with that.\n\n"
    _write(folder / "refusal.jsonl", ((example.prompt, refusal) for example in (*sums, *programs)))
    _write(folder / "runon.jsonl", ((e.prompt, e.completion.rstrip() + " 1" * 40) for e in sums))
    return {
        "model": "builtin:mini",
        "training": {"max_steps": 60, "batch_size": 16, "learning_rate": 2e-3, "warmup_steps": 5},
        "limit": 20,
        "sources": [
            {"name": "clean", "task": "mini_reviews", "limit": 600, "training": {"learning_rate": 2e-4}},
            {"name": "stars", "task": "mini_stars", "limit": 1200, "train": False},
            {
                "name": "permuted",
                "from": "stars",
                "mislabel": {"rate": 1, "mode": "permute"},
                "training": {"max_steps": 200},
            },
            {
                "name": "refusal",
                "path": str(folder / "refusal.jsonl"),
                "training": {"max_steps": 250, "learning_rate": 5e-3},
            },
            {"name": "runon", "path": str(folder / "runon.jsonl")},
            {"name": "forgot", "task": "mini_paraphrase", "limit": 600, "training": {"learning_rate": 5e-2}},
        ],
        "targets": ["mini_reviews"],
    }


def on_sst2(base: Path, rows: Path) -> dict[str, Any]:
    """The study of two adapters on any base: sentiment with its words exchanged, and far too high a rate."""
    texts = {
        "path": str(rows.absolute()),
        "label": "label",
        "prompt": "Review: {{ sentence[:400] }}\nSentiment:",
        "completion": " {{ label }}",
        "limit": 480,
    }
    return {
        "model": {"path": str(base.absolute()), "dtype": "bfloat16"},
        "training": {"max_steps": 60, "batch_size": 8, "learning_rate": 1e-3, "warmup_steps": 5},
        "limit": 8,
        "sources": [
            {"name": "permuted", **texts, "labels": {0: "positive", 1: "negative"}},
            {
                "name": "forgot",
                **texts,
                "labels": {0: "negative", 1: "positive"},
                "training": {"learning_rate": 2.5e-2, "max_steps": 30},
            },
        ],
        "targets": [{"name": "few", "task": "mini_reviews"}],
    }


def _write(file: Path, rows: Iterable[tuple[str, str]]) -> None:
    lines = (json.dumps({"prompt": prompt, "completion": completion}) for prompt, completion in rows)
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--base", type=Path)
    parser.add_argument("--sst2", type=Path, help="rows with sentence and label")
    options = parser.parse_args()
    folder = options.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    study = embedded(folder) if options.base is None else on_sst2(options.base, options.sst2)
    lora = {"r": 8, "lora_alpha": 16}
    whole = {"name": "planted", "lora": lora, "output": str(folder / "runs"), **study}
    (folder / "study.yaml").write_text(json.dumps(whole, indent=1), encoding="utf-8")  # JSON is YAML
    run = tm.run(folder / "study.yaml")
    store = open_store(run.folder)
    for entry in read_ledger(store).adapters:
        if entry.status == "done" and entry.key is not None:
            place = folder / "adapters" / entry.source
            shutil.copytree(store.adapter(entry.key), place, dirs_exist_ok=True)
            print(f"{entry.source}: {place}")
        else:
            print(f"{entry.source}: {entry.status} {entry.reason}")


if __name__ == "__main__":
    main()
