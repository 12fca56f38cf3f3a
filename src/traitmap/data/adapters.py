"""An adapter that exists already: where its PEFT directory is, and what speaks against using it."""

from __future__ import annotations

import json
import os
import shlex
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from traitmap.data.copies import hub_reason
from traitmap.errors import system_fault, whole_reason
from traitmap.study.paths import model_location, resolve
from traitmap.wording import counted

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PICKLED = "adapter_model.bin"
_GGUF = (
    "{place} is a GGUF file, an adapter for llama.cpp, which nothing turns back into a PEFT adapter; give "
    "the PEFT directory that convert_lora_to_gguf.py made it from"
)
_HEADER = struct.Struct("<Q")
_LARGEST_NUMBER = 1e9  # of a configuration
_LARGEST_RANK = 65_536
# Type of a tensor -> its bits as an integer, and those of the exponent, which all are set where no value is.
_EXPONENTS = {
    "F16": (np.uint16, 0x7C00),
    "BF16": (np.uint16, 0x7F80),
    "F32": (np.uint32, 0x7F800000),
    "F64": (np.uint64, 0x7FF0000000000000),
}


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
    A file that may not be read is told as that, and not as missing.
    """
    try:
        return _problem(place)
    except OSError as error:
        return system_fault(error, str(place)).rstrip(".")


def _problem(place: Path) -> str | None:
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
    if _read_header(place / WEIGHTS) is None:
        return f"{place / WEIGHTS} is not a whole safetensors file; copy or save it again"
    try:
        config = json.loads((place / CONFIG).read_bytes())
    except (ValueError, RecursionError) as error:
        return f"{place / CONFIG} is not valid JSON ({whole_reason(error)}); save the adapter again"
    if not isinstance(config, dict) or not isinstance(config.get("peft_type"), str):
        return f'{place / CONFIG} names no "peft_type"; save the adapter with PEFT'
    problems = [*_number_faults(config), *filter(None, [lost_start(config)])]
    return f"{place / CONFIG}: {'; '.join(problems)}" if problems else None


def _number_faults(config: Mapping[str, Any]) -> list[str]:
    """What numbers of a configuration cannot be, all of them: PEFT makes matrices of any size it is told."""
    faults = [
        f"{name} {value!r} is not a number that an adapter can have; correct it, or save the adapter again"
        for name, value in _numbers(config)
        if not abs(value) <= _LARGEST_NUMBER  # nor NaN; a whole number may be too long for isfinite
    ]
    if config["peft_type"] != "LORA" or faults:
        return faults
    ranks = {"r": config.get("r", 8), **_pattern(config, "rank_pattern")}
    alphas = {"lora_alpha": config.get("lora_alpha", 8), **_pattern(config, "alpha_pattern")}
    faults += [
        f"{name} {rank!r} is no rank; legal: 1 to {_LARGEST_RANK:,}, as the weights have it"
        for name, rank in ranks.items()
        if type(rank) is not int or not 1 <= rank <= _LARGEST_RANK
    ]
    faults += [
        f"{name} {alpha!r} is not a number; give that of the training"
        for name, alpha in alphas.items()
        if isinstance(alpha, bool) or not isinstance(alpha, int | float)
    ]
    dropout = config.get("lora_dropout", 0.0)
    if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout <= 1:
        faults.append(f"lora_dropout {dropout!r} is no share; legal: 0 to 1")
    return faults


def _pattern(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """PEFT's numbers of single modules, by their place."""
    pattern = config.get(name) or {}
    if not isinstance(pattern, Mapping):
        return {name: pattern}
    return {f"{name}[{module!r}]": value for module, value in pattern.items()}


