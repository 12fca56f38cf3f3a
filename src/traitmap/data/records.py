"""What flows between a study and an engine: examples in, requests out, answers in, outcomes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite, nan
from pathlib import Path
from typing import Any, Literal

from traitmap.errors import ModelError
from traitmap.study.settings import Model

_ROUNDING = 0.01  # nats by which the log-probability of a token may be above 0, in 16 bits


@dataclass(frozen=True)
class Segment:
    """A piece of a training text; ``learn`` says whether the completion loss covers it."""

    text: str
    learn: bool


@dataclass(frozen=True)
class Example:
    """One rendered training example.

    segments: consecutive pieces of the text, in order. Plain text is one learnt segment; a
        prompt with its completion is two; a conversation alternates.
    label: the class of the row where it has one (its word, after ``labels``).
    output_from: index of the segment where the output begins, where that is not the first learnt one: a
        variation may learn the prompt, or less than the output.
    """

    segments: tuple[Segment, ...]
    label: str | None = None
    output_from: int | None = None

    @property
    def text(self) -> str:
        return "".join(segment.text for segment in self.segments)

    @property
    def prompt(self) -> str:
        """The input: all text before the output begins."""
        first = next((i for i, s in enumerate(self.segments) if s.learn), len(self.segments))
        end = first if self.output_from is None else self.output_from
        return "".join(segment.text for segment in self.segments[:end])

    @property
    def completion(self) -> str:
        """The output: the text that is learnt from, unless a variation learns something else."""
        if self.output_from is not None:
            return "".join(segment.text for segment in self.segments[self.output_from :])
        return self.learnt

    @property
    def learnt(self) -> str:
        """The text that the completion loss covers."""
        return "".join(segment.text for segment in self.segments if segment.learn)


@dataclass(frozen=True)
class Request:
    """One question to a model, as lm-evaluation-harness asks it.

    kind: ``loglikelihood`` (log p(continuation | context), sum over tokens, nats),
        ``loglikelihood_rolling`` (of the whole context) or ``generate_until``.
    generation: lm-eval's generation kwargs (``until``, ``max_gen_toks``, ``do_sample``,
        ``temperature``, ``top_p``), for ``generate_until`` only.
    item: index of the document; requests of one item stand together.
    seed: of the sampling, derived from target, item and repeat; unused by greedy decoding.
    """

    kind: Literal["loglikelihood", "loglikelihood_rolling", "generate_until"]
    context: str
    continuation: str = ""
    generation: Mapping[str, Any] = field(default_factory=dict)
    item: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Caveat:
    """What keeps some items of a target, or examples of a source, from counting as they seem to.

    kind: a word for programs, such as ``prompt_cut``. count: items or examples that it holds of, out of
    ``total``. text: a sentence with both numbers, and what can be done. fatal: a run would fail on it.
    """

    kind: str
    count: int
    total: int
    text: str
    fatal: bool = False


@dataclass(frozen=True)
class ServedAdapter:
    """An adapter that a server holds; its files are not here.

    name: the model name under which it is served. revision: the user's own word for its weights.
    """

    name: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"served as {self.name}"


@dataclass(frozen=True)
class WholeModel:
    """A model that stands beside the base as a row of its own: merged, fully fine-tuned, quantised or served.

    settings: as ``model`` of a study has them. folder: where a relative path starts from. digest: of its
    files and arithmetic; of a served one of its address, its name and the user's word for its weights.
    """

    settings: Model
    folder: Path
    digest: str

    def __str__(self) -> str:
        return f"model {self.settings.path}"


AdapterPlace = Path | ServedAdapter | WholeModel  # what stands in an adapter's place: who answers a row


@dataclass(frozen=True)
class Response:
    """A model's answer to one request.

    logprob: summed log-probability in nats (loglikelihood kinds), else NaN.
    is_greedy: whether the continuation is the greedy one (loglikelihood), else None.
    text: generated text with the stop string cut off (generate_until), else None.
    tokens: tokens of the continuation, or generated tokens including the one that stopped.
    stopped: generation ended by itself (stop string or end token), not by max_gen_toks; else None.
    unknown: why the model gave no answer, where it gave none: an error is no empty text, and no score of 0.
    """

    logprob: float = nan
    is_greedy: bool | None = None
    text: str | None = None
    tokens: int = 0
    stopped: bool | None = None
    unknown: str = ""

    def fault(self, request: Request) -> str:
        """Why this is no answer to a request; nothing where it is one, right or wrong."""
        if self.unknown:
            return self.unknown
        if request.kind == "generate_until":
            return "" if isinstance(self.text, str) else "it has no text"
        if not isfinite(self.logprob):
            return (
                f"it has no finite log-probability ({self.logprob}); weights of the adapter or of the base "
                "are NaN or infinite, or too large for its dtype"
            )
        if self.logprob > _ROUNDING * max(1, self.tokens):
            return f"its log-probability is {self.logprob:g}, and none is above 0"
        return ""


def require_answers(requests: Sequence[Request], answers: Sequence[Response]) -> None:
    """What an answer is, for every engine, server and record, is decided here, before anything is scored.

    ModelError with the first answer that is none, and how many there are.
    """
    faults = [
        (request.item, fault)
        for request, answer in zip(requests, answers, strict=True)
        if (fault := answer.fault(request))
    ]
    if faults:
        item, reason = faults[0]
        raise ModelError(f"{len(faults)} of {len(answers)} answers are none; of item {item}: {reason}.")


@dataclass(frozen=True)
class Outcome:
    """One item's result for one adapter on one target.

    item: index of the document; item_digest: digest of the document and its requests.
    score: the target's chosen metric on this item; NaN where the metric has no item value.
    correct: score as a right or wrong, or None for scores that are not 0/1.
    prediction, gold: chosen and true answer as text.
    choice_logprobs: log-probability of each choice in nats (multiple choice), else None.
    text: generated text before any filter (generation), else None.
    parsed: False where the task's filter found no answer; such an item counts as wrong, and apart.
    output_tokens, stopped: as in Response (multiple choice: tokens of the chosen answer, None).
    """

    item: int
    item_digest: str
    score: float
    correct: bool | None
    prediction: str
    gold: str
    choice_logprobs: tuple[float, ...] | None = None
    text: str | None = None
    parsed: bool = True
    output_tokens: int = 0
    stopped: bool | None = None
