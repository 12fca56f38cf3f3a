"""Dose and response: what a growing change of one source does to any measured number, and whether it rises.

A family of sources differs in one thing by degrees (a rate of wrong labels of 0, .25, .5, 1, say); its
adapters answer the same items. The trend test is that of the linear contrast over doses, with items
resampled jointly for all doses and every adapter's seeds a sample of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite, nan
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from traitmap.analysis.crossed_samples import (
    CONFIDENCE,
    Estimate,
    Term,
    crossed_contrast,
    crossed_mean,
    share_interval,
)
from traitmap.analysis.interval import Interval, unknown
from traitmap.errors import MatrixError
from traitmap.matrix_record import Array

Verdict = Literal["rises", "falls", "not monotone", "cannot tell"]
Contrast = Callable[[Array], Estimate]  # from weights (D,) of the doses


@dataclass(frozen=True)
class DoseResponse:
    """The curve of one measured number over D doses.

    doses: (D,) rising. effects: the number at each dose. changes: against the least dose.
    slope: change per unit of dose. p: of no trend. change: slope times the range of doses, the straight
        line's change from the least dose to the greatest.
    steps: from each dose to the next, D - 1 intervals that hold together (Bonferroni, 95 %).
    reversal: the largest step against the trend, 0 where there is none; its upper limit is how far the curve
        may go back unseen.
    verdict: ``rises`` or ``falls`` where the trend is significant and no step goes against it beyond noise;
        ``not monotone`` where some step goes up and another down beyond noise, or one against a significant
        trend; ``cannot tell`` otherwise.
    smallest_change: of the straight line over the range of doses, found in four of five such studies.
    across_adapters: the slope with adapters as the sample, whose scatter about the line (training, seeds, and
        whatever is not linear) makes the interval.
    test: what was done. items, seeds: how many.
    """

    measure: str
    dose: str
    doses: tuple[float, ...]
    effects: tuple[Interval, ...]
    changes: tuple[Interval, ...]
    slope: Interval
    change: Interval
    p: float
    steps: tuple[Interval, ...]
    reversal: Interval
    verdict: Verdict
    smallest_change: float
    across_adapters: Interval
    test: str
    items: int
    seeds: int

    @property
    def monotone(self) -> bool:
        """Every step goes with the trend beyond noise; a trend may stand where this cannot be shown."""
        return self.verdict in ("rises", "falls") and self.reversal.high == 0

    @property
    def _steps_said(self) -> str:
        if self.monotone:
            return ", at every step"
        if not isfinite(self.reversal.high):
            return ""
        return f"; that a step goes back by up to {self.reversal.high:.3g} cannot be ruled out"

    @property
    def words(self) -> str:
        """What the curve says, in a sentence with its numbers."""
        ends = f"from {self.effects[0].value:.3g} at {self.doses[0]:g} to {self.effects[-1].value:.3g} at "
        ends += f"{self.doses[-1]:g}"
        line = f"{self.change.value:+.3g} [{self.change.low:+.3g}, {self.change.high:+.3g}] over the range"
        if self.verdict in ("rises", "falls"):
            return f"{self.measure} {self.verdict} with {self.dose} {ends} ({line}){self._steps_said}."
        if self.verdict == "not monotone":
            return f"{self.measure} does not follow {self.dose} in one direction, {ends} ({line})."
        if isfinite(self.smallest_change):
            line += f"; a change below {self.smallest_change:.3g} would not have been seen"
        return f"Whether {self.measure} follows {self.dose} cannot be told: {ends} ({line})."


def dose_response(
    doses: ArrayLike, values: ArrayLike, *, measure: str = "the score", dose: str = "the dose"
) -> DoseResponse:
    """Effect curve, trend and monotony of a measured number over doses.

    doses: (D,) distinct, in any order; D >= 2. values: (D, S, n) of each dose, seed and item (a score, a
    gain, 1 where a class was answered, a length; the number is their mean), or (D, S) numbers of adapters
    without items. Items that any adapter lacks (NaN) are left out for all. MatrixError where shapes do not
    fit or too little is there.
    """
    doses, values = _checked(doses, values)
    order = np.argsort(doses, kind="stable")
    doses, values = doses[order], values[order]
    centered = doses - doses.mean()
    weights = centered / (centered**2).sum()
    across = _line(doses, values.mean(axis=2) if values.ndim == 3 else values)
    if values.ndim == 3:
        effects, contrast, test = _by_items(values)
    else:
        effects, contrast, test = _by_adapters(values)
    slope = contrast(weights) if values.ndim == 3 else across
    steps = tuple(contrast(_step(len(doses), i, i + 1)) for i in range(len(doses) - 1))
    together = tuple(one.interval(confidence=1 - (1 - CONFIDENCE) / len(steps)) for one in steps)
    extent = float(doses[-1] - doses[0])
    trend = slope.interval()
    return DoseResponse(
        measure=measure,
        dose=dose,
        doses=tuple(float(one) for one in doses),
        effects=effects,
        changes=(
            Interval(0.0, 0.0, 0.0),
            *(contrast(_step(len(doses), 0, i)).interval() for i in range(1, len(doses))),
        ),
        slope=trend,
        change=_scaled(trend, extent),
        p=slope.p,
        steps=together,
        reversal=_reversal(together, np.sign(slope.value)),
        verdict=_verdict(slope, together),
        smallest_change=slope.smallest_visible * extent,
        across_adapters=across.interval(),
        test=test,
        items=values.shape[2] if values.ndim == 3 else 0,
        seeds=values.shape[1],
    )


def _checked(doses: ArrayLike, values: ArrayLike) -> tuple[Array, Array]:
    doses, values = np.asarray(doses, dtype=float), np.asarray(values, dtype=float)
    if (
        doses.ndim != 1
        or len(np.unique(doses)) != len(doses)
        or len(doses) < 2
        or not np.isfinite(doses).all()
    ):
        raise MatrixError(
            f"doses {np.round(doses, 4).tolist()}; give two or more different numbers, one for each adapter "
            "of the family (seeds of one dose stand together)"
        )
    if values.ndim not in (2, 3) or len(values) != len(doses):
        raise MatrixError(
            f"measurements of shape {values.shape} for {len(doses)} doses; give (doses, seeds, items) or "
            "(doses, seeds)"
        )
    if values.ndim == 3:
        values = values[:, :, np.isfinite(values).all(axis=(0, 1))]
        if values.shape[2] < 2:
            raise MatrixError(
                f"{values.shape[2]} items were measured at every dose and seed; at least 2 are needed"
            )
    elif not np.isfinite(values).all():
        raise MatrixError("a dose has no measurement; leave the dose out, or measure it")
    return doses, values


def _by_items(values: Array) -> tuple[tuple[Interval, ...], Contrast, str]:
    """Effects, a function from weights of doses to an estimate, and the name of the test."""
    binary = bool(np.isin(values, (0.0, 1.0)).all())

    def contrast(weights: Array) -> Estimate:
        terms = [Term(str(d), "", weight, values[d]) for d, weight in enumerate(weights) if weight]
        return crossed_contrast(terms, reach=float(binary))

    effects = tuple(share_interval(one) if binary else crossed_mean(one).interval() for one in values)
    sample = "items and seeds" if values.shape[1] > 1 else "items; with one seed it speaks for these adapters"
    return effects, contrast, f"linear contrast over doses, joint over {sample}"


def _by_adapters(values: Array) -> tuple[tuple[Interval, ...], Contrast, str]:
    """The same where there are no items: seeds are the sample, with one variance for all doses."""
    n_doses, n_seeds = values.shape
    freedom = n_doses * (n_seeds - 1)
    variance = float(((values - values.mean(axis=1, keepdims=True)) ** 2).sum()) / freedom if freedom else nan
    means = values.mean(axis=1)

    def contrast(weights: Array) -> Estimate:
        error = np.sqrt((weights**2).sum() * variance / n_seeds)
        return Estimate(float(weights @ means), float(error), freedom or nan)

    effects = tuple(contrast(row).interval() for row in np.eye(n_doses))
    return effects, contrast, "least squares over adapters"


def _step(count: int, start: int, end: int) -> Array:
    weights = np.zeros(count)
    weights[start], weights[end] = -1.0, 1.0
    return weights


def _line(doses: Array, means: Array) -> Estimate:
    """Slope of adapters' means (D, S) on their doses by least squares."""
    x, y = np.repeat(doses, means.shape[1]), means.ravel()
    if len(x) < 3:
        return Estimate(float((y[-1] - y[0]) / (x[-1] - x[0])), nan, nan)
    found = stats.linregress(x, y)
    return Estimate(float(found.slope), float(found.stderr), len(x) - 2)


def _scaled(interval: Interval, factor: float) -> Interval:
    return Interval(interval.value * factor, interval.low * factor, interval.high * factor, interval.reason)


def _reversal(steps: Sequence[Interval], direction: float) -> Interval:
    """The largest step against the trend, with its limits; never below 0."""
    if direction == 0:
        return unknown("there is no trend to go against")
    backward = [(-step.value, -step.high, -step.low) if direction > 0 else (step.value, step.low, step.high)
                for step in steps]  # fmt: skip
    if not all(np.isfinite(one).all() for one in backward):
        return Interval(max(0.0, *(one[0] for one in backward)), reason="a step has no interval")
    value, low, high = (max(0.0, *(one[i] for one in backward)) for i in range(3))
    return Interval(value, low, high)


def _verdict(slope: Estimate, steps: Sequence[Interval]) -> Verdict:
    up, down = any(step.low > 0 for step in steps), any(step.high < 0 for step in steps)
    significant = slope.p < 1 - CONFIDENCE
    against = down if slope.value > 0 else up
    if (up and down) or (significant and against):
        return "not monotone"
    if not significant:
        return "cannot tell"
    return "rises" if slope.value > 0 else "falls"
