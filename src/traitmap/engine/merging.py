"""Several adapters merged into one, by PEFT's own ``add_weighted_adapter``; no arithmetic of ours.

PEFT merges what hangs on a model. A merge needs the factors of the adapters and the shapes of the modules,
and nothing of the base's weights, so the adapters are put on a model of empty modules with the names, the
order and the shapes of the base's: the base is left alone, and what ``dare`` draws comes out as on the base.

Each adapter is put there in its plainest form: the names of its modules, its factors and its scale. In other
forms PEFT would lose modules where adapters say in unlike words which they touch, takes no names and patterns
together, and gives the merge of rank-stabilised adapters a scale of sqrt(r) instead of 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from torch import nn

from traitmap.engine.contract import MergeJob
from traitmap.engine.lora import AdapterWeights
from traitmap.errors import ModelError, whole_reason

_MERGED = "merged"


def merged_adapter(parents: Sequence[AdapterWeights], job: MergeJob, order: Sequence[str]) -> AdapterWeights:
    """The merge of adapters of one base. order: names of the base's modules, which draws follow.

    ModelError where PEFT does not merge them.
    """
    names = [f"parent{number}" for number in range(len(parents))]
    modules = {name: parent for parent in parents for name in parent.a}
    skeleton = _skeleton({name: modules[name] for name in order if name in modules})
    device = next(iter(parents[0].a.values())).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.no_grad():
        model: Any = None
        for name, parent in zip(names, parents, strict=True):
            config = LoraConfig(r=max(map(len, parent.a.values())), target_modules=list(parent.a))
            if model is None:
                model = PeftModel(skeleton, config, adapter_name=name)
            else:
                model.add_adapter(name, config)
            _put(model, name, parent)
        more = {"density": job.density, "majority_sign_method": job.majority_sign_method}
        torch.manual_seed(job.seed or 0)
        try:
            model.add_weighted_adapter(
                adapters=names,
                weights=list(job.weights),
                adapter_name=_MERGED,
                combination_type=job.method,
                svd_full_matrices=False,  # the same leading vectors, for a fraction of the work
                **{key: value for key, value in more.items() if value is not None},
            )
        except (ValueError, RuntimeError, TypeError) as error:
            folders = ", ".join(folder.name for folder in job.folders)
            raise ModelError(
                f"PEFT does not merge these adapters by {job.method} ({folders}): {whole_reason(error)}."
            ) from error
    merged = _taken(model, [name for name in order if name in modules])
    if any(len(a) != merged.settings["r"] for a in merged.a.values()):
        raise ModelError(
            f"these adapters have modules of unlike ranks, which {job.method} cannot add; use cat or svd."
        )
    return merged


def _skeleton(modules: dict[str, AdapterWeights]) -> nn.Module:
    """A model of the modules' names and shapes, in their order, whose weights take no memory."""
    root = nn.Module()
    for name, adapter in modules.items():
        *path, last = name.split(".")
        place = root
        for part in path:
            if part not in place._modules:
                place.add_module(part, nn.Module())
            place = place.get_submodule(part)
        a, b = adapter.a[name], adapter.b[name]
        linear = nn.Linear(a.shape[1], b.shape[0], bias=False, device="meta")
        empty = torch.zeros((), dtype=a.dtype, device=a.device).expand(b.shape[0], a.shape[1])
        linear.weight = nn.Parameter(empty, requires_grad=False)
        place.add_module(last, linear)
    return root


def _put(model: Any, name: str, adapter: AdapterWeights) -> None:
    for module in adapter.a:
        layer = model.base_model.model.get_submodule(module)
        layer.lora_A[name].weight.data = adapter.a[module].detach()
        layer.lora_B[name].weight.data = adapter.b[module].detach()
        layer.scaling[name] = adapter.scale[module]


def _taken(model: Any, names: Sequence[str]) -> AdapterWeights:
    layers = {name: model.base_model.model.get_submodule(name) for name in names}
    rank = model.peft_config[_MERGED].r
    return AdapterWeights(
        a={name: layer.lora_A[_MERGED].weight.detach() for name, layer in layers.items()},
        b={name: layer.lora_B[_MERGED].weight.detach() for name, layer in layers.items()},
        scale={name: float(layer.scaling[_MERGED]) for name, layer in layers.items()},
        settings={"r": rank, "lora_alpha": rank, "use_rslora": False},
    )
