"""The tables behind the figures: the same numbers as text, for screen readers, for copying and for doubt."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite

from traitmap.analysis.traits.records import Traits
from traitmap.matrix.reading import MARK, Reading
from traitmap.report.heatmap import scaled_interval
from traitmap.report.loadings import component_name
from traitmap.report.plane_charts import MOST
from traitmap.wording import UNKNOWN, clean, interval, plain, signed, typeset


@dataclass(frozen=True)
class Entry:
    """One cell of a table: its main text, and what stands small beneath it."""

    text: str
    small: str = ""


@dataclass(frozen=True)
class TextTable:
    """caption; column heads (the first is that of the row names); rows of (name, entries)."""

    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Entry, ...]], ...]


def matrix_table(reading: Reading) -> TextTable:
    """Base row of absolute values, then gains with interval and the adapter's own value."""
    heads = ("source", *(f"{clean(t.name)}{' ↓' if t.better < 0 else ''}" for t in reading.targets))
    base = tuple(
        Entry(typeset(plain(cell.value * target.factor, target.digits)))
        for cell, target in zip(reading.base, reading.targets, strict=True)
    )
    rows = [
        (clean(source), tuple(_matrix_entry(reading, s, t) for t in range(len(reading.targets))))
        for s, source in enumerate(reading.sources)
    ]
    return TextTable(
        caption=(
            "Base: absolute value. Sources: gain over the base, * where q < .05; beneath it the 95 % "
            "interval and the adapter's own value."
            + (" ~ is predicted from other cells, not measured." if reading.some_predicted else "")
            + (f" {MARK} test items stand in the training texts." if reading.touched else "")
        ),
        heads=heads,
        rows=(("base", base), *rows),
    )


def _matrix_entry(reading: Reading, s: int, t: int) -> Entry:
    cell, target = reading.cells[s][t], reading.targets[t]
    value = plain(cell.value * target.factor, target.digits)
    if not isfinite(cell.gain):
        return Entry(cell.status if not isfinite(cell.value) else "no base", clean(cell.reason) or value)
    mark = "~" if reading.is_predicted(s, t) else "*" if reading.significant(s, t) else ""
    mark += MARK if (s, t) in reading.touched else ""
    shown = scaled_interval(cell, target)
    small = value if shown == UNKNOWN else f"{shown} · {value}"
    return Entry(typeset(signed(cell.gain * target.factor, target.digits) + mark), typeset(small))


def scree_table(traits: Traits) -> TextTable:
    """Explained variance and its noise band."""
    count = min(MOST, len(traits.explained_variance_ratio))
    columns = (traits.explained_variance_ratio, traits.null_mean, traits.null_p05, traits.null_p95)
    return TextTable(
        caption=(
            "Share of variance in per cent: this matrix, and noise of the same shape (mean, 5th and 95th "
            "percentile)."
        ),
        heads=("component", "explained", "noise mean", "noise 5 %", "noise 95 %"),
        rows=tuple(
            (f"PC{c}", tuple(Entry(plain(100 * float(column[c]))) for column in columns))
            for c in range(count)
        ),
    )


def stability_table(traits: Traits) -> TextTable | None:
    """Congruence of each component with itself under each resampling, or None where none was done."""
    resamplings = traits.stability.resamplings
    if not resamplings:
        return None
    return TextTable(
        caption=(
            "Tucker's congruence with the component of the whole table when the data are resampled: mean, "
            "5th percentile, and beneath it what tables without structure reach (95th percentile). Stable "
            "means well above that, and near 1."
        ),
        heads=(
            "component",
            *(f"{clean(r.kind).replace('_', ' ')} ({r.draws})" for r in resamplings.values()),
        ),
        rows=tuple(
            (
                component_name(traits, c),
                tuple(
                    Entry(
                        f"{plain(float(r.congruence_mean[c]), 2)} ({plain(float(r.congruence_p05[c]), 2)})",
                        f"noise {plain(float(r.noise_p95[c]), 2)}",
                    )
                    for r in resamplings.values()
                ),
            )
            for c in range(traits.stability.examined)
        ),
    )


def effects_table(traits: Traits, count: int) -> TextTable:
    """Effects of the adapters on the first ``count`` components, in points."""
    return TextTable(
        caption="Effects on the components in points, with 95 % intervals.",
        heads=("source", *(component_name(traits, c) for c in range(count))),
        rows=tuple(
            (
                clean(source),
                tuple(
                    Entry(typeset(signed(float(effect))), typeset(interval(float(low), float(high))))
                    for effect, low, high in _triples(
                        traits.effects[s], traits.effects_low[s], traits.effects_high[s], count
                    )
                ),
            )
            for s, source in enumerate(traits.sources)
        ),
    )


def _triples(
    values: Iterable[float], low: Iterable[float], high: Iterable[float], count: int
) -> list[tuple[float, float, float]]:
    return list(zip(values, low, high, strict=True))[:count]
