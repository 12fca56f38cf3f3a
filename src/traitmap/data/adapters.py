"""An adapter that exists already: where its PEFT directory is, and what speaks against using it."""

from __future__ import annotations

import json
import os
import shlex
import struct
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from traitmap.data.copies import hub_reason
from traitmap.study.paths import model_location, resolve

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PICKLED = "adapter_model.bin"
_GGUF = (
    "{place} is a GGUF file, an adapter for llama.cpp, which nothing turns back into a PEFT adapter; give "
    "the PEFT directory that convert_lora_to_gguf.py made it from"
)
_HEADER = struct.Struct("<Q")


def locate_adapter(name: str, folder: Path, revision: str | None = None) -> Path | str:
    """The PEFT directory that ``name`` stands for, or what is wrong with it.

    name: a local folder, or ``org/name`` on the hub with a folder behind it where the repository has
    several (``org/name/folder``); a local folder of that name comes first. Hub files are downloaded.
    """
    place = resolve(name, folder)
    parts = name.split("/")
    if name.lower().endswith(".gguf"):
        return _GGUF.format(place=place)
    if not place.exists() and len(parts) >= 2 and all(parts) and not name.startswith((".", "~", "/")):
        return _downloaded(name, revision)
    if not os.path.isdir(place):
        return f"{place} is not a folder; give a PEFT adapter directory, or org/name of one on the hub"
    return place


def adapter_problem(place: Path) -> str | None:
    """Why a folder is no PEFT adapter that can be used, or None.

    Looks at names, the configuration and the header of the weights; no tensor is read, nothing is unpickled.
    """
    foreign = _foreign_format(place)
    if foreign is not None:
        return foreign
    if not (place / CONFIG).is_file():
        inside = sorted(path.parent.name for path in place.glob(f"*/{CONFIG}"))
        if inside:
            return (
                f"{place} holds several adapters, {', '.join(inside)}; name one of them, such as "
                f"{place.name}/{inside[0]}"
            )
    for name in (CONFIG, WEIGHTS):
        if not (place / name).is_file():
            if name == WEIGHTS and (place / PICKLED).is_file():
                return _pickled(place)
            return (
                f"{place} has no {name}, so it is not a PEFT adapter that can be used; save it with "
                "model.save_pretrained()"
            )
    try:
        config = json.loads((place / CONFIG).read_bytes())
    except ValueError as error:
        return f"{place / CONFIG} is not valid JSON ({error}); save the adapter again"
    if not isinstance(config, dict) or not isinstance(config.get("peft_type"), str):
        return f'{place / CONFIG} names no "peft_type"; save the adapter with PEFT'
    problem = lost_start(config)
    if problem is not None:
        return f"{place / CONFIG}: {problem}"
    if _read_header(place / WEIGHTS) is None:
        return f"{place / WEIGHTS} is not a whole safetensors file; copy or save it again"
    return None


def _foreign_format(place: Path) -> str | None:
    """Why an adapter of another program than PEFT cannot be used, and what to do, or None."""
    if not (place / WEIGHTS).is_file() and any(place.glob("*adapters.safetensors")):
        return (
            f"{place} is an adapter of MLX (adapters.safetensors), whose layout PEFT does not read; "
            "train it with PEFT, or fuse it with `mlx_lm.fuse --model BASE --adapter-path "
            f"{shlex.quote(str(place))} --save-path fused --dequantize`, evaluate the folder `fused` as a "
            "model with lm-eval, and bring the results in with `traitmap import`"
        )
    gguf = sorted(place.glob("*.gguf"))
    if gguf and not (place / CONFIG).is_file():
        return _GGUF.format(place=gguf[0])
    return None


def _pickled(place: Path) -> str:
    """What to do with weights that are pickled: a command that unpickles tensors alone."""
    old, new = str(place / PICKLED), str(place / WEIGHTS)
    program = (
        "import torch; from safetensors.torch import save_file; "
        f"w = torch.load({old!r}, map_location='cpu', weights_only=True); "
        f"save_file({{k: v.clone().contiguous() for k, v in w.items()}}, {new!r})"
    )
    return (
        f"{place} has its weights in {PICKLED}, a pickle, which could run anything when it is read; convert "
        f"it once, to tensors alone: python -c {shlex.quote(program)}"
    )


def lost_start(config: Mapping[str, Any]) -> str | None:
    """Why the base that an adapter was trained on cannot be made again from what is saved, or None.

    CorDA and LoRA-GA take a product out of the base's weights that follows from data or gradients, which no
    adapter directory holds. PiSSA, OLoRA and LoftQ follow from the weights alone, so PEFT makes them again.
    """
    start = config.get("init_lora_weights")
    if config.get("peft_type") != "LORA" or start not in ("corda", "lora_ga"):
        return None
    return (
        f"init_lora_weights {start!r} changed the weights of the base by data that is not saved, so the "
        "adapter means nothing on the base as it is; save it again with save_pretrained(folder, "
        "path_initial_model_for_weight_conversion=...)"
    )


