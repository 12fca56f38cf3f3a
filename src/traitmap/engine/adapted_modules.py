"""Which modules of a base get an adapter: those of its language part that PEFT would adapt.

What is saved must load with ``PeftModel.from_pretrained``, so what PEFT refuses, or reads as something else,
gets none, and ``left_out`` says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, TypeGuard

import numpy as np
import torch
from peft import LoraConfig
from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
from torch import nn

from traitmap.engine.device import fetch
from traitmap.errors import ModelError


def is_linear(module: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether a module is an ``nn.Linear`` that computes what one does: a plain one, a quantised one, or one
    with a forward of its own (Falcon) that is tried.

    Routers of some mixtures of experts are subclasses whose output is a tuple.
    """
    kind = type(module)
    if not isinstance(module, nn.Linear) or kind.__module__.startswith("bitsandbytes."):
        return isinstance(module, nn.Linear)
    return kind.forward is nn.Linear.forward or _multiplies(module)


def _multiplies(module: nn.Linear) -> bool:
    with torch.no_grad():
        x = torch.linspace(-1, 1, 2 * module.in_features, device=module.weight.device).view(2, -1)
        x = x.to(module.weight.dtype)
        expected = nn.functional.linear(x, module.weight, module.bias)
        try:
            output = type(module).forward(module, x)
        except (RuntimeError, ValueError, TypeError, AttributeError, IndexError):
            return False
    same_kind = isinstance(output, torch.Tensor) and output.shape == expected.shape
    return same_kind and bool(np.allclose(fetch(output), fetch(expected), rtol=1e-2, atol=1e-3))


# PEFT refuses adapters on these modules of these models, which read the weight itself and not the output
_STATE_SPACE = {"falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h"}
_READ_DIRECTLY = {"out_proj", "conv1d"}


def _read_otherwise(model: nn.Module, names: Iterable[str]) -> set[str]:
    """The modules of these names on which PEFT would load no adapter.

    Where transformers 5 made one parameter of all experts, PEFT takes gate_proj, up_proj and down_proj for
    parts of it, on every module of such a name: shared experts and plain feed-forward blocks too.
    """
    targets = list(names)
    config = LoraConfig(target_modules=targets)
    try:
        convert_peft_config_for_transformers(config, model, None)
    except ValueError:  # a part of what PEFT takes together is not among the names
        return set(targets)
    return set(targets) - set(config.target_modules or ())


def _language_part(model: Any) -> tuple[str, nn.Module]:
    """(name within the model, module) of what reads text: the whole model, but for a tower beside it."""
    if model.config.get_text_config() is model.config:
        return "", model
    decoder = model.get_decoder()
    name = next((name for name, module in model.named_modules() if module is decoder), "")
    return name, decoder if name else model


def linear_modules(model: nn.Module, target_modules: str | Sequence[str]) -> dict[str, nn.Linear]:
    """The ``nn.Linear`` modules of the language part that PEFT would adapt, by full name, in model order.

    ``all-linear`` means every one but the output head, without what PEFT refuses to adapt. A list matches
    whole names or their endings, as PEFT does. ModelError where a name matches nothing, something that is
    not ``nn.Linear``, or what PEFT refuses.
    """
    head: nn.Module = model.get_output_embeddings()  # type: ignore[operator]
    prefix, part = _language_part(model)
    names = [name for name, _ in part.named_modules(prefix=prefix)]
    if head is not None and prefix:
        names += [name for name, module in model.named_modules() if module is head]
    modules = dict(model.named_modules())
    linear = {name: module for name in names if is_linear(module := modules[name])}
    state_space = getattr(model.config, "model_type", None) in _STATE_SPACE
    refused = {name for name in linear if state_space and name.rsplit(".", 1)[-1] in _READ_DIRECTLY}
    refused |= _read_otherwise(model, linear)
    if target_modules == "all-linear":
        adapted = {
            name: module for name, module in linear.items() if module is not head and name not in refused
        }
        if not adapted:
            raise ModelError(
                f"{type(model).__name__} has no torch.nn.Linear outside its output head; traitmap adapts "
                "nn.Linear only (Conv1D as in GPT-2 is not supported). Use another base model."
            )
        return adapted
    targets: dict[str, nn.Linear] = {}
    for target in target_modules:
        matches = [name for name in names if name == target or name.endswith("." + target)]
        wrong = [name for name in matches if name not in linear]
        kept = [name for name in matches if name in refused]
        if not matches or wrong or kept:
            endings = sorted({name.rsplit(".", 1)[-1] for name in linear.keys() - refused})
            what = f"{wrong[0]} is no torch.nn.Linear" if wrong else "no module has that name"
            if wrong and isinstance(modules[wrong[0]], nn.Linear):
                what = f"{wrong[0]} is a {type(modules[wrong[0]]).__name__}, whose output is no plain product"
            elif kept:
                what = f"PEFT adapts no {target} of a {model.config.model_type} model"  # type: ignore[union-attr]
            raise ModelError(
                f"target_modules: {target!r}: {what}; {type(model).__name__} offers {', '.join(endings)}, "
                "or all-linear."
            )
        targets.update({name: linear[name] for name in matches})
    return {name: module for name, module in linear.items() if name in targets}


def left_out(model: nn.Module, target_modules: str | Sequence[str]) -> str:
    """A sentence on the matrices of the model that ``all-linear`` gives no adapter, or nothing.

    Embeddings and the output head, which it never means, are not counted among them; convolutions are.
    """
    if target_modules != "all-linear":
        return ""
    adapted, head = linear_modules(model, target_modules), model.get_output_embeddings()  # type: ignore[operator]
    names, numbers = dict[str, None](), 0
    for name, module in model.named_modules():
        if name in adapted or module is head or isinstance(module, nn.Embedding):
            continue
        for part, parameter in module.named_parameters(recurse=False):
            if parameter.dim() > 1:
                steps = [step for step in (*name.split("."), part) if not step.isdigit()]
                names[".".join(steps[-3:])] = None
                numbers += parameter.numel()
    if not names:
        return ""
    share = numbers / sum(parameter.numel() for parameter in model.parameters())
    listed = ", ".join(list(names)[:4]) + (f" and {len(names) - 4} others" if len(names) > 4 else "")
    experts = "; PEFT would adapt experts too, by target_parameters" if "experts" in " ".join(names) else ""
    return (
        f"all-linear adapts nn.Linear modules of the language part: {listed}, {100 * share:.0f} % "
        "of the base's "
        f"parameters, get no adapter here{experts}."
    )


def tied_parameters(model: nn.Module) -> set[nn.Parameter]:
    """The parameters that several modules of the model have, such as the embedding and the output head."""
    owners = Counter(
        parameter
        for module in model.modules()
        for parameter in module._parameters.values()
        if parameter is not None
    )
    return {parameter for parameter, count in owners.items() if count > 1}
