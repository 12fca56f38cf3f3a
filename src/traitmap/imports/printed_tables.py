"""Tables that harnesses print: lm-eval's (0.3 and 0.4) and lighteval's, alone or with a log around them.

``|Tasks|Version|Filter|n-shot|Metric| |Value| |Stderr|``: a row for each metric, tasks of a group indented
with `` - ``, an arrow for the direction, ``±`` before the standard error. What stands in no column is read
off the line that lm-eval prints above: the model, the limit, the settings of generation.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from traitmap.errors import MatrixError
from traitmap.imports.reading import Evaluation, known_setting, model_variant, number
from traitmap.matrix.tables import is_printed_table, text_of
from traitmap.metrics import direction

KIND = "printed table of lm-eval or lighteval"
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_RULE = re.compile(r"[\s|:+-]*")
_INDENT = re.compile(r"(\s*)-\s+(.*)")
# lm-eval's own line: ``hf (pretrained=org/base,dtype=float), gen_kwargs: (None), limit: None, ...``
_RUN = re.compile(
    r"\b([\w.-]+) \((.*?)\), (?:gen_kwargs: \((.*?)\), )?limit: (\S+), "
    r"(?:provide_description: \S+, )?num_fewshot: (\w+)"
)
_LONGEST = 20_000  # characters of a line that may be lm-eval's


@dataclass(frozen=True)
class PrintedRow:
    """One metric of one task, as it is printed.

    line: of the file, from 1. path: the groups that the task is in, outermost first, and itself.
    cells: by the head of their column, in small letters; the arrow is ``direction``.
    """

    line: int
    path: tuple[str, ...]
    cells: Mapping[str, str]


@dataclass(frozen=True)
class PrintedTable:
    """One table with what the line above it says of the run; empty where no line says anything."""

    line: int
    groups: bool
    rows: tuple[PrintedRow, ...]
    model: str
    arguments: Mapping[str, Any]
    setting: Mapping[str, Any]


def read_printed_tables(path: Path, notes: list[str]) -> list[Evaluation] | None:
    """Every (task, metric, filter) of the tables in a text file, or None where it holds no such table.

    Groups are left out, since their tasks stand for themselves, unless nothing but groups was printed. A
    table without a line that names its model is called by the file, and that is noted.
    Raises MatrixError where several tables are there and one of them names no model.
    """
    text, _ = text_of(path)
    tables = list(_tables(text.splitlines()))
    if not tables:
        return None
    of_tasks = [table for table in tables if not table.groups] or tables
    unnamed = [table for table in of_tasks if not table.model]
    if unnamed and len(of_tasks) > 1:
        raise MatrixError(
            f"{path}, line {unnamed[0].line}: no line above the table names its model, and the file holds "
            f"{len(of_tasks)} tables; keep lm-eval's line `hf (pretrained=...), ...` above each, or give "
            "each a file of its own, named after the model"
        )
    if unnamed:
        notes.append(f"{path}: no line names the model, so it is called by the file, {path.stem}")
    evaluations = [entry for table in of_tasks for entry in _evaluations(path, table)]
    if not evaluations:
        raise MatrixError(f"{path}, line {tables[0].line}: the table holds no number; paste the whole of it")
    return evaluations


def _tables(lines: Sequence[str]) -> Iterator[PrintedTable]:
    """The tables in a text, each with the nearest run line above it."""
    run: tuple[str, Mapping[str, Any], Mapping[str, Any]] = ("", {}, {})
    at = 0
    while at < len(lines):
        line = _ESCAPES.sub("", lines[at])
        described = _described(line)
        run = described or run
        start = next((i for i in _bars(line) if is_printed_table(_cells(line[i:]))), None)
        if start is None:
            at += 1
            continue
        heads = [head.strip().lower() for head in _cells(line[start:])]
        rows, end = _rows(lines, at + 1, start, heads)
        if rows:
            yield PrintedTable(at + 1, heads[0].startswith("group"), tuple(rows), *run)
            if not _groups_follow(lines, end):
                run = ("", {}, {})
        at = max(end, at + 1)


def _groups_follow(lines: Sequence[str], at: int) -> bool:
    """Whether the next table is that of the groups of the one that has just ended: it is of the same run."""
    below = "".join(_ESCAPES.sub("", line) for line in lines[at : at + 3])
    return re.search(r"\|\s*Groups\s*\|", below) is not None


def _bars(line: str) -> Iterator[int]:
    """Where a table may begin in a line: at its bars, of which a log may have some before."""
    may_be = len(line) <= _LONGEST and re.search(r"\|\s*metric\s*\|", line, flags=re.IGNORECASE)
    return (i for i, letter in enumerate(line) if letter == "|") if may_be else iter(())


def _cells(text: str) -> list[str]:
    return re.split(r"(?<!\\)\|", text.strip().strip("|")) if "|" in text else []


def _rows(lines: Sequence[str], at: int, start: int, heads: Sequence[str]) -> tuple[list[PrintedRow], int]:
    """The rows under a header, and the line after the last. start: column of the header's first bar."""
    rows: list[PrintedRow] = []
    stack: list[tuple[int, str]] = []  # depth and name of the task and of the groups that it is in
    carried: dict[str, str] = {}
    while at < len(lines):
        line = _ESCAPES.sub("", lines[at])
        place = start if line[start : start + 1] == "|" else line.find("|")
        cells = line[place:].strip().removeprefix("|").removesuffix("|").split("|") if place >= 0 else []
        if len(cells) != len(heads):
            break
        at += 1
        if all(_RULE.fullmatch(cell) for cell in cells) and "-" in line:
            continue
        named = {
            head or ("direction" if heads[i - 1] == "metric" else f"sign {i}"): cell.strip()
            for i, (head, cell) in enumerate(zip(heads, cells, strict=True))
        }
        if cells[0].strip():
            indented = _INDENT.fullmatch(cells[0].rstrip())
            depth = len(indented.group(1)) + 1 if indented else 0
            stack = [outer for outer in stack if outer[0] < depth]
            stack.append((depth, (indented.group(2) if indented else cells[0]).strip()))
            carried = {key: named.get(key, "") for key in ("version", "n-shot")}
        named |= {key: value for key, value in carried.items() if not named.get(key)}
        rows.append(PrintedRow(at, tuple(name for _, name in stack), named))
    return rows, at


