"""What an engine promises. Imports no torch, so that anybody may name an engine.

lm-evaluation-harness's generation settings, read and checked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from traitmap.data.records import AdapterPlace, Caveat, Example, Request, Response
from traitmap.errors import ModelError
from traitmap.progress import Listener, silent
from traitmap.study.settings import Lora, Training


@dataclass(frozen=True)
class TrainingJob:
    """One adapter to train: one source with one seed.

    checkpoints: optimizer steps, rising, after which the adapter is kept as well. until: the last step that
    is taken, of the schedule of the whole training; None: all of them.
    """

    name: str
    seed: int
    examples: tuple[Example, ...]
    lora: Lora
    training: Training
    checkpoints: tuple[int, ...] = ()
    until: int | None = None


@dataclass(frozen=True)
class MergeJob:
    """Adapters to be merged into one, as PEFT's ``add_weighted_adapter`` takes them.

    folders: PEFT directories. weights: of each. method: ``combination_type``. density,
    majority_sign_method: None where the method knows none. seed: of what a method draws
    (``torch.manual_seed``), None where it draws nothing.
    """

    folders: tuple[Path, ...]
    weights: tuple[float, ...]
    method: str
    density: float | None = None
    majority_sign_method: str | None = None
    seed: int | None = None


@dataclass(frozen=True)
class TrainingReport:
    """How one adapter's training went.

    losses: mean loss over the learnt tokens of each optimizer step, nats per token.
    tokens: tokens of data seen; truncated: examples cut at max_length.
    seconds: wall time of the pass, shared by all adapters of the group.
    failure: why there is no adapter, or None.
    checkpoints: step -> tokens of data seen by then, for each checkpoint that was kept.
    """

    losses: tuple[float, ...]
    tokens: int
    examples: int
    truncated: int
    seconds: float
    failure: str | None = None
    checkpoints: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class PassCheckpoint:
    """Where a training pass keeps how far it is, so that one that was killed goes on from there.

    path: of the file, which need not be there. seconds: from one write to the next, at least.
    write: calls a function with the place of a new file, and puts that file in place of the old one, whole
        or not at all; False where the disk has no room, and the pass goes on without.
    tell: gets a line where a pass goes on from the file, or why it begins anew all the same.
    """

    path: Path
    seconds: float
    write: Callable[[Callable[[Path], None]], bool]
    tell: Callable[[str], None]


class Engine(Protocol):
    """A base model that trains adapters and answers requests with and without them.

    A local base, a server, the workers of a cluster and the fake engine of the tests all have these members.
    """

    @property
    def base_digest(self) -> str:
        """Digest of the base's weights, configuration, tokenizer and arithmetic."""

    @property
    def conditions(self) -> Mapping[str, Any]:
        """Versions, device and dtype, for the record."""

    def train(
        self,
        jobs: Sequence[TrainingJob],
        folders: Sequence[Path],
        listener: Listener = silent,
        checkpoint: PassCheckpoint | None = None,
    ) -> list[TrainingReport]:
        """Train all jobs together and write each as a PEFT directory into its (existing, empty) folder.

        A job's result does not depend on the others beyond rounding. Each of its checkpoints goes into
        ``checkpoint_folder`` of its folder. A job that diverges is reported with ``failure`` and leaves no
        adapter but the checkpoints before; the others go on. checkpoint: where the pass keeps how far it is;
        going on from there gives the same bytes. An engine may do without.
        """

    def merge(self, job: MergeJob, folder: Path) -> None:
        """Merge adapters and write the result as a PEFT directory into an existing, empty folder.

        ModelError where they are none of this base, or PEFT does not merge them in this way.
        """

    def largest_group(self, lora: Lora, training: Training) -> int:
        """Adapters with these settings that may be trained together here, at least 1."""

    def answer(
        self,
        requests: Sequence[Request],
        adapter: AdapterPlace | None = None,
        listener: Listener = silent,
    ) -> list[Response]:
        """Answer requests in order, by the base (None), a PEFT adapter directory, or one on a server.

        ModelError for an adapter on a server where the engine is none.
        """

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text."""

    def request_caveats(self, requests: Sequence[Request]) -> tuple[Caveat, ...]:
        """What the base's tokens and length do to the items of one target, such as prompts that are cut.

        Empty where the engine has no tokenizer.
        """

    def example_caveats(self, examples: Sequence[Example], training: Training) -> tuple[Caveat, ...]:
        """What the base's tokens and ``training.max_length`` do to examples, such as answers that are lost.

        Empty where the engine has no tokenizer.
        """

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> str:
        """Text of a conversation under the base's chat template. ModelError where it has none.

        tools: JSON schemas of the tools that the conversation offers, for templates that write them.
        """


def checkpoint_folder(folder: Path, step: int) -> Path:
    """Where in the folder of a job the adapter after some step lies: as transformers' Trainer names it."""
    return folder / f"checkpoint-{step}"


_LEGAL = frozenset({"until", "max_gen_toks", "do_sample", "temperature", "top_p", "top_k"})
_DEFAULT_MAX_GEN_TOKS = 256  # lm-eval's own default


@dataclass(frozen=True)
class Decoding:
    """Settings of one request, normalised as lm-eval normalises them."""

    until: tuple[str, ...]
    max_tokens: int
    sample: bool
    temperature: float
    top_p: float
    top_k: int


def decoding_of(generation: Mapping[str, Any]) -> Decoding:
    """Read lm-eval's generation kwargs. ModelError names a key that is not supported."""
    from lm_eval.models.utils import normalize_gen_kwargs  # takes a second to import

    kwargs = dict(normalize_gen_kwargs(dict(generation), _DEFAULT_MAX_GEN_TOKS))
    unknown = sorted(kwargs.keys() - _LEGAL)
    if unknown:
        raise ModelError(
            f"generation_kwargs: {unknown[0]!r} is not supported; legal: {', '.join(sorted(_LEGAL))}."
        )
    until = kwargs.get("until") or []
    return Decoding(
        until=tuple(term for term in ([until] if isinstance(until, str) else until) if term),
        max_tokens=int(kwargs["max_gen_toks"]),
        sample=bool(kwargs["do_sample"]) and float(kwargs.get("temperature") or 0.0) > 0.0,
        temperature=float(kwargs.get("temperature") or 0.0),
        top_p=float(kwargs.get("top_p", 1.0)),
        top_k=int(kwargs.get("top_k", 0)),
    )
