"""What lies beside an adapter or a model already: results of harnesses, the trainer's log, a model card.

It is shown as it was found, with its origin, and never mixed with what is measured here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from math import isfinite
from pathlib import Path
from typing import Any

import yaml

from traitmap.errors import MatrixError
from traitmap.imports.discovery import find_evaluations
from traitmap.imports.reading import Evaluation, read_json

STATE = "trainer_state.json"
CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_DEPTHS = ("*.", "*/*.", "*/*/*.")  # lm-eval writes OUTPUT/MODEL/results_....json
_MOST = 8  # results of one folder that are told
_NOT_RESULTS = frozenset(
    {
        "adapter_config.json",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    | {"special_tokens_map.json", "training_args.json", STATE}
)


def found_beside(folder: Path) -> tuple[str, ...]:
    """Sentences on what lies in a folder of an adapter, a model or a checkpoint; empty where nothing does.

    Nothing raises: what cannot be read is told.
    """
    if not folder.is_dir():
        return ()
    return (*_training(folder), *_results(folder), *_card(folder))


def checkpoints_in(folder: Path) -> tuple[Path, ...]:
    """Folders ``checkpoint-*`` in the order of their steps."""
    named = [
        (int(match[1]), path)
        for path in folder.glob("checkpoint-*")
        if (match := CHECKPOINT.fullmatch(path.name))
    ]
    return tuple(path for _, path in sorted(named) if path.is_dir())


def evaluation_losses(folder: Path) -> dict[int, float]:
    """Step -> evaluation loss, as the latest ``trainer_state.json`` in or under a folder has it."""
    states = [folder / STATE, *(place / STATE for place in checkpoints_in(folder))]
    losses: dict[int, float] = {}
    for state in states:
        for entry in _log(state):
            step, loss = entry.get("step"), entry.get("eval_loss")
            if isinstance(step, int) and isinstance(loss, int | float) and isfinite(loss):
                losses[step] = float(loss)
    return losses


def _log(state: Path) -> list[Mapping[str, Any]]:
    try:
        content = read_json(state)
    except MatrixError:
        return []
    log = content.get("log_history") if isinstance(content, Mapping) else None
    return [entry for entry in log if isinstance(entry, Mapping)] if isinstance(log, list) else []


def _training(folder: Path) -> Iterator[str]:
    state = folder / STATE
    if not state.is_file():
        return
    log = _log(state)
    trained = [entry["loss"] for entry in log if isinstance(entry.get("loss"), int | float)]
    judged = [
        (entry["step"], entry["eval_loss"]) for entry in log if "eval_loss" in entry and "step" in entry
    ]
    if trained:
        yield f"{STATE}: training loss {trained[0]:.4g} -> {trained[-1]:.4g} over {len(trained)} entries"
    if judged:
        step, loss = min(judged, key=lambda pair: float(pair[1]))
        rising = " and rises after it" if step != judged[-1][0] else ""
        yield f"{STATE}: evaluation loss is lowest at step {step} ({float(loss):.4g}){rising}"
    try:
        best = read_json(state).get("best_model_checkpoint")
    except (MatrixError, AttributeError):
        best = None
    if best:
        yield f"{STATE}: the trainer's best checkpoint is {Path(str(best)).name}"


def _results(folder: Path) -> Iterator[str]:
    """Results of harnesses in files that are no part of the model itself."""
    files = [path for depth in _DEPTHS for ending in ("json", "eval") for path in folder.glob(depth + ending)]
    files = [path for path in sorted(files) if not _belongs_to_model(path.relative_to(folder))]
    evaluations: list[Evaluation] = []
    for file in files:
        try:
            evaluations += find_evaluations([file]).evaluations
        except MatrixError:
            continue
    for one in evaluations[:_MOST]:
        error = f" ± {one.stderr:.3f}" if isfinite(one.stderr) else ""
        items = f", {one.n} items" if one.n else ""
        metric = one.metric if one.filter in ("none", "") else f"{one.metric} ({one.filter})"
        origin = f"of {one.adapter or one.model}, {Path(one.place.split(',')[0]).name}"
        yield f"{one.kind}: {one.task} {metric} {one.value:.3f}{error}{items} ({origin})"
    if len(evaluations) > _MOST:
        yield f"and {len(evaluations) - _MOST} more results"


def _belongs_to_model(path: Path) -> bool:
    name = path.name
    known = name in _NOT_RESULTS or name.endswith(".index.json") or name.startswith("samples_")
    return known or CHECKPOINT.fullmatch(path.parts[0]) is not None


def _card(folder: Path) -> Iterator[str]:
    """What the head of a model card says: licence, data, and results that it claims."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return
    match = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    try:
        head = yaml.safe_load(match[1]) if match else None
    except yaml.YAMLError:
        head = None
    if not isinstance(head, Mapping):
        return
    facts = [f"{key} {head[key]}" for key in ("license", "datasets", "base_model") if head.get(key)]
    if facts:
        yield f"model card: {', '.join(facts)}"
    for model in head.get("model-index") or ():
        for result in (model.get("results") or ()) if isinstance(model, Mapping) else ():
            data = (result.get("dataset") or {}).get("name", "?")
            for metric in result.get("metrics") or ():
                yield f"model card claims: {data} {metric.get('type', '?')} {metric.get('value', '?')}"
