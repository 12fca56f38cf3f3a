"""SQL over a run: its outcomes, cells, adapters, sources, targets and texts as tables, read by DuckDB.

Arrow reads the files and hands the columns over, so DuckDB itself needs no file: it runs with all access to
files and the network switched off and its settings locked, and the user's SQL can read the run alone.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow.fs import LocalFileSystem

from traitmap.data.outcomes import SCHEMA
from traitmap.errors import RunError, UserError
from traitmap.runs.files import partial_path, removed_on_failure
from traitmap.runs.ledger import CellEntry, Ledger, read_ledger
from traitmap.runs.status import cell_faults
from traitmap.runs.store import RunStore
from traitmap.runs.texts import read_run_texts

TABLES = ("outcomes", "cells", "adapters", "sources", "targets", "texts", "drift")
SECONDS, MEMORY_MB = 600.0, 4096  # that a query may take where nothing else is asked for
_MEMORY_BESIDE_MB = 512  # for the rows that are handed on, and what Python needs
_MORE_MEMORY = "ask for less, or give it more (--memory)"
_PATIENCE = 1.0  # seconds in which DuckDB heeds an interrupt, as a rule
_ROWS = 65_536  # rows of an answer that are in memory at a time
_NAMES_OUTCOMES = re.compile(r"outcomes|tables|query", re.IGNORECASE)  # or may list or build that name
_NAMES_TEXTS = re.compile(r"texts|tables|query", re.IGNORECASE)
_NAMES_DRIFT = re.compile(r"drift|tables|query", re.IGNORECASE)
_PLACE = (pa.field("source", pa.string()), pa.field("seed", pa.int64()), pa.field("target", pa.string()))
_OUTCOMES = pa.schema([*_PLACE, *(field.with_nullable(True) for field in SCHEMA)])
_CELLS = pa.schema(
    [
        *_PLACE,
        *(pa.field(name, pa.string()) for name in ("key", "status", "reason")),
        pa.field("seconds", pa.float64()),
    ]
)
_DRIFT = pa.schema(
    [
        *_PLACE[:2],
        pa.field("about", pa.string()),
        *(pa.field(name, pa.int64()) for name in ("text", "tokens")),
        *(pa.field(name, pa.float64()) for name in ("before", "after", "kl")),
    ]
)
_TEXTS = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in ("role", "name")),
        pa.field("item", pa.int64()),
        *(pa.field(name, pa.string()) for name in ("input", "output")),
        pa.field("choices", pa.list_(pa.string())),
        pa.field("label", pa.string()),
    ]
)


@dataclass(frozen=True)
class Answered:
    """The answer to a query.

    rows: the answer, some rows at a time; to be read once. left_out: damaged cells whose outcomes are not
    among the outcomes, each with its reason.
    """

    rows: pa.RecordBatchReader
    left_out: Mapping[str, str]


T = TypeVar("T")
Waited = Callable[[Callable[[], T]], T]


@contextmanager
def answered(
    store: RunStore, sql: str, *, seconds: float = SECONDS, memory_mb: int = MEMORY_MB
) -> Iterator[Answered]:
    """Answer one SELECT over the tables of a run, see ``TABLES``. The rows can be read inside the context.

    seconds, memory_mb: of DuckDB's work; nothing is put on a disk instead. Ctrl-C ends it at once.

    ``outcomes`` holds every item of the whole cells, with source, seed (null for the base) and target. A
    file that does not agree with its checksum is left out and named. UserError, with DuckDB's own words,
    where the SQL cannot be answered or is no SELECT, and where it is stopped at a limit.
    """
    if not (0 < seconds < float("inf") and memory_mb >= 1):
        raise UserError(f"A query needs seconds and memory (MB) above 0, not {seconds:g} and {memory_mb}.")
    with _connected(seconds, memory_mb) as (connection, waited):
        with _errors_of_duckdb():
            kinds = [statement.type.name for statement in connection.extract_statements(sql)]
        if len(kinds) != 1:
            raise UserError(f"The query holds {len(kinds)} statements; give one SELECT.")
        if kinds[0] not in ("SELECT", "EXPLAIN"):
            raise UserError(
                f"The query is a {kinds[0]} statement; a run can only be read, so give one SELECT."
            )
        left_out = _register(connection, store, sql)
        connection.execute(f"SET memory_limit = '{memory_mb}MB'")
        connection.execute("SET temp_directory = ''")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        with _errors_of_duckdb():
            reader = waited(lambda: connection.sql(sql).to_arrow_reader(_ROWS))

            def next_batch() -> pa.RecordBatch | None:
                try:
                    return reader.read_next_batch()
                except StopIteration:
                    return None

            batches = iter(lambda: waited(next_batch), None)
            yield Answered(pa.RecordBatchReader.from_batches(reader.schema, batches), left_out)


@contextmanager
def _connected(seconds: float, memory_mb: int) -> Iterator[tuple[duckdb.DuckDBPyConnection, Waited]]:
    """A connection, and what runs a step of its work beside this thread, which so hears Ctrl-C.

    The time is watched, and the memory of the whole process: a function of DuckDB may build one text larger
    than its limit, and heed nothing meanwhile. Then it is left in its thread, which ends with the process.
    """
    connection = duckdb.connect(":memory:", config={"python_enable_replacements": "false"})
    end, largest = time.monotonic() + seconds, _resident_mb() + memory_mb + _MEMORY_BESIDE_MB
    steps: list[Future[Any]] = []

    def waited(step: Callable[[], T]) -> T:
        work: Future[T] = Future()
        steps[:] = [work]

        def run() -> None:
            try:
                work.set_result(step())
            except BaseException as error:  # handed on to who waits
                work.set_exception(error)

        threading.Thread(target=run, daemon=True).start()
        try:
            while not wait([work], 0.1).done:
                if time.monotonic() > end:
                    raise UserError(
                        f"The query was stopped after {seconds:g} seconds; ask for less, or give it more "
                        "(--seconds)."
                    )
                if _resident_mb() > largest:
                    raise UserError(f"The query was stopped beyond {memory_mb} MB; {_MORE_MEMORY}.")
            return work.result()
        finally:
            given_up = time.monotonic() + _PATIENCE
            while not work.done() and time.monotonic() < given_up:
                connection.interrupt()
                wait([work], 0.05)

    try:
        yield connection, waited
    finally:
        if all(work.done() for work in steps):
            connection.close()


def _resident_mb() -> float:
    """Memory that this process holds; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except (OSError, ValueError):
        return 0.0
    return pages * os.sysconf("SC_PAGESIZE") / (1 << 20)


