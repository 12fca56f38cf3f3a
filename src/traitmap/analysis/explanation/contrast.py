"""Differences of differences: what only one of two sources does, and how much of a gain is format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from traitmap.analysis.crossed_samples import CONFIDENCE, Estimate, Term, crossed_contrast, ratio_interval
from traitmap.analysis.interval import Interval, unknown
from traitmap.errors import MatrixError
from traitmap.matrix_record import Array, TransferMatrix
from traitmap.matrix_statistics import benjamini_hochberg

Verdict = Literal["content", "format only", "cannot tell"]


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
        """The comparison in a sentence, or that it cannot be told."""
        parts = " and ".join(
            f"{_signed(found)} on {target}"
            for target, found in zip(self.targets, self.by_target, strict=True)
        )
        told = f"{self.names[0]} differs from {self.names[1]} by {parts}"
        if self.p < 1 - CONFIDENCE:
            return f"{told}: the difference of {_signed(self.difference)} is beyond noise."
        seen = f" (below {self.smallest_visible:.3g} it would not have been seen)"
        return f"{told}: whether these differ ({_signed(self.difference)}) cannot be told{seen}."


@dataclass(frozen=True)
class FormatPart:
    """How much of one gain an adapter gives that has learnt the format and nothing else.

    gain: source minus base. format: control minus base. rest: source minus control.
    share: format over gain, by Fieller; unknown where the gain cannot be told from zero.
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
    verdict: Verdict
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
        seen = f": a rest below {self.smallest_visible:.3g} would not be seen" if self.visible else ""
        return f"{head}; which of the two it is cannot be told{seen}."

    @property
    def visible(self) -> bool:
        return isfinite(self.smallest_visible)


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
        [Term("a", target, sign, pairs[target][0]), Term("b", target, -sign, pairs[target][1])]
        for target, sign in ((first, 1.0), (second, -1.0))
    ]
    found = crossed_contrast([*on[0], *on[1]], reach=reach)
    reverse = crossed_contrast([replace(term, weight=-term.weight) for term in on[1]], reach=reach)
    return DifferenceInDifferences(
        names=(names[0], names[1]),
        targets=(first, second),
        by_target=(crossed_contrast(on[0], reach=reach).interval(), reverse.interval()),
        difference=found.interval(),
        p=found.p,
        smallest_visible=found.smallest_visible,
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
    """
    one, other, zero = _shared((scores, control, base), f"on {target!r}")
    reach = float(_binary(one, other, zero))

    def difference(first: Array, second: Array) -> Estimate:
        return crossed_contrast(
            [Term("first", "", 1.0, first), Term("second", "", -1.0, second)], reach=reach
        )

    gain, part, rest = difference(one, zero), difference(other, zero), difference(one, other)
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
        verdict=_verdict(part, rest, rest.p),
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
            scores = matrix.item_scores[target]
            own, other = scores[1 + at], scores[1 + matrix.sources.index(name)]
            if min(_measured(own), _measured(other), _measured(scores[0])) == 0:
                continue
            parts.append(
                format_part(
                    _there(own), scores[0, 0], _there(other), source=source, target=target, control_name=name
                )
            )
    q = benjamini_hochberg(np.array([part.p for part in parts], dtype=float))
    return tuple(_corrected(part, float(own)) for part, own in zip(parts, q, strict=True))


def _corrected(part: FormatPart, q: float) -> FormatPart:
    """The part with its q-value; what only the uncorrected test found cannot be told."""
    lost = part.verdict == "content" and not q < 1 - CONFIDENCE
    return replace(part, q=q, verdict="cannot tell" if lost else part.verdict)


def _verdict(part: Estimate, rest: Estimate, p: float) -> Verdict:
    if p < 1 - CONFIDENCE:
        return "content"
    formatted = part.p < 1 - CONFIDENCE and abs(part.value) >= rest.smallest_visible
    return "format only" if formatted else "cannot tell"


def _share(gain: Estimate, part: Estimate, rest: Estimate) -> Interval:
    """Format over gain; covariance from var(gain - format) = var(rest)."""
    if not (gain.error > 0 and part.error > 0 and rest.error > 0):
        return unknown("nothing varies, so that no interval can be had")
    covariance = (gain.error**2 + part.error**2 - rest.error**2) / 2
    found = ratio_interval(
        part.value,
        gain.value,
        variances=(part.error**2, gain.error**2),
        covariance=covariance,
        quantile=max(gain.quantile, part.quantile),
    )
    return found if found.known else unknown("the gain cannot be told from zero, so no share of it is known")


def _shared(values: Sequence[ArrayLike], where: str) -> list[Array]:
    """Arrays (S, n) of the items that all of them have."""
    arrays = [np.atleast_2d(np.asarray(one, dtype=float)) for one in values]
    sizes = {one.shape[1] for one in arrays}
    if len(sizes) != 1:
        raise MatrixError(f"{sorted(sizes)} items {where}; adapters are compared on the same items")
    known: NDArray[np.bool_] = np.all([np.isfinite(one).all(axis=0) for one in arrays], axis=0)
    if known.sum() < 2:
        raise MatrixError(f"{int(known.sum())} items {where} were measured for all; at least 2 are needed")
    return [one[:, known] for one in arrays]


def _binary(*arrays: Array) -> bool:
    return all(bool(np.isin(one, (0.0, 1.0)).all()) for one in arrays)


def _measured(scores: Array) -> int:
    return int(np.isfinite(scores).any(axis=1).sum())


def _there(scores: Array) -> Array:
    """Seeds that were measured; an adapter that stands in every seed's place counts once."""
    there = scores[np.isfinite(scores).any(axis=1)]
    return (
        there[:1]
        if len(there) and all(np.array_equal(there[0], row, equal_nan=True) for row in there)
        else there
    )


def _signed(interval: Interval) -> str:
    if not interval.known:
        return "unknown"
    limits = f" [{interval.low:+.3g}, {interval.high:+.3g}]" if isfinite(interval.low) else ""
    return f"{interval.value:+.3g}{limits}"
