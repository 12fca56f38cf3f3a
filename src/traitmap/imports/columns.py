"""From single results to columns that may be compared: who is the base, which metric, what must agree.

Models of one name stay apart where anything tells them apart (revision, quantisation, server), and are named
by what differs. Of two results of the very same model the later one counts, and only where both have a date.
Whatever is chosen or left out is told in the notes; what cannot be compared is refused with the list of what
differs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import PurePath
from typing import Any

from traitmap.errors import MatrixError
from traitmap.imports.reading import Evaluation
from traitmap.metrics import SHARE, direction
from traitmap.metrics import metric as metric_of
from traitmap.study.settings import BASELINE

Row = tuple[str, int | None]
Identity = tuple[str, str | None, tuple[tuple[str, str], ...]]  # model, adapter, variant

# Arguments that say which weights answer: an adapter is compared with its base under the same ones only.
_WEIGHTS = frozenset(
    [
        "revision",
        "subfolder",
        "load_in_4bit",
        "load_in_8bit",
        "gguf_file",
        "quantization",
        "quantization_config",
        "bnb_4bit_quant_type",
        "iteration",
        "checkpoint",
        "load",
        "base_url",
    ]
)
_VALUE_ALONE = ("revision", "subfolder", "iteration", "checkpoint", "gguf_file")


@dataclass(frozen=True)
class ImportedColumn:
    """One target: the chosen metric, and the result of every model that has one.

    rows: (source, seed) -> its result; the base is ``__baseline__``, without a seed. paired: all of them
        have samples, of the same items, so that paired statistics may be made. binary: each of these is
        right or wrong. setting: what is known to agree.
    """

    target: str
    metric: str
    filter: str
    rows: Mapping[Row, Evaluation]
    paired: bool
    binary: bool
    setting: Mapping[str, Any]


@dataclass(frozen=True)
class Imported:
    """A table of other people's results. base: the base model's name, or None where none is known."""

    base: str | None
    sources: tuple[str, ...]
    columns: tuple[ImportedColumn, ...]
    notes: tuple[str, ...]


def arrange(
    evaluations: Sequence[Evaluation],
    *,
    base: str | None = None,
    metrics: Mapping[str, str] | None = None,
    allow: Iterable[str] = (),
) -> Imported:
    """Columns out of single results.

    base: name of the base model, needed where several stand for it or none can be told. Where variants of one
        name stand among the results, ``NAME@VALUE`` says which (``org/base@step1000``).
    metrics: task -> ``metric`` or ``metric,filter`` for the column; by default the first metric that the
        first file names and that most models have.
    allow: settings that may differ within a column (``limit``, ``version``, ...), or ``all``.
    Raises MatrixError with the list of what differs.
    """
    notes: list[str] = []
    complete = [_without_broken_samples(evaluation, notes) for evaluation in evaluations]
    base_identity, base_name = _base(complete, base)
    names = _names(complete, base_identity)
    allowed = frozenset(allow)
    columns, faults = [], []
    choices: dict[str, list[str]] = {}
    requested = dict(metrics or {})
    for task in dict.fromkeys(evaluation.task for evaluation in complete):
        of_task = [evaluation for evaluation in complete if evaluation.task == task]
        metric, others = _choose(task, of_task, requested.pop(task, None))
        alternatives = ", ".join(f"{name},{filter_name}" for name, filter_name in others)
        choice = f"{metric[0]},{metric[1]}"
        choice += f" (also there: {alternatives}; --metric TASK=...)" if others else ""
        choices.setdefault(choice, []).append(task)
        with_metric = [
            evaluation for evaluation in of_task if (evaluation.metric, evaluation.filter) == metric
        ]
        measured = {_who(evaluation) for evaluation in with_metric}
        for evaluation in of_task:
            if _who(evaluation) not in measured:
                notes.append(f"left out: {evaluation.place}, since the column is {metric[0]},{metric[1]}")
        rows = _on_one_scale(task, _latest(with_metric, names, notes), notes)
        differences = _differences(rows, base_identity)
        faults += [
            f"{task}: {key} differs ({_listed(values)})"
            for key, values in differences.items()
            if key not in allowed and "all" not in allowed
        ]
        columns.append(_column(task, metric, rows, differences))
    if requested:
        tasks = ", ".join(dict.fromkeys(evaluation.task for evaluation in complete))
        raise MatrixError(f"no task is named {', '.join(requested)}; the tasks are {tasks}")
    if faults:
        keys = ",".join(sorted({fault.split(": ")[1].split(" ")[0] for fault in faults}))
        listing = "\n".join(f"  {fault}" for fault in faults)
        raise MatrixError(
            f"{len(faults)} columns mix results that cannot be compared:\n{listing}\nLeave files out, or say "
            f"--allow {keys} if the difference does not matter"
        )
    sources = tuple(name for name in dict.fromkeys(names.values()) if name != BASELINE)
    notes += [f"metric {choice}: {_some(tasks)}" for choice, tasks in choices.items()]
    return Imported(base_name, sources, tuple(columns), (*notes, *_assumed_directions(columns)))


def _identity(evaluation: Evaluation) -> Identity:
    return evaluation.model, evaluation.adapter, tuple(sorted(evaluation.variant.items()))


def _who(evaluation: Evaluation) -> tuple[Identity, int | None]:
    return _identity(evaluation), evaluation.seed


def _without_broken_samples(evaluation: Evaluation, notes: list[str]) -> Evaluation:
    """Samples that are fewer than the result counts are told, and change neither its number nor its value."""
    samples = len(evaluation.outcomes)
    if not 0 < samples < evaluation.n or evaluation.setting.get("epochs") not in (None, 1):
        return evaluation
    notes.append(
        f"{evaluation.place}: {samples} of {evaluation.n} samples are there, so they are not used; the "
        "result stands as the file gives it"
    )
    return replace(evaluation, outcomes=(), texts=())


def _base(evaluations: Sequence[Evaluation], given: str | None) -> tuple[Identity | None, str | None]:
    """The base model, the one that the adapters name or the one that is given, and its name."""
    models = list(dict.fromkeys(evaluation.model for evaluation in evaluations))
    adapted = list(
        dict.fromkeys(evaluation.model for evaluation in evaluations if evaluation.adapter is not None)
    )
    variant = ""
    if given is not None:
        matching = [model for model in models if given in (model, model.rstrip("/").split("/")[-1])]
        if not matching and "@" in given:
            name, _, variant = given.rpartition("@")
            matching = [model for model in models if name in (model, model.rstrip("/").split("/")[-1])]
        if len(matching) != 1:
            raise MatrixError(
                f"--base {given}: {len(matching)} models are named so; models: {', '.join(models)}"
            )
        adapted = [model for model in adapted if model != matching[0]]
        if adapted:
            raise MatrixError(
                f"adapters of another base than {matching[0]} stand among the results "
                f"({', '.join(adapted)}); import one base at a time"
            )
        name = matching[0]
    elif len(adapted) > 1:
        raise MatrixError(
            f"adapters of several bases stand among the results ({', '.join(adapted)}); import one base at a "
            "time"
        )
    elif adapted or BASELINE in models:
        name = adapted[0] if adapted else BASELINE
    else:
        return None, None
    candidates = list(
        dict.fromkeys(
            _identity(evaluation)
            for evaluation in evaluations
            if evaluation.model == name and evaluation.adapter is None
        )
    )
    return _one_variant(evaluations, candidates, name, variant), name


def _one_variant(
    evaluations: Sequence[Evaluation], candidates: Sequence[Identity], name: str, variant: str
) -> Identity:
    """Which variant is the base: the one that is named, else the one that the adapters stand on."""
    if variant:
        matching = [
            identity
            for identity in candidates
            if any(variant in (value, f"{key}={value}") for key, value in identity[2])
        ]
    else:
        weights = {_weights(row.variant) for row in evaluations if row.adapter is not None}
        same = [identity for identity in candidates if {_weights(dict(identity[2]))} == weights]
        matching = same if len(candidates) > 1 and len(same) == 1 else list(candidates)
    if len(matching) > 1 or (variant and not matching):
        labels = [
            ", ".join(f"{key}={value}" for key, value in identity[2]) or "no argument of its own"
            for identity in candidates
        ]
        raise MatrixError(
            f"{name} stands among the results as {len(labels)} models ({'; '.join(labels)}); say which is "
            f"the base with --base {name}@VALUE, VALUE being one of theirs alone"
        )
    return matching[0] if matching else (name, None, ())


def _weights(variant: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((key, value) for key, value in variant.items() if key in _WEIGHTS))


def _names(evaluations: Sequence[Evaluation], base: Identity | None) -> dict[Identity, str]:
    """Identity -> a name that can stand in a table: as short as keeps all apart."""
    identities = list(dict.fromkeys(_identity(evaluation) for evaluation in evaluations))
    suffixes: dict[Identity, str] = {}
    for identity in identities:
        alike = [dict(namesake[2]) for namesake in identities if namesake[:2] == identity[:2]]
        differing = [
            key
            for key in sorted({key for variant in alike for key in variant})
            if len({variant.get(key) for variant in alike}) > 1
        ]
        variant = dict(identity[2])
        words = [
            PurePath(variant[key]).name
            if key in _VALUE_ALONE
            else (key if variant[key] in ("True", "true") else f"{key}-{PurePath(variant[key]).name}")
            for key in differing
            if key in variant
        ]
        suffixes[identity] = "".join(f"-{word}" for word in words)
    full = {identity: BASELINE if identity == base else identity[1] or identity[0] for identity in identities}
    parts = {
        identity: [part for part in re.split(r"[/\\]+", name) if part] for identity, name in full.items()
    }
    depth = max((len(pieces) for pieces in parts.values()), default=1)
    for many in range(1, depth + 1):
        short = {
            identity: _safe("__".join(pieces[-many:]) + suffixes[identity])
            for identity, pieces in parts.items()
        }
        if len(set(short.values())) == len(short):
            break
    else:
        short = {
            identity: _safe(
                "__".join([*parts[identity], *([identity[0]] if identity[1] else [])]) + suffixes[identity]
            )
            for identity in parts
        }
    return {identity: BASELINE if full[identity] == BASELINE else name for identity, name in short.items()}


def _safe(name: str) -> str:
    """The name as a row may have it; that of a checkpoint keeps its ``@`` and the step."""
    stem, step = re.fullmatch(r"(.*?)(@\d+)?", name, re.DOTALL).groups(default="")  # type: ignore[union-attr]
    return (re.sub(r"[^A-Za-z0-9._-]+", "_", stem).lstrip(".") or "_") + step


def _choose(
    task: str, of_task: Sequence[Evaluation], wanted: str | None
) -> tuple[tuple[str, str], list[tuple[str, str]]]:
    """(metric, filter) of a column, and the others that there are."""
    available = list(dict.fromkeys((evaluation.metric, evaluation.filter) for evaluation in of_task))
    if wanted is not None:
        metric, _, filter_name = wanted.partition(",")
        matching = [pair for pair in available if pair[0] == metric and filter_name in ("", pair[1])]
        if not matching:
            legal = ", ".join(f"{metric},{name}" for metric, name in available)
            raise MatrixError(f"task {task!r} has no metric {wanted!r}; it has {legal}")
        metric_and_filter = matching[0]
    else:
        counts = {pair: len({_who(e) for e in of_task if (e.metric, e.filter) == pair}) for pair in available}
        metric_and_filter = max(available, key=lambda pair: (counts[pair], -available.index(pair)))
    return metric_and_filter, [pair for pair in available if pair != metric_and_filter]


def _some(tasks: Sequence[str], most: int = 8) -> str:
    return ", ".join(tasks[:most]) + (f" and {len(tasks) - most} more" if len(tasks) > most else "")


def _assumed_directions(columns: Sequence[ImportedColumn]) -> list[str]:
    assumed: dict[str, list[str]] = {}
    for column in columns:
        stated = [row.higher_is_better for row in column.rows.values() if row.higher_is_better is not None]
        if direction(column.metric, stated[0] if stated else None)[1] == "assumed":
            assumed.setdefault(column.metric, []).append(column.target)
    return [
        f"{metric}: neither the files nor the catalogue say which way is better; higher is assumed "
        f"({_some(tasks)})"
        for metric, tasks in assumed.items()
    ]


def _latest(
    evaluations: Sequence[Evaluation], names: Mapping[Identity, str], notes: list[str]
) -> dict[Row, Evaluation]:
    """One result per model: of several, the latest, which is told. MatrixError where no date tells which."""
    rows: dict[Row, Evaluation] = {}
    for evaluation in evaluations:
        name = names[_identity(evaluation)], evaluation.seed
        before = rows.get(name)
        if before is not None:
            if not (before.date and evaluation.date) or before.date == evaluation.date:
                raise MatrixError(
                    f"two results of {name[0]} on {evaluation.task}: {before.place} and {evaluation.place}; "
                    "no date tells which is later; leave one of the files out"
                )
            older, evaluation = sorted((before, evaluation), key=lambda candidate: candidate.date)
            notes.append(f"left out: {older.place}, since {evaluation.place} is later")
        rows[name] = evaluation
    return rows


def _on_one_scale(task: str, rows: dict[Row, Evaluation], notes: list[str]) -> dict[Row, Evaluation]:
    """Scores that files give on different known scales (0 to 1, 0 to 100), all brought to 0 to 1."""
    scales = {evaluation.scale for evaluation in rows.values()}
    if len(scales) < 2 or any(scale is None or not scale[1] > scale[0] for scale in scales):
        return rows
    notes.append(
        f"{task}: scores on different scales ("
        + ", ".join(f"{low:g} to {high:g}" for low, high in sorted(scale for scale in scales if scale))
        + ") are brought to 0 to 1"
    )
    return {name: _rescaled(evaluation) for name, evaluation in rows.items()}


def _rescaled(evaluation: Evaluation) -> Evaluation:
    assert evaluation.scale is not None
    low, high = evaluation.scale
    inside = all(0 <= outcome.score <= 1 for outcome in evaluation.outcomes if isfinite(outcome.score))
    return replace(
        evaluation,
        value=(evaluation.value - low) / (high - low),
        stderr=evaluation.stderr / (high - low),
        scale=(0.0, 1.0),
        outcomes=evaluation.outcomes
        if inside
        else tuple(
            replace(outcome, score=(outcome.score - low) / (high - low)) for outcome in evaluation.outcomes
        ),
    )


def _differences(rows: Mapping[Row, Evaluation], base: Identity | None) -> dict[str, dict[str, list[str]]]:
    """setting -> value -> the rows that have it, for every setting with more than one value."""
    values: dict[str, dict[str, list[str]]] = {}
    of_base = [
        evaluation.variant for evaluation in rows.values() if base is not None and evaluation.model == base[0]
    ]
    weight_keys = {key for variant in of_base for key in variant if key in _WEIGHTS}
    for (name, _), evaluation in rows.items():
        about = {**evaluation.setting, "harness": evaluation.kind}
        if evaluation.n:
            about["n"] = evaluation.n
        if evaluation.outcomes:
            about["items"] = tuple(outcome.item_digest for outcome in evaluation.outcomes)
        if evaluation.higher_is_better is not None:
            about["higher_is_better"] = evaluation.higher_is_better
        if base is not None and (evaluation.adapter is not None or _identity(evaluation) == base):
            about |= {key: evaluation.variant.get(key) for key in weight_keys}
        metric = metric_of(evaluation.metric)
        tells_scale = metric.unit == SHARE and metric.higher_is_better and not metric.may_be_small
        if tells_scale and evaluation.value > 0:
            about["scale"] = "0 to 1" if evaluation.value <= 1 else "0 to 100"
        for key, value in about.items():
            values.setdefault(key, {}).setdefault(
                json.dumps(value, sort_keys=True, ensure_ascii=False, default=str), []
            ).append(name)
    return {key: by_value for key, by_value in values.items() if len(by_value) > 1}


def _column(
    task: str,
    metric: tuple[str, str],
    rows: Mapping[Row, Evaluation],
    differences: Mapping[str, Any],
) -> ImportedColumn:
    settings = [row.setting for row in rows.values()]
    known = {key: value for setting in settings for key, value in setting.items() if key not in differences}
    paired = all(row.outcomes for row in rows.values()) and "items" not in differences
    scores = {outcome.score for row in rows.values() for outcome in row.outcomes}
    # one model alone may have 0 and 1 by chance where the metric is graded
    binary = scores <= {0.0, 1.0}
    return ImportedColumn(task, *metric, dict(rows), paired, binary, known)


def _listed(values: Mapping[str, Sequence[str]]) -> str:
    descriptions = []
    for value, names in values.items():
        who = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        descriptions.append(f"{value if len(value) <= 40 else value[:37] + '...'} for {who}")
    return "; ".join(descriptions)
