"""Controlled changes: dose and response, differences of differences, and how much of a gain is format.

A family of sources differs in one thing by degrees (a rate of wrong labels of 0, .25, .5, 1, say); its
adapters answer the same items. The trend test is that of the linear contrast over doses, with items
resampled jointly for all doses and every adapter's seeds a sample of their own (``dose_response``). Two
sources that differ in one thing are compared on two targets (``difference_in_differences``), and a source
is held against a control that has learnt the format alone (``format_part``, ``subtract_format``).

Shapes: D doses, S seeds, n items. Numbers are means over items in the unit of the items (a score, a gain, 1
where a class was answered).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, nan
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from traitmap.errors import MatrixError
from traitmap.matrix.crossed import VarianceTerm, crossed_contrast, crossed_mean, share_interval
from traitmap.matrix.record import Array, TransferMatrix
from traitmap.matrix.statistics import (
    CONFIDENCE,
    Estimate,
    Interval,
    benjamini_hochberg,
    group_scores,
    on_common_items,
    ratio_interval,
    unknown,
)

Verdict = Literal["rises", "falls", "not monotone", "cannot tell"]
ContrastVerdict = Literal["content", "format only", "cannot tell"]
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
    def words(self) -> str:
        """What the curve says, in a sentence with its numbers."""
        ends = f"from {self.effects[0].value:.3g} at {self.doses[0]:g} to {self.effects[-1].value:.3g} at "
        ends += f"{self.doses[-1]:g}"
        line = f"{_signed(self.change)} over the range"
        if self.verdict in ("rises", "falls"):
            steps = ""
            if self.monotone:
                steps = ", at every step"
            elif isfinite(self.reversal.high):
                steps = f"; that a step goes back by up to {self.reversal.high:.3g} cannot be ruled out"
            return f"{self.measure} {self.verdict} with {self.dose} {ends} ({line}){steps}."
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
    by_item = values.ndim == 3
    means = values.mean(axis=2) if by_item else values
    x, y = np.repeat(doses, means.shape[1]), means.ravel()
    across = Estimate(float((y[-1] - y[0]) / (x[-1] - x[0])), nan, nan)
    if len(x) >= 3:
        line = stats.linregress(x, y)
        across = Estimate(float(line.slope), float(line.stderr), len(x) - 2)
    effects, contrast, test = _by_items(values) if by_item else _by_adapters(values)
    slope = contrast(weights) if by_item else across

    def step(start: int, end: int) -> Estimate:
        """The change from one dose to another."""
        weights = np.zeros(len(doses))
        weights[start], weights[end] = -1.0, 1.0
        return contrast(weights)

    steps = tuple(step(i, i + 1) for i in range(len(doses) - 1))
    together = tuple(each.interval(confidence=1 - (1 - CONFIDENCE) / len(steps)) for each in steps)
    extent = float(doses[-1] - doses[0])
    trend = slope.interval()
    return DoseResponse(
        measure=measure,
        dose=dose,
        doses=tuple(float(value) for value in doses),
        effects=effects,
        changes=(
            Interval(0.0, 0.0, 0.0),
            *(step(0, i).interval() for i in range(1, len(doses))),
        ),
        slope=trend,
        change=Interval(trend.value * extent, trend.low * extent, trend.high * extent, trend.reason),
        p=slope.p,
        steps=together,
        reversal=_reversal(together, np.sign(slope.value)),
        verdict=_verdict(slope, together),
        smallest_change=slope.smallest_visible * extent,
        across_adapters=across.interval(),
        test=test,
        items=values.shape[2] if by_item else 0,
        seeds=values.shape[1],
    )


def _checked(doses: ArrayLike, values: ArrayLike) -> tuple[Array, Array]:
    """Both as arrays, items that any adapter lacks left out; MatrixError where they do not fit."""
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
    binary = _binary(values)

    def contrast(weights: Array) -> Estimate:
        terms = [VarianceTerm(str(d), "", weight, values[d]) for d, weight in enumerate(weights) if weight]
        return crossed_contrast(terms, reach=float(binary))

    effects = tuple(share_interval(value) if binary else crossed_mean(value).interval() for value in values)
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


def _reversal(steps: Sequence[Interval], direction: float) -> Interval:
    """The largest step against the trend, with its limits; never below 0."""
    if direction == 0:
        return unknown("there is no trend to go against")
    backward = [(-step.value, -step.high, -step.low) if direction > 0 else (step.value, step.low, step.high)
                for step in steps]  # fmt: skip
    if not all(np.isfinite(step).all() for step in backward):
        return Interval(max(0.0, *(step[0] for step in backward)), reason="a step has no interval")
    value, low, high = (max(0.0, *(step[i] for step in backward)) for i in range(3))
    return Interval(value, low, high)


def _verdict(slope: Estimate, steps: Sequence[Interval]) -> Verdict:
    """Of the trend and its simultaneous steps, see ``DoseResponse``."""
    up, down = any(step.low > 0 for step in steps), any(step.high < 0 for step in steps)
    significant = slope.p < 1 - CONFIDENCE
    against = down if slope.value > 0 else up
    if (up and down) or (significant and against):
        return "not monotone"
    if not significant:
        return "cannot tell"
    return "rises" if slope.value > 0 else "falls"


@dataclass(frozen=True)
class DifferenceInDifferences:
    """How much more adapter a differs from adapter b on one target than on another.

    by_target: a minus b on each of the two. difference: the first of these minus the second.
    p: of no difference. smallest_visible: found in four of five such studies.
    """

    names: tuple[str, str]
    targets: tuple[str, str]
    by_target: tuple[Interval, Interval]
    difference: Interval
    p: float
    smallest_visible: float

    @property
    def words(self) -> str:
        """The comparison in a sentence, or that there is no answer."""
        parts = " and ".join(
            f"{_signed(interval)} on {target}"
            for target, interval in zip(self.targets, self.by_target, strict=True)
        )
        head = f"{self.names[0]} differs from {self.names[1]} by {parts}"
        if self.p < 1 - CONFIDENCE:
            return f"{head}: the difference of {_signed(self.difference)} is beyond noise."
        seen = f" (below {self.smallest_visible:.3g} it would not have been seen)"
        seen = seen if isfinite(self.smallest_visible) else ""
        return f"{head}: whether these differ ({_signed(self.difference)}) cannot be told{seen}."


@dataclass(frozen=True)
class FormatPart:
    """How much of one gain an adapter gives that has learnt the format and nothing else.

    gain: source minus base. format: control minus base. rest: source minus control.
    share: format over gain, by Fieller; unknown where the gain may be zero.
    p: of no rest; q: after Benjamini-Hochberg over all cells of the list.
    verdict: ``content`` where the rest is beyond noise; ``format only`` where the format's gain is and the
        rest lies within smallest_visible, so that one as large as that gain would have been seen;
        ``cannot tell`` otherwise. The name of the control says which format it taught.
    smallest_visible: a rest that is found in four of five such studies.
    """

    source: str
    target: str
    control: str
    gain: Interval
    format: Interval
    rest: Interval
    share: Interval
    p: float
    q: float
    verdict: ContrastVerdict
    smallest_visible: float

    @property
    def words(self) -> str:
        """The parts in a sentence."""
        head = f"{self.source} on {self.target}: {_signed(self.gain)}, of which the format of {self.control} "
        head += f"gives {_signed(self.format)} and the content {_signed(self.rest)}"
        if self.verdict == "content":
            return f"{head}; the content counts."
        if self.verdict == "format only":
            return f"{head}; the format is enough to explain it."
        seen = ""
        if isfinite(self.smallest_visible):
            seen = f": a rest below {self.smallest_visible:.3g} would not be seen"
        return f"{head}; which of the two it is cannot be told{seen}."


def difference_in_differences(
    a: Mapping[str, ArrayLike], b: Mapping[str, ArrayLike], *, names: Sequence[str] = ("a", "b")
) -> DifferenceInDifferences:
    """(a - b on the first target) - (a - b on the second), items shared by both adapters.

    a, b: two targets each, in the same order: item values (S, n) or (n,) whose mean is the number (scores,
    or 1 where a class was answered). Seeds may differ in number between a and b, not between targets. Items
    that either lacks (NaN) are left out for both. MatrixError where shapes do not fit.
    """
    if len(a) != 2 or list(a) != list(b):
        raise MatrixError(f"targets {list(a)} and {list(b)}; give the same two targets for both adapters")
    pairs = {target: _shared((a[target], b[target]), f"on {target!r}") for target in a}
    first, second = pairs
    reach = float(all(_binary(*pair) for pair in pairs.values()))
    on = [
        [
            VarianceTerm("a", target, sign, pairs[target][0]),
            VarianceTerm("b", target, -sign, pairs[target][1]),
        ]
        for target, sign in ((first, 1.0), (second, -1.0))
    ]
    double = crossed_contrast([*on[0], *on[1]], reach=reach)
    reverse = crossed_contrast([replace(term, weight=-term.weight) for term in on[1]], reach=reach)
    return DifferenceInDifferences(
        names=(names[0], names[1]),
        targets=(first, second),
        by_target=(crossed_contrast(on[0], reach=reach).interval(), reverse.interval()),
        difference=double.interval(),
        p=double.p,
        smallest_visible=double.smallest_visible,
    )


def format_part(
    scores: ArrayLike,
    base: ArrayLike,
    control: ArrayLike,
    *,
    source: str = "source",
    target: str = "target",
    control_name: str = "format control",
) -> FormatPart:
    """Subtract the gain of a format-only control from a source's gain on the same items.

    scores, control: (S, n) or (n,) of the two adapters. base: (n,). NaN items are left out for all three.
    MatrixError where the numbers of items differ, or fewer than two were measured for all.
    """
    scored, controlled, zero = _shared((scores, control, base), f"on {target!r}")
    reach = float(_binary(scored, controlled, zero))

    def difference(first: Array, second: Array) -> Estimate:
        return crossed_contrast(
            [VarianceTerm("first", "", 1.0, first), VarianceTerm("second", "", -1.0, second)], reach=reach
        )

    gain, part, rest = (
        difference(scored, zero),
        difference(controlled, zero),
        difference(scored, controlled),
    )
    verdict: ContrastVerdict = "cannot tell"
    if rest.p < 1 - CONFIDENCE:
        verdict = "content"
    elif part.p < 1 - CONFIDENCE and abs(part.value) >= rest.smallest_visible:
        verdict = "format only"
    return FormatPart(
        source=source,
        target=target,
        control=control_name,
        gain=gain.interval(),
        format=part.interval(),
        rest=rest.interval(),
        share=_share(gain, part, rest),
        p=rest.p,
        q=rest.p,
        verdict=verdict,
        smallest_visible=rest.smallest_visible,
    )


def subtract_format(matrix: TransferMatrix, control: str | Mapping[str, str]) -> tuple[FormatPart, ...]:
    """Every cell's gain with the gain of a format-only control taken off, in the order of the matrix.

    control: the source that is the control, or by target, since formats differ between targets (targets
    without one are left out). Cells without item scores are left out. MatrixError where no such source is.
    """
    controls = dict.fromkeys(matrix.targets, control) if isinstance(control, str) else dict(control)
    missing = sorted({name for name in controls.values() if name not in matrix.sources})
    if missing:
        raise MatrixError(
            f"no source is called {', '.join(missing)}; the matrix has {', '.join(matrix.sources)}. Add a "
            "format_only variation to the study, or name the source that is one."
        )
    parts = []
    for at, source in enumerate(matrix.sources):
        for target in matrix.targets:
            name = controls.get(target)
            if name is None or name == source or target not in matrix.item_scores:
                continue
            scores = group_scores(matrix.item_scores[target], matrix.item_groups.get(target))
            measured = [_measured_seeds(scores[1 + row]) for row in (at, matrix.sources.index(name))]
            if all(len(seeds) for seeds in measured) and np.isfinite(scores[0]).any():
                own, base, other = on_common_items(measured[0], scores[0, :1], measured[1])
                part = format_part(own, base[0], other, source=source, target=target, control_name=name)
                parts.append(part)
    corrected = []
    q_values = benjamini_hochberg(np.array([part.p for part in parts], dtype=float))
    for part, q in zip(parts, q_values, strict=True):
        # what only the uncorrected test found is inconclusive
        lost = part.verdict == "content" and not q < 1 - CONFIDENCE
        corrected.append(replace(part, q=float(q), verdict="cannot tell" if lost else part.verdict))
    return tuple(corrected)


def _share(gain: Estimate, part: Estimate, rest: Estimate) -> Interval:
    """Format over gain; covariance from var(gain - format) = var(rest)."""
    if not (gain.error > 0 and part.error > 0 and rest.error > 0):
        return unknown("nothing varies, so that no interval can be had")
    covariance = (gain.error**2 + part.error**2 - rest.error**2) / 2
    share = ratio_interval(
        part.value,
        gain.value,
        variances=(part.error**2, gain.error**2),
        covariance=covariance,
        quantile=max(gain.quantile, part.quantile),
    )
    return share if share.known else unknown("the gain cannot be told from zero, so no share of it is known")


def _shared(values: Sequence[ArrayLike], where: str) -> list[Array]:
    """Arrays (S, n) of the items that all of them have."""
    arrays = [np.atleast_2d(np.asarray(value, dtype=float)) for value in values]
    sizes = {array.shape[1] for array in arrays}
    if len(sizes) != 1:
        raise MatrixError(f"{sorted(sizes)} items {where}; adapters are compared on the same items")
    known: NDArray[np.bool_] = np.all([np.isfinite(array).all(axis=0) for array in arrays], axis=0)
    if known.sum() < 2:
        raise MatrixError(f"{int(known.sum())} items {where} were measured for all; at least 2 are needed")
    return [array[:, known] for array in arrays]


def _binary(*arrays: Array) -> bool:
    """Whether all values are right or wrong answers."""
    return all(bool(np.isin(array, (0.0, 1.0)).all()) for array in arrays)


def _measured_seeds(scores: Array) -> Array:
    """(s, n) seeds that were measured; an adapter that stands in every seed's place counts once."""
    seeds = scores[np.isfinite(scores).any(axis=1)]
    same = len(seeds) and all(np.array_equal(seeds[0], row, equal_nan=True) for row in seeds)
    return seeds[:1] if same else seeds


def _signed(interval: Interval) -> str:
    if not interval.known:
        return "unknown"
    limits = f" [{interval.low:+.3g}, {interval.high:+.3g}]" if isfinite(interval.low) else ""
    return f"{interval.value:+.3g}{limits}"
