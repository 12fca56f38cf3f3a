"""Results of lighteval, as it writes them: ``results_<time>.json``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from traitmap.errors import MatrixError
from traitmap.imports.reading import (
    Evaluation,
    count,
    known_setting,
    listing,
    mapping,
    model_variant,
    number,
    part,
    read_json,
    sortable_date,
    text,
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
        for metric in scores:
            if metric.endswith("_stderr"):
                continue
            place = f"{path}, results.{name}.{metric}"
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
                    ),
                    higher_is_better=higher.get(metric),
                    setting=setting,
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
    shots = int(parts[-1]) if len(parts) > 1 and parts[-1].isdigit() else None
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
