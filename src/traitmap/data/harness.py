"""The edge to lm-evaluation-harness: a task's name or YAML file in, one of its Task objects out.

First what keeps a task file from running code that the study does not allow: functions of its own, metrics
from the hub, pickles, templates without an end. Then finding, opening and seeding a task as lm-eval does, and
its training split as examples to learn from.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import io
import logging
import random
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import lm_eval
import numpy as np
import yaml
from datasets import Dataset
from jinja2 import BaseLoader, StrictUndefined, UndefinedError
from lm_eval import utils
from lm_eval.api.task import Task
from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml  # no public way to read a task file without building it
from lm_eval.utils import regex_replace

from traitmap.data.code_tests import executes_unsafely
from traitmap.data.copies import (
    cache_problem,
    network_advice,
    no_network,
    offline_where_unreachable,
    read_from_copy,
)
from traitmap.data.records import Example, Segment
from traitmap.data.rows import listed_columns
from traitmap.errors import DataError, whole_reason
from traitmap.study.paths import digest, is_task_file, resolve
from traitmap.study.settings import Study
from traitmap.study.template import BoundedEnvironment, BoundedTemplate, guarded, paid

# installed: as trusted as the programs themselves
_TRUSTED = (Path(lm_eval.__file__).parent / "tasks", Path(__file__).parents[1])
_TEMPLATES = 256  # compiled ones that are kept
_JUDGES = ("traitmap.data.code_tests.", "traitmap.data.answer_metrics.")  # ours, that task files may name
_TAGS = frozenset(
    f"tag:yaml.org,2002:{name}"
    for name in ("null", "bool", "int", "float", "str", "timestamp", "seq", "map", "merge", "value", "binary")
)
BUNDLED = Path(__file__).parent / "tasks"
FEWSHOT_SEED = DEFAULT_OTHER_SEED
_QUOTED = re.compile(r"'([^']+)'")
_READ_AT_ONCE = 1000  # rows of a dataset
_OWN_EXAMPLES = ("fewshot_config", "fewshot_split", "process_docs", "class")  # keys that may matter to them
FILE_FORMATS = ("arrow", "csv", "json", "parquet", "text")  # what `datasets` reads from plain files


class _TaskTemplate(BoundedTemplate):
    """A task's template, which tells the columns of a document where it reads one that is not there."""

    def render(self, *values: Any, **named: Any) -> str:
        try:
            return super().render(*values, **named)
        except UndefinedError as error:
            absent = _QUOTED.findall(error.message or "")[-1:]
            columns = listed_columns(dict(*values, **named), absent)
            raise UndefinedError(f"{error.message}; {columns}") from None


@lru_cache(maxsize=1)
def sandboxed_templates() -> BoundedEnvironment:
    """Put lm-eval's templates into a sandbox with an end, once: by themselves they may run any code."""
    environment = BoundedEnvironment(
        loader=BaseLoader(), undefined=StrictUndefined, keep_trailing_newline=True, finalize=paid
    )
    environment.template_class = _TaskTemplate
    environment.filters["regex_replace"] = guarded(regex_replace, "regex_replace")
    # lm-eval compiles a task's template anew for every row, a third of a millisecond each.
    vars(environment)["from_string"] = lru_cache(maxsize=_TEMPLATES)(environment.from_string)
    utils.env = environment
    return environment


def functions_of(path: Path) -> tuple[str, ...]:
    """Functions that a task file, or one that it includes, would import: not ours, not lm-eval's own.

    Nothing is imported to find out. Empty for task files that were installed with traitmap or lm-eval.
    """
    return tuple(dict.fromkeys(_named(path.resolve(), set())))


