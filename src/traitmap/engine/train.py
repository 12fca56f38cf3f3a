"""Which examples an adapter sees at which step, and how fast it learns there.

Cross-entropy whose gradient is written over the logits as they are read, in pieces that stay in cache.

Training several adapters in one pass over the frozen base.

Every adapter keeps its own data order, loss normaliser, optimizer state, schedule, clipping and step
count, so its result is that of training it alone, up to rounding. The sum of the adapters' own mean
losses is differentiated; parameters of adapter k occur in its own loss only.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from traitmap.engine.base import Base, plan_passes, recomputed_layers
from traitmap.engine.contract import TrainingJob, TrainingReport
from traitmap.engine.fused import fused_blocks
from traitmap.engine.lora import AdapterWeights, Resident, linear_modules, new_adapter, resident
from traitmap.engine.passes import (
    Row,
    batches_by_owner,
    batches_by_tokens,
    only_at,
    out_of_memory,
    padded_to,
    read_logits,
    read_places,
    read_stream_logits,
    slices_of,
)
from traitmap.engine.tokens import Encoder, TokenizedExample, learnt_positions
from traitmap.errors import EngineError
from traitmap.progress import Listener, Progress
from traitmap.study.paths import digest
from traitmap.study.settings import Training


def batch_schedule(lengths: Sequence[int], training: Training, seed: int) -> list[NDArray[np.int64]]:
    """Indices of the examples of every optimizer step.

    Each epoch is a fresh permutation from a generator of the adapter's own; the last batch of an
    epoch may be smaller. Length: ``max_steps``, or the steps that ``max_tokens`` pays for (at least
    one), or ``num_train_epochs`` (a fraction of an epoch is rounded up to whole steps).
    """
    generator = np.random.default_rng(seed)
    per_epoch = math.ceil(len(lengths) / training.batch_size)
    if training.max_steps is not None:
        steps = training.max_steps
    else:
        epochs = 1.0 if training.num_train_epochs is None else training.num_train_epochs
        steps = math.ceil(epochs * per_epoch)
    spent, schedule = 0, list[NDArray[np.int64]]()
    while True:
        order = generator.permutation(len(lengths))
        for start in range(0, len(order), training.batch_size):
            batch = order[start : start + training.batch_size]
            spent += sum(lengths[index] for index in batch)
            if training.max_tokens is not None:
                if schedule and spent > training.max_tokens:
                    return schedule
            elif len(schedule) == steps:
                return schedule
            schedule.append(batch)


def learning_rate(step: int, total: int, training: Training) -> float:
    """Learning rate of optimizer step ``step`` (from 0), as transformers' schedulers of that name give it."""
    peak, warmup = training.learning_rate, training.warmup_steps
    kind = training.lr_scheduler_type
    if kind == "constant":
        return peak
    if step < warmup:
        return peak * step / max(1, warmup)
    if kind == "constant_with_warmup":
        return peak
    if kind == "linear":
        return peak * max(0.0, (total - step) / max(1, total - warmup))
    progress = (step - warmup) / max(1, total - warmup)
    return peak * max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))


_NUMBERS = 1 << 20  # logits of one piece


