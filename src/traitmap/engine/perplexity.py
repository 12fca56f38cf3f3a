"""How much a text surprises the base model: perplexity of input, of output given input, and of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import exp, log, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from traitmap.data.records import Request, Response
from traitmap.data.texts import TaskText, Texts
from traitmap.engine.contract import Engine
from traitmap.jsonable import jsonable
from traitmap.progress import Listener, Progress, silent

SAMPLE = 200
PIECE = 256  # tokens; a base scores no more at once than its own length


@dataclass(frozen=True)
class Surprise:
    """What the base makes of one kind of text, over all its tokens.

    nats_per_token: minus the mean log-probability of a token, with a 95 % interval over texts (ratio
        estimator, W. G. Cochran, Sampling Techniques, 3rd edition, section 6.4). bits_per_byte: the same
        in a unit that does not depend on the tokenizer, bytes of UTF-8. texts: texts scored; tokens: of
        them. NaN where there is no such text; an interval needs two.
    """

    nats_per_token: float
    low: float
    high: float
    bits_per_byte: float
    bits_low: float
    bits_high: float
    texts: int
    tokens: int

    @property
    def perplexity(self) -> float:
        """``exp(nats_per_token)``: among how many tokens the base is undecided, as it were."""
        return exp(self.nats_per_token)


@dataclass(frozen=True)
class BasePerplexity:
    """The base's perplexity on one dataset: of inputs, of outputs given their inputs, of both together.

    n: texts drawn; available: texts there were.
    """

    n: int
    available: int
    input: Surprise
    output: Surprise
    text: Surprise

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data; unknown numbers are null."""
        record: dict[str, Any] = {"n": self.n, "available": self.available}
        for name, part in (("input", self.input), ("output", self.output), ("text", self.text)):
            record[name] = jsonable({**asdict(part), "perplexity": part.perplexity})
        return record


def base_perplexity(
    engine: Engine,
    texts: Texts,
    *,
    sample: int | None = SAMPLE,
    seed: int = 0,
    piece: int = PIECE,
    listener: Listener = silent,
) -> dict[str, BasePerplexity]:
    """Perplexity of the base without any adapter on texts by name.

    sample: texts of each dataset, drawn by ``seed`` where it has more; None takes all. Inputs are scored
    whole (``loglikelihood_rolling``), outputs behind their inputs (``loglikelihood``). An output of more than
    ``piece`` tokens is scored in pieces, each behind all before it: the same number, but for tokens at the
    cuts, and for what a base forgets that cannot read so far back.
    Reports the stage ``perplexity`` in requests.
    """
    drawn = dict(texts)
    for name, available in texts.items():
        if sample is not None and len(available) > sample:
            indices = np.sort(np.random.default_rng(seed).choice(len(available), sample, replace=False))
            drawn[name] = [available[index] for index in indices]
    by_dataset = [_requests(engine, sampled, piece) for sampled in drawn.values()]
    requests = [request for of_dataset in by_dataset for request in of_dataset]
    answers = engine.answer(
        requests,
        None,
        lambda report: listener(Progress("perplexity", report.done, report.total, report.detail)),
    )
    perplexities, start = {}, 0
    for (name, sampled), of_dataset in zip(drawn.items(), by_dataset, strict=True):
        stop = start + len(of_dataset)
        perplexities[name] = _measured(sampled, of_dataset, answers[start:stop], len(texts[name]))
        start = stop
    return perplexities


def _requests(engine: Engine, texts: Sequence[TaskText], most: int) -> list[Request]:
    """Requests of every text, ``item`` being its index. Empty parts ask nothing."""
    counts = engine.token_counts([text.output for text in texts])
    requests = []
    for item, (text, tokens) in enumerate(zip(texts, counts, strict=True)):
        if text.input.strip():
            requests.append(Request("loglikelihood_rolling", text.input, item=item))
        before = text.input
        count = 1 + (tokens - 1) // most
        for piece in _pieces(text.output, count) if text.output.strip() else ():
            requests.append(Request("loglikelihood", before, piece, item=item))
            before += piece
    return requests


def _pieces(text: str, count: int) -> list[str]:
    """About ``count`` pieces of equal length that begin at a space where there is one."""
    size = -(-len(text) // max(1, count))
    pieces, start = [], 0
    while start < len(text):
        end = start + size
        if end < len(text):
            space = text.rfind(" ", start + size // 2, end)
            end = space if space > start else end
        pieces.append(text[start:end])
        start = end
    return pieces


def _measured(
    texts: Sequence[TaskText], requests: Sequence[Request], answers: Sequence[Response], available: int
) -> BasePerplexity:
    nats, tokens, sizes = np.zeros((2, len(texts))), np.zeros((2, len(texts))), np.zeros((2, len(texts)))
    for request, answer in zip(requests, answers, strict=True):
        part = 0 if request.kind == "loglikelihood_rolling" else 1
        nats[part, request.item] -= answer.logprob
        tokens[part, request.item] += answer.tokens
        sizes[part, request.item] += len((request.continuation or request.context).encode())
    return BasePerplexity(
        n=len(texts),
        available=available,
        input=_surprise(nats[0], tokens[0], sizes[0]),
        output=_surprise(nats[1], tokens[1], sizes[1]),
        text=_surprise(nats.sum(axis=0), tokens.sum(axis=0), sizes.sum(axis=0)),
    )


def _surprise(nats: NDArray[np.float64], tokens: NDArray[np.float64], sizes: NDArray[np.float64]) -> Surprise:
    scored = tokens > 0
    per_token = ratio_interval(nats[scored], tokens[scored])
    bits = ratio_interval(nats[scored] / log(2), sizes[scored])
    return Surprise(*per_token, *bits, int(scored.sum()), int(tokens.sum()))


def ratio_interval(
    numerator: NDArray[np.float64], denominator: NDArray[np.float64]
) -> tuple[float, float, float]:
    """Ratio of sums of (N,) with its 95 % interval over N texts (Cochran, Sampling Techniques, 6.4).

    NaN where there is no text or a number is not finite; the interval needs two texts.
    """
    n = len(numerator)
    if not n or not np.isfinite(numerator).all():
        return nan, nan, nan
    ratio = float(numerator.sum() / denominator.sum())
    if n < 2:
        return ratio, nan, nan
    residuals = numerator - ratio * denominator
    error = np.sqrt((residuals**2).sum() / (n - 1) / n) / denominator.mean()
    half = float(stats.t.ppf(0.975, n - 1) * error)
    return ratio, ratio - half, ratio + half


@dataclass(frozen=True)
class TextDrift:
    """How far a model is from its base on N texts, (N,) arrays.

    tokens: predicted tokens of each text. before, after: what they cost the base and the model, minus their
    log-probability in nats, summed over tokens. kl: KL(model || base) of the next-token distributions, nats,
    mean over the places of a text that were compared. NaN where they are not known, and ``unknown`` says why.
    """

    tokens: NDArray[np.int64]
    before: NDArray[np.float64]
    after: NDArray[np.float64]
    kl: NDArray[np.float64]
    unknown: str = ""

    @property
    def forgetting(self) -> tuple[float, float, float]:
        """Cross-entropy of the model less that of its base, nats per token, with its 95 % interval over
        texts; above 0 the model predicts these texts worse than its base does."""
        scored = self.tokens > 0
        return ratio_interval((self.after - self.before)[scored], self.tokens[scored].astype(float))

    @property
    def divergence(self) -> tuple[float, float, float]:
        """Mean of ``kl`` over texts with its 95 % interval; 0 where the model is its base."""
        return ratio_interval(self.kl, np.ones(len(self.kl)))
