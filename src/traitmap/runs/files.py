"""The files of a run: each is there whole or not at all, and shows when it is damaged.

Written under a temporary name beside the place, forced to the disk, renamed. A JSON file is sealed by a
digest of all other lines on its first line; one without such a line is of an earlier version and is read as
it is (one flipped byte cannot make a sealed file look like that, since two words on the first line mark
it). A Parquet file carries a digest of every column and of its metadata: Parquet does not guard its footer,
and a digest of values holds whatever version of Arrow wrote them. A damaged file is moved to ``quarantine``
with the reason, and the next run makes it anew.
"""

from __future__ import annotations

import errno
import fnmatch
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from traitmap.errors import RunError

T = TypeVar("T")

PARTIAL = ".partial-"
_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG})


def partial_path(path: Path) -> Path:
    """The temporary name of a file or folder that is being written: in the same folder, easily told."""
    return path.with_name(PARTIAL + path.name)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a kill at any moment, finds the old content or the new.

    OSError where it cannot be written; then the old content stands and no temporary file is left.
    """
    write_partial(path, content)
    publish(partial_path(path), path)


def write_partial(path: Path, content: bytes) -> None:
    """The first half of ``write_whole``: all is on the disk, under the temporary name.

    A file that cannot be written is removed: on a full disk its bytes are needed.
    """
    partial = partial_path(path)
    with naming(path), removed_on_failure(partial), partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_output(path: str | Path, content: str | bytes) -> Path:
    """Write a file that a user named, whole or not at all, with the folders above it; returns its path.

    content: text is written as UTF-8 with the line ends that it has. Links stay links, and what is no plain
    file (``/dev/stdout``, a pipe) is written as it stands. A file that one may write in a folder that one may
    not is written in its place. OSError names the file.
    """
    place = Path(path)
    data = content.encode("utf-8") if isinstance(content, str) else content
    with naming(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        place = place.resolve()
        if place.exists() and not (place.is_file() and os.access(place.parent, os.W_OK)):
            with place.open("wb") as file:
                file.write(data)
        else:
            write_whole(place, data)
    return Path(path)


def own_file(folder: Path, name: str) -> Path:
    """The place of a file that a command writes into a folder by itself, which somebody else may have made.

    RunError where a link stands there that leads out of the folder: what it points to is nobody's to replace.
    """
    place = folder / name
    if place.is_symlink() and not place.resolve().is_relative_to(folder.resolve()):
        raise RunError(
            f"{place} is a link to {place.resolve()}, outside of its folder; remove it, or name another file"
        )
    return place


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A new folder under a temporary name beside it, which gets its own at the end: all of it or nothing.

    folder: absent, or empty. What a killed writer left under the temporary name is removed. The folder that
    one stands in is filled in its place.
    """
    place = folder.resolve()
    if place == Path.cwd():
        yield place
        return
    staged = partial_path(place)
    if staged.exists():
        shutil.rmtree(staged)
    staged.mkdir(parents=True)
    try:
        yield staged
        publish(staged, place)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An error of the system that names no file names this one: a write that fails tells only why."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def removed_on_failure(partial: Path) -> Iterator[None]:
    """A temporary file that goes where writing it fails."""
    try:
        yield
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def disk_trouble(error: BaseException | None) -> str:
    """Why the disk cannot be written, where that is what an error comes from; else nothing.

    Libraries written in other languages tell it in words alone.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in _DISK:
            return error.strerror or os.strerror(error.errno or 0)
        for number in _DISK:
            if f"(os error {number})" in str(error):
                return os.strerror(number)
        error = error.__cause__ or error.__context__
    return ""


def write_json(path: Path, data: Any) -> None:
    """``write_whole`` of readable JSON. ValueError for NaN and infinity, which JSON cannot hold."""
    write_whole(path, (json.dumps(data, indent=1, allow_nan=False) + "\n").encode("utf-8"))


def publish(partial: Path, path: Path) -> None:
    """Give a finished file or folder its final name, in place of what stands there.

    All that is in a folder is forced to the disk first, then the folder that holds the name.
    """
    if partial.is_dir():
        for file in partial.iterdir():
            sync(file)
        sync(partial)
        if path.exists():
            shutil.rmtree(path)
    os.replace(partial, path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Force a file's or folder's content to the disk; a folder's where the system does that for folders."""
    try:
        descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    except PermissionError:
        if path.is_dir():  # Windows opens none
            return
        raise
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_partials(folder: Path) -> None:
    """Remove what killed writers left behind. Only for the one who holds the lock.

    Files and folders under temporary names (``partial_path``), in this folder alone.
    """
    for leftover in files_in(folder, PARTIAL + "*"):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()


