"""Copies of hub datasets and models in a folder here, used in the place of the hub."""

from __future__ import annotations

import errno
import gzip
import json
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from traitmap.errors import DataError, whole_reason
from traitmap.study.paths import data_stem, data_suffix, is_local_data

_CARD = "README.md"
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")
_NOT_WRITTEN = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.ENOTDIR, errno.EEXIST, errno.ENOENT}
)
_PLAIN = ("arrow", "csv", "json", "parquet", "text")  # dataset_path of tasks over plain files
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_BUILDERS = {  # what reads a file of each ending in `datasets`
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "json"),
    **{".csv": "csv", ".tsv": "csv", ".txt": "text", ".parquet": "parquet"},
    **dict.fromkeys((".arrow", ".feather"), "arrow"),
}


def folder_of(name: str, copies: Path) -> Path:
    """Where the copy of ``org/name`` lies, there or not: ``org__name``."""
    return copies / name.replace("/", "__")


def copy_of(
    name: str, subset: str | None, copies: Path | None, split: str | None = None
) -> dict[str, Any] | None:
    """Arguments of ``datasets.load_dataset`` for the copy of a hub dataset; None where the folder holds none.

    A copy is the hub's repository as it is (with a README.md that tells subsets and splits), or one file
    for each split, ``org__name/SPLIT.jsonl`` or in any other form that a source's ``path`` may have, those of
    a subset in ``org__name/SUBSET/`` where there is such a folder.
    split: the one that will be read, where the forms of others do not matter.
    DataError where two files are one split, forms are mixed, or a file is not the data.
    """
    if copies is None or not folder_of(name, copies).is_dir():
        return None
    folder = folder_of(name, copies)
    if (folder / _CARD).is_file():
        return {"path": str(folder), "name": subset}
    if subset is not None and (folder / subset).is_dir():
        folder = folder / subset
    files = _split_files(folder)
    if not files:
        return {"path": str(folder)}  # `datasets` knows more layouts, or says what it misses
    named = {stem: file for stem, file in files.items() if split is not None and stem in split}
    files = named or files
    for file in files.values():
        if is_lfs_pointer(file):
            raise DataError(f"{file} is a Git LFS pointer, not the data; run: git lfs pull")
    options = {_options(file) for file in files.values()}
    if len(options) > 1 or len({_BUILDERS[data_suffix(file.name)] for file in files.values()}) > 1:
        listing = ", ".join(file.name for file in files.values())
        raise DataError(f"{folder} holds splits in several forms ({listing}); convert them to one")
    ((builder, field),) = options
    names = {stem: file.name if builder is None else str(file) for stem, file in files.items()}
    copy = {"path": builder or str(folder), "data_files": names}
    return copy | {"field": field} if field else copy


def _split_files(folder: Path) -> dict[str, Path]:
    """Files of a copy by the split that each is."""
    files: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        if data_suffix(file.name) and file.is_file():
            stem = data_stem(file.name)
            if stem in files:
                raise DataError(
                    f"{folder}: {files[stem].name} and {file.name} are one split; keep one of them"
                )
            files[stem] = file
    return files


def _options(file: Path) -> tuple[str | None, str | None]:
    """The reader of `datasets`, where it does not find it itself, and the key of a file's rows."""
    if data_suffix(file.name) == ".feather":
        return "arrow", None
    if data_suffix(file.name) == ".json":
        content = file.read_bytes()
        text = gzip.decompress(content) if file.name.lower().endswith(".gz") else content
        with suppress(ValueError, RecursionError):  # objects line by line, which is read as it is
            if text[:100].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") and "data" in json.loads(text):
                return "json", "data"
    return None, None


def is_lfs_pointer(file: Path) -> bool:
    """Whether a file is what Git leaves in the place of a large one that was not fetched."""
    with file.open("rb") as stream:
        return stream.read(len(_LFS_POINTER)) == _LFS_POINTER


