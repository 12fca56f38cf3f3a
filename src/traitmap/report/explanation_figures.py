"""Why gains are what they are, as figures: properties of pairs, shares, odd pairs, asymmetry, strengths."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, nan

from traitmap.analysis.explanation.records import (
    AsymmetricPair,
    Explanation,
    FeatureEffect,
    GroupShare,
    OddCell,
    Strength,
)
from traitmap.matrix.statistics import Interval
from traitmap.report.alternative import Entry, TextTable
from traitmap.report.records import Shown
from traitmap.report.row_charts import Line, row_chart
from traitmap.wording import (
    clean,
    counted,
    interval,
    listed,
    plain,
    probability,
    related,
    sentence,
    share,
    signed,
    typeset,
)

LEVEL = 0.05
MOST_PAIRS = 16
_GROUPS = ("hidden", "surface", "size")


def unit_words(found: Explanation) -> str:
    """What gains are measured in here."""
    standard = found.conditions.get("units") == "standard"
    return "standard deviations of the target" if standard else "points"


def _digits(found: Explanation) -> int:
    """Decimals of a gain in the unit of the explanation."""
    return 2 if found.conditions.get("units") == "standard" else 1


def effects(found: Explanation) -> Shown | None:
    """Standardised effects of properties of pairs, beside each other and each by itself."""
    if not (found.joint or found.alone):
        return None
    lines: list[Line] = []
    for heading, some in (("Beside each other", found.joint), ("Each by itself", found.alone)):
        if some:
            lines.append(Line(heading, heading=True))
            lines += [_effect_line(group) for group in _in_groups(some)]
    said = "What a pair of tasks has in common before training, and the gain that goes with it. "
    told = [one for one in found.joint if one.verdict == "yes"]
    if told:
        said += "Held beside each other, " + "; ".join(
            f"{_name(one)} ({clean(one.words)}) goes with {'higher' if one.effect.value > 0 else 'lower'} "
            f"gains ({_amount(one.effect, 2)} SD, {related('q', one.q)})"
            for one in told
        )
        rest = [one for one in found.joint if one.verdict == "cannot tell"]
        said += f"; of {len(rest)} others it cannot be told." if rest else "."
    else:
        said += "Of no property can it be told that it goes with gains, once the others are held constant."
    alone = [one for one in found.alone if one.verdict == "yes"]
    said += f" By themselves, {len(alone)} of {len(found.alone)} do." if found.alone else ""
    return Shown(
        name="effects",
        title="What goes with gains",
        said=typeset(said),
        svg=row_chart(
            lines,
            key="effects",
            title="Effects of properties of pairs on gains",
            description=f"{counted(len(found.joint) + len(found.alone), 'property', 'properties')} with "
            "effect, 95 % interval and what could not have been seen. The same numbers stand in the "
            "table.",
            heads=("effect in SD", "q", "verdict"),
            axis="standard deviations of gain for one standard deviation of the property",
            width=1040,
        ),
        table=_effects_table((*found.joint, *found.alone)),
        distrust=(
            f"Pairs share their tasks, so {counted(found.pairs, 'pair')} count for little more than "
            f"{counted(len(set(found.sources) | set(found.targets)), 'task')}: q comes from permuting "
            f"tasks, {found.permutations:,} times. Distrust a filled dot that lies within its grey band, "
            "and any cause: these are correlations, and only changed sources (below) are experiments."
        ),
        key=(
            ("dot-solid", "goes with gains (q < .05)"),
            ("dot-open", "cannot tell, or no"),
            ("noise", "smaller than could be seen four times in five"),
        ),
        wide=True,
    )


def _in_groups(some: Sequence[FeatureEffect]) -> list[FeatureEffect]:
    return sorted(some, key=lambda one: (_GROUPS.index(one.group), -abs(_known(one.effect.value))))


def _known(value: float) -> float:
    return value if isfinite(value) else 0.0


def _name(one: FeatureEffect) -> str:
    return clean(one.name).replace("_", " ")


def _effect_line(one: FeatureEffect) -> Line:
    yes = one.verdict == "yes"
    seen = one.detectable
    return Line(
        label=f"{_name(one)} ({one.group})",
        value=one.effect.value,
        low=one.effect.low,
        high=one.effect.high,
        band=(-seen, seen) if isfinite(seen) else (nan, nan),
        texts=(_amount(one.effect, 2), probability(one.q), one.verdict),
        tone="neutral" if yes else "quiet",
        solid=yes,
    )


def _amount(one: Interval, digits: int) -> str:
    if not one.known:
        return "unknown"
    known = isfinite(one.low) and isfinite(one.high)
    return signed(one.value, digits) + (f" {interval(one.low, one.high, digits)}" if known else "")


def _effects_table(some: Sequence[FeatureEffect]) -> TextTable:
    asked = ("property", "group", "what it says")
    heads = (
        *asked,
        "effect in SD",
        "p",
        "q",
        "seen four times in five",
        "R²",
        "Mantel p",
        "naive p",
        "verdict",
    )
    return TextTable(
        caption=(
            "Effects with 95 % intervals; p and q by permuting tasks. R²: of the property on the others. "
            "Mantel: no effects of sources and targets taken out; naive: every pair taken for a new "
            "observation."
        ),
        heads=heads,
        rows=tuple(
            (
                _name(one),
                (
                    Entry(one.group),
                    Entry(clean(one.words)),
                    Entry(typeset(_amount(one.effect, 2))),
                    Entry(probability(one.p)),
                    Entry(probability(one.q)),
                    Entry(plain(one.detectable, 2)),
                    Entry(plain(one.collinearity, 2)),
                    Entry(probability(one.mantel.p)),
                    Entry(probability(one.mantel.naive_p)),
                    Entry(one.verdict),
                ),
            )
            for one in some
        ),
    )


def shares(found: Explanation) -> Shown | None:
    """Shares of the variance between pairs that hidden, surface and size explain, beside chance."""
    groups = found.dominance.groups
    if not groups:
        return None
    rest = found.dominance.unexplained
    lines = [_share_line(group) for group in groups]
    lines.append(Line("unexplained", value=100 * rest, texts=(share(rest), "", ""), tone="quiet"))
    return Shown(
        name="shares",
        title="Hidden against surface",
        said=typeset(_shares_said(found)),
        svg=row_chart(
            lines,
            key="shares",
            title="Shares of the variance between pairs",
            description="Share that each group of properties explains, beside what the same properties "
            "explain when tasks are permuted. The same numbers stand in the table.",
            heads=("share", "beyond chance", "p"),
            axis="share of the variance between pairs, after effects of sources and targets",
            unit=" %",
            width=530,
            ends=(0.0, 100.0) if rest > 0.5 else None,
        ),
        table=_shares_table(found),
        distrust=(
            "Any property explains something by chance: only what lies beyond the grey band counts. Size "
            "is a property of a source alone; where it is missing here, the sources' own strengths hold "
            "it."
        ),
        key=(
            ("dot-solid", "beyond chance"),
            ("dot-open", "not"),
            ("noise", "chance: up to its 95th percentile"),
            ("tick", "chance on average"),
        ),
    )


def _shares_said(found: Explanation) -> str:
    """What the figure shows and what was found, in sentences."""
    parts = [
        f"{group.group} {share(group.share)} (chance gives {share(group.null_mean)}, {related('p', group.p)})"
        for group in found.dominance.groups
    ]
    apart = found.dominance.hidden_less_surface
    told = (
        f"Hidden explains more than surface: {_points(apart)}."
        if found.dominance.verdict == "yes" and apart.value > 0
        else f"Surface explains more than hidden: {_points(apart)}."
        if found.dominance.verdict == "yes"
        else f"Which of hidden and surface explains more cannot be told: {_points(apart)}."
        if apart.known
        else ""
    )
    rest = share(found.dominance.unexplained)
    return f"Of the variance of gains between pairs, {listed(parts)}; {rest} is unexplained. {told}"


def _shares_table(found: Explanation) -> TextTable:
    return TextTable(
        caption=(
            "Shares by general dominance, with what chance gives (tasks permuted): mean and 95th percentile."
        ),
        heads=("group", "properties", "share", "chance", "chance 95 %", "beyond chance", "p", "verdict"),
        rows=(
            *(
                (
                    group.group,
                    (
                        Entry(clean(", ".join(group.features))),
                        *(Entry(share(value)) for value in (group.share, group.null_mean, group.null_p95)),
                        Entry(typeset(_points(group.beyond))),
                        Entry(probability(group.p)),
                        Entry(group.verdict),
                    ),
                )
                for group in found.dominance.groups
            ),
            (
                "unexplained",
                (
                    Entry(""),
                    Entry(share(found.dominance.unexplained)),
                    Entry(""),
                    Entry(""),
                    Entry(typeset(_points(found.dominance.unexplained_beyond))),
                    Entry(""),
                    Entry(""),
                ),
            ),
        ),
    )


def _share_line(one: GroupShare) -> Line:
    yes = one.verdict == "yes"
    return Line(
        label=one.group,
        value=100 * one.share,
        band=(0.0, 100 * one.null_p95),
        tick=100 * one.null_mean,
        texts=(share(one.share), _points(one.beyond), probability(one.p)),
        tone="neutral" if yes else "quiet",
        solid=yes,
    )


def _points(one: Interval) -> str:
    """``+6 points of variance [-15, +28]``, short."""
    if not one.known:
        return "unknown"
    return f"{signed(100 * one.value, 0)} % {interval(100 * one.low, 100 * one.high, 0)}"


def odd_cells(found: Explanation) -> Shown | None:
    """Pairs that depart from what surface similarity predicts; the oddest ones where none does."""
    some = found.odd.odd or found.odd.cells[: MOST_PAIRS // 2]
    if not some:
        return None
    unit, odd = unit_words(found), len(found.odd.odd)
    lines = [_odd_line(one, bool(found.odd.odd), _digits(found)) for one in some[:MOST_PAIRS]]
    said = (
        "Surface similarity predicts each pair's gain from the others (it explains "
        f"{share(found.odd.r_squared)} of the variance). "
    )
    if odd:
        said += (
            f"{odd} of {counted(found.odd.tested, 'pair')} depart from it by more than noise and lie further "
        )
        said += "out than 19 in 20; their reasons, where one was found, stand beneath."
    else:
        said += f"None of {counted(found.odd.tested, 'pair')} is odd beyond noise"
        said += f" ({found.odd.reason})" if found.odd.reason else ""
        said += ": the largest departures are shown, and can all be chance."
    return Shown(
        name="odd-cells",
        title="Odd pairs",
        said=typeset(said),
        svg=row_chart(
            lines,
            key="odd-cells",
            title="Gain against what surface similarity predicts",
            description=f"{counted(len(lines), 'pair')} with predicted and measured gain, and the interval "
            "of the departure. The same numbers stand in the table, with reasons.",
            heads=("departs by", "q"),
            axis=f"gain in {unit}",
            width=820,
        ),
        table=_odd_table(some, unit, _digits(found)),
        distrust=(
            "A departure of noisy cells is no finding: its interval must leave the prediction out. "
            "Reasons are what else is unusual of the pair, not proof."
        ),
        key=(
            ("dot-better", "measured, more than predicted"),
            ("dot-worse", "less than predicted"),
            ("dot-open", "not beyond noise"),
            ("tick", "predicted from surface similarity"),
        ),
        tag="" if odd else "none beyond noise",
        wide=True,
    )


def _odd_line(one: OddCell, odd: bool, digits: int) -> Line:
    q = one.q_noise if isfinite(one.q_noise) else one.q_scatter
    return Line(
        label=f"{clean(one.source)} → {clean(one.target)}",
        value=one.gain,
        low=one.predicted + one.departure.low,
        high=one.predicted + one.departure.high,
        tick=one.predicted,
        texts=(_amount(one.departure, digits), probability(q)),
        tone=("better" if one.departure.value > 0 else "worse") if odd else "quiet",
        solid=odd,
    )


def _odd_table(some: Sequence[OddCell], unit: str, digits: int) -> TextTable:
    return TextTable(
        caption=(
            f"Gains in {unit}; predicted from surface similarity without the pair itself; departure with "
            "the 95 % interval of noise; q of noise, and among the scatter of all pairs."
        ),
        heads=("pair", "gain", "predicted", "departs by", "q noise", "q scatter", "reasons"),
        rows=tuple(
            (
                f"{clean(one.source)} → {clean(one.target)}",
                (
                    Entry(typeset(signed(one.gain, digits))),
                    Entry(typeset(signed(one.predicted, digits))),
                    Entry(typeset(_amount(one.departure, digits))),
                    Entry(probability(one.q_noise)),
                    Entry(probability(one.q_scatter)),
                    Entry(reasons_text(one)),
                ),
            )
            for one in some
        ),
    )


def reasons_text(one: OddCell, most: int = 3) -> str:
    """The strongest reasons of an odd pair in words."""
    said = [clean(reason.words) for reason in one.reasons[:most]]
    return typeset("; ".join(said)) if said else "no reason found"


def odd_reasons(found: Explanation, most: int = 8) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """(pair, its reasons) of the oddest pairs that are beyond noise."""
    return tuple(
        (
            f"{clean(one.source)} → {clean(one.target)}",
            tuple(typeset(sentence(clean(reason.words))) for reason in one.reasons[:3])
            or ("No reason found.",),
        )
        for one in found.odd.odd[:most]
    )


def asymmetry(found: Explanation) -> Shown | None:
    """Both directions of the most asymmetric pairs of tasks."""
    pairs = sorted(
        found.asymmetry.pairs, key=lambda one: (_last(one.q), _last(one.p), -abs(one.difference.value))
    )
    if not pairs:
        return None
    unit, digits = unit_words(found), _digits(found)
    beyond = [pair for pair in pairs if pair.q < LEVEL]
    back, names = found.asymmetry.reciprocity, counted(len(pairs), "pair")
    said = f"{len(beyond) or 'None'} of {names} of tasks that are both source and target "
    said += f"{'is' if len(beyond) < 2 else 'are'} asymmetric beyond noise. "
    if back.known:
        said += (
            "Over all pairs, the gain in one direction says "
            f"{'something' if found.asymmetry.p < LEVEL else 'nothing that can be told'} of the other: r "
            f"= {_amount(back, 2)}, {related('p', found.asymmetry.p)}."
        )
    return Shown(
        name="asymmetry",
        title="One way and back",
        said=typeset(said),
        svg=row_chart(
            [_pair_line(one, digits) for one in pairs[:MOST_PAIRS]],
            key="asymmetry",
            title="Asymmetry of transfer",
            description=f"The {counted(min(len(pairs), MOST_PAIRS), 'pair')} of tasks that differ most "
            "surely: gain one way less gain back, with its 95 % interval. The same numbers stand in the "
            "table.",
            heads=("there", "back", "difference", "q"),
            axis=f"gain there less gain back, in {unit}",
            width=920,
        ),
        table=TextTable(
            caption=f"Gains in {unit}, their difference with its 95 % interval, p and q of none.",
            heads=("pair", "there", "back", "difference", "p", "q"),
            rows=tuple(
                (
                    f"{clean(one.first)} → {clean(one.second)}",
                    (
                        Entry(typeset(signed(one.forward, digits))),
                        Entry(typeset(signed(one.backward, digits))),
                        Entry(typeset(_amount(one.difference, digits))),
                        Entry(probability(one.p)),
                        Entry(probability(one.q)),
                    ),
                )
                for one in pairs
            ),
        ),
        distrust=(
            "A target that is near its floor or ceiling cannot move as far as the other: that alone "
            "makes a pair asymmetric. With few seeds the intervals are long."
        ),
        key=(("dot-solid", "beyond noise (q < .05)"), ("dot-open", "not")),
        tag="" if beyond else "none beyond noise",
        wide=True,
    )


def _last(value: float) -> float:
    """Unknown after everything else."""
    return value if isfinite(value) else 2.0


def _pair_line(one: AsymmetricPair, digits: int) -> Line:
    solid = one.q < LEVEL
    return Line(
        label=f"{clean(one.first)} → {clean(one.second)}",
        value=one.difference.value,
        low=one.difference.low,
        high=one.difference.high,
        texts=(
            signed(one.forward, digits),
            signed(one.backward, digits),
            _amount(one.difference, digits),
            probability(one.q),
        ),
        tone="neutral" if solid else "quiet",
        solid=solid,
    )


def strengths(found: Explanation, side: str) -> Shown | None:
    """Donors (sources) or recipients (targets) with what chance alone would spread them to."""
    donors = side == "donors"
    some = found.donors if donors else found.recipients
    if not some:
        return None
    unit, noun = unit_words(found), "source" if donors else "target"
    beyond = [one for one in some if one.q < LEVEL]
    verb = "give more or less than the others" if donors else "gain more or less than the others"
    said = (
        f"{listed([f'{clean(one.name)} ({_amount(one.effect, 1)})' for one in beyond])} {verb} beyond chance."
        if beyond
        else f"No {noun} can be told to {verb}."
    )
    ordered = sorted(some, key=lambda one: (not one.effect.known, -_known(one.effect.value)))
    return Shown(
        name=side,
        title="Strong sources" if donors else "Targets that gain",
        said=typeset(said),
        svg=row_chart(
            [_strength_line(one) for one in ordered],
            key=side,
            title=f"Strength of every {noun}",
            description=f"{counted(len(some), noun)} with mean gain against the others, 95 % interval and "
            "chance band. The same numbers stand in the table.",
            heads=("strength", "q"),
            axis=f"mean gain against the average {noun}, in {unit}",
            width=530,
        ),
        table=TextTable(
            caption=f"Strength in {unit} with 95 % interval; the 95 % band of chance; p and q of none.",
            heads=(noun, "strength", "chance 95 %", "p", "q"),
            rows=tuple(
                (
                    clean(one.name),
                    (
                        Entry(typeset(_amount(one.effect, 1))),
                        Entry(typeset(interval(one.null_low, one.null_high))),
                        Entry(probability(one.p)),
                        Entry(probability(one.q)),
                    ),
                )
                for one in ordered
            ),
        ),
        distrust=f"The interval is over {'targets' if donors else 'sources'}; one extreme cell can carry a "
        "mean.",
        key=(
            ("dot-better", "more beyond chance"),
            ("dot-worse", "less beyond chance"),
            ("dot-open", "neither"),
            ("noise", "chance, 95 %"),
        ),
        tag="" if beyond else "cannot tell",
    )


def _strength_line(one: Strength) -> Line:
    solid = one.q < LEVEL
    return Line(
        label=clean(one.name),
        value=one.effect.value,
        low=one.effect.low,
        high=one.effect.high,
        band=(one.null_low, one.null_high),
        texts=(_amount(one.effect, 1), probability(one.q)),
        tone=("better" if one.effect.value > 0 else "worse") if solid else "quiet",
        solid=solid,
    )
