"""What a token would cost on one 80 GB GPU, reckoned from the size of the base where nothing is measured.

A forward pass takes 2 N floating-point operations per token for a base of N parameters. Training a LoRA
adapter takes 2 N forward, 2 N backward through the frozen weights, which get no gradients of their own, and
6 n for the n parameters of the adapter (Kaplan et al., arXiv 2001.08361, 2020; Hu et al., ICLR 2022). One
step of generation reads all weights and gives a token to each row of the batch. A GPU reaches a share of
its peak.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, nan
from pathlib import Path
from typing import Any

from traitmap.runs.cost import UnitCost
from traitmap.study.paths import model_location
from traitmap.study.settings import Model

PEAK_FLOPS = 989e12  # dense bfloat16 of an H100 SXM
BANDWIDTH = 3.35e12  # bytes per second of its memory
TRAINING_SHARE = 0.3  # of the peak, for short rows of uneven length
SCORING_SHARE = 0.4
READING_SHARE = 0.15  # of the bandwidth: generation step by step is far from it
BATCH_ROWS = 64  # rows that generate together
ANSWER_TOKENS = 200.0  # the paper's adapters: 23 (Goat), 223 (MetaMath), 504 (Magicoder)
WEIGHT_BYTES = 4.0  # of an adapter's parameter, float32
LEAST_PARAMETERS = 2e8  # smaller bases run on a CPU, of which nothing is assumed here

_SIZE = re.compile(r"(?<![A-Za-z0-9.])(\d+(?:\.\d+)?)([BM])(?![A-Za-z0-9])", re.IGNORECASE)
_UNITS = {"b": 1e9, "m": 1e6}


@dataclass(frozen=True)
class BaseShape:
    """parameters: of the base. widths: sum over its linear modules of inputs plus outputs, NaN if unknown."""

    parameters: float
    widths: float = nan


# Gated on the hub, so that its configuration cannot be had without an account.
KNOWN = {"meta-llama/Llama-3.2-3B": BaseShape(3.213e9, 28 * 54_272)}


def shape_of_base(model: Model, folder: Path) -> BaseShape | None:
    """Size of a study's base: known by name, from a configuration here, or as its name tells; else None."""
    if model.path in KNOWN:
        return KNOWN[model.path]
    location = model_location(model.path, folder)
    if isinstance(location, Path) and (location / "config.json").is_file():
        return shape_of(json.loads((location / "config.json").read_bytes()))
    found = _SIZE.search(model.path.split("/")[-1].replace("-", " ").replace("_", " "))
    return BaseShape(float(found[1]) * _UNITS[found[2].lower()]) if found else None


def shape_of(config: Mapping[str, Any]) -> BaseShape | None:
    """Size of a model configured as a Llama is (gated feed-forward, grouped attention), else None."""
    try:
        hidden, inner = int(config["hidden_size"]), int(config["intermediate_size"])
        heads, layers = int(config["num_attention_heads"]), int(config["num_hidden_layers"])
        vocabulary = int(config["vocab_size"])
    except (KeyError, TypeError, ValueError):
        return None
    head = int(config.get("head_dim") or hidden // heads)
    queries, keys = heads * head, int(config.get("num_key_value_heads") or heads) * head
    sizes = [(hidden, queries), (hidden, keys), (hidden, keys), (queries, hidden)]
    sizes += [(hidden, inner), (hidden, inner), (inner, hidden)]
    embeddings = vocabulary * hidden * (1 if config.get("tie_word_embeddings") else 2)
    return BaseShape(
        embeddings + layers * sum(width * height for width, height in sizes),
        layers * sum(width + height for width, height in sizes),
    )


def assumed_cost(shape: BaseShape, rank: int) -> tuple[UnitCost, tuple[str, ...]] | None:
    """Cost of a token on one 80 GB GPU, and the assumption in words; None for a base too small for that.

    rank: of the adapters, on all linear modules.
    """
    if shape.parameters < LEAST_PARAMETERS:
        return None
    adapter = shape.widths * rank if isfinite(shape.widths) else nan
    training = 4 * shape.parameters + (6 * adapter if isfinite(adapter) else 0)
    cost = UnitCost(
        training=TRAINING_SHARE * PEAK_FLOPS / training,
        scoring=SCORING_SHARE * PEAK_FLOPS / (2 * shape.parameters),
        generating=BATCH_ROWS * READING_SHARE * BANDWIDTH / (2 * shape.parameters),
        answer_tokens=ANSWER_TOKENS,
        adapter_bytes=WEIGHT_BYTES * adapter,
        measured=False,
    )
    said = (
        f"assumed: {shape.parameters / 1e9:.2g} billion parameters in bfloat16 on one 80 GB GPU (H100: "
        f"{PEAK_FLOPS / 1e12:.0f} TFLOP/s, {BANDWIDTH / 1e12:.2f} TB/s); {cost.training:,.0f} tokens/s in "
        f"training ({TRAINING_SHARE:.0%} of the peak over 4N+6n operations), {cost.scoring:,.0f} in scoring "
        f"({SCORING_SHARE:.0%} over 2N), "
        f"{cost.generating:,.0f} in generation ({BATCH_ROWS} rows, {READING_SHARE:.0%} of the bandwidth), "
        f"{ANSWER_TOKENS:.0f} tokens an answer."
    )
    return cost, (said,)
