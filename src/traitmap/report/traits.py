"""The section of the page on traits: how many, the plane of the first two, how stable, loadings, adapters.

The card of an adapter says what it does to each trait, and names its best and worst targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, nan
from typing import Any

import numpy as np

from traitmap.analysis.answer_words import traits_in_words
from traitmap.analysis.tables import (
    component_name,
    effects_table,
    loadings_table,
    resampled_in_words,
    scree_table,
    shown_components,
    stability_table,
)
from traitmap.analysis.traits.components import Biplot, leaves_out_origin
from traitmap.analysis.traits.records import CrossValidation, Traits
from traitmap.matrix.reading import Reading, nice_limit, read
from traitmap.matrix.record import TransferMatrix
from traitmap.matrix.statistics import ROUNDED_Z, Interval
from traitmap.report import plane_charts
from traitmap.report.heatmap import gain_text
from traitmap.report.plane_charts import CROWDED, Curve, curve
from traitmap.report.records import Shown
from traitmap.report.row_charts import ChartRow, card_chart, row_chart
from traitmap.table import Entry, Table
from traitmap.wording import clean, counted, estimate, listed, plain, related, share, signed, typeset

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
        rows += [ChartRow(heading, heading=True), *(group or [ChartRow("none")])]
        table += [(row.label, heading, row.texts[0]) for row in group]
    told = " ".join(f"{row.label}: {typeset(row.texts[0])}." for row in rows if row.texts)
    return Shown(
        name=f"profile-{s + 1}",
        title=f"Effects of {name}",
        description=f"Gains over the base with 95 % intervals; {_tally(reading, s)}.",
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
        key=(("dot-solid", "beyond noise"), ("dot-open", "not")),
    )


def _trait_rows(traits: Traits | None, source: str, in_points: float | None) -> list[ChartRow]:
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
            ChartRow(
                component_name(traits, c),
                effect.value / limit,
                effect.low / limit,
                effect.high / limit,
                texts=(estimate(effect),),
                solid=effect.clear,
            )
        )
    return rows


def _target_rows(reading: Reading, s: int) -> list[tuple[str, list[ChartRow]]]:
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
                ChartRow(
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


def scree(traits: Traits) -> Shown:
    """Explained variance over the noise band, and how many components the data support."""
    return Shown(
        name="scree",
        title="How many traits",
        description=traits_in_words(traits)[1],
        chart=plane_charts.scree(
            traits,
            "Scree with noise band",
            "Share of variance that each component explains, beside the share that components of pure noise "
            "of the same shape explain.",
        ),
        table=scree_table(traits),
        caveat=(
            "A stem within its noise box is what a table without any structure shows. Each box is for its "
            "own place in the order: one strong first component leaves less for all others, also where they "
            "are real."
        ),
        decisive=True,
        key=(
            ("supported", "supported"),
            ("unsupported", "not supported"),
            ("noise", "noise of this shape, 5 to 95 %"),
        ),
    )


def cross_validation(traits: Traits) -> Shown | None:
    """Error on held-out cells against the number of components.

    None where the numbers of components to compare are fewer than two, or an error is unknown.
    """
    result = traits.cross_validation
    errors = [float(error) for error in result.errors]
    if len(errors) < 2 or not all(map(isfinite, errors)):
        return None
    spread = [float(error) if error > 0 else nan for error in result.stderr]
    caveat = (
        "The curve ends where more components had become worse. A flat curve cannot tell how many there are"
    )
    if len(set(result.by_seed)) > 1:
        caveat += f"; here the divisions disagree ({min(result.by_seed)} to {max(result.by_seed)})"
    return Shown(
        name="cross-validation",
        title="Cells held out",
        description=_choice_in_words(result),
        chart=curve(
            Curve(
                at=tuple(float(count) for count in range(len(errors))),
                values=tuple(errors),
                low=tuple(error - half for error, half in zip(errors, spread, strict=True)),
                high=tuple(error + half for error, half in zip(errors, spread, strict=True)),
            ),
            "Error on held-out cells",
            f"Error of held-out cells for 0 to {len(errors) - 1} components.",
            choice=result.chosen if result.chosen < len(errors) else None,
            axes=("components", "error of held-out cells"),
        ),
        table=Table(
            "Mean squared error of held-out cells in units of the scale (1: as bad as the mean of a "
            "standardised target), and the standard error of its difference from the best number.",
            ("components", "error", "standard error", "divisions that choose it"),
            [
                (
                    str(count),
                    plain(error, 3),
                    plain(float(result.stderr[count]), 3) if count != result.best else "best",
                    str(result.by_seed.count(count)),
                )
                for count, error in enumerate(errors)
            ],
        ),
        caveat=f"{caveat}.",
        key=(("dot-solid", "error, with one standard error against the best"), ("chosen", "chosen")),
        aside=True,
    )


def _choice_in_words(result: CrossValidation) -> str:
    """Which number of components predicts held-out cells best, and which one is claimed."""
    errors = result.errors
    text = f"Held-out cells are predicted best by {counted(result.best, 'component')} "
    text += f"(error {plain(float(errors[result.best]), 2)}, with none {plain(float(errors[0]), 2)}). "
    if result.chosen < result.best:
        text += f"{counted(result.chosen, 'component').capitalize()} {'do' if result.chosen != 1 else 'does'}"
        text += " as well within one standard error, so no more are claimed. "
    if len(result.by_seed) > 1:
        same = result.by_seed.count(result.chosen)
        text += f"{same} of {len(result.by_seed)} divisions of the cells alone choose the same number."
    return text


def biplot(traits: Traits) -> Shown | None:
    """Sources and targets on the first two components.

    None where the record has no plane. The description says which sources stand apart from the average one.
    """
    plane = traits.biplot
    if plane is None or not np.isfinite(plane.scores).any():
        return None
    used = traits.n_components.get("used") or 0
    names = [component_name(traits, c) for c in range(2)]
    axes = [
        f"{name} ({share(float(ratio))})"
        for name, ratio in zip(names, traits.explained_variance_ratio[:2], strict=True)
    ]
    sources = counted(int(np.isfinite(plane.scores).all(axis=1).sum()), "source")
    measured = "items" in str(traits.conditions.get("bootstrap", ""))
    table: list[Sequence[Entry | str]] = []
    for kind, labels, points, covariances in (
        ("source", traits.sources, plane.scores, plane.scores_covariance),
        ("target", traits.targets, plane.loadings, plane.loadings_covariance),
    ):
        for name, point, covariance in zip(labels, points, covariances, strict=True):
            errors = np.sqrt(np.maximum(np.diag(covariance), 0))
            entries = [
                Entry(signed(float(value), 2), f"± {plain(ROUNDED_Z * float(error), 2)}")
                for value, error in zip(point, errors, strict=True)
            ]
            table.append((name, kind, *entries))
    return Shown(
        name="biplot",
        title="Sources and targets",
        description=_plane_in_words(traits, plane, used),
        chart=plane_charts.biplot(
            plane,
            [clean(name) for name in traits.sources],
            [clean(name) for name in traits.targets],
            "Sources and targets on two components",
            f"{sources} and {counted(len(traits.targets), 'target')} with 95 % ellipses.",
            axes=(axes[0], axes[1]),
        ),
        table=Table(
            "Scores of sources and loadings of targets, with 1.96 standard errors beneath.",
            ("name", "kind", *names),
            table,
        ),
        caveat=(
            f"Ellipses hold resampled sources{' and measurement noise' if measured else ''} "
            f"({plane.draws:,} draws). Long ones that lie across each other mean that the two components "
            "cannot be told apart. Arrows are stretched to the dots: compare their directions, not their "
            "lengths with dots."
        ),
        key=(("dot-solid", "source"), ("arrow", "target"), ("ellipse", "95 % of where it may lie")),
        tag="" if used >= 2 else "not supported" if used == 0 else "second component not supported",
        nothing="" if used else "neither component is supported",
        wide=len(traits.sources) + len(traits.targets) > CROWDED,
    )


def _plane_in_words(traits: Traits, plane: Biplot, used: int) -> str:
    """Which sources stand apart, and how far the plane can be trusted. used: supported components."""
    far = np.linalg.norm(plane.scores, axis=1)
    order = [int(at) for at in np.argsort(-np.where(np.isfinite(far), far, -1)) if isfinite(far[at])]
    apart = [at for at in order if leaves_out_origin(plane.scores[at], plane.scores_covariance[at])]
    text = (
        f"The ellipses of {len(apart)} of {counted(len(order), 'source')} leave out the middle, furthest "
        f"{listed([clean(traits.sources[at]) for at in apart[:3]])}: these stand apart from the average "
        "source."
        if apart
        else "No source's ellipse leaves out the middle: none can be told from the average source."
    )
    resampled = traits.stability.resamplings.get("adapters")
    loose = [
        component_name(traits, c)
        for c in range(min(2, len(resampled.congruence_mean)) if resampled else 0)
        if resampled and resampled.congruence_mean[c] < resampled.noise_p95[c]
    ]
    if loose:
        text += f" But {listed(loose)} {'moves' if len(loose) == 1 else 'move'}"
        text += " as much as axes of noise do: read who stands near whom, not where."
    if used < 2:
        which, what = ("either", "this plane") if used == 0 else ("the second", "the up and down of it")
        text += f" The data do not support {which} component: read nothing into {what}."
    return text


def stability(traits: Traits) -> Shown | None:
    """How like themselves the components stay when the data are resampled, beside what noise reaches.

    None where nothing was resampled. A dot is filled where the 5th percentile lies beyond the noise.
    """
    table = stability_table(traits)
    if table is None or not traits.stability.examined:
        return None
    used = traits.n_components.get("used") or 0
    rows, firm = [], []
    for c in range(traits.stability.examined if not used else min(used, traits.stability.examined)):
        name = component_name(traits, c)
        rows.append(ChartRow(name if c < used else f"{name} (not supported)", heading=True))
        for resampling in traits.stability.resamplings.values():
            mean, low, noise = (
                float(part[c])
                for part in (resampling.congruence_mean, resampling.congruence_p05, resampling.noise_p95)
            )
            beyond = isfinite(noise) and low > noise
            rows.append(
                ChartRow(
                    f"{resampled_in_words(resampling)} ({resampling.draws:,})",
                    mean,
                    low,
                    mean if isfinite(low) else nan,
                    band=(0.0, noise),
                    texts=(plain(mean, 2), plain(low, 2), plain(noise, 2)),
                    tone="neutral" if beyond else "quiet",
                    solid=beyond,
                )
            )
            if c < used and resampling.kind == "adapters":
                firm.append(f"{name} keeps {plain(mean, 2)} (noise: {plain(noise, 2)})")
    text = "How like itself each component stays when sources, items or seeds are drawn again, or a source "
    text += "or target is left out: 1 is the same component. "
    text += f"Of the supported ones, {listed(firm)} over sources." if firm else "No component is supported."
    return Shown(
        name="stability",
        title="How stable they are",
        description=text,
        chart=row_chart(
            rows,
            "Congruence of components under resampling",
            "Tucker's congruence: mean, 5th percentile, and what tables without structure reach.",
            heads=("mean", "5 %", "noise 95 %"),
            axis="congruence with the component of the whole table",
            ends=(0.0, 1.0),
        ),
        table=table,
        caveat=(
            "Components of pure noise also agree with their own bootstrap: stable means beyond the grey "
            "band and near 1, not merely high."
        ),
        key=(
            ("dot-solid", "mean; the line reaches down to the 5th percentile"),
            ("noise", "what noise reaches (95th percentile)"),
        ),
        aside=True,
        nothing="" if used else "no component is supported",
    )


def loading_figures(traits: Traits) -> tuple[Shown, ...]:
    """Loadings of each leading component, sorted so that its poles can be read off.

    At least two; one that the data do not support says nothing.
    """
    used = traits.n_components.get("used") or 0
    figures = []
    for c in range(shown_components(traits)):
        band = [float(part[c]) for part in (traits.null_p05, traits.null_p95)]
        known = all(map(isfinite, band))
        noise = f"noise: {share(band[0])} to {share(band[1])}" if known else "noise band unknown"
        text = f"{share(float(traits.explained_variance_ratio[c]))} of the variance ({noise})"
        naming = _naming(traits, c) if c < used else ""
        rows = []
        for t in np.argsort(-traits.loadings[:, c], kind="stable"):
            loading, low, high = (
                float(part[t, c]) for part in (traits.loadings, traits.loadings_low, traits.loadings_high)
            )
            words = signed(loading, 2) if isfinite(loading) else "unknown"
            clear = Interval(loading, low, high).clear
            rows.append(ChartRow(clean(traits.targets[t]), loading, low, high, texts=(words,), solid=clear))
        figures.append(
            Shown(
                name=f"loadings-{c + 1}",
                title=component_name(traits, c),
                description=f"{text}; {naming}" if naming else text,
                chart=card_chart(
                    rows,
                    f"Loadings on {component_name(traits, c)}",
                    f"{counted(len(rows), 'target')} with loading and 95 % interval; filled dots: the "
                    "interval excludes zero.",
                    limit="1",
                    rooms=(126.0, 50.0),
                ),
                table=loadings_table(traits, [c]),
                key=(("dot-solid", "interval excludes zero"),) if known else (),
                tag="" if c < used else "not supported",
                nothing="" if c < used else "the data do not support it",
            )
        )
    return tuple(figures)


def _naming(traits: Traits, c: int) -> str:
    """Why a component is called what it is called, or that nothing names it."""
    if c >= len(traits.naming):
        return ""
    evidence = traits.naming[c]
    if evidence.origin == "tags":
        lift = f", {evidence.lift:.1f} times its share" if isfinite(evidence.lift) else ""
        chance = f", {related('p', evidence.p)}" if isfinite(evidence.p) else ""
        return f"named after the tag “{clean(evidence.tag)}” at its {clean(evidence.pole)} end{lift}{chance}"
    return {"user": "named in the study", "endpoint": "named by a language model"}.get(
        evidence.origin, "the targets that load on it share no common property"
    )


def trait_figures(traits: Traits) -> tuple[Shown, ...]:
    """The evidence for the number of traits, the plane of the first two, and how stable they are."""
    figures = scree(traits), cross_validation(traits), biplot(traits), stability(traits)
    return tuple(figure for figure in figures if figure is not None)


def traits_part(matrix: TransferMatrix, traits: Traits | None) -> dict[str, Any]:
    """What ``traits.html`` shows: the figures of the traits, and the card of each adapter.

    matrix: for the cards, which are there without traits too. traits None: the section says that there are
    none.
    """
    part: dict[str, Any] = {"adapters": adapter_cards(matrix, traits), "traits": traits}
    if traits is None:
        return part
    return part | {
        "trait_figures": trait_figures(traits),
        "loading_figures": loading_figures(traits),
        "loadings_have_intervals": bool(np.isfinite(traits.loadings_low).any()),
        "effects_table": effects_table(traits, shown_components(traits)),
    }
