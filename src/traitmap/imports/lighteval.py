"""Results of lighteval, as it writes them: ``results_<time>.json``, and its details of every item in Parquet.

Two layouts of details are known. Since July 2025 a row has ``doc``, ``model_response`` and ``metric``; before
that ``example``, ``predictions``, ``choices``, ``gold_index``, ``gold`` and ``metrics``, until February 2025
each of them as the text of a Python literal.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    parquet_rows,
    part,
    read_json,
    sortable_date,
    text,
    whole_characters,
)

KIND = "lighteval"
# Of a model's configuration, what tells it apart from others of its name.
_IDENTITY = (
    "revision",
    "subfolder",
    "quantization",
    "quantization_config",
    "load_in_4bit",
    "load_in_8bit",
    "dtype",
)
_STAMP = re.compile(r"results_(.+)")
_SHOTS = re.compile(r"\d{1,4}")
_DETAILS = ({"doc", "metric", "model_response"}, {"example", "metrics", "predictions"})
_LONGEST = 1 << 20  # characters of a literal in a cell


def is_lighteval(content: Any) -> bool:
    """Whether a JSON file holds results of lighteval."""
    return isinstance(content, Mapping) and "config_general" in content and "results" in content


def read_lighteval(path: Path, content: Any = None) -> list[Evaluation]:
    """Every (task, metric) of one file; averages over tasks (``all``, ``_average``) are left out."""
    content = mapping(read_json(path) if content is None else content, str(path))
    general = mapping(content["config_general"], f"{path}, config_general")
    model, adapter, variant = _model(general, path)
    stamp = _STAMP.match(path.stem)  # start_time and end_time count from when the machine was started
    configs = part(content.get("config_tasks"), f"{path}, config_tasks")
    evaluations: list[Evaluation] = []
    for name, entry in mapping(content["results"], f"{path}, results").items():
        task, shots = _task(name)
        if name == "all" or task.endswith(":_average"):
            continue
        scores = mapping(entry, f"{path}, results.{name}")
        setting = _setting(content, general, name, shots, path)
        key = name if name in configs or shots is None else name.rpartition("|")[0]
        config = part(configs.get(key), f"{path}, config_tasks.{key}")
        higher = _directions(config, f"{path}, config_tasks.{key}.metric")
        items = _items(path, name, stamp.group(1)) if stamp else []
        for metric in scores:
            if metric.endswith("_stderr"):
                continue
            place = f"{path}, results.{name}.{metric}"
            outcomes = _outcomes(items, metric)
            evaluations.append(
                Evaluation(
                    place=place,
                    kind=KIND,
                    model=model,
                    adapter=adapter,
                    task=task,
                    metric=metric,
                    filter="none",
                    value=number(scores[metric], place),
                    stderr=number(scores.get(f"{metric}_stderr"), f"{place}_stderr"),
                    n=count(
                        config.get("effective_num_docs"), f"{path}, config_tasks.{key}.effective_num_docs"
                    )
                    or len(outcomes),
                    higher_is_better=higher.get(metric),
                    setting=setting,
                    outcomes=outcomes,
                    texts=tuple(item.text for item in items) if outcomes else (),
                    date=sortable_date(stamp.group(1)) if stamp else "",
                    variant=variant,
                )
            )
    if not evaluations:
        raise MatrixError(f"{path}, results: holds no task with a number; the file is empty or damaged")
    return evaluations


def _task(name: str) -> tuple[str, int | None]:
    """``suite|task|shots`` or, in later versions, ``task|shots``."""
    parts = name.split("|")
    shots = int(parts[-1]) if len(parts) > 1 and _SHOTS.fullmatch(parts[-1]) else None
    names = parts[:-1] if shots is not None else parts
    return names[-1] if len(names) <= 2 else "|".join(names[1:]), shots


def _directions(config: Mapping[str, Any], place: str) -> dict[str, bool]:
    """metric -> whether higher is better, as the task's own configuration says it."""
    directions: dict[str, bool] = {}
    for entry in listing(config.get("metric") or config.get("metrics"), place):
        if not isinstance(entry, Mapping):
            continue
        name, higher = entry.get("metric_name"), entry.get("higher_is_better")
        if isinstance(higher, Mapping):  # several numbers of one metric, each with its own direction
            directions |= {str(key): value for key, value in higher.items() if isinstance(value, bool)}
        elif isinstance(higher, bool):
            directions |= dict.fromkeys(map(str, name if isinstance(name, list) else [name]), higher)
    return directions


def _model(general: Mapping[str, Any], path: Path) -> tuple[str, str | None, dict[str, str]]:
    config = general.get("model_config")
    config = config if isinstance(config, Mapping) else {}
    name = text(general.get("model_name") or config.get("model_name"), f"{path}, config_general.model_name")
    base = config.get("base_model")
    plain = {key: value for key, value in config.items() if key in _IDENTITY}
    variant = model_variant({**plain, "model_sha": general.get("model_sha")})
    if config.get("adapter_weights") and isinstance(base, str) and base:
        return base, name, variant
    return name, None, variant


def _setting(
    content: Mapping[str, Any], general: Mapping[str, Any], name: str, shots: int | None, path: Path
) -> dict[str, Any]:
    summary = part(content.get("summary_tasks"), f"{path}, summary_tasks").get(name)
    hashes = summary.get("hashes") if isinstance(summary, Mapping) else None
    return known_setting(
        num_fewshot=shots,
        limit=general.get("max_samples"),
        fewshot_seed=general.get("num_fewshot_seeds") if shots else None,
        version=part(content.get("versions"), f"{path}, versions").get(name),
        template=hashes.get("hash_full_prompts") if isinstance(hashes, Mapping) else None,
    )


