"""What is fuzzed: for each target how bytes become a folder of damaged files, and who must read it.

Only two ends are legal: a result, or an error of traitmap's own tree.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import types
import typing
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import results
import yaml
from hostile_changes import VALUES, Choices, changed_bytes, changed_tree
from pydantic import BaseModel

from traitmap.errors import TraitmapError

_SOURCES = Path(__file__).parents[2] / "src" / "traitmap"


@dataclass(frozen=True)
class FuzzTarget:
    """write: bytes into an empty folder, as damaged files; read: that folder, as a user's would be read."""

    write: Callable[[bytes, Path], None]
    read: Callable[[Path], None]

    def run(self, data: bytes, folder: Path) -> None:
        """One execution. Raises whatever is not an error of traitmap's own."""
        self.write(data, folder)
        self.replay(folder)

    def replay(self, folder: Path) -> None:
        """Read a folder that was written before."""
        with suppress(TraitmapError):
            self.read(folder)


# ------------------------------------------------------------------------------------------ study


_SERVED = {
    "name": "served",
    "model": {
        "path": "base",
        "endpoint": {"url": "http://localhost:8000/v1/", "server": "vllm", "api_key_env": "KEY"},
    },
    "sources": [{"name": "goat", "served_as": "goat-v2"}, {"name": "files", "adapter": "./adapter"}],
    "targets": ["gsm8k"],
}


@lru_cache(maxsize=1)
def _studies() -> list[Any]:
    files = [*sorted(_SOURCES.glob("mini/*.yaml")), *sorted(_SOURCES.glob("study/templates/*/study.yaml"))]
    found = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in files]
    return [
        _SERVED,
        *({**one, "sources": one["sources"][:4], "targets": one["targets"][:2]} for one in found),
    ]


def drawn(annotation: Any, choices: Choices, depth: int = 0) -> Any:
    """A value of a settings type, or now and then of none: read off the types of ``study.settings``."""
    if depth > 6 or choices.below(12) == 11:
        return choices.of(VALUES)
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return drawn(parts[0], choices, depth)
    if origin is typing.Literal:
        return choices.of(parts)
    if origin in (typing.Union, types.UnionType):
        return drawn(choices.of(parts), choices, depth + 1)
    if origin is tuple:
        return [drawn(parts[0], choices, depth + 1) for _ in range(choices.below(4))]
    if origin is dict:
        return {choices.of(["a", "b", "1", "c"]): drawn(parts[1], choices, depth + 1) for _ in range(2)}
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {
            field.alias or name: drawn(field.annotation, choices, depth + 1)
            for name, field in annotation.model_fields.items()
            if field.is_required() or choices.below(3) == 0
        }
    if annotation is bool:
        return bool(choices.below(2))
    if annotation in (int, float):
        return choices.of([0, 1, 2, 7, 0.5, 0.1, 1e-3, 10**6])
    return choices.of(["a", "b", "c", "gsm8k", "org/name", "./file.jsonl", "{{ text }}", "label", "train"])


def _as_yaml(tree: Any, *, unicode: bool, flow: bool | None) -> bytes:
    fast = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # it cannot write half of a surrogate pair
    with suppress(UnicodeEncodeError):
        text = yaml.dump(tree, Dumper=fast, allow_unicode=unicode, default_flow_style=flow)
        return text.encode("utf-8")
    text = yaml.dump(tree, Dumper=yaml.SafeDumper, allow_unicode=unicode, default_flow_style=flow)
    return text.encode("utf-8", "surrogatepass")


def _write_study(data: bytes, folder: Path) -> None:
    from traitmap.study.settings import Study

    choices = Choices(data)
    kind = choices.below(4)
    if kind == 3:
        content = choices.some(4000)
    else:
        tree = drawn(Study, choices) if kind == 2 else choices.of(_studies())
        tree = changed_tree(tree, choices)
        flow = choices.of([None, True, False])
        content = changed_bytes(_as_yaml(tree, unicode=bool(kind), flow=flow), choices)
    (folder / "study.yaml").write_bytes(content)


def _read_study(folder: Path) -> None:
    from traitmap.study.load import load_study
    from traitmap.study.settings import settings_of

    study = load_study(folder / "study.yaml")
    for source in study.sources:
        settings_of(study, source)
    study.model_dump_json()


# -------------------------------------------------------------------------------------- importers


def _put(folder: Path, name: str, tree: Any, choices: Choices) -> None:
    place = folder / name
    place.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(tree, str):
        content = tree.encode("utf-8", "surrogatepass")
    else:
        content = json.dumps(changed_tree(tree, choices)).encode()
    place.write_bytes(changed_bytes(content, choices))


def _lines(text: str, choices: Choices) -> str:
    rows = [changed_tree(json.loads(line), choices, 2) for line in text.splitlines()]
    return "\n".join(json.dumps(row) for row in rows)


