"""What every reader of results shares: strict JSON, plain values, and the record of one evaluation.

Whatever is wrong with a file ends in one MatrixError that names file and key. An ``Evaluation`` is one model
on one task by one metric, with all that tells the model from others of its name and all that must agree
before two evaluations are compared.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import isfinite, isnan, nan
from pathlib import Path
from typing import Any

from traitmap.data.records import Outcome
from traitmap.data.texts import TaskText
from traitmap.errors import MatrixError
from traitmap.matrix.tables import refuse_pointer
from traitmap.study.paths import digest

_UNKNOWN = frozenset({"", "n/a", "na", "nan", "none", "null", "-"})
# Arguments of harnesses that say where and how fast a model is computed, not which model it is.
_COMPUTING = frozenset(
    [
        "device",
        "device_map",
        "device_map_option",
        "max_memory_per_gpu",
        "max_cpu_memory",
        "offload_folder",
        "parallelize",
        "batch_size",
        "max_batch_size",
        "trust_remote_code",
        "low_cpu_mem_usage",
        "tokenizer_mode",
        "use_fast_tokenizer",
        "tensor_parallel_size",
        "data_parallel_size",
        "pipeline_parallel_size",
        "gpu_memory_utilization",
        "swap_space",
        "max_num_seqs",
        "max_num_batched_tokens",
        "enforce_eager",
        "num_concurrent",
        "max_retries",
        "timeout",
        "tokenized_requests",
        "tokenizer_backend",
        "token",
        "use_auth_token",
        "use_accelerate",
        "cache_dir",
        "download_dir",
        "seed",
        "vocab_file",
        "merge_file",
        "verbose",
        "logits_cache",
        "gpus",
        "use_cache",
        "model_parallel_size",
        "pp_size",
        "tp_size",
    ]
)
_LARGEST, _MOST_CELLS = 1 << 31, 20_000_000  # bytes and cells of a Parquet file in memory
_DEEPEST = 100  # lists and objects inside one another; harnesses write about ten


def read_json(path: Path) -> Any:
    """A JSON file. MatrixError where it is no JSON or cannot be read."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise MatrixError(f"{path}: cannot be read ({error.strerror})") from error
    refuse_pointer(content[:200].decode("utf-8", "replace"), path)
    return parse_json(content, str(path))


def parse_json(content: bytes | str, place: str) -> Any:
    """JSON text; ``place`` names it in the error.

    Half of a surrogate pair, which an escape can write and no file can hold, becomes the sign for an unknown
    character. MatrixError for what is no JSON or is nested more than 100 deep.
    """
    try:
        text = content if isinstance(content, str) else content.decode(json.detect_encoding(content))
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MatrixError(
            f"{place}: not valid JSON ({error}); is the file whole? Copy or write it again"
        ) from None
    if text.count("[") + text.count("{") > _DEEPEST and _depth(data) > _DEEPEST:
        raise MatrixError(
            f"{place}: lists and objects are nested more than {_DEEPEST} deep; no harness writes that"
        )
    return whole_characters(data) if "\\ud" in text.lower() else data


def _depth(data: Any) -> int:
    """Levels of lists and objects, counted without recursion."""
    depth, level = 0, [data]
    while level := [branch for branch in level if isinstance(branch, dict | list)]:
        depth += 1
        if depth > _DEEPEST:
            break
        level = [
            inner for branch in level for inner in (branch.values() if isinstance(branch, dict) else branch)
        ]
    return depth


def whole_characters(data: Any) -> Any:
    """The same data with whole characters only."""
    if isinstance(data, str):
        return data.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(data, dict):
        return {whole_characters(key): whole_characters(value) for key, value in data.items()}
    return [whole_characters(item) for item in data] if isinstance(data, list) else data


def read_lines(path: Path) -> list[tuple[str, Any]]:
    """The rows of a JSONL file with the place of each; empty lines are skipped."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MatrixError(f"{path}: cannot be read as UTF-8 text ({error})") from None
    refuse_pointer(text[:200], path)
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            place = f"{path}, line {number}"
            rows.append((place, parse_json(line, place)))
    return rows


def parquet_columns(path: Path) -> tuple[str, ...]:
    """The columns of a Parquet file; none where it cannot be read as one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return tuple(pq.ParquetFile(path).schema_arrow.names)
    except (pa.ArrowException, OSError, ValueError):
        return ()


def parquet_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a Parquet file as plain values. MatrixError where it cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as stream:
            refuse_pointer(stream.read(200).decode("utf-8", "replace"), path)
        file = pq.ParquetFile(path)
        size = sum(file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups))
        cells = file.metadata.num_rows * file.metadata.num_columns  # few bytes may hold many
        if size > _LARGEST or cells > _MOST_CELLS:
            raise MatrixError(f"{path}: holds {cells:,} cells of {size:,} bytes; check the path")
        rows: list[dict[str, Any]] = file.read().replace_schema_metadata(None).to_pylist()
    except (pa.ArrowException, OSError, ValueError, TypeError, OverflowError) as error:
        raise MatrixError(f"{path}: cannot be read as Parquet ({error}); copy it again") from None
    return rows


def mapping(value: Any, place: str) -> Mapping[str, Any]:
    """The value as a JSON object, or an error that names its place."""
    if not isinstance(value, Mapping):
        raise MatrixError(
            f"{place}: is {_shown(value)}, not an object; the file is of another kind or damaged"
        )
    return value