@contextmanager
def _errors_of_duckdb() -> Iterator[None]:
    try:
        yield
    except (duckdb.Error, pa.ArrowException) as error:
        if isinstance(error, duckdb.OutOfMemoryException) or "Out of Memory" in str(error):
            raise UserError(
                f"The query needs more memory than it may take; {_MORE_MEMORY}: {error}"
            ) from error
        tables = ", ".join(TABLES)
        raise UserError(f"The query cannot be answered: {error}\nTables of a run: {tables}.") from error


def _register(connection: duckdb.DuckDBPyConnection, store: RunStore, sql: str) -> Mapping[str, str]:
    """Make the tables of a run known; files are opened for those that the query may name."""
    ledger = read_ledger(store)
    connection.register("cells", pa.Table.from_pylist([dict(vars(cell)) for cell in ledger.cells], _CELLS))
    adapters = [(dict(vars(adapter)), adapter.report) for adapter in ledger.adapters]
    for row, _ in adapters:
        del row["report"]  # what it holds stands in columns of its own
    connection.register("adapters", _flat({**row, **report} for row, report in adapters))
    connection.register("sources", _flat(ledger.sources))
    connection.register("targets", _flat(ledger.targets))
    if _NAMES_DRIFT.search(sql):
        connection.register("drift", _drift(store))
    if _NAMES_TEXTS.search(sql):
        connection.register("texts", _texts(store, ledger))
    if not _NAMES_OUTCOMES.search(sql):
        return {}
    done = [cell for cell in ledger.cells if cell.status == "done" and cell.key is not None]
    faults = cell_faults({store.cell(cell.key or "") for cell in done})
    whole = [cell for cell in done if not faults.get(store.cell(cell.key or ""))]
    connection.register("outcomes", _outcomes(store, whole))
    return {path.relative_to(store.folder).as_posix(): why for path, why in faults.items()}