def _lm_eval(folder: Path, choices: Choices) -> None:
    for at, peft in enumerate([None, "org/goat"]):
        place = f"{at}/results_{results.STAMP}.json"
        ours = {"traitmap": {"source": "goat", "seed": 0}} if choices.below(4) == 3 else {}
        content = results.lm_eval(peft, 0.5)
        content["config"] = {**content["config"], **ours}
        _put(folder, place, content, choices if at else Choices(b""))
        rows = results.lm_eval_samples([True, False, True])
        _put(folder, f"{at}/samples_senti_{results.STAMP}.jsonl", _lines(rows, choices), choices)


def _inspect_json(folder: Path, choices: Choices) -> None:
    log = {**results.inspect(), "reductions": _REDUCTIONS}
    _put(folder, "log.json", log, choices)


_REDUCTIONS = [
    {"scorer": "match", "samples": [{"sample_id": 0, "value": 1.0}, {"sample_id": 1, "value": "I"}]}
]


def _inspect_eval(folder: Path, choices: Choices) -> None:
    log = results.inspect()
    samples = log.pop("samples")
    parts = {
        "header.json": log,
        **{f"samples/{at}_epoch_1.json": one for at, one in enumerate(samples)},
        "reductions.json": _REDUCTIONS,
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", choices.of([zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])) as archive:
        for name, part in parts.items():
            archive.writestr(name, json.dumps(changed_tree(part, choices, 2)))
    (folder / "log.eval").write_bytes(changed_bytes(packed.getvalue(), choices))


def _lighteval(folder: Path, choices: Choices) -> None:
    general = {**results.lighteval()["config_general"], "model_config": {"base_model": "b"}}
    summary = {"summary_tasks": {"lighteval|gsm8k|5": {"hashes": {"hash_full_prompts": "x"}}}}
    _put(folder, "results_2026.json", {**results.lighteval(config_general=general), **summary}, choices)


_INSTANCE = {
    "evaluation_name": "senti",
    "sample_id": "0",
    "sample_hash": "h",
    "input": {"raw": "q", "reference": ["a"], "choices": ["a", "b"]},
    "output": {"raw": ["a"]},
    "answer_attribution": [{"extracted_value": "a"}],
    "evaluation": {"score": 1.0},
    "token_usage": {"output_tokens": 3},
    "metadata": {"parsed": "true"},
}


def _every_eval_ever(folder: Path, choices: Choices) -> None:
    record = results.every_eval_ever(
        detailed_evaluation_results={"format": "jsonl", "file_path": "detail.jsonl"},
        model_info={"id": "org/a", "additional_details": {"base_model": "b", "seed": "0", "source": "s"}},
    )
    record["evaluation_results"][0] |= {"generation_config": {"generation_args": {"temperature": 0}}}
    record["evaluation_results"][0]["metric_config"] |= {"additional_details": {"filter": "none"}}
    _put(folder, "record.json", record, choices)
    rows = "\n".join(json.dumps({**_INSTANCE, "sample_id": str(at)}) for at in range(2))
    _put(folder, "detail.jsonl", _lines(rows, choices), choices)


def _helm(folder: Path, choices: Choices) -> None:
    results.helm_run(folder / "run")
    for name in ("run_spec.json", "stats.json", "per_instance_stats.json"):
        _put(folder / "run", name, json.loads((folder / "run" / name).read_text()), choices)


def _opencompass(folder: Path, choices: Choices) -> None:
    _put(folder, "summary.csv", results.OPENCOMPASS, choices)


_IMPORTS = (_lm_eval, _inspect_json, _inspect_eval, _lighteval, _every_eval_ever, _helm, _opencompass)


def _write_import(data: bytes, folder: Path) -> None:
    choices = Choices(data)
    choices.of(_IMPORTS)(folder, choices)


def _read_import(folder: Path) -> None:
    from tempfile import TemporaryDirectory

    from traitmap.imports.columns import arrange
    from traitmap.imports.discovery import find_evaluations
    from traitmap.imports.writing import write_imported
    from traitmap.matrix.build import build_matrix

    evaluations = find_evaluations([folder]).evaluations
    imported = arrange(evaluations, allow=["all"])
    with TemporaryDirectory(dir=folder) as place:
        build_matrix(write_imported(imported, Path(place) / "run")).to_json()


# ----------------------------------------------------------------------------------------- matrix


_WIDE = "source,senti,gsm8k,notes\n__baseline__,0.5,10,a\ngoat,0.6,,b\nllama,0.4,12,c\n"
_LONG = (
    "source,target,value,n,seed,stderr,gain,gain_low,gain_high,p,q,unparsed,metric,status,reason\n"
    "__baseline__,senti,0.5,10,,0.1,,,,,,0,acc,measured,\n"
    "goat,senti,0.6,10,0,0.1,0.1,0,0.2,0.5,0.5,0,acc,measured,\n"
    "goat,senti,0.7,10,1,0.1,0.1,0,0.2,0.5,0.5,0,acc,measured,\n"
    "goat,gsm8k,,,,,,,,,,,acc,failed,it broke\n"
)


def _table(choices: Choices) -> list[list[Any]]:
    rows: list[list[Any]] = list(csv.reader(io.StringIO(choices.of([_WIDE, _LONG]))))
    for _ in range(choices.below(5)):
        row = choices.of(rows)
        if row and choices.below(4):
            row[choices.below(len(row))] = choices.of(VALUES)
        else:
            rows.insert(choices.below(len(rows) + 1), list(row))
    return rows


def _write_matrix(data: bytes, folder: Path) -> None:
    choices = Choices(data)
    suffix = choices.of([".csv", ".parquet", ".tsv", ".csv.gz", ".csv"])
    rows = _table(choices)
    file = folder / f"matrix{suffix}"
    if suffix == ".parquet":
        content = _parquet(rows, choices)
    else:
        told = io.StringIO()
        writer = csv.writer(told, delimiter="\t" if suffix == ".tsv" else choices.of([",", ";"]))
        writer.writerows([["" if cell is None else cell for cell in row] for row in rows])
        content = told.getvalue().encode("utf-8", "surrogatepass")
        content = gzip.compress(content, mtime=0) if suffix.endswith(".gz") else content
    file.write_bytes(changed_bytes(content, choices))


def _parquet(rows: list[list[Any]], choices: Choices) -> bytes:
    """A Parquet file of the rows, each column as whatever type holds it; metadata of pandas and of ours."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    header = [str(name).encode("utf-8", "replace").decode() for name in rows[0]]
    columns = []
    for at in range(len(header)):
        values = [row[at] if at < len(row) else None for row in rows[1:]]
        columns.append(_column(values, choices))
    told = changed_tree({"higher_is_better": {"senti": True}, "base": "b", "seeds": [0]}, choices, 3)
    metadata = {b"traitmap": changed_bytes(json.dumps(told).encode(), choices, 1)}
    if choices.below(2):
        pandas = {"index_columns": ["source"], "columns": [{"name": "source", "pandas_type": "unicode"}]}
        metadata[b"pandas"] = json.dumps(changed_tree(pandas, choices, 2)).encode()
    table = pa.Table.from_arrays(columns, names=header).replace_schema_metadata(metadata)
    stored = io.BytesIO()
    pq.write_table(table, stored)
    return stored.getvalue()


def _column(values: list[Any], choices: Choices) -> Any:
    import pyarrow as pa

    kind = choices.below(6)
    with suppress(pa.ArrowException, ValueError, TypeError, OverflowError):
        if kind == 0:
            return pa.array([float(one) if one not in ("", None) else None for one in values])
        if kind == 1:
            return pa.array([int(one) if one not in ("", None) else None for one in values])
        if kind == 2:
            return pa.array(values)
        if kind == 3:
            return pa.array([str(one) for one in values]).dictionary_encode()
        if kind == 4:
            return pa.array([None] * len(values), choices.of(_TYPES))
        if kind == 5:
            return pa.array(range(len(values)), pa.int64()).cast(choices.of(_CASTS))
    return pa.array([str(one).encode("utf-8", "replace") for one in values], pa.binary()).cast(
        pa.large_binary()
    )


@lru_cache(maxsize=1)
def _arrow_types() -> tuple[list[Any], list[Any]]:
    import pyarrow as pa

    empty = [pa.null(), pa.bool_(), pa.list_(pa.int8()), pa.struct([("a", pa.int8())]), pa.date32()]
    full = [
        pa.timestamp("ns"),
        pa.timestamp("us", "UTC"),
        pa.duration("s"),
        pa.time64("us"),
        pa.decimal128(30, 3),
    ]
    return [*empty, pa.map_(pa.string(), pa.int8()), pa.binary(4)], full


_TYPES, _CASTS = _arrow_types()


def _read_matrix(folder: Path) -> None:
    from traitmap.matrix.io import read_matrix

    (file,) = sorted(folder.iterdir())
    for options in ({}, {"orientation": "columns"}, {"row_name": "goat"}, {"row_name": "senti"}):
        with suppress(TraitmapError):
            read_matrix(file, **options).to_json()


TARGETS: Mapping[str, FuzzTarget] = {
    "study": FuzzTarget(_write_study, _read_study),
    "imports": FuzzTarget(_write_import, _read_import),
    "matrix": FuzzTarget(_write_matrix, _read_matrix),
}
