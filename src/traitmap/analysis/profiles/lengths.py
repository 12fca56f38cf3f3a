"""Lengths of texts: distributions of inputs and outputs, and distances between two samples of lengths.

Every distance stands beside what it would be without a difference: for two answers to the same items their
sides are exchanged, for independent samples the null is that of large samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import nan, sqrt
from types import MappingProxyType
from typing import Literal

import numpy as np
from scipy import stats

from traitmap.data.texts import TaskText
from traitmap.errors import DataError
from traitmap.matrix.record import Array
from traitmap.matrix.statistics import item_signs

TokenCounts = Callable[[Sequence[str]], Sequence[int]]
Unit = Literal["tokens", "words", "characters"]

DRAWS = 999
GRID = 128  # lengths at which the two distributions are compared under the null


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


def distribution_of(values: Array, reason: str = "there is no text to measure") -> Distribution:
    """The distribution of finite numbers; ``reason`` is told where there are none.

    values: (n,) in any unit. A sample of one has no standard deviation (NaN).
    """
    ordered = np.sort(np.asarray(values, dtype=float))
    if not len(ordered):
        return Distribution(0, float("nan"), float("nan"), np.full(101, np.nan), reason)
    sd = float(ordered.std(ddof=1)) if len(ordered) > 1 else float("nan")
    percentiles = np.percentile(ordered, np.arange(101))
    return Distribution(len(ordered), float(ordered.mean()), sd, percentiles)


def measure(texts: Sequence[TaskText], token_counts: TokenCounts | None = None) -> dict[str, Array]:
    """Length of each text's input and output, in tokens (of ``token_counts``), else in words, and characters.

    Gives ``input``, ``output``, ``input_characters`` and ``output_characters``, each (n,) in the order of the
    texts; output is NaN where there is none. Raises DataError where ``token_counts`` gives another number of
    counts than of texts.
    """
    inputs, outputs = [text.input for text in texts], [text.output for text in texts]
    known = np.array([bool(output) for output in outputs], dtype=bool)

    def masked(counts: Array) -> Array:
        return np.where(known, counts, np.nan)

    def sizes_of(side: Sequence[str]) -> Array:
        if token_counts is None:
            return np.array([len(text.split()) for text in side], dtype=float)
        counts = np.asarray(token_counts(side), dtype=float)
        if counts.shape != (len(side),):
            raise DataError(
                f"token_counts gave {counts.shape} counts for {len(side)} texts; give one number for each"
            )
        return counts

    characters = [np.array([len(text) for text in side], dtype=float) for side in (inputs, outputs)]
    return {
        "input": sizes_of(inputs),
        "output": masked(sizes_of(outputs)),
        "input_characters": characters[0],
        "output_characters": masked(characters[1]),
    }


def lengths_of(measured: Mapping[str, Array], labels: Sequence[str | None], unit: Unit = "words") -> Lengths:
    """The distributions of measured texts, all together and by class.

    measured: lengths of single texts, of ``measure``. labels: the class of each text, None where unknown.
    unit: of the lengths that are not in characters.
    """
    no_output = "no text has an output"
    outputs, inputs = {}, {}
    for label in sorted({label for label in labels if label is not None}):
        member = np.array([text_label == label for text_label in labels], dtype=bool)
        inputs[label] = distribution_of(measured["input"][member])
        outputs[label] = distribution_of(finite(measured["output"][member]), no_output)
    return Lengths(
        unit=unit,
        input=distribution_of(measured["input"]),
        output=distribution_of(finite(measured["output"]), no_output),
        input_characters=distribution_of(measured["input_characters"]),
        output_characters=distribution_of(finite(measured["output_characters"]), no_output),
        output_by_label=MappingProxyType(outputs),
        input_by_label=MappingProxyType(inputs),
    )


def mean_text_length(measured: Mapping[str, Array]) -> float:
    """Mean length of input and output together, in the measured unit."""
    return float((measured["input"] + np.nan_to_num(measured["output"])).mean())


def wasserstein(first: Array, second: Array) -> float:
    """First Wasserstein distance of two samples in their unit; NaN where either is empty.

    Samples (n,) and (m,): the mean distance by which one must be moved to become the other.
    """
    if not len(first) or not len(second):
        return float("nan")
    return float(stats.wasserstein_distance(first, second))


def finite(values: Array) -> Array:
    """(m,) the known ones of values (n,), in their order."""
    return values[np.isfinite(values)]


@dataclass(frozen=True)
class LengthDistance:
    """How far two distributions of lengths lie apart.

    wasserstein: mean length by which one must be moved to become the other, in the unit of the lengths.
    kolmogorov_smirnov: largest difference of the shares below any one length, 0 to 1.
    null_wasserstein, null_kolmogorov_smirnov: their 95th percentile where there is no difference.
    p_wasserstein, p_kolmogorov_smirnov: of so large a distance then; never below 1 / 1000.
    """

    wasserstein: float
    kolmogorov_smirnov: float
    null_wasserstein: float
    null_kolmogorov_smirnov: float
    p_wasserstein: float
    p_kolmogorov_smirnov: float

    @property
    def known(self) -> bool:
        return bool(np.isfinite(self.wasserstein))


UNKNOWN = LengthDistance(nan, nan, nan, nan, nan, nan)


def paired_distance(first: Array, second: Array, *, seed: int = 0) -> LengthDistance:
    """Lengths (S, n) of an adapter's outputs against (n,) on the same items.

    Null: the two sides of an item are exchanged at random, all seeds together.
    """
    if not first.size or not (np.isfinite(first).all() and np.isfinite(second).all()):
        return UNKNOWN
    grid = _grid(np.concatenate([first.ravel(), second]))
    below = (first[:, :, None] <= grid).mean(axis=0) - (second[:, None] <= grid)
    signs = item_signs(len(second), DRAWS, seed)
    null = np.asarray(signs @ below.astype(np.float32), dtype=float) / len(second)
    return _against_null(first.ravel(), second, grid, below.mean(axis=0), null)


def sample_distance(first: Array, second: Array, *, seed: int = 0) -> LengthDistance:
    """Lengths (S, n) or (n,) of outputs against an independent sample (m,), such as a source's own outputs.

    Null: the permutation distribution for large samples, a Brownian bridge over the pooled distribution
    (A. W. van der Vaart and J. A. Wellner, Weak Convergence and Empirical Processes, 1996, section 3.7).
    Seeds answer the same items: they count as n lengths, not as S n.
    """
    first = np.atleast_2d(first)
    if not first.size or not len(second) or not (np.isfinite(first).all() and np.isfinite(second).all()):
        return UNKNOWN
    grid = _grid(np.concatenate([first.ravel(), second]))
    below, below_second = _shares(first.ravel(), grid), _shares(second, grid)
    n, m = first.shape[1], len(second)
    pooled = (n * below + m * below_second) / (n + m)
    walk = np.cumsum(_normals(seed)[:, : len(grid)] * np.sqrt(np.diff(pooled, prepend=0.0)), axis=1)
    null = (walk - pooled * walk[:, -1:]) * sqrt(1 / n + 1 / m)
    return _against_null(first.ravel(), second, grid, below - below_second, null)


def _against_null(first: Array, second: Array, grid: Array, difference: Array, null: Array) -> LengthDistance:
    """Distances of two samples, with null: (draws, G) differences of their shares below each of G lengths."""
    widths = np.diff(grid, append=grid[-1])
    observed = float(np.abs(difference) @ widths), float(np.abs(difference).max())
    nulls = np.abs(null) @ widths, np.abs(null).max(axis=1)
    p = [
        (1 + (drawn >= distance * (1 - 1e-6)).sum()) / (1 + len(drawn))
        for distance, drawn in zip(observed, nulls, strict=True)
    ]
    return LengthDistance(
        wasserstein=float(stats.wasserstein_distance(first, second)),
        kolmogorov_smirnov=float(stats.ks_2samp(first, second, method="asymp").statistic),
        null_wasserstein=float(np.quantile(nulls[0], 0.95)),
        null_kolmogorov_smirnov=float(np.quantile(nulls[1], 0.95)),
        p_wasserstein=float(p[0]),
        p_kolmogorov_smirnov=float(p[1]),
    )


def _grid(lengths: Array) -> Array:
    """All lengths that occur, or quantiles of them where they are many; the greatest is always there."""
    values = np.unique(lengths)
    if len(values) <= GRID:
        return values
    return np.unique(np.quantile(lengths, np.linspace(0, 1, GRID), method="inverted_cdf"))


def _shares(lengths: Array, grid: Array) -> Array:
    """Share of lengths at or below each point of the grid."""
    return np.searchsorted(np.sort(lengths), grid, side="right") / len(lengths)


@lru_cache(maxsize=1)
def _normals(seed: int) -> Array:
    return np.random.default_rng(seed).standard_normal((DRAWS, GRID))
