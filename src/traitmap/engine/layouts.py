"""Layouts of rows, each tried on a model before it is trusted, on what it will be used for.

A layout is right where every row gets the logits that it has alone, in one plain pass of the model: two rows
of a batch, choices that hang as branches behind one context, and the same with rows longer than the model's
window of attention. For that the window is made short, since a real one is thousands of tokens long.

Layouts, from the fastest: ``stream`` (rows behind each other, no padding), ``padded`` (rows filled up to the
longest), ``alone`` (one row in a pass). Generation behind transformers' own cache is tried alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from transformers.utils import logging as transformers_logging

from traitmap.engine import attention
from traitmap.engine.attention import attending, narrowed
from traitmap.engine.forward_paths import agrees
from traitmap.engine.passes import PaddedDecoder, Row, read_logits


def choose_layout(model: Any) -> tuple[str, str]:
    """The fastest layout that gives each row the logits that it has alone, and why none faster does."""
    failed = ""
    with torch.no_grad(), _quiet():
        for layout in ("stream", "padded"):
            trouble = _trouble(model, layout)
            if trouble is None:
                return layout, failed
            failed = f"{failed}; {layout}: {trouble}" if failed else f"{layout}: {trouble}"
    return "alone", failed


def _trouble(model: Any, layout: str) -> str | None:
    """What comes out wrong where rows are laid out in this way, or None."""
    draw, vocabulary = np.random.default_rng(0), vocabulary_of(model)
    rows = [draw.integers(0, vocabulary, size) for size in (7, 12)]
    trunk, *branches = (draw.integers(0, vocabulary, size) for size in (9, 4, 3))
    if _differs(model, layout, rows):
        return "rows of a batch do not get the logits that they have alone"
    if layout == "stream" and _branches_differ(model, trunk, branches):
        return "choices behind one context do not get the logits that they have alone"
    with narrowed(model) as windows:
        if windows and _differs(model, layout, rows):
            return f"rows longer than its {windows} come out wrong"
        if windows and layout == "stream" and _branches_differ(model, trunk, branches):
            return f"choices behind a context longer than its {windows} come out wrong"
    return None


def _alone(model: Any, rows: Sequence[np.ndarray]) -> list[torch.Tensor]:
    """(L, V) logits of every row by itself, with the model's own attention."""
    return [read_logits(model, "padded", [Row(ids=ids, reads=np.arange(len(ids)))]).float() for ids in rows]


def _differs(model: Any, layout: str, rows: Sequence[np.ndarray]) -> bool:
    expected = torch.cat(_alone(model, rows))
    together = [Row(ids=ids, reads=np.arange(len(ids))) for ids in rows]
    return not agrees(lambda: _read(model, layout, together), expected, model.dtype)


def _branches_differ(model: Any, trunk: np.ndarray, branches: Sequence[np.ndarray]) -> bool:
    alone = _alone(model, [np.concatenate([trunk, branch]) for branch in branches])
    expected = torch.cat([alone[0][: len(trunk)], *[logits[len(trunk) :] for logits in alone]])
    ids = np.concatenate([trunk, *branches])
    owners = np.repeat(np.arange(len(branches) + 1), [len(trunk), *map(len, branches)])
    row = Row(ids=ids, reads=np.arange(len(ids)), branches=owners)
    return not agrees(lambda: _read(model, "stream", [row]), expected, model.dtype)


def _read(model: Any, layout: str, rows: Sequence[Row]) -> torch.Tensor:
    if layout == "padded":
        return read_logits(model, layout, rows)
    with attending(model, attention.NAME):
        return read_logits(model, layout, rows)


def choose_decoding(model: Any) -> str:
    """How texts may grow: a ``batch`` or ``one`` at a time behind transformers' cache, or ``anew`` without.

    Tried with three prompts of unlike lengths, of which one leaves the batch, and with one prompt; beyond the
    window too, where there is one.
    """
    with torch.no_grad(), _quiet():
        for decoding, count in (("batch", 3), ("one", 1)):
            right = _decodes(model, count)
            with narrowed(model) as windows:
                right = right and (not windows or _decodes(model, count))
            if right:
                return decoding
    return "anew"


def _decodes(model: Any, count: int) -> bool:
    """Whether tokens behind a cache get the logits that they have in a pass over the whole text."""
    draw, steps = np.random.default_rng(0), 4
    texts = [draw.integers(1, vocabulary_of(model), size + steps) for size in (9, 5, 6)[:count]]
    alone = _alone(model, texts)
    expected = [logits[len(logits) - steps - 1 : -1] for logits in alone]

    def grown() -> torch.Tensor:
        decoder = PaddedDecoder(model, [text[:-steps].tolist() for text in texts], 0)
        rows, found = list(range(count)), list[torch.Tensor]()
        for step in range(steps):
            found.append(decoder.logits())
            left = [row for row in rows if step < 2 or row != 1]
            decoder.go_on([int(texts[row][step - steps]) for row in left], [rows.index(row) for row in left])
            rows = left
        return torch.cat(found)

    wanted = [expected[row][step] for step in range(steps) for row in range(count) if step < 3 or row != 1]
    return agrees(grown, torch.stack(wanted), model.dtype)


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
