"""Logs of inspect_ai, ``.json`` and ``.eval``; only logs whose status is success."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import nan
from pathlib import Path
from typing import Any

import pyarrow as pa

from traitmap.data.records import Outcome
from traitmap.errors import MatrixError
from traitmap.imports.reading import (
    Evaluation,
    UnfinishedError,
    content_digest,
    count,
    known_setting,
    listing,
    mapping,
    model_variant,
    number,
    parse_json,
    part,
    read_json,
    sequence,
    sortable_date,
    text,
)

KIND = "inspect_ai"
_LETTERS = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}  # correct, partial, incorrect, no answer
_ZSTANDARD = 93
_LARGEST = 1 << 30  # bytes of all unpacked parts
# what reading a damaged archive may raise; NotImplementedError and RuntimeError: of methods and passwords
_DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, OSError, EOFError, struct.error, pa.ArrowException),
    *(NotImplementedError, RuntimeError, ValueError, UnicodeError),
)


def is_inspect(content: Any) -> bool:
    """Whether a JSON file is a log of inspect_ai."""
    return isinstance(content, Mapping) and "eval" in content and "status" in content and "plan" in content


def read_inspect(path: Path, content: Any = None) -> list[Evaluation]:
    """Every scorer of one log, with its samples. UnfinishedError where the log's status is not success."""
    if path.suffix == ".eval":
        log, samples, reductions = _unpacked(path)
    else:
        log = mapping(read_json(path) if content is None else content, str(path))
        samples = listing(log.get("samples"), f"{path}, samples")
        reductions = listing(log.get("reductions"), f"{path}, reductions")
    if log.get("status") != "success":
        raise UnfinishedError(f"{path}, status: is {log.get('status')!r}; only logs with 'success' are read")
    results = mapping(log.get("results"), f"{path}, results")
    scores = sequence(results.get("scores"), f"{path}, results.scores")
    evaluations = [
        _evaluation(path, log, mapping(score, f"{path}, results.scores[{i}]"), samples, reductions)
        for i, score in enumerate(scores)
    ]
    if not evaluations:
        raise MatrixError(f"{path}, results.scores: is empty; the log holds no score")
    return evaluations


def _evaluation(
    path: Path, log: Mapping[str, Any], score: Mapping[str, Any], samples: Any, reductions: Any
) -> Evaluation:
    about = mapping(log.get("eval"), f"{path}, eval")
    name = text(score.get("name"), f"{path}, results.scores.name")
    metrics = mapping(score.get("metrics"), f"{path}, results.scores.{name}.metrics")
    metric = next((key for key in metrics if not key.startswith(("stderr", "std", "var"))), None)
    if metric is None:
        raise MatrixError(f"{path}, results.scores.{name}.metrics: holds no metric but {', '.join(metrics)}")
    place = f"{path}, results.scores.{name}.metrics.{metric}"
    chosen_metric = mapping(metrics[metric], place)
    error = part(metrics.get("stderr"), f"{path}, results.scores.{name}.metrics.stderr")
    return Evaluation(
        place=place,
        kind=KIND,
        model=text(about.get("model"), f"{path}, eval.model"),
        adapter=None,
        task=text(about.get("task"), f"{path}, eval.task"),
        metric=metric,
        filter=name,
        value=number(chosen_metric.get("value"), place),
        stderr=number(error.get("value"), f"{path}, results.scores.{name}.metrics.stderr"),
        n=count(score.get("scored_samples"), f"{path}, results.scores.{name}.scored_samples"),
        higher_is_better=True if metric in ("accuracy", "mean") else None,
        setting=_setting(log, about, path),
        outcomes=_outcomes(path, name, samples, reductions),
        date=sortable_date(about.get("created")),
        variant=model_variant(
            {
                **part(about.get("model_args"), f"{path}, eval.model_args"),
                "base_url": about.get("model_base_url"),
            }
        ),
    )


def _setting(log: Mapping[str, Any], about: Mapping[str, Any], path: Path) -> dict[str, Any]:
    config = part(about.get("config"), f"{path}, eval.config")
    plan = part(log.get("plan"), f"{path}, plan")
    dataset = part(about.get("dataset"), f"{path}, eval.dataset")
    prompt = [
        plan.get("steps"),
        plan.get("config"),
        about.get("model_generate_config"),
        about.get("task_args"),
    ]
    return known_setting(
        version=about.get("task_version"),
        limit=config.get("limit"),
        epochs=config.get("epochs"),
        template=content_digest(prompt, 12),
        items=content_digest(dataset.get("sample_ids"), 12),
    )