def _described(line: str) -> tuple[str, Mapping[str, Any], Mapping[str, Any]] | None:
    """(model, its other arguments, settings) of lm-eval's line above a table; None for any other line."""
    if ", limit: " not in line or len(line) > _LONGEST:
        return None
    found = _RUN.search(line)
    if found is None:
        return None
    kind, words, generation, limit, shots = found.groups()
    arguments = _arguments(words)
    named_by = next((key for key in ("pretrained", "model", "load") if arguments.get(key)), "")
    setting = known_setting(
        limit=None if limit == "None" else _plain(limit),
        gen_kwargs=None if generation in (None, "None", "{}", "") else generation,
        num_fewshot=None
        if shots == "None"
        else int(shots)
        if shots.isdecimal() and len(shots) < 5
        else shots,
    )
    return str(arguments.pop(named_by, "") or kind), arguments, setting


def _arguments(words: str) -> dict[str, Any]:
    """Arguments of the model, as a dictionary (since 0.4.9) or as ``key=value,key=value``."""
    if words.startswith("{"):
        try:
            parsed = ast.literal_eval(words)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            parsed = {}
        return {str(key): value for key, value in parsed.items()} if isinstance(parsed, dict) else {}
    pairs = (piece.partition("=") for piece in words.split(",") if "=" in piece)
    return {key.strip(): value.strip().strip("\"'") for key, _, value in pairs}


def _evaluations(path: Path, table: PrintedTable) -> Iterator[Evaluation]:
    """Every number of a table but those of groups; of a table of groups all.

    Tasks of one name in two groups are called ``group/task``.
    """
    paths = list(dict.fromkeys(row.path for row in table.rows))
    groups = set() if table.groups else {path[:-1] for path in paths}
    last = [path[-1] for path in paths if path and path not in groups]
    arguments = dict(table.arguments)
    adapter = next(
        (arguments.pop(key) for key in ("peft", "delta", "lora_local_path") if key in arguments), None
    )
    for row in table.rows:
        cells = row.cells
        metric = cells.get("metric", "")
        if not row.path or row.path in groups or not metric or not cells.get("value"):
            continue
        task = row.path[-1] if last.count(row.path[-1]) == 1 else "/".join(row.path[-2:])
        if task == "all" or ":_average" in task:
            continue  # lighteval's averages
        place = f"{path}, line {row.line}"
        sign = cells.get("direction", "")
        higher, origin = direction(metric, {"↑": True, "↓": False}.get(sign))
        shots = cells.get("n-shot", "")
        setting = {
            **table.setting,
            **known_setting(
                num_fewshot=int(shots)
                if shots.isdecimal() and len(shots) < 5
                else table.setting.get("num_fewshot"),
                version=_plain(cells.get("version", "")),
            ),
        }
        yield Evaluation(
            place=place,
            kind=KIND,
            model=table.model or path.stem,
            adapter=None if adapter is None else str(adapter),
            task=task,
            metric=metric,
            filter=cells.get("filter") or "none",
            value=number(cells["value"], f"{place}, Value"),
            stderr=number(cells.get("stderr"), f"{place}, Stderr"),
            higher_is_better=None if origin == "assumed" else higher,
            setting=setting,
            variant=model_variant(arguments),
        )


def _plain(text: str) -> Any:
    """A version or limit as lm-eval's JSON holds it: a number where it is one, None where it is not known."""
    if text in ("", "N/A", "Yaml"):
        return None
    try:
        return ast.literal_eval(text) if re.fullmatch(r"\d{1,6}(\.\d{1,6})?", text) else text
    except (ValueError, SyntaxError):
        return text