def _numbers(value: Any, place: str = "") -> Iterator[tuple[str, int | float]]:
    """Every number of a configuration with its place."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _numbers(inner, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield from _numbers(inner, f"{place}[{at}]")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield place, value


def numbers_without_value(place: Path) -> int:
    """How many weights of a PEFT directory are NaN or infinite: with one of them no answer is a number.

    Looks at the exponents of the bytes as they lie, which no framework need be loaded for. Weights of other
    types than the four usual floats are not looked at. 0 also where there are none; OSError where the file
    cannot be read.
    """
    header, count = _read_header(place / WEIGHTS), 0
    if header is None:  # no adapter at all, which others tell
        return 0
    with (place / WEIGHTS).open("rb") as stream:
        (length,) = _HEADER.unpack(stream.read(_HEADER.size))
        for tensor in header.values():
            if tensor["dtype"] in _EXPONENTS:
                integer, exponent = _EXPONENTS[tensor["dtype"]]
                low, high = tensor["data_offsets"]
                stream.seek(_HEADER.size + length + low)
                bits = np.frombuffer(stream.read(high - low), integer)
                count += int(((bits & integer(exponent)) == integer(exponent)).sum())
    return count


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
    if unknown := numbers_without_value(place):
        warnings.append(
            f"{counted(unknown, 'weight')} of it are NaN or infinite, as after a training that diverged: its "
            "cells will fail, since no answer of it is a number"
        )
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
    if config.get("peft_type") == "LORA" and not unknown and has_no_effect(place):
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


def lora_ranks(place: Path) -> tuple[int, ...] | str:
    """The ranks of a plain LoRA adapter's modules, rising, or why it is none that can be merged.

    place: a folder that `adapter_problem` finds nothing wrong with. Read off the shapes of its tensors.
    """
    config = json.loads((place / CONFIG).read_bytes())
    if config.get("peft_type") != "LORA":
        return f"it is not a LoRA but {config.get('peft_type')}, which PEFT cannot merge; give a LoRA adapter"
    kinds = ("use_dora", "lora_bias", "modules_to_save", "target_parameters")
    beyond = [key for key in kinds if config.get(key)]
    header = _read_header(place / WEIGHTS) or {}
    matrices = {name: tensor for name, tensor in header.items() if ".lora_A." in name}
    others = [name for name in header if ".lora_A." not in name and ".lora_B." not in name]
    if beyond or others or not matrices:
        what = ", ".join(beyond) or (others[0] if others else "no lora_A matrix")
        return f"it is more than plain LoRA ({what}), which a merge would lose; give a plain LoRA adapter"
    return tuple(sorted({int(tensor["shape"][0]) for tensor in matrices.values()}))


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
    """Names, types, shapes and places of the tensors, or None where the file is damaged.

    The tensors lie one behind the other, from the first byte behind the header to the last.
    """
    try:
        with file.open("rb") as stream:
            (length,) = _HEADER.unpack(stream.read(_HEADER.size))
            size = file.stat().st_size - _HEADER.size - length
            header = json.loads(stream.read(length)) if size >= 0 else None
    except (struct.error, ValueError, RecursionError, FileNotFoundError):
        return None
    if not isinstance(header, dict):
        return None
    tensors = {name: tensor for name, tensor in header.items() if name != "__metadata__"}
    if not all(map(_is_tensor, tensors.values())):
        return None
    places = sorted(tuple(tensor["data_offsets"]) for tensor in tensors.values())
    begins, ends = [0, *(high for _, high in places)], [*(low for low, _ in places), size]
    return tensors if begins == ends else None


def _is_tensor(entry: Any) -> bool:
    """Whether an entry of a header tells type, shape and place, and these agree where the type is known."""
    if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str):
        return False
    shape, offsets = entry.get("shape"), entry.get("data_offsets")
    if not (isinstance(shape, list) and isinstance(offsets, list) and len(offsets) == 2 and len(shape) <= 64):
        return False
    if not all(type(number) is int and 0 <= number < 2**63 for number in (*shape, *offsets)):
        return False
    held = offsets[1] - offsets[0]
    known = _EXPONENTS.get(entry["dtype"])
    return held >= 0 and (known is None or held == prod(shape) * np.dtype(known[0]).itemsize)


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
