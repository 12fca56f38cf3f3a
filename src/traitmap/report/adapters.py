"""Adapter profiles: what one adapter does to each trait, and its best and worst targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, nan

from markupsafe import Markup

from traitmap.analysis.tables import component_name
from traitmap.analysis.traits.records import Traits
from traitmap.matrix.reading import Reading, nice_limit
from traitmap.report.heatmap import scaled_interval
from traitmap.report.row_charts import ChartRow, forest
from traitmap.wording import UNKNOWN, clean, counted, interval, listed, plain, signed, typeset

EACH = 3


@dataclass(frozen=True)
class AdapterProfile:
    """One adapter's card. in_domain: its gain on its own target, or empty; tally: significant transfers.

    rows: what its figure shows.
    """

    name: str
    tags: tuple[str, ...]
    in_domain: str
    tally: str
    figure: Markup | None
    rows: tuple[ChartRow, ...] = ()


def profiles(reading: Reading, traits: Traits | None) -> tuple[AdapterProfile, ...]:
    """A card for every source, in the matrix's order; all share one axis, so that they can be compared."""
    in_points = next((target.limit for target in reading.targets if target.unit == "points"), None)
    return tuple(_profile(reading, traits, s, in_points) for s in range(len(reading.sources)))


def _profile(reading: Reading, traits: Traits | None, s: int, in_points: float | None) -> AdapterProfile:
    name = clean(reading.sources[s])
    if not any(isfinite(cell.gain) for cell in reading.cells[s]):
        reasons = sorted({clean(cell.reason) for cell in reading.cells[s] if cell.reason})
        tally = f"no gain is known: {listed(reasons)}" if reasons else "no gain is known"
        return AdapterProfile(name, _tags(reading, s), "", tally, None)
    rows = [*_trait_rows(traits, reading.sources[s], in_points), *_target_rows(reading, s)]
    return AdapterProfile(
        name=name,
        tags=_tags(reading, s),
        in_domain=_in_domain(reading, s),
        tally=_tally(reading, s),
        figure=forest(
            rows,
            key=f"profile-{s + 1}",
            title=f"Effects of {name}",
            description=(
                "Effects on the traits, and the best and worst targets other than its own, as gains over the "
                "base with 95 % intervals. "
                + " ".join(f"{r.label}: {typeset(r.text)}." for r in rows if r.text)
            ),
            limit=1.0,
            ends=("worse", "better"),
            label_room=100.0,
            text_room=113.0,
            tick=plain(in_points, 1 if in_points < 10 else 0) if in_points else "full scale",
        ),
        rows=tuple(rows),
    )


def _tags(reading: Reading, s: int) -> tuple[str, ...]:
    return tuple(clean(tag) for tag in reading.source_tags[s])


def _trait_rows(traits: Traits | None, source: str, in_points: float | None) -> list[ChartRow]:
    """Effects on the supported traits (on the first, marked, where none is)."""
    if traits is None or source not in traits.sources:
        return []
    used = traits.n_components.get("used") or 0
    if used == 0:
        return []
    s = traits.sources.index(source)
    largest = max((abs(float(v)) for v in traits.effects.ravel() if isfinite(v)), default=nan)
    limit = in_points or nice_limit(largest)
    rows = [ChartRow("Traits, in points", heading=True)]
    for c in range(used):
        effect = float(traits.effects[s, c])
        low, high = float(traits.effects_low[s, c]), float(traits.effects_high[s, c])
        shown = interval(low, high)
        rows.append(
            ChartRow(
                label=component_name(traits, c),
                value=effect / limit,
                low=low / limit,
                high=high / limit,
                text=(signed(effect) + ("" if shown == UNKNOWN else f" {shown}"))
                if isfinite(effect)
                else "unknown",
                solid=low > 0 or high < 0,
            )
        )
    return rows


def _target_rows(reading: Reading, s: int) -> list[ChartRow]:
    """The best and the worst targets other than the source's own, each side with its heading."""
    others = [
        (reading.improvement(s, t) / reading.targets[t].limit, t)
        for t in range(len(reading.targets))
        if not reading.in_domain(s, t)
        and isfinite(reading.improvement(s, t))
        and not reading.is_predicted(s, t)
    ]
    best = [t for gain, t in sorted(others, key=lambda one: -one[0]) if gain > 0][:EACH]
    worst = [t for gain, t in sorted(others) if gain < 0][:EACH]
    rows = []
    for heading, chosen in (("Best targets", best), ("Worst targets", worst)):
        rows.append(ChartRow(heading, heading=True))
        rows += [_target_row(reading, s, t) for t in chosen] or [ChartRow("none", text="")]
    return rows


def _target_row(reading: Reading, s: int, t: int) -> ChartRow:
    cell, target = reading.cells[s][t], reading.targets[t]
    scale = target.factor * target.better / target.limit
    ends: Sequence[float] = sorted((cell.gain_low * scale, cell.gain_high * scale))
    gain = reading.improvement(s, t)
    shown = scaled_interval(cell, target)
    return ChartRow(
        label=clean(target.name) + (" ↓" if target.better < 0 else ""),
        value=gain / target.limit,
        low=ends[0],
        high=ends[1],
        text=signed(cell.gain * target.factor, target.digits) + ("" if shown == UNKNOWN else f" {shown}"),
        tone="better" if gain > 0 else "worse",
        solid=reading.significant(s, t),
    )


def _in_domain(reading: Reading, s: int) -> str:
    """``+45.2 points [40.1, 50.2] on its own task``."""
    for t, target in enumerate(reading.targets):
        cell = reading.cells[s][t]
        if reading.in_domain(s, t):
            if not isfinite(cell.gain):
                return f"own task: {cell.status}"
            shown = scaled_interval(cell, target)
            gain = signed(cell.gain * target.factor, target.digits)
            return typeset(
                f"own task {gain} {clean(target.unit)}{' predicted' if reading.is_predicted(s, t) else ''}"
                + ("" if shown == UNKNOWN else f" {shown}")
            )
    return ""


def _tally(reading: Reading, s: int) -> str:
    """``helps 3 and hurts 1 of 9 other targets (q < .05)``."""
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
    helps = sum(reading.significant(s, t) and reading.improvement(s, t) > 0 for t in tested)
    hurts = sum(reading.significant(s, t) and reading.improvement(s, t) < 0 for t in tested)
    return f"helps {helps}, hurts {hurts} of {counted(len(tested), 'other target')} (q < .05)"
