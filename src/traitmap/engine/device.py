"""The device that a model lies on: its name, its memory, and the way between its tensors and numpy.

Decisions (rows, batches, stop strings, lengths of texts) are made on the host, in numpy and plain Python; a
device computes. What is decided goes over by ``send``, which does not wait for the device. What was computed
comes back by ``fetch``, which waits for all that was asked of it: once for an optimizer step, once for a pass
that is read, once for the next token of all texts in slots. Nothing else in the engine reads a tensor's
numbers, and a test holds that (``tests/engine/test_fake_cuda.py``).
"""

from __future__ import annotations

from functools import singledispatch
from pathlib import Path
from typing import Any

import psutil
import torch
from numpy.typing import NDArray

from traitmap.errors import ModelError

SHARE = {"cpu": 0.6, "cuda": 0.9}  # of the memory that is planned with; the rest is others' and for surprises


def send(values: NDArray[Any] | torch.Tensor, device: torch.device) -> torch.Tensor:
    """An array or a tensor of the host as a tensor on a device. The host goes on before it is there.

    On a CPU an array and its tensor share memory.
    """
    tensor = values if isinstance(values, torch.Tensor) else torch.from_numpy(values)
    if device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)  # from other memory the copy is waited for


@singledispatch
def fetch(tensor: torch.Tensor) -> NDArray[Any]:
    """A tensor's numbers as an array, bfloat16 as float32. Waits for the device.

    By the type of the tensor, so that tensors of another type (those of torch's ``FakeTensorMode``, which
    have no numbers) can have a way of their own.
    """
    here = tensor.detach().cpu()
    array: NDArray[Any] = (here.float() if here.dtype == torch.bfloat16 else here).numpy()
    return array


def device_of(name: str, setting: str = "model.device") -> torch.device:
    """The device of this name; ``auto`` is a GPU where there is one. ModelError names the ``setting``."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ModelError(f"{setting} {name!r}: unknown; legal: auto, cpu, cuda, cuda:N.") from None
    if device.type not in SHARE:
        raise ModelError(f"{setting} {name!r}: not supported; legal: auto, cpu, cuda, cuda:N.")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ModelError(f"{setting} {name!r}: torch sees no CUDA device here; use auto or cpu.")
    return device


def memory_of(device: torch.device) -> int:
    """Bytes that may be planned with on a device: its share of all memory, within a container's limit."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory * SHARE["cuda"])
    total = psutil.virtual_memory().total
    for place in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(place).read_text(encoding="utf-8")))
        except (OSError, ValueError):
            continue
    return int(total * SHARE["cpu"])
