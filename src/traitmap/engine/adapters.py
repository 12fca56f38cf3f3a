"""Adapters of one base: read and written as PEFT directories, merged into weights, or put in by PEFT.

Plain LoRA is read and written here (``adapter_config.json`` and safetensors, no pickle) and computed by
``lora`` or merged into copies of the weights that it touches; the base's own are left alone. Every other kind
is put to work by PEFT itself, one at a time, and taken out again whole.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel
from safetensors.torch import load_file, save_file
from torch import nn

from traitmap.engine.base import Base
from traitmap.engine.forward_paths import choose_layout
from traitmap.engine.lora import AdapterWeights
from traitmap.errors import EngineError, ModelError

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
_PREFIX = "base_model.model."
_BEYOND_PLAIN = (
    "use_dora",
    "modules_to_save",
    "layer_replication",
    "lora_bias",
    "trainable_token_indices",
    "target_parameters",
    "alora_invocation_tokens",
)


def save_adapter(folder: Path, adapter: AdapterWeights, base: str, revision: str | None = None) -> None:
    """Write an adapter so that ``PeftModel.from_pretrained(model, folder)`` gives the same logits."""
    config = LoraConfig(
        r=adapter.settings["r"],
        lora_alpha=adapter.settings["lora_alpha"],
        lora_dropout=adapter.dropout,
        use_rslora=adapter.settings["use_rslora"],
        target_modules=sorted(adapter.a),
        bias="none",
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
        revision=revision,
        inference_mode=True,
    )
    tensors = {}
    for name in adapter.a:
        tensors[f"{_PREFIX}{name}.lora_A.weight"] = adapter.a[name].detach().cpu().contiguous()
        tensors[f"{_PREFIX}{name}.lora_B.weight"] = adapter.b[name].detach().cpu().contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    settings = {
        key: sorted(value) if isinstance(value, set) else value for key, value in config.to_dict().items()
    }
    (folder / CONFIG).write_text(
        json.dumps(settings, indent=2, sort_keys=True, default=str), encoding="utf-8"
    )


def is_plain(folder: Path) -> bool:
    """Whether an adapter is LoRA on linear modules and nothing else, which the engine computes itself.

    ModelError where the folder has no readable configuration or its weights are a pickle.
    """
    config = _read_config(folder)
    return config.get("peft_type") == "LORA" and not _beyond_plain(config)


def load_adapter(folder: Path, modules: dict[str, nn.Linear]) -> AdapterWeights:
    """Read a PEFT LoRA directory for a base whose ``nn.Linear`` modules are given.

    Honours r, lora_alpha, use_rslora, rank_pattern and alpha_pattern. ModelError for other kinds of
    adapter, for pickled weights, and where a module or shape does not fit the base.
    """
    config = _read_config(folder)
    used = _beyond_plain(config)
    if used or config.get("peft_type") != "LORA":
        raise ModelError(
            f"{folder / CONFIG}: {', '.join(used) or config.get('peft_type')} is not plain LoRA on nn.Linear."
        )
    weights = folder / WEIGHTS
    a: dict[str, torch.Tensor] = {}
    b: dict[str, torch.Tensor] = {}
    for key, tensor in load_file(weights).items():
        name, part = _split_key(folder, key)
        module = modules.get(name)
        if module is None:
            raise ModelError(
                f"{folder}: adapts {name!r}, which this base model does not have as nn.Linear. "
                f"The adapter names {config.get('base_model_name_or_path')!r} as its base."
            )
        wide = torch.promote_types(module.weight.dtype, torch.float32)
        (a if part == "lora_A" else b)[name] = tensor.to(module.weight.device, wide)
    _check_shapes(folder, a, b, modules)
    order = [name for name in modules if name in a]
    return AdapterWeights(
        a={name: a[name] for name in order},
        b={name: b[name] for name in order},
        scale={name: _scale(config, name, a[name].shape[0]) for name in order},
        settings={
            "r": config["r"],
            "lora_alpha": config["lora_alpha"],
            "use_rslora": config.get("use_rslora", False),
        },
    )


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{folder}: no {CONFIG}; give a PEFT adapter directory.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: is no JSON ({error}).") from None
    if not isinstance(config, dict) or not isinstance(config.get("peft_type"), str):
        raise ModelError(f"{path}: names no peft_type; give a directory that PEFT has saved.")
    if not (folder / WEIGHTS).is_file():
        pickled = (folder / "adapter_model.bin").exists()
        hint = (
            "adapter_model.bin is a pickle; save it again as safetensors with PEFT"
            if pickled
            else "no such file"
        )
        raise ModelError(f"{folder}: needs {WEIGHTS} ({hint}).")
    return config


def _beyond_plain(config: dict[str, Any]) -> list[str]:
    """What of a LoRA configuration goes beyond low-rank products on linear modules."""
    used = [key for key in _BEYOND_PLAIN if config.get(key)]
    return [*used, "bias"] if config.get("bias", "none") != "none" else used


def _split_key(folder: Path, key: str) -> tuple[str, str]:
    name = key.removeprefix(_PREFIX)
    for part in ("lora_A", "lora_B"):
        if name.endswith(f".{part}.weight"):
            return name.removesuffix(f".{part}.weight"), part
    raise ModelError(f"{folder / WEIGHTS}: tensor {key!r} is no lora_A or lora_B weight of a linear module.")


def _check_shapes(
    folder: Path, a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], modules: dict[str, nn.Linear]
) -> None:
    if a.keys() != b.keys() or not a:
        odd = sorted(a.keys() ^ b.keys()) or ["(no tensors)"]
        raise ModelError(f"{folder / WEIGHTS}: lora_A and lora_B do not pair up: {odd[0]}.")
    for name in a:
        module = modules[name]
        expected = (module.in_features, module.out_features)
        found = (a[name].shape[1], b[name].shape[0])
        if expected != found or a[name].shape[0] != b[name].shape[1]:
            raise ModelError(
                f"{folder}: {name}: the adapter is made for in, out = {found}, the base has {expected}; "
                "it belongs to another base model."
            )


def _scale(config: dict[str, Any], name: str, rank: int) -> float:
    alpha = config["lora_alpha"]
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if name == pattern or name.endswith("." + pattern.lstrip("^")):
            alpha = value
    return float(alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))


@contextmanager
def peft_applied(base: Base, folder: Path) -> Iterator[Base]:
    """The base with an adapter that PEFT has put in, for the duration of the block.

    Any kind whose adapter lies in the model's modules works for all requests; one that prepends virtual
    tokens (prompt and prefix tuning) runs in padded rows. ModelError where PEFT cannot read the adapter or
    it does not fit. The base is put back module by module and compared with what it was.
    """
    try:
        config: Any = PeftConfig.from_pretrained(str(folder))
    except (ValueError, KeyError, TypeError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"{folder}: PEFT cannot read its adapter_config.json: {reason}") from error
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
            # an adapter may change the attention itself, so the stream may be wrong with it
            layout = choose_layout(base.model) if base.layout == "stream" else base.layout
            yield replace(base, layout=layout)
    finally:
        before.restore()


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


LOST = 0.25  # share of an update that rounding the sum may cost


def merged_weights(
    modules: Mapping[str, nn.Linear], adapter: AdapterWeights
) -> dict[str, torch.Tensor] | None:
    """``W + scale B A`` of every module that the adapter touches, (out, in), in the base's precision.

    The sum is formed in float32 at least. None where rounding it loses more than ``LOST`` of the update
    (Frobenius norm, over all modules): so small an update must stay beside the weights. What is lost below
    that is no more than rounding the base to its precision has cost, and has no direction.
    """
    merged, update, lost = dict[str, torch.Tensor](), 0.0, 0.0
    with torch.no_grad():
        for name in adapter.a:
            weight, a, b = modules[name].weight, adapter.a[name], adapter.b[name]
            wide = torch.addmm(weight.to(b.dtype), b, a, alpha=adapter.scale[name])
            merged[name] = wide.to(weight.dtype)
            if weight.dtype != b.dtype:
                lost += float((wide - merged[name]).square_().sum())
                update += float(wide.sub_(weight).square_().sum())
    return merged if lost <= LOST**2 * update else None


@contextmanager
def swapped(modules: Mapping[str, nn.Linear], weights: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """The modules with other weights for the block. Nothing is copied, so the base comes back bit for bit."""
    own = {name: modules[name].weight.data for name in weights}
    try:
        for name, weight in weights.items():
            modules[name].weight.data = weight
        yield
    finally:
        for name, weight in own.items():
            modules[name].weight.data = weight
