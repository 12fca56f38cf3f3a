"""Targets: an lm-eval task's requests out, a model's answers in, one outcome per item.

`load_target` opens a task once, renders its requests as lm-eval does, chooses the metric that a matrix can
hold, and takes a digest of everything that decides the outcomes. `LoadedTarget.score` puts answers back into
the task (`data.scoring`), so that lm-eval's own filters and metrics judge them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from itertools import groupby
from math import nan
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset, DatasetDict
from lm_eval.api.instance import Instance
from lm_eval.api.task import Task

from traitmap.data import answer_metrics, caveats, code_tests
from traitmap.data.file_targets import FileTask, TargetError, file_task
from traitmap.data.harness import (
    FEWSHOT_SEED,
    FILE_FORMATS,
    documents,
    gold_choices,
    gold_text,
    open_config,
    open_study_task,
    plain_setting,
    quiet,
    reason,
    reproducible,
)
from traitmap.data.records import Caveat, Outcome, Request, Response
from traitmap.data.rows import SourceProblem
from traitmap.data.scoring import (
    ACCURACIES,
    Item,
    Scored,
    chance_level,
    item_metrics,
    known_answers,
    majority_level,
    score_answers,
)
from traitmap.data.sources import all_targets, draw
from traitmap.data.task_groups import GroupTask, group_tasks
from traitmap.data.task_packs import pack_targets
from traitmap.data.texts import TaskText
from traitmap.errors import DataError
from traitmap.study.paths import digest, resolve
from traitmap.study.settings import Study, Target

Kind = Literal["multiple_choice", "loglikelihood", "loglikelihood_rolling", "generate_until"]


@dataclass(frozen=True)
class LoadedTarget:
    """An evaluation task, ready to be asked and scored.

    name, tags: from the study. task, version: lm-eval's name and version of the task.
    metric, filter, higher_is_better: what stands in the matrix, and its direction.
    requests: all questions, repeats included, those of one item together; n_items: documents. Items on which
        no answer can be right are left out.
    digest: of everything that determines the outcomes of given answers: requests, documents, golds,
        metric, filter, the task's scoring settings and code, few-shot examples, version of lm-eval.
    chance: mean accuracy of guessing uniformly among the choices; majority: accuracy of always giving
        the commonest gold answer. NaN where the metric is no accuracy or golds do not repeat.
    choices: the label space where all items share it, else None.
    conditions: how the target was asked, for the record (plain JSON data).
    groups: column of the task's documents that tells which items belong together, or None. It is no part of
        the digest: it changes no outcome.
    precision, decide, ask: when a cell may end before all items are asked, as the study has it; none changes
        an outcome.
    refused: why its answers are not judged here (they are programs, say); empty where they are. The cells
        of a refused target stay missing.
    read_as: what rows of plain data were taken for, and which of them are asked; empty for lm-eval tasks.
    caveats: what keeps items from counting as they seem to. They follow from what is digested.
    """

    name: str
    task: str
    version: str
    kind: Kind
    metric: str
    filter: str
    higher_is_better: bool
    requests: tuple[Request, ...]
    n_items: int
    digest: str
    chance: float
    majority: float
    tags: tuple[str, ...]
    choices: tuple[str, ...] | None
    conditions: Mapping[str, Any]
    groups: str | None = field(default=None, kw_only=True)
    precision: float | None = field(default=None, kw_only=True)
    decide: Literal["sign", "best", "all"] | None = field(default=None, kw_only=True)
    ask: float | None = field(default=None, kw_only=True)
    refused: str = field(default="", kw_only=True)
    read_as: str = field(default="", kw_only=True)
    caveats: tuple[Caveat, ...] = field(default=(), kw_only=True)
    _task: Task = field(repr=False, compare=False)
    _items: tuple[Item, ...] = field(repr=False, compare=False)

    def score(self, answers: Sequence[Response]) -> Scored:
        """Outcomes and lm-eval's aggregates of one model's answers, one answer per request in order.

        Every call stands alone: the same answers give the same outcomes. Not for several threads.
        Raises DataError where the target is refused.
        """
        if self.refused:
            raise DataError(f"target {self.name!r}: {self.refused}")
        return score_answers(
            task=self._task, items=self._items, answers=answers, metric=self.metric, filter_name=self.filter
        )

    def known_answers(self, outcomes: Sequence[Outcome], metric: str) -> list[Response | None]:
        """Answers to its requests that earlier outcomes of the same model tell; None for each to be asked.

        outcomes: of any items, judged by ``metric``. An item counts as asked before where its document and
        its rendered requests were the same, and, where answers are sampled, its place among the documents.
        """
        sampled = {request.item for request in self.requests if request.seed}
        by_digest = {one.item_digest: one for one in outcomes}
        items = [item for item in self._items if item.digest in by_digest]
        moved = {item.digest for item in items if by_digest[item.digest].item != item.index}
        drawn_anew = {item.digest for item in items if item.index in sampled} & moved
        if self.kind == "multiple_choice" and metric != self.metric:
            return [None] * len(self.requests)  # how long the judged choice is would be unknown
        known = {digest: one for digest, one in by_digest.items() if digest not in drawn_anew}
        return known_answers(self._task, self._items, known, self.metric)

    def part(self, items: Sequence[int]) -> LoadedTarget:
        """The same target asked only some of its items (indices, rising); it has a digest of its own."""
        part = tuple(self._items[index] for index in items)
        indices = {item.index for item in part}
        return replace(
            self,
            requests=tuple(request for request in self.requests if request.item in indices),
            n_items=len(part),
            digest=digest({"whole": self.digest, "items": [item.digest for item in part]}),
            conditions={**self.conditions, "items": len(part), "items_in_all": self.n_items},
            _items=part,
        )

    def documents(self) -> tuple[Mapping[str, Any], ...]:
        """The task's own document of every item, in their order."""
        return tuple(item.instances[0].doc for item in self._items)

    def texts(self) -> tuple[TaskText, ...]:
        """Every item as text: what the model reads, the gold answer, the choices."""
        return tuple(
            TaskText(
                input=item.instances[0].args[0],
                output=item.gold,
                choices=item.choices,
                label=item.gold if self.choices and len(item.golds) == 1 else None,
                group=None if self.groups is None else str(plain_setting(item.instances[0].doc[self.groups])),
            )
            for item in self._items
        )

    def questions(self) -> tuple[TaskText, ...]:
        """As ``texts``, without the examples of a few-shot task: they come from its training split."""
        texts = self.texts()
        if not self.conditions.get("num_fewshot"):
            return texts
        questions = (self._task.doc_to_text(item.instances[0].doc) for item in self._items)
        return tuple(
            replace(text, input=question) if isinstance(question, str) and question else text
            for text, question in zip(texts, questions, strict=True)
        )

    @property
    def places(self) -> frozenset[str]:
        """Where its documents come from: a hub id, or the folders of its files on this machine."""
        config = self._task.config
        files = (config.dataset_kwargs or {}).get("data_files")
        names = files.values() if isinstance(files, Mapping) else [files]
        flat = [name for value in names for name in ([value] if isinstance(value, str) else value or ())]
        if config.dataset_path in FILE_FORMATS:
            return frozenset(os.path.normpath(Path(name).parent) for name in flat)
        return frozenset({str(config.dataset_path)} if config.dataset_path else ())


