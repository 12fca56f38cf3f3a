"""How long the inputs and outputs of a dataset are, all together and by class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import numpy as np
from scipy.stats import wasserstein_distance

from traitmap.data.texts import TaskText
from traitmap.errors import DataError
from traitmap.matrix_record import Array

TokenCounts = Callable[[Sequence[str]], Sequence[int]]
Unit = Literal["tokens", "words", "characters"]


@dataclass(frozen=True)
class Distribution:
    """A sample of numbers in short.

    n: how many. mean, sd: in the sample's unit; sd divides by n - 1 and is NaN for one number.
    percentiles: (101,) from the 0th (least) to the 100th (most), linear between order statistics;
    NaN where n is 0, and reason says why.
    """

    n: int
    mean: float
    sd: float
    percentiles: Array
    reason: str = ""

    @property
    def median(self) -> float:
        return float(self.percentiles[50])


@dataclass(frozen=True)
class Lengths:
    """Lengths of inputs and outputs.

    unit: ``tokens`` of the base's tokenizer where one was given, else ``words`` between spaces.
    input, output: in that unit. input_characters, output_characters: in characters.
    output_by_label: output lengths of each class. Texts without an output (unknown gold) are left out
    of the output's lengths, and ``n`` tells how many there were.
    """

    unit: Unit
    input: Distribution
    output: Distribution
    input_characters: Distribution
    output_characters: Distribution
    output_by_label: Mapping[str, Distribution] = field(default_factory=lambda: MappingProxyType({}))
    input_by_label: Mapping[str, Distribution] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class Measured:
    """Lengths of single texts, in the order of the texts; output NaN where there is no output."""

    unit: Unit
    input: Array
    output: Array
    input_characters: Array
    output_characters: Array

    @property
    def known_output(self) -> Array:
        return self.output[np.isfinite(self.output)]


def distribution_of(values: Array, reason: str = "there is no text to measure") -> Distribution:
    """The distribution of finite numbers; ``reason`` is told where there are none."""
    ordered = np.sort(np.asarray(values, dtype=float))
    if not len(ordered):
        return Distribution(0, float("nan"), float("nan"), np.full(101, np.nan), reason)
    sd = float(ordered.std(ddof=1)) if len(ordered) > 1 else float("nan")
    percentiles = np.percentile(ordered, np.arange(101))
    return Distribution(len(ordered), float(ordered.mean()), sd, percentiles)


def measure(texts: Sequence[TaskText], token_counts: TokenCounts | None = None) -> Measured:
    """Length of each text. Raises DataError where ``token_counts`` gives another number of counts."""
    inputs, outputs = [text.input for text in texts], [text.output for text in texts]
    known = np.array([bool(output) for output in outputs], dtype=bool)

    def masked(counts: Array) -> Array:
        return np.where(known, counts, np.nan)

    if token_counts is None:
        sizes = [np.array([len(one.split()) for one in side], dtype=float) for side in (inputs, outputs)]
        unit: Unit = "words"
    else:
        sizes = [_counted(token_counts, side) for side in (inputs, outputs)]
        unit = "tokens"
    characters = [np.array([len(one) for one in side], dtype=float) for side in (inputs, outputs)]
    return Measured(unit, sizes[0], masked(sizes[1]), characters[0], masked(characters[1]))


def lengths_of(measured: Measured, labels: Sequence[str | None]) -> Lengths:
    """The distributions of measured texts; ``labels``: their classes, None where unknown."""
    no_output = "no text has an output"
    outputs, inputs = {}, {}
    for label in sorted({label for label in labels if label is not None}):
        here = np.array([one == label for one in labels], dtype=bool)
        inputs[label] = distribution_of(measured.input[here])
        outputs[label] = distribution_of(_finite(measured.output[here]), no_output)
    return Lengths(
        unit=measured.unit,
        input=distribution_of(measured.input),
        output=distribution_of(measured.known_output, no_output),
        input_characters=distribution_of(measured.input_characters),
        output_characters=distribution_of(_finite(measured.output_characters), no_output),
        output_by_label=MappingProxyType(outputs),
        input_by_label=MappingProxyType(inputs),
    )


def mean_text_length(measured: Measured) -> float:
    """Mean length of input and output together, in the measured unit."""
    return float((measured.input + np.nan_to_num(measured.output)).mean())


def wasserstein(first: Array, second: Array) -> float:
    """First Wasserstein distance of two samples in their unit; NaN where either is empty."""
    if not len(first) or not len(second):
        return float("nan")
    return float(wasserstein_distance(first, second))


def _finite(values: Array) -> Array:
    return values[np.isfinite(values)]


def _counted(token_counts: TokenCounts, texts: Sequence[str]) -> Array:
    counts = np.asarray(token_counts(texts), dtype=float)
    if counts.shape != (len(texts),):
        raise DataError(
            f"token_counts gave {counts.shape} counts for {len(texts)} texts; give one number for each"
        )
    return counts
