"""Groups of lm-eval tasks as one entry of a study: every task of a group or tag, under a name of its own.

Groups hold names of tasks, groups and tags, and tasks and groups written out in place, each with settings
that replace the task's own; whatever else a group says is a setting for all its tasks. They are resolved as
``lm_eval.tasks._factory`` does it, task by task, so that each is looked at like a task of its own. Every
fault is told with the file and the line that names the task.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml
from lm_eval.config.group import GroupConfig

from traitmap.data.code_tests import executes_unsafely
from traitmap.data.harness import (
    alike,
    anchor_data,
    installed_tasks,
    is_group,
    read_config,
    reason,
    task_config,
    task_index,
)
from traitmap.errors import DataError
from traitmap.study.paths import is_task_file, resolve
from traitmap.study.settings import Study, Target

_OF_GROUP = frozenset(field.name for field in fields(GroupConfig))
_NO_SETTINGS = ("tag", "group", "task_list")  # of a task's configuration, which lm-eval drops, too
_DEEPEST = 10


@dataclass(frozen=True)
class GroupTask:
    """One task of a group.

    name: of the target that it becomes. task: lm-eval's name of it. config: its configuration, the group's
    settings over its own. groups: names of the groups that it stands in, the outermost first.
    aggregation: what these groups make of their tasks' metrics, in words; empty where they do not say.
    place: the file and line that names it.
    """

    name: str
    task: str
    config: Mapping[str, Any]
    groups: tuple[str, ...]
    aggregation: str
    place: str


def group_tasks(study: Study, target: Target) -> tuple[list[GroupTask], list[str]] | None:
    """The tasks of a target that is a group or a tag, each once, and all faults; None where it is one task.

    A task is called by the target's name, a dot and its own name, without the group's name in front of it;
    where two are called alike, the names of the groups between stand before their own. DataError where the
    group's file cannot be read.
    """
    name = target.task or ""
    include = [resolve(path, study.folder) for path in study.include_path]
    file = resolve(name, study.folder) if is_task_file(name) else None
    if file is not None and not file.is_file():
        return None  # told where the task is opened
    search = _Search(study.allow_code, include, file)
    if file is not None:
        config = read_config(file, study.allow_code)
        if not is_group(config):
            return None
        leaves = list(search.of_group(str(config.get("group", file.stem)), config, file, {}, ()))
    else:
        entry = search.entry(name)
        if entry is None or entry.kind.name not in ("GROUP", "TAG"):
            return None
        leaves = list(search.of_name(name, {}, (), target.name))
    named, clashes = _named(target.name, leaves)
    faults = [*search.faults, *clashes]
    if not named and not faults:
        faults.append(f"the group {name!r} has no tasks")
    return named, list(dict.fromkeys(faults))


@dataclass
class _Search:
    """One walk through groups; faults: all that is wrong on the way, each with its place."""

    allow_code: bool
    include: Sequence[Path]
    file: Path | None
    faults: list[str] = field(default_factory=list)
    _index: dict[str, Any] | None = None

    @property
    def index(self) -> dict[str, Any]:
        if self._index is None:
            beside = [self.file.parent] if self.file is not None else []  # tasks beside the group's file
            self._index = task_index([*self.include, *beside])
        return self._index

    def entry(self, name: str) -> Any:
        return self.index.get(name) or installed_tasks().get(name)

    def of_group(
        self,
        group: str,
        config: Mapping[str, Any],
        file: Path,
        overrides: Mapping[str, Any],
        outer: tuple[GroupConfig, ...],
        members: yaml.Node | None = None,
    ) -> Iterator[GroupTask]:
        """Tasks of one group. members: its list of tasks in the text, where that is no file of its own."""
        try:
            of_group = {key: value for key, value in config.items() if key in _OF_GROUP}
            groups = (*outer, GroupConfig(**{**of_group, "group": group}))
        except (TypeError, ValueError) as error:
            self.faults.append(f"{file}: the group {group!r} is not in order: {reason(error)}")
            return
        if len(groups) > _DEEPEST:
            names = " > ".join(record.group for record in groups)
            self.faults.append(f"{file}: groups stand in each other without end: {names}")
            return
        listing, node = (file, members) if members is not None else _list_of_tasks(file)
        items: Sequence[yaml.Node] = node.value if isinstance(node, yaml.SequenceNode) else ()
        lines = [item.start_mark.line + 1 for item in items]
        shared = {key: value for key, value in config.items() if key not in _OF_GROUP and key != "tag"}
        shared = {**self._anchored(shared, file), **overrides}
        tasks = config.get("task")
        for at, item in enumerate([tasks] if isinstance(tasks, str) else tasks or []):
            place = f"{listing}, line {lines[at]}" if at < len(lines) else str(listing)
            inner = items[at] if at < len(lines) else None
            yield from self._member(item, group, file, shared, groups, place, inner)

    def _member(
        self,
        item: Any,
        group: str,
        file: Path,
        shared: Mapping[str, Any],
        groups: tuple[GroupConfig, ...],
        place: str,
        node: yaml.Node | None,
    ) -> Iterator[GroupTask]:
        """One line of a group's list: a name, a name with settings, or a task or group written out."""
        if isinstance(item, str):
            yield from self.of_name(item, shared, groups, place)
            return
        if not isinstance(item, Mapping) or not ({"task", "group"} & set(item)):
            self.faults.append(f"{place}: {str(item)[:60]!r} is no name, and has no task or group; give one")
            return
        own = {key: value for key, value in item.items() if key not in ("task", "group")}
        if isinstance(item.get("task"), list):
            members = _value_of(node, "task")
            name = f"{group}::{item.get('group', 'group')}"
            yield from self.of_group(name, item, file, shared, groups, members or yaml.SequenceNode("", []))
            return
        name = str(item.get("group") or item["task"])
        settings = {**shared, **self._anchored(own, file)}
        if self.entry(name) is None and "group" not in item and "doc_to_text" in settings:
            inline = f"{group}::{name}"
            yield from self._leaf(inline, {**settings, "task": inline}, groups, place)
            return
        yield from self.of_name(name, settings, groups, place)

    def of_name(
        self, name: str, overrides: Mapping[str, Any], groups: tuple[GroupConfig, ...], place: str
    ) -> Iterator[GroupTask]:
        """Tasks behind one name."""
        entry = self.entry(name)
        if entry is None:
            self.faults.append(f"{place}: {self._absent(name)}")
            return
        kind = entry.kind.name
        if kind == "TAG":
            tag = (*groups, GroupConfig(group=name))
            for task in sorted(entry.tags):
                yield from self.of_name(task, overrides, tag, place)
            return
        try:
            if kind == "GROUP":
                config = read_config(Path(entry.yaml_path), self.allow_code)
                yield from self.of_group(name, config, Path(entry.yaml_path), overrides, groups)
                return
            config = task_config(Path(entry.yaml_path), self.allow_code)
        except DataError as error:
            self.faults.append(f"{place}: {error}")
            return
        yield from self._leaf(name, {**config, **overrides, "task": name}, groups, place)

    def _leaf(
        self, name: str, config: Mapping[str, Any], groups: tuple[GroupConfig, ...], place: str
    ) -> Iterator[GroupTask]:
        if executes_unsafely(config):
            self.faults.append(f"{place}: task {name!r} executes generated code outside any sandbox")
            return
        plain = {key: value for key, value in config.items() if key not in _NO_SETTINGS}
        names = tuple(group.group for group in groups)
        words = [_aggregation(group) for group in groups if group.aggregate_metric_list]
        yield GroupTask("", name, plain, names, "; ".join(words), place)

    def _anchored(self, settings: dict[str, Any], file: Path) -> dict[str, Any]:
        if not settings:
            return settings
        # without a dataset_path of their own, files are those of the task's format, whichever that is
        known = {"dataset_path": "json", **settings}
        anchored = anchor_data(known, file.parent)
        return {key: anchored[key] for key in settings}

    def _absent(self, name: str) -> str:
        message = f"there is no task {name!r}: {alike(name, self.index)}"
        for folder in (*self.include, *([self.file.parent] if self.file is not None else [])):
            for path in sorted(folder.glob("**/*.yaml")):  # those that the index has passed over
                try:
                    yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
                except (yaml.YAMLError, OSError, ValueError) as error:
                    message += f" {path} cannot be read: {' '.join(str(error).split())[:200]}"
        return message