RenderChat = Callable[..., str]


def load_targets(study: Study, render_chat: RenderChat | None = None) -> tuple[LoadedTarget, ...]:
    """All targets of a study in its order. Raises one DataError that holds the faults of all of them.

    render_chat: as for `load_target`.
    """
    loaded: list[LoadedTarget] = []
    faults = []
    for target in all_targets(study):
        try:
            loaded += load_entry(study, target, render_chat)
        except DataError as fault:
            faults.append(str(fault))
    names = Counter(target.name.casefold() for target in loaded)
    faults += [
        f"target {target.name!r}: another target has this name; give one of the two entries another name"
        for target in loaded
        if names[target.name.casefold()] > 1
    ]
    if faults:
        raise DataError("\n".join(faults))
    return tuple(loaded)


def load_entry(
    study: Study, target: Target, render_chat: RenderChat | None = None
) -> tuple[LoadedTarget, ...]:
    """The targets of one entry of a study: one, or each task of a pack, group or tag.

    render_chat: as for `load_target`. Raises TargetError with the faults of all tasks of a group, each with
    the file and line that names the task; else as `load_target`.
    """
    if target.pack is not None:
        return _load_pack(study, target, render_chat)
    try:
        group = group_tasks(study, target) if target.task is not None else None
    except DataError as fault:
        raise DataError(f"target {target.name!r}: {fault}") from fault
    if group is None:
        return (load_target(study, target, render_chat),)
    members, faults = group
    loaded, problems = [], [SourceProblem("task", fault) for fault in faults]
    for member in members:
        tags = tuple(dict.fromkeys((*target.tags, *(name.split("::")[-1] for name in member.groups))))
        part = target.model_copy(update={"name": member.name, "tags": tags})
        try:
            loaded.append(_load(study, part, render_chat, member))
        except DataError as fault:
            problems.append(SourceProblem("task", f"{member.place}: {fault}"))
    if problems:
        raise TargetError(problems)
    return tuple(loaded)