def adapter_warnings(
    place: Path, base: str, folder: Path = Path(), revision: str | None = None
) -> tuple[str, ...]:
    """What a user should know of an adapter that can be used all the same, in sentences.

    place: a folder that `adapter_problem` finds nothing wrong with. base, revision: the study's
    ``model.path`` and ``model.revision``; folder: where a relative base starts from. That shapes fit says
    nothing of which base it is: those of a base and its instruct version are the same.
    """
    config = json.loads((place / CONFIG).read_bytes())
    warnings = []
    named, named_revision = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(named, str) or not named:
        warnings.append(f"it names no base: nothing tells that it was trained on {base!r}")
    elif not _is_same_base(named, base, folder):
        warnings.append(
            f"it names {named!r} as its base, the study's is {base!r}: if these are not the same weights, "
            "its answers mean nothing"
        )
    elif named_revision and revision and named_revision != revision:
        warnings.append(
            f"it names revision {named_revision!r} of its base, the study's is {revision!r}: if these are "
            "not the same weights, its answers mean nothing"
        )
    if config.get("peft_type") == "LORA" and has_no_effect(place):
        warnings.append("all its B matrices are zero: it answers exactly as the base does")
    elif config.get("peft_type") != "LORA":
        warnings.append(f"it is not a LoRA but {config['peft_type']}: evaluated through PEFT, slower")
    return tuple(warnings)


def _is_same_base(named: str, base: str, folder: Path) -> bool:
    """Whether an adapter's name for its base may mean the study's.

    Two hub ids are compared whole. A folder is known by where it is, by the name in its configuration, or by
    its last part, since adapters carry paths of other machines.
    """
    location = model_location(base, folder)
    ids = {base.casefold()}
    if isinstance(location, Path):
        if os.path.isdir(named) and location.is_dir():
            return os.path.samefile(named, location)
        with suppress(OSError, ValueError, KeyError, TypeError):
            ids.add(str(json.loads((location / "config.json").read_bytes())["_name_or_path"]).casefold())
    if named.casefold() in ids:
        return True
    if not isinstance(location, Path) and named.count("/") == 1 and not named.startswith((".", "~", "/")):
        return False
    return _last_part(named) == _last_part(str(location))


def _last_part(name: str) -> str:
    """The name of a model without its organisation or folder; of a copy (``org__name``) too."""
    return name.replace("\\", "/").rstrip("/").split("/")[-1].split("__")[-1].casefold()


def has_no_effect(place: Path) -> bool:
    """Whether every lora_B weight is zero and nothing else is stored, as in an adapter never trained."""
    header = _read_header(place / WEIGHTS) or {}
    ranges = []
    for name, tensor in header.items():
        if ".lora_B." in name or ".lora_embedding_B" in name:
            ranges.append(tensor["data_offsets"])
        elif ".lora_A." not in name and ".lora_embedding_A" not in name:
            return False
    if not ranges:
        return False
    with (place / WEIGHTS).open("rb") as stream:
        (length,) = _HEADER.unpack(stream.read(_HEADER.size))
        start = _HEADER.size + length
        for low, high in ranges:
            stream.seek(start + low)
            # the bytes of zero are zero in every float format but for the sign of -0
            if any(stream.read(high - low).replace(b"\x80", b"\x00")):
                return False
    return True


def _read_header(file: Path) -> Mapping[str, Any] | None:
    """Names, types and places of the tensors, or None where the file is damaged."""
    try:
        with file.open("rb") as stream:
            (length,) = _HEADER.unpack(stream.read(_HEADER.size))
            if length > file.stat().st_size:
                return None
            header = json.loads(stream.read(length))
        tensors = {name: tensor for name, tensor in header.items() if name != "__metadata__"}
        ends = [tensor["data_offsets"][1] for tensor in tensors.values()]
    except (OSError, struct.error, ValueError, KeyError, TypeError, AttributeError):
        return None
    if file.stat().st_size != _HEADER.size + length + max(ends, default=0):
        return None
    return tensors


def _downloaded(name: str, revision: str | None) -> Path | str:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    organisation, repository, *inside = name.split("/")
    part = "/".join(inside)
    files = [f"{part}/{file}" if part else file for file in (CONFIG, WEIGHTS, f"*/{CONFIG}")]
    try:
        place = snapshot_download(f"{organisation}/{repository}", revision=revision, allow_patterns=files)
    except (OSError, HfHubHTTPError, ValueError) as error:
        return f"{name!r} is neither a local folder nor to be had from the hub: {hub_reason(error)}"
    return Path(place) / part