def _outcomes(store: RunStore, cells: Iterable[CellEntry]) -> ds.Dataset:
    """The outcomes of cells, read when asked for: a condition on source, seed or target skips files."""
    layout, disk = ds.ParquetFileFormat(), LocalFileSystem()
    pieces = []
    for cell in cells:
        seed = ds.field("seed").is_null() if cell.seed is None else ds.field("seed") == cell.seed
        place = (ds.field("source") == cell.source) & (ds.field("target") == cell.target) & seed
        path = str(store.cell(cell.key or ""))
        pieces.append(layout.make_fragment(path, disk, partition_expression=place))
    return ds.FileSystemDataset(pieces, _OUTCOMES, layout, disk)


def _drift(store: RunStore) -> pa.Table:
    """One row a text of ``drift.json``: its cost to base and adapter in nats, and the KL or null."""
    from traitmap.runs.drift import read_drift  # scipy's tests, for few who ask

    rows = [
        {"source": row.source, "seed": row.seed, "about": about, "text": text, "tokens": tokens}
        | {"before": before, "after": after, "kl": kl if kl == kl else None}
        for row in read_drift(store)
        for about, part in (("neutral", row.neutral), ("own", row.own))
        if part is not None
        for text, (tokens, before, after, kl) in enumerate(
            zip(*(getattr(part, name).tolist() for name in ("tokens", "before", "after", "kl")), strict=True)
        )
    ]
    return pa.Table.from_pylist(rows, _DRIFT)


def _texts(store: RunStore, ledger: Ledger) -> pa.Table:
    """Texts of sources and targets where the run has kept them; empty where not.

    Items of targets are numbered as in the outcomes: by their place in the data, where a limit leaves some.
    """
    try:
        run_texts = read_run_texts(store)
    except RunError as error:
        warnings.warn(f"the table texts is empty: {error}", stacklevel=2)
        return _TEXTS.empty_table()
    rows = [
        {"role": role, "name": name, "item": item, **vars(text), "choices": list(text.choices)}
        for role, named in (("source", run_texts.sources), ("target", run_texts.targets))
        for name, texts in named.items()
        for item, text in zip(
            _numbers(store, ledger, name, len(texts)) if role == "target" else range(len(texts)),
            texts,
            strict=True,
        )
    ]
    return pa.Table.from_pylist(rows, _TEXTS)


def _numbers(store: RunStore, ledger: Ledger, target: str, count: int) -> Sequence[int]:
    """Numbers of a target's items, as one of its cells has them; from 0 on where none is whole."""
    for cell in ledger.cells:
        if cell.target == target and cell.status == "done" and cell.key is not None:
            try:
                numbers = pq.read_table(store.cell(cell.key), columns=["item"])["item"].to_pylist()
            except (OSError, pa.ArrowException):
                continue
            if len(numbers) == count:
                return [int(number) for number in numbers]
    return range(count)


def _flat(records: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Records as a table: a column for every key; what is itself a list or an object is JSON text."""
    rows = [dict(record) for record in records]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.table({name: _column([row.get(name) for row in rows]) for name in names})


def _column(values: list[Any]) -> pa.Array:
    plain = [
        json.dumps(value, ensure_ascii=False) if isinstance(value, list | tuple | dict) else value
        for value in values
    ]
    try:
        column = pa.array(plain)
    except pa.ArrowException:
        column = pa.array([None if value is None else str(value) for value in plain])
    return column.cast(pa.string()) if pa.types.is_null(column.type) else column


def write_rows(rows: pa.RecordBatchReader, path: Path) -> None:
    """Write an answer as a Parquet file, some rows at a time. UserError where it cannot be written.

    rows: read once, batch by batch, so that memory holds one of them. path: replaced whole, or left as it is.
    """
    partial = partial_path(path)
    try:
        with removed_on_failure(partial):
            with pq.ParquetWriter(partial, rows.schema, compression="zstd") as writer:
                for batch in rows:
                    writer.write_batch(batch)
            partial.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error}).") from error