def _load_pack(study: Study, target: Target, render_chat: RenderChat | None) -> tuple[LoadedTarget, ...]:
    """Every task of a pack, under its own name; the entry's limit, tags and chat template go before."""
    try:
        parts, left_out = pack_targets(
            [target.pack or ""], folder=study.folder, limit=target.limit, allow_code=True
        )
    except DataError as fault:
        raise TargetError([SourceProblem("pack", line) for line in str(fault).splitlines()]) from fault
    problems = [SourceProblem("pack", f"{name}: {reason}") for name, reason in left_out.items()]
    loaded: list[LoadedTarget] = []
    for part in parts:
        tags = tuple(dict.fromkeys((*target.tags, *part.tags)))
        chat = target.apply_chat_template or part.apply_chat_template
        ended = {"precision": target.precision, "decide": target.decide, "ask": target.ask}
        part = part.model_copy(update={"tags": tags, "apply_chat_template": chat, **ended})
        try:
            loaded += load_entry(study, part, render_chat)
        except DataError as fault:
            problems.append(SourceProblem("pack", str(fault)))
    if problems:
        raise TargetError(problems)
    return tuple(loaded)


def load_target(study: Study, target: Target, render_chat: RenderChat | None = None) -> LoadedTarget:
    """One target of a study: its task opened, its requests rendered, its metric chosen.

    render_chat: text of a conversation, as ``Engine.render_chat`` has it; needed by targets with
        ``apply_chat_template``, whose few-shot examples become turns, as in lm-eval.
    Raises DataError where the task does not load, render or score, or has no such metric or filter.
    """
    try:
        return _load(study, target, render_chat)
    except TargetError as fault:
        raise TargetError(
            [
                SourceProblem(problem.key, f"target {target.name!r}: {problem.message}")
                for problem in fault.problems
            ]
        ) from fault
    except DataError as fault:
        raise DataError(f"target {target.name!r}: {fault}") from fault


def _opened(
    study: Study, target: Target, render_chat: RenderChat | None, member: GroupTask | None
) -> tuple[Task, str, dict[str, Any]]:
    """The task of a target, what it was read as, and what of that belongs to its conditions."""
    if member is not None:
        copies = resolve(study.data, study.folder) if study.data else None
        task = open_config(member.task, dict(member.config), target.num_fewshot, copies)
        where = " > ".join(member.groups)
        score = f"; the group's own score: {member.aggregation}" if member.aggregation else ""
        group = {"groups": list(member.groups), "aggregation": member.aggregation}
        return task, f"a task of the group {where}{score}", {"group": group}
    if target.task is not None:
        return open_study_task(study, target.task, target.num_fewshot), "", {}
    rows = file_task(study, target, render_chat)
    name = Path(rows.dataset).name if os.path.isabs(rows.dataset) else rows.dataset
    conditions = {"dataset": name, "read_as": rows.read_as}
    return open_file_task(rows, target.num_fewshot), rows.read_as, conditions


