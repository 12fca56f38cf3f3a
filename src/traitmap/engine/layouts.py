"""Layouts of rows, each tried on a model before it is trusted, on what it will be used for.

A layout is right where every row gets the logits that it has alone, in one plain pass of the model: two rows
of a batch, choices that hang as branches behind one context, and the same with rows longer than the model's
window of attention. For that the window is made short, since a real one is thousands of tokens long. And
adapters that share a pass must each see their own tokens, whatever modules do with the order of tokens.

Layouts, from the fastest: ``stream`` (rows behind each other, no padding), ``padded`` (rows filled up to the
longest), ``alone`` (one row in a pass). Generation behind transformers' own cache is tried alike, and on CUDA
the kernels that do at once what the stream does row by row and adapter by adapter, forward and backward.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers.utils import logging as transformers_logging

from traitmap.engine import attention
from traitmap.engine.adapted_modules import is_linear, linear_modules
from traitmap.engine.attention import attending, narrowed
from traitmap.engine.cuda import packed
from traitmap.engine.device import send
from traitmap.engine.lora import AdapterWeights, Resident, new_adapter, resident
from traitmap.engine.passes import PaddedDecoder, Row, read_logits
from traitmap.engine.trials import Expected, Trial
from traitmap.study.settings import Lora

_RANK, _NUMBERS = 8, 4096  # of adapters while kernels are tried, and of each gradient that is compared


def choose_layout(model: Any, *, shared: bool = True) -> tuple[str, str]:
    """The fastest layout that gives each row the logits that it has alone, and why none faster does.

    shared: whether rows of several adapters will share a pass.
    """
    failed = ""
    with torch.no_grad(), _quiet():
        trial = Trial(model)
        for layout in ("stream", "padded"):
            trouble = _trouble(trial, layout, shared)
            if trouble is None:
                return layout, failed
            failed = f"{failed}; {layout}: {trouble}" if failed else f"{layout}: {trouble}"
    return "alone", failed


@dataclass(frozen=True)
class Kernels:
    """What of CUDA's kernels a stream is computed with.

    packed: attention over all rows at once (``cuda.packed``). grouped: products of all adapters that are
    trained together at once (``cuda.grouped``).
    """

    packed: bool = False
    grouped: bool = False

    @property
    def attention(self) -> str:
        """The name of the attention that a stream is computed with."""
        return packed.NAME if self.packed else attention.NAME

    @property
    def conditions(self) -> dict[str, bool]:
        """Those that are used, for the conditions of a run."""
        chosen = {"packed_attention": self.packed, "grouped_products": self.grouped}
        return {name: used for name, used in chosen.items() if used}


def choose_kernels(model: Any) -> Kernels:
    """The kernels by which adapters on this model get the gradients of the plain stream."""
    draw = np.random.default_rng(0)
    rows = [draw.integers(0, vocabulary_of(model), size) for size in (7, 12, 9)]
    with _quiet():
        trial = Trial(model)

        def plain() -> Expected:
            return trial.expected(lambda: _gradients(model, rows, Kernels()))

        expected = plain()
        with narrowed(model) as windows:
            narrow = plain() if windows else None

        def right(kernels: Kernels) -> bool:
            if not trial.agrees(lambda: _gradients(model, rows, kernels), expected):
                return False
            with narrowed(model):
                return narrow is None or trial.agrees(lambda: _gradients(model, rows, kernels), narrow)

        return Kernels(packed=right(Kernels(packed=True)), grouped=right(Kernels(grouped=True)))


def _gradients(model: Any, rows: Sequence[np.ndarray], kernels: Kernels) -> torch.Tensor:
    """(2 K, n) numbers out of the gradients of A and of B of K adapters that share a pass, a row each."""
    modules, adapters = linear_modules(model, "all-linear"), list[AdapterWeights]()
    for seed in range(len(rows)):
        generator = torch.Generator().manual_seed(seed)
        adapter = new_adapter(modules, Lora(r=_RANK, lora_alpha=_RANK), generator)
        for b in adapter.b.values():  # at zero, where training starts, A has no gradient
            b.detach().copy_(send(torch.randn(b.shape, generator=generator) * 0.02, b.device))
        adapters.append(adapter)
    owned = [Row(ids=ids, reads=np.arange(len(ids)), owner=owner) for owner, ids in enumerate(rows)]
    with (
        attending(model, kernels.attention),
        resident(model, adapters, grouped=kernels.grouped) as together,
    ):
        together.training = True
        read_logits(model, "stream", owned, together).float().logsumexp(dim=1).sum().backward()
        together.collect()
    numbers = list[torch.Tensor]()
    for adapter in adapters:
        gradient, size = adapter.gradient, sum(a.numel() for a in adapter.a.values())
        assert gradient is not None
        for part in gradient.split([size, len(gradient) - size]):
            numbers.append(part[:: max(1, len(part) // _NUMBERS)][:_NUMBERS].float())
    width = min(map(len, numbers))
    return torch.stack([part[:width] for part in numbers])


def _trouble(trial: Trial, layout: str, shared: bool) -> str | None:
    """What comes out wrong where rows are laid out in this way, or None."""
    draw, vocabulary = np.random.default_rng(0), vocabulary_of(trial.model)
    rows = [draw.integers(0, vocabulary, size) for size in (7, 12)]
    trunk, *branches = (draw.integers(0, vocabulary, size) for size in (9, 4, 3))
    if _differs(trial, layout, rows):
        return "rows of a batch do not get the logits that they have alone"
    if layout == "stream" and _branches_differ(trial, trunk, branches):
        return "choices behind one context do not get the logits that they have alone"
    with narrowed(trial.model) as windows:
        if windows and _differs(trial, layout, rows):
            return f"rows longer than its {windows} come out wrong"
        if windows and layout == "stream" and _branches_differ(trial, trunk, branches):
            return f"choices behind a context longer than its {windows} come out wrong"
    if shared and _adapters_differ(trial, layout, rows):
        return "adapters that share a pass do not get their own tokens"
    return None


def _alone(model: Any, rows: Sequence[np.ndarray]) -> list[torch.Tensor]:
    """(L, V) logits of every row by itself, with the model's own attention."""
    return [read_logits(model, "padded", [Row(ids=ids, reads=np.arange(len(ids)))]).float() for ids in rows]


