"""Adapters as PEFT directories, in and out: ``adapter_config.json`` and safetensors, no pickle."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from torch import nn

from traitmap.engine.lora import AdapterWeights
from traitmap.errors import ModelError

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