def _list_of_tasks(file: Path) -> tuple[Path, yaml.Node | None]:
    """Where in a file, or in one that it includes, a group's tasks are listed."""
    try:
        root = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, OSError, ValueError):
        return file, None
    if (node := _value_of(root, "task")) is not None:
        return file, node
    included = _value_of(root, "include")
    for item in included.value if isinstance(included, yaml.SequenceNode) else [included]:
        if isinstance(item, yaml.ScalarNode):
            place, node = _list_of_tasks((file.parent / str(item.value)).resolve())
            if node is not None:
                return place, node
    return file, None


def _value_of(node: yaml.Node | None, key: str) -> yaml.Node | None:
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    return next((value for name, value in pairs if name.value == key), None)


def _aggregation(group: GroupConfig) -> str:
    """What a group makes of its tasks' metrics, e.g. ``mmlu: mean of acc, weighted by items``."""
    parts = []
    for entry in group.aggregate_metric_list or ():
        how = entry.aggregation if isinstance(entry.aggregation, str) else "a function"
        weight = "weighted by items" if entry.weight_by_size else "each task alike"
        parts.append(f"{how} of {entry.metric}, {weight}")
    return f"{group.group}: {'; '.join(parts)}"


def _named(target: str, leaves: Sequence[GroupTask]) -> tuple[list[GroupTask], list[str]]:
    """Tasks under names of their own, each once, and what keeps names apart."""
    unlike: list[GroupTask] = []
    for leaf in leaves:
        if not any(leaf.task == other.task and leaf.config == other.config for other in unlike):
            unlike.append(leaf)
    short = [_legal(f"{target}.{_without_group(leaf)}") for leaf in unlike]
    counts = Counter(name.casefold() for name in short)
    named: list[GroupTask] = []
    first: dict[str, str] = {}
    faults = []
    for leaf, name in zip(unlike, short, strict=True):
        if counts[name.casefold()] > 1:
            name = _legal(".".join([target, *leaf.groups[1:], leaf.task]))
        if earlier := first.get(name.casefold()):
            faults.append(
                f"{leaf.place}: task {leaf.task!r} stands in the group already ({earlier}), with other "
                "settings; give one of the two another task name"
            )
        first[name.casefold()] = leaf.place
        named.append(replace(leaf, name=name))
    return named, faults


def _without_group(leaf: GroupTask) -> str:
    name = leaf.task.rpartition("::")[2]
    group = leaf.groups[0] if leaf.groups else ""
    return name.removeprefix(f"{group}_") or name


def _legal(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:100]