def _differs(trial: Trial, layout: str, rows: Sequence[np.ndarray]) -> bool:
    model = trial.model
    together = [Row(ids=ids, reads=np.arange(len(ids))) for ids in rows]
    expected = trial.expected(lambda: torch.cat(_alone(model, rows)))
    return not trial.agrees(lambda: _read(model, layout, together), expected)


def _branches_differ(trial: Trial, trunk: np.ndarray, branches: Sequence[np.ndarray]) -> bool:
    def apart() -> torch.Tensor:
        alone = _alone(trial.model, [np.concatenate([trunk, branch]) for branch in branches])
        return torch.cat([alone[0][: len(trunk)], *[logits[len(trunk) :] for logits in alone]])

    ids = np.concatenate([trunk, *branches])
    owners = np.repeat(np.arange(len(branches) + 1), [len(trunk), *map(len, branches)])
    row = Row(ids=ids, reads=np.arange(len(ids)), branches=owners)
    return not trial.agrees(lambda: _read(trial.model, "stream", [row]), trial.expected(apart))


def _adapters_differ(trial: Trial, layout: str, rows: Sequence[np.ndarray]) -> bool:
    """Whether rows of two adapters come out otherwise in one pass than in a pass each. Not read
    everywhere, so that modules behind the choice of positions see fewer tokens than the others."""
    model = trial.model
    owned = [Row(ids=ids, reads=np.arange(1 + i, len(ids) - 1), owner=i) for i, ids in enumerate(rows)]

    def adapters() -> list[AdapterWeights]:
        modules = {name: module for name, module in model.named_modules() if is_linear(module)}
        return [_random_adapter(modules, seed) for seed in range(len(rows))]

    def apart() -> torch.Tensor:
        found = list[torch.Tensor]()
        for row, adapter in zip(owned, adapters(), strict=True):
            with resident(model, [adapter]) as one:
                found.append(read_logits(model, "padded", [Row(ids=row.ids, reads=row.reads)], one))
        return torch.cat(found)

    def together() -> torch.Tensor:
        with resident(model, adapters()) as both:
            return _read(model, layout, owned, both)

    return not trial.agrees(together, trial.expected(apart))