def _load(
    study: Study, target: Target, render_chat: RenderChat | None, member: GroupTask | None = None
) -> LoadedTarget:
    limit = target.limit or study.limit
    task, read_as, origin = _opened(study, target, render_chat, member)
    items, notes, available = _ask(study, task, target, limit, render_chat)
    _require_column(task, target, items)
    metric, filter_name = _choose_metric(task, target, item_metrics(task, items))
    requests = tuple(
        _request(instance, item.index, repeat, target.name)
        for item in items
        for instance in item.instances
        for repeat in range(instance.repeats)
    )
    conditions = _conditions(task, target, metric, filter_name, limit, items)
    if limit is not None:
        drawn = {"limit_takes": study.limit_takes, "sample_seed": study.sample_seed}
        conditions |= {"available": available, **drawn}
    conditions |= {note.kind: note.count for note in notes if note.kind == "items_without_gold"}
    conditions |= origin
    spaces = {item.choices for item in items}
    choices = spaces.pop() or None if len(spaces) == 1 else None
    accuracy = metric in ACCURACIES
    return LoadedTarget(
        name=target.name,
        task=task.task_name,
        version=str(task.VERSION),
        kind=task.OUTPUT_TYPE,
        metric=metric,
        filter=filter_name,
        higher_is_better=_higher_is_better(task, target, metric),
        requests=requests,
        n_items=len(items),
        digest=_target_digest(task, metric, filter_name, items, requests, target.apply_chat_template),
        chance=chance_level(items) if accuracy else nan,
        majority=majority_level(items, choices) if accuracy or metric == "exact_match" else nan,
        tags=target.tags,
        choices=choices,
        conditions=conditions,
        groups=target.groups,
        precision=study.precision if target.precision is None else target.precision,
        decide=target.decide or study.decide,
        ask=target.ask or study.ask,
        refused=code_tests.why_not_executed(task.config.metadata, study.allow_code),
        read_as=read_as,
        caveats=notes,
        _task=task,
        _items=items,
    )


def open_file_task(rows: FileTask, num_fewshot: int | None = None) -> Task:
    """The lm-eval Task of rows of plain data."""
    function = rows.config.get("process_results")
    config = {**rows.config, "custom_dataset": partial(_splits, rows.documents)}
    if function is not None:
        config["process_results"] = getattr(answer_metrics, function.rpartition(".")[2])
    task = open_config(rows.config["task"], config, num_fewshot)
    task.set_config(key="custom_dataset", value=None)  # read by now, and no part of a copy that is sent
    file = os.path.isabs(rows.dataset)
    task.set_config(key="dataset_path", value="json" if file else rows.dataset)
    task.set_config(key="dataset_kwargs", value={"data_files": rows.dataset} if file else None)
    return task


def _splits(documents: Mapping[str, Sequence[Mapping[str, Any]]], **_: Any) -> DatasetDict:
    return DatasetDict({split: Dataset.from_list(list(rows)) for split, rows in documents.items()})


def _ask(
    study: Study, task: Task, target: Target, limit: int | None, render_chat: RenderChat | None
) -> tuple[tuple[Item, ...], tuple[Caveat, ...], int]:
    """Render the requests once, as ``lm_eval.evaluator.evaluate`` does, and group them by document.

    Items on which no answer can be right are left out, and told among the caveats. The number is that of the
    documents before a limit.
    """
    if target.apply_chat_template and render_chat is None:
        raise DataError("apply_chat_template needs a base model with a chat template")
    try:
        with quiet(), reproducible():
            with _limited(study, task, limit) as available, caveats.noted_examples(task) as drawn:
                task.build_all_requests(
                    limit=limit,
                    apply_chat_template=target.apply_chat_template,
                    fewshot_as_multiturn=target.apply_chat_template,
                    chat_template=render_chat if target.apply_chat_template else None,
                )
            groups = groupby(task.instances, key=lambda instance: instance.doc_id)
            items = tuple(_item(task, index, list(instances)) for index, instances in groups)
            kept, notes = _with_gold(task, items)
            notes += caveats.shown_answers(task, [item.instances[0].doc for item in items], drawn)
    except DataError:
        raise
    except Exception as fault:
        raise DataError(f"task {task.task_name!r} cannot be rendered: {reason(fault)}") from fault
    if not kept:
        choices = list(items[0].choices)
        absent = (
            f"item's gold answer is among its choices {choices!r}" if choices else "item has a gold answer"
        )
        raise DataError(
            f"task {task.task_name!r}: no {absent} (hidden labels? then choose another split in a task file "
            "of yours)"
        )
    contexts = [str(item.instances[0].args[0]) for item in kept]
    weighed = [[_weighed(instance) for instance in item.instances] for item in kept]
    notes += caveats.prompt_caveats(task, contexts, [list(filter(None, texts)) for texts in weighed])
    first = available if study.limit_takes == "first" else len(kept)
    notes += caveats.class_caveats([item.gold for item in kept], len(kept[0].choices), first or len(kept))
    for item, texts in zip(kept, weighed, strict=True):
        if "" in texts:
            raise DataError(
                f"task {task.task_name!r}, item {item.index}: answer {texts.index('') + 1} of {len(texts)} "
                "has no text, so there is nothing to weigh; fill it in the data, or leave such rows out"
            )
    return kept, tuple(notes), available or len(items)