def part(value: Any, place: str) -> Mapping[str, Any]:
    """An object that may be absent: empty for null and the like, an error for anything but an object."""
    return mapping(value, place) if value else {}


def listing(value: Any, place: str) -> list[Any]:
    """A list that may be absent: empty for null and the like, an error for anything but a list."""
    return sequence(value, place) if value else []


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
        try:
            return float(value) if isfinite(value) else nan
        except OverflowError:
            raise MatrixError(f"{place}: is {_shown(value)}, which is beyond all numbers here") from None
    raise MatrixError(f"{place}: is {_shown(value)}, not a number")


def count(value: Any, place: str) -> int:
    """The value as a number of things, 0 where it is absent. MatrixError below 0 and above a billion."""
    parsed = number(value or 0, place)
    if not 0 <= (0 if isnan(parsed) else parsed) <= 1e9:
        raise MatrixError(f"{place}: is {_shown(value)}, not a number of things")
    return 0 if isnan(parsed) else int(parsed)


def sortable_date(value: Any) -> str:
    """A moment in UTC as text that sorts by time, or empty text where the value names none.

    value: seconds since 1970 (as number or text, from 2001 to 2286), ISO 8601, or the stamps of file names
    (``2025-01-02T03-04-05.678``, ``20250102_030405``). Seconds since a machine was started are no date.
    """
    text = str(value).strip() if isinstance(value, str | int | float) else ""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        seconds = float(text)
        return datetime.fromtimestamp(seconds, UTC).isoformat() if 1e9 <= seconds < 1e10 else ""
    text = re.sub(r"^(\d{4})(\d\d)(\d\d)_(\d\d)(\d\d)(\d\d)$", r"\1-\2-\3T\4:\5:\6", text)
    text = re.sub(r"T(\d\d)-(\d\d)-(\d\d)", r"T\1:\2:\3", text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return ""
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).isoformat()


def model_variant(arguments: Mapping[str, Any], *names: str) -> dict[str, str]:
    """What tells a model apart from others of its name: its arguments without those of mere computing.

    arguments: as the harness was given them. names: the keys that name the model itself, left out.
    ``None``, ``False``, ``auto`` and the revision ``main`` are what a model is without them: left out.
    """
    variant = {}
    for key, value in arguments.items():
        usual = value in (None, False, "", "None", "False", "false", "null", "auto") or (
            key == "revision" and value == "main"
        )
        if key not in _COMPUTING and key not in names and not usual:
            variant[str(key)] = value if isinstance(value, str) else json.dumps(value, default=str)
    return variant


def content_digest(data: Any, length: int = 32) -> str:
    """Digest of any JSON data; NaN and infinity, which Python's JSON knows, count as their names."""
    return digest(named_numbers(data), length)


def named_numbers(data: Any) -> Any:
    """The same data with NaN and infinity as words, as JSON files can hold it."""
    if isinstance(data, float) and not isfinite(data):
        return str(data)
    if isinstance(data, Mapping):
        return {str(key): named_numbers(value) for key, value in data.items()}
    return [named_numbers(item) for item in data] if isinstance(data, list | tuple) else data


def _shown(value: Any) -> str:
    shown = json.dumps(value, ensure_ascii=False, default=str)
    return shown if len(shown) <= 60 else shown[:57] + "..."


@dataclass(frozen=True)
class Evaluation:
    """One model on one task by one metric.

    place: the file and key that it was read from, for messages. kind: the format.
    model: the base model's name; adapter: the adapter's, or None for a model as it is.
    value: the metric, NaN where the file has none. stderr: NaN where unknown. n: items, 0 where unknown.
    higher_is_better: None where the file does not say.
    setting: what has to be the same for all rows of a column: ``num_fewshot``, ``limit``, ``version``,
        ``template`` and the like. None is a value (no limit); what the file does not tell is not in it.
    outcomes: one per item in the order of the items; empty where the file has no samples.
    texts: what the items say, aligned with ``outcomes``; empty where the file does not tell.
    seed: of the training, where the file tells it, so that adapters of one source are pooled.
    date: UTC in ISO 8601, empty where unknown; of two evaluations of the same thing the later one counts.
    variant: what tells the model from others of its name: revision, quantisation, server, ...
    scale: the least and the largest score that the metric can have, where the file tells them.
    """

    place: str
    kind: str
    model: str
    adapter: str | None
    task: str
    metric: str
    filter: str
    value: float
    stderr: float = nan
    n: int = 0
    higher_is_better: bool | None = None
    setting: Mapping[str, Any] = field(default_factory=dict)
    outcomes: tuple[Outcome, ...] = ()
    texts: tuple[TaskText, ...] = ()
    seed: int | None = None
    date: str = ""
    variant: Mapping[str, str] = field(default_factory=dict)
    scale: tuple[float, float] | None = None


def known_setting(**setting: Any) -> dict[str, Any]:
    """A setting without what is not known: for all but these keys None is a value. NaN counts as a word."""
    unknown_if_none = (
        *("num_fewshot", "version", "template", "items", "library", "generation"),
        *("fewshot_as_multiturn", "fewshot_seed", "task_hash"),
    )
    return {
        key: named_numbers(value)
        for key, value in setting.items()
        if value is not None or key not in unknown_if_none
    }


class UnfinishedError(MatrixError):
    """A log of an evaluation that failed or still runs: left out of a folder, an error by itself."""
