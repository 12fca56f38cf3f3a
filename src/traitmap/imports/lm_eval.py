"""Results and samples of lm-evaluation-harness, of 0.3 and 0.4, as its command line writes them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from traitmap.data.records import Outcome
from traitmap.data.texts import TaskText
from traitmap.errors import MatrixError
from traitmap.imports.reading import (
    Evaluation,
    content_digest,
    known_setting,
    listing,
    mapping,
    model_variant,
    number,
    part,
    read_json,
    read_lines,
    sortable_date,
    text,
)
from traitmap.metrics import direction

KIND = "lm-evaluation-harness"
_STAMP = re.compile(r"_(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(?:\.\d+)?)\.json$")
_NO_METRIC = frozenset({"alias", "name", "sample_len", "samples"})
_INVALID = "[invalid]"  # what lm-eval's filters give where they find no answer


def is_lm_eval(content: Any) -> bool:
    """Whether a JSON file holds results of lm-evaluation-harness."""
    return (
        isinstance(content, Mapping)
        and "results" in content
        and "versions" in content
        and "config" in content
    )


def read_lm_eval(path: Path, content: Any = None) -> list[Evaluation]:
    """Every (task, metric, filter) of one results file, with its samples where they lie beside it.

    Groups are left out, since their tasks stand for themselves.
    """
    content = mapping(read_json(path) if content is None else content, str(path))
    results = mapping(content.get("results"), f"{path}, results")
    model, adapter, seed, variant = _model(content, path)
    stamp = _STAMP.search(path.name)
    evaluations: list[Evaluation] = []
    # groups and their tags stand in ``results`` too, and have subtasks or no version
    subtasks_of = part(content.get("group_subtasks"), f"{path}, group_subtasks")
    groups = {name for name, subtasks in subtasks_of.items() if subtasks}
    groups |= set(part(content.get("groups"), f"{path}, groups"))
    for task in (name for name in results if name not in groups):
        scores = mapping(results[task], f"{path}, results.{task}")
        setting = _setting(content, task, path)
        directions = f"{path}, higher_is_better"
        stated = part(part(content.get("higher_is_better"), directions).get(task), f"{directions}.{task}")
        samples = _samples(path, task, stamp.group(1) if stamp else None)
        for metric, filter_name, key in _metrics(scores):
            place = f"{path}, results.{task}.{key}"
            rows = samples.get(filter_name, [])
            outcomes: tuple[Outcome, ...] = ()
            if all(isinstance(row.get(metric), int | float) for _, row in rows):
                outcomes = tuple(_outcome(row_place, row, metric) for row_place, row in rows)
            higher, origin = direction(metric, stated.get(metric))
            evaluations.append(
                Evaluation(
                    place=place,
                    kind=KIND,
                    model=model,
                    adapter=adapter,
                    task=task,
                    metric=metric,
                    filter=filter_name,
                    value=number(scores[key], place),
                    stderr=number(scores.get(key.replace(metric, f"{metric}_stderr", 1)), f"{place}_stderr"),
                    n=_items(content, scores, task, path) or len(outcomes),
                    higher_is_better=None if origin == "assumed" else higher,
                    setting=setting,
                    outcomes=outcomes,
                    texts=_texts(rows, outcomes),
                    seed=seed,
                    date=sortable_date(stamp.group(1) if stamp else content.get("date")),
                    variant=variant,
                )
            )
    if not evaluations:
        raise MatrixError(f"{path}, results: holds no task with a number; the file is empty or damaged")
    return evaluations


def _metrics(scores: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(metric, filter, key): ``acc,none`` since 0.4, ``acc`` before."""
    for key in scores:
        metric, _, filter_name = str(key).partition(",")
        if metric not in _NO_METRIC and not metric.endswith("_stderr") and scores[key] != " ":
            yield metric, filter_name or "none", str(key)


def _model(content: Mapping[str, Any], path: Path) -> tuple[str, str | None, int | None, dict[str, str]]:
    """The base model, the adapter, its seed and the variant, out of model_args as text, object, or absent."""
    config = mapping(content["config"], f"{path}, config")
    model_args = config.get("model_args")
    if isinstance(model_args, str):
        pairs = (part.partition("=") for part in model_args.split(",") if "=" in part)
        model_args = {key.strip(): value.strip() for key, _, value in pairs}
    if model_args is not None and not isinstance(model_args, Mapping):
        raise MatrixError(f"{path}, config.model_args: is {model_args!r}; text, an object or null are legal")
    arguments = dict(model_args or {})
    named_by = next((key for key in ("pretrained", "model", "load") if arguments.get(key)), "")
    name = arguments.get(named_by) or content.get("model_name") or config.get("model")
    adapter = arguments.get("peft") or arguments.get("delta") or arguments.get("lora_local_path")
    base = text(name, f"{path}, config.model_args.pretrained")
    variant = model_variant(arguments, named_by, "peft", "delta", "lora_local_path")
    ours = config.get("traitmap")  # an export of ours tells source and seed apart
    if adapter and isinstance(ours, Mapping) and isinstance(ours.get("seed"), int):
        return base, str(ours.get("source") or adapter), int(ours["seed"]), variant
    return base, str(adapter) if adapter else None, None, variant


