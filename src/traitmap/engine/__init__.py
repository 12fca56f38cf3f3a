"""The language-model edge: the only place that imports torch, transformers and peft."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from traitmap.engine.cpu.memory import paused
from traitmap.study.settings import Model

if TYPE_CHECKING:
    from traitmap.engine.local import LocalEngine


def open_engine(model: Model, folder: Path | None = None) -> LocalEngine:
    """Load a base model on this machine; a relative path starts from ``folder`` (default: here).

    Imports torch. ModelError where the base cannot be used.
    """
    # oneDNN keeps a compiled kernel for each shape of a product, 1,024 by default, a quarter of a megabyte
    # each. Products come in few shapes (``shapes``): with 256 nearly all are found again.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "256")
    with paused():
        from traitmap.engine.local import LocalEngine

    return LocalEngine.open(model, folder)
