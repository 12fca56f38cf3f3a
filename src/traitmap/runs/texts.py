"""The texts of a run, kept beside its results: whoever asks why needs neither the data nor a model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from traitmap.data.sources import draw
from traitmap.data.texts import TaskText, texts_of_sources, texts_of_targets
from traitmap.errors import RunError
from traitmap.runs.atomic import write_whole
from traitmap.runs.ledger import read_ledger
from traitmap.runs.store import RunStore
from traitmap.study.digest import digest

if TYPE_CHECKING:
    from traitmap.data.sources import LoadedSource
    from traitmap.data.targets import LoadedTarget

IMPORTED = "imported"  # engine of a run that was read from other people's results
KEPT = 10_000  # texts of one source: enough for every statistic, and a folder that can be sent
_METADATA = b"traitmap"
_SCHEMA = pa.schema(
    [
        pa.field("input", pa.string(), nullable=False),
        pa.field("output", pa.string(), nullable=False),
        pa.field("choices", pa.list_(pa.string()), nullable=False),
        pa.field("label", pa.string()),
    ]
)


@dataclass(frozen=True)
class RunTexts:
    """Rendered texts of a run, in the order of the study.

    sources: training examples, at most ``KEPT`` of each, a fixed draw; a source that is an adapter has none.
    targets: all items, in the order of the outcomes. totals: examples of each source before the draw.
    """

    sources: Mapping[str, tuple[TaskText, ...]]
    targets: Mapping[str, tuple[TaskText, ...]]
    totals: Mapping[str, int]


def write_texts(store: RunStore, sources: Sequence[LoadedSource], targets: Sequence[LoadedTarget]) -> None:
    """Keep the texts of all sources and targets. What is there and has not changed is left alone."""
    folder = store.texts
    folder.mkdir(exist_ok=True)
    for source in sources:
        if source.examples:
            place = _source_file(folder, source.name)
            if _digest_of(place) != source.digest:
                texts = texts_of_sources([source])[source.name]
                kept = [texts[index] for index in draw(len(texts), KEPT, 0, source.name)]
                _write(place, kept, source.digest, total=len(texts))
    for target in targets:
        place = _target_file(folder, target.name)
        if _digest_of(place) != target.digest:
            texts = texts_of_targets([target])[target.name]
            _write(place, texts, target.digest, total=len(texts))


def write_target_texts(store: RunStore, name: str, texts: Sequence[TaskText]) -> None:
    """Keep what the items of one target say, of a run that was read from other people's results."""
    store.texts.mkdir(exist_ok=True)
    told = digest([[one.input, one.output] for one in texts])
    _write(_target_file(store.texts, name), texts, told, total=len(texts))


def read_run_texts(store: RunStore) -> RunTexts:
    """All texts of a run. RunError where they are missing (a run of an earlier version) or damaged.

    Of imported results only those items are known whose files told them, and nothing of the sources.
    """
    ledger = read_ledger(store)
    imported = ledger.conditions.get("engine") == IMPORTED
    sources, targets, totals = {}, {}, {}
    for source in ledger.sources:
        if source["adapter"] is None and not imported:
            name = source["name"]
            sources[name], totals[name] = _read(_source_file(store.texts, name))
    for target in ledger.targets:
        if imported and not _target_file(store.texts, target["name"]).exists():
            continue
        targets[target["name"]], _ = _read(_target_file(store.texts, target["name"]))
    return RunTexts(sources, targets, totals)


def _source_file(folder: Path, name: str) -> Path:
    return folder / f"source-{name}.parquet"


def _target_file(folder: Path, name: str) -> Path:
    return folder / f"target-{name}.parquet"


def _write(place: Path, texts: Sequence[TaskText], name: str, *, total: int) -> None:
    columns = {
        "input": [text.input for text in texts],
        "output": [text.output for text in texts],
        "choices": [list(text.choices) for text in texts],
        "label": [text.label for text in texts],
    }
    told = json.dumps({"digest": name, "total": total}).encode()
    table = pa.table(columns, schema=_SCHEMA).replace_schema_metadata({_METADATA: told})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    write_whole(place, sink.getvalue().to_pybytes())


def _digest_of(place: Path) -> str | None:
    try:
        told: str = json.loads(pq.read_schema(place).metadata[_METADATA])["digest"]
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return None
    return told


def _read(place: Path) -> tuple[tuple[TaskText, ...], int]:
    try:
        # the file alone: a folder of that name would be read as a dataset
        table = pq.ParquetFile(place).read()
        total = int(json.loads(table.schema.metadata[_METADATA])["total"])
    except FileNotFoundError:
        raise RunError(
            f"{place}: is not there, since an earlier version of traitmap made this run; `traitmap run "
            "STUDY` adds the texts and computes nothing again."
        ) from None
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{place}: damaged ({error}); `traitmap run STUDY` writes it anew.") from None
    rows = table.to_pylist()
    texts = (TaskText(row["input"], row["output"], tuple(row["choices"]), row["label"]) for row in rows)
    return tuple(texts), total
