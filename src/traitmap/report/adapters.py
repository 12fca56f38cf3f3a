"""The card of each adapter: what it does to each trait, and its best and worst targets."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, nan

from traitmap.analysis.tables import component_name
from traitmap.analysis.traits.records import Traits
from traitmap.matrix.reading import Reading, nice_limit, read
from traitmap.matrix.record import TransferMatrix
from traitmap.matrix.statistics import Interval
from traitmap.report.heatmap import gain_text
from traitmap.report.records import Shown
from traitmap.report.row_charts import Row, card_chart
from traitmap.table import Table
from traitmap.wording import clean, counted, estimate, listed, plain, typeset

EACH = 3


@dataclass(frozen=True)
class AdapterCard:
    """in_domain: the gain on its own target, or empty; tally: its significant transfers, in words.

    figure: None where no gain is known.
    """

    name: str
    tags: tuple[str, ...]
    in_domain: str
    tally: str
    figure: Shown | None


def adapter_cards(matrix: TransferMatrix, traits: Traits | None) -> tuple[AdapterCard, ...]:
    """A card for every source, in the matrix's order; all share one axis, so that they can be compared.

    traits: None leaves the effects on traits out. The axis ends at the largest gain in points off the
    diagonal.
    """
    reading = read(matrix)
    in_points = next((target.limit for target in reading.targets if target.unit == "points"), None)
    return tuple(
        AdapterCard(
            name=clean(source),
            tags=tuple(clean(tag) for tag in reading.source_tags[s]),
            in_domain=_in_domain(reading, s),
            tally=_tally(reading, s),
            figure=_figure(reading, traits, s, in_points),
        )
        for s, source in enumerate(reading.sources)
    )


def _figure(reading: Reading, traits: Traits | None, s: int, in_points: float | None) -> Shown | None:
    """Effects on traits and targets. in_points: the largest gain that is drawn, where some are in points."""
    if not any(isfinite(cell.gain) for cell in reading.cells[s]):
        return None
    name = clean(reading.sources[s])
    effects = _trait_rows(traits, reading.sources[s], in_points)
    groups = [("Traits, in points", effects)] if effects else []
    groups += _target_rows(reading, s)
    rows, table = [], []
    for heading, group in groups:
        rows += [Row(heading, heading=True), *(group or [Row("none")])]
        table += [(row.label, heading, row.texts[0]) for row in group]
    told = " ".join(f"{row.label}: {typeset(row.texts[0])}." for row in rows if row.texts)
    return Shown(
        name=f"profile-{s + 1}",
        title=name,
        description="",
        chart=card_chart(
            rows,
            f"Effects of {name}",
            "Effects on the traits, and the best and worst targets other than its own, as gains over the "
            f"base with 95 % intervals. {told}",
            limit=plain(in_points, 1 if in_points < 10 else 0) if in_points else "full scale",
            axis="← worse\u2003better →",
            rooms=(100.0, 113.0),
        ),
        table=Table("Gains over the base with 95 % intervals.", ("what", "among", "effect"), table),
    )


def _trait_rows(traits: Traits | None, source: str, in_points: float | None) -> list[Row]:
    """Effects on the supported traits, as shares of the axis; none where no trait is supported."""
    if traits is None or source not in traits.sources:
        return []
    s = traits.sources.index(source)
    largest = max((abs(float(effect)) for effect in traits.effects.ravel() if isfinite(effect)), default=nan)
    limit = in_points or nice_limit(largest)
    rows = []
    for c in range(traits.n_components.get("used") or 0):
        value, low, high = (
            float(part[s, c]) for part in (traits.effects, traits.effects_low, traits.effects_high)
        )
        effect = Interval(value, low, high)
        rows.append(
            Row(
                component_name(traits, c),
                effect.value / limit,
                effect.low / limit,
                effect.high / limit,
                texts=(estimate(effect),),
                solid=effect.clear,
            )
        )
    return rows


def _target_rows(reading: Reading, s: int) -> list[tuple[str, list[Row]]]:
    """The best and the worst targets other than the source's own, each side with its heading."""
    others = [
        (reading.improvement(s, t) / reading.targets[t].limit, t)
        for t in range(len(reading.targets))
        if not reading.in_domain(s, t)
        and isfinite(reading.improvement(s, t))
        and not reading.is_predicted(s, t)
    ]
    best = [(gain, t) for gain, t in sorted(others, key=lambda one: -one[0]) if gain > 0]
    worst = [(gain, t) for gain, t in sorted(others) if gain < 0]
    groups = []
    for heading, group in (("Best targets", best), ("Worst targets", worst)):
        rows = []
        for gain, t in group[:EACH]:
            cell, target = reading.cells[s][t], reading.targets[t]
            scale = target.factor * target.better / target.limit
            low, high = sorted((cell.gain_low * scale, cell.gain_high * scale))
            rows.append(
                Row(
                    clean(target.name) + (" ↓" if target.better < 0 else ""),
                    gain,
                    low,
                    high,
                    texts=(gain_text(cell, target),),
                    tone="better" if gain > 0 else "worse",
                    solid=reading.significant(s, t),
                )
            )
        groups.append((heading, rows))
    return groups


def _in_domain(reading: Reading, s: int) -> str:
    """``own task +45.2 points [+40.1, +50.2]``, or why it is not known; empty without such a target."""
    for t, target in enumerate(reading.targets):
        cell = reading.cells[s][t]
        if reading.in_domain(s, t) and any(isfinite(one.gain) for one in reading.cells[s]):
            if not isfinite(cell.gain):
                return f"own task: {cell.status}"
            unit = clean(target.unit) + (" predicted" if reading.is_predicted(s, t) else "")
            gain, _, ends = gain_text(cell, target).partition(" ")
            return typeset(f"own task {gain} {unit} {ends}".rstrip())
    return ""


def _tally(reading: Reading, s: int) -> str:
    """``helps 3, hurts 1 of 9 other targets (q < .05)``, or why no gain is known."""
    if not any(isfinite(cell.gain) for cell in reading.cells[s]):
        reasons = sorted({clean(cell.reason) for cell in reading.cells[s] if cell.reason})
        return f"no gain is known: {listed(reasons)}" if reasons else "no gain is known"
    others = [
        t
        for t in range(len(reading.targets))
        if not reading.in_domain(s, t) and isfinite(reading.cells[s][t].gain)
    ]
    tested = [t for t in others if isfinite(reading.cells[s][t].q)]
    if not others:
        return "no other target is known"
    if not tested:
        return f"{counted(len(others), 'other target')}, none tested"
    standing = [reading.improvement(s, t) for t in tested if reading.significant(s, t)]
    helps, hurts = sum(gain > 0 for gain in standing), sum(gain < 0 for gain in standing)
    return f"helps {helps}, hurts {hurts} of {counted(len(tested), 'other target')} (q < .05)"
