"""Copies of hub datasets and models in a folder here, used in the place of the hub."""

from __future__ import annotations

import errno
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from traitmap.errors import whole_reason
from traitmap.study.paths import is_local_data

_CARD = "README.md"
_SPLIT_FILES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")
_NOT_WRITTEN = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.ENOTDIR, errno.EEXIST, errno.ENOENT}
)
_PLAIN = ("arrow", "csv", "json", "parquet", "text")  # dataset_path of tasks over plain files


def folder_of(name: str, copies: Path) -> Path:
    """Where the copy of ``org/name`` lies, there or not: ``org__name``."""
    return copies / name.replace("/", "__")


def copy_of(name: str, subset: str | None, copies: Path | None) -> dict[str, Any] | None:
    """Arguments of ``datasets.load_dataset`` for the copy of a hub dataset; None where the folder holds none.

    A copy is the hub's repository as it is (with a README.md that tells subsets and splits), or one file
    for each split, ``org__name/SPLIT.jsonl`` (or .json, .csv, .tsv, .parquet), those of a subset in
    ``org__name/SUBSET/`` where there is such a folder.
    """
    if copies is None or not folder_of(name, copies).is_dir():
        return None
    folder = folder_of(name, copies)
    if (folder / _CARD).is_file():
        return {"path": str(folder), "name": subset}
    if subset is not None and (folder / subset).is_dir():
        folder = folder / subset
    files = {file.stem: file.name for file in sorted(folder.iterdir()) if file.suffix in _SPLIT_FILES}
    if not files:
        return {"path": str(folder)}  # `datasets` knows more layouts, or says what it misses
    return {"path": str(folder), "data_files": files}


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
