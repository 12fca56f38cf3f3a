"""A torch-free engine that really learns: naive Bayes on words, kept in a PEFT-shaped directory.

It behaves as the contract says and, within that, as awkwardly as a real engine may: an adapter trained in
another group differs in its last digits, a wild learning rate diverges, a request that is too long fails.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from hashlib import blake2b
from itertools import chain
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from traitmap.data.records import (
    AdapterPlace,
    Caveat,
    Example,
    Request,
    Response,
    ServedAdapter,
    WholeModel,
)
from traitmap.engine.contract import (
    MergeJob,
    PassCheckpoint,
    TrainingJob,
    TrainingReport,
    checkpoint_folder,
)
from traitmap.errors import EngineError, ModelError
from traitmap.progress import Listener, Progress, silent
from traitmap.study.paths import digest
from traitmap.study.settings import Lora, Training

BUCKETS = 4096  # slots of the hashed counts; words that share one are taken for the same word
KEPT_COMPLETIONS = 32  # commonest completions of a training set, the candidates of generation
DROPPED_SHARE = 0.1  # of the examples, drawn anew for each seed, so that seeds differ
_CEILING = 32.0  # above any score, so that scores minus it are negative like log-probabilities
_WEIGHTS, _CONFIG = "adapter_model.safetensors", "adapter_config.json"

Table = NDArray[np.float32]


class FakeEngine:
    """Implements ``engine.contract.Engine``. The same input gives the same bytes, on every machine.

    name: stands for the weights of the base: another name is another base.
    delay: seconds of sleep for each adapter trained and each call of ``answer``.
    log: file that gets one JSON line for each adapter trained and each call of ``answer``.
    longest: words of a request above which ``answer`` raises EngineError, as if memory ran out.
    """

    def __init__(
        self, name: str = "fake", *, delay: float = 0.0, log: Path | None = None, longest: int = 100_000
    ) -> None:
        self.name = name
        self.delay = delay
        self.log = log
        self.longest = longest

    @property
    def base_digest(self) -> str:
        return digest(["fake base", self.name])

    @property
    def conditions(self) -> Mapping[str, Any]:
        return {"engine": "fake", "device": "cpu", "dtype": "float32"}

    def train(
        self,
        jobs: Sequence[TrainingJob],
        folders: Sequence[Path],
        listener: Listener = silent,
        checkpoint: PassCheckpoint | None = None,
    ) -> list[TrainingReport]:
        reports, total = [], float(sum(_words_in_all(job.examples) for job in jobs))
        rounding = 1 + 1e-5 * _uniform("group", *(f"{job.name} {job.seed}" for job in jobs))
        done = 0.0
        for job, folder in zip(jobs, folders, strict=True):
            self._write_log(call="train", source=job.name, seed=job.seed)
            reports.append(self._train_one(job, folder, rounding))
            done += _words_in_all(job.examples)
            listener(Progress("train", done, total, f"{job.name} seed {job.seed}"))
        return reports

    def merge(self, job: MergeJob, folder: Path) -> None:
        """Counts added by weight, whatever the method; who draws leaves words out by the seed."""
        self._write_log(call="merge", adapters=[place.name for place in job.folders])
        parents = [load_counts(place) for place in job.folders]
        merged: dict[str, NDArray[Any]] = {}
        for name in ("prior", "seen", "pair"):
            tables = np.array([parent[name] for parent in parents], dtype=float)
            total = np.tensordot(np.array(job.weights), tables, axes=1)
            if job.seed is not None:
                total *= np.random.default_rng(job.seed).random(BUCKETS) < (job.density or 1.0)
            merged[name] = np.maximum(total, 0).astype(np.float32)
        texts = [text for parent in parents for text in json.loads(parent["completions"].tobytes())]
        raw = json.dumps(list(dict.fromkeys(texts))[:KEPT_COMPLETIONS]).encode()
        merged["completions"] = np.frombuffer(raw, np.uint8)
        config = json.loads((job.folders[0] / _CONFIG).read_text(encoding="utf-8"))
        (folder / _CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")
        save_file(merged, folder / _WEIGHTS, metadata={"format": "np"})

    def largest_group(self, lora: Lora, training: Training) -> int:
        return 64

    def answer(
        self,
        requests: Sequence[Request],
        adapter: AdapterPlace | None = None,
        listener: Listener = silent,
    ) -> list[Response]:
        if isinstance(adapter, ServedAdapter | WholeModel):
            raise ModelError(f"{adapter}: this engine reaches no server or model; give a PEFT directory.")
        self._write_log(call="answer", adapter=adapter.name if adapter else None, requests=len(requests))
        counts = load_counts(adapter) if adapter else None
        time.sleep(self.delay)
        answers = []
        for done, request in enumerate(requests, start=1):
            if len(request.context.split()) > self.longest:
                raise EngineError(f"memory does not hold a request of {len(request.context.split())} words.")
            answers.append(_answer(request, counts, self.name))
            if done % 256 == 0 or done == len(requests):
                listener(Progress("evaluate", done, len(requests)))
        return answers

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def request_caveats(self, requests: Sequence[Request]) -> tuple[Caveat, ...]:
        return ()

    def example_caveats(self, examples: Sequence[Example], training: Training) -> tuple[Caveat, ...]:
        return ()

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> str:
        turns = "".join(f"tool: {tool}\n" for tool in tools)
        turns += "".join(f"{message['role']}: {message['content']}\n" for message in messages)
        return turns + ("assistant:" if add_generation_prompt else "")

    def _train_one(self, job: TrainingJob, folder: Path, rounding: float) -> TrainingReport:
        if job.training.learning_rate > 1:
            why = f"diverged at step 1: learning_rate {job.training.learning_rate:g}; lower learning_rate"
            return TrainingReport((math.inf,), 0, 0, 0, self.delay, why)
        batches = list(_batches(job))[: job.until]
        kept = {step: batches[:step] for step in job.checkpoints if step <= len(batches)}
        for step, so_far in kept.items():
            checkpoint_folder(folder, step).mkdir()
            self._write_adapter(job, so_far, checkpoint_folder(folder, step), rounding)
        self._write_adapter(job, batches, folder, rounding)
        time.sleep(self.delay)
        return TrainingReport(
            losses=tuple(_surprise(batches)),
            tokens=_words_in_all(chain.from_iterable(batches)),
            examples=len(job.examples),
            truncated=0,
            seconds=self.delay,
            checkpoints={step: _words_in_all(chain.from_iterable(so_far)) for step, so_far in kept.items()},
        )

    def _write_adapter(
        self, job: TrainingJob, batches: Sequence[Sequence[Example]], folder: Path, rounding: float
    ) -> None:
        counts = count_words(list(chain.from_iterable(batches)))
        config = {
            "peft_type": "LORA",
            "base_model_name_or_path": self.name,
            "r": job.lora.r,
            "lora_alpha": job.lora.lora_alpha,
            "target_modules": ["words"],
        }
        (folder / _CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")
        scaled = {
            name: (table * rounding).astype(table.dtype) if table.dtype == np.float32 else table
            for name, table in counts.items()
        }
        save_file(scaled, folder / _WEIGHTS, metadata={"format": "np"})

    def _write_log(self, **entry: Any) -> None:
        if self.log is not None:
            with self.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")


def count_words(examples: Sequence[Example]) -> dict[str, NDArray[Any]]:
    """What naive Bayes needs: how often each learnt word occurs, after which words of the prompt.

    prior, seen: (BUCKETS,) examples with that learnt word, with that prompt word.
    pair: (BUCKETS,) examples with both. completions: the commonest learnt texts as UTF-8 JSON.
    """
    prior, seen, pair = (np.zeros(BUCKETS, np.float32) for _ in range(3))
    completions = Counter(example.learnt.strip() for example in examples)
    for example in examples:
        context = sorted(set(example.prompt.split()))
        for word in context:
            seen[_slot(word)] += 1
        for learnt in sorted(set(example.learnt.split())):
            prior[_slot(learnt)] += 1
            for word in context:
                pair[_slot(word, learnt)] += 1
    kept = [text for text, _ in sorted(completions.items(), key=lambda item: (-item[1], item[0]))]
    raw = json.dumps(kept[:KEPT_COMPLETIONS]).encode()
    return {"prior": prior, "seen": seen, "pair": pair, "completions": np.frombuffer(raw, np.uint8)}


def load_counts(adapter: Path) -> dict[str, NDArray[Any]]:
    """The tables of ``count_words`` from an adapter directory. ModelError where they are not there."""
    try:
        return dict(load_file(adapter / _WEIGHTS))
    except (OSError, ValueError) as error:
        raise ModelError(f"{adapter}: cannot be read as an adapter ({error}).") from error


def _batches(job: TrainingJob) -> Iterator[list[Example]]:
    """The examples of each step: at most one epoch, a share of the examples left out by the seed."""
    generator = np.random.default_rng(int(digest([job.name, job.seed], 12), 16))
    order = generator.permutation(len(job.examples))
    kept = [job.examples[i] for i in order if generator.random() >= DROPPED_SHARE]
    training, tokens = job.training, 0
    steps = training.max_steps or math.ceil(len(kept) / training.batch_size)
    for step in range(steps):
        batch = kept[step * training.batch_size : (step + 1) * training.batch_size]
        tokens += _words_in_all(batch)
        if not batch or (step and training.max_tokens is not None and tokens > training.max_tokens):
            return
        yield batch


def _surprise(batches: Sequence[Sequence[Example]]) -> Iterator[float]:
    """Share of each batch's learnt words that no batch before it held: the loss falls as it should."""
    known: set[str] = set()
    for batch in batches:
        words = [word for example in batch for word in example.learnt.split()]
        yield sum(word not in known for word in words) / max(1, len(words))
        known.update(words)