# Details.


@dataclass(frozen=True)
class DetailItem:
    """One document with its answer. scores: metric -> its value on this document, of those that have one."""

    text: TaskText
    digest: str
    scores: Mapping[str, float]
    prediction: str
    gold: str
    logprobs: tuple[float, ...] | None
    generated: str | None


def is_details(columns: Sequence[str]) -> bool:
    """Whether a Parquet file with these columns holds details of lighteval."""
    return any(layout <= set(columns) for layout in _DETAILS)


def _items(path: Path, name: str, stamp: str) -> list[DetailItem]:
    """The details of one task, from where lighteval puts them for these results; empty where there are none.

    They lie in a folder of the results' time, under ``details`` where the results lie under ``results``, and
    in a dataset of the hub beside them.
    """
    beside = path.parent
    folders = [beside / stamp, beside]
    if "results" in beside.parts:
        at = len(beside.parts) - 1 - beside.parts[::-1].index("results")
        folders.insert(0, Path(*beside.parts[:at], "details", *beside.parts[at + 1 :], stamp))
    wanted = {f"details_{spelling}_{stamp}.parquet" for spelling in (name, name.replace("|", "_"))}
    for folder in folders:
        # looked for among what lies there: the task's name comes from the file and may be no file name
        file = next((entry for entry in _entries(folder) if entry.name in wanted and entry.is_file()), None)
        if file is not None:
            return read_details(file)
    return []


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (OSError, ValueError):
        return []


def read_details(path: Path) -> list[DetailItem]:
    """The items of one file of details, in its order. MatrixError where it is none, or is damaged."""
    rows = parquet_rows(path)
    if not rows or not is_details(tuple(rows[0])):
        raise MatrixError(f"{path}: holds no details of lighteval; is the file whole?")
    read = _new_item if "model_response" in rows[0] else _old_item
    return [read(f"{path}, row {number}", row) for number, row in enumerate(rows)]


def _new_item(place: str, row: Mapping[str, Any]) -> DetailItem:
    doc = part(row["doc"], f"{place}, doc")
    response = part(row["model_response"], f"{place}, model_response")
    answers = listing(response.get("text_post_processed") or response.get("text"), f"{place}, text")
    return _item(
        place,
        query=doc.get("query"),
        choices=doc.get("choices"),
        gold_index=doc.get("gold_index"),
        golds=None,
        answers=answers,
        logprobs=response.get("logprobs"),
        metrics=row["metric"],
    )


def _old_item(place: str, row: Mapping[str, Any]) -> DetailItem:
    cells = {key: _literal(value) if key != "example" else value for key, value in row.items()}
    predictions = listing(cells["predictions"], f"{place}, predictions")
    numbers = [entry[0] if isinstance(entry, list | tuple) and entry else entry for entry in predictions]
    scored = bool(numbers) and all(isinstance(entry, int | float) for entry in numbers)
    return _item(
        place,
        query=cells.get("example"),
        choices=cells.get("choices"),
        gold_index=cells.get("gold_index"),
        golds=cells.get("gold"),
        answers=[] if scored else numbers,
        logprobs=numbers if scored else None,
        metrics=cells["metrics"],
    )


def _literal(value: Any) -> Any:
    """What the text of a Python literal says; anything else as it is."""
    if not isinstance(value, str) or not value or value[0] not in "[{(" or len(value) > _LONGEST:
        return value
    try:
        return whole_characters(ast.literal_eval(value))
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return value


def _item(
    place: str,
    *,
    query: Any,
    choices: Any,
    gold_index: Any,
    golds: Any,
    answers: Sequence[Any],
    logprobs: Any,
    metrics: Any,
) -> DetailItem:
    """An item of either layout. choices: of generations they are the references."""
    options = [str(choice).strip() for choice in listing(choices, f"{place}, choices")]
    places = [gold_index] if isinstance(gold_index, int) else listing(gold_index, f"{place}, gold_index")
    golds = [str(gold).strip() for gold in listing(golds, f"{place}, gold")] or [
        options[at] for at in places if isinstance(at, int) and 0 <= at < len(options)
    ]
    known = [number(value, f"{place}, logprobs") for value in listing(logprobs, f"{place}, logprobs")]
    scored = len(known) == len(options) > 1 and all(map(isfinite, known))
    if scored:
        prediction = options[max(range(len(known)), key=known.__getitem__)]
    else:
        prediction = str(answers[0]).strip() if answers and answers[0] is not None else ""
    question = "" if query is None else str(query)
    gold = " | ".join(golds)
    scores = {}
    for name, value in part(metrics, f"{place}, metrics").items():
        if isinstance(value, int | float):
            scores[str(name)] = number(value, f"{place}, metrics.{name}")
    return DetailItem(
        text=TaskText(question, gold, tuple(options) if scored else (), gold if scored else None),
        digest=content_digest([question, options]),
        scores=scores,
        prediction=prediction,
        gold=gold,
        logprobs=tuple(known) if scored else None,
        generated=None if scored or not answers else str(answers[0]),
    )


def _outcomes(items: Sequence[DetailItem], metric: str) -> tuple[Outcome, ...]:
    """The outcomes by one metric; empty where some item has no number of it."""
    if any(metric not in item.scores for item in items):
        return ()
    return tuple(
        Outcome(
            item=place,
            item_digest=item.digest,
            score=score,
            correct=bool(score) if score in (0.0, 1.0) else None,
            prediction=item.prediction,
            gold=item.gold,
            choice_logprobs=item.logprobs,
            text=item.generated,
        )
        for place, item in enumerate(items)
        for score in (item.scores[metric],)
    )
