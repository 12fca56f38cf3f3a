"""Texts of tasks, as profiles and recommenders read them: input, output, choices, wherever they come from."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitmap.errors import DataError

if TYPE_CHECKING:
    from traitmap.data.sources import LoadedSource
    from traitmap.data.targets import LoadedTarget


@dataclass(frozen=True)
class TaskText:
    """One rendered item of a task.

    input: what the model reads. output: what is learnt from, or the gold answer; empty where unknown.
    choices: answers to choose from; empty where the answer is free text.
    label: the class, where the item has one (its word).
    """

    input: str
    output: str
    choices: tuple[str, ...] = ()
    label: str | None = None


Texts = Mapping[str, Sequence[TaskText]]


def read_texts(path: str | Path, *, task: str | None = None) -> dict[str, tuple[TaskText, ...]]:
    """Texts by task from JSONL rows ``{task, input, output, choices, label}`` (also ``.gz``).

    ``task`` and ``input`` are needed; ``task`` stands for rows without one. Raises DataError with every
    fault, the first line that has it and how many more do (at most twenty faults).
    """
    path = Path(path)
    texts: dict[str, list[TaskText]] = {}
    faults: dict[str, list[int]] = {}
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        row = _row(line, task)
        if isinstance(row, str):
            faults.setdefault(row, []).append(number)
            continue
        name, text = row
        texts.setdefault(name, []).append(text)
    if faults:
        messages = []
        for fault, numbers in faults.items():
            more = f" (and {len(numbers) - 1} more alike)" if len(numbers) > 1 else ""
            messages.append(f"{path}, line {numbers[0]}{more}: {fault}")
        more = f"\n... and {len(messages) - 20} more" if len(messages) > 20 else ""
        raise DataError("\n".join(messages[:20]) + more)
    if not texts:
        raise DataError(f"{path} holds no rows; give one JSON object per line: task, input, output, choices")
    return {name: tuple(rows) for name, rows in texts.items()}


def read_examples(path: str | Path) -> tuple[TaskText, ...]:
    """Texts of one task from JSONL rows ``{input, output, choices}``; ``task`` may be left out.

    Raises DataError with every faulty line, and where rows name more than one task.
    """
    texts = read_texts(path, task="examples")
    if len(texts) > 1:
        raise DataError(f"{path} holds examples of {', '.join(sorted(texts))}; give those of one task")
    return next(iter(texts.values()))


def texts_of_sources(sources: Iterable[LoadedSource]) -> dict[str, tuple[TaskText, ...]]:
    """Training examples of every source that has any; an adapter that existed before has none."""
    return {
        source.name: tuple(
            TaskText(example.prompt, example.completion, tuple(source.label_counts), example.label)
            for example in source.examples
        )
        for source in sources
        if source.examples
    }


def texts_of_targets(targets: Iterable[LoadedTarget]) -> dict[str, tuple[TaskText, ...]]:
    """The items of every target as its task renders them, with their gold answers."""
    return {target.name: tuple(target.texts()) for target in targets}


def questions_of_targets(targets: Iterable[LoadedTarget]) -> dict[str, tuple[TaskText, ...]]:
    """The items of every target as ``texts_of_targets`` has them, without few-shot examples in front."""
    return {target.name: tuple(target.questions()) for target in targets}


def _lines(path: Path) -> Iterable[str]:
    opener: Any = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as stream:
            yield from stream
    except FileNotFoundError:
        raise DataError(f"{path} cannot be read: there is no such file; give a JSONL file") from None
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 JSONL: {error}") from error


def _row(line: str, task: str | None) -> tuple[str, TaskText] | str:
    """Task and text of one line, or what is wrong with it."""
    try:
        row = json.loads(line)
    except ValueError as error:
        return f"not valid JSON ({error}); give one object per line"
    if not isinstance(row, dict):
        return f"a {type(row).__name__}, not an object; give task, input, output, choices"
    needed = ("task", "input") if task is None else ("input",)
    if missing := [key for key in needed if key not in row]:
        keys = ", ".join(list(row)[:8])
        named = "task (the dataset's name) and " if task is None else ""
        return (
            f"no {' and no '.join(missing)} among its keys ({keys}); every row needs {named}input (the text "
            "that is read)"
        )
    if task is not None:
        row.setdefault("task", task)
    for key in ("task", "input"):
        if not isinstance(row.get(key), str) or (key == "task" and not row[key]):
            return f"{key!r} is {row.get(key)!r}; give text"
    output, choices, label = row.get("output"), row.get("choices"), row.get("label")
    if not isinstance(output, str | None):
        return f"'output' is {output!r}; give text, or leave it out"
    if choices is not None and not (
        isinstance(choices, list) and all(isinstance(choice, str) for choice in choices)
    ):
        return f"'choices' is {choices!r}; give a list of texts, or leave it out"
    if label is not None and not isinstance(label, str | int):
        return f"'label' is {label!r}; give text, or leave it out"
    return row["task"], TaskText(
        row["input"], output or "", tuple(choices or ()), None if label is None else str(label)
    )
