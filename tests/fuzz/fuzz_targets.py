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
    content = {
        **results.lighteval(config_general=general),
        "summary_tasks": {"lighteval|gsm8k|5": {"hashes": {"hash_full_prompts": "x"}}},
        "config_tasks": {
            "lighteval|gsm8k": {
                "effective_num_docs": 3,
                "metric": [{"metric_name": "em", "higher_is_better": True}],
            }
        },
    }
    _put(folder, f"results_{results.STAMP}.json", content, choices)


_DETAILS: tuple[dict[str, Any], ...] = (
    {
        "doc": {"query": "q", "choices": [" a", " b"], "gold_index": 1},
        "model_response": {"text": ["a"], "logprobs": [-1.0, -2.0], "input": "q"},
        "metric": {"em": 1.0},
    },
    {
        "example": "q",
        "predictions": [-1.0, -2.0],
        "choices": [" a", " b"],
        "gold_index": [1],
        "gold": ["b"],
        "metrics": {"em": 1},
    },
)


def _lighteval_details(folder: Path, choices: Choices) -> None:
    """Whole results beside damaged details of their items, in each of the layouts."""
    _lighteval(folder, Choices(b""))
    kind = choices.below(3)
    drawn_rows = [changed_tree(_DETAILS[min(kind, 1)], choices, 3) for _ in range(3)]
    rows = [row if isinstance(row, dict) else {"doc": row} for row in drawn_rows]
    if kind == 2:
        rows = [{key: _literal(value, choices) for key, value in row.items()} for row in rows]
    content = _details_file(rows)
    place = folder / f"details_lighteval_gsm8k_5_{results.STAMP}.parquet"
    place.write_bytes(changed_bytes(content, choices))


def _literal(value: Any, choices: Choices) -> str:
    return changed_bytes(repr(value).encode("utf-8", "replace"), choices, 1).decode("utf-8", "replace")


def _details_file(rows: list[dict[str, Any]]) -> bytes:
    """The rows as Parquet; each cell that fits no column of Arrow's as text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {}
    for name in dict.fromkeys(str(key).encode("utf-8", "replace").decode() for row in rows for key in row):
        values = [row.get(name) for row in rows]
        try:
            columns[name] = pa.array(values)
        except (pa.ArrowException, ValueError, TypeError, OverflowError, RecursionError):
            columns[name] = pa.array([repr(value).encode("utf-8", "replace").decode() for value in values])
    stored = io.BytesIO()
    with suppress(pa.ArrowException):  # types that Parquet has not
        pq.write_table(pa.table(columns), stored)
    return stored.getvalue()


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
    rows = [row.split(",") for row in results.OPENCOMPASS.strip().splitlines()]
    markdown = ["| " + " | ".join(row) + " |" for row in rows]
    markdown.insert(1, "|---" * len(rows[0]) + "|")
    laid_out = ["  ".join(cell.ljust(14) for cell in row) for row in rows]
    laid_out.insert(1, "  ".join("-" * 14 for _ in rows[0]))
    forms = (results.OPENCOMPASS, "\n".join(markdown), "\n".join(laid_out))
    name = choices.of(["summary_20250101_000000.csv", "summary_20250101_000000.txt", "log.md"])
    _put(folder, name, forms[0] if name.endswith(".csv") else choices.of(forms), choices)


_PRINTED = """hf (pretrained=org/base,dtype=float), gen_kwargs: (None), limit: 20.0, num_fewshot: None
| Tasks |Version|Filter|n-shot|Metric|   |Value |   |Stderr|
|-------|------:|------|-----:|------|---|-----:|---|-----:|
|mmlu   |      2|none  |     0|acc   |↑  |0.3000|±  |0.0100|
| - law |      1|none  |     0|acc   |↑  |0.3100|±  |   N/A|
|  - art|      1|none  |     0|acc   |↑  |0.2900|±  |0.0100|
|wiki   |      2|none  |     0|ppl   |↓  |33.120|   |      |

|Groups|Version|Filter|n-shot|Metric|   |Value|   |Stderr|
|------|------:|------|-----:|------|---|----:|---|-----:|
|mmlu  |      2|none  |     0|acc   |↑  |  0.3|±  |  0.01|