def _named(path: Path, seen: set[Path]) -> Iterator[str]:
    if path in seen or any(folder in path.parents for folder in _TRUSTED):
        return
    seen.add(path)
    root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    for node in _nodes(root):
        if node.tag not in _TAGS:
            name = str(node.value)
            beside = (path.parent / f"{name.rpartition('.')[0].replace('.', '/')}.py").exists()
            if beside or not name.startswith(_JUDGES):  # a file beside it would be taken for ours
                yield name
    for key, value in root.value if isinstance(root, yaml.MappingNode) else ():
        if key.value == "include":
            for node in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                yield from _named((path.parent / str(node.value)).resolve(), seen)


def _nodes(root: yaml.Node | None) -> Iterator[yaml.Node]:
    """Every node once, however often an alias repeats it."""
    waiting, seen = [root], set[int]()
    while waiting:
        node = waiting.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        if isinstance(node, yaml.MappingNode):
            waiting += [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value


def require_allowed(path: Path, allow_code: bool) -> None:
    """DataError where a task file would run functions of its own in a study that does not allow it."""
    functions = () if allow_code else functions_of(path)
    if functions:
        raise DataError(
            f"task file {path.name} runs Python functions of its own ({', '.join(functions[:5])}); read them "
            "and write `allow_code: true` into the study to let them run on this machine, outside any sandbox"
        )


def require_known_metrics(name: str, config: Mapping[str, Any]) -> None:
    """DataError for a metric that lm-eval does not have: it would fetch a program of that name and run it."""
    if config.get("process_results") is not None:
        return  # lm-eval then looks no metric up
    import lm_eval.api.metrics  # noqa: F401  # fills the registry
    from lm_eval.api.registry import metric_registry

    entries = config.get("metric_list")
    for entry in entries if isinstance(entries, list) else ():
        metric = entry.get("metric") if isinstance(entry, Mapping) else None
        foreign = isinstance(metric, str) and metric not in metric_registry
        if foreign or (isinstance(entry, Mapping) and entry.get("hf_evaluate")):
            raise DataError(
                f"task {name!r}: the metric {metric!r} is none of lm-eval's own: it would be fetched from "
                "the hub as a program and run, which traitmap never does. Use one of lm-eval's, or "
                "a function in process_results"
            )


def require_plain_data(name: str, config: Mapping[str, Any]) -> None:
    """DataError for data that are stored as pickles, which run code when they are read."""
    if config.get("dataset_path") == "pandas":
        raise DataError(
            f"task {name!r}: dataset_path: pandas reads pickles, which can run any program; convert the data "
            "to parquet, json or csv"
        )


def open_task(
    name: str,
    include_path: Sequence[str | Path] = (),
    num_fewshot: int | None = None,
    copies: Path | None = None,
    *,
    allow_code: bool = False,
) -> Task:
    """An lm-eval Task by name or by YAML file, as ``lm_eval`` would load and seed it.

    name: an installed, bundled or included task, or a path to a ``.yaml`` file. A task of an
        include_path wins over a bundled one, and that over an installed one.
    num_fewshot: examples in the prompt; None leaves it to the task (0 where it has no wish).
    copies: a folder with copies of hub datasets (`data.copies`).
    allow_code: whether functions may run that a task file names which is not installed here.

    A relative ``data_files``, ``data_dir`` or ``./`` dataset path is meant from the folder of the YAML
    file (and, as lm-eval has it, from the working directory where the first does not exist).
    Raises DataError for groups and tags, unknown names, multimodal tasks, tasks that execute
    generated code outside the sandbox, code that is not allowed, and whatever keeps the task from loading.
    """
    return open_config(name, _find_config(name, include_path, allow_code), num_fewshot, copies)


def open_config(
    name: str, config: dict[str, Any], num_fewshot: int | None = None, copies: Path | None = None
) -> Task:
    """An lm-eval Task of a configuration, as its task file would hold it; otherwise as `open_task`."""
    sandboxed_templates()
    config = read_from_copy(config, copies)
    require_plain_data(name, config)
    require_known_metrics(name, config)
    with quiet(), reproducible(), offline_where_unreachable():
        try:
            lean = config
            # lm-eval keeps every row of a training split to draw examples from, even where none is shown;
            # rows that go through a function first stay, since that function may draw random numbers
            shown = config.get("num_fewshot") if num_fewshot is None else num_fewshot
            if not shown and all(config.get(key) is None for key in _OWN_EXAMPLES):
                lean = {**config, "fewshot_config": {"samples": []}}
            loaded = TaskManager(include_defaults=False).load(lean)["tasks"]
            task: Task = next(iter(loaded.values()))
            if lean is not config:
                Task.fewshot_docs(task)  # a split of examples must be there, though none of them is read
        except Exception as fault:
            cause, dataset = reason(fault), config.get("dataset_path")
            if cause == "IndexError: string index out of range":  # lm-eval looks at how its choices begin
                cause += " (a choice of its first document is empty)"
            if problem := cache_problem(fault):
                cause = problem
            elif no_network(fault) and isinstance(dataset, str):
                cause = (
                    f"its dataset {dataset!r} is not on this machine and the hub cannot be reached ({cause})"
                )
                cause += f"; {network_advice(dataset)}"
            raise DataError(f"task {name!r} cannot be loaded: {cause}") from fault
        if getattr(task, "MULTIMODAL", False):
            raise DataError(f"task {name!r} needs images or sound; only text tasks can be used")
        if getattr(task, "UNSAFE_CODE", False):
            raise DataError(_unsafe(name))
        _set_fewshot(task, name, num_fewshot)
    return task


def open_study_task(study: Study, name: str, num_fewshot: int | None = None) -> Task:
    """`open_task` for a name that stands in a study file: relative paths are relative to that file."""
    include = [resolve(path, study.folder) for path in study.include_path]
    file = str(resolve(name, study.folder)) if is_task_file(name) else name
    copies = resolve(study.data, study.folder) if study.data else None
    return open_task(file, include, num_fewshot, copies, allow_code=study.allow_code)


def training_rows(task: Task) -> int:
    """Rows of the training split. Raises DataError where the task has none or it cannot be learnt from.

    The number of rows before any ``limit``; none is rendered.
    """
    return len(_training_docs(task))


def training_examples(task: Task, rows: Iterable[int] | None = None) -> list[Example]:
    """The training split, each row the zero-shot prompt and gold answer that the task would score.

    rows: indices of the rows to render, in this order (default: all); rendering takes lm-eval half a
        millisecond per row, so draw before you render.
    The prompt is not learnt, the answer is, with the delimiter that evaluation puts before it.
    ``label`` is the gold choice's text where the task has choices. Raises DataError where the task
    has no training split, writes its choices into the context, or has a row without a gold answer.
    """
    docs = _training_docs(task)
    with quiet(), reproducible():
        indices = range(len(docs)) if rows is None else list(rows)
        examples = []
        for row, doc in zip(indices, documents(docs, indices), strict=True):
            try:
                examples.append(_render_example(task, doc))
            except Exception as fault:
                cause = str(fault) if isinstance(fault, DataError) else reason(fault)
                raise DataError(f"task {task.task_name!r}, training row {row}: {cause}") from fault
        return examples


def gold_choices(task: Task, doc: Mapping[str, Any], choices: Sequence[str]) -> tuple[int, ...]:
    """Indices of the right choices of a multiple-choice document, as lm-eval reads them.

    Empty where the document names none of its choices (a hidden or faulty label).
    """
    gold = task.doc_to_text(doc) if getattr(task, "multiple_input", 0) else task.doc_to_target(doc)
    indices = []
    for answer in gold if isinstance(gold, list | tuple) else [gold]:
        if isinstance(answer, str) and answer in choices:
            indices.append(choices.index(answer))
        elif isinstance(answer, int | float | np.number) and 0 <= answer < len(choices):
            indices.append(int(answer))
    return tuple(indices)


def gold_text(task: Task, doc: Mapping[str, Any]) -> str:
    """Right answer of a document without choices to score; the first where several are right."""
    gold = task.doc_to_target(doc)
    if isinstance(gold, list | tuple):
        gold = gold[0] if gold else ""
    if isinstance(gold, int) and task.config.doc_to_choice is not None:
        gold = task.doc_to_choice(doc)[gold]
    return str(gold)


def reason(fault: BaseException) -> str:
    """The first cause of an exception in one line, ``ErrorType: message``; the message is whole."""
    while fault.__cause__ is not None:
        fault = fault.__cause__
    text = whole_reason(fault)
    name = type(fault).__name__
    if isinstance(fault, ModuleNotFoundError) and fault.name:
        text += f"; {_bringing(fault.name)}"
    return name if text == name else f"{name}: {text}"


def _bringing(module: str) -> str:
    """What to install for a module that a task imports: lm-eval's extra for it, where there is one."""
    for requirement in metadata.requires("lm_eval") or ():
        extra = re.search(r"extra == [\"'](.+?)[\"']", requirement)
        if extra and re.split(r"[^\w.-]", requirement)[0].replace("-", "_").lower() == module.lower():
            return f"pip install 'lm-eval[{extra[1]}]'"
    return f"install the package that has {module}"


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the logging, progress bars and warnings of lm-eval and datasets, and nothing for good."""
    loggers = [logging.getLogger(name) for name in ("lm_eval", "datasets")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        # tqdm looks up sys.stderr when a bar begins: this silences bars without touching tqdm.
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def reproducible() -> Iterator[None]:
    """lm-eval's own seeds for tasks that shuffle or sample while they load; the caller's state comes back."""
    state, numpy_state = random.getstate(), np.random.get_state()
    random.seed(DEFAULT_RANDOM_SEED)
    np.random.seed(DEFAULT_OTHER_SEED)
    try:
        yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)


def _find_config(name: str, include_path: Sequence[str | Path], allow_code: bool) -> dict[str, Any]:
    if is_task_file(name):
        path = Path(name).expanduser()
        if not path.is_file():
            raise DataError(f"task file {name} does not exist")
        return task_config(path, allow_code)
    index = task_index(include_path)
    entry = index.get(name) or installed_tasks().get(name)
    if entry is None:
        raise DataError(
            f"there is no task {name!r}: {alike(name, index)} "
            "A task file of yours is named by its path (ending in .yaml), or found through include_path."
        )
    if entry.kind.name in ("GROUP", "TAG"):
        raise DataError(
            _not_one_task(name, entry.kind.name.lower(), sorted(entry.tags) or _members(entry.cfg))
        )
    return task_config(Path(entry.yaml_path), allow_code)


def task_index(include_path: Sequence[str | Path]) -> dict[str, Any]:
    """lm-eval's index (name -> Entry) of the bundled tasks and those of some folders, which win."""
    for folder in include_path:
        if not Path(folder).is_dir():
            raise DataError(f"include_path {str(folder)!r} is not a folder")
    folders = [str(BUNDLED), *(str(Path(folder)) for folder in include_path)]
    with quiet():
        index: dict[str, Any] = TaskManager(include_path=folders, include_defaults=False).task_index
    return index


def alike(name: str, index: Mapping[str, Any]) -> str:
    """Advice for a task that is not there: names near to it, or where names are listed."""
    near = difflib.get_close_matches(name, [*index, *installed_tasks()], n=5, cutoff=0.6)
    return f"did you mean {', '.join(near)}?" if near else "`lm-eval ls tasks` lists the installed ones."


@functools.cache
def installed_tasks() -> dict[str, Any]:
    """lm-eval's built-in index: about 15,000 files to read, so only when it is needed, and once."""
    index = TaskManager().task_index
    return {
        name: dataclasses.replace(entry, cfg=None) if entry.kind.name == "TASK" else entry
        for name, entry in index.items()
    }


def _not_one_task(name: str, kind: str, members: Sequence[str]) -> str:
    listing = ", ".join(members[:12]) + (f" and {len(members) - 12} more" if len(members) > 12 else "")
    return f"{name!r} is a {kind} of {len(members)} tasks; name those that you want instead: {listing}"


def _members(config: Mapping[str, Any] | None) -> list[str]:
    tasks = (config or {}).get("task") or []
    return [
        str(task.get("task") or task.get("group")) if isinstance(task, dict) else str(task)
        for task in (tasks if isinstance(tasks, list) else [tasks])
    ]


def _unsafe(name: str) -> str:
    return (
        f"task {name!r} executes generated code through lm-eval, outside any sandbox, so it is never run; "
        "use `mbpp_sandboxed`, or a task file of yours with `process_results: !function "
        "traitmap.data.code_tests.passes` and `metadata: {executes_code: true}` (docs/paper-study.md)"
    )


def task_config(path: Path, allow_code: bool) -> dict[str, Any]:
    """The configuration of one task in a YAML file, what it includes put in, its data paths absolute."""
    config = read_config(path, allow_code)
    if is_group(config):
        raise DataError(_not_one_task(str(config.get("group", path.name)), "group", _members(config)))
    if not isinstance(config.get("task"), str):
        raise DataError(f"task file {path} has no `task:` key with the task's name; add one")
    return anchor_data(config, path.parent)


def is_group(config: Mapping[str, Any]) -> bool:
    """Whether a configuration holds several tasks; ``group`` beside a whole task is an old word for a tag."""
    whole = isinstance(config.get("task"), str) and "doc_to_text" in config
    return isinstance(config.get("task"), list) or ("group" in config and not whole)


def read_config(path: Path, allow_code: bool) -> dict[str, Any]:
    """What a YAML file of a task or a group holds, with what it includes. DataError for code not allowed."""
    try:
        with quiet():
            # first without its functions: importing those of lm-eval's code tasks runs a program
            if executes_unsafely(load_yaml(path, resolve_func=False)):
                raise DataError(_unsafe(path.stem))
            require_allowed(path, allow_code)
            return dict(load_yaml(path))
    except DataError:
        raise
    except Exception as fault:
        raise DataError(f"task file {path} cannot be read: {reason(fault)}") from fault


def anchor_data(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Make the paths of the task's data absolute; hub ids and files inside hub datasets stay as they are."""
    source = config.get("dataset_path")
    kwargs = dict(config.get("dataset_kwargs") or {})
    if source in FILE_FORMATS:
        for key in ("data_files", "data_dir"):
            if key in kwargs:
                kwargs[key] = _anchor(kwargs[key], folder)
    elif isinstance(source, str) and source.startswith(("./", "../")):
        config = {**config, "dataset_path": _anchor(source, folder)}
    return {**config, "dataset_kwargs": kwargs} if kwargs else config


def _anchor(value: Any, folder: Path) -> Any:
    if isinstance(value, Mapping):
        return {key: _anchor(item, folder) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_anchor(item, folder) for item in value]
    path = Path(value).expanduser()
    if "://" in value or path.is_absolute():
        return value
    beside_yaml = any(True for _ in folder.glob(value)) if "*" in value else (folder / path).exists()
    return value if not beside_yaml and path.exists() else str((folder / path).absolute())


def _set_fewshot(task: Task, name: str, num_fewshot: int | None) -> None:
    """As ``lm_eval.simple_evaluate`` does it, but what it would ignore is refused."""
    own = task.config.num_fewshot
    if num_fewshot is not None and num_fewshot != own:
        if own == 0:
            raise DataError(
                f"task {name!r} fixes num_fewshot at 0, which lm-eval never overrides (asked: "
                f"{num_fewshot}); leave num_fewshot out, or use a copy of the task file without that line"
            )
        task.set_config(key="num_fewshot", value=num_fewshot)
    elif own is None:
        task.set_config(key="num_fewshot", value=0)
    task.set_fewshot_seed(seed=FEWSHOT_SEED)


def _training_docs(task: Task) -> Sequence[Mapping[str, Any]]:
    name = task.task_name
    if not task.has_training_docs():
        raise DataError(
            f"task {name!r} has no training split: add `training_split` to a task file of your own, "
            "or give the source a `path`"
        )
    if getattr(task, "multiple_input", 0):
        raise DataError(
            f"task {name!r} puts each choice into the context (multiple inputs), so there is no completion "
            "to learn: give the source a `path` with `prompt` and `completion` templates"
        )
    with quiet(), reproducible():
        docs = task.training_docs()
        return docs if hasattr(docs, "__getitem__") else list(docs)


def documents(docs: Sequence[Mapping[str, Any]], rows: Sequence[int]) -> Iterator[Mapping[str, Any]]:
    """Rows of a split in this order; a dataset gives many at once far faster than each alone."""
    if not isinstance(docs, Dataset) or docs.format["type"] is not None or not docs.column_names:
        yield from (docs[row] for row in rows)
        return
    for start in range(0, len(rows), _READ_AT_ONCE):
        columns = docs[list(rows[start : start + _READ_AT_ONCE])]
        yield from (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))


def _render_example(task: Task, doc: Mapping[str, Any]) -> Example:
    prefix = task.doc_to_prefix(doc)
    prompt = task.fewshot_context(doc, num_fewshot=0, gen_prefix=prefix)
    if task.OUTPUT_TYPE == "generate_until":
        answer = gold_text(task, doc)
        delimiter = task.config.target_delimiter
        if prefix:  # as lm-eval writes its few-shot examples
            delimiter = "" if prefix[-1].isspace() or answer[:1].isspace() else " "
        label = answer if task.config.doc_to_choice is not None else None
        return _checked(prompt, delimiter, answer, label)
    # The request itself is the law for what is scored, so the scored continuation is what is learnt.
    requests = task.construct_requests(doc=doc, ctx=prompt, metadata=(task.task_name, 0, 1))
    if task.OUTPUT_TYPE == "loglikelihood_rolling":
        return _checked("", "", requests.args[0], None)
    if task.OUTPUT_TYPE == "loglikelihood":
        return _checked(prompt, "", requests.args[1], None)
    choices = task.doc_to_choice(doc)
    golds = gold_choices(task, doc, choices)
    if not golds:
        raise DataError(f"its answer {task.doc_to_target(doc)!r} is none of its choices {list(choices)!r}")
    choice = str(choices[golds[0]])
    return _checked(prompt, requests[golds[0]].args[1].removesuffix(choice), choice, choice)


def _checked(prompt: str, delimiter: str, answer: str, label: str | None) -> Example:
    if not answer.strip():
        raise DataError("its answer is empty")
    learnt = Segment(delimiter + answer, True)
    return Example((Segment(prompt, False), learnt) if prompt else (learnt,), label)


def plain_setting(value: Any) -> Any:
    """Any document or task setting as JSON data that is the same on every machine."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if np.isfinite(value) else str(value)
    if isinstance(value, np.generic):
        return plain_setting(value.item())
    if isinstance(value, Mapping):
        return {str(key): plain_setting(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain_setting(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((plain_setting(item) for item in value), key=str)
    if isinstance(value, functools.partial):
        return [plain_setting(value.func), plain_setting(value.args), plain_setting(value.keywords)]
    if not callable(value):
        return str(value)
    # a function or class: its name, and the digest of the file that it stands in
    try:
        file = inspect.getsourcefile(inspect.unwrap(value))
    except TypeError:
        file = None
    text = Path(file).read_text(encoding="utf-8") if file else ""
    return [str(getattr(value, "__qualname__", type(value).__qualname__)), digest(text)]
