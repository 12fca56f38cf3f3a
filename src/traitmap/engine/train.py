"""Training several adapters in one pass over the frozen base.

Every adapter keeps its own data order, loss normaliser, optimizer state, schedule, clipping and step count,
so its result is that of training it alone, up to rounding. The sum of the adapters' own mean losses is
differentiated; parameters of adapter k occur in its own loss only. A step that memory does not hold is done
again in smaller passes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from traitmap.engine.adapted_modules import linear_modules
from traitmap.engine.base import Base, plan_passes
from traitmap.engine.contract import PassCheckpoint, TrainingJob, TrainingReport
from traitmap.engine.device import fetch, send
from traitmap.engine.lora import AdapterWeights, Resident, new_adapter, resident
from traitmap.engine.pass_state import PassState, read_state, software, write_state
from traitmap.engine.passes import (
    Row,
    batches_by_owner,
    batches_by_tokens,
    on_each_side,
    padded_to,
    read_logits,
    read_stream,
    unless_out_of_memory,
)
from traitmap.engine.tokens import Encoder, TokenizedExample, learnt_positions
from traitmap.engine.training_blocks import fused_blocks, recomputed_layers
from traitmap.errors import EngineError
from traitmap.progress import Listener, Progress
from traitmap.study.paths import digest
from traitmap.study.settings import Training
from traitmap.wording import counted


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


def backward_from(
    logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, *, piece: int = 1 << 20
) -> torch.Tensor:
    """Differentiate sum_p weights_p * (-log softmax(logits_p)[targets_p]) and return its terms, (P,).

    logits (P, V) are overwritten: nothing may need them afterwards. The softmax is taken in float32 at
    least, and no second copy of the logits is ever made. piece: logits worked on at a time, so that they stay
    in the processor's cache.
    """
    gradient, terms = logits.detach(), []
    wide = torch.promote_types(logits.dtype, torch.float32)
    weights = weights.to(wide)
    rows = max(1, piece // logits.shape[1])
    with torch.no_grad():
        for start in range(0, len(gradient), rows):
            part, target = gradient[start : start + rows], targets[start : start + rows, None]
            weight = weights[start : start + rows, None]
            exact = part.to(wide)
            top, score = exact.amax(dim=1, keepdim=True), exact.gather(1, target)
            shares = exact.sub(top).exp_()
            total = shares.sum(dim=1, keepdim=True)
            terms.append((total.log() + top - score).mul_(weight).squeeze(1))
            part.copy_(shares.mul_(weight / total).scatter_add_(1, target, -weight))
    logits.backward(gradient)
    return torch.cat(terms)


@dataclass(frozen=True)
class Checkpoint:
    """An adapter in training as it was after a step: its numbers, (P,), on the host, and tokens seen."""

    flat: NDArray[Any]
    tokens: int


@dataclass
class AdapterTrainingState:
    """One adapter in training: what it still has to see, and the losses so far.

    schedule: indices of the examples of every step. root: seed of all of its draws. dropped: examples without
    a token to learn within the length limit. tokens: of data seen so far. earlier: seconds that processes
    before this one spent on the same pass. kept: step -> the adapter as it was after it.
    """

    job: TrainingJob
    examples: list[TokenizedExample]
    dropped: int
    adapter: AdapterWeights
    schedule: list[NDArray[np.int64]]
    root: int
    losses: list[float] = field(default_factory=list)
    tokens: int = 0
    failure: str | None = None
    earlier: float = 0.0
    kept: dict[int, Checkpoint] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """Steps that are taken: all of the schedule, or those up to ``until``."""
        return min(self.job.until or len(self.schedule), len(self.schedule))

    @property
    def active(self) -> bool:
        return self.failure is None and len(self.losses) < self.steps

    @property
    def total_tokens(self) -> int:
        return sum(len(self.examples[i].ids) for batch in self.schedule[: self.steps] for i in batch)

    @property
    def gradient(self) -> torch.Tensor:
        """The adapter's gradient as one vector."""
        assert self.adapter.gradient is not None
        return self.adapter.gradient

    def report(self, seconds: float) -> TrainingReport:
        """The record of this training, which took ``seconds`` in this process, together with its group."""
        return TrainingReport(
            losses=tuple(self.losses),
            tokens=self.tokens,
            examples=len(self.examples),
            truncated=sum(example.truncated for example in self.examples) + self.dropped,
            seconds=self.earlier + seconds,
            failure=self.failure,
            checkpoints={step: kept.tokens for step, kept in self.kept.items()},
        )


