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
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from traitmap.engine.cpu.products import pad_to_bucket, product
from traitmap.engine.cuda.grouped import GroupedJoint, GroupedLinear, Joint, grouped_joint, stack_for
from traitmap.engine.device import send
from traitmap.study.settings import Lora

# Modules that read the very same input, by their usual names
_TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
_LEAST = 16  # tokens of an adapter's product


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


EVERYTHING = Slice(0, 0, 2**62)  # all tokens of a pass that one adapter has for itself


@dataclass
class AdapterWeights:
    """One adapter: module name -> (A (r, in), B (out, r), scale).

    flat: an adapter in training has all of its numbers in one vector, of which A and B are views (all A,
    then all B transposed), so that one optimizer step, one norm and one cast serve them all.
    gradient: the vector beside it, of which the ``.grad`` of A and B are views.
    """

    a: dict[str, torch.Tensor]
    b: dict[str, torch.Tensor]
    scale: dict[str, float]
    dropout: float = 0.0
    settings: dict[str, Any] = field(default_factory=dict)
    flat: torch.Tensor | None = None
    gradient: torch.Tensor | None = None


def new_adapter(modules: dict[str, nn.Linear], lora: Lora, generator: torch.Generator) -> AdapterWeights:
    """A fresh adapter, initialised as PEFT does: A Kaiming-uniform with a = sqrt(5), B zero.

    The draws come from ``generator`` on the CPU in module order, so that an adapter's start depends
    on its seed and on nothing else.
    """
    first = next(iter(modules.values()))
    wide = torch.float64 if first.weight.dtype == torch.float64 else torch.float32
    shapes = {name: (lora.r, module.in_features, module.out_features) for name, module in modules.items()}
    start = torch.zeros(_size(shapes), dtype=wide)
    for part in _views(start, shapes)[0].values():
        bound = 1 / math.sqrt(part.shape[1])
        part.uniform_(-bound, bound, generator=generator)
    flat = send(start, first.weight.device)
    gradient = torch.zeros_like(flat)
    a, b = _views(flat, shapes)
    a_gradient, b_gradient = _views(gradient, shapes)
    for name in modules:
        a[name].requires_grad_().grad = a_gradient[name]
        b[name] = b[name].T.requires_grad_()
        b[name].grad = b_gradient[name].T
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


def with_numbers(adapter: AdapterWeights, flat: torch.Tensor) -> AdapterWeights:
    """The adapter with other numbers, (P,) as those of ``AdapterWeights.flat``; not to be trained."""
    a, b = _views(flat, _shapes(adapter))
    return replace(adapter, a=a, b={name: part.T for name, part in b.items()}, flat=None, gradient=None)


Shapes = Mapping[str, tuple[int, int, int]]  # module -> rank, width of its input, width of its output


def _shapes(adapter: AdapterWeights) -> Shapes:
    return {name: (len(a), a.shape[1], len(adapter.b[name])) for name, a in adapter.a.items()}


def _size(shapes: Shapes) -> int:
    return sum(rank * (width + height) for rank, width, height in shapes.values())


def _views(flat: torch.Tensor, shapes: Shapes) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """A (r, in) and B transposed (r, out) of every module as views of a vector: all A, then all B.

    Modules that read the same input stand behind each other, so that their A are one matrix.
    """
    order, place = [member for name in shapes for member in _family(name) if member in shapes], 0
    a, b = dict[str, torch.Tensor](), dict[str, torch.Tensor]()
    for views, side in ((a, 1), (b, 2)):
        for name in dict.fromkeys(order):
            rank, width = shapes[name][0], shapes[name][side]
            views[name] = flat[place : place + rank * width].view(rank, width)
            place += rank * width
    return {name: a[name] for name in shapes}, {name: b[name] for name in shapes}


def _family(name: str) -> list[str]:
    """The modules of the same parent that read the same input by their usual names, itself among them."""
    parent, _, child = name.rpartition(".")
    family = next((names for names in _TOGETHER if child in names), (child,))
    return [f"{parent}.{member}" if parent else member for member in family]