@contextmanager
def _limited(study: Study, task: Task, limit: int | None) -> Iterator[int | None]:
    """lm-eval's walk over the documents in this block: a draw of them, unless the study takes the first.

    Gives the number of all documents, None without a limit. Drawn items keep their own places as numbers, a
    smaller limit takes some of what a larger one takes, and targets of one size get the same draw.
    """
    if limit is None:
        yield None
        return
    docs = task.eval_docs
    docs = docs if hasattr(docs, "__getitem__") else list(docs)
    if study.limit_takes == "first" or limit >= len(docs):
        yield len(docs)
        return
    indices = draw(len(docs), limit, study.sample_seed, "items of a target")
    vars(task)["doc_iterator"] = lambda **_: zip(indices, documents(docs, indices), strict=True)
    try:
        yield len(docs)
    finally:
        del vars(task)["doc_iterator"]


def _with_gold(task: Task, items: tuple[Item, ...]) -> tuple[tuple[Item, ...], list[Caveat]]:
    """Items on which an answer can be right, and what to tell of others; all where a task judges itself."""
    if not caveats.is_judged_by_gold(task):
        return items, []
    kept = tuple(item for item in items if caveats.has_gold(task, item.instances[0].doc, item.golds))
    beyond = sum(caveats.names_other_golds(task, item.instances[0].doc, item.golds) for item in kept)
    return kept, caveats.gold_caveats(len(items) - len(kept), len(items), beyond)


def _weighed(instance: Instance) -> str | None:
    """The text whose probability is asked for; None where a text is generated, or a whole one is read."""
    return str(instance.args[1]) if instance.request_type == "loglikelihood" else None


def _require_column(task: Task, target: Target, items: Sequence[Item]) -> None:
    """DataError where a document lacks the column that is to group items."""
    for item in items if target.groups is not None else ():
        if target.groups not in item.instances[0].doc:
            columns = ", ".join(map(str, item.instances[0].doc))
            raise DataError(
                f"groups {target.groups!r} is no column of task {task.task_name!r} (item {item.index}); its "
                f"columns: {columns}"
            )


def _item(task: Task, index: int, instances: list[Instance]) -> Item:
    doc = instances[0].doc
    choices: tuple[str, ...] = ()
    golds: tuple[int, ...] = ()
    if task.OUTPUT_TYPE == "multiple_choice":
        choices = tuple(str(choice) for choice in task.doc_to_choice(doc))
        golds = gold_choices(task, doc, choices)
        gold = " | ".join(choices[i] for i in golds)
    else:
        gold = "" if task.OUTPUT_TYPE == "loglikelihood_rolling" else gold_text(task, doc)
    requests = [
        [instance.request_type, plain_setting(instance.args), instance.repeats] for instance in instances
    ]
    content = digest([plain_setting(doc), requests, gold, choices, golds])
    ordered = tuple(sorted(instances, key=lambda instance: instance.idx))
    return Item(index, content, ordered, choices, golds, gold)


