"""How far an adapter, or another model, has moved from its base on texts that it was not asked about.

Two numbers of one forward pass: what the texts' own tokens cost it beyond what they cost the base
(cross-entropy, which PEFT calls forgetting), and how far its next-token distributions are from the base's
(KL). The base's pass comes first; its distributions lie in a temporary file, so that every adapter on the
same load, and a model that is loaded after the base has left, takes one pass more and nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import accumulate
from math import nan
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import torch
from numpy.typing import NDArray

from traitmap.data.records import Request
from traitmap.engine.base import ActiveModel
from traitmap.engine.device import fetch, send
from traitmap.engine.layouts import vocabulary_of
from traitmap.engine.local import LocalEngine
from traitmap.engine.passes import Row, in_batches, on_each_side
from traitmap.engine.perplexity import TextDrift
from traitmap.engine.score import logits_of
from traitmap.errors import ModelError
from traitmap.progress import Listener, Progress, silent

LONGEST = 256  # tokens of a text that are read
PLACES = 16  # of a text at which distributions are compared
_PASS_NUMBERS = 2**26  # logits of one pass, 256 MB in float32: 256 tokens of the largest vocabularies
_TILE_NUMBERS = 2**22  # logits that are looked at together, since what follows from them takes more


@dataclass(frozen=True)
class BaseReading:
    """What a base makes of N texts, kept so that others can be compared with it.

    ids: tokens of each text. places: where distributions are compared, and starts: (N + 1,) where those of
    each text begin in ``logprobs``, (P, V) log-probabilities on disk. nats: (N,) what the texts' tokens cost.
    prompts, longest: how the texts were tokenised, see ``base_reading``.
    """

    texts: tuple[str, ...]
    prompts: bool
    longest: int
    ids: tuple[NDArray[np.int64], ...]
    places: tuple[NDArray[np.int64], ...]
    starts: tuple[int, ...]
    nats: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    logprobs: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), dtype=np.float32))


Visit = Callable[[torch.Tensor, NDArray[np.int64]], torch.Tensor]
"""What is made of (m, V) log-probabilities at places of a reading: (m,) numbers."""


@contextmanager
def base_reading(
    engine: LocalEngine,
    texts: Sequence[str],
    *,
    prompts: bool = False,
    longest: int = LONGEST,
    places: int = PLACES,
    listener: Listener = silent,
) -> Iterator[BaseReading]:
    """What the base of an engine makes of texts, for the block: the file of its distributions goes with it.

    prompts: texts are asked as they stand, tokenised as prompts are, and their last ``longest`` tokens count;
    else they are whole texts behind the start token, and their first count. places: at which distributions
    are compared, at most so many of each text, evenly spread, the last among them. The file takes 4 bytes for
    every place and token of the vocabulary: 190 MB for 60 texts, 16 places and 50,000 tokens.
    Reports the stage ``drift`` in texts.
    """
    ids = _tokens(engine, texts, prompts, longest)
    compared = tuple(_spread(len(row), places) for row in ids)
    starts = (0, *accumulate(map(len, compared)))
    with TemporaryFile(prefix="traitmap-") as file:
        stored = list[NDArray[np.float32]]()

        def keep(distributions: torch.Tensor, at: NDArray[np.int64]) -> torch.Tensor:
            if not stored:  # only now it is known how many tokens the model has logits for
                shape = starts[-1], distributions.shape[1]
                stored.append(np.memmap(file, dtype=np.float32, mode="w+", shape=shape))
            stored[0][at] = fetch(distributions)
            return distributions.new_zeros(len(at))

        reading = BaseReading(tuple(texts), prompts, longest, ids, compared, starts)
        with engine.active(None) as active:
            nats, _ = _read(active, reading, keep, listener)
        yield replace(reading, nats=nats, logprobs=stored[0] if stored else reading.logprobs)


def drift(
    engine: LocalEngine,
    reading: BaseReading,
    adapter: Path | None = None,
    listener: Listener = silent,
) -> TextDrift:
    """How far a model is from the base of a reading: an adapter on the engine's base, or that base itself.

    engine: the one that the reading is of, or one of a model that was made from that base (merged, or trained
    as a whole). Where it has grown or lost tokens, distributions cannot be compared and ``kl`` is unknown; a
    text that either gives no finite log-probability is unknown in both.
    ModelError where it splits the texts into other tokens than the base, so that not even their cost can be.
    """
    ids = _tokens(engine, reading.texts, reading.prompts, reading.longest)
    if any(not np.array_equal(a, b) for a, b in zip(ids, reading.ids, strict=True)):
        raise ModelError(
            f"{engine.base.path}: its tokenizer splits the texts otherwise than the base's does, so that "
            "what they cost per token cannot be compared; give a model with the tokenizer of its base."
        )

    known, size = reading.logprobs.shape[1], reading.logprobs.shape[1]

    def divergence(distributions: torch.Tensor, at: NDArray[np.int64]) -> torch.Tensor:
        nonlocal size
        size = distributions.shape[1]
        if size != known:
            return distributions.new_full((len(at),), nan)
        base = send(reading.logprobs[at], distributions.device)
        terms = distributions.exp().mul_(distributions - base)
        # never below 0 but for rounding
        return terms.masked_fill_(distributions == -torch.inf, 0.0).sum(dim=1).clamp_(min=0)

    with engine.active(adapter) as active:
        nats, kl = _read(active, reading, divergence, listener)
    unknown = "" if size == known else f"the model has {size} tokens, its base {known}"
    lost = ~np.isfinite(nats) | ~np.isfinite(reading.nats) | (~np.isfinite(kl) & (size == known))
    if lost.any():  # no number is made of what the others say alone
        nats[lost] = kl[lost] = nan
        unknown = (
            f"{lost.sum()} of {len(lost)} texts have no finite log-probability; weights of the model or of "
            "its base are NaN or infinite, or too large for its dtype"
        )
    return TextDrift(
        tokens=np.array([max(len(row) - 1, 0) for row in ids], dtype=np.int64),
        before=reading.nats,
        after=nats,
        kl=kl,
        unknown=unknown,
    )


def _tokens(
    engine: LocalEngine, texts: Sequence[str], prompts: bool, longest: int
) -> tuple[NDArray[np.int64], ...]:
    """Ids of every text, at least one, at most ``longest`` and no more than the model can read."""
    most = max(1, min(longest, engine.base.max_length))
    if prompts:
        rows = [ids[-most:] or [engine.encoder.start] for ids in engine.encoder.encode_all(texts)]
    else:
        borders = engine.encoder.borders([Request("loglikelihood", "", text) for text in texts])
        rows = [[*border.context, *border.continuation][:most] for border in borders]
    return tuple(np.asarray(row, dtype=np.int64) for row in rows)


def _spread(length: int, places: int) -> NDArray[np.int64]:
    """At most ``places`` of ``length`` positions, evenly spread, the last among them."""
    count = min(length, places)
    return length - 1 - (np.arange(count, dtype=np.int64) * length // count)[::-1]


def _read(
    active: ActiveModel, reading: BaseReading, visit: Visit, listener: Listener
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """((N,) what the texts' tokens cost in nats, (N,) mean of what ``visit`` makes of their places)."""
    lengths = [len(row) for row in reading.ids]
    nats, found = np.zeros(len(lengths)), np.zeros(len(lengths))
    budget = max(1, min(active.pass_tokens, _PASS_NUMBERS // vocabulary_of(active.base.model)))

    def compute(batch: list[int]) -> tuple[list[int], NDArray[np.float64], NDArray[np.float64]]:
        with torch.inference_mode():
            return (batch, *_read_pass(active, reading, batch, visit))

    done = 0
    for order in on_each_side(lengths, active.base.switch):
        for batch, cost, value in in_batches(lengths, budget, active.base.layout, compute, order=order):
            nats[batch], found[batch] = cost, value
            done += len(batch)
            listener(Progress("drift", done, len(lengths)))
    return nats, found


def _read_pass(
    active: ActiveModel, reading: BaseReading, batch: Sequence[int], visit: Visit
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """``_read`` of the texts of one pass, a tile of the logits at a time."""
    ids = [reading.ids[text] for text in batch]
    sizes = [len(row) for row in ids]
    begins = np.cumsum([0, *sizes[:-1]])
    logits = logits_of(active, [Row(ids=row, reads=np.arange(len(row))) for row in ids])
    next_tokens = send(np.concatenate([np.append(row[1:], row[-1:]) for row in ids]), logits.device)
    places = np.concatenate([reading.places[text] + begin for text, begin in zip(batch, begins, strict=True)])
    stored = np.concatenate([np.arange(reading.starts[text], reading.starts[text + 1]) for text in batch])
    costs, values, height = [], [], max(1, _TILE_NUMBERS // logits.shape[1])
    for start in range(0, sum(sizes), height):
        stop = min(start + height, sum(sizes))
        wide = logits[start:stop].to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(dim=-1)
        costs.append(-wide.gather(1, next_tokens[start:stop, None])[:, 0])
        inside = (places >= start) & (places < stop)
        if inside.any():
            at = send(places[inside] - start, logits.device)
            values.append(visit(wide.index_select(0, at), stored[inside]))
    numbers = fetch(torch.cat([*costs, *values]).double())
    cost, value = numbers[: sum(sizes)].copy(), numbers[sum(sizes) :]
    cost[begins + sizes - 1] = 0.0  # nothing follows the last token
    counts = [len(reading.places[text]) for text in batch]
    means = np.add.reduceat(value, np.cumsum([0, *counts[:-1]])) / counts
    return np.add.reduceat(cost, begins), means
