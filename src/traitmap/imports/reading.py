"""JSON of other people's files, read so that what is wrong with it ends in one line with file and key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import isfinite, nan
from pathlib import Path
from typing import Any

from traitmap.errors import MatrixError

_UNKNOWN = frozenset({"", "n/a", "na", "nan", "none", "null", "-"})


def read_json(path: Path) -> Any:
    """A JSON file. MatrixError where it is no JSON or cannot be read."""
    try:
        return parse_json(path.read_bytes(), str(path))
    except OSError as error:
        raise MatrixError(f"{path}: cannot be read ({error.strerror})") from error


def parse_json(content: bytes | str, place: str) -> Any:
    """JSON text; ``place`` names it in the error."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise MatrixError(
            f"{place}: not valid JSON ({error}); is the file whole? Copy or write it again"
        ) from None


def read_lines(path: Path) -> list[tuple[str, Any]]:
    """The rows of a JSONL file with the place of each; empty lines are skipped."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MatrixError(f"{path}: cannot be read as UTF-8 text ({error})") from None
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            place = f"{path}, line {number}"
            rows.append((place, parse_json(line, place)))
    return rows


def mapping(value: Any, place: str) -> Mapping[str, Any]:
    """The value as a JSON object, or an error that names its place."""
    if not isinstance(value, Mapping):
        raise MatrixError(
            f"{place}: is {_shown(value)}, not an object; the file is of another kind or damaged"
        )
    return value


def sequence(value: Any, place: str) -> list[Any]:
    """The value as a JSON list, or an error that names its place."""
    if not isinstance(value, list):
        raise MatrixError(f"{place}: is {_shown(value)}, not a list; the file is of another kind or damaged")
    return value


def text(value: Any, place: str) -> str:
    """The value as non-empty text, or an error that names its place."""
    if not isinstance(value, str) or not value:
        raise MatrixError(f"{place}: is {_shown(value)}, not text; the file is of another kind or damaged")
    return value


def number(value: Any, place: str) -> float:
    """The value as a number; NaN for null, "N/A" and the like. MatrixError for anything else."""
    if value is None or (isinstance(value, str) and value.strip().lower() in _UNKNOWN):
        return nan
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise MatrixError(f"{place}: is {_shown(value)}, not a number") from None
    if isinstance(value, bool | int | float):
        return float(value) if isfinite(value) else nan
    raise MatrixError(f"{place}: is {_shown(value)}, not a number")


def _shown(value: Any) -> str:
    shown = json.dumps(value, ensure_ascii=False, default=str)
    return shown if len(shown) <= 60 else shown[:57] + "..."
