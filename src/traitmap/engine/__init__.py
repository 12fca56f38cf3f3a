"""The language-model edge: the only place that imports torch, transformers and peft."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from traitmap.study.settings import Model

if TYPE_CHECKING:
    from traitmap.engine.local import LocalEngine


def open_engine(model: Model, folder: Path | None = None) -> LocalEngine:
    """Load a base model on this machine; a relative path starts from ``folder`` (default: here).

    Imports torch. ModelError where the base cannot be used.
    """
    from traitmap.engine.local import LocalEngine

    return LocalEngine.open(model, folder)
