"""Results of lighteval, as it writes them: ``results_<time>.json``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from traitmap.errors import MatrixError
from traitmap.imports.reading import Evaluation, known_setting, mapping, number, part, read_json, text

KIND = "lighteval"


def is_lighteval(content: Any) -> bool:
    """Whether a JSON file holds results of lighteval."""
    return isinstance(content, Mapping) and "config_general" in content and "results" in content


def read_lighteval(path: Path, content: Any = None) -> list[Evaluation]:
    """Every (task, metric) of one file; averages over tasks (``all``, ``_average``) are left out."""
    content = mapping(read_json(path) if content is None else content, str(path))
    general = mapping(content["config_general"], f"{path}, config_general")
    model, adapter = _model(general, path)
    found: list[Evaluation] = []
    for name, given in mapping(content["results"], f"{path}, results").items():
        task, shots = _task(name)
        if name == "all" or task.endswith(":_average"):
            continue
        scores = mapping(given, f"{path}, results.{name}")
        setting = _setting(content, general, name, shots, path)
        for metric in scores:
            if metric.endswith("_stderr"):
                continue
            place = f"{path}, results.{name}.{metric}"
            found.append(
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
                    setting=setting,
                    date=str(general.get("end_time") or path.stem),
                )
            )
    if not found:
        raise MatrixError(f"{path}, results: holds no task with a number; the file is empty or damaged")
    return found


def _task(name: str) -> tuple[str, int | None]:
    """``suite|task|shots`` or, in later versions, ``task|shots``."""
    parts = name.split("|")
    shots = int(parts[-1]) if len(parts) > 1 and parts[-1].isdigit() else None
    names = parts[:-1] if shots is not None else parts
    return names[-1] if len(names) <= 2 else "|".join(names[1:]), shots


def _model(general: Mapping[str, Any], path: Path) -> tuple[str, str | None]:
    config = general.get("model_config")
    config = config if isinstance(config, Mapping) else {}
    name = text(general.get("model_name") or config.get("model_name"), f"{path}, config_general.model_name")
    base = config.get("base_model")
    if config.get("adapter_weights") and isinstance(base, str) and base:
        return base, name
    return name, None


def _setting(
    content: Mapping[str, Any], general: Mapping[str, Any], name: str, shots: int | None, path: Path
) -> dict[str, Any]:
    summary = part(content.get("summary_tasks"), f"{path}, summary_tasks").get(name)
    hashes = summary.get("hashes") if isinstance(summary, Mapping) else None
    return known_setting(
        num_fewshot=shots,
        limit=general.get("max_samples"),
        version=part(content.get("versions"), f"{path}, versions").get(name),
        template=hashes.get("hash_full_prompts") if isinstance(hashes, Mapping) else None,
    )
