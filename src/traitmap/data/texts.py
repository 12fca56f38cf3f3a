"""What is known of tasks beside their scores: their texts, and small files that a user gives.

Texts (input, output, choices) come from sources, targets or a JSONL file, wherever profiles and recommenders
read them. The files are groups of targets (CSV), measured gains (CSV) and embeddings (NPZ). And the neutral
text on which drift is measured.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from traitmap.errors import DataError
from traitmap.study.paths import MINI, resolve

if TYPE_CHECKING:
    from traitmap.data.sources import LoadedSource
    from traitmap.data.targets import LoadedTarget
    from traitmap.study.settings import Study


@dataclass(frozen=True)
class TaskText:
    """One rendered item of a task.

    input: what the model reads. output: what is learnt from, or the gold answer; empty where unknown.
    choices: answers to choose from; empty where the answer is free text.
    label: the class, where the item has one (its word). group: what the item belongs to (a document), where
    the study names a column of the task that tells.
    """

    input: str
    output: str
    choices: tuple[str, ...] = ()
    label: str | None = None
    group: str | None = None


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


@dataclass(frozen=True)
class TargetGroups:
    """Target -> group, and for every further column of the file: attribute -> task -> value."""

    groups: Mapping[str, str]
    attributes: Mapping[str, Mapping[str, str]]


def read_groups(path: str | Path) -> TargetGroups:
    """Read a CSV with a header: first column targets, second their groups, further ones attributes.

    Empty attributes are unknown; a row without group only gives attributes, of a source for instance.
    Raises DataError with the line of whatever cannot be used.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            lines = [row for row in csv.reader(stream) if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path} cannot be read as a CSV of groups: {error}; give a file with the columns target and "
            "group, or one of target, source, cell"
        ) from error
    if len(lines) < 2 or len(lines[0]) < 2:
        raise DataError(f"{path} needs a header and rows with two columns: a target and its group")
    header = [cell.strip() for cell in lines[0]]
    groups: dict[str, str] = {}
    seen: set[str] = set()
    attributes: dict[str, dict[str, str]] = {name: {} for name in header[2:]}
    for number, row in enumerate(lines[1:], start=2):
        cells = [cell.strip() for cell in row]
        if len(cells) != len(header) or not cells[0] or not (cells[1] or header[2:]):
            raise DataError(
                f"{path}, row {number} is {','.join(row)!r}; give a target and its group in every row, "
                f"and as many cells as the header has ({len(header)})"
            )
        if cells[0] in seen:
            raise DataError(f"{path}, row {number}: target {cells[0]!r} stands there twice; keep one row")
        seen.add(cells[0])
        if cells[1]:
            groups[cells[0]] = cells[1]
        for name, value in zip(header[2:], cells[2:], strict=True):
            if value:
                attributes[name][cells[0]] = value
    return TargetGroups(groups, attributes)


_LEGAL = "source, gain, and stderr or n (columns of a CSV with a header)"


