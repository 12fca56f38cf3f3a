"""Parquet files that show damage: a digest of every column and of the metadata stands in the metadata.

Parquet does not guard its footer, and a digest of values holds whatever version of Arrow wrote them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

METADATA = b"traitmap"
CHECKSUMS = b"traitmap.sha256"
_FAULTS = (OSError, pa.ArrowException, ValueError, KeyError, TypeError, AttributeError, IndexError)


def encode_sealed(table: pa.Table, told: bytes, *, dictionaries: Sequence[str]) -> pa.Buffer:
    """The bytes of a Parquet file; the same table gives the same bytes.

    told: the metadata. dictionaries: columns whose values are often the same.
    """
    sums = {name: column_digest(table[name]) for name in table.column_names}
    sums[""] = sha256(told).hexdigest()
    metadata = {METADATA: told, CHECKSUMS: json.dumps(sums, sort_keys=True).encode()}
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.replace_schema_metadata(metadata),
        sink,
        compression="zstd",
        use_dictionary=list(dictionaries),
        write_statistics=False,
    )
    return sink.getvalue()


def read_sealed(path: Path, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """Some columns of a file (all of the schema by default, or none), checked, with the metadata.

    FileNotFoundError where it is not there; ValueError, in words, where it is damaged or was not sealed.
    """
    names = list(schema.names if columns is None else columns)
    try:
        # the file alone: a folder of that name would be read as a dataset
        with pq.ParquetFile(path) as file:
            table = file.read(columns=names, use_threads=False)
        sums = json.loads(table.schema.metadata[CHECKSUMS])
        found = {name: column_digest(table[name]) for name in names}
        found[""] = sha256(table.schema.metadata[METADATA]).hexdigest()
        types = [table.schema.field(name).type for name in names]
        whole = found == {name: sums[name] for name in found}
        whole &= types == [schema.field(name).type for name in names]
    except FileNotFoundError:
        raise
    except (*_FAULTS, MemoryError, OverflowError, RecursionError) as error:
        raise ValueError(_in_words(error)) from None
    if not whole:
        raise ValueError("its checksums differ")
    return table


def column_digest(column: pa.ChunkedArray) -> str:
    """Digest of a column's values, whatever file layout or version of Arrow holds them."""
    array = column.combine_chunks()
    hashed = sha256(str(len(array)).encode())
    hashed.update(np.asarray(array.is_valid()).tobytes())
    if pa.types.is_list(array.type):
        hashed.update(np.asarray(array.value_lengths().fill_null(0)).astype(np.int64).tobytes())
        array = array.flatten()
    if pa.types.is_string(array.type):
        lengths, text = _text_of(array.fill_null(""))
        hashed.update(lengths)
        hashed.update(text)
    else:
        nothing = False if pa.types.is_boolean(array.type) else 0
        hashed.update(np.asarray(array.fill_null(nothing)).tobytes())
    return hashed.hexdigest()


def _text_of(array: pa.StringArray) -> tuple[bytes, memoryview]:
    """Lengths (int64) and bytes of all strings, without making one of them."""
    _, places, text = array.buffers()
    if not len(array) or text is None:
        return np.zeros(len(array), np.int64).tobytes(), memoryview(b"")
    at = np.frombuffer(places, np.int32)[array.offset : array.offset + len(array) + 1]
    return np.diff(at).astype(np.int64).tobytes(), memoryview(text)[int(at[0]) : int(at[-1])]


def _in_words(error: BaseException) -> str:
    if isinstance(error, KeyError):
        return f"no {error.args[0]!r} in it"
    return (str(error) or type(error).__name__).splitlines()[0]