hf ({'pretrained': 'org/base', 'peft': 'org/goat'}), gen_kwargs: ({}), limit: None, num_fewshot: 5
| Task |Version|Metric|Value |   |Stderr|
|------|------:|------|-----:|---|-----:|
|wiki  |      2|ppl   |33.120|±  |0.0100|
"""


def _printed(folder: Path, choices: Choices) -> None:
    name = choices.of(["run.log", "run.md", "run.txt"])
    _put(folder, name, _PRINTED, choices)


IMPORTERS: Mapping[str, Callable[[Path, Choices], None]] = {
    "lm-eval": _lm_eval,
    "inspect-json": _inspect_json,
    "inspect-eval": _inspect_eval,
    "lighteval": _lighteval,
    "lighteval-details": _lighteval_details,
    "every-eval-ever": _every_eval_ever,
    "helm": _helm,
    "opencompass": _opencompass,
    "printed": _printed,
}


def _write_import(data: bytes, folder: Path) -> None:
    choices = Choices(data)
    choices.of(tuple(IMPORTERS.values()))(folder, choices)


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


# what people's tables hold beside plain numbers
_CELLS = (
    *(
        "38,5",
        "1.234,5",
        "1,234.5",
        "12 345",
        "45.1%",
        "45,1 %",
        "45.1 ± 1.2",
        "45,1 ± 1,2 %",
        "N/A",
        "–",
        "7B",
    ),
    *(
        "2024-05-01",
        "likes",
        "Average",
        "base",
        "#Params (B)",
        "± 1",
        "%",
        "**45.1**",
        "\\textbf{45.1}",
        "1e5",
        "+",
    ),
)
_FORMS = (".csv", ".parquet", ".tsv", ".csv.gz", ".xlsx", ".md", ".tex", ".txt", ".csv")


def _table(choices: Choices) -> list[list[Any]]:
    rows: list[list[Any]] = list(csv.reader(io.StringIO(choices.of([_WIDE, _LONG]))))
    for _ in range(choices.below(5)):
        row = choices.of(rows)
        if row and choices.below(4):
            row[choices.below(len(row))] = choices.of((*VALUES, *_CELLS))
        else:
            rows.insert(choices.below(len(rows) + 1), list(row))
    return rows


def _write_matrix(data: bytes, folder: Path) -> None:
    choices = Choices(data)
    suffix = choices.of(_FORMS)
    rows = _table(choices)
    if suffix == ".parquet":
        content = _parquet(rows, choices)
    elif suffix == ".xlsx":
        content = _workbook(rows, choices)
    else:
        text = _as_text([["" if cell is None else cell for cell in row] for row in rows], suffix, choices)
        encoding = choices.of(["utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
        content = text.encode(encoding, "replace" if encoding == "cp1252" else "surrogatepass")
        content = gzip.compress(content, mtime=0) if suffix.endswith(".gz") else content
    (folder / f"matrix{suffix}").write_bytes(changed_bytes(content, choices))


def _as_text(rows: list[list[Any]], suffix: str, choices: Choices) -> str:
    if suffix == ".md":
        lines = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
        lines.insert(1, "|---" * len(rows[0]) + "|")
        return "Scores\n\n" + "\n".join(lines) + "\n\nMeans of three runs.\n"
    if suffix == ".tex":
        body = " \\\\\n".join(" & ".join(map(str, row)) for row in rows)
        return "\\begin{tabular}{l" + "r" * len(rows[0]) + "}\n" + body + "\\\\\n\\end{tabular}\n"
    told = io.StringIO()
    writer = csv.writer(told, delimiter="\t" if suffix == ".tsv" else choices.of([",", ";", "|", "\t"]))
    writer.writerows(rows)
    return told.getvalue()


def _workbook(rows: list[list[Any]], choices: Choices) -> bytes:
    """An Excel file of the rows: numbers where they are some, percent formats, merged and empty cells."""
    import openpyxl
    from openpyxl.utils.exceptions import IllegalCharacterError

    book = openpyxl.Workbook()
    sheet = book.active
    for at, row in enumerate(rows, start=1):
        for column, cell in enumerate(row, start=1):
            value: Any = cell
            with suppress(TypeError, ValueError, OverflowError):
                value = float(cell)
            # what Excel does not hold
            with suppress(ValueError, TypeError, OverflowError, AttributeError, IllegalCharacterError):
                sheet.cell(at, column, value).number_format = choices.of(
                    ["General", "0.0%", "yyyy-mm-dd", "[h]:mm"]
                )
    for _ in range(choices.below(3)):
        with suppress(ValueError, AttributeError):
            sheet.merge_cells(
                start_row=1, end_row=1 + choices.below(3), start_column=1, end_column=1 + choices.below(3)
            )
    stored = io.BytesIO()
    with suppress(ValueError, TypeError, OverflowError, AttributeError):
        book.save(stored)
    return stored.getvalue()


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
    for options in (
        {},
        {"orientation": "columns"},
        {"row_name": "goat"},
        {"row_name": "senti"},
        {"base": "goat"},
    ):
        with suppress(TraitmapError):
            read_matrix(file, **options).to_json()


# --------------------------------------------------------------------------------------- adapters


_ADAPTER = {
    "peft_type": "LORA",
    "base_model_name_or_path": "org/base",
    "revision": None,
    "task_type": "CAUSAL_LM",
    "r": 4,
    "lora_alpha": 8,
    "rank_pattern": {"model.layers.0.q_proj": 2},
    "alpha_pattern": {},
    "target_modules": ["q_proj", "v_proj"],
    "modules_to_save": None,
    "init_lora_weights": True,
    "use_rslora": False,
}
_HEADER = {
    "__metadata__": {"format": "pt"},
    "base.q_proj.lora_A.weight": {"dtype": "F32", "shape": [4, 2], "data_offsets": [0, 32]},
    "base.q_proj.lora_B.weight": {"dtype": "BF16", "shape": [2, 4], "data_offsets": [32, 48]},
}


def _write_adapter(data: bytes, folder: Path) -> None:
    choices = Choices(data)
    _put(folder, "adapter_config.json", _ADAPTER, choices)
    tree = changed_tree(_HEADER, choices) if choices.below(2) else _HEADER
    header = json.dumps(tree).encode()
    content = len(header).to_bytes(8, "little") + header + choices.some(48).ljust(48, b"\x01")
    (folder / "adapter_model.safetensors").write_bytes(changed_bytes(content, choices))
    if choices.below(8) == 7:
        _put(folder, "chat_template.jinja", "{{ messages }}", choices)


def _read_adapter(folder: Path) -> None:
    from traitmap.data.adapters import adapter_problem, adapter_warnings, has_no_effect
    from traitmap.runs.plan import adapter_digest

    problem = adapter_problem(folder)
    if problem is not None:
        raise TraitmapError(problem)
    adapter_warnings(folder, "org/base")
    has_no_effect(folder)
    adapter_digest(folder)


# --------------------------------------------------------------------------------------- endpoint


_TOKENS = ["The", " answer", " is", " ", "4", "2", "."]
_COMPLETION = {
    "id": "x",
    "model": "m",
    "usage": {"prompt_tokens": 6, "completion_tokens": 1},
    "choices": [
        {
            "index": 0,
            "text": " 42.",
            "message": {"role": "assistant", "content": "42"},
            "finish_reason": "stop",
            "logprobs": {
                "tokens": _TOKENS,
                "token_logprobs": [None, -1.0, -0.5, -2.0, -0.1, -0.2, -0.3],
                "top_logprobs": [None, *({token: -0.1} for token in _TOKENS[1:])],
                "text_offset": [0, 3, 10, 13, 14, 15, 16],
            },
        }
    ],
}


def _write_answer(data: bytes, folder: Path) -> None:
    _put(folder, "answer.json", _COMPLETION, Choices(data))


def _read_answer(folder: Path) -> None:
    """As the transport hands it over, then in each way that an engine asks."""
    from traitmap.engine.contract import Decoding
    from traitmap.engine.endpoint import protocol
    from traitmap.errors import ModelError

    try:
        answer = json.loads((folder / "answer.json").read_bytes())
    except (ValueError, RecursionError) as error:
        raise ModelError("no JSON") from error
    with suppress(TraitmapError):
        read = protocol.token_logprobs(answer)
        start = protocol.continuation_start(read, "The answer is 42", " 42")
        value = protocol.scored(read, start)
        assert value.logprob is not None
        assert abs(value.logprob) < float("inf")
    text, tokens, _ = protocol.generated(
        answer, Decoding((".",), 8, sample=False, temperature=0.0, top_p=1.0, top_k=0)
    )
    text.encode("utf-8")
    assert tokens is None or 0 <= tokens < 2**31


def _writes(importer: Callable[[Path, Choices], None]) -> Callable[[bytes, Path], None]:
    return lambda data, folder: importer(folder, Choices(data))


TARGETS: Mapping[str, FuzzTarget] = {
    "study": FuzzTarget(_write_study, _read_study),
    "imports": FuzzTarget(_write_import, _read_import),
    "matrix": FuzzTarget(_write_matrix, _read_matrix),
    "adapters": FuzzTarget(_write_adapter, _read_adapter),
    "endpoint": FuzzTarget(_write_answer, _read_answer),
}
# Each importer by itself, for a fuzzer that has ten minutes for it; its faults are kept among those of all.
EACH_IMPORTER: Mapping[str, FuzzTarget] = {
    f"imports/{name}": FuzzTarget(_writes(importer), _read_import) for name, importer in IMPORTERS.items()
}
