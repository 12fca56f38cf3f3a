"""Runs of HELM: a folder with run_spec.json and stats.json, and the statistics of its instances."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from traitmap.data.records import Outcome
from traitmap.errors import MatrixError
from traitmap.imports.reading import (
    Evaluation,
    content_digest,
    count,
    known_setting,
    listing,
    mapping,
    number,
    part,
    read_json,
    sequence,
    text,
)
from traitmap.matrix.statistics import standard_error
from traitmap.metrics import direction
from traitmap.study.paths import digest

KIND = "HELM"
# HELM writes one statistic for everything that it counts; these measure how good an answer is.
_METRICS = (
    "exact_match", "quasi_exact_match", "prefix_exact_match", "quasi_prefix_exact_match", "f1_score",
    "math_equiv_chain_of_thought", "math_equiv", "final_number_exact_match", "ifeval_strict_accuracy",
    "code_eval_acc", "pass", "rouge_2", "rouge_l", "bleu_4", "bits_per_byte", "chain_of_thought_correctness",
)  # fmt: skip


def is_helm(folder: Path) -> bool:
    """Whether a folder is one run of HELM."""
    return (folder / "run_spec.json").is_file() and (folder / "stats.json").is_file()


def read_helm(folder: Path) -> list[Evaluation]:
    """Every quality metric of one run on its test split (its validation split where it has no other)."""
    place = f"{folder / 'run_spec.json'}"
    specification = mapping(read_json(folder / "run_spec.json"), place)
    adapter = mapping(specification.get("adapter_spec"), f"{place}, adapter_spec")
    model = text(adapter.get("model") or adapter.get("model_deployment"), f"{place}, adapter_spec.model")
    deployment = str(adapter.get("model_deployment") or "")
    deployment = "" if deployment == model else deployment
    task = _task(text(specification.get("name"), f"{place}, name"))
    statistics = _plain_statistics(folder / "stats.json")
    split = "test" if any(key[1] == "test" for key in statistics) else "valid"
    evaluations = []
    for metric in _METRICS:
        statistic = statistics.get((metric, split))
        if statistic is None:
            continue
        where = f"{folder / 'stats.json'}, {metric}"
        n = count(statistic.get("count"), f"{where}.count")
        outcomes = _outcomes(folder, metric, split)
        evaluations.append(
            Evaluation(
                place=where,
                kind=KIND,
                model=model,
                adapter=None,
                task=task,
                metric=metric,
                filter="none",
                value=number(statistic.get("mean"), f"{where}.mean"),
                stderr=float(standard_error(np.array([outcome.score for outcome in outcomes]))),
                n=len(outcomes) or (n if n > 1 else 0),
                higher_is_better=direction(metric)[0],
                setting=_setting(adapter, specification),
                outcomes=outcomes,
                variant={"deployment": deployment} if deployment else {},
            )
        )
    if not evaluations:
        raise MatrixError(
            f"{folder / 'stats.json'}: holds none of the metrics that are read ({', '.join(_METRICS)}); "
            "convert the run with `python -m every_eval_ever` or give a table"
        )
    return evaluations


def _task(name: str) -> str:
    """``mmlu:subject=anatomy,model=a_b`` -> ``mmlu:subject=anatomy``: what was asked, not who answered."""
    scenario, _, arguments = name.partition(":")
    parts = [
        part for part in arguments.split(",") if part and not part.startswith(("model=", "model_deployment="))
    ]
    return f"{scenario}:{','.join(parts)}" if parts else scenario


def _plain_statistics(file: Path) -> dict[tuple[str, str], Mapping[str, Any]]:
    """(metric, split) -> statistic, of unperturbed instances alone."""
    statistics = {}
    for i, entry in enumerate(sequence(read_json(file), str(file))):
        statistic = mapping(entry, f"{file}[{i}]")
        name = mapping(statistic.get("name"), f"{file}[{i}].name")
        if not name.get("perturbation"):
            statistics[str(name.get("name")), str(name.get("split", ""))] = statistic
    return statistics


def _setting(adapter: Mapping[str, Any], specification: Mapping[str, Any]) -> dict[str, Any]:
    prompt = [adapter.get(key) for key in ("method", "instructions", "input_prefix", "output_prefix")]
    return known_setting(
        num_fewshot=adapter.get("max_train_instances"),
        limit=adapter.get("max_eval_instances"),
        template=content_digest([prompt, specification.get("scenario_spec")], 12),
        generation={key: adapter.get(key) for key in ("temperature", "max_tokens", "num_outputs")},
    )


def _outcomes(folder: Path, metric: str, split: str) -> tuple[Outcome, ...]:
    """One outcome per instance, in the order of their ids; none where a run has several training draws."""
    file = folder / "per_instance_stats.json"
    if not file.is_file():
        return ()
    scores: dict[str, float] = {}
    for i, entry in enumerate(sequence(read_json(file), str(file))):
        instance_statistics = mapping(entry, f"{file}[{i}]")
        if instance_statistics.get("perturbation"):
            continue
        place = f"{file}[{i}].stats"
        for one_statistic in listing(instance_statistics.get("stats"), place):
            statistic = mapping(one_statistic, place)
            name = part(statistic.get("name"), f"{place}.name")
            if (
                name.get("name") == metric
                and name.get("split", split) == split
                and not name.get("perturbation")
            ):
                instance = str(instance_statistics.get("instance_id"))
                if instance in scores:
                    return ()
                scores[instance] = number(statistic.get("mean"), f"{file}[{i}].{metric}")
    return tuple(
        Outcome(
            item=i,
            item_digest=digest(instance),
            score=scores[instance],
            correct=bool(scores[instance]) if scores[instance] in (0.0, 1.0) else None,
            prediction="",
            gold="",
        )
        for i, instance in enumerate(sorted(scores))
    )