class _AdapterCopy:
    """An adapter as passes read it: in their precision, A times its scale, and room for gradients.

    grad: where gradients of a pass are added up, laid out as the adapter is; its own ``gradient`` where
    that has the same precision. Everything stays where it is when the weights change. room: (2, P) for the
    numbers and their gradients, where they shall lie in a place that is there.
    """

    def __init__(self, adapter: AdapterWeights, dtype: torch.dtype, room: torch.Tensor | None = None) -> None:
        self.adapter, self.fresh = adapter, False
        shapes, gradient = _shapes(adapter), adapter.gradient
        if room is None:
            device = next(iter(adapter.a.values())).device
            self._flat = torch.empty(_size(shapes), dtype=dtype, device=device)
            shared = gradient is None or gradient.dtype == dtype
            self.grad = gradient if shared else torch.zeros_like(self._flat)
        else:
            self._flat, self.grad = room
        self._a, self._b = _views(self._flat, shapes)
        self._a_grad, self._b_grad = ({}, {}) if self.grad is None else _views(self.grad, shapes)
        self._joint: dict[tuple[str, ...], Joint | None] = {}

    def refresh(self) -> None:
        """Take the adapter's numbers as they are now."""
        with torch.no_grad():
            for name, a in self.adapter.a.items():
                if self.adapter.flat is None:
                    torch.mul(a.to(self._flat.dtype), self.adapter.scale[name], out=self._a[name])
                    self._b[name].copy_(self.adapter.b[name].T)
            if self.adapter.flat is not None:
                size = sum(a.numel() for a in self._a.values())
                self._flat.copy_(self.adapter.flat)
                self._flat[:size].mul_(next(iter(self.adapter.scale.values())))
        self.fresh = True

    def collect(self) -> None:
        """Add what a pass has found to the adapter's gradient."""
        if self.grad is not None and self.grad is not self.adapter.gradient:
            self.adapter.gradient.add_(self.grad)  # type: ignore[union-attr]
            self.grad.zero_()

    def drop(self) -> None:
        """Forget what a pass has found that was not collected."""
        if self.grad is not None:
            self.grad.zero_()

    def joint(self, names: tuple[str, ...]) -> Joint | None:
        """The share of these modules in one product, or None where the adapter touches none of them."""
        if names not in self._joint:
            adapted = [name for name in names if name in self._a]
            self._joint[names] = None
            if adapted:
                parts, start = list[tuple[int, slice, torch.Tensor, torch.Tensor | None]](), 0
                for name in adapted:
                    ranks = slice(start, start + len(self._a[name]))
                    parts.append((names.index(name), ranks, self._b[name], self._b_grad.get(name)))
                    start = ranks.stop
                self._joint[names] = Joint(
                    a=_stacked([self._a[name] for name in adapted]),
                    a_grad=None if self.grad is None else _stacked([self._a_grad[name] for name in adapted]),
                    scale=self.adapter.scale[adapted[0]],
                    parts=tuple(parts),
                )
        return self._joint[names]


