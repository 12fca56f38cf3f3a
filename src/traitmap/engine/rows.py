"""An engine over a base with whole models beside it: each answers its own row, one in memory at a time.

A merge or a full fine-tune is as large as its base. The base is unloaded before such a model is loaded and
comes back when it is asked again, unless both fit into half of the memory that is planned with.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitmap.data.records import AdapterPlace, Answer, Caveat, Example, Request, WholeModel
from traitmap.engine.contract import Engine, TrainingJob, TrainingReport
from traitmap.errors import ModelError
from traitmap.progress import Listener, silent
from traitmap.study.settings import Lora, Model, Training

if TYPE_CHECKING:
    from traitmap.engine.contract import PassCheckpoint

_ROOM = 0.5  # of the memory planned with, that two models may take together; passes need the rest


class RowsEngine:
    """Implements ``engine.contract.Engine``: the base for base and adapters, other models for their rows.

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
        self._digest, self._conditions = self._base.base_digest, dict(self._base.conditions)

    @property
    def base(self) -> Engine:
        """The base, loaded again where a model has taken its place. ModelError where it has changed since."""
        if self._base is None:
            self._other = None
            _free()
            self._base = self.opener(self.model, self.folder)
            if self._base.base_digest != self._digest:
                raise ModelError(f"model.path {self.model.path!r}: its files changed while it was in use.")
        return self._base

    @property
    def base_digest(self) -> str:
        return self._digest

    @property
    def conditions(self) -> Mapping[str, Any]:
        return self._conditions

    def train(
        self,
        jobs: Sequence[TrainingJob],
        folders: Sequence[Path],
        listener: Listener = silent,
        checkpoint: PassCheckpoint | None = None,
    ) -> list[TrainingReport]:
        kept = {} if checkpoint is None else {"checkpoint": checkpoint}
        return self.base.train(jobs, folders, listener, **kept)

    def largest_group(self, lora: Lora, training: Training) -> int:
        return self.base.largest_group(lora, training)

    def answer(
        self,
        requests: Sequence[Request],
        adapter: AdapterPlace | None = None,
        listener: Listener = silent,
    ) -> list[Answer]:
        if not isinstance(adapter, WholeModel):
            return self.base.answer(requests, adapter, listener)
        if not requests:
            return []
        return self.engine_of(adapter).answer(requests, None, listener)

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        return self.base.token_counts(texts)

    def request_caveats(self, requests: Sequence[Request]) -> tuple[Caveat, ...]:
        return self.base.request_caveats(requests)

    def example_caveats(self, examples: Sequence[Example], training: Training) -> tuple[Caveat, ...]:
        return self.base.example_caveats(examples, training)

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> str:
        if tools:
            return self.base.render_chat(messages, add_generation_prompt, tools)
        return self.base.render_chat(messages, add_generation_prompt)

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
