"""The evidence for traits as figures: scree, cross-validation, biplot, stability.

The section of the page on traits, and the card of each adapter.
"""

from __future__ import annotations

from math import isfinite, nan
from typing import Any

import numpy as np
from markupsafe import Markup

from traitmap.analysis.tables import (
    component_name,
    effects_table,
    loadings_table,
    scree_table,
    shown_components,
    stability_table,
)
from traitmap.analysis.traits.components import ellipse
from traitmap.analysis.traits.records import CrossValidation, Resampling, Traits
from traitmap.matrix.reading import read
from traitmap.matrix.record import TransferMatrix
from traitmap.matrix.statistics import ROUNDED_Z
from traitmap.report.adapters import AdapterProfile, profiles
from traitmap.report.headline import traits_in_words
from traitmap.report.plane_charts import CROWDED, Curve, curve_with_choice
from traitmap.report.plane_charts import biplot as biplot_figure
from traitmap.report.plane_charts import scree as scree_figure
from traitmap.report.records import Shown
from traitmap.report.row_charts import ChartRow, Line, forest, row_chart
from traitmap.table import Entry, Row, Table
from traitmap.wording import clean, counted, listed, plain, related, share, signed, typeset


def scree(traits: Traits, said: str) -> Shown:
    """Explained variance over the noise band. said: how many components the data support, in words."""
    return Shown(
        name="scree",
        title="How many traits",
        said=said,
        svg=scree_figure(traits),
        table=scree_table(traits),
        distrust=(
            "A stem within its noise box is what a table without any structure shows. Each box is for "
            "its own place in the order: one strong first component leaves less for all others, also "
            "where they are real."
        ),
        key=(
            ("supported", "supported"),
            ("unsupported", "not supported"),
            ("noise", "noise of this shape, 5 to 95 %"),
        ),
    )


def cross_validation(traits: Traits) -> Shown | None:
    """Error on held-out cells against the number of components."""
    found = traits.cross_validation
    errors = [float(value) for value in found.errors]
    if len(errors) < 2 or not all(map(isfinite, errors)):
        return None
    spread = [float(value) for value in found.stderr]
    votes = [found.by_seed.count(k) for k in sorted(set(found.by_seed))]
    return Shown(
        name="cross-validation",
        title="Cells held out",
        said=typeset(_validation_said(found)),
        svg=curve_with_choice(
            Curve(
                title="",
                said=(),
                at=tuple(float(k) for k in range(len(errors))),
                values=tuple(errors),
                low=tuple(e - s if s > 0 else nan for e, s in zip(errors, spread, strict=True)),
                high=tuple(e + s if s > 0 else nan for e, s in zip(errors, spread, strict=True)),
            ),
            chosen=found.chosen if found.chosen < len(errors) else None,
            key="cross-validation",
            title="Error on held-out cells",
            description=f"Error of held-out cells for 0 to {len(errors) - 1} components. The same numbers "
            "stand in the table.",
            axes=("components", "error of held-out cells"),
        ),
        table=_validation_table(found),
        distrust=(
            "The curve ends where more components had become worse. A flat curve cannot tell how many "
            "there are"
            + (
                f"; here the divisions disagree ({min(found.by_seed)} to {max(found.by_seed)})."
                if len(votes) > 1
                else "."
            )
        ),
        key=(("dot-solid", "error, with one standard error against the best"), ("chosen", "chosen")),
    )


def _validation_said(found: CrossValidation) -> str:
    errors = found.errors
    said = f"Held-out cells are predicted best by {counted(found.best, 'component')} "
    said += f"(error {plain(float(errors[found.best]), 2)}, with none {plain(float(errors[0]), 2)}). "
    if found.chosen < found.best:
        said += f"{counted(found.chosen, 'component').capitalize()} "
        said += "do" if found.chosen != 1 else "does"
        said += " as well within one standard error, so no more are claimed. "
    if len(found.by_seed) > 1:
        same = found.by_seed.count(found.chosen)
        said += f"{same} of {len(found.by_seed)} divisions of the cells alone choose the same number."
    return said


def _validation_table(found: CrossValidation) -> Table:
    rows = [
        (
            str(k),
            plain(float(found.errors[k]), 3),
            plain(float(found.stderr[k]), 3) if k != found.best else "best",
            str(found.by_seed.count(k)),
        )
        for k in range(len(found.errors))
    ]
    return Table(
        "Mean squared error of held-out cells in units of the scale (1: as bad as the mean of a "
        "standardised target), and the standard error of its difference from the best number.",
        ("components", "error", "standard error", "divisions that choose it"),
        rows,
    )


