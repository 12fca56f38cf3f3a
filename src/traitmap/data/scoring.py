"""Answers to a task's requests -> outcomes and aggregates, by lm-eval's own filters and metrics.

Answers are put into the task as if a model had just given them, its filters and metrics are run, and all of
it is taken out again, so that one task serves any number of models. No metric is written here.
"""

from __future__ import annotations

import copy
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import nan
from typing import Any

import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.metrics import mean
from lm_eval.api.task import Task

from traitmap.data.code_tests import executes_code
from traitmap.data.harness import quiet, reason
from traitmap.data.records import Outcome, Response
from traitmap.errors import DataError, EngineError

# Metrics of lm-eval that say right or wrong about each item; others are judged by their values.
ACCURACIES = ("acc", "acc_norm", "acc_bytes", "acc_mutual_info")
RIGHT_OR_WRONG = (*ACCURACIES, "exact_match")
_UNCHANGING = frozenset({str, int, float, bool, type(None)})  # kinds of values that need no copy
NO_ANSWER = "[invalid]"  # fallback of lm-eval's extraction filters


@dataclass(frozen=True)
class Item:
    """One document of a task and what is known of it before a model has answered.

    instances: lm-eval's requests in the order of their index; ``repeats`` answers belong to each.
    choices, golds: texts of the choices and indices of the right ones (multiple choice), else empty.
    gold: the right answer as text, several joined by " | ".
    """

    index: int
    digest: str
    instances: tuple[Instance, ...]
    choices: tuple[str, ...]
    golds: tuple[int, ...]
    gold: str


@dataclass(frozen=True)
class Scored:
    """What one model's answers are worth.

    outcomes: one per item, in the order of the items.
    aggregates: lm-eval's value of every metric of every filter, keyed ``metric,filter``;
        NaN where lm-eval's aggregation fails, with the reason in ``unknown``.
    """

    outcomes: tuple[Outcome, ...]
    aggregates: Mapping[str, float]
    unknown: Mapping[str, str] = field(default_factory=dict)


def score_answers(
    *, task: Task, items: Sequence[Item], answers: Sequence[Response], metric: str, filter_name: str
) -> Scored:
    """Score answers exactly as ``lm_eval.evaluator.evaluate`` does.

    answers: one per request and repeat, in the order of the requests (all of one item together).
    Nothing of an earlier call is left in the task, but two calls on one task must not run at once.
    Raises EngineError for a wrong number of answers and DataError where the task's code fails.
    """
    by_item = _grouped(task, items, answers)
    with _replayed(task, items, by_item):
        values = {name: _process_all(task, items, name) for name in task.instances[0].filtered_resps}
        filtered = [[instance.filtered_resps[filter_name] for instance in item.instances] for item in items]
        aggregates, unknown = _aggregates(task, values)
    scores = [_scalar(value.get(metric)) for value in values[filter_name]]
    binary = metric in RIGHT_OR_WRONG or {score for score in scores if score == score} <= {0.0, 1.0}
    fallbacks = _fallbacks(task, filter_name)
    outcomes = []
    for item, own_answers, parsed, score in zip(items, by_item, filtered, scores, strict=True):
        answered = _answered(task, item, own_answers, parsed, metric, fallbacks)
        correct = score == 1.0 if binary and score == score else None
        outcomes.append(Outcome(item.index, item.digest, score, correct, **answered))
    return Scored(tuple(outcomes), aggregates, unknown)


def known_answers(
    task: Task, items: Sequence[Item], outcomes: Mapping[str, Outcome], metric: str
) -> list[Response | None]:
    """What outcomes of the same model tell of the answers to these items; None for each that must be asked.

    outcomes: by the digest of their item, of any items of any task, judged by the same ``metric`` where
    choices are weighed. One entry per request and repeat, in the order of the requests. An outcome tells the
    answers where it keeps all that scoring reads: a written text, or the probabilities of choices where
    no metric asks which text is the greedy one. Those of whole texts are not kept.
    """
    weighed = (
        task.OUTPUT_TYPE == "multiple_choice"
        and not callable(task.config.process_results)
        and "exact_match" not in task.aggregation()
    )
    answers: list[Response | None] = []
    for item in items:
        outcome, count = outcomes.get(item.digest), sum(instance.repeats for instance in item.instances)
        logprobs = outcome.choice_logprobs if outcome is not None else None
        if weighed and outcome is not None and logprobs and len(logprobs) == count == len(item.choices):
            judged = _judged_choice(metric, logprobs, item.choices)
            answers += [
                Response(logprob=logprob, is_greedy=False, tokens=outcome.output_tokens * (place == judged))
                for place, logprob in enumerate(logprobs)
            ]
        elif task.OUTPUT_TYPE == "generate_until" and count == 1 and outcome and outcome.text is not None:
            answers.append(Response(text=outcome.text, tokens=outcome.output_tokens, stopped=outcome.stopped))
        else:
            answers += [None] * count
    return answers


