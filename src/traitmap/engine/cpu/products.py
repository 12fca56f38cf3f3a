"""Matrix products on a CPU: in few shapes, since a kernel is compiled for each, and by the faster library.

oneDNN takes .1 to .3 ms to compile a product of a new shape, longer than most products of a pass take, and
rows of all lengths make new shapes all the time: so sizes are padded to buckets. In float32 MKL leaves the
widest instructions of AMD's processors unused; there products go to oneDNN.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn


def pad_to_bucket(count: int, per_octave: int) -> int:
    """The least size of a bucket that is not below ``count``, of ``per_octave`` sizes to every doubling.

    2: at most half above the count. 4: at most a quarter. 16: at most 6 %, 3 % as a rule.
    """
    step = max(1, (1 << max(0, count - 1).bit_length()) // (2 * per_octave))
    return -(-count // step) * step


@contextmanager
def widest_products(model: Any) -> Iterator[None]:
    """Every ``nn.Linear`` of the model multiplies by oneDNN in the block, where that is the faster way.

    For inference only: the operator has no gradient. Elsewhere (other devices and dtypes, other
    processors) the block changes nothing. On an AMD Zen 5, one thread: 232 GFLOP/s against MKL's 103.
    """
    layers = [
        module
        for module in model.modules()
        if type(module) is nn.Linear and "forward" not in vars(module) and is_plain(module)
    ]
    if model.dtype != torch.float32 or model.device.type != "cpu" or not _onednn_is_wider():
        layers = []
    for layer in layers:
        vars(layer)["forward"] = functools.partial(_product, layer)
    try:
        yield
    finally:
        for layer in layers:
            del vars(layer)["forward"]


def product(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    *,
    swish: bool = False,
    times: torch.Tensor | None = None,
    plus: torch.Tensor | None = None,
) -> torch.Tensor:
    """x weight^T + bias the fastest way here; x (N, in), weight (out, in). Outside autograd only.

    Then, at no cost of their own where oneDNN computes: swish, or ``times`` or ``plus`` (N, out) each.
    """
    if not by_onednn(x.dtype, x.device) or type(weight) not in (torch.Tensor, nn.Parameter):  # quantised
        y = nn.functional.linear(x, weight, bias)
        y = nn.functional.silu(y) if swish else y
        y = y if times is None else y.mul_(times)
        return y if plus is None else y.add_(plus)
    operator, other = torch.ops.mkldnn._linear_pointwise, plus if times is None else times
    if other is None:
        y = operator(x, weight, bias, "swish" if swish else "none", [], "")
    else:
        y = operator.binary(x, other, weight, bias, "add" if times is None else "mul")
    return y


def packed(weight: torch.Tensor) -> torch.Tensor:
    """A weight as ``product`` reads it fastest, in oneDNN's own order where that is used."""
    if by_onednn(weight.dtype, weight.device):
        ordered: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
        return ordered
    return weight


def by_onednn(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether ``product`` goes to oneDNN: bfloat16 where it can, float32 where it is the wider."""
    if device.type != "cpu":
        return False
    return _onednn_is_wider() if dtype == torch.float32 else dtype == torch.bfloat16 and _has_bfloat16()


def is_plain(module: nn.Module) -> bool:
    """Whether a module computes what its class says: no hooks, and no other forward than the one above.

    Nor weights of a class of their own, as quantised ones are, which bring their own products.
    """
    own = vars(module).get("forward")
    hooks = (module._forward_hooks, module._forward_pre_hooks)
    dense = all(type(weight) is nn.Parameter for weight in module.parameters(recurse=False))
    return dense and not any(hooks) and (own is None or getattr(own, "func", None) is _product)


def _product(layer: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, layer.weight, layer.bias, "none", [], "")
    return product


@functools.cache
def _has_bfloat16() -> bool:
    """Whether oneDNN multiplies in bfloat16 here, post-operations included: tried, not asked for."""
    if not torch.backends.mkldnn.is_available():
        return False
    x, weight = torch.linspace(-1, 1, 128).reshape(8, 16).bfloat16(), torch.eye(16).bfloat16()
    try:
        with torch.inference_mode():
            operator, own = (
                torch.ops.mkldnn._linear_pointwise,
                torch.ops.mkldnn._reorder_linear_weight(weight),
            )
            double = operator.binary(x, x, own, None, "add")
            swish = operator(x, own, None, "swish", [], "")
            return torch.equal(double, 2 * x) and torch.allclose(swish, nn.functional.silu(x), atol=2e-2)
    except (RuntimeError, AttributeError, NotImplementedError):
        return False


@functools.cache
def _onednn_is_wider() -> bool:
    """MKL takes AVX-512 on Intel's processors alone; oneDNN asks the processor what it can do.

    A rule, not a timing, so that the same machine always rounds the same way.
    """
    try:
        processor = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n", 1)[0]
    except OSError:
        return False
    if "AuthenticAMD" not in processor or "avx512f" not in processor:
        return False
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return False
    x, layer = torch.linspace(-1, 1, 128).reshape(1, 8, 16), nn.Linear(16, 4)
    try:
        with torch.inference_mode():
            return bool(torch.allclose(_product(layer, x), layer(x), atol=1e-5))
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
