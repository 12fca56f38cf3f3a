"""Adapters of one base: read and written as PEFT directories, merged into weights, or put in by PEFT.

Plain LoRA is read and written here (``adapter_config.json`` and safetensors, no pickle) and computed by
``lora`` or merged into copies of the weights that it touches; the base's own are left alone. Every other kind
is put to work by PEFT itself, one at a time, and taken out again whole.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PEFT_TYPE_TO_CONFIG_MAPPING, LoraConfig, PeftConfig, PeftModel
from peft.utils.other import get_pattern_key
from safetensors import safe_open
from safetensors.numpy import save_file
from safetensors.torch import load
from torch import nn

from traitmap.data.adapters import lost_start
from traitmap.engine.adapted_modules import is_linear
from traitmap.engine.base import Base
from traitmap.engine.device import fetch, send
from traitmap.engine.layouts import Kernels, choose_layout, vocabulary_of
from traitmap.engine.lora import AdapterWeights
from traitmap.errors import EngineError, ModelError, whole_reason

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
_PREFIX = "base_model.model."
# What a LoRA configuration may say of a plain adapter, whatever the value: where it comes from, which modules
# it has (the tensors say so), and what is read here. Anything else goes through PEFT where it is set.
_READ = {"r", "lora_alpha", "lora_dropout", "use_rslora", "rank_pattern", "alpha_pattern"}
_HARMLESS = _READ | {
    "auto_mapping",
    "base_model_name_or_path",
    "exclude_modules",
    "fan_in_fan_out",  # PEFT itself leaves it out of account on nn.Linear
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "megatron_core",  # means something with megatron_config alone
    "peft_type",
    "peft_version",
    "qalora_group_size",  # with use_qalora
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
    *("corda_config", "eva_config", "loftq_config", "lora_ga_config"),  # with init_lora_weights of that name
}
_WRAPPERS = ("base_layer", "modules_to_save", "original_module", "token_adapter")  # in names of tensors
_PLAIN_STARTS = (True, False, None, "gaussian")  # of init_lora_weights: they leave the base as it is


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
        tensors[f"{_PREFIX}{name}.lora_A.weight"] = np.ascontiguousarray(fetch(adapter.a[name]))
        tensors[f"{_PREFIX}{name}.lora_B.weight"] = np.ascontiguousarray(fetch(adapter.b[name]))
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    settings = {
        key: sorted(value) if isinstance(value, set) else value for key, value in config.to_dict().items()
    }
    (folder / CONFIG).write_text(
        json.dumps(settings, indent=2, sort_keys=True, default=str), encoding="utf-8"
    )


def is_plain(folder: Path, model: nn.Module) -> bool:
    """Whether an adapter is LoRA on ``nn.Linear`` modules of a base and nothing else, which the engine
    computes itself.

    ModelError where the folder has no readable configuration, its weights are a pickle, or its configuration
    says what neither the engine nor PEFT can read.
    """
    config = _read_config(folder)
    if config["peft_type"] != "LORA" or _beyond_plain(config):
        return False
    modules = dict(model.named_modules())
    names = [_split_key(key) for key in _tensor_names(folder)]
    return all(pair is not None and (pair[0] not in modules or is_linear(modules[pair[0]])) for pair in names)


def load_adapter(folder: Path, modules: dict[str, nn.Linear]) -> AdapterWeights:
    """Read a PEFT LoRA directory for a base whose ``nn.Linear`` modules are given.

    Honours r, lora_alpha, use_rslora, rank_pattern and alpha_pattern as PEFT does: the first pattern that
    matches counts, as a regular expression. ModelError for other kinds of adapter, for pickled weights, and
    where a module, a rank or a shape does not fit.
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
    for key, tensor in load(weights.read_bytes()).items():
        pair = _split_key(key)
        if pair is None:
            raise ModelError(f"{weights}: tensor {key!r} is no lora_A or lora_B weight of a linear module.")
        name, part = pair
        module = modules.get(name)
        if module is None:
            raise ModelError(
                f"{folder}: adapts {name!r}, which this base model does not have as nn.Linear. "
                f"The adapter names {config.get('base_model_name_or_path')!r} as its base."
            )
        wide = torch.promote_types(module.weight.dtype, torch.float32)
        (a if part == "lora_A" else b)[name] = send(tensor, module.weight.device).to(wide)
    _check_shapes(folder, a, b, modules)
    order = [name for name in modules if name in a]
    return AdapterWeights(
        a={name: a[name] for name in order},
        b={name: b[name] for name in order},
        scale={name: _scale(folder, config, name, a[name].shape[0]) for name in order},
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
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: is no JSON ({whole_reason(error)}).") from None
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
    problem = lost_start(config)
    if problem is not None:
        raise ModelError(f"{path}: {problem}.")
    known = PEFT_TYPE_TO_CONFIG_MAPPING.get(config["peft_type"])
    if known is not None:
        names = {"auto_mapping", "peft_version", "peft_type"} | {field.name for field in fields(known)}
        unknown = sorted(key for key, value in config.items() if value and key not in names)
        if unknown:
            raise ModelError(
                f"{path}: {', '.join(unknown)}: PEFT {version('peft')} does not know this and would leave it "
                "out; install the PEFT that wrote the adapter, or merge the adapter into its base with it."
            )
    return config


def _beyond_plain(config: dict[str, Any]) -> list[str]:
    """What of a LoRA configuration goes beyond low-rank products on linear modules of the base as it is."""
    used = [key for key, value in config.items() if value and key not in _HARMLESS]
    return [
        key
        for key in used
        if not (key == "bias" and config[key] == "none")
        and not (key == "init_lora_weights" and config[key] in _PLAIN_STARTS)
    ]


def _tensor_names(folder: Path) -> list[str]:
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        return list(file.keys())


def _split_key(key: str) -> tuple[str, str] | None:
    """(module, lora_A or lora_B) of a tensor's name, or None where it is another kind of tensor."""
    name = key.removeprefix(_PREFIX)
    for part in ("lora_A", "lora_B"):
        if name.endswith(f".{part}.weight"):
            return name.removesuffix(f".{part}.weight"), part
    return None


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


def _scale(folder: Path, config: dict[str, Any], name: str, rank: int) -> float:
    """What PEFT multiplies B A with at a module, by its own rule for patterns."""
    ranks: dict[str, int] = config.get("rank_pattern") or {}
    alphas: dict[str, float] = config.get("alpha_pattern") or {}
    configured = ranks.get(get_pattern_key(list(ranks), name), config["r"])
    if configured != rank:
        raise ModelError(
            f"{folder}: {name}: its tensors have rank {rank}, its {CONFIG} says {configured}; save it again."
        )
    alpha = float(alphas.get(get_pattern_key(list(alphas), name), config["lora_alpha"]))
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
        raise ModelError(
            f"{folder}: PEFT cannot read its adapter_config.json: {whole_reason(error)}"
        ) from error
    grown = _grown(folder, base.model)
    before = _Snapshot(base.model, _written_by(folder, base.model))
    try:
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)  # some initialisations draw numbers (pissa_niter)
                model = PeftModel.from_pretrained(base.model, folder, is_trainable=False)
        except (ValueError, KeyError, RuntimeError, TypeError, OSError, AttributeError) as error:
            raise ModelError(
                f"{folder}: PEFT cannot put this {config.peft_type.value} adapter on {base.path}: "
                f"{grown}{whole_reason(error)} The adapter names {config.base_model_name_or_path!r} as its "
                "base."
            ) from error
        model.eval().requires_grad_(False)  # new modules come in training mode, with their dropout at work
        if config.is_prompt_learning:
            yield replace(base, model=_Virtual(model), layout="padded", cached=False)
        else:
            # an adapter may change the attention itself, so the stream may be wrong with it
            layout, reason = base.layout, base.reason
            if layout == "stream":
                layout, reason = choose_layout(base.model, shared=False)
            yield replace(base, layout=layout, reason=reason, kernels=Kernels())
    finally:
        before.restore()