def _random_adapter(modules: Mapping[str, torch.nn.Linear], seed: int) -> AdapterWeights:
    """An adapter of rank 1 that moves the output of every module by about a tenth."""
    generator, a, b = (
        torch.Generator().manual_seed(seed),
        dict[str, torch.Tensor](),
        dict[str, torch.Tensor](),
    )
    for name, module in modules.items():
        weight = module.weight
        a[name] = send(torch.randn(1, module.in_features, generator=generator), weight.device)
        b[name] = send(torch.randn(module.out_features, 1, generator=generator), weight.device)
        # a quantised weight calls itself floating, but is a class of its own without arithmetic
        plain = type(weight) is torch.nn.Parameter and weight.is_floating_point()
        b[name] *= 0.1 * weight[0].float().std() if plain else 0.002
    return AdapterWeights(a=a, b=b, scale=dict.fromkeys(a, 1.0))


def _read(model: Any, layout: str, rows: Sequence[Row], adapters: Resident | None = None) -> torch.Tensor:
    if layout == "padded":
        return read_logits(model, layout, rows, adapters)
    with attending(model, attention.NAME):
        return read_logits(model, layout, rows, adapters)


def choose_decoding(model: Any) -> str:
    """How texts may grow: a ``batch`` or ``one`` at a time behind transformers' cache, or ``anew`` without.

    Tried with three prompts of unlike lengths, of which one leaves the batch, and with one prompt; beyond the
    window too, where there is one; and with prompts of one token behind others, which a model that keeps its
    state in its modules takes for the next token of those.
    """
    with torch.no_grad(), _quiet():
        trial = Trial(model)
        for decoding, sizes in (("batch", (9, 5, 6)), ("one", (9,))):
            right = _decodes(trial, sizes)
            with narrowed(model) as windows:
                right = right and (not windows or _decodes(trial, sizes))
            if right:
                return decoding
    return "anew"


def _decodes(trial: Trial, sizes: Sequence[int]) -> bool:
    """Whether tokens behind a cache get the logits that they have in a pass over the whole text.

    sizes: tokens of the prompts; as many prompts of one token follow them.
    """
    draw, steps, model, count = np.random.default_rng(0), 4, trial.model, len(sizes)
    batches = [
        [draw.integers(1, vocabulary_of(model), size + steps) for size in batch]
        for batch in (sizes, (1,) * count)
    ]

    def whole() -> torch.Tensor:
        found = list[torch.Tensor]()
        for texts in batches:
            ends = [logits[len(logits) - steps - 1 : -1] for logits in _alone(model, texts)]
            found += [
                ends[row][step] for step in range(steps) for row in range(count) if step < 3 or row != 1
            ]
        return torch.stack(found)

    def grown() -> torch.Tensor:
        return torch.cat([logits for texts in batches for logits in _grown(model, texts, steps)])

    return trial.agrees(grown, trial.expected(whole))


def _grown(model: Any, texts: Sequence[np.ndarray], steps: int) -> Iterator[torch.Tensor]:
    """Logits of the last tokens of texts behind a cache, step by step; the second leaves before the last."""
    decoder = PaddedDecoder(model, [text[:-steps].tolist() for text in texts], 0)
    rows = list(range(len(texts)))
    for step in range(steps):
        yield decoder.logits()
        left = [row for row in rows if step < 2 or row != 1]
        decoder.go_on([int(texts[row][step - steps]) for row in left], [rows.index(row) for row in left])
        rows = left


def vocabulary_of(model: Any) -> int:
    """Tokens that a model knows, read through its text part."""
    return int(model.config.get_text_config().vocab_size)


def rope_switch(config: Any) -> int | None:
    """The length up to which a pass turns positions otherwise than beyond it (LongRoPE), or None.

    The factors follow from the longest position of a pass, so rows on both sides may share none.
    """
    text = config.get_text_config()
    parameters = getattr(text, "rope_parameters", None) or {}
    lengths = [
        kind.get("original_max_position_embeddings")
        or getattr(text, "original_max_position_embeddings", None)
        for kind in [parameters, *parameters.values()]
        if isinstance(kind, dict) and kind.get("rope_type") == "longrope"
    ]
    return min((int(length) for length in lengths if length), default=None)


@contextmanager
def _quiet() -> Iterator[None]:
    """What transformers says of what is only tried is not shown."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
