"""Which examples an adapter sees at which step, and how fast it learns there."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

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
