"""Several LoRA adapters resident on one frozen base.

The rows of a batch are sorted by adapter, so the tokens of adapter k form one slice S_k of the
flattened hidden states. A forward hook on every adapted ``nn.Linear`` adds
``y[S_k] += scale_k * (dropout_k(x[S_k]) A_k^T) B_k^T``; the base weights are never touched and the
model is as it was once the hooks are gone. Gradients of adapter k see slice S_k alone, so the sum
of the adapters' own losses trains each as if it were alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from traitmap.errors import ModelError
from traitmap.study.settings import Lora


@dataclass(frozen=True)
class Slice:
    """Tokens ``start:stop`` of the flattened batch belong to adapter ``owner``.

    rows: (dropout key, length) of each row in the slice. A row's dropout mask depends on its key and
    the module alone, so it is the same whatever else shares the batch.
    """

    owner: int
    start: int
    stop: int
    rows: tuple[tuple[int, int], ...] = ()


@dataclass
class AdapterWeights:
    """One adapter: module name -> (A (r, in), B (out, r), scale)."""

    a: dict[str, torch.Tensor]
    b: dict[str, torch.Tensor]
    scale: dict[str, float]
    dropout: float = 0.0
    settings: dict[str, Any] = field(default_factory=dict)

    def parameters(self) -> list[torch.Tensor]:
        """A and B of every module, in module order."""
        return [tensor for name in self.a for tensor in (self.a[name], self.b[name])]


def linear_modules(model: nn.Module, target_modules: str | Sequence[str]) -> dict[str, nn.Linear]:
    """The ``nn.Linear`` modules that PEFT would adapt, by full name, in model order.

    ``all-linear`` means every one but the output head. A list matches whole names or their endings,
    as PEFT does. ModelError where a name matches nothing, or something that is not ``nn.Linear``.
    """
    head: nn.Module = model.get_output_embeddings()  # type: ignore[operator]
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    if target_modules == "all-linear":
        chosen = {name: module for name, module in linear.items() if module is not head}
        if not chosen:
            raise ModelError(
                f"{type(model).__name__} has no torch.nn.Linear outside its output head; traitmap adapts "
                "nn.Linear only (Conv1D as in GPT-2 is not supported). Use another base model."
            )
        return chosen
    found: dict[str, nn.Linear] = {}
    for wanted in target_modules:
        matches = [name for name, _ in model.named_modules() if name == wanted or name.endswith("." + wanted)]
        wrong = [name for name in matches if name not in linear]
        if not matches or wrong:
            endings = sorted({name.rsplit(".", 1)[-1] for name in linear})
            what = f"{wrong[0]} is no torch.nn.Linear" if wrong else "no module has that name"
            raise ModelError(
                f"target_modules: {wanted!r}: {what}; {type(model).__name__} offers {', '.join(endings)}, "
                "or all-linear."
            )
        found.update({name: linear[name] for name in matches})
    return {name: module for name, module in linear.items() if name in found}


def new_adapter(modules: dict[str, nn.Linear], lora: Lora, generator: torch.Generator) -> AdapterWeights:
    """A fresh adapter, initialised as PEFT does: A Kaiming-uniform with a = sqrt(5), B zero.

    The draws come from ``generator`` on the CPU in module order, so that an adapter's start depends
    on its seed and on nothing else.
    """
    a, b = {}, {}
    for name, module in modules.items():
        dtype = torch.promote_types(module.weight.dtype, torch.float32)
        bound = 1 / math.sqrt(module.in_features)
        draw = torch.empty(lora.r, module.in_features, dtype=dtype)
        draw.uniform_(-bound, bound, generator=generator)
        a[name] = draw.to(module.weight.device).requires_grad_()
        zero = torch.zeros(module.out_features, lora.r, dtype=dtype, device=module.weight.device)
        b[name] = zero.requires_grad_()
    scale = lora.lora_alpha / (math.sqrt(lora.r) if lora.use_rslora else lora.r)
    return AdapterWeights(
        a=a,
        b=b,
        scale=dict.fromkeys(a, scale),
        dropout=lora.lora_dropout,
        settings={"r": lora.r, "lora_alpha": lora.lora_alpha, "use_rslora": lora.use_rslora},
    )


class _SlicedProduct(torch.autograd.Function):
    """Adds every adapter's low-rank product to its own slice of y, in place.

    y (N, out) stands first, as autograd demands of a view that is changed in place; x (N, in).
    ``anchor`` is a dummy leaf that makes autograd call backward even where x
    needs no gradient (the first layer). Gradients of A_k and B_k are accumulated straight into
    ``.grad`` in the adapter's own precision; only dx travels on.
    """

    @staticmethod
    def forward(
        ctx: Any,
        y: torch.Tensor,
        x: torch.Tensor,
        anchor: torch.Tensor,
        name: str,
        pieces: list[tuple[AdapterWeights, Slice]],
        train: bool,
    ) -> torch.Tensor:
        saved: list[torch.Tensor] = [x]
        for adapter, piece in pieces:
            part = x[piece.start : piece.stop]
            mask = _dropout_mask(adapter, piece, name, part) if train and adapter.dropout else None
            dropped = part * mask if mask is not None else part
            low = dropped @ adapter.a[name].to(x.dtype).T
            y[piece.start : piece.stop].addmm_(low, adapter.b[name].to(x.dtype).T, alpha=adapter.scale[name])
            saved += [low] if mask is None else [low, mask]
        ctx.mark_dirty(y)
        ctx.save_for_backward(*saved)
        ctx.name, ctx.pieces, ctx.train = name, pieces, train
        return y

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, *saved = ctx.saved_tensors
        covered = sum(piece.stop - piece.start for _, piece in ctx.pieces) == len(x)
        dx = (torch.empty_like if covered else torch.zeros_like)(x) if ctx.needs_input_grad[1] else None
        rest = iter(saved)
        for adapter, piece in ctx.pieces:
            a, b, scale = adapter.a[ctx.name], adapter.b[ctx.name], adapter.scale[ctx.name]
            low = next(rest)
            mask = next(rest) if ctx.train and adapter.dropout else None
            part = x[piece.start : piece.stop]
            dropped = part * mask if mask is not None else part
            dpart = dy[piece.start : piece.stop]
            dlow = (dpart @ b.to(x.dtype)).mul_(scale)
            _accumulate(b, (dpart.T @ low).mul_(scale))
            _accumulate(a, dlow.T @ dropped)
            if dx is not None:
                dinput = dlow @ a.to(x.dtype)
                dx[piece.start : piece.stop] = dinput * mask if mask is not None else dinput
        return dy if ctx.needs_input_grad[0] else None, dx, None, None, None, None


def _dropout_mask(adapter: AdapterWeights, piece: Slice, name: str, part: torch.Tensor) -> torch.Tensor:
    """Inverted dropout mask (tokens, in) of a slice, row by row from each row's own key."""
    keep = 1.0 - adapter.dropout
    module = list(adapter.a).index(name)
    generator = torch.Generator()
    draws = []
    for key, length in piece.rows:
        generator.manual_seed((key + module * 0x9E3779B97F4A7C15) % 2**63)
        draws.append(torch.rand(length, part.shape[1], generator=generator))
    return (torch.cat(draws) < keep).to(part.device, part.dtype).div_(keep)