def _answer(request: Request, counts: Mapping[str, NDArray[Any]] | None, base: str) -> Response:
    if request.kind == "generate_until":
        return _generate(request, counts, base)
    words = (request.continuation or request.context).split()
    context = request.context if request.continuation else ""
    logprob = sum((_score(context, word, counts, base) - _CEILING for word in words), 0.0)
    return Response(
        logprob=logprob if words else nan,
        is_greedy=request.continuation.strip() == _best(request.context, counts, base),
        tokens=len(words),
    )


def _generate(request: Request, counts: Mapping[str, NDArray[Any]] | None, base: str) -> Response:
    words = _best(request.context, counts, base).split(" ")
    limit = int(request.generation.get("max_gen_toks", 256))
    text = " ".join(words[:limit])
    until = request.generation.get("until") or []
    for stop in [until] if isinstance(until, str) else until:
        text = text.split(stop)[0] if stop else text
    stopped = len(words) <= limit
    return Response(text=text, tokens=len(text.split()) + int(stopped), stopped=stopped)


def _best(context: str, counts: Mapping[str, NDArray[Any]] | None, base: str) -> str:
    """The learnt completion that fits the context best; the base repeats the last word it read."""
    if counts is None:
        return (context.split() or [""])[-1]
    candidates = json.loads(counts["completions"].tobytes())
    scores = [
        sum(_score(context, word, counts, base) for word in text.split()) / max(1, len(text.split()))
        for text in candidates
    ]
    return str(candidates[int(np.argmax(scores))])


def _score(context: str, word: str, counts: Mapping[str, NDArray[Any]] | None, base: str) -> float:
    """The base's own whim plus what naive Bayes has learnt: log prior and log likelihood ratios, nats."""
    whim = 2.0 * _uniform("whim", base, context[-200:], word)
    if counts is None:
        return whim
    prior: Table = counts["prior"]
    frequency = float(prior[_slot(word)])
    evidence = 0.0
    for other in sorted(set(context.split())):
        if counts["seen"][_slot(other)] > 0:
            together = float(counts["pair"][_slot(other, word)])
            evidence += math.log((together + 0.5) / (frequency + 1.0))
    return whim + math.log(frequency + 1.0) + evidence


def _words_in_all(examples: Iterable[Example]) -> int:
    return sum(len(example.text.split()) for example in examples)


@cache
def _slot(*words: str) -> int:
    return int(_uniform("slot", *words) * BUCKETS)


def _uniform(*words: str) -> float:
    """A number in [0, 1) that depends on nothing but the words."""
    raw = blake2b("\x1f".join(words).encode(), digest_size=6).digest()
    return int.from_bytes(raw, "big") / 2.0**48
