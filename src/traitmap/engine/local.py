"""The engine on this machine: one resident base, adapters trained and scored on it."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from traitmap.data.records import (
    AdapterPlace,
    Caveat,
    Example,
    Request,
    Response,
    ServedAdapter,
    WholeModel,
)
from traitmap.engine.adapted_modules import is_linear, left_out, tied_parameters
from traitmap.engine.adapters import (
    is_plain,
    load_adapter,
    merged_weights,
    peft_applied,
    save_adapter,
    swapped,
)
from traitmap.engine.attention import layout_attention
from traitmap.engine.base import ActiveModel, Base, base_dropout, largest_group, load_base
from traitmap.engine.contract import (
    MergeJob,
    PassCheckpoint,
    TrainingJob,
    TrainingReport,
    checkpoint_folder,
)
from traitmap.engine.cpu.fast_decoder import FastDecoder, is_known
from traitmap.engine.cpu.products import widest_products
from traitmap.engine.forward_paths import ForwardPaths, find_forward_paths
from traitmap.engine.generate import generate
from traitmap.engine.layouts import choose_decoding
from traitmap.engine.lora import AdapterWeights, Resident, resident, with_numbers
from traitmap.engine.merging import merged_adapter
from traitmap.engine.requests import RequestCache
from traitmap.engine.score import loglikelihoods, rolling_loglikelihoods
from traitmap.engine.tokens import Encoder, example_caveats, request_caveats
from traitmap.engine.train import train_group
from traitmap.errors import ModelError
from traitmap.progress import Listener, silent
from traitmap.study.settings import Lora, Model, Training

_PASS_TOKENS = {"cpu": 2048, "cuda": 32768}  # tokens computed in one pass: a CPU pass that fits its caches
_CACHE_TOKENS = {"cpu": 16384, "cuda": 262144}  # tokens in the key-value cache of one generation batch
_CACHE_BYTES = 2**27  # where so much holds more of them, on a CPU
_PREFIX_PASSES = 4  # keys and values of prefixes of this many passes' tokens are kept at a time
_PACKAGES = ("torch", "transformers", "peft", "lm_eval", "numpy")


class LocalEngine:
    """Implements ``engine.contract.Engine`` with transformers on CPU or CUDA.

    pass_tokens: computed in one pass, at most. prefix_tokens: of shared prefixes whose keys and values are
    kept at a time. slots: texts that are generated at a time, at most. find_paths: tells the forward paths
    that are valid on a model. Defaults are by device; none of these changes a result beyond rounding.
    """

    def __init__(
        self,
        base: Base,
        *,
        pass_tokens: int | None = None,
        prefix_tokens: int | None = None,
        slots: int = 256,
        find_paths: Callable[[Any], ForwardPaths] = find_forward_paths,
    ) -> None:
        self.base = base
        self.encoder = Encoder(base.tokenizer)
        device, config = base.model.device.type, base.model.config.get_text_config()
        self.pass_tokens = pass_tokens or _PASS_TOKENS[device]
        self.prefix_tokens = prefix_tokens or _PREFIX_PASSES * self.pass_tokens
        token_bytes = 2 * base.model.dtype.itemsize * config.num_hidden_layers * config.hidden_size
        self.cache_tokens = max(_CACHE_TOKENS[device], _CACHE_BYTES // max(1, token_bytes))
        self.slots, self.find_paths = slots, find_paths
        self.modules = linear_modules_of(base)
        self.paths: ForwardPaths | None = None  # of the base, once they were tried
        self.cache = RequestCache()
        self._peft_paths: tuple[object, ForwardPaths] | None = None
        self._latest: tuple[object, AdapterWeights | dict[str, torch.Tensor]] | None = None
        self._fast: tuple[object, FastDecoder] | None = None

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
            **({"layout_reason": self.base.reason} if self.base.reason else {}),
            **self.base.kernels.conditions,
            "threads": torch.get_num_threads(),
            "parameters": sum(parameter.numel() for parameter in self.base.model.parameters()),
            "versions": {package: version(package) for package in _PACKAGES},
        }

    def train(
        self,
        jobs: Sequence[TrainingJob],
        folders: Sequence[Path],
        listener: Listener = silent,
        checkpoint: PassCheckpoint | None = None,
    ) -> list[TrainingReport]:
        started = time.monotonic()
        self._latest = self._fast = None
        last_mlp = self._paths_on(self.base).last_mlp
        with layout_attention(self.base.model, self.base.layout, self.base.kernels.attention):
            states = train_group(
                self.base,
                self.encoder,
                jobs,
                self.pass_tokens,
                listener,
                last_mlp=last_mlp,
                checkpoint=checkpoint,
            )
        seconds = time.monotonic() - started
        for state, folder in zip(states, folders, strict=True):
            if state.failure is None:
                self._save(folder, state.adapter)
            for step, kept in state.kept.items():
                self._save(
                    checkpoint_folder(folder, step), with_numbers(state.adapter, torch.from_numpy(kept.flat))
                )
        return [state.report(seconds) for state in states]

    def merge(self, job: MergeJob, folder: Path) -> None:
        parents = [load_adapter(place, self.modules) for place in job.folders]
        self._save(folder, merged_adapter(parents, job, list(self.modules)))

    def _save(self, folder: Path, adapter: AdapterWeights) -> None:
        save_adapter(folder, adapter, self.base.path, self.base.revision)

    def notes(self, lora: Lora) -> tuple[str, ...]:
        """What a user should know of how this base is computed and adapted, in sentences."""
        reason, paths = self.base.reason, self._paths_on(self.base)
        notes = [f"rows of this base are computed {self.base.layout} ({reason})."] if reason else []
        if not paths.cached and paths.decoding != "batch":
            how = "one text at a time" if paths.decoding == "one" else "without a cache, which is slow"
            notes.append(f"texts of this base are generated {how}: tried, a faster way gave other logits.")
        if self.base.switch is not None:
            notes.append(
                f"this base turns positions otherwise beyond {self.base.switch} tokens (LongRoPE): rows on "
                "both sides share no pass, and texts that cross it are generated without a cache."
            )
        dropout = base_dropout(self.base.model.config)
        if dropout:
            listed = ", ".join(f"{name} {share:g}" for name, share in dropout.items())
            notes.append(
                f"this base's configuration has dropout ({listed}): adapters are trained without it, as "
                "PEFT trains on a base in evaluation mode; transformers' Trainer would turn it on."
            )
        return tuple(note for note in (*notes, left_out(self.base.model, lora.target_modules)) if note)

    def largest_group(self, lora: Lora, training: Training) -> int:
        return largest_group(self.base.model, lora, training, self.pass_tokens, self.base.memory)

    def answer(
        self,
        requests: Sequence[Request],
        adapter: AdapterPlace | None = None,
        listener: Listener = silent,
    ) -> list[Response]:
        if isinstance(adapter, ServedAdapter):
            raise ModelError(f"{adapter.name}: adapters on a server need model.endpoint in the study.")
        if isinstance(adapter, WholeModel):
            raise ModelError(f"{adapter}: a row of its own, which this engine holds no base for (open_rows).")
        kinds = {
            "loglikelihood": loglikelihoods,
            "loglikelihood_rolling": rolling_loglikelihoods,
            "generate_until": generate,
        }
        answers: dict[int, Response] = {}
        with self.active(adapter) as active:
            for kind in dict.fromkeys(request.kind for request in requests):
                indices = [index for index, request in enumerate(requests) if request.kind == kind]
                of_kind = kinds[kind](active, [requests[index] for index in indices], listener)
                answers.update(zip(indices, of_kind, strict=True))
        return [answers[index] for index in range(len(requests))]

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        return [len(self.encoder.encode(text)) for text in texts]

    def request_caveats(self, requests: Sequence[Request]) -> tuple[Caveat, ...]:
        return request_caveats(self.encoder, requests, self.base.max_length)

    def example_caveats(self, examples: Sequence[Example], training: Training) -> tuple[Caveat, ...]:
        limit = min(training.max_length, self.base.max_length)
        return example_caveats(self.encoder, examples, training.model_copy(update={"max_length": limit}))

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> str:
        if not self.base.tokenizer.chat_template:
            raise ModelError(
                f"{self.base.path}: its tokenizer has no chat template; use prompt and completion instead of "
                "messages, or a base with a chat template."
            )
        text = self.base.tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            tools=[dict(tool) for tool in tools] or None,
        )
        return str(text)

    @contextmanager
    def active(self, adapter: Path | None) -> Iterator[ActiveModel]:
        """The base with an adapter at work: merged where that is exact to rounding, else hooked on.

        What is not plain LoRA (DoRA, whole modules beside it, other kinds) is put in by PEFT. A matrix that
        several modules have (the input embedding and the head, shared blocks) is not merged into, since that
        would change them all, nor are 4-bit weights.
        """
        model = self.base.model
        if adapter is None:
            with widest_products(model):
                yield self._activated(self.base)
            return
        plain = is_plain(adapter, model)
        # what tells whether the adapter's files are those that were read last
        stats = [(file.name, file.stat()) for file in sorted(adapter.iterdir())]
        state = adapter.resolve(), *((name, stat.st_mtime_ns, stat.st_size) for name, stat in stats)
        if not plain:
            with peft_applied(self.base, adapter) as base, widest_products(model):
                yield self._activated(base, state=state)
            return
        if self._latest is None or self._latest[0] != state:
            self._latest = None  # before the next is made: memory holds one
            weights = load_adapter(adapter, self.modules)
            matrices = [self.modules[name].weight for name in weights.a]
            shared = tied_parameters(model)
            fixed = any(matrix in shared or not matrix.is_floating_point() for matrix in matrices)
            merged = None if fixed else merged_weights(self.modules, weights)
            self._latest = state, weights if merged is None else merged
        prepared = self._latest[1]
        self._paths_on(self.base)  # tried before an adapter is hooked on
        if isinstance(prepared, AdapterWeights):
            with torch.no_grad(), resident(model, [prepared]) as adapters:
                yield self._activated(self.base, adapters)
        else:
            with swapped(self.modules, prepared), widest_products(model):
                yield self._activated(self.base, merged=prepared)

    def _activated(
        self,
        base: Base,
        adapters: Resident | None = None,
        *,
        merged: Mapping[str, torch.Tensor] | None = None,
        state: object = None,
    ) -> ActiveModel:
        """The model as it is now. state: of the files of an adapter that PEFT put in."""
        paths, fast = self._paths_on(base, state), None
        if paths.fast and adapters is None and is_known(base.model):
            if self._fast is None or self._fast[0] is not merged:
                self._fast = None  # before the next is made: memory holds one
                with torch.inference_mode():
                    self._fast = merged, FastDecoder(base.model)
            fast = self._fast[1]
        return ActiveModel(
            base=base,
            encoder=self.encoder,
            adapters=adapters,
            paths=paths,
            fast=fast,
            pass_tokens=self.pass_tokens,
            prefix_tokens=self.prefix_tokens,
            cache_tokens=self.cache_tokens,
            slots=self.slots,
            cache=self.cache,
        )

    def _paths_on(self, base: Base, state: object = None) -> ForwardPaths:
        """The forward paths that are valid, tried once; an adapter put in by PEFT may change them."""
        if not base.cached:
            return ForwardPaths()
        if base is not self.base:
            if self._peft_paths is None or self._peft_paths[0] != state:
                self._peft_paths = state, self._found_paths(base)
            return self._peft_paths[1].on(base.model)
        if self.paths is None:
            self.paths = self._found_paths(self.base)
        return self.paths

    def _found_paths(self, base: Base) -> ForwardPaths:
        paths = self.find_paths(base.model) if base.layout == "stream" else ForwardPaths()
        return paths if paths.cached else replace(paths, decoding=choose_decoding(base.model))


def linear_modules_of(base: Base) -> dict[str, torch.nn.Linear]:
    """Every nn.Linear of the base by name, the output head included: what an adapter may touch."""
    return {name: module for name, module in base.model.named_modules() if is_linear(module)}