def _setting(content: Mapping[str, Any], task: str, path: Path) -> dict[str, Any]:
    """What must agree between models: how the task was asked."""

    def told(key: str) -> Any:
        return part(content.get(key), f"{path}, {key}").get(task)

    config = part(content.get("config"), f"{path}, config")
    config_of_task = part(told("configs"), f"{path}, configs.{task}")
    prompt = {
        key: config_of_task.get(key)
        for key in ("doc_to_text", "doc_to_target", "doc_to_choice", "description")
    }
    shots = told("n-shot")
    shots = config_of_task.get("num_fewshot") if shots is None else shots
    limit = config.get("limit")
    return known_setting(
        num_fewshot=config.get("num_fewshot") if shots is None else shots,
        limit=limit,
        version=told("versions"),
        template=content_digest(prompt, 12) if any(prompt.values()) else None,
        generation=config_of_task.get("generation_kwargs"),
        chat_template=content.get("chat_template_sha"),
        system_instruction=content.get("system_instruction_sha"),
        fewshot_as_multiturn=content.get("fewshot_as_multiturn", config.get("fewshot_as_multiturn")),
        fewshot_seed=config.get("fewshot_seed") if shots else None,
        task_hash=told("task_hashes") or None,
    )


def _items(content: Mapping[str, Any], scores: Mapping[str, Any], task: str, path: Path) -> int:
    place = f"{path}, n-samples"
    counted = part(part(content.get("n-samples"), place).get(task), f"{place}.{task}")
    n = counted.get("effective", scores.get("sample_len"))
    return n if isinstance(n, int) and 0 <= n < 2**31 else 0


def _samples(path: Path, task: str, stamp: str | None) -> dict[str, list[tuple[str, Mapping[str, Any]]]]:
    """filter -> rows of the samples file beside the results; one line per document and filter."""
    file_name = f"samples_{task}_{stamp}.jsonl"
    # looked for among what lies there: the task's name comes from the file and may be no file name
    file = next(
        (entry for entry in path.parent.iterdir() if entry.name == file_name and entry.is_file()), None
    )
    if stamp is None or file is None:
        return {}
    by_filter: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for place, row in read_lines(file):
        row = mapping(row, place)
        if not isinstance(row.get("doc_id"), int) or abs(row["doc_id"]) >= 2**31:
            raise MatrixError(f"{place}, doc_id: is {row.get('doc_id')!r}, not a whole number")
        by_filter.setdefault(str(row.get("filter", "none")), []).append((place, row))
    return {name: sorted(rows, key=lambda one: int(one[1]["doc_id"])) for name, rows in by_filter.items()}


def _texts(
    rows: Sequence[tuple[str, Mapping[str, Any]]], outcomes: Sequence[Outcome]
) -> tuple[TaskText, ...]:
    """Context, gold answer and choices of every document, where the samples tell the context."""
    texts = []
    for (_, row), outcome in zip(rows, outcomes, strict=False):
        arguments = _arguments(row)
        if not arguments or not arguments[0] or not isinstance(arguments[0][0], str):
            return ()
        choices = tuple(_choices(row))
        texts.append(TaskText(arguments[0][0], outcome.gold, choices, outcome.gold if choices else None))
    return tuple(texts)


def _outcome(place: str, row: Mapping[str, Any], metric: str) -> Outcome:
    score = number(row[metric], f"{place}, {metric}")
    choices = _choices(row)
    logprobs = _logprobs(row) if choices else None
    gold = str(row.get("target", ""))
    if choices and gold.isdigit() and gold not in choices and int(gold) < len(choices):
        gold = choices[int(gold)]
    filtered = listing(row.get("filtered_resps"), f"{place}, filtered_resps")
    answer = filtered[0] if filtered else ""
    prediction = str(answer if not isinstance(answer, list) or not answer else answer[0])
    generated = None
    if choices and logprobs:
        sizes = (
            [len(choice.encode()) or 1 for choice in choices] if metric == "acc_norm" else [1] * len(choices)
        )
        best = max(range(len(choices)), key=lambda i: logprobs[i] / sizes[i])
        prediction = choices[best]
    else:
        generated = _generated(row)
    return Outcome(
        item=int(row["doc_id"]),
        item_digest=str(row.get("doc_hash") or content_digest(row.get("doc"))),
        score=score,
        correct=bool(score) if score in (0.0, 1.0) else None,
        prediction=prediction.strip(),
        gold=gold.strip(),
        choice_logprobs=logprobs,
        text=generated,
        parsed=answer != _INVALID,
    )


def _arguments(row: Mapping[str, Any]) -> list[list[Any]]:
    """Arguments of every request of a document: an object of objects since 0.4.3, lists before."""
    arguments = row.get("arguments")
    if isinstance(arguments, Mapping):
        arguments = [
            list(request.values()) if isinstance(request, Mapping) else request
            for request in arguments.values()
        ]
    return (
        [list(request) for request in arguments if isinstance(request, list | tuple)]
        if isinstance(arguments, list)
        else []
    )


def _choices(row: Mapping[str, Any]) -> list[str]:
    arguments = _arguments(row)
    if len(arguments) < 2 or not all(
        len(request) > 1 and isinstance(request[1], str) for request in arguments
    ):
        return []
    return [str(argument[1]).strip() for argument in arguments]


def _logprobs(row: Mapping[str, Any]) -> tuple[float, ...] | None:
    """Log-probability of each choice, in nats."""
    values = []
    for response in row["resps"] if isinstance(row.get("resps"), list) else ():
        while isinstance(response, list) and response:
            response = response[0]
        try:
            values.append(float(response))
        except (TypeError, ValueError, OverflowError):
            return None
    return tuple(values) if len(values) == len(_choices(row)) and all(map(isfinite, values)) else None


def _generated(row: Mapping[str, Any]) -> str | None:
    response: Any = row.get("resps")
    while isinstance(response, list) and response:
        response = response[0]
    return response if isinstance(response, str) else None