def item_metrics(task: Task, items: Sequence[Item]) -> dict[str, dict[str, bool]]:
    """filter -> metric -> whether its value is the mean of item values, found by scoring an empty answer.

    Only such a metric can stand in a transfer matrix, whose cells are means over items. Raises
    DataError where the task's code cannot score an empty answer, which a base model may well give.
    """
    blank = {"generate_until": Response(text="", stopped=True)}
    answers = [
        blank.get(instance.request_type, Response(logprob=-1.0 - instance.idx, is_greedy=False))
        for item in items
        for instance in item.instances
        for _ in range(instance.repeats)
    ]
    with _replayed(task, items, _grouped(task, items, answers)):
        values = {name: _process(task, items[0], name) for name in task.instances[0].filtered_resps}
    declared = task.aggregation()
    return {
        name: {
            metric: _scalar(scores[metric]) == _scalar(scores[metric])
            and _is_mean(declared.get(metric, mean))
            for metric in sorted(scores, key=[*declared, *scores].index)
        }
        for name, scores in values.items()
    }


def _grouped(task: Task, items: Sequence[Item], answers: Sequence[Response]) -> list[list[list[Response]]]:
    """(items, instances, repeats): answers grouped in the order in which the requests were made."""
    expected = sum(instance.repeats for item in items for instance in item.instances)
    if len(answers) != expected:
        raise EngineError(f"task {task.task_name!r}: {len(answers)} answers to {expected} requests")
    stream = iter(answers)
    return [
        [list(itertools.islice(stream, instance.repeats)) for instance in item.instances] for item in items
    ]


@contextmanager
def _replayed(task: Task, items: Sequence[Item], by_item: list[list[list[Response]]]) -> Iterator[None]:
    """The task as if a model had just answered; afterwards as if none ever had."""
    instances = [instance for item in items for instance in item.instances]
    answers = [answers for of_item in by_item for answers in of_item]
    whole = task._instances  # lm-eval filters all that it has: it may have no more than was answered
    answered = {id(instance) for instance in instances}
    try:
        task._instances = [instance for instance in whole if id(instance) in answered]
        for instance, repeats in zip(instances, answers, strict=True):
            kind = instance.request_type  # an answer as lm-eval's LM interface returns it
            if kind == "generate_until":
                instance.resps = [answer.text for answer in repeats]
            elif kind == "loglikelihood_rolling":
                instance.resps = [answer.logprob for answer in repeats]
            else:
                instance.resps = [(answer.logprob, answer.is_greedy) for answer in repeats]
            instance.filtered_resps = {}
        with quiet():
            try:
                task.apply_filters()
            except Exception as fault:
                raise DataError(f"task {task.task_name!r}: its filters fail: {reason(fault)}") from fault
            yield
    finally:
        task._instances = whole
        for instance in instances:
            instance.resps = []
            instance.filtered_resps = {}


def _process_all(task: Task, items: Sequence[Item], filter_name: str) -> list[dict[str, Any]]:
    """lm-eval's metrics of every item; where judging one waits for its program, as many at once as there
    are cores, since a crowded machine would let good programs run out of time."""
    if not executes_code(task.config.metadata):
        return [_process(task, item, filter_name) for item in items]
    # the cores of this process; only Linux tells them, and only Linux has the sandbox
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count()
    with ThreadPoolExecutor(max_workers=cores) as pool:
        return list(pool.map(lambda item: _process(task, item, filter_name), items))


def _process(task: Task, item: Item, filter_name: str) -> dict[str, Any]:
    """lm-eval's metrics of one item. The document is copied, since tasks may write into it."""
    doc = item.instances[0].doc
    if type(doc) is dict and all(type(value) in _UNCHANGING for value in doc.values()):
        doc = dict(doc)
    else:
        doc = copy.deepcopy(doc)
    answers = [instance.filtered_resps[filter_name] for instance in item.instances]
    try:
        return dict(task.process_results(doc, answers))
    except Exception as fault:
        raise DataError(
            f"task {task.task_name!r}: scoring of item {item.index} fails: {reason(fault)}"
        ) from fault


