"""What a comparison of runs says, in lines and tables; each sentence says what is there and no more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import isfinite
from statistics import median
from typing import TYPE_CHECKING

from traitmap.analysis.verdicts import GLYPHS
from traitmap.matrix.reading import SIGNIFICANT
from traitmap.matrix.statistics import detectable, error_of_width
from traitmap.table import Entry, Row, Table, to_notebook
from traitmap.wording import (
    UNKNOWN,
    clean,
    counted,
    estimate,
    interval,
    listed,
    plain,
    probability,
    related,
    share,
    signed,
)

if TYPE_CHECKING:
    from traitmap.analysis.agreement import Agreement, Association, Picks
    from traitmap.analysis.comparison import ComparedCell, Comparison, Outcome
    from traitmap.matrix.reading import SIGNIFICANT
from traitmap.matrix.statistics import Interval

NAMED = 2  # cells that a line names
MOST_ROWS = 20  # of the table of cells
MOST_CONDITIONS = 12


def lines(comparison: Comparison) -> list[tuple[str, str]]:
    """HOLDS, DIFFERS, AGREE, PICKS, CHANGED: a heading and a line each."""
    return [
        ("HOLDS", _holds(comparison)),
        ("DIFFERS", _differs(comparison)),
        ("AGREE", _agree(comparison)),
        ("PICKS", _picks(comparison)),
        ("CHANGED", _changed(comparison)),
    ]


def title(comparison: Comparison) -> str:
    """``a and b · 9 shared sources x 14 shared targets``."""
    names = listed(tuple(map(clean, comparison.names)))
    sources = counted(len(comparison.sources), "shared source")
    return f"{names} · {sources} x {counted(len(comparison.targets), 'shared target')}"


def _tested(comparison: Comparison) -> list[ComparedCell]:
    return [cell for cell in comparison.transfers if cell.outcome != "untested"]


def _holds(comparison: Comparison) -> str:
    tested = _tested(comparison)
    if not tested:
        return "cannot be told of single cells: they have no intervals" + _untold(comparison)
    holding = comparison.holding
    text = f"{len(holding)} of {counted(len(tested), 'transfer')} are beyond noise in the same direction in "
    text += "both" if len(comparison.names) == 2 else f"all {len(comparison.names)}"
    text += _may_be(holding)
    text += _unclean(sum(cell.outcome == "holds" and not cell.clean for cell in comparison.transfers))
    return text + (f": {_cells(holding)}" if holding else "")


def _may_be(cells: Sequence[ComparedCell]) -> str:
    """How many of some clean cells may be something else all the same; nothing where none may."""
    number = sum(cell.may_be_unclean for cell in cells)
    return f" ({number} of them may be something else than skill)" if number else ""


def _unclean(number: int) -> str:
    """How many cells beside the clean ones are unclean; nothing where none is."""
    return f", {number} more {'is' if number == 1 else 'are'} something else than skill" if number else ""


def _untold(comparison: Comparison) -> str:
    return "" if comparison.transfers else "; no transfer is known in two of them"


def _differs(comparison: Comparison) -> str:
    tested = _tested(comparison)
    if not tested:
        return "cannot be told of single cells"
    differing = comparison.differing
    opposite = sum(cell.outcome == "opposite" for cell in differing)
    paired = sum(cell.paired for cell in tested)
    text = f"{len(differing)} of {len(tested)} are not the same beyond noise{_may_be(differing)}"
    text += f", {opposite} of them of opposite sign" if opposite else ""
    text += _unclean(sum(cell.q_differs < SIGNIFICANT and not cell.clean for cell in tested))
    if paired:
        text += f" ({'' if paired == len(tested) else f'{paired} '}on the same items)"
    if differing:
        text += ": " + "; ".join(
            f"{_place(cell)} {' against '.join(signed(gain.value, cell.digits) for gain in cell.gains)}, "
            f"differing by {estimate(cell.difference, cell.digits)}{_unit(cell)}"
            for cell in differing[:NAMED]
        )
        text += f" and {len(differing) - NAMED} more" if len(differing) > NAMED else ""
    elif errors := [
        error_of_width(cell.difference.high - cell.difference.low)
        for cell in tested
        if cell.unit == "points" and isfinite(cell.difference.low)
    ]:
        effect = plain(detectable(median(errors)))
        text += f"; the minimal detectable difference is {effect} points (80 % power, median cell)"
    if min(comparison.seeds, default=0) == 1:
        text += "; with 1 seed a difference may be of the training's noise"
    return text


def _cells(cells: Sequence[ComparedCell]) -> str:
    named = "; ".join(
        f"{_place(cell)} {', '.join(estimate(gain, cell.digits) for gain in cell.gains)}{_unit(cell)}"
        for cell in cells[:NAMED]
    )
    return named + (f" and {len(cells) - NAMED} more" if len(cells) > NAMED else "")


def _place(cell: ComparedCell) -> str:
    return f"{clean(cell.source)} -> {clean(cell.target)}"


def _unit(cell: ComparedCell) -> str:
    return "" if cell.unit in ("points", "") else f" {clean(cell.unit)}"


def _pairs(comparison: Comparison) -> list[Agreement]:
    """Every two runs, those that agree least first."""
    return sorted(
        comparison.agreements,
        key=lambda pair: pair.gains.value.value if pair.gains.value.known else -2.0,
    )


def _agree(comparison: Comparison) -> str:
    pairs = _pairs(comparison)
    compared = [pair for pair in pairs if pair.gains.value.known]
    if not compared:
        return f"cannot be told: {pairs[0].reason or pairs[0].gains.value.reason}"
    if len(compared) > 1:
        values = [pair.gains.value.value for pair in compared]
        beyond = sum(pair.gains.p < SIGNIFICANT for pair in compared)
        patterns = [pair.pattern.value.value for pair in compared if pair.pattern.value.known]
        text = f"gains correlate r = {plain(min(values), 2)} to {plain(max(values), 2)} between runs, "
        text += f"{beyond} of {len(compared)} pairs beyond chance"
        if patterns:
            text += "; beyond means of sources and targets "
            text += f"{plain(min(patterns), 2)} to {plain(max(patterns), 2)}"
        alike = sum(pair.traits.subspace.p < SIGNIFICANT for pair in compared)
        return f"{text}; components are alike beyond chance in {alike} of {len(compared)}"
    pair = compared[0]
    return (
        f"gains correlate {_association(pair.gains)}; beyond means of sources and targets "
        f"{_association(pair.pattern)}; {_traits(pair)}"
    )


def _association(measure: Association) -> str:
    if not measure.value.known:
        return f"cannot be told ({measure.value.reason})"
    value = f"r = {plain(measure.value.value, 2)}"
    if isfinite(measure.value.low):
        value += f" {interval(measure.value.low, measure.value.high, 2)}"
    return f"{value} (permuted sources reach {plain(measure.chance, 2)}, {related('p', measure.p)})"


def _traits(pair: Agreement) -> str:
    traits = pair.traits
    if traits.reason:
        return f"traits cannot be compared: {traits.reason}"
    congruences = listed(tuple(plain(part.value.value, 2) for part in traits.components))
    text = "the first component has" if len(traits.components) == 1 else "components have"
    text += f" congruence {congruences} ({related('p', traits.subspace.p)})"
    if not any(traits.supported):
        text += ", and neither run supports any as a trait"
    return text


def _picks(comparison: Comparison) -> str:
    pairs = [pair for pair in _pairs(comparison) if pair.picks is not None]
    if not pairs:
        return "cannot be told: no target has three sources that two runs know"
    if len(pairs) > 1:
        picks = [pair.picks for pair in pairs if pair.picks is not None]
        losses = [pick.lost.value for pick in picks]
        same, asked = sum(pick.same for pick in picks), sum(pick.targets for pick in picks)
        return (
            f"the best source is the same in {same} of {asked} comparisons of a target in two runs; the "
            f"pick of one loses {share(min(losses))} to {share(max(losses))} in the other, of what its best "
            "source has over the average one"
        )
    pair = pairs[0]
    assert pair.picks is not None
    first, second = (clean(comparison.names[place]) for place in (pair.first, pair.second))
    text = f"the best source is the same on {pair.picks.same} of {counted(pair.picks.targets, 'target')}; "
    text += f"picks of {first} lose {_loss(pair.picks)} in {second}"
    if pair.back is not None:
        text += f", the other way {_loss(pair.back)}"
    return text + " of what the best source has over the average one"


def _loss(picks: Picks) -> str:
    popular = _percent(picks.popular)
    return f"{_percent(picks.lost)} ({related('p', picks.p)}; its most popular source {popular})"


def _percent(loss: Interval) -> str:
    band = f" [{100 * loss.low:.0f}, {100 * loss.high:.0f}]" if isfinite(loss.low) else ""
    return share(loss.value) + band


def _changed(comparison: Comparison) -> str:
    if not comparison.conditions:
        return (
            "nothing that is recorded"
            if any(comparison.bases)
            else "cannot be told: tables do not tell how they were made"
        )
    shown = [
        f"{clean(condition.name)} ({' / '.join(_short(value) for value in condition.values)})"
        for condition in comparison.conditions[:NAMED]
    ]
    more = len(comparison.conditions) - NAMED
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def _short(value: str, most: int = 32) -> str:
    text = clean(value) or "not told"
    return text if len(text) <= most else f"{text[: most - 3]}..."


# Tables.


def cells_table(comparison: Comparison, most: int | None = MOST_ROWS) -> Table:
    """Cells that hold or differ, the surest first; the others are counted by what they are.

    most: rows that are shown; None for all that two runs know.
    """
    interesting = [
        *comparison.differing,
        *(cell for cell in comparison.holding if cell not in comparison.differing),
    ]
    rest = [cell for cell in comparison.transfers if cell not in interesting]
    shown = interesting[:most] if most is not None else [*interesting, *rest]
    rows: list[Row] = [
        [
            Entry(_place(cell)),
            *(
                Entry(
                    estimate(gain, cell.digits),
                    mark=f" {GLYPHS[kind]}" if gain.known else "",
                    style=_style(gain, cell.better),
                    value=gain.value,
                )
                for gain, kind in zip(cell.gains, cell.kinds, strict=True)
            ),
            Entry(estimate(cell.difference, cell.digits), value=cell.difference.value),
            Entry(probability(cell.q_differs), value=cell.q_differs),
            Entry(_items(cell), value=cell.n),
            Entry(cell.outcome),
        ]
        for cell in shown
    ]
    counts = Counter(cell.outcome for cell in comparison.transfers)
    left = len(interesting) - len(shown)
    notes = [f"Of {counted(len(comparison.transfers), 'transfer')}: {_counts(counts)}."]
    if left > 0:
        notes.append(f"{left} more that hold or differ are not shown.")
    in_domain = sum(cell.in_domain for cell in comparison.cells)
    if in_domain:
        notes.append(f"{counted(in_domain, 'in-domain cell')} are left out.")
    notes += _unknown(comparison)
    between = "second - first" if len(comparison.names) == 2 else "largest difference"
    columns = ["transfer", *map(clean, comparison.names), between, "q differs", "items", "outcome"]
    return Table("Gains of the same transfer in every run, with 95 % intervals", columns, rows, notes)


def _unknown(comparison: Comparison) -> list[str]:
    """A sentence for each run that does not know some of the cells that are compared, with the reasons."""
    sentences = []
    for run, name in enumerate(comparison.names):
        cells = [cell for cell in comparison.cells if not cell.gains[run].known]
        if cells:
            reasons = Counter(cell.gains[run].reason or "not measured" for cell in cells)
            places = listed([_place(cell) for cell in cells[:NAMED]])
            more = f" and {len(cells) - NAMED} more" if len(cells) > NAMED else ""
            why = "; ".join(clean(reason) for reason, _ in reasons.most_common(NAMED))
            sentences.append(f"Not known in {clean(name)}: {places}{more} ({why}).")
    return sentences


def _items(cell: ComparedCell) -> str:
    """How many items a difference rests on; ``apart`` where the runs asked others."""
    return f"{cell.n:,}{'' if cell.paired else ' apart'}" if cell.n else UNKNOWN


def _style(gain: Interval, better: int) -> str:
    if not gain.clear:
        return ""
    return "better" if gain.value * better > 0 else "worse"


def _counts(counts: Mapping[Outcome, int]) -> str:
    words: dict[Outcome, str] = {
        "holds": "hold in all",
        "opposite": "differ and are of opposite sign",
        "differs": "differ",
        "in some": "are beyond noise in some, which cannot be told from the others",
        "within noise": "are within noise in all",
        "untested": "have no intervals",
    }
    return (
        ", ".join(f"{counts[name]} {text}" for name, text in words.items() if counts.get(name))
        or "none is known"
    )


def agreement_table(comparison: Comparison) -> Table:
    """Every two runs: correlations with their nulls, components, and what picks lose."""
    rows: list[Row] = []
    for pair in comparison.agreements:
        runs = f"{clean(comparison.names[pair.first])} / {clean(comparison.names[pair.second])}"
        entries = [_entry(part) for part in (pair.gains, pair.pattern, pair.sources, pair.traits.subspace)]
        losses = [_loss_entry(picks) for picks in (pair.picks, pair.back)]
        rows.append([Entry(runs), Entry(f"{pair.cells:,}", value=pair.cells), *entries, *losses])
    return Table(
        "How far the runs agree",
        ["runs", "cells", "gains r", "pattern r", "sources r", "components", "pick loses", "and back"],
        rows,
        [
            "gains: each target's in units of its own; pattern: beyond means of sources and targets; "
            "sources: their mean gains; components: mean cosine of the spaces of components; pick loses: "
            "by the first run's best source in the second, of what its best has over the average. * beyond "
            "permuted sources (targets for components), p < .05."
        ],
    )


def _entry(measure: Association) -> Entry:
    if not measure.value.known:
        return Entry(UNKNOWN)
    return Entry(estimate(measure.value, 2), mark=_star(measure.p), value=measure.value.value)


def _loss_entry(picks: Picks | None) -> Entry:
    if picks is None:
        return Entry(UNKNOWN)
    return Entry(_percent(picks.lost), mark=_star(picks.p), value=picks.lost.value)


def _star(p: float) -> str:
    return "*" if p < SIGNIFICANT else " "


def conditions_table(comparison: Comparison, most: int | None = MOST_CONDITIONS) -> Table:
    """What was not the same."""
    shown = comparison.conditions[:most]
    rows: list[Row] = [
        [clean(condition.name), *(_short(value, 60) for value in condition.values)] for condition in shown
    ]
    left = len(comparison.conditions) - len(shown)
    notes = [f"{left} more are not shown."] if left else []
    return Table("What was not the same", ["condition", *map(clean, comparison.names)], rows, notes)


def comparison_html(comparison: Comparison) -> str:
    """For a notebook."""
    texts = [f"{heading}: {text}." for heading, text in lines(comparison)]
    return to_notebook(title(comparison), *texts, cells_table(comparison), agreement_table(comparison))
