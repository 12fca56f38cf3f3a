"""A whole model by its settings: where its files are, and the digest that its results are kept under.

The base of a study is one, and so is every row that is a merge, a full fine-tune, a quantised build or a
served model. Nothing is loaded here, and no tensor is read but its bytes.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from traitmap.data.copies import hub_reason, model_copy
from traitmap.data.records import WholeModel
from traitmap.errors import ModelError
from traitmap.study.paths import digest, model_location
from traitmap.study.settings import Model

FILES = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model", "*.txt")
_NOT_THE_MODEL = ("recipe.json", "loss_curve.csv")


def whole_model(settings: Model, folder: Path, copies: Path | None = None) -> WholeModel:
    """A model that stands beside the base, with the digest of its files, or of its name where it is served.

    folder: where a relative path starts from. copies: a folder with local copies of hub models.
    ModelError where it is not there, or is no model in Hugging Face layout with safetensors.
    """
    if settings.endpoint is not None:
        words = [settings.endpoint.url, settings.path, settings.revision]
        return WholeModel(settings, folder, digest({"served": words}))
    copy = model_copy(settings.path, copies)
    if copy is not None:
        settings = settings.model_copy(update={"path": str(copy), "revision": None})
    place = located(settings, folder)
    if not (place / "config.json").is_file():
        raise ModelError(f"{place} has no config.json, so it is not a model in Hugging Face layout")
    if not any(place.glob("*.safetensors")):
        raise ModelError(f"{place} has no weights in safetensors; save it with model.save_pretrained()")
    arithmetic = f"{settings.dtype} on {settings.device}{' nf4' if settings.load_in_4bit else ''}"
    return WholeModel(settings, folder, model_digest(place, arithmetic))


def located(settings: Model, folder: Path) -> Path:
    """The local folder of a model; hub ids are downloaded (safetensors and tokenizer only).

    folder: where relative paths start from, the study file's. ModelError where it cannot be had.
    """
    location = model_location(settings.path, folder)
    if isinstance(location, Path):
        if not location.is_dir():
            raise ModelError(f"model.path {settings.path!r}: there is no folder {location}.")
        return location
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(snapshot_download(settings.path, revision=settings.revision, allow_patterns=list(FILES)))
    except (OSError, HfHubHTTPError, ValueError) as error:
        raise ModelError(
            f"model.path {settings.path!r}: neither a local folder nor to be had from the hub: "
            f"{hub_reason(error)}"
        ) from error


def model_digest(folder: Path, arithmetic: str) -> str:
    """SHA-256 over names and bytes of all files that make the model, and the arithmetic it runs in."""
    total = hashlib.sha256(arithmetic.encode())
    files = sorted(
        {path for pattern in FILES for path in folder.glob(pattern)} - {folder / n for n in _NOT_THE_MODEL}
    )
    for path in files:
        with path.open("rb") as stream:
            total.update(json.dumps([path.name, hashlib.file_digest(stream, "sha256").hexdigest()]).encode())
    return total.hexdigest()[:32]