def new_training_state(base: Base, encoder: Encoder, job: TrainingJob) -> AdapterTrainingState:
    """Tokenize a job, initialise its adapter, and lay out its steps. All draws are the job's own."""
    limit = min(job.training.max_length, base.max_length)
    tokenized = encoder.examples(job.examples, limit, job.training.loss_on)
    examples = [example for example in tokenized if len(learnt_positions(example))]
    root = int(digest(["adapter", job.seed, job.name])[:12], 16)
    generator = torch.Generator().manual_seed(root)
    adapter = new_adapter(linear_modules(base.model, job.lora.target_modules), job.lora, generator)
    state = AdapterTrainingState(job, examples, len(tokenized) - len(examples), adapter, [], root)
    if examples:
        state.schedule = batch_schedule([len(example.ids) for example in examples], job.training, root)
    else:
        state.failure = f"no example has a token to learn within max_length {limit}"
    return state


class _Passes:
    """How a step is computed: tokens of a pass, whether layers are computed twice, and the last feed-forward
    block where it is computed at the reads alone. As planned; less after memory ran out."""

    def __init__(
        self,
        base: Base,
        states: Sequence[AdapterTrainingState],
        budget: int,
        checkpointing: bool | None,
        last_mlp: torch.nn.Module | None,
    ) -> None:
        self.longest = max((len(example.ids) for state in states for example in state.examples), default=1)
        widest = max((state.job.lora for state in states), key=lambda lora: lora.r)
        self.budget, planned = plan_passes(base.model, widest, len(states), self.longest, budget, base.memory)
        self.checkpointing = planned if checkpointing is None else checkpointing
        self.last_mlp = None if any(state.job.lora.lora_dropout for state in states) else last_mlp

    def shrink(self) -> None:
        """Halve the passes down to single rows, then compute layers twice, then give up."""
        if self.budget > self.longest:
            self.budget = max(self.longest, self.budget // 2)
        elif not self.checkpointing:
            self.checkpointing = True
        else:
            raise EngineError(
                f"out of memory: a training row of {self.longest} tokens does not fit beside these adapters; "
                "train fewer of them together, or lower training.max_length."
            ) from MemoryError("a pass over one row, layers computed twice")


def train_group(
    base: Base,
    encoder: Encoder,
    jobs: Sequence[TrainingJob],
    budget: int,
    listener: Listener,
    *,
    checkpointing: bool | None = None,
    last_mlp: torch.nn.Module | None = None,
    checkpoint: PassCheckpoint | None = None,
) -> list[AdapterTrainingState]:
    """Train all jobs together; ``budget`` is the number of tokens computed in one pass, at most.

    checkpointing: whether layers are computed twice; by default where memory asks for it.
    last_mlp: the last layer's feed-forward block where it may be computed only where logits are read
    (``forward_paths``); with dropout or layers computed twice it is computed everywhere.
    checkpoint: where the state is kept, and taken up where it is there: between two steps, so that the
    adapters come out the same to the last bit.
    """
    states = [new_training_state(base, encoder, job) for job in jobs]
    total_tokens, started = sum(state.total_tokens for state in states), time.monotonic()
    passes = _Passes(base, states, budget, checkpointing, last_mlp)
    trained = [state.adapter for state in states]
    with (
        fused_blocks(base.model),
        resident(base.model, trained, grouped=base.kernels.grouped) as adapters,
    ):
        adapters.training = True
        # a parameter group of one vector per adapter; AdamW skips vectors without a gradient, so that an
        # adapter that sits a step out keeps its state and its step count
        optimizer = torch.optim.AdamW(
            [
                {
                    "params": [state.adapter.flat],
                    "lr": state.job.training.learning_rate,
                    "betas": (state.job.training.adam_beta1, state.job.training.adam_beta2),
                    "eps": state.job.training.adam_epsilon,
                    "weight_decay": state.job.training.weight_decay,
                }
                for state in states
            ],
            fused=True,
        )
        saved, stamp = time.monotonic(), dict[str, Any]()
        if checkpoint is not None:
            stamp = _stamp(base, states, budget)
            _go_on(checkpoint, stamp, states, adapters, optimizer, passes)
        while any(state.active for state in states):
            _step(base, states, adapters, optimizer, passes)
            if checkpoint is not None and time.monotonic() - saved >= checkpoint.seconds:
                state = _state_of(stamp, states, adapters, optimizer, passes, time.monotonic() - started)
                if not checkpoint.write(partial(write_state, state=state)):
                    checkpoint = None
                saved = time.monotonic()
            done = sum(state.total_tokens if state.failure else state.tokens for state in states)
            detail = _detail(states, time.monotonic() - started)
            listener(Progress("train", done, total_tokens, detail))
    return states


def _stamp(base: Base, states: Sequence[AdapterTrainingState], budget: int) -> dict[str, Any]:
    """What decides the digits of a pass: a state of a pass that differs in it is not gone on from."""
    rows = sha256()
    for state in states:
        for example in state.examples:
            for places in (example.ids, learnt_positions(example)):
                rows.update(f"{len(places)} ".encode() + places.tobytes())
    settings = [
        [
            state.root,
            state.job.lora.model_dump(mode="json"),
            state.job.training.model_dump(mode="json"),
            *(
                [[*state.job.checkpoints, state.job.until]]
                if state.job.checkpoints or state.job.until
                else []
            ),
        ]
        for state in states
    ]
    return {
        "software": software(),
        "base": base.digest[:12],
        "rows": rows.hexdigest()[:12],
        "settings": digest(settings, 12),
        "tokens of a pass": budget,
    }


def _state_of(
    stamp: Mapping[str, Any],
    states: Sequence[AdapterTrainingState],
    adapters: Resident,
    optimizer: torch.optim.AdamW,
    passes: _Passes,
    seconds: float,
) -> PassState:
    """A pass between two steps, after ``seconds`` in this process."""
    tensors = dict[str, NDArray[Any]]()
    for number, state in enumerate(states):
        flat = state.adapter.flat
        assert flat is not None
        tensors[f"{number}.flat"] = fetch(flat)
        for name, moment in optimizer.state.get(flat, {}).items():
            tensors[f"{number}.{name}"] = fetch(moment)
        for step, kept in state.kept.items():
            tensors[f"kept.{number}.{step}"] = kept.flat
    facts = {
        "adapters": [
            {
                "name": f"{state.job.name} seed {state.job.seed}",
                "losses": state.losses,
                "steps": state.steps,
                "tokens": state.tokens,
                "failure": state.failure,
                "kept": {str(step): kept.tokens for step, kept in state.kept.items()},
            }
            for state in states
        ],
        "called": sorted(adapters.called),
        "budget": passes.budget,
        "checkpointing": passes.checkpointing,
        "seconds": max((state.earlier for state in states), default=0.0) + seconds,
    }
    return PassState(stamp, facts, tensors)


def _go_on(
    checkpoint: PassCheckpoint,
    stamp: Mapping[str, Any],
    states: Sequence[AdapterTrainingState],
    adapters: Resident,
    optimizer: torch.optim.AdamW,
    passes: _Passes,
) -> None:
    """Take up the state of a pass that was ended before its time; where it does not fit, say so."""
    try:
        state = read_state(checkpoint.path)
    except FileNotFoundError:
        return
    except ValueError as error:
        checkpoint.tell(f"the state of a training pass is damaged ({error}): the pass begins anew.")
        return
    difference = state.difference(stamp)
    if difference:
        checkpoint.tell(f"the state of a training pass is not used ({difference}): the pass begins anew.")
        return
    facts = state.facts
    for number, (training, before) in enumerate(zip(states, facts["adapters"], strict=True)):
        training.losses, training.tokens = list(before["losses"]), before["tokens"]
        training.failure, training.earlier = before["failure"], facts["seconds"]
        training.kept = {
            int(step): Checkpoint(state.tensors[f"kept.{number}.{step}"], tokens)
            for step, tokens in before["kept"].items()
        }
        flat = training.adapter.flat
        assert flat is not None
        moments = {
            name.partition(".")[2]: send(torch.from_numpy(values), flat.device)
            for name, values in state.tensors.items()
            if name.startswith(f"{number}.")
        }
        with torch.no_grad():
            flat.copy_(moments.pop("flat"))
        if moments:
            optimizer.state[flat] = moments
    adapters.called.update(facts["called"])
    passes.budget, passes.checkpointing = facts["budget"], facts["checkpointing"]
    adapters.refresh()
    steps = [(len(training.losses), training.steps) for training in states]
    done, total = max(steps, key=lambda pair: pair[1])
    checkpoint.tell(
        f"a training pass goes on at step {done + 1} of {total} ({counted(len(states), 'adapter')}): "
        "what an earlier process had trained is kept."
    )


def _step(
    base: Base,
    states: Sequence[AdapterTrainingState],
    adapters: Resident,
    optimizer: torch.optim.AdamW,
    passes: _Passes,
) -> None:
    """One optimizer step of every active adapter, each clipped by its own norm; who diverged is taken out."""
    losses, norms = _gradients(base, states, adapters, passes)
    if not all(map(math.isfinite, (*losses.values(), *norms.values()))):
        adapters.exact = True  # what is not finite may have come from another adapter's tokens
        losses, norms = _gradients(base, states, adapters, passes)
        adapters.exact = False
    for index, loss in losses.items():
        state, norm, step = states[index], norms[index], len(states[index].losses)
        training = state.job.training
        optimizer.param_groups[index]["lr"] = learning_rate(step, len(state.schedule), training)
        state.tokens += sum(len(state.examples[i].ids) for i in state.schedule[step])
        state.losses.append(loss)
        if math.isfinite(loss) and math.isfinite(norm):
            share = training.max_grad_norm / (norm + 1e-6)  # as torch.nn.utils.clip_grad_norm_ has it
            gradient = state.gradient.mul_(share) if share < 1 else state.gradient
            state.adapter.flat.grad = gradient  # type: ignore[union-attr]
        else:
            state.failure = (
                f"diverged at step {step + 1}: loss {loss:.3g}, gradient norm {norm:.3g}; lower learning_rate"
            )
    # as in a loop over parameters, what the model never calls has no gradient and is left alone
    idle = [
        (matrix, matrix.detach().clone())
        for state in states
        for name, matrix in state.adapter.a.items()
        if name not in adapters.called
    ]
    optimizer.step()
    with torch.no_grad():
        for matrix, value in idle:
            matrix.copy_(value)
    for index in losses:
        state = states[index]
        if len(state.losses) in state.job.checkpoints and state.failure is None:
            flat = state.adapter.flat
            assert flat is not None
            # a copy: on a CPU what is fetched shares memory
            state.kept[len(state.losses)] = Checkpoint(np.array(fetch(flat)), state.tokens)
    for state in states:
        state.adapter.flat.grad = None  # type: ignore[union-attr]
    adapters.refresh()


def _gradients(
    base: Base, states: Sequence[AdapterTrainingState], adapters: Resident, passes: _Passes
) -> tuple[dict[int, float], dict[int, float]]:
    """Loss and norm of the gradient of every active adapter, the gradients being in place.

    Waits for the device once.
    """
    found: tuple[NDArray[np.int64], list[torch.Tensor]] | None = None
    while found is None:
        for state in states:
            state.gradient.zero_()
        adapters.drop()
        with recomputed_layers(base.model) if passes.checkpointing else nullcontext():
            found = unless_out_of_memory(_accumulate_gradients, base, states, adapters, passes)
        if found is None:
            passes.shrink()
    owners, terms = found
    active = [index for index, state in enumerate(states) if state.active]
    norms = [torch.linalg.vector_norm(states[index].gradient).double() for index in active]
    numbers = fetch(torch.cat([*terms, torch.stack(norms)]))
    sums = np.bincount(owners, weights=numbers[: len(owners)], minlength=len(states))
    losses = {index: float(sums[index]) for index in active}
    return losses, dict(zip(active, numbers[len(owners) :].tolist(), strict=True))


def _accumulate_gradients(
    base: Base, states: Sequence[AdapterTrainingState], adapters: Resident, passes: _Passes
) -> tuple[NDArray[np.int64], list[torch.Tensor]]:
    """Gradients of each active adapter's mean loss over its batch, in nats.

    Returns the terms of the losses, still on the device, and the adapter of each.
    """
    rows, weights, targets = _rows_of_step(states)
    of_reads = [np.full(len(row.reads), weights[row.owner]) for row in rows]
    last_mlp = None if passes.checkpointing else passes.last_mlp
    return differentiate(base, rows, targets, of_reads, adapters, passes.budget, last_mlp)


def differentiate(
    base: Base,
    rows: Sequence[Row],
    targets: Sequence[NDArray[np.int64]],
    weights: Sequence[NDArray[np.float64]],
    adapters: Resident,
    budget: int,
    last_mlp: torch.nn.Module | None = None,
) -> tuple[NDArray[np.int64], list[torch.Tensor]]:
    """Add the gradients of sum_p weights_p * (-log p(targets_p)) over all reads to those of the adapters.

    rows: any number, in passes of at most ``budget`` tokens. targets, weights: of each row, one for each of
    its reads. Returns the adapter of every term of the sum, and the terms, still on the device.
    """
    owners, terms = list[NDArray[np.int64]](), list[torch.Tensor]()
    lengths = [len(row.ids) for row in rows]
    sides = [list(range(len(rows)))] if base.switch is None else on_each_side(lengths, base.switch)
    batches = list[list[int]]()
    for side in sides:
        sizes = [lengths[i] for i in side]
        if base.layout == "stream":
            places = batches_by_owner([rows[i].owner for i in side], sizes, budget)
        else:
            places = list(batches_by_tokens(sizes, budget, base.layout))
        batches += [[side[place] for place in batch] for batch in places]
    for batch in batches:
        order = sorted(batch, key=lambda i: (rows[i].owner, i))
        batch_rows = [rows[i] for i in order]
        if base.layout == "stream":
            logits = read_stream(base.model, batch_rows, adapters, last_mlp)
        else:
            logits = read_logits(base.model, base.layout, batch_rows, adapters)
        # logits behind the rows' own mean nothing: they get a weight of 0
        read = padded_to(np.concatenate([targets[i] for i in order]), len(logits))
        owner = np.concatenate([np.full(len(row.reads), row.owner) for row in batch_rows])
        scale = np.zeros(len(logits))
        scale[: len(owner)] = np.concatenate([weights[i] for i in order])
        nll = backward_from(logits, send(read, logits.device), send(scale, logits.device))
        adapters.collect()
        owners.append(owner)
        terms.append(nll[: len(owner)].double())
    return np.concatenate(owners), terms


def _rows_of_step(
    states: Sequence[AdapterTrainingState],
) -> tuple[list[Row], dict[int, float], list[NDArray[np.int64]]]:
    """Rows of every active adapter's next batch, weight 1/tokens of each adapter, target ids of each row."""
    rows, targets, weights = list[Row](), list[NDArray[np.int64]](), dict[int, float]()
    for owner, state in enumerate(states):
        if not state.active:
            continue
        batch = [state.examples[index] for index in state.schedule[len(state.losses)]]
        reads = [learnt_positions(example) for example in batch]
        weights[owner] = 1.0 / sum(len(read) for read in reads)
        first_key = (state.root + len(state.losses) * 1_000_003) * 65_537
        for place, (example, read) in enumerate(zip(batch, reads, strict=True)):
            rows.append(Row(ids=example.ids, reads=read, owner=owner, key=first_key + place))
            targets.append(example.ids[read + 1])
    return rows, weights, targets


def _detail(states: Sequence[AdapterTrainingState], seconds: float) -> str:
    active = [state for state in states if state.active and state.losses]
    if not active:
        return f"{len(states)} adapters trained in {seconds:.0f} s"
    mean = sum(state.losses[-1] for state in active) / len(active)
    return f"{len(active)} adapters, mean loss {mean:.3f}"