def _stacked(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Matrices (r_i, in) that follow each other in memory as one, (sum r_i, in)."""
    rows, width = sum(len(part) for part in parts), parts[0].shape[1]
    return parts[0].as_strided((rows, width), (width, 1))


@dataclass(frozen=True)
class _Range:
    """Tokens that an adapter's products read: its own, and ``before`` and ``after`` them some that are
    others', so that products come in few shapes. What they give is thrown away."""

    tokens: slice
    before: int
    after: int
    piece: Slice

    def blank(self, low: torch.Tensor) -> None:
        if self.before:
            low[: self.before].zero_()
        if self.after:
            low[-self.after :].zero_()


class _Piece:
    """One adapter's share of a product. masked: its weights and the module's name where the input is
    dropped in part; then there is one part."""

    def __init__(self, range_: _Range, joint: Joint, masked: tuple[AdapterWeights, str] | None) -> None:
        self.range, self.joint, self.masked = range_, joint, masked

    def backward(
        self,
        x: torch.Tensor,
        dys: Sequence[torch.Tensor],
        dx: torch.Tensor | None,
        low: torch.Tensor,
        mask: torch.Tensor | None,
    ) -> None:
        """Add the adapter's gradients where they are added up, and to dx what goes through it."""
        tokens, joint = self.range.tokens, self.joint
        part = x[tokens] if mask is None else x[tokens] * mask
        dlow = torch.empty_like(low)
        for module, ranks, b, b_grad in joint.parts:
            dpart = dys[module][tokens]
            torch.mm(dpart, b.T, out=dlow[:, ranks])
            b_grad.addmm_(low[:, ranks].T, dpart)  # type: ignore[union-attr]
        self.range.blank(dlow)
        joint.a_grad.addmm_(dlow.T, part, alpha=joint.scale)  # type: ignore[union-attr]
        if dx is None:
            return
        if mask is None:
            dx[tokens].addmm_(dlow, joint.a)
        else:
            dx[tokens].addcmul_(torch.mm(dlow, joint.a), mask)


_Base = tuple[torch.Tensor | None, torch.Tensor | None, int]
"""A base module's weight (out, in), or None where its output is left out, its bias, its number of outputs."""


class _AdaptedLinear(torch.autograd.Function):
    """y_m = x W_m^T + bias_m plus every adapter's low-rank product on its own tokens, for every module m
    that reads x; x (N, in), y_m (N, out_m).

    One function for base and adapters, so that neither y nor dx is ever copied: products are added in
    place. A module without a weight leaves the base's part out. ``anchor`` is a dummy leaf that makes
    autograd call backward even where x needs no gradient (the first layer). Gradients of A and B are
    added up in ``_AdapterCopy.grad``; only dx travels on.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        anchor: torch.Tensor,
        bases: Sequence[_Base],
        pieces: Sequence[_Piece],
    ) -> tuple[torch.Tensor, ...]:
        ys = _base_outputs(bases, x)
        saved: list[torch.Tensor] = [x]
        for piece in pieces:
            tokens, joint = piece.range.tokens, piece.joint
            part = x[tokens]
            if piece.masked is not None:
                mask = _dropout_mask(*piece.masked, piece.range.piece, part)
                part = part * mask
                saved.append(mask)
            low = torch.mm(part, joint.a.T)
            piece.range.blank(low)
            for module, ranks, b, _ in joint.parts:
                ys[module][tokens].addmm_(low[:, ranks], b)
            saved.append(low)
        ctx.save_for_backward(*saved)
        ctx.bases, ctx.pieces = bases, pieces
        return tuple(ys)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, *tensors = ctx.saved_tensors
        dys, saved = [grad.contiguous() for grad in grads], iter(tensors)
        dx = _input_gradient(ctx.bases, x, dys) if ctx.needs_input_grad[0] else None
        for piece in ctx.pieces:
            mask = None if piece.masked is None else next(saved)
            piece.backward(x, dys, dx, next(saved), mask)
        return dx, None, None, None


def _base_outputs(bases: Sequence[_Base], x: torch.Tensor) -> list[torch.Tensor]:
    return [
        x.new_zeros(len(x), height) if weight is None else product(x, weight, bias)
        for weight, bias, height in bases
    ]


def _input_gradient(bases: Sequence[_Base], x: torch.Tensor, dys: Sequence[torch.Tensor]) -> torch.Tensor:
    total: torch.Tensor | None = None
    for (weight, _, _), dy in zip(bases, dys, strict=True):
        if weight is None:
            continue
        if total is None:
            total = product(dy, weight.T, None)
        elif x.dtype == torch.bfloat16:
            total.addmm_(dy, weight)
        else:
            total.add_(product(dy, weight.T, None))
    return torch.zeros_like(x) if total is None else total


def _dropout_mask(adapter: AdapterWeights, name: str, piece: Slice, part: torch.Tensor) -> torch.Tensor:
    """Inverted dropout mask (tokens, in) of a slice, row by row from each row's own key."""
    keep = 1.0 - adapter.dropout
    module = list(adapter.a).index(name)
    generator = torch.Generator()
    draws = []
    for key, length in piece.rows:
        generator.manual_seed((key + module * 0x9E3779B97F4A7C15) % 2**63)
        draws.append(torch.rand(length, part.shape[1], generator=generator))
    return send(torch.cat(draws) < keep, part.device).to(part.dtype).div_(keep)


class Resident:
    """Adapters hooked onto a model; ``route`` says which tokens belong to whom.

    siblings: module -> all modules that may read the very same input, itself among them. The first that
    is called computes for all; the others find their output waiting. exact: no product reads a token that
    is not its adapter's, as numbers that are not finite would go from one to the other. called: the modules
    that the model has called; it may read the weight of others itself, or not use them. grouped: whether
    adapters of one shape that are trained together share one product (``cuda.grouped``).
    """

    def __init__(
        self,
        adapters: Sequence[AdapterWeights],
        siblings: Mapping[str, Mapping[str, nn.Linear]] | None = None,
        *,
        grouped: bool = False,
    ) -> None:
        self.adapters = list(adapters)
        self._grouped = grouped and _alike(self.adapters)
        self.training = False
        self.exact = False
        self.called: set[str] = set()
        self._slices: tuple[Slice, ...] = ()
        self._read: tuple[Slice, ...] = ()
        self._siblings = siblings or {}
        self._anchor = torch.zeros((), requires_grad=True)
        self._copies: dict[tuple[int, torch.dtype], _AdapterCopy] = {}
        self._ranges: dict[int, list[_Range]] = {}
        self._ends: dict[int, torch.Tensor] = {}
        self._stacks: dict[torch.dtype, torch.Tensor] = {}
        self._joints: dict[tuple[tuple[str, ...], torch.dtype], GroupedJoint | None] = {}
        self._waiting: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def route(self, slices: Sequence[Slice], read: Sequence[Slice] = ()) -> None:
        """Set the owners of the next forward pass's tokens.

        read: owners of the tokens in modules that see only those that are read; none for no such module.
        """
        self._slices, self._read = tuple(slices), tuple(read)
        self._ranges.clear()
        self._ends.clear()
        self._waiting.clear()

    def refresh(self) -> None:
        """Cast the adapters anew at the next pass: their weights have changed."""
        for copy in self._copies.values():
            copy.fresh = False

    def collect(self) -> None:
        """Add what the passes since the last call have found to the adapters' gradients."""
        for copy in self._copies.values():
            copy.collect()

    def drop(self) -> None:
        """Forget what was found since then."""
        for copy in self._copies.values():
            copy.drop()

    def add_to(self, name: str, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """y plus every owner's low-rank product of x at module ``name``."""
        self.called.add(name)
        outputs = self._outputs((name,), x, [(None, None, y.shape[-1])])
        return y if outputs is None else y + outputs[0].view(y.shape)

    def product(self, name: str, module: nn.Linear, x: torch.Tensor) -> torch.Tensor:
        """The module's output for x with every owner's low-rank product added."""
        self.called.add(name)
        for_input, output = self._waiting.pop(name, (None, None))
        if output is not None and for_input is x:
            return output
        group = self._siblings.get(name, {name: module})
        if self.training and any(adapter.dropout for adapter in self.adapters):
            group = {name: module}  # every module drops its own share of the input
        bases = [(linear.weight, linear.bias, linear.out_features) for linear in group.values()]
        flat = self._outputs(tuple(group), x, bases)
        assert flat is not None, "there is a base"
        outputs = {sibling: y.view(*x.shape[:-1], -1) for sibling, y in zip(group, flat, strict=True)}
        self._waiting.update((sibling, (x, y)) for sibling, y in outputs.items() if sibling != name)
        return outputs[name]

    def _outputs(
        self, names: tuple[str, ...], x: torch.Tensor, bases: Sequence[_Base]
    ) -> tuple[torch.Tensor, ...] | None:
        """(N, out) of every module of the names for the tokens of x; None where none has anything to add."""
        flat = x.reshape(-1, x.shape[-1])
        joint, ends = self._grouped_joint(names, x.dtype), self._ends_of(len(flat))
        if joint is not None and ends is not None:
            outputs, gradient = partial(_base_outputs, bases), partial(_input_gradient, bases)
            return GroupedLinear.apply(flat, self._anchor, outputs, gradient, joint, ends)
        pieces = self._pieces(names, x)
        if not pieces and all(weight is None for weight, _, _ in bases):
            return None
        return _AdaptedLinear.apply(flat, self._anchor, bases, pieces)

    def _copy(self, owner: int, dtype: torch.dtype) -> _AdapterCopy:
        """The adapter in this precision, as its weights are now."""
        if (owner, dtype) not in self._copies:
            adapter = self.adapters[owner]
            room = self._stack(dtype)[:, owner, : _size(_shapes(adapter))] if self._grouped else None
            self._copies[owner, dtype] = _AdapterCopy(adapter, dtype, room)
        copy = self._copies[owner, dtype]
        if not copy.fresh:
            copy.refresh()
        return copy

    def _stack(self, dtype: torch.dtype) -> torch.Tensor:
        """(2, K, P') room for the numbers of all adapters and their gradients, adapter by adapter."""
        if dtype not in self._stacks:
            first = self.adapters[0]
            device = next(iter(first.a.values())).device
            self._stacks[dtype] = stack_for(len(self.adapters), _size(_shapes(first)), dtype, device)
        return self._stacks[dtype]

    def _grouped_joint(self, names: tuple[str, ...], dtype: torch.dtype) -> GroupedJoint | None:
        """The share of these modules of all adapters in one product, or None where that is not to be had."""
        if not self._grouped:
            return None
        copies = [self._copy(owner, dtype) for owner in range(len(self.adapters))]
        if (names, dtype) not in self._joints:
            joints = [joint for copy in copies if (joint := copy.joint(names)) is not None]
            scales = [joint.scale for joint in joints]
            found = grouped_joint(self._stack(dtype), joints[0], scales) if joints else None
            self._joints[names, dtype] = found
        return self._joints[names, dtype]

    def _ends_of(self, tokens: int) -> torch.Tensor | None:
        """(K,) int32, where the tokens of each adapter end; None where a pass has the tokens of one alone, or
        where what an adapter reads is dropped in part."""
        if not self._grouped or (self.training and any(adapter.dropout for adapter in self.adapters)):
            return None
        slices = self._slices_of(tokens)
        if len(slices) < 2 or slices[-1].stop != tokens:
            return None
        if tokens not in self._ends:
            ends = np.zeros(len(self.adapters), dtype=np.int32)
            for piece in slices:
                ends[piece.owner :] = piece.stop
            self._ends[tokens] = send(ends, next(iter(self.adapters[0].a.values())).device)
        return self._ends[tokens]

    def _pieces(self, names: tuple[str, ...], x: torch.Tensor) -> list[_Piece]:
        pieces = []
        for tokens in self.ranges(x.numel() // x.shape[-1]):
            owner = self.adapters[tokens.piece.owner]
            joint = self._copy(tokens.piece.owner, x.dtype).joint(names)
            if joint is not None:
                masked = (owner, names[joint.parts[0][0]]) if self.training and owner.dropout else None
                pieces.append(_Piece(tokens, joint, masked))
        return pieces

    def ranges(self, tokens: int) -> list[_Range]:
        """Who owns what of an input of so many tokens, and how far each one's products reach."""
        if tokens not in self._ranges:
            slices = self._slices_of(tokens)
            exact = self.exact or (self.training and any(adapter.dropout for adapter in self.adapters))
            self._ranges[tokens] = []
            for piece in slices:
                size = pad_to_bucket(max(_LEAST, piece.stop - piece.start), 2)
                start, stop = piece.start, piece.stop
                if not exact and size < tokens:
                    start = min(piece.start, tokens - size)
                    stop = start + size
                reach = _Range(slice(start, stop), piece.start - start, stop - piece.stop, piece)
                self._ranges[tokens].append(reach)
        return self._ranges[tokens]

    def _slices_of(self, tokens: int) -> Sequence[Slice]:
        slices = self._read if self._read and tokens == self._read[-1].stop else self._slices
        return slices if slices[-1].stop in (tokens, EVERYTHING.stop) else _of_one_owner(self._slices, tokens)


def _alike(adapters: Sequence[AdapterWeights]) -> bool:
    """Whether these adapters, two at least, touch the same modules with the same ranks and can be trained."""
    shapes = [_shapes(adapter) for adapter in adapters]
    return (
        len(adapters) > 1
        and all(adapter.gradient is not None for adapter in adapters)
        and all(list(one.items()) == list(shapes[0].items()) for one in shapes)
    )


def _of_one_owner(slices: Sequence[Slice], tokens: int) -> tuple[Slice]:
    """All tokens of a module that sees others than the pass has, such as an expert its own.

    ValueError where several adapters share the pass: whose they are cannot be told.
    """
    owners = {piece.owner for piece in slices}
    if len(owners) > 1:
        raise ValueError(f"{len(owners)} adapters share a pass, and a module sees {tokens} tokens of it")
    return (Slice(slices[0].owner, 0, tokens, ((slices[0].rows[0][0], tokens),) if slices[0].rows else ()),)


@contextmanager
def resident(
    model: nn.Module, adapters: Sequence[AdapterWeights], *, grouped: bool = False
) -> Iterator[Resident]:
    """Put adapters onto the model for the duration of the block.

    A plain frozen ``nn.Linear`` computes base and adapters in one function; what is derived from it (a
    quantised layer) computes its own part and a hook adds the adapters'. grouped: see ``Resident``.
    """
    modules = dict(model.named_modules())
    names = sorted({name for adapter in adapters for name in adapter.a})
    plain = {
        name: module
        for name in names
        if type(module := modules[name]) is nn.Linear
        and "forward" not in vars(module)
        and not module.weight.requires_grad
    }
    stack = Resident(adapters, _siblings(plain, names), grouped=grouped)
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


def _siblings(modules: Mapping[str, nn.Linear], names: Sequence[str]) -> dict[str, dict[str, nn.Linear]]:
    """For every module those that are computed with it: its family, where all of it that adapters touch
    (``names``) is among the modules."""
    siblings: dict[str, dict[str, nn.Linear]] = {}
    for name in modules:
        family = [member for member in _family(name) if member in names]
        if all(member in modules for member in family):
            siblings[name] = {member: modules[member] for member in family}
    return siblings
