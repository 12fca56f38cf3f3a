"""A run as records of Every Eval Ever (schema 0.2.1), one per model, with its instances beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib.metadata import version
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

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

SCHEMA = "0.2.1"
INSTANCE_SCHEMA = "instance_level_eval_0.2.1"


def export_every_eval_ever(
    store: RunStore, folder: str | Path, *, organization: str = "unknown", timestamp: str = "0"
) -> tuple[Path, ...]:
    """Write ``MODEL.json`` and ``MODEL.jsonl`` for the base and every adapter; returns the records.

    organization: who measured, which the schema demands. timestamp: Unix time of the export, 0 by
    default, so that the same run gives the same files.
    """
    ledger = ledger_of(store)
    texts = target_texts(store)
    place = Path(folder)
    return tuple(
        _write(store, ledger, row, texts, place, organization, timestamp)
        for row in model_rows(ledger)
        if row.cells
    )


def _write(
    store: RunStore,
    ledger: Ledger,
    row: ModelRow,
    texts: Mapping[str, Sequence[TaskText]],
    folder: Path,
    organization: str,
    timestamp: str,
) -> Path:
    model = _model(ledger, row)
    name = f"{ledger.name}/{model['id']}/{timestamp}"
    results, lines = [], []
    for target, cell, outcomes in cells_of(store, row, ledger):
        results.append(_result(target, cell, outcomes))
        lines += _instances(name, model["id"], target, outcomes, texts.get(target["name"], ()))
    instances = "".join(f"{line}\n" for line in lines).encode()
    record = {
        "schema_version": SCHEMA,
        "evaluation_id": name,
        "retrieved_timestamp": timestamp,
        "source_metadata": {
            "source_name": f"traitmap run {ledger.name}",
            "source_type": "evaluation_run",
            "source_organization_name": organization,
            "evaluator_relationship": "other",
        },
        "eval_library": _library(ledger),
        "model_info": model,
        "evaluation_results": results,
    }
    if lines:
        write_output(folder / f"{row.name}.jsonl", instances)
        record["detailed_evaluation_results"] = {
            "format": "jsonl",
            "file_path": f"{row.name}.jsonl",
            "hash_algorithm": "sha256",
            "checksum": sha256(instances).hexdigest(),
            "total_rows": len(lines),
        }
    place = folder / f"{row.name}.json"
    return write_output(place, json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False))


def _model(ledger: Ledger, row: ModelRow) -> dict[str, Any]:
    base = str(ledger.model.get("path"))
    if row.source == BASELINE:
        return {"name": base, "id": base}
    details = {"base_model": base, "adapter": "LoRA", "source": row.source}
    if row.seed is not None:
        details["seed"] = str(row.seed)
    return {"name": row.name, "id": row.name, "additional_details": details}


def _library(ledger: Ledger) -> dict[str, Any]:
    versions = {name: str(one) for name, one in (ledger.conditions.get("versions") or {}).items()}
    return {
        "name": "traitmap",
        "version": version("traitmap"),
        "additional_details": {"engine": str(ledger.conditions.get("engine")), **versions},
    }


def _result(target: Mapping[str, Any], cell: CellScores, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    score, error = value_and_error(target, cell)
    known = cell.scores[np.isfinite(cell.scores)]
    bounded = bool(known.size) and float(known.min()) >= 0 and float(known.max()) <= 1
    limits = {"min_score": 0.0, "max_score": 1.0} if bounded else {}
    conditions = target["conditions"]
    details = {
        "metric": target["metric"],
        "filter": target["filter"],
        "version": target["version"],
        **({"asked": f"{len(outcomes)} of {target['items']} items"} if "asked" in target else {}),
        "num_fewshot": conditions.get("num_fewshot") or 0,
        "template": target["digest"],
    }
    uncertainty: dict[str, Any] = {"num_samples": len(outcomes)}
    if isfinite(error):
        uncertainty["standard_error"] = {"value": error, "method": "analytic"}
    return {
        "evaluation_name": target["name"],
        "source_data": {"dataset_name": str(target["task"]), "source_type": "other"},
        "metric_config": {
            "evaluation_description": f"{target['metric']} of {target['task']}",
            "lower_is_better": not target["higher_is_better"],
            **({"score_type": "continuous", **limits} if limits else {}),
            "additional_details": {key: str(value) for key, value in details.items()},
        },
        "score_details": {"score": score, "uncertainty": uncertainty},
    }


def _instances(
    name: str,
    model: str,
    target: Mapping[str, Any],
    outcomes: Sequence[Outcome],
    texts: Sequence[TaskText],
) -> list[str]:
    return [
        json.dumps(_instance(name, model, target, outcome, text), ensure_ascii=False, allow_nan=False)
        for outcome, text in zip(outcomes, aligned_texts(target, texts, outcomes), strict=True)
        if isfinite(outcome.score)
    ]


def _instance(
    name: str, model: str, target: Mapping[str, Any], outcome: Outcome, text: TaskText
) -> dict[str, Any]:
    return {
        "schema_version": INSTANCE_SCHEMA,
        "evaluation_id": name,
        "model_id": model,
        "evaluation_name": target["name"],
        "sample_id": str(outcome.item),
        "sample_hash": outcome.item_digest,
        "interaction_type": "single_turn",
        "input": {
            "raw": text.input,
            "reference": [outcome.gold],
            "choices": list(text.choices) or None,
        },
        "output": {"raw": [outcome.text if outcome.text is not None else outcome.prediction]},
        "answer_attribution": [
            {
                "turn_idx": 0,
                "source": "output.raw",
                "extracted_value": outcome.prediction,
                "extraction_method": str(target["filter"]),
                "is_terminal": True,
            }
        ],
        "evaluation": {"score": outcome.score, "is_correct": bool(outcome.score == 1.0)},
        "metadata": {"parsed": str(outcome.parsed).lower()},
    }
