"""Whether sources with longer outputs make adapters write longer, over all sources of a target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import atanh, isfinite, nan, sqrt, tanh

import numpy as np
from scipy import stats

from traitmap.analysis.profiles.cell_lengths import CellLengths
from traitmap.matrix_record import Array

DRAWS = 9_999
LEAST_SOURCES = 5  # below, no order of the sources is rarer than one in twenty by far
OVERALL = ""


@dataclass(frozen=True)
class LengthTrend:
    """Rank correlation over sources of a source's own mean output length and that of its adapter's outputs.

    One adapter that writes longer may do so because any training makes the base write longer, or because
    the task asks for it; only the comparison of sources tells that the length came from the source.

    target: name, or empty for the mean over targets. correlation: Spearman's. p: of so large a one when
    sources are exchanged (the same exchange for all targets). sources: how many.
    smallest_visible: a correlation found in four of five such studies (Fisher's z, with the variance of
        Bonett and Wright, Psychometrika 65:23-28, 2000). reason: why something is unknown.
    """

    target: str
    correlation: float
    p: float
    sources: int
    smallest_visible: float
    reason: str = ""

    @property
    def words(self) -> str:
        """The finding in a sentence, or that it cannot be told."""
        where = f"On {self.target}" if self.target else "Over all targets"
        if not isfinite(self.correlation):
            return f"{where} it cannot be told whether lengths follow the source: {self.reason}."
        told = f"rank correlation {self.correlation:+.2f} over {self.sources} sources, p {self.p:.2g}"
        if self.p < 0.05:
            follows = "longer" if self.correlation > 0 else "shorter"
            return f"{where} sources with longer outputs make adapters write {follows} ({told})."
        return (
            f"{where} it cannot be told whether lengths follow the source ({told}; below "
            f"{self.smallest_visible:.2f} it would not have been seen)."
        )


def length_trends(lengths: Sequence[CellLengths], *, seed: int = 0) -> tuple[LengthTrend, ...]:
    """One trend per target of generated answers, and their mean over targets last. Pooled cells only."""
    by_target: dict[str, dict[str, tuple[float, float]]] = {}
    for cell in lengths:
        best = cell.best
        if cell.seed is None and cell.written == "generated" and best.source.n:
            means = (best.source.mean, best.adapter.mean)
            by_target.setdefault(cell.target, {})[cell.source] = means
    names = sorted({source for own in by_target.values() for source in own})
    order = _orders(len(names), seed)
    found, observed, nulls = [], [], []
    for target, own in by_target.items():
        place = np.array([names.index(source) for source in own])
        teaches, writes = np.array(list(own.values())).T
        one, null = _correlations(teaches, writes, place, order)
        found.append(_trend(target, one, null, len(own)))
        if null is not None:
            observed.append(one)
            nulls.append(null)
    if len(observed) > 1:
        mean = float(np.mean(observed))
        p = _p(mean, np.mean(nulls, axis=0))
        found.append(
            LengthTrend(OVERALL, mean, p, len(names), nan, "the visible size depends on the targets")
        )
    return tuple(found)


def _correlations(teaches: Array, writes: Array, place: Array, order: Array) -> tuple[float, Array | None]:
    """Spearman's correlation, and its values (draws,) when sources are exchanged."""
    if len(teaches) < LEAST_SOURCES or np.ptp(teaches) == 0 or np.ptp(writes) == 0:
        return nan, None
    one, other = (stats.zscore(stats.rankdata(values)) for values in (teaches, writes))
    # keys of all sources, of which a target may lack some: their order there is the exchange
    exchanged = np.argsort(order[:, place], axis=1)
    return float(one @ other) / len(one), one[exchanged] @ other / len(one)


def _trend(target: str, correlation: float, null: Array | None, count: int) -> LengthTrend:
    if null is None:
        few = count < LEAST_SOURCES
        reason = f"{count} sources, {LEAST_SOURCES} are needed" if few else "all lengths are the same"
        return LengthTrend(target, nan, nan, count, nan, reason)
    return LengthTrend(target, correlation, _p(correlation, null), count, _visible(count))


def _p(observed: float, null: Array) -> float:
    return float((1 + (np.abs(null) >= abs(observed) - 1e-9).sum()) / (1 + len(null)))


def _visible(count: int) -> float:
    """The rho whose atanh is 1.96 + .84 standard errors, each sqrt((1 + rho^2 / 2) / (n - 3))."""
    needed = float(stats.norm.ppf(0.975) + stats.norm.ppf(0.8))
    rho = 0.5
    for _ in range(50):
        rho = tanh(needed * sqrt((1 + rho**2 / 2) / (count - 3)))
    return rho if atanh(rho) < 10 else 1.0


def _orders(count: int, seed: int) -> Array:
    """(draws, count) random keys whose order exchanges the sources."""
    return np.random.default_rng(seed).random((DRAWS, count))
