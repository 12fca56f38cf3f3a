"""An engine over a base with whole models beside it: each answers its own row, one in memory at a time.

A merge or a full fine-tune is as large as its base. The base is unloaded before such a model is loaded and
comes back when it is asked again, unless both fit into half of the memory that is planned with.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from traitmap.data.records import AdapterPlace, Request, Response, WholeModel
from traitmap.engine.contract import Engine
from traitmap.errors import ModelError
from traitmap.progress import Listener, silent
from traitmap.study.settings import Model

_ROOM = 0.5  # of the memory planned with, that two models may take together; passes need the rest


class RowsEngine:
    """An ``engine.contract.Engine``: the base for base and adapters, other models for their rows.

    Digest and conditions are the base's, also while it is unloaded; its other members are reached through
    ``__getattr__``, so ``open_rows`` hands it out as the engine that it is.

    opener: opens an engine over a model's settings, with the folder that its relative paths start from.
    model, folder: of the base. together: whether the base and a model may be in memory at a time; by default
    the two are held against the memory of the base's device.
    """

    def __init__(
        self,
        opener: Callable[[Model, Path], Engine],
        model: Model,
        folder: Path,
        *,
        together: Callable[[Engine, WholeModel], bool] | None = None,
    ) -> None:
        self.opener, self.model, self.folder = opener, model, folder
        self.together = together or _fit
        self._base: Engine | None = opener(model, folder)
        self._other: tuple[str, Engine] | None = None
        self.base_digest, self.conditions = self._base.base_digest, dict(self._base.conditions)

    @property
    def base(self) -> Engine:
        """The base, loaded again where a model has taken its place. ModelError where it has changed since."""
        if self._base is None:
            self._other = None
            _free()
            self._base = self.opener(self.model, self.folder)
            if self._base.base_digest != self.base_digest:
                raise ModelError(f"model.path {self.model.path!r}: its files changed while it was in use.")
        return self._base

    def __getattr__(self, name: str) -> Any:
        """Whatever is asked beside answers (training, tokens, templates) is the base's."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.base, name)

    def answer(
        self,
        requests: Sequence[Request],
        adapter: AdapterPlace | None = None,
        listener: Listener = silent,
    ) -> list[Response]:
        if not isinstance(adapter, WholeModel):
            return self.base.answer(requests, adapter, listener)
        if not requests:
            return []
        return self.engine_of(adapter).answer(requests, None, listener)

    def engine_of(self, model: WholeModel) -> Engine:
        """The engine of a model's row; whatever it has no room beside is unloaded first."""
        if self._other is None or self._other[0] != model.digest:
            self._other = None
            _free()
            if self._base is not None and not self.together(self._base, model):
                self._base = None
                _free()
            self._other = model.digest, self.opener(model.settings, model.folder)
        return self._other[1]


def _fit(base: Engine, model: WholeModel) -> bool:
    """Whether a base and a model have room beside each other. One that is served takes none."""
    if model.settings.endpoint is not None or base.conditions.get("engine") != "local":
        return True
    from traitmap.engine.device import device_of, memory_of  # torch: only here

    folder = Path(model.settings.path)
    place = folder if folder.is_absolute() else model.folder / folder
    size = sum(file.stat().st_size for file in place.glob("*.safetensors"))
    size *= 2  # kept in 16 bits, computed in 32 on a CPU
    held = int(base.conditions.get("parameters", 0)) * 4
    return size > 0 and size + held < _ROOM * memory_of(device_of(model.settings.device))


def _free() -> None:
    """Give back what an engine held that nobody refers to any more."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
