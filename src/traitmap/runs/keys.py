"""What determines a result, as a key. Same key, same result: reuse it; anything else: compute it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from traitmap.data.records import ServedAdapter
from traitmap.errors import ModelError
from traitmap.study.digest import digest

if TYPE_CHECKING:
    from traitmap.data.sources import LoadedSource

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
# Keys of adapter_config.json that change no answer: where the base lay, who wrote the file, how it was
# trained. Every other key, known to us or not, takes part in the digest.
_MEANINGLESS = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "inference_mode",
        "lora_dropout",
        "peft_version",
        "revision",
        "runtime_config",
        "task_type",
    }
)


def adapter_key(source: LoadedSource, seed: int, base_digest: str) -> str:
    """Key of the adapter that training on a source with a seed gives.

    The name that the source draws as takes part, since the engine draws an adapter's first weights from
    that name and the seed: its own, or of a variation that of the source at its root.
    """
    return digest(
        {
            "base": base_digest,
            "source": source.digest,
            "name": source.draws_as,
            "lora": source.lora.model_dump(mode="json"),
            "training": source.training.model_dump(mode="json"),
            "seed": seed,
        }
    )


def adapter_digest(folder: Path | ServedAdapter) -> str:
    """Digest of a PEFT directory: the bytes of its weights and what of its configuration has a meaning.

    Of an adapter that a server holds only its name there, and the user's word for its weights, are known.
    ModelError where the weights or the configuration are absent or cannot be read.
    """
    if isinstance(folder, ServedAdapter):
        return digest({"served_as": folder.name, "revision": folder.revision})
    try:
        with (folder / WEIGHTS).open("rb") as file:
            weights = hashlib.file_digest(file, "sha256").hexdigest()
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        items = config.items()
    except FileNotFoundError as error:
        missing = Path(error.filename).name
        raise ModelError(f"{folder}: no {missing}; a PEFT directory holds {WEIGHTS} and {CONFIG}.") from None
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{folder}: cannot be read as a PEFT directory ({error}).") from None
    meaning = {key: value for key, value in items if key not in _MEANINGLESS}
    if isinstance(meaning.get("target_modules"), list):  # PEFT keeps a set, written in any order
        meaning["target_modules"] = sorted(meaning["target_modules"])
    return digest({"weights": weights, "config": meaning})


def cell_key(base_digest: str, adapter: str | None, target_digest: str) -> str:
    """Key of one cell. adapter: ``adapter_digest`` of its files, None for the base alone."""
    return digest({"base": base_digest, "adapter": adapter, "target": target_digest})