def _written_by(folder: Path, model: nn.Module) -> list[nn.Parameter]:
    """The base's own parameters that PEFT may write when it puts an adapter in.

    All where the adapter's initialisation takes something out of the weights (PiSSA, OLoRA, LoftQ); else
    those that are saved beside it (the base layer of an adapted head or embedding).
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    if _read_config(folder).get("init_lora_weights") not in _PLAIN_STARTS:
        return list(dict.fromkeys(parameters.values()))
    return list(dict.fromkeys(parameters[name] for name in _saved_whole(folder) if name in parameters))


def _saved_whole(folder: Path) -> dict[str, list[int]]:
    """Name in the base -> shape of every tensor of an adapter that stands for a parameter of the base."""
    shapes = {}
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        for key in _tensor_names(folder):
            parts = [part for part in key.removeprefix(_PREFIX).split(".") if part not in _WRAPPERS]
            shapes[".".join(parts)] = list(file.get_slice(key).get_shape())
    return shapes


def _grown(folder: Path, model: nn.Module) -> str:
    """What to do about an adapter of another vocabulary, or nothing where that is not its trouble."""
    embedding = model.get_input_embeddings().weight  # type: ignore[operator]
    head = model.get_output_embeddings()  # type: ignore[operator]
    matrices = [embedding] if head is None else [embedding, head.weight]
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, shape in _saved_whole(folder).items():
        matrix = parameters.get(name)
        if any(matrix is one for one in matrices) and shape[0] != len(matrix):  # type: ignore[arg-type]
            return (
                f"its {name} has {shape[0]} rows, the base's has {len(matrix)}: "  # type: ignore[arg-type]
                "it was trained on another vocabulary, such as one with added tokens; give a base with that. "
            )
    return ""


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
    written: matrices that are kept by value too.
    """

    def __init__(self, model: nn.Module, written: Sequence[nn.Parameter] = ()) -> None:
        self.model = model
        self.values = [(parameter, parameter.data, parameter.detach().clone()) for parameter in written]
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
        for parameter, data, value in self.values:
            parameter.data = data.copy_(value)  # others may hold the very same numbers
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if name in self.vectors:
                    parameter.copy_(self.vectors[name])
        self.model.eval().requires_grad_(False)
        if not np.array_equal(fetch(_probe(self.model)), fetch(self.probe)):
            raise EngineError("the base is not what it was before an adapter was put in through PEFT")


def _probe(model: Any) -> torch.Tensor:
    """Logits of one short row: what the model is, as far as one pass can tell."""
    ids = torch.arange(8, device=model.device)[None] % vocabulary_of(model)
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
    merged, squares = dict[str, torch.Tensor](), list[torch.Tensor]()
    with torch.no_grad():
        for name in adapter.a:
            weight, a, b = modules[name].weight, adapter.a[name], adapter.b[name]
            wide = torch.addmm(weight.to(b.dtype), b, a, alpha=adapter.scale[name])
            merged[name] = wide.to(weight.dtype)
            if weight.dtype != b.dtype:
                lost = (wide - merged[name]).square_().sum()
                squares += [lost, wide.sub_(weight).square_().sum()]
    if not squares:
        return merged
    all_lost, update = fetch(torch.stack(squares).view(-1, 2).double().sum(dim=0))
    return merged if all_lost <= LOST**2 * update else None


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