def _outcomes(
    path: Path, scorer: str, samples: Sequence[Any], reductions: Sequence[Any]
) -> tuple[Outcome, ...]:
    """One outcome per sample, in the order of the ids; the reduction over epochs where there are several."""
    reduced = _reduced(path, reductions, scorer)
    outcomes: dict[str, Outcome] = {}
    for i, entry in enumerate(samples):
        place = f"{path}, samples[{i}]"
        sample = mapping(entry, place)
        scores = part(sample.get("scores"), f"{place}.scores")
        if scores.get(scorer) is None:
            return ()
        scored = mapping(scores[scorer], f"{place}.scores.{scorer}")
        name = str(sample.get("id"))
        value = reduced.get(name, scored.get("value"))
        score = (
            _LETTERS.get(value, nan)
            if isinstance(value, str)
            else (number(value, f"{place}, score") if isinstance(value, bool | int | float) else nan)
        )
        output = part(sample.get("output"), f"{place}.output")
        completion = output.get("completion")
        usage = part(output.get("usage"), f"{place}.output.usage")
        stops = [
            part(choice, f"{place}.output.choices").get("stop_reason")
            for choice in listing(output.get("choices"), f"{place}.output.choices")
        ]
        target = sample.get("target", "")
        outcomes[name] = Outcome(
            item=0,
            item_digest=content_digest([name, sample.get("input"), target]),
            score=score,
            correct=bool(score) if score in (0.0, 1.0) else None,
            prediction=str(scored.get("answer") or "").strip(),
            gold=" | ".join(map(str, target)) if isinstance(target, list) else str(target),
            text=completion if isinstance(completion, str) else None,
            parsed=scored.get("value") != "N",
            output_tokens=count(usage.get("output_tokens"), f"{place}.output.usage.output_tokens"),
            stopped="max_tokens" not in stops if stops else None,
        )
    return tuple(replace(outcomes[name], item=i) for i, name in enumerate(sorted(outcomes)))


def _reduced(path: Path, reductions: Sequence[Any], scorer: str) -> dict[str, Any]:
    place = f"{path}, reductions"
    for reduction in reductions:
        if isinstance(reduction, Mapping) and reduction.get("scorer") == scorer:
            reduced = [mapping(sample, place) for sample in listing(reduction.get("samples"), place)]
            return {str(sample.get("sample_id")): sample.get("value") for sample in reduced}
    return {}


def _unpacked(path: Path) -> tuple[Mapping[str, Any], list[Any], list[Any]]:
    """Header, samples and reductions of an ``.eval`` file, which is a zip file of JSON files."""
    try:
        with zipfile.ZipFile(path) as archive:
            parts = {info.filename: info for info in archive.infolist()}
            size = sum(info.file_size for info in parts.values())
            if size > _LARGEST:
                raise MatrixError(f"{path}: unpacks to {size} bytes; at most {_LARGEST} are read")
            if "header.json" not in parts:
                raise UnfinishedError(
                    f"{path}: has no header.json, so the evaluation never ended; let it end first"
                )
            header = mapping(_part(path, archive, parts["header.json"]), f"{path}, header.json")
            names = sorted(name for name in parts if name.startswith("samples/"))
            samples = [_part(path, archive, parts[name]) for name in names]
            reductions = _part(path, archive, parts["reductions.json"]) if "reductions.json" in parts else []
    except _DAMAGED as error:
        raise MatrixError(f"{path}: not a whole .eval file ({error}); copy it again") from None
    return header, samples, listing(reductions, f"{path}, reductions.json")


def _part(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Any:
    """One JSON file of the archive; Zstandard, which Python 3.11 cannot unpack, through pyarrow."""
    if info.compress_type != _ZSTANDARD:
        return parse_json(archive.read(info), f"{path}, {info.filename}")
    stream = archive.fp
    assert stream is not None
    stream.seek(info.header_offset)
    name_length, extra_length = struct.unpack("<26xHH", stream.read(30))
    stream.seek(name_length + extra_length, 1)
    packed = stream.read(info.compress_size)
    content = pa.Codec("zstd").decompress(packed, info.file_size, asbytes=True)
    return parse_json(content, f"{path}, {info.filename}")