def _aggregates(
    task: Task, values: Mapping[str, Sequence[Mapping[str, Any]]]
) -> tuple[dict[str, float], dict[str, str]]:
    aggregates: dict[str, float] = {}
    unknown: dict[str, str] = {}
    for filter_name, of_items in values.items():
        for metric in dict.fromkeys(itertools.chain.from_iterable(of_items)):
            key = f"{metric},{filter_name}"
            # lm-eval leaves out items that lack the metric, and averages what has no aggregation.
            present = [scores[metric] for scores in of_items if metric in scores]
            try:
                aggregates[key] = float(task.aggregation().get(metric, mean)(present))
            except Exception as fault:
                aggregates[key], unknown[key] = nan, reason(fault)
    return aggregates, unknown


def _scalar(value: Any) -> float:
    """Item value of a metric; NaN where it is none (a tuple that only an aggregation understands)."""
    return float(value) if isinstance(value, bool | int | float | np.bool_ | np.number) else nan


def _is_mean(aggregation: Callable[[list[float]], float]) -> bool:
    try:
        return aggregation([0.0, 1.0, 5.0]) == 2.0 and aggregation([3.0]) == 3.0
    except Exception:  # an aggregation of tuples, say: whatever it raises, it is no mean
        return False


def _fallbacks(task: Task, filter_name: str) -> set[str]:
    """What the filters of this pipeline return when they find no answer."""
    makers = [make for pipeline in task._filters if pipeline.name == filter_name for make in pipeline.filters]
    fallbacks = [getattr(make(), "fallback", None) for make in makers]
    return {NO_ANSWER, *(_text(fallback) for fallback in fallbacks if fallback is not None)}


def _answered(
    task: Task,
    item: Item,
    answers: Sequence[Sequence[Response]],
    filtered: Sequence[Any],
    metric: str,
    fallbacks: set[str],
) -> dict[str, Any]:
    """The fields of an Outcome that say what was answered."""
    first = [repeats[0] for repeats in answers]
    if task.OUTPUT_TYPE == "multiple_choice":
        logprobs = tuple(answer.logprob for answer in first)
        choice = _judged_choice(metric, logprobs, item.choices)
        return {
            "prediction": item.choices[choice],
            "gold": item.gold,
            "choice_logprobs": logprobs[: len(item.choices)],
            "output_tokens": first[choice].tokens,
        }
    written = next((i for i, answer in enumerate(first) if answer.text is not None), None)
    if written is None:
        prediction = item.gold if first[0].is_greedy else ""
        return {"prediction": prediction, "gold": item.gold, "output_tokens": first[0].tokens}
    prediction = _text(filtered[written])
    return {
        "prediction": prediction,
        "gold": item.gold,
        "text": first[written].text,
        "parsed": prediction not in fallbacks,
        "output_tokens": first[written].tokens,
        "stopped": first[written].stopped,
    }


def _judged_choice(metric: str, logprobs: Sequence[float], choices: Sequence[str]) -> int:
    """The choice that the metric judges: lm-eval normalises the log-probabilities differently for each."""
    count = len(choices)
    values = np.array(logprobs[:count])
    if metric not in ("acc_norm", "acc_bytes", "acc_mutual_info"):
        return int(values.argmax())
    with np.errstate(divide="ignore", invalid="ignore"):
        if metric == "acc_norm":
            values = values / np.array([float(len(choice)) for choice in choices])
        elif metric == "acc_bytes":
            values = values / np.array([float(len(choice.encode())) for choice in choices])
        else:
            values = values - np.array(logprobs[count:])
    return int(np.argmax(values))


def _text(value: Any) -> str:
    """What a filter gave, as text; a list of one is that one (majority vote gives such lists)."""
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    return value if isinstance(value, str) else str(value)


def chance_level(items: Sequence[Item]) -> float:
    """Mean over items of the share of choices that are right; NaN without choices, or without golds."""
    if not all(item.choices and item.golds for item in items):
        return nan
    return float(np.mean([len(set(item.golds)) / len(item.choices) for item in items]))


def majority_level(items: Sequence[Item], choices: tuple[str, ...] | None) -> float:
    """Accuracy of always giving the commonest gold answer; NaN where that is no strategy."""
    if items[0].choices and choices is None:
        return nan  # each item has its own choices: no answer can always be given
    golds: list[Any] = [item.gold for item in items]
    if choices is not None:
        golds = [index for item in items for index in set(item.golds)]
    most = max(Counter(golds).values())
    return most / len(items) if most > 1 else nan
