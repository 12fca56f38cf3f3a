"""The state of a training pass as a file: one safetensors file, which shows when it is damaged.

Every draw of a pass (first weights, order of rows, dropout masks) comes from a generator that is made anew
from the adapter's own seed, step and row, so no generator's state is kept: the step number stands for all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

FORMAT = 1
_PACKAGES = ("torch", "transformers", "numpy", "traitmap")
_FAULTS = (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError)


@dataclass(frozen=True)
class PassState:
    """How far a pass is.

    stamp: what a pass that goes on must share, in words that a user knows: part -> value, JSON data.
    facts: of the adapters and the pass, JSON data. tensors: numbers by name, of any shape.
    """

    stamp: Mapping[str, Any]
    facts: Mapping[str, Any]
    tensors: Mapping[str, NDArray[Any]]

    def difference(self, stamp: Mapping[str, Any]) -> str:
        """In what a pass with another stamp differs, in words; empty where it may go on from here."""
        parts = [part for part in stamp if self.stamp.get(part) != stamp[part]]
        return "; ".join(f"{part}: {self.stamp.get(part)} then, {stamp[part]} now" for part in parts)


def software() -> str:
    """The packages whose versions decide the digits of training, such as ``torch 2.13.0, numpy 2.3.1``."""
    return ", ".join(f"{package} {version(package)}" for package in _PACKAGES)


def write_state(path: Path, state: PassState) -> None:
    """Write a state; OSError or SafetensorError where the disk is full."""
    text = json.dumps({"format": FORMAT, "stamp": dict(state.stamp), "facts": dict(state.facts)})
    tensors = {name: np.ascontiguousarray(values) for name, values in state.tensors.items()}
    save_file(tensors, path, metadata={"state": text, "checksum": _checksum(text, tensors)})


def read_state(path: Path) -> PassState:
    """A state as it was written. FileNotFoundError where there is none, ValueError, in words, where it is
    damaged or of another version of traitmap."""
    if not path.is_file():
        raise FileNotFoundError(path)
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if _checksum(metadata["state"], tensors) != metadata["checksum"]:
            raise ValueError("its checksum differs")
        content = json.loads(metadata["state"])
        if content["format"] != FORMAT:
            raise ValueError("another version of traitmap wrote it")
        return PassState(content["stamp"], content["facts"], tensors)
    except _FAULTS as error:
        missing = f"no {error.args[0]!r} in it" if isinstance(error, KeyError) else ""
        raise ValueError(missing or str(error) or type(error).__name__) from None


def _checksum(text: str, tensors: Mapping[str, NDArray[Any]]) -> str:
    hashed = sha256(text.encode())
    for name in sorted(tensors):
        values = tensors[name]
        hashed.update(f"{name} {values.dtype} {values.shape}".encode())
        hashed.update(values.tobytes())
    return hashed.hexdigest()
