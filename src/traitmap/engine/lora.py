"""Several LoRA adapters resident on one frozen base.

The rows of a batch are sorted by adapter, so the tokens of adapter k form one slice S_k of the
flattened hidden states. Every adapted ``nn.Linear`` adds
``y[S_k] += scale_k * (dropout_k(x[S_k]) A_k^T) B_k^T``; the base weights are never touched and the
model is as it was after the block. Gradients of adapter k see slice S_k alone, so the sum
of the adapters' own losses trains each as if it were alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from traitmap.engine.linear import product
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
    """One adapter: module name -> (A (r, in), B (out, r), scale).

    flat: an adapter in training has all of its numbers in one vector, of which A and B are views (module
    by module A, then B transposed), so that one optimizer step, one norm and one cast serve them all.
    gradient: the vector beside it, of which the ``.grad`` of A and B are views.
    """

    a: dict[str, torch.Tensor]
    b: dict[str, torch.Tensor]
    scale: dict[str, float]
    dropout: float = 0.0
    settings: dict[str, Any] = field(default_factory=dict)
    flat: torch.Tensor | None = None
    gradient: torch.Tensor | None = None


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
    first = next(iter(modules.values()))
    wide = torch.float64 if first.weight.dtype == torch.float64 else torch.float32
    shapes = {name: (lora.r, module.in_features, module.out_features) for name, module in modules.items()}
    size = sum(rank * (width + height) for rank, width, height in shapes.values())
    flat = torch.zeros(size, dtype=wide, device=first.weight.device)
    gradient = torch.zeros_like(flat)
    a, b = _views(flat, shapes)
    a_gradient, b_gradient = _views(gradient, shapes)
    for name, module in modules.items():
        bound = 1 / math.sqrt(module.in_features)
        draw = torch.empty(lora.r, module.in_features, dtype=wide)
        a[name].copy_(draw.uniform_(-bound, bound, generator=generator))
        a[name].requires_grad_().grad = a_gradient[name]
        b[name].requires_grad_().grad = b_gradient[name]
    scale = lora.lora_alpha / (math.sqrt(lora.r) if lora.use_rslora else lora.r)
    return AdapterWeights(
        a=a,
        b=b,
        scale=dict.fromkeys(a, scale),
        dropout=lora.lora_dropout,
        settings={"r": lora.r, "lora_alpha": lora.lora_alpha, "use_rslora": lora.use_rslora},
        flat=flat,
        gradient=gradient,
    )


def _views(
    flat: torch.Tensor, shapes: Mapping[str, tuple[int, int, int]]
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """A (r, in) and B (out, r) of every module as views of a vector; shapes: (r, in, out) by module."""
    a, b, place = {}, {}, 0
    for name, (rank, width, height) in shapes.items():
        a[name] = flat[place : place + rank * width].view(rank, width)
        place += rank * width
        b[name] = flat[place : place + rank * height].view(rank, height).T
        place += rank * height
    return a, b


@dataclass(frozen=True)
class _Part:
    """One module's share of an adapter's product: rows ``ranks`` of the joint A, B, and the scale.

    module: its place among those that are computed together. name: its name in the model.
    """

    module: int
    name: str
    ranks: slice
    b: torch.Tensor
    scale: float


@dataclass(frozen=True)
class _Piece:
    """What the product needs of one adapter: its tokens, the A of all modules that read the same input
    below each other, their parts, and what the dropout mask is drawn from (then there is one part)."""

    tokens: slice
    a: torch.Tensor
    parts: tuple[_Part, ...]
    owner: AdapterWeights
    masked: Slice | None


class _AdaptedLinear(torch.autograd.Function):
    """y_m = x W_m^T + bias_m plus every adapter's low-rank product on its own tokens, for every module m
    that reads x; x (N, in), y_m (N, out_m).

    One function for base and adapters, so that neither y nor dx is ever copied: products are added in
    place. A module without a weight leaves the base's part out. ``anchor`` is a dummy leaf that makes
    autograd call backward even where x needs no gradient (the first layer). Gradients of A and B are
    accumulated straight into ``.grad`` in the adapter's own precision; only dx travels on.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        anchor: torch.Tensor,
        bases: Sequence[_Frozen],
        pieces: Sequence[_Piece],
    ) -> tuple[torch.Tensor, ...]:
        ys = [base.output(x) for base in bases]
        saved: list[torch.Tensor] = [x]
        for piece in pieces:
            part = x[piece.tokens]
            if piece.masked is not None:
                mask = _dropout_mask(piece.owner, piece.masked, piece.parts[0].name, part)
                part = part * mask
                saved.append(mask)
            low = torch.mm(part, piece.a.T)
            _scale(low, piece.parts)
            for each in piece.parts:
                ys[each.module][piece.tokens].addmm_(low[:, each.ranks], each.b.T)
            saved.append(low)
        ctx.save_for_backward(*saved)
        ctx.bases, ctx.pieces = bases, pieces
        return tuple(ys)

    @staticmethod
    def backward(ctx: Any, *slopes: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, *saved = ctx.saved_tensors
        dys, rest = [slope.contiguous() for slope in slopes], iter(saved)
        dx = _input_gradient(x, ctx.bases, dys) if ctx.needs_input_grad[0] else None
        for piece in ctx.pieces:
            part = x[piece.tokens]
            mask = None if piece.masked is None else next(rest)
            low = next(rest)
            dlow = torch.empty_like(low)
            for each in piece.parts:
                dpart = dys[each.module][piece.tokens]
                torch.mm(dpart, each.b, out=dlow[:, each.ranks])
                _accumulate(piece.owner.b[each.name], torch.mm(low[:, each.ranks].T, dpart).T)
            _scale(dlow, piece.parts)
            da = torch.mm(dlow.T, part if mask is None else part * mask)
            for each in piece.parts:
                _accumulate(piece.owner.a[each.name], da[each.ranks])
            if dx is None:
                continue
            if mask is None:
                dx[piece.tokens].addmm_(dlow, piece.a)
            else:
                dx[piece.tokens].addcmul_(torch.mm(dlow, piece.a), mask)
        return dx, None, None, None


@dataclass(frozen=True)
class _Frozen:
    """A base module's own part: weight (out, in) and bias, or None and the number of outputs."""

    weight: torch.Tensor | None
    bias: torch.Tensor | None
    height: int

    def output(self, x: torch.Tensor) -> torch.Tensor:
        return x.new_zeros(len(x), self.height) if self.weight is None else product(x, self.weight, self.bias)


def _input_gradient(x: torch.Tensor, bases: Sequence[_Frozen], dys: Sequence[torch.Tensor]) -> torch.Tensor:
    total: torch.Tensor | None = None
    for base, dy in zip(bases, dys, strict=True):
        if base.weight is not None:
            part = product(dy, base.weight.T, None)
            total = part if total is None else total.add_(part)
    return torch.zeros_like(x) if total is None else total


def _scale(low: torch.Tensor, parts: Sequence[_Part]) -> None:
    """Multiply the columns of each part by its scale, in place."""
    if len({part.scale for part in parts}) == 1:
        low.mul_(parts[0].scale)
    else:
        for part in parts:
            low[:, part.ranks].mul_(part.scale)


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
    if parameter.grad is None:
        parameter.grad = gradient.to(parameter.dtype)
    else:
        parameter.grad.add_(gradient)


class Resident:
    """Adapters hooked onto a model; ``route`` says which tokens belong to whom.

    siblings: module -> all modules that may read the very same input, itself among them. The first that
    is called computes for all; the others find their output waiting.
    """

    def __init__(
        self,
        adapters: Sequence[AdapterWeights],
        siblings: Mapping[str, Mapping[str, nn.Linear]] | None = None,
    ) -> None:
        self.adapters = list(adapters)
        self.slices: tuple[Slice, ...] = ()
        self._read: tuple[Slice, ...] = ()
        self.training = False
        self._siblings = siblings or {}
        self._anchor = torch.zeros((), requires_grad=True)
        self._cast: dict[int, tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]] = {}
        self._joint: dict[tuple[int, tuple[str, ...]], torch.Tensor] = {}
        self._waiting: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def route(self, slices: Sequence[Slice]) -> None:
        """Set the owners of the next forward pass's tokens."""
        self.slices = tuple(slices)
        self._waiting.clear()

    def route_read(self, slices: Sequence[Slice]) -> None:
        """Set the owners of the tokens in modules that see only those that are read; none for no such."""
        self._read = tuple(slices)

    def refresh(self) -> None:
        """Cast the adapters anew at the next pass: their weights have changed."""
        self._cast.clear()
        self._joint.clear()

    def add_to(self, name: str, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """y plus every owner's low-rank product of x at module ``name``."""
        pieces = self._pieces((name,), x)
        if not pieces:
            return y
        flat, base = x.reshape(-1, x.shape[-1]), _Frozen(None, None, y.shape[-1])
        return y + _AdaptedLinear.apply(flat, self._anchor, [base], pieces)[0].view(y.shape)

    def product(self, name: str, module: nn.Linear, x: torch.Tensor) -> torch.Tensor:
        """The module's output for x with every owner's low-rank product added."""
        for_input, output = self._waiting.pop(name, (None, None))
        if output is not None and for_input is x:
            return output
        group = self._siblings.get(name, {name: module})
        if self.training and any(adapter.dropout for adapter in self.adapters):
            group = {name: module}  # every module drops its own share of the input
        bases = [_Frozen(each.weight, each.bias, each.out_features) for each in group.values()]
        pieces = self._pieces(tuple(group), x)
        outputs = _AdaptedLinear.apply(x.reshape(-1, x.shape[-1]), self._anchor, bases, pieces)
        found = {each: y.view(*x.shape[:-1], -1) for each, y in zip(group, outputs, strict=True)}
        self._waiting.update((each, (x, y)) for each, y in found.items() if each != name)
        return found[name]

    def _pieces(self, names: tuple[str, ...], x: torch.Tensor) -> list[_Piece]:
        pieces, dtype = [], x.dtype
        only_read = self._read and x.numel() == self._read[-1].stop * x.shape[-1]
        for piece in self._read if only_read else self.slices:
            owner = self.adapters[piece.owner]
            there = tuple(name for name in names if name in owner.a)
            if not there:
                continue
            a, b = self._weights(piece.owner, dtype)
            parts, start = list[_Part](), 0
            for name in there:
                ranks = slice(start, start + len(a[name]))
                parts.append(_Part(names.index(name), name, ranks, b[name], owner.scale[name]))
                start = ranks.stop
            joint = a[there[0]]
            if len(there) > 1:
                key = (piece.owner, there)
                if key not in self._joint:
                    self._joint[key] = torch.cat([a[name] for name in there])
                joint = self._joint[key]
            masked = piece if self.training and owner.dropout else None
            pieces.append(_Piece(slice(piece.start, piece.stop), joint, tuple(parts), owner, masked))
        return pieces

    def _weights(
        self, index: int, dtype: torch.dtype
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """A and B of an adapter in the precision of the pass, cast once until ``refresh``."""
        adapter = self.adapters[index]
        if index not in self._cast or next(iter(self._cast[index][0].values())).dtype != dtype:
            self._joint.clear()
            with torch.no_grad():
                self._cast[index] = _cast(adapter, dtype)
        return self._cast[index]


def _cast(
    adapter: AdapterWeights, dtype: torch.dtype
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    if adapter.flat is None:
        a = {name: tensor.detach().to(dtype) for name, tensor in adapter.a.items()}
        return a, {name: tensor.detach().to(dtype) for name, tensor in adapter.b.items()}
    shapes = {name: (a.shape[0], a.shape[1], len(adapter.b[name])) for name, a in adapter.a.items()}
    return _views(adapter.flat.to(dtype), shapes)


@contextmanager
def resident(model: nn.Module, adapters: Sequence[AdapterWeights]) -> Iterator[Resident]:
    """Put adapters onto the model for the duration of the block.

    A plain frozen ``nn.Linear`` computes base and adapters in one function; what is derived from it (a
    quantised layer) computes its own part and a hook adds the adapters'.
    """
    modules = dict(model.named_modules())
    names = sorted({name for adapter in adapters for name in adapter.a})
    plain = {name: module for name in names if _is_plain(module := modules[name])}
    stack = Resident(adapters, _siblings(plain))
    for name, module in plain.items():
        module.__dict__["forward"] = partial(stack.product, name, module)
    handles = [
        modules[name].register_forward_hook(
            lambda _module, inputs, output, name=name: stack.add_to(name, inputs[0], output)
        )
        for name in names
        if name not in plain
    ]
    try:
        yield stack
    finally:
        for handle in handles:
            handle.remove()
        for module in plain.values():
            del module.__dict__["forward"]


def _is_plain(module: nn.Module) -> bool:
    return type(module) is nn.Linear and "forward" not in vars(module) and not module.weight.requires_grad


def _siblings(modules: Mapping[str, nn.Linear]) -> dict[str, dict[str, nn.Linear]]:
    """For every module those of the same parent that read the same input by their usual names."""
    found: dict[str, dict[str, nn.Linear]] = {}
    for name in modules:
        parent, _, own = name.rpartition(".")
        for together in (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")):
            if own in together:
                full = [f"{parent}.{each}" if parent else each for each in together]
                found[name] = {each: modules[each] for each in full if each in modules}
    return found