def backward_from(
    logits: torch.Tensor, wanted: torch.Tensor, weights: torch.Tensor, *, piece: int = _NUMBERS
) -> torch.Tensor:
    """Differentiate sum_p weights_p * (-log softmax(logits_p)[wanted_p]) and return its terms, (P,).

    logits (P, V) are overwritten: nothing may need them afterwards. The softmax is taken in float32 at
    least, and no second copy of the logits is ever made. piece: logits worked on at a time.
    """
    gradient, terms = logits.detach(), []
    wide = torch.promote_types(logits.dtype, torch.float32)
    weights = weights.to(wide)
    rows = max(1, piece // logits.shape[1])
    with torch.no_grad():
        for start in range(0, len(gradient), rows):
            part, aim = gradient[start : start + rows], wanted[start : start + rows, None]
            weight = weights[start : start + rows, None]
            exact = part.to(wide)
            top, own = exact.amax(dim=1, keepdim=True), exact.gather(1, aim)
            shares = exact.sub(top).exp_()
            total = shares.sum(dim=1, keepdim=True)
            terms.append((total.log() + top - own).mul_(weight).squeeze(1))
            part.copy_(shares.mul_(weight / total).scatter_add_(1, aim, -weight))
    logits.backward(gradient)
    return torch.cat(terms)


@dataclass
class Lane:
    """One adapter on its way: what it still has to see, and how it has fared."""

    job: TrainingJob
    examples: list[TokenizedExample]
    dropped: int
    adapter: AdapterWeights
    schedule: list[NDArray[np.int64]]
    root: int
    losses: list[float] = field(default_factory=list)
    tokens: int = 0
    failure: str | None = None

    @property
    def active(self) -> bool:
        return self.failure is None and len(self.losses) < len(self.schedule)

    @property
    def total_tokens(self) -> int:
        return sum(len(self.examples[i].ids) for batch in self.schedule for i in batch)


def train_group(
    base: Base,
    encoder: Encoder,
    jobs: Sequence[TrainingJob],
    budget: int,
    listener: Listener,
    *,
    checkpointing: bool | None = None,
    last: torch.nn.Module | None = None,
) -> list[Lane]:
    """Train all jobs together; ``budget`` is the number of tokens computed in one pass, at most.

    checkpointing: whether layers are computed twice; by default where memory asks for it.
    last: the last layer's feed-forward block where it may be computed only where logits are read
    (``cached_passes.find_shortcuts``); with dropout or layers computed twice it is computed everywhere.
    """
    lanes = [open_lane(base, encoder, job) for job in jobs]
    goal, started = sum(lane.total_tokens for lane in lanes), time.monotonic()
    passes = _Passes(base, lanes, budget, checkpointing)
    passes.last = None if any(job.lora.lora_dropout for job in jobs) else last
    with fused_blocks(base.model), resident(base.model, [lane.adapter for lane in lanes]) as adapters:
        adapters.training = True
        optimizer = _optimizer(lanes)
        while any(lane.active for lane in lanes):
            _step(base, lanes, adapters, optimizer, passes)
            done = sum(lane.tokens for lane in lanes if lane.failure is None)
            skipped = sum(lane.total_tokens for lane in lanes if lane.failure)
            listener(Progress("train", done + skipped, goal, _detail(lanes, time.monotonic() - started)))
    return lanes


class _Passes:
    """How big passes are and whether layers are computed twice: as planned, less after memory ran out."""

    def __init__(
        self, base: Base, lanes: Sequence[Lane], budget: int, checkpointing: bool | None = None
    ) -> None:
        self.last: torch.nn.Module | None = None
        self.longest = max((len(example.ids) for lane in lanes for example in lane.examples), default=1)
        widest = max((lane.job.lora for lane in lanes), key=lambda lora: lora.r)
        plan = plan_passes(base.model, widest, len(lanes), self.longest, budget)
        self.budget = plan.budget
        self.checkpointing = plan.checkpointing if checkpointing is None else checkpointing

    def shrink(self, error: BaseException) -> None:
        """Halve the passes down to single rows, then compute layers twice, then give up."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if self.budget > self.longest:
            self.budget = max(self.longest, self.budget // 2)
        elif not self.checkpointing:
            self.checkpointing = True
        else:
            raise EngineError(
                f"out of memory: a training row of {self.longest} tokens does not fit beside these adapters; "
                "train fewer of them together, or lower training.max_length."
            ) from MemoryError(str(error))

    def layers(self, model: torch.nn.Module) -> AbstractContextManager[None]:
        return recomputed_layers(model) if self.checkpointing else nullcontext()


def open_lane(base: Base, encoder: Encoder, job: TrainingJob) -> Lane:
    """Tokenize a job, start its adapter, and lay out its steps. All draws are the job's own."""
    limit = min(job.training.max_length, base.max_length)
    tokenized = encoder.examples(job.examples, limit, job.training.loss_on)
    examples = [example for example in tokenized if len(learnt_positions(example))]
    root = int(digest(["adapter", job.seed, job.name])[:12], 16)
    generator = torch.Generator().manual_seed(root)
    adapter = new_adapter(linear_modules(base.model, job.lora.target_modules), job.lora, generator)
    lane = Lane(job, examples, len(tokenized) - len(examples), adapter, [], root)
    if not examples:
        lane.failure = f"no example has a token to learn within max_length {limit}"
        return lane
    lane.schedule = batch_schedule([len(example.ids) for example in examples], job.training, root)
    return lane


def _optimizer(lanes: Sequence[Lane]) -> torch.optim.AdamW:
    """One AdamW, a parameter group of one vector per adapter. It skips vectors without a gradient, so
    that an adapter that sits a step out keeps its state and its step count."""
    return torch.optim.AdamW(
        [
            {
                "params": [lane.adapter.flat],
                "lr": lane.job.training.learning_rate,
                "betas": (lane.job.training.adam_beta1, lane.job.training.adam_beta2),
                "eps": lane.job.training.adam_epsilon,
                "weight_decay": lane.job.training.weight_decay,
            }
            for lane in lanes
        ],
        fused=True,
    )


def _step(
    base: Base,
    lanes: Sequence[Lane],
    adapters: Resident,
    optimizer: torch.optim.AdamW,
    passes: _Passes,
) -> None:
    """One optimizer step of every active adapter; done again in smaller passes if memory runs out."""
    losses, norms = _gradients(base, lanes, adapters, passes)
    if not all(map(math.isfinite, (*losses.values(), *norms.values()))):
        adapters.exact = True  # what is not finite may have come from another adapter's tokens
        losses, norms = _gradients(base, lanes, adapters, passes)
        adapters.exact = False
    for index, loss in losses.items():
        lane = lanes[index]
        rate = learning_rate(len(lane.losses), len(lane.schedule), lane.job.training)
        optimizer.param_groups[index]["lr"] = rate
        _settle(lane, loss, norms[index])
    optimizer.step()
    for lane in lanes:
        lane.adapter.flat.grad = None  # type: ignore[union-attr]
    adapters.refresh()


def _gradients(
    base: Base, lanes: Sequence[Lane], adapters: Resident, passes: _Passes
) -> tuple[dict[int, float], dict[int, float]]:
    """Loss and norm of the gradient of every active adapter, the gradients being in place."""
    losses: dict[int, float] | None = None
    while losses is None:
        for lane in lanes:
            _gradient(lane).zero_()
        adapters.drop()
        try:
            with passes.layers(base.model):
                losses = _accumulate_gradients(base, lanes, adapters, passes)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            passes.shrink(error)
    norms = torch.stack([torch.linalg.vector_norm(_gradient(lanes[index])) for index in losses]).tolist()
    return losses, dict(zip(losses, norms, strict=True))


def _gradient(lane: Lane) -> torch.Tensor:
    assert lane.adapter.gradient is not None
    return lane.adapter.gradient


def _settle(lane: Lane, loss: float, norm: float) -> None:
    """Clip by the adapter's own norm and book its loss; an adapter that diverged is taken out."""
    step = len(lane.losses)
    lane.tokens += sum(len(lane.examples[i].ids) for i in lane.schedule[step])
    lane.losses.append(loss)
    if not (math.isfinite(loss) and math.isfinite(norm)):
        lane.failure = (
            f"diverged at step {step + 1}: loss {loss:.3g}, gradient norm {norm:.3g}; lower learning_rate"
        )
        return
    share = lane.job.training.max_grad_norm / (norm + 1e-6)  # as torch.nn.utils.clip_grad_norm_ has it
    gradient = _gradient(lane)
    lane.adapter.flat.grad = gradient.mul_(share) if share < 1 else gradient  # type: ignore[union-attr]


def _accumulate_gradients(
    base: Base, lanes: Sequence[Lane], adapters: Resident, passes: _Passes
) -> dict[int, float]:
    """Gradients of each active adapter's mean loss over its batch. Returns the losses by lane, in nats."""
    rows, weights, targets = _rows_of_step(lanes)
    losses = {index: 0.0 for index, lane in enumerate(lanes) if lane.active}
    for batch in _batches(base, rows, passes):
        order = sorted(batch, key=lambda i: (rows[i].owner, i))
        chosen = [rows[i] for i in order]
        logits = _logits(base, chosen, adapters, None if passes.checkpointing else passes.last)
        wanted = padded_to(np.concatenate([targets[i] for i in order]), len(logits))
        scale = np.concatenate([np.full(len(rows[i].reads), weights[rows[i].owner]) for i in order])
        meant = np.zeros(len(logits))
        meant[: len(scale)] = scale
        device = logits.device
        nll = backward_from(logits, torch.from_numpy(wanted).to(device), torch.from_numpy(meant).to(device))
        adapters.collect()
        owners = np.concatenate([np.full(len(rows[i].reads), rows[i].owner) for i in order])
        told = nll[: len(scale)].double().cpu().numpy()
        sums = np.bincount(owners, weights=told, minlength=len(lanes))
        for index in losses:
            losses[index] += float(sums[index])
    return losses


def _batches(base: Base, rows: Sequence[Row], passes: _Passes) -> Iterable[list[int]]:
    lengths = [len(row.ids) for row in rows]
    if base.layout == "stream":
        return batches_by_owner([row.owner for row in rows], lengths, passes.budget)
    return batches_by_tokens(lengths, passes.budget, base.layout)


def _logits(
    base: Base, rows: Sequence[Row], adapters: Resident, last: torch.nn.Module | None
) -> torch.Tensor:
    """(P', V) logits at the reads of rows; behind them there may be some that mean nothing."""
    adapters.route_read(())
    if base.layout != "stream":
        return read_logits(base.model, base.layout, rows, adapters)
    if last is None:
        return read_stream_logits(base.model, rows, adapters)
    adapters.route_read(slices_of(rows, [len(row.reads) for row in rows], rounded=True))
    with only_at(last, read_places(rows)):
        return read_stream_logits(base.model, rows, adapters)


def _rows_of_step(lanes: Sequence[Lane]) -> tuple[list[Row], dict[int, float], list[NDArray[np.int64]]]:
    """Rows of every active lane's next batch, each lane's weight 1/tokens, and each row's target ids."""
    rows, targets, weights = list[Row](), list[NDArray[np.int64]](), dict[int, float]()
    for owner, lane in enumerate(lanes):
        if not lane.active:
            continue
        batch = [lane.examples[index] for index in lane.schedule[len(lane.losses)]]
        reads = [learnt_positions(example) for example in batch]
        weights[owner] = 1.0 / sum(len(read) for read in reads)
        first_key = (lane.root + len(lane.losses) * 1_000_003) * 65_537
        for place, (example, read) in enumerate(zip(batch, reads, strict=True)):
            rows.append(Row(ids=example.ids, reads=read, owner=owner, key=first_key + place))
            targets.append(example.ids[read + 1])
    return rows, weights, targets


def _detail(lanes: Sequence[Lane], seconds: float) -> str:
    active = [lane for lane in lanes if lane.active and lane.losses]
    if not active:
        return f"{len(lanes)} adapters trained in {seconds:.0f} s"
    mean = sum(lane.losses[-1] for lane in active) / len(active)
    return f"{len(active)} adapters, mean loss {mean:.3f}"


def report_of(lane: Lane, seconds: float) -> TrainingReport:
    """The record of a lane's training."""
    cut = sum(example.truncated for example in lane.examples) + lane.dropped
    return TrainingReport(
        losses=tuple(lane.losses),
        tokens=lane.tokens,
        examples=len(lane.examples),
        truncated=cut,
        seconds=seconds,
        failure=lane.failure,
    )
