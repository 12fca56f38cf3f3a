"""Programs that a task file brings: functions of its own, and metrics that lie on the hub as Python code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import lm_eval
import yaml
from jinja2 import BaseLoader, StrictUndefined
from lm_eval import utils
from lm_eval.utils import regex_replace

from traitmap.errors import DataError
from traitmap.study.bounded_template import BoundedEnvironment, guarded, paid

_OURS = Path(__file__).parents[1]
_TRUSTED = (
    Path(lm_eval.__file__).parent / "tasks",
    _OURS,
)  # installed: as trusted as the programs themselves
_TEMPLATES = 256  # compiled ones that are kept
_JUDGE = "traitmap.data.code_tests."  # functions of ours that task files may name


@lru_cache(maxsize=1)
def sandboxed_templates() -> BoundedEnvironment:
    """Put lm-eval's templates into a sandbox with an end, once: by themselves they may run any code."""
    found = BoundedEnvironment(
        loader=BaseLoader(), undefined=StrictUndefined, keep_trailing_newline=True, finalize=paid
    )
    found.filters["regex_replace"] = guarded(regex_replace, "regex_replace")
    # lm-eval compiles a task's template anew for every row, a third of a millisecond each.
    vars(found)["from_string"] = lru_cache(maxsize=_TEMPLATES)(found.from_string)
    utils.env = found
    return found


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
            if beside or not name.startswith(_JUDGE):  # a file beside it would be taken for ours
                yield name
    for key, value in root.value if isinstance(root, yaml.MappingNode) else ():
        if key.value == "include":
            for node in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                yield from _named((path.parent / str(node.value)).resolve(), seen)


_TAGS = frozenset(
    f"tag:yaml.org,2002:{name}"
    for name in ("null", "bool", "int", "float", "str", "timestamp", "seq", "map", "merge", "value", "binary")
)


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
            waiting += [one for pair in node.value for one in pair]
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

    listed = config.get("metric_list")
    for one in listed if isinstance(listed, list) else ():
        metric = one.get("metric") if isinstance(one, Mapping) else None
        foreign = isinstance(metric, str) and metric not in metric_registry
        if foreign or (isinstance(one, Mapping) and one.get("hf_evaluate")):
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