def _request(instance: Instance, item: int, repeat: int, target_name: str) -> Request:
    kind, args = instance.request_type, instance.args
    if kind != "generate_until":
        return Request(kind, args[0], continuation=args[1] if kind == "loglikelihood" else "", item=item)
    generation = dict(args[1])
    sampled = bool(generation.get("do_sample")) or float(generation.get("temperature") or 0) > 0
    seed = int(digest([target_name, item, instance.idx, repeat], 8), 16) if sampled else 0
    return Request(kind, args[0], generation=generation, item=item, seed=seed)


def _choose_metric(task: Task, target: Target, legal: Mapping[str, Mapping[str, bool]]) -> tuple[str, str]:
    """Metric and filter that the study names, or the task's first ones that a matrix can hold."""
    filter_name = target.filter or next(iter(legal))
    if filter_name not in legal:
        raise DataError(
            f"task {task.task_name!r} has no filter {filter_name!r}; its filters: {', '.join(legal)}"
        )
    metrics = legal[filter_name]
    usable = [metric for metric, of_items in metrics.items() if of_items]
    if target.metric is not None and target.metric not in metrics:
        raise DataError(
            f"task {task.task_name!r} has no metric {target.metric!r}; its metrics: {', '.join(metrics)}"
        )
    if not usable:
        raise DataError(
            f"task {task.task_name!r} has no metric that is a mean over items, as a matrix needs "
            f"(it has {', '.join(metrics) or 'none'}); give it a `process_results` of your own in a task file"
        )
    if target.metric is not None and target.metric not in usable:
        raise DataError(
            f"metric {target.metric!r} of task {task.task_name!r} is not a mean over items, as a matrix "
            f"needs; those that are: {', '.join(usable)} (the other aggregates are stored beside them)"
        )
    return target.metric or usable[0], filter_name


def _higher_is_better(task: Task, target: Target, metric: str) -> bool:
    """What the study says of the target, else what the task says of its metric."""
    if target.higher_is_better is not None:
        return target.higher_is_better
    return bool(task.higher_is_better().get(metric, True))


def _target_digest(
    task: Task,
    metric: str,
    filter_name: str,
    items: Sequence[Item],
    requests: Sequence[Request],
    chat: bool,
) -> str:
    """Names and paths are left out on purpose: renaming a target or moving its file changes no result."""
    config = task.config
    return digest(
        {
            "version": str(task.VERSION),
            "kind": task.OUTPUT_TYPE,
            "metric": metric,
            "filter": filter_name,
            "num_fewshot": config.num_fewshot,
            "fewshot_seed": FEWSHOT_SEED,
            "chat": chat,
            "requests": [[request.item, request.kind, request.seed] for request in requests],
            "items": [item.digest for item in items],
            "scoring": plain_setting([config.metric_list, config.filter_list, config.process_results]),
            "code": plain_setting(type(task)) if type(task).__module__ != "lm_eval.api.task" else None,
            "lm_eval": version("lm_eval"),
        }
    )


def _conditions(
    task: Task, target: Target, metric: str, filter_name: str, limit: int | None, items: Sequence[Item]
) -> dict[str, Any]:
    config = task.config
    split = config.test_split if task.has_test_docs() else config.validation_split
    dataset = config.dataset_path
    conditions: dict[str, Any] = {
        "task": task.task_name,
        "version": str(task.VERSION),
        # hub id or file format; of a folder on this machine only its name
        "dataset": Path(dataset).name if dataset and Path(dataset).is_absolute() else dataset,
        "split": split,
        "items": len(items),
        "limit": limit,
        "metric": metric,
        "filter": filter_name,
        "num_fewshot": config.num_fewshot,
        "fewshot_seed": FEWSHOT_SEED,
        "apply_chat_template": target.apply_chat_template,
        "lm_eval": version("lm_eval"),
    }
    if task.OUTPUT_TYPE == "generate_until":
        conditions["generation_kwargs"] = plain_setting(config.generation_kwargs)
        conditions["repeats"] = config.repeats
    if code_tests.executes_code(config.metadata):
        conditions["programs"] = code_tests.conditions()
    if task.OUTPUT_TYPE == "multiple_choice":
        conditions["items_without_gold"] = 0
    return conditions
