"""CUDA tensors on a machine without CUDA: shapes, dtypes and devices, no numbers.

``FakeCuda`` is torch's ``FakeTensorMode`` that watches. What a GPU would refuse, or what would make the host
wait for it, is a ``FaultError``: an exception of a kind that no probe of the engine takes for "this does not
work here". The one way back to numpy, ``engine.device.fetch``, gives made-up numbers of the right shape and
is counted by the function that asked.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

import traitmap
from traitmap.engine.device import fetch

GPU = torch.device("cuda:0")
_OURS = str(Path(traitmap.__file__).parent)
_THEIRS = ("transformers", "peft")
# products, for which CUDA has kernels in floating point alone, both sides of one dtype
_PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot", "addbmm", "_scaled_mm"}
_NOT_IN_HALF = ("linalg_qr", "linalg_eigh", "_linalg_svd", "_linalg_eigh", "linalg_cholesky_ex", "histc")
_NO_KERNELS = {torch.uint16, torch.uint32, torch.uint64}  # on CUDA, but for copies and views
_MOVES = (
    "_to_copy",
    "view",
    "reshape",
    "clone",
    "detach",
    "alias",
    "_varlen_attn_backward",
)  # nothing computed
_ONLY_ON_CPU = ("mkldnn", "onednn", "quantized", "mkl")  # namespaces of operators


class FaultError(Exception):
    """What the engine must not do on a GPU."""


class FakeCuda(FakeTensorMode):
    """Tensors of ``cuda:0`` and of the CPU without numbers, for the time of a block.

    number: what every floating-point number is that the host fetches. tokens: whole numbers that it fetches
    are drawn below this. fetches: how often each function of the engine waited; foreign: what transformers
    and PEFT waited for in their own code.
    """

    def __init__(self, *, number: float = 0.0, tokens: int = 1) -> None:
        super().__init__(allow_non_fake_inputs=True)
        self.number, self.draw, self.tokens = number, np.random.default_rng(0), tokens
        self.fetches, self.foreign = Counter[str](), Counter[str]()

    @contextmanager
    def at_work(self) -> Iterator[FakeCuda]:
        """Inside the mode; gradients are computed in this thread, since torch has none for such a device."""
        with self, _ListsAsIndices(), torch.autograd.set_multithreading_enabled(False):
            yield self

    def fetch(self, tensor: FakeTensor) -> NDArray[Any]:
        """Numbers that a tensor might have."""
        if tensor.fake_device.type == "cuda":
            self.fetches[_place(leave_out=("device.fetch",))] += 1
        if tensor.dtype == torch.bool or not tensor.dtype.is_floating_point:
            return self.draw.integers(0, self.tokens, tuple(tensor.shape))
        dtype = np.float32 if tensor.dtype in (torch.bfloat16, torch.float32) else np.float64
        return np.full(tuple(tensor.shape), self.number, dtype=dtype)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.ops.prim.device.default:
            # torch's own C++ shall not look for CUDA: it is told "meta", and what it makes there is on CUDA
            return torch.device("meta") if args[0].fake_device.type == "cuda" else args[0].fake_device
        if kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "meta":
            kwargs["device"] = GPU
        if func in (torch.ops.aten.pin_memory.default, torch.ops.aten._pin_memory.default):
            return args[0]
        if torch.is_inference_mode_enabled() and func._can_decompose():
            with self:  # outside inference mode torch does so before it asks
                return func.decompose(*args, **kwargs)
        self._check(func, args, kwargs)
        try:
            return super().__torch_dispatch__(func, types, args, kwargs)
        except (DataDependentOutputException, DynamicOutputShapeException) as error:
            return self._without_numbers(func, args, error)
        except RuntimeError as error:
            if "device" in str(error):
                raise FaultError(f"{func} at {_place()}: {error}") from error
            raise

    def _without_numbers(self, func: Any, args: Any, error: Exception) -> Any:
        """What an operator gives that needs the numbers of its tensors: the host waits for a GPU's."""
        if _of(args, "cuda"):
            self._waits(func)
        if func is torch.ops.aten._local_scalar_dense.default:
            return args[0].dtype.is_floating_point and self.number
        if func is torch.ops.aten.equal.default:
            return True
        raise error

    def _waits(self, func: Any) -> None:
        place = _place()
        if not place.startswith(_THEIRS):
            raise FaultError(f"{func} at {place}: the host waits for the device")
        self.foreign[place] += 1

    def _check(self, func: Any, args: Any, kwargs: Any) -> None:
        name = func._schema.name.partition("::")[2].rstrip("_")
        target = torch.device(kwargs["device"]).type if kwargs.get("device") is not None else None
        if name == "_to_copy" and target is not None and isinstance(args[0], torch.Tensor):
            source = _device(args[0])
            blocks = not kwargs.get("non_blocking", False)
            if source != target and args[0].numel() and (target == "cpu" or blocks):
                self._waits(func)
        if name == "copy" and _device(args[0]) != _device(args[1]) and args[1].dim():
            blocks = not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
            if _device(args[0]) == "cpu" or blocks:
                self._waits(func)
        if target != "cuda" and not _of((args, kwargs), "cuda"):
            return
        namespace = func._schema.name.partition("::")[0]
        if namespace in _ONLY_ON_CPU or name.startswith("mkldnn"):
            raise FaultError(f"{func} at {_place()}: a kernel of a CPU")
        generator = kwargs.get("generator")
        if generator is not None and generator.device.type == "cpu":
            raise FaultError(f"{func} at {_place()}: a generator of the CPU for a tensor on CUDA")
        if name in ("index", "index_put", "_index_put_impl") and _of(args[1], "cpu"):
            self._waits(func)  # indices of the host are sent before they are used
        if name.startswith(("_fused", "_foreach")) and _of(args, "cpu"):
            raise FaultError(f"{func} at {_place()}: tensors of the CPU among those of CUDA")
        _check_dtypes(func, name, [leaf.dtype for leaf in _of((args, kwargs), "cuda")])