def read_probes(path: str | Path) -> list[tuple[str, float, float, int]]:
    """(source, gain, stderr, n) of every row; NaN and 0 where stderr and n are not given.

    Raises DataError with the line and the value that cannot be used.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            rows = list(reader)
            header = [name.strip() for name in reader.fieldnames or ()]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV: {error}") from error
    if not {"source", "gain"} <= set(header):
        raise DataError(f"{path} has the columns {', '.join(header) or 'none'}; give {_LEGAL}")
    if not rows:
        raise DataError(f"{path} has no rows; give one for each source that was measured")
    probes = [_probe(path, line, row) for line, row in enumerate(rows, start=2)]
    names = [source for source, *_ in probes]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(f"{path}: {', '.join(repeated)} stands more than once; give one row for each source")
    return probes


def _probe(path: Path, line: int, row: dict[str, str | None]) -> tuple[str, float, float, int]:
    cells = {(name or "").strip(): (value or "").strip() for name, value in row.items() if name is not None}
    source = cells["source"]
    if not source:
        raise DataError(f"{path}, line {line}: no source is named")
    numbers = []
    for name in ("gain", "stderr", "n"):
        text = cells.get(name, "")
        try:
            numbers.append(float(text) if text else nan)
        except ValueError:
            numbers.append(inf)
        if text and not isfinite(numbers[-1]):
            raise DataError(f"{path}, line {line}: {name} is {text!r}; give a number, or leave it empty")
    gain, stderr, n = numbers
    if not isfinite(gain):
        raise DataError(f"{path}, line {line}: the gain of {source!r} is empty; give a number")
    if stderr < 0 or n < 0:
        raise DataError(f"{path}, line {line}: stderr and n of {source!r} cannot be negative")
    return source, gain, stderr, int(n) if isfinite(n) else 0


def read_similarity(path: str | Path) -> dict[str, dict[tuple[str, str], float]]:
    """Measures of how alike tasks are, from a CSV: name -> (source, target) -> number, higher is more alike.

    A long table has the columns source and target and one column for each measure; any other is taken as one
    measure, named after the file, with sources in its first column and a column for each target. Empty cells
    are unknown. Raises DataError with every line that holds anything but numbers (at most twenty).
    """
    path = Path(path)
    opener: Any = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="") as stream:
            header, *lines = [row for row in csv.reader(stream) if any(cell.strip() for cell in row)] or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a CSV of similarities: {error}") from error
    names = [cell.strip() for cell in header]
    long = {"source", "target"} <= set(names)
    measures = (
        [name for name in names if name not in ("source", "target")] if long else [path.name.split(".")[0]]
    )
    if not lines or not measures or len(names) < 2:
        raise DataError(
            f"{path} holds no similarities; give the columns source, target and one or more of numbers, or a "
            "table with sources in its first column and a column for each target"
        )
    found: dict[str, dict[tuple[str, str], float]] = {measure: {} for measure in measures}
    faults = []
    for number, line in enumerate(lines, start=2):
        row = dict(zip(names, (cell.strip() for cell in line), strict=False))
        source = row.get("source", "") if long else line[0].strip()
        for name in names if long else names[1:]:
            text = row.get(name, "")
            if not text or name in ("source", "target"):
                continue
            try:
                value = float(text)
            except ValueError:
                value = inf
            if not isfinite(value):
                faults.append(f"{path}, row {number}: {name} is {text!r}; give a number, or leave it empty")
                continue
            if long:
                found[name][source, row.get("target", "")] = value
            else:
                found[measures[0]][source, name] = value
    if faults:
        more = f"\n... and {len(faults) - 20} more" if len(faults) > 20 else ""
        raise DataError("\n".join(faults[:20]) + more)
    return {measure: values for measure, values in found.items() if values}


def read_embeddings(path: str | Path) -> dict[str, NDArray[np.float64]]:
    """Arrays by task: a vector (D,) or several (n, D), as float64.

    Nothing is unpickled. DataError where the file holds anything but numbers, or no array.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as stored:
            if not hasattr(stored, "files"):
                raise DataError(f"{path} holds one array; give an NPZ file with one array for each task")
            arrays = {name: np.asarray(stored[name], dtype=float) for name in stored.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read as an NPZ file of numbers: {error}") from error
    if not arrays:
        raise DataError(f"{path} holds no arrays; give one for each task, under its name")
    return arrays


NEUTRAL = Path(__file__).with_name("neutral.txt")
_OF_MINI = (60, 1)  # documents, and their seed: not that of the base's own


def neutral_texts(study: Study) -> tuple[str, ...]:
    """Paragraphs that have nothing to do with a study, on which drift is measured (``study.drift``).

    Those of ``neutral.txt``, everyday prose of our own; for the embedded base, which knows few words, text of
    its own world that it was not trained on; or those of a file. DataError where it holds fewer than two.
    """
    if study.drift is True and study.model.path == MINI:
        from traitmap.mini.corpus import documents  # only where it is asked for

        return tuple(documents(*_OF_MINI))
    path = resolve(study.drift, study.folder) if isinstance(study.drift, str) else NEUTRAL
    try:
        content = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"drift: {path} cannot be read as text: {error}") from error
    paragraphs = re.split(r"\n[ \t]*\n\s*", content.strip())
    if len(paragraphs) < 2:
        raise DataError(
            f"drift: {path} holds {len(paragraphs)} paragraph; give two or more with blank lines between them"
        )
    return tuple(paragraphs)
