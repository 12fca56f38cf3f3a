"""The texts of a run, kept beside its results: whoever asks why needs neither the data nor a model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from traitmap.data.sources import draw
from traitmap.data.texts import TaskText, texts_of_sources, texts_of_targets
from traitmap.errors import RunError
from traitmap.runs.files import (
    CHECKSUMS,
    METADATA,
    encode_sealed,
    files_in,
    quarantine,
    raise_refusal,
    read_sealed,
    require_plain_file,
    write_whole,
)
from traitmap.runs.ledger import has_texts, read_ledger
from traitmap.runs.store import RunStore
from traitmap.study.paths import digest

if TYPE_CHECKING:
    from traitmap.data.sources import LoadedSource
    from traitmap.data.targets import LoadedTarget
    from traitmap.runs.ledger import Ledger

IMPORTED = "imported"  # engine of a run that was read from other people's results
KEPT = 10_000  # texts of one source: enough for every statistic, and a folder that can be sent
_PLAIN = " !(),:;=@[]|+"  # beside letters and digits, what a file name holds as it is
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
    """Keep the texts of all sources and targets. What is there and has not changed is left alone.

    A damaged file goes to the quarantine and is written anew. Needs the lock.
    """
    folder = store.texts
    folder.mkdir(exist_ok=True)
    for place, fault in text_faults(store).items():
        quarantine(store.folder, place, fault)
    for source in sources:
        if source.examples:
            place = _source_file(folder, source.name)
            if _digest_of(place) != source.digest:
                texts = texts_of_sources([source])[source.name]
                drawn = [texts[index] for index in draw(len(texts), KEPT, 0, source.name)]
                _write(place, drawn, source.digest, total=len(texts))
    for target in targets:
        place = _target_file(folder, target.name)
        if _digest_of(place) != target.digest:
            texts = texts_of_targets([target])[target.name]
            _write(place, texts, target.digest, total=len(texts))


def write_target_texts(store: RunStore, name: str, texts: Sequence[TaskText]) -> None:
    """Keep what the items of one target say, of a run that was read from other people's results.

    texts: of all its items, in the order of the outcomes; all are kept. Needs the lock.
    """
    store.texts.mkdir(exist_ok=True)
    digest_of_texts = digest([[text.input, text.output] for text in texts])
    _write(_target_file(store.texts, name), texts, digest_of_texts, total=len(texts))


def read_run_texts(store: RunStore) -> RunTexts:
    """All texts of a run. RunError where they are missing (a run of an earlier version) or damaged.

    Of imported results only those items are known whose files told them, and nothing of the sources.
    """
    ledger = read_ledger(store)
    imported = ledger.conditions.get("engine") == IMPORTED
    sources, targets, totals = {}, {}, {}
    for source in ledger.sources:
        if has_texts(source) and not imported:
            name = source["name"]
            sources[name], totals[name] = _read(_source_file(store.texts, name))
    for target in ledger.targets:
        if imported and not _target_file(store.texts, target["name"]).exists():
            continue
        targets[target["name"]], _ = _read(_target_file(store.texts, target["name"]))
    return RunTexts(sources, targets, totals)


def text_faults(store: RunStore) -> dict[Path, str]:
    """Damaged files of texts, each with its reason.

    A file of an earlier version has no checksums and counts as whole where it can be read.
    """
    places = files_in(store.texts, "[!.]*.parquet")
    return {place: fault for place in places if (fault := text_fault(place))}


def text_fault(place: Path) -> str:
    """Why a file of texts is damaged; nothing where it is whole. OSError where it is not given."""
    try:
        _checked(place)
    except ValueError as error:
        return str(error)
    return ""


def text_files(store: RunStore, ledger: Ledger) -> tuple[Path, ...]:
    """Where the texts of a run's sources and targets are kept, there or not.

    Those of all sources come first, also of sources that are adapters and have no texts.
    """
    sources = (_source_file(store.texts, source["name"]) for source in ledger.sources)
    return (*sources, *(_target_file(store.texts, target["name"]) for target in ledger.targets))


def _source_file(folder: Path, name: str) -> Path:
    return folder / f"source-{_file_name(name)}.parquet"


def _target_file(folder: Path, name: str) -> Path:
    return folder / f"target-{_file_name(name)}.parquet"


def _file_name(name: str) -> str:
    """A name that leads nowhere else, whatever is in it, and is no longer than files may be named."""
    quoted = quote(name, safe=_PLAIN)
    return quoted if len(quoted) <= 200 else f"{quoted[:150]}.{digest(name, 16)}"


def _write(place: Path, texts: Sequence[TaskText], digest_of_texts: str, *, total: int) -> None:
    columns = {
        "input": [text.input for text in texts],
        "output": [text.output for text in texts],
        "choices": [list(text.choices) for text in texts],
        "label": [text.label for text in texts],
    }
    metadata = json.dumps({"digest": digest_of_texts, "total": total, "sealed": True}).encode()
    table = pa.table(columns, schema=_SCHEMA)
    write_whole(place, encode_sealed(table, metadata, dictionaries=("output", "label")))


def _digest_of(place: Path) -> str | None:
    """The digest of what a file was made of; None where it is not there, or of an earlier version."""
    try:
        metadata = json.loads(pq.read_schema(place).metadata[METADATA])
    except FileNotFoundError:
        return None
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise_refusal(error, place)
        return None
    return str(metadata["digest"]) if "sealed" in metadata else None


def _checked(place: Path) -> pa.Table:
    """A file's table. ValueError where it is damaged; a file of an earlier version has no checksums."""
    require_plain_file(place)
    try:
        metadata = pq.read_schema(place).metadata or {}
        if CHECKSUMS in metadata or "sealed" in json.loads(metadata[METADATA]):
            return read_sealed(place, _SCHEMA)
        with pq.ParquetFile(place) as file:
            return file.read()
    except (OSError, pa.ArrowException, KeyError, TypeError) as error:
        raise_refusal(error, place)
        raise ValueError(str(error)) from None


def _read(place: Path) -> tuple[tuple[TaskText, ...], int]:
    try:
        table = _checked(place)
        total = int(json.loads(table.schema.metadata[METADATA])["total"])
    except FileNotFoundError:
        raise RunError(
            f"{place}: is not there, since an earlier version of traitmap made this run; `traitmap run "
            "STUDY` adds the texts and computes nothing again."
        ) from None
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{place}: damaged ({error}); `traitmap run STUDY` writes it anew.") from None
    rows = table.to_pylist()
    texts = (TaskText(row["input"], row["output"], tuple(row["choices"]), row["label"]) for row in rows)
    return tuple(texts), total
