"""Adapters without texts: the updates of LoRA weights compared with each other, without forming any of them.

An update is dW = s B A (out x in) of every module. Inner products of two of them follow from products of
their small factors, and singular values from a QR of each factor: nothing of the size of the base is made.
Only numpy: files are read by their header, nothing is unpickled.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from traitmap.data.adapters import CONFIG, WEIGHTS, adapter_problem
from traitmap.errors import DataError

Array = NDArray[np.float64]
Update = Mapping[str, tuple[Array, Array]]
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_FACTOR = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_(A|B)(?:\.[^.]+)?\.weight$")
_LAYER = re.compile(r"\.(\d+)\.")


@dataclass(frozen=True)
class Fingerprints:
    """What the weights of N adapters say. cosine: (N, N) of their updates over all modules.

    norm: (N,) Frobenius norm of the whole update. rank: (N,) effective rank, the exponential of the entropy
    of squared singular values, mean over modules. depth: (N, 3) shares of the squared norm in the first,
    middle and last third of the layers. attention: (N,) share in attention modules.
    """

    names: tuple[str, ...]
    cosine: Array
    norm: Array
    rank: Array
    depth: Array
    attention: Array


def read_update(folder: str | Path) -> dict[str, tuple[Array, Array]]:
    """Module -> factors A (r, in) and s B (out, r) of a LoRA in a PEFT directory.

    s is alpha / r, or alpha / sqrt(r) with ``use_rslora``, by PEFT's patterns of alphas. DataError where the
    folder is no LoRA adapter, or its factors do not fit each other.
    """
    folder = Path(folder)
    problem = adapter_problem(folder)
    if problem is not None:
        raise DataError(problem)
    config = json.loads((folder / CONFIG).read_bytes())
    if config["peft_type"] != "LORA":
        raise DataError(f"{folder} is no LoRA but {config['peft_type']}; only LoRA updates can be compared")
    factors: dict[str, dict[str, Array]] = {}
    for name, tensor in _tensors(folder / WEIGHTS).items():
        match = _FACTOR.match(name)
        if match:
            factors.setdefault(match[1], {})[match[2]] = tensor
    update = {}
    for module, pair in sorted(factors.items()):
        if set(pair) != {"A", "B"} or pair["A"].ndim != 2 or pair["A"].shape[0] != pair["B"].shape[-1]:
            raise DataError(
                f"{folder / WEIGHTS}: the factors of {module} do not fit each other; save it again"
            )
        rank = pair["A"].shape[0]
        alpha = next(
            (value for key, value in (config.get("alpha_pattern") or {}).items() if _is_of(key, module)),
            config.get("lora_alpha") or rank,
        )
        scale = alpha / (np.sqrt(rank) if config.get("use_rslora") else rank)
        update[module] = pair["A"], scale * pair["B"]
    if not update:
        raise DataError(f"{folder / WEIGHTS} holds no lora_A and lora_B of linear modules")
    return update


def fingerprints(updates: Mapping[str, Update]) -> Fingerprints:
    """Compare the updates of adapters of one base, by name. DataError where modules differ in size."""
    names = tuple(updates)
    count = len(names)
    modules = sorted({module for update in updates.values() for module in update})
    layers = [int(found[1]) for module in modules if (found := _LAYER.search(f".{module}."))]
    last = max(layers, default=0) + 1
    gram, depth = np.zeros((count, count)), np.zeros((count, 3))
    attention, rank, used = np.zeros(count), np.zeros(count), np.zeros(count)
    for module in modules:
        having = [at for at, name in enumerate(names) if module in updates[name]]
        a, b = ([updates[names[at]][module][side] for at in having] for side in (0, 1))
        if len({one.shape[1] for one in a}) > 1 or len({one.shape[0] for one in b}) > 1:
            raise DataError(f"adapters have {module} in different sizes: they are not of one base")
        edges = np.cumsum([0, *(len(one) for one in a)])
        product = (np.hstack(b).T @ np.hstack(b)) * (np.vstack(a) @ np.vstack(a).T)
        inner = np.add.reduceat(np.add.reduceat(product, edges[:-1], axis=0), edges[:-1], axis=1)
        gram[np.ix_(having, having)] += inner
        found = _LAYER.search(f".{module}.")
        third = min(3 * int(found[1]) // last, 2) if found else 2
        size = np.maximum(np.diag(inner), 0.0)
        depth[having, third] += size
        attention[having] += size * bool(re.search(r"attn|attention", module))
        for at, one, other in zip(having, a, b, strict=True):
            values = np.linalg.svd(np.linalg.qr(other)[1] @ np.linalg.qr(one.T)[1].T, compute_uv=False) ** 2
            share = values[values > 0] / max(float(values.sum()), 1e-300)
            if len(share):
                rank[at] += float(np.exp(-(share * np.log(share)).sum()))
                used[at] += 1
    total = np.maximum(np.diag(gram), 0.0)
    length = np.sqrt(total)
    known = length > 0
    scale = np.where(known, length, np.nan)
    whole = np.where(known, total, np.nan)
    return Fingerprints(
        names,
        np.clip(gram / np.outer(scale, scale), -1.0, 1.0),
        np.where(known, length, np.nan),
        np.where(used > 0, rank / np.maximum(used, 1), np.nan),
        depth / whole[:, None],
        attention / whole,
    )


def sign_conflicts(updates: Mapping[str, Update], *, rows: int = 128, seed: int = 0) -> Array:
    """(N, N) how much of two updates of one base has opposite signs: 0 all alike, 1 all opposite.

    Entries dW of both are weighted by the product of their sizes; half is what unrelated updates have. Of
    each module at most so many output rows are looked at, drawn with the seed, so that none is formed whole.
    DataError where modules differ in size.
    """
    names = tuple(updates)
    together, opposite = np.zeros((len(names), len(names))), np.zeros((len(names), len(names)))
    generator = np.random.default_rng(seed)
    for module in sorted({module for update in updates.values() for module in update}):
        having = [at for at, name in enumerate(names) if module in updates[name]]
        factors = [updates[names[at]][module] for at in having]
        if len({(a.shape[1], b.shape[0]) for a, b in factors}) > 1:
            raise DataError(f"adapters have {module} in different sizes: they are not of one base")
        size = factors[0][1].shape[0]
        drawn = generator.permutation(size)[:rows]
        flat = np.array([(b[drawn] @ a).ravel() for a, b in factors])
        inner, sizes = flat @ flat.T, np.abs(flat) @ np.abs(flat).T
        scale = size / len(drawn)
        together[np.ix_(having, having)] += scale * sizes
        opposite[np.ix_(having, having)] += scale * (sizes - inner) / 2
    return np.where(together > 0, opposite / np.where(together > 0, together, 1.0), np.nan)


def read_fingerprints(folder: str | Path) -> Fingerprints:
    """Compare the LoRA adapters in the folders of a folder, each named after its source."""
    places = sorted(place for place in Path(folder).glob("*") if (place / CONFIG).is_file())
    if len(places) < 2:
        raise DataError(
            f"{folder} holds {len(places)} adapters; give a folder with one PEFT directory for each source"
        )
    return fingerprints({place.name: read_update(place) for place in places})


def _is_of(pattern: str, module: str) -> bool:
    """Whether a key of PEFT's patterns means a module: its whole name, or the end of it after a dot."""
    return re.match(rf"(.*\.)?({pattern})$", module) is not None


def _tensors(path: Path) -> dict[str, Array]:
    """Every tensor of floats of a safetensors file, as float64."""
    content = path.read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    header: dict[str, Any] = json.loads(content[8 : 8 + length])
    tensors = {}
    for name, told in header.items():
        if name == "__metadata__" or told["dtype"] not in _DTYPES:
            continue
        low, high = told["data_offsets"]
        raw = np.frombuffer(content[8 + length + low : 8 + length + high], dtype=_DTYPES[told["dtype"]])
        if told["dtype"] == "BF16":  # the upper half of a float32
            raw = (raw.astype("<u4") << 16).view("<f4")
        tensors[name] = raw.astype(float).reshape(told["shape"])
    return tensors
