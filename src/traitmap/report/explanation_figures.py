"""Why gains are what they are, as figures: properties of pairs of tasks, and of sources and targets alone.

Pairs: effects of properties, shares of the variance, odd pairs, asymmetry. Single tasks: strengths of
sources and targets, and what the strong ones have in common. Every function returns None where its part of
the explanation is empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import isfinite
from typing import TYPE_CHECKING

from traitmap.analysis.explanation.records import (
    AsymmetricPair,
    Asymmetry,
    Explanation,
    FeatureEffect,
    LevelEffect,
    OddCell,
    OddCells,
)
from traitmap.analysis.tables import (
    asymmetries_table,
    by_strength,
    feature_effects_table,
    points_of_variance,
    shares_table,
    strengths_table,
)
from traitmap.matrix.statistics import Interval
from traitmap.report.first_screen import is_clean
from traitmap.report.records import Shown
from traitmap.report.row_charts import ChartRow, estimate_row, row_chart
from traitmap.table import Table
from traitmap.wording import (
    UNKNOWN,
    clean,
    counted,
    estimate,
    listed,
    none_of,
    plain,
    probability,
    related,
    sentence,
    share,
    signed,
    typeset,
)

if TYPE_CHECKING:
    from traitmap.analysis.verdicts import Verdicts

LEVEL = 0.05
MOST_PAIRS = 16
MOST_LEVELS = 16
_GROUPS = ("hidden", "surface", "size")
_UNSEEN = ("noise", "below the minimal detectable effect (80 % power)")


def _digits(explanation: Explanation) -> int:
    """Decimals of a gain in the unit of the explanation."""
    return 2 if explanation.conditions.get("units") == "standard" else 1


def _known(value: float, otherwise: float) -> float:
    """For sorting, where NaN has no place."""
    return value if isfinite(value) else otherwise


def _name(effect: FeatureEffect | LevelEffect) -> str:
    return clean(effect.name).replace("_", " ")


def effects(explanation: Explanation) -> Shown | None:
    """Standardised effects of properties of pairs, beside each other and each by itself.

    A dot is filled where the verdict is yes; the grey band is the minimal detectable effect (80 % power).
    """
    joint, alone = explanation.joint, explanation.alone
    if not (joint or alone):
        return None
    rows: list[ChartRow] = []
    stand = any(effect.stands for effect in (*joint, *alone))
    for heading, group in (("Beside each other", joint), ("Each by itself", alone)):
        shown = [effect for effect in group if effect.verdict != "cannot tell" or not stand]
        if shown:
            rows.append(ChartRow(heading, heading=True))
        rows += [
            estimate_row(
                f"{_name(effect)} ({effect.group})",
                effect.effect,
                estimate(effect.effect, 2),
                probability(effect.q),
                effect.verdict_words,
                clear=effect.stands,
                band=effect.detectable,
            )
            for effect in sorted(
                shown, key=lambda one: (_GROUPS.index(one.group), -abs(_known(one.effect.value, 0.0)))
            )
        ]
    tasks = len(set(explanation.sources) | set(explanation.targets))
    return Shown(
        name="effects",
        title="What goes with gains",
        description=_effects_description(joint, alone),
        chart=row_chart(
            rows,
            "Effects of properties of pairs on gains",
            f"{counted(sum(not row.heading for row in rows), 'property', 'properties')} with effect, 95 % "
            "interval and what could not have been seen.",
            heads=("effect in SD", "q", "verdict"),
            axis="standard deviations of gain for one standard deviation of the property",
        ),
        table=feature_effects_table((*joint, *alone)),
        caveat=(
            f"Pairs share their tasks, so {counted(explanation.pairs, 'pair')} count for little more than "
            f"{counted(tasks, 'task')}: q comes from permuting tasks, {explanation.permutations:,} times. "
            "Distrust a filled dot that lies within its grey band, and any cause: these are correlations, "
            "and only changed sources (below) are experiments."
        ),
        key=(
            ("dot-solid", "goes with gains (q < .05)"),
            ("dot-open", "does not, or rests on one pair or source"),
            _UNSEEN,
        ),
        wide=True,
        nothing="" if stand else f"{none_of(len(joint) + len(alone), 'property', 'properties')} can be told",
    )


def _effects_description(joint: Sequence[FeatureEffect], alone: Sequence[FeatureEffect]) -> str:
    """Which properties go with gains, in sentences."""
    text = ""
    clear = [effect for effect in joint if effect.stands]
    if clear:
        text += "Held beside each other, " + "; ".join(
            f"{_name(effect)} ({clean(effect.words)}) goes with "
            f"{'higher' if effect.effect.value > 0 else 'lower'} gains "
            f"({estimate(effect.effect, 2)} SD, {related('q', effect.q)})"
            for effect in clear
        )
        open_ = sum(effect.verdict == "cannot tell" for effect in joint)
        text += f"; of {counted(open_, 'other')} it cannot be told." if open_ else "."
    else:
        text += "Of no property can it be told that it goes with gains, once the others are held constant."
    for effect in joint:
        if effect.rests_on:
            text += f" {_name(effect).capitalize()} would, but rests on {clean(listed(effect.rests_on))}."
    by_themselves = sum(effect.stands for effect in alone)
    return text + (f" By themselves, {by_themselves} of {len(alone)} do." if alone else "")


def shares(explanation: Explanation) -> Shown | None:
    """Shares of the variance between pairs that hidden, surface and size explain, beside chance.

    The grey band reaches to the 95th percentile of what chance gives, the tick stands at its mean.
    """
    dominance = explanation.dominance
    if not dominance.groups:
        return None
    rest = dominance.unexplained
    rows = [
        estimate_row(
            group.group,
            Interval(100 * group.share),
            share(group.share),
            points_of_variance(group.beyond),
            probability(group.p),
            clear=group.verdict == "yes" and not group.rests_on,
            band=(0.0, 100 * group.null_p95),
            tick=100 * group.null_mean,
        )
        for group in dominance.groups
    ]
    rows.append(ChartRow("unexplained", value=100 * rest, texts=(share(rest), "", ""), tone="quiet"))
    return Shown(
        name="shares",
        title="Hidden against surface",
        description=_shares_description(explanation),
        chart=row_chart(
            rows,
            "Shares of the variance between pairs",
            "Share that each group of properties explains, beside what the same properties explain when "
            "tasks are permuted.",
            heads=("share", "beyond chance", "p"),
            axis="share of the variance between pairs, after effects of sources and targets",
            unit=" %",
            ends=(0.0, 100.0) if rest > 0.5 else None,
        ),
        table=shares_table(dominance),
        caveat=(
            "Any property explains something by chance: only what lies beyond the grey band counts. Size is "
            "a property of a source alone; where it is missing here, the sources' own strengths hold it."
        ),
        key=(
            ("dot-solid", "beyond chance"),
            ("dot-open", "not"),
            ("noise", "chance: up to its 95th percentile"),
            ("tick", "chance on average"),
        ),
        wide=True,
        aside=True,
        nothing=""
        if any(group.verdict == "yes" for group in dominance.groups)
        else f"{none_of(len(dominance.groups), 'group')} of properties explains more than chance",
    )


def _shares_description(explanation: Explanation) -> str:
    """How much each group explains, and which of hidden and surface explains more."""
    dominance = explanation.dominance
    parts = [
        f"{group.group} {share(group.share)} (chance gives {share(group.null_mean)}, {related('p', group.p)})"
        for group in dominance.groups
    ]
    text = f"Of the variance of gains between pairs, {listed(parts)}; "
    text += f"{share(dominance.unexplained)} is unexplained. "
    difference = dominance.hidden_less_surface
    amount = points_of_variance(difference)
    if dominance.rests_on:
        rests = clean(listed(dominance.rests_on))
        return f"{text}Which of hidden and surface explains more rests on {rests}: {amount}."
    if dominance.verdict == "yes":
        first, second = ("Hidden", "surface") if difference.value > 0 else ("Surface", "hidden")
        return f"{text}{first} explains more than {second}: {amount}."
    if difference.known:
        return f"{text}Which of hidden and surface explains more cannot be told: {amount}."
    return text


def odd_cells(explanation: Explanation, verdicts: Verdicts | None = None) -> Shown | None:
    """Pairs that depart from what surface similarity predicts; the oddest ones where none does.

    The dot is the measured gain, the tick the predicted one, the interval that of the departure. verdicts:
    pairs whose gain is something else than skill are not drawn; the table has them, with what they are.
    """
    odd = explanation.odd
    clear = [cell for cell in odd.odd if is_clean(verdicts, (cell.source, cell.target))]
    in_table = odd.odd or odd.cells[: MOST_PAIRS // 2]
    cells = clear or in_table
    if not cells:
        return None
    unit, digits = explanation.unit, _digits(explanation)
    rows = []
    for cell in cells[:MOST_PAIRS]:
        gain = Interval(cell.gain, cell.predicted + cell.departure.low, cell.predicted + cell.departure.high)
        rows.append(
            estimate_row(
                _pair(cell.source, cell.target),
                gain,
                estimate(cell.departure, digits),
                probability(cell.q_noise if isfinite(cell.q_noise) else cell.q_scatter),
                clear=bool(odd.odd),
                tone="better" if cell.departure.value > 0 else "worse",
                tick=cell.predicted,
            )
        )
    quantity = explanation.quantity
    return Shown(
        name="odd-cells",
        title="Odd pairs",
        description=_odd_description(odd, len(odd.odd) - len(clear), quantity),
        chart=row_chart(
            rows,
            f"{quantity.capitalize()} against what surface similarity predicts",
            f"{counted(len(rows), 'pair')} with predicted and measured {quantity}, and the interval of the "
            "departure; the table has reasons too.",
            heads=("departs by", "q"),
            axis=f"{quantity} in {unit}",
        ),
        table=odd_cells_table(in_table, unit, digits, verdicts, quantity=quantity),
        caveat=(
            "A departure of noisy cells is no finding: its interval must leave the prediction out. Reasons "
            "are what else is unusual of the pair, not proof."
        ),
        key=(
            ("dot-better", "measured, more than predicted"),
            ("dot-worse", "less than predicted"),
            ("tick", "predicted from surface similarity"),
        ),
        decisive=True,
        nothing=""
        if clear
        else f"each of {counted(len(odd.odd), 'odd pair')} is something else than skill"
        if odd.odd
        else f"{none_of(odd.tested, 'pair')} is odd beyond noise",
        wide=True,
    )


def _odd_description(odd: OddCells, unclean: int, quantity: str) -> str:
    """How many pairs are odd. unclean: of these, those that are something else than skill."""
    text = f"Surface similarity predicts each pair's {quantity} from the others (it explains "
    text += f"{share(odd.r_squared)} of the variance). "
    if odd.odd:
        text += f"{len(odd.odd)} of {counted(odd.tested, 'pair')} depart from it by more than noise and lie "
        text += "further out than 19 in 20"
        if unclean:
            text += f", {unclean} of them by something else than skill, which the table names"
        return f"{text}; reasons, where one was found, stand beneath."
    text += f"None of {counted(odd.tested, 'pair')} is odd beyond noise"
    text += f" ({odd.reason})" if odd.reason else ""
    return f"{text}: the largest departures are shown, and can all be chance."


def odd_cells_table(
    cells: Sequence[OddCell],
    unit: str,
    digits: int,
    verdicts: Verdicts | None = None,
    *,
    quantity: str = "gain",
) -> Table:
    """Measured and predicted gains of pairs, their departure from the prediction, and why.

    unit, digits: of the gains. Reasons are the strongest ones, in words. verdicts: what each gain is.
    quantity: what a pair has, see ``Explanation.quantity``.
    """
    called = {(cell.source, cell.target): cell.label for cell in verdicts.cells} if verdicts else {}
    return Table(
        f"{quantity.capitalize()} in {unit}; predicted from surface similarity without the pair itself; "
        "departure with the 95 % interval of noise; q of noise, and among the scatter of all pairs.",
        ("pair", quantity, "predicted", "departs by", "q noise", "q scatter", "verdict", "reasons"),
        [
            (
                _pair(cell.source, cell.target),
                signed(cell.gain, digits),
                signed(cell.predicted, digits),
                estimate(cell.departure, digits),
                probability(cell.q_noise),
                probability(cell.q_scatter),
                called.get((cell.source, cell.target), UNKNOWN),
                "; ".join(_reasons(cell)) or "no reason found",
            )
            for cell in cells
        ],
    )


def _pair(source: str, target: str) -> str:
    return f"{clean(source)} → {clean(target)}"


def _reasons(cell: OddCell) -> list[str]:
    """The strongest reasons of an odd pair in words."""
    return [clean(reason.words) for reason in cell.reasons[:3]]


def odd_reasons(
    explanation: Explanation, most: int = 8, verdicts: Verdicts | None = None
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """(pair, its reasons) of the oddest clean pairs that are beyond noise, at most ``most``."""
    clear = [cell for cell in explanation.odd.odd if is_clean(verdicts, (cell.source, cell.target))]
    return tuple(
        (
            _pair(cell.source, cell.target),
            tuple(typeset(sentence(reason)) for reason in _reasons(cell)) or ("No reason found.",),
        )
        for cell in clear[:most]
    )


def asymmetry(explanation: Explanation, verdicts: Verdicts | None = None) -> Shown | None:
    """Both directions of the most asymmetric pairs of tasks.

    At most ``MOST_PAIRS`` are drawn, the surest first; a dot is filled at q < .05. verdicts: pairs of which a
    gain is something else than skill are not drawn; the table has them, with what they are.
    """
    found = explanation.asymmetry
    pairs = sorted(
        found.pairs, key=lambda pair: (_known(pair.q, 2.0), _known(pair.p, 2.0), -abs(pair.difference.value))
    )
    if not pairs:
        return None
    unit, digits = explanation.unit, _digits(explanation)
    beyond = sum(pair.q < LEVEL for pair in pairs)
    clear = [pair for pair in pairs if pair.q < LEVEL and is_clean(verdicts, *_both_ways(pair))]
    drawn = (clear or pairs)[:MOST_PAIRS]
    return Shown(
        name="asymmetry",
        title="One way and back",
        description=_asymmetry_description(found, beyond, len(clear)),
        chart=row_chart(
            [
                estimate_row(
                    _pair(pair.first, pair.second),
                    pair.difference,
                    signed(pair.forward, digits),
                    signed(pair.backward, digits),
                    estimate(pair.difference, digits),
                    probability(pair.q),
                    clear=pair.q < LEVEL,
                )
                for pair in drawn
            ],
            "Asymmetry of transfer",
            f"The {counted(len(drawn), 'pair')} of tasks that differ most surely: gain one way less gain "
            "back, with its 95 % interval.",
            heads=("there", "back", "difference", "q"),
            axis=f"gain there less gain back, in {unit}",
        ),
        table=_with_verdicts(asymmetries_table(pairs, unit, digits), pairs, verdicts),
        caveat=(
            "A target that is near its floor or ceiling cannot move as far as the other: that alone makes a "
            "pair asymmetric. With few seeds the intervals are long."
        ),
        decisive=True,
        key=(("dot-solid", "beyond noise (q < .05), with its 95 % interval"),),
        aside=True,
        nothing=""
        if clear
        else f"each of {counted(beyond, 'asymmetric pair')} is something else than skill"
        if beyond
        else f"{none_of(len(pairs), 'pair')} of tasks is asymmetric beyond noise",
        wide=True,
    )


def _asymmetry_description(found: Asymmetry, beyond: int, clean_pairs: int) -> str:
    """How many pairs are asymmetric beyond noise, how many of them by skill, and reciprocity over all."""
    back = found.reciprocity
    text = (
        f"{beyond or 'None'} of {counted(len(found.pairs), 'pair')} of tasks that are both source and target "
    )
    text += f"{'is' if beyond < 2 else 'are'} asymmetric beyond noise"
    if clean_pairs < beyond:
        text += f", {beyond - clean_pairs} of them by something else than skill, which the table names"
    text += ". "
    if back.known:
        text += (
            "Over all pairs, the gain in one direction says "
            f"{'something' if found.p < LEVEL and not found.rests_on else 'nothing that can be told'} "
            f"of the other: r = {estimate(back, 2)}, {related('p', found.p)}."
        )
    return text


def _both_ways(pair: AsymmetricPair) -> tuple[tuple[str, str], tuple[str, str]]:
    return (pair.first, pair.second), (pair.second, pair.first)


def _with_verdicts(table: Table, pairs: Sequence[AsymmetricPair], verdicts: Verdicts | None) -> Table:
    """The table of pairs with what the gains there and back are, where it was looked at."""
    if verdicts is None:
        return table
    called = {(cell.source, cell.target): cell.label for cell in verdicts.cells}
    rows = [
        (*row, *(called.get(place, UNKNOWN) for place in _both_ways(pair)))
        for row, pair in zip(table.rows, pairs, strict=True)
    ]
    return replace(table, columns=(*table.columns, "verdict there", "verdict back"), rows=rows)


def strengths(explanation: Explanation, side: str) -> Shown | None:
    """Donors (sources) or recipients (targets) with what chance alone would spread them to.

    side: ``donors`` or ``recipients``, which is the figure's name too.
    """
    donors = side == "donors"
    tasks = explanation.donors if donors else explanation.recipients
    if not tasks:
        return None
    beyond = [f"{clean(task.name)} ({estimate(task.effect)})" for task in tasks if task.stands]
    unit = explanation.unit
    noun, others = ("source", "targets") if donors else ("target", "sources")
    verb = f"{'give' if donors else 'gain'} more or less than the others"
    return Shown(
        name=side,
        title="Strong sources" if donors else "Targets that gain",
        description=f"{listed(beyond)} {verb} beyond chance."
        if beyond
        else f"No {noun} can be told to {verb}.",
        chart=row_chart(
            [
                estimate_row(
                    clean(task.name),
                    task.effect,
                    estimate(task.effect),
                    probability(task.q),
                    clear=task.stands,
                    tone="better" if task.effect.value > 0 else "worse",
                    band=(task.null_low, task.null_high),
                )
                for task in by_strength(tasks)
            ],
            f"Strength of every {noun}",
            f"{counted(len(tasks), noun)} with the mean against the others, 95 % interval and chance band.",
            heads=("strength", "q"),
            axis=f"mean against the average {noun}, in {unit}",
        ),
        table=strengths_table(tasks, noun, unit),
        caveat=f"The interval is over {others}; one extreme cell can carry a mean.",
        key=(
            ("dot-better", "more beyond chance"),
            ("dot-worse", "less beyond chance"),
            ("dot-open", "neither"),
            ("noise", "chance, 95 %"),
        ),
        nothing="" if beyond else f"{none_of(len(tasks), noun)} can be told from the others",
    )


def levels(explanation: Explanation) -> Shown | None:
    """Correlations of properties with donor and recipient strengths, the clearest first.

    At most ``MOST_LEVELS`` are drawn; the table has all that are known.
    """
    known = sorted(
        (level for level in explanation.levels if level.r.known),
        key=lambda level: (_known(level.q, 2.0), _known(level.p, 2.0), level.name),
    )
    if not known:
        return None
    rows, clear = [], []
    told = [level for level in known if level.verdict == "yes"]
    for level in told or known:
        name, correlation = _name(level), estimate(level.r, 2)
        label = name if name.startswith(level.side) else f"{level.side} {name}"
        if level.stands:
            clear.append(f"{label} ({correlation})")
        rows.append(
            estimate_row(
                label,
                level.r,
                correlation,
                probability(level.q),
                level.verdict,
                clear=level.stands,
                band=min(level.detectable, 1.0),
            )
        )
    text = "What strong sources, or targets that gain much, have in common. "
    if clear:
        text += sentence(f"{listed(clear)} can be told") + " "
    else:
        text += f"Of {counted(len(known), 'property', 'properties')}, none can be told. "
    visible = [level.detectable for level in known if isfinite(level.detectable)]
    if visible:
        text += f"Correlations below {plain(min(visible), 2)} could not have been seen: there are only "
        most = [
            (max((level.n for level in known if level.side == side), default=0), side)
            for side in ("source", "target")
        ]
        text += " and ".join(counted(count, side) for count, side in most if count) + "."
    return Shown(
        name="levels",
        title="What strong sources and targets have in common",
        description=text,
        chart=row_chart(
            rows[:MOST_LEVELS],
            "Properties of sources and of targets against their strength",
            f"{counted(len(rows[:MOST_LEVELS]), 'property', 'properties')} with correlation and 95 % "
            "interval.",
            heads=("r", "q", "verdict"),
            axis="correlation with mean gain",
            ends=(-1.0, 1.0),
        ),
        table=levels_table(known),
        caveat=(
            "One source or target is one point here, and properties go together: the longest outputs may "
            "also be the only free texts. A correlation over ten tasks is a hint."
        ),
        key=(("dot-solid", "can be told (q < .05)"), _UNSEEN),
        wide=True,
        nothing="" if clear else f"{none_of(len(known), 'property', 'properties')} can be told",
    )


def levels_table(levels: Sequence[LevelEffect]) -> Table:
    """Correlations of properties of single tasks with their strengths, with what could have been seen.

    levels: known ones, in the order of the rows.
    """
    return Table(
        "Pearson's r with Fisher's 95 % interval; p by permuting tasks, q over all of a side.",
        (
            *("property", "of", "group", "what it says", "r", "p", "q"),
            *("minimal detectable", "tasks", "verdict"),
        ),
        [
            (
                _name(level),
                f"{level.side}s",
                level.group,
                level.words,
                estimate(level.r, 2),
                probability(level.p),
                probability(level.q),
                plain(level.detectable, 2),
                str(level.n),
                level.verdict,
            )
            for level in levels
        ],
    )
