"""What one training step on one task's texts would do to another task's loss, from the base alone.

A fresh LoRA adapter has B = 0: its output is the base's, A has no gradient, and the gradient of B follows
from the base, the draws of A and the texts. The first step of Adam on a source goes along minus its gradient
divided by the root of its mean square, element by element; how much that lowers a target's loss is, to first
order, the product of that direction with the target's own gradient (LESS, Xia et al. 2024, arXiv 2402.04333,
after Pruthi et al. 2020, arXiv 2002.08484).

Every task's texts are dealt out to a few parts, so that products of parts show how far the texts drawn move
the number. Gradients of large bases are projected (a count sketch: every number is added with a random sign
to one of ``width`` sums), which keeps products up to noise of one over the root of the width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from traitmap.data.records import Example, Request, require_answers
from traitmap.data.texts import TaskText
from traitmap.engine.adapted_modules import linear_modules
from traitmap.engine.attention import layout_attention
from traitmap.engine.device import fetch
from traitmap.engine.local import LocalEngine
from traitmap.engine.lora import new_adapter, resident
from traitmap.engine.passes import Row
from traitmap.engine.tokens import Encoder, learnt_positions
from traitmap.engine.train import differentiate
from traitmap.engine.training_blocks import fused_blocks
from traitmap.errors import ModelError
from traitmap.progress import Listener, Progress, silent
from traitmap.study.settings import Lora, Training

PARTS = 8
WIDTH = 2**17  # sums of a projection; products of unit vectors are off by about 1/sqrt(WIDTH) = .003
_EPSILON = 1e-8  # of Adam
_CHUNK = 2**20  # numbers that are projected at a time


@dataclass(frozen=True)
class Lesson:
    """A loss that can be differentiated: of one training example, or of one item of a target.

    rows: passes over texts; targets, weights: of each read of each row, the token and the weight of its
    negative log-probability. size: what the loss of several lessons is divided by, tokens or items.
    """

    rows: tuple[Row, ...]
    targets: tuple[NDArray[np.int64], ...]
    weights: tuple[NDArray[np.float64], ...]
    size: float


@dataclass(frozen=True)
class Directions:
    """Projected gradients of tasks by name, (parts, width) each.

    steps: of sources, the direction of Adam's first step, minus sign left out; gradients: of targets.
    """

    steps: Mapping[str, NDArray[np.float32]]
    gradients: Mapping[str, NDArray[np.float32]]


def first_directions(
    engine: LocalEngine,
    sources: Mapping[str, tuple[Sequence[Example], Training]],
    targets: Mapping[str, tuple[Sequence[Request], Sequence[TaskText]]],
    lora: Lora,
    *,
    sample: int = 128,
    parts: int = PARTS,
    width: int = WIDTH,
    seed: int = 0,
    listener: Listener = silent,
) -> Directions:
    """Gradients of B at zero: of every source's training loss, and of every target's loss on its items.

    sources: examples and settings of training; targets: requests, and the text of every item with its gold
    answer. At most ``sample`` of each are used, drawn by ``seed``, which also draws A, the same for all.
    A target's loss is minus the log-probability of the gold answer: among its choices where it has some (see
    ``lessons_of_items``), per token where the answer is text. Items without a gold answer are left out; a
    task of which fewer than ``parts`` lessons are left is absent from the result.
    Reports the stage ``forecast`` in tasks. ModelError where answers or gradients of the base are not finite.
    """
    base, draw = engine.base, np.random.default_rng(seed)
    steps, gradients = dict[str, NDArray[np.float32]](), dict[str, NDArray[np.float32]]()
    total = len(sources) + len(targets)

    def gradients_on(name: str, lessons: Sequence[Lesson]) -> list[torch.Tensor]:
        by_part = _gradients(engine, lessons, lora, parts, seed)
        if not all(bool(torch.isfinite(part).all()) for part in by_part):
            raise ModelError(
                f"{base.path}: its gradient on {name!r} is NaN or infinite, and no forecast is made of it; "
                "weights of it are NaN or infinite, or too large for its dtype (model.dtype)."
            )
        return by_part

    for done, (name, (examples, training)) in enumerate(sources.items(), start=1):
        drawn = [examples[i] for i in _drawn(draw, len(examples), sample)]
        lessons = lessons_of_examples(engine.encoder, drawn, training, base.max_length)
        if len(lessons) >= parts:
            by_part = gradients_on(name, lessons)
            spread = torch.stack([part.square() for part in by_part]).mean(0).sqrt_().add_(_EPSILON)
            steps[name] = np.stack([_projected(part / spread, width, seed) for part in by_part])
        listener(Progress("forecast", done, total, name))
    for done, (name, (requests, texts)) in enumerate(targets.items(), start=len(sources) + 1):
        lessons = lessons_of_items(engine, requests, texts, _drawn(draw, len(texts), sample))
        if len(lessons) >= parts:
            by_part = gradients_on(name, lessons)
            gradients[name] = np.stack([_projected(part, width, seed) for part in by_part])
        listener(Progress("forecast", done, total, name))
    return Directions(steps, gradients)


def lessons_of_examples(
    encoder: Encoder, examples: Sequence[Example], training: Training, max_length: int
) -> list[Lesson]:
    """Training examples as they are trained on; those with nothing to learn are left out."""
    limit = min(training.max_length, max_length)
    lessons = []
    for example in encoder.examples(examples, limit, training.loss_on):
        reads = learnt_positions(example)
        if len(reads):
            row = Row(ids=example.ids, reads=reads)
            lessons.append(Lesson((row,), (example.ids[reads + 1],), (np.ones(len(reads)),), len(reads)))
    return lessons


def lessons_of_items(
    engine: LocalEngine, requests: Sequence[Request], texts: Sequence[TaskText], places: Sequence[int]
) -> list[Lesson]:
    """The loss of the items at some places: of the gold answer among the choices, or of its text.

    With choices the loss is -log softmax of their log-probabilities at the gold one, whose derivative by the
    log-probability of choice c is p_c - [c is gold]; p comes from a pass of the base over the requests. Where
    all items share their choices, p is taken with an offset of every choice by which each is expected as
    often as it is right: how often it is said is learnt in a few steps of anything, and says nothing of
    whether items are told apart.
    """
    by_item: dict[int, list[Request]] = {}
    for request in requests:
        by_item.setdefault(request.item, []).append(request)
    in_order = list(by_item.values())
    asked = [(texts[place], in_order[place]) for place in places if texts[place].output]
    free = [(text, of_item[0]) for text, of_item in asked if len(of_item) == 1]
    chosen = [(text, of_item) for text, of_item in asked if len(of_item) > 1 and text.output in text.choices]
    lessons = [
        _lesson(engine.encoder, [_with_gold(request, text)], np.ones(1), per_token=True)
        for text, request in free
    ]
    if chosen:
        asked_of = [request for _, of_item in chosen for request in of_item]
        given = engine.answer(asked_of)
        require_answers(asked_of, given)
        answers = iter(given)
        logprobs = [np.array([next(answers).logprob for _ in of_item]) for _, of_item in chosen]
        golds = [np.array([choice == text.output for choice in text.choices], float) for text, _ in chosen]
        golds = [gold / gold.sum() for gold in golds]
        if len({text.choices for text, _ in chosen}) == 1:
            shares = list(_expected_as_often(np.stack(logprobs), np.stack(golds)))
        else:
            shares = [np.exp(scores - np.logaddexp.reduce(scores)) for scores in logprobs]
        lessons += [
            _lesson(engine.encoder, of_item, gold - share, per_token=False)
            for (_, of_item), gold, share in zip(chosen, golds, shares, strict=True)
        ]
    longest = engine.base.max_length
    return [lesson for lesson in lessons if all(len(row.ids) <= longest for row in lesson.rows)]


def _expected_as_often(logprobs: NDArray[np.float64], gold: NDArray[np.float64]) -> NDArray[np.float64]:
    """(items, choices) softmax of log-probabilities with an offset of each choice by which the mean over the
    items is that of ``gold``; a choice that is never right gets nothing."""
    offset, wanted = np.zeros(logprobs.shape[1]), gold.mean(axis=0)
    for _ in range(1000):
        scores = logprobs + offset
        shares = np.exp(scores - np.logaddexp.reduce(scores, axis=1, keepdims=True))
        step = np.log((wanted + 1e-12) / (shares.mean(axis=0) + 1e-12))
        if np.abs(step).max() < 1e-9:
            break
        offset += step
    return shares


def _with_gold(request: Request, text: TaskText) -> Request:
    """A request for the log-probability of the gold text, behind the prompt of one that generates."""
    if request.kind == "loglikelihood":
        return request
    answer = text.output if text.output[:1].isspace() else f" {text.output}"
    return Request("loglikelihood", request.context, answer, item=request.item)


def _lesson(
    encoder: Encoder, requests: Sequence[Request], weights: NDArray[np.float64], *, per_token: bool
) -> Lesson:
    """Loss of weighted answers: choices of one token behind the same context are read off one row."""
    rows, targets, of_reads = list[Row](), list[NDArray[np.int64]](), list[NDArray[np.float64]]()
    shared: dict[tuple[int, ...], list[tuple[int, float]]] = {}
    for (context, continuation), weight in zip(encoder.continuations(requests), weights, strict=True):
        if len(continuation) == 1:
            shared.setdefault(tuple(context), []).append((continuation[0], float(weight)))
            continue
        ids = np.array([*context, *continuation[:-1]], dtype=np.int64)
        rows.append(Row(ids=ids, reads=np.arange(len(context) - 1, len(ids))))
        targets.append(np.array(continuation, dtype=np.int64))
        of_reads.append(np.full(len(continuation), weight))
    for head, answers in shared.items():
        reads = np.full(len(answers), len(head) - 1)
        rows.append(Row(ids=np.array(head, dtype=np.int64), reads=reads))
        targets.append(np.array([token for token, _ in answers], dtype=np.int64))
        of_reads.append(np.array([weight for _, weight in answers]))
    size = float(sum(map(len, targets))) if per_token else 1.0
    return Lesson(tuple(rows), tuple(targets), tuple(of_reads), size)


def _gradients(
    engine: LocalEngine, lessons: Sequence[Lesson], lora: Lora, parts: int, seed: int
) -> list[torch.Tensor]:
    """The gradient of B, flat, of the mean loss of every part of the lessons."""
    base, found = engine.base, list[torch.Tensor]()
    modules = linear_modules(base.model, lora.target_modules)
    adapter = new_adapter(modules, lora, torch.Generator().manual_seed(seed))
    assert adapter.gradient is not None
    of_a = sum(a.numel() for a in adapter.a.values())
    with (
        layout_attention(base.model, base.layout, base.kernels.attention),
        fused_blocks(base.model),
        resident(base.model, [adapter]) as adapters,
    ):
        adapters.training = True
        for part in range(parts):
            dealt = lessons[part::parts]
            size = sum(lesson.size for lesson in dealt)
            adapter.gradient.zero_()
            adapters.drop()
            differentiate(
                base,
                [row for lesson in dealt for row in lesson.rows],
                [tokens for lesson in dealt for tokens in lesson.targets],
                [weights / size for lesson in dealt for weights in lesson.weights],
                adapters,
                engine.pass_tokens,
            )
            found.append(adapter.gradient[of_a:].clone())
    return found


def _drawn(draw: np.random.Generator, available: int, sample: int) -> list[int]:
    return sorted(draw.permutation(available)[:sample].tolist())


def _projected(vector: torch.Tensor, width: int, seed: int) -> NDArray[np.float32]:
    """(width,) the count sketch of a vector, by the same draws for all; a shorter vector as it is."""
    if len(vector) <= width:
        return fetch(vector.float())
    sums = torch.zeros(width, device=vector.device)
    for number, start in enumerate(range(0, len(vector), _CHUNK)):
        chunk = vector[start : start + _CHUNK].float()
        generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
        places = torch.randint(width, (len(chunk),), generator=generator).to(vector.device)
        signs = torch.randint(2, (len(chunk),), generator=generator).to(chunk).mul_(2).sub_(1)
        sums.index_add_(0, places, chunk * signs)
    return fetch(sums)