class _ListsAsIndices(TorchFunctionMode):
    """Looks for indices that are lists: torch makes tensors of them that no operator shows."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__) and _device(args[0]) == "cuda":
            parts = args[1] if isinstance(args[1], tuple) else (args[1],)
            if any(isinstance(part, (list, np.ndarray)) for part in parts):
                raise FaultError(f"a list as an index at {_place()}: the host waits for the device")
        return func(*args, **(kwargs or {}))


def _check_dtypes(func: Any, name: str, dtypes: list[torch.dtype]) -> None:
    floating = all(dtype.is_floating_point for dtype in dtypes)
    if (name in _PRODUCTS or name.startswith("_scaled_dot_product")) and name != "_scaled_mm":
        masks = name.startswith("_scaled_dot_product") and torch.bool in dtypes
        if (not floating and not masks) or len(set(dtypes) - {torch.bool}) > 1:
            raise FaultError(f"{func} at {_place()}: CUDA multiplies no {sorted(map(str, set(dtypes)))}")
    if name.startswith(_NOT_IN_HALF) and {torch.float16, torch.bfloat16} & set(dtypes):
        raise FaultError(f"{func} at {_place()}: CUDA has no kernel in half precision")
    if name in ("argmax", "argmin") and torch.bool in dtypes:
        raise FaultError(f"{func} at {_place()}: CUDA has no kernel for bool")
    if _NO_KERNELS & set(dtypes) and name not in _MOVES:
        raise FaultError(f"{func} at {_place()}: CUDA has no kernel for {_NO_KERNELS & set(dtypes)}")


def _device(tensor: torch.Tensor) -> str:
    return tensor.fake_device.type if isinstance(tensor, FakeTensor) else tensor.device.type


def _of(tree: Any, device: str) -> list[torch.Tensor]:
    """The tensors in arguments that lie on a device; of the CPU's those with a dimension."""
    tensors = [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
    return [t for t in tensors if _device(t) == device and (device == "cuda" or t.dim())]


def _place(leave_out: tuple[str, ...] = ()) -> str:
    """``module.function`` of the innermost frame of traitmap, transformers or PEFT."""
    frame = sys._getframe(1)
    while frame is not None:
        file, name = frame.f_code.co_filename, frame.f_code.co_name
        if file.startswith(_OURS):
            place = f"{Path(file).stem}.{name}"
            if place not in leave_out:
                return place
        for package in _THEIRS:
            if f"/site-packages/{package}/" in file:
                return f"{package}.{Path(file).stem}.{name}"
        frame = frame.f_back
    return "outside"


@fetch.register(FakeTensor)
def _fetch_fake(tensor: FakeTensor) -> NDArray[Any]:
    mode = tensor.fake_mode
    assert isinstance(mode, FakeCuda)
    return mode.fetch(tensor)


def put_on_cuda(mode: FakeCuda, model: nn.Module) -> nn.Module:
    """The model with all its parameters and buffers as fake tensors on CUDA; tied ones stay tied."""
    made: dict[int, torch.Tensor] = {}

    def fake(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in made:
            made[id(tensor)] = torch.empty_strided(
                tensor.shape, tensor.stride(), dtype=tensor.dtype, device=GPU
            )
            if isinstance(tensor, nn.Parameter):
                made[id(tensor)] = nn.Parameter(made[id(tensor)], requires_grad=False)
        return made[id(tensor)]

    with mode:
        for module in model.modules():
            for store in (module._parameters, module._buffers, vars(module)):
                for name, tensor in list(store.items()):
                    if isinstance(tensor, torch.Tensor):
                        store[name] = fake(tensor)
    return model