def biplot(traits: Traits) -> Shown | None:
    """Adapters and targets on the first two components."""
    plane = traits.biplot
    if plane is None or not np.isfinite(plane.scores).any():
        return None
    used = traits.n_components.get("used") or 0
    ratios = [float(value) for value in traits.explained_variance_ratio[:2]]
    axes = tuple(f"{component_name(traits, c)} ({share(ratios[c])})" for c in range(2))
    far = np.linalg.norm(plane.scores, axis=1)
    order = [int(at) for at in np.argsort(-np.where(np.isfinite(far), far, -1)) if isfinite(far[at])]
    apart = [at for at in order if _apart_from_origin(plane.scores[at], plane.scores_covariance[at])]
    said = "Adapters (dots) and targets (arrows) on the first two components. "
    said += (
        f"The ellipses of {len(apart)} of {counted(len(order), 'adapter')} leave out the middle, furthest "
        f"{listed([clean(traits.sources[at]) for at in apart[:3]])}: these stand apart from the average "
        "adapter."
        if apart
        else "No adapter's ellipse leaves out the middle: none can be told from the average adapter."
    )
    if loose := _loose(traits):
        said += f" But {listed(loose)} moves" if len(loose) == 1 else f" But {listed(loose)} move"
        said += " as much as axes of noise do: read who stands near whom, not where."
    if used < 2:
        said += " The data do not support " + ("either" if used == 0 else "the second") + " component: "
        said += "read nothing into " + ("this plane." if used == 0 else "the up and down of it.")
    return Shown(
        name="biplot",
        title="Adapters and targets",
        said=typeset(said),
        svg=biplot_figure(
            plane,
            [clean(name) for name in traits.sources],
            [clean(name) for name in traits.targets],
            axes=(axes[0], axes[1]),
            description=f"{counted(len(order), 'adapter')} and {counted(len(traits.targets), 'target')} "
            "with 95 % ellipses. The same numbers stand in the table.",
        ),
        table=_biplot_table(traits),
        distrust=(
            "Ellipses hold resampled adapters"
            + (" and measurement noise" if "items" in str(traits.conditions.get("bootstrap", "")) else "")
            + f" ({plane.draws:,} draws). Long ones that lie across each other mean that the two components "
            "cannot be told apart. Arrows are stretched to the dots: compare their directions, not their "
            "lengths with dots."
        ),
        key=(
            ("dot-solid", "adapter"),
            ("arrow", "target"),
            ("ellipse", "95 % of where it may lie"),
        ),
        tag="" if used >= 2 else "not supported" if used == 0 else "second component not supported",
        wide=len(traits.sources) + len(traits.targets) > CROWDED,
    )


def _loose(traits: Traits) -> list[str]:
    """Which of the two components move under resampled adapters as much as those of noise."""
    one = traits.stability.resamplings.get("adapters")
    if one is None:
        return []
    count = min(2, len(one.congruence_mean))
    return [component_name(traits, c) for c in range(count) if one.congruence_mean[c] < one.noise_p95[c]]


def _apart_from_origin(point: np.ndarray, covariance: np.ndarray) -> bool:
    """Whether the 95 % ellipse about a point leaves out the middle."""
    long, short, angle = ellipse(covariance)
    if not (isfinite(long) and short > 0):
        return False
    turn = np.radians(angle)
    along = float(point @ np.array([np.cos(turn), np.sin(turn)]))
    across = float(point @ np.array([-np.sin(turn), np.cos(turn)]))
    return (along / long) ** 2 + (across / short) ** 2 > 1


def _biplot_table(traits: Traits) -> Table:
    plane = traits.biplot
    assert plane is not None
    rows: list[Row] = []
    for kind, names, points, covariances in (
        ("adapter", traits.sources, plane.scores, plane.scores_covariance),
        ("target", traits.targets, plane.loadings, plane.loadings_covariance),
    ):
        for name, point, covariance in zip(names, points, covariances, strict=True):
            errors = np.sqrt(np.maximum(np.diag(covariance), 0))
            entries = (
                Entry(signed(float(point[c]), 2), f"± {plain(ROUNDED_Z * float(errors[c]), 2)}")
                for c in range(2)
            )
            rows.append((name, kind, *entries))
    return Table(
        "Scores of adapters and loadings of targets, with 1.96 standard errors beneath.",
        ("name", "kind", component_name(traits, 0), component_name(traits, 1)),
        rows,
    )


def stability(traits: Traits) -> Shown | None:
    """How like themselves the components stay when the data are resampled, beside what noise reaches."""
    table = stability_table(traits)
    if table is None or not traits.stability.examined:
        return None
    used = traits.n_components.get("used") or 0
    lines: list[Line] = []
    firm = []
    for c in range(traits.stability.examined):
        tag = "" if c < used else " (not supported)"
        lines.append(Line(f"{component_name(traits, c)}{tag}", heading=True))
        for resampling in traits.stability.resamplings.values():
            lines.append(_stability_line(resampling, c))
            if c < used and resampling.kind == "adapters":
                mean, noise = float(resampling.congruence_mean[c]), float(resampling.noise_p95[c])
                firm.append(f"{component_name(traits, c)} keeps {plain(mean, 2)} (noise: {plain(noise, 2)})")
    said = "How like itself each component stays when adapters, items or seeds are drawn again, or a source "
    said += "or target is left out: 1 is the same component. "
    said += f"Of the supported ones, {listed(firm)} over adapters." if firm else "No component is supported."
    return Shown(
        name="stability",
        title="How stable they are",
        said=typeset(said),
        svg=row_chart(
            lines,
            key="stability",
            title="Congruence of components under resampling",
            description="Tucker's congruence: mean, 5th percentile, and what tables without structure "
            "reach. The same numbers stand in the table.",
            heads=("mean", "5 %", "noise 95 %"),
            axis="congruence with the component of the whole table",
            ends=(0.0, 1.0),
            width=530,
        ),
        table=table,
        distrust=(
            "Components of pure noise also agree with their own bootstrap: stable means beyond the grey "
            "band and near 1, not merely high."
        ),
        key=(
            ("dot-solid", "mean; the line reaches down to the 5th percentile"),
            ("noise", "what noise reaches (95th percentile)"),
        ),
    )


