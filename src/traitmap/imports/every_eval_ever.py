"""Records of Every Eval Ever (schema 0.2), with their instances where they lie beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any

from traitmap.data.records import Outcome
from traitmap.data.texts import TaskText
from traitmap.errors import MatrixError
from traitmap.imports.reading import (
    Evaluation,
    content_digest,
    count,
    known_setting,
    listing,
    mapping,
    model_variant,
    number,
    part,
    read_json,
    read_lines,
    sequence,
    sortable_date,
    text,
)

KIND = "Every Eval Ever"
# Of a model's details, what tells it apart from others of its name.
_IDENTITY = ("revision", "quantization", "precision", "subfolder", "checkpoint")


def is_every_eval_ever(content: Any) -> bool:
    """Whether a JSON file is a record of Every Eval Ever."""
    return isinstance(content, Mapping) and "evaluation_results" in content and "model_info" in content


def read_every_eval_ever(path: Path, content: Any = None) -> list[Evaluation]:
    """Every result of one record."""
    content = mapping(read_json(path) if content is None else content, str(path))
    about = mapping(content["model_info"], f"{path}, model_info")
    details = about.get("additional_details") or {}
    name = text(about.get("id") or about.get("name"), f"{path}, model_info.id")
    base = details.get("base_model") if isinstance(details, Mapping) else None
    instances = _instances(path, content)
    evaluations = [
        _evaluation(path, i, mapping(evaluation, f"{path}, evaluation_results[{i}]"), content, instances)
        for i, evaluation in enumerate(sequence(content["evaluation_results"], f"{path}, evaluation_results"))
    ]
    if not evaluations:
        raise MatrixError(f"{path}, evaluation_results: is empty; the record holds no score")
    if base:
        seed = str(details.get("seed", ""))
        if seed.isdigit() and details.get("source"):
            return [
                replace(evaluation, model=str(base), adapter=str(details["source"]), seed=int(seed))
                for evaluation in evaluations
            ]
        return [replace(evaluation, model=str(base), adapter=name) for evaluation in evaluations]
    return [replace(evaluation, model=name) for evaluation in evaluations]


def _evaluation(
    path: Path,
    index: int,
    result: Mapping[str, Any],
    content: Mapping[str, Any],
    instances: Mapping[str, tuple[tuple[Outcome, TaskText], ...]],
) -> Evaluation:
    place = f"{path}, evaluation_results[{index}]"
    config = mapping(result.get("metric_config"), f"{place}.metric_config")
    details = mapping(result.get("score_details"), f"{place}.score_details")
    where = f"{place}.score_details.uncertainty"
    uncertainty = part(details.get("uncertainty"), where)
    error = part(uncertainty.get("standard_error"), f"{where}.standard_error").get("value")
    task = text(result.get("evaluation_name"), f"{place}.evaluation_name")
    more = part(config.get("additional_details"), f"{place}.metric_config.additional_details")
    lower = config.get("lower_is_better")
    low = number(config.get("min_score"), f"{place}.metric_config.min_score")
    high = number(config.get("max_score"), f"{place}.metric_config.max_score")
    about = part(content.get("model_info"), f"{path}, model_info").get("additional_details")
    return Evaluation(
        place=f"{place}.score_details.score",
        kind=KIND,
        model="",
        adapter=None,
        task=task,
        metric=str(config.get("metric_name") or more.get("metric") or "score"),
        filter=str(more.get("filter") or "none"),
        value=number(details.get("score"), f"{place}.score_details.score"),
        stderr=number(error, f"{where}.standard_error.value"),
        n=count(uncertainty.get("num_samples"), f"{where}.num_samples"),
        higher_is_better=not lower if isinstance(lower, bool) else None,
        setting=_setting(result, more, content, place),
        outcomes=tuple(outcome for outcome, _ in instances.get(task, ())),
        texts=tuple(item for _, item in instances.get(task, ())),
        date=sortable_date(content.get("evaluation_timestamp") or content.get("retrieved_timestamp")),
        variant=model_variant(
            {key: about[key] for key in _IDENTITY if about.get(key)} if isinstance(about, Mapping) else {}
        ),
        scale=(low, high) if isfinite(low) and isfinite(high) else None,
    )


def _setting(
    result: Mapping[str, Any], more: Mapping[str, Any], content: Mapping[str, Any], place: str
) -> dict[str, Any]:
    generation = part(result.get("generation_config"), f"{place}.generation_config")
    arguments = part(generation.get("generation_args"), f"{place}.generation_config.generation_args")
    settings = {key: value for key, value in arguments.items() if key != "execution_command"}
    library = part(content.get("eval_library"), f"{place}, eval_library")
    return known_setting(
        num_fewshot=more.get("num_fewshot"),
        limit=more.get("limit"),
        version=more.get("version"),
        template=more.get("template"),
        generation=content_digest([settings, generation.get("additional_details")], 12)
        if generation
        else None,
        library=library.get("name"),
    )


def _instances(path: Path, content: Mapping[str, Any]) -> dict[str, tuple[tuple[Outcome, TaskText], ...]]:
    """task -> outcomes with their texts, by sample_id, from the JSONL file that the record names."""
    details = content.get("detailed_evaluation_results")
    if (
        not isinstance(details, Mapping)
        or details.get("format", "jsonl") != "jsonl"
        or not details.get("file_path")
    ):
        return {}
    name = Path(str(details["file_path"])).name  # of a file that may lie elsewhere now, or be no name at all
    file = next((entry for entry in path.parent.iterdir() if entry.name == name and entry.is_file()), None)
    if file is None:
        return {}

    def order(name: str) -> tuple[int, str]:
        return (int(name), "") if name.isdigit() else (-1, name)

    by_task: dict[str, dict[str, tuple[Outcome, TaskText]]] = {}
    for place, row in read_lines(file):
        row = mapping(row, place)
        name = text(row.get("evaluation_name"), f"{place}, evaluation_name")
        sample = text(row.get("sample_id"), f"{place}, sample_id")
        outcome = _outcome(place, row, sample)
        by_task.setdefault(name, {})[sample] = outcome, _text(place, row, outcome.gold)
    return {
        name: tuple(
            (replace(items[key][0], item=i), items[key][1]) for i, key in enumerate(sorted(items, key=order))
        )
        for name, items in by_task.items()
    }


def _text(place: str, row: Mapping[str, Any], gold: str) -> TaskText:
    """What the item says."""
    question = mapping(row.get("input"), f"{place}, input")
    choices = tuple(str(choice) for choice in listing(question.get("choices"), f"{place}, input.choices"))
    raw = question.get("raw")
    return TaskText("" if raw is None else str(raw), gold, choices, gold if choices else None)


def _outcome(place: str, row: Mapping[str, Any], sample: str) -> Outcome:
    score = mapping(row.get("evaluation"), f"{place}, evaluation")
    question = mapping(row.get("input"), f"{place}, input")
    value = number(score.get("score"), f"{place}, evaluation.score")
    raw = listing(part(row.get("output"), f"{place}, output").get("raw"), f"{place}, output.raw")
    attribution = listing(row.get("answer_attribution"), f"{place}, answer_attribution")
    last = part(attribution[-1], f"{place}, answer_attribution") if attribution else {}
    answer = last.get("extracted_value") if attribution else (raw[0] if raw else "")
    tokens = part(row.get("token_usage"), f"{place}, token_usage").get("output_tokens")
    more = part(row.get("metadata"), f"{place}, metadata")
    reference = listing(question.get("reference"), f"{place}, input.reference")
    return Outcome(
        item=0,
        item_digest=str(
            row.get("sample_hash") or content_digest([sample, question.get("raw"), question.get("reference")])
        ),
        score=value,
        correct=bool(value) if value in (0.0, 1.0) else None,
        prediction=str(answer or ""),
        gold=" | ".join(map(str, reference)),
        text=str(raw[0]) if raw and not question.get("choices") else None,
        parsed=str(more.get("parsed", "true")).lower() != "false",
        output_tokens=count(tokens, f"{place}, token_usage.output_tokens"),
        stopped=None,
    )