def read_from_copy(config: dict[str, Any], copies: Path | None) -> dict[str, Any]:
    """The configuration of an lm-eval task, reading from the copy of its dataset where there is one.

    config: as the task file has it, never changed in place; copies: the study's ``data`` folder, or None.
    """
    dataset = config.get("dataset_path")
    if not isinstance(dataset, str) or dataset in _PLAIN or is_local_data(dataset):
        return config
    copy = copy_of(dataset, config.get("dataset_name"), copies)
    if copy is None:
        return config
    options = config.get("dataset_kwargs") or {}
    options = {k: value for k, value in options.items() if k not in ("revision", "data_files", "data_dir")}
    path, name = copy.pop("path"), copy.pop("name", None)
    return {**config, "dataset_path": path, "dataset_name": name, "dataset_kwargs": {**options, **copy}}


def model_copy(path: str, copies: Path | None) -> Path | None:
    """The folder that holds a copy of a base model, or None.

    path: the hub id of the study's ``model.path``; copies: the study's ``data`` folder, or None.
    """
    if copies is None or is_local_data(path):
        return None
    folder = folder_of(path, copies)
    return folder if (folder / "config.json").is_file() else None


def tokenizer_copy(name: str, copies: Path | None) -> Path | None:
    """The folder that holds a copy of a tokenizer, with or without a model's weights, or None.

    name: a hub id; copies: the study's ``data`` folder, or None.
    """
    if copies is None or is_local_data(name):
        return None
    folder = folder_of(name, copies)
    return folder if any((folder / file).is_file() for file in _TOKENIZER) else None


def hub_reason(error: BaseException) -> str:
    """Why something cannot be had from the hub, and what to do: a cache that cannot be written is named."""
    return cache_problem(error) or (
        f"{type(error).__name__}: {whole_reason(error, 2).rstrip('.')}. Check the name, the network, and `hf "
        "auth login` for gated repositories"
    )


def cache_problem(error: BaseException) -> str:
    """Which folder under ``HF_HOME`` cannot be written, where an error came from that; empty where not."""
    import datasets
    from huggingface_hub import constants

    cause: BaseException | None = error
    while cause is not None and not (isinstance(cause, OSError) and cause.errno in _NOT_WRITTEN):
        cause = cause.__cause__ or cause.__context__
    for cache in (constants.HF_HUB_CACHE, datasets.config.HF_DATASETS_CACHE) if cause else ():
        try:
            Path(cache).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=cache):
                continue
        except OSError as fault:
            return (
                f"the cache {cache} cannot be written ({fault.strerror or fault}); set HF_HOME to a folder "
                "of yours, or make room on its disk"
            )
    return ""


def no_network(fault: BaseException) -> bool:
    """Whether an exception, or one that it came from, is a hub that cannot be reached."""
    cause: BaseException | None = fault
    while cause is not None:
        of_client = type(cause).__module__.split(".")[0] in ("httpx", "httpcore", "requests", "urllib3")
        if of_client or isinstance(cause, ConnectionError | TimeoutError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def network_advice(name: str) -> str:
    """What to do where a hub dataset cannot be had."""
    return (
        "check the network (with HF_HUB_OFFLINE=1 only what lies in the cache is used, without waiting), or "
        f"put a copy of its splits at FOLDER/{name.replace('/', '__')}/SPLIT.jsonl and give `--data FOLDER`"
    )


@contextmanager
def offline_where_unreachable() -> Iterator[None]:
    """In this block the hub's clients use their caches alone where its name cannot even be resolved.

    They would try again for half a minute for each dataset.
    """
    import datasets
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    if not any(before) and not _resolves(constants.ENDPOINT):
        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before


@lru_cache(maxsize=4)
def _resolves(endpoint: str) -> bool:
    """Whether the machine of a URL has an address. Asked once; with a proxy the answer would say nothing."""
    if getproxies():
        return True
    try:
        return bool(socket.getaddrinfo(urlsplit(endpoint).hostname, 443))
    except OSError:
        return False
