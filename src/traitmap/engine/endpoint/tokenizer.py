"""The tokenizer of a base that is served elsewhere: from a local folder or the hub, no weights."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from traitmap.errors import ModelError
from traitmap.study.digest import digest
from traitmap.study.paths import model_location

_FILES = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "chat_template*",
    "config.json",
)


def load_tokenizer(given: str, folder: Path) -> tuple[Any, str]:
    """The tokenizer and a digest of its files. ModelError where it cannot be loaded.

    folder: where relative paths start from, the study file's.
    """
    from transformers import AutoTokenizer  # takes seconds to import

    place = _located(given, folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    except (OSError, ValueError, ImportError, KeyError) as error:
        why = str(error).strip().splitlines()[0]
        raise ModelError(f"model.endpoint.tokenizer {given!r}: cannot be loaded: {why}") from error
    files = sorted({path for pattern in _FILES for path in place.glob(pattern) if path.is_file()})
    return tokenizer, digest([[path.name, hashlib.sha256(path.read_bytes()).hexdigest()] for path in files])


def _located(given: str, folder: Path) -> Path:
    location = model_location(given, folder)
    if isinstance(location, Path):
        if not location.is_dir():
            raise ModelError(f"model.endpoint.tokenizer {given!r}: there is no folder {location}.")
        return location
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(snapshot_download(given, allow_patterns=list(_FILES)))
    except (OSError, HfHubHTTPError, ValueError) as error:
        raise ModelError(
            f"model.endpoint.tokenizer {given!r}: neither a local folder nor to be had from the hub "
            f"({type(error).__name__}). Check the name, the network, and `hf auth login` for gated models."
        ) from error