def _accumulate(parameter: torch.Tensor, gradient: torch.Tensor) -> None:
    gradient = gradient.to(parameter.dtype)
    parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)


class Resident:
    """Adapters hooked onto a model; ``route`` says which tokens belong to whom."""

    def __init__(self, adapters: Sequence[AdapterWeights]) -> None:
        self.adapters = list(adapters)
        self.slices: tuple[Slice, ...] = ()
        self.training = False
        self._anchor = torch.zeros((), requires_grad=True)

    def route(self, slices: Sequence[Slice]) -> None:
        """Set the owners of the next forward pass's tokens."""
        self.slices = tuple(slices)

    def add_to(self, name: str, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """y plus every owner's low-rank product of x at module ``name``."""
        pieces = [
            (self.adapters[piece.owner], piece)
            for piece in self.slices
            if name in self.adapters[piece.owner].a
        ]
        if not pieces:
            return y
        flat_x, flat_y = x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1])
        out = _SlicedProduct.apply(flat_y, flat_x, self._anchor, name, pieces, self.training)
        return out.view(y.shape)


@contextmanager
def resident(model: nn.Module, adapters: Sequence[AdapterWeights]) -> Iterator[Resident]:
    """Hook adapters onto the model for the duration of the block."""
    stack = Resident(adapters)
    names = {name for adapter in adapters for name in adapter.a}
    modules = dict(model.named_modules())
    handles = [
        modules[name].register_forward_hook(
            lambda _module, inputs, output, name=name: stack.add_to(name, inputs[0], output)
        )
        for name in sorted(names)
    ]
    try:
        yield stack
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def merged(model: nn.Module, adapter: AdapterWeights) -> Iterator[None]:
    """Add one adapter into the base weights for the block, and put the very same weights back after it.

    Faster than hooks where many items are scored by one adapter; exact to rounding in float32 and
    float64. In bfloat16 small updates would be lost in the sum: use ``resident`` there.
    """
    modules = dict(model.named_modules())
    originals: dict[str, torch.Tensor] = {}
    try:
        with torch.no_grad():
            for name in adapter.a:
                weight = modules[name].weight
                originals[name] = weight.detach().clone()
                update = (adapter.b[name] @ adapter.a[name]).mul_(adapter.scale[name])
                weight.add_(update.to(weight.dtype))
        yield
    finally:
        with torch.no_grad():
            for name, original in originals.items():
                modules[name].weight.copy_(original)
