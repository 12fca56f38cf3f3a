"""From single results to columns that may be compared: who is the base, which metric, what must agree."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from traitmap.errors import MatrixError
from traitmap.imports.reading import Evaluation
from traitmap.study.settings import BASELINE

Row = tuple[str, int | None]


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

    base: name of the base model, needed where several stand for it or none can be told.
    metrics: task -> ``metric`` or ``metric,filter`` for the column; by default the first metric that the
        first file names and that most models have.
    allow: settings that may differ within a column (``limit``, ``version``, ...), or ``all``.
    Raises MatrixError with the list of what differs.
    """
    chosen_base = _base(evaluations, base)
    names = _names(evaluations, chosen_base)
    notes: list[str] = []
    allowed = frozenset(allow)
    columns, faults = [], []
    wanted = dict(metrics or {})
    for task in dict.fromkeys(evaluation.task for evaluation in evaluations):
        mine = [one for one in evaluations if one.task == task]
        metric = _choose(task, mine, wanted.pop(task, None))
        for one in mine:
            if not any((e.metric, e.filter) == metric and _who(e) == _who(one) for e in mine):
                notes.append(f"left out: {one.place}, since the column is {metric[0]},{metric[1]}")
        rows = _latest([one for one in mine if (one.metric, one.filter) == metric], names, notes)
        differences = _differences(rows)
        faults += [
            f"{task}: {key} differs ({_listed(values)})"
            for key, values in differences.items()
            if key not in allowed and "all" not in allowed
        ]
        columns.append(_column(task, metric, rows, differences))
    if wanted:
        tasks = ", ".join(dict.fromkeys(one.task for one in evaluations))
        raise MatrixError(f"no task is named {', '.join(wanted)}; the tasks are {tasks}")
    if faults:
        keys = ",".join(sorted({fault.split(": ")[1].split(" ")[0] for fault in faults}))
        listing = "\n".join(f"  {fault}" for fault in faults)
        raise MatrixError(
            f"{len(faults)} columns mix results that cannot be compared:\n{listing}\nLeave files out, or say "
            f"--allow {keys} if the difference does not matter"
        )
    sources = tuple(name for name in dict.fromkeys(names.values()) if name != BASELINE)
    return Imported(chosen_base, sources, tuple(columns), tuple(notes))


def _who(one: Evaluation) -> tuple[str, str | None, int | None]:
    return one.model, one.adapter, one.seed


def _base(evaluations: Sequence[Evaluation], given: str | None) -> str | None:
    """The base model: the one that the adapters name, or the one that is given."""
    models = list(dict.fromkeys(evaluation.model for evaluation in evaluations))
    adapted = list(dict.fromkeys(one.model for one in evaluations if one.adapter is not None))
    if given is not None:
        matching = [model for model in models if given in (model, model.rstrip("/").split("/")[-1])]
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
        return matching[0]
    if len(adapted) > 1:
        raise MatrixError(
            f"adapters of several bases stand among the results ({', '.join(adapted)}); import one base at a "
            "time"
        )
    return adapted[0] if adapted else (BASELINE if BASELINE in models else None)


def _names(evaluations: Sequence[Evaluation], base: str | None) -> dict[tuple[str, str | None], str]:
    """(model, adapter) -> a name that can stand in a table: as short as keeps all apart."""
    full: dict[tuple[str, str | None], str] = {}
    for evaluation in evaluations:
        who = evaluation.model, evaluation.adapter
        if who == (base, None):
            full[who] = BASELINE
        else:
            full[who] = evaluation.model if evaluation.adapter is None else evaluation.adapter
    parts = {who: [part for part in re.split(r"[/\\]+", name) if part] for who, name in full.items()}
    depth = max((len(one) for one in parts.values()), default=1)
    for many in range(1, depth + 1):
        short = {who: _safe("__".join(one[-many:])) for who, one in parts.items()}
        if len(set(short.values())) == len(short):
            break
    else:
        short = {who: _safe("__".join(filter(None, (*parts[who], *(who[1:] and [who[0]]))))) for who in parts}
    return {who: BASELINE if full[who] == BASELINE else name for who, name in short.items()}


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).lstrip(".") or "_"


def _choose(task: str, mine: Sequence[Evaluation], wanted: str | None) -> tuple[str, str]:
    """(metric, filter) of a column."""
    available = list(dict.fromkeys((one.metric, one.filter) for one in mine))
    if wanted is not None:
        metric, _, filter_name = wanted.partition(",")
        matching = [one for one in available if one[0] == metric and filter_name in ("", one[1])]
        if not matching:
            legal = ", ".join(f"{metric},{name}" for metric, name in available)
            raise MatrixError(f"task {task!r} has no metric {wanted!r}; it has {legal}")
        return matching[0]
    counts = {one: len({_who(e) for e in mine if (e.metric, e.filter) == one}) for one in available}
    return max(available, key=lambda one: (counts[one], -available.index(one)))


def _latest(
    found: Sequence[Evaluation], names: Mapping[tuple[str, str | None], str], notes: list[str]
) -> dict[Row, Evaluation]:
    """One result per model: of several, the latest, which is told."""
    rows: dict[Row, Evaluation] = {}
    for one in found:
        name = names[one.model, one.adapter], one.seed
        before = rows.get(name)
        if before is not None:
            older, one = sorted((before, one), key=lambda each: each.date)
            notes.append(f"left out: {older.place}, since {one.place} is later")
        rows[name] = one
    return rows


def _differences(rows: Mapping[Row, Evaluation]) -> dict[str, dict[str, list[str]]]:
    """setting -> value -> the rows that have it, for every setting with more than one value."""
    values: dict[str, dict[str, list[str]]] = {}
    for (name, _), one in rows.items():
        about = {**one.setting, "harness": one.kind}
        if one.n:
            about["n"] = one.n
        if one.outcomes:
            about["items"] = tuple(outcome.item_digest for outcome in one.outcomes)
        for key, value in about.items():
            values.setdefault(key, {}).setdefault(_shown(value), []).append(name)
    return {key: found for key, found in values.items() if len(found) > 1}


def _column(
    task: str,
    metric: tuple[str, str],
    rows: Mapping[Row, Evaluation],
    differences: Mapping[str, Any],
) -> ImportedColumn:
    settings = [row.setting for row in rows.values()]
    known = {key: value for setting in settings for key, value in setting.items() if key not in differences}
    paired = all(one.outcomes for one in rows.values()) and "items" not in differences
    scores = {outcome.score for one in rows.values() for outcome in one.outcomes}
    # one model alone may have 0 and 1 by chance where the metric is graded
    binary = scores <= {0.0, 1.0}
    return ImportedColumn(task, *metric, dict(rows), paired, binary, known)


def _shown(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)


def _listed(values: Mapping[str, Sequence[str]]) -> str:
    told = []
    for value, names in values.items():
        who = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        told.append(f"{value if len(value) <= 40 else value[:37] + '...'} for {who}")
    return "; ".join(told)