def _stability_line(one: Resampling, c: int) -> Line:
    """Congruence of one component under one kind of resampling."""
    mean, low, noise = (float(part[c]) for part in (one.congruence_mean, one.congruence_p05, one.noise_p95))
    beyond = isfinite(noise) and low > noise
    return Line(
        label=f"{clean(one.kind).replace('_', ' ')} ({one.draws:,})",
        value=mean,
        low=low,
        high=mean if isfinite(low) else nan,
        band=(0.0, noise) if isfinite(noise) else (nan, nan),
        texts=(plain(mean, 2), plain(low, 2), plain(noise, 2)),
        tone="neutral" if beyond else "quiet",
        solid=beyond,
    )


def traits_part(matrix: TransferMatrix, traits: Traits | None) -> dict[str, Any]:
    """What ``traits.html`` shows."""
    cards = {"adapters": adapter_figures(matrix, traits)}
    if traits is None:
        return cards | {"traits": None}
    return cards | {
        "traits": traits,
        "trait_figures": trait_figures(traits),
        "loading_figures": loading_figures(traits),
        "loadings_have_intervals": bool(np.isfinite(traits.loadings_low).any()),
        "effects_table": effects_table(traits, shown_components(traits), beneath=True),
    }


def trait_figures(traits: Traits) -> tuple[Shown, ...]:
    """The evidence for the number of traits, the plane of the first two, and how stable they are."""
    found = (
        scree(traits, traits_in_words(traits)[1]),
        cross_validation(traits),
        biplot(traits),
        stability(traits),
    )
    return tuple(one for one in found if one is not None)


def loading_figures(traits: Traits) -> tuple[Shown, ...]:
    """Loadings of each leading component, sorted so that the poles can be read off."""
    used = traits.n_components.get("used") or 0
    figures = []
    for c in range(shown_components(traits)):
        low, high = float(traits.null_p05[c]), float(traits.null_p95[c])
        known = isfinite(low) and isfinite(high)
        noise = f"noise: {share(low)} to {share(high)}" if known else "noise band unknown"
        explained = f"{share(float(traits.explained_variance_ratio[c]))} of the variance ({noise})"
        naming = naming_in_words(traits, c) if c < used else ""
        figures.append(
            Shown(
                name=f"loadings-{c + 1}",
                title=component_name(traits, c),
                said=typeset(explained + (f"; {naming}" if naming else "")),
                svg=_loadings_chart(traits, c),
                table=loadings_table(traits, [c]),
                tag="" if c < used else "not supported",
                faint=c >= used,
            )
        )
    return tuple(figures)


def naming_in_words(traits: Traits, c: int) -> str:
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


def _loadings_chart(traits: Traits, c: int) -> Markup:
    loadings = [float(loading) for loading in traits.loadings[:, c]]
    # Largest first, unknown last.
    order = sorted(range(len(loadings)), key=lambda t: -loadings[t] if isfinite(loadings[t]) else 2.0)
    rows = [_loading_row(traits, t, c) for t in order]
    return forest(
        rows,
        key=f"loadings-{c + 1}",
        title=f"Loadings on {component_name(traits, c)}",
        description=(
            f"{counted(len(rows), 'target')} with loading and 95 % interval; filled dots: the interval "
            "excludes zero. The same numbers stand in the table below."
        ),
        limit=1.0,
        ends=("", ""),
        tick="1",
        label_room=126.0,
        text_room=50.0,
    )


def _loading_row(traits: Traits, t: int, c: int) -> ChartRow:
    loading = float(traits.loadings[t, c])
    low, high = float(traits.loadings_low[t, c]), float(traits.loadings_high[t, c])
    return ChartRow(
        label=clean(traits.targets[t]),
        value=loading,
        low=low,
        high=high,
        text=signed(loading, 2) if isfinite(loading) else "unknown",
        solid=low > 0 or high < 0,
    )


def adapter_figures(
    matrix: TransferMatrix, traits: Traits | None
) -> tuple[tuple[AdapterProfile, Table | None], ...]:
    """The card of each adapter, with the table of its figure."""
    return tuple((profile, _card_table(profile)) for profile in profiles(read(matrix), traits))


def _card_table(card: AdapterProfile) -> Table | None:
    if not card.rows:
        return None
    heading, rows = "Traits", []
    for row in card.rows:
        if row.heading:
            heading = row.label
        elif row.text:
            rows.append((row.label, heading, row.text))
    return Table("Gains over the base with 95 % intervals.", ("what", "among", "effect"), rows)
