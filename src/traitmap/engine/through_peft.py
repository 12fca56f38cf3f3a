"""Adapters of every other kind, put to work by PEFT itself, one at a time, and taken out again whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel
from torch import nn

from traitmap.engine.base import Base, choose_layout
from traitmap.errors import EngineError, ModelError


@contextmanager
def peft_applied(base: Base, folder: Path) -> Iterator[Base]:
    """The base with an adapter that PEFT has put in, for the duration of the block.

    Any kind whose adapter lies in the model's modules works for all requests; one that prepends virtual
    tokens (prompt and prefix tuning) runs in padded rows. ModelError where PEFT cannot read the adapter or
    it does not fit. The base is put back module by module and compared with what it was.
    """
    config = _config(folder)
    before = _Snapshot(base.model)
    try:
        try:
            model = PeftModel.from_pretrained(base.model, folder, is_trainable=False)
        except (ValueError, KeyError, RuntimeError, TypeError, OSError, AttributeError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ModelError(
                f"{folder}: PEFT cannot put this {config.peft_type} adapter on {base.path}: {reason} The "
                f"adapter names {config.base_model_name_or_path!r} as its base."
            ) from error
        model.eval().requires_grad_(False)  # new modules come in training mode, with their dropout at work
        if config.is_prompt_learning:
            yield replace(base, model=_Virtual(model), layout="padded", cached=False)
        else:
            yield replace(base, layout=_layout(base))
    finally:
        before.restore()


def _config(folder: Path) -> Any:
    try:
        return PeftConfig.from_pretrained(str(folder))
    except (ValueError, KeyError, TypeError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"{folder}: PEFT cannot read its adapter_config.json: {reason}") from error


def _layout(base: Base) -> str:
    """The stream only where it is still right: an adapter may change the attention itself."""
    return choose_layout(base.model) if base.layout == "stream" else base.layout


class _Virtual:
    """A model behind virtual tokens, whose logits are cut to the places of the real ones."""

    def __init__(self, model: PeftModel) -> None:
        self.model = model
        self.config = model.config
        self.device = model.device
        self.dtype = model.dtype
        self.generation_config = model.generation_config

    def __call__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, use_cache: bool) -> Any:
        output = self.model(input_ids=input_ids, attention_mask=attention_mask)
        output.logits = output.logits[:, -input_ids.shape[1] :]
        return output


class _Snapshot:
    """Everything of a model that putting an adapter in may change, so that it can be put back.

    Modules and parameters by identity, vectors (biases, norms) by value, since some adapters write them.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.modules = {module: dict(module._modules) for module in model.modules()}
        self.parameters = {module: dict(module._parameters) for module in model.modules()}
        self.hooks = {module: dict(module._forward_pre_hooks) for module in model.modules()}
        self.attributes = set(vars(model))
        self.vectors = {
            name: parameter.detach().clone()
            for name, parameter in model.named_parameters()
            if parameter.dim() < 2
        }
        self.probe = _probe(model)

    def restore(self) -> None:
        for module, children in self.modules.items():
            module._modules.clear()
            module._modules.update(children)
            module._parameters.clear()
            module._parameters.update(self.parameters[module])
            module._forward_pre_hooks.clear()
            module._forward_pre_hooks.update(self.hooks[module])
        for name in set(vars(self.model)) - self.attributes:
            delattr(self.model, name)
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if name in self.vectors:
                    parameter.copy_(self.vectors[name])
        self.model.eval().requires_grad_(False)
        if not torch.equal(_probe(self.model), self.probe):
            raise EngineError("the base is not what it was before an adapter was put in through PEFT")


def _probe(model: Any) -> torch.Tensor:
    """Logits of one short row: what the model is, as far as one pass can tell."""
    ids = torch.arange(8, device=model.device)[None] % model.config.vocab_size
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits
    return logits
