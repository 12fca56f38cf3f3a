"""Packs: lists of lm-eval tasks that belong together, each with why it is in, how much is asked, its licence.

Packs of the package lie in ``data/packs``; one of your own is a YAML file of the same form. A pack becomes
targets of a study, called by their tasks.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError

from traitmap.errors import DataError
from traitmap.study.load import legal_values
from traitmap.study.paths import is_task_file, resolve, task_stem
from traitmap.study.settings import Target
from traitmap.study.values import NOT_EMPTY, Count, Name, Settings, Text, Whole

FOLDER = Path(__file__).parent / "packs"


class PackTask(Settings):
    """One task of a pack.

    task: lm-eval's name, or a task file beside the pack. limit: items at most. metric, filter: as a
    target has them.
    direction: whether a higher or a lower score is better, whatever lm-eval says of the metric.
    chance: score of guessing. area: what it is about, in a word. licence: of the data. why: it is in.
    num_fewshot, apply_chat_template: as in a target. needs: Python packages that it cannot do without;
    extra: of traitmap, which brings them. needs_nltk: resources of NLTK, such as ``tokenizers/punkt_tab``.
    runs_code: whether programs that the model wrote are run to judge it, in the sandbox.
    """

    task: Text
    limit: Count
    metric: Text
    filter: Text | None = None
    direction: Literal["higher", "lower"] = "higher"
    chance: Annotated[float, Field(ge=0, le=1)]
    area: Text = ""
    licence: Text
    why: Text
    num_fewshot: Annotated[Whole, Field(ge=0)] | None = None
    apply_chat_template: bool = False
    needs: tuple[Text, ...] = ()
    extra: Text | None = None
    needs_nltk: tuple[Text, ...] = ()
    runs_code: bool = False

    @property
    def absent(self) -> str:
        """Why this machine cannot ask the task, and what to do; empty where it can."""
        missing = [name for name in self.needs if importlib.util.find_spec(name) is None]
        if missing:
            brought = f"'traitmap[{self.extra}]'" if self.extra else " ".join(missing)
            return f"needs {', '.join(missing)}: pip install {brought}"
        absent = [name.rpartition("/")[2] for name in self.needs_nltk if not _nltk_has(name)]
        return f"needs data of NLTK: python -m nltk.downloader {' '.join(absent)}" if absent else ""

    def target(self, tags: Sequence[str] = (), limit: int | None = None) -> Target:
        """The target of a study that asks this task. limit: instead of the pack's own."""
        words = dict.fromkeys((*tags, *([self.area] if self.area else [])))
        return Target(
            name=task_stem(self.task),
            task=self.task,
            limit=limit or self.limit,
            metric=self.metric,
            filter=self.filter,
            higher_is_better=self.direction == "higher",
            num_fewshot=self.num_fewshot,
            apply_chat_template=self.apply_chat_template,
            tags=tuple(words),
        )


class Pack(Settings):
    """A pack as its file has it. name: what it is called; about: in a few words."""

    name: Name
    about: Text
    tasks: Annotated[tuple[PackTask, ...], NOT_EMPTY]


def _nltk_has(resource: str) -> bool:
    import nltk  # takes a second

    try:
        nltk.data.find(resource)
    except LookupError:
        return False
    return True


@cache
def pack_names() -> tuple[str, ...]:
    """Packs of the package, ``general`` first and ``mini``, which is for the embedded base alone, last."""
    names = sorted(file.stem for file in FOLDER.glob("*.yaml"))
    return tuple(sorted(names, key=lambda name: (name == "mini", name != "general", name)))


def read_pack(name: str, folder: Path | None = None) -> Pack:
    """A pack of the package by its name, or one of your own by its file.

    folder: where a relative file starts from. Task files in it are meant from the pack's own folder.
    DataError with every fault of the file, and where there is no such pack.
    """
    if not is_task_file(name):
        if name not in pack_names():
            legal = ", ".join(pack_names())
            raise DataError(f"there is no pack {name!r}; give one of {legal}, or a YAML file of your own")
        file = FOLDER / f"{name}.yaml"
    else:
        file = resolve(name, folder or Path.cwd())
    try:
        data: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"pack {file}: it cannot be read ({' '.join(str(error).split())[:200]})") from None
    try:
        pack = Pack.model_validate(data)
    except ValidationError as error:
        faults = [_words(wrong) for wrong in error.errors(include_url=False)]
        raise DataError("\n".join(f"pack {file}, {fault}" for fault in faults)) from None
    twice = {task.task for task in pack.tasks if sum(task.task == other.task for other in pack.tasks) > 1}
    if twice:
        raise DataError(f"pack {file}: {', '.join(sorted(twice))} stands in it more than once; keep one")
    tasks = tuple(
        task.model_copy(update={"task": str(resolve(task.task, file.parent))})
        if is_task_file(task.task)
        else task
        for task in pack.tasks
    )
    return pack.model_copy(update={"tasks": tasks})


def _words(wrong: Any) -> str:
    """A fault of validation with its place: ``tasks[2].limit: 0 is not legal; give a whole number, ...``."""
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in wrong["loc"]).lstrip(".")
    fields = PackTask.model_fields if "tasks[" in place else Pack.model_fields
    key = str(wrong["loc"][-1]) if wrong["loc"] else ""
    if wrong["type"] == "missing":
        return f"{place}: required, but not given"
    if wrong["type"] == "extra_forbidden":
        return f"{place}: unknown key; legal here: {', '.join(fields)}"
    if key in fields:
        legal = legal_values(fields[key].annotation, fields[key].metadata)
        return f"{place}: {wrong['input']!r} is not legal; give {legal}"
    return f"{place or 'file'}: {wrong['msg']}; a pack has {', '.join(fields)}"


def pack_targets(
    names: Sequence[str],
    *,
    folder: Path | None = None,
    only: Sequence[str] = (),
    limit: int | None = None,
    allow_code: bool = False,
) -> tuple[tuple[Target, ...], dict[str, str]]:
    """Targets of several packs, each task once, and those left out with the reason.

    only: names of tasks to keep. limit: items of each, instead of the packs' own. allow_code: whether tasks
    that run programs are asked. DataError where a pack cannot be read, ``only`` names no task of them, or
    nothing is left.
    """
    packs = [read_pack(name, folder) for name in names]
    tasks = {task_stem(task.task): (pack, task) for pack in reversed(packs) for task in reversed(pack.tasks)}
    tasks = dict(reversed(tasks.items()))
    if absent := sorted(set(only) - tasks.keys()):
        raise DataError(f"{', '.join(absent)}: no task of the packs; they have {', '.join(tasks)}")
    targets, left_out = [], {}
    for name, (pack, task) in tasks.items():
        if only and name not in only:
            continue
        if reason := task.absent:
            left_out[name] = reason
        elif task.runs_code and not allow_code:
            left_out[name] = "runs programs that the model wrote, in the sandbox; allow it with --allow-code"
        else:
            targets.append(task.target((pack.name,), limit))
    if not targets:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise DataError(f"the packs ask nothing here: {reasons}")
    return tuple(targets), left_out