_SEAL = re.compile(rb'\A\{\n "checksum": "sha256:([0-9a-f]{64})",\n')
_MARKS = (b'"checksum"', b'"sha256:')
_HEAD = 120  # bytes in which the seal stands


def write_sealed_json(path: Path, data: dict[str, Any]) -> None:
    """Write an object whole, sealed. ValueError for NaN and infinity, which JSON cannot hold.

    The first line of the object is its checksum, the sha256 of every byte after that line.
    """
    body = json.dumps(data, indent=1, allow_nan=False).encode("utf-8")[2:] + b"\n"
    checksum = sha256(body).hexdigest().encode()
    write_whole(path, b'{\n "checksum": "sha256:' + checksum + b'",\n' + body)


def read_sealed_json(path: Path) -> dict[str, Any]:
    """The object as it was written. ValueError where the file is damaged, or a folder stands in its place.

    OSError where it is not there or the system does not give it, which says nothing against it. Without the
    checksum's own entry. A file of an earlier version has none and is read as it is.
    """
    require_plain_file(path)
    raw = path.read_bytes()
    seal = _SEAL.match(raw)
    if seal is None and any(mark in raw[:_HEAD] for mark in _MARKS):
        raise ValueError("its checksum cannot be read")
    if seal is not None and sha256(raw[seal.end() :]).hexdigest().encode() != seal[1]:
        raise ValueError("its checksum differs")
    try:
        data = json.loads(raw.decode("utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(data, dict):
        raise ValueError("it holds no object")
    data.pop("checksum", None)
    return data


def read_record(path: Path, parse: Callable[[dict[str, Any]], T], *, advice: str) -> T:
    """A sealed JSON file as a record, made by ``parse`` from the object that it holds.

    advice: what the user can do about a damaged file, as the end of a sentence.
    OSError where there is no file or the system does not give it. RunError where its checksum differs, or
    ``parse`` finds in it what no run holds (ValueError, KeyError, TypeError or AttributeError).
    """
    try:
        return parse(read_sealed_json(path))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path}: damaged ({error}); {advice}.") from None


def json_fault(path: Path) -> str:
    """Why a file is damaged; nothing where it is whole, or is not there.

    Reads as ``read_sealed_json`` does, and returns its message in place of raising it. OSError where the
    system does not give the file: then nobody knows, and nothing may be done to it.
    """
    try:
        read_sealed_json(path)
    except FileNotFoundError:
        return ""
    except ValueError as error:
        return str(error)
    return ""


def files_in(folder: Path, pattern: str) -> list[Path]:
    """Files of a folder by their names, sorted; none where there is no folder.

    pattern: as ``fnmatch`` has it. OSError where the folder may not be read, or a file stands in its place:
    ``Path.glob`` would say that there is nothing.
    """
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    return sorted(folder / name for name in fnmatch.filter(names, pattern))


def require_plain_file(path: Path) -> None:
    """ValueError where something stands in a file's place that is none: a folder, or a pipe, which to read
    would wait for ever. OSError where nothing is there, or one may not look."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise ValueError(f"{'a folder' if stat.S_ISDIR(mode) else 'a pipe or device'} stands in its place")


def raise_refusal(error: BaseException, path: Path) -> None:
    """Raise a reader's error again, as one that names the file, where the system does not give that file.

    Arrow says so by the number of the error; damage has none, or that of a seek to nowhere.
    """
    if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL, errno.EISDIR):
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


METADATA = b"traitmap"
CHECKSUMS = b"traitmap.sha256"
_FAULTS = (OSError, pa.ArrowException, ValueError, KeyError, TypeError, AttributeError, IndexError)


def encode_sealed(table: pa.Table, metadata: bytes, *, dictionaries: Sequence[str]) -> pa.Buffer:
    """The bytes of a Parquet file; the same table gives the same bytes.

    metadata: JSON text of the caller. dictionaries: columns whose values are often the same.
    """
    sums = {name: column_digest(table[name]) for name in table.column_names}
    sums[""] = sha256(metadata).hexdigest()
    entries = {METADATA: metadata, CHECKSUMS: json.dumps(sums, sort_keys=True).encode()}
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.replace_schema_metadata(entries),
        sink,
        compression="zstd",
        use_dictionary=list(dictionaries),
        write_statistics=False,
    )
    return sink.getvalue()


def read_sealed(path: Path, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """Some columns of a file (all of the schema by default, or none), checked, with the metadata.

    ValueError, in words, where it is damaged or was not sealed; OSError where it is not there or the system
    does not give it.
    """
    names = list(schema.names if columns is None else columns)
    require_plain_file(path)
    try:
        # the file alone: a folder of that name would be read as a dataset
        with pq.ParquetFile(path) as file:
            table = file.read(columns=names, use_threads=False)
        sums = json.loads(table.schema.metadata[CHECKSUMS])
        computed = {name: column_digest(table[name]) for name in names}
        computed[""] = sha256(table.schema.metadata[METADATA]).hexdigest()
        types = [table.schema.field(name).type for name in names]
        whole = computed == {name: sums[name] for name in computed}
        whole &= types == [schema.field(name).type for name in names]
    except (*_FAULTS, MemoryError, OverflowError, RecursionError) as error:
        raise_refusal(error, path)
        missing = f"no {error.args[0]!r} in it" if isinstance(error, KeyError) else ""
        raise ValueError(missing or (str(error) or type(error).__name__).splitlines()[0]) from None
    if not whole:
        raise ValueError("its checksums differ")
    return table


def column_digest(column: pa.ChunkedArray) -> str:
    """Digest of a column's values, whatever file layout or version of Arrow holds them.

    A sha256 in hex, over the number of values, which of them are null, and the values: booleans, numbers,
    strings, or lists of numbers. Null and zero, or null and an empty text, have different digests.
    """
    array = column.combine_chunks()
    hashed = sha256(str(len(array)).encode())
    hashed.update(np.asarray(array.is_valid()).tobytes())
    if pa.types.is_list(array.type):
        hashed.update(np.asarray(array.value_lengths().fill_null(0)).astype(np.int64).tobytes())
        array = array.flatten()
    if pa.types.is_string(array.type):
        array = array.fill_null("")
        _, places, text = array.buffers()
        lengths, content = np.zeros(len(array), np.int64), memoryview(b"")
        if len(array) and text is not None:  # without making one string of them
            at = np.frombuffer(places, np.int32)[array.offset : array.offset + len(array) + 1]
            lengths, content = np.diff(at).astype(np.int64), memoryview(text)[int(at[0]) : int(at[-1])]
        hashed.update(lengths.tobytes())
        hashed.update(content)
    else:
        nothing = False if pa.types.is_boolean(array.type) else 0
        hashed.update(np.asarray(array.fill_null(nothing)).tobytes())
    return hashed.hexdigest()


QUARANTINE = "quarantine"


@dataclass(frozen=True)
class Quarantined:
    """A file or folder that was damaged.

    path: where it stood, seen from the run folder. kept: where it is now, by its name in ``quarantine``.
    """

    path: str
    kept: str
    reason: str


def quarantine(folder: Path, path: Path, reason: str) -> Path:
    """Move a damaged file or folder of a run to ``quarantine``; returns its new place. Needs the lock.

    The reason is written first: a kill in between leaves a reason without a file, which counts nothing.
    """
    place = folder / QUARANTINE
    place.mkdir(exist_ok=True)
    number = 1
    while (moved := place / f"{path.name}.{number}").exists():
        number += 1
    note = {"path": path.relative_to(folder).as_posix(), "reason": reason}
    write_json(moved.with_name(f"{moved.name}.json"), note)
    os.replace(path, moved)
    return moved


def quarantined(folder: Path) -> tuple[Quarantined, ...]:
    """All that is kept in ``quarantine``, by name.

    A note whose file is gone counts nothing; one that cannot be read is named with that as its reason.
    """
    records = []
    for note in files_in(folder / QUARANTINE, "*.json"):
        name = note.stem
        if not note.with_suffix("").exists():
            continue
        try:
            raw = json.loads(note.read_text(encoding="utf-8"))
            records.append(Quarantined(str(raw["path"]), name, str(raw["reason"])))
        except (OSError, ValueError, KeyError, TypeError):
            records.append(Quarantined(name, name, "its reason cannot be read"))
    return tuple(records)
