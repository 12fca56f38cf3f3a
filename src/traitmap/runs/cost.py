"""What a run will cost in time and disk, from counted tokens and what one token costs here."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, nan
from pathlib import Path
from typing import TYPE_CHECKING

from traitmap.data.records import Request
from traitmap.engine.contract import Engine, TrainingJob
from traitmap.runs.plan import AdapterUnit, CellUnit
from traitmap.study.settings import Training

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
class Estimate:
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
    """Tokens of each text, guessed from its characters."""
    return [len(text) / CHARACTERS_PER_TOKEN for text in texts]


def training_tokens(lengths: Sequence[float], training: Training) -> float:
    """Tokens of data that one adapter sees, given the tokens of each example of its source."""
    cut = [min(length, training.max_length) for length in lengths]
    if training.max_tokens is not None:
        return float(training.max_tokens)
    if training.max_steps is not None:
        per_epoch = ceil(len(cut) / training.batch_size)
        return training.max_steps * sum(cut) / per_epoch
    return sum(cut) * (1.0 if training.num_train_epochs is None else training.num_train_epochs)


def estimate(
    *,
    adapters: Sequence[AdapterUnit],
    cells: Sequence[CellUnit],
    sources: Sequence[LoadedSource],
    targets: Sequence[LoadedTarget],
    token_counts: TokenCounts = rough_token_counts,
    cost: UnitCost = ASSUMED,
) -> Estimate:
    """Cost of some units, e.g. of a plan's ``adapters`` and ``cells``.

    token_counts: an engine's ``token_counts``, or the guess from characters. Answers that are generated
    are taken to be ``cost.answer_tokens`` long, at most the task's own limit.
    """
    trained = {unit.source for unit in adapters}
    lengths = {
        source.name: training_tokens(token_counts([one.text for one in source.examples]), source.training)
        for source in sources
        if source.name in trained
    }
    asked = {target.name: request_tokens(target.requests, token_counts, cost) for target in targets}
    items = {target.name: target.n_items for target in targets}
    training = sum(lengths[unit.source] for unit in adapters)
    scoring = sum(asked[cell.target][0] for cell in cells)
    generated = sum(asked[cell.target][1] for cell in cells)
    seconds = training / cost.training + scoring / cost.scoring + generated / cost.generating
    text_bytes = generated * CHARACTERS_PER_TOKEN / 2  # compressed
    weights = len(adapters) * cost.adapter_bytes if adapters else 0.0
    disk = weights + text_bytes + ITEM_BYTES * sum(items[cell.target] for cell in cells)
    return Estimate(training, scoring, generated, seconds, disk, cost.measured)


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
        tokens = sum(engine.token_counts([one.context + one.continuation for one in scored]))
        scoring = tokens / max(seconds, 1e-6)
    if written:
        seconds = _seconds(lambda: engine.answer(written))
        tokens = sum(answer.tokens for answer in engine.answer(written))
        generating, length = max(tokens, 1) / max(seconds, 1e-6), tokens / len(written)
    return UnitCost(training, scoring, generating, length, adapter_bytes, measured=True)


def _measure_training(engine: Engine, sources: Sequence[LoadedSource], samples: int) -> tuple[float, float]:
    source = next((source for source in sources if source.adapter is None), None)
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
    """Tokens to read and tokens to write, of all requests of a target."""
    texts = list(dict.fromkeys(text for one in requests for text in (one.context, one.continuation)))
    counts = dict(zip(texts, token_counts(texts), strict=True))
    read = sum(counts[one.context] + counts[one.continuation] for one in requests)
    written = sum(
        min(cost.answer_tokens, float(one.generation.get("max_gen_toks") or 256))
        for one in requests
        if one.kind == "generate_until"
    )
    return float(read), float(written)


def _seconds(work: Callable[[], object]) -> float:
    work()
    started = time.monotonic()
    work()
    return time.monotonic() - started
