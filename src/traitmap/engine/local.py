"""The engine on this machine: one resident base, adapters trained and scored on it."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from traitmap.data.records import Answer, Request, ServedAdapter
from traitmap.engine import attention
from traitmap.engine.adapters import (
    is_plain,
    load_adapter,
    merged_weights,
    peft_applied,
    save_adapter,
    swapped,
)
from traitmap.engine.base import Base, largest_group, load_base
from traitmap.engine.cached_passes import Shortcuts, attending, find_shortcuts
from traitmap.engine.contract import TrainingJob, TrainingReport
from traitmap.engine.cpu.lean import Lean, is_known
from traitmap.engine.cpu.products import widest_products
from traitmap.engine.generate import Decoder, Ends, generate
from traitmap.engine.lora import AdapterWeights, Resident, resident
from traitmap.engine.requests import Kept
from traitmap.engine.score import Reader, loglikelihoods, rolling_loglikelihoods
from traitmap.engine.tokens import Encoder
from traitmap.engine.train import report_of, train_group
from traitmap.errors import ModelError
from traitmap.progress import Listener, silent
from traitmap.study.settings import Lora, Model, Training

_PASS_TOKENS = {"cpu": 2048, "cuda": 32768}  # tokens computed in one pass: a CPU pass that fits its caches
_CACHE_TOKENS = {"cpu": 16384, "cuda": 262144}  # tokens in the key-value cache of one generation batch
_CACHE_BYTES = 2**27  # where so much holds more of them, on a CPU
_PACKAGES = ("torch", "transformers", "peft", "lm_eval", "numpy")


@dataclass(frozen=True)
class _Applied:
    """An adapter at work: hooked on as ``adapters``, or by weights ``merged``, or neither.

    state: of the files of one that PEFT put in.
    """

    base: Base
    adapters: Resident | None = None
    merged: Mapping[str, torch.Tensor] | None = None
    state: object = None


class LocalEngine:
    """Implements ``engine.contract.Engine`` with transformers on CPU or CUDA."""

    def __init__(self, base: Base) -> None:
        self.base = base
        self.encoder = Encoder(base.tokenizer)
        self._modules = linear_modules_of(base)
        self._own_shortcuts: Shortcuts | None = None
        self._put_in: tuple[object, Shortcuts] | None = None
        self._latest: tuple[object, AdapterWeights | dict[str, torch.Tensor]] | None = None
        self._lean: tuple[object, Lean | None] | None = None
        self._kept = Kept()

    @classmethod
    def open(cls, model: Model, folder: Path | None = None) -> LocalEngine:
        """Load the base; relative paths start from ``folder``. ModelError where it cannot be used."""
        return cls(load_base(model, folder or Path.cwd()))

    @property
    def base_digest(self) -> str:
        return self.base.digest

    @property
    def conditions(self) -> Mapping[str, Any]:
        device = self.base.model.device
        name = (
            torch.cuda.get_device_name(device)
            if device.type == "cuda"
            else platform.processor() or platform.machine()
        )
        return {
            "engine": "local",
            "device": f"{device.type} ({name})",
            "dtype": str(self.base.model.dtype).removeprefix("torch."),
            "layout": self.base.layout,
            "threads": torch.get_num_threads(),
            "parameters": sum(parameter.numel() for parameter in self.base.model.parameters()),
            "versions": {package: version(package) for package in _PACKAGES},
        }

    def train(
        self, jobs: Sequence[TrainingJob], folders: Sequence[Path], listener: Listener = silent
    ) -> list[TrainingReport]:
        started = time.monotonic()
        self._latest = self._lean = None
        last, budget = self._shortcuts(_Applied(self.base)).last, self._budget(_PASS_TOKENS)
        with self._attention(self.base.layout):
            lanes = train_group(self.base, self.encoder, jobs, budget, listener, last=last)
        seconds = time.monotonic() - started
        for lane, folder in zip(lanes, folders, strict=True):
            if lane.failure is None:
                save_adapter(folder, lane.adapter, self.base.path, self.base.revision)
        return [report_of(lane, seconds) for lane in lanes]

    def largest_group(self, lora: Lora, training: Training) -> int:
        return largest_group(self.base.model, lora, training, self._budget(_PASS_TOKENS))

    def answer(
        self,
        requests: Sequence[Request],
        adapter: Path | ServedAdapter | None = None,
        listener: Listener = silent,
    ) -> list[Answer]:
        if isinstance(adapter, ServedAdapter):
            raise ModelError(f"{adapter.name}: adapters on a server need model.endpoint in the study.")
        answers: dict[int, Answer] = {}
        with self._applied(adapter) as applied:
            for kind in dict.fromkeys(request.kind for request in requests):
                chosen = [index for index, request in enumerate(requests) if request.kind == kind]
                asked = [requests[index] for index in chosen]
                found = self._answer_kind(kind, asked, applied, listener)
                answers.update(zip(chosen, found, strict=True))
        return [answers[index] for index in range(len(requests))]

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        return [len(self.encoder.encode(text)) for text in texts]

    def render_chat(self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool) -> str:
        if not self.base.tokenizer.chat_template:
            raise ModelError(
                f"{self.base.path}: its tokenizer has no chat template; use prompt and completion instead of "
                "messages, or a base with a chat template."
            )
        text = self.base.tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
        )
        return str(text)

    def _answer_kind(
        self,
        kind: str,
        requests: Sequence[Request],
        applied: _Applied,
        listener: Listener,
    ) -> list[Answer]:
        base, adapters, budget = applied.base, applied.adapters, self._budget(_PASS_TOKENS)
        shortcuts = self._shortcuts(applied)
        lean = self._lean_way(applied, shortcuts)
        if kind == "generate_until":
            cache = max(self._budget(_CACHE_TOKENS), _CACHE_BYTES // self._bytes_of_a_token())
            decoder = Decoder(base, Ends(base, self.encoder), adapters, shortcuts, lean, budget, cache)
            return generate(decoder, self.encoder, requests, listener)
        reader = Reader(base, self.encoder, adapters, shortcuts, lean, budget, self._kept)
        score = loglikelihoods if kind == "loglikelihood" else rolling_loglikelihoods
        return score(reader, requests, listener)

    def _lean_way(self, applied: _Applied, shortcuts: Shortcuts) -> Lean | None:
        """The weights as they are now, ready for lean passes, where those are right on this base."""
        model = applied.base.model
        if not shortcuts.lean or applied.adapters is not None or not is_known(model):
            return None
        if self._lean is None or self._lean[0] is not applied.merged:
            self._lean = None  # before the next is made: memory holds one
            with torch.inference_mode():
                self._lean = applied.merged, Lean.of(model)
        return self._lean[1]

    def _shortcuts(self, applied: _Applied) -> Shortcuts:
        """What is right on this base, found once; an adapter put in by PEFT may change it."""
        model = applied.base.model
        if applied.base.layout != "stream":
            return Shortcuts()
        if applied.base is not self.base:
            if self._put_in is None or self._put_in[0] != applied.state:
                self._put_in = applied.state, find_shortcuts(model)
            return self._put_in[1].on(model)
        if self._own_shortcuts is None:
            self._own_shortcuts = find_shortcuts(model)
        return self._own_shortcuts

    @contextmanager
    def _applied(self, adapter: Path | None) -> Iterator[_Applied]:
        """The adapter at work: merged where that is exact to rounding, hooked on where it is not.

        What is not plain LoRA (DoRA, whole modules beside it, other kinds) is put in by PEFT.
        """
        if adapter is None:
            with widest_products(self.base.model):
                yield _Applied(self.base)
            return
        if not is_plain(adapter):
            with peft_applied(self.base, adapter) as base, widest_products(self.base.model):
                yield _Applied(base, state=_state(adapter))
            return
        state = _state(adapter)
        if self._latest is None or self._latest[0] != state:
            self._latest = None  # before the next is made: memory holds one
            self._latest = state, self._prepared(load_adapter(adapter, self._modules))
        prepared = self._latest[1]
        if isinstance(prepared, AdapterWeights):
            with torch.no_grad(), resident(self.base.model, [prepared]) as adapters:
                yield _Applied(self.base, adapters)
        else:
            with swapped(self._modules, prepared), widest_products(self.base.model):
                yield _Applied(self.base, merged=prepared)

    def _prepared(self, weights: AdapterWeights) -> AdapterWeights | dict[str, torch.Tensor]:
        """The merged weights of the modules that an adapter touches, or the adapter, to be hooked on."""
        packed = not all(self._modules[name].weight.is_floating_point() for name in weights.a)  # 4 bits
        merged = None if packed or self._tied(weights) else merged_weights(self._modules, weights)
        return weights if merged is None else merged

    def _tied(self, weights: AdapterWeights) -> bool:
        """Whether the adapter touches a matrix that is the input embedding too: merging would change both."""
        embedding = self.base.model.get_input_embeddings().weight
        return any(self._modules[name].weight is embedding for name in weights.a)

    def _attention(self, layout: str) -> AbstractContextManager[None]:
        return attending(self.base.model, attention.NAME) if layout == "stream" else nullcontext()

    def _bytes_of_a_token(self) -> int:
        """Of its keys and values in all layers, at most."""
        config, width = self.base.model.config.get_text_config(), self.base.model.dtype.itemsize
        return max(1, 2 * width * config.num_hidden_layers * config.hidden_size)

    def _budget(self, table: Mapping[str, int]) -> int:
        return table[self.base.model.device.type]


def _state(folder: Path) -> tuple[object, ...]:
    """What tells whether an adapter's files are those that were read last."""
    files = sorted(folder.iterdir())
    return (folder.resolve(), *((file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in files))


def linear_modules_of(base: Base) -> dict[str, torch.nn.Linear]:
    """Every nn.Linear of the base by name, the output head included: what an adapter may touch."""
    return {
        name: module for name, module in base.model.named_modules() if isinstance(module, torch.nn.Linear)
    }
