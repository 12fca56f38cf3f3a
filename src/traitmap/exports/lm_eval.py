"""A run as results and samples of lm-evaluation-harness, a folder per model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from math import isfinite, isnan
from pathlib import Path
from typing import Any

from traitmap.data.records import Outcome
from traitmap.data.texts import TaskText
from traitmap.exports.rows import (
    ModelRow,
    aligned_texts,
    cells_of,
    ledger_of,
    model_rows,
    target_texts,
    value_and_error,
)
from traitmap.runs.cells import CellScores
from traitmap.runs.files import write_output
from traitmap.runs.ledger import Ledger
from traitmap.runs.store import RunStore
from traitmap.study.settings import BASELINE


def export_lm_eval(store: RunStore, folder: str | Path) -> tuple[Path, ...]:
    """Write one folder per model with ``results_*.json`` and ``samples_*.jsonl``; returns the results files.

    ``model_args.peft`` names the adapter, so that whoever reads the files tells adapters from the base. The
    date, in the content and in the names, is that of the model's newest cell. Only the metric of the matrix
    has values; texts are those that the run kept.
    """
    ledger = ledger_of(store)
    texts = target_texts(store)
    written = []
    for row in model_rows(ledger):
        if row.cells:
            written.append(_write_model(store, ledger, row, texts, Path(folder) / row.name))
    return tuple(written)


def _write_model(
    store: RunStore, ledger: Ledger, row: ModelRow, texts: Mapping[str, Sequence[TaskText]], folder: Path
) -> Path:
    keys = [entry.key for entry in row.cells.values() if entry.key is not None]
    date = datetime.fromtimestamp(max(store.cell(key).stat().st_mtime for key in keys), UTC)
    stamp = date.strftime("%Y-%m-%dT%H-%M-%S.%f")  # as lm-eval writes it into names
    content: dict[str, Any] = {
        "results": {},
        "group_subtasks": {},
        "configs": {},
        "versions": {},
        "n-shot": {},
        "higher_is_better": {},
        "n-samples": {},
        "config": _config(store, ledger, row),
        "date": date.timestamp(),
        "lm_eval_version": (ledger.conditions.get("versions") or {}).get("lm_eval"),
        "model_source": "hf",
        "model_name": row.name if row.source != BASELINE else str(ledger.model.get("path")),
    }
    for target, cell, outcomes in cells_of(store, row, ledger):
        _add_target(content, target, cell, outcomes)
        if outcomes:
            lines = _samples(target, outcomes, texts.get(target["name"], ()))
            place = folder / f"samples_{target['name']}_{stamp}.jsonl"
            write_output(place, "".join(f"{line}\n" for line in lines))
    place = folder / f"results_{stamp}.json"
    return write_output(place, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False))


def _config(store: RunStore, ledger: Ledger, row: ModelRow) -> dict[str, Any]:
    limits = {target["conditions"].get("limit") for target in ledger.targets}
    arguments: dict[str, Any] = {"pretrained": str(ledger.model.get("path"))}
    if ledger.model.get("revision"):
        arguments["revision"] = ledger.model["revision"]
    if row.source != BASELINE:
        arguments["peft"] = row.name
    return {
        "model": "hf",
        "model_args": arguments,
        "model_dtype": ledger.conditions.get("dtype"),
        "device": ledger.conditions.get("device"),
        "limit": limits.pop() if len(limits) == 1 else None,  # else it stands in ``configs``, by task
        "traitmap": {"base": ledger.base, "source": row.source, "seed": row.seed},
    }


def _add_target(
    content: dict[str, Any], target: Mapping[str, Any], cell: CellScores, outcomes: Sequence[Outcome]
) -> None:
    name, metric, filter_name = target["name"], target["metric"], target["filter"]
    key = f"{metric},{filter_name}"
    value, error = value_and_error(target, cell)
    content["results"][name] = {
        "alias": name,
        key: value if isfinite(value) else "N/A",
        f"{metric}_stderr,{filter_name}": error if isfinite(error) else "N/A",
    }
    content["group_subtasks"][name] = []
    conditions = dict(target["conditions"])
    content["configs"][name] = {"task": target["task"], **conditions, "output_type": target["kind"]}
    content["versions"][name] = target["version"]
    content["n-shot"][name] = conditions.get("num_fewshot") or 0
    content["higher_is_better"][name] = {metric: target["higher_is_better"]}
    original = target["items"] if "asked" in target else len(outcomes)
    content["n-samples"][name] = {"original": original, "effective": len(outcomes)}


def _samples(target: Mapping[str, Any], outcomes: Sequence[Outcome], texts: Sequence[TaskText]) -> list[str]:
    return [
        json.dumps(_sample(target, outcome, text), ensure_ascii=False, allow_nan=False)
        for outcome, text in zip(outcomes, aligned_texts(target, texts, outcomes), strict=True)
    ]


def _sample(target: Mapping[str, Any], outcome: Outcome, text: TaskText) -> dict[str, Any]:
    logprobs = outcome.choice_logprobs
    if logprobs is not None and len(text.choices) == len(logprobs):
        arguments: list[list[Any]] = [[text.input, choice] for choice in text.choices]
        responses: list[Any] = [[[str(logprob), "False"]] for logprob in logprobs]
        filtered: list[Any] = [[str(value), "False"] for value in logprobs]
        gold = text.choices.index(outcome.gold) if outcome.gold in text.choices else outcome.gold
    else:
        arguments = [[text.input, {}]]
        responses = [[outcome.text if outcome.text is not None else outcome.prediction]]
        filtered = [outcome.prediction if outcome.parsed else "[invalid]"]
        gold = outcome.gold
    return {
        "doc_id": outcome.item,
        "doc": {"input": text.input, "output": text.output, "choices": list(text.choices)},
        "target": str(gold),
        "arguments": {
            f"gen_args_{i}": {"arg_0": value[0], "arg_1": value[1]} for i, value in enumerate(arguments)
        },
        "resps": responses,
        "filtered_resps": filtered,
        "filter": target["filter"],
        "metrics": [target["metric"]],
        "doc_hash": outcome.item_digest,
        "prompt_hash": sha256(text.input.encode("utf-8", "surrogatepass")).hexdigest(),
        "target_hash": sha256(outcome.gold.encode("utf-8", "surrogatepass")).hexdigest(),
        target["metric"]: None if isnan(outcome.score) else outcome.score,
    }
