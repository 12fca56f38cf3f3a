"""What a run will cost in time and disk, from counted tokens and what one token costs here.

A token's cost is measured on a few samples of the study, guessed, or, for one 80 GB GPU, computed from the
size of the base. A forward pass takes 2 N floating-point operations per token for a base of N parameters.
Training a LoRA adapter takes 2 N forward, 2 N backward through the frozen weights, which get no gradients
of their own, and 6 n for the n parameters of the adapter (Kaplan et al., arXiv 2001.08361, 2020; Hu et al.,
ICLR 2022). One step of generation reads all weights and gives a token to each row of the batch. A GPU
reaches a share of its peak.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, isfinite, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitmap.data.records import Request
from traitmap.engine.contract import Engine, TrainingJob
from traitmap.runs.plan import AdapterUnit, CellUnit, MergeUnit, trainings
from traitmap.study.paths import model_location
from traitmap.study.settings import Model, Training

if TYPE_CHECKING:
    from traitmap.data.sources import LoadedSource
    from traitmap.data.targets import LoadedTarget


CHARACTERS_PER_TOKEN = 4.0  # English under common tokenizers; used only where nobody counts
ITEM_BYTES = 120.0  # of a cell file per item, beside the texts, compressed

TokenCounts = Callable[[Sequence[str]], Sequence[float]]


@dataclass(frozen=True)
class UnitCost:
    """What this machine does with this base.

    training, scoring, generating: tokens per second. answer_tokens: length of a generated answer.
    adapter_bytes: size of a trained adapter, NaN where unknown. measured: False for the stated guess.
    """

    training: float
    scoring: float
    generating: float
    answer_tokens: float
    adapter_bytes: float
    measured: bool


# A guess for two CPU cores and a base of some million parameters; off by orders of magnitude elsewhere.
ASSUMED = UnitCost(
    training=5e3, scoring=2e4, generating=1e3, answer_tokens=64, adapter_bytes=nan, measured=False
)


@dataclass(frozen=True)
class CostEstimate:
    """Tokens, seconds and bytes of the units that are still to be done. NaN where unknown.

    measured: whether seconds rest on a measurement or on a stated guess.
    """

    training_tokens: float
    scoring_tokens: float
    generated_tokens: float
    seconds: float
    bytes: float
    measured: bool


def rough_token_counts(texts: Sequence[str]) -> list[float]:
    """Tokens of each text, guessed from its characters; one number per text, in order.

    Holds for English under common tokenizers (``CHARACTERS_PER_TOKEN``); an engine's ``token_counts`` counts.
    """
    return [len(text) / CHARACTERS_PER_TOKEN for text in texts]


def training_tokens(lengths: Sequence[float], training: Training) -> float:
    """Tokens of data that one adapter sees in all its steps.

    lengths: (n_examples,) tokens of each example of its source; longer ones are cut at ``max_length``. A
    limit of the settings counts in this order: ``max_tokens``, ``max_steps``, else the epochs (default 1).
    """
    cut = [min(length, training.max_length) for length in lengths]
    if training.max_tokens is not None:
        return float(training.max_tokens)
    if training.max_steps is not None:
        per_epoch = ceil(len(cut) / training.batch_size)
        return training.max_steps * sum(cut) / per_epoch
    return sum(cut) * (1.0 if training.num_train_epochs is None else training.num_train_epochs)


def trained_tokens(units: Sequence[AdapterUnit], source: LoadedSource, token_counts: TokenCounts) -> float:
    """Tokens of data that one training sees, whatever of it is kept.

    units: all that it is to give, of ``source`` or checkpoints of it. Without its end it stops at the last of
    these steps.
    """
    training = source.training
    steps = [unit.step for unit in units if unit.step is not None]
    if len(steps) == len(units):
        update = {**dict.fromkeys(("num_train_epochs", "max_tokens")), "max_steps": max(steps)}
        training = training.model_copy(update=update)
    return training_tokens(token_counts([example.text for example in source.examples]), training)


def estimate(
    *,
    adapters: Sequence[AdapterUnit],
    merges: Sequence[MergeUnit] = (),
    cells: Sequence[CellUnit],
    sources: Sequence[LoadedSource],
    targets: Sequence[LoadedTarget],
    token_counts: TokenCounts = rough_token_counts,
    cost: UnitCost = ASSUMED,
) -> CostEstimate:
    """Cost of some units, e.g. of a plan's ``adapters``, ``merges`` and ``cells``; a merge costs room alone.

    token_counts: an engine's ``token_counts``, or the guess from characters. Answers that are generated
    are taken to be ``cost.answer_tokens`` long, at most the task's own limit.
    """
    by_name = {source.name: source for source in sources}
    lengths: dict[tuple[str, ...], float] = {}  # the same for all seeds
    training = 0.0
    for units in trainings(adapters):
        names = tuple(unit.source for unit in units)
        if names not in lengths:
            lengths[names] = trained_tokens(units, by_name[names[-1]], token_counts)
        training += lengths[names]
    tokens = {target.name: request_tokens(target.requests, token_counts, cost) for target in targets}
    items = {target.name: target.n_items for target in targets}
    scoring = sum(tokens[cell.target][0] for cell in cells)
    generated = sum(tokens[cell.target][1] for cell in cells)
    seconds = training / cost.training + scoring / cost.scoring + generated / cost.generating
    text_bytes = generated * CHARACTERS_PER_TOKEN / 2  # compressed
    weights = (len(adapters) + len(merges)) * cost.adapter_bytes if adapters or merges else 0.0
    disk = weights + text_bytes + ITEM_BYTES * sum(items[cell.target] for cell in cells)
    return CostEstimate(training, scoring, generated, seconds, disk, cost.measured)


def measure_cost(
    engine: Engine, sources: Sequence[LoadedSource], targets: Sequence[LoadedTarget], *, samples: int = 16
) -> UnitCost:
    """Unit cost of an engine here and now, by training on and answering a few samples of the study.

    Each is done twice and the second time counts, since the first one warms up. What the study does not
    do (no source to train, say) keeps the assumed cost.
    """
    training, adapter_bytes = _measure_training(engine, sources, samples)
    requests = [request for target in targets for request in target.requests]
    scored = [request for request in requests if request.kind != "generate_until"][:samples]
    written = [request for request in requests if request.kind == "generate_until"][:samples]
    scoring, generating, length = ASSUMED.scoring, ASSUMED.generating, ASSUMED.answer_tokens
    if scored:
        seconds = _seconds(lambda: engine.answer(scored))
        tokens = sum(engine.token_counts([request.context + request.continuation for request in scored]))
        scoring = tokens / max(seconds, 1e-6)
    if written:
        seconds = _seconds(lambda: engine.answer(written))
        tokens = sum(answer.tokens for answer in engine.answer(written))
        generating, length = max(tokens, 1) / max(seconds, 1e-6), tokens / len(written)
    return UnitCost(training, scoring, generating, length, adapter_bytes, measured=True)


def _measure_training(engine: Engine, sources: Sequence[LoadedSource], samples: int) -> tuple[float, float]:
    source = next((source for source in sources if source.trained), None)
    if source is None:
        return ASSUMED.training, nan
    brief = {"max_steps": 1, "num_train_epochs": None, "max_tokens": None, "batch_size": samples}
    job = TrainingJob(
        name=source.name,
        seed=0,
        examples=source.examples[:samples],
        lora=source.lora,
        training=source.training.model_copy(update=brief),
    )
    for _ in range(2):
        with tempfile.TemporaryDirectory() as folder:
            (report,) = engine.train([job], [Path(folder)])
            size = float(sum(file.stat().st_size for file in Path(folder).iterdir()))
    if report.failure is not None or not report.tokens:
        return ASSUMED.training, nan
    return report.tokens / max(report.seconds, 1e-6), size


def request_tokens(
    requests: Sequence[Request], token_counts: TokenCounts, cost: UnitCost
) -> tuple[float, float]:
    """Tokens to read and tokens to write, of all requests of a target.

    A text that several requests share is counted once by ``token_counts`` and read by each of them. What is
    written is ``cost.answer_tokens`` a request, at most the task's own limit (256 where it has none).
    """
    texts = list(
        dict.fromkeys(text for request in requests for text in (request.context, request.continuation))
    )
    counts = dict(zip(texts, token_counts(texts), strict=True))
    read = sum(counts[request.context] + counts[request.continuation] for request in requests)
    written = sum(
        min(cost.answer_tokens, float(request.generation.get("max_gen_toks") or 256))
        for request in requests
        if request.kind == "generate_until"
    )
    return float(read), float(written)


def _seconds(work: Callable[[], object]) -> float:
    work()
    started = time.monotonic()
    work()
    return time.monotonic() - started


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


# Size of a base: its parameters, and the sum over its linear modules of inputs plus outputs, NaN if unknown.
BaseSize = tuple[float, float]
# Gated on the hub, so that its configuration cannot be had without an account.
KNOWN: dict[str, BaseSize] = {"meta-llama/Llama-3.2-3B": (3.213e9, 28 * 54_272)}


def shape_of_base(model: Model, folder: Path) -> BaseSize | None:
    """Size of a study's base: known by name, from a configuration here, or as its name tells; else None.

    folder: the study's, from which a relative path of the base is seen. A size that is read off a name
    (``7B``, ``160m``) tells parameters alone. Nothing is downloaded.
    """
    if model.path in KNOWN:
        return KNOWN[model.path]
    location = model_location(model.path, folder)
    if isinstance(location, Path) and (location / "config.json").is_file():
        return shape_of(json.loads((location / "config.json").read_bytes()))
    size = _SIZE.search(model.path.split("/")[-1].replace("-", " ").replace("_", " "))
    return (float(size[1]) * _UNITS[size[2].lower()], nan) if size else None


def shape_of(config: Mapping[str, Any]) -> BaseSize | None:
    """Size of a model configured as a Llama is (gated feed-forward, grouped attention), else None.

    config: what a ``config.json`` holds. Embeddings count once where they are tied to the output, else
    twice; normalisations and biases are left out.
    """
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
    return (
        embeddings + layers * sum(width * height for width, height in sizes),
        layers * sum(width + height for width, height in sizes),
    )


def assumed_cost(shape: BaseSize, rank: int) -> tuple[UnitCost, tuple[str, ...]] | None:
    """Cost of a token on one 80 GB GPU, and the assumption in words; None for a base too small for that.

    shape: see ``shape_of``. rank: of the adapters, on all linear modules.
    """
    parameters, widths = shape
    if parameters < LEAST_PARAMETERS:
        return None
    adapter = widths * rank if isfinite(widths) else nan
    training = 4 * parameters + (6 * adapter if isfinite(adapter) else 0)
    cost = UnitCost(
        training=TRAINING_SHARE * PEAK_FLOPS / training,
        scoring=SCORING_SHARE * PEAK_FLOPS / (2 * parameters),
        generating=BATCH_ROWS * READING_SHARE * BANDWIDTH / (2 * parameters),
        answer_tokens=ANSWER_TOKENS,
        adapter_bytes=WEIGHT_BYTES * adapter,
        measured=False,
    )
    description = (
        f"assumed: {parameters / 1e9:.2g} billion parameters in bfloat16 on one 80 GB GPU (H100: "
        f"{PEAK_FLOPS / 1e12:.0f} TFLOP/s, {BANDWIDTH / 1e12:.2f} TB/s); {cost.training:,.0f} tokens/s in "
        f"training ({100 * TRAINING_SHARE:.0f} % of the peak over 4N+6n operations), "
        f"{cost.scoring:,.0f} in scoring "
        f"({100 * SCORING_SHARE:.0f} % over 2N), "
        f"{cost.generating:,.0f} in generation ({BATCH_ROWS} rows, {100 * READING_SHARE:.0f} % of "
        "the bandwidth), "
        f"{ANSWER_TOKENS:.0f} tokens an answer."
    )
    return cost, (description,)
